"""The interlocks, each stated once. Every permit passes through here, whatever the flow wishes.

Numbers are those of docs/safety.md. A predicate returns an empty string when the permit may be given, else the
reason why not, in words for an operator.
"""

from __future__ import annotations

from robot_charger.supervisor.model import Inputs, Session
from robot_charger.words.values import Link, Lock, Pilot, Purpose

SAFE_VOLTAGE_V = 60.0  # IEC 61851-23: touch-safe DC
SAFE_CURRENT_A = 5.0


def output_is_safe(i: Inputs) -> bool:
    """Contactors open, below 60 V and 5 A, and power alive to say so."""
    return (
        i.power_alive and not i.contactors_closed and i.voltage_v < SAFE_VOLTAGE_V and abs(i.current_a) < SAFE_CURRENT_A
    )


def forbids_contact_motion(s: Session, i: Inputs) -> str:
    """Interlocks 1 and 7: the arm enters the contact zone only with a dead, unlocked plug and a clear bay."""
    if reason := forbids_free_motion(s, i):
        return reason
    if not output_is_safe(i):
        return "output is not safe: contactors must be open and the voltage below 60 V"
    if i.lock in (Lock.LOCKED, Lock.FAULT) and s.mated and i.link not in (Link.ENDED, Link.FAILED, Link.IDLE):
        return "the connector is locked"
    if not i.immobilised:
        return "the vehicle is not immobilised"
    return ""


def forbids_free_motion(s: Session, i: Inputs) -> str:
    """Interlock 7: no motion with a breached field, an emergency, or a silent safety controller."""
    if s.emergency_latched or i.emergency_stop:
        return "emergency stop"
    if not i.safety_alive:
        return "the safety controller is silent"
    if not i.field_clear:
        return "the protective field of the bay is breached"
    return ""


def forbids_output(s: Session, i: Inputs) -> str:
    """Interlocks 3 and 4: what any energy at the plug needs."""
    if s.emergency_latched or i.emergency_stop:
        return "emergency stop"
    if not i.safety_alive:
        return "the safety controller is silent"
    if not i.power_alive:
        return "the power node is silent"
    if not i.pilot_alive:
        return "the pilot is silent"
    if i.pilot not in (Pilot.C, Pilot.D):
        return f"the pilot is {i.pilot.name}, not C or D"
    if not i.link_alive:
        return "the vehicle's protocol node is silent"
    if i.link_session != s.session_id or not s.session_id:
        return "the link belongs to another session"
    if not i.target_live:
        return "the vehicle is silent"
    if not s.mated:
        return "not mated"
    if not (i.robot_clear or i.robot_following):
        return "the arm is in the contact zone"
    if i.lock in (Lock.UNLOCKED, Lock.FAULT):
        return "the connector is not locked"
    if not i.store_ok:
        return "the back end's store is broken: the session could not be billed"
    return ""


def forbids_plain_ac(s: Session, i: Inputs) -> str:
    """Interlock 3 for plain AC: what any energy needs. There is no insulation test: the outlet's residual current
    monitor watches instead; and the vehicle locks the plug unseen."""
    return forbids_output(s, i)


def forbids_purpose(s: Session, i: Inputs, purpose: Purpose) -> str:
    """Interlock 2: the insulation test comes first; precharge and transfer only after it passed."""
    if reason := forbids_output(s, i):
        return reason
    if purpose == Purpose.INSULATION_TEST:
        return ""
    if i.lock != Lock.LOCKED:
        return "the connector is not locked"
    if not s.insulation_passed:
        return "insulation has not passed since the last mating"
    return ""
