"""The launch files against small stand-ins for launch and launch_ros, which no Python registry offers.

The stand-ins keep what they are given; the real packages come with a ROS 2 install.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from robot_charger import station
from robot_charger.common.respawn import LIMIT

LAUNCH = Path(__file__).parents[2] / "launch"
STAND_INS = {
    "launch": ["LaunchContext", "LaunchDescription", "LaunchDescriptionEntity"],
    "launch.actions": [
        "DeclareLaunchArgument", "ExecuteProcess", "GroupAction", "OpaqueFunction", "RegisterEventHandler",
        "SetEnvironmentVariable", "Shutdown", "TimerAction",
    ],
    "launch.event_handlers": ["OnProcessExit", "OnProcessIO"],
    "launch.substitutions": [],
    "launch_ros": [],
    "launch_ros.actions": ["Node"],
    "launch_ros.parameter_descriptions": ["ParameterValue"],
}  # fmt: skip


class Kept:
    """Whatever a launch action is called with."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        self.arguments, self.keywords = arguments, keywords


class Configuration(Kept):
    def perform(self, context: Context) -> str:
        return context.given[self.arguments[0]]


class Context:
    def __init__(self, given: dict[str, str]) -> None:
        self.given = given
        self.launch_configurations: dict[str, Any] = {}
        self.is_shutdown = False


class Said(list[str]):
    """A logger that keeps its lines."""

    def warning(self, text: str) -> None:
        self.append(text)

    error = info = warning


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Said:
    """ROS's launch is there; what is logged."""
    said = Said()
    for module_name, class_names in STAND_INS.items():
        module = types.ModuleType(module_name)
        for name in class_names:
            setattr(module, name, type(name, (Kept,), {}))
        monkeypatch.setitem(sys.modules, module_name, module)
    sys.modules["launch"].logging = SimpleNamespace(get_logger=lambda name: said)  # type: ignore[attr-defined]
    sys.modules["launch.substitutions"].LaunchConfiguration = Configuration  # type: ignore[attr-defined]
    monkeypatch.setenv("AMENT_PREFIX_PATH", sys.prefix)
    monkeypatch.delitem(sys.modules, "robot_charger.launching", raising=False)
    monkeypatch.delattr("robot_charger.launching", raising=False)
    return said


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A station's own parameter files."""
    folder = tmp_path / "config"
    folder.mkdir()
    for file in station.config_directory().glob("*.yaml"):
        (folder / file.name).write_text(file.read_text())
    (folder / "arm").symlink_to(station.config_directory() / "arm")
    (folder / "csms.password").write_text("a password of twenty characters")
    backend = folder / "backend.yaml"
    backend.write_text(backend.read_text().replace("/etc/robot_charger/csms.password", "csms.password"))
    return folder


def load(name: str) -> Any:
    specification = importlib.util.spec_from_file_location(name, LAUNCH / f"{name}.launch.py")
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def declared(name: str) -> tuple[dict[str, Kept], Any]:
    """Arguments of a launch file, and its function."""
    (description,) = load(name).generate_launch_description().arguments
    (function,) = [a.keywords["function"] for a in description if "function" in a.keywords]
    return {a.arguments[0]: a for a in description if "default_value" in a.keywords}, function


def run(name: str, pushed: str = "", **given: str) -> list[Kept]:
    """What the launch file starts, with these arguments over its own defaults."""
    arguments, function = declared(name)
    assert set(given) <= set(arguments)
    context = Context({**{n: a.keywords["default_value"] for n, a in arguments.items()}, **given})
    context.launch_configurations["ros_namespace"] = pushed
    return flat(function(context))


def flat(actions: list[Kept] | None) -> list[Kept]:
    """Groups opened."""
    found: list[Kept] = []
    for action in actions or []:
        found += flat(action.arguments[0]) if type(action).__name__ == "GroupAction" else [action]
    return found


def kinds(actions: list[Kept], name: str) -> list[dict[str, Any]]:
    return [a.keywords for a in actions if type(a).__name__ == name]


def handlers(actions: list[Kept], event: str) -> dict[str, Any]:
    """Name of the process or executable -> what is done at this event of it."""
    found = {}
    for action in actions:
        if type(action).__name__ == "RegisterEventHandler" and type(action.arguments[0]).__name__ == event:
            kept = action.arguments[0].keywords
            target = kept["target_action"].keywords
            done = kept.get("on_exit") or kept.get("on_stdout") or kept.get("on_stderr")
            found[target.get("executable") or target["name"]] = done
    return found


def refusal(name: str, **given: str) -> list[str]:
    with pytest.raises(RuntimeError) as caught:
        run(name, **given)
    return str(caught.value).splitlines()


