"""The OCPP connection: WebSocket, calls and answers, boot, heartbeat, reconnect, delivery of the queue.

Framing and schemas are those of the ``ocpp`` package (``ocpp.messages``); what that package leaves out is here:
reconnect with back-off and random (OCPP 2.0.1 part 4), one call in flight, a durable queue delivered in order.
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
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

import ocpp.messages
from ocpp.exceptions import (
    FormatViolationError,
    InternalError,
    NotImplementedError,
    NotSupportedError,
    OCPPError,
    SecurityError,
)
from ocpp.messages import Call as CallMessage
from ocpp.messages import CallError, CallResult, unpack, validate_payload
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, WebSocketException

from robot_charger.backend.records import Call, Now, Outcome, Payload, Record
from robot_charger.backend.security import fingerprint
from robot_charger.backend.store import Entry, StoreError
from robot_charger.common.faults import Code, FaultReport, Severity
from robot_charger.common.streams import abort

ocpp.messages.ASYNC_VALIDATION = False  # its thread pool costs more than the check

log = logging.getLogger("robot_charger.backend")
MAX_MESSAGE = 4 << 20
_PROXY: dict[str, Any] = {"proxy": None} if "proxy" in inspect.signature(connect.__init__).parameters else {}


class NotAnsweredError(RuntimeError):
    """No answer: not connected, connection lost, or time-out."""


class RefusedError(RuntimeError):
    """The CSMS answered with CALLERROR, or with something its own schema forbids."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


@dataclass
class Reply:
    """Answer to a CSMS's request, and what to do once it has been sent."""

    payload: Payload
    after: Callable[[], Awaitable[None] | None] | None = None


class Dialect(Protocol):
    """One OCPP version: builds and reads payloads, handles the CSMS's requests."""

    version: str
    subprotocol: str

    def boot(self, reason: str) -> Call: ...
    def read_boot(self, answer: Payload) -> tuple[str, int]: ...
    def heartbeat(self) -> Call: ...
    def status(self, evse: int) -> Call: ...
    def connector_status(self, evse: int) -> str: ...
    def record(self, record: Record) -> Call | None: ...
    def read_record(self, record: Record, answer: Payload) -> tuple[Outcome, dict[str, Any], Call | None]: ...
    def after_boot(self) -> None: ...
    @property
    def handlers(self) -> dict[str, Callable[[Payload], Payload | Reply]]: ...


@dataclass(frozen=True)
class Network:
    """One way to the CSMS."""

    url: str
    security_profile: int = 2
    tls: ssl.SSLContext | None = None
    user: str = ""
    password: str = field(default="", repr=False)
    name: str = "1"


