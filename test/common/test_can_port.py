"""The SocketCAN port without a kernel that has CAN: a socket that refuses, and frames of every kind.

test/kernel has the same on a real one.
"""

from __future__ import annotations

import errno
import struct
from typing import Any

import numpy as np

from robot_charger.common.can_bus import WAITING_S, FramePort, _SocketCanPort

FRAME = struct.Struct("<IBBH64s")


class Queue:
    """A socket whose interface takes ``room`` frames until it is asked again."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.left = room
        self.sent: list[tuple[int, bytes]] = []
        self.down = False
        self.incoming: list[bytes] = []

    def send(self, frame: bytes) -> None:
        if self.down:
            raise OSError(errno.ENETDOWN, "Network is down")
        if not self.left:
            raise OSError(errno.ENOBUFS, "No buffer space available")
        self.left -= 1
        self.sent.append((struct.unpack("<I", frame[:4])[0], frame[8:16]))

    def recv(self, size: int, flags: int) -> bytes:
        if not self.incoming:
            raise BlockingIOError
        return self.incoming.pop(0)

    def setsockopt(self, *_: Any) -> None:
        """Filters are the kernel's."""


class Bus:
    channel_info = "can0"

    def __init__(self, room: int) -> None:
        self.socket = Queue(room)


def port(room: int, **options: Any) -> tuple[FramePort, Queue]:
    bus = Bus(room)
    return _SocketCanPort(bus, **options), bus.socket  # type: ignore[arg-type]


IDS = 0x201 + np.arange(46)


def cycle(it: FramePort, queue: Queue, number: int) -> list[int]:
    queue.left, queue.sent = queue.room, []
    it.write(IDS, np.full((46, 8), number, np.uint8))
    return [identifier for identifier, _ in queue.sent]


def test_a_full_queue_keeps_the_order_and_every_module_gets_its_turn() -> None:
    it, queue = port(10)
    heard = [identifier for number in range(23) for identifier in cycle(it, queue, number)]
    assert heard[:46] == IDS.tolist(), "on from the refused one"
    assert min(heard.count(i) for i in IDS.tolist()) >= 4, "every module gets its turn"


def test_what_waits_is_replaced_by_what_is_newer() -> None:
    it, queue = port(10)
    cycle(it, queue, 1)
    cycle(it, queue, 2)
    assert all(data == bytes([2] * 8) for _, data in queue.sent), "no old set-point leaves late"


def test_a_full_queue_is_told() -> None:
    it, queue = port(10)
    cycle(it, queue, 1)
    assert it.errors == 1 and "txqueuelen" in it.notes[0]
    cycle(it, queue, 2)
    assert len(it.notes) == 1, "once in a while, not each cycle"


def test_a_frame_that_waited_too_long_is_dropped() -> None:
    it, queue = port(0)
    cycle(it, queue, 1)
    waiting = it._waiting  # type: ignore[attr-defined]
    for key, (since, frame) in list(waiting.items()):
        waiting[key] = since - 2 * WAITING_S, frame
    queue.left = 100
    it.write([0x400], np.zeros((1, 8), np.uint8))
    assert [i for i, _ in queue.sent] == [0x400]


def test_an_interface_that_is_down_refuses_and_forgets() -> None:
    it, queue = port(100)
    queue.down = True
    assert not it.write(IDS, np.zeros((46, 8), np.uint8)) and it.errors == 1 and it.notes
    queue.down = False
    assert it.write(IDS, np.ones((46, 8), np.uint8)) and len(queue.sent) == 46


def test_29_bit_requests_with_one_identifier_do_not_replace_each_other() -> None:
    it, queue = port(1, fd=False, extended=True)
    it.write([0x06080F80] * 2, np.array([[3, 0, 0, 0x21, *[0] * 4], [3, 0, 0, 0x1B, *[0] * 4]], np.uint8))
    queue.left = 5
    it.write([], np.zeros((0, 8), np.uint8))
    assert [data[3] for _, data in queue.sent] == [0x21, 0x1B]


def test_error_and_remote_frames_are_never_data() -> None:
    it, queue = port(10)
    for identifier in (0x2000_028C, 0x2000_0040, 0x4000_0185, 0x6000_0001, 0x28C):
        queue.incoming.append(FRAME.pack(identifier, 8, 0, 0, bytes(64))[:16])
    (batch,) = it.read()
    assert batch.ids.tolist() == [0x28C] and it.foreign == 4 and it.bad == 4
    assert any("bus-off" in note for note in it.notes)
