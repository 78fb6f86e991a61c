"""The one fault table (msg/Fault.msg) as plain Python, so that logic without ROS can name a code.

``Fault.msg`` is the truth; a test holds this table against it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Severity(IntEnum):
    WARNING = 1
    DERATE = 2
    STOP = 3
    EMERGENCY = 4


class Code(IntEnum):
    NONE = 0
    PILOT_LEVEL = 101
    PILOT_DIODE = 102
    PILOT_SHORT = 103
    PILOT_GENERATOR = 104
    PILOT_DRIVER = 105
    PROXIMITY = 106
    PILOT_LOST = 107
    SLAC_FAILED = 201
    LINK_LOST = 202
    V2G_TIMEOUT = 203
    V2G_SEQUENCE = 204
    V2G_DECODE = 205
    V2G_TLS = 206
    V2G_VEHICLE_ERROR = 207
    V2G_SILENT = 208
    V2G_INTERNAL = 209
    SECOND_VEHICLE = 210
    CHADEMO_TIMEOUT = 301
    CHADEMO_SILENT = 302
    CHADEMO_VEHICLE_FAULT = 303
    CHADEMO_INCOMPATIBLE = 304
    CHADEMO_WIRES = 305
    CHADEMO_LOCK = 306
    CHADEMO_FRAME = 307
    GBT_TIMEOUT = 351
    GBT_SILENT = 352
    GBT_VEHICLE_FAULT = 353
    GBT_INCOMPATIBLE = 354
    GBT_WIRES = 355
    GBT_LOCK = 356
    GBT_FRAME = 357
    MODULE_LOST = 401
    MODULE_FAULT = 402
    POWER_BUS = 403
    POWER_BUS_LOAD = 404
    CONTACTOR_FEEDBACK = 405
    CONTACTOR_WELDED = 406
    OVERVOLTAGE = 407
    OVERCURRENT = 408
    PRECHARGE = 409
    DISCHARGE = 410
    METER = 411
    PERMIT_LAPSED = 412
    OVERTEMPERATURE = 413
    NO_MODULES = 414
    ADDRESS_CLASH = 415
    REVERSED_POLARITY = 416
    INSULATION = 501
    INSULATION_CHARGING = 502
    INSULATION_SELF_TEST = 503
    EMERGENCY_STOP = 504
    DOOR = 505
    SAFETY_LOST = 506
    FIELD_BREACHED = 507
    FIRE = 508
    MAINS_LOST = 509
    SAFETY_TRIP = 510
    ROBOT_JAM = 601
    ROBOT_FORCE = 602
    ROBOT_POSE = 603
    ROBOT_SENSOR = 604
    ROBOT_NOT_MATED = 605
    ROBOT_STUCK = 606
    ROBOT_VEHICLE_MOVED = 607
    ROBOT_PERMIT = 608
    ROBOT_ARM = 609
    ROBOT_OBSTACLE = 610
    BACKEND_OFFLINE = 701
    BACKEND_REFUSED = 702
    BACKEND_STORE = 703
    BACKEND_TLS = 704
    NODE_LOST = 801
    AUTHORIZATION = 802
    VEHICLE_GONE = 803
    TIMEOUT = 804
    INTERLOCK = 805
    INTERNAL = 899


@dataclass(frozen=True)
class FaultReport:
    """One fault as logic reports it; the node adds source, time and session."""

    code: Code
    severity: Severity
    text: str
    active: bool = True
