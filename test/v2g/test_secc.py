"""Sessions of the tables as transcripts: these requests, expect those answers. Oddities are bytes of real cars."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import secc_messages as messages
from replay import with_session_id
from secc_desk import SUPPLY, Desk, Supply, always, code, fields, hello
from secc_messages import DEMAND, LIMITS, PRECHARGE, pv

from robot_charger.common.faults import Code
from robot_charger.words.values import Insulation, Link, Purpose, Shutdown

EMPTY_ID = "80980011d01808000000000400"  # SessionSetupReq of -2, SessionID as text of length 0
EMPTY_ID_AT_ONCE = "809844740602000000000100"  # the same, the element ends at once
MINUTES_DIN = "809a02000000000000000010d1400cc080c3980402050d7260080c380484003010d804110287b10800"
MINUTES_2 = "809802000000000000000010d1001981061cc0201081ae4c01061c0242001821b00822103d8840"
AC_WITH_DC_LIMITS = "809802000000000000000010944a000000418500f88840be1f13185000"
DC_CORE = "809a020000000000000000107110000004604061383022050c040132050000"
SPARE_BYTES = "809a02202c9fff3e37b3d3d0b800"  # DIN, another session's id and a byte too many

UNTIL = {
    "din70121": [name for name in messages.DIN if name not in ("ServiceDetailReq",)],
    "iso15118-2": [name for name in messages.ISO2 if name not in ("ServiceDetailReq",)],
}
POLLED = ("AuthorizationReq", "ContractAuthenticationReq", "CableCheckReq")


def begin(protocol: str, **changes: Any) -> Desk:
    desk = Desk(replace(always(), protocols=(protocol,), **changes.pop("settings", {})), Supply(**changes))
    schema = messages.SCHEMAS[protocol]
    assert code(desk.send(hello(schema))) == "OK_SuccessfulNegotiation"
    return desk


def ask(desk: Desk, name: str, body: Any = None, session_id: str | None = None) -> Any:
    """One request of the protocol of ``desk``; the reply."""
    protocol = desk.machine.protocol
    chosen = messages.REQUESTS[protocol][name][0] if body is None else body
    kind, exi = messages.message(protocol, name, chosen, session_id or desk.machine.talk.session_id)
    return desk.send(exi, kind)


def go(desk: Desk, last: str) -> Any:
    """An ordinary session up to ``last``, whose final reply is returned."""
    for name in UNTIL[desk.machine.protocol]:
        reply = ask(desk, name)
        while name in POLLED and fields(reply).get("EVSEProcessing", "").startswith("Ongoing"):
            desk.wait(0.1)
            reply = ask(desk, name)
        if name == "PreChargeReq":
            desk.wait(0.1)
            reply = ask(desk, name)
        assert code(reply).startswith("OK"), (name, reply.fault)
        if name == last:
            return reply
    raise AssertionError(last)


@pytest.mark.parametrize("protocol", list(UNTIL))
def test_a_session(protocol: str) -> None:
    desk = begin(protocol)
    go(desk, "CurrentDemandReq")
    assert (desk.vehicle.phase, desk.vehicle.purpose) == (Link.CHARGING, Purpose.TRANSFER)
    assert (desk.vehicle.voltage_v, desk.vehicle.current_a) == (400.0, 120.0)
    assert desk.vehicle.max_voltage_v == 450.0 and desk.vehicle.soc == 40.0
    desk.wait(0.1)
    answer = fields(ask(desk, "CurrentDemandReq"))
    assert answer["EVSEPresentCurrent"] == pv(120.0, "A", -2)
    stop = messages.REQUESTS[protocol]["PowerDeliveryReq"][1]
    assert code(ask(desk, "PowerDeliveryReq", stop)) == "OK"
    assert code(ask(desk, "WeldingDetectionReq")) == "OK"
    reply = ask(desk, "SessionStopReq")
    assert reply.end.in_order and reply.end.text == "ended in order"
    wanted = [Purpose.NONE, Purpose.INSULATION_TEST, Purpose.NONE, Purpose.PRECHARGE, Purpose.TRANSFER, Purpose.NONE]
    assert [purpose for _, purpose in desk.purposes] == wanted


def test_optional_fields_are_filled() -> None:
    desk = begin("iso15118-2")
    parameter = fields(go(desk, "ChargeParameterDiscoveryReq"))["DC_EVSEChargeParameter"]
    assert parameter["EVSECurrentRegulationTolerance"] == pv(2.5, "A", -1)
    assert parameter["EVSEEnergyToBeDelivered"]["Value"] > 0
    desk = begin("din70121", station=replace(SUPPLY, max_current_a=100.0))
    assert fields(go(desk, "CurrentDemandReq"))["EVSECurrentLimitAchieved"] is True
    assert desk.vehicle.current_a == 100.0  # clamped to what the supply can


@pytest.mark.parametrize("exi", [EMPTY_ID, EMPTY_ID_AT_ONCE])
def test_an_empty_session_id_is_a_new_session(exi: str) -> None:
    desk = begin("iso15118-2")
    reply = desk.send(bytes.fromhex(exi))
    assert code(reply) == "OK_NewSessionEstablished"
    assert reply.notes == ["SessionID is empty: taken for no session"]


@pytest.mark.parametrize(("protocol", "exi"), [("din70121", MINUTES_DIN), ("iso15118-2", MINUTES_2)])
def test_a_remaining_time_in_minutes_is_taken(protocol: str, exi: str) -> None:
    desk = begin(protocol)
    go(desk, "CurrentDemandReq")
    reply = desk.send(with_session_id(bytes.fromhex(exi), desk.machine.talk.session_id))
    assert code(reply) == "OK"
    assert "CurrentDemandReq/RemainingTimeToFullSoC is in m" in reply.notes
    assert desk.vehicle.remaining_s % 60 == 0 and desk.vehicle.remaining_s > 0


@pytest.mark.parametrize(
    ("protocol", "exi", "said"),
    [
        ("iso15118-2", AC_WITH_DC_LIMITS, "FAILED_WrongEnergyTransferMode"),
        ("din70121", DC_CORE, "FAILED_WrongEnergyTransferType"),
    ],
)
def test_another_energy_transfer_is_answered(protocol: str, exi: str, said: str) -> None:
    desk = begin(protocol)
    go(desk, {"din70121": "ContractAuthenticationReq"}.get(protocol, "AuthorizationReq"))
    reply = desk.send(with_session_id(bytes.fromhex(exi), desk.machine.talk.session_id))
    assert code(reply) == said and reply.end is not None
    assert "this station has DC_extended" in reply.fault


INFORMS = {
    "a remaining time in ampere": {"RemainingTimeToFullSoC": pv(5, "A")},
    "a negative remaining time": {"RemainingTimeToFullSoC": pv(-1, "s")},
    "a remaining time in hours": {"RemainingTimeToBulkSoC": pv(1, "h")},
    "a multiplier of 4": {"RemainingTimeToBulkSoC": {"Multiplier": 3, "Unit": "s", "Value": 32_000}},
}


@pytest.mark.parametrize("protocol", list(UNTIL))
@pytest.mark.parametrize("what", list(INFORMS))
def test_what_only_informs_may_be_odd(protocol: str, what: str) -> None:
    desk = begin(protocol)
    go(desk, "CurrentDemandReq")
    assert code(ask(desk, "CurrentDemandReq", {**DEMAND, **INFORMS[what]})) == "OK"


def test_an_impossible_state_of_charge_is_noted() -> None:
    desk = begin("iso15118-2")
    go(desk, "CurrentDemandReq")
    reply = ask(desk, "CurrentDemandReq", {**DEMAND, "DC_EVStatus": {**messages.STATUS, "EVRESSSOC": 100}})
    assert desk.vehicle.soc == 100.0 and not reply.notes


LOOP_FAULTS = [
    ("EVTargetVoltage", pv(400, "A"), "has the unit A instead of V"),
    ("EVTargetVoltage", pv(-5, "V"), "is -5 V, which cannot be"),
    ("EVTargetCurrent", pv(5, "W"), "has the unit W instead of A"),
    ("EVMaximumVoltageLimit", pv(400, "W"), "has the unit W instead of V"),
    ("EVMaximumCurrentLimit", pv(-1, "A"), "is -1 A, which cannot be"),
    ("EVMaximumPowerLimit", pv(5, "V"), "has the unit V instead of W"),
]


@pytest.mark.parametrize("protocol", list(UNTIL))
@pytest.mark.parametrize(("name", "value", "why"), LOOP_FAULTS)
def test_a_setpoint_or_limit_is_strict(protocol: str, name: str, value: Any, why: str) -> None:
    desk = begin(protocol)
    go(desk, "CurrentDemandReq")
    reply = ask(desk, "CurrentDemandReq", {**DEMAND, name: value})
    assert code(reply) == "FAILED"
    assert reply.end.code == Code.V2G_DECODE
    assert reply.fault == f"CurrentDemandReq/{name} {why}" == reply.end.text
    assert desk.vehicle.purpose == Purpose.NONE


@pytest.mark.parametrize("protocol", list(UNTIL))
@pytest.mark.parametrize(
    ("name", "value"),
    [("EVMaximumVoltageLimit", pv(400, "A")), ("EVMaximumCurrentLimit", pv(-1, "A"))],
)
def test_a_wrong_limit_in_the_parameters(protocol: str, name: str, value: Any) -> None:
    desk = begin(protocol)
    go(desk, {"din70121": "ContractAuthenticationReq"}.get(protocol, "AuthorizationReq"))
    body = messages.REQUESTS[protocol]["ChargeParameterDiscoveryReq"][0]
    reply = ask(desk, "ChargeParameterDiscoveryReq", {**body, "DC_EVChargeParameter": {**LIMITS, name: value}})
    assert code(reply) == "FAILED_WrongChargeParameter"
    assert reply.fault.startswith(f"ChargeParameterDiscoveryReq/{name} ")


@pytest.mark.parametrize("protocol", list(UNTIL))
def test_what_is_too_high_is_clamped_and_what_is_negative_is_none(protocol: str) -> None:
    desk = begin(protocol)
    go(desk, "CurrentDemandReq")
    much = {**DEMAND, "EVTargetVoltage": pv(5000, "V"), "EVTargetCurrent": pv(9000, "A")}
    assert code(ask(desk, "CurrentDemandReq", much)) == "OK"
    assert (desk.vehicle.voltage_v, desk.vehicle.current_a) == (450.0, 200.0)  # of the vehicle itself
    reply = ask(desk, "CurrentDemandReq", {**DEMAND, "EVTargetCurrent": pv(-5, "A")})
    assert (code(reply), desk.vehicle.current_a) == ("OK", 0.0)
    assert reply.notes == ["CurrentDemandReq/EVTargetCurrent is -5 A: taken for 0 A"]
    assert code(ask(desk, "CurrentDemandReq", {**DEMAND, "EVMaximumVoltageLimit": pv(0, "V")})) == "OK"


@pytest.mark.parametrize("protocol", list(UNTIL))
def test_a_vehicle_without_a_maximum_voltage_gets_no_insulation_test(protocol: str) -> None:
    desk = begin(protocol)
    go(desk, {"din70121": "ContractAuthenticationReq"}.get(protocol, "AuthorizationReq"))
    body = messages.REQUESTS[protocol]["ChargeParameterDiscoveryReq"][0]
    parameter = {**LIMITS, "EVMaximumVoltageLimit": pv(0, "V")}
    assert code(ask(desk, "ChargeParameterDiscoveryReq", {**body, "DC_EVChargeParameter": parameter})) == "OK"
    assert code(ask(desk, "CableCheckReq")) == "FAILED"
    assert desk.purposes == [("supportedAppProtocolReq", Purpose.NONE)]


@pytest.mark.parametrize("protocol", list(UNTIL))
def test_a_start_before_the_output_has_its_voltage(protocol: str) -> None:
    desk = begin(protocol)
    go(desk, "CableCheckReq")
    assert code(ask(desk, "PreChargeReq", PRECHARGE)) == "OK"
    desk.supply.station = replace(desk.supply.station, voltage_v=0.0)
    kind, exi = messages.message(
        protocol, "PowerDeliveryReq", messages.REQUESTS[protocol]["PowerDeliveryReq"][0], desk.machine.talk.session_id
    )
    reply = desk.machine.take(kind, exi, desk.supply.station, desk.now)
    assert code(reply) == "FAILED_PowerDeliveryNotApplied"
    assert "0 V instead of 380 V" in reply.fault


@pytest.mark.parametrize("protocol", list(UNTIL))
@pytest.mark.parametrize("shutdown", list(Shutdown)[1:])
def test_answers_at_a_stop_by_the_station(protocol: str, shutdown: Shutdown) -> None:
    desk = begin(protocol)
    go(desk, "CurrentDemandReq")
    desk.supply.station = replace(desk.supply.station, shutdown=shutdown)
    status = fields(ask(desk, "CurrentDemandReq"))["DC_EVSEStatus"]
    wanted = {1: ("EVSE_Shutdown", 10), 2: ("EVSE_Malfunction", 0), 3: ("EVSE_EmergencyShutdown", 0)}[shutdown]
    assert (status["EVSEStatusCode"], status["NotificationMaxDelay"]) == wanted
    assert status["EVSENotification"] == "StopCharging"


@pytest.mark.parametrize("protocol", list(UNTIL))
def test_answers_after_a_stop_by_the_vehicle(protocol: str) -> None:
    desk = begin(protocol)
    go(desk, "CurrentDemandReq")
    status = fields(ask(desk, "PowerDeliveryReq", messages.REQUESTS[protocol]["PowerDeliveryReq"][1]))["DC_EVSEStatus"]
    assert (status["EVSEStatusCode"], status["NotificationMaxDelay"]) == ("EVSE_Shutdown", 10)
    assert desk.machine.closed().in_order  # it may close the connection now, without SessionStopReq


@pytest.mark.parametrize("protocol", list(UNTIL))
def test_a_vehicle_that_closes_in_the_charge_loop_is_lost(protocol: str) -> None:
    desk = begin(protocol)
    go(desk, "CurrentDemandReq")
    assert desk.machine.closed().code == Code.LINK_LOST


@pytest.mark.parametrize("protocol", list(UNTIL))
def test_contactors_that_stay_closed(protocol: str) -> None:
    desk = begin(protocol)
    go(desk, "CurrentDemandReq")
    desk.supply.welded = True
    reply = ask(desk, "PowerDeliveryReq", messages.REQUESTS[protocol]["PowerDeliveryReq"][1])
    assert code(reply) == {"din70121": "FAILED"}.get(protocol, "FAILED_ContactorError")
    assert reply.end.code == Code.CONTACTOR_WELDED


@pytest.mark.parametrize("protocol", list(UNTIL))
def test_an_insulation_fault_ends_the_session(protocol: str) -> None:
    desk = begin(protocol, insulation=Insulation.FAULT)
    go(desk, "ChargeParameterDiscoveryReq")
    assert code(ask(desk, "CableCheckReq")) == "OK"
    desk.wait(1.0)
    reply = ask(desk, "CableCheckReq")
    assert (code(reply), reply.end.code) == ("FAILED", Code.INSULATION)


@pytest.mark.parametrize("protocol", list(UNTIL))
def test_the_supply_is_not_there_yet(protocol: str) -> None:
    """Ongoing with a power of 0 until it is."""
    desk = begin(protocol, station=replace(SUPPLY, supply_available=False))
    answer = fields(go(desk, "ChargeParameterDiscoveryReq"))
    assert answer["EVSEProcessing"] == "Ongoing"
    desk.supply.station = replace(desk.supply.station, supply_available=True)
    assert fields(ask(desk, "ChargeParameterDiscoveryReq"))["EVSEProcessing"] == "Finished"


@pytest.mark.parametrize("protocol", list(UNTIL))
@pytest.mark.parametrize("cut", [3, 14, 20, -3])
def test_what_cannot_be_decoded_is_answered_and_named(protocol: str, cut: int) -> None:
    desk = begin(protocol)
    go(desk, "CurrentDemandReq")
    kind, exi = messages.message(protocol, "CurrentDemandReq", DEMAND, desk.machine.talk.session_id)
    reply = desk.send(exi[:cut], kind)
    assert code(reply) == "FAILED" and reply.said.name == "CurrentDemandRes"
    assert reply.end.code == Code.V2G_DECODE and "could not be decoded" in reply.fault
    assert desk.vehicle.purpose == Purpose.NONE


def test_noise_instead_of_the_first_message() -> None:
    desk = Desk()
    reply = desk.send(b"\xff" * 20)
    assert code(reply) == "Failed_NoNegotiation"
    assert reply.end.code == Code.V2G_DECODE


@pytest.mark.parametrize("kind", [0x8002, 0x9000, 0x8101, 0])
def test_another_payload_type_is_answered(kind: int) -> None:
    desk = begin("iso15118-2")
    go(desk, "CurrentDemandReq")
    _, exi = messages.message("iso15118-2", "CurrentDemandReq", DEMAND, desk.machine.talk.session_id)
    assert code(desk.send(exi, kind)) == "FAILED"


def test_a_spare_byte_does_no_harm() -> None:
    desk = begin("din70121")
    exi = with_session_id(bytes.fromhex(SPARE_BYTES), "0102030405060708")
    reply = desk.send(exi)
    assert code(reply) == "FAILED_SequenceError"  # decoded, and out of order here
    assert reply.heard is not None


@pytest.mark.parametrize("protocol", list(UNTIL))
def test_another_session_id(protocol: str) -> None:
    desk = begin(protocol)
    go(desk, "CurrentDemandReq")
    reply = ask(desk, "CurrentDemandReq", session_id="FFFFFFFFFFFFFFFF")
    assert code(reply) == "FAILED_UnknownSession"


def test_a_tariff_that_is_not_offered() -> None:
    desk = begin("iso15118-2")
    go(desk, "PreChargeReq")
    reply = ask(desk, "PowerDeliveryReq", {"ChargeProgress": "Start", "SAScheduleTupleID": 9})
    assert code(reply) == "FAILED_TariffSelectionInvalid"


def test_a_service_that_is_not_offered() -> None:
    desk = begin("iso15118-2")
    go(desk, "ServiceDiscoveryReq")
    reply = ask(desk, "ServiceDetailReq", {"ServiceID": 7})
    assert code(reply) == "FAILED_ServiceIDInvalid" and fields(reply)["ServiceID"] == 7


def test_a_paused_session_is_joined_again() -> None:
    desk = begin("iso15118-2", settings={"joins": "0A0B0C0D0E0F0102"})
    assert code(ask(desk, "SessionSetupReq", session_id="0A0B0C0D0E0F0102")) == "OK_OldSessionJoined"
    assert desk.machine.talk.session_id == "0A0B0C0D0E0F0102"
    desk = begin("iso15118-2", settings={"joins": "0A0B0C0D0E0F0102"})
    assert code(ask(desk, "SessionSetupReq", session_id="0A0B0C0D0E0F0103")) == "OK_NewSessionEstablished"
    assert desk.machine.talk.session_id == "0102030405060708"


def test_an_error_that_the_vehicle_reports() -> None:
    """Before energy flows it is refused; in the charge loop the vehicle decides what follows."""
    broken = {**messages.STATUS, "EVErrorCode": "FAILED_EVRESSMalfunction"}
    desk = begin("iso15118-2")
    go(desk, "ChargeParameterDiscoveryReq")
    reply = ask(desk, "CableCheckReq", {"DC_EVStatus": broken})
    assert (code(reply), reply.end.code) == ("FAILED", Code.V2G_VEHICLE_ERROR)
    desk = begin("iso15118-2")
    go(desk, "CurrentDemandReq")
    assert code(ask(desk, "CurrentDemandReq", {**DEMAND, "DC_EVStatus": broken})) == "OK"
    assert desk.vehicle.text == "the vehicle reports FAILED_EVRESSMalfunction"
    assert desk.machine.closed().code == Code.V2G_VEHICLE_ERROR


def test_the_vehicle_s_own_order_of_protocols_counts() -> None:
    from robot_charger.v2g.exi import NAMESPACES, encode

    entries = [
        {
            "ProtocolNamespace": space,
            "VersionNumberMajor": major,
            "VersionNumberMinor": minor,
            "SchemaID": number,
            "Priority": priority,
        }
        for number, (space, major, minor, priority) in enumerate(
            [
                ("urn:private", 1, 0, 1),
                (NAMESPACES["iso15118_2"], 3, 0, 2),
                (NAMESPACES["din70121"], 2, 1, 3),
                (NAMESPACES["iso15118_2"], 2, 0, 4),
            ]
        )
    ]
    desk = Desk()
    reply = desk.send(encode({"supportedAppProtocolReq": {"AppProtocol": entries}}, "app_protocol"))
    assert fields(reply) == {"ResponseCode": "OK_SuccessfulNegotiationWithMinorDeviation", "SchemaID": 2}
    assert desk.machine.protocol == "din70121"
