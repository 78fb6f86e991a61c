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

from robot_charger.common.process import PARENT


@dataclass
class Child:
    """One process. ``log`` holds its output."""

    name: str
    command: Sequence[str]
    log: Path
    process: subprocess.Popen
    restarts: int = 0
    ended: bool = False  # on purpose

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
    respawn: bool = False
    station_environment: dict[str, str] = field(default_factory=dict)  # of what runs on the station computer
    children: dict[str, Child] = field(default_factory=dict)

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
        """Children that ended without being asked. With ``respawn`` they are started again (not on bad usage)."""
        found = []
        for child in self.children.values():
            if child.ended or child.process.poll() is None:
                continue
            found.append(child)
            if self.respawn and child.process.returncode != 2:
                child.restarts += 1
                child.process = self._spawn(child.name, child.command, child.log)
            else:
                child.ended = True
        return found

    def end(self, names: Iterable[str], patience_s: float = 3.0) -> None:
        """SIGTERM, wait, SIGKILL what is left."""
        ending = [self.children[n] for n in names if n in self.children]
        for child in ending:
            child.ended = True
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
