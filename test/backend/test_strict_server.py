"""The station's words before a strict CSMS of another hand: ocpp-rpc from npm, put into .tools by `make tools`."""

from __future__ import annotations

import json
import queue
import shutil
import subprocess
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest

from robot_charger.backend.parameters import BackendParameters, plan
from robot_charger.backend.records import Reading, SessionView, Token, TokenInfo
from robot_charger.backend.service import Callbacks, Service, clock
from robot_charger.words.values import Authorization, Phase

from .conftest import SESSION, wait_for

pytestmark = pytest.mark.integration

MODULE = Path(__file__).parents[2] / ".tools/node_modules/ocpp-rpc"
SERVER = Path(__file__).with_name("strict_server.js")


class Strict:
    """The Node.js process and what it said."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            ["node", str(SERVER), str(MODULE)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.said: list[dict[str, Any]] = []
        self.ports: queue.Queue[int] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            message = json.loads(line)
            self.said.append(message)
            if "port" in message:
                self.ports.put(message["port"])

    def ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin
        count = len(self.said)
        self.process.stdin.write(json.dumps({"method": method, "params": params}) + "\n")
        self.process.stdin.flush()
        found = wait_for(lambda: [m for m in self.said[count:] if m.get("to") == method or "bad" in m])
        assert "bad" not in found[0], found
        answer: dict[str, Any] = found[0]["answer"]
        return answer

    def methods(self) -> list[str]:
        return [m["method"] for m in self.said if "method" in m]


@pytest.mark.parametrize("version", ["1.6", "2.0.1", "2.1"])
def test_a_strict_csms_of_another_hand_accepts_every_word(tmp_path: Path, version: str) -> None:
    if not MODULE.exists() or not shutil.which("node"):
        warnings.warn("NOT TESTED against a strict CSMS of another hand: run `make tools` (needs npm)", stacklevel=1)
        pytest.skip("ocpp-rpc is not in .tools (make tools)")
    strict = Strict()
    service = Service(
        plan(
            BackendParameters(
                version=version,
                url=f"ws://127.0.0.1:{strict.ports.get(timeout=30)}/ocpp",
                security_profile=0,
                allow_plain=True,
                store=str(tmp_path / "s.sqlite"),
                transfer__hosts=["127.0.0.1"],
                sample_s=0,
                serial="0815",
            )
        ),
        Callbacks(),
    )
    service.start()
    station = service.station

    def do(function: Any, *arguments: Any) -> Any:
        result: list[Any] = []
        service.post(lambda: result.append(function(*arguments)))
        return wait_for(lambda: result)[0]

    def session(phase: Phase, reason: str = "", fault: int = 0) -> None:
        now = clock()
        do(
            station.session,
            SessionView(
                1,
                "" if phase == Phase.IDLE else SESSION,
                phase,
                now.mono_ns,
                Authorization.ACCEPTED,
                phase == Phase.CHARGING,
                True,
                reason,
                fault=fault,
                text="a sentence for people " * 5,
            ),
            now,
        )

    def meter(import_wh: float, current_a: float) -> None:
        now = clock()
        do(
            station.meter,
            1,
            Reading(
                now.iso,
                now.mono_ns,
                import_wh,
                3.25,
                401.5,
                current_a,
                401.5 * current_a,
                44.5,
                signed_data="" if version == "2.1" else "OCMF|{}|{}",
            ),
            now,
        )

    try:
        wait_for(lambda: station.online)
        session(Phase.IDLE)
        meter(100.123456, 0.0)
        answers: list[TokenInfo] = []
        service.authorize(1, SESSION, Token("A-TOKEN-LONGER-THAN-1.6-ALLOWS"), "", answers.append)
        wait_for(lambda: answers)
        for phase in (Phase.LINKING, Phase.CHARGING):
            session(phase)
        meter(150.5, -55.5)
        do(station.evses[1].sample, "MeterValueClock", "Sample.Clock", clock())
        do(service.maintenance.security_event, "SettingSystemTime", "x" * 400)
        do(service.dialect.robot, {"TimeToMate": (9.5, "s")})
        needs = {
            "current_a": 200.0,
            "voltage_v": 450.0,
            "power_w": 90_000.0,
            "soc": 31.4,
            "capacity_wh": 60_000.0,
            "bidirectional": version == "2.1",
        }
        do(service.dialect.charging_needs, 1, needs)
        if service.dialect.model:
            do(service.dialect.model.fault, 401, "module_lost", 2, 1, True, "module 7 is silent")
        do(service.maintenance.sign_certificate)
        session(Phase.FAULTED, "GroundFault", 501)
        meter(151.0, 0.0)
        wait_for(lambda: station.queued == 0)
        if version == "1.6":
            assert strict.ask("GetConfiguration", {})["configurationKey"]
            schedule = strict.ask("GetCompositeSchedule", {"connectorId": 1, "duration": 600})
            strict.ask("TriggerMessage", {"requestedMessage": "MeterValues"})
            strict.ask(
                "GetLog", {"logType": "SecurityLog", "requestId": 1, "log": {"remoteLocation": "http://127.0.0.1:9/"}}
            )
            wanted = {"StartTransaction", "StopTransaction", "MeterValues", "DataTransfer", "LogStatusNotification"}
        else:
            schedule = strict.ask("GetCompositeSchedule", {"evseId": 1, "duration": 600})
            assert strict.ask("GetBaseReport", {"requestId": 1, "reportBase": "FullInventory"})["status"] == "Accepted"
            strict.ask(
                "SetVariableMonitoring",
                {
                    "setMonitoringData": [
                        {
                            "component": {"name": "EVSE", "evse": {"id": 1}},
                            "variable": {"name": "Power"},
                            "value": 1,
                            "type": "UpperThreshold",
                            "severity": 3,
                        }
                    ]
                },
            )
            strict.ask("GetMonitoringReport", {"requestId": 2})
            strict.ask(
                "GetLog", {"logType": "SecurityLog", "requestId": 1, "log": {"remoteLocation": "http://127.0.0.1:9/"}}
            )
            wanted = {
                "TransactionEvent",
                "NotifyReport",
                "NotifyEvent",
                "NotifyMonitoringReport",
                "NotifyEVChargingNeeds",
                "LogStatusNotification",
            }
        assert schedule["status"] == "Accepted"
        wanted |= {
            "BootNotification",
            "StatusNotification",
            "Authorize",
            "SecurityEventNotification",
            "SignCertificate",
        }
        wait_for(lambda: wanted <= set(strict.methods()), what=f"{wanted - set(strict.methods())}")
        assert [m for m in strict.said if "bad" in m] == []
        assert service.client.refused == 0 and service.store.refused() == []
    finally:
        service.stop()
        strict.process.kill()
        strict.process.wait()
