"""One vehicle's V2G session on a TCP or TLS connection: the iso15118 package's states behind our own framing.

The package reads up to 7000 bytes and takes them for one message, keeps a connection open five seconds after
its end, and cannot be told to stop. Here messages are cut by their V2GTP length, however TCP splits or joins
them; every answer is timed; and the session ends when the station says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from iso15118.secc.comm_session_handler import SECCCommunicationSession
from iso15118.secc.states import din_spec_states, iso15118_2_states, iso15118_20_states
from iso15118.shared.exceptions import EXIDecodingError, InvalidV2GTPMessageError, V2GMessageValidationError
from iso15118.shared.exi_codec import EXI
from iso15118.shared.messages.app_protocol import ResponseCodeSAP
from iso15118.shared.messages.din_spec.datatypes import ResponseCode as DinResponseCode
from iso15118.shared.messages.enums import (
    AuthEnum,
    Protocol,
    ServiceV20,
    SessionStopAction,
)
from iso15118.shared.messages.iso15118_2.datatypes import ResponseCode as ResponseCode2
from iso15118.shared.messages.iso15118_20.common_types import ResponseCode
from iso15118.shared.messages.v2gtp import V2GTPMessage
from iso15118.shared.states import Pause, Terminate

from robot_charger.common.faults import Code
from robot_charger.common.streams import abort
from robot_charger.v2g import acdp, certificates, refusals, v2gtp  # noqa: F401  (certificates replaces states)
from robot_charger.v2g.controller import Controller
from robot_charger.v2g.states import body_of, renegotiates
from robot_charger.words.values import Link, Lock, Purpose, Shutdown

SETUP_TIMEOUT_S = 18.0  # V2G_SECC_CommunicationSetup_Performance_Time
CLOSE_WAIT_S = 2.0  # for the vehicle to close TCP after SessionStopRes
NO_SESSION = "00"  # of answers before SessionSetupReq; the package's empty one cannot be encoded
EMERGENCY_GRACE_S = 1.0  # for one last answer that names the emergency

NAMES = {
    Protocol.DIN_SPEC_70121: "din70121",
    Protocol.ISO_15118_2: "iso15118-2",
    Protocol.ISO_15118_20_DC: "iso15118-20",
    Protocol.ISO_15118_20_AC: "iso15118-20",
    Protocol.ISO_15118_20_ACDP: "iso15118-20",
    Protocol.ISO_15118_20_COMMON_MESSAGES: "iso15118-20",
}
# Request (without namespace prefixes) -> where the conversation stands. Others change nothing.
PHASES = {
    "SessionSetupReq": Link.SESSION,
    "ChargeParameterDiscoveryReq": Link.PARAMETERS,
    "DC_ChargeParameterDiscoveryReq": Link.PARAMETERS,
    "WeldingDetectionReq": Link.WELDING_CHECK,
    "DC_WeldingDetectionReq": Link.WELDING_CHECK,
}
FAILED = {
    Protocol.UNKNOWN: ResponseCodeSAP.NEGOTIATION_FAILED,
    Protocol.DIN_SPEC_70121: DinResponseCode.FAILED,
    Protocol.ISO_15118_2: ResponseCode2.FAILED,
}
CHARGE_LOOP = frozenset({"CurrentDemandReq", "DC_ChargeLoopReq"})
BEFORE_20 = {"DC_CableCheckReq": "ScheduleExchangeReq", "PowerDeliveryReq": "DC_PreChargeReq"}


@dataclass(frozen=True)
class Outcome:
    """How a connection ended. ``begun``: a session was set up in it. ``code``: NONE when it ended in order."""

    begun: bool
    ended: bool
    paused: bool
    code: Code
    text: str


class SessionEnd(Exception):
    """The session ends here, with an outcome's code and text."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code


