"""Each poisoned message of bench/borders.py against the border itself: what must be refused is, on every topic."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from trajectory_msgs.msg import JointTrajectoryPoint

from robot_charger import msg
from robot_charger.common.clock import now_ns
from robot_charger.common.topics import EVSE_TOPICS, STATION_TOPICS, checked
from robot_charger.desk import poison
from robot_charger.words.border import Border

KINDS = {f"/evse1/{name}": kind for name, (kind, _) in EVSE_TOPICS.items()}
KINDS |= {name: kind for name, (kind, _) in STATION_TOPICS.items()}
CASES = poison.cases(None, seed=0)
GOOD: dict[str, dict[str, Any]] = {
    "Fault": {"severity": 1},
    "BackendRequest": {"kind": 1},
    "MotionPermit": {"evse": 1},
    "JointState": {"name": ["a", "b"], "position": [0.0, 1.0], "velocity": [0.0, 0.0]},
    "JointTrajectory": {"joint_names": ["a"], "points": [JointTrajectoryPoint(positions=[0.0])]},
    "CompressedImage": {"data": b"picture"},
}


def good(topic: str) -> Any:
    kind = KINDS[topic]
    message = kind(**GOOD.get(kind.__name__, {}))
    if kind.__name__ == "PoseWithCovarianceStamped":
        message.pose.pose.orientation.w = 1.0
    if hasattr(message, "stamp_ns"):
        message.stamp_ns = now_ns()
    return message


@pytest.mark.parametrize("topic", sorted(KINDS))
def test_what_must_be_refused_is_refused_and_the_good_message_is_not(topic: str) -> None:
    border, taken = Border(lambda text: None), Counter[str]()
    receive = checked(border, topic, KINDS[topic], lambda value: taken.update(["good"]))
    receive(good(topic))
    assert taken["good"] == 1 and not border.refused
    for case in (c for c in CASES if c.topic == topic and c.must_refuse):
        before = border.refused[topic].count if topic in border.refused else 0
        try:
            message = case.message(good(topic))
        except (AssertionError, OverflowError):  # the field itself has no room for it
            continue
        receive(message)
        assert topic in border.refused and border.refused[topic].count == before + 1, (case.field, case.value)


@pytest.mark.parametrize("topic", sorted(KINDS))
def test_what_is_odd_but_possible_raises_nothing(topic: str) -> None:
    border = Border(lambda text: None)
    receive = checked(border, topic, KINDS[topic], lambda value: None)
    for case in (c for c in CASES if c.topic == topic and not c.must_refuse):
        receive(case.message(good(topic)))
    assert not border.refused


def test_there_are_enough_cases_and_the_seed_draws_the_topics() -> None:
    assert sum(c.must_refuse for c in CASES) >= 1500
    assert {c.topic for c in CASES} >= {t for t, k in KINDS.items() if k.__module__.startswith("robot_charger")}
    first, second = ({c.topic for c in poison.cases(3, seed)} for seed in (1, 2))
    assert len(first) == 3 and first != second


def test_a_report_of_many_modules_is_checked_whole() -> None:
    border, taken = Border(lambda text: None), Counter[str]()
    receive = checked(border, "/power/modules", msg.ModuleArray, lambda value: taken.update(["good"]))
    modules = [msg.ModuleState(id=n + 1, hours=float(n)) for n in range(909)]
    receive(msg.ModuleArray(modules=modules))
    modules[700].temperature_c = float("nan")
    receive(msg.ModuleArray(modules=modules))
    modules[700].temperature_c, modules[3].state = 20.0, 9
    receive(msg.ModuleArray(modules=modules))
    assert taken["good"] == 1 and border.refused["/power/modules"].count == 2
