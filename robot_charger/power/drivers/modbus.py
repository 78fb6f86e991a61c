"""Older modules on Modbus lines, TCP or RTU: one line per bus of the bank, unit id = address.

One transaction a module and round (function 23) writes its set-point and reads its state. Registers, big-endian:

====  ==========================================  ====================================================
 0    voltage set-point [0.1 V]                   written
 1    current set-point, signed [0.01 A]          written
 2    control: bit 0 on                           written
 3    hold [ms]: zero so long after the last set-point   written
16    state as in ek3.dbc                         read
17    faults as in ek3.dbc
18    voltage [0.1 V]
19    current, signed [0.01 A]
20    set-point obeyed, signed [0.01 A]
21    current available [0.01 A]
22    temperature, signed [0.1 deg C]
23    ambient, signed [0.1 deg C]
24    serial number, two registers
26    operating hours, two registers [0.1 h]
====  ==========================================  ====================================================

A line is slower than a bus: its modules are asked one after the other, and a module holds its set-point for as long
as HOLD_ROUNDS rounds may last, never longer than HOLD_MOST_MS.
"""

from __future__ import annotations

import struct
import threading
import time
from typing import Any

import numpy as np

from robot_charger.common.clock import MILLISECOND, now_ns
from robot_charger.power import codec
from robot_charger.power.bank import Bank
from robot_charger.power.drivers import Frames, ModuleDriver, module_buses
from robot_charger.power.modbus_line import LineError, ModbusLine
from robot_charger.power.parameters import PowerParameters

SETPOINT_REGISTER, STATE_REGISTER = 0, 16
SETPOINT = struct.Struct(">HhHH")
STATE = struct.Struct(">HHHhhHhhII")
STATE_REGISTERS = STATE.size // 2
ON = 1
DECIVOLT, CENTIAMPERE, DECIKELVIN = 0.1, 0.01, 0.1
PERIOD_S = 0.010  # of a round, when the line is quick enough
HOLD_MS = 50  # at least
STALE_NS = HOLD_MS * MILLISECOND  # set-points older than this are not passed on: zero is
HOLD_ROUNDS = 4
HOLD_MOST_MS = 500
REST_S = 1.0  # who did not answer REST_AFTER times is left alone for so long: its time-out stops the others
REST_AFTER = 3


def encode_setpoint(voltage_v: float, current_a: float, on: bool, hold_ms: int) -> list[int]:
    """Registers 0 to 3."""
    volts = max(0, min(0xFFFF, round(voltage_v / DECIVOLT)))
    amperes = max(-32768, min(32767, round(current_a / CENTIAMPERE)))
    return list(struct.unpack(">4H", SETPOINT.pack(volts, amperes, ON * on, hold_ms)))


def decode_state(registers: list[int]) -> tuple[int, ...]:
    """Registers 16 to 27 as raw values in the order of the table. Raises ValueError on a wrong count."""
    if len(registers) != STATE_REGISTERS:
        raise ValueError(f"{len(registers)} registers instead of {STATE_REGISTERS}")
    return STATE.unpack(struct.pack(f">{STATE_REGISTERS}H", *registers))


class Driver(ModuleDriver):
    """A thread per line; set-points and states change hands under a lock."""

    @classmethod
    def make(cls, bank: Bank, parameters: PowerParameters, groups: bool) -> Driver:
        return cls(bank, module_buses(parameters), parameters.module__answer_ms / 1e3)

    def __init__(self, bank: Bank, lines: list[str], timeout_s: float = 0.1) -> None:
        super().__init__(bank, first_port=1)
        self._lines = [
            Line(ModbusLine(name, "modules", timeout_s), bank.address[bank.first[i] : bank.first[i + 1]].tolist())
            for i, name in enumerate(lines)
        ]

    def poll(self, now_ns: int) -> None:
        bank = self.bank
        for bus, line in enumerate(self._lines):
            for address, answered_ns, values in line.collect():
                index = np.array([bank.first[bus] + address - bank.contract.first_address])
                state, faults, volts, amperes, obeyed, available, temperature, ambient, _, hours = values
                bank.report(
                    index,
                    bus,
                    answered_ns,
                    voltage=np.array([volts * DECIVOLT]),
                    current=np.array([amperes * CENTIAMPERE]),
                    echo=np.array([obeyed * CENTIAMPERE]),
                )
                bank.available[index] = available * CENTIAMPERE
                bank.temperature[index] = temperature * DECIKELVIN
                bank.ambient[index] = ambient * DECIKELVIN
                bank.hours[index] = hours * codec.HOUR
                bank.state[index] = state
                bank.faults[index] = faults
        self.frames_in = sum(line.answers for line in self._lines)
        self.frames_out = sum(line.requests for line in self._lines)
        self.bad = sum(line.bad for line in self._lines)

    def frames(self, now_ns: int, counter: int) -> list[Frames]:
        bank = self.bank
        for bus, line in enumerate(self._lines):
            part = slice(bank.first[bus], bank.first[bus + 1])
            line.order(now_ns, bank.command_v[part].tolist(), bank.command_a[part].tolist(), bank.enable[part].tolist())
        return []

    def start(self) -> None:
        for line in self._lines:
            line.start()

    def close(self) -> None:
        for line in self._lines:
            line.close()


class Line:
    """The modules of one line, asked in rounds."""

    def __init__(self, line: ModbusLine, addresses: list[int]) -> None:
        self.line = line
        self.addresses = addresses
        self.requests = self.answers = self.bad = 0
        self.hold_ms = HOLD_MS
        self._failures: dict[int, int] = {}
        self._rests_until: dict[int, float] = {}
        self._orders: tuple[int, list[float], list[float], list[bool]] = (0, [], [], [])
        self._states: list[tuple[int, int, tuple[int, ...]]] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"modbus {line.name}", daemon=True)

    def order(self, stamp_ns: int, voltage_v: list[float], current_a: list[float], on: list[bool]) -> None:
        self._orders = (stamp_ns, voltage_v, current_a, on)

    def collect(self) -> list[tuple[int, int, tuple[int, ...]]]:
        """(address, when it answered [ns], registers) since the last call."""
        with self._lock:
            states, self._states = self._states, []
        return states

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=3.0)
        self.line.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            for at, address in enumerate(self.addresses):
                if self._stop.is_set():
                    return
                if time.monotonic() >= self._rests_until.get(address, 0.0):
                    self._ask(at, address)
            took_s = time.monotonic() - began
            self.hold_ms = int(max(HOLD_MS, min(HOLD_MOST_MS, HOLD_ROUNDS * took_s * 1e3)))
            self._stop.wait(max(0.0, PERIOD_S - took_s))

    def _ask(self, at: int, address: int) -> None:
        stamp_ns, volts, amperes, on = self._orders  # the newest, also in the middle of a round
        live = bool(volts) and now_ns() - stamp_ns <= STALE_NS
        words = encode_setpoint(volts[at], amperes[at], on[at], self.hold_ms) if live else encode_setpoint(
            0.0, 0.0, False, self.hold_ms
        )  # fmt: skip
        self.requests += 1
        try:
            answer: Any = self.line.exchange(address, SETPOINT_REGISTER, words, STATE_REGISTER, STATE_REGISTERS)
            values = decode_state(answer)
        except (LineError, ValueError):
            self.bad += 1
            self._failures[address] = self._failures.get(address, 0) + 1
            if self._failures[address] >= REST_AFTER:
                self._rests_until[address] = time.monotonic() + REST_S
            return
        self._failures[address] = 0
        self.answers += 1
        with self._lock:
            self._states.append((address, now_ns(), values))
