"""The simulated station with the arm of EVSE 1 in Gazebo Harmonic, headless (see docs/robot.md):
ros2 launch robot_charger gazebo.launch.py seed:=1 kind:=high
"""

import os
import sys
import tempfile
from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node

from robot_charger import station
from robot_charger.common import host_only
from robot_charger.sim.arm import gazebo


def start(context):
    seed, kind = (LaunchConfiguration(name).perform(context) for name in ("seed", "kind"))
    directory, simulated = Path(tempfile.mkdtemp(prefix="rc-")), {"use_sim_time": True}
    desk = station.Desk(station.DeskOptions(seed=int(seed)), directory, 52000, 9201)
    world, arm = gazebo.write(directory, int(seed), kind)
    tool = [sys.executable, "-m", "robot_charger.sim.arm.gazebo_tool", "--seed", seed, "--kind", kind]
    others = [ExecuteProcess(cmd=s.command(), name=s.name) for s in desk.simulators() if s.name != "arm"]
    nodes = [
        LifecycleNode(
            package="robot_charger",
            executable=n.executable,
            name=n.executable,
            namespace=n.namespace,
            parameters=[*map(str, n.files), {**n.overrides, **simulated}],
        )
        for n in desk.nodes()
    ]
    gazebo_sim = ["ros2", "launch", "ros_gz_sim", "gz_sim.launch.py", f"gz_args:=-s -r {world}"]
    gz = [
        ExecuteProcess(cmd=gazebo_sim, name="gz"),
        ExecuteProcess(cmd=[*tool, "--ros-args", "-p", "use_sim_time:=true"], name="arm"),
    ]
    for package, executable, arguments, parameters in gazebo.helpers(arm):
        gz.append(Node(package=package, executable=executable, arguments=arguments, parameters=[parameters]))
    return [SetEnvironmentVariable("ROBOT_CHARGER_SIM", str(directory)), *gz, *others, *nodes]  # fmt: skip


def generate_launch_description():
    declared = [DeclareLaunchArgument(name, default_value=default) for name, default in gazebo.ARGUMENTS.items()]
    here = [SetEnvironmentVariable(name, value) for name, value in host_only.variables(os.environ).items()]
    return LaunchDescription([*here, *declared, OpaqueFunction(function=start)])
