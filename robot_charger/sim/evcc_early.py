"""What a vehicle sends that leaves early, or says something in the wrong place: in DIN 70121, ISO 15118-2 and -20."""

from __future__ import annotations

import time
from typing import Any

from iso15118.evcc.states import din_spec_states, iso15118_2_states, iso15118_20_states
from iso15118.shared.messages.din_spec import body as din
from iso15118.shared.messages.enums import ISOV20PayloadTypes, Namespace, Protocol
from iso15118.shared.messages.iso15118_2 import body as iso2
from iso15118.shared.messages.iso15118_2.datatypes import ChargingSession as ChargingSession2
from iso15118.shared.messages.iso15118_20.common_messages import ChargingSession as ChargingSession20
from iso15118.shared.messages.iso15118_20.common_messages import SessionStopReq as SessionStopReq20
from iso15118.shared.messages.iso15118_20.common_types import MessageHeader, Processing
from iso15118.shared.messages.iso15118_20.dc import DCCableCheckReq, DCWeldingDetectionReq

ANSWER_S = 2.0


async def put(session: Any, way: str, name: str) -> None:
    """Let ``session`` send, in the place of the request ``name``, SessionStopReq (``stop``) or one that does not belong
    there (``misplaced``: CableCheckReq, or WeldingDetectionReq where the former would)."""
    kind = "SessionStop" if way == "stop" else "WeldingDetection" if "CableCheck" in name else "CableCheck"
    controller = session.ev_controller
    session.charging_session_stop_v2 = ChargingSession2.TERMINATE
    session.charging_session_stop_v20 = ChargingSession20.TERMINATE
    request: Any
    if session.protocol == Protocol.DIN_SPEC_70121:
        states: Any = din_spec_states
        status = {} if kind == "SessionStop" else {"dc_ev_status": await controller.get_dc_ev_status_dinspec()}
        request = getattr(din, f"{kind}Req")(**status)
        rest: tuple[Any, ...] = (Namespace.DIN_MSG_DEF,)
    elif session.protocol == Protocol.ISO_15118_2:
        states = iso15118_2_states
        if kind == "SessionStop":
            request = iso2.SessionStopReq(charging_session=ChargingSession2.TERMINATE)
        else:
            request = getattr(iso2, f"{kind}Req")(dc_ev_status=await controller.get_dc_ev_status())
        rest = (Namespace.ISO_V2_MSG_DEF,)
    else:
        states = iso15118_20_states
        header = MessageHeader(session_id=session.session_id or "00", timestamp=int(time.time()))
        if kind == "SessionStop":
            request = SessionStopReq20(header=header, charging_session=ChargingSession20.TERMINATE)
            rest = (Namespace.ISO_V20_COMMON_MSG, ISOV20PayloadTypes.MAINSTREAM)
        else:
            misplaced = {
                "CableCheck": lambda: DCCableCheckReq(header=header),
                "WeldingDetection": lambda: DCWeldingDetectionReq(header=header, ev_processing=Processing.ONGOING),
            }
            request = misplaced[kind]()
            rest = (Namespace.ISO_V20_DC, ISOV20PayloadTypes.DC_MAINSTREAM)
    session.current_state.create_next_message(states.SessionStop, request, ANSWER_S, *rest)
