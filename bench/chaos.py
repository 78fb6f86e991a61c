"""The chaos matrix: kill or freeze a process of a running desk station in a phase, and see what happened.

    python bench/chaos.py [--cells N] [--seed S] [--json FILE] [--resume FILE]

Each cell starts a station of its own (about a minute). Prints one line a cell; JSON: cells[{target, phase, protocol,
fault, expected, limit_s, zero_current_s, open_s, safe, books_ok}], unbilled_wh. Exit status 0 when it measured.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from robot_charger.desk.chaos import run_cell, sample


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=6, help="how many; six take about eight minutes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--resume", type=Path, help="go on after the cells in this file, and write to it")
    options = parser.parse_args()
    file = options.json or options.resume
    rows = json.loads(options.resume.read_text())["cells"] if options.resume and options.resume.exists() else []
    known = {(r["target"], r["phase"], r["protocol"], r["fault"]) for r in rows}
    todo = [c for c in sample(10_000, options.seed) if (c.target, c.phase, c.protocol, c.fault) not in known]
    print("target                phase        fault   expected  zero [s]  open [s]  safe  books  seen")
    for cell in todo[: options.cells]:
        row = run_cell(cell, options.seed)
        rows.append(row.to_dict())
        print(
            f"{row.target:<21} {row.phase:<12} {row.fault:<7} {row.expected:<9} {row.zero_current_s:8.2f}"
            f"  {row.open_s:8.2f}  {'yes' if row.safe else 'NO':<4}  {'ok' if row.books_ok else 'NO':<5}  {row.seen}",
            flush=True,
        )
        if file:
            file.write_text(json.dumps({"cells": rows, "unbilled_wh": sum(r["unbilled_wh"] for r in rows)}, indent=1))
    unbilled = sum(r["unbilled_wh"] for r in rows)
    print(f"{len(rows)} cells, {sum(r['safe'] for r in rows)} safe, {unbilled:.1f} Wh unbilled")


if __name__ == "__main__":
    main()
