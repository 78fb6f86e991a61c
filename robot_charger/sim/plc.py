"""The desk's PLC link of one EVSE: two network namespaces joined by a veth pair, and the modems on it.

``python -m robot_charger.sim.plc --evse N`` enters a user namespace (root and ordinary users alike), makes one
network namespace with ``evse0`` and one with ``ev0``, writes ``plcN.json`` and then plays the two modems:
it confirms CM_SET_KEY, and answers every CM_MNBC_SOUND.IND of a vehicle with a CM_ATTEN_PROFILE.IND to the
EVSE, as the EVSE's own modem would. Where namespaces are refused the same frames go over Unix datagrams.

Wire ``plcN``: faults on request ``link-down``, ``no-key-confirm``, ``drop-sounds`` (no attenuation profiles),
``weak-signal`` (attenuation of 60 dB: a neighbour's outlet), ``no-join`` (the vehicle's modem does not enter the
EVSE's network). It says its own truth to ``cli``.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path

from robot_charger.common.plc_link import (
    CLONE_NEWNET,
    CLONE_NEWUSER,
    MAX_FRAME,
    Frames,
    LinkError,
    PacketFrames,
    unshare,
    virtual_mac,
)
from robot_charger.common.process import StopSignal, end_with_parent, parent_gone, refuse
from robot_charger.common.wires import WireEnd, WireError, run_directory

SIDES = ("evse", "ev")
FAULTS = ("link-down", "no-key-confirm", "drop-sounds", "weak-signal", "no-join")
MODEM = virtual_mac("modem")
HOMEPLUG = b"\x88\xe1"
CM_SET_KEY_REQ = 0x6008
CM_SET_KEY_CNF = 0x6009
VS_LINK_STATUS_REQ = 0xA0B8  # Qualcomm's
VS_LINK_STATUS_CNF = 0xA0B9
VENDOR = b"\x00\xb0\x52"
CM_MNBC_SOUND_IND = 0x6076
CM_ATTEN_PROFILE_IND = 0x6086
GROUPS = 58
NEAR_DB = 10  # attenuation of the vehicle at this outlet
FAR_DB = 60


class Modem:
    """What the two HomePlug modems answer to their hosts. Frames in, frames out; no sockets, no clock."""

    def __init__(self) -> None:
        self.confirm_key = True
        self.report_sounds = True
        self.attenuation_db = NEAR_DB
        self.far: dict[bytes, int] = {}  # attenuation of other vehicles that are heard here, by their MAC [dB]
        self.join = True  # the vehicle's modem enters the network of a key it is given
        self.tells_link = True  # answers VS_LINK_STATUS.REQ
        self.keys_set = 0
        self.sounds = 0
        self._keys: dict[str, bytes] = {}  # NID and NMK of each side's modem

    def answer(self, side: str, frame: bytes) -> tuple[str, bytes] | None:
        """What a modem says to a host's frame: (side of the host it speaks to, frame), or None."""
        if len(frame) < 60 or frame[12:14] != HOMEPLUG or frame[6:12] == MODEM:
            return None
        kind = int.from_bytes(frame[15:17], "little")
        if kind == CM_SET_KEY_REQ and self.confirm_key:
            self.keys_set += 1
            self._keys[side] = frame[33:40] + frame[41:57]
            # Result, my nonce, your nonce (the request's), PID, PRN, PMN, CCo capability
            body = b"\x01" + bytes(4) + frame[20:24] + b"\x04" + bytes(4)
            return side, _frame(frame[6:12], CM_SET_KEY_CNF, body)
        if kind == CM_MNBC_SOUND_IND and side == "ev" and self.report_sounds:
            self.sounds += 1
            body = frame[6:12] + bytes([GROUPS, 0]) + bytes([self.far.get(frame[6:12], self.attenuation_db)]) * GROUPS
            return "evse", _frame(virtual_mac("evse"), CM_ATTEN_PROFILE_IND, body)
        if kind == VS_LINK_STATUS_REQ and self.tells_link:
            linked = self.join and self._keys.get("evse") == self._keys.get("ev")
            answer = frame[6:12] + MODEM + HOMEPLUG + b"\x00" + VS_LINK_STATUS_CNF.to_bytes(2, "little") + VENDOR
            return side, (answer + bytes([0, linked])).ljust(60, b"\0")
        return None


def _frame(destination: bytes, kind: int, body: bytes) -> bytes:
    frame = destination + MODEM + HOMEPLUG + b"\x01" + kind.to_bytes(2, "little") + b"\x00\x00" + body
    return frame + bytes(max(0, 60 - len(frame)))


