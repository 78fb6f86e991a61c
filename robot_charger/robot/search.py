"""Where a pressed nose looks for the opening, as plain geometry."""

from __future__ import annotations

import math

import numpy as np

from robot_charger.robot.errors import NotSeated
from robot_charger.robot.parameters import RobotParameters
from robot_charger.robot.spatial import Array

FRICTION = 0.22  # of a nose that slides on the face; with more the spiral ends at a smaller radius
YIELD = 2e-3  # answer to what is felt beyond friction [m/s per N]
IN_LEAD = 0.002  # this far beyond the face the nose is no longer on it [m]
IN_LEAD_RATE = 0.3  # and winds on so much more slowly
CATCH_UP = 1.5  # share of its speed at which the nose comes after the spiral


class Spiral:
    """Winds outwards across the inlet's axis, and slides along whatever holds the nose.

    A nose that is partly in the opening meets its walls. The spiral neither pushes on against them nor waits for them:
    it takes away the part of its step that goes into the wall, and gives way, so the rest of the turn leads along the
    wall, to where the nose is free in both directions. What is left of the force across is some 20 to 30 N. It winds as
    fast as the nose is pressed: a nose that just falls into the opening is not dragged out of it again.
    """

    def __init__(self, nose: Array, parameters: RobotParameters, radius: float | None = None) -> None:
        """``nose``: (2,) where it begins, y and z in the inlet's frame; ``radius`` where it ends [m]."""
        self._middle, self._parameters = nose.copy(), parameters
        self._radius = parameters.search__radius_m if radius is None else radius
        self._angle = 0.0

    def step(self, nose: Array, push: float, side: Array, depth: float, seconds: float) -> Array:
        """The nose's next step, (2,) [m].

        ``nose``: (2,) set-point [m]; ``push`` along the axis [N], ``side``: (2,) across it, on the tool [N];
        ``depth`` beyond the face [m]. Raises NotSeated where the spiral ends.
        """
        p = self._parameters
        radius = p.search__pitch_m * self._angle / (2 * math.pi)
        if radius > self._radius:
            raise NotSeated(f"opening not found within {self._radius * 1e3:.0f} mm")
        rate = min(1.0, max(0.0, push / p.search__force_n)) * (IN_LEAD_RATE if depth > IN_LEAD else 1.0)
        along = p.search__speed_m_s * seconds
        self._angle += rate * along / math.hypot(max(radius, 0.001), p.search__pitch_m / (2 * math.pi))
        to = self._middle + radius * _direction(self._angle) - nose
        felt = math.hypot(*side)
        beyond = felt - FRICTION * p.search__force_n
        if beyond > 0.0:
            away = side / felt
            to += max(0.0, YIELD * beyond * seconds - float(to @ away)) * away
        return to * min(1.0, CATCH_UP * along / max(math.hypot(*to), 1e-9))


def _direction(angle: float) -> Array:
    return np.array([math.cos(angle), math.sin(angle)])
