"""DIN 70121: what each request is answered with, and what may follow it.

DIN 70121 is the older sister of ISO 15118-2: DC charging with DC_extended, external identification, no TLS, no pause.
Its messages differ in names (ContractAuthenticationReq, ServicePaymentSelectionReq) and in a few fields.
"""

from __future__ import annotations

from robot_charger.common.faults import Code
from robot_charger.v2g.secc import answers, iso2, requests, shared
from robot_charger.v2g.secc.answers import physical
from robot_charger.v2g.secc.table import FAILED, Answer, Dialect, Refused, Talk, Tree, Wait, row
from robot_charger.words.values import Link

SCHEMA = "din70121"
MODE = "DC_extended"
CHARGE_SERVICE = {
    "ServiceTag": {"ServiceID": 1, "ServiceCategory": "EVCharging"},
    "FreeService": False,
    "EnergyTransferType": MODE,
}


def session_setup(talk: Talk, body: Tree) -> Answer:
    assert talk.heard is not None
    if not talk.heard.session_id:
        talk.note("SessionID is empty: taken for no session")
    code = shared.set_up(talk, talk.heard.session_id, body["EVCCID"])
    talk.say(protocol="din70121")
    return Answer({"EVSEID": talk.settings.evse_id_din, "DateTimeNow": int(talk.now.unix_s)}, code=code)


def service_discovery(talk: Talk, body: Tree) -> Answer:
    return Answer({"PaymentOptions": {"PaymentOption": ["ExternalPayment"]}, "ChargeService": CHARGE_SERVICE})


def service_detail(talk: Talk, body: Tree) -> Answer:
    number = body["ServiceID"]
    if number == 1:
        return Answer({"ServiceID": number})
    text = f"the vehicle asks for service {number}, which is not offered"
    raise Refused("FAILED_ServiceIDInvalid", Code.V2G_SEQUENCE, text, keep={"ServiceID": number})


def payment_selection(talk: Talk, body: Tree) -> Answer:
    talk.say(phase=Link.SESSION)
    if body["SelectedPaymentOption"] != "ExternalPayment":
        text = "the vehicle chose payment by contract, which is not offered"
        raise Refused("FAILED_PaymentSelectionInvalid", Code.V2G_SEQUENCE, text)
    if {entry["ServiceID"] for entry in body["SelectedServiceList"]["SelectedService"]} != {1}:
        text = "the vehicle chose a service that is not offered"
        raise Refused("FAILED_ServiceSelectionInvalid", Code.V2G_SEQUENCE, text)
    return Answer({})


def contract_authentication(talk: Talk, body: Tree) -> Answer:
    done = shared.authorized(talk)
    return Answer({"EVSEProcessing": "Finished" if done else "Ongoing"}, "finished" if done else "ongoing")


def charge_parameters(talk: Talk, body: Tree) -> Answer:
    talk.say(phase=Link.PARAMETERS)
    if body["EVRequestedEnergyTransferType"] != MODE:
        text = f"the vehicle asks for {body['EVRequestedEnergyTransferType']}, this station has {MODE}"
        raise Refused("FAILED_WrongEnergyTransferType", Code.V2G_SEQUENCE, text)
    parameter = body.get("DC_EVChargeParameter")
    if parameter is None:
        text = f"the vehicle asks for {MODE} with parameters of another type"
        raise Refused(iso2.WRONG_PARAMETER, Code.V2G_SEQUENCE, text)
    iso2.charge_limits(talk, parameter)
    ready = iso2.power_ready(talk)
    fields = {
        "EVSEProcessing": "Finished" if ready else "Ongoing",
        "SAScheduleList": answers.schedule_din(talk.station.max_power_w if ready else 0.0),
        "DC_EVSEChargeParameter": answers.dc_charge_parameter(talk),
    }
    return Answer(fields, "finished" if ready else "ongoing")


def power_delivery(talk: Talk, body: Tree) -> Answer | Wait:
    """ReadyToChargeState true starts, false stops."""
    iso2.ev_status(talk, body.get("DC_EVPowerDeliveryParameter", {}))
    if not body["ReadyToChargeState"]:
        return shared.stop(talk, lambda later: _delivery(later, "stop"), FAILED)
    if talk.energy.charging:
        raise Refused(FAILED, Code.V2G_SEQUENCE, "PowerDeliveryReq(true) came in the charge loop", bad=True)
    for entry in body.get("ChargingProfile", {}).get("ProfileEntry", []):
        if entry["ChargingProfileEntryMaxPower"] < 0:
            why = f"is {entry['ChargingProfileEntryMaxPower']} W, which cannot be"
            raise requests.refusal(talk, "ChargingProfileEntryMaxPower", why, "FAILED_ChargingProfileInvalid")
    return shared.start(talk, lambda later: _delivery(later, "start"), FAILED, iso2.NOT_APPLIED)


