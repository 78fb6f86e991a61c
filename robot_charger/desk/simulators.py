"""All simulators of a launched simulation, as children of one process.

    python -m robot_charger.desk.simulators DIRECTORY

They must outlast the nodes, which bring the output to zero when launch ends them all at once. So this process takes the
signal, waits until power says that the output is safe or is gone, ends the simulators, and removes the run directory.
Exit status: 0, or 1 when a simulator ended by itself.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path

from robot_charger.common.process import StopSignal, end_with_parent
from robot_charger.common.wires import RUN_DIRECTORY
from robot_charger.desk.observer import Observer
from robot_charger.desk.plan import load
from robot_charger.desk.processes import Processes
from robot_charger.station import ENVIRONMENT

STARTED = "the simulators are started"  # the launch file waits for it
SAFE_S = 4.0  # [s] longest wait for power to say that the output is safe
SILENT_S = 0.5  # [s] power is gone: it speaks at 25 Hz


def run(directory: Path, without: list[str], stop: StopSignal) -> int:
    """Until ``stop``."""
    desk = load(directory)
    processes = Processes(directory, {**ENVIRONMENT, RUN_DIRECTORY: str(directory)})
    observer = Observer(list(desk.options.evses), "simulators")
    try:
        for simulator in desk.simulators():
            if simulator.name not in without:
                processes.start(f"sim_{simulator.name}", simulator.command())
        print(STARTED, flush=True)
        while not stop.wait(0.2):
            for child in processes.dead():
                words = child.last_words()
                print(f"{child.name} ended with status {child.process.returncode}: {words}", file=sys.stderr)
                return 1
        deadline = time.monotonic() + SAFE_S
        while time.monotonic() < deadline and not observer.output_is_safe() and observer.power_silent_s() < SILENT_S:
            time.sleep(0.02)
    finally:
        processes.end(list(processes.children))
        observer.close()
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(prog="robot_charger.desk.simulators", description=(__doc__ or "").split(".")[0])
    parser.add_argument("directory", type=Path, help="of the run, made by robot_charger.desk.plan")
    parser.add_argument("--without", nargs="*", default=[], metavar="NAME", help="simulators that run elsewhere")
    a = parser.parse_args()
    stop = StopSignal()
    end_with_parent()
    try:
        status = run(a.directory, a.without, stop)
    finally:
        shutil.rmtree(a.directory, ignore_errors=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
