"""The plug in contact: force-controlled steps of its nose, the search for the opening, the way in and the way out."""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from robot_charger.robot.collision import Collision
from robot_charger.robot.description import Bay, Connector
from robot_charger.robot.errors import (
    ForceLimit,
    Jammed,
    NotSeated,
    OutOfReach,
    Stuck,
    TimedOut,
    ToolError,
    WrenchError,
)
from robot_charger.robot.feel import Feeling, torque_ahead
from robot_charger.robot.search import Spiral
from robot_charger.robot.sight import Sight
from robot_charger.robot.spatial import (
    Array,
    from_vector,
    inverse,
    length,
    limited,
    moved,
    transform,
    vector_from_rotation,
    within,
)
from robot_charger.robot.state import (
    PERIOD,
    SENSE_AGE,
    Arm,
    Command,
    Engagement,
    Equipment,
    Mode,
    Part,
    Senses,
    Sequence,
)
from robot_charger.robot.ways import Ways

SENSE_LOST = 1.5  # [s] an arm that is silent for so long follows nothing
FOLLOW_GAIN = 0.6e-3  # [m/s per N]
FOLLOW_SPEED = 0.06  # [m/s]
FOLLOW_DEADBAND = 8.0  # [N] smaller forces move nothing, or the arm would creep

# Gains of the force loop: speed of the set-point per force.
AXIAL_GAIN = 0.4e-3  # [m/s per N]
LATERAL_GAIN = 0.5e-3  # [m/s per N]
TURN_GAIN = 0.02  # [rad/s per Nm]
LATERAL_SPEED, TURN_SPEED = 0.012, 0.15  # [m/s, rad/s] largest answers
SWIFT_SHARE, SLOW_PRESS = 0.8, 0.004  # share of insert.force_n, [m/s]
LEAVE_GAIN = 0.5e-3  # [m/s per N] of an arm that draws back
LEAVE_TURN_GAIN, LEAVE_TURN_SPEED = 0.04, 0.4  # [rad/s per Nm, rad/s]
LEFT_TICKS = 5  # so many ticks without force: it is left behind
LEAVE_MOST_M = 0.06  # [m] longest way of an arm that draws back
LEAVE_SLOWEST = 0.008  # [m/s]
FREE_WAY_M, FREE_N = 0.004, 2.0  # [m, N] a force that changes less over such a way is no contact
DRIFT_MOST_N = 25.0  # [N] a larger one is not believed to be the sensor's
LIMP_TIME = 0.5  # [s] a limp arm has to come to rest
DETENT_WAY_M, DETENT_LEAST_M, DETENT_TICKS = 0.006, 0.0008, 60
DETENT_N, DETENT_SHARE = 30.0, 0.6  # [N] least peak, and to what share of it the push falls behind it
CORRECTED_M = 0.028  # [m] an estimate that end-stop and detent correct may be wrong by this
SEAT_BEYOND_M = 0.006  # [m] a seated nose lies no further beyond the search
WEIGH_TIME = 0.12  # [s]
SETTLE_TIME = 0.2  # [s] pressed before the search begins: a tilted nose comes to lie on the face
# Where a pressed nose slides so far, as a share of the lead-in, and sinks by less than this share of that, there is the
# face: inside an opening it has less room.
FACE_SLIDE, FACE_SLOPE = 0.75, 0.5
CAUGHT_DEPTH = 0.0045  # [m] beyond the face: the nose is in the opening


class Detent:
    """Notices that a push has passed its peak: it falls to a share of it while the nose goes on."""

    def __init__(self) -> None:
        self._recent: deque[tuple[float, float]] = deque()  # x [m] and push [N]
        self.passed = False

    def feel(self, x: float, push: float) -> None:
        """One tick."""
        self._recent.append((x, push))
        while x - self._recent[0][0] > DETENT_WAY_M or len(self._recent) > DETENT_TICKS:
            self._recent.popleft()
        at, most = max(self._recent, key=lambda one: one[1])
        if most > DETENT_N and push < DETENT_SHARE * most and x > at + DETENT_LEAST_M:
            self.passed = True


