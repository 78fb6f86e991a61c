"""The DC meter of an EVSE: a small interface, one class per kind.

Register map of the Modbus meter (input registers, big-endian words, unit id = EVSE): 0 import u64 [0.01 Wh],
4 export u64 [0.01 Wh], 8 voltage i32 [mV], 10 current i32 [mA], 12 power i32 [0.1 W], 14 serial number u32.
"""

from __future__ import annotations

import json
import struct
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from robot_charger.common.clock import now_ns
from robot_charger.common.wires import WireError, run_directory

_MAP = struct.Struct(">QQiiiI")
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


def decode_registers(registers: list[int], stamp_ns: int) -> Reading:
    """Modbus registers as a reading. Raises MeterError on a wrong count."""
    if len(registers) != REGISTERS:
        raise MeterError(f"the meter answered {len(registers)} registers instead of {REGISTERS}")
    values = _MAP.unpack(struct.pack(f">{REGISTERS}H", *registers))
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
    """Modbus TCP. ``address`` is asked before each connection, so that a meter that moved is found again."""

    def __init__(self, unit: int, address: Callable[[], tuple[str, int]]) -> None:
        self._unit = unit
        self._address = address
        self._client: Any = None

    def read(self) -> Reading:
        from pymodbus.client import ModbusTcpClient
        from pymodbus.exceptions import ModbusException

        try:
            if self._client is None:
                host, port = self._address()
                client = ModbusTcpClient(host, port=port, timeout=0.5, retries=0)
                if not client.connect():
                    raise MeterError(f"no Modbus meter at {host}:{port}")
                self._client = client
            answer = self._client.read_input_registers(0, count=REGISTERS, device_id=self._unit)
        except (ModbusException, OSError) as error:
            self.close()
            raise MeterError(f"meter of EVSE {self._unit}: {error}") from error
        if answer.isError():
            raise MeterError(f"meter of EVSE {self._unit}: {answer}")
        return decode_registers(answer.registers, now_ns())

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


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


def rack_address() -> tuple[str, int]:
    """Where the simulated rack serves its meters. Raises MeterError while it is not up."""
    try:
        place = json.loads((run_directory() / "rack.json").read_text())["modbus"]
        return str(place["host"]), int(place["port"])
    except (OSError, ValueError, KeyError, WireError) as error:
        raise MeterError(f"no simulated meter: {error}") from error


def open_meter(kind: str, address: str, unit: int) -> Meter | None:
    """The meter of one EVSE, None for the kind "none". Raises ValueError on an impossible address."""
    if kind == "none":
        return None
    if kind == "simulated":
        return SimulatedMeter(unit)
    if not address:
        return ModbusMeter(unit, rack_address)
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"parameter meter.address = {address!r} must be HOST:PORT")
    return ModbusMeter(unit, lambda: (host, int(port)))


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
