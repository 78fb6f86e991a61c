"""What is sent when: live before old, nothing beside a transaction before it, and what was set aside comes back."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from robot_charger.backend import outbox
from robot_charger.backend.records import OpenTransaction, Reading, Record
from robot_charger.backend.set_aside import command
from robot_charger.backend.store import Store
from robot_charger.words.values import Phase

from .central import Close, Error, Late, Silent
from .conftest import SESSION, Rig, Rigs
from .test_odd_answers import FAST


def backlog(one: Rig, transactions: int, readings: int) -> None:
    """Old transactions in the queue of a station that is stopped."""
    store = Store(one.folder / "station.sqlite")
    store._db.execute("pragma synchronous=off")
    for number in range(transactions):
        name = f"old-{number}"
        for seq in range(readings):
            event = "Started" if seq == 0 else "Ended" if seq == readings - 1 else "Updated"
            value = Reading("2026-01-01T00:00:00.000Z", 1, 1000.0 + seq)
            record = Record(
                event, name, name, 1, seq, "2026-01-01T00:00:00.000Z", "MeterValuePeriodic", readings=(value,)
            )
            keep = None if event == "Ended" else OpenTransaction(name, name, 1, "2026-01-01T00:00:00.000Z")
            store.record(record, keep)
    store.close()


def transactions_of(one: Rig) -> list[str]:
    return [p["transactionInfo"]["transactionId"] for p in one.of("TransactionEvent")]


def test_a_vehicle_does_not_wait_behind_a_silent_status(rig: Rigs) -> None:
    """authorize.timeout_s 2.5: a StatusNotification that is never answered is in flight when the card comes."""
    one = rig(rules={"StatusNotification": Silent}, idle=False, authorize__timeout_s=2.5)
    one.idle()
    one.came("StatusNotification")
    assert one.authorize().accepted
    one.came("Authorize")


def test_a_live_start_and_stop_go_before_old_readings(rig: Rigs) -> None:
    one = rig(online=False, idle=False)
    one.service.stop()
    backlog(one, 20, 20)
    one.central.rules["TransactionEvent"] = Late(0.005, {})
    one.open()
    one.online()
    one.idle()
    one.charge()
    one.finish()
    one.until(lambda: [p for p in one.of("TransactionEvent") if p["eventType"] == "Ended"][-1:] != [])
    one.until(lambda: SESSION in transactions_of(one))
    one.until(lambda: (one.bills() and one.bills()[-1][0] == SESSION) or SESSION in [b[0] for b in one.bills()])
    assert one.service.station.queued > 100
    one.delivered()
    for name in {*transactions_of(one)}:
        numbers = [p["seqNo"] for p in one.of("TransactionEvent") if p["transactionInfo"]["transactionId"] == name]
        assert numbers == list(range(len(numbers)))  # in order within each
    old = [t for t in dict.fromkeys(transactions_of(one)) if t != SESSION]
    assert old == [f"old-{n}" for n in range(20)]


def test_a_remote_stop_of_1_6_works_behind_a_backlog(rig: Rigs) -> None:
    """It needs the number that the answer to the start has."""
    one = rig("1.6", online=False, idle=False)
    one.service.stop()
    backlog(one, 20, 20)
    one.central.rules["MeterValues"] = Late(0.01, {})
    one.open()
    one.online()
    one.idle()
    one.charge()
    one.until(lambda: one.service.store.get(f"number.{SESSION}"))
    number = one.service.store.get(f"number.{SESSION}")
    assert one.service.station.queued > 100
    assert one.call("RemoteStopTransaction", {"transactionId": number}) == {"status": "Accepted"}


def test_starts_and_ends_come_back_after_an_hour(rig: Rigs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "RECALL_S", 0.5)
    one = rig(rules={"TransactionEvent": Error()}, noted=FAST)
    one.charge()
    one.finish()
    one.until(lambda: one.service.store.aside >= 2 and one.service.station.queued == 0)
    one.central.rules["TransactionEvent"] = {}
    one.until(lambda: not [r for r in one.service.store.set_aside() if r[1] in ("Started", "Ended")])
    one.delivered()
    taken = [r[1] for r in one.service.store.set_aside()]
    assert "Started" not in taken and "Ended" not in taken


def test_a_person_lists_retries_and_drops_what_is_set_aside(rig: Rigs) -> None:
    one = rig(rules={"TransactionEvent": Error("InternalError")}, noted=FAST)
    one.charge()
    one.finish()
    one.until(lambda: one.service.store.aside >= 3 and one.service.station.queued == 0)
    path = str(one.folder / "station.sqlite")
    run = CliRunner()
    listed = run.invoke(command, [path]).output
    assert "Started" in listed and "Ended" in listed and SESSION in listed and "InternalError" in listed
    rows = one.service.store.set_aside()
    updated = next(r[0] for r in rows if r[1] == "Updated")
    assert run.invoke(command, [path, "drop", str(updated)]).exit_code == 0
    assert run.invoke(command, [path, "drop", str(updated)]).exit_code == 1
    assert run.invoke(command, [path, "drop", "x"]).exit_code == 2
    assert run.invoke(command, [path + "x"]).exit_code == 2
    one.central.rules["TransactionEvent"] = {}
    before = len(one.of("TransactionEvent"))
    assert run.invoke(command, [path, "retry", "all"]).exit_code == 0
    one.until(lambda: one.service.store.queued == 0 and one.service.store.aside == 0, "the node sees it by itself")
    assert len(one.of("TransactionEvent")) == before + len(rows) - 1
    assert "nothing" in run.invoke(command, [path]).output


def test_a_dropped_message_never_takes_starts_and_ends_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robot_charger.backend.store.REFUSED_KEPT", 3)
    store = Store(tmp_path / "s.sqlite")
    for number in range(10):
        event = "Started" if number == 0 else "Updated"
        store.record(Record(event, "t", "t", 1, number, "2026-01-01T00:00:00Z", "x"), OpenTransaction("t", "t", 1, ""))
    for entry in store.entries():
        store.refuse(entry.number, "no")
    assert [r[1] for r in store.set_aside()] == ["Started", "Updated", "Updated", "Updated"]
    store.close()


def test_thinning_leaves_numbers_that_may_have_been_sent(tmp_path: Path) -> None:
    """The first of a transaction waits for its next attempt, later ones were answered: none gets another's number."""
    store = Store(tmp_path / "s.sqlite", limit=100)
    for number in range(40):
        trigger = "Authorized" if number == 0 else "MeterValuePeriodic"
        event = "Started" if number == 0 else "Updated"
        store.record(
            Record(event, "t", "t", 1, number, "2026-01-01T00:00:00Z", trigger), OpenTransaction("t", "t", 1, "")
        )
    for entry in store.entries()[1:5]:
        store.done(entry.number)
    gone = store.thin()
    numbers = [e.record.seq_no for e in store.entries() if e.record]
    assert numbers == [0, *range(5, 40 - gone)]
    assert store.open_transactions()[0].next_seq == 40 - gone
    store.close()


