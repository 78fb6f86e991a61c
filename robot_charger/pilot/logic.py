"""Control pilot of one EVSE (IEC 61851-1 annex A): measured peaks to states, commands to the generator.

Plain Python: time comes in nanoseconds of CLOCK_MONOTONIC, levels in volts; what to put on the wire goes out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from robot_charger.common import duty_cycle
from robot_charger.common.faults import Code, FaultReport, Severity
from robot_charger.pilot import iec61851, proximity
from robot_charger.pilot.iec61851 import BAND_F, BANDS, State
from robot_charger.pilot.proximity import ProximityReading
from robot_charger.words.values import PilotCommand, PilotMode


@dataclass(frozen=True)
class Output:
    """What the generator puts on the wire: OFF, STEADY, PWM with duty (0 to 1), or F."""

    mode: PilotMode
    duty: float = 0.0


@dataclass(frozen=True)
class Levels:
    """One measurement. On a steady wire both peaks are the same level."""

    high_v: float  # positive peak
    low_v: float  # negative peak
    pp_ohm: float | None = None  # None = open or not wired
    frequency_hz: float | None = None  # None = not measured
    duty: float | None = None  # None = not measured


@dataclass(frozen=True)
class Reading:
    """What PilotState.msg tells."""

    state: State
    since_ns: int
    output: Output
    high_v: float
    low_v: float
    diode_ok: bool
    proximity: ProximityReading
    text: str

    @property
    def max_current_a(self) -> float:
        return duty_cycle.to_current(self.output.duty) if self.output.mode is PilotMode.PWM else 0.0


@dataclass(frozen=True)
class _Verdict:
    """State that one measurement alone would give, and the fault that forbids one."""

    state: State
    code: Code = Code.NONE
    text: str = ""


class Generator:
    """From commands to the wire: pulses, the pace of duty changes, and what to do when commands stop coming.

    Until the first command the wire is steady +12 V: the vehicle is seen, nothing is offered. When an
    oscillator is on and its commands have stopped for ``timeout_s``, the wire goes to -12 V (not available),
    which every vehicle answers by opening, and stays there until a new command comes. Steady +12 V needs no
    such end: it offers nothing.
    """

    def __init__(self, timeout_s: float = 2.0) -> None:
        self.timeout_s = timeout_s
        self.refused = ""
        self._command: PilotCommand | None = None
        self._pulse_end_ns = 0
        self._pulse_mode = PilotMode.STEADY
        self._pulsed: tuple[int, PilotMode] | None = None
        self._duty = 0.0
        self._duty_since_ns = 0
        self._interrupted = False  # the wire was steady, off or F since the last duty
        self.lapsed = False

    def reset(self) -> None:
        """Forget all commands: the wire is steady."""
        self.__init__(self.timeout_s)  # type: ignore[misc]

    def command(self, command: PilotCommand, now_ns: int) -> None:
        """A command arrived. One that asks for an impossible duty is refused and leaves the wire steady."""
        self.refused = ""
        if command.mode is PilotMode.PWM and not duty_cycle.may_be_emitted(command.duty):
            self.refused = f"duty {command.duty * 100:.1f} % cannot be emitted: 5 %, or 10 to 96 %"
            command = replace(command, mode=PilotMode.STEADY, duty=0.0)
        self._command = command
        pulse = (command.number, command.mode)
        if command.mode in (PilotMode.PULSE_E, PilotMode.PULSE_F) and pulse != self._pulsed:
            self._pulsed = pulse
            length_s = min(60.0, max(command.pulse_s, iec61851.time_s("step_ef")))
            self._pulse_end_ns = now_ns + int(length_s * 1e9)
            self._pulse_mode = PilotMode.OFF if command.mode is PilotMode.PULSE_E else PilotMode.F

    def output(self, now_ns: int) -> Output:
        """What belongs on the wire now."""
        command = self._command
        if command is None:
            return Output(PilotMode.STEADY)
        self.lapsed = (now_ns - command.stamp_ns) / 1e9 > self.timeout_s and command.mode is PilotMode.PWM
        if self.lapsed:
            return self._steady_duty(Output(PilotMode.F))
        if command.mode in (PilotMode.OFF, PilotMode.F):  # these cut a pulse short
            self._pulse_end_ns = 0
            return self._steady_duty(Output(command.mode))
        if now_ns < self._pulse_end_ns:
            return self._steady_duty(Output(self._pulse_mode))
        if command.mode is not PilotMode.PWM:
            return self._steady_duty(Output(PilotMode.STEADY))
        if self._interrupted and self._too_early(command.duty, now_ns):
            return Output(PilotMode.STEADY)  # another current is offered when its time has come
        self._interrupted = False
        return Output(PilotMode.PWM, self._paced(command.duty, now_ns))

    def _steady_duty(self, output: Output) -> Output:
        self._interrupted = True
        return output

    def _too_early(self, duty: float, now_ns: int) -> bool:
        """Whether this would be the second current within 5 s (table A.6 seq. 6)."""
        analogue = not duty_cycle.is_digital(duty) and self._duty and not duty_cycle.is_digital(self._duty)
        early = (now_ns - self._duty_since_ns) / 1e9 < iec61851.time_s("duty_change")
        return bool(analogue) and duty != self._duty and early

    def _paced(self, duty: float, now_ns: int) -> float:
        """Between two current-telling duties at least 5 s pass (table A.6 seq. 6)."""
        if duty == self._duty:
            return duty
        if self._too_early(duty, now_ns):
            return self._duty
        self._duty, self._duty_since_ns = duty, now_ns
        return duty


class PilotLogic:
    """Levels to states, with hysteresis and filtering, diode check, and the faults that follow."""

    def __init__(self, connector: str = "ccs2", diode_margin_v: float = 1.0) -> None:
        """``connector``: a kind of proximity.KINDS; the negative peak may miss -12 V by ``diode_margin_v``."""
        self.connector = connector
        self.diode_margin_v = diode_margin_v
        self.state = State.UNKNOWN
        self.since_ns = 0
        self._text = "this connector has no control pilot" if connector in proximity.PILOTLESS else ""
        self._differs_since_ns: int | None = None
        self._candidate: tuple[State, Code] | None = None  # what the last measurement would make of it
        self._code = Code.NONE
        self._generator_since_ns: int | None = None
        self._standing: dict[Code, FaultReport] = {}
        self.reading = self._unmeasured(Output(PilotMode.OFF), "not measured yet")

    def measure(self, levels: Levels, output: Output, now_ns: int) -> tuple[Reading, list[FaultReport]]:
        """One measurement while ``output`` is on the wire: the reading, and the faults that changed."""
        verdict = self._judge(levels, output)
        if (verdict.state, verdict.code) == (self.state, self._code):
            self._differs_since_ns = self._candidate = None
        else:
            # C and D are left when they are not seen; any other state is taken only when it lasts.
            unlike = self._candidate is None or self._candidate != (verdict.state, verdict.code)
            diode = verdict.code is Code.PILOT_DIODE
            if self._differs_since_ns is None or (unlike and (diode or self.state not in (State.C, State.D))):
                self._differs_since_ns = now_ns
            self._candidate = (verdict.state, verdict.code)
            if (now_ns - self._differs_since_ns) / 1e9 >= self._filter_s(verdict) - 1e-9:
                self._take(verdict, now_ns)
        pp = proximity.read(self.connector, levels.pp_ohm)
        self.reading = Reading(
            state=self.state,
            since_ns=self.since_ns,
            output=output,
            high_v=levels.high_v,
            low_v=levels.low_v,
            diode_ok=output.mode is not PilotMode.PWM or self._negative_ok(levels),
            proximity=pp,
            text=self._text,
        )
        return self.reading, self._changes(self._faults(levels, output, pp, now_ns))

    def lost(self, text: str, now_ns: int) -> tuple[Reading, list[FaultReport]]:
        """The board or sensor does not answer: no level is known, so no state is."""
        self._take(_Verdict(State.FAULT, Code.PILOT_DRIVER, text), now_ns)
        self.reading = self._unmeasured(self.reading.output, text)
        report = FaultReport(Code.PILOT_DRIVER, Severity.STOP, text)
        return self.reading, self._changes([report])

    def _unmeasured(self, output: Output, text: str) -> Reading:
        nothing = ProximityReading(proximity.Proximity.UNKNOWN, 0.0, 0.0)
        return Reading(self.state, self.since_ns, output, 0.0, 0.0, False, nothing, text)

    def _take(self, verdict: _Verdict, now_ns: int) -> None:
        if verdict.state != self.state:
            self.since_ns = now_ns
        self.state, self._code, self._text = verdict.state, verdict.code, verdict.text
        self._differs_since_ns = self._candidate = None

    def _filter_s(self, verdict: _Verdict) -> float:
        if self.state is State.UNKNOWN:
            return 0.0
        if verdict.code is Code.PILOT_DIODE:
            return iec61851.time_s("filter_diode")
        if self.state in (State.C, State.D):
            return iec61851.time_s("filter_leaving_c_d")
        return iec61851.time_s("filter_fault" if verdict.state is State.FAULT else "filter_state")

    def _judge(self, levels: Levels, output: Output) -> _Verdict:
        if self.connector in proximity.PILOTLESS:
            return _Verdict(State.UNKNOWN)
        if output.mode is PilotMode.OFF:
            return _Verdict(State.E, text="generator off")
        if output.mode is PilotMode.F:
            if BAND_F.holds(levels.low_v, iec61851.HYSTERESIS_V):
                return _Verdict(State.F, text="not available")
            text = f"{levels.low_v:.1f} V on the pilot instead of -12 V"
            return _Verdict(State.FAULT, Code.PILOT_GENERATOR, text)
        state = self._band(levels.high_v)
        if state is State.FAULT:
            text = f"{levels.high_v:.1f} V on the pilot is no state: 12, 9, 6, 3 or 0 V +-1 V"
            return _Verdict(State.FAULT, Code.PILOT_LEVEL, text)
        if state is State.E:
            return _Verdict(State.E, Code.PILOT_SHORT, "0 V on the pilot: shorted to earth")
        if output.mode is PilotMode.PWM and not self._negative_ok(levels):
            if state is State.A:
                text = f"negative peak {levels.low_v:.1f} V with nothing plugged instead of -12 V"
                return _Verdict(State.FAULT, Code.PILOT_GENERATOR, text)
            text = f"negative peak {levels.low_v:.1f} V instead of -12 V: no diode in the vehicle"
            return _Verdict(State.FAULT, Code.PILOT_DIODE, text)
        return _Verdict(state)

    def _band(self, level_v: float) -> State:
        for band in BANDS:
            if band.state is self.state and band.holds(level_v, iec61851.HYSTERESIS_V):
                return band.state
        for band in BANDS:
            if band.holds(level_v):
                return band.state
        return State.FAULT

    def _negative_ok(self, levels: Levels) -> bool:
        return abs(levels.low_v + iec61851.GENERATOR_V) <= self.diode_margin_v

    def _faults(self, levels: Levels, output: Output, pp: ProximityReading, now_ns: int) -> Iterable[FaultReport]:
        if self._code is not Code.NONE:
            yield FaultReport(self._code, Severity.STOP, self._text)
        if pp.state is proximity.Proximity.FAULT:
            text = f"{pp.ohm:.0f} ohm on the proximity wire is no plug of kind {self.connector}"
            yield FaultReport(Code.PROXIMITY, Severity.WARNING, text)
        wrong = self._tolerance(levels, output)
        if not wrong:
            self._generator_since_ns = None
            return
        if self._generator_since_ns is None:
            self._generator_since_ns = now_ns
        if (now_ns - self._generator_since_ns) / 1e9 >= 1.0 and self._code is not Code.PILOT_GENERATOR:
            yield FaultReport(Code.PILOT_GENERATOR, Severity.WARNING, wrong)

    def _tolerance(self, levels: Levels, output: Output) -> str:
        """What table A.2 forbids although a state can still be read: told, not acted on."""
        unloaded = self.state is State.A and output.mode in (PilotMode.STEADY, PilotMode.PWM)
        if unloaded and abs(levels.high_v - iec61851.GENERATOR_V) > iec61851.GENERATOR_TOLERANCE_V:
            return f"generator at {levels.high_v:.2f} V without load: 11.4 to 12.6 V"
        if output.mode is not PilotMode.PWM:
            return ""
        frequency_hz = iec61851.FREQUENCY_HZ if levels.frequency_hz is None else levels.frequency_hz
        if abs(frequency_hz - iec61851.FREQUENCY_HZ) > iec61851.FREQUENCY_TOLERANCE_HZ:
            return f"oscillator at {frequency_hz:.0f} Hz: 980 to 1020 Hz"
        if levels.duty is not None and abs(levels.duty - output.duty) > duty_cycle.TOLERANCE:
            return f"duty {levels.duty * 100:.1f} % on the wire instead of {output.duty * 100:.1f} %"
        return ""

    def _changes(self, faults: Iterable[FaultReport]) -> list[FaultReport]:
        now = {fault.code: fault for fault in faults}
        began = [fault for code, fault in now.items() if code not in self._standing]
        ended = [
            FaultReport(code, fault.severity, fault.text, active=False)
            for code, fault in self._standing.items()
            if code not in now
        ]
        self._standing = now
        return ended + began
