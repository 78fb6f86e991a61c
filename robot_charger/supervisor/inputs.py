"""What the supervisor heard, read as Inputs: the newest message of each topic, its age, the faults that stand.

Messages are read by their fields only, so any object with those fields will do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from robot_charger.common.faults import Code, Severity
from robot_charger.common.terms import Authorization, Insulation, Link, Lock, Purpose
from robot_charger.supervisor.interlocks import SAFE_CURRENT_A, SAFE_VOLTAGE_V
from robot_charger.supervisor.model import Inputs, Session
from robot_charger.supervisor.permits import Ceilings, offer

NODE_AGE_NS = 300_000_000  # liveliness of pilot, power, protocol node
LINK_GONE_NS = 2_000_000_000  # where nothing is energised
ROBOT_AGE_NS = 1_000_000_000
BAY_AGE_NS = 1_000_000_000
PILOT_LETTERS = {1: "A", 2: "B", 3: "C", 4: "D", 5: "E", 6: "F"}
RELEASED, FOLLOWING = 7, 8  # RobotState.MODE_*
CONVERSATION_FAULTS = range(200, 400)  # belong to the session they name, never to the next
# What of the frequent messages a rule or an interlock looks at; a change is acted on at once. Others always are.
DECISIVE: dict[str, Callable[[Any], Any]] = {
    "pilot": lambda m: m.state,
    "power": lambda m: (
        m.contactors_closed,
        m.insulation,
        m.insulation_permit_number,
        m.voltage_v < SAFE_VOLTAGE_V,
        abs(m.current_a) < SAFE_CURRENT_A,
    ),
    "meter": lambda m: None,
    "link": lambda m: (m.phase, m.session_id, m.error, m.lock, m.vehicle_ready, m.identity, m.vehicle_max_voltage_v),
    "target": lambda m: (m.session_id, m.purpose),
    "bay": lambda m: (m.occupied, m.immobilised, m.field_clear),
    "safety": lambda m: (m.alive, m.emergency_stop),
    "robot": lambda m: (m.evse, m.mode == FOLLOWING, m.in_contact_zone, m.plug_in_inlet),
}


@dataclass
class Standing:
    """A fault that stands."""

    code: int
    severity: int
    session_id: str
    text: str
    source: str


def _billable(backend: Any, session_id: str) -> bool:
    """The store takes records, or this session's start is in it: then a store that takes no more loses nothing."""
    return bool(backend.store_ok or (session_id and session_id in backend.transactions))


