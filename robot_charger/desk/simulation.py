"""A station on a desk: its simulators and nodes as processes of this machine, started and ended in order."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from robot_charger import station
from robot_charger.common.can_udp import SLOTS, free_block
from robot_charger.common.domain import free_domain
from robot_charger.common.wires import RUN_DIRECTORY, WireEnd
from robot_charger.desk.observer import Observer
from robot_charger.desk.processes import Child, Processes

CCS = ("din", "iso15118-2", "iso15118-20", "iso15118-20-bpt", "acdp")
CHADEMO = ("chademo", "chademo-v2x")
SETTLE_S = 3.0  # from the wish to end to zero current and open contactors


class StationFailed(RuntimeError):
    """A process of the station ended by itself. ``bad_usage`` when it refused its parameters."""

    def __init__(self, text: str, bad_usage: bool = False) -> None:
        super().__init__(text)
        self.bad_usage = bad_usage


@dataclass(frozen=True)
class SimulationOptions:
    """What a desk station consists of."""

    evses: tuple[int, ...] = (1,)
    protocol: str = "iso15118-2"
    ocpp: str = "2.0.1"
    interface: str = ""
    modules: int = 46
    target_soc: float | None = None
    charge_seconds: float = 15.0
    seed: int = 0
    overrides: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def chademo(self) -> bool:
        return self.protocol in CHADEMO


def free_tcp_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Simulation:
    """All processes of a desk station, its wires and its observer.

    ``with Simulation(options) as simulation`` starts everything and, whatever happens, ends it in order: supervisors
    (which withdraws every permit), then the other nodes once the output is safe, then the simulators.
    """

    def __init__(self, options: SimulationOptions, directory: Path | None = None) -> None:
        self.options = options
        self.started_at = time.monotonic()
        self.directory = directory or Path(tempfile.mkdtemp(prefix="rc-", dir="/tmp"))
        self.keep = directory is not None
        self._signals: dict[str, dict[str, Any]] = {}
        self._stack = contextlib.ExitStack()
        self.hurry: Callable[[], bool] = lambda: False

    @property
    def csms_store(self) -> Path:
        return self.directory / "csms.sqlite"

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
        self.bus = f"udp:{base}"
        self.vehicle_buses = {n: f"udp:{base + SLOTS * k}" for k, n in enumerate(self.options.evses, 1)}
        self.csms_port = free_tcp_port()
        self.wires = WireEnd("cli", self.directory)
        self._stack.callback(self.wires.close)
        for name, (module, *arguments) in self._simulators():
            command = [sys.executable, "-m", f"robot_charger.sim.{module}", *arguments]
            self.processes.start(f"sim_{name}", command)
        for node in self.nodes():
            self.processes.start(node.name, node.command(self._override_file(node)))
        self.observer = Observer(list(self.options.evses))

    def _simulators(self) -> Iterator[tuple[str, list[str]]]:
        o = self.options
        evses = [str(n) for n in o.evses]
        seed = ["--seed", str(o.seed)]
        yield "safety", ["safety", "--bus", self.bus, "--evses", *evses]
        yield "rack", ["rack", "--bus", self.bus, "--modules", str(o.modules), "--evses", *evses, *seed]
        yield "csms", ["csms", "--port", str(self.csms_port), "--store", str(self.csms_store), "--version", o.ocpp]
        yield "arm", ["arm", "--evses", *evses, *seed]
        for n in o.evses:
            if not o.chademo:
                yield f"plc{n}", ["plc", "--evse", str(n)]
            target = "none" if o.target_soc is None else str(o.target_soc)
            vehicle = ["vehicle", "--evse", str(n), "--protocol", o.protocol, "--target-soc", target]
            vehicle += ["--charge-seconds", str(o.charge_seconds), "--seed", str(o.seed + n)]
            if o.interface:
                vehicle += ["--interface", o.interface]
            if o.chademo:
                vehicle += ["--can", self.vehicle_buses[n]]
            yield f"vehicle{n}", vehicle

    def nodes(self) -> list[station.NodeSpec]:
        """The station's nodes with the desk's parameters: config/simulation.yaml and this run's ports."""
        o = self.options
        url = f"ws://127.0.0.1:{self.csms_port}"
        overrides: dict[str, dict[str, Any]] = {
            "power": {"bus": self.bus, "modules": o.modules},
            "backend": {"url": url, "version": o.ocpp, "store": str(self.directory / "backend.sqlite")},
            "v2g": {"interface": o.interface},
            "supervisor": {"protocol": "chademo" if o.chademo else "ccs"},
        }
        if o.chademo:
            overrides["supervisor"]["connector"] = "chademo"
        for n in o.evses:
            overrides[f"/evse{n}/supervisor"] = {"memory": str(self.directory / f"supervisor{n}.json")}
            overrides[f"/evse{n}/chademo"] = {"bus": self.vehicle_buses[n]}
        for name, values in o.overrides.items():
            overrides.setdefault(name, {}).update(values)
        return station.nodes(o.evses, overrides=overrides, simulation=True)

    def _override_file(self, node: station.NodeSpec) -> Path:
        path = self.directory / f"{node.name.strip('/').replace('/', '_')}.yaml"
        path.write_text(yaml.safe_dump({"/**": {"ros__parameters": dict(node.overrides)}}))
        return path

    # The simulators' wires.
    def tell(self, simulator: str, **signals: Any) -> None:
        """Set signals to a simulator; they are repeated by ``tick`` until changed."""
        self._signals.setdefault(simulator, {}).update(signals)
        self.wires.send(simulator, self._signals[simulator])

    def truth(self, simulator: str) -> dict[str, Any]:
        """What a simulator says of itself."""
        return self.wires.signals(simulator)

    def tick(self) -> None:
        """Repeat the signals; raise StationFailed when a process died."""
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
