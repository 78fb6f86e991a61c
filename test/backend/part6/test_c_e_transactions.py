"""Part 6, blocks C and E: authorisation, and when a transaction starts and ends."""

from __future__ import annotations

from typing import Any

import pytest

from robot_charger.backend.records import Request, Token
from robot_charger.words.values import Phase

from .central import Error, Silent
from .conftest import SESSION, TAG, Rig, Rigs
from .test_odd_answers import FAST


def events(one: Rig, kind: str = "") -> list[dict[str, Any]]:
    return [p for p in one.of("TransactionEvent") if kind in ("", p["eventType"])]


def started(one: Rig) -> dict[str, Any]:
    one.until(lambda: events(one, "Started"), f"a start; came {one.central.actions()}")
    return events(one, "Started")[0]


def ended(one: Rig) -> dict[str, Any]:
    one.until(lambda: events(one, "Ended"), "an end")
    return events(one, "Ended")[0]


def tokens(status: str, **info: Any) -> dict[str, Any]:
    return {"idTokenInfo": {"status": status, **info}}


def card(one: Rig, token: Token = TAG, evse: int = 1) -> None:
    one.service.post(one.service.shown, token, evse, False)


@pytest.mark.parametrize(
    ("id", "status"), [("C_02", "Invalid"), ("C_06", "Blocked"), ("C_07", "Expired"), ("C_56", "Unknown")]
)
def test_c_02_06_07_56_a_refused_token_starts_nothing(rig: Rigs, id: str, status: str) -> None:
    one = rig(rules={"Authorize": tokens(status)})
    assert one.authorize().status == status
    assert not events(one)


def test_c_04_another_card_stops_nothing(rig: Rigs) -> None:
    one = rig()
    one.charge()
    started(one)
    one.central.rules["Authorize"] = tokens("Accepted")
    card(one, Token("OTHER"))
    one.came("Authorize")
    one.call("TriggerMessage", {"requestedMessage": "Heartbeat"})
    one.came("Heartbeat")
    assert not [r for r in one.requests if r.kind == Request.STOP]


@pytest.mark.parametrize("id", ["C_08", "C_32", "C_33"])
def test_c_08_32_33_the_cache_answers_while_the_csms_is_away_also_after_a_restart(rig: Rigs, id: str) -> None:
    one = rig()
    assert one.authorize().accepted
    one.central.go()
    one.until(lambda: not one.service.client.connected)
    if id == "C_32":
        one.service.stop()
        one.open()
    assert one.authorize().accepted


@pytest.mark.parametrize(
    ("id", "status"), [("C_09", "Invalid"), ("C_10", "Blocked"), ("C_11", "Expired"), ("C_44", "Invalid")]
)
def test_c_09_10_11_44_the_cache_knows_refused_tokens_too(rig: Rigs, id: str, status: str) -> None:
    one = rig(rules={"Authorize": tokens(status)})
    one.authorize()
    one.central.go()
    one.until(lambda: not one.service.client.connected)
    assert one.authorize().status == status


def test_c_12_a_token_that_became_good_is_asked_about(rig: Rigs) -> None:
    one = rig(rules={"Authorize": tokens("Invalid")}, noted={"local_pre_authorize": True})
    assert one.authorize().status == "Invalid"
    one.central.rules["Authorize"] = tokens("Accepted")
    assert one.authorize().accepted


def test_c_13_36_46_the_cache_is_used_where_local_pre_authorize_says_so(rig: Rigs) -> None:
    one = rig(noted={"local_pre_authorize": True})
    assert one.authorize().accepted and one.authorize().accepted
    assert len(one.of("Authorize")) == 1
    assert one.set("AuthCtrlr", "LocalPreAuthorize", "false") == "Accepted"
    assert one.authorize().accepted
    assert len(one.of("Authorize")) == 2
    assert one.set("AuthCacheCtrlr", "LifeTime", 1000) == "Accepted"


def test_c_16_a_token_taken_back_ends_the_transaction(rig: Rigs) -> None:
    one = rig(rules={"TransactionEvent": tokens("Invalid")})
    one.charge()
    one.until(lambda: [r for r in one.requests if r.kind == Request.STOP])
    one.finish(reason="")
    end = ended(one)
    assert end["triggerReason"] == "Deauthorized"
    assert end["transactionInfo"]["stoppedReason"] == "DeAuthorized"