def make_namespaces() -> dict[str, str]:
    """Make the user namespace, both network namespaces and the veth pair; ends in the EVSE's network.

    Returns the /proc paths by name (user, evse, ev). Raises OSError where the kernel or policy refuses.
    """
    uid, gid, pid = os.getuid(), os.getgid(), os.getpid()
    unshare(CLONE_NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    paths = {"user": f"/proc/{pid}/ns/user"}
    for side in ("ev", "evse"):
        unshare(CLONE_NEWNET)
        descriptor = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)  # keeps it alive
        paths[side] = f"/proc/{pid}/fd/{descriptor}"
    _make_veth(paths["ev"])
    return paths


def _make_veth(ev_path: str) -> None:
    """``evse0`` here and ``ev0`` in the namespace at ``ev_path``, up, with link-local addresses at once."""
    from pyroute2 import IPRoute

    ev = int(ev_path.rsplit("/", 1)[1])
    with IPRoute() as route:
        route.link(
            "add",
            ifname="evse0",
            kind="veth",
            address=_text(virtual_mac("evse")),
            peer={"ifname": "ev0", "net_ns_fd": ev, "address": _text(virtual_mac("ev"))},
        )
        _set_up(route, "evse0", virtual_mac("evse"))
    with _in_network(ev), IPRoute() as route:
        _set_up(route, "ev0", virtual_mac("ev"))


def _set_up(route: object, name: str, mac: bytes) -> None:
    """Bring an interface up with its EUI-64 link-local address, without waiting for duplicate detection."""
    no_dad, no_address = 0x02, 1
    for interface in ("lo", name):
        index = route.link_lookup(ifname=interface)[0]  # type: ignore[attr-defined]
        if interface != "lo":
            spec = {"attrs": [["AF_INET6", {"attrs": [["IFLA_INET6_ADDR_GEN_MODE", no_address]]}]]}
            with contextlib.suppress(Exception):  # an older kernel: its own address serves as well
                route.link("set", index=index, IFLA_AF_SPEC=spec)  # type: ignore[attr-defined]
        route.link("set", index=index, state="up")  # type: ignore[attr-defined]
    host = bytes([mac[0] ^ 2]) + mac[1:3] + b"\xff\xfe" + mac[3:]
    address = socket.inet_ntop(socket.AF_INET6, b"\xfe\x80" + bytes(6) + host)
    with contextlib.suppress(Exception):  # there already: the kernel made it
        route.addr("add", index=index, address=address, prefixlen=64, flags=no_dad)  # type: ignore[attr-defined]


def _text(mac: bytes) -> str:
    return ":".join(f"{byte:02x}" for byte in mac)


@contextlib.contextmanager
def _in_network(descriptor: int) -> Iterator[None]:
    """This thread inside another network namespace for a moment."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(descriptor, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        yield
    finally:
        libc.setns(home, CLONE_NEWNET)
        os.close(home)


class VethPort:
    """The modems' sockets on a veth pair.

    What evse0 sends is heard by a socket on ev0 and the other way round; what shall arrive at evse0 is sent
    from ev0. Frames travel between the hosts by the kernel; the modems only listen and answer.
    """

    def __init__(self, paths: dict[str, str]) -> None:
        self.sockets: dict[str, Frames] = {"evse": PacketFrames("evse0", every=True)}
        self._ev = int(paths["ev"].rsplit("/", 1)[1])
        with _in_network(self._ev):
            self.sockets["ev"] = PacketFrames("ev0", every=True)

    def receive(self, side: str) -> bytes | None:
        """A frame that the host of ``side`` sent (its own outgoing frames seen on its interface)."""
        while True:
            try:
                frame, address = self.sockets[side].socket.recvfrom(MAX_FRAME)
            except (BlockingIOError, InterruptedError):
                return None
            except OSError:
                return None
            if address[2] == socket.PACKET_OUTGOING:
                return frame

    def send(self, side: str, frame: bytes) -> None:
        """Make a frame arrive at the host of ``side``: send it from the other end of the pair."""
        self.sockets["ev" if side == "evse" else "evse"].send(frame)

    def forward(self, side: str, frame: bytes) -> None:
        """The kernel has done it."""

    def set_link(self, up: bool) -> None:
        """Take the EVSE's end down: both hosts lose the carrier."""
        from pyroute2 import IPRoute

        with _in_network(self._ev), IPRoute() as route:
            index = route.link_lookup(ifname="ev0")[0]
            route.link("set", index=index, state="up" if up else "down")
            if up:
                _set_up(route, "ev0", virtual_mac("ev"))  # its address went with it


