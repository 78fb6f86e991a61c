"""Infypower REG, CEG and LRG modules, protocol V1.13: 29-bit classic CAN at 125 kbit/s, big-endian, eight bytes.

Identifier: error 28-26, device number 25-22 (0xA one module), command 21-16, destination 15-8, source 7-0. The
controller is 0xF0; an answer swaps source and destination. A module keeps its set-point for 10 s without a frame, and
refuses set-points below 1 A. Layout: public drivers, see docs/adding-a-module.md. Nothing here was tried on a device.
"""

from __future__ import annotations

import struct

import numpy as np

from robot_charger.power import codec
from robot_charger.power.codec import ModuleFault, State
from robot_charger.power.drivers.polled import Frame, PolledDriver, Question

CONTROLLER, ONE = 0xF0, 0xA
READ_OUTPUT, READ_STATUS, READ_LIMITS, SWITCH, SET = 0x03, 0x04, 0x0A, 0x1A, 0x1C
GOOD, STARTING = 0, 7  # error codes
ON, OFF = 0, 1  # zero starts a module
OUTPUT = struct.Struct(">ff")  # V, A
SETPOINT = struct.Struct(">II")  # mV, mA
LIMITS = struct.Struct(">HHHH")  # highest V, lowest V, highest 0.1 A, 10 W
ASKS = {"output": READ_OUTPUT, "status": READ_STATUS, "limits": READ_LIMITS}
DC_OFF, WALK_IN, POWER_LIMITED = 1, 64, 1  # of byte 6, 6 and 5
ALARMS = (  # byte of the status answer, bit, what it is here
    (7, 0, ModuleFault.OVERCURRENT),  # output short
    (7, 5, ModuleFault.HARDWARE),  # discharge abnormal
    (6, 1, ModuleFault.HARDWARE),  # fault
    (6, 2, ModuleFault.HARDWARE),  # protection
    (6, 3, ModuleFault.FAN),
    (6, 4, ModuleFault.OVERTEMPERATURE),
    (6, 5, ModuleFault.OVERVOLTAGE),
    (6, 7, ModuleFault.SETPOINT_LOST),  # communication lost
    (5, 1, ModuleFault.ADDRESS_CLASH),
    (5, 3, ModuleFault.INPUT),  # phase lost
    (5, 5, ModuleFault.INPUT),  # low
    (5, 6, ModuleFault.INPUT),  # high
)


def identifier(command: int, destination: int, source: int, error: int = GOOD) -> int:
    return error << 26 | ONE << 22 | command << 16 | destination << 8 | source


def fields(number: int) -> tuple[int, int, int, int, int]:
    """(error, device, command, destination, source) of an identifier."""
    return number >> 26, number >> 22 & 0xF, number >> 16 & 0x3F, number >> 8 & 0xFF, number & 0xFF


def alarms(status: bytes) -> int:
    """Fault bits of this project in a status answer."""
    return int(sum({fault for byte, bit, fault in ALARMS if status[byte] >> bit & 1}, ModuleFault(0)))


class Driver(PolledDriver):
    """Module i has address ``first_address`` + its place on the bus."""

    QUESTIONS = (Question("output", 1.0), Question("status", 1.0), Question("limits", 30.0))

    def _to(self, i: int, command: int, data: bytes = bytes(8)) -> Frame:
        return identifier(command, int(self.bank.address[i]), CONTROLLER), data

    def switch(self, i: int, on: bool) -> list[Frame]:
        return [self._to(i, SWITCH, bytes([ON if on else OFF]) + bytes(7))]

    def setpoint(self, i: int, voltage_v: float, current_a: float) -> list[Frame]:
        amperes = max(current_a, self.contract.min_current_a)
        return [self._to(i, SET, SETPOINT.pack(round(max(voltage_v, 0.0) * 1e3), round(amperes * 1e3)))]

    def poll_frame(self, i: int, question: str) -> Frame:
        return self._to(i, ASKS[question])

    def heard(self, identifier: int, data: bytes, bus: int, now_ns: int) -> bool:
        error, device, command, destination, source = fields(identifier)
        i = self.module(bus, source) if (device, destination) == (ONE, CONTROLLER) else -1
        if i < 0 or error not in (GOOD, STARTING):
            self.bad += 1
            return i >= 0
        self.alive(i, bus, now_ns)
        bank = self.bank
        if error == STARTING:
            bank.state[i] = State.INIT
        elif command == READ_OUTPUT:
            volts, amperes = OUTPUT.unpack(data)
            if np.isfinite(volts) and np.isfinite(amperes):
                bank.voltage[i], bank.current[i] = volts, amperes
        elif command == READ_STATUS:
            bank.faults[i] = alarms(data)
            running = State.DERATED if data[5] & POWER_LIMITED else State.RUNNING
            bank.state[i] = State.STANDBY if data[6] & DC_OFF else running
        elif command == READ_LIMITS:
            _, _, amperes, watts = LIMITS.unpack(data)
            most_a, most_w = amperes * 0.1, watts * 10.0
            volts = max(float(bank.voltage[i]), 1.0)
            bank.available[i] = min(most_a, most_w / volts) if bank.voltage[i] > codec.VOLT else most_a
        return True
