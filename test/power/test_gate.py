"""The gate of one EVSE, term by term and to the nanosecond: what may be done now."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from robot_charger.common.faults import Code, Severity
from robot_charger.power.gate import ALIVE_NS, PERMIT_NS, Demand, Gate, clamp_current
from robot_charger.words.values import ChargePermit, Pilot, Purpose, VehicleTarget

T = 10**12
MS = 1_000_000
PERMIT = ChargePermit(
    T, number=5, session_id="s", purpose=Purpose.TRANSFER, max_voltage_v=500.0, min_current_a=-50.0,
    max_current_a=200.0, min_power_w=-20e3, max_power_w=80e3,
)  # fmt: skip
TARGET = VehicleTarget(
    T, number=9, session_id="s", purpose=Purpose.TRANSFER, voltage_v=450.0, current_a=100.0, max_current_a=150.0,
    vehicle_stamp_ns=T, vehicle_timeout_ms=1000,
)  # fmt: skip


def gate(
    permit: ChargePermit | None = PERMIT, target: VehicleTarget | None = TARGET, pilot: Pilot = Pilot.C, **options: Any
) -> Gate:
    made = Gate(**options)
    if permit is not None:
        made.take_permit(permit)
    if target is not None:
        made.take_target(target)
    made.take_pilot(pilot, T)
    return made


def test_what_is_asked_and_permitted_is_done() -> None:
    demand = gate().judge(T)
    assert (demand.purpose, demand.abrupt, demand.fault, demand.reason) == (Purpose.TRANSFER, False, None, "")
    assert (demand.permit_number, demand.target_number) == (5, 9)
    assert (Demand().permit_number, Demand().target_number) == (0, 0)
    assert gate(pilot=Pilot.D).judge(T).purpose == Purpose.TRANSFER


@pytest.mark.parametrize("grace_ns", [0, 100 * MS])
def test_each_age_to_the_nanosecond(grace_ns: int) -> None:
    for age, permit, target, pilot, code in (
        (PERMIT_NS, T, None, None, Code.PERMIT_LAPSED),
        (ALIVE_NS, None, T, None, Code.NODE_LOST),
        (ALIVE_NS, None, None, T, Code.PILOT_LOST),
    ):
        late = T + age + grace_ns
        for now, good in ((late, True), (late + 1, False)):
            g = gate(
                replace(PERMIT, stamp_ns=permit or now),
                replace(TARGET, stamp_ns=target or now, vehicle_stamp_ns=now),
                grace_ns=grace_ns,
            )
            g.take_pilot(Pilot.C, pilot or now)
            demand = g.judge(now)
            assert (demand.purpose == Purpose.TRANSFER) == good
            if not good:
                assert demand.abrupt and demand.fault is not None and demand.fault.code == code
                assert demand.fault.severity == Severity.STOP and demand.reason


@pytest.mark.parametrize(
    ("age_ms", "timeout_ms", "good"), [(200, 200, True), (201, 200, False), (0, 0, True), (1, 0, False)]
)
def test_the_age_of_the_vehicles_last_message(age_ms: int, timeout_ms: int, good: bool) -> None:
    target = replace(TARGET, vehicle_stamp_ns=T - age_ms * MS, vehicle_timeout_ms=timeout_ms)
    demand = gate(target=target).judge(T)
    assert (demand.purpose == Purpose.TRANSFER) == good
    assert good or (demand.abrupt and demand.fault is not None and demand.fault.code == Code.V2G_SILENT)
    quiet = gate(target=replace(target, purpose=Purpose.NONE)).judge(T)
    assert (
        not quiet.abrupt
        and quiet.fault is None
        and quiet.purpose == Purpose.NONE
        and "asks for nothing" in quiet.reason
    )


@pytest.mark.parametrize("pilot", [Pilot.UNKNOWN, Pilot.A, Pilot.B, Pilot.E, Pilot.F])
def test_every_other_pilot_ends_it_at_once(pilot: Pilot) -> None:
    demand = gate(pilot=pilot).judge(T)
    assert demand.abrupt and demand.fault is not None and demand.fault.code == Code.PILOT_LOST
    assert demand.purpose == Purpose.NONE and demand.permit is PERMIT


def test_a_connector_without_a_pilot_serves_its_own_protocol_alone() -> None:
    for protocol, good in (("chademo", True), ("iso15118-2", False), ("", False)):
        demand = gate(target=replace(TARGET, protocol=protocol), pilot=Pilot.A, pilotless="chademo").judge(T)
        assert (demand.purpose == Purpose.TRANSFER) == good and (good or demand.abrupt)
    calm = replace(TARGET, purpose=Purpose.NONE, protocol="din")
    assert not gate(target=calm, pilotless="chademo").judge(T).abrupt


def test_no_permit_no_target_and_another_session() -> None:
    for g in (gate(permit=None), gate(target=None), gate(target=replace(TARGET, session_id="t"))):
        demand = g.judge(T)
        assert demand.purpose == Purpose.NONE and demand.abrupt and demand.fault is None and demand.reason


@pytest.mark.parametrize("abrupt", [False, True])
def test_none_says_how(abrupt: bool) -> None:
    demand = gate(replace(PERMIT, purpose=Purpose.NONE, abrupt=abrupt)).judge(T)
    assert (demand.purpose, demand.abrupt, demand.fault) == (Purpose.NONE, abrupt, None)


@pytest.mark.parametrize(
    ("asked", "allowed", "done"),
    [
        (Purpose.INSULATION_TEST, Purpose.INSULATION_TEST, Purpose.INSULATION_TEST),
        (Purpose.PRECHARGE, Purpose.TRANSFER, Purpose.PRECHARGE),
        (Purpose.TRANSFER, Purpose.PRECHARGE, Purpose.PRECHARGE),
        (Purpose.INSULATION_TEST, Purpose.TRANSFER, Purpose.NONE),
        (Purpose.TRANSFER, Purpose.INSULATION_TEST, Purpose.NONE),
        (Purpose.PRECHARGE, Purpose.INSULATION_TEST, Purpose.NONE),
    ],
)
def test_purposes(asked: Purpose, allowed: Purpose, done: Purpose) -> None:
    demand = gate(replace(PERMIT, purpose=allowed), replace(TARGET, purpose=asked)).judge(T)
    assert demand.purpose == done and demand.abrupt == (done == Purpose.NONE)


# Numbers and stamps.
def test_a_permit_that_lapsed_does_not_return_by_itself() -> None:
    g = gate()
    late = T + PERMIT_NS + 1
    assert g.judge(late).fault is not None and g.floor == 5 and g.permit is None and g.lapsed
    g.take_permit(replace(PERMIT, stamp_ns=late))
    assert g.permit is None and g.refused == 1 and g.judge(late).fault is not None
    g.take_target(replace(TARGET, stamp_ns=late, vehicle_stamp_ns=late))
    g.take_pilot(Pilot.C, late)
    g.take_permit(replace(PERMIT, stamp_ns=late, number=6))
    assert g.judge(late).purpose == Purpose.TRANSFER and not g.lapsed


def test_a_permit_of_none_that_lapses_is_no_fault_and_keeps_the_floor() -> None:
    g = gate(replace(PERMIT, purpose=Purpose.NONE))
    demand = g.judge(T + PERMIT_NS + 1)
    assert demand.abrupt and demand.fault is None and g.floor == 0 and not g.lapsed


def test_none_lowers_the_floor_to_its_own_number_and_never_raises_it() -> None:
    g = gate(replace(PERMIT, number=500))
    g.refuse_present()
    assert g.floor == 500 and g.judge(T).purpose == Purpose.NONE and not g.renewed
    g.take_permit(replace(PERMIT, number=3, purpose=Purpose.NONE))
    assert g.floor == 3 and g.renewed
    g.take_permit(replace(PERMIT, number=900, purpose=Purpose.NONE))
    assert g.floor == 3
    g.take_permit(replace(PERMIT, number=4))
    assert g.judge(T).purpose == Purpose.TRANSFER and g.renewed


def test_a_permit_at_the_floor_is_refused() -> None:
    g = gate(replace(PERMIT, number=5), floor=5)
    assert g.permit is None and g.refused == 1
    g.take_permit(replace(PERMIT, number=6))
    g.floor = 6
    assert g.judge(T).purpose == Purpose.NONE and not g.renewed
    g.floor = 5
    assert g.renewed


def test_refusing_the_present_never_lowers_the_floor() -> None:
    g = gate()
    g.floor = 900
    g.refuse_present()
    assert g.floor == 900
    empty = Gate()
    empty.refuse_present()
    assert empty.floor == 0 and not empty.renewed and not empty.asked


def test_older_stamps_are_refused_and_equal_ones_taken() -> None:
    g = gate()
    g.take_permit(replace(PERMIT, stamp_ns=T - 1, number=8))
    g.take_target(replace(TARGET, stamp_ns=T - 1, number=8))
    assert g.refused == 2 and g.permit is PERMIT and g.target is TARGET
    g.take_permit(replace(PERMIT, number=8))
    g.take_target(replace(TARGET, number=10))
    assert g.refused == 2 and g.permit is not None and g.permit.number == 8
    assert g.target is not None and g.target.number == 10


def test_after_a_pause_nothing_held_counts() -> None:
    g = gate()
    g.discard()
    assert (g.permit, g.target, g.floor) == (None, None, 5)


def test_a_withdrawn_permit_ends_as_one_that_lapsed() -> None:
    g = gate()
    g.withdraw()
    assert g.permit is None and g.lapsed and g.floor == 5
    demand = g.judge(T)
    assert demand.fault is not None and demand.fault.code == Code.PERMIT_LAPSED
    g = gate(replace(PERMIT, purpose=Purpose.NONE))
    g.withdraw()
    assert g.permit is not None and not g.lapsed
    Gate().withdraw()


def test_who_has_a_session_here() -> None:
    assert gate().asked and not gate(replace(PERMIT, session_id="")).asked and not Gate().asked


# The current.
def clamped(
    volts: float = 400.0, supply: float = 300.0, export: float = 60.0, **changes: Any
) -> tuple[float, bool, bool]:
    names = set(vars(PERMIT))
    permit = replace(PERMIT, **{k: v for k, v in changes.items() if k in names and k != "max_current_a"})
    permit = replace(permit, max_current_a=changes.get("permit_a", permit.max_current_a))
    target = replace(
        TARGET, **{k.removeprefix("vehicle_"): v for k, v in changes.items() if k not in names and k != "permit_a"}
    )
    return clamp_current(Demand(Purpose.TRANSFER, permit=permit, target=target), volts, supply, export)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (100.0, False, False)),
        ({"current_a": 500.0}, (150.0, True, False)),
        ({"current_a": 500.0, "vehicle_max_current_a": 0.0, "permit_a": 190.0}, (190.0, True, False)),
        ({"current_a": 500.0, "vehicle_max_current_a": -1.0, "permit_a": 190.0}, (190.0, True, False)),
        ({"current_a": 500.0, "permit_a": 90.0}, (90.0, True, False)),
        ({"current_a": 500.0, "supply": 80.0}, (80.0, True, False)),
        ({"current_a": 500.0, "max_power_w": 40e3}, (100.0, False, True)),
        ({"current_a": 500.0, "vehicle_max_power_w": 30e3}, (75.0, False, True)),
        ({"current_a": 500.0, "vehicle_max_power_w": -1.0}, (150.0, True, False)),
        ({"current_a": -500.0}, (-50.0, False, True)),
        ({"current_a": -500.0, "min_power_w": -90e3}, (-50.0, True, False)),
        ({"current_a": -500.0, "min_power_w": -90e3, "export": 20.0}, (-20.0, True, False)),
        ({"current_a": -500.0, "min_power_w": -4e3}, (-10.0, False, True)),
        ({"current_a": 10.0, "volts": 0.0}, (10.0, False, False)),
        ({"current_a": 5.0, "min_current_a": 10.0, "permit_a": 8.0, "min_power_w": 0.0}, (0.0, True, True)),
        ({"current_a": 5.0, "min_current_a": 8.0, "permit_a": 8.0}, (8.0, True, False)),
    ],
)
def test_the_current_inside_every_limit(changes: dict[str, Any], expected: tuple[float, bool, bool]) -> None:
    assert clamped(**changes) == expected


def test_without_permit_or_target_there_is_no_current() -> None:
    assert clamp_current(Demand(permit=PERMIT), 400.0, 300.0, 60.0) == (0.0, False, False)
    assert clamp_current(Demand(target=TARGET), 400.0, 300.0, 60.0) == (0.0, False, False)
