"""Ways through free space: straight lines, joint motions, and where the arm waits."""

from __future__ import annotations

import math

import numpy as np

from robot_charger.robot.collision import Collision
from robot_charger.robot.description import Bay
from robot_charger.robot.errors import OutOfReach, ToolError
from robot_charger.robot.planner import HOLSTER_PULL_M, back
from robot_charger.robot.spatial import Array, difference, largest, length, moved
from robot_charger.robot.speeds import Hand
from robot_charger.robot.state import PERIOD, Arm, Equipment, Part, Sequence

STEPS = np.linspace(0.0, 1.0, 9)  # of a joint motion that are looked at before it begins
SECTOR_RAD = 0.9  # [rad] an arm that points nearer to a bay's axis than this reaches into the bay


class Ways(Part):
    """Motion without contact. Sequences move the set-point ``arm.q``, one step per tick."""

    def __init__(self, equipment: Equipment, arm: Arm, collision: Collision) -> None:
        super().__init__(equipment, arm)
        self.collision, self.hand = collision, Hand.of(equipment.parameters)

    def allowed(self, direction: Array) -> float:
        """Largest speed along ``direction`` (3,) in gripper_link's axes [m/s]; see ``speeds``."""
        size = length(direction)
        if size < 1e-9:
            return math.inf
        p = self.parameters
        # The threshold is lower near an inlet, and a lower one allows more: the slower of the two counts everywhere.
        threshold = max(p.collision__free_n, p.collision__near_n)
        if self.collision.near():
            threshold = p.collision__near_n
        return self.hand.speed(threshold, self.hand.stiffness(self.site.tool, direction / size))

    def bays_near(self, q: Array) -> frozenset[int]:
        """EVSEs whose bays the arm reaches into at joint angles ``q`` (6,)."""
        x, y = self.kinematics.forward(q)[:2, 3].tolist()
        at = math.atan2(y, x)
        axes = ((n, math.atan2(bay.frame[1, 0], bay.frame[0, 0])) for n, bay in self.site.bays.items())
        return frozenset(n for n, axis in axes if abs(math.remainder(at - axis, math.tau)) < SECTOR_RAD)

    def wait(self, seconds: float) -> Sequence:
        for _ in range(max(1, round(seconds / PERIOD))):
            yield

    def line(self, goal: Array, speed: float | None = None) -> Sequence:
        """Straight to ``goal``, with limits of speed, acceleration and joints."""
        p = self.parameters
        most_speed = p.speed__free_m_s if speed is None else speed
        share = rate = 0.0
        most = self.kinematics.velocity * PERIOD
        start = self.kinematics.forward(self.arm.q)
        v = min(most_speed, self.allowed(difference(start, goal)[:3]))
        twist, full = self._pace(start, goal, v)
        while share < 1.0 or self.arm.fresh:  # held at the very end: the set-point fell back to the measured angles
            if self.arm.fresh:
                share = rate = 0.0
                start = self.kinematics.forward(self.arm.q)
                v = min(most_speed, self.allowed(difference(start, goal)[:3]))
                twist, full = self._pace(start, goal, v)
            acceleration = full * p.acceleration_m_s2 / max(v, 0.05)
            rate = min(rate + acceleration * PERIOD, full, math.sqrt(2.0 * acceleration * (1.0 - share)))
            rate = max(rate, 0.03 * full)
            ahead = min(1.0, share + rate * PERIOD)
            q, _ = self.kinematics.follow(moved(start, twist * ahead), self.arm.q)
            over = largest((q - self.arm.q) / most)
            if over > 1.0:
                rate /= over
                ahead = share + (ahead - share) / over
                q, _ = self.kinematics.follow(moved(start, twist * ahead), self.arm.q)
            share, self.arm.q = ahead, q
            yield
        self.arm.q, _ = self.kinematics.follow(goal, self.arm.q)
        left = largest(difference(self.kinematics.forward(self.arm.q), goal)[:3])
        if left > 0.002:
            raise OutOfReach(f"the arm stays {left * 1e3:.0f} mm away from its goal")

    def _pace(self, start: Array, goal: Array, speed: float) -> tuple[Array, float]:
        twist = difference(start, goal)
        seconds = max(
            length(twist[:3]) / speed,
            length(twist[3:]) / self.parameters.speed__turn_rad_s,
            PERIOD,
        )
        return twist, 1.0 / seconds

    def joints(self, goal: Array) -> Sequence:
        """Together to joint angles ``goal``, in free space."""
        limit = np.minimum(self.kinematics.velocity, self.parameters.speed__joint_rad_s)
        share = rate = 0.0
        start = self.arm.q.copy()
        self.arm.crosses = frozenset().union(*(self.bays_near(start + (goal - start) * s) for s in STEPS))
        pose = self.kinematics.forward(start)
        while share < 1.0 or self.arm.fresh:  # held at the very end: the set-point fell back to the measured angles
            if self.arm.fresh:
                share, rate, start = 0.0, 0.0, self.arm.q.copy()
                pose = self.kinematics.forward(start)
            full = 1.0 / max(largest((goal - start) / limit), PERIOD)
            acceleration = full / 0.4
            rate = max(min(rate + acceleration * PERIOD, full, math.sqrt(2 * acceleration * (1 - share))), 0.03 * full)
            ahead = min(1.0, share + rate * PERIOD)
            there = self.kinematics.forward(start + (goal - start) * ahead)
            way = difference(pose, there)[:3]
            over = length(way) / (self.allowed(way) * PERIOD)
            if over > 1.0:
                rate /= over
                ahead = share + (ahead - share) / over
                there = self.kinematics.forward(start + (goal - start) * ahead)
            share, pose = ahead, there
            self.arm.q = start + (goal - start) * share
            yield
        self.arm.crosses = frozenset()

    def settle(self, goal: Array, tolerance: float = 0.004) -> Sequence:
        """Wait until the arm really is where it was sent. Raises ToolError when it does not come."""
        for _ in range(round(6.0 / PERIOD)):
            q = self.arm.senses.q
            if q is not None and largest(difference(self.kinematics.forward(q), goal)) < tolerance:
                return
            yield
        raise ToolError("the arm does not follow its set-points")

    def to_clear(self, bay: Bay) -> Sequence:
        here = self.kinematics.forward(self.arm.q)
        if length(here[:3, 3] - bay.clear[:3, 3]) < 0.01:
            return
        goal = self.planner.reach(bay.clear, self.planner.seed(bay), "clear pose")
        if largest(goal - self.arm.q) < 1.0:
            yield from self.joints(goal)
            return
        try:
            self.planner.line(here, bay.clear, self.arm.q)
        except OutOfReach:
            yield from self.joints(goal)
        else:
            yield from self.line(bay.clear)

    def is_before(self, bay: Bay) -> bool:
        away = difference(self.arm.gripper, back(bay.holster, HOLSTER_PULL_M))
        return not self.arm.senses.gripper_closed and length(away[:3]) < 0.01 and length(away[3:]) < 0.05

    def waits_before(self) -> int:
        """EVSE before whose plug, in its holster, the empty hand stands; 0 = none's."""
        return next((n for n, bay in self.site.bays.items() if self.is_before(bay)), 0)
