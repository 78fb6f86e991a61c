"""UUGreenPower modules of the rack (power/drivers/uugreen.py): two output ranges, changed only while off."""

from __future__ import annotations

import numpy as np

from robot_charger.power.contract import Contract
from robot_charger.power.drivers import uugreen as driver
from robot_charger.sim.rack.model import Rack
from robot_charger.sim.rack.polled import AnsweringModules, Frame


class Answering(AnsweringModules):
    def __init__(self, rack: Rack, contract: Contract, buses: int) -> None:
        super().__init__(rack, contract, buses)
        assert contract.range is not None
        self._range = contract.range
        self.range = np.full(rack.count, driver.HIGH)
        self._busy_until = np.full(rack.count, -np.inf)  # may neither start nor change its range
        self._off_s = np.full(rack.count, -np.inf)  # since when it is off: a change of range waits
        self.changes = 0

    def targets(self, identifier: int) -> int | None:
        ours = identifier >> 25 == driver.VERSION and identifier >> 21 & 0xF == driver.CONTROLLER
        return identifier >> 14 & 0x7F if ours and not identifier & 0x3FFF else None

    def answer(self, i: int, identifier: int, data: bytes, now_s: float) -> list[Frame]:
        kind, command, value = driver.VALUE.unpack(data)
        serial = int(self.rack.serial[i]) & 0x1FF
        if kind == driver.SET:
            if not self._take(i, command, value, now_s):
                return []
            return [(identifier | serial, driver.VALUE.pack(driver.SET_ANSWER, command, value))]
        if kind == driver.READ and (said := self._say(i, command)) is not None:
            return [(identifier | serial, driver.VALUE.pack(driver.READ_ANSWER, command, said))]
        return []

    def _take(self, i: int, command: int, value: int, now_s: float) -> bool:
        if command == driver.SET_VOLTAGE:
            return self.set(i, now_s, volts=value / 1e3)
        if command == driver.SET_CURRENT:
            return self.set(i, now_s, amperes=value / 1e3)
        if command == driver.SWITCH:
            on = value == driver.ON
            if on and now_s < self._busy_until[i]:
                self.refused += 1
                return False
            if self.on[i] and not on:
                self._off_s[i] = now_s
            self.switch(i, on, now_s)
            return True
        if command == driver.SET_RANGE and value in (driver.HIGH, driver.LOW):
            if self.on[i] or now_s < max(self._busy_until[i], self._off_s[i] + 0.9 * self._range.off_s):
                self.refused += 1
                return False
            if value != self.range[i]:
                self.changes += 1
                self.range[i] = value
                self.rack.range_v[i] = self._range.low_v if value == driver.LOW else self.contract.rating.voltage_v
            self._busy_until[i] = now_s + 0.9 * self._range.off_s
            return True
        return False

    def _say(self, i: int, command: int) -> int | None:
        volts, amperes = self.shown(i)
        return {
            driver.VOLTAGE: round(volts * 1e3),
            driver.CURRENT: round(max(amperes, 0.0) * 1e3),
            driver.RANGE: int(self.range[i]),
            driver.CAPABILITY: round(float(self.rack.available[i]) * 1e3),
        }.get(command)
