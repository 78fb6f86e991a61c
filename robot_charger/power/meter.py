"""The DC meter of an EVSE: a small interface, one class per kind.

Register map of the Modbus meter (input registers, big-endian words, unit id = EVSE): 0 import u64 [0.01 Wh],
4 export u64 [0.01 Wh], 8 voltage i32 [mV], 10 current i32 [mA], 12 power i32 [0.1 W], 14 serial number u32.
A meter without signs counts in u32 instead.

A meter that signs takes 17 registers at 64 (command: 1 begin, 2 end of a transaction; 32 characters of the session)
and holds the signed reading (OCMF) from 100 on: its length in bytes, then two characters a register.
"""

from __future__ import annotations

import json
import math
import struct
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from robot_charger.common.clock import now_ns
from robot_charger.common.wires import WireError, run_directory
from robot_charger.power.meter_map import MapError, MeterMap, load
from robot_charger.power.modbus_line import LineError, ModbusLine
from robot_charger.power.parameters import PowerParameters

_MAP = struct.Struct(">QQiiiI")
_UNSIGNED_MAP = struct.Struct(">QQIIII")
REGISTERS = _MAP.size // 2
WATT_HOUR = 0.01
SIGN_AT, SIGNED_AT = 64, 100  # registers
SIGN_TRIES = 5
SESSION_CHARACTERS = 32
MOST_REGISTERS = 120  # read at a time
LONGEST_SIGNED = 4000  # characters
BEGIN, END = "B", "E"  # as OCMF names the readings of a transaction


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


def encode_request(kind: str, session_id: str) -> list[int]:
    """Registers from SIGN_AT: command and session."""
    name = session_id.replace("-", "").encode("ascii", "replace")[:SESSION_CHARACTERS].ljust(SESSION_CHARACTERS, b"\0")
    return [1 if kind == BEGIN else 2, *struct.unpack(f">{SESSION_CHARACTERS // 2}H", name)]


def decode_request(words: list[int]) -> tuple[str, str]:
    """(kind, session) of those registers. Raises MeterError on others."""
    if len(words) != 1 + SESSION_CHARACTERS // 2 or words[0] not in (1, 2):
        raise MeterError("no request for a signed reading")
    name = struct.pack(f">{SESSION_CHARACTERS // 2}H", *words[1:]).rstrip(b"\0").decode("ascii", "replace")
    return BEGIN if words[0] == 1 else END, name


class Witness:
    """When one EVSE's meter is to sign: as a session begins here, and each time that its transfer ends."""

    def __init__(self) -> None:
        self._session = ""
        self._delivered = False

    def follow(self, session_id: str, delivering: bool) -> tuple[str, str] | None:
        """(kind, session) of a reading that is due now."""
        if session_id and session_id != self._session:
            self._session, self._delivered = session_id, delivering
            return BEGIN, session_id
        if self._delivered and not delivering:
            self._delivered = False
            return END, self._session
        self._delivered = self._delivered or delivering
        return None


