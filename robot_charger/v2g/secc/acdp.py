"""ISO 15118-20 with an automated connection device: DC_ACDP (4) and DC_ACDP_BPT (7), ISO 15118-20 8.3.4.6.

The rows of ``iso20.py`` with four requests more. The vehicle asks for VehiclePositioning until it stands in reach of
the device; after ScheduleExchange for Connect until the device is in its end position; after the transfer for
Disconnect until it is home. SystemStatus may come at any time.

ACDP was made for pantographs (category 2 of IEC TS 61851-27). Speaking it for an arm with a CCS plug (category 1, whose
docking communication is still open) is an extension of this project.
"""

from __future__ import annotations

from dataclasses import replace

from robot_charger.common.faults import Code
from robot_charger.v2g.bridge import Station
from robot_charger.v2g.secc import iso20
from robot_charger.v2g.secc.table import FAILED, SEQUENCE_ERROR, Answer, Refused, Talk, Tree, row
from robot_charger.words.values import Insulation, Link, Lock, Phase, Shutdown

CONTACT_WINDOW_MM = 200  # half the field in which the arm finds an inlet [mm]; the schema names no unit
# Phases of the supervisor in which the plug is in the inlet and the arm out of its way.
CONNECTED = frozenset({Phase.LINKING, Phase.CABLE_CHECK, Phase.PRECHARGE, Phase.CHARGING})
HOME, MOVING, END_POSITION = "Home", "Moving", "EndPosition"
INT16 = 32_767
ISOLATION = {Insulation.VALID: "Safe", Insulation.WARNING: "Warning", Insulation.FAULT: "Fault"}


def positioning(talk: Talk, body: Tree) -> Answer:
    standing = not body["EVMobilityStatus"]  # true: the vehicle may still move
    done = talk.facts["positioned"] = standing and _near(talk)
    return Answer(_position(talk, done))


def _near(talk: Talk) -> bool:
    station = talk.station
    inside = max(abs(station.inlet_x_mm), abs(station.inlet_y_mm)) <= CONTACT_WINDOW_MM
    return station.inlet_known_at(talk.now.ns) and inside


def _position(talk: Talk, done: bool) -> Tree:
    return {
        "EVSEProcessing": "Finished" if done else "Ongoing",
        "EVSEPositioningSupport": True,
        "EVRelativeXDeviation": _short(talk.station.inlet_x_mm),
        "EVRelativeYDeviation": _short(talk.station.inlet_y_mm),
        "ContactWindowXc": CONTACT_WINDOW_MM,
        "ContactWindowYc": CONTACT_WINDOW_MM,
        "EVInChargePosition": _near(talk),
    }


def connect(talk: Talk, body: Tree) -> Answer:
    """Finished once the arm has let go too: only then may the output be live."""
    station = talk.station
    if not talk.facts.get("positioned"):
        text = "ACDP_ConnectReq came before the vehicle was in its position"
        raise Refused(SEQUENCE_ERROR, Code.V2G_SEQUENCE, text, bad=True)
    if talk.stopping:  # nothing is plugged in for a session that ends
        raise Refused(FAILED, Code.NONE, "the station stopped the session before contact")
    done = station.arm == END_POSITION and station.mated and station.phase in CONNECTED
    if done:
        talk.say(phase=Link.PARAMETERS, text="the charging device has connected")
    else:
        talk.say(phase=Link.CONNECTING, text="the vehicle asks the charging device to connect")
    return Answer(_device(station, done), "finished" if done else "ongoing")


def disconnect(talk: Talk, body: Tree) -> Answer:
    station = talk.station
    gone = station.arm == HOME and not station.mated
    if gone:
        talk.say(phase=Link.STOPPING, text="the charging device has disconnected")
    else:
        text = "the vehicle asks the charging device to disconnect"
        talk.say(phase=Link.DISCONNECTING, text=text, lock=Lock.UNLOCKED)
    return Answer(_device(station, gone), "finished" if gone else "ongoing")


def _device(station: Station, finished: bool) -> Tree:
    pilot = {2: "State_B", 3: "State_C", 4: "State_D"}.get(station.pilot, "State_B" if station.mated else "State_A")
    return {
        "EVSEProcessing": "Finished" if finished else "Ongoing",
        "EVSEElectricalChargingDeviceStatus": pilot,
        "EVSEMechanicalChargingDeviceStatus": station.arm or MOVING,
    }


def system_status(talk: Talk, body: Tree) -> Answer:
    return Answer(_status(talk))


def _status(talk: Talk) -> Tree:
    station = talk.station
    return {
        "EVSEMechanicalChargingDeviceStatus": station.arm or MOVING,
        "EVSEReadyToCharge": station.supply_available and not talk.stopping,
        "EVSEIsolationStatus": ISOLATION.get(Insulation(station.insulation), "Invalid"),
        "EVSEDisabled": station.phase == Phase.UNAVAILABLE,
        "EVSEUtilityInterruptEvent": False,
        "EVSEEmergencyShutdown": station.shutdown == Shutdown.EMERGENCY,
        "EVSEMalfunction": station.shutdown == Shutdown.ERROR or station.phase == Phase.FAULTED,
        "EVInChargePosition": _near(talk),
        "EVAssociationStatus": bool(station.session_id),
    }


def _short(value_mm: float) -> int:
    return max(-INT16, min(INT16, round(value_mm)))


ROWS = {
    **iso20.rows(device=True),
    "ACDP_VehiclePositioningReq": row(positioning, "8.3.4.6.2", "ACDP_VehiclePositioningReq AuthorizationSetupReq"),
    "ACDP_ConnectReq": row(
        connect, "8.3.4.6.3", ongoing="ACDP_ConnectReq", finished="ACDP_ConnectReq DC_CableCheckReq"
    ),
    "ACDP_DisconnectReq": row(
        disconnect, "8.3.4.6.4", ongoing="ACDP_DisconnectReq", finished="ACDP_DisconnectReq SessionStopReq"
    ),
    "ACDP_SystemStatusReq": row(system_status, "8.3.4.6.5"),
}


def least(request: str, talk: Talk) -> Tree | None:
    """As in ``iso20.py``, and of the device's responses."""
    if request in ("ACDP_ConnectReq", "ACDP_DisconnectReq"):
        return _device(talk.station, False)
    if request == "ACDP_VehiclePositioningReq":
        return _position(talk, False)
    return _status(talk) if request == "ACDP_SystemStatusReq" else iso20.least(request, talk)


DIALECT = replace(iso20.DIALECT, rows=ROWS, least=least, beside=frozenset({"ACDP_SystemStatusReq"}))
