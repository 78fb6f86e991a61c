"""Parameter files: whatever is wrong is found before anything starts, in one line with file and line number."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from robot_charger import station
from robot_charger.cli import main
from robot_charger.common import configuration
from robot_charger.common.configuration import check, config_directory, named_files, read, scalar, started

NODES = ("backend", "chademo", "gbt", "pilot", "power", "robot", "supervisor", "v2g")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The shipped files of a station, with the files they name."""
    folder = tmp_path / "config"
    subprocess.run(["cp", "-r", str(config_directory()), str(folder)], check=True)
    (folder / "csms.password").write_text("a password of twenty characters")
    text = (folder / "backend.yaml").read_text()
    (folder / "backend.yaml").write_text(text.replace("/etc/robot_charger/csms.password", "csms.password"))
    return folder


def lines(config: Path, evses: tuple[int, ...] = (1, 2)) -> list[str]:
    return [str(trouble).replace(f"{config}/", "") for trouble in station.troubles(evses, config)]


def edit(file: Path, old: str, new: str) -> None:
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def test_the_shipped_files_are_right(config):
    assert lines(config) == []
    assert check(station.nodes((1, 2), config, simulation=True)) == []


def test_the_table_knows_every_parameter_class():
    assert set(configuration.table()) == set(NODES)
    assert configuration.table()["pilot"]["connector"][1].choices


@pytest.mark.parametrize(
    ("file", "old", "new", "line", "words"),
    [
        ("pilot.yaml", "/**/pilot:", "/**/pilott:", 3, ["/**/pilott", "no node"]),
        ("pilot.yaml", "/**/pilot:", "/evse1/pilott:", 3, ["did you mean /evse1/pilot?"]),
        ("pilot.yaml", "/**/pilot:", "/evse3/pilot:", 3, ["/evse3/pilot", "no node"]),
        ("pilot.yaml", "/**/pilot:", "/power:", 3, ["/power", "no node", "read by /evse1/pilot, /evse2/pilot"]),
        ("pilot.yaml", "sample_ms: 4", "sampel_ms: 4", 6, ["sampel_ms", "unknown", "did you mean sample_ms?"]),
        ("pilot.yaml", "sample_ms: 4", "sample_ms: four", 6, ["sample_ms = 'four'", "a whole number"]),
        ("pilot.yaml", "sample_ms: 4", "sample_ms: 4.5", 6, ["sample_ms = 4.5", "a whole number"]),
        ("pilot.yaml", "sample_ms: 4", "sample_ms: 4000", 6, ["sample_ms = 4000", "too large", "at most"]),
        ("pilot.yaml", "sample_ms: 4", "sample_ms:", 6, ["sample_ms has no value"]),
        ("pilot.yaml", "sample_ms: 4", "sample_ms: [4]", 6, ["sample_ms = [4]", "a whole number"]),
        ("pilot.yaml", "sample_ms: 4", "sample_ms: [[4]]", 6, ["a list in a list"]),
        ("pilot.yaml", "sample_ms: 4", "sample_ms: true", 6, ["sample_ms = True", "a whole number"]),
        ("pilot.yaml", "command_timeout_s: 2.0", "command_timeout_s: .nan", 7, ["not a number"]),
        ("pilot.yaml", "connector: ccs2", "connector: usb", 5, ["connector = 'usb'", "one of", "ccs2"]),
        ("pilot.yaml", "sample_ms: 4", "driver: linux", 6, ["driver is already in line 4"]),
        ("pilot.yaml", "sample_ms: 4", "driver: &x linux\n    more: *x", 7, ["aliases", "*x"]),
        (
            "pilot.yaml",
            "  ros__parameters:",
            "  ros_parameters:",
            3,
            ["ros_parameters is not read", "`ros__parameters:`"],
        ),
        ("pilot.yaml", "  ros__parameters:", "  ros__parameters: [", 5, ["is no YAML"]),
        ("pilot.yaml", "driver: simulated", "\tdriver: simulated", 4, ["is no YAML"]),
        ("v2g.yaml", 'record: "off"', "record: off", 22, ["record = False", "text", "in quotes"]),
        ("power.yaml", "[400.0]", "[400.0, high]", 8, ["mixes kinds"]),
        ("power.yaml", "[400.0]", "[4000.0]", 8, ["cable_max_current_a", "at most 3000 A"]),
        ("power.yaml", "/**/power:", "power: 3\n/**/power:", 2, ["power is outside"]),
        ("robot.yaml", "bays_file: bays.yaml", "bays_file: bay.yaml", 5, ["bays_file names", "does not exist"]),
        ("backend.yaml", '"csms.password"', '"secret/csms.password"', 8, ["password_file", "does not exist"]),
    ],
)
def test_every_fault_has_its_line(config, file, old, new, line, words):
    edit(config / file, old, new)
    found = lines(config)
    assert any(text.startswith(f"{file}:{line}: ") and all(w in text for w in words) for text in found), found
    assert all("\n" not in text for text in found)


@pytest.mark.parametrize("name", NODES)
def test_a_missing_file_is_one_line(config, name):
    (config / f"{name}.yaml").unlink()
    assert lines(config) == [f"{name}.yaml: cannot be read: No such file or directory"]


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"/**/other:\n  ros__parameters: {}\n"])
def test_a_node_without_a_section_would_run_on_defaults(config, content):
    (config / "pilot.yaml").write_bytes(content)
    assert "pilot.yaml: no section is for /evse1/pilot: it would run with its defaults" in lines(config)


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00", b"- 1\n", b"text\n", b"a: b: c\n", b"---\na: 1\n---\nb: 1\n", b"\x00"]
)
def test_a_file_that_is_no_parameter_file_never_raises(config, content):
    (config / "pilot.yaml").write_bytes(content)
    assert [text for text in lines(config) if text.startswith("pilot.yaml")]


