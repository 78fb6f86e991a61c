"""Which processes a station consists of: one description, read by the command line tool and by the launch files.

Launch files run under the system's Python: what needs more than the standard library and PyYAML is imported where it
is used.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from robot_charger.common.configuration import Trouble, check, config_directory
from robot_charger.power.contract import CONTRACTS, Contract

# Of every process of a station: one thread for each numeric library. More of them cost time and hinder setns(2).
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
EVSE_NODES = ("pilot", "v2g", "chademo", "gbt", "supervisor")  # one of each per EVSE, in /evseN


@dataclass(frozen=True)
class NodeSpec:
    """One node: which executable, where, with which parameters."""

    executable: str  # also the node's name
    namespace: str
    files: tuple[Path, ...]  # ROS parameter files, later ones win
    overrides: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Fully qualified name."""
        return f"{self.namespace.rstrip('/')}/{self.executable}"

    @property
    def module(self) -> str:
        return f"robot_charger.{self.executable}.node"

    def command(self, override_file: Path | None = None) -> list[str]:
        """Command line of the node's process."""
        arguments = [sys.executable, "-m", self.module, "--ros-args", "-r", f"__ns:={self.namespace}"]
        for file in (*self.files, *([override_file] if override_file else [])):
            arguments += ["--params-file", str(file)]
        return arguments


def nodes(
    evses: Sequence[int] = (1,),
    config: Path | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    simulation: bool = False,
) -> list[NodeSpec]:
    """All nodes of a station with these EVSEs; with ``simulation`` also under config/simulation.yaml.

    ``overrides`` maps an executable, or one node's full name, to parameters that win over the files.
    """
    config = config or config_directory()
    overrides = overrides or {}
    desk = config / "simulation.yaml"
    desk = desk if desk.exists() else config_directory() / "simulation.yaml"  # a station's own folder may lack it

    def spec(executable: str, namespace: str, extra: Mapping[str, Any]) -> NodeSpec:
        full = f"{namespace.rstrip('/')}/{executable}"
        values = {**extra, **overrides.get(executable, {}), **overrides.get(full, {})}
        files = [config / f"{executable}.yaml", *([desk] if simulation else [])]
        return NodeSpec(executable, namespace, tuple(files), values)

    station = [
        spec("power", "/", {"evses": list(evses)}),
        spec("robot", "/", {"evses": list(evses)}),
        spec("backend", "/", {"evses": max(evses)}),
    ]
    per_evse = [spec(name, f"/evse{evse}", {}) for evse in evses for name in EVSE_NODES]
    return station + per_evse


def override_file(spec: NodeSpec, directory: Path) -> Path:
    """Write the node's overrides as a parameter file into ``directory``; its path."""
    path = directory / f"{spec.name.strip('/').replace('/', '_')}.yaml"
    path.write_text(yaml.safe_dump({"/**": {"ros__parameters": dict(spec.overrides)}}))
    return path


def evse_numbers(text: str) -> list[int]:
    """Numbers of EVSEs from a text like ``1,2``. Raises ValueError with a sentence."""
    try:
        numbers = [int(n) for n in text.split(",")]
    except ValueError:
        raise ValueError(f"{text!r} is no list of EVSE numbers like 1,2") from None
    if min(numbers) < 1 or len(set(numbers)) < len(numbers):
        raise ValueError(f"{text!r}: EVSEs are numbered from 1, each once")
    return numbers


def troubles(
    evses: Sequence[int], config: Path | None = None, namespaces: Sequence[str] | None = None
) -> list[Trouble]:
    """What is wrong with the parameter files of a station; empty when it may start.

    ``namespaces``: of the nodes, where they are not those of ``nodes()``.
    """
    if config is not None and not config.is_dir():
        return [Trouble(config, 0, "is no directory; it must hold the parameter files, power.yaml and so on")]
    specs = nodes(evses, config)
    return check(
        replace(s, namespace=n) for s, n in zip(specs, namespaces or [s.namespace for s in specs], strict=True)
    )


