"""How steady the GB/T charger speaks and how fast it stops: ``python bench/gbt.py [--json FILE] [--seed S]``.

Runs the gbt, power and pilot nodes with simulated rack, safety controller and vehicle as processes; this process plays
supervisor and robot, listens on the bus and to power/state. JSON keys as in bench/chademo.py: ``period_ms`` {p50,
p999_jitter, frames} of CCS; ``stop_s`` from the vehicle's BST to at most 5 A; ``can_loss_s`` from the vehicle's last
frame to at most 1 A (BCL may be silent for 1 s); ``current_a`` that flowed before either. Targets: 10 ms of jitter at
50 ms, 0.5 s, 1.2 s.
"""

from __future__ import annotations

import argparse
import sys

from chademo import Plug, measure, publish

from robot_charger.gbt.frames import MESSAGES

GBT = Plug(
    "gbt",
    (MESSAGES["CCS"].identifier,),
    50.0,
    ("bst", "stopped_ns"),
    settings=("restart_in_charge:=false",),  # the second visit ends by its silence
    vehicle=("--max-current", "125"),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", default="")
    parser.add_argument("--seconds", type=float, default=45.0, help="at full current before the first stop")
    parser.add_argument("--modules", type=int, default=46)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    return publish(measure(GBT, args.seconds, args.modules, args.seed), args.json)


if __name__ == "__main__":
    sys.exit(main())
