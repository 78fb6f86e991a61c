"""The spiral that looks for the opening, against walls that are springs."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from robot_charger.robot.errors import NotSeated
from robot_charger.robot.parameters import RobotParameters
from robot_charger.robot.search import Spiral

PARAMETERS = RobotParameters()
PRESSED = PARAMETERS.search__force_n
SECONDS = 0.01

DELAY = 3  # ticks between the nose's motion and what is felt of it
STIFFNESS = 10e3  # of the mount, across [N/m]
Felt = Callable[[np.ndarray], np.ndarray]


def nothing(nose: np.ndarray) -> np.ndarray:
    return np.zeros(2)


def wind(
    side: Felt = nothing, push: float = PRESSED, depth: float = 0.0, steps: int = 10_000, delay: int = DELAY
) -> list[np.ndarray]:
    """The nose's ways, from the origin until the spiral ends or ``steps`` are over."""
    spiral, way = Spiral(np.zeros(2), PARAMETERS), [np.zeros(2)]
    try:
        for _ in range(steps):
            felt = side(way[max(0, len(way) - 1 - delay)])
            way.append(way[-1] + spiral.step(way[-1], push, felt, depth, SECONDS))
    except NotSeated:
        return way
    assert steps < 10_000, "the spiral does not end"
    return way


def slot(nose: np.ndarray) -> np.ndarray:
    """Walls at y = -8 mm and 2 mm, as of an opening that holds the nose in one direction."""
    return np.array([STIFFNESS * (max(0.0, -0.008 - nose[0]) - max(0.0, nose[0] - 0.002)), 0.0])


def hole(nose: np.ndarray) -> np.ndarray:
    """Walls on all sides, 0.8 mm away, as around a nose that is jammed at a small depth."""
    return STIFFNESS * (np.clip(nose, -0.0008, 0.0008) - nose)


def test_every_place_within_the_radius_is_passed_within_the_lead_in() -> None:
    way = np.array(wind())
    capture = 0.004
    for radius in np.linspace(0.0, PARAMETERS.search__radius_m - capture, 9):
        for angle in np.linspace(0.0, 2 * math.pi, 24):
            place = radius * np.array([math.cos(angle), math.sin(angle)])
            nearest = np.abs(way - place).max(axis=1).min()  # the lead-in is a square
            assert nearest < capture, (place, nearest)
    assert np.hypot(*way[-1]) <= PARAMETERS.search__radius_m + 1e-9


def test_it_keeps_its_speed() -> None:
    way = np.array(wind())
    lengths = np.hypot(*np.diff(way, axis=0).T) / SECONDS
    assert lengths.max() <= 1.5 * PARAMETERS.search__speed_m_s + 1e-12
    assert np.median(lengths) == pytest.approx(PARAMETERS.search__speed_m_s, rel=0.1)


def test_in_a_slot_it_goes_along_the_slot() -> None:
    free, held = wind(), wind(slot)
    assert len(held) == len(free), "walls do not delay it"
    assert max(np.hypot(*slot(nose)) for nose in held) < 0.5 * PARAMETERS.lateral_limit_n
    along = np.array(held)[:, 1]
    assert along.max() > 0.014 and along.min() < -0.014, "the whole slot is looked at"


def test_held_on_all_sides_it_stays_below_the_force_limit() -> None:
    assert max(np.hypot(*hole(nose)) for nose in wind(hole)) < PARAMETERS.lateral_limit_n


def test_friction_on_the_face_does_not_turn_it_aside() -> None:
    """Sliding friction points against the motion; as much as FRICTION of it changes nothing."""
    last = [np.zeros(2)]

    def friction(nose: np.ndarray) -> np.ndarray:
        moved, last[0] = nose - last[0], nose
        return -0.2 * PRESSED * moved / max(1e-9, float(np.hypot(*moved)))

    assert np.allclose(wind(friction, delay=0), wind())


def test_a_nose_that_is_not_pressed_waits() -> None:
    way = wind(push=0.0, steps=200)
    assert np.allclose(way, 0.0)
    half = wind(push=0.5 * PRESSED, steps=200)
    assert np.hypot(*half[-1]) < np.hypot(*wind(steps=200)[-1])


def test_in_the_lead_in_it_winds_more_slowly() -> None:
    assert len(wind(depth=0.003)) > 3 * len(wind())


def test_its_end_is_a_numbered_error_that_tells_the_radius() -> None:
    spiral = Spiral(np.zeros(2), PARAMETERS)
    with pytest.raises(NotSeated, match="not found within 20 mm"):
        for _ in range(10_000):
            spiral.step(np.zeros(2), PRESSED, np.zeros(2), 0.0, SECONDS)
