"""The chaos matrix: break one thing in one phase of a session at a running desk station, and see what happened.

    python bench/chaos.py [--cells N] [--seed S] [--minutes M] [--json FILE] [--resume FILE] [--publish] [--check]

Cells are chosen to cover every (target, fault), (target, phase) and (protocol, fault) pair first. They share stations
and sessions where they can; about half a minute each. Prints one line a cell and a closing line. JSON: cells[{target,
phase, protocol, fault, expected, limit_s, zero_current_s, open_s, still_s, stall_s, safe, books_ok, unbilled_wh,
seen}], missed[{target, phase, protocol, fault, why}], uncovered_pairs, unbilled_wh. ``--resume FILE`` goes on after
the cells in it, and writes to it. ``--publish`` writes the table into docs/chaos.md. Exit status 0; with
``--check`` 1 when a cell was unsafe or its books wrong every time it was measured (up to three times, each on a station
of its own), or fewer than half of the cells could be measured.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from robot_charger.desk import chaos
from robot_charger.operator.docs import renewed

PAGE = Path(__file__).parents[1] / "docs" / "chaos.md"
AGAIN, AGAIN_MINUTES, AGAIN_ALL = 2, 2.0, 6.0  # how often a doubtful cell is measured again; for one, and for all
KEYS = ("target", "phase", "protocol", "fault")
HEAD = f"{'target':<20} {'phase':<13} {'protocol':<12} {'fault':<9} {'expected':<9} zero [s] open [s]  safe books seen"


def line(row: dict[str, Any]) -> str:
    times = (f"{row[k]:8.2f}" if row[k] >= 0 else f"{'-':>8}" for k in ("zero_current_s", "open_s"))
    return (
        f"{row['target']:<20} {row['phase']:<13} {row['protocol']:<12} {row['fault']:<9} {row['expected']:<9}"
        f" {' '.join(times)}  {'yes' if row['safe'] else 'NO':<4} {'ok' if row['books_ok'] else 'NO':<5} {row['seen']}"
    )


def well(row: dict[str, Any]) -> bool:
    return bool(row["safe"] and row["books_ok"])


def table(rows: list[dict[str, Any]]) -> str:
    """The published table: what was promised, what was measured, what the operator saw."""
    head = ("what breaks", "how", "in", "with", "then", "zero current [s]", "contactors open [s]", "arm still [s]",
            "limit [s]", "safe", "books", "the operator saw")  # fmt: skip
    told = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for r in sorted(rows, key=lambda r: (r["target"], r["fault"], r["phase"], r["protocol"])):
        times = [f"{r[k]:.2f}" if r[k] >= 0 else "-" for k in ("zero_current_s", "open_s", "still_s")]
        limit = f"{r['limit_s']:g}" + (f" + {r['stall_s']:.1f}" if r["stall_s"] else "") if r["limit_s"] else "-"
        words = [r["target"], r["fault"], r["phase"].replace("_", " "), r["protocol"], r["expected"], *times, limit]
        words += ["yes" if r["safe"] else "NO", "right" if r["books_ok"] else "WRONG", r["seen"].replace("_", " ")]
        told.append(f"| {' | '.join(words)} |")
    return "\n".join(told)


def page(text: str, rows: list[dict[str, Any]]) -> str:
    """docs/chaos.md with the generated part renewed between its markers."""
    done = [(r["target"], r["phase"], r["protocol"], r["fault"]) for r in rows]
    safe, booked = (sum(r[key] for r in rows) for key in ("safe", "books_ok"))
    total = (
        f"{len(rows)} cells of {len(chaos.matrix())}: {safe} safe, {booked} with right books,"
        f" {sum(r['unbilled_wh'] for r in rows):.1f} Wh unbilled. Pairs not covered yet:"
        f" {len(chaos.uncovered(done))} of {len(chaos.uncovered([]))}."
    )
    return renewed(text, f"{total}\n\n{table(rows)}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cells", type=int, default=6, help="how many (default 6, about four minutes)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=600.0, help="begin no further session after so long")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--resume", type=Path, help="go on after the cells in this file, and write to it")
    parser.add_argument("--publish", action="store_true", help="put all cells measured so far into docs/chaos.md")
    parser.add_argument("--check", action="store_true", help="fail when a cell did")
    options = parser.parse_args()
    file = options.json or options.resume
    rows = json.loads(options.resume.read_text())["cells"] if options.resume and options.resume.exists() else []
    known = [(r["target"], r["phase"], r["protocol"], r["fault"]) for r in rows]
    began = time.monotonic()
    missed: list[dict[str, str]] = []

    def save() -> None:
        if file:
            done = [(r["target"], r["phase"], r["protocol"], r["fault"]) for r in rows]
            document = {
                "cells": rows,
                "missed": missed,
                "uncovered_pairs": len(chaos.uncovered(done)),
                "unbilled_wh": round(sum(r["unbilled_wh"] for r in rows), 3),
            }
            file.write_text(json.dumps(document, indent=1) + "\n")

    def report(outcome: chaos.Outcome) -> None:
        rows.append(outcome.to_dict())
        print(line(rows[-1]), flush=True)
        save()

    def measure(cells: list[chaos.Cell], minutes: float) -> None:
        for cell, why in chaos.run(cells, options.seed, report, minutes * 60):
            missed.append({**dict(zip(KEYS, cell.key, strict=True)), "why": why})
            print(f"{cell.target:<20} {cell.phase:<13} {cell.protocol:<12} {cell.fault:<9} not measured: {why}")

    print(HEAD, flush=True)
    measure(chaos.sample(options.cells, options.seed, known), options.minutes)
    last = time.monotonic() + 60.0 * AGAIN_ALL
    for _ in range(AGAIN if options.check else 0):
        if not (doubtful := [r for r in rows if not well(r)]):
            break
        print(f"chaos: {len(doubtful)} doubtful; each once more, on a station of its own")
        for row in doubtful:
            if time.monotonic() < last:
                rows.remove(row)
                count = len(rows)
                measure([c for c in chaos.matrix() if c.key == tuple(row[k] for k in KEYS)], AGAIN_MINUTES)
                if len(rows) == count:
                    rows.append(row)
    save()
    if options.publish:
        PAGE.write_text(page(PAGE.read_text(), rows))
    bad = [r for r in rows if not well(r)]
    safe, booked = (sum(r[key] for r in rows) for key in ("safe", "books_ok"))
    print(
        f"chaos: {len(rows)} cells measured, {safe} safe, {booked} with right books,"
        f" {sum(r['unbilled_wh'] for r in rows):.1f} Wh unbilled; {len(missed)} not measured;"
        f" {(time.monotonic() - began) / 60:.0f} min"
    )
    return 1 if options.check and (bad or len(rows) < options.cells / 2) else 0


if __name__ == "__main__":
    sys.exit(main())
