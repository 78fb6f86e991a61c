"""``robot-charger replay``: a recorded session played at a live supervisor, which must come to the same end.

The replay stands in for everything around the supervisor: it publishes what vehicle, power, pilot, bay, robot and
back end said, with fresh stamps and the live session's id and permit numbers, serves the robot's actions and the
authorisation with the recorded outcomes, and compares phases, fault and stop reason.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import can
import rclpy
import yaml
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.serialization import deserialize_message
from rclpy.signals import SignalHandlerOptions

from robot_charger import action, msg, srv
from robot_charger.common.can_bus import open_bus
from robot_charger.common.can_udp import EXTENDED, FD
from robot_charger.common.clock import now_ns
from robot_charger.common.process import PARENT
from robot_charger.common.topics import EVSE_TOPICS, STATION_TOPICS, fill
from robot_charger.operator import words
from robot_charger.operator.definitions import definition
from robot_charger.operator.playback import (
    ALIVE_NS,
    ONCE,
    OUTSIDE,
    SLOW,
    SLOW_ALIVE_NS,
    SURROUNDINGS,
    VEHICLE,
    Clock,
    End,
    Job,
    Outcome,
    Said,
    Script,
)
from robot_charger.operator.reading import Handler, Picker, RecordingError, Topic, scan

STEP_S = 0.005
REPEAT_S = 0.02  # while the script waits
PATIENCE_S = 20.0  # for a change that the recording has
START_S = 60.0
AFTER_S = 1.5  # for a change that the recording does not have
STAND_IN = "replay"  # the one node that the supervisor under test manages


@dataclass
class Live:
    """What the live supervisor has decided so far. Guarded by ``lock``."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    session_id: str = ""
    phases: list[str] = field(default_factory=list)
    ready: bool = False
    fault: int = 0
    stop_reason: str = ""
    permit: int = 0
    test_permits: list[int] = field(default_factory=list)
    purpose: int = 0

    @property
    def end(self) -> End:
        return End(tuple(self.phases), self.fault, self.stop_reason)


