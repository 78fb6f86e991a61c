"""Which poses and ways are possible: reach, joint limits, posture, and room before the vehicle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from robot_charger.robot.description import Bay, Connector, Site
from robot_charger.robot.errors import BadGoal, NoPose, OutOfReach
from robot_charger.robot.kinematics import Kinematics
from robot_charger.robot.spatial import Array, difference, inverse, moved, transform

MIN_MANIPULABILITY = 0.04  # smallest singular value of the Jacobian
FLOOR_M = 0.12  # no link lower than this
CLEARANCE_M = 0.06  # of every link but the tool's from the plane of the inlet's mouth
SEARCH_ROOM_M = 0.02
HOLSTER_PULL_M = 0.13  # the plug leaves its holster backwards by this much


def back(pose: Array, distance: float) -> Array:
    """``pose`` drawn back along its own x axis [m]."""
    result = pose.copy()
    result[:3, 3] -= distance * pose[:3, 0]
    return result


class Planner:
    """Poses and checks for one site and arm. All poses are those of gripper_link in base_link."""

    def __init__(self, site: Site, kinematics: Kinematics, standoff: float) -> None:
        self.site, self.kinematics, self.standoff = site, kinematics, standoff

    def bay(self, number: int, evses: Sequence[int]) -> Bay:
        """Raises BadGoal for a bay that this robot does not serve."""
        if number not in self.site.bays or number not in evses:
            raise BadGoal(f"EVSE {number} is not served: one of {', '.join(map(str, evses))}")
        return self.site.bays[number]

    def connector(self, bay: Bay, name: str) -> Connector:
        """Raises BadGoal for a connector that hangs not in this bay."""
        if name not in bay.connectors:
            raise BadGoal(f"bay {bay.number} has no {name or 'connector without a name'}: {', '.join(bay.connectors)}")
        return self.site.connectors[name]

    def seed(self, bay: Bay) -> Array:
        """Joint angles of the parked arm turned to this bay."""
        q = self.site.park.copy()
        q[0] += float(np.arctan2(bay.frame[1, 0], bay.frame[0, 0]))
        return q

    def reach(self, pose: Array, seed: Array, what: str) -> Array:
        """Joint angles for ``pose``. Raises OutOfReach."""
        q = self.kinematics.inverse(pose, seed)
        if q is None:
            raise OutOfReach(f"{what} at {_told(pose)} is out of the arm's reach")
        return q

    def check_inlet(self, bay: Bay, connector: Connector, inlet: Array) -> None:
        """Refuse an inlet outside the bay's workspace, or one the arm cannot plug into without touching.

        Raises NoPose (not finite) or OutOfReach.
        """
        if not np.isfinite(inlet).all():
            raise NoPose("the inlet's pose is not finite")
        offset = inverse(bay.inlet) @ inlet
        if (np.abs(offset[:3, 3]) > bay.workspace).any():
            raise OutOfReach(
                f"inlet at {_told(inlet)} is outside the workspace of bay {bay.number}: "
                f"{(offset[:3, 3] * 1e3).round()} mm from its middle, at most {(bay.workspace * 1e3).round()} mm"
            )
        turn = float(np.linalg.norm(difference(bay.inlet, inlet)[3:]))
        if turn > bay.max_turn:
            raise OutOfReach(f"inlet is turned by {turn:.2f} rad, at most {bay.max_turn:.2f} rad")
        q = self.reach(bay.clear, self.seed(bay), "clear pose")
        away = back(inlet, connector.nose + self.standoff)
        q = self.line(bay.clear, away, q, inlet)
        self.line(away, back(inlet, connector.nose - connector.depth - 0.005), q, inlet)
        for y, z in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            beside = inlet @ transform((-connector.nose, y * SEARCH_ROOM_M, z * SEARCH_ROOM_M))
            self.reach(beside, q, "search around the inlet")

    def line(self, start: Array, end: Array, seed: Array, inlet: Array | None = None) -> Array:
        """Joint angles at the end of a straight line. Raises OutOfReach where the arm cannot follow it."""
        twist = difference(start, end)
        q = seed
        for share in np.linspace(0.0, 1.0, 6):
            pose = moved(start, twist * share)
            q = self.reach(pose, q, "a point on the way")
            if self.kinematics.manipulability(q) < MIN_MANIPULABILITY:
                raise OutOfReach(f"{_told(pose)} needs a singular posture")
            self._room(q, inlet)
        return q

    def _room(self, q: Array, inlet: Array | None) -> None:
        links = self.kinematics.links(q)
        if (links[:, 2] < FLOOR_M).any():
            raise OutOfReach("a link would be too near to the floor")
        if inlet is not None:
            ahead = (links - inlet[:3, 3]) @ inlet[:3, 0]
            if (ahead > -CLEARANCE_M).any():
                raise OutOfReach("a link would touch the vehicle")


def _told(pose: Array) -> str:
    x, y, z = pose[:3, 3]
    return f"({x:.3f}, {y:.3f}, {z:.3f}) m"
