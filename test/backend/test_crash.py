"""kill -9 at random points of many transactions; then the CSMS's books must be the meter's own."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from robot_charger.sim.csms import books
from robot_charger.sim.csms.server import CsmsThread
from robot_charger.words.values import Phase

from .conftest import wait_for

pytestmark = pytest.mark.integration

CHILD = str(Path(__file__).with_name("crash_child.py"))


class Station:
    """The rest of the station: it keeps meter and session going whatever happens to the back end."""

    def __init__(self, url: str, store: Path, version: str, rng: random.Random) -> None:
        self.arguments = [sys.executable, CHILD, url, str(store), version]
        self.rng = rng
        self.register = 1000.0
        self.current = 0.0
        self.session: tuple[str, int, int, str] = ("", Phase.IDLE, time.monotonic_ns(), "")
        self.state: list[Any] = ["", -1]
        self.kills = 0
        self.process: subprocess.Popen[str] = None  # type: ignore[assignment]
        self.lock = threading.Lock()
        self.start()

    def start(self) -> None:
        self.state = ["", -1]
        self.process = subprocess.Popen(self.arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._read, args=(self.process,), daemon=True).start()
        self.say()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout
        for line in process.stdout:
            if process is self.process:
                self.state = json.loads(line)

    def say(self) -> None:
        """Meter and session, as their topics would repeat them."""
        assert self.process.stdin
        try:
            if self.session[0]:
                self._line("authorize", self.session[0])
            self._line("meter", self.register, self.current)
            self._line("session", *self.session)
        except (BrokenPipeError, OSError):
            pass

    def _line(self, *values: Any) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(values) + "\n")
        self.process.stdin.flush()

    def phase(self, session_id: str, phase: Phase, reason: str = "") -> None:
        self.session = (session_id, int(phase), time.monotonic_ns(), reason)
        self.say()

    def kill_perhaps(self, chance: float) -> None:
        if self.rng.random() < chance:
            time.sleep(self.rng.uniform(0.0, 0.02))  # somewhere inside what goes on
            self.kill()
            self.start()

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.kills += 1

    def until(self, transaction_id: str) -> None:
        """Until the back end says that this transaction is open (empty: none)."""
        next_say = time.monotonic()

        def reached() -> bool:
            nonlocal next_say
            if time.monotonic() >= next_say:
                next_say = time.monotonic() + 0.05
                self.say()
            return bool(self.state[1] >= 0 and self.state[0] == transaction_id)

        wait_for(reached, 120.0, f"transaction {transaction_id!r} (now {self.state})")


def run(folder: Path, count: int, kill_chance: float, version: str, seed: int) -> None:
    rng = random.Random(seed)
    truth: dict[str, tuple[float, float]] = {}
    with CsmsThread(folder / "csms.sqlite") as csms:
        station = Station(csms.csms.url, folder / "station.sqlite", version, rng)
        try:
            for _ in range(count):
                session_id = str(uuid.UUID(int=rng.getrandbits(128)))
                begin = station.register
                station.phase(session_id, Phase.LINKING)
                station.kill_perhaps(kill_chance)
                station.until(session_id)
                station.current = 100.0
                station.phase(session_id, Phase.CHARGING)
                station.register += rng.randrange(1, 50_000) / 10
                station.kill_perhaps(kill_chance)
                if rng.random() < 0.02:
                    csms.do(csms.csms.fault("csms-gone", True))
                    csms.do(csms.csms.fault("csms-gone", False))
                station.register += rng.randrange(1, 50_000) / 10
                station.current = 0.0
                station.phase(session_id, Phase.GRASPED, "StoppedByEV")
                station.kill_perhaps(kill_chance)
                station.until("")
                station.kill_perhaps(kill_chance / 4)
                truth[session_id] = (round(begin, 1), round(station.register, 1))
            station.phase("", Phase.IDLE)
            wait_for(lambda: station.state[1] == 0, 60.0, "an empty queue")
        finally:
            station.process.kill()
            station.process.wait()
        assert not csms.csms.violations, csms.csms.violations[:3]
    entries = books(folder / "csms.sqlite")
    found = {e.session_id: (e.meter_start_wh, e.meter_stop_wh) for e in entries}
    assert found == truth  # nothing lost, nothing invented, every register right
    assert [e.session_id for e in entries] == list(truth)  # order kept
    assert len(entries) == len({e.transaction_id for e in entries}) == count
    assert sum(e.doubled for e in entries) == sum(e.disordered for e in entries) == sum(e.missing for e in entries) == 0
    assert all(e.ended for e in entries)
    assert station.kills > 0
    print(f"{count} transactions, {station.kills} kills, books agree")


@pytest.mark.timeout(400)
@pytest.mark.parametrize("version", ["2.0.1", "1.6"])
def test_kill_9_at_random_points(tmp_path: Path, version: str) -> None:
    run(tmp_path, 25, 0.08, version, seed=7)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("version,seed", [("2.0.1", 1), ("1.6", 2), ("2.1", 3)])
def test_kill_9_at_random_points_of_500_transactions(tmp_path: Path, version: str, seed: int) -> None:
    run(tmp_path, 500, 0.05, version, seed)
