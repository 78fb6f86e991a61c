"""Recordings on disk: one MCAP file per session, cut by size, old ones removed, a full disk survived.

Plain Python without ROS: it is handed serialised messages with their times.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any, NamedTuple

from mcap.writer import CompressionType, IndexType, Writer

from robot_charger import __version__
from robot_charger.common.clock import SECOND

CHUNK_BYTES = 128 * 1024  # what a kill -9 can cost
PRE_ROLL_NS = 5 * SECOND
POST_ROLL_NS = 3 * SECOND
INDEXES = IndexType.ALL & ~IndexType.ATTACHMENT  # there are none: an index of nothing is an error to `mcap doctor`
RETRY_NS = 5 * SECOND


@dataclass(frozen=True)
class Stream:
    """One topic of a recording."""

    topic: str
    type_name: str
    definition: str
    qos: str = ""  # as rosbag2 writes it
    evse: int = 0  # 0 = of the whole station: in the file of every EVSE
    latched: bool = False


class Entry(NamedTuple):
    """One serialised message."""

    stream: Stream
    log_time: int  # when it was received [ns since 1970, a clock that never jumps]
    publish_time: int
    data: bytes


@dataclass(frozen=True)
class Limits:
    split_bytes: int = 512 * 1024 * 1024  # begin a new part
    total_bytes: int = 10 * 1024 * 1024 * 1024  # of all recordings in the folder
    keep_free_bytes: int = 300 * 1024 * 1024  # never fill the disk: others need it more


class File:
    """One MCAP file being written. Raises OSError."""

    def __init__(self, path: Path, metadata: dict[str, str], opener: Callable[[Path], IO[bytes]] | None = None) -> None:
        self.path = path
        self.messages = 0
        self._stream = opener(path) if opener else path.open("xb")
        self._channels: dict[str, int] = {}
        self._counts: dict[int, int] = {}
        self._writer = Writer(
            self._stream, chunk_size=CHUNK_BYTES, compression=CompressionType.ZSTD, index_types=INDEXES
        )
        self._writer.start(profile="ros2", library=f"robot_charger {__version__}")
        self._writer.add_metadata("robot_charger", metadata)
        self._schemas: dict[str, int] = {}

    def write(self, entry: Entry) -> None:
        stream = entry.stream
        channel = self._channels.get(stream.topic)
        if channel is None:
            schema = self._schemas.get(stream.type_name)
            if schema is None:
                schema = self._writer.register_schema(stream.type_name, "ros2msg", stream.definition.encode())
                self._schemas[stream.type_name] = schema
            details = {"offered_qos_profiles": stream.qos} if stream.qos else {}
            channel = self._writer.register_channel(stream.topic, "cdr", schema, details)
            self._channels[stream.topic] = channel
        number = self._counts.get(channel, 0)
        self._counts[channel] = number + 1
        self._writer.add_message(channel, entry.log_time, entry.data, entry.publish_time, number & 0xFFFFFFFF)
        self.messages += 1

    @property
    def size(self) -> int:
        return self._stream.tell()

    def flush(self) -> None:
        """Hand whole chunks to the system: they outlive a kill of this process."""
        self._stream.flush()

    def close(self) -> None:
        try:
            self._writer.finish()
        finally:
            self._stream.close()

    def abandon(self) -> None:
        """Let go without another write; what is on disk stays readable up to its last whole chunk."""
        with contextlib.suppress(OSError):
            self._stream.close()


@dataclass
class _Session:
    """The recording of one EVSE."""

    session_id: str = ""
    file: File | None = None
    part: int = 0
    name: str = ""
    ends_at: int = 0  # log time after which the file is closed, 0 = the session runs
    retry_at: int = 0


@dataclass
class Recorder:
    """Sorts messages into files. ``state`` says how it stands; nothing here raises because of the disk."""

    directory: Path
    limits: Limits = field(default_factory=Limits)
    continuous: bool = False  # one recording of everything instead of one per session
    metadata: dict[str, str] = field(default_factory=dict)
    opener: Callable[[Path], IO[bytes]] | None = None
    free_bytes: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free
    trouble: str = ""  # why nothing is written, empty = well
    messages: int = 0
    lost: int = 0  # messages of a session that no file took
    finished: list[Path] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._sessions: dict[int, _Session] = {}
        self._recent: deque[Entry] = deque()
        self._latched: dict[str, Entry] = {}
        self._checked_at = 0
        if self.continuous:
            self._sessions[0] = _Session("all")

    @property
    def files(self) -> list[Path]:
        """Being written now."""
        return [s.file.path for s in self._sessions.values() if s.file]

    def session(self, evse: int, session_id: str, log_time: int) -> None:
        """The session of an EVSE is this one now; empty = none."""
        if self.continuous:
            return
        now = self._sessions.setdefault(evse, _Session())
        if session_id == now.session_id:
            return
        if session_id:
            self._end(now)
            self._sessions[evse] = _Session(session_id)
            self._open(evse, self._sessions[evse], log_time)
        elif not now.ends_at:
            now.ends_at = log_time + POST_ROLL_NS

    def write(self, entries: Iterable[Entry]) -> None:
        """Entries of one poll, sorted by time."""
        for entry in entries:
            evse = entry.stream.evse
            self._keep(entry)
            for number, session in self._sessions.items():
                if (evse in (0, number) or number == 0) and session.session_id:
                    self._write(number, session, entry)

    def tick(self, log_time: int) -> None:
        """Close what has ended, keep the limits; call once or more a second."""
        for number, session in self._sessions.items():
            if session.ends_at and log_time > session.ends_at:
                self._end(session)
                self._sessions[number] = _Session()
            elif session.session_id and session.file is None and log_time >= session.retry_at:
                self._open(number, session, log_time)
        if log_time - self._checked_at > SECOND:
            self._checked_at = log_time
            self._flush(log_time)
            self._check_disk(log_time)
            self._remove_old()

    def close(self) -> None:
        for session in self._sessions.values():
            self._end(session)
        self._sessions.clear()

    def _keep(self, entry: Entry) -> None:
        if entry.stream.latched:
            self._latched[entry.stream.topic] = entry
        self._recent.append(entry)
        while entry.log_time - self._recent[0].log_time > PRE_ROLL_NS:
            self._recent.popleft()

    def _open(self, evse: int, session: _Session, log_time: int) -> None:
        """A new file, which begins with what came shortly before."""
        first = session.part == 0
        if first:
            stamp = datetime.fromtimestamp(log_time / 1e9, timezone.utc).strftime("%Y%m%dT%H%M%SZ")
            safe = re.sub(r"[^A-Za-z0-9-]", "", session.session_id)[:8]
            session.name = f"{stamp}_{f'evse{evse}' if evse else 'station'}_{safe}"
        session.part += 1
        name = session.name if session.part == 1 else f"{session.name}_{session.part}"
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            free = self.free_bytes(self.directory)
            if free < self.limits.keep_free_bytes:
                raise OSError(28, f"disk full: {free / 1e6:.0f} MB free in {self.directory}")
            metadata = {**self.metadata, "session_id": session.session_id, "evse": str(evse), "part": str(session.part)}
            path = self.directory / f"{name}.mcap"
            while path.exists():
                session.part += 1
                path = self.directory / f"{session.name}_{session.part}.mcap"
            session.file = File(path, metadata, self.opener)
            self.trouble = ""
            recent = {id(e) for e in self._recent}
            before = [e for e in self._latched.values() if id(e) not in recent]
            for entry in sorted(before, key=lambda e: e.log_time) + (list(self._recent) if first else []):
                if entry.stream.evse in (0, evse) or evse == 0:
                    session.file.write(entry)
        except OSError as error:
            self._fail(session, error, log_time)

    def _write(self, number: int, session: _Session, entry: Entry) -> None:
        if session.file is None:
            self.lost += 1
            return
        try:
            session.file.write(entry)
            self.messages += 1
            if session.file.size > self.limits.split_bytes:
                done = session.file
                session.file = None
                done.close()
                self.finished.append(done.path)
                self._open(number, session, entry.log_time)
        except OSError as error:
            self.lost += 1
            self._fail(session, error, entry.log_time)

    def _fail(self, session: _Session, error: OSError, log_time: int) -> None:
        self.trouble = error.strerror or str(error)
        session.retry_at = log_time + RETRY_NS
        if session.file:
            session.file.abandon()
            session.file = None

    def _end(self, session: _Session) -> None:
        file, session.file = session.file, None
        session.session_id = ""
        if file is None:
            return
        try:
            file.close()
            self.finished.append(file.path)
        except OSError as error:
            self.trouble = error.strerror or str(error)

    def _flush(self, log_time: int) -> None:
        for session in self._sessions.values():
            try:
                if session.file:
                    session.file.flush()
            except OSError as error:
                self._fail(session, error, log_time)

    def _check_disk(self, log_time: int) -> None:
        try:
            free = self.free_bytes(self.directory if self.directory.exists() else self.directory.parent)
        except OSError as error:
            self.trouble = error.strerror or str(error)
            return
        if free >= self.limits.keep_free_bytes:
            if not any(s.session_id and s.file is None for s in self._sessions.values()):
                self.trouble = ""
            return
        self.trouble = f"disk full: {free / 1e6:.0f} MB free in {self.directory}"
        for session in self._sessions.values():
            if session.file:
                file, session.file = session.file, None
                session.retry_at = log_time + RETRY_NS
                try:
                    file.close()
                    self.finished.append(file.path)
                except OSError:
                    pass

    def _remove_old(self) -> None:
        """The oldest recordings go first; those being written stay."""
        try:
            files = [(p.stat().st_mtime, p.stat().st_size, p) for p in self.directory.glob("*.mcap")]
            total = sum(size for _, size, _ in files)
            for _, size, path in sorted(files):
                if total <= self.limits.total_bytes:
                    break
                if path not in self.files:
                    path.unlink()
                    total -= size
        except OSError:
            return  # the folder is gone or a file vanished: the next check sees it anew


def qos_text(profile: Any) -> str:
    """A QoSProfile of rclpy as rosbag2 writes it into a file."""
    words = {"KEEP_LAST": "keep_last", "RELIABLE": "reliable", "BEST_EFFORT": "best_effort"}
    words |= {"TRANSIENT_LOCAL": "transient_local", "VOLATILE": "volatile"}
    forever = "\n    sec: 9223372036\n    nsec: 854775807"
    return (
        f"- history: {words[profile.history.name]}\n  depth: {profile.depth}\n"
        f"  reliability: {words[profile.reliability.name]}\n  durability: {words[profile.durability.name]}\n"
        f"  deadline:{forever}\n  lifespan:{forever}\n  liveliness: automatic\n"
        f"  liveliness_lease_duration:{forever}\n  avoid_ros_namespace_conventions: false"
    )
