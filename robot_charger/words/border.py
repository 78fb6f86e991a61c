"""The border: what comes from outside becomes a checked value here, or is refused with a name.

The rules, for every message of every topic:

- A message is refused whole when a number is NaN, infinite where that is not meant, or outside its range; when an
  enumeration value is unknown; when a stamp lies more than ``AHEAD_NS`` in the future (all clocks of one computer are
  one clock). Ranges and enumerations are those of the message files (``values``).
- The stamp of an accepted value is never later than its arrival, so that its age is the larger of the age by stamp
  and the age by arrival. A value that is older than the one before it is dropped.
- A refused message refreshes no liveliness. But it hides no danger: the part of it that stops something is taken out
  (``danger``) and put into the value that was last accepted, whose stamp does not change.

Plain Python: time is an argument in nanoseconds of CLOCK_MONOTONIC.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections import Counter
from collections.abc import Callable
from enum import IntEnum
from typing import Any, Generic, TypeVar

from robot_charger.words import values
from robot_charger.words.values import Code, Pilot, PilotMode, Request, Rule, Severity

V = TypeVar("V")
Source = Any  # a message with the fields of a value: a ROS message, or a value itself

AHEAD_NS = 2_000_000  # a stamp may be this far ahead of the reader's clock [ns]: one computer has one clock
SAY_NS = 1_000_000_000  # at most one line of log for refused messages in this time [ns]
UNORDERED = (values.Fault, values.BackendRequest)  # events of several senders: each counts, in whatever order


# What a message of another shape raises while it is read.
ODD = (AttributeError, TypeError, ValueError, OverflowError)


class RefusedError(ValueError):
    """A message that may not be believed. ``field`` is the field that is wrong, the text says why."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(f"{field} {why}")
        self.field = field


def _number(name: str, rule: Rule, kind: Callable[[Any], Any]) -> Callable[[Any], Any]:
    low, high, infinite = rule.low, rule.high, rule.infinite

    def take(given: Any) -> Any:
        value = kind(given)
        if not low <= value <= high:  # a NaN fails every comparison
            raise RefusedError(name, f"= {given:g} is not in {low:g}..{high:g}")
        if not infinite and math.isinf(value):
            raise RefusedError(name, f"= {given:g} is not finite")
        return value

    return take


def _enum(name: str, members: type[IntEnum]) -> Callable[[Any], Any]:
    table = {int(member): member for member in members}

    def take(given: Any) -> Any:
        member = table.get(int(given))
        if member is None:
            raise RefusedError(name, f"= {given} is unknown: one of {', '.join(map(str, table))}")
        return member

    return take


def _time(given: Any) -> int:
    """builtin_interfaces/Time, or nanoseconds, as nanoseconds since 1970."""
    if isinstance(given, int):
        return given
    if given.nanosec >= 1_000_000_000:
        raise RefusedError("time", f"has {given.nanosec} nanoseconds: below 1000000000")
    return int(given.sec) * 1_000_000_000 + int(given.nanosec)


def _texts(given: Any) -> tuple[str, ...]:
    return tuple(given)


def _taker(field: dataclasses.Field[Any], kind: Any) -> Callable[[Any], Any]:
    rule = field.metadata.get("rule", Rule())
    if rule.enum is not None:
        return _enum(field.name, rule.enum)
    if field.name == "time":
        return _time
    if kind in (int, float):
        return _number(field.name, rule, kind)
    return {bool: bool, str: str}.get(kind, _texts)


class Check(Generic[V]):
    """Turns messages into values of one kind."""

    def __init__(self, kind: type[V]) -> None:
        self.kind = kind
        hints = typing.get_type_hints(kind)
        fields = dataclasses.fields(kind)  # type: ignore[arg-type]
        self._takers = [(f.name, _taker(f, hints[f.name])) for f in fields if not f.name.endswith("stamp_ns")]
        self._stamps = [f.name for f in fields if f.name.endswith("stamp_ns")]

    def __call__(self, message: Source, now_ns: int) -> V:
        """Raises RefusedError."""
        taken = {name: take(getattr(message, name)) for name, take in self._takers}
        for name in self._stamps:
            stamp = int(getattr(message, name))
            if stamp > now_ns + AHEAD_NS:
                raise RefusedError(name, f"is {(stamp - now_ns) / 1e9:g} s in the future")
            taken[name] = min(stamp, now_ns)
        return self.kind(**taken)


CHECKS: dict[type, Check[Any]] = {
    kind: Check(kind)
    for kind in vars(values).values()
    if isinstance(kind, type) and dataclasses.is_dataclass(kind) and kind is not Rule
}


# The danger in a refused message. Each function gets the message and the value last accepted (None: none yet).
# It returns the fields to change in that value, none when the message holds no danger.
def _no_purpose(message: Source, last: Any) -> dict[str, Any]:
    return {"purpose": values.Purpose.NONE} if message.purpose == values.Purpose.NONE else {}


def _charge_permit(message: Source, last: Any) -> dict[str, Any]:
    return {**_no_purpose(message, last), "abrupt": True} if _no_purpose(message, last) else {}


def _motion_permit(message: Source, last: Any) -> dict[str, Any]:
    return {"zone": values.Zone.NONE} if message.zone == values.Zone.NONE else {}


def _stops(*true: str, false: tuple[str, ...] = ()) -> Callable[[Source, Any], dict[str, Any]]:
    """Fields that are dangerous when true, and fields that are dangerous when false."""

    def danger(message: Source, last: Any) -> dict[str, Any]:
        return {
            **{n: True for n in true if getattr(message, n)},
            **{n: False for n in false if not getattr(message, n)},
        }

    return danger


