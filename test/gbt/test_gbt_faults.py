"""Every way in which GB/T 27930 goes wrong: what ends it, how fast, and that only a dead plug is let go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from gbt_desk import Desk, Link, Phase, charging, time_to_zero
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from robot_charger.common.faults import Code
from robot_charger.gbt import frames, transport
from robot_charger.gbt.frames import encode
from robot_charger.gbt.timing import LIMITS, Settings
from robot_charger.words.values import Lock, Purpose

Frame = tuple[int, bytes]


def ends(desk: Desk, seconds: float = 80.0) -> Desk:
    """Run to the end; nothing flows then and the plug is free."""
    desk.until(Phase.ENDED, seconds=seconds)
    assert desk.station.target.purpose is Purpose.NONE
    assert not desk.station.wires.auxiliary and not desk.station.wires.lock
    return desk


def failed(code: Code, **options: object) -> Desk:
    """A session that ends with this fault."""
    desk = Desk(**options)  # type: ignore[arg-type]
    desk.start()
    ends(desk)
    assert (desk.status.phase, desk.status.error) == (Link.FAILED, code), desk.station.text
    return desk


def without(name: str) -> Callable[[Frame], Frame | None]:
    """The vehicle's frames but these; of a long message its requests to send."""
    message = frames.MESSAGES[name]

    def keep(frame: Frame) -> Frame | None:
        pf, data = frame[0] >> 16 & 0xFF, frame[1]
        long = pf == transport.CM and data[0] == transport.RTS and data[6] == message.pf
        return None if pf == message.pf or long else frame

    return keep


def cem(desk: Desk) -> set[str]:
    """The time-outs that the charger told."""
    return {flag for _, name, values in desk.log if name == "CEM" for flag, value in values.items() if value == 1}


# Before the vehicle speaks.


def test_a_plug_that_is_not_all_in() -> None:
    desk = Desk()
    desk.plugged = False
    desk.start()
    ends(desk)
    assert desk.status.error is Code.GBT_WIRES and desk.raw == []


def test_a_lock_that_does_not_close() -> None:
    desk = Desk()
    desk.lock_works = False
    desk.start()
    ends(desk)
    assert desk.faults == {Code.GBT_LOCK} and desk.raw == []


def test_voltage_at_the_connector_before_the_insulation_test() -> None:
    desk = Desk()
    desk._run_supply = lambda: setattr(desk, "supply", replace(desk.supply, voltage_v=200.0))  # type: ignore[method-assign]
    desk.start()
    desk.until(Phase.RELEASE)
    assert desk.faults == {Code.CONTACTOR_WELDED}
    desk.run(15.0)
    assert desk.station.wires.lock, "a live plug stays locked"


def test_bad_insulation_is_the_end() -> None:
    desk = Desk()
    desk.insulation = "bad"
    desk.start()
    ends(desk)
    assert desk.status.phase is Link.FAILED and not desk.times("CRM")


def test_an_old_insulation_result_does_not_count() -> None:
    desk = Desk()
    desk._run_supply = lambda: None  # type: ignore[method-assign]
    desk.supply = replace(desk.supply, insulation_valid=True, insulation_permit=3)
    desk.start()
    desk.session = replace(desk.session, permit=3)
    desk.until(Phase.INSULATION)
    desk.session = replace(desk.session, permit=9)
    desk.run(5.0)
    assert desk.phase is Phase.INSULATION
    ends(desk)
    assert desk.status.error is Code.GBT_TIMEOUT


def test_a_battery_for_another_voltage() -> None:
    desk = failed(Code.GBT_INCOMPATIBLE, settings=Settings(min_voltage_v=500.0))
    assert "420 V are below the station's 500 V" in desk.station.text
    assert desk.tests == 0


# Time-outs of the handshake: CEM names them, three restarts, then the end.


@pytest.mark.parametrize(
    ("fault", "flag", "heard", "seconds"),
    [
        ("no-brm", "brm", "CRM", 5.0),
        ("no-bcp", "bcp", "CRM", 5.0),
        ("no-bro", "bro", "CML", 5.0),
    ],
)
def test_silence_in_the_handshake(fault: str, flag: str, heard: str, seconds: float) -> None:
    desk = failed(Code.GBT_TIMEOUT, faults={fault})
    tries = [at for at, phase in desk.phases if phase is Phase.RETRY]
    assert len(tries) == 4, "three restarts"
    waiting = {"brm": Phase.IDENTIFY, "bcp": Phase.CONFIRM, "bro": Phase.PARAMETERS}[flag]
    begun = next(at for at, phase in desk.phases if phase is waiting)
    assert tries[0] - begun == pytest.approx(seconds, abs=0.05)
    assert cem(desk) == {flag}
    told = [at for at in desk.times("CEM") if at < tries[0] + 5.5]
    assert told[-1] - told[0] == pytest.approx(5.0, abs=0.3), "CEM every 250 ms for 5 s"
    assert len(told) == pytest.approx(21, abs=1)
    assert desk.times(heard) and desk.peak_a == 0.0 and desk.tests == 1


