"""The tree of the station's health that rqt_robot_monitor shows."""

from __future__ import annotations

import pytest
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from robot_charger import msg
from robot_charger.operator.tree import ERROR, OK, STALE, WARN, Tree, place


def status(name: str, level: bytes = OK, message: str = "well", **values: str) -> DiagnosticStatus:
    pairs = [KeyValue(key=k, value=v) for k, v in values.items()]
    return DiagnosticStatus(name=name, level=level, message=message, values=pairs)


def shown(tree: Tree, now_s: float = 0.0, modules: msg.ModuleArray | None = None) -> dict[str, DiagnosticStatus]:
    return {s.name: s for s in tree.statuses(modules, now_s)}


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("/evse2/pilot", "/Station/EVSE 2/pilot"),
        ("/power", "/Station/power"),
        ("/evse1/power/state", "/Station/EVSE 1/power/state"),
    ],
)
def test_every_node_has_its_place(name, where):
    assert place(name) == where


def test_a_branch_is_as_bad_as_its_worst_leaf_and_says_why():
    tree = Tree()
    for name in ("/evse1/pilot", "/evse1/v2g", "/evse2/pilot", "/robot"):
        tree.hear(status(name), 0.0)
    tree.hear(status("/evse1/v2g", ERROR, "the V2G thread has ended"), 0.0)
    tree.hear(status("/robot", WARN, "the arm is silent"), 0.0)
    told = shown(tree)
    assert (told["/Station"].level, told["/Station"].message) == (ERROR, "EVSE 1/v2g: the V2G thread has ended")
    assert (told["/Station/EVSE 1"].level, told["/Station/EVSE 1"].message) == (ERROR, "v2g: the V2G thread has ended")
    assert (told["/Station/EVSE 2"].level, told["/Station/EVSE 2"].message) == (OK, "all well")
    assert told["/Station/robot"].level == WARN


def test_a_node_that_has_fallen_silent_is_stale_and_comes_back():
    tree = Tree()
    tree.hear(status("/power", message="46 of 46 modules healthy"), 10.0)
    assert shown(tree, 14.9)["/Station/power"].level == OK
    told = shown(tree, 18.0)
    assert told["/Station/power"].level == STALE == told["/Station"].level
    assert told["/Station/power"].message == "silent for 8 s, last: 46 of 46 modules healthy"
    tree.hear(status("/power"), 18.5)
    assert shown(tree, 19.0)["/Station"].level == OK


def test_the_bank_shows_its_modules_with_units_in_order():
    tree = Tree()
    tree.hear(status("/power", cycles="7"), 0.0)
    state = msg.ModuleState
    modules = [state(id=n, state=state.STATE_RUNNING, voltage_v=390.5, current_a=2.5) for n in (10, 2, 1)]
    modules[1].state, modules[1].faults = state.STATE_FAULT, 0x11
    told = shown(tree, 0.0, msg.ModuleArray(modules=modules))
    leaves = [n for n in told if n.startswith("/Station/power/modules/")]
    assert [n.rsplit("/", 1)[1] for n in leaves] == ["1", "2", "10"]
    assert (told["/Station/power/modules/2"].level, told["/Station/power/modules/2"].message) == (ERROR, "fault")
    values = {v.key: v.value for v in told["/Station/power/modules/2"].values}
    assert values["voltage [V]"] == "390.5" and values["fault bits"] == "0x0011"
    # The power node's own line keeps its values and shows what is worst below it.
    assert (told["/Station/power"].level, told["/Station/power"].message) == (ERROR, "modules/2: fault")
    assert [v.key for v in told["/Station/power"].values] == ["cycles"]


def test_rates_of_topics_are_told_per_evse():
    tree = Tree()
    tree.count({"/evse1/power/state": 0, "/robot/state": 0}, 100.0)
    tree.count({"/evse1/power/state": 50, "/robot/state": 0}, 102.0)
    told = shown(tree)
    assert [(v.key, v.value) for v in told["/Station/EVSE 1/topics"].values] == [("power/state [Hz]", "25.0")]
    assert told["/Station/topics"].message == "0 of 1 topics speak"
