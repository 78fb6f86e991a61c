"""Whole CHAdeMO sessions between station and vehicle, frame by frame; time is injected."""

from __future__ import annotations

import pytest
from desk import Desk, Phase

from robot_charger.chademo.timing import Settings, limit
from robot_charger.words.values import Link, Lock, Purpose

STATUS, LIMITS, CONTROL = 0x109, 0x108, 0x102


@pytest.mark.parametrize(("protocol", "v2x"), [(1, False), (2, False), (3, False), (2, True), (3, True)])
def test_a_session_goes_through_every_step_in_order(protocol: int, v2x: bool) -> None:
    desk = Desk(protocol, v2x)
    desk.start()
    desk.until(Phase.ENDED)
    assert [phase for _, phase in desk.phases] == list(Phase)[1:]
    assert desk.status.phase is Link.ENDED
    assert desk.status.lock is Lock.UNLOCKED
    assert not desk.faults
    assert not desk.ev.failed, desk.ev.text
    assert desk.car.battery.energy_in_wh > 5.0
    assert (desk.car.battery.energy_out_wh > 1.0) is v2x
    assert (desk.station.wires.d1, desk.station.wires.d2, desk.station.wires.lock) == (False, False, False)


def test_the_station_is_silent_until_the_vehicle_has_said_all_three_frames() -> None:
    desk = Desk()
    desk.run(1.0)
    assert not desk.log
    desk.start()
    desk.until(Phase.CHARGE)
    first_station = next(i for i, (_, identifier, _) in enumerate(desk.log) if identifier == LIMITS)
    before = {identifier for _, identifier, _ in desk.log[:first_station]}
    assert {0x100, 0x101, 0x102} <= before
    assert desk.log[first_station + 1][1] == STATUS, "0x108 comes before 0x109"
    assert desk.log[first_station][0] < 0.2


def test_no_d1_before_the_authorisation() -> None:
    desk = Desk()
    desk.start()
    desk.session = desk.session.__class__("s1", active=True, start=False)
    desk.run(3.0)
    assert not desk.station.wires.d1
    assert desk.status.phase is Link.MATCHING
    assert "authorisation" in desk.status.text
    desk.start()
    desk.run(0.02)
    assert desk.station.wires.d1


def test_no_d1_before_the_supply_has_told_its_limits() -> None:
    desk = Desk()
    allowed, desk.allowed = desk.allowed, desk.allowed.__class__()
    desk.start()
    desk.run(0.5)
    assert not desk.station.wires.d1
    desk.allowed = allowed
    desk.until(Phase.CHARGE)


def test_status_bits_follow_the_recorded_pattern() -> None:
    desk = Desk()
    desk.start()
    desk.until(Phase.ENDED)
    names = ("charging", "malfunction", "locked", "incompatible", "system_malfunction", "stop_control")
    pattern: list[int] = []
    for _, identifier, values in desk.log:
        if identifier == STATUS:
            byte = sum(int(values[name]) << bit for bit, name in enumerate(names))
            if not pattern or pattern[-1] != byte:
                pattern.append(byte)
    assert pattern == [0x20, 0x24, 0x05, 0x25, 0x24, 0x20]


def test_times_of_the_sequence() -> None:
    desk = Desk()
    desk.start()
    desk.until(Phase.ENDED)
    at = {phase: seconds for seconds, phase in desk.phases}
    assert at[Phase.LOCK] < limit("permission")
    assert at[Phase.CONTACTOR] - at[Phase.LOCK] < limit("insulation")
    assert at[Phase.PRECHARGE] - at[Phase.CONTACTOR] < limit("contactor")
    assert desk.ev.result["charging_flag_s"] <= limit("charging_flag")
    assert desk.ev.result["current_end_s"] <= limit("current_zero") + 0.1  # by CAN, a frame later than the wire
    assert desk.ev.result["inlet_v_at_d2"] < limit("before_d2_v")
    assert at[Phase.ENDED] - at[Phase.RELEASE] >= limit("d2_to_d1")


def test_d2_goes_off_half_a_second_before_d1_and_the_lock_opens_last() -> None:
    desk = Desk()
    desk.start()
    desk.until(Phase.RELEASE)
    changes: dict[str, float] = {}
    while desk.station.phase is not Phase.ENDED:
        desk.step()
        for wire in ("d2", "d1", "lock"):
            if not getattr(desk.station.wires, wire):
                changes.setdefault(wire, desk.d1_s)
    assert changes["d1"] - changes["d2"] >= 0.49
    assert changes["lock"] >= changes["d1"]


def test_an_old_vehicle_is_supplied_4_s_after_the_current() -> None:
    desk = Desk(protocol=1)
    desk.start()
    desk.until(Phase.WELDING)
    begun = desk.d1_s
    desk.until(Phase.RELEASE)
    assert desk.d1_s - begun > 4.0


