"""Charging profiles with injected time: which limit holds when, and the composite schedule."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from robot_charger.backend.records import Limit, Now, OpenTransaction
from robot_charger.backend.smart_charging import ProfileError, SmartCharging

from .conftest import BEGIN, Desk, at

RATING = (400.0, 160_000.0)  # A, W
TRANSACTION = OpenTransaction("t", "t", 1, at(0).iso)


def profile(
    id: int,
    purpose: str = "TxDefaultProfile",
    level: int = 0,
    kind: str = "Absolute",
    unit: str = "W",
    periods: tuple[tuple[int, float], ...] = ((0, 10_000.0),),
    start: float | None = 0.0,
    duration: int | None = None,
    **more: Any,
) -> dict[str, Any]:
    schedule: dict[str, Any] = {
        "id": id,
        "chargingRateUnit": unit,
        "chargingSchedulePeriod": [{"startPeriod": s, "limit": x} for s, x in periods],
    }
    if start is not None:
        schedule["startSchedule"] = at(start).iso
    if duration is not None:
        schedule["duration"] = duration
    return {
        "id": id,
        "stackLevel": level,
        "chargingProfilePurpose": purpose,
        "chargingProfileKind": kind,
        "chargingSchedule": [schedule],
        **more,
    }


@pytest.fixture
def smart() -> SmartCharging:
    return SmartCharging([])


def watts(smart: SmartCharging, t: float, transaction: OpenTransaction | None = TRANSACTION) -> float:
    return smart.limit(1, transaction, at(t), RATING).max_power_w


def test_nothing_installed_limits_nothing(smart: SmartCharging) -> None:
    limit = smart.limit(1, TRANSACTION, at(0), RATING)
    assert limit.max_power_w == limit.max_current_a == float("inf") and limit.min_power_w == 0.0


def test_the_highest_stack_level_that_is_valid_rules(smart: SmartCharging) -> None:
    smart.set(0, profile(1, level=0, periods=((0, 30_000.0),)), "", 2)
    smart.set(0, profile(2, level=5, start=100.0, duration=50, periods=((0, 5_000.0),)), "", 2)
    assert [watts(smart, t) for t in (0.0, 99.0, 100.0, 149.0, 150.0)] == [30_000, 30_000, 5_000, 5_000, 30_000]


def test_a_tx_profile_replaces_the_default_and_needs_its_transaction(smart: SmartCharging) -> None:
    with pytest.raises(ProfileError, match="no transaction"):
        smart.set(1, profile(1, "TxProfile"), "", 2)
    smart.set(1, profile(2, periods=((0, 50_000.0),)), "", 2)
    smart.set(1, profile(3, "TxProfile", periods=((0, 70_000.0),)), "t", 2)
    assert watts(smart, 1.0) == 70_000.0
    assert watts(smart, 1.0, OpenTransaction("other", "other", 1, at(0).iso)) == 50_000.0
    assert watts(smart, 1.0, None) == float("inf")
    smart.ended("t")
    assert watts(smart, 1.0) == 50_000.0


def test_the_station_maximum_caps_everything(smart: SmartCharging) -> None:
    smart.set(1, profile(1, periods=((0, 90_000.0),)), "", 2)
    smart.set(0, profile(2, "ChargingStationMaxProfile", unit="A", periods=((0, 32.0),)), "", 2)
    limit = smart.limit(1, TRANSACTION, at(1), RATING)
    assert (limit.max_current_a, limit.max_power_w) == (32.0, 90_000.0)


def test_of_an_evse_wins_over_of_the_station(smart: SmartCharging) -> None:
    smart.set(0, profile(1, level=9, periods=((0, 90_000.0),)), "", 2)
    smart.set(1, profile(2, level=0, periods=((0, 10_000.0),)), "", 2)
    assert watts(smart, 1.0) == 10_000.0
    assert smart.limit(2, TRANSACTION, at(1), RATING).max_power_w == 90_000.0


def test_relative_schedules_count_from_the_start_of_the_transaction(smart: SmartCharging) -> None:
    late = OpenTransaction("t", "t", 1, at(1000).iso)
    smart.set(1, profile(1, kind="Relative", start=None, periods=((0, 1_000.0), (60, 2_000.0))), "", 2)
    assert [watts(smart, t, late) for t in (1000.0, 1059.0, 1060.0, 9000.0)] == [1_000, 1_000, 2_000, 2_000]


def test_daily_schedules_recur(smart: SmartCharging) -> None:
    smart.set(
        0,
        profile(1, kind="Recurring", recurrencyKind="Daily", duration=3600, periods=((0, 1_000.0), (1800, 2_000.0))),
        "",
        2,
    )
    day = 86_400.0
    assert [watts(smart, t) for t in (0.0, 1800.0, 3600.0, 5 * day, 5 * day + 1800, 5 * day + 3600)] == [
        1_000,
        2_000,
        float("inf"),
        1_000,
        2_000,
        float("inf"),
    ]


def test_valid_from_and_to(smart: SmartCharging) -> None:
    smart.set(0, profile(1, validFrom=at(50).iso, validTo=at(60).iso), "", 2)
    assert [watts(smart, t) for t in (49.0, 50.0, 59.0, 60.0)] == [float("inf"), 10_000, 10_000, float("inf")]


def test_same_purpose_level_and_place_replaces(smart: SmartCharging) -> None:
    smart.set(1, profile(1, periods=((0, 1.0),)), "", 2)
    smart.set(1, profile(2, periods=((0, 2.0),)), "", 2)
    assert [p["id"] for p in smart.profiles] == [2]
    assert smart.clear(purpose="TxProfile") == []
    assert [p["id"] for p in smart.clear(evse=1, level=0)] == [2]


@pytest.mark.parametrize(
    "bad,word",
    [
        ({"periods": ((10, 1.0),)}, "periods"),
        ({"periods": ((0, 1.0), (5, 1.0), (5, 2.0))}, "periods"),
        ({"purpose": "ChargingStationExternalConstraints"}, "external"),
        ({"purpose": "ChargingStationMaxProfile"}, "EVSE 0"),
        ({"kind": "Recurring"}, "recurrencyKind"),
        ({"start": None}, "startSchedule"),
    ],
)
def test_bad_profiles_are_refused_and_change_nothing(smart: SmartCharging, bad: dict[str, Any], word: str) -> None:
    with pytest.raises(ProfileError, match=word):
        smart.set(1, profile(1, **bad), "", 2)
    with pytest.raises(ProfileError, match="EVSE 7"):
        smart.set(7, profile(1), "", 2)
    assert smart.profiles == []


def test_composite_is_what_the_limit_would_be_second_by_second(smart: SmartCharging) -> None:
    smart.set(0, profile(1, "ChargingStationMaxProfile", periods=((0, 50_000.0), (100, 20_000.0))), "", 2)
    smart.set(1, profile(2, start=30.0, duration=90, unit="A", periods=((0, 100.0), (40, 60.0))), "", 2)
    smart.set(1, profile(3, "TxProfile", level=3, start=200.0, periods=((0, 5_000.0),), validTo=at(220).iso), "t", 2)
    periods = smart.composite(1, TRANSACTION, BEGIN, 300, "W", RATING)
    assert periods[0]["startPeriod"] == 0
    volts = RATING[1] / RATING[0]
    for second in range(300):
        limit = smart.limit(1, TRANSACTION, Now(0, BEGIN + timedelta(seconds=second)), RATING)
        wanted = min(RATING[1], limit.max_power_w, limit.max_current_a * volts)
        found = [p["limit"] for p in periods if p["startPeriod"] <= second][-1]
        assert found == pytest.approx(wanted), second


def test_profiles_are_kept(tmp_path: Any) -> None:
    kept: list[Any] = []
    smart = SmartCharging([], lambda profiles: kept.append(profiles))
    smart.set(1, profile(1), "", 1)
    assert SmartCharging(kept[-1]).limit(1, TRANSACTION, at(1)).max_power_w == 10_000.0


def test_an_external_limit_caps_profiles_and_the_composite_schedule(smart: SmartCharging) -> None:
    smart.set(0, profile(1, periods=((0, 30_000.0), (60, 5_000.0))), "", 2)
    smart.external[1] = Limit(25.0, 20_000.0, source="EMS")
    limit = smart.limit(1, TRANSACTION, at(0), RATING)
    assert (limit.max_current_a, limit.max_power_w, limit.source) == (25.0, 20_000.0, "external limit EMS")
    assert smart.limit(1, TRANSACTION, at(70), RATING).source == "TxDefaultProfile 1"
    assert smart.limit(2, None, at(0), RATING).max_power_w == float("inf")
    assert smart.composite(1, TRANSACTION, BEGIN, 120, "W", RATING) == [
        {"startPeriod": 0, "limit": 10_000.0},
        {"startPeriod": 60, "limit": 5_000.0},
    ]  # 25 A at 400 V
    smart.external[1] = Limit(source="EMS")
    assert smart.limit(1, None, at(0), RATING) == Limit()


def test_an_external_limit_is_told_where_it_changes_by_much(desk: Desk) -> None:
    told: list[float] = []
    desk.station.on_external_limit = lambda evse, limit: told.append(limit.max_power_w)  # type: ignore[method-assign]
    desk.station.connected(desk.now)
    for watts in (20_000.0, 20_100.0, 19_900.0, 15_000.0, float("inf"), float("inf"), 0.0):
        desk.station.external_limit(1, Limit(max_power_w=watts), desk.now)
        assert desk.outside.limits[-1][1].max_power_w == watts  # the vehicle is always told
    desk.station.external_limit(2, Limit(max_power_w=1.0), desk.now)  # no such EVSE
    assert told == [20_000.0, 15_000.0, float("inf"), 0.0]
    desk.station.disconnected(desk.now)
    for watts in (5_000.0, 7_000.0):
        desk.station.external_limit(1, Limit(max_power_w=watts), desk.now)
    for _ in range(2):
        desk.station.connected(desk.now)
    assert told[4:] == [7_000.0]  # once, when it is back
