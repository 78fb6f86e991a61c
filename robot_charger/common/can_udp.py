"""A CAN bus between processes of one computer, as the python-can interface ``udp``.

A bus is a block of eight UDP ports on 127.0.0.1; ``channel`` names the first. Every participant binds the
first free port of the block (its slot) and sends each datagram to the other slots it has heard of. There is no
hub that could die, nothing leaves the host, and nobody hears its own frames.

One datagram carries any number of frames, so that a control cycle of hundreds of modules costs one system
call on each side::

    header  "RCB1"  kind u8  slot u8  count u16  stride u16  0 u16                (12 bytes, little-endian)
    frame   id u32  flags u8  length u8  0 u16  data, padded to stride bytes      (count times)

Kinds: hello (asks everyone to answer), here (the answer), frames, bye. Flags: 1 extended id, 2 remote,
4 error, 8 CAN-FD, 16 bit-rate switch. What is none of these is counted in ``UdpBus.bad`` and dropped.

Hello and here carry the sender's acceptance filters (``count`` pairs of id u32, mask u32; none: all frames), as a
CAN controller holds them: a datagram in which no frame passes a participant's filters is not sent to it at all.

Like a real bus it guarantees no delivery: who does not read loses frames (4 MB of buffer are asked for).
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import can
import numpy as np

SLOTS = 8
HOST = "127.0.0.1"
MAGIC = b"RCB1"
HELLO, HERE, FRAMES, BYE = 0, 1, 2, 3
EXTENDED, REMOTE, ERROR, FD, BIT_RATE_SWITCH = 1, 2, 4, 8, 16
HEADER = struct.Struct("<4sBBHHH")
RECORD = struct.Struct("<IBBH")
MAX_DATAGRAM = 60_000
RECEIVE_BUFFER = 4 * 1024 * 1024
FD_LENGTHS = frozenset([0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 20, 24, 32, 48, 64])
FILTER = struct.Struct("<II")
Filters = tuple[tuple[int, int], ...]  # (id, mask)
_FD_LENGTH = np.zeros(256, bool)
_FD_LENGTH[list(FD_LENGTHS)] = True
_ALL_S = 1.0  # for so long after opening, frames go to every slot: the others may not have answered yet
_DEAF_S = 0.05  # who has not read for so long cannot have heard of newcomers


@dataclass(frozen=True)
class Batch:
    """n frames that arrived together: ``ids`` u32 (n), ``flags`` and ``lengths`` u8 (n), ``data`` u8 (n, stride)."""

    ids: np.ndarray
    flags: np.ndarray
    lengths: np.ndarray
    data: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


def record_type(stride: int) -> np.dtype:
    """One frame as it lies in a datagram."""
    kind = _RECORD_TYPES.get(stride)
    if kind is None:
        fields = [("id", "<u4"), ("flags", "u1"), ("length", "u1"), ("pad", "<u2"), ("data", "u1", (stride,))]
        kind = _RECORD_TYPES[stride] = np.dtype(fields)
    return kind


_RECORD_TYPES: dict[int, np.dtype] = {}


def free_block(buses: int = 1) -> int:
    """A base port whose ``buses`` * 8 ports are all free now. Raises OSError when there is none."""
    start = 50_000 + 8 * (time.time_ns() // 1000 % 1200)
    for step in range(1200):
        base = 50_000 + (start - 50_000 + 8 * step) % 9600
        with contextlib.ExitStack() as sockets:
            try:
                for port in range(base, base + SLOTS * buses):
                    sockets.enter_context(_bound(port))
                return base
            except OSError:
                continue
    raise OSError(f"no {SLOTS * buses} free UDP ports in a row on {HOST}")


def _bound(port: int) -> socket.socket:
    endpoint = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        endpoint.bind((HOST, port))
    except OSError:
        endpoint.close()
        raise
    return endpoint


class UdpBus(can.BusABC):
    """python-can bus over UDP unicast on this host.

    ``channel``: first port of the block, 1024 to 65528. ``fd``: whether CAN-FD frames may be sent.
    One thread may send while another receives. Raises can.CanInitializationError when the channel is no port
    or all eight slots are taken.
    """

    def __init__(self, channel: Any = 42000, can_filters: Any = None, fd: bool = True, **kwargs: Any) -> None:
        try:
            self.base = int(channel)
        except (TypeError, ValueError):
            raise can.CanInitializationError(f"udp:{channel} is no port number") from None
        if not 1024 <= self.base <= 65536 - SLOTS:
            raise can.CanInitializationError(f"udp:{channel} is not between 1024 and {65536 - SLOTS}")
        for slot in range(SLOTS):
            try:
                self.socket = _bound(self.base + slot)
                self.slot = slot
                break
            except OSError:
                continue
        else:
            raise can.CanInitializationError(f"all {SLOTS} places of the bus udp:{self.base} are taken")
        for option in (33, socket.SO_RCVBUF):  # SO_RCVBUFFORCE passes the system's limit, for root only
            with contextlib.suppress(OSError):
                self.socket.setsockopt(socket.SOL_SOCKET, option, RECEIVE_BUFFER)
                break
        self.socket.setblocking(False)
        self.fd = fd
        self.bad = 0
        self.channel_info = f"udp:{self.base} slot {self.slot}"
        self._can_protocol = can.CanProtocol.CAN_FD if fd else can.CanProtocol.CAN_20
        self._others = [(HOST, self.base + s) for s in range(SLOTS) if s != self.slot]
        self._known: dict[tuple[str, int], Filters] = {}  # replaced, never changed: two threads read it
        self._wanted: Filters = ()
        self._opened = self._read_at = time.monotonic()
        self._queue: deque[can.Message] = deque()
        self._send_lock = threading.Lock()
        super().__init__(channel=channel, can_filters=can_filters, **kwargs)
        self._tell(HELLO, self._others)

    def _apply_filters(self, filters: Any) -> None:
        """Tell the others; python-can still filters what ``recv`` gives, ``recv_batch`` may give more."""
        self._wanted = tuple((int(f["can_id"]), int(f["can_mask"])) for f in filters or ())
        self._tell(HERE, self._others)

    def send(self, msg: can.Message, timeout: float | None = None) -> None:
        if msg.is_fd and not self.fd:
            raise can.CanOperationError("this bus was opened without CAN-FD")
        flags = (
            EXTENDED * msg.is_extended_id
            | REMOTE * msg.is_remote_frame
            | ERROR * msg.is_error_frame
            | FD * msg.is_fd
            | BIT_RATE_SWITCH * msg.bitrate_switch
        )
        data = b"" if msg.is_remote_frame else bytes(msg.data)
        record = RECORD.pack(msg.arbitration_id, flags, msg.dlc if msg.is_remote_frame else len(data), 0)
        self._frames(1, len(data), record + data, msg.arbitration_id)

    def send_batch(self, ids: Any, data: np.ndarray, flags: int = FD | BIT_RATE_SWITCH) -> None:
        """Send frames of equal length: ``ids`` (n), ``data`` u8 (n, length)."""
        count, stride = data.shape
        if count == 1:
            identifier = int(ids[0])
            record = RECORD.pack(identifier, flags, stride, 0) + data.tobytes()
            self._frames(1, stride, record, identifier)
            return
        records = np.zeros(count, record_type(stride))
        records["id"] = ids
        records["flags"] = flags
        records["length"] = stride
        records["data"] = data
        most = MAX_DATAGRAM // records.itemsize
        for first in range(0, count, most):
            part = records[first : first + most]
            self._frames(len(part), stride, part.tobytes(), part["id"])

    def recv_batch(self, timeout: float | None = 0.0) -> list[Batch]:
        """All frames that have arrived; waits up to ``timeout`` seconds for the first (None: for ever)."""
        batches: list[Batch] = []
        deadline = None if timeout is None else time.monotonic() + timeout
        while len(batches) < 256:
            self._read_at = time.monotonic()
            try:
                datagram, sender = self.socket.recvfrom(65536)
            except BlockingIOError:
                left = None if deadline is None else deadline - time.monotonic()
                if batches or (left is not None and left <= 0.0):
                    return batches
                try:
                    select.select([self.socket], [], [], left)
                except ValueError:  # closed by another thread
                    raise can.CanOperationError(f"bus udp:{self.base} is closed") from None
                continue
            except ConnectionError:  # a peer's port has closed
                continue
            except OSError as error:
                raise can.CanOperationError(f"bus udp:{self.base}: {error}") from error
            batch = self._decode(datagram, sender)
            if batch is not None and len(batch):
                batches.append(batch)
        return batches

    def _recv_internal(self, timeout: float | None) -> tuple[can.Message | None, bool]:
        if not self._queue:
            now = time.time()
            for batch in self.recv_batch(timeout):
                self._queue.extend(messages(batch, now))
        return (self._queue.popleft() if self._queue else None), False

    def shutdown(self) -> None:
        if not self._is_shutdown:
            with contextlib.suppress(OSError):
                self._tell(BYE, self._others)
        super().shutdown()
        self.socket.close()

    def _frames(self, count: int, stride: int, records: bytes, ids: Any) -> None:
        now = time.monotonic()
        everyone = now - self._opened < _ALL_S or now - self._read_at > _DEAF_S
        peers = self._others if everyone else [p for p, wanted in self._known.items() if _passes(wanted, ids)]
        with self._send_lock:
            header = HEADER.pack(MAGIC, FRAMES, self.slot, count, stride, 0)
            self._post(header + records, peers)

    def _tell(self, kind: int, peers: Any) -> None:
        wanted = b"".join(FILTER.pack(*f) for f in self._wanted)
        self._post(HEADER.pack(MAGIC, kind, self.slot, len(self._wanted), 0, 0) + wanted, peers)

    def _post(self, datagram: bytes, peers: Any) -> None:
        for peer in peers:
            try:
                self.socket.sendto(datagram, peer)
            except (BlockingIOError, ConnectionError):
                continue  # nobody there, or its buffer is full: a frame lost on the bus
            except OSError as error:
                raise can.CanOperationError(f"bus udp:{self.base}: {error}") from error

    def _decode(self, datagram: bytes, sender: tuple[str, int]) -> Batch | None:
        if len(datagram) < HEADER.size or not self.base <= sender[1] < self.base + SLOTS:
            self.bad += 1
            return None
        magic, kind, _, count, stride, _ = HEADER.unpack_from(datagram)
        if magic != MAGIC or kind > BYE or stride > 64:
            self.bad += 1
            return None
        if kind == BYE:
            self._known = {p: wanted for p, wanted in self._known.items() if p != sender}
            return None
        if kind != FRAMES:
            if len(datagram) != HEADER.size + count * FILTER.size:
                self.bad += 1
                return None
            wanted = tuple(FILTER.iter_unpack(datagram[HEADER.size :]))
            self._known = {**self._known, sender: wanted}
            if kind == HELLO:
                self._tell(HERE, [sender])
            return None
        if sender not in self._known:
            self._known = {**self._known, sender: ()}
        if len(datagram) != HEADER.size + count * (RECORD.size + stride):
            self.bad += 1
            return None
        records = np.frombuffer(datagram, record_type(stride), count, HEADER.size)
        lengths, flags = records["length"], records["flags"]
        if self.fd and stride in FD_LENGTHS and _plain(datagram, count, stride):
            return Batch(records["id"], flags, lengths, records["data"])
        top = np.where(flags & EXTENDED, 0x1FFF_FFFF, 0x7FF)
        is_fd = flags & FD != 0
        remote = flags & REMOTE != 0
        fits = np.where(is_fd, _FD_LENGTH[lengths], lengths <= 8) & ((lengths <= stride) | remote)
        good = (records["id"] <= top) & fits & ~(is_fd & (remote if self.fd else True))
        if not good.all():
            self.bad += int(count - good.sum())
            records = records[good]
        return Batch(records["id"], records["flags"], records["length"], records["data"])


def _passes(wanted: Filters, ids: Any) -> bool:
    """Whether one of ``ids`` (an int or an array) passes one of the filters; no filters pass all."""
    if not wanted:
        return True
    if isinstance(ids, int):
        return any((ids ^ identifier) & mask == 0 for identifier, mask in wanted)
    return any(bool(((ids ^ identifier) & mask == 0).any()) for identifier, mask in wanted)


def _plain(datagram: bytes, count: int, stride: int) -> bool:
    """Whether all are CAN-FD frames with 11-bit ids that fill the stride, as nearly all are."""
    if count == 1:
        identifier, flags, length, _ = RECORD.unpack_from(datagram, HEADER.size)
        return identifier <= 0x7FF and flags == FD | BIT_RATE_SWITCH and length == stride
    if not count:
        return True
    size = (RECORD.size + stride,)
    ids = np.ndarray(count, "<u4", datagram, HEADER.size, size)
    kinds = np.ndarray(count, "<u2", datagram, HEADER.size + 4, size)  # flags and length as one number
    return bool((kinds == FD | BIT_RATE_SWITCH | stride << 8).all()) and int(ids.max()) <= 0x7FF


def messages(batch: Batch, timestamp: float = 0.0) -> list[can.Message]:
    """A batch as ordinary python-can messages."""
    return [
        can.Message(
            timestamp=timestamp,
            arbitration_id=int(identifier),
            is_extended_id=bool(flags & EXTENDED),
            is_remote_frame=bool(flags & REMOTE),
            is_error_frame=bool(flags & ERROR),
            is_fd=bool(flags & FD),
            bitrate_switch=bool(flags & BIT_RATE_SWITCH),
            dlc=int(length),
            data=None if flags & REMOTE else data[:length].tobytes(),
        )
        for identifier, flags, length, data in zip(
            batch.ids.tolist(), batch.flags.tolist(), batch.lengths.tolist(), batch.data, strict=True
        )
    ]
