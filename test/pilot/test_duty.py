"""Duty cycle and current, IEC 61851-1 tables A.7 and A.8; proximity resistors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_charger.common import duty_cycle
from robot_charger.pilot import proximity
from robot_charger.pilot.proximity import Proximity


@pytest.mark.parametrize(
    ("percent", "current_a"),
    [
        (0, 0), (2.9, 0), (5, 0), (7, 0), (7.9, 0), (8, 6), (9.9, 6), (10, 6), (16, 9.6), (25, 15), (50, 30),
        (80, 48), (85, 51), (85.1, 52.75), (90, 65), (96, 80), (97, 80), (97.1, 0), (100, 0),
    ],
)  # fmt: skip
def test_what_a_vehicle_reads(percent: float, current_a: float) -> None:
    assert duty_cycle.to_current(percent / 100) == pytest.approx(current_a)


@pytest.mark.parametrize(
    ("current_a", "percent"),
    [(6, 10), (16, 26.6667), (32, 53.3333), (48, 80), (51, 85), (51.7, 85), (52.5, 85), (57, 86.8), (65, 90),
     (80, 96), (500, 96)],
)  # fmt: skip
def test_what_a_station_emits(current_a: float, percent: float) -> None:
    assert duty_cycle.from_current(current_a) * 100 == pytest.approx(percent, abs=1e-3)


@given(st.floats(6.0, 80.0))
def test_a_vehicle_never_reads_more_than_was_meant(current_a: float) -> None:
    read_a = duty_cycle.to_current(duty_cycle.from_current(current_a))
    assert read_a <= current_a + 1e-6
    assert read_a >= current_a - (1.5 if 51.0 < current_a <= 52.5 else 1e-6)


@pytest.mark.parametrize("current_a", [0.0, 5.9, -16.0, float("nan")])
def test_less_than_6_a_cannot_be_told(current_a: float) -> None:
    with pytest.raises(ValueError, match="at least 6 A"):
        duty_cycle.from_current(current_a)


def test_only_the_undisputed_duties_are_emitted() -> None:
    assert all(duty_cycle.may_be_emitted(d) for d in (0.05, 0.045, 0.055, 0.10, 0.96))
    assert not any(duty_cycle.may_be_emitted(d) for d in (0.0, 0.03, 0.08, 0.099, 0.97, 1.0))


@pytest.mark.parametrize(
    ("kind", "ohm", "state", "rating_a"),
    [
        ("type2", 1500, Proximity.CONNECTED, 13),
        ("type2", 680, Proximity.CONNECTED, 20),
        ("type2", 220, Proximity.CONNECTED, 32),
        ("type2", 100, Proximity.CONNECTED, 63),
        ("type2", 150, Proximity.CONNECTED, 32),  # between two bands: the lower rating
        ("type2", 350, Proximity.CONNECTED, 20),
        ("type2", 1000, Proximity.CONNECTED, 13),
        ("type2", 50, Proximity.FAULT, 0),
        ("type2", 5000, Proximity.OPEN, 0),
        ("type2", None, Proximity.OPEN, 0),
        ("ccs2", 1500, Proximity.CONNECTED, 0),
        ("ccs2", 700, Proximity.FAULT, 0),
        ("ccs1", 150, Proximity.CONNECTED, 0),
        ("ccs1", 480, Proximity.BUTTON, 0),
        ("none", 1500, Proximity.UNKNOWN, 0),
    ],
)
def test_proximity(kind: str, ohm: float | None, state: Proximity, rating_a: float) -> None:
    reading = proximity.read(kind, ohm)
    assert (reading.state, reading.current_a) == (state, rating_a)
