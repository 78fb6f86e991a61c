"""ISO 15118-2, DC charging: what each request is answered with, and what may follow it.

Sequence: ISO 15118-2 8.8; response codes: 8.6 and table 112; time-outs: table 109. Direct current with DC_extended
only: another energy transfer mode is refused. Plug and Charge (8.4.3) needs TLS; its checks are in ``contract.py``.
"""

from __future__ import annotations

from robot_charger.common.faults import Code
from robot_charger.v2g import v2gtp
from robot_charger.v2g.exi import ExiDecodeError, decode
from robot_charger.v2g.secc import answers, contract, requests, shared
from robot_charger.v2g.secc.answers import physical
from robot_charger.v2g.secc.table import FAILED, Answer, Dialect, Heard, Refused, Talk, Tree, Wait, row
from robot_charger.words.values import Link

SCHEMA = "iso15118_2"
MODE = "DC_extended"
WRONG_MODE = "FAILED_WrongEnergyTransferMode"
WRONG_PARAMETER = "FAILED_WrongChargeParameter"
NOT_APPLIED = "FAILED_PowerDeliveryNotApplied"
CONTACTOR = "FAILED_ContactorError"
CHARGE_SERVICE = 1


def unpack(schema: str, payload_type: int, payload: bytes) -> Heard:
    """A request in the envelope of DIN 70121 and ISO 15118-2. Raises ExiError."""
    if payload_type != v2gtp.EXI:
        raise ExiDecodeError(f"the V2GTP payload type is {payload_type:#06x} instead of {v2gtp.EXI:#06x}", 0)
    tree = decode(payload, schema)
    message = tree.get("V2G_Message")
    if message is None or not message["Body"]:
        raise ExiDecodeError("the message has no body", 0)
    ((name, body),) = message["Body"].items()
    header = message["Header"]
    return Heard(name, header["SessionID"], header, body, tree, payload)


def pack(schema: str, name: str, fields: Tree, talk: Talk) -> tuple[int, str, Tree]:
    """A response in that envelope."""
    return v2gtp.EXI, schema, {"V2G_Message": {"Header": {"SessionID": talk.session_id}, "Body": {name: fields}}}


def ev_status(talk: Talk, body: Tree, refuse: bool = False) -> None:
    """DC_EVStatus of a request: state of charge and error."""
    status = body.get("DC_EVStatus")
    if status is None:
        return
    state = requests.soc(talk, status, "EVRESSSOC")
    if state is not None:
        talk.say(soc=state)
    shared.vehicle_error(talk, status["EVErrorCode"], refuse)


def charge_limits(talk: Talk, parameter: Tree) -> None:
    """DC_EVChargeParameter: the vehicle's limits, and what it says of its battery. Raises Refused."""
    energy = talk.energy
    energy.max_current_a = requests.limit(talk, parameter, "EVMaximumCurrentLimit", "A", WRONG_PARAMETER) or 0.0
    energy.max_voltage_v = requests.limit(talk, parameter, "EVMaximumVoltageLimit", "V", WRONG_PARAMETER) or 0.0
    power_w = requests.limit(talk, parameter, "EVMaximumPowerLimit", "W", WRONG_PARAMETER) or 0.0
    if energy.max_voltage_v == 0.0:
        talk.note("the vehicle states a maximum voltage of 0 V")
    talk.facts["energy_request_wh"] = requests.told(talk, parameter, "EVEnergyRequest", requests.WATT_HOURS)
    talk.say(
        max_voltage_v=energy.max_voltage_v,
        max_current_a=energy.max_current_a,
        max_power_w=power_w,
        energy_capacity_wh=requests.told(talk, parameter, "EVEnergyCapacity", requests.WATT_HOURS) or 0.0,
    )
    ev_status(talk, parameter)


