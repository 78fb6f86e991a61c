"""J1939 transport protocol between two addresses: messages of 9 to 1785 bytes in packets of seven (SAE J1939-21).

    sender    RTS  10 LEN_L LEN_H PACKETS MOST PGN0 PGN1 PGN2     request to send
    receiver  CTS  11 PACKETS NEXT FF FF PGN0 PGN1 PGN2           clear to send so many packets from NEXT
    sender    DT   NUMBER + 7 bytes, the last padded by FF
    receiver  EOM  13 LEN_L LEN_H PACKETS FF PGN0 PGN1 PGN2       all has arrived
    either    ABORT FF REASON FF FF FF PGN0 PGN1 PGN2

``Receiver`` and ``Sender`` take frames and the time and give frames; no I/O, no clock. The layout and the pace were
measured in a recorded session of a real charger (112 transfers: RTS to CTS 0.8 ms, packet to packet 10 ms).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

CM, DT = 0xEC, 0xEB  # PF of connection management and of data
PRIORITY = 7
RTS, CTS, EOM, ABORT = 0x10, 0x11, 0x13, 0xFF
REASON_RESOURCES, REASON_TIMEOUT, REASON_SEQUENCE = 2, 3, 7
PACKET = 7  # bytes of the message in one frame
MOST = 1785  # bytes of a message; a sender needs it above eight, and some send shorter ones by it
PACKET_NS = 750_000_000  # T1: from packet to packet
CLEARED_NS = 1_250_000_000  # T2 and T3: from CTS to packet, from the last packet to EOM or CTS
REPEATS = 2  # missing packets are asked for again so often

Frame = tuple[int, bytes]  # identifier, data


def identifier(pf: int, source: int, destination: int) -> int:
    return PRIORITY << 26 | pf << 16 | destination << 8 | source


def packets_of(length: int) -> int:
    return (length + PACKET - 1) // PACKET


def _control(kind: int, *middle: int, pgn: int) -> bytes:
    return bytes([kind, *middle, pgn & 0xFF, pgn >> 8 & 0xFF, pgn >> 16 & 0xFF])


def _pgn(data: bytes) -> int:
    return int.from_bytes(data[5:8], "little")


@dataclass
class _Incoming:
    pgn: int
    length: int
    packets: int
    at_once: int  # packets the sender sends on one CTS
    data: bytearray
    following: int = 1  # number of the next packet
    cleared: int = 0  # number of the last packet we cleared
    repeats: int = 0
    heard_ns: int = 0
    patience_ns: int = CLEARED_NS


class Receiver:
    """Messages that ``peer`` sends to ``own``. ``accepts(pgn, length)`` is why not, empty when welcome.

    ``bad`` counts broken transfers, ``last_bad`` names the newest.
    """

    def __init__(self, own: int, peer: int, accepts: Callable[[int, int], str]) -> None:
        self._down, self._up = identifier(CM, own, peer), (own, peer)
        self._accepts = accepts
        self._open: _Incoming | None = None
        self.bad = 0
        self.last_bad = ""

    @property
    def busy(self) -> bool:
        return self._open is not None

    def control(self, data: bytes, now_ns: int) -> list[Frame]:
        """A connection-management frame of the peer: what to answer at once."""
        if len(data) != 8:
            return self._count(f"transport control of {len(data)} bytes")
        if data[0] == RTS:
            return self._request(data, now_ns)
        if data[0] == ABORT and self._open and self._open.pgn == _pgn(data):
            self._broken(f"the vehicle gave up its message 0x{_pgn(data):06X}")
        return []

    def packet(self, data: bytes, now_ns: int) -> tuple[list[Frame], tuple[int, bytes] | None]:
        """A data frame: what to answer at once, and the message (PGN, bytes) when it is complete."""
        o = self._open
        if o is None or len(data) != 8:
            text = "a packet that belongs to no message" if len(data) == 8 else f"a packet of {len(data)} bytes"
            return self._count(text), None
        o.heard_ns, o.patience_ns = now_ns, PACKET_NS
        if data[0] != o.following:
            if data[0] < o.following:
                return [], None  # one that we have
            return self._missing(o), None
        o.data += data[1:]
        o.following += 1
        if o.following > o.packets:
            self._open = None
            end = _control(EOM, o.length & 0xFF, o.length >> 8, o.packets, 0xFF, pgn=o.pgn)
            return [(self._down, end)], (o.pgn, bytes(o.data[: o.length]))
        if o.following > o.cleared:
            return [self._clear(o)], None
        return [], None

    def step(self, now_ns: int) -> list[Frame]:
        """A transfer that stalls is aborted."""
        o = self._open
        if o is None or now_ns - o.heard_ns <= o.patience_ns:
            return []
        return self._abort(REASON_TIMEOUT, f"message 0x{o.pgn:06X} stalled before packet {o.following}")

    def _request(self, data: bytes, now_ns: int) -> list[Frame]:
        length, packets, pgn = int.from_bytes(data[1:3], "little"), data[3], _pgn(data)
        wrong = "" if 1 <= length <= MOST and packets == packets_of(length) else "impossible size"
        wrong = wrong or self._accepts(pgn, length)
        if self._open and self._open.pgn != pgn:  # a sender has one transfer at a time: it left the old one
            self._broken(f"message 0x{self._open.pgn:06X} was left at packet {self._open.following}")
        if wrong:
            self._broken(f"message 0x{pgn:06X} of {length} bytes in {packets} packets: {wrong}")
            return [(self._down, _control(ABORT, REASON_RESOURCES, 0xFF, 0xFF, 0xFF, pgn=pgn))]
        at_once = data[4] or 0xFF
        self._open = _Incoming(pgn, length, packets, at_once, bytearray(), heard_ns=now_ns)
        return [self._clear(self._open)]

    def _clear(self, o: _Incoming) -> Frame:
        count = min(o.packets - o.following + 1, o.at_once)
        o.cleared, o.patience_ns = o.following + count - 1, CLEARED_NS
        return self._down, _control(CTS, count, o.following, 0xFF, 0xFF, pgn=o.pgn)

    def _missing(self, o: _Incoming) -> list[Frame]:
        """A packet was lost: ask again from there, a few times."""
        o.repeats += 1
        if o.repeats > REPEATS:
            return self._abort(REASON_SEQUENCE, f"packet {o.following} of message 0x{o.pgn:06X} is missing")
        return [self._clear(o)]

    def _abort(self, reason: int, text: str) -> list[Frame]:
        pgn = self._open.pgn if self._open else 0
        self._broken(text)
        return [(self._down, _control(ABORT, reason, 0xFF, 0xFF, 0xFF, pgn=pgn))]

    def _broken(self, text: str) -> list[Frame]:
        """What was under way is lost."""
        self._open = None
        return self._count(text)

    def _count(self, text: str) -> list[Frame]:
        """A frame that moves nothing."""
        self.bad += 1
        self.last_bad = text
        return []


class Sender:
    """One message at a time from ``own`` to ``peer``; packets leave ``pace_ns`` apart, as ``step`` is called."""

    def __init__(self, own: int, peer: int, pace_ns: int = 10_000_000) -> None:
        self._control, self._data = identifier(CM, own, peer), identifier(DT, own, peer)
        self._pace_ns = pace_ns
        self._message = b""
        self._pgn = 0
        self._following = self._cleared = 0  # packet to send next, and last one that may be sent
        self._since_ns = self._sent_ns = 0
        self.failed = 0

    @property
    def busy(self) -> bool:
        return bool(self._message)

    @property
    def pgn(self) -> int:
        """Of the message under way."""
        return self._pgn

    def send(self, pgn: int, message: bytes, now_ns: int) -> list[Frame]:
        """Begin a transfer. What was under way is given up."""
        self._message, self._pgn = message, pgn
        self._following = self._cleared = 0
        self._since_ns = now_ns
        length, packets = len(message), packets_of(len(message))
        return [(self._control, _control(RTS, length & 0xFF, length >> 8, packets, 0xFF, pgn=pgn))]

    def answer(self, data: bytes, now_ns: int) -> None:
        """A connection-management frame of the receiver."""
        if len(data) != 8 or not self.busy or _pgn(data) != self._pgn:
            return
        if data[0] == CTS:
            self._since_ns = now_ns
            if data[1]:  # 0 = wait
                self._following, self._cleared = data[2], data[2] + data[1] - 1
        elif data[0] == EOM:
            self._message = b""
        elif data[0] == ABORT:
            self._message = b""
            self.failed += 1

    def step(self, now_ns: int) -> list[Frame]:
        """The next packet when it is due; an abort when the receiver does not answer."""
        if not self.busy:
            return []
        if 0 < self._following <= min(self._cleared, packets_of(len(self._message))):
            if now_ns - self._sent_ns < self._pace_ns:
                return []
            self._since_ns = self._sent_ns = now_ns
            piece = self._message[(self._following - 1) * PACKET : self._following * PACKET]
            frame = (self._data, bytes([self._following]) + piece.ljust(PACKET, b"\xff"))
            self._following += 1
            return [frame]
        if now_ns - self._since_ns > CLEARED_NS:
            self._message = b""
            self.failed += 1
            return [(self._control, _control(ABORT, REASON_TIMEOUT, 0xFF, 0xFF, 0xFF, pgn=self._pgn))]
        return []
