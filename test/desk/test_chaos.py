"""The chaos matrix without a station: what is chosen, how it is judged, and that each fault does what it says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from robot_charger.desk import breaking, chaos
from robot_charger.desk.chaos import Cell, Outcome
from robot_charger.desk.promises import CONTINUE, DESK_GRACE_S, FAULTS, PHASES, PROMISES, PROTOCOLS, STOP
from robot_charger.desk.wall_clock import NoCompilerError, WallClock


def test_every_pair_of_the_table_is_covered_before_any_cell_is_chosen_for_nothing():
    everything = chaos.matrix()
    assert len({c.key for c in everything}) == len(everything), "two promises for one cell"
    cells = chaos.sample(10_000, seed=0)
    assert len(cells) == len(everything)
    for count in range(len(cells)):
        if not chaos.uncovered(c.key for c in cells[:count]):
            break
    assert count < 200, "the published table need not be the full product"
    assert not chaos.uncovered(c.key for c in cells[:count])


def test_a_sample_is_repeatable_goes_on_and_has_both_kinds():
    cells = chaos.sample(30, seed=0)
    assert [c.key for c in cells] == [c.key for c in chaos.sample(30, seed=0)]
    assert {c.promise.expected for c in cells} == {STOP, CONTINUE}
    assert {c.protocol for c in cells} == set(PROTOCOLS)
    more = chaos.sample(30, seed=0, done=[c.key for c in cells])
    assert not {c.key for c in more} & {c.key for c in cells}


@pytest.mark.parametrize("protocol", ["chademo", "gbt"])
def test_every_cell_can_be_broken_and_every_fault_is_told(protocol):
    for promise in PROMISES:
        assert set(promise.phases) <= set(PHASES) and set(promise.faults) <= set(FAULTS)
        assert (promise.expected == STOP) == (promise.zero_s > 0)
    child = SimpleNamespace(process=SimpleNamespace(pid=1))
    children = dict.fromkeys([t.replace("{n}", "1") for p in PROMISES for t in p.targets], child)
    station = SimpleNamespace(
        processes=SimpleNamespace(children=children), domain=1, wall_clock=None,
        desk=SimpleNamespace(
            bus="virtual:modules", vehicle_bus=lambda evse: "virtual:vehicle",
            options=SimpleNamespace(protocol=protocol),
        ),
    )  # fmt: skip
    for target, fault in {(c.target, c.fault) for c in chaos.matrix()}:
        tool = breaking.breaker(station, target, fault, 1)
        if isinstance(tool, (breaking.CanGarbage, breaking.DdsGarbage)):
            tool.end()


STOPPED = next(p for p in PROMISES if p.targets == ("/power",))
GOES_ON = next(p for p in PROMISES if p.targets == ("/backend",))


def judged(
    promise: Any, ended: bool = False, result: str = "completed", agree: bool = True, counted: bool = True,
    billed_wh: float = 500.0, **seen: Any,
) -> Outcome:  # fmt: skip
    cell = Cell("x", "charging", "din", "kill", promise)
    outcome = Outcome(*cell.key, promise.expected, promise.open_s, **seen)
    station: Any = SimpleNamespace(
        observer=SimpleNamespace(lock=_Free(), seen={1: SimpleNamespace(phases=[("charging", 0.0)])}),
        lacks_a_witness=False,
    )
    books = {"agree": agree, "meter_wh": 500.0, "billed_wh": billed_wh}
    told: Any = SimpleNamespace(result=result, stop_reason="", faults=[], books=books)
    chaos._judge(cell, outcome, station, told, ended, counted)
    return outcome


class _Free:
    def __enter__(self) -> None:
        """A lock that nobody else wants."""

    def __exit__(self, *error: object) -> None:
        """Nothing to give back."""


def test_a_stop_is_safe_within_its_times_only():
    good = dict(zero_current_s=0.3, open_s=0.9)
    assert judged(STOPPED, result="faulted", **good).safe
    assert not judged(STOPPED, **{**good, "zero_current_s": STOPPED.zero_s + DESK_GRACE_S + 0.05}).safe
    assert not judged(STOPPED, **{**good, "open_s": STOPPED.open_s + DESK_GRACE_S + 0.05}).safe
    assert not judged(STOPPED, **{**good, "open_s": -1.0}).safe, "it never opened"
    late = {**good, "zero_current_s": STOPPED.zero_s + DESK_GRACE_S + 0.05, "stall_s": 0.2}
    assert judged(STOPPED, **late).safe, "the machine stood still for 0.2 s, and said so"


def test_going_on_means_to_the_end_unless_another_cell_ended_it():
    assert judged(GOES_ON, safe=True).safe
    assert not judged(GOES_ON, safe=True, result="faulted").safe
    assert judged(GOES_ON, safe=True, ended=True, result="faulted").safe
    assert not judged(GOES_ON, safe=False).safe, "the current was gone after the fault"


def test_wrong_books_are_told_with_what_was_not_billed():
    outcome = judged(STOPPED, agree=False, billed_wh=400.0, zero_current_s=0.1, open_s=0.1)
    assert not outcome.books_ok and outcome.unbilled_wh == 100.0
    assert not judged(STOPPED, agree=False, counted=False, billed_wh=400.0).books_ok


def test_a_battery_that_stood_still_is_no_witness():
    assert not judged(STOPPED, agree=False).books_ok, "meter and bill agree, battery and modules do not"
    assert judged(STOPPED, agree=False, counted=False).books_ok
    frozen = [c for c in chaos.matrix() if chaos._miscounts(c)]
    assert frozen and {(c.target, c.fault) for c in frozen} <= {("sim_vehicle1", "freeze"), ("sim_rack", "freeze")}


def test_the_row_has_the_keys_that_are_promised():
    row = judged(STOPPED, zero_current_s=0.1, open_s=0.1).to_dict()
    assert {"target", "phase", "protocol", "fault", "expected", "limit_s", "safe", "books_ok"} <= set(row)
    assert {"zero_current_s", "open_s", "unbilled_wh"} <= set(row)


@pytest.fixture
def child():
    words = [sys.executable, "-c", "import sys, time\nprint('up', flush=True)\nwhile True: time.sleep(0.01)"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE)
    assert process.stdout and process.stdout.readline()
    yield process
    process.kill()
    process.wait()


def wait_for_status(pid: int, *wanted: str) -> None:
    deadline = time.monotonic() + 10.0
    while psutil.Process(pid).status() not in wanted:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_frozen_process_stands_still_until_the_end(child):
    freeze = breaking.Freeze(child.pid, 1.0)
    freeze.begin()
    wait_for_status(child.pid, psutil.STATUS_STOPPED)
    freeze.end()
    wait_for_status(child.pid, psutil.STATUS_SLEEPING, psutil.STATUS_RUNNING)


def test_a_slow_process_is_left_running(child):
    slow = breaking.Slow(child.pid, 1.0)
    slow.begin()
    slow.go_on()
    wait_for_status(child.pid, psutil.STATUS_STOPPED)
    slow.end()
    wait_for_status(child.pid, psutil.STATUS_SLEEPING, psutil.STATUS_RUNNING)


def test_a_full_disk_refuses_every_write_until_it_has_room_again(tmp_path):
    script = """
