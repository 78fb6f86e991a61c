"""The border: what may be believed becomes a value, all else is refused by name, and no danger is hidden."""

from __future__ import annotations

import dataclasses
import math
from enum import IntEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_charger.common.faults import ROBOT_FAULTS
from robot_charger.words import generate, values
from robot_charger.words.border import AHEAD_NS, CHECKS, SAY_NS, UNORDERED, Border, Checkpoint, RefusedError
from robot_charger.words.values import (
    BackendRequest,
    BayState,
    ChargePermit,
    ChargingLimit,
    Code,
    Fault,
    MotionPermit,
    Pilot,
    PilotMode,
    PilotState,
    Purpose,
    Request,
    RobotErrorCode,
    Rule,
    SafetyState,
    Severity,
    VehicleTarget,
    Zone,
)

NOW = 10**15
KINDS = [kind for kind in CHECKS if kind is not values.ModuleState]  # that is a part of another


def message(kind: type, /, **fields: Any) -> SimpleNamespace:
    """A message with the defaults of a good value, as ROS would hand it over: plain numbers."""
    sound = {f.name: f.default for f in dataclasses.fields(kind)}
    sound = {n: int(v) if isinstance(v, IntEnum) else v for n, v in sound.items()}
    rules = {f.name: f.metadata.get("rule", Rule()) for f in dataclasses.fields(kind)}
    sound |= {n: rules[n].low for n, v in sound.items() if type(v) is int and v < rules[n].low}
    return SimpleNamespace(**{**sound, "stamp_ns": NOW, **fields})


class Desk:
    """A checkpoint and what it says."""

    def __init__(self, kind: type) -> None:
        self.said: list[str] = []
        self.border = Border(self.said.append)
        self.checkpoint: Checkpoint[Any] = Checkpoint(self.border, "/topic", kind)

    def __call__(self, kind: type, /, *, now: int = NOW, **fields: Any) -> tuple[Any, bool]:
        return self.checkpoint.take(message(kind, **fields), now)


def bad_fields() -> list[tuple[type, str, Any]]:
    """Every field of every message, with each kind of value that cannot be."""
    found: list[tuple[type, str, Any]] = []
    for kind in KINDS:
        for field in dataclasses.fields(kind):
            rule = field.metadata.get("rule", Rule())
            if rule.enum is not None:
                found += [(kind, field.name, max(rule.enum) + 1), (kind, field.name, 200)]
            elif isinstance(field.default, float):
                found += [(kind, field.name, math.nan)]
                found += [(kind, field.name, v) for v in (math.inf, -math.inf) if not rule.low <= v <= rule.high]
                found += [(kind, field.name, rule.high * 1.01)] if math.isfinite(rule.high) and rule.high else []
                found += [(kind, field.name, rule.low - 1.0)] if math.isfinite(rule.low) else []
            elif field.name.endswith("stamp_ns"):
                found += [(kind, field.name, NOW + ahead) for ahead in (AHEAD_NS + 1, 10**10)]
                found += [(kind, field.name, 2**62)]
    return found


@pytest.mark.parametrize(("kind", "field", "value"), bad_fields(), ids=lambda v: getattr(v, "__name__", str(v)))
def test_what_cannot_be_is_refused_by_name(kind: type, field: str, value: Any) -> None:
    with pytest.raises(RefusedError) as refused:
        CHECKS[kind](message(kind, **{field: value}), NOW)
    assert refused.value.field == field and field in str(refused.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_message_becomes_the_same_value(kind: type) -> None:
    value = CHECKS[kind](message(kind), NOW)
    assert type(value) is kind and value.stamp_ns == NOW


@given(st.integers(0, 2 * AHEAD_NS), st.integers(0, 10**9))
def test_the_age_is_the_larger_of_age_by_stamp_and_age_by_arrival(ahead: int, later: int) -> None:
    if ahead > AHEAD_NS:
        with pytest.raises(RefusedError):
            CHECKS[BayState](message(BayState, stamp_ns=NOW + ahead), NOW)
        return
    value = CHECKS[BayState](message(BayState, stamp_ns=NOW + ahead), NOW)
    assert NOW + later - value.stamp_ns >= later


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in UNORDERED])
def test_a_message_from_the_future_is_not_kept_for_ever(kind: type) -> None:
    desk = Desk(kind)
    desk(kind, stamp_ns=2**62)
    value, sound = desk(kind)
    assert sound and value.stamp_ns == NOW


