"""The chaos matrix: break one thing in one phase of a session at a desk station, and see what the inlet saw.

A cell is (target, phase, protocol, fault) with what docs/safety.md promises for it. Cells of one protocol share a
station, and those that let the session go on share a session: ``Campaign`` takes whatever fits the phase it sees.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from sensor_msgs.msg import JointState

from robot_charger.common.topics import topic
from robot_charger.desk.breaking import Breaker, breaker
from robot_charger.desk.promises import (
    DESK_GRACE_S,
    FREEZE,
    JUMP,
    KILL,
    MOVING,
    NO_PHASES,
    PHASES,
    PROMISES,
    PROTOCOLS,
    SELF_TEST,
    STAY_DEAD,
    STOP,
    Promise,
)
from robot_charger.desk.rehearsal import ROUNDING_WH, Rehearsal, SessionResult, unbilled_wh
from robot_charger.desk.running import StationFailed
from robot_charger.desk.simulation import Simulation
from robot_charger.desk.wall_clock import WallClock
from robot_charger.sim.csms.books import books
from robot_charger.station import DeskOptions

EVSE = 1
UP_S, SESSION_S = 90.0, 240.0
DEAD_S = 20.0  # for a session whose hardware is dead to end as far as it can
WATCH_S = 4.0  # after the fault, or until zero, open and still were promised, whatever is longer
SETTLE_S = 12.0  # for what was killed to be active again before the next fault
CHARGE_S = 25.0
SMALL_A, SOME_A = 5.0, 20.0
STILL_RAD_S, REST_S = 0.02, 0.3  # an arm rests that was not faster for so long
STALL_S = 0.1  # a watcher that slept longer than this measured that much too late
BARREN = 3  # stations in a row on which nothing could be measured
TRIES = 2  # sessions in which a cell's phase may be missed


@dataclass(frozen=True)
class Cell:
    target: str
    phase: str
    protocol: str
    fault: str
    promise: Promise

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.target, self.phase, self.protocol, self.fault

    @property
    def pairs(self) -> set[tuple[str, ...]]:
        """What the published table must have of it; a fault of a target once for each promise."""
        return {
            ("t", self.target, self.fault, self.promise.why),
            ("p", self.target, self.phase),
            ("f", self.protocol, self.fault),
        }

    @property
    def stops(self) -> bool:
        return self.promise.expected == STOP


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
    still_s: float = -1.0
    stall_s: float = 0.0  # for how long the machine did not let the watcher look
    safe: bool = False
    books_ok: bool = False
    unbilled_wh: float = 0.0
    seen: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def matrix(protocols: Iterable[str] = PROTOCOLS) -> list[Cell]:
    """Every cell that the table of promises has."""
    return [
        Cell(target.replace("{n}", str(EVSE)), phase, protocol, fault, promise)
        for promise in PROMISES
        for protocol in protocols
        if protocol in promise.protocols
        for target in promise.targets
        for fault in promise.faults
        for phase in promise.phases
        if phase not in NO_PHASES.get(protocol, ())
    ]


def sample(count: int, seed: int, done: Iterable[tuple[str, str, str, str]] = ()) -> list[Cell]:
    """``count`` cells that were not done, those first that cover most new pairs; of equals, a protocol not chosen yet.

    Covered are the pairs (target, fault), (target, phase) and (protocol, fault). In the order in which they are chosen.
    """
    everything = matrix()
    random.Random(seed).shuffle(everything)
    known = set(done)
    covered: set[tuple[str, ...]] = set().union(*(c.pairs for c in everything if c.key in known), set())
    left = [c for c in everything if c.key not in known]
    chosen: list[Cell] = []
    while left and len(chosen) < count:
        protocols = {c.protocol for c in chosen}
        best = max(left, key=lambda c: (len(c.pairs - covered), c.protocol not in protocols))
        chosen.append(best)
        covered |= best.pairs
        left.remove(best)
    return chosen


def uncovered(done: Iterable[tuple[str, str, str, str]]) -> set[tuple[str, ...]]:
    """Pairs that no cell of ``done`` has."""
    known = set(done)
    wanted: set[tuple[str, ...]] = set()
    for cell in matrix():
        wanted |= cell.pairs
    for cell in matrix():
        if cell.key in known:
            wanted -= cell.pairs
    return wanted


class ChaosStation(Simulation):
    """Nodes that die are started again, as `robot-charger up` and launch do; simulated hardware stays dead."""

    def __init__(self, options: DeskOptions, jumps: bool) -> None:
        """``jumps``: the station's wall clock can be moved. Raises NoCompilerError."""
        super().__init__(options)
        self.processes.respawn = True
        self.directory.mkdir(parents=True, exist_ok=True)
        self.wall_clock = WallClock(self.directory) if jumps else None
        if self.wall_clock:
            self.processes.station_environment.update(self.wall_clock.environment)
        self.damaged = False
        self.lacks_a_witness = False  # a simulator that counts energy, or plays the vehicle, is dead
        self._heard = False  # the arm
        self._moved_at = self._rested_at = 0.0  # when a joint moved last, and last before the first rest [s]
        self._listener: Any = None

    def tick(self) -> None:
        with contextlib.suppress(StationFailed):
            super().tick()

    @property
    def phase(self) -> str:
        with self.observer.lock:
            phases = self.observer.seen[EVSE].phases
            return phases[-1][0] if phases else ""

    @property
    def told(self) -> str:
        """What the supervisor says of itself."""
        with self.observer.lock:
            state = self.observer.seen[EVSE].last.get("session/state")
            return str(state.text) if state else "its supervisor says nothing"

    @property
    def fault(self) -> int:
        """That of the session, 0 = none."""
        with self.observer.lock:
            state = self.observer.seen[EVSE].last.get("session/state")
            return state.fault if state else 0

    @property
    def current_a(self) -> float:
        """At the inlet, by the physics; zero when the modules are gone and the contactors open."""
        if self.wires.age_s("rack") > 1.0 and not self.closed:
            return 0.0
        return abs(float(self.truth("rack").get("current_a", {}).get(str(EVSE), 0.0)))

    @property
    def closed(self) -> bool:
        """Contactors: by the safety controller, or by the modules when it is silent; an AC outlet has its own."""
        teller = "rack" if self.options.ac or self.wires.age_s("safety") > 0.5 else "safety"
        return bool(self.truth(teller).get("contactors", {}).get(str(EVSE)))

    def watch_arm(self) -> None:
        full, kind, qos = topic("/robot/joint_states")
        self._heard, self._moved_at, self._rested_at = False, 0.0, 0.0
        self._listener = self.observer.node.create_subscription(kind, full, self._on_joints, qos)

    def leave_arm(self) -> None:
        if self._listener is not None:
            self.observer.node.destroy_subscription(self._listener)
            self._listener = None

    def _on_joints(self, state: JointState) -> None:
        self._heard = True
        if max((abs(v) for v in state.velocity), default=0.0) > STILL_RAD_S:
            now = time.monotonic()
            if self._moved_at and not self._rested_at and now - self._moved_at > REST_S:
                self._rested_at = self._moved_at
            self._moved_at = now

    def rested_s(self, began: float) -> float:
        """How long after ``began`` the arm came to rest, -1 when it is not heard [s].

        A node that was started again may move it after that, by a new permit.
        """
        return max(0.0, (self._rested_at or self._moved_at) - began) if self._heard else -1.0


