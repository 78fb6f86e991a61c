"""The border for standard messages: joint states, wrenches, poses, trajectories, pictures, diagnostics.

A function for each type. It raises RefusedError for a message that may not be believed and returns nothing: the message
is then used as it is. Arrays are checked whole, by NumPy. Units: radians, newtons, metres.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from robot_charger.words.border import RefusedError
from robot_charger.words.values import ModuleState, Rule

MOST_JOINTS = 64
MOST_POINTS = 1000
MOST_PICTURE = 32 << 20  # [bytes]
LONGEST_NAME = 256
MOST_RAD = 100.0  # a joint that turned further is a broken encoder
MOST_RAD_S = 100.0
MOST_N, MOST_NM = 1e5, 1e4  # no arm or sensor that carries a plug reaches these
MOST_M = 1000.0  # [m] an inlet further away is not of this station
MOST_LOAD = 10.0  # [1] share of a bus that its frames used; more is no measurement
MODULE_RULES: dict[str, Rule] = {
    f.name: f.metadata["rule"] for f in dataclasses.fields(ModuleState) if "rule" in f.metadata
}
UNIT = 0.01  # how far a quaternion's length may be from 1


def _numbers(name: str, given: Iterable[float], most: float) -> None:
    array = np.asarray(given, dtype=float)
    if not np.all(np.abs(array) <= most):  # a NaN fails the comparison
        raise RefusedError(name, f"holds a value that is not a number in -{most:g}..{most:g}")


def _name(name: str, text: str) -> None:
    if len(text) > LONGEST_NAME:
        raise RefusedError(name, f"has {len(text)} characters, at most {LONGEST_NAME}")


def _time(name: str, stamp: Any) -> None:
    if stamp.nanosec >= 1_000_000_000:
        raise RefusedError(name, f"has {stamp.nanosec} nanoseconds: below 1000000000")


def _header(message: Any) -> None:
    _time("header.stamp", message.header.stamp)
    _name("header.frame_id", message.header.frame_id)


def _joints(names: list[str]) -> int:
    if not 0 < len(names) <= MOST_JOINTS or len(set(names)) != len(names):
        raise RefusedError("name", f"must hold 1 to {MOST_JOINTS} different joints, not {len(names)}")
    return len(names)


def joint_state(message: Any) -> None:
    """sensor_msgs/JointState: one finite position for each joint; velocity and effort empty or as many."""
    _header(message)
    count = _joints(list(message.name))
    if len(message.position) != count:
        raise RefusedError("position", f"has {len(message.position)} values for {count} joints")
    _numbers("position", message.position, MOST_RAD)
    for name, given in (("velocity", message.velocity), ("effort", message.effort)):
        if len(given) not in (0, count):
            raise RefusedError(name, f"has {len(given)} values for {count} joints")


def wrench(message: Any) -> None:
    """geometry_msgs/WrenchStamped: finite forces and torques."""
    _header(message)
    force, torque = message.wrench.force, message.wrench.torque
    _numbers("wrench.force", (force.x, force.y, force.z), MOST_N)
    _numbers("wrench.torque", (torque.x, torque.y, torque.z), MOST_NM)


def pose(message: Any) -> None:
    """geometry_msgs/PoseWithCovarianceStamped: finite, a unit quaternion, variances that are not negative."""
    _header(message)
    at, turn = message.pose.pose.position, message.pose.pose.orientation
    _numbers("pose.position", (at.x, at.y, at.z), MOST_M)
    length = float(np.linalg.norm((turn.x, turn.y, turn.z, turn.w)))
    if not abs(length - 1.0) <= UNIT:
        raise RefusedError("pose.orientation", f"has length {length:g}, not 1")
    covariance = np.asarray(message.pose.covariance, dtype=float)
    if np.isnan(covariance).any() or (covariance[::7] < 0.0).any():
        raise RefusedError("pose.covariance", "is not a number, or a variance is negative")


def trajectory(message: Any) -> None:
    """trajectory_msgs/JointTrajectory: each point as long as the names, finite, times that rise from zero."""
    _header(message)
    count = _joints(list(message.joint_names))
    if not 0 < len(message.points) <= MOST_POINTS:
        raise RefusedError("points", f"must be 1 to {MOST_POINTS}, not {len(message.points)}")
    before = -1
    for point in message.points:
        _time("time_from_start", point.time_from_start)
        if len(point.positions) != count or len(point.velocities) not in (0, count):
            raise RefusedError("points", f"have {len(point.positions)} positions for {count} joints")
        _numbers("positions", point.positions, MOST_RAD)
        _numbers("velocities", point.velocities, MOST_RAD_S)
        at = int(point.time_from_start.sec) * 1_000_000_000 + int(point.time_from_start.nanosec)
        if at < 0 or at <= before:
            raise RefusedError("time_from_start", "does not rise from point to point")
        before = at


def picture(message: Any) -> None:
    """sensor_msgs/CompressedImage: not empty, not larger than a picture."""
    _header(message)
    if not 0 < len(message.data) <= MOST_PICTURE:
        raise RefusedError("data", f"has {len(message.data)} bytes: 1 to {MOST_PICTURE}")


def diagnostics(message: Any) -> None:
    """diagnostic_msgs/DiagnosticArray: levels 0 to 3."""
    for status in message.status:
        if not status.level or status.level[0] > 3:
            raise RefusedError("status.level", f"= {status.level!r} is unknown: 0 to 3")


def modules(message: Any) -> None:
    """ModuleArray: every number of every module in its range (words.values.ModuleState).

    Checked column by column: a bank has hundreds of modules.
    """
    if not 0.0 <= message.bus_load <= MOST_LOAD:
        raise RefusedError("bus_load", f"= {message.bus_load:g} is not in 0..{MOST_LOAD:g}")
    for name, rule in MODULE_RULES.items():
        column = np.fromiter((getattr(m, name) for m in message.modules), float, len(message.modules))
        low, high = (min(rule.enum), max(rule.enum)) if rule.enum else (rule.low, rule.high)
        if not np.all((column >= low) & (column <= high)):  # a NaN fails the comparison
            raise RefusedError(f"modules.{name}", f"holds a value that is not a number in {low:g}..{high:g}")


CHECKS: dict[str, Callable[[Any], None]] = {
    "JointState": joint_state,
    "WrenchStamped": wrench,
    "PoseWithCovarianceStamped": pose,
    "JointTrajectory": trajectory,
    "CompressedImage": picture,
    "DiagnosticArray": diagnostics,
    "ModuleArray": modules,
}