def test_the_target_is_the_vehicles_and_nothing_is_asked_before_its_time() -> None:
    desk = Desk()
    desk.start()
    desk.until(Phase.INSULATION)
    assert desk.station.target.purpose is Purpose.INSULATION_TEST
    assert desk.station.target.voltage_v == 435
    assert desk.status.vehicle_ready
    assert desk.status.lock is Lock.LOCKED
    desk.until(Phase.PRECHARGE)
    assert desk.station.target.purpose is Purpose.PRECHARGE
    assert desk.station.target.voltage_v == pytest.approx(desk.car.battery.emf_v, abs=1.0)
    assert desk.station.target.current_a <= 2.0
    desk.until(Phase.CHARGE)
    desk.run(2.0)
    assert desk.station.target.purpose is Purpose.TRANSFER
    assert desk.station.target.current_a == pytest.approx(desk.ev.request_a, abs=3.0)
    desk.until(Phase.RAMP_DOWN)
    assert desk.station.target.purpose is Purpose.NONE


def test_state_of_charge_and_the_rest_are_told_after_permission() -> None:
    desk = Desk()
    desk.start()
    desk.until(Phase.LOCK)
    assert desk.status.soc == -1.0
    desk.until(Phase.CHARGE)
    assert desk.status.soc == pytest.approx(40.0, abs=0.5)
    assert desk.status.remaining_s == 1800.0
    assert desk.status.capacity_wh == pytest.approx(40_000.0)
    assert desk.status.max_voltage_v == 435.0
    assert desk.status.automaker == 1


@pytest.mark.parametrize(("protocol", "reference"), [(1, 255), (2, 100)])
def test_state_of_charge_is_a_share_of_the_reference(protocol: int, reference: int) -> None:
    desk = Desk(protocol)
    desk.start()
    desk.until(Phase.CHARGE)
    assert desk.seen(0x100, "rate_reference")[-1][1] == reference
    assert desk.status.soc == pytest.approx(40.0, abs=0.5)


def test_the_rules_are_those_of_the_smaller_protocol_number() -> None:
    desk = Desk(protocol=3, settings=Settings(protocol=1))
    desk.start()
    desk.until(Phase.CHARGE)
    assert desk.station.rules == 1
    assert desk.status.protocol_number == 1


def test_threshold_voltage_is_the_smaller_of_battery_and_station() -> None:
    battery, station = Desk(), Desk()
    station.allowed = station.allowed.__class__(425.0, 200.0, 100_000.0)
    for desk, expected in ((battery, 435), (station, 425)):
        desk.start()
        desk.until(Phase.CHARGE)
        assert desk.seen(LIMITS, "threshold_v")[-1][1] == expected


def test_available_voltage_never_changes_after_the_first_frame() -> None:
    desk = Desk()
    desk.start()
    desk.until(Phase.HANDSHAKE)
    desk.run(0.3)
    desk.allowed = desk.allowed.__class__(450.0, 100.0, 100_000.0)
    desk.until(Phase.ENDED)
    assert [value for _, value in desk.seen(LIMITS, "available_v")] == [500]


def test_a_connector_is_never_offered_above_its_rating_and_a_maker_code_is_sent() -> None:
    desk = Desk(settings=Settings(max_voltage_v=450.0, maker=7))
    desk.start()
    desk.until(Phase.CHARGE)
    assert desk.seen(LIMITS, "available_v") == [(pytest.approx(0.1, abs=0.1), 450)]
    assert desk.seen(0x708, "maker")[-1][1] == 7


def test_a_fallen_supply_is_told_first_where_control_is_dynamic() -> None:
    desk = Desk(protocol=2, charge_seconds=10.0)
    desk.start()
    desk.until(Phase.CHARGE)
    desk.run(4.0)
    assert desk.ev.request_a > 50
    desk.allowed = desk.allowed.__class__(500.0, 40.0, 100_000.0)
    desk.run(0.5)
    assert desk.seen(LIMITS, "available_a")[-1][1] == 40
    assert desk.ev.request_a <= 39
    assert desk.station.phase is Phase.CHARGE
    desk.until(Phase.ENDED)
    assert not desk.ev.failed


def test_modules_that_give_less_than_promised_are_told_too() -> None:
    desk = Desk(protocol=2, charge_seconds=12.0)
    desk.start()
    desk.until(Phase.CHARGE)
    desk.run(3.0)
    desk.capable_a = 30.0
    desk.run(3.0)
    assert desk.seen(LIMITS, "available_a")[-1][1] == 30
    desk.until(Phase.ENDED)
    assert "current_deviation" not in desk.ev.faults


def test_a_fallen_supply_ends_the_charge_in_order_where_control_is_not_dynamic() -> None:
    desk = Desk(protocol=1, charge_seconds=20.0)
    desk.start()
    desk.until(Phase.CHARGE)
    desk.run(4.0)
    desk.allowed = desk.allowed.__class__(500.0, 20.0, 100_000.0)
    desk.until(Phase.ENDED)
    assert desk.seen(LIMITS, "available_a")[-1][1] != 20, "an announced current is never lowered for such a vehicle"
    assert "fell to 20 A" in next(iter([desk.station.text])) or not desk.ev.faults
    assert not desk.faults
    assert not desk.ev.faults


