"""The v2g node alone, through its topics: a fake supervisor and supply in this process, a car in another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from array import array
from pathlib import Path
from typing import Any

import pytest
import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from v2g_desk import write
from v2g_links import need_namespaces, plc

from robot_charger import msg, srv
from robot_charger.common.clock import now_ns
from robot_charger.common.topics import topic
from robot_charger.sim import package
from robot_charger.v2g import pki

L = msg.VehicleLink
S = msg.SessionState


class Fake:
    """The supervisor's and power's side of /evse1."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("fake", context=self.context)
        self.executor = rclpy.executors.SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.publishers = {}
        for name in ("session/state", "power/state", "power/limits", "power/permit", "pilot/state", "power/meter"):
            full, kind, qos = topic(name, 1)
            self.publishers[name] = self.node.create_publisher(kind, full, qos)
        self.links: list[msg.VehicleLink] = []
        self.targets: list[msg.VehicleTarget] = []
        full, kind, qos = topic("vehicle/link", 1)
        self.node.create_subscription(kind, full, self.links.append, qos)
        full, kind, qos = topic("vehicle/target", 1)
        self.node.create_subscription(kind, full, self.targets.append, qos)
        self.permit = 1
        self.purpose = 0
        self.session = S(session_id="", phase=S.PHASE_IDLE, authorization=S.AUTHORIZATION_ACCEPTED, evse=1)
        self.supply = msg.SupplyState()
        self.tested = 0

    def close(self) -> None:
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)

    def change_state(self, name: str, transition: int) -> bool:
        client = self.node.create_client(ChangeState, f"{name}/change_state")
        assert client.wait_for_service(timeout_sec=15.0)
        request = ChangeState.Request(transition=Transition(id=transition))
        future = client.call_async(request)
        self.executor.spin_until_future_complete(future, timeout_sec=30.0)
        return bool(future.result().success)

    def step(self) -> None:
        self.executor.spin_once(timeout_sec=0.01)
        target = self.targets[-1] if self.targets else msg.VehicleTarget()
        del self.targets[:-200]
        if target.purpose != self.purpose:
            self.purpose = target.purpose
            self.permit += 1
            if self.purpose == target.PURPOSE_INSULATION_TEST:
                self.tested = self.permit
        now = now_ns()
        self.session.stamp_ns = now
        supply = self.supply
        supply.stamp_ns = now
        supply.permit_number = self.permit
        supply.contactors_closed = self.purpose in (target.PURPOSE_PRECHARGE, target.PURPOSE_TRANSFER)
        supply.voltage_v = target.voltage_v if supply.contactors_closed else 0.0
        if self.purpose == target.PURPOSE_TRANSFER:
            supply.voltage_v = 385.0
        supply.current_a = target.current_a if self.purpose == target.PURPOSE_TRANSFER else 0.0
        if self.tested:
            supply.insulation = supply.INSULATION_VALID
            supply.insulation_permit_number = self.tested
        self.publishers["session/state"].publish(self.session)
        self.publishers["power/state"].publish(supply)
        self.publishers["power/limits"].publish(
            msg.SupplyLimits(
                stamp_ns=now,
                max_voltage_v=1000.0,
                min_voltage_v=150.0,
                max_current_a=200.0,
                max_power_w=100_000.0,
                available=True,
            )
        )
        self.publishers["power/permit"].publish(
            msg.ChargePermit(
                stamp_ns=now,
                number=self.permit,
                session_id=self.session.session_id,
                purpose=self.purpose,
                max_voltage_v=1000.0,
                max_current_a=200.0,
                max_power_w=100_000.0,
            )
        )
        self.publishers["pilot/state"].publish(msg.PilotState(stamp_ns=now, state=3, pwm=True))
        self.publishers["power/meter"].publish(msg.MeterReading(stamp_ns=now, valid=True, serial="M", import_wh=5.0))
        write(self.directory / "supply.json", {"voltage_v": supply.voltage_v, "current_a": supply.current_a})

    def until(self, condition, timeout_s: float = 40.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"last link: {self.links[-1:]}"
            self.step()


@pytest.mark.integration
@pytest.mark.alone
@pytest.mark.timeout(120)
def test_a_session_through_the_topics(sim_directory: Path) -> None:
    need_namespaces()
    environment = {**os.environ, "ROBOT_CHARGER_SIM": str(sim_directory)}
    with plc(sim_directory):
        record = sim_directory / "record.jsonl"
        parameters = ["-p", "tls.required:=false", "-p", "slac.settle_s:=0.0"]
        parameters += ["-p", "record:='on'", "-p", f"record_file:={record}"]
        command = [sys.executable, "-m", "robot_charger.v2g.node", "--ros-args", "-r", "__ns:=/evse1", *parameters]
        node = subprocess.Popen(command, env=environment)
        fake = Fake(sim_directory)
        try:
            assert fake.change_state("/evse1/v2g", Transition.TRANSITION_CONFIGURE)
            assert fake.change_state("/evse1/v2g", Transition.TRANSITION_ACTIVATE)
            for number in range(2):  # ready for the next session without a restart
                fake.session.session_id = f"session-{number}"
                fake.session.phase = S.PHASE_LINKING
                fake.links.clear()
                fake.until(lambda: fake.links and fake.links[-1].phase == L.PHASE_MATCHING)
                (sim_directory / "secc.ready").touch()
                car = subprocess.Popen(
                    [
                        sys.executable,
                        str(Path(__file__).with_name("v2g_desk.py")),
                        "evcc",
                        '{"car": {"charge_s": 1.0}}',
                    ],
                    env=environment,
                    stdout=subprocess.PIPE,
                )
                fake.until(lambda: fake.links[-1].phase in (L.PHASE_ENDED, L.PHASE_FAILED))
                link = fake.links[-1]
                assert (link.phase, link.error) == (L.PHASE_ENDED, 0), link.text
                assert link.transport == "veth"
                assert link.session_id == f"session-{number}"
                assert 0.0 < link.match_seconds < 10.0
                assert link.protocol == "iso15118-2"
                seen = {entry.phase for entry in fake.links}
                assert {L.PHASE_CABLE_CHECK, L.PHASE_PRECHARGE, L.PHASE_CHARGING} <= seen  # the others last a moment
                output, _ = car.communicate(timeout=20)
                assert json.loads(output)["result"] == "ended"
                fake.session.phase = S.PHASE_IDLE
                fake.session.session_id = ""
                fake.until(lambda: fake.links[-1].phase == L.PHASE_IDLE)
                fake.until(lambda: fake.targets and fake.targets[-1].purpose == 0)
        finally:
            node.terminate()
            assert node.wait(10) == 0
            fake.close()
        lines = [json.loads(line) for line in record.read_text().splitlines()]
        names = [line["name"] for line in lines]
        assert names.count("SessionStopRes") == 2
        assert "CurrentDemandRes" in names and names.count("WeldingDetectionReq") >= 2
        hidden = {line["name"] for line in lines if line["exi"] == "hidden"}
        assert hidden == {"SessionSetupReq", "AuthorizationReq"}


@pytest.mark.integration
@pytest.mark.alone
def test_tls_is_required_unless_told_otherwise(sim_directory: Path) -> None:
    environment = {**os.environ, "ROBOT_CHARGER_SIM": str(sim_directory)}
    with plc(sim_directory):
        command = [sys.executable, "-m", "robot_charger.v2g.node", "--ros-args", "-r", "__ns:=/evse1"]
        node = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        fake = Fake(sim_directory)
        try:
            assert not fake.change_state("/evse1/v2g", Transition.TRANSITION_CONFIGURE)
        finally:
            node.terminate()
            _, errors = node.communicate(timeout=10)
            fake.close()
        assert "tls.directory names no certificates" in errors


@pytest.mark.integration
@pytest.mark.alone
@pytest.mark.timeout(120)
def test_the_node_asks_the_back_end_for_a_contract(sim_directory: Path) -> None:
    """/vehicle_certificate gets the vehicle's request and its answer reaches the vehicle."""
    need_namespaces()
    package.prepare()
    with package.quiet_import():
        from robot_charger.sim import contracts
    directory = sim_directory / "pki"
    pki.make(directory)
    environment = {**os.environ, "ROBOT_CHARGER_SIM": str(sim_directory)}
    asked: list[tuple[int, str]] = []

    def serve(request: srv.VehicleCertificate.Request, response: srv.VehicleCertificate.Response) -> Any:
        asked.append((request.action, request.schema))
        response.accepted = True
        response.response = array("B", contracts.answer(bytes(request.request), directory / "operator"))
        return response

    with plc(sim_directory):
        parameters = ["slac.settle_s:=0.0", "pnc:=true", "contract_installation:=true"]
        parameters += [f"tls.directory:={directory / 'station'}"]
        command = [sys.executable, "-m", "robot_charger.v2g.node", "--ros-args", "-r", "__ns:=/evse1"]
        command += [word for parameter in parameters for word in ("-p", parameter)]
        node = subprocess.Popen(command, env=environment)
        fake = Fake(sim_directory)
        fake.node.create_service(srv.VehicleCertificate, "/vehicle_certificate", serve)
        try:
            assert fake.change_state("/evse1/v2g", Transition.TRANSITION_CONFIGURE)
            assert fake.change_state("/evse1/v2g", Transition.TRANSITION_ACTIVATE)
            fake.session.session_id = "session-0"
            fake.session.phase = S.PHASE_LINKING
            fake.until(lambda: fake.links and fake.links[-1].phase == L.PHASE_MATCHING)
            (sim_directory / "secc.ready").touch()
            options = {"tls": True, "pki": str(directory / "vehicle"), "pnc": True, "certificate": "install"}
            car = subprocess.Popen(
                [
                    sys.executable,
                    str(Path(__file__).with_name("v2g_desk.py")),
                    "evcc",
                    json.dumps({"options": options, "car": {"charge_s": 0.5}}),
                ],
                env=environment,
                stdout=subprocess.PIPE,
            )
            fake.until(lambda: fake.links[-1].phase in (L.PHASE_ENDED, L.PHASE_FAILED))
            link = fake.links[-1]
            assert (link.phase, link.error, link.contract) == (L.PHASE_ENDED, 0, True), link.text
            output, _ = car.communicate(timeout=20)
            assert json.loads(output)["certificate"] == "OK"
        finally:
            node.terminate()
            assert node.wait(10) == 0
            fake.close()
    assert asked == [(srv.VehicleCertificate.Request.ACTION_INSTALL, "urn:iso:15118:2:2013:MsgDef")]
