"""Every topic of the station with its type and quality of service, in one table.

Names are relative: per-EVSE topics live under ``/evseN``, station topics at the root.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, TypeVar

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseWithCovarianceStamped, WrenchStamped
from rclpy.duration import Duration
from rclpy.qos import DurabilityPolicy, HistoryPolicy, LivelinessPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, JointState
from trajectory_msgs.msg import JointTrajectory

from robot_charger import msg
from robot_charger.common.clock import now_ns
from robot_charger.words import convert, services, standard
from robot_charger.words.border import Border, Checkpoint, RefusedError

M = TypeVar("M")
DEADLINE_S = 0.3  # of a watched topic: what is older counts no more (docs/safety.md)
LEASE_S = 1.0  # of the process behind it; shorter costs packets between all of them


def _qos(reliable: bool, latched: bool, depth: int) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


STREAM = _qos(reliable=False, latched=False, depth=1)  # periodic, the newest counts
REPORT = _qos(reliable=True, latched=False, depth=1)
LATCHED = _qos(reliable=True, latched=True, depth=1)
EVENTS = _qos(reliable=True, latched=False, depth=100)


def _watched(reliable: bool) -> QoSProfile:
    """Periodic while the node lives, and from our own nodes only: deadline and liveliness are asked for and watched."""
    qos = _qos(reliable, latched=False, depth=1)
    qos.deadline = Duration(seconds=DEADLINE_S)
    qos.liveliness = LivelinessPolicy.AUTOMATIC
    qos.liveliness_lease_duration = Duration(seconds=LEASE_S)
    return qos


WATCHED_STREAM, WATCHED_REPORT = WATCHED = _watched(reliable=False), _watched(reliable=True)

EVSE_TOPICS: dict[str, tuple[type, QoSProfile]] = {
    "vehicle/target": (msg.VehicleTarget, WATCHED_STREAM),
    "vehicle/link": (msg.VehicleLink, WATCHED_REPORT),
    "power/permit": (msg.ChargePermit, WATCHED_STREAM),
    "power/state": (msg.SupplyState, WATCHED_STREAM),
    "power/limits": (msg.SupplyLimits, LATCHED),
    "power/meter": (msg.MeterReading, REPORT),
    "bay/state": (msg.BayState, REPORT),
    "pilot/command": (msg.PilotCommand, LATCHED),
    "pilot/state": (msg.PilotState, WATCHED_STREAM),
    "robot/permit": (msg.MotionPermit, WATCHED_STREAM),
    "session/state": (msg.SessionState, LATCHED),
    "session/event": (msg.SessionEvent, EVENTS),
    "backend/limit": (msg.ChargingLimit, LATCHED),
    "backend/external_limit": (msg.ChargingLimit, LATCHED),
    "backend/request": (msg.BackendRequest, EVENTS),
    "backend/token": (msg.BackendRequest, EVENTS),
    "fault": (msg.Fault, EVENTS),
}

STATION_TOPICS: dict[str, tuple[type, QoSProfile]] = {
    "/power/modules": (msg.ModuleArray, STREAM),
    "/site/meter": (msg.MeterReading, REPORT),
    "/safety/state": (msg.SafetyState, WATCHED_REPORT),
    "/robot/state": (msg.RobotState, WATCHED_STREAM),
    "/robot/tool": (msg.ToolState, STREAM),
    "/robot/tool_command": (msg.ToolCommand, REPORT),
    "/robot/joint_states": (JointState, STREAM),
    "/robot/wrench": (WrenchStamped, STREAM),
    "/robot/joint_trajectory": (JointTrajectory, REPORT),
    "/robot/inlet_pose": (PoseWithCovarianceStamped, REPORT),
    "/robot/camera/image/compressed": (CompressedImage, STREAM),
    "/backend/state": (msg.BackendState, LATCHED),
    "/backend/token": (msg.BackendRequest, EVENTS),
    "/diagnostics": (DiagnosticArray, EVENTS),
    "/fault": (msg.Fault, EVENTS),
}


def topic(name: str, evse: int | None = None) -> tuple[str, type, QoSProfile]:
    """Full name, type and QoS. ``evse`` is the EVSE's number for per-EVSE topics, None for the station's."""
    if evse is None:
        return (name, *STATION_TOPICS[name])
    return (f"/evse{evse}/{name}", *EVSE_TOPICS[name])


def checked(
    border: Border,
    name: str,
    kind: type,
    callback: Callable[[Any], None],
    danger: Callable[[Any], None] | None = None,
) -> Callable[[Any], None]:
    """A subscription's callback behind the border (words.border): ``callback`` sees checked values only.

    ``danger`` is called instead for what a refused message still stops.
    """
    value_kind = convert.KINDS.get(kind)
    if value_kind is None:
        check = standard.CHECKS[kind.__name__]

        def receive_standard(message: Any) -> None:
            try:
                check(message)
            except (RefusedError, TypeError, ValueError) as error:
                border.refuse(name, error, now_ns())
                return
            callback(message)

        return receive_standard
    checkpoint: Checkpoint[Any] = Checkpoint(border, name, value_kind)

    def receive(message: Any) -> None:
        value, sound = checkpoint.take(message, now_ns())
        if value is None:
            return
        if sound or danger is None:
            callback(value)
        else:
            danger(value)

    return receive


def checked_service(
    border: Border, kind: Any, name: str, answer: Callable[[Any, Any], Any]
) -> Callable[[Any, Any], Any]:
    """A service's callback behind the border: an impossible request is answered as refused, with the reason."""
    check = services.CHECKS.get(kind.__name__)

    def refusal(request: Any) -> str:
        try:
            if check is not None:
                check(request)
        except (RefusedError, TypeError, ValueError) as error:
            border.refuse(name, error, now_ns())
            return str(error)
        return ""

    def serve(request: Any, response: Any) -> Any:
        why = refusal(request)
        return services.refuse(response, why) if why else answer(request, response)

    async def serve_later(request: Any, response: Any) -> Any:
        why = refusal(request)
        return services.refuse(response, why) if why else await answer(request, response)

    return serve_later if inspect.iscoroutinefunction(answer) else serve


_BOUND = re.compile(r"^string<(\d+)>$")
_CASTS: dict[type, dict[str, Callable[[Any], Any]]] = {}


def fill(message: M, **values: Any) -> M:
    """Set fields of a message: text longer than its bound is cut, numbers are cast and brought into the field's range.

    A NaN stays one: its receivers refuse the message by name.
    """
    casts = _CASTS.get(type(message))
    if casts is None:
        kinds = message.get_fields_and_field_types()  # type: ignore[attr-defined]
        casts = _CASTS[type(message)] = {name: _cast(type(message), name, kind) for name, kind in kinds.items()}
    for name, value in values.items():
        setattr(message, name, casts[name](value))
    return message


def _cast(message: type, name: str, kind: str) -> Callable[[Any], Any]:
    """What makes a value fit this field."""
    bound = _BOUND.match(kind)
    if bound:
        length = int(bound[1])
        return lambda value: str(value)[:length]
    if kind in ("float", "double"):
        low, high = convert.bounds(message, name)
        return lambda value: low if value < low else high if value > high else float(value)
    if kind == "boolean":
        return bool
    if kind.startswith(("uint", "int")) and "[" not in kind:
        return int
    return lambda value: value
