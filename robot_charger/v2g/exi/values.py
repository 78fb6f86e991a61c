"""How EXI writes single values (W3C EXI 1.0, section 7), on bits held as text.

Bits are a ``str`` of ``0`` and ``1``: slicing, joining and looking up such text runs in C, which makes it
several times faster in Python than shifting integers, and every operation stays linear in the length.

``coding(description)`` returns the pair (write, read) for one entry of a grammar table:
``write(value) -> bits`` raises :class:`ExiEncodeError`, ``read(bits, position) -> (value, position)``
raises :class:`ExiDecodeError`.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from .errors import ExiDecodeError, ExiEncodeError

Write = Callable[[Any], str]
Read = Callable[[str, int], tuple[Any, int]]

OCTETS = [format(value, "08b") for value in range(256)]
OCTET_VALUES = {bits: value for value, bits in enumerate(OCTETS)}

# An unsigned integer is a chain of octets of unknown length.  The longest in V2G is the serial number of
# a certificate (20 octets, RFC 5280); far beyond that only an attacker goes.
MAX_CHAIN = 160

KEPT_VALUES = 1024  # coded values kept for each kind of value


def unsigned_bits(value: int) -> str:
    """Seven bits per octet, least significant first, top bit set on all but the last (7.1.6)."""
    if value < 128:
        return OCTETS[value]
    pieces = []
    while value > 127:
        pieces.append(OCTETS[128 | value & 127])
        value >>= 7
    pieces.append(OCTETS[value])
    if len(pieces) > MAX_CHAIN:
        raise ExiEncodeError(f"integer needs more than {7 * MAX_CHAIN} bits")
    return "".join(pieces)


def read_unsigned(bits: str, position: int) -> tuple[int, int]:
    octet = OCTET_VALUES.get(bits[position : position + 8])
    if octet is None:
        raise ExiDecodeError("ends inside an integer", position)
    position += 8
    if octet < 128:
        return octet, position
    value = octet & 127
    shift = 7
    while True:
        octet = OCTET_VALUES.get(bits[position : position + 8])
        if octet is None:
            raise ExiDecodeError("ends inside an integer", position)
        if shift >= 7 * MAX_CHAIN:
            raise ExiDecodeError(f"integer of more than {7 * MAX_CHAIN} bits", position)
        position += 8
        value |= (octet & 127) << shift
        if octet < 128:
            return value, position
        shift += 7


def _integer(value: Any, low: int | None, high: int | None) -> int:
    if type(value) is not int:
        raise ExiEncodeError(f"{value!r} is not an integer")
    if (low is not None and value < low) or (high is not None and value > high):
        raise ExiEncodeError(f"{value} is outside {low}..{high}")
    return value


def _nbit(low: int, high: int) -> tuple[Write, Read]:
    """A small range: the offset from its low end in as few bits as the range needs (7.1.9)."""
    width = (high - low).bit_length()
    codes = {low + offset: format(offset, f"0{width}b") for offset in range(high - low + 1)}

    def write(value: Any) -> str:
        return codes[_integer(value, low, high)]

    def read(bits: str, position: int) -> tuple[int, int]:
        end = position + width
        if end > len(bits):
            raise ExiDecodeError("ends inside an integer", position)
        return low + int(bits[position:end], 2), end

    return write, read


def _uint(low: int | None, high: int | None) -> tuple[Write, Read]:
    def write(value: Any) -> str:
        return unsigned_bits(_integer(value, low, high))

    return write, read_unsigned


def _int(low: int | None, high: int | None) -> tuple[Write, Read]:
    """A sign bit, then the magnitude; below zero one less, as there is no minus nought (7.1.5)."""

    def write(value: Any) -> str:
        value = _integer(value, low, high)
        return "1" + unsigned_bits(-1 - value) if value < 0 else "0" + unsigned_bits(value)

    def read(bits: str, position: int) -> tuple[int, int]:
        value, end = read_unsigned(bits, position + 1)
        return (-1 - value if bits[position] == "1" else value), end

    return write, read


def _bool() -> tuple[Write, Read]:
    def write(value: Any) -> str:
        if value is True:
            return "1"
        if value is False:
            return "0"
        raise ExiEncodeError(f"{value!r} is not a boolean")

    def read(bits: str, position: int) -> tuple[bool, int]:
        if position >= len(bits):
            raise ExiDecodeError("ends before a boolean", position)
        return bits[position] == "1", position + 1

    return write, read


def _enum(values: list[str]) -> tuple[Write, Read]:
    """The position in the schema's list (7.2)."""
    width = (len(values) - 1).bit_length()
    codes = {value: format(index, f"0{width}b") if width else "" for index, value in enumerate(values)}
    names = {code: value for value, code in codes.items()}

    def write(value: Any) -> str:
        try:
            return codes[value]
        except (KeyError, TypeError):
            raise ExiEncodeError(f"{value!r} is none of {', '.join(values)}") from None

    def read(bits: str, position: int) -> tuple[str, int]:
        end = position + width
        value = names.get(bits[position:end])
        if value is None:
            raise ExiDecodeError("no such value in the enumeration", position)
        return value, end

    return write, read


