"""A vehicle that leaves early, or says something out of order, in every phase of every protocol."""

from __future__ import annotations

from pathlib import Path

import pytest
from talk import Told, talk

from robot_charger.common.faults import Code
from robot_charger.words.values import Link, Purpose

LOOP = {"din": "CurrentDemandReq", "iso15118-2": "CurrentDemandReq", "iso15118-20": "DC_ChargeLoopReq"}
# Requests in their order. NAME*2 is the second of its kind: within an insulation test, a precharge, a transfer.
PHASES = {
    "din": (
        "ServiceDiscoveryReq",
        "ServicePaymentSelectionReq",
        "ContractAuthenticationReq",
        "ContractAuthenticationReq*2",
        "ChargeParameterDiscoveryReq",
        "CableCheckReq",
        "CableCheckReq*2",
        "PreChargeReq",
        "PreChargeReq*2",
        "PowerDeliveryReq",
        "CurrentDemandReq",
        "CurrentDemandReq*2",
        "PowerDeliveryReq*2",
        "WeldingDetectionReq",
    ),
    "iso15118-2": (
        "ServiceDiscoveryReq",
        "PaymentServiceSelectionReq",
        "AuthorizationReq",
        "AuthorizationReq*2",
        "ChargeParameterDiscoveryReq",
        "CableCheckReq",
        "CableCheckReq*2",
        "PreChargeReq",
        "PreChargeReq*2",
        "PowerDeliveryReq",
        "CurrentDemandReq",
        "CurrentDemandReq*2",
        "PowerDeliveryReq*2",
        "WeldingDetectionReq",
    ),
    "iso15118-20": (
        "AuthorizationSetupReq",
        "AuthorizationReq",
        "AuthorizationReq*2",
        "ServiceDiscoveryReq",
        "ServiceDetailReq",
        "ServiceSelectionReq",
        "DC_ChargeParameterDiscoveryReq",
        "ScheduleExchangeReq",
        "DC_CableCheckReq",
        "DC_CableCheckReq*2",
        "DC_PreChargeReq",
        "DC_PreChargeReq*2",
        "PowerDeliveryReq",
        "DC_ChargeLoopReq",
        "DC_ChargeLoopReq*2",
        "PowerDeliveryReq*2",
        "DC_WeldingDetectionReq",
    ),
}
CASES = [(protocol, at) for protocol, phases in PHASES.items() for at in phases]


def session(directory: Path, protocol: str, at: str, by: str) -> Told:
    return talk(directory, protocol=protocol, options={"leave_at": at, "leave_by": by})


def assert_safe(told: Told, at: str) -> None:
    """Nothing asked for, nothing connected, and no phase after the one it left in but the stop."""
    assert (told.link.purpose, told.link.voltage_v, told.link.current_a) == (Purpose.NONE, 0.0, 0.0)
    assert not told.car.contactor
    name, _, nth = at.partition("*")
    assert told.names.count(name) == int(nth or 1) - 1, told.names


@pytest.mark.parametrize(("protocol", "at"), CASES)
def test_the_vehicle_ends_its_session_early(tmp_path: Path, protocol: str, at: str) -> None:
    told = session(tmp_path, protocol, at, "stop")
    assert (told.ok, told.codes[-1], told.names[-1]) == (True, "OK", "SessionStopRes"), (told.text, told.link)
    assert (told.link.phase, told.link.error) == (Link.ENDED, Code.NONE), told.link.text
    assert told.phases[-2:-1] == ["STOPPING"] or "WELDING_CHECK" in told.phases, told.phases
    assert_safe(told, at)


@pytest.mark.parametrize(("protocol", "at"), CASES)
def test_the_vehicle_closes_the_connection(tmp_path: Path, protocol: str, at: str) -> None:
    told = session(tmp_path, protocol, at, "close")
    if "WeldingDetection" in at:  # it has stopped the transfer: it may leave
        assert (told.link.phase, told.link.error) == (Link.ENDED, Code.NONE), told.link.text
        assert told.link.text == "the vehicle stopped charging and closed the connection"
    else:
        assert (told.link.phase, told.link.error) == (Link.FAILED, Code.LINK_LOST), told.link.text
        assert told.link.text == "the vehicle closed the connection without SessionStopReq"
    assert_safe(told, at)


@pytest.mark.parametrize(("protocol", "at"), CASES)
def test_a_message_out_of_order(tmp_path: Path, protocol: str, at: str) -> None:
    told = session(tmp_path, protocol, at, "misplaced")
    assert not told.ok and told.codes[-1] == "FAILED_SequenceError", (told.codes, told.link.text)
    assert (told.link.phase, told.link.error) == (Link.FAILED, Code.V2G_SEQUENCE), told.link.text
    assert told.link.messages_bad == 1
    assert_safe(told, at)


@pytest.mark.parametrize("by", ["stop", "misplaced"])
@pytest.mark.parametrize("protocol", list(PHASES))
def test_nothing_comes_before_the_session(tmp_path: Path, protocol: str, by: str) -> None:
    told = session(tmp_path, protocol, "SessionSetupReq", by)
    assert not told.ok and told.codes[-1] == "FAILED_SequenceError"
    assert (told.link.phase, told.link.error) == (Link.FAILED, Code.V2G_SEQUENCE), told.link.text
