"""What Gazebo's arm lacks: ``python -m robot_charger.sim.arm.gazebo_tool --seed 0``, with the seed of its world.

ROS node ``/gazebo_tool``, in place of ``/arm_simulator``: publishes ``/robot/tool`` (50 Hz) and ``/robot/inlet_pose``
(10 Hz, truth with noise), subscribes ``/robot/tool_command`` and ``/robot/joint_states``, and through the bridge hears
the plug's true pose (``/robot/plug_pose``) and attaches or detaches the plug (``/robot/grip/attach``, ``detach``).
Wire end ``arm``: tells ``vehicle1`` `mated` and `depth_m` as the MuJoCo desk does. The vehicle always stands there.
"""

from __future__ import annotations

import argparse
import math
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import JointState
from std_msgs.msg import Empty

from robot_charger import msg
from robot_charger.common.clock import now_ns
from robot_charger.common.executor import LeanExecutor
from robot_charger.common.process import StopSignal, end_with_parent, refuse
from robot_charger.common.topics import checked, topic
from robot_charger.common.wires import WireEnd, WireError
from robot_charger.robot.description import config_file
from robot_charger.robot.kinematics import Kinematics
from robot_charger.robot.spatial import Array, from_quaternion, inverse, quaternion, transform
from robot_charger.sim.arm.gazebo import ATTACH, DETACH, EVSE, parked
from robot_charger.sim.arm.physics import GRIP_REACH, ArmWorld
from robot_charger.words.border import Border

SEATED_M = 0.0012  # an end-stop closes this much before the full depth: contacts of Gazebo give way
GIVE_M = 0.004  # the mount's deflection, which joint angles do not tell


class Gripper:
    """Gripper, end-stop and holster, told from where arm and plug truly are. Without ROS."""

    def __init__(self, desk: ArmWorld) -> None:
        self.desk, self.kinematics = desk, Kinematics(config_file("arm/arm.urdf"))
        self.gripper = self.kinematics.forward(desk.site.park)
        self.plug = desk.site.bays[EVSE].holster
        self.closed = False
        self.attached = True  # Gazebo joins plug and gripper when it starts

    def command(self, closed: bool) -> bool | None:
        """Close or open. True: the plug shall be attached now, False: detached, None: neither."""
        self.closed = closed
        if closed and not self.attached and self.in_reach:
            self.attached = True
            return True
        if not closed:
            self.attached = False
            return False
        return None

    @property
    def in_reach(self) -> bool:
        apart = inverse(self.gripper) @ self.plug
        return bool(np.linalg.norm(apart[:3, 3]) < GRIP_REACH + GIVE_M and apart[0, 0] > 0.98)

    @property
    def depth(self) -> float:
        """Of the nose in the inlet, below zero outside [m]."""
        nose = inverse(self.desk.true_inlet(EVSE)) @ self.plug @ transform((self.desk.connector.nose, 0.0, 0.0))
        return float(nose[0, 3]) if math.hypot(nose[1, 3], nose[2, 3]) < 0.02 else -1.0

    def state(self) -> dict[str, bool]:
        """Fields of ToolState."""
        away = inverse(self.desk.site.bays[EVSE].holster) @ self.plug
        return {
            "gripper_closed": self.closed,
            "plug_present": self.attached or self.in_reach,
            "end_stop": self.depth > self.desk.connector.depth - SEATED_M,
            "holster_occupied": not self.attached and bool(np.linalg.norm(away[:3, 3]) < 0.02),
        }


def _array(pose: Any) -> Array:
    p, r = pose.position, pose.orientation
    return from_quaternion((p.x, p.y, p.z), (r.x, r.y, r.z, r.w))


class GazeboTool(Node):
    """Topics and wires around one Gripper."""

    def __init__(self, desk: ArmWorld) -> None:
        super().__init__("gazebo_tool")
        self.border = Border(lambda text: self.get_logger().warning(text))
        self.desk, self.gripper = desk, Gripper(desk)
        self._grip = {on: self.create_publisher(Empty, name, 10) for on, name in ((True, ATTACH), (False, DETACH))}
        self._tool, self._pose = (self.create_publisher(kind, name, qos) for name, kind, qos in (
            topic("/robot/tool"), topic("/robot/inlet_pose")))  # fmt: skip
        for name, callback in (("/robot/joint_states", self._on_joints), ("/robot/tool_command", self._on_command)):
            full, kind, qos = topic(name)
            self.create_subscription(kind, full, checked(self.border, full, kind, callback), qos)
        self.create_subscription(PoseStamped, "/robot/plug_pose", self._on_plug, 10)
        self.wires = WireEnd("arm", on_signals=lambda sender, signals: None)
        self.create_timer(0.02, self._tell)
        self._ticks = 0

    def _on_joints(self, message: JointState) -> None:
        q = [message.position[list(message.name).index(name)] for name in self.desk.names]
        self.gripper.gripper = self.gripper.kinematics.forward(np.array(q))

    def _on_plug(self, message: PoseStamped) -> None:
        self.gripper.plug = _array(message.pose)

    def _on_command(self, message: msg.ToolCommand) -> None:
        joined = self.gripper.command(bool(message.grip))
        if joined is not None:
            self._grip[joined].publish(Empty())

    def _tell(self) -> None:
        self._tool.publish(msg.ToolState(stamp_ns=now_ns(), **self.gripper.state()))
        self._ticks += 1
        if not self.gripper.closed and self._ticks % 50 == 0:
            self._grip[False].publish(Empty())  # the first ones may come before Gazebo listens
            self.gripper.attached = False
        if self._ticks % 5:
            return
        depth = self.gripper.depth
        mated = depth > self.desk.connector.depth - 0.002
        self.wires.send(f"vehicle{EVSE}", {"mated": mated, "depth_m": max(0.0, depth)})
        estimate, spread = self.desk.estimate(EVSE), self.desk.parking
        assert estimate is not None
        pose = inverse(self.desk.site.bays[EVSE].frame) @ estimate
        message = PoseWithCovarianceStamped()
        message.header.stamp, message.header.frame_id = self.get_clock().now().to_msg(), f"bay{EVSE}"
        at, turn = message.pose.pose.position, message.pose.pose.orientation
        at.x, at.y, at.z = pose[:3, 3].tolist()
        turn.x, turn.y, turn.z, turn.w = quaternion(pose[:3, :3])
        variances = [spread.estimate_m**2] * 3 + [math.radians(spread.estimate_deg) ** 2] * 3
        message.pose.covariance = np.diag(variances).ravel()
        self._pose.publish(message)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="robot_charger.sim.arm.gazebo_tool", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--seed", type=int, default=0, help="of the world (default 0)")
    parser.add_argument("--kind", default="front", help="of vehicle, as in the world (default front)")
    parser.add_argument("--connector", default="ccs2", help="plug and inlet, as in the world (default ccs2)")
    arguments, ros = parser.parse_known_args()
    end_with_parent()
    stop = StopSignal()
    rclpy.init(args=ros, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = GazeboTool(parked(arguments.seed, arguments.kind, arguments.connector))
    except (KeyError, ValueError, WireError) as error:
        refuse(f"robot_charger.sim.arm.gazebo_tool: {error}")
    executor = LeanExecutor()
    executor.add_node(node)
    try:
        while not stop.event.is_set():
            executor.spin_once(timeout_sec=0.1)
    finally:
        node.wires.close()
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
