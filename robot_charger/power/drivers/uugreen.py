"""UUGreenPower UR1000 modules: 29-bit classic CAN, big-endian, eight bytes, set-points in two frames.

Identifier: version 28-25 = 1, controller 24-21 = 1, module 20-14, production date 13-9, serial number 8-0 (both zero
in requests). Data: byte 0 group and type, byte 1 command, bytes 4-7 the value. A module has a low range up to 500 V
and a high one; it changes only with its output off, for 2 s before and 2 s after. The bits of its status are not
public, and are not read. Layout: a public driver, see docs/adding-a-module.md. Nothing here was tried on a device.
"""

from __future__ import annotations

import struct

import numpy as np

from robot_charger.common.clock import SECOND
from robot_charger.power.bank import Bank
from robot_charger.power.codec import State
from robot_charger.power.contract import Contract
from robot_charger.power.drivers.polled import Frame, PolledDriver, Question

VERSION, CONTROLLER = 1, 1
SET, SET_ANSWER, READ, READ_ANSWER = 0, 1, 2, 3  # types
VOLTAGE, CURRENT, SET_VOLTAGE, SET_CURRENT, SWITCH = 0, 47, 2, 3, 4
SET_RANGE, RANGE, CAPABILITY = 95, 101, 104
ON, OFF = 0, 1  # zero starts a module
HIGH, LOW = 1, 2
VALUE = struct.Struct(">BBxxI")
ASKS = {"voltage": VOLTAGE, "current": CURRENT, "range": RANGE, "capability": CAPABILITY}


def identifier(module: int) -> int:
    return VERSION << 25 | CONTROLLER << 21 | module << 14


class Driver(PolledDriver):
    """Group 0; every module is addressed alone, for a set-point to all would be that of each."""

    QUESTIONS = (
        Question("voltage", 0.2),
        Question("current", 0.2),
        Question("range", 2.0),
        Question("capability", 2.0),
    )

    def __init__(self, bank: Bank, contract: Contract) -> None:
        super().__init__(bank, contract)
        assert contract.range is not None
        self.low_v = contract.range.low_v
        self._rest_ns = int(contract.range.off_s * SECOND)
        self.range = np.zeros(bank.count, np.int64)  # HIGH, LOW; 0: not read yet
        self.wanted_range = np.zeros(bank.count, np.int64)  # 0: as it is
        self._off_ns = np.zeros(bank.count, np.int64)  # when it was last on
        self._changed_ns = np.zeros(bank.count, np.int64)  # when its range was last changed

    def prepare(self, mine: np.ndarray, top_v: float, idle: bool, now_ns: int) -> bool:
        if top_v <= 0.0:
            return True
        wanted = LOW if top_v <= self.low_v else HIGH
        if idle:
            self.wanted_range[mine] = wanted
        heard = mine & ~self.bank.silent
        return bool(((self.range == wanted) & (now_ns - self._changed_ns > self._rest_ns))[heard].all())

    def may_run(self, i: int, now_ns: int) -> bool:
        return not self._wrong_range(i)

    def _wrong_range(self, i: int) -> bool:
        return bool(self.wanted_range[i]) and self.range[i] != self.wanted_range[i]

    def poll(self, now_ns: int) -> None:
        self._off_ns[self.bank.enable | self.sent_on] = now_ns
        changing = (self.wanted_range > 0) & (self.range != self.wanted_range) & ~self.sent_on
        self._sent_ns[changing & (now_ns - self._off_ns > self._rest_ns) & (now_ns - self._sent_ns > SECOND // 2)] = 0

    def special(self, i: int, now_ns: int) -> list[Frame]:
        if not self._wrong_range(i) or now_ns - self._off_ns[i] <= self._rest_ns:
            return []
        self._off_ns[i] = self._changed_ns[i] = now_ns
        return [self._frame(i, SET, SET_RANGE, int(self.wanted_range[i])), self._frame(i, READ, RANGE, 0)]

    def _frame(self, i: int, kind: int, command: int, value: int) -> Frame:
        return identifier(int(self.bank.address[i])), VALUE.pack(kind, command, value)

    def switch(self, i: int, on: bool) -> list[Frame]:
        return [self._frame(i, SET, SWITCH, ON if on else OFF)]

    def setpoint(self, i: int, voltage_v: float, current_a: float) -> list[Frame]:
        return [
            self._frame(i, SET, SET_VOLTAGE, round(max(voltage_v, 0.0) * 1e3)),
            self._frame(i, SET, SET_CURRENT, round(max(current_a, 0.0) * 1e3)),
        ]

    def poll_frame(self, i: int, question: str) -> Frame:
        return self._frame(i, READ, ASKS[question], 0)

    def heard(self, identifier: int, data: bytes, bus: int, now_ns: int) -> bool:
        ours = identifier >> 25 == VERSION and identifier >> 21 & 0xF == CONTROLLER
        i = self.module(bus, identifier >> 14 & 0x7F) if ours else -1
        kind, command, value = VALUE.unpack(data)
        kind &= 0xF
        if i < 0 or kind not in (SET_ANSWER, READ_ANSWER):
            self.bad += 1
            return i >= 0
        self.alive(i, bus, now_ns)
        bank = self.bank
        if kind == SET_ANSWER:
            if command == SET_CURRENT:
                bank.obeys(i, value / 1e3 if bank.enable[i] else 0.0, now_ns)
            elif command == SWITCH:
                bank.state[i] = State.RUNNING if value == ON else State.STANDBY
                if value == OFF:
                    bank.obeys(i, 0.0, now_ns)
        elif command == VOLTAGE:
            bank.voltage[i] = value / 1e3
        elif command == CURRENT:
            bank.current[i] = value / 1e3
        elif command == RANGE and value in (LOW, HIGH):
            self.range[i] = value
        elif command == CAPABILITY:
            bank.available[i] = value / 1e3
        return True
