"""The one thread that owns asyncio, SLAC and V2G, and that enters the PLC link's network namespace.

It waits until the supervisor wants to talk (session/state.phase LINKING), matches a vehicle, answers its
discovery and its session, and is ready for the next session when that one is over, however it ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from robot_charger.common.faults import Code, FaultReport, Severity
from robot_charger.common.plc_link import LinkError, NoFrames, PlcLink
from robot_charger.common.process import realtime
from robot_charger.v2g.bridge import TALKING, TALKING_ACDP, Bridge
from robot_charger.v2g.certificates import Contexts
from robot_charger.v2g.conversation import Conversation
from robot_charger.v2g.parameters import V2gParameters
from robot_charger.v2g.record import Entry
from robot_charger.v2g.secc import protocols
from robot_charger.v2g.session import Outcome
from robot_charger.words.values import Link, Phase, Pilot

log = logging.getLogger(__name__)

TICK_S = 0.1
REALTIME_PRIORITY = 20  # SCHED_FIFO, below the control loops of power and robot
IDLE_S = 1.0  # without a word of the station
ANSWERS = "charge loop answered in"  # of the last session, for diagnostics
WAKING = (Pilot.E, Pilot.F)  # at least T_step_EF, 4 s
CARRIER_LOST_S = 0.3  # a link must be gone this long before it counts
LINK_GONE = "the PLC link to the vehicle is gone"
PLUGGING_IN = frozenset({Phase.CONNECTING, Phase.MATED})
ONLY_TALKED_TO = Phase.FAULTED  # the vehicle is told, then the connection closed


@dataclass
class Status:
    """For diagnostics: counters of all parts, as the thread last wrote them."""

    values: dict[str, Any] = field(default_factory=dict)
    turnaround_s: list[float] = field(default_factory=list)
    loop_turnaround_s: list[float] = field(default_factory=list)


class Worker:
    """``start()`` returns when the link is ready, or raises LinkError with the reason; ``stop()`` ends the thread.

    ``report`` is called with faults (in the V2G thread), ``record`` with an entry for every V2G
    message.
    """

    def __init__(
        self,
        name: str,
        link: PlcLink,
        parameters: V2gParameters,
        bridge: Bridge,
        report: Callable[[FaultReport], None] = lambda report: None,
        record: Callable[[Entry], None] = lambda entry: None,
        contexts: Contexts | None = None,
        failed: Callable[[BaseException], None] = lambda error: None,
    ) -> None:
        self.name = name
        self.link = link
        self.parameters = parameters
        self.bridge = bridge
        self.status = Status()
        self._acdp = parameters.link == "acdp"
        self._report = report
        self._record = record
        self._contexts = contexts
        self._on_failure = failed  # the thread ended by an error that nobody expected
        self._ready = threading.Event()
        self._error: Exception | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="v2g", daemon=True)

    def start(self, timeout_s: float = 60.0) -> None:
        self._thread.start()
        if not self._ready.wait(timeout_s):
            self._error = LinkError(f"the V2G thread was not ready within {timeout_s:g} s")
        if self._error is not None:
            raise LinkError(str(self._error)) from self._error

    def stop(self) -> None:
        if self._main:
            self._call(self._main.cancel)
        if self._thread.is_alive():
            self._thread.join(timeout=5.0)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def _call(self, action: Callable[[], Any]) -> None:
        """In the V2G thread, from any other."""
        if self._loop:
            with contextlib.suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(action)

    def _run(self) -> None:
        sys.setswitchinterval(0.0005)  # an answer must not wait 5 ms for the interpreter
        if self.parameters.realtime:
            realtime(REALTIME_PRIORITY)
        try:
            self.link.join_network()
            asyncio.run(self._serve())
        except asyncio.CancelledError:
            pass  # stop()
        except Exception as error:
            if not self._ready.is_set():
                self._error = error
            else:
                log.exception("the V2G thread ended")
                text = f"the V2G thread ended: {type(error).__name__}: {error}"
                self.bridge.say(phase=Link.FAILED, purpose=0, error=Code.V2G_INTERNAL, text=text)
                self._report(FaultReport(Code.V2G_INTERNAL, Severity.STOP, text))
                self._on_failure(error)
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        from robot_charger.v2g.slac import KeyNotSetError, Matcher

        self._loop = asyncio.get_running_loop()
        self._main = asyncio.current_task()
        self.bridge.on_session = lambda: self._call(self._wake.set)
        protocols.warm()
        conversation = Conversation(self.link.interface, self.parameters, self.bridge, self._record, self._contexts)
        conversation.on_tls_error = self._report_tls
        frames = NoFrames() if self._acdp else self.link.frames()
        matcher = Matcher(self.name, frames, self.parameters.slac__settle_s)
        try:
            await conversation.open()
            if self.link.transport != "interface" and not self._acdp:
                await matcher.set_key()  # a desk's modem answers at once; on a station it may still be booting
            gc.collect()
            gc.freeze()
            self._ready.set()
            while True:
                if not matcher.has_key and not self._acdp:
                    try:
                        await matcher.set_key()
                        self._report(FaultReport(Code.SLAC_FAILED, Severity.WARNING, "", active=False))
                    except KeyNotSetError as error:
                        self._report(FaultReport(Code.SLAC_FAILED, Severity.WARNING, str(error)))
                        await asyncio.sleep(1.0)
                        continue
                await self._idle()
                await self._session(matcher, conversation)
                self._note(matcher, conversation)
                with contextlib.suppress(KeyNotSetError):
                    if not self._acdp:
                        await matcher.set_key()  # the last vehicle leaves the network, the next finds it ready
        finally:
            matcher.close()
            await conversation.close()

    async def _idle(self) -> None:
        """Until the supervisor wants to talk to a vehicle that was not talked to since it was plugged in."""
        done = self.bridge.vehicle.session_id if self.bridge.vehicle.phase >= Link.ENDED else ""
        while True:
            station = self.bridge.station
            if station.pilot in WAKING and self.bridge.vehicle.error == Code.SLAC_FAILED:
                done = ""  # the pilot wakes the vehicle: it may match now
            if station.phase in PLUGGING_IN and not self._acdp:
                done = ""  # plugged in again in the same session
            begins = station.phase == (Phase.POSITIONING if self._acdp else Phase.LINKING)
            if begins and station.session_id and station.session_id != done:
                return
            if station.session_id != done and self.bridge.vehicle.phase != Link.IDLE:
                self.bridge.begin("")
            with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
                await asyncio.wait_for(self._wake.wait(), IDLE_S)
            self._wake.clear()

    async def _session(self, matcher: Any, conversation: Any) -> None:
        session_id = self.bridge.station.session_id
        self.bridge.begin(session_id)
        conversation.forget()
        if self._acdp:
            self.bridge.say(phase=Link.LINKED, text="waiting for the vehicle on the IP link")
            await self._talk_on(session_id, matcher, conversation)
            return
        while await self._match(session_id, matcher):
            if not await self._talk_on(session_id, matcher, conversation):
                return

    async def _match(self, session_id: str, matcher: Any) -> bool:
        """A vehicle is matched; False when none was and the link's phase says why."""
        from robot_charger.v2g.slac import SlacError

        text = "waiting for the vehicle's SLAC request"
        self.bridge.say(phase=Link.MATCHING, matched=False, text=text)
        matching = asyncio.ensure_future(
            matcher.match(
                self.parameters.slac__timeout_s,
                lambda: self.bridge.say(text="SLAC is going on"),
            )
        )
        try:
            while not matching.done():
                if not self._wanted(session_id):
                    self._ended("the station gave the session up before a vehicle was matched")
                    return False
                await asyncio.wait({matching}, timeout=TICK_S)
            match = matching.result()
        except SlacError as error:
            self._failed(Code.SLAC_FAILED, str(error))
            return False
        finally:
            matching.cancel()
        text = f"matched in {match.seconds:.2f} s, {match.attenuation_db:.0f} dB"
        if not match.confirmed:
            text += ", the link not confirmed by the modem"
        self.bridge.say(phase=Link.LINKED, matched=True, match_seconds=match.seconds, text=text)
        return True

    async def _talk_on(self, session_id: str, matcher: Any, conversation: Any) -> bool:
        """A vehicle that pauses keeps the data link and may come back to it ([V2G2-740]) while the station waits.

        True when it wants to be matched again.
        """
        anew = await self._talk(session_id, matcher, conversation)
        while not anew and self.bridge.vehicle.phase == Link.PAUSED:
            anew = await self._talk(session_id, matcher, conversation)
        return anew

    async def _talk(self, session_id: str, matcher: Any, conversation: Any) -> bool:
        """One session. True when the vehicle begins SLAC anew instead, before it or in a pause."""
        talking = asyncio.ensure_future(conversation.hold())
        lost_for = 0.0
        awaited = False  # the station waits for a vehicle that paused
        try:
            while not talking.done():
                await asyncio.wait({talking}, timeout=TICK_S)
                if self.bridge.vehicle.phase == Link.PAUSED and not talking.done():
                    if awaited and self.bridge.station.stopping:
                        self._ended("the station ended the pause")
                        return False
                    awaited = awaited or not self.bridge.station.stopping
                if matcher.begun_anew and not conversation.begun:
                    return True
                lost_for = 0.0 if matcher.carrier() else lost_for + TICK_S
                if lost_for > CARRIER_LOST_S:
                    self._failed(Code.LINK_LOST, LINK_GONE)
                    return False
                if not self._wanted(session_id) and not talking.done():
                    self._ended("the station closed the conversation")
                    return False
            outcome = talking.result()
        finally:
            if not talking.done():
                talking.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await talking
            self._note(matcher, conversation)
        self.status.turnaround_s = conversation.turnaround_s
        self.status.loop_turnaround_s = conversation.loop_turnaround_s
        self.conclude(outcome, matcher.carrier())
        await conversation.finish()
        return False

    def conclude(self, outcome: Outcome, carrier: bool = True) -> None:
        """Say how a conversation ended. Without a carrier it was the link that fell silent, not the vehicle."""
        if not carrier and outcome.code in (Code.V2G_SILENT, Code.V2G_TIMEOUT):
            self._failed(Code.LINK_LOST, LINK_GONE)
        elif outcome.ended:
            phase = Link.PAUSED if outcome.paused else Link.ENDED
            self.bridge.say(phase=phase, purpose=0, error=Code.NONE, text=outcome.text)
        elif outcome.code == Code.NONE:
            self._ended(outcome.text)
        else:
            self._failed(outcome.code, outcome.text)

    def _wanted(self, session_id: str) -> bool:
        station = self.bridge.station
        phases = TALKING_ACDP if self._acdp else TALKING
        return station.session_id == session_id and (station.phase in phases or station.phase == ONLY_TALKED_TO)

    def _ended(self, text: str) -> None:
        self.bridge.say(phase=Link.ENDED, purpose=0, voltage_v=0.0, current_a=0.0, text=text)

    def _failed(self, code: Code, text: str) -> None:
        self.bridge.say(
            phase=Link.FAILED, purpose=0, voltage_v=0.0, current_a=0.0, matched=False, error=code, text=text
        )
        self._report(FaultReport(code, Severity.STOP, text))
        self._report(FaultReport(code, Severity.STOP, text, active=False))

    def _report_tls(self, text: str) -> None:
        report = FaultReport(Code.V2G_TLS, Severity.WARNING, f"TLS handshake with the vehicle failed: {text}")
        self._report(report)
        self._report(replace(report, active=False))

    def _note(self, matcher: Any, conversation: Any) -> None:
        slac, found = matcher.counters, conversation.counters
        self.status.values = {
            "SLAC frames": slac.frames_in,
            "SLAC frames bad": slac.frames_bad,
            "SLAC frames ignored": slac.frames_ignored,
            "SLAC sessions": slac.sessions,
            "SLAC sessions failed": slac.sessions_failed,
            "SLAC attenuation by group [dB]": " ".join(f"{value:.0f}" for value in slac.attenuation_db),
            "PLC keys set": slac.keys_set,
            "SDP requests": found.sdp_requests,
            "SDP bad": found.sdp_bad,
            "SDP dropped": found.sdp_dropped,
            "connections": found.connections,
            "connections refused": found.connections_refused,
            "TLS failed": found.tls_failed,
            "V2G messages bad": self.bridge.vehicle.messages_bad,
        }
        answers_ms = sorted(1e3 * seconds for seconds in conversation.loop_turnaround_s)
        for name, share in (("p50", 0.5), ("p99", 0.99)) if answers_ms else ():
            self.status.values[f"{ANSWERS} {name} [ms]"] = round(answers_ms[int(share * (len(answers_ms) - 1))], 2)
