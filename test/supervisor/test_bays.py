"""Several EVSEs, one arm: what the supervisor of one bay makes of an arm that works at another."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from robot_charger.supervisor import flow
from robot_charger.supervisor.inputs import Heard
from robot_charger.supervisor.model import Goal, Inputs, Limits, Session
from robot_charger.words.values import Phase, Pilot, RobotMode, RobotState, Shutdown

LIMITS = Limits()
MS = 1_000_000


def robot(stamp_ns: int, evse: int, **fields: Any) -> RobotState:
    return RobotState(stamp_ns, evse=evse, **fields)


def heard(evse: int, *states: RobotState) -> Inputs:
    h = Heard(evse)
    for state in states:
        h.hear(state)
    return h.inputs(Session(), states[-1].stamp_ns)


def test_an_arm_in_another_bays_contact_zone_is_out_of_this_one():
    working = robot(2 * MS, 2, in_contact_zone=True)
    assert not heard(2, working).robot_clear
    assert heard(1, working).robot_clear and heard(1, working).robot_alive
    assert not heard(1, replace(working, mode=RobotMode.FOLLOWING)).robot_following


def test_an_arm_that_is_no_longer_heard_follows_nothing():
    following = robot(1 * MS, 1, in_contact_zone=True, mode=RobotMode.FOLLOWING)
    assert heard(1, following).robot_following
    h = Heard(1)
    h.hear(following)
    i = h.inputs(Session(), following.stamp_ns + 2000 * MS)
    assert not i.robot_following and not i.robot_clear


def test_a_plug_stays_in_this_inlet_while_the_arm_serves_others():
    mated, elsewhere = robot(1 * MS, 1, plug_in_inlet=True), robot(2 * MS, 2)
    i = heard(1, mated, elsewhere)
    assert i.plug_in_inlet and i.robot_since == 0.0
    assert not heard(2, mated, elsewhere).plug_in_inlet
    assert not heard(1, mated, elsewhere, robot(3 * MS, 1)).plug_in_inlet, "now it came here and took it out"


def test_a_parked_arm_still_speaks_of_the_bay_it_served_last():
    assert heard(1, robot(1 * MS, 1, plug_in_inlet=True), robot(2 * MS, 0)).plug_in_inlet is False
    assert heard(1, robot(1 * MS, 1, plug_in_inlet=True), robot(2 * MS, 2), robot(3 * MS, 0)).plug_in_inlet


def test_frequent_news_wakes_the_loop_only_when_it_decides_something():
    h = Heard(1)
    assert h.hear(robot(1 * MS, 1))
    assert not h.hear(robot(2 * MS, 1))
    assert h.hear(robot(3 * MS, 1, in_contact_zone=True))


READY = Inputs(
    bay_alive=True, occupied=True, immobilised=True, field_clear=True, safety_alive=True, power_alive=True,
    contactors_closed=False, voltage_v=0.0, current_a=0.0, pilot_alive=True, pilot=Pilot.A, robot_alive=True,
    robot_clear=True, link_alive=True,
)  # fmt: skip
CONNECTING = Session(phase=Phase.CONNECTING, since=0.0, session_id="s", goal=Goal.CONNECT, goal_number=1)


def test_waiting_for_the_arm_does_not_count_as_its_working_time():
    late = LIMITS.robot_s + 1.0
    s, _ = flow.step(CONNECTING, READY, late, LIMITS)
    assert s.phase == Phase.CONNECTING
    here = replace(READY, robot_since=late)
    assert flow.step(s, here, late + LIMITS.robot_s, LIMITS)[0].phase == Phase.CONNECTING
    assert flow.step(s, here, late + LIMITS.robot_s + 1.0, LIMITS)[0].phase == Phase.FAULTED
    assert flow.step(s, READY, LIMITS.queue_s + 1.0, LIMITS)[0].phase == Phase.FAULTED, "but not for ever"


def test_who_leaves_before_the_arm_came_owes_nothing():
    s, _ = flow.step(CONNECTING, replace(READY, occupied=False), 5.0, LIMITS)
    assert (s.phase, s.shutdown, s.fault) == (Phase.DEPARTING, Shutdown.NORMAL, 0)


@pytest.mark.parametrize("clear, phase", [(True, Phase.DEPARTING), (False, Phase.STOPPING)])
def test_an_arm_that_gave_up_in_the_inlet_is_fetched_before_the_vehicle_may_go(clear, phase):
    failed = replace(READY, goal_done=1, goal_error=4, robot_clear=clear, robot_since=1.0)
    s, _ = flow.step(CONNECTING, failed, 5.0, LIMITS)
    assert s.phase == phase
    if not clear:
        s, _ = flow.step(s, failed, 6.0, LIMITS)
        assert (s.phase, s.goal) == (Phase.GRASPED, Goal.DISCONNECT)


def test_unplugged_is_believed_only_with_the_pilot():
    s = Session(phase=Phase.DISCONNECTING, session_id="s", goal=Goal.DISCONNECT, goal_number=3, mated=True)
    done = replace(READY, goal_done=3, goal_done_at=10.0, pilot=Pilot.B, robot_since=1.0)
    assert flow.step(s, done, 10.1, LIMITS)[0].phase == Phase.DISCONNECTING
    assert flow.step(s, replace(done, pilot=Pilot.A), 10.2, LIMITS)[0].phase == Phase.DEPARTING
    assert flow.step(s, done, 10.0 + LIMITS.pilot_confirm_s + 0.1, LIMITS)[0].phase == Phase.FAULTED
