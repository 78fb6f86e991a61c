"""The MuJoCo model of arm, plugs, holsters and vehicles, made from config/arm and config/bays.yaml."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import mujoco
import numpy as np
import yaml

from robot_charger.robot.description import Connector, Site, config_file, load_site
from robot_charger.robot.kinematics import AXES, GRIPPER
from robot_charger.robot.perception import Camera, pattern
from robot_charger.robot.spatial import Array, from_xyz_rpy, quaternion

TIMESTEP = 0.001  # [s]
# Reflected inertia of motor and gear and the inertia each joint's damping is laid out for [kg m^2].
ARMATURE = (1.5, 1.5, 0.8, 0.2, 0.15, 0.1)
DAMPED_INERTIA = (9.0, 9.0, 3.0, 0.6, 0.4, 0.15)
HELD_MASS = 3.5  # gripper and plug on the compliant mount [kg]
PLUG_CENTRE = 0.08  # of a plug's mass, ahead of its grip [m]
FACE_HALF = 0.11  # inlet's face around the opening [m]
# Contact bits: a plug's nose meets all of a vehicle, its shoulder and the arm's links what lies outside of the inlet's
# opening; the plug's handle meets people and walls, and a plug that falls the floor. Nothing else meets.
NOSE, VEHICLE, ARM, SHOULDER, HANDLE = 1, 2, 4, 8, 16
OUTSIDE = NOSE | ARM | SHOULDER
EVERYTHING = OUTSIDE | HANDLE
# A hand: the spring of ISO/TS 15066 for the back of the hand and fingers, and what such a hand weighs.
HAND_N_M, HAND_KG, HAND_RADIUS = 75000.0, 0.6, 0.03
FLAP_HALF, FLAP_GAP = 0.003, 0.005  # a flap's half thickness and its way before the mouth [m]
FLAP_OPEN = 0.020  # a half-open flap covers so much of the opening [m]
RECESS = 0.04  # depth of an inlet that lies in a recess [m]
HEAVY = 1500.0  # a vehicle until its own mass is set when it parks [kg]
# Friction of seal and pins along the inlet's axis, set at every step. Regularised friction creeps at every force; the
# noslip iterations of the options make it stick, so that a plug that needs more than the robot may push stays out.
STICTION = 'frictionloss="0.01" solreffriction="0.002 1" solimpfriction="0.99 0.999 0.001"'
PREFIX = "arm/"  # of all names that come from the URDF


@dataclass(frozen=True)
class Shape:
    """Plug and inlet of one connector as the physics needs them. Lengths m, forces N."""

    half_width: float
    half_height: float
    clearance: float
    chamfer: float
    friction: list[tuple[float, float]]  # depth, friction
    detent: list[tuple[float, float]]  # depth, force against insertion


@dataclass(frozen=True)
class Vehicle:
    """One kind of vehicle: an entry of config/arm/vehicles.yaml."""

    inlet: Array  # in the frame of the bay's inlet
    mass: float  # [kg]
    stiffness: Array  # (3,) along the inlet's axes [N/m]
    damping: float  # share of the critical one
    occupant: float  # who gets out while the robot works [kg]
    recessed: bool = False  # its inlet lies RECESS deep in the body


def load_vehicles() -> dict[str, Vehicle]:
    return {
        kind: Vehicle(
            from_xyz_rpy(v["xyz"], v["rpy"]),
            float(v["mass_kg"]),
            np.array(v["stiffness_n_m"], dtype=float),
            float(v["damping"]),
            float(v["occupant_kg"]),
            v.get("recessed", False) is True,
        )
        for kind, v in yaml.safe_load(config_file("arm/vehicles.yaml").read_text()).items()
    }


@dataclass
class Built:
    """The compiled model and what the physics must know of it."""

    model: mujoco.MjModel
    site: Site
    connector: Connector
    shape: Shape
    controller: dict[str, Any]
    speed: Array  # (6,) each joint's limit, from the URDF [rad/s]


def _vector(values: Any) -> str:
    return " ".join(f"{float(v):.9g}" for v in values)


def _placed(pose: Array) -> str:
    x, y, z, w = quaternion(pose[:3, :3])
    return f'pos="{_vector(pose[:3, 3])}" quat="{_vector((w, x, y, z))}"'


def _inlet(number: int, connector: Connector, shape: Shape) -> str:
    """Body of one inlet: origin at the middle of its mouth, x into the vehicle."""
    a, b, ch = shape.half_width + shape.clearance, shape.half_height + shape.clearance, shape.chamfer
    end = connector.depth + 0.012
    yo, zo = a + ch, b + ch  # opening at the face
    hit = f'contype="{VEHICLE}" friction="0.15 0.002 0.0001" solref="0.004 1"'
    face = f'{hit} conaffinity="{OUTSIDE}" rgba="0.12 0.13 0.15 1"'
    wall = f'{hit} conaffinity="{NOSE}" rgba="0.25 0.26 0.28 1"'
    lead = f'{hit} conaffinity="{NOSE}" rgba="0.45 0.47 0.5 1"'
    parts = []
    for s in (1, -1):
        y, z = 0.5 * (FACE_HALF + yo), 0.5 * (FACE_HALF + zo)
        parts += [
            f'<geom type="box" pos="0.01 {s * y} 0" size="0.01 {FACE_HALF - y} {FACE_HALF}" {face}/>',
            f'<geom type="box" pos="0.01 0 {s * z}" size="0.01 {yo} {FACE_HALF - z}" {face}/>',
        ]
        x, half = 0.5 * (ch + end), 0.5 * (end - ch)
        parts += [
            f'<geom type="box" pos="{x} {s * (a + 0.005)} 0" size="{half} 0.005 {b + 0.01}" {wall}/>',
            f'<geom type="box" pos="{x} 0 {s * (b + 0.005)}" size="{half} {a} 0.005" {wall}/>',
        ]
        slope, thick = ch / np.sqrt(2.0), 0.002
        x, out = 0.5 * ch + thick / np.sqrt(2), 0.5 * ch + thick / np.sqrt(2)
        parts += [
            f'<geom type="box" pos="{x} {s * (a + out)} 0" euler="0 0 {-s * np.pi / 4}" '
            f'size="{slope} {thick} {zo}" {lead}/>',
            f'<geom type="box" pos="{x} 0 {s * (b + out)}" euler="0 {s * np.pi / 4} 0" '
            f'size="{slope} {yo} {thick}" {lead}/>',
        ]
    pins = "".join(
        f'<geom type="cylinder" pos="0.034 {y} {z}" euler="0 {np.pi / 2} 0" size="{r} 0.014" contype="0" '
        f'conaffinity="0" rgba="0.8 0.7 0.4 1"/>'
        for y, z, r in ((0.011, -0.02, 0.005), (-0.011, -0.02, 0.005), (0, 0.012, 0.003), (0.01, 0.018, 0.003))
    )
    return f"""
      <body name="inlet{number}" gravcomp="1">
        <inertial pos="0.02 0 0" mass="0.5" diaginertia="0.001 0.001 0.001"/>
        <site name="inlet{number}" size="0.002" rgba="0 0 0 0"/>
        <site name="anchor{number}" pos="1 0 0" size="0.002" rgba="0 0 0 0"/>
        <geom type="box" pos="{end + 0.004} 0 0" size="0.004 {a} {b}" {wall}/>
        {"".join(parts)}{pins}
      </body>"""


def _flap(number: int, shape: Shape) -> str:
    """A flap on a hinge beside the opening that a door stop keeps from closing further; see ArmWorld.set_fault."""
    edge = shape.half_width + shape.clearance + shape.chamfer - FLAP_OPEN
    half = 0.5 * (FACE_HALF - edge)
    return f"""
      <body name="flap{number}" pos="{-FLAP_GAP - FLAP_HALF} {FACE_HALF} 0" gravcomp="1">
        <joint name="flap{number}" type="hinge" axis="0 0 1" range="-1.7 0" damping="0.3" frictionloss="0.4"
               solreflimit="0.004 1"/>
        <inertial pos="0 {-half} 0" mass="0.15" diaginertia="0.0005 0.0005 0.0005"/>
        <geom name="halfflap{number}" type="box" pos="0 {-half} 0" size="{FLAP_HALF} {half} 0.06" contype="0"
              conaffinity="0" rgba="0.18 0.46 0.40 0" friction="0.3 0.002 0.0001" solref="0.004 1"/>
      </body>"""


def _hand() -> str:
    """A hand on the spring that it is for who meets it, and a wall; far away until ArmWorld.put brings them."""
    springs = "".join(
        f'<joint name="hand_{name}" type="slide" axis="{axis}" stiffness="{HAND_N_M}" '
        f'damping="{1.4 * np.sqrt(HAND_N_M * HAND_KG)}"/>'
        for name, axis in (("x", "1 0 0"), ("y", "0 1 0"), ("z", "0 0 1"))
    )
    met = f'contype="{VEHICLE}" conaffinity="{EVERYTHING}" friction="0.4 0.002 0.0001" solref="0.004 1"'
    return f"""
    <body name="hand" mocap="true" pos="0 0 -40">
      <body name="palm" gravcomp="1">
        {springs}<inertial pos="0 0 0" mass="{HAND_KG}" diaginertia="0.001 0.001 0.001"/>
        <site name="palm" size="0.002" rgba="0 0 0 0"/>
        <geom name="palm" type="capsule" fromto="0 -0.04 0 0 0.04 0" size="{HAND_RADIUS}" {met} rgba="0.9 0.7 0.6 1"/>
      </body>
    </body>
    <body name="wall" mocap="true" pos="0 0 -60">
      <geom name="wall" type="box" size="0.02 0.5 0.5" {met} rgba="0.7 0.7 0.72 1"/>
    </body>"""


def _mark(name: str, number: int, centre: Array, size: float, x: float, alpha: float) -> str:
    """One ArUco mark, its face in the plane ``x``: a white plate, and a box for every run of black cells."""
    cell, look = size / 6.0, 'contype="0" conaffinity="0"'
    half = 4.0 * cell
    boxes = [
        f'<geom name="{name}_0" type="box" pos="{x + 0.0014} {centre[0]} {centre[1]}" size="0.001 {half} {half}" '
        f'{look} rgba="1 1 1 {alpha}"/>'
    ]
    for row, cells in enumerate(pattern(number)):
        column = 0
        while column < 6:
            run = 0
            while column + run < 6 and cells[column + run]:
                run += 1
            if run:
                y = centre[0] + (3.0 - column - 0.5 * run) * cell
                z = centre[1] + (2.5 - row) * cell
                boxes.append(
                    f'<geom name="{name}_{len(boxes)}" type="box" pos="{x + 0.001} {y} {z}" '
                    f'size="0.001 {0.5 * run * cell} {0.5 * cell}" {look} rgba="0 0 0 {alpha}"/>'
                )
            column += max(run, 1)
    return "".join(boxes)


def _seen(number: int, connector: str, camera: Camera) -> str:
    """What the camera knows an inlet by: its marks, those of another kind of inlet, and a flap; see ArmWorld.show."""
    marks = camera.marks
    other = next(name for name in marks.first if name != connector)
    parts = [
        _mark(f"{kind}{number}_{i}", marks.first[name] + i, at, marks.size, marks.offset, alpha)
        for kind, name, alpha in (("marks", connector, 1.0), ("wrong", other, 0.0))
        for i, at in enumerate(marks.at)
    ]
    parts.append(
        f'<geom name="flap{number}_x" type="box" pos="-0.012 0 0" size="0.004 {FACE_HALF} {FACE_HALF}" contype="0" '
        f'conaffinity="0" rgba="0.18 0.46 0.40 0"/>'
    )
    parts.append(_mark(f"flap{number}", marks.flap, np.zeros(2), marks.size, -0.018, 0.0))
    return "".join(parts)


def _vehicle(number: int, connector: Connector, shape: Shape, marks: str) -> str:
    """A vehicle's corner: panel with the inlet; x into the vehicle, origin at the inlet's mouth.

    It stands on springs, one along each axis: ArmWorld.arrive sets them and the mass for the kind of vehicle.
    """
    panel = f'contype="{VEHICLE}" conaffinity="{OUTSIDE}" rgba="0.18 0.46 0.40 1"'
    look = 'contype="0" conaffinity="0"'
    f = FACE_HALF
    rim = "".join(
        f'<geom name="rim{number}_{i}" type="box" pos="{0.005 - 0.5 * RECESS} {y} {z}" '
        f'size="{0.5 * RECESS} {a} {b}" contype="0" conaffinity="0" rgba="0.18 0.46 0.40 0"/>'
        for i, (y, z, a, b) in enumerate(
            ((0, f + 0.01, f, 0.01), (0, -f - 0.01, f, 0.01), (f + 0.01, 0, 0.01, f), (-f - 0.01, 0, 0.01, f))
        )
    )
    springs = "".join(
        f'<joint name="sway{number}_{name}" type="slide" axis="{axis}" stiffness="1" damping="1"/>'
        for name, axis in (("x", "1 0 0"), ("y", "0 1 0"), ("z", "0 0 1"))
    )
    return f"""
    <body name="vehicle{number}" mocap="true" pos="0 0 -20">
      <body name="sprung{number}" gravcomp="1">
      {springs}<inertial pos="0 0 0" mass="{HEAVY}" diaginertia="1 1 1"/>
      <geom type="box" pos="0.03 {f + 0.2} -0.05" size="0.025 0.2 0.35" {panel}/>
      <geom type="box" pos="0.03 {-f - 0.2} -0.05" size="0.025 0.2 0.35" {panel}/>
      <geom type="box" pos="0.03 0 {f + 0.095}" size="0.025 {f} 0.095" {panel}/>
      <geom type="box" pos="0.03 0 {-f - 0.145}" size="0.025 {f} 0.145" {panel}/>
      {rim}
      <geom type="box" pos="0.80 0 -0.03" size="0.748 0.308 0.328" rgba="0.16 0.42 0.36 1" {look}/>
      <geom type="box" pos="1.15 0 0.44" size="0.42 0.27 0.14" rgba="0.20 0.24 0.28 1" {look}/>
      <geom type="ellipsoid" pos="0.02 0.25 0.16" size="0.03 0.07 0.04" rgba="0.95 0.95 0.85 1" {look}/>
      <geom type="ellipsoid" pos="0.02 -0.25 0.16" size="0.03 0.07 0.04" rgba="0.95 0.95 0.85 1" {look}/>
      <geom type="cylinder" fromto="0.48 0.21 -0.40 0.48 0.33 -0.40" size="0.25" rgba="0.1 0.1 0.1 1" {look}/>
      <geom type="cylinder" fromto="0.48 -0.21 -0.40 0.48 -0.33 -0.40" size="0.25" rgba="0.1 0.1 0.1 1" {look}/>
      {_inlet(number, connector, shape)}{marks}{_flap(number, shape)}
      </body>
    </body>
    <body name="obstruction{number}" mocap="true" pos="0 0 -30">
      <inertial pos="0.02 0 0" mass="0.1" diaginertia="0.001 0.001 0.001"/>
      <site name="obstruction{number}" size="0.002" rgba="0 0 0 0"/>
      <geom type="box" pos="{0.4 * connector.depth + 0.004} 0 0" size="0.004 0.018 0.02" rgba="0.5 0.3 0.1 1"
            contype="{VEHICLE}" conaffinity="{NOSE}" solref="0.004 1"/>
    </body>"""


def _plug(number: int, holster: Array, connector: Connector, shape: Shape) -> str:
    """A free plug, hanging in its holster: origin where the gripper holds it, x ahead."""
    n, d = connector.nose, connector.depth
    shoulder = n - d - 0.012
    hit = 'conaffinity="0" friction="0.15 0.002 0.0001" solref="0.004 1"'
    look = 'contype="0" conaffinity="0"'
    return f"""
    <body name="plug{number}" gravcomp="1" {_placed(holster)}>
      <freejoint name="plug{number}"/>
      <inertial pos="{PLUG_CENTRE} 0 0" mass="{connector.mass}" diaginertia="0.004 0.012 0.012"/>
      <geom type="box" pos="{n - d / 2} 0 0" size="{d / 2} {shape.half_width} {shape.half_height}" {hit}
            contype="{NOSE}" rgba="0.08 0.08 0.09 1"/>
      <geom type="box" pos="{shoulder} 0 0" size="0.012 {shape.half_width + 0.016} {shape.half_height + 0.016}" {hit}
            contype="{SHOULDER}" rgba="0.15 0.16 0.18 1"/>
      <geom type="capsule" fromto="0 0 0 {shoulder - 0.04} 0 0" size="0.032" {hit} contype="{HANDLE}"
            rgba="0.10 0.45 0.75 1"/>
      <geom type="capsule" fromto="0 0 0 -0.01 0 -0.12" size="0.02" {look} rgba="0.05 0.05 0.05 1"/>
      <site name="nose{number}" pos="{n} 0 0" size="0.002" rgba="0 0 0 0"/>
    </body>"""


def _holster(number: int, holster: Array, connector: Connector) -> str:
    look = 'contype="0" conaffinity="0" rgba="0.35 0.36 0.38 1"'
    n = connector.nose
    return f"""
    <body name="rest{number}" {_placed(holster)}>
      <geom type="box" pos="{n + 0.005} 0 0" size="0.004 0.06 0.06" {look}/>
      <geom type="box" pos="{n - 0.015} 0.045 0" size="0.02 0.006 0.05" {look}/>
      <geom type="box" pos="{n - 0.015} -0.045 0" size="0.02 0.006 0.05" {look}/>
      <geom type="cylinder" fromto="{n + 0.03} 0 -0.05 {n + 0.03} 0 {-holster[2, 3]}" size="0.025" {look}/>
    </body>"""


def build(evses: Sequence[int], connector_name: str = "ccs2", camera: Camera | None = None) -> Built:
    """Model with the bays of these EVSEs, and marks on the vehicles where a camera is to look at them.

    Raises KeyError when config/ has no such bay or connector.
    """
    if camera is not None:
        return _build(evses, connector_name, camera)
    built = _once(tuple(evses), connector_name)
    return replace(built, model=copy(built.model))


@cache
def _once(evses: tuple[int, ...], connector_name: str) -> Built:
    """A bench makes the same world a thousand times."""
    return _build(evses, connector_name, None)


def _build(evses: Sequence[int], connector_name: str, camera: Camera | None) -> Built:
    site = load_site()
    arm = yaml.safe_load(config_file("arm/arm.yaml").read_text())
    physics = yaml.safe_load(config_file("arm/connectors.yaml").read_text())[connector_name]["physics"]
    connector = site.connectors[connector_name]
    shape = Shape(
        physics["half_width_m"],
        physics["half_height_m"],
        physics["clearance_m"],
        physics["chamfer_m"],
        [(float(x), float(force)) for x, force in physics["friction"]],
        [(float(x), float(force)) for x, force in physics["detent"]],
    )
    numbers = list(evses)
    bodies = "".join(
        _vehicle(n, connector, shape, _seen(n, connector_name, camera) if camera else "")
        + _plug(n, site.bays[n].holster, connector, shape)
        + _holster(n, site.bays[n].holster, connector)
        for n in numbers
    )
    tendons = "".join(
        f'<spatial name="axis{n}" width="0.0001" rgba="0 0 0 0" {STICTION}>'
        f'<site site="nose{n}"/><site site="anchor{n}"/></spatial>'
        for n in numbers
    )
    sensors = "".join(
        f'<framepos name="nose{n}" objtype="site" objname="nose{n}" reftype="site" refname="inlet{n}"/>'
        f'<force name="inlet{n}" site="inlet{n}"/><force name="obstruction{n}" site="obstruction{n}"/>'
        for n in numbers
    )
    world = mujoco.MjSpec.from_string(f"""