def _octets_bits(octets: bytes) -> str:
    return format(int.from_bytes(octets, "big"), f"0{8 * len(octets)}b") if octets else ""


def _string() -> tuple[Write, Read]:
    """The number of characters plus 2 (0 and 1 would be string table hits), then their code points."""

    def write(value: Any) -> str:
        if type(value) is not str:
            raise ExiEncodeError(f"{value!r} is not text")
        length = unsigned_bits(len(value) + 2)
        if value.isascii():
            return length + _octets_bits(value.encode("ascii"))
        points = [ord(character) for character in value]
        if any(0xD800 <= point <= 0xDFFF for point in points):
            raise ExiEncodeError("text holds half a surrogate pair")
        return length + "".join(map(unsigned_bits, points))

    def read(bits: str, position: int) -> tuple[str, int]:
        length, start = read_unsigned(bits, position)
        length -= 2
        if length < 0:
            raise ExiDecodeError("refers to a string table, which V2G does not have", position)
        end = start + 8 * length
        if end > len(bits):
            raise ExiDecodeError(f"text of {length} characters runs over the end", position)
        if not length:
            return "", start
        octets = int(bits[start:end], 2).to_bytes(length, "big")
        if octets.isascii():
            return octets.decode("ascii"), end
        characters = []
        for _ in range(length):
            point, after = read_unsigned(bits, start)
            if point > 0x10FFFF or 0xD800 <= point <= 0xDFFF:
                raise ExiDecodeError(f"{point:#x} is not a character", start)
            characters.append(chr(point))
            start = after
        return "".join(characters), start

    return write, read


def _binary(to_octets: Callable[[str], bytes], to_text: Callable[[bytes], str], name: str) -> tuple[Write, Read]:
    """The number of octets, then the octets."""

    def write(value: Any) -> str:
        if isinstance(value, str):
            try:
                value = to_octets(value)
            except ValueError:
                raise ExiEncodeError(f"{value!r} is not {name}") from None
        elif not isinstance(value, (bytes, bytearray)):
            raise ExiEncodeError(f"{value!r} is neither {name} text nor bytes")
        return unsigned_bits(len(value)) + _octets_bits(value)

    def read(bits: str, position: int) -> tuple[str, int]:
        length, start = read_unsigned(bits, position)
        end = start + 8 * length
        if end > len(bits):
            raise ExiDecodeError(f"{length} octets run over the end", position)
        octets = int(bits[start:end], 2).to_bytes(length, "big") if length else b""
        return to_text(octets), end

    return write, read


def _from_base64(text: str) -> bytes:
    octets = binascii.a2b_base64(text)
    if len(text) % 4 or binascii.b2a_base64(octets, newline=False) != text.encode():
        raise ValueError(text)  # a2b_base64 skips what it does not know
    return octets


def _to_base64(octets: bytes) -> str:
    return binascii.b2a_base64(octets, newline=False).decode("ascii")


def _to_hex(octets: bytes) -> str:
    return octets.hex().upper()


def coding(description: list) -> tuple[Write, Read]:
    """The (write, read) pair for a value entry of a grammar table."""
    kind = description[0]
    if kind == "nbit":
        return _nbit(description[1], description[2])
    if kind == "uint":
        return _uint(description[1], description[2])
    if kind == "int":
        return _int(description[1], description[2])
    if kind == "enum":
        return _enum(description[1])
    if kind == "base64":
        return _binary(_from_base64, _to_base64, "base64")
    if kind == "hex":
        return _binary(bytes.fromhex, _to_hex, "hexadecimal")
    return {"bool": _bool, "string": _string}[kind]()


def as_text(description: list, pair: tuple[Write, Read], usual: str, empty: str, end: str) -> tuple[Write, Read]:
    """The coding of the text of an element up to the element's end, with its event codes.

    ``usual`` announces the text and ``end`` follows it.  An empty value has no text: it is coded by
    ``empty`` alone, an end at once.  Some encoders write it the usual way with length 0; that is read too.
    """
    write_value, read_value = pair
    may_be_empty = description[0] in ("string", "base64", "hex")

    def write(value: Any) -> str:
        return usual + write_value(value) + end

    def write_maybe_empty(value: Any) -> str:
        return empty if value == "" or value == b"" else usual + write_value(value) + end

    def read(bits: str, position: int) -> tuple[Any, int]:
        start = position + len(usual)
        if bits[position:start] != usual:
            if may_be_empty and bits[position : position + len(empty)] == empty:
                return "", position + len(empty)
            raise ExiDecodeError("a value is expected", position)
        value, position = read_value(bits, start)
        start = position
        position += len(end)
        if bits[start:position] != end:
            raise ExiDecodeError("the end of the element is expected", start)
        return value, position

    chosen = write_maybe_empty if may_be_empty else write
    # A session repeats its values. Certificates and keys are not kept.
    return (chosen if description[0] == "base64" else lru_cache(KEPT_VALUES, typed=True)(chosen)), read
