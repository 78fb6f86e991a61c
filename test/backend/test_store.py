"""The durable store: order, kill -9, a full disk, thinning."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from robot_charger.backend.records import OpenTransaction, Record
from robot_charger.backend.store import Store, StoreError
from robot_charger.common.faults import Code, Severity
from robot_charger.words.values import Phase

from .conftest import SESSION, TAG, Desk, at, reading

T = "transaction-1"


def record(number: int, event: str = "Updated", transaction_id: str = T, trigger: str = "MeterValuePeriodic") -> Record:
    return Record(
        event,
        transaction_id,
        transaction_id,
        1,
        number,
        at(number).iso,
        trigger,
        readings=(reading(number, 100.0 + number),),
    )


def transaction(transaction_id: str = T) -> OpenTransaction:
    return OpenTransaction(transaction_id, transaction_id, 1, at(0).iso)


def fill(store: Store, count: int, transaction_id: str = T) -> None:
    """A transaction of ``count`` records, still open."""
    store.record(record(0, "Started", transaction_id, "Authorized"), transaction(transaction_id))
    for number in range(1, count):
        store.record(record(number, transaction_id=transaction_id), transaction(transaction_id))


def test_what_goes_in_comes_out_in_order_with_one_id_each(tmp_path: Path) -> None:
    store = Store(tmp_path / "q.sqlite")
    fill(store, 5)
    store.post(("SecurityEventNotification", {"type": "x"}))
    ids = set()
    for number in range(5):
        entry = store.next()
        assert entry and entry.record and entry.record.seq_no == number
        assert store.next() == entry  # looking does not take
        ids.add(entry.message_id)
        store.done(entry.number)
    entry = store.next()
    assert entry and entry.call == ("SecurityEventNotification", {"type": "x"})
    store.done(entry.number)
    assert store.next() is None and store.queued == 0 and len(ids) == 5


def test_a_record_survives_json(tmp_path: Path) -> None:
    one = record(3)
    assert Record.from_json(one.to_json()) == one


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """A child says every number after its commit; whatever it said must be in the file."""
    path = tmp_path / "q.sqlite"
    code = (
        "import sys\n"
        "from robot_charger.backend.store import Store\n"
        "from robot_charger.backend.records import Record, OpenTransaction\n"
        f"store = Store({str(path)!r})\n"
        "number = 0\n"
        "while True:\n"
        "    record = Record('Started' if number == 0 else 'Updated', 't', 't', 1, number, '', 'x')\n"
        "    store.record(record, OpenTransaction('t', 't', 1, ''))\n"
        "    print(number, flush=True)\n"
        "    number += 1\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout
    said = -1
    for line in child.stdout:
        said = int(line)
        if said >= 60:
            break
    os.kill(child.pid, signal.SIGKILL)
    rest = child.stdout.read().split()
    child.wait()
    said = int(rest[-1]) if rest else said
    store = Store(path)
    numbers = [e.record.seq_no for e in store.entries() if e.record]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) >= said + 1
    assert store.open_transactions()[0].next_seq == len(numbers)


def test_an_end_and_its_open_transaction_are_one_commit(tmp_path: Path) -> None:
    store = Store(tmp_path / "q.sqlite")
    fill(store, 2)
    assert [t.transaction_id for t in store.open_transactions()] == [T]
    store.record(record(2, "Ended"), None)
    assert store.open_transactions() == []
    assert [e.record.seq_no for e in Store(store.path).entries() if e.record] == [0, 1, 2]


def test_thinning_drops_periodic_values_only_and_leaves_no_gap(tmp_path: Path) -> None:
    store = Store(tmp_path / "q.sqlite", limit=40)
    fill(store, 20, "a")
    store.record(record(20, "Updated", "a", "ChargingStateChanged"), transaction("a"))
    store.record(record(21, "Ended", "a", "Remote"), None)
    fill(store, 60, "b")
    store.record(record(60, "Ended", "b", "Remote"), None)
    assert store.queued <= 42
    for name in ("a", "b"):
        records = [e.record for e in store.entries() if e.record and e.record.transaction_id == name]
        assert [r.seq_no for r in records] == list(range(len(records)))
        assert [records[0].event, records[-1].event] == ["Started", "Ended"]
    triggers = [e.record.trigger for e in store.entries() if e.record]
    assert triggers.count("ChargingStateChanged") == 1
    times = [e.record.time for e in store.entries() if e.record and e.record.transaction_id == "a"]
    assert times == sorted(times)


def test_thinning_never_touches_the_head_and_keeps_numbers_already_delivered(tmp_path: Path) -> None:
    store = Store(tmp_path / "q.sqlite", limit=10)
    fill(store, 9)
    for _ in range(4):
        entry = store.next()
        assert entry
        store.done(entry.number)
    head = store.next()
    assert head and head.record and head.record.seq_no == 4
    assert store.thin() > 0
    assert store.next() == head
    numbers = [e.record.seq_no for e in store.entries() if e.record]
    assert numbers == list(range(4, 4 + len(numbers)))
    store.record(record(99), transaction())
    assert [e.record.seq_no for e in store.entries() if e.record][-1] == 4 + len(numbers)


def test_a_refused_message_is_kept_for_a_person(tmp_path: Path) -> None:
    store = Store(tmp_path / "q.sqlite")
    fill(store, 2)
    entry = store.next()
    assert entry
    store.refuse(entry.number, "FormationViolation")
    assert store.queued == 1
    [(body, error)] = store.refused()
    assert error == "FormationViolation" and Record.from_json(body).event == "Started"


def test_a_path_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        Store(tmp_path / "file" / "q.sqlite")
    (tmp_path / "junk.sqlite").write_bytes(b"this is no database, not at all, whatever its name says" * 50)
    with pytest.raises(StoreError, match="not a database"):
        Store(tmp_path / "junk.sqlite")


def test_disk_full_refuses_charging_and_loses_nothing(desk: Desk) -> None:
    """The disk fills in the middle of a transaction and is freed later."""
    desk.meter(100.0)
    desk.phase(Phase.LINKING)
    pages = desk.store._db.execute("pragma page_count").fetchone()[0]
    desk.store._db.execute(f"pragma max_page_count={pages}")
    second = 0
    while desk.station.store_ok:
        second += 1
        assert second < 2000, "the disk never filled"
        desk.meter(100.0 + second, 10.0, t=float(second))
        desk.station.evses[1].sample("Trigger", "Trigger", desk.now)
    assert desk.outside.faults[Code.BACKEND_STORE].severity == Severity.WARNING  # no stop: it can be billed
    assert desk.station.recorded(1) == SESSION
    assert desk.station.request_start(TAG, 1, 1, "", desk.now)[:2] == (False, "StoreFailed")
    desk.phase(Phase.GRASPED, t=second + 1.0)
    desk.meter(5000.0, t=second + 1.1)
    desk.store._db.execute("pragma max_page_count=1000000")
    desk.station.tick(desk.now)
    assert desk.station.store_ok and Code.BACKEND_STORE not in desk.outside.faults
    records = desk.records
    assert [r.seq_no for r in records] == list(range(second + 2))
    assert records[-1].event == "Ended" and records[-1].readings[-1].import_wh == 5000.0


def test_a_start_that_is_not_on_the_disk_is_not_recorded(desk: Desk) -> None:
    """The supervisor closes no contactor for a transaction that is nowhere but in memory."""
    desk.meter(100.0)
    desk.store._db.execute("pragma query_only=true")
    desk.phase(Phase.LINKING)
    assert desk.station.evses[1].transaction_id == SESSION and desk.station.recorded(1) == ""
    desk.store._db.execute("pragma query_only=false")
    desk.station.tick(desk.now)
    assert desk.station.recorded(1) == SESSION and desk.records[0].event == "Started"


def test_weeks_without_a_store_are_thinned_in_memory_but_not_the_changes(desk: Desk) -> None:
    desk.meter(100.0)
    desk.phase(Phase.LINKING)
    desk.store._db.execute("pragma query_only=true")
    for second in range(1, 2501):
        desk.meter(100.0 + second, 10.0, t=float(second))
        desk.station.evses[1].sample("MeterValuePeriodic", "Sample.Periodic", desk.now)
    desk.phase(Phase.CHARGING)
    desk.phase(Phase.GRASPED, t=2600.0)
    desk.meter(9000.0, t=2600.5)
    assert desk.station.queued < 1010
    desk.store._db.execute("pragma query_only=false")
    desk.station.tick(desk.now)
    records = desk.records
    assert [r.seq_no for r in records] == list(range(len(records)))
    assert records[0].event == "Started" and records[-1].readings[-1].import_wh == 9000.0
    assert [r.trigger for r in records].count("ChargingStateChanged") == 1


def test_the_reserve_is_given_up_when_the_disk_is_full(desk: Desk) -> None:
    reserve = desk.path.with_name(desk.path.name + ".reserve")
    assert reserve.stat().st_size >= 1 << 20
    desk.store._db.execute(f"pragma max_page_count={desk.store._db.execute('pragma page_count').fetchone()[0]}")
    with pytest.raises(StoreError):
        desk.store.put("big", "x" * (1 << 20))
    assert not reserve.exists()


def test_a_commit_is_on_the_disk_before_record_returns(tmp_path: Path) -> None:
    """WAL with synchronous=FULL: another process sees each record at once, and fsync was asked for."""
    store = Store(tmp_path / "q.sqlite")
    assert store._db.execute("pragma synchronous").fetchone()[0] == 2
    assert store._db.execute("pragma journal_mode").fetchone()[0] == "wal"
    fill(store, 1)
    seen = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sqlite3; print(sqlite3.connect({str(store.path)!r})"
            ".execute('select count(*) from queue').fetchone()[0])",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert seen.stdout.strip() == "1"