<mujoco model="robot_charger">
  <compiler angle="radian" autolimits="true"/>
  <option timestep="{TIMESTEP}" integrator="implicitfast" cone="pyramidal" iterations="30"
          noslip_iterations="20">
    <flag island="disable"/>
  </option>
  <visual>
    <global offwidth="1280" offheight="960"/>
    <quality shadowsize="2048"/>
    <headlight ambient="0.35 0.35 0.35" diffuse="0.45 0.45 0.45" specular="0.1 0.1 0.1"/>
    <map znear="0.01" zfar="30"/>
  </visual>
  <asset>
    <texture name="sky" type="skybox" builtin="gradient" width="64" height="64"
             rgb1="0.85 0.90 0.95" rgb2="0.55 0.65 0.75"/>
    <texture name="floor" type="2d" builtin="checker" width="256" height="256"
             rgb1="0.55 0.56 0.57" rgb2="0.50 0.51 0.52"/>
    <material name="floor" texture="floor" texrepeat="8 8" reflectance="0.05"/>
  </asset>
  <worldbody>
    <light pos="-1 -2 4" dir="0.3 0.5 -1" castshadow="true" diffuse="0.5 0.5 0.5"/>
    <geom name="ground" type="plane" size="6 6 0.1" material="floor" contype="0" conaffinity="{SHOULDER | HANDLE}"/>
    <frame name="arm"/>
    {bodies}{_hand()}
  </worldbody>
  <tendon>{tendons}</tendon>
  <sensor>{sensors}<force name="palm" site="palm"/></sensor>
