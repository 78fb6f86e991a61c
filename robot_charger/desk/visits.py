"""The vehicles of a launched simulation: ``python -m robot_charger.desk.visits DIRECTORY --sessions 2``.

Lets a vehicle come to each EVSE, has the session authorised by the CSMS, takes the books, lets it leave. Exit status: 0
when every session completed and the books agree, 1 when not, 130 when interrupted.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from rich.console import Console

from robot_charger.common.process import StopSignal, end_with_parent
from robot_charger.common.wires import WireEnd
from robot_charger.desk.demo import INTERRUPTED, MORE_S, SESSION_S, START_S
from robot_charger.desk.observer import Observer
from robot_charger.desk.plan import load
from robot_charger.desk.rehearsal import rehearse
from robot_charger.desk.simulation import Controls
from robot_charger.desk.view import Footprint, summary


def run(directory: Path, sessions: int, stop: StopSignal) -> int:
    """All sessions; the exit status."""
    desk = load(directory)
    evses = list(desk.options.evses)
    controls, observer = Controls(desk.options, directory), Observer(evses, "visits")
    controls.wires = WireEnd("cli", directory)
    console = Console(width=110)
    rehearsals = rehearse(controls, observer, max(sessions, len(evses)))
    began, deadline, said = 0.0, time.monotonic() + START_S + MORE_S * len(evses), 0
    start = time.monotonic()
    complaint = ""
    try:
        while not complaint and not all(r.done for r in rehearsals):
            if stop.wait(0.1):
                return INTERRUPTED
            controls.repeat()
            if not began and observer.all_up():
                began = time.monotonic() - start
                deadline = time.monotonic() + SESSION_S * max(1, sessions)
            for rehearsal in rehearsals:
                rehearsal.tick()
            for evse, phase in observer.events[said:]:
                said += 1
                print(f"evse{evse}: {phase}", flush=True)
            if time.monotonic() > deadline:
                complaint = observer.why_late(began > 0, deadline - start)
    finally:
        observer.close()
        controls.wires.close()
    results = [result for rehearsal in rehearsals for result in rehearsal.results]
    summary(console, results, Footprint(round(began, 2), 0.0, {}, observer.cycles()))
    if complaint:
        print(complaint, file=sys.stderr)
    return 0 if not complaint and results and all(r.well for r in results) else 1


def main() -> None:
    parser = argparse.ArgumentParser(prog="robot_charger.desk.visits", description=(__doc__ or "").split(":")[0])
    parser.add_argument("directory", type=Path, help="of the run, made by robot_charger.desk.plan")
    parser.add_argument("--sessions", type=int, default=1, help="of the whole station, at least one for each EVSE")
    a = parser.parse_args()
    stop = StopSignal()
    end_with_parent()
    sys.exit(run(a.directory, a.sessions, stop))


if __name__ == "__main__":
    main()
