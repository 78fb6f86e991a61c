"""The node alone, through its topics, against the CSMS of the desk."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rclpy
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from robot_charger import msg, srv
from robot_charger.backend.node import BackendNode, _RosLog
from robot_charger.backend.records import START_BUTTON
from robot_charger.common.clock import now_ns
from robot_charger.common.parameters import ParameterError
from robot_charger.common.topics import fill, topic
from robot_charger.sim.csms import books
from robot_charger.sim.csms.journal import read
from robot_charger.sim.csms.server import CsmsThread
from robot_charger.words.values import Phase

from .conftest import SESSION, wait_for

pytestmark = pytest.mark.integration

CONFIGURE, ACTIVATE = 1, 3
LOG = logging.getLogger("robot_charger.backend")


class Rest:
    """The rest of the station: it says session/state and power/meter, and hears the back end."""

    def __init__(self) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = Node("rest", context=self.context)
        self.heard: dict[str, list[Any]] = {}
        names = ("session/state", "power/meter", "vehicle/link", "backend/external_limit")
        self.said = {name: self._publisher(name) for name in names}
        for name, evse in (("backend/limit", 1), ("backend/request", 1), ("/backend/state", None), ("/fault", None)):
            full, kind, qos = topic(name, evse)
            self.heard[name] = []
            self.node.create_subscription(kind, full, self.heard[name].append, qos)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.thread = threading.Thread(target=self.executor.spin, daemon=True)
        self.thread.start()
        self.number = 0
        self.terminal: Any = None

    def _publisher(self, name: str) -> Any:
        full, kind, qos = topic(name, 1)
        return self.node.create_publisher(kind, full, qos)

    def transition(self, number: int) -> bool:
        """Drive the life cycle. A process killed by -9 lingers in discovery: ask until a living one answers."""
        asking = self.node.create_client(GetState, "/backend/get_state")
        wait_for(lambda: asking.wait_for_service(1.0) and asking.call(GetState.Request(), 1.0), what="the node")
        client = self.node.create_client(ChangeState, "/backend/change_state")
        assert client.wait_for_service(40.0)
        request = ChangeState.Request()
        request.transition.id = number
        return bool(client.call(request, 40.0).success)

    def ask(self, token: str) -> Any:
        """The answer of /authorize, to come."""
        client = self.node.create_client(srv.Authorize, "/authorize")
        assert client.wait_for_service(40.0)
        request = srv.Authorize.Request(evse=1, session_id=SESSION, id_token=token, token_type="ISO14443")
        return client.call_async(request)

    def call(self, kind: Any, name: str, request: Any) -> Any:
        client = self.node.create_client(kind, name)
        assert client.wait_for_service(40.0)
        return client.call(request, 40.0)

    def authorize(self, token: str) -> Any:
        answer = self.ask(token)
        wait_for(answer.done, what="an answer of /authorize")
        return answer.result()

    def pay(self, token: str) -> None:
        """As a payment terminal that serves the whole station."""
        name, kind, qos = topic("/backend/token")
        if self.terminal is None:
            self.terminal = self.node.create_publisher(kind, name, qos)
        self.terminal.publish(
            fill(
                msg.BackendRequest(),
                kind=msg.BackendRequest.KIND_START,
                stamp_ns=now_ns(),
                id_token=token,
                token_type="DirectPayment",
                authorized=True,
            )
        )

    def session(self, phase: Phase, accepted: bool = True, stop_reason: str = "") -> None:
        self.number += 1
        idle = phase == Phase.IDLE
        self.said["session/state"].publish(
            fill(
                msg.SessionState(),
                stamp_ns=now_ns(),
                number=self.number,
                evse=1,
                phase=phase,
                session_id="" if idle else SESSION,
                phase_stamp_ns=now_ns(),
                stop_reason=stop_reason,
                authorization=2 if accepted and not idle else 0,
                output_on=phase == Phase.CHARGING,
            )
        )

    def meter(self, import_wh: float, current_a: float = 0.0) -> None:
        self.said["power/meter"].publish(
            fill(
                msg.MeterReading(),
                stamp_ns=now_ns(),
                time=self.node.get_clock().now().to_msg(),
                valid=True,
                import_wh=import_wh,
                current_a=current_a,
                voltage_v=400.0,
                power_w=400.0 * current_a,
            )
        )

    @property
    def state(self) -> Any:
        return self.heard["/backend/state"][-1] if self.heard["/backend/state"] else None

    def until_open(self, import_wh: float) -> None:
        """The meter says this until the transaction is open, as it would at 5 Hz."""

        def opened() -> bool:
            self.meter(import_wh)
            return bool(self.state and self.state.transactions[0] == SESSION)

        wait_for(opened, what="an open transaction")

    def close(self) -> None:
        self.executor.shutdown()
        rclpy.shutdown(context=self.context)
        self.thread.join(5.0)


def ros_arguments(folder: Path, url: str, *parameters: str) -> list[str]:
    """A plain desk's parameters, then these."""
    given = [
        f"url:={url}",
        "security_profile:=0",
        "allow_plain:=true",
        f"store:={folder}/station.sqlite",
        "backoff.minimum_s:=0",
        "backoff.random_s:=0",
        "sample_s:=0",
        *parameters,
    ]
    return [part for parameter in given for part in ("-p", parameter)]