class Session(SECCCommunicationSession):
    """``run()`` once. ``on_message`` is told (direction, name, message) of every decoded message."""

    def __init__(
        self,
        transport: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        config: Any,
        controller: Controller,
        on_message: Callable[[str, str, Any], None] = lambda direction, name, message: None,
        paused: Session | None = None,
    ) -> None:
        """``paused``: the session that this vehicle may join again by its id (OK_OldSessionJoined)."""
        context = paused.ev_session_context if paused else None
        super().__init__(transport, asyncio.Queue(), config, controller, controller.parameters.evse_id, context)
        self.session_id: str = paused.session_id if paused else NO_SESSION
        self.controller = controller
        self.bridge = controller.bridge
        self.begun = False
        self.turnaround_s: deque[float] = deque(maxlen=4096)  # request read to answer sent
        self.loop_turnaround_s: deque[float] = deque(maxlen=4096)  # of the charge loop alone
        self._on_message = on_message
        self._request = ""
        self._heard: set[str] = set()  # names of requests that were let in
        self._transferred = False  # PowerDeliveryReq(Stop) ended a charge loop
        self._receipt_at = time.monotonic()
        self._stop_since: float | None = None
        self._peer_gone = False
        # An automated connection device is offered where the link exists before contact.
        self.acdp = acdp.Secc(self._asked) if controller.parameters.link == "acdp" else None
        controller.reset_ev_data_context()
        refusals.complete(self)

    @property
    def charging(self) -> bool:
        """In the charge loop."""
        return self.bridge.vehicle.purpose == Purpose.TRANSFER

    @property
    def may_choose_anew(self) -> bool:
        """The vehicle may go back to ServiceDiscovery: it is authorised, has charged and has stopped by itself."""
        return self.acdp is None and self._transferred and not self.bridge.station.stop_requested

    def choose_anew(self) -> None:
        """Services are offered anew; schedule, cable check and precharge are due again."""
        self._heard.clear()
        self._transferred = False
        self.matched_services_v20.clear()
        self.bridge.say(phase=Link.PARAMETERS, bidirectional=False)

    def receipt_due(self) -> bool:
        """Plug and Charge: the vehicle shall sign the meter's reading (ISO 15118-2 8.4.3.13) every ``receipt_s``."""
        every_s = self.controller.parameters.receipt_s
        if not every_s or self.selected_auth_option != AuthEnum.PNC_V2 or not self.contract_cert_chain:
            return False
        now = time.monotonic()
        if now - self._receipt_at < every_s:
            return False
        self._receipt_at = now
        return True

    def _asked(self, device: acdp.Request, done: bool) -> None:
        """The vehicle asks for the charging device, or learns that it has done as asked."""
        phase, after = {
            acdp.Request.CONNECT: (Link.CONNECTING, Link.PARAMETERS),
            acdp.Request.DISCONNECT: (Link.DISCONNECTING, Link.STOPPING),
        }[device]
        if done:
            self.bridge.say(phase=after, text=f"the charging device has {device.value}ed")
            return
        changes = {"lock": Lock.UNLOCKED} if device is acdp.Request.DISCONNECT else {}
        self.bridge.say(phase=phase, text=f"the vehicle asks the charging device to {device.value}", **changes)

    async def run(self) -> Outcome:
        """Answer the vehicle until the session ends. Never raises but CancelledError; closes the connection."""
        try:
            await self._answer(SETUP_TIMEOUT_S)
            outcome = self._outcome_of_stop()
        except SessionEnd as end:
            refusal = self.controller.refusal
            code = refusal.code if refusal and refusal.code else end.code
            outcome = Outcome(self.begun, False, False, code, str(refusal or end))
        except (OSError, asyncio.IncompleteReadError) as error:
            outcome = Outcome(self.begun, False, False, Code.LINK_LOST, f"connection lost: {error}")
        except asyncio.CancelledError:
            abort(self.writer.transport)
            await self.controller.stop_charger()
            raise
        except Exception as error:  # the package's own; the session must end, the node must not
            text = f"{type(error).__name__} while answering {self._request or 'the vehicle'}"
            outcome = Outcome(self.begun, False, False, Code.V2G_INTERNAL, text)
        await self.controller.stop_charger()
        return outcome

    async def close(self) -> None:
        """Let the last answer through: the vehicle closes first, we after two seconds."""
        with contextlib.suppress(Exception):
            if not self._peer_gone:
                await asyncio.wait_for(self.reader.read(1), CLOSE_WAIT_S)
        with contextlib.suppress(Exception):
            self.writer.close()
            await asyncio.wait_for(self.writer.wait_closed(), 0.5)
        abort(self.writer.transport)

    async def stop(self, reason: str) -> None:
        """The package's own end (with sleeps) is not used."""

    async def _answer(self, timeout_s: float) -> None:
        while True:
            message = await self._read(timeout_s)
            arrived = time.monotonic()
            self.controller.heard(self._vehicle_timeout_ms())
            if self._is_acdp(message):
                await self._answer_acdp(message)
                self.turnaround_s.append(time.monotonic() - arrived)
                self.bridge.settle()
                continue
            await self.process_message(message)
            state = self.current_state
            if state.next_v2gtp_msg:
                await self.send(state.next_v2gtp_msg)
                self._note_answer(state.message, time.monotonic() - arrived)
            self.bridge.settle()
            if state.next_state in (Terminate, Pause):
                return
            timeout_s = state.next_msg_timeout or 60.0
            if self.bridge.vehicle.phase == Link.CHARGING:
                timeout_s = min(timeout_s, self._vehicle_timeout_ms() / 1000)
            self.go_to_next_state()

    def _vehicle_timeout_ms(self) -> int:
        parameters = self.controller.parameters
        if NAMES.get(self.protocol) == "iso15118-20" and self._request in CHARGE_LOOP:
            return int(parameters.vehicle_timeout_20_ms)
        return int(parameters.vehicle_timeout_ms)

    async def _read(self, timeout_s: float) -> bytes:
        """One whole V2GTP message, watching the station's wish to end. Raises SessionEnd."""
        task = asyncio.ensure_future(self._read_message())
        deadline = time.monotonic() + timeout_s
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=min(0.1, max(0.0, deadline - time.monotonic())))
                if task.done():
                    break
                self._check_station()
                if time.monotonic() >= deadline:
                    charging = self.bridge.vehicle.phase == Link.CHARGING
                    code = Code.V2G_SILENT if charging else Code.V2G_TIMEOUT
                    after = f" after {self._request}" if self._request else ""
                    raise SessionEnd(code, f"no message of the vehicle within {timeout_s:g} s{after}")
            return task.result()
        except v2gtp.V2gtpError as error:
            self._count_bad()
            raise SessionEnd(Code.V2G_DECODE, str(error)) from error
        except asyncio.IncompleteReadError as error:
            self._peer_gone = True
            raise SessionEnd(Code.LINK_LOST, "the vehicle closed the connection without SessionStopReq") from error
        finally:
            task.cancel()

    async def _read_message(self) -> bytes:
        header = await self.reader.readexactly(v2gtp.HEADER)
        _, length = v2gtp.payload_length(header)
        return header + await self.reader.readexactly(length)

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
        grace_s = EMERGENCY_GRACE_S if emergency else self.controller.parameters.stop_grace_s
        if now - self._stop_since > grace_s:
            raise SessionEnd(
                Code.NONE if emergency else Code.V2G_TIMEOUT,
                f"the vehicle did not end the session within {grace_s:g} s of being told to",
            )

    async def process_message(self, message: bytes) -> None:
        """Decode and answer one message. Raises SessionEnd when it is none."""
        try:
            frame = V2GTPMessage.from_bytes(self.protocol, message)
            decoded = EXI().from_exi(frame.payload, self.get_exi_ns(frame.payload_type))
        except (InvalidV2GTPMessageError, ValueError, KeyError) as error:
            self._count_bad()
            raise SessionEnd(Code.V2G_DECODE, f"not a V2G message of {self.protocol.name}") from error
        except (EXIDecodingError, V2GMessageValidationError) as error:
            self._count_bad()
            raise SessionEnd(Code.V2G_DECODE, f"a message of {len(message)} bytes could not be decoded") from error
        self._request = str(decoded)
        if not self._request:
            self._count_bad()
            raise SessionEnd(Code.V2G_DECODE, "a message with an empty body")
        self._on_message("in", self._request, decoded)
        if self._request.endswith("Res"):
            self._count_bad()
            raise SessionEnd(Code.V2G_SEQUENCE, f"the vehicle sent {self._request}, which only a station sends")
        self._before_answer(self._request, decoded)
        self.controller.refresh()
        self._select_acdp(self._request, decoded)
        missing = self._missing_before(self._request)
        if missing:
            reason = f"{self._request} not accepted in state before {missing}"
            self.current_state.stop_state_machine(reason, decoded, ResponseCode.FAILED_SEQUENCE_ERROR)
            return
        self._heard.add(self._request)
        if self._request == "SessionStopReq" and self.begun:
            self._stop_state()(self)  # a vehicle may end its session in every state; the package knows it in few
        try:
            await self.current_state.process_message(decoded, frame.payload)
        except Exception as error:  # the package's own: the vehicle gets an answer, and the session ends
            self.controller.refuse(Code.V2G_INTERNAL, f"{type(error).__name__} while answering {self._request}")
            self.current_state.stop_state_machine("", decoded, FAILED.get(self.protocol, ResponseCode.FAILED))

    def _stop_state(self) -> Any:
        states = {Protocol.DIN_SPEC_70121: din_spec_states, Protocol.ISO_15118_2: iso15118_2_states}
        return states.get(self.protocol, iso15118_20_states).SessionStop

    def _missing_before(self, name: str) -> str:
        """What must have come before this request, if it has not: the package lets a vehicle of -20 leave it out."""
        if NAMES.get(self.protocol) != "iso15118-20":
            return ""
        if name == "DC_CableCheckReq" and self.acdp is not None and self.acdp.selected and not self.acdp.connected:
            return "ACDP_ConnectReq"
        if name == "CertificateInstallationReq":  # the package has no state for it, and raises
            return "an offer of that service"
        earlier = BEFORE_20.get(name, "")
        return "" if earlier in self._heard else earlier

    # ACDP: messages that the package does not know, answered beside its states.
    def _is_acdp(self, message: bytes) -> bool:
        kind = int.from_bytes(message[2:4], "big")
        return kind in (acdp.PAYLOAD_ACDP, acdp.PAYLOAD_SYSTEM_STATUS) and self.acdp is not None

    async def _answer_acdp(self, message: bytes) -> None:
        assert self.acdp is not None
        try:
            request = acdp.Message.decode(message[v2gtp.HEADER :])
            state = str(self.current_state)
            self.controller.refresh()
            response, ends = self.acdp.answer(request, self.session_id, state, self.bridge.station)
        except (acdp.AcdpError, KeyError) as error:
            self._count_bad()
            raise SessionEnd(Code.V2G_DECODE, f"an ACDP message could not be decoded: {error}") from error
        self._request = request.name
        self._on_message("in", request.name, request)
        self.writer.write(v2gtp.message(response.payload_type, response.encode()))
        await self.writer.drain()
        self.bridge.say(messages_out=self.bridge.vehicle.messages_out + 1)
        self._on_message("out", response.name, response)
        if ends and response.code == acdp.FAILED:
            raise SessionEnd(Code.NONE, "the station stopped the session before contact")
        if ends:
            self._count_bad()
            raise SessionEnd(Code.V2G_SEQUENCE, f"{request.name} was not expected in state {state}")

    def _select_acdp(self, name: str, message: Any) -> None:
        """The package knows DC and DC_BPT only: an ACDP service is one of them from here on."""
        if name != "ServiceSelectionReq" or self.acdp is None:
            return
        chosen = acdp.SERVICES.get(message.selected_energy_service.service_id)
        if chosen is None:
            return
        self.acdp.selected = True
        message.selected_energy_service.service_id = chosen
        for offered in self.matched_services_v20:
            if offered.service.id in acdp.SERVICES:
                offered.service = ServiceV20.get_by_id(acdp.SERVICES[offered.service.id])

    def _before_answer(self, name: str, message: Any) -> None:
        phase = PHASES.get(name)
        if phase is not None:
            self.bridge.say(phase=phase)
        body = body_of(message)
        if name == "SessionSetupReq":
            self.begun = True
            self.bridge.say(protocol=NAMES.get(self.protocol, ""), identity=self._identity(body))
        if name == "PowerDeliveryReq" and renegotiates(body):
            if NAMES.get(self.protocol) == "iso15118-20":
                self.bridge.say(current_a=0.0)
            else:
                self.bridge.say(phase=Link.PARAMETERS, purpose=Purpose.NONE, voltage_v=0.0, current_a=0.0)
            return
        stops = name == "PowerDeliveryReq" and not _starts(body)
        self._transferred = self._transferred or (stops and bool(self._heard & CHARGE_LOOP))
        early = name == "SessionStopReq" and self.bridge.vehicle.phase < Link.STOPPING
        if early or stops:
            self.bridge.say(phase=Link.STOPPING, purpose=Purpose.NONE, voltage_v=0.0, current_a=0.0)
        status = getattr(body, "dc_ev_status", None)
        if status is not None:
            error = status.ev_error_code.value
            if error == "FAILED_ChargerConnectorLockFault":
                self.bridge.say(lock=Lock.FAULT)
            if error not in ("NO_ERROR", "NoData"):
                self.controller.refuse(Code.V2G_VEHICLE_ERROR, f"the vehicle reports {error}")

    def _identity(self, body: Any) -> str:
        if not self.controller.parameters.privacy__publish_identity:
            return ""
        return str(getattr(body, "evcc_id", ""))

    def _note_answer(self, message: Any, seconds: float) -> None:
        name = str(message)
        self.turnaround_s.append(seconds)
        if self._request in CHARGE_LOOP:
            self.loop_turnaround_s.append(seconds)
        self.bridge.say(messages_out=self.bridge.vehicle.messages_out + 1)
        self._on_message("out", name, message)
        if name == "SessionSetupRes":
            self.bridge.say(protocol=NAMES.get(self.protocol, ""))

    def _count_bad(self) -> None:
        self.bridge.say(messages_bad=self.bridge.vehicle.messages_bad + 1)

    def _outcome_of_stop(self) -> Outcome:
        """After the package's states went to Terminate or Pause."""
        reason = self.stop_reason
        refusal = self.controller.refusal
        paused = reason is not None and reason.successful and reason.stop_action == SessionStopAction.PAUSE
        if self.current_state.next_state is Pause or paused:
            return Outcome(self.begun, True, True, Code.NONE, "paused by the vehicle")
        if reason is not None and reason.successful:
            return Outcome(self.begun, True, False, Code.NONE, "ended in order")
        if refusal is not None:
            return Outcome(self.begun, False, False, refusal.code, str(refusal))
        text = reason.reason if reason else "ended without a reason"
        if "not accepted in state" in text or "not a valid message type" in text or "session ID" in text:
            self._count_bad()
            text = f"{self._request} was not expected in state {self.current_state}"
            return Outcome(self.begun, False, False, Code.V2G_SEQUENCE, text)
        # The package's reason may quote a message or a certificate and so name a person: the code says enough.
        code = getattr(body_of(self.current_state.message), "response_code", None)
        if code is None:
            return Outcome(self.begun, False, False, Code.V2G_INTERNAL, f"no answer to {self._request}")
        if self._request == "MeteringReceiptReq":
            return Outcome(self.begun, False, False, Code.AUTHORIZATION, f"metering receipt refused: {code.value}")
        if self._request in ("PaymentDetailsReq", "AuthorizationReq"):
            why = "a certificate has expired or is not yet valid" if "Expired" in text else code.value
            return Outcome(self.begun, False, False, Code.AUTHORIZATION, f"contract certificate refused: {why}")
        return Outcome(self.begun, False, False, Code.V2G_SEQUENCE, f"{self._request} was refused: {code.value}")


def _starts(body: Any) -> bool:
    """PowerDeliveryReq asks for energy (DIN: ReadyToChargeState, others: ChargeProgress)."""
    ready = getattr(body, "ready_to_charge", None)
    if ready is not None:
        return bool(ready)
    return str(getattr(body.charge_progress, "value", body.charge_progress)).lower() not in ("stop", "standby")
