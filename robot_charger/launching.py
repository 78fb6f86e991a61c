"""What the launch files share: start the nodes, start them again, end the launch with a sentence.

Runs in the process of ``ros2 launch``, so under the system's Python: it imports the standard library, PyYAML and ROS's
launch packages. Nodes and simulators start by the wrappers in lib/robot_charger, which know the Python of the station's
environment.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity, logging
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    GroupAction,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
    Shutdown,
    TimerAction,
)
from launch.event_handlers import OnProcessExit, OnProcessIO
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from robot_charger import station
from robot_charger.common import host_only
from robot_charger.common.configuration import config_directory, named_files
from robot_charger.common.process import PARENT
from robot_charger.common.respawn import Upkeep
from robot_charger.robot.bay_frames import with_bays

LOGGER = "robot_charger"
LOG_HEAD = re.compile(r"^\[\w+\] \[[\d.]+\] \[[^]]*\]: ")  # level, time and name of a ROS log line
STARTED = "the simulators are started"  # desk.simulators writes it
SIMULATORS_END_S = "10"  # [s] they end after power, which launch gives 5 s


class LaunchRefusedError(RuntimeError):
    """The launch cannot start, or ends with exit status 1; the text is for a person."""


def description(arguments: Mapping[str, tuple[str, str]], start: Any) -> LaunchDescription:
    """A launch file: its arguments with default and meaning, and the function that starts what they ask for."""
    declared = [DeclareLaunchArgument(n, default_value=v, description=t) for n, (v, t) in arguments.items()]
    here = [SetEnvironmentVariable(name, value) for name, value in host_only.variables(os.environ).items()]
    return LaunchDescription([*here, *declared, OpaqueFunction(function=start)])


def given(context: LaunchContext, arguments: Iterable[str]) -> dict[str, str]:
    """Values of the launch arguments."""
    return {name: LaunchConfiguration(name).perform(context).strip() for name in arguments}


def evses(text: str) -> list[int]:
    """Numbers of EVSEs. Raises LaunchRefusedError."""
    try:
        return station.evse_numbers(text)
    except ValueError as error:
        raise LaunchRefusedError(f"evses:={error}") from None


def number(name: str, text: str, kind: type = int) -> Any:
    """A launch argument as a number. Raises LaunchRefusedError."""
    try:
        value = kind(text)
    except ValueError:
        raise LaunchRefusedError(f"{name}:={text} is no {'whole ' if kind is int else ''}number") from None
    if value < 0:
        raise LaunchRefusedError(f"{name}:={text} is below 0")
    return value


def wrapper(name: str) -> str:
    """Path of an executable in lib/robot_charger."""
    return str(Path(get_package_prefix("robot_charger"), "lib/robot_charger", name))


def below(context: LaunchContext, spec: station.NodeSpec) -> station.NodeSpec:
    """The node under the namespace that the launch file around this one has pushed (PushRosNamespace)."""
    pushed = str(context.launch_configurations.get("ros_namespace", "")).strip("/")
    namespace = "/" + "/".join(part for part in (pushed, spec.namespace.strip("/")) if part)
    return station.NodeSpec(spec.executable, namespace, spec.files, spec.overrides)


def environment(**more: str) -> dict[str, str]:
    """Of every process: numeric libraries with one thread; it ends with this one, however that dies."""
    return {**station.ENVIRONMENT, PARENT: str(os.getpid()), **more}


class Nodes:
    """The nodes of a station. A node that ends is started again after a while, as common.respawn decides.

    When no EVSE is left, and no plug is in, the launch ends with exit status 1.
    """

    def __init__(
        self, context: LaunchContext, specs: Iterable[station.NodeSpec], evses: list[int], **more: str
    ) -> None:
        self._specs = [below(context, spec) for spec in specs]
        self._evses = evses
        self._environment = environment(**more)
        self._surroundings = dict(context.launch_configurations)  # remappings and parameters that others set
        self._upkeep = Upkeep(evses)
        self._words: dict[str, str] = {}
        self._ending = False

    def start(self) -> list[LaunchDescriptionEntity]:
        return self._as_begun([action for spec in self._specs for action in self._node(spec)])

    def _as_begun(self, actions: list[LaunchDescriptionEntity]) -> list[LaunchDescriptionEntity]:
        """``actions`` under the remappings and parameters that held when the launch file was read."""

        def restore(context: LaunchContext) -> None:
            context.launch_configurations.update(self._surroundings)

        return [GroupAction([OpaqueFunction(function=restore), *actions])]

    def _node(self, spec: station.NodeSpec) -> list[LaunchDescriptionEntity]:
        overrides = [dict(spec.overrides)] if spec.overrides else []
        node = Node(
            package="robot_charger",
            executable=spec.executable,
            namespace=spec.namespace,
            parameters=[*map(str, spec.files), *overrides],
            additional_env=self._environment,
            output="both",
        )
        ended = partial(self._ended, spec, time.monotonic())
        return [
            RegisterEventHandler(OnProcessIO(target_action=node, on_stderr=partial(self._said, spec.name))),
            RegisterEventHandler(OnProcessExit(target_action=node, on_exit=ended)),
            node,
        ]

    def _said(self, name: str, event: Any) -> None:
        lines = [line for line in event.text.decode(errors="replace").splitlines() if line.strip()]
        if lines:
            self._words[name] = LOG_HEAD.sub("", lines[-1].strip())

    def _ended(
        self, spec: station.NodeSpec, since: float, event: Any, context: LaunchContext
    ) -> list[LaunchDescriptionEntity] | None:
        if context.is_shutdown:
            return None
        words = self._words.pop(spec.name, "")
        decision = self._upkeep.ended(spec.name, event.returncode, time.monotonic() - since, words)
        log = logging.get_logger(LOGGER)
        (log.error if decision.delay_s is None else log.warning)(decision.text)
        if decision.delay_s is not None:
            return [TimerAction(period=decision.delay_s, actions=[OpaqueFunction(function=partial(self._again, spec))])]
        if self._upkeep.all_lost and not self._ending:
            self._ending = True
            return self._end()
        return None

    def _again(self, spec: station.NodeSpec, context: LaunchContext) -> list[LaunchDescriptionEntity]:
        return self._as_begun(self._node(spec))

    def _end(self) -> list[LaunchDescriptionEntity]:
        """Wait until no plug is in, then end."""
        numbers = [str(n) for n in self._evses]
        command = [wrapper("python"), "-m", "robot_charger.desk.unplugged", "--evses", *numbers]
        return one_process("unplugged", command, lambda status: self._upkeep.why, **self._environment)


def one_process(name: str, command: list[str], why: Any, **variables: str) -> list[LaunchDescriptionEntity]:
    """A process whose end ends the launch. ``why`` gets its exit status: the reason for exit status 1, or empty."""

    def ended(event: Any, context: LaunchContext) -> list[LaunchDescriptionEntity] | None:
        if context.is_shutdown:
            return None
        if reason := why(event.returncode):
            raise LaunchRefusedError(reason)
        return [Shutdown(reason=f"{name} is done")]

    process = ExecuteProcess(
        cmd=command,
        name=name,
        additional_env=variables,
        output="both",
        sigterm_timeout=SIMULATORS_END_S,
    )
    return [RegisterEventHandler(OnProcessExit(target_action=process, on_exit=ended)), process]


def plan(wishes: Mapping[str, Any]) -> dict[str, Any]:
    """Have a simulation prepared by robot_charger.desk.plan. Raises LaunchRefusedError."""
    command = [wrapper("python"), "-m", "robot_charger.desk.plan", json.dumps(dict(wishes))]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **station.ENVIRONMENT})
    if done.returncode:
        raise LaunchRefusedError(done.stderr.strip() or f"{' '.join(command)} ended with {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def planned(prepared: Mapping[str, Any]) -> list[station.NodeSpec]:
    """The nodes of a simulation that ``plan`` prepared."""
    return [
        station.NodeSpec(n["executable"], n["namespace"], tuple(Path(f) for f in n["files"])) for n in prepared["nodes"]
    ]


def simulation(context: LaunchContext, wishes: Mapping[str, Any], sessions: int) -> list[LaunchDescriptionEntity]:
    """A whole simulation: simulators, nodes, the arm's frames, and the vehicles."""
    prepared = plan(wishes)
    specs = planned(prepared)
    return [*run(context, prepared, specs, sessions), *arm_description(specs, prepared["evses"])]


