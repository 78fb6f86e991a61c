"""The robot's eyes: from pictures of a bay to the inlet's pose, for the robot's node."""

from __future__ import annotations

from typing import Any

import numpy as np

from robot_charger.robot.errors import NoPose, RobotError
from robot_charger.robot.motion import ConnectionRobot


class Eyes:
    """The camera of the bays: its pictures are asked for, and looked at, only while a goal is executed."""

    def __init__(self, node: Any, robot: ConnectionRobot, file: str) -> None:
        import cv2  # a second to load: only where a camera is

        from robot_charger.robot.perception import InletEstimator, load_camera

        self._decode, self._grey = cv2.imdecode, cv2.IMREAD_GRAYSCALE
        self._estimator = InletEstimator(load_camera(file))
        self._node, self._robot = node, robot
        self._subscription: Any = None
        self.text = "closed"

    def open(self) -> None:
        if self._subscription is None:
            self._subscription = self._node.subscribe("/robot/camera/image/compressed", self._on_picture)

    def close(self) -> None:
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription, self.text = None, "closed"

    def _on_picture(self, message: Any) -> None:
        robot, evse = self._robot, self._robot.bay
        if message.header.frame_id != f"bay{evse}_camera" or robot.connector is None:
            return
        stamp = self._node.stamped(message.header)
        try:
            picture = self._decode(np.frombuffer(message.data, np.uint8), self._grey)
            if picture is None:
                raise NoPose("a picture that cannot be decoded")
            seen = self._estimator.look(np.asarray(picture, np.uint8), robot.connector.name)
        except NoPose as nothing:
            self.text = str(nothing)
        except RobotError as instead:
            self.text = str(instead)
            self._node.see(evse, stamp, instead)
        else:
            self.text = f"sees the inlet of EVSE {evse} to {seen.sigma * 1e3:.1f} mm"
            self._node.see(evse, stamp, robot.site.bays[evse].frame @ seen.pose, seen.sigma)
