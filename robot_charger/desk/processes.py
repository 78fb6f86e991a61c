"""Children of the command line tool: started in their own sessions, watched, ended in order.

The tool alone takes signals. A child learns of the tool's death from the kernel (common.process.end_with_parent).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from robot_charger.common.process import BAD_USAGE, PARENT
from robot_charger.common.respawn import Upkeep


@dataclass
class Child:
    """One process. ``log`` holds its output."""

    name: str
    command: Sequence[str]
    log: Path
    process: subprocess.Popen
    restarts: int = 0
    ended: bool = False  # on purpose, or for good
    since: float = field(default_factory=time.monotonic)
    again_at: float | None = None  # when it is started again

    def last_words(self) -> str:
        """The last line it wrote, for an error message."""
        with contextlib.suppress(OSError):
            lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
            if lines:
                return lines[-1]
        return "no output"


ELSEWHERE = ("sim_vehicle", "sim_csms")  # on a desk they stand for other computers


@dataclass
class Processes:
    """All children of one run."""

    directory: Path
    environment: Mapping[str, str]
    respawn: bool = False  # start again at once whoever ends; a station has ``upkeep`` instead
    upkeep: Upkeep | None = None
    station_environment: dict[str, str] = field(default_factory=dict)  # of what runs on the station computer
    children: dict[str, Child] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)  # by the upkeep, for a person

    def start(self, name: str, command: Sequence[str]) -> Child:
        log = self.directory / f"{name.strip('/').replace('/', '_')}.log"
        child = Child(name, command, log, self._spawn(name, command, log))
        self.children[name] = child
        return child

    def _spawn(self, name: str, command: Sequence[str], log: Path) -> subprocess.Popen:
        environment = {**os.environ, **self.environment, PARENT: str(os.getpid())}
        if not name.startswith(ELSEWHERE):
            environment.update(self.station_environment)
        with log.open("ab") as output:
            return subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )

    def dead(self) -> list[Child]:
        """Children that ended without being asked, once each; some are started again, now or at a later call."""
        found = []
        now = time.monotonic()
        for child in self.children.values():
            if child.again_at is not None and now >= child.again_at:
                self._again(child)
            elif child.ended or child.again_at is not None or child.process.poll() is None:
                continue
            else:
                found.append(child)
                self._decide(child, now)
        return found

    def _decide(self, child: Child, now: float) -> None:
        if self.upkeep:
            decision = self.upkeep.ended(child.name, child.process.returncode, now - child.since, child.last_words())
            self.said.append(decision.text)
            if decision.delay_s is None:
                child.ended = True
            else:
                child.again_at = now + decision.delay_s
        elif self.respawn and child.process.returncode != BAD_USAGE:
            self._again(child)
        else:
            child.ended = True

    def _again(self, child: Child) -> None:
        child.restarts += 1
        child.again_at, child.since = None, time.monotonic()
        child.process = self._spawn(child.name, child.command, child.log)

    def end(self, names: Iterable[str], patience_s: float = 3.0) -> None:
        """SIGTERM, wait, SIGKILL what is left."""
        ending = [self.children[n] for n in names if n in self.children]
        for child in ending:
            child.ended, child.again_at = True, None
            if child.process.poll() is None:
                child.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + patience_s
        for child in ending:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.process.wait(max(0.0, deadline - time.monotonic()))
            if child.process.poll() is None:
                child.process.kill()
                child.process.wait()

    def cpu_seconds(self) -> dict[str, float]:
        """Processor time that each living child has used [s]."""
        used = {}
        for name, child in self.children.items():
            with contextlib.suppress(psutil.Error):
                times = psutil.Process(child.process.pid).cpu_times()
                used[name] = times.user + times.system
        return used

    def rss_mb(self) -> float:
        """Resident memory of the tool and all its children, shared pages counted once each [MB]."""
        total = 0
        for pid in [os.getpid(), *(c.process.pid for c in self.children.values())]:
            with contextlib.suppress(psutil.Error):
                total += psutil.Process(pid).memory_full_info().pss
        return total / 1e6