import os, sys
file = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
for line in sys.stdin:
    try:
        print(os.write(file, b"x"), flush=True)
    except OSError as error:
        print(error, flush=True)
"""
    words = [sys.executable, "-c", script, str(tmp_path / "file")]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin and process.stdout

    def write() -> str:
        assert process.stdin and process.stdout
        process.stdin.write("\n")
        process.stdin.flush()
        return process.stdout.readline().strip()

    try:
        assert write() == "1"
        node = SimpleNamespace(process=SimpleNamespace(pid=process.pid))
        full = breaking.DiskFull(SimpleNamespace(processes=SimpleNamespace(children={"/backend": node})))
        full.begin()
        assert "large" in write()
        full.end()
        assert write() == "1"
    finally:
        process.kill()
        process.wait()


def test_the_wall_clock_jumps_and_the_monotonic_one_does_not(tmp_path):
    try:
        clock = WallClock(tmp_path)
    except NoCompilerError as error:
        pytest.skip(str(error))
    words = [sys.executable, "-c", "import time; print(time.time(), time.monotonic())"]
    clock.jump(3600.0)
    wall, monotonic = time.time(), time.monotonic()
    told = subprocess.run(words, env={**os.environ, **clock.environment}, capture_output=True, text=True, check=True)
    jumped, steady = map(float, told.stdout.split())
    assert 3590 < jumped - wall < 3700
    assert 0 <= steady - monotonic < 100


def test_killed_is_killed():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    child = SimpleNamespace(process=process, ended=False)
    observer = SimpleNamespace(lock=_Free(), diagnostics={"/power": SimpleNamespace(message="active")})
    station: Any = SimpleNamespace(processes=SimpleNamespace(children={"/power": child}), observer=observer)
    kill = breaking.Kill(station, "/power")
    kill.begin()
    assert process.wait(10) == -signal.SIGKILL
    assert not kill.recovered(), "what it said last was said by the dead one"
    observer.diagnostics["/power"] = SimpleNamespace(message="not active")
    assert not kill.recovered()
    observer.diagnostics["/power"] = SimpleNamespace(message="active")
    assert kill.recovered()


VISIT = ["positioning", "connecting", "linking", "cable_check", "precharge", "charging", "stopping", "disconnecting",
         "departing", "idle"]  # fmt: skip


class FakeStation:
    """Sessions go through their phases, a few looks each; a stop or a death sends them to the end."""

    made = 0

    def __init__(self, options: Any, jumps: bool) -> None:
        type(self).made += 1
        self.phase, self.looks = "idle", 0
        self.visiting = False
        self.damaged = self.lacks_a_witness = False
        self.fault, self.current_a, self.closed = 0, 100.0, False
        self.csms_store = None
        robot = SimpleNamespace(evse=1, in_contact_zone=True)
        seen = {1: SimpleNamespace(phases=[(p, 0.0) for p in VISIT])}
        self.observer = SimpleNamespace(lock=_Free(), station={"/robot/state": robot}, seen=seen)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing was started."""

    def watch_arm(self) -> None:
        """It does not move."""

    leave_arm = watch_arm

    def tick(self) -> None:
        self.looks += 1
        if self.visiting and self.looks % 4 == 0:
            self.phase = VISIT[(VISIT.index(self.phase) + 1) % len(VISIT)] if self.phase != "idle" else VISIT[0]


