"""ISO 15118-20 ACDP: its messages, the order they may come in, and a whole session against the simulated vehicle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_sessions import run

from robot_charger.common.clock import now_ns
from robot_charger.v2g import pki
from robot_charger.v2g.acdp import FAILED, OK, SEQUENCE_ERROR, UNKNOWN_SESSION, AcdpError, Message, Secc
from robot_charger.v2g.bridge import Station
from robot_charger.words.values import Insulation, Phase, Shutdown

SESSION = "0102030405060708"
HERE = Station(
    session_stamp_ns=now_ns() + 10**12,
    session_id="s",
    phase=Phase.POSITIONING,
    arm="Home",
    inlet_stamp_ns=now_ns() + 10**12,
    inlet_x_mm=12.4,
    inlet_y_mm=-7.0,
    supply_available=True,
)
STANDING = Message("ACDP_VehiclePositioningReq", SESSION, {"EVMobilityStatus": False, "EVPositioningSupport": False})
CONNECT = Message("ACDP_ConnectReq", SESSION, {"EVElectricalChargingDeviceStatus": "State_A"})
DISCONNECT = Message("ACDP_DisconnectReq", SESSION, {"EVElectricalChargingDeviceStatus": "State_B"})
TECHNICAL = {"EVReadyToCharge": True, "EVImmobilizationRequest": False}
STATUS = Message("ACDP_SystemStatusReq", SESSION, {"EVTechnicalStatus": TECHNICAL})


@pytest.mark.parametrize("message", [STANDING, CONNECT, DISCONNECT, STATUS], ids=str)
def test_requests_and_responses_are_coded_by_the_schema(message: Message) -> None:
    assert Message.decode(message.encode()) == message
    secc = Secc(lambda device, done: None)
    secc.selected = secc.positioned = True
    state = {"ACDP_VehiclePositioningReq": "AuthorizationSetup"}.get(message.name, "ScheduleExchange")
    response, ends = secc.answer(message, SESSION, state, HERE)
    assert (response.code, ends) == (OK, False)
    assert Message.decode(response.encode()) == response
    assert response.payload_type == (0x8103 if "Status" in message.name else 0x8005)


def test_positioning_waits_for_the_vehicle_to_stand_within_reach() -> None:
    secc = Secc(lambda device, done: None)
    moving = replace(STANDING, fields={**STANDING.fields, "EVMobilityStatus": True})
    answer, _ = secc.answer(moving, SESSION, "AuthorizationSetup", HERE)
    assert answer.fields["EVSEProcessing"] == "Ongoing"
    assert (answer.fields["EVRelativeXDeviation"], answer.fields["EVRelativeYDeviation"]) == (12, -7)
    far = replace(HERE, inlet_x_mm=900.0)
    assert secc.answer(STANDING, SESSION, "AuthorizationSetup", far)[0].fields["EVInChargePosition"] is False
    assert not secc.positioned
    assert secc.answer(STANDING, SESSION, "AuthorizationSetup", HERE)[0].fields["EVSEProcessing"] == "Finished"


def test_connect_follows_the_arm() -> None:
    asked: list[tuple[str, bool]] = []
    secc = Secc(lambda device, done: asked.append((device.value, done)))
    secc.selected = secc.positioned = True
    fields = [
        secc.answer(CONNECT, SESSION, "ScheduleExchange", station)[0].fields
        for station in (
            HERE,
            replace(HERE, arm="Moving"),
            replace(HERE, arm="EndPosition"),  # in place, but the pilot does not say so yet
            replace(HERE, arm="EndPosition", mated=True, pilot=2, phase=Phase.MATED),  # still holds the plug
            replace(HERE, arm="EndPosition", mated=True, pilot=2, phase=Phase.LINKING),
        )
    ]
    assert [f["EVSEProcessing"] for f in fields] == ["Ongoing"] * 4 + ["Finished"]
    assert [f["EVSEMechanicalChargingDeviceStatus"] for f in fields] == ["Home", "Moving"] + ["EndPosition"] * 3
    assert fields[-1]["EVSEElectricalChargingDeviceStatus"] == "State_B"
    assert asked == [("connect", False)] * 4 + [("connect", True)]
    gone = secc.answer(DISCONNECT, SESSION, "DCWeldingDetection", HERE)[0]
    assert gone.fields["EVSEProcessing"] == "Finished"
    assert not secc.connected


def test_a_session_that_ends_is_not_plugged_in() -> None:
    secc = Secc(lambda device, done: None)
    secc.selected = secc.positioned = True
    response, ends = secc.answer(CONNECT, SESSION, "ScheduleExchange", replace(HERE, stop_requested=True))
    assert (response.code, ends) == (FAILED, True)


def test_an_inlet_not_seen_for_a_while_is_not_within_reach() -> None:
    unseen = replace(HERE, inlet_stamp_ns=now_ns() - 2 * 10**9)
    fields = Secc(lambda device, done: None).answer(STANDING, SESSION, "AuthorizationSetup", unseen)[0].fields
    assert (fields["EVInChargePosition"], fields["EVSEProcessing"]) == (False, "Ongoing")


@pytest.mark.parametrize(
    ("request_", "state", "code"),
    [
        (STANDING, "ScheduleExchange", SEQUENCE_ERROR),
        (CONNECT, "AuthorizationSetup", SEQUENCE_ERROR),
        (DISCONNECT, "DCChargeLoop", SEQUENCE_ERROR),
        (replace(CONNECT, session_id="FFFFFFFFFFFFFFFF"), "ScheduleExchange", UNKNOWN_SESSION),
    ],
    ids=["positioning late", "connect early", "disconnect under load", "other session"],
)
def test_what_is_out_of_order_ends_the_session(request_: Message, state: str, code: str) -> None:
    secc = Secc(lambda device, done: None)
    secc.selected = secc.positioned = True
    response, ends = secc.answer(request_, SESSION, state, HERE)
    assert (response.code, ends) == (code, True)
    assert Message.decode(response.encode()).code == code


def test_system_status_tells_the_emergency() -> None:
    station = replace(HERE, shutdown=Shutdown.EMERGENCY, insulation=Insulation.FAULT)
    fields = Secc(lambda device, done: None).answer(STATUS, SESSION, "DCChargeLoop", station)[0].fields
    assert fields["EVSEEmergencyShutdown"] and not fields["EVSEReadyToCharge"]
    assert fields["EVSEIsolationStatus"] == "Fault"


@given(st.binary(max_size=80))
def test_any_payload_is_survived(data: bytes) -> None:
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
