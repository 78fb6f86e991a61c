"""The output of one EVSE as a state machine: cable check, precharge, transfer and the way back to nothing.

``step`` is called every control cycle with the time, the demand, and what is measured; it leaves set-point and
requests in the attributes. The order of every way out is the same: set-point zero, current below 5 A (or 500 ms),
contactors open, output below 60 V.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from robot_charger.common.clock import SECOND
from robot_charger.common.faults import Code, FaultReport, Severity
from robot_charger.power.codec import EvseStatus, Monitor, OutputMeasurement
from robot_charger.power.gate import Demand, Gate, clamp_current
from robot_charger.power.heat import Heat
from robot_charger.power.insulation import InsulationWatch
from robot_charger.power.parameters import MONITOR_RESPONSE_S, PowerParameters
from robot_charger.words.values import ChargePermit, Insulation, Pilot, Purpose
from robot_charger.words.values import SupplyMode as Mode

SAFE_V = 60.0  # IEC 61851-23: safe to touch below
SMALL_A = 5.0  # contactors open below this
ZERO_WAIT_S = 0.5  # ... or after this
TEST_MEASUREMENTS = 2  # the first may have begun before the voltage stood
WELD_WAIT_S = 1.0
LET_GO = 0.9  # of the inlet's voltage: a battery that rests stays above, a capacitor that is bled goes on
OVERVOLTAGE_TRIPS = ((500.0, 550.0), (750.0, 825.0), (850.0, 935.0), (1000.0, 1100.0))  # 61851-23:2023 table 103
VOLTAGE_ACCURACY_V = 10.0
VEHICLE_OVERVOLTAGE_S = 0.05
OVERCURRENT_S = 0.1
ACCURACY_A, ACCURACY = 2.5, 0.05  # the larger: more above the set-point than modules that obey can give
DELAYS = 1.5  # a set-point is on its way for so many times the modules' delay at most
INACCURATE_S = 2.0  # longer than any ramp is behind its set-point


class Phase(Enum):
    """Step inside a mode, in the order they go by."""

    NONE = "off"
    MAKE_SAFE = "waiting for the output to be below 60 V"
    SELF_TEST = "the insulation monitor tests itself"
    MATCH = "matching the output's voltage"
    CLOSE = "closing contactors"
    RAISE = "raising the voltage"
    MEASURE = "measuring insulation"
    HOLD = "holding"
    DELIVER = "delivering"
    LOWER = "lowering the voltage"
    ZERO = "waiting for the current to end"
    OPEN = "opening contactors"


@dataclass(frozen=True)
class Inputs:
    """What one cycle sees of the world; ``measured`` and ``evse`` are the newest valid frames."""

    measured: OutputMeasurement
    evse: EvseStatus
    capable_a: float  # what the healthy modules can give now
    modules: int  # healthy modules
    export_w: float = 0.0  # what the grid side lets this output feed back now
    blocked: FaultReport | None = None  # safety controller, bus or bank: why power must not flow
    pilot: int = Pilot.UNKNOWN
    seen: bool = True  # ``evse`` is fresh: what it says of the contactors can be believed
    disputed: bool = False  # the modules contradict ``measured``
    highest_v: float = 1000.0  # what the modules reach as they are joined now
    uncertain_a: float = 0.0  # what modules that obey may give too much before the trim knows them
    settled: bool = True  # ... and they are joined as this session needs them


def overvoltage_trip_v(max_voltage_v: float) -> float:
    """Emergency trip for an output of this maximum voltage (IEC 61851-23:2023 table 103)."""
    return next((trip for rated, trip in OVERVOLTAGE_TRIPS if max_voltage_v <= rated), 1100.0)


def cable_check_voltage(vehicle_max_v: float, supply_max_v: float) -> float:
    """Test voltage [V] of IEC 61851-23:2023 CC.4.1.2."""
    if vehicle_max_v <= 500.0:
        return min(500.0, vehicle_max_v + 50.0, supply_max_v)
    return min(supply_max_v, 1.1 * vehicle_max_v)


class Output:
    """Set-point, contactors and insulation monitor of one EVSE."""

    def __init__(self, evse: int, parameters: PowerParameters, gate: Gate) -> None:
        self.evse = evse
        self.parameters = parameters
        self.gate = gate
        self.mode = Mode.OFF
        self.phase = Phase.NONE
        self.text = ""
        self.session_id = ""
        self.setpoint_v = 0.0
        self.setpoint_a = 0.0
        self.enable = False
        self.contactors = False
        self.monitor = False
        self.self_test = False
        self.welded = False
        self.insulation = Insulation.UNKNOWN
        self.insulation_ohm = 0.0
        self.insulation_permit = 0
        self.voltage_limited = self.current_limited = self.power_limited = False
        self.faults: dict[Code, FaultReport] = {}
        self.changes: list[FaultReport] = []  # faults that began or ended, for the node to tell
        self._abrupt = False
        self._tripped = False
        self._chademo = False  # the vehicle's protocol, whose ramps are its own
        self._watch = InsulationWatch(parameters)
        self._low = False  # the last insulation reading was below its limit
        self.heat = Heat(parameters)
        self._since = 0  # when this phase began [ns]
        self._last_ns = 0
        self._tested = False  # the present run of insulation permits has had its test
        self._result = Insulation.UNKNOWN
        self._sequence = 0
        self._seen_self_test = False
        self._matched = False
        self._discharge_s = parameters.discharge_s + parameters.desk_grace_ms / 1e3
        self._held_v = 0.0  # highest voltage at the inlet since the contactors opened
        self._let_go_ns = 0  # when the vehicle may last have held it there
        self._over: dict[str, int] = {}
        self._past: deque[tuple[int, float]] = deque()
        self._delay_ns = int(DELAYS * parameters.contract.delay_s * SECOND)

    @property
    def idle(self) -> bool:
        """Nothing flows and nothing is closed."""
        return self.mode in (Mode.OFF, Mode.FAULT, Mode.DISCHARGE) and not self.contactors

    @property
    def active(self) -> bool:
        return self.mode in (Mode.INSULATION_TEST, Mode.PRECHARGE, Mode.TRANSFER)

    def step(self, now_ns: int, demand: Demand, inputs: Inputs) -> None:
        """One control cycle."""
        elapsed_s = (now_ns - self._last_ns) / SECOND if self._last_ns else 0.0
        self._last_ns = now_ns
        self.heat.follow(elapsed_s, inputs.measured)
        self._follow_session(demand, inputs)
        if self.active:
            self._protect(now_ns, demand, inputs)
        handler: Callable[[int, float, Demand, Inputs], None] = getattr(self, "_" + self.mode.name.lower())
        handler(now_ns, elapsed_s, demand, inputs)
        stuck = not self.contactors and self.idle and inputs.evse.closed and inputs.seen
        self.welded = self.welded or self._lasting("weld", stuck, now_ns, self.parameters.contactor_time_s)
        if not self.enable:
            self.setpoint_a = 0.0
            self.setpoint_v = 0.0
        if not self.text or self.active:
            self.text = self.phase.value if self.phase is not Phase.NONE else demand.reason

    def stop(self, now_ns: int, text: str, abrupt: bool = True) -> None:
        """Leave an active mode by the safe path."""
        if self.mode in (Mode.OFF, Mode.FAULT, Mode.DISCHARGE):
            return
        self.text = text
        if abrupt:
            self.gate.refuse_present()  # what ended at once is not resumed under the same permit
        if self.mode != Mode.RAMP_DOWN:
            if self.mode == Mode.INSULATION_TEST and self.insulation == Insulation.TESTING:
                self.insulation = Insulation.UNKNOWN
            self._abrupt = False
            self._enter(now_ns, Mode.RAMP_DOWN, Phase.LOWER)
        self._abrupt = self._abrupt or abrupt
        if self._abrupt:
            self.setpoint_a = 0.0
            self.enable = False

    def trip(self, now_ns: int, report: FaultReport, abrupt: bool = True, tell: bool = True) -> None:
        """A fault: the safe path, then FAULT until it is gone and the permit renewed.

        ``tell`` is False for what the station tells as a whole (safety controller, bus).
        """
        if tell and report.code not in self.faults:
            self.faults[report.code] = report
            self.changes.append(report)
        self.gate.refuse_present()
        self._tripped = True
        self.text = report.text
        self.stop(now_ns, report.text, abrupt)

    def _enter(self, now_ns: int, mode: Mode, phase: Phase) -> None:
        if mode in (Mode.PRECHARGE, Mode.TRANSFER) and mode != self.mode:
            self._watch.begin(now_ns)
        self.mode = mode
        self._held_v = 0.0
        self._to(now_ns, phase)

    def _to(self, now_ns: int, phase: Phase) -> None:
        self.phase = phase
        self._since = now_ns

    def _waited(self, now_ns: int, limit_s: float) -> bool:
        return now_ns - self._since > limit_s * SECOND

    def _asked(self, now_ns: int) -> float:
        """Largest current that may still be on its way from the modules [A]: they follow a set-point with a delay."""
        past = self._past
        past.append((now_ns, abs(self.setpoint_a)))
        while now_ns - past[0][0] > self._delay_ns:
            past.popleft()
        return max(a for _, a in past)

    def _lasting(self, name: str, condition: bool, now_ns: int, limit_s: float) -> bool:
        if not condition:
            self._over.pop(name, None)
            return False
        return now_ns - self._over.setdefault(name, now_ns) >= limit_s * SECOND

    def _fail(self, now_ns: int, code: Code, text: str, abrupt: bool = True) -> None:
        self.trip(now_ns, FaultReport(code, Severity.STOP, text), abrupt)

    def _follow_session(self, demand: Demand, inputs: Inputs) -> None:
        session = demand.permit.session_id if demand.permit else ""
        if demand.target is not None:
            self._chademo = demand.target.protocol == "chademo"
        if session and session != self.session_id:
            self.session_id = session
            self._void()
            self._tested = False
        if inputs.pilot == Pilot.A and self.insulation != Insulation.UNKNOWN and not self.active:
            self._void()
        if demand.permit is not None and demand.permit.purpose != Purpose.INSULATION_TEST:
            self._tested = False

    def _void(self) -> None:
        self.insulation = Insulation.UNKNOWN
        self.insulation_ohm = 0.0
        self.insulation_permit = 0

    def _protect(self, now_ns: int, demand: Demand, inputs: Inputs) -> None:
        """What ends any active mode."""
        measured, p = inputs.measured, self.parameters
        closed = inputs.evse.closed
        top = min(demand.target.max_voltage_v if demand.target else 0.0, p.max_voltage_v) or p.max_voltage_v
        if self.mode == Mode.INSULATION_TEST:  # the test voltage is above the vehicle's own maximum
            top = max(top, cable_check_voltage(top, p.max_voltage_v))
        trip_v = overvoltage_trip_v(top)
        live_v = max(measured.voltage_v if closed else 0.0, measured.bank_voltage_v)
        asked_a = self._asked(now_ns)
        excess = abs(measured.current_a) - asked_a
        margin = max(p.overcurrent_a, 0.03 * asked_a) + inputs.uncertain_a
        accuracy = max(ACCURACY_A, ACCURACY * asked_a) + inputs.uncertain_a
        if inputs.blocked is not None:
            self.trip(now_ns, inputs.blocked, tell=False)
        elif demand.fault is not None:
            self.trip(now_ns, demand.fault)
        elif too_hot := self.heat.ends(measured):
            self._fail(now_ns, Code.OVERTEMPERATURE, too_hot)
        elif live_v > trip_v:
            text = f"{live_v:.0f} V at the output: emergency trip is {trip_v:.0f} V"
            self.trip(now_ns, FaultReport(Code.OVERVOLTAGE, Severity.EMERGENCY, text))
        elif self._lasting("voltage", live_v > top + VOLTAGE_ACCURACY_V, now_ns, VEHICLE_OVERVOLTAGE_S):
            self._fail(now_ns, Code.OVERVOLTAGE, f"{live_v:.0f} V at the output, at most {top:.0f} V allowed")
        elif self._lasting("current", excess > margin, now_ns, OVERCURRENT_S):
            text = f"{measured.current_a:.0f} A measured, {self.setpoint_a:.0f} A asked of the modules"
            self._fail(now_ns, Code.OVERCURRENT, text)
        elif self._lasting("deviation", excess > accuracy, now_ns, INACCURATE_S):
            text = f"{measured.current_a:.1f} A measured, {self.setpoint_a:.1f} A asked of the modules"
            self._fail(now_ns, Code.OVERCURRENT, text)
        elif inputs.disputed:
            text = f"the measuring board of EVSE {self.evse} shows {measured.bank_voltage_v:.0f} V, its modules do not"
            self._fail(now_ns, Code.POWER_BUS, text)
        elif demand.purpose == Purpose.NONE:
            self.stop(now_ns, demand.reason, demand.abrupt)
        elif (demand.purpose == Purpose.INSULATION_TEST) != (self.mode == Mode.INSULATION_TEST):
            self.stop(now_ns, f"{demand.purpose.name.lower()} asked for during {self.mode.name.lower()}")

    # Modes.

    def _off(self, now_ns: int, elapsed_s: float, demand: Demand, inputs: Inputs) -> None:
        self.enable = self.contactors = self.monitor = self.self_test = False
        self.voltage_limited = self.current_limited = self.power_limited = False
        self.phase = Phase.NONE
        self.text = demand.reason
        if demand.purpose == Purpose.NONE:
            return
        if inputs.blocked is not None:
            self.text = inputs.blocked.text
        elif not inputs.settled:
            self.text = "joining the groups of modules, or changing their range, as this vehicle needs"
        elif not inputs.modules:
            self.text = "no healthy module feeds this EVSE"
        elif not inputs.evse.open:
            self._trip_idle(now_ns, Code.CONTACTOR_WELDED, "a contactor is closed though not requested")
        elif demand.purpose == Purpose.INSULATION_TEST:
            if not self._tested:
                self._tested = True
                self.insulation = Insulation.TESTING
                self.insulation_ohm = 0.0
                self.insulation_permit = demand.permit_number
                self._enter(now_ns, Mode.INSULATION_TEST, Phase.MAKE_SAFE)
        elif self.parameters.insulation__required and self.insulation not in (
            Insulation.VALID,
            Insulation.WARNING,
        ):
            self.text = "no passed insulation test in this session"
        else:
            self._matched = False
            self._enter(now_ns, Mode.PRECHARGE, Phase.MATCH)

    def _trip_idle(self, now_ns: int, code: Code, text: str) -> None:
        self._fail(now_ns, code, text)
        self._enter(now_ns, Mode.FAULT, Phase.NONE)

    def _insulation_test(self, now_ns: int, elapsed_s: float, demand: Demand, inputs: Inputs) -> None:
        p, measured, evse = self.parameters, inputs.measured, inputs.evse
        assert demand.target is not None and demand.permit is not None
        self.monitor = True
        if self.phase is Phase.MAKE_SAFE:
            if measured.voltage_v < SAFE_V and measured.bank_voltage_v < SAFE_V:
                self._seen_self_test = False
                self.self_test = True
                self._to(now_ns, Phase.SELF_TEST)
            elif self._waited(now_ns, self._discharge_s):
                text = f"{measured.voltage_v:.0f} V at the inlet before the cable check, 60 V allowed"
                self._fail(now_ns, Code.DISCHARGE, text)
        elif self.phase is Phase.SELF_TEST:
            self._seen_self_test = self._seen_self_test or evse.monitor == Monitor.SELF_TEST
            if evse.monitor == Monitor.FAULT or self._waited(now_ns, p.insulation__self_test_s):
                self.self_test = False
                self.insulation = Insulation.SELF_TEST_FAILED
                self._fail(now_ns, Code.INSULATION_SELF_TEST, "the insulation monitor failed its self test")
            elif self._seen_self_test and evse.monitor == Monitor.MEASURING:
                self.self_test = False
                self.contactors = True
                self._to(now_ns, Phase.CLOSE)
        elif self.phase is Phase.CLOSE:
            if self._closed(now_ns, evse):
                self._to(now_ns, Phase.RAISE)
        elif self.phase is Phase.RAISE:
            asked = demand.target.max_voltage_v or demand.target.voltage_v
            self.setpoint_v = cable_check_voltage(asked, self._ceiling(demand.permit, inputs))
            self.setpoint_a = p.precharge__current_a
            self.enable = True
            if abs(measured.voltage_v - self.setpoint_v) < p.precharge__window_v:
                self._sequence = evse.sequence
                self._to(now_ns, Phase.MEASURE)
            elif self._waited(now_ns, p.precharge__timeout_s):
                text = f"{measured.voltage_v:.0f} V instead of the test voltage of {self.setpoint_v:.0f} V"
                self._fail(now_ns, Code.PRECHARGE, text)
        elif self.phase is Phase.MEASURE:
            if evse.monitor != Monitor.MEASURING or self._waited(now_ns, p.insulation__measure_s):
                self.insulation = Insulation.SELF_TEST_FAILED
                self._fail(now_ns, Code.INSULATION_SELF_TEST, "the insulation monitor does not measure")
            elif self._measured(now_ns, evse):
                self._conclude(demand, evse.insulation_ohm)
                self.enable = False
                self._to(now_ns, Phase.LOWER)
        elif self.phase is Phase.LOWER:
            if measured.voltage_v < SAFE_V:
                self.contactors = False
                self._to(now_ns, Phase.OPEN)
            elif self._waited(now_ns, self._discharge_s):
                text = f"still {measured.voltage_v:.0f} V after the cable check"
                self._fail(now_ns, Code.DISCHARGE, text)
        elif self.phase is Phase.OPEN:
            if evse.open:
                self.monitor = False
                self.insulation = self._result
                if self._result == Insulation.FAULT:
                    text = f"insulation {self.insulation_ohm / 1e3:.0f} kohm at the cable check"
                    self._fail(now_ns, Code.INSULATION, text)
                    self._enter(now_ns, Mode.FAULT, Phase.NONE)
                else:
                    self._enter(now_ns, Mode.OFF, Phase.NONE)
                    self.text = "cable check passed"
            elif self._waited(now_ns, p.contactor_time_s):
                self._weld(now_ns, "the contactors did not open after the cable check")

    def _measured(self, now_ns: int, evse: EvseStatus) -> bool:
        """Whether the voltage stood for as long as the monitor takes, and at least two measurements came since."""
        enough = (evse.sequence - self._sequence) & 0xFF >= TEST_MEASUREMENTS
        slow_s = MONITOR_RESPONSE_S.get(self.parameters.insulation__monitor, 0.0)
        return enough and (not slow_s or self._waited(now_ns, slow_s))

    def _conclude(self, demand: Demand, ohm: float) -> None:
        assert demand.target is not None
        top = demand.target.max_voltage_v or demand.target.voltage_v
        fault, warning = self.parameters.insulation_limits_ohm(top)
        self.insulation_ohm = ohm
        if ohm < fault:
            self._result = Insulation.FAULT
        elif ohm < warning:
            self._result = Insulation.WARNING
        else:
            self._result = Insulation.VALID

    def _closed(self, now_ns: int, evse: EvseStatus) -> bool:
        if evse.closed:
            return True
        if self._waited(now_ns, self.parameters.contactor_time_s):
            text = f"no feedback of closed contactors {self.parameters.contactor_time_s:g} s after the request"
            self._fail(now_ns, Code.CONTACTOR_FEEDBACK, text)
        return False

    def _precharge(self, now_ns: int, elapsed_s: float, demand: Demand, inputs: Inputs) -> None:
        p, measured, evse = self.parameters, inputs.measured, inputs.evse
        permit, target = demand.permit, demand.target
        assert permit is not None and target is not None
        self.monitor = True
        small = min(p.precharge__current_a, permit.max_current_a)
        if self.phase is Phase.MATCH:
            # Contactors close only between equal voltages: both dead, or the bank raised to the vehicle's side.
            live = measured.voltage_v >= SAFE_V
            self.enable = live
            self.setpoint_v, self.setpoint_a = (measured.voltage_v, small) if live else (0.0, 0.0)
            if abs(measured.bank_voltage_v - measured.voltage_v) < p.precharge__window_v:
                self.contactors = True
                self._to(now_ns, Phase.CLOSE)
            elif self._waited(now_ns, p.precharge__timeout_s):
                text = f"bank {measured.bank_voltage_v:.0f} V, output {measured.voltage_v:.0f} V: no match"
                self._fail(now_ns, Code.PRECHARGE, text)
            return
        if self.phase is Phase.CLOSE:
            if self._closed(now_ns, evse):
                self._to(now_ns, Phase.RAISE)
            return
        if not evse.closed:
            self._fail(now_ns, Code.CONTACTOR_FEEDBACK, "a contactor opened though requested")
            return
        if self._watch_insulation(now_ns, demand, evse):
            return
        voltage = self._voltage(demand, inputs)
        self._matched = abs(measured.voltage_v - voltage) < p.precharge__window_v
        if demand.purpose == Purpose.TRANSFER and measured.current_a > 0.25 * small > 0.0:
            self._matched = True  # current flows: the vehicle's contactor is closed on its battery
        if self.phase is Phase.RAISE:
            if self._matched:
                self._to(now_ns, Phase.HOLD)
            elif self._waited(now_ns, p.precharge__timeout_s):
                text = f"{measured.voltage_v:.0f} V after {p.precharge__timeout_s:g} s of precharge to {voltage:.0f} V"
                self._fail(now_ns, Code.PRECHARGE, text)
                return
        if demand.purpose == Purpose.TRANSFER and self.phase is Phase.HOLD:
            self._enter(now_ns, Mode.TRANSFER, Phase.DELIVER)
            self._transfer(now_ns, elapsed_s, demand, inputs)
            return
        self.enable = True
        self.setpoint_v = voltage
        self.setpoint_a = small

    def _transfer(self, now_ns: int, elapsed_s: float, demand: Demand, inputs: Inputs) -> None:
        p, measured, evse = self.parameters, inputs.measured, inputs.evse
        if not evse.closed:
            self._fail(now_ns, Code.CONTACTOR_FEEDBACK, "a contactor opened under load")
            return
        if not inputs.modules:
            self._fail(now_ns, Code.NO_MODULES, "no healthy module is left")
            return
        if self._watch_insulation(now_ns, demand, evse):
            return
        self.setpoint_v = self._voltage(demand, inputs)
        supply = min(inputs.capable_a, p.cable_current_a(self.evse) * self.heat.share)
        export = min(supply, inputs.export_w / max(measured.voltage_v, 1.0))
        current, self.current_limited, self.power_limited = clamp_current(
            demand, max(measured.voltage_v, p.min_voltage_v), supply, export
        )
        if demand.purpose == Purpose.PRECHARGE:
            current = max(-p.precharge__current_a, min(p.precharge__current_a, current))
        self.setpoint_a = self._ramp(self.setpoint_a, current, elapsed_s)
        self.enable = True

    def _ramp(self, present_a: float, wanted_a: float, elapsed_s: float) -> float:
        """Magnitude rises by ramp.up and falls by ramp.down; through zero it falls first."""
        p = self.parameters
        if present_a * wanted_a < 0.0:
            wanted_a = 0.0
        rising = abs(wanted_a) > abs(present_a)
        down_a_s = max(p.ramp__down_a_s, p.ramp__chademo_down_a_s) if self._chademo else p.ramp__down_a_s
        most = (p.ramp__up_a_s if rising else down_a_s) * elapsed_s
        return present_a + max(-most, min(most, wanted_a - present_a))

    def _ceiling(self, permit: ChargePermit, inputs: Inputs) -> float:
        return min(permit.max_voltage_v, self.parameters.max_voltage_v, inputs.highest_v)

    def _voltage(self, demand: Demand, inputs: Inputs) -> float:
        permit, target = demand.permit, demand.target
        assert permit is not None and target is not None
        ceiling = self._ceiling(permit, inputs)
        if target.max_voltage_v > 0.0:
            ceiling = min(ceiling, target.max_voltage_v)
        self.voltage_limited = target.voltage_v > ceiling
        return max(0.0, min(target.voltage_v, ceiling))

    def _watch_insulation(self, now_ns: int, demand: Demand, evse: EvseStatus) -> bool:
        """True when the insulation ended the output."""
        assert demand.target is not None
        fault, _ = self.parameters.insulation_limits_ohm(demand.target.max_voltage_v or demand.target.voltage_v)
        verdict = self._watch.judge(now_ns, evse, fault)
        if evse.monitor == Monitor.MEASURING and evse.sequence:
            self.insulation_ohm = evse.insulation_ohm
        if verdict.code is Code.NONE:
            if verdict.low != self._low:
                self._low = verdict.low
                self.insulation = Insulation.WARNING if verdict.low else self._result or self.insulation
            return False
        fell = verdict.code is Code.INSULATION_CHARGING
        self.insulation = Insulation.FAULT if fell else Insulation.SELF_TEST_FAILED
        self._fail(now_ns, verdict.code, verdict.text)
        return True

    def _ramp_down(self, now_ns: int, elapsed_s: float, demand: Demand, inputs: Inputs) -> None:
        p, measured, evse = self.parameters, inputs.measured, inputs.evse
        if inputs.blocked is not None and not self._tripped:
            self.trip(now_ns, inputs.blocked, tell=False)
        if demand.abrupt:
            self._abrupt = True
        if self.phase is Phase.LOWER:
            if self._abrupt or not evse.closed:
                self.setpoint_a = 0.0
            else:
                self.setpoint_a = self._ramp(self.setpoint_a, 0.0, elapsed_s)
            if abs(self.setpoint_a) < 0.05:
                self.enable = False
                self._to(now_ns, Phase.ZERO)
        elif self.phase is Phase.ZERO:
            self.enable = False
            if abs(measured.current_a) < SMALL_A or self._waited(now_ns, ZERO_WAIT_S):
                self.contactors = False
                self._to(now_ns, Phase.OPEN)
        elif evse.open:
            self._end_ramp(now_ns)
        elif self._waited(now_ns, p.contactor_time_s):
            if inputs.seen:
                self._weld(now_ns, "the contactors did not open")
            else:
                self._end_ramp(now_ns)  # nobody says where they are; FAULT lasts until they are seen open

    def _end_ramp(self, now_ns: int) -> None:
        self.monitor = self.self_test = False
        self._over.clear()
        self._enter(now_ns, Mode.FAULT if self._tripped else Mode.DISCHARGE, Phase.NONE)

    def _weld(self, now_ns: int, text: str) -> None:
        self.welded = True
        self._fail(now_ns, Code.CONTACTOR_WELDED, text)
        self.enable = self.contactors = False
        self.monitor = self.self_test = False
        self._enter(now_ns, Mode.FAULT, Phase.NONE)

    def _discharge(self, now_ns: int, elapsed_s: float, demand: Demand, inputs: Inputs) -> None:
        measured = inputs.measured
        self.enable = self.contactors = False
        self.text = "discharging"
        # With open contactors and dark modules the bank falls by itself; if it stays at the inlet's voltage, a
        # contactor conducts whatever its auxiliary contact says.
        inlet_v, bank_v = measured.voltage_v, measured.bank_voltage_v
        held = bank_v > SAFE_V and abs(bank_v - inlet_v) < 10.0
        if inlet_v > LET_GO * self._held_v and inputs.pilot != Pilot.A:  # a vehicle is there, and may hold it
            self._held_v = max(self._held_v, inlet_v)
            self._let_go_ns = now_ns
        resumed = demand.purpose in (Purpose.PRECHARGE, Purpose.TRANSFER) and inputs.blocked is None
        if max(inlet_v, bank_v) < SAFE_V or (resumed and inputs.evse.open):
            self._enter(now_ns, Mode.OFF, Phase.NONE)  # a new permit: the bank will match the vehicle's voltage
        elif inputs.blocked is not None:
            self._since = self._let_go_ns = now_ns  # what is measured may be old: it accuses nobody
        elif held and self._waited(now_ns, WELD_WAIT_S):
            self._weld(now_ns, "the bank stays at the vehicle's voltage with contactors open")
        elif now_ns - self._let_go_ns > self._discharge_s * SECOND:
            text = f"{inlet_v:.0f} V at the inlet {self._discharge_s:g} s after the vehicle let go of it"
            self._trip_idle(now_ns, Code.DISCHARGE, text)
        elif bank_v >= SAFE_V and self._waited(now_ns, self._discharge_s):
            text = f"{bank_v:.0f} V at the bank {self._discharge_s:g} s after the contactors opened"
            self._trip_idle(now_ns, Code.DISCHARGE, text)
        elif self._waited(now_ns, self._discharge_s):
            # Its own contactor open, the station cannot lower a voltage that the vehicle's holds up.
            self.text = f"{inlet_v:.0f} V at the inlet: the vehicle's contactor is still closed"

    def _fault(self, now_ns: int, elapsed_s: float, demand: Demand, inputs: Inputs) -> None:
        self.enable = self.contactors = False
        if inputs.blocked is not None:
            self.gate.refuse_present()  # a permit from before the block ended starts nothing
        highest_v = max(inputs.measured.voltage_v, inputs.measured.bank_voltage_v)
        live = Code.DISCHARGE in self.faults and highest_v >= SAFE_V
        if inputs.blocked is not None or not self.gate.renewed or not inputs.evse.open or live:
            return
        for report in self.faults.values():
            self.changes.append(FaultReport(report.code, report.severity, report.text, active=False))
        self.faults.clear()
        self._tripped = self.welded = False
        self._enter(now_ns, Mode.DISCHARGE, Phase.NONE)
