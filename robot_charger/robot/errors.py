"""Error codes of the robot's actions (Connect.action) and the exceptions that carry them, one to one."""

from __future__ import annotations

from enum import IntEnum

from robot_charger.common.faults import Code


class ErrorCode(IntEnum):
    """``ERROR_*`` of Connect.action; a test holds this table against it."""

    NONE = 0
    CANCELLED = 1
    BUSY = 2
    BAD_GOAL = 3
    NO_PERMIT = 4
    NO_POSE = 5
    OUT_OF_REACH = 6
    JAMMED = 7
    FORCE_LIMIT = 8
    NOT_SEATED = 9
    SENSOR = 10
    VEHICLE_MOVED = 11
    FIELD_BREACHED = 12
    STUCK = 13
    TOOL = 14
    TIMEOUT = 15
    FLAP_CLOSED = 16
    WRONG_INLET = 17
    EMERGENCY = 18
    OBSTACLE = 19


class RobotError(Exception):
    """Why an action ended. ``code`` is told in its result.

    ``again``: another attempt may help. ``stay``: the arm must not move any more; without it the arm goes to a
    safe pose by itself. ``fault``: code of the station's fault table, NONE when nothing is broken.
    """

    code = ErrorCode.NONE
    again = False
    stay = False
    fault = Code.NONE


class Cancelled(RobotError):
    code, stay = ErrorCode.CANCELLED, True


class Busy(RobotError):
    code, stay = ErrorCode.BUSY, True


class BadGoal(RobotError):
    code, stay = ErrorCode.BAD_GOAL, True


class NoPermit(RobotError):
    """No valid motion permit, or it lapsed for longer than the grace."""

    code, stay, fault = ErrorCode.NO_PERMIT, True, Code.ROBOT_PERMIT


class NoPose(RobotError):
    """The inlet is not seen, the estimate is stale, wild or not finite."""

    code, fault = ErrorCode.NO_POSE, Code.ROBOT_POSE


class OutOfReach(RobotError):
    code, fault = ErrorCode.OUT_OF_REACH, Code.ROBOT_POSE


class Jammed(RobotError):
    code, again, fault = ErrorCode.JAMMED, True, Code.ROBOT_JAM


class ForceLimit(RobotError):
    code, again, fault = ErrorCode.FORCE_LIMIT, True, Code.ROBOT_FORCE


class NotSeated(RobotError):
    code, again, fault = ErrorCode.NOT_SEATED, True, Code.ROBOT_NOT_MATED


class Drifted(RobotError):
    """The wrench is off by some newtons since its last zero: the next attempt takes another."""

    code, again, fault = ErrorCode.SENSOR, True, Code.ROBOT_SENSOR


class SensorError(RobotError):
    """Wrench or joint states dead, frozen or biased."""

    code, stay, fault = ErrorCode.SENSOR, True, Code.ROBOT_SENSOR


class WrenchError(SensorError):
    """The wrench is wrong before any contact: the arm can still go home."""

    stay = False


class VehicleMoved(RobotError):
    code, fault = ErrorCode.VEHICLE_MOVED, Code.ROBOT_VEHICLE_MOVED


class FieldBreached(RobotError):
    code, stay, fault = ErrorCode.FIELD_BREACHED, True, Code.FIELD_BREACHED


class Stuck(RobotError):
    code, again, fault = ErrorCode.STUCK, True, Code.ROBOT_STUCK


class ToolError(RobotError):
    code, fault = ErrorCode.TOOL, Code.ROBOT_ARM


class PlugHeld(ToolError):
    """The hand would have to open on a plug that nothing else holds: it stays as it is, for a person."""

    stay = True


class TimedOut(RobotError):
    code, again, fault = ErrorCode.TIMEOUT, True, Code.ROBOT_NOT_MATED


class FlapClosed(RobotError):
    code, fault = ErrorCode.FLAP_CLOSED, Code.ROBOT_POSE


class WrongInlet(RobotError):
    code, fault = ErrorCode.WRONG_INLET, Code.ROBOT_POSE


class Emergency(RobotError):
    code, stay, fault = ErrorCode.EMERGENCY, True, Code.EMERGENCY_STOP


class Obstacle(RobotError):
    """Contact where none is expected: a person or a thing. One more look and one more attempt, then a person comes."""

    code, fault = ErrorCode.OBSTACLE, Code.ROBOT_OBSTACLE
