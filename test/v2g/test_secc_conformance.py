"""The conformance family (conformance.py) for DIN 70121, ISO 15118-2, ISO 15118-20 and ACDP."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import secc_messages as messages
from conformance import Conformance
from secc_desk import SUPPLY, Desk, Supply, always, code, fields, hello

from robot_charger.common.faults import Code
from robot_charger.v2g.secc.table import End
from robot_charger.words.values import Phase

LOOPS = {"din70121": "CurrentDemandReq", "iso15118-2": "CurrentDemandReq"}


class CcsVehicle:
    """A session of the tables with a supply that follows."""

    def __init__(self, protocol: str) -> None:
        self.protocol = protocol
        self.requests = messages.REQUESTS[protocol]
        self.LOOP = LOOPS.get(protocol, "DC_ChargeLoopReq")
        self.PAUSES = protocol != "din70121"
        apart = ("SystemStatus", "Disconnect", "Welding", "SessionStop")
        self.STEPS = tuple(name for name in self.requests if not any(word in name for word in apart))
        device = protocol == "acdp"
        settings = replace(always(), protocols=("iso15118-20" if device else protocol,), device=device)
        station = replace(SUPPLY, phase=Phase.LINKING, arm="EndPosition", mated=True)
        self.desk = Desk(settings, Supply(station))
        self.desk.send(hello(*messages.FIRST[protocol]))
        self._done = -1
        self._end: End | None = None
        self._silent = False

    def again(self) -> CcsVehicle:
        return CcsVehicle(self.protocol)

    def go(self, last: str) -> None:
        for name in self.STEPS[self._done + 1 : self.STEPS.index(last) + 1]:
            said = self.repeat(name)
            while str(fields(self.reply).get("EVSEProcessing", "")).startswith("Ongoing") and said == "OK":
                self.wait(0.1)
                said = self.repeat(name)
            if "PreCharge" in name:
                self.wait(0.1)
                said = self.ask(name, self.requests[name][-1])
            assert said.startswith("OK"), (name, said, self.reply.fault)
            self._done = self.STEPS.index(name)

    def ask(self, name: str, body: Any, session_id: str = "") -> str:
        kind, exi = messages.message(self.protocol, name, body, session_id or self.desk.machine.talk.session_id)
        if self._silent:  # the supervisor: its stamp is not renewed
            station = replace(self.desk.supply.station, session_stamp_ns=0)
            self.reply = self.desk.machine.take(kind, exi, station, self.desk.now)
        else:
            self.reply = self.desk.send(exi, kind)
        self._end = self.reply.end or self._end
        return code(self.reply)

    def repeat(self, step: str) -> str:
        self.wait(0.05)
        return self.ask(step, self.requests[step][0])

    def intrude(self, step: str) -> str:
        return self.ask(step, self.requests[step][0], "FFFFFFFFFFFFFFFF")

    def stop(self) -> str:
        return self.ask("PowerDeliveryReq", self.requests["PowerDeliveryReq"][1])

    def leave(self, pause: bool = False) -> str:
        if self.protocol == "acdp" and self.desk.machine.talk.energy.stopped:
            self.set(arm="Home", mated=False)
            self.ask("ACDP_DisconnectReq", self.requests["ACDP_DisconnectReq"][0])
        return self.ask("SessionStopReq", self.requests["SessionStopReq"][int(pause)])

    def hang_up(self) -> None:
        closed = self.desk.machine.closed()
        self._end = self.desk.machine.cut(closed.code, closed.text) if not closed.in_order else closed

    def set(self, **station: Any) -> None:
        self._silent = station.pop("session_stamp_ns", 1) == 0
        self.desk.supply.station = replace(self.desk.supply.station, **station)

    def fail_insulation(self, found: int) -> None:
        self.desk.supply.insulation = found

    def wait(self, seconds: float) -> None:
        self.desk.wait(seconds)

    @property
    def purpose(self) -> int:
        return self.desk.machine.talk.energy.purpose

    @property
    def phase(self) -> int:
        return self.desk.vehicle.phase

    @property
    def told_to_stop(self) -> bool:
        answer = fields(self.reply)
        status = answer.get("DC_EVSEStatus", answer.get("EVSEStatus", {}))
        return status.get("EVSENotification") in ("StopCharging", "Terminate")

    @property
    def told_emergency(self) -> bool | None:
        status = fields(self.reply).get("DC_EVSEStatus")
        return None if status is None else status["EVSEStatusCode"] == "EVSE_EmergencyShutdown"

    @property
    def end(self) -> tuple[Code, bool, bool] | None:
        return (self._end.code, self._end.in_order, self._end.paused) if self._end else None

    @property
    def patience_s(self) -> float:
        return self.desk.machine.timeout_s


class TestDin(Conformance):
    @pytest.fixture
    def vehicle(self) -> Any:
        return CcsVehicle("din70121")


class TestIso2(Conformance):
    @pytest.fixture
    def vehicle(self) -> Any:
        return CcsVehicle("iso15118-2")


class TestIso20(Conformance):
    LONGEST_SILENCE_S = 0.5

    @pytest.fixture
    def vehicle(self) -> Any:
        return CcsVehicle("iso15118-20")


class TestAcdp(Conformance):
    LONGEST_SILENCE_S = 0.5

    @pytest.fixture
    def vehicle(self) -> Any:
        return CcsVehicle("acdp")
