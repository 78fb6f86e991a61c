"""python -m robot_charger.power.dbc > config/ek3.dbc

config/ek3.dbc names the frames of module 1 and EVSE 1; this prints it with those of all others, so that a tool shows
every module. Run again after a change of the first ones; what it added before is left out and made again.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from robot_charger.power import codec

DBC = Path(__file__).resolve().parents[2] / "config" / "ek3.dbc"
MODULES = ("ModuleStatus", "ModuleSetpoint", "ModuleSensor")
GROUPS = ("GroupSetpoint",)
EVSES = ("OutputMeasurement", "EvseStatus")
FIRST = {"GroupSetpoint": 0}  # number of the message that the file has; 1 of all others
MESSAGE = re.compile(r"BO_ (\d+) (\w+?)(\d*): (\d+) (\w+)\n((?: SG_ .*\n)+)")


def complete(text: str) -> str:
    """The file with the messages of every address."""
    found = {m[2]: m for m in MESSAGE.finditer(text) if not m[3]}
    copies: dict[int, tuple[int, str]] = {}  # identifier -> the one it is like, and its block
    for names, last in (
        (MODULES, codec.MAX_ADDRESS),
        (GROUPS, (codec.MAX_ADDRESS - 1) // codec.GROUP_SIZE),
        (EVSES, codec.MAX_EVSES),
    ):
        for name in (n for n in names if n in found):
            base, first = found[name], FIRST.get(name, 1)
            for number in range(first + 1, last + 1):
                identifier = int(base[1]) + number - first
                block = f"BO_ {identifier} {name}{number}: {base[4]} {base[5]}\n{base[6]}"
                copies[identifier] = int(base[1]), block
    lines = MESSAGE.sub(lambda m: "" if m[3] else m[0], text).split("\n")
    lines = [line for line in lines if not _of_copy(line, copies)]
    body = re.sub(r"\n{3,}", "\n\n", "\n".join(lines))
    at = body.index("CM_ ")
    blocks = "\n".join(block for _, block in copies.values())
    extra = []
    for line in body[at:].split("\n"):
        extra.append(line)
        match = re.fullmatch(r'((?:BA_ "\w+" BO_|VAL_)) (\d+) (.*;)', line)
        if match:
            extra += [f"{match[1]} {i} {match[3]}" for i, (like, _) in copies.items() if like == int(match[2])]
    return body[:at] + blocks + "\n" + "\n".join(extra)


def _of_copy(line: str, copies: dict[int, tuple[int, str]]) -> bool:
    match = re.match(r'(?:BA_ "\w+" BO_|VAL_|CM_ BO_|CM_ SG_) (\d+) ', line)
    return bool(match) and int(match[1]) in copies  # type: ignore[index]


if __name__ == "__main__":
    sys.stdout.write(complete(DBC.read_text()))
