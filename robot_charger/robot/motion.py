"""The robot's motion logic as plain Python: goals, and one ``step`` every 10 ms.

No clock, no I/O: time and measurements come with each step, joint set-points and the gripper's command go out.
The state is one value (``state.Arm``). The actions are generators: every ``yield`` is one tick. A sequence only runs
while the motion permit covers where the arm is; otherwise the arm gets nothing new and holds.

One file per thing: ``sight`` (where the inlet is), ``feel`` (forces), ``ways`` (free space), ``contact`` (search,
insert, withdraw), ``actions`` (connect, release, disconnect).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from robot_charger.robot.actions import Actions
from robot_charger.robot.collision import Collision
from robot_charger.robot.contact import SENSE_LOST, Contact
from robot_charger.robot.description import Bay, Connector, Site
from robot_charger.robot.errors import (
    BadGoal,
    Busy,
    Cancelled,
    Emergency,
    ErrorCode,
    FieldBreached,
    NoPermit,
    RobotError,
    SensorError,
    ToolError,
)
from robot_charger.robot.feel import Feeling
from robot_charger.robot.kinematics import Kinematics
from robot_charger.robot.parameters import RobotParameters
from robot_charger.robot.planner import Planner
from robot_charger.robot.sight import Sight
from robot_charger.robot.spatial import largest
from robot_charger.robot.state import PERIOD, SENSE_AGE, Arm, Command, Equipment, Mode, Result, Senses, Sequence
from robot_charger.robot.ways import Ways
from robot_charger.words.values import Zone

__all__ = ["PERIOD", "Command", "ConnectionRobot", "Mode", "Result", "Senses"]

FIRST_HEARD = 5.0  # [s] after the start, until the arm is heard for the first time
SENSE_SLOW = (0.03, 0.07)  # [s] ages between which the arm goes ever slower, down to none at the second
BEHIND_JOINT = 0.3  # [rad] an arm this far behind its set-point is waited for in free space
BEHIND_NEAR = (0.005, 0.010)  # [rad] the same in contact: ever slower between the two
LATE_TICKS = 2  # from a set-point to what the joint states show of it, beyond its horizon
JERK_TIME = 0.15  # [s] for which the arm's own mass is felt after it stood still against its will
NO_STEP = np.zeros(6)
FROZEN = 0.25  # [s] a wrench that does not change in its last digit for this long is frozen
TOOL_AGE = 0.4  # [s] the tool may be silent for this much longer than the others
STALLED_RATE, STALLED_TIME = 0.05, 0.3  # slower than this for so long [s] in contact: begin again where the arm is
FOLLOW_TIME = 6.0  # [s] for an arm to come after its set-point
PAUSE = 0.1  # [s] a step later than this begins again, as after a hold


def _shown(name: str) -> Any:
    """A field of the arm's state, to read."""
    return property(lambda self: getattr(self.arm, name))


