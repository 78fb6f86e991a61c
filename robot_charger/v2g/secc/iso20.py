"""ISO 15118-20 with direct current, DC and DC_BPT: what each request is answered with, and what may follow it.

Sequence and response codes: ISO 15118-20 8.3 and 8.6. Both control modes, external identification only: Plug and Charge
and the installation of contract certificates are not offered. A stop by the station is EVSENotification Terminate, the
lack of power EVSENotification Pause.
"""

from __future__ import annotations

from robot_charger.common.faults import Code
from robot_charger.v2g.exi import ExiDecodeError, decode
from robot_charger.v2g.secc import answers, requests, shared
from robot_charger.v2g.secc.answers import rational
from robot_charger.v2g.secc.energy import PRECHARGE_CURRENT_A
from robot_charger.v2g.secc.table import (
    FAILED,
    SEQUENCE_ERROR,
    Answer,
    Dialect,
    Heard,
    Refused,
    Row,
    Talk,
    Tree,
    Wait,
    row,
)
from robot_charger.words.values import Link

# V2GTP payload types and their schemas (table 12); ACDP_SystemStatus has one of its own.
SCHEMAS = {
    0x8002: "iso15118_20_common",
    0x8004: "iso15118_20_dc",
    0x8005: "iso15118_20_acdp",
    0x8103: "iso15118_20_acdp",
}
DC, DC_BPT, DC_ACDP, DC_ACDP_BPT = 2, 6, 4, 7  # ServiceID (table 204)
BIDIRECTIONAL = (DC_BPT, DC_ACDP_BPT)
SCHEDULED, DYNAMIC = 1, 2  # ControlMode, and the number of its parameter set here
WRONG_PARAMETER = "FAILED_WrongChargeParameter"
CONTACTOR = "FAILED_ContactorError"


def unpack(payload_type: int, payload: bytes) -> Heard:
    """A request by the schema of its payload type. Raises ExiError."""
    schema = SCHEMAS.get(payload_type)
    if schema is None:
        raise ExiDecodeError(f"the V2GTP payload type {payload_type:#06x} is not used here", 0)
    tree = decode(payload, schema)
    ((name, message),) = tree.items()
    header = message.get("Header") if isinstance(message, dict) else None
    if header is None:
        raise ExiDecodeError(f"{name} is no message", 0)
    body = {key: value for key, value in message.items() if key != "Header"}
    return Heard(name, header["SessionID"], header, body, tree, payload)


def pack(name: str, fields: Tree, talk: Talk) -> tuple[int, str, Tree]:
    """A response with its header."""
    payload_type = 0x8002
    if name.startswith("DC_"):
        payload_type = 0x8004
    elif name.startswith("ACDP_"):
        payload_type = 0x8103 if "SystemStatus" in name else 0x8005
    header = {"SessionID": talk.session_id, "TimeStamp": int(talk.now.unix_s)}
    return payload_type, SCHEMAS[payload_type], {name: {"Header": header, **fields}}


# What was chosen.
def services(talk: Talk) -> list[int]:
    """The energy services offered now."""
    device = talk.settings.device
    offered = [DC_ACDP if device else DC]
    if talk.settings.bidirectional and talk.station.announced_export()[1] > 0.0:
        offered.append(DC_ACDP_BPT if device else DC_BPT)
    return offered


def parameter_sets(service: int) -> list[Tree]:
    """One set for each control mode (tables 206 and 208). MobilityNeedsMode 1: the vehicle states its needs."""
    sets = []
    for mode in (SCHEDULED, DYNAMIC):
        values = {"Connector": 2, "ControlMode": mode, "MobilityNeedsMode": 1, "Pricing": 0}
        if service in BIDIRECTIONAL:
            values |= {"BPTChannel": 1, "GeneratorMode": 1}
        parameters = [{"Name": name, "intValue": value} for name, value in values.items()]
        sets.append({"ParameterSetID": mode, "Parameter": parameters})
    return sets


def dynamic(talk: Talk) -> bool:
    return talk.facts.get("mode") == DYNAMIC


def bidirectional(talk: Talk) -> bool:
    return talk.facts.get("service") in BIDIRECTIONAL


