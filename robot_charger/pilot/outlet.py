"""The AC outlet of an EVSE towards the others: it stands for the supply and for the vehicle, which only has a pilot.

Publishes, as power and v2g do for a DC outlet: power/state, power/limits, vehicle/target and vehicle/link (protocol
"plain"). Listens to power/permit, power/meter and session/state. ``step`` runs in the pilot's own loop, so that a
vehicle that leaves C is switched off within that loop's sample.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from robot_charger import msg
from robot_charger.common import duty_cycle
from robot_charger.common.clock import MILLISECOND, SECOND, now_ns
from robot_charger.common.faults import Code, FaultReport, Severity
from robot_charger.common.node import StationNode
from robot_charger.common.topics import fill
from robot_charger.pilot.ac import LEAST_A, AcInputs, AcOutlet, PermitHold
from robot_charger.pilot.drivers import DriverError, OutletDriver
from robot_charger.pilot.logic import Reading
from robot_charger.words.values import (
    ChargePermit,
    Link,
    MeterReading,
    Phase,
    PilotMode,
    Purpose,
    SessionState,
    SupplyMode,
)

PAUSE_NS = 100 * MILLISECOND  # of the loop: whoever slept longer waits for a new permit
METER_NS = SECOND
PERIODS_NS = {"state": 40 * MILLISECOND, "limits": SECOND // 2, "vehicle": 80 * MILLISECOND}
PROTOCOL = "plain"


@dataclass(frozen=True)
class Rating:
    """Of the outlet: current per phase [A], phases, voltage to neutral [V]."""

    current_a: float
    phases: int
    voltage_v: float


class OutletTopics:
    """One AC outlet on its topics."""

    def __init__(self, node: StationNode, outlet: AcOutlet, rating: Rating, grace_ms: float) -> None:
        self._node, self._outlet, self._rating = node, outlet, rating
        self._driver: OutletDriver | None = None
        self._grace_ns = int(grace_ms * MILLISECOND)
        self._lock = threading.Lock()  # of the permit: messages come in the executor's thread
        self._permit = PermitHold(self._grace_ns)
        self._meter: MeterReading | None = None
        self._session: SessionState | None = None
        self._stepped_ns = self._steps = self._number = 0
        self._told: dict[str, tuple[int, Any]] = {}
        evse = node.evse
        self._publishers = {n: node.publisher(n, evse) for n in ("power/state", "power/limits")}
        self._publishers |= {n: node.publisher(n, evse) for n in ("vehicle/target", "vehicle/link")}
        node.subscribe("power/permit", self._on_permit, evse, danger=self._withdraw)
        node.subscribe("power/meter", self._on_meter, evse)
        node.subscribe("session/state", self._on_session, evse)

    def _on_permit(self, permit: ChargePermit) -> None:
        with self._lock:
            self._permit.take(permit)

    def _withdraw(self, permit: ChargePermit) -> None:
        with self._lock:
            self._permit.discard()

    def _on_meter(self, reading: MeterReading) -> None:
        self._meter = reading

    def _on_session(self, state: SessionState) -> None:
        self._session = state

    def _measured(self, now: int) -> MeterReading | None:
        """The last reading, if it is valid and young enough."""
        meter = self._meter
        return meter if meter and meter.valid and now - meter.stamp_ns <= METER_NS + self._grace_ns else None

    def open(self, driver: OutletDriver) -> None:
        """From now on ``step`` may be called."""
        self._driver = driver

    def close(self) -> None:
        if self._driver is not None:
            self._driver.close()
            self._driver = None

    def step(self, reading: Reading, active: bool, now: int) -> None:
        """One sample of the pilot."""
        driver = self._driver
        assert driver is not None
        session, meter = self._session, self._measured(now)
        session_id = session.session_id if session is not None and active else ""
        with self._lock:
            if self._stepped_ns and now - self._stepped_ns > PAUSE_NS + self._grace_ns:
                self._permit.discard()
            permitted = self._permit.permits(session_id, now)
        self._stepped_ns = now
        self._steps += 1
        closed, residual, board = True, False, ""
        try:
            closed, residual = driver.read()
        except DriverError as error:
            board = str(error)
        self._outlet.step(
            AcInputs(
                now,
                reading.state,
                reading.output,
                session_id,
                permitted,
                stopping=session is not None and (session.stop_requested or session.phase >= Phase.STOPPING),
                closed=closed,
                residual=residual,
                current_a=meter.current_a if meter else None,
                board=board,
            )
        )
        try:
            driver.switch(self._outlet.contactor)
        except DriverError as error:
            self._node.get_logger().error(str(error), throttle_duration_sec=1.0)
        for fault in self._outlet.changes:
            self._node.report(fault, session_id=session_id)
        self._tell(reading, session_id, closed, meter, now)

    def _look_for_rivals(self) -> None:
        """Two that speak for one supply would each be believed."""
        name = f"/evse{self._node.evse}/power/state"
        rival = any(e.node_name == "power" for e in self._node.get_publishers_info_by_topic(name))
        text = f"/power speaks for EVSE {self._node.evse} too: its parameter ac must name every AC outlet"
        self._node.report(FaultReport(Code.INTERNAL, Severity.STOP, text, rival))

    def _due(self, name: str, now: int, content: Any) -> bool:
        told_ns, told = self._told.get(name, (0, None))
        if content == told and now - told_ns < PERIODS_NS[name]:
            return False
        self._told[name] = now, content
        return True

    def _tell(self, reading: Reading, session_id: str, closed: bool, meter: MeterReading | None, now: int) -> None:
        o = self._outlet
        if self._due("state", now, (o.contactor, closed, bool(o.faults))):
            self._publishers["power/state"].publish(self._supply(reading, session_id, closed, meter))
        cable_a = reading.proximity.current_a
        most_a = min(self._rating.current_a, cable_a) if cable_a else self._rating.current_a
        available = meter is not None and not o.faults
        if self._due("limits", now, (most_a, available)):
            self._look_for_rivals()
            self._publishers["power/limits"].publish(self._limits(most_a, available))
        if self._due("vehicle", now, (session_id, o.link, o.wants)):
            self._publishers["vehicle/target"].publish(self._target(reading, session_id))
            self._publishers["vehicle/link"].publish(self._link(session_id))

    def _supply(self, reading: Reading, session_id: str, closed: bool, meter: MeterReading | None) -> msg.SupplyState:
        o = self._outlet
        volts = meter.voltage_v if meter else self._rating.voltage_v  # a meter that is silent hides nothing
        told_a = duty_cycle.to_current(reading.output.duty) if reading.output.mode is PilotMode.PWM else 0.0
        return fill(
            msg.SupplyState(),
            stamp_ns=now_ns(),
            session_id=session_id,
            permit_number=self._permit.number if o.contactor else 0,
            target_number=self._number,
            mode=SupplyMode.FAULT if o.faults else SupplyMode.TRANSFER if o.contactor else SupplyMode.OFF,
            voltage_v=volts if closed else 0.0,
            bank_voltage_v=volts,
            current_a=meter.current_a if meter else 0.0,
            power_w=meter.power_w if meter else 0.0,
            setpoint_v=self._rating.voltage_v,
            setpoint_a=told_a,
            contactors_requested=o.contactor,
            contactors_closed=closed,
            contactor_welded=Code.CONTACTOR_WELDED in o.faults,
            cycles=self._steps,
            text=self._text(),
        )

    def _text(self) -> str:
        return next((f.text for f in self._outlet.faults.values()), "on" if self._outlet.contactor else "off")

    def _limits(self, most_a: float, available: bool) -> msg.SupplyLimits:
        r = self._rating
        return fill(
            msg.SupplyLimits(),
            stamp_ns=now_ns(),
            max_voltage_v=r.voltage_v,
            min_voltage_v=r.voltage_v,
            max_current_a=most_a,
            min_current_a=LEAST_A,
            max_power_w=most_a * r.phases * r.voltage_v,
            rated_voltage_v=r.voltage_v,
            rated_current_a=r.current_a,
            rated_power_w=r.current_a * r.phases * r.voltage_v,
            available=available,
            text="" if available else next((f.text for f in self._outlet.faults.values()), "the AC meter is silent"),
        )

    def _target(self, reading: Reading, session_id: str) -> msg.VehicleTarget:
        """A vehicle that is ready asks for all that the pilot tells it. Its word is the pilot, measured just now."""
        wants = self._outlet.wants
        self._number += 1
        return fill(
            msg.VehicleTarget(),
            stamp_ns=now_ns(),
            number=self._number,
            session_id=session_id,
            protocol=PROTOCOL,
            purpose=Purpose.TRANSFER if wants else Purpose.NONE,
            voltage_v=self._rating.voltage_v,
            current_a=reading.max_current_a if wants else 0.0,
            vehicle_stamp_ns=now_ns(),
            vehicle_timeout_ms=1000,
        )

    def _link(self, session_id: str) -> msg.VehicleLink:
        o = self._outlet
        text = "the vehicle asks for ventilation, which this outlet does not have" if o.link is Link.FAILED else ""
        return fill(
            msg.VehicleLink(),
            stamp_ns=now_ns(),
            session_id=session_id,
            protocol=PROTOCOL if session_id else "",
            phase=o.link,
            transport="pilot",
            vehicle_ready=o.ready,
            soc=-1.0,
            remaining_s=-1.0,
            error=o.error,
            text=text,
        )
