"""Messages that cannot be, for every topic of the station: which there are, and how each differs from a good one.

Used by bench/borders.py. ``must_refuse`` marks what no receiver may believe; the others are odd but possible, and only
must not harm: no process dies, and the session ends by itself.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from robot_charger.common.clock import now_ns
from robot_charger.common.topics import EVSE_TOPICS, STATION_TOPICS
from robot_charger.msg import ModuleState
from robot_charger.words import convert
from robot_charger.words.values import Rule

MOST_CODES = 40  # unknown values tried of a uint16 enumeration; of a uint8 all are tried
STAMPS = {"0": None, "+10 ms": 10_000_000, "+10 s": 10_000_000_000, "2^62": 2**62}


@dataclass(frozen=True)
class Case:
    """One field of one topic's message with one strange value."""

    topic: str
    field: str
    value: str  # for people
    must_refuse: bool
    change: Callable[[Any], None]  # of a good message

    def message(self, good: Any) -> Any:
        message = copy.deepcopy(good)
        if hasattr(message, "stamp_ns"):
            message.stamp_ns = now_ns()
        self.change(message)
        return message


def _set(field: str, value: Any) -> Callable[[Any], None]:
    return lambda message: setattr(message, field, value)


def _stamp(field: str, ahead: int | None) -> Callable[[Any], None]:
    def change(message: Any) -> None:
        setattr(message, field, 0 if ahead is None else ahead if ahead >= 2**60 else now_ns() + ahead)

    return change


def _unknown(kind: str, known: set[int], dice: random.Random) -> list[int]:
    most = 65_536 if "16" in kind else 256
    unknown = [value for value in range(most) if value not in known]
    return unknown if most == 256 else sorted(dice.sample(unknown, MOST_CODES))


def _strings(topic: str, field: str, kind: str) -> Iterator[Case]:
    longest = int(kind[7:-1]) if "<" in kind else 4096
    yield Case(topic, field, "empty", False, _set(field, ""))
    yield Case(topic, field, f"{longest} characters", False, _set(field, "x" * longest))


def _own(topic: str, message: type, dice: random.Random) -> Iterator[Case]:
    """Cases of one of our own messages."""
    kinds = message.get_fields_and_field_types()  # type: ignore[attr-defined]
    for field in dataclasses.fields(convert.KINDS[message]):
        rule: Rule = field.metadata.get("rule", Rule())
        kind = kinds[field.name]
        if field.name.endswith("stamp_ns"):
            for text, ahead in STAMPS.items():
                yield Case(topic, field.name, text, ahead is not None, _stamp(field.name, ahead))
        elif rule.enum is not None:
            for value in _unknown(kind, {int(m) for m in rule.enum}, dice):
                yield Case(topic, field.name, str(value), True, _set(field.name, value))
        elif kind in ("float", "double"):
            for number in (math.nan, math.inf, -math.inf, rule.high * 1.01, rule.low - 1.0):
                if not rule.low <= number <= rule.high:
                    yield Case(topic, field.name, f"{number:g}", True, _set(field.name, number))
        elif kind.startswith("string"):
            yield from _strings(topic, field.name, kind)


def _point(change: Callable[[Any], None]) -> Callable[[Any], None]:
    def inner(message: Any) -> None:
        if message.points:
            change(message.points[0])

    return inner


def _nested(*path: str, value: Any) -> Callable[[Any], None]:
    def change(message: Any) -> None:
        for name in path[:-1]:
            message = getattr(message, name)
        setattr(message, path[-1], value)

    return change


def _module(field: str, value: Any) -> Callable[[Any], None]:
    def change(message: Any) -> None:
        message.modules = list(message.modules) or [ModuleState()]
        setattr(message.modules[-1], field, value)

    return change


def _standard(topic: str, message: type) -> Iterator[Case]:
    """Cases of the standard messages."""
    name = message.__name__
    numbers = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf, "1e9": 1e9}
    if name == "JointState":
        for text, value in numbers.items():
            yield Case(topic, "position", text, True, lambda m, v=value: setattr(m, "position", [v] * len(m.name)))  # type: ignore[misc]
        yield Case(topic, "position", "empty", True, _set("position", []))
        yield Case(topic, "name", "empty", True, _set("name", []))
        yield Case(topic, "name", "twice the same", True, lambda m: setattr(m, "name", [m.name[0]] * len(m.name)))
        yield Case(topic, "velocity", "one too few", True, lambda m: setattr(m, "velocity", list(m.position)[1:]))
    elif name == "WrenchStamped":
        for part in ("force", "torque"):
            for axis in "xyz":
                for text, value in numbers.items():
                    yield Case(topic, f"{part}.{axis}", text, True, _nested("wrench", part, axis, value=value))
    elif name == "PoseWithCovarianceStamped":
        for axis in "xyz":
            for text, value in numbers.items():
                yield Case(
                    topic, f"position.{axis}", text, True, _nested("pose", "pose", "position", axis, value=value)
                )
        for axis in "xyzw":
            change = _nested("pose", "pose", "orientation", axis, value=math.nan)
            yield Case(topic, f"orientation.{axis}", "nan", True, change)
        for text, value in (("nan", math.nan), ("negative", -1.0)):
            yield Case(topic, "covariance", text, True, _nested("pose", "covariance", value=[value] * 36))
    elif name == "JointTrajectory":
        for text, value in numbers.items():
            change = _point(lambda p, v=value: setattr(p, "positions", [v] * len(p.positions)))  # type: ignore[misc]
            yield Case(topic, "positions", text, True, change)
        yield Case(topic, "points", "empty", True, _set("points", []))
        yield Case(topic, "joint_names", "empty", True, _set("joint_names", []))
    elif name == "CompressedImage":
        yield Case(topic, "data", "empty", True, _set("data", b""))
    elif name == "ModuleArray":
        yield Case(topic, "bus_load", "nan", True, _set("bus_load", math.nan))
        for field in ("voltage_v", "current_a", "temperature_c", "hours"):
            for text, value in numbers.items():
                yield Case(topic, f"modules.{field}", text, True, _module(field, value))
        yield Case(topic, "modules.state", "9", True, _module("state", 9))
    elif name == "DiagnosticArray":
        yield Case(topic, "status", "empty", False, _set("status", []))


def cases(topics: int | None, seed: int, evse: int = 1) -> list[Case]:
    """Every case of ``topics`` topics (None: all), in an order drawn by the seed, topic by topic."""
    dice = random.Random(seed)
    table = {f"/evse{evse}/{name}": kind for name, (kind, _) in EVSE_TOPICS.items()}
    table |= {name: kind for name, (kind, _) in STATION_TOPICS.items()}
    chosen = list(table)
    dice.shuffle(chosen)
    found: list[Case] = []
    for topic in chosen[:topics]:
        kind = table[topic]
        mine = list(_own(topic, kind, dice) if kind in convert.KINDS else _standard(topic, kind))
        dice.shuffle(mine)
        found += mine
    return found
