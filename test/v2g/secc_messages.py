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
    "PowerDeliveryReq": [
        {"ReadyToChargeState": True, "DC_EVPowerDeliveryParameter": DELIVERY},
        {"ReadyToChargeState": False, "DC_EVPowerDeliveryParameter": DELIVERY},
        {"ReadyToChargeState": True},
    ],
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


def rn(value: float, exponent: int = 0) -> Tree:
    return {"Exponent": exponent, "Value": round(value / 10**exponent)}


LIMITS_20 = {
    "EVMaximumChargePower": rn(80_000, 1),
    "EVMinimumChargePower": rn(0),
    "EVMaximumChargeCurrent": rn(200),
    "EVMinimumChargeCurrent": rn(0),
    "EVMaximumVoltage": rn(450),
    "EVMinimumVoltage": rn(250),
}
DISCHARGE_20 = {
    "EVMaximumDischargePower": rn(20_000),
    "EVMinimumDischargePower": rn(0),
    "EVMaximumDischargeCurrent": rn(50),
    "EVMinimumDischargeCurrent": rn(0),
}
SCHEDULED_20 = {"EVTargetCurrent": rn(120), "EVTargetVoltage": rn(400)}
DYNAMIC_20 = {
    "EVTargetEnergyRequest": rn(24_000),
    "EVMaximumEnergyRequest": rn(30_000),
    "EVMinimumEnergyRequest": rn(0),
    "EVMaximumChargePower": rn(80_000, 1),
    "EVMinimumChargePower": rn(0),
    "EVMaximumChargeCurrent": rn(90),
    "EVMaximumVoltage": rn(450),
    "EVMinimumVoltage": rn(250),
}
BPT_LOOP = {key: DISCHARGE_20[key] for key in list(DISCHARGE_20)[:3]}
ENERGY_20 = {key: DYNAMIC_20[key] for key in list(DYNAMIC_20)[:3]}
LOOP_20 = {"MeterInfoRequested": True, "EVPresentVoltage": rn(380)}


PROFILE_20 = {
    "TimeAnchor": 0,
    "Scheduled_EVPPTControlMode": {
        "SelectedScheduleTupleID": 1,
        "PowerToleranceAcceptance": "PowerToleranceConfirmed",
    },
    "EVPowerProfileEntries": {"EVPowerProfileEntry": [{"Duration": 86_400, "Power": rn(80_000, 1)}]},
}


def loop_20(kind: str, mode: Tree) -> Tree:
    return {**LOOP_20, f"{kind}_DC_CLReqControlMode": mode}


def select_20(service: int, parameters: int) -> Tree:
    return {"SelectedEnergyTransferService": {"ServiceID": service, "ParameterSetID": parameters}}


