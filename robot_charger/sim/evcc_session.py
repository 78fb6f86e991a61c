"""The EVCC's session and controller on the iso15118 package: a car's view of ISO 15118.

The package's states decide what to say; here the messages are framed and paced, and the questions of the states
are answered from the simulated vehicle.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections import deque
from pathlib import Path
from typing import Any

from iso15118.evcc import evcc_settings
from iso15118.evcc.comm_session_handler import EVCCCommunicationSession
from iso15118.evcc.evcc_config import EVCCConfig
from iso15118.evcc.states import iso15118_2_states
from iso15118.shared.exi_codec import EXI
from iso15118.shared.messages.enums import (
    AuthEnum,
    EnergyTransferModeEnum,
    ISOV20PayloadTypes,
    Namespace,
    Protocol,
    ServiceV20,
)
from iso15118.shared.messages.iso15118_2.body import MeteringReceiptReq, PowerDeliveryReq
from iso15118.shared.messages.iso15118_2.datatypes import (
    ChargeProgress,
)
from iso15118.shared.messages.iso15118_2.datatypes import ChargingSession as ChargingSessionV2
from iso15118.shared.messages.iso15118_2.timeouts import Timeouts
from iso15118.shared.messages.iso15118_20.common_messages import ChargingSession as ChargingSessionV20
from iso15118.shared.messages.iso15118_20.common_types import EVSENotification, Processing
from iso15118.shared.messages.v2gtp import V2GTPMessage
from iso15118.shared.security import KeyEncoding, KeyPasswordPath, KeyPath, create_signature, load_priv_key
from iso15118.shared.states import Pause, Terminate

from robot_charger.common.plc_link import LinkError
from robot_charger.sim import acdp, evcc_contract, evcc_early  # noqa: F401  (the former takes the place of states)
from robot_charger.v2g import pki, v2gtp

POLL_PERIOD_S = 0.1  # of requests that are answered "ongoing"
CHARGE_LOOP = frozenset({"CurrentDemandReq", "DC_ChargeLoopReq"})
POLLED = frozenset(
    {
        "AuthorizationReq",
        "ContractAuthenticationReq",
        "CableCheckReq",
        "DC_CableCheckReq",
        "PreChargeReq",
        "DC_PreChargeReq",
        "WeldingDetectionReq",
        "DC_WeldingDetectionReq",
        "ScheduleExchangeReq",
    }
)
PACKAGE_PROTOCOLS = {
    "din": Protocol.DIN_SPEC_70121,
    "iso15118-2": Protocol.ISO_15118_2,
    "iso15118-20": Protocol.ISO_15118_20_DC,
    "iso15118-20-bpt": Protocol.ISO_15118_20_DC,
    "acdp": Protocol.ISO_15118_20_ACDP,
    "acdp-bpt": Protocol.ISO_15118_20_ACDP,
}
ACDP_PERIOD_S = 0.1  # of polling while the device moves
SYSTEM_STATUS_PERIOD_S = 1.0
DEVICE_S = 240.0  # patience with the charging device


def config(protocol: str, options: Any) -> EVCCConfig:
    service = "DC_BPT" if protocol.endswith("-bpt") else "DC"
    made = EVCCConfig(
        useTls=options.tls,
        enforceTls=options.tls,
        isCertInstallNeeded=False,
        energyTransferMode=EnergyTransferModeEnum.DC_EXTENDED,
        supportedEnergyServices=[service],
        supportedProtocols=[PACKAGE_PROTOCOLS[protocol].name],
    )
    made.supported_protocols = [PACKAGE_PROTOCOLS[protocol]]
    made.supported_energy_services = [ServiceV20[service]]
    return made


def tls_context(protocol: str, directory: str) -> ssl.SSLContext:
    """The vehicle's TLS: 1.2 for ISO 15118-2, 1.3 with its own certificate for -20. Raises LinkError."""
    try:
        return pki.vehicle_context(Path(directory), tls13=protocol not in ("din", "iso15118-2"))
    except (OSError, ValueError) as error:
        raise LinkError(f"the vehicle's certificates: {error}") from error


