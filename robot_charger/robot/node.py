"""The robot's node: ``python -m robot_charger.robot.node``, name ``/robot``.

Serves: actions ``/robot/connect``, ``/robot/release``, ``/robot/disconnect`` (one goal at a time, those of other
EVSEs queue, see ``robot_charger.robot.jobs``; cancel at any moment: the arm then holds).
Publishes: ``/robot/state`` (20 Hz and on every change of mode), ``/robot/joint_trajectory`` (100 Hz while it moves,
each reaching ``horizon_s`` ahead), ``/robot/tool_command``.
Subscribes: ``/robot/joint_states``, ``/robot/wrench``, ``/robot/tool``, ``/robot/inlet_pose`` (frame ``bayN`` or
``base_link``), ``/safety/state``, and per EVSE ``robot/permit`` and ``bay/state``.
With ``camera_file`` it subscribes to ``/robot/camera/image/compressed`` (frame ``bayN_camera``) and publishes
``/robot/inlet_pose``, while a goal is executed or, for vehicles in the bays, while somebody else listens to it.
Parameters: ``robot_charger.robot.parameters.RobotParameters``.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseWithCovarianceStamped, WrenchStamped
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from robot_charger import action, msg
from robot_charger.common.clock import Ticker, now_ns
from robot_charger.common.faults import FaultReport, Severity
from robot_charger.common.node import OK, WARN, Diagnosis, StartError, StationNode, run
from robot_charger.common.process import realtime
from robot_charger.common.topics import fill
from robot_charger.robot.description import config_file, load_site
from robot_charger.robot.errors import Busy, Cancelled, ErrorCode, RobotError
from robot_charger.robot.eyes import Eyes
from robot_charger.robot.frames import Frames
from robot_charger.robot.jobs import Job, Jobs
from robot_charger.robot.kinematics import Kinematics
from robot_charger.robot.memory import Memory
from robot_charger.robot.motion import PERIOD, Command, ConnectionRobot, Mode, Result, Senses
from robot_charger.robot.parameters import RobotParameters
from robot_charger.robot.spatial import Array, from_quaternion, inverse
from robot_charger.words.values import BayState, MotionPermit, SafetyState, ToolState, Zone

PERMIT_SECONDS = 0.3
BAY_AGE = 1.0  # oldest bay state that lets the arm move [s]
STATE_TICKS, FEEDBACK_TICKS = 5, 20
MEMORY_S = 0.1  # how often what changed is written
EYES_S = 0.5  # how often the need to look is looked at
IDLE_TICKS = 5  # without a goal and with nothing to follow only every so many ticks count
REALTIME_PRIORITY = 20


@dataclass
class Bays:
    """Newest permit and bay state of one EVSE, with the time of each [s]."""

    permit: MotionPermit = MotionPermit()
    state: BayState = BayState()
    state_at: float = -math.inf
    arrived: bool = False  # its vehicle came, and no goal has been sent since


class RobotNode(StationNode):
    def __init__(self) -> None:
        super().__init__("robot", RobotParameters)
        self._lock = threading.Lock()  # around the logic and what the callbacks fill in
        self._robot: ConnectionRobot | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._servers: list[ActionServer] = []
        self._topics: list[Any] = []
        self._handle: Any = None  # of the running goal
        self._kind: Any = None  # its action
        self._jobs = Jobs()  # goals that wait for the arm
        self._fault: tuple[FaultReport, int, str] | None = None  # of the last goal: what, EVSE, session
        self._senses = Senses(0.0)
        self._stamps = {"joints": -math.inf, "wrench": -math.inf, "tool": -math.inf}
        self._bays: dict[int, Bays] = {}
        self._eyes: Eyes | None = None
        self._unplaced = self._bad = 0
        self._limp = False  # what the arm was asked for last
        self._ticker = Ticker(PERIOD)

    # Life cycle.
    def configure(self) -> None:
        p: RobotParameters = self.parameters
        site = load_site(p.bays_file, p.arm_file, p.connectors_file)
        missing = [n for n in p.evses if n not in site.bays]
        if missing:
            raise StartError(f"parameter evses = {p.evses}: no bay {missing} in {p.bays_file}, only {list(site.bays)}")
        self._kinematics = Kinematics(config_file(p.arm_urdf))
        robot = self._robot = ConnectionRobot(site, self._kinematics, p)
        self._frames, self._frame_refused = Frames(config_file(p.arm_urdf), site.tool), ""
        self._memory = self._recall(p.memory, robot)
        self._bays = {n: Bays() for n in p.evses}
        self._state = self.publisher("/robot/state")
        self._trajectory = self.publisher("/robot/joint_trajectory")
        self._tool_command = self.publisher("/robot/tool_command")
        subscribe = self.subscribe
        self._topics = [
            subscribe("/robot/joint_states", self._on_joints),
            subscribe("/robot/wrench", self._on_wrench),
            subscribe("/robot/tool", self._on_tool),
            subscribe("/robot/inlet_pose", self._on_pose),
            subscribe("/safety/state", self._on_safety),
        ]
        for n, bay in self._bays.items():
            self._topics += [
                subscribe("robot/permit", partial(setattr, bay, "permit"), n),
                subscribe("bay/state", partial(self._on_bay, n), n),
            ]
        self._servers = [
            self._serve(action.Connect, "/robot/connect", lambda g, t: robot.start_connect(g.evse, g.connector, t)),
            self._serve(action.Release, "/robot/release", lambda g, t: robot.start_release(g.evse, t)),
            self._serve(action.Disconnect, "/robot/disconnect", lambda g, t: robot.start_disconnect(g.evse, t)),
        ]
        if p.camera_file:
            kinds = {name for n in p.evses for name in site.bays[n].connectors}
            bays = [site.bays[n] for n in p.evses]
            places = [(inverse(bay.frame) @ bay.inlet, bay.workspace) for bay in bays]
            self._eyes = Eyes(self, p.camera_file, kinds, places)
            self._eyes_timer = self.create_timer(EYES_S, self._eyes.tend)

    def _recall(self, name: str, robot: ConnectionRobot) -> Memory:
        path = Path(name) if name else None
        if path is not None and not path.parent.is_dir():
            raise StartError(f"parameter memory = {path}: {path.parent} is no directory")
        memory = Memory(path, robot)
        for evse, engaged in robot.arm.engaged.items():
            self.get_logger().info(f"EVSE {evse}: {engaged.connector.name} was in the inlet before the restart")
        self._memory_timer = self.create_timer(MEMORY_S, memory.tend)
        return memory

    def activate(self) -> None:
        self._stop.clear()
        self._thread = self.thread("motion", self._move)
        self._thread.start()

    def deactivate(self) -> None:
        self.make_safe()

    def cleanup(self) -> None:
        self.make_safe()
        for server in self._servers:
            server.destroy()
        for topic in self._topics:
            self.destroy_subscription(topic)
        for publisher in (self._state, self._trajectory, self._tool_command):
            self.destroy_publisher(publisher)
        if self._eyes is not None:
            self.destroy_timer(self._eyes_timer)
            self._eyes.end()
            self._eyes = None
        self.destroy_timer(self._memory_timer)
        self._servers, self._topics, self._robot = [], [], None

    def make_safe(self) -> None:
        """The arm holds: what was sent ends within ``horizon_s``, and nothing more is sent."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=1.0)
            self._thread = None
        if self._eyes is not None:
            self._eyes.close()
        with self._lock:
            waiting = self._jobs.take_all()
        for job in waiting:
            self._refuse(job, Cancelled("the robot's node stopped"))
        if self._robot is not None and self._robot.busy:
            self._robot.cancel()
            self._conclude()

    def diagnose(self) -> Diagnosis:
        robot = self._robot
        if robot is None:
            return OK, "", {}
        values = {
            "mode": robot.mode.name.lower(),
            "joint states age [s]": round(now_ns() / 1e9 - self._stamps["joints"], 3),
            "wrench age [s]": round(now_ns() / 1e9 - self._stamps["wrench"], 3),
            "missed cycles": self._ticker.missed,
            "poses in an unknown frame": self._unplaced,
            "messages refused": self._bad,
            "memory": self._memory.text,
            "camera": self._eyes.text if self._eyes is not None else "none",
        }
        silent = self.active and now_ns() / 1e9 - self._stamps["joints"] > 1.0
        if self._frame_refused:
            return WARN, f"the wrench is refused: {self._frame_refused}", values
        return (WARN, "the arm is silent", values) if silent else (OK, robot.text, values)

    # What is heard.
    def stamped(self, header: Any) -> float:
        """Sender's stamp on the monotonic clock [s]; a stamp of zero counts as now."""
        now = now_ns() / 1e9
        stamp = header.stamp.sec + header.stamp.nanosec * 1e-9
        if stamp <= 0.0:
            return now
        return now - max(0.0, self.get_clock().now().nanoseconds * 1e-9 - stamp)

    def _on_joints(self, message: JointState) -> None:
        names = list(message.name)
        try:
            q = np.array([message.position[names.index(name)] for name in self._kinematics.names])
        except ValueError:  # another arm's
            self._bad += 1
            return
        self._senses.q = q
        self._stamps["joints"] = self.stamped(message.header)

    def _on_wrench(self, message: WrenchStamped) -> None:
        f, t = message.wrench.force, message.wrench.torque
        wrench = np.array([f.x, f.y, f.z, t.x, t.y, t.z])
        try:
            self._senses.wrench = self._frames.wrench(message.header.frame_id, wrench)
        except KeyError as error:
            self._frame_refused = str(error)
            self._bad += 1
            return
        self._stamps["wrench"] = self.stamped(message.header)

    def _on_tool(self, message: ToolState) -> None:
        s = self._senses
        s.gripper_closed, s.plug_present = message.gripper_closed, message.plug_present
        s.end_stop, s.holster_occupied = message.end_stop, message.holster_occupied
        self._stamps["tool"] = message.stamp_ns / 1e9

    def _on_safety(self, message: SafetyState) -> None:
        self._senses.emergency = message.emergency_stop

    def _on_bay(self, evse: int, message: BayState) -> None:
        bay = self._bays[evse]
        left = (bay.state.occupied or bay.state_at == -math.inf) and not message.occupied
        if message.occupied != bay.state.occupied:
            bay.arrived = message.occupied and bay.state_at > 0.0
        bay.state, bay.state_at = message, message.stamp_ns / 1e9
        if left and self._robot is not None:
            with self._lock:
                self._robot.vehicle_left(evse)

    def _on_pose(self, message: PoseWithCovarianceStamped) -> None:
        robot = self._robot
        if robot is None:
            return
        p, r = message.pose.pose.position, message.pose.pose.orientation
        try:
            pose = from_quaternion((p.x, p.y, p.z), (r.x, r.y, r.z, r.w))
            variance = max(float(message.pose.covariance[i]) for i in (0, 7, 14))
            evse, pose = self._placed(robot, message.header.frame_id, pose)
        except (ValueError, KeyError):
            self._unplaced += 1
            return
        sigma = math.sqrt(variance) if variance >= 0.0 else math.inf
        with self._lock:
            robot.see(evse, self.stamped(message.header), pose, sigma)

    def looked_for(self) -> dict[int, tuple[str, ...]]:
        """EVSEs whose inlet the camera shall find, each with the connectors that it may be for.

        The running goal's alone, whose forces are to be felt in time; without one that of every vehicle without a
        plug, when somebody else listens to the poses.
        """
        robot = self._robot
        if robot is None or self._eyes is None or not self.active:
            return {}
        if self._handle is not None and robot.connector is not None:
            return {robot.bay: (robot.connector.name,)}
        if not self._eyes.asked:
            return {}
        here = [n for n, bay in self._bays.items() if bay.state.occupied and n not in robot.engaged]
        return {n: robot.site.bays[n].connectors for n in here}

    def see_instead(self, evse: int, header: Any, instead: RobotError) -> None:
        """What the camera sees in the inlet's place."""
        if self._robot is not None:
            with self._lock:
                self._robot.see_instead(evse, self.stamped(header), instead)

    def _placed(self, robot: ConnectionRobot, frame: str, pose: Array) -> tuple[int, Array]:
        """EVSE and pose in base_link. Raises KeyError for a frame that is no bay's."""
        bays = robot.site.bays
        if frame == "base_link":
            near = min(self._bays, key=lambda n: float(np.linalg.norm(pose[:3, 3] - bays[n].inlet[:3, 3])))
            return near, pose
        if not frame.startswith("bay") or int(frame[3:]) not in self._bays:
            raise KeyError(frame)
        return int(frame[3:]), bays[int(frame[3:])].frame @ pose

    # The motion thread.
    def _move(self) -> None:
        robot = self._robot
        assert robot is not None
        if self.parameters.realtime:
            realtime(REALTIME_PRIORITY)
        ticker = self._ticker = Ticker(PERIOD)
        told: tuple[Mode, int] | None = None
        count, concluding = 0, False
        while not self._stop.is_set():
            ticker.wait()
            count += 1
            if robot.idle and count % IDLE_TICKS:
                continue
            with self._lock:
                command = robot.step(self._gather(robot.bay))
                ended = robot.result is not None and self._handle is not None and not robot.busy
            self._send(robot, command)
            if told != (robot.mode, robot.attempt) or count % STATE_TICKS == 0 or ended:
                told = (robot.mode, robot.attempt)
                self._publish_state(robot)
            if count % FEEDBACK_TICKS == 0:
                self._publish_feedback(robot)
                self._prepare(robot)
            if ended and not concluding and self.executor is not None:
                self.executor.create_task(self._conclude)
            concluding = ended
            if count % FEEDBACK_TICKS == 0 and self._jobs.waiting and not robot.busy and self.executor is not None:
                self.executor.create_task(self._begin_next)

    def _prepare(self, robot: ConnectionRobot) -> None:
        """An arm with nothing to do goes to the plug of a vehicle that has come, and home when that has left."""
        with self._lock:
            if not self.parameters.prepares or self._handle is not None or self._jobs.waiting:
                return
            now, at = now_ns() / 1e9, robot.waits_before()
            may = [n for n in self._bays if self._gather(n).zone and self._may_move(n, now)]
            here = [n for n in may if self._bays[n].arrived]
            if here or at in may:
                robot.prepare(at if at in here else next(iter(here), 0), now)

    def _gather(self, evse: int) -> Senses:
        senses, now = self._senses, now_ns() / 1e9
        senses.now = now
        senses.q_age, senses.wrench_age = now - self._stamps["joints"], now - self._stamps["wrench"]
        senses.tool_age = now - self._stamps["tool"]
        bay = self._bays.get(evse)
        senses.breached = frozenset(
            n for n, b in self._bays.items() if now - b.state_at <= BAY_AGE and not b.state.field_clear
        )
        senses.zone = Zone.NONE
        if bay is not None:
            known = now - bay.state_at <= BAY_AGE
            standing = bay.state.immobilised or not bay.state.occupied
            if known and standing and bay.permit.evse == evse:
                senses.zone = bay.permit.zone
            senses.permit_until = bay.permit.stamp_ns / 1e9 + PERMIT_SECONDS
            senses.passive_follow = bay.permit.passive_follow and bay.permit.evse == evse
            senses.occupied = bay.state.occupied or not known
            senses.field_clear = bay.state.field_clear or not known
        return senses

    def _send(self, robot: ConnectionRobot, command: Command) -> None:
        if command.grip is not None or command.limp != self._limp:
            self._limp = command.limp
            grip = self._senses.gripper_closed if command.grip is None else command.grip
            self._tool_command.publish(msg.ToolCommand(stamp_ns=now_ns(), grip=grip, limp=command.limp))
        if command.q is not None:
            point = JointTrajectoryPoint(positions=command.q.tolist())
            point.time_from_start.nanosec = round(self.parameters.horizon_s * 1e9)
            # A stamp of zero means now: the controller begins when the message arrives.
            self._trajectory.publish(JointTrajectory(joint_names=robot.kinematics.names, points=[point]))

    def _publish_state(self, robot: ConnectionRobot) -> None:
        touch, senses = robot.touch, self._senses
        parked = robot.mode in (Mode.PARKED, Mode.UNKNOWN) and not robot.busy and robot.bay not in robot.engaged
        self._state.publish(
            fill(
                msg.RobotState(),
                stamp_ns=now_ns(),
                mode=robot.mode,
                evse=0 if parked else robot.bay,
                connector=robot.connector.name if robot.connector else "",
                in_contact_zone=robot.in_contact_zone,
                holding_plug=senses.gripper_closed and senses.plug_present,
                plug_in_inlet=robot.bay in robot.engaged,
                end_stop=senses.end_stop,
                depth_m=max(0.0, touch.depth) if robot.in_contact_zone else 0.0,
                lateral_error_m=touch.lateral if robot.in_contact_zone else 0.0,
                axial_force_n=touch.push,
                lateral_force_n=float(np.linalg.norm(touch.side)),
                torque_nm=float(np.linalg.norm(touch.torque)),
                peak_force_n=robot.peak,
                attempt=robot.attempt,
                error=robot.error,
                text=robot.text,
            )
        )

    # Actions.
    def _serve(self, kind: Any, name: str, start: Callable[[Any, float], None]) -> ActionServer:
        """One action. A goal is executed by the motion thread; rclpy's execute only tells how it ended."""

        def begin(handle: Any) -> None:
            """Raises RobotError."""
            assert self._robot is not None
            start(handle.request, now_ns() / 1e9)
            self._bays[handle.request.evse].arrived = False
            self._handle, self._kind = handle, kind
            if self._eyes is not None:
                self._eyes.tend()

        def accepted(handle: Any) -> None:
            job = Job(handle.request.evse, (handle, kind, begin), now_ns() / 1e9, kind is action.Disconnect)
            with self._lock:
                running = self._handle is not None and self._handle.request.evse == job.evse
                unserved = job if running else self._jobs.add(job)
            if unserved is not None:
                self._refuse(unserved, Busy("another goal of this EVSE is not finished"))
            self._begin_next()

        return ActionServer(
            self,
            kind,
            name,
            execute_callback=lambda handle: kind.Result(),  # replaced when the goal ends, see _end
            goal_callback=lambda goal: GoalResponse.ACCEPT if self.active else GoalResponse.REJECT,
            cancel_callback=self._on_cancel,
            handle_accepted_callback=accepted,
        )

    def _begin_next(self) -> None:
        """In the executor's thread: give the idle arm the next goal that waits for it."""
        with self._lock:
            gone = self._jobs.take_cancelled()
        for waited in gone:
            self._refuse(waited, Cancelled("cancelled while it waited for the arm"))
        refusal: RobotError | None = None
        with self._lock:
            robot, now = self._robot, now_ns() / 1e9
            if robot is None or robot.busy or self._handle is not None:
                return
            at_work = robot.in_contact_zone or (self._senses.gripper_closed and self._senses.plug_present)
            job = self._jobs.take_next(now, robot.bay if at_work else 0, lambda evse: self._may_move(evse, now))
            if job is None:
                return
            handle, _, begin = job.handle
            try:
                begin(handle)
            except RobotError as error:
                refusal = error
        if refusal is not None:
            self.get_logger().warning(f"EVSE {job.evse}: {refusal}")
            self._refuse(job, refusal)
        elif self._fault is not None:
            fault, evse, session_id = self._fault
            self.report(FaultReport(fault.code, fault.severity, fault.text, False), evse, session_id)
            self._fault = None

    def _may_move(self, evse: int, now: float) -> bool:
        """Its permit stands; a goal for a bay that there is not is begun, to be refused in words."""
        bay = self._bays.get(evse)
        return bay is None or (bay.permit.zone > Zone.NONE and now <= bay.permit.stamp_ns / 1e9 + PERMIT_SECONDS)

    def _refuse(self, job: Job, error: RobotError) -> None:
        handle, kind, _ = job.handle
        self._end(handle, kind, Result(error.code, str(error), cause=error))

    def _on_cancel(self, handle: Any) -> CancelResponse:
        with self._lock:
            if handle is self._handle and self._robot is not None:
                self._robot.cancel()
                return CancelResponse.ACCEPT
            for job in self._jobs.waiting.values():
                if job.handle[0] is handle:
                    job.cancelled = True
                    if self.executor is not None:
                        self.executor.create_task(self._begin_next)  # ends it
                    return CancelResponse.ACCEPT
        return CancelResponse.REJECT

    def _conclude(self) -> None:
        """In the executor's thread: tell the client how the running goal ended."""
        with self._lock:
            handle, kind, robot = self._handle, self._kind, self._robot
            if handle is None or robot is None or robot.busy or robot.result is None:
                return
            result, self._handle = robot.result, None
        if self._eyes is not None:
            self._eyes.tend()
        if result.cause is not None and result.cause.fault:
            fault = FaultReport(result.cause.fault, Severity.STOP, result.text)
            self._fault = fault, robot.bay, handle.request.session_id
            self.report(*self._fault)
        self._end(handle, kind, result)
        self._begin_next()

    def _end(self, handle: Any, kind: Any, result: Result) -> None:
        values: dict[str, Any] = {"error": result.error, "text": result.text, "seconds": result.seconds}
        if kind is not action.Release:
            values |= {"peak_force_n": result.peak, "attempts": result.attempts}
        else:
            values |= {"following": result.following}
        if kind is action.Connect:
            values |= {"depth_m": max(0.0, result.depth), "lateral_error_m": result.lateral}

        def finish(goal: Any) -> Any:
            if result.error == ErrorCode.NONE:
                goal.succeed()
            elif isinstance(result.cause, Cancelled) and goal.is_cancel_requested:
                goal.canceled()
            else:
                goal.abort()
            return fill(kind.Result(), **values)

        handle.execute(finish)

    def _publish_feedback(self, robot: ConnectionRobot) -> None:
        with self._lock:
            handle, kind = self._handle, self._kind
        if handle is None or not handle.is_active:
            return
        values: dict[str, Any] = {"mode": robot.mode}
        if kind is not action.Release:
            depth = robot.connector.depth if robot.connector else 0.0
            distance = max(0.0, depth - robot.touch.depth)
            values |= {"distance_m": distance, "force_n": robot.touch.push, "attempt": robot.attempt}
        if kind is action.Disconnect:
            values |= {"grasped": robot.grasped}
        handle.publish_feedback(fill(kind.Feedback(), **values))


def main() -> None:
    run(RobotNode)


if __name__ == "__main__":
    main()