class Process:
    def __init__(self, folder: Path, url: str, *parameters: str) -> None:
        self.log = folder / "node.log"
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "robot_charger.backend.node",
                    "--ros-args",
                    *ros_arguments(folder, url, *parameters),
                ],
                stdout=log,
                stderr=log,
            )

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.popen.poll() is None:
            os.kill(self.popen.pid, number)
        return self.popen.wait(10.0)


@pytest.fixture
def csms(tmp_path: Path) -> Iterator[CsmsThread]:
    with CsmsThread(tmp_path / "csms.sqlite") as thread:
        yield thread
        assert not thread.csms.violations


@pytest.fixture
def rest() -> Iterator[Rest]:
    one = Rest()
    yield one
    one.close()


def test_a_session_through_the_topics(tmp_path: Path, csms: CsmsThread, rest: Rest) -> None:
    process = Process(tmp_path, csms.csms.url)
    try:
        assert rest.transition(CONFIGURE) and rest.transition(ACTIVATE)
        wait_for(lambda: rest.state and rest.state.registration == msg.BackendState.REGISTRATION_ACCEPTED)
        accepted, refused = rest.authorize("DEADBEEF"), rest.authorize("NOBODY")
        assert (accepted.status, accepted.reason) == (srv.Authorize.Response.STATUS_ACCEPTED, "Accepted")
        assert (refused.status, refused.reason) == (srv.Authorize.Response.STATUS_REFUSED, "Invalid")
        csms.csms.answers["Get15118EVCertificate"] = lambda station, payload: {
            "status": "Accepted",
            "exiResponse": payload["exiRequest"],
        }
        wanted = srv.VehicleCertificate.Request(evse=1, action=1, schema="urn:iso:15118:2:2013:MsgDef", request=b"exi")
        certificate = rest.call(srv.VehicleCertificate, "/vehicle_certificate", wanted)
        assert (certificate.accepted, bytes(certificate.response)) == (True, b"exi")
        question = srv.CertificateStatus.Request(certificates="x")
        status = rest.call(srv.CertificateStatus, "/certificate_status", question)
        assert not status.accepted and "PEM" in status.text
        rest.authorize("DEADBEEF")
        rest.session(Phase.POSITIONING)
        rest.session(Phase.LINKING)
        rest.until_open(1000.0)
        rest.session(Phase.CHARGING)
        rest.meter(1500.0, 100.0)
        wait_for(lambda: books(tmp_path / "csms.sqlite"), what="the start in the books")
        answer = csms.do(csms.csms.command("remote_stop", {"evse": 1}))
        assert answer == {"status": "Accepted"}
        wait_for(lambda: rest.heard["backend/request"], what="backend/request")
        request = rest.heard["backend/request"][0]
        assert (request.kind, request.session_id) == (msg.BackendRequest.KIND_STOP, SESSION)
        rest.session(Phase.GRASPED, stop_reason="Remote")

        def closed() -> bool:
            rest.meter(1600.0)
            return any(e.ended for e in books(tmp_path / "csms.sqlite"))

        wait_for(closed)
        [entry] = books(tmp_path / "csms.sqlite")
        assert (entry.session_id, entry.meter_start_wh, entry.meter_stop_wh) == (SESSION, 1000.0, 1600.0)
        assert (entry.id_token, entry.stop_reason, entry.missing) == ("DEADBEEF", "Remote", 0)
        wait_for(lambda: rest.state.transactions[0] == "" and rest.state.queued == 0)
        assert rest.heard["backend/limit"][-1].max_power_w == float("inf")

        def limited() -> bool:
            for watts in (30_000.0, float("nan"), -1.0):  # what is no limit changes none
                limit = msg.ChargingLimit(stamp_ns=now_ns(), max_current_a=float("inf"), max_power_w=watts)
                limit.source = "EMS"
                rest.said["backend/external_limit"].publish(limit)
            return bool(rest.heard["backend/limit"][-1].max_power_w == 30_000.0)

        wait_for(limited, what="the external limit on backend/limit")
        assert rest.heard["backend/limit"][-1].source == "external limit EMS"
        assert process.stop() == 0
        assert "DEADBEEF" not in process.log.read_text()
    finally:
        process.stop(signal.SIGKILL)


