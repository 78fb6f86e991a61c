"""Sessions of ISO 15118-20 as transcripts: the content of an exchange decides what may follow it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import secc_messages as messages
from secc_desk import SUPPLY, Desk, Supply, always, code, fields, hello
from secc_messages import BPT_LOOP, DISCHARGE_20, DYNAMIC_20, LIMITS_20, SCHEDULED_20, loop_20, rn, select_20

from robot_charger.common.faults import Code
from robot_charger.words.values import Authorization, Link, Purpose

EXPORT = {"max_export_current_a": 60.0, "max_export_power_w": 24_000.0}
PRECHARGE_ONGOING = "8044040000000000000000080e2cfaa062210012006080090030"  # 400 V, EVProcessing Ongoing
START = "8054040000000000000000080e2cfaa0620040"  # PowerDeliveryReq, Finished, Start
REQUESTS = messages.REQUESTS["iso15118-20"]
ORDER = [name for name in REQUESTS if name != "ServiceDetailReq"]


def begin(**station: Any) -> Desk:
    desk = Desk(replace(always(), protocols=("iso15118-20",)), Supply(replace(SUPPLY, **station)))
    assert code(desk.send(hello("iso15118_20_dc", 1))) == "OK_SuccessfulNegotiation"
    return desk


def ask(desk: Desk, name: str, body: Any = None) -> Any:
    chosen = REQUESTS[name][0] if body is None else body
    kind, exi = messages.message("iso15118-20", name, chosen, desk.machine.talk.session_id)
    return desk.send(exi, kind)


def go(desk: Desk, last: str, **bodies: Any) -> Any:
    """An ordinary session up to ``last``; ``bodies`` replace those of single requests."""
    for name in ORDER:
        reply = ask(desk, name, bodies.get(name))
        while str(fields(reply).get("EVSEProcessing", "")).startswith("Ongoing"):
            desk.wait(0.1)
            reply = ask(desk, name, bodies.get(name))
        if name == "DC_PreChargeReq":
            desk.wait(0.1)
            reply = ask(desk, name, REQUESTS[name][1])
        assert code(reply).startswith("OK"), (name, reply.fault)
        if name == last:
            return reply
    raise AssertionError(last)


BIDIRECTIONAL = {
    "ServiceSelectionReq": select_20(6, 1),
    "DC_ChargeParameterDiscoveryReq": {"BPT_DC_CPDReqEnergyTransferMode": LIMITS_20 | DISCHARGE_20},
    "DC_ChargeLoopReq": loop_20("BPT_Scheduled", {**SCHEDULED_20, "EVTargetCurrent": rn(-40)} | BPT_LOOP),
}
DYNAMIC = {
    "ServiceSelectionReq": select_20(2, 2),
    "ScheduleExchangeReq": REQUESTS["ScheduleExchangeReq"][1],
    "DC_ChargeLoopReq": loop_20("Dynamic", DYNAMIC_20),
}


def test_a_session() -> None:
    desk = begin()
    go(desk, "DC_ChargeLoopReq")
    assert (desk.vehicle.phase, desk.vehicle.voltage_v, desk.vehicle.current_a) == (Link.CHARGING, 400.0, 120.0)
    desk.wait(0.1)
    answer = fields(ask(desk, "DC_ChargeLoopReq"))
    assert answer["EVSEPresentCurrent"] == rn(120.0, -1) and "MeterInfo" in answer
    assert code(ask(desk, "PowerDeliveryReq", REQUESTS["PowerDeliveryReq"][1])) == "OK"
    assert code(ask(desk, "DC_WeldingDetectionReq")) == "OK"
    assert ask(desk, "SessionStopReq").end.in_order


def test_a_start_before_the_vehicle_has_finished_its_precharge() -> None:
    """[V2G20-2005]: only DC_PreChargeReq may follow one that says Ongoing. The bytes are those of EVerest #2305."""
    desk = begin()
    go(desk, "DC_CableCheckReq")
    session = bytes.fromhex(desk.machine.talk.session_id)
    for kind, exi, said in ((0x8004, PRECHARGE_ONGOING, "OK"), (0x8002, START, "FAILED_SequenceError")):
        reply = desk.send(_with_id(bytes.fromhex(exi), session), kind)
        assert code(reply) == said, reply.fault
        desk.wait(0.1)
    assert desk.vehicle.purpose == Purpose.NONE
    assert Purpose.TRANSFER not in [purpose for _, purpose in desk.purposes]


