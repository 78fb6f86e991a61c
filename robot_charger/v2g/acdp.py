"""Automated connection device of ISO 15118-20 (DC_ACDP 4, DC_ACDP_BPT 7): its four messages and the SECC's answers.

The iso15118 package knows nothing of ACDP. Here the messages are coded by the project's own EXI codec and answered
beside the package's states; the services are the package's DC and DC_BPT under other numbers (:data:`SERVICES`).
Order of the standard: SessionSetup, VehiclePositioning until the vehicle stands where the device reaches it,
authorisation to ScheduleExchange, Connect until the device is in its end position, cable check to welding
detection, Disconnect until it is home, SessionStop. SystemStatus runs beside all of it.

ACDP was made for pantographs (category 2 of IEC TS 61851-27). Speaking it for an arm with a CCS plug (category 1, whose
docking communication is still open) is an extension of this project.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from robot_charger.v2g.bridge import Station
from robot_charger.v2g.exi import NAMESPACES, decode, encode
from robot_charger.words.values import Insulation, Phase, Shutdown

NAMESPACE = NAMESPACES["iso15118_20_acdp"]
PAYLOAD_ACDP = 0x8005
PAYLOAD_SYSTEM_STATUS = 0x8103
SERVICES = {4: 2, 7: 6}  # DC_ACDP -> DC, DC_ACDP_BPT -> DC_BPT
CONTACT_WINDOW_MM = 200  # half the field in which the arm finds an inlet [mm]; the schema names no unit
OK = "OK"
FAILED = "FAILED"
SEQUENCE_ERROR = "FAILED_SequenceError"
UNKNOWN_SESSION = "FAILED_UnknownSession"


class Device(str, Enum):
    """Mechanical status of the charging device."""

    HOME = "Home"
    MOVING = "Moving"
    END_POSITION = "EndPosition"


class Request(str, Enum):
    """What a vehicle asks of the charging device."""

    CONNECT = "connect"
    DISCONNECT = "disconnect"


class AcdpError(ValueError):
    """Not an ACDP message."""


@dataclass(frozen=True)
class Message:
    """One ACDP message; ``fields`` are the schema's elements without header and response code."""

    name: str
    session_id: str
    fields: dict[str, Any]
    code: str = ""  # of a response

    def encode(self) -> bytes:
        body: dict[str, Any] = {"Header": {"SessionID": self.session_id, "TimeStamp": int(time.time())}}
        if self.code:
            body["ResponseCode"] = self.code
        return encode({self.name: body | self.fields}, NAMESPACE)

    @classmethod
    def decode(cls, payload: bytes) -> Message:
        """Raises AcdpError."""
        try:
            tree = decode(payload, NAMESPACE)
        except ValueError as error:
            raise AcdpError(f"not an ACDP message: {error}") from error
        ((name, body),) = tree.items()
        if not name.startswith("ACDP_"):
            raise AcdpError(f"{name} is no ACDP message")
        header = body.pop("Header")
        return cls(name, header["SessionID"], body, str(body.pop("ResponseCode", "")))

    def __str__(self) -> str:
        return self.name

    def dict(self, **_: Any) -> dict[str, Any]:
        """For the session record."""
        return {"SessionID": self.session_id, "ResponseCode": self.code, **self.fields}

    @property
    def payload_type(self) -> int:
        return PAYLOAD_SYSTEM_STATUS if "SystemStatus" in self.name else PAYLOAD_ACDP


