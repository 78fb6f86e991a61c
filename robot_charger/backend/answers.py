"""The CSMS's requests: checked against the schema of the version, given to their handler, answered.

A handler returns a payload, or a ``Reply`` with what to do once the answer has been sent, or an awaitable of either
where the answer is the result of something that takes time: the connection goes on meanwhile.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

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
from ocpp.messages import validate_payload

from robot_charger.backend.boot import NOT_YET
from robot_charger.backend.records import Payload

if TYPE_CHECKING:
    from robot_charger.backend.client import Client

log = logging.getLogger("robot_charger.backend")


@dataclass
class Reply:
    """Answer to a CSMS's request, and what to do once it has been sent."""

    payload: Payload
    after: Callable[[], Awaitable[None] | None] | None = None


Answer = Payload | Reply
Handler = Callable[[Payload], Answer | Awaitable[Answer]]


class Socket(Protocol):
    async def send(self, text: str) -> None: ...


class Requests:
    def __init__(self, client: Client) -> None:
        self._client = client
        self.asked = False  # what is sent now was asked for by the CSMS
        self.after_answer: list[Callable[[], Any]] = []  # once the answer in the making has been sent

    async def handle(self, socket: Any, message: CallMessage) -> None:
        try:
            reply = await self._ask(message)
        except Exception as error:
            await self._send(socket, message, error)
            return
        if isinstance(reply, dict | Reply):
            await self._send(socket, message, reply)
        else:
            self._client.spawn(self._later(socket, message, reply))

    async def _later(self, socket: Any, message: CallMessage, reply: Awaitable[Answer]) -> None:
        try:
            await self._send(socket, message, await reply)
        except Exception as error:
            log.warning("%s is not answered: %r", message.action, error)

    async def _ask(self, message: CallMessage) -> Answer | Awaitable[Answer]:
        """What the handler returns. Raises whatever is wrong."""
        client = self._client
        handler = client.dialect.handlers.get(message.action) if isinstance(message.action, str) else None
        if handler is None:
            raise self._unknown(message.action)
        if client.registration == "Rejected":
            raise SecurityError(description="the station is not accepted")
        await validate_payload(message, client.dialect.version)
        if client.registration != "Accepted" and message.action in NOT_YET:
            return {"status": "Rejected"}
        self.asked = True
        try:
            return handler(message.payload)
        finally:
            self.asked = False

    async def _send(self, socket: Any, message: CallMessage, reply: Answer | Exception) -> None:
        after = None
        if isinstance(reply, Reply):
            after, reply = reply.after, reply.payload
        if isinstance(reply, dict):
            try:
                answer = message.create_call_result(reply)
                await validate_payload(answer, self._client.dialect.version)
                text = answer.to_json()
            except Exception as error:
                reply = error
        if isinstance(reply, Exception):
            after, text = None, self._error(message, reply)
        await socket.send(text)
        for work in [*self.after_answer, *([after] if after else [])]:
            self._run(work)
        self.after_answer.clear()
        self._client.changed()

    def _run(self, work: Callable[[], Any]) -> None:
        self.asked = True
        try:
            result = work()
        finally:
            self.asked = False
        if inspect.isawaitable(result):
            self._client.spawn(result)

    def _error(self, message: CallMessage, error: Exception) -> str:
        """CALLERROR in the words of the version."""
        if isinstance(error, ValueError) and not isinstance(error, OCPPError):
            error = FormatViolationError(description=str(error)[:255])  # a time that is none, a number out of range
        elif not isinstance(error, OCPPError):
            log.error("cannot answer %s", message.action, exc_info=error)
            error = InternalError(description="see the station's log")
        answer = message.create_call_error(error)
        answer.error_code = self._client.dialect.error_codes.get(answer.error_code, answer.error_code)
        return str(answer.to_json())

    def _unknown(self, action: Any) -> OCPPError:
        try:
            ocpp.messages.get_validator(2, str(action), self._client.dialect.version)
        except Exception:
            return NotSupportedError(description=f"no such action in OCPP {self._client.dialect.version}")
        return NotImplementedError(description="this station does not do that")