def loop_demand(talk: Talk, body: Tree) -> Tree:
    """CurrentDemandReq of DIN and -2: set-points to the supply, fields of the response. Raises Refused."""
    voltage_v = requests.setpoint(talk, body, "EVTargetVoltage", "V")
    current_a = requests.setpoint(talk, body, "EVTargetCurrent", "A")
    energy = talk.energy
    for name, unit, key in (
        ("EVMaximumVoltageLimit", "V", "max_voltage_v"),
        ("EVMaximumCurrentLimit", "A", "max_current_a"),
        ("EVMaximumPowerLimit", "W", "max_power_w"),
    ):
        value = requests.limit(talk, body, name, unit)
        if value:
            talk.say(**{key: value})
    energy.max_voltage_v = talk.changes.get("max_voltage_v", energy.max_voltage_v)
    energy.max_current_a = talk.changes.get("max_current_a", energy.max_current_a)
    remaining_s = requests.told(talk, body, "RemainingTimeToFullSoC", requests.SECONDS)
    requests.told(talk, body, "RemainingTimeToBulkSoC", requests.SECONDS)
    if remaining_s is not None:
        talk.say(remaining_s=remaining_s)
    ev_status(talk, body)
    energy.transfer(talk, voltage_v, current_a)
    limits = talk.station.announced()
    return {
        "DC_EVSEStatus": answers.dc_status(talk),
        "EVSEPresentVoltage": answers.present_voltage(talk.station),
        "EVSEPresentCurrent": answers.present_current(talk.station),
        **answers.achieved(talk.station, limits, voltage_v, current_a),
        **answers.loop_limits(limits),
    }


def power_ready(talk: Talk) -> bool:
    """The supply can say what it gives; else ChargeParameterDiscovery is Ongoing with a power of 0."""
    return talk.station.supply_available or talk.stopping


# The rows.
def session_setup(talk: Talk, body: Tree) -> Answer:
    assert talk.heard is not None
    if not talk.heard.session_id:
        talk.note("SessionID is empty: taken for no session")
    code = shared.set_up(talk, talk.heard.session_id, body["EVCCID"])
    talk.say(protocol="iso15118-2")
    return Answer({"EVSEID": talk.settings.evse_id, "EVSETimeStamp": int(talk.now.unix_s)}, code=code)


def service_discovery(talk: Talk, body: Tree) -> Answer:
    options = ["Contract", "ExternalPayment"] if talk.settings.pnc else ["ExternalPayment"]
    fields: Tree = {
        "PaymentOptionList": {"PaymentOption": options},
        "ChargeService": {
            "ServiceID": CHARGE_SERVICE,
            "ServiceName": "AC_DC_Charging",
            "ServiceCategory": "EVCharging",
            "FreeService": False,
            "SupportedEnergyTransferMode": {"EnergyTransferMode": [MODE]},
        },
    }
    if contract.offered(talk):
        fields["ServiceList"] = {"Service": [contract.SERVICE]}
    return Answer(fields)


def service_detail(talk: Talk, body: Tree) -> Answer:
    number = body["ServiceID"]
    if number == contract.SERVICE["ServiceID"] and contract.offered(talk):
        return Answer({"ServiceID": number, "ServiceParameterList": contract.PARAMETER_LIST})
    if number == CHARGE_SERVICE:
        return Answer({"ServiceID": number})
    text = f"the vehicle asks for service {number}, which is not offered"
    raise Refused("FAILED_ServiceIDInvalid", Code.V2G_SEQUENCE, text, keep={"ServiceID": number})


def payment_selection(talk: Talk, body: Tree) -> Answer:
    chosen = body["SelectedPaymentOption"]
    talk.say(phase=Link.SESSION)
    services = {entry["ServiceID"] for entry in body["SelectedServiceList"]["SelectedService"]}
    installs = contract.SERVICE["ServiceID"] in services
    if CHARGE_SERVICE not in services:
        raise Refused("FAILED_NoChargeServiceSelected", Code.V2G_SEQUENCE, "the vehicle chose no charge service")
    if services - {CHARGE_SERVICE, contract.SERVICE["ServiceID"]} or (installs and not contract.offered(talk)):
        text = "the vehicle chose a service that is not offered"
        raise Refused("FAILED_ServiceSelectionInvalid", Code.V2G_SEQUENCE, text)
    talk.facts["pnc"] = False
    if chosen == "ExternalPayment":
        return Answer({}, "external")
    if not talk.settings.pnc:
        text = "the vehicle chose Plug and Charge, which is not offered"
        raise Refused("FAILED_PaymentSelectionInvalid", Code.V2G_SEQUENCE, text)
    talk.facts["pnc"] = True
    return Answer({}, "contract and certificate" if contract.offered(talk) else "contract")


