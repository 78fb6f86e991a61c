"""How old a word may be before it counts as silence, to the nanosecond, and what silence is read as."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from robot_charger.common.faults import Code, Severity
from robot_charger.supervisor.inputs import Heard
from robot_charger.supervisor.model import Inputs, Session
from robot_charger.words.values import (
    BayState,
    ChargingLimit,
    Fault,
    Insulation,
    Link,
    Lock,
    Pilot,
    PilotState,
    Purpose,
    RobotErrorCode,
    RobotMode,
    RobotState,
    SafetyState,
    SupplyLimits,
    SupplyState,
    VehicleLink,
    VehicleTarget,
)

ID = "11111111-2222-3333-4444-555555555555"
AT = 10_000_000_000_000
MS = 1_000_000
SESSION = Session(session_id=ID)
SAFETY = SafetyState(AT, alive=True)
BAY = BayState(AT, occupied=True, immobilised=True, field_clear=True)
PILOT = PilotState(AT, state=Pilot.C)
POWER = SupplyState(
    AT, session_id=ID, voltage_v=12.0, current_a=3.0, contactors_open=True, insulation=Insulation.VALID,
    insulation_permit_number=7,
)  # fmt: skip
LINK = VehicleLink(AT, session_id=ID, phase=Link.CHARGING, lock=Lock.LOCKED, vehicle_ready=True, error=Code.NONE)
TARGET = VehicleTarget(
    AT, session_id=ID, purpose=Purpose.TRANSFER, vehicle_stamp_ns=AT, vehicle_timeout_ms=500
)  # fmt: skip
ROBOT = RobotState(AT, evse=1, mode=RobotMode.FOLLOWING, in_contact_zone=True, plug_in_inlet=True)
LIMITS = SupplyLimits(
    AT, available=True, max_voltage_v=900.0, max_current_a=200.0, max_power_w=100e3, max_export_current_a=50.0,
    max_export_power_w=20e3,
)  # fmt: skip


def read(*values: Any, after_ns: int = 0, s: Session = SESSION, **options: Any) -> Inputs:
    heard = Heard(**options)
    for value in values:
        heard.hear(value)
    return heard.inputs(s, AT + after_ns)


AGES = [
    (SAFETY, "safety_alive", 300 * MS), (PILOT, "pilot_alive", 300 * MS), (POWER, "power_alive", 300 * MS),
    (LINK, "link_alive", 300 * MS), (TARGET, "target_live", 300 * MS), (BAY, "bay_alive", 1000 * MS),
    (BAY, "occupied", 1000 * MS), (BAY, "immobilised", 1000 * MS), (BAY, "field_clear", 1000 * MS),
    (ROBOT, "robot_alive", 1000 * MS), (ROBOT, "robot_following", 1000 * MS), (POWER, "contactors_open", 300 * MS),
]  # fmt: skip


@pytest.mark.parametrize(("value", "name", "age_ns"), AGES, ids=lambda v: getattr(v, "__name__", str(v))[:20])
def test_a_word_counts_so_long_and_no_longer(value: Any, name: str, age_ns: int) -> None:
    assert getattr(read(value, after_ns=age_ns), name) is True
    assert getattr(read(value, after_ns=age_ns + 1), name) is False
    assert getattr(read(), name) is False


@pytest.mark.parametrize("name", ["safety_alive", "pilot_alive", "power_alive", "link_alive", "target_live"])
def test_a_desk_may_widen_the_nodes_age(name: str) -> None:
    value = next(v for v, n, _ in AGES if n == name)
    if name == "target_live":
        value = replace(value, vehicle_timeout_ms=5000)
    assert getattr(read(value, after_ns=700 * MS, slow_node_grace_ns=400 * MS), name) is True
    assert getattr(read(value, after_ns=700 * MS + 1, slow_node_grace_ns=400 * MS), name) is False


def test_the_node_of_the_link_is_gone_after_two_seconds() -> None:
    assert not read(LINK, after_ns=2000 * MS).link_gone and read(LINK, after_ns=2000 * MS + 1).link_gone
    assert not read(LINK, after_ns=2400 * MS, slow_node_grace_ns=400 * MS).link_gone
    assert read(LINK, after_ns=2400 * MS + 1, slow_node_grace_ns=400 * MS).link_gone


def test_silence_permits_nothing() -> None:
    i = read()
    assert i.pilot == Pilot.UNKNOWN and i.voltage_v == math.inf and i.current_a == math.inf and not i.contactors_open
    assert i.lock == Lock.UNKNOWN and i.target == Purpose.NONE and not i.robot_clear and not i.power_left
    assert not i.supply_available and i.insulation == Insulation.UNKNOWN and i.link == Link.IDLE


def test_an_emergency_stop_counts_however_old_it_is() -> None:
    pressed = replace(SAFETY, emergency_stop=True)
    assert read(pressed, after_ns=3600 * 1000 * MS).emergency_stop and not read(SAFETY).emergency_stop
    assert not read(replace(SAFETY, alive=False)).safety_alive


def test_what_power_measures_comes_through() -> None:
    i = read(POWER, LIMITS)
    assert (i.voltage_v, i.current_a, i.insulation, i.insulation_permit) == (12.0, 3.0, Insulation.VALID, 7)
    assert i.supply_available and not read(LIMITS).supply_available
    assert not read(POWER, replace(LIMITS, available=False)).supply_available


@pytest.mark.parametrize(
    ("age_ms", "timeout_ms", "live"), [(300, 300, True), (300, 299, False), (0, 0, True), (1, 0, False)]
)
def test_the_vehicles_own_age_counts(age_ms: int, timeout_ms: int, live: bool) -> None:
    target = replace(TARGET, vehicle_stamp_ns=AT - age_ms * MS, vehicle_timeout_ms=timeout_ms)
    assert read(target).target_live == live
    assert read(target).target == (Purpose.TRANSFER if live else Purpose.NONE)
    assert not read(replace(target, session_id="another")).target_live


def test_without_a_pilot_the_protocol_stands_for_it() -> None:
    options = {"pilotless": True}
    assert read(LINK, **options).pilot == Pilot.C and read(LINK, **options).pilot_alive
    assert not read(PILOT, **options).pilot_alive
    assert read(replace(LINK, vehicle_ready=False), **options).pilot == Pilot.A
    assert read(replace(LINK, session_id="another"), ROBOT, **options).pilot == Pilot.B
    assert read(LINK, ROBOT, after_ns=300 * MS + 1, **options).pilot == Pilot.B
    assert read(replace(LINK, vehicle_ready=False), replace(ROBOT, plug_in_inlet=False), **options).pilot == Pilot.A


# The one arm, and whom it works for.
def test_the_modes_of_the_arm_that_wake_the_loop() -> None:
    heard = Heard()
    heard.hear(ROBOT)
    assert not heard.hear(replace(ROBOT, stamp_ns=AT + 1)) and heard.hear(replace(ROBOT, mode=RobotMode.PARKED))
    assert not heard.hear(replace(ROBOT, mode=RobotMode.GRASP))


def test_the_arm_at_another_bay_is_clear_of_this_one() -> None:
    assert not read(ROBOT).robot_clear and read(ROBOT).robot_following
    other = replace(ROBOT, evse=2)
    assert read(other).robot_clear and not read(other).robot_following and not read(other).plug_in_inlet
    assert read(replace(ROBOT, in_contact_zone=False)).robot_clear
    assert not read(replace(ROBOT, mode=RobotMode.PARKED)).robot_following
    parked = replace(ROBOT, evse=0)
    assert not read(ROBOT, parked).robot_clear and read(other, parked).robot_clear
    i = read(ROBOT, replace(other, stamp_ns=AT + 1))
    assert i.plug_in_inlet, "what it left here stays here"
    late = read(ROBOT, after_ns=1000 * MS + 1)
    assert not late.robot_clear and not late.robot_alive, "a silent robot's last word on the zone holds"


def test_since_when_the_arm_works_here() -> None:
    heard = Heard()
    heard.hear(ROBOT)
    heard.hear(replace(ROBOT, stamp_ns=AT + 5))
    assert heard.inputs(SESSION, AT).robot_since == AT / 1e9
    heard.hear(replace(ROBOT, evse=2))
    assert heard.inputs(SESSION, AT).robot_since == 0.0


def test_when_a_goal_ended_is_stamped_once() -> None:
    heard = Heard()
    heard.goal_ended(5, RobotErrorCode.JAMMED)
    first = heard.inputs(SESSION, AT)
    assert (first.goal_done, first.goal_error, first.goal_done_at) == (5, RobotErrorCode.JAMMED, AT / 1e9)
    assert heard.inputs(SESSION, AT + 1000 * MS).goal_done_at == AT / 1e9


# Faults.
def fault(code: Code, severity: Severity, session: str = "", source: str = "power", active: bool = True) -> Fault:
    return Fault(AT, code=code, severity=severity, source=source, session_id=session, active=active)


@pytest.mark.parametrize(
    ("standing", "code"),
    [
        ([], Code.NONE),
        ([fault(Code.DOOR, Severity.STOP)], Code.DOOR),
        ([fault(Code.MODULE_LOST, Severity.DERATE), fault(Code.DOOR, Severity.STOP)], Code.DOOR),
        ([fault(Code.DOOR, Severity.STOP), fault(Code.MODULE_LOST, Severity.DERATE)], Code.DOOR),
        ([fault(Code.V2G_TIMEOUT, Severity.STOP, ID)], Code.V2G_TIMEOUT),
        ([fault(Code.V2G_TIMEOUT, Severity.STOP, "another")], Code.NONE),
        ([fault(Code.V2G_TIMEOUT, Severity.STOP, "")], Code.NONE),
        ([fault(Code.V2G_TIMEOUT, Severity.EMERGENCY, "another")], Code.NONE),
        ([fault(Code.SLAC_FAILED, Severity.STOP, "another")], Code.NONE),
        ([fault(Code.CHADEMO_FRAME, Severity.STOP, "another")], Code.NONE),
        ([fault(Code.INSULATION, Severity.STOP, "another")], Code.NONE),
        ([fault(Code.OVERVOLTAGE, Severity.EMERGENCY, "another")], Code.OVERVOLTAGE),
        ([fault(Code.MODULE_LOST, Severity.STOP, ID)], Code.MODULE_LOST),
        ([fault(Code.MODULE_LOST, Severity.STOP), fault(Code.MODULE_LOST, Severity.STOP, active=False)], Code.NONE),
    ],
)
def test_the_gravest_fault_that_concerns_this_session(standing: list[Fault], code: Code) -> None:
    heard = Heard()
    for one in standing:
        heard.fault(one)
    i = heard.inputs(SESSION, AT)
    assert i.fault == code and (code or i.severity == Severity.WARNING)


def test_a_restarted_nodes_faults_are_forgotten_and_no_others() -> None:
    heard = Heard()
    heard.fault(fault(Code.DOOR, Severity.STOP))
    heard.fault(fault(Code.ROBOT_JAM, Severity.STOP, source="robot"))
    heard.forget_node("power")
    assert heard.inputs(SESSION, AT).fault == Code.ROBOT_JAM


# Ceilings.
def test_ceilings_come_from_whom_they_belong_to() -> None:
    heard = Heard()
    assert heard.ceilings(250.0).supply_power_w == 0.0
    heard.hear(LIMITS)
    heard.hear(replace(LINK, vehicle_max_voltage_v=0.0, bidirectional=True))
    c = heard.ceilings(250.0)
    assert (c.supply_voltage_v, c.supply_current_a, c.supply_power_w) == (900.0, 200.0, 100e3)
    assert (c.export_current_a, c.export_power_w, c.cable_current_a, c.discharge) == (50.0, 20e3, 250.0, True)
    assert c.vehicle_voltage_v == math.inf and c.backend_current_a == math.inf and c.backend_min_power_w == 0.0
    assert heard.ceilings(250.0, 5e3).backend_min_power_w == -5e3
    heard.hear(replace(LINK, vehicle_max_voltage_v=420.0))
    heard.hear(ChargingLimit(AT, max_current_a=60.0, max_power_w=30e3, min_power_w=-7e3))
    c = heard.ceilings(250.0, 5e3)
    assert (c.vehicle_voltage_v, c.discharge) == (420.0, False)
    assert (c.backend_current_a, c.backend_power_w, c.backend_min_power_w) == (60.0, 30e3, -7e3)


@pytest.mark.parametrize(
    ("value", "change", "wakes"),
    [
        (POWER, {"voltage_v": 59.0}, False),
        (POWER, {"voltage_v": 61.0}, True),
        (POWER, {"voltage_v": -61.0}, True),
        (POWER, {"current_a": -4.0}, False),
        (POWER, {"current_a": -6.0}, True),
        (POWER, {"contactors_open": False}, True),
        (POWER, {"insulation": Insulation.FAULT}, True),
        (POWER, {"insulation_permit_number": 8}, True),
        (PILOT, {"state": Pilot.B}, True),
        (PILOT, {"stamp_ns": AT + 1}, False),
        (TARGET, {"purpose": Purpose.NONE}, True),
        (TARGET, {"current_a": 7.0}, False),
        (BAY, {"field_clear": False}, True),
        (BAY, {"occupied": False}, True),
        (BAY, {"immobilised": False}, True),
        (SAFETY, {"emergency_stop": True}, True),
        (SAFETY, {"alive": False}, True),
        (ROBOT, {"mode": RobotMode.PARKED}, True),
        (ROBOT, {"in_contact_zone": False}, True),
        (ROBOT, {"plug_in_inlet": False}, True),
        (ROBOT, {"evse": 2}, True),
        (LIMITS, {"max_current_a": 1.0}, True),
    ],
)
def test_what_wakes_the_loop(value: Any, change: dict[str, Any], wakes: bool) -> None:
    heard = Heard()
    assert heard.hear(value)
    assert heard.hear(replace(value, **change)) is wakes
