"""Arm, plugs and vehicles at 1 ms: a trajectory controller with a force guard, a tool, and the plug's own forces.

Plain Python around MuJoCo, without ROS and without a clock: ``advance`` says how much time passes. Poses are told
in base_link. Signs: the wrench is what the surroundings do to the tool, so a push into the inlet reads negative x;
in the truth a push is positive.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import mujoco
import numpy as np

from robot_charger.robot.kinematics import AXES
from robot_charger.robot.perception import Camera
from robot_charger.robot.spatial import Array, from_xyz_rpy, inverse, largest, moved, quaternion, transform
from robot_charger.sim.arm.disturbances import FAR_LOOK, FAULTS, FILTER, MOVES, Disturbances
from robot_charger.sim.arm.guard import PAUSE, Guard
from robot_charger.sim.arm.model import (
    HAND_RADIUS,
    PLUG_CENTRE,
    PREFIX,
    TIMESTEP,
    Vehicle,
    build,
    load_vehicles,
)
from robot_charger.sim.arm.stall import AWAY, Cable, Parking, Stall, between

mujoco.set_mjcb_time(None)  # each step would ask a clock thirty times, for statistics that nobody reads

# Steps of the physics while nothing is near an inlet [ms]: with a plug in the hand, and with an empty one. In longer
# steps the grip that holds a plug swings up by itself after a jerk, until the guard stands in the way of every motion.
HELD_STEP, FREE_STEP = 2, 5
# A hand whose plug's nose is, or would be, this far before every inlet touches nothing: it is looked at so seldom [ms].
FAR_M = 0.08
# By the milliseconds since the last look: of the truth, and of the controller's guard.
GUARD_FILTER = [1.0 - math.exp(-count * TIMESTEP / 0.003) for count in range(FAR_LOOK + 1)]  # 3 ms
GRIP_SECONDS = 0.25
GRIP_REACH = 0.012  # the gripper centres a plug that is no further away than this [m]
BIAS_N = 60.0
DRIFT_N = 15.0  # of a sensor that drifts, from here before the mouth on [N, m]
DRIFT_FROM_M = 0.02
HAND_BEFORE_M = 0.03  # a hand between the plug and the inlet's mouth [m]
MIXED = "mixed"  # in place of a kind of vehicle: any, by seed
LIMP_DAMPING = np.array([12.0, 12.0, 8.0, 1.5, 1.0, 0.5])  # of a limp arm's joints [Nm s/rad]
STILL_RAD = 1e-4  # a set-point this near is none
NEAR_M = 0.006  # a held plug nearer to an inlet's mouth than this is followed at 1 ms
REST_AFTER = 400  # steps without anything new after which a world that stands still is let be
REST_SPEED = 2e-3  # [m/s, rad/s]
NOISE = np.array([0.4, 0.4, 0.4, 0.03, 0.03, 0.03])  # of the wrench, standard deviation [N, Nm]


class ArmWorld(Disturbances):
    """The whole desk of the robot. Not thread-safe: the caller holds one lock around all calls."""

    def __init__(
        self,
        evses: Sequence[int] = (1,),
        seed: int = 0,
        parking: Parking | None = None,
        connector: str = "ccs2",
        camera: Camera | None = None,
        kind: str = "front",
    ) -> None:
        self.vehicles = load_vehicles()
        if kind not in (MIXED, *self.vehicles):
            raise KeyError(f"{kind}: one of {MIXED}, {', '.join(self.vehicles)}")
        self.kind = kind
        built = build(evses, connector, camera)
        self.model, self.site, self.connector = built.model, built.site, built.connector
        self.parking = parking or Parking()
        self.data = mujoco.MjData(self.model)
        self.faults: set[str] = set()
        self.seed = seed
        self.stalls = {n: Stall(n, np.random.default_rng([seed, n])) for n in evses}
        self.held = 0  # EVSE of the plug in the gripper, 0 = none
        self.gripper_closed = False
        self.steps = 0
        self.last_used = next(iter(self.stalls))
        self._shape = built.shape
        self.hand_n = self.hand_most_n = 0.0  # on a hand that was put in the way: now, and at most
        self._hand: Array | None = None  # where it is
        self._drift = np.zeros(6)  # of the wrench
        self.guard = Guard(built.controller, built.site.tool.wrench_distance)
        self.limp = False  # gives way to every push, gravity compensated
        self._noise = np.random.default_rng([seed, 0])
        m, d = self.model, self.data
        first = m.joint(PREFIX + self.names[0])  # of six, one after the other
        self._q = d.qpos[first.qposadr[0] : first.qposadr[0] + AXES]
        self._q_speed = d.qvel[first.dofadr[0] : first.dofadr[0] + AXES]
        self._gripper = m.body(PREFIX + "gripper_link").id
        self._plug = {n: m.body(f"plug{n}").id for n in self.stalls}
        self._mocap = {n: int(m.body(f"vehicle{n}").mocapid[0]) for n in self.stalls}
        self._sprung = {n: m.body(f"sprung{n}").id for n in self.stalls}
        self._sway = {n: int(m.joint(f"sway{n}_x").qposadr[0]) for n in self.stalls}
        self._sway_v = {n: int(m.joint(f"sway{n}_x").dofadr[0]) for n in self.stalls}
        self._springs = {n: m.joint(f"sway{n}_x").id for n in self.stalls}
        self._tendon = {n: m.tendon(f"axis{n}").id for n in self.stalls}
        self._detent = {n: m.actuator(f"detent{n}").id for n in self.stalls}
        self._nose = {n: int(m.sensor(f"nose{n}").adr[0]) for n in self.stalls}
        self._inlet_force = {n: int(m.sensor(f"inlet{n}").adr[0]) for n in self.stalls}
        self._force = int(m.sensor("force").adr[0])
        self._debris_force = {n: int(m.sensor(f"obstruction{n}").adr[0]) for n in self.stalls}
        self._lock = {n: m.equality(f"lock{n}").id for n in self.stalls}
        self._grip = {n: m.equality(f"grip{n}").id for n in self.stalls}
        self._hang = {n: m.equality(f"holster{n}").id for n in self.stalls}
        self._obstruction = {n: int(m.body(f"obstruction{n}").mocapid[0]) for n in self.stalls}
        mass = float(m.body_mass[self._gripper])  # its centre lies on the x axis
        wrench_at = float(m.site(f"{PREFIX}wrench").pos[0])
        self._gripper_weight = mass, mass * (float(m.body_ipos[self._gripper][0]) - wrench_at)
        self._plug_weight = built.connector.mass, built.connector.mass * (PLUG_CENTRE - wrench_at)
        self._weight = self._gripper_weight  # of all that hangs on the sensor
        self._shown = {  # geoms, for the camera
            kind: [i for i in range(m.ngeom) if m.geom(i).name.startswith(kind)]
            for kind in ("marks", "wrong", "flap", "halfflap", "rim")
        }
        self._hand_at = int(m.joint("hand_x").qposadr[0])
        self._mocap_of = {name: int(m.body(name).mocapid[0]) for name in ("hand", "wall")}
        self._q[:] = self.site.park
        d.act[:AXES] = self.site.park
        self._segments: list[tuple[int, Array]] = []
        self._moving_until = 0
        self._disabled_until = 0  # the safety controller's enable is gone
        self._grip_wanted = False
        self._grip_done = 0
        self._moves = False
        self._sum = (0.0,) * 6
        self._samples = 0
        self._rolling = False
        self._stirred = 0  # step of the last command or event
        self.asleep = False  # nothing moves, or will by itself: time passes without physics
        self._speed = built.speed
        self._frozen: Array | None = None
        self._last_wrench = np.zeros(6)
        self._near, self._far = True, False
        mujoco.mj_forward(m, d)
        # Views, made once: to make one takes longer than to read it.
        self._sensors, self._ctrl, self._act = d.sensordata, d.ctrl, d.act[:AXES]
        self._drive = d.ctrl[:AXES]
        self._at, self._plug_at = d.xpos[self._gripper], {n: d.xpos[body] for n, body in self._plug.items()}
        self._pull = {n: d.xfrc_applied[body, :3] for n, body in self._plug.items()}  # of the cable
        self._plug_speed = {
            n: d.qvel[i : i + 3] for n, i in ((n, int(m.joint(f"plug{n}").dofadr[0])) for n in self.stalls)
        }
        self._shadow = mujoco.MjData(m)  # to look at a motion before it is made
        self._servo = m.actuator_gainprm[:AXES].copy(), m.actuator_biasprm[:AXES].copy()
        self._down = d.xmat[self._gripper, 6:9]  # the world's z axis in the gripper's axes
        self._rub, self._active = m.tendon_frictionloss, d.eq_active
        self._timestep = round(m.opt.timestep / TIMESTEP)

    @property
    def trips(self) -> int:
        """How often the force guard stopped the arm."""
        return self.guard.trips

    names = ("shoulder_pan", "shoulder_lift", "elbow", "wrist_1", "wrist_2", "wrist_3")

    def close(self) -> None:
        """Nothing more is asked of it."""

    # What the wires and topics command.
    def arrive(self, number: int) -> None:
        """A vehicle parks, somewhere within the spread, by seed and number of the visit."""
        stall, spread = self.stalls[number], self.parking
        stall.visits += 1
        stall.rng = rng = np.random.default_rng([self.seed, number, stall.visits])
        bay = self.site.bays[number]
        offset = rng.uniform(-1, 1, 3) * spread.position_m
        turn = np.radians(rng.uniform(-1, 1, 3) * (spread.tilt_deg, spread.tilt_deg, spread.yaw_deg))
        own = np.random.default_rng([self.seed, number, stall.visits, 1])
        stall.kind = self.kind if self.kind != MIXED else str(own.choice(list(self.vehicles)))
        vehicle = self.vehicles[stall.kind]
        stall.inlet = bay.inlet @ from_xyz_rpy(list(offset), list(turn)) @ vehicle.inlet
        stall.mouth, stall.into = stall.inlet[:3, 3].tolist(), stall.inlet[:3, 0].tolist()
        self._spring(number, vehicle)
        self._show_solid(f"rim{number}_", vehicle.recessed)
        flap = int(self.model.joint(f"flap{number}").qposadr[0])
        self.data.qpos[flap] = 0.0
        stall.leaves_at = self.steps + round(own.uniform(2.0, 20.0) / TIMESTEP) if vehicle.occupant else 0
        share = math.sqrt(spread.systematic)
        sizes = np.array([spread.estimate_m] * 3 + [math.radians(spread.estimate_deg)] * 3)
        stall.error = rng.normal(0.0, 1.0, 6) * sizes * share
        stall.cable = Cable.drawn(rng, spread.cable_n, bay.holster[:3, 3])
        self.model.geom_friction[:, 0] = rng.uniform(0.08, 0.22)  # dry to wet
        stall.present, stall.locked, stall.rolled = True, False, np.zeros(3)
        stall.max_push = stall.max_pull = stall.seat_peak = stall.leave_peak = stall.push = 0.0
        stall.deepest, stall.inserting = 0.0, True
        self.last_used = number
        self._stir()
        self._place_vehicle(stall)

    def _spring(self, number: int, vehicle: Vehicle) -> None:
        """Mass and springs of the vehicle, sunk by its occupant."""
        m, at, speed, joint = self.model, self._sway[number], self._sway_v[number], self._springs[number]
        m.body_mass[self._sprung[number]] = vehicle.mass
        m.jnt_stiffness[joint : joint + 3] = vehicle.stiffness
        m.dof_damping[speed : speed + 3] = 2.0 * vehicle.damping * np.sqrt(vehicle.stiffness * vehicle.mass)
        weight = 9.81 * vehicle.occupant
        self.data.xfrc_applied[self._sprung[number]] = (0.0, 0.0, -weight, 0.0, 0.0, 0.0)
        self.data.qpos[at : at + 3] = (0.0, 0.0, -weight / vehicle.stiffness[2])
        self.data.qvel[speed : speed + 3] = 0.0

    def leave(self, number: int) -> None:
        """The vehicle drives away; a plug left in it is hung back by a person."""
        stall = self.stalls[number]
        stall.present, stall.mated, stall.locked, stall.depth, stall.leaves_at = False, False, False, -1.0, 0
        self._stir()
        self._place_vehicle(stall)
        self._detach(number)
        if self.held != number and not self.data.eq_active[self._hang[number]]:
            self._hang_up(number)

    def _place_vehicle(self, stall: Stall) -> None:
        data, index, debris = self.data, self._mocap[stall.number], self._obstruction[stall.number]
        place = stall.inlet[:3, 3] + stall.rolled if stall.present else np.array(AWAY)
        x, y, z, w = quaternion(stall.inlet[:3, :3])
        data.mocap_pos[index] = place
        data.mocap_pos[debris] = place if "robot-jam" in self.faults else AWAY
        data.mocap_quat[index] = data.mocap_quat[debris] = (w, x, y, z)

    def true_inlet(self, number: int) -> Array:
        """Where the inlet really is."""
        pose, at = self.stalls[number].inlet.copy(), self._sway[number]
        pose[:3, 3] += self.stalls[number].rolled + pose[:3, :3] @ self.data.qpos[at : at + 3]
        return pose

    def set_fault(self, name: str, on: bool) -> None:
        """Raises KeyError for a name that is not in FAULTS."""
        if name not in FAULTS:
            raise KeyError(name)
        if (name in self.faults) == on:
            return  # told again, as signals are
        (self.faults.add if on else self.faults.discard)(name)
        self._stir()
        if name == "half-flap":
            self._show_solid("halfflap", on)
        if name == "hand":
            before = self.true_inlet(self.last_used) @ transform((-HAND_BEFORE_M - HAND_RADIUS, 0.0, 0.0))
            self.put("hand", before if on else None)
        if name == "wrench-drifts":
            self._drift = np.zeros(6)
        self.model.geom_rgba[self._shown["flap"], 3] = "flap-closed" in self.faults
        self.model.geom_rgba[self._shown["wrong"], 3] = "wrong-inlet" in self.faults
        hidden = self.faults & {"flap-closed", "wrong-inlet", "no-pose"}
        self.model.geom_rgba[self._shown["marks"], 3] = not hidden
        for stall in self.stalls.values():
            self._place_vehicle(stall)

    def lock(self, number: int, on: bool) -> None:
        """The vehicle bolts its inlet, or frees it."""
        if self.stalls[number].locked != on:
            self.stalls[number].locked = on
            self._stir()

    def _stir(self) -> None:
        self._stirred, self.asleep = self.steps, False

    def trajectory(self, points: Sequence[tuple[float, Sequence[float]]]) -> None:
        """Replace the running trajectory: (seconds from now, joint angles (6,) [rad]) in order of time."""
        self._stir()
        if self.limp or self.steps < self._disabled_until:
            return
        if (self.steps < self.guard.paused_until or self.guard.beyond) and self._into(points[-1][1]):
            return
        slow = 5.0 if "slow" in self.faults else 1.0
        self._segments = [
            (self.steps + max(1, round(t * slow / TIMESTEP)), np.asarray(q, dtype=float)) for t, q in points
        ]
        self._moving_until = self.steps  # begin the first segment at the next step

    def _into(self, goal: Sequence[float]) -> bool:
        """Whether a way from the set-point to joint angles ``goal`` (6,) leads into the force that the guard feels."""
        m, d = self.model, self._shadow
        d.qpos[:] = self.data.qpos
        mujoco.mj_kinematics(m, d)
        mujoco.mj_comPos(m, d)
        linear, angular = np.zeros((3, m.nv)), np.zeros((3, m.nv))
        mujoco.mj_jacBody(m, d, linear, angular, self._gripper)
        first = int(m.joint(PREFIX + self.names[0]).dofadr[0])
        way = np.asarray(goal, dtype=float) - self._act
        turn = d.xmat[self._gripper].reshape(3, 3)
        twist = [turn.T @ (jacobian[:, first : first + AXES] @ way) for jacobian in (linear, angular)]
        return self.guard.into(np.concatenate(twist))

    def set_limp(self, on: bool) -> None:
        """Let the arm give way to every push, held up against gravity alone; or let it stand where it is then."""
        if on == self.limp:
            return
        self._stir()
        self.limp = on
        gain, bias = self._servo
        self.model.actuator_gainprm[:AXES], self.model.actuator_biasprm[:AXES] = gain, bias
        if on:
            self.model.actuator_gainprm[:AXES, 0] = self.model.actuator_biasprm[:AXES, 1] = 0.0
            self.model.actuator_biasprm[:AXES, 2] = -LIMP_DAMPING
            self._segments, self._moving_until = [], self.steps
        self._act[:], self._drive[:] = self._q, 0.0

    @property
    def commanded(self) -> bool:
        """A trajectory is under way."""
        return bool(self._segments)

    def hold(self) -> None:
        """The enable of the safety controller is gone: the arm stops where it is and takes no trajectory."""
        self._segments = []
        self._moving_until = self.steps
        self._disabled_until = self.steps + PAUSE

    def near(self, reach_m: float) -> tuple[int, int]:
        """Bays that the tool is in (nearer than ``reach_m`` to the inlet), and those in whose inlet its plug is."""
        here, near, zone = self._at, 0, 0
        for number, stall in self.stalls.items():
            bit = 1 << (number - 1)
            near |= bit * bool(np.linalg.norm(stall.inlet[:3, 3] - here) < reach_m)
            zone |= bit * (stall.present and self.held == number and stall.depth > 0.0)
        return near, zone

    def grip(self, closed: bool) -> None:
        """Close or open the gripper."""
        if closed != self._grip_wanted:
            self._stir()
            self._grip_wanted = closed
            self._grip_done = self.steps + round(GRIP_SECONDS / TIMESTEP)
            if not closed:
                self.gripper_closed = False
                if self.held:
                    self._let_go()

    # What the sensors say.
    def joints(self) -> tuple[Array, Array] | None:
        """Angles and velocities (6,); None while the encoder's bus is dead."""
        if "joint-states-missing" in self.faults:
            return None
        return self._q.copy(), self._q_speed.copy()

    def wrench(self) -> Array | None:
        """Mean since the last call (6,) [N, Nm] in gripper_link's axes at the sensor, weight of the tool removed."""
        if "wrench-dead" in self.faults:
            return None
        if self._samples:
            self._last_wrench = np.array(self._sum) / self._samples
            self._sum, self._samples = (0.0,) * 6, 0
        value = self._last_wrench + self._noise.standard_normal(6) * NOISE
        if "wrench-frozen" in self.faults:
            if self._frozen is None:
                self._frozen = value
            return self._frozen
        self._frozen = None
        if "wrench-biased" in self.faults:
            value = value + np.array([BIAS_N, 0.5 * BIAS_N, 0.0, 0.0, 0.0, 0.0])
        return value + self._drift

    def tool(self) -> tuple[bool, bool, bool, bool]:
        """gripper_closed, plug_present, end_stop, holster_occupied."""
        stall = self.stalls.get(self.held)
        end_stop = bool(stall and stall.present and stall.depth > self.connector.depth - 0.0006)
        present = self.held != 0 or self._plug_in_reach() != 0
        occupied = any(self._active[e] for e in self._hang.values())
        return self.gripper_closed, present, end_stop, bool(occupied)

    def estimate(self, number: int) -> Array | None:
        """The inlet's pose as a camera would tell it, in base_link; None when it sees nothing."""
        stall = self.stalls[number]
        if not stall.present or self.faults & {"no-pose", "flap-closed", "wrong-inlet"}:
            return None
        sizes = np.array([self.parking.estimate_m] * 3 + [math.radians(self.parking.estimate_deg)] * 3)
        noise = self._noise.normal(0.0, 1.0, 6) * sizes * math.sqrt(1.0 - self.parking.systematic)
        return moved(self.true_inlet(number), stall.error + noise)

    # Time.
    def advance(self, steps: int) -> None:
        """Let ``steps`` milliseconds pass: in longer steps where nothing touches, without physics where all rests."""
        while steps > 0:
            if self.asleep:
                self.steps += steps
                return
            if self.steps >= self._moving_until:
                self._command()
            step, times = self._stride(steps)
            self._integrate(step, times)
            count = step * times
            self.steps += count
            steps -= count
            self._observe(count)
            if self.steps - self._stirred > REST_AFTER:
                self._rest()

    def _stride(self, steps: int) -> tuple[int, int]:
        """Milliseconds of the next steps, and how many of them until somebody looks; ``steps`` ms at most."""
        if self._near:
            return 1, 1
        if self.steps < self._moving_until:
            steps = min(steps, self._moving_until - self.steps)
        step = min(steps, HELD_STEP if self.held or self._grip_done else FREE_STEP)
        return step, min(steps, FAR_LOOK) // step if self._far else 1

    def _integrate(self, step: int, times: int) -> None:
        """The engine: ``times`` steps of ``step`` ms, set-points ``_ctrl`` and ``_act``, sensors after them."""
        if step != self._timestep:
            self.model.opt.timestep, self._timestep = step * TIMESTEP, step
        mujoco.mj_step(self.model, self.data, times)

    def _rest(self) -> None:
        """Fall asleep when nothing moves. Looked for now and then only."""
        self._stirred = self.steps
        if any(stall.leaves_at for stall in self.stalls.values()):
            return
        still = not self._segments and self.steps >= max(self._moving_until, self.guard.paused_until)
        if still and not self._grip_done and not self._rolling and np.abs(self.data.qvel).max() < REST_SPEED:
            self.asleep = True

    def _command(self) -> None:
        """Set the drives' velocities for the segment that runs now, none faster than its joint may turn."""
        if not self._segments and self.steps >= self._moving_until:
            self._drive[:], self._moves = 0.0, False
            return
        if self._segments:
            while len(self._segments) > 1 and self._segments[0][0] <= self.steps:
                self._segments.pop(0)
            end, target = self._segments.pop(0)
            way = target - self._act
            least = math.ceil(largest(way / self._speed) / TIMESTEP)
            steps = max(1, end - self.steps, least)
            self._drive[:] = way / (steps * TIMESTEP)
            self._moves = largest(way) > STILL_RAD  # not when told again to stay where it is
            self._moving_until = self.steps + steps

    def _observe(self, count: int) -> None:
        if self._grip_done and self.steps >= self._grip_done:
            self._grip_done = 0
            if self._grip_wanted:
                self._close()
        sensors = self._sensors.tolist()
        self._measure(sensors, count)
        self._near = self._rolling = False
        for stall in self.stalls.values():
            if stall.present:
                near = self._plug_forces(stall, sensors, count)
                if stall.number == self.held:
                    self._near = near
                    at, speed = self._plug_at[self.held], self._plug_speed[self.held]
                    self._pull[self.held][:] = stall.cable.force(at, speed)
                    if "wrench-drifts" in self.faults and stall.depth > -DRIFT_FROM_M and not self._drift.any():
                        self.drift(DRIFT_N)
                if stall.leaves_at and self.steps >= stall.leaves_at:
                    stall.leaves_at = 0
                    self.data.xfrc_applied[self._sprung[stall.number]] = 0.0
                if self.faults and not self.faults.isdisjoint(MOVES):
                    self._roll(stall, count)
        if self._hand is not None:
            self._feel_hand(count)
        self._far = not (self._near or self._grip_done or self.faults) and self._is_far()
        self._watch()

    def _is_far(self) -> bool:
        x, y, z = self._at.tolist()
        least = -FAR_M - self.connector.nose
        for stall in self.stalls.values():
            if stall.present:
                (mx, my, mz), (ax, ay, az) = stall.mouth, stall.into
                if (x - mx) * ax + (y - my) * ay + (z - mz) * az > least:
                    return False
        return True

    def _measure(self, sensors: list[float], count: int) -> None:
        """What the surroundings do to the tool: summed for the sensor's mean, filtered for the guard."""
        # The sensor tells what the child pushes against: turned round it is what the surroundings do to the tool.
        fx, fy, fz, tx, ty, tz = sensors[self._force : self._force + 6]
        mass, moment = (
            self._weight
        )  # the driver knows and removes it: its payload is that of the tool and of a held plug
        x, y, z = self._down.tolist()
        x, y, z = -9.81 * x, -9.81 * y, -9.81 * z  # gravity in the gripper's axes
        fx, fy, fz = -fx - mass * x, -fy - mass * y, -fz - mass * z
        tx, ty, tz = -tx, -ty + moment * z, -tz - moment * y
        a, b, c, d, e, f = self._sum
        self._sum = a + fx * count, b + fy * count, c + fz * count, d + tx * count, e + ty * count, f + tz * count
        self._samples += count
        self.guard.feel((fx, fy, fz, tx, ty, tz), GUARD_FILTER[count])

    def _plug_forces(self, stall: Stall, sensors: list[float], count: int) -> bool:
        """Friction and detent of the plug in its inlet. True when it touches it or soon may."""
        n = stall.number
        at = self._nose[n]
        x, y, z = sensors[at : at + 3]
        lateral = math.hypot(y, z)
        if not (-0.03 < x < 0.08 and lateral < 0.08):
            if stall.depth != -1.0:
                self._detach(n)
            stall.depth, stall.lateral, stall.mated = -1.0, 1.0, False
            return False
        inside = lateral < 0.02
        stall.depth, stall.lateral = x, lateral
        rub = between(self._shape.friction, x) if inside else 0.0
        hook = between(self._shape.detent, x) if inside else 0.0
        push = -(sensors[self._inlet_force[n]] + sensors[self._debris_force[n]])
        stall.push += FILTER[count] * (push - stall.push)
        if self.held == n:
            if stall.inserting:
                stall.max_push = max(stall.max_push, stall.push)
            stall.deepest = max(stall.deepest, x)
            stall.max_pull = max(stall.max_pull, -stall.push)
            if inside:
                stall.seat_peak = max(stall.seat_peak, rub + hook)
                stall.leave_peak = max(stall.leave_peak, rub - hook)
        self._bolt(n, inside and x > 0.3 * self.connector.depth and (stall.locked or "plug-stuck" in self.faults))
        self._rub[self._tendon[n]] = rub
        self._ctrl[self._detent[n]] = hook
        stall.mated = inside and x > self.connector.depth - 0.002
        return x > -NEAR_M

    def _bolt(self, number: int, on: bool) -> None:
        """Bolt the plug to the inlet where it is, or let it go."""
        stall, index = self.stalls[number], self._lock[number]
        if stall.bolted == on:
            return
        stall.bolted = on
        if on:
            at = self.plug_in_inlet(number) @ transform((-self.connector.nose, 0.0, 0.0))
            x, y, z, w = quaternion(at[:3, :3])
            self.model.eq_data[index, 3:10] = (*at[:3, 3], w, x, y, z)
        self._active[index] = on

    def _detach(self, number: int) -> None:
        self.model.tendon_frictionloss[self._tendon[number]] = 0.0
        self.data.ctrl[self._detent[number]] = 0.0
        self._bolt(number, False)
        self.stalls[number].push = 0.0

    def _watch(self) -> None:
        """The controller's own force guard: stops within one step at its limit, unless the motion leads out."""
        guard = self.guard
        guard.rest(self.steps, self._moves, self._near)
        if self._moves and guard.beyond and self._into(self._act + self._drive):
            guard.stop(self.steps)
            self._segments, self._moving_until = [], self.steps

    # The gripper.
    def _plug_in_reach(self) -> int:
        """EVSE of the plug that closing the gripper would hold, 0 = none."""
        d = self.data
        here = self._at.tolist()
        for n, place in self._plug_at.items():
            if math.dist(place.tolist(), here) < GRIP_REACH:
                aligned = float(d.xmat[self._plug[n]][::3] @ d.xmat[self._gripper][::3])
                if aligned > 0.98:
                    return n
        return 0

    def _close(self) -> None:
        self.gripper_closed = True
        n = self._plug_in_reach()
        if n:
            self.held = n
            (a, b), (c, e) = self._gripper_weight, self._plug_weight
            self._weight = a + c, b + e
            self.model.body_gravcomp[self._plug[n]] = 0.0
            self.model.eq_solref[self._grip[n], 0] = 0.004
            self.data.eq_active[self._grip[n]] = 1
            self.data.eq_active[self._hang[n]] = 0

    def _let_go(self) -> None:
        n, self.held = self.held, 0
        self._weight = self._gripper_weight
        self.stalls[n].inserting = False
        d = self.data
        d.eq_active[self._grip[n]] = 0
        d.xfrc_applied[self._plug[n]] = 0.0
        home = self.site.bays[n].holster
        hangs = float(np.linalg.norm(d.xpos[self._plug[n]] - home[:3, 3])) < 0.02
        d.eq_active[self._hang[n]] = hangs
        # Holster, or seal and pins, carry the plug: the model's contact would creep under its weight. Else it falls.
        self.model.body_gravcomp[self._plug[n]] = hangs or self.stalls[n].depth > 0.5 * self.connector.depth

    def _hang_up(self, number: int) -> None:
        home = self.site.bays[number].holster
        self.model.body_gravcomp[self._plug[number]] = 1.0
        joint = self.model.joint(f"plug{number}")
        address, speed = int(joint.qposadr[0]), int(joint.dofadr[0])
        x, y, z, w = quaternion(home[:3, :3])
        self.data.qpos[address : address + 7] = (*home[:3, 3], w, x, y, z)
        self.data.qvel[speed : speed + 6] = 0.0
        self.data.eq_active[self._hang[number]] = 1

    def gripper_pose(self) -> Array:
        """True pose of gripper_link, the mount's deflection included."""
        return transform(self.data.xpos[self._gripper], self.data.xmat[self._gripper].reshape(3, 3))

    def plug_in_inlet(self, number: int) -> Array:
        """True pose of the nose in the inlet's frame."""
        plug = transform(self.data.xpos[self._plug[number]], self.data.xmat[self._plug[number]].reshape(3, 3))
        return inverse(self.true_inlet(number)) @ plug @ transform((self.connector.nose, 0.0, 0.0))
