"""Faults as logic reports them, and the one table from a robot's error to the station's fault.

The codes and severities are those of msg/Fault.msg.
"""

from __future__ import annotations

from dataclasses import dataclass

from robot_charger.words.values import Code, RobotErrorCode, Severity

__all__ = ["ROBOT_FAULTS", "Code", "FaultReport", "Severity"]

# Error of a robot's action -> fault of the station. NONE: nothing is broken.
ROBOT_FAULTS: dict[RobotErrorCode, Code] = {
    RobotErrorCode.NONE: Code.NONE,
    RobotErrorCode.CANCELLED: Code.NONE,
    RobotErrorCode.BUSY: Code.NONE,
    RobotErrorCode.BAD_GOAL: Code.NONE,
    RobotErrorCode.NO_PERMIT: Code.ROBOT_PERMIT,
    RobotErrorCode.NO_POSE: Code.ROBOT_POSE,
    RobotErrorCode.OUT_OF_REACH: Code.ROBOT_POSE,
    RobotErrorCode.JAMMED: Code.ROBOT_JAM,
    RobotErrorCode.FORCE_LIMIT: Code.ROBOT_FORCE,
    RobotErrorCode.NOT_SEATED: Code.ROBOT_NOT_MATED,
    RobotErrorCode.SENSOR: Code.ROBOT_SENSOR,
    RobotErrorCode.VEHICLE_MOVED: Code.ROBOT_VEHICLE_MOVED,
    RobotErrorCode.FIELD_BREACHED: Code.FIELD_BREACHED,
    RobotErrorCode.STUCK: Code.ROBOT_STUCK,
    RobotErrorCode.TOOL: Code.ROBOT_ARM,
    RobotErrorCode.TIMEOUT: Code.ROBOT_NOT_MATED,
    RobotErrorCode.FLAP_CLOSED: Code.ROBOT_POSE,
    RobotErrorCode.WRONG_INLET: Code.ROBOT_POSE,
    RobotErrorCode.EMERGENCY: Code.EMERGENCY_STOP,
    RobotErrorCode.OBSTACLE: Code.ROBOT_OBSTACLE,
}


@dataclass(frozen=True)
class FaultReport:
    """One fault as logic reports it; the node adds source, time and session."""

    code: Code
    severity: Severity
    text: str
    active: bool = True
