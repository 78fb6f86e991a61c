"""The frames of the EK3 bus, bytes and units. config/ek3.dbc is their documented truth; a test holds the two
against each other.

All values are little-endian. Set-point and safety frames end with an alive counter (u8, advances with every frame)
and a CRC-16 (common/e2e.py), so that a repeated, damaged or misplaced frame is told from a live one.

Ids, by range: 0x100 + address module status (10 ms), 0x200 + address module set-point (10 ms), 0x2E0 + group
set-points of 15 modules in one frame (10 ms, instead of the former), 0x300 + address module sensors (100 ms),
0x400 power's command to the safety controller, 0x408 its answer, 0x409 its matrix contactors, 0x40A export permitted
by the grid side, 0x410 + EVSE output measurement, 0x430 + EVSE contactors, insulation and bay (all 10 ms).
"""

from __future__ import annotations

import struct
from binascii import crc_hqx
from dataclasses import dataclass
from enum import IntEnum, IntFlag

import numpy as np

from robot_charger.common import e2e

crc, intact, _sealed = e2e.crc, e2e.intact, e2e.seal
Alive = e2e.Sequence

STATUS_ID = 0x100
SETPOINT_ID = 0x200
GROUP_ID = 0x2E0
SENSOR_ID = 0x300
POWER_ID = 0x400
SAFETY_ID = 0x408
LINK_ID = 0x409
GRID_ID = 0x40A
OUTPUT_ID = 0x410
EVSE_ID = 0x430

MAX_ADDRESS = 0xDF  # 0x200 + address stays below GROUP_ID
MAX_EVSES = 16
GROUP_SIZE = 15

VOLT = 0.05  # [V] per bit
AMPERE = 0.01  # [A] per bit, of one module
OUTPUT_AMPERE = 0.1  # [A] per bit, of an output
OHM = 100.0  # [ohm] per bit
CELSIUS_OFFSET = -50.0  # [deg C] of a byte's zero
HOUR = 0.1  # [h] per bit
MAX_OHM = 65535 * OHM


class State(IntEnum):
    """What a module says it does."""

    INIT = 1
    STANDBY = 2
    RUNNING = 3
    DERATED = 4
    FAULT = 5


class ModuleFault(IntFlag):
    OVERVOLTAGE = 1
    OVERCURRENT = 2
    OVERTEMPERATURE = 4
    INPUT = 8
    FAN = 16
    SETPOINT_LOST = 32
    HARDWARE = 64
    ADDRESS_CLASH = 128


class Control(IntFlag):
    """Control bits of a set-point frame."""

    ENABLE = 1
    CLEAR_FAULTS = 4


class Safety(IntFlag):
    """Bits of the safety controller's status."""

    EMERGENCY_STOP = 1  # the chain is open now
    EMERGENCY_LATCHED = 2  # until reset on site
    DOOR_OPEN = 4
    OVER_TEMPERATURE = 8
    POWER_LOST = 16  # power's heartbeat was not heard: contactors open
    MONITOR_FAULT = 32
    INTERNAL = 64
    HEARS_POWER = 128  # the echo is valid
    FIRE = 256
    MAINS_LOST = 512  # the station runs on its uninterruptible supply
    ARM_ENABLED = 1024


REASONS = (
    "none",
    "emergency stop",
    "the channels of the E-stop chain differ",
    "fire",
    "over-voltage",
    "reversed polarity",
    "over-current",
    "current with open contactors",
    "protective earth lost",
    "heartbeat lost",
    "a door is open",
    "mains lost",
    "over-temperature",
    "a contactor is welded",
    "one pole is open, the other closed",
    "the pilot left C and D",
    "the vehicle moved",
)
"""Why the safety controller stopped: SafetyStatus.reason as text."""


class Monitor(IntEnum):
    """State of an insulation monitor."""

    OFF = 0
    SELF_TEST = 1
    MEASURING = 2  # self test passed
    FAULT = 3  # self test failed
    INVALID = 4  # it measures, and marks this reading as not valid yet


class Bay(IntFlag):
    """Bits of the per-EVSE safety frame."""

    POSITIVE_CLOSED = 1
    NEGATIVE_CLOSED = 2
    COIL = 4  # the controller drives the contactors
    OCCUPIED = 8
    IMMOBILISED = 16
    FIELD_CLEAR = 32
    TRIPPED = 64  # the safety controller tripped this EVSE: reset on site
    INHIBITED = 128  # its modules are held off by wire


POLES = int(Bay.POSITIVE_CLOSED | Bay.NEGATIVE_CLOSED)


