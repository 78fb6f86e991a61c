"""Messages of a charge loop with typical values: to warm the codec, and for its bench."""

from __future__ import annotations

from typing import Any

from iso15118.shared.messages.datatypes import (
    DCEVSEStatus,
    DCEVSEStatusCode,
    EVSENotification,
    PVEVMaxVoltageLimit,
    PVEVSEMaxCurrentLimit,
    PVEVSEMaxPowerLimit,
    PVEVSEMaxVoltageLimit,
    PVEVSEPresentCurrent,
    PVEVSEPresentVoltage,
    PVEVTargetCurrent,
    PVEVTargetVoltage,
)
from iso15118.shared.messages.enums import (
    DCEVErrorCode,
    IsolationLevel,
    Namespace,
)
from iso15118.shared.messages.iso15118_2.body import Body, CurrentDemandReq, CurrentDemandRes
from iso15118.shared.messages.iso15118_2.datatypes import DCEVStatus, ResponseCode
from iso15118.shared.messages.iso15118_2.header import MessageHeader
from iso15118.shared.messages.iso15118_2.msgdef import V2GMessage


def current_demand() -> tuple[V2GMessage, V2GMessage]:
    """CurrentDemandReq and CurrentDemandRes of ISO 15118-2 at 400 V, 150 A."""
    request = CurrentDemandReq(
        dc_ev_status=DCEVStatus(ev_ready=True, ev_error_code=DCEVErrorCode.NO_ERROR, ev_ress_soc=50),
        ev_target_current=PVEVTargetCurrent(multiplier=-1, value=1500, unit="A"),
        ev_max_voltage_limit=PVEVMaxVoltageLimit(multiplier=0, value=450, unit="V"),
        bulk_charging_complete=False,
        charging_complete=False,
        ev_target_voltage=PVEVTargetVoltage(multiplier=-1, value=4000, unit="V"),
    )
    response = CurrentDemandRes(
        response_code=ResponseCode.OK,
        dc_evse_status=DCEVSEStatus(
            notification_max_delay=0,
            evse_notification=EVSENotification.NONE,
            evse_isolation_status=IsolationLevel.VALID,
            evse_status_code=DCEVSEStatusCode.EVSE_READY,
        ),
        evse_present_voltage=PVEVSEPresentVoltage(multiplier=-1, value=4000, unit="V"),
        evse_present_current=PVEVSEPresentCurrent(multiplier=-1, value=1500, unit="A"),
        evse_current_limit_achieved=False,
        evse_voltage_limit_achieved=False,
        evse_power_limit_achieved=False,
        evse_max_voltage_limit=PVEVSEMaxVoltageLimit(multiplier=0, value=1000, unit="V"),
        evse_max_current_limit=PVEVSEMaxCurrentLimit(multiplier=0, value=300, unit="A"),
        evse_max_power_limit=PVEVSEMaxPowerLimit(multiplier=2, value=1500, unit="W"),
        evse_id="DE*EKX*E1",
        sa_schedule_tuple_id=1,
        receipt_required=False,
    )
    header = MessageHeader(session_id="0000000000000001")
    return (
        V2GMessage(header=header, body=Body(CurrentDemandReq=request)),
        V2GMessage(header=header, body=Body(CurrentDemandRes=response)),
    )


def charge_loop() -> list[tuple[Any, str]]:
    """Messages with their namespaces."""
    return [(message, Namespace.ISO_V2_MSG_DEF) for message in current_demand()]
