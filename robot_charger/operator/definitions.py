"""The text of a message's definition as MCAP wants it inside the file (schema encoding ``ros2msg``), and CDR by hand.

The text is made from the compiled message class, so it is right for what is really on the wire, with or without
the .msg files at hand.
"""

from __future__ import annotations

import re
import struct
from typing import Any

import numpy as np

_SEPARATOR = "=" * 80
_PLAIN = {"double": "float64", "float": "float32", "boolean": "bool", "octet": "byte"}
_SEQUENCE = re.compile(r"^sequence<(?P<item>.+?)(, (?P<most>\d+))?>$")
_ARRAY = re.compile(r"^(?P<item>.+)\[(?P<size>\d+)\]$")
_STRING = re.compile(r"^(?P<kind>w?string)<(?P<most>\d+)>$")

CAN_FRAMES = "robot_charger/msg/CanFrames"
CAN_FRAMES_TEXT = """# CAN frames that were read together from one bus. Only in recordings.
uint64 stamp_ns     # CLOCK_MONOTONIC of reading [ns]
string bus
uint8 stride        # bytes of data per frame
uint32[] ids
uint8[] flags       # 1 extended id, 2 remote, 4 error, 8 CAN-FD, 16 bit-rate switch
uint8[] lengths     # bytes that count in each frame
uint8[] data        # stride bytes per frame
"""


def type_name(message: type) -> str:
    """``package/msg/Name``."""
    return f"{message.__module__.split('.')[0]}/msg/{message.__name__}"


def _item(kind: str) -> tuple[str, str | None]:
    """(spelling in a .msg file, name of the nested message)."""
    bounded = _STRING.match(kind)
    if bounded:
        return f"{bounded['kind']}<={bounded['most']}", None
    if "/" in kind:
        return kind, kind
    return _PLAIN.get(kind, kind), None


def _field(kind: str) -> tuple[str, str | None]:
    sequence = _SEQUENCE.match(kind)
    if sequence:
        spelling, nested = _item(sequence["item"])
        return f"{spelling}[<={sequence['most']}]" if sequence["most"] else f"{spelling}[]", nested
    array = _ARRAY.match(kind)
    if array:
        spelling, nested = _item(array["item"])
        return f"{spelling}[{array['size']}]", nested
    return _item(kind)


def _constants(message: type) -> list[str]:
    table = getattr(type(message), f"_{type(message).__name__}__constants", {})
    lines = []
    for name, value in table.items():
        if isinstance(value, bool):
            lines.append(f"bool {name}={str(value).lower()}")
        elif isinstance(value, int):
            lines.append(f"{'int64' if value < 0 or value > 0xFFFF else 'uint16'} {name}={value}")
        elif isinstance(value, float):
            lines.append(f"float64 {name}={value}")
        elif isinstance(value, str):
            lines.append(f'string {name}="{value}"')
    return lines


def definition(message: type) -> str:
    """Text of a compiled message class, followed by those of all messages in it."""
    texts: dict[str, str] = {}

    def add(kind: type) -> None:
        lines = _constants(kind)
        nested_names = []
        for name, spelling in kind.get_fields_and_field_types().items():  # type: ignore[attr-defined]
            text, nested = _field(spelling)
            lines.append(f"{text} {name}")
            if nested:
                nested_names.append(nested)
        package, _, short = type_name(kind).partition("/msg/")
        texts[f"{package}/{short}"] = "\n".join(lines) + "\n"
        for nested in nested_names:
            if nested not in texts:
                package, short = nested.split("/")
                add(getattr(__import__(f"{package}.msg", fromlist=[short]), short))

    add(message)
    first, *others = texts
    return texts[first] + "".join(f"{_SEPARATOR}\nMSG: {name}\n{texts[name]}" for name in others)


class _Cdr:
    """Little-endian CDR, aligned from behind its four-byte header."""

    def __init__(self) -> None:
        self.data = bytearray(b"\x00\x01\x00\x00")

    def number(self, code: str, value: Any) -> None:
        size = struct.calcsize(code)
        self.data += bytes(-(len(self.data) - 4) % size)
        self.data += struct.pack("<" + code, value)

    def text(self, value: str) -> None:
        raw = value.encode() + b"\0"
        self.number("I", len(raw))
        self.data += raw

    def array(self, values: np.ndarray) -> None:
        self.number("I", values.size)
        if values.size:
            self.data += bytes(-(len(self.data) - 4) % values.itemsize)
            self.data += values.tobytes()


def can_frames(
    stamp_ns: int, bus: str, ids: np.ndarray, flags: np.ndarray, lengths: np.ndarray, data: np.ndarray
) -> bytes:
    """CanFrames in CDR; ``data`` is u8 (n, stride)."""
    cdr = _Cdr()
    cdr.number("Q", stamp_ns)
    cdr.text(bus)
    cdr.number("B", data.shape[1])
    cdr.array(np.ascontiguousarray(ids, "<u4"))
    cdr.array(np.ascontiguousarray(flags, np.uint8))
    cdr.array(np.ascontiguousarray(lengths, np.uint8))
    cdr.array(np.ascontiguousarray(data, np.uint8))
    return bytes(cdr.data)
