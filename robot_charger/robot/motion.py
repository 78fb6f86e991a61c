"""What the robot does, as plain Python: one ``step`` every 10 ms, sequences as generators.

No clock, no I/O: time and measurements come with each step, joint set-points and the gripper's command go out.
Every ``yield`` in a sequence is one tick. A sequence only runs while the motion permit covers where the arm is;
otherwise the arm gets nothing new and holds.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from robot_charger.robot.description import Bay, Connector, Site
from robot_charger.robot.errors import (
    BadGoal,
    Busy,
    Cancelled,
    Emergency,
    ErrorCode,
    FieldBreached,
    ForceLimit,
    Jammed,
    NoPermit,
    NoPose,
    NotSeated,
    OutOfReach,
    RobotError,
    SensorError,
    Stuck,
    TimedOut,
    ToolError,
    VehicleMoved,
    WrenchError,
)
from robot_charger.robot.kinematics import Kinematics
from robot_charger.robot.parameters import RobotParameters
from robot_charger.robot.planner import HOLSTER_PULL_M, Planner, back
from robot_charger.robot.search import Spiral
from robot_charger.robot.spatial import (
    Array,
    difference,
    from_vector,
    inverse,
    largest,
    local,
    moved,
    transform,
    vector_from_rotation,
)
from robot_charger.words.values import RobotMode as Mode
from robot_charger.words.values import Zone

PERIOD = 0.01  # of step() [s]
SENSE_AGE = 0.1  # joint states and wrench older than this hold the arm [s]
SENSE_LOST = 1.5  # held for this long the action ends [s]
FIRST_HEARD = 5.0  # the same after the start, until the arm is heard for the first time [s]
SENSE_SLOW = (0.03, 0.07)  # ages between which the arm goes ever slower, down to none at the second [s]
BEHIND_JOINT = 0.3  # an arm this far behind its set-point is waited for in free space [rad]
BEHIND_NEAR = (0.005, 0.010)  # the same in contact: ever slower between the two [rad]
FROZEN = 0.25  # a wrench that does not change in its last digit for this long is frozen [s]
TOOL_AGE = 0.4  # the tool may be silent for this much longer than the others [s]
TOOL_TIME = 2.0  # for the gripper [s]
NEWEST = 0.5  # poses of a vehicle that may just have moved are no older than this [s]
LOOK_TIME = 5.0  # for enough poses to come [s]
OBSTACLE_TIME = 0.5  # a closed flap or a wrong inlet is believed when seen for so long [s]
STALLED_RATE, STALLED_TIME = 0.05, 0.3  # slower than this for so long [s] in contact: begin anew where the arm is
FOLLOW_TIME = 6.0  # for an arm to come after its set-point [s]
FOLLOW_GAIN = 0.6e-3  # [m/s per N]
FOLLOW_SPEED = 0.06  # [m/s]
FOLLOW_DEADBAND = 8.0  # forces below this are left alone, lest the arm creeps [N]
PAUSE = 0.1  # a step later than this begins anew, like after a hold [s]
GRASP_STANDOFF = 0.15  # of the empty gripper before a plug [m]

# Gains of the force loop: speed of the set-point per force.
AXIAL_GAIN = 0.4e-3  # [m/s per N]
LATERAL_GAIN = 0.5e-3
TURN_GAIN = 0.02  # [rad/s per Nm]
LATERAL_SPEED, TURN_SPEED = 0.012, 0.15  # largest answers [m/s, rad/s]
SETTLE_TIME = 0.2  # pressed before the search begins: a tilted nose comes to lie on the face [s]
# Where a pressed nose slides so far, as a share of the lead-in, and sinks by less than this share of that, there is the
# face: inside an opening it has less room.
FACE_SLIDE, FACE_SLOPE = 0.75, 0.5
CAUGHT_DEPTH = 0.0045  # beyond the face: the nose is in the opening [m]
NO_TORQUE = np.zeros(3)


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


@dataclass(frozen=True)
class Command:
    """What goes to the arm at one tick. ``q`` None: nothing, the arm holds."""

    q: Array | None = None
    grip: bool | None = None


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


Sequence = Generator[None, None, None]


def _within(low: float, value: float, high: float) -> float:
    return min(max(low, value), high)


def _size(vector: Array) -> float:
    return math.sqrt(float(vector @ vector))


def _limited(vector: Array, most: float) -> Array:
    """Each part within +-``most``."""
    return np.minimum(np.maximum(vector, -most), most)


def _torque_ahead(wrench: Array, distance: float) -> tuple[float, float, float]:
    """Torque of a wrench (6,) about the point ``distance`` ahead on its x axis [Nm]."""
    _, y, z, rx, ry, rz = wrench.tolist()
    return rx, ry + distance * z, rz - distance * y


class ConnectionRobot:
    """One arm, its goals and its state. ``step`` is called from one thread; so are ``start`` and ``cancel``."""

    def __init__(self, site: Site, kinematics: Kinematics, parameters: RobotParameters) -> None:
        self.site, self.kinematics, self.parameters = site, kinematics, parameters
        self.planner = Planner(site, kinematics, parameters.contact__standoff_m)
        self.mode = Mode.UNKNOWN
        self.bay = 0
        self.connector: Connector | None = None
        self.attempt = 0
        self.error = ErrorCode.NONE
        self.text = ""
        self.touch = Touch()
        self.gripper = np.eye(4)  # pose of gripper_link, the deflection of the mount included
        self.peak = 0.0
        self.in_contact_zone = False
        self.grasped = False
        self.result: Result | None = None
        self.engaged: dict[int, Engagement] = {}
        self._task: Sequence | None = None
        self._moving = Mode.UNKNOWN  # mode of the sequence, told while it is not held
        self._need = Zone.FREE
        self._senses = Senses(0.0)
        self._started = self._attempt_began = 0.0
        self._held: float | None = None  # how long by now [s]
        self._lost = 0.0  # how long a sensor has been silent by now [s]
        self._clock = 0.0  # time in which the arm really could move, see step() [s]
        self._rate = 1.0  # of the set-point in contact, see _trust()
        self._waited = 0.0  # for an arm that lags [s]
        self._last_now = -math.inf
        self._q = site.park.copy()  # set-point
        self._fresh = True  # the set-point was just taken from the measured angles
        self._grip: bool | None = None
        self._bound = self._goes_along = False  # cannot let go of the mated plug; follows it right now
        self._inlet: Array | None = None  # estimated, of the present attempt
        self._face = 0.0  # x of a nose on its face, where one was felt, see _search() [m]
        self._tare = np.zeros(6)
        self._sag = np.eye(4)  # deflection of the mount by the cable
        self._follow_from = np.zeros(6)
        self._nose = np.zeros(6)  # set-point of the nose in the inlet's frame
        self._poses: dict[int, deque[tuple[float, Array]]] = {}
        self._obstacles: dict[int, tuple[float, float, RobotError]] = {}  # seen instead of an inlet: since, last
        self._changed_at = -math.inf
        self._last_wrench = [0.0] * 6

    # Goals.
    @property
    def busy(self) -> bool:
        return self._task is not None

    @property
    def idle(self) -> bool:
        """No goal, and no mated plug to go along with: a step now and then is enough."""
        return not self.busy and self.mode not in (Mode.MATED, Mode.FOLLOWING)

    def start_connect(self, evse: int, connector: str, now: float) -> None:
        """Begin to plug in. Raises Busy or BadGoal."""
        bay, plug = self._goal(evse, connector)
        if evse in self.engaged and self.mode != Mode.HOLD:
            raise BadGoal(f"a plug is already in the inlet of EVSE {evse}: disconnect it first")
        self._begin(bay, plug, self._connect(bay, plug), now)

    def start_release(self, evse: int, now: float) -> None:
        """Begin to let go of the mated plug. Raises Busy or BadGoal."""
        bay, plug = self._goal(evse)
        if evse not in self.engaged:
            raise BadGoal(f"no plug is in the inlet of EVSE {evse}")
        self._begin(bay, plug, self._release(bay, plug), now)

    def start_disconnect(self, evse: int, now: float) -> None:
        """Begin to take the plug out and bring it home. Raises Busy or BadGoal."""
        bay, plug = self._goal(evse)
        self._begin(bay, plug, self._disconnect(bay, plug), now)

    def prepare(self, evse: int, now: float) -> None:
        """Let a parked arm begin to go before the plug that it will be asked for next, or home for 0. No goal."""
        if self.busy or self.mode != Mode.PARKED or evse == self.waits_before():
            return
        bay, plug = self._goal(evse or self.waits_before())
        self._begin(bay, plug, self._go_before(bay, plug) if evse else self._go_home(bay, plug), now)

    def waits_before(self) -> int:
        """EVSE before whose plug, in its holster, the empty hand stands; 0 = none's."""
        return next((n for n, bay in self.site.bays.items() if self._is_before(bay)), 0)

    def _is_before(self, bay: Bay) -> bool:
        away = difference(self.gripper, back(bay.holster, HOLSTER_PULL_M))
        return not self._senses.gripper_closed and _size(away[:3]) < 0.01 and _size(away[3:]) < 0.05

    def cancel(self) -> None:
        """End the running action at once; the arm holds where it is."""
        if self.busy:
            self._finish(Cancelled("cancelled"))

    def _goal(self, evse: int, connector: str | None = None) -> tuple[Bay, Connector]:
        if self.busy:
            raise Busy(f"busy with EVSE {self.bay}")
        bay = self.planner.bay(evse, self.parameters.evses)
        if connector is None:
            engaged = self.engaged.get(evse)
            connector = engaged.connector.name if engaged else bay.connectors[0]
        return bay, self.planner.connector(bay, connector)

    def _begin(self, bay: Bay, plug: Connector, sequence: Sequence, now: float) -> None:
        if bay.number != self.bay:
            self._inlet, self._face = None, 0.0
        self.bay, self.connector, self.result = bay.number, plug, None
        self.attempt, self.peak, self.grasped = 0, 0.0, False
        self._bound = self._goes_along = False
        self._obstacles.pop(bay.number, None)  # a new goal is a new look
        self.error, self.text = ErrorCode.NONE, ""
        self._task, self._need, self._started = sequence, Zone.FREE, now
        self._held, self._lost, self._waited, self._rate, self._fresh = None, 0.0, 0.0, 1.0, True
        self._attempt_began = self._clock
        self._moving = Mode.MOVING

    def see(self, evse: int, stamp: float, pose: Array, sigma: float) -> None:
        """An estimate of an inlet's pose in base_link with its standard deviation [m]. Wild ones are dropped."""
        p = self.parameters
        if not np.isfinite(pose).all() or not sigma <= p.pose__max_sigma_m:
            return
        self._obstacles.pop(evse, None)
        poses = self._poses.setdefault(evse, deque(maxlen=400))
        poses.append((stamp, pose))
        while poses and stamp - poses[0][0] > p.pose__window_s:
            poses.popleft()

    def see_instead(self, evse: int, stamp: float, error: RobotError) -> None:
        """A closed flap or another kind of inlet is seen where the inlet should be."""
        since, _, known = self._obstacles.get(evse, (stamp, stamp, error))
        self._obstacles[evse] = (since if known.code == error.code else stamp, stamp, error)

    def forget_poses(self, evse: int) -> None:
        """The vehicle left or moved: what was seen before counts no more."""
        self._poses.pop(evse, None)
        self._obstacles.pop(evse, None)

    def vehicle_left(self, evse: int) -> None:
        """The bay is empty: nothing seen or mated there counts any more."""
        self.forget_poses(evse)
        if not (self.busy and self.bay == evse):
            self.engaged.pop(evse, None)

    # One tick.
    def step(self, senses: Senses) -> Command:
        """Advance by one period and say what the arm shall do.

        Sequences, their time-outs and the grace for a lapsed permit count in steps, not in seconds of the wall: a
        computer that is short of time, or an arm that lags, makes an action slower but does not make it fail. What
        the arm is forbidden (permit, emergency, field, ages of sensors) is judged in real time.
        """
        paused = senses.now - self._last_now > PAUSE
        self._senses, self._last_now = senses, senses.now
        if self._task is None:
            if self.mode in (Mode.MATED, Mode.FOLLOWING):
                self._feel(senses)
                return self._accompany(senses, paused)
            self._feel(senses)
            self._rest(senses)
            return Command()
        self._feel(senses)
        try:
            self._watch(senses)
            if senses.q is None:  # not heard yet
                return Command()
            if paused or not self._permitted(senses):
                return self._hold()
            if self._held is not None:
                self._held, self._fresh = None, True
            if self._fresh:
                self._q = senses.q.copy()
            self.mode = self._moving
            if not self._fresh and self._lagging(senses):
                return Command(self._q, self._grip)
            self._grip = None
            self._clock += PERIOD * self._rate
            next(self._task)
            self._fresh = False
            return Command(self._q, self._grip)
        except StopIteration:
            self._finish(None)
            return Command(self._q, self._grip)
        except RobotError as error:
            self._finish(error)
        return Command()

    def _permitted(self, senses: Senses) -> bool:
        need = Zone.CONTACT if self.in_contact_zone else self._need
        fresh = senses.q_age <= SENSE_AGE and (need < Zone.CONTACT or senses.wrench_age <= SENSE_AGE)
        return fresh and senses.zone >= need and senses.now <= senses.permit_until

    def _hold(self) -> Command:
        self.mode = Mode.HOLD
        self._held = PERIOD + (self._held or 0.0)
        if self._held > self.parameters.permit_grace_s:
            raise NoPermit(f"no valid motion permit for {self._held:.1f} s")
        return Command()

    def _lagging(self, senses: Senses) -> bool:
        """True while the set-point must wait: the arm is far behind it, or tells nothing. Sets the rate in contact.

        The rate, 0 to 1, falls with the age of what is felt and with the arm's lag. Raises ToolError when the arm
        does not come.
        """
        assert senses.q is not None
        full, none = SENSE_SLOW
        age = senses.q_age
        behind = largest(self._q - senses.q)
        self._rate, lagging = 1.0, behind > BEHIND_JOINT
        if self._need == Zone.CONTACT:
            age = max(age, senses.wrench_age)
            near, far = BEHIND_NEAR
            self._rate = max(0.0, min(1.0, (none - age) / (none - full), (far - behind) / (far - near)))
        stalled = lagging or self._rate < STALLED_RATE
        self._waited = self._waited + PERIOD if stalled else 0.0
        if self._need == Zone.CONTACT and self._waited > STALLED_TIME and age <= full:
            # The arm stands short of its set-point and says so: its guard stops it. To insist would press for ever.
            self._q, self._fresh, self._waited, self._rate = senses.q.copy(), True, 0.0, 1.0
            return False
        if self._waited > FOLLOW_TIME:
            self._waited = 0.0
            raise ToolError("the arm does not follow its set-points")
        return lagging or age > none

    def _watch(self, senses: Senses) -> None:
        """What ends any action at once and leaves the arm where it is."""
        if senses.emergency:
            raise Emergency("emergency stop")
        if not senses.field_clear:
            raise FieldBreached(f"protective field of bay {self.bay} is breached")
        silent = [
            f"{name} for {age:.2f} s"
            for name, age in (
                ("joint states are missing", senses.q_age),
                ("the wrench is missing", senses.wrench_age if self._need == Zone.CONTACT else 0.0),
                ("the tool's sensors are silent", senses.tool_age - TOOL_AGE),
            )
            if age > SENSE_AGE
        ]
        self._lost = self._lost + PERIOD if silent else 0.0
        if self._lost > (SENSE_LOST if senses.q is not None else FIRST_HEARD):
            raise SensorError(silent[0])
        if self._need == Zone.CONTACT:
            same = senses.now - senses.wrench_age - self._changed_at
            if same > FROZEN:
                raise SensorError(f"the wrench did not change for {same:.2f} s")

    def _accompany(self, senses: Senses, paused: bool) -> Command:
        """Follow the mated plug with zero commanded force while the permit asks for it; otherwise hold.

        A head that cannot let go counts as following while the arm is heard, and as MATED when it is not.
        """
        may = senses.passive_follow and senses.field_clear and not senses.emergency
        holding = senses.gripper_closed and senses.plug_present
        silent = senses.q is None or max(senses.q_age, senses.wrench_age) > SENSE_AGE
        self._lost = self._lost + PERIOD if silent else 0.0
        lost = self._lost > SENSE_LOST
        if lost or not (may and holding and senses.now <= senses.permit_until):
            self.mode, self._goes_along = Mode.FOLLOWING if self._bound and not lost else Mode.MATED, False
            return Command()
        if senses.q is None or silent or self._inlet is None:
            return Command()
        if not self._goes_along or paused:
            self.mode, self._goes_along, self._q = Mode.FOLLOWING, True, senses.q.copy()
            self._take_up()
            self._follow_from = self._nose.copy()
        before = self._nose.copy()
        force = np.array([-self.touch.push, *self.touch.side])
        size = _size(force)
        if size > FOLLOW_DEADBAND:
            speed = force * (1.0 - FOLLOW_DEADBAND / size) * FOLLOW_GAIN
            self._nose[:3] += _limited(speed, FOLLOW_SPEED) * PERIOD
        torque = self.touch.torque
        if _size(torque) > 1.0:
            self._nose[3:] += _limited(torque * TURN_GAIN, TURN_SPEED) * PERIOD
        if _size(self._nose[:3] - self._follow_from[:3]) > self.parameters.follow__stroke_m:
            self._nose = before
            self.text = f"followed the plug by {self.parameters.follow__stroke_m * 1e3:.0f} mm: no further"
        self._q, _ = self.kinematics.follow(self._flange(self._nose), self._q)
        return Command(self._q)

    def _rest(self, senses: Senses) -> None:
        """Mode of an arm without a goal, told from what it senses when nothing is known yet."""
        if self.mode == Mode.UNKNOWN and senses.q is not None:
            if self._waits(senses):
                self.mode = Mode.PARKED
            elif senses.q_age < SENSE_AGE:
                self.mode = Mode.HOLD

    def _waits(self, senses: Senses) -> bool:
        """It stands where it waits for a goal: parked, or before a plug."""
        parked = senses.q is not None and largest(senses.q - self.site.park) < 0.05
        return parked or self.waits_before() > 0

    def _finish(self, error: RobotError | None) -> None:
        if self._task is not None:
            self._task.close()
        self._task = None
        self.error = error.code if error else ErrorCode.NONE
        self.text = str(error) if error else ""
        self.mode = self._moving
        if error is not None and (error.stay or self._moving not in (Mode.PARKED, Mode.RELEASED)):
            self.mode = Mode.HOLD
            if not self.in_contact_zone and self._waits(self._senses):
                self.mode = Mode.PARKED
        self.result = Result(
            self.error,
            self.text,
            self.touch.depth,
            self.touch.lateral,
            self.peak,
            self._senses.now - self._started,
            self.attempt,
            self._bound,
            error,
        )

    # Measuring.
    def _feel(self, senses: Senses) -> None:
        wrench = senses.wrench
        if wrench is None:
            wrench = np.zeros(6)
        elif (readings := wrench.tolist()) != self._last_wrench:
            self._changed_at, self._last_wrench = senses.now - senses.wrench_age, readings
        if senses.q is None:
            return
        self.gripper = self.kinematics.forward(senses.q) @ self._deflection(wrench)
        force = wrench - self._tare
        touch = Touch(push=-float(force[0]), side=force[1:3], torque=NO_TORQUE)
        self.in_contact_zone = False
        inlet, plug = self._inlet, self.connector
        if inlet is not None and plug is not None:
            arm = self.site.tool.wrench_distance + plug.nose
            touch.torque = np.array(_torque_ahead(force, arm))
            touch.x, y, z = local(inlet, self.gripper[:3, 3] + plug.nose * self.gripper[:3, 0])
            touch.depth, touch.across, touch.lateral = touch.x - self._face, (y, z), math.hypot(y, z)
            limit = self.parameters.contact__distance_m
            engaged = self.engaged.get(self.bay)
            if senses.plug_present and senses.gripper_closed:
                self.in_contact_zone = touch.x > -limit and touch.lateral < 0.25
            elif engaged is not None:
                x, y, z = local(engaged.grip, self.gripper[:3, 3])
                self.in_contact_zone = x > -limit and math.hypot(y, z) < 0.25
        self.touch = touch

    def _deflection(self, wrench: Array) -> Array:
        """How far the compliant mount gives way: pose of the loaded gripper_link in the unloaded one."""
        tool = self.site.tool
        centre = tool.compliance_centre
        x, y, z, _, _, _ = wrench.tolist()
        rx, ry, rz = _torque_ahead(wrench, tool.wrench_distance + centre)
        kx, ky, kz, krx, kry, krz = tool.stiffness.tolist()
        pose = from_vector((x / kx, y / ky, z / kz, rx / krx, ry / kry, rz / krz))
        pose[:3, 3] -= centre * pose[:3, 0]  # turned about the centre
        pose[0, 3] += centre
        return pose

    def _fused(self, bay: Bay, newest_only: bool = False) -> Array:
        """Mean of the recent poses of the inlet, or of the newest half second where these are enough. Raises NoPose."""
        p, now = self.parameters, self._senses.now
        poses = [pose for stamp, pose in self._poses.get(bay.number, ()) if now - stamp <= p.pose__window_s]
        fresh = [pose for stamp, pose in self._poses.get(bay.number, ()) if now - stamp <= NEWEST]
        if newest_only and len(fresh) >= p.pose__samples:
            poses = fresh
        newest = max((stamp for stamp, _ in self._poses.get(bay.number, ())), default=-math.inf)
        if now - newest > p.pose__max_age_s:
            raise NoPose(f"no pose of the inlet for {min(now - newest, 999.0):.1f} s, at most {p.pose__max_age_s} s")
        steps = np.array([difference(poses[0], pose) for pose in poses])
        middle = np.median(steps, axis=0)
        good = np.linalg.norm(steps[:, :3] - middle[:3], axis=1) < 0.03
        return moved(poses[0], steps[good].mean(axis=0) if good.any() else middle)

    def _check_moved(self, bay: Bay) -> None:
        """Raises VehicleMoved when the newest poses lie away from the attempt's inlet, or the bay is empty."""
        if not self._senses.occupied:
            raise VehicleMoved(f"bay {bay.number} is empty")
        now = self._senses.now
        recent = [pose for stamp, pose in self._poses.get(bay.number, ()) if now - stamp < 0.6]
        if self._inlet is not None and len(recent) >= 3:
            away = sum(pose[:3, 3] for pose in recent) / len(recent) - self._inlet[:3, 3]
            if _size(away) > self.parameters.pose__moved_m:
                self.forget_poses(bay.number)
                raise VehicleMoved(f"the inlet moved by {np.linalg.norm(away) * 1e3:.0f} mm")

    # Ways.
    def _wait(self, seconds: float) -> Sequence:
        for _ in range(max(1, round(seconds / PERIOD))):
            yield

    def _line(self, goal: Array, speed: float | None = None) -> Sequence:
        """Straight to ``goal``, with limits of speed, acceleration and joints."""
        p = self.parameters
        v = p.speed__free_m_s if speed is None else speed
        share = rate = 0.0
        most = self.kinematics.velocity * PERIOD
        start = self.kinematics.forward(self._q)
        twist, full = self._pace(start, goal, v)
        while share < 1.0 or self._fresh:  # held at the very end: the set-point fell back to the measured angles
            if self._fresh:
                share = rate = 0.0
                start = self.kinematics.forward(self._q)
                twist, full = self._pace(start, goal, v)
            acceleration = full * p.acceleration_m_s2 / max(v, 0.05)
            rate = min(rate + acceleration * PERIOD, full, math.sqrt(2.0 * acceleration * (1.0 - share)))
            rate = max(rate, 0.03 * full)
            ahead = min(1.0, share + rate * PERIOD)
            q, _ = self.kinematics.follow(moved(start, twist * ahead), self._q)
            over = largest((q - self._q) / most)
            if over > 1.0:
                rate /= over
                ahead = share + (ahead - share) / over
                q, _ = self.kinematics.follow(moved(start, twist * ahead), self._q)
            share, self._q = ahead, q
            yield
        self._q, _ = self.kinematics.follow(goal, self._q)
        left = largest(difference(self.kinematics.forward(self._q), goal)[:3])
        if left > 0.002:
            raise OutOfReach(f"the arm stays {left * 1e3:.0f} mm away from its goal")

    def _pace(self, start: Array, goal: Array, speed: float) -> tuple[Array, float]:
        twist = difference(start, goal)
        seconds = max(
            _size(twist[:3]) / speed,
            _size(twist[3:]) / self.parameters.speed__turn_rad_s,
            PERIOD,
        )
        return twist, 1.0 / seconds

    def _joints(self, goal: Array) -> Sequence:
        """Together to joint angles ``goal``, in free space."""
        limit = np.minimum(self.kinematics.velocity, self.parameters.speed__joint_rad_s)
        share = rate = 0.0
        start = self._q.copy()
        while share < 1.0 or self._fresh:  # held at the very end: the set-point fell back to the measured angles
            if self._fresh:
                share, rate, start = 0.0, 0.0, self._q.copy()
            full = 1.0 / max(largest((goal - start) / limit), PERIOD)
            acceleration = full / 0.4
            rate = max(min(rate + acceleration * PERIOD, full, math.sqrt(2 * acceleration * (1 - share))), 0.03 * full)
            share = min(1.0, share + rate * PERIOD)
            self._q = start + (goal - start) * share
            yield

    def _settle(self, goal: Array, tolerance: float = 0.004) -> Sequence:
        """Wait until the arm really is where it was sent. Raises ToolError when it does not come."""
        for _ in range(round(6.0 / PERIOD)):
            q = self._senses.q
            if q is not None and largest(difference(self.kinematics.forward(q), goal)) < tolerance:
                return
            yield
        raise ToolError("the arm does not follow its set-points")

    # Pieces of the actions.
    def _look(self, bay: Bay) -> Generator[None, None, Array]:
        """Wait for enough poses of the inlet, return their mean. Raises NoPose, FlapClosed or WrongInlet."""
        waited = 0.0
        while True:
            now = self._senses.now
            since, last, obstacle = self._obstacles.get(bay.number, (now, -math.inf, None))
            if obstacle and now - last <= self.parameters.pose__max_age_s and last - since >= OBSTACLE_TIME:
                raise obstacle
            ages = [now - stamp for stamp, _ in self._poses.get(bay.number, ())]
            fresh = sum(age <= self.parameters.pose__window_s for age in ages)
            if fresh >= self.parameters.pose__samples and min(ages) <= self.parameters.pose__max_age_s:
                with suppress(NoPose):  # after a pause of this computer they are old: look on
                    self._inlet, self._face = self._fused(bay), 0.0
                    yield  # from now on it is known whether the tool is near it
                    return self._fused(bay)
            if waited > LOOK_TIME:
                last = min(ages, default=math.inf)
                raise NoPose(
                    f"only {fresh} poses of the inlet in {LOOK_TIME:.0f} s, the last one {min(last, 999.0):.1f} s ago"
                )
            waited += PERIOD
            yield

    def _grip_to(self, closed: bool) -> Sequence:
        """Command the gripper and wait for its sensor. Raises ToolError."""
        for tick in range(round(TOOL_TIME / PERIOD)):
            if tick % 20 == 0:
                self._grip = closed
            yield
            if self._senses.gripper_closed == closed and tick > 5:
                break
        else:
            raise ToolError(f"the gripper does not {'close' if closed else 'open'}")
        yield from self._wait(0.15)
        if closed and not self._senses.plug_present:
            raise ToolError("the gripper closed on nothing")

    def _away(self, bay: Bay, plug: Connector) -> Sequence:
        """From wherever the last action left the arm to the bay's clear pose."""
        holding = self._senses.plug_present and self._senses.gripper_closed
        if self.in_contact_zone and holding:
            yield from self._back_off(bay, plug)
        elif self.in_contact_zone:
            self._need = Zone.CONTACT
            yield from self._line(back(self.gripper, GRASP_STANDOFF), self.parameters.speed__near_m_s)
        for other in self.site.bays.values():
            x, y, z = local(other.holster, self.gripper[:3, 3])
            if -HOLSTER_PULL_M - 0.01 < x < 0.02 and math.hypot(y, z) < 0.06:
                self._need = Zone.FREE
                yield from self._line(back(other.holster, HOLSTER_PULL_M), self.parameters.speed__near_m_s)
                if other is not bay:  # round what hangs between the two
                    yield from self._to_clear(other)
                    yield from self._joints(self.site.park)
        self._need = Zone.FREE
        yield from self._to_clear(bay)

    def _to_clear(self, bay: Bay) -> Sequence:
        here = self.kinematics.forward(self._q)
        if _size(here[:3, 3] - bay.clear[:3, 3]) < 0.01:
            return
        goal = self.planner.reach(bay.clear, self.planner.seed(bay), "clear pose")
        if largest(goal - self._q) < 1.0:
            yield from self._joints(goal)
            return
        try:
            self.planner.line(here, bay.clear, self._q)
        except OutOfReach:
            yield from self._joints(goal)
        else:
            yield from self._line(bay.clear)

    def _fetch(self, bay: Bay, plug: Connector) -> Sequence:
        """Take the plug out of its holster, unless it is in the hand."""
        p = self.parameters
        if self._senses.gripper_closed and self._senses.plug_present:
            return
        yield from self._grip_to(False)
        yield from self._line(back(bay.holster, HOLSTER_PULL_M))
        yield from self._line(bay.holster, p.speed__near_m_s)
        yield from self._settle(bay.holster)
        yield from self._grip_to(True)
        yield from self._line(back(bay.holster, HOLSTER_PULL_M), p.speed__near_m_s * 1.5)

    def _bring_home(self, bay: Bay) -> Sequence:
        """Hang the plug into its holster."""
        p = self.parameters
        self._need, self._moving = Zone.FREE, Mode.MOVING
        before = back(bay.holster, HOLSTER_PULL_M)
        yield from self._line(before)
        yield from self._line(bay.holster, p.speed__near_m_s)
        yield from self._settle(bay.holster, 0.006)
        yield from self._grip_to(False)
        if not self._senses.holster_occupied:
            raise ToolError("the plug does not hang in its holster")
        yield from self._line(before, p.speed__near_m_s * 1.5)

    def _park(self, bay: Bay) -> Sequence:
        self._need, self._moving = Zone.FREE, Mode.MOVING
        yield from self._to_clear(bay)
        yield from self._joints(self.site.park)
        self._moving = Mode.PARKED

    # Contact.
    def _push_on(
        self, speed: float, give: bool, step: Array | None = None, limit: float | None = None, turn: bool = False
    ) -> None:
        """Move the nose's set-point for one tick: along the axis at ``speed`` [m/s], across it as felt or told.

        ``give``: across the axis and in rotation; ``turn``: in rotation alone. ``step``: (y, z) of this tick [m].
        Raises ForceLimit beyond the limits.
        """
        p, touch = self.parameters, self.touch
        self.peak = max(self.peak, touch.push if limit is None else -touch.push)
        side = _size(touch.side)
        torque = _size(touch.torque)
        if self._moving == Mode.RETREAT:
            pass  # on the way out nothing is gained by stopping: the arm's own guard limits what is left
        elif touch.push > p.insert__limit_n:
            raise ForceLimit(f"push of {touch.push:.0f} N, at most {p.insert__limit_n:.0f} N")
        elif -touch.push > p.withdraw__limit_n:
            raise ForceLimit(f"pull of {-touch.push:.0f} N, at most {p.withdraw__limit_n:.0f} N")
        elif side > p.lateral_limit_n:
            raise ForceLimit(f"{side:.0f} N across the axis, at most {p.lateral_limit_n:.0f} N")
        elif torque > p.torque_limit_nm:
            raise ForceLimit(f"torque of {torque:.1f} Nm, at most {p.torque_limit_nm:.1f} Nm")
        seconds = PERIOD * self._rate
        self._nose[0] += speed * seconds
        if give:
            self._nose[1:3] += _limited(touch.side * LATERAL_GAIN, LATERAL_SPEED) * seconds
        if give or turn:
            self._nose[3:] += _limited(touch.torque * TURN_GAIN, TURN_SPEED) * seconds
        if step is not None:
            self._nose[1:3] += step
        assert self._inlet is not None
        self._q, left = self.kinematics.follow(self._flange(self._nose), self._q)
        if left > 0.02:
            raise OutOfReach("the arm cannot follow the plug")

    def _flange(self, nose: Array) -> Array:
        """Pose of the unloaded gripper_link that brings the nose to (x, y, z, rx, ry, rz) in the inlet's frame."""
        assert self._inlet is not None and self.connector is not None
        return self._inlet @ from_vector(nose) @ transform((-self.connector.nose, 0.0, 0.0)) @ inverse(self._sag)

    def _take_up(self) -> None:
        """Let the nose's set-point begin where the arm's set-point is."""
        assert self._inlet is not None and self.connector is not None
        at = inverse(self._inlet) @ self.kinematics.forward(self._q) @ self._sag
        at = at @ transform((self.connector.nose, 0.0, 0.0))
        self._nose = np.concatenate([at[:3, 3], vector_from_rotation(at[:3, :3])])

    def _tick(self, bay: Bay) -> Sequence:
        """One tick in contact: time, vehicle, and a new beginning after a hold."""
        yield
        if self._fresh:
            self._take_up()
        if self._clock - self._attempt_began > self.parameters.attempt_timeout_s:
            raise TimedOut(f"attempt {self.attempt} took longer than {self.parameters.attempt_timeout_s:.0f} s")

    def _zero_wrench(self) -> Sequence:
        """Stand still, take the present wrench for the cable's. Raises SensorError when it is too large for that."""
        yield from self._wait(0.15)
        readings = []
        for _ in range(15):
            yield
            if self._senses.wrench is not None:
                readings.append(self._senses.wrench)
        if not readings or self._senses.wrench_age > SENSE_AGE:
            raise WrenchError("the wrench is missing")
        if len(readings) > 1 and all(np.array_equal(r, readings[0]) for r in readings):
            raise WrenchError("the wrench does not change: its sensor is frozen")
        tare = np.mean(readings, axis=0)
        force = _size(tare[:3])
        if force > self.parameters.tare_limit_n:
            raise WrenchError(
                f"the wrench reads {force:.0f} N before any contact, at most {self.parameters.tare_limit_n:.0f} N"
            )
        self._tare, self._sag = tare, self._deflection(tare)

    def _mate(self, bay: Bay, plug: Connector) -> Sequence:
        """One attempt: from the clear pose or the standoff to a seated plug."""
        p = self.parameters
        self._attempt_began = self._clock
        self._need, self._moving = Zone.FREE, Mode.APPROACH
        inlet = yield from self._look(bay)
        self.planner.check_inlet(bay, plug, inlet)
        self._sag = np.eye(4)
        yield from self._line(back(inlet, plug.nose + p.contact__standoff_m))
        yield from self._zero_wrench()
        inlet = yield from self._look(bay)
        self._need = Zone.CONTACT
        self._check_moved(bay)
        yield from self._line(self._flange(np.array([-0.018, 0, 0, 0, 0, 0])), p.speed__near_m_s)
        self._take_up()
        while self.touch.push < 10.0 and self.touch.x < 0.8 * plug.depth:
            self._push_on(p.speed__touch_m_s, give=False)
            yield from self._tick(bay)
            self._check_moved(bay)
        yield from self._search(bay, plug)
        yield from self._insert(bay, plug)

    def _search(self, bay: Bay, plug: Connector) -> Sequence:
        """Press lightly and wind outwards until the nose falls in.

        Depths count from the face from then on, if the nose has slid on one. Where it only stopped, that may have been
        the lead-in or the seal of an opening that it fell straight into.
        """
        p = self.parameters
        self._moving = Mode.SEARCH
        least, rest, slide = self.touch.x, self.touch, FACE_SLIDE * plug.capture
        spiral, began = Spiral(self._nose[1:3], p), self._clock
        while True:
            touch = self.touch
            pressed = touch.push > 0.5 * p.search__force_n
            if pressed:
                least = min(least, touch.x)
            slid = math.dist(touch.across, rest.across)
            if not pressed or abs(touch.x - rest.x) > FACE_SLOPE * slide:
                rest = touch
            elif slid > slide:
                self._face = least
            depth = touch.x - least
            if depth > CAUGHT_DEPTH:
                return
            speed = _within(-0.01, (p.search__force_n - touch.push) * AXIAL_GAIN, p.speed__touch_m_s)
            step = np.zeros(2)
            if self._clock - began > SETTLE_TIME:
                step = spiral.step(self._nose[1:3], touch.push, touch.side, depth, PERIOD * self._rate)
            self._push_on(speed, give=False, step=step, turn=True)
            yield from self._tick(bay)
            self._check_moved(bay)

    def _insert(self, bay: Bay, plug: Connector) -> Sequence:
        """Push in, giving way sideways, until the plug is seated. Raises Jammed or NotSeated."""
        p = self.parameters
        self._moving = Mode.INSERT
        best, best_at, wiggles = self.touch.depth, self._clock, 0
        pressed = 0.0
        while True:
            touch = self.touch
            speed = (p.insert__force_n - touch.push) * AXIAL_GAIN
            self._push_on(_within(-0.02, speed, p.speed__insert_m_s), give=True)
            yield from self._tick(bay)
            self._check_moved(bay)
            touch, now = self.touch, self._clock
            if touch.depth > best + 0.0005 or self._fresh:
                best, best_at = max(best, touch.depth), now
            pressed = pressed + PERIOD * self._rate if self._senses.end_stop and touch.push > 15.0 else 0.0
            if pressed > 0.08:
                break
            if now - best_at > 0.8 and touch.push > 0.8 * p.insert__force_n:
                if wiggles == 1:
                    if touch.depth > plug.depth - p.seat__depth_tolerance_m:
                        raise NotSeated(f"end-stop silent at {touch.depth * 1e3:.0f} mm")
                    raise Jammed(f"stopped at {touch.depth * 1e3:.0f} mm with {touch.push:.0f} N")
                wiggles += 1
                yield from self._wiggle(bay, 1.0)
                best_at = self._clock
        yield from self._relax(bay)
        depth, lateral = self.touch.depth, self.touch.lateral
        if not self._senses.end_stop:
            raise NotSeated("the end-stop let go again")
        if abs(depth - plug.depth) > p.seat__depth_tolerance_m:
            raise NotSeated(f"end-stop says seated, kinematics say {depth * 1e3:.0f} mm of {plug.depth * 1e3:.0f} mm")
        if lateral > p.seat__lateral_tolerance_m:
            raise NotSeated(f"seated {lateral * 1e3:.0f} mm beside the inlet")
        self._moving = Mode.MATED
        assert self._inlet is not None
        self.engaged[bay.number] = Engagement(self._inlet, self._face, self.gripper.copy(), plug)

    def _relax(self, bay: Bay) -> Sequence:
        """Take the force off the plug."""
        for _ in range(60):
            speed = _within(-0.01, -self.touch.push * AXIAL_GAIN, 0.01)
            self._push_on(speed, give=True, limit=0.0)
            yield from self._tick(bay)

    def _wiggle(self, bay: Bay, sign: float) -> Sequence:
        """Small circles and turns under a light push or pull."""
        middle, tick = self._nose.copy(), 0
        while tick < 80:
            phase = 2 * math.pi * tick / 40
            goal = middle[1:3] + 0.0015 * np.array([math.sin(phase), 1.0 - math.cos(phase)])
            self._nose[3:5] = middle[3:5] + 0.01 * np.array([math.sin(phase), math.sin(2 * phase)])
            speed = (sign * 40.0 - self.touch.push) * AXIAL_GAIN
            self._push_on(
                _within(-0.02, speed, 0.02), give=False, step=(goal - self._nose[1:3]) * self._rate, limit=0.0
            )
            yield from self._tick(bay)
            tick += 1
            if self._fresh:
                middle, tick = self._nose.copy(), 0

    def _back_off(self, bay: Bay, plug: Connector) -> Sequence:
        """After a failed attempt: out along the axis with limited force, then to the standoff."""
        self._need, self._moving = Zone.CONTACT, Mode.RETREAT
        self._attempt_began = self._clock
        if self._senses.q is not None:
            self._q = self._senses.q.copy()  # a set-point ahead of an arm that its guard stops would press on
        self._take_up()
        yield from self._pull_out(bay, plug)
        yield from self._to_standoff(plug)

    def _to_standoff(self, plug: Connector) -> Sequence:
        assert self._inlet is not None
        nose = np.array([-self.parameters.contact__standoff_m, 0, 0, 0, 0, 0])
        yield from self._line(self._flange(nose), self.parameters.speed__near_m_s * 1.5)
        self._need = Zone.FREE

    def _pull_out(self, bay: Bay, plug: Connector) -> Sequence:
        """Pull until the nose is out. Raises Stuck."""
        p = self.parameters
        best, best_at, wiggles = self.touch.x, self._clock, 0
        self.engaged.pop(bay.number, None) if self.touch.depth < 0.5 * plug.depth else None
        while max(self.touch.x, self.touch.depth) > -0.012:
            speed = (-p.withdraw__force_n - self.touch.push) * AXIAL_GAIN
            self._push_on(_within(-0.035, speed, 0.02), give=True, limit=p.withdraw__limit_n)
            yield from self._tick(bay)
            touch, now = self.touch, self._clock
            if touch.x < best - 0.0005 or self._fresh:
                best, best_at = min(best, touch.x), now
            if now - best_at > 1.2 and -touch.push > 0.8 * p.withdraw__force_n:
                if wiggles == 1:
                    yield from self._relax(bay)
                    raise Stuck(f"the plug stays at {touch.depth * 1e3:.0f} mm at a pull of {-touch.push:.0f} N")
                wiggles += 1
                yield from self._wiggle(bay, -1.5)
                best_at = self._clock
            if not self._senses.plug_present:
                raise ToolError("the gripper lost the plug")
        self.engaged.pop(bay.number, None)

    # Without a goal.
    def _go_before(self, bay: Bay, plug: Connector) -> Sequence:
        """To where a plug is taken from, hand open."""
        yield from self._away(bay, plug)
        yield from self._grip_to(False)
        yield from self._line(back(bay.holster, HOLSTER_PULL_M))
        self._moving = Mode.PARKED

    def _go_home(self, bay: Bay, plug: Connector) -> Sequence:
        yield from self._away(bay, plug)
        yield from self._park(bay)

    # The three actions.
    def _connect(self, bay: Bay, plug: Connector) -> Sequence:
        p = self.parameters
        self._inlet = self._inlet if self.in_contact_zone else None
        if self._inlet is not None:
            yield from self._away(bay, plug)
        inlet = yield from self._look(bay)
        self.planner.check_inlet(bay, plug, inlet)
        if not self._is_before(bay):
            yield from self._away(bay, plug)
        yield from self._fetch(bay, plug)
        failure: RobotError | None = None
        for attempt in range(1, p.attempts + 1):
            self.attempt = attempt
            try:
                yield from self._mate(bay, plug)
                return
            except RobotError as error:
                if error.stay:
                    raise
                failure = error
            if self._need == Zone.CONTACT:
                yield from self._back_off(bay, plug)
            if not failure.again:
                break
        self._moving = Mode.RETREAT
        yield from self._line(bay.clear)
        yield from self._bring_home(bay)
        yield from self._park(bay)
        assert failure is not None
        raise failure

    def _release(self, bay: Bay, plug: Connector) -> Sequence:
        engaged = self.engaged[bay.number]
        self._moving = Mode.MATED
        self._need = Zone.CONTACT
        if self._senses.gripper_closed:
            self._inlet, self._face = engaged.inlet, engaged.face
            self._take_up()
            with suppress(ForceLimit):  # a vehicle that just moves pulls at the hand: to let go is the way out
                yield from self._relax(bay)
            with suppress(NoPose):  # it may have sunk or risen since the look
                self._inlet = self._fused(bay, newest_only=True)
            engaged = self.engaged[bay.number] = Engagement(self._inlet, self._face, self.gripper.copy(), plug, engaged)
            if plug.held:
                self._bound, self._moving = True, Mode.FOLLOWING
                return
            yield from self._grip_to(False)
        self._tare, self._sag = np.zeros(6), np.eye(4)
        yield from self._line(back(engaged.grip, GRASP_STANDOFF), self.parameters.speed__near_m_s)
        self._need = Zone.FREE
        yield from self._line(bay.clear)
        self._moving = Mode.RELEASED

    def _disconnect(self, bay: Bay, plug: Connector) -> Sequence:
        holding = self._senses.gripper_closed and self._senses.plug_present
        if not holding and bay.number not in self.engaged and self._senses.holster_occupied:
            yield from self._go_home(bay, plug)
            return
        if holding and self._inlet is None:
            yield from self._find_out(bay)
        failure: RobotError | None = None
        for attempt in range(1, self.parameters.attempts + 1):
            self.attempt = attempt
            try:
                if not (self._senses.gripper_closed and self._senses.plug_present):
                    yield from self._grasp(bay, plug)
                self.grasped = True
                self._attempt_began = self._clock
                if self._inlet is not None and self.in_contact_zone:
                    self._need, self._moving = Zone.CONTACT, Mode.WITHDRAW
                    self._take_up()
                    yield from self._pull_out(bay, plug)
                    yield from self._to_standoff(plug)
                failure = None
                break
            except (Stuck, ToolError, ForceLimit) as error:
                failure = error
                if isinstance(error, ForceLimit) and self.touch.depth > 0.5 * plug.depth:
                    yield from self._grip_to(False)  # gripped askew while the inlet holds it: taken anew
        if failure is not None:
            yield from self._leave_plug(bay)
            raise failure
        yield from self._line(bay.clear)
        yield from self._bring_home(bay)
        yield from self._park(bay)

    def _find_out(self, bay: Bay) -> Sequence:
        """After a restart with a plug in the hand: is it in an inlet? Raises NoPose when it is seated but not seen."""
        if not self._senses.occupied:
            return
        try:
            yield from self._look(bay)
        except NoPose:
            if self._senses.end_stop:
                raise

    def _grasp(self, bay: Bay, plug: Connector) -> Sequence:
        """Take hold of the plug in the inlet, shifted as the vehicle has shifted since."""
        p = self.parameters
        self._moving, self._need = Mode.GRASP, Zone.FREE
        known = engaged = self.engaged.get(bay.number)
        if known is not None and self.attempt > 1:
            engaged = known.earlier  # None at last: then where the inlet says that a seated plug is
        try:
            yield from self._look(bay)
            seen = self._fused(bay, newest_only=True)
        except NoPose:
            if known is None:
                raise
            engaged, seen = known, known.inlet
        if engaged is None:  # as after a restart
            engaged = Engagement(seen, 0.0, back(seen, plug.nose - plug.depth), plug)
        shift = inverse(engaged.inlet) @ seen
        if _size(shift[:3, 3]) > 0.003:
            grip = seen @ inverse(engaged.inlet) @ engaged.grip
            engaged = Engagement(seen, engaged.face, grip, plug, engaged.earlier)
        self.engaged[bay.number] = engaged
        self._inlet, self._face = engaged.inlet, engaged.face
        self._tare, self._sag = np.zeros(6), np.eye(4)
        yield from self._away(bay, plug)
        yield from self._grip_to(False)
        yield from self._line(back(engaged.grip, GRASP_STANDOFF))
        yield from self._zero_wrench()
        self._sag = np.eye(4)
        self._need = Zone.CONTACT
        way = self._line(engaged.grip, p.speed__near_m_s * 0.6)
        for _ in way:
            if abs(self.touch.push) > 40.0 or _size(self.touch.side) > 40.0:
                raise ToolError("the gripper meets something before the plug")
            yield
        yield from self._settle(engaged.grip)
        yield from self._grip_to(True)

    def _leave_plug(self, bay: Bay) -> Sequence:
        """Let go of a plug that does not come, and stand clear."""
        self._moving = Mode.RETREAT
        if self._senses.gripper_closed:
            yield from self._grip_to(False)
        self._tare, self._sag = np.zeros(6), np.eye(4)
        if self.in_contact_zone:
            yield from self._line(back(self.gripper, GRASP_STANDOFF), self.parameters.speed__near_m_s)
        self._need = Zone.FREE
        yield from self._line(bay.clear)
        self._moving = Mode.RELEASED
