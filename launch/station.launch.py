"""The nodes of a charging station, on a station computer with ROS 2 Jazzy:
ros2 launch robot_charger station.launch.py evses:=1,2 config:=/etc/robot_charger
"""

import os
from pathlib import Path

from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode

from launch import LaunchDescription
from robot_charger import station
from robot_charger.common import host_only


def start(context):
    evses = [int(n) for n in LaunchConfiguration("evses").perform(context).split(",")]
    config = LaunchConfiguration("config").perform(context)
    return [
        LifecycleNode(
            package="robot_charger",
            executable=node.executable,
            name=node.executable,
            namespace=node.namespace,
            parameters=[*map(str, node.files), dict(node.overrides)],
            output="screen",
            respawn=True,
        )
        for node in station.nodes(evses, Path(config) if config else None)
    ]


def generate_launch_description():
    return LaunchDescription([
        *(SetEnvironmentVariable(name, value) for name, value in host_only.variables(os.environ).items()),
        DeclareLaunchArgument("evses", default_value="1", description="numbers of the EVSEs, comma-separated"),
        DeclareLaunchArgument("config", default_value="", description="directory of parameter files, or the package's"),
        OpaqueFunction(function=start),
    ])  # fmt: skip