STATUS = np.dtype(
    [
        ("voltage", "<u2"),
        ("current", "<i2"),
        ("setpoint", "<i2"),
        ("available", "<u2"),
        ("faults", "<u2"),
        ("temperature", "u1"),
        ("ambient", "u1"),
        ("state", "u1"),
        ("counter", "u1"),
        ("serial_tag", "<u2"),
    ]
)
"""Module status, 16 bytes: measured V and A, the set-point it obeys, the current it could give now, fault bits,
hottest and ambient temperature, state, counter, low half of the serial number (two modules with one address show
two tags)."""

SENSOR = np.dtype(
    [
        ("hours", "<u4"),
        ("input_voltage", "<u2"),
        ("input_current", "<u2"),
        ("efficiency", "<u2"),
        ("serial", "<u4"),
        ("firmware", "<u2"),
    ]
)
"""Module sensors, 16 bytes: operating hours, DC input, efficiency in 0.01 %, serial number, firmware version."""

SETPOINT = np.dtype([("voltage", "<u2"), ("current", "<i2"), ("control", "u1"), ("counter", "u1"), ("crc", "<u2")])
"""Set-point of one module, 8 bytes."""

GROUP = np.dtype(
    [
        ("modules", [("voltage", "<u2"), ("current", "<i2")], (GROUP_SIZE,)),
        ("control", "u1"),
        ("counter", "u1"),
        ("crc", "<u2"),
    ]
)
"""Set-points of 15 neighbours, 64 bytes; the top bit of each voltage is its enable."""

_POWER = struct.Struct("<HHHHBBB2xBH")
_SAFETY = struct.Struct("<HHHBBBBH")
_LINKS = struct.Struct("<HHBBH")
_GRID = struct.Struct("<IxBH")
_OUTPUT = struct.Struct("<hhhBBBBxxxBH")
_EVSE = struct.Struct("<HBBBBH")
LENGTHS = {
    "power": _POWER.size,
    "safety": _SAFETY.size,
    "links": _LINKS.size,
    "grid": _GRID.size,
    "output": _OUTPUT.size,
    "evse": _EVSE.size,
}


def rows(frames: list[bytes]) -> np.ndarray:
    """Frames of one length as u8 (n, length)."""
    return np.frombuffer(b"".join(frames), np.uint8).reshape(len(frames), -1)


def raw_volts(voltage_v: np.ndarray, top: int = 0xFFFF) -> np.ndarray:
    return np.minimum(np.maximum(np.rint(np.asarray(voltage_v) / VOLT), 0), top).astype(np.uint16)


def raw_amperes(current_a: np.ndarray) -> np.ndarray:
    return np.minimum(np.maximum(np.rint(np.asarray(current_a) / AMPERE), -32768), 32767).astype(np.int16)


def raw_celsius(temperature_c: np.ndarray) -> np.ndarray:
    return np.minimum(np.maximum(np.rint(np.asarray(temperature_c) - CELSIUS_OFFSET), 0), 255).astype(np.uint8)


def _word(value: float, unit: float, low: int = 0, high: int = 0xFFFF) -> int:
    """One value in units of ``unit``, inside ``low`` to ``high``."""
    return max(low, min(high, round(value / unit)))


def _celsius(temperature_c: float) -> int:
    return _word(temperature_c - CELSIUS_OFFSET, 1.0, 0, 0xFF)


