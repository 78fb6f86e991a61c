"""Where a vehicle finds the SECC: the SDP responder (UDP 15118) and the TCP or TLS listener behind it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from robot_charger.common.plc_link import LinkError, link_local_address
from robot_charger.v2g import v2gtp

SDP_RATE = 20.0  # answers per second, more are dropped (a vehicle asks every 250 ms)
DYNAMIC_PORTS = (49_152, 65_535)  # RFC 6335, named by ISO 15118-2 table 15
_SO_BINDTODEVICE = 25

Connected = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Counters:
    sdp_requests: int = 0
    sdp_bad: int = 0
    sdp_dropped: int = 0  # too many, or nobody is matched
    connections: int = 0
    connections_refused: int = 0  # a second vehicle during a session
    tls_failed: int = 0
    last_tls_error: str = ""


class Discovery(asyncio.DatagramProtocol):
    """``answering`` is false until a vehicle is matched. Raises LinkError from ``open`` when a port is in use."""

    def __init__(self, interface: str, connected: Connected, context: ssl.SSLContext | None, require_tls: bool) -> None:
        self.interface = interface
        self.answering = False
        self.wireless = False
        self.counters = Counters()
        self._connected = connected
        self._context = context
        self._require_tls = require_tls
        self._address = ""
        self._servers: dict[bool, tuple[asyncio.AbstractServer, int]] = {}
        self._transport: asyncio.DatagramTransport | None = None
        self._allowance = SDP_RATE
        self._allowance_at = time.monotonic()

    async def open(self) -> None:
        self._address, index = link_local_address(self.interface)
        if not self._require_tls:
            self._servers[False] = await self._listen(index, None)
        if self._context is not None:
            self._servers[True] = await self._listen(index, self._context)
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, sock=self._multicast(index))

    def close(self) -> None:
        if self._transport:
            self._transport.close()
        for server, _ in self._servers.values():
            server.close()

    def _multicast(self, index: int) -> socket.socket:
        sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        try:
            with contextlib.suppress(OSError):  # refused to an ordinary user by old kernels
                sock.setsockopt(socket.SOL_SOCKET, _SO_BINDTODEVICE, self.interface.encode() + b"\0")
            sock.bind(("::", v2gtp.SDP_PORT, 0, 0))
            group = socket.inet_pton(socket.AF_INET6, v2gtp.SDP_GROUP) + struct.pack("@I", index)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)
        except OSError as error:
            sock.close()
            raise LinkError(f"UDP port {v2gtp.SDP_PORT} on {self.interface}: {error.strerror}") from error
        sock.setblocking(False)
        return sock

    async def _listen(self, index: int, context: ssl.SSLContext | None) -> tuple[asyncio.AbstractServer, int]:
        reason = ""
        for _ in range(20):
            port = random.randint(*DYNAMIC_PORTS)
            sock = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
            try:
                sock.bind((self._address, port, 0, index))
                server = await asyncio.start_server(self._accept, sock=sock, ssl=context, limit=2 * v2gtp.MAX_PAYLOAD)
                return server, port
            except OSError as error:
                sock.close()
                reason = error.strerror or str(error)
        raise LinkError(f"no TCP port on {self.interface} [{self._address}]: {reason}")

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.counters.connections += 1
        sock = writer.get_extra_info("socket")
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not self.answering:
            self.counters.connections_refused += 1
            writer.transport.abort()
            return
        await self._connected(reader, writer)

    # Datagrams.
    def datagram_received(self, data: bytes, addr: tuple) -> None:
        self.counters.sdp_requests += 1
        try:
            request = v2gtp.SdpRequest.decode(data)
        except ValueError:
            self.counters.sdp_bad += 1
            return
        if not self.answering or not self._allowed():
            self.counters.sdp_dropped += 1
            return
        # TLS where the vehicle asks for it and we have it, or where nothing else is allowed.
        tls = True in self._servers and (request.tls or False not in self._servers)
        response = v2gtp.SdpResponse(self._address, self._servers[tls][1], tls)
        if self._transport:
            self._transport.sendto(response.encode(), addr)

    def error_received(self, exc: Exception) -> None:
        self.counters.sdp_bad += 1

    def _allowed(self) -> bool:
        now = time.monotonic()
        self._allowance = min(SDP_RATE, self._allowance + (now - self._allowance_at) * SDP_RATE)
        self._allowance_at = now
        if self._allowance < 1.0:
            return False
        self._allowance -= 1.0
        return True