def test_a_vehicle_that_answers_at_the_second_try() -> None:
    desk = Desk(faults={"no-bcp"}, charge_seconds=2.0)
    desk.start()
    desk.until(Phase.RETRY)
    desk.car.faults = set()
    desk.until(Phase.CHARGE)
    assert desk.tests == 1, "nothing was energised in between: the insulation result holds"
    ends(desk)
    assert desk.status.phase is Link.ENDED and not desk.faults
    assert desk.ev.result["restarts"] == 1


def test_a_vehicle_that_does_not_get_ready_within_60_s() -> None:
    desk = Desk(faults={"not-ready"}, settings=Settings(restarts=0))
    desk.ev._bear = lambda *_: None  # type: ignore[method-assign]
    desk.start()
    desk.until(Phase.PARAMETERS)
    begun = desk.now_s
    desk.until(Phase.RETRY, seconds=62.0)
    assert desk.now_s - begun == pytest.approx(60.0, abs=0.05)
    ends(desk)
    assert cem(desk) == {"bro"}


def test_a_vehicle_of_2011_may_take_20_s_to_name_itself() -> None:
    desk = Desk(edition=2011, faults={"no-brm"})
    desk.start()
    desk.until(Phase.IDENTIFY)
    begun = desk.now_s
    desk.until(Phase.RETRY)
    assert desk.now_s - begun == pytest.approx(20.0, abs=0.05)


def test_a_vehicle_that_is_ready_no_longer() -> None:
    desk = Desk(faults={"late-voltage"}, settings=Settings(restarts=0))
    desk.start()
    desk.until(Phase.COMPARE)
    desk.run(1.0)
    desk.ev._bro = lambda now_s: {"ready": 0}  # type: ignore[method-assign]
    desk.until(Phase.RETRY)
    assert desk.station.text == "the vehicle is no longer ready" and cem(desk) <= {"bro"}


def test_a_vehicle_that_reports_a_time_out_is_asked_again() -> None:
    desk = Desk(charge_seconds=2.0)
    desk.start()
    desk.until(Phase.PARAMETERS)
    desk.run(1.01)
    desk.deaf = True  # it hears nothing, so it complains: BEM
    desk.until(Phase.RETRY)
    assert desk.last("BEM")["cro"] == 1 or desk.last("BEM")["cts_cml"] == 1
    assert "the vehicle reports a time-out" in desk.station.text
    desk.deaf = False
    ends(desk)
    assert desk.status.phase is Link.ENDED and not desk.faults


# What the vehicle sends wrongly.


def test_a_bcp_of_wrong_length_is_none() -> None:
    desk = failed(Code.GBT_TIMEOUT, faults={"wrong-length"})
    assert cem(desk) == {"bcp"}
    assert desk.station.vehicle.bad > 0 and "BCP" in desk.station.vehicle.last_bad


def test_a_vehicle_that_breaks_off_its_long_messages() -> None:
    desk = failed(Code.GBT_TIMEOUT, faults={"transport-abort"})
    assert cem(desk) == {"brm"}
    assert "gave up its message 0x000200" in desk.station.vehicle.last_bad


@pytest.mark.parametrize(
    ("name", "values", "text"),
    [
        ("BHM", {"max_total_v": 6000.0}, "BHM with a highest voltage of 6000 V is impossible"),
        ("BHM", {"max_total_v": 10.0}, "BHM with a highest voltage of 10 V is impossible"),
        ("BCL", {"voltage_v": 400.0, "current_a": -20.0, "mode": 2}, "BCL with 400 V and -20 A is impossible"),
        ("BCL", {"voltage_v": 4000.0, "current_a": 20.0, "mode": 2}, "BCL with 4000 V and 20 A is impossible"),
    ],
)
def test_impossible_values_move_nothing(name: str, values: dict[str, float], text: str) -> None:
    desk = charging(2.0)
    before = desk.station.target
    desk.station.take(frames.MESSAGES[name].identifier, encode(name, values), desk.now_ns)
    assert desk.station.vehicle.last_bad == text
    desk.run(0.01)
    assert desk.station.target.current_a == pytest.approx(before.current_a, abs=1.0)


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("BHM", "max_total_v", 700.0),
        ("BCP", "max_total_v", 700.0),
        ("BCP", "max_a", 250.0),
        ("BCP", "max_cell_v", 5.0),
        ("BCP", "max_temperature_c", 90.0),
    ],
)
def test_limits_may_fall_and_never_rise_after_they_were_named(name: str, field: str, value: float) -> None:
    desk = charging(2.0)
    vehicle = desk.station.vehicle
    said = {"BHM": desk.ev._bhm, "BCP": desk.ev._bcp}[name](desk.now_s)
    before = vehicle.get(name, field)
    for told, expected in ((value, before), (before - 2.0, before - 2.0), (before, before - 2.0)):
        vehicle._message(frames.MESSAGES[name].pf, encode(name, {**said, field: told}), desk.now_ns)
        assert vehicle.get(name, field) == pytest.approx(expected)
    assert f"{name} raised {field}" in vehicle.last_bad