class FakeRehearsal:
    def __init__(self, station: FakeStation, *rest: Any) -> None:
        self.station, self.remaining, self.results = station, 0, []

    def tick(self) -> None:
        self.station.visiting = self.remaining > 0 or self.station.phase != "idle"
        if self.station.phase == "departing" and self.remaining:
            self.remaining -= 1
            books = {"agree": True, "meter_wh": 10.0, "billed_wh": 10.0}
            self.results.append(SimpleNamespace(result="completed", stop_reason="", faults=[], books=books))


@pytest.fixture
def campaign(monkeypatch):
    """Runs cells on fake stations; tells what was broken, in order, by session."""
    broken: list[tuple[str, str]] = []
    FakeStation.made = 0

    def watch(station: Any, rehearsal: Any, tool: Any, cell: Cell, outcome: Outcome, began: float) -> None:
        broken.append((cell.phase, cell.promise.expected))
        outcome.zero_current_s = outcome.open_s = outcome.still_s = 0.1
        if cell.stops:
            station.phase = "stopping"

    monkeypatch.setattr(chaos, "ChaosStation", FakeStation)
    monkeypatch.setattr(chaos, "Rehearsal", FakeRehearsal)
    monkeypatch.setattr(chaos, "_watch", watch)
    monkeypatch.setattr(chaos, "breaker", lambda *a: breaking.Breaker())
    monkeypatch.setattr(chaos.time, "sleep", lambda s: None)

    def run(cells: list[Cell], seconds: float = 60.0) -> tuple[list[Outcome], list[tuple[Cell, str]]]:
        rows: list[Outcome] = []
        return rows, chaos.run(cells, 0, rows.append, seconds)

    run.broken = broken  # type: ignore[attr-defined]
    return run


def cell(target: str, phase: str, fault: str = "kill", protocol: str = "din") -> Cell:
    return next(c for c in chaos.matrix([protocol]) if (c.target, c.phase, c.fault) == (target, phase, fault))


def test_one_session_takes_what_goes_on_and_then_what_ends_it(campaign):
    cells = [
        cell("/power", "charging"), cell("/backend", "charging"), cell("sim_csms", "charging", "cut off"),
        cell("/robot", "linking"), cell("dds", "connecting", "garbage"),
    ]  # fmt: skip
    rows, missed = campaign(cells)
    assert not missed and len(rows) == 5 and all(r.safe and r.books_ok for r in rows)
    assert [expected for _, expected in campaign.broken] == [CONTINUE] * 4 + [STOP]
    assert FakeStation.made == 1


def test_a_station_that_lost_a_simulator_is_replaced_and_each_stop_has_its_session(campaign):
    cells = [cell("sim_safety", "charging"), cell("/power", "charging"), cell("/evse1/v2g", "charging")]
    rows, missed = campaign(cells)
    assert not missed and {r.target for r in rows} == {"sim_safety", "/power", "/evse1/v2g"}
    assert rows[-1].target == "sim_safety", "last, for it costs the station"
    assert FakeStation.made == 1


def test_what_there_is_no_time_for_is_told(campaign):
    rows, missed = campaign([cell("/power", "charging")], seconds=0.0)
    assert not rows and [(c.target, why) for c, why in missed] == [("/power", "no time left")]


def test_a_phase_that_is_never_seen_is_given_up(campaign, monkeypatch):
    monkeypatch.setattr(chaos, "_arm_at_work", lambda station: False)
    rows, missed = campaign([cell("/robot", "connecting")])
    assert not rows and missed[0][1] == "its phase was not reached"


def joints(*speeds: float) -> SimpleNamespace:
    return SimpleNamespace(velocity=list(speeds))


def test_an_arm_rests_from_its_first_pause_whoever_moves_it_later(monkeypatch):
    station = object.__new__(chaos.ChaosStation)
    station._heard, station._moved_at, station._rested_at = False, 0.0, 0.0
    now = [100.0]
    monkeypatch.setattr(chaos.time, "monotonic", lambda: now[0])
    assert station.rested_s(100.0) == -1.0, "not heard is not still"
    for at, speed in ((100.1, 0.5), (100.2, 0.3), (100.3, 0.0), (100.8, 0.0), (102.0, 0.5), (104.0, 0.5)):
        now[0] = at
        station._on_joints(joints(0.0, speed))
    assert station.rested_s(100.0) == pytest.approx(0.2)
