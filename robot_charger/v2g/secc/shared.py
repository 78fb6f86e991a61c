"""What the rows of all protocols share: authorisation, cable check, precharge, start and stop of the transfer."""

from __future__ import annotations

from collections.abc import Callable

from robot_charger.common.faults import Code
from robot_charger.v2g.secc.table import FAILED, NO_SESSION, Answer, End, Refused, Talk, Tree, Wait
from robot_charger.words.values import Authorization, Insulation, Link, Lock

CONTACTOR_WAIT_S = 3.5  # below the vehicle's 5 s for PowerDeliveryRes
NEW = "OK_NewSessionEstablished"
JOINED = "OK_OldSessionJoined"
CALM = ("NO_ERROR", "NoData")  # DC_EVErrorCode


def set_up(talk: Talk, asked: str, identity: str) -> str:
    """The SessionID of this session, given to ``talk``, and the response code: an old session joined, or a new one."""
    joined = bool(talk.settings.joins) and asked == talk.settings.joins
    if not joined:
        talk.session_id = NO_SESSION
        while not talk.session_id.strip("0"):  # zero means no session
            talk.session_id = talk.settings.random(8).hex().upper()
    talk.begun = True
    talk.say(phase=Link.SESSION, identity=identity if talk.settings.publish_identity else "")
    return JOINED if joined else NEW


def authorized(talk: Talk) -> bool:
    """The station has authorised this vehicle; False while it has not decided. Raises Refused."""
    station = talk.station
    if talk.authorization_since_ns is None:
        talk.authorization_since_ns = talk.now.ns
    if station.authorization == Authorization.ACCEPTED and not talk.stopping:
        talk.authorized = True
        return True
    if station.authorization == Authorization.REFUSED:
        raise Refused(FAILED, Code.AUTHORIZATION, "authorisation was refused")
    if talk.stopping:
        raise Refused(FAILED, Code.NONE, "the station stopped the session before it was authorised")
    if talk.now.after_s(talk.authorization_since_ns) > talk.settings.authorization_timeout_s:
        raise Refused(FAILED, Code.AUTHORIZATION, "no authorisation within the time allowed")
    return False


def insulated(talk: Talk) -> bool:
    """The insulation test has passed; False while it runs. Raises Refused."""
    energy, begins = talk.energy, not talk.energy.testing
    if begins and energy.max_voltage_v <= 0.0:
        text = "the vehicle stated no maximum voltage: the insulation cannot be tested"
        raise Refused(FAILED, Code.V2G_DECODE, text)
    found = energy.test(talk)
    if found == Insulation.SELF_TEST_FAILED:
        raise Refused(FAILED, Code.INSULATION_SELF_TEST, "the insulation monitor failed its self-test")
    if found == Insulation.FAULT:
        raise Refused(FAILED, Code.INSULATION, "the insulation test failed")
    if found is None and talk.stopping and not begins:  # the supervisor may not have heard of the new beginning yet
        energy.end_test(talk)
        raise Refused(FAILED, Code.NONE, "the station stopped the session during the cable check")
    return found is not None


def precharge(talk: Talk, voltage_v: float, current_a: float) -> None:
    """Ask for the precharge. Raises Refused when the station wants to stop."""
    if talk.stopping:
        raise Refused(FAILED, Code.NONE, "the station stopped the session during precharge")
    talk.energy.precharge(talk, voltage_v, current_a)


def start(talk: Talk, answer: Callable[[Talk], Answer], error: str, early: str) -> Wait:
    """The transfer begins once the contactors are closed, at most 3.5 s later. ``error`` and ``early`` are the response
    codes for contactors that do not close and for an output that is not precharged. Raises Refused."""
    if not talk.energy.charging and not talk.energy.precharged(talk):
        volts = f"{talk.station.voltage_v:.0f} V instead of {talk.energy.voltage_v:.0f} V"
        raise Refused(early, Code.V2G_SEQUENCE, f"the vehicle wants to start before the precharge is finished: {volts}")

    fresh = not talk.energy.charging  # a schedule negotiated in the charge loop goes on, and is told to stop there

    def begin(later: Talk) -> Answer:
        if fresh and later.stopping:
            raise Refused(FAILED, Code.NONE, "the station stopped the session before the transfer")
        if not later.station.contactors_closed:
            raise Refused(error, Code.CONTACTOR_FEEDBACK, "the contactors did not close for the transfer")
        later.energy.start(later)
        return answer(later)

    return Wait(lambda later: later.station.contactors_closed or (fresh and later.stopping), _until(talk), begin)


def stop(talk: Talk, answer: Callable[[Talk], Answer], error: str) -> Wait:
    """Nothing is asked for from now on; the answer waits for open contactors, at most 3.5 s."""
    talk.energy.stop(talk)
    return opened(talk, answer, error)


def opened(talk: Talk, answer: Callable[[Talk], Answer], error: str) -> Wait:
    """``answer`` once the contactors are open; ``error`` is the response code if they stay closed."""

    def end(later: Talk) -> Answer:
        if later.station.contactors_closed:
            raise Refused(error, Code.CONTACTOR_WELDED, "the contactors did not open")
        return answer(later)

    return Wait(lambda later: not later.station.contactors_closed, _until(talk), end)


def session_stop(talk: Talk, fields: Tree, pause: bool = False) -> Answer:
    """SessionStopRes: the session ends in order, wherever it is."""
    if talk.phase < Link.STOPPING:
        talk.energy.stop(talk)
    talk.energy.off(talk)
    end = End(Code.NONE, "paused by the vehicle" if pause else "ended in order", in_order=True, paused=pause)
    return Answer(fields, end=end)


def vehicle_error(talk: Talk, error: str, refuse: bool = False) -> None:
    """What the vehicle reports of itself. Before energy flows it is refused (``refuse``); later the vehicle decides."""
    if error in CALM:
        return
    if error == "FAILED_ChargerConnectorLockFault":
        talk.say(lock=Lock.FAULT)
    talk.vehicle_fault = f"the vehicle reports {error}"
    talk.say(text=talk.vehicle_fault)
    if refuse:
        raise Refused(FAILED, Code.V2G_VEHICLE_ERROR, talk.vehicle_fault)


def _until(talk: Talk) -> int:
    return talk.now.ns + round(CONTACTOR_WAIT_S * 1e9)