</mujoco>""")
    urdf = config_file("arm/arm.urdf").read_text()
    chain = mujoco.MjSpec.from_string(urdf)
    chain.compiler.fusestatic = False
    _equip(chain, arm)
    world.attach(chain, frame="arm", prefix=PREFIX)
    _drive(world, arm, site, numbers)
    model = world.compile()
    limits = ElementTree.fromstring(urdf).iterfind("joint[@type='revolute']/limit")
    speed = np.array([float(limit.get("velocity", "1.0")) for limit in limits])
    return Built(model, site, connector, shape, arm["controller"], speed)


def _equip(chain: mujoco.MjSpec, arm: dict[str, Any]) -> None:
    """Balance the links and put the compliant mount before the gripper."""
    for body in chain.bodies:
        body.gravcomp = 1.0
    for index, joint in enumerate(chain.joints):
        joint.armature = ARMATURE[index]
        joint.damping = np.array([2.0, 0.0, 0.0])
    for geom in chain.geoms:
        geom.contype, geom.conaffinity = (ARM, 0) if geom.contype else (0, 0)
        if geom.contype:
            geom.rgba = np.array([0.0, 0.0, 0.0, 0.0])  # the collision shapes; the visual ones are seen
    tool = arm["tool"]
    gripper = chain.body(GRIPPER)
    gripper.add_site(name="wrench", pos=[-tool["wrench_distance_m"], 0.0, 0.0], size=[0.002, 0, 0], rgba=[0, 0, 0, 0])
    centre = [tool["compliance_centre_m"], 0.0, 0.0]
    lateral, turning = tool["lateral_stiffness_n_m"], tool["rotational_stiffness_nm_rad"]
    for kind, stiffness, inertia in (
        (mujoco.mjtJoint.mjJNT_SLIDE, (tool["axial_stiffness_n_m"], lateral, lateral), HELD_MASS),
        (mujoco.mjtJoint.mjJNT_HINGE, (turning,) * 3, 0.04),
    ):
        for axis, k in zip(np.eye(3), stiffness, strict=True):
            name = f"mount_{'r' if kind == mujoco.mjtJoint.mjJNT_HINGE else ''}{'xyz'[int(np.argmax(axis))]}"
            joint = gripper.add_joint(name=name, type=kind, axis=axis, pos=centre)
            joint.stiffness = np.array([k, 0.0, 0.0])
            joint.damping = np.array([1.4 * np.sqrt(k * inertia), 0.0, 0.0])


def _drive(world: mujoco.MjSpec, arm: dict[str, Any], site: Site, numbers: list[int]) -> None:
    """Position servos whose set-points are integrated velocities; grips, holsters and the inlet's axis."""
    joints = [j for j in world.joints if j.name.startswith(PREFIX) and "mount" not in j.name]
    for index, joint in enumerate(joints[:AXES]):
        k = arm["controller"]["stiffness_nm_rad"][index]
        damping = 2.0 * np.sqrt(k * DAMPED_INERTIA[index])
        drive = world.add_actuator(name=joint.name, target=joint.name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
        drive.dyntype = mujoco.mjtDyn.mjDYN_INTEGRATOR
        drive.gaintype, drive.biastype = mujoco.mjtGain.mjGAIN_FIXED, mujoco.mjtBias.mjBIAS_AFFINE
        drive.gainprm[0] = k
        drive.biasprm[1], drive.biasprm[2] = -k, -damping
    for n in numbers:
        pull = world.add_actuator(name=f"detent{n}", target=f"axis{n}", trntype=mujoco.mjtTrn.mjTRN_TENDON)
        pull.gainprm[0] = 1.0
    sensor = mujoco.mjtSensor
    world.add_sensor(
        name="force", type=sensor.mjSENS_FORCE, objtype=mujoco.mjtObj.mjOBJ_SITE, objname=f"{PREFIX}wrench"
    )
    world.add_sensor(
        name="torque", type=sensor.mjSENS_TORQUE, objtype=mujoco.mjtObj.mjOBJ_SITE, objname=f"{PREFIX}wrench"
    )
    for n in numbers:
        for name, other in ((f"grip{n}", PREFIX + GRIPPER), (f"holster{n}", "world"), (f"lock{n}", f"inlet{n}")):
            weld = world.add_equality(name=name, type=mujoco.mjtEq.mjEQ_WELD, objtype=mujoco.mjtObj.mjOBJ_BODY)
            weld.name1, weld.name2 = other, f"plug{n}"
            weld.active = other == "world"
            weld.data[:] = 0.0
            pose = site.bays[n].holster if other == "world" else np.eye(4)
            weld.data[3:6] = pose[:3, 3]
            x, y, z, w = quaternion(pose[:3, :3])
            weld.data[6:10] = (w, x, y, z)
            weld.data[10] = 1.0
            weld.solref = np.array([0.004, 1.0])
