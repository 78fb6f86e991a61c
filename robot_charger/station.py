"""Which nodes a station consists of: one description, read by the command line tool and by the launch files."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STATION_NODES = ("power", "robot", "backend")  # one of each, at the root
EVSE_NODES = ("pilot", "v2g", "chademo", "supervisor")  # one of each per EVSE, in /evseN


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


def config_directory() -> Path:
    """Where the parameter files lie: in the source tree, or in share/ of the installed package."""
    here = Path(__file__).resolve().parent
    candidates = [here.parent / "config", *(p / "share/robot_charger/config" for p in here.parents), Path(sys.prefix) /
                  "share/robot_charger/config"]  # fmt: skip
    for candidate in candidates:
        if (candidate / "power.yaml").exists():
            return candidate
    raise FileNotFoundError("config/power.yaml is in none of: " + ", ".join(str(c) for c in candidates[:2]))


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

    def spec(executable: str, namespace: str, extra: Mapping[str, Any]) -> NodeSpec:
        full = f"{namespace.rstrip('/')}/{executable}"
        values = {**extra, **overrides.get(executable, {}), **overrides.get(full, {})}
        files = [config / f"{executable}.yaml", *([config / "simulation.yaml"] if simulation else [])]
        return NodeSpec(executable, namespace, tuple(files), values)

    station = [spec(name, "/", {"evses": list(evses)}) for name in STATION_NODES]
    per_evse = [spec(name, f"/evse{evse}", {}) for evse in evses for name in EVSE_NODES]
    return station + per_evse