class _CurrentDemand(iso15118_2_states.CurrentDemand):
    """The package's state, which signs the receipt that the station asks for and negotiates anew if it is to (the
    package does both with AC only)."""

    async def process_message(self, message: Any, message_exi: Any = None) -> None:
        answer = getattr(getattr(message, "body", None), "current_demand_res", None)
        if answer is not None and self.comm_session.renegotiates():
            await self.comm_session.ev_controller.enable_charging(False)
            self.create_next_message(
                iso15118_2_states.PowerDelivery,
                PowerDeliveryReq(
                    charge_progress=ChargeProgress.RENEGOTIATE,
                    sa_schedule_tuple_id=self.comm_session.selected_schedule,
                ),
                Timeouts.POWER_DELIVERY_REQ,
                Namespace.ISO_V2_MSG_DEF,
            )
            return
        if answer is None or not answer.receipt_required or not self.comm_session.is_tls:
            await super().process_message(message, message_exi)
            return
        receipt = MeteringReceiptReq(
            id="id1",
            session_id=self.comm_session.session_id,
            sa_schedule_tuple_id=answer.sa_schedule_tuple_id,
            meter_info=answer.meter_info,
        )
        if self.comm_session.options.wrong_receipt:
            receipt.meter_info.meter_reading += 1
        key = load_priv_key(KeyPath.CONTRACT_LEAF_PEM, KeyEncoding.PEM, KeyPasswordPath.CONTRACT_LEAF_KEY_PASSWORD)
        signature = create_signature([(receipt.id, EXI().to_exi(receipt, Namespace.ISO_V2_MSG_DEF))], key)
        self.comm_session.receipts += 1
        self.create_next_message(
            iso15118_2_states.MeteringReceipt,
            receipt,
            Timeouts.METERING_RECEIPT_REQ,
            Namespace.ISO_V2_MSG_DEF,
            signature=signature,
        )


_CurrentDemand.__name__ = "CurrentDemand"
iso15118_2_states.CurrentDemand = _CurrentDemand


class _Left(Exception):
    """The vehicle closes without a word, in the place of this request."""


