"""Break one process of a running desk station in one phase, and see what the vehicle's inlet saw."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from robot_charger.desk.promises import CONTINUE, DESK_GRACE_S, FREEZE, KILL, PROMISES, STOP, Promise
from robot_charger.desk.rehearsal import Rehearsal
from robot_charger.desk.running import StationFailed
from robot_charger.desk.simulation import Simulation
from robot_charger.sim.csms.books import books
from robot_charger.station import DeskOptions

UP_S, REACH_S, WATCH_S, END_S = 60.0, 120.0, 4.0, 240.0
FROZEN_S = 3.0
SMALL_A = 5.0
SIMULATORS_THAT_STAY_DEAD = ("sim_safety", "sim_vehicle1")


@dataclass(frozen=True)
class Cell:
    target: str
    phase: str
    protocol: str
    fault: str
    promise: Promise


@dataclass
class Outcome:
    """One row of the matrix. Times in seconds from the fault, -1 = did not happen (or was not expected)."""

    target: str
    phase: str
    protocol: str
    fault: str
    expected: str
    limit_s: float
    zero_current_s: float = -1.0
    open_s: float = -1.0
    safe: bool = False
    books_ok: bool = False
    unbilled_wh: float = 0.0
    seen: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def cells(protocols: tuple[str, ...] = ("iso15118-2",)) -> list[Cell]:
    """The whole matrix."""
    return [
        Cell(target.replace("{n}", "1"), phase, protocol, fault, promise)
        for protocol in protocols
        for promise in PROMISES
        for target in promise.targets
        for fault in promise.faults
        for phase in promise.phases
    ]


def sample(count: int, seed: int, protocols: tuple[str, ...] = ("iso15118-2",)) -> list[Cell]:
    """``count`` cells: every (target, fault) first, then at random."""
    everything = cells(protocols)
    random.Random(seed).shuffle(everything)
    pairs: dict[tuple[str, str], Cell] = {}
    for cell in everything:
        pairs.setdefault((cell.target, cell.fault), cell)
    chosen = list(pairs.values())
    chosen += [cell for cell in everything if cell not in chosen]
    return chosen[:count]


class ResilientSimulation(Simulation):
    """Nodes that die are started again, as `robot-charger up` and launch do; simulated hardware stays dead."""

    def __init__(self, options: DeskOptions) -> None:
        super().__init__(options)
        self.processes.respawn = True
        self.deaths: list[str] = []

    def tick(self) -> None:
        with contextlib.suppress(StationFailed):
            super().tick()


def run_cell(cell: Cell, seed: int) -> Outcome:
    """One station, one session, one fault."""
    outcome = Outcome(
        cell.target, cell.phase, cell.protocol, cell.fault, cell.promise.expected,
        cell.promise.open_s + DESK_GRACE_S if cell.promise.expected == STOP else 0.0,
    )  # fmt: skip
    with ResilientSimulation(DeskOptions(protocol=cell.protocol, seed=seed)) as simulation:
        rehearsal = Rehearsal(simulation, 1, 1, lambda: books(simulation.csms_store))
        if not _until(simulation, rehearsal, lambda: _in_phase(simulation, cell.phase), UP_S + REACH_S):
            outcome.seen = "the phase was not reached"
            return outcome
        child = simulation.processes.children[cell.target]
        if cell.target in SIMULATORS_THAT_STAY_DEAD:
            child.ended = True
        began = time.monotonic()
        os.kill(child.process.pid, signal.SIGKILL if cell.fault == KILL else signal.SIGSTOP)
        _watch(simulation, rehearsal, outcome, began)
        if cell.fault == FREEZE:
            _until(simulation, rehearsal, lambda: time.monotonic() - began > FROZEN_S, FROZEN_S)
            os.kill(child.process.pid, signal.SIGCONT)
        _until(simulation, rehearsal, lambda: bool(rehearsal.results), END_S)
        _judge(cell, outcome, simulation, rehearsal)
    return outcome


def _in_phase(simulation: Simulation, phase: str) -> bool:
    with simulation.observer.lock:
        phases = simulation.observer.seen[1].phases
        now = phases[-1][0] if phases else ""
    if now != phase:
        return False
    return phase != "charging" or _current(simulation) > 50.0


def _current(simulation: Simulation) -> float:
    return abs(float(simulation.truth("rack").get("current_a", {}).get("1", 0.0)))


def _until(
    simulation: Simulation, rehearsal: Rehearsal, condition: Callable[[], bool], seconds: float
) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        simulation.tick()
        rehearsal.tick()
        if condition():
            return True
        time.sleep(0.01)
    return False


def _watch(simulation: Simulation, rehearsal: Rehearsal, outcome: Outcome, began: float) -> None:
    """For WATCH_S: when the current was gone and when the contactors opened, by the rack's and the safety's truth."""
    for _ in _ticks(WATCH_S):
        now = time.monotonic() - began
        closed = bool(simulation.truth("safety").get("contactors", {}).get("1"))
        if _silent(simulation, "safety"):
            closed = bool(simulation.truth("rack").get("contactors", {}).get("1"))
        if outcome.zero_current_s < 0 and _current(simulation) < SMALL_A:
            outcome.zero_current_s = round(now, 3)
        elif outcome.zero_current_s >= 0 and _current(simulation) >= SMALL_A:
            outcome.zero_current_s = -1.0  # it came back
        if not closed and outcome.open_s < 0:
            outcome.open_s = round(now, 3)
        elif closed:
            outcome.open_s = -1.0
        simulation.tick()
        rehearsal.tick()


def _silent(simulation: Simulation, simulator: str) -> bool:
    """A simulator that no longer tells its truth."""
    return simulation.wires.age_s(simulator) > 0.5


def _ticks(seconds: float) -> Iterator[None]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield
        time.sleep(0.005)


def _judge(cell: Cell, outcome: Outcome, simulation: Simulation, rehearsal: Rehearsal) -> None:
    promise = cell.promise
    with simulation.observer.lock:
        phases = [name for name, _ in simulation.observer.seen[1].phases]
    if promise.expected == STOP:
        outcome.safe = (
            0 <= outcome.zero_current_s <= promise.zero_s + DESK_GRACE_S
            and 0 <= outcome.open_s <= promise.open_s + DESK_GRACE_S
        )
    if not rehearsal.results:
        outcome.seen = f"no end; last phase {phases[-1] if phases else 'none'}"
        return
    result = rehearsal.results[-1]
    if promise.expected == CONTINUE:
        outcome.safe = result.result == "completed" or cell.target in ("/robot", "sim_arm")
        outcome.safe = outcome.safe and "charging" in phases
    outcome.books_ok = bool(result.books.get("agree"))
    billed = result.books.get("billed_wh")
    outcome.unbilled_wh = round(max(0.0, result.books["meter_wh"] - (billed or 0.0)), 3)
    outcome.seen = f"{result.result}: {result.stop_reason} {', '.join(f['name'] for f in result.faults)}"