def test_modules_that_give_less_end_the_charge_in_order_where_control_is_not_dynamic() -> None:
    desk = Desk(protocol=1, charge_seconds=20.0)
    desk.start()
    desk.until(Phase.CHARGE)
    desk.run(4.0)
    desk.capable_a = 30.0
    desk.until(Phase.RAMP_DOWN)
    assert desk.station.text.startswith("the supply gives 30 A of ")
    desk.until(Phase.ENDED)
    assert desk.status.phase is Link.ENDED
    assert not desk.faults
    assert "current_deviation" not in desk.ev.faults


def test_the_request_is_followed_no_faster_than_a_vehicle_may_ask_and_never_above_the_announcement() -> None:
    desk = Desk()
    desk.start()
    desk.until(Phase.CHARGE)
    desk.ev._wish = lambda: 200  # type: ignore[method-assign]
    before = desk.station.target.current_a
    desk.run(1.0)
    assert desk.station.target.current_a <= before + 25.0 + 1.0
    desk.run(4.5)
    assert desk.station.target.current_a <= desk.station.announced_a <= 125


def test_an_excessive_request_may_end_the_charge() -> None:
    desk = Desk(settings=Settings(stop_on_excess_request=True))
    desk.start()
    desk.until(Phase.CHARGE)
    desk.ev._wish = lambda: 200  # type: ignore[method-assign]
    desk.until(Phase.ENDED)
    assert desk.status.phase is Link.FAILED


def test_remaining_time_counts_down_and_ends_the_charge() -> None:
    desk = Desk(charge_seconds=200.0)
    desk.start()
    desk.until(Phase.LOCK)
    original = desk.ev._vehicle_time
    desk.ev._vehicle_time = lambda: original() | {"max_time_min": 1}  # type: ignore[method-assign]
    desk.until(Phase.CHARGE)
    desk.run(20.0)
    tens = [value for _, value in desk.seen(STATUS, "remaining_10s")]
    assert tens[0] == 255
    assert 3 in tens or 4 in tens
    desk.until(Phase.RAMP_DOWN, seconds=60.0)
    assert desk.station.text == "the vehicle's time is over"


def test_the_threshold_voltage_ends_the_charge() -> None:
    desk = Desk(charge_seconds=60.0)
    desk.start()
    desk.until(Phase.CHARGE)
    desk.car.battery.soc = 100.0
    desk.car.battery.nominal_v = 400.0
    desk.until(Phase.RAMP_DOWN)
    assert "threshold voltage of 435 V" in desk.station.text


def test_discharge_needs_both_sides() -> None:
    desk = Desk(v2x=True, settings=Settings(v2x=False), charge_seconds=10.0)
    desk.start()
    desk.until(Phase.ENDED)
    assert desk.car.battery.energy_out_wh == 0.0
    assert not desk.seen(0x208, "available_input_a")


def test_discharge_is_told_as_255_minus_amperes_and_stops_at_the_lower_voltage() -> None:
    desk = Desk(v2x=True, charge_seconds=20.0)
    desk.start()
    desk.until(Phase.CHARGE)
    assert desk.run(20.0, lambda: desk.station.target.current_a <= -14.0)
    desk.run(0.3)
    assert desk.seen(0x208, "present_discharge_a")[-1][1] == 15
    assert desk.seen(STATUS, "present_a")[-1][1] == 0
    desk.car.battery.nominal_v = 250.0  # below the vehicle's 280 V
    desk.run(0.2)
    assert desk.station.target.current_a == 0.0


def test_no_discharge_without_leave_of_the_grid_side() -> None:
    desk = Desk(v2x=True, charge_seconds=8.0)
    desk.allowed = desk.allowed.__class__(500.0, 200.0, 100_000.0, 0.0)
    desk.start()
    desk.until(Phase.ENDED)
    assert desk.car.battery.energy_out_wh == 0.0


def test_the_station_asks_to_stop() -> None:
    desk = Desk(charge_seconds=60.0)
    desk.start()
    desk.until(Phase.CHARGE)
    desk.run(1.0)
    desk.session = desk.session.__class__("s1", active=True, stop=True)
    desk.run(0.02)
    assert desk.station.phase is Phase.RAMP_DOWN
    desk.until(Phase.ENDED)
    assert desk.status.phase is Link.ENDED
    assert desk.ev.text == "the station stops"
    assert not desk.faults


def test_a_second_session_begins_afresh() -> None:
    desk = Desk(charge_seconds=2.0)
    desk.start()
    desk.until(Phase.ENDED)
    desk.session = desk.session.__class__()
    desk.run(0.05)
    assert desk.station.phase is Phase.IDLE
    desk.session = desk.session.__class__("s2", active=True, start=True)
    desk.run(0.02)
    assert desk.station.phase is Phase.WAKE
    assert desk.station.session_id == "s2"
    assert desk.station.vehicle.good == 0
