"""The durable store: the queue of transaction records and everything else that must survive a power cut.

One SQLite file, write-ahead log, ``synchronous=FULL``: a call that returned is on the disk. One thread uses it.
Tables: ``queue`` (records not yet answered, in order), ``refused`` (answered with an error for good; kept for a
person), ``open_transaction`` (one row per running transaction), ``setting`` (JSON by key).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sqlite3
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robot_charger.backend.records import Call, OpenTransaction, Record

RESERVE_BYTES = 1 << 20  # kept free beside the store, given up when the disk is full
REFUSED_KEPT = 1000

_SCHEMA = """
create table if not exists queue(
    number integer primary key autoincrement, message_id text not null, event text not null,
    transaction_id text not null, seq_no integer not null, body text not null);
create index if not exists queue_transaction on queue(transaction_id);
create table if not exists refused(
    number integer primary key, message_id text, event text, transaction_id text, seq_no integer, body text,
    error text);
create table if not exists open_transaction(
    transaction_id text primary key, evse integer not null, next_seq integer not null, body text not null);
create table if not exists setting(key text primary key, value text not null);
"""


class StoreError(RuntimeError):
    """The store does not take a record: disk full, file broken, no permission. Nothing was written."""


@dataclass(frozen=True)
class Entry:
    """One message of the queue. ``message_id`` stays the same however often it is sent."""

    number: int
    message_id: str
    record: Record | None
    call: Call | None = None  # a message that belongs to no transaction but must arrive

    @property
    def transaction_id(self) -> str:
        return self.record.transaction_id if self.record else ""


class Store:
    def __init__(self, path: Path | str, limit: int = 100_000) -> None:
        self.path = Path(path)
        self.limit = limit
        self._durable = True
        self._reserve = self.path.with_name(self.path.name + ".reserve")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch(mode=0o600)  # it may hold the password that the CSMS set
            self._db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=2.0)
            self._db.execute("pragma journal_mode=wal")
            self._db.execute("pragma synchronous=full")
            self._db.executescript(_SCHEMA)
            self._queued = int(self._db.execute("select count(*) from queue").fetchone()[0])
            with self._transaction():  # a read-only file must not pass
                self._db.execute("insert or replace into setting values('opened', 'true')")
            if not self._reserve.exists():
                self._reserve.write_bytes(bytes(RESERVE_BYTES))
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"store {self.path}: {error}") from error

    def close(self) -> None:
        self._db.close()

    @property
    def queued(self) -> int:
        return self._queued

    @contextlib.contextmanager
    def _transaction(self, durable: bool = True) -> Iterator[None]:
        """One commit; not durable: a power cut (not a kill) may undo it, until the next durable one."""
        try:
            if durable != self._durable:
                self._db.execute(f"pragma synchronous={'full' if durable else 'normal'}")
                self._durable = durable
            self._db.execute("begin immediate")
            try:
                yield
                self._db.execute("commit")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("rollback")
                raise
        except sqlite3.Error as error:
            if "full" in str(error):
                self._reserve.unlink(missing_ok=True)  # room for the ends of what runs now
            raise StoreError(f"store {self.path}: {error}") from error

    # Transactions.
    def record(self, record: Record, transaction: OpenTransaction | None) -> None:
        """Queue a record and, in the same commit, keep the transaction as it then stands (None = it ended)."""
        thin = self._queued >= self.limit and record.event == "Updated"
        if thin:
            self.thin()
        with self._transaction():
            # Thinning closes the gaps it makes, so the number to give is the store's, not the caller's.
            row = self._db.execute(
                "select next_seq from open_transaction where transaction_id=?", (record.transaction_id,)
            ).fetchone()
            seq_no = int(row[0]) if row else record.seq_no
            self._db.execute(
                "insert into queue(message_id, event, transaction_id, seq_no, body) values(?,?,?,?,?)",
                (str(uuid.uuid4()), record.event, record.transaction_id, seq_no, record.to_json()),
            )
            self._keep(record.transaction_id, transaction, seq_no + 1)
        self._queued += 1

    def _keep(self, transaction_id: str, transaction: OpenTransaction | None, next_seq: int) -> None:
        if transaction is None:
            self._db.execute("delete from open_transaction where transaction_id=?", (transaction_id,))
        else:
            self._db.execute(
                "insert or replace into open_transaction values(?,?,?,?)",
                (transaction_id, transaction.evse, next_seq, transaction.to_json()),
            )

    def open_transactions(self) -> list[OpenTransaction]:
        found = []
        for next_seq, body in self._db.execute("select next_seq, body from open_transaction order by evse"):
            transaction = OpenTransaction.from_json(body)
            transaction.next_seq = next_seq
            found.append(transaction)
        return found

    # The queue.
    def post(self, call: Call) -> None:
        """Queue a message that belongs to no transaction."""
        with self._transaction():
            self._post(call)
        self._queued += 1

    def _post(self, call: Call) -> None:
        self._db.execute(
            "insert into queue(message_id, event, transaction_id, seq_no, body) values(?,?,?,?,?)",
            (str(uuid.uuid4()), "Message", "", 0, json.dumps(call)),
        )

    def next(self) -> Entry | None:
        """The oldest message, still in the queue. Raises StoreError."""
        try:
            row = self._db.execute(
                "select number, message_id, event, seq_no, body from queue order by number limit 1"
            ).fetchone()
        except sqlite3.Error as error:
            raise StoreError(f"store {self.path}: {error}") from error
        return self._entry(*row) if row else None

    @staticmethod
    def _entry(number: int, message_id: str, event: str, seq_no: int, body: str) -> Entry:
        if event == "Message":
            action, payload = json.loads(body)
            return Entry(number, message_id, None, (action, payload))
        record = dataclasses.replace(Record.from_json(body), seq_no=seq_no)
        return Entry(number, message_id, record)

    def entries(self) -> list[Entry]:
        rows = self._db.execute("select number, message_id, event, seq_no, body from queue order by number")
        return [self._entry(*row) for row in rows]

    def waiting(self, transaction_id: str) -> int:
        """Messages of one transaction that are not yet answered."""
        row = self._db.execute("select count(*) from queue where transaction_id=?", (transaction_id,)).fetchone()
        return int(row[0])

    def done(
        self, number: int, settings: dict[str, Any] | None = None, follow: Call | None = None, durable: bool = True
    ) -> None:
        """A message was answered: forget it and, in the same commit, keep what the answer told and queue what
        follows from it. What may be sent again without harm need not be forgotten durably."""
        with self._transaction(durable):
            self._db.execute("delete from queue where number=?", (number,))
            for key, value in (settings or {}).items():
                self._put(key, value)
            if follow:
                self._post(follow)
        self._queued -= 0 if follow else 1

    def refuse(self, number: int, error: str) -> None:
        """A message was refused for good: out of the way, but kept for a person to see."""
        with self._transaction():
            self._db.execute(
                "insert or replace into refused select number, message_id, event, transaction_id, seq_no, body, ? "
                "from queue where number=?",
                (error, number),
            )
            self._db.execute("delete from queue where number=?", (number,))
            self._db.execute(
                "delete from refused where number <= (select max(number) from refused) - ?", (REFUSED_KEPT,)
            )
        self._queued -= 1

    def refused(self) -> list[tuple[str, str]]:
        """Body and error of the messages refused for good, oldest first."""
        return [(b, e) for b, e in self._db.execute("select body, error from refused order by number")]

    def thin(self) -> int:
        """Drop every second of the oldest periodic updates, renumbering what follows; how many went.

        Never a start, an end, a change of state, or the head of the queue, which may be on its way.
        """
        with self._transaction():
            head = self._db.execute("select min(number) from queue").fetchone()[0]
            candidates = self._db.execute(
                "select number, transaction_id from queue where event='Updated' and number>? "
                "and json_extract(body, '$.trigger')='MeterValuePeriodic' order by number limit ?",
                (head, max(2, self.limit // 5)),
            ).fetchall()
            victims = candidates[::2]
            first = {
                transaction_id: self._db.execute(
                    "select min(seq_no) from queue where transaction_id=?", (transaction_id,)
                ).fetchone()[0]
                for transaction_id in {t for _, t in victims}
            }
            self._db.executemany("delete from queue where number=?", [(n,) for n, _ in victims])
            for transaction_id, seq_no in first.items():
                self._renumber(transaction_id, seq_no)
        self._queued -= len(victims)
        return len(victims)

    def _renumber(self, transaction_id: str, first: int) -> None:
        rows = self._db.execute(
            "select number from queue where transaction_id=? order by number", (transaction_id,)
        ).fetchall()
        self._db.executemany(
            "update queue set seq_no=? where number=?", [(first + i, n) for i, (n,) in enumerate(rows)]
        )
        self._db.execute(
            "update open_transaction set next_seq=? where transaction_id=?", (first + len(rows), transaction_id)
        )

    # Everything else.
    def _put(self, key: str, value: Any) -> None:
        if value is None:
            self._db.execute("delete from setting where key=?", (key,))
        else:
            self._db.execute("insert or replace into setting values(?,?)", (key, json.dumps(value)))

    def put(self, key: str, value: Any) -> None:
        """Keep a JSON value; None forgets it."""
        with self._transaction():
            self._put(key, value)

    def get(self, key: str, default: Any = None) -> Any:
        row = self._db.execute("select value from setting where key=?", (key,)).fetchone()
        return json.loads(row[0]) if row else default