def test_c_17_a_token_taken_back_stops_the_energy_only(rig: Rigs) -> None:
    one = rig(rules={"TransactionEvent": tokens("Invalid")})
    assert one.set("TxCtrlr", "StopTxOnInvalidId", "false") == "Accepted"
    one.charge()
    one.until(lambda: one.limits and one.limits[-1][1].max_power_w == 0.0)
    one.until(lambda: events(one)[-1]["transactionInfo"].get("chargingState") == "SuspendedEVSE")
    assert not events(one, "Ended") and not [r for r in one.requests if r.kind == Request.STOP]
    one.finish()
    one.until(lambda: one.limits[-1][1].max_power_w > 0.0)


def test_c_26_an_unknown_card_starts_nothing_offline_unless_allowed(rig: Rigs) -> None:
    one = rig()
    one.central.go()
    one.until(lambda: not one.service.client.connected)
    assert one.authorize(Token("NEVER-SEEN")).status == "Unknown"
    one.do(one.service.settings.note, "offline_unknown", True)
    assert one.authorize(Token("NEVER-SEEN")).accepted


def test_c_34_the_answer_to_a_transaction_renews_the_cache(rig: Rigs) -> None:
    one = rig(rules={"TransactionEvent": tokens("Blocked")})
    one.authorize()
    one.charge()
    started(one)
    one.until(lambda: "Blocked" in one.service.station.tokens.about(TAG.id))


@pytest.mark.parametrize(("enabled", "status"), [(True, "Accepted"), (False, "Rejected")])
def test_c_37_38_the_cache_is_cleared(rig: Rigs, enabled: bool, status: str) -> None:
    one = rig(noted={"cache_enabled": enabled})
    one.authorize()
    assert one.call("ClearCache") == {"status": status}
    if enabled:
        one.central.go()
        one.until(lambda: not one.service.client.connected)
        assert one.authorize().status == "Unknown"


@pytest.mark.parametrize(("group", "stops"), [("G", True), ("OTHER", False)])
def test_c_39_41_42_a_card_of_the_same_group_stops(rig: Rigs, group: str, stops: bool) -> None:
    mine = tokens("Accepted", groupIdToken={"idToken": "G", "type": "Central"})
    one = rig(rules={"TransactionEvent": mine})
    one.charge()
    started(one)
    one.until(lambda: one.service.station.evses[1].open.group_id == "G")  # type: ignore[union-attr]
    one.central.rules["Authorize"] = tokens("Accepted", groupIdToken={"idToken": group, "type": "Central"})
    card(one, Token("OTHER"))
    one.came("Authorize")
    if stops:
        one.until(lambda: [r for r in one.requests if r.kind == Request.STOP])
    one.call("TriggerMessage", {"requestedMessage": "Heartbeat"})
    one.came("Heartbeat")
    assert bool([r for r in one.requests if r.kind == Request.STOP]) == stops


def test_c_45_47_49_a_master_pass_stops_all_and_starts_nothing(rig: Rigs) -> None:
    master = tokens("Accepted", groupIdToken={"idToken": "MASTER", "type": "Central"})
    one = rig(evses=2, rules={"Authorize": master}, authorize__master_pass="MASTER")
    assert not one.authorize(Token("BOSS")).accepted
    one.charge()
    one.charge(2, f"{SESSION[:-1]}2")
    one.until(lambda: len(events(one, "Started")) == 2)
    card(one, Token("BOSS"), 0)
    one.until(lambda: len([r for r in one.requests if r.kind == Request.STOP]) == 2)
    one.finish(reason="")
    assert ended(one)["transactionInfo"]["stoppedReason"] == "MasterPass"


# When a transaction starts.
def walk(one: Rig, authorised_first: bool) -> None:
    """From parking to energy; the card before or after the plug."""
    one.read_meter(1000.0)
    one.phase(Phase.POSITIONING, accepted=False)
    if not authorised_first:
        one.phase(Phase.MATED, accepted=False)
    one.authorize()
    one.phase(Phase.MATED if not authorised_first else Phase.POSITIONING)
    one.phase(Phase.MATED)
    one.phase(Phase.LINKING)
    one.phase(Phase.CHARGING)


