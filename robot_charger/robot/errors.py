"""Error codes of the robot's actions (Connect.action) and the exceptions that carry them, one to one."""

from __future__ import annotations

from robot_charger.common.faults import ROBOT_FAULTS, Code
from robot_charger.words.values import RobotErrorCode as ErrorCode


class RobotError(Exception):
    """Why an action ended. ``code`` is told in its result.

    ``again``: another attempt may help. ``stay``: the arm must not move any more; without it the arm goes to a
    safe pose by itself.
    """

    code = ErrorCode.NONE
    again = False
    stay = False

    @property
    def fault(self) -> Code:
        """Code of the station's fault table, NONE when nothing is broken."""
        return ROBOT_FAULTS[self.code]


class Cancelled(RobotError):
    code, stay = ErrorCode.CANCELLED, True


class Busy(RobotError):
    code, stay = ErrorCode.BUSY, True


class BadGoal(RobotError):
    code, stay = ErrorCode.BAD_GOAL, True


class NoPermit(RobotError):
    """No valid motion permit, or it lapsed for longer than the grace."""

    code, stay = ErrorCode.NO_PERMIT, True


class NoPose(RobotError):
    """The inlet is not seen, the estimate is stale, wild or not finite."""

    code = ErrorCode.NO_POSE


class OutOfReach(RobotError):
    code = ErrorCode.OUT_OF_REACH


class Jammed(RobotError):
    code, again = ErrorCode.JAMMED, True


class ForceLimit(RobotError):
    code, again = ErrorCode.FORCE_LIMIT, True


class NotSeated(RobotError):
    code, again = ErrorCode.NOT_SEATED, True


class Drifted(RobotError):
    """The wrench is off by some newtons since its last zero: the next attempt takes another."""

    code, again, fault = ErrorCode.SENSOR, True, Code.ROBOT_SENSOR


class SensorError(RobotError):
    """Wrench or joint states dead, frozen or biased."""

    code, stay = ErrorCode.SENSOR, True


class WrenchError(SensorError):
    """The wrench is wrong before any contact: the arm can still go home."""

    stay = False


class VehicleMoved(RobotError):
    code = ErrorCode.VEHICLE_MOVED


class FieldBreached(RobotError):
    code, stay = ErrorCode.FIELD_BREACHED, True


class Stuck(RobotError):
    code, again = ErrorCode.STUCK, True


class ToolError(RobotError):
    code = ErrorCode.TOOL


class PlugHeld(ToolError):
    """The hand would have to open on a plug that nothing else holds: it stays as it is, for a person."""

    stay = True


class TimedOut(RobotError):
    code, again = ErrorCode.TIMEOUT, True


class FlapClosed(RobotError):
    code = ErrorCode.FLAP_CLOSED


class WrongInlet(RobotError):
    code = ErrorCode.WRONG_INLET


class Emergency(RobotError):
    code, stay = ErrorCode.EMERGENCY, True


class Obstacle(RobotError):
    """Contact where none is expected: a person or a thing. One more look and one more attempt, then a person comes."""

    code = ErrorCode.OBSTACLE
