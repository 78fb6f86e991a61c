"""The same nodes with every simulator, on a computer with ROS 2 Jazzy: a rehearsal without hardware.

ros2 launch robot_charger simulation.launch.py evses:=1,2 protocol:=iso15118-2 modules:=46
"""

import os
import tempfile
from pathlib import Path

from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode

from launch import LaunchDescription
from robot_charger import station
from robot_charger.common import host_only

ARGUMENTS = {"evses": "1", "protocol": "iso15118-2", "ocpp": "2.0.1", "modules": "46", "seed": "0", "target_soc": "",
             "interface": "", "can_port": "52000", "csms_port": "9201"}  # fmt: skip


def start(context):
    a = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    options = station.DeskOptions(
        evses=tuple(int(n) for n in a["evses"].split(",")), protocol=a["protocol"], ocpp=a["ocpp"],
        interface=a["interface"], modules=int(a["modules"]), seed=int(a["seed"]),
        target_soc=float(a["target_soc"]) if a["target_soc"] else None,
    )  # fmt: skip
    directory = Path(tempfile.mkdtemp(prefix="rc-"))
    desk = station.Desk(options, directory, int(a["can_port"]), int(a["csms_port"]))
    nodes = [LifecycleNode(package="robot_charger", executable=n.executable, name=n.executable, namespace=n.namespace,
                           parameters=[*map(str, n.files), dict(n.overrides)]) for n in desk.nodes()]  # fmt: skip
    simulators = [ExecuteProcess(cmd=s.command(), name=s.name) for s in desk.simulators()]
    return [SetEnvironmentVariable("ROBOT_CHARGER_SIM", str(directory)), *simulators, *nodes]


def generate_launch_description():
    declared = [DeclareLaunchArgument(name, default_value=default) for name, default in ARGUMENTS.items()]
    here = [SetEnvironmentVariable(name, value) for name, value in host_only.variables(os.environ).items()]
    return LaunchDescription([*here, *declared, OpaqueFunction(function=start)])
