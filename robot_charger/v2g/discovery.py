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
from robot_charger.v2g.certificates import Contexts
from robot_charger.v2g.tls import offers_tls13

SDP_RATE = 20.0  # answers per second, more are dropped (a vehicle asks every 250 ms)
DYNAMIC_PORTS = (49_152, 65_535)  # RFC 6335, named by ISO 15118-2 table 15
HANDSHAKE_S = 5.0
MAX_HANDSHAKES = 8  # at once
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

    def __init__(self, interface: str, connected: Connected, contexts: Contexts | None, require_tls: bool) -> None:
        self.interface = interface
        self.answering = False
        self.wireless = False  # answers requests of vehicles without a plug (ACDP) too
        self.on_tls_error: Callable[[str], None] = lambda text: None
        self.counters = Counters()
        self._connected = connected
        self._contexts = contexts
        self._handshakes: set[asyncio.Task[None]] = set()
        self._require_tls = require_tls
        self._address = ""
        self._listeners: dict[bool, tuple[socket.socket, int]] = {}
        self._transport: asyncio.DatagramTransport | None = None
        self._allowance = SDP_RATE
        self._allowance_at = time.monotonic()

    async def open(self) -> None:
        self._address, index = link_local_address(self.interface)
        if not self._require_tls:
            self._listeners[False] = self._listen(index)
        if self._contexts is not None:
            self._listeners[True] = self._listen(index)
        loop = asyncio.get_running_loop()
        for tls, (sock, _) in self._listeners.items():
            loop.add_reader(sock.fileno(), self._on_connection, sock, tls)
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, sock=self._multicast(index))

    def close(self) -> None:
        if self._transport:
            self._transport.close()
        for sock, _ in self._listeners.values():
            asyncio.get_running_loop().remove_reader(sock.fileno())
            sock.close()
        for task in self._handshakes:
            task.cancel()

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

    def _listen(self, index: int) -> tuple[socket.socket, int]:
        reason = ""
        for _ in range(20):
            port = random.randint(*DYNAMIC_PORTS)
            sock = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
            try:
                sock.bind((self._address, port, 0, index))
                sock.listen(8)
                sock.setblocking(False)
                return sock, port
            except OSError as error:
                sock.close()
                reason = error.strerror or str(error)
        raise LinkError(f"no TCP port on {self.interface} [{self._address}]: {reason}")

    def _on_connection(self, listener: socket.socket, tls: bool) -> None:
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        self.counters.connections += 1
        if not self.answering or len(self._handshakes) >= MAX_HANDSHAKES:
            self.counters.connections_refused += 1
            sock.close()
            return
        task = asyncio.get_running_loop().create_task(self._accept(sock, tls))
        self._handshakes.add(task)
        task.add_done_callback(self._handshakes.discard)

    async def _accept(self, sock: socket.socket, tls: bool) -> None:
        """TLS, if asked for, then the connection is handed on. What fails before is counted."""
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=2 * v2gtp.MAX_PAYLOAD)
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            context = await self._choose(sock) if tls else None
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol, sock, ssl=context, ssl_handshake_timeout=HANDSHAKE_S if tls else None
            )
        except (OSError, asyncio.TimeoutError, ValueError) as error:
            self.counters.tls_failed += 1
            self.counters.last_tls_error = getattr(error, "verify_message", "") or getattr(error, "reason", "")
            self.counters.last_tls_error = self.counters.last_tls_error or str(error) or type(error).__name__
            self.on_tls_error(self.counters.last_tls_error)
            sock.close()
            return
        await self._connected(reader, asyncio.StreamWriter(transport, protocol, reader, loop))

    async def _choose(self, sock: socket.socket) -> ssl.SSLContext:
        """TLS 1.3 with mutual authentication for a vehicle that offers it, else TLS 1.2. Looks without reading."""
        assert self._contexts is not None
        deadline = time.monotonic() + HANDSHAKE_S
        while True:
            try:
                hello = sock.recv(v2gtp.MAX_PAYLOAD, socket.MSG_PEEK)
            except BlockingIOError:
                hello = b""
            else:
                if not hello:
                    raise ConnectionResetError("closed before the TLS handshake")
            offered = offers_tls13(hello)
            if offered is not None:
                return self._contexts.tls13 if offered and self._contexts.tls13 else self._contexts.tls12
            if time.monotonic() > deadline:
                raise TimeoutError("no TLS ClientHello")
            await asyncio.sleep(0.005)

    # Datagrams.
    def datagram_received(self, data: bytes, addr: tuple) -> None:
        self.counters.sdp_requests += 1
        try:
            request = v2gtp.SdpRequest.decode(data)
        except ValueError:
            self.counters.sdp_bad += 1
            return
        if request.wireless and not self.wireless:
            self.counters.sdp_bad += 1
            return
        if not self.answering or not self._allowed():
            self.counters.sdp_dropped += 1
            return
        # TLS where the vehicle asks for it and we have it, or where nothing else is allowed.
        tls = True in self._listeners and (request.tls or False not in self._listeners)
        response = v2gtp.SdpResponse(self._address, self._listeners[tls][1], tls, request.wireless)
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
