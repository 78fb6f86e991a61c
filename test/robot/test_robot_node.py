"""The robot's node and the simulated arm as processes, through actions, topics and wires."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from robot_yard import CONTACT, NONE, Yard

from robot_charger import action
from robot_charger.robot.description import load_site
from robot_charger.robot.errors import ErrorCode

pytestmark = [pytest.mark.integration, pytest.mark.alone, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def yard(module_domain: int) -> Iterator[Yard]:
    directory = Path(tempfile.mkdtemp(prefix="rc-", dir="/tmp"))
    yard = Yard(directory, "--seed", "3")
    try:
        yard.bring_up()
        yield yard
    finally:
        yard.close()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(autouse=True)
def parked(yard: Yard) -> Iterator[None]:
    """Each test begins and ends with a parked arm and an empty bay."""
    yield
    yard.calm()
    yard.fault("robot-jam", False)
    if yard.state.mode != yard.state.MODE_PARKED:
        assert yard.act(action.Disconnect).error == ErrorCode.NONE
    yard.leave()


def test_connect_release_disconnect(yard: Yard) -> None:
    yard.arrive()
    connected = yard.act(action.Connect, connector="ccs2")
    assert connected.error == ErrorCode.NONE, connected.text
    assert abs(connected.depth_m - 0.040) < 0.015
    assert 50.0 < connected.peak_force_n <= 100.0
    state = yard.until(lambda s: s.mode == s.MODE_MATED)
    assert state.plug_in_inlet and state.holding_plug and state.end_stop
    truth = yard.until_truth(lambda t: t["mated"])
    assert abs(truth["depth_m"] - 0.040) < 0.001
    assert 70.0 <= truth["max_force_n"] <= 100.0

    assert yard.act(action.Release).error == ErrorCode.NONE
    state = yard.until(lambda s: s.mode == s.MODE_RELEASED)
    assert state.plug_in_inlet and not state.holding_plug and not state.in_contact_zone
    assert yard.cli.signals("arm")["mated"]

    yard.feedback.clear()
    gone = yard.act(action.Disconnect)
    assert gone.error == ErrorCode.NONE, gone.text
    assert any(f.grasped for f in yard.feedback)
    truth = yard.until_truth(lambda t: not t["mated"])
    # Its own peak of 94 N, filtered: less is left of it where a slow machine lets the plug snap out.
    assert 60.0 <= truth["max_pull_n"] <= 150.0
    state = yard.until(lambda s: s.mode == s.MODE_PARKED)
    assert not state.plug_in_inlet and not state.holding_plug
    assert max(connected.seconds, gone.seconds) < 25.0


def test_a_vehicle_that_came_is_waited_for_before_its_plug(yard: Yard) -> None:
    def goes() -> None:
        yard.until(lambda s: s.mode == s.MODE_MOVING)
        yard.until(lambda s: s.mode == s.MODE_PARKED)

    home = load_site().park
    yard.arrive()
    goes()
    before = yard.trajectories[-1].points[0].positions
    assert max(abs(a - b) for a, b in zip(home, before, strict=True)) > 0.2
    yard.leave()
    goes()
    again = yard.trajectories[-1].points[0].positions
    assert max(abs(a - b) for a, b in zip(home, again, strict=True)) < 0.01


def test_a_jam_ends_by_number_with_the_plug_home(yard: Yard) -> None:
    yard.fault("robot-jam", True)
    yard.arrive()
    result = yard.act(action.Connect, connector="ccs2")
    assert result.error == ErrorCode.JAMMED, result.text
    assert result.attempts == 3
    yard.until(lambda s: s.mode == s.MODE_PARKED)
    truth = yard.until_truth(lambda t: not t["mated"])
    assert truth["max_force_n"] <= 125.0


def test_cancel_stops_at_once_and_disconnect_brings_the_plug_home(yard: Yard) -> None:
    yard.arrive()
    handle = yard.send(action.Connect, evse=1, connector="ccs2")
    yard.until(lambda s: s.mode == s.MODE_INSERT)
    yard.cancel(handle)
    assert yard.result(handle).error == ErrorCode.CANCELLED
    yard.until(lambda s: s.mode == s.MODE_HOLD)
    assert yard.act(action.Disconnect).error == ErrorCode.NONE
    yard.until(lambda s: s.mode == s.MODE_PARKED and not s.holding_plug)


def test_without_a_permit_the_arm_holds_then_the_action_ends(yard: Yard) -> None:
    yard.arrive()
    handle = yard.send(action.Connect, evse=1, connector="ccs2")
    yard.until(lambda s: s.mode == s.MODE_APPROACH)
    yard.zone = None  # the supervisor falls silent
    stamp = yard.until(lambda s: s.mode == s.MODE_HOLD).stamp_ns
    yard.until(lambda s: s.mode == s.MODE_HOLD and s.stamp_ns > stamp + 200_000_000)
    sent = len(yard.trajectories)
    assert yard.result(handle).error == ErrorCode.NO_PERMIT
    assert len(yard.trajectories) == sent
    yard.zone = CONTACT


def test_a_short_lapse_is_survived(yard: Yard) -> None:
    yard.arrive()
    handle = yard.send(action.Connect, evse=1, connector="ccs2")
    yard.until(lambda s: s.mode == s.MODE_APPROACH)
    yard.zone = NONE
    yard.until(lambda s: s.mode == s.MODE_HOLD)
    yard.zone = CONTACT
    assert yard.result(handle).error == ErrorCode.NONE


def test_an_emergency_stop_ends_the_action_and_nothing_moves(yard: Yard) -> None:
    yard.arrive()
    handle = yard.send(action.Connect, evse=1, connector="ccs2")
    yard.until(lambda s: s.mode == s.MODE_APPROACH)
    yard.emergency = True
    assert yard.result(handle).error == ErrorCode.EMERGENCY
    yard.until(lambda s: s.mode == s.MODE_HOLD)


def test_one_goal_at_a_time_and_bad_goals(yard: Yard) -> None:
    yard.arrive()
    yard.feedback.clear()
    handle = yard.send(action.Connect, evse=1, connector="ccs2")
    yard.until(lambda s: bool(yard.feedback))  # after the way to the plug that the arm makes by itself
    assert yard.act(action.Disconnect).error == ErrorCode.BUSY
    yard.cancel(handle)
    assert yard.result(handle).error == ErrorCode.CANCELLED
    assert yard.act(action.Connect, connector="schuko").error == ErrorCode.BAD_GOAL
    assert yard.result(yard.send(action.Connect, evse=7, connector="ccs2")).error == ErrorCode.BAD_GOAL
    assert yard.act(action.Release).error == ErrorCode.BAD_GOAL
