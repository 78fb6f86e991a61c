"""The desk of the robot for Gazebo (Harmonic, gz_ros2_control), from the same model that MuJoCo steps.

    python -m robot_charger.sim.arm.gazebo DIRECTORY --seed 1 --kind front

writes ``world.sdf`` (vehicle, plug and holster of EVSE 1, every shape taken from the compiled MuJoCo model) and
``arm.urdf`` (config/arm/arm.urdf with the compliant mount of arm.yaml, the force/torque sensor, ros2_control and the
gripper's detachable joint). There is no gravity: the arm is balanced, a balancer carries the plug. The plug's own
friction and detent and the vehicle's springs are not in it: in Harmonic a plug only touches (gazebo_classic has all).
"""

from __future__ import annotations

import argparse
import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement

import mujoco
import numpy as np
import yaml

from robot_charger.robot.description import config_file
from robot_charger.robot.kinematics import GRIPPER
from robot_charger.robot.spatial import Array, from_quaternion
from robot_charger.sim.arm.model import HANDLE, HELD_MASS
from robot_charger.sim.arm.physics import ArmWorld

EVSE = 1
# Topics of the controllers -> of the robot.
REMAPPED = {"/joint_states": "/robot/joint_states", "/arm/joint_trajectory": "/robot/joint_trajectory"}
STEP = 0.001  # [s]
SYSTEMS = {  # file -> class; Harmonic's names
    "gz-sim-physics-system": "gz::sim::systems::Physics",
    "gz-sim-user-commands-system": "gz::sim::systems::UserCommands",
    "gz-sim-scene-broadcaster-system": "gz::sim::systems::SceneBroadcaster",
    "gz-sim-forcetorque-system": "gz::sim::systems::ForceTorque",
}
ATTACH, DETACH, WRENCH = "/robot/grip/attach", "/robot/grip/detach", "/robot/wrench"  # Gazebo's topics
MOUNT_TURN_INERTIA, LINK_MASS = 0.04, 0.05  # [kg m^2, kg]


def _add(parent: Element, tag: str, text: Any = None, **attributes: str) -> Element:
    child = SubElement(parent, tag, attributes)
    if text is not None:
        child.text = text if isinstance(text, str) else " ".join(f"{float(v):.9g}" for v in np.atleast_1d(text))
    return child


def _xyz_rpy(pose: Array) -> Array:
    r = pose[:3, :3]
    turn = math.atan2(r[2, 1], r[2, 2]), math.asin(max(-1.0, min(1.0, -r[2, 0]))), math.atan2(r[1, 0], r[0, 0])
    return np.array([*pose[:3, 3], *turn])


def _shape(parent: Element, kind: int, size: Array) -> None:
    geometry, types = _add(parent, "geometry"), mujoco.mjtGeom
    if kind == types.mjGEOM_BOX:
        _add(_add(geometry, "box"), "size", 2.0 * size)
    elif kind in (types.mjGEOM_CYLINDER, types.mjGEOM_CAPSULE):
        cylinder = _add(geometry, "cylinder")
        _add(cylinder, "radius", size[0])
        _add(cylinder, "length", 2.0 * size[1])
    else:  # an ellipsoid, only to be looked at
        _add(_add(geometry, "sphere"), "radius", size.min())


def _body(world: Element, model: mujoco.MjModel, name: str, bodies: list[int], pose: Array, fixed: bool) -> Element:
    """One model of one link from bodies whose frames coincide."""
    element = _add(world, "model", name=name)
    _add(element, "static", str(fixed).lower())
    _add(element, "pose", _xyz_rpy(pose))
    link = _add(element, "link", name="body")
    if not fixed:
        inertial, body = _add(link, "inertial"), bodies[0]
        _add(inertial, "pose", [*model.body_ipos[body], 0, 0, 0])
        _add(inertial, "mass", model.body_mass[body])
        inertia = _add(inertial, "inertia")
        for tag, value in zip(("ixx", "iyy", "izz"), model.body_inertia[body], strict=True):
            _add(inertia, tag, value)
    for index in range(model.ngeom):
        if model.geom_bodyid[index] not in bodies:
            continue
        w, x, y, z = model.geom_quat[index]
        at = _xyz_rpy(from_quaternion(model.geom_pos[index], (x, y, z, w)))
        touches = bool(model.geom_contype[index] & ~HANDLE or model.geom_conaffinity[index])
        for tag in ("visual", "collision") if touches else ("visual",):
            part = _add(link, tag, name=f"{tag}{index}")
            _add(part, "pose", at)
            _shape(part, model.geom_type[index], model.geom_size[index])
            if tag == "collision":
                surface = _add(part, "surface")
                mask = model.geom_conaffinity[index] or model.geom_contype[index]  # the same pairs as in MuJoCo
                _add(_add(surface, "contact"), "collide_bitmask", str(mask))
                ode = _add(_add(surface, "friction"), "ode")
                for mu in ("mu", "mu2"):
                    _add(ode, mu, model.geom_friction[index, 0])
            else:
                material = _add(part, "material")
                for colour in ("ambient", "diffuse"):
                    _add(material, colour, model.geom_rgba[index])
    return element


