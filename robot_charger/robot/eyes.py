"""The robot's eyes: an inlet estimator like any other, from pictures of a bay to ``/robot/inlet_pose``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from geometry_msgs.msg import PoseWithCovarianceStamped

from robot_charger.common.node import StartError
from robot_charger.robot.errors import NoPose, RobotError
from robot_charger.robot.spatial import Array, quaternion

if TYPE_CHECKING:
    from robot_charger.robot.perception import Sighting


LEAST_SHARE = 0.6  # of a bay's workspace in which all marks are seen; corners of it are no parked vehicle's


class Eyes:
    """The cameras of the bays. Pictures are asked for, and looked at, only while ``node.looked_for()`` says so.

    That gives, for every EVSE whose inlet is to be found, the connectors that it may be for: of ``connectors``, else
    StartError. ``places``: of each bay, the inlet of a well parked vehicle in the bay's frame, and the workspace (3,).
    """

    def __init__(self, node: Any, file: str, connectors: set[str], places: list[tuple[Array, Array]]) -> None:
        import cv2  # a second to load: only where a camera is

        from robot_charger.robot.perception import InletEstimator, load_camera, share_seen

        self._decode, self._grey = cv2.imdecode, cv2.IMREAD_GRAYSCALE
        camera = load_camera(file)
        if missing := sorted(connectors - set(camera.marks.first)):
            raise StartError(f"parameter camera_file = {file}: marks.first names no mark for {', '.join(missing)}")
        self._estimator = InletEstimator(camera)
        self.share = min((share_seen(camera, inlet, size) for inlet, size in places), default=1.0)
        if self.share < LEAST_SHARE:
            node.get_logger().warning(
                f"camera_file {file}: the camera sees all marks in {self.share:.0%} of a bay's workspace: move it back"
            )
        self._node = node
        self._poses = node.publisher("/robot/inlet_pose")
        self._subscription: Any = None
        self.asked = False  # somebody else listens to the poses
        self.text = "closed"

    def tend(self) -> None:
        """Open while there is something to look for. A recording takes what there is and asks for nothing."""
        listeners = self._node.get_subscriptions_info_by_topic("/robot/inlet_pose")
        self.asked = any(end.node_name not in (self._node.get_name(), "recorder") for end in listeners)
        if not self._node.looked_for():
            self.close()
        elif self._subscription is None:
            self._subscription = self._node.subscribe("/robot/camera/image/compressed", self._on_picture)

    def close(self) -> None:
        """Look no longer, until the next ``tend``."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription, self.text = None, "closed"

    def end(self) -> None:
        """Close for good."""
        self.close()
        self._node.destroy_publisher(self._poses)

    def _on_picture(self, message: Any) -> None:
        wanted = self._node.looked_for()
        evse = next((n for n in wanted if message.header.frame_id == f"bay{n}_camera"), None)
        if evse is None:
            return
        try:
            picture = self._decode(np.frombuffer(message.data, np.uint8), self._grey) if len(message.data) else None
            if picture is None:
                raise NoPose("a picture that cannot be decoded")
            seen = self._estimator.look(np.asarray(picture, np.uint8), *wanted[evse])
        except NoPose as nothing:
            self.text = str(nothing)
        except RobotError as instead:
            self.text = str(instead)
            self._node.see_instead(evse, message.header, instead)
        else:
            self.text = f"sees the inlet of EVSE {evse} to {seen.sigma * 1e3:.1f} mm"
            self._tell(evse, message.header, seen)

    def _tell(self, evse: int, header: Any, seen: Sighting) -> None:
        message = PoseWithCovarianceStamped()
        message.header.stamp, message.header.frame_id = header.stamp, f"bay{evse}"
        at, turn = message.pose.pose.position, message.pose.pose.orientation
        at.x, at.y, at.z = seen.pose[:3, 3].tolist()
        turn.x, turn.y, turn.z, turn.w = quaternion(seen.pose[:3, :3])
        axes = np.kron(np.eye(2), seen.pose[:3, :3])  # from the inlet's own to the bay's
        message.pose.covariance = (axes @ seen.covariance @ axes.T).ravel()
        self._poses.publish(message)