# The battery that is not the one that was named.


def test_a_battery_with_another_voltage_than_bcp_named() -> None:
    desk = failed(Code.GBT_INCOMPATIBLE, faults={"wrong-voltage"})
    assert "the vehicle named" in desk.station.text
    assert Purpose.PRECHARGE not in desk.purposes


def test_reversed_polarity() -> None:
    desk = failed(Code.GBT_INCOMPATIBLE, faults={"reversed-polarity"})
    assert "plus and minus are exchanged" in desk.station.text
    assert Purpose.PRECHARGE not in desk.purposes and desk.peak_a == 0.0


def test_a_vehicle_that_never_closes_its_contactors() -> None:
    desk = Desk(faults={"late-voltage"})
    desk.car.close_contactor = lambda: False  # type: ignore[method-assign]
    desk.start()
    desk.until(Phase.COMPARE)
    begun = desk.now_s
    desk.until(Phase.STOPPING, seconds=70.0)
    assert desk.now_s - begun == pytest.approx(60.0, abs=0.1)
    assert desk.faults == {Code.GBT_TIMEOUT} and Purpose.PRECHARGE not in desk.purposes
    ends(desk)


def test_a_supply_that_does_not_come_to_the_batterys_voltage() -> None:
    desk = Desk()
    desk.precharges = False
    desk.start()
    ends(desk)
    assert desk.status.error is Code.PRECHARGE and desk.peak_a == 0.0


# Before the first request.


def test_no_first_bcl_within_the_time_that_is_a_parameter() -> None:
    desk = Desk(settings=Settings(first_bcl_s=1.0, restarts=0))
    desk.filter = without("BCL")
    desk.start()
    desk.until(Phase.READY)
    begun = desk.now_s
    desk.until(Phase.RETRY)
    assert desk.now_s - begun == pytest.approx(1.0, abs=0.05)
    ends(desk)
    assert cem(desk) == {"bcl"} and desk.peak_a == 0.0


def test_no_first_bcs() -> None:
    desk = Desk(settings=Settings(restarts=0))
    desk.filter = without("BCS")
    desk.start()
    desk.until(Phase.READY)
    begun = desk.now_s
    desk.until(Phase.RETRY)
    assert desk.now_s - begun == pytest.approx(5.0, abs=0.05)
    ends(desk)
    assert cem(desk) == {"bcs"} and desk.peak_a == 0.0


# In the charge.


def test_one_second_without_bcl_is_zero_current() -> None:
    desk = charging()
    desk.filter = without("BCL")
    last_ns = desk.station.vehicle.arrived_ns["BCL"]
    desk.until(Phase.RETRY)
    assert (desk.now_ns - last_ns) / 1e9 == pytest.approx(1.0, abs=0.07)
    assert desk.station.target.purpose is Purpose.NONE
    assert time_to_zero(desk) < 0.5
    assert cem(desk) <= {"bcl"} and desk.status.phase is Link.PARAMETERS


def test_five_seconds_without_bcs_is_zero_current() -> None:
    desk = charging()
    last_ns = desk.station.vehicle.arrived_ns["BCS"]
    desk.filter = without("BCS")
    desk.until(Phase.RETRY)
    assert (desk.now_ns - last_ns) / 1e9 == pytest.approx(5.0, abs=0.3)
    assert desk.station.target.purpose is Purpose.NONE


def test_after_a_silence_in_the_charge_the_insulation_is_tested_again() -> None:
    desk = charging()
    desk.filter = without("BCL")
    desk.until(Phase.RETRY)
    desk.filter = lambda frame: frame
    desk.until(Phase.CHARGE)
    assert desk.tests == 2 and not desk.faults
    desk.run(4.0)
    assert desk.supply.current_a > 20.0
    assert desk.ev.result["restarts"] == 1


