"""A station on a desk: its nodes and every simulator as processes of this machine."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

from robot_charger import station
from robot_charger.common.can_udp import free_block
from robot_charger.common.domain import free_domain
from robot_charger.common.wires import RUN_DIRECTORY, WireEnd
from robot_charger.desk.observer import Observer
from robot_charger.desk.running import RunningStation
from robot_charger.v2g import pki


def free_tcp_port() -> int:
    """A TCP port that is free on loopback now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Controls:
    """The far end of the desk's wires: signals to the simulators, and what they say of themselves."""

    def __init__(self, options: station.DeskOptions, directory: Path) -> None:
        self.options = options
        self.csms_store = directory / station.CSMS_STORE
        self.wires: WireEnd
        self._signals: dict[str, dict[str, Any]] = {}
        self._commands: list[dict[str, Any]] = []  # to the CSMS, one at a time

    def tell(self, simulator: str, **signals: Any) -> None:
        """Set signals to a simulator; they are repeated by ``repeat`` until changed."""
        self._signals.setdefault(simulator, {}).update(signals)
        self.wires.send(simulator, self._signals[simulator])

    def ask_csms(self, name: str, **words: Any) -> None:
        """Have a person at the CSMS do something, after what was asked before."""
        self._commands.append({"number": len(self._commands) + 1, "name": name, **words})

    def truth(self, simulator: str) -> dict[str, Any]:
        """What a simulator says of itself."""
        return self.wires.signals(simulator)

    def repeat(self) -> None:
        """Repeat the signals; call it about ten times a second."""
        done = int(self.truth("csms").get("command") or 0)
        if done < len(self._commands):
            self._signals.setdefault("csms", {})["command"] = self._commands[done]
        for simulator, signals in self._signals.items():
            self.wires.send(simulator, signals)


class Simulation(Controls, RunningStation):
    """A running station with its simulators and their wires; they end after the nodes."""

    observer: Observer

    def __init__(self, options: station.DeskOptions, directory: Path | None = None, record: Path | None = None) -> None:
        """``directory`` keeps the logs and files of the run; without one they go when it ends.

        ``record`` is where one MCAP file per session goes.
        """
        self.record = record
        place = directory or Path(tempfile.mkdtemp(prefix="rc-", dir="/tmp"))
        RunningStation.__init__(self, options.evses, place)
        Controls.__init__(self, options, place)
        if directory is None:
            self.stack.callback(shutil.rmtree, self.directory, ignore_errors=True)

    def prepare(self) -> None:
        if "ROS_DOMAIN_ID" in os.environ:
            self.domain = int(os.environ["ROS_DOMAIN_ID"])
        else:
            self.domain = self.stack.enter_context(free_domain())
            self.stack.callback(os.environ.pop, "ROS_DOMAIN_ID", None)
            os.environ["ROS_DOMAIN_ID"] = str(self.domain)
        self.environment[RUN_DIRECTORY] = str(self.directory)
        can_port = free_block(self.options.buses + len(self.evses))
        self.desk = station.Desk(self.options, self.directory, can_port, free_tcp_port())
        if self.options.needs_pki:
            pki.make(self.desk.pki)
        self.wires = WireEnd("cli", self.directory)
        self.stack.callback(self.wires.close)
        for simulator in self.desk.simulators():
            self.processes.start(f"sim_{simulator.name}", simulator.command())
        if self.record:
            recorder = [sys.executable, "-m", "robot_charger.operator.recorder", "--directory", str(self.record)]
            recorder += ["--evses", *(str(n) for n in self.evses)]
            for bus in self.desk.can_buses:
                recorder += ["--can", bus]
            self.processes.start("recorder", [*recorder, "--ocpp-journal", str(self.csms_store)])

    def specs(self) -> list[station.NodeSpec]:
        return self.desk.nodes()

    def tick(self) -> None:
        """Repeat the signals; raise StationFailed when a process died."""
        self.repeat()
        super().tick()