def test_a_wrong_directory_is_one_line(tmp_path):
    (text,) = map(str, station.troubles([1], tmp_path / "nothing"))
    assert text.startswith(f"{tmp_path}/nothing: is no directory")


def test_what_ros_accepts_is_accepted(config):
    """Whole numbers for numbers and the other way round, nested names, wildcards, nested namespaces."""
    edit(config / "pilot.yaml", "sample_ms: 4", "sample_ms: 4.0")
    edit(config / "pilot.yaml", "command_timeout_s: 2.0", "command_timeout_s: 2")
    edit(config / "power.yaml", "[400.0]", "[400]")
    edit(config / "power.yaml", "meter.kind: modbus-tcp", "meter: {kind: modbus-tcp}\n    use_sim_time: false")
    edit(config / "supervisor.yaml", "/**/supervisor:", "/*/supervisor:")
    with (config / "chademo.yaml").open("a") as more:
        more.write("evse2:\n  chademo:\n    ros__parameters: {bus: 'socketcan:can1'}\n")
    assert lines(config) == []


def plain(text: str) -> yaml.ScalarNode:
    node = yaml.compose(text)
    assert isinstance(node, yaml.ScalarNode)
    return node


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4", 4), ("-4", -4), ("0x10", 16), ("010", 8), ("1e3", 1000.0), ("1.", 1.0), (".5", 0.5), ("08", 8.0),
        (".inf", float("inf")), ("-.inf", float("-inf")), ("yes", True), ("Off", False), ("N", False), ("nO", "nO"),
        ("'4'", "4"), ('"on"', "on"), ("1_000", "1_000"), ("~", None), ("2026-11-28", "2026-11-28"), ("12:30", "12:30"),
    ],
)  # fmt: skip
def test_scalars_are_what_ros_makes_of_them(text, value):
    result = scalar(plain(text))
    assert result == value and type(result) is type(value)


def test_the_scalars_of_ros_itself(tmp_path):
    """rcl's own parser, through rclpy, is the reference."""
    import rclpy
    from rclpy.node import Node

    texts = ["4", "0x10", "010", "1e3", "1.", ".5", "08", ".inf", "yes", "Off", "N", "nO", "'4'", "1_000", "12:30"]
    file = tmp_path / "given.yaml"
    rows = "".join(f"    p{i}: {text}\n" for i, text in enumerate(texts))
    file.write_text(f"/**/probe:\n  ros__parameters:\n{rows}")
    context = rclpy.Context()
    rclpy.init(context=context, args=["--ros-args", "--params-file", str(file)])
    try:
        node = Node("probe", context=context, automatically_declare_parameters_from_overrides=True)
        by_ros = {name: p.value for name, p in node.get_parameters_by_prefix("").items() if name.startswith("p")}
        node.destroy_node()
    finally:
        context.try_shutdown()
    (section,) = read(file).sections
    assert section.is_for("/probe")
    assert {name: value.value for name, value in section.values.items()} == by_ros


def test_a_process_knows_its_own_files(config):
    words = ["node.py", "--ros-args", "-r", "__ns:=/evse2", "--params-file", str(config / "pilot.yaml")]
    me = started("pilot", words)
    assert (me.name, me.files) == ("/evse2/pilot", (config / "pilot.yaml",))
    assert check([me], whole=False) == []
    assert started("pilot", [*words, "-r", "pilot:__node:=other"]).name == "/evse2/other"
    edit(config / "pilot.yaml", "/**/pilot:", "/evse1/pilot:")
    (trouble,) = check([me], whole=False)
    assert "no section is for /evse2/pilot" in trouble.text


def test_a_relative_file_lies_beside_the_file_that_names_it(config):
    robot = started("robot", ["--ros-args", "--params-file", str(config / "robot.yaml")])
    assert named_files(robot)["bays_file"] == str(config / "bays.yaml")


def test_up_and_doctor_refuse_in_one_line(config, monkeypatch):
    edit(config / "pilot.yaml", "sample_ms: 4", "sampel_ms: 4")
    done = CliRunner().invoke(main, ["up", "--config", str(config)])
    assert done.exit_code == 2
    assert done.output.splitlines() == [
        f"{config}/pilot.yaml:6: parameter sampel_ms of pilot is unknown: did you mean sample_ms?"
    ]
    done = CliRunner().invoke(main, ["doctor", "--station", "--config", str(config)])
    assert done.exit_code == 1 and f"{config}/pilot.yaml:6: parameter sampel_ms" in done.output
    done = CliRunner().invoke(main, ["up", "--config", str(config / "nothing")])
    assert done.exit_code == 2 and len(done.output.splitlines()) == 1


def test_launch_files_may_import_it_under_the_system_python():
    """Only the standard library and PyYAML."""
    code = """
import sys
allowed = {*sys.stdlib_module_names, "yaml", "_yaml", "robot_charger"}
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in allowed:
            raise ImportError(f"{name} is not on every station's system Python")
sys.meta_path.insert(0, Refuse())
from robot_charger import station
from robot_charger.common import host_only
station.troubles([1]), station.nodes([1, 2]), host_only.variables({})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
