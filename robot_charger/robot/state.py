"""One arm's state: everything that changes while it works, as one value with named fields.

``Senses`` come in with every tick, a ``Command`` goes out. ``Arm`` is what the pieces of the motion logic (sight, feel,
ways, contact, actions) share; ``Part`` is how each of them gets at it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, field

import numpy as np

from robot_charger.robot.description import Connector, Site
from robot_charger.robot.errors import ErrorCode, RobotError
from robot_charger.robot.kinematics import Kinematics
from robot_charger.robot.parameters import RobotParameters
from robot_charger.robot.planner import Planner
from robot_charger.robot.spatial import Array
from robot_charger.words.values import RobotMode as Mode
from robot_charger.words.values import Zone

PERIOD = 0.01  # of one tick [s]
SENSE_AGE = 0.1  # joint states and wrench older than this hold the arm [s]


@dataclass
class Senses:
    """All that is known at one tick. Ages in s, of the sender's stamp; infinite = never."""

    now: float
    q: Array | None = None  # (6,) [rad]
    q_age: float = math.inf
    wrench: Array | None = None  # (6,) in gripper_link's axes at the sensor, tool's weight removed [N, Nm]
    wrench_age: float = math.inf
    gripper_closed: bool = False
    plug_present: bool = False
    end_stop: bool = False
    holster_occupied: bool = False
    tool_age: float = math.inf
    zone: Zone = Zone.NONE  # of the permit of the EVSE it works for
    permit_until: float = -math.inf
    passive_follow: bool = False
    occupied: bool = True
    field_clear: bool = True
    emergency: bool = False
    breached: frozenset[int] = frozenset()  # EVSEs whose bay's field is breached, of all bays


@dataclass(frozen=True)
class Command:
    """What goes to the arm at one tick. ``q`` None: nothing, the arm holds."""

    q: Array | None = None
    grip: bool | None = None
    limp: bool = False  # the arm shall give way to every push


@dataclass
class Result:
    """How an action ended, in the words of the action's result."""

    error: ErrorCode = ErrorCode.NONE
    text: str = ""
    depth: float = 0.0
    lateral: float = 0.0
    peak: float = 0.0
    seconds: float = 0.0
    attempts: int = 0
    following: bool = False
    cause: RobotError | None = None


@dataclass
class Engagement:
    """A plug in an inlet: where, as estimated then and felt, and where the gripper held it."""

    inlet: Array
    face: float
    grip: Array
    connector: Connector
    earlier: Engagement | None = None  # as it was before the release, should the vehicle have moved just then
    base: Array = field(default_factory=lambda: np.zeros(3))  # the cable's pull before contact, see Arm.base [N]
    base_at: Array | None = None


@dataclass
class Touch:
    """Where the plug's nose is and what it feels, in the frame of the estimated inlet."""

    x: float = -1.0  # beyond the mouth's plane [m]
    depth: float = -1.0  # beyond the face: where it was felt, else where the pose tells [m]
    across: tuple[float, float] = (0.0, 0.0)  # y, z [m]
    lateral: float = 0.0
    push: float = 0.0  # [N]
    side: Array = field(default_factory=lambda: np.zeros(2))  # y, z on the tool [N]
    torque: Array = field(default_factory=lambda: np.zeros(3))  # at the nose on the tool [Nm]


# One tick of the motion logic for every ``yield``.
Sequence = Generator[None, None, None]