CSMS_STORE = "csms.sqlite"
DEMO_TOKEN = "ROBOT-CHARGER-DEMO"  # an id token that the desk's CSMS knows
DEMO_CONTRACT = "DEEKXC00000001"  # and the contract of the test PKI (v2g.pki)
ACDP = ("acdp", "acdp-bpt")
CCS = ("din", "iso15118-2", "iso15118-20", "iso15118-20-bpt", *ACDP)
CHADEMO = ("chademo", "chademo-v2x")
GBT = "gbt"
ON_CAN = (*CHADEMO, GBT)  # the vehicle speaks over CAN in the plug, and there is no control pilot
AC = "ac"  # IEC 61851-1 mode 3, nobody talks
DESK_AC_A = 32.0  # of the desk's AC outlets, three phases
ALWAYS_TLS = ("iso15118-20", "iso15118-20-bpt", *ACDP)  # TLS 1.3, mutual
BIDIRECTIONAL = ("iso15118-20-bpt", "acdp-bpt", "chademo-v2x")
MODBUS_UNITS = 247  # on one line
DESK_POWER_W = 150_000.0
DESK_EXPORT_W = 30_000.0  # what the desk's grid connection takes back


@dataclass(frozen=True)
class SimulatorSpec:
    """One simulator: a process of its own, ``python -m robot_charger.sim.MODULE ARGUMENTS``."""

    name: str  # of its wire
    module: str
    arguments: tuple[str, ...]

    def command(self) -> list[str]:
        return [sys.executable, "-m", f"robot_charger.sim.{self.module}", *self.arguments]


@dataclass(frozen=True)
class DeskOptions:
    """What a simulated station consists of and which vehicles come to it."""

    evses: tuple[int, ...] = (1,)
    protocol: str = "iso15118-2"
    ocpp: str = "2.0.1"
    interface: str = ""  # for V2G where namespaces are refused
    tls: bool = False  # of ISO 15118-2; -20 always has it
    pnc: bool = False  # Plug and Charge of ISO 15118-2
    modules: int = 46
    module_protocol: str = "ek3"  # or canopen, modbus
    target_soc: float | None = None  # per cent; None: after charge_seconds
    charge_seconds: float = 15.0
    engine: str = "mujoco"  # of the arm's physics, or gazebo
    camera: bool = False  # the robot finds the inlet in rendered pictures, not by poses that are told
    seed: int = 0
    csms_absent: bool = False  # no CSMS is there until it is told to come
    record: bool = False  # publish decoded V2G messages for a recorder
    config: Path | None = None  # parameter files under those of the simulation; None: the package's
    motion: Path | None = None  # where the arm's simulator writes how everything moved, for a film
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # parameters, as in nodes()

    @property
    def chademo(self) -> bool:
        return self.protocol in CHADEMO

    @property
    def on_can(self) -> bool:
        return self.protocol in ON_CAN

    @property
    def ac(self) -> bool:
        return self.protocol == AC

    @property
    def acdp(self) -> bool:
        return self.protocol in ACDP

    @property
    def connector(self) -> str:
        if self.on_can:
            return "chademo" if self.chademo else GBT
        return "acdp" if self.acdp else "type2" if self.ac else "ccs2"

    @property
    def buses(self) -> int:
        """CAN buses of the bank: the modules', and the station's own where the modules are not on it."""
        from robot_charger.power.busload import buses_needed, own_buses_needed

        if not CONTRACTS[self.module_protocol].own_bus:
            return buses_needed(self.modules, len(self.evses))
        carried = CONTRACTS[self.module_protocol].bit_rate > 0  # Modbus lines are no CAN buses
        return 1 + (own_buses_needed(self.module_protocol, self.modules) if carried else 0)

    @property
    def needs_pki(self) -> bool:
        return self.tls or self.protocol in ALWAYS_TLS

    @property
    def exports(self) -> bool:
        return self.protocol in BIDIRECTIONAL


