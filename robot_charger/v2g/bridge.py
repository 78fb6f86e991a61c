"""What the V2G thread and the rest of the station know of each other, as plain values.

``Station`` flows in (session, supply, limits, permit, meter), ``Vehicle`` flows out (target and link). Both are
immutable snapshots that are replaced whole, so no reader ever sees half of a change.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from robot_charger.common.clock import SECOND, now_ns
from robot_charger.common.faults import Code
from robot_charger.words.values import Authorization, Insulation, Link, Lock, Phase, Purpose, Shutdown

SUPERVISOR_SILENT_S = 1.5  # session/state comes at 5 Hz
INLET_AGE_S = 1.5  # a camera that looks at several bays in turn tells of each about once a second
TALKING = frozenset({Phase.LINKING, Phase.CABLE_CHECK, Phase.PRECHARGE, Phase.CHARGING, Phase.STOPPING})
# Phases of the supervisor in which an ACDP vehicle is talked to: from parking to the arm at home again.
TALKING_ACDP = frozenset(
    {
        Phase.POSITIONING,
        Phase.CONNECTING,
        Phase.MATED,
        Phase.RELEASED,
        Phase.LINKING,
        Phase.CABLE_CHECK,
        Phase.PRECHARGE,
        Phase.CHARGING,
        Phase.STOPPING,
        Phase.GRASPED,
        Phase.DISCONNECTING,
        Phase.DEPARTING,  # for the vehicle's SessionStopReq
    }
)


@dataclass(frozen=True)
class Station:
    """What the station says to the vehicle's conversation. Positive current flows into the vehicle."""

    # session/state
    session_stamp_ns: int = 0
    session_id: str = ""
    phase: int = Phase.IDLE
    authorization: int = Authorization.NONE
    stop_requested: bool = False
    shutdown: int = Shutdown.NONE
    # power/permit
    permit_number: int = 0
    permit_purpose: int = Purpose.NONE
    permit_max_voltage_v: float = 0.0
    permit_max_current_a: float = 0.0
    permit_max_power_w: float = 0.0
    permit_min_current_a: float = 0.0
    permit_min_power_w: float = 0.0
    # power/state
    voltage_v: float = 0.0
    current_a: float = 0.0
    contactors_closed: bool = False
    insulation: int = Insulation.UNKNOWN
    insulation_permit_number: int = 0
    voltage_limited: bool = False
    current_limited: bool = False
    power_limited: bool = False
    # power/limits
    supply_available: bool = False
    max_voltage_v: float = 0.0
    min_voltage_v: float = 0.0
    max_current_a: float = 0.0
    min_current_a: float = 0.0
    max_power_w: float = 0.0
    max_export_current_a: float = 0.0
    max_export_power_w: float = 0.0
    current_ripple_a: float = 1.0
    # backend/limit
    backend_max_current_a: float = math.inf
    backend_max_power_w: float = math.inf
    backend_min_power_w: float = 0.0
    # power/meter
    meter_valid: bool = False
    meter_serial: str = ""
    meter_import_wh: float = 0.0
    meter_export_wh: float = 0.0
    meter_time_s: float = 0.0  # wall clock of the reading [s since 1970]
    # pilot/state: 0 unknown, 1 A ... 6 F, 7 fault
    pilot: int = 0
    pilot_pwm: bool = False
    # robot/state and robot/inlet_pose, for ACDP
    arm: str = ""  # Home, Moving or EndPosition: where the charging device is
    mated: bool = False
    inlet_stamp_ns: int = 0  # when the inlet was last seen, CLOCK_MONOTONIC, 0 = never
    inlet_x_mm: float = 0.0  # of the inlet from where the arm expects it [mm]
    inlet_y_mm: float = 0.0

    @property
    def talking(self) -> bool:
        """The supervisor wants a conversation with this vehicle."""
        return self.phase in TALKING and bool(self.session_id)

    @property
    def inlet_known(self) -> bool:
        """``inlet_known_at`` now."""
        return self.inlet_known_at(now_ns())

    def inlet_known_at(self, at_ns: int) -> bool:
        """The inlet's place was measured a moment before, or the plug is in it."""
        return self.mated or (self.inlet_stamp_ns > 0 and at_ns - self.inlet_stamp_ns < INLET_AGE_S * SECOND)

    def silent_at(self, at_ns: int) -> bool:
        """The supervisor had not spoken for a while at that moment (CLOCK_MONOTONIC)."""
        return at_ns - self.session_stamp_ns > SUPERVISOR_SILENT_S * SECOND

    def supervisor_silent(self) -> bool:
        return self.silent_at(now_ns())

    def stopping_at(self, at_ns: int) -> bool:
        """The vehicle shall end the transfer: on request, on a shutdown, or because the supervisor is silent."""
        return (
            self.stop_requested
            or self.shutdown != Shutdown.NONE
            or self.phase in (Phase.STOPPING, Phase.FAULTED)
            or self.silent_at(at_ns)
        )

    @property
    def stopping(self) -> bool:
        """``stopping_at`` now."""
        return self.stopping_at(now_ns())

    def announced(self) -> tuple[float, float, float]:
        """Voltage [V], current [A] and power [W] to announce: the smallest of supply, back end and permit.

        The permit counts once it permits transfer; before, it says only what the test or precharge may draw.
        """
        voltage, current, power = self.max_voltage_v, self.max_current_a, self.max_power_w
        if not self.supply_available:
            current = power = 0.0
        current = min(current, self.backend_max_current_a)
        power = min(power, self.backend_max_power_w)
        if self.permit_purpose == Purpose.TRANSFER:
            voltage = min(voltage, self.permit_max_voltage_v)
            current = min(current, self.permit_max_current_a)
            power = min(power, self.permit_max_power_w)
        return max(voltage, 0.0), max(current, 0.0), max(power, 0.0)

    def announced_export(self) -> tuple[float, float]:
        """Current [A] and power [W] that may flow out of the vehicle, both positive, 0 = none."""
        current, power = self.max_export_current_a, self.max_export_power_w
        if not self.supply_available:
            return 0.0, 0.0
        if self.permit_purpose == Purpose.TRANSFER:
            current = min(current, max(0.0, -self.permit_min_current_a))
            power = min(power, max(0.0, -self.permit_min_power_w))
        return max(current, 0.0), max(power, 0.0)


