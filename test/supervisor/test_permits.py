"""What a permit lets power do at most: every ceiling alone, and what is no number."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import pytest

from robot_charger.supervisor.model import Commands
from robot_charger.supervisor.permits import Ceilings, Numbered, offer, permit
from robot_charger.words.values import ChargePermit, Purpose

WIDE = Ceilings(
    supply_voltage_v=1000.0, supply_current_a=300.0, supply_power_w=150e3, export_current_a=100.0, export_power_w=40e3,
    vehicle_voltage_v=800.0, backend_current_a=280.0, backend_power_w=140e3, backend_min_power_w=-30e3,
    cable_current_a=250.0, discharge=True,
)  # fmt: skip


def given(purpose: Purpose, **changes: Any) -> ChargePermit:
    return permit(Commands(purpose=purpose), replace(WIDE, **changes))


def test_the_transfer_is_the_least_of_all() -> None:
    p = given(Purpose.TRANSFER)
    assert (p.max_voltage_v, p.max_current_a, p.max_power_w) == (800.0, 250.0, 140e3)
    assert (p.min_current_a, p.min_power_w) == (-100.0, -30e3)


@pytest.mark.parametrize(
    ("name", "value", "told", "expected"),
    [
        ("supply_voltage_v", 500.0, "max_voltage_v", 500.0),
        ("vehicle_voltage_v", 420.0, "max_voltage_v", 420.0),
        ("supply_current_a", 90.0, "max_current_a", 90.0),
        ("backend_current_a", 80.0, "max_current_a", 80.0),
        ("cable_current_a", 70.0, "max_current_a", 70.0),
        ("cable_current_a", 70.0, "min_current_a", -70.0),
        ("backend_current_a", -5.0, "max_current_a", 0.0),
        ("supply_power_w", 60e3, "max_power_w", 60e3),
        ("backend_power_w", 50e3, "max_power_w", 50e3),
        ("backend_power_w", -50e3, "max_power_w", 0.0),
        ("export_current_a", 30.0, "min_current_a", -30.0),
        ("export_power_w", 20e3, "min_power_w", -20e3),
        ("export_power_w", 0.0, "min_power_w", 0.0),
        ("export_power_w", 0.0, "min_current_a", 0.0),
        ("backend_min_power_w", -10e3, "min_power_w", -10e3),
        ("backend_min_power_w", 10e3, "min_power_w", 0.0),
        ("backend_min_power_w", 0.0, "min_current_a", 0.0),
        ("discharge", False, "min_power_w", 0.0),
        ("discharge", False, "min_current_a", 0.0),
    ],
)
def test_each_ceiling_counts(name: str, value: Any, told: str, expected: float) -> None:
    assert getattr(given(Purpose.TRANSFER, **{name: value}), told) == expected


@pytest.mark.parametrize("name", [f.name for f in fields(Ceilings) if f.name != "discharge"])
def test_what_is_no_number_is_the_strictest(name: str) -> None:
    ceilings = replace(WIDE, **{name: math.nan})
    assert getattr(ceilings, name) == 0.0
    p = permit(Commands(purpose=Purpose.TRANSFER), ceilings)
    wide = given(Purpose.TRANSFER)
    assert p != wide and p.max_power_w <= wide.max_power_w and p.max_current_a <= wide.max_current_a
    assert p.min_power_w >= wide.min_power_w and p.max_voltage_v <= wide.max_voltage_v


def test_none_permits_nothing() -> None:
    assert given(Purpose.NONE) == ChargePermit()
    assert permit(Commands(abrupt=True), WIDE) == ChargePermit(abrupt=True)


def test_the_insulation_test_may_lie_above_the_vehicles_maximum_with_2_a() -> None:
    p = given(Purpose.INSULATION_TEST)
    assert (p.max_voltage_v, p.max_current_a, p.max_power_w, p.min_current_a) == (1000.0, 2.0, 2000.0, 0.0)


def test_precharge_is_2_a_below_the_vehicles_maximum() -> None:
    p = given(Purpose.PRECHARGE)
    assert (p.max_voltage_v, p.max_current_a, p.max_power_w, p.min_current_a) == (800.0, 2.0, 1600.0, 0.0)
    assert given(Purpose.PRECHARGE, supply_voltage_v=500.0).max_voltage_v == 500.0


AC = Ceilings(supply_current_a=32.0, supply_power_w=22080.0, cable_current_a=20.0)


@pytest.mark.parametrize(
    ("changes", "amperes"),
    [
        ({}, 20.0), ({"supply_current_a": 16.0, "supply_power_w": 11040.0}, 16.0), ({"backend_current_a": 10.0}, 10.0),
        ({"backend_power_w": 6900.0}, 10.0), ({"cable_current_a": 13.0}, 13.0), ({"supply_power_w": 0.0}, 0.0),
        ({"backend_current_a": -1.0}, 0.0), ({"backend_current_a": 10.19}, 10.1), ({"backend_current_a": 10.2}, 10.2),
        ({"backend_current_a": math.nan}, 0.0), ({"backend_power_w": math.nan}, 0.0),
    ],
)  # fmt: skip
def test_what_an_ac_outlet_offers(changes: dict[str, float], amperes: float) -> None:
    assert offer(replace(AC, **changes)) == pytest.approx(amperes, abs=1e-9)


def test_a_permit_has_a_new_number_for_a_new_content() -> None:
    numbered = Numbered(41)
    assert [numbered.take(c) for c in ("a", "a", "b", "a")] == [(42, True), (42, False), (43, True), (44, True)]
