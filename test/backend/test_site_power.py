"""The station maximum as one budget: never more than it, whoever starts, stops or tapers off."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_charger.backend.site_power import INF, Item, Pool, SiteBudget, SitePlan, Want, fair
from robot_charger.words.values import Phase

from .conftest import SESSION, Desk, at, reading, view
from .test_smart_charging import profile

PLAIN = SitePlan(efficiency=1.0, auxiliary_w=0.0)


def item(need: float = INF, active: bool = True, drawn: float = 0.0, t: float = 0.0) -> Item:
    return Item(active, need, drawn, at(t).mono_ns, active)


def test_shares_follow_the_need() -> None:
    assert fair(90.0, {1: item(), 2: item()}) == {1: 45.0, 2: 45.0}
    assert fair(90.0, {1: item(20.0), 2: item()}) == {1: 20.0, 2: 70.0}
    assert fair(90.0, {1: item(20.0), 2: item(30.0)}) == {1: 40.0, 2: 50.0}  # the rest in equal parts
    assert fair(90.0, {1: item(20.0), 2: item(active=False)}) == {1: 55.0, 2: 35.0}
    assert fair(90.0, {1: item(), 2: item(active=False)}) == {1: 90.0, 2: 0.0}
    assert fair(INF, {1: item()}) == {1: INF}
    assert fair(0.0, {1: item(), 2: item()}) == {1: 0.0, 2: 0.0}


def test_an_increase_waits_until_the_decrease_was_measured() -> None:
    pool = Pool(slack=0.0)
    one = {1: item(drawn=90.0), 2: item(active=False)}
    pool.share(90.0, one, at(0))
    pool.share(90.0, {1: item(drawn=90.0, t=5), 2: item(active=False)}, at(5))
    assert pool.granted == {1: 90.0, 2: 0.0}
    two = {1: item(drawn=90.0, t=6), 2: item(t=6)}
    assert pool.share(90.0, two, at(6)) == {1: 45.0, 2: 0.0}  # told at once, not yet obeyed
    two = {1: item(drawn=45.0, t=6.5), 2: item(t=6.5)}
    assert pool.share(90.0, two, at(6.5))[2] == 0.0  # it may be chance: the new limit is not there yet
    two = {1: item(drawn=45.0, t=7.5), 2: item(t=7.5)}
    assert pool.share(90.0, two, at(7.5)) == {1: 45.0, 2: 45.0}


def test_a_silent_meter_confirms_nothing() -> None:
    pool = Pool(slack=0.0)
    for t in (0.0, 2.0):
        pool.share(90.0, {1: item(drawn=90.0, t=t), 2: item(active=False)}, at(t))
    for t in (3.0, 10.0, 100.0):
        assert pool.share(90.0, {1: item(drawn=0.0, t=3.0), 2: item(t=t)}, at(t))[2] == 0.0


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.floats(0, 100), st.floats(0, 200)), min_size=3, max_size=30))
def test_the_sum_never_exceeds_the_total(steps: list[tuple[bool, bool, float, float]]) -> None:
    """EVSEs that obey only some of the time; what they may draw stays within every total."""
    pool, drawn = Pool(slack=0.0), {1: 0.0, 2: 0.0}
    for number, (obeys, both, need, total) in enumerate(steps):
        t = 2.0 * number
        items = {1: item(need, True, drawn[1], t), 2: item(INF, both, drawn[2], t)}
        granted = pool.share(total, items, at(t))
        assert sum(granted.values()) <= total + 1e-6
        if obeys:
            drawn = dict(granted)


def test_losses_and_the_stations_own_use_come_off() -> None:
    budget = SiteBudget(SitePlan(efficiency=0.9, auxiliary_w=1000.0))
    wants = {1: Want(True, True, drawn_ns=at(5).mono_ns)}
    assert budget.share(91_000.0, INF, wants, at(5))[1][0] == pytest.approx(81_000.0)
    assert budget.share(500.0, INF, wants, at(5))[1][0] == 0.0
    assert budget.share(INF, INF, wants, at(5))[1] == (INF, INF)


def test_amperes_bound_the_outputs_and_the_supply() -> None:
    budget = SiteBudget(PLAIN)
    wants = {e: Want(True, False, drawn_ns=at(5).mono_ns) for e in (1, 2)}
    for t in (1.0, 5.0, 8.0):
        shares = budget.share(INF, 100.0, {e: replace(w, drawn_ns=at(t).mono_ns) for e, w in wants.items()}, at(t))
    assert sum(a for _, a in shares.values()) <= 100.0
    assert sum(w for w, _ in shares.values()) == pytest.approx(100.0 * 230.0 * 3)


def test_the_site_has_a_limit_without_a_csms() -> None:
    wants = {1: Want(True, True, drawn_w=20_000.0, drawn_ns=at(5).mono_ns)}
    budget = SiteBudget(replace(PLAIN, site_w=50_000.0))
    assert budget.share(INF, INF, wants, at(5))[1][0] == 50_000.0
    budget = SiteBudget(replace(PLAIN, site_w=50_000.0, site_meter=True, fallback_w=7_000.0))
    assert budget.share(INF, INF, wants, at(5))[1][0] == 7_000.0  # nothing heard of the meter yet
    budget.site_meter(35_000.0, at(6))  # 20 of them are ours
    for t in (6.0, 8.0, 9.0):
        share = budget.share(INF, INF, {1: replace(wants[1], drawn_w=5_000.0, drawn_ns=at(t).mono_ns)}, at(t))
    assert share[1][0] == 20_000.0  # 35 less 5 of ours are others': 50 less 30
    assert budget.share(INF, INF, wants, at(20))[1][0] == 7_000.0


def test_an_evse_that_tapers_off_frees_power() -> None:
    budget = SiteBudget(PLAIN)

    def share(t: float, first: float, second: float) -> dict[int, tuple[float, float]]:
        ns = at(t).mono_ns
        wants = {1: Want(True, True, drawn_w=first, drawn_ns=ns), 2: Want(True, True, drawn_w=second, drawn_ns=ns)}
        return budget.share(90_000.0, INF, wants, at(t))

    for t in (0.0, 2.0, 4.0):
        share(t, 40_000.0, 45_000.0)
    assert share(6.0, 5_000.0, 45_000.0)[2][0] == 45_000.0
    for t in (20.0, 27.0, 30.0):
        found = share(t, 5_000.0, 45_000.0)
    assert found[2][0] > 70_000.0 and found[1][0] + found[2][0] <= 90_000.0


def charging(desk: Desk, evse: int, t: float, power_w: float, session_id: str) -> None:
    desk.t = t
    moment = replace(view(Phase.CHARGING, t, session_id=session_id), evse=evse)
    desk.station.session(moment, desk.now)
    values = replace(reading(t, 1000.0, power_w / 400.0), power_w=power_w)
    desk.station.meter(evse, values, desk.now)
    desk.station.tick(desk.now)


def test_two_evses_share_a_station_maximum(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "store.sqlite", evses=2)
    desk.station.smart.set(0, profile(1, "ChargingStationMaxProfile", periods=((0, 90_000.0),)), "", 2)

    def limits() -> list[float]:
        return [desk.station.limit_of(e).max_power_w for e in (1, 2)]

    powers = {1: 0.0, 2: 0.0}
    plan: dict[int, Any] = {1: range(1, 40), 2: range(10, 30)}
    for t in range(1, 60):
        for evse in (1, 2):
            if t in plan[evse]:
                charging(desk, evse, float(t), powers[evse], f"{SESSION[:-1]}{evse}")
            else:
                desk.t = float(t)
                desk.station.session(replace(view(Phase.IDLE, t), evse=evse), desk.now)
                desk.station.tick(desk.now)
                powers[evse] = 0.0
        assert sum(limits()) <= 90_000.0 * 0.94
        for evse in (1, 2):
            if t in plan[evse]:
                powers[evse] = limits()[evse - 1]
        assert sum(powers.values()) <= 90_000.0 * 0.94 + 1.0
        if t == 25:
            assert min(limits()) > 40_000.0
            assert desk.station.limit_of(1).source == "ChargingStationMaxProfile 1"
    assert max(limits()) > 40_000.0
    desk.store.close()
