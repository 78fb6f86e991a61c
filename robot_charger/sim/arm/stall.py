"""What comes to a bay, by seed: where it parks, how its cable pulls, and what the physics knows of plug and vehicle."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from robot_charger.robot.spatial import Array, transform

AWAY = (0.0, 0.0, -20.0)
DRAG_SPEED = 0.01  # [m/s] at which the cable's drag is nearly whole


@dataclass(frozen=True)
class Parking:
    """Spread of parked vehicles, of the pose estimate and of the cable. Uniform within +- where a half width."""

    position_m: tuple[float, float, float] = (0.15, 0.15, 0.04)
    yaw_deg: float = 10.0
    tilt_deg: float = 5.0  # pitch and roll of the inlet
    estimate_m: float = 0.005  # standard deviation of one estimate, per axis
    estimate_deg: float = 1.0
    systematic: float = 0.8  # share of the estimate's variance that stays the same for a whole visit
    cable_n: float = 30.0  # largest pull of the cable


@dataclass
class Stall:
    """One EVSE's plug and vehicle: what the physics knows of them."""

    number: int
    rng: np.random.Generator
    visits: int = 0
    present: bool = False
    locked: bool = False
    inlet: Array = field(default_factory=lambda: transform(AWAY))  # true pose
    mouth: list[float] = field(default_factory=list)  # the inlet's middle (3,) when it parked
    into: list[float] = field(default_factory=list)  # its x axis (3,)
    error: Array = field(default_factory=lambda: np.zeros(6))  # of the estimate, systematic
    cable: Cable = field(default_factory=lambda: Cable())
    rolled: Array = field(default_factory=lambda: np.zeros(3))  # since it parked [m]
    kind: str = ""  # of the vehicle
    leaves_at: int = 0  # step at which its occupant gets out, 0 = nobody is in it
    depth: float = -1.0  # of the nose in the inlet, -1 when far [m]
    lateral: float = 1.0
    push: float = 0.0  # on the inlet along its axis, filtered [N]
    max_push: float = 0.0
    max_pull: float = 0.0
    seat_peak: float = 0.0  # largest of the plug's own profile met on the way in
    leave_peak: float = 0.0
    mated: bool = False
    deepest: float = 0.0  # of this visit [m]
    inserting: bool = True  # until the gripper lets go: pushes count as insertion
    bolted: bool = False  # the plug to the inlet

    def truth(self) -> dict[str, Any]:
        """What only the physics knows, for the desk's books."""
        return {
            "depth_m": round(max(0.0, self.depth), 5),
            "seated_depth_m": round(self.deepest, 5),
            "mated": self.mated,
            "max_force_n": round(self.max_push, 2),
            "max_pull_n": round(self.max_pull, 2),
            "visits": self.visits,
            "present": self.present,
        }


@dataclass
class Cable:
    """The plug's cable: its weight's share and pull, a spring towards where it hangs, and drag against motion."""

    pull: Array = field(default_factory=lambda: np.zeros(3))  # at the holster [N]
    stiffness: float = 0.0  # [N/m]
    drag: float = 0.0  # [N]
    home: Array = field(default_factory=lambda: np.zeros(3))  # the holster

    @classmethod
    def drawn(cls, rng: np.random.Generator, most_n: float, home: Array) -> Cable:
        """Another visit: another temperature, another lie on the floor. ``most_n`` is the largest pull [N]."""
        direction = rng.normal(0.0, 1.0, 3) + (-0.5, 0.0, -1.0)
        pull = direction / np.linalg.norm(direction) * most_n * rng.uniform(0.3, 1.0)
        return cls(pull, rng.uniform(4.0, 16.0), rng.uniform(0.5, 3.0), home)

    def force(self, at: Array, velocity: Array) -> Array:
        """On the plug at ``at`` that moves with ``velocity`` (3,) [N]."""
        speed = math.sqrt(float(velocity @ velocity))
        back = velocity * (-self.drag / (speed + DRAG_SPEED))
        return self.pull - self.stiffness * (at - self.home) + back


def between(table: list[tuple[float, float]], x: float) -> float:
    """Linear between the table's points, constant beyond."""
    x0, y0 = table[0]
    if x <= x0:
        return y0
    for x1, y1 in table[1:]:
        if x < x1:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
        x0, y0 = x1, y1
    return y0
