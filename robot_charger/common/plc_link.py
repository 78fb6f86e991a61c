"""The PLC link of one EVSE on a desk: where it is, and how a process or thread steps into it.

``plcN.json`` in the run directory (see docs/architecture.md) tells either the /proc paths of a user namespace
and two network namespaces joined by a veth pair, or that namespaces are refused and only a virtual link exists.
A process joins the user namespace while it has a single thread; a thread joins a network namespace.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CLONE_NEWUSER = 0x1000_0000
CLONE_NEWNET = 0x4000_0000
ETH_P_HOMEPLUG = 0x88E1  # HomePlug AV management messages
MAX_FRAME = 1518
MIN_FRAME = 60
_SIOCGIFHWADDR = 0x8927
_SIOCGIFFLAGS = 0x8913
_IFF_RUNNING = 0x40
_LINK_LOCAL_SCOPE = 0x20
_LIBC = ctypes.CDLL(None, use_errno=True)


class LinkError(RuntimeError):
    """The PLC link cannot be used; the text says why and what would be right."""


@dataclass(frozen=True)
class PlcLink:
    """One side of the link, ``evse`` or ``ev``.

    transport: veth (namespaces), virtual (SLAC frames over Unix sockets, V2G only on a named interface),
    or interface (a real one). interface: the network interface for V2G, empty when there is none.
    """

    transport: str
    side: str
    interface: str
    user: str = ""
    network: str = ""
    end: str = ""  # this side's Unix socket (virtual)
    hub: str = ""  # the simulator's Unix socket for this side (virtual)

    @classmethod
    def read(cls, directory: Path, evse: int, side: str, interface: str = "") -> PlcLink:
        """From ``plcN.json``. ``interface`` is used for V2G where the link is virtual. Raises LinkError."""
        path = directory / f"plc{evse}.json"
        try:
            data = json.loads(path.read_text())
            transport = str(data["transport"])
            if transport == "veth":
                return cls("veth", side, {"evse": "evse0", "ev": "ev0"}[side], data["user"], data[side])
        except (OSError, ValueError, KeyError) as error:
            raise LinkError(f"PLC link of EVSE {evse} is not there: {path}: {error}") from error
        return cls(
            "virtual",
            side,
            interface,
            end=str(directory / f"plc{evse}-{side}.end"),
            hub=str(directory / f"plc{evse}-{side}.hub"),
        )

    @classmethod
    def wait(cls, directory: Path, evse: int, side: str, interface: str = "", timeout_s: float = 10.0) -> PlcLink:
        """As ``read``, waiting until the simulator has made the link. Raises LinkError."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                return cls.read(directory, evse, side, interface)
            except LinkError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def join_user(self) -> None:
        """Step into the link's user namespace. Only while the process has one thread. Raises LinkError."""
        if self.user:
            _set_namespace(self.user, CLONE_NEWUSER)

    def join_network(self) -> None:
        """Take the calling thread (and threads it starts) into this side's network. Raises LinkError."""
        if self.network:
            _set_namespace(self.network, CLONE_NEWNET)

    def frames(self) -> Frames:
        """Open the HomePlug frame transport of this side; in the right network namespace. Raises LinkError."""
        return UnixFrames(self.end, self.hub, self.side) if self.end else PacketFrames(self.interface)


def _set_namespace(path: str, kind: int) -> None:
    try:
        if os.stat(path).st_ino == os.stat(_own_namespace(kind)).st_ino:
            return
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise LinkError(f"the PLC link's namespace {path} is gone: {error.strerror}") from error
    try:
        if _LIBC.setns(descriptor, kind) != 0:
            reason = os.strerror(ctypes.get_errno())
            raise LinkError(f"cannot step into the PLC link's namespace {path}: {reason}")
    finally:
        os.close(descriptor)


def _own_namespace(kind: int) -> str:
    return "/proc/thread-self/ns/" + {CLONE_NEWUSER: "user", CLONE_NEWNET: "net"}[kind]


def unshare(kind: int) -> None:
    """unshare(2). Raises OSError where refused."""
    if _LIBC.unshare(kind) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class Frames:
    """Whole Ethernet frames to and from one side of the link. ``socket`` is non-blocking, for an event loop."""

    socket: socket.socket
    mac: bytes

    def send(self, frame: bytes) -> bool:
        """Send one frame, padded to the Ethernet minimum. False when the link is down or full."""
        raise NotImplementedError

    def receive(self) -> bytes | None:
        """The next frame, None when there is none now."""
        with contextlib.suppress(BlockingIOError, InterruptedError):
            return self.socket.recv(MAX_FRAME)
        return None

    def carrier(self) -> bool:
        """The link below is up."""
        return True

    def close(self) -> None:
        self.socket.close()

    @staticmethod
    def pad(frame: bytes) -> bytes:
        return bytes(frame) + bytes(max(0, MIN_FRAME - len(frame)))


