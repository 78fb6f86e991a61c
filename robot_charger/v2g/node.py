"""The v2g node: SLAC (ISO 15118-3) and SECC (DIN 70121, ISO 15118-2 and -20) of one EVSE.

Publishes (in /evseN): vehicle/target and vehicle/link (on change and every 100 ms, 200 ms without a session; the
target also with every message of a vehicle that asks for energy), v2g/record (std_msgs/String: one decoded V2G
message as JSON, when the parameter record is on).
Subscribes (in /evseN): session/state, power/state, power/limits, power/permit, power/meter, pilot/state,
backend/limit; with link acdp also /robot/state and /robot/inlet_pose.
Calls: /vehicle_certificate (srv/VehicleCertificate), when a vehicle asks for a contract certificate.
Parameters: :class:`robot_charger.v2g.parameters.V2gParameters`.

``python -m robot_charger.v2g.node --ros-args -r __ns:=/evse1``
"""

from __future__ import annotations

import os
import threading
from array import array
from collections.abc import Callable
from functools import partial
from pathlib import Path

from robot_charger.v2g import desk_link
from robot_charger.words.values import (
    ChargePermit,
    ChargingLimit,
    Link,
    MeterReading,
    PilotState,
    RobotMode,
    RobotState,
    SessionState,
    SupplyLimits,
    SupplyState,
)

desk_link.join()  # before an import starts a thread (numpy does)

from geometry_msgs.msg import PoseWithCovarianceStamped  # noqa: E402
from std_msgs.msg import String  # noqa: E402

from robot_charger import msg, srv  # noqa: E402
from robot_charger.common.clock import SECOND, Ticker, now_ns  # noqa: E402
from robot_charger.common.faults import FaultReport  # noqa: E402
from robot_charger.common.node import ERROR, OK, WARN, Diagnosis, StartError, StationNode, run  # noqa: E402
from robot_charger.common.plc_link import LinkError, PlcLink  # noqa: E402
from robot_charger.common.topics import EVENTS, fill  # noqa: E402
from robot_charger.common.wires import RUN_DIRECTORY, run_directory  # noqa: E402
from robot_charger.v2g import certificates  # noqa: E402
from robot_charger.v2g.bridge import Bridge, Vehicle  # noqa: E402
from robot_charger.v2g.parameters import V2gParameters  # noqa: E402
from robot_charger.v2g.record import Recorder  # noqa: E402
from robot_charger.v2g.worker import Worker  # noqa: E402

PERIOD_S = 0.1  # of target and link during a session
IDLE_S = 0.2