# The rows.
def session_setup(talk: Talk, body: Tree) -> Answer:
    assert talk.heard is not None
    code = shared.set_up(talk, talk.heard.session_id, body["EVCCID"])
    talk.say(protocol="iso15118-20")
    return Answer({"EVSEID": talk.settings.evse_id}, code=code)


def authorization_setup(talk: Talk, body: Tree) -> Answer:
    return Answer(
        {
            "AuthorizationServices": ["EIM"],
            "CertificateInstallationService": False,
            "EIM_ASResAuthorizationMode": {},
        }
    )


def authorization(talk: Talk, body: Tree) -> Answer:
    if body["SelectedAuthorizationService"] != "EIM":  # [V2G20-2209]: the vehicle may try the other
        talk.note("AuthorizationReq/SelectedAuthorizationService is not offered")
        return Answer({"EVSEProcessing": "Finished"}, "ongoing", code="WARNING_AuthorizationSelectionInvalid")
    if shared.authorized(talk):
        return Answer({"EVSEProcessing": "Finished"}, "finished")
    return Answer({"EVSEProcessing": "Ongoing_WaitingForCustomerInteraction"}, "ongoing")


def service_discovery(talk: Talk, body: Tree) -> Answer:
    listed = [{"ServiceID": number, "FreeService": False} for number in services(talk)]
    renegotiates = not talk.settings.device  # there the arm unplugs before SessionStopReq
    return Answer({"ServiceRenegotiationSupported": renegotiates, "EnergyTransferServiceList": {"Service": listed}})


def service_detail(talk: Talk, body: Tree) -> Answer:
    number = body["ServiceID"]
    if number not in services(talk):
        text = f"the vehicle asks for service {number}, which is not offered"
        raise Refused("FAILED_ServiceIDInvalid", Code.V2G_SEQUENCE, text)
    return Answer({"ServiceID": number, "ServiceParameterList": {"ParameterSet": parameter_sets(number)}})


def service_selection(talk: Talk, body: Tree) -> Answer:
    chosen = body["SelectedEnergyTransferService"]
    service, mode = chosen["ServiceID"], chosen["ParameterSetID"]
    if service not in services(talk):
        text = f"the vehicle chose service {service}, which is not offered"
        raise Refused("FAILED_NoEnergyTransferServiceSelected", Code.V2G_SEQUENCE, text)
    if mode not in (SCHEDULED, DYNAMIC) or "SelectedVASList" in body:
        text = "the vehicle chose a parameter set or a value-added service that is not offered"
        raise Refused("FAILED_ServiceSelectionInvalid", Code.V2G_SEQUENCE, text)
    talk.facts |= {"service": service, "mode": mode}
    return Answer({})


def charge_parameters(talk: Talk, body: Tree) -> Answer:
    talk.say(phase=Link.PARAMETERS, bidirectional=bidirectional(talk))
    prefix = "BPT_" if bidirectional(talk) else ""
    asked = body.get(f"{prefix}DC_CPDReqEnergyTransferMode")
    if asked is None:
        text = "the vehicle gives parameters of another service than it chose"
        raise Refused(WRONG_PARAMETER, Code.V2G_SEQUENCE, text)
    energy = talk.energy
    energy.max_voltage_v = requests.limit(talk, asked, "EVMaximumVoltage", "V", WRONG_PARAMETER) or 0.0
    energy.max_current_a = requests.limit(talk, asked, "EVMaximumChargeCurrent", "A", WRONG_PARAMETER) or 0.0
    power_w = requests.limit(talk, asked, "EVMaximumChargePower", "W", WRONG_PARAMETER) or 0.0
    energy.max_export_a = _discharge_a(talk, asked, WRONG_PARAMETER)
    talk.say(max_voltage_v=energy.max_voltage_v, max_current_a=energy.max_current_a, max_power_w=power_w)
    station = talk.station
    voltage, current, power = station.announced()
    fields = {
        "EVSEMaximumChargePower": rational(power),
        "EVSEMinimumChargePower": rational(0.0),
        "EVSEMaximumChargeCurrent": rational(current),
        "EVSEMinimumChargeCurrent": rational(station.min_current_a),
        "EVSEMaximumVoltage": rational(voltage),
        "EVSEMinimumVoltage": rational(station.min_voltage_v),
    }
    if bidirectional(talk):
        export_a, export_w = station.announced_export()
        fields |= {
            "EVSEMaximumDischargePower": rational(export_w),
            "EVSEMinimumDischargePower": rational(0.0),
            "EVSEMaximumDischargeCurrent": rational(export_a),
            "EVSEMinimumDischargeCurrent": rational(0.0),
        }
    return Answer({f"{prefix}DC_CPDResEnergyTransferMode": fields})


