"""The simulated car that charges by AC, with the simulated supply; time is injected."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from robot_charger.common import duty_cycle
from robot_charger.sim.rack.ac import AcSupply
from robot_charger.sim.vehicle.ac import CP_D_OHM, AcCar
from robot_charger.sim.vehicle.car import CP_B_OHM, CP_C_OHM, CarOptions, Inputs, Outputs


class Desk:
    """A parked and plugged car at an outlet whose contactor is closed whenever it shows C."""

    def __init__(self, **options: Any) -> None:
        self.car = AcCar(CarOptions("ac", seed=3, max_current_a=32.0, **options))
        self.supply = AcSupply()
        self.inputs = Inputs(arrive=1)
        self.now_s = 100.0
        self.run(2.0)
        self.say(mated=True, pilot_mode="steady")

    def say(self, **inputs: Any) -> None:
        self.inputs = replace(self.inputs, **inputs)

    def tell(self, current_a: float) -> None:
        self.say(pilot_mode="pwm", pilot_duty=duty_cycle.from_current(current_a))

    def run(self, seconds: float) -> Outputs:
        end = self.now_s + seconds
        while self.now_s < end - 1e-9:
            self.now_s += 0.01
            outputs = self.car.step(self.now_s, self.inputs)
            ready = outputs.pilot["cp_ohm"] == CP_C_OHM
            asked_a = outputs.rack["ac_current_a"]
            self.supply.step(ready, False, asked_a, outputs.rack["ac_phases"], self.now_s, 0.01)
            self.say(inlet_voltage_v=self.supply.output_v, inlet_current_a=self.supply.current_a)
        return outputs


def test_it_waits_for_a_duty_and_takes_what_was_told_and_no_more() -> None:
    desk = Desk()
    assert desk.run(2.0).pilot["cp_ohm"] == CP_B_OHM
    desk.tell(16.0)
    assert desk.run(3.0).pilot["cp_ohm"] == CP_C_OHM
    assert (desk.supply.current_a, desk.supply.power_w) == (pytest.approx(16.0), pytest.approx(11_040.0))
    desk.tell(10.0)
    desk.run(1.0)
    assert desk.supply.current_a == pytest.approx(10.0)
    desk.tell(63.0)
    desk.run(3.0)
    assert desk.supply.current_a == pytest.approx(32.0), "its charger has no more"


def test_5_per_cent_means_nothing_to_it() -> None:
    desk = Desk()
    desk.say(pilot_mode="pwm", pilot_duty=0.05)
    assert desk.run(5.0).pilot["cp_ohm"] == CP_B_OHM


def test_it_ends_the_load_before_it_opens_s2_when_the_oscillator_stops() -> None:
    desk = Desk()
    desk.tell(32.0)
    desk.run(5.0)
    desk.say(pilot_mode="steady")
    assert desk.run(0.1).pilot["cp_ohm"] == CP_C_OHM
    assert desk.supply.current_a < 32.0
    assert desk.run(2.0).pilot["cp_ohm"] == CP_B_OHM
    assert not desk.car.locked
    desk.tell(16.0)
    assert desk.run(2.0).pilot["cp_ohm"] == CP_C_OHM, "it was only a pause"


def test_it_has_enough_and_meter_and_battery_tell_the_same() -> None:
    desk = Desk(charge_seconds=10.0)
    desk.tell(32.0)
    assert desk.run(30.0).pilot["cp_ohm"] == CP_B_OHM
    assert desk.supply.import_wh > 50.0
    assert desk.car.battery.energy_in_wh == pytest.approx(desk.supply.import_wh, rel=0.005)


def test_its_faults() -> None:
    desk = Desk()
    desk.tell(16.0)
    desk.run(3.0)
    desk.car.faults = {"overdraw"}
    desk.run(1.0)
    assert desk.supply.current_a == pytest.approx(20.8)
    desk.car.faults = {"ventilation"}
    assert desk.run(0.1).pilot["cp_ohm"] == CP_D_OHM
