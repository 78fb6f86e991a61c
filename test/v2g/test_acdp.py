"""ISO 15118-20 ACDP: its messages, the order they may come in, and a whole session against the simulated vehicle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import secc_messages as messages
from hypothesis import given
from hypothesis import strategies as st
from secc_desk import SUPPLY, Desk, Supply, always, code, fields, hello
from test_sessions import run

from robot_charger.sim.acdp import AcdpError, Message
from robot_charger.v2g import pki, v2gtp
from robot_charger.words.values import Insulation, Link, Lock, Phase, Shutdown

HERE = replace(SUPPLY, phase=Phase.POSITIONING, arm="Home", inlet_x_mm=12.4, inlet_y_mm=-7.0)
HOME = {"EVElectricalChargingDeviceStatus": "State_A"}
NAMES = [name for name in messages.REQUESTS["acdp"] if name.startswith("ACDP_")]


class Bay:
    """A vehicle at an arm: requests by name, the station as it is set."""

    def __init__(self, **changes: Any) -> None:
        self.desk = Desk(replace(always(), device=True), Supply(replace(HERE, **changes)))
        assert code(self.desk.send(hello("iso15118_20_acdp", 1))) == "OK_SuccessfulNegotiation"

    def be(self, **changes: Any) -> None:
        self.desk.supply.station = replace(self.desk.supply.station, **changes)

    def ask(self, name: str, body: Any = None, session_id: str = "") -> Any:
        chosen = messages.REQUESTS["acdp"][name][0] if body is None else body
        kind, exi = messages.message("acdp", name, chosen, session_id or self.desk.machine.talk.session_id)
        reply = self.desk.send(exi, kind)
        self.reply = reply
        return {"code": code(reply), **fields(reply)}

    def until(self, last: str) -> Any:
        """An ordinary session up to ``last``."""
        for name in messages.REQUESTS["acdp"]:
            if name == "DC_PreChargeReq":
                self.desk.wait(0.1)
                self.ask(name)
                self.desk.wait(0.1)
                answer = self.ask(name, messages.REQUESTS["acdp"][name][1])
            else:
                answer = self.ask(name)
            while answer["code"] == "OK" and str(answer.get("EVSEProcessing", "")).startswith("Ongoing"):
                self.desk.wait(0.1)
                answer = self.ask(name)
            assert answer["code"].startswith("OK"), (name, self.reply.fault)
            if name == last:
                return answer
        raise AssertionError(last)


@pytest.mark.parametrize("name", NAMES)
def test_the_vehicle_s_messages_are_coded_by_the_schema(name: str) -> None:
    message = Message(name, "0102030405060708", messages.REQUESTS["acdp"][name][0])
    assert Message.decode(message.encode()) == message
    assert message.payload_type == (0x8103 if "Status" in name else 0x8005)


def test_positioning_waits_for_the_vehicle_to_stand_within_reach() -> None:
    bay = Bay()
    bay.ask("SessionSetupReq")
    moving = {"EVMobilityStatus": True, "EVPositioningSupport": False}
    answer = bay.ask("ACDP_VehiclePositioningReq", moving)
    assert answer["EVSEProcessing"] == "Ongoing"
    assert (answer["EVRelativeXDeviation"], answer["EVRelativeYDeviation"]) == (12, -7)
    bay.be(inlet_x_mm=900.0)
    assert bay.ask("ACDP_VehiclePositioningReq")["EVInChargePosition"] is False
    bay.be(inlet_x_mm=12.0)
    assert bay.ask("ACDP_VehiclePositioningReq")["EVSEProcessing"] == "Finished"


def test_connect_follows_the_arm() -> None:
    bay = Bay()
    bay.until("ScheduleExchangeReq")
    found = []
    for changes in (
        {},
        {"arm": "Moving"},
        {"arm": "EndPosition"},  # in place, but the pilot does not say so yet
        {"mated": True, "pilot": 2, "phase": Phase.MATED},  # still holds the plug
        {"phase": Phase.LINKING},
    ):
        bay.be(**changes)
        answer = bay.ask("ACDP_ConnectReq")
        found.append((answer["EVSEProcessing"], answer["EVSEMechanicalChargingDeviceStatus"], bay.desk.vehicle.phase))
    ongoing = [("Ongoing", arm, Link.CONNECTING) for arm in ("Home", "Moving", "EndPosition", "EndPosition")]
    assert found == [*ongoing, ("Finished", "EndPosition", Link.PARAMETERS)]
    assert answer["EVSEElectricalChargingDeviceStatus"] == "State_B"
    kind, exi = messages.message("acdp", "DC_CableCheckReq", {}, bay.desk.machine.talk.session_id)
    assert code(bay.desk.send(exi, kind)) == "OK"


def test_disconnect_follows_the_transfer_and_unlocks() -> None:
    bay = Bay(arm="EndPosition", mated=True, phase=Phase.LINKING)
    bay.until("DC_ChargeLoopReq")
    assert bay.ask("PowerDeliveryReq", messages.REQUESTS["acdp"]["PowerDeliveryReq"][1])["code"] == "OK"
    assert bay.ask("ACDP_DisconnectReq")["EVSEProcessing"] == "Ongoing"
    assert (bay.desk.vehicle.phase, bay.desk.vehicle.lock) == (Link.DISCONNECTING, Lock.UNLOCKED)
    bay.be(arm="Home", mated=False)
    assert bay.ask("ACDP_DisconnectReq")["EVSEProcessing"] == "Finished"
    assert bay.ask("SessionStopReq")["code"] == "OK"


def test_a_session_that_ends_is_not_plugged_in() -> None:
    bay = Bay()
    bay.until("ScheduleExchangeReq")
    bay.be(stop_requested=True)
    assert bay.ask("ACDP_ConnectReq")["code"] == "FAILED"
    assert bay.reply.end.text == "the station stopped the session before contact"


def test_an_inlet_not_seen_for_a_while_is_not_within_reach() -> None:
    bay = Bay()
    bay.ask("SessionSetupReq")
    stale = replace(bay.desk.station, inlet_stamp_ns=bay.desk.now.ns - 2 * 10**9)
    kind, exi = messages.message(
        "acdp", NAMES[0], messages.REQUESTS["acdp"][NAMES[0]][0], bay.desk.machine.talk.session_id
    )
    answer = fields(bay.desk.machine.take(kind, exi, stale, bay.desk.now))
    assert (answer["EVInChargePosition"], answer["EVSEProcessing"]) == (False, "Ongoing")


@pytest.mark.parametrize(
    ("after", "name"),
    [
        ("ServiceSelectionReq", "ACDP_VehiclePositioningReq"),
        ("SessionSetupReq", "ACDP_ConnectReq"),
        ("ScheduleExchangeReq", "DC_CableCheckReq"),
        ("DC_ChargeLoopReq", "ACDP_DisconnectReq"),
    ],
    ids=["positioning late", "connect early", "cable check before contact", "disconnect under load"],
)
def test_what_is_out_of_order_ends_the_session(after: str, name: str) -> None:
    bay = Bay(**({"arm": "EndPosition", "mated": True, "phase": Phase.LINKING} if "Loop" in after else {}))
    bay.until(after)
    assert bay.ask(name)["code"] == "FAILED_SequenceError" and bay.reply.end is not None
    assert bay.reply.said.name == name.replace("Req", "Res")


def test_another_session_s_request_ends_the_session() -> None:
    bay = Bay()
    bay.until("ScheduleExchangeReq")
    assert bay.ask("ACDP_ConnectReq", session_id="FFFFFFFFFFFFFFFF")["code"] == "FAILED_UnknownSession"


def test_a_vehicle_that_is_not_in_position_is_not_plugged_in() -> None:
    bay = Bay()
    bay.ask("SessionSetupReq")
    for name in ("AuthorizationSetupReq", "AuthorizationReq", "ServiceDiscoveryReq", "ServiceSelectionReq"):
        bay.ask(name)
    bay.ask("DC_ChargeParameterDiscoveryReq")
    bay.ask("ScheduleExchangeReq")
    assert bay.ask("ACDP_ConnectReq")["code"] == "FAILED_SequenceError"


def test_system_status_comes_at_any_time_and_shows_the_emergency() -> None:
    bay = Bay()
    bay.until("ServiceDiscoveryReq")
    bay.be(shutdown=Shutdown.EMERGENCY, insulation=Insulation.FAULT)
    answer = bay.ask("ACDP_SystemStatusReq")
    assert bay.desk.replies[-1].message[2:4] == (0x8103).to_bytes(2, "big")
    assert answer["EVSEEmergencyShutdown"] and not answer["EVSEReadyToCharge"]
    assert answer["EVSEIsolationStatus"] == "Fault"
    bay.be(shutdown=Shutdown.NONE)
    assert bay.ask("ServiceDetailReq")["code"] == "OK"  # as if it had not come


@given(st.binary(max_size=80))
def test_any_payload_is_answered(data: bytes) -> None:
    bay = Bay()
    bay.ask("SessionSetupReq")
    assert bay.desk.send(data, 0x8005).message[: v2gtp.HEADER]
    try:
        message = Message.decode(data)
    except (AcdpError, KeyError):
        return
    assert message.name.startswith("ACDP_")


@pytest.mark.integration
@pytest.mark.timeout(90)
def test_a_session_over_tls(sim_directory: Path, tmp_path: Path) -> None:
    pki.make(tmp_path)
    parameters = {"link": "acdp", "tls.required": True, "tls.directory": str(tmp_path / "station")}
    car = {"protocol": "acdp", "options": {"tls": True, "pki": str(tmp_path / "vehicle")}}
    station, (vehicle,) = run(sim_directory, {"acdp": True, "parameters": parameters}, car)
    (session,) = station["sessions"]
    assert vehicle["result"] == "ended", (vehicle, session)
    assert vehicle["tls"] == "TLSv1.3"
    assert (session["phase"], session["protocol"]) == ("ENDED", "iso15118-20")
    assert session["max_current_a"] == 120.0
    wanted = ["VehiclePositioning", "Connect Home", "Connect Moving", "Connect EndPosition"]
    wanted += ["SystemStatus EndPosition", "Disconnect EndPosition", "Disconnect Moving", "Disconnect Home"]
    assert [entry for entry in vehicle["acdp"] if entry in wanted] == wanted, vehicle["acdp"]
    names = station["names"]
    assert names.index("ACDP_ConnectReq") < names.index("DC_CableCheckReq")
    assert "MATCHING" not in session["phases"]  # no SLAC


@pytest.mark.integration
@pytest.mark.timeout(90)
def test_a_bidirectional_session(sim_directory: Path) -> None:
    car = {"protocol": "acdp-bpt", "car": {"requested_current_a": -40.0}}
    secc = {"acdp": True, "export_a": 60.0, "parameters": {"link": "acdp"}}
    station, (vehicle,) = run(sim_directory, secc, car)
    (session,) = station["sessions"]
    assert vehicle["result"] == "ended", (vehicle, session)
    assert session["bidirectional"] and session["min_current_a"] == -40.0