def payment_details(talk: Talk, body: Tree) -> Answer:
    contract.accept(talk, body["eMAID"], body["ContractSignatureCertChain"])
    talk.facts["challenge"] = talk.settings.random(16)
    return Answer({"GenChallenge": talk.facts["challenge"], "EVSETimeStamp": int(talk.now.unix_s)})


def authorization(talk: Talk, body: Tree) -> Answer:
    if talk.facts.get("pnc"):
        contract.prove(talk, body)
    if shared.authorized(talk):
        return Answer({"EVSEProcessing": "Finished"}, "finished")
    # [V2G2-854]: with external identification a person has to act.
    ongoing = "Ongoing" if talk.facts.get("pnc") else "Ongoing_WaitingForCustomerInteraction"
    return Answer({"EVSEProcessing": ongoing}, "ongoing")


def charge_parameters(talk: Talk, body: Tree) -> Answer:
    talk.say(phase=Link.PARAMETERS)
    if body["RequestedEnergyTransferMode"] != MODE:
        text = f"the vehicle asks for {body['RequestedEnergyTransferMode']}, this station has {MODE}"
        raise Refused(WRONG_MODE, Code.V2G_SEQUENCE, text)
    parameter = body.get("DC_EVChargeParameter")
    if parameter is None:  # [V2G2-477]
        raise Refused(
            WRONG_PARAMETER, Code.V2G_SEQUENCE, f"the vehicle asks for {MODE} with parameters of another mode"
        )
    charge_limits(talk, parameter)
    fields: Tree = {"EVSEProcessing": "Ongoing", "DC_EVSEChargeParameter": answers.dc_charge_parameter(talk)}
    if not power_ready(talk):
        return Answer(fields | {"SAScheduleList": answers.schedule(0.0)}, "ongoing")
    listed = answers.schedule(talk.station.max_power_w, parameter.get("DepartureTime", 0))
    return Answer(fields | {"EVSEProcessing": "Finished", "SAScheduleList": listed}, "finished")


def cable_check(talk: Talk, body: Tree) -> Answer:
    ev_status(talk, body, refuse=True)
    done = shared.insulated(talk)
    fields = {"DC_EVSEStatus": answers.dc_status(talk), "EVSEProcessing": "Finished" if done else "Ongoing"}
    return Answer(fields, "finished" if done else "ongoing")


def pre_charge(talk: Talk, body: Tree) -> Answer:
    ev_status(talk, body, refuse=True)
    voltage_v = requests.setpoint(talk, body, "EVTargetVoltage", "V")
    shared.precharge(talk, voltage_v, requests.setpoint(talk, body, "EVTargetCurrent", "A"))
    return Answer(
        {"DC_EVSEStatus": answers.dc_status(talk), "EVSEPresentVoltage": answers.present_voltage(talk.station)}
    )


def power_delivery(talk: Talk, body: Tree) -> Answer | Wait:
    """Start and Renegotiate are refused with FAILED where they make no sense ([V2G2-812], [V2G2-813])."""
    progress, charging = body["ChargeProgress"], talk.energy.charging
    ev_status(talk, body.get("DC_EVPowerDeliveryParameter", {}))
    if progress == "Stop":
        return shared.stop(talk, lambda later: _delivery(later, "stop"), CONTACTOR)
    if charging != (progress == "Renegotiate"):
        when = "in" if charging else "outside of"
        raise Refused(FAILED, Code.V2G_SEQUENCE, f"PowerDeliveryReq({progress}) came {when} the charge loop", bad=True)
    if progress == "Renegotiate":
        talk.energy.renegotiate(talk)
        return shared.opened(talk, lambda later: _delivery(later, "renegotiate"), CONTACTOR)
    if body["SAScheduleTupleID"] != 1:
        text = f"the vehicle chose schedule {body['SAScheduleTupleID']}, offered is 1"
        raise Refused("FAILED_TariffSelectionInvalid", Code.V2G_SEQUENCE, text)
    for entry in body.get("ChargingProfile", {}).get("ProfileEntry", []):
        requests.limit(talk, entry, "ChargingProfileEntryMaxPower", "W", "FAILED_ChargingProfileInvalid")
    talk.facts["receipt_ns"] = talk.now.ns
    return shared.start(talk, lambda later: _delivery(later, "start"), CONTACTOR, NOT_APPLIED)


