"""The DC meter of an EVSE: a small interface, one class per kind.

Register map of the Modbus meter (input registers, big-endian words, unit id = EVSE): 0 import u64 [0.01 Wh],
4 export u64 [0.01 Wh], 8 voltage i32 [mV], 10 current i32 [mA], 12 power i32 [0.1 W], 14 serial number u32.
A meter without signs counts in u32 instead.
"""

from __future__ import annotations

import json
import struct
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from robot_charger.common.clock import now_ns
from robot_charger.common.wires import WireError, run_directory
from robot_charger.power.modbus_line import LineError, ModbusLine
from robot_charger.power.parameters import PowerParameters

_MAP = struct.Struct(">QQiiiI")
_UNSIGNED_MAP = struct.Struct(">QQIIII")
REGISTERS = _MAP.size // 2
WATT_HOUR = 0.01


class MeterError(RuntimeError):
    """The meter did not answer or answered nonsense."""


@dataclass(frozen=True)
class Reading:
    """Registers and present values; energies [Wh] only rise."""

    stamp_ns: int
    serial: str
    import_wh: float
    export_wh: float
    voltage_v: float
    current_a: float
    power_w: float


def encode_registers(reading: Reading) -> list[int]:
    """A reading as Modbus registers."""
    data = _MAP.pack(
        round(reading.import_wh / WATT_HOUR),
        round(reading.export_wh / WATT_HOUR),
        round(reading.voltage_v * 1e3),
        round(reading.current_a * 1e3),
        round(reading.power_w * 10),
        int(reading.serial),
    )
    return list(struct.unpack(f">{REGISTERS}H", data))


def decode_registers(registers: list[int], stamp_ns: int, signed: bool = True) -> Reading:
    """Modbus registers as a reading; without ``signed`` current and power have no sign. MeterError on a wrong count."""
    if len(registers) != REGISTERS:
        raise MeterError(f"the meter answered {len(registers)} registers instead of {REGISTERS}")
    values = (_MAP if signed else _UNSIGNED_MAP).unpack(struct.pack(f">{REGISTERS}H", *registers))
    imported, exported, millivolt, milliampere, power, serial = values
    return Reading(
        stamp_ns,
        str(serial),
        imported * WATT_HOUR,
        exported * WATT_HOUR,
        millivolt / 1e3,
        milliampere / 1e3,
        power / 10,
    )


class Meter(ABC):
    """One EVSE's meter."""

    @abstractmethod
    def read(self) -> Reading:
        """Read it now. Raises MeterError."""

    def close(self) -> None:  # noqa: B027
        """Let go of the line."""


class ModbusMeter(Meter):
    """On a Modbus line, TCP or RTU."""

    def __init__(self, unit: int, line: ModbusLine, signed: bool = True) -> None:
        self._unit = unit
        self._line = line
        self._signed = signed

    def read(self) -> Reading:
        try:
            registers = self._line.read_input(self._unit, 0, REGISTERS)
        except LineError as error:
            raise MeterError(f"meter of EVSE {self._unit}: {error}") from error
        return decode_registers(registers, now_ns(), self._signed)

    def close(self) -> None:
        self._line.close()


class SimulatedMeter(Meter):
    """The registers of the simulated rack, read from a file it writes."""

    def __init__(self, unit: int) -> None:
        self._unit = unit

    def read(self) -> Reading:
        try:
            registers = json.loads((run_directory() / "meter.json").read_text())[str(self._unit)]
        except (OSError, ValueError, KeyError, WireError) as error:
            raise MeterError(f"meter of EVSE {self._unit}: {error}") from error
        return decode_registers(registers, now_ns())


def open_meters(parameters: PowerParameters) -> dict[int, Meter]:
    """The meter of every EVSE, none for the kind "none"; Modbus meters share their line, unit id = EVSE.

    Raises ValueError on an impossible address.
    """
    kind, address, evses = parameters.meter__kind, parameters.meter__address, parameters.evses
    if kind == "none":
        return {}
    if kind == "simulated":
        return {evse: SimulatedMeter(evse) for evse in evses}
    if kind == "modbus-rtu" and not address:
        raise ValueError("parameter meter.address must name the serial device, e.g. /dev/ttyUSB0:19200")
    try:
        line = ModbusLine(f"rtu:{address}" if kind == "modbus-rtu" else address)
    except ValueError as error:
        raise ValueError(f"parameter meter.address = {error}") from error
    return {evse: ModbusMeter(evse, line, parameters.meter__signed) for evse in evses}


class MeterReader:
    """Reads the meters in a thread of its own, 5 times a second; keeps the last good reading of each."""

    PERIOD_S = 0.2

    def __init__(self, meters: dict[int, Meter], on_reading: Callable[[int, Reading | None, str], None]) -> None:
        self._meters = meters
        self._on_reading = on_reading
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="meter", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2.0)
        for meter in self._meters.values():
            meter.close()

    def _run(self) -> None:
        while not self._stop.wait(self.PERIOD_S):
            for evse, meter in self._meters.items():
                try:
                    self._on_reading(evse, meter.read(), "")
                except MeterError as error:
                    self._on_reading(evse, None, str(error))