def _discharge_a(talk: Talk, asked: Tree, code: str) -> float:
    """What the vehicle can give [A], positive: the sign of its discharge limits differs from car to car."""
    if not bidirectional(talk) or "EVMaximumDischargeCurrent" not in asked:
        return talk.energy.max_export_a if bidirectional(talk) else 0.0
    return abs(requests.signed(talk, asked, "EVMaximumDischargeCurrent", code))


def schedule_exchange(talk: Talk, body: Tree) -> Answer:
    kind = "Dynamic" if dynamic(talk) else "Scheduled"
    if f"{kind}_SEReqControlMode" not in body:
        raise Refused(FAILED, Code.V2G_SEQUENCE, "the vehicle exchanges a schedule of another control mode")
    ready = talk.station.supply_available or talk.stopping
    mode: Tree = {}
    if not dynamic(talk):
        export_w = talk.station.announced_export()[1] if bidirectional(talk) else 0.0
        mode = {"ScheduleTuple": [schedule_tuple(talk.station.max_power_w if ready else 0.0, export_w)]}
    fields = {"EVSEProcessing": "Finished" if ready else "Ongoing", f"{kind}_SEResControlMode": mode}
    if not ready:
        return Answer(fields, "ongoing")
    return Answer(fields, "renegotiated" if talk.energy.charging else "finished")


def schedule_tuple(power_w: float, export_w: float) -> Tree:
    """What the supply can for a day; limits follow in the charge loop."""
    made: Tree = {"ScheduleTupleID": 1, "ChargingSchedule": _schedule(power_w, 1)}
    if export_w > 0.0:
        made["DischargingSchedule"] = _schedule(-export_w, 2)
    return made


def _schedule(power_w: float, number: int) -> Tree:
    """One price level for a day: the schema wants a price, and this station announces none."""
    entry = {"Duration": answers.DAY_S, "Power": rational(power_w)}
    price = {
        "Id": f"id{number}",
        "TimeAnchor": 0,
        "PriceScheduleID": number,
        "NumberOfPriceLevels": 1,
        "PriceLevelScheduleEntries": {
            "PriceLevelScheduleEntry": [{"Duration": answers.DAY_S, "PriceLevel": 0}],
        },
    }
    power = {"TimeAnchor": 0, "PowerScheduleEntries": {"PowerScheduleEntry": [entry]}}
    return {"PowerSchedule": power, "PriceLevelSchedule": price}


def cable_check(talk: Talk, body: Tree) -> Answer:
    done = shared.insulated(talk)
    return Answer({"EVSEProcessing": "Finished" if done else "Ongoing"}, "finished" if done else "ongoing")


def pre_charge(talk: Talk, body: Tree) -> Answer:
    """PowerDeliveryReq may follow only where the vehicle says that it has finished ([V2G20-2005])."""
    # DC_PreChargeReq names no current.
    shared.precharge(talk, requests.setpoint(talk, body, "EVTargetVoltage", "V"), PRECHARGE_CURRENT_A)
    answer = {"EVSEPresentVoltage": rational(talk.station.voltage_v)}
    return Answer(answer, "finished" if body["EVProcessing"] == "Finished" else "ongoing")


