"""The power node: one bank of EK3 modules, its outputs, safety controller and meters.

Subscribes, per EVSE: ``power/permit``, ``vehicle/target``, ``pilot/state``.
Publishes, per EVSE: ``power/state`` 25 Hz, ``power/limits`` 2 Hz and on change (these two not for AC outlets, see
parameter ``ac``), ``power/meter`` 5 Hz, ``bay/state`` 10 Hz and on change, ``fault``; for the station
``/power/modules`` 2 Hz, ``/safety/state`` 20 Hz and on change.
Parameters: ``power.parameters.PowerParameters``.

The control cycle is a plain thread (power.loop); a second one publishes what it did.
"""

from __future__ import annotations

import sys
import threading
from functools import partial
from typing import Any

from robot_charger import msg
from robot_charger.common.can_bus import BusError
from robot_charger.common.clock import Ticker
from robot_charger.common.faults import Code, FaultReport, Severity
from robot_charger.common.node import ERROR, OK, WARN, Diagnosis, StartError, StationNode, run
from robot_charger.common.topics import fill
from robot_charger.power import busload
from robot_charger.power.control import Control, Snapshot, Withdrawn, Word
from robot_charger.power.drivers import module_buses, open_ports
from robot_charger.power.loop import ControlLoop
from robot_charger.power.messages import Reporter
from robot_charger.power.meter import SITE, Meter, MeterReader, Reading, Witness, open_meters
from robot_charger.power.monitors import open_monitors
from robot_charger.power.output import Mode
from robot_charger.power.parameters import PowerParameters

REPORT_S = 0.040