def run(
    context: LaunchContext,
    prepared: Mapping[str, Any],
    specs: Iterable[station.NodeSpec],
    sessions: int,
    without: Iterable[str] = (),
) -> list[LaunchDescriptionEntity]:
    """The processes of a simulation that ``plan`` prepared; the last of its ``sessions`` ends the launch.

    ``without``: simulators that run elsewhere.
    """
    directory, python = prepared["directory"], [wrapper("python"), "-m"]
    variables = environment(ROBOT_CHARGER_SIM=directory)
    simulators = [*python, "robot_charger.desk.simulators", directory]
    if without := list(without):
        simulators += ["--without", *without]
    visits = [*python, "robot_charger.desk.visits", directory, "--sessions", str(sessions)]

    def unwell(status: int) -> str:
        return f"the sessions did not all complete (status {status}); what they say is above" if status else ""

    first = one_process("simulators", simulators, lambda status: f"a simulator ended (status {status})", **variables)
    others = Nodes(context, specs, prepared["evses"], ROBOT_CHARGER_SIM=directory).start()
    others += one_process("visits", visits, unwell, **variables) if sessions else []
    begun = partial(_once, STARTED, others)
    return [RegisterEventHandler(OnProcessIO(target_action=first[-1], on_stdout=begun)), *first]


def _once(line: str, actions: list[LaunchDescriptionEntity], event: Any) -> list[LaunchDescriptionEntity] | None:
    """``actions`` when a process writes ``line``, and nothing after."""
    if line.encode() not in event.text:
        return None
    now, actions[:] = list(actions), []
    return now


def arm_description(specs: Iterable[station.NodeSpec], evses: Iterable[int]) -> list[LaunchDescriptionEntity]:
    """robot_state_publisher: /robot_description, and the frames of the arm and its bays on /tf.

    Nothing where it is not installed.
    """
    try:
        get_package_prefix("robot_state_publisher")
    except PackageNotFoundError:
        package = "ros-jazzy-robot-state-publisher"
        text = f"robot_state_publisher is not installed: no /robot_description and no /tf (apt install {package})"
        logging.get_logger(LOGGER).warning(text)
        return []
    (robot,) = (spec for spec in specs if spec.executable == "robot")
    named = named_files(robot)
    urdf = Path(named.get("arm_urdf", config_directory() / "arm/arm.urdf"))
    bays = Path(named.get("bays_file", config_directory() / "bays.yaml"))
    try:
        described = with_bays(urdf, bays, evses)
    except (KeyError, ValueError, OSError) as error:
        raise LaunchRefusedError(f"{urdf} and {bays} do not describe the bays of EVSE {evses}: {error}") from None
    return [
        Node(
            package="robot_state_publisher",
            executable="robot_state_publisher",
            parameters=[{"robot_description": ParameterValue(described, value_type=str)}],
            remappings=[("joint_states", "robot/joint_states")],
            output="log",
        )
    ]