def power_delivery(talk: Talk, body: Tree) -> Answer | Wait:
    progress, charging = body["ChargeProgress"], talk.energy.charging
    if progress == "Stop":
        return shared.stop(talk, lambda later: _delivery(later, "stop"), CONTACTOR)
    negotiates = talk.facts.get("negotiates", False)
    if (progress == "Start" and charging != negotiates) or (progress != "Start" and (not charging or negotiates)):
        when = "in" if charging else "outside of"
        text = f"PowerDeliveryReq({progress}) came {when} the charge loop"
        raise Refused(SEQUENCE_ERROR, Code.V2G_SEQUENCE, text, bad=True)
    if progress == "Standby":
        return _delivery(talk, "loop", "WARNING_StandbyNotAllowed")
    if progress == "ScheduleRenegotiation":
        talk.energy.hold(talk)
        talk.facts["negotiates"] = True
        return _delivery(talk, "renegotiate")
    chosen = body.get("EVPowerProfile", {}).get("Scheduled_EVPPTControlMode", {})
    if chosen.get("SelectedScheduleTupleID", 1) != 1:
        text = f"the vehicle chose schedule {chosen['SelectedScheduleTupleID']}, offered is 1"
        raise Refused("FAILED_ScheduleSelectionInvalid", Code.V2G_SEQUENCE, text)
    if body["EVProcessing"] != "Finished":
        return _delivery(talk, "ongoing")
    return shared.start(talk, _started, CONTACTOR, SEQUENCE_ERROR)


def _started(talk: Talk) -> Answer:
    talk.facts["negotiates"] = False
    return _delivery(talk, "loop")


def _delivery(talk: Talk, outcome: str, code: str = "OK") -> Answer:
    status = answers.status_20(talk)
    return Answer({"EVSEStatus": status} if status else {}, outcome, code)


def charge_loop(talk: Talk, body: Tree) -> Answer:
    kind = f"{'BPT_' if bidirectional(talk) else ''}{'Dynamic' if dynamic(talk) else 'Scheduled'}_DC_"
    asked = body.get(f"{kind}CLReqControlMode")
    if asked is None:
        text = "the vehicle's charge loop is of another control mode or service than it chose"
        raise Refused(FAILED, Code.V2G_SEQUENCE, text)
    _display(talk, body.get("DisplayParameters", {}))
    _loop_limits(talk, asked)
    if dynamic(talk):
        voltage_v, current_a = _dynamic_target(talk, asked)
    else:
        voltage_v = requests.setpoint(talk, asked, "EVTargetVoltage", "V")
        if bidirectional(talk):
            current_a = requests.signed(talk, asked, "EVTargetCurrent")
        else:
            current_a = requests.setpoint(talk, asked, "EVTargetCurrent", "A")
    talk.energy.transfer(talk, voltage_v, current_a)
    station, status = talk.station, answers.status_20(talk)
    announced = station.announced()
    limits = answers.charge_limits_20(announced)
    if bidirectional(talk):
        limits |= answers.discharge_limits_20(station)
    fields: Tree = {"EVSEStatus": status} if status else {}
    if body["MeterInfoRequested"] and station.meter_valid:
        fields["MeterInfo"] = answers.meter_info_20(station)
    fields |= {
        "EVSEPresentCurrent": rational(station.current_a),
        "EVSEPresentVoltage": rational(station.voltage_v),
        **answers.achieved(station, announced, voltage_v, current_a),
        f"{kind}CLResControlMode": limits,
    }
    return Answer(fields)


def _display(talk: Talk, shown: Tree) -> None:
    """DisplayParameters inform only."""
    state = requests.soc(talk, shown, "PresentSOC")
    capacity_wh = requests.told(talk, shown, "BatteryEnergyCapacity", requests.WATT_HOURS)
    remaining_s = shown.get("RemainingTimeToTargetSOC", shown.get("RemainingTimeToMaximumSOC"))
    given = {"soc": state, "energy_capacity_wh": capacity_wh, "remaining_s": remaining_s}
    talk.say(**{name: float(value) for name, value in given.items() if value is not None})


def _loop_limits(talk: Talk, asked: Tree) -> None:
    """The vehicle's limits may change in the charge loop."""
    energy = talk.energy
    for name, unit, field in (
        ("EVMaximumChargeCurrent", "A", "max_current_a"),
        ("EVMaximumVoltage", "V", "max_voltage_v"),
        ("EVMaximumChargePower", "W", "max_power_w"),
    ):
        value = requests.limit(talk, asked, name, unit)
        if value:
            talk.say(**{field: value})
    energy.max_current_a = talk.changes.get("max_current_a", energy.max_current_a)
    energy.max_voltage_v = talk.changes.get("max_voltage_v", energy.max_voltage_v)
    energy.max_export_a = _discharge_a(talk, asked, FAILED)