@dataclass
class Campaign:
    """The cells of one protocol, worked off on as few stations and sessions as they allow."""

    pending: list[Cell]
    seed: int
    report: Callable[[Outcome], None]
    out_of_time: Callable[[], bool]
    missed: list[tuple[Cell, str]] = field(default_factory=list)
    _tried: dict[Cell, int] = field(default_factory=dict)
    _rows: list[tuple[Cell, Outcome]] = field(default_factory=list)  # of the present session

    def run(self) -> None:
        starts = barren = 0
        why = "no time left"
        while self.pending and barren < BARREN and not self.out_of_time():
            starts += 1
            before = len(self.pending)
            options = DeskOptions(protocol=self.pending[0].protocol, seed=self.seed + starts, charge_seconds=CHARGE_S)
            with ChaosStation(options, any(c.fault == JUMP for c in self.pending)) as station:
                rehearsal = Rehearsal(station, station.observer, EVSE, 0, lambda store=station.csms_store: books(store))  # type: ignore[misc]
                if not _until(station, rehearsal, lambda: station.phase == "idle", UP_S):
                    station.damaged = True
                    why = f"the station did not come up: {station.told}"
                while self.pending and not station.damaged and not self.out_of_time():
                    self._session(station, rehearsal)
            barren = barren + 1 if len(self.pending) == before else 0
        self.missed += [(cell, why) for cell in self.pending]
        self.pending = []

    def _session(self, station: ChaosStation, rehearsal: Rehearsal) -> None:
        """One visit: every fault that fits, at most one that ends it."""
        self._rows = []
        rehearsal.remaining += 1
        finished = len(rehearsal.results)
        candidates = list(self.pending)
        deadline = time.monotonic() + SESSION_S
        stopped = False
        used: set[str] = set()  # phases that had their fault: only charging lasts long enough for several
        while len(rehearsal.results) == finished and time.monotonic() < deadline:
            phase = station.phase
            if not stopped and (phase not in used or phase == "charging"):
                cell = self._next(phase, station)
                if cell is not None:
                    used.add(phase)
                    self.pending.remove(cell)
                    stopped = self._break(cell, station, rehearsal)
                    deadline = time.monotonic() + (DEAD_S if station.lacks_a_witness else SESSION_S)
            _tick(station, rehearsal)
        result = rehearsal.results[-1] if len(rehearsal.results) > finished else None
        station.damaged |= result is None or station.phase == "faulted"
        ended = any(cell.stops for cell, _ in self._rows)
        counted = not (station.lacks_a_witness or any(_miscounts(cell) for cell, _ in self._rows))
        for cell, outcome in self._rows:
            _judge(cell, outcome, station, result, ended, counted)
            self.report(outcome)
        if not station.damaged and not _until(station, rehearsal, lambda: station.phase == "idle", 30.0):
            station.damaged = True
        self._give_up(candidates)

    def _give_up(self, candidates: list[Cell]) -> None:
        """A session passed without any fault: whatever it could not reach is not reached a second time either."""
        if self._rows:
            return
        for cell in [c for c in candidates if c in self.pending]:
            self._tried[cell] = self._tried.get(cell, 0) + 1
            if self._tried[cell] >= TRIES:
                self.pending.remove(cell)
                self.missed.append((cell, "its phase was not reached"))

    def _next(self, phase: str, station: ChaosStation) -> Cell | None:
        """What to break now; what lets the session go on comes before what ends it."""
        here = [c for c in self.pending if c.phase == phase]
        if not here or (phase == "charging" and station.current_a < SOME_A):
            return None
        if phase in MOVING and not _arm_at_work(station):
            return None
        return min(here, key=lambda c: (c.stops, _stays_dead(c)))

    def _break(self, cell: Cell, station: ChaosStation, rehearsal: Rehearsal) -> bool:
        """Do it, watch, undo it. True when the session ends by it."""
        p = cell.promise
        outcome = Outcome(*cell.key, p.expected, round(max(p.open_s, p.still_s) + DESK_GRACE_S, 3) if cell.stops else 0)
        self._rows.append((cell, outcome))
        if p.still_s:
            station.watch_arm()
        fault = station.fault  # of a try before
        tool = breaker(station, cell.target, cell.fault, EVSE)
        began = time.monotonic()
        tool.begin()
        _watch(station, rehearsal, tool, cell, outcome, began)
        station.leave_arm()
        if _stays_dead(cell):
            station.damaged = station.lacks_a_witness = True
        if cell.stops:
            return True
        _until(station, rehearsal, lambda: tool.recovered() or station.phase != cell.phase, SETTLE_S)
        flows = {cell.phase, station.phase} != {"charging"} or station.current_a >= SOME_A
        undisturbed = flows and station.fault in (0, fault) and station.phase != "faulted"
        outcome.safe = undisturbed or cell.fault == SELF_TEST  # which stops first, and then plugs in again
        return False


