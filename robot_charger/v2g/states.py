"""States of the iso15118 package put right: what they do wrong or do not know, added in their place.

The states name each other as globals of their modules, so that a class set there under the package's name is found.
"""

from __future__ import annotations

import time
from typing import Any

from iso15118.secc.states import din_spec_states, iso15118_2_states, iso15118_20_states
from iso15118.shared.messages.din_spec.datatypes import DCEVPowerDeliveryParameter
from iso15118.shared.messages.din_spec.datatypes import DCEVStatus as DinDCEVStatus
from iso15118.shared.messages.din_spec.datatypes import ResponseCode as DinResponseCode
from iso15118.shared.messages.enums import AuthEnum, DCEVErrorCode, ISOV20PayloadTypes, Namespace
from iso15118.shared.messages.iso15118_2.body import CurrentDemandRes
from iso15118.shared.messages.iso15118_2.datatypes import ChargeProgress
from iso15118.shared.messages.iso15118_2.datatypes import ResponseCode as ResponseCodeV2
from iso15118.shared.messages.iso15118_20.common_messages import ChargeProgress as ChargeProgress20
from iso15118.shared.messages.iso15118_20.common_messages import ChargingSession as ChargingSession20
from iso15118.shared.messages.iso15118_20.common_messages import PowerDeliveryReq as PowerDeliveryReq20
from iso15118.shared.messages.iso15118_20.common_messages import PowerDeliveryRes as PowerDeliveryRes20
from iso15118.shared.messages.iso15118_20.common_types import MessageHeader as MessageHeader20
from iso15118.shared.messages.iso15118_20.common_types import ResponseCode
from iso15118.shared.messages.timeouts import Timeouts
from iso15118.shared.states import Terminate


def body_of(message: Any) -> Any:
    """What a message says, without the envelope of DIN 70121 and ISO 15118-2."""
    return message.body.get_message() if hasattr(message, "body") else message


def renegotiates(body: Any) -> bool:
    """PowerDeliveryReq that goes back to ChargeParameterDiscovery (-2) or ScheduleExchange (-20)."""
    progress = getattr(body, "charge_progress", None)
    return progress in (ChargeProgress.RENEGOTIATE, ChargeProgress20.SCHEDULE_RENEGOTIATION)


def renegotiates_service(body: Any) -> bool:
    """SessionStopReq of -20 that ends nothing but goes back to ServiceDiscovery."""
    return getattr(body, "charging_session", None) == ChargingSession20.SERVICE_RENEGOTIATION


class _ContractAuthentication(din_spec_states.ContractAuthentication):
    """The package's state, which tells a refusal; the package answers "ongoing" for ever."""

    async def process_message(self, message: Any, message_exi: bytes = b"") -> None:
        await super().process_message(message, message_exi)
        _end_if_refused(self, message, DinResponseCode.FAILED)


class _PowerDeliveryDin(din_spec_states.PowerDelivery):
    """The package's state, which serves a vehicle that leaves DC_EVPowerDeliveryParameter out, as the schema allows."""

    async def process_message(self, message: Any, message_exi: bytes = b"") -> None:
        asked = getattr(getattr(message, "body", None), "power_delivery_req", None)
        if asked is not None and asked.dc_ev_power_delivery_parameter is None:
            session: Any = self.comm_session
            soc = round(session.controller.ev_data_context.present_soc or 0)
            status = DinDCEVStatus(ev_ready=True, ev_error_code=DCEVErrorCode.NO_ERROR, ev_ress_soc=soc)
            asked.dc_ev_power_delivery_parameter = DCEVPowerDeliveryParameter(
                dc_ev_status=status, charging_complete=False
            )
        await super().process_message(message, message_exi)


class _AuthorizationSetup20(iso15118_20_states.AuthorizationSetup):
    """The package's state without an offer of Plug and Charge: it verifies no contract of -20, nor the challenge."""

    async def process_message(self, message: Any, message_exi: bytes = b"") -> None:
        config = self.comm_session.config
        config.supported_auth_options = [AuthEnum.EIM]
        config.allow_cert_install_service = False
        await super().process_message(message, message_exi)


class _Authorization20(iso15118_20_states.Authorization):
    """The package's state, which ends with a refusal; the package lets the vehicle go on to ServiceDiscovery."""

    async def process_message(self, message: Any, message_exi: bytes = b"") -> None:
        await super().process_message(message, message_exi)
        _end_if_refused(self, message, ResponseCode.FAILED)


