"""Explores every session the flow table can reach, under every input and clock, and asserts the interlocks.

The environment is free: any input may have any value of its domain at any step. So the reachable sessions are a
fixed point of ``step`` over all inputs. Inputs are enumerated lazily: an input is branched on only when the table or
an interlock reads it, which makes the enumeration exhaustive without walking the whole product.

``python -m robot_charger.supervisor.checker`` prints what was explored and each violation with its inputs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

from robot_charger.common.faults import Code, Severity
from robot_charger.supervisor import flow
from robot_charger.supervisor.model import Commands, Goal, Inputs, Limits, Session
from robot_charger.supervisor.parameters import SupervisorParameters
from robot_charger.words.values import (
    Authorization,
    Insulation,
    Link,
    Lock,
    Phase,
    Pilot,
    PilotMode,
    Purpose,
    Shutdown,
    Zone,
)

SESSION = "this"
LIMITS = Limits()
TEST_PERMIT = 7
# Representative values: one on each side of every threshold that the table or an interlock has.
DOMAINS: dict[str, tuple[Any, ...]] = {
    "pilot": (Pilot.A, Pilot.B, Pilot.C, Pilot.F),
    "voltage_v": (0.0, 400.0),
    "current_a": (0.0, 100.0),
    "insulation": (Insulation.UNKNOWN, Insulation.VALID, Insulation.FAULT, Insulation.SELF_TEST_FAILED),
    "insulation_permit": (TEST_PERMIT - 1, TEST_PERMIT),
    "link": (
        Link.IDLE,
        Link.SESSION,
        Link.PARAMETERS,
        Link.CHARGING,
        Link.STOPPING,
        Link.ENDED,
        Link.FAILED,
        Link.CONNECTING,
        Link.DISCONNECTING,
        Link.PAUSED,
    ),
    "link_session": (SESSION, "another"),
    "link_error": (Code.NONE, Code.SLAC_FAILED),
    "target": tuple(Purpose),
    "lock": tuple(Lock),
    "offer_a": (0.0, 16.0),
    "goal_error": (0, 7),
    "goal_done_at": (0.0,),
    "robot_since": (0.0, 0.01),
    "authorization": (Authorization.NONE, Authorization.ACCEPTED, Authorization.REFUSED),
    "stop_asked": ("", "Remote"),
    "fault": (Code.NONE, Code.MODULE_LOST),
    "severity": (Severity.DERATE, Severity.STOP, Severity.EMERGENCY),
}
for _field in fields(Inputs):
    DOMAINS.setdefault(_field.name, (False, True))


class LazyInputs:
    """Looks like Inputs; every attribute read for the first time is a choice of its domain, and then kept."""

    def __init__(self, choices: list[list[int]], goal_number: int) -> None:
        self._choices = choices
        self._taken = 0
        self._goal = goal_number

    def __getattr__(self, name: str) -> Any:  # Python asks only for what is not there yet
        domain = (self._goal - 1, self._goal) if name == "goal_done" else DOMAINS[name]
        if self._taken == len(self._choices):
            self._choices.append([0, len(domain)])
        value = domain[self._choices[self._taken][0]]
        self._taken += 1
        setattr(self, name, value)
        return value

    @property
    def read(self) -> tuple[tuple[str, Any], ...]:
        """What was read, with its values."""
        return tuple((name, value) for name, value in vars(self).items() if not name.startswith("_"))


def every_input(goal_number: int, run: Callable[[LazyInputs], Any]) -> Iterator[tuple[LazyInputs, Any]]:
    """Run with every combination of the inputs that the run reads."""
    choices: list[list[int]] = []
    while True:
        lazy = LazyInputs(choices, goal_number)
        yield lazy, run(lazy)
        while choices and choices[-1][0] + 1 == choices[-1][1]:
            choices.pop()
        if not choices:
            return
        choices[-1][0] += 1


@dataclass(frozen=True)
class Violation:
    interlock: str
    before: Session
    after: Session
    inputs: tuple[tuple[str, Any], ...]
    commands: Commands

    def __str__(self) -> str:
        inputs = ", ".join(f"{k}={v}" for k, v in self.inputs)
        return f"{self.interlock}: {self.before.phase.name} -> {self.after.phase.name} with {inputs}"


# Interlocks as assertions over one step: (before, after, inputs, commands) -> holds. They state the demand anew,
# in terms of what was measured, and call nothing of flow or interlocks.
def _dead_output(i: Any) -> bool:
    return i.power_alive and not i.contactors_closed and i.voltage_v < 60 and abs(i.current_a) < 5


ASSERTIONS: dict[str, Callable[[Session, Session, Any, Commands], bool]] = {
    "1: contact only with a dead output": lambda b, s, i, c: c.zone != Zone.CONTACT or _dead_output(i),
    "1: contact only unlocked": lambda b, s, i, c: (
        c.zone != Zone.CONTACT or not s.mated or i.link in flow.ENDED_LINKS or i.lock in (Lock.UNKNOWN, Lock.UNLOCKED)
    ),
    "2: any output only mated, ready, of this session": lambda b, s, i, c: (
        c.purpose == Purpose.NONE or (s.mated and i.pilot in (Pilot.C, Pilot.D) and i.link_session == SESSION)
    ),
    "2: isolation passes only by a result of this test": lambda b, s, i, c: (
        b.insulation_passed
        or not s.insulation_passed
        or (i.insulation_permit >= s.test_permit > 0 and i.insulation in (Insulation.VALID, Insulation.WARNING))
    ),
    "2: a new mating voids the result": lambda b, s, i, c: (
        b.phase != Phase.CONNECTING or s.phase == Phase.CONNECTING or not s.insulation_passed
    ),
    "3: output only with live target, pilot, safety": lambda b, s, i, c: (
        c.purpose == Purpose.NONE or (i.target_live and i.pilot_alive and i.safety_alive and not i.emergency_stop)
    ),
    "4: output only while power, link and store live": lambda b, s, i, c: (
        c.purpose == Purpose.NONE or (i.power_alive and i.link_alive and i.store_ok)
    ),
    "5: an insulation fault is never replugged": lambda b, s, i, c: not (s.replug and s.fault == Code.INSULATION),
    "5: replugs are counted": lambda b, s, i, c: s.replugs <= LIMITS.max_replugs,
    "6: an emergency stays latched": lambda b, s, i, c: not b.emergency_latched or s.emergency_latched,
    "6: latched means off and still": lambda b, s, i, c: (
        not s.emergency_latched or (c.purpose == Purpose.NONE and c.zone == Zone.NONE and c.goal == Goal.NONE)
    ),
    "7: motion only in a clear bay with a live safety controller": lambda b, s, i, c: (
        c.zone == Zone.NONE or (i.field_clear and i.safety_alive and not i.emergency_stop)
    ),
    "7: contact only with an immobilised vehicle": lambda b, s, i, c: c.zone != Zone.CONTACT or i.immobilised,
    "1: the plug counts as out only when the pilot agrees": lambda b, s, i, c: (
        b.phase != Phase.DISCONNECTING
        or s.phase != Phase.DEPARTING
        or i.pilot not in (Pilot.B, Pilot.C, Pilot.D)
        or not i.pilot_alive
    ),
    "output and motion exclude each other": lambda b, s, i, c: c.purpose == Purpose.NONE or c.zone == Zone.NONE,
    "5: wakes are counted": lambda b, s, i, c: s.wakes <= LIMITS.max_wakes,
    "2: a pause voids the result": lambda b, s, i, c: not (s.paused and s.insulation_passed),
    "no transfer after a stop": lambda b, s, i, c: s.shutdown < Shutdown.ERROR or c.purpose == Purpose.NONE,
    "no output without authorisation": lambda b, s, i, c: (
        b.phase != Phase.LINKING or s.phase != Phase.CABLE_CHECK or i.authorization == Authorization.ACCEPTED
    ),
}


DC_ASSERTIONS: dict[str, Callable[[Session, Session, Any, Commands], bool]] = {
    "2: precharge and transfer only locked and isolated": lambda b, s, i, c: (
        c.purpose not in (Purpose.PRECHARGE, Purpose.TRANSFER) or (s.insulation_passed and i.lock == Lock.LOCKED)
    ),
    "DC: the pilot never tells a current": lambda b, s, i, c: c.pilot != PilotMode.PWM or c.duty == 0.05,
}
# And where nobody talks.
AC_LIMITS = replace(LIMITS, plain_ac=True, wake_after_s=0.0)
# CHAdeMO but for the times: the handshake of GB/T comes after the insulation test.
GBT_LIMITS = SupervisorParameters(protocol="gbt", connector="gbt").limits()
AC_ASSERTIONS: dict[str, Callable[[Session, Session, Any, Commands], bool]] = {
    "AC: nothing but transfer": lambda b, s, i, c: c.purpose in (Purpose.NONE, Purpose.TRANSFER),
    "AC: switched on only where it was off, for an authorised vehicle that asks": lambda b, s, i, c: (
        b.phase != Phase.LINKING
        or s.phase != Phase.CHARGING
        or (_dead_output(i) and i.authorization == Authorization.ACCEPTED and i.target == Purpose.TRANSFER)
    ),
    "AC: a current is told only to an authorised vehicle that is not asked to stop": lambda b, s, i, c: (
        c.pilot != PilotMode.PWM
        or (i.authorization == Authorization.ACCEPTED and s.stop_requested_at < 0 and s.shutdown == Shutdown.NONE)
    ),
    "AC: never 5 %, never more than is permitted": lambda b, s, i, c: (
        c.pilot != PilotMode.PWM or 0.1 <= c.duty <= i.offer_a / 60.0
    ),
    "AC: nobody is plugged in again": lambda b, s, i, c: not s.replug,
}
# And where the conversation begins before contact.
ACDP_LIMITS = replace(LIMITS, talks_first=True, follows=True)
ACDP_ASSERTIONS: dict[str, Callable[[Session, Session, Any, Commands], bool]] = {
    "ACDP: the plug goes only to a vehicle that asks for it and is authorised": lambda b, s, i, c: (
        b.phase != Phase.POSITIONING
        or s.phase != Phase.CONNECTING
        or (i.link == Link.CONNECTING and i.link_session == SESSION and i.authorization == Authorization.ACCEPTED)
    ),
    "ACDP: who stopped talking is not plugged in again": lambda b, s, i, c: not s.replug,
    "ACDP: the session ends when the arm that holds the plug no longer follows it": lambda b, s, i, c: (
        i.robot_clear or i.robot_following or s.phase not in flow.LINKED or b.phase not in flow.LINKED
    ),
}


def clocks(s: Session, limits: Limits) -> Iterator[float]:
    """Seconds since the phase began: one value in each interval between the limits that this phase knows."""
    known = {
        Phase.LINKING: (limits.wake_after_s, limits.linking_s, limits.pause_s),
        Phase.CABLE_CHECK: (limits.vehicle_stop_s, limits.cable_check_s),
        Phase.PRECHARGE: (limits.precharge_s, limits.vehicle_stop_s),
        Phase.CHARGING: (limits.vehicle_stop_s,),
        Phase.STOPPING: (limits.stopping_s,),
        Phase.CONNECTING: (limits.pilot_confirm_s, limits.robot_s, limits.queue_s),
        Phase.MATED: (limits.robot_s, limits.queue_s),
        Phase.GRASPED: (limits.robot_s, limits.queue_s),
        Phase.DISCONNECTING: (limits.pilot_confirm_s, limits.robot_s, limits.queue_s),
    }.get(s.phase, ())
    yield 0.1
    for limit in known:
        yield limit + 0.1


def canonical(s: Session, now: float) -> Session:
    """Sessions that behave alike are one: times become 'now', numbers and words become constants.

    What is read in one phase only, and is forgotten on every way back to it, is forgotten when that phase ends.
    """
    if s.phase != Phase.LINKING:
        s = replace(s, woken_at=-1.0, waking=False, wakes=0)
    if s.phase not in (Phase.LINKING, Phase.STOPPING):
        s = replace(s, paused=False, starved=False)
    return replace(
        s,
        since=0.0,
        session_id=SESSION if s.session_id else "",
        goal_number=1 if s.goal_number else 0,
        stop_reason="x" if s.stop_reason else "",
        woken_at=0.0 if s.woken_at >= 0 else -1.0,
        stop_requested_at=0.0 if s.stop_requested_at >= 0 else -1.0,
        fault=s.fault if s.fault in (Code.NONE, Code.INSULATION) else Code.INTERNAL,
        text="",
    )


@dataclass
class Exploration:
    sessions: int = 0
    steps: int = 0
    complete: bool = False
    violations: tuple[Violation, ...] = ()
    phases: frozenset[Phase] = frozenset()


def explore(max_steps: int = 20_000_000, looking_for: str = "", limits: Limits = LIMITS) -> Exploration:
    """Explore to the fixed point, to ``max_steps``, or until the assertion ``looking_for`` was violated."""
    assertions = ASSERTIONS | (AC_ASSERTIONS if limits.plain_ac else DC_ASSERTIONS)
    assertions |= ACDP_ASSERTIONS if limits.talks_first else {}
    first = canonical(Session(), 0.0)
    known = {first}
    frontier = [first]
    steps = 0
    violations: list[Violation] = []
    while frontier and steps < max_steps:
        before = frontier.pop()
        for now in clocks(before, limits):
            seen: set[Session] = set()

            def run(i: Any, before: Session = before, now: float = now) -> tuple[Session, Commands, list[str]]:
                after, _ = flow.step(before, i, now, limits)
                if after.phase == Phase.POSITIONING and not after.session_id:
                    after = replace(after, session_id=SESSION)
                commands = flow.command(after, i, limits)
                if commands.purpose == Purpose.INSULATION_TEST and not after.test_permit:
                    after = replace(after, test_permit=TEST_PERMIT)
                return after, commands, [n for n, holds in assertions.items() if not holds(before, after, i, commands)]

            for lazy, (after, commands, broken) in every_input(before.goal_number, run):
                steps += 1
                for name in broken:
                    violations.append(Violation(name, before, after, lazy.read, commands))
                    if name == looking_for:
                        return Exploration(len(known), steps, False, tuple(violations))
                if after in seen:
                    continue
                seen.add(after)
                successors = [after]
                if after.emergency_latched or after.phase == Phase.FAULTED:
                    for pressed in (False, True):
                        for plugged in (False, True):
                            i = replace(Inputs(), emergency_stop=pressed, plug_in_inlet=plugged)
                            successors.append(flow.reset(after, i, now)[0])
                            successors.append(flow.reset_from_afar(after, i, now)[0])
                for successor in successors:
                    successor = canonical(successor, now)
                    if successor not in known:
                        known.add(successor)
                        frontier.append(successor)
    return Exploration(len(known), steps, not frontier, tuple(violations), frozenset(s.phase for s in known))


KINDS = {"plug first": LIMITS, "ACDP, talk first": ACDP_LIMITS, "GB/T": GBT_LIMITS, "plain AC": AC_LIMITS}


def main() -> int:
    broken = False
    for name, limits in KINDS.items():
        result = explore(limits=limits)
        print(
            f"{name}: {result.sessions} sessions, {result.steps} steps, {len(result.phases)} phases,"
            f" {'complete' if result.complete else 'NOT complete'}, {len(result.violations)} violations"
        )
        for violation in result.violations[:20]:
            print(violation)
        broken |= bool(result.violations)
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
