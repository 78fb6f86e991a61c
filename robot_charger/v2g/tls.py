"""What a TLS ClientHello says, read without a TLS library: only whether it offers TLS 1.3 (RFC 8446, 4.1.2, 4.2.1)."""

from __future__ import annotations

HANDSHAKE = 22
CLIENT_HELLO = 1
SUPPORTED_VERSIONS = 43
TLS_1_3 = b"\x03\x04"


class _Short(Exception):
    """More bytes are needed."""


class _Bytes:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        if self._at + count > len(self._data):
            raise _Short
        self._at += count
        return self._data[self._at - count : self._at]

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")

    @property
    def left(self) -> int:
        return len(self._data) - self._at


def offers_tls13(data: bytes) -> bool | None:
    """True or False for a whole ClientHello, None when more bytes are needed. Raises ValueError when it is none."""
    records = _Bytes(data)
    message = b""
    try:
        while True:
            if records.number(1) != HANDSHAKE:
                raise ValueError("not a TLS handshake")
            if records.take(2)[0] != 3:
                raise ValueError("not a TLS version")
            message += records.take(records.number(2))
            if len(message) >= 4 and len(message) >= 4 + int.from_bytes(message[1:4], "big"):
                break
    except _Short:
        return None
    hello = _Bytes(message[4:])
    if message[0] != CLIENT_HELLO:
        raise ValueError("not a TLS ClientHello")
    try:
        hello.take(2 + 32)
        hello.take(hello.number(1))  # session id
        hello.take(hello.number(2))  # cipher suites
        hello.take(hello.number(1))  # compression
        if not hello.left:
            return False
        extensions = _Bytes(hello.take(hello.number(2)))
        while extensions.left:
            kind, body = extensions.number(2), extensions.take(extensions.number(2))
            if kind == SUPPORTED_VERSIONS:
                return TLS_1_3 in (body[i : i + 2] for i in range(1, len(body), 2))
    except _Short as error:
        raise ValueError("a TLS ClientHello with wrong lengths") from error
    return False