def _dynamic_target(talk: Talk, asked: Tree) -> tuple[float, float]:
    """Voltage and current of dynamic control: export where the back end asks for it, else what both can.

    The voltage is the vehicle's present maximum, or its minimum while it discharges.
    """
    station, energy = talk.station, talk.energy
    _, current_a, power_w = station.announced()
    export_a, export_w = station.announced_export()
    voltage_v = max(station.voltage_v, 1.0)
    wanted_w = -station.backend_min_power_w
    if bidirectional(talk) and wanted_w > 0.0 and export_a > 0.0:
        most_a = min(export_a, energy.max_export_a, min(export_w, wanted_w) / voltage_v)
        return requests.limit(talk, asked, "EVMinimumVoltage", "V") or 0.0, -most_a
    vehicle_a = requests.limit(talk, asked, "EVMaximumChargeCurrent", "A") or 0.0
    return energy.max_voltage_v, min(current_a, vehicle_a, power_w / voltage_v)


def welding_detection(talk: Talk, body: Tree) -> Answer:
    talk.say(phase=Link.WELDING_CHECK)
    return Answer({"EVSEPresentVoltage": rational(talk.station.voltage_v)})


def session_stop(talk: Talk, body: Tree) -> Answer:
    """A vehicle that has charged and stopped by itself may choose its service anew ([V2G20-1477])."""
    wish = body["ChargingSession"]
    if wish != "ServiceRenegotiation":
        return shared.session_stop(talk, {}, pause=wish == "Pause")
    energy = talk.energy
    if talk.settings.device or not (energy.transferred and energy.stopped) or talk.station.stop_requested:
        text = "the vehicle wants to choose its service again where it may not"
        raise Refused("FAILED_NoServiceRenegotiationSupported", Code.V2G_SEQUENCE, text, bad=True)
    energy.renegotiate(talk)
    energy.transferred = energy.stopped = False
    talk.say(bidirectional=False)
    return Answer({}, "again")


def rows(device: bool) -> dict[str, Row]:
    """The table; with an automated connection device its requests stand between (``acdp.py``)."""
    before, after = ("ACDP_VehiclePositioningReq ", " ACDP_DisconnectReq") if device else ("", "")
    contact = "ACDP_ConnectReq" if device else "DC_CableCheckReq"
    return {
        "SessionSetupReq": row(session_setup, "8.3.4.3.2", f"{before}SessionSetupReq AuthorizationSetupReq"),
        "AuthorizationSetupReq": row(authorization_setup, "8.3.4.3.3", "AuthorizationSetupReq AuthorizationReq"),
        "AuthorizationReq": row(
            authorization, "8.3.4.3.4", ongoing="AuthorizationReq", finished="AuthorizationReq ServiceDiscoveryReq"
        ),
        "ServiceDiscoveryReq": row(
            service_discovery, "8.3.4.3.5", "ServiceDiscoveryReq ServiceDetailReq ServiceSelectionReq"
        ),
        "ServiceDetailReq": row(service_detail, "8.3.4.3.6", "ServiceDetailReq ServiceSelectionReq"),
        "ServiceSelectionReq": row(service_selection, "8.3.4.3.7", "DC_ChargeParameterDiscoveryReq"),
        "DC_ChargeParameterDiscoveryReq": row(charge_parameters, "8.3.4.5.2", "ScheduleExchangeReq"),
        "ScheduleExchangeReq": row(
            schedule_exchange,
            "8.3.4.3.8",
            ongoing="ScheduleExchangeReq",
            finished=f"ScheduleExchangeReq {contact}",
            renegotiated="PowerDeliveryReq",
        ),
        "DC_CableCheckReq": row(cable_check, "8.3.4.5.3", ongoing="DC_CableCheckReq", finished="DC_PreChargeReq"),
        "DC_PreChargeReq": row(
            pre_charge, "8.3.4.5.4", ongoing="DC_PreChargeReq", finished="DC_PreChargeReq PowerDeliveryReq"
        ),
        "PowerDeliveryReq": row(
            power_delivery,
            "8.3.4.3.9",
            ongoing="PowerDeliveryReq",
            loop="DC_ChargeLoopReq PowerDeliveryReq",
            renegotiate="ScheduleExchangeReq",
            stop=f"DC_WeldingDetectionReq SessionStopReq{after}",
        ),
        "DC_ChargeLoopReq": row(charge_loop, "8.3.4.5.5", "DC_ChargeLoopReq PowerDeliveryReq"),
        "DC_WeldingDetectionReq": row(welding_detection, "8.3.4.5.6", f"DC_WeldingDetectionReq SessionStopReq{after}"),
        "SessionStopReq": row(session_stop, "8.3.4.3.10", **{"": "", "again": "ServiceDiscoveryReq"}),
    }