def _pilot_state(message: Source, last: Any) -> dict[str, Any]:
    known = {int(state) for state in Pilot} - {Pilot.C, Pilot.D}
    return {"state": Pilot(message.state)} if message.state in known else {}


def _pilot_command(message: Source, last: Any) -> dict[str, Any]:
    off = (PilotMode.OFF, PilotMode.F)
    return {"mode": PilotMode(message.mode), "duty": 0.0} if message.mode in off else {}


def _limit(message: Source, last: Any) -> dict[str, Any]:
    """A bad limit never lifts one: what can be read of it counts where it is lower, the rest stays.

    Without a limit before it, what cannot be read is the strictest limit: zero.
    """
    given = {name: float(getattr(message, name)) for name in ("max_current_a", "max_power_w")}
    if last is None:
        return {name: value if value >= 0.0 else 0.0 for name, value in given.items()}
    return {name: value for name, value in given.items() if 0.0 <= value < getattr(last, name)}


def _session_state(message: Source, last: Any) -> dict[str, Any]:
    grave = [s for s in values.Shutdown if s >= values.Shutdown.ERROR and s == message.shutdown]
    stops = _stops("stop_requested", "emergency_latched")(message, last)
    return {**stops, **({"shutdown": grave[0], "stop_requested": True} if grave else {})}


def _fault(message: Source, last: Any) -> dict[str, Any]:
    """An unknown severity counts as STOP, without a latch; an unknown code as INTERNAL."""
    known = {int(s) for s in Severity}
    severity = Severity(message.severity) if message.severity in known else Severity.STOP
    if not message.active or severity < Severity.STOP:
        return {}
    code = Code(message.code) if message.code in {int(c) for c in Code} else Code.INTERNAL
    same = {n: getattr(message, n) for n in ("source", "evse", "session_id", "text")}
    return {"code": code, "severity": severity, "active": True, **same}


def _stop_request(message: Source, last: Any) -> dict[str, Any]:
    if message.kind != Request.STOP:
        return {}
    return {"kind": Request.STOP, "session_id": message.session_id, "text": message.text}


DANGERS: dict[type, Callable[[Source, Any], dict[str, Any]]] = {
    values.ChargePermit: _charge_permit,
    values.MotionPermit: _motion_permit,
    values.VehicleTarget: _no_purpose,
    values.SafetyState: _stops("emergency_stop", "door_open", false=("alive",)),
    values.BayState: _stops(false=("field_clear", "immobilised")),
    values.PilotState: _pilot_state,
    values.PilotCommand: _pilot_command,
    values.ChargingLimit: _limit,
    values.SessionState: _session_state,
    values.SupplyState: _stops("contactors_closed", "contactor_welded", false=("contactors_open",)),
    values.SupplyLimits: _stops(false=("available",)),
    values.RobotState: _stops("in_contact_zone", "plug_in_inlet"),
    values.Fault: _fault,
    values.BackendRequest: _stop_request,
}


@dataclasses.dataclass
class Refusals:
    """What was refused on one topic."""

    count: int = 0
    last: str = ""


class Border:
    """The border of one node: counts what it refuses, by topic, and says it at most once a second."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self._said_ns = -SAY_NS
        self.refused: dict[str, Refusals] = {}
        self.late: Counter[str] = Counter()  # older than what came before it

    def refuse(self, topic: str, error: Exception, now_ns: int) -> None:
        """Note a message that was refused. Callable from any thread."""
        entry = self.refused.setdefault(topic, Refusals())
        entry.count += 1
        entry.last = str(error)
        if now_ns - self._said_ns >= SAY_NS:
            self._said_ns = now_ns
            self.say(f"{topic}: a message was refused ({entry.count} so far): {entry.last}")

    def values(self) -> dict[str, str]:
        """For /diagnostics; empty while nothing was refused."""
        return {f"{t} refused": f"{r.count} times, last: {r.last}" for t, r in sorted(self.refused.items())}


class Checkpoint(Generic[V]):
    """One topic's way through the border. Not thread-safe: one thread receives a topic."""

    def __init__(self, border: Border, topic: str, kind: type[V]) -> None:
        self._border, self._topic = border, topic
        self._check: Check[V] = CHECKS[kind]
        self._danger = DANGERS.get(kind)
        self._ordered = kind not in UNORDERED
        self._last: V | None = None

    def take(self, message: Source, now_ns: int) -> tuple[V | None, bool]:
        """The value, and whether it is sound.

        None when there is nothing to act on. A value that is not sound is the last one with the danger of a refused
        message in it: it stops, and proves nobody alive.
        """
        try:
            value = self._check(message, now_ns)
        except ODD as error:
            self._border.refuse(self._topic, error, now_ns)
            return self._dangerous(message), False
        if self._ordered and self._last is not None and value.stamp_ns < self._last.stamp_ns:  # type: ignore[attr-defined]
            self._border.late[self._topic] += 1
            return self._dangerous(message), False
        self._last = value
        return value, True

    def _dangerous(self, message: Source) -> V | None:
        if self._danger is None:
            return None
        try:
            changes = self._danger(message, self._last)
        except ODD:
            return None
        if not changes:
            return None
        last = self._last if self._ordered and self._last is not None else self._check.kind()
        stopped: V = dataclasses.replace(last, **changes)  # type: ignore[type-var]
        if self._ordered:
            self._last = stopped  # the next refused message must not lift it
        return stopped