class Player:
    """A ROS participant that plays a script. ``whole``: everything around a supervisor, else the vehicle's side."""

    def __init__(self, script: Script, whole: bool = True, evse: int = 0) -> None:
        self.script = script
        self.live = Live()
        self.clock = Clock(script)
        self.evse = evse or script.evse
        self._outcomes = list(script.outcomes)
        self._whole = whole
        self._last: dict[str, tuple[int, Any]] = {}  # topic -> recorded time, message
        self._repeated_at = 0.0
        self._started = self._stopped = False
        self._working = 0
        self._ended = threading.Event()
        self._older: dict[str, Picker] = {}
        wanted = SURROUNDINGS if whole else VEHICLE
        self._messages = {t: self._kind(t) for t in script.definitions if self._relative(t) in wanted}
        self._said: Iterator[Said] = iter([s for s in script.said if s.topic in self._messages])
        self._next = next(self._said, None)
        self.node = rclpy.create_node(STAND_IN, enable_rosout=False, start_parameter_services=False)
        group = ReentrantCallbackGroup()
        self._publishers = {}
        for topic, (kind, qos) in self._messages.items():
            self._publishers[topic] = self.node.create_publisher(kind, self._live_name(topic), qos)
        kind, qos = EVSE_TOPICS["backend/request"]
        self._requests = self.node.create_publisher(kind, f"/evse{self.evse}/backend/request", qos)
        for name, hear in (
            ("session/state", self._hear_state),
            ("session/event", self._hear_event),
            ("power/permit", self._hear_permit),
        ):
            kind, qos = EVSE_TOPICS[name]
            self.node.create_subscription(kind, f"/evse{self.evse}/{name}", hear, qos, callback_group=group)
        if whole:
            self._stand_in(group)
        self._executor = MultiThreadedExecutor(num_threads=6)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, name="replay", daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException, KeyboardInterrupt):
            while not self._ended.is_set():
                self._executor.spin_once(timeout_sec=0.1)

    def close(self) -> None:
        self._ended.set()
        until = time.monotonic() + 2.0
        while self._working and time.monotonic() < until:  # an action that answers a closed context is a traceback
            time.sleep(0.01)
        self._thread.join(timeout=3.0)  # first: an executor that is shut down while it spins breaks
        self._executor.shutdown(timeout_sec=2.0)
        self.node.destroy_node()

    # Names and types.
    def _relative(self, topic: str) -> str:
        prefix = f"/evse{self.script.evse}/"
        return topic[len(prefix) :] if topic.startswith(prefix) else topic

    def _live_name(self, topic: str) -> str:
        relative = self._relative(topic)
        return topic if relative == topic else f"/evse{self.evse}/{relative}"

    def _kind(self, topic: str) -> tuple[Any, Any]:
        relative = self._relative(topic)
        kind: Any
        kind, qos = (EVSE_TOPICS if relative != topic else STATION_TOPICS)[relative]
        recorded = self.script.definitions[topic][1]
        if definition(kind) != recorded:  # of another version: the fields that both know
            self._older[topic] = Picker(recorded, tuple(kind.get_fields_and_field_types()))
        return kind, qos

    # The surroundings' services.
    def _stand_in(self, group: ReentrantCallbackGroup) -> None:
        self.node.create_service(GetState, f"/{STAND_IN}/get_state", self._get_state, callback_group=group)
        self.node.create_service(ChangeState, f"/{STAND_IN}/change_state", self._change_state, callback_group=group)
        self.node.create_service(srv.Authorize, "/authorize", self._authorize, callback_group=group)
        for job, kind in (
            (Job.CONNECT, action.Connect),
            (Job.RELEASE, action.Release),
            (Job.DISCONNECT, action.Disconnect),
        ):
            ActionServer(
                self.node,
                kind,
                f"/robot/{job.value}",
                execute_callback=lambda handle, job=job, kind=kind: self._execute(handle, job, kind),
                goal_callback=lambda goal: GoalResponse.ACCEPT,
                cancel_callback=lambda handle: CancelResponse.ACCEPT,
                callback_group=group,
            )

    def _get_state(self, request: Any, response: Any) -> Any:
        response.current_state.id, response.current_state.label = 3, "active"
        return response

    def _change_state(self, request: Any, response: Any) -> Any:
        response.success = True
        return response

    def _authorize(self, request: Any, response: Any) -> Any:
        status = srv.Authorize.Response
        response.status = status.STATUS_ACCEPTED if self.script.accepted else status.STATUS_REFUSED
        response.reason = "as recorded"
        return response

    def _execute(self, handle: ServerGoalHandle, job: Job, kind: Any) -> Any:
        """Answer when the recorded time of the answer has come; never, when it never came."""
        with self.live.lock:
            self._working += 1
            outcome = next((o for o in self._outcomes if o.job == job), None)
            if outcome:
                self._outcomes.remove(outcome)
        try:
            return self._answer_in_time(handle, job, kind, outcome)
        finally:
            with self.live.lock:
                self._working -= 1

    def _answer_in_time(self, handle: ServerGoalHandle, job: Job, kind: Any, outcome: Outcome | None) -> Any:
        told = False
        while not self._ended.wait(0.01):
            if handle.is_cancel_requested:
                handle.canceled()
                return kind.Result(error=action.Connect.Result.ERROR_CANCELLED, text="cancelled")
            if outcome is None:
                continue
            if job == Job.DISCONNECT and not told and self.clock.recorded >= outcome.grasped_at:
                told = True
                handle.publish_feedback(kind.Feedback(mode=msg.RobotState.MODE_WITHDRAW, grasped=True))
            if self.clock.recorded >= outcome.at:
                break
        return self._answer(handle, kind, outcome)

    @staticmethod
    def _answer(handle: ServerGoalHandle, kind: Any, outcome: Outcome | None) -> Any:
        error = outcome.error if outcome else action.Connect.Result.ERROR_CANCELLED
        (handle.abort if error else handle.succeed)()
        return kind.Result(error=error, text="as recorded")

    # What the live supervisor says.
    def _hear_state(self, state: msg.SessionState) -> None:
        live, name = self.live, words.PHASES.get(state.phase, str(state.phase))
        with live.lock:
            live.ready = live.ready or name == "idle" or not self._whole
            if name in OUTSIDE or (live.session_id and state.session_id != live.session_id):
                return
            live.session_id = state.session_id
            live.fault = state.fault or live.fault
            live.stop_reason = state.stop_reason or live.stop_reason

    def _hear_event(self, event: msg.SessionEvent) -> None:
        phase = words.phase_of_event(event.name)
        with self.live.lock:
            ours = not self.live.session_id or event.session_id == self.live.session_id
            if ours and phase and phase not in OUTSIDE:
                self.live.phases.append(phase)

    def _hear_permit(self, permit: msg.ChargePermit) -> None:
        live = self.live
        with live.lock:
            live.permit = permit.number
            if permit.purpose == 1 and live.purpose != 1:
                live.test_permits.append(permit.number)
            live.purpose = permit.purpose

    # Playing.
    def play(self, patience_s: float = PATIENCE_S) -> str:
        """Play to the end. Why it could not, empty when it could."""
        until = time.monotonic() + START_S
        while not self.live.ready:
            if time.monotonic() > until:
                return "no supervisor became ready"
            self._snapshot()
            time.sleep(REPEAT_S)
        last = time.monotonic()
        waiting_since = 0.0
        while not (self.clock.done and self._next is None):
            time.sleep(STEP_S)
            now = time.monotonic()
            with self.live.lock:
                phases = list(self.live.phases)
            waits_for = self.clock.advance(int((now - last) * 1e9), phases)
            last = now
            if phases != list(self.script.end.phases[: len(phases)]):
                return ""  # it went another way: the comparison tells
            self._say_due()
            self._ask_due()
            if not waits_for:
                waiting_since = 0.0
                continue
            self._repeat()
            waiting_since = waiting_since or now
            if now - waiting_since > patience_s:
                return f"the supervisor did not come to {waits_for} within {patience_s:.0f} s"
            if self.clock.done:
                break
        until = time.monotonic() + AFTER_S
        while time.monotonic() < until:
            self._repeat()
            time.sleep(STEP_S)
        return ""

    def _snapshot(self) -> None:
        """Before it starts: the first word of every topic, again and again."""
        if not self._last:
            for said in self.script.said:
                if (
                    said.topic in self._messages
                    and said.topic not in self._last
                    and self._relative(said.topic) not in ONCE
                ):
                    self._last[said.topic] = (self.clock.recorded, self._message(said))
        for topic, (_, message) in self._last.items():
            self._publish(topic, message)

    def _say_due(self) -> None:
        newest: dict[str, Said] = {}
        while self._next is not None and self._next.at <= self.clock.recorded:
            said, self._next = self._next, next(self._said, None)
            if self._relative(said.topic) in ONCE:
                if said.at >= self.script.begin:
                    self._publish(said.topic, self._message(said))
            else:
                newest[said.topic] = said
        for topic, said in newest.items():
            message = self._message(said)
            self._last[topic] = (said.at, message)
            self._publish(topic, message)

    def _ask_due(self) -> None:
        """What was asked in a way that no topic shows."""
        script, kinds = self.script, msg.BackendRequest
        if not self._whole:
            return
        asked_otherwise = script.authorised_at and not script.start_asked and not self._started
        if asked_otherwise and self.clock.recorded >= script.authorised_at:
            self._started = True
            self._request(kinds.KIND_START, id_token="replay", token_type="Central", authorized=script.accepted)
        if script.stop_asked_at and not self._stopped and self.clock.recorded >= script.stop_asked_at:
            self._stopped = True
            self._request(kinds.KIND_STOP)

    def _request(self, kind: int, **values: Any) -> None:
        self._requests.publish(fill(msg.BackendRequest(), stamp_ns=now_ns(), kind=kind, **values))

    def _repeat(self) -> None:
        if time.monotonic() - self._repeated_at < REPEAT_S:
            return
        self._repeated_at = time.monotonic()
        for topic, (at, message) in self._last.items():
            if self.clock.recorded - at < (SLOW_ALIVE_NS if self._relative(topic) in SLOW else ALIVE_NS):
                self._publish(topic, message)

    def _message(self, said: Said) -> Any:
        kind = self._messages[said.topic][0]
        older = self._older.get(said.topic)
        if older is None:
            return deserialize_message(said.data, kind)
        values = zip(older.fields, older.pick(said.data), strict=True)
        known = {name: value for name, value in values if value is not None}
        if kind is msg.SupplyState and "contactors_open" not in known:  # before it was a field of its own
            known["contactors_open"] = not (known["contactors_closed"] or known["contactor_welded"])
        return fill(kind(), **known)

    def _publish(self, topic: str, message: Any) -> None:
        """With stamps of now and the live session's names."""
        stamp = now_ns()
        old = getattr(message, "stamp_ns", 0)
        for name in message.get_fields_and_field_types():
            if name.endswith("stamp_ns") and name != "stamp_ns" and getattr(message, name):
                setattr(message, name, max(0, stamp - (old - getattr(message, name))))
        if hasattr(message, "stamp_ns"):
            message.stamp_ns = stamp
        if getattr(message, "session_id", "") and self.script.session_id:
            with self.live.lock:
                ours = message.session_id in (self.script.session_id, self.live.session_id)
                if ours and self.live.session_id:
                    message.session_id = self.live.session_id
        if getattr(message, "insulation_permit_number", 0):
            message.insulation_permit_number = self._test_permit(message.insulation_permit_number)
        self._publishers[topic].publish(message)

    def _test_permit(self, recorded: int) -> int:
        """The live permit of the same insulation test; a number that is live already stays."""
        with self.live.lock:
            if recorded in self.live.test_permits:
                return recorded
            tests = [n for n, first in enumerate(self.script.test_permits) if first <= recorded]
            if not tests or tests[-1] >= len(self.live.test_permits):
                return 0
            return self.live.test_permits[tests[-1]]


