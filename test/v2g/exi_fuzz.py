"""Hostile bytes: valid messages, damaged in every way, and plain noise."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from random import Random

from robot_charger.v2g.exi import NAMESPACES, ExiDecodeError, decode


@cache
def seeds() -> list[bytes]:
    sessions = json.loads((Path(__file__).parent / "exi_sessions.json").read_text())
    return sorted({bytes.fromhex(row[2]) for rows in sessions.values() for row in rows})


def hostile(random: Random) -> bytes:
    """One input: a recorded message with some damage, or noise behind a header."""
    kind = random.randrange(6)
    if kind == 0:
        return random.randbytes(random.randrange(40))
    if kind == 1:
        return b"\x80" + random.randbytes(random.randrange(400))
    data = bytearray(random.choice(seeds()))
    if kind == 2:
        return bytes(data[: random.randrange(len(data))])
    if kind == 3:  # a part of another message
        other = random.choice(seeds())
        cut = random.randrange(len(data))
        return bytes(data[:cut]) + other[random.randrange(len(other)) :]
    for _ in range(random.choice([1, 1, 2, 8])):
        if kind == 4:
            data[random.randrange(len(data))] ^= 1 << random.randrange(8)
        else:
            data[random.randrange(len(data))] = random.choice([0, 0x7F, 0x80, 0xFF])
    return bytes(data)


def check(data: bytes, schema: str, fragment: bool) -> bool:
    """Decode: a tree that JSON can hold, or the typed error with a bit of the input.  True for a tree."""
    try:
        tree = decode(data, schema, fragment)
    except ExiDecodeError as error:
        assert 0 <= error.position <= 8 * len(data), (error.position, data.hex())
        return False
    json.dumps(tree).encode()
    return True


def run(count: int, seed: int) -> dict[str, int]:
    """``count`` inputs, each through one schema set; returns how many decoded and how many did not."""
    random = Random(seed)
    names = list(NAMESPACES)
    decoded = 0
    for _ in range(count):
        decoded += check(hostile(random), random.choice(names), random.random() < 0.3)
    return {"decoded": decoded, "refused": count - decoded}
