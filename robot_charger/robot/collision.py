"""Contact where none is expected, in every motion: it is noticed, given way to and named.

Contact is expected in one place: where the nose of a held plug searches and enters the inlet (``collision.room_m`` plus
three times the estimate's standard deviation around the mouth, ``ROOM_MOST_M`` at most), and in the holster's last
millimetres. Anywhere else a force that neither the tool's weight nor the cable explains is a person or a thing.
"""

from __future__ import annotations

import math

import numpy as np

from robot_charger.robot.errors import Obstacle
from robot_charger.robot.planner import HOLSTER_PULL_M
from robot_charger.robot.spatial import Array, length, local
from robot_charger.robot.state import Mode, Part

ROOM_MOST_M = 0.025  # [m] largest room around the mouth
HOLSTER_ROOM_M = 0.03  # [m] around a holster a plug may touch it


class Collision(Part):
    """What is felt, against what is expected."""

    def rest(self, wrench: Array) -> None:
        """The present ``wrench`` (6,) is no contact: it is the cable's, here."""
        arm = self.arm
        arm.base = arm.gripper[:3, :3] @ wrench[:3]
        arm.base_at, arm.load_known = arm.gripper[:3, 3].copy(), True

    def nothing_held(self) -> None:
        """The hand is empty: no cable pulls."""
        arm = self.arm
        arm.base, arm.base_at, arm.load_known = np.zeros(3), None, True

    def unexpected_wrench(self) -> Array:
        """Force and torque (6,) at the sensor, in gripper_link's axes, without the cable's pull [N, Nm]."""
        arm, wrench = self.arm, self.arm.senses.wrench
        if wrench is None:
            return np.zeros(6)
        expected = arm.base
        if arm.base_at is not None and arm.connector is not None:
            expected = expected + arm.connector.cable * (arm.base_at - arm.gripper[:3, 3])
        felt = wrench - arm.tare
        felt[:3] = wrench[:3] - arm.gripper[:3, :3].T @ expected
        return felt

    def unexpected(self) -> float:
        """Size of the force that nothing explains [N]."""
        return length(self.unexpected_wrench()[:3])

    def watch(self) -> Obstacle | None:
        """What this tick's force says: None, or the obstacle that the arm has met."""
        arm = self.arm
        if not arm.trusted or arm.leaving or self.expected():
            return None
        force, most = self.unexpected(), self.threshold()
        if arm.load_known:
            arm.unexpected_peak = max(arm.unexpected_peak, force)
        if force <= most:
            return None
        return Obstacle(f"{force:.0f} N where nothing should be, at most {most:.0f} N: something is in the way")

    def threshold(self) -> float:
        """Of the unexpected force, here [N]."""
        p = self.parameters
        if not self.arm.load_known:  # a plug was just taken or let go: what pulls is not known yet
            return p.collision__free_n + p.tare_limit_n
        jerk = p.collision__near_n if self.arm.senses.now < self.arm.jerked_until else 0.0
        return jerk + (p.collision__near_n if self.near() else p.collision__free_n)

    def near(self) -> bool:
        """Nearer to an inlet's mouth than ``collision.near_m``."""
        arm, inlet = self.arm, self.arm.inlet
        if inlet is None or arm.connector is None:
            return False
        at = arm.gripper[:3, 3] + (arm.connector.nose if self.holds() else 0.0) * arm.gripper[:3, 0]
        return length(at - inlet[:3, 3]) < self.parameters.collision__near_m

    def holds(self) -> bool:
        """A plug is in the hand."""
        return self.arm.senses.gripper_closed and self.arm.senses.plug_present

    def room(self) -> float:
        """Around the mouth, in which contact is expected [m]."""
        sigma = self.arm.sigma.get(self.arm.bay, 0.0)
        return min(self.parameters.collision__room_m + 3.0 * sigma, ROOM_MOST_M)

    def radius(self) -> float:
        """Of the search: three times the estimate's standard deviation, within limits [m]."""
        p = self.parameters
        return min(max(p.search__radius_m, 3.0 * self.arm.sigma.get(self.arm.bay, 0.0)), p.search__radius_most_m)

    def expected(self) -> bool:
        """Contact is expected here."""
        arm = self.arm
        if self.at_holster():
            return True
        if not self.holds():
            return arm.moving == Mode.GRASP and arm.closing
        room, touch = self.room(), arm.touch
        across = room + self.radius()
        return arm.inlet is not None and touch.x > -room and touch.lateral < across

    def at_holster(self) -> bool:
        """The gripper is where a plug slides into its holster or out of it."""
        for bay in self.site.bays.values():
            x, y, z = local(bay.holster, self.arm.gripper[:3, 3])
            if -min(HOLSTER_PULL_M, HOLSTER_ROOM_M) < x < HOLSTER_ROOM_M and math.hypot(y, z) < HOLSTER_ROOM_M:
                return True
        return False