def encode_setpoints(
    addresses: np.ndarray,
    voltage_v: np.ndarray,
    current_a: np.ndarray,
    enable: np.ndarray,
    counter: int,
    control: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """One frame per module: ids (n) and data u8 (n, 8)."""
    ids = SETPOINT_ID + np.asarray(addresses)
    frames = np.zeros(len(ids), SETPOINT)
    frames["voltage"] = raw_volts(voltage_v)
    frames["current"] = raw_amperes(current_a)
    frames["control"] = control | (np.asarray(enable) * int(Control.ENABLE)).astype(np.uint8)
    frames["counter"] = counter & 0xFF
    data = frames.view(np.uint8).reshape(len(ids), SETPOINT.itemsize)
    raw = data.tobytes()
    frames["crc"] = [crc_hqx(raw[8 * i : 8 * i + 6], identifier) for i, identifier in enumerate(ids.tolist())]
    return ids, data


def encode_groups(
    addresses: np.ndarray,
    voltage_v: np.ndarray,
    current_a: np.ndarray,
    enable: np.ndarray,
    counter: int,
    control: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """One frame per 15 addresses (1 to 15 are group 0): ids (n) and data u8 (n, 64)."""
    slots = np.asarray(addresses) - 1
    groups = int(slots.max()) // GROUP_SIZE + 1
    frames = np.zeros(groups, GROUP)
    row, column = slots // GROUP_SIZE, slots % GROUP_SIZE
    modules = frames["modules"]
    modules["voltage"][row, column] = raw_volts(voltage_v, 0x7FFF) | (np.asarray(enable) << 15).astype(np.uint16)
    modules["current"][row, column] = raw_amperes(current_a)
    frames["control"] = control
    frames["counter"] = counter & 0xFF
    ids = GROUP_ID + np.arange(groups)
    data = frames.view(np.uint8).reshape(groups, GROUP.itemsize)
    raw = data.tobytes()
    frames["crc"] = [crc_hqx(raw[64 * i : 64 * i + 62], GROUP_ID + i) for i in range(groups)]
    return ids, data


def decode_setpoints(ids: np.ndarray, data: np.ndarray) -> tuple[np.ndarray, ...]:
    """What frames of ``encode_setpoints`` or ``encode_groups`` say, those with a wrong CRC left out.

    Addresses, voltages [V], currents [A], enable and alive counter, a row per module; then the number of frames
    left out. ``ids`` (n) and ``data`` u8 (n, 8) or (n, 64).
    """
    length = data.shape[1]
    raw = data.tobytes()
    sums = [crc_hqx(raw[length * i : length * i + length - 2], identifier) for i, identifier in enumerate(ids.tolist())]
    frames = np.frombuffer(raw, SETPOINT if length == SETPOINT.itemsize else GROUP)
    good = frames["crc"] == sums
    bad = np.array(len(ids) - int(good.sum()))
    if bad:
        ids, frames = ids[good], frames[good]
    if length == SETPOINT.itemsize:
        enable = frames["control"] & int(Control.ENABLE) != 0
        volts, amperes = frames["voltage"] * VOLT, frames["current"] * AMPERE
        return ids.astype(np.int64) - SETPOINT_ID, volts, amperes, enable, frames["counter"], bad
    modules = frames["modules"]
    first = (ids.astype(np.int64) - GROUP_ID) * GROUP_SIZE + 1
    addresses = (first[:, None] + np.arange(GROUP_SIZE)).ravel()
    raw_v = modules["voltage"].ravel()
    counters = np.repeat(frames["counter"], GROUP_SIZE)
    return addresses, (raw_v & 0x7FFF) * VOLT, modules["current"].ravel() * AMPERE, raw_v >> 15 != 0, counters, bad


def decode_status(data: np.ndarray) -> np.ndarray:
    """Rows of 16 bytes as STATUS records."""
    return np.ascontiguousarray(data[:, : STATUS.itemsize]).view(STATUS)[:, 0]


def decode_sensor(data: np.ndarray) -> np.ndarray:
    """Rows of 16 bytes as SENSOR records."""
    return np.ascontiguousarray(data[:, : SENSOR.itemsize]).view(SENSOR)[:, 0]


@dataclass(frozen=True)
class PowerCommand:
    """Power's heartbeat and its requests. Bit 0 of each mask is EVSE 1."""

    contactors: int = 0
    monitors: int = 0  # insulation monitor on
    self_tests: int = 0  # insulation monitor shall test itself
    links: int = 0  # matrix and series contactors
    state: int = 0  # 0 idle, 1 serving, 2 stopping
    counter: int = 0
    echo: int = 0  # the newest counter of SafetyStatus that power took
    echo_valid: bool = False

    def encode(self) -> bytes:
        masks = self.contactors, self.monitors, self.self_tests, self.links
        rest = self.state, self.echo & 0xFF, int(self.echo_valid), self.counter & 0xFF, 0
        return _sealed(POWER_ID, _POWER.pack(*masks, *rest))

    @staticmethod
    def decode(data: bytes) -> PowerCommand | None:
        """None when the length or the CRC is wrong."""
        if len(data) != _POWER.size or not intact(POWER_ID, data):
            return None
        contactors, monitors, self_tests, links, state, echo, flags, counter, _ = _POWER.unpack(data)
        return PowerCommand(contactors, monitors, self_tests, links, state, counter, echo, bool(flags & 1))


@dataclass(frozen=True)
class SafetyStatus:
    """What the safety controller says of the station."""

    bits: int = 0
    contactors: int = 0  # feedback of both poles, bit 0 is EVSE 1
    cabinet_c: float = 25.0
    counter: int = 0
    tripped: int = 0  # EVSEs that the controller has tripped until a person resets them
    echo: int = 0  # the newest counter of PowerCommand that the controller took
    reason: int = 0  # of the first stop since the last reset (guard.logic.Reason)

    def encode(self) -> bytes:
        last = _celsius(self.cabinet_c), self.echo & 0xFF, self.reason, self.counter & 0xFF, 0
        return _sealed(SAFETY_ID, _SAFETY.pack(self.bits, self.contactors, self.tripped, *last))

    @staticmethod
    def decode(data: bytes) -> SafetyStatus | None:
        if len(data) != _SAFETY.size or not intact(SAFETY_ID, data):
            return None
        bits, contactors, tripped, cabinet, echo, reason, counter, _ = _SAFETY.unpack(data)
        return SafetyStatus(bits, contactors, cabinet + CELSIUS_OFFSET, counter, tripped, echo, reason)


@dataclass(frozen=True)
class LinkStatus:
    """Feedback of the matrix contactors, bits as in PowerCommand.links; sent by a controller that has some."""

    closed: int = 0
    counter: int = 0

    def encode(self) -> bytes:
        return _sealed(LINK_ID, _LINKS.pack(self.closed, 0, 0, self.counter & 0xFF, 0))

    @staticmethod
    def decode(data: bytes) -> LinkStatus | None:
        if len(data) != LENGTHS["links"] or not intact(LINK_ID, data):
            return None
        closed, _, _, counter, _ = _LINKS.unpack(data)
        return LinkStatus(closed, counter)


@dataclass(frozen=True)
class GridPermit:
    """What the grid side (its protection relay) lets the station feed back now, at its grid connection [W]."""

    export_w: float = 0.0
    counter: int = 0

    def encode(self) -> bytes:
        return _sealed(GRID_ID, _GRID.pack(_word(self.export_w, 1.0, 0, 0xFFFFFFFF), self.counter & 0xFF, 0))

    @staticmethod
    def decode(data: bytes) -> GridPermit | None:
        if len(data) != _GRID.size or not intact(GRID_ID, data):
            return None
        watts, counter, _ = _GRID.unpack(data)
        return GridPermit(float(watts), counter)


@dataclass(frozen=True)
class OutputMeasurement:
    """What the measuring board of one output sees: current into the vehicle and voltage of + are positive."""

    voltage_v: float = 0.0  # vehicle's side of the contactors; negative: the poles are exchanged
    bank_voltage_v: float = 0.0
    current_a: float = 0.0
    positive_c: float = 25.0  # contact pins
    negative_c: float = 25.0
    cable_c: float = 25.0
    coolant_c: float = 25.0  # of a cooled cable, at its warm end
    counter: int = 0

    def encode(self, evse: int) -> bytes:
        data = _OUTPUT.pack(
            _word(self.voltage_v, VOLT, -32768, 32767),
            _word(self.bank_voltage_v, VOLT, -32768, 32767),
            _word(self.current_a, OUTPUT_AMPERE, -32768, 32767),
            _celsius(self.positive_c),
            _celsius(self.negative_c),
            _celsius(self.cable_c),
            _celsius(self.coolant_c),
            self.counter & 0xFF,
            0,
        )
        return _sealed(OUTPUT_ID + evse, data)

    @staticmethod
    def decode(evse: int, data: bytes) -> OutputMeasurement | None:
        if len(data) != _OUTPUT.size or not intact(OUTPUT_ID + evse, data):
            return None
        voltage, bank, current, positive, negative, cable, coolant, counter, _ = _OUTPUT.unpack(data)
        return OutputMeasurement(
            voltage * VOLT,
            bank * VOLT,
            current * OUTPUT_AMPERE,
            positive + CELSIUS_OFFSET,
            negative + CELSIUS_OFFSET,
            cable + CELSIUS_OFFSET,
            coolant + CELSIUS_OFFSET,
            counter,
        )


@dataclass(frozen=True)
class EvseStatus:
    """Contactors, insulation monitor and bay of one EVSE, from the safety controller."""

    insulation_ohm: float = 0.0
    monitor: int = Monitor.OFF
    sequence: int = 0  # finished measurements since the monitor was switched on
    bits: int = 0
    counter: int = 0

    def encode(self, evse: int) -> bytes:
        ohm = _word(self.insulation_ohm, OHM)
        data = _EVSE.pack(ohm, self.monitor, self.sequence & 0xFF, self.bits, self.counter & 0xFF, 0)
        return _sealed(EVSE_ID + evse, data)

    @staticmethod
    def decode(evse: int, data: bytes) -> EvseStatus | None:
        if len(data) != _EVSE.size or not intact(EVSE_ID + evse, data):
            return None
        ohm, monitor, sequence, bits, counter, _ = _EVSE.unpack(data)
        return EvseStatus(ohm * OHM, monitor, sequence, bits, counter)

    @property
    def closed(self) -> bool:
        """Both poles report closed."""
        return self.bits & POLES == POLES

    @property
    def open(self) -> bool:
        """Both poles report open."""
        return not self.bits & POLES
