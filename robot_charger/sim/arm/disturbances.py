"""What disturbs the arm at a bay: a hand, a wall, a flap, a vehicle that rolls, a sensor that drifts."""

from __future__ import annotations

import math

import mujoco
import numpy as np

from robot_charger.robot.description import Connector
from robot_charger.robot.spatial import Array, quaternion, transform
from robot_charger.sim.arm.model import EVERYTHING, HAND_N_M, TIMESTEP, VEHICLE
from robot_charger.sim.arm.stall import Stall

FAULTS = (
    "robot-jam",
    "wrench-dead",
    "wrench-frozen",
    "wrench-biased",
    "joint-states-missing",
    "vehicle-moved",
    "no-pose",
    "plug-stuck",
    "slow",
    "drives-off",
    "flap-closed",
    "wrong-inlet",
    "half-flap",
    "rolls-in",
    "rolls-away",
    "wrench-drifts",
    "hand",
)
MOVES = ("vehicle-moved", "drives-off", "rolls-in", "rolls-away")
ROLL_SPEED = 0.03  # of a vehicle that moves while it should not [m/s]
ROLL_IN_SPEED = 0.02  # [m/s]
DRIVE_OFF_M, DRIVE_OFF_SPEED = 0.6, 0.25  # of a vehicle that drives off [m, m/s]
ROLL_IN_M = 0.025  # a vehicle that rolls towards the arm while the plug goes in [m]
ROLL_AWAY_M = 0.02  # one that rolls away from it then [m]
HAND_NEAR_M = 0.35  # the gripper nearer to a hand than this is followed at 1 ms
FAR_LOOK = 10  # [ms] a hand whose plug is far from every inlet is looked at so seldom
# By the milliseconds since the last look: first order, 10 ms.
FILTER = [1.0 - math.exp(-count * TIMESTEP / 0.010) for count in range(FAR_LOOK + 1)]


class Disturbances:
    """The part of ArmWorld that people, vehicles and worn sensors have in their hands."""

    model: mujoco.MjModel
    data: mujoco.MjData
    connector: Connector
    stalls: dict[int, Stall]
    faults: set[str]
    held: int
    hand_n: float
    hand_most_n: float
    _hand: Array | None
    _hand_at: int
    _near: bool
    _rolling: bool
    _at: Array
    _drift: Array
    _noise: np.random.Generator
    _shown: dict[str, list[int]]
    _mocap_of: dict[str, int]
    _active: Array
    _hang: dict[int, int]
    _sensors: Array
    _inlet_force: dict[int, int]

    def _stir(self) -> None:
        raise NotImplementedError

    def _place_vehicle(self, stall: Stall) -> None:
        raise NotImplementedError

    def _show_solid(self, prefix: str, on: bool) -> None:
        """Let shapes of a vehicle be there, to be touched and seen, or not."""
        m = self.model
        for index in (*self._shown["rim"], *self._shown["halfflap"]):
            if m.geom(index).name.startswith(prefix):
                m.geom_contype[index], m.geom_conaffinity[index] = (VEHICLE, EVERYTHING) if on else (0, 0)
                m.geom_rgba[index, 3] = on
                body = m.geom_bodyid[index]  # whose own bits the engine looks at first
                m.body_contype[body] |= m.geom_contype[index]
                m.body_conaffinity[body] |= m.geom_conaffinity[index]

    def put(self, name: str, pose: Array | None) -> None:
        """Bring the ``hand`` or the ``wall`` to a pose in base_link, or take it away. Raises KeyError."""
        index = self._mocap_of[name]
        self._stir()
        if name == "hand":
            self._hand = None if pose is None else pose[:3, 3].copy()
        at = transform((0.0, 0.0, -40.0)) if pose is None else pose
        x, y, z, w = quaternion(at[:3, :3])
        self.data.mocap_pos[index], self.data.mocap_quat[index] = at[:3, 3], (w, x, y, z)

    def _feel_hand(self, count: int) -> None:
        assert self._hand is not None
        push = HAND_N_M * float(np.linalg.norm(self.data.qpos[self._hand_at : self._hand_at + 3]))
        self.hand_n += FILTER[count] * (push - self.hand_n)
        self.hand_most_n = max(self.hand_most_n, self.hand_n)
        self._near = self._near or float(np.linalg.norm(self._at - self._hand)) < HAND_NEAR_M

    def contact_n(self) -> float:
        """Force of a held plug and the arm on all that they touch, friction in the inlet included [N]."""
        m, d = self.model, self.data
        total, one = np.zeros(3), np.zeros(6)
        for n in self.stalls:
            body, at = m.body(f"inlet{n}").id, self._inlet_force[n]
            turn = d.xmat[body].reshape(3, 3)
            total += turn @ self._sensors[at : at + 3] - (0.0, 0.0, 9.81 * m.body_mass[body])
        inlets = {m.body(f"inlet{n}").id for n in self.stalls}
        for index in range(d.ncon):
            contact = d.contact[index]
            if inlets & {int(m.geom_bodyid[g]) for g in contact.geom}:
                continue
            bits = [int(m.geom_contype[g]) for g in contact.geom]
            if not any(bit & VEHICLE for bit in bits):
                continue  # a plug on the floor
            mujoco.mj_contactForce(m, d, index, one)
            sign = 1.0 if bits[0] & VEHICLE else -1.0
            total += sign * (contact.frame.reshape(3, 3).T @ one[:3])
        return float(np.linalg.norm(total))

    def dropped(self, number: int) -> bool:
        """The plug is in no hand, no holster and no inlet."""
        stall = self.stalls[number]
        hangs = bool(self._active[self._hang[number]])
        return self.held != number and not hangs and stall.depth < 0.3 * self.connector.depth

    def drift(self, newton: float) -> None:
        """Let the wrench be wrong by a constant in a direction of its own from now on."""
        way = self._noise.normal(0.0, 1.0, 3)
        self._drift[:3] = newton * way / np.linalg.norm(way)

    def _roll(self, stall: Stall, count: int) -> None:
        """Creep to where the fault wants the vehicle."""
        for name, way in (("rolls-in", -ROLL_IN_M), ("rolls-away", ROLL_AWAY_M)):
            if name in self.faults:
                if stall.depth > 0.008 or stall.rolled.any():  # it begins when the plug is on its way in
                    self._roll_to(stall, stall.inlet[:3, 0] * way, ROLL_IN_SPEED, way > 0.0, count)
                return
        goal = stall.inlet[:3, 0] * 0.02 if stall.depth > 0.5 * self.connector.depth else stall.inlet[:3, 1] * 0.06
        speed, drags = ROLL_SPEED, True
        if "drives-off" in self.faults:
            goal, speed, drags = stall.inlet[:3, 0] * DRIVE_OFF_M, DRIVE_OFF_SPEED, self.held != stall.number
        self._roll_to(stall, goal, speed, drags, count)

    def _roll_to(self, stall: Stall, goal: Array, speed: float, drags: bool, count: int) -> None:
        way = goal - stall.rolled
        far = float(np.linalg.norm(way))
        if far > 1e-5:
            self._rolling = True
            step = way * min(1.0, speed * TIMESTEP * count / far)
            stall.rolled = stall.rolled + step
            self._place_vehicle(stall)
            if drags and stall.depth > 0.1 * self.connector.depth:
                # A vehicle without velocity would not drag its plug along.
                address = int(self.model.joint(f"plug{stall.number}").qposadr[0])
                self.data.qpos[address : address + 3] += step