def test_a_vehicle_that_fails_again_and_again_is_given_up() -> None:
    desk = charging()
    desk.car.options = replace(desk.car.options, charge_seconds=3600.0)
    desk.filter = without("BCL")
    ends(desk, 120.0)
    assert desk.status.error is Code.GBT_SILENT
    assert sum(phase is Phase.RETRY for _, phase in desk.phases) == 4


def test_no_restart_in_the_charge_where_the_station_does_not_want_it() -> None:
    desk = charging(settings=Settings(restart_in_charge=False))
    desk.filter = without("BCL")
    desk.until(Phase.RETRY)
    assert desk.faults == {Code.GBT_SILENT} and desk.status.phase is Link.STOPPING
    ends(desk)
    assert desk.status.phase is Link.FAILED and sum(phase is Phase.RETRY for _, phase in desk.phases) == 1


def test_the_plug_comes_out_under_current() -> None:
    desk = charging()
    desk.mated = False
    desk.run(0.01)
    assert desk.station.target.purpose is Purpose.NONE, "in the same cycle"
    assert desk.faults == {Code.VEHICLE_GONE}
    ends(desk)
    assert desk.status.phase is Link.FAILED


def test_the_latch_opens_under_current() -> None:
    desk = charging(2.5, faults={"latch-open"})
    assert desk.run(5.0, lambda: desk.station.target.purpose is Purpose.NONE)
    assert desk.faults == {Code.VEHICLE_GONE} and "CC1 left 4 V" in desk.station.text
    desk.run(0.3)
    assert desk.station.wires.lock, "locked until the connector is dead"
    ends(desk)


def test_the_lock_opens_under_current() -> None:
    desk = charging()
    desk.lock_works = desk.locked = False
    desk.run(0.01)
    assert desk.station.target.purpose is Purpose.NONE and desk.faults == {Code.GBT_LOCK}
    assert desk.last("CST")["fault"] == 1 and desk.last("CST")["connector_fault"] == 1


@pytest.mark.parametrize("field", ["overcurrent", "overtemperature", "insulation", "connector", "cell_voltage"])
def test_what_the_vehicle_reports_in_bsm_stops_the_charge(field: str) -> None:
    desk = charging()
    said = desk.ev._bsm
    desk.ev._bsm = lambda now_s: {**said(now_s), field: 1}  # type: ignore[method-assign]
    desk.until(Phase.STOPPING, seconds=1.0)
    assert desk.faults == {Code.GBT_VEHICLE_FAULT} and field.split("_")[0] in desk.station.text
    assert desk.last("CST")["fault"] == 1
    ends(desk)
    assert desk.times("CSD"), "the vehicle still talks: statistics are exchanged"


@pytest.mark.parametrize("field", ["overcurrent", "cell_voltage", "soc"])
def test_what_is_low_or_not_trustworthy_stops_nothing(field: str) -> None:
    desk = charging()
    said = desk.ev._bsm
    desk.ev._bsm = lambda now_s: {**said(now_s), field: 2}  # type: ignore[method-assign]
    desk.run(2.0)
    assert desk.phase is Phase.CHARGE and not desk.faults


def test_a_full_battery_in_bsm_is_an_orderly_end() -> None:
    desk = charging()
    said = desk.ev._bsm
    desk.ev._bsm = lambda now_s: {**said(now_s), "soc": 1}  # type: ignore[method-assign]
    desk.until(Phase.STOPPING, seconds=1.0)
    assert not desk.faults and desk.last("CST")["condition_reached"] == 1


def test_a_cell_above_its_limit() -> None:
    desk = charging(2.5, faults={"cell-overvoltage"})
    desk.until(Phase.STOPPING, seconds=4.0)
    assert desk.faults == {Code.GBT_VEHICLE_FAULT} and "are allowed" in desk.station.text


def test_a_battery_hotter_than_its_limit() -> None:
    desk = charging()
    said = desk.ev._bsm
    desk.ev._bsm = lambda now_s: {**said(now_s), "max_temperature_c": 61}  # type: ignore[method-assign]
    desk.until(Phase.STOPPING, seconds=3.0)
    assert "61 degC, 60 degC are allowed" in desk.station.text


def test_a_vehicle_that_stops_for_a_fault() -> None:
    desk = charging()
    desk.intruder = lambda count: [(0x101956F4, encode("BST", {"battery_hot": 1}))]
    desk.until(Phase.STOPPING)
    assert desk.faults == {Code.GBT_VEHICLE_FAULT} and desk.station.text == "the vehicle stopped: battery hot"


