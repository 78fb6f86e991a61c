"""Basic AC charging by duty cycle alone; time is injected."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_charger.common import duty_cycle
from robot_charger.common.faults import Code
from robot_charger.pilot.ac import AcInputs, AcOutlet, PermitHold
from robot_charger.pilot.iec61851 import State
from robot_charger.pilot.logic import Output
from robot_charger.words.values import ChargePermit, Link, PilotMode, Purpose

MS = 1_000_000
STEADY = Output(PilotMode.STEADY)


def told(current_a: float) -> Output:
    return Output(PilotMode.PWM, duty_cycle.from_current(current_a))


class Outlet(AcOutlet):
    """An outlet with a clock, a session, and a contactor that follows (or not)."""

    def __init__(self, ventilated: bool = False) -> None:
        super().__init__("type2", ventilated, ended_after_s=10.0)
        self.now = 10**9
        self.follows = True
        self.closed = False
        self.told: list[Code] = []

    def run(self, ms: float, state: State, output: Output | None = None, permitted: bool = True, **more) -> Outlet:
        for _ in range(int(ms / 10)):
            self.now += 10 * MS
            values = {"session_id": "s", **more}
            self.step(
                AcInputs(self.now, state, output or told(16.0), permitted=permitted, closed=self.closed, **values)
            )
            if self.follows:
                self.closed = self.contactor
            self.told += [fault.code for fault in self.changes if fault.active]
        return self


def test_a_legacy_vehicle_is_switched_on_only_when_it_is_ready() -> None:
    outlet = Outlet()
    assert not outlet.run(50, State.B).contactor
    assert (outlet.link, outlet.wants) == (Link.LINKED, False)
    assert outlet.run(10, State.C).contactor, "in the step in which C is seen"
    outlet.run(10, State.C)
    assert (outlet.link, outlet.wants) == (Link.CHARGING, True)
    assert not outlet.run(10, State.B).contactor, "in the step in which C is left"


@pytest.mark.parametrize("state", [State.A, State.B, State.D, State.E, State.F, State.FAULT, State.UNKNOWN])
def test_no_other_state_than_c_closes(state: State) -> None:
    assert not Outlet().run(100, state).contactor


@pytest.mark.parametrize("output", [STEADY, Output(PilotMode.F), Output(PilotMode.PWM, 0.05)])
def test_nothing_is_switched_on_that_was_told_no_current(output: Output) -> None:
    assert not Outlet().run(100, State.C, output).contactor


def test_nothing_is_switched_on_without_a_permit() -> None:
    outlet = Outlet()
    assert not outlet.run(100, State.C, permitted=False).contactor
    assert outlet.run(10, State.C).contactor
    assert not outlet.run(10, State.C, permitted=False).contactor, "at once: no grace without a permit"


def test_a_vehicle_that_wants_ventilation_is_refused() -> None:
    outlet = Outlet().run(100, State.D)
    assert (outlet.contactor, outlet.wants, outlet.link, outlet.error) == (False, False, Link.FAILED, Code.INTERLOCK)
    assert not outlet.run(100, State.C).wants, "for the rest of the session"
    assert Outlet(ventilated=True).run(100, State.D).contactor


def test_a_stopped_oscillator_opens_after_6_s_at_the_latest() -> None:
    outlet = Outlet().run(50, State.C)
    assert outlet.run(5900, State.C, STEADY).contactor, "the vehicle is given time to end the load"
    assert not outlet.run(200, State.C, STEADY).contactor
    assert not outlet.run(1000, State.C, STEADY).contactor


def test_a_vehicle_that_obeys_the_stop_is_opened_at_once_and_the_session_has_ended() -> None:
    outlet = Outlet().run(50, State.C)
    outlet.run(100, State.C, STEADY, stopping=True)
    assert (outlet.contactor, outlet.link) == (True, Link.CHARGING)
    assert not outlet.run(10, State.B, STEADY, stopping=True).contactor
    assert outlet.run(20, State.B, STEADY, stopping=True).link == Link.ENDED


def test_a_vehicle_that_stays_in_b_has_had_enough() -> None:
    outlet = Outlet().run(50, State.C).run(9000, State.B).run(50, State.C)
    assert outlet.contactor, "it may come back"
    assert outlet.run(9000, State.B).link == Link.CHARGING
    assert outlet.run(1100, State.B).link == Link.ENDED
    assert not outlet.run(100, State.C).wants
    assert outlet.run(10, State.B, session_id="next").link == Link.LINKED


def test_a_pause_of_the_station_is_not_the_vehicles_end() -> None:
    assert Outlet().run(50, State.C).run(60_000, State.B, STEADY).link == Link.CHARGING


@pytest.mark.parametrize("output, current_a", [(told(16.0), 18.1), (told(32.0), 35.3), (told(6.0), 8.1)])
def test_a_vehicle_that_draws_more_than_it_was_told_is_stopped(output: Output, current_a: float) -> None:
    outlet = Outlet().run(50, State.C, output)
    assert outlet.run(5900, State.C, output, current_a=current_a).contactor
    assert not outlet.run(300, State.C, output, current_a=current_a).contactor
    assert outlet.told == [Code.OVERCURRENT]
    assert not outlet.run(1000, State.B, output).run(1000, State.C, output).contactor, "not on this plug again"
    assert outlet.run(10, State.A, output).run(50, State.C, output, session_id="next").contactor


def test_a_lower_duty_gives_the_vehicle_5_s_to_follow() -> None:
    outlet = Outlet().run(50, State.C, told(32.0)).run(5000, State.C, told(16.0), current_a=32.0)
    assert outlet.run(10_000, State.C, told(16.0), current_a=16.0).contactor
    assert not outlet.told


def test_a_residual_current_opens_at_once_and_stands_until_unplugged() -> None:
    outlet = Outlet().run(50, State.C)
    assert not outlet.run(10, State.C, residual=True).contactor
    assert not outlet.run(1000, State.C).contactor, "without current there is no residual one: it stands all the same"
    assert outlet.told == [Code.INSULATION_CHARGING]
    assert not outlet.run(10, State.A).faults


def test_a_silent_meter_opens_and_after_2_s_stops_the_session() -> None:
    outlet = Outlet().run(50, State.C)
    assert not outlet.run(10, State.C, current_a=None).contactor
    assert not outlet.run(1800, State.C, current_a=None).told
    assert outlet.run(300, State.C, current_a=None).told == [Code.METER]
    assert not outlet.run(10, State.C).faults


def test_a_welded_contactor_is_told_and_never_closed_again() -> None:
    outlet = Outlet().run(50, State.C)
    outlet.follows = False
    outlet.run(1000, State.B)
    assert outlet.told == [Code.CONTACTOR_WELDED]
    assert not outlet.run(100, State.A).run(100, State.C, session_id="next").contactor


def test_a_contactor_that_does_not_close_is_told() -> None:
    outlet = Outlet()
    outlet.follows = False
    assert outlet.run(600, State.C).told == [Code.CONTACTOR_FEEDBACK]
    assert not outlet.contactor


def test_a_board_that_does_not_answer_is_told() -> None:
    outlet = Outlet().run(50, State.C)
    outlet.run(10, State.C, board="line gpiochip0:17 does not answer")
    assert (outlet.contactor, outlet.told) == (False, [Code.CONTACTOR_FEEDBACK])


@pytest.mark.parametrize("connector", ["ccs2", "ccs1", "chademo", "gbt", "none"])
def test_never_on_a_dc_plug(connector: str) -> None:
    with pytest.raises(ValueError, match="is not allowed"):
        AcOutlet(connector)


def test_a_permit_ends_by_itself_and_is_not_resumed() -> None:
    hold = PermitHold()
    hold.take(ChargePermit(0, 5, "s", Purpose(3)))
    assert hold.permits("s", 300 * MS)
    assert not hold.permits("another", 300 * MS)
    assert not hold.permits("s", 301 * MS)
    hold.take(ChargePermit(310 * MS, 5, "s", Purpose(3)))
    assert not hold.permits("s", 311 * MS), "the same number again is the one that lapsed"
    hold.take(ChargePermit(320 * MS, 6, "s", Purpose(3)))
    assert hold.permits("s", 321 * MS)
    hold.take(ChargePermit(310 * MS, 4, "s", Purpose(0)))
    assert hold.permits("s", 322 * MS), "an older message that was overtaken"
    hold.take(ChargePermit(330 * MS, 7, "s", Purpose(0)))
    assert not hold.permits("s", 331 * MS)


@given(st.lists(st.tuples(st.sampled_from(list(State)), st.booleans(), st.booleans(), st.booleans()), max_size=30))
def test_the_contactor_is_closed_only_in_c_with_a_permit(steps: list[tuple[State, bool, bool, bool]]) -> None:
    outlet = Outlet()
    for state, permitted, offered, residual in steps:
        outlet.run(30, state, told(16.0) if offered else STEADY, permitted, residual=residual)
        assert not outlet.contactor or (state is State.C and permitted and not residual)
