"""Modules age: what hours of operation take, and how the sharing by hours spreads them."""

from __future__ import annotations

import numpy as np
import pytest
from power_desk import Desk, charged

from robot_charger.common.clock import SECOND
from robot_charger.power import bank, codec
from robot_charger.power.messages import Reporter
from robot_charger.sim.rack.model import LIFE_H, Rack


def test_hours_take_rating_and_efficiency() -> None:
    rack = Rack(3, [1])
    rack.hours[:] = [0.0, LIFE_H / 2, 2 * LIFE_H]
    rack.climate(np.full(3, 25.0))
    rack.networks[1].bank_v = 400.0
    rack.step(0.0, 0.01)
    assert (rack.available * 400.0).round().tolist() == [3300.0, 2970.0, 2640.0]
    _, sensors = rack.sensors()
    assert sensors["efficiency"].tolist() == [9500, 9400, 9300]
    assert not (rack.state == codec.State.DERATED).any(), "old is not hot"


def test_an_old_module_gives_its_whole_and_the_young_the_rest() -> None:
    desk = charged(60.0, modules=8)
    desk.rack.hours[:4] = LIFE_H
    desk.rack.climate(np.full(8, 25.0))
    desk.targets[1]["current_a"] = 64.0
    desk.run(2.0)
    command, limits = desk.control.bank.command_a, desk.rack.available
    assert command[:4] == pytest.approx(limits[:4], abs=0.02)
    assert command[4:].min() > command[:4].max() and command.sum() == pytest.approx(64.0)
    assert desk.network.current_a == pytest.approx(64.0, rel=0.01)
    told = Reporter(desk.parameters, desk.control).limits(1)
    assert told is not None and told.max_power_w == pytest.approx(4 * 3300.0 + 4 * 2640.0, abs=200.0)


def test_sharing_by_hours_brings_a_bank_to_one_age(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each second stands for some hundred hours; a tired module is relieved every 0.2 s."""
    monkeypatch.setattr(bank, "ROTATE_NS", SECOND // 5)
    desk = Desk(modules=12, share__modules_min=1)
    desk.charge(30.0)
    desk.rack.ageing = 3600.0 * 300.0
    before, seen = np.ptp(desk.rack.hours), []
    total = desk.rack.hours.sum()
    for _ in range(2500):
        desk.cycle()
        seen.append(desk.network.current_a)
    assert np.ptp(desk.rack.hours) < 0.3 * before and desk.rack.hours.sum() > total + 10_000.0
    assert min(seen) > 0.95 * 30.0 and not desk.codes
