"""Where the inlet is: poses that were seen, their mean, and whether the vehicle has moved since."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator
from contextlib import suppress

import numpy as np

from robot_charger.robot.description import Bay
from robot_charger.robot.errors import NoPose, RobotError, VehicleMoved
from robot_charger.robot.spatial import Array, difference, length, moved
from robot_charger.robot.state import PERIOD, Part

NEWEST = 0.5  # [s] oldest pose of a vehicle that may just have moved
LOOK_TIME = 5.0  # [s] longest wait for enough poses
OBSTACLE_TIME = 0.5  # [s] a closed flap or a wrong inlet is believed when it is seen for so long


class Sight(Part):
    """Poses of the inlets, as told by whoever sees them."""

    def see(self, evse: int, stamp: float, pose: Array, sigma: float) -> None:
        """An estimate of an inlet's pose in base_link with its standard deviation [m]. Wild ones are dropped."""
        p = self.parameters
        if not np.isfinite(pose).all() or not sigma <= p.pose__max_sigma_m:
            return
        self.arm.obstacles.pop(evse, None)
        self.arm.sigma[evse] = sigma
        poses = self.arm.poses.setdefault(evse, deque(maxlen=400))
        poses.append((stamp, pose))
        while poses and stamp - poses[0][0] > p.pose__window_s:
            poses.popleft()

    def see_instead(self, evse: int, stamp: float, error: RobotError) -> None:
        """A closed flap or another kind of inlet is seen where the inlet should be."""
        since, _, known = self.arm.obstacles.get(evse, (stamp, stamp, error))
        self.arm.obstacles[evse] = (since if known.code == error.code else stamp, stamp, error)

    def forget_poses(self, evse: int) -> None:
        """The vehicle left or moved: what was seen before counts no more."""
        self.arm.poses.pop(evse, None)
        self.arm.obstacles.pop(evse, None)

    def look(self, bay: Bay) -> Generator[None, None, Array]:
        """Wait for enough poses of the inlet, return their mean. Raises NoPose, FlapClosed or WrongInlet."""
        waited = 0.0
        while True:
            now = self.arm.senses.now
            since, last, obstacle = self.arm.obstacles.get(bay.number, (now, -math.inf, None))
            if obstacle and now - last <= self.parameters.pose__max_age_s and last - since >= OBSTACLE_TIME:
                raise obstacle
            ages = [now - stamp for stamp, _ in self.arm.poses.get(bay.number, ())]
            fresh = sum(age <= self.parameters.pose__window_s for age in ages)
            if fresh >= self.parameters.pose__samples and min(ages) <= self.parameters.pose__max_age_s:
                with suppress(NoPose):  # after a pause of this computer they are old: look on
                    self.arm.inlet, self.arm.face = self.fused(bay), 0.0
                    yield  # from now on it is known whether the tool is near it
                    return self.fused(bay)
            if waited > LOOK_TIME:
                last = min(ages, default=math.inf)
                raise NoPose(
                    f"only {fresh} poses of the inlet in {LOOK_TIME:.0f} s, the last one {min(last, 999.0):.1f} s ago"
                )
            waited += PERIOD
            yield

    def fused(self, bay: Bay, newest_only: bool = False) -> Array:
        """Mean of the recent poses of the inlet, or of the newest half second where these are enough. Raises NoPose."""
        p, now = self.parameters, self.arm.senses.now
        poses = [pose for stamp, pose in self.arm.poses.get(bay.number, ()) if now - stamp <= p.pose__window_s]
        fresh = [pose for stamp, pose in self.arm.poses.get(bay.number, ()) if now - stamp <= NEWEST]
        if newest_only and len(fresh) >= p.pose__samples:
            poses = fresh
        newest = max((stamp for stamp, _ in self.arm.poses.get(bay.number, ())), default=-math.inf)
        if now - newest > p.pose__max_age_s:
            raise NoPose(f"no pose of the inlet for {min(now - newest, 999.0):.1f} s, at most {p.pose__max_age_s} s")
        steps = np.array([difference(poses[0], pose) for pose in poses])
        middle = np.median(steps, axis=0)
        good = np.linalg.norm(steps[:, :3] - middle[:3], axis=1) < 0.03
        return moved(poses[0], steps[good].mean(axis=0) if good.any() else middle)

    def check_moved(self, bay: Bay) -> None:
        """Raises VehicleMoved when the newest poses lie away from the attempt's inlet, or the bay is empty."""
        if not self.arm.senses.occupied:
            raise VehicleMoved(f"bay {bay.number} is empty")
        now = self.arm.senses.now
        recent = [pose for stamp, pose in self.arm.poses.get(bay.number, ()) if now - stamp < 0.6]
        if self.arm.inlet is not None and len(recent) >= 3:
            away = sum(pose[:3, 3] for pose in recent) / len(recent) - self.arm.inlet[:3, 3]
            if length(away) > self.parameters.pose__moved_m:
                self.forget_poses(bay.number)
                raise VehicleMoved(f"the inlet moved by {np.linalg.norm(away) * 1e3:.0f} mm")