class ConnectionRobot:
    """One arm, its goals and its state. ``step`` is called from one thread; so are ``start`` and ``cancel``."""

    def __init__(self, site: Site, kinematics: Kinematics, parameters: RobotParameters) -> None:
        self.site, self.kinematics, self.parameters = site, kinematics, parameters
        self.planner = Planner(site, kinematics, parameters.contact__standoff_m)
        self.arm = arm = Arm(q=site.park.copy())
        equipment = Equipment(site, kinematics, parameters, self.planner)
        self.sight, self.feeling = Sight(equipment, arm), Feeling(equipment, arm)
        self.collision = Collision(equipment, arm)
        self.ways = Ways(equipment, arm, self.collision)
        self.contact = Contact(equipment, arm, self.sight, self.feeling, self.collision, self.ways)
        self.actions = Actions(equipment, arm, self.sight, self.ways, self.contact)
        self.see, self.see_instead = self.sight.see, self.sight.see_instead
        self.forget_poses, self.waits_before = self.sight.forget_poses, self.ways.waits_before

    mode, bay, connector, attempt = _shown("mode"), _shown("bay"), _shown("connector"), _shown("attempt")
    error, text, result, grasped = _shown("error"), _shown("text"), _shown("result"), _shown("grasped")
    touch, peak, gripper = _shown("touch"), _shown("peak"), _shown("gripper")
    in_contact_zone, engaged = _shown("in_contact_zone"), _shown("engaged")

    @property
    def busy(self) -> bool:
        return self.arm.task is not None

    @property
    def idle(self) -> bool:
        """No goal, and no mated plug to go along with: a step now and then is enough."""
        return not self.busy and self.arm.mode not in (Mode.MATED, Mode.FOLLOWING)

    def start_connect(self, evse: int, connector: str, now: float) -> None:
        """Begin to plug in. Raises Busy or BadGoal."""
        bay, plug = self._goal(evse, connector)
        if evse in self.arm.engaged and self.arm.mode != Mode.HOLD:
            raise BadGoal(f"a plug is already in the inlet of EVSE {evse}: disconnect it first")
        self._begin(bay, plug, lambda: self.actions.connect(bay, plug), now)

    def start_release(self, evse: int, now: float) -> None:
        """Begin to let go of the mated plug. Raises Busy or BadGoal."""
        bay, plug = self._goal(evse)
        if evse not in self.arm.engaged:
            raise BadGoal(f"no plug is in the inlet of EVSE {evse}")
        self._begin(bay, plug, lambda: self.actions.release(bay, plug), now)

    def start_disconnect(self, evse: int, now: float) -> None:
        """Begin to take the plug out and bring it home. Raises Busy or BadGoal."""
        bay, plug = self._goal(evse)
        self._begin(bay, plug, lambda: self.actions.disconnect(bay, plug), now)

    def prepare(self, evse: int, now: float) -> None:
        """Let a parked arm begin to go before the plug that it will be asked for next, or home for 0. No goal."""
        if self.busy or self.arm.mode != Mode.PARKED or evse == self.ways.waits_before():
            return
        bay, plug = self._goal(evse or self.ways.waits_before())
        way = self.actions.go_before if evse else self.actions.go_home
        self._begin(bay, plug, lambda: way(bay, plug), now)

    def cancel(self) -> None:
        """End the running action at once; the arm holds where it is."""
        if self.busy:
            self._finish(Cancelled("cancelled"))

    def _goal(self, evse: int, connector: str | None = None) -> tuple[Bay, Connector]:
        if self.busy:
            raise Busy(f"busy with EVSE {self.arm.bay}")
        bay = self.planner.bay(evse, self.parameters.evses)
        if connector is None:
            engaged = self.arm.engaged.get(evse)
            known = self.arm.last_connector.get(evse, bay.connectors[0])
            connector = engaged.connector.name if engaged else known
        return bay, self.planner.connector(bay, connector)

    def _begin(self, bay: Bay, plug: Connector, action: Callable[[], Sequence], now: float) -> None:
        if bay.number != self.arm.bay:
            self.arm.inlet, self.arm.face = None, 0.0
        self.arm.bay, self.arm.connector, self.arm.result = bay.number, plug, None
        self.arm.last_connector[bay.number] = plug.name
        self.arm.attempt, self.arm.peak, self.arm.grasped = 0, 0.0, False
        self.arm.bound = self.arm.goes_along = False
        self.arm.obstacles.pop(bay.number, None)  # a new goal is a new look
        self.arm.error, self.arm.text = ErrorCode.NONE, ""
        self.arm.task, self.arm.need, self.arm.started = self.actions.careful(action), Zone.FREE, now
        if self.collision.holds():
            self.arm.load_known = self.arm.load_known and self.arm.base_at is not None
        else:
            self.collision.nothing_held()
        self.arm.limp = self.arm.leaving = self.arm.closing = False
        self.arm.unexpected_peak, self.arm.crosses, self.arm.trusted = 0.0, frozenset(), False
        self.arm.held, self.arm.lost, self.arm.waited, self.arm.rate, self.arm.fresh = None, 0.0, 0.0, 1.0, True
        self.arm.attempt_began = self.arm.clock
        self.arm.moving = Mode.MOVING

    def vehicle_left(self, evse: int) -> None:
        """The bay is empty: nothing seen or mated there counts any more."""
        self.sight.forget_poses(evse)
        if not (self.busy and self.arm.bay == evse):
            self.arm.engaged.pop(evse, None)

    def step(self, senses: Senses) -> Command:
        """Advance by one period and say what the arm shall do.

        Sequences, their time-outs and the grace for a lapsed permit count in steps, not in seconds of the wall: a
        computer that is short of time, or an arm that lags, makes an action slower but does not make it fail. What
        the arm is forbidden (permit, emergency, field, ages of sensors) is judged in real time.
        """
        paused = senses.now - self.arm.last_now > PAUSE
        self.arm.senses, self.arm.last_now = senses, senses.now
        if self.arm.task is None:
            if self.arm.mode in (Mode.MATED, Mode.FOLLOWING):
                self.feeling.feel(senses)
                return self.contact.accompany(senses, paused)
            self.feeling.feel(senses)
            self._rest(senses)
            return Command()
        self.feeling.feel(senses)
        try:
            self._watch(senses)
            if senses.q is None:  # not heard yet
                return Command()
            if paused or not self._permitted(senses):
                return self._hold()
            if self.arm.held is not None:
                self.arm.held, self.arm.fresh = None, True
            if self.arm.fresh:
                self.arm.q = senses.q.copy()
            if self.arm.fresh or max(senses.q_age, senses.wrench_age) > SENSE_SLOW[0]:
                self.arm.jerked_until = senses.now + JERK_TIME
            self.arm.mode = self.arm.moving
            if not self.arm.fresh and self._lagging(senses):
                return Command(self.arm.q, self.arm.grip)
            self.arm.grip = None
            self.arm.clock += PERIOD * self.arm.rate
            obstacle, before = self.collision.watch(), self.arm.q
            if obstacle is None:
                next(self.arm.task)
            else:
                self.arm.task.throw(obstacle)
            self.arm.step = NO_STEP if self.arm.fresh else self.arm.q - before
            self.arm.fresh = False
            return Command(None if self.arm.limp else self.arm.q, self.arm.grip, self.arm.limp)
        except StopIteration:
            self._finish(None)
            return Command(self.arm.q, self.arm.grip)
        except RobotError as error:
            self._finish(error)
        return Command(limp=self.arm.limp)

    def _permitted(self, senses: Senses) -> bool:
        need = Zone.CONTACT if self.arm.in_contact_zone else self.arm.need
        fresh = max(senses.q_age, senses.wrench_age) <= SENSE_AGE  # an arm that does not feel does not move
        return fresh and senses.zone >= need and senses.now <= senses.permit_until

    def _hold(self) -> Command:
        self.arm.mode = Mode.HOLD
        self.arm.held = PERIOD + (self.arm.held or 0.0)
        if self.arm.held > self.parameters.permit_grace_s:
            raise NoPermit(f"no valid motion permit for {self.arm.held:.1f} s")
        return Command()

    def _lagging(self, senses: Senses) -> bool:
        """True while the set-point must wait: the arm is far behind it, or tells nothing. Sets the rate in contact.

        The rate, 0 to 1, falls with the age of what is felt and with the arm's lag. Raises ToolError when the arm
        does not come.
        """
        assert senses.q is not None
        full, none = SENSE_SLOW
        age = senses.q_age
        late = self.parameters.horizon_s + LATE_TICKS * PERIOD  # a moving arm is behind by this much time
        behind = largest(self.arm.q - senses.q - self.arm.step * late / PERIOD)
        self.arm.rate, lagging = 1.0, behind > BEHIND_JOINT
        if self.arm.need == Zone.CONTACT:
            age = max(age, senses.wrench_age)
            near, far = BEHIND_NEAR
            self.arm.rate = max(0.0, min(1.0, (none - age) / (none - full), (far - behind) / (far - near)))
        if self.arm.leaving:
            self.arm.rate, self.arm.waited = 1.0, 0.0
            return age > none
        stalled = lagging or self.arm.rate < STALLED_RATE
        self.arm.waited = self.arm.waited + PERIOD if stalled else 0.0
        if self.arm.need == Zone.CONTACT and self.arm.waited > STALLED_TIME and age <= full:
            # The arm stands short of its set-point and says so: its guard stops it. To insist would press for ever.
            self.arm.q, self.arm.fresh, self.arm.waited, self.arm.rate = senses.q.copy(), True, 0.0, 1.0
            return False
        if self.arm.waited > FOLLOW_TIME:
            self.arm.waited = 0.0
            raise ToolError("the arm does not follow its set-points")
        return lagging or age > none

    def _watch(self, senses: Senses) -> None:
        """What ends any action at once and leaves the arm where it is."""
        if senses.emergency:
            raise Emergency("emergency stop")
        if not senses.field_clear:
            raise FieldBreached(f"protective field of bay {self.arm.bay} is breached")
        if senses.breached and senses.q is not None:
            crossed = senses.breached & (self.arm.crosses | self.ways.bays_near(senses.q))
            if crossed:
                raise FieldBreached(f"protective field of bay {min(crossed)} is breached, and the arm crosses it")
        silent = [
            f"{name} for {age:.2f} s"
            for name, age in (
                ("joint states are missing", senses.q_age),
                ("the wrench is missing", senses.wrench_age),
                ("the tool's sensors are silent", senses.tool_age - TOOL_AGE),
            )
            if age > SENSE_AGE
        ]
        self.arm.lost = self.arm.lost + PERIOD if silent else 0.0
        if self.arm.lost > (SENSE_LOST if senses.q is not None else FIRST_HEARD):
            raise SensorError(silent[0])
        same = senses.now - senses.wrench_age - self.arm.changed_at
        if same > FROZEN:
            raise SensorError(f"the wrench did not change for {same:.2f} s")

    def _rest(self, senses: Senses) -> None:
        """Mode of an arm without a goal, from what it senses and remembers when nothing is known yet."""
        if self.arm.mode != Mode.UNKNOWN or senses.q is None:
            return
        remembered = self.arm.engaged.get(self.arm.bay)
        if remembered is not None and self.collision.holds() and senses.end_stop:
            self.arm.mode, self.arm.inlet, self.arm.face = Mode.MATED, remembered.inlet, remembered.face
            self.arm.base, self.arm.base_at = remembered.base, remembered.base_at
        elif remembered is not None and not senses.gripper_closed:
            self.arm.mode = Mode.RELEASED
        elif self._waits(senses):
            self.arm.mode = Mode.PARKED
        elif senses.q_age < SENSE_AGE:
            self.arm.mode = Mode.HOLD

    def _waits(self, senses: Senses) -> bool:
        """It stands where it waits for a goal: parked, or before a plug."""
        parked = senses.q is not None and largest(senses.q - self.site.park) < 0.05
        return parked or self.ways.waits_before() > 0

    def _finish(self, error: RobotError | None) -> None:
        if self.arm.task is not None:
            self.arm.task.close()
        self.arm.task = None
        self.arm.error = error.code if error else ErrorCode.NONE
        self.arm.text = str(error) if error else ""
        self.arm.mode = self.arm.moving
        if error is not None and (error.stay or self.arm.moving not in (Mode.PARKED, Mode.RELEASED)):
            self.arm.mode = Mode.HOLD
            if self.arm.limp:
                self.arm.mode = Mode.LIMP
            elif not self.arm.in_contact_zone and self._waits(self.arm.senses):
                self.arm.mode = Mode.PARKED
        self.arm.result = Result(
            self.arm.error,
            self.arm.text,
            self.arm.touch.depth,
            self.arm.touch.lateral,
            self.arm.peak,
            self.arm.senses.now - self.arm.started,
            self.arm.attempt,
            self.arm.bound,
            error,
        )