def iso20(dc: int, bpt: int) -> dict[str, list[Tree]]:
    """ISO 15118-20 with the numbers of its two services."""
    return {
        "SessionSetupReq": [{"EVCCID": "WMIV1234567890ABCDEX"}],
        "AuthorizationSetupReq": [{}],
        "AuthorizationReq": [{"SelectedAuthorizationService": "EIM", "EIM_AReqAuthorizationMode": {}}],
        "ServiceDiscoveryReq": [{}],
        "ServiceDetailReq": [{"ServiceID": dc}, {"ServiceID": 99}],
        "ServiceSelectionReq": [
            select_20(dc, 1),
            select_20(dc, 2),
            select_20(bpt, 1),
            select_20(bpt, 2),
            select_20(dc, 9),
        ],
        "DC_ChargeParameterDiscoveryReq": [
            {"DC_CPDReqEnergyTransferMode": LIMITS_20},
            {"BPT_DC_CPDReqEnergyTransferMode": LIMITS_20 | DISCHARGE_20},
            {"DC_CPDReqEnergyTransferMode": {**LIMITS_20, "EVMaximumVoltage": rn(-5)}},
        ],
        "ScheduleExchangeReq": [
            {"MaximumSupportingPoints": 12, "Scheduled_SEReqControlMode": ENERGY_20},
            {"MaximumSupportingPoints": 12, "Dynamic_SEReqControlMode": {"DepartureTime": 7200, **ENERGY_20}},
        ],
        "DC_CableCheckReq": [{}],
        "DC_PreChargeReq": [
            {"EVProcessing": "Ongoing", "EVPresentVoltage": rn(0), "EVTargetVoltage": rn(BATTERY_V)},
            {"EVProcessing": "Finished", "EVPresentVoltage": rn(380), "EVTargetVoltage": rn(BATTERY_V)},
        ],
        "PowerDeliveryReq": [
            {"EVProcessing": "Finished", "ChargeProgress": "Start", "EVPowerProfile": PROFILE_20},
            {"EVProcessing": "Finished", "ChargeProgress": "Stop"},
            {"EVProcessing": "Ongoing", "ChargeProgress": "Start"},
            {"EVProcessing": "Finished", "ChargeProgress": "Standby"},
            {"EVProcessing": "Finished", "ChargeProgress": "ScheduleRenegotiation"},
        ],
        "DC_ChargeLoopReq": [
            loop_20("Scheduled", SCHEDULED_20),
            loop_20("Dynamic", DYNAMIC_20),
            loop_20("BPT_Scheduled", SCHEDULED_20 | BPT_LOOP),
            loop_20("BPT_Dynamic", DYNAMIC_20 | BPT_LOOP),
            loop_20("Scheduled", {**SCHEDULED_20, "EVTargetVoltage": rn(-5)}),
        ],
        "DC_WeldingDetectionReq": [{"EVProcessing": "Ongoing"}],
        "SessionStopReq": [
            {"ChargingSession": "Terminate"},
            {"ChargingSession": "Pause"},
            {"ChargingSession": "ServiceRenegotiation"},
        ],
    }


def acdp() -> dict[str, list[Tree]]:
    """The same with an automated connection device, in the order of a session."""
    made: dict[str, list[Tree]] = {}
    technical = {"EVReadyToCharge": True, "EVImmobilizationRequest": False}
    before: dict[str, dict[str, list[Tree]]] = {
        "AuthorizationSetupReq": {
            "ACDP_VehiclePositioningReq": [
                {"EVMobilityStatus": False, "EVPositioningSupport": False},
                {"EVMobilityStatus": True, "EVPositioningSupport": False},
            ]
        },
        "DC_CableCheckReq": {"ACDP_ConnectReq": [{"EVElectricalChargingDeviceStatus": "State_A"}]},
        "SessionStopReq": {
            "ACDP_DisconnectReq": [{"EVElectricalChargingDeviceStatus": "State_B"}],
            "ACDP_SystemStatusReq": [{"EVTechnicalStatus": technical}],
        },
    }
    for name, bodies in iso20(4, 7).items():
        made |= before.get(name, {})
        made[name] = bodies
    return made


SCHEMAS = {"din70121": "din70121", "iso15118-2": "iso15118_2"}
REQUESTS = {"din70121": DIN, "iso15118-2": ISO2, "iso15118-20": iso20(2, 6), "acdp": acdp()}
FIRST = {
    "din70121": ("din70121", 2),
    "iso15118-2": ("iso15118_2", 2),
    "iso15118-20": ("iso15118_20_dc", 1),
    "acdp": ("iso15118_20_acdp", 1),
}
PAYLOAD_TYPES = {"iso15118_20_common": 0x8002, "iso15118_20_dc": 0x8004, "iso15118_20_acdp": 0x8005}


def message(protocol: str, name: str, body: Tree, session_id: str = "00") -> tuple[int, bytes]:
    """V2GTP payload type and EXI of one request."""
    if protocol in SCHEMAS:
        tree: Tree = {"V2G_Message": {"Header": {"SessionID": session_id}, "Body": {name: body}}}
        return v2gtp.EXI, encode(tree, SCHEMAS[protocol])
    schema = "iso15118_20_common"
    if name.startswith(("DC_", "ACDP_")):
        schema = "iso15118_20_dc" if name.startswith("DC_") else "iso15118_20_acdp"
    kind = 0x8103 if "SystemStatus" in name else PAYLOAD_TYPES[schema]
    header = {"SessionID": session_id, "TimeStamp": 1_700_000_000}
    return kind, encode({name: {"Header": header, **body}}, schema)
