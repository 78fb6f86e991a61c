"""Pictures of the desk's arm. Without a display, MUJOCO_GL=egl (or osmesa) must be set before mujoco is imported."""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

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
