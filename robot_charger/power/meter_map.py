"""Register maps of meters (meters.yaml, or a file of one's own): from words on a Modbus line to values."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

MAPS = Path(__file__).with_name("meters.yaml")
WORDS = {"u16": 1, "i16": 1, "u32": 2, "i32": 2, "f32": 2, "t5": 2, "t6": 2, "u64": 4, "i64": 4}
_CODES = {"u16": ">H", "i16": ">h", "u32": ">I", "i32": ">i", "f32": ">f", "u64": ">Q", "i64": ">q"}
VALUES = ("voltage_v", "current_a", "power_w", "import_wh", "export_wh")
Read = Callable[[int, int, int], list[int]]  # function, first register, count


class MapError(ValueError):
    """A map is unknown or wrong; the text says which entry."""


@dataclass(frozen=True)
class Value:
    """One quantity of a meter."""

    at: tuple[int, ...]
    type: str
    function: int
    low_first: bool
    factor: float = 1.0
    exponent: int | None = None
    less: int = 0
    more: Value | None = None

    def read(self, name: str, read: Read) -> float:
        """Ask for it. Raises what ``read`` raises, and ValueError on what is no number."""
        phases = [self._one(at, read) for at in self.at]
        value = phases[0] if name == "voltage_v" else max(phases, key=abs) if name == "current_a" else sum(phases)
        value *= self.factor
        if self.exponent is not None:
            (power,) = read(self.function, self.exponent, 1)
            value *= 10.0 ** ((power - 65536 if power > 32767 else power) - self.less)
        if self.more is not None:
            value += self.more.read(name, read)
        if not math.isfinite(value):
            raise ValueError(f"{name} is no number")
        return float(value)

    def _one(self, at: int, read: Read) -> float:
        return decode(self.type, read(self.function, at, WORDS[self.type]), self.low_first)


@dataclass(frozen=True)
class MeterMap:
    """Where a meter keeps what a station needs."""

    name: str
    title: str
    values: dict[str, Value]

    def read(self, read: Read) -> dict[str, float]:
        """All values now."""
        return {name: value.read(name, read) for name, value in self.values.items()}


def decode(kind: str, words: list[int], low_first: bool) -> float:
    """A value of one type from its registers. Raises ValueError on a wrong count."""
    if len(words) != WORDS[kind]:
        raise ValueError(f"{len(words)} registers instead of {WORDS[kind]}")
    data = struct.pack(f">{len(words)}H", *(reversed(words) if low_first else words))
    if kind in ("t5", "t6"):
        exponent, high = struct.unpack(">bB", data[:2])
        mantissa = high << 16 | int.from_bytes(data[2:], "big")
        if kind == "t6" and mantissa & 0x80_0000:
            mantissa -= 1 << 24
        return float(mantissa * 10.0**exponent)
    return float(struct.unpack(_CODES[kind], data)[0])


def names() -> list[str]:
    """The meters that meters.yaml knows."""
    return sorted(yaml.safe_load(MAPS.read_text()))


def load(name: str) -> MeterMap:
    """A map by its name in meters.yaml, or ``FILE.yaml:NAME``. Raises MapError."""
    path, _, entry = name.rpartition(":")
    try:
        content = yaml.safe_load((Path(path) if path else MAPS).read_text())
    except (OSError, yaml.YAMLError) as error:
        raise MapError(f"meter map {name!r}: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get(entry), dict):
        known = ", ".join(sorted(content)) if isinstance(content, dict) else "none"
        raise MapError(f"meter map {entry!r} is unknown: one of {known}, or FILE.yaml:NAME")
    raw = content[entry]
    missing = [v for v in VALUES if v not in raw]
    if missing:
        raise MapError(f"meter map {entry!r} has no {', '.join(missing)}")
    return MeterMap(entry, str(raw.get("title", entry)), {v: _value(entry, v, raw[v], raw) for v in VALUES})


def _value(entry: str, name: str, raw: Any, whole: dict[str, Any]) -> Value:
    where = f"meter map {entry!r}, {name}"
    known = {"at", "type", "factor", "function", "words", "exponent", "less", "and"}
    if not isinstance(raw, dict) or not {"at", "type"} <= set(raw) <= known:
        raise MapError(f"{where}: at and type are needed, and nothing but {', '.join(sorted(known))} is known")
    at = raw["at"] if isinstance(raw["at"], list) else [raw["at"]]
    words = raw.get("words", whole.get("words", "high"))
    function = raw.get("function", whole.get("function", 3))
    if raw["type"] not in WORDS:
        raise MapError(f"{where}: type {raw['type']!r} is unknown: one of {', '.join(WORDS)}")
    if words not in ("high", "low") or function not in (3, 4):
        raise MapError(f"{where}: words is high or low, function 3 or 4")
    if not at or not all(isinstance(a, int) and 0 <= a <= 0xFFFF for a in at):
        raise MapError(f"{where}: at is a register from 0 to 65535, or a list of them")
    factor, exponent = raw.get("factor", 1.0), raw.get("exponent")
    if not isinstance(factor, int | float) or not math.isfinite(factor) or factor == 0:
        raise MapError(f"{where}: factor is a number and not 0")
    more = _value(entry, name, raw["and"], whole) if "and" in raw else None
    return Value(tuple(at), raw["type"], function, words == "low", float(factor), exponent, raw.get("less", 0), more)
