"""Which node is started again, after how long, and what its end means for the EVSEs."""

from __future__ import annotations

import pytest

from robot_charger.common.respawn import FEWEST_S, LIMIT, Upkeep


def test_a_node_is_started_again_later_and_later_and_then_no_more():
    upkeep = Upkeep([1, 2])
    decisions = [upkeep.ended("/evse1/pilot", -9, 0.3) for _ in range(LIMIT + 1)]
    assert [d.delay_s for d in decisions] == [1.0, 2.0, 4.0, 8.0, 16.0, None]
    assert upkeep.lost.keys() == {1} and not upkeep.all_lost
    assert "EVSE 1 is out of service" in decisions[-1].text


def test_a_node_that_ran_for_long_begins_anew():
    upkeep = Upkeep([1])
    for _ in range(3 * LIMIT):
        assert upkeep.ended("/power", 1, FEWEST_S).delay_s == 1.0
    assert upkeep.ended("/power", 1, 1.0).delay_s == 2.0


def test_a_refused_configuration_is_final():
    upkeep = Upkeep([1, 2])
    decision = upkeep.ended("/evse2/v2g", 2, 1.0, "v2g: parameter protocols names none")
    assert decision.delay_s is None and "parameter protocols" in decision.text
    assert upkeep.lost.keys() == {2}


@pytest.mark.parametrize("name", ["/power", "/robot", "/backend"])
def test_a_node_of_the_station_serves_every_evse(name):
    upkeep = Upkeep([1, 2, 3])
    upkeep.ended(name, 2, 1.0)
    assert upkeep.all_lost and name in upkeep.why


def test_evses_are_lost_one_by_one_also_below_a_pushed_namespace():
    upkeep = Upkeep([1, 2])
    upkeep.ended("/site1/evse1/supervisor", 2, 1.0)
    assert upkeep.lost.keys() == {1}
    upkeep.ended("/evse2/pilot", 2, 1.0)
    assert upkeep.all_lost