class PacketFrames(Frames):
    """AF_PACKET on an interface of the present network namespace; only HomePlug frames are seen.

    ``every`` sees outgoing frames of other sockets too (a simulated modem needs that). Needs CAP_NET_RAW.
    """

    def __init__(self, interface: str, every: bool = False) -> None:
        try:
            protocol = 0x0003 if every else ETH_P_HOMEPLUG
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(protocol))
        except PermissionError as error:
            raise LinkError("SLAC needs CAP_NET_RAW (a station gets it by systemd AmbientCapabilities)") from error
        self.interface = interface
        try:
            self.socket.bind((interface, protocol))
            self.mac = hardware_address(interface)
        except OSError as error:
            self.socket.close()
            raise LinkError(f"PLC interface {interface}: {error.strerror}") from error
        self.socket.setblocking(False)

    def send(self, frame: bytes) -> bool:
        with contextlib.suppress(OSError):
            self.socket.send(self.pad(frame))
            return True
        return False

    def receive(self) -> bytes | None:
        try:
            return super().receive()
        except OSError:  # the interface went down
            return None

    def carrier(self) -> bool:
        request = struct.pack("16sH14x", self.interface.encode(), 0)
        try:
            answer = fcntl.ioctl(self.socket.fileno(), _SIOCGIFFLAGS, request)
        except OSError:
            return False
        return bool(struct.unpack_from("H", answer, 16)[0] & _IFF_RUNNING)


class UnixFrames(Frames):
    """The same frames over Unix datagrams, where network namespaces are refused."""

    def __init__(self, end: str, hub: str, side: str) -> None:
        self.hub = hub
        self.mac = virtual_mac(side)
        self._path = end
        with contextlib.suppress(FileNotFoundError):
            os.unlink(end)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(end)
        self.socket.setblocking(False)

    def send(self, frame: bytes) -> bool:
        with contextlib.suppress(OSError):
            self.socket.sendto(self.pad(frame), self.hub)
            return True
        return False

    def carrier(self) -> bool:
        return os.path.exists(self.hub)

    def close(self) -> None:
        super().close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)


class NoFrames(Frames):
    """No HomePlug modem: an IP link that needs no SLAC."""

    def __init__(self) -> None:
        self.socket, self._other = socket.socketpair()
        self.socket.setblocking(False)
        self.mac = bytes(6)

    def send(self, frame: bytes) -> bool:
        return False

    def close(self) -> None:
        super().close()
        self._other.close()


def virtual_mac(side: str) -> bytes:
    """Locally administered address of one side of a simulated link."""
    return bytes.fromhex({"evse": "02ec0000e5e1", "ev": "02ec000000e1", "modem": "02ec0000f0f0"}[side])


def hardware_address(interface: str) -> bytes:
    """MAC of an interface of the present network namespace. Raises OSError."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        answer = fcntl.ioctl(probe.fileno(), _SIOCGIFHWADDR, struct.pack("256s", interface.encode()[:15]))
    return answer[18:24]


def link_local_address(interface: str) -> tuple[str, int]:
    """IPv6 link-local address and scope id of ``interface`` in this thread's network. Raises LinkError.

    ``lo`` has none; its ::1 is given instead.
    """
    try:
        with open("/proc/thread-self/net/if_inet6") as table:
            for line in table:
                address, index, _, scope, _, name = line.split()
                if name == interface and (int(scope, 16) == _LINK_LOCAL_SCOPE or name == "lo"):
                    text = socket.inet_ntop(socket.AF_INET6, bytes.fromhex(address))
                    return text, int(index, 16)
    except OSError as error:
        raise LinkError(f"IPv6 is not there: {error.strerror}") from error
    raise LinkError(f"interface {interface} has no IPv6 link-local address in this network")


def in_single_thread(action: Callable[[], None]) -> None:
    """Run ``action`` after checking that the process still has one thread (setns to a user namespace needs it)."""
    if len(os.listdir("/proc/self/task")) != 1:
        raise LinkError("the user namespace must be joined before any thread is started")
    action()
