"""States of the control pilot from levels, and what the generator does with commands; time is injected."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_charger.common.faults import Code
from robot_charger.pilot.drivers.simulated import levels, peak
from robot_charger.pilot.iec61851 import State
from robot_charger.pilot.logic import Generator, Levels, Output, PilotLogic
from robot_charger.words.values import PilotCommand, PilotMode

MS = 1_000_000
STEADY, PWM5 = Output(PilotMode.STEADY), Output(PilotMode.PWM, 0.05)
B, C, D = 2740.0, 882.0, 246.0


class Bench:
    """A pilot, its wire and a clock."""

    def __init__(self) -> None:
        self.logic = PilotLogic()
        self.now = 10**9
        self.faults: set[Code] = set()

    def run(self, ms: float, measured: Levels, output: Output = PWM5, step_ms: float = 2.0) -> State:
        end = self.now + int(ms * MS)
        while self.now < end:
            self.now += int(step_ms * MS)
            _, changes = self.logic.measure(measured, output, self.now)
            for change in changes:
                (self.faults.add if change.active else self.faults.discard)(change.code)
        return self.logic.state

    def load(self, ms: float, ohm: float | None, output: Output = PWM5, diode: bool = True) -> State:
        return self.run(ms, levels(output, ohm, diode, 1500.0), output)


def test_the_circuit_gives_the_levels_of_the_standard() -> None:
    assert peak(12.0, None, True) == 12.0
    assert peak(12.0, B, True) == pytest.approx(9.0, abs=0.05)
    assert peak(12.0, C, True) == pytest.approx(6.0, abs=0.05)
    assert peak(12.0, D, True) == pytest.approx(3.0, abs=0.1)
    assert peak(-12.0, B, True) == -12.0
    assert peak(-12.0, B, False) == pytest.approx(-8.8, abs=0.05)
    assert peak(12.0, 0.0, False) == 0.0


@pytest.mark.parametrize("output", [STEADY, PWM5])
@pytest.mark.parametrize(
    ("ohm", "state"),
    [(None, State.A), (B, State.B), (1870.0, State.B), (4610.0, State.B), (C, State.C), (D, State.D)],
)
def test_a_vehicles_resistors_make_the_state(output: Output, ohm: float | None, state: State) -> None:
    bench = Bench()
    assert bench.load(50, ohm, output) is state
    assert not bench.faults


def test_a_whole_charge_walks_through_the_states() -> None:
    bench = Bench()
    walk = [(None, STEADY), (B, STEADY), (B, PWM5), (C, PWM5), (D, PWM5), (B, PWM5), (None, STEADY)]
    assert [bench.load(60, ohm, output).name for ohm, output in walk] == list("ABBCDBA")
    assert bench.logic.reading.since_ns == pytest.approx(bench.now - 60 * MS, abs=25 * MS)


@pytest.mark.parametrize("after", [None, B])
def test_leaving_c_is_seen_within_the_filter(after: float | None) -> None:
    bench = Bench()
    bench.load(50, C)
    assert bench.load(8, after) is State.C
    assert bench.load(6, after) is not State.C


def test_every_half_of_a_bcb_toggle_is_seen() -> None:
    bench = Bench()
    bench.load(50, B)
    seen = [bench.load(200, ohm).name for ohm in (C, B, C, B)]  # ISO 15118-3 table 3: 200 to 400 ms each
    assert seen == ["C", "B", "C", "B"]
    assert bench.now - bench.logic.reading.since_ns >= 170 * MS


def test_one_disturbed_sample_in_c_changes_nothing() -> None:
    bench = Bench()
    bench.load(50, C)
    bench.load(6, None)
    assert bench.load(20, C) is State.C
    assert not bench.faults


def test_a_bouncing_contact_makes_no_state_that_does_not_last() -> None:
    """As a plug goes in: levels of A, C and none come and go, each for less than 20 ms."""
    bench = Bench()
    bench.load(50, None)
    for ms, ohm in ((6, C), (10, None), (16, B), (6, D), (16, C), (6, 20_000.0), (16, C), (4, None), (16, C)):
        assert bench.load(ms, ohm) is State.A
    assert not bench.faults
    assert bench.load(22, B) is State.B


def test_c_is_left_by_levels_of_any_kind() -> None:
    bench = Bench()
    bench.load(50, C)
    bench.load(4, B)
    bench.load(2, None)
    assert bench.load(4, 20_000.0) is not State.C


def test_bands_meet_and_hysteresis_holds_a_state_a_little_beyond() -> None:
    inside = Bench()
    inside.run(50, Levels(9.5, -12.0))
    assert inside.run(100, Levels(10.7, -12.0)) is State.B
    assert inside.run(100, Levels(10.9, -12.0)) is State.A
    assert inside.run(100, Levels(10.3, -12.0)) is State.A
    assert inside.run(100, Levels(9.0, -12.0)) is State.B
    assert inside.run(100, Levels(13.4, -12.0)) is State.FAULT
    assert Code.PILOT_LEVEL in inside.faults


@pytest.mark.parametrize(
    ("level", "state"), [(10.17, State.B), (10.1, State.B), (7.1, State.C), (4.2, State.D), (11.2, State.A)]
)
def test_ringing_and_plc_on_the_pilot_do_not_end_a_state(level: float, state: State) -> None:
    bench = Bench()
    nominal = {State.A: 12.0, State.B: 9.0, State.C: 6.0, State.D: 3.0}
    bench.run(50, Levels(nominal[state], -12.0))
    assert bench.run(44, Levels(level, -12.0)) is state
    assert not bench.faults


@pytest.mark.parametrize("dip_ms", [4, 12, 30])
def test_a_dip_of_the_negative_peak_does_not_end_a_charge(dip_ms: int) -> None:
    bench = Bench()
    bench.load(50, C, PWM5)
    assert bench.run(dip_ms, Levels(6.0, -9.0), PWM5) is State.C
    assert bench.run(20, Levels(6.0, -12.0), PWM5) is State.C
    assert not bench.faults
    assert bench.run(60, Levels(6.0, -0.7), PWM5) is State.FAULT
    assert bench.faults == {Code.PILOT_DIODE}


def test_no_diode_is_found_when_the_oscillator_runs_and_not_before() -> None:
    bench = Bench()
    assert bench.load(100, B, STEADY, diode=False) is State.B
    assert not bench.faults
    assert bench.load(100, B, PWM5, diode=False) is State.FAULT
    assert bench.faults == {Code.PILOT_DIODE}
    assert not bench.logic.reading.diode_ok


def test_a_short_is_state_e_with_a_fault_and_an_idle_generator_is_e_without() -> None:
    bench = Bench()
    bench.load(50, B)
    assert bench.load(60, 0.0, PWM5, diode=False) is State.E
    assert bench.faults == {Code.PILOT_SHORT}
    assert bench.load(60, B, Output(PilotMode.OFF)) is State.E
    assert not bench.faults


def test_state_f() -> None:
    bench = Bench()
    assert bench.load(60, B, Output(PilotMode.F)) is State.F
    assert bench.run(60, Levels(9.0, -9.0), Output(PilotMode.F)) is State.FAULT
    assert bench.faults == {Code.PILOT_GENERATOR}


@pytest.mark.parametrize(
    "wrong",
    [Levels(11.2, -12.0), Levels(12.0, -12.0, frequency_hz=970.0), Levels(12.0, -12.0, duty=0.058)],
)
def test_a_generator_out_of_tolerance_is_told_and_the_state_still_read(wrong: Levels) -> None:
    bench = Bench()
    assert bench.run(1500, wrong) is State.A
    assert bench.faults == {Code.PILOT_GENERATOR}
    bench.run(20, Levels(12.0, -12.0))
    assert not bench.faults


def test_a_connector_without_a_pilot_is_never_in_state_a() -> None:
    bench = Bench()
    bench.logic = PilotLogic("chademo")
    assert bench.load(100, None, STEADY) is State.UNKNOWN
    assert bench.load(100, None, Output(PilotMode.F)) is State.UNKNOWN
    assert not bench.faults
    assert "no control pilot" in bench.logic.reading.text


def test_a_dead_board_is_a_fault_and_heals() -> None:
    bench = Bench()
    bench.load(50, C)
    reading, faults = bench.logic.lost("no answer of iio:device0", bench.now)
    assert reading.state is State.FAULT
    assert [f.code for f in faults] == [Code.PILOT_DRIVER]
    assert bench.load(60, C) is State.C


@given(
    st.lists(
        st.tuples(st.floats(-15, 15), st.floats(-15, 15), st.sampled_from([STEADY, PWM5, Output(PilotMode.F)])),
        min_size=1,
        max_size=40,
    )
)
def test_c_and_d_are_only_said_when_the_level_is_theirs(samples: list[tuple[float, float, Output]]) -> None:
    bench = Bench()
    for high_v, low_v, output in samples:
        state = bench.run(50, Levels(high_v, low_v), output)
        if state in (State.C, State.D):
            assert abs(high_v - (6.0 if state is State.C else 3.0)) <= 1.81
            assert output.mode is not PilotMode.F
            assert output.mode is PilotMode.STEADY or low_v < -10.9


# The generator.


def command(number: int, mode: PilotMode, now: int, duty: float = 0.0, pulse_s: float = 0.0) -> PilotCommand:
    return PilotCommand(now, number, mode, duty, pulse_s)


def test_steady_until_the_first_command_then_5_percent() -> None:
    generator = Generator()
    assert generator.output(0) == STEADY
    generator.command(command(1, PilotMode.PWM, 0, 0.05), 0)
    assert generator.output(1) == PWM5


def test_a_pulse_runs_once_at_least_4_s_and_then_the_wire_is_steady() -> None:
    generator, second = Generator(), 10**9
    for at in (0, 1, 2, 3):  # the same command again and again is one pulse
        generator.command(command(7, PilotMode.PULSE_E, at * second, pulse_s=1.0), at * second)
        assert generator.output(at * second).mode is PilotMode.OFF
    generator.command(command(7, PilotMode.PULSE_E, 4 * second), 4 * second)
    assert generator.output(4 * second) == STEADY
    generator.command(command(8, PilotMode.PULSE_F, 5 * second, pulse_s=6.0), 5 * second)
    assert generator.output(10 * second).mode is PilotMode.F
    generator.command(command(9, PilotMode.PWM, 10 * second, 0.05), 10 * second)
    assert generator.output(10 * second).mode is PilotMode.F, "a pulse is not cut short by an ordinary command"
    assert generator.output(11 * second) == PWM5


def test_not_available_cuts_a_pulse_short() -> None:
    generator = Generator()
    generator.command(command(1, PilotMode.PULSE_E, 0, pulse_s=5.0), 0)
    generator.command(command(2, PilotMode.F, 1), 1)
    assert generator.output(2).mode is PilotMode.F


def test_an_oscillator_without_commands_goes_to_f_until_the_next_command() -> None:
    generator, second = Generator(timeout_s=2.0), 10**9
    generator.command(command(1, PilotMode.PWM, 0, 0.05), 0)
    assert generator.output(2 * second) == PWM5
    assert generator.output(2 * second + 1) == Output(PilotMode.F)
    generator.command(command(2, PilotMode.PWM, 3 * second, 0.05), 3 * second)
    assert generator.output(3 * second) == PWM5


def test_steady_needs_no_commands() -> None:
    generator = Generator()
    generator.command(command(1, PilotMode.STEADY, 0), 0)
    assert generator.output(10**12) == STEADY


@pytest.mark.parametrize("duty", [0.0, 0.08, 0.97, 1.0, float("nan")])
def test_an_impossible_duty_is_refused_and_the_wire_steady(duty: float) -> None:
    generator = Generator()
    generator.command(command(1, PilotMode.PWM, 0, duty), 0)
    assert generator.output(0) == STEADY
    assert "10 to 96 %" in generator.refused


def test_a_duty_changes_at_most_every_5_s_but_the_digital_one_at_once() -> None:
    generator, second = Generator(timeout_s=100.0), 10**9
    generator.command(command(1, PilotMode.PWM, 0, 0.5), 0)
    assert generator.output(0).duty == 0.5
    generator.command(command(2, PilotMode.PWM, second, 0.3), second)
    assert generator.output(4 * second).duty == 0.5
    assert generator.output(5 * second).duty == 0.3
    generator.command(command(3, PilotMode.PWM, 6 * second, 0.05), 6 * second)
    assert generator.output(6 * second).duty == 0.05


def test_the_pace_of_current_changes_is_kept_over_a_steady_phase() -> None:
    generator, second = Generator(timeout_s=100.0), 10**9
    generator.command(command(1, PilotMode.PWM, 0, 0.5), 0)
    assert generator.output(0).duty == 0.5
    generator.command(command(2, PilotMode.STEADY, second), second)
    assert generator.output(second).mode is PilotMode.STEADY
    generator.command(command(3, PilotMode.PWM, 2 * second, 0.3), 2 * second)
    assert generator.output(3 * second).mode is PilotMode.STEADY
    assert generator.output(5 * second).duty == 0.3
    generator.command(command(4, PilotMode.STEADY, 6 * second), 6 * second)
    generator.output(6 * second)
    generator.command(command(5, PilotMode.PWM, 7 * second, 0.3), 7 * second)
    assert generator.output(7 * second).duty == 0.3, "the same current again needs no pause"
