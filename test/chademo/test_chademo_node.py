"""The CHAdeMO node and the simulated vehicle as processes; supervisor and power are played through topics."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from plug_station import PlugStation, Processes
from rclpy.executors import SingleThreadedExecutor

from robot_charger import msg
from robot_charger.common.can_bus import open_bus
from robot_charger.common.can_udp import free_block

pytestmark = [pytest.mark.integration, pytest.mark.alone]
L, S = msg.VehicleLink, msg.SessionState


@pytest.fixture
def run(sim_directory: Path) -> Iterator[Callable[..., PlugStation]]:
    processes = Processes(sim_directory, "chademo", f"udp:{free_block()}")
    try:
        yield processes.start
    finally:
        processes.close()


def test_a_charge_through_the_topics(run: Callable[..., PlugStation]) -> None:
    station = run("--protocol", "chademo", "--charge-seconds", "4")
    station.bring_up()
    station.until(lambda: len(station.links) > 2)
    assert station.links[-1].phase == L.PHASE_IDLE
    station.plug_in()
    link = station.until_link(L.PHASE_CABLE_CHECK)
    assert link.vehicle_ready
    assert link.lock == L.LOCK_LOCKED
    assert (link.protocol, link.transport, link.session_id) == ("chademo", "can", "s1")
    assert link.vehicle_max_voltage_v == 435.0
    link = station.until_link(L.PHASE_CHARGING)
    assert link.soc == pytest.approx(50.0, abs=1.0)
    link = station.until_link(L.PHASE_ENDED)
    assert link.lock == L.LOCK_UNLOCKED
    assert link.error == 0
    assert not station.faults
    station.until(lambda: station.cli.signals("vehicle1")["state"] == "ended")
    truth = station.cli.signals("vehicle1")
    assert truth["result"]["ok"], truth
    assert truth["result"]["charging_flag_s"] < 0.5
    assert truth["energy_in_wh"] == pytest.approx(station.energy_wh, rel=0.05)
    assert station.energy_wh > 2.0
    purposes = [t.purpose for t in station.targets]
    assert [p for i, p in enumerate(purposes) if i == 0 or purposes[i - 1] != p] == [0, 1, 2, 3, 0]
    assert all(t.protocol == "chademo" for t in station.targets)


def test_a_vehicle_that_gives_back(run: Callable[..., PlugStation]) -> None:
    station = run("--protocol", "chademo-v2x", "--charge-seconds", "8", parameters=("v2x:=true",))
    station.bring_up()
    station.plug_in()
    assert station.until_link(L.PHASE_CHARGING).bidirectional
    station.until(lambda: station.targets[-1].current_a < -10.0)
    station.until_link(L.PHASE_ENDED)
    station.until(lambda: station.cli.signals("vehicle1")["state"] == "ended")
    assert station.cli.signals("vehicle1")["energy_out_wh"] == pytest.approx(station.exported_wh, rel=0.1)
    assert station.exported_wh > 0.5


def test_the_vehicle_falls_silent(run: Callable[..., PlugStation]) -> None:
    station = run("--protocol", "chademo", "--charge-seconds", "60", "--fault", "can-silence")
    station.bring_up()
    station.plug_in()
    station.until_link(L.PHASE_CHARGING)
    link = station.until_link(L.PHASE_FAILED)
    assert link.error == msg.Fault.CHADEMO_SILENT
    station.until(lambda: station.faults.get(msg.Fault.CHADEMO_SILENT) is True)
    assert station.current_a == 0.0
    station.session_phase = S.PHASE_IDLE
    station.until(lambda: station.faults.get(msg.Fault.CHADEMO_SILENT) is False)


def test_it_says_nothing_while_another_protocol_is_active(run: Callable[..., PlugStation]) -> None:
    station = run("--protocol", "chademo", protocol="ccs")
    ear = open_bus(station.bus, fd=False)
    try:
        station.bring_up()
        station.plug_in()
        deadline = time.monotonic() + 30.0
        while not station.cli.signals("vehicle1").get("connected"):
            assert time.monotonic() < deadline
            assert ear.recv(0.05) is None
        assert ear.recv(0.5) is None, "neither station nor vehicle speaks without d1"
    finally:
        ear.shutdown()
    assert not station.links
    assert not station.targets


def test_a_bus_that_is_not_there_is_told() -> None:
    for bus, words in (("socketcan:can99", "no network interface can99"), ("rs485:1", "is unknown")):
        process = subprocess.Popen(
            [sys.executable, "-m", "robot_charger.chademo.node", "--ros-args", "-r", "__ns:=/evse9",
             "-p", f"bus:={bus}"],
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        context = rclpy.Context()
        rclpy.init(context=context)
        node = rclpy.create_node("asker", context=context, use_global_arguments=False)
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)
        client = node.create_client(ChangeState, "/evse9/chademo/change_state")
        assert client.wait_for_service(timeout_sec=20.0)
        future = client.call_async(ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CONFIGURE)))
        executor.spin_until_future_complete(future, timeout_sec=20.0)
        assert future.result().success is False
        rclpy.shutdown(context=context)
        process.terminate()
        _, told = process.communicate(timeout=10)
        assert words in told
        assert "parameter bus" in told
