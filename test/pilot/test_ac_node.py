"""The pilot node as an AC outlet: a legacy vehicle, contactor and meter, through topics and wires."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rclpy
from lifecycle_msgs.msg import Transition
from test_pilot_node import Station, start

from robot_charger import msg
from robot_charger.common import duty_cycle
from robot_charger.common.clock import now_ns
from robot_charger.common.topics import fill, topic

pytestmark = [pytest.mark.integration, pytest.mark.alone]
ID = "11111111-2222-3333-4444-555555555555"
OUTLET = ("-p", "connector:=type2", "-p", "ac.rated_current_a:=32.0", "-p", "ac.ended_after_s:=1.0")
DESK = ("-p", "realtime:=false", "-p", "sample_ms:=10", "-p", "ac.grace_ms:=200.0")
FED_S = 0.05


class AcStation(Station):
    """And the supply: a contactor that follows, a meter, a supervisor that permits."""

    def __init__(self, directory: Path) -> None:
        self.heard: dict[str, list[Any]] = {
            n: [] for n in ("power/state", "power/limits", "vehicle/link", "vehicle/target")
        }
        self.permitted = self.residual = False
        self.draws_a = 0.0
        self.senders: dict[str, Any] = {}
        super().__init__(directory)
        for name in ("session/state", "power/permit", "power/meter"):
            full, kind, qos = topic(name, 1)
            self.senders[name] = self.node.create_publisher(kind, full, qos)
        for name in self.heard:
            full, kind, qos = topic(name, 1)
            self.node.create_subscription(kind, full, lambda m, name=name: self._hear(name, m), qos)

    def _hear(self, name: str, message: Any) -> None:
        with self.news:
            self.heard[name].append(message)
            self.news.notify_all()

    def _feed(self) -> None:
        while self.going:
            coil = bool(self.rack.signals("outlet1").get("contactor"))
            self.rack.send("outlet1", {"closed": coil, "residual": self.residual})
            self.rack.send(
                "vehicle1", {"voltage_v": 230.0 if coil else 0.0, "current_a": self.draws_a if coil else 0.0}
            )
            self.arm.send("vehicle1", {"mated": self.mated})
            if self.command_mode:
                self._publish()
            if len(self.senders) == 3:
                self._tell(self.draws_a if coil else 0.0)
            time.sleep(FED_S)

    def _tell(self, current_a: float) -> None:
        stamp = now_ns()
        purpose = msg.ChargePermit.PURPOSE_TRANSFER if self.permitted else msg.ChargePermit.PURPOSE_NONE
        state = fill(msg.SessionState(), stamp_ns=stamp, session_id=ID, phase=msg.SessionState.PHASE_LINKING)
        permit = fill(msg.ChargePermit(), stamp_ns=stamp, number=2 + self.permitted, session_id=ID, purpose=purpose)
        meter = fill(msg.MeterReading(), stamp_ns=stamp, valid=True, voltage_v=230.0, current_a=current_a)
        self.senders["session/state"].publish(state)
        self.senders["power/permit"].publish(permit)
        self.senders["power/meter"].publish(meter)

    def tell_current(self, current_a: float) -> None:
        self.command(msg.PilotCommand.MODE_PWM, duty_cycle.from_current(current_a))

    def hears(self, name: str, condition: Callable[[Any], bool], timeout_s: float = 15.0) -> Any:
        with self.news:
            heard = self.heard[name]
            assert self.news.wait_for(lambda: heard and condition(heard[-1]), timeout_s), heard[-1:]
            return heard[-1]


@pytest.fixture
def station(sim_directory: Path) -> Iterator[AcStation]:
    bench = AcStation(sim_directory)
    vehicle = start("robot_charger.sim.vehicle", "--evse", "1", "--protocol", "ac", "--charge-seconds", "3600")
    pilot = start("robot_charger.pilot.node", "--ros-args", "-r", "__ns:=/evse1", *OUTLET, *DESK)
    try:
        yield bench
    finally:
        for process in (pilot, vehicle):
            process.terminate()
        assert [p.wait(10) for p in (pilot, vehicle)] == [0, 0]
        bench.close()


def charging(station: AcStation) -> None:
    assert station.transition(Transition.TRANSITION_CONFIGURE)
    assert station.transition(Transition.TRANSITION_ACTIVATE)
    limits = station.hears("power/limits", lambda m: m.available)
    assert (limits.max_current_a, limits.max_power_w) == (32.0, 3 * 230.0 * 32.0)
    station.cli.send("vehicle1", {"arrive": 1})
    station.mated = True
    station.hears("vehicle/link", lambda m: m.session_id == ID and m.phase == m.PHASE_LINKED)
    station.tell_current(16.0)
    target = station.hears("vehicle/target", lambda m: m.purpose == m.PURPOSE_TRANSFER)
    assert (target.protocol, target.session_id) == ("plain", ID)
    assert target.current_a == pytest.approx(16.0, abs=0.1)
    assert not station.heard["power/state"][-1].contactors_requested, "ready, but not permitted"
    station.draws_a = 16.0
    station.permitted = True
    station.hears("power/state", lambda m: m.contactors_closed and m.voltage_v == 230.0 and m.current_a == 16.0)
    station.hears("vehicle/link", lambda m: m.phase == m.PHASE_CHARGING)


def test_a_vehicle_that_is_unplugged_under_load_is_switched_off_within_100_ms(station: AcStation) -> None:
    charging(station)
    station.mated = False
    pilot = station.until(lambda s: s.state != s.STATE_C)
    off = station.hears("power/state", lambda m: not m.contactors_requested)
    assert off.stamp_ns - pilot.state_stamp_ns < 100_000_000  # IEC 61851-1 table A.6 sequence 8.1
    station.hears("power/state", lambda m: m.contactors_open and m.voltage_v == 0.0)


def test_a_lower_duty_and_none_reach_the_vehicle(station: AcStation) -> None:
    charging(station)
    station.draws_a = 10.0
    station.tell_current(10.0)
    station.until(lambda s: s.max_current_a == pytest.approx(10.0, abs=0.1))  # 5 s later: table A.6 sequence 6
    station.command(msg.PilotCommand.MODE_STEADY)
    station.until(lambda s: s.state == s.STATE_B and not s.pwm)
    station.hears("power/state", lambda m: not m.contactors_requested)
    assert station.heard["vehicle/link"][-1].phase == msg.VehicleLink.PHASE_CHARGING, "it was the station's wish"


def test_a_residual_current_stops_and_is_told(station: AcStation) -> None:
    charging(station)
    station.residual = True
    station.until_fault(msg.Fault.INSULATION_CHARGING)
    station.hears("power/state", lambda m: not m.contactors_requested and m.mode == m.MODE_FAULT)
    station.residual = station.mated = False
    station.until_fault(msg.Fault.INSULATION_CHARGING, active=False)


def test_a_withdrawn_permit_opens_at_once(station: AcStation) -> None:
    charging(station)
    station.permitted = False
    station.hears("power/state", lambda m: not m.contactors_requested)


@pytest.mark.parametrize("connector", ["ccs2", "chademo", "gbt"])
def test_an_ac_outlet_with_a_dc_plug_is_refused_in_one_line(sim_directory: Path, connector: str) -> None:
    words = ["--ros-args", "-r", "__ns:=/evse1", "-p", f"connector:={connector}", "-p", "ac.rated_current_a:=16.0"]
    command = [sys.executable, "-m", "robot_charger.pilot.node", *words]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, env=dict(os.environ))
    assert result.returncode == 2
    assert f"AC charging on {connector} is not allowed" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_power_node_that_speaks_for_the_same_outlet_is_told(station: AcStation) -> None:
    assert station.transition(Transition.TRANSITION_CONFIGURE)
    assert station.transition(Transition.TRANSITION_ACTIVATE)
    rival = rclpy.create_node("power", context=station.context, use_global_arguments=False)
    name, kind, qos = topic("power/state", 1)
    rival.create_publisher(kind, name, qos)
    station.until_fault(msg.Fault.INTERNAL)
    rival.destroy_node()
    station.until_fault(msg.Fault.INTERNAL, active=False)
