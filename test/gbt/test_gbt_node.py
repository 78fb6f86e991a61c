"""The GB/T node and the simulated vehicle as processes; supervisor and power are played through topics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from plug_station import PlugStation, Processes

from robot_charger import msg
from robot_charger.common.can_bus import open_bus
from robot_charger.common.can_udp import free_block

pytestmark = [pytest.mark.integration, pytest.mark.alone]
L, S = msg.VehicleLink, msg.SessionState
Run = Callable[..., PlugStation]


@pytest.fixture
def run(sim_directory: Path) -> Iterator[Run]:
    processes = Processes(sim_directory, "gbt", f"udp:{free_block()}")
    try:
        yield processes.start
    finally:
        processes.close()


def test_a_charge_through_the_topics(run: Run) -> None:
    station = run("--protocol", "gbt", "--charge-seconds", "4")
    station.bring_up()
    station.until(lambda: len(station.links) > 2)
    assert station.links[-1].phase == L.PHASE_IDLE
    station.plug_in()
    link = station.until_link(L.PHASE_CABLE_CHECK)
    assert link.vehicle_ready and link.lock == L.LOCK_LOCKED
    assert (link.protocol, link.transport, link.session_id) == ("gbt", "can", "s1")
    assert link.vehicle_max_voltage_v == 420.0
    link = station.until_link(L.PHASE_CHARGING)
    assert link.soc == pytest.approx(50.0, abs=1.0)
    assert link.identity == "", "the VIN is told only on request"
    link = station.until_link(L.PHASE_ENDED)
    assert link.lock == L.LOCK_UNLOCKED
    assert link.error == 0 and not station.faults
    station.until(lambda: station.cli.signals("vehicle1")["state"] == "ended")
    truth = station.cli.signals("vehicle1")
    assert truth["result"]["ok"], truth
    assert truth["energy_in_wh"] == pytest.approx(station.energy_wh, rel=0.05)
    assert station.energy_wh > 2.0
    purposes = [t.purpose for t in station.targets]
    assert [p for i, p in enumerate(purposes) if i == 0 or purposes[i - 1] != p] == [0, 1, 0, 2, 3, 0]
    assert all(t.protocol == "gbt" for t in station.targets)
    numbers = [t.number for t in station.targets]
    assert numbers == sorted(numbers)


def test_a_vehicle_of_2011_and_its_vin_on_request(run: Run) -> None:
    station = run("--protocol", "gbt", "--gbt-edition", "2011", "--charge-seconds", "3",
                  parameters=("privacy.publish_identity:=true",))  # fmt: skip
    station.bring_up()
    station.plug_in()
    link = station.until_link(L.PHASE_CHARGING)
    assert link.identity == "SIMULATEDVEHICLE1"
    station.until_link(L.PHASE_ENDED)
    assert not station.faults


def test_the_vehicle_falls_silent(run: Run) -> None:
    station = run("--protocol", "gbt", "--charge-seconds", "60", "--fault", "can-silence",
                  parameters=("restart_in_charge:=false",))  # fmt: skip
    station.bring_up()
    station.plug_in()
    station.until_link(L.PHASE_CHARGING)
    link = station.until_link(L.PHASE_FAILED)
    assert link.error == msg.Fault.GBT_SILENT
    station.until(lambda: station.faults.get(msg.Fault.GBT_SILENT) is True)
    assert station.current_a == 0.0
    station.session_phase = S.PHASE_IDLE
    station.until(lambda: station.faults.get(msg.Fault.GBT_SILENT) is False)


def test_it_says_nothing_while_another_protocol_is_active(run: Run) -> None:
    station = run("--protocol", "gbt", protocol="ccs")
    ear = open_bus(station.bus, fd=False)
    try:
        station.bring_up()
        station.plug_in()
        station.until_connected()
        assert ear.recv(0.5) is None, "neither station nor vehicle speaks without the auxiliary supply"
    finally:
        ear.shutdown()
    assert not station.links and not station.targets