def least(request: str, talk: Talk) -> Tree | None:
    """The least that the schema asks of each response beside its code; requests that no row serves among them."""
    zero = rational(0.0)
    chain = {"Certificate": bytes(1)}
    limits = {
        "EVSEMaximumChargePower": zero,
        "EVSEMinimumChargePower": zero,
        "EVSEMaximumChargeCurrent": zero,
        "EVSEMinimumChargeCurrent": zero,
        "EVSEMaximumVoltage": zero,
        "EVSEMinimumVoltage": zero,
    }
    data = {
        "Id": "id1",
        "ContractCertificateChain": {"Certificate": bytes(1), "SubCertificates": {"Certificate": [bytes(1)]}},
        "ECDHCurve": "SECP521",
        "DHPublicKey": bytes(133),
        "SECP521_EncryptedPrivateKey": bytes(94),
    }
    table: dict[str, Tree] = {
        "SessionSetupReq": {"EVSEID": talk.settings.evse_id},
        "AuthorizationSetupReq": {
            "AuthorizationServices": ["EIM"],
            "CertificateInstallationService": False,
            "EIM_ASResAuthorizationMode": {},
        },
        "AuthorizationReq": {"EVSEProcessing": "Finished"},
        "ServiceDiscoveryReq": {
            "ServiceRenegotiationSupported": False,
            "EnergyTransferServiceList": {"Service": [{"ServiceID": DC, "FreeService": False}]},
        },
        "ServiceDetailReq": {
            "ServiceID": 0,
            "ServiceParameterList": {
                "ParameterSet": [{"ParameterSetID": 0, "Parameter": [{"Name": "none", "intValue": 0}]}]
            },
        },
        "ServiceSelectionReq": {},
        "DC_ChargeParameterDiscoveryReq": {"DC_CPDResEnergyTransferMode": limits},
        "ScheduleExchangeReq": {"EVSEProcessing": "Finished", "Dynamic_SEResControlMode": {}},
        "DC_CableCheckReq": {"EVSEProcessing": "Finished"},
        "DC_PreChargeReq": {"EVSEPresentVoltage": zero},
        "PowerDeliveryReq": {},
        "DC_ChargeLoopReq": {
            "EVSEPresentCurrent": zero,
            "EVSEPresentVoltage": zero,
            "EVSEPowerLimitAchieved": False,
            "EVSECurrentLimitAchieved": False,
            "EVSEVoltageLimitAchieved": False,
            "Scheduled_DC_CLResControlMode": {},
        },
        "DC_WeldingDetectionReq": {"EVSEPresentVoltage": zero},
        "SessionStopReq": {},
        "MeteringConfirmationReq": {},
        "VehicleCheckInReq": {},
        "VehicleCheckOutReq": {"EVSECheckOutStatus": "Completed"},
        "CertificateInstallationReq": {
            "EVSEProcessing": "Finished",
            "CPSCertificateChain": chain,
            "SignedInstallationData": data,
            "RemainingContractCertificateChains": 0,
        },
    }
    return table.get(request)


DIALECT = Dialect(
    name="iso15118-20",
    rows=rows(device=False),
    first=frozenset({"SessionSetupReq"}),
    least=least,
    unpack=unpack,
    pack=pack,
)
