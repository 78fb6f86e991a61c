"""Every guard of the supervisor alone: what it needs, term by term, and its limits to the tick.

A row of ``RULES`` is a context in which a rule fires, and changes each of which must stop it.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from robot_charger.common.faults import Code, Severity
from robot_charger.supervisor import flow, interlocks
from robot_charger.supervisor.model import Commands, Goal, Inputs, Limits, Session
from robot_charger.words.values import (
    Authorization,
    Insulation,
    Link,
    Lock,
    Phase,
    Pilot,
    PilotMode,
    Purpose,
    RobotErrorCode,
    Shutdown,
    Zone,
)

ID = "this"
P = Phase
GOOD = Inputs(
    nodes_ready=True, safety_alive=True, bay_alive=True, occupied=True, immobilised=True, field_clear=True,
    pilot_alive=True, pilot=Pilot.C, power_alive=True, supply_available=True, power_left=True, contactors_open=True,
    voltage_v=0.0, current_a=0.0, link_alive=True, link=Link.CHARGING, link_session=ID, target=Purpose.TRANSFER,
    target_live=True, lock=Lock.LOCKED, robot_alive=True, robot_clear=True, authorization=Authorization.ACCEPTED,
    insulation=Insulation.VALID, insulation_permit=7, offer_a=16.0,
)  # fmt: skip
SESSION = Session(session_id=ID, goal_number=5, mated=True, insulation_passed=True, test_permit=7)
SET = {name: {f.name for f in fields(kind)} for name, kind in (("limits", Limits), ("i", Inputs), ("s", Session))}
LATE = 1e-6

Change = dict[str, Any]


def context(phase: Phase, *changes: Change) -> flow.Context:
    """The good context in a phase, changed: keys are fields of Limits, Inputs or Session, or ``now``."""
    c = flow.Context(replace(SESSION, phase=phase), GOOD, 1.0, Limits())
    for change in changes:
        for name, value in change.items():
            if name == "now":
                c = replace(c, now=value)
            else:
                part = next(p for p, names in SET.items() if name in names)
                c = replace(c, **{part: replace(getattr(c, part), **{name: value})})
    return c


def rule(event: str, phase: Phase) -> flow.Rule:
    return next(r for r in flow.RULES if r.event == event and phase in r.sources)


STOP = {"severity": Severity.STOP, "fault": Code.MODULE_LOST}
FREE = ({"emergency_stop": True}, {"emergency_latched": True}, {"safety_alive": False}, {"field_clear": False},
        {"fault": Code.MAINS_LOST})  # fmt: skip
DEAD = (
    {"power_alive": False},
    {"contactors_open": False},
    {"voltage_v": 60.0},
    {"voltage_v": -60.0},
    {"current_a": 5.0},
    {"current_a": -5.0},
)
CONTACT = (*FREE, *DEAD, {"immobilised": False})
OUTPUT = (
    {"emergency_latched": True},
    {"emergency_stop": True},
    {"safety_alive": False},
    {"power_alive": False},
    {"pilot_alive": False},
    {"pilot": Pilot.A},
    {"pilot": Pilot.B},
    {"pilot": Pilot.E},
    {"pilot": Pilot.F},
    {"pilot": Pilot.UNKNOWN},
    {"link_alive": False},
    {"link_session": "another"},
    {"link_session": "", "session_id": ""},
    {"target_live": False},
    {"mated": False},
    {"occupied": False},
    {"immobilised": False},
    {"robot_clear": False},
    {"lock": Lock.UNLOCKED},
    {"lock": Lock.FAULT},
    {"store_ok": False},
    {"authorization": Authorization.NONE},
    {"authorization": Authorization.REFUSED},
    STOP,
    {"severity": Severity.EMERGENCY, "fault": Code.OVERVOLTAGE},
)
LOCKED = ({"lock": Lock.UNKNOWN}, {"insulation_passed": False})
TALK = {"talks_first": True}
DONE = {"goal_done": 5}
FAILED = {**DONE, "goal_error": RobotErrorCode.JAMMED}
IN_CONNECT = {"link": Link.CONNECTING, **TALK}
OPEN_AND_OVER = {"link": Link.ENDED, "pilot": Pilot.B, "target": Purpose.NONE}
EMERGENCY = {"severity": Severity.EMERGENCY, "fault": Code.OVERVOLTAGE}
ASKED = {"stop_asked": "Remote"}

# phase, event, what makes it fire, and what each stops it. Limits are exact: at the limit it waits, after it it fires.
RULES: list[tuple[Phase, str, Change, tuple[Change, ...]]] = [
    (P.CHARGING, "emergency", {"emergency_stop": True}, ({"emergency_stop": False},)),
    *[
        (
            P.CHARGING,
            "emergency",
            {"severity": Severity.EMERGENCY, "fault": code},
            ({"severity": Severity.STOP}, {"fault": Code.NONE}, {"fault": Code.OVERVOLTAGE}),
        )
        for code in (Code.EMERGENCY_STOP, Code.FIRE, Code.SAFETY_TRIP)
    ],
    (P.IDLE, "emergency", {"emergency_stop": True}, ({"emergency_stop": False}, {"emergency_latched": True})),
    (P.FAULTED, "emergency", {"emergency_stop": True}, ({"emergency_stop": False}, {"emergency_latched": True})),
    (
        P.UNAVAILABLE,
        "ready",
        {},
        ({"nodes_ready": False}, {"available": False}, {"safety_alive": False}, {"emergency_latched": True}),
    ),
    (P.IDLE, "not ready", {"nodes_ready": False}, ({"nodes_ready": True},)),
    (P.IDLE, "not ready", {"available": False}, ({"available": True},)),
    (P.IDLE, "not ready", {"safety_alive": False}, ({"safety_alive": True},)),
    (P.IDLE, "vehicle arrives", {}, ({"occupied": False},)),
    (P.POSITIONING, "vehicle leaves", {"occupied": False}, ({"occupied": True}, {"bay_alive": False})),
    (
        P.POSITIONING,
        "refused before contact",
        {**TALK, "authorization": Authorization.REFUSED},
        ({"talks_first": False}, {"authorization": Authorization.ACCEPTED}),
    ),
    (
        P.POSITIONING,
        "conversation ends before contact",
        {**TALK, "link": Link.ENDED},
        ({"talks_first": False}, {"link_session": "another"}, {"link_alive": False}, {"link": Link.CONNECTING}),
    ),
    (P.POSITIONING, "conversation ends before contact", {**TALK, "link": Link.FAILED}, ({"link": Link.IDLE},)),
    (
        P.POSITIONING,
        "parked",
        {"mated": False},
        (*CONTACT, {"robot_alive": False}, {"supply_available": False}, {"store_ok": False}, STOP),
    ),
    (
        P.POSITIONING,
        "parked",
        {"mated": False, **IN_CONNECT},
        (
            {"link": Link.PARAMETERS},
            {"link_session": "another"},
            {"link_alive": False},
            {"authorization": Authorization.NONE},
        ),
    ),
    (P.POSITIONING, "parked", {"mated": False, "fault": Code.MODULE_LOST, "severity": Severity.DERATE}, (STOP,)),
    (
        P.CONNECTING,
        "conversation lost while connecting",
        {**TALK, "link_gone": True},
        ({"talks_first": False}, {"link_gone": False}),
    ),
    (P.CONNECTING, "conversation lost while connecting", {**TALK, "link_session": "another"}, ({"link_session": ID},)),
    (
        P.CONNECTING,
        "conversation lost while connecting",
        {**TALK, "link": Link.ENDED},
        ({"link": Link.CONNECTING}, {"link_alive": False}),
    ),
    (
        P.CONNECTING,
        "leaves before its turn",
        {"occupied": False},
        ({"occupied": True}, {"bay_alive": False}, {"robot_since": 0.5}, DONE),
    ),
    (
        P.CONNECTING,
        "cannot connect, the arm is in the inlet",
        {**FAILED, "robot_clear": False},
        ({"robot_clear": True}, {"goal_error": RobotErrorCode.NONE}, {"goal_done": 4}),
    ),
    (P.CONNECTING, "cannot connect", FAILED, ({"goal_error": RobotErrorCode.NONE}, {"goal_done": 4})),
    *[
        (
            P.CONNECTING,
            "mated",
            {**DONE, "pilot": pilot},
            ({"goal_done": 4}, {"goal_error": RobotErrorCode.JAMMED}, {"pilot": Pilot.A}),
        )
        for pilot in (Pilot.B, Pilot.C, Pilot.D)
    ],
    (
        P.CONNECTING,
        "pilot does not confirm",
        {**DONE, "goal_done_at": 10.0, "now": 13.0 + LATE},
        (
            {"now": 13.0},
            {"goal_done": 4},
            {"goal_error": RobotErrorCode.JAMMED},
            {"goal_done_at": 10.1},
            {"pilot_confirm_s": 3.1},
        ),
    ),
    (P.MATED, "let go", DONE, ({"goal_done": 4}, {"goal_error": RobotErrorCode.JAMMED}, {"robot_clear": False})),
    (P.MATED, "let go", {**DONE, "robot_clear": False, "robot_following": True}, ({"robot_following": False},)),
    (P.MATED, "cannot let go", FAILED, ({"goal_error": RobotErrorCode.NONE}, {"goal_done": 4})),
    (P.RELEASED, "stands clear", {}, ({"robot_clear": False},)),
    (P.RELEASED, "stands clear", {"robot_clear": False, "robot_following": True}, ({"robot_following": False},)),
    (
        P.CABLE_CHECK,
        "monitor fails its self-test",
        {"insulation": Insulation.SELF_TEST_FAILED},
        ({"insulation": Insulation.FAULT}, {"insulation_permit": 6}, {"test_permit": 0}),
    ),
    (
        P.CABLE_CHECK,
        "monitor fails its self-test",
        {"fault": Code.INSULATION_SELF_TEST, "severity": Severity.STOP},
        ({"severity": Severity.DERATE}, {"fault": Code.INSULATION}),
    ),
    *[
        (
            phase,
            "emergency shutdown",
            EMERGENCY,
            ({"severity": Severity.STOP}, {"fault": Code.NONE}, {"fault": Code.FIRE}),
        )
        for phase in (P.MATED, P.CHARGING)
    ],
    (
        P.STOPPING,
        "emergency shutdown",
        EMERGENCY,
        ({"severity": Severity.STOP}, {"shutdown": Shutdown.EMERGENCY}, {"fault": Code.FIRE}),
    ),
    (P.CHARGING, "fault", STOP, ({"severity": Severity.DERATE}, {"fault": Code.NONE})),
    *[
        (P.CHARGING, "node lost", {name: False}, ({name: True},))
        for name in ("power_alive", "pilot_alive", "link_alive")
    ],
    *[
        (phase, "vehicle moved", {name: False}, ({name: True},))
        for phase in (P.MATED, P.RELEASED, P.LINKING, P.CABLE_CHECK, P.PRECHARGE, P.CHARGING)
        for name in ("occupied", "immobilised")
    ],
    (
        P.CHARGING,
        "arm no longer follows",
        {"follows": True, "robot_clear": False},
        ({"follows": False}, {"robot_clear": True}, {"robot_following": True}),
    ),
    (P.CHARGING, "vehicle gone", {"pilot": Pilot.A}, ({"pilot": Pilot.B}, {"pilot_alive": False})),
    (
        P.CHARGING,
        "vehicle silent",
        {"target_live": False},
        (
            {"target_live": True},
            *(
                {"link": k}
                for k in (Link.ENDED, Link.FAILED, Link.IDLE, Link.STOPPING, Link.WELDING_CHECK, Link.DISCONNECTING)
            ),
        ),
    ),
    *[
        (phase, "refused", {"authorization": Authorization.REFUSED}, ({"authorization": Authorization.ACCEPTED},))
        for phase in (P.MATED, P.RELEASED, P.LINKING)
    ],
    *[
        (
            P.LINKING,
            "vehicle asleep",
            {"pilot": Pilot.B, "link": link, "now": 20.0 + LATE},
            ({"now": 20.0}, {"pilot": Pilot.C}, {"link": Link.SESSION}, {"woken_at": 0.0}, {"wake_after_s": 0.0}),
        )
        for link in (Link.IDLE, Link.MATCHING)
    ],
    (
        P.LINKING,
        "vehicle asleep",
        {"pilot": Pilot.B, "link": Link.IDLE, "wake_after_s": 1.0, "now": 1.0 + LATE},
        ({"now": 1.0},),
    ),
    (
        P.LINKING,
        "called",
        {"waking": True, "woken_at": 10.0, "now": 14.5 + LATE},
        ({"waking": False}, {"now": 14.5}, {"woken_at": 10.1}),
    ),
    (
        P.LINKING,
        "power for a paused vehicle",
        {"paused": True, "starved": True},
        ({"paused": False}, {"starved": False}, {"power_left": False}, TALK),
    ),
    (
        P.LINKING,
        "no match: call the vehicle",
        {"link": Link.FAILED, "link_error": Code.SLAC_FAILED},
        (
            {"link": Link.IDLE},
            {"link_session": "another"},
            {"link_alive": False},
            {"link_error": Code.LINK_LOST},
            {"waking": True},
            {"wakes": 1},
            TALK,
        ),
    ),
    (P.LINKING, "link failed", {"link": Link.FAILED}, ({"link": Link.IDLE}, {"waking": True})),
    (
        P.LINKING,
        "vehicle resumes",
        {"paused": True},
        (
            {"paused": False},
            {"link_session": "another"},
            *({"link": k} for k in (Link.ENDED, Link.FAILED, Link.IDLE, Link.PAUSED)),
        ),
    ),
    (P.LINKING, "pause takes too long", {"paused": True, "now": 3600.0 + LATE}, ({"paused": False}, {"now": 3600.0})),
    (
        P.LINKING,
        "vehicle does not get ready",
        {"plain_ac": True, "now": 150.0 + LATE},
        ({"plain_ac": False}, {"now": 150.0}),
    ),
    (P.LINKING, "link takes too long", {"now": 150.0 + LATE}, ({"paused": True}, {"now": 150.0})),
    (P.LINKING, "vehicle or station stops early", {"link": Link.ENDED}, ({"link": Link.FAILED},)),
    (P.LINKING, "vehicle or station stops early", {"link": Link.DISCONNECTING}, ({"link": Link.SESSION},)),
    (P.LINKING, "vehicle or station stops early", ASKED, ({"stop_asked": ""},)),
    (
        P.LINKING,
        "ready for AC",
        {"plain_ac": True, "offer_a": 6.0},
        (
            *OUTPUT,
            *DEAD,
            {"plain_ac": False},
            {"target": Purpose.NONE},
            {"target": Purpose.PRECHARGE},
            {"authorization": Authorization.NONE},
            {"offer_a": 5.9},
        ),
    ),
    (
        P.LINKING,
        "cable check asked",
        {"target": Purpose.INSULATION_TEST},
        (
            *OUTPUT,
            *DEAD,
            {"plain_ac": True},
            {"target": Purpose.PRECHARGE},
            {"authorization": Authorization.NONE},
            {"authorization": Authorization.REFUSED},
        ),
    ),
    (
        P.CABLE_CHECK,
        "insulation fault",
        {"insulation": Insulation.FAULT},
        ({"insulation": Insulation.VALID}, {"insulation_permit": 6}, {"test_permit": 0}),
    ),
    *[
        (
            P.CABLE_CHECK,
            "insulation valid",
            {"insulation": result, "insulation_passed": False},
            (
                {"insulation_passed": True},
                {"insulation_permit": 6},
                {"test_permit": 0},
                {"insulation": Insulation.TESTING},
                {"insulation": Insulation.FAULT},
            ),
        )
        for result in (Insulation.VALID, Insulation.WARNING)
    ],
    (P.CABLE_CHECK, "precharge asked", {"target": Purpose.PRECHARGE}, (*OUTPUT, *LOCKED, {"target": Purpose.TRANSFER})),
    (P.CABLE_CHECK, "cable check takes too long", {"now": 40.0 + LATE}, ({"now": 40.0},)),
    (P.PRECHARGE, "transfer asked", {}, (*OUTPUT, *LOCKED, {"target": Purpose.PRECHARGE})),
    (P.PRECHARGE, "precharge takes too long", {"now": 15.0 + LATE}, ({"now": 15.0},)),
    (
        P.CHARGING,
        "vehicle renegotiates",
        {"link": Link.PARAMETERS, "target": Purpose.NONE},
        (
            {"link": Link.CHARGING},
            {"link_session": "another"},
            {"target": Purpose.TRANSFER},
            ASKED,
            {"stop_requested_at": 0.0},
        ),
    ),
    (P.CHARGING, "stop asked", ASKED, ({"stop_asked": ""}, {"stop_requested_at": 0.0})),
    (
        P.CHARGING,
        "vehicle does not stop",
        {"stop_requested_at": 0.0, "now": 20.0 + LATE},
        ({"now": 20.0}, {"stop_requested_at": -1.0}),
    ),
    *[
        (P.CHARGING, "vehicle ends", {"link": k}, ({"link": Link.CHARGING},))
        for k in (Link.STOPPING, Link.WELDING_CHECK, Link.DISCONNECTING, Link.ENDED)
    ],
    *[(P.CHARGING, "link failed", {"link": k}, ({"link": Link.CHARGING},)) for k in (Link.FAILED, Link.IDLE)],
    (P.STOPPING, "vehicle gone", {"fault": Code.NONE, "pilot": Pilot.A}, ()),
    (P.STOPPING, "vehicle drove away", {"occupied": False}, (*DEAD, {"occupied": True}, {"bay_alive": False})),
    (
        P.STOPPING,
        "vehicle pauses",
        {"link": Link.PAUSED, "shutdown": Shutdown.NORMAL},
        (
            *DEAD,
            {"link": Link.ENDED},
            {"link_session": "another"},
            {"paused": True},
            {"shutdown": Shutdown.ERROR},
            {"shutdown": Shutdown.NONE},
            ASKED,
        ),
    ),
    (
        P.STOPPING,
        "vehicle chooses its service anew",
        {"link": Link.PARAMETERS, "shutdown": Shutdown.NORMAL},
        (
            *DEAD,
            {"link": Link.ENDED},
            {"link_session": "another"},
            {"shutdown": Shutdown.ERROR},
            ASKED,
            {"stop_requested_at": 0.0},
        ),
    ),
    (
        P.STOPPING,
        "output safe, unlocked",
        OPEN_AND_OVER,
        (*CONTACT, {"pilot": Pilot.C}, {"pilot": Pilot.D}, {"link": Link.STOPPING}, {"robot_alive": False}),
    ),
    (
        P.STOPPING,
        "output safe, unlocked",
        {**OPEN_AND_OVER, "link": Link.DISCONNECTING, "lock": Lock.UNLOCKED},
        ({"lock": Lock.LOCKED}, {"lock": Lock.FAULT}),
    ),
    (
        P.STOPPING,
        "output safe, unlocked",
        {**OPEN_AND_OVER, "link": Link.CHARGING, "lock": Lock.UNLOCKED, "link_session": "another"},
        ({"link_session": ID},),
    ),
    (
        P.STOPPING,
        "output safe, unlocked",
        {**OPEN_AND_OVER, "link": Link.CHARGING, "lock": Lock.UNLOCKED, "link_alive": False},
        ({"link_alive": True},),
    ),
    (
        P.STOPPING,
        "output safe, unlocked",
        {**OPEN_AND_OVER, "pilot": Pilot.C, "pilot_alive": False},
        ({"pilot_alive": True},),
    ),
    (
        P.STOPPING,
        "output safe, unlocked",
        {"pilot": Pilot.C, "lock": Lock.UNLOCKED, "now": 30.0 + LATE},
        ({"now": 30.0},),
    ),
    (P.GRASPED, "held", {"goal_grasped": True}, ({"goal_grasped": False},)),
    (P.GRASPED, "held", DONE, ({"goal_done": 4}, {"goal_error": RobotErrorCode.JAMMED})),
    (P.DISCONNECTING, "cannot unplug", FAILED, ({"goal_done": 4}, {"goal_error": RobotErrorCode.NONE})),
    (
        P.DISCONNECTING,
        "unplugged: try again",
        {**DONE, **OPEN_AND_OVER, "replug": True, "pilot": Pilot.A},
        (*CONTACT, {"goal_done": 4}, {"goal_error": RobotErrorCode.JAMMED}, {"replug": False}, {"pilot": Pilot.B}),
    ),
    (
        P.DISCONNECTING,
        "unplugged",
        {**DONE, "pilot": Pilot.A},
        (
            {"goal_done": 4},
            {"goal_error": RobotErrorCode.JAMMED},
            {"replug": True},
            {"pilot": Pilot.B},
            {"pilot": Pilot.C},
            {"pilot": Pilot.D},
        ),
    ),
    (P.DISCONNECTING, "unplugged", {**DONE, "pilot": Pilot.B, "pilot_alive": False}, ({"pilot_alive": True},)),
    (
        P.DISCONNECTING,
        "pilot still sees the vehicle",
        {**DONE, "pilot": Pilot.B, "goal_done_at": 10.0, "now": 13.0 + LATE},
        (
            {"now": 13.0},
            {"goal_done_at": 10.1},
            {"goal_done": 4},
            {"goal_error": RobotErrorCode.JAMMED},
            {"pilot": Pilot.A},
            {"pilot_alive": False},
        ),
    ),
    (P.GRASPED, "robot lost", {"robot_alive": False}, ({"robot_alive": True},)),
    (
        P.GRASPED,
        "robot takes too long",
        {"robot_since": 10.0, "now": 190.0 + LATE},
        ({"now": 190.0}, {"robot_since": 0.0}, {"since": 11.0}),
    ),
    (P.GRASPED, "robot takes too long", {"since": 10.0, "robot_since": 5.0, "now": 190.0 + LATE}, ({"now": 190.0},)),
    (P.GRASPED, "robot takes too long", {"now": 1800.0 + LATE}, ({"now": 1800.0},)),
    (P.DEPARTING, "bay empty", {"occupied": False}, ({"occupied": True}, {"bay_alive": False})),
]
ROWS = [r for r in RULES if r[1:3] != ("vehicle gone", {"fault": Code.NONE, "pilot": Pilot.A})]


@pytest.mark.parametrize("row", ROWS, ids=lambda r: f"{r[0].name}-{r[1]}")
def test_a_rule_fires_and_each_of_its_terms_is_needed(row: Any) -> None:
    phase, event, fires, stops = row
    guard = rule(event, phase).guard
    assert guard(context(phase, fires)), "it does not fire at all"
    for stop in stops:
        assert not guard(context(phase, fires, stop)), f"it fires with {stop}"


def test_every_rule_has_a_row() -> None:
    named = {(event, rule(event, phase)) for phase, event, _, _ in RULES}
    assert {(r.event, r) for r in flow.RULES} <= named


def test_who_is_gone_while_stopping_had_lost_the_link_before() -> None:
    guard = rule("vehicle gone", P.STOPPING).guard
    s = replace(SESSION, phase=P.STOPPING, fault=Code.LINK_LOST)
    c = flow.Context(s, replace(GOOD, pilot=Pilot.A), 1.0, Limits())
    assert guard(c)
    assert not guard(replace(c, s=replace(s, fault=Code.NODE_LOST)))
    assert not guard(replace(c, i=replace(c.i, pilot=Pilot.B))) and not guard(
        replace(c, i=replace(c.i, pilot_alive=False))
    )


def test_a_session_with_a_fault_neither_pauses_nor_chooses_anew() -> None:
    for event, link in (("vehicle pauses", Link.PAUSED), ("vehicle chooses its service anew", Link.PARAMETERS)):
        c = context(P.STOPPING, {"link": link, "shutdown": Shutdown.NORMAL})
        assert rule(event, P.STOPPING).guard(c)
        assert not rule(event, P.STOPPING).guard(replace(c, s=replace(c.s, fault=Code.TIMEOUT)))


# Interlocks.
@pytest.mark.parametrize(
    "change", [{}, {"voltage_v": 59.9}, {"voltage_v": -59.9}, {"current_a": 4.9}, {"current_a": -4.9}], ids=str
)
def test_an_output_that_is_safe(change: Change) -> None:
    assert interlocks.output_is_safe(context(P.STOPPING, change).i)


@pytest.mark.parametrize("change", DEAD, ids=str)
def test_an_output_that_is_not_safe(change: Change) -> None:
    assert not interlocks.output_is_safe(context(P.STOPPING, change).i)


@pytest.mark.parametrize(
    "change", [{}, *({"link": k} for k in (Link.ENDED, Link.FAILED, Link.IDLE)), {"mated": False}], ids=str
)
def test_contact_motion_that_is_allowed(change: Change) -> None:
    locked = {"lock": Lock.LOCKED} if change else {"lock": Lock.UNLOCKED}
    c = context(P.GRASPED, locked, change)
    assert not interlocks.forbids_contact_motion(c.s, c.i)
    c = context(P.GRASPED, {"lock": Lock.UNKNOWN})
    assert not interlocks.forbids_contact_motion(c.s, c.i)


@pytest.mark.parametrize("change", [*CONTACT, {"lock": Lock.LOCKED}, {"lock": Lock.FAULT}], ids=str)
def test_contact_motion_that_is_forbidden(change: Change) -> None:
    c = context(P.GRASPED, {"lock": Lock.UNLOCKED}, change)
    assert interlocks.forbids_contact_motion(c.s, c.i)


@pytest.mark.parametrize("change", FREE, ids=str)
def test_free_motion(change: Change) -> None:
    good, c = context(P.IDLE), context(P.IDLE, change)
    assert not interlocks.forbids_free_motion(good.s, good.i) and interlocks.forbids_free_motion(c.s, c.i)


@pytest.mark.parametrize("purpose", [Purpose.INSULATION_TEST, Purpose.PRECHARGE, Purpose.TRANSFER])
@pytest.mark.parametrize("change", [{}, *OUTPUT], ids=str)
def test_what_any_output_needs(purpose: Purpose, change: Change) -> None:
    c = context(P.CHARGING, change)
    assert bool(interlocks.forbids_purpose(c.s, c.i, purpose)) == bool(change)
    assert bool(interlocks.forbids_plain_ac(c.s, c.i)) == bool(change)


@pytest.mark.parametrize("change", LOCKED, ids=str)
def test_only_the_insulation_test_comes_unlocked_and_first(change: Change) -> None:
    c = context(P.CHARGING, change)
    assert not interlocks.forbids_purpose(c.s, c.i, Purpose.INSULATION_TEST)
    assert interlocks.forbids_purpose(c.s, c.i, Purpose.PRECHARGE) and interlocks.forbids_purpose(
        c.s, c.i, Purpose.TRANSFER
    )


def test_an_arm_that_follows_may_stay_and_pilot_d_is_ready_too() -> None:
    for change in ({"robot_clear": False, "robot_following": True}, {"pilot": Pilot.D}):
        c = context(P.CHARGING, change)
        assert not interlocks.forbids_output(c.s, c.i)


# Class and latch.
def stepped(phase: Phase, *changes: Change) -> Session:
    c = context(phase, *changes)
    return flow.step(c.s, c.i, c.now, c.limits)[0]


@pytest.mark.parametrize("code", [Code.EMERGENCY_STOP, Code.FIRE, Code.SAFETY_TRIP])
def test_only_these_latch(code: Code) -> None:
    s = stepped(P.CHARGING, {"severity": Severity.EMERGENCY, "fault": code})
    assert (s.phase, s.shutdown, s.emergency_latched, s.fault) == (P.FAULTED, Shutdown.EMERGENCY, True, code)
    assert ("clear the bay" in s.text) == (code == Code.FIRE) and s.goal == Goal.NONE and not s.replug


def test_an_emergency_of_another_code_is_of_that_class_and_ends_by_itself() -> None:
    s = stepped(P.CHARGING, EMERGENCY, {"replug": True})
    assert (s.phase, s.shutdown, s.emergency_latched, s.fault) == (
        P.STOPPING,
        Shutdown.EMERGENCY,
        False,
        Code.OVERVOLTAGE,
    )
    assert s.stop_reason == "Other" and not s.replug and not s.insulation_passed and "overvoltage" in s.text
    c = replace(context(P.STOPPING, OPEN_AND_OVER), s=s)
    assert flow.command(s, c.i, c.limits).pilot == PilotMode.F and flow.command(s, c.i, c.limits).abrupt
    s = flow.step(s, c.i, 5.0, c.limits)[0]
    assert (s.phase, s.goal, s.shutdown) == (P.GRASPED, Goal.DISCONNECT, Shutdown.EMERGENCY)


def test_the_class_never_falls() -> None:
    s = stepped(P.STOPPING, {**EMERGENCY, "shutdown": Shutdown.ERROR})
    assert s.shutdown == Shutdown.EMERGENCY
    s = stepped(P.CHARGING, {"shutdown": Shutdown.ERROR, **ASKED, "stop_requested_at": 0.0, "now": 30.0})
    assert s.shutdown == Shutdown.ERROR


@pytest.mark.parametrize(
    ("change", "code", "reason"),
    [
        ({"occupied": False, "immobilised": False}, Code.VEHICLE_GONE, "EVDisconnected"),
        ({"immobilised": False}, Code.ROBOT_VEHICLE_MOVED, "Other"),
        ({"bay_alive": False, "occupied": False, "immobilised": False}, Code.NODE_LOST, "Other"),
    ],
)
def test_a_vehicle_that_moves_stops_the_output_and_holds_the_arm(change: Change, code: Code, reason: str) -> None:
    c = context(P.CHARGING, change)
    assert flow.command(c.s, c.i, c.limits).purpose == Purpose.NONE
    s = stepped(P.CHARGING, change)
    assert (s.phase, s.shutdown, s.fault, s.stop_reason) == (P.STOPPING, Shutdown.ERROR, code, reason)
    assert flow.command(s, c.i, c.limits).zone == Zone.NONE


# Commands.
def told(phase: Phase, *changes: Change) -> Commands:
    c = context(phase, *changes)
    return flow.command(c.s, c.i, c.limits)


@pytest.mark.parametrize(
    ("phase", "changes", "purpose"),
    [
        (P.CABLE_CHECK, {"insulation_passed": False}, Purpose.INSULATION_TEST),
        (P.CABLE_CHECK, {}, Purpose.NONE),
        (P.PRECHARGE, {}, Purpose.PRECHARGE),
        (P.CHARGING, {}, Purpose.TRANSFER),
        (P.CHARGING, {"lock": Lock.UNKNOWN}, Purpose.NONE),
        (P.CHARGING, {"lock": Lock.UNKNOWN, "plain_ac": True}, Purpose.TRANSFER),
        *((phase, {}, Purpose.NONE) for phase in Phase if phase not in (P.CABLE_CHECK, P.PRECHARGE, P.CHARGING)),
    ],
)
def test_the_purpose_of_a_phase(phase: Phase, changes: Change, purpose: Purpose) -> None:
    assert told(phase, changes).purpose == purpose


@pytest.mark.parametrize("phase", list(Phase))
def test_the_zone_of_a_phase(phase: Phase) -> None:
    contact = (P.CONNECTING, P.MATED, P.GRASPED, P.DISCONNECTING)
    free = (P.IDLE, P.POSITIONING, P.RELEASED, P.DEPARTING)
    zone = Zone.CONTACT if phase in contact else Zone.FREE if phase in free else Zone.NONE
    assert told(phase, {"lock": Lock.UNLOCKED}).zone == zone
    assert told(phase, {"field_clear": False}).zone == Zone.NONE
    follows = phase in (P.LINKING, P.CABLE_CHECK, P.PRECHARGE, P.CHARGING, P.STOPPING)
    assert told(phase, {"follows": True}).follow == follows and not told(phase).follow
    goal = Goal.CONNECT if phase in contact else Goal.NONE
    assert told(phase, {"goal": Goal.CONNECT}).goal == goal


@pytest.mark.parametrize(
    ("phase", "changes", "pilot", "duty"),
    [
        (P.CHARGING, {}, PilotMode.PWM, 0.05),
        (P.LINKING, {}, PilotMode.PWM, 0.05),
        (P.LINKING, {"waking": True}, PilotMode.PULSE_F, 0.0),
        (P.CHARGING, {"waking": True}, PilotMode.PWM, 0.05),
        (P.CHARGING, {"emergency_latched": True}, PilotMode.F, 0.0),
        (P.UNAVAILABLE, {}, PilotMode.F, 0.0),
        (P.FAULTED, {}, PilotMode.F, 0.0),
        (P.IDLE, {}, PilotMode.STEADY, 0.0),
        (P.STOPPING, {}, PilotMode.STEADY, 0.0),
        (P.STOPPING, {"shutdown": Shutdown.NORMAL}, PilotMode.PWM, 0.05),
        (P.STOPPING, {"shutdown": Shutdown.ERROR}, PilotMode.STEADY, 0.0),
        (P.STOPPING, {"shutdown": Shutdown.EMERGENCY}, PilotMode.F, 0.0),
        (P.CHARGING, {"plain_ac": True}, PilotMode.PWM, 0.2666),
        (P.LINKING, {"plain_ac": True, "offer_a": 6.0}, PilotMode.PWM, 0.1),
        (P.LINKING, {"plain_ac": True, "offer_a": 5.9}, PilotMode.STEADY, 0.0),
        (P.LINKING, {"plain_ac": True, "authorization": Authorization.NONE}, PilotMode.STEADY, 0.0),
        (P.CHARGING, {"plain_ac": True, "stop_requested_at": 0.0}, PilotMode.STEADY, 0.0),
        (P.STOPPING, {"plain_ac": True}, PilotMode.STEADY, 0.0),
    ],
)
def test_the_pilot(phase: Phase, changes: Change, pilot: PilotMode, duty: float) -> None:
    commands = told(phase, changes)
    assert commands.pilot == pilot and commands.duty == pytest.approx(duty, abs=1e-9)


@pytest.mark.parametrize(
    ("changes", "abrupt"),
    [({}, False), ({"shutdown": Shutdown.NORMAL}, False), ({"shutdown": Shutdown.ERROR}, True),
     ({"shutdown": Shutdown.EMERGENCY}, True), ({"emergency_latched": True}, True)],
)  # fmt: skip
def test_errors_are_abrupt(changes: Change, abrupt: bool) -> None:
    assert told(P.STOPPING, changes).abrupt == abrupt


# Reset.
@pytest.mark.parametrize(
    ("phase", "changes", "after", "latched", "refused"),
    [
        (P.FAULTED, {"emergency_latched": True}, P.STOPPING, False, ""),
        (P.FAULTED, {"emergency_latched": True, "emergency_stop": True}, P.FAULTED, True, "pressed"),
        (P.FAULTED, {"mated": False}, P.DEPARTING, False, ""),
        (P.FAULTED, {"mated": False, "plug_in_inlet": True}, P.STOPPING, False, ""),
        (P.UNAVAILABLE, {"emergency_latched": True}, P.UNAVAILABLE, False, ""),
        (P.CHARGING, {}, P.CHARGING, False, "nothing"),
        (P.CHARGING, {"emergency_latched": True}, P.CHARGING, False, ""),
    ],
)
def test_a_reset(phase: Phase, changes: Change, after: Phase, latched: bool, refused: str) -> None:
    c = context(phase, changes)
    s, why = flow.reset(c.s, c.i, 9.0)
    assert (s.phase, s.emergency_latched) == (after, latched) and refused in why and bool(why) == bool(refused)
    assert s.goal == Goal.NONE


def test_a_reset_plugs_nothing_in_again() -> None:
    c = context(P.FAULTED, {"replug": True, "emergency_latched": True})
    assert not flow.reset(c.s, c.i, 9.0)[0].replug
    assert not stepped(P.FAULTED, {"replug": True, "emergency_stop": True}).replug


def test_limits_without_a_word_are_those_of_the_docs() -> None:
    limits = Limits()
    assert [getattr(limits, f.name) for f in fields(Limits)] == [
        3.0, 150.0, 20.0, 4.5, 40.0, 15.0, 20.0, 30.0, 180.0, 1800.0, 5.0, 1, 1, 3600.0, False, False, False
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("phase", "changes", "text"),
    [
        (P.CHARGING, {"lock": Lock.UNKNOWN}, "the connector is not locked"),
        (P.CABLE_CHECK, {}, "insulation valid; waiting for precharge"),
        (P.STOPPING, {}, "starting"),
        (P.CHARGING, {}, ""),
        (P.GRASPED, {"lock": Lock.UNLOCKED}, "starting"),
        (P.GRASPED, {"lock": Lock.LOCKED}, "the connector is locked"),
    ],
)
def test_why_nothing_is_permitted(phase: Phase, changes: Change, text: str) -> None:
    assert told(phase, changes).reason == text


# What rules remember: (phase, changes, what the session is after one step).
EFFECTS: list[tuple[Phase, Change, Change]] = [
    (
        P.POSITIONING,
        {"mated": False},
        {"phase": P.CONNECTING, "goal": Goal.CONNECT, "goal_number": 6, "insulation_passed": False, "mated": False},
    ),
    (
        P.CONNECTING,
        {**DONE, "mated": False},
        {"phase": P.MATED, "goal": Goal.RELEASE, "goal_number": 6, "mated": True, "insulation_passed": False},
    ),
    (
        P.CONNECTING,
        FAILED,
        {
            "phase": P.DEPARTING,
            "shutdown": Shutdown.ERROR,
            "fault": Code.ROBOT_JAM,
            "stop_reason": "Other",
            "goal": Goal.NONE,
        },
    ),
    (P.CONNECTING, {**DONE, "goal_error": RobotErrorCode.CANCELLED}, {"fault": Code.ROBOT_ARM, "phase": P.DEPARTING}),
    (
        P.CONNECTING,
        {**DONE, "pilot": Pilot.A, "now": 9.0},
        {"phase": P.GRASPED, "goal": Goal.DISCONNECT, "fault": Code.ROBOT_NOT_MATED},
    ),
    (
        P.CONNECTING,
        {**TALK, "link_gone": True},
        {"phase": P.GRASPED, "goal": Goal.DISCONNECT, "fault": Code.LINK_LOST, "shutdown": Shutdown.ERROR},
    ),
    (P.CONNECTING, {**TALK, "link": Link.FAILED, "link_error": Code.V2G_TLS}, {"fault": Code.V2G_TLS}),
    (
        P.POSITIONING,
        {**TALK, "link": Link.ENDED},
        {"phase": P.DEPARTING, "shutdown": Shutdown.NORMAL, "stop_reason": "StoppedByEV"},
    ),
    (P.POSITIONING, {**TALK, "link": Link.ENDED, **ASKED}, {"stop_reason": "Remote", "shutdown": Shutdown.NORMAL}),
    (
        P.POSITIONING,
        {**TALK, "link": Link.FAILED},
        {"phase": P.DEPARTING, "shutdown": Shutdown.ERROR, "fault": Code.LINK_LOST},
    ),
    (
        P.LINKING,
        {"link": Link.FAILED, "wakes": 1, "link_error": Code.SLAC_FAILED},
        {"phase": P.STOPPING, "fault": Code.SLAC_FAILED, "replug": True, "replugs": 1, "shutdown": Shutdown.ERROR},
    ),
    (
        P.LINKING,
        {"link": Link.FAILED, "wakes": 1, "replugs": 1},
        {"phase": P.STOPPING, "fault": Code.SLAC_FAILED, "replug": False, "replugs": 1},
    ),
    (P.LINKING, {"link": Link.FAILED, **TALK}, {"phase": P.STOPPING, "replug": False, "replugs": 0}),
    (
        P.LINKING,
        {"link": Link.FAILED, "plain_ac": True, "wakes": 1},
        {"phase": P.STOPPING, "replug": False, "replugs": 0},
    ),
    (
        P.LINKING,
        {"link": Link.FAILED, "link_error": Code.SLAC_FAILED, "now": 3.0},
        {"phase": P.LINKING, "waking": True, "woken_at": 3.0, "wakes": 1, "since": 3.0},
    ),
    (P.LINKING, {"pilot": Pilot.B, "link": Link.IDLE, "now": 21.0}, {"waking": True, "woken_at": 21.0}),
    (
        P.LINKING,
        {"waking": True, "woken_at": 1.0, "now": 6.0, "link": Link.SESSION},
        {"waking": False, "woken_at": 1.0},
    ),
    (
        P.LINKING,
        {"paused": True, "starved": True, "link": Link.PAUSED, "now": 4.0},
        {"starved": False, "paused": True, "waking": True, "woken_at": 4.0},
    ),
    (
        P.LINKING,
        {"paused": True, "starved": True, "target": Purpose.NONE, **TALK, "now": 4.0},
        {"paused": False, "starved": False, "since": 4.0},
    ),
    (P.LINKING, ASKED, {"phase": P.STOPPING, "stop_reason": "Remote", "shutdown": Shutdown.NORMAL}),
    (P.LINKING, {"link": Link.ENDED}, {"phase": P.STOPPING, "stop_reason": "StoppedByEV"}),
    (
        P.LINKING,
        {"authorization": Authorization.REFUSED},
        {"phase": P.STOPPING, "stop_reason": "DeAuthorized", "shutdown": Shutdown.NORMAL},
    ),
    (
        P.LINKING,
        {"target": Purpose.INSULATION_TEST},
        {"phase": P.CABLE_CHECK, "test_permit": 0, "insulation_passed": False, "paused": False, "waking": False},
    ),
    (
        P.CABLE_CHECK,
        {"insulation_passed": False, "target": Purpose.NONE},
        {"insulation_passed": True, "phase": P.CABLE_CHECK},
    ),
    (
        P.CABLE_CHECK,
        {"insulation": Insulation.FAULT},
        {
            "phase": P.STOPPING,
            "fault": Code.INSULATION,
            "replug": False,
            "shutdown": Shutdown.ERROR,
            "insulation_passed": False,
        },
    ),
    (
        P.CABLE_CHECK,
        {"insulation": Insulation.SELF_TEST_FAILED},
        {"phase": P.STOPPING, "fault": Code.INSULATION_SELF_TEST, "replug": True, "replugs": 1},
    ),
    (
        P.CHARGING,
        {**STOP, "goal": Goal.RELEASE, "waking": True},
        {
            "phase": P.STOPPING,
            "fault": Code.MODULE_LOST,
            "shutdown": Shutdown.ERROR,
            "goal": Goal.NONE,
            "waking": False,
            "insulation_passed": False,
        },
    ),
    (
        P.CHARGING,
        {**ASKED, "now": 8.0},
        {"phase": P.CHARGING, "stop_requested_at": 8.0, "stop_reason": "Remote", "shutdown": Shutdown.NORMAL},
    ),
    (
        P.CHARGING,
        {"link": Link.PARAMETERS, "target": Purpose.NONE, "wakes": 1},
        {
            "phase": P.LINKING,
            "shutdown": Shutdown.NONE,
            "insulation_passed": False,
            "test_permit": 0,
            "stop_reason": "",
            "wakes": 0,
        },
    ),
    (
        P.CHARGING,
        {"link": Link.STOPPING},
        {"phase": P.STOPPING, "stop_reason": "StoppedByEV", "shutdown": Shutdown.NORMAL, "fault": Code.NONE},
    ),
    (
        P.CHARGING,
        {"link": Link.STOPPING, **ASKED, "stop_requested_at": 0.5, "stop_reason": "Local"},
        {"stop_reason": "Local"},
    ),
    (
        P.STOPPING,
        {"link": Link.PAUSED, "shutdown": Shutdown.NORMAL, "woken_at": 1.0, "wakes": 1, "power_left": False},
        {
            "phase": P.LINKING,
            "paused": True,
            "starved": True,
            "insulation_passed": False,
            "test_permit": 0,
            "woken_at": -1.0,
            "wakes": 0,
            "shutdown": Shutdown.NONE,
            "stop_reason": "",
        },
    ),
    (P.STOPPING, {"link": Link.PAUSED, "shutdown": Shutdown.NORMAL}, {"paused": True, "starved": False}),
    (P.STOPPING, OPEN_AND_OVER, {"phase": P.GRASPED, "goal": Goal.DISCONNECT, "goal_number": 6}),
    (
        P.STOPPING,
        {"occupied": False},
        {"phase": P.FAULTED, "fault": Code.VEHICLE_GONE, "stop_reason": "EVDisconnected"},
    ),
    (
        P.DISCONNECTING,
        {**DONE, "pilot": Pilot.A, "goal": Goal.DISCONNECT},
        {"phase": P.DEPARTING, "mated": False, "insulation_passed": False, "goal": Goal.NONE},
    ),
    (
        P.DISCONNECTING,
        {
            **DONE,
            **OPEN_AND_OVER,
            "pilot": Pilot.A,
            "replug": True,
            "shutdown": Shutdown.ERROR,
            "paused": True,
            "starved": True,
            "woken_at": 1.0,
            "wakes": 1,
            "stop_reason": "x",
        },
        {
            "phase": P.CONNECTING,
            "goal": Goal.CONNECT,
            "goal_number": 6,
            "replug": False,
            "shutdown": Shutdown.NONE,
            "mated": False,
            "paused": False,
            "starved": False,
            "woken_at": -1.0,
            "wakes": 0,
            "stop_reason": "",
            "insulation_passed": False,
        },
    ),
    (
        P.DEPARTING,
        {"occupied": False, "emergency_latched": False},
        {"phase": P.IDLE, "session_id": "", "goal_number": 5, "mated": False, "test_permit": 0},
    ),
    (P.DEPARTING, {"occupied": False, "emergency_latched": True}, {"phase": P.IDLE, "emergency_latched": True}),
    (P.IDLE, {"emergency_stop": True}, {"phase": P.UNAVAILABLE, "emergency_latched": True}),
    (
        P.FAULTED,
        {"emergency_stop": True},
        {"phase": P.FAULTED, "emergency_latched": True, "shutdown": Shutdown.EMERGENCY},
    ),
]


@pytest.mark.parametrize("row", EFFECTS, ids=lambda r: f"{r[0].name}-{'-'.join(map(str, r[1]))}")
def test_what_a_step_remembers(row: Any) -> None:
    phase, changes, after = row
    s = stepped(phase, changes)
    assert {name: getattr(s, name) for name in after} == after
    if s.phase != phase:
        assert s.since == context(phase, changes).now


def test_the_first_fault_is_kept_and_the_graver_class() -> None:
    c = context(P.CHARGING, STOP)
    before = replace(c.s, fault=Code.TIMEOUT, stop_reason="Timeout", shutdown=Shutdown.NORMAL)
    s = flow.step(before, c.i, 2.0, c.limits)[0]
    assert (s.fault, s.stop_reason, s.shutdown) == (Code.TIMEOUT, "Timeout", Shutdown.ERROR)
    s = flow.step(replace(c.s, stop_reason="Local"), c.i, 2.0, c.limits)[0]
    assert (s.fault, s.stop_reason) == (Code.MODULE_LOST, "Other"), "a fault wins over a mere reason"


def test_what_a_stopping_session_waits_for() -> None:
    def waits(**changes: Any) -> str:
        c = context(P.STOPPING, OPEN_AND_OVER, changes)
        return flow.waits_for(c.s, c.i, c.now, c.limits)

    assert waits() == "" and "open contactors" in waits(contactors_open=False)
    assert "conversation" in waits(link=Link.STOPPING) and "state C" in waits(pilot=Pilot.C)
    assert "robot" in waits(robot_alive=False) and "field" in waits(field_clear=False)
    c = context(P.CHARGING, {"contactors_open": False})
    assert flow.waits_for(c.s, c.i, c.now, c.limits) == ""


@pytest.mark.parametrize(
    ("changes", "text"),
    [({"nodes_ready": False}, "nodes"), ({"safety_alive": False}, "safety"), ({"available": False}, "back end")],
)
def test_why_a_bay_is_not_available(changes: Change, text: str) -> None:
    assert text in stepped(P.IDLE, changes).text


@pytest.mark.parametrize(
    ("session", "retrying"),
    [
        ({"phase": P.STOPPING, "replug": True}, True), ({"phase": P.GRASPED, "replug": True}, True),
        ({"phase": P.STOPPING}, False), ({"phase": P.CONNECTING, "replugs": 1}, True), ({"phase": P.CONNECTING}, False),
        ({"phase": P.CHARGING, "replug": True, "replugs": 1}, False),
    ],
)  # fmt: skip
def test_a_session_that_is_plugged_in_again(session: Change, retrying: bool) -> None:
    assert replace(SESSION, **session).retrying == retrying
