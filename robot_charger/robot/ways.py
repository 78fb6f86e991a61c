"""Ways through free space: straight lines, joint motions, and where the arm waits."""

from __future__ import annotations

import math

import numpy as np

from robot_charger.robot.description import Bay
from robot_charger.robot.errors import OutOfReach, ToolError
from robot_charger.robot.planner import HOLSTER_PULL_M, back
from robot_charger.robot.spatial import Array, difference, largest, length, moved
from robot_charger.robot.state import PERIOD, Part, Sequence


class Ways(Part):
    """Motion without contact. Sequences move the set-point ``arm.q``, one step per tick."""

    def wait(self, seconds: float) -> Sequence:
        for _ in range(max(1, round(seconds / PERIOD))):
            yield

    def line(self, goal: Array, speed: float | None = None) -> Sequence:
        """Straight to ``goal``, with limits of speed, acceleration and joints."""
        p = self.parameters
        v = p.speed__free_m_s if speed is None else speed
        share = rate = 0.0
        most = self.kinematics.velocity * PERIOD
        start = self.kinematics.forward(self.arm.q)
        twist, full = self._pace(start, goal, v)
        while share < 1.0 or self.arm.fresh:  # held at the very end: the set-point fell back to the measured angles
            if self.arm.fresh:
                share = rate = 0.0
                start = self.kinematics.forward(self.arm.q)
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
        while share < 1.0 or self.arm.fresh:  # held at the very end: the set-point fell back to the measured angles
            if self.arm.fresh:
                share, rate, start = 0.0, 0.0, self.arm.q.copy()
            full = 1.0 / max(largest((goal - start) / limit), PERIOD)
            acceleration = full / 0.4
            rate = max(min(rate + acceleration * PERIOD, full, math.sqrt(2 * acceleration * (1 - share))), 0.03 * full)
            share = min(1.0, share + rate * PERIOD)
            self.arm.q = start + (goal - start) * share
            yield

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
