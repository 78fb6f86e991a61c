"""End-to-end protection of the safety frames, in the manner of AUTOSAR E2E profile 5 and SecOC.

The bus is a black channel: whatever it does to a frame, the last consumer sees it. Each frame ends with an alive
counter (u8, one more with every cycle of its sender) and a CRC-16 (CCITT polynomial 0x1021). The CRC starts with the
frame's data id, which is not transmitted: a frame that arrives under another identifier is refused.

| communication fault (IEC 61784-3) | seen by |
|---|---|
| corruption, masquerade of another message, wrong addressing | CRC started with the data id |
| repetition, insertion, wrong sequence | counter: it must advance by 1 to ``MAX_STEP`` |
| loss | counter, and the receiver's time-out |
| a second sender | errors in so many frames that the sequence is distrusted |
| delay | the echo of the peer's counter: ``echo_age`` |
| a forged frame | the authenticator, with a key only |

With a key a frame carries a trailer behind its CRC: the sender's nonce (u32), a freshness value (u32) and the first
eight bytes of AES-CMAC (RFC 4493) over data id, frame, trailer and the receiver's nonce; then zeros up to a length that
CAN-FD has. A receiver draws a new nonce whenever the stream breaks, so that nothing recorded before verifies again.
"""

from __future__ import annotations

import struct
from binascii import crc_hqx
from hmac import compare_digest

from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.cmac import CMAC

MAX_STEP = 10  # of the counter: what is lost in 100 ms at 10 ms; more is no loss but another sequence
SYNC = 2  # frames in sequence after a wrong one, before the next counts
ERROR_COST = 3  # an error weighs as much as three good frames
ERROR_FULL = 12  # errors from which on the sequence is distrusted, until good frames have worked them off
LENGTHS = (8, 12, 16, 20, 24, 32, 48, 64)  # of CAN-FD payloads, above seven bytes
KEY_BYTES = 16
MAC_BYTES = 8  # of the authenticator's sixteen: a forgery succeeds once in 2**64
TRAILER = struct.Struct("<II")  # nonce, freshness
_INPUT = struct.Struct("<HI")  # data id, the receiver's nonce


def crc(data_id: int, payload: bytes) -> int:
    """CRC-16 CCITT of a frame's bytes before the CRC itself, started with its data id."""
    return crc_hqx(payload, data_id)


def seal(data_id: int, data: bytes) -> bytes:
    """The frame with its last two bytes replaced by its CRC, little-endian."""
    return data[:-2] + crc(data_id, data[:-2]).to_bytes(2, "little")


def intact(data_id: int, data: bytes) -> bool:
    """Whether a frame's CRC is right for this data id."""
    return len(data) > 2 and crc(data_id, data[:-2]) == data[-2] | data[-1] << 8


def echo_age(own_counter: int, echo: int) -> int:
    """Cycles since this side sent the counter that the peer returns, 0 to 255."""
    return (own_counter - echo) & 0xFF


class Sequence:
    """Judges one sender's counter. ``advanced`` is True for a frame that may be used.

    The first frame is used. A repeated counter, or one that moved by more than ``MAX_STEP``, is refused; after the
    latter ``SYNC`` frames must follow in sequence. Errors add up and good frames work them off one by one: a single
    error costs one frame, two senders on one identifier cost the whole stream, and the receiver's time-out ends it.
    """

    __slots__ = ("distrusted", "errors", "in_row", "last")

    def __init__(self) -> None:
        self.last = -1
        self.in_row = SYNC
        self.errors = 0
        self.distrusted = False

    def advanced(self, counter: int) -> bool:
        """Judge the counter (u8) of an intact frame."""
        step = (counter - self.last) & 0xFF if self.last >= 0 else 1
        self.last = counter
        if 1 <= step <= MAX_STEP:
            self.errors = max(0, self.errors - 1)
            self.in_row = min(self.in_row + 1, SYNC + 1)
        else:
            self.errors = min(self.errors + ERROR_COST, ERROR_FULL)
            if step:
                self.in_row = 0
        if self.errors >= ERROR_FULL:
            self.distrusted = True
        elif not self.errors:
            self.distrusted = False
        return 1 <= step <= MAX_STEP and self.in_row >= SYNC and not self.distrusted


def padded(length: int) -> int:
    """Length of the CAN-FD payload that holds a frame of ``length`` bytes and its trailer."""
    need = length + TRAILER.size + MAC_BYTES
    return next(n for n in LENGTHS if n >= need)


def authenticator(key: bytes, data_id: int, body: bytes, receiver_nonce: int) -> bytes:
    """The first eight bytes of AES-CMAC over data id, receiver's nonce and body (frame and trailer)."""
    mac = CMAC(AES(key))
    mac.update(_INPUT.pack(data_id, receiver_nonce) + body)
    return mac.finalize()[:MAC_BYTES]


class Signer:
    """Sends frames under a key: ``sign`` adds the trailer and the authenticator."""

    def __init__(self, key: bytes, nonce: int) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key of the safety frames has {KEY_BYTES} bytes, not {len(key)}")
        self.key = key
        self.nonce = nonce  # for the peer to use; drawn anew when the peer's stream broke
        self.peer_nonce = 0  # as last heard
        self.freshness = 0

    def sign(self, data_id: int, data: bytes) -> bytes:
        self.freshness = (self.freshness + 1) & 0xFFFFFFFF
        body = data + TRAILER.pack(self.nonce, self.freshness)
        signed = body + authenticator(self.key, data_id, body, self.peer_nonce)
        return signed.ljust(padded(len(data)), b"\0")


class Verifier:
    """Takes the peer's frames under a key. ``own`` signs this side's frames and holds both nonces."""

    def __init__(self, own: Signer) -> None:
        self.own = own
        self._newest: dict[int, int] = {}

    def frame(self, data_id: int, signed: bytes, length: int) -> bytes | None:
        """The frame of ``length`` bytes without its trailer; None when it is not the peer's, or is not new."""
        end = length + TRAILER.size
        if len(signed) != padded(length) or any(signed[end + MAC_BYTES :]):
            return None
        nonce, freshness = TRAILER.unpack(signed[length:end])
        if intact(data_id, signed[:length]):
            self.own.peer_nonce = nonce  # a challenge, no secret: with a forged one this side's frames are refused
        wanted = authenticator(self.own.key, data_id, signed[:end], self.own.nonce)
        if not compare_digest(wanted, signed[end : end + MAC_BYTES]) or freshness <= self._newest.get(data_id, 0):
            return None
        self._newest[data_id] = freshness
        return signed[:length]

    def broke(self, nonce: int) -> None:
        """The stream broke: this side demands a new nonce, and any freshness begins again under it."""
        self.own.nonce = nonce
        self._newest.clear()
