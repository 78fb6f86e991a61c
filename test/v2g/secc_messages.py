"""Requests of a well-behaved vehicle in each protocol, for tests of the tables: name -> variants of its body."""

from __future__ import annotations

from typing import Any

from robot_charger.v2g import v2gtp
from robot_charger.v2g.exi import encode

Tree = dict[str, Any]

EVCCID = "02EC000000E1"
STATUS = {"EVReady": True, "EVErrorCode": "NO_ERROR", "EVRESSSOC": 40}
BATTERY_V = 380


def pv(value: float, unit: str, multiplier: int = 0) -> Tree:
    return {"Multiplier": multiplier, "Unit": unit, "Value": round(value / 10**multiplier)}


LIMITS = {
    "DC_EVStatus": STATUS,
    "EVMaximumCurrentLimit": pv(200, "A"),
    "EVMaximumPowerLimit": pv(80_000, "W", 1),
    "EVMaximumVoltageLimit": pv(450, "V"),
}
DELIVERY = {"DC_EVStatus": STATUS, "ChargingComplete": False}
DEMAND = {
    "DC_EVStatus": STATUS,
    "EVTargetCurrent": pv(120, "A"),
    "ChargingComplete": False,
    "EVTargetVoltage": pv(400, "V"),
}
PRECHARGE = {"DC_EVStatus": STATUS, "EVTargetVoltage": pv(BATTERY_V, "V"), "EVTargetCurrent": pv(1, "A")}
SERVICES = {"SelectedService": [{"ServiceID": 1}]}

# What each request may hold. The first variant is that of an ordinary session.
DIN: dict[str, list[Tree]] = {
    "SessionSetupReq": [{"EVCCID": EVCCID}],
    "ServiceDiscoveryReq": [{}],
    "ServiceDetailReq": [{"ServiceID": 1}, {"ServiceID": 7}],
    "ServicePaymentSelectionReq": [
        {"SelectedPaymentOption": "ExternalPayment", "SelectedServiceList": SERVICES},
        {"SelectedPaymentOption": "Contract", "SelectedServiceList": SERVICES},
    ],
    "ContractAuthenticationReq": [{}],
    "ChargeParameterDiscoveryReq": [
        {"EVRequestedEnergyTransferType": "DC_extended", "DC_EVChargeParameter": LIMITS},
        {"EVRequestedEnergyTransferType": "DC_core", "DC_EVChargeParameter": LIMITS},
    ],
    "CableCheckReq": [{"DC_EVStatus": STATUS}],
    "PreChargeReq": [PRECHARGE],
    "PowerDeliveryReq": [{"ReadyToChargeState": True}, {"ReadyToChargeState": False}],
    "CurrentDemandReq": [DEMAND, {**DEMAND, "EVTargetVoltage": pv(-5, "V")}],
    "WeldingDetectionReq": [{"DC_EVStatus": STATUS}],
    "SessionStopReq": [{}],
}
ISO2: dict[str, list[Tree]] = {
    "SessionSetupReq": [{"EVCCID": EVCCID}],
    "ServiceDiscoveryReq": [{}],
    "ServiceDetailReq": [{"ServiceID": 1}, {"ServiceID": 7}],
    "PaymentServiceSelectionReq": [
        {"SelectedPaymentOption": "ExternalPayment", "SelectedServiceList": SERVICES},
        {"SelectedPaymentOption": "Contract", "SelectedServiceList": SERVICES},
    ],
    "AuthorizationReq": [{}],
    "ChargeParameterDiscoveryReq": [
        {"RequestedEnergyTransferMode": "DC_extended", "DC_EVChargeParameter": LIMITS},
        {"RequestedEnergyTransferMode": "AC_three_phase_core", "DC_EVChargeParameter": LIMITS},
    ],
    "CableCheckReq": [{"DC_EVStatus": STATUS}],
    "PreChargeReq": [PRECHARGE],
    "PowerDeliveryReq": [
        {"ChargeProgress": "Start", "SAScheduleTupleID": 1},
        {"ChargeProgress": "Stop", "SAScheduleTupleID": 1},
        {"ChargeProgress": "Renegotiate", "SAScheduleTupleID": 1},
        {"ChargeProgress": "Start", "SAScheduleTupleID": 9},
    ],
    "CurrentDemandReq": [DEMAND, {**DEMAND, "EVTargetVoltage": pv(-5, "V")}],
    "WeldingDetectionReq": [{"DC_EVStatus": STATUS}],
    "SessionStopReq": [{"ChargingSession": "Terminate"}, {"ChargingSession": "Pause"}],
}
SCHEMAS = {"din70121": "din70121", "iso15118-2": "iso15118_2"}
REQUESTS = {"din70121": DIN, "iso15118-2": ISO2}
ORDER = {name: tuple(table) for name, table in REQUESTS.items()}


def message(protocol: str, name: str, body: Tree, session_id: str = "00") -> tuple[int, bytes]:
    """V2GTP payload type and EXI of one request."""
    tree = {"V2G_Message": {"Header": {"SessionID": session_id}, "Body": {name: body}}}
    return v2gtp.EXI, encode(tree, SCHEMAS[protocol])
