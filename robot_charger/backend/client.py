"""The OCPP connection: WebSocket, calls and answers, boot, heartbeat, reconnect. What is sent next: outbox.py.

Framing and schemas are those of the ``ocpp`` package (``ocpp.messages``); what that package leaves out is here:
reconnect with back-off and random (OCPP 2.0.1 part 4), one call in flight, answers read leniently (lenient.py).
Runs in one asyncio loop; nothing here blocks but the store's commits.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import inspect
import json
import logging
import random
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

import ocpp.messages
from ocpp.exceptions import (
    FormatViolationError,
    OCPPError,
)
from ocpp.messages import Call as CallMessage
from ocpp.messages import CallError, CallResult, unpack
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, WebSocketException
from websockets.typing import Subprotocol

from robot_charger.backend import lenient
from robot_charger.backend.answers import Handler, Reply, Requests
from robot_charger.backend.boot import Boot
from robot_charger.backend.networks import Backoff, Network
from robot_charger.backend.outbox import NotAnsweredError, Outbox, RefusedError
from robot_charger.backend.records import Call, Now, Outcome, Payload, Record
from robot_charger.backend.security import fingerprint
from robot_charger.common.faults import Code, FaultReport, Severity
from robot_charger.common.streams import abort

ocpp.messages.ASYNC_VALIDATION = False  # its thread pool costs more than the check

log = logging.getLogger("robot_charger.backend")
__all__ = ["Backoff", "Client", "Network", "NotAnsweredError", "RefusedError", "Reply"]
MAX_MESSAGE = 4 << 20
STABLE_S = 30.0  # a connection that lasted this long was a good one: the back-off starts again
PATIENCE_S = 5.0  # longest wait for an answer that does not matter, while a transaction's message waits
PATIENCE_CALL_S = 1.0  # the same, while somebody waits for an answer: a vehicle for its authorisation
SILENT = 3  # calls in a row without an answer, of two kinds at least, after which the connection is given up
LATE = 100  # calls whose answer may still come after its time
_PROXY: dict[str, Any] = {"proxy": None} if "proxy" in inspect.signature(connect.__init__).parameters else {}


class Dialect(Protocol):
    """One OCPP version: builds and reads payloads, handles the CSMS's requests."""

    version: str
    subprotocol: str
    numbers_transactions: bool  # the CSMS numbers transactions in its answer to their start
    has_connector_0: bool  # the station itself has a status
    error_codes: dict[str, str]  # where the version has other words for a CALLERROR

    def boot(self, reason: str) -> Call: ...
    def heartbeat(self) -> Call: ...
    def status(self, evse: int) -> Call: ...
    def connector_status(self, evse: int) -> str: ...
    def record(self, record: Record) -> Call | None: ...
    def read_record(self, record: Record, answer: Payload) -> tuple[Outcome, dict[str, Any], Call | None]: ...
    def after_boot(self) -> None: ...
    @property
    def handlers(self) -> dict[str, Handler]: ...


class StationSide(Protocol):
    """What the client uses of the station (see station.Station)."""

    store: Any
    settings: Any
    outside: Any
    evses: Any
    status: dict[int, str]
    online: bool

    def delivered(self, record: Record, outcome: Outcome, now: Now) -> None: ...
    def connected(self, now: Now) -> None: ...
    def disconnected(self, now: Now) -> None: ...