@dataclass(frozen=True)
class Vehicle:
    """What the vehicle says, for vehicle/target and vehicle/link."""

    session_id: str = ""
    protocol: str = ""
    # vehicle/target
    purpose: int = Purpose.NONE
    voltage_v: float = 0.0
    current_a: float = 0.0
    stamp_ns: int = 0  # when the vehicle's last message arrived, CLOCK_MONOTONIC
    timeout_ms: int = 5000
    # both
    max_voltage_v: float = 0.0
    max_current_a: float = 0.0
    max_power_w: float = 0.0
    # vehicle/link
    phase: int = Link.IDLE
    matched: bool = False
    match_seconds: float = 0.0
    ready: bool = False
    lock: int = Lock.UNKNOWN
    soc: float = -1.0
    energy_capacity_wh: float = 0.0
    remaining_s: float = -1.0
    bidirectional: bool = False
    identity: str = ""
    contract: bool = False
    error: int = Code.NONE
    text: str = ""
    messages_in: int = 0
    messages_out: int = 0
    messages_bad: int = 0


# A change of these is published at once; messages alone wait for ``settle`` or the next period.
_TARGET = ("purpose", "voltage_v", "current_a", "max_voltage_v", "max_current_a", "max_power_w", "session_id")
_LINK = ("phase", "matched", "ready", "lock", "error", "protocol", "session_id", "contract", "bidirectional")


# What the V2G thread waits for between messages.
_SESSION = ("session_id", "phase", "stop_requested", "shutdown")


Answer = Callable[[bytes, str], None]


def _no_back_end(update: bool, request: bytes, answer: Answer) -> None:
    answer(b"", "no back end issues contract certificates here")


class Bridge:
    """The two snapshots. ``on_target`` and ``on_link`` are called in the V2G thread on a change that matters,
    ``on_session`` in the station's when the session goes on to another phase or shall end. ``ask_contract`` is called
    in the V2G thread with (update, vehicle's request [EXI], answer); ``answer`` takes the back end's answer [EXI], or
    nothing and why, from any thread."""

    def __init__(self) -> None:
        self.station = Station()
        self.vehicle = Vehicle()
        self.on_target: Callable[[Vehicle], None] = lambda vehicle: None
        self.on_link: Callable[[Vehicle], None] = lambda vehicle: None
        self.on_session: Callable[[], None] = lambda: None
        self.ask_contract: Callable[[bool, bytes, Answer], None] = _no_back_end
        self._unsaid = False  # the vehicle spoke since the target was last published
        self._station_lock = threading.Lock()
        self._vehicle_lock = threading.Lock()

    def inform(self, **changes: Any) -> None:
        """The station side: new values of ``Station`` fields."""
        with self._station_lock:
            before = self.station
            after = self.station = replace(before, **changes)
        if any(getattr(before, name) != getattr(after, name) for name in _SESSION):
            self.on_session()

    def say(self, **changes: Any) -> None:
        """The V2G side: new values of ``Vehicle`` fields."""
        with self._vehicle_lock:
            before = self.vehicle
            after = self.vehicle = replace(before, **changes)
            self._unsaid = self._unsaid or after.stamp_ns != before.stamp_ns
        if any(getattr(before, name) != getattr(after, name) for name in _TARGET):
            self._unsaid = False
            self.on_target(after)
        if any(getattr(before, name) != getattr(after, name) for name in _LINK):
            self.on_link(after)

    def settle(self) -> None:
        """A message is answered: the target of a vehicle that asks for energy is as young as that message."""
        if self._unsaid and self.vehicle.purpose != Purpose.NONE:
            self._unsaid = False
            self.on_target(self.vehicle)

    def begin(self, session_id: str) -> None:
        """Forget the last vehicle."""
        with self._vehicle_lock:
            self.vehicle = Vehicle(session_id=session_id)
        self.on_target(self.vehicle)
        self.on_link(self.vehicle)
