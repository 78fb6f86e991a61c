"""A running station: its nodes as processes of this machine, watched by an observer, ended in order."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from typing_extensions import Self

from robot_charger.common import host_only
from robot_charger.common.respawn import Upkeep
from robot_charger.desk.observer import Observer
from robot_charger.desk.processes import Child, Processes
from robot_charger.station import ENVIRONMENT, NodeSpec, override_file

SETTLE_S = 3.0  # from the wish to end to zero current and open contactors


class StationFailed(RuntimeError):
    """A process of the station ended by itself. ``bad_usage`` when it refused its parameters."""

    def __init__(self, text: str, bad_usage: bool = False) -> None:
        super().__init__(text)
        self.bad_usage = bad_usage


class RunningStation:
    """The nodes of a station, started here.

    ``with RunningStation(...)`` starts them and, whatever happens, ends them in order: supervisors (which withdraw
    every permit), power once the output is safe, then the others. ``hurry()`` true shortens the waiting; the zero
    is never skipped, for power's last act is zero set-points and open contactors.
    """

    def __init__(self, evses: Sequence[int], directory: Path, upkeep: Upkeep | None = None) -> None:
        self.evses = list(evses)
        self.directory = directory
        self.hurry: Callable[[], bool] = lambda: False
        self.started_at = time.monotonic()
        self.environment: dict[str, str] = dict(ENVIRONMENT)
        self.processes = Processes(directory, self.environment, upkeep=upkeep)
        self.stack = contextlib.ExitStack()  # closed last
        self.observer: Observer | None = None

    def specs(self) -> list[NodeSpec]:
        """The nodes to start."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Whatever has to be there before the nodes."""

    def __enter__(self) -> Self:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            host_only.stay()
            self.prepare()
            for spec in self.specs():
                self.processes.start(spec.name, spec.command(override_file(spec, self.directory)))
            self.observer = Observer(self.evses)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def tick(self) -> None:
        """Raise StationFailed when a process died that nobody starts again, or when no EVSE is left in service.

        A station that lost its last EVSE lives on while a plug is in: its vehicle is unplugged first.
        """
        dead, upkeep = self.processes.dead(), self.processes.upkeep
        if not upkeep:
            for child in dead:
                if child.ended:
                    raise StationFailed(*_death(child))
        elif upkeep.all_lost and self.observer and not any(self.observer.plugged(n) for n in self.evses):
            raise StationFailed(upkeep.why, "refuses its configuration" in upkeep.why)

    def close(self) -> None:
        try:
            self._end()
        finally:
            if self.observer:
                self.observer.close()
            self.stack.close()

    def _end(self) -> None:
        names = list(self.processes.children)
        supervisors = [n for n in names if n.endswith("/supervisor")]
        simulators = [n for n in names if n.startswith("sim_")]
        others = [n for n in names if n not in supervisors and n not in simulators and n != "/power"]
        patience_s = 1.0 if self.hurry() else 3.0
        self.processes.end(supervisors, patience_s=2.0)
        deadline = time.monotonic() + SETTLE_S
        power = self.processes.children.get("/power")
        while self.observer and power and power.process.poll() is None and not self.observer.output_is_safe():
            if time.monotonic() > deadline or self.hurry():
                break
            time.sleep(0.02)
        self.processes.end(["/power"], patience_s=4.0)
        self.processes.end(others, patience_s)
        self.processes.end(simulators, patience_s)


def _death(child: Child) -> tuple[str, bool]:
    words = child.last_words()
    if child.process.returncode == 2:
        return words, True
    return f"{child.name} ended with status {child.process.returncode}: {words}", False
