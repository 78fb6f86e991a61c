"""Every way in which CHAdeMO goes wrong: what ends it, how fast, and that the plug is let go only when dead."""

from __future__ import annotations

from dataclasses import replace

import pytest
from desk import Desk, Phase
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_charger.chademo import frames
from robot_charger.common.faults import Code
from robot_charger.words.values import Link, Lock, Purpose

STATUS = 0x109


def charging(seconds: float = 4.0, **options: object) -> Desk:
    """A desk in the middle of a charge."""
    desk = Desk(charge_seconds=60.0, **options)  # type: ignore[arg-type]
    desk.start()
    desk.until(Phase.CHARGE)
    desk.run(seconds)
    assert desk.supply.current_a > 20.0 or seconds < 2.0
    return desk


def time_to_zero(desk: Desk) -> float:
    """Seconds until at most 5 A flow."""
    begun = desk.now_s
    assert desk.run(5.0, lambda: abs(desk.supply.current_a) <= 5.0)
    return desk.now_s - begun


# Before the charge.


def test_a_vehicle_that_never_speaks() -> None:
    desk = Desk()
    desk.mated = False
    desk.start()
    desk.until(Phase.ENDED)
    assert desk.status.error is Code.CHADEMO_TIMEOUT
    assert desk.phases[-1][0] == 0.0  # d1 was never felt
    assert not desk.seen(STATUS, "protocol"), "the station stayed silent"


def test_a_vehicle_that_gives_no_permission_within_8_s_of_d1() -> None:
    desk = Desk()
    desk.deaf = True  # it never hears the station and waits
    desk.start()
    desk.until(Phase.RAMP_DOWN)
    assert 7.99 < desk.d1_s < 8.1
    desk.until(Phase.ENDED)
    assert desk.status.error is Code.CHADEMO_TIMEOUT


def test_switch_k_before_the_first_frame() -> None:
    desk = Desk()
    desk.car.faults = {"can-silence"}
    desk.ev.k = True
    desk.ev._hello = lambda *_: None  # type: ignore[method-assign]
    desk.ev.schedule = lambda: []  # type: ignore[method-assign]
    desk.start()
    desk.until(Phase.ENDED)
    assert desk.faults == {Code.CHADEMO_WIRES}


@pytest.mark.parametrize(("k", "enabled"), [(True, False), (False, True)])
def test_wire_and_can_disagree(k: bool, enabled: bool) -> None:
    desk = Desk()
    desk.ev._hello = lambda *_: None  # type: ignore[method-assign]
    desk.start()
    desk.until(Phase.HANDSHAKE)
    desk.ev.k, desk.ev.enabled = k, enabled
    desk.until(Phase.RAMP_DOWN)
    assert desk.faults == {Code.CHADEMO_WIRES}
    assert 7.9 < desk.d1_s < 8.2, "recorded chargers lock while one of the two is still missing"


@pytest.mark.parametrize("missing_s", [0.6, 2.0, 5.0])
@pytest.mark.parametrize("first", ["k", "enabled"])
def test_the_other_permission_may_come_later(first: str, missing_s: float) -> None:
    desk = Desk()
    hello, desk.ev._hello = desk.ev._hello, lambda *_: None  # type: ignore[method-assign]
    desk.start()
    desk.until(Phase.HANDSHAKE)
    setattr(desk.ev, first, True)
    desk.run(missing_s)
    assert desk.station.phase is Phase.HANDSHAKE
    desk.ev._hello = hello  # type: ignore[method-assign]
    desk.ev.k = desk.ev.enabled = True
    desk.until(Phase.LOCK)
    assert not desk.faults


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        ((0x101, bytes(7)), "0x101"),
        ((0x100, frames.encode(0x100, {"max_battery_v": 20})), "20 V is impossible"),
        ((0x102, frames.encode(0x102, {"protocol": 5})), "protocol number 5"),
    ],
)
def test_refused_frames_are_not_called_silence(frame: tuple[int, bytes], why: str) -> None:
    desk = Desk()
    desk.ev.schedule = lambda: []  # type: ignore[method-assign]
    desk.start()
    desk.intruder = lambda count: [frame] if count % 10 == 0 else []
    desk.until(Phase.RAMP_DOWN)
    assert "refused" in desk.station.text and why in desk.station.text


def test_a_battery_for_another_voltage() -> None:
    desk = Desk(faults={"wrong-voltage"})
    desk.start()
    desk.until(Phase.ENDED)
    assert desk.status.error is Code.CHADEMO_INCOMPATIBLE
    assert "wants 600 V, the station has 500 V" in desk.status.text
    assert desk.seen(STATUS, "incompatible")[-1][1] == 1
    assert desk.ev.text == "the station calls the battery incompatible"
    assert not any(phase is Phase.LOCK for _, phase in desk.phases)