def test_one_that_another_overtook_is_dropped_and_events_are_not() -> None:
    desk = Desk(BayState)
    assert desk(BayState, stamp_ns=NOW, field_clear=True, immobilised=True)[1]
    assert desk(BayState, stamp_ns=NOW - 1, field_clear=True, immobilised=True) == (None, False)
    assert desk.border.late["/topic"] == 1 and not desk.border.refused
    events = Desk(Fault)
    assert events(Fault, stamp_ns=NOW)[1] and events(Fault, stamp_ns=NOW - 1)[1]


BAD: dict[str, Any] = {"stamp_ns": 2**62}
DANGERS: list[tuple[type, dict[str, Any], dict[str, Any]]] = [
    (SafetyState, {"alive": True, "emergency_stop": True}, {"emergency_stop": True}),
    (SafetyState, {"alive": False}, {"alive": False}),
    (BayState, {"field_clear": False, "immobilised": True}, {"field_clear": False}),
    (BayState, {"field_clear": True, "immobilised": False}, {"immobilised": False}),
    (ChargePermit, {"purpose": 0}, {"purpose": Purpose.NONE, "abrupt": True}),
    (MotionPermit, {"zone": 0}, {"zone": Zone.NONE}),
    (VehicleTarget, {"purpose": 0}, {"purpose": Purpose.NONE}),
    (PilotState, {"state": 1}, {"state": Pilot.A}),
    (values.PilotCommand, {"mode": 3}, {"mode": PilotMode.F, "duty": 0.0}),
    (values.SessionState, {"stop_requested": True}, {"stop_requested": True}),
    (values.SessionState, {"shutdown": 3}, {"shutdown": values.Shutdown.EMERGENCY, "stop_requested": True}),
    (values.SupplyState, {"contactors_closed": True}, {"contactors_closed": True, "contactors_open": False}),
    (values.SupplyState, {"contactors_open": True, "contactor_welded": True}, {"contactor_welded": True}),
    (values.SupplyState, {"contactors_open": False}, {"contactors_open": False}),
    (values.SupplyLimits, {"available": False}, {"available": False}),
    (values.RobotState, {"in_contact_zone": True}, {"in_contact_zone": True}),
]
# The same messages while all is well.
WELL: dict[type, dict[str, Any]] = {
    SafetyState: {"alive": True},
    BayState: {"field_clear": True, "immobilised": True},
    ChargePermit: {"purpose": 3, "number": 7},
    MotionPermit: {"zone": 2, "evse": 1},
    VehicleTarget: {"purpose": 3},
    PilotState: {"state": 3},
    values.PilotCommand: {"mode": 2, "duty": 0.05},
    values.SessionState: {},
    values.SupplyState: {"contactors_open": True},
    values.SupplyLimits: {"available": True},
    values.RobotState: {},
}


@pytest.mark.parametrize(("kind", "fields", "changed"), DANGERS)
def test_the_danger_in_a_refused_message_acts_and_refreshes_nobody(
    kind: type, fields: dict[str, Any], changed: dict[str, Any]
) -> None:
    desk = Desk(kind)
    before, _ = desk(kind, stamp_ns=NOW - 5, **WELL[kind])
    value, sound = desk(kind, **{**fields, **BAD})
    assert not sound and value == dataclasses.replace(before, **changed)
    assert value.stamp_ns == NOW - 5, "it proves nobody alive"


@pytest.mark.parametrize("kind", list(WELL))
def test_a_refused_message_without_a_danger_changes_nothing(kind: type) -> None:
    desk = Desk(kind)
    desk(kind, stamp_ns=NOW - 5, **WELL[kind])
    assert desk(kind, **{**WELL[kind], **BAD}) == (None, False)


def test_a_second_refused_message_does_not_lift_the_danger_of_the_first() -> None:
    desk = Desk(SafetyState)
    desk(SafetyState, stamp_ns=NOW - 5, alive=True)
    assert desk(SafetyState, alive=True, emergency_stop=True, **BAD)[0].emergency_stop
    value, _ = desk(SafetyState, alive=False, **BAD)
    assert value.emergency_stop and not value.alive
    assert not desk(SafetyState, stamp_ns=NOW, alive=True)[0].emergency_stop, "a sound one does"


