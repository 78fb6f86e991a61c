"""What real parts do and ideal ones do not: each habit of the simulated bank, and what the vehicle saw of it.

Soft start, offsets and hold times are in test_real_modules and test_accuracy.
"""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from power_desk import Desk, charged

from robot_charger.common.clock import MILLISECOND, SECOND
from robot_charger.common.faults import Code
from robot_charger.common.parameters import ParameterError
from robot_charger.power import codec
from robot_charger.power.codec import EvseStatus, Monitor
from robot_charger.power.heat import Heat
from robot_charger.power.insulation import InsulationWatch
from robot_charger.power.output import Mode
from robot_charger.power.parameters import PowerParameters
from robot_charger.sim.rack.habits import Habits, parse
from robot_charger.words.values import Insulation

OHM = 100e3  # limit


def test_the_vehicle_closes_18_v_above_the_output() -> None:
    desk = Desk(habits=Habits(inrush=True))
    desk.precharge()
    desk.network.vehicle.emf_v = desk.network.output_v + 18.0
    desk.network.vehicle.contactor = True
    desk.cycle()
    assert desk.network.inrush_a == pytest.approx(18.0 / 0.05, rel=0.1), "for microseconds, out of the vehicle"
    desk.run(0.5)
    assert abs(desk.network.current_a) < 5.0 and not desk.codes and desk.output.mode == Mode.PRECHARGE


@pytest.mark.parametrize("amperes", [100.0, 200.0])
def test_the_vehicle_opens_under_load(amperes: float) -> None:
    desk = Desk(habits=Habits(overshoot=0.05))
    desk.charge(amperes)
    desk.network.vehicle.contactor = False
    desk.cycle()
    top = desk.targets[1]["voltage_v"]
    assert top < desk.network.output_v <= 1.05 * top
    desk.run(0.5)
    assert desk.network.output_v <= top + 5.0 and desk.network.current_a < 5.0
    assert not {Code.OVERVOLTAGE} & desk.codes


def test_ripple_moves_neither_the_trim_nor_a_trip() -> None:
    desk = Desk(habits=Habits(ripple_a=1.0))
    desk.charge(100.0)
    desk.run(5.0)
    assert desk.network.current_a == pytest.approx(100.0, abs=1.0) and not desk.codes


def test_bleeders_act_only_while_the_modules_are_off() -> None:
    desk = charged(50.0)
    desk.network.vehicle.contactor = False
    desk.run(0.3)
    assert desk.network.output_v > 300.0, "modules that are on hold their voltage"


def test_habits_are_named_on_the_command_line() -> None:
    assert parse(["offset=-0.01", "inrush"], Habits()) == Habits(offset=-0.01, inrush=True)
    with pytest.raises(ValueError, match="one of"):
        parse(["nonsense=1"], Habits())


# Insulation in transfer.


def watch(values: list[tuple[int, float]], **parameters: float) -> tuple[Code, float, bool]:
    """Monitor state and ohm every 100 ms from the begin of transfer: code, when [s], and whether it ever warned."""
    it = InsulationWatch(PowerParameters(**parameters))  # type: ignore[arg-type]
    it.begin(SECOND)
    warned = False
    for number, (monitor, ohm) in enumerate(values):
        verdict = it.judge(SECOND + number * 100 * MILLISECOND, EvseStatus(ohm, monitor, 1), OHM)
        warned |= verdict.low
        if verdict.code is not Code.NONE:
            return verdict.code, number * 0.1, warned
    return Code.NONE, 0.0, warned


GOOD = (int(Monitor.MEASURING), 1e6)


@pytest.mark.parametrize("ohm", [50e3, 93e3])
def test_one_bad_reading_is_a_warning_and_a_persisting_one_the_fault(ohm: float) -> None:
    bad = (int(Monitor.MEASURING), ohm)
    assert watch([GOOD, GOOD, *[bad] * 4, *[GOOD] * 50]) == (Code.NONE, 0.0, True)
    code, when, _ = watch([GOOD, GOOD, *[bad] * 60])
    assert code is Code.INSULATION_CHARGING and when == pytest.approx(3.2, abs=0.1)
    assert watch([bad] * 20, insulation__debounce_s=0.0)[:2] == (Code.INSULATION_CHARGING, 0.0)


def test_a_hard_short_needs_no_debounce() -> None:
    assert watch([GOOD, (int(Monitor.MEASURING), 5e3)])[:2] == (Code.INSULATION_CHARGING, 0.1)


def test_only_readings_that_the_monitor_marks_invalid_are_waited_for() -> None:
    invalid = (int(Monitor.INVALID), 0.0)
    assert watch([invalid] * 45 + [GOOD] * 10)[0] is Code.NONE
    code, when, _ = watch([invalid] * 100)
    assert code is Code.INSULATION_SELF_TEST and 7.0 <= when <= 7.2
    assert watch([(int(Monitor.MEASURING), 5e3)])[0] is Code.INSULATION_CHARGING, "no grace for a valid one"
    assert watch([(int(Monitor.OFF), 0.0)] * 40)[0] is Code.INSULATION_SELF_TEST


@pytest.mark.parametrize(("debounce", "response"), itertools.product((0.0, 3.0, 8.0), (1.0, 5.0, 10.0)))
def test_debounce_and_response_are_10_s_together_at_most(debounce: float, response: float) -> None:
    parameters = PowerParameters(insulation__debounce_s=debounce, insulation__response_s=response)
    if debounce + response <= 10.0:
        parameters.check()
    else:
        with pytest.raises(ParameterError, match=r"insulation\.debounce_s"):
            parameters.check()


def test_a_blip_at_the_start_of_transfer_does_not_end_the_charge() -> None:
    desk = charged(100.0)
    desk.worlds[1].vehicle_ohm = 60e3
    desk.run(0.8)
    desk.worlds[1].vehicle_ohm = 2e6
    desk.run(0.2)
    assert desk.output.mode == Mode.TRANSFER and desk.output.insulation == Insulation.WARNING
    desk.run(2.0)
    assert desk.output.insulation == Insulation.VALID and not desk.codes
    desk.worlds[1].vehicle_ohm = 60e3
    desk.run(lambda: Code.INSULATION_CHARGING in desk.codes, 6.0)


# Temperature sensors.


@pytest.mark.parametrize("dead", ["positive_c", "negative_c", "cable_c", "coolant_c"])
@pytest.mark.parametrize("celsius", [-50.0, 205.0])
def test_a_dead_temperature_sensor_derates_then_stops(dead: str, celsius: float) -> None:
    heat = Heat(PowerParameters())
    measured = dataclasses.replace(codec.OutputMeasurement(), **{dead: celsius})
    for _ in range(50):
        heat.follow(0.01, measured)
    assert heat.share == 1.0 and not heat.ends(measured), "a single bad frame is nothing"
    for _ in range(500):
        heat.follow(0.01, measured)
    assert heat.share == pytest.approx(0.5, abs=0.01) and not heat.ends(measured)
    for _ in range(6000):
        heat.follow(0.01, measured)
    assert "sensor" in heat.ends(measured)
    heat.follow(0.01, codec.OutputMeasurement())
    assert not heat.ends(codec.OutputMeasurement())


def test_a_dead_sensor_does_not_hide_a_hot_one() -> None:
    heat = Heat(PowerParameters())
    assert "91" in heat.ends(codec.OutputMeasurement(positive_c=205.0, negative_c=91.0))
