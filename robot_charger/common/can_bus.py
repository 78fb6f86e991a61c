"""Opening a CAN bus by one word, and reading or writing many frames at a time on any of them.

A bus is named ``socketcan:can0``, ``udp:42000`` (see common.can_udp) or ``virtual:NAME`` (one process only).
A bank of several buses is a comma-separated list; ``udp:42000*5`` stands for five consecutive blocks.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import time
from collections import deque
from pathlib import Path
from typing import Any

import can
import numpy as np

from robot_charger.common.can_udp import BIT_RATE_SWITCH, EXTENDED, FD, SLOTS, Batch, UdpBus, record_type

SOL_CAN_RAW, CAN_RAW_ERR_FILTER = 101, 2
ERROR_TEXTS = {  # classes of error frames that are told; linux/can/error.h
    0x01: "a frame was not sent in time: nobody acknowledges",
    0x10: "the transceiver reports a fault: cable or supply",
    0x40: "bus-off: too many errors, the interface is silent; with restart-ms 100 it comes back by itself",
    0x100: "the interface was restarted after bus-off",
}
ERROR_CLASSES = sum(ERROR_TEXTS)
KINDS = "socketcan:can0, udp:42000 or virtual:name"


class BusError(OSError):
    """A bus cannot be opened; the text names it and says what would be right."""


def open_bus(spec: str, fd: bool = True, **options: Any) -> can.BusABC:
    """Open one bus. Further options go to python-can. Raises BusError."""
    kind, _, channel = spec.partition(":")
    try:
        if kind == "udp" and channel:
            return UdpBus(channel, fd=fd, **options)
        if kind == "virtual" and channel:
            return can.Bus(interface="virtual", channel=channel, fd=fd, **options)
        if kind == "socketcan" and channel:
            if not Path("/sys/class/net", channel).exists():
                raise BusError(f"bus {spec}: there is no network interface {channel}; `ip link` lists them")
            filters = [{"extended": False, **f} for f in options.pop("can_filters", None) or ()]
            # Without "extended" a filter lets 29-bit frames with the same low bits pass.
            return can.Bus(interface="socketcan", channel=channel, fd=fd, can_filters=filters or None, **options)
    except (can.CanError, ValueError) as error:
        raise BusError(f"bus {spec}: {error}") from error
    except BusError:
        raise
    except OSError as error:
        raise BusError(f"bus {spec}: {error.strerror or error}; is it up, with CAN-FD on?") from error
    raise BusError(f"bus {spec!r} is unknown: one of {KINDS}")


def expand(spec: str) -> list[str]:
    """The buses of a bank, each by its own name. Raises BusError on a spelling that names none."""
    names: list[str] = []
    for part in (p.strip() for p in spec.split(",")):
        name, star, count = part.partition("*")
        if not star:
            names.append(name)
            continue
        kind, _, base = name.partition(":")
        if kind != "udp" or not base.isdigit() or not count.isdigit() or not 1 <= int(count) <= 255:
            raise BusError(f"bus {part!r}: only udp:PORT*COUNT names several buses")
        names += [f"udp:{int(base) + SLOTS * i}" for i in range(int(count))]
    if not all(names):
        raise BusError(f"bus {spec!r} names no bus: a list of {KINDS}")
    return names


STANDARD_MAX = 0x7FF
WAITING_S = 0.1  # a frame that the interface could not take yet is dropped when it is older: it would be a lie
TELL_S = 5.0  # the same trouble is noted so often at most


class FramePort:
    """Many frames at a time on one bus of any kind. ``socket`` (or None) is what a selector can wait on.

    ``fd`` is whether it sends CAN-FD frames with bit-rate switch, or classic ones; ``extended`` whether with 29-bit
    identifiers. An identifier that does not fit is refused, never cut. ``notes`` holds what a person should hear of the
    bus: refused frames, bus-off, a full queue.
    """

    def __init__(self, bus: can.BusABC, fd: bool = True, extended: bool = False) -> None:
        self.bus = bus
        self.fd = fd
        self.extended = extended
        self.socket = getattr(bus, "socket", None)
        self.frames_in = 0
        self.frames_out = 0
        self.errors = 0
        self.foreign = 0  # error and remote frames
        self.notes: deque[str] = deque(maxlen=100)
        self._noted: dict[str, float] = {}

    @property
    def bad(self) -> int:
        """Datagrams or frames that were no CAN frames."""
        return int(getattr(self.bus, "bad", 0)) + self.foreign

    def read(self) -> list[Batch]:
        """All frames that have arrived, without waiting. Raises can.CanError when the bus is gone."""
        batches = self._read()
        self.frames_in += sum(len(b) for b in batches)
        return batches

    def write(self, ids: Any, data: np.ndarray) -> bool:
        """Send frames of one length: ``ids`` (n), ``data`` u8 (n, length). False: the bus refused."""
        most = STANDARD_MAX if not self.extended else 0x1FFF_FFFF
        if len(data) and (np.asarray(ids).max() > most or np.asarray(ids).min() < 0):
            self.errors += 1
            self.note("identifier", f"an identifier above {most:#x} was not sent: this bus has {self._width} bits")
            return False
        try:
            sent = self._write(ids, data)
        except (can.CanError, OSError) as error:
            self.errors += 1
            self.note("refused", f"a frame was refused: {error}")
            return False
        self.frames_out += sent
        return True

    @property
    def _width(self) -> int:
        return 29 if self.extended else 11

    def note(self, key: str, text: str) -> None:
        """Keep something for a person to hear, the same not oftener than every TELL_S."""
        now = time.monotonic()
        if now - self._noted.get(key, -TELL_S) >= TELL_S:
            self._noted[key] = now
            self.notes.append(f"{self.bus.channel_info}: {text}")

    def close(self) -> None:
        with contextlib.suppress(can.CanError, OSError):
            self.bus.shutdown()

    def _read(self) -> list[Batch]:
        frames: list[can.Message] = []
        while len(frames) < 4096:
            message = self.bus.recv(0)
            if message is None:
                break
            if message.is_error_frame or message.is_remote_frame:
                self.foreign += 1
                continue
            frames.append(message)
        return [as_batch(frames)] if frames else []

    def _write(self, ids: Any, data: np.ndarray) -> int:
        for identifier, payload in zip(np.asarray(ids).tolist(), data, strict=True):
            self.bus.send(
                can.Message(
                    arbitration_id=identifier,
                    is_extended_id=self.extended,
                    is_fd=self.fd,
                    bitrate_switch=self.fd,
                    data=payload.tobytes(),
                )
            )
        return len(data)


class _UdpPort(FramePort):
    bus: UdpBus

    def _read(self) -> list[Batch]:
        return self.bus.recv_batch(0.0)

    def _write(self, ids: Any, data: np.ndarray) -> int:
        flags = (FD | BIT_RATE_SWITCH if self.fd else 0) | (EXTENDED if self.extended else 0)
        self.bus.send_batch(ids, data, flags)
        return len(data)


class _SocketCanPort(FramePort):
    """Raw canfd_frame structures: python-can's Message costs a microsecond per frame.

    When the interface's queue is full (ENOBUFS, at ten frames by default) the frames wait here, in their order, and
    leave with the next cycles. A newer frame of the same identifier takes the place of one that waits, and none waits
    for longer than WAITING_S.
    """

    _FRAME = struct.Struct("<IBBH64s")  # id, length, flags, reserved, data
    _CLASSIC = struct.Struct("<IB3x8s")
    _FDF_BRS = 0x05

    def __init__(self, bus: can.BusABC, fd: bool = True, extended: bool = False) -> None:
        super().__init__(bus, fd, extended)
        self._waiting: dict[Any, tuple[float, bytes]] = {}
        assert self.socket is not None
        with contextlib.suppress(OSError):  # of error frames only what a person can mend
            self.socket.setsockopt(SOL_CAN_RAW, CAN_RAW_ERR_FILTER, ERROR_CLASSES)

    def _read(self) -> list[Batch]:
        assert self.socket is not None
        frames: list[bytes] = []
        is_fd: list[bool] = []
        while len(frames) < 4096:
            try:
                frame = self.socket.recv(self._FRAME.size, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            if frame[3] & 0x60:  # the flags of a remote or an error frame, in the identifier's top byte
                self._not_data(frame)
                continue
            is_fd.append(len(frame) == self._FRAME.size)  # a classic frame has 16 bytes
            frames.append(frame.ljust(self._FRAME.size, b"\0"))
        if not frames:
            return []
        raw = np.frombuffer(
            b"".join(frames),
            [("id", "<u4"), ("length", "u1"), ("flags", "u1"), ("pad", "<u2"), ("data", "u1", (64,))],
        )
        flags = np.where(raw["id"] & 0x8000_0000, EXTENDED, 0) | np.where(is_fd, FD, 0)
        return [Batch(raw["id"] & 0x1FFF_FFFF, flags.astype(np.uint8), raw["length"], raw["data"])]

    def _not_data(self, frame: bytes) -> None:
        self.foreign += 1
        identifier = int.from_bytes(frame[:4], "little")
        if identifier & 0x2000_0000:
            for bit, text in ERROR_TEXTS.items():
                if identifier & bit:
                    self.note(text, text)

    def _write(self, ids: Any, data: np.ndarray) -> int:
        now = time.monotonic()
        waiting = self._waiting
        for identifier, payload in zip(np.asarray(ids).tolist(), data, strict=True):
            number = identifier | (0x8000_0000 if self.extended else 0)
            if self.fd:
                frame = self._FRAME.pack(number, len(payload), self._FDF_BRS, 0, payload.tobytes())
            else:
                frame = self._CLASSIC.pack(number, len(payload), payload.tobytes())
            # 29-bit protocols have one identifier for all a module is asked: their frames do not replace each other.
            waiting[(identifier, frame[8:12]) if self.extended else identifier] = now, frame
        return self._flush(now)

    def _flush(self, now: float) -> int:
        """Send what waits, until the interface takes no more. Raises OSError when it is down."""
        assert self.socket is not None
        sent = 0
        waiting = self._waiting
        for key in list(waiting):
            since, frame = waiting[key]
            if now - since > WAITING_S:
                del waiting[key]
                self.errors += 1
                continue
            try:
                self.socket.send(frame)
            except OSError as error:
                if error.errno not in (errno.ENOBUFS, errno.EAGAIN):
                    waiting.clear()
                    raise
                self.errors += 1
                self.note(
                    "queue",
                    f"the interface's queue is full, {len(waiting)} frames wait: `ip link set NAME txqueuelen 1000`; "
                    "when it stays full, nobody acknowledges: cable, bit rate, termination",
                )
                break
            del waiting[key]
            sent += 1
        return sent


def frame_port(bus: can.BusABC, fd: bool = True, extended: bool = False) -> FramePort:
    """The fastest way this bus offers for many frames at a time."""
    if isinstance(bus, UdpBus):
        return _UdpPort(bus, fd, extended)
    if type(bus).__name__ == "SocketcanBus":
        return _SocketCanPort(bus, fd, extended)
    return FramePort(bus, fd, extended)


def as_batch(frames: list[can.Message]) -> Batch:
    """Ordinary python-can messages as a batch."""
    stride = max((len(f.data) for f in frames), default=0)
    records = np.zeros(len(frames), record_type(stride))
    for record, frame in zip(records, frames, strict=True):
        flags = EXTENDED * frame.is_extended_id | FD * frame.is_fd | BIT_RATE_SWITCH * frame.bitrate_switch
        record["id"], record["flags"], record["length"] = frame.arbitration_id, flags, len(frame.data)
        record["data"][: len(frame.data)] = np.frombuffer(bytes(frame.data), np.uint8)
    return Batch(records["id"], records["flags"], records["length"], records["data"])