def test_killed_while_charging_the_transaction_ends_after_the_restart(
    tmp_path: Path, csms: CsmsThread, rest: Rest
) -> None:
    """EVerest 1364: events were missed at start, and an open transaction was never ended after a restart."""
    process = Process(tmp_path, csms.csms.url)
    try:
        assert rest.transition(CONFIGURE) and rest.transition(ACTIVATE)
        rest.session(Phase.LINKING)
        rest.until_open(1000.0)
        rest.session(Phase.CHARGING)
        process.stop(signal.SIGKILL)
        rest.session(Phase.GRASPED, stop_reason="StoppedByEV")
        process = Process(tmp_path, csms.csms.url)
        assert rest.transition(CONFIGURE) and rest.transition(ACTIVATE)

        def closed() -> bool:
            rest.session(Phase.GRASPED, stop_reason="StoppedByEV")
            rest.meter(1800.0)
            return any(e.ended for e in books(tmp_path / "csms.sqlite"))

        wait_for(closed)
        [entry] = books(tmp_path / "csms.sqlite")
        assert (entry.meter_start_wh, entry.meter_stop_wh, entry.stop_reason) == (1000.0, 1800.0, "StoppedByEV")
        assert (entry.missing, entry.doubled) == (0, 0)
        assert process.stop() == 0
    finally:
        process.stop(signal.SIGKILL)


def test_the_node_hears_and_tells_while_it_waits_for_the_csms(tmp_path: Path, csms: CsmsThread, rest: Rest) -> None:
    process = Process(tmp_path, csms.csms.url, "authorize.timeout_s:=2.5", "authorize.offline:=all")
    try:
        assert rest.transition(CONFIGURE) and rest.transition(ACTIVATE)
        wait_for(lambda: rest.state and rest.state.registration == msg.BackendState.REGISTRATION_ACCEPTED)
        csms.do(csms.csms.fault("drop", True))
        answer = rest.ask("ANYBODY")
        wait_for(lambda: "Authorize" in [f[2] for f in frames(tmp_path)], what="Authorize at the CSMS")
        rest.session(Phase.LINKING)
        rest.until_open(1000.0)
        assert not answer.done()
        wait_for(answer.done, what="the offline policy's answer")
        assert answer.result().status == srv.Authorize.Response.STATUS_ACCEPTED
    finally:
        process.stop(signal.SIGKILL)


def test_a_refused_message_leaves_the_node_at_work(tmp_path: Path, csms: CsmsThread, rest: Rest) -> None:
    process = Process(tmp_path, csms.csms.url)
    try:
        assert rest.transition(CONFIGURE) and rest.transition(ACTIVATE)
        wait_for(lambda: rest.state and rest.state.registration == msg.BackendState.REGISTRATION_ACCEPTED)
        attempts = {
            "component": {"name": "OCPPCommCtrlr"},
            "attributeValue": "1",
            "variable": {"name": "MessageAttempts", "instance": "TransactionEvent"},
        }
        csms.do(csms.csms.call("SetVariables", {"setVariableData": [attempts]}))
        csms.do(csms.csms.fault("callerror", True, action="TransactionEvent"))

        def informed() -> bool:
            rest.pay("psp-4711")
            return "payment: nothing to start" in process.log.read_text()

        wait_for(informed, what="a line of another severity before the error's")
        rest.session(Phase.LINKING)
        rest.until_open(1000.0)
        wait_for(lambda: rest.state.refused and not rest.state.queued, what="a message set aside")
        csms.do(csms.csms.fault("callerror", False))
        rest.session(Phase.GRASPED, stop_reason="StoppedByEV")

        def closed() -> bool:
            rest.meter(1800.0)
            return any(e.ended for e in books(tmp_path / "csms.sqlite"))

        wait_for(closed, what="the end in the books")
        assert rest.state.connected and "set aside" in process.log.read_text()
        assert process.stop() == 0
    finally:
        process.stop(signal.SIGKILL)


