"""Node ``gbt`` of one EVSE, in namespace /evseN: the charger's side of GB/T 27930 over CAN and its hard wires.

Publishes:  vehicle/target (VehicleTarget, at once on change and at 20 Hz) and vehicle/link (VehicleLink, 10 Hz and
            on change), both only while session/state.protocol says gbt; fault, /diagnostics.
Listens to: session/state, power/state, power/limits, power/permit, backend/limit.
Parameters: see gbt.parameters. Without ``bus`` there is no GB/T connector and the node does nothing.

It stays silent on the bus, and the auxiliary supply stays off, until the session is in Linking and authorised.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import can

from robot_charger.common.can_bus import BusError, open_bus
from robot_charger.common.clock import MILLISECOND, now_ns
from robot_charger.common.faults import Code, FaultReport, Severity
from robot_charger.common.node import OK, WARN, Diagnosis, StartError, StationNode, run
from robot_charger.common.process import realtime
from robot_charger.gbt.drivers import DriverError, WiresDriver
from robot_charger.gbt.drivers.lines import GpioWires
from robot_charger.gbt.drivers.simulated import SimulatedWires
from robot_charger.gbt.frames import MESSAGES
from robot_charger.gbt.logic import Station
from robot_charger.gbt.messages import Heard, link_message, target_message
from robot_charger.gbt.model import Inputs, Phase, Session, WiresIn
from robot_charger.gbt.parameters import GbtParameters
from robot_charger.gbt.transport import Frame

CYCLE_S = 0.01
IDLE_CYCLE_S = 0.05
TARGET_NS = 50 * MILLISECOND
LINK_NS = 100 * MILLISECOND
MOST_FRAMES = 500  # read in one cycle; a flood waits in the socket
REALTIME_PRIORITY = 20


class GbtNode(StationNode):
    def __init__(self) -> None:
        super().__init__("gbt", GbtParameters)
        self._bus: can.BusABC | None = None
        self._wires: WiresDriver | None = None
        self._station = Station(self.parameters.settings())
        self._heard = Heard()
        self._frames: Counter[int] = Counter()
        self._running = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._target_number = 0
        self._output_ns = 0  # when the last CCS left
        self._periods_ms: deque[float] = deque(maxlen=2000)
        self._targets = self.publisher("vehicle/target", self.evse)
        self._links = self.publisher("vehicle/link", self.evse)
        for name in ("session/state", "power/state", "power/limits", "power/permit", "backend/limit"):
            self.subscribe(name, self._keep(name), self.evse)

    def configure(self) -> None:
        if not self.evse:
            raise StartError("GB/T 27930 belongs to one EVSE: start it in a namespace /evseN, __ns:=/evse1")
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
        self._thread = self.thread("gbt", partial(self._guarded, self._bus, self._wires))
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
            return OK, "no GB/T connector (parameter bus is empty)", {}
        station, vehicle = self._station, self._station.vehicle
        periods = sorted(self._periods_ms)
        values: dict[str, Any] = {
            "phase": station.phase.name.lower(),
            "edition of the vehicle": station.edition or "not known",
            "restarts": station.restarts,
            "messages refused": vehicle.bad,
            "messages sent": station.sent,
            "frames between others": vehicle.others,
            **{f"frames of 0x{identifier:08X}": count for identifier, count in sorted(self._frames.items())[:20]},
        }
        if periods:
            values["period of CCS p50 [ms]"] = f"{periods[len(periods) // 2]:.2f}"
            values["period of CCS max [ms]"] = f"{periods[-1]:.2f}"
        if vehicle.last_bad:
            values["last refused"] = vehicle.last_bad
        return WARN if station.failed else OK, station.text, values

    def _keep(self, name: str) -> Callable[[Any], None]:
        return lambda message: self._heard.last.__setitem__(name, message)

    # The loop.
    def _guarded(self, bus: can.BusABC, wires: WiresDriver) -> None:
        """The loop. If it breaks, the auxiliary supply goes off; power goes off for want of a target."""
        try:
            self._loop(bus, wires)
        except Exception:
            with contextlib.suppress(DriverError):
                wires.write(replace(self._station.wires, auxiliary=False))
            raise  # the process ends and is started again

    def _loop(self, bus: can.BusABC, wires: WiresDriver) -> None:
        if self.parameters.realtime:
            realtime(REALTIME_PRIORITY)
        due_s = time.monotonic() + CYCLE_S
        told: tuple[Any, ...] = ()
        target_ns = link_ns = 0
        station = self._station
        while self._running.is_set():
            self._listen(bus, due_s)
            try:
                inputs = self._inputs(wires.read())
                station.step(inputs)
                wires.write(station.wires)
            except DriverError as error:
                self.get_logger().error(str(error), throttle_duration_sec=1.0)
                self.report(FaultReport(Code.GBT_WIRES, Severity.STOP, str(error)))
                inputs = self._inputs(WiresIn())
                station.step(inputs)
            self._send(bus, station.transmit(inputs))
            for fault in station.faults:
                self.report(fault, session_id=station.session_id)
            told, target_ns, link_ns = self._tell(inputs, told, target_ns, link_ns)
            idle = station.phase is Phase.IDLE and not inputs.session.active
            due_s = max(due_s + (IDLE_CYCLE_S if idle else CYCLE_S), time.monotonic())

    def _listen(self, bus: can.BusABC, until_s: float) -> None:
        """Frames that arrive until the end of the cycle; the transport protocol is answered at once."""
        for _ in range(MOST_FRAMES):
            left_s = until_s - time.monotonic()
            try:
                frame = bus.recv(max(0.0, left_s))
            except (can.CanError, OSError) as error:
                self.get_logger().error(f"bus {self.parameters.bus}: {error}", throttle_duration_sec=1.0)
                time.sleep(max(0.0, left_s))
                return
            if frame is None:
                if left_s <= 0.0:
                    return
                continue
            if len(self._frames) < 64 or frame.arbitration_id in self._frames:
                self._frames[frame.arbitration_id] += 1
            if frame.is_error_frame or frame.is_remote_frame or frame.is_fd or not frame.is_extended_id:
                self._station.vehicle.refuse(f"0x{frame.arbitration_id:X} is no classic frame of 29 bits")
                continue
            self._send(bus, self._station.take(frame.arbitration_id, bytes(frame.data), now_ns()))

    def _send(self, bus: can.BusABC, frames: Iterable[Frame]) -> None:
        for identifier, data in frames:
            try:
                bus.send(can.Message(arbitration_id=identifier, data=data, is_extended_id=True))
            except (can.CanError, OSError) as error:
                self.get_logger().error(f"bus {self.parameters.bus}: {error}", throttle_duration_sec=1.0)
                return
            if identifier == MESSAGES["CCS"].identifier:
                gap_ms = (now_ns() - self._output_ns) / MILLISECOND
                self._output_ns = now_ns()
                if gap_ms < 1000.0:
                    self._periods_ms.append(gap_ms)

    def _inputs(self, wires: WiresIn) -> Inputs:
        now, heard = now_ns(), self._heard
        session = heard.session() if self.active and not self._closing.is_set() else Session()
        t = time.localtime()
        clock = (min(t.tm_sec, 59), t.tm_min, t.tm_hour, t.tm_mday, t.tm_mon, t.tm_year)
        return Inputs(now, wires, heard.supply(now), heard.allowed(now), session, clock)

    def _tell(
        self, inputs: Inputs, told: tuple[Any, ...], target_ns: int, link_ns: int
    ) -> tuple[tuple[Any, ...], int, int]:
        """Publish what changed, and everything at its own pace."""
        station, now = self._station, inputs.now_ns
        ours = inputs.session.active or station.phase not in (Phase.IDLE, Phase.ENDED)
        if not self.active or not (ours or self._heard.ours):
            return (), target_ns, link_ns
        status, target = station.status(inputs), station.target
        words = (status.phase, status.lock, status.vehicle_ready, status.error, status.text)
        asked = (target.purpose, round(target.voltage_v), round(target.current_a, 1))
        if asked != told[:3] or now - target_ns >= TARGET_NS:
            self._target_number += 1
            self._targets.publish(target_message(station, self._target_number, now_ns()))
            target_ns = now
        if words != told[3:] or now - link_ns >= LINK_NS:
            identify = self.parameters.privacy__publish_identity
            self._links.publish(link_message(station, status, identify, now_ns()))
            link_ns = now
        return (*asked, *words), target_ns, link_ns


def main() -> None:
    run(GbtNode)


if __name__ == "__main__":
    main()
