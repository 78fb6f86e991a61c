"""The supervisor's picture of the others: the newest value of each topic, its age, and the faults that stand.

``Heard`` keeps what came through the border (words.border); ``Heard.inputs`` reads it as the flow's ``Inputs``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from robot_charger.common.faults import Code, Severity
from robot_charger.supervisor.interlocks import SAFE_CURRENT_A, SAFE_VOLTAGE_V
from robot_charger.supervisor.model import Inputs, Session
from robot_charger.supervisor.permits import Ceilings, offer
from robot_charger.words.values import (
    Authorization,
    BackendState,
    BayState,
    ChargingLimit,
    Fault,
    MeterReading,
    Pilot,
    PilotState,
    Purpose,
    RobotErrorCode,
    RobotMode,
    RobotState,
    SafetyState,
    SupplyLimits,
    SupplyState,
    VehicleLink,
    VehicleTarget,
)

V = TypeVar("V")
S = TypeVar("S", bound="Stamped")

NODE_AGE_NS = 300_000_000  # a node whose last message is older is silent: pilot, power, protocol, safety controller
LINK_GONE_NS = 2_000_000_000  # the protocol node, while nothing is energised
ROBOT_AGE_NS = 1_000_000_000
BAY_AGE_NS = 1_000_000_000
SUSPECT_NS = 1_000_000_000  # a fault from a refused message counts for so long: it stops, and does not stand
CONVERSATION_FAULTS = range(200, 400)  # belong to the session they name, never to the next

# What silence means: the reading that permits nothing.
SILENT_SUPPLY = SupplyState(contactors_closed=True, voltage_v=math.inf, current_a=math.inf)
SILENT_PILOT = PilotState(state=Pilot.UNKNOWN)
SILENT_LINK = VehicleLink()
SILENT_SAFETY = SafetyState()
SILENT_BAY = BayState()
SILENT_ROBOT = RobotState(in_contact_zone=True)
SILENT_LIMITS = SupplyLimits()
NO_LIMIT = ChargingLimit(max_current_a=math.inf, max_power_w=math.inf)
NO_FAULT = Fault(code=Code.NONE, severity=Severity.WARNING)


class Stamped(Protocol):
    """A value with the sender's stamp."""

    @property
    def stamp_ns(self) -> int: ...


def decisive(value: object) -> object:
    """Fields of high-rate topics that rules or interlocks read. A change in one of these wakes the loop at once.

    Every message on a topic that is not listed here wakes it too.
    """
    match value:
        case PilotState():
            return value.state
        case SupplyState():
            return (
                value.contactors_closed,
                value.insulation,
                value.insulation_permit_number,
                value.voltage_v < SAFE_VOLTAGE_V,
                abs(value.current_a) < SAFE_CURRENT_A,
            )
        case MeterReading():
            return None
        case VehicleLink():
            lock, ready, most_v = value.lock, value.vehicle_ready, value.vehicle_max_voltage_v
            return value.phase, value.session_id, value.error, lock, ready, value.identity, most_v
        case VehicleTarget():
            return value.session_id, value.purpose
        case BayState():
            return value.occupied, value.immobilised, value.field_clear
        case SafetyState():
            return value.alive, value.emergency_stop
        case RobotState():
            return value.evse, value.mode == RobotMode.FOLLOWING, value.in_contact_zone, value.plug_in_inlet
    return value


class Newest:
    """The newest value of each kind."""

    def __init__(self) -> None:
        self._values: dict[type, object] = {}

    def put(self, value: object) -> bool:
        """Keep a value. True when it changes what may follow at once."""
        known = self._values.get(type(value))
        self._values[type(value)] = value
        return known is None or decisive(known) != decisive(value)

    def of(self, kind: type[V]) -> V | None:
        """The newest value of this kind, however old."""
        value = self._values.get(kind)
        return value if isinstance(value, kind) else None

    def young(self, kind: type[S], now_ns: int, age_ns: int) -> S | None:
        """The newest value if it is young enough, else None."""
        value = self.of(kind)
        return value if value is not None and now_ns - value.stamp_ns <= age_ns else None


