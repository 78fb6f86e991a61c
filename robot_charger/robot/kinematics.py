"""Kinematics of any six-axis arm that a URDF describes, on MuJoCo's forward kinematics and Jacobians.

All poses are those of ``gripper_link`` (x = direction of insertion) in the arm's base frame.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import mujoco
import numpy as np

from robot_charger.common.parameters import ParameterError
from robot_charger.robot.spatial import Array, largest, transform, vector_from_rotation

GRIPPER = "gripper_link"
AXES = 6


class Kinematics:
    """Forward and inverse kinematics. Not for use by two threads at once."""

    def __init__(self, urdf: Path) -> None:
        text = urdf.read_text()
        try:
            root = ElementTree.fromstring(text)
            spec = mujoco.MjSpec.from_string(text)
            spec.compiler.fusestatic = False
            self._model = spec.compile()
        except (ElementTree.ParseError, ValueError) as error:
            raise ParameterError(f"{urdf} is no arm that can be read: {error}") from error
        self._data = mujoco.MjData(self._model)
        self.names = [self._model.joint(i).name for i in range(self._model.njnt)]
        self._body = mujoco.mj_name2id(self._model, mujoco.mjtObj.mjOBJ_BODY, GRIPPER)
        if self._model.nv != AXES or self._body < 0:
            raise ParameterError(f"{urdf} must have {AXES} moving joints and a link {GRIPPER}")
        limits = {j.get("name"): j.find("limit") for j in root.iter("joint")}
        self.lower, self.upper = self._model.jnt_range[:, 0].copy(), self._model.jnt_range[:, 1].copy()
        self.velocity = np.array([float(limits[n].get("velocity", 1.0)) for n in self.names])  # type: ignore[union-attr]
        self._jacobian = np.zeros((6, AXES))
        self._halves = self._jacobian[:3], self._jacobian[3:]
        self._square = np.zeros((6, 6))
        self._diagonal = self._square.reshape(-1)[:: 6 + 1]  # view
        self._qpos = self._data.qpos
        self._at, self._turn = self._data.xpos[self._body], self._data.xmat[self._body].reshape(3, 3)  # views

    def forward(self, q: Array) -> Array:
        """Pose of gripper_link for joint angles (6,) [rad]."""
        self._qpos[:] = q
        mujoco.mj_kinematics(self._model, self._data)
        return transform(self._at, self._turn)

    def links(self, q: Array) -> Array:
        """Origins (6, 3) of the moving links for joint angles (6,), root first, without the tool [m]."""
        self._qpos[:] = q
        mujoco.mj_kinematics(self._model, self._data)
        return self._data.xpos[self._model.jnt_bodyid].copy()

    def jacobian(self, q: Array) -> Array:
        """Jacobian (6, 6) of gripper_link in base_link's axes, linear rows first; overwritten by the next call."""
        self._qpos[:] = q
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_comPos(self._model, self._data)
        mujoco.mj_jacBody(self._model, self._data, *self._halves, self._body)
        return self._jacobian

    def _error(self, target: Array) -> tuple[Array, float]:
        """Of the present pose in base_link's axes (6,), and its largest part [m, rad]."""
        error = np.empty(6)
        error[:3] = target[:3, 3] - self._at
        error[3:] = self._turn @ vector_from_rotation(self._turn.T @ target[:3, :3])
        return error, largest(error)

    def _damped(self, error: Array, damping: float) -> Array:
        """Least squares step (6,) of the joints for ``error``, by the present Jacobian, with ``damping`` above zero."""
        np.matmul(self._jacobian, self._jacobian.T, out=self._square)
        self._diagonal += damping
        mujoco.mju_cholFactor(self._square, 0.0)
        solution = np.empty(6)
        mujoco.mju_cholSolve(solution, self._square, error)
        return solution @ self._jacobian

    def inverse(
        self, target: Array, seed: Array, iterations: int = 60, tolerance: float = 2e-5, max_step: float = 0.3
    ) -> Array | None:
        """Joint angles (6,) near ``seed`` that bring gripper_link to ``target``; None when out of reach.

        Damped least squares with a damping that falls with the error; joint limits are kept by clipping.
        ``tolerance`` is in m and rad alike.
        """
        q = np.array(seed, dtype=float)
        for _ in range(iterations):
            self.jacobian(q)
            error, size = self._error(target)
            if size < tolerance:
                return q
            damping = min(1e-4, 1e-2 * size * size) + 1e-9
            step = self._damped(error, damping)
            size = largest(step)
            if size > max_step:
                step *= max_step / size
            q = self._clipped(q + step)
        return None

    def follow(self, target: Array, q: Array) -> tuple[Array, float]:
        """One Newton step from ``q`` towards a near ``target``: new joint angles and the error left over [m, rad]."""
        self.jacobian(q)
        error, size = self._error(target)
        return self._clipped(q + self._damped(error, 1e-8)), size

    def _clipped(self, q: Array) -> Array:
        return np.minimum(np.maximum(q, self.lower), self.upper)

    def manipulability(self, q: Array) -> float:
        """Smallest singular value of the Jacobian: near zero at a singular posture."""
        return float(np.linalg.svd(self.jacobian(q), compute_uv=False)[-1])
