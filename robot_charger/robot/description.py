"""What config/ tells about the arm, its tool, the connectors and the bays, checked when it is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from robot_charger.common.configuration import config_directory
from robot_charger.common.parameters import ParameterError
from robot_charger.robot.spatial import Array, from_xyz_rpy


def config_file(name: str) -> Path:
    """A file of config/, or ``name`` itself when it is an absolute path. Raises ParameterError when missing."""
    path = Path(name)
    try:
        path = path if path.is_absolute() else config_directory() / path
    except FileNotFoundError as error:
        raise ParameterError(f"{error}") from None
    if not path.is_file():
        raise ParameterError(f"{path} is not there")
    return path


@dataclass(frozen=True)
class Tool:
    """Sensor, compliant mount and gripper. Lengths m from gripper_link along its x axis."""

    wrench_distance: float  # of the wrench's origin behind gripper_link [m]
    compliance_centre: float  # ahead of gripper_link [m]
    stiffness: Array  # (6,): x, y, z [N/m], rx, ry, rz [Nm/rad]


@dataclass(frozen=True)
class Connector:
    """One kind of plug. Lengths m."""

    name: str
    depth: float
    nose: float
    mass: float
    capture: float
    centre: float = 0.08  # of its mass, ahead of gripper_link
    cable: float = 10.0  # how its pull grows with the way from where it hangs [N/m]
    held: bool = False  # the arm cannot let go of it: it stays and follows the vehicle


@dataclass(frozen=True)
class Bay:
    """One bay of the robot. Poses in the arm's base frame, but ``workspace`` and turns relative to ``inlet``."""

    number: int
    connectors: tuple[str, ...]
    frame: Array  # base_link -> bayN
    inlet: Array
    workspace: Array  # (3,) half extent, in the bay's axes [m]
    max_turn: float  # [rad]
    holster: Array
    clear: Array


@dataclass(frozen=True)
class Site:
    """Everything that stands still around one arm."""

    tool: Tool
    connectors: dict[str, Connector]
    bays: dict[int, Bay]
    park: Array  # (6,) [rad]


def _read(name: str) -> dict[str, Any]:
    path = config_file(name)
    try:
        data = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ParameterError(f"{path} is not YAML: {error}") from error
    if not isinstance(data, dict):
        raise ParameterError(f"{path} must be a mapping")
    return data


def _pose(data: Any, where: str) -> Array:
    try:
        xyz, rpy = [float(v) for v in data["xyz"]], [float(v) for v in data.get("rpy", (0, 0, 0))]
        if len(xyz) != 3 or len(rpy) != 3:
            raise ValueError("three values each")
        pose = from_xyz_rpy(xyz, rpy)
    except (KeyError, TypeError, ValueError) as error:
        raise ParameterError(f"{where} needs xyz: [m, m, m] and rpy: [rad, rad, rad] ({error})") from error
    if not np.isfinite(pose).all():
        raise ParameterError(f"{where} is not finite")
    return pose


def load_tool(arm_file: str = "arm/arm.yaml") -> Tool:
    data = _read(arm_file)["tool"]
    lateral, turning = float(data["lateral_stiffness_n_m"]), float(data["rotational_stiffness_nm_rad"])
    stiffness = np.array([float(data["axial_stiffness_n_m"]), lateral, lateral, turning, turning, turning])
    if not (stiffness > 0.0).all():
        raise ParameterError(f"{arm_file}: stiffnesses of the tool must be above zero")
    return Tool(float(data["wrench_distance_m"]), float(data["compliance_centre_m"]), stiffness)


def load_connectors(file: str = "arm/connectors.yaml") -> dict[str, Connector]:
    return {
        name: Connector(
            name,
            float(c["depth_m"]),
            float(c["nose_m"]),
            float(c["mass_kg"]),
            float(c["capture_m"]),
            float(c.get("centre_m", 0.08)),
            float(c.get("cable_n_m", 10.0)),
            c.get("held", False) is True,
        )
        for name, c in _read(file).items()
    }


def load_site(
    bays_file: str = "bays.yaml", arm_file: str = "arm/arm.yaml", connectors_file: str = "arm/connectors.yaml"
) -> Site:
    """Read and check the three files. Raises ParameterError naming file and entry."""
    data = _read(bays_file)
    connectors = load_connectors(connectors_file)
    bays = {}
    for key, entry in (data.get("bays") or {}).items():
        where = f"{bays_file}: bay {key}"
        try:
            frame = _pose(entry, where)
            names = tuple(entry["connectors"])
            workspace = np.array([float(v) for v in entry["workspace"]])
            bay = Bay(
                int(key),
                names,
                frame,
                frame @ _pose(entry["inlet"], f"{where} inlet"),
                workspace,
                float(entry["max_turn_rad"]),
                frame @ _pose(entry["holster"], f"{where} holster"),
                frame @ _pose(entry["clear"], f"{where} clear"),
            )
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, ParameterError):
                raise
            raise ParameterError(f"{where}: {error!r} is missing or wrong") from error
        unknown = [n for n in names if n not in connectors]
        if unknown or not names:
            raise ParameterError(f"{where}: connectors {unknown} unknown: one of {', '.join(connectors)}")
        if workspace.shape != (3,) or not (workspace > 0.0).all():
            raise ParameterError(f"{where}: workspace must be three lengths above zero")
        bays[bay.number] = bay
    park = np.array([float(v) for v in data.get("park", ())])
    if not bays or park.shape != (6,):
        raise ParameterError(f"{bays_file} needs `bays` and `park` with six joint angles")
    return Site(load_tool(arm_file), connectors, bays, park)
