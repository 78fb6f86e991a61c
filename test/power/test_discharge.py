"""Below 60 V within a second (IEC 61851-23): by the bleeder at the inlet and those of the modules, or a fault."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from power_desk import Desk, charged

from robot_charger.common.faults import Code
from robot_charger.power.output import SAFE_V, Mode
from robot_charger.sim.rack.model import Rack
from robot_charger.words.values import Pilot, Purpose


def cold(rack: Rack) -> bool:
    return max(max(n.output_v, n.bank_v) for n in rack.networks.values()) < SAFE_V


@given(st.integers(1, 100), st.sampled_from([1, 2]), st.floats(0.0, 1000.0), st.floats(0.0, 1000.0), st.booleans())
def test_bleeders_empty_cable_and_bank_of_any_size_within_a_second(
    modules: int, series: int, output_v: float, bank_v: float, joined: bool
) -> None:
    rack = Rack(max(modules, series), [1], series=series)
    network = rack.networks[1]
    network.output_v, network.bank_v = (bank_v, bank_v) if joined else (output_v, bank_v)
    network.contactors = joined
    for cycle in range(100):
        if cold(rack):
            break
        rack.step(cycle * 0.01, 0.01)
    assert cold(rack)


def stopped(desk: Desk) -> Desk:
    """The contactors are open; the vehicle's still holds the inlet."""
    desk.allow(Purpose.NONE)
    desk.run(lambda: desk.output.mode == Mode.DISCHARGE)
    desk.run(2.0)
    assert desk.output.mode == Mode.DISCHARGE and not desk.codes
    assert "vehicle's contactor" in desk.output.text
    return desk


@pytest.mark.parametrize("modules", [1, 46])
def test_the_inlet_is_dead_within_a_second_of_the_vehicle_letting_go(modules: int) -> None:
    desk = stopped(charged(8.0 if modules == 1 else 100.0, modules=modules))
    desk.network.vehicle.contactor = False
    assert desk.run(lambda: desk.output.mode == Mode.OFF) < 0.3
    assert cold(desk.rack) and not desk.codes


def test_of_800_v_too() -> None:
    desk = Desk(series_groups=2, max_voltage_v=1000.0)
    desk.emf_v = desk.network.vehicle.emf_v = 900.0
    desk.charge(50.0)
    stopped(desk).network.vehicle.contactor = False
    assert desk.run(lambda: desk.output.mode == Mode.OFF) < 0.4


def test_a_battery_that_rests_after_charging_is_no_slow_bleeder() -> None:
    desk = stopped(charged(100.0))
    desk.network.vehicle.emf_v *= 0.95
    desk.run(5.0)
    assert desk.output.mode == Mode.DISCHARGE and not desk.codes


def test_a_live_plug_that_is_not_in_a_vehicle_is_told() -> None:
    desk = charged(100.0)
    desk.rack.fault("output-bleeder", True)
    stopped(desk)
    desk.pilots[1] = Pilot.A
    desk.network.vehicle.contactor = desk.network.vehicle.connected = False
    assert desk.run(lambda: desk.output.mode == Mode.FAULT) == pytest.approx(1.0, abs=0.03)
    assert desk.codes == {Code.DISCHARGE} and "V at the inlet" in desk.output.text


def test_a_bank_that_stays_live_is_told_and_its_end_too() -> None:
    desk = charged(100.0)
    desk.rack.fault("bank-bleeder", True)
    desk.allow(Purpose.NONE)
    desk.network.vehicle.contactor = False
    desk.run(lambda: desk.output.mode == Mode.FAULT)
    assert desk.codes == {Code.DISCHARGE} and "V at the bank" in desk.output.text
    desk.rack.fault("bank-bleeder", False)
    desk.allow(Purpose.NONE)
    desk.run(lambda: desk.output.mode == Mode.OFF)
    assert any(r.code == Code.DISCHARGE and not r.active for _, r in desk.faults)


def test_old_measurements_accuse_neither_bleeders_nor_contactors() -> None:
    desk = charged(100.0)
    desk.allow(Purpose.NONE)
    desk.run(lambda: desk.output.mode == Mode.DISCHARGE)
    desk.rack.fault("bus-off", True)  # the last that was heard: 360 V on both sides
    desk.run(3.0)
    assert desk.output.mode == Mode.DISCHARGE and desk.codes == {Code.POWER_BUS, Code.MODULE_LOST, Code.NO_MODULES}
    desk.network.vehicle.contactor = False
    desk.rack.fault("bus-off", False)
    desk.run(lambda: desk.output.mode == Mode.OFF)
    assert not desk.codes & {Code.DISCHARGE, Code.CONTACTOR_WELDED}
