"""Basic AC charging by duty cycle alone; time is injected."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_charger.common.faults import Code
from robot_charger.pilot.ac import AcInputs, AcOutlet
from robot_charger.pilot.iec61851 import Mode, State

MS = 1_000_000


class Outlet(AcOutlet):
    """An outlet with a clock and a contactor that follows (or not)."""

    def __init__(self, rated_a: float = 32.0) -> None:
        super().__init__("type2", rated_a)
        self.now = 10**9
        self.follows = True
        self.closed = False
        self.told: list[Code] = []

    def run(self, ms: float, state: State, permitted_a: float = 32.0, **more: float | bool) -> Outlet:
        for _ in range(int(ms / 10)):
            self.now += 10 * MS
            self.step(AcInputs(self.now, state, permitted_a, contactor_closed=self.closed, **more))  # type: ignore[arg-type]
            if self.follows:
                self.closed = self.contactor
            self.told += [fault.code for fault in self.faults]
        return self


def test_a_legacy_vehicle_gets_its_current_and_only_when_ready() -> None:
    outlet = Outlet()
    assert outlet.run(50, State.A).output.mode is Mode.STEADY
    outlet.run(50, State.B)
    assert outlet.told_a == pytest.approx(32.0, abs=0.01)
    assert not outlet.contactor
    assert outlet.run(50, State.C).contactor
    assert not outlet.run(10, State.B).contactor, "in the step in which C is left"


@pytest.mark.parametrize(
    ("permitted_a", "cable_a", "told_a"), [(16, 0, 16), (32, 20, 20), (40, 63, 32), (5, 0, 0), (0, 32, 0)]
)
def test_the_smallest_of_permit_cable_and_outlet_is_told(permitted_a: float, cable_a: float, told_a: float) -> None:
    outlet = Outlet().run(50, State.B, permitted_a, cable_a=cable_a)
    assert outlet.told_a == pytest.approx(told_a, abs=0.01)


def test_a_withdrawn_permit_stops_the_oscillator_and_opens_after_6_s_at_the_latest() -> None:
    outlet = Outlet().run(50, State.C)
    outlet.run(5900, State.C, 0.0)
    assert outlet.output.mode is Mode.STEADY
    assert outlet.contactor, "the vehicle is given time to end the load"
    assert not outlet.run(200, State.C, 0.0).contactor
    assert not outlet.run(50, State.C, 0.0).contactor


def test_a_vehicle_that_obeys_is_opened_at_once() -> None:
    outlet = Outlet().run(50, State.C)
    outlet.run(100, State.C, 0.0)
    assert not outlet.run(10, State.B, 0.0).contactor


@pytest.mark.parametrize("state", [State.A, State.B, State.D, State.E, State.F, State.FAULT, State.UNKNOWN])
def test_no_other_state_than_c_closes(state: State) -> None:
    assert not Outlet().run(100, state).contactor


def test_a_welded_contactor_makes_the_outlet_unavailable() -> None:
    outlet = Outlet().run(50, State.C)
    outlet.follows = False
    outlet.run(1000, State.B)
    assert outlet.told == [Code.CONTACTOR_WELDED]
    assert outlet.output.mode is Mode.F
    assert not outlet.run(100, State.C).contactor


def test_a_contactor_that_does_not_close_is_told() -> None:
    outlet = Outlet()
    outlet.follows = False
    outlet.run(600, State.C)
    assert Code.CONTACTOR_FEEDBACK in outlet.told


def test_a_sick_outlet_is_not_available() -> None:
    outlet = Outlet().run(50, State.C)
    outlet.run(10, State.C, healthy=False)
    assert (outlet.output.mode, outlet.contactor) == (Mode.F, False)


@pytest.mark.parametrize("connector", ["ccs2", "ccs1", "none"])
def test_never_on_a_dc_plug(connector: str) -> None:
    with pytest.raises(ValueError, match="is not allowed"):
        AcOutlet(connector, 32.0)


@given(st.lists(st.tuples(st.sampled_from(list(State)), st.floats(0, 100)), max_size=30))
def test_the_contactor_is_closed_only_in_c(steps: list[tuple[State, float]]) -> None:
    outlet = Outlet()
    for state, permitted_a in steps:
        outlet.run(30, state, permitted_a)
        assert not outlet.contactor or state is State.C
        assert outlet.told_a <= max(permitted_a, 0.0) + 1e-6