@pytest.mark.parametrize("name", ["station", "simulation", "gazebo"])
def test_a_launch_file_is_short_and_describes_its_arguments(said, name):
    assert len((LAUNCH / f"{name}.launch.py").read_text().splitlines()) <= 60
    for argument in declared(name)[0].values():
        assert len(argument.keywords["description"]) > 10


def test_the_station_is_eight_nodes_with_their_files(said, config):
    nodes = kinds(run("station", config=str(config)), "Node")
    assert sorted(n["executable"] for n in nodes) == [
        "backend", "chademo", "gbt", "pilot", "power", "robot", "supervisor", "v2g"
    ]  # fmt: skip
    for node in nodes:
        assert node["namespace"] == ("/" if node["executable"] in ("power", "robot", "backend") else "/evse1")
        assert all(Path(f).exists() for f in node["parameters"] if isinstance(f, str))
        assert node["additional_env"]["OPENBLAS_NUM_THREADS"] == "1"
        assert node["additional_env"]["ROBOT_CHARGER_PARENT"].isdigit()


def test_every_evse_has_its_own_nodes_and_the_station_nodes_know_all(said, config):
    nodes = kinds(run("station", evses="1,2,3", config=str(config)), "Node")
    assert [n["namespace"] for n in nodes if n["executable"] == "pilot"] == ["/evse1", "/evse2", "/evse3"]
    (power,) = [n for n in nodes if n["executable"] == "power"]
    assert power["parameters"][-1]["evses"] == [1, 2, 3]


def test_a_pushed_namespace_goes_before(said, config):
    nodes = kinds(run("station", pushed="site1", config=str(config)), "Node")
    assert {n["namespace"] for n in nodes} == {"/site1", "/site1/evse1"}


@pytest.mark.parametrize("name", ["station", "simulation"])
@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("/**/pilot:", "/**/pilott:", "pilot.yaml:3: section /**/pilott is for no node"),
        ("sample_ms: 4", "sampel_ms: 4", "pilot.yaml:6: parameter sampel_ms of pilot is unknown"),
        ("sample_ms: 4", "sample_ms: four", "pilot.yaml:6: parameter sample_ms = 'four' must be a whole number"),
    ],
)
def test_a_wrong_configuration_is_refused_in_its_line(said, config, name, old, new, words):
    file = config / "pilot.yaml"
    file.write_text(file.read_text().replace(old, new))
    assert any(words in line for line in refusal(name, config=str(config)))


@pytest.mark.parametrize("name", ["station", "simulation"])
def test_a_wrong_directory_and_number_are_refused(said, name):
    (line,) = refusal(name, config="/etc/no_such_directory")
    assert line.startswith("/etc/no_such_directory: is no directory")
    (line,) = refusal(name, evses="one")
    assert "'one'" in line


@pytest.mark.parametrize("given", [{"protocol": "mcs"}, {"ocpp": "3.0"}, {"modules": "0"}, {"sessions": "-1"}])
def test_a_simulation_that_cannot_be_is_refused(said, given):
    ((name, value),) = given.items()
    (line,) = refusal("simulation", **given)
    assert f"{name}:={value}" in line


def ended(status: int) -> SimpleNamespace:
    return SimpleNamespace(returncode=status)


def again(actions: list[Kept]) -> list[Kept]:
    """What a timer starts."""
    (timer,) = [a for a in actions if type(a).__name__ == "TimerAction"]
    (function,) = timer.keywords["actions"]
    return flat(function.keywords["function"](Context({})))


def test_a_node_that_ends_is_started_again_later_and_later(said, config):
    actions, context, delays = run("station", config=str(config)), Context({}), []
    for _ in range(LIMIT):
        answer = handlers(actions, "OnProcessExit")["pilot"](ended(-9), context)
        delays += [a["period"] for a in kinds(answer, "TimerAction")]
        actions = again(answer)
        assert [n["executable"] for n in kinds(actions, "Node")] == ["pilot"]
    assert delays == [1.0, 2.0, 4.0, 8.0, 16.0]
    answer = handlers(actions, "OnProcessExit")["pilot"](ended(-9), context)
    assert [p["name"] for p in kinds(answer, "ExecuteProcess")] == ["unplugged"]


