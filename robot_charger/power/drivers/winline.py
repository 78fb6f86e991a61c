"""Winline modules, and the others of the 0x060 family that keep its registers: 29-bit classic CAN at 125 kbit/s.

Identifier: protocol 28-20 = 0x060, point to point 19, destination 18-11, source 10-3 (controller 0xF0), group 2-0.
Data: byte 0 function, byte 1 error (0xF0 good), bytes 2-3 register, 4-7 value, big-endian. Maxwell MXR modules have
the same identifier; their registers are not public. Layout: two public drivers, see docs/adding-a-module.md. Nothing
here was tried on a device.
"""

from __future__ import annotations

import struct

import numpy as np

from robot_charger.power.codec import ModuleFault, State
from robot_charger.power.drivers.polled import Frame, PolledDriver, Question

PROTOCOL, CONTROLLER = 0x060, 0xF0
READ, SET = 0x10, 0x03
FLOAT, INTEGER, REFUSED, GOOD = 0x41, 0x42, 0x80, 0xF0
VOLTAGE, CURRENT, LIMIT_POINT, AMBIENT, RATED_W, RATED_A, STATUS = 0x01, 0x02, 0x03, 0x0B, 0x11, 0x12, 0x40
SET_CURRENT, SET_VOLTAGE, SWITCH = 0x1B, 0x21, 0x30
ON, OFF = 0, 0x0001_0000  # zero starts a module
PER_AMPERE = 1024
HEAD = struct.Struct(">BBH")
ASKS = {"voltage": VOLTAGE, "current": CURRENT, "status": STATUS, "ambient": AMBIENT, "rated": RATED_A}
DC_OFF = 1 << 22
LIMITED = 1 << 23 | 1 << 24 | 1 << 25
ALARMS = {  # bits of register 0x40
    0: ModuleFault.HARDWARE,
    1: ModuleFault.HARDWARE,  # protection
    3: ModuleFault.HARDWARE,  # internal link
    4: ModuleFault.INPUT,
    5: ModuleFault.INPUT,
    7: ModuleFault.OVERVOLTAGE,
    8: ModuleFault.INPUT,  # PFC voltage
    9: ModuleFault.INPUT,
    14: ModuleFault.INPUT,
    16: ModuleFault.SETPOINT_LOST,  # CAN lost
    27: ModuleFault.FAN,
    28: ModuleFault.OVERCURRENT,  # short circuit
    30: ModuleFault.OVERTEMPERATURE,
    31: ModuleFault.OVERVOLTAGE,
}


def identifier(destination: int, source: int, group: int = 0) -> int:
    return PROTOCOL << 20 | 1 << 19 | destination << 11 | source << 3 | group


def frame(function: int, register: int, value: bytes, error: int = 0) -> bytes:
    return HEAD.pack(function, error, register) + value


def alarms(status: int) -> int:
    """Fault bits of this project in register 0x40."""
    return int(sum({fault for bit, fault in ALARMS.items() if status >> bit & 1}, ModuleFault(0)))


class Driver(PolledDriver):
    """Group 0, point to point."""

    QUESTIONS = (
        Question("voltage", 0.4),
        Question("current", 0.4),
        Question("status", 0.5),
        Question("ambient", 5.0),
        Question("rated", 30.0),
    )

    def _to(self, i: int, function: int, register: int, value: bytes = bytes(4)) -> Frame:
        return identifier(int(self.bank.address[i]), CONTROLLER), frame(function, register, value)

    def switch(self, i: int, on: bool) -> list[Frame]:
        return [self._to(i, SET, SWITCH, (ON if on else OFF).to_bytes(4, "big"))]

    def setpoint(self, i: int, voltage_v: float, current_a: float) -> list[Frame]:
        amperes = max(current_a, self.contract.min_current_a)
        return [
            self._to(i, SET, SET_VOLTAGE, struct.pack(">f", max(voltage_v, 0.0))),
            self._to(i, SET, SET_CURRENT, round(amperes * PER_AMPERE).to_bytes(4, "big")),
        ]

    def poll_frame(self, i: int, question: str) -> Frame:
        return self._to(i, READ, ASKS[question])

    def heard(self, identifier: int, data: bytes, bus: int, now_ns: int) -> bool:
        ours = identifier >> 20 == PROTOCOL and identifier >> 11 & 0xFF == CONTROLLER
        i = self.module(bus, identifier >> 3 & 0xFF) if ours else -1
        function, error, register = HEAD.unpack(data[:4])
        if i < 0 or function & REFUSED or error != GOOD or function not in (FLOAT, INTEGER):
            self.bad += 1
            return i >= 0
        self.alive(i, bus, now_ns)
        if function == FLOAT:
            (value,) = struct.unpack(">f", data[4:])
            if np.isfinite(value):
                self._float(i, register, value)
        else:
            self._integer(i, register, int.from_bytes(data[4:], "big"), now_ns)
        return True

    def _float(self, i: int, register: int, value: float) -> None:
        bank = self.bank
        if register == VOLTAGE:
            bank.voltage[i] = value
        elif register == CURRENT:
            bank.current[i] = value
        elif register == AMBIENT:
            bank.ambient[i] = bank.temperature[i] = value
        elif register == RATED_A:
            bank.available[i] = value

    def _integer(self, i: int, register: int, value: int, now_ns: int) -> None:
        bank = self.bank
        if register == STATUS:
            bank.faults[i] = alarms(value)
            running = State.DERATED if value & LIMITED else State.RUNNING
            bank.state[i] = State.STANDBY if value & DC_OFF else running
        elif register == SET_CURRENT:
            bank.obeys(i, value / PER_AMPERE if bank.enable[i] else 0.0, now_ns)
        elif register == SWITCH and value == OFF:
            bank.obeys(i, 0.0, now_ns)