def desk_modules(protocol: str) -> int:
    """Modules of a desk's bank of some 150 kW."""
    return math.ceil(DESK_POWER_W / CONTRACTS[protocol].rating.power_w)


def rating_parameters(contract: Contract) -> dict[str, Any]:
    """Parameters of a bank of such modules as its maker rates them."""
    rating = contract.rating
    return {
        "max_voltage_v": rating.voltage_v,
        "module.max_voltage_v": rating.voltage_v,
        "module.max_current_a": rating.current_a,
        "module.power_w": rating.power_w,
        "module.min_current_a": max(contract.min_current_a, 0.1),
    }


@dataclass(frozen=True)
class Desk:
    """A simulated station: its nodes and simulators with this run's directory and ports.

    ``can_port`` begins a block of UDP ports: the modules' buses, then one per EVSE (common.can_udp.SLOTS each).
    """

    options: DeskOptions
    directory: Path
    can_port: int
    csms_port: int

    @property
    def bus(self) -> str:
        """The station's bus, and with EK3 modules theirs."""
        return f"udp:{self.can_port}*{self.options.buses if not CONTRACTS[self.options.module_protocol].own_bus else 1}"

    @property
    def module_bus(self) -> str:
        """Buses of modules that have their own, else empty."""
        if self.options.buses < 2 or not CONTRACTS[self.options.module_protocol].own_bus:
            return ""
        return f"udp:{self._port(1)}*{self.options.buses - 1}"

    def vehicle_bus(self, evse: int) -> str:
        return f"udp:{self._port(self.options.buses + self.options.evses.index(evse))}"

    def _port(self, bus: int) -> int:
        from robot_charger.common.can_udp import SLOTS

        return self.can_port + SLOTS * bus

    @property
    def can_buses(self) -> list[str]:
        """All there are: of the modules, and of vehicles that speak over CAN."""
        vehicles = [self.vehicle_bus(n) for n in self.options.evses] if self.options.on_can else []
        return [self.bus, *vehicles]

    def simulators(self) -> Iterator[SimulatorSpec]:
        o = self.options
        evses = ("--evses", *(str(n) for n in o.evses))
        seed = ("--seed", str(o.seed))
        if not o.on_can and not o.ac:  # first, for v2g waits for its link
            yield from (SimulatorSpec(f"plc{n}", "plc", ("--evse", str(n))) for n in o.evses)
        yield SimulatorSpec("safety", "safety", ("--bus", self.bus, *evses))
        modules = ("--modules", str(o.modules), "--protocol", o.module_protocol, "--module-bus", self.module_bus)
        ac = ("--ac", *evses[1:]) if o.ac else ()
        yield SimulatorSpec("rack", "rack", ("--bus", self.bus, *modules, *evses, *seed, *ac))
        store = str(self.directory / CSMS_STORE)
        tokens = ("--token", f"{DEMO_TOKEN}=Accepted", "--token", f"{DEMO_CONTRACT}=Accepted")
        absent = ("--fault", "csms-gone") if o.csms_absent else ()
        yield SimulatorSpec("csms", "csms", ("--port", str(self.csms_port), "--store", store, *tokens, *absent))
        motion = ("--record", str(o.motion)) if o.motion else ()
        camera = ("--camera",) if o.camera else ()
        arm = (*evses, *seed, "--connector", o.connector, "--engine", o.engine, *camera, *motion)
        yield SimulatorSpec("arm", "arm", arm)
        for n in o.evses:
            yield SimulatorSpec(f"vehicle{n}", "vehicle", self._vehicle(n))

    def _vehicle(self, n: int) -> tuple[str, ...]:
        o = self.options
        arguments = ["--evse", str(n), "--protocol", o.protocol, "--seed", str(o.seed + n)]
        arguments += ["--target-soc", "none" if o.target_soc is None else str(o.target_soc)]
        arguments += ["--charge-seconds", str(o.charge_seconds)]
        if o.interface:
            arguments += ["--interface", o.interface]
        if o.on_can:
            arguments += ["--can", self.vehicle_bus(n)]
        if o.needs_pki:
            arguments += ["--option", "tls=true", "--option", f"pki={self.pki / 'vehicle'}"]
        if o.pnc:
            arguments += ["--option", "pnc=true"]
        return tuple(arguments)

    @property
    def pki(self) -> Path:
        """Test certificates of this run, made when it starts."""
        return self.directory / "pki"

    def nodes(self) -> list[NodeSpec]:
        """The station's nodes under config/simulation.yaml, with this run's ports and files."""
        o = self.options
        overrides: dict[str, dict[str, Any]] = {
            "power": {
                "bus": self.bus,
                "modules": o.modules,
                "module.protocol": o.module_protocol,
                "module.bus": self.module_bus,
                "connectors": [o.connector],
            },
            "backend": {
                "url": f"ws://127.0.0.1:{self.csms_port}",
                "version": o.ocpp,
                "store": str(self.directory / "backend.sqlite"),
            },
            "v2g": {"interface": o.interface, "record": "on" if o.record else "off"},
            "robot": {"memory": str(self.directory / "robot.json")},
            "supervisor": {},
            "chademo": {},
            "pilot": {},
        }
        if o.camera:
            overrides["robot"]["camera_file"] = str(config_directory() / "arm/camera.yaml")
        contract = CONTRACTS[o.module_protocol]
        if contract.cut_off_needed:  # the desk's safety controller does both
            overrides["power"] |= {"contactors_break_load": True, "module.cut_off": "inhibit"}
        if contract.polled and contract.bit_rate:
            overrides["power"] |= rating_parameters(contract)
        if o.csms_absent:  # nobody was ever asked about a token: whoever comes is trusted, and billed later
            overrides["backend"] |= {"authorize.offline": "all", "backoff.repeats": 1}
        if o.needs_pki:
            overrides["v2g"] |= {"tls.required": True, "tls.directory": str(self.pki / "station"), "pnc": o.pnc}
        if o.acdp:
            overrides["supervisor"] |= {"protocol": "acdp", "connector": o.connector, "arm_follows": True}
            overrides["v2g"] |= {"link": "acdp", "setup_timeout_s": 60.0}  # it may still be parking
        if o.exports:
            overrides["power"] |= {"bidirectional": True}
            overrides["supervisor"] |= {"export.max_power_w": DESK_EXPORT_W}
        if o.on_can:
            overrides["supervisor"] |= {"protocol": o.connector, "connector": o.connector}
            overrides["backend"] |= {"connectors": ["cG105" if o.chademo else "cGBT"]}
            overrides["v2g"] |= {"link": "none"}
            overrides["pilot"] |= {"connector": o.connector}
        if o.chademo:
            overrides["chademo"] |= {"v2x": o.exports}
        if o.ac:
            overrides["supervisor"] |= {"protocol": AC, "connector": o.connector}
            overrides["v2g"] |= {"link": "none"}
            overrides["pilot"] |= {"connector": o.connector, "ac.rated_current_a": DESK_AC_A, "ac.ended_after_s": 3.0}
            overrides["power"] |= {"ac": list(o.evses)}
            overrides["backend"] |= {"connectors": ["cType2"]}
        for n in o.evses:
            overrides[f"/evse{n}/supervisor"] = {"memory": str(self.directory / f"supervisor{n}.json")}
            if o.on_can:
                overrides[f"/evse{n}/{o.connector}"] = {"bus": self.vehicle_bus(n)}
        for name, values in o.overrides.items():
            overrides.setdefault(name, {}).update(values)
        return nodes(o.evses, o.config, overrides, simulation=True)