class Secc:
    """The SECC's side. ``answer`` gives the response, and whether the session ends with it.

    ``asks`` is told what the vehicle asks of the device with every such message, and whether it is done.
    """

    def __init__(self, asks: Callable[[Request, bool], None]) -> None:
        self.positioned = False
        self.connected = False
        self.selected = False  # service 4 or 7 was chosen
        self._asks = asks

    def answer(self, request: Message, session_id: str, state: str, station: Station) -> tuple[Message, bool]:
        """``state``: name of the package's present state, which tells where the session is."""
        kind = request.name.removeprefix("ACDP_").removesuffix("Req")
        fill = {
            "VehiclePositioning": self._positioning,
            "Connect": self._connect,
            "Disconnect": self._disconnect,
            "SystemStatus": self._status,
        }.get(kind)
        if fill is None:
            raise AcdpError(f"{request.name} is no request")
        allowed = {
            # Before authorisation, and not while anything is connected.
            "VehiclePositioning": state == "AuthorizationSetup",
            "Connect": state in ("ScheduleExchange", "DCCableCheck") and self.selected and self.positioned,
            "Disconnect": state in ("PowerDelivery", "DCWeldingDetection", "ScheduleExchange") and self.selected,
            "SystemStatus": True,
        }[kind]
        code = UNKNOWN_SESSION if request.session_id != session_id else OK if allowed else SEQUENCE_ERROR
        if code == OK and kind == "Connect" and station.stopping:  # nothing is plugged in for a session that ends
            code = FAILED
        fields = fill(request, station) if code == OK else fill(None, station)
        return Message(f"ACDP_{kind}Res", session_id, fields, code), code != OK

    def _positioning(self, request: Message | None, station: Station) -> dict[str, Any]:
        # EVMobilityStatus true: the vehicle may still move.
        standing = request is not None and not request.fields["EVMobilityStatus"]
        x, y = station.inlet_x_mm, station.inlet_y_mm
        near = station.inlet_known and abs(x) <= CONTACT_WINDOW_MM and abs(y) <= CONTACT_WINDOW_MM
        if request is not None:
            self.positioned = standing and near
        return {
            "EVSEProcessing": "Finished" if self.positioned else "Ongoing",
            "EVSEPositioningSupport": True,
            "EVRelativeXDeviation": _short(x),
            "EVRelativeYDeviation": _short(y),
            "ContactWindowXc": CONTACT_WINDOW_MM,
            "ContactWindowYc": CONTACT_WINDOW_MM,
            "EVInChargePosition": near,
        }

    def _connect(self, request: Message | None, station: Station) -> dict[str, Any]:
        if request is not None:
            # Finished once the arm has let go too: only then may the output be live.
            self.connected = station.arm == Device.END_POSITION.value and station.mated and station.phase in CONNECTED
            self._asks(Request.CONNECT, self.connected)
        return self._device(station, self.connected)

    def _disconnect(self, request: Message | None, station: Station) -> dict[str, Any]:
        gone = station.arm == Device.HOME.value and not station.mated
        if request is not None:
            self.connected = False
            self._asks(Request.DISCONNECT, gone)
        return self._device(station, gone)

    def _device(self, station: Station, finished: bool) -> dict[str, Any]:
        return {
            "EVSEProcessing": "Finished" if finished else "Ongoing",
            "EVSEElectricalChargingDeviceStatus": {2: "State_B", 3: "State_C", 4: "State_D"}.get(
                station.pilot, "State_B" if station.mated else "State_A"
            ),
            "EVSEMechanicalChargingDeviceStatus": station.arm or Device.MOVING.value,
        }

    def _status(self, request: Message | None, station: Station) -> dict[str, Any]:
        insulation = {
            Insulation.VALID: "Safe",
            Insulation.WARNING: "Warning",
            Insulation.FAULT: "Fault",
        }.get(Insulation(station.insulation), "Invalid")
        near = abs(station.inlet_x_mm) <= CONTACT_WINDOW_MM and abs(station.inlet_y_mm) <= CONTACT_WINDOW_MM
        return {
            "EVSEMechanicalChargingDeviceStatus": station.arm or Device.MOVING.value,
            "EVSEReadyToCharge": station.supply_available and not station.stopping,
            "EVSEIsolationStatus": insulation,
            "EVSEDisabled": station.phase == Phase.UNAVAILABLE,
            "EVSEUtilityInterruptEvent": False,
            "EVSEEmergencyShutdown": station.shutdown == Shutdown.EMERGENCY,
            "EVSEMalfunction": station.shutdown == Shutdown.ERROR or station.phase == Phase.FAULTED,
            "EVInChargePosition": station.inlet_known and near,
            "EVAssociationStatus": bool(station.session_id),
        }


def _short(value_mm: float) -> int:
    return max(-32_768, min(32_767, round(value_mm)))


# Phases of the supervisor in which an ACDP vehicle is talked to: from parking to the arm at home again.
TALKING = frozenset(
    {
        Phase.POSITIONING,
        Phase.CONNECTING,
        Phase.MATED,
        Phase.RELEASED,
        Phase.LINKING,
        Phase.CABLE_CHECK,
        Phase.PRECHARGE,
        Phase.CHARGING,
        Phase.STOPPING,
        Phase.GRASPED,
        Phase.DISCONNECTING,
        Phase.DEPARTING,  # for the vehicle's SessionStopReq
    }
)
# Phases in which the plug is in the inlet and the arm out of its way.
CONNECTED = frozenset({Phase.LINKING, Phase.CABLE_CHECK, Phase.PRECHARGE, Phase.CHARGING})