@contextlib.contextmanager
def supervisor(script: Script) -> Iterator[subprocess.Popen]:
    """A supervisor of its own for the script's EVSE."""
    parameters = {
        "connector": script.connector,
        "protocol": script.protocol,
        "managed": [f"/{STAND_IN}"],
        "node_age_grace_ms": 2000,
        "memory": "",
    }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "replay.yaml")
        file.write_text(yaml.safe_dump({"/**": {"ros__parameters": parameters}}))
        command = [sys.executable, "-m", "robot_charger.supervisor.node", "--ros-args"]
        command += ["-r", f"__ns:=/evse{script.evse}", "--params-file", str(file)]
        environment = {**os.environ, PARENT: str(os.getpid())}
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            yield process
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=10)
            if process.poll() is None:
                process.kill()
                process.communicate()


class Starter:
    """Brings a lone supervisor through its life cycle."""

    def __init__(self, node: Any, evse: int) -> None:
        self._client = node.create_client(ChangeState, f"/evse{evse}/supervisor/change_state")
        self._state = node.create_client(GetState, f"/evse{evse}/supervisor/get_state")

    def start(self, patience_s: float = START_S) -> bool:
        """True when the supervisor is active."""
        until = time.monotonic() + patience_s
        while time.monotonic() < until:
            label = self._ask(self._state, GetState.Request())
            if label is not None:
                state = label.current_state.label
                if state == "active":
                    return True
                transition = {"unconfigured": 1, "inactive": 3}.get(state)
                if transition:
                    request = ChangeState.Request()
                    request.transition.id = transition
                    self._ask(self._client, request)
            time.sleep(0.05)
        return False

    @staticmethod
    def _ask(client: Any, request: Any, wait_s: float = 3.0) -> Any:
        if not client.service_is_ready():
            return None
        future = client.call_async(request)
        until = time.monotonic() + wait_s
        while not future.done() and time.monotonic() < until:
            time.sleep(0.01)
        return future.result() if future.done() else None