def test_the_supplys_own_fault() -> None:
    desk = charging()
    desk.supply = replace(desk.supply, faulted=True)
    desk.until(Phase.STOPPING, seconds=0.1)
    assert desk.last("CST")["no_energy"] == 1 and desk.status.error is Code.NONE
    ends(desk)
    assert desk.status.phase is Link.FAILED


def test_an_emergency_of_the_station() -> None:
    desk = charging()
    desk.session = replace(desk.session, broken=True)
    desk.run(0.01)
    assert desk.station.target.purpose is Purpose.NONE and desk.last("CST")["fault"] == 1
    ends(desk)


def test_two_vehicles_on_one_bus() -> None:
    desk = charging()
    desk.intruder = lambda count: [(0x181056F4, encode("BCL", {"voltage_v": 400.0, "current_a": 10.0, "mode": 2}))]
    desk.until(Phase.STOPPING, seconds=2.0)
    assert desk.faults == {Code.GBT_FRAME}


# At the end.


def test_no_bst_from_a_vehicle_that_was_stopped() -> None:
    desk = charging(faults={"no-bst"})
    desk.filter = without("BSD")
    desk.session = replace(desk.session, stop=True)
    desk.until(Phase.STOPPING)
    begun = desk.now_s
    desk.until(Phase.RETRY)
    assert desk.now_s - begun == pytest.approx(5.0, abs=0.05)
    ends(desk)
    assert cem(desk) == {"bst"} and desk.status.error is Code.GBT_SILENT
    assert sum(phase is Phase.RETRY for _, phase in desk.phases) == 1, "no restart after it"


def test_no_bsd_from_a_vehicle_that_stopped() -> None:
    desk = charging(faults={"no-bsd"})
    desk.car.options = replace(desk.car.options, charge_seconds=1.0)
    desk.until(Phase.STOPPING)
    begun = desk.now_s
    desk.until(Phase.RETRY)
    assert desk.now_s - begun == pytest.approx(10.0, abs=0.1)
    ends(desk)
    assert cem(desk) == {"bsd"} and desk.status.error is Code.GBT_SILENT


def test_a_welded_contactor_of_the_vehicle_keeps_the_plug_locked() -> None:
    desk = charging(faults={"contactor-weld"})
    desk.session = replace(desk.session, stop=True)
    desk.until(Phase.RELEASE)
    desk.run(12.0)
    assert desk.phase is Phase.RELEASE and desk.station.wires.lock
    assert desk.status.lock is Lock.FAULT and desk.faults == {Code.GBT_LOCK}
    assert desk.status.phase is Link.WELDING_CHECK, "the arm does not pull"
    desk.car.faults = set()
    ends(desk)


def test_a_lock_that_does_not_open() -> None:
    desk = charging()
    desk.unlock_works = False
    desk.session = replace(desk.session, stop=True)
    desk.until(Phase.RELEASE)
    desk.run(5.0)
    assert desk.phase is Phase.RELEASE and desk.faults == {Code.GBT_LOCK}
    desk.unlock_works = True
    ends(desk)


def test_a_supply_that_fell_silent_keeps_the_plug_locked() -> None:
    desk = charging()
    desk._run_supply = lambda: setattr(desk, "supply", replace(desk.supply, alive=False))  # type: ignore[method-assign]
    desk.session = replace(desk.session, broken=True)
    desk.run(40.0)
    assert desk.phase is Phase.RELEASE and desk.station.wires.lock and not desk.station.wires.auxiliary


# Of every kind.

SILENCES = st.sampled_from(["BHM", "BRM", "BCP", "BRO", "BCL", "BCS", "BSM", "BST", "BSD"])


@hypothesis_settings(max_examples=40, deadline=None)
@given(SILENCES, st.floats(0.0, 12.0), st.floats(0.0, 12.0))
def test_a_silence_of_any_message_at_any_time_ends_in_order(name: str, begins_s: float, lasts_s: float) -> None:
    """The session goes on or ends; the current is never older than the requests, and the plug is free at the end."""
    desk = Desk(charge_seconds=4.0)
    silent = without(name)
    desk.filter = lambda frame: silent(frame) if begins_s <= desk.on_s < begins_s + lasts_s else frame
    desk.start()

    def watched() -> bool:
        bcl_ns = desk.station.vehicle.arrived_ns.get("BCL", 0)
        if desk.station.target.current_a > 2.0:
            assert (desk.now_ns - bcl_ns) / 1e9 <= LIMITS["bcl"][0] + 0.02
        return desk.phase is Phase.ENDED

    assert desk.run(200.0, watched), desk.station.text
    assert not desk.station.wires.lock and desk.supply.current_a <= 5.0
