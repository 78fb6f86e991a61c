"""Ordered bring-up, permits, and that docs/session.md shows the table as it is."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from robot_charger.supervisor import diagram
from robot_charger.supervisor.bringup import ACTIVATE, ANSWER_S, CONFIGURE, Bringup
from robot_charger.supervisor.model import Commands
from robot_charger.supervisor.permits import Ceilings, Numbered, permit
from robot_charger.words.values import Purpose


def bring(bringup: Bringup, now: float) -> list[tuple[str, str]]:
    """Ask, and have every transition succeed."""
    asked = bringup.next(now)
    for name, _ in asked:
        bringup.done(name, True)
    return asked


def test_all_are_configured_abrupt_and_activated_in_order():
    bringup = Bringup(["/power", "/evse1/pilot"])
    assert bringup.next(0.0) == [], "nobody has been heard of"
    bringup.heard("/evse1/pilot", "unconfigured")
    assert bring(bringup, 0.1) == [("/evse1/pilot", CONFIGURE)]
    assert bring(bringup, 0.2) == [], "power is not active yet"
    bringup.heard("/power", "unconfigured")
    assert bring(bringup, 0.3) == [("/power", CONFIGURE)]
    assert bring(bringup, 0.4) == [("/power", ACTIVATE)]
    assert bring(bringup, 0.5) == [("/evse1/pilot", ACTIVATE)]
    assert bringup.ready


def test_a_transition_is_asked_once_until_answered_and_tried_again_later_when_it_failed():
    bringup = Bringup(["/power"])
    bringup.heard("/power", "unconfigured")
    assert bringup.next(0.0) == [("/power", CONFIGURE)]
    assert bringup.next(2.0) == []
    bringup.done("/power", False)
    assert bringup.next(2.1) == [("/power", CONFIGURE)]


def test_after_a_lost_answer_it_looks_before_it_asks_again():
    bringup = Bringup(["/power"])
    bringup.heard("/power", "unconfigured")
    assert bringup.next(0.0) == [("/power", CONFIGURE)]
    assert bringup.next(ANSWER_S + 0.1) == [], "it may have been configured all the same"
    bringup.heard("/power", "inactive")
    assert bringup.next(ANSWER_S + 0.2) == [("/power", ACTIVATE)]


def test_who_was_refused_because_another_was_faster_goes_on_abrupt():
    bringup = Bringup(["/power", "/robot"])
    bringup.heard("/power", "unconfigured")
    assert bringup.next(0.0) == [("/power", CONFIGURE)]
    bringup.heard("/power", "unconfigured")
    assert bringup.next(2.0) == [], "it is still being configured"
    bringup.heard("/power", "inactive")
    assert bringup.next(2.1) == [("/power", ACTIVATE)]
    bringup.heard("/power", "active")
    bringup.heard("/robot", "active")
    assert bringup.ready


def test_a_respawned_node_is_brought_up_anew_alone():
    bringup = Bringup(["/power", "/robot"])
    for name in bringup.names:
        bringup.heard(name, "active")
    assert bringup.heard("/robot", "") is True
    assert not bringup.ready and bringup.missing() == ["/robot"]
    bringup.heard("/robot", "unconfigured")
    assert bring(bringup, 1.0) == [("/robot", CONFIGURE)]
    assert bring(bringup, 1.1) == [("/robot", ACTIVATE)]


SUPPLY = Ceilings(supply_voltage_v=500, supply_current_a=380, supply_power_w=152e3, cable_current_a=400)


def test_a_permit_is_the_smallest_of_all_ceilings():
    p = permit(Commands(purpose=Purpose.TRANSFER), SUPPLY)
    assert (p.max_voltage_v, p.min_current_a, p.max_current_a, p.max_power_w) == (500, 0, 380, 152e3)
    limited = Ceilings(**{**vars(SUPPLY), "backend_current_a": 32.0, "backend_power_w": 11e3, "vehicle_voltage_v": 420})
    p = permit(Commands(purpose=Purpose.TRANSFER), limited)
    assert (p.max_voltage_v, p.max_current_a, p.max_power_w) == (420, 32, 11e3)


@pytest.mark.parametrize("purpose", [Purpose.INSULATION_TEST, Purpose.PRECHARGE])
def test_test_and_precharge_current_are_two_amperes(purpose):
    assert permit(Commands(purpose=purpose), SUPPLY).max_current_a == 2.0


def test_nothing_is_permitted_without_purpose_or_supply():
    for p in (permit(Commands(), SUPPLY), permit(Commands(purpose=Purpose.TRANSFER), Ceilings())):
        assert p.max_current_a == 0 and p.max_power_w == 0 and p.min_current_a == 0


def test_discharge_needs_the_vehicle_the_supply_and_the_grid():
    able = Ceilings(**{**vars(SUPPLY), "export_current_a": 100, "export_power_w": 30e3})
    assert permit(Commands(purpose=Purpose.TRANSFER), able).min_power_w == 0
    asked = Ceilings(**{**vars(able), "discharge": True, "backend_min_power_w": -10e3})
    p = permit(Commands(purpose=Purpose.TRANSFER), asked)
    assert (p.min_current_a, p.min_power_w) == (-100, -10e3)
    unasked = Ceilings(**{**vars(able), "discharge": True, "backend_min_power_w": 0.0})
    assert permit(Commands(purpose=Purpose.TRANSFER), unasked).min_current_a == 0
    assert not math.isinf(p.max_power_w)


def test_numbers_rise_with_content_only():
    numbered = Numbered(100)
    assert [numbered.take(c)[0] for c in "aab a"] == [101, 101, 102, 103, 104]


def test_the_page_shows_the_table_as_it_is():
    text = Path(__file__).parents[2].joinpath("docs/session.md").read_text()
    assert diagram.page(text) == text, "run: python -m robot_charger.supervisor.diagram"


def test_the_safety_page_shows_the_promises_as_they_are():
    from robot_charger.desk.promises import table

    assert table() in Path(__file__).parents[2].joinpath("docs/safety.md").read_text()