def _delivery(talk: Talk, outcome: str) -> Answer:
    return Answer({"DC_EVSEStatus": answers.dc_status(talk)}, outcome)


def current_demand(talk: Talk, body: Tree) -> Answer:
    fields = loop_demand(talk, body) | {"EVSEID": talk.settings.evse_id, "SAScheduleTupleID": 1}
    reading = answers.meter_info(talk.station)
    if reading is not None:
        fields["MeterInfo"] = talk.facts["meter"] = reading
    due = reading is not None and contract.receipt_due(talk)
    fields["ReceiptRequired"] = due
    return Answer(fields, "receipt" if due else "loop")


def metering_receipt(talk: Talk, body: Tree) -> Answer:
    contract.check_receipt(talk, body)
    return Answer({"DC_EVSEStatus": answers.dc_status(talk)})


def welding_detection(talk: Talk, body: Tree) -> Answer:
    talk.say(phase=Link.WELDING_CHECK)
    ev_status(talk, body)
    return Answer(
        {"DC_EVSEStatus": answers.dc_status(talk), "EVSEPresentVoltage": answers.present_voltage(talk.station)}
    )


def session_stop(talk: Talk, body: Tree) -> Answer:
    return shared.session_stop(talk, {}, pause=body["ChargingSession"] == "Pause")


CERTIFICATE = "CertificateInstallationReq CertificateUpdateReq"
ROWS = {
    "SessionSetupReq": row(session_setup, "8.4.3.2", "SessionSetupReq ServiceDiscoveryReq"),
    "ServiceDiscoveryReq": row(
        service_discovery, "8.4.3.3", "ServiceDiscoveryReq ServiceDetailReq PaymentServiceSelectionReq"
    ),
    "ServiceDetailReq": row(service_detail, "8.4.3.4", "ServiceDetailReq PaymentServiceSelectionReq"),
    "PaymentServiceSelectionReq": row(
        payment_selection,
        "8.4.3.5",
        **{
            "external": "PaymentServiceSelectionReq AuthorizationReq",
            "contract": "PaymentServiceSelectionReq PaymentDetailsReq",
            "contract and certificate": f"PaymentServiceSelectionReq PaymentDetailsReq {CERTIFICATE}",
        },
    ),
    "CertificateInstallationReq": row(contract.install, "8.4.3.11", "PaymentDetailsReq"),
    "CertificateUpdateReq": row(contract.update, "8.4.3.10", "PaymentDetailsReq"),
    "PaymentDetailsReq": row(payment_details, "8.4.3.6", "AuthorizationReq"),
    "AuthorizationReq": row(
        authorization, "8.4.3.7", ongoing="AuthorizationReq", finished="ChargeParameterDiscoveryReq"
    ),
    "ChargeParameterDiscoveryReq": row(
        charge_parameters, "8.4.3.8", ongoing="ChargeParameterDiscoveryReq", finished="CableCheckReq"
    ),
    "CableCheckReq": row(cable_check, "8.4.5.2", ongoing="CableCheckReq", finished="PreChargeReq"),
    "PreChargeReq": row(pre_charge, "8.4.5.3", "PreChargeReq PowerDeliveryReq"),
    "PowerDeliveryReq": row(
        power_delivery,
        "8.4.3.9",
        start="CurrentDemandReq PowerDeliveryReq",
        renegotiate="ChargeParameterDiscoveryReq",
        stop="WeldingDetectionReq SessionStopReq",
    ),
    "CurrentDemandReq": row(
        current_demand, "8.4.5.4", loop="CurrentDemandReq PowerDeliveryReq", receipt="MeteringReceiptReq"
    ),
    "MeteringReceiptReq": row(metering_receipt, "8.4.3.13", "CurrentDemandReq PowerDeliveryReq"),
    "WeldingDetectionReq": row(welding_detection, "8.4.5.5", "WeldingDetectionReq SessionStopReq"),
    "SessionStopReq": row(session_stop, "8.4.3.12", ""),
}


