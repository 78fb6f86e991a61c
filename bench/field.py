"""Real cars at our charging side: every recording of a folder is replayed, and what came of it is printed.

``python bench/field.py [--corpus DIR] [--json FILE] [--seed N] [--check]`` sends each car's own messages in their own
order to the tables of ``robot_charger/v2g/secc`` (supportedAppProtocolReq to the end, SessionID filled in) with a
supply that follows. JSON: ``recordings[{file, vehicle, protocol, result, charged, answered, unanswered, failed_at,
code, field, notes, end}]``. A recording is a JSON object with ``vehicle``, ``protocol`` and ``requests`` (see
``test/v2g/replay.py``). Cars that ask for AC end in an answered refusal. ``--seed`` shuffles the order of the files.

Exit status: 0; with ``--check`` 1 when a request got no answer, or a car that charged with direct current then did not
charge here, or one that did not then does here. Without the folder it says so and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "test" / "v2g")]

import replay  # noqa: E402

CORPUS = ROOT.parent / "shared" / "field" / "ccs"


def then(path: Path) -> str:
    """How the recording ended at the charger then: ac, charged, refused or stopped early."""
    requests = json.loads(path.read_text())["requests"]
    names = [entry[1] for entry in requests]
    answers = [str(entry[4] or "") for entry in requests]
    if "CurrentDemandReq" in names:
        return "charged"
    if replay.asks_for_ac(requests):
        return "ac"
    return "refused" if any(answer.startswith("FAILED") for answer in answers) else "stopped early"


def as_then(ended: str, outcome: replay.Outcome) -> bool:
    """The recording ended here as it did then; one with AC in an answered refusal."""
    return not outcome.unanswered and outcome.result == {"ac": "refused"}.get(ended, ended)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="folder of recordings")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seed", type=int, default=0, help="of the order of the files")
    parser.add_argument("--check", action="store_true", help="fail when a recording ended otherwise than then")
    arguments = parser.parse_args()
    files = sorted(arguments.corpus.glob("*.json"))
    if not files:
        print(f"no recordings in {arguments.corpus}: NOTHING WAS REPLAYED")
        if arguments.json:
            arguments.json.write_text(json.dumps({"recordings": []}))
        return 0
    random.Random(arguments.seed).shuffle(files)
    begun = time.perf_counter()
    rows: list[dict[str, Any]] = []
    for path in files:
        outcome, ended = replay.play(path), then(path)
        rows.append({**asdict(outcome), "then": ended, "as_then": as_then(ended, outcome)})
    seconds = time.perf_counter() - begun
    rows.sort(key=lambda row: row["file"])
    for row in rows:
        mark = " " if row["as_then"] else "!"
        what = f"{row['failed_at']}: {row['code']}" if row["code"] else row["end"]
        print(f"{mark} {row['file'][:-5]:32} {row['result']:14} {row['answered']:3} answers  {what}")
    other = sum(not row["as_then"] for row in rows)
    charged = sum(row["charged"] for row in rows)
    answered = sum(row["answered"] for row in rows)
    print(
        f"{len(rows)} recordings, {charged} charged, {answered} requests answered in {seconds:.2f} s; {other} otherwise"
    )
    if arguments.json:
        result = {"recordings": rows, "seconds": round(seconds, 3), "answered": answered, "otherwise": other}
        arguments.json.write_text(json.dumps(result, indent=1))
    return int(arguments.check and other > 0)


if __name__ == "__main__":
    sys.exit(main())
