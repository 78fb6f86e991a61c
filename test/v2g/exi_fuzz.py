"""Hostile bytes: valid messages, damaged in every way, and plain noise."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from random import Random

from robot_charger.v2g.exi import NAMESPACES, ExiDecodeError, decode
from robot_charger.v2g.exi.codec import SIGNED

Case = tuple[bytes, str, bool]  # data, schema set, fragment


@cache
def seeds() -> list[Case]:
    sessions = json.loads((Path(__file__).parent / "exi_sessions.json").read_text())
    names = {namespace: name for name, namespace in NAMESPACES.items()}
    cases = set()
    for rows in sessions.values():
        for namespace, tree, octets in rows:
            name = names[namespace]
            cases.add((bytes.fromhex(octets), name, next(iter(tree)) in SIGNED.get(name, ())))
    return sorted(cases)


def hostile(random: Random) -> Case:
    """One input: a recorded message with some damage, now and then for another schema, or noise."""
    original, schema, fragment = random.choice(seeds())
    data = bytearray(original)
    if random.random() < 0.2:
        schema, fragment = random.choice(list(NAMESPACES)), random.random() < 0.3
    kind = random.randrange(7)
    if kind == 0:
        return random.randbytes(random.randrange(40)), schema, fragment
    if kind == 1:
        return b"\x80" + random.randbytes(random.randrange(400)), schema, fragment
    if kind == 2:
        return bytes(data[: random.randrange(len(data))]), schema, fragment
    if kind == 3:  # goes on as another message
        other = random.choice(seeds())[0]
        cut = random.randrange(len(data))
        return bytes(data[:cut]) + other[random.randrange(len(other)) :], schema, fragment
    if kind == 4:  # goes on as noise
        cut = random.randrange(len(data))
        return bytes(data[:cut]) + random.randbytes(random.randrange(200)), schema, fragment
    for _ in range(random.choice([1, 1, 2, 8])):
        if kind == 5:
            data[random.randrange(len(data))] ^= 1 << random.randrange(8)
        else:
            data[random.randrange(len(data))] = random.choice([0, 0x7F, 0x80, 0xFF])
    return bytes(data), schema, fragment


def check(data: bytes, schema: str, fragment: bool) -> bool:
    """Decode: a tree that JSON can hold, or the typed error with a bit of the input.  True for a tree."""
    try:
        tree = decode(data, schema, fragment)
    except ExiDecodeError as error:
        assert 0 <= error.position <= 8 * len(data), (error.position, data.hex())
        return False
    json.dumps(tree, ensure_ascii=False).encode()
    return True


def run(count: int, seed: int) -> dict[str, int]:
    """``count`` inputs; returns how many decoded and how many did not."""
    random = Random(seed)
    decoded = sum(check(*hostile(random)) for _ in range(count))
    return {"decoded": decoded, "refused": count - decoded}
