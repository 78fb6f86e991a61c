"""Each requirement of docs/safety-controller.md, at its limits: one cycle is 10 ms."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
from guard_rig import Rig, power_frame
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_charger import guard
from robot_charger.guard.frames import Request, decode_request
from robot_charger.guard.logic import LATCH, Bay, Pilot, Reason, Status

SOURCE = Path(guard.__file__).parent

# What changes; cycles until the contactors are open without and with 100 A; the reason; whether it latches.
STATION_STOPS = [
    ({"chain_a": False}, 1, 11, Reason.EMERGENCY_STOP, True),  # SC-1
    ({"chain_b": False}, 1, 11, Reason.EMERGENCY_STOP, True),
    ({"chain_a": False, "chain_b": False}, 1, 11, Reason.EMERGENCY_STOP, True),
    ({"fire": True}, 1, 11, Reason.FIRE, True),  # SC-2
    ({"door_open": True}, 1, 11, Reason.DOOR_OPEN, False),  # SC-4
    ({"mains_ok": False}, 4, 14, Reason.MAINS_LOST, False),  # SC-5
    ({"over_temperature": True}, 1, 11, Reason.OVER_TEMPERATURE, False),  # SC-6
]
TRIPS = [
    ({"voltage_dv": 11_001}, 2, 2, Reason.OVER_VOLTAGE),  # SC-7
    ({"voltage_dv": -101}, 2, 2, Reason.REVERSED),  # SC-8
    ({"current_da": 6_601}, 31, 31, Reason.OVER_CURRENT),  # SC-9: 200 ms, then 100 ms for power
    ({"current_da": -6_601}, 31, 31, Reason.OVER_CURRENT),
    ({"earth_ok": False}, 51, 61, Reason.EARTH_LOST),  # SC-15
]
BLOCKS = [
    ({"pilot": Pilot.B}, 21, 31, Reason.PILOT_LEFT),  # SC-18
    ({"pilot": Pilot.A}, 21, 31, Reason.PILOT_LEFT),
    ({"pilot": Pilot.E}, 21, 31, Reason.PILOT_LEFT),
    ({"pilot": Pilot.F}, 21, 31, Reason.PILOT_LEFT),
    ({"pilot": Pilot.UNKNOWN}, 21, 31, Reason.PILOT_LEFT),
    ({"occupied": False}, 21, 31, Reason.VEHICLE_MOVED),  # SC-19
    ({"immobilised": False}, 21, 31, Reason.VEHICLE_MOVED),
]
HARMLESS = [
    {"voltage_dv": 11_000},
    {"voltage_dv": -100},
    {"current_da": 6_600},
    {"current_da": -6_600},
    {"pilot": Pilot.D},
    {"reset": True},
    {"field_clear": False},
    {"arm_zone": 1},
]


def _row(row: Any) -> str:
    return "-".join(f"{k}={v}" for k, v in row[0].items()) if isinstance(row, tuple) else str(row)


@pytest.mark.parametrize("row", STATION_STOPS, ids=_row)
def test_the_station_stops(row: Any) -> None:
    change, idle, loaded, reason, latches = row
    for current_da, cycles in ((0, idle), (49, idle), (-49, idle), (50, loaded), (1000, loaded), (-1000, loaded)):
        rig = Rig(evses=(1, 2)).charging(current_da, evses=3).set(**change)
        assert rig.opens_after() == cycles
        out = rig.out
        assert (out.coils, out.inhibit, out.reason, out.latched) == (0, 3, reason, latches)
        assert out.released is False and out.d_allowed == 0
        assert out.pilot_f == (3 if latches else 0)  # SC-22
        undo = {k: not v for k, v in change.items()}
        rig.set(current_da=0, **undo).set(2, current_da=0).cycle(50)
        assert rig.out.latched == latches and rig.out.coils == 0
        assert rig.out.reason == reason, "the first reason stays until the reset"
        assert rig.out.released != latches
        rig.contactors = 0
        rig.cycle(2)
        rig.contactors = 3
        rig.cycle(2)
        assert rig.out.coils == (0 if latches else 3)


@pytest.mark.parametrize("row", TRIPS, ids=_row)
def test_a_trip_latches_one_evse(row: Any) -> None:
    change, idle, loaded, reason = row
    for current_da, cycles in ((0, idle), (1000, loaded)):
        rig = Rig(evses=(1, 2)).charging(current_da, evses=3).set(**change)
        assert rig.opens_after() == cycles
        assert (rig.out.coils, rig.out.tripped, rig.out.pilot_f, rig.out.d_allowed) == (2, 1, 1, 2)
        assert rig.out.inhibit == 1 and rig.out.reason == reason and rig.out.released and not rig.out.latched
        assert rig.guard.bay_bits[1] & Bay.TRIPPED and not rig.guard.bay_bits[2] & Bay.TRIPPED
        assert rig.guard.bay_bits[1] & Bay.INHIBITED and not rig.guard.bay_bits[2] & Bay.INHIBITED
        rig.set(voltage_dv=0, current_da=0, earth_ok=True)
        rig.contactors = 2
        rig.cycle(5)
        rig.contactors = 3
        rig.cycle(5)
        assert rig.out.coils == 2 and rig.out.tripped == 1
        rig.set(reset=True).cycle(2)
        assert rig.out.tripped == 0 and rig.out.reason == Reason.NONE and not rig.out.coils & 1
        rig.contactors = 2
        rig.cycle(2)
        rig.contactors = 3
        rig.cycle(2)
        assert rig.out.coils & 1, "a reset, and then a request that was seen off"


@pytest.mark.parametrize("row", TRIPS, ids=_row)
def test_a_trip_is_not_reset_while_its_cause_is_there(row: Any) -> None:
    change, *_ = row
    rig = Rig().charging(1000).set(**change)
    rig.opens_after()
    lasts = {k: v for k, v in change.items() if k in ("earth_ok", "current_da")} or {"voltage_dv": 11_001}
    rig.set(**{"current_da": 0, "voltage_dv": 0, **lasts}).cycle(60)
    rig.set(reset=True).cycle(3)
    assert rig.out.tripped == 1


@pytest.mark.parametrize("row", BLOCKS, ids=_row)
def test_a_block_opens_and_does_not_latch(row: Any) -> None:
    change, idle, loaded, reason = row
    for current_da, cycles in ((0, idle), (1000, loaded)):
        rig = Rig().charging(current_da)
        before = {k: getattr(rig.inputs.evses[1], k) for k in change}
        assert rig.set(**change).opens_after() == cycles
        assert (rig.out.reason, rig.out.tripped, rig.out.latched, rig.out.pilot_f) == (reason, 0, False, 0)
        assert rig.out.inhibit == 1 and rig.out.d_allowed == 1
        rig.set(current_da=0, **before).cycle(30)
        assert not rig.out.coils, "the request was never off"
        assert rig.out.inhibit == 0
        rig.contactors = 0
        rig.cycle()
        rig.contactors = 1
        rig.cycle()
        assert rig.out.coils == 1


@pytest.mark.parametrize("change", HARMLESS, ids=str)
def test_at_the_limit_nothing_happens(change: dict[str, Any]) -> None:
    rig = Rig().charging().set(**change)
    assert rig.opens_after(100) == -1 and not rig.out.reason


@pytest.mark.parametrize("row", [*TRIPS, *BLOCKS], ids=_row)
def test_a_glitch_one_cycle_shorter_than_the_time_is_nothing(row: Any) -> None:
    change, idle, *_ = row
    rig = Rig().charging()
    before = {k: getattr(rig.inputs.evses[1], k) for k in change}
    confirm = 21 if "current_da" in change else idle
    for _ in range(3):  # and glitches do not add up
        rig.set(**change).cycle(confirm - 1)
        rig.set(**before).cycle(1)
    assert rig.out.coils == 1 and not rig.out.reason


def test_a_mains_dip_of_20_ms_is_nothing() -> None:
    rig = Rig().charging().set(mains_ok=False)
    rig.cycle(3)
    assert rig.out.coils == 1
    rig.set(mains_ok=True).cycle(5)
    assert rig.out.coils == 1 and not rig.out.bits & Status.MAINS_LOST


# SC-3 heartbeat, SC-17 protection of its frame.
@pytest.mark.parametrize("current_da", [0, 1000])
def test_contactors_open_within_100_ms_of_the_last_heartbeat(current_da: int) -> None:
    rig = Rig().charging(current_da)
    rig.power_speaks = False
    assert rig.opens_after() == 9  # at 90 ms: more than 80 have passed
    assert rig.out.reason == Reason.HEARTBEAT_LOST and not rig.out.latched
    assert rig.out.inhibit == 1 and rig.out.pilot_f == 1 and rig.out.d_allowed == 0 and not rig.out.released
    assert rig.out.bits & Status.POWER_LOST and not rig.out.bits & Status.HEARS_POWER
    rig.power_speaks = True
    rig.cycle(10)
    assert not rig.out.coils and not rig.out.pilot_f, "it comes back, and must let go first"
    assert rig.out.bits & Status.HEARS_POWER and not rig.out.bits & Status.POWER_LOST


def test_before_the_first_heartbeat_all_is_off_and_no_pilot_is_forced() -> None:
    rig = Rig()
    rig.power_speaks = False
    out = rig.cycle(20)
    assert (out.coils, out.inhibit, out.pilot_f, out.d_allowed, out.released) == (0, 1, 0, 0, False)
    assert not out.bits & (Status.POWER_LOST | Status.HEARS_POWER)


def test_heartbeats_may_be_lost_for_80_ms() -> None:
    rig = Rig().charging()
    for _ in range(5):
        rig.power_speaks = False
        rig.cycle(7)
        rig.counter += 7
        rig.power_speaks = True
        rig.cycle(1)
    assert rig.out.coils == 1


@pytest.mark.parametrize("lag", [8, 9])
def test_a_late_frame_is_no_heartbeat(lag: int) -> None:
    rig = Rig().charging()
    rig.echo_lag = lag
    rig.cycle(30)
    assert bool(rig.out.coils) == (lag == 8)


def test_without_an_echo_nothing_closes() -> None:
    rig = Rig()
    rig.flags = 0
    rig.contactors = 0
    rig.cycle(3)
    rig.contactors = 1
    rig.cycle(20)
    assert not rig.out.coils and rig.out.bits & Status.HEARS_POWER
    rig = Rig().charging()
    rig.flags = 0
    assert rig.opens_after() == 1


def test_a_repeated_frame_is_no_heartbeat() -> None:
    rig = Rig().charging()
    rig.power_speaks = False
    frame = rig.frame
    for _ in range(9):
        assert not rig.guard.hear(frame, rig.ms)
        rig.cycle()
    assert not rig.out.coils


def test_a_second_sender_stops_the_station() -> None:
    rig = Rig().charging()
    other = 100
    opened = 0
    for _ in range(60):
        other = (other + 1) & 0xFF
        rig.guard.hear(power_frame(1, echo=rig.guard.counter, counter=other), rig.ms)
        rig.cycle()
        opened += not rig.out.coils
    assert opened > 40


@pytest.mark.parametrize("offset", [0, 1, 2, 3])
def test_a_second_sender_close_behind_stops_it_too(offset: int) -> None:
    rig = Rig().charging()
    for _ in range(60):
        counter = (rig.counter + offset) & 0xFF
        rig.guard.hear(power_frame(1, echo=rig.guard.counter, counter=counter), rig.ms)
        rig.cycle()
    assert not rig.out.coils


def test_a_frame_of_another_length_or_with_a_flipped_bit_counts_for_nothing() -> None:
    frame = power_frame(1, 2, 3, 4, monitors=5)
    into = Request()
    assert decode_request(frame, into)
    assert (into.contactors, into.links, into.echo, into.counter, into.monitors, into.state) == (1, 2, 3, 4, 5, 1)
    assert not decode_request(frame + b"\0", Request()) and not decode_request(frame[:-1], Request())
    for bit in range(8 * len(frame)):
        damaged = bytearray(frame)
        damaged[bit // 8] ^= 1 << bit % 8
        kept = Request(contactors=9)
        assert not decode_request(bytes(damaged), kept) and kept == Request(contactors=9)
    rig = Rig()
    assert not rig.guard.hear(frame[:-1], 0) and not rig.guard.hear(bytes(len(frame)), 0)


# SC-8, SC-16, SC-20: when a contactor may close.
@pytest.mark.parametrize(
    ("change", "closes"),
    [
        ({}, True),
        ({"voltage_dv": -100}, True),
        ({"voltage_dv": -101}, False),
        ({"positive_closed": True}, False),
        ({"negative_closed": True}, False),
        ({"voltage_dv": 4000}, True),
    ],
)
def test_contactors_close_only_from_open_poles_on_the_right_polarity(change: dict[str, Any], closes: bool) -> None:
    rig = Rig()
    rig.follows = False
    rig.cycle(2)
    rig.contactors = 1
    rig.set(**change).cycle()
    assert bool(rig.out.coils) == closes


def test_a_request_that_was_never_off_closes_nothing() -> None:
    rig = Rig()
    rig.contactors = 1
    rig.cycle(50)
    assert not rig.out.coils and not rig.out.inhibit
    rig.contactors = 0
    rig.cycle()
    rig.contactors = 1
    rig.cycle()
    assert rig.out.coils == 1
    rig.contactors = 0
    rig.cycle()
    assert rig.out.coils == 0 and not rig.out.reason


@pytest.mark.parametrize("pole", ["positive_closed", "negative_closed"])
def test_a_welded_pole_holds_the_modules_off_until_it_is_open(pole: str) -> None:
    rig = Rig().charging()
    rig.follows = False
    rig.set(**{"positive_closed": False, "negative_closed": False, pole: True})
    rig.contactors = 0
    rig.cycle(20)
    assert not rig.out.inhibit
    rig.cycle()
    assert rig.out.inhibit == 1 and not rig.out.tripped and rig.out.closed == 0
    rig.contactors = 1
    rig.cycle(5)
    assert not rig.out.coils
    rig.set(**{pole: False}).cycle(5)
    assert not rig.out.inhibit and not rig.out.coils


def test_poles_that_differ_open_both() -> None:
    rig = Rig().charging()
    rig.follows = False
    rig.set(negative_closed=False)
    assert rig.opens_after() == 21 and rig.out.reason == Reason.POLES_DIFFER
    rig = Rig().charging()
    rig.follows = False
    rig.set(positive_closed=False)
    assert rig.opens_after() == 21 and rig.out.reason == Reason.POLES_DIFFER


def test_poles_that_both_stay_closed_are_welded() -> None:
    rig = Rig().charging()
    rig.follows = False
    rig.contactors = 0
    rig.cycle(21)
    assert not rig.out.inhibit
    rig.cycle()
    assert rig.out.inhibit == 1 and rig.out.closed == 1 and rig.out.reason == Reason.NONE


@pytest.mark.parametrize(("current_da", "trips"), [(50, True), (-50, True), (49, False), (-49, False)])
def test_a_current_through_open_contactors_trips(current_da: int, trips: bool) -> None:  # SC-11
    rig = Rig()
    rig.cycle(3)
    rig.set(current_da=current_da).cycle(20)
    assert not rig.out.tripped
    rig.cycle()
    assert bool(rig.out.tripped) == trips and (not trips or rig.out.reason == Reason.STRAY_CURRENT)


@pytest.mark.parametrize("pole", ["positive_closed", "negative_closed"])
def test_a_current_through_a_welded_pole_is_no_stray_current(pole: str) -> None:
    rig = Rig()
    rig.follows = False
    rig.cycle(3)
    rig.set(current_da=100, **{pole: True}).cycle(40)
    assert not rig.out.tripped and rig.out.inhibit == 1


# SC-12, SC-14: latch and reset.
def test_a_restored_latch_holds_everything_until_a_person_resets_it() -> None:
    rig = Rig(latched=True)
    rig.cycle(5)
    assert rig.out.latched and rig.out.inhibit == 1 and rig.out.pilot_f == 1 and not rig.out.arm_enable
    rig.contactors = 1
    rig.set(reset=True).cycle(10)
    assert not rig.out.latched and not rig.out.coils, "a reset starts nothing"


@pytest.mark.parametrize("cause", [{"chain_a": False}, {"chain_b": False}, {"fire": True}])
def test_a_reset_is_in_vain_while_the_cause_is_there_and_needs_an_edge(cause: dict[str, bool]) -> None:
    rig = Rig().charging().set(**cause)
    rig.cycle(2)
    rig.set(reset=True).cycle(3)
    assert rig.out.latched
    rig.set(**{k: not v for k, v in cause.items()}).cycle(3)
    assert rig.out.latched, "the key was turned before: no edge"
    rig.set(reset=False).cycle(1)
    rig.set(reset=True).cycle(1)
    assert not rig.out.latched
    rig.cycle(1)
    assert not rig.out.bits & (Status.EMERGENCY_LATCHED | Status.EMERGENCY_STOP | Status.FIRE)


def test_a_key_that_is_held_at_power_up_resets_nothing() -> None:
    rig = Rig(latched=True).set(reset=True)
    rig.cycle(5)
    assert rig.out.latched


def test_a_reset_neither_closes_nor_opens_anything() -> None:
    rig = Rig(evses=(1, 2)).charging(1000, evses=1)
    rig.contactors = 3
    rig.set(2, pilot=Pilot.B).cycle(30)
    rig.set(2, pilot=Pilot.C).set(reset=True).cycle(5)
    assert rig.out.coils == 1


def test_channels_that_differ_are_a_fault_of_the_chain_after_half_a_second() -> None:
    for cycles, reason in ((51, Reason.EMERGENCY_STOP), (52, Reason.CHAIN_FAULT)):
        rig = Rig()
        rig.power_speaks = True
        rig.cycle(2)
        rig.guard.out.reason = Reason.NONE
        rig.set(chain_b=False).cycle(cycles - 1)
        rig.guard.out.reason = Reason.NONE  # of this cycle alone
        rig.cycle()
        assert rig.out.reason == reason
    rig = Rig().set(chain_a=False, chain_b=False)
    rig.cycle(100)
    assert rig.out.reason == Reason.EMERGENCY_STOP


# SC-24: the arm.
def arm(**values: Any) -> Rig:
    rig = Rig(evses=(1, 2)).set(arm_request=False)
    rig.cycle(2)
    rig.set(arm_request=True, **values).cycle(2)
    return rig


@pytest.mark.parametrize(
    ("values", "enabled"),
    [
        ({}, True),
        ({"arm_near": 1}, True),
        ({"arm_near": 1, "field_clear": False}, False),
        ({"arm_near": 2, "field_clear": False}, True),
        ({"arm_zone": 1, "arm_moving": True}, True),
        ({"arm_zone": 1, "arm_moving": True, "positive_closed": True}, False),
        ({"arm_zone": 1, "arm_moving": True, "negative_closed": True}, False),
        ({"arm_zone": 1, "arm_moving": True, "voltage_dv": 600}, False),
        ({"arm_zone": 1, "arm_moving": True, "voltage_dv": -600}, False),
        ({"arm_zone": 1, "arm_moving": True, "voltage_dv": 599}, True),
        ({"arm_zone": 1, "arm_moving": True, "voltage_dv": -599}, True),
        ({"arm_zone": 1, "arm_moving": True, "current_da": 50}, False),
        ({"arm_zone": 1, "arm_moving": True, "current_da": 49}, True),
        ({"arm_zone": 1, "arm_moving": False, "voltage_dv": 4000}, True),
        ({"arm_zone": 1, "arm_moving": True, "arm_passive": True, "voltage_dv": 4000}, True),
        ({"arm_zone": 2, "arm_moving": True, "voltage_dv": 4000}, True),
        ({"fire": True}, False),
        ({"chain_a": False}, False),
        ({"door_open": True}, True),
    ],
)
def test_the_arms_enable(values: dict[str, Any], enabled: bool) -> None:
    rig = Rig(evses=(1, 2)).set(arm_request=False)
    rig.follows = False
    rig.cycle(2)
    rig.set(arm_request=True, **values).cycle(2)
    assert rig.out.arm_enable is enabled
    assert bool(rig.out.bits & Status.ARM_ENABLED) is enabled


def test_mains_loss_takes_the_arms_enable() -> None:
    rig = arm(mains_ok=False)
    rig.cycle(5)
    assert not rig.out.arm_enable
    assert rig.out.bits & Status.MAINS_LOST


def test_after_a_breach_the_arm_needs_a_new_request() -> None:
    rig = arm(arm_near=1)
    assert rig.out.arm_enable
    rig.set(field_clear=False).cycle()
    assert not rig.out.arm_enable
    rig.set(arm_request=False).cycle(3)
    rig.set(arm_request=True).cycle(3)
    assert not rig.out.arm_enable, "a request that came while the field was open is none"
    rig.set(field_clear=True).cycle(3)
    assert not rig.out.arm_enable
    rig.set(arm_request=False).cycle()
    rig.set(arm_request=True).cycle()
    assert rig.out.arm_enable
    rig.set(arm_request=False).cycle()
    assert not rig.out.arm_enable


def test_a_reset_starts_no_arm() -> None:
    rig = arm()
    rig.set(reset=True).cycle(3)
    assert rig.out.arm_enable, "what runs in order goes on"
    rig.set(reset=False, chain_a=False).cycle()
    rig.set(chain_a=True, arm_request=False).cycle()
    rig.set(arm_request=True, reset=True).cycle(3)
    assert not rig.out.latched and not rig.out.arm_enable


def test_bay_two_is_judged_by_its_own_field() -> None:
    rig = arm(arm_near=2)
    assert rig.out.arm_enable
    rig.set(2, field_clear=False).cycle()
    assert not rig.out.arm_enable


# SC-10: contactors of a matrix or between groups.
def test_rivals_of_a_matrix_block_never_close_together() -> None:
    rig = Rig(evses=(1, 2), blocks=2)
    rig.links = 0b0111  # block 1 to both, block 2 to the first
    assert rig.cycle().links == 0b0101
    rig.links = 0b1010
    assert rig.cycle().links == 0b0000 and rig.cycle().links == 0b1010
    rig.links = 0b0101
    rig.cycle()
    rig.set(links_closed=0b1010)
    assert rig.cycle(3).links == 0b0000, "the rivals' contacts are still closed"
    rig.set(links_closed=0)
    assert rig.cycle().links == 0b0101
    rig.links = 0b1 << 4
    assert rig.cycle().links == 0, "there is no third block"


def test_a_matrix_contactor_that_reports_closed_by_itself_bars_its_rival() -> None:
    rig = Rig(evses=(1, 2), blocks=1).set(links_closed=0b10)
    rig.links = 0b01
    assert rig.cycle(3).links == 0


def test_series_and_parallel_never_close_together() -> None:
    rig = Rig(evses=(1, 2), switched=True)
    for wanted, got in ((0b001, 0b001), (0b110, 0b000), (0b110, 0b110), (0b111, 0b110), (0b001, 0b000), (0b001, 0b001)):
        rig.links = wanted << 3 | wanted
        assert rig.cycle().links == got << 3 | got


def test_without_the_heartbeat_links_stay() -> None:
    rig = Rig(evses=(1, 2), blocks=1)
    rig.links = 1
    rig.cycle(3)
    rig.power_speaks = False
    assert rig.cycle(50).links == 1
    rig.power_speaks = True
    rig.links = 0
    assert rig.cycle(3).links == 0


# What it tells.
def test_the_status_tells_the_terminals() -> None:
    rig = Rig(evses=(1, 2)).charging(evses=3)
    assert rig.out.closed == 3 and rig.guard.bay_bits[1] == 1 | 2 | 4 | 8 | 16 | 32
    rig.set(2, occupied=False).set(1, immobilised=False, field_clear=False).set(door_open=True, monitor_fault=True)
    rig.cycle()
    assert rig.guard.bay_bits[1] & 63 == 1 | 2 | 8 and rig.guard.bay_bits[2] & 63 == 1 | 2 | 16 | 32
    assert rig.out.bits & Status.DOOR_OPEN and rig.out.bits & Status.MONITOR_FAULT
    rig.set(over_temperature=True, fire=True, chain_a=False).cycle()
    assert rig.out.bits == int(
        Status.DOOR_OPEN | Status.MONITOR_FAULT | Status.OVER_TEMPERATURE | Status.FIRE | Status.EMERGENCY_STOP
        | Status.EMERGENCY_LATCHED | Status.HEARS_POWER
    )  # fmt: skip


def test_unfitted_sensors_forbid_nothing() -> None:
    rig = Rig(pilot_fitted=0, bay_fitted=0).set(pilot=Pilot.UNKNOWN, occupied=False, immobilised=False)
    rig.charging()


def test_the_second_evse_has_its_own_configuration() -> None:
    rig = Rig(evses=(1, 2), pilot_fitted=0b01, bay_fitted=0b01).set(2, pilot=Pilot.A, occupied=False)
    rig.charging(evses=3)


@pytest.mark.parametrize("start_ms", [0xFFFFFFFF - 700, 0xFFFFFFFF - 735, 0xFFFFFFFF - 640])
def test_time_wraps(start_ms: int) -> None:
    rig = Rig(start_ms=start_ms).charging(1000).set(earth_ok=False)
    assert rig.opens_after() == 61


def test_the_wait_for_power_begins_with_the_first_cause() -> None:
    rig = Rig().charging(1000).set(door_open=True)
    rig.cycle(6)
    rig.set(chain_a=False)
    assert rig.opens_after() == 5
    rig = Rig().charging(1000).set(door_open=True)
    rig.cycle(5)
    rig.contactors = 0
    assert rig.opens_after() == 1, "power has asked: no need to wait"
    rig = Rig().charging(1000).set(door_open=True)
    rig.cycle(5)
    rig.set(current_da=49)
    assert rig.opens_after() == 1


def test_contactors_never_close_while_a_cause_stands() -> None:
    rig = Rig().set(door_open=True)
    rig.cycle(3)
    rig.contactors = 1
    rig.set(current_da=1000).cycle(5)
    assert not rig.out.coils


# The invariants over any sequence of inputs.
BOOL = st.booleans()
VOLTS = st.sampled_from([0, 599, 600, 4000, 11_000, 11_001, -100, -101, -4000])
AMPERES = st.sampled_from([0, 49, 50, 1000, 6_600, 6_601, -49, -50, -6_601])
STEPS = st.fixed_dictionaries(
    {},
    optional={
        "chain_a": st.sampled_from([True, True, False]), "chain_b": st.sampled_from([True, True, False]), "reset": BOOL,
        "fire": st.sampled_from([False, False, True]), "door_open": BOOL, "mains_ok": BOOL, "over_temperature": BOOL,
        "arm_request": BOOL, "arm_moving": BOOL, "arm_passive": BOOL, "arm_near": st.integers(0, 1),
        "arm_zone": st.integers(0, 1), "voltage_dv": VOLTS, "current_da": AMPERES,
        "pilot": st.sampled_from(list(Pilot)), "earth_ok": BOOL, "occupied": BOOL, "immobilised": BOOL,
        "field_clear": BOOL, "negative_closed": BOOL,
    },
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(STEPS, BOOL, BOOL, st.sampled_from([1, 2, 9, 22])), max_size=25))
def test_the_invariants_hold_over_any_sequence(sequence: list[tuple[dict[str, Any], bool, bool, int]]) -> None:
    rig = Rig().charging()
    lost_ms, forced_ms, asked = 0, 0, True
    for change, speaks, asks, cycles in sequence:
        rig.set(**change)
        rig.power_speaks, rig.contactors = speaks, int(asks)
        for _ in range(cycles):
            before, i = rig.out.coils, rig.inputs.evses[1]
            shut = i.positive_closed or i.negative_closed
            rig.cycle()
            out = rig.out
            lost_ms = 0 if speaks else lost_ms + 10
            chain = rig.inputs.chain_a and rig.inputs.chain_b
            stop = not chain or rig.inputs.fire or rig.inputs.door_open
            forced_ms = forced_ms + 10 if stop else 0
            asked = asks if speaks else asked
            assert out.latched >= (not chain or rig.inputs.fire)
            assert not out.coils or asked, "only on request"
            assert not out.coils or lost_ms <= 80, "only with a heartbeat"
            assert not out.coils or forced_ms <= 110, "no longer than power needs"
            assert not out.coils or before or (not stop and not shut and i.voltage_dv >= -100), "closes on nothing odd"
            assert not (out.latched or out.tripped) or out.pilot_f == 1
            assert not (out.latched or out.tripped) or (out.coils or out.inhibit), "modules are off with the contactors"
            assert not out.arm_enable or (rig.inputs.arm_request and not out.latched)
            assert not out.arm_enable or not rig.inputs.arm_near or i.field_clear
            live_output = shut or abs(i.voltage_dv) >= 600 or abs(i.current_da) >= 50
            forbidden = rig.inputs.arm_zone and rig.inputs.arm_moving and not rig.inputs.arm_passive and live_output
            assert not (out.arm_enable and forbidden)
            assert not out.d_allowed or not (out.latched or out.tripped)


# What it is made of.
def test_it_imports_nothing_of_the_subsystems_and_stays_small() -> None:
    lines = 0
    for file in SOURCE.glob("*.py"):
        text = file.read_text()
        lines += len(text.splitlines())
        for node in ast.walk(ast.parse(text)):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            ours = [n for n in names if n.startswith("robot_charger")]
            assert all(n.startswith(("robot_charger.guard", "robot_charger.common")) for n in ours), ours
            assert not {"time", "threading", "rclpy"} & set(names)
    assert lines <= 600


def test_every_requirement_of_the_page_is_in_the_code() -> None:
    page = (SOURCE.parents[1] / "docs" / "safety-controller.md").read_text()
    code = "".join(file.read_text() for file in SOURCE.glob("*.py"))
    for number in range(1, 26):
        assert f"| SC-{number} |" in page, number
        assert f"SC-{number}" in code, number
    assert len(LATCH) == 5 and all(reason.name in page for reason in Reason)