def test_a_vehicle_that_stops_before_the_charge() -> None:
    desk = Desk()
    original = desk.ev._vehicle_control
    desk.ev._vehicle_control = lambda: original() | {"stop_before_charge": 1}  # type: ignore[method-assign]
    desk.start()
    desk.until(Phase.ENDED)
    assert desk.status.phase is Link.ENDED
    assert not desk.faults


def test_a_lock_that_does_not_close() -> None:
    desk = Desk()
    desk.lock_works = False
    desk.start()
    desk.until(Phase.ENDED)
    assert desk.faults == {Code.CHADEMO_LOCK}
    assert desk.seen(STATUS, "malfunction")[-1][1] == 1
    assert not any(phase is Phase.INSULATION for _, phase in desk.phases)


def test_voltage_at_the_connector_before_the_insulation_test() -> None:
    desk = Desk()
    desk._run_supply = lambda: setattr(desk, "supply", replace(desk.supply, voltage_v=200.0))  # type: ignore[method-assign]
    desk.start()
    desk.until(Phase.RAMP_DOWN)
    assert desk.faults == {Code.CONTACTOR_WELDED}
    desk.run(15.0)
    assert desk.station.wires.lock, "a live plug stays locked"


def test_bad_insulation_is_no_permission_for_d2() -> None:
    desk = Desk()
    desk.insulation = "bad"
    desk.start()
    desk.until(Phase.ENDED)
    assert desk.status.phase is Link.FAILED
    assert not any(phase is Phase.CONTACTOR for _, phase in desk.phases)


def test_an_old_insulation_result_does_not_count() -> None:
    desk = Desk()
    desk._run_supply = lambda: None  # type: ignore[method-assign]
    desk.supply = replace(desk.supply, insulation_valid=True, insulation_permit=3)
    desk.start()
    desk.until(Phase.INSULATION)
    desk.session = replace(desk.session, test_permit=9)
    desk.run(5.0)
    assert desk.station.phase is Phase.INSULATION
    desk.until(Phase.RAMP_DOWN)
    assert desk.faults == {Code.CHADEMO_TIMEOUT}


def test_a_vehicle_that_does_not_close_its_contactor() -> None:
    desk = Desk()
    desk.car.close_contactor = lambda: False  # type: ignore[method-assign]
    desk.start()
    desk.until(Phase.ENDED)
    assert desk.faults == {Code.CHADEMO_TIMEOUT}
    assert "contactor not closed" in desk.status.text


def test_a_vehicle_that_asks_for_nothing() -> None:
    desk = Desk()
    desk.ev._wish = lambda: 0  # type: ignore[method-assign]
    desk.start()
    desk.until(Phase.ENDED)
    assert desk.faults == {Code.CHADEMO_TIMEOUT}
    assert "no request" in desk.status.text


def test_a_supply_that_does_not_come_to_the_batterys_voltage() -> None:
    desk = Desk()
    supply = desk._run_supply

    def never_ready() -> None:
        supply()
        if desk.station.target.purpose is Purpose.PRECHARGE:
            desk.supply = replace(desk.supply, precharged=False, contactors_closed=False)

    desk._run_supply = never_ready  # type: ignore[method-assign]
    desk.start()
    desk.until(Phase.ENDED)
    assert not any(phase is Phase.CHARGE for _, phase in desk.phases)
    assert desk.status.phase is Link.FAILED
    assert desk.status.error is Code.PRECHARGE
    assert desk.seen(STATUS, "malfunction")[-1][1] == 1
    assert desk.supply.current_a == 0.0


# In the middle of the charge.


def test_the_vehicles_silence_is_zero_current_within_1_2_s() -> None:
    desk = charging()
    last_s = desk.station.vehicle.control_ns / 1e9
    desk.ev.schedule = lambda: []  # type: ignore[method-assign]
    time_to_zero(desk)
    assert desk.now_s - last_s < 1.4  # the supply of this desk falls by 300 A/s
    assert desk.station.target.purpose is Purpose.NONE
    assert desk.faults == {Code.CHADEMO_SILENT}
    desk.until(Phase.ENDED)
    assert desk.status.lock is Lock.UNLOCKED


def test_switch_k_opens_without_a_word() -> None:
    desk = charging()
    desk.ev.k = False
    desk.ev._charging = lambda *_: None  # type: ignore[method-assign]
    desk.step()
    assert desk.station.phase is Phase.RAMP_DOWN
    assert time_to_zero(desk) < 0.5
    assert desk.station.text == "switch k opened"
    desk.run(0.1)
    assert desk.seen(STATUS, "stop_control")[-1][1] == 1


