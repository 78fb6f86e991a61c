"""Reading recordings as a stream: one chunk in memory at a time, and of each message only the fields asked for.

A reader of some fields is compiled from the definition inside the file, so recordings of other versions read too.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

import lz4.frame
import numpy as np
import zstandard
from mcap.data_stream import ReadDataStream
from mcap.records import Channel, Chunk, Header, Metadata, Schema

_CODES = {
    "bool": "?",
    "byte": "B",
    "char": "B",
    "int8": "b",
    "uint8": "B",
    "int16": "h",
    "uint16": "H",
    "int32": "i",
    "uint32": "I",
    "int64": "q",
    "uint64": "Q",
    "float32": "f",
    "float64": "d",
}
_LINE = re.compile(r"^(?P<type>[\w/]+)(<=\d+)?(?P<array>\[(<=)?(?P<size>\d*)\])?\s+(?P<name>\w+)\s*(?P<rest>.*)$")
_MESSAGE = struct.Struct("<HIQQ")
_RECORD = struct.Struct("<BQ")
_HEAD = np.dtype([("opcode", "u1"), ("length", "<u8"), ("channel", "<u2"), ("sequence", "<u4"), ("log_time", "<u8")])
_MAX_RECORD = 1024 * 1024 * 1024


class RecordingError(ValueError):
    """A file that cannot be used; the text is one line for a person."""


class _Member(NamedTuple):
    name: str
    kind: str
    array: str | None  # None, "" (sequence) or the number of elements


def _parse(text: str) -> dict[str, list[_Member]]:
    """Fields by message name; the first, named '', is the message itself."""
    types: dict[str, list[_Member]] = {"": []}
    members = types[""]
    for raw in text.splitlines():
        line = raw.split("#")[0].strip()
        if line.startswith("MSG:"):
            members = types.setdefault(line[4:].strip().replace("/msg/", "/"), [])
            continue
        match = _LINE.match(line)
        if not match or match["rest"].startswith("="):
            continue
        size = match["size"] if match["array"] and "<=" not in match["array"] else ""
        members.append(_Member(match["name"], match["type"], size if match["array"] else None))
    return types


def _lookup(types: dict[str, list[_Member]], kind: str) -> list[_Member]:
    kind = kind.replace("/msg/", "/")
    for name, members in types.items():
        if name and (name == kind or name.split("/")[-1] == kind):
            return members
    builtin = {"time": [_Member("sec", "int32", None), _Member("nanosec", "uint32", None)]}
    short = kind.split("/")[-1].lower()
    if short in ("time", "duration"):
        return builtin["time"]
    raise RecordingError(f"the recording holds no definition of {kind}")


def _layout(run: list[tuple[int, str, int, str]], phase: int) -> struct.Struct:
    """The numbers of a run that begins ``phase`` bytes after a multiple of eight."""
    text, at = "<", phase
    for size, code, count, name in run:
        pad = -at % size
        text += f"{pad}x" + (code if name else f"{size * count}x")
        at += pad + size * count
    return struct.Struct(text)


class Picker:
    """Reads chosen fields (dotted for nested ones) of one CDR message type; ``pick(data)`` gives a tuple.

    A field that this type does not have reads as None. Of a sequence of messages a list of tuples is given, of all
    fields of it that are asked for (``modules.id``), once for each of them.
    """

    def __init__(self, definition: str, fields: tuple[str, ...]) -> None:
        self.fields = fields
        self._types = _parse(definition)
        self._numbers = itertools.count()
        self._found: dict[str, str] = {}
        self._wanted = set(fields)
        self._run: list[tuple[int, str, int, str]] = []  # numbers not yet read: size, code, how many, variable or ""
        self._scope: dict[str, Any] = {"u_uint32": struct.Struct("<I").unpack_from}
        lines: list[str] = []
        members = self._types[""]
        while members and not self._needed(members[-1].name):  # nobody reads what follows the last wanted one
            members = members[:-1]
        self._members(members, "", lines, "", self._found)
        self._read_run(lines, "")
        missing = "None"
        result = ", ".join(self._found.get(f, missing) for f in fields)
        body = "\n".join(f"    {line}" for line in lines)
        source = f"def pick(d):\n    o = 4\n{body}\n    return ({result},)\n"
        exec(compile(source, "<picker>", "exec"), self._scope)  # only of names and types that _LINE let through
        self.pick: Callable[[bytes], tuple[Any, ...]] = self._scope["pick"]

    def _needed(self, prefix: str) -> bool:
        return any(f == prefix or f.startswith(prefix + ".") for f in self._wanted)

    def _members(self, members: list[_Member], prefix: str, out: list[str], indent: str, found: dict[str, str]) -> None:
        for member in members:
            name = f"{prefix}{member.name}"
            if member.kind in _CODES:
                self._number(member, name, out, indent, found)
            elif member.kind in ("string", "wstring"):
                self._read_run(out, indent)
                self._string(member, name, out, indent, found)
            else:
                nested = _lookup(self._types, member.kind)
                if member.array is None:
                    self._members(nested, f"{name}.", out, indent, found)
                else:
                    self._read_run(out, indent)
                    self._messages(member, name, nested, out, indent, found)

    def _count(self, member: _Member, out: list[str], indent: str) -> str:
        if member.array:
            return member.array
        n = f"n{next(self._numbers)}"
        out += [f"{indent}o = o + (-o & 3); {n} = u_uint32(d, o)[0]; o += 4"]
        return n

    def _read_run(self, out: list[str], indent: str) -> None:
        """Read the numbers that stand together at once: where the padding lies depends on where they begin."""
        run, self._run = self._run, []
        if not run:
            return
        layouts = [_layout(run, phase) for phase in range(8)]
        k = next(self._numbers)
        names = "".join(f"{name}, " for _, _, _, name in run if name)
        if names:
            self._scope[f"r{k}"] = [layout.unpack_from for layout in layouts]
            out.append(f"{indent}{names}= r{k}[o + 4 & 7](d, o)")
        self._scope[f"s{k}"] = [layout.size for layout in layouts]
        out.append(f"{indent}o += s{k}[o + 4 & 7]")

    def _number(self, member: _Member, name: str, out: list[str], indent: str, found: dict[str, str]) -> None:
        code = _CODES[member.kind]
        size = struct.calcsize("<" + code)
        wanted = name in self._wanted
        if wanted:
            found[name] = f"v{next(self._numbers)}"
        if member.array is None or (member.array and not wanted):
            self._run.append((size, code, int(member.array or 1), found[name] if wanted else ""))
            return
        self._read_run(out, indent)
        n = self._count(member, out, indent)
        if size > 1:
            out.append(f"{indent}if {n}: o = o + (-(o - 4) & {size - 1})")
        if wanted:
            self._scope[f"u_{code}"] = struct.Struct("<" + code).unpack_from
            out.append(f"{indent}{found[name]} = [u_{code}(d, o + {size} * k)[0] for k in range({n})]")
        out.append(f"{indent}o += {size} * {n}")

    def _string(self, member: _Member, name: str, out: list[str], indent: str, found: dict[str, str]) -> None:
        one = "o = o + (-o & 3); m = u_uint32(d, o)[0]; o += 4 + m"
        text = "d[o - m:o - 1].decode('utf-8', 'replace')"
        wanted = name in self._wanted
        if wanted:
            found[name] = f"v{next(self._numbers)}"
        if member.array is None:
            out.append(f"{indent}{one}" + (f"; {found[name]} = {text}" if wanted else ""))
            return
        n = self._count(member, out, indent)
        if wanted:
            out.append(f"{indent}{found[name]} = []")
        out.append(f"{indent}for _ in range({n}):")
        out.append(f"{indent}    {one}" + (f"; {found[name]}.append({text})" if wanted else ""))

    def _messages(
        self, member: _Member, name: str, nested: list[_Member], out: list[str], indent: str, found: dict[str, str]
    ) -> None:
        n = self._count(member, out, indent)
        inner: dict[str, str] = {}
        body: list[str] = []
        self._members(nested, f"{name}.", body, indent + "    ", inner)
        self._read_run(body, indent + "    ")
        wanted = [f for f in self.fields if f.startswith(f"{name}.")]
        items = f"v{next(self._numbers)}"
        if wanted:
            out.append(f"{indent}{items} = []")
        out.append(f"{indent}for _ in range({n}):")
        out += body or [f"{indent}    pass"]
        if wanted:
            row = ", ".join(inner.get(f, "None") for f in wanted)
            out.append(f"{indent}    {items}.append(({row},))")
            for f in wanted:
                found[f] = items


Handler = Callable[[int, bytes], None]  # log time, CDR


@dataclass
class Topic:
    """What a recording holds of one topic."""

    name: str
    type_name: str
    definition: str
    count: int = 0
    first: int = 0
    last: int = 0


@dataclass
class Summary:
    """What was read."""

    path: Path
    topics: dict[str, Topic] = field(default_factory=dict)
    metadata: dict[str, dict[str, str]] = field(default_factory=dict)
    truncated: str = ""  # why the end is missing

    @property
    def messages(self) -> int:
        return sum(t.count for t in self.topics.values())

    @property
    def span(self) -> tuple[int, int]:
        """First and last log time."""
        used = [t for t in self.topics.values() if t.count]
        return (min(t.first for t in used), max(t.last for t in used)) if used else (0, 0)


_MAGIC = b"\x89MCAP0\r\n"
_HEADER, _SCHEMA, _CHANNEL, _MESSAGE_RECORD, _CHUNK, _INDEX, _METADATA, _DATA_END = 1, 3, 4, 5, 6, 7, 12, 15
_PREFIX = _RECORD.size + _MESSAGE.size  # bytes of a message record before its data


class _Scan:
    """One pass over a file."""

    def __init__(self, path: Path, choose: Callable[[Topic], Handler | None]) -> None:
        self.summary = Summary(path)
        self._choose = choose
        self._schemas: dict[int, Schema] = {}
        self._topics: dict[int, tuple[Topic, Handler | None]] = {}
        self._chunk: Chunk | None = None
        self._index: dict[int, np.ndarray] = {}  # of the chunk: channel -> (log time, offset)

    def run(self, stream: IO[bytes]) -> None:
        if stream.read(len(_MAGIC)) != _MAGIC:
            raise RecordingError(f"{self.summary.path}: no MCAP recording")
        while True:
            head = stream.read(_RECORD.size)
            if len(head) < _RECORD.size:
                raise EOFError
            opcode, length = _RECORD.unpack(head)
            if length > _MAX_RECORD:
                raise EOFError
            if opcode not in (_HEADER, _SCHEMA, _CHANNEL, _MESSAGE_RECORD, _CHUNK, _INDEX, _METADATA, _DATA_END):
                stream.seek(length, 1)
                continue
            data = stream.read(length)
            if len(data) < length:
                raise EOFError
            if opcode != _INDEX:
                self._read_chunk()
            if opcode == _DATA_END:
                return
            self._record(opcode, data)

    def finish(self) -> None:
        """After a broken end: the last whole chunk still counts."""
        self._read_chunk()

    def _record(self, opcode: int, data: bytes) -> None:
        if opcode == _CHUNK:
            self._chunk = Chunk.read(_stream(data))
        elif opcode == _INDEX:
            self._index[int.from_bytes(data[:2], "little")] = np.frombuffer(data, "<u8", offset=6).reshape(-1, 2)
        elif opcode == _SCHEMA:
            schema = Schema.read(_stream(data))
            self._schemas[schema.id] = schema
        elif opcode == _CHANNEL:
            self._channel(Channel.read(_stream(data)))
        elif opcode == _MESSAGE_RECORD:
            number, _, log_time, _ = _MESSAGE.unpack_from(data)
            self._count(number, 1, log_time, log_time)
            handler = self._topics.get(number, (None, None))[1]
            if handler:
                handler(log_time, data[_MESSAGE.size :])
        elif opcode == _METADATA:
            metadata = Metadata.read(_stream(data))
            self.summary.metadata[metadata.name] = metadata.metadata
        elif opcode == _HEADER:
            profile = Header.read(_stream(data)).profile
            if profile not in ("ros2", ""):
                raise RecordingError(f"{self.summary.path}: a recording of profile {profile!r}, ros2 is needed")

    def _channel(self, record: Channel) -> None:
        if record.id in self._topics:
            return
        schema = self._schemas.get(record.schema_id)
        usable = record.message_encoding == "cdr" and schema is not None and schema.encoding == "ros2msg"
        text = schema.data.decode("utf-8", "replace") if schema and usable else ""
        topic = Topic(record.topic, schema.name if schema else "", text)
        topic = self.summary.topics.setdefault(record.topic, topic)
        self._topics[record.id] = (topic, self._choose(topic) if usable else None)

    def _count(self, number: int, count: int, first: int, last: int) -> None:
        known = self._topics.get(number)
        if known and count:
            topic = known[0]
            topic.count += count
            topic.last = max(topic.last, last)
            topic.first = min(topic.first, first) if topic.first else first

    def _read_chunk(self) -> None:
        chunk, index = self._chunk, self._index
        self._chunk, self._index = None, {}
        if chunk is None:
            return
        known = bool(index) and all(n in self._topics for n in index)
        if known and not any(self._topics[n][1] for n in index):
            data = b""  # nobody wants anything of it: not even unpacked
        else:
            data = _unpacked(chunk)
        if not known:  # new channels are inside, or the writer left no index: walk through
            index = self._walk(data)
        wanted: list[np.ndarray] = []
        for number, entries in index.items():
            self._count(number, len(entries), int(entries[:, 0].min()), int(entries[:, 0].max()))
            if self._topics.get(number, (None, None))[1]:
                wanted.append(np.column_stack([entries[:, 1], entries[:, 0], np.full(len(entries), number, "<u8")]))
        if not wanted:
            return
        rows = np.concatenate(wanted)
        rows = rows[np.argsort(rows[:, 0])]
        begins, times, numbers = rows[:, 0].astype(np.int64), rows[:, 1], rows[:, 2]
        inside = np.minimum(begins, len(data) - _HEAD.itemsize)  # a damaged index may point anywhere
        heads = np.frombuffer(data, np.uint8)[inside[:, None] + np.arange(_HEAD.itemsize)].view(_HEAD)[:, 0]
        told = (heads["opcode"] == _MESSAGE_RECORD) & (heads["channel"] == numbers) & (heads["log_time"] == times)
        if not (told & (inside == begins)).all():
            raise ValueError("the index does not fit its chunk")
        ends = begins + _RECORD.size + heads["length"].astype(np.int64)
        handlers = {n: h for n, (_, h) in self._topics.items()}
        for begin, end, at, number in zip(
            begins.tolist(), ends.tolist(), times.tolist(), numbers.tolist(), strict=True
        ):
            handlers[number](at, data[begin + _PREFIX : end])  # type: ignore[misc]

    def _walk(self, data: bytes) -> dict[int, np.ndarray]:
        """Schemas and channels of a chunk, and its index."""
        found: dict[int, list[tuple[int, int]]] = {}
        position, end = 0, len(data)
        while position + _RECORD.size <= end:
            opcode, length = _RECORD.unpack_from(data, position)
            inside = position + _RECORD.size
            if opcode == _MESSAGE_RECORD:
                number, _, log_time, _ = _MESSAGE.unpack_from(data, inside)
                found.setdefault(number, []).append((log_time, position))
            elif opcode in (_SCHEMA, _CHANNEL):
                self._record(opcode, data[inside : inside + length])
            position = inside + length
        return {n: np.array(entries, "<u8") for n, entries in found.items()}


def scan(path: Path, choose: Callable[[Topic], Handler | None]) -> Summary:
    """Read a recording once, from begin to end.

    ``choose`` is asked once per topic for the handler of its messages. A truncated or damaged file is read up to
    there. Raises RecordingError when it is no recording at all.
    """
    try:
        stream = path.open("rb")
    except OSError as error:
        raise RecordingError(f"{path}: {error.strerror}") from error
    work = _Scan(path, choose)
    summary = work.summary
    with stream:
        try:
            work.run(stream)
        except RecordingError:
            raise
        except Exception as error:  # damaged bytes may raise anything, in zstd, struct, numpy or a picker
            summary.truncated = "the end is missing" if isinstance(error, EOFError) else f"damaged: {error}"
            with contextlib.suppress(Exception):
                work.finish()
            if not summary.topics and not summary.metadata:
                raise RecordingError(f"{path}: {summary.truncated}, nothing could be read") from None
    return summary


def _unpacked(chunk: Chunk) -> bytes:
    if chunk.compression == "zstd":
        return zstandard.ZstdDecompressor().decompress(chunk.data, max_output_size=chunk.uncompressed_size)
    if chunk.compression == "lz4":
        return lz4.frame.decompress(chunk.data)
    if chunk.compression:
        raise RecordingError(f"compression {chunk.compression} is not known here")
    return chunk.data


def _stream(data: bytes) -> ReadDataStream:
    return ReadDataStream(io.BytesIO(data))
