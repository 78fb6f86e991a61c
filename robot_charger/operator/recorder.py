"""The recorder: a process of its own that listens to everything and writes one MCAP file per session.

``python -m robot_charger.operator.recorder --directory DIR --evses 1 2 [--can udp:42000] [--ocpp-journal FILE]``

It subscribes to the whole table of topics and publishes only /diagnostics and, while somebody looks at it, the tree
/diagnostics_agg that rqt_robot_monitor shows; so its end stops nothing. Messages are
taken from DDS as bytes at 20 Hz; the time of arrival comes from DDS, so the rate of taking does not blur it.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message, serialize_message
from rclpy.signals import SignalHandlerOptions
from std_msgs.msg import String

from robot_charger import msg
from robot_charger.common.can_bus import BusError, expand, frame_port, open_bus
from robot_charger.common.clock import now_ns
from robot_charger.common.process import StopSignal, end_with_parent, refuse, require_logs
from robot_charger.common.topics import EVENTS, EVSE_TOPICS, STATION_TOPICS
from robot_charger.operator import privacy
from robot_charger.operator.definitions import CAN_FRAMES, CAN_FRAMES_TEXT, can_frames, definition, type_name
from robot_charger.operator.recording import Entry, Limits, Recorder, Stream, qos_text
from robot_charger.operator.tree import Tree

POLL_S = 0.05
DEPTH = 400  # messages that wait for the next poll
CAN_POLL_S = 0.005
CAN_BUFFER = 4 * 1024 * 1024
MB = 1024 * 1024
V2G_RECORD = "v2g/record"  # decoded V2G messages as JSON, where the v2g node offers them
OCPP_RECORD = "/ocpp/messages"


class WallClock:
    """Wall time that never jumps: taken once, then CLOCK_MONOTONIC. Stamps in messages lie on it, shifted."""

    def __init__(self) -> None:
        self.offset = time.time_ns() - now_ns()

    def now(self) -> int:
        return now_ns() + self.offset

    def unjump(self) -> int:
        """What to add to a present reading of the system's clock."""
        return self.now() - time.time_ns()


@dataclass
class _Source:
    stream: Stream
    subscription: Any
    message: type
    look_inside: bool
    is_session: bool
    count: int = 0
    last: bytes = b""


class Listener:
    """A ROS participant that takes all topics as bytes."""

    def __init__(self, node: Any, evses: Sequence[int], personal: bool, clock: WallClock) -> None:
        self._clock = clock
        self._personal = personal
        self._sources: list[_Source] = []
        self.diagnostics: Callable[[DiagnosticArray], None] = lambda _: None
        for evse in evses:
            for name, (kind, qos) in EVSE_TOPICS.items():
                self._add(node, f"/evse{evse}/{name}", kind, qos, evse, name == "session/state")
            if V2G_RECORD not in EVSE_TOPICS:
                self._add(node, f"/evse{evse}/{V2G_RECORD}", String, EVENTS, evse)
        for name, (kind, qos) in STATION_TOPICS.items():
            if personal or not privacy.is_picture(kind):
                self._add(node, name, kind, qos, 0)

    def _add(self, node: Any, topic: str, kind: type, qos: QoSProfile, evse: int, is_session: bool = False) -> None:
        latched = qos.durability.name == "TRANSIENT_LOCAL"
        stream = Stream(topic, type_name(kind), definition(kind), qos_text(qos), evse, latched)
        deep = QoSProfile(history=qos.history, depth=DEPTH, reliability=qos.reliability, durability=qos.durability)
        subscription = node.create_subscription(kind, topic, lambda _: None, deep, raw=True)
        look = not self._personal and privacy.has_personal_fields(kind)
        self._sources.append(_Source(stream, subscription, kind, look, is_session))

    def take(self, on_session: Callable[[int, msg.SessionState, int], None]) -> list[Entry]:
        """All that arrived since, sorted by time."""
        shift = self._clock.unjump()
        entries: list[Entry] = []
        for source in self._sources:
            handle = source.subscription.handle
            while True:
                with handle:
                    taken = handle.take_message(source.message, True)
                if taken is None:
                    break
                data, info = taken
                source.count += 1
                source.last = data
                if source.message is DiagnosticArray:
                    self.diagnostics(deserialize_message(data, DiagnosticArray))
                log_time = info["received_timestamp"] + shift
                if source.is_session:
                    on_session(source.stream.evse, deserialize_message(data, source.message), log_time)
                if source.look_inside:
                    message = deserialize_message(data, source.message)
                    if privacy.mask_message(message):
                        data = serialize_message(message)
                entries.append(Entry(source.stream, log_time, info["source_timestamp"] + shift, bytes(data)))
        entries.sort(key=lambda e: e.log_time)
        return entries

    def counts(self) -> dict[str, int]:
        """Messages of every topic since the beginning."""
        return {s.stream.topic: s.count for s in self._sources}

    def last(self, topic: str) -> Any:
        """The newest message of a topic, None when there was none."""
        source = next(s for s in self._sources if s.stream.topic == topic)
        return deserialize_message(source.last, source.message) if source.last else None