def world_sdf(desk: ArmWorld) -> str:
    """The bay as SDF: its vehicle must have arrived."""
    sdf = Element("sdf", version="1.7")
    world = _add(sdf, "world", name="bay")
    physics = _add(world, "physics", name="contact", type="ode")
    _add(physics, "max_step_size", STEP)
    _add(physics, "real_time_factor", 1.0)
    _add(world, "gravity", [0.0, 0.0, 0.0])
    for file, name in SYSTEMS.items():
        _add(world, "plugin", filename=file, name=name)
    light = _add(world, "light", name="sun", type="directional")
    _add(light, "direction", [0.3, 0.5, -1.0])
    model = desk.model

    def body(name: str) -> int:
        return int(model.body(name).id)

    inlet = [body(f"{part}{EVSE}") for part in ("vehicle", "sprung", "inlet")]
    _body(world, model, f"vehicle{EVSE}", inlet, desk.true_inlet(EVSE), fixed=True)
    home = desk.site.bays[EVSE].holster
    plug = _body(world, model, f"plug{EVSE}", [body(f"plug{EVSE}")], home, fixed=False)
    told = _add(plug, "plugin", filename="gz-sim-pose-publisher-system", name="gz::sim::systems::PosePublisher")
    for tag in ("publish_link_pose", "publish_nested_model_pose", "use_pose_vector_msg"):
        _add(told, tag, "false")
    _add(told, "publish_model_pose", "true")
    _add(told, "update_frequency", 50.0)
    _body(world, model, f"holster{EVSE}", [body(f"rest{EVSE}")], home, fixed=True)
    ElementTree.indent(sdf)
    return ElementTree.tostring(sdf, encoding="unicode", xml_declaration=True)


def _inertial(link: Element, mass: float) -> None:
    inertial = _add(link, "inertial")
    _add(inertial, "mass", value=str(mass))
    _add(inertial, "inertia", **{k: "0.0" if k in ("ixy", "ixz", "iyz") else "0.0002" for k in (
        "ixx", "iyy", "izz", "ixy", "ixz", "iyz")})  # fmt: skip


def _joint(root: Element, name: str, kind: str, parent: str, child: str, xyz: Array) -> Element:
    joint = _add(root, "joint", name=name, type=kind)
    _add(joint, "parent", link=parent)
    _add(joint, "child", link=child)
    _add(joint, "origin", xyz=" ".join(f"{v:.9g}" for v in xyz))
    return joint


def _mount(root: Element, tool: dict[str, Any]) -> None:
    """The compliant mount between sensor and gripper: three springs along, three about its centre."""
    lateral, turning = tool["lateral_stiffness_n_m"], tool["rotational_stiffness_nm_rad"]
    springs = [("x", tool["axial_stiffness_n_m"]), ("y", lateral), ("z", lateral)]
    springs += [(f"r{axis}", turning) for axis in "xyz"]
    parent, at = "wrench", np.array([tool["wrench_distance_m"] + tool["compliance_centre_m"], 0.0, 0.0])
    for name, stiffness in springs:
        turns = name.startswith("r")
        link = f"mount_{name}_link"
        _inertial(_add(root, "link", name=link), LINK_MASS)
        joint = _joint(root, f"mount_{name}", "revolute" if turns else "prismatic", parent, link, at)
        axis = np.eye(3)["xyz".index(name[-1])]
        _add(joint, "axis", xyz=" ".join(f"{v:g}" for v in axis))
        _add(joint, "limit", lower="-0.3", upper="0.3", velocity="10", effort="1000")
        damping = 1.4 * math.sqrt(stiffness * (MOUNT_TURN_INERTIA if turns else HELD_MASS))
        _add(joint, "dynamics", damping=f"{damping:.6g}")
        spring = _add(root, "gazebo", reference=f"mount_{name}")
        _add(spring, "springReference", 0.0)
        _add(spring, "springStiffness", stiffness)
        parent, at = link, np.zeros(3)
    _joint(root, "gripper", "fixed", parent, GRIPPER, np.array([-tool["compliance_centre_m"], 0.0, 0.0]))