def wait_for_pages(one: Rig) -> None:
    """All pages, the second twice."""

    def numbers() -> list[int]:
        return [p["seqNo"] for p in one.of("NotifyReport")]

    one.until(lambda: len(numbers()) > 2 and not one.of("NotifyReport")[-1].get("tbc"))
    assert numbers() == [0, 1, *range(1, numbers()[-1] + 1)]


def test_one_lost_page_of_a_report_costs_neither_connection_nor_report(rig: Rigs) -> None:
    lost: list[int] = []

    def answer(payload: dict[str, Any]) -> Any:
        if payload["seqNo"] == 1 and not lost:
            lost.append(1)
            return Silent
        return {}

    one = rig(rules={"NotifyReport": answer}, noted=FAST)
    assert one.call("GetBaseReport", {"requestId": 1, "reportBase": "FullInventory"})["status"] == "Accepted"
    wait_for_pages(one)
    assert one.central.connections == 1


def test_a_report_goes_on_after_the_connection_was_lost(rig: Rigs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "QUIET_S", 0.1)
    one = rig(rules={"NotifyReport": [{}, Close(), {}]}, noted=FAST)
    one.call("GetBaseReport", {"requestId": 1, "reportBase": "FullInventory"})
    wait_for_pages(one)


def test_connections_that_fail_after_the_handshake_back_off(rig: Rigs) -> None:
    one = rig(online=False, idle=False)
    one.service.stop()

    async def close(socket: Any) -> None:
        await socket.close(1008)

    one.central.greeting = close
    before = one.central.connections
    one.noted = {}
    one.parameters = dataclasses.replace(one.parameters, backoff__minimum_s=1, backoff__repeats=3)
    one.open()
    one.until(lambda: one.central.connections - before >= 3, timeout_s=20.0)
    began = time.monotonic()
    assert one.central.connections - before <= 4
    one.until(lambda: one.central.connections - before >= 4, timeout_s=20.0)
    assert time.monotonic() - began > 2.0  # 1, 2, 4 s


@pytest.mark.parametrize("version", ["1.6", "2.0.1"])
def test_a_new_heartbeat_interval_holds_at_once(rig: Rigs, version: str) -> None:
    one = rig(version)
    if version == "1.6":
        assert one.configure("HeartbeatInterval", 1) == "Accepted"
    else:
        assert one.set("OCPPCommCtrlr", "HeartbeatInterval", 1) == "Accepted"
    one.came("Heartbeat", 2)


def test_what_the_csms_does_not_know_is_not_sent_again(rig: Rigs) -> None:
    one = rig("1.6", rules={"DataTransfer": {"status": "UnknownVendorId"}})
    for number in range(3):
        one.charge(session_id=f"{SESSION[:-1]}{number}")
        one.finish(session_id=f"{SESSION[:-1]}{number}")
    one.delivered()
    one.came("StopTransaction", 3)
    assert len(one.of("DataTransfer")) == 1 and one.service.client.refused == 0


def test_a_message_that_ends_connections_goes_behind_the_rest(rig: Rigs) -> None:
    """One transaction's reading ends the connection each time; the other transaction is delivered."""

    def answer(payload: dict[str, Any]) -> Any:
        poison = payload["evse"]["id"] == 1 and payload["eventType"] == "Updated"
        return Close() if poison else {}

    one = rig(rules={"TransactionEvent": answer}, evses=2, noted=FAST)
    one.charge()
    one.until(lambda: one.central.connections > 1)
    other = f"{SESSION[:-1]}9"
    one.charge(2, other)
    one.finish(2, other)
    one.until(lambda: other in [b[0] for b in one.bills()], "the other's bill")
    one.finish()
    one.until(lambda: SESSION in [b[0] for b in one.bills()], "its own bill")
    one.phase(Phase.IDLE)
