"""The arm on a desk: ``python -m robot_charger.sim.arm --evses 1 --seed 0``.

ROS node ``/arm_simulator``, as an arm's driver under ros2_control would look:
publishes ``/robot/joint_states`` and ``/robot/wrench`` (100 Hz), ``/robot/tool`` (50 Hz; all three 20 Hz while
everything rests), ``/robot/inlet_pose`` (10 Hz per vehicle, frame ``bayN``) and ``/robot/robot_description``
(latched); with ``--camera`` in place of the pose, and while somebody listens, ``/robot/camera/image/compressed``
(5 Hz, the bays in turn, frame ``bayN_camera``);
subscribes ``/robot/joint_trajectory`` and ``/robot/tool_command``.

Wire end ``arm``: hears `present` and `locked` of ``vehicleN`` and faults of ``cli``; tells ``vehicleN`` `mated` and
`depth_m`, and ``cli`` its truth. Physics runs in real time in a thread of its own, at 1 ms where anything touches
(see ``ArmWorld.advance``).
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import threading
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("MUJOCO_GL", "egl")  # before mujoco is imported; only the camera needs it

import numpy as np
import rclpy
from geometry_msgs.msg import PoseWithCovarianceStamped, WrenchStamped
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage, JointState
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from robot_charger import msg
from robot_charger.common.clock import now_ns
from robot_charger.common.executor import LeanExecutor
from robot_charger.common.parameters import ParameterError
from robot_charger.common.process import StopSignal, end_with_parent, refuse, require_logs, simulator_realtime
from robot_charger.common.topics import LATCHED, checked, topic
from robot_charger.common.wires import WireEnd, WireError
from robot_charger.robot.description import config_file
from robot_charger.robot.perception import Camera, load_camera
from robot_charger.robot.spatial import inverse, quaternion
from robot_charger.sim.arm.gazebo_classic import GazeboWorld, NoGazeboError
from robot_charger.sim.arm.physics import FAULTS, ArmWorld
from robot_charger.sim.arm.record import FRAME_MS, Frame, frame, save
from robot_charger.words.border import Border
from robot_charger.words.values import ToolCommand

PERIOD_MS = 10  # one wake-up of the physics thread
REST_MS = 50  # the same while everything rests
CATCH_UP_MS = 50  # time lost to a busy machine beyond this is dropped: to the robot the arm then seems to lag
MAX_AHEAD = 120.0  # [s]
PICTURE_S = 0.2  # between two pictures of the camera
BAY_REACH_M = 0.6  # of the tool from an inlet, within the protective field of its bay
SAFETY_S = 0.25  # a safety controller that was not heard for so long enables nothing
TELL_S = 0.05
REST_S = 0.3  # without a trajectory, before the arm asks for its enable again


class ArmSimulator(Node):
    """Topics and wires around one ArmWorld."""

    def __init__(self, world: ArmWorld, record: bool = False, camera: Camera | None = None) -> None:
        super().__init__("arm_simulator")
        self.border = Border(lambda text: self.get_logger().warning(text))
        self.frames: list[Frame] | None = [] if record else None
        self.world, self._lock = world, threading.Lock()
        self._stirred = threading.Event()  # something was commanded: an end to the rest
        self._camera = camera
        self.can_see = threading.Event()  # the renderer is made: it takes a second in which nothing else runs
        self._pictures = self._publisher("/robot/camera/image/compressed") if camera else None
        self.refused = 0  # trajectories that no controller would take
        self._joint_states = self._publisher("/robot/joint_states")
        self._wrench = self._publisher("/robot/wrench")
        self._tool = self._publisher("/robot/tool")
        self._pose = self._publisher("/robot/inlet_pose")
        self._description = self.create_publisher(String, "/robot/robot_description", LATCHED)
        self._description.publish(String(data=config_file("arm/arm.urdf").read_text()))
        for name, callback in (
            ("/robot/joint_trajectory", self._on_trajectory),
            ("/robot/tool_command", self._on_tool_command),
        ):
            full, kind, qos = topic(name)
            self.create_subscription(kind, full, checked(self.border, full, kind, callback), qos)
        self.wires = WireEnd("arm", on_signals=self._on_signals)
        self._asks = False  # for the safety controller's enable
        self._sensed: tuple[float, dict[str, Any]] = (0.0, {})  # by the safety controller
        self._commanded_s = 0.0  # when a trajectory was last refused or under way

    def _publisher(self, name: str) -> Any:
        full, kind, qos = topic(name)
        return self.create_publisher(kind, full, qos)

    # Commands.
    def _on_trajectory(self, trajectory: JointTrajectory) -> None:
        try:
            order = [list(trajectory.joint_names).index(name) for name in self.world.names]
            points = []
            for point in trajectory.points:
                seconds = point.time_from_start.sec + point.time_from_start.nanosec * 1e-9
                q = [float(point.positions[i]) for i in order]
                if not 0.0 <= seconds <= MAX_AHEAD or not all(map(math.isfinite, q)):
                    raise ValueError("not finite or too far ahead")
                points.append((seconds, q))
        except (ValueError, IndexError) as error:
            self.refused += 1
            if self.refused in (1, 10, 100, 1000):
                self.get_logger().warning(f"trajectory refused ({self.refused} so far): {error}")
            return
        with self._lock:
            self.world.trajectory(points)
        self._commanded_s = time.monotonic()
        self._stirred.set()

    def _on_tool_command(self, command: ToolCommand) -> None:
        with self._lock:
            self.world.grip(bool(command.grip))
            self.world.set_limp(bool(command.limp))
        self._stirred.set()

    def _on_signals(self, sender: str, signals: dict[str, Any]) -> None:
        with self._lock, contextlib.suppress(KeyError, ValueError, TypeError):
            if sender == "cli" and signals.get("fault") in FAULTS:
                self.world.set_fault(signals["fault"], bool(signals.get("on", True)))
            elif sender.startswith("vehicle"):
                stall = self.world.stalls[int(sender[7:])]
                if bool(signals["present"]) != stall.present:
                    (self.world.arrive if signals["present"] else self.world.leave)(stall.number)
                self.world.lock(stall.number, bool(signals["locked"]))

    # Physics.
    def live(self, stop: threading.Event) -> None:
        """``run``; the process does not outlive its physics."""
        try:
            self.run(stop)
        finally:
            stop.set()

    def run(self, stop: threading.Event) -> None:
        """Physics and publications in real time until ``stop``."""
        began = time.monotonic()
        done = 0  # [ms]
        told: dict[int, bool] = {}
        cpu = 0.0
        while not stop.is_set():
            due = int((time.monotonic() - began) * 1000) - done
            resting = self.world.asleep
            if due > CATCH_UP_MS and not resting:
                if due > 500:
                    used = time.thread_time() - cpu
                    self.get_logger().warning(f"physics stood still for {due} ms ({used * 1e3:.0f} ms of CPU)")
                done += due - CATCH_UP_MS
                due = CATCH_UP_MS
            cpu = time.thread_time()
            before, done = done, done + max(due, 0)
            with self._lock:
                self.world.advance(max(due, 0))

            def every(period_ms: int, before: int = before, after: int = done) -> bool:
                return before // period_ms != after // period_ms

            if every(REST_MS if resting else 10):
                self._obey_safety()
                self._publish_motion()
            if every(REST_MS if resting else 20):
                self._publish_tool()
            if every(100) and self._camera is None:
                self._publish_poses()
            changed = any(told.get(n) != s.mated for n, s in self.world.stalls.items())
            if changed or every(50):
                told = {n: s.mated for n, s in self.world.stalls.items()}
                self._tell_vehicles()
            if every(200):
                self._tell_truth()
            if self.frames is not None and every(FRAME_MS) and not resting:
                with self._lock:
                    self.frames.append(frame(self.world))
            period = REST_MS if resting else PERIOD_MS
            ahead = began + (done // period + 1) * period * 1e-3 - time.monotonic()
            if ahead > 0.0 and resting:
                self._stirred.wait(ahead)
            elif ahead > 0.0:
                time.sleep(ahead)
            self._stirred.clear()

    def _obey_safety(self) -> None:
        """Ask for the safety controller's enable and hold without it; a desk without a controller has none to obey."""
        age_s, now_s = self.wires.age_s("safety"), time.monotonic()
        if age_s == math.inf:
            return
        enabled = age_s < SAFETY_S and bool(self.wires.signals("safety").get("enable"))
        with self._lock:
            if not enabled:
                self.world.hold()
            moving = self.world.commanded
            near, zone = self.world.near(BAY_REACH_M)
        # After a stop it asks again only when no motion was commanded for a while: the same command does not go on.
        self._asks = enabled or (now_s - self._commanded_s > REST_S and not self._asks)
        signals = {"request": self._asks, "moving": moving, "passive": False, "near": near, "zone": zone}
        if signals != self._sensed[1] or now_s - self._sensed[0] > TELL_S:
            self._sensed = now_s, signals
            self.wires.send("safety", signals)

    def _publish_motion(self) -> None:
        with self._lock:
            joints, wrench = self.world.joints(), self.world.wrench()
        stamp = self.get_clock().now().to_msg()
        if joints is not None:
            state = JointState(name=list(self.world.names), position=joints[0].tolist(), velocity=joints[1].tolist())
            state.header.stamp = stamp
            self._joint_states.publish(state)
        if wrench is not None:
            message = WrenchStamped()
            message.header.stamp, message.header.frame_id = stamp, "wrench"
            fx, fy, fz, tx, ty, tz = wrench.tolist()
            force, torque = message.wrench.force, message.wrench.torque
            force.x, force.y, force.z = fx, fy, fz
            torque.x, torque.y, torque.z = tx, ty, tz
            self._wrench.publish(message)

    def _publish_tool(self) -> None:
        with self._lock:
            closed, present, end_stop, holster = self.world.tool()
        self._tool.publish(
            msg.ToolState(
                stamp_ns=now_ns(),
                gripper_closed=closed,
                plug_present=present,
                end_stop=end_stop,
                holster_occupied=holster,
            )
        )

    def _publish_poses(self) -> None:
        spread = self.world.parking
        variances = [spread.estimate_m**2] * 3 + [math.radians(spread.estimate_deg) ** 2] * 3
        for number in self.world.stalls:
            with self._lock:
                estimate = self.world.estimate(number)
            if estimate is None:
                continue
            pose = inverse(self.world.site.bays[number].frame) @ estimate
            message = PoseWithCovarianceStamped()
            message.header.stamp, message.header.frame_id = self.get_clock().now().to_msg(), f"bay{number}"
            at, turn = message.pose.pose.position, message.pose.pose.orientation
            at.x, at.y, at.z = pose[:3, 3].tolist()
            turn.x, turn.y, turn.z, turn.w = quaternion(pose[:3, :3])
            message.pose.covariance = np.diag(variances).ravel()
            self._pose.publish(message)

    def look(self, stop: threading.Event) -> None:
        """The camera's thread: pictures of the bays in turn, while somebody looks at them."""
        import cv2

        from robot_charger.sim.arm.camera import BayCamera

        assert self._camera is not None and self._pictures is not None
        camera, turn = BayCamera(self.world, self._camera), 0
        self.can_see.set()
        while not stop.wait(PICTURE_S):
            if not self._pictures.get_subscription_count():
                continue
            evse = list(self.world.stalls)[turn % len(self.world.stalls)]
            turn += 1
            with self._lock:
                camera.capture()
            message = CompressedImage(format="jpeg")
            message.header.stamp, message.header.frame_id = self.get_clock().now().to_msg(), f"bay{evse}_camera"
            message.data = cv2.imencode(".jpg", camera.picture(evse), [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
            self._pictures.publish(message)

    def _tell_vehicles(self) -> None:
        for number, stall in self.world.stalls.items():
            self.wires.send(f"vehicle{number}", {"mated": stall.mated, "depth_m": max(0.0, stall.depth)})

    def _tell_truth(self) -> None:
        truth = {str(n): stall.truth() for n, stall in self.world.stalls.items()}
        last = truth[str(self.world.last_used)]
        self.wires.send("cli", {**last, "evses": truth, "guard_trips": self.world.trips})


def main() -> None:
    parser = argparse.ArgumentParser(prog="robot_charger.sim.arm", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--evses", type=int, nargs="+", default=[1], help="EVSEs whose vehicles and plugs there are, of 1 to 4"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the parking poses (default 0)")
    parser.add_argument(
        "--connector", default="ccs2", help="plugs, inlets: ccs2, ccs1, nacs, chademo, gbt, acdp, type2 (default ccs2)"
    )
    parser.add_argument(
        "--kind", default="front", help="of vehicles, of config/arm/vehicles.yaml; mixed: any, by seed (default front)"
    )
    parser.add_argument(
        "--camera", action="store_true", help="no poses: pictures of config/arm/camera.yaml's camera in their place"
    )
    parser.add_argument(
        "--engine", choices=("mujoco", "gazebo"), default="mujoco", help="of the physics; gazebo: Classic 11, one EVSE"
    )
    parser.add_argument("--record", metavar="FILE", help="write the motion here at the end, for sim.arm.film")
    arguments = parser.parse_args()
    if arguments.seed < 0:
        parser.error("--seed must be 0 or above")
    end_with_parent()
    stop = StopSignal()
    try:
        camera = load_camera() if arguments.camera else None
        engine = GazeboWorld if arguments.engine == "gazebo" else ArmWorld
        world = engine(arguments.evses, arguments.seed, None, arguments.connector, camera, arguments.kind)
    except NoGazeboError as error:
        refuse(f"robot_charger.sim.arm: {error}")
    except (ParameterError, KeyError, ValueError) as error:
        asked = f"--evses {arguments.evses} --connector {arguments.connector} --kind {arguments.kind}"
        refuse(f"robot_charger.sim.arm: {asked}: {error!r}")
    require_logs()
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = ArmSimulator(world, bool(arguments.record), camera)
    except WireError as error:
        refuse(f"robot_charger.sim.arm: {error}")
    simulator_realtime(25)
    physics = threading.Thread(target=node.live, args=(stop.event,), name="physics")
    threads = [physics]
    if camera is not None:
        threads.append(threading.Thread(target=node.look, args=(stop.event,), name="camera"))
        threads[-1].start()
        while threads[-1].is_alive() and not node.can_see.wait(0.1):
            pass
    physics.start()
    executor = LeanExecutor()
    executor.add_node(node)
    try:
        while not stop.event.is_set():
            executor.spin_once(timeout_sec=0.1)
    finally:
        stop.event.set()
        for thread in threads:
            thread.join()
        node.wires.close()
        world.close()
        if node.frames is not None:
            save(Path(arguments.record), arguments.evses, node.frames, arguments.connector)
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