@pytest.mark.parametrize(
    ("id", "point", "card_first", "trigger", "state"),
    [
        ("E_01", "PowerPathClosed", False, "Authorized", "EVConnected"),
        ("E_03", "PowerPathClosed", False, "Authorized", "EVConnected"),
        ("E_04", "PowerPathClosed", True, "CablePluggedIn", "EVConnected"),
        ("E_02", "EnergyTransfer", True, "ChargingStateChanged", "Charging"),
        ("E_02 plug first", "EnergyTransfer", False, "ChargingStateChanged", "Charging"),
        ("E_09", "EVConnected", False, "CablePluggedIn", "EVConnected"),
        ("E_09 card first", "EVConnected", True, "CablePluggedIn", "EVConnected"),
        ("E_10", "Authorized", True, "Authorized", "Idle"),
        ("E_10 plug first", "Authorized", False, "Authorized", "EVConnected"),
        ("E_12", "ParkingBayOccupancy", True, "EVDetected", "Idle"),
    ],
)
def test_e_01_to_12_the_start_has_the_reason_of_its_point(
    rig: Rigs, id: str, point: str, card_first: bool, trigger: str, state: str
) -> None:
    one = rig()
    assert one.set("TxCtrlr", "TxStartPoint", point) == "Accepted"
    walk(one, card_first)
    start = started(one)
    assert (start["triggerReason"], start["transactionInfo"]["chargingState"]) == (trigger, state)
    assert start["seqNo"] == 0


def test_e_13_a_remote_start_has_its_id(rig: Rigs) -> None:
    one = rig()
    one.set("TxCtrlr", "TxStartPoint", "Authorized")
    start = {"evseId": 1, "remoteStartId": 77, "idToken": {"idToken": "REMOTE", "type": "Central"}}
    assert one.call("RequestStartTransaction", start)["status"] == "Accepted"
    one.read_meter(1.0)
    one.phase(Phase.POSITIONING, accepted=False)
    one.phase(Phase.POSITIONING)
    event = started(one)
    assert event["triggerReason"] == "RemoteStart" and event["transactionInfo"]["remoteStartId"] == 77


@pytest.mark.parametrize("id", ["E_05", "E_39", "F_04"])
def test_e_05_39_f_04_no_vehicle_in_time_ends_it(rig: Rigs, id: str) -> None:
    one = rig()
    one.set("TxCtrlr", "TxStartPoint", "Authorized")
    one.set("TxCtrlr", "TxStopPoint", "Authorized")
    assert one.set("TxCtrlr", "EVConnectionTimeOut", 1) == "Accepted"
    one.read_meter(1000.0)
    one.phase(Phase.POSITIONING, accepted=False)
    one.authorize()
    one.phase(Phase.POSITIONING)
    end = ended(one)
    assert end["triggerReason"] == "EVConnectTimeout"
    assert end["transactionInfo"]["stoppedReason"] == "Timeout"
    assert [r for r in one.requests if r.kind == Request.STOP]  # the vehicle's side learns of it


@pytest.mark.parametrize("id", ["E_06", "E_07", "E_15"])
def test_e_06_07_15_the_same_card_stops_it(rig: Rigs, id: str) -> None:
    one = rig()
    if id == "E_15":
        one.set("TxCtrlr", "TxStopPoint", "Authorized")
    one.charge()
    started(one)
    card(one)
    one.until(lambda: [r for r in one.requests if r.kind == Request.STOP])
    one.finish(reason="")
    end = ended(one)
    assert end["triggerReason"] == "StopAuthorized"
    assert end["transactionInfo"]["stoppedReason"] == "Local"
    assert end["idToken"]["idToken"] == TAG.id


@pytest.mark.parametrize(
    ("id", "point", "reason", "told"),
    [
        ("E_08", "EnergyTransfer", "Local", "Local"),
        ("E_14", "EVConnected", "Local", "Local"),
        ("E_16", "Authorized", "DeAuthorized", "DeAuthorized"),
        ("E_17", "Authorized", "EVDisconnected", "EVDisconnected"),
        ("E_19", "ParkingBayOccupancy", "Local", "Local"),
        ("E_20", "EVConnected", "EVDisconnected", "EVDisconnected"),
        ("E_22", "EnergyTransfer", "StoppedByEV", "StoppedByEV"),
        ("E_24", "PowerPathClosed", "EVDisconnected", "EVDisconnected"),
        ("E_25", "PowerPathClosed", "EVDisconnected", "EVDisconnected"),
        ("E_37", "PowerPathClosed", "EVDisconnected", "EVDisconnected"),
        ("E_54", "EVConnected", "EVDisconnected", "EVDisconnected"),
    ],
)
def test_e_08_to_54_the_end_follows_its_point(rig: Rigs, id: str, point: str, reason: str, told: str) -> None:
    one = rig()
    assert one.set("TxCtrlr", "TxStopPoint", point) == "Accepted"
    one.charge()
    started(one)
    one.finish(reason=reason)
    end = ended(one)
    assert end["transactionInfo"]["stoppedReason"] == told
    numbers = [p["seqNo"] for p in events(one)]
    assert numbers == list(range(len(numbers)))