def arm_urdf(park: Array, controllers: Path) -> str:
    """The arm as robot_state_publisher and Gazebo want it, parked at ``park`` (6,) [rad]."""
    root = ElementTree.fromstring(config_file("arm/arm.urdf").read_text())
    for element in [*root.findall("mujoco"), *root.findall("joint[@name='gripper']")]:
        root.remove(element)
    links = {str(link.get("name")): link for link in root.iter("link")}
    for name in ("base_link", "tool0", "wrench"):  # a link without a mass is dropped, and all beyond it
        _inertial(links[name], 20.0 if name == "base_link" else LINK_MASS)
    _add(root, "link", name="world")
    _joint(root, "stand", "fixed", "world", "base_link", np.zeros(3))
    _mount(root, yaml.safe_load(config_file("arm/arm.yaml").read_text())["tool"])
    for name in ("wrench_sensor", "gripper"):
        _add(_add(root, "gazebo", reference=name), "preserveFixedJoint", "true")
    sensor = _add(_add(root, "gazebo", reference="wrench_sensor"), "sensor", name="wrench", type="force_torque")
    _add(sensor, "always_on", "true")
    _add(sensor, "update_rate", 100.0)
    _add(sensor, "topic", WRENCH)
    _add(sensor, "gz_frame_id", "wrench")  # in place of arm::wrench_sensor::wrench
    measure = _add(sensor, "force_torque")
    _add(measure, "frame", "child")
    _add(measure, "measure_direction", "child_to_parent")

    control = _add(root, "ros2_control", name="arm", type="system")
    _add(_add(control, "hardware"), "plugin", "gz_ros2_control/GazeboSimSystem")
    for name, angle in zip(ArmWorld.names, park, strict=True):
        joint = _add(control, "joint", name=name)
        _add(joint, "command_interface", name="position")
        _add(_add(joint, "state_interface", name="position"), "param", float(angle), name="initial_value")
        _add(joint, "state_interface", name="velocity")
    extension = _add(root, "gazebo")
    plugin = _add(
        extension, "plugin", filename="gz_ros2_control-system", name="gz_ros2_control::GazeboSimROS2ControlPlugin"
    )
    _add(plugin, "parameters", str(controllers))
    ros = _add(plugin, "ros")
    for theirs, ours in REMAPPED.items():
        _add(ros, "remapping", f"{theirs}:={ours}")
    grip = _add(
        extension, "plugin", filename="gz-sim-detachable-joint-system", name="gz::sim::systems::DetachableJoint"
    )
    for tag, text in (
        ("parent_link", GRIPPER),
        ("child_model", f"plug{EVSE}"),
        ("child_link", "body"),
        ("attach_topic", ATTACH),
        ("detach_topic", DETACH),
    ):
        _add(grip, tag, text)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True)


def parked(seed: int, kind: str, connector: str = "ccs2") -> ArmWorld:
    """The desk with its vehicle: world and tool simulator draw the same one by seed. Raises KeyError."""
    desk = ArmWorld([EVSE], seed, connector=connector, kind=kind)
    desk.arrive(EVSE)
    return desk


def write(directory: Path, seed: int = 0, kind: str = "front", connector: str = "ccs2") -> tuple[Path, str]:
    """Write both files; path of the world and text of the arm. Raises KeyError for an unknown kind or connector."""
    desk = parked(seed, kind, connector)
    world, arm = directory / "world.sdf", directory / "arm.urdf"
    world.write_text(world_sdf(desk))
    arm.write_text(arm_urdf(desk.site.park, config_file("gazebo/controllers.yaml")))
    return world, arm.read_text()


def main() -> None:
    parser = argparse.ArgumentParser(prog="robot_charger.sim.arm.gazebo", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("directory", type=Path, help="where world.sdf and arm.urdf are written")
    parser.add_argument("--seed", type=int, default=0, help="of the parking pose (default 0)")
    parser.add_argument("--kind", default="front", help="of vehicle, see config/arm/vehicles.yaml (default front)")
    parser.add_argument("--connector", default="ccs2", help="plug and inlet (default ccs2)")
    a = parser.parse_args()
    try:
        print(write(a.directory, a.seed, a.kind, a.connector)[0])
    except (KeyError, OSError) as error:
        parser.error(f"{error}")


if __name__ == "__main__":
    main()
