"""Rigid transforms as 4x4 arrays, quaternions as (x, y, z, w), small rotations as vectors [rad]."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_UNIT = np.eye(4)


def transform(xyz: Sequence[float] | Array = (0.0, 0.0, 0.0), rotation: Array | None = None) -> Array:
    """Transform from a translation [m] and a 3x3 rotation."""
    result = _UNIT.copy()
    result[:3, 3] = xyz
    if rotation is not None:
        result[:3, :3] = rotation
    return result


def from_xyz_rpy(xyz: Sequence[float], rpy: Sequence[float] = (0.0, 0.0, 0.0)) -> Array:
    """Transform from a translation [m] and roll, pitch, yaw about fixed axes (URDF's rule) [rad]."""
    (cr, cp, cy), (sr, sp, sy) = np.cos(rpy), np.sin(rpy)
    rotation = np.array(
        [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
            [-sp, cp * sr, cp * cr],
        ]
    )
    return transform(xyz, rotation)


def inverse(pose: Array) -> Array:
    result = _UNIT.copy()
    result[:3, :3] = turned = pose[:3, :3].T
    result[:3, 3] = -(turned @ pose[:3, 3])
    return result


def from_vector(vector: Sequence[float] | Array) -> Array:
    """Transform from (x, y, z, rx, ry, rz): a translation [m], and axis times angle [rad]."""
    dx, dy, dz, x, y, z = vector.tolist() if isinstance(vector, np.ndarray) else vector
    angle = math.sqrt(x * x + y * y + z * z)
    if angle < 1e-12:
        return np.array((1.0, -z, y, dx, z, 1.0, -x, dy, -y, x, 1.0, dz, 0.0, 0.0, 0.0, 1.0)).reshape(4, 4)
    x, y, z = x / angle, y / angle, z / angle
    c, s = math.cos(angle), math.sin(angle)
    t = 1.0 - c
    tx, ty, tz, sx, sy, sz = t * x, t * y, t * z, s * x, s * y, s * z
    return np.array(
        (
            *(tx * x + c, tx * y - sz, tx * z + sy, dx),
            *(tx * y + sz, ty * y + c, ty * z - sx, dy),
            *(tx * z - sy, ty * z + sx, tz * z + c, dz),
            *(0.0, 0.0, 0.0, 1.0),
        )
    ).reshape(4, 4)


def vector_from_rotation(rotation: Array) -> Array:
    """Axis times angle [rad], angle in [0, pi]."""
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = rotation.tolist()
    x, y, z = zy - yz, xz - zx, yx - xy
    sine = 0.5 * math.sqrt(x * x + y * y + z * z)
    cosine = 0.5 * (xx + yy + zz - 1.0)
    angle = math.atan2(sine, cosine)
    if sine > 1e-9 or cosine > 0.0:
        size = 0.5 * angle / sine if sine > 1e-9 else 0.5
        return np.array((x * size, y * size, z * size))
    values, vectors = np.linalg.eigh(0.5 * (rotation + rotation.T))  # half a turn: the eigenvector of 1 is the axis
    return vectors[:, int(np.argmax(values))] * math.pi


def moved(pose: Array, twist: Sequence[float] | Array) -> Array:
    """``pose`` moved by a small step (dx, dy, dz, rx, ry, rz) told in its own axes."""
    return pose @ from_vector(twist)


def local(frame: Array, point: Array) -> list[float]:
    """``point`` (3,) as told in ``frame``."""
    told: list[float] = ((point - frame[:3, 3]) @ frame[:3, :3]).tolist()
    return told


def largest(vector: Array) -> float:
    """Largest part (n,) by size. For a few numbers much faster than NumPy's own."""
    return max(map(abs, vector.tolist()))


def difference(start: Array, end: Array) -> Array:
    """Step (dx, dy, dz, rx, ry, rz) in ``start``'s axes that leads to ``end``; rotation about its own origin."""
    turned = start[:3, :3].T
    result = np.empty(6)
    result[:3] = turned @ (end[:3, 3] - start[:3, 3])
    result[3:] = vector_from_rotation(turned @ end[:3, :3])
    return result


def from_quaternion(xyz: Sequence[float], xyzw: Sequence[float]) -> Array:
    """Transform from a translation and a quaternion of any length but zero. Raises ValueError on zero or NaN."""
    q = np.asarray(xyzw, dtype=float)
    norm = math.sqrt(float(q @ q))
    if not norm > 1e-6:
        raise ValueError("a quaternion of length zero is no direction")
    x, y, z, w = q / norm
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    return transform(xyz, rotation)


def quaternion(rotation: Array) -> tuple[float, float, float, float]:
    """(x, y, z, w) of a 3x3 rotation."""
    vector = vector_from_rotation(rotation)
    angle = math.sqrt(float(vector @ vector))
    if angle < 1e-12:
        return 0.0, 0.0, 0.0, 1.0
    s = math.sin(0.5 * angle) / angle
    return float(vector[0] * s), float(vector[1] * s), float(vector[2] * s), math.cos(0.5 * angle)


def within(low: float, value: float, high: float) -> float:
    return min(max(low, value), high)


def length(vector: Array) -> float:
    """Euclidean length of a vector (n,). For a few numbers faster than NumPy's own."""
    return math.sqrt(float(vector @ vector))


def limited(vector: Array, most: float) -> Array:
    """Each part within +-``most``."""
    return np.minimum(np.maximum(vector, -most), most)