@pytest.mark.parametrize(
    ("code", "severity", "active", "expected"),
    [
        (99, 99, True, (Code.INTERNAL, Severity.STOP)),
        (504, 99, True, (Code.EMERGENCY_STOP, Severity.STOP)),  # an unknown severity stops, without a latch
        (9999, 4, True, (Code.INTERNAL, Severity.EMERGENCY)),
        (9999, 3, True, (Code.INTERNAL, Severity.STOP)),
        (9999, 1, True, None),
        (504, 99, False, None),  # a fault does not end by a message that cannot be
    ],
)
def test_a_fault_that_cannot_be_stops_as_far_as_it_can_be_read(
    code: int, severity: int, active: bool, expected: tuple[Code, Severity] | None
) -> None:
    value, sound = Desk(Fault)(Fault, code=code, severity=severity, active=active, source="/power", evse=1)
    assert not sound
    if expected is None:
        assert value is None
    else:
        assert (value.code, value.severity) == expected and value.active and value.source == "/power"


def test_a_stop_request_acts_whatever_its_stamp_and_a_start_request_does_not() -> None:
    desk = Desk(BackendRequest)
    value, _ = desk(BackendRequest, kind=2, session_id="s", **BAD)
    assert (value.kind, value.session_id) == (Request.STOP, "s")
    assert desk(BackendRequest, kind=1, session_id="s", authorized=True, **BAD)[0] is None


@pytest.mark.parametrize(
    ("before", "given", "after"),
    [
        ((32.0, 20e3), (math.nan, math.nan), None),  # the last good limit stays
        ((32.0, 20e3), (10.0, math.nan), (10.0, 20e3)),  # what can be read of it lowers, and never lifts
        ((32.0, 20e3), (64.0, math.nan), None),
        (None, (math.nan, 5e3), (0.0, 5e3)),  # without one before it the strictest
        (None, (math.nan, math.nan), (0.0, 0.0)),
        ((math.inf, math.inf), (-1.0, 5e3), (math.inf, 5e3)),
    ],
)
def test_a_limit_that_cannot_be_is_never_no_limit(before: Any, given: Any, after: Any) -> None:
    desk = Desk(ChargingLimit)
    if before:
        desk(ChargingLimit, max_current_a=before[0], max_power_w=before[1])
    value, _ = desk(ChargingLimit, max_current_a=given[0], max_power_w=given[1])
    assert (None if value is None else (value.max_current_a, value.max_power_w)) == after


def test_refusals_are_counted_named_and_said_once_a_second() -> None:
    desk = Desk(VehicleTarget)
    for tenths in range(31):
        desk(VehicleTarget, now=NOW + tenths * SAY_NS // 10, purpose=200)
    assert desk.border.refused["/topic"].count == 31
    assert len(desk.said) == 4 and "purpose = 200 is unknown" in desk.said[0]
    assert "31 times" in desk.border.values()["/topic refused"]


@given(st.sampled_from(KINDS), st.data())
def test_no_message_raises_out_of_the_border(kind: type, data: st.DataObject) -> None:
    strange = st.one_of(
        st.none(), st.integers(-(2**64), 2**64), st.floats(), st.text(max_size=5), st.booleans(), st.just([])
    )
    fields = {f.name: data.draw(strange, label=f.name) for f in dataclasses.fields(kind)}
    desk = Desk(kind)
    value, sound = desk.checkpoint.take(SimpleNamespace(**fields), NOW)
    assert sound or value is None or type(value) is kind


def test_every_error_of_the_robot_has_its_fault() -> None:
    assert set(ROBOT_FAULTS) == set(RobotErrorCode)


def test_the_generated_words_are_current(capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(["--check"]) == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("uint8 phase # enum Nowhere.PHASE", "no set of constants"),
        ("float32 volts # [V] range 0..", "LOW..HIGH"),
        ("uint8 STATE_NEW=1", "name its set"),
        ("what is this", "neither a constant nor a field"),
        ("float32[3] volts", "no plain value"),
    ],
)
def test_an_interface_file_that_cannot_be_read_is_refused_with_its_line(tmp_path: Path, line: str, reason: str) -> None:
    (tmp_path / "msg").mkdir()
    (tmp_path / "msg" / "Odd.msg").write_text(f"uint64 stamp_ns\n{line}\n")
    with pytest.raises(generate.DefinitionError, match=reason):
        generate.page(tmp_path)
