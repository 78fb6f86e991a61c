"""The wrench as any driver publishes it, turned into gripper_link's axes at the sensor of ``arm_file``."""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np

from robot_charger.robot.description import Tool
from robot_charger.robot.kinematics import GRIPPER
from robot_charger.robot.spatial import Array, inverse, transform


class Frames:
    """Links of the URDF that are fixed to gripper_link."""

    def __init__(self, urdf: Path, tool: Tool) -> None:
        spec = mujoco.MjSpec.from_string(urdf.read_text())
        spec.compiler.fusestatic = False
        model = spec.compile()
        data = mujoco.MjData(model)
        mujoco.mj_kinematics(model, data)
        gripper = model.body(GRIPPER).id
        root = model.body_weldid[gripper]

        def pose(body: int) -> Array:
            return transform(data.xpos[body], data.xmat[body].reshape(3, 3))

        self._poses = {
            model.body(i).name: inverse(pose(gripper)) @ pose(i)
            for i in range(model.nbody)
            if model.body_weldid[i] == root
        }
        self._sensor = np.array([-tool.wrench_distance, 0.0, 0.0])

    def wrench(self, frame: str, wrench: Array) -> Array:
        """``wrench`` (6,) of a header's frame [N, Nm]. An empty frame counts as the sensor's own.

        Names of simulators ("arm::wrench_sensor::wrench", "arm/wrench") count by their last part. Raises KeyError for a
        frame that is not fixed to the tool.
        """
        name = frame.replace("::", "/").rsplit("/", 1)[-1]
        if name == "":
            return wrench
        if name not in self._poses:
            raise KeyError(f"frame {frame} is not fixed to {GRIPPER}: one of {', '.join(sorted(self._poses))}")
        pose = self._poses[name]
        turn = pose[:3, :3]
        force = turn @ wrench[:3]
        torque = turn @ wrench[3:] + np.cross(pose[:3, 3] - self._sensor, force)
        return np.concatenate([force, torque])
