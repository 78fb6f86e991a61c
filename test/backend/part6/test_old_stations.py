"""OCPP 1.6: what EVerest's tests and the field expect beside the common things."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from .central import CallFailedError, Error
from .conftest import SESSION, Rig, Rigs
from .test_odd_answers import FAST


def config(one: Rig, key: str) -> str:
    [found] = one.call("GetConfiguration", {"key": [key]})["configurationKey"]
    return str(found["value"])


@pytest.mark.parametrize("kind", ["Hard", "Soft"])
@pytest.mark.parametrize("busy", [False, True])
def test_a_reset_has_its_reason_and_announces_0_and_1(rig: Rigs, kind: str, busy: bool) -> None:
    one = rig("1.6")
    if busy:
        one.charge()
        one.delivered()
    assert one.call("Reset", {"type": kind}) == {"status": "Accepted"}
    if busy:
        one.finish(reason="")
        assert one.came("StopTransaction")[0]["reason"] == f"{kind}Reset"
    one.came("BootNotification", 2)

    def announced() -> set[int]:
        last = len(one.central.actions()) - 1 - one.central.actions()[::-1].index("BootNotification")
        return {m.payload["connectorId"] for m in one.central.messages[last:] if m.action == "StatusNotification"}

    one.until(lambda: announced() == {0, 1})


def test_a_start_that_is_refused_and_then_taken_is_one_transaction(rig: Rigs) -> None:
    good = {"transactionId": 5, "idTagInfo": {"status": "Accepted"}}
    rules = {"StartTransaction": [Error()] * 4 + [good]}
    one = rig("1.6", rules=rules, noted={**FAST, "attempts": 6})
    one.charge()
    one.finish()
    assert one.came("StopTransaction")[0]["transactionId"] == 5
    assert len({m.id for m in one.central.messages if m.action == "StartTransaction"}) == 1


def test_a_start_that_is_set_aside_keeps_the_stop_back(rig: Rigs) -> None:
    one = rig("1.6", rules={"StartTransaction": Error()}, noted=FAST)
    one.charge()
    one.finish()
    one.until(lambda: one.service.store.aside == 1)
    other = f"{SESSION[:-1]}9"
    one.central.rules["StartTransaction"] = {"transactionId": 8}
    one.charge(session_id=other)
    one.finish(session_id=other)
    assert one.came("StopTransaction")[0]["transactionId"] == 8  # the other's bill does not wait
    one.do(one.service.store.recall)
    one.central.rules["StartTransaction"] = {"transactionId": 9}
    one.service.post(one.service.client.wake)
    one.until(lambda: [p for p in one.of("StopTransaction") if p["transactionId"] == 9])
    assert -1 not in [p["transactionId"] for p in one.of("StopTransaction")]


def test_an_unlock_ends_what_runs_and_says_so(rig: Rigs) -> None:
    one = rig("1.6")
    one.charge()
    one.delivered()
    assert one.call("UnlockConnector", {"connectorId": 1})["status"] == "Unlocked"
    one.finish(reason="")
    assert one.came("StopTransaction")[0]["reason"] == "UnlockCommand"


def test_a_list_that_is_switched_off_is_not_supported(rig: Rigs) -> None:
    one = rig("1.6")
    assert one.configure("LocalAuthListEnabled", "false") == "Accepted"
    assert one.call("SendLocalList", {"listVersion": 1, "updateType": "Full"}) == {"status": "NotSupported"}


def test_an_empty_list_has_version_0(rig: Rigs) -> None:
    one = rig("1.6")
    assert one.call("SendLocalList", {"listVersion": 3, "updateType": "Full"}) == {"status": "Accepted"}
    assert one.call("GetLocalListVersion") == {"listVersion": 0}


def test_configuration_has_the_words_of_1_6(rig: Rigs) -> None:
    one = rig("1.6")
    assert config(one, "ChargingScheduleAllowedChargingRateUnit") == "Current,Power"
    assert int(config(one, "MaxChargingProfilesInstalled")) >= 10
    assert config(one, "StopTxnAlignedData")
    assert one.configure("StopTxnAlignedData", "Voltage") == "Accepted"
    assert one.configure("NoSuchKey", 1) == "NotSupported"
    assert one.configure("NumberOfConnectors", 5) == "Rejected"


@pytest.mark.parametrize("payload", [{"key": "A"}, {"key": "K" * 60, "value": "0"}, {"key": 7, "value": "0"}])
def test_a_broken_request_is_refused_in_words_of_1_6(rig: Rigs, payload: dict[str, Any]) -> None:
    one = rig("1.6")
    with pytest.raises(CallFailedError) as caught:
        one.call("ChangeConfiguration", payload)
    assert caught.value.code in (
        "FormationViolation",
        "TypeConstraintViolation",
        "PropertyConstraintViolation",
        "OccurenceConstraintViolation",
    )


@pytest.mark.parametrize(
    ("sent", "password"),
    [
        ("4f43415f4f4354545f61646d696e5f74657374", b"OCA_OCTT_admin_test"),
        ("00ff" * 9, bytes.fromhex("00ff" * 9)),
        ("a plain password!", b"a plain password!"),
    ],
)
def test_an_authorization_key_is_hexadecimal(rig: Rigs, sent: str, password: bytes) -> None:
    one = rig("1.6", security_profile=0)
    seen: list[bytes] = []
    original = one.service.networks.ways

    def ways() -> list[Any]:
        found = original()
        seen.extend(n.password.encode("utf-8", "surrogateescape") for n in found)
        return found

    one.service.client._networks = ways
    assert one.configure("AuthorizationKey", sent) == "Accepted"
    one.until(lambda: one.central.connections >= 2)
    one.until(lambda: password in seen)
    assert base64.b64encode(password)