@dataclass(frozen=True)
class Verdict:
    recorded: End
    live: End
    trouble: str = ""

    @property
    def same(self) -> bool:
        return not self.trouble and self.recorded == self.live

    def lines(self) -> list[str]:
        fault = f"fault {self.recorded.fault}" if self.recorded.fault else "no fault"
        head = f"recorded: {', '.join(self.recorded.phases)}; {fault}, stopped by {self.recorded.stop_reason or '-'}"
        if self.same:
            return [head, "the replay came to the same end"]
        told = [self.trouble] if self.trouble else []
        return [head, *told, *self.live.differences(self.recorded)]


def check(script: Script, patience_s: float = PATIENCE_S) -> Verdict:
    """Play a script at a supervisor of its own and compare. Call in the main thread, without rclpy running."""
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    try:
        with supervisor(script):
            player = Player(script)
            try:
                if not Starter(player.node, script.evse).start():
                    return Verdict(script.end, player.live.end, "the supervisor did not start")
                trouble = player.play(patience_s)
                with player.live.lock:
                    return Verdict(script.end, player.live.end, trouble)
            finally:
                player.close()
    finally:
        rclpy.try_shutdown()


def play_vehicle(script: Script, evse: int = 0) -> str:
    """Play the vehicle's side at whatever nodes are live. Why it could not, empty when it could."""
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    try:
        player = Player(script, whole=False, evse=evse)
        try:
            return player.play()
        finally:
            player.close()
    finally:
        rclpy.try_shutdown()


def play_can(path: Path, topic: str, bus_name: str, low: int, high: int) -> int:
    """Send the recorded frames with ids from low to high on a bus at their recorded pace; how many were sent.

    Raises RecordingError, BusError.
    """
    batches: list[tuple[int, list[int], list[int], list[int], int, list[int]]] = []

    def choose(known: Topic) -> Handler | None:
        if known.name != topic:
            return None
        pick = Picker(known.definition, ("ids", "flags", "lengths", "stride", "data")).pick
        return lambda at, data: batches.append((at, *pick(data)))

    summary = scan(path, choose)
    if not batches:
        buses = ", ".join(t for t in summary.topics if t.startswith("/can/")) or "none"
        raise RecordingError(f"{path}: no frames on {topic}; recorded buses: {buses}")
    sent = 0
    bus = open_bus(bus_name)
    try:
        start, first = time.monotonic(), batches[0][0]
        for at, ids, flags, lengths, stride, data in batches:
            time.sleep(max(0.0, start + (at - first) / 1e9 - time.monotonic()))
            for k, (number, flag, length) in enumerate(zip(ids, flags, lengths, strict=True)):
                if low <= number <= high:
                    payload = bytes(data[k * stride : k * stride + length])
                    bus.send(
                        can.Message(
                            arbitration_id=number,
                            is_extended_id=bool(flag & EXTENDED),
                            is_fd=bool(flag & FD),
                            data=payload,
                        )
                    )
                    sent += 1
    finally:
        bus.shutdown()
    return sent
