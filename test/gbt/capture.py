"""Replays a recorded GB/T session at the charger's logic: ``python test/gbt/capture.py FILE [--step-ms MS]``.

FILE is a log of candump -L. The vehicle's frames go in at their recorded times; our frames are compared with those of
the charger that was recorded. What no capture holds is made up from it: the insulation test ends when the recorded
charger says CRM, and the voltage at the connector is the one of its CCS, before that the one of BCP. A log without
usable times gets ``--step-ms`` between its frames. Captures are not part of the project.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from robot_charger.gbt import frames, transport
from robot_charger.gbt.logic import Station
from robot_charger.gbt.model import Allowed, Inputs, Phase, Session, Supply, WiresIn
from robot_charger.gbt.timing import Settings
from robot_charger.words.values import Link, Purpose

Row = tuple[float, int, bytes]  # seconds, identifier, data
LINE = re.compile(r"\(([\d.]+)\) \S+ ([0-9A-Fa-f]{8})#([0-9A-Fa-f]*)")
TICK_S = 0.01
PATIENCE_S = 5.0  # after the last frame


def read(text: str, step_ms: float = 0.0) -> list[Row]:
    """Frames of a candump log, from zero; ``step_ms`` apart where it is given."""
    found = [(float(m[1]), int(m[2], 16), bytes.fromhex(m[3])) for m in map(LINE.match, text.splitlines()) if m]
    if not found:
        raise ValueError("no line of this file is one of candump -L with a 29-bit identifier")
    begun = found[0][0]
    return [(n * step_ms / 1e3 if step_ms else at - begun, i, data) for n, (at, i, data) in enumerate(found)]


@dataclass
class Outcome:
    link: Link
    text: str
    phases: list[Phase]
    recorded: Counter[str]
    ours: Counter[str]
    answers: tuple[int, int]  # transport: equal to the recorded ones, recorded
    bad: int
    firsts: dict[str, tuple[float, float]] = field(default_factory=dict)  # message -> recorded, ours [s]

    @property
    def accepted(self) -> bool:
        """The charge was reached and nothing was called a fault."""
        return Phase.CHARGE in self.phases and self.link is not Link.FAILED


def name_of(identifier: int) -> str:
    pf, _, source = frames.source_of(identifier)
    known = frames.OF_CHARGER.get(pf) if source == frames.CHARGER else None
    return known.name if known else ""


def replay(rows: list[Row], settings: Settings | None = None) -> Outcome:
    """The logic runs in steps of 10 ms beside the recording."""
    station = Station(settings or Settings(max_voltage_v=1000.0))
    first = {name: at for at, i, _ in reversed(rows) if (name := name_of(i))}
    tested_s = first.get("CRM", 1.0) - 0.05
    volts = [(at, frames.decode("CCS", data).get("voltage_v")) for at, i, data in rows if name_of(i) == "CCS"]
    real = [(i, data) for _, i, data in rows if frames.source_of(i)[0::2] == (transport.CM, frames.CHARGER)]
    outcome = Outcome(Link.IDLE, "", [], Counter(filter(None, (name_of(i) for _, i, _ in rows))), Counter(), (0, 0), 0)
    answers: list[tuple[int, bytes]] = []
    left = iter(rows)
    following = next(left, None)
    now_s, end_s = -1.0, rows[-1][0] + PATIENCE_S
    while now_s < end_s and station.phase is not Phase.ENDED:
        now_s += TICK_S
        now_ns = round((now_s + 100.0) * 1e9)
        while following is not None and following[0] <= now_s:
            if frames.source_of(following[1])[2] != frames.CHARGER:
                answers += station.take(following[1], following[2], now_ns)
            following = next(left, None)
        i = Inputs(now_ns, WiresIn(True, station.wires.lock), _supply(station, now_s, tested_s, volts),
                   Allowed(1000.0, 250.0, 250_000.0), Session("capture", True, True, permit=1))  # fmt: skip
        station.step(i)
        if not outcome.phases or outcome.phases[-1] is not station.phase:
            outcome.phases.append(station.phase)
        for identifier, _ in station.transmit(i):
            if name := name_of(identifier):
                outcome.ours[name] += 1
                outcome.firsts.setdefault(name, (first.get(name, -1.0), now_s))
    outcome.link, outcome.text = station.status(i).phase, station.text
    outcome.answers = (_common(answers, real), len(real))
    outcome.bad = station.vehicle.bad
    return outcome


def _supply(station: Station, now_s: float, tested_s: float, volts: list[tuple[float, float]]) -> Supply:
    target, vehicle = station.target.purpose, station.vehicle
    there = vehicle.get("BRO", "ready") == frames.READY and not (vehicle.heard("BSD") or vehicle.heard("BEM"))
    seen_v = next((v for at, v in reversed(volts) if at <= now_s), vehicle.get("BCP", "battery_v"))
    tested = now_s >= tested_s
    closed = target in (Purpose.PRECHARGE, Purpose.TRANSFER)
    return Supply(
        alive=True,
        voltage_v=seen_v if there and station.phase < Phase.STOPPING else 0.0,
        contactors_closed=closed,
        precharged=closed,
        insulation_valid=tested,
        insulation_permit=2 if tested else 0,
    )


def _common(ours: list[tuple[int, bytes]], real: Iterable[tuple[int, bytes]]) -> int:
    left = Counter(ours)
    return sum((left & Counter(real)).values())


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--step-ms", type=float, default=0.0)
    args = parser.parse_args(words)
    o = replay(read(args.file.read_text(), args.step_ms))
    print(f"{'accepted' if o.accepted else 'not accepted'}: {o.link.name.lower()}, {o.text}")
    print("phases: " + ", ".join(p.name.lower() for p in o.phases))
    print(f"transport: {o.answers[0]} of {o.answers[1]} recorded answers are ours byte for byte; {o.bad} refused")
    for name in sorted(o.recorded | o.ours, key=lambda n: o.firsts.get(n, (1e9, 1e9))):
        begun = "first at {:.2f} s, ours at {:.2f} s".format(*o.firsts[name]) if name in o.firsts else "not ours"
        print(f"  {name}: {o.recorded[name]} recorded, {o.ours[name]} ours; {begun}")
    return 0 if o.accepted else 1


if __name__ == "__main__":
    sys.exit(main())
