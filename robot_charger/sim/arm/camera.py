"""Pictures of the desk's arm. Without a display, MUJOCO_GL=egl (or osmesa) must be set before mujoco is imported."""

from __future__ import annotations

import math

import mujoco
import numpy as np
from numpy.typing import NDArray

from robot_charger.robot.perception import Camera
from robot_charger.robot.spatial import Array
from robot_charger.sim.arm.physics import ArmWorld


class Spectator:
    """A camera beside the bay. ``picture`` renders what the world looks like now."""

    def __init__(self, world: ArmWorld, width: int = 960, height: int = 720) -> None:
        self._world = world
        self._renderer = mujoco.Renderer(world.model, height, width)
        self.view = mujoco.MjvCamera()
        self.view.lookat[:] = (0.62, 0.05, 0.75)
        self.view.distance, self.view.azimuth, self.view.elevation = 1.9, 62.0, -14.0

    def picture(self) -> NDArray[np.uint8]:
        """RGB image (height, width, 3)."""
        self._renderer.update_scene(self._world.data, self.view)
        return np.asarray(self._renderer.render(), dtype=np.uint8)

    def close(self) -> None:
        self._renderer.close()


class BayCamera:
    """What config/arm/camera.yaml's camera sees of one bay. Used by the thread that made it, and by no other."""

    def __init__(self, world: ArmWorld, camera: Camera) -> None:
        self._world, self._camera = world, camera
        self._data = mujoco.MjData(world.model)
        self._renderer = mujoco.Renderer(world.model, camera.height, camera.width)
        for flag in (
            mujoco.mjtRndFlag.mjRND_SHADOW,
            mujoco.mjtRndFlag.mjRND_REFLECTION,
            mujoco.mjtRndFlag.mjRND_SKYBOX,
        ):
            self._renderer.scene.flags[flag] = 0
        self._view = mujoco.MjvCamera()

    def capture(self) -> None:
        """Take over how everything stands now; the caller holds the world's lock."""
        data, now = self._data, self._world.data
        data.qpos[:], data.mocap_pos[:], data.mocap_quat[:] = now.qpos, now.mocap_pos, now.mocap_quat

    def picture(self, evse: int) -> NDArray[np.uint8]:
        """Grey picture (height, width) of the bay of ``evse`` as captured."""
        model, camera = self._world.model, self._camera
        mujoco.mj_kinematics(model, self._data)
        mujoco.mj_camlight(model, self._data)
        pose: Array = self._world.site.bays[evse].frame @ camera.pose
        # A free camera cannot be rolled or placed: it is told by a point ahead of it, and the lens by the model.
        ahead = pose[:3, 0]
        self._view.lookat[:], self._view.distance = pose[:3, 3] + ahead, 1.0
        self._view.azimuth = math.degrees(math.atan2(ahead[1], ahead[0]))
        self._view.elevation = math.degrees(math.asin(ahead[2]))
        model.vis.global_.fovy = math.degrees(2.0 * math.atan(0.5 * camera.height / camera.matrix[1, 1]))
        self._renderer.update_scene(self._data, self._view)
        rgb = self._renderer.render().astype(np.float32)
        return np.asarray(rgb @ np.array([0.299, 0.587, 0.114], np.float32), dtype=np.uint8)

    def close(self) -> None:
        self._renderer.close()