class Backoff:
    """OCPP 2.0.1: first wait the minimum plus random, doubled ``repeats`` times, then constant."""

    def __init__(self, minimum_s: float, random_s: float, repeats: int, rng: random.Random | None = None) -> None:
        self.minimum_s, self.random_s, self.repeats = minimum_s, random_s, repeats
        self._rng = rng or random.Random()
        self._wait = 0.0
        self._times = 0

    def reset(self) -> None:
        self._wait, self._times = 0.0, 0

    def next(self) -> float:
        if self._times == 0:
            self._wait = self.minimum_s
        elif self._times <= self.repeats:
            self._wait *= 2
        self._times += 1
        return self._wait + self._rng.uniform(0.0, self.random_s)


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
        self.registration = "None"
        self.connected = False
        self.sent = 0
        self.refused = 0
        self.bad_messages = 0
        self.text = ""
        self.network: Network | None = None
        self._networks = networks
        self._clock = clock
        self._on_change = on_change
        self._boot_reason = boot_reason
        self._rng = rng or random.Random()
        self._socket: ClientConnection | None = None
        self._pending: dict[str, asyncio.Future[CallResult | CallError]] = {}
        self._call_lock = asyncio.Lock()
        self._queue_event = asyncio.Event()
        self._boot_event = asyncio.Event()
        self._loose: deque[tuple[Call, Callable[[Payload | None], None] | None]] = deque(maxlen=500)
        self._told: dict[int, str] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._number = 0
        self._stopping = False
        self._offline_since: int | None = None
        self._late = 0
        self.after_answer: list[Callable[[], Any]] = []  # once the answer in the making has been sent
        self.pin = ""  # SHA-256 of the CSMS's certificate, hex
        self.on_accepted: Callable[[Network], None] = lambda network: None
        self.on_security: Callable[[str, str], None] = lambda kind, text: None

    # What the station uses.
    def wake(self) -> None:
        """The queue or a status has something new."""
        self._queue_event.set()

    def send(self, call: Call, answer: Callable[[Payload | None], None] | None = None) -> None:
        """Send once, unqueued; lost while offline (``answer`` then gets None)."""
        if not self.connected:
            if answer:
                answer(None)
            return
        self._loose.append((call, answer))
        self._queue_event.set()

    async def call(self, call: Call, message_id: str | None = None, timeout_s: float | None = None) -> Payload:
        """Send and wait for the answer. Raises NotAnsweredError or RefusedError."""
        action, payload = call
        message = CallMessage(message_id or self._next_id(), action, payload)
        async with self._call_lock:
            socket = self._socket
            if socket is None:
                raise NotAnsweredError("not connected")
            future: asyncio.Future[CallResult | CallError] = asyncio.get_running_loop().create_future()
            self._pending[message.unique_id] = future
            timeout = timeout_s or float(self.station.settings["message_timeout_s"])
            try:
                await socket.send(message.to_json())
                self.sent += 1
                answer = await asyncio.wait_for(future, timeout)
                self._late = 0
            except asyncio.TimeoutError as error:
                self._late += 1
                if self._late >= 2:
                    await self._drop("two calls in a row were not answered")
                raise NotAnsweredError(f"{action}: no answer in {timeout:g} s") from error
            except ConnectionClosed as error:
                raise NotAnsweredError(f"{action}: connection lost") from error
            finally:
                self._pending.pop(message.unique_id, None)
        if isinstance(answer, CallError):
            self.refused += 1
            raise RefusedError(str(answer.error_code), str(answer.error_description))
        answer.action = action
        try:
            await validate_payload(answer, self.dialect.version)
        except OCPPError as error:
            self.refused += 1
            raise RefusedError(error.code, f"{action}: answer breaks the schema: {_cause(error)}") from error
        return dict(answer.payload)

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
            served = False
            try:
                served = await self._serve_once(network)
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
            if served:
                backoff = self._new_backoff()
                attempts = 0
            else:
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
            self.registration = "None"
            self._boot_reason = boot_reason
        await self._drop("the station reconnects")

    async def _drop(self, reason: str) -> None:
        socket, self._socket = self._socket, None
        if socket:
            log.info("connection closed: %s", reason)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(socket.close(1000, reason), 2.0)
            abort(socket.transport)

    async def _serve_once(self, network: Network) -> bool:
        settings = self.station.settings
        headers = {}
        if network.security_profile in (1, 2):
            credentials = base64.b64encode(f"{network.user}:{network.password}".encode()).decode()
            headers["Authorization"] = f"Basic {credentials}"
        ping = settings["ping_s"] or None
        url = f"{network.url.rstrip('/')}/{quote(network.user)}"
        async with connect(
            url,
            subprotocols=[self.dialect.subprotocol],  # type: ignore[list-item]
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
                return False
            if not self._pinned(socket):
                return False
            return await self._serve(socket, network)

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

    async def _serve(self, socket: ClientConnection, network: Network) -> bool:
        self._socket, self.network, self.connected, self._late = socket, network, True, 0
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
            return True
        finally:
            self.connected, self._socket = False, None
            if self.station.online:
                self._offline_since = self._clock().mono_ns
                self.station.disconnected(self._clock())
            for future in self._pending.values():
                if not future.done():
                    future.set_exception(NotAnsweredError("connection lost"))
            for job in jobs:
                job.cancel()
            await asyncio.gather(*jobs, return_exceptions=True)
            self._loose.clear()
            self.text = self.text or f"connection to {_host(network.url)} lost"
            self._on_change()

    def _came_online(self) -> None:
        if self.network:
            self.on_accepted(self.network)
        self.station.connected(self._clock())
        self._clear(Code.BACKEND_OFFLINE)
        self._clear(Code.BACKEND_REFUSED)
        threshold = self.station.settings["offline_threshold_s"]
        if self._offline_since is None or self._clock().since(self._offline_since) > threshold:
            self._told.clear()  # tell every connector anew
        self._queue_event.set()
        self._on_change()

    # The station's messages.
    async def _talk(self) -> None:
        """Boot, then deliver: statuses, loose messages, the queue, heartbeats when nothing else was said."""
        while self.registration != "Accepted":
            await self._boot()
        while True:
            interval = float(self.station.settings["heartbeat_s"])
            try:
                await asyncio.wait_for(self._queue_event.wait(), interval)
            except asyncio.TimeoutError:
                with contextlib.suppress(RefusedError, NotAnsweredError):
                    await self.call(self.dialect.heartbeat())
                continue
            self._queue_event.clear()
            if self.registration != "Accepted":
                await self._boot()
                continue
            await self._statuses()
            await self._send_loose()
            await self._deliver()

    async def _boot(self) -> None:
        self._boot_event.clear()
        wait = 30.0
        try:
            answer = await self.call(self.dialect.boot(self._boot_reason))
            self.registration, interval = self.dialect.read_boot(answer)
            self._on_change()
            if self.registration == "Accepted":
                if interval > 0:
                    self.station.settings.note("heartbeat_s", interval)
                self._boot_reason = "ApplicationReset"
                self.dialect.after_boot()
                self._came_online()
                return
            wait = interval or wait
            if self.registration == "Rejected":
                self._fault(Code.BACKEND_REFUSED, "the CSMS rejects this station: check station_id there")
        except RefusedError as error:
            self.registration = "Rejected"
            self._fault(Code.BACKEND_REFUSED, f"BootNotification refused: {error}")
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._boot_event.wait(), wait)  # TriggerMessage asks earlier

    def boot_again(self, reason: str = "Triggered") -> None:
        """The CSMS asked for a BootNotification."""
        self._boot_reason = reason
        if self.registration == "Accepted":
            self.send(self.dialect.boot(reason))
        self._boot_event.set()

    async def _statuses(self) -> None:
        for evse in list(self.station.status):
            status = self.dialect.connector_status(evse)
            if self._told.get(evse) != status:
                try:
                    await self.call(self.dialect.status(evse))
                except RefusedError as error:
                    log.warning("StatusNotification refused: %s", error)
                except NotAnsweredError:
                    if self._socket is None:
                        raise
                    return  # transactions must not wait for it; told again in the next round
                self._told[evse] = status

    async def _send_loose(self) -> None:
        while self._loose:
            call, answer = self._loose.popleft()
            payload: Payload | None = None
            try:
                payload = await self.call(call)
            except RefusedError as error:
                log.warning("%s refused: %s", call[0], error)
            if answer:
                answer(payload)

    async def _deliver(self) -> None:
        """Deliver the queue in order, one in flight; ends when it is empty."""
        attempt = 0
        while (entry := self._head()) is not None:
            try:
                if not await self._deliver_one(entry):
                    return
                attempt = 0
            except RefusedError as error:
                attempt += 1
                limit = int(self.station.settings["attempts"]) if entry.record else 1
                if attempt >= limit:
                    log.error("a message was refused %d times and is set aside: %s", attempt, error)
                    self.station.store.refuse(entry.number, str(error))
                    attempt = 0
                else:
                    await asyncio.sleep(self.station.settings["attempt_interval_s"] * attempt)
            await self._statuses()
            if self._loose:
                await self._send_loose()

    def _head(self) -> Entry | None:
        try:
            head: Entry | None = self.station.store.next()
            return head
        except StoreError as error:
            log.error("%s", error)
            return None

    async def _deliver_one(self, entry: Entry) -> bool:
        """False when the store failed: the message stays and is tried again later."""
        call = entry.call if entry.record is None else self.dialect.record(entry.record)
        answer: Payload = await self.call(call, entry.message_id) if call else {}
        keep: dict[str, Any] = {}
        outcome = Outcome()
        follow: Call | None = None
        if entry.record is not None and call is not None:
            outcome, keep, follow = self.dialect.read_record(entry.record, answer)
        try:
            # An update sent twice has the same id and number and bills nothing: no fsync for its end.
            update = entry.record is not None and entry.record.event == "Updated"
            self.station.store.done(entry.number, keep, follow, durable=not update)
        except StoreError as error:
            log.error("%s", error)
            await asyncio.sleep(1.0)
            self._queue_event.set()
            return False
        if entry.record is not None:
            self.station.delivered(entry.record, outcome, self._clock())
        self._on_change()
        return True

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
                await self._answer_garbage(socket, raw, error)
                continue
            except Exception:
                self.bad_messages += 1
                log.warning("the CSMS sent something unreadable (%d so far)", self.bad_messages)
                continue
            if isinstance(message, CallMessage):
                await self._handle(socket, message)
            else:
                future = self._pending.get(message.unique_id)
                if future and not future.done():
                    future.set_result(message)
                else:
                    log.info("an answer came too late or unasked")

    @staticmethod
    async def _answer_garbage(socket: ClientConnection, raw: str | bytes, error: OCPPError) -> None:
        """A broken CALL still gets its CALLERROR when its id can be read."""
        with contextlib.suppress(ValueError, TypeError, IndexError):
            parts = json.loads(raw)
            if isinstance(parts, list) and parts[0] == 2 and isinstance(parts[1], str):
                await socket.send(json.dumps([4, parts[1][:36], error.code, error.description, {}]))

    async def _handle(self, socket: ClientConnection, message: CallMessage) -> None:
        after = None
        try:
            handler = self.dialect.handlers.get(message.action) if isinstance(message.action, str) else None
            if handler is None:
                raise self._unknown(message.action)
            if self.registration != "Accepted" and not self._may_before_boot(message.action):
                raise SecurityError(description="the station is not accepted yet")
            await validate_payload(message, self.dialect.version)
            reply = handler(message.payload)
            if isinstance(reply, Reply):
                after, reply = reply.after, reply.payload
            answer = message.create_call_result(reply)
            await validate_payload(answer, self.dialect.version)
            text = answer.to_json()
        except OCPPError as error:
            text = message.create_call_error(error).to_json()
        except ValueError as error:  # a time that is none, a number out of range
            text = message.create_call_error(FormatViolationError(description=str(error)[:255])).to_json()
        except Exception:
            log.exception("cannot answer %s", message.action)
            text = message.create_call_error(InternalError(description="see the station's log")).to_json()
        await socket.send(text)
        while self.after_answer:
            work = self.after_answer.pop(0)()
            if inspect.isawaitable(work):
                self._spawn(work)
        if after:
            result = after()
            if inspect.isawaitable(result):
                self._spawn(result)
        self._on_change()

    def _may_before_boot(self, action: str) -> bool:
        """Pending: the CSMS may configure the station, but not start anything (OCPP 2.0.1 B02, 1.6 4.2)."""
        forbidden = (
            "RequestStartTransaction",
            "RequestStopTransaction",
            "RemoteStartTransaction",
            "RemoteStopTransaction",
            "ReserveNow",
        )
        return self.registration in ("Pending", "None") and action not in forbidden

    def _unknown(self, action: Any) -> OCPPError:
        try:
            ocpp.messages.get_validator(2, str(action), self.dialect.version)
        except Exception:
            return NotSupportedError(description=f"no such action in OCPP {self.dialect.version}")
        return NotImplementedError(description="this station does not do that")

    def _spawn(self, work: Awaitable[Any]) -> None:
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


def _cause(error: OCPPError) -> str:
    return str(error.details.get("cause", error.description))[:200]
