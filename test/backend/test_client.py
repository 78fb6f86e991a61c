"""The connection against the CSMS of the desk: boot, delivery, reconnect, and a CSMS that misbehaves."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest

from robot_charger.backend.client import Backoff
from robot_charger.backend.records import Request, Token
from robot_charger.common.faults import Code
from robot_charger.sim.csms.journal import read
from robot_charger.sim.csms.server import CallRefusedError
from robot_charger.words.values import Phase

from .conftest import SESSION, TAG, Live, wait_for

pytestmark = pytest.mark.integration

Make = Callable[..., Live]


def test_backoff_doubles_and_then_stays() -> None:
    backoff = Backoff(10.0, 5.0, 3, random.Random(1))
    waits = [backoff.next() for _ in range(7)]
    for wait, base in zip(waits, [10, 20, 40, 80, 80, 80, 80], strict=True):
        assert base <= wait <= base + 5
    assert len({w - int(w) for w in waits}) > 1  # the random part is random
    backoff.reset()
    assert 10 <= backoff.next() <= 15


def test_boot_status_and_a_session_in_the_books(live: Make) -> None:
    desk = live()
    desk.online()
    desk.begin(1000.0)
    desk.end(2500.0)
    desk.delivered()
    [entry] = desk.books()
    assert (entry.transaction_id, entry.session_id, entry.evse) == (SESSION, SESSION, 1)
    assert (entry.meter_start_wh, entry.meter_stop_wh, entry.stop_reason) == (1000.0, 2500.0, "StoppedByEV")
    assert (entry.missing, entry.doubled, entry.disordered, entry.offline) == (0, 0, 0, False)
    assert [b["reason"] for b in desk.received("BootNotification")] == ["PowerUp"]
    wait_for(lambda: [s["connectorStatus"] for s in desk.received("StatusNotification")][-1] == "Available")
    statuses = [s["connectorStatus"] for s in desk.received("StatusNotification")]
    assert statuses[-2:] == ["Occupied", "Available"]
    assert all(a != b for a, b in itertools.pairwise(statuses))


def test_unknown_and_blocked_tokens_are_refused(live: Make) -> None:
    desk = live()
    desk.online()
    assert desk.authorize(TAG).status == "Accepted"
    assert desk.authorize(Token("NOBODY")).status == "Invalid"
    assert desk.authorize(Token("BLOCKED01")).status == "Blocked"


def test_an_offline_session_is_delivered_later_in_order_without_a_second_boot(live: Make) -> None:
    desk = live()
    desk.online()
    assert desk.authorize().accepted  # known from now on
    desk.fault("csms-gone")
    wait_for(lambda: Code.BACKEND_OFFLINE in desk.faults)
    assert desk.service.station.online is False
    desk.begin(100.0)
    desk.end(400.0)
    assert desk.service.station.queued >= 3
    desk.fault("csms-gone", on=False)
    desk.delivered()
    [entry] = desk.books()
    assert (entry.meter_start_wh, entry.meter_stop_wh, entry.offline) == (100.0, 400.0, True)
    assert (entry.missing, entry.doubled, entry.disordered) == (0, 0, 0)
    wait_for(lambda: Code.BACKEND_OFFLINE not in desk.faults)
    assert len(desk.received("BootNotification")) == 1


def test_the_queue_outlives_the_process(live: Make) -> None:
    desk = live()
    desk.online()
    desk.fault("csms-gone")
    wait_for(lambda: not desk.service.station.online)
    desk.authorize()
    desk.begin(100.0)
    desk.service.stop()
    desk.fault("csms-gone", on=False)
    desk.open()
    desk.online()
    desk.meter(150.0)
    desk.session(Phase.IDLE)
    desk.delivered()
    wait_for(lambda: desk.books() and desk.books()[0].ended)
    [entry] = desk.books()
    assert (entry.meter_start_wh, entry.meter_stop_wh, entry.stop_reason) == (100.0, 150.0, "Reboot")
    assert (entry.missing, entry.doubled, entry.disordered) == (0, 0, 0)


def test_offline_policy(live: Make) -> None:
    desk = live()
    desk.online()
    desk.authorize()
    desk.authorize(Token("BLOCKED01"))
    desk.fault("csms-gone")
    wait_for(lambda: not desk.service.station.online)
    assert desk.authorize(Token("DeadBeef")).status == "Accepted"  # cached, without case
    assert desk.authorize(Token("BLOCKED01")).status == "Blocked"
    assert desk.authorize(Token("NEVER-SEEN")).status == "Unknown"


def test_a_csms_that_does_not_answer_authorize_falls_to_the_offline_policy(live: Make) -> None:
    desk = live(authorize__timeout_s=0.2, authorize__offline="all")
    desk.online()
    desk.fault("drop")
    assert desk.authorize(Token("NEVER-SEEN")).status == "Accepted"
    desk.fault("drop", on=False)


def test_a_dead_peer_is_noticed_by_its_missing_pong(live: Make) -> None:
    """EVerest 1808: a pong time-out must reconnect."""
    desk = live(noted={"ping_s": 0.2})
    desk.online()
    desk.fault("no-pong")
    wait_for(lambda: [f for f in desk.seen if f.code == Code.BACKEND_OFFLINE and f.active], what="a reconnect")
    desk.fault("no-pong", on=False)
    desk.online()
    assert desk.authorize(TAG).accepted
    assert len(desk.received("BootNotification")) == 1


def test_boot_pending_then_accepted(live: Make) -> None:
    desk = live(csms={})
    desk.service.stop()
    desk.fault("boot-pending")
    desk.open()
    wait_for(lambda: desk.service.client.registration == "Pending")
    start = {"evseId": 1, "remoteStartId": 1, "idToken": {"idToken": "A", "type": "Central"}}
    assert desk.call("RequestStartTransaction", start) == {"status": "Rejected"}
    variable = {"component": {"name": "OCPPCommCtrlr"}, "variable": {"name": "HeartbeatInterval"}}
    assert (
        desk.call("GetVariables", {"getVariableData": [variable]})["getVariableResult"][0]["attributeStatus"]
        == "Accepted"
    )
    assert not desk.received("TransactionEvent") and not desk.service.station.online
    desk.fault("boot-pending", on=False)
    desk.online()


def test_boot_rejected_is_a_fault_and_asked_again(live: Make) -> None:
    desk = live()
    desk.service.stop()
    desk.fault("boot-rejected")
    desk.open()
    wait_for(lambda: Code.BACKEND_REFUSED in desk.faults)
    desk.fault("boot-rejected", on=False)
    desk.online()
    wait_for(lambda: Code.BACKEND_REFUSED not in desk.faults)


def test_a_refused_message_does_not_stop_the_others(live: Make) -> None:
    desk = live()
    desk.online()
    desk.authorize()
    desk.fault("callerror", action="TransactionEvent")
    desk.begin(10.0)
    wait_for(lambda: desk.service.store.queued == 0)
    assert desk.service.store.refused()
    desk.fault("callerror", on=False)
    desk.end(20.0)
    desk.delivered()
    wait_for(lambda: desk.books() and desk.books()[0].ended)


def test_whatever_ends_a_connection_there_is_a_next_one(live: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = live()
    desk.online()
    ends: list[str] = []

    def fail(network: Any) -> None:
        if not ends:
            ends.append("once")
            raise RuntimeError("a thing nobody thought of")

    monkeypatch.setattr(desk.service.client, "on_accepted", fail)
    desk.fault("csms-gone")
    wait_for(lambda: not desk.service.client.connected)
    desk.fault("csms-gone", on=False)
    wait_for(lambda: ends and desk.service.station.online, what="a connection after the failed one")
    assert any("nobody thought of" in f.text for f in desk.seen if f.code == Code.BACKEND_OFFLINE)


@pytest.mark.parametrize("fault", ["garbage", "out-of-order", "huge"])
def test_nonsense_from_the_csms_is_survived(live: Make, fault: str) -> None:
    desk = live()
    desk.online()
    desk.fault(fault)
    desk.begin(1000.0)
    desk.end(2500.0)
    desk.delivered()
    desk.fault(fault, on=False)
    wait_for(lambda: desk.books()[0].ended)
    [entry] = desk.books()
    assert (entry.energy_wh, entry.missing, entry.doubled) == (1500.0, 0, 0)
    if fault == "garbage":
        assert desk.service.client.bad_messages > 0


def test_answers_of_the_wrong_type_are_refused_and_survived(live: Make) -> None:
    desk = live()
    desk.online()
    desk.fault("wrong-types")
    assert desk.authorize(TAG).status == "Invalid"
    desk.fault("wrong-types", on=False)
    assert desk.authorize(TAG).status == "Accepted"


def test_a_delayed_csms_gets_one_call_at_a_time(live: Make) -> None:
    desk = live()
    desk.online()
    desk.authorize()
    desk.fault("delay", seconds=0.05)
    desk.begin(10.0)
    desk.end(20.0)
    desk.delivered()
    open_calls = 0
    for line in read(desk.csms_store):
        frame = line.frame()
        assert frame
        if line.direction == "in" and frame[0] == 2:
            open_calls += 1
        if line.direction == "out" and frame[0] == 3:
            open_calls -= 1
        assert 0 <= open_calls <= 1


# What the CSMS asks for.
def test_remote_start_and_stop(live: Make) -> None:
    desk = live()
    desk.online()
    desk.session(Phase.IDLE)
    answer = desk.call(
        "RequestStartTransaction",
        {"evseId": 1, "remoteStartId": 9, "idToken": {"idToken": "REMOTE", "type": "Central"}},
    )
    assert answer["status"] == "Accepted"
    desk.session(Phase.POSITIONING, accepted=False)
    request = desk.requests[-1]
    assert (request.kind, request.token) == (Request.START, Token("REMOTE", "Central"))
    desk.meter(5.0)
    desk.session(Phase.POSITIONING)
    desk.session(Phase.LINKING)
    desk.session(Phase.CHARGING)
    desk.delivered()
    assert desk.call("RequestStopTransaction", {"transactionId": "other"})["status"] == "Rejected"
    assert desk.call("RequestStopTransaction", {"transactionId": SESSION})["status"] == "Accepted"
    assert (desk.requests[-1].kind, desk.requests[-1].session_id) == (Request.STOP, SESSION)
    desk.end(50.0, reason="")
    desk.delivered()
    wait_for(lambda: desk.books() and desk.books()[0].ended)
    [entry] = desk.books()
    assert (entry.remote_start_id, entry.stop_reason, entry.id_token) == (9, "Remote", "REMOTE")


def test_a_token_the_csms_takes_back_stops_the_session(live: Make) -> None:
    desk = live()
    desk.online()
    desk.authorize()
    desk.csms.tokens[TAG.key] = "Blocked"
    desk.begin(1.0)
    wait_for(lambda: [r for r in desk.requests if r.kind == Request.STOP])
    desk.end(2.0, reason="")
    wait_for(lambda: desk.books() and desk.books()[0].ended)
    assert desk.books()[0].stop_reason == "DeAuthorized"


def test_variables(live: Make) -> None:
    desk = live()
    desk.online()

    def data(component: str, variable: str, **more: str) -> dict[str, Any]:
        return {"component": {"name": component}, "variable": {"name": variable}, **more}

    results = desk.call(
        "SetVariables",
        {
            "setVariableData": [
                data("SampledDataCtrlr", "TxUpdatedInterval", attributeValue="30"),
                data("SampledDataCtrlr", "TxUpdatedInterval", attributeValue="soon"),
                data("SecurityCtrlr", "Identity", attributeValue="me"),
                data("Nowhere", "X", attributeValue="1"),
                data("TxCtrlr", "X", attributeValue="1"),
            ]
        },
    )["setVariableResult"]
    assert [r["attributeStatus"] for r in results] == [
        "Accepted",
        "Rejected",
        "Rejected",
        "UnknownComponent",
        "UnknownVariable",
    ]
    desk.service.stop()
    desk.open()
    desk.online()
    results = desk.call(
        "GetVariables",
        {
            "getVariableData": [
                data("SampledDataCtrlr", "TxUpdatedInterval"),
                data("SecurityCtrlr", "BasicAuthPassword"),
            ]
        },
    )
    found = results["getVariableResult"]
    assert found[0]["attributeValue"] == "30"  # kept over the restart
    assert found[1]["attributeStatus"] == "Rejected" and "attributeValue" not in found[1]


def test_trigger_reset_unlock_availability(live: Make) -> None:
    desk = live()
    desk.online()
    desk.session(Phase.IDLE)
    assert desk.call("TriggerMessage", {"requestedMessage": "Heartbeat"})["status"] == "Accepted"
    wait_for(lambda: desk.received("Heartbeat"))
    assert desk.call("TriggerMessage", {"requestedMessage": "BootNotification"})["status"] == "Rejected"  # F06.FR.17
    assert desk.call("UnlockConnector", {"evseId": 1, "connectorId": 1})["status"] == "Unlocked"
    assert desk.requests[-1].kind == Request.UNLOCK
    assert desk.call("UnlockConnector", {"evseId": 7, "connectorId": 1})["status"] == "UnknownConnector"
    off = {"operationalStatus": "Inoperative", "evse": {"id": 1}}
    assert desk.call("ChangeAvailability", off)["status"] == "Accepted"
    assert desk.requests[-1].kind == Request.UNAVAILABLE
    wait_for(lambda: desk.received("StatusNotification")[-1]["connectorStatus"] == "Unavailable")
    assert desk.call("ChangeAvailability", {"operationalStatus": "Operative"})["status"] == "Accepted"
    assert desk.call("Reset", {"type": "Immediate"})["status"] == "Accepted"
    wait_for(lambda: len(desk.received("BootNotification")) == 2)
    assert desk.received("BootNotification")[1]["reason"] == "RemoteReset"
    with pytest.raises(CallRefusedError, match=r"NotImplemented|NotSupported"):
        desk.call("UnpublishFirmware", {"checksum": "x"})


def test_an_unavailable_evse_stays_so_after_a_restart(live: Make) -> None:
    """What the CSMS switched off stays off (EVerest's complaint: forgotten at start)."""
    desk = live()
    desk.online()
    desk.session(Phase.IDLE)
    desk.call("ChangeAvailability", {"operationalStatus": "Inoperative"})
    desk.service.stop()
    desk.requests.clear()
    desk.open()
    desk.online()
    desk.session(Phase.IDLE)
    wait_for(lambda: [r for r in desk.requests if r.kind == Request.UNAVAILABLE])
    wait_for(lambda: desk.received("StatusNotification")[-1]["connectorStatus"] == "Unavailable")
