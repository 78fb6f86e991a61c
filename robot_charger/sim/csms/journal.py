"""Every message the CSMS received or sent, raw and in order, in one SQLite file."""

from __future__ import annotations

import json
import sqlite3
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

_SCHEMA = """
create table if not exists message(
    number integer primary key autoincrement, time text not null, station text not null, version text not null,
    direction text not null, raw text not null);
"""


class Line(NamedTuple):
    number: int
    time: str
    station: str
    version: str
    direction: str  # in = from the station
    raw: str

    def frame(self) -> list[Any] | None:
        """The OCPP-J frame, None when it is not one."""
        try:
            frame = json.loads(self.raw)
        except ValueError:
            return None
        return frame if isinstance(frame, list) and len(frame) >= 3 else None


class Journal:
    def __init__(self, path: Path | str) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("pragma journal_mode=wal")
        self._db.execute("pragma synchronous=off")  # a simulator: a power cut may cost its journal
        self._db.executescript(_SCHEMA)

    def add(self, station: str, version: str, direction: str, raw: str | bytes) -> None:
        text = raw if isinstance(raw, str) else raw.decode(errors="replace")
        time = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        self._db.execute(
            "insert into message(time, station, version, direction, raw) values(?,?,?,?,?)",
            (time, station, version, direction, text),
        )

    def lines(self) -> list[Line]:
        return [Line(*row) for row in self._db.execute("select * from message order by number")]

    def close(self) -> None:
        self._db.close()


def read(path: Path | str) -> list[Line]:
    """The lines of a journal, also while its CSMS runs. No file: no lines."""
    if not Path(path).exists():
        return []
    journal = Journal(path)
    try:
        return journal.lines()
    finally:
        journal.close()
