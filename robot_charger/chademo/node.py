"""Node ``chademo`` of one EVSE, in namespace /evseN: the station's side of CHAdeMO over CAN and its hard wires.

Publishes:  vehicle/target (VehicleTarget, at once on change and at 20 Hz) and vehicle/link (VehicleLink, 10 Hz and
            on change), both only while session/state.protocol says chademo; fault, /diagnostics.
Listens to: session/state, power/state, power/limits, power/permit, backend/limit.
Parameters: see ChademoParameters. Without ``bus`` there is no CHAdeMO connector and the node does nothing.

It stays silent on the bus until the session is in Linking, authorised, and the vehicle has spoken after d1.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import can

from robot_charger import msg
from robot_charger.chademo.drivers import DriverError, WiresDriver
from robot_charger.chademo.drivers.lines import GpioWires, Wiring
from robot_charger.chademo.drivers.simulated import SimulatedWires
from robot_charger.chademo.logic import Allowed, Inputs, Phase, Session, Station, Status, Supply, Target, WiresIn
from robot_charger.chademo.timing import Settings, limit
from robot_charger.common.can_bus import BusError, open_bus
from robot_charger.common.clock import MILLISECOND, now_ns
from robot_charger.common.faults import Code, FaultReport, Severity
from robot_charger.common.node import OK, WARN, Diagnosis, StartError, StationNode, run
from robot_charger.common.parameters import parameter
from robot_charger.common.process import realtime
from robot_charger.common.topics import fill
from robot_charger.words.values import ChargePermit, Purpose

CYCLE_S = 0.01
IDLE_CYCLE_S = 0.05
TARGET_NS = 50 * MILLISECOND
LINK_NS = 100 * MILLISECOND
ALIVE_NS = 300 * MILLISECOND
MOST_FRAMES = 500  # read in one cycle; a flood waits in the socket
REALTIME_PRIORITY = 20
S = msg.SessionState
P = msg.SupplyState


@dataclass(frozen=True)
class ChademoParameters:
    bus: str = parameter("", "CAN bus of the connector, e.g. socketcan:can1; empty: no CHAdeMO connector")
    realtime: bool = parameter(True, "run the node under SCHED_FIFO where the system allows")
    driver: str = parameter("simulated", "hard wires d1, d2, k and lock", choices=("simulated", "gpiod"))
    lines__d1: str = parameter("", "gpiod: line of d1, e.g. gpiochip0:17, with ! when low means on")
    lines__d2: str = parameter("", "gpiod: line of d2")
    lines__lock: str = parameter("", "gpiod: line of the lock's solenoid")
    lines__k: str = parameter("", "gpiod: line of the opto-coupler j that reads switch k")
    lines__lock_feedback: str = parameter("", "gpiod: line of the lock's feedback")
    protocol_number: int = parameter(3, "own number in 0x109: 1 = 0.9, 2 = 1.x, 3 = 2.0", low=1, high=3)
    v2x: bool = parameter(False, "offer discharge (0x208, 0x209)")
    dynamic_control: bool = parameter(True, "offer dynamic control (0x118)")
    high_current: bool = parameter(False, "offer the extended request of 0x110 (unverified source)")
    max_current_a: float = parameter(125.0, "rating of cable and connector", unit="A", low=1.0, high=400.0)
    max_voltage_v: float = parameter(500.0, "rating of cable and connector", unit="V", low=50.0, high=1000.0)
    min_voltage_v: float = parameter(50.0, "lowest battery voltage served", unit="V", low=10.0, high=1000.0)
    can_loss_s: float = parameter(1.0, "silence of 0x102 that ends the charge", unit="s", low=0.3, high=2.0)
    request_slew_a_per_s: float = parameter(
        25.0, "fastest rise of the request that is followed", unit="A/s", low=5.0, high=1000.0
    )
    locked_flag_before_test: bool = parameter(True, "109.5.2 is set before the insulation test, not after it")
    stop_on_excess_request: bool = parameter(False, "a request above 108.3 ends the charge instead of being cut")
    capacity_unit_kwh: float = parameter(0.1, "step of 0x101 bytes 5-6", unit="kWh", low=0.1, high=0.11)
    maker: int = parameter(0, "maker code of the station in 0x708, 0 = not sent", low=0, high=255)
    privacy__publish_identity: bool = parameter(False, "tell the automaker code in vehicle/link", unsafe=True)

    def wiring(self) -> Wiring:
        return Wiring(self.lines__d1, self.lines__d2, self.lines__lock, self.lines__k, self.lines__lock_feedback)

    def settings(self) -> Settings:
        return Settings(
            protocol=self.protocol_number,
            v2x=self.v2x,
            dynamic_control=self.dynamic_control,
            high_current=self.high_current,
            can_loss_s=self.can_loss_s,
            request_slew_a_per_s=self.request_slew_a_per_s,
            locked_flag_before_test=self.locked_flag_before_test,
            stop_on_excess_request=self.stop_on_excess_request,
            capacity_unit_kwh=self.capacity_unit_kwh,
            max_current_a=self.max_current_a,
            min_voltage_v=self.min_voltage_v,
            max_voltage_v=self.max_voltage_v,
            maker=self.maker,
        )


class ChademoNode(StationNode):
    def __init__(self) -> None:
        super().__init__("chademo", ChademoParameters)
        self._bus: can.BusABC | None = None
        self._wires: WiresDriver | None = None
        self._station = Station(self.parameters.settings())
        self._heard: Counter[int] = Counter()
        self._running = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._latest: dict[str, Any] = {}
        self._test_permit = 0
        self._target_number = 0
        self._periods_ms: deque[float] = deque(maxlen=2000)
        self._targets = self.publisher("vehicle/target", self.evse)
        self._links = self.publisher("vehicle/link", self.evse)
        for name in ("session/state", "power/state", "power/limits", "backend/limit"):
            self.subscribe(name, self._keep(name), self.evse)
        self.subscribe("power/permit", self._on_permit, self.evse)

    def configure(self) -> None:
        if not self.evse:
            raise StartError("CHAdeMO belongs to one EVSE: start it in a namespace /evseN, __ns:=/evse1")
        self._station = Station(self.parameters.settings())
        if not self.parameters.bus:
            return
        try:
            self._bus = open_bus(self.parameters.bus, fd=False)
        except BusError as error:
            raise StartError(f"parameter bus: {error}") from error
        lines = self.parameters.driver == "gpiod"
        self._wires = GpioWires(self.parameters.wiring()) if lines else SimulatedWires(self.evse)
        self._running.set()
        self._closing.clear()
        self._thread = self.thread("chademo", partial(self._guarded, self._bus, self._wires))
        self._thread.start()

    def cleanup(self) -> None:
        self._closing.set()
        if self._thread:
            deadline = time.monotonic() + 2.0
            while time.monotonic() < deadline and self._station.phase not in (Phase.IDLE, Phase.ENDED):
                time.sleep(0.02)
            self._running.clear()
            self._thread.join(timeout=1.0)
            self._thread = None
        if self._wires:
            self._wires.close()
            self._wires = None
        if self._bus:
            self._bus.shutdown()
            self._bus = None

    def make_safe(self) -> None:
        self.cleanup()

    def diagnose(self) -> Diagnosis:
        if not self.parameters.bus:
            return OK, "no CHAdeMO connector (parameter bus is empty)", {}
        station, vehicle = self._station, self._station.vehicle
        periods = sorted(self._periods_ms)
        values: dict[str, Any] = {
            "phase": station.phase.name.lower(),
            "protocol number of both": station.rules if vehicle.complete else 0,
            "frames refused": vehicle.bad,
            "frames sent": station.sent,
            **{f"frames of 0x{identifier:03X}": count for identifier, count in sorted(self._heard.items())[:20]},
        }
        if periods:
            values["period p50 [ms]"] = f"{periods[len(periods) // 2]:.2f}"
            values["period max [ms]"] = f"{periods[-1]:.2f}"
        if vehicle.last_bad:
            values["last refused"] = vehicle.last_bad
        return WARN if station.failed else OK, station.text, values

    # Callbacks: keep the newest.
    def _keep(self, name: str) -> Callable[[Any], None]:
        return lambda message: self._latest.__setitem__(name, message)

    def _on_permit(self, permit: ChargePermit) -> None:
        self._latest["power/permit"] = permit
        session = self._latest.get("session/state")
        test = permit.purpose == Purpose.INSULATION_TEST
        if test and session and permit.session_id == session.session_id and not self._test_permit:
            self._test_permit = permit.number

    # The loop.
    def _guarded(self, bus: can.BusABC, wires: WiresDriver) -> None:
        """The loop. If it breaks, d1 and d2 go off; power goes off for want of a target; the process ends."""
        try:
            self._loop(bus, wires)
        except Exception:
            with contextlib.suppress(DriverError):
                wires.write(replace(self._station.wires, d1=False, d2=False))
            raise

    def _loop(self, bus: can.BusABC, wires: WiresDriver) -> None:
        if self.parameters.realtime:
            realtime(REALTIME_PRIORITY)
        cycle_s = time.monotonic() + CYCLE_S
        send_s = cycle_s
        read = WiresIn()
        told: tuple[Any, ...] = ()
        target_ns = link_ns = 0
        while self._running.is_set():
            heard = self._read(bus, min(cycle_s, send_s))
            now = now_ns()
            try:
                read = wires.read()
                inputs = self._inputs(now, read, heard)
                self._station.step(inputs)
                wires.write(self._station.wires)
            except DriverError as error:
                self.get_logger().error(str(error), throttle_duration_sec=1.0)
                self.report(FaultReport(Code.CHADEMO_WIRES, Severity.STOP, str(error)))
                inputs = self._inputs(now, WiresIn(), heard)
                self._station.step(inputs)
            if time.monotonic() >= send_s:
                send_s = self._send(bus, inputs.supply, send_s)
            for fault in self._station.faults:
                self.report(fault, session_id=self._station.session_id)
            told, target_ns, link_ns = self._tell(inputs, told, target_ns, link_ns)
            idle = self._station.phase is Phase.IDLE and not inputs.session.active
            if time.monotonic() >= cycle_s:  # else it was the frames' turn, not the cycle's
                cycle_s = max(cycle_s + (IDLE_CYCLE_S if idle else CYCLE_S), time.monotonic())

    def _read(self, bus: can.BusABC, until_s: float) -> list[tuple[int, bytes, int]]:
        """Frames that arrive until the end of the cycle."""
        heard: list[tuple[int, bytes, int]] = []
        while len(heard) < MOST_FRAMES:
            left_s = until_s - time.monotonic()
            try:
                frame = bus.recv(max(0.0, left_s))
            except (can.CanError, OSError) as error:
                self.get_logger().error(f"bus {self.parameters.bus}: {error}", throttle_duration_sec=1.0)
                time.sleep(max(0.0, left_s))
                break
            if frame is None:
                if left_s <= 0.0:
                    break
                continue
            odd = frame.is_extended_id or frame.is_fd or frame.is_remote_frame or frame.is_error_frame
            identifier = frame.arbitration_id | (0x8000_0000 if odd else 0)
            if len(self._heard) < 64 or identifier in self._heard:
                self._heard[identifier] += 1
            heard.append((identifier, bytes(frame.data), now_ns()))
        return heard

    def _send(self, bus: can.BusABC, supply: Supply, due_s: float) -> float:
        """The frames of this period. Returns when the next are due."""
        now_s = time.monotonic()
        for identifier, data in self._station.transmit(supply, now_ns()):
            try:
                bus.send(can.Message(arbitration_id=identifier, data=data, is_extended_id=False))
            except (can.CanError, OSError) as error:
                self.get_logger().error(f"bus {self.parameters.bus}: {error}", throttle_duration_sec=1.0)
                break
        period_s = limit("period")
        self._periods_ms.append((now_s - due_s + period_s) * 1e3)
        following = due_s + period_s
        return following if following > now_s else now_s + period_s

    def _tell(
        self, inputs: Inputs, told: tuple[Any, ...], target_ns: int, link_ns: int
    ) -> tuple[tuple[Any, ...], int, int]:
        """Publish what changed, and everything at its own pace."""
        station, now = self._station, inputs.now_ns
        ours = inputs.session.active or station.phase not in (Phase.IDLE, Phase.ENDED)
        if not self.active or not (ours or self._is_protocol()):
            return (), target_ns, link_ns
        status, target = station.status(inputs), station.target
        words = (status.phase, status.lock, status.vehicle_ready, status.error, status.text)
        asked = (target.purpose, round(target.voltage_v), round(target.current_a, 1))
        if asked != told[:3] or now - target_ns >= TARGET_NS:
            self._targets.publish(self._target_message(target))
            target_ns = now
        if words != told[3:] or now - link_ns >= LINK_NS:
            self._links.publish(self._link_message(status))
            link_ns = now
        return (*asked, *words), target_ns, link_ns

    def _is_protocol(self) -> bool:
        session = self._latest.get("session/state")
        return session is not None and session.protocol.startswith("chademo")

    # Messages in.
    def _inputs(self, now: int, wires: WiresIn, heard: list[tuple[int, bytes, int]]) -> Inputs:
        supply = self._supply(now)
        return Inputs(now, wires, supply, self._allowed(now, supply), self._session(), heard)

    def _session(self) -> Session:
        state = self._latest.get("session/state")
        if state is None or not self.active or self._closing.is_set() or not self._is_protocol():
            return Session()
        linking = state.phase == S.PHASE_LINKING
        if state.phase < S.PHASE_LINKING:
            self._test_permit = 0
        return Session(
            session_id=state.session_id,
            active=S.PHASE_LINKING <= state.phase <= S.PHASE_STOPPING,
            start=linking and state.authorization == S.AUTHORIZATION_ACCEPTED,
            stop=state.stop_requested or state.phase == S.PHASE_STOPPING,
            broken=state.shutdown >= S.SHUTDOWN_ERROR,
            test_permit=self._test_permit,
        )

    def _supply(self, now: int) -> Supply:
        state = self._latest.get("power/state")
        if state is None or now - state.stamp_ns > ALIVE_NS:
            return Supply()
        matched = abs(state.bank_voltage_v - state.voltage_v) < limit("before_d2_v")
        return Supply(
            alive=True,
            voltage_v=state.voltage_v,
            bank_voltage_v=state.bank_voltage_v,
            current_a=state.current_a,
            contactors_closed=state.contactors_closed,
            precharged=state.contactors_closed
            and (state.mode == P.MODE_TRANSFER or (state.mode == P.MODE_PRECHARGE and matched)),
            faulted=state.mode == P.MODE_FAULT,
            insulation_valid=state.insulation in (P.INSULATION_VALID, P.INSULATION_WARNING),
            insulation_failed=state.insulation in (P.INSULATION_FAULT, P.INSULATION_SELF_TEST_FAILED),
            insulation_permit=state.insulation_permit_number,
        )

    def _allowed(self, now: int, supply: Supply) -> Allowed:
        """The smaller of supply, back end and, once transfer is permitted, permit.

        Whether energy may leave the vehicle is the permit's word alone: it knows grid and back end.
        """
        limits, backend = self._latest.get("power/limits"), self._latest.get("backend/limit")
        permit = self._latest.get("power/permit")
        if limits is None:
            return Allowed()
        volts = max(supply.voltage_v, self.parameters.min_voltage_v)
        current_a, power_w = limits.max_current_a, limits.max_power_w
        export_a = min(limits.max_export_current_a, limits.max_export_power_w / volts)
        if backend is not None:
            current_a, power_w = min(current_a, backend.max_current_a), min(power_w, backend.max_power_w)
        transfer = permit is not None and permit.purpose == Purpose.TRANSFER
        if permit is not None and transfer and now - permit.stamp_ns <= ALIVE_NS:
            current_a, power_w = min(current_a, permit.max_current_a), min(power_w, permit.max_power_w)
            export_a = min(export_a, max(0.0, -permit.min_current_a), max(0.0, -permit.min_power_w) / volts)
        return Allowed(limits.max_voltage_v, max(0.0, current_a), max(0.0, power_w), max(0.0, export_a))

    # Messages out.
    def _target_message(self, target: Target) -> msg.VehicleTarget:
        station = self._station
        self._target_number += 1
        vehicle = station.vehicle
        most_v = vehicle.get(0x100, "max_battery_v")
        return fill(
            msg.VehicleTarget(),
            stamp_ns=now_ns(),
            number=self._target_number,
            session_id=station.session_id,
            protocol="chademo",
            purpose=target.purpose,
            voltage_v=target.voltage_v,
            current_a=target.current_a,
            max_voltage_v=most_v,
            max_current_a=station.announced_a if target.purpose is Purpose.TRANSFER else 0.0,
            max_power_w=0.0,
            vehicle_stamp_ns=vehicle.control_ns,
            vehicle_timeout_ms=round(self.parameters.can_loss_s * 1000),
        )

    def _link_message(self, status: Status) -> msg.VehicleLink:
        station = self._station
        identity = f"chademo-{status.automaker:02x}" if self.parameters.privacy__publish_identity else ""
        return fill(
            msg.VehicleLink(),
            stamp_ns=now_ns(),
            session_id=station.session_id,
            protocol="chademo" if status.protocol_number or status.phase else "",
            phase=status.phase,
            transport="can",
            vehicle_ready=status.vehicle_ready,
            lock=status.lock,
            soc=status.soc,
            energy_capacity_wh=status.capacity_wh,
            remaining_s=status.remaining_s,
            vehicle_max_voltage_v=status.max_voltage_v,
            bidirectional=status.bidirectional,
            identity=identity,
            error=status.error,
            text=status.text,
            messages_in=station.vehicle.good,
            messages_out=station.sent,
            messages_bad=station.vehicle.bad,
        )


def main() -> None:
    run(ChademoNode)


if __name__ == "__main__":
    main()
