"""``robot-charger permit``: a person's motion permit, to commission an arm where no supervisor runs.

It stands in the supervisor's place towards the robot's node and keeps what interlock 7 asks of it (docs/safety.md): no
motion without a living safety controller, with an emergency stop, a breached field, a vehicle that may roll, or energy
at the plug. A supervisor, before or while it runs, ends it: one of the two decides.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.signals import SignalHandlerOptions

from robot_charger import msg
from robot_charger.common.clock import now_ns
from robot_charger.common.topics import EVENTS, checked, fill, topic
from robot_charger.words.border import Border

NAME = "hand_permit"
NONE = msg.MotionPermit.ZONE_NONE
ZONES = {"free": msg.MotionPermit.ZONE_FREE, "contact": msg.MotionPermit.ZONE_CONTACT}
HEARD = {"safety": ("/safety/state", False), "bay": ("bay/state", True), "power": ("power/state", True)}  # of the EVSE?
AGES_S = {"safety": 0.3, "bay": 1.0, "power": 0.3}  # what is older is not known
PERIOD_S, DISCOVERY_S = 0.05, 2.0
LOOK_EVERY, DIAGNOSE_EVERY = 10, 20  # periods: has a supervisor come; tell /diagnostics
SAFE_V = 60.0  # IEC 61851-23: touch-safe DC


class PermitError(RuntimeError):
    """No permit by hand here; the text says why, for a person."""


def forbids(safety: Any, bay: Any, power: Any) -> str:
    """Why the arm must stand still, empty when it may move. None is what is not heard, or no longer.

    Of types SafetyState, BayState and SupplyState (``power/state``).
    """
    if safety is None or not safety.alive:
        return "the safety controller is silent: does /power run, and is it active?"
    if safety.emergency_stop:
        return "emergency stop"
    if bay is None:
        return "the bay is not known: does /power run with this EVSE?"
    if not bay.field_clear:
        return "the protective field of the bay is breached"
    if bay.occupied and not bay.immobilised:
        return "the vehicle is not immobilised"
    if power is None:
        return "whether the plug is dead is not known: does /power run with this EVSE?"
    if power.contactors_closed or not abs(power.voltage_v) <= SAFE_V:
        contactors = "closed" if power.contactors_closed else "open"
        return f"the plug is not dead: {abs(power.voltage_v):.0f} V, contactors {contactors}"
    return ""


class HandPermit:
    """Publishes ``robot/permit`` of one EVSE and says on /diagnostics that a person permits motion."""

    def __init__(self, node: Any, evse: int, zone: str, say: Callable[[str], None]) -> None:
        self._node, self._evse, self._zone, self._say = node, evse, zone, say
        self._heard: dict[str, Any] = {}
        self._border = Border(say)
        for key, (name, number) in HEARD.items():
            full, kind, qos = topic(name, evse if number else None)
            keep = partial(self._heard.__setitem__, key)
            node.create_subscription(kind, full, checked(self._border, full, kind, keep), qos)
        self._topic, kind, qos = topic("robot/permit", evse)
        self._publisher = node.create_publisher(kind, self._topic, qos)
        self._diagnostics = node.create_publisher(DiagnosticArray, "/diagnostics", EVENTS)
        self._count = self._number = 0
        self._said: str | None = None

    def tick(self) -> None:
        """To be called every ``PERIOD_S``. Raises PermitError when somebody else gives this permit."""
        if self._count % LOOK_EVERY == 0:
            self._look()
        if self._count % DIAGNOSE_EVERY == 0:
            self._diagnose()
        self._count += 1
        reason = forbids(*(self._newest(key) for key in HEARD))
        if reason != self._said:
            self._said = reason
            self._say(f"no motion: {reason}" if reason else f"the arm may move at EVSE {self._evse}: {self._zone} zone")
        self._publish(NONE if reason else ZONES[self._zone], reason or "by hand")

    def withdraw(self) -> None:
        """The arm stands still now; without it, in 300 ms. Told again, for one message may be lost."""
        for _ in range(4):
            self._publish(NONE, "ended by hand")
            time.sleep(PERIOD_S)

    def _newest(self, key: str) -> Any:
        message = self._heard.get(key)
        return message if message and now_ns() - message.stamp_ns <= AGES_S[key] * 1e9 else None

    def _publish(self, zone: int, reason: str) -> None:
        self._number += 1
        values = {"number": self._number, "evse": self._evse, "zone": zone, "reason": reason}
        self._publisher.publish(fill(msg.MotionPermit(), stamp_ns=now_ns(), **values))

    def _diagnose(self) -> None:
        status = DiagnosticStatus(name=f"/{NAME}", hardware_id=f"EVSE {self._evse}", level=DiagnosticStatus.WARN)
        status.message = "a person permits the arm to move, no supervisor does"
        array = DiagnosticArray(status=[status])
        array.header.stamp = self._node.get_clock().now().to_msg()
        self._diagnostics.publish(array)

    def _look(self) -> None:
        publishers = self._node.get_publishers_info_by_topic(self._topic)
        if others := {p.node_name for p in publishers} - {self._node.get_name()}:
            told = ", ".join(sorted(others))
            raise PermitError(f"{self._topic} comes from {told} already: where a supervisor runs, it permits motion")


def run(evse: int, zone: str, say: Callable[[str], None]) -> None:
    """Permit motion until Ctrl-C. Raises PermitError when a supervisor is there, or comes."""
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node(NAME, enable_rosout=False, start_parameter_services=False)
    permit = HandPermit(node, evse, zone, say)
    due = time.monotonic() + DISCOVERY_S  # who else is there?
    try:
        while True:
            rclpy.spin_once(node, timeout_sec=max(0.0, due - time.monotonic()))
            if time.monotonic() >= due:
                permit.tick()
                due += PERIOD_S
    except KeyboardInterrupt:
        permit.withdraw()
        say("ended: the arm holds")
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
