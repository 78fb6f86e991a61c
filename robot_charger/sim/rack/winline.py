"""Winline modules of the rack (power/drivers/winline.py)."""

from __future__ import annotations

import struct

from robot_charger.power import codec
from robot_charger.power.drivers import winline as driver
from robot_charger.sim.rack.polled import AnsweringModules, Frame

UNKNOWN_REGISTER = 0xF2


class Answering(AnsweringModules):
    def targets(self, identifier: int) -> int | None:
        ours = identifier >> 20 == driver.PROTOCOL and identifier >> 3 & 0xFF == driver.CONTROLLER
        return identifier >> 11 & 0xFF if ours and identifier >> 19 & 1 else None

    def answer(self, i: int, identifier: int, data: bytes, now_s: float) -> list[Frame]:
        function, _, register = driver.HEAD.unpack(data[:4])
        number = driver.identifier(driver.CONTROLLER, int(self.address[i]))
        if function == driver.SET:
            taken = self._take(i, register, data[4:], now_s)
            kind = driver.FLOAT if register == driver.SET_VOLTAGE else driver.INTEGER
            error = driver.GOOD if taken else UNKNOWN_REGISTER
            return [(number, driver.frame(kind | driver.REFUSED * (not taken), register, data[4:], error))]
        if function != driver.READ:
            return []
        value = self._float(i, register)
        if value is not None:
            return [(number, driver.frame(driver.FLOAT, register, struct.pack(">f", value), driver.GOOD))]
        if register == driver.STATUS:
            return [(number, driver.frame(driver.INTEGER, register, self._status(i).to_bytes(4, "big"), driver.GOOD))]
        return [(number, driver.frame(driver.FLOAT | driver.REFUSED, register, bytes(4), UNKNOWN_REGISTER))]

    def _take(self, i: int, register: int, value: bytes, now_s: float) -> bool:
        if register == driver.SET_VOLTAGE:
            return self.set(i, now_s, volts=struct.unpack(">f", value)[0])
        number = int.from_bytes(value, "big")
        if register == driver.SET_CURRENT:
            return self.set(i, now_s, amperes=number / driver.PER_AMPERE)
        if register == driver.SWITCH:
            self.switch(i, number == driver.ON, now_s)
            return True
        return False

    def _float(self, i: int, register: int) -> float | None:
        volts, amperes = self.shown(i)
        return {
            driver.VOLTAGE: volts,
            driver.CURRENT: amperes,
            driver.AMBIENT: float(self.rack.ambient[i]),
            driver.RATED_A: float(self.rack.available[i]),
            driver.RATED_W: float(self.rack._limit_w[i]),
        }.get(register)

    def _status(self, i: int) -> int:
        faults = int(self.rack.module_faults[i]) & ~int(codec.ModuleFault.SETPOINT_LOST)
        status = 0 if self.running(i) else driver.DC_OFF
        for bit, fault in driver.ALARMS.items():
            if faults & fault:
                status |= 1 << bit
                faults &= ~int(fault)
        return status
