"""The same desk in Gazebo Classic 11, run in step and headless: its physics in place of MuJoCo's, all else unchanged.

Vehicle, plug and holster come from gazebo.world_sdf, the arm from gazebo.arm_urdf, both made from the one model; the
controller, its force guard, the tool and the truth are ArmWorld's. ``make tools`` unpacks Gazebo into .tools/gazebo.
The simulator runs in a network namespace of its own, for it would listen on every address of the machine.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import SubElement

import numpy as np

from robot_charger.robot.kinematics import AXES
from robot_charger.robot.spatial import from_quaternion
from robot_charger.sim.arm import gazebo
from robot_charger.sim.arm.model import TIMESTEP
from robot_charger.sim.arm.physics import ArmWorld, Parking

SOURCE = Path(__file__).with_suffix(".cc")
PREFIX = Path(__file__).parents[3] / ".tools" / "gazebo"
MACHINE = "x86_64-linux-gnu"
COMMAND, STATE = struct.Struct("=6I40d"), struct.Struct("=41d")
ANSWER_S, START_S, LOOK_S = 20.0, 60.0, 0.2
NOT_HERE = ("robot-jam",)  # the thing in the socket is MuJoCo's alone


class NoGazeboError(RuntimeError):
    """Gazebo is not here, or does not start; the text says what to do."""


def server(prefix: Path = PREFIX) -> Path:
    """gzserver of ``prefix``, which Makefile marks when it is complete. Raises NoGazeboError."""
    found = sorted(prefix.glob("usr/bin/gzserver-*"))
    if not found or not (prefix / ".complete").exists():
        raise NoGazeboError(f"no Gazebo Classic in {prefix}: `make tools` unpacks it where the archive still has it")
    return found[-1]


def plugin(prefix: Path = PREFIX) -> Path:
    """The compiled plugin, made when its source is newer. Raises NoGazeboError."""
    made = prefix / "libbay.so"
    if made.exists() and made.stat().st_mtime > SOURCE.stat().st_mtime:
        return made
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        raise NoGazeboError("Gazebo's plugin needs a C++ compiler: install g++, or name one in CXX")
    include = prefix / "usr/include"
    folders = [include, include / MACHINE, *include.glob("gazebo-*"), *include.glob("sdformat-*")]
    folders += include.glob("ignition/*")
    library = max(include.glob("c++/*"), key=lambda p: int(p.name))
    command = [compiler, "-shared", "-fPIC", "-O2", "-std=c++17", "-w", f"--sysroot={prefix}", "-nostdinc++"]
    command += ["-nodefaultlibs", "-isystem", str(library), "-isystem", str(include / MACHINE / "c++" / library.name)]
    command += [*(f"-I{folder}" for folder in folders), "-o", str(made.with_suffix(".new")), str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise NoGazeboError(f"the plugin does not compile: {done.stderr.strip().splitlines()[0]}")
    made.with_suffix(".new").replace(made)
    return made


def _put(parent: ElementTree.Element, **values: str) -> None:
    for tag, value in values.items():
        SubElement(parent, tag).text = value


def world_sdf(desk: ArmWorld, library: Path) -> str:
    """gazebo.world_sdf for Classic: no plugins of Harmonic, a vehicle that its springs move, the exact solver."""
    root = ElementTree.fromstring(gazebo.world_sdf(desk))
    world = root.find("world")
    assert world is not None
    for parent in [world, *world.findall("model")]:
        for harmonic in parent.findall("plugin"):
            parent.remove(harmonic)
    physics = world.find("physics")
    assert physics is not None
    _put(physics, real_time_update_rate="0", max_contacts="20")
    ode = SubElement(physics, "ode")
    _put(SubElement(ode, "solver"), type="world")
    # Friction has no CFM but this slip. Rigid, the many points of one face contradict each other, and the solver fails.
    soft = "1e-5"  # [m/s per N]
    layer = {"contact_max_correcting_vel": "0.1", "contact_surface_layer": "0.00001"}
    _put(SubElement(ode, "constraints"), cfm=soft, erp="0.2", **layer)
    for surface in world.iterfind("model/link/collision/surface"):
        friction, contact = surface.find("friction/ode"), surface.find("contact")
        assert friction is not None and contact is not None
        _put(friction, slip1=soft, slip2=soft)
        _put(SubElement(contact, "ode"), kp="2e6", kd="2e3", max_vel="0.1", min_depth="0.00001")
    vehicle = world.find(f"model[@name='vehicle{gazebo.EVSE}']")
    assert vehicle is not None
    for static in vehicle.findall("static"):
        static.text = "false"
    bay = SubElement(world, "plugin", name="bay", filename=str(library))
    SubElement(bay, "park").text = " ".join(f"{angle:.9g}" for angle in desk.site.park)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True)


def arm_urdf(desk: ArmWorld) -> str:
    """gazebo.arm_urdf without what only Harmonic has."""
    root = ElementTree.fromstring(gazebo.arm_urdf(desk.site.park, Path("none")))
    for part in [*root.findall("ros2_control"), *(g for g in root.findall("gazebo") if g.find("plugin") is not None)]:
        root.remove(part)
    for part in root.findall("gazebo"):
        for sensor in part.findall("sensor"):
            part.remove(sensor)
    return ElementTree.tostring(root, encoding="unicode")


class GazeboWorld(ArmWorld):
    """ArmWorld of one EVSE whose physics is Gazebo's. ``close`` ends the simulator."""

    def __init__(
        self,
        evses: Sequence[int] = (gazebo.EVSE,),
        seed: int = 0,
        parking: Parking | None = None,
        connector: str = "ccs2",
        camera: Any = None,
        kind: str = "front",
        prefix: Path = PREFIX,
    ) -> None:
        """Raises NoGazeboError, KeyError."""
        if tuple(evses) != (gazebo.EVSE,) or camera is not None:
            raise NoGazeboError(f"in Gazebo there is EVSE {gazebo.EVSE} alone, without cameras")
        super().__init__(evses, seed, parking, connector, camera, kind)
        self._prefix, self._server, self._library = prefix, server(prefix), plugin(prefix)
        self._gripper_weight = 0.0, 0.0  # there is no gravity
        self._placed = False
        self._directory = tempfile.TemporaryDirectory(prefix="gazebo-")
        self._process: subprocess.Popen[bytes] | None = None
        self._wire: socket.socket | None = None
        try:
            self._wire = self._start(Path(self._directory.name))
        except BaseException:
            self.close()
            raise

    def _start(self, directory: Path) -> socket.socket:
        world, path = directory / "bay.world", directory / "bay.socket"
        world.write_text(world_sdf(self, self._library))
        (directory / "arm.urdf").write_text(arm_urdf(self))
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(str(path))
        listener.listen(1)
        listener.settimeout(LOOK_S)
        lib, usr = self._prefix / "lib" / MACHINE, self._prefix / "usr"
        share, libraries = next(usr.glob("share/gazebo-*")), usr / "lib" / MACHINE
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(directory),
            "GAZEBO_IP": "127.0.0.1",
            "IGN_IP": "127.0.0.1",
            "GAZEBO_MASTER_URI": "http://127.0.0.1:11345",
            "GAZEBO_MODEL_DATABASE_URI": "",
            "GAZEBO_RESOURCE_PATH": str(share),
            "GAZEBO_PLUGIN_PATH": str(self._prefix),
            "SDF_PATH": str(max(usr.glob("share/sdformat*/1.*"))),
            "ROBOT_CHARGER_GAZEBO_SOCKET": str(path),
            "ROBOT_CHARGER_GAZEBO_ARM": str(directory / "arm.urdf"),
        }
        loader = str(next(lib.glob("ld-2.*.so")))
        folders = ":".join(map(str, (lib, libraries, usr / "lib", *libraries.glob("*/"))))
        command = ["unshare", "-Urn", "sh", "-c", 'ip link set lo up; exec "$@"', "gazebo"]
        command += [loader, "--library-path", folders, str(self._server), str(world)]
        with (directory / "log").open("wb") as log:
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + START_S
        with listener:
            while self._process.poll() is None and time.monotonic() < deadline:
                with contextlib.suppress(TimeoutError):
                    wire = listener.accept()[0]
                    wire.settimeout(ANSWER_S)
                    return wire
        said = (directory / "log").read_text(errors="replace").strip()[-400:]
        raise NoGazeboError(f"Gazebo does not start: {said}")

    def close(self) -> None:
        if self._wire is not None:
            self._wire.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._directory.cleanup()

    def set_fault(self, name: str, on: bool) -> None:
        """Raises KeyError for a name that is not in FAULTS, and for what only MuJoCo's desk has."""
        if name in NOT_HERE:
            raise KeyError(f"{name}: not in Gazebo")
        super().set_fault(name, on)

    def _hang_up(self, number: int) -> None:
        super()._hang_up(number)
        self._placed = True

    def _command_now(self, count: int) -> bytes:
        n, d, m = gazebo.EVSE, self.data, self.model
        speed, joint, sprung = self._sway_v[n], self._springs[n], self._sprung[n]
        plug = int(m.joint(f"plug{n}").qposadr[0])
        welds = (bool(d.eq_active[weld[n]]) for weld in (self._grip, self._hang, self._lock))
        values = (
            self._act[:AXES],
            self._ctrl[:AXES],
            d.xfrc_applied[self._plug[n], :3],
            [self._rub[self._tendon[n]], self._ctrl[self._detent[n]]],
            d.mocap_pos[self._mocap[n]],
            d.mocap_quat[self._mocap[n]],
            m.jnt_stiffness[joint : joint + 3],
            m.dof_damping[speed : speed + 3],
            [m.body_mass[sprung], -d.xfrc_applied[sprung, 2]],
            d.qpos[plug : plug + 7],
            [m.geom_friction[0, 0]],
        )
        placed, self._placed = self._placed, False
        return COMMAND.pack(count, *welds, placed, 0, *np.concatenate(values))

    def _integrate(self, step: int, times: int) -> None:
        """So many milliseconds in Gazebo, one by one; then MuJoCo's data say where Gazebo has everything."""
        count = step * times
        n, d = gazebo.EVSE, self.data
        assert self._wire
        try:
            self._wire.send(self._command_now(count))
            told = np.array(STATE.unpack(self._wire.recv(STATE.size)))
        except (OSError, struct.error) as error:
            raise NoGazeboError(f"Gazebo ended: {error}") from None
        if not np.isfinite(told).all():
            raise NoGazeboError("Gazebo's solver lost the numbers")
        self._act[:AXES] += self._ctrl[:AXES] * count * TIMESTEP
        self._q[:], self._q_speed[:] = told[0:6], told[6:12]
        self._sensors[self._force : self._force + 6] = -told[12:18]
        for body, pose in ((self._gripper, told[18:25]), (self._plug[n], told[25:32])):
            d.xpos[body] = pose[:3]
            w, x, y, z = pose[3:]
            d.xmat[body] = from_quaternion((0.0, 0.0, 0.0), (x, y, z, w))[:3, :3].ravel()
        base, vehicle = self.stalls[n].inlet[:3, :3], told[32:39]
        at = self._sway[n]
        d.qpos[at : at + 3] = base.T @ (vehicle[:3] - d.mocap_pos[self._mocap[n]])
        d.qvel[self._sway_v[n]] = told[40]  # something moves
        nose = self.plug_in_inlet(n)
        self._sensors[self._nose[n] : self._nose[n] + 3] = nose[:3, 3]
        self._sensors[self._inlet_force[n]] = -told[39]