def least(request: str, talk: Talk) -> Tree | None:
    """The least that the schema asks of each response beside its code; requests that no row serves among them."""
    status = answers.dc_status(talk)
    zero_v, zero_a = physical(0.0, "V"), physical(0.0, "A")
    chains = {
        "SAProvisioningCertificateChain": {"Certificate": bytes(1)},
        "ContractSignatureCertChain": {"Id": "id1", "Certificate": bytes(1)},
        "ContractSignatureEncryptedPrivateKey": {"Id": "id2", "value": bytes(1)},
        "DHpublickey": {"Id": "id3", "value": bytes(1)},
        "eMAID": {"Id": "id4", "value": "ZZZZZZZZZZZZZZ"},
    }
    table: dict[str, Tree] = {
        "SessionSetupReq": {"EVSEID": talk.settings.evse_id},
        "ServiceDiscoveryReq": {
            "PaymentOptionList": {"PaymentOption": ["ExternalPayment"]},
            "ChargeService": {
                "ServiceID": CHARGE_SERVICE,
                "ServiceCategory": "EVCharging",
                "FreeService": False,
                "SupportedEnergyTransferMode": {"EnergyTransferMode": [MODE]},
            },
        },
        "ServiceDetailReq": {"ServiceID": CHARGE_SERVICE},
        "CertificateInstallationReq": chains,
        "CertificateUpdateReq": chains,
        "PaymentDetailsReq": {"GenChallenge": bytes(16), "EVSETimeStamp": int(talk.now.unix_s)},
        "AuthorizationReq": {"EVSEProcessing": "Finished"},
        "ChargeParameterDiscoveryReq": {
            "EVSEProcessing": "Finished",
            "DC_EVSEChargeParameter": answers.dc_charge_parameter(talk),
        },
        "CableCheckReq": {"DC_EVSEStatus": status, "EVSEProcessing": "Finished"},
        "PreChargeReq": {"DC_EVSEStatus": status, "EVSEPresentVoltage": zero_v},
        "PowerDeliveryReq": {"DC_EVSEStatus": status},
        "CurrentDemandReq": {
            "DC_EVSEStatus": status,
            "EVSEPresentVoltage": zero_v,
            "EVSEPresentCurrent": zero_a,
            "EVSECurrentLimitAchieved": False,
            "EVSEVoltageLimitAchieved": False,
            "EVSEPowerLimitAchieved": False,
            "EVSEID": talk.settings.evse_id,
            "SAScheduleTupleID": 1,
        },
        "MeteringReceiptReq": {"DC_EVSEStatus": status},
        "WeldingDetectionReq": {"DC_EVSEStatus": status, "EVSEPresentVoltage": zero_v},
        "PaymentServiceSelectionReq": {},
        "SessionStopReq": {},
        "ChargingStatusReq": {
            "EVSEID": talk.settings.evse_id,
            "SAScheduleTupleID": 1,
            "AC_EVSEStatus": {"NotificationMaxDelay": 0, "EVSENotification": "None", "RCD": False},
        },
    }
    return table.get(request)


DIALECT = Dialect(
    name="iso15118-2",
    rows=ROWS,
    first=frozenset({"SessionSetupReq"}),
    least=least,
    unpack=lambda payload_type, payload: unpack(SCHEMA, payload_type, payload),
    pack=lambda name, fields, talk: pack(SCHEMA, name, fields, talk),
)