@dataclass
class Arm:
    """The state of one arm and of the action that it performs. Poses in base_link, lengths m, angles rad."""

    # The action.
    mode: Mode = Mode.UNKNOWN
    bay: int = 0  # EVSE that it works for
    connector: Connector | None = None
    attempt: int = 0
    error: ErrorCode = ErrorCode.NONE  # of the last action
    text: str = ""
    result: Result | None = None
    task: Sequence | None = None  # what runs now
    moving: Mode = Mode.UNKNOWN  # mode of the sequence, shown while the arm is not held
    need: Zone = Zone.FREE  # zone of the permit that the sequence needs here
    started: float = 0.0
    grasped: bool = False  # by this action, a plug
    bound: bool = False  # it cannot let go of the mated plug
    goes_along: bool = False  # it follows the mated plug right now
    engaged: dict[int, Engagement] = field(default_factory=dict)  # plugs in inlets, by EVSE
    last_connector: dict[int, str] = field(default_factory=dict)  # that a goal named, by EVSE

    # Time.
    last_now: float = -math.inf
    clock: float = 0.0  # time in which the arm really could move, see ConnectionRobot.step [s]
    crosses: frozenset[int] = frozenset()  # EVSEs whose bays the present joint motion crosses
    attempt_began: float = 0.0  # on that clock [s]
    held: float | None = None  # how long by now [s]
    lost: float = 0.0  # how long a sensor has been silent by now [s]
    waited: float = 0.0  # for an arm that lags [s]
    rate: float = 1.0  # of the set-point in contact, 0 to 1

    # Set-points.
    q: Array = field(default_factory=lambda: np.zeros(6))  # joint angles
    step: Array = field(default_factory=lambda: np.zeros(6))  # of the last tick
    fresh: bool = True  # they were just taken from the measured angles
    grip: bool | None = None  # command to the gripper in this tick
    nose: Array = field(default_factory=lambda: np.zeros(6))  # of the plug's nose in the inlet's frame
    follow_from: Array = field(default_factory=lambda: np.zeros(6))  # the nose when it began to follow

    limp: bool = False  # the arm is asked to give way to every push
    leaving: bool = False  # it draws back from a force
    closing: bool = False  # the gripper closes on a plug

    # What is felt.
    senses: Senses = field(default_factory=lambda: Senses(0.0))
    gripper: Array = field(default_factory=lambda: np.eye(4))  # gripper_link, the deflection of the mount included
    touch: Touch = field(default_factory=Touch)
    peak: float = 0.0  # largest push of this action, or pull on the way out [N]
    in_contact_zone: bool = False
    tare: Array = field(default_factory=lambda: np.zeros(6))  # of the wrench: the cable's share [N, Nm]
    sag: Array = field(default_factory=lambda: np.eye(4))  # deflection of the mount by plug and cable
    base: Array = field(default_factory=lambda: np.zeros(3))  # the cable's pull in base_link's axes, where [N]
    base_at: Array | None = None  # the gripper was then; None: nothing is held
    load_known: bool = True
    trusted: bool = False  # the wrench was looked at before this action's first motion
    jerked_until: float = -math.inf  # the arm just stood still against its will: its own mass is felt
    drift: float = 0.0  # of the wrench since its last zero, where it was noticed [N]
    unexpected_peak: float = 0.0  # largest force of this action that nothing explains [N]
    last_wrench: list[float] = field(default_factory=lambda: [0.0] * 6)
    changed_at: float = -math.inf  # when the wrench last changed

    # What is seen.
    inlet: Array | None = None  # estimate of the present attempt
    face: float = 0.0  # x of a nose on the inlet's face, where one was felt
    poses: dict[int, deque[tuple[float, Array]]] = field(default_factory=dict)  # stamp and pose, by EVSE
    sigma: dict[int, float] = field(default_factory=dict)  # of the newest pose, by EVSE [m]
    obstacles: dict[int, tuple[float, float, RobotError]] = field(
        default_factory=dict
    )  # in an inlet's place: since, last


@dataclass(frozen=True)
class Equipment:
    """What an arm works with, and what does not change."""

    site: Site
    kinematics: Kinematics
    parameters: RobotParameters
    planner: Planner


class Part:
    """A piece of the motion logic."""

    def __init__(self, equipment: Equipment, arm: Arm) -> None:
        self.equipment, self.arm = equipment, arm
        self.site, self.kinematics = equipment.site, equipment.kinematics
        self.parameters, self.planner = equipment.parameters, equipment.planner
