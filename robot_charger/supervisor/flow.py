"""The session flow as one table: in this phase, when this holds, go there and remember that.

``step`` applies the first rule that fits, again and again until none does; ``command`` derives from the result what
the others are told. Both are pure functions: no clock (``now`` in seconds is an argument), no ROS. Permits follow
the phase's wish only as far as the interlocks let them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from robot_charger.common import duty_cycle
from robot_charger.common.faults import ROBOT_FAULTS, Code, Severity
from robot_charger.supervisor import interlocks
from robot_charger.supervisor.model import Commands, Goal, Inputs, Limits, Session
from robot_charger.supervisor.shutdowns import SHUTDOWNS
from robot_charger.words.values import Authorization, Insulation, Link, Phase, Pilot, PilotMode, Purpose, Shutdown, Zone

LINKED = (Phase.LINKING, Phase.CABLE_CHECK, Phase.PRECHARGE, Phase.CHARGING)
PLUGGED = (Phase.MATED, Phase.RELEASED, *LINKED)
LIVE = (Phase.POSITIONING, Phase.CONNECTING, *PLUGGED, Phase.STOPPING, Phase.GRASPED, Phase.DISCONNECTING)
ENDED_LINKS = (Link.ENDED, Link.FAILED, Link.IDLE)
PLUGGED_PILOTS = (Pilot.B, Pilot.C, Pilot.D)
LEAST_A = 6.0  # plain AC: less cannot be told
CLOSING_LINKS = (Link.STOPPING, Link.WELDING_CHECK, Link.DISCONNECTING)  # the vehicle wants no more energy


@dataclass(frozen=True)
class Context:
    """What a rule looks at."""

    s: Session
    i: Inputs
    now: float
    limits: Limits

    def lasted(self, seconds: float) -> bool:
        """This phase is older than ``seconds``."""
        return self.now - self.s.since > seconds


@dataclass(frozen=True)
class Rule:
    """In one of ``sources``, when ``guard`` holds: remember ``effect`` and go to ``target`` (None = stay)."""

    sources: tuple[Phase, ...]
    event: str
    guard: Callable[[Context], bool]
    target: Phase | None
    effect: Callable[[Context], Session] = lambda c: c.s


# What a rule remembers.
def _ask(c: Context, goal: Goal) -> Session:
    return replace(c.s, goal=goal, goal_number=c.s.goal_number + 1)


def _connect(c: Context) -> Session:
    return replace(_ask(c, Goal.CONNECT), insulation_passed=False, mated=False, text="the robot plugs in")


def _mated(c: Context) -> Session:
    text = "mated: station and vehicle see each other; the robot lets go"
    return replace(_ask(c, Goal.RELEASE), mated=True, insulation_passed=False, text=text)


def _stop(c: Context, shutdown: Shutdown, reason: str, fault: Code = Code.NONE, text: str = "") -> Session:
    """The first fault wins over a mere reason, the graver class over the milder; insulation is void."""
    s = c.s
    if fault and not s.fault:
        s = replace(s, fault=fault, stop_reason=reason)
    elif not s.stop_reason:
        s = replace(s, stop_reason=reason)
    return replace(
        s,
        shutdown=max(s.shutdown, shutdown),
        insulation_passed=False,
        waking=False,
        goal=Goal.NONE,
        text=text or s.text,
    )


def _emergency(c: Context) -> Session:
    fault = c.i.fault if c.i.severity == Severity.EMERGENCY and c.i.fault else Code.EMERGENCY_STOP
    s = _stop(c, Shutdown.EMERGENCY, "EmergencyStop", fault, "emergency: everything off, the arm holds")
    return replace(s, emergency_latched=True, replug=False)


def _error(reason: str, fault: Code | None = None, text: str = "") -> Callable[[Context], Session]:
    def effect(c: Context) -> Session:
        return _stop(c, Shutdown.ERROR, reason, c.i.fault if fault is None else fault, text)

    return effect


def _stopped_by_fault(c: Context) -> Session:
    return _error("Other", text=f"stopped by a fault: {c.i.fault.name.lower().replace('_', ' ')}")(c)


def _normal(reason: str, text: str) -> Callable[[Context], Session]:
    return lambda c: _stop(c, Shutdown.NORMAL, c.i.stop_asked or reason, text=text)


def _goal_failed(c: Context) -> Session:
    fault = ROBOT_FAULTS[c.i.goal_error] or Code.ROBOT_ARM  # nothing is broken, but the arm did not do it
    return _stop(c, Shutdown.ERROR, "Other", fault, f"the robot gave up: {fault.name.lower()}")


def _link_failed(c: Context) -> Session:
    """Interlock 5: a failed match may be replugged a counted number of times; it says so."""
    fault = c.i.link_error or Code.SLAC_FAILED
    s = _stop(c, Shutdown.ERROR, "Other", fault, _link_text(c, "no conversation with the vehicle"))
    return _maybe_replug(c, s)


def _ended_before_contact(c: Context) -> Session:
    if c.i.link == Link.ENDED:
        return _stop(c, Shutdown.NORMAL, c.i.stop_asked or "StoppedByEV", text="the vehicle wants no plug")
    return _stop(c, Shutdown.ERROR, "Other", _link_code(c), "no conversation with the vehicle: it stays unplugged")


def _lost_while_connecting(c: Context) -> Session:
    """The arm stops what it does and takes the plug home."""
    s = _stop(c, Shutdown.ERROR, "Other", _link_code(c), "the conversation broke off while the robot plugged in")
    return _ask(replace(c, s=s), Goal.DISCONNECT)


def _link_code(c: Context) -> Code:
    return c.i.link_error or Code.LINK_LOST


def _link_text(c: Context, text: str) -> str:
    """Plain AC: there is no conversation, all that fails is a vehicle that shows state D."""
    return "the vehicle asks for ventilation, which this outlet does not have" if c.limits.plain_ac else text


def _call_again(c: Context) -> Session:
    """State F for a moment: the vehicle looks up and matches anew ([V2G3-M06-07])."""
    text = "no match: state F calls the vehicle"
    return replace(c.s, waking=True, woken_at=c.now, wakes=c.s.wakes + 1, since=c.now, text=text)


def _pause(c: Context) -> Session:
    """Interlock 2: a pause voids the insulation result."""
    return replace(
        c.s,
        shutdown=Shutdown.NONE,
        stop_reason="",
        insulation_passed=False,
        test_permit=0,
        woken_at=-1.0,
        wakes=0,
        paused=True,
        starved=not c.i.power_left,
        text="paused by the vehicle: the plug stays in",
    )


def _renegotiate(c: Context) -> Session:
    """As after a pause, the insulation is tested anew."""
    text = "the vehicle negotiates anew: nothing flows until its next cable check"
    return replace(
        c.s, shutdown=Shutdown.NONE, stop_reason="", insulation_passed=False, test_permit=0, wakes=0, text=text
    )


def _self_test_failed(c: Context) -> Session:
    s = _stop(c, Shutdown.ERROR, "Other", Code.INSULATION_SELF_TEST, "the insulation monitor failed its self-test")
    return _maybe_replug(c, s)


def _maybe_replug(c: Context, s: Session) -> Session:
    # ACDP: nobody is left to ask for the plug; plain AC: there was no conversation that could fail.
    if s.replugs >= c.limits.max_replugs or c.limits.talks_first or c.limits.plain_ac:
        return replace(s, replug=False)
    return replace(s, replug=True, replugs=s.replugs + 1, text=f"{s.text}: replug {s.replugs + 1}")


def _replugged(c: Context) -> Session:
    s = replace(_connect(c), replug=False, shutdown=Shutdown.NONE, stop_reason="", fault=Code.NONE)
    return replace(s, woken_at=-1.0, wakes=0, paused=False, starved=False, text="second try")


def _says(text: str) -> Callable[[Context], Session]:
    return lambda c: replace(c.s, text=text)


def _test_begins(c: Context) -> Session:
    return replace(
        c.s, test_permit=0, insulation_passed=False, waking=False, paused=False, starved=False, text="insulation test"
    )


def _passed(c: Context) -> Session:
    return replace(c.s, insulation_passed=True, text="insulation valid")


def _unmated(c: Context) -> Session:
    return replace(c.s, mated=False, insulation_passed=False, goal=Goal.NONE)


def _departed(c: Context) -> Session:
    return Session(
        phase=c.s.phase, goal_number=c.s.goal_number, emergency_latched=c.s.emergency_latched, text="bay empty"
    )


def _why_unavailable(i: Inputs) -> str:
    if not i.nodes_ready:
        return "not all nodes are up"
    return "the safety controller is silent" if not i.safety_alive else "switched off by the back end"


# What a rule waits for.
def _goal_over(c: Context) -> bool:
    return c.i.goal_done == c.s.goal_number


def _goal_well(c: Context) -> bool:
    return _goal_over(c) and c.i.goal_error == 0


def _goal_bad(c: Context) -> bool:
    return _goal_over(c) and c.i.goal_error != 0


def _robot_late(c: Context) -> bool:
    """Its own time counts from when it came to this bay; it may be at work for others first."""
    at_work = c.i.robot_since > 0 and c.now - max(c.s.since, c.i.robot_since) > c.limits.robot_s
    return at_work or c.lasted(c.limits.queue_s)


def _bay_empty(c: Context) -> bool:
    return c.i.bay_alive and not c.i.occupied


def _plugged_by_pilot(c: Context) -> bool:
    return c.i.pilot_alive and c.i.pilot in PLUGGED_PILOTS


def _result_is_ours(c: Context) -> bool:
    return c.s.test_permit > 0 and c.i.insulation_permit >= c.s.test_permit


def _needed_node_lost(c: Context) -> bool:
    return not (c.i.power_alive and c.i.pilot_alive and c.i.link_alive)


def _is_ours(c: Context) -> bool:
    """The link says something of this session."""
    return c.i.link_alive and c.i.link_session == c.s.session_id


def _plug_wanted(c: Context) -> bool:
    """ACDP: the arm moves to a vehicle that is authorised and asks for it. Others are plugged in unasked."""
    if not c.limits.talks_first:
        return True
    return _is_ours(c) and c.i.link == Link.CONNECTING and c.i.authorization == Authorization.ACCEPTED


def _conversation_lost(c: Context) -> bool:
    return c.i.link_gone or (c.i.link_alive and (not _is_ours(c) or c.i.link in ENDED_LINKS))


def _emergency_stands(c: Context) -> bool:
    return c.i.emergency_stop or (c.i.severity == Severity.EMERGENCY and c.i.fault != Code.NONE)


def _stop_fault(c: Context) -> bool:
    return c.i.fault != Code.NONE and c.i.severity >= Severity.STOP


def _self_test_fails(c: Context) -> bool:
    told = _result_is_ours(c) and c.i.insulation == Insulation.SELF_TEST_FAILED
    return told or (_stop_fault(c) and c.i.fault == Code.INSULATION_SELF_TEST)


def _conversation_over(c: Context) -> bool:
    return (
        not c.i.link_alive
        or c.i.link in ENDED_LINKS
        or c.i.link == Link.DISCONNECTING  # ACDP: the vehicle asks for it and goes on talking
        or c.i.link_session != c.s.session_id
        or c.lasted(c.limits.stopping_s)
    )


def _unlocked(c: Context) -> bool:
    """CCS: inferred from the ended session and pilot A or B; the force-limited pull is the proof."""
    return not c.i.pilot_alive or c.i.pilot not in (Pilot.C, Pilot.D) or c.lasted(c.limits.stopping_s)


def _unplugging_waits_for(c: Context) -> str:
    """What must be there before the robot takes the plug; empty when all is."""
    if not interlocks.output_is_safe(c.i):
        return "open contactors, less than 60 V and 5 A at the inlet"
    if not _conversation_over(c):
        return "the end of the conversation with the vehicle"
    if not _unlocked(c):
        return "the vehicle to leave state C"
    if not c.i.robot_alive:
        return "the robot node"
    return interlocks.forbids_contact_motion(c.s, c.i)


P = Phase
RULES: tuple[Rule, ...] = (
    # Emergencies, from anywhere.
    Rule((*LIVE, P.DEPARTING), "emergency", _emergency_stands, P.FAULTED, _emergency),
    Rule(
        (P.IDLE, P.UNAVAILABLE),
        "emergency",
        lambda c: _emergency_stands(c) and not c.s.emergency_latched,
        P.UNAVAILABLE,
        lambda c: replace(c.s, emergency_latched=True, text="emergency stop: reset on site"),
    ),
    # Readiness.
    Rule(
        (P.UNAVAILABLE,),
        "ready",
        lambda c: c.i.nodes_ready and c.i.available and c.i.safety_alive and not c.s.emergency_latched,
        P.IDLE,
        lambda c: replace(c.s, text="waiting for a vehicle"),
    ),
    Rule(
        (P.IDLE,),
        "not ready",
        lambda c: not (c.i.nodes_ready and c.i.available and c.i.safety_alive),
        P.UNAVAILABLE,
        lambda c: replace(c.s, text=_why_unavailable(c.i)),
    ),
    # Parking.
    Rule((P.IDLE,), "vehicle arrives", lambda c: c.i.occupied, P.POSITIONING, lambda c: replace(c.s, text="parking")),
    Rule((P.POSITIONING,), "vehicle leaves", _bay_empty, P.IDLE, _departed),
    Rule(
        (P.POSITIONING,),
        "refused before contact",
        lambda c: c.limits.talks_first and c.i.authorization == Authorization.REFUSED,
        P.DEPARTING,
        lambda c: _stop(c, Shutdown.NORMAL, "DeAuthorized", text="not authorised: no plug"),
    ),
    Rule(
        (P.POSITIONING,),
        "conversation ends before contact",
        lambda c: c.limits.talks_first and _is_ours(c) and c.i.link in (Link.ENDED, Link.FAILED),
        P.DEPARTING,
        _ended_before_contact,
    ),
    Rule(
        (P.POSITIONING,),
        "parked",
        lambda c: (
            c.i.immobilised
            and c.i.field_clear
            and c.i.robot_alive
            and c.i.supply_available
            and c.i.store_ok
            and _plug_wanted(c)
            and not _stop_fault(c)
            and not interlocks.forbids_contact_motion(c.s, c.i)
        ),
        P.CONNECTING,
        _connect,
    ),
    # Plugging in.
    Rule(
        (P.CONNECTING,),
        "conversation lost while connecting",
        lambda c: c.limits.talks_first and _conversation_lost(c),
        P.GRASPED,
        _lost_while_connecting,
    ),
    Rule(
        (P.CONNECTING,),
        "leaves before its turn",
        lambda c: _bay_empty(c) and not c.i.robot_since and not _goal_over(c),
        P.DEPARTING,
        lambda c: _stop(c, Shutdown.NORMAL, "EVDisconnected", text="the vehicle left before the robot came"),
    ),
    Rule(
        (P.CONNECTING,),
        "cannot connect, the arm is in the inlet",
        lambda c: _goal_bad(c) and not c.i.robot_clear,
        P.STOPPING,
        _goal_failed,
    ),
    Rule((P.CONNECTING,), "cannot connect", _goal_bad, P.DEPARTING, _goal_failed),
    Rule((P.CONNECTING,), "mated", lambda c: _goal_well(c) and c.i.pilot in PLUGGED_PILOTS, P.MATED, _mated),
    Rule(
        (P.CONNECTING,),
        "pilot does not confirm",
        lambda c: _goal_well(c) and c.now - c.i.goal_done_at > c.limits.pilot_confirm_s,
        P.GRASPED,
        lambda c: _ask(
            replace(c, s=_error("Other", Code.ROBOT_NOT_MATED, "seated, but the pilot shows no vehicle")(c)),
            Goal.DISCONNECT,
        ),
    ),
    Rule((P.MATED,), "let go", lambda c: _goal_well(c) and (c.i.robot_clear or c.i.robot_following), P.RELEASED),
    Rule((P.MATED,), "cannot let go", _goal_bad, P.STOPPING, _goal_failed),
    Rule(
        (P.RELEASED,),
        "stands clear",
        lambda c: c.i.robot_clear or c.i.robot_following,
        P.LINKING,
        _says("the vehicle and the station find each other"),
    ),
    # Faults while plugged in. A failed self-test comes as a result and as a fault: which is heard first is luck.
    Rule((P.CABLE_CHECK,), "monitor fails its self-test", _self_test_fails, P.STOPPING, _self_test_failed),
    Rule(PLUGGED, "fault", _stop_fault, P.STOPPING, _stopped_by_fault),
    Rule(
        LINKED,
        "node lost",
        _needed_node_lost,
        P.STOPPING,
        _error("Other", Code.NODE_LOST, "a node that the session needs fell silent"),
    ),
    Rule(
        LINKED,
        "arm no longer follows",
        lambda c: c.limits.follows and not (c.i.robot_clear or c.i.robot_following),
        P.STOPPING,
        _error("Other", Code.ROBOT_ARM, "the arm holds the mated plug and no longer follows it"),
    ),
    Rule(
        (*PLUGGED,),
        "vehicle gone",
        lambda c: c.i.pilot_alive and c.i.pilot == Pilot.A,
        P.STOPPING,
        _error("EVDisconnected", Code.VEHICLE_GONE, "pilot A: the vehicle is gone"),
    ),
    Rule(
        (P.CABLE_CHECK, P.PRECHARGE, P.CHARGING),
        "vehicle silent",
        lambda c: not c.i.target_live and c.i.link not in (*ENDED_LINKS, *CLOSING_LINKS),
        P.STOPPING,
        _error("Other", Code.V2G_SILENT, "the vehicle's last message is too old"),
    ),
    Rule(
        (P.MATED, P.RELEASED, P.LINKING),
        "refused",
        lambda c: c.i.authorization == Authorization.REFUSED,
        P.STOPPING,
        lambda c: _stop(c, Shutdown.NORMAL, "DeAuthorized", text="not authorised: no transaction"),
    ),
    # The conversation.
    Rule(
        (P.LINKING,),
        "vehicle asleep",
        lambda c: (
            c.limits.wake_after_s > 0
            and c.s.woken_at < 0
            and c.i.pilot == Pilot.B
            and c.i.link in (Link.IDLE, Link.MATCHING)
            and c.lasted(c.limits.wake_after_s)
        ),
        None,
        lambda c: replace(c.s, woken_at=c.now, waking=True, text="the vehicle is silent: state F wakes it"),
    ),
    Rule(
        (P.LINKING,),
        "called",
        lambda c: c.s.waking and c.now - c.s.woken_at > c.limits.wake_pulse_s,
        None,
        lambda c: replace(c.s, waking=False, text="called the vehicle; waiting for its answer"),
    ),
    Rule(
        (P.LINKING,),
        "power for a paused vehicle",
        lambda c: c.s.paused and c.s.starved and c.i.power_left and not c.limits.talks_first,
        None,
        lambda c: replace(
            c.s, starved=False, woken_at=c.now, waking=True, text="there is power again: state F calls the vehicle"
        ),
    ),
    Rule(
        (P.LINKING,),
        "no match: call the vehicle",
        lambda c: (
            c.i.link == Link.FAILED
            and _is_ours(c)
            and c.i.link_error == Code.SLAC_FAILED
            and not c.s.waking
            and c.s.wakes < c.limits.max_wakes
            and not c.limits.talks_first
        ),
        None,
        _call_again,
    ),
    Rule(
        (P.LINKING,),
        "link failed",
        lambda c: c.i.link == Link.FAILED and not c.s.waking,
        P.STOPPING,
        _link_failed,
    ),
    Rule(
        (P.LINKING,),
        "vehicle resumes",
        lambda c: c.s.paused and _is_ours(c) and c.i.link not in (*ENDED_LINKS, Link.PAUSED),
        None,
        lambda c: replace(c.s, paused=False, starved=False, since=c.now, text="the vehicle takes its session up again"),
    ),
    Rule(
        (P.LINKING,),
        "pause takes too long",
        lambda c: c.s.paused and c.lasted(c.limits.pause_s),
        P.STOPPING,
        _normal("StoppedByEV", "the vehicle did not come back from its pause"),
    ),
    Rule(
        (P.LINKING,),
        "vehicle does not get ready",
        lambda c: c.limits.plain_ac and c.lasted(c.limits.linking_s),
        P.STOPPING,
        _normal("Timeout", "the vehicle did not ask for energy"),
    ),
    Rule(
        (P.LINKING,),
        "link takes too long",
        lambda c: not c.s.paused and c.lasted(c.limits.linking_s),
        P.STOPPING,
        _link_failed,
    ),
    Rule(
        (P.LINKING,),
        "vehicle or station stops early",
        lambda c: c.i.link in (Link.ENDED, Link.DISCONNECTING) or bool(c.i.stop_asked),
        P.STOPPING,
        _normal("StoppedByEV", "stopped before charging"),
    ),
    Rule(
        (P.LINKING,),
        "ready for AC",
        lambda c: (
            c.limits.plain_ac
            and c.i.target == Purpose.TRANSFER
            and c.i.authorization == Authorization.ACCEPTED
            and c.i.offer_a >= LEAST_A
            and not interlocks.forbids_plain_ac(c.s, c.i)
            and interlocks.output_is_safe(c.i)
        ),
        P.CHARGING,
        _says("switched on: the vehicle takes what the pilot tells it"),
    ),
    Rule(
        (P.LINKING,),
        "cable check asked",
        lambda c: (
            not c.limits.plain_ac
            and c.i.target == Purpose.INSULATION_TEST
            and c.i.authorization == Authorization.ACCEPTED
            and not interlocks.forbids_purpose(c.s, c.i, Purpose.INSULATION_TEST)
            and interlocks.output_is_safe(c.i)
        ),
        P.CABLE_CHECK,
        _test_begins,
    ),
    Rule(
        (P.CABLE_CHECK,),
        "insulation fault",
        lambda c: _result_is_ours(c) and c.i.insulation == Insulation.FAULT,
        P.STOPPING,
        _error("Other", Code.INSULATION, "insulation below the limit: not retried on this vehicle"),
    ),
    Rule(
        (P.CABLE_CHECK,),
        "insulation valid",
        lambda c: (
            not c.s.insulation_passed
            and _result_is_ours(c)
            and c.i.insulation in (Insulation.VALID, Insulation.WARNING)
        ),
        None,
        _passed,
    ),
    Rule(
        (P.CABLE_CHECK,),
        "precharge asked",
        lambda c: (
            c.s.insulation_passed
            and c.i.target == Purpose.PRECHARGE
            and not interlocks.forbids_purpose(c.s, c.i, Purpose.PRECHARGE)
        ),
        P.PRECHARGE,
        _says("matching the battery's voltage"),
    ),
    Rule(
        (P.CABLE_CHECK,),
        "cable check takes too long",
        lambda c: c.lasted(c.limits.cable_check_s),
        P.STOPPING,
        _error("Timeout", Code.TIMEOUT, "the cable check took too long"),
    ),
    Rule(
        (P.PRECHARGE,),
        "transfer asked",
        lambda c: c.i.target == Purpose.TRANSFER and not interlocks.forbids_purpose(c.s, c.i, Purpose.TRANSFER),
        P.CHARGING,
        _says("energy flows"),
    ),
    Rule(
        (P.PRECHARGE,),
        "precharge takes too long",
        lambda c: c.lasted(c.limits.precharge_s),
        P.STOPPING,
        _error("Timeout", Code.PRECHARGE, "the vehicle's voltage was not reached"),
    ),
    Rule(
        (P.CHARGING,),
        "vehicle renegotiates",
        lambda c: (
            c.i.link == Link.PARAMETERS
            and _is_ours(c)
            and c.i.target == Purpose.NONE
            and not c.i.stop_asked
            and c.s.stop_requested_at < 0
        ),
        P.LINKING,
        _renegotiate,
    ),
    # Stopping.
    Rule(
        (P.CABLE_CHECK, P.PRECHARGE, P.CHARGING),
        "stop asked",
        lambda c: bool(c.i.stop_asked) and c.s.stop_requested_at < 0,
        None,
        lambda c: replace(
            c.s,
            stop_requested_at=c.now,
            shutdown=Shutdown.NORMAL,
            stop_reason=c.i.stop_asked,
            text="asking the vehicle to stop",
        ),
    ),
    Rule(
        (P.CABLE_CHECK, P.PRECHARGE, P.CHARGING),
        "vehicle does not stop",
        lambda c: 0 <= c.s.stop_requested_at < c.now - c.limits.vehicle_stop_s,
        P.STOPPING,
        _normal("Other", "the vehicle did not stop when asked: stopped by the station"),
    ),
    Rule(
        (P.CABLE_CHECK, P.PRECHARGE, P.CHARGING),
        "vehicle ends",
        lambda c: c.i.link in (*CLOSING_LINKS, Link.ENDED),
        P.STOPPING,
        _normal("StoppedByEV", "the vehicle has what it wanted"),
    ),
    Rule(
        (P.CABLE_CHECK, P.PRECHARGE, P.CHARGING),
        "link failed",
        lambda c: c.i.link in (Link.FAILED, Link.IDLE),
        P.STOPPING,
        lambda c: _stop(
            c,
            Shutdown.ERROR,
            "Other",
            _link_code(c),
            _link_text(c, "the conversation broke off"),
        ),
    ),
    Rule(
        (P.STOPPING,),
        "vehicle gone",
        lambda c: c.s.fault == Code.LINK_LOST and c.i.pilot_alive and c.i.pilot == Pilot.A,
        None,
        lambda c: replace(
            c.s, fault=Code.VEHICLE_GONE, stop_reason="EVDisconnected", text="pilot A: the vehicle is gone"
        ),
    ),
    Rule(
        (P.STOPPING,),
        "vehicle drove away",
        lambda c: _bay_empty(c) and interlocks.output_is_safe(c.i),
        P.FAULTED,
        _error("EVDisconnected", Code.VEHICLE_GONE, "the vehicle drove away while plugged in: a person must look"),
    ),
    Rule(
        (P.STOPPING,),
        "vehicle pauses",
        lambda c: (
            c.i.link == Link.PAUSED
            and _is_ours(c)
            and not c.s.paused
            and c.s.shutdown == Shutdown.NORMAL
            and not c.s.fault
            and not c.i.stop_asked
            and interlocks.output_is_safe(c.i)
        ),
        P.LINKING,
        _pause,
    ),
    Rule(
        (P.STOPPING,),
        "vehicle chooses its service anew",
        lambda c: (
            c.i.link == Link.PARAMETERS
            and _is_ours(c)
            and c.s.shutdown == Shutdown.NORMAL
            and not c.s.fault
            and not c.i.stop_asked
            and c.s.stop_requested_at < 0
            and interlocks.output_is_safe(c.i)
        ),
        P.LINKING,
        _renegotiate,
    ),
    Rule(
        (P.STOPPING,),
        "output safe, unlocked",
        lambda c: not _unplugging_waits_for(c),
        P.GRASPED,
        lambda c: _ask(c, Goal.DISCONNECT),
    ),
    # Unplugging.
    Rule((P.GRASPED,), "held", lambda c: c.i.goal_grasped or _goal_well(c), P.DISCONNECTING),
    Rule((P.GRASPED, P.DISCONNECTING), "cannot unplug", _goal_bad, P.FAULTED, _goal_failed),
    Rule(
        (P.DISCONNECTING,),
        "unplugged: try again",
        lambda c: (
            _goal_well(c)
            and c.s.replug
            and not _plugged_by_pilot(c)
            and not interlocks.forbids_contact_motion(c.s, c.i)
        ),
        P.CONNECTING,
        _replugged,
    ),
    Rule(
        (P.DISCONNECTING,),
        "unplugged",
        lambda c: _goal_well(c) and not c.s.replug and not _plugged_by_pilot(c),
        P.DEPARTING,
        _unmated,
    ),
    Rule(
        (P.DISCONNECTING,),
        "pilot still sees the vehicle",
        lambda c: _goal_well(c) and _plugged_by_pilot(c) and c.now - c.i.goal_done_at > c.limits.pilot_confirm_s,
        P.FAULTED,
        _error("Other", Code.ROBOT_STUCK, "the robot says unplugged, the pilot does not: a person must look"),
    ),
    Rule(
        (P.CONNECTING, P.MATED, P.GRASPED, P.DISCONNECTING),
        "robot lost",
        lambda c: not c.i.robot_alive,
        P.FAULTED,
        _error("Other", Code.NODE_LOST, "the robot node fell silent while the arm was at work"),
    ),
    Rule(
        (P.CONNECTING, P.MATED, P.GRASPED, P.DISCONNECTING),
        "robot takes too long",
        _robot_late,
        P.FAULTED,
        _error("Other", Code.TIMEOUT, "the robot took too long: a person must look"),
    ),
    Rule((P.DEPARTING,), "bay empty", _bay_empty, P.IDLE, _departed),
)


def step(s: Session, i: Inputs, now: float, limits: Limits) -> tuple[Session, list[str]]:
    """Apply rules until the phase changes or none fits, so that every phase is told to the others.

    Returns the new session and the events that fired, in order.
    """
    events: list[str] = []
    for _ in RULES:  # rules that stay in their phase fire once each
        context = Context(s, i, now, limits)
        rule = next((r for r in RULES if s.phase in r.sources and r.guard(context)), None)
        if rule is None:
            break
        s = rule.effect(context)
        events.append(rule.event)
        if rule.target is not None and rule.target != s.phase:
            return replace(s, phase=rule.target, since=now), events
    return s, events


def reset(s: Session, i: Inputs, now: float) -> tuple[Session, str]:
    """A person on site acknowledges (interlock 6). Returns the session and why it was refused, or ''.

    It starts nothing: a plug still in the inlet is taken out, a free arm waits for the vehicle to leave.
    """
    if i.emergency_stop:
        return s, "the emergency stop is still pressed"
    if s.phase not in (Phase.FAULTED, Phase.UNAVAILABLE) and not s.emergency_latched:
        return s, "nothing to reset"
    s = replace(s, emergency_latched=False, text="reset on site")
    return (_leave_fault(s, i, now) if s.phase == Phase.FAULTED else s), ""


def reset_from_afar(s: Session, i: Inputs, now: float, unlock: bool = False) -> tuple[Session, str]:
    """The back end asks for a reset, or for the plug (``unlock``: OCPP UnlockConnector). As `reset`, but an emergency
    is reset on site only (interlock 6), and a plug is taken out only where one is."""
    if s.emergency_latched or i.emergency_stop:
        return s, "an emergency is reset on site only"
    if s.phase != Phase.FAULTED:
        return s, "nothing to reset"
    if unlock and not (s.mated or i.plug_in_inlet):
        return s, "no plug is in the vehicle"
    return _leave_fault(replace(s, text="asked for by the back end"), i, now), ""


def _leave_fault(s: Session, i: Inputs, now: float) -> Session:
    plugged = s.mated or i.plug_in_inlet
    return replace(s, phase=Phase.STOPPING if plugged else Phase.DEPARTING, since=now, goal=Goal.NONE)


def waits_for(s: Session, i: Inputs, now: float, limits: Limits) -> str:
    """What a session that stops is held up by, for people; empty when nothing is."""
    return _unplugging_waits_for(Context(s, i, now, limits)) if s.phase == P.STOPPING else ""


def command(s: Session, i: Inputs, limits: Limits) -> Commands:
    """What the others are told, from the phase and the interlocks alone."""
    purpose, reason = _purpose(s, i, limits)
    zone, follow, hold = _zone(s, i, limits)
    pilot, duty = _pilot(s, i, limits)
    return Commands(
        purpose=purpose,
        abrupt=s.shutdown >= Shutdown.ERROR or s.emergency_latched,
        zone=zone,
        follow=follow,
        pilot=pilot,
        duty=duty,
        goal=s.goal if s.phase in (P.CONNECTING, P.MATED, P.GRASPED, P.DISCONNECTING) else Goal.NONE,
        goal_number=s.goal_number,
        reason=reason or hold,
    )


def _purpose(s: Session, i: Inputs, limits: Limits) -> tuple[Purpose, str]:
    if s.phase == P.CABLE_CHECK:
        wish = Purpose.PRECHARGE if s.insulation_passed else Purpose.INSULATION_TEST
        if s.insulation_passed:
            return Purpose.NONE, "insulation valid; waiting for precharge"
    elif s.phase == P.PRECHARGE:
        wish = Purpose.PRECHARGE
    elif s.phase == P.CHARGING:
        wish = Purpose.TRANSFER
    else:
        return Purpose.NONE, s.text
    reason = interlocks.forbids_plain_ac(s, i) if limits.plain_ac else interlocks.forbids_purpose(s, i, wish)
    return (Purpose.NONE, reason) if reason else (wish, "")


def _zone(s: Session, i: Inputs, limits: Limits) -> tuple[Zone, bool, str]:
    if s.phase in (P.CONNECTING, P.MATED, P.GRASPED, P.DISCONNECTING):
        reason = interlocks.forbids_contact_motion(s, i)
        return (Zone.NONE, False, reason) if reason else (Zone.CONTACT, False, "")
    if s.phase in (P.IDLE, P.POSITIONING, P.RELEASED, P.DEPARTING):
        reason = interlocks.forbids_free_motion(s, i)
        return (Zone.NONE, False, reason) if reason else (Zone.FREE, False, "")
    follow = limits.follows and s.phase in (*LINKED, P.STOPPING)
    return Zone.NONE, follow, ""


def _pilot(s: Session, i: Inputs, limits: Limits) -> tuple[PilotMode, float]:
    if s.emergency_latched or s.phase in (P.UNAVAILABLE, P.FAULTED):
        return PilotMode.F, 0.0
    if limits.plain_ac:
        return _told_current(s, i)
    if s.phase == P.LINKING and s.waking:
        return PilotMode.PULSE_F, 0.0
    if s.phase in LINKED:
        return PilotMode.PWM, duty_cycle.DIGITAL_DUTY
    if s.phase == P.STOPPING and s.shutdown in SHUTDOWNS:
        return SHUTDOWNS[s.shutdown].pilot, SHUTDOWNS[s.shutdown].duty
    return PilotMode.STEADY, 0.0


def _told_current(s: Session, i: Inputs) -> tuple[PilotMode, float]:
    """Plain AC: the duty that tells an authorised vehicle its current, rounded down; steady: none."""
    going = s.phase in (P.LINKING, P.CHARGING) and s.stop_requested_at < 0
    if not going or i.authorization != Authorization.ACCEPTED or i.offer_a < LEAST_A:
        return PilotMode.STEADY, 0.0
    return PilotMode.PWM, math.floor(duty_cycle.from_current(i.offer_a) * 1e4 + 1e-6) / 1e4
