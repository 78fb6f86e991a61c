"""``robot-charger demo``: a whole station on a desk, one automated session after another, then the books."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from robot_charger.desk.interrupts import Interrupts
from robot_charger.desk.rehearsal import FAULTS, rehearse
from robot_charger.desk.running import StationFailed
from robot_charger.desk.simulation import Simulation
from robot_charger.desk.view import Footprint, View, summary
from robot_charger.station import DeskOptions

START_S, MORE_S = 40.0, 25.0  # until all nodes are up: with one EVSE, and more for each further one
SESSION_S = 300.0  # no session of the demo takes longer
INTERRUPTED = 130
CPU_WINDOW_S = 8.0  # of charging, over which processor time is measured


@dataclass(frozen=True)
class DemoOptions:
    simulation: DeskOptions
    sessions: int = 1
    fault: str = ""
    json: Path | None = None
    logs: Path | None = None
    record: Path | None = None
    video: Path | None = None  # a film of the robot; needs ``simulation.motion``


def run(options: DemoOptions, console: Console | None = None) -> int:
    """Run the demo; its exit status."""
    console = console or Console()
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("the demo handles signals: run it in the main thread")
    interrupts = Interrupts()
    simulation = Simulation(options.simulation, options.logs, options.record)
    simulation.hurry = interrupts.hurry
    try:
        with simulation:
            status = _sessions(options, simulation, interrupts, console)
    except StationFailed as failure:
        console.print(str(failure), style="red", highlight=False, markup=False)
        return 2 if failure.bad_usage else 1
    filmed = options.video is None or _film(options, console)
    return status if filmed else status or 1


def _film(options: DemoOptions, console: Console) -> bool:
    """Render the film, now that the processor is free; a process of its own, for its graphics library."""
    console.print(f"rendering {options.video}, about as long as the session took", highlight=False, markup=False)
    words = ["-m", "robot_charger.sim.arm.film", str(options.simulation.motion), str(options.video)]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    text = (done.stdout if done.returncode == 0 else done.stderr).strip()
    console.print(text, style=None if done.returncode == 0 else "red", highlight=False, markup=False)
    return done.returncode == 0


def _sessions(options: DemoOptions, simulation: Simulation, interrupts: Interrupts, console: Console) -> int:
    evses = options.simulation.evses
    console.print(
        f"to look inside:  export ROS_DOMAIN_ID={simulation.domain} ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST",
        highlight=False,
        soft_wrap=True,
    )
    rehearsals = rehearse(simulation, simulation.observer, options.sessions, options.fault)
    startup_s = 0.0
    rss_mb = 0.0
    cpu: dict[str, float] = {}
    cpu_before: dict[str, float] = {}
    cpu_since = 0.0
    patience_s = START_S + MORE_S * (len(evses) - 1)
    deadline = time.monotonic() + patience_s
    complaint = ""
    title = f"{options.simulation.protocol}  OCPP {options.simulation.ocpp}"
    with View(console, simulation.observer, title) as view:
        while not all(r.done for r in rehearsals):
            if interrupts.count:
                complaint = "interrupted: power off first, then everything else"
                break
            simulation.tick()
            if not startup_s and simulation.observer.all_up():
                startup_s = time.monotonic() - simulation.started_at
                deadline = time.monotonic() + SESSION_S * max(1, options.sessions)
            for rehearsal in rehearsals:
                rehearsal.tick()
            if not rss_mb and _any_charging(simulation):
                rss_mb = simulation.processes.rss_mb()
                cpu_before, cpu_since = simulation.processes.cpu_seconds(), time.monotonic()
            elif cpu_since and time.monotonic() - cpu_since > CPU_WINDOW_S:
                cpu, cpu_since = _shares(simulation, cpu_before, cpu_since), 0.0
            if time.monotonic() > deadline:
                complaint = simulation.observer.why_late(startup_s > 0, patience_s)
                break
            view.tick()
            time.sleep(0.1)
        view.tick()
    results = sorted((r for x in rehearsals for r in x.results), key=lambda r: r.evse)
    if complaint:
        console.print(complaint, style="red", highlight=False, markup=False)
    footprint = Footprint(round(startup_s, 2), round(rss_mb, 1), cpu, simulation.observer.cycles())
    summary(console, results, footprint)
    if options.json:
        _write(options.json, results, footprint)
    if interrupts.count:
        return INTERRUPTED
    well = len(results) == options.sessions and all(r.well for r in results)
    return 0 if well else 1


def _any_charging(simulation: Simulation) -> bool:
    with simulation.observer.lock:
        return any(s.phases and s.phases[-1][0] == "charging" for s in simulation.observer.seen.values())


def _shares(simulation: Simulation, before: dict[str, float], since: float) -> dict[str, float]:
    """Share of one core that each process used since then."""
    elapsed = time.monotonic() - since
    used = simulation.processes.cpu_seconds()
    return {name: round((used[name] - before[name]) / elapsed, 3) for name in used if name in before}


def _write(path: Path, results: Sequence[Any], footprint: Footprint) -> None:
    grades = {"completed": 0, "stopped": 1, "faulted": 2}
    result = max((r.result for r in results), key=grades.__getitem__, default="faulted")
    document = {
        "result": result,
        "sessions": [dataclasses.asdict(r) for r in results],
        **dataclasses.asdict(footprint),
    }
    path.write_text(json.dumps(document, indent=2) + "\n")


__all__ = ["FAULTS", "DemoOptions", "run"]
