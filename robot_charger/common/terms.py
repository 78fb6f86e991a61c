"""The words that several nodes share, as plain Python, so that logic without ROS can say them.

The numbers are those of the messages: msg/*.msg is the truth, and a test holds these tables against it.
"""

from __future__ import annotations

from enum import IntEnum


class Phase(IntEnum):
    """Of a session: SessionState.PHASE_*."""

    IDLE = 0
    POSITIONING = 1
    CONNECTING = 2
    MATED = 3
    RELEASED = 4
    LINKING = 5
    CABLE_CHECK = 6
    PRECHARGE = 7
    CHARGING = 8
    STOPPING = 9
    GRASPED = 10
    DISCONNECTING = 11
    DEPARTING = 12
    FAULTED = 13
    UNAVAILABLE = 14


class Authorization(IntEnum):
    """SessionState.AUTHORIZATION_*."""

    NONE = 0
    PENDING = 1
    ACCEPTED = 2
    REFUSED = 3


class Shutdown(IntEnum):
    """Class of a stop (IEC 61851-23): SessionState.SHUTDOWN_*."""

    NONE = 0
    NORMAL = 1
    ERROR = 2
    EMERGENCY = 3


class Purpose(IntEnum):
    """Of a target and of a permit: VehicleTarget.PURPOSE_*, ChargePermit.PURPOSE_*."""

    NONE = 0
    INSULATION_TEST = 1
    PRECHARGE = 2
    TRANSFER = 3


class Zone(IntEnum):
    """Where the arm may move: MotionPermit.ZONE_*."""

    NONE = 0
    FREE = 1
    CONTACT = 2


class Link(IntEnum):
    """How far the conversation with the vehicle is: VehicleLink.PHASE_*."""

    IDLE = 0
    MATCHING = 1
    LINKED = 2
    SESSION = 3
    PARAMETERS = 4
    CABLE_CHECK = 5
    PRECHARGE = 6
    CHARGING = 7
    STOPPING = 8
    WELDING_CHECK = 9
    ENDED = 10
    FAILED = 11
    PAUSED = 12
    CONNECTING = 13  # ACDP: the vehicle asks the charging device to connect
    DISCONNECTING = 14  # ACDP: it asks the device to disconnect; nothing flows any more


class Lock(IntEnum):
    """Of the connector: VehicleLink.LOCK_*."""

    UNKNOWN = 0
    UNLOCKED = 1
    LOCKED = 2
    FAULT = 3


class Insulation(IntEnum):
    """SupplyState.INSULATION_*."""

    UNKNOWN = 0
    TESTING = 1
    VALID = 2
    WARNING = 3
    FAULT = 4
    SELF_TEST_FAILED = 5


class PilotMode(IntEnum):
    """What the pilot's generator puts on the wire: PilotCommand.MODE_*."""

    OFF = 0
    STEADY = 1
    PWM = 2
    F = 3
    PULSE_E = 4
    PULSE_F = 5