@pytest.mark.parametrize("id", ["E_21", "E_35", "F_08"])
def test_e_21_35_f_08_a_remote_stop_ends_it(rig: Rigs, id: str) -> None:
    one = rig()
    one.charge()
    started(one)
    assert one.call("RequestStopTransaction", {"transactionId": SESSION}) == {"status": "Accepted"}
    one.finish(reason="Remote")
    end = ended(one)
    assert (end["triggerReason"], end["transactionInfo"]["stoppedReason"]) == ("RemoteStop", "Remote")


@pytest.mark.parametrize("queued", [True, False])
@pytest.mark.parametrize("of", ["unknown", "ongoing", "ended", "all"])
def test_e_28_to_34_the_state_of_a_transaction(rig: Rigs, of: str, queued: bool) -> None:
    one = rig(noted={**FAST, "attempts": 1000, "attempt_interval_s": 1})
    if of == "unknown":
        assert one.call("GetTransactionStatus", {"transactionId": "nothing"}) == {
            "ongoingIndicator": False,
            "messagesInQueue": False,
        }
        return
    if queued:
        one.central.rules["TransactionEvent"] = Error()
    one.charge()
    if of == "ended":
        one.finish()
        one.until(lambda: not one.service.station.evses[1].busy)
    if not queued:
        one.delivered()
    asked = {} if of == "all" else {"transactionId": SESSION}
    answer = one.call("GetTransactionStatus", asked)
    assert answer["messagesInQueue"] is queued
    if of != "all":
        assert answer["ongoingIndicator"] is (of == "ongoing")


def test_e_38_a_vehicle_that_takes_nothing_is_told(rig: Rigs) -> None:
    one = rig()
    one.charge()
    one.phase(Phase.CHARGING, output_on=False)
    one.until(lambda: events(one)[-1]["transactionInfo"]["chargingState"] == "SuspendedEV")


@pytest.mark.parametrize("id", ["E_40", "E_43", "E_44", "E_45"])
def test_e_40_to_45_offline_events_come_later_in_order_and_marked(rig: Rigs, id: str) -> None:
    one = rig()
    if id != "E_43":
        one.charge()
        started(one)
        one.delivered()
    one.central.go()
    one.until(lambda: not one.service.client.connected)
    if id == "E_43":
        one.charge()
    if id == "E_40":
        one.phase(Phase.CHARGING, output_on=False)
    else:
        one.finish()
    one.central.come()
    one.delivered()
    late = [p for p in events(one) if p.get("offline")]
    assert late and [p["seqNo"] for p in events(one)] == list(range(len(events(one))))
    assert len(one.of("BootNotification")) == 1


@pytest.mark.parametrize(("id", "rule"), [("E_41", Silent), ("E_50", Error())])
def test_e_41_50_after_the_attempts_the_next_message_goes(rig: Rigs, id: str, rule: Any) -> None:
    def answer(payload: dict[str, Any]) -> Any:
        return rule if payload["seqNo"] == 1 else {}

    one = rig(rules={"TransactionEvent": answer}, noted={"message_timeout_s": 0.2})
    assert one.set("OCPPCommCtrlr", "MessageAttempts", 2, "TransactionEvent") == "Accepted"
    assert one.set("OCPPCommCtrlr", "MessageAttemptInterval", 1, "TransactionEvent") == "Accepted"
    one.charge()
    one.finish()
    ended(one)
    tries = [m for m in one.central.messages if m.payload.get("seqNo") == 1 and m.action == "TransactionEvent"]
    assert len(tries) == 2 and tries[1].time - tries[0].time >= 0.9
    assert tries[0].id == tries[1].id and one.central.connections == 1


@pytest.mark.parametrize(("id", "rule"), [("E_42", Silent), ("E_51", Error())])
def test_e_42_51_a_message_that_is_answered_at_last_is_not_sent_again(rig: Rigs, id: str, rule: Any) -> None:
    one = rig(rules={"TransactionEvent": [{}, rule, rule, {}]}, noted={**FAST, "attempts": 5})
    one.charge()
    one.finish()
    ended(one)
    one.delivered()
    numbers = [p["seqNo"] for p in events(one)]
    assert numbers[:4] == [0, 1, 1, 1] and numbers[4:] == list(range(2, numbers[-1] + 1))
