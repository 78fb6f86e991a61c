"""What is written for Gazebo, as far as it can be checked without Gazebo: shapes, arm, topics, tool."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import mujoco
import numpy as np
import pytest
import yaml

from robot_charger.common.topics import STATION_TOPICS
from robot_charger.robot.description import config_file, load_site
from robot_charger.robot.kinematics import Kinematics
from robot_charger.robot.spatial import from_xyz_rpy, inverse, transform
from robot_charger.sim.arm import gazebo
from robot_charger.sim.arm.gazebo_tool import Gripper
from robot_charger.sim.arm.model import HANDLE
from robot_charger.sim.arm.physics import ArmWorld

TOOLS = Path(__file__).parents[2] / ".tools/usr"
# The command line of Gazebo's SDF library, without its Ruby: check a file, or print it as SDF.
PARSER = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
sys.exit(library.cmdCheck(sys.argv[2].encode()) or library.cmdPrint(sys.argv[2].encode(), 0, 0, 6))
"""


def parsed(file: Path) -> ElementTree.Element:
    """``file`` as Gazebo's own parser understands it."""
    (library, *_) = sorted(TOOLS.glob("lib/*/libsdformat*.so.*")) or [None]
    if library is None:
        pytest.skip("Gazebo's SDF library is not in .tools (make tools)")
    schema = max(TOOLS.glob("share/sdformat*/1.*"), key=lambda p: float(p.name))
    environment = {**os.environ, "LD_LIBRARY_PATH": str(library.parent), "SDF_PATH": str(schema)}
    command = [sys.executable, "-c", PARSER, str(library), str(file)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and not done.stderr.strip(), done.stderr
    return ElementTree.fromstring(done.stdout.removeprefix("Valid.").strip())


@pytest.fixture(scope="module")
def desk() -> ArmWorld:
    return gazebo.parked(seed=3, kind="tilted")


@pytest.fixture
def arm() -> ElementTree.Element:
    return ElementTree.fromstring(gazebo.arm_urdf(load_site().park, Path("/c.yaml")))


def numbers(element: ElementTree.Element, path: str) -> list[float]:
    text = element.findtext(path)
    assert text, path
    return [float(v) for v in text.split()]


def test_the_world_has_every_shape_that_touches_in_mujoco(desk: ArmWorld) -> None:
    world = ElementTree.fromstring(gazebo.world_sdf(desk))
    assert float(world.get("version", "9")) <= 1.7
    model = desk.model
    for name, bodies in (("vehicle1", ("sprung1", "inlet1")), ("plug1", ("plug1",)), ("holster1", ("rest1",))):
        ids = {model.body(b).id for b in bodies}
        solid = model.geom_contype & ~HANDLE  # the plug's handle meets people and walls, and there are none
        touching = {i for i in range(model.ngeom) if model.geom_bodyid[i] in ids and solid[i]}
        collisions = world.findall(f"world/model[@name='{name}']/link/collision")
        assert len(collisions) == len(touching)
        for collision in collisions:
            index = int((collision.get("name") or "").removeprefix("collision"))
            assert index in touching
            assert numbers(collision, "geometry/box/size") == pytest.approx(2.0 * model.geom_size[index], rel=1e-6)
            at = numbers(collision, "pose")
            turn = np.zeros(9)
            mujoco.mju_quat2Mat(turn, model.geom_quat[index])
            expected = transform(model.geom_pos[index], turn.reshape(3, 3))
            assert np.allclose(from_xyz_rpy(at[:3], at[3:]), expected, atol=1e-6)


def test_the_same_shapes_of_plug_and_vehicle_meet_as_in_mujoco(desk: ArmWorld) -> None:
    world, model = ElementTree.fromstring(gazebo.world_sdf(desk)), desk.model
    masks = {
        name: {
            int((c.get("name") or "").removeprefix("collision")): int(numbers(c, "surface/contact/collide_bitmask")[0])
            for c in world.findall(f"world/model[@name='{name}']/link/collision")
        }
        for name in ("plug1", "vehicle1")
    }
    kinds, minds = model.geom_contype, model.geom_conaffinity
    pairs = [(a, b) for a in masks["plug1"] for b in masks["vehicle1"]]
    for a, b in pairs:
        assert bool(masks["plug1"][a] & masks["vehicle1"][b]) == bool(kinds[a] & minds[b] or kinds[b] & minds[a])


def test_the_vehicle_stands_where_it_parked_and_the_plug_hangs_in_its_holster(desk: ArmWorld) -> None:
    world = ElementTree.fromstring(gazebo.world_sdf(desk))
    for name, pose in (("vehicle1", desk.true_inlet(1)), ("plug1", desk.site.bays[1].holster)):
        at = numbers(world, f"world/model[@name='{name}']/pose")
        assert np.allclose(from_xyz_rpy(at[:3], at[3:]), pose, atol=1e-6)
    assert world.findtext("world/model[@name='vehicle1']/static") == "true"
    assert numbers(world, "world/gravity") == [0.0, 0.0, 0.0]
    assert numbers(world, "world/model[@name='plug1']/link/inertial/mass") == [2.2]


def test_the_arm_is_the_robot_s_own_with_its_mount(arm: ElementTree.Element) -> None:
    """Read back by an engine: six axes and six springs, and the gripper where the robot's kinematics have it."""
    for element in [*arm.findall("gazebo"), *arm.findall("ros2_control")]:
        arm.remove(element)
    model = mujoco.MjSpec.from_string(ElementTree.tostring(arm, encoding="unicode")).compile()
    data, kinematics = mujoco.MjData(model), Kinematics(config_file("arm/arm.urdf"))
    q = load_site().park
    for name, angle in zip(kinematics.names, q, strict=True):
        data.joint(name).qpos[0] = angle
    mujoco.mj_kinematics(model, data)
    assert model.njnt == 12
    last = model.joint("mount_rz").bodyid[0]  # gripper_link is fixed to it
    here = transform(data.xpos[last], data.xmat[last].reshape(3, 3))
    centre = yaml.safe_load(config_file("arm/arm.yaml").read_text())["tool"]["compliance_centre_m"]
    assert np.allclose(here @ transform((-centre, 0, 0)), kinematics.forward(q), atol=1e-6)


def test_springs_masses_and_interfaces_of_the_arm(arm: ElementTree.Element) -> None:
    tool = yaml.safe_load(config_file("arm/arm.yaml").read_text())["tool"]
    stiffness = {
        str(e.get("reference")): numbers(e, "springStiffness")[0]
        for e in arm.findall("gazebo")
        if e.find("springStiffness") is not None
    }
    lateral, turning = tool["lateral_stiffness_n_m"], tool["rotational_stiffness_nm_rad"]
    axial = tool["axial_stiffness_n_m"]
    names = [f"mount_{axis}" for axis in ("x", "y", "z", "rx", "ry", "rz")]
    assert stiffness == dict(zip(names, [axial, lateral, lateral, *[turning] * 3], strict=True))
    massless = {link.get("name") for link in arm.findall("link") if link.find("inertial") is None}
    assert massless == {"world"}, "Gazebo drops a link without a mass and all beyond it"
    kept = {e.get("reference") for e in arm.findall("gazebo") if e.findtext("preserveFixedJoint") == "true"}
    assert kept == {"wrench_sensor", "gripper"} <= {j.get("name") for j in arm.findall("joint")}
    for name, angle in zip(ArmWorld.names, load_site().park, strict=True):
        start = arm.findtext(f"ros2_control/joint[@name='{name}']/state_interface[@name='position']/param")
        assert float(start or "nan") == angle


def test_topics_are_those_of_the_robot(arm: ElementTree.Element) -> None:
    bridge = {entry["ros_topic_name"]: entry for entry in yaml.safe_load(config_file("gazebo/bridge.yaml").read_text())}
    assert bridge["/robot/wrench"]["gz_topic_name"] == gazebo.WRENCH
    assert STATION_TOPICS["/robot/wrench"][0].__name__ == bridge["/robot/wrench"]["ros_type_name"].split("/")[-1]
    assert set(bridge) == {"/clock", "/robot/wrench", "/robot/plug_pose", gazebo.ATTACH, gazebo.DETACH}
    assert {bridge[name]["direction"] for name in (gazebo.ATTACH, gazebo.DETACH)} == {"ROS_TO_GZ"}
    assert set(gazebo.REMAPPED.values()) <= set(STATION_TOPICS)
    told = [e.text for e in arm.iterfind("gazebo/plugin/ros/remapping")]
    assert told == [f"{theirs}:={ours}" for theirs, ours in gazebo.REMAPPED.items()]
    controllers = yaml.safe_load(config_file("gazebo/controllers.yaml").read_text())
    assert controllers["arm"]["ros__parameters"]["joints"] == list(ArmWorld.names)
    assert arm.findtext("gazebo/sensor/topic") == gazebo.WRENCH
    grip = arm.find("gazebo/plugin[@name='gz::sim::systems::DetachableJoint']")
    assert grip is not None and grip.findtext("attach_topic") == gazebo.ATTACH


def test_the_gripper_joins_only_a_plug_in_reach(desk: ArmWorld) -> None:
    gripper = Gripper(desk)
    home = desk.site.bays[1].holster
    assert gripper.command(False) is False, "Gazebo begins with the plug attached"
    assert gripper.state() == {
        "gripper_closed": False, "plug_present": False, "end_stop": False, "holster_occupied": True,
    }  # fmt: skip
    assert gripper.command(True) is None and not gripper.state()["plug_present"]
    gripper.command(False)
    gripper.gripper = home @ transform((0.003, 0.0, 0.002))
    assert gripper.command(True) is True
    assert gripper.state()["plug_present"] and not gripper.state()["holster_occupied"]
    seated = desk.connector.depth - desk.connector.nose
    gripper.plug = desk.true_inlet(1) @ transform((seated - 0.005, 0.0, 0.0))
    assert not gripper.state()["end_stop"] and gripper.depth == pytest.approx(desk.connector.depth - 0.005)
    gripper.plug = gripper.gripper = desk.true_inlet(1) @ transform((seated, 0.0, 0.0))
    assert gripper.state()["end_stop"]
    assert gripper.command(False) is False
    assert np.allclose(inverse(gripper.gripper) @ gripper.plug, np.eye(4))


def test_gazebo_s_own_parser_takes_the_world(desk: ArmWorld, tmp_path: Path) -> None:
    file = tmp_path / "world.sdf"
    file.write_text(gazebo.world_sdf(desk))
    models = {m.get("name"): m for m in parsed(file).iterfind("world/model")}
    assert set(models) == {"vehicle1", "plug1", "holster1"}
    assert len(models["vehicle1"].findall("link/collision")) == 17


def test_gazebo_s_own_parser_keeps_sensor_mount_and_gripper(arm: ElementTree.Element, tmp_path: Path) -> None:
    """What it makes of the URDF: it drops links without a mass, and all beyond them, and merges fixed ones."""
    file = tmp_path / "arm.urdf"
    file.write_text(ElementTree.tostring(arm, encoding="unicode"))
    model = parsed(file).find("model")
    assert model is not None
    joints = {str(j.get("name")): j for j in model.findall("joint")}
    mount = [f"mount_{axis}" for axis in ("x", "y", "z", "rx", "ry", "rz")]
    assert list(joints) == ["stand", *ArmWorld.names, "wrench_sensor", *mount, "gripper"]
    assert numbers(joints["mount_x"], "axis/dynamics/spring_stiffness") == [30000.0]
    assert joints["wrench_sensor"].findtext("sensor/force_torque/measure_direction") == "child_to_parent"
    assert joints["gripper"].findtext("child") == "gripper_link"
    parents = {j.findtext("child"): j.findtext("parent") for j in joints.values()}
    link, chain = "gripper_link", 0
    while link != "world":
        link, chain = str(parents[link]), chain + 1
    assert chain == len(joints)