class UnixPort:
    """The modems' sockets where namespaces are refused: a hub of two Unix datagram sockets."""

    def __init__(self, directory: Path, evse: int) -> None:
        self._ends = {side: str(directory / f"plc{evse}-{side}.end") for side in SIDES}
        self._up = True
        self._hubs = {}
        for side in SIDES:
            path = directory / f"plc{evse}-{side}.hub"
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            hub = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            hub.bind(str(path))
            hub.setblocking(False)
            self._hubs[side] = hub
        self.sockets = {side: _Hub(hub) for side, hub in self._hubs.items()}

    def receive(self, side: str) -> bytes | None:
        with contextlib.suppress(BlockingIOError, InterruptedError):
            return self._hubs[side].recv(MAX_FRAME)
        return None

    def send(self, side: str, frame: bytes) -> None:
        with contextlib.suppress(OSError):
            self._hubs[side].sendto(frame, self._ends[side])

    def forward(self, side: str, frame: bytes) -> None:
        """Carry a host's frame to the other host, but what is for the modem."""
        if self._up and int.from_bytes(frame[15:17], "little") not in (CM_SET_KEY_REQ, VS_LINK_STATUS_REQ):
            self.send("ev" if side == "evse" else "evse", frame)

    def set_link(self, up: bool) -> None:
        self._up = up


class _Hub:
    def __init__(self, hub: socket.socket) -> None:
        self.socket = hub


def make_link(directory: Path, evse: int, virtual: bool = False) -> tuple[VethPort | UnixPort, dict[str, str]]:
    """The best link this machine allows, and what goes into ``plcN.json``."""
    if not virtual:
        try:
            paths = make_namespaces()
            return VethPort(paths), {"transport": "veth", **paths}
        except (OSError, LinkError) as error:
            print(f"plc{evse}: namespaces refused ({error}); the link is virtual", flush=True)
        except Exception as error:  # pyroute2 has its own exception tree
            if type(error).__module__.split(".")[0] != "pyroute2":
                raise
            print(f"plc{evse}: veth refused ({error}); the link is virtual", flush=True)
    return UnixPort(directory, evse), {"transport": "virtual"}


def main() -> None:
    parser = argparse.ArgumentParser(description="simulated PLC link of one EVSE")
    parser.add_argument("--evse", type=int, required=True)
    parser.add_argument("--virtual", action="store_true", help="do not try namespaces")
    arguments = parser.parse_args()
    end_with_parent()
    try:
        directory = run_directory()
    except WireError as error:
        refuse(f"plc: {error}")
    evse = arguments.evse
    port, description = make_link(directory, evse, arguments.virtual)
    stop = StopSignal()
    faults: set[str] = set()

    def on_signals(sender: str, signals: dict) -> None:
        name = signals.get("fault")
        if name in FAULTS:
            (faults.add if signals.get("on") else faults.discard)(name)

    path = directory / f"plc{evse}.json"
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(description))
    temporary.rename(path)
    wire = WireEnd(f"plc{evse}", directory, on_signals)
    try:
        _serve(port, wire, faults, stop)
    finally:
        wire.close()
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def _serve(port: VethPort | UnixPort, wire: WireEnd, faults: set[str], stop: StopSignal) -> None:
    modem = Modem()
    down = False
    sides = {port.sockets[side].socket.fileno(): side for side in SIDES}
    while not stop.event.is_set() and not parent_gone():
        readable, _, _ = select.select(list(sides), [], [], 0.1)
        modem.confirm_key = "no-key-confirm" not in faults
        modem.report_sounds = "drop-sounds" not in faults
        modem.join = "no-join" not in faults
        modem.attenuation_db = FAR_DB if "weak-signal" in faults else NEAR_DB
        if ("link-down" in faults) != down:
            down = not down
            port.set_link(not down)
        for descriptor in readable:
            side = sides[descriptor]
            for _ in range(64):
                frame = port.receive(side)
                if frame is None:
                    break
                port.forward(side, frame)
                answer = modem.answer(side, frame)
                if answer and not down:
                    port.send(*answer)
        wire.send(
            "cli", {"keys_set": modem.keys_set, "sounds": modem.sounds, "link": not down, "faults": sorted(faults)}
        )


if __name__ == "__main__":
    main()
