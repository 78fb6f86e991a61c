"""A station on a desk: its simulators and nodes as processes of this machine, started and ended in order."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from robot_charger import station
from robot_charger.common.can_udp import free_block
from robot_charger.common.domain import free_domain
from robot_charger.common.wires import RUN_DIRECTORY, WireEnd
from robot_charger.desk.observer import Observer
from robot_charger.desk.processes import Child, Processes

SETTLE_S = 3.0  # from the wish to end to zero current and open contactors


class StationFailed(RuntimeError):
    """A process of the station ended by itself. ``bad_usage`` when it refused its parameters."""

    def __init__(self, text: str, bad_usage: bool = False) -> None:
        super().__init__(text)
        self.bad_usage = bad_usage


def free_tcp_port() -> int:
    """A TCP port that is free on loopback now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Simulation:
    """All processes of a desk station, its wires and its observer.

    ``with Simulation(options) as simulation`` starts everything and, whatever happens, ends it in order: supervisors
    (which withdraws every permit), then the other nodes once the output is safe, then the simulators.
    """

    def __init__(self, options: station.DeskOptions, directory: Path | None = None) -> None:
        self.options = options
        self.started_at = time.monotonic()
        self.directory = directory or Path(tempfile.mkdtemp(prefix="rc-", dir="/tmp"))
        self.keep = directory is not None
        self._signals: dict[str, dict[str, Any]] = {}
        self._commands: list[dict[str, Any]] = []  # to the CSMS, one at a time
        self._stack = contextlib.ExitStack()
        self.hurry: Callable[[], bool] = lambda: False

    @property
    def csms_store(self) -> Path:
        return self.directory / station.CSMS_STORE

    def __enter__(self) -> Simulation:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        os.environ.setdefault("FASTDDS_BUILTIN_TRANSPORTS", "UDPv4")
        if "ROS_DOMAIN_ID" in os.environ:
            self.domain = int(os.environ["ROS_DOMAIN_ID"])
        else:
            self.domain = self._stack.enter_context(free_domain())
            self._stack.callback(os.environ.pop, "ROS_DOMAIN_ID", None)
            os.environ["ROS_DOMAIN_ID"] = str(self.domain)
        environment = {RUN_DIRECTORY: str(self.directory), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self.processes = Processes(self.directory, environment)
        base = free_block(1 + len(self.options.evses))
        desk = station.Desk(self.options, self.directory, base, free_tcp_port())
        self.wires = WireEnd("cli", self.directory)
        self._stack.callback(self.wires.close)
        for simulator in desk.simulators():
            self.processes.start(f"sim_{simulator.name}", simulator.command())
        for node in desk.nodes():
            self.processes.start(node.name, node.command(self._override_file(node)))
        self.observer = Observer(list(self.options.evses))

    def _override_file(self, node: station.NodeSpec) -> Path:
        path = self.directory / f"{node.name.strip('/').replace('/', '_')}.yaml"
        path.write_text(yaml.safe_dump({"/**": {"ros__parameters": dict(node.overrides)}}))
        return path

    # The simulators' wires.
    def tell(self, simulator: str, **signals: Any) -> None:
        """Set signals to a simulator; they are repeated by ``tick`` until changed."""
        self._signals.setdefault(simulator, {}).update(signals)
        self.wires.send(simulator, self._signals[simulator])

    def ask_csms(self, name: str, **words: Any) -> None:
        """Have a person at the CSMS do something, after what was asked before."""
        self._commands.append({"number": len(self._commands) + 1, "name": name, **words})

    def truth(self, simulator: str) -> dict[str, Any]:
        """What a simulator says of itself."""
        return self.wires.signals(simulator)

    def tick(self) -> None:
        """Repeat the signals; raise StationFailed when a process died."""
        done = int(self.truth("csms").get("command") or 0)
        if done < len(self._commands):
            self._signals.setdefault("csms", {})["command"] = self._commands[done]
        for simulator, signals in self._signals.items():
            self.wires.send(simulator, signals)
        for child in self.processes.dead():
            raise StationFailed(*_death(child))

    # The end.
    def close(self) -> None:
        """Power off first, then nodes, then simulators. ``hurry()`` true shortens the waiting, never skips the zero."""
        try:
            if hasattr(self, "processes"):
                self._end()
        finally:
            if hasattr(self, "observer"):
                self.observer.close()
            self._stack.close()
            if not self.keep:
                shutil.rmtree(self.directory, ignore_errors=True)

    def _end(self) -> None:
        names = list(self.processes.children)
        supervisors = [n for n in names if n.endswith("/supervisor")]
        simulators = [n for n in names if n.startswith("sim_")]
        others = [n for n in names if n not in supervisors and n not in simulators and n != "/power"]
        self.processes.end(supervisors, patience_s=2.0)
        deadline = time.monotonic() + SETTLE_S
        while hasattr(self, "observer") and not self.observer.output_is_safe():
            power = self.processes.children.get("/power")
            if time.monotonic() > deadline or power is None or power.process.poll() is not None or self.hurry():
                break
            time.sleep(0.02)
        self.processes.end(["/power"], patience_s=4.0)  # its last act is zero set-points and open contactors
        self.processes.end(others, patience_s=1.0 if self.hurry() else 3.0)
        self.processes.end(simulators, patience_s=1.0 if self.hurry() else 3.0)


def _death(child: Child) -> tuple[str, bool]:
    words = child.last_words()
    if child.process.returncode == 2:
        return words, True
    return f"{child.name} ended with status {child.process.returncode}: {words}", False
