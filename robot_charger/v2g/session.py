"""One vehicle's V2G session on a TCP or TLS connection: socket, V2GTP framing and time-outs around the tables.

Messages are cut by their V2GTP length, however TCP splits or joins them. The raw bytes go to the record before they are
decoded. ``secc/machine.py`` gives the answer to each; here it is sent, timed, and waited for where it depends on the
station.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from robot_charger.common.clock import now_ns
from robot_charger.common.faults import Code
from robot_charger.common.streams import abort
from robot_charger.v2g import v2gtp
from robot_charger.v2g.bridge import Bridge
from robot_charger.v2g.parameters import V2gParameters
from robot_charger.v2g.record import Entry
from robot_charger.v2g.secc import protocols
from robot_charger.v2g.secc.table import Ask, End, Moment, Reply, Settings
from robot_charger.words.values import Link, Purpose, Shutdown

log = logging.getLogger(__name__)

CLOSE_WAIT_S = 2.0  # for the vehicle to close TCP after SessionStopRes
EMERGENCY_GRACE_S = 1.0  # for one last answer that names the emergency
POLL_S = 0.01  # how often an answer that waits for the station is looked at
WATCH_S = 0.1  # how often the station's wish to end is looked at
TEXT = 200  # longest text of a fault
CHARGE_LOOP = frozenset({"CurrentDemandReq", "DC_ChargeLoopReq"})

Record = Callable[[Entry], None]


@dataclass(frozen=True)
class Outcome:
    """How a connection ended. ``begun``: a session was set up in it. ``code``: NONE when it ended in order."""

    begun: bool
    ended: bool
    paused: bool
    code: Code
    text: str


class SessionEnd(Exception):
    """The session ends here without an answer, with an outcome's code and text."""

    def __init__(self, code: Code, text: str, bad: bool = False) -> None:
        super().__init__(text)
        self.code = code
        self.bad = bad