class CanListener:
    """Reads CAN buses in a thread of its own. Raises BusError when one cannot be opened."""

    def __init__(self, specs: Sequence[str], clock: WallClock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: list[Entry] = []
        self.frames = 0
        self.trouble = ""
        self._ports = []
        for spec in (name for text in specs for name in expand(text)):
            bus = open_bus(spec)
            endpoint = getattr(bus, "socket", None)
            if endpoint is not None:
                for option in (33, 8):  # SO_RCVBUFFORCE, SO_RCVBUF
                    try:
                        endpoint.setsockopt(1, option, CAN_BUFFER)
                        break
                    except OSError:
                        continue
            topic = "/can/" + spec.replace(":", "_").replace("-", "_").replace(".", "_")
            self._ports.append((frame_port(bus), spec, Stream(topic, CAN_FRAMES, CAN_FRAMES_TEXT)))
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._read, name="can", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while not self._closed.wait(CAN_POLL_S):
            for port, spec, stream in self._ports:
                try:
                    batches = port.read()
                except Exception as error:  # a bus that went away must not end the recording of the rest
                    self.trouble = f"{spec}: {error}"
                    continue
                if not batches:
                    continue
                stamp = now_ns()
                log_time = stamp + self._clock.offset
                fresh = [
                    Entry(stream, log_time, log_time, can_frames(stamp, spec, b.ids, b.flags, b.lengths, b.data))
                    for b in batches
                ]
                with self._lock:
                    self.frames += sum(len(b) for b in batches)
                    self._entries += fresh

    def take(self) -> list[Entry]:
        with self._lock:
            entries, self._entries = self._entries, []
        return entries

    def close(self) -> None:
        self._closed.set()
        self._thread.join(timeout=1.0)
        for port, _, _ in self._ports:
            port.close()


class OcppJournal:
    """OCPP frames from the journal of the desk's CSMS (an SQLite file), each as one line of JSON."""

    STREAM = Stream(OCPP_RECORD, type_name(String), definition(String))

    def __init__(self, path: Path, personal: bool) -> None:
        self._path = path
        self._personal = personal
        self._last = 0
        self._asked_at = 0.0

    def take(self, now: int) -> Iterator[Entry]:
        if time.monotonic() - self._asked_at < 0.5 or not self._path.exists():
            return
        self._asked_at = time.monotonic()
        try:
            with sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, timeout=0.05) as database:
                rows = database.execute(
                    "select number, time, direction, raw from message where number > ? order by number", (self._last,)
                ).fetchall()
        except sqlite3.Error:
            return
        for number, when, direction, raw in rows:
            self._last = number
            document = {"direction": direction, "frame": _ocpp_frame(raw, self._personal)}
            at = min(now, int(datetime.fromisoformat(when).timestamp() * 1e9))
            yield Entry(self.STREAM, at, at, bytes(serialize_message(String(data=json.dumps(document)))))


def _ocpp_frame(raw: str, personal: bool) -> Any:
    try:
        frame = json.loads(raw)
    except ValueError:
        return "no JSON"
    return frame if personal else privacy.masked(frame)


@dataclass(frozen=True)
class Options:
    directory: Path
    evses: tuple[int, ...] = (1,)
    can: tuple[str, ...] = ()
    ocpp_journal: Path | None = None
    personal: bool = False
    continuous: bool = False
    limits: Limits = Limits()