def _end_if_refused(state: Any, message: Any, code: Any) -> None:
    if state.comm_session.controller.refusal is not None and state.next_state is not Terminate:
        state.stop_state_machine("authorisation refused", message, code)


class _CurrentDemand(iso15118_2_states.CurrentDemand):
    """The package's state, with the meter's reading in the answer, and now and then a receipt asked for it."""

    def create_next_message(self, next_state: Any, next_msg: Any, *rest: Any, **named: Any) -> None:
        if isinstance(next_msg, CurrentDemandRes):
            next_msg.meter_info = self.comm_session.evse_controller.meter_info_v2()
            self.comm_session.sent_meter_info = next_msg.meter_info
            if next_msg.meter_info is not None and self.comm_session.receipt_due():
                next_msg.receipt_required = True
                next_state = iso15118_2_states.MeteringReceipt
        super().create_next_message(next_state, next_msg, *rest, **named)


class _PowerDelivery(iso15118_2_states.PowerDelivery):
    """The package's state, which ends the transfer before it negotiates anew.

    With direct current a renegotiation goes by the cable check ([V2G2-582]), which wants open contactors; the package
    leaves the supply as it was and would take the next precharge for a transfer.
    """

    async def process_message(self, message: Any, message_exi: bytes = b"") -> None:
        session: Any = self.comm_session
        asked = getattr(getattr(message, "body", None), "power_delivery_req", None)
        if renegotiates(asked) and session.charge_progress_started:
            await session.controller.stop_charger()
            if not await session.controller.is_contactor_opened():
                self.stop_state_machine("contactors", message, ResponseCodeV2.FAILED_CONTACTOR_ERROR)
                return
        await super().process_message(message, message_exi)


class _PowerDelivery20(iso15118_20_states.PowerDelivery):
    """The package's state, which lets a vehicle negotiate its schedule anew: contactors stay closed, and no current is
    asked for until the charge loop goes on. The package takes ScheduleRenegotiation for Start, whenever it comes."""

    async def process_message(self, message: Any, message_exi: bytes = b"") -> None:
        session: Any = self.comm_session
        if not renegotiates(message):
            await super().process_message(message, message_exi)
        elif not self.check_msg_v20(message, [PowerDeliveryReq20], False):
            return
        elif not session.charging:
            reason = "PowerDeliveryReq(ScheduleRenegotiation) not accepted in state PowerDelivery"
            self.stop_state_machine(reason, message, ResponseCode.FAILED_SEQUENCE_ERROR)
        else:
            header = MessageHeader20(session_id=session.session_id, timestamp=int(time.time()))
            self.create_next_message(
                iso15118_20_states.ScheduleExchange,
                PowerDeliveryRes20(header=header, response_code=ResponseCode.OK),
                Timeouts.V2G_SECC_SEQUENCE_TIMEOUT,
                Namespace.ISO_V20_COMMON_MSG,
                ISOV20PayloadTypes.MAINSTREAM,
            )


class _SessionStop20(iso15118_20_states.SessionStop):
    """The package's state, which lets a vehicle choose its service anew, but only one that has charged and stopped
    ([V2G20-1477]): the package would go by authorisation, and takes the wish for a pause where it is not met."""

    async def process_message(self, message: Any, message_exi: bytes = b"") -> None:
        session: Any = self.comm_session
        anew = renegotiates_service(message)
        if anew and not session.may_choose_anew:
            reason = "SessionStopReq(ServiceRenegotiation) not accepted in state SessionStop"
            self.stop_state_machine(reason, message, ResponseCode.FAILED_NO_SERVICE_RENEGOTIATION_SUPPORTED)
            return
        await super().process_message(message, message_exi)
        if anew and self.next_state is iso15118_20_states.ServiceDiscovery:
            session.stop_reason = None
            session.choose_anew()


for _module, _name, _state in (
    (din_spec_states, "ContractAuthentication", _ContractAuthentication),
    (din_spec_states, "PowerDelivery", _PowerDeliveryDin),
    (iso15118_20_states, "AuthorizationSetup", _AuthorizationSetup20),
    (iso15118_20_states, "Authorization", _Authorization20),
    (iso15118_2_states, "CurrentDemand", _CurrentDemand),
    (iso15118_2_states, "PowerDelivery", _PowerDelivery),
    (iso15118_20_states, "PowerDelivery", _PowerDelivery20),
    (iso15118_20_states, "SessionStop", _SessionStop20),
):
    _state.__name__ = _name
    setattr(_module, _name, _state)