class Client:
    def __init__(
        self,
        station: StationSide,
        dialect: Dialect,
        networks: Callable[[], list[Network]],
        clock: Callable[[], Now],
        on_change: Callable[[], None] = lambda: None,
        boot_reason: str = "PowerUp",
        rng: random.Random | None = None,
    ) -> None:
        self.station = station
        self.dialect = dialect
        self.boot = Boot(boot_reason)
        self.connected = False
        self.sent = 0
        self.refused = 0
        self.bad_messages = 0
        self.text = ""
        self.network: Network | None = None
        self._networks = networks
        self._clock = clock
        self._on_change = on_change
        self._rng = rng or random.Random()
        self._socket: ClientConnection | None = None
        self._pending: dict[str, asyncio.Future[CallResult | CallError]] = {}
        self._late_answers: dict[str, tuple[str, Callable[[Payload], None]]] = {}
        self._call_lock = asyncio.Lock()
        self._waiters = 0  # calls that wait for the one in flight
        self._queue_event = asyncio.Event()
        self._drained: asyncio.Event = asyncio.Event()
        self._named: set[str] = set()  # what was wrong in the form of answers
        self._unanswered: list[str] = []  # actions of the calls in a row that got no answer
        self._tasks: set[asyncio.Task[Any]] = set()
        self._number = 0
        self._stopping = False
        self._reconnecting = False  # the station itself closes the connection
        self._offline_since: int | None = None
        self._talked_ns = 0
        self.outbox = Outbox(self)
        self.requests = Requests(self)
        self.pin = ""  # SHA-256 of the CSMS's certificate, hex
        self.on_accepted: Callable[[Network], None] = lambda network: None
        self.on_security: Callable[[str, str], None] = lambda kind, text: None
        self.on_time: Callable[[str, float], bool] = lambda text, round_trip_s: True

    @property
    def now(self) -> Now:
        return self._clock()

    def changed(self) -> None:
        """Something that others see is new."""
        self._on_change()

    # What the station uses.
    def wake(self) -> None:
        """The queue or a status has something new."""
        self._queue_event.set()

    def send(self, call: Call, answer: Callable[[Payload | None], None] | None = None) -> None:
        """Send once, not durable; three attempts, and then ``answer`` gets None."""
        self.outbox.add(call, answer, self.requests.asked)
        self._queue_event.set()

    async def call(
        self,
        call: Call,
        message_id: str | None = None,
        timeout_s: float | None = None,
        patient: bool = True,
        late: Callable[[Payload], None] | None = None,
    ) -> Payload:
        """Send and wait for the answer, read leniently. Raises NotAnsweredError or RefusedError.

        Not ``patient``: stop waiting after PATIENCE_S while something waits that matters more. ``late`` gets an answer
        that comes after its time.
        """
        action, payload = call
        message = CallMessage(message_id or self._next_id(), action, payload)
        self._waiters += 1
        async with self._call_lock:
            self._waiters -= 1
            socket = self._socket
            if socket is None:
                raise NotAnsweredError("not connected", closed=True)
            future: asyncio.Future[CallResult | CallError] = asyncio.get_running_loop().create_future()
            self._pending[message.unique_id] = future
            timeout = timeout_s or float(self.station.settings["message_timeout_s"])
            began = self._clock().mono_ns
            try:
                await socket.send(message.to_json())
                self.sent += 1
                self._talked_ns = began
                answer = await self._answer_to(future, timeout, patient)
            except asyncio.TimeoutError as error:
                if late:
                    self._expect_late(message.unique_id, action, late)
                await self._was_silent(action)
                raise NotAnsweredError(f"{action}: no answer in {timeout:g} s") from error
            except ConnectionClosed as error:
                raise NotAnsweredError(f"{action}: connection lost", closed=True) from error
            finally:
                self._pending.pop(message.unique_id, None)
        self._unanswered.clear()
        return self._read_answer(action, answer, self._clock().since(began))

    async def _answer_to(
        self, future: asyncio.Future[CallResult | CallError], timeout_s: float, patient: bool
    ) -> CallResult | CallError:
        """Raises asyncio.TimeoutError, or what ended the connection."""
        if not patient:
            waited = 0.0
            while waited < timeout_s and not self._impatient(waited):
                step = min(0.25, timeout_s - waited)
                done, _ = await asyncio.wait({future}, timeout=step)
                if done:
                    break
                waited += step
            timeout_s = 0.01
        return await asyncio.wait_for(future, timeout_s)

    def _impatient(self, waited: float) -> bool:
        """Something waits that matters more: a vehicle for its authorisation, or a transaction's message."""
        return bool(self._waiters and waited >= PATIENCE_CALL_S) or (waited >= PATIENCE_S and self.outbox.urgent)

    def _expect_late(self, message_id: str, action: str, late: Callable[[Payload], None]) -> None:
        self._late_answers[message_id] = (action, late)
        while len(self._late_answers) > LATE:
            self._late_answers.pop(next(iter(self._late_answers)))

    async def _was_silent(self, action: str) -> None:
        """Give up a connection over which nothing at all is answered, whatever is sent."""
        self._unanswered.append(action)
        if len(self._unanswered) >= SILENT and len(set(self._unanswered)) > 1:
            await self._drop("nothing is answered")

    def _read_answer(self, action: str, answer: CallResult | CallError, round_trip_s: float) -> Payload:
        if isinstance(answer, CallError):
            self.refused += 1
            raise RefusedError(str(answer.error_code), str(answer.error_description))
        found, wrong = lenient.read(action, self.dialect.version, answer.payload)
        for text in wrong:
            if text not in self._named and len(self._named) < 1000:  # named once
                self._named.add(text)
                log.warning("the CSMS's answer is wrong in its form: %s", text)
        if isinstance(told := found.get("currentTime"), str) and not self.on_time(told, round_trip_s):
            log.warning("the CSMS's time %s cannot be meant", told[:40])
        return found

    def _next_id(self) -> str:
        self._number += 1
        return f"{self._number:x}-{self._rng.getrandbits(48):012x}"

    # The connection's life.
    async def run(self) -> None:
        """Connect, serve, reconnect, until cancelled or stopped."""
        settings = self.station.settings
        index = attempts = 0
        backoff = self._new_backoff()
        while not self._stopping:
            try:
                networks = self._networks()
            except (OSError, ssl.SSLError) as error:
                self._fault(Code.BACKEND_TLS, f"certificates: {error}")
                await asyncio.sleep(backoff.next())
                continue
            network = networks[index % len(networks)]
            began = self._clock()
            try:
                await self._serve_once(network)
            except asyncio.CancelledError:
                raise
            except ssl.SSLError as error:
                self._fault(Code.BACKEND_TLS, f"{_host(network.url)}: TLS refused: {error}")
                self.text = f"TLS: {error}"
                old = "version" in str(error).lower() or "protocol" in str(error).lower()
                self.on_security("InvalidTLSVersion" if old else "InvalidCsmsCertificate", str(error))
            except InvalidStatus as error:
                self.text = f"{_host(network.url)} answered {error.response.status_code}"
                if error.response.status_code == 401:
                    self._fault(Code.BACKEND_REFUSED, f"{self.text}: check station_id and password_file")
                    attempts = int(settings["profile_attempts"])  # another password, if there is one
            except (OSError, WebSocketException, InvalidHandshake, asyncio.TimeoutError) as error:
                self.text = f"{_host(network.url)} not reached: {error or type(error).__name__}"
            except Exception as error:  # whatever it is, the next try may go well
                log.exception("connection failed")
                self.text = f"connection failed: {error!r}"
            if self._stopping:
                break
            self._fault(Code.BACKEND_OFFLINE, self.text or f"{_host(network.url)} not reached")
            self._on_change()
            if self._reconnecting or self._clock().since(began.mono_ns) >= STABLE_S:
                backoff = self._new_backoff()
                attempts = 0
                self._reconnecting = False
            else:  # not reached, or lost again soon: both wait longer each time
                attempts += 1
                if attempts >= settings["profile_attempts"] and len(networks) > 1:
                    index, attempts = index + 1, 0
                    backoff = self._new_backoff()
                    continue
            await asyncio.sleep(backoff.next())

    def _new_backoff(self) -> Backoff:
        s = self.station.settings
        return Backoff(s["backoff_min_s"], s["backoff_random_s"], s["backoff_repeats"], self._rng)

    async def stop(self) -> None:
        self._stopping = True
        await self._drop("the station stops")

    async def reconnect(self, boot_reason: str = "") -> None:
        """Close the connection so that ``run`` makes a new one; with a reason the station boots anew."""
        if boot_reason:
            self.boot.again(boot_reason)
        self._reconnecting = True
        await self._drop("the station reconnects")

    async def _drop(self, reason: str) -> None:
        socket, self._socket = self._socket, None
        if socket:
            log.info("connection closed: %s", reason)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(socket.close(1000, reason), 2.0)
            abort(socket.transport)

    async def _serve_once(self, network: Network) -> None:
        settings = self.station.settings
        headers = {}
        if network.security_profile in (1, 2):
            credentials = base64.b64encode(
                f"{network.user}:{network.password}".encode("utf-8", "surrogateescape")
            ).decode()
            headers["Authorization"] = f"Basic {credentials}"
        ping = settings["ping_s"] or None
        url = f"{network.url.rstrip('/')}/{quote(network.user)}"
        async with connect(
            url,
            subprotocols=[Subprotocol(self.dialect.subprotocol)],
            additional_headers=headers,
            ssl=network.tls,
            open_timeout=10,
            ping_interval=ping,
            ping_timeout=ping,
            close_timeout=2,
            max_size=MAX_MESSAGE,
            compression=None,
            user_agent_header=None,
            **_PROXY,
        ) as socket:
            if socket.subprotocol != self.dialect.subprotocol:
                self.text = f"the CSMS does not speak OCPP {self.dialect.version}"
                self._fault(Code.BACKEND_REFUSED, self.text)
            elif self._pinned(socket):
                await self._serve(socket, network)

    def _pinned(self, socket: ClientConnection) -> bool:
        """The CSMS shows the pinned certificate, or none is pinned."""
        tls = socket.transport.get_extra_info("ssl_object")
        if not self.pin or tls is None:
            return True
        shown = fingerprint(tls.getpeercert(True))
        if shown == self.pin.lower().replace(":", ""):
            return True
        self.text = "the CSMS shows another certificate than the pinned one"
        self._fault(Code.BACKEND_TLS, self.text)
        self.on_security("InvalidCsmsCertificate", self.text)
        return False

    async def _serve(self, socket: ClientConnection, network: Network) -> None:
        self._socket, self.network, self.connected = socket, network, True
        self._unanswered.clear()
        self.text = ""
        self._clear(Code.BACKEND_TLS)
        if self.registration == "Accepted":
            self._came_online()
        self._on_change()
        jobs = [asyncio.ensure_future(self._read(socket)), asyncio.ensure_future(self._talk())]
        try:
            done, _ = await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
            for job in done:
                error = job.exception()
                if error and not isinstance(error, ConnectionClosed | NotAnsweredError):
                    log.error("connection ended by %r", error, exc_info=error)
        finally:
            self.connected, self._socket = False, None
            if self.station.online:
                self._offline_since = self._clock().mono_ns
                self.station.disconnected(self._clock())
            for future in self._pending.values():
                if not future.done():
                    future.set_exception(NotAnsweredError("connection lost", closed=True))
            for job in jobs[:1]:
                job.cancel()
            if self._pending:  # the sender learns that its call was not answered
                await asyncio.wait(jobs[1:], timeout=1.0)
            for job in jobs:
                job.cancel()
            await asyncio.gather(*jobs, return_exceptions=True)
            self.outbox.disconnected()
            self.text = self.text or f"connection to {_host(network.url)} lost"
            self._on_change()

    def _came_online(self) -> None:
        if self.network:
            self.on_accepted(self.network)
        self.outbox.connected()
        self.station.connected(self._clock())
        self._clear(Code.BACKEND_OFFLINE)
        self._clear(Code.BACKEND_REFUSED)
        threshold = self.station.settings["offline_threshold_s"]
        if self._offline_since is None or self._clock().since(self._offline_since) > threshold:
            self.outbox.forget_statuses()
        self._queue_event.set()
        self._on_change()

    # The station's messages.
    async def _talk(self) -> None:
        """Boot until accepted; then what the outbox has, and heartbeats when nothing else was said."""
        while True:
            self._queue_event.clear()
            if self.registration != "Accepted":
                sent = await self._boot_if_due() or await self.outbox.step_pending()
                wait = self.boot.due_in(self.now)
            else:
                sent = await self.outbox.step()
                wait = 0.0 if sent else await self._heartbeat()
                if not sent:
                    self._drained.set()
            if not sent:
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._queue_event.wait(), min(wait, self.outbox.due_in(wait)))

    async def _heartbeat(self) -> float:
        """Seconds until the next; sends it when it is due."""
        interval = float(self.station.settings["heartbeat_s"])
        rest = interval - self._clock().since(self._talked_ns)
        if rest > 0:
            return rest
        try:
            await self.call(self.dialect.heartbeat(), patient=False)
        except RefusedError as error:
            log.warning("Heartbeat refused: %s", error)
        except NotAnsweredError as error:
            if error.closed:
                raise
        return interval

    async def drain(self, seconds: float) -> None:
        """Wait until nothing is left to send, at most so long."""
        self._drained.clear()
        self.wake()
        if self.station.online:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._drained.wait(), seconds)

    async def _boot_if_due(self) -> bool:
        if self.boot.due_in(self.now) > 0:
            return False
        self.boot.asked(self.now)
        interval = None
        try:
            answer = await self.call(self.dialect.boot(self.boot.reason))
            interval = self.boot.answered(answer, self.now)
        except RefusedError as error:
            self.boot.failed(str(error))
            log.warning("%s", self.boot.text)
        except NotAnsweredError as error:
            if error.closed:
                raise
        self.text = self.boot.text
        if interval is not None:
            if interval:
                self.station.settings.note("heartbeat_s", interval)
            self.dialect.after_boot()
            self.outbox.forget_statuses()  # a station that booted announces every connector
            self._came_online()
        elif self.registration == "Rejected":
            self._fault(Code.BACKEND_REFUSED, "the CSMS rejects this station: check station_id there")
        self._on_change()
        return True

    def boot_again(self, reason: str = "Triggered") -> None:
        """The CSMS asked for a BootNotification."""
        if self.boot.accepted:
            self.send(self.dialect.boot(reason))
        else:
            self.boot.again()
        self._queue_event.set()

    @property
    def after_answer(self) -> list[Callable[[], Any]]:
        """Run once the answer in the making has been sent."""
        return self.requests.after_answer

    @property
    def registration(self) -> str:
        return self.boot.registration

    @registration.setter
    def registration(self, value: str) -> None:
        self.boot.registration = value

    # The CSMS's messages.
    async def _read(self, socket: ClientConnection) -> None:
        async for raw in socket:
            try:
                message = unpack(raw)
                if not isinstance(message.unique_id, str) or len(message.unique_id) > 64:
                    raise FormatViolationError(details={"cause": "message id"})
            except OCPPError as error:
                self.bad_messages += 1
                log.warning("the CSMS sent something that is not OCPP (%d so far)", self.bad_messages)
                self._spoilt(raw)
                await self._answer_garbage(socket, raw, error)
                continue
            except Exception:
                self.bad_messages += 1
                log.warning("the CSMS sent something unreadable (%d so far)", self.bad_messages)
                continue
            if isinstance(message, CallMessage):
                await self._handle(socket, message)
            else:
                self._answered(message)

    def _answered(self, message: CallResult | CallError) -> None:
        future = self._pending.get(message.unique_id)
        if future and not future.done():
            future.set_result(message)
            return
        action, late = self._late_answers.pop(message.unique_id, ("", None))
        if late is None or isinstance(message, CallError):
            log.info("an answer came too late or unasked")
            return
        self._unanswered.clear()
        late(lenient.read(action, self.dialect.version, message.payload)[0])

    def _spoilt(self, raw: str | bytes) -> None:
        """An answer that is none, to a call of ours: it will not get another."""
        with contextlib.suppress(ValueError, TypeError, IndexError, KeyError):
            parts = json.loads(raw)
            future = self._pending[parts[1]]
            if parts[0] != 2 and not future.done():
                future.set_result(CallError(parts[1], "FormatViolation", "the answer is not OCPP"))

    @staticmethod
    async def _answer_garbage(socket: ClientConnection, raw: str | bytes, error: OCPPError) -> None:
        """A broken CALL still gets its CALLERROR when its id can be read."""
        with contextlib.suppress(ValueError, TypeError, IndexError):
            parts = json.loads(raw)
            if isinstance(parts, list) and parts[0] == 2 and isinstance(parts[1], str):
                await socket.send(json.dumps([4, parts[1][:36], error.code, error.description, {}]))

    async def _handle(self, socket: ClientConnection, message: CallMessage) -> None:
        await self.requests.handle(socket, message)

    def spawn(self, work: Awaitable[Any]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Faults.
    def _fault(self, code: Code, text: str) -> None:
        self.station.outside.fault(FaultReport(code, Severity.WARNING, text))

    def _clear(self, code: Code) -> None:
        self.station.outside.fault(FaultReport(code, Severity.WARNING, "", active=False))


def _host(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)
