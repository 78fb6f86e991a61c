"""Processes of a tool: a station's node is started again after a while, others not; what ``unplugged`` waits for."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from robot_charger.common import respawn
from robot_charger.common.respawn import Upkeep
from robot_charger.desk import unplugged
from robot_charger.desk.processes import Child, Processes

ENDS = [sys.executable, "-c", "import sys; print('a last word'); sys.exit(3)"]
REFUSES = [sys.executable, "-c", "import sys; print('parameter x is unknown'); sys.exit(2)"]


def dead(processes: Processes, child: Child) -> None:
    """Wait until the child's end was noticed once."""
    deadline = time.monotonic() + 20.0
    while child not in processes.dead():
        assert time.monotonic() < deadline, "its end was not noticed"
        time.sleep(0.01)


def test_a_node_is_started_again_after_the_delay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(respawn, "FIRST_DELAY_S", 0.05)
    processes = Processes(tmp_path, {}, upkeep=Upkeep([1]))
    child = processes.start("/evse1/pilot", ENDS)
    first = child.process.pid
    dead(processes, child)
    assert child.again_at is not None and processes.said == [
        "/evse1/pilot ended with status 3 (a last word): it is started again in 0.05 s"
    ]
    dead(processes, child)
    assert child.restarts == 1 and child.process.pid != first
    processes.end([child.name])
    assert child.again_at is None and not processes.dead()


def test_a_refused_configuration_stays_down(tmp_path: Path) -> None:
    processes = Processes(tmp_path, {}, upkeep=Upkeep([1, 2]))
    child = processes.start("/evse2/v2g", REFUSES)
    dead(processes, child)
    assert child.ended and processes.upkeep and processes.upkeep.lost.keys() == {2}
    assert "refuses its configuration (parameter x is unknown)" in processes.said[0]


class Seen:
    """An observer with prepared answers."""

    def __init__(self, **answers: list[bool | None]) -> None:
        self.seen = {int(name[-1]): None for name in answers}
        self._answers = {int(name[-1]): iter(values) for name, values in answers.items()}

    def plugged(self, evse: int) -> bool | None:
        return next(self._answers[evse])


class Steps:
    """A stop signal whose waiting moves the clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
        self.now, self.left = 0.0, limit
        monkeypatch.setattr(unplugged.time, "monotonic", lambda: self.now)

    def wait(self, seconds: float) -> bool:
        self.now += seconds
        self.left -= 1
        return self.left < 0


def test_every_plug_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps(monkeypatch, 100)
    unplugged.wait(Seen(evse1=[True, True, True, False], evse2=[None, False]), steps)  # type: ignore[arg-type]
    assert steps.now == pytest.approx(0.4)


def test_an_evse_without_a_supervisor_is_given_up_loudly(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    steps = Steps(monkeypatch, 1000)
    unplugged.wait(Seen(evse1=[True] * 5 + [None] * 200), steps)  # type: ignore[arg-type]
    assert steps.now == pytest.approx(unplugged.UNKNOWN_S + 0.5, abs=0.3)
    assert "no supervisor says whether a plug is in" in capsys.readouterr().out
