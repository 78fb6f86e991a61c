"""A whole simulated station with the arm of EVSE 1 in Gazebo Harmonic, headless (docs/robot.md):

ros2 launch robot_charger gazebo.launch.py seed:=1 kind:=high
"""

import subprocess
from dataclasses import replace

from launch.actions import ExecuteProcess
from launch_ros.actions import Node

from robot_charger import launching
from robot_charger.common.configuration import config_directory

ARGUMENTS = {
    "seed": ("0", "of the parking pose and the vehicle"),
    "kind": ("front", "of vehicle, see config/arm/vehicles.yaml"),
    "sessions": ("1", "then the launch ends; 0: no vehicle comes, until Ctrl-C"),
}


def start(context):
    a = launching.given(context, ARGUMENTS)
    seed, sessions = launching.number("seed", a["seed"]), launching.number("sessions", a["sessions"])
    prepared = launching.plan({"seed": seed})
    chosen = ["--seed", str(seed), "--kind", a["kind"]]
    python, directory = [launching.wrapper("python"), "-m"], prepared["directory"]
    made = subprocess.run([*python, "robot_charger.sim.arm.gazebo", directory, *chosen], capture_output=True, text=True)
    if made.returncode:
        raise launching.LaunchRefusedError(made.stderr.strip())
    tool = [*python, "robot_charger.sim.arm.gazebo_tool", *chosen, "--ros-args", "-p", "use_sim_time:=true"]
    arm, bridge = f"{directory}/arm.urdf", str(config_directory() / "gazebo/bridge.yaml")
    with open(arm) as text:
        described = {"robot_description": text.read(), "use_sim_time": True}
    gz = ["ros2", "launch", "ros_gz_sim", "gz_sim.launch.py", f"gz_args:=-s -r {directory}/world.sdf"]
    gazebo = [
        ExecuteProcess(cmd=gz, name="gz"),
        ExecuteProcess(cmd=tool, name="arm", additional_env=launching.environment(ROBOT_CHARGER_SIM=directory)),
        Node(package="ros_gz_bridge", executable="parameter_bridge", parameters=[{"config_file": bridge}]),
        Node(package="robot_state_publisher", executable="robot_state_publisher", parameters=[described]),
        Node(package="ros_gz_sim", executable="create", arguments=["-topic", "robot_description", "-name", "arm"]),
        Node(package="controller_manager", executable="spawner", arguments=["joint_state_broadcaster", "arm"]),
    ]  # fmt: skip
    nodes = [replace(spec, overrides={"use_sim_time": True}) for spec in launching.planned(prepared)]
    return [*gazebo, *launching.run(context, prepared, nodes, sessions, ["arm"])]


def generate_launch_description():
    return launching.description(ARGUMENTS, start)