@dataclass
class Heard:
    """Everything that the other nodes published, and the results of requests.

    Not thread-safe: the supervisor's one loop owns it; callbacks hand it values under the loop's lock.
    """

    evse: int = 1
    newest: Newest = field(default_factory=Newest)
    robot_here: RobotState | None = None  # the robot's last state while it worked for this EVSE
    robot_since: float = 0.0  # since when the robot works for this EVSE [s], 0 = it does not
    faults: dict[tuple[str, int, int], Fault] = field(default_factory=dict)
    suspected: Fault = NO_FAULT
    authorization: Authorization = Authorization.NONE
    stop_asked: str = ""
    available: bool = True
    nodes_ready: bool = False
    goal_done: int = 0
    goal_error: RobotErrorCode = RobotErrorCode.NONE
    goal_done_at: float = 0.0
    goal_grasped: bool = False
    pilotless: bool = False  # CHAdeMO and GB/T: the protocol node stands for the pilot
    ac_cable_a: float = 0.0  # plain AC: rating of its cable, 0 = no AC outlet
    slow_node_grace_ns: int = 0  # a desk without real-time scheduling may widen the node's age

    def __post_init__(self) -> None:
        self._robot_served = self.evse  # the EVSE that the robot worked for last

    def hear(self, value: object) -> bool:
        """Keep a value. True when it changes what may follow at once."""
        if isinstance(value, RobotState):
            self._robot(value)
        return self.newest.put(value)

    def _robot(self, state: RobotState) -> None:
        """One arm serves every bay: its plug and inlet belong to the EVSE it works, or worked, for."""
        if state.evse:
            self._robot_served = state.evse
        if self._robot_served == self.evse:
            self.robot_here = state
        if state.evse != self.evse:
            self.robot_since = 0.0
        elif not self.robot_since:
            self.robot_since = state.stamp_ns / 1e9

    def fault(self, fault: Fault) -> None:
        key = (fault.source, fault.code, fault.evse)
        if fault.active:
            self.faults[key] = fault
        else:
            self.faults.pop(key, None)

    def suspect(self, fault: Fault, now_ns: int) -> None:
        """A refused message names a fault (words.border): it counts for a moment, for its end could not be believed."""
        self.suspected = replace(fault, stamp_ns=now_ns)

    def goal_ended(self, number: int, error: RobotErrorCode) -> None:
        """The robot's goal ended; when it did is stamped by the next ``inputs``."""
        self.goal_done, self.goal_error, self.goal_done_at = number, error, -1.0

    def forget_node(self, source: str) -> None:
        """A node was restarted: the faults it reported before no longer stand."""
        self.faults = {k: v for k, v in self.faults.items() if k[0] != source}

    def gravest(self, session_id: str) -> Fault | None:
        """The gravest fault that concerns this session."""
        standing = [
            f
            for f in self.faults.values()
            if not (f.code in CONVERSATION_FAULTS and f.session_id != session_id)
            and not (f.session_id and f.session_id != session_id and f.severity < Severity.EMERGENCY)
        ]
        return max(standing, key=lambda f: f.severity, default=None)

    def inputs(self, s: Session, now_ns: int) -> Inputs:
        """What the flow looks at now. Silence is read as what permits nothing."""
        if self.goal_done_at < 0.0:
            self.goal_done_at = now_ns / 1e9
        read = Inputs(
            nodes_ready=self.nodes_ready,
            available=self.available,
            goal_done=self.goal_done,
            goal_error=self.goal_error,
            goal_done_at=self.goal_done_at,
            goal_grasped=self.goal_grasped,
            authorization=self.authorization,
            stop_asked=self.stop_asked,
        )
        for look in (self._bay, self._vehicle, self._supply, self._arm, self._books):
            read = look(read, s, now_ns)
        return read

    def _age(self) -> int:
        return NODE_AGE_NS + self.slow_node_grace_ns

    def _bay(self, read: Inputs, s: Session, now_ns: int) -> Inputs:
        """Safety controller and bay. An emergency stop counts however old it is."""
        safety = self.newest.young(SafetyState, now_ns, self._age()) or SILENT_SAFETY
        last = self.newest.of(SafetyState) or SILENT_SAFETY
        bay = self.newest.young(BayState, now_ns, BAY_AGE_NS) or SILENT_BAY
        return replace(
            read,
            safety_alive=safety.alive,
            emergency_stop=last.emergency_stop,
            bay_alive=bay is not SILENT_BAY,
            occupied=bay.occupied,
            immobilised=bay.immobilised,
            field_clear=bay.field_clear,
        )

    def _vehicle(self, read: Inputs, s: Session, now_ns: int) -> Inputs:
        """Pilot, link and target."""
        pilot = self.newest.young(PilotState, now_ns, self._age())
        link = self.newest.young(VehicleLink, now_ns, self._age())
        target = self.newest.young(VehicleTarget, now_ns, self._age())
        live = target is not None and target.session_id == s.session_id and _speaks(target, now_ns)
        told = link or SILENT_LINK
        return replace(
            read,
            pilot_alive=(link if self.pilotless else pilot) is not None,
            pilot=self._stand_in(link, s) if self.pilotless else (pilot or SILENT_PILOT).state,
            link_alive=link is not None,
            link_gone=self.newest.young(VehicleLink, now_ns, LINK_GONE_NS + self.slow_node_grace_ns) is None,
            link=told.phase,
            link_session=told.session_id,
            link_error=told.error,
            lock=told.lock,
            target=target.purpose if target is not None and live else Purpose.NONE,
            target_live=live,
        )

    def _supply(self, read: Inputs, s: Session, now_ns: int) -> Inputs:
        power = self.newest.young(SupplyState, now_ns, self._age()) or SILENT_SUPPLY
        limits = self.newest.of(SupplyLimits) or SILENT_LIMITS
        limit = self.newest.of(ChargingLimit) or NO_LIMIT
        alive = power is not SILENT_SUPPLY
        return replace(
            read,
            power_alive=alive,
            supply_available=alive and limits.available,
            power_left=limits.available
            and min(limits.max_current_a, limits.max_power_w, limit.max_current_a, limit.max_power_w) > 0,
            contactors_closed=power.contactors_closed,
            voltage_v=power.voltage_v,
            current_a=power.current_a,
            insulation=power.insulation,
            insulation_permit=power.insulation_permit_number,
            offer_a=offer(self.ceilings(self.ac_cable_a)) if self.ac_cable_a else 0.0,
        )

    def _arm(self, read: Inputs, s: Session, now_ns: int) -> Inputs:
        """A robot node that is silent moves nothing: its last word on the contact zone still holds."""
        alive = self.newest.young(RobotState, now_ns, ROBOT_AGE_NS) is not None
        last = self.newest.of(RobotState) or SILENT_ROBOT
        at_work_here = last is SILENT_ROBOT or last is self.robot_here
        following = last.mode == RobotMode.FOLLOWING
        return replace(
            read,
            robot_alive=alive,
            robot_clear=not (at_work_here and last.in_contact_zone),
            robot_following=alive and at_work_here and following,
            robot_since=self.robot_since,
            plug_in_inlet=bool(self.robot_here and self.robot_here.plug_in_inlet),
        )

    def _books(self, read: Inputs, s: Session, now_ns: int) -> Inputs:
        """Back end and faults."""
        backend = self.newest.of(BackendState)
        fault = self.gravest(s.session_id) or NO_FAULT
        if now_ns - self.suspected.stamp_ns <= SUSPECT_NS and self.suspected.severity > fault.severity:
            fault = self.suspected
        return replace(
            read,
            store_ok=backend is None or _billable(backend, s.session_id),
            fault=fault.code,
            severity=fault.severity,
        )

    def vehicle_token(self, session_id: str, autocharge: bool) -> tuple[str, str]:
        """The token that the vehicle itself shows, and its type: its contract (Plug and Charge), or its address.

        The address only with ``autocharge``. Two empty words when it shows none.
        """
        link = self.newest.of(VehicleLink)
        if link is None or not link.identity or not session_id or link.session_id != session_id:
            return "", ""
        if link.contract:
            return link.identity, "eMAID"
        return (link.identity, "MacAddress") if autocharge else ("", "")

    def _stand_in(self, link: VehicleLink | None, s: Session) -> Pilot:
        """The pilot's state of a connector without one: C when the vehicle permits, B when plugged in, else A."""
        if link is not None and link.vehicle_ready and link.session_id == s.session_id:
            return Pilot.C
        return Pilot.B if self.robot_here is not None and self.robot_here.plug_in_inlet else Pilot.A

    def ceilings(self, cable_current_a: float, export_power_w: float = 0.0) -> Ceilings:
        """Everyone's ceilings, from what they published last. An unknown supply permits nothing.

        ``export_power_w``: what the grid connection permits when the back end has not set a limit [W].
        """
        limits = self.newest.of(SupplyLimits)
        if limits is None:
            return Ceilings()
        link = self.newest.of(VehicleLink) or SILENT_LINK
        backend = self.newest.of(ChargingLimit) or NO_LIMIT
        return Ceilings(
            supply_voltage_v=limits.max_voltage_v,
            supply_current_a=limits.max_current_a,
            supply_power_w=limits.max_power_w,
            export_current_a=limits.max_export_current_a,
            export_power_w=limits.max_export_power_w,
            vehicle_voltage_v=link.vehicle_max_voltage_v or math.inf,
            backend_current_a=backend.max_current_a,
            backend_power_w=backend.max_power_w,
            backend_min_power_w=min(backend.min_power_w, -export_power_w),
            cable_current_a=cable_current_a,
            discharge=link.bidirectional,
        )


def _billable(backend: BackendState, session_id: str) -> bool:
    """The store takes records, or this session's start is in it: then a store that takes no more loses nothing."""
    return backend.store_ok or bool(session_id and session_id in backend.transactions)


def _speaks(target: VehicleTarget, now_ns: int) -> bool:
    """The vehicle's last message is young enough."""
    return now_ns - target.vehicle_stamp_ns <= target.vehicle_timeout_ms * 1_000_000