def _with_id(exi: bytes, session: bytes) -> bytes:
    """A header of ISO 15118-20 with the session's id: eight octets of zero behind the octet 08, at any bit."""
    bits = format(int.from_bytes(exi, "big"), f"0{8 * len(exi)}b")
    zeros = "00001000" + "0" * 64
    at = bits.index(zeros)
    patched = bits[: at + 8] + "".join(f"{octet:08b}" for octet in session) + bits[at + 72 :]
    return int(patched, 2).to_bytes(len(exi), "big")


@pytest.mark.parametrize("ongoing", ["Authorization", "DC_CableCheck", "ScheduleExchange"])
def test_nothing_follows_what_is_ongoing_but_itself(ongoing: str) -> None:
    desk = begin(authorization=Authorization.PENDING if ongoing == "Authorization" else Authorization.ACCEPTED)
    if ongoing == "ScheduleExchange":
        desk.supply.station = replace(desk.supply.station, supply_available=False)
    before = ORDER[ORDER.index(f"{ongoing}Req") - 1]
    go(desk, before)
    assert str(fields(ask(desk, f"{ongoing}Req"))["EVSEProcessing"]).startswith("Ongoing")
    follower = ORDER[ORDER.index(f"{ongoing}Req") + 1]
    assert code(ask(desk, follower)) == "FAILED_SequenceError"


def test_a_negative_current_discharges_where_that_was_chosen() -> None:
    desk = begin(**EXPORT)
    go(desk, "DC_ChargeLoopReq", **BIDIRECTIONAL)
    assert desk.vehicle.bidirectional and desk.vehicle.current_a == -40.0
    much = loop_20("BPT_Scheduled", {**SCHEDULED_20, "EVTargetCurrent": rn(-400)} | BPT_LOOP)
    ask(desk, "DC_ChargeLoopReq", much)
    assert desk.vehicle.current_a == -50.0  # the vehicle's own limit


def test_a_negative_current_of_a_charging_session_is_none() -> None:
    desk = begin(**EXPORT)
    go(desk, "DC_ChargeLoopReq")
    reply = ask(desk, "DC_ChargeLoopReq", loop_20("Scheduled", {**SCHEDULED_20, "EVTargetCurrent": rn(-40)}))
    assert (code(reply), desk.vehicle.current_a) == ("OK", 0.0) and reply.notes


@pytest.mark.parametrize("sign", [1, -1])
def test_the_sign_of_discharge_limits_differs_from_car_to_car(sign: int) -> None:
    desk = begin(**EXPORT)
    limits = {**DISCHARGE_20, "EVMaximumDischargeCurrent": rn(sign * 30)}
    mode = {"BPT_DC_CPDReqEnergyTransferMode": LIMITS_20 | limits}
    go(desk, "DC_ChargeParameterDiscoveryReq", **{**BIDIRECTIONAL, "DC_ChargeParameterDiscoveryReq": mode})
    assert desk.machine.talk.energy.max_export_a == 30.0


def test_the_station_chooses_the_current_in_dynamic_control() -> None:
    desk = begin()
    go(desk, "DC_ChargeLoopReq", **DYNAMIC)
    assert desk.vehicle.current_a == 90.0  # the vehicle's limit
    desk.supply.station = replace(desk.supply.station, backend_max_current_a=33.0)
    ask(desk, "DC_ChargeLoopReq", DYNAMIC["DC_ChargeLoopReq"])
    assert desk.vehicle.current_a == 33.0


def test_dynamic_control_exports_where_the_back_end_wants_it() -> None:
    desk = begin(backend_min_power_w=-8_000.0, **EXPORT)
    bodies = {
        **BIDIRECTIONAL,
        **DYNAMIC,
        "ServiceSelectionReq": select_20(6, 2),
        "DC_ChargeLoopReq": loop_20("BPT_Dynamic", DYNAMIC_20 | BPT_LOOP),
    }
    go(desk, "DC_ChargeLoopReq", **bodies)
    desk.wait(0.1)
    ask(desk, "DC_ChargeLoopReq", bodies["DC_ChargeLoopReq"])
    assert -50.0 <= desk.vehicle.current_a < 0.0
    assert desk.vehicle.voltage_v == 250.0