class Session:
    """``run()`` once. ``record`` gets an :class:`Entry` for every message, before it is decoded."""

    def __init__(
        self,
        transport: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        settings: Settings,
        bridge: Bridge,
        parameters: V2gParameters,
        record: Record = lambda entry: None,
    ) -> None:
        self.reader, self.writer = transport
        self.bridge = bridge
        self.parameters = parameters
        self.machine = protocols.machine(settings)
        self.turnaround_s: deque[float] = deque(maxlen=4096)  # request read to answer sent
        self.loop_turnaround_s: deque[float] = deque(maxlen=4096)  # of the charge loop alone
        self._record = record
        self._stop_since: float | None = None
        self._peer_gone = False

    @property
    def begun(self) -> bool:
        """The vehicle has sent SessionSetupReq."""
        return self.machine.talk.begun

    @property
    def session_id(self) -> str:
        return self.machine.talk.session_id

    async def run(self) -> Outcome:
        """Answer the vehicle until the session ends. Never raises but CancelledError."""
        try:
            end = await self._answer()
        except SessionEnd as ended:
            self._count_bad(ended.bad)
            end = self.machine.cut(ended.code, str(ended))
        except OSError as error:
            self._peer_gone = True
            end = self.machine.closed()
            if not end.in_order:
                end = self.machine.cut(Code.LINK_LOST, f"connection lost: {error}")
        except asyncio.CancelledError:
            abort(self.writer.transport)
            self._off()
            raise
        self._off()
        return Outcome(self.begun, end.in_order, end.paused, end.code, end.text[:TEXT])

    async def close(self) -> None:
        """Let the last answer through: the vehicle closes first, we after two seconds."""
        with contextlib.suppress(Exception):
            if not self._peer_gone:
                await asyncio.wait_for(self.reader.read(1), CLOSE_WAIT_S)
        with contextlib.suppress(Exception):
            self.writer.close()
            await asyncio.wait_for(self.writer.wait_closed(), 0.5)
        abort(self.writer.transport)

    def _off(self) -> None:
        self.bridge.say(purpose=Purpose.NONE, voltage_v=0.0, current_a=0.0)

    async def _answer(self) -> End:
        while True:
            message = await self._read(self.machine.timeout_s)
            if message is None:
                return self.machine.closed()
            arrived = time.monotonic()
            kind, payload = message
            self._heard()
            entry = Entry("in", kind, payload, now_ns())
            self._record(entry)
            reply = self._note(self._safely(partial(self._take, kind, payload)), entry)
            while reply.waits:
                await asyncio.sleep(POLL_S)
                reply = self._note(self._safely(self._poll))
            await self._send(reply, arrived)
            self.bridge.settle()
            if reply.end is not None:
                return reply.end

    # The machine.
    def _take(self, kind: int, payload: bytes) -> Reply:
        return self.machine.take(kind, payload, self.bridge.station, _now())

    def _poll(self) -> Reply:
        return self.machine.poll(self.bridge.station, _now())

    def _safely(self, act: Callable[[], Reply]) -> Reply:
        """A mistake of ours: the vehicle gets FAILED, and the session ends."""
        try:
            return act()
        except Exception as error:
            text = f"{type(error).__name__} while answering {self.machine.request or 'the vehicle'}"
            log.exception("%s", text)
            return self.machine.failed(Code.V2G_INTERNAL, text)

    def _note(self, reply: Reply, entry: Entry | None = None) -> Reply:
        """Tell the station and the record what came of a message."""
        if reply.changes:
            self.bridge.say(**reply.changes)
        self._count_bad(reply.bad)
        if entry is not None:
            name, tree = (reply.heard.name, reply.heard.tree) if reply.heard else (reply.request, None)
            entry.finish(name, tree, reply.notes, reply.fault)
        if reply.ask is not None:
            self._ask(reply.ask)
        return reply

    def _ask(self, ask: Ask) -> None:
        loop = asyncio.get_running_loop()

        def give(data: bytes, text: str) -> None:
            with contextlib.suppress(RuntimeError):  # too late: the V2G thread has ended
                loop.call_soon_threadsafe(self.machine.contract, data, text)

        self.bridge.ask_contract(ask.update, ask.request, give)

    async def _send(self, reply: Reply, arrived: float) -> None:
        kind, _ = v2gtp.payload_length(reply.message[: v2gtp.HEADER])
        entry = Entry("out", kind, reply.message[v2gtp.HEADER :], now_ns())
        assert reply.said is not None
        entry.finish(reply.said.name, reply.said.tree)
        self.writer.write(reply.message)
        await self.writer.drain()
        seconds = time.monotonic() - arrived
        self.turnaround_s.append(seconds)
        if reply.request in CHARGE_LOOP:
            self.loop_turnaround_s.append(seconds)
        self._record(entry)
        self.bridge.say(messages_out=self.bridge.vehicle.messages_out + 1)

    # The vehicle and its silence.
    def _heard(self) -> None:
        vehicle = self.bridge.vehicle
        loop_20 = self.machine.protocol == "iso15118-20" and self.machine.request in CHARGE_LOOP
        timeout_ms = self.parameters.vehicle_timeout_20_ms if loop_20 else self.parameters.vehicle_timeout_ms
        self.bridge.say(stamp_ns=now_ns(), timeout_ms=int(timeout_ms), messages_in=vehicle.messages_in + 1)

    def _count_bad(self, bad: bool) -> None:
        if bad:
            self.bridge.say(messages_bad=self.bridge.vehicle.messages_bad + 1)

    async def _read(self, timeout_s: float) -> tuple[int, bytes] | None:
        """Payload type and payload of one V2GTP message, None when the vehicle closed. Raises SessionEnd."""
        task = asyncio.ensure_future(self._read_message())
        deadline = time.monotonic() + timeout_s
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=min(WATCH_S, max(0.0, deadline - time.monotonic())))
                if task.done():
                    break
                self._check_station()
                if time.monotonic() >= deadline:
                    code = Code.V2G_SILENT if self.bridge.vehicle.phase == Link.CHARGING else Code.V2G_TIMEOUT
                    after = f" after {self.machine.request}" if self.machine.request else ""
                    raise SessionEnd(code, f"no message of the vehicle within {timeout_s:g} s{after}")
            return task.result()
        except v2gtp.V2gtpError as error:
            raise SessionEnd(Code.V2G_DECODE, str(error), bad=True) from error
        except asyncio.IncompleteReadError:
            self._peer_gone = True
            return None
        finally:
            task.cancel()

    async def _read_message(self) -> tuple[int, bytes]:
        kind, length = v2gtp.payload_length(await self.reader.readexactly(v2gtp.HEADER))
        return kind, await self.reader.readexactly(length)

    def _check_station(self) -> None:
        """Close when the vehicle does not end the session by itself in time."""
        station = self.bridge.station
        if not station.stopping:
            self._stop_since = None
            return
        now = time.monotonic()
        if self._stop_since is None:
            self._stop_since = now
        emergency = station.shutdown == Shutdown.EMERGENCY
        if self.bridge.vehicle.phase == Link.DISCONNECTING and not emergency:
            self._stop_since = now  # it has ended the transfer and waits for the arm
        grace_s = EMERGENCY_GRACE_S if emergency else self.parameters.stop_grace_s
        if now - self._stop_since > grace_s:
            raise SessionEnd(
                Code.NONE if emergency else Code.V2G_TIMEOUT,
                f"the vehicle did not end the session within {grace_s:g} s of the station's wish to stop",
            )


def _now() -> Moment:
    return Moment(now_ns(), time.time())
