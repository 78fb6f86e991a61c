"""The command line tool as a listener: one ROS participant that keeps what the nodes say."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from functools import partial
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.signals import SignalHandlerOptions

from robot_charger import msg
from robot_charger.common.clock import now_ns
from robot_charger.common.executor import LeanExecutor
from robot_charger.common.topics import checked, topic
from robot_charger.words.border import Border
from robot_charger.words.values import Code, Fault, Link, Phase, Pilot, Request, RobotMode, SessionState, Severity


def _names(enum: type[IntEnum]) -> dict[int, str]:
    """Names of an enumeration by value, in lower case: {0: "idle", ...}."""
    return {int(member): member.name.lower() for member in enum}


PHASES = _names(Phase)
LINKS = _names(Link)
ROBOT_MODES = _names(RobotMode)
PILOTS = {int(p): p.name if len(p.name) == 1 else p.name.lower() for p in Pilot} | {0: "?"}
SEVERITIES = _names(Severity)
FAULT_NAMES = _names(Code)


@dataclass
class Seen:
    """What was seen of one EVSE since its present session began."""

    last: dict[str, Any] = field(default_factory=dict)
    session_id: str = ""
    phases: list[tuple[str, float]] = field(default_factory=list)  # name, when it began [s]
    attempts: int = 0
    soc_start: float = -1.0
    peak_current_a: float = 0.0
    max_voltage_v: float = 0.0
    end: Any = None  # SessionState that ended it
    link_best: Any = None  # VehicleLink with the match


@dataclass
class SeenFault:
    name: str
    code: int
    severity: str
    source: str
    evse: int
    session_id: str
    text: str


class Observer:
    """Listens in its own thread. All reads go through ``lock``."""

    EVSE_TOPICS = (
        "session/state",
        "power/state",
        "power/limits",
        "power/meter",
        "pilot/state",
        "vehicle/link",
        "vehicle/target",
        "fault",
    )
    STATION_TOPICS = ("/robot/state", "/backend/state", "/power/modules", "/safety/state", "/fault", "/diagnostics")

    def __init__(self, evses: list[int], name: str = "desk") -> None:
        self.lock = threading.RLock()
        self.seen = {evse: Seen() for evse in evses}
        self.station: dict[str, Any] = {}
        self.diagnostics: dict[str, Any] = {}
        self.faults: list[SeenFault] = []
        self.events: list[tuple[int, str]] = []
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        self.node = rclpy.create_node(f"{name}_observer")
        self.border = Border(lambda text: self.node.get_logger().warning(text))
        for evse in evses:
            for key in self.EVSE_TOPICS:
                full, kind, qos = topic(key, evse)
                self._listen(full, kind, qos, partial(self._evse_message, evse, key))
        for key in self.STATION_TOPICS:
            full, kind, qos = topic(key)
            self._listen(full, kind, qos, partial(self._station_message, key))
        self._readers = {}
        for evse in evses:
            full, kind, qos = topic("backend/token", evse)
            self._readers[evse] = self.node.create_publisher(kind, full, qos)
        self._executor = LeanExecutor()
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, name="observer", daemon=True)
        self._thread.start()

    def _listen(self, name: str, kind: type, qos: Any, callback: Callable[[Any], None]) -> None:
        self.node.create_subscription(kind, name, checked(self.border, name, kind, callback), qos)

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException, KeyboardInterrupt):
            self._executor.spin()

    def close(self) -> None:
        self._executor.shutdown(timeout_sec=1.0)
        self._thread.join(timeout=2.0)
        self.node.destroy_node()
        rclpy.try_shutdown()

    def output_is_safe(self) -> bool:
        """Every EVSE was seen within the last 300 ms with open contactors and less than 5 A."""
        with self.lock:
            states = [seen.last.get("power/state") for seen in self.seen.values()]
        return all(
            s is not None and now_ns() - s.stamp_ns < 300_000_000 and not s.contactors_closed and abs(s.current_a) < 5.0
            for s in states
        )

    def all_up(self) -> bool:
        """No EVSE is unavailable."""
        with self.lock:
            return all(s.phases and s.phases[-1][0] != "unavailable" for s in self.seen.values())

    def why_late(self, began: bool, patience_s: float) -> str:
        """One sentence: where the sessions stand, or who is missing before they ``began``."""
        with self.lock:
            if began:
                stands = {n: s.phases[-1][0] for n, s in self.seen.items() if s.phases}
                return "took too long; now: " + ", ".join(f"evse{n} {phase}" for n, phase in stands.items())
            waiting = {
                value.value
                for name, status in self.diagnostics.items()
                if name.endswith("/supervisor")
                for value in status.values
                if value.key == "waiting for"
            }
        missing = ", ".join(sorted(waiting)) or "the supervisor"
        return f"not all nodes came up within {patience_s:.0f} s; waiting for {missing}"

    def cycles(self) -> dict[str, int]:
        """Of power's control: how many were due, and how many of them came late or not at all."""
        with self.lock:
            power = [s.last["power/state"] for s in self.seen.values() if "power/state" in s.last]
        return {
            "total": max((p.cycles + p.missed_cycles for p in power), default=0),
            "missed": max((p.missed_cycles for p in power), default=0),
        }

    def plugged(self, evse: int) -> bool | None:
        """The plug of this EVSE is in an inlet; None when its supervisor was not heard for 2 s."""
        with self.lock:
            state = self.seen[evse].last.get("session/state")
        return None if state is None or now_ns() - state.stamp_ns > 2_000_000_000 else bool(state.mated)

    def power_silent_s(self) -> float:
        """Time since power last spoke [s]; infinite when it never did."""
        with self.lock:
            stamps = [s.last["power/state"].stamp_ns for s in self.seen.values() if "power/state" in s.last]
        return (now_ns() - max(stamps)) / 1e9 if stamps else float("inf")

    def show_card(self, evse: int, token: str) -> None:
        """As a card reader at this EVSE."""
        shown = msg.BackendRequest(kind=Request.START, stamp_ns=now_ns(), id_token=token)
        self._readers[evse].publish(shown)

    def _station_message(self, key: str, message: Any) -> None:
        with self.lock:
            if key == "/fault":
                self._fault(message)
            elif key == "/diagnostics":
                for status in message.status:
                    self.diagnostics[status.name] = status
            else:
                self.station[key] = message
                if key == "/robot/state" and message.evse in self.seen:
                    seen = self.seen[message.evse]
                    if seen.phases and seen.phases[-1][0] == "connecting":
                        seen.attempts = max(seen.attempts, message.attempt)

    def _evse_message(self, evse: int, key: str, message: Any) -> None:
        with self.lock:
            if key == "fault":
                self._fault(message)
                return
            seen = self.seen[evse]
            if key == "session/state":
                self._session(evse, seen, message)
                seen = self.seen[evse]
            elif key == "power/state":
                seen.peak_current_a = max(seen.peak_current_a, abs(message.current_a))
                seen.max_voltage_v = max(seen.max_voltage_v, message.voltage_v)
            elif key == "vehicle/link" and message.session_id and message.session_id == seen.session_id:
                if message.matched:
                    seen.link_best = message
                if message.soc >= 0 and seen.soc_start < 0:
                    seen.soc_start = message.soc
            seen.last[key] = message

    def _session(self, evse: int, seen: Seen, state: SessionState) -> None:
        name = PHASES[state.phase]
        if state.session_id and state.session_id != seen.session_id:
            seen = self.seen[evse] = Seen(last=seen.last, session_id=state.session_id)
        if not seen.phases or seen.phases[-1][0] != name:
            seen.phases.append((name, state.phase_stamp_ns / 1e9))
            self.events.append((evse, name))
            if name in ("departing", "faulted"):
                seen.end = state

    def _fault(self, fault: Fault) -> None:
        if fault.active:
            self.faults.append(
                SeenFault(
                    FAULT_NAMES.get(fault.code, str(fault.code)),
                    fault.code,
                    SEVERITIES.get(fault.severity, "?"),
                    fault.source,
                    fault.evse,
                    fault.session_id,
                    fault.text,
                )
            )