def frames(folder: Path) -> list[list[Any]]:
    """What the station said to the CSMS."""
    return [frame for line in read(folder / "csms.sqlite") if line.direction == "in" and (frame := line.frame())]


def test_without_a_csms_the_node_runs_and_says_so(tmp_path: Path, rest: Rest) -> None:
    process = Process(tmp_path, "ws://127.0.0.1:9/ocpp", "authorize.offline:=all")
    try:
        assert rest.transition(CONFIGURE) and rest.transition(ACTIVATE)
        wait_for(lambda: [f for f in rest.heard["/fault"] if f.code == msg.Fault.BACKEND_OFFLINE and f.active])
        answer = rest.authorize("ANYBODY")
        assert answer.status == srv.Authorize.Response.STATUS_ACCEPTED
        assert rest.state.store_ok and not rest.state.connected

        def paid() -> bool:
            """Said again until it is heard: the first words may come before the node knows who speaks."""
            rest.session(Phase.POSITIONING, accepted=False)
            rest.pay("psp-4711")
            return bool(rest.heard["backend/request"])

        wait_for(paid, what="backend/request")
        request = rest.heard["backend/request"][0]
        assert (request.kind, request.id_token, request.authorized) == (msg.BackendRequest.KIND_START, "psp-4711", True)
        assert process.stop() == 0
    finally:
        process.stop(signal.SIGKILL)


def test_a_bad_parameter_ends_the_process_with_one_line_and_status_2(tmp_path: Path) -> None:
    process = Process(tmp_path, "ws://127.0.0.1:9/ocpp", "security_profile:=1")
    try:
        assert process.popen.wait(60.0) == 2
        [line] = [text for text in process.log.read_text().splitlines() if text.strip()]
        assert "password_file" in line
    finally:
        process.stop(signal.SIGKILL)


@pytest.mark.parametrize(
    "parameters,word",
    [
        (("security_profile:=2",), "security_profile"),
        (("allow_plain:=false",), "allow_plain"),
        (("url:=http://x",), "url"),
        (("version:=3.0",), "version"),
        (("station_id:='a:b'",), "station_id"),
        (("nonsense:=1",), "nonsense"),
        (("security_profile:=1",), "password_file"),
    ],
)
def test_bad_parameters_are_refused_by_name(tmp_path: Path, parameters: tuple[str, ...], word: str) -> None:
    rclpy.init(args=["--ros-args", *ros_arguments(tmp_path, "ws://127.0.0.1:9/ocpp", *parameters)])
    try:
        with pytest.raises(ParameterError, match=word):
            BackendNode()
    finally:
        rclpy.shutdown()


@pytest.mark.parametrize("allowed", [False, True])
def test_a_start_without_a_token_is_a_button_only_where_it_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: bool
) -> None:
    rclpy.init(
        args=[
            "--ros-args",
            *ros_arguments(tmp_path, "ws://127.0.0.1:9/ocpp", f"authorize.start_button:={str(allowed).lower()}"),
        ]
    )
    try:
        node, shown = BackendNode(), []
        monkeypatch.setattr(node, "_shown", lambda *given: shown.append(given))
        node._on_token(2, fill(msg.BackendRequest(), kind=msg.BackendRequest.KIND_START))
        assert shown == ([(2, START_BUTTON, True)] if allowed else [])
        node.destroy_node()
    finally:
        rclpy.shutdown()
        LOG.handlers[:] = [h for h in LOG.handlers if not isinstance(h, _RosLog)]


def test_log_lines_of_every_severity_pass_and_none_raises(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """rclpy refuses another severity from the same line of code; the queue must not stop for that."""
    rclpy.init(args=["--ros-args", *ros_arguments(tmp_path, "ws://127.0.0.1:9/ocpp")])
    try:
        BackendNode().destroy_node()
        for say in (LOG.info, LOG.warning, LOG.error, LOG.info):
            say("said as %s", say.__name__)
        printed = capfd.readouterr().err
        for kind, name in (("INFO", "info"), ("WARN", "warning"), ("ERROR", "error")):
            assert any(kind in line and f"said as {name}" in line for line in printed.splitlines()), printed
        LOG.handlers.append(_RosLog(None))
        LOG.error("nobody takes it")
    finally:
        rclpy.shutdown()
        LOG.handlers[:] = [h for h in LOG.handlers if not isinstance(h, _RosLog)]
