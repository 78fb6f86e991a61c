"""The whole control cycle in injected time: sessions, and every way out of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from power_desk import Desk, charged

from robot_charger.common.clock import MILLISECOND
from robot_charger.common.faults import Code
from robot_charger.power.messages import Reporter
from robot_charger.power.output import Mode
from robot_charger.sim.rack import model
from robot_charger.words.values import Insulation, Pilot, Purpose


def test_a_session_in_order_with_its_energies() -> None:
    desk = charged(100.0)
    assert desk.output.modules_active == 21 and desk.output.insulation == Insulation.VALID
    desk.run(2.0)
    desk.allow(Purpose.NONE)
    desk.run(lambda: desk.output.mode == Mode.DISCHARGE)
    desk.network.vehicle.contactor = False
    desk.run(lambda: desk.output.mode == Mode.OFF)
    assert desk.output.voltage_v < 60.0 and not desk.output.contactors_closed
    start = [Mode.OFF, Mode.INSULATION_TEST, Mode.OFF, Mode.PRECHARGE, Mode.TRANSFER]
    assert desk.modes == [*start, Mode.RAMP_DOWN, Mode.DISCHARGE, Mode.OFF]
    assert desk.network.import_wh == pytest.approx(100 * 365 * 3.0 / 3600, rel=0.3)
    assert desk.network.module_wh == pytest.approx(desk.network.import_wh, rel=0.01)
    assert not desk.codes


def test_contactors_never_move_under_load_and_open_in_order() -> None:
    desk = charged(150.0)
    desk.allow(Purpose.NONE)
    desk.run(lambda: desk.output.mode == Mode.DISCHARGE)
    changes = [
        (before, after)
        for before, after in zip(desk.history, desk.history[1:], strict=False)
        if before.contactors_requested != after.contactors_requested
    ]
    assert [after.contactors_requested for _, after in changes] == [True, False, True, False]
    for before, after in changes:
        assert abs(after.current_a) < 5.0 and after.setpoint_a == 0.0 and before.setpoint_a == 0.0
        if after.contactors_requested:
            assert abs(after.voltage_v - after.bank_voltage_v) < 20.0


def test_the_normal_stop_falls_at_the_rate_of_the_parameter_and_no_slower_than_100_a_per_s() -> None:
    desk = charged(200.0)
    desk.allow(Purpose.NONE)
    taken = desk.run(lambda: desk.output.setpoint_a == 0.0)
    assert 0.9 < taken < 1.1  # 200 A at 200 A/s


def lapse(desk: Desk) -> None:
    desk.supervisor_speaks = False


def target_dies(desk: Desk) -> None:
    desk.protocol_speaks = False


def vehicle_silent(desk: Desk) -> None:
    desk.vehicle_silent_ns = desk.now_ns


def pilot_b(desk: Desk) -> None:
    desk.pilots[1] = Pilot.B


def emergency_stop(desk: Desk) -> None:
    desk.safety.fault("emergency-stop", True)


def door(desk: Desk) -> None:
    desk.safety.fault("door", True)


def safety_silent(desk: Desk) -> None:
    desk.safety.fault("silent", True)


def isolation(desk: Desk) -> None:
    desk.safety.fault("isolation-charging", True)


def bus_off(desk: Desk) -> None:
    desk.rack.fault("bus-off", True)


def emergency_permit(desk: Desk) -> None:
    desk.allow(Purpose.NONE)
    desk.permits[1]["abrupt"] = True


def vehicle_overvoltage(desk: Desk) -> None:
    desk.network.vehicle.emf_v = 440.0


def emergency_overvoltage(desk: Desk) -> None:
    desk.network.vehicle.emf_v = 560.0


def feedback_lost(desk: Desk) -> None:
    desk.safety.fault("feedback-stuck", True)


STOPS = [
    (lapse, Code.PERMIT_LAPSED, 0.32),
    (target_dies, Code.NODE_LOST, 0.32),
    (vehicle_silent, Code.V2G_SILENT, 1.02),
    (pilot_b, Code.PILOT_LOST, 0.02),
    (emergency_stop, Code.EMERGENCY_STOP, 0.02),
    (door, Code.DOOR, 0.02),
    (safety_silent, Code.SAFETY_LOST, 0.12),
    (isolation, Code.INSULATION_CHARGING, 0.9),
    (bus_off, Code.POWER_BUS, 0.32),
    (emergency_permit, None, 0.02),
    (vehicle_overvoltage, Code.OVERVOLTAGE, 0.08),
    (emergency_overvoltage, Code.OVERVOLTAGE, 0.03),
    (feedback_lost, Code.CONTACTOR_FEEDBACK, 0.03),
]


@pytest.mark.parametrize(("cause", "code", "within_s"), STOPS, ids=[s[0].__name__ for s in STOPS])
def test_every_cause_takes_the_set_point_to_zero_and_opens_the_contactors(
    cause: Callable[[Desk], None], code: Code | None, within_s: float
) -> None:
    desk = charged(200.0)
    cause(desk)
    taken = desk.run(lambda: desk.output.setpoint_a == 0.0)
    assert taken <= within_s + 0.011
    desk.run(lambda: not desk.safety.circuits[1].closed, 1.0)
    desk.run(0.2)
    assert abs(desk.network.current_a) < 1.0
    assert not desk.output.contactors_requested
    assert (code is None and not desk.codes) or code in desk.codes


@pytest.mark.parametrize("cause", [lapse, pilot_b, vehicle_silent], ids=lambda c: c.__name__)
def test_nothing_resumes_by_itself(cause: Callable[[Desk], None]) -> None:
    desk = charged(100.0)
    cause(desk)
    desk.run(lambda: desk.output.mode == Mode.FAULT)
    desk.supervisor_speaks, desk.vehicle_silent_ns, desk.pilots[1] = True, None, Pilot.C
    desk.run(2.0)
    assert desk.output.mode == Mode.FAULT and not desk.output.contactors_requested
    desk.allow(Purpose.NONE)
    desk.network.vehicle.contactor = False
    desk.run(lambda: desk.output.mode == Mode.OFF)
    ended = {int(r.code) for _, r in desk.faults if not r.active}
    assert ended == desk.codes


def test_a_pause_of_power_itself_discards_the_permit_until_a_higher_number() -> None:
    desk = charged(100.0)
    desk.now_ns += 150 * MILLISECOND
    desk.run(0.1)
    assert desk.output.setpoint_a == 0.0 and desk.control.pauses == 1
    desk.run(1.0)
    assert desk.output.mode != Mode.TRANSFER
    desk.number += 1
    desk.permits[1]["number"] = desk.number
    desk.run(lambda: desk.output.mode == Mode.TRANSFER)


def test_power_killed_modules_zero_in_60_ms_and_contactors_open_in_100() -> None:
    desk = charged(200.0)
    desk.power_runs = False
    assert desk.run(lambda: abs(desk.network.current_a) < 5.0) <= 0.09
    desk = charged(200.0)
    desk.power_runs = False
    assert desk.run(lambda: not desk.safety.circuits[1].closed) <= 0.12


def test_a_dead_module_is_replaced_and_the_vehicle_hardly_sees_it() -> None:
    desk = charged(200.0)
    desk.rack.fault("module-dead", True)  # the first that runs
    running = desk.output.modules_active
    seen = []
    for _ in range(50):
        desk.cycle()
        seen.append(desk.network.current_a)
    dips = [i for i, amperes in enumerate(seen) if amperes < 199.0]
    assert min(seen) > 0.95 * 200.0
    assert max(dips) <= 8  # 50 ms to miss it, then a cycle and the module's own lag
    assert desk.output.modules_active in (running - 1, running) and desk.output.mode == Mode.TRANSFER
    assert desk.codes == {Code.MODULE_LOST}
    desk.rack.fault("module-dead", False)
    desk.run(lambda: any(r.code == Code.MODULE_LOST and not r.active for _, r in desk.faults))


def test_without_a_module_left_it_stops() -> None:
    desk = charged(10.0, modules=2)
    desk.rack.fault("module-dead", True, 1)
    desk.rack.fault("over-temperature", True, 2)
    desk.run(lambda: not desk.safety.circuits[1].closed)
    assert Code.NO_MODULES in desk.codes


@pytest.mark.parametrize(
    ("name", "result", "code"),
    [
        ("isolation", Insulation.FAULT, Code.INSULATION),
        ("self-test", Insulation.SELF_TEST_FAILED, Code.INSULATION_SELF_TEST),
    ],
)
def test_cable_check_that_fails(name: str, result: Insulation, code: Code) -> None:
    desk = Desk()
    desk.safety.fault(name, True)
    desk.check_cable()
    assert desk.output.insulation == result and desk.codes == {code}
    desk.allow(Purpose.PRECHARGE, voltage_v=360.0)
    desk.run(1.0)
    assert not any(s.mode == Mode.PRECHARGE for s in desk.history)


def test_cable_check_at_the_voltage_of_the_standard_and_never_above_2_a() -> None:
    desk = Desk()
    desk.check_cable()
    assert max(s.setpoint_v for s in desk.history) == 470.0  # 420 V + 50 V
    assert max(s.setpoint_a for s in desk.history) <= 2.0
    assert desk.output.insulation_permit_number == desk.number
    assert desk.output.voltage_v < 60.0 and not desk.output.contactors_closed
    test = desk.modes.count(Mode.INSULATION_TEST)
    desk.run(2.0)  # the same permit does not test again
    assert desk.modes.count(Mode.INSULATION_TEST) == test == 1


def test_a_welded_contactor_is_found_and_told() -> None:
    desk = charged(50.0)
    desk.safety.fault("weld", True)
    desk.allow(Purpose.NONE)
    desk.run(lambda: desk.output.mode == Mode.FAULT)
    assert desk.output.contactor_welded and Code.CONTACTOR_WELDED in desk.codes
    desk.allow(Purpose.PRECHARGE, voltage_v=360.0)
    desk.run(1.0)
    assert desk.output.mode == Mode.FAULT


def test_no_precharge_without_a_passed_test_of_this_session() -> None:
    desk = Desk()
    desk.allow(Purpose.PRECHARGE, voltage_v=360.0)
    desk.run(1.0)
    assert desk.modes == [Mode.OFF]
    desk.check_cable()
    desk.allow(Purpose.PRECHARGE, voltage_v=360.0)
    desk.permits[1]["session_id"] = desk.targets[1]["session_id"] = "another"
    desk.run(1.0)
    assert Mode.PRECHARGE not in desk.modes and desk.output.insulation == Insulation.UNKNOWN


def test_transfer_waits_for_both_sides_and_a_target_of_another_session_counts_for_nothing() -> None:
    desk = Desk()
    desk.precharge()
    desk.network.vehicle.contactor = True
    desk.targets[1] = {"purpose": Purpose.TRANSFER, "voltage_v": 410.0, "current_a": 100.0}
    desk.run(0.5)
    assert desk.output.mode == Mode.PRECHARGE and desk.output.setpoint_a <= 2.0
    desk.allow(Purpose.TRANSFER, voltage_v=410.0, current_a=100.0)
    desk.run(lambda: desk.output.current_a > 90.0)
    desk.targets[1]["session_id"] = "another"
    desk.run(0.05)
    assert desk.output.setpoint_a == 0.0


def test_the_cable_bounds_every_permit() -> None:
    desk = charged(80.0, cable_max_current_a=[80.0])
    desk.targets[1]["current_a"] = 300.0
    desk.run(2.0)
    assert desk.network.peak_a < 81.0 and desk.output.current_limited


def test_two_evses_are_served_and_stopped_apart() -> None:
    desk = Desk(evses=(1, 2))
    desk.charge(100.0, 1)
    desk.charge(50.0, 2)
    desk.run(1.0)
    first, second = desk.rack.networks[1], desk.rack.networks[2]
    assert first.current_a == pytest.approx(100.0, rel=0.02) and second.current_a == pytest.approx(50.0, rel=0.02)
    assert desk.output.modules_active == 21
    desk.pilots[1] = Pilot.B
    desk.run(lambda: not desk.safety.circuits[1].closed)
    assert second.current_a == pytest.approx(50.0, rel=0.02)


def test_an_emergency_stays_latched_until_reset_on_site_and_a_reset_starts_nothing() -> None:
    desk = charged(100.0)
    desk.safety.fault("emergency-stop", True)
    desk.run(lambda: desk.output.mode == Mode.FAULT)
    desk.safety.reset()
    assert desk.safety.latched  # the button is still pressed
    desk.safety.fault("emergency-stop", False)
    desk.number += 1
    desk.permits[1]["number"] = desk.number
    desk.run(1.0)
    assert desk.output.mode == Mode.FAULT and desk.safety.latched
    desk.safety.reset()
    desk.run(0.5)
    assert not any(c.closed for c in desk.safety.circuits.values())


def test_an_e_stop_frame_calls_for_a_cycle_at_once() -> None:
    desk = charged(100.0)
    desk.safety.fault("emergency-stop", True)
    desk.safety.step(desk.now_ns / 1e9, desk.worlds)
    identifier, frame = desk.safety.frames(desk.worlds)[0]
    assert desk._hear(identifier, frame)
    desk.control.step(desk.now_ns + MILLISECOND)
    assert desk.output.setpoint_a == 0.0 and not desk.control.bank.command_a.any()


def test_as_few_modules_run_as_are_efficient_and_more_come_when_asked_for() -> None:
    desk = charged(50.0, share__modules_min=1)
    few = desk.output.modules_active
    assert 5 < few < 16
    assert desk.rack.hours[desk.control.bank.enable].max() < np.sort(desk.rack.hours)[20]
    desk.targets[1]["current_a"] = 300.0
    desk.run(lambda: desk.output.current_a > 295.0)
    assert desk.output.modules_active > few
    assert (np.abs(desk.control.bank.command_a) <= desk.control.bank.capability(1, 360.0) + 0.01).all()
    desk.targets[1]["current_a"] = 50.0
    desk.run(lambda: desk.output.current_a < 51.0)
    lowest = 50.0
    while desk.output.modules_active > 12:
        desk.cycle()
        lowest = min(lowest, desk.network.current_a)
    assert lowest > 0.9 * 50.0


def test_a_tired_module_is_relieved_without_a_dip() -> None:
    desk = charged(50.0, share__modules_min=1)
    desk.control.bank.hours[desk.control.bank.enable] += 10_000.0
    before = desk.control.bank.enable.copy()
    desk.control.bank._crew[1, 0].rotated_ns -= 601 * 10**9
    seen = []
    for _ in range(20):
        desk.cycle()
        seen.append(desk.network.current_a)
    assert (desk.control.bank.enable != before).sum() == 2 and min(seen) > 0.95 * 50.0


def test_hot_contact_pins_derate_the_current_and_then_stop_it() -> None:
    desk = charged(290.0)
    desk.rack.fault("pin-hot", True)
    desk.network.pin_c = 84.0
    desk.run(3.0)
    assert desk.output.mode == Mode.TRANSFER and desk.output.current_limited
    assert 80.0 < desk.network.pin_c < 90.0 and desk.network.current_a < 290.0
    desk.network.pin_c = 95.0
    desk.run(lambda: not desk.safety.circuits[1].closed, 1.0)
    assert desk.codes == {Code.OVERTEMPERATURE}


def test_warm_coolant_derates_the_current_and_then_stops_it() -> None:
    desk = charged(290.0)
    desk.rack.fault("coolant-lost", True)
    desk.network.coolant_c = 64.0
    desk.run(1.0)
    assert desk.output.mode == Mode.TRANSFER and desk.output.current_limited and desk.network.current_a < 290.0
    desk.network.coolant_c = 75.0
    desk.run(lambda: not desk.safety.circuits[1].closed, 1.0)
    assert desk.codes == {Code.OVERTEMPERATURE}


def feeding(amperes: float) -> Desk:
    """A desk whose vehicle feeds the grid."""
    desk = Desk(bidirectional=True)
    desk.charge(30.0)
    desk.permits[1] |= {"min_current_a": -100.0, "min_power_w": -50e3}
    desk.targets[1]["current_a"] = -amperes
    desk.run(lambda: abs(desk.network.current_a + amperes) < 0.03 * amperes)
    return desk


@pytest.mark.parametrize("fault", ["grid-withdrawn", "grid-silent"])
def test_export_ends_when_the_grid_side_says_so_or_falls_silent(fault: str) -> None:
    desk = feeding(30.0)
    desk.safety.fault(fault, True)
    seconds = desk.run(lambda: abs(desk.network.current_a) < 0.5)
    assert seconds < 0.6 and desk.output.mode == Mode.TRANSFER  # 300 ms of patience, 200 A/s of ramp
    desk.safety.fault(fault, False)
    desk.run(lambda: desk.network.current_a < -29.0)
    assert not desk.codes


def test_export_is_bounded_by_what_the_grid_side_permits() -> None:
    desk = feeding(30.0)
    desk.safety.grid_export_w = 3600.0
    desk.run(1.0)
    assert desk.network.current_a == pytest.approx(-10.0, rel=0.05)
    desk.targets[1]["current_a"] = 30.0
    desk.run(lambda: desk.network.current_a > 29.0)


def test_a_lost_bus_of_several_is_replaced_like_a_lost_module() -> None:
    desk = charged(200.0, modules=90, buses=3)
    assert set(desk.control.bank.bus[desk.control.bank.enable].tolist()) == {0, 1, 2}
    desk.rack.fault("bus-off", True, bus=2)
    seen = []
    for _ in range(60):
        desk.cycle()
        seen.append(desk.network.current_a)
    assert max(i for i, amperes in enumerate(seen) if amperes < 0.98 * 200.0) < 25  # 250 ms
    assert desk.output.mode == Mode.TRANSFER and seen[-1] == pytest.approx(200.0, rel=0.02)
    desk.run(0.5)
    assert Code.POWER_BUS in desk.codes and Code.MODULE_LOST in desk.codes
    desk.rack.fault("bus-off", False, bus=2)
    desk.run(lambda: desk.control.bank.healthy.all())


def test_a_module_is_swapped_without_a_restart() -> None:
    desk = charged(15.0, modules=3)
    desk.rack.fault("module-dead", True, 2)
    desk.run(lambda: desk.output.modules_active == 2)
    desk.rack.exchange(2, 555_555)
    desk.rack.fault("module-dead", False, 2)
    assert 0.3 < desk.run(lambda: desk.output.modules_active == 3) < 1.0
    assert desk.network.current_a == pytest.approx(15.0, rel=0.05)


@pytest.mark.parametrize("modules", [1, 3, 303])
def test_banks_of_other_sizes_complete_a_session(modules: int) -> None:
    desk = Desk(modules=modules, buses=5 if modules > 50 else 1)
    desk.charge(min(250.0, 8.0 * modules))
    desk.allow(Purpose.NONE)
    desk.run(lambda: desk.output.mode == Mode.DISCHARGE)
    assert not desk.codes


def test_two_groups_in_series_charge_an_800_v_car() -> None:
    desk = Desk(series_groups=2, max_voltage_v=1000.0)
    desk.emf_v = desk.network.vehicle.emf_v = 740.0
    desk.charge(100.0)
    bank = desk.control.bank
    assert max(s.setpoint_v for s in desk.history) == pytest.approx(880.0)  # 1.1 times 800 V at the cable check
    first, second = bank.enable & (bank.group == 0), bank.enable & (bank.group == 1)
    assert bank.command_a[first].sum() == pytest.approx(100.0) == bank.command_a[second].sum()
    assert bank.command_v[bank.enable] == pytest.approx(395.0)
    desk.rack.fault("module-dead", True)
    seen = []
    for _ in range(40):
        desk.cycle()
        seen.append(desk.network.current_a)
    assert min(seen) > 0.93 * 100.0 and seen[-1] == pytest.approx(100.0, rel=0.01)
    assert desk.network.module_wh == pytest.approx(desk.network.import_wh, rel=0.01)


def test_without_one_of_its_series_groups_an_output_stops() -> None:
    desk = Desk(modules=4, series_groups=2, max_voltage_v=1000.0)
    desk.emf_v = desk.network.vehicle.emf_v = 740.0
    desk.charge(10.0)
    for module in (1, 3):
        desk.rack.fault("over-temperature", True, module)
    desk.run(lambda: not desk.safety.circuits[1].closed)
    assert Code.NO_MODULES in desk.codes


def test_a_pause_of_the_rack_accuses_no_module() -> None:
    desk = charged(200.0, desk_grace_ms=300.0)
    desk.allow(Purpose.NONE)
    desk.run(0.1)
    desk.rack.fault("bus-off", True)  # in the middle of the ramp nothing is heard, then all again
    desk.run(0.55)
    desk.rack.fault("bus-off", False)
    desk.run(0.5)
    assert not desk.control.bank.aside_ns.any() and Code.MODULE_FAULT not in desk.codes


def test_who_sends_set_points_too_late_accuses_no_module() -> None:
    desk = charged(200.0, desk_grace_ms=300.0)
    for cycle in range(200):  # each module falls to zero and says so, time and again
        desk.power_runs = cycle % 20 == 0
        desk.cycle()
    desk.power_runs = True
    desk.run(0.1)
    assert not desk.control.bank.aside_ns.any() and Code.MODULE_FAULT not in desk.codes


def test_a_runaway_is_put_aside_though_cycles_come_late() -> None:
    desk = charged(100.0, desk_grace_ms=300.0)
    desk.rack.fault("runaway", True, 3)
    for cycle in range(150):  # after each ten a gap of 70 ms
        desk.power_runs = cycle % 16 < 10
        desk.cycle()
    assert desk.control.bank.aside_ns[2] > 0


def test_the_test_voltage_is_no_overvoltage_while_it_falls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "BANK_BLEED_OHM", 10_000.0)  # ten times slower than usual
    desk = Desk()
    desk.check_cable()
    assert desk.output.insulation == Insulation.VALID and not desk.codes


def _served(desk: Desk, evse: int) -> int:
    return int((desk.control.bank.evse == evse).sum())


def test_blocks_are_lent_to_a_session_and_given_back_with_notice() -> None:
    desk = Desk(12, (1, 2), matrix__blocks=4, share__modules_min=1)
    desk.permits[1] = desk.permits[2] = {"purpose": Purpose.NONE, "session_id": ""}
    desk.run(lambda: _served(desk, 1) == _served(desk, 2) == 6, 3.0)  # with nobody there every block is at home
    desk.permits[1] = {"purpose": Purpose.NONE}
    desk.run(lambda: _served(desk, 1) == 12, 3.0)
    desk.charge(100.0, 1)
    reporter = Reporter(desk.parameters, desk.control)
    assert reporter.limits(1).modules_total == 12  # type: ignore[union-attr]
    desk.permits[2] = {"purpose": Purpose.NONE}
    desk.run(lambda: desk.control.bank.leaving.any())
    told = reporter.limits(1)
    assert told is not None and told.modules_total == 6 and told.max_current_a < 60.0 < desk.network.current_a
    assert _served(desk, 1) == 12, "told before it is done"
    assert 0.9 < desk.run(lambda: _served(desk, 1) == 6) < 1.2
    desk.targets[1]["current_a"] = 45.0
    desk.run(lambda: _served(desk, 2) == 6, 3.0)
    desk.charge(45.0, 2)
    assert desk.network.current_a == pytest.approx(45.0, rel=0.03)
    assert not desk.codes and not desk.rack.short


def test_a_welded_matrix_contactor_costs_its_block_and_nothing_else() -> None:
    desk = Desk(12, (1, 2), matrix__blocks=4, share__modules_min=1)
    desk.permits[1] = desk.permits[2] = {"purpose": Purpose.NONE, "session_id": ""}
    desk.run(lambda: _served(desk, 1) == _served(desk, 2) == 6, 3.0)
    desk.safety.fault("link-weld", True)
    desk.permits[1] = {"purpose": Purpose.NONE}
    desk.run(lambda: Code.CONTACTOR_FEEDBACK in desk.codes, 3.0)
    desk.safety.fault("link-weld", False)
    desk.charge(45.0, 1)
    assert not desk.rack.short
    sharing = desk.control.sharing
    assert sharing is not None and sharing.board.failed.bit_count() >= 1


def test_a_matrix_whose_feedback_is_silent_moves_nothing() -> None:
    desk = Desk(12, (1, 2), matrix__blocks=4)
    desk.safety.fault("silent", True)
    desk.run(1.0)
    assert desk.control.sharing is not None and desk.control.sharing.board.requested == 0


@pytest.mark.parametrize("ac, told", [([1], set()), ([0], {Code.POWER_BUS})])
def test_an_ac_outlet_needs_no_measuring_board(ac: list[int], told: set[Code]) -> None:
    desk = Desk(ac=ac)
    desk.rack.faults.add("output-silent")
    desk.run(6.0)
    assert {f.code for evse, f in desk.faults if evse == 1} == told
    assert desk.control.safety_alive, "it speaks for the bay all the same"
