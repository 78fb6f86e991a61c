"""The simulated car alone: visits, plug, contactor, battery management and faults, with injected time."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest

from robot_charger.sim.vehicle.battery import Battery
from robot_charger.sim.vehicle.car import CP_B_OHM, CP_C_OHM, Car, CarOptions, Inputs, Outputs, State


class Evcc:
    """A protocol side that goes through a session as soon as the oscillator runs."""

    def __init__(self, car: Car) -> None:
        self.car = car
        self.finished = threading.Event()
        self.result: dict[str, Any] = {}
        self.started = self.stopped = False

    def start(self) -> None:
        self.started = True

    def stop(self) -> None:
        self.stopped = True
        self.finished.set()

    def step(self) -> None:
        if self.finished.is_set() or abs(self.car.pilot_duty - 0.05) > 0.02:
            return
        self.car.set_ready(True)
        if self.car.wants_to_stop():
            self.car.set_ready(False)
            self.car.open_contactor()
            if abs(self.car.inlet_current_a) < 1.0:
                self.result = {"ok": True}
                self.finished.set()
        else:
            self.car.close_contactor()


class Desk:
    """Station, arm and clock around one car: a source that gives what the car asks for, up to 200 A."""

    def __init__(self, **options: Any) -> None:
        self.evccs: list[Evcc] = []
        self.car = Car(CarOptions(seed=3, **options), self._evcc)
        self.inputs = Inputs()
        self.now_s = 100.0
        self.outputs: Outputs = self.car.step(self.now_s, self.inputs)

    def _evcc(self, car: Car) -> Evcc:
        self.evccs.append(Evcc(car))
        return self.evccs[-1]

    def say(self, **inputs: Any) -> None:
        self.inputs = replace(self.inputs, **inputs)

    def run(self, seconds: float) -> Outputs:
        end = self.now_s + seconds
        while self.now_s < end - 1e-9:
            self.now_s += 0.01
            car = self.car
            current_a = min(200.0, max(-200.0, car.requested_current_a)) if car.contactor else 0.0
            precharged = car.connected and car._contactor_wanted
            volts = car.battery.emf_v + current_a * car.battery.resistance_ohm if precharged else 0.0
            self.say(inlet_voltage_v=volts, inlet_current_a=current_a)
            self.outputs = car.step(self.now_s, self.inputs)
            for evcc in self.evccs[-1:]:
                evcc.step()
        return self.outputs

    def plug_in(self) -> None:
        self.say(arrive=1)
        self.run(2.0)
        self.say(mated=True, pilot_mode="pwm", pilot_duty=0.05)


def test_a_car_arrives_moves_stands_still_and_only_then_counts_as_immobilised() -> None:
    desk = Desk()
    assert desk.outputs.safety["occupied"] is False
    desk.say(arrive=1)
    moving = desk.run(0.1)
    assert (moving.safety["occupied"], moving.safety["immobilised"]) == (True, False)
    assert moving.arm["present"] is False
    assert desk.run(1.5).safety["immobilised"] is True
    assert desk.outputs.arm["present"] is True


def test_plugging_puts_the_resistors_on_the_pilot_and_s2_changes_them() -> None:
    desk = Desk(charge_seconds=2.0)
    desk.say(arrive=1)
    assert desk.run(2.0).pilot["cp_ohm"] is None
    desk.say(mated=True, pilot_mode="steady")
    assert desk.run(0.02).pilot["cp_ohm"] == CP_B_OHM
    assert desk.outputs.arm["locked"] is False
    desk.say(pilot_mode="pwm", pilot_duty=0.05)
    assert desk.run(0.05).pilot["cp_ohm"] == CP_C_OHM
    assert desk.outputs.arm["locked"] is True


def test_a_whole_visit_ends_after_the_seconds_asked_for_and_unlocks() -> None:
    desk = Desk(charge_seconds=5.0)
    desk.plug_in()
    desk.run(4.0)
    assert desk.car.state is State.CHARGING
    truth = desk.run(6.0).truth
    assert truth["state"] == "ended"
    assert truth["contactor"] is False
    assert desk.outputs.arm["locked"] is False
    assert truth["result"] == {"ok": True}
    assert truth["soc"] > truth["soc_start"]
    assert truth["max_current_a"] == pytest.approx(200.0)
    # 50 A/s up to 200 A takes 4 s: 400 As, then 200 As, at about 356 V
    assert truth["energy_in_wh"] == pytest.approx(600 * 362 / 3600, rel=0.05)
    desk.say(mated=False, leave=1)
    assert desk.run(2.0).safety["occupied"] is False
    desk.say(arrive=2, leave=1)
    assert desk.run(2.0).truth["visit"] == 2
    assert desk.outputs.truth["energy_in_wh"] == 0.0
    assert desk.outputs.truth["total_in_wh"] == truth["energy_in_wh"]


def test_the_target_state_of_charge_ends_it_and_the_request_tapers() -> None:
    desk = Desk(target_soc=50.05, soc=50.0)
    desk.plug_in()
    desk.run(30.0)
    assert desk.car.state is State.ENDED
    assert desk.outputs.truth["soc"] == pytest.approx(50.05, abs=0.01)
    assert desk.outputs.truth["stop_reason"] == "target state of charge reached"


def test_the_request_stays_below_what_the_station_announces() -> None:
    desk = Desk(charge_seconds=20.0)
    desk.plug_in()
    desk.run(0.5)
    desk.car.announce(120.0, 30_000.0)
    desk.run(10.0)
    assert desk.car.requested_current_a * desk.car.inlet_voltage_v == pytest.approx(30_000, rel=0.01)


def test_the_contactor_does_not_close_onto_another_voltage() -> None:
    car = Car(CarOptions(seed=3))
    inputs = Inputs(arrive=1)
    for i in range(200):
        car.step(i * 0.01, inputs)
    inputs = replace(inputs, mated=True, inlet_voltage_v=car.battery.emf_v - 25.0)
    car.step(2.01, inputs)
    assert car.close_contactor() is False
    car.step(2.02, inputs)
    assert car.contactor is False
    car.step(2.03, replace(inputs, inlet_voltage_v=car.battery.emf_v - 15.0))
    assert car.contactor is True


def test_the_contactor_opens_below_5_a_and_at_the_latest_after_2_s() -> None:
    desk = Desk(charge_seconds=100.0)
    desk.plug_in()
    desk.run(3.0)
    desk.evccs[0].finished.set()  # the session dies; the station goes on
    inputs = replace(desk.inputs, inlet_current_a=100.0)
    desk.car.step(desk.now_s + 0.01, inputs)
    desk.car.step(desk.now_s + 1.9, inputs)
    assert desk.car.contactor is True
    desk.car.step(desk.now_s + 2.1, inputs)
    assert desk.car.contactor is False


def test_a_car_that_discharges_gives_back_in_the_second_half() -> None:
    desk = Desk(protocol="iso15118-20-bpt", charge_seconds=10.0)
    desk.plug_in()
    truth = desk.run(14.0).truth
    assert truth["energy_out_wh"] > 1.0
    assert truth["energy_in_wh"] > truth["energy_out_wh"]


def test_an_acdp_vehicle_talks_before_and_after_the_contact() -> None:
    desk = Desk(protocol="acdp", charge_seconds=2.0)
    desk.say(arrive=1)
    desk.run(0.2)
    assert not desk.evccs
    desk.run(1.5)
    assert desk.evccs[0].started
    assert not desk.car.connected
    desk.say(mated=True, pilot_mode="pwm", pilot_duty=0.05)
    desk.run(1.0)
    assert desk.car.state is State.CHARGING
    desk.say(mated=False)
    desk.run(0.1)
    assert not desk.evccs[0].stopped, "the link outlives the contact"


def test_an_acdp_vehicle_locks_the_plug_when_its_conversation_says_so_and_not_before() -> None:
    desk = Desk(protocol="acdp", charge_seconds=2.0)
    desk.say(arrive=1)
    desk.run(2.0)
    desk.say(mated=True)
    assert desk.run(0.5).arm["locked"] is False, "the arm may still be pressing the plug home"
    desk.car.lock()
    assert desk.run(0.1).arm["locked"] is True


def test_vehicle_gone_breaks_everything_at_once_in_the_middle() -> None:
    desk = Desk(charge_seconds=10.0)
    desk.car.faults = {"vehicle-gone"}
    desk.plug_in()
    desk.run(2.0)
    assert desk.car.state is State.CHARGING
    out = desk.run(3.0)
    assert (out.pilot["cp_ohm"], out.rack["connected"], out.rack["contactor"]) == (None, False, False)
    assert desk.evccs[0].finished.wait(5.0)
    assert desk.evccs[0].stopped
    assert out.truth["result"]["ok"] is False


def test_insulation_is_bad_from_the_start_or_only_later() -> None:
    early, late = Desk(), Desk()
    early.car.faults, late.car.faults = {"isolation"}, {"isolation-charging"}
    early.plug_in()
    late.plug_in()
    assert early.run(0.1).safety["insulation_ohm"] < 100e3
    assert late.run(2.0).safety["insulation_ohm"] > 1e6
    assert late.run(3.0).safety["insulation_ohm"] < 100e3


def test_no_diode_and_a_stuck_lock_and_a_welded_contactor() -> None:
    desk = Desk(charge_seconds=2.0)
    desk.car.faults = {"no-diode", "stuck-lock", "contactor-weld"}
    desk.plug_in()
    out = desk.run(8.0)
    assert out.pilot["diode"] is False
    assert out.arm["locked"] is True
    assert out.rack["contactor"] is True
    assert out.truth["state"] == "ended"


def test_a_sleeping_car_wakes_by_a_pulse() -> None:
    desk = Desk(charge_seconds=2.0)
    desk.car.faults = {"asleep"}
    desk.plug_in()
    desk.run(2.0)
    assert not desk.evccs
    desk.say(pilot_mode="off", pilot_duty=0.0)
    desk.run(0.5)
    desk.say(pilot_mode="pwm", pilot_duty=0.05)
    desk.run(1.0)
    assert desk.car.state is State.CHARGING


def test_a_station_that_ends_the_pwm_gets_its_plug_back() -> None:
    desk = Desk()
    desk.plug_in()
    desk.say(pilot_duty=0.9)  # nothing that this EVCC would answer
    desk.run(0.1)
    assert desk.car.locked and desk.car.state is State.SESSION
    desk.say(pilot_mode="steady", pilot_duty=0.0)
    desk.run(2.5)
    assert desk.car.locked
    desk.run(1.0)
    assert not desk.car.locked and desk.car.state is State.CONNECTED


@pytest.mark.parametrize("protocol", ["chademo", "gbt", "acdp"])
def test_who_does_not_talk_by_the_pilot_does_not_miss_its_pwm(protocol: str) -> None:
    desk = Desk(protocol=protocol)
    desk.plug_in()
    desk.say(pilot_mode="steady", pilot_duty=0.0)
    desk.run(0.1)
    desk.car.state = State.SESSION
    desk.run(5.0)
    assert desk.evccs and not desk.evccs[-1].stopped


def test_a_failed_session_begins_again_after_state_e_and_at_most_three_times() -> None:
    desk = Desk()
    desk.plug_in()
    desk.say(pilot_duty=0.9)  # nothing that this EVCC would answer
    desk.run(0.05)
    for attempt in range(1, 5):
        desk.evccs[-1].finished.set()
        desk.run(0.1)
        assert len(desk.evccs) == min(attempt, 3)
        desk.say(pilot_mode="off", pilot_duty=0.0)
        desk.run(0.1)
        desk.say(pilot_mode="pwm", pilot_duty=0.9)
        desk.run(0.01)
        assert len(desk.evccs) == min(attempt + 1, 3)


def test_a_battery_keeps_its_books_at_the_terminals() -> None:
    battery = Battery(50.0, capacity_wh=36_000.0, nominal_v=360.0)
    assert battery.emf_v == pytest.approx(360.0)
    battery.flow(370.0, 100.0, 0.0)
    battery.flow(370.0, 100.0, 36.0)
    assert battery.energy_in_wh == pytest.approx(370.0)
    assert battery.soc == pytest.approx(51.0)
    battery.flow(350.0, -100.0, 0.0)
    battery.flow(350.0, -100.0, 36.0)
    assert battery.energy_out_wh == pytest.approx(350.0)
    assert battery.soc == pytest.approx(50.0)