def test_can_says_stop_while_k_stays_closed() -> None:
    desk = charging()
    desk.ev.enabled = False
    assert desk.run(0.2, lambda: desk.station.phase is Phase.RAMP_DOWN)


@pytest.mark.parametrize("bit", [*frames.FAULT_BITS, "system_fault", "not_in_park"])
def test_fault_bits_of_the_vehicle(bit: str) -> None:
    desk = charging()
    original = desk.ev._vehicle_control
    desk.ev._vehicle_control = lambda: original() | {bit: 1}  # type: ignore[method-assign]
    assert desk.run(0.2, lambda: desk.station.phase is Phase.RAMP_DOWN)
    assert desk.faults == {Code.CHADEMO_VEHICLE_FAULT}
    assert bit.replace("_", " ").removeprefix("not ") in desk.station.text
    time_to_zero(desk)
    desk.until(Phase.ENDED)
    assert desk.status.phase is Link.FAILED
    assert desk.seen(STATUS, "system_malfunction")[-1][1] == 1


@pytest.mark.parametrize("fault", ["can-silence", "k-open", "vehicle-fault", "current-deviation"])
def test_every_fault_of_the_simulated_vehicle_ends_safely(fault: str) -> None:
    desk = Desk(charge_seconds=30.0, faults={fault})
    desk.start()
    desk.until(Phase.ENDED, seconds=60.0)
    assert desk.supply.current_a == pytest.approx(0.0, abs=0.5)
    assert desk.supply.voltage_v <= 10.0
    assert not desk.station.wires.lock


def test_the_plug_is_torn_out() -> None:
    desk = charging()
    desk.mated = False
    assert desk.run(0.05, lambda: desk.station.target.purpose is Purpose.NONE), "k is the first to go"
    time_to_zero(desk)
    desk.until(Phase.ENDED)
    assert desk.status.error is Code.VEHICLE_GONE
    assert desk.status.phase is Link.FAILED


def test_the_link_says_why_only_when_can_has_confirmed_switch_k() -> None:
    desk = charging()
    desk.ev.k = desk.ev.enabled = False
    desk.ev.request_a = 0
    desk.step()
    assert (desk.station.target.purpose, desk.status.phase) == (Purpose.NONE, Link.CHARGING)
    desk.run(0.15)
    assert desk.status.phase in (Link.STOPPING, Link.WELDING_CHECK)
    desk.until(Phase.ENDED)
    assert desk.status.phase is Link.ENDED


def test_switch_k_open_while_can_goes_on_is_a_fault_of_the_wires() -> None:
    desk = charging()
    desk.ev.k = False
    desk.ev._charging = desk.ev._stopping = lambda *_: None  # type: ignore[method-assign]
    assert time_to_zero(desk) < 0.5
    desk.until(Phase.ENDED)
    assert desk.status.error is Code.CHADEMO_WIRES


def test_a_faulted_supply() -> None:
    desk = charging()
    desk.supply = replace(desk.supply, faulted=True)
    desk.step()
    assert desk.station.phase is Phase.RAMP_DOWN
    desk.run(0.1)
    assert desk.seen(STATUS, "malfunction")[-1][1] == 1
    assert not desk.faults, "power has told its own fault"


def test_a_session_that_breaks_off() -> None:
    desk = charging()
    desk.session = replace(desk.session, active=False)
    desk.step()
    assert desk.station.phase is Phase.RAMP_DOWN


# At the end.


def test_a_welded_contactor_of_the_vehicle_keeps_the_plug_locked() -> None:
    desk = Desk(charge_seconds=2.0, faults={"contactor-weld"})
    desk.start()
    desk.until(Phase.RELEASE, seconds=40.0)
    desk.run(15.0)
    assert desk.station.phase is Phase.RELEASE
    assert desk.station.wires.lock
    assert desk.status.lock is Lock.LOCKED or desk.status.lock is Lock.FAULT
    assert desk.status.phase is Link.WELDING_CHECK, "neither ended nor failed: the arm must not pull"
    assert desk.faults


def test_a_lock_that_does_not_open() -> None:
    desk = Desk(charge_seconds=2.0)
    desk.start()
    desk.until(Phase.CHARGE)
    desk.unlock_works = False
    desk.until(Phase.RELEASE)
    desk.run(5.0)
    assert desk.faults == {Code.CHADEMO_LOCK}
    assert desk.status.lock is Lock.FAULT
    assert desk.station.phase is Phase.RELEASE
    desk.unlock_works = True
    desk.until(Phase.ENDED)