class Process:
    """Everything the recorder holds open; ``step()`` once per poll."""

    def __init__(self, options: Options) -> None:
        self.clock = WallClock()
        self.recorder = Recorder(
            options.directory,
            options.limits,
            options.continuous,
            {"monotonic_offset_ns": str(self.clock.offset), "personal_data": str(options.personal).lower()},
        )
        self.can = CanListener(options.can, self.clock) if options.can else None
        self.journal = OcppJournal(options.ocpp_journal, options.personal) if options.ocpp_journal else None
        self.node = rclpy.create_node("recorder", start_parameter_services=False, enable_rosout=False)
        self.listener = Listener(self.node, options.evses, options.personal, self.clock)
        self._diagnostics = self.node.create_publisher(DiagnosticArray, "/diagnostics", EVENTS)
        self._trees = self.node.create_publisher(DiagnosticArray, "/diagnostics_agg", EVENTS)
        self._tree = Tree()
        self.listener.diagnostics = self._hear
        self._told_at = 0.0
        self._told_trouble = ""
        self.recorder.tick(self.clock.now())  # a continuous recording begins now, not after the first poll

    def step(self) -> None:
        entries = self.listener.take(self._on_session)
        if self.can:
            entries = sorted(entries + self.can.take(), key=lambda e: e.log_time)
        if self.journal:
            entries += self.journal.take(self.clock.now())
        self.recorder.write(entries)
        self.recorder.tick(self.clock.now())
        if time.monotonic() - self._told_at >= 1.0:
            self._told_at = time.monotonic()
            self._tell()
            self._tell_tree()

    def _on_session(self, evse: int, state: msg.SessionState, log_time: int) -> None:
        self.recorder.session(evse, state.session_id, log_time)

    def _hear(self, array: DiagnosticArray) -> None:
        for status in array.status:
            self._tree.hear(status, time.monotonic())

    def _tell_tree(self) -> None:
        now = time.monotonic()
        self._tree.count(self.listener.counts(), now)
        if self._trees.get_subscription_count():
            array = DiagnosticArray(status=self._tree.statuses(self.listener.last("/power/modules"), now))
            array.header.stamp = self.node.get_clock().now().to_msg()
            self._trees.publish(array)

    def _tell(self) -> None:
        trouble = self.recorder.trouble or (self.can.trouble if self.can else "")
        if trouble != self._told_trouble:
            self._told_trouble = trouble
            print(f"recorder: {trouble or 'writes again'}", file=sys.stderr, flush=True)
        values = {
            "files": ", ".join(p.name for p in self.recorder.files) or "none",
            "messages": self.recorder.messages,
            "lost": self.recorder.lost,
            "CAN frames": self.can.frames if self.can else 0,
        }
        status = DiagnosticStatus(
            level=DiagnosticStatus.ERROR if trouble else DiagnosticStatus.OK,
            name="/recorder",
            message=f"not recording: {trouble}" if trouble else ("recording" if self.recorder.files else "waiting"),
            hardware_id="/",
            values=[KeyValue(key=k, value=str(v)) for k, v in values.items()],
        )
        array = DiagnosticArray(status=[status])
        array.header.stamp = self.node.get_clock().now().to_msg()
        self._diagnostics.publish(array)

    def close(self) -> None:
        entries = self.listener.take(self._on_session)
        self.recorder.write(entries + (self.can.take() if self.can else []))
        self.recorder.close()
        if self.can:
            self.can.close()
        self.node.destroy_node()


def run(options: Options) -> None:
    """Record until SIGINT or SIGTERM."""
    end_with_parent()
    stop = StopSignal()
    require_logs()
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    try:
        process = Process(options)
    except BusError as error:
        rclpy.try_shutdown()
        refuse(f"recorder: {error}")
    try:
        while not stop.wait(POLL_S):
            process.step()
    finally:
        process.close()
        rclpy.try_shutdown()
    for path in process.recorder.finished:
        print(path, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="recorder", description="Record a station's sessions into MCAP files.")
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--evses", type=int, nargs="+", default=[1])
    parser.add_argument("--can", action="append", default=[], help="bus to record, e.g. socketcan:can0")
    parser.add_argument("--ocpp-journal", type=Path, help="journal of the desk's CSMS")
    parser.add_argument("--personal", action="store_true", help="keep identities and tokens")
    parser.add_argument("--continuous", action="store_true", help="one recording of everything")
    parser.add_argument("--split-mb", type=int, default=512)
    parser.add_argument("--limit-mb", type=int, default=10_240)
    parser.add_argument("--keep-free-mb", type=int, default=300)
    a = parser.parse_args(arguments)
    limits = Limits(a.split_mb * MB, a.limit_mb * MB, a.keep_free_mb * MB)
    run(Options(a.directory, tuple(a.evses), tuple(a.can), a.ocpp_journal, a.personal, a.continuous, limits))


if __name__ == "__main__":
    main()
