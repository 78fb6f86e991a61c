"""From the vehicle's discovery request to the end of its session, over one link."""

from __future__ import annotations

import asyncio
import math
import ssl
from collections.abc import Callable
from pathlib import Path

from robot_charger.common.clock import now_ns
from robot_charger.common.faults import Code
from robot_charger.common.plc_link import LinkError
from robot_charger.common.streams import abort
from robot_charger.v2g.bridge import Bridge
from robot_charger.v2g.certificates import Contexts, operator_root
from robot_charger.v2g.discovery import Counters, Discovery
from robot_charger.v2g.parameters import V2gParameters
from robot_charger.v2g.record import Entry
from robot_charger.v2g.secc.table import Settings
from robot_charger.v2g.session import Outcome, Session
from robot_charger.words.values import Link


class Conversation:
    """``open()`` once, ``hold()`` for each matched vehicle, ``finish()`` after it."""

    def __init__(
        self,
        interface: str,
        parameters: V2gParameters,
        bridge: Bridge,
        record: Callable[[Entry], None],
        contexts: Contexts | None,
    ) -> None:
        self.parameters = parameters
        self.bridge = bridge
        self.turnaround_s: list[float] = []
        self.loop_turnaround_s: list[float] = []
        self._record = record
        self._contexts = contexts
        self._interface = interface
        self._discovery = Discovery(interface, self._connected, contexts, parameters.tls__required)
        self._discovery.on_tls_error = self._on_tls_error
        self._discovery.wireless = parameters.link == "acdp"
        self.on_tls_error: Callable[[str], None] = lambda text: None
        self._session: Session | None = None
        self._running: asyncio.Task[Outcome] | None = None
        self._outcome: asyncio.Future[Outcome] | None = None
        self._closing: set[asyncio.Task[None]] = set()  # connections that came to nothing
        self._open_since = 0
        self._tls_error = ""
        self._paused = ""  # SessionID of a paused session; the same vehicle may join it again
        self._root = operator_root(Path(parameters.tls__directory)) if parameters.pnc else b""

    @property
    def counters(self) -> Counters:
        return self._discovery.counters

    @property
    def begun(self) -> bool:
        """A session is set up, and not yet over."""
        return self._session is not None and self._session.begun

    async def open(self) -> None:
        if not self._interface:
            raise LinkError("the PLC link is virtual: name a network interface for V2G by the parameter interface")
        if self.parameters.tls__required and self._contexts is None:
            raise LinkError("tls.required is true but there are no certificates: set tls.directory")
        await self._discovery.open()

    async def close(self) -> None:
        self._discovery.close()
        await self._drop()

    async def hold(self) -> Outcome:
        """Be discovered and talk until a session has ended, or none has begun in time."""
        self._outcome = asyncio.get_running_loop().create_future()
        self._open_since = now_ns()
        self._tls_error = ""
        self._discovery.answering = True
        # How long a pause may last is the supervisor's matter.
        longest_s = math.inf if self._paused else self.parameters.setup_timeout_s
        try:
            while not self._outcome.done():
                await asyncio.wait({self._outcome}, timeout=0.5)
                waiting = now_ns() - self._open_since > longest_s * 1e9
                if waiting and self._running is None and not self._outcome.done():
                    if self._tls_error:
                        text = f"TLS handshake failed: {self._tls_error}"
                        return Outcome(False, False, False, Code.V2G_TLS, text)
                    text = f"the vehicle opened no V2G session within {longest_s:g} s of the match"
                    return Outcome(False, False, False, Code.V2G_TIMEOUT, text)
            return self._outcome.result()
        except asyncio.CancelledError:
            await self._drop()
            raise
        finally:
            self._discovery.answering = False
            self._outcome = None

    def forget(self) -> None:
        """Another vehicle, or the same in a new session: nothing is resumed."""
        self._paused = ""

    async def finish(self) -> None:
        """Let the last answer through and close."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _drop(self) -> None:
        running, self._running = self._running, None
        if running is not None and not running.done():
            running.cancel()
            await asyncio.wait({running})
        if self._session is not None:
            abort(self._session.writer.transport)
            self._session = None

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._session is not None and (self._session.begun or self._running is None):
            self.counters.connections_refused += 1  # a session runs: this is another one's vehicle
            abort(writer.transport)
            return
        await self._drop()  # something connected before and said nothing of use
        if self._outcome is None:
            abort(writer.transport)
            return
        session = Session((reader, writer), self.settings(writer), self.bridge, self.parameters, self._record)
        self._session = session
        self._running = asyncio.ensure_future(session.run())
        self._running.add_done_callback(lambda task: self._on_done(session, task))

    def _on_done(self, session: Session, task: asyncio.Task[Outcome]) -> None:
        if session is not self._session:
            return
        self._running = None
        self.turnaround_s = list(session.turnaround_s)
        self.loop_turnaround_s = list(session.loop_turnaround_s)
        if task.cancelled():
            return
        outcome = task.result()
        self._paused = session.session_id if outcome.paused else self._paused
        if outcome.begun and self._outcome is not None:
            if not self._outcome.done():
                self._outcome.set_result(outcome)
            return
        # Nothing of a vehicle yet: a port scanner, or one that tries again. Go on listening.
        closing = asyncio.ensure_future(session.close())  # lets the last answer through
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        self._session = None
        self._open_since = now_ns()
        if self.bridge.vehicle.phase == Link.LINKED:
            self.bridge.say(text=f"a connection came to nothing: {outcome.text}"[:200])

    def _on_tls_error(self, text: str) -> None:
        self._tls_error = text
        self.bridge.say(text=f"TLS handshake failed: {text}"[:200])
        self.on_tls_error(text)

    def settings(self, writer: asyncio.StreamWriter) -> Settings:
        """What may be spoken on this connection: no DIN over TLS, no -20 without TLS 1.3 and a client certificate."""
        parameters = self.parameters
        names = list(parameters.protocols)
        tls: ssl.SSLObject | None = writer.get_extra_info("ssl_object")
        if tls is not None:
            names = [name for name in names if name != "din70121"]
            if tls.version() != "TLSv1.3" or not tls.getpeercert(binary_form=True):
                names = [name for name in names if name != "iso15118-20"]
        device = parameters.link == "acdp"  # nothing else is spoken over the air
        return Settings(
            protocols=tuple(name for name in names if name == "iso15118-20" or not device),
            evse_id=parameters.evse_id,
            evse_id_din=parameters.evse_id_din,
            pnc=parameters.pnc and tls is not None,
            contract_installation=parameters.contract_installation,
            operator_root=self._root,
            authorization_timeout_s=parameters.authorization_timeout_s,
            stop_grace_s=parameters.stop_grace_s,
            pause_after_s=parameters.pause_after_s,
            receipt_s=parameters.receipt_s,
            bidirectional=parameters.bidirectional,
            device=device,
            publish_identity=parameters.privacy__publish_identity,
            joins=self._paused,
            loop_timeout_s=parameters.vehicle_timeout_ms / 1000,
            loop_timeout_20_s=parameters.vehicle_timeout_20_ms / 1000,
        )