class V2gNode(StationNode):
    def __init__(self) -> None:
        super().__init__("v2g", V2gParameters)
        self.bridge = Bridge()
        self._worker: Worker | None = None
        self._running = threading.Event()
        self._thread: threading.Thread | None = None
        self._number = 0
        self._target_ns = 0
        self._lock = threading.Lock()
        self._targets = self.publisher("vehicle/target", self.evse)
        self._links = self.publisher("vehicle/link", self.evse)
        self._records = self.create_publisher(String, "v2g/record", EVENTS)
        self._recorder = Recorder()
        self.subscribe("session/state", self._on_session, self.evse)
        self.subscribe("power/state", self._on_supply, self.evse)
        self.subscribe("power/limits", self._on_limits, self.evse)
        self.subscribe("power/permit", self._on_permit, self.evse)
        self.subscribe("power/meter", self._on_meter, self.evse)
        self.subscribe("pilot/state", self._on_pilot, self.evse)
        self.subscribe("backend/limit", self._on_limit, self.evse)
        self._contracts = self.create_client(srv.VehicleCertificate, "/vehicle_certificate")
        self.bridge.ask_contract = self._ask_contract
        if self.parameters.link == "acdp":
            self.subscribe("/robot/state", self._on_robot)
            self.subscribe("/robot/inlet_pose", self._on_inlet)

    # Life cycle.
    def configure(self) -> None:
        if not self.evse:
            raise StartError("v2g belongs to one EVSE: start it in a namespace /evseN, __ns:=/evse1")
        link = self._link()
        if link is None:
            self.get_logger().warning("no PLC link on this desk: no vehicle can be spoken to")
            return
        contexts = self._tls_contexts()
        self._recorder = Recorder(self.parameters.privacy__record_identity)
        record = self._recorder.put if self.parameters.record == "on" else lambda entry: None
        failed = partial(self.fail, "V2G thread")
        self._worker = Worker(
            str(self.evse), link, self.parameters, self.bridge, self._on_report, record, contexts, failed
        )
        try:
            self._worker.start()
        except LinkError as error:
            self._worker = None
            raise StartError(str(error)) from error
        self.bridge.on_target = self._publish_target
        self.bridge.on_link = self._publish_link
        self._running.set()
        self._thread = self.thread("v2g-topics", self._publish)
        self._thread.start()

    def activate(self) -> None:
        if self._worker is None:
            return
        self.get_logger().info(f"PLC link: {self._transport()}; protocols {', '.join(self.parameters.protocols)}")

    def deactivate(self) -> None:
        self.bridge.inform(phase=0, session_id="")  # the conversation ends

    def cleanup(self) -> None:
        self._running.clear()
        if self._worker:
            self._worker.stop()
            self._worker = None
        if self._thread:
            self._thread.join(timeout=1.0)
            self._thread = None
            self._publish_record()
        self.bridge.on_target = self.bridge.on_link = lambda vehicle: None

    def make_safe(self) -> None:
        self.bridge.say(purpose=0, voltage_v=0.0, current_a=0.0)
        self.cleanup()

    def diagnose(self) -> Diagnosis:
        vehicle = self.bridge.vehicle
        values: dict[str, object] = {
            "slac.transport": self._transport(),
            "phase": Link(vehicle.phase).name.lower(),
            "protocol": vehicle.protocol,
            "messages": f"{vehicle.messages_in} in, {vehicle.messages_out} out",
        }
        if self._worker is None:
            return (WARN if self.active else OK), "", values
        values.update(self._worker.status.values)
        if not self._worker.alive:
            return ERROR, "the V2G thread has ended", values
        return OK, vehicle.text, values

    def _link(self) -> PlcLink | None:
        """The link to use; None on a desk whose EVSE has no PLC modem (its vehicles speak something else)."""
        if self.parameters.link == "none":
            return None
        if RUN_DIRECTORY in os.environ:
            link = desk_link.joined()
            if link is None:
                return None
            if link.transport == "virtual":
                return PlcLink.read(run_directory(), self.evse, "evse", self.parameters.interface)
            return link
        if not self.parameters.interface:
            raise StartError("parameter interface names no PLC interface, and there is no simulation")
        return PlcLink("interface", "evse", self.parameters.interface)

    def _transport(self) -> str:
        return self._worker.link.transport if self._worker else ""

    def _tls_contexts(self) -> certificates.Contexts | None:
        directory = self.parameters.tls__directory
        if not directory:
            if self.parameters.tls__required:
                raise StartError("tls.required is true but tls.directory names no certificates")
            if self.parameters.pnc:
                raise StartError("pnc is true but tls.directory names no certificates")
            return None
        try:
            return certificates.station_contexts(Path(directory), self.parameters.pnc)
        except (OSError, certificates.PkiError) as error:
            raise StartError(f"tls.directory {directory}: {error}") from error

    # Out.
    def _publish(self) -> None:
        ticker = Ticker(PERIOD_S)
        while self._running.is_set():
            ticker.period_s = PERIOD_S if self.bridge.vehicle.session_id else IDLE_S
            ticker.wait()
            if now_ns() - self._target_ns > PERIOD_S / 2 * SECOND:  # else the vehicle's last message renewed it
                self._publish_target(self.bridge.vehicle)
            self._publish_link(self.bridge.vehicle)
            self._publish_record()

    def _publish_record(self) -> None:
        lines = list(self._recorder.lines())
        for line in lines:
            self._records.publish(String(data=line))
        if lines and self.parameters.record_file:
            try:
                with open(self.parameters.record_file, "a") as file:
                    file.write("\n".join(lines) + "\n")
            except OSError as error:
                self.get_logger().error(f"record_file: {error}", throttle_duration_sec=10.0)

    def _publish_target(self, vehicle: Vehicle) -> None:
        with self._lock:
            self._number += 1
            self._target_ns = now_ns()
            self._targets.publish(
                fill(
                    msg.VehicleTarget(),
                    stamp_ns=self._target_ns,
                    number=self._number,
                    session_id=vehicle.session_id,
                    protocol=vehicle.protocol,
                    purpose=vehicle.purpose,
                    voltage_v=vehicle.voltage_v,
                    current_a=vehicle.current_a,
                    max_voltage_v=vehicle.max_voltage_v,
                    max_current_a=vehicle.max_current_a,
                    max_power_w=vehicle.max_power_w,
                    vehicle_stamp_ns=vehicle.stamp_ns,
                    vehicle_timeout_ms=vehicle.timeout_ms,
                )
            )

    def _publish_link(self, vehicle: Vehicle) -> None:
        with self._lock:
            self._links.publish(
                fill(
                    msg.VehicleLink(),
                    stamp_ns=now_ns(),
                    session_id=vehicle.session_id,
                    protocol=vehicle.protocol,
                    phase=vehicle.phase,
                    transport=self._transport(),
                    matched=vehicle.matched,
                    match_seconds=vehicle.match_seconds,
                    vehicle_ready=vehicle.ready,
                    lock=vehicle.lock,
                    soc=vehicle.soc,
                    energy_capacity_wh=vehicle.energy_capacity_wh,
                    remaining_s=vehicle.remaining_s,
                    vehicle_max_voltage_v=vehicle.max_voltage_v,
                    vehicle_max_current_a=vehicle.max_current_a,
                    vehicle_max_power_w=vehicle.max_power_w,
                    bidirectional=vehicle.bidirectional,
                    identity=vehicle.identity,
                    contract=vehicle.contract,
                    error=vehicle.error,
                    text=vehicle.text,
                    messages_in=vehicle.messages_in,
                    messages_out=vehicle.messages_out,
                    messages_bad=vehicle.messages_bad,
                )
            )

    def _on_report(self, report: FaultReport) -> None:
        self.report(report, session_id=self.bridge.vehicle.session_id)

    def _ask_contract(self, update: bool, request: bytes, answer: Callable[[bytes, str], None]) -> None:
        """In the V2G thread; ``answer`` in the station's."""
        if not self._contracts.service_is_ready():
            answer(b"", "the back end does not run")
            return
        kind = srv.VehicleCertificate.Request
        question = kind(evse=self.evse, action=kind.ACTION_UPDATE if update else kind.ACTION_INSTALL)
        question.schema = "urn:iso:15118:2:2013:MsgDef"
        question.request = array("B", request)
        future = self._contracts.call_async(question)
        future.add_done_callback(lambda f: answer(bytes(f.result().response), f.result().text))

    # In.
    def _on_session(self, state: SessionState) -> None:
        if not self.active:
            return
        self.bridge.inform(
            session_stamp_ns=state.stamp_ns,
            session_id=state.session_id,
            phase=state.phase,
            authorization=state.authorization,
            stop_requested=state.stop_requested,
            shutdown=state.shutdown,
            mated=state.mated,
        )

    def _on_supply(self, state: SupplyState) -> None:
        self.bridge.inform(
            voltage_v=state.voltage_v,
            current_a=state.current_a,
            contactors_closed=state.contactors_closed,
            insulation=state.insulation,
            insulation_permit_number=state.insulation_permit_number,
            voltage_limited=state.voltage_limited,
            current_limited=state.current_limited,
            power_limited=state.power_limited,
        )

    def _on_limits(self, limits: SupplyLimits) -> None:
        self.bridge.inform(
            supply_available=limits.available,
            max_voltage_v=limits.max_voltage_v,
            min_voltage_v=limits.min_voltage_v,
            max_current_a=limits.max_current_a,
            min_current_a=limits.min_current_a,
            max_power_w=limits.max_power_w,
            max_export_current_a=limits.max_export_current_a,
            max_export_power_w=limits.max_export_power_w,
            current_ripple_a=limits.current_ripple_a,
        )

    def _on_permit(self, permit: ChargePermit) -> None:
        self.bridge.inform(
            permit_number=permit.number,
            permit_purpose=permit.purpose,
            permit_max_voltage_v=permit.max_voltage_v,
            permit_max_current_a=permit.max_current_a,
            permit_max_power_w=permit.max_power_w,
            permit_min_current_a=permit.min_current_a,
            permit_min_power_w=permit.min_power_w,
        )

    def _on_meter(self, reading: MeterReading) -> None:
        self.bridge.inform(
            meter_valid=reading.valid,
            meter_serial=reading.serial,
            meter_import_wh=reading.import_wh,
            meter_export_wh=reading.export_wh,
            meter_time_s=reading.time / 1e9,
        )

    def _on_pilot(self, state: PilotState) -> None:
        self.bridge.inform(pilot=state.state, pilot_pwm=state.pwm)

    def _on_robot(self, state: RobotState) -> None:
        """The arm as the mechanical charging device of ACDP."""
        arm = "Moving"
        if state.evse not in (0, self.evse):  # at work elsewhere: what it left here stays
            arm = "EndPosition" if self.bridge.station.mated else "Home"
        elif state.mode == RobotMode.PARKED:
            arm = "Home"
        elif state.mode in (RobotMode.MATED, RobotMode.RELEASED, RobotMode.FOLLOWING):
            arm = "EndPosition"
        self.bridge.inform(arm=arm)

    def _on_inlet(self, pose: PoseWithCovarianceStamped) -> None:
        if pose.header.frame_id != f"bay{self.evse}":
            return
        at = pose.pose.pose.position
        self.bridge.inform(
            inlet_stamp_ns=now_ns(),
            inlet_x_mm=(at.x - self.parameters.acdp__inlet_x_m) * 1e3,
            inlet_y_mm=(at.y - self.parameters.acdp__inlet_y_m) * 1e3,
        )

    def _on_limit(self, limit: ChargingLimit) -> None:
        self.bridge.inform(
            backend_max_current_a=limit.max_current_a,
            backend_max_power_w=limit.max_power_w,
            backend_min_power_w=limit.min_power_w,
        )


def main() -> None:
    run(V2gNode)


if __name__ == "__main__":
    main()
