"""The durable store: the queue of transaction records and everything else that must survive a power cut.

One SQLite file, write-ahead log, ``synchronous=FULL``: a call that returned is on the disk. One thread uses it; a
person's command (set_aside.py) may change it beside that.
Tables: ``queue`` (records not yet answered, in order), ``refused`` (set aside: no good answer after all attempts; kept
for a person), ``open_transaction`` (one row per running transaction), ``setting`` (JSON by key).
"""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import json
import sqlite3
import uuid
from collections.abc import Callable, Iterator
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

_PERIODIC = "(event='Updated' and json_extract(body, '$.trigger')='MeterValuePeriodic')"


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
        self.order: dict[str, int] = {}  # transactions with messages in the queue, oldest first: how many
        self.readings = 0  # periodic readings in the queue
        self.fresh: set[str] = set()  # transactions that had a record since this was last cleared
        self.starts_aside: set[str] = set()  # transactions whose start was set aside
        self.aside = 0  # messages that were set aside
        self._reserve = self.path.with_name(self.path.name + ".reserve")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch(mode=0o600)  # it may hold the password that the CSMS set
            self._db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=2.0)
            self._db.execute("pragma journal_mode=wal")
            self._db.execute("pragma synchronous=full")
            self._db.executescript(_SCHEMA)
            self.count()
            last = self._db.execute("select max(number) from queue").fetchone()[0]
            self._opened_at = int(last or 0)  # what this process queues has higher numbers
            with self._transaction():  # a read-only file must not pass
                self._db.execute("insert or replace into setting values('opened', 'true')")
            if not self._reserve.exists():
                self._reserve.write_bytes(bytes(RESERVE_BYTES))
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"store {self.path}: {error}") from error

    def close(self) -> None:
        self._db.close()

    def count(self) -> None:
        """Read from the file what is kept in memory of it: how many messages of which transaction, in order."""
        rows = self._db.execute(
            f"select transaction_id, count(*), min(number), sum({_PERIODIC}) from queue "
            "group by transaction_id order by min(number)"
        ).fetchall()
        self.readings = sum(r[3] for r in rows)
        self._queued = sum(r[1] for r in rows)
        self.order = {r[0]: r[1] for r in rows if r[0]}
        self.starts_aside = {r[0] for r in self._db.execute("select transaction_id from refused where event='Started'")}
        self._count_aside()
        self._version = self._data_version()

    def _count_aside(self) -> None:
        self.aside = int(self._db.execute("select count(*) from refused").fetchone()[0])

    def _data_version(self) -> int:
        return int(self._db.execute("pragma data_version").fetchone()[0])

    def changed_outside(self) -> bool:
        """Another process changed the file since it was last asked; what is kept in memory is read again."""
        if self._data_version() == self._version:
            return False
        self.count()
        return True

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
        self.order[record.transaction_id] = self.order.get(record.transaction_id, 0) + 1
        self.readings += record.trigger == "MeterValuePeriodic"
        self.fresh.add(record.transaction_id)

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

    def first_of(self, transaction_id: str, count: int) -> list[Entry]:
        """The oldest messages of a transaction, or of none (""). Raises StoreError."""
        try:
            rows = self._db.execute(
                "select number, message_id, event, seq_no, body from queue where transaction_id=? "
                "order by number limit ?",
                (transaction_id, count),
            ).fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"store {self.path}: {error}") from error
        return [self._entry(*row) for row in rows]

    def holds(self, entry: Entry) -> bool:
        """The message is not answered yet: it is in the queue, or set aside."""
        for table in ("queue", "refused"):
            if self._db.execute(f"select 1 from {table} where message_id=?", (entry.message_id,)).fetchone():
                return True
        return False

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
        if not settings and not follow and not durable and (row := self._forget(number)):
            self._less(row)
            return
        with self._transaction(durable):
            gone = self._db.execute(
                f"select transaction_id, {_PERIODIC} from queue where number=?", (number,)
            ).fetchone()
            self._db.execute("delete from queue where number=?", (number,))
            if gone is None:
                aside = self._db.execute(
                    "select transaction_id, event from refused where number=?", (number,)
                ).fetchone()
                self._db.execute("delete from refused where number=?", (number,))
                if aside and aside[1] == "Started":
                    self.starts_aside.discard(aside[0])
            for key, value in (settings or {}).items():
                self._put(key, value)
            if follow:
                self._post(follow)
        self._less(gone)
        self._queued += 1 if follow else 0
        if gone is None:
            self._count_aside()

    def _forget(self, number: int) -> tuple[str, int] | None:
        """The same for one message without more, in one statement; None: it is not in the queue. Raises StoreError."""
        try:
            if self._durable:
                self._db.execute("pragma synchronous=normal")
                self._durable = False
            found = self._db.execute(
                f"delete from queue where number=? returning transaction_id, {_PERIODIC}", (number,)
            ).fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"store {self.path}: {error}") from error
        return found[0] if found else None

    def _less(self, row: tuple[str, int] | None) -> None:
        """One message of a transaction, periodic or not, left the queue."""
        if row is None:
            return
        self._queued -= 1
        self.readings -= row[1]
        left = self.order.get(row[0], 0) - 1
        if left > 0:
            self.order[row[0]] = left
        else:
            self.order.pop(row[0], None)

    def refuse(self, number: int, error: str) -> None:
        """A message got no good answer after all attempts: out of the way, but kept for a person to see."""
        with self._transaction():
            row = self._db.execute(
                f"select transaction_id, {_PERIODIC}, event from queue where number=?", (number,)
            ).fetchone()
            self._db.execute(
                "insert or replace into refused select number, message_id, event, transaction_id, seq_no, body, ? "
                "from queue where number=?",
                (error, number),
            )
            self._db.execute("delete from queue where number=?", (number,))
            self._db.execute(  # starts and ends are never dropped by themselves
                "delete from refused where event not in ('Started', 'Ended') and number not in "
                "(select number from refused order by number desc limit ?)",
                (REFUSED_KEPT,),
            )
        self._less(row[:2] if row else None)
        self._count_aside()
        if row and row[2] == "Started":
            self.starts_aside.add(row[0])

    def refused(self) -> list[tuple[str, str]]:
        """Body and error of the messages that were set aside, oldest first."""
        return [(b, e) for b, e in self._db.execute("select body, error from refused order by number")]

    def set_aside(self) -> list[tuple[int, str, str, str, str]]:
        """Number, event, transaction, body and error of the same."""
        return list(self._db.execute("select number, event, transaction_id, body, error from refused order by number"))

    def recall(self, numbers: list[int] | None = None) -> list[str]:
        """Put what was set aside back at its place in the queue: these, or all starts and ends; their message ids."""
        which = "event in ('Started', 'Ended')" if numbers is None else f"number in ({','.join(map(str, numbers))})"
        with self._transaction():
            ids = [r[0] for r in self._db.execute(f"select message_id from refused where {which} order by number")]
            self._db.execute(
                "insert or ignore into queue select number, message_id, event, transaction_id, seq_no, body "
                f"from refused where {which}"
            )
            self._db.execute(f"delete from refused where {which}")
        self.count()
        return ids

    def drop(self, number: int) -> bool:
        """A person gives a message up for good."""
        with self._transaction():
            done = self._db.execute("delete from refused where number=?", (number,)).rowcount > 0
        self.count()
        return done

    def thin(self) -> int:
        """Drop every second of the oldest periodic updates, renumbering what follows; how many went.

        Never a start, an end, a change of state, or the first of a transaction, which may be on its way.
        """
        with self._transaction():
            candidates = self._db.execute(
                "select number, transaction_id from queue where event='Updated' "
                "and number > (select min(number) from queue as q where q.transaction_id = queue.transaction_id) "
                "and json_extract(body, '$.trigger')='MeterValuePeriodic' order by number limit ?",
                (max(2, self.limit // 5),),
            ).fetchall()
            victims = candidates[::2]
            self._db.executemany("delete from queue where number=?", [(n,) for n, _ in victims])
            gone: dict[str, list[int]] = {}
            for number, transaction_id in victims:
                gone.setdefault(transaction_id, []).append(number)
            for transaction_id, numbers in gone.items():
                self._close_gaps(transaction_id, numbers)
        for _, transaction_id in victims:
            self._less((transaction_id, 1))
        return len(victims)

    def _close_gaps(self, transaction_id: str, gone: list[int]) -> None:
        """Every later message of the transaction moves up by what went before it."""
        rows = self._db.execute(
            "select number, seq_no from queue where transaction_id=? and number>?", (transaction_id, gone[0])
        ).fetchall()
        self._db.executemany(
            "update queue set seq_no=? where number=?", [(seq - bisect.bisect(gone, n), n) for n, seq in rows]
        )
        self._db.execute(
            "update open_transaction set next_seq=next_seq-? where transaction_id=?", (len(gone), transaction_id)
        )

    def shift_times(self, shift: Callable[[str], str]) -> int:
        """Correct the times of records that this process queued and nobody has yet; how many. Signed data stay."""
        rows = self._db.execute(
            "select number, body from queue where event<>'Message' and number>?", (self._opened_at,)
        ).fetchall()
        with self._transaction():
            for number, body in rows:
                values = json.loads(body)
                for item in (values, *values["readings"]):
                    item["time"] = shift(item["time"])
                text = json.dumps(values, separators=(",", ":"))
                self._db.execute("update queue set body=? where number=?", (text, number))
        return len(rows)

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
