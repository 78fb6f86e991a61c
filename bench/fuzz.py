"""Hostile input from the plug to the message: SLAC frames, discovery, V2GTP streams into sessions, EXI payloads.

``python bench/fuzz.py [--cases 100000] [--seed N] [--json FILE]`` divides the cases among the four, prints what came
of them and how much memory grew. Exit status 1 when an input raised, hung, ended a session without a code, or made
the process grow by more than 64 MB. A few thousand of the same cases run in the tests.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "test" / "v2g"))
import exi_fuzz
import link_fuzz

GROWTH_MB = 64.0
SHARES: dict[str, tuple[float, Callable[[int, int], dict[str, int]]]] = {
    "slac": (0.25, link_fuzz.slac),
    "sdp": (0.25, link_fuzz.sdp),
    "v2gtp": (0.25, link_fuzz.sessions),
    "exi": (0.25, exi_fuzz.run),
}
WARM_UP = 200  # inputs per kind before memory is measured: grammars and the package are loaded


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    for _, run in SHARES.values():
        run(WARM_UP, 0)
    memory = psutil.Process().memory_info
    before = memory().rss
    result: dict[str, object] = {"seed": arguments.seed}
    failed = False
    for name, (share, run) in SHARES.items():
        count = round(arguments.cases * share)
        begun = time.monotonic()
        try:
            came = run(count, arguments.seed)
        except Exception:
            traceback.print_exc()
            came, failed = {}, True
        seconds = round(time.monotonic() - begun, 1)
        result[name] = {"cases": count, "seconds": seconds, **came}
        print(f"{name:6} {count:7} cases in {seconds:6.1f} s: {came or 'FAILED'}", flush=True)
    grown = (memory().rss - before) / 1e6
    failed |= grown > GROWTH_MB
    print(f"memory grew by {grown:.1f} MB (at most {GROWTH_MB:g})")
    result |= {"grown_mb": round(grown, 1), "failed": failed}
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
