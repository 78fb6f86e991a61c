"""Explores every session the flow table can reach, under every input and clock, and asserts the interlocks.

It takes nothing from the code that it judges but the table's own step: phases, links and times are written here anew.
From every session that it reaches, and from every one that a restart restores, it also asks whether the vehicle gets
free: with healthy inputs and a person's reset.

The environment is free: any input may have any value of its domain at any step. So the reachable sessions are a
fixed point of ``step`` over all inputs. Inputs are enumerated lazily: an input is branched on only when the table or
an interlock reads it, which makes the enumeration exhaustive without walking the whole product.

``python -m robot_charger.supervisor.checker`` prints what was explored and each violation with its inputs; with
``--wide`` each input has every value of its kind (more than an hour).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
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
LIMITS = Limits(
    pilot_confirm_s=3.0, linking_s=150.0, wake_after_s=20.0, wake_pulse_s=4.5, cable_check_s=40.0, precharge_s=15.0,
    vehicle_stop_s=20.0, stopping_s=30.0, robot_s=180.0, queue_s=1800.0, max_replugs=1, max_wakes=1, pause_s=3600.0,
)  # fmt: skip
ENDED_LINKS = (Link.ENDED, Link.FAILED, Link.IDLE)
LINKED = (Phase.LINKING, Phase.CABLE_CHECK, Phase.PRECHARGE, Phase.CHARGING)
LATCHING = (Code.EMERGENCY_STOP, Code.FIRE, Code.SAFETY_TRIP)
TEST_PERMIT = 7
# Representative values: one on each side of every threshold that the table or an interlock has.
DOMAINS: dict[str, tuple[Any, ...]] = {
    "pilot": (Pilot.A, Pilot.B, Pilot.C, Pilot.F),
    "voltage_v": (0.0, -400.0),  # a wrong sense of the sign shows itself; WIDE has both
    "current_a": (0.0, -100.0),
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
    "fault": (Code.NONE, Code.MODULE_LOST, Code.FIRE, Code.MAINS_LOST),
    "severity": (Severity.DERATE, Severity.STOP, Severity.EMERGENCY),
}
for _field in fields(Inputs):
    DOMAINS.setdefault(_field.name, (False, True))
WIDE: dict[str, tuple[Any, ...]] = {
    **DOMAINS,
    "pilot": tuple(Pilot),
    "voltage_v": (0.0, 59.0, 61.0, -59.0, -61.0),
    "current_a": (0.0, 4.0, 6.0, -4.0, -6.0),
    "insulation": tuple(Insulation),
    "link": tuple(Link),
    "link_error": (Code.NONE, Code.SLAC_FAILED, Code.LINK_LOST),
    "goal_done_at": (0.0, 1.0),
    "fault": (
        Code.NONE, Code.MODULE_LOST, Code.INSULATION_SELF_TEST, Code.OVERVOLTAGE, Code.EMERGENCY_STOP, Code.FIRE,
        Code.MAINS_LOST, Code.SAFETY_TRIP,
    ),
    "severity": tuple(Severity),
}  # fmt: skip


class LazyInputs:
    """Looks like Inputs; every attribute read for the first time is a choice of its domain, and then kept."""

    def __init__(self, choices: list[list[int]], goal_number: int, domains: dict[str, tuple[Any, ...]]) -> None:
        self._domains = domains
        self._choices = choices
        self._taken = 0
        self._goal = goal_number

    def __getattr__(self, name: str) -> Any:  # Python asks only for what is not there yet
        domain = (self._goal - 1, self._goal) if name == "goal_done" else self._domains[name]
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


def every_input(
    goal_number: int, run: Callable[[LazyInputs], Any], domains: dict[str, tuple[Any, ...]]
) -> Iterator[tuple[LazyInputs, Any]]:
    """Run with every combination of the inputs that the run reads."""
    choices: list[list[int]] = []
    while True:
        lazy = LazyInputs(choices, goal_number, domains)
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
    return i.power_alive and i.contactors_open and -60 < i.voltage_v < 60 and -5 < i.current_a < 5


def _must_latch(i: Any) -> bool:
    return i.emergency_stop or (i.severity == Severity.EMERGENCY and i.fault in LATCHING)


def _class_may_fall(b: Session, s: Session) -> bool:
    """A new session, a pause or renegotiation after a normal end, or another try after an error."""
    pauses = b.shutdown == Shutdown.NORMAL and s.phase == Phase.LINKING
    again = b.shutdown <= Shutdown.ERROR and b.phase == Phase.DISCONNECTING and s.phase == Phase.CONNECTING
    return s.phase == Phase.IDLE or pauses or again


ASSERTIONS: dict[str, Callable[[Session, Session, Any, Commands], bool]] = {
    "1: contact only with a dead output": lambda b, s, i, c: c.zone != Zone.CONTACT or _dead_output(i),
    "1: contact only unlocked": lambda b, s, i, c: (
        c.zone != Zone.CONTACT or not s.mated or i.link in ENDED_LINKS or i.lock in (Lock.UNKNOWN, Lock.UNLOCKED)
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
        c.purpose == Purpose.NONE or i.authorization == Authorization.ACCEPTED
    ),
    "no output under a standing fault": lambda b, s, i, c: (
        c.purpose == Purpose.NONE or i.severity < Severity.STOP or i.fault == Code.NONE
    ),
    "no output to a vehicle that moves": lambda b, s, i, c: c.purpose == Purpose.NONE or (i.occupied and i.immobilised),
    "6: an emergency leads to a latch and to F": lambda b, s, i, c: (
        not _must_latch(i) or (s.emergency_latched and c.pilot == PilotMode.F)
    ),
    "the shutdown class never falls within a session": lambda b, s, i, c: (
        s.shutdown >= b.shutdown or _class_may_fall(b, s)
    ),
    "7: no motion on the uninterruptible supply": lambda b, s, i, c: c.zone == Zone.NONE or i.fault != Code.MAINS_LOST,
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
        i.robot_clear or i.robot_following or s.phase not in LINKED or b.phase not in LINKED
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
    trapped: tuple[Session, ...] = ()  # sessions from which the vehicle does not get free


def gets_free(s: Session, limits: Limits = LIMITS) -> bool:
    """With healthy nodes, a vehicle that wants to leave, an arm that does its work and a person's reset, the bay gets
    empty. A vehicle that is plugged in is unplugged, and never charged."""
    now, plugged = 0.0, s.mated or s.phase in (Phase.STOPPING, Phase.GRASPED, Phase.DISCONNECTING)
    free = False
    for _ in range(60):
        now += 5.0
        calm = Inputs(
            nodes_ready=True, safety_alive=True, bay_alive=True, occupied=not free, immobilised=not free,
            field_clear=True, pilot_alive=True, pilot=Pilot.B if plugged else Pilot.A, power_alive=True,
            supply_available=True, contactors_open=True, voltage_v=0.0, current_a=0.0, link_alive=True, link=Link.ENDED,
            link_session=s.session_id, robot_alive=True, robot_clear=True, plug_in_inlet=plugged, robot_since=now,
            goal_done=s.goal_number, goal_done_at=now, stop_asked="Remote", lock=Lock.UNLOCKED,
            authorization=Authorization.REFUSED,
        )  # fmt: skip
        if s.emergency_latched or s.phase == Phase.FAULTED:
            s, _ = flow.reset(s, calm, now)
        s, _ = flow.step(s, calm, now, limits)
        if s.phase in (Phase.CONNECTING, Phase.MATED):
            plugged = True
        elif s.phase == Phase.DISCONNECTING:
            plugged = False
        free = free or s.phase == Phase.DEPARTING or (s.phase == Phase.POSITIONING and not plugged)
        if s.phase == Phase.IDLE and not plugged:
            return True
    return False


def restored() -> list[Session]:
    """What the supervisor may begin with: nothing, or a session that a restart interrupted (memory.load)."""
    plain = Session(phase=Phase.FAULTED, session_id=SESSION, goal_number=1, stop_reason="x", fault=Code.INTERNAL)
    return [Session(), Session(emergency_latched=True)] + [
        replace(plain, mated=mated, shutdown=shutdown, emergency_latched=shutdown == Shutdown.EMERGENCY, phase=phase)
        for mated in (False, True)
        for shutdown in (Shutdown.ERROR, Shutdown.EMERGENCY)
        for phase in (Phase.FAULTED, Phase.STOPPING)
        if mated or phase == Phase.FAULTED
    ]


def explore(
    max_steps: int = 100_000_000, looking_for: str = "", limits: Limits = LIMITS, wide: bool = False
) -> Exploration:
    """Explore to the fixed point, to ``max_steps``, or until the assertion ``looking_for`` was violated."""
    domains = WIDE if wide else DOMAINS
    assertions = ASSERTIONS | (AC_ASSERTIONS if limits.plain_ac else DC_ASSERTIONS)
    assertions |= ACDP_ASSERTIONS if limits.talks_first else {}
    known = {canonical(s, 0.0) for s in restored()}
    frontier = list(known)
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

            for lazy, (after, commands, broken) in every_input(before.goal_number, run, domains):
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
    trapped = tuple(s for s in known if not gets_free(s, limits))
    phases = frozenset(s.phase for s in known)
    return Exploration(len(known), steps, not frontier, tuple(violations), phases, trapped)


def _explore(job: tuple[Limits, bool]) -> Exploration:
    return explore(limits=job[0], wide=job[1])


KINDS = {"plug first": LIMITS, "ACDP, talk first": ACDP_LIMITS, "GB/T": GBT_LIMITS, "plain AC": AC_LIMITS}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--wide", action="store_true", help="every value of every input")
    wide = parser.parse_args().wide
    broken = False
    with ProcessPoolExecutor(2) as pool:  # two cores, the largest first
        results = list(pool.map(_explore, [(limits, wide) for limits in KINDS.values()]))
    for name, result in zip(KINDS, results, strict=True):
        print(
            f"{name}: {result.sessions} sessions, {result.steps} steps, {len(result.phases)} phases,"
            f" {'complete' if result.complete else 'NOT complete'}, {len(result.violations)} violations,"
            f" {len(result.trapped)} trapped"
        )
        for session in result.trapped[:5]:
            print(f"trapped: {session}")
        for violation in result.violations[:20]:
            print(violation)
        broken |= bool(result.violations or result.trapped or not result.complete)
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