class Contact(Part):
    """Motion in contact: the set-point of the plug's nose, ``arm.nose``, moves as the forces say."""

    def __init__(
        self, equipment: Equipment, arm: Arm, sight: Sight, feeling: Feeling, collision: Collision, ways: Ways
    ) -> None:
        super().__init__(equipment, arm)
        self.sight, self.feeling, self.collision, self.ways = sight, feeling, collision, ways

    def push_on(
        self, speed: float, give: bool, step: Array | None = None, limit: float | None = None, turn: bool = False
    ) -> None:
        """Move the nose's set-point for one tick: along the axis at ``speed`` [m/s], across it as felt or told.

        ``give``: across the axis and in rotation; ``turn``: in rotation alone. ``step``: (y, z) of this tick [m].
        Raises ForceLimit beyond the limits.
        """
        p, touch = self.parameters, self.arm.touch
        self.arm.peak = max(self.arm.peak, touch.push if limit is None else -touch.push)
        side = length(touch.side)
        torque = length(touch.torque)
        if touch.push > p.insert__limit_n:
            raise ForceLimit(f"push of {touch.push:.0f} N, at most {p.insert__limit_n:.0f} N")
        elif -touch.push > p.withdraw__limit_n:
            raise ForceLimit(f"pull of {-touch.push:.0f} N, at most {p.withdraw__limit_n:.0f} N")
        elif side > p.lateral_limit_n:
            raise ForceLimit(f"{side:.0f} N across the axis, at most {p.lateral_limit_n:.0f} N")
        elif torque > p.torque_limit_nm:
            raise ForceLimit(f"torque of {torque:.1f} Nm, at most {p.torque_limit_nm:.1f} Nm")
        seconds = PERIOD * self.arm.rate
        self.arm.nose[0] += speed * seconds
        if give:
            self.arm.nose[1:3] += limited(touch.side * LATERAL_GAIN, LATERAL_SPEED) * seconds
        if give or turn:
            self.arm.nose[3:] += limited(touch.torque * TURN_GAIN, TURN_SPEED) * seconds
        if step is not None:
            self.arm.nose[1:3] += step
        assert self.arm.inlet is not None
        self.arm.q, left = self.kinematics.follow(self.flange(self.arm.nose), self.arm.q)
        if left > 0.02:
            raise OutOfReach("the arm cannot follow the plug")

    def flange(self, nose: Array) -> Array:
        """Pose of the unloaded gripper_link that brings the nose to (x, y, z, rx, ry, rz) in the inlet's frame."""
        assert self.arm.inlet is not None and self.arm.connector is not None
        return (
            self.arm.inlet @ from_vector(nose) @ transform((-self.arm.connector.nose, 0.0, 0.0)) @ inverse(self.arm.sag)
        )

    def take_up(self) -> None:
        """Let the nose's set-point begin where the arm's set-point is."""
        assert self.arm.inlet is not None and self.arm.connector is not None
        at = inverse(self.arm.inlet) @ self.kinematics.forward(self.arm.q) @ self.arm.sag
        at = at @ transform((self.arm.connector.nose, 0.0, 0.0))
        self.arm.nose = np.concatenate([at[:3, 3], vector_from_rotation(at[:3, :3])])

    def tick(self, bay: Bay) -> Sequence:
        """One tick in contact: time, vehicle, and a new beginning after a hold."""
        yield
        if self.arm.fresh:
            self.take_up()
        if self.arm.clock - self.arm.attempt_began > self.parameters.attempt_timeout_s:
            raise TimedOut(f"attempt {self.arm.attempt} took longer than {self.parameters.attempt_timeout_s:.0f} s")

    def zero_wrench(self) -> Sequence:
        """Stand still, take the present wrench for the cable's. Raises SensorError when it is too large for that."""
        yield from self.ways.wait(0.15)
        readings = []
        for _ in range(15):
            yield
            if self.arm.senses.wrench is not None:
                readings.append(self.arm.senses.wrench)
        if not readings or self.arm.senses.wrench_age > SENSE_AGE:
            raise WrenchError("the wrench is missing")
        if len(readings) > 1 and all(np.array_equal(r, readings[0]) for r in readings):
            raise WrenchError("the wrench does not change: its sensor is frozen")
        tare = np.mean(readings, axis=0)
        force = length(tare[:3])
        if force > self.parameters.tare_limit_n:
            raise WrenchError(
                f"the wrench reads {force:.0f} N before any contact, at most {self.parameters.tare_limit_n:.0f} N"
            )
        self.arm.tare, self.arm.sag = tare, self.feeling.sagged(tare)
        self.collision.rest(tare)

    def weigh(self) -> Sequence:
        """Stand still for a moment: what the wrench reads now is the cable's pull. Raises WrenchError."""
        yield from self.ways.wait(WEIGH_TIME)
        wrench = self.arm.senses.wrench
        if wrench is None or self.arm.senses.wrench_age > SENSE_AGE:
            raise WrenchError("the wrench is missing")
        force = length(wrench[:3])
        if force > self.parameters.tare_limit_n:
            raise WrenchError(
                f"the wrench reads {force:.0f} N, at most {self.parameters.tare_limit_n:.0f} N for a cable"
            )
        self.collision.rest(wrench)

    def leave(self) -> Sequence:
        """Draw back from what the tool feels, along the force, until it is below ``leave.force_n``.

        After ``leave.time_s`` the arm goes limp instead and gives way by itself. A small force that stays although the
        arm draws back further than the mount bends is no contact: the wrench has drifted, by ``arm.drift``.
        """
        arm, p = self.arm, self.parameters
        if arm.senses.q is not None:
            arm.q = arm.senses.q.copy()  # a set-point ahead of an arm that its guard stops would press on
        pose, quiet, way = self.kinematics.forward(arm.q), 0, 0.0
        trace: deque[tuple[float, Array]] = deque()  # way and force, of the last FREE_WAY_M
        arm.leaving, arm.drift = True, 0.0
        try:
            for _ in range(round(p.leave__time_s / PERIOD)):
                if way > LEAVE_MOST_M:
                    break  # whatever it is, it comes along
                felt = self.collision.unexpected_wrench()
                quiet = quiet + 1 if length(felt[:3]) < p.leave__force_n else 0
                if quiet > LEFT_TICKS:
                    return
                if arm.fresh:
                    pose = self.kinematics.forward(arm.q)
                trace.append((way, felt[:3]))
                while way - trace[0][0] > FREE_WAY_M:
                    if length(felt[:3] - trace[0][1]) < FREE_N:
                        arm.drift = length(felt[:3])
                        if arm.drift <= DRIFT_MOST_N:
                            return
                    trace.popleft()
                step = self._yield(felt)
                way += length(step[:3])
                pose = moved(pose, step)
                arm.q, _ = self.kinematics.follow(pose, arm.q)
                yield
            arm.limp, arm.moving = True, Mode.LIMP
            yield from self.ways.wait(LIMP_TIME)
        finally:
            arm.leaving = False

    def _yield(self, felt: Array) -> Array:
        """Step (6,) of gripper_link in its own axes that gives way to a wrench (6,) at the sensor."""
        tool = self.site.tool
        centre = tool.compliance_centre
        turn = np.array(torque_ahead(felt, tool.wrench_distance + centre)) * LEAVE_TURN_GAIN
        step = np.empty(6)
        step[3:] = limited(turn, LEAVE_TURN_SPEED) * PERIOD
        force = length(felt[:3])
        speed = within(LEAVE_SLOWEST, force * LEAVE_GAIN, self.parameters.speed__near_m_s)
        step[:3] = felt[:3] * (speed * PERIOD / max(force, 1e-6))
        step[:3] -= np.cross(step[3:], (centre, 0.0, 0.0))
        return step

    @property
    def pressed(self) -> bool:
        """The tool feels a force that should not stay."""
        return self.collision.unexpected() > 2.0 * self.parameters.leave__force_n

    def plug_held_by_inlet(self, plug: Connector) -> bool:
        """The inlet holds the plug: the hand may open."""
        touch = self.arm.touch
        deep = touch.depth > 0.5 * plug.depth and touch.lateral <= self.furthest()
        return self.arm.inlet is not None and deep

    def furthest(self) -> float:
        """From the estimated axis that a seated nose may lie [m]."""
        return max(self.parameters.seat__lateral_tolerance_m, self.collision.radius() + SEAT_BEYOND_M)

    def search(self, bay: Bay, plug: Connector) -> Sequence:
        """Press lightly and wind outwards until the nose falls in.

        Depths count from the face from then on, if the nose has slid on one. Where it only stopped, that may have been
        the lead-in or the seal of an opening that it fell straight into.
        """
        p = self.parameters
        self.arm.moving = Mode.SEARCH
        least, rest, slide = self.arm.touch.x, self.arm.touch, FACE_SLIDE * plug.capture
        spiral, began = Spiral(self.arm.nose[1:3], p, self.collision.radius()), self.arm.clock
        while True:
            touch = self.arm.touch
            pressed = touch.push > 0.5 * p.search__force_n
            if pressed:
                least = min(least, touch.x)
            slid = math.dist(touch.across, rest.across)
            if not pressed or abs(touch.x - rest.x) > FACE_SLOPE * slide:
                rest = touch
            elif slid > slide:
                self.arm.face = least
            depth = touch.x - least
            if depth > CAUGHT_DEPTH or (self.arm.senses.end_stop and touch.x > 0.5 * plug.depth):
                return  # caught; or in already, where nothing resisted
            speed = within(-0.01, (p.search__force_n - touch.push) * AXIAL_GAIN, p.speed__touch_m_s)
            step = np.zeros(2)
            if self.arm.clock - began > SETTLE_TIME:
                step = spiral.step(self.arm.nose[1:3], touch.push, touch.side, depth, PERIOD * self.arm.rate)
            self.push_on(speed, give=False, step=step, turn=True)
            yield from self.tick(bay)
            self.sight.check_moved(bay)

    def insert(self, bay: Bay, plug: Connector) -> Sequence:
        """Push in, giving way sideways, until the plug is seated. Raises Jammed or NotSeated."""
        p = self.parameters
        self.arm.moving = Mode.INSERT
        best, best_at, wiggles = self.arm.touch.depth, self.arm.clock, 0
        pressed, detent = 0.0, Detent()
        while True:
            self.push_on(within(-0.02, self._press(self.arm.touch.push), p.speed__insert_m_s), give=True)
            yield from self.tick(bay)
            self.sight.check_moved(bay)
            touch, now = self.arm.touch, self.arm.clock
            detent.feel(touch.x, touch.push)
            if touch.depth > best + 0.0005 or self.arm.fresh:
                best, best_at = max(best, touch.depth), now
            pressed = pressed + PERIOD * self.arm.rate if self.arm.senses.end_stop and touch.push > 15.0 else 0.0
            if pressed > 0.08:
                break
            if now - best_at > 0.8 and touch.push > 0.8 * p.insert__force_n:
                if wiggles == 1:
                    if touch.depth > plug.depth - p.seat__depth_tolerance_m:
                        raise NotSeated(f"end-stop silent at {touch.depth * 1e3:.0f} mm")
                    raise Jammed(f"stopped at {touch.depth * 1e3:.0f} mm with {touch.push:.0f} N")
                wiggles += 1
                yield from self.wiggle(bay, 1.0)
                best_at = self.arm.clock
        yield from self.relax(bay)
        self._judge(plug, detent.passed)
        self.arm.moving = Mode.MATED
        assert self.arm.inlet is not None
        self.arm.engaged[bay.number] = Engagement(
            self.arm.inlet, self.arm.face, self.arm.gripper.copy(), plug, None, self.arm.base, self.arm.base_at
        )

    def _judge(self, plug: Connector, detent: bool) -> None:
        """Whether the plug is seated: two of three must agree, and the end-stop is always one of them.

        End-stop and kinematics; or end-stop and detent, which then correct the depth. Raises NotSeated.
        """
        arm, p = self.arm, self.parameters
        depth, lateral = arm.touch.depth, arm.touch.lateral
        off = abs(depth - plug.depth)
        if not arm.senses.end_stop:
            raise NotSeated("the end-stop let go again")
        if off > (CORRECTED_M if detent else p.seat__depth_tolerance_m):
            told = "and the detent say" if detent else "says"
            raise NotSeated(f"end-stop {told} seated, kinematics say {depth * 1e3:.0f} mm of {plug.depth * 1e3:.0f} mm")
        if lateral > self.furthest():
            raise NotSeated(f"seated {lateral * 1e3:.0f} mm beside the inlet")
        if detent:
            arm.face += depth - plug.depth
            arm.touch.depth = plug.depth

    def _press(self, push: float) -> float:
        """Speed into the inlet at a ``push`` [m/s]: swift for most plugs, slow for one that needs more."""
        p = self.parameters
        swift = (SWIFT_SHARE * p.insert__force_n - push) * AXIAL_GAIN
        slow = min(SLOW_PRESS, (p.insert__force_n - push) * AXIAL_GAIN)
        return max(swift, slow)

    def relax(self, bay: Bay) -> Sequence:
        """Take the force off the plug."""
        for _ in range(60):
            speed = within(-0.01, -self.arm.touch.push * AXIAL_GAIN, 0.01)
            self.push_on(speed, give=True, limit=0.0)
            yield from self.tick(bay)

    def wiggle(self, bay: Bay, sign: float) -> Sequence:
        """Small circles and turns under a light push or pull."""
        middle, tick = self.arm.nose.copy(), 0
        while tick < 80:
            phase = 2 * math.pi * tick / 40
            goal = middle[1:3] + 0.0015 * np.array([math.sin(phase), 1.0 - math.cos(phase)])
            self.arm.nose[3:5] = middle[3:5] + 0.01 * np.array([math.sin(phase), math.sin(2 * phase)])
            speed = (sign * 40.0 - self.arm.touch.push) * AXIAL_GAIN
            self.push_on(
                within(-0.02, speed, 0.02), give=False, step=(goal - self.arm.nose[1:3]) * self.arm.rate, limit=0.0
            )
            yield from self.tick(bay)
            tick += 1
            if self.arm.fresh:
                middle, tick = self.arm.nose.copy(), 0

    def pull_out(self, bay: Bay, plug: Connector) -> Sequence:
        """Pull until the nose is out. Raises Stuck."""
        p = self.parameters
        best, best_at, wiggles = self.arm.touch.x, self.arm.clock, 0
        self.arm.engaged.pop(bay.number, None) if self.arm.touch.depth < 0.5 * plug.depth else None
        while max(self.arm.touch.x, self.arm.touch.depth) > -0.012:
            speed = (-p.withdraw__force_n - self.arm.touch.push) * AXIAL_GAIN
            self.push_on(within(-0.035, speed, 0.02), give=True, limit=p.withdraw__limit_n)
            yield from self.tick(bay)
            touch, now = self.arm.touch, self.arm.clock
            if touch.x < best - 0.0005 or self.arm.fresh:
                best, best_at = min(best, touch.x), now
            if now - best_at > 1.2 and -touch.push > 0.8 * p.withdraw__force_n:
                if wiggles == 1:
                    yield from self.relax(bay)
                    raise Stuck(f"the plug stays at {touch.depth * 1e3:.0f} mm at a pull of {-touch.push:.0f} N")
                wiggles += 1
                yield from self.wiggle(bay, -1.5)
                best_at = self.arm.clock
            if not self.arm.senses.plug_present:
                raise ToolError("the gripper lost the plug")
        self.arm.engaged.pop(bay.number, None)

    def accompany(self, senses: Senses, paused: bool) -> Command:
        """Follow the mated plug with zero commanded force while the permit asks for it; otherwise hold.

        A head that cannot let go counts as following while the arm is heard, and as MATED when it is not.
        """
        may = senses.passive_follow and senses.field_clear and not senses.emergency
        holding = senses.gripper_closed and senses.plug_present
        silent = senses.q is None or max(senses.q_age, senses.wrench_age) > SENSE_AGE
        self.arm.lost = self.arm.lost + PERIOD if silent else 0.0
        lost = self.arm.lost > SENSE_LOST
        if lost or not (may and holding and senses.now <= senses.permit_until):
            self.arm.mode, self.arm.goes_along = Mode.FOLLOWING if self.arm.bound and not lost else Mode.MATED, False
            return Command()
        if senses.q is None or silent or self.arm.inlet is None:
            return Command()
        if not self.arm.goes_along or paused:
            self.arm.mode, self.arm.goes_along, self.arm.q = Mode.FOLLOWING, True, senses.q.copy()
            self.take_up()
            self.arm.follow_from = self.arm.nose.copy()
        before = self.arm.nose.copy()
        force = np.array([-self.arm.touch.push, *self.arm.touch.side])
        size = length(force)
        if size > FOLLOW_DEADBAND:
            speed = force * (1.0 - FOLLOW_DEADBAND / size) * FOLLOW_GAIN
            self.arm.nose[:3] += limited(speed, FOLLOW_SPEED) * PERIOD
        torque = self.arm.touch.torque
        if length(torque) > 1.0:
            self.arm.nose[3:] += limited(torque * TURN_GAIN, TURN_SPEED) * PERIOD
        if length(self.arm.nose[:3] - self.arm.follow_from[:3]) > self.parameters.follow__stroke_m:
            self.arm.nose = before
            self.arm.text = f"followed the plug by {self.parameters.follow__stroke_m * 1e3:.0f} mm: no further"
        self.arm.q, _ = self.kinematics.follow(self.flange(self.arm.nose), self.arm.q)
        return Command(self.arm.q)