class Heard:
    """The newest message of every topic and the results of requests.

    Not thread-safe: the supervisor's one loop owns it, callbacks hand it messages under the loop's lock.
    """

    def __init__(self, evse: int = 1) -> None:
        self.evse = evse
        self.last: dict[str, Any] = {}
        self.robot_since = 0.0  # since when the robot works for this EVSE [s], 0 = it does not
        self._robot_served = evse  # whom it worked for last
        self.faults: dict[tuple[str, int, int], Standing] = {}
        self.authorization = Authorization.NONE
        self.stop_asked = ""
        self.available = True
        self.nodes_ready = False
        self.goal_done = 0
        self.goal_error = 0
        self.goal_done_at = 0.0
        self.goal_grasped = False
        self.goal_text = ""
        self.pilotless = False  # CHAdeMO: its node stands for the pilot
        self.ac_cable_a = 0.0  # plain AC: rating of its cable, 0 = no AC outlet
        self.slow_node_grace_ns = 0  # a desk without real-time scheduling may widen the node's age

    def message(self, name: str, message: Any) -> bool:
        """Keep a message, unless an older one overtook it. True when it changes what may follow at once."""
        known = self.last.get(name)
        if known is not None and message.stamp_ns < known.stamp_ns:
            return False
        self.last[name] = message
        if name == "robot":
            self._robot(message)
        decides = DECISIVE.get(name)
        return decides is None or known is None or decides(known) != decides(message)

    def _robot(self, message: Any) -> None:
        """One arm serves every bay: what it says of plug and inlet belongs to the EVSE it works, or worked, for."""
        if message.evse:
            self._robot_served = message.evse
        if self._robot_served == self.evse:
            self.last["robot here"] = message
        if message.evse != self.evse:
            self.robot_since = 0.0
        elif not self.robot_since:
            self.robot_since = message.stamp_ns / 1e9

    def fault(self, fault: Any) -> None:
        key = (fault.source, fault.code, fault.evse)
        if fault.active:
            self.faults[key] = Standing(fault.code, fault.severity, fault.session_id, fault.text, fault.source)
        else:
            self.faults.pop(key, None)

    def forget_node(self, source: str) -> None:
        """A node was restarted: what it reported before no longer stands."""
        self.faults = {k: v for k, v in self.faults.items() if k[0] != source}

    def young(self, name: str, now_ns: int, age_ns: int) -> Any:
        """The newest message if it is young enough, else None."""
        message = self.last.get(name)
        return message if message is not None and now_ns - message.stamp_ns <= age_ns else None

    def gravest(self, session_id: str) -> Standing | None:
        standing = [
            f
            for f in self.faults.values()
            if not (f.code in CONVERSATION_FAULTS and f.session_id != session_id)
            and not (f.session_id and f.session_id != session_id and f.severity < Severity.EMERGENCY)
        ]
        return max(standing, key=lambda f: f.severity, default=None)

    def inputs(self, s: Session, now_ns: int) -> Inputs:
        node_age = NODE_AGE_NS + self.slow_node_grace_ns
        safety = self.young("safety", now_ns, node_age)
        bay = self.young("bay", now_ns, BAY_AGE_NS)
        pilot = self.young("pilot", now_ns, node_age)
        power = self.young("power", now_ns, node_age)
        link = self.young("link", now_ns, node_age)
        target = self.young("target", now_ns, node_age)
        robot = self.young("robot", now_ns, ROBOT_AGE_NS)
        robot_last, robot_here = self.last.get("robot"), self.last.get("robot here")
        # At work at another bay it is out of this one's contact zone.
        robot_here_now = robot_last if robot_last is robot_here else None
        limits = self.last.get("limits")
        backend, limit = self.last.get("backend"), self.last.get("limit")
        fault = self.gravest(s.session_id)
        letter = PILOT_LETTERS.get(pilot.state, "?") if pilot else "?"
        live = (
            target is not None
            and target.session_id == s.session_id
            and now_ns - target.vehicle_stamp_ns <= target.vehicle_timeout_ms * 1_000_000
        )
        return Inputs(
            nodes_ready=self.nodes_ready,
            available=self.available,
            safety_alive=bool(safety and safety.alive),
            emergency_stop=bool(safety and safety.emergency_stop),
            bay_alive=bay is not None,
            occupied=bool(bay and bay.occupied),
            immobilised=bool(bay and bay.immobilised),
            field_clear=bool(bay and bay.field_clear),
            pilot_alive=link is not None if self.pilotless else pilot is not None,
            pilot=self._chademo_pilot(link, s) if self.pilotless else letter,
            power_alive=power is not None,
            supply_available=bool(power and limits and limits.available),
            power_left=bool(limits and limits.available and min(limits.max_current_a, limits.max_power_w) > 0)
            and (limit is None or min(limit.max_current_a, limit.max_power_w) > 0),
            contactors_closed=power.contactors_closed if power else True,
            voltage_v=power.voltage_v if power else math.inf,
            current_a=power.current_a if power else math.inf,
            insulation=Insulation(power.insulation) if power else Insulation.UNKNOWN,
            insulation_permit=power.insulation_permit_number if power else 0,
            offer_a=offer(self.ceilings(self.ac_cable_a)) if self.ac_cable_a else 0.0,
            link_alive=link is not None,
            link_gone=self.young("link", now_ns, LINK_GONE_NS + self.slow_node_grace_ns) is None,
            link=Link(link.phase) if link else Link.IDLE,
            link_session=link.session_id if link else "",
            link_error=link.error if link else 0,
            target=Purpose(target.purpose) if target and live else Purpose.NONE,
            target_live=live,
            lock=Lock(link.lock) if link else Lock.UNKNOWN,
            robot_alive=robot is not None,
            # A dead robot node moves nothing: what it last said of the contact zone still holds.
            robot_clear=bool(robot_last and not (robot_here_now and robot_here_now.in_contact_zone)),
            robot_following=bool(robot and robot_here_now and robot_here_now.mode == FOLLOWING),
            robot_since=self.robot_since,
            plug_in_inlet=bool(robot_here and robot_here.plug_in_inlet),
            goal_done=self.goal_done,
            goal_error=self.goal_error,
            goal_done_at=self.goal_done_at,
            goal_grasped=self.goal_grasped,
            store_ok=backend is None or _billable(backend, s.session_id),
            authorization=self.authorization,
            stop_asked=self.stop_asked,
            fault=Code(fault.code) if fault and fault.code in set(Code) else Code.INTERNAL if fault else Code.NONE,
            severity=Severity(fault.severity) if fault else Severity.WARNING,
        )

    def vehicle_token(self, session_id: str, autocharge: bool) -> tuple[str, str]:
        """The token that the vehicle itself shows, and its type: its contract (Plug and Charge), or its address.

        The address only with ``autocharge``. Two empty words when it shows none.
        """
        link = self.last.get("link")
        if link is None or not link.identity or not session_id or link.session_id != session_id:
            return "", ""
        if link.contract:
            return link.identity, "eMAID"
        return (link.identity, "MacAddress") if autocharge else ("", "")

    def _chademo_pilot(self, link: Any, s: Session) -> str:
        """What the pilot would say: C when the vehicle permits (k and 102.5.0), B when plugged in, else A."""
        robot = self.last.get("robot here")
        if link is not None and link.vehicle_ready and link.session_id == s.session_id:
            return "C"
        return "B" if robot is not None and robot.plug_in_inlet else "A"

    def ceilings(self, cable_current_a: float, export_power_w: float = 0.0) -> Ceilings:
        """Everybody's ceilings from what they last said. Unknown supply permits nothing.

        ``export_power_w`` is what the grid connection permits without the back end's word [W].
        """
        limits, link, backend = self.last.get("limits"), self.last.get("link"), self.last.get("limit")
        if limits is None:
            return Ceilings()
        vehicle = link.vehicle_max_voltage_v if link and link.vehicle_max_voltage_v > 0 else math.inf
        return Ceilings(
            supply_voltage_v=limits.max_voltage_v,
            supply_current_a=limits.max_current_a,
            supply_power_w=limits.max_power_w,
            export_current_a=limits.max_export_current_a,
            export_power_w=limits.max_export_power_w,
            vehicle_voltage_v=vehicle,
            backend_current_a=backend.max_current_a if backend else math.inf,
            backend_power_w=backend.max_power_w if backend else math.inf,
            backend_min_power_w=min(backend.min_power_w if backend else 0.0, -export_power_w),
            cable_current_a=cable_current_a,
            discharge=bool(link and link.bidirectional),
        )
