"""The package as installed: its messages, its two descriptions in step, and a wheel without the locks."""

import ast
import importlib
import os
import re
import subprocess
import sys
import venv
import xml.etree.ElementTree as ElementTree
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from rclpy.serialization import deserialize_message, serialize_message

SOURCE = Path(__file__).resolve().parent.parent
MESSAGES = sorted(f.stem for f in (SOURCE / "msg").glob("*.msg"))
SERVICES = sorted(f.stem for f in (SOURCE / "srv").glob("*.srv"))
ACTIONS = sorted(f.stem for f in (SOURCE / "action").glob("*.action"))

# rosdep keys (or ROS packages) of package.xml and the Python distribution that each stands for.
ROSDEP = {
    "python3-click": "click",
    "python3-cryptography": "cryptography",
    "python3-marshmallow": "marshmallow",
    "python3-numpy": "numpy",
    "python3-serial": "pyserial",
    "python3-psutil": "psutil",
    "python3-rich": "rich",
    "python3-yaml": "pyyaml",
    "rclpy": "ros-rclpy",
    "std_msgs": "ros-std-msgs",
    "std_srvs": "ros-std-srvs",
    "diagnostic_msgs": "ros-diagnostic-msgs",
    "sensor_msgs": "ros-sensor-msgs",
    "geometry_msgs": "ros-geometry-msgs",
    "trajectory_msgs": "ros-trajectory-msgs",
    "lifecycle_msgs": "ros-lifecycle-msgs",
    "action_msgs": "ros-action-msgs",
}
# In package.xml only: they come with ROS, or with a message package above.
ROS_ONLY = {
    "ament_index_python",
    "builtin_interfaces",
    "launch",
    "launch_ros",
    "robot_state_publisher",
    "ros2launch",
    "rosidl_default_runtime",
}


def message_types():
    for kind, names in (("msg", MESSAGES), ("srv", SERVICES), ("action", ACTIONS)):
        parts = {"msg": ("",), "srv": ("_Request", "_Response"), "action": ("_Goal", "_Result", "_Feedback")}[kind]
        for name in names:
            for part in parts:
                yield pytest.param(kind, name, part.lstrip("_"), id=f"{kind}/{name}{part}")


def message_type(kind, name, part):
    interface = getattr(importlib.import_module(f"robot_charger.{kind}"), name)
    return getattr(interface, part) if part else interface


def filled(cls):
    """A message with no field at its default, as far as the type's text tells."""
    message = cls()
    for name, text in cls.get_fields_and_field_types().items():
        fixed = re.fullmatch(r"(.+)\[(\d+)\]", text)
        sequence = re.fullmatch(r"sequence<(.+?)(?:, \d+)?>", text)
        if fixed:
            value = [element(fixed[1])] * int(fixed[2])
        elif sequence:
            value = [element(sequence[1])]
        else:
            value = element(text, getattr(message, name))
        setattr(message, name, value)
    return message


def element(text, default=None):
    """A value of the type that rosidl writes as `text`, other than the default."""
    if "/" in text:
        package, name = text.split("/")
        return filled(getattr(importlib.import_module(f"{package}.msg"), name))
    if text.startswith(("string", "wstring")):
        return "é"
    return {"boolean": not default, "float": 1.5, "double": 1.5, "octet": b"\x07"}.get(text, 7)


@pytest.mark.parametrize(("kind", "name", "part"), list(message_types()))
def test_every_message_round_trips(kind, name, part):
    cls = message_type(kind, name, part)
    message = filled(cls)
    again = deserialize_message(serialize_message(message), cls)
    assert again == message
    if cls.get_fields_and_field_types():
        assert message != cls()


def installed_prefix():
    """The ament prefix with the package's files: a colcon workspace's, or the virtual environment."""
    prefixes = [Path(p) for p in (*os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep), sys.prefix) if p]
    [first, *_] = [p for p in prefixes if (p / "share/robot_charger/package.xml").is_file()]
    return first


def test_interfaces_are_where_ros2_looks():
    prefix = installed_prefix()
    index = prefix / "share/ament_index/resource_index"
    assert (index / "packages/robot_charger").is_file()
    listed = set((index / "rosidl_interfaces/robot_charger").read_text().split())
    wanted = {
        f"{kind}/{name}.{ending}"
        for kind, names in (("msg", MESSAGES), ("srv", SERVICES), ("action", ACTIONS))
        for name in names
        for ending in (kind, "idl")
    }
    assert listed == wanted
    assert not [path for path in wanted if not (prefix / "share/robot_charger" / path).is_file()]


def test_executables_are_where_ros2_run_looks():
    prefix = installed_prefix()
    folder = prefix / "lib/robot_charger"
    for name in ("pilot", "v2g", "chademo", "gbt", "power", "robot", "backend", "supervisor", "robot-charger"):
        assert os.access(folder / name, os.X_OK), name


