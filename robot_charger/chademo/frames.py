"""CHAdeMO frames as one table, one row a field: where it lies, its unit, and who says so.

500 kbit/s, 11-bit identifiers, 8 bytes, every multi-byte field little-endian, unused bits 0 (IEEE 2030.1.1 and
public implementations). ``config/chademo.dbc`` is printed from this table: ``python -m robot_charger.chademo.frames``.

Contested: rated capacity (0x101 bytes 5-6) counts 0.1 kWh by four sources, 0.11 kWh by three: the table has the
first, a parameter of the node the other. 0x201 holds time and energy in bytes 1-2 and 3-4 by three sources, 2-3 and
4-5 by one. 0x100 byte 1 is a maximum current on some cars by one source: not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

LENGTH = 8
Values = dict[str, float]


class FrameError(ValueError):
    """Not a frame of the table, or of wrong length, or a value that does not fit; the text names it."""


@dataclass(frozen=True)
class Field:
    """``bits`` bits from bit ``start`` (byte * 8 + bit, little-endian): physical = raw * scale + offset."""

    name: str
    start: int
    bits: int
    unit: str
    source: str
    scale: float = 1
    offset: float = 0

    @property
    def mask(self) -> int:
        return (1 << self.bits) - 1

    @property
    def limits(self) -> tuple[float, float]:
        ends = (self.offset, self.mask * self.scale + self.offset)
        return min(ends), max(ends)


@dataclass(frozen=True)
class Frame:
    identifier: int
    name: str
    sender: str  # EV or EVSE
    fields: tuple[Field, ...]


def _byte(name: str, at: int, unit: str, source: str) -> Field:
    return Field(name, at * 8, 8, unit, source)


def _word(name: str, at: int, unit: str, source: str, scale: float = 1) -> Field:
    return Field(name, at * 8, 16, unit, source, scale)


def _bit(name: str, at: int, bit: int, source: str) -> Field:
    return Field(name, at * 8 + bit, 1, "", source)


def _inverted(name: str, at: int, source: str) -> Field:
    """A current coded 255 - A."""
    return Field(name, at * 8, 8, "A", source, -1, 255)


ALL = "all sources"
EV, EVSE = "EV", "EVSE"
VEHICLE_LIMITS, VEHICLE_TIME, VEHICLE_CONTROL, VEHICLE_EXTENSION = 0x100, 0x101, 0x102, 0x110
STATION_LIMITS, STATION_STATUS, STATION_EXTENSION = 0x108, 0x109, 0x118
VEHICLE_V2X, VEHICLE_V2X_TIME, STATION_V2X, STATION_V2X_TIME = 0x200, 0x201, 0x208, 0x209
VEHICLE_MAKER, STATION_MAKER = 0x700, 0x708

_EXTENSION = (
    _bit("dynamic_control", 0, 0, "3 sources: current limit may change during the charge"),
    _bit("high_current", 0, 1, "3 sources"),
    _bit("high_voltage", 0, 2, "3 sources; one document says byte 1"),
)

TABLE: tuple[Frame, ...] = (
    Frame(VEHICLE_LIMITS, "vehicle_limits", EV, (
        _byte("min_current_a", 0, "A", "5 sources; reserved in older text"),
        _word("min_battery_v", 2, "V", "5 sources; reserved in older text"),
        _word("max_battery_v", 4, "V", ALL),
        _byte("rate_reference", 6, "%", "all: what 100 % is in 0x102 byte 6"),
    )),
    Frame(VEHICLE_TIME, "vehicle_time", EV, (
        _byte("max_time_10s", 1, "10 s", "all: 255 = use the minutes"),
        _byte("max_time_min", 2, "min", ALL),
        _byte("estimated_min", 3, "min", "all, from 1.0"),
        _word("capacity_kwh", 5, "kWh", "4 sources: 0.1 kWh, 3 sources: 0.11 kWh", 0.1),
    )),
    Frame(VEHICLE_CONTROL, "vehicle_control", EV, (
        _byte("protocol", 0, "", "5 sources: 0 before 0.9, 1 = 0.9, 2 = 1.x, 3 = 2.0"),
        _word("target_v", 1, "V", ALL),
        _byte("request_a", 3, "A", "all; 255 in high-current mode by one source"),
        _bit("overvoltage", 4, 0, "7 sources"),
        _bit("undervoltage", 4, 1, "7 sources"),
        _bit("current_deviation", 4, 2, "7 sources"),
        _bit("over_temperature", 4, 3, "7 sources"),
        _bit("voltage_deviation", 4, 4, "7 sources"),
        _bit("enabled", 5, 0, "all: charging enabled"),
        _bit("not_in_park", 5, 1, ALL),
        _bit("system_fault", 5, 2, "all: 1 = stop"),
        _bit("contactor_open", 5, 3, "all, from protocol 2: contactor open, welding check finished"),
        _bit("stop_before_charge", 5, 4, "all, from protocol 2"),
        _bit("legacy_dynamic", 5, 6, "1 source, set by older cars; not used"),
        _bit("discharge", 5, 7, "4 sources: compatible with discharge"),
        _byte("soc", 6, "%", "all: of the reference in 0x100 byte 6"),
    )),
    Frame(STATION_LIMITS, "station_limits", EVSE, (
        _byte("welding_detection", 0, "", "all: 0 = none"),
        _word("available_v", 1, "V", "all: fixed from the first frame"),
        _byte("available_a", 3, "A", "all: may fall during the charge under dynamic control"),
        _word("threshold_v", 4, "V", "4 sources: the smaller of 0x100 maximum and available voltage"),
    )),
    Frame(STATION_STATUS, "station_status", EVSE, (
        _byte("protocol", 0, "", ALL),
        _word("present_v", 1, "V", ALL),
        _byte("present_a", 3, "A", ALL),
        _bit("discharge", 4, 0, "6 sources; needs 0x208 and 0x209"),
        _bit("charging", 5, 0, ALL),
        _bit("malfunction", 5, 1, "all: of the charger"),
        _bit("locked", 5, 2, "all: connector locked, energised"),
        _bit("incompatible", 5, 3, "all: battery"),
        _bit("system_malfunction", 5, 4, ALL),
        _bit("stop_control", 5, 5, "all: 1 = stopped or stopping"),
        _byte("remaining_10s", 6, "10 s", "all: 255 = use the minutes"),
        _byte("remaining_min", 7, "min", ALL),
    )),
    Frame(VEHICLE_EXTENSION, "vehicle_extension", EV, (
        *_EXTENSION,
        _word("extended_request_a", 1, "A", "1 source, unverified: with high current on both sides"),
    )),
    Frame(STATION_EXTENSION, "station_extension", EVSE, _EXTENSION),
    Frame(VEHICLE_V2X, "vehicle_v2x", EV, (
        _inverted("max_discharge_a", 0, "4 sources: 255 - A"),
        _word("min_discharge_v", 4, "V", "4 sources"),
        _byte("min_level", 6, "%", "per cent; 0.1 kWh before the guideline 1.0"),
        _byte("max_level", 7, "%", "per cent; 0.1 kWh before the guideline 1.0"),
    )),
    Frame(VEHICLE_V2X_TIME, "vehicle_v2x_time", EV, (
        _byte("sequence", 0, "", ALL),
        _word("discharge_min", 1, "min", "3 sources; 1 source: bytes 2-3"),
        _word("energy_kwh", 3, "kWh", "3 sources; 1 source: bytes 4-5", 0.1),
    )),
    Frame(STATION_V2X, "station_v2x", EVSE, (
        _inverted("present_discharge_a", 0, "5 sources: 255 - A"),
        _word("available_input_v", 1, "V", "5 sources"),
        _inverted("available_input_a", 3, "5 sources: 255 - A"),
        _word("lower_threshold_v", 6, "V", "5 sources"),
    )),
    Frame(STATION_V2X_TIME, "station_v2x_time", EVSE, (
        _byte("sequence", 0, "", ALL),
        _word("remaining_min", 1, "min", ALL),
    )),
    Frame(VEHICLE_MAKER, "vehicle_maker", EV, (_byte("automaker", 0, "", "2 sources"),)),
    Frame(STATION_MAKER, "station_maker", EVSE, (_byte("maker", 0, "", "1 source"),)),
)  # fmt: skip

FRAMES: dict[int, Frame] = {frame.identifier: frame for frame in TABLE}
VEHICLE_IDS = frozenset(f.identifier for f in TABLE if f.sender == EV)
# Sent by real cars, meaning unknown: heard and let pass.
UNKNOWN_VEHICLE_IDS = frozenset({0x202})
FAULT_BITS = ("overvoltage", "undervoltage", "current_deviation", "over_temperature", "voltage_deviation")


def encode(identifier: int, values: Mapping[str, float]) -> bytes:
    """Eight bytes. Fields not named are zero. Raises FrameError on an unknown name or a value that does not fit."""
    frame = _frame(identifier)
    left = dict(values)
    raw = 0
    for field in frame.fields:
        value = left.pop(field.name, None)
        if value is None:
            continue
        number = round((value - field.offset) / field.scale)
        if not 0 <= number <= field.mask:
            low, high = field.limits
            text = f"0x{identifier:03X} {field.name} = {value:g} {field.unit}".rstrip()
            raise FrameError(f"{text} is not between {low:g} and {high:g}")
        raw |= number << field.start
    if left:
        raise FrameError(f"0x{identifier:03X} has no field {', '.join(sorted(left))}")
    return raw.to_bytes(LENGTH, "little")


def decode(identifier: int, data: bytes) -> Values:
    """Physical values by name. Raises FrameError on an unknown identifier or another length than eight."""
    frame = _frame(identifier)
    if len(data) != LENGTH:
        raise FrameError(f"0x{identifier:03X} with {len(data)} bytes instead of {LENGTH}")
    raw = int.from_bytes(data, "little")
    return {f.name: ((raw >> f.start) & f.mask) * f.scale + f.offset for f in frame.fields}


def _frame(identifier: int) -> Frame:
    try:
        return FRAMES[identifier]
    except KeyError:
        raise FrameError(f"0x{identifier:03X} is no CHAdeMO frame") from None


CYCLE_MS = 100  # every frame, both ways


def dbc() -> str:
    """The table as a DBC file, as SavvyCAN and cantools read it."""
    lines = ['VERSION ""', "", "NS_ :", "", "BS_:", "", f"BU_: {EV} {EVSE}", ""]
    values: list[str] = []
    comments = ['CM_ "CHAdeMO between vehicle (EV) and station (EVSE), 500 kbit/s, every 100 ms.";']
    for frame in TABLE:
        receiver = EVSE if frame.sender == EV else EV
        lines.append(f"BO_ {frame.identifier} {frame.name}: {LENGTH} {frame.sender}")
        for field in frame.fields:
            low, high = field.limits
            lines.append(
                f" SG_ {field.name} : {field.start}|{field.bits}@1+ ({field.scale:g},{field.offset:g}) "
                f'[{low:g}|{high:g}] "{field.unit}" {receiver}'
            )
            comments.append(f'CM_ SG_ {frame.identifier} {field.name} "{field.source}";')
            if field.bits == 1:
                values.append(f'VAL_ {frame.identifier} {field.name} 0 "no" 1 "yes" ;')
            elif field.name == "protocol":
                values.append(f'VAL_ {frame.identifier} {field.name} 1 "0.9" 2 "1.x" 3 "2.0" ;')
        lines.append("")
    cycle = ['BA_DEF_ BO_ "GenMsgCycleTime" INT 0 60000;', f'BA_DEF_DEF_ "GenMsgCycleTime" {CYCLE_MS};']
    return "\n".join([*lines, *comments, *cycle, *values, ""])


if __name__ == "__main__":
    print(dbc(), end="")
