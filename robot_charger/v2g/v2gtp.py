"""V2GTP framing (ISO 15118-2, 7.8.3) and the SECC discovery protocol in it (7.10.1): bytes to values and back."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

VERSION = b"\x01\xfe"
HEADER = 8
MAX_PAYLOAD = 65_536  # the longest message, a certificate installation of -20, stays well below [bytes]

EXI = 0x8001
SDP_REQUEST = 0x9000
SDP_RESPONSE = 0x9001
SDP_REQUEST_WIRELESS = 0x9002  # ISO 15118-20, ACDP
SDP_RESPONSE_WIRELESS = 0x9003
SDP_PORT = 15118
SDP_GROUP = "ff02::1"
TLS = 0x00
NO_TLS = 0x10
TCP = 0x00


class V2gtpError(ValueError):
    """Not a V2GTP message; the text says why."""


def payload_length(header: bytes) -> tuple[int, int]:
    """Payload type and length [bytes] from the first eight bytes. Raises V2gtpError."""
    if header[:2] != VERSION:
        raise V2gtpError(f"V2GTP header begins with {header[:2].hex()} instead of 01fe")
    length = int.from_bytes(header[4:8], "big")
    if length > MAX_PAYLOAD:
        raise V2gtpError(f"V2GTP payload of {length} bytes is longer than {MAX_PAYLOAD}")
    return int.from_bytes(header[2:4], "big"), length


def message(payload_type: int, payload: bytes) -> bytes:
    return VERSION + payload_type.to_bytes(2, "big") + len(payload).to_bytes(4, "big") + payload


@dataclass(frozen=True)
class SdpRequest:
    tls: bool
    wireless: bool = False  # asks over a WLAN, for ACDP
    pairing: bytes = b""  # what a wireless request adds

    def encode(self) -> bytes:
        kind = SDP_REQUEST_WIRELESS if self.wireless else SDP_REQUEST
        return message(kind, bytes([TLS if self.tls else NO_TLS, TCP]) + self.pairing)

    @classmethod
    def decode(cls, datagram: bytes) -> SdpRequest:
        """Raises V2gtpError."""
        kind, length = payload_length(datagram[:HEADER].ljust(HEADER, b"\0"))
        payload = datagram[HEADER:]
        if kind not in (SDP_REQUEST, SDP_REQUEST_WIRELESS) or length != len(payload) or length < 2:
            raise V2gtpError("not an SDP request")
        if (kind == SDP_REQUEST and length != 2) or payload[0] not in (TLS, NO_TLS) or payload[1] != TCP:
            raise V2gtpError("SDP request for something else than TCP with or without TLS")
        return cls(payload[0] == TLS, kind == SDP_REQUEST_WIRELESS, payload[2:])


@dataclass(frozen=True)
class SdpResponse:
    address: str
    port: int
    tls: bool
    wireless: bool = False
    pairing: bytes = b""

    def encode(self) -> bytes:
        kind = SDP_RESPONSE_WIRELESS if self.wireless else SDP_RESPONSE
        host = ipaddress.IPv6Address(self.address).packed
        security = bytes([TLS if self.tls else NO_TLS, TCP])
        return message(kind, host + self.port.to_bytes(2, "big") + security + self.pairing)

    @classmethod
    def decode(cls, datagram: bytes) -> SdpResponse:
        """Raises V2gtpError."""
        kind, length = payload_length(datagram[:HEADER].ljust(HEADER, b"\0"))
        payload = datagram[HEADER:]
        if kind not in (SDP_RESPONSE, SDP_RESPONSE_WIRELESS) or length != len(payload) or length < 20:
            raise V2gtpError("not an SDP response")
        if payload[18] not in (TLS, NO_TLS) or payload[19] != TCP:
            raise V2gtpError("SDP response for something else than TCP with or without TLS")
        address = str(ipaddress.IPv6Address(payload[:16]))
        port = int.from_bytes(payload[16:18], "big")
        return cls(address, port, payload[18] == TLS, kind == SDP_RESPONSE_WIRELESS, payload[20:])
