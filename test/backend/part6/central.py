"""A raw central system: it says exactly what a test wants, and may be silent, late, wrong and closing.

It knows nothing of OCPP but the frames. Every message of the station is held against the schema of its version.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import ocpp.messages
from ocpp.messages import Call, CallResult, validate_payload
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

ocpp.messages.ASYNC_VALIDATION = False
Payload = dict[str, Any]
PROTOCOLS = {"1.6": "ocpp1.6", "2.0.1": "ocpp2.0.1", "2.1": "ocpp2.1"}


class Silent:
    """No answer, ever."""


@dataclass
class Close:
    """The connection ends instead of an answer."""

    code: int = 1011


@dataclass
class Error:
    """CALLERROR."""

    code: str = "InternalError"


@dataclass
class Raw:
    """This text; ``{id}`` is the message's id."""

    text: str


@dataclass
class Late:
    """The answer after some seconds."""

    seconds: float
    payload: Any


Rule = Any  # a payload or one of the classes above, or a function of the payload that gives one


@dataclass
class Message:
    """One CALL of the station."""

    action: str
    payload: Payload
    id: str
    connection: int
    time: float = field(default_factory=time.monotonic)


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def usual(version: str) -> dict[str, Rule]:
    """What a good central system answers."""
    numbers = itertools.count(1)
    info = {"idTagInfo": {"status": "Accepted"}}
    common: dict[str, Rule] = {
        "BootNotification": lambda p: {"currentTime": now(), "interval": 300, "status": "Accepted"},
        "Heartbeat": lambda p: {"currentTime": now()},
        "DataTransfer": {"status": "Accepted"},
        "SignCertificate": {"status": "Accepted"},
    }
    if version == "1.6":
        return {
            **common,
            "Authorize": info,
            "StartTransaction": lambda p: {"transactionId": next(numbers), **info},
            "StopTransaction": {},
        }
    return {
        **common,
        "Authorize": {"idTokenInfo": {"status": "Accepted"}},
        "NotifyEVChargingNeeds": {"status": "Accepted"},
        "TransactionEvent": {},
    }


class CallFailedError(RuntimeError):
    """The station answered with CALLERROR."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


class Central:
    def __init__(self, version: str) -> None:
        self.version = version
        self.rules = usual(version)
        self.greeting: Callable[[ServerConnection], Awaitable[None]] | None = None  # of a new connection
        self.messages: list[Message] = []
        self.answers: list[tuple[str, Any]] = []
        self.connections = 0
        self.violations: list[str] = []
        self.port = 0
        self._pending: dict[str, asyncio.Future[Any]] = {}
        self._socket: ServerConnection | None = None
        self._numbers = itertools.count(1)
        self._loop = asyncio.new_event_loop()
        self._server: Server | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ready = threading.Event()
        self._later: set[asyncio.Task[None]] = set()
        self._thread.start()
        self._ready.wait(10)

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    # Its thread.
    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._open())
        self._ready.set()
        self._loop.run_forever()

    async def _open(self) -> None:
        self._server = await serve(
            self._serve,
            "127.0.0.1",
            self.port,
            subprotocols=[PROTOCOLS[self.version]],
            compression=None,  # type: ignore[list-item]
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def _shut(self) -> None:
        if self._server:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    def do(self, work: Any, timeout_s: float = 45.0) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout_s)

    def go(self) -> None:
        """Close the port and every connection."""
        self.do(self._shut())

    def come(self) -> None:
        self.do(self._open())

    def stop(self) -> None:
        with contextlib.suppress(FutureTimeoutError):
            self.do(self._shut(), 5.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    # Frames.
    async def _serve(self, socket: ServerConnection) -> None:
        self.connections += 1
        number = self.connections
        self._socket = socket
        if self.greeting:
            await self.greeting(socket)
        with contextlib.suppress(ConnectionClosed):
            async for raw in socket:
                await self._take(socket, number, json.loads(raw))

    async def _take(self, socket: ServerConnection, number: int, frame: list[Any]) -> None:
        if frame[0] != 2:
            future = self._pending.pop(frame[1], None)
            if future and not future.done():
                future.set_result(frame)
            return
        _, id, action, payload = frame
        await self._check(Call(id, action, payload))
        self.messages.append(Message(action, payload, id, number))
        rule = self.rules.get(action, {})
        if isinstance(rule, list):  # one after the other, the last from then on
            rule = rule.pop(0) if len(rule) > 1 else rule[0]
        if callable(rule) and not isinstance(rule, type):
            rule = rule(payload)
        await self._answer(socket, id, action, rule)

    async def _answer(self, socket: ServerConnection, id: str, action: str, rule: Rule) -> None:
        if rule is Silent or isinstance(rule, Silent):
            return
        if isinstance(rule, Close):
            await socket.close(rule.code)
        elif isinstance(rule, Error):
            await socket.send(json.dumps([4, id, rule.code, "", {}]))
        elif isinstance(rule, Raw):
            await socket.send(rule.text.replace("{id}", id))
        elif isinstance(rule, Late):
            task = asyncio.ensure_future(self._answer_later(socket, id, action, rule))
            self._later.add(task)
            task.add_done_callback(self._later.discard)
        else:
            await socket.send(json.dumps([3, id, rule]))

    async def _answer_later(self, socket: ServerConnection, id: str, action: str, rule: Late) -> None:
        await asyncio.sleep(rule.seconds)
        with contextlib.suppress(ConnectionClosed):
            await self._answer(socket, id, action, rule.payload)

    async def _check(self, message: Call | CallResult) -> None:
        try:
            await validate_payload(message, self.version)
        except Exception as error:
            self.violations.append(f"{message.action} {message.payload}: {error!r}")

    # What a test uses.
    def call(self, action: str, payload: Payload | None = None, timeout_s: float = 45.0) -> Payload:
        """Ask the station; its answer. Raises CallFailedError."""
        return self.do(self._call(action, payload or {}, timeout_s), timeout_s + 5)  # type: ignore[no-any-return]

    async def _call(self, action: str, payload: Payload, timeout_s: float) -> Payload:
        assert self._socket
        id = f"c{next(self._numbers)}"
        future: asyncio.Future[Any] = self._loop.create_future()
        self._pending[id] = future
        await self._socket.send(json.dumps([2, id, action, payload]))
        frame = await asyncio.wait_for(future, timeout_s)
        if frame[0] == 4:
            raise CallFailedError(frame[2], frame[3])
        answer: Payload = frame[2]
        message = CallResult(id, answer)
        message.action = action
        await self._check(message)
        return answer

    def of(self, action: str) -> list[Payload]:
        """Payloads of the station's messages of one action, in order."""
        return [m.payload for m in list(self.messages) if m.action == action]

    def actions(self) -> list[str]:
        return [m.action for m in list(self.messages)]