def test_a_refused_configuration_is_not_tried_again_and_the_launch_ends_once_no_plug_is_in(said, config):
    actions, context = run("station", evses="1,2", config=str(config)), Context({})
    exits = handlers(actions, "OnProcessExit")
    handlers(actions, "OnProcessIO")["power"](SimpleNamespace(text=b"[ERROR] [17.5] [power]: parameter x is unknown\n"))
    waiting = exits["power"](ended(2), context)
    assert "refuses its configuration (parameter x is unknown)" in said[-1] and "EVSE 1, 2" in said[-1]
    (process,) = kinds(waiting, "ExecuteProcess")
    assert process["cmd"][-3:] == ["--evses", "1", "2"]
    assert exits["robot"](ended(2), context) is None  # it is waiting already
    with pytest.raises(RuntimeError, match="no EVSE is left in service: /power refuses"):
        handlers(waiting, "OnProcessExit")["unplugged"](ended(0), context)


def test_the_other_evse_goes_on(said, config):
    actions, context = run("station", evses="1,2", config=str(config)), Context({})
    assert handlers(actions, "OnProcessExit")["pilot"](ended(2), context) is None  # the last one: of EVSE 2
    assert "EVSE 2 is out of service" in said[-1]


def test_nothing_is_started_again_while_the_launch_ends(said, config):
    actions, context = run("station", config=str(config)), Context({})
    context.is_shutdown = True
    assert handlers(actions, "OnProcessExit")["pilot"](ended(-2), context) is None


@pytest.fixture
def simulation(said) -> Any:
    """Actions of a simulation; its run directory is removed, as its simulators do."""
    import shutil

    made: list[str] = []

    def start(**given: str) -> tuple[list[Kept], list[Kept]]:
        actions = run("simulation", **given)
        (simulators,) = kinds(actions, "ExecuteProcess")
        made.append(simulators["cmd"][3])
        begun = handlers(actions, "OnProcessIO")["simulators"]
        assert begun(SimpleNamespace(text=b"something else")) is None
        later = flat(begun(SimpleNamespace(text=b"the simulators are started\n")))
        assert begun(SimpleNamespace(text=b"the simulators are started\n")) == []
        return actions, later

    yield start
    for directory in made:
        shutil.rmtree(directory)


def test_the_simulation_starts_simulators_then_nodes_then_vehicles(simulation):
    _, later = simulation(modules="3", seed="7")
    nodes = kinds(later, "Node")
    assert {n["executable"] for n in nodes} == {n.executable for n in station.nodes()}
    (visits,) = kinds(later, "ExecuteProcess")
    assert visits["cmd"][1:3] == ["-m", "robot_charger.desk.visits"]
    assert Path(visits["cmd"][0]).name == "python" and Path(visits["cmd"][0]).parent.name == "robot_charger"
    directory = Path(visits["cmd"][3])
    assert (directory / "plan.json").is_file()
    assert nodes[0]["additional_env"]["ROBOT_CHARGER_SIM"] == str(directory)
    (power,) = [n for n in nodes if n["executable"] == "power"]
    assert "modules: 3" in Path(power["parameters"][-1]).read_text()


def test_the_last_vehicle_ends_the_launch_with_its_status(simulation):
    _, later = simulation()
    done, context = handlers(later, "OnProcessExit")["visits"], Context({})
    (action,) = done(ended(0), context)
    assert type(action).__name__ == "Shutdown"
    with pytest.raises(RuntimeError, match="did not all complete"):
        done(ended(1), context)


def test_without_sessions_no_vehicle_comes(simulation):
    _, later = simulation(sessions="0")
    assert not kinds(later, "ExecuteProcess") and kinds(later, "Node")


def test_gazebo_takes_the_place_of_the_arm_s_simulator(said):
    import shutil

    actions = run("gazebo", seed="2", kind="high")
    processes = {p["name"]: p["cmd"] for p in kinds(actions, "ExecuteProcess")}
    assert set(processes) == {"gz", "arm", "simulators"}
    assert processes["simulators"][-2:] == ["--without", "arm"]
    assert "robot_charger.sim.arm.gazebo_tool" in processes["arm"]
    world = Path(processes["gz"][-1].split()[-1])
    assert world.read_text().startswith("<?xml") and "<gz_frame_id>wrench" in world.with_name("arm.urdf").read_text()
    assert [n["package"] for n in kinds(actions, "Node")] == [
        "ros_gz_bridge", "robot_state_publisher", "ros_gz_sim", "controller_manager"
    ]  # fmt: skip
    later = flat(handlers(actions, "OnProcessIO")["simulators"](SimpleNamespace(text=b"the simulators are started")))
    assert all(n["parameters"][-1] == {"use_sim_time": True} for n in kinds(later, "Node"))
    shutil.rmtree(world.parent)


def test_the_desk_knows_the_contract_of_the_test_pki():
    from robot_charger.v2g import pki

    assert station.DEMO_CONTRACT == pki.CONTRACT