class Session(EVCCCommunicationSession):
    """The package's EVCC session with our framing and pace. ``run()`` once."""

    def __init__(self, transport: Any, made: EVCCConfig, interface: str, controller: Any, options: Any) -> None:
        super().__init__(transport, asyncio.Queue(), made, interface, controller)
        self.options = options
        self.messages = 0
        self.loop_s: deque[float] = deque(maxlen=4096)
        self.limits_a: list[float] = []  # the EVSE's current limits as they changed in the charge loop
        self.acdp = controller.protocol.startswith("acdp")
        self.acdp_log: list[str] = []  # what the device said of itself, as it changed
        self.receipts = 0  # metering receipts signed
        self.certificate = ""  # response code to its wish for a contract certificate
        self.setup = ""  # response code of SessionSetupRes
        self._wanted = 0  # how often the request came up at which it leaves
        self._status_at = 0.0
        self._precharge: Any = None  # the last DC_PreChargeReq
        self._sent_at = 0.0
        self._sent = ""

    async def run(self) -> tuple[bool, str]:
        """True and a sentence when the session ended in order. Closes the connection."""
        try:
            evcc_settings.RESUME_SESSION_ID = self.options.resume or None  # taken by the package's first state
            await self.send_sap()
            return await self._exchange(20.0)
        except _Left as left:
            return False, f"left instead of {left}"
        except asyncio.IncompleteReadError:
            return False, f"the SECC closed the connection after {self._sent}"
        except (TimeoutError, asyncio.TimeoutError):
            return False, f"no answer to {self._sent}"
        except v2gtp.V2gtpError as error:
            return False, str(error)
        finally:
            await self.ev_controller.enable_charging(False)
            with contextlib.suppress(Exception):
                self.writer.close()
                await asyncio.wait_for(self.writer.wait_closed(), 0.5)

    async def _exchange(self, timeout_s: float) -> tuple[bool, str]:
        while True:
            message = await asyncio.wait_for(self._read(), timeout_s)
            if self._sent in CHARGE_LOOP:
                self.loop_s.append(time.monotonic() - self._sent_at)
            if self.options.stop_at and self._sent == self.options.stop_at:
                self.ev_controller.vehicle.set_ready(True)
                while await self.reader.read(4096):  # until the station closes
                    pass
                return False, f"fell silent after {self._sent}"
            await self._process(message)
            state = self.current_state
            if state.next_v2gtp_msg:
                await self.send(state.next_v2gtp_msg)
            if state.next_state in (Terminate, Pause):
                reason = self.stop_reason
                return bool(reason and reason.successful), reason.reason if reason else ""
            timeout_s = max(state.next_msg_timeout, self.options.patience_s)
            self.go_to_next_state()

    async def _process(self, message: bytes) -> None:
        frame = V2GTPMessage.from_bytes(self.protocol, message)
        decoded = EXI().from_exi(frame.payload, self.get_exi_ns(frame.payload_type))
        self.messages += 1
        self._note_limit(decoded)
        status = getattr(decoded, "evse_status", None)
        if status is not None and status.evse_notification == EVSENotification.PAUSE:
            self.options.pause = self.ev_controller.told_to_pause = True
            decoded.evse_status = None  # the package's EVCC knows no Pause
        if str(decoded) == "SessionSetupRes":
            self.setup = (decoded.body.session_setup_res if hasattr(decoded, "body") else decoded).response_code.value
        if self.acdp:
            _to_package(decoded)
        if not self.options.pnc:  # the package's EVCC takes Plug and Charge wherever it is offered
            offered = getattr(getattr(decoded, "body", None), "service_discovery_res", None)
            if offered is not None and hasattr(offered, "auth_option_list"):
                offered.auth_option_list.auth_options[:] = [AuthEnum.EIM_V2]
        await self.current_state.process_message(decoded, frame.payload)

    def _note_limit(self, decoded: Any) -> None:
        body = getattr(getattr(decoded, "body", None), "current_demand_res", None)
        if body is not None and body.evse_max_current_limit is not None:
            limit = float(body.evse_max_current_limit.get_decimal_value())
            if not self.limits_a or self.limits_a[-1] != limit:
                self.limits_a.append(limit)

    async def _read(self) -> bytes:
        header = await self.reader.readexactly(v2gtp.HEADER)
        _, length = v2gtp.payload_length(header)
        return header + await self.reader.readexactly(length)

    async def send(self, message: V2GTPMessage) -> None:
        name = str(self.current_state.message)
        if self._leaves_at(name):
            if self.options.leave_by == "close":
                raise _Left(name)
            await evcc_early.put(self, self.options.leave_by, name)
            name, message = str(self.current_state.message), self.current_state.next_v2gtp_msg
        if name == "PowerDeliveryReq" and self._sent == "DC_PreChargeReq":
            await self._finish_precharge()
        elif name == "DC_PreChargeReq":
            self._precharge = self.current_state.message
        if self.acdp:
            message = await self._beside(name, message)
        if name == self._sent:
            period = self.options.loop_period_s if name in CHARGE_LOOP else POLL_PERIOD_S if name in POLLED else 0.0
            wait = self._sent_at + period - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
        if name in ("CableCheckReq", "DC_CableCheckReq") and name != self._sent:
            await self.ev_controller.enable_charging(True)
        if name == "SessionStopReq" and self.options.pause:
            message = self._pausing(message)
        self._sent, self._sent_at = name, time.monotonic()
        if self.options.split:
            data = message.to_bytes()
            for at in range(0, len(data), 3):
                self.writer.write(data[at : at + 3])
                await self.writer.drain()
                await asyncio.sleep(0.001)
            return
        await super().send(message)

    async def _finish_precharge(self) -> None:
        """The last DC_PreChargeReq says Finished ([V2G20-2005]); the package never says so."""
        self._precharge.ev_processing = Processing.FINISHED
        payload = EXI().to_exi(self._precharge, Namespace.ISO_V20_DC)
        self.writer.write(v2gtp.message(ISOV20PayloadTypes.DC_MAINSTREAM, payload))
        await self.writer.drain()
        await asyncio.wait_for(self._read(), max(2.0, self.options.patience_s))

    def renegotiates(self) -> bool:
        """Now, for the first and only time: current flows."""
        wants = self.options.renegotiate and abs(self.ev_controller.vehicle.inlet_current_a) > 1.0
        if wants:
            self.options.renegotiate = False
            self.renegotiation_requested = True
        return bool(wants)

    def _leaves_at(self, name: str) -> bool:
        wanted, _, nth = self.options.leave_at.partition("*")
        if name != wanted:
            return False
        self._wanted += 1
        return self._wanted == int(nth or 1)

    def _pausing(self, message: V2GTPMessage) -> V2GTPMessage:
        """SessionStopReq that means to come back ([V2G2-740])."""
        request: Any = self.current_state.message
        body = getattr(getattr(request, "body", None), "session_stop_req", None)
        if body is not None:
            body.charging_session = ChargingSessionV2.PAUSE
        else:
            request.charging_session = ChargingSessionV20.PAUSE
        namespace = Namespace.ISO_V2_MSG_DEF if body is not None else Namespace.ISO_V20_COMMON_MSG
        return V2GTPMessage(self.protocol, message.payload_type, EXI().to_exi(request, namespace))

    async def stop(self, reason: str) -> None:
        """The package's own end (with sleeps) is not used."""

    # ACDP, around the package's messages.
    async def _beside(self, name: str, message: V2GTPMessage) -> V2GTPMessage:
        """What an ACDP vehicle says before ``name``; the message itself, under the ACDP service's number."""
        if name == "AuthorizationSetupReq" and name != self._sent:
            mobility = {"EVMobilityStatus": False, "EVPositioningSupport": False}
            await self._poll("VehiclePositioning", mobility, DEVICE_S)
        elif name == "DC_CableCheckReq" and name != self._sent:
            await self._poll("Connect", {"EVElectricalChargingDeviceStatus": "State_A"}, DEVICE_S)
            await self.ev_controller.enable_charging(True)  # the plug is home: now it can be locked
        elif name == "SessionStopReq":
            self.ev_controller.vehicle.unlock()
            await self._poll("Disconnect", {"EVElectricalChargingDeviceStatus": "State_B"}, DEVICE_S)
        elif time.monotonic() - self._status_at > SYSTEM_STATUS_PERIOD_S and name in CHARGE_LOOP:
            self._status_at = time.monotonic()
            technical = {"EVReadyToCharge": True, "EVImmobilizationRequest": False, "EVImmobilized": True}
            await self._ask("SystemStatus", {"EVTechnicalStatus": technical})
        if name in ("ServiceDetailReq", "ServiceSelectionReq"):
            request: Any = self.current_state.message
            service = request if name == "ServiceDetailReq" else request.selected_energy_service
            service.service_id = {2: 4, 6: 7}.get(service.service_id, service.service_id)
            message.payload = EXI().to_exi(request, Namespace.ISO_V20_COMMON_MSG)
            message.payload_length = len(message.payload)
        return message

    async def _poll(self, kind: str, fields: dict[str, Any], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while True:
            answer = await self._ask(kind, fields)
            if answer.fields["EVSEProcessing"] == "Finished":
                return
            if time.monotonic() > deadline:
                raise v2gtp.V2gtpError(f"ACDP_{kind} was not finished within {timeout_s:g} s")
            await asyncio.sleep(ACDP_PERIOD_S)

    async def _ask(self, kind: str, fields: dict[str, Any]) -> acdp.Message:
        request = acdp.Message(f"ACDP_{kind}Req", self.session_id, fields)
        self._sent = request.name
        self.writer.write(v2gtp.message(request.payload_type, request.encode()))
        await self.writer.drain()
        data = await asyncio.wait_for(self._read(), max(2.0, self.options.patience_s))
        answer = acdp.Message.decode(data[v2gtp.HEADER :])
        device = answer.fields.get("EVSEMechanicalChargingDeviceStatus", "")
        entry = f"{kind} {device}".strip()
        if not self.acdp_log or self.acdp_log[-1] != entry:
            self.acdp_log.append(entry)
        if answer.code != acdp.OK:
            raise v2gtp.V2gtpError(f"{answer.name}: {answer.code}")
        return answer


def _to_package(decoded: Any) -> None:
    """An ACDP service in an answer becomes the DC service that the package's states know."""
    offered = getattr(decoded, "energy_service_list", None)
    for service in offered.services if offered is not None else ():
        service.service_id = acdp.SERVICES.get(service.service_id, service.service_id)
    if hasattr(decoded, "service_parameter_list"):
        decoded.service_id = acdp.SERVICES.get(decoded.service_id, decoded.service_id)
