"""What the supervisor knows and what it commands, as plain values.

``Inputs`` is everything the other nodes said, ``Session`` all that the supervisor itself remembers, ``Commands``
all that it tells.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from robot_charger.common.faults import Code, Severity
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


class Goal(IntEnum):
    """What the robot is asked to do."""

    NONE = 0
    CONNECT = 1
    RELEASE = 2
    DISCONNECT = 3


@dataclass(frozen=True)
class Inputs:
    """Everything the other nodes said, newest first-hand values. The defaults are the safe reading of silence."""

    # Nodes.
    nodes_ready: bool = False  # all nodes this EVSE needs are active
    available: bool = True  # switched on by the back end
    # Bay and safety controller.
    safety_alive: bool = False
    emergency_stop: bool = False
    bay_alive: bool = False  # the bay's sensors were heard within the last second
    occupied: bool = False
    immobilised: bool = False
    field_clear: bool = False
    # Pilot.
    pilot_alive: bool = False
    pilot: Pilot = Pilot.UNKNOWN
    # Power.
    power_alive: bool = False
    supply_available: bool = False
    power_left: bool = False  # supply and back end have something for this vehicle
    contactors_closed: bool = True
    voltage_v: float = 1000.0  # at the vehicle's side of the contactors
    current_a: float = 1000.0
    insulation: Insulation = Insulation.UNKNOWN
    insulation_permit: int = 0  # number of the permit the result belongs to
    offer_a: float = 0.0  # plain AC: current per phase that outlet, cable and back end permit now
    # Vehicle.
    link_alive: bool = False
    link_gone: bool = False  # silent for so long that nobody waits for it any more
    link: Link = Link.IDLE
    link_session: str = ""
    link_error: Code = Code.NONE
    target: Purpose = Purpose.NONE
    target_live: bool = False  # the vehicle's last message is young enough
    lock: Lock = Lock.UNKNOWN
    # Robot.
    robot_alive: bool = False
    robot_clear: bool = False  # no part in the contact zone, or it follows passively
    robot_following: bool = False
    robot_since: float = 0.0  # since when the one arm works for this EVSE [s], 0 = for another or none
    plug_in_inlet: bool = False
    goal_done: int = 0  # number of the goal that ended last
    goal_error: RobotErrorCode = RobotErrorCode.NONE  # of that goal
    goal_done_at: float = 0.0  # when it ended [s]
    goal_grasped: bool = False  # feedback of a running disconnect
    # Back end and people.
    store_ok: bool = True
    authorization: Authorization = Authorization.NONE  # answer for this session's token
    stop_asked: str = ""  # OCPP ReasonEnumType of a person or back end who wants it to stop
    # Faults that stand, of this EVSE or of the station.
    fault: Code = Code.NONE  # the gravest
    severity: Severity = Severity.WARNING  # of that fault


@dataclass(frozen=True)
class Session:
    """All that the supervisor remembers of one EVSE."""

    phase: Phase = Phase.UNAVAILABLE
    since: float = 0.0  # when this phase began [s]
    session_id: str = ""
    goal: Goal = Goal.NONE
    goal_number: int = 0
    mated: bool = False  # plug in the inlet, verified by the pilot
    insulation_passed: bool = False  # since the last mating
    test_permit: int = 0  # number of the first permit of the insulation test that runs
    shutdown: Shutdown = Shutdown.NONE
    stop_reason: str = ""  # OCPP 2.0.1 ReasonEnumType
    stop_requested_at: float = -1.0  # when the vehicle was asked to stop [s], -1 = never
    fault: Code = Code.NONE
    woken_at: float = -1.0  # when a sleeping vehicle was called by the pilot [s], -1 = never
    waking: bool = False  # that call is on the wire now
    replugs: int = 0
    replug: bool = False  # after this unplugging, try again
    wakes: int = 0  # times a vehicle that did not match was called
    paused: bool = False  # the vehicle paused its session; the plug stays in
    starved: bool = False  # when it paused there was no power for it
    emergency_latched: bool = False
    text: str = "starting"

    @property
    def retrying(self) -> bool:
        """Unplugged only to be plugged in again: to the back end the vehicle is still there."""
        going = self.replug and self.phase in (Phase.STOPPING, Phase.GRASPED, Phase.DISCONNECTING)
        return going or (self.replugs > 0 and self.phase in (Phase.CONNECTING, Phase.MATED, Phase.RELEASED))


@dataclass(frozen=True)
class Commands:
    """All that the supervisor tells the others now; derived from Session and Inputs, never remembered."""

    purpose: Purpose = Purpose.NONE
    abrupt: bool = False  # no ramp: an error or an emergency
    zone: Zone = Zone.NONE
    follow: bool = False
    pilot: PilotMode = PilotMode.STEADY
    duty: float = 0.0
    goal: Goal = Goal.NONE
    goal_number: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Limits:
    """Times of the flow [s]. Parameters of the supervisor node."""

    pilot_confirm_s: float = 3.0  # from end of connect to pilot B
    linking_s: float = 150.0  # SLAC, SDP, session and authorisation
    wake_after_s: float = 20.0  # of silence from a plugged vehicle, 0 = it is never called (ISO 15118-3)
    wake_pulse_s: float = 4.5  # state F, at least 4 s (ISO 15118-3 T_step_EF)
    cable_check_s: float = 40.0  # ISO 15118: EVCC gives up at 40 s
    precharge_s: float = 15.0
    vehicle_stop_s: float = 20.0  # from the wish to stop to the vehicle's own stop
    stopping_s: float = 30.0  # from current off to the end of the conversation
    robot_s: float = 180.0  # one goal of the robot, from the moment it works for this EVSE
    queue_s: float = 1800.0  # for the robot that works for others
    unlock_s: float = 5.0  # from the end of the conversation to pilot A or B
    max_replugs: int = 1
    max_wakes: int = 1
    pause_s: float = 3600.0  # a vehicle's pause
    follows: bool = False  # the arm cannot let go: it follows while mated
    talks_first: bool = False  # ACDP: the conversation begins before contact, and the vehicle asks for the plug
    plain_ac: bool = False  # IEC 61851-1 mode 3: nobody talks, the pilot's duty tells the current
