"""The power node with rack and safety controller as real processes, against a plain target."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from power_station import Station

from robot_charger.common.faults import Code
from robot_charger.power.output import Mode
from robot_charger.words.values import Insulation

pytestmark = [pytest.mark.integration, pytest.mark.alone]


def _is_off(station: Station) -> bool:
    s = station.state
    return s.contactors_open and not s.contactors_requested and abs(s.current_a) < 5.0


def _seconds_until(station: Station, condition: object) -> float:
    start = time.monotonic()
    station.until(condition)  # type: ignore[arg-type]
    return time.monotonic() - start


def test_charges_ends_in_order_and_the_books_agree(station: Station) -> None:
    station.charge(100.0)
    station.until(lambda: station.state.modules_active == 21)
    bay = station.newest["bay/state"]
    assert bay.occupied and bay.immobilised and bay.field_clear
    station.until(lambda: station.newest["power/meter"].import_wh > 5.0)
    station.allow(0)
    station.until(lambda: station.state.mode == Mode.DISCHARGE)
    assert _is_off(station)
    station.vehicle.signals["contactor"] = False
    station.until(lambda: station.state.mode == Mode.OFF and station.state.voltage_v < 60.0)
    order = [Mode.OFF, Mode.INSULATION_TEST, Mode.OFF, Mode.PRECHARGE, Mode.TRANSFER]
    assert station.modes == [*order, Mode.RAMP_DOWN, Mode.DISCHARGE, Mode.OFF]
    station.until(lambda: abs(station.newest["power/meter"].import_wh - station.vehicle.rack["energy_in_wh"]) < 0.05)
    meter = station.newest["power/meter"]
    assert meter.valid and meter.serial == "77000001" and meter.export_wh == 0.0
    told = station.cli.signals("rack")
    assert told["module_energy_wh"]["1"] == pytest.approx(meter.import_wh, rel=0.01)
    modules = station.newest["/power/modules"]
    assert len(modules.modules) == 46 and modules.frames_bad == 0
    assert 0.2 < modules.bus_load < 0.8
    assert not station.codes()


def test_permit_lapse_and_e_stop_take_the_output_off(station: Station) -> None:
    station.charge(100.0)
    station.speaking = False
    station.until(lambda: station.state.mode == Mode.FAULT and _is_off(station))
    assert Code.PERMIT_LAPSED in station.codes()
    station.speaking = True
    station.allow(0)
    station.vehicle.signals["contactor"] = False
    station.until(lambda: station.state.mode == Mode.OFF)
    station.allow(2, voltage_v=360.0)
    station.until(lambda: station.state.mode == Mode.PRECHARGE and abs(station.state.voltage_v - 360.0) < 20.0)
    station.vehicle.signals["contactor"] = True
    station.allow(3, voltage_v=410.0, current_a=100.0)
    station.until(lambda: station.state.current_a > 90.0)
    station.fault("safety", "emergency-stop")
    station.until(lambda: station.newest["/safety/state"].emergency_stop and _is_off(station))
    station.until(lambda: Code.EMERGENCY_STOP in station.codes())
    station.until(lambda: station.cli.signals("safety")["emergency"])


def test_one_dead_module_goes_unnoticed_and_a_fault_of_insulation_does_not(station: Station) -> None:
    station.charge(100.0)
    station.fault("rack", "module-dead")
    station.until(lambda: Code.MODULE_LOST in station.codes())
    station.until(lambda: abs(station.state.current_a - 100.0) < 2.0)
    assert station.state.mode == Mode.TRANSFER
    station.fault("safety", "isolation-charging")
    station.until(lambda: station.state.mode == Mode.FAULT and _is_off(station))
    assert station.state.insulation == Insulation.FAULT and Code.INSULATION_CHARGING in station.codes()


def test_power_killed_leaves_nothing_energised(station: Station) -> None:
    station.charge(100.0)
    station.processes["power"].kill()
    assert _seconds_until(station, lambda: not station.cli.signals("rack")["contactors"]["1"]) < 1.0
    assert abs(station.vehicle.rack["current_a"]) < 1.0


def test_sigterm_under_load_ends_safe(station: Station) -> None:
    station.charge(100.0)
    station.processes["power"].send_signal(signal.SIGTERM)
    assert station.processes["power"].wait(10) == 0
    station.until(lambda: not station.cli.signals("rack")["contactors"]["1"])
    assert abs(station.vehicle.rack["current_a"]) < 5.0


@pytest.mark.parametrize(
    ("argument", "names"),
    [
        ("modules:=0", "modules"),
        ("modules:=100", "80%"),
        ("max_voltage_v:=2000.0", "max_voltage_v"),
        ("evses:=[1,1]", "evses"),
        ("colour:=red", "colour"),
    ],
)
def test_an_impossible_parameter_is_told_in_one_line(argument: str, names: str) -> None:
    command = [sys.executable, "-m", "robot_charger.power.node", "--ros-args", "-p", argument]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=dict(os.environ))
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert names in last


def test_a_bus_that_is_not_there_leaves_the_node_unconfigured(sim_directory: Path) -> None:
    station = Station(sim_directory, bus="socketcan:nosuch0")
    try:
        with pytest.raises(AssertionError, match="transition 1"):
            station.transition(1)
    finally:
        station.close()


def test_303_modules_on_five_buses(sim_directory: Path) -> None:
    station = Station(sim_directory, modules=303, buses=5, setpoint_frames="group")
    try:
        station.charge(250.0)
        station.until(lambda: "/power/modules" in station.newest)
        modules = station.newest["/power/modules"].modules
        assert len(modules) == 303 and {m.bus for m in modules} == {0, 1, 2, 3, 4}
        assert len({(m.bus, m.id) for m in modules}) == 303
    finally:
        station.close()


@pytest.mark.parametrize(
    ("protocol", "modules", "buses"), [("canopen", 24, 2), ("modbus", 3, 1)], ids=["canopen", "modbus"]
)
def test_modules_of_another_protocol_complete_a_session(
    sim_directory: Path, protocol: str, modules: int, buses: int
) -> None:
    station = Station(sim_directory, modules, buses, **{"module.protocol": protocol, "module.timeout_ms": 500.0})
    try:
        amperes = 6.0 * modules
        station.charge(amperes)
        station.fault("rack", "module-dead", module=2)
        station.until(lambda: station.newest["power/limits"].modules_healthy == modules - 1, 5.0)
        station.until(lambda: abs(station.state.current_a - amperes) < 0.02 * amperes)
        if protocol == "modbus":
            assert station.state.modules_active == 2
        station.allow(0)
        station.until(lambda: station.state.mode == Mode.DISCHARGE)
        assert _is_off(station)
        station.vehicle.signals["contactor"] = False
        station.until(lambda: station.state.mode == Mode.OFF and station.state.voltage_v < 60.0)
        assert station.codes() == {Code.MODULE_LOST}
        modules_seen = station.newest["/power/modules"]
        assert modules_seen.frames_out > 100 and modules_seen.frames_in > 100
    finally:
        station.close()
