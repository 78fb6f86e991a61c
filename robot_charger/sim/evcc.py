"""The simulated vehicle's EVCC: SLAC, discovery and V2G on the iso15118 package, bound to a simulated vehicle.

``Evcc(vehicle, link, protocol, options)`` runs one charging session in a thread of its own, which alone enters
the vehicle's network namespace. ``vehicle`` is the simulated car (see :class:`VehicleLike`), ``link`` its side of
the PLC link. The process must have joined the link's user namespace (``link.join_user()``) before its first thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import threading
import time
from collections import deque
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

from robot_charger.common.plc_link import LinkError, PlcLink, hardware_address, link_local_address
from robot_charger.common.streams import abort
from robot_charger.sim import package
from robot_charger.sim.slac_ev import Behaviour, NoMatchError, SlacEv
from robot_charger.v2g import v2gtp

log = logging.getLogger(__name__)

SDP_ATTEMPTS = 50  # ISO 15118-2, 7.10.1
SDP_TIMEOUT_S = 0.25
CHARGE_LOOP_PERIOD_S = 0.1
CONTACTOR_CLOSE_V = 20.0  # a vehicle closes its contactor when precharge is this near
PRECHARGE_CURRENT_A = 2.0
WELDING_VOLTAGE_V = 60.0
PROTOCOLS = ("din", "iso15118-2", "iso15118-20", "iso15118-20-bpt", "acdp", "acdp-bpt")


class VehicleLike(Protocol):
    """What the EVCC needs of the simulated vehicle."""

    inlet_voltage_v: float
    inlet_current_a: float
    soc: float
    target_soc: float
    battery_voltage_v: float
    max_voltage_v: float
    max_current_a: float
    max_power_w: float
    capacity_wh: float
    requested_current_a: float
    pilot_duty: float
    connected: bool
    faults: set[str]

    def set_ready(self, ready: bool) -> None: ...
    def close_contactor(self) -> bool: ...
    def open_contactor(self) -> None: ...
    def lock(self) -> None: ...
    def unlock(self) -> None: ...
    def wants_to_stop(self) -> bool: ...


@dataclass
class Options:
    """How this vehicle behaves. ``tls``: asks for TLS. ``slac``: does SLAC first.

    ``behaviour`` is what its SLAC does wrong; ``stop_at`` the name of a request after whose answer it falls
    silent; ``loop_period_s`` the pace of its charge loop.
    """

    tls: bool = False
    pki: str = ""
    pnc: bool = False
    slac: bool = True
    behaviour: Behaviour = field(default_factory=Behaviour)
    loop_period_s: float = CHARGE_LOOP_PERIOD_S
    patience_s: float = 2.0  # shortest wait for an answer; 0 = the standard's times (0.25 s in the charge loop)
    stop_at: str = ""
    split: bool = False  # its TCP cuts every message into segments of a few bytes
    leave_at: str = ""  # a request it does not send, the first time or (NAME*2) the second, but leaves early:
    leave_by: str = "stop"  # "stop" by SessionStopReq, "close" without a word, "misplaced" by what is out of order
    dynamic: bool = False  # chooses dynamic control in ISO 15118-20
    evcc_id: str = ""  # EVCCID; empty = the MAC address
    max_discharge_current_a: float = 100.0
    max_discharge_power_w: float = 40_000.0
    pause: bool = False  # ends its session with the intent to come back
    wrong_receipt: bool = False  # signs another meter reading than it was told
    renegotiate: bool = False  # ISO 15118-2: negotiates anew, once, in the midst of the transfer
    resume: str = ""  # id of a paused session that it joins again
    certificate: str = ""  # with pnc: "install" asks for a contract certificate, "update" for a newer one

    @classmethod
    def parse(cls, words: dict[str, str]) -> Options:
        """From KEY=VALUE words of a command line. Raises ValueError."""
        known = {f.name: f for f in fields(cls) if f.name != "behaviour"}
        values: dict[str, Any] = {}
        for name, word in words.items():
            if name not in known:
                raise ValueError(f"EVCC option {name} is unknown: one of {', '.join(sorted(known))}")
            default: Any = known[name].default
            if isinstance(default, bool):
                values[name] = word.lower() in ("1", "true", "yes", "on")
            else:
                values[name] = type(default)(word)
        return cls(**values)


_preparing = threading.Lock()


def prepare(pki: str = "") -> None:
    """Import the package's EVCC and load its EXI codec, once: a second of computing at least.

    Whoever has wires to serve does it before a plug comes: in a thread beside them it starves them on a busy machine.
    """
    with _preparing:
        package.prepare(pki)
        with package.quiet_import():
            from robot_charger.sim import evcc_session as _  # noqa: F401  (imports the package's EVCC)
        package.use_codec()


class Evcc:
    """One session of a vehicle. ``result`` holds what came of it once ``finished`` is set."""

    def __init__(
        self,
        vehicle: Any,
        link: PlcLink,
        protocol: str = "iso15118-2",
        options: Options | dict[str, str] | None = None,
    ) -> None:
        if protocol not in PROTOCOLS:
            raise ValueError(f"protocol {protocol} is unknown: one of {', '.join(PROTOCOLS)}")
        self.vehicle = vehicle
        self.link = link
        self.protocol = protocol
        self.acdp = protocol.startswith("acdp")
        self.options = Options.parse(options) if isinstance(options, dict) else options or Options()
        self.finished = threading.Event()
        self.result: dict[str, Any] = {"protocol": protocol, "result": "", "text": "", "slac_seconds": 0.0}
        self.loop_s: deque[float] = deque(maxlen=4096)  # request sent to answer received, charge loop
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="evcc", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Fall silent and close, as when the cable is pulled out."""
        self._stopped.set()
        loop, main = self._loop, self._main
        if loop and main:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(main.cancel)
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout=5.0)

    def _run(self) -> None:
        try:
            self.link.join_network()
            prepare(self.options.pki)
            if self.options.slac and not self.acdp:
                self._match()
            asyncio.run(self._talk())
        except NoMatchError as error:
            self.result.update(result="failed", text=f"SLAC: {error}")
        except asyncio.CancelledError:
            self.result.update(result="stopped", text="stopped")
        except (LinkError, OSError, ssl.SSLError) as error:
            self.result.update(result="failed", text=f"{type(error).__name__}: {error}")
        except Exception as error:
            log.exception("the simulated vehicle's EVCC ended")
            self.result.update(result="failed", text=f"{type(error).__name__}: {error}")
        finally:
            self.vehicle.set_ready(False)
            self.vehicle.open_contactor()
            self.vehicle.unlock()
            self.finished.set()

    def _match(self) -> None:
        frames = self.link.frames()
        try:
            match = SlacEv(frames, behaviour=self.options.behaviour, stopped=self._stopped.is_set).match()
        finally:
            frames.close()
        self.result["slac_seconds"] = match.seconds

    async def _talk(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._main = asyncio.current_task()
        if self._stopped.is_set():
            return
        found = await discover(self.link.interface, self.options.tls, self.acdp)
        if found.tls != self.options.tls:
            wants, has = ("TLS", "no TLS") if self.options.tls else ("no TLS", "TLS")
            raise LinkError(f"the SECC answered with {has}, the vehicle asked for {wants}")
        reader, writer = await self._connect(found)
        from robot_charger.sim.evcc_controller import VehicleController
        from robot_charger.sim.evcc_session import Session, config

        controller = VehicleController(self.vehicle, self.protocol, self.options, self._mac())
        session = Session(
            (reader, writer), config(self.protocol, self.options), self.link.interface, controller, self.options
        )
        session.is_tls = found.tls
        tls = writer.get_extra_info("ssl_object")
        self.result["tls"] = tls.version() if tls else ""
        session.loop_s = self.loop_s
        try:
            ok, text = await session.run()
            self.result.update(
                result="ended" if ok else "failed", text=text, messages=session.messages, limits_a=session.limits_a
            )
            self.result.update(certificate=session.certificate)
            self.result.update(session_id=session.session_id, setup=session.setup, receipts=session.receipts)
            self.result.update(acdp=session.acdp_log)
        finally:
            abort(writer.transport)

    def _mac(self) -> str:
        try:
            return hardware_address(self.link.interface).hex().upper()
        except OSError:
            return "02EC000000E1"

    async def _connect(self, found: v2gtp.SdpResponse) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        context = None
        if found.tls:
            from robot_charger.sim.evcc_session import tls_context

            context = tls_context(self.protocol, self.options.pki)
        index = socket.if_nametoindex(self.link.interface)
        sock = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await asyncio.wait_for(loop.sock_connect(sock, (found.address, found.port, 0, index)), 5.0)
        if context is None:
            return await asyncio.open_connection(sock=sock)
        return await asyncio.open_connection(sock=sock, ssl=context, server_hostname="")


async def discover(interface: str, tls: bool, wireless: bool = False) -> v2gtp.SdpResponse:
    """SECC discovery on ``interface``; ``wireless`` by ACDP's payload types. Raises LinkError if nobody answers."""
    address, index = link_local_address(interface)
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
    sock.bind((address, 0, 0, index))
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    request = v2gtp.SdpRequest(tls, wireless).encode()
    try:
        for _ in range(SDP_ATTEMPTS):
            with contextlib.suppress(OSError):  # the link may be down just now
                sock.sendto(request, (v2gtp.SDP_GROUP, v2gtp.SDP_PORT, 0, index))
            until = time.monotonic() + SDP_TIMEOUT_S
            while time.monotonic() < until:
                try:
                    data = await asyncio.wait_for(loop.sock_recv(sock, 2048), until - time.monotonic())
                    return v2gtp.SdpResponse.decode(data)
                except (TimeoutError, asyncio.TimeoutError):
                    break
                except ValueError:
                    continue
        raise LinkError(f"no SECC answered {SDP_ATTEMPTS} discovery requests on {interface}")
    finally:
        sock.close()