class PowerNode(StationNode):
    """See the module's docstring."""

    parameters: PowerParameters

    def __init__(self) -> None:
        super().__init__("power", PowerParameters)
        self.parameters.check()
        self._buses = module_buses(self.parameters)
        busload.choose(self.parameters, len(self._buses))
        self._control: Control | None = None
        self._loop: ControlLoop | None = None
        self._meters: MeterReader | None = None
        self._open_meters: dict[int, Meter] = {}
        self._witnesses: dict[int, Witness] = {}
        self._signed: dict[int, str] = {}
        self._ports: list[Any] = []
        self._reporting = threading.Event()
        self._reporter: threading.Thread | None = None
        self._meter_failures: dict[int, int] = {}
        self._topics = Publishers(self)
        for evse in self.parameters.evses:
            if evse not in self.parameters.ac:
                self._listen(evse)

    def _listen(self, evse: int) -> None:
        def hear(word: Word) -> None:
            if self._control:
                self._control.hear(evse, word)

        self.subscribe("power/permit", hear, evse, danger=lambda _: hear(Withdrawn()))
        self.subscribe("vehicle/target", hear, evse)
        self.subscribe("pilot/state", hear, evse)

    def configure(self) -> None:
        self.parameters.check()
        self._buses = module_buses(self.parameters)
        try:
            self._ports = open_ports(self.parameters)
            self._open_meters = open_meters(self.parameters)
        except (BusError, ValueError) as error:
            self.cleanup()
            raise StartError(str(error)) from error
        share = busload.worst(self.parameters, len(self._buses), busload.choose(self.parameters, len(self._buses)))
        if share > busload.WARN:
            text = f"worst-case load {share:.0%} of a bus, {busload.WARN:.0%} advised"
            self.report(FaultReport(Code.POWER_BUS_LOAD, Severity.WARNING, text))

    def activate(self) -> None:
        sys.setswitchinterval(0.0005)  # the control thread must not wait 5 ms for the interpreter
        self._control = Control(self.parameters, len(self._buses))
        self._control.driver.start()
        self._control.monitors = open_monitors(self.parameters)
        if self._control.monitors is not None:
            self._control.monitors.start(partial(self.fail, "insulation thread"))
        self._loop = ControlLoop(
            self._control, self._ports, self.parameters.realtime, partial(self.fail, "control loop")
        )
        meters_failed = partial(self.fail, "meter thread")
        self._meters = MeterReader(self._open_meters, self._on_reading, self._on_signed, meters_failed)
        self._witnesses = {evse: Witness() for evse in self.parameters.evses}
        self._reporter = self.thread("power-report", self._report_loop)
        self._reporting.set()
        self._loop.start()
        self._meters.start()
        self._reporter.start()

    def deactivate(self) -> None:
        """Zero, contactors open, then the threads end."""
        if self._loop is not None and not self._loop.stop():
            self.get_logger().error("power was switched off, but the output was not seen safe in time")
        self._reporting.clear()
        if self._reporter is not None:
            self._reporter.join(timeout=1.0)
        if self._control is not None:
            self._control.driver.close()
            if self._control.monitors is not None:
                self._control.monitors.close()
        if self._meters is not None:
            self._meters.close()
        self._loop = self._control = self._meters = self._reporter = None

    def cleanup(self) -> None:
        for port in self._ports:
            port.close()
        self._ports = []

    def make_safe(self) -> None:
        self.deactivate()
        self.cleanup()

    def diagnose(self) -> Diagnosis:
        control, loop = self._control, self._loop
        if control is None or loop is None:
            return OK, "", {}
        healthy = int(control.bank.healthy.sum())
        level = ERROR if not healthy else WARN if healthy < control.bank.count else OK
        return (
            level,
            f"{healthy} of {control.bank.count} modules healthy",
            {
                "cycles": control.cycles,
                "missed cycles": loop.missed,
                "latest cycle [ms]": round(loop.latest_s * 1e3, 1),
                "pauses over 100 ms": control.pauses,
                "realtime": loop.realtime,
                "frames in": self._frames(control)[0],
                "frames out": self._frames(control)[1],
                "frames bad": self._frames_bad(),
                "desk grace [ms]": self.parameters.desk_grace_ms,
                "bus errors": sum(p.errors for p in self._ports),
            },
        )

    # Threads.

    def _report_loop(self) -> None:
        control, loop = self._control, self._loop
        assert control is not None and loop is not None
        reporter = Reporter(self.parameters, control)
        ticker = Ticker(REPORT_S)
        tick = 0
        while self._reporting.is_set():
            ticker.wait()
            tick += 1
            if not self.context.ok():  # publishers die with their context while the process ends
                return
            self._report_once(reporter, control, loop, tick)

    def _report_once(self, reporter: Reporter, control: Control, loop: ControlLoop, tick: int) -> None:
        topics = self._topics
        while control.driver.notes:
            self.get_logger().info(control.driver.notes.popleft(), throttle_duration_sec=1.0)
        while control.faults:
            evse, report = control.faults.popleft()
            self.report(report, evse, control.channels[evse].output.session_id if evse else "")
        for evse, channel in control.channels.items():
            snapshot = channel.snapshot
            if evse in topics.state:
                if snapshot.stamp_ns:
                    self._witness(evse, snapshot)
                    topics.state[evse].publish(reporter.state(snapshot, loop.missed))
                limits = reporter.limits(evse)
                if limits is not None:
                    topics.limits[evse].publish(limits)
            bay = reporter.bay(evse, tick % 5 == 0)
            if bay is not None:
                topics.bay[evse].publish(bay)
        safety = reporter.safety(tick % 3 == 0)
        if safety is not None:
            topics.safety.publish(safety)
        if tick % 25 == 0:
            topics.modules.publish(reporter.modules(*self._frames(control), self._frames_bad()))

    def _frames(self, control: Control) -> tuple[int, int]:
        """Frames in and out, whatever the modules speak."""
        driver = control.driver
        return (
            driver.frames_in + sum(p.frames_in for p in self._ports),
            driver.frames_out + sum(p.frames_out for p in self._ports),
        )

    def _frames_bad(self) -> int:
        control = self._control
        own = control.bad + control.bank.bad + control.driver.bad if control else 0
        return own + sum(p.bad for p in self._ports)

    def _witness(self, evse: int, snapshot: Snapshot) -> None:
        if not self.parameters.meter__signs or self._meters is None:
            return
        due = self._witnesses[evse].follow(snapshot.session_id, snapshot.mode in (Mode.TRANSFER, Mode.RAMP_DOWN))
        if due is not None:
            self._meters.sign(evse, *due)

    def _on_signed(self, evse: int, text: str, error: str) -> None:
        if error:
            self.get_logger().error(f"no signed reading of EVSE {evse}: {error}")
        else:
            self._signed[evse] = text

    def _on_reading(self, evse: int, reading: Reading | None, error: str) -> None:
        if reading is None:
            failures = self._meter_failures[evse] = self._meter_failures.get(evse, 0) + 1
            if failures == 10:
                severity = Severity.WARNING if evse == SITE else Severity.STOP  # the back end falls back by itself
                self.report(FaultReport(Code.METER, severity, error), evse)
        else:
            if self._meter_failures.get(evse, 0) >= 10:
                self.report(FaultReport(Code.METER, Severity.STOP, "", active=False), evse)
            self._meter_failures[evse] = 0
        last = reading or self._topics.last_reading.get(evse)
        if last is None:
            return
        self._topics.last_reading[evse] = last
        if not self.context.ok():
            return
        self._topics.meter[evse].publish(
            fill(
                msg.MeterReading(),
                stamp_ns=last.stamp_ns,
                time=self.get_clock().now().to_msg(),
                valid=reading is not None,
                serial=last.serial,
                import_wh=last.import_wh,
                export_wh=last.export_wh,
                voltage_v=last.voltage_v,
                current_a=last.current_a,
                power_w=last.power_w,
                signed_data=self._signed.get(evse, ""),
            )
        )


class Publishers:
    """All of the node's publishers."""

    def __init__(self, node: PowerNode) -> None:
        evses = node.parameters.evses
        dc = [e for e in evses if e not in node.parameters.ac]
        self.state = {e: node.publisher("power/state", e) for e in dc}
        self.limits = {e: node.publisher("power/limits", e) for e in dc}
        self.meter = {e: node.publisher("power/meter", e) for e in evses}
        if node.parameters.meter__site_unit:
            self.meter[SITE] = node.publisher("/site/meter")
        self.bay = {e: node.publisher("bay/state", e) for e in evses}
        self.modules = node.publisher("/power/modules")
        self.safety = node.publisher("/safety/state")
        self.last_reading: dict[int, Reading] = {}


def main() -> None:
    run(PowerNode)


if __name__ == "__main__":
    main()