@pytest.mark.parametrize("kind", ["Dynamic", "BPT_Scheduled"])
def test_a_loop_of_another_mode_or_service_is_refused(kind: str) -> None:
    desk = begin(**EXPORT)
    go(desk, "DC_ChargeLoopReq")
    body = loop_20(kind, DYNAMIC_20 if kind == "Dynamic" else SCHEDULED_20 | BPT_LOOP)
    assert code(ask(desk, "DC_ChargeLoopReq", body)) == "FAILED"


def test_parameters_of_another_service_are_refused() -> None:
    desk = begin(**EXPORT)
    go(desk, "ServiceSelectionReq")
    wrong = {"BPT_DC_CPDReqEnergyTransferMode": LIMITS_20 | DISCHARGE_20}
    assert code(ask(desk, "DC_ChargeParameterDiscoveryReq", wrong)) == "FAILED_WrongChargeParameter"


def test_a_negative_limit_is_refused_and_named() -> None:
    desk = begin()
    go(desk, "ServiceSelectionReq")
    mode = {"DC_CPDReqEnergyTransferMode": {**LIMITS_20, "EVMaximumVoltage": rn(-5)}}
    reply = ask(desk, "DC_ChargeParameterDiscoveryReq", mode)
    assert code(reply) == "FAILED_WrongChargeParameter"
    assert reply.fault == "DC_ChargeParameterDiscoveryReq/EVMaximumVoltage is -5 V, which cannot be"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (select_20(99, 1), "FAILED_NoEnergyTransferServiceSelected"),
        (select_20(2, 9), "FAILED_ServiceSelectionInvalid"),
    ],
)
def test_what_is_not_offered_cannot_be_chosen(body: Any, said: str) -> None:
    desk = begin()
    go(desk, "ServiceDiscoveryReq")
    assert code(ask(desk, "ServiceSelectionReq", body)) == said


def test_plug_and_charge_is_warned_off_and_external_identification_follows() -> None:
    """[V2G20-2209]: a warning, so that the vehicle may try the other way."""
    desk = begin()
    go(desk, "AuthorizationSetupReq")
    wrong = {"SelectedAuthorizationService": "PnC", "EIM_AReqAuthorizationMode": {}}
    assert code(ask(desk, "AuthorizationReq", wrong)) == "WARNING_AuthorizationSelectionInvalid"
    assert code(ask(desk, "AuthorizationReq")) == "OK"


def test_standby_is_not_allowed_and_the_loop_goes_on() -> None:
    desk = begin()
    go(desk, "DC_ChargeLoopReq")
    reply = ask(desk, "PowerDeliveryReq", {"EVProcessing": "Finished", "ChargeProgress": "Standby"})
    assert code(reply) == "WARNING_StandbyNotAllowed" and reply.end is None
    assert code(ask(desk, "DC_ChargeLoopReq")) == "OK"


def test_a_vehicle_that_is_still_computing_its_profile_does_not_start() -> None:
    desk = begin()
    go(desk, "DC_PreChargeReq")
    assert code(ask(desk, "PowerDeliveryReq", {"EVProcessing": "Ongoing", "ChargeProgress": "Start"})) == "OK"
    assert desk.vehicle.purpose == Purpose.PRECHARGE
    assert code(ask(desk, "PowerDeliveryReq")) == "OK"
    assert desk.vehicle.purpose == Purpose.TRANSFER


def test_a_second_start_in_the_charge_loop_is_out_of_order() -> None:
    desk = begin()
    go(desk, "DC_ChargeLoopReq")
    assert code(ask(desk, "PowerDeliveryReq")) == "FAILED_SequenceError"


def test_the_charge_loop_has_half_a_second() -> None:
    desk = begin()
    go(desk, "PowerDeliveryReq")
    assert desk.machine.timeout_s == 5.0
    ask(desk, "DC_ChargeLoopReq")
    assert desk.machine.timeout_s == 0.5


def test_a_payload_type_of_ac_is_answered() -> None:
    desk = begin()
    go(desk, "DC_ChargeLoopReq")
    reply = desk.send(b"\x80\x00\x00", 0x8003)
    assert code(reply) == "FAILED" and reply.end.code == Code.V2G_DECODE
    assert "0x8003" in reply.fault
