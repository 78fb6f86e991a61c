"""No answer or silence of a central system stops a bill: every message type silent, refused, closed, malformed."""

from __future__ import annotations

from typing import Any

import pytest

from robot_charger.backend import outbox

from .central import Close, Error, Late, Raw, Silent
from .conftest import SESSION, Rig, Rigs

BOTH = ("1.6", "2.0.1", "2.1")
FAST = {"message_timeout_s": 0.15, "attempts": 2, "attempt_interval_s": 0}

ODD: dict[str, Any] = {
    "silent": Silent,
    "callerror": Error("InternalError"),
    "closed": Close(1011),
    "no json": Raw("this is no OCPP"),
    "no payload": Raw('[3,"{id}"]'),
    "a list": Raw('[3,"{id}",[]]'),
    "null": Raw('[3,"{id}",null]'),
    "empty": {},
    "of numbers": {
        "status": 7,
        "idTagInfo": 5,
        "idTokenInfo": [],
        "transactionId": "x",
        "currentTime": 1,
        "interval": {},
    },
    "nulls": {"status": None, "idTagInfo": None, "idTokenInfo": None, "statusInfo": None, "currentTime": None},
    "unknown words": {
        "status": "Perhaps",
        "idTagInfo": {"status": "Perhaps"},
        "idTokenInfo": {"status": "Perhaps"},
        "currentTime": "soon",
        "interval": -1,
        "surplus": True,
    },
}
BESIDE = ("StatusNotification", "Heartbeat", "DataTransfer", "SecurityEventNotification", "NotifyEvent", "MeterValues")


def charge_and_bill(one: Rig) -> None:
    one.charge()
    one.finish()
    one.until(lambda: one.bills(), f"the bill; came {one.central.actions()}")
    assert one.bills()[0][1:] == (1000.0, 2000.0)


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("version", ["1.6", "2.0.1"])
def test_what_goes_beside_a_transaction_never_stops_its_bill(rig: Rigs, version: str, odd: str) -> None:
    rules = dict.fromkeys(BESIDE, ODD[odd])
    one = rig(version, rules=rules, noted={**FAST, "heartbeat_s": 1, "aligned_s": 1})
    one.do(one.service.maintenance.security_event, "SettingSystemTime", "x")
    charge_and_bill(one)


@pytest.mark.parametrize("odd", ODD)
def test_an_update_that_gets_no_good_answer_never_stops_the_end(rig: Rigs, odd: str) -> None:
    def answer(payload: dict[str, Any]) -> Any:
        return ODD[odd] if payload["eventType"] == "Updated" else {}

    one = rig(rules={"TransactionEvent": answer}, noted=FAST)
    charge_and_bill(one)


@pytest.mark.parametrize("odd", ODD)
def test_a_start_of_2_x_that_gets_no_good_answer_never_stops_the_end(rig: Rigs, odd: str) -> None:
    def answer(payload: dict[str, Any]) -> Any:
        return ODD[odd] if payload["eventType"] == "Started" else {}

    one = rig(rules={"TransactionEvent": answer}, noted=FAST)
    charge_and_bill(one)


@pytest.mark.parametrize("odd", ODD)
def test_a_start_of_1_6_keeps_its_end_until_it_has_a_number(
    rig: Rigs, odd: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "BEHIND_S", 0.1)
    good = {"transactionId": 7, "idTagInfo": {"status": "Accepted"}}
    rules = {"StartTransaction": [*[ODD[odd]] * (2 if odd == "closed" else 3), good]}
    one = rig("1.6", rules=rules, noted={**FAST, "attempts": 5})
    one.charge()
    one.finish()
    stop = one.came("StopTransaction")[0]
    assert stop["transactionId"] == 7


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("version", ["1.6", "2.0.1"])
def test_an_end_that_got_no_good_answer_is_not_given_up(
    rig: Rigs, version: str, odd: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "BEHIND_S", 0.1)
    action = "StopTransaction" if version == "1.6" else "TransactionEvent"

    def answer(payload: dict[str, Any]) -> Any:
        return ODD[odd] if payload.get("eventType", "Ended") == "Ended" else {}

    one = rig(version, rules={action: answer}, noted=FAST)
    one.charge()
    one.finish()
    one.until(lambda: one.service.store.aside == 1 or one.service.station.queued == 0)
    if one.service.store.aside:
        one.central.rules[action] = {}
        before = len(one.of(action))
        one.do(one.service.store.recall)
        one.service.post(one.service.client.wake)
        one.until(lambda: len(one.of(action)) > before and one.service.station.queued == 0)
    assert not one.service.store.aside


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("version", ["1.6", "2.0.1"])
def test_a_boot_that_gets_no_good_answer_is_asked_again_soon(rig: Rigs, version: str, odd: str) -> None:
    good = {"currentTime": "2026-11-28T14:00:00.1234567Z", "interval": 300, "status": "Accepted", "statusInfo": None}
    one = rig(version, online=False, rules={"BootNotification": [ODD[odd], good]}, noted=FAST)
    one.online()
    assert len(one.of("BootNotification")) == 2


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("version", BOTH)
def test_an_odd_answer_never_accepts_a_token(rig: Rigs, version: str, odd: str) -> None:
    one = rig(version, rules={"Authorize": ODD[odd]}, noted=FAST, authorize__timeout_s=2.0)
    assert not one.authorize().accepted


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ({"status": "Accepted", "transactionId": 7, "idTagInfo": {"status": "Accepted"}}, 7),
        ({"transactionId": 7.0, "idTagInfo": {"status": "Accepted"}}, 7),
        ({"transactionId": "7", "idTagInfo": {"status": "Accepted", "parentIdTag": None}}, 7),
        ({"transactionId": 0}, 0),
        ({"transactionId": -1, "idTagInfo": {"status": "Accepted", "expiryDate": "never"}}, -1),
        ({"transactionId": 1099511627776, "idTagInfo": None}, 1099511627776),
        (Late(0.3, {"transactionId": 9}), 9),
    ],
)
def test_an_answer_is_an_answer(rig: Rigs, answer: Any, number: int) -> None:
    one = rig("1.6", rules={"StartTransaction": answer}, noted={**FAST, "message_timeout_s": 1})
    charge_and_bill(one)
    assert one.of("StopTransaction")[0]["transactionId"] == number
    assert len(one.of("StartTransaction")) == 1


@pytest.mark.parametrize("version", ["1.6", "2.0.1"])
def test_a_late_answer_counts(rig: Rigs, version: str) -> None:
    """A server slower than the time-out: what it took is not sent for ever."""
    action = "StartTransaction" if version == "1.6" else "TransactionEvent"
    good = {"transactionId": 4} if version == "1.6" else {}
    noted = {**FAST, "attempt_interval_s": 30, "attempts": 5}
    one = rig(version, rules={action: Late(0.5, good)}, noted=noted)
    charge_and_bill(one)
    ids = [m.id for m in one.central.messages if m.action == action]
    assert len(ids) == len(set(ids))


def test_a_silent_action_is_asked_less_and_less(rig: Rigs) -> None:
    one = rig("1.6", rules={"DataTransfer": Silent}, noted=FAST)
    for number in range(3):
        one.charge(session_id=f"{SESSION[:-1]}{number}")
        one.finish(session_id=f"{SESSION[:-1]}{number}")
    one.until(lambda: len(one.of("StopTransaction")) == 3)
    assert len(one.of("DataTransfer")) <= 4
    assert one.central.connections == 1  # no single answer is worth the connection