def _delivery(talk: Talk, outcome: str) -> Answer:
    return Answer({"DC_EVSEStatus": answers.dc_status(talk)}, outcome)


def current_demand(talk: Talk, body: Tree) -> Answer:
    return Answer(iso2.loop_demand(talk, body))


def session_stop(talk: Talk, body: Tree) -> Answer:
    return shared.session_stop(talk, {})


ROWS = {
    "SessionSetupReq": row(session_setup, "9.4.1.2", "SessionSetupReq ServiceDiscoveryReq"),
    "ServiceDiscoveryReq": row(
        service_discovery, "9.4.1.3", "ServiceDiscoveryReq ServiceDetailReq ServicePaymentSelectionReq"
    ),
    "ServiceDetailReq": row(service_detail, "9.4.1.3", "ServiceDetailReq ServicePaymentSelectionReq"),
    "ServicePaymentSelectionReq": row(payment_selection, "9.4.1.4", "ContractAuthenticationReq"),
    "ContractAuthenticationReq": row(
        contract_authentication,
        "9.4.1.5",
        ongoing="ContractAuthenticationReq",
        finished="ChargeParameterDiscoveryReq",
    ),
    "ChargeParameterDiscoveryReq": row(
        charge_parameters, "9.4.1.6", ongoing="ChargeParameterDiscoveryReq", finished="CableCheckReq"
    ),
    "CableCheckReq": row(iso2.cable_check, "9.4.2.2", ongoing="CableCheckReq", finished="PreChargeReq"),
    "PreChargeReq": row(iso2.pre_charge, "9.4.2.3", "PreChargeReq PowerDeliveryReq"),
    "PowerDeliveryReq": row(
        power_delivery,
        "9.4.1.7",
        start="CurrentDemandReq PowerDeliveryReq",
        stop="WeldingDetectionReq SessionStopReq",
    ),
    "CurrentDemandReq": row(current_demand, "9.4.2.4", "CurrentDemandReq PowerDeliveryReq"),
    "WeldingDetectionReq": row(iso2.welding_detection, "9.4.2.5", "WeldingDetectionReq SessionStopReq"),
    "SessionStopReq": row(session_stop, "9.4.1.8", ""),
}


def least(request: str, talk: Talk) -> Tree | None:
    """The least that the schema asks of each response beside its code; requests that no row serves among them."""
    status = answers.dc_status(talk)
    table: dict[str, Tree] = {
        "SessionSetupReq": {"EVSEID": talk.settings.evse_id_din},
        "ServiceDiscoveryReq": {
            "PaymentOptions": {"PaymentOption": ["ExternalPayment"]},
            "ChargeService": CHARGE_SERVICE,
        },
        "ServiceDetailReq": {"ServiceID": 1},
        "ContractAuthenticationReq": {"EVSEProcessing": "Finished"},
        "ChargeParameterDiscoveryReq": {
            "EVSEProcessing": "Finished",
            "SAScheduleList": answers.schedule_din(0.0),
            "DC_EVSEChargeParameter": answers.dc_charge_parameter(talk),
        },
        "CableCheckReq": {"DC_EVSEStatus": status, "EVSEProcessing": "Finished"},
        "PreChargeReq": {"DC_EVSEStatus": status, "EVSEPresentVoltage": physical(0.0, "V")},
        "PowerDeliveryReq": {"DC_EVSEStatus": status},
        "CurrentDemandReq": {
            "DC_EVSEStatus": status,
            "EVSEPresentVoltage": physical(0.0, "V"),
            "EVSEPresentCurrent": physical(0.0, "A"),
            "EVSECurrentLimitAchieved": False,
            "EVSEVoltageLimitAchieved": False,
            "EVSEPowerLimitAchieved": False,
        },
        "WeldingDetectionReq": {"DC_EVSEStatus": status, "EVSEPresentVoltage": physical(0.0, "V")},
        "ServicePaymentSelectionReq": {},
        "SessionStopReq": {},
    }
    return table.get(request)


DIALECT = Dialect(
    name="din70121",
    rows=ROWS,
    first=frozenset({"SessionSetupReq"}),
    least=least,
    unpack=lambda payload_type, payload: iso2.unpack(SCHEMA, payload_type, payload),
    pack=lambda name, fields, talk: iso2.pack(SCHEMA, name, fields, talk),
)
