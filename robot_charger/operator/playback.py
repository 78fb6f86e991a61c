"""A recorded session as a script to play: what the surroundings of a supervisor said and when, and what it decided.

Plain Python without ROS. The script is cut at the supervisor's changes of phase: what came after one is played only
when the live supervisor has made the same change, so a slower machine plays the same session.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from robot_charger.common.clock import SECOND
from robot_charger.common.faults import ROBOT_FAULTS, Code
from robot_charger.operator import words
from robot_charger.operator.reading import Handler, Picker, RecordingError, Topic, scan
from robot_charger.operator.recording import Entry, File, Stream
from robot_charger.words.values import RobotMode

ALIVE_NS = 300 * SECOND // 1000  # a topic whose last message is younger is repeated while the script waits
SLOW_ALIVE_NS = SECOND  # the same of those that the supervisor gives a second
SLOW = ("bay/state", "/robot/state")
GRACE_NS = SECOND // 20  # a cause may be logged shortly after its effect
SURROUNDINGS = (  # of one supervisor; relative names are those of its EVSE
    "vehicle/target",
    "vehicle/link",
    "power/state",
    "power/limits",
    "power/meter",
    "bay/state",
    "pilot/state",
    "backend/limit",
    "backend/request",
    "fault",
    "/fault",
    "/safety/state",
    "/robot/state",
    "/backend/state",
)
VEHICLE = ("vehicle/target", "vehicle/link", "pilot/state", "bay/state", "/robot/inlet_pose")
ONCE = ("fault", "/fault", "backend/request")  # told once, never repeated
# The robot's error that leads to a fault, where the recording has only the fault: the first of those that do.
GOAL_ERRORS: dict[int, int] = {
    int(fault): int(error) for error, fault in reversed(ROBOT_FAULTS.items()) if fault is not Code.NONE
}
LET_GO = (RobotMode.RELEASED, RobotMode.FOLLOWING)
OUTSIDE = ("idle", "unavailable")


class Job(Enum):
    """What the robot is asked for."""

    CONNECT = "connect"
    RELEASE = "release"
    DISCONNECT = "disconnect"


@dataclass(frozen=True)
class Said:
    """One message of the surroundings."""

    at: int  # log time [ns]
    topic: str
    data: bytes


@dataclass(frozen=True)
class Outcome:
    """How an action of the robot ended. ``grasped_at``: when the plug was held (disconnect)."""

    job: Job
    at: int
    error: int = 0
    grasped_at: int = 0


@dataclass(frozen=True)
class End:
    """What a session came to; two that are equal failed, or went well, the same way."""

    phases: tuple[str, ...]
    fault: int
    stop_reason: str

    def differences(self, other: End) -> list[str]:
        """In words, of the live session (self) from the recorded one."""
        lines = []
        if self.phases != other.phases:
            same = 0
            while same < min(len(self.phases), len(other.phases)) and self.phases[same] == other.phases[same]:
                same += 1
            here = self.phases[same] if same < len(self.phases) else "its end"
            there = other.phases[same] if same < len(other.phases) else "its end"
            lines.append(f"phase {same + 1}: {here}, recorded {there}")
        if self.fault != other.fault:
            lines.append(f"fault {self.fault}, recorded {other.fault}")
        if self.stop_reason != other.stop_reason:
            lines.append(f"stopped by {self.stop_reason or '-'}, recorded {other.stop_reason or '-'}")
        return lines


@dataclass
class Script:
    """A recorded session of one EVSE."""

    evse: int = 0
    session_id: str = ""
    connector: str = "ccs2"
    protocol: str = "ccs"
    said: list[Said] = field(default_factory=list)
    definitions: dict[str, tuple[str, str]] = field(default_factory=dict)  # topic -> type, definition
    changes: list[tuple[int, str]] = field(default_factory=list)  # log time, phase
    outcomes: list[Outcome] = field(default_factory=list)
    authorised_at: int = 0
    accepted: bool = False
    start_asked: bool = False  # the recording holds the request that began it
    stop_asked_at: int = 0  # of a stop whose request the recording does not hold
    test_permits: list[int] = field(default_factory=list)  # number of each insulation test's first permit
    fault: int = 0
    stop_reason: str = ""

    @property
    def end(self) -> End:
        return End(tuple(name for _, name in self.changes if name not in OUTSIDE), self.fault, self.stop_reason)

    @property
    def begin(self) -> int:
        """Log time from which the script is played: when the session began, or what is recorded before."""
        first = next((at for at, name in self.changes if name not in OUTSIDE), 0)
        earlier = [s.at for s in self.said if s.at < first]
        return max(earlier[0], first - 2 * SECOND) if earlier else first


class _Reader:
    """Collects a script from the topics of a recording."""

    def __init__(self, evse: int) -> None:
        self.script = Script(evse)
        self._robot: list[tuple[int, int, int]] = []  # at, mode, error
        self._announced: list[tuple[int, str]] = []  # phases by session/event, which misses none
        self._gave_up: list[int] = []
        self._robot_faults: list[tuple[int, int]] = []
        self._purpose = 0
        self._stop_requested_at = 0
        self._stop_asked = False

    def choose(self, topic: Topic) -> Handler | None:
        name = topic.name
        if name.startswith("/evse"):
            number, _, name = name[5:].partition("/")
            if not number.isdigit():
                return None
            self.script.evse = self.script.evse or int(number)
            if int(number) != self.script.evse:
                return None
        if name == "session/state":
            fields = "phase session_id fault stop_reason authorization stop_requested connector protocol"
            return self._picked(topic, fields, self._session)
        if name == "session/event":
            return self._picked(topic, "name session_id", self._event)
        if name == "power/permit":
            return self._picked(topic, "number purpose", self._permit)
        if name not in SURROUNDINGS and name not in VEHICLE:
            return None
        self.script.definitions[topic.name] = (topic.type_name, topic.definition)
        inner: list[Handler] = []
        if name == "/robot/state":
            inner = [self._picked(topic, "mode error", lambda at, *v: self._robot.append((at, *v)))]
        if name == "/fault":
            inner = [self._picked(topic, "code active", self._fault)]
        if name == "backend/request":
            inner = [self._picked(topic, "kind", self._request)]

        def handle(at: int, data: bytes) -> None:
            self.script.said.append(Said(at, topic.name, data))
            for other in inner:
                other(at, data)

        return handle

    @staticmethod
    def _picked(topic: Topic, fields: str, method: Callable[..., None]) -> Handler:
        pick = Picker(topic.definition, tuple(fields.split())).pick
        return lambda at, data: method(at, *pick(data))

    def _session(
        self,
        at: int,
        phase: int,
        session_id: str,
        fault: int,
        reason: str,
        authorization: int,
        stop: bool,
        connector: str,
        protocol: str,
    ) -> None:
        script = self.script
        name = words.PHASES.get(phase, str(phase))
        if session_id and not script.session_id:
            script.session_id = session_id
        if session_id and session_id != script.session_id:
            return  # a recording of everything: the first session is played
        if not script.changes or script.changes[-1][1] != name:
            if script.session_id and not session_id and name in OUTSIDE and len(script.end.phases) == 0:
                return
            script.changes.append((at, name))
        if session_id:
            script.fault = fault or script.fault
            script.stop_reason = reason or script.stop_reason
            script.connector = connector or script.connector
            script.protocol = {"chademo": "chademo", "gbt": "gbt", "plain": "ac", "ac": "ac"}.get(protocol, "ccs")
            if authorization and not script.authorised_at:
                script.authorised_at = at
            script.accepted = script.accepted or authorization == 2
            if stop and not self._stop_requested_at:
                self._stop_requested_at = at

    def _event(self, at: int, name: str, session_id: str) -> None:
        phase = words.phase_of_event(name)
        if name == "robot":  # said when an action of the robot ended by an error
            self._gave_up.append(at)
        if phase and (not session_id or not self.script.session_id or session_id == self.script.session_id):
            self._announced.append((at, phase))

    def _fault(self, at: int, code: int, active: bool) -> None:
        if active and code in GOAL_ERRORS:
            self._robot_faults.append((at, code))

    def _permit(self, at: int, number: int, purpose: int) -> None:
        if purpose == 1 and self._purpose != 1:
            self.script.test_permits.append(number)
        self._purpose = purpose

    def _request(self, at: int, kind: int) -> None:
        self.script.start_asked = self.script.start_asked or kind == 1
        self._stop_asked = self._stop_asked or kind == 2

    def finish(self) -> Script:
        script = self.script
        if any(name not in OUTSIDE for _, name in self._announced):
            before = [(at, name) for at, name in script.changes if at < self._announced[0][0] and name in OUTSIDE]
            script.changes = before + self._announced
        if script.stop_reason in ("Local", "Remote") and not self._stop_asked:
            script.stop_asked_at = self._stop_requested_at
        script.said.sort(key=lambda s: s.at)
        if not script.changes:
            return script
        ends = [at for at, _ in script.changes[1:]] + [2**63]
        for (begin, phase), end, (_, following) in zip(
            script.changes, ends, [*script.changes[1:], (0, "")], strict=True
        ):
            script.outcomes += self._outcome(phase, begin, end, following)
        return script

    def _outcome(self, phase: str, begin: int, end: int, following: str) -> Iterator[Outcome]:
        """How the robot's action of a phase ended. None is given where it never answered."""
        seen = [(at, mode) for at, mode, _ in self._robot if begin <= at < end]
        before = end - GRACE_NS // 2
        failure = self._failure(begin, end)
        if phase == "connecting":
            if following in ("mated", "grasped"):
                yield Outcome(Job.CONNECT, next((at for at, mode in seen if mode == RobotMode.MATED), before))
            elif failure:
                yield Outcome(Job.CONNECT, min(failure[0], before), failure[1])
        elif phase == "mated":
            if following == "released":
                yield Outcome(
                    Job.RELEASE,
                    next((at for at, mode in seen if mode in LET_GO), before),
                )
            elif failure:
                yield Outcome(Job.RELEASE, min(failure[0], before), failure[1])
        elif phase in ("grasped", "disconnecting"):
            held = next((at for at, mode, _ in self._robot if at >= begin and mode == RobotMode.WITHDRAW), begin)
            if following in ("departing", "connecting", "idle"):
                yield Outcome(Job.DISCONNECT, before, 0, held)
            elif following == "faulted" and failure:
                yield Outcome(Job.DISCONNECT, min(failure[0], before), failure[1], 2**63)

    def _failure(self, begin: int, end: int) -> tuple[int, int] | None:
        """When and by which error an action failed between two times; None when it did not."""
        told = next((at for at in self._gave_up if begin - GRACE_NS <= at <= end + 2 * GRACE_NS), 0)
        state = next(((at, error) for at, _, error in self._robot if begin <= at < end and error), None)
        if not told and not state and self.script.fault not in GOAL_ERRORS:
            return None
        if state:
            return state
        codes = [code for at, code in self._robot_faults if begin - SECOND <= at <= end + SECOND]
        return told or end, GOAL_ERRORS.get(codes[-1] if codes else self.script.fault, GOAL_ERRORS[Code.ROBOT_ARM])


