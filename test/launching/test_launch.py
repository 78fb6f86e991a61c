"""The launch files against small stand-ins for launch and launch_ros, which no Python registry offers.

The stand-ins keep what they are given; the real packages come with a ROS 2 install.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import yaml

from robot_charger import station

LAUNCH = Path(__file__).parents[2] / "launch"


class Kept:
    """Whatever a launch action is called with."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        self.arguments, self.keywords = arguments, keywords


class Configuration(Kept):
    def perform(self, context: dict[str, str]) -> str:
        return context[self.arguments[0]]


@pytest.fixture
def launch_stand_ins(monkeypatch: pytest.MonkeyPatch) -> dict[str, type]:
    names = {
        "launch": ["LaunchDescription"],
        "launch.actions": ["DeclareLaunchArgument", "ExecuteProcess", "OpaqueFunction", "SetEnvironmentVariable"],
        "launch.substitutions": [],
        "launch_ros": [],
        "launch_ros.actions": ["LifecycleNode", "Node"],
    }
    classes: dict[str, type] = {}
    for module_name, class_names in names.items():
        module = types.ModuleType(module_name)
        for name in class_names:
            classes[name] = type(name, (Kept,), {})
            setattr(module, name, classes[name])
        monkeypatch.setitem(sys.modules, module_name, module)
    sys.modules["launch.substitutions"].LaunchConfiguration = Configuration  # type: ignore[attr-defined]
    return classes


def load(name: str) -> Any:
    specification = importlib.util.spec_from_file_location(name, LAUNCH / f"{name}.launch.py")
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def run(name: str, **given: str) -> list[Kept]:
    """What the launch file starts, with these arguments over its own defaults."""
    (description,) = load(name).generate_launch_description().arguments
    declared = {a.arguments[0]: a.keywords["default_value"] for a in description if "default_value" in a.keywords}
    assert set(given) <= set(declared)
    (function,) = [a.keywords["function"] for a in description if "function" in a.keywords]
    return function({**declared, **given})


def kinds(actions: list[Kept], name: str) -> list[dict[str, Any]]:
    return [a.keywords for a in actions if type(a).__name__ == name]


@pytest.mark.parametrize("name", ["station", "simulation", "gazebo"])
def test_a_launch_file_is_short(name):
    assert len((LAUNCH / f"{name}.launch.py").read_text().splitlines()) <= 40


def test_the_station_is_eight_nodes_with_their_files(launch_stand_ins):
    nodes = kinds(run("station"), "LifecycleNode")
    assert sorted(n["name"] for n in nodes) == [
        "backend", "chademo", "gbt", "pilot", "power", "robot", "supervisor", "v2g"
    ]  # fmt: skip
    for node in nodes:
        assert node["executable"] == node["name"] and node["package"] == "robot_charger"
        assert node["namespace"] == ("/" if node["name"] in ("power", "robot", "backend") else "/evse1")
        assert all(Path(f).exists() for f in node["parameters"] if isinstance(f, str))


def test_every_evse_has_its_own_nodes_and_the_station_nodes_know_all(launch_stand_ins):
    nodes = kinds(run("station", evses="1,2,3"), "LifecycleNode")
    assert [n["namespace"] for n in nodes if n["name"] == "pilot"] == ["/evse1", "/evse2", "/evse3"]
    (power,) = [n for n in nodes if n["name"] == "power"]
    assert power["parameters"][-1]["evses"] == [1, 2, 3]


def test_the_simulation_starts_the_same_nodes_and_every_simulator(launch_stand_ins):
    actions = run("simulation", modules="3", seed="7")
    names = {n["name"] for n in kinds(actions, "LifecycleNode")}
    assert names == {n.executable for n in station.nodes()}
    simulators = {p["name"]: p["cmd"] for p in kinds(actions, "ExecuteProcess")}
    assert set(simulators) == {"safety", "rack", "csms", "arm", "plc1", "vehicle1"}
    assert "3" in simulators["rack"]
    assert any(type(a).__name__ == "SetEnvironmentVariable" and a.arguments[0] == "ROBOT_CHARGER_SIM" for a in actions)


def test_gazebo_takes_the_place_of_the_arm_s_simulator(launch_stand_ins):
    actions = run("gazebo", seed="2", kind="high")
    processes = {p["name"]: p["cmd"] for p in kinds(actions, "ExecuteProcess")}
    assert set(processes) == {"safety", "rack", "csms", "gz", "arm", "plc1", "vehicle1"}
    assert "robot_charger.sim.arm.gazebo_tool" in processes["arm"]
    world = Path(processes["gz"][-1].split()[-1])
    assert world.read_text().startswith("<?xml") and world.with_name("arm.urdf").exists()
    nodes = kinds(actions, "LifecycleNode")
    assert {n["name"] for n in nodes} == {n.executable for n in station.nodes()}
    assert [n["package"] for n in kinds(actions, "Node")] == [
        "ros_gz_bridge", "robot_state_publisher", "ros_gz_sim", "controller_manager"
    ]  # fmt: skip


@pytest.mark.parametrize("file", sorted(station.config_directory().glob("*.yaml")), ids=lambda f: f.name)
def test_every_parameter_file_names_known_parameters(file):
    """A typo in config/ would only show at start: find it here."""
    import importlib

    classes = {
        "pilot": "robot_charger.pilot.node:PilotParameters",
        "chademo": "robot_charger.chademo.node:ChademoParameters",
        "gbt": "robot_charger.gbt.parameters:GbtParameters",
        "v2g": "robot_charger.v2g.parameters:V2gParameters",
        "power": "robot_charger.power.parameters:PowerParameters",
        "robot": "robot_charger.robot.parameters:RobotParameters",
        "backend": "robot_charger.backend.parameters:BackendParameters",
        "supervisor": "robot_charger.supervisor.parameters:SupervisorParameters",
    }
    content = yaml.safe_load(file.read_text())
    checked = 0
    for key, block in content.items():
        if not isinstance(block, dict) or "ros__parameters" not in block:
            continue
        node = key.rsplit("/", 1)[-1]
        node = file.stem if node == "**" else node
        module, name = classes[node].split(":")
        from robot_charger.common.parameters import build

        build(getattr(importlib.import_module(module), name), _flat(block["ros__parameters"]))
        checked += 1
    assert checked or file.name == "bays.yaml"


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat


def test_the_desk_knows_the_contract_of_the_test_pki():
    from robot_charger.v2g import pki

    assert station.DEMO_CONTRACT == pki.CONTRACT