def _miscounts(cell: Cell) -> bool:
    """A simulator that counts energy stood still: its current of before counts for all that time."""
    return cell.fault == FREEZE and cell.target in (f"sim_vehicle{EVSE}", "sim_rack")


def _stays_dead(cell: Cell) -> bool:
    return cell.fault == KILL and cell.target.replace(str(EVSE), "{n}") in STAY_DEAD


def _arm_at_work(station: ChaosStation) -> bool:
    """In the middle of it: near the inlet."""
    with station.observer.lock:
        state = station.observer.station.get("/robot/state")
    return state is not None and state.evse == EVSE and state.in_contact_zone


def _tick(station: ChaosStation, rehearsal: Rehearsal) -> None:
    station.tick()
    rehearsal.tick()
    time.sleep(0.01)


def _until(station: ChaosStation, rehearsal: Rehearsal, condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        _tick(station, rehearsal)
        if condition():
            return True
    return False


def _watch(
    station: ChaosStation, rehearsal: Rehearsal, tool: Breaker, cell: Cell, outcome: Outcome, began: float
) -> None:
    """When the current was gone, the contactors open and the arm still; ends the fault at its time."""
    p = cell.promise
    now, last, told = 0.0, time.monotonic(), 0.0
    end_s = max(WATCH_S, tool.lasts_s + 0.5, p.open_s + DESK_GRACE_S + 0.5)
    while now < end_s:
        at = time.monotonic()
        now, pause = at - began, at - last
        last = at
        if pause > STALL_S and now <= outcome.limit_s + pause:
            outcome.stall_s = round(outcome.stall_s + pause, 3)
        outcome.zero_current_s = _since(station.current_a < SMALL_A, outcome.zero_current_s, now)
        outcome.open_s = _since(not station.closed, outcome.open_s, now)
        if now >= tool.lasts_s:
            tool.end()
        else:
            tool.go_on()
        if at - told > 0.05:  # the watcher looks more often than it talks
            told = at
            station.tick()
            rehearsal.tick()
        time.sleep(0.005)
    tool.end()
    if p.still_s:
        outcome.still_s = round(station.rested_s(began), 3)


def _since(holds: bool, since: float, now: float) -> float:
    """When it began to hold for good."""
    if not holds:
        return -1.0
    return since if since >= 0 else round(now, 3)


def _judge(
    cell: Cell, outcome: Outcome, station: ChaosStation, result: SessionResult | None, ended: bool, counted: bool
) -> None:
    """Safe: what was promised within its times, or a session that went on. The books are the session's.

    ``ended``: another cell ended the session on purpose. ``counted``: modules and battery counted all the time.
    """
    p = cell.promise
    late = DESK_GRACE_S + outcome.stall_s
    with station.observer.lock:
        phases = [name for name, _ in station.observer.seen[EVSE].phases]
    if cell.stops:
        outcome.safe = 0 <= outcome.zero_current_s <= p.zero_s + late and 0 <= outcome.open_s <= p.open_s + late
        if p.still_s:
            outcome.safe = outcome.safe and 0 <= outcome.still_s <= p.still_s + late
    else:
        outcome.zero_current_s = outcome.open_s = -1.0
        completed = result is not None and result.result == "completed"
        outcome.safe = outcome.safe and (ended or completed)
        if cell.fault == SELF_TEST:
            outcome.safe = outcome.safe and phases.count("connecting") == 2
    if result is None:
        outcome.seen = f"no end; last phase {phases[-1] if phases else 'none'}"
        outcome.books_ok = station.lacks_a_witness
        return
    outcome.unbilled_wh = unbilled_wh(result.books)
    outcome.books_ok = bool(result.books.get("agree"))
    if not counted:  # what the meter said must be billed
        outcome.books_ok = outcome.unbilled_wh < ROUNDING_WH
    outcome.seen = f"{result.result}: {result.stop_reason} {', '.join(f['name'] for f in result.faults)}".strip()


def _past(due: float) -> bool:
    return time.monotonic() > due


def run(cells: list[Cell], seed: int, report: Callable[[Outcome], None], seconds: float) -> list[tuple[Cell, str]]:
    """Measure ``cells``, one protocol after another, each with its share of ``seconds``; ``report`` gets each row.

    No session begins after its time, so it may take SESSION_S longer. Returns the cells not measured, and why.
    """
    missed: list[tuple[Cell, str]] = []
    end = time.monotonic() + seconds
    protocols = list(dict.fromkeys(cell.protocol for cell in cells))
    for number, protocol in enumerate(protocols):
        share_s = (end - time.monotonic()) / (len(protocols) - number)
        due = time.monotonic() + share_s
        mine = [c for c in cells if c.protocol == protocol]
        mine.sort(key=lambda c: PHASES.index(c.phase))
        campaign = Campaign(mine, seed, report, partial(_past, due))
        campaign.run()
        missed += campaign.missed
    return missed


__all__ = ["Cell", "Outcome", "matrix", "run", "sample", "uncovered"]
