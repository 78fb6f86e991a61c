"""What must hold in every OCPP version: the same sessions, the same books."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from robot_charger.backend.records import Request, Token
from robot_charger.backend.service import clock
from robot_charger.common.faults import Code
from robot_charger.words.values import Phase

from .conftest import SESSION, Live, wait_for

Make = Callable[..., Live]
VERSIONS = ("1.6", "2.0.1", "2.1")


@pytest.fixture(params=VERSIONS)
def desk(request: pytest.FixtureRequest, live: Make) -> Live:
    return live(version=request.param)


def settled(desk: Live) -> Any:
    """The one entry of the books, once it has ended and all is delivered."""
    desk.delivered()
    wait_for(lambda: desk.books() and desk.books()[0].ended, what="an end in the books")
    wait_for(lambda: desk.books()[0].session_id, what="the session's id in the books")
    [entry] = desk.books()
    assert (entry.missing, entry.doubled, entry.disordered) == (0, 0, 0)
    return entry


def test_a_session(desk: Live) -> None:
    desk.online()
    desk.meter(1000.25, export_wh=7.5)
    desk.session(Phase.POSITIONING, accepted=False)
    desk.authorize()
    for phase in (Phase.MATED, Phase.LINKING, Phase.CHARGING):
        desk.session(phase)
    desk.meter(1500.0, 100.0, export_wh=8.0, soc=55.0)
    desk.do(desk.service.station.evses[1].sample, "MeterValueClock", "Sample.Clock", clock())
    desk.session(Phase.STOPPING, stop_reason="EmergencyStop")
    desk.meter(2000.75, export_wh=9.5)
    desk.session(Phase.GRASPED, stop_reason="EmergencyStop")
    desk.meter(2000.75, export_wh=9.5)
    entry = settled(desk)
    assert entry.version == desk.parameters.version and entry.session_id == SESSION
    assert (entry.meter_start_wh, entry.meter_stop_wh) == (1000.25, 2000.75)
    assert (entry.meter_export_start_wh, entry.meter_export_stop_wh) == (7.5, 9.5)
    assert (entry.id_token, entry.stop_reason) == ("DEADBEEF", "EmergencyStop")


def test_the_csms_absent_for_the_whole_session_and_back_later(desk: Live) -> None:
    """libocpp 1137: messages of an offline session were lost or could not be matched to it."""
    desk.online()
    desk.authorize()
    desk.fault("csms-gone")
    wait_for(lambda: Code.BACKEND_OFFLINE in desk.faults)
    desk.begin(100.0)
    desk.end(350.5)
    assert desk.service.station.queued >= 2
    desk.fault("csms-gone", on=False)
    entry = settled(desk)
    assert (entry.meter_start_wh, entry.meter_stop_wh, entry.energy_wh) == (100.0, 350.5, 250.5)


def test_the_csms_goes_and_comes_in_the_middle_with_a_restart_of_the_node(desk: Live) -> None:
    """SteVe 1293: one transaction, one StopTransaction, whatever happens in between."""
    desk.online()
    desk.begin(100.0)
    desk.delivered()
    desk.fault("csms-gone")
    wait_for(lambda: not desk.service.station.online)
    desk.meter(200.0, 50.0)
    desk.service.stop()
    desk.open()
    desk.session(Phase.CHARGING)  # the session went on without the back end
    desk.end(400.0)
    desk.fault("csms-gone", on=False)
    entry = settled(desk)
    assert (entry.meter_start_wh, entry.meter_stop_wh, entry.stop_reason) == (
        100.0,
        400.0,
        "Other" if desk.parameters.version == "1.6" else "StoppedByEV",
    )
    ends = [p for p in desk.received("TransactionEvent") if p["eventType"] == "Ended"]
    assert len(ends + desk.received("StopTransaction")) == 1


def test_remote_start_and_stop_in_plain_words(desk: Live) -> None:
    desk.online()
    desk.session(Phase.IDLE)
    assert desk.thread.do(desk.csms.command("remote_start", {"evse": 1, "id_token": "DEADBEEF"})) == {
        "status": "Accepted"
    }
    desk.session(Phase.POSITIONING, accepted=False)
    assert (desk.requests[-1].kind, desk.requests[-1].authorized) == (Request.START, True)
    desk.meter(1.0)
    for phase in (Phase.POSITIONING, Phase.LINKING, Phase.CHARGING):
        desk.session(phase)
    desk.delivered()
    assert desk.thread.do(desk.csms.command("remote_stop", {"evse": 1})) == {"status": "Accepted"}
    assert (desk.requests[-1].kind, desk.requests[-1].session_id) == (Request.STOP, SESSION)
    desk.end(5.0, reason="Remote")
    entry = settled(desk)
    assert (entry.id_token, entry.stop_reason) == ("DEADBEEF", "Remote")


def test_a_card_of_the_same_group_is_asked_about_and_ends_it(desk: Live) -> None:
    old = desk.parameters.version == "1.6"

    def group(station: Any, payload: dict[str, Any]) -> dict[str, Any]:
        if old:
            return {"idTagInfo": {"status": "Accepted", "parentIdTag": "FAMILY"}}
        return {"idTokenInfo": {"status": "Accepted", "groupIdToken": {"idToken": "FAMILY", "type": "Central"}}}

    desk.csms.answers["Authorize"] = group
    desk.online()
    desk.begin(10.0)
    desk.do(desk.service.shown, Token("SPOUSE"), 0, False)
    wait_for(lambda: [r for r in desk.requests if r.kind == Request.STOP], what="a stop")
    desk.end(20.0, reason="Remote")
    entry = settled(desk)
    assert (entry.id_token, entry.stop_reason) == ("DEADBEEF", "Local")
    if old:
        assert [p["idTag"] for p in desk.received("StopTransaction")] == ["SPOUSE"]
    else:
        assert desk.received("TransactionEvent")[-1]["idToken"]["idToken"] == "SPOUSE"


def test_an_answer_lost_on_the_way_doubles_nothing(desk: Live) -> None:
    """libocpp 495 and 907, MicroOcpp 454: sent and taken, but the answer never came; sent again, booked once."""
    desk.online()
    desk.authorize()
    desk.service.settings.note("message_timeout_s", 0.2)
    desk.fault("lose-answers", action="StartTransaction" if desk.parameters.version == "1.6" else "TransactionEvent")
    desk.begin(10.0)
    wait_for(lambda: len(_starts(desk)) >= 2, what="a second try")
    desk.fault("lose-answers", on=False)
    desk.end(20.0)
    entry = settled(desk)
    assert (entry.meter_start_wh, entry.meter_stop_wh) == (10.0, 20.0)


def _starts(desk: Live) -> list[Any]:
    return [p for p in desk.received("TransactionEvent") if p["eventType"] == "Started"] + desk.received(
        "StartTransaction"
    )


def test_limits_arrive_at_once_and_outlive_a_restart(desk: Live) -> None:
    """go-e 217: a profile was forgotten on reconnect."""
    desk.online()
    desk.session(Phase.IDLE)
    schedule = {
        "id": 1,
        "chargingRateUnit": "W",
        "startSchedule": "2020-01-01T00:00:00Z",
        "chargingSchedulePeriod": [{"startPeriod": 0, "limit": 11000.0}],
    }
    if desk.parameters.version == "1.6":
        del schedule["id"]
        answer = desk.call(
            "SetChargingProfile",
            {
                "connectorId": 0,
                "csChargingProfiles": {
                    "chargingProfileId": 5,
                    "stackLevel": 0,
                    "chargingProfilePurpose": "ChargePointMaxProfile",
                    "chargingProfileKind": "Absolute",
                    "chargingSchedule": schedule,
                },
            },
        )
    else:
        answer = desk.call(
            "SetChargingProfile",
            {
                "evseId": 0,
                "chargingProfile": {
                    "id": 5,
                    "stackLevel": 0,
                    "chargingProfilePurpose": "ChargingStationMaxProfile",
                    "chargingProfileKind": "Absolute",
                    "chargingSchedule": [schedule],
                },
            },
        )
    assert answer == {"status": "Accepted"}
    at_output = (11000.0 - 500.0) * 0.94  # the maximum counts on the grid side
    assert desk.limits[-1][1].max_power_w == at_output
    assert desk.limits[-1][1].source == "ChargingStationMaxProfile 5"
    desk.service.stop()
    desk.limits.clear()
    desk.open()
    desk.online()
    wait_for(lambda: desk.limits and desk.limits[-1][1].max_power_w == at_output)
    composite = {
        "duration": 3600,
        "chargingRateUnit": "W",
        ("connectorId" if desk.parameters.version == "1.6" else "evseId"): 1,
    }
    answer = desk.call("GetCompositeSchedule", composite)
    found = answer.get("chargingSchedule") or answer["schedule"]
    assert found["chargingSchedulePeriod"] == [{"startPeriod": 0, "limit": 11000.0}]
    clear = {"id": 5} if desk.parameters.version == "1.6" else {"chargingProfileId": 5}
    assert desk.call("ClearChargingProfile", clear)["status"] == "Accepted"
    assert desk.limits[-1][1].max_power_w == float("inf")
    assert desk.call("ClearChargingProfile", clear)["status"] == "Unknown"


def test_local_list_and_cache(desk: Live) -> None:
    old = desk.parameters.version == "1.6"
    desk.online()
    desk.session(Phase.IDLE)

    def entry(token: str, status: str | None) -> dict[str, Any]:
        found: dict[str, Any] = {"idTag": token} if old else {"idToken": {"idToken": token, "type": "ISO14443"}}
        if status:
            found["idTagInfo" if old else "idTokenInfo"] = {"status": status}
        return found

    def send(number: int, kind: str, *entries: dict[str, Any]) -> str:
        version = "listVersion" if old else "versionNumber"
        return str(
            desk.call("SendLocalList", {version: number, "updateType": kind, "localAuthorizationList": list(entries)})[
                "status"
            ]
        )

    assert send(1, "Full", entry("LIST1", "Accepted"), entry("LIST2", "Blocked")) == "Accepted"
    assert send(1, "Differential", entry("LIST3", "Accepted")) == "VersionMismatch"
    assert send(2, "Differential", entry("LIST3", "Accepted"), entry("LIST1", None)) == "Accepted"
    assert desk.call("GetLocalListVersion", {})["listVersion" if old else "versionNumber"] == 2
    desk.authorize(Token("DEADBEEF"))
    desk.service.stop()
    desk.fault("csms-gone")
    desk.open()
    desk.session(Phase.IDLE)
    assert [desk.authorize(Token(t)).status for t in ("LIST1", "LIST2", "list3", "DEADBEEF")] == [
        "Unknown",
        "Blocked",
        "Accepted",
        "Accepted",
    ]
    desk.fault("csms-gone", on=False)
    desk.online()
    assert desk.call("ClearCache", {})["status"] == "Accepted"
    desk.fault("csms-gone")
    wait_for(lambda: not desk.service.station.online)
    assert desk.authorize(Token("DEADBEEF")).status == "Unknown"


def test_reservation(desk: Live) -> None:
    old = desk.parameters.version == "1.6"
    desk.online()
    desk.session(Phase.IDLE)
    expires = "2099-01-01T00:00:00Z"
    token = {"idToken": "DEADBEEF", "type": "ISO14443"}
    reserve = (
        {"connectorId": 1, "reservationId": 4, "expiryDate": expires, "idTag": "DEADBEEF"}
        if old
        else {"id": 4, "evseId": 1, "expiryDateTime": expires, "idToken": token}
    )
    assert desk.call("ReserveNow", reserve)["status"] == "Accepted"
    status = "status" if old else "connectorStatus"
    wait_for(lambda: desk.received("StatusNotification")[-1][status] == "Reserved")
    assert desk.authorize(Token("ROBOT-TAG-1")).status == "NotAtThisTime"
    assert desk.call("CancelReservation", {"reservationId": 5})["status"] == "Rejected"
    assert desk.call("CancelReservation", {"reservationId": 4})["status"] == "Accepted"
    wait_for(lambda: desk.received("StatusNotification")[-1][status] == "Available")
    assert desk.call("ReserveNow", reserve)["status"] == "Accepted"
    desk.begin(1.0)
    desk.end(2.0)
    settled(desk)
    start = _starts(desk)[0]
    assert start["reservationId"] == 4 and desk.service.station.reservations == {}


def test_the_meter_is_told_on_request(desk: Live) -> None:
    """Outside a transaction too."""
    desk.online()
    desk.session(Phase.IDLE)
    desk.meter(1234.5)
    assert desk.call("TriggerMessage", {"requestedMessage": "MeterValues"}) == {"status": "Accepted"}
    wait_for(lambda: desk.received("MeterValues"))
    [told] = desk.received("MeterValues")
    register = told["meterValue"][0]["sampledValue"][0]
    assert (float(register["value"]), register["context"]) == (1234.5, "Trigger")
    assert told["connectorId" if desk.parameters.version == "1.6" else "evseId"] == 1


def test_configuration_of_1_6(live: Make) -> None:
    desk = live(version="1.6")
    desk.online()
    answer = desk.call("GetConfiguration", {"key": ["HeartbeatInterval", "AuthorizationKey", "NoSuchKey"]})
    assert answer["unknownKey"] == ["NoSuchKey"]
    known = {k["key"]: k for k in answer["configurationKey"]}
    assert known["HeartbeatInterval"] == {"key": "HeartbeatInterval", "readonly": False, "value": "300"}
    assert "value" not in known.get("AuthorizationKey", {})  # a password is not told
    assert len(desk.call("GetConfiguration", {})["configurationKey"]) > 30

    def change(key: str, value: str) -> str:
        return str(desk.call("ChangeConfiguration", {"key": key, "value": value})["status"])

    assert [
        change("MeterValueSampleInterval", "30"),
        change("MeterValueSampleInterval", "soon"),
        change("NumberOfConnectors", "9"),
        change("NoSuchKey", "1"),
    ] == ["Accepted", "Rejected", "Rejected", "NotSupported"]
    assert desk.service.settings["sample_s"] == 30


def test_remote_start_with_a_profile(desk: Live) -> None:
    """It holds from the start of its transaction to the end, and for no other."""
    old = desk.parameters.version == "1.6"
    periods = [{"startPeriod": 0, "limit": 9000.0}]
    schedule: dict[str, Any] = {"chargingRateUnit": "W", "chargingSchedulePeriod": periods}
    profile: dict[str, Any] = {
        "stackLevel": 0,
        "chargingProfilePurpose": "TxProfile",
        "chargingProfileKind": "Relative",
    }
    desk.online()
    desk.session(Phase.IDLE)
    if old:
        answer = desk.call(
            "RemoteStartTransaction",
            {
                "connectorId": 1,
                "idTag": "DEADBEEF",
                "chargingProfile": {**profile, "chargingProfileId": 3, "chargingSchedule": schedule},
            },
        )
    else:
        answer = desk.call(
            "RequestStartTransaction",
            {
                "evseId": 1,
                "remoteStartId": 8,
                "idToken": {"idToken": "DEADBEEF", "type": "Central"},
                "chargingProfile": {**profile, "id": 3, "chargingSchedule": [{**schedule, "id": 1}]},
            },
        )
    assert answer["status"] == "Accepted"
    assert not desk.limits or desk.limits[-1][1].max_power_w == float("inf")
    desk.meter(1.0)
    desk.session(Phase.POSITIONING)
    desk.session(Phase.LINKING)
    wait_for(lambda: desk.limits and desk.limits[-1][1].max_power_w == 9000.0)
    desk.end(2.0)
    wait_for(lambda: desk.limits[-1][1].max_power_w == float("inf"))
