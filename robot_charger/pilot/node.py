"""Node ``pilot`` of one EVSE, in namespace /evseN.

Publishes:  pilot/state (PilotState, 12.5 Hz and at once on every change of state), fault, /diagnostics.
Listens to: pilot/command (PilotCommand).
With ``ac.rated_current_a`` it is an AC outlet too: see pilot.outlet.
Parameters: see PilotParameters.

The wire while the node is not active is state F (-12 V, not available); from activation to the first command
it is steady +12 V; an oscillator whose commands stop coming for ``command_timeout_s`` goes to F.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from functools import partial

from robot_charger import msg
from robot_charger.common.clock import SECOND, Ticker, now_ns
from robot_charger.common.node import ERROR, OK, WARN, Diagnosis, StartError, StationNode, run
from robot_charger.common.parameters import ParameterError, parameter
from robot_charger.common.process import realtime
from robot_charger.common.topics import fill
from robot_charger.pilot import proximity
from robot_charger.pilot.ac import CONNECTORS, LEAST_A, AcOutlet
from robot_charger.pilot.drivers import DriverError, PilotDriver
from robot_charger.pilot.drivers.linux import Board, Channel, LinuxOutlet, LinuxPilot, OutletLines
from robot_charger.pilot.drivers.simulated import SimulatedOutlet, SimulatedPilot
from robot_charger.pilot.iec61851 import State
from robot_charger.pilot.logic import Generator, Output, PilotLogic, Reading
from robot_charger.pilot.outlet import OutletTopics, Rating
from robot_charger.words.values import PilotCommand, PilotMode

REALTIME_PRIORITY = 25
REPORT_S = 0.08  # pilot/state at 12.5 Hz


@dataclass(frozen=True)
class PilotParameters:
    driver: str = parameter("simulated", "pilot board", choices=("simulated", "linux"))
    connector: str = parameter(
        "ccs2", "kind of connector, for the proximity bands", choices=tuple(sorted(proximity.KINDS))
    )
    realtime: bool = parameter(True, "measure under SCHED_FIFO where the system allows")
    sample_ms: int = parameter(4, "period of measuring", unit="ms", low=1, high=10)
    command_timeout_s: float = parameter(
        2.0, "an oscillator without a command for so long goes to state F", unit="s", low=0.5, high=10.0
    )
    diode_margin_v: float = parameter(
        1.0,
        "the negative peak may miss -12 V by this much before the diode counts as missing",
        unit="V",
        low=0.6,
        high=3.0,
    )
    linux__pwm: str = parameter("pwmchip0/0", "linux: PWM chip and channel of sysfs, 1 kHz")
    linux__adc: str = parameter("iio:device0", "linux: ADC of sysfs IIO")
    linux__high_channel: int = parameter(0, "linux: ADC channel of the positive peak", low=0, high=63)
    linux__high_gain: float = parameter(1.0, "linux: pilot volts per volt at that channel", low=-1000.0, high=1000.0)
    linux__high_bias_v: float = parameter(0.0, "linux: pilot volts at 0 V there", unit="V", low=-50.0, high=50.0)
    linux__low_channel: int = parameter(1, "linux: ADC channel of the negative peak", low=0, high=63)
    linux__low_gain: float = parameter(-1.0, "linux: pilot volts per volt at that channel", low=-1000.0, high=1000.0)
    linux__low_bias_v: float = parameter(0.0, "linux: pilot volts at 0 V there", unit="V", low=-50.0, high=50.0)
    linux__proximity_channel: int = parameter(-1, "linux: ADC channel of proximity, -1 = none", low=-1, high=63)
    linux__proximity_reference_v: float = parameter(
        3.3, "linux: voltage above the proximity pull-up", unit="V", low=1.0, high=12.0
    )
    linux__proximity_pull_ohm: float = parameter(
        1000.0, "linux: proximity pull-up", unit="ohm", low=10.0, high=100_000.0
    )
    linux__enable_line: str = parameter("", "linux: line that switches the generator on, e.g. gpiochip0:17")
    ac__rated_current_a: float = parameter(
        0.0, "an AC outlet of this current per phase, 6 to 80 A; 0: no AC outlet", unit="A", low=0.0, high=80.0
    )
    ac__phases: int = parameter(3, "phases of the AC outlet", low=1, high=3)
    ac__voltage_v: float = parameter(230.0, "of a phase to neutral", unit="V", low=90.0, high=300.0)
    ac__ventilated: bool = parameter(False, "the place is ventilated: vehicles that ask for it (state D) may charge")
    ac__ended_after_s: float = parameter(
        60.0,
        "an AC vehicle that was offered current and stayed in B for so long has had enough",
        unit="s",
        low=1.0,
        high=3600.0,
    )
    ac__grace_ms: float = parameter(
        0.0,
        "added to the 300 ms of a permit, for a desk without real-time scheduling",
        unit="ms",
        low=0.0,
        high=1000.0,
        unsafe=bool,
    )
    linux__contactor_line: str = parameter("", "linux: line whose edges hold the AC contactor, e.g. gpiochip0:22")
    linux__closed_line: str = parameter("", "linux: line of the AC contactor's feedback, on when it is closed")
    linux__well_line: str = parameter("", "linux: line that is on while the residual current monitor is content")

    def check(self) -> None:
        """Raises ParameterError for an AC outlet that cannot be."""
        if not self.ac__rated_current_a:
            return
        if self.connector not in CONNECTORS:
            raise ParameterError(
                f"parameter ac.rated_current_a = {self.ac__rated_current_a:g}: AC charging on {self.connector} is not "
                f"allowed, only on {' or '.join(CONNECTORS)} (parameter connector)"
            )
        if self.ac__rated_current_a < LEAST_A:
            raise ParameterError(
                f"parameter ac.rated_current_a = {self.ac__rated_current_a:g} cannot be told by the pilot: 6 to 80 A"
            )

    def board(self) -> Board:
        return Board(
            pwm=self.linux__pwm,
            adc=self.linux__adc,
            high=Channel(self.linux__high_channel, self.linux__high_gain, self.linux__high_bias_v),
            low=Channel(self.linux__low_channel, self.linux__low_gain, self.linux__low_bias_v),
            proximity=Channel(self.linux__proximity_channel),
            proximity_reference_v=self.linux__proximity_reference_v,
            proximity_pull_ohm=self.linux__proximity_pull_ohm,
            enable_line=self.linux__enable_line,
        )


class PilotNode(StationNode):
    def __init__(self) -> None:
        super().__init__("pilot", PilotParameters)
        self._driver: PilotDriver | None = None
        self._lock = threading.Lock()  # of the generator: commands come in the executor's thread
        self._generator = Generator()
        self._logic = PilotLogic()
        self._running = threading.Event()
        self._thread: threading.Thread | None = None
        self._samples = self._lost = 0
        self._late_s = 0.0
        p = self.parameters
        p.check()
        self._outlet: OutletTopics | None = None
        if p.ac__rated_current_a:
            rating = Rating(p.ac__rated_current_a, p.ac__phases, p.ac__voltage_v)
            outlet = AcOutlet(p.connector, p.ac__ventilated, p.ac__ended_after_s)
            self._outlet = OutletTopics(self, outlet, rating, p.ac__grace_ms)
        self._states = self.publisher("pilot/state", self.evse)
        self.subscribe("pilot/command", self._on_command, self.evse)

    def configure(self) -> None:
        if not self.evse:
            raise StartError("the pilot belongs to one EVSE: start it in a namespace /evseN, __ns:=/evse1")
        p = self.parameters
        self._logic = PilotLogic(p.connector, p.diode_margin_v)
        self._generator = Generator(p.command_timeout_s)
        linux = p.driver == "linux"
        self._driver = LinuxPilot(p.board()) if linux else SimulatedPilot(self.evse)
        self._driver.set_output(Output(PilotMode.F))
        if self._outlet:
            lines = OutletLines(p.linux__contactor_line, p.linux__closed_line, p.linux__well_line)
            try:
                self._outlet.open(LinuxOutlet(lines) if linux else SimulatedOutlet(self.evse))
            except DriverError:
                self.cleanup()
                raise
        self._running.set()
        self._thread = self.thread("pilot", partial(self._loop, self._driver))
        self._thread.start()

    def activate(self) -> None:
        with self._lock:
            self._generator.reset()

    def cleanup(self) -> None:
        self._running.clear()
        if self._thread:
            self._thread.join(timeout=1.0)
            self._thread = None
        if self._outlet:
            self._outlet.close()
        if self._driver:
            self._driver.close()
            self._driver = None

    def make_safe(self) -> None:
        self.cleanup()

    def diagnose(self) -> Diagnosis:
        reading = self._logic.reading
        values = {
            "state": reading.state.name,
            "positive peak [V]": f"{reading.high_v:.2f}",
            "negative peak [V]": f"{reading.low_v:.2f}",
            "duty [%]": f"{reading.output.duty * 100:.1f}",
            "samples": self._samples,
            "samples lost": self._lost,
            "latest sample was late by [ms]": f"{self._late_s * 1e3:.1f}",
        }
        level = ERROR if reading.state is State.FAULT else WARN if self._generator.refused else OK
        return level, reading.text or self._generator.refused, values

    def _on_command(self, command: PilotCommand) -> None:
        with self._lock:  # a float32 of the wire: 5 % is not 0.05
            self._generator.command(replace(command, duty=round(command.duty, 4)), now_ns())

    def _loop(self, driver: PilotDriver) -> None:
        if self.parameters.realtime:
            realtime(REALTIME_PRIORITY)
        ticker = Ticker(self.parameters.sample_ms / 1e3)
        told_ns, told = 0, State.UNKNOWN
        while self._running.is_set():
            now = now_ns()
            with self._lock:
                output = self._generator.output(now) if self.active else Output(PilotMode.F)
            try:
                driver.set_output(output)
                reading, faults = self._logic.measure(driver.measure(), output, now)
                self._samples += 1
            except DriverError as error:
                reading, faults = self._logic.lost(str(error), now)
                self._lost += 1
            if self._outlet:
                self._outlet.step(reading, self.active, now)
            if reading.state != told or now - told_ns >= REPORT_S * SECOND:
                self._states.publish(self._message(reading))
                told_ns, told = now, reading.state
            for fault in faults:
                self.report(fault)
            self._late_s = ticker.wait()

    def _message(self, reading: Reading) -> msg.PilotState:
        return fill(
            msg.PilotState(),
            stamp_ns=now_ns(),
            state=reading.state,
            pwm=reading.output.mode is PilotMode.PWM,
            duty=reading.output.duty,
            high_v=reading.high_v,
            low_v=reading.low_v,
            diode_ok=reading.diode_ok,
            proximity=reading.proximity.state,
            proximity_ohm=reading.proximity.ohm,
            cable_current_a=reading.proximity.current_a,
            max_current_a=reading.max_current_a,
            state_stamp_ns=reading.since_ns,
            text=reading.text or self._generator.refused,
        )


def main() -> None:
    run(PilotNode)


if __name__ == "__main__":
    main()
