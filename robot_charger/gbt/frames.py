"""GB/T 27930-2015 messages as one table, one row a field: where it lies, its unit, and who says so.

CAN 2.0B, 250 kbit/s, J1939 identifiers: charger 0x56, BMS 0xF4. Multi-byte fields come low byte first, byte numbers
count from 1 as in the standard. Unused bits are ignored on reception and sent as 1. Currents are positive into the
vehicle here; on the bus charging is negative, raw = 4000 - 10 x A. Messages above eight bytes travel by the transport
protocol (``transport``). ``config/gbt.dbc`` is printed from this table: ``python -m robot_charger.gbt.frames``.

The standard was not read. SPN = field table published with a parser of GB/T 27930-2015; measured = two recorded
sessions of real chargers agree; N src = so many independent implementations agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

CHARGER, BMS = 0x56, 0xF4  # J1939 addresses
SINGLE = 8  # bytes of the longest message in one frame
READY = 0xAA


class FrameError(ValueError):
    """Not a message of the table, or of wrong length, or a value that does not fit; the text names it."""


@dataclass(frozen=True)
class Field:
    """``bits`` bits from bit ``start`` (counted from 0): physical = raw * scale + offset."""

    name: str
    start: int
    bits: int
    spn: int
    unit: str = ""
    scale: float = 1
    offset: float = 0
    values: Mapping[int, str] = field(default_factory=dict)  # meaning of single values
    kind: str = "number"  # or text (ASCII), bcd
    optional: bool = False  # encode() takes 0 when it is not named

    @property
    def mask(self) -> int:
        return (1 << self.bits) - 1

    @property
    def end(self) -> int:
        """Bytes that a message needs to hold this field."""
        return (self.start + self.bits + 7) // 8

    @property
    def limits(self) -> tuple[float, float]:
        ends = (self.offset, self.mask * self.scale + self.offset)
        return min(ends), max(ends)


@dataclass(frozen=True)
class Message:
    """``length`` bytes are sent. Shorter than ``least`` is refused, longer is read as far as the table goes."""

    name: str
    pf: int
    sender: int
    priority: int
    length: int
    fields: tuple[Field, ...]
    source: str
    period_s: float = 0.0  # nominal, of the sender
    least: int = 0
    length_2011: int = 0  # of the edition of 2011 where it differs

    @property
    def identifier(self) -> int:
        """29 bits. For a long message: the one it would have in a single frame."""
        receiver = BMS if self.sender == CHARGER else CHARGER
        return self.priority << 26 | self.pf << 16 | receiver << 8 | self.sender

    @property
    def pgn(self) -> int:
        return self.pf << 8


@dataclass(frozen=True)
class Decoded:
    """A message as physical values. A field that the message was too short for is missing."""

    name: str
    values: dict[str, float]
    texts: dict[str, str]

    def get(self, name: str, default: float = 0.0) -> float:
        return self.values.get(name, default)


Given = Mapping[str, float | str]


def _u(name: str, first: int, count: int, spn: int, unit: str = "", scale: float = 1, offset: float = 0) -> Field:
    """``count`` bytes from byte ``first``."""
    return Field(name, (first - 1) * 8, count * 8, spn, unit, scale, offset)


def _volts(name: str, first: int, spn: int) -> Field:
    return _u(name, first, 2, spn, "V", 0.1)


def _cell(name: str, first: int, spn: int) -> Field:
    return _u(name, first, 2, spn, "V", 0.01)


def _amps(name: str, first: int, spn: int) -> Field:
    """Positive into the vehicle."""
    return _u(name, first, 2, spn, "A", -0.1, 400)


def _celsius(name: str, first: int, spn: int) -> Field:
    return _u(name, first, 1, spn, "degC", 1, -50)


def _coded(name: str, first: int, spn: int, values: Mapping[int, str]) -> Field:
    return Field(name, (first - 1) * 8, 8, spn, values=values)


def _text(name: str, first: int, count: int, spn: int) -> Field:
    return Field(name, (first - 1) * 8, count * 8, spn, kind="text", optional=True)


def _bcd(name: str, first: int, count: int = 1) -> Field:
    return Field(name, (first - 1) * 8, count * 8, 2823, kind="bcd")


def _state(name: str, byte: int, pair: int, spn: int, event: str = "yes", other: str = "not_trustworthy") -> Field:
    """Two bits, ``pair`` 0 to 3 of a byte: 00 normal, 01 the event, 10 not trustworthy."""
    bit = (byte - 1) * 8 + pair * 2
    return Field(name, bit, 2, spn, values={0: "no", 1: event, 2: other}, optional=True)


def _states(spn: int, byte: int, *names: str) -> tuple[Field, ...]:
    return tuple(_state(name, byte + i // 4, i % 4, spn) for i, name in enumerate(names))


def _timeouts(spn: int, byte: int, *names: str) -> tuple[Field, ...]:
    return tuple(_state(name, byte, i, spn + i, "time_out") for i, name in enumerate(names))


BATTERIES = {
    1: "lead_acid", 2: "NiMH", 3: "LFP", 4: "LMO", 5: "LCO", 6: "ternary", 7: "polymer", 8: "LTO", 255: "other",
}  # fmt: skip
IDENTIFIED = {0: "not_identified", READY: "identified"}
READINESS = {0: "not_ready", READY: "ready", 255: "invalid"}
VERSION = (_u("version_minor", 1, 1, 2600), _u("version_major", 2, 2, 2600))

# Offsets of bits that the time-out and stop messages number on: see docs/gbt.md, contested points.
TABLE: tuple[Message, ...] = (
    Message("CHM", 0x26, CHARGER, 6, 3, VERSION, "measured, 2 src: 01 01 00 = 1.1", 0.25),
    Message("BHM", 0x27, BMS, 6, 2, (_volts("max_total_v", 1, 2601),), "measured, SPN", 0.25, least=2),
    Message("CRM", 0x01, CHARGER, 6, 8, (
        _coded("identified", 1, 2560, IDENTIFIED),
        _u("charger_number", 2, 4, 2561),
        _text("area_code", 6, 3, 2562),
    ), "measured, SPN, 3 src", 0.25),
    Message("BRM", 0x02, BMS, 7, 49, (
        _u("version_minor", 1, 1, 2565),
        _u("version_major", 2, 2, 2565),
        _coded("battery_type", 4, 2566, BATTERIES),
        _u("capacity_ah", 5, 2, 2567, "Ah", 0.1),
        _volts("rated_v", 7, 2568),
        _text("maker", 9, 4, 2569),
        _u("pack_number", 13, 4, 2570),
        _u("year", 17, 1, 2571, "", 1, 1985),
        _u("month", 18, 1, 2571),
        _u("day", 19, 1, 2571),
        _u("charges", 20, 3, 2572),
        _coded("owned", 23, 2573, {0: "leased", 1: "owned"}),
        _text("vin", 25, 17, 2575),
        _text("software", 42, 8, 2576),
    ), "measured, SPN; 41 or 49 bytes in 2011: nothing beyond byte 8 is needed", 0.25, least=8),
    Message("BCP", 0x06, BMS, 7, 13, (
        _cell("max_cell_v", 1, 2816),
        _amps("max_a", 3, 2817),
        _u("energy_kwh", 5, 2, 2818, "kWh", 0.1),
        _volts("max_total_v", 7, 2819),
        _celsius("max_temperature_c", 9, 2820),
        _u("soc", 10, 2, 2821, "%", 0.1),
        _volts("battery_v", 12, 2822),
    ), "measured, SPN", 0.5, least=13),
    Message("CTS", 0x07, CHARGER, 6, 7, (
        _bcd("second", 1), _bcd("minute", 2), _bcd("hour", 3), _bcd("day", 4), _bcd("month", 5), _bcd("year", 6, 2),
    ), "measured, SPN", 0.5),
    Message("CML", 0x08, CHARGER, 6, 8, (
        _volts("max_v", 1, 2824),
        _volts("min_v", 3, 2825),
        _amps("max_a", 5, 2826),
        _amps("min_a", 7, 2827),
    ), "measured, SPN; 2011 without the last field: 2 src", 0.25, length_2011=6),
    Message("BRO", 0x09, BMS, 4, 1, (_coded("ready", 1, 2829, READINESS),), "measured, SPN", 0.25, least=1),
    Message("CRO", 0x0A, CHARGER, 4, 1, (_coded("ready", 1, 2830, READINESS),), "measured, SPN", 0.25),
    Message("BCL", 0x10, BMS, 6, 5, (
        _volts("voltage_v", 1, 3072),
        _amps("current_a", 3, 3073),
        _coded("mode", 5, 3074, {1: "constant_voltage", 2: "constant_current"}),
    ), "measured, SPN", 0.05, least=5),
    Message("BCS", 0x11, BMS, 7, 9, (
        _volts("voltage_v", 1, 3075),
        _amps("current_a", 3, 3076),
        Field("max_cell_v", 32, 12, 3077, "V", 0.01),
        Field("max_cell_group", 44, 4, 3077),
        _u("soc", 7, 1, 3078, "%"),
        _u("left_min", 8, 2, 3079, "min"),
    ), "measured, SPN; one header names 0.1 V for the cell", 0.25, least=9),
    Message("CCS", 0x12, CHARGER, 6, 7, (
        _volts("voltage_v", 1, 3081),
        _amps("current_a", 3, 3082),
        _u("charged_min", 5, 2, 3083, "min"),
        Field("allowed", 48, 2, 3929, values={0: "paused", 1: "allowed"}),
    ), "measured, SPN; some chargers send an eighth byte FF; 2011 without the last field: 1 src", 0.05, length_2011=6),
    Message("BSM", 0x13, BMS, 6, 7, (
        _u("max_cell_number", 1, 1, 3085, "", 1, 1),
        _celsius("max_temperature_c", 2, 3086),
        _u("max_temperature_point", 3, 1, 3087, "", 1, 1),
        _celsius("min_temperature_c", 4, 3088),
        _u("min_temperature_point", 5, 1, 3089, "", 1, 1),
        _state("cell_voltage", 6, 0, 3090, "high", "low"),
        _state("soc", 6, 1, 3091, "high", "low"),
        _state("overcurrent", 6, 2, 3092),
        _state("overtemperature", 6, 3, 3093),
        _state("insulation", 7, 0, 3094),
        _state("connector", 7, 1, 3095),
        Field("allowed", 52, 2, 3096, values={0: "pause", 1: "go"}, optional=True),
    ), "measured, SPN", 0.25, least=7),
    Message("BST", 0x19, BMS, 4, 4, (
        *_states(3511, 1, "soc_reached", "voltage_reached", "cell_reached", "charger_stopped"),
        *_states(3512, 2, "insulation", "connector_hot", "bms_hot", "connector_fault",
                 "battery_hot", "relay", "point_2_voltage", "other"),
        *_states(3513, 4, "current_high", "voltage_abnormal"),
    ), "measured, SPN; charger_stopped from 2015", 0.01, least=4),
    Message("CST", 0x1A, CHARGER, 4, 4, (
        *_states(3521, 1, "condition_reached", "by_hand", "fault", "bms_stopped"),
        *_states(3522, 2, "charger_hot", "connector_fault", "inside_hot", "no_energy", "emergency_stop", "other"),
        *_states(3523, 4, "current_mismatch", "voltage_abnormal"),
    ), "measured, SPN; bms_stopped from 2015", 0.01),
    Message("BSD", 0x1C, BMS, 6, 7, (
        _u("soc", 1, 1, 3601, "%"),
        _cell("min_cell_v", 2, 3602),
        _cell("max_cell_v", 4, 3603),
        _celsius("min_temperature_c", 6, 3604),
        _celsius("max_temperature_c", 7, 3605),
    ), "measured, SPN", 0.25, least=1),
    Message("CSD", 0x1D, CHARGER, 6, 8, (
        _u("charged_min", 1, 2, 3611, "min"),
        _u("energy_kwh", 3, 2, 3612, "kWh", 0.1),
        _u("charger_number", 5, 4, 3613),
    ), "measured, SPN; one byte of the number in 2011: 1 src", 0.25, length_2011=5),
    Message("BEM", 0x1E, BMS, 2, 4, (
        *_timeouts(3901, 1, "crm_00", "crm_aa"),
        *_timeouts(3903, 2, "cts_cml", "cro"),
        *_timeouts(3905, 3, "ccs", "cst"),
        *_timeouts(3907, 4, "csd"),
    ), "two recorded BMS; one parser packs the bits closer", 0.25, least=4),
    Message("CEM", 0x1F, CHARGER, 2, 4, (
        *_timeouts(3921, 1, "brm"),
        *_timeouts(3922, 2, "bcp", "bro"),
        *_timeouts(3924, 3, "bcs", "bcl", "bst"),
        *_timeouts(3927, 4, "bsd"),
    ), "2 src", 0.25),
)  # fmt: skip

MESSAGES: dict[str, Message] = {message.name: message for message in TABLE}
OF_BMS: dict[int, Message] = {message.pf: message for message in TABLE if message.sender == BMS}
OF_CHARGER: dict[int, Message] = {message.pf: message for message in TABLE if message.sender == CHARGER}
LISTS = {0x15: "BMV", 0x16: "BMT", 0x17: "BSP"}  # optional lists of the vehicle's cells: taken and not read
CHARGER_FAULTS = ("charger_hot", "connector_fault", "inside_hot", "no_energy", "emergency_stop", "other")


def encode(name: str, values: Given, edition: int = 2015) -> bytes:
    """The bytes of one message. Raises FrameError on a missing or unknown field, or a value that does not fit."""
    message = _message(name)
    length = message.length_2011 if edition == 2011 and message.length_2011 else message.length
    left = dict(values)
    raw = (1 << length * 8) - 1
    for row in message.fields:
        if not row.optional and row.name not in left:
            raise FrameError(f"{name} without {row.name}")
        number = _raw(name, row, left.pop(row.name, "" if row.kind == "text" else 0))
        if row.end <= length:
            raw = raw & ~(row.mask << row.start) | number << row.start
        elif row.start < length * 8:  # 2011: the low bytes of a number
            bits = (1 << (length * 8 - row.start)) - 1
            raw = raw & ~(bits << row.start) | (number & bits) << row.start
    if left:
        raise FrameError(f"{name} has no field {', '.join(sorted(left))}")
    return raw.to_bytes(length, "little")


def decode(name: str, data: bytes) -> Decoded:
    """Physical values. Raises FrameError on an unknown name or fewer bytes than the message needs."""
    message = _message(name)
    if len(data) < message.least or not data:
        raise FrameError(f"{name} with {len(data)} bytes instead of {message.length}")
    raw = int.from_bytes(data[: message.length], "little")
    values: dict[str, float] = {}
    texts: dict[str, str] = {}
    for row in message.fields:
        if row.end > len(data):
            continue
        number = raw >> row.start & row.mask
        if row.kind == "text":
            texts[row.name] = _ascii(number.to_bytes(row.bits // 8, "little"))
        elif row.kind == "bcd":
            values[row.name] = _from_bcd(number)
        else:
            values[row.name] = number * row.scale + row.offset
    return Decoded(name, values, texts)


def source_of(identifier: int) -> tuple[int, int, int]:
    """(PF, destination, source) of a 29-bit identifier; its priority and page do not matter."""
    return identifier >> 16 & 0xFF, identifier >> 8 & 0xFF, identifier & 0xFF


def _message(name: str) -> Message:
    try:
        return MESSAGES[name]
    except KeyError:
        raise FrameError(f"{name} is no message of GB/T 27930") from None


def _raw(name: str, row: Field, value: float | str) -> int:
    if row.kind == "text":
        data = str(value).encode("ascii", "replace")
        if len(data) > row.bits // 8:
            raise FrameError(f"{name} {row.name} = {value!r} has more than {row.bits // 8} characters")
        return int.from_bytes(data.ljust(row.bits // 8, b"\xff"), "little")
    number = round((float(value) - row.offset) / row.scale)
    if row.kind == "bcd":
        number = _to_bcd(number) & row.mask if number < 10 ** (row.bits // 4) else -1
    if not 0 <= number <= row.mask:
        low, high = row.limits
        text = f"{name} {row.name} = {value:g} {row.unit}".rstrip()
        raise FrameError(f"{text} is not between {low:g} and {high:g}")
    return number


def _ascii(data: bytes) -> str:
    """Printable characters; padding by zeros or FF ends the text."""
    kept = data.split(b"\0")[0].split(b"\xff")[0]
    return "".join(chr(c) if 32 <= c < 127 else "?" for c in kept).strip()


def _to_bcd(number: int) -> int:
    """A negative number means not known: all ones."""
    return int(str(number), 16) if number >= 0 else -1


def _from_bcd(raw: int) -> float:
    """-1 where a digit is no digit: all FF = not known."""
    digits = f"{raw:x}"
    return int(digits) if digits.isdigit() else -1


def _signals(row: Field) -> list[tuple[str, int, int]]:
    """(name, first bit, bits): a text of more than eight bytes as several signals."""
    if row.bits <= 64:
        return [(row.name, row.start, row.bits)]
    pieces = range(0, row.bits, 64)
    return [(f"{row.name}_{n + 1}", row.start + at, min(64, row.bits - at)) for n, at in enumerate(pieces)]


def dbc() -> str:
    """The table as a DBC file, as SavvyCAN and cantools read it. Long messages are those of the transport protocol."""
    names = {CHARGER: "CHARGER", BMS: "BMS"}
    lines = ['VERSION ""', "", "NS_ :", "", "BS_:", "", "BU_: BMS CHARGER", ""]
    comments = ['CM_ "GB/T 27930-2015 between vehicle (BMS) and charger, 250 kbit/s, J1939 identifiers.";']
    attributes = [
        'BA_DEF_ BO_ "VFrameFormat" ENUM "StandardCAN","ExtendedCAN","reserved","J1939PG";',
        'BA_DEF_ BO_ "GenMsgCycleTime" INT 0 65535;',
        'BA_DEF_DEF_ "VFrameFormat" "J1939PG";',
        'BA_DEF_DEF_ "GenMsgCycleTime" 0;',
    ]
    tables = []
    for message in TABLE:
        number = message.identifier | 0x8000_0000
        receiver = names[BMS if message.sender == CHARGER else CHARGER]
        lines.append(f"BO_ {number} {message.name}: {message.length} {names[message.sender]}")
        comments.append(f'CM_ BO_ {number} "{message.source}";')
        attributes.append(f'BA_ "VFrameFormat" BO_ {number} 3;')
        attributes.append(f'BA_ "GenMsgCycleTime" BO_ {number} {round(message.period_s * 1000)};')
        for row in message.fields:
            for name, start, bits in _signals(row):
                low, high = row.limits if row.bits <= 64 else (0, (1 << bits) - 1)
                lines.append(
                    f" SG_ {name} : {start}|{bits}@1+ ({row.scale:g},{row.offset:g}) "
                    f'[{low:g}|{high:g}] "{row.unit}" {receiver}'
                )
                comments.append(
                    f'CM_ SG_ {number} {name} "SPN {row.spn}{"" if row.kind == "number" else ", " + row.kind}";'
                )
            if row.values:
                words = " ".join(f'{value} "{word}"' for value, word in row.values.items())
                tables.append(f"VAL_ {number} {row.name} {words} ;")
        lines.append("")
    return "\n".join([*lines, *comments, *attributes, *tables, ""])


if __name__ == "__main__":
    print(dbc(), end="")
