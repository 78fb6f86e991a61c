"""The arm controller's own force guard, at the rate of its control loop.

It stops the arm at its limit and then refuses motion into the force. Motion out of the force is always allowed: contact
can be left. That is also what docs/robot.md asks of a real arm's controller.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from robot_charger.robot.spatial import Array

PAUSE = 50  # [steps] without motion after a stop
REST = 200  # [steps] at rest after which the guard takes its zero
ZERO_N = 40.0  # [N] a larger pull along the axis is no cable: the zero stays
INTO = 0.02  # share of force times speed above which a motion counts as one into the force


class Guard:
    """Forces on the tool (6,) at the sensor, in gripper_link's axes [N, Nm]. Steps are milliseconds."""

    def __init__(self, limits: dict[str, Any], wrench_distance: float) -> None:
        self._least, self._most = -float(limits["guard_push_n"]), float(limits["guard_pull_n"])
        self._across, self._turning = float(limits["guard_lateral_n"]), float(limits["guard_torque_nm"])
        self._arm = wrench_distance
        self.trips = 0
        self.paused_until = 0
        self._zero: tuple[float, ...] = (0.0,) * 6
        self._felt: tuple[float, ...] = (0.0,) * 6  # filtered
        self._still_since = 0
        self._zeroed = False

    def feel(self, wrench: tuple[float, ...], share: float) -> None:
        """One look: first-order filter with ``share`` of the new value."""
        self._felt = tuple(old + share * (new - old) for old, new in zip(self._felt, wrench, strict=True))

    def rest(self, now: int, moves: bool, near: bool) -> None:
        """Take the zero when the arm has stood still for a while, away from every inlet."""
        if moves:
            self._still_since, self._zeroed = now, False
        elif not self._zeroed and now - self._still_since >= REST:
            self._zeroed = True
            if abs(self._felt[0]) < ZERO_N and not near:
                self._zero = self._felt

    @property
    def force(self) -> Array:
        """What the guard feels, less its zero (6,)."""
        return np.subtract(self._felt, self._zero)

    @property
    def beyond(self) -> bool:
        """A limit is exceeded."""
        push, y, z, rx, ry, rz = (a - b for a, b in zip(self._felt, self._zero, strict=True))
        return (
            not self._least <= push <= self._most
            or math.hypot(y, z) > self._across
            or math.hypot(rx, ry, rz) > self._turning
        )

    def into(self, twist: Array) -> bool:
        """Whether a motion of gripper_link (6,), in its own axes, works against the force on the tool."""
        force, speed, turn = self.force, twist[:3], twist[3:]
        at_sensor = speed + np.cross(turn, (-self._arm, 0.0, 0.0))
        power = float(force[:3] @ at_sensor + force[3:] @ turn)
        size = float(np.linalg.norm(force[:3]) * np.linalg.norm(at_sensor))
        size += float(np.linalg.norm(force[3:]) * np.linalg.norm(turn))
        return power < -INTO * size

    def stop(self, now: int) -> None:
        """It stopped the arm."""
        self.trips += 1
        self.paused_until = now + PAUSE
