"""Infypower modules of the rack (power/drivers/infypower.py)."""

from __future__ import annotations

from robot_charger.power import codec
from robot_charger.power.drivers import infypower as driver
from robot_charger.sim.rack.polled import AnsweringModules, Frame


class Answering(AnsweringModules):
    def targets(self, identifier: int) -> int | None:
        _, device, _, destination, source = driver.fields(identifier)
        return destination if device == driver.ONE and source == driver.CONTROLLER else None

    def answer(self, i: int, identifier: int, data: bytes, now_s: float) -> list[Frame]:
        _, _, command, address, _ = driver.fields(identifier)
        if command == driver.SWITCH:
            self.switch(i, data[0] == driver.ON, now_s)
            return []
        if command == driver.SET:
            millivolts, milliamperes = driver.SETPOINT.unpack(data)
            self.set(i, now_s, millivolts / 1e3, milliamperes / 1e3)
            return []
        error = driver.STARTING if self.rack.booting[i] else driver.GOOD
        number = driver.identifier(command, driver.CONTROLLER, address, error)
        if command == driver.READ_OUTPUT:
            return [(number, driver.OUTPUT.pack(*self.shown(i)))]
        if command == driver.READ_STATUS:
            return [(number, self._status(i, now_s))]
        if command == driver.READ_LIMITS:
            rating = self.contract.rating
            volts, low = round(rating.voltage_v), round(rating.min_voltage_v)
            watts = float(self.rack._limit_w[i])
            return [(number, driver.LIMITS.pack(volts, low, round(rating.current_a * 10), round(watts / 10)))]
        return []

    def _status(self, i: int, now_s: float) -> bytes:
        rack = self.rack
        status = bytearray(8)
        starting = rack.enable[i] and now_s < rack.started_s[i]
        status[6] |= driver.DC_OFF * (not self.running(i)) | driver.WALK_IN * bool(starting)
        faults = int(rack.module_faults[i]) & ~int(codec.ModuleFault.SETPOINT_LOST)
        for byte, bit, fault in driver.ALARMS:
            if faults & fault:
                status[byte] |= 1 << bit
                faults &= ~int(fault)
        if rack.double[i]:
            status[5] |= 2
        if rack._limit_w[i] < 0.9 * rack.rated_w * rack.health[i]:
            status[5] |= driver.POWER_LIMITED
        return bytes(status)