class Meter(ABC):
    """One EVSE's meter."""

    @abstractmethod
    def read(self) -> Reading:
        """Read it now. Raises MeterError."""

    def sign(self, kind: str, session_id: str) -> str:
        """The signed reading (OCMF) at the begin or the end of a session. Raises MeterError."""
        raise MeterError("this meter does not sign")

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

    def sign(self, kind: str, session_id: str) -> str:
        try:
            (length,) = self._line.exchange(self._unit, SIGN_AT, encode_request(kind, session_id), SIGNED_AT, 1)
            if not 0 < length <= LONGEST_SIGNED:
                raise MeterError(f"meter of EVSE {self._unit}: a signed reading of {length} characters")
            words: list[int] = []
            count = -(-length // 2)
            while len(words) < count:
                part = min(MOST_REGISTERS, count - len(words))
                words += self._line.read_input(self._unit, SIGNED_AT + 1 + len(words), part)
        except LineError as error:
            raise MeterError(f"meter of EVSE {self._unit}: {error}") from error
        return struct.pack(f">{count}H", *words)[:length].decode("ascii", "replace")

    def close(self) -> None:
        self._line.close()


class MappedMeter(Meter):
    """A meter of another make, by its register map. It has no serial number here and does not sign."""

    def __init__(self, unit: int, line: ModbusLine, registers: MeterMap, reversed_: bool = False) -> None:
        self._unit = unit
        self._line = line
        self._map = registers
        self._sign = -1.0 if reversed_ else 1.0

    def read(self) -> Reading:
        try:
            values = self._map.read(lambda function, first, count: self._line.read(self._unit, function, first, count))
        except (LineError, ValueError) as error:
            raise MeterError(f"meter {self._map.name}, unit {self._unit}: {error}") from error
        energies = (values["import_wh"], values["export_wh"])
        imported, exported = energies[::-1] if self._sign < 0 else energies
        power_w = self._sign * values["power_w"]
        current_a = math.copysign(values["current_a"], power_w) if values["current_a"] >= 0 else values["current_a"]
        if values["current_a"] < 0:
            current_a *= self._sign
        return Reading(now_ns(), f"unit {self._unit}", imported, exported, values["voltage_v"], current_a, power_w)

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


SITE = 0  # key of the site's meter among those of the EVSEs


def open_meters(parameters: PowerParameters) -> dict[int, Meter]:
    """The meter of every EVSE, none for the kind "none"; Modbus meters share their line, unit id = EVSE. The site's
    meter, where ``meter.site_unit`` names one, has the key SITE.

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
        line = ModbusLine(
            f"rtu:{address}" if kind == "modbus-rtu" else address, timeout_s=parameters.meter__timeout_ms / 1e3
        )
    except ValueError as error:
        raise ValueError(f"parameter meter.address = {error}") from error
    units = dict(zip(evses, parameters.meter__units, strict=False)) if any(parameters.meter__units) else {}
    site = _site_meter(parameters, line)
    if not parameters.meter__map:
        return {**{evse: ModbusMeter(units.get(evse, evse), line, parameters.meter__signed) for evse in evses}, **site}
    registers = _registers("meter.map", parameters.meter__map)
    reverse = parameters.meter__reversed
    return {**{evse: MappedMeter(units.get(evse, evse), line, registers, reverse) for evse in evses}, **site}


def _site_meter(parameters: PowerParameters, line: ModbusLine) -> dict[int, Meter]:
    """The meter of the whole site on the same line, positive from the grid; none where no unit is named."""
    unit = parameters.meter__site_unit
    if not unit:
        return {}
    name = parameters.meter__site_map or parameters.meter__map
    if not name:
        return {SITE: ModbusMeter(unit, line, True)}
    return {SITE: MappedMeter(unit, line, _registers("meter.site_map", name), False)}


def _registers(parameter: str, name: str) -> MeterMap:
    try:
        return load(name)
    except MapError as error:
        raise ValueError(f"parameter {parameter}: {error}") from error


class MeterReader:
    """Reads the meters in a thread of its own, 5 times a second; keeps the last good reading of each."""

    PERIOD_S = 0.2

    def __init__(
        self,
        meters: dict[int, Meter],
        on_reading: Callable[[int, Reading | None, str], None],
        on_signed: Callable[[int, str, str], None] = lambda evse, text, error: None,
        failed: Callable[[BaseException], None] | None = None,
    ) -> None:
        self._meters = meters
        self._on_reading = on_reading
        self._on_signed = on_signed
        self._failed = failed
        self._requests: deque[tuple[int, str, str, int]] = deque(maxlen=100)  # ..., tries left
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="meter", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def sign(self, evse: int, kind: str, session_id: str) -> None:
        """Have a reading signed soon; ``on_signed`` is told."""
        self._requests.append((evse, kind, session_id, SIGN_TRIES))

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2.0)
        for meter in self._meters.values():
            meter.close()

    def _run(self) -> None:
        """Read until closed. An error that is no MeterError ends the thread and goes to ``failed``."""
        try:
            self._read_on()
        except Exception as error:
            if self._failed is None:
                raise
            self._failed(error)

    def _read_on(self) -> None:
        while not self._stop.wait(self.PERIOD_S):
            if self._requests:
                self._sign(*self._requests.popleft())
            for evse, meter in self._meters.items():
                try:
                    self._on_reading(evse, meter.read(), "")
                except MeterError as error:
                    self._on_reading(evse, None, str(error))

    def _sign(self, evse: int, kind: str, session_id: str, tries: int) -> None:
        try:
            self._on_signed(evse, self._meters[evse].sign(kind, session_id), "")
        except (MeterError, KeyError) as error:
            if tries > 1:
                self._requests.appendleft((evse, kind, session_id, tries - 1))
            else:
                self._on_signed(evse, "", str(error))