def read_script(path: Path, evse: int = 0) -> Script:
    """The first session in a recording. Raises RecordingError when there is none."""
    reader = _Reader(evse)
    scan(path, reader.choose)
    script = reader.finish()
    if not script.end.phases:
        raise RecordingError(f"{path}: no session in it, nothing to replay")
    return script


class Clock:
    """Recorded time that runs with the live one, and stands still at a barrier."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.recorded = script.begin
        self._barriers = [(at + GRACE_NS, name) for at, name in script.changes if name not in OUTSIDE]
        self.passed = 0

    def advance(self, step_ns: int, live_phases: list[str]) -> str:
        """Go on by ``step_ns`` or to the next barrier. The phase it waits for, empty when it does not wait."""
        target = self.recorded + step_ns
        while self.passed < len(self._barriers):
            at, name = self._barriers[self.passed]
            if target < at:
                break
            if len(live_phases) <= self.passed:
                self.recorded = max(self.recorded, at - 1)
                return name
            self.passed += 1
        self.recorded = target
        return ""

    @property
    def done(self) -> bool:
        """Every recorded change has happened live."""
        return self.passed == len(self._barriers)


class Cuts:
    """Stretches that are taken out of a recording: the middle of every phase that lasts longer than ``longest_s``."""

    def __init__(self, changes: list[tuple[int, str]], longest_s: float) -> None:
        half = int(longest_s * SECOND / 2)
        ends = [at for at, _ in changes[1:]]
        phases = zip([at for at, _ in changes], ends, strict=False)
        self._stretches = [(begin + half, end - half) for begin, end in phases if half and end - begin > 2 * half]

    def place(self, at: int) -> tuple[int, bool]:
        """Where a moment of the recording comes to lie, and whether it was in a stretch that is taken out."""
        gone = 0
        for begin, end in self._stretches:
            if at < begin:
                break
            if at < end:
                return begin - gone, True
            gone += end - begin
        return at - gone, False


def excerpt(path: Path, target: Path, longest_s: float = 0.0) -> int:
    """Write what a replay needs of a recording into a small one; the number of its messages. Raises RecordingError.

    With ``longest_s`` a phase keeps so many seconds at most, half at its begin and half at its end; events and what
    the supervisor decided in between stay, pushed together.
    """
    decided = {"session/state", "session/event", "power/permit"}
    needed = {*SURROUNDINGS, *VEHICLE, *decided}
    kept_always = {*ONCE, *decided}
    entries: list[Entry] = []
    cuts = Cuts(read_script(path).changes if longest_s else [], longest_s)

    def choose(topic: Topic) -> Handler | None:
        name = re.sub(r"^/evse\d+/", "", topic.name)
        if name not in needed:
            return None
        stream = Stream(topic.name, topic.type_name, topic.definition)

        def keep(at: int, data: bytes) -> None:
            place, cut = cuts.place(at)
            if name in kept_always or not cut:
                entries.append(Entry(stream, place, place, data))

        return keep

    summary = scan(path, choose)
    file = File(target, {"excerpt_of": path.name, **summary.metadata.get("robot_charger", {})})
    for entry in sorted(entries, key=lambda e: e.log_time):
        file.write(entry)
    file.close()
    return len(entries)
