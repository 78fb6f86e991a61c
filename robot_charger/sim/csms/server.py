"""The CSMS itself: answers a station's requests, sends its own, and misbehaves when told to."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import logging
import ssl
import threading
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import ocpp.messages
from ocpp.exceptions import OCPPError
from ocpp.messages import Call, CallError, CallResult, unpack, validate_payload
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from robot_charger.common.streams import abort
from robot_charger.sim.csms.journal import Journal

ocpp.messages.ASYNC_VALIDATION = False
log = logging.getLogger("robot_charger.csms")

SUBPROTOCOLS = {"ocpp1.6": "1.6", "ocpp2.0.1": "2.0.1", "ocpp2.1": "2.1"}
FAULTS = {
    "csms-gone": "closes the port and every connection until it ends",
    "drop": "answers nothing",
    "lose-answers": "takes requests (all, or of one `action`), but its answers get lost on the way",
    "delay": "answers after `seconds` (2)",
    "callerror": "answers every request with CALLERROR",
    "wrong-types": "answers with fields of the wrong type",
    "garbage": "sends what is not OCPP after every answer",
    "huge": "sends a message of 1 MB after every answer",
    "out-of-order": "sends an answer to a request nobody made before every answer",
    "boot-pending": "accepts nobody yet",
    "boot-rejected": "rejects every station",
    "no-pong": "stays silent on the whole socket, pings too",
}
KNOWN_TOKENS = {
    "DEADBEEF": "Accepted",
    "04A1B2C3D4E5F6": "Accepted",
    "ROBOT-TAG-1": "Accepted",
    "BLOCKED01": "Blocked",
    "EXPIRED01": "Expired",
}


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class CallRefusedError(RuntimeError):
    """The station answered with CALLERROR."""


class Station:
    """One connected station."""

    def __init__(self, name: str, version: str, socket: ServerConnection) -> None:
        self.name = name
        self.version = version
        self.socket = socket
        self.pending: dict[str, asyncio.Future[Any]] = {}


class Csms:
    """A CSMS in one event loop. ``tokens`` maps id to AuthorizationStatusEnumType; others get ``unknown``."""

    def __init__(
        self,
        store: Path | str,
        port: int = 0,
        host: str = "127.0.0.1",
        tokens: dict[str, str] | None = None,
        unknown: str = "Invalid",
        interval_s: int = 300,
        password: str | None = None,
        tls: ssl.SSLContext | None = None,
        checks: bool = True,
    ) -> None:
        self.checks = checks  # hold a station's messages against the schemas
        self.journal = Journal(store)
        self.host, self.port = host, port
        self.tokens = {k.casefold(): v for k, v in (KNOWN_TOKENS if tokens is None else tokens).items()}
        self.unknown = unknown
        self.interval_s = interval_s
        self.password = password
        self.faults: dict[str, dict[str, Any]] = {}
        self.stations: dict[str, Station] = {}
        self.booted: set[str] = set()
        self.received = 0
        self.violations: list[str] = []  # what a station said against the schema
        self.last_answer: Any = None
        self.answers: dict[str, Callable[[Station, dict[str, Any]], dict[str, Any]]] = {}
        self.transaction_limit: dict[str, float] | None = None  # of every transaction (2.1 TransactionLimitType)
        self._tls = tls
        self._server: Server | None = None
        self._numbers = itertools.count(1)
        self._transactions = itertools.count(1)
        self._starts: dict[tuple[str, str], int] = {}
        self._sockets: set[ServerConnection] = set()

    # Life.
    async def start(self) -> None:
        self._server = await serve(
            self._serve,
            self.host,
            self.port,
            subprotocols=list(SUBPROTOCOLS),  # type: ignore[arg-type]
            process_request=self._check,
            ssl=self._tls,
            max_size=8 << 20,
            compression=None,
            ping_interval=None,
            close_timeout=1,
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        server, self._server = self._server, None
        if server:
            server.close(close_connections=False)
            for socket in list(self._sockets):
                abort(socket.transport)
            await server.wait_closed()

    @property
    def url(self) -> str:
        return f"{'wss' if self._tls else 'ws'}://{'localhost' if self._tls else self.host}:{self.port}/ocpp"

    async def fault(self, name: str, on: bool, **details: Any) -> None:
        """Begin or end a fault of FAULTS."""
        if name not in FAULTS:
            raise ValueError(f"no fault {name}: one of {', '.join(FAULTS)}")
        if on:
            self.faults[name] = details
        else:
            self.faults.pop(name, None)
        if name == "no-pong":
            for station in self.stations.values():
                pause = station.socket.transport.pause_reading if on else station.socket.transport.resume_reading
                pause()
        if name == "csms-gone":
            if on:
                await self.stop()
            elif self._server is None:
                await self.start()

    def _check(self, connection: ServerConnection, request: Request) -> Response | None:
        if self.password is None:
            return None
        name = request.path.rsplit("/", 1)[-1]
        wanted = base64.b64encode(f"{name}:{self.password}".encode()).decode()
        if request.headers.get("Authorization") == f"Basic {wanted}":
            return None
        return Response(401, "Unauthorized", Headers({"WWW-Authenticate": "Basic"}), b"")

    # One station.
    async def _serve(self, socket: ServerConnection) -> None:
        path = socket.request.path if socket.request else "/"
        if socket.subprotocol not in SUBPROTOCOLS:
            await socket.close(1002, "no OCPP subprotocol")
            return
        station = Station(path.rsplit("/", 1)[-1], SUBPROTOCOLS[str(socket.subprotocol)], socket)
        self.stations[station.name] = station
        self._sockets.add(socket)
        try:
            async for raw in socket:
                self.journal.add(station.name, station.version, "in", raw)
                self.received += 1
                if "drop" in self.faults:
                    continue
                await self._receive(station, raw)
        except ConnectionClosed:
            pass
        finally:
            self._sockets.discard(socket)
            for future in station.pending.values():
                if not future.done():
                    future.cancel()
            if self.stations.get(station.name) is station:
                del self.stations[station.name]

    async def _receive(self, station: Station, raw: str | bytes) -> None:
        try:
            message = unpack(raw)
        except OCPPError as error:
            self.violations.append(f"not OCPP: {error}")
            return
        if isinstance(message, CallResult | CallError):
            future = station.pending.get(message.unique_id)
            if future and not future.done():
                future.set_result(message)
            return
        if "delay" in self.faults:
            await asyncio.sleep(float(self.faults["delay"].get("seconds", 2.0)))
        if "out-of-order" in self.faults:
            await self._send(station, json.dumps([3, "nobody-asked", {}]))
        answer = await self._answer(station, message)
        lost = self.faults.get("lose-answers")
        if lost is not None and lost.get("action") in (None, message.action):
            self.journal.add(station.name, station.version, "out", answer)
        else:
            await self._send(station, answer)
        if "garbage" in self.faults:
            for junk in ("this is not OCPP", "[]", "[7]", '{"a":1}', "[2]", '[3,"x"]', '[2,5,"Reset",{}]', "\x00"):
                await self._send(station, junk)
        if "huge" in self.faults:
            huge = {"vendorId": "robot_charger", "data": "x" * (1 << 20)}
            await self._send(station, json.dumps([2, f"huge-{next(self._numbers)}", "DataTransfer", huge]))

    async def _answer(self, station: Station, message: Call) -> str:
        if "callerror" in self.faults:
            only = self.faults["callerror"].get("action")
            if only is None or only == message.action:
                return json.dumps([4, message.unique_id, "InternalError", "told to", {}])
        try:
            if self.checks:
                await validate_payload(message, station.version)
        except OCPPError as error:
            self.violations.append(f"{message.action}: {error} {error.details}"[:500])
            return str(message.create_call_error(error).to_json())
        handler = self.answers.get(message.action) or getattr(self, f"_on_{message.action.lower()}", None)
        payload = handler(station, message.payload) if handler else {}
        if message.action in ("DataTransfer",) and not payload:
            payload = {"status": "Accepted"}
        if "wrong-types" in self.faults:
            payload = {"status": 5, "currentTime": [], "idTokenInfo": "yes", "transactionId": "one"}
        return str(message.create_call_result(payload).to_json())

    async def _send(self, station: Station, raw: str) -> None:
        self.journal.add(station.name, station.version, "out", raw)
        with contextlib.suppress(ConnectionClosed):
            await station.socket.send(raw)

    # Answers.
    def _on_bootnotification(self, station: Station, payload: dict[str, Any]) -> dict[str, Any]:
        status = "Accepted"
        if "boot-pending" in self.faults:
            status = "Pending"
        if "boot-rejected" in self.faults:
            status = "Rejected"
        if status == "Accepted":
            self.booted.add(station.name)
        interval = self.interval_s if status == "Accepted" else 1
        return {"status": status, "currentTime": now(), "interval": interval}

    def _on_heartbeat(self, station: Station, payload: dict[str, Any]) -> dict[str, Any]:
        return {"currentTime": now()}

    def _status_of(self, token: str) -> str:
        return self.tokens.get(token.casefold(), self.unknown)

    def _on_authorize(self, station: Station, payload: dict[str, Any]) -> dict[str, Any]:
        if station.version == "1.6":
            return {"idTagInfo": {"status": self._status_16(payload["idTag"])}}
        return {"idTokenInfo": {"status": self._status_of(payload["idToken"]["idToken"])}}

    def _status_16(self, token: str) -> str:
        status = self._status_of(token)
        return status if status in ("Accepted", "Blocked", "Expired", "ConcurrentTx") else "Invalid"

    def _on_transactionevent(self, station: Station, payload: dict[str, Any]) -> dict[str, Any]:
        token = payload.get("idToken")
        answer: dict[str, Any] = {}
        if token and token["type"] != "NoAuthorization":
            answer["idTokenInfo"] = {"status": self._status_of(token["idToken"])}
        if self.transaction_limit is not None and station.version == "2.1" and payload["eventType"] != "Ended":
            answer["transactionLimit"] = self.transaction_limit
        return answer

    def _on_starttransaction(self, station: Station, payload: dict[str, Any]) -> dict[str, Any]:
        key = (station.name, json.dumps(payload, sort_keys=True))
        number = self._starts.get(key) or next(self._transactions)
        self._starts[key] = number  # the same start sent twice is one transaction
        return {"transactionId": number, "idTagInfo": {"status": self._status_16(payload["idTag"])}}

    def _on_signcertificate(self, station: Station, payload: dict[str, Any]) -> dict[str, Any]:
        return {"status": "Accepted"}

    def _on_get15118evcertificate(self, station: Station, payload: dict[str, Any]) -> dict[str, Any]:
        return {"status": "Failed", "exiResponse": ""}  # it has no contracts to give

    def _on_getcertificatestatus(self, station: Station, payload: dict[str, Any]) -> dict[str, Any]:
        return {"status": "Failed"}

    def _on_pulldynamicscheduleupdate(self, station: Station, payload: dict[str, Any]) -> dict[str, Any]:
        return {"status": "Rejected"}

    def _on_notifyevchargingneeds(self, station: Station, payload: dict[str, Any]) -> dict[str, Any]:
        return {"status": "Accepted"}

    def _on_notifyevchargingschedule(self, station: Station, payload: dict[str, Any]) -> dict[str, Any]:
        return {"status": "Accepted"}

    # Requests to a station.
    async def call(
        self, action: str, payload: dict[str, Any], station: str | None = None, timeout_s: float = 10.0
    ) -> dict[str, Any]:
        """Ask a station (the only one when none is named). Raises CallRefusedError, LookupError, TimeoutError."""
        target = self.stations.get(station) if station else next(iter(self.stations.values()), None)
        if target is None:
            raise LookupError("no station is connected")
        message = Call(f"csms-{next(self._numbers)}", action, payload)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        target.pending[message.unique_id] = future
        try:
            await self._send(target, message.to_json())
            answer = await asyncio.wait_for(future, timeout_s)
        finally:
            target.pending.pop(message.unique_id, None)
        if isinstance(answer, CallError):
            raise CallRefusedError(f"{answer.error_code}: {answer.error_description}")
        return dict(answer.payload)

    async def command(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """A command in plain words: remote_start, remote_stop, or call with action and payload."""
        if name == "call":
            return await self.call(arguments["action"], arguments.get("payload", {}), arguments.get("station"))
        station = self.stations.get(arguments.get("station", "")) or next(iter(self.stations.values()), None)
        if station is None:
            raise LookupError("no station is connected")
        old = station.version == "1.6"
        evse = int(arguments.get("evse", 1))
        if name == "remote_start":
            token = arguments.get("id_token", "DEADBEEF")
            if old:
                return await self.call("RemoteStartTransaction", {"connectorId": evse, "idTag": token})
            kind = arguments.get("token_type", "Central")
            return await self.call(
                "RequestStartTransaction",
                {"evseId": evse, "remoteStartId": next(self._numbers), "idToken": {"idToken": token, "type": kind}},
            )
        if name == "remote_stop":
            transaction = arguments.get("transaction_id") or self._running(station, evse)
            if old:
                return await self.call("RemoteStopTransaction", {"transactionId": int(transaction)})
            return await self.call("RequestStopTransaction", {"transactionId": transaction})
        raise ValueError(f"no command {name}: remote_start, remote_stop or call")

    def _running(self, station: Station, evse: int) -> str:
        """Transaction of an EVSE that has started and not ended, by the journal."""
        from robot_charger.sim.csms.books import entries_of

        for entry in reversed(entries_of(self.journal.lines())):
            if entry.evse == evse and not entry.ended:
                return entry.transaction_id
        raise LookupError(f"no transaction runs on EVSE {evse}")


class CsmsThread:
    """A CSMS in a thread of its own, for tests and the demo's simulator process."""

    def __init__(self, store: Path | str, **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self.csms = Csms(store, **options)
        self._thread = threading.Thread(target=self._run, name="csms", daemon=True)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def start(self) -> CsmsThread:
        """Raises OSError when the port is taken."""
        self._thread.start()
        try:
            self.do(self.csms.start())
        except BaseException:
            self.stop()
            raise
        return self

    def do(self, work: Any, timeout_s: float = 20.0) -> Any:
        """Run a coroutine in the CSMS's loop and wait for its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout_s)

    def submit(self, work: Any) -> Any:
        """Run a coroutine in the CSMS's loop; a concurrent future."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def stop(self) -> None:
        if self._thread.is_alive():
            with contextlib.suppress(Exception):
                self.do(self.csms.stop(), 5.0)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(5.0)
        self.csms.journal.close()

    def __enter__(self) -> CsmsThread:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()