def test_a_fault_stays_until_the_session_is_over() -> None:
    desk = charging()
    desk.ev.faults.add("overvoltage")
    desk.until(Phase.ENDED)
    desk.run(5.0)
    assert desk.status.phase is Link.FAILED
    assert desk.status.error is Code.CHADEMO_VEHICLE_FAULT
    desk.session = replace(desk.session, session_id="", active=False)
    desk.run(0.05)
    assert desk.station.phase is Phase.IDLE
    assert not desk.faults


# Frames nobody should send.


@pytest.mark.parametrize(
    "frame",
    [
        (0x102, bytes(7)),
        (0x102, bytes(9)),
        (0x108, bytes(8)),
        (0x7FF, bytes(8)),
        (0x8000_0102, bytes(8)),
        (0x102, frames.encode(0x102, {"protocol": 9})),
        (0x102, frames.encode(0x102, {"protocol": 2, "enabled": 1, "target_v": 5, "request_a": 200})),
        (0x100, frames.encode(0x100, {"max_battery_v": 20})),
        (0x100, frames.encode(0x100, {"max_battery_v": 400, "min_battery_v": 450})),
    ],
)
def test_a_bad_frame_is_counted_and_moves_nothing(frame: tuple[int, bytes]) -> None:
    desk = charging()
    before, bad = desk.station.target, desk.station.vehicle.bad
    desk.intruder = lambda count: [frame] if count % SPACING == 0 else []
    desk.run(1.0)
    assert desk.station.vehicle.bad >= bad + 3
    assert desk.station.phase is Phase.CHARGE
    assert desk.station.target.current_a <= max(before.current_a, desk.ev.request_a) + 0.1


SPACING = 30


def test_limits_do_not_change_after_permission() -> None:
    desk = charging()
    desk.ev._vehicle_limits = lambda: {"max_battery_v": 800, "rate_reference": 100}  # type: ignore[method-assign]
    bad = desk.station.vehicle.bad
    desk.run(1.0)
    assert desk.station.vehicle.bad > bad
    assert desk.station.vehicle.get(0x100, "max_battery_v") == 435


def test_a_second_vehicle_on_the_bus_moves_no_current_and_ends_the_charge() -> None:
    desk = charging(1.0)
    other = frames.encode(0x102, {"protocol": 2, "target_v": 420, "request_a": 200, "enabled": 1, "soc": 50})
    request_a = desk.ev.request_a
    desk.intruder = lambda count: [(0x102, other)] if count % 10 == 7 else []
    desk.run(0.3)
    assert desk.station.target.current_a <= request_a + 25.0
    desk.until(Phase.RAMP_DOWN, seconds=3.0)
    assert desk.faults == {Code.CHADEMO_FRAME}


def test_replayed_frames_in_between_are_counted_and_move_nothing() -> None:
    desk = charging(1.0)
    replay = desk.ev.frame(0x102)
    before = desk.station.target.current_a
    desk.intruder = lambda count: [(0x102, replay)] if count % 10 == 3 else []  # 10 ms after the true one
    desk.run(0.5)
    assert desk.station.vehicle.early > 0
    assert desk.station.target.current_a <= max(before, desk.ev.request_a) + 0.1


@pytest.mark.parametrize("every", [4, 10, 22])
def test_a_vehicle_with_another_frame_period_charges(every: int) -> None:
    """Recorded: 24 frames a second (JLD505), one each 225 ms."""
    desk = Desk()
    desk.start()
    own = desk.ev.schedule
    desk.intruder = lambda count: [(n, desk.ev.frame(n)) for n in (0x100, 0x101, 0x102)] if count % every == 0 else []
    assert own is not None
    desk.until(Phase.CHARGE)
    desk.run(3.0)
    assert not desk.faults and desk.station.phase is Phase.CHARGE


def test_a_reader_that_slept_takes_the_frames_that_waited() -> None:
    desk = charging(1.0)
    desk.station._last_ns -= 400_000_000
    frame = desk.ev.frame(0x102)
    bad = desk.station.vehicle.bad
    desk.intruder = lambda count: [(0x102, frame)] * 3
    desk.step()
    desk.intruder = None
    assert desk.station.vehicle.bad <= bad + 1


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0x0FE, 0x10B), st.binary(max_size=8)), max_size=60), st.booleans())
def test_no_garbage_ever_makes_power_flow(noise: list[tuple[int, bytes]], k: bool) -> None:
    desk = Desk()
    desk.ev.schedule = lambda: []  # type: ignore[method-assign]
    desk.ev.k = k
    queue = list(noise)
    desk.intruder = lambda count: [queue.pop()] if queue else []
    desk.start()
    for _ in range(200):
        desk.step()
        assert desk.station.target.purpose is not Purpose.TRANSFER
        assert desk.peak_a == 0.0
