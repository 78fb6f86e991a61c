"""Part 6, blocks F, G, P and reservations (H): remote control, availability, vendor data."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from robot_charger.backend import v2
from robot_charger.backend.records import Request, Token
from robot_charger.words.values import Phase

from .conftest import SESSION, Rig, Rigs


def start(evse: int = 1, id: str = "REMOTE") -> dict[str, Any]:
    return {"evseId": evse, "remoteStartId": 9, "idToken": {"idToken": id, "type": "Central"}}


def started(one: Rig) -> dict[str, Any]:
    return one.came("TransactionEvent", eventType="Started")[0]


def test_f_01_a_remote_start_of_a_vehicle_that_is_there(rig: Rigs) -> None:
    one = rig()
    one.read_meter(1.0)
    one.phase(Phase.MATED, accepted=False)
    assert one.call("RequestStartTransaction", start())["status"] == "Accepted"
    request = one.requests[-1]
    assert (request.kind, request.token) == (Request.START, Token("REMOTE", "Central"))
    one.phase(Phase.MATED)
    one.phase(Phase.LINKING)
    assert started(one)["transactionInfo"]["remoteStartId"] == 9


@pytest.mark.parametrize(("ask", "asked"), [(True, 1), (False, 0)])
def test_f_02_03_the_csms_is_asked_where_authorize_remote_start_says_so(rig: Rigs, ask: bool, asked: int) -> None:
    one = rig(authorize__remote_start=ask)
    assert one.call("RequestStartTransaction", start())["status"] == "Accepted"
    one.phase(Phase.POSITIONING, accepted=False)
    assert one.authorize(Token("REMOTE", "Central")).accepted
    assert len(one.of("Authorize")) == asked


def test_f_09_a_remote_stop_of_nothing_is_rejected(rig: Rigs) -> None:
    assert rig().call("RequestStopTransaction", {"transactionId": "nothing"}) == {"status": "Rejected"}


def test_f_05_a_plug_in_a_transaction_is_not_unlocked(rig: Rigs) -> None:
    one = rig()
    one.charge()
    answer = one.call("UnlockConnector", {"evseId": 1, "connectorId": 1})
    assert answer["status"] == "OngoingAuthorizedTransaction"
    assert not [r for r in one.requests if r.kind == Request.UNLOCK]


@pytest.mark.parametrize("version", ["1.6", "2.0.1"])
@pytest.mark.parametrize(("plugged", "comes_out"), [(True, True), (True, False), (False, True)])
def test_f_06_07_the_answer_to_an_unlock_is_its_result(
    rig: Rigs, version: str, plugged: bool, comes_out: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(v2, "UNLOCK_S", 1.0)
    one = rig(version)
    one.phase(Phase.FAULTED if plugged else Phase.IDLE, accepted=False, mated=plugged, fault=403 if plugged else 0)
    payload = {"connectorId": 1} if version == "1.6" else {"evseId": 1, "connectorId": 1}
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(one.call, "UnlockConnector", payload)
        one.until(lambda: [r for r in one.requests if r.kind == Request.UNLOCK])
        if plugged and comes_out:
            assert not answer.done()
            one.phase(Phase.IDLE)
        assert answer.result(45)["status"] == ("Unlocked" if comes_out else "UnlockFailed")


@pytest.mark.parametrize(("evse", "connector"), [(9, 1), (1, 9)])
def test_f_10_there_is_no_such_connector(rig: Rigs, evse: int, connector: int) -> None:
    answer = rig().call("UnlockConnector", {"evseId": evse, "connectorId": connector})
    assert answer["status"] == "UnknownConnector"


@pytest.mark.parametrize(("place", "count"), [({"evse": {"id": 1}}, 1), ({}, 2)])
def test_f_11_12_meter_values_on_request(rig: Rigs, place: dict[str, Any], count: int) -> None:
    one = rig(evses=2)
    for evse in (1, 2):
        one.read_meter(100.0, evse=evse)
    assert one.call("TriggerMessage", {"requestedMessage": "MeterValues", **place}) == {"status": "Accepted"}
    one.came("MeterValues", count)
    values = one.of("MeterValues")[0]["meterValue"][0]["sampledValue"]
    assert {v["context"] for v in values} == {"Trigger"}


@pytest.mark.parametrize(("place", "count"), [({"evse": {"id": 1}}, 1), ({}, 2)])
def test_f_13_14_transaction_events_on_request(rig: Rigs, place: dict[str, Any], count: int) -> None:
    one = rig(evses=2)
    for evse in (1, 2):
        one.charge(evse, f"{SESSION[:-1]}{evse}")
    assert one.call("TriggerMessage", {"requestedMessage": "TransactionEvent", **place}) == {"status": "Accepted"}
    one.came("TransactionEvent", count, triggerReason="Trigger")
    one.delivered()
    assert len([p for p in one.of("TransactionEvent") if p["triggerReason"] == "Trigger"]) == count


@pytest.mark.parametrize(
    ("id", "message"),
    [
        ("F_15", "LogStatusNotification"),
        ("F_17", "FirmwareStatusNotification"),
        ("F_18", "FirmwareStatusNotification"),
        ("F_20", "Heartbeat"),
    ],
)
def test_f_15_to_20_messages_on_request(rig: Rigs, id: str, message: str) -> None:
    one = rig()
    assert one.call("TriggerMessage", {"requestedMessage": message, "evse": {"id": 1}}) == {"status": "Accepted"}
    [told] = one.came(message)
    assert told.get("status", "Idle") == "Idle" and "requestId" not in told


@pytest.mark.parametrize(("phase", "status"), [(Phase.IDLE, "Available"), (Phase.POSITIONING, "Occupied")])
def test_f_23_24_statuses_on_request(rig: Rigs, phase: Phase, status: str) -> None:
    one = rig()
    one.phase(phase, accepted=False)
    one.came("StatusNotification", connectorStatus=status)
    before = len(one.of("StatusNotification"))
    place = {"evse": {"id": 1, "connectorId": 1}}
    assert one.call("TriggerMessage", {"requestedMessage": "StatusNotification", **place}) == {"status": "Accepted"}
    one.until(lambda: len(one.of("StatusNotification")) > before)
    assert one.of("StatusNotification")[-1]["connectorStatus"] == status


@pytest.mark.parametrize(("message", "status"), [("BootNotification", "Rejected"), ("PublishFirmware", "")])
def test_f_26_27_what_is_not_sent_on_request_says_so(rig: Rigs, message: str, status: str) -> None:
    one = rig()
    asked = "PublishFirmwareStatusNotification" if message == "PublishFirmware" else message
    assert one.call("TriggerMessage", {"requestedMessage": asked})["status"] == (status or "NotImplemented")
    assert len(one.of("BootNotification")) == 1


def test_g_01_02_a_vehicle_comes_and_goes(rig: Rigs) -> None:
    one = rig()
    one.phase(Phase.POSITIONING, accepted=False)
    one.came("StatusNotification", connectorStatus="Occupied")
    one.phase(Phase.IDLE)
    one.until(lambda: one.of("StatusNotification")[-1]["connectorStatus"] == "Available")


PLACES: dict[str, dict[str, Any]] = {
    "EVSE": {"evse": {"id": 1}},
    "station": {},
    "connector": {"evse": {"id": 1, "connectorId": 1}},
}


def change(one: Rig, place: str, operative: bool) -> str:
    word = "Operative" if operative else "Inoperative"
    return str(one.call("ChangeAvailability", {"operationalStatus": word, **PLACES[place]})["status"])


def last_status(one: Rig, evse: int = 1) -> str:
    found = [p["connectorStatus"] for p in one.of("StatusNotification") if p["evseId"] == evse]
    return found[-1] if found else ""


@pytest.mark.parametrize("place", PLACES)
def test_g_03_to_08_g_18_19_21_availability_changes_and_stays(rig: Rigs, place: str) -> None:
    one = rig(evses=2)
    assert change(one, place, False) == "Accepted"
    one.until(lambda: last_status(one) == "Unavailable")
    assert (last_status(one, 2) == "Unavailable") == (place == "station") or one.until(
        lambda: (last_status(one, 2) == "Unavailable") == (place == "station")
    )
    one.service.stop()
    one.open()
    one.online()
    one.idle(1, 2)
    before = len(one.of("StatusNotification"))
    one.call("TriggerMessage", {"requestedMessage": "StatusNotification", "evse": {"id": 1, "connectorId": 1}})
    one.until(lambda: len(one.of("StatusNotification")) > before)
    one.until(lambda: last_status(one) == "Unavailable")
    assert change(one, place, True) == "Accepted"
    one.until(lambda: last_status(one) == "Available")


@pytest.mark.parametrize("operative", [True, False])
@pytest.mark.parametrize("place", PLACES)
def test_g_09_10_12_13_15_16_what_is_so_already_is_accepted(rig: Rigs, place: str, operative: bool) -> None:
    one = rig()
    change(one, place, operative)
    assert change(one, place, operative) == "Accepted"


@pytest.mark.parametrize("place", PLACES)
def test_g_11_14_17_a_transaction_ends_first(rig: Rigs, place: str) -> None:
    one = rig()
    one.charge()
    assert change(one, place, False) == "Scheduled"
    assert last_status(one) != "Unavailable"
    one.finish()
    one.until(lambda: last_status(one) == "Unavailable")


def soon(seconds: float) -> str:
    return (datetime.now(timezone.utc) + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def reserve(one: Rig, id: int = 1, seconds: float = 600, evse: int | None = 1, token: str = "DEADBEEF") -> str:
    payload: dict[str, Any] = {
        "id": id,
        "expiryDateTime": soon(seconds),
        "idToken": {"idToken": token, "type": "ISO14443"},
    }
    if evse is not None:
        payload["evseId"] = evse
    return str(one.call("ReserveNow", payload)["status"])


def test_h_01_a_reservation_is_for_its_token(rig: Rigs) -> None:
    one = rig()
    assert reserve(one) == "Accepted"
    one.until(lambda: last_status(one) == "Reserved")
    assert one.authorize(Token("STRANGER")).status == "NotAtThisTime"
    assert one.authorize().accepted


def test_h_02_a_reservation_is_cancelled_once(rig: Rigs) -> None:
    one = rig()
    reserve(one)
    assert one.call("CancelReservation", {"reservationId": 1}) == {"status": "Accepted"}
    assert one.call("CancelReservation", {"reservationId": 1}) == {"status": "Rejected"}
    one.until(lambda: last_status(one) == "Available")


def test_h_03_the_reserved_start_names_it(rig: Rigs) -> None:
    one = rig()
    reserve(one)
    one.read_meter(1.0)
    one.phase(Phase.POSITIONING, accepted=False)
    one.authorize()
    for phase in (Phase.POSITIONING, Phase.MATED, Phase.LINKING):
        one.phase(phase)
    assert started(one)["reservationId"] == 1


def test_h_04_a_reservation_lapses(rig: Rigs) -> None:
    one = rig()
    assert reserve(one, seconds=0.5) == "Accepted"
    assert one.came("ReservationStatusUpdate")[0] == {"reservationId": 1, "reservationUpdateStatus": "Expired"}


@pytest.mark.parametrize("how", ["fault", "availability"])
def test_h_a_reservation_that_cannot_be_served_is_removed(rig: Rigs, how: str) -> None:
    one = rig()
    reserve(one)
    if how == "fault":
        one.phase(Phase.FAULTED, fault=403)
    else:
        change(one, "EVSE", False)
    assert one.came("ReservationStatusUpdate")[0] == {"reservationId": 1, "reservationUpdateStatus": "Removed"}
    assert not one.service.station.reservations


@pytest.mark.parametrize(
    ("case", "status"),
    [("occupied", "Occupied"), ("unavailable", "Unavailable"), ("faulted", "Faulted"), ("past", "Rejected")],
)
def test_h_what_cannot_be_reserved_says_why(rig: Rigs, case: str, status: str) -> None:
    one = rig()
    if case == "occupied":
        one.phase(Phase.POSITIONING, accepted=False)
    elif case == "unavailable":
        change(one, "EVSE", False)
    elif case == "faulted":
        one.phase(Phase.FAULTED, fault=403)
    assert reserve(one, seconds=-5 if case == "past" else 600) == status


def test_h_any_evse_and_a_second_reservation(rig: Rigs) -> None:
    one = rig(evses=2)
    assert reserve(one, 1, evse=None) == "Accepted"
    assert reserve(one, 2, evse=None, token="OTHER") == "Accepted"
    assert reserve(one, 3, evse=None, token="THIRD") == "Occupied"
    assert reserve(one, 1, seconds=900) in ("Accepted", "Occupied")  # the same id takes its own place again


def test_p_01_vendor_data_of_a_stranger_is_not_known(rig: Rigs) -> None:
    assert rig().call("DataTransfer", {"vendorId": "somebody"})["status"] == "UnknownVendorId"


def test_p_03_custom_data_is_taken_and_left_alone(rig: Rigs) -> None:
    one = rig()
    custom = {"customData": {"vendorId": "somebody", "x": 1}}
    assert one.call("ClearCache", custom)["status"] == "Accepted"
    one.central.rules["Authorize"] = {"idTokenInfo": {"status": "Accepted", **custom}, **custom}
    assert one.authorize().accepted