def test_wrappers_run_the_installed_package_whatever_the_current_folder_holds(tmp_path):
    """`ros2 launch` is often called in a source tree, perhaps of another version."""
    (tmp_path / "robot_charger").mkdir()
    (tmp_path / "robot_charger/__init__.py").write_text("raise SystemExit('the wrong one')")
    python = installed_prefix() / "lib/robot_charger/python"
    done = subprocess.run(
        [str(python), "-m", "robot_charger.cli", "--version"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0 and "robot-charger" in done.stdout, done.stderr


def setup_py():
    """The literal tables and keywords of setup.py, without running it."""
    tree = ast.parse((SOURCE / "setup.py").read_text())
    tables, keywords = {}, {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.List | ast.Dict | ast.Constant):
            tables[node.targets[0].id] = ast.literal_eval(node.value)
        if (
            isinstance(node, ast.Expr)
            and getattr(node.value, "func", None)
            and getattr(node.value.func, "id", "") == "setup"
        ):
            keywords = {k.arg: k.value for k in node.value.keywords}
    return tables, {k: v.value for k, v in keywords.items() if isinstance(v, ast.Constant)}


def package_xml():
    return ElementTree.parse(SOURCE / "package.xml").getroot()


def test_package_xml_and_setup_agree_on_name_version_and_licence():
    import robot_charger

    tables, keywords = setup_py()
    xml = package_xml()
    assert xml.findtext("name") == tables["PACKAGE"] == "robot_charger"
    assert xml.findtext("version") == tables["VERSION"] == robot_charger.__version__
    assert xml.findtext("license") == keywords["license"]
    assert xml.findtext("description") == keywords["description"]
    assert distribution("robot_charger").version == tables["VERSION"]


def test_package_xml_and_setup_agree_on_dependencies():
    tables, _ = setup_py()
    declared = {
        canonicalize_name(Requirement(r).name) for table in ("REQUIREMENTS", "ROS_WHEELS") for r in tables[table]
    }
    keys = {e.text for tag in ("depend", "exec_depend") for e in package_xml().findall(tag)}
    assert keys - set(ROSDEP) - ROS_ONLY == set(), "a key of package.xml that this test does not know"
    comment = re.search(r"Without a rosdep key.*?station.md\):\s(.*?)-->", (SOURCE / "package.xml").read_text(), re.S)
    assert comment
    without_key = set(comment[1].split())
    with_key = {ROSDEP[key] for key in keys & set(ROSDEP)}
    assert with_key & without_key == set()
    assert with_key | without_key == declared


def test_locks_hold_every_declared_dependency_within_its_range():
    tables, _ = setup_py()
    pins = {}
    for lock in ("requirements.lock", "requirements-test.lock"):
        for line in (SOURCE / lock).read_text().splitlines():
            if not line or line.startswith("#"):
                continue
            pin = Requirement(line)
            assert re.fullmatch(r"==[^*,]+", str(pin.specifier)), f"{lock}: {line} is not exact"
            assert pin.url is None
            pins.setdefault(canonicalize_name(pin.name), []).append(next(iter(pin.specifier)).version)
    for table in ("REQUIREMENTS", "ROS_WHEELS", "SIM_REQUIREMENTS", "TEST_REQUIREMENTS"):
        for text in tables[table]:
            requirement = Requirement(text)
            assert canonicalize_name(requirement.name) in pins, text
            for version in pins[canonicalize_name(requirement.name)]:
                assert requirement.specifier.contains(version), f"{text}, but the lock says {version}"


IMPORT_ALL = """
import importlib, pkgutil, sys
import robot_charger
failed = []
names = [m.name for m in pkgutil.walk_packages(robot_charger.__path__, "robot_charger.")
         if not m.name.endswith((".__main__", ".launching"))]  # launching: under ros2 launch only
for name in names:
    try:
        importlib.import_module(name)
    except Exception as error:
        failed.append(f"{name}: {error!r}")
assert robot_charger.__file__.startswith(sys.prefix), robot_charger.__file__
from robot_charger.msg import PilotState
from rclpy.serialization import deserialize_message, serialize_message
assert deserialize_message(serialize_message(PilotState()), PilotState) == PilotState()
print(len(names), "modules")
if "plain" in sys.argv:  # the simulated vehicle may be missing, and nothing else
    failed = [text for text in failed if not text.startswith("robot_charger.sim.")]
sys.exit("\\n".join(failed) or 0)
"""
STATION = """
import sys
import robot_charger.v2g.node
sys.exit(", ".join({"iso15118", "pydantic", "py4j", "environs", "marshmallow"} & set(sys.modules)) or 0)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_wheel_without_the_lock_in_an_empty_environment(tmp_path):
    """pip alone must find a set of versions that every module imports with."""
    environment = {
        k: v
        for k, v in os.environ.items()
        if k not in ("PYTHONPATH", "LD_LIBRARY_PATH", "AMENT_PREFIX_PATH") and not k.startswith("_ROS_WHEELS")
    }

    def run(*command):
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    # --no-isolation builds with what `make setup` installed; the isolated way is pip's own.
    run(
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--skip-dependency-check",
        "--outdir",
        str(tmp_path),
        str(SOURCE),
    )
    [wheel] = tmp_path.glob("robot_charger-*.whl")
    venv.create(tmp_path / "empty", with_pip=True)
    python = str(tmp_path / "empty/bin/python")
    install = (python, "-m", "pip", "install", "--quiet", "--only-binary=:all:", "--no-binary=empy")
    run(*install, str(wheel))
    assert "modules" in run(python, "-c", IMPORT_ALL, "plain")
    run(python, "-c", STATION)
    run(*install, f"{wheel}[sim]")  # a desk
    assert "modules" in run(python, "-c", IMPORT_ALL)


def test_a_station_speaks_v2g_without_the_package_of_the_simulated_vehicle():
    subprocess.run([sys.executable, "-c", STATION], check=True)
