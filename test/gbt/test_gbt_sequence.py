"""The sequence of GB/T 27930: what is sent, in which order, how often, and what the others are told meanwhile."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from gbt_desk import Desk, Link, Phase, charging
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from robot_charger.gbt import timing
from robot_charger.gbt.model import Session
from robot_charger.gbt.timing import Settings, plugged
from robot_charger.words.values import Lock, Purpose


def completed(**options: object) -> Desk:
    desk = Desk(**options)  # type: ignore[arg-type]
    desk.start()
    desk.until(Phase.ENDED)
    return desk


def test_a_whole_session_in_the_order_of_the_recorded_one() -> None:
    desk = completed()
    assert desk.order() == [
        "CHM", "BHM", "CRM", "BRM", "BCP", "CTS", "CML", "BRO", "CRO", "BCL", "BCS", "BSM", "CCS", "BST", "CST", "BSD",
        "CSD",
    ]  # fmt: skip
    assert desk.status.phase is Link.ENDED and not desk.faults
    assert desk.ev.result["statistics"]["charger_number"] == 1
    assert not desk.ev.failed and desk.ev.text == "the battery has what it wanted"


def test_what_power_and_the_supervisor_are_told() -> None:
    desk = completed()
    assert desk.purposes == [
        Purpose.NONE, Purpose.INSULATION_TEST, Purpose.NONE, Purpose.PRECHARGE, Purpose.TRANSFER, Purpose.NONE,
    ]  # fmt: skip
    assert desk.links == [
        Link.MATCHING, Link.CABLE_CHECK, Link.PRECHARGE, Link.CHARGING, Link.STOPPING, Link.WELDING_CHECK, Link.ENDED,
    ]  # fmt: skip


def test_the_vehicle_gets_what_it_asks_for() -> None:
    desk = charging(5.0)
    assert desk.supply.current_a == pytest.approx(125.0, abs=1.0)
    assert desk.station.target.voltage_v == pytest.approx(420.0)
    told = desk.last("CCS")
    assert told["current_a"] == pytest.approx(desk.supply.current_a, abs=0.1)
    assert told["voltage_v"] == pytest.approx(desk.supply.voltage_v, abs=0.1)
    assert told["allowed"] == 1
    assert desk.status.soc == pytest.approx(desk.car.soc, abs=1.0)
    assert desk.status.capacity_wh == pytest.approx(50_000.0)
    assert desk.status.max_voltage_v == pytest.approx(420.0)
    assert desk.status.remaining_s == 1800.0


@pytest.mark.parametrize(
    ("name", "period_s"),
    [("CHM", 0.25), ("CRM", 0.25), ("CTS", 0.5), ("CML", 0.25), ("CRO", 0.25), ("CCS", 0.05), ("CST", 0.01),
     ("CSD", 0.25)],
)  # fmt: skip
def test_every_message_keeps_its_period(name: str, period_s: float) -> None:
    desk = Desk(charge_seconds=2.0)
    faults = {"CRM": {"no-brm"}, "CTS": {"not-ready"}, "CML": {"not-ready"}, "CRO": {"late-voltage"}}
    desk.car.faults = faults.get(name, set())
    desk.start()
    desk.run(14.0)
    gaps = [b - a for a, b in pairwise(desk.times(name)) if b - a < 4.0]
    assert len(gaps) >= 3
    assert all(gap <= period_s + 1e-6 for gap in gaps), "a change is told at once, the rest at the period"
    assert sorted(gaps)[len(gaps) // 2] == pytest.approx(period_s)


def test_auxiliary_supply_comes_after_the_lock_and_goes_before_it() -> None:
    desk = Desk(charge_seconds=2.0)
    desk.lock_works = False
    desk.start()
    desk.run(1.0)
    assert desk.station.wires.lock and not desk.station.wires.auxiliary
    desk.lock_works = True
    desk.until(Phase.RELEASE)
    while desk.phase is Phase.RELEASE:
        assert desk.station.wires.lock or not desk.station.wires.auxiliary
        desk.step()
    assert not desk.station.wires.lock and desk.status.lock is Lock.UNLOCKED


def test_insulation_is_tested_at_the_voltage_that_bhm_names() -> None:
    desk = Desk()
    desk.start()
    desk.until(Phase.INSULATION)
    assert desk.station.target.voltage_v == pytest.approx(420.0)
    assert desk.status.vehicle_ready
    assert desk.times("CHM") and not desk.times("CRM")
    desk.until(Phase.IDENTIFY)
    assert desk.supply.voltage_v < 60.0 and not desk.supply.contactors_closed


def test_the_station_announces_what_it_has() -> None:
    desk = Desk()
    desk.allowed = replace(desk.allowed, max_current_a=80.0)
    desk.start()
    desk.until(Phase.CHARGE)
    assert desk.last("CML") == pytest.approx({"max_v": 750.0, "min_v": 200.0, "max_a": 80.0, "min_a": 0.0})
    assert desk.last("CTS") == {"second": 36, "minute": 24, "hour": 8, "day": 16, "month": 5, "year": 2015}
    desk.run(4.0)
    assert desk.peak_a <= 80.0


def test_a_vehicle_of_2011_is_known_by_its_silence() -> None:
    desk = Desk(edition=2011)
    desk.start()
    desk.until(Phase.INSULATION)
    assert desk.on_s == pytest.approx(5.0, abs=0.05)
    assert desk.station.edition == 2011
    assert desk.station.target.voltage_v == 500.0
    desk.until(Phase.ENDED)
    assert desk.status.phase is Link.ENDED and not desk.faults
    lengths = {identifier: len(data) for _, (identifier, data) in desk.raw}
    assert (lengths[0x1808F456], lengths[0x1812F456], lengths[0x181DF456]) == (6, 6, 5)


def test_a_vehicle_that_shows_its_voltage_only_after_cro_aa() -> None:
    desk = Desk(faults={"late-voltage"})
    desk.start()
    desk.until(Phase.CHARGE)
    first_aa = next(at for at, value in desk.seen("CRO", "ready") if value == 0xAA)
    first_bro = next(at for at, value in desk.seen("BRO", "ready") if value == 0xAA)
    assert first_aa - first_bro == pytest.approx(10.0, abs=0.05)
    assert Purpose.PRECHARGE in desk.purposes
    desk.until(Phase.ENDED)
    assert not desk.faults


def test_ccs_says_paused_until_the_supply_is_there() -> None:
    desk = Desk()
    desk.start()
    desk.until(Phase.CHARGE)
    desk.run(0.1)
    allowed = [value for _, value in desk.seen("CCS", "allowed")]
    assert allowed in ([1], [0, 1])


def test_a_pause_of_the_vehicle_is_no_end() -> None:
    desk = charging(2.0, faults={"pause"})
    assert desk.run(3.0, lambda: desk.supply.current_a < 0.5)
    assert desk.last("CCS")["allowed"] == 0
    assert desk.phase is Phase.CHARGE and desk.station.text == "paused by the vehicle"
    assert desk.run(5.0, lambda: desk.supply.current_a > 100.0)
    assert desk.last("CCS")["allowed"] == 1
    assert not desk.faults


def test_a_pause_of_ten_minutes_is_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    assert timing.limit("pause") == 600.0
    monkeypatch.setitem(timing.LIMITS, "pause", (20.0, "s", "so that the test is short"))
    desk = charging(1.0)
    said = desk.ev._bsm
    desk.ev._bsm = lambda now_s: {**said(now_s), "allowed": 0}  # type: ignore[method-assign]
    desk.car.options = replace(desk.car.options, charge_seconds=3600.0)
    assert not desk.run(19.0, lambda: desk.phase is not Phase.CHARGE)
    assert desk.run(2.0, lambda: desk.phase is Phase.STOPPING)
    assert desk.station.text == "the vehicle paused for 20 s"
    desk.until(Phase.ENDED)
    assert desk.status.phase is Link.ENDED


def test_a_station_without_power_pauses_and_goes_on() -> None:
    desk = charging(2.0)
    desk.allowed = replace(desk.allowed, max_power_w=0.0)
    desk.run(0.1)
    assert desk.station.target.current_a == 0.0 and desk.last("CCS")["allowed"] == 0
    desk.allowed = replace(desk.allowed, max_power_w=50_000.0)
    assert desk.run(5.0, lambda: desk.supply.current_a > 50.0)
    assert desk.last("CCS")["allowed"] == 1


def test_the_request_is_followed_upwards_no_faster_than_the_station_allows() -> None:
    desk = charging(0.5, settings=Settings(slew_a_per_s=20.0))
    before_a = desk.station.target.current_a
    desk.run(1.0)
    assert desk.station.target.current_a - before_a <= 20.5


def test_a_request_above_what_was_announced_is_cut() -> None:
    desk = charging(2.0)
    desk.ev._bcl = lambda now_s: {"voltage_v": 600.0, "current_a": 400.0, "mode": 2}  # type: ignore[method-assign]
    desk.run(5.0)
    assert desk.station.target.voltage_v == pytest.approx(420.0), "never above the battery's highest voltage"
    assert desk.station.target.current_a <= 125.0, "nor above its highest current"


# Stopping.


def test_the_vehicle_ends_the_charge() -> None:
    desk = charging(4.0)
    desk.car.options = replace(desk.car.options, charge_seconds=1.0)
    desk.until(Phase.STOPPING)
    assert desk.station.target.purpose is Purpose.NONE, "current goes to zero at once"
    desk.run(0.05)
    assert desk.last("CST")["bms_stopped"] == 1
    assert desk.last("BST")["soc_reached"] == 1
    assert desk.times("CST")[0] - desk.times("BST")[0] <= 0.02
    desk.until(Phase.ENDED)
    assert "soc reached" in desk.station.text and not desk.faults


def test_the_station_ends_the_charge() -> None:
    desk = charging(4.0)
    desk.session = replace(desk.session, stop=True)
    desk.until(Phase.STOPPING)
    desk.run(0.5)
    assert desk.last("CST")["by_hand"] == 1
    assert desk.last("BST")["charger_stopped"] == 1
    desk.until(Phase.ENDED)
    assert desk.status.phase is Link.ENDED and not desk.faults
    assert desk.seen("CCS", "allowed")[-1][1] == 1
    assert desk.times("CSD")[-1] > desk.times("BSD")[0]


def test_cst_goes_on_until_bsd_and_csd_follows_it() -> None:
    desk = completed(charge_seconds=2.0)
    assert max(desk.times("CST")) <= desk.times("BSD")[0] + 0.02
    assert desk.times("CSD")[0] - desk.times("BSD")[0] <= 0.02
    assert len(desk.times("CSD")) >= 10


def test_energy_and_time_are_told_in_csd() -> None:
    desk = charging(90.0)
    desk.session = replace(desk.session, stop=True)
    desk.until(Phase.ENDED)
    told = desk.last("CSD")
    assert told["charged_min"] == 1
    assert told["energy_kwh"] * 1000 == pytest.approx(desk.car.battery.energy_in_wh, abs=60.0)


def test_a_stop_before_the_vehicle_is_ready_needs_no_cst() -> None:
    desk = Desk(faults={"not-ready"})
    desk.start()
    desk.until(Phase.PARAMETERS)
    desk.run(1.0)
    desk.session = replace(desk.session, stop=True)
    desk.until(Phase.ENDED)
    assert not desk.times("CST") and desk.status.phase is Link.ENDED


def test_a_vehicle_that_stops_before_the_charge() -> None:
    desk = Desk()
    desk.start()
    desk.until(Phase.READY)
    desk.intruder = lambda count: [(0x101956F4, bytes.fromhex("01000000"))]
    desk.until(Phase.STOPPING)
    desk.intruder = None
    assert desk.station.text == "the vehicle stopped: soc reached"
    assert not desk.faults


def test_a_new_session_begins_from_nothing() -> None:
    desk = completed(charge_seconds=2.0)
    desk.session = Session()
    desk.run(0.1)
    assert desk.phase is Phase.IDLE
    desk.session = Session("s2", active=True)
    desk.run(0.1)
    assert desk.station.vehicle.messages == {} and desk.station.edition == 0
    assert desk.status.phase is Link.MATCHING and desk.station.text == "waits for the authorisation"


def test_silent_until_authorised() -> None:
    desk = Desk()
    desk.session = Session("s1", active=True)
    desk.run(2.0)
    assert desk.raw == [] and not desk.station.wires.auxiliary and not desk.station.wires.lock


@pytest.mark.parametrize(("volts", "expected"), [(4.0, True), (3.2, True), (4.8, True), (6.0, False), (12.0, False),
                                                 (0.0, False), (3.0, False)])  # fmt: skip
def test_levels_of_cc1(volts: float, expected: bool) -> None:
    assert plugged(volts) is expected


@hypothesis_settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2500), st.integers(0, 0x1FFF_FFFF), st.binary(max_size=8)), max_size=30),
    st.integers(0, 3),
)
def test_no_frames_of_anybody_energise_what_is_not_permitted(
    intrusions: list[tuple[int, int, bytes]], session: int
) -> None:
    """Nonsense on the bus at any time: no target without a plug, a lock and a session, and never a crash."""
    desk = Desk(charge_seconds=3.0)
    by_time: dict[int, list[tuple[int, bytes]]] = {}
    for at, identifier, data in intrusions:
        by_time.setdefault(at, []).append((identifier, data))
    desk.intruder = lambda count: by_time.get(count, [])
    if session:
        desk.start()
    for _ in range(2500 if session else 300):
        desk.step()
        if desk.station.target.purpose is not Purpose.NONE:
            assert desk.session.active and desk.station.wires.lock and desk.station.wires.auxiliary
        assert desk.station.target.current_a <= 125.0 + 1e-6
        assert desk.station.target.voltage_v <= 750.0
