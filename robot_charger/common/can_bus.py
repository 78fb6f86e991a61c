"""Opening a CAN bus by one word, and reading or writing many frames at a time on any of them.

A bus is named ``socketcan:can0``, ``udp:42000`` (see common.can_udp) or ``virtual:NAME`` (one process only).
A bank of several buses is a comma-separated list; ``udp:42000*5`` stands for five consecutive blocks.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from pathlib import Path
from typing import Any

import can
import numpy as np

from robot_charger.common.can_udp import BIT_RATE_SWITCH, EXTENDED, FD, SLOTS, Batch, UdpBus, record_type

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
            return can.Bus(interface="socketcan", channel=channel, fd=fd, **options)
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


class FramePort:
    """Many frames at a time on one bus of any kind. ``socket`` (or None) is what a selector can wait on.

    ``fd`` is whether it sends CAN-FD frames with bit-rate switch, or classic ones.
    """

    def __init__(self, bus: can.BusABC, fd: bool = True) -> None:
        self.bus = bus
        self.fd = fd
        self.socket = getattr(bus, "socket", None)
        self.frames_in = 0
        self.frames_out = 0
        self.errors = 0

    @property
    def bad(self) -> int:
        """Datagrams or frames that were no CAN frames."""
        return int(getattr(self.bus, "bad", 0))

    def read(self) -> list[Batch]:
        """All frames that have arrived, without waiting. Raises can.CanError when the bus is gone."""
        batches = self._read()
        self.frames_in += sum(len(b) for b in batches)
        return batches

    def write(self, ids: Any, data: np.ndarray) -> bool:
        """Send frames of one length: ``ids`` (n), ``data`` u8 (n, length). False: the bus refused."""
        try:
            self._write(ids, data)
        except (can.CanError, OSError):
            self.errors += 1
            return False
        self.frames_out += len(data)
        return True

    def close(self) -> None:
        with contextlib.suppress(can.CanError, OSError):
            self.bus.shutdown()

    def _read(self) -> list[Batch]:
        frames: list[can.Message] = []
        while len(frames) < 4096:
            message = self.bus.recv(0)
            if message is None:
                break
            frames.append(message)
        return [as_batch(frames)] if frames else []

    def _write(self, ids: Any, data: np.ndarray) -> None:
        for identifier, payload in zip(np.asarray(ids).tolist(), data, strict=True):
            self.bus.send(
                can.Message(
                    arbitration_id=identifier,
                    is_extended_id=False,
                    is_fd=self.fd,
                    bitrate_switch=self.fd,
                    data=payload.tobytes(),
                )
            )


class _UdpPort(FramePort):
    bus: UdpBus

    def _read(self) -> list[Batch]:
        return self.bus.recv_batch(0.0)

    def _write(self, ids: Any, data: np.ndarray) -> None:
        self.bus.send_batch(ids, data, FD | BIT_RATE_SWITCH if self.fd else 0)


class _SocketCanPort(FramePort):
    """Raw canfd_frame structures: python-can's Message costs a microsecond per frame."""

    _FRAME = struct.Struct("<IBBH64s")  # id, length, flags, reserved, data
    _CLASSIC = struct.Struct("<IB3x8s")
    _FDF_BRS = 0x05

    def _read(self) -> list[Batch]:
        assert self.socket is not None
        frames: list[bytes] = []
        is_fd: list[bool] = []
        while len(frames) < 4096:
            try:
                frame = self.socket.recv(self._FRAME.size, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
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

    def _write(self, ids: Any, data: np.ndarray) -> None:
        assert self.socket is not None
        for identifier, payload in zip(np.asarray(ids).tolist(), data, strict=True):
            if self.fd:
                frame = self._FRAME.pack(identifier, len(payload), self._FDF_BRS, 0, payload.tobytes())
            else:
                frame = self._CLASSIC.pack(identifier, len(payload), payload.tobytes())
            self.socket.send(frame)


def frame_port(bus: can.BusABC, fd: bool = True) -> FramePort:
    """The fastest way this bus offers for many frames at a time."""
    if isinstance(bus, UdpBus):
        return _UdpPort(bus, fd)
    if type(bus).__name__ == "SocketcanBus":
        return _SocketCanPort(bus, fd)
    return FramePort(bus, fd)


def as_batch(frames: list[can.Message]) -> Batch:
    """Ordinary python-can messages as a batch."""
    stride = max((len(f.data) for f in frames), default=0)
    records = np.zeros(len(frames), record_type(stride))
    for record, frame in zip(records, frames, strict=True):
        flags = EXTENDED * frame.is_extended_id | FD * frame.is_fd | BIT_RATE_SWITCH * frame.bitrate_switch
        record["id"], record["flags"], record["length"] = frame.arbitration_id, flags, len(frame.data)
        record["data"][: len(frame.data)] = np.frombuffer(bytes(frame.data), np.uint8)
    return Batch(records["id"], records["flags"], records["length"], records["data"])
