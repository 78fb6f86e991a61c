"""``robot-charger up``: the nodes of a real station as processes of this computer, started again when they die."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from robot_charger import station
from robot_charger.common.process import BAD_USAGE
from robot_charger.common.respawn import Upkeep
from robot_charger.desk.interrupts import Interrupts
from robot_charger.desk.running import RunningStation, StationFailed
from robot_charger.desk.view import View


class Station(RunningStation):
    """The nodes under the parameter files of ``config``."""

    def __init__(self, evses: Sequence[int], config: Path | None, logs: Path) -> None:
        super().__init__(evses, logs, Upkeep(evses))
        self._config = config

    def specs(self) -> list[station.NodeSpec]:
        return station.nodes(self.evses, self._config)


def run(evses: Sequence[int], config: Path | None, logs: Path) -> int:
    """Until Ctrl-C or SIGTERM. Exit status 0, 1 when a node cannot live, 2 when the parameters are refused."""
    if troubles := station.troubles(evses, config):
        print(*troubles, sep="\n", file=sys.stderr)
        return BAD_USAGE
    interrupts = Interrupts()
    running = Station(evses, config, logs)
    running.hurry = interrupts.hurry
    console = Console()
    try:
        with running, contextlib.ExitStack() as stack:
            assert running.observer
            view = stack.enter_context(View(console, running.observer, "station"))
            while not interrupts.count:
                running.tick()
                while running.processes.said:
                    console.print(running.processes.said.pop(0), style="red", highlight=False, markup=False)
                view.tick()
                time.sleep(0.2)
    except StationFailed as failure:
        print(failure, file=sys.stderr)
        return BAD_USAGE if failure.bad_usage else 1
    return 0
