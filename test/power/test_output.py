"""One output alone, cycle by cycle: what it requests in each phase, and each thing that ends it, at its limit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from robot_charger.common.faults import Code, FaultReport, Severity
from robot_charger.power.codec import EvseStatus, Monitor, OutputMeasurement
from robot_charger.power.gate import Demand, Gate
from robot_charger.power.output import Inputs, Output, cable_check_voltage, overvoltage_trip_v
from robot_charger.power.parameters import PowerParameters
from robot_charger.power.phases import CLOSED, ENABLED, MATCHING, SELF_TESTS, Phase
from robot_charger.words.values import ChargePermit, Insulation, Pilot, Purpose, SupplyMode, VehicleTarget

MS = 1_000_000
OPEN, BOTH = EvseStatus(5e6, Monitor.OFF), EvseStatus(5e6, Monitor.MEASURING, 1, 3)
PERMIT = ChargePermit(
    1, number=5, session_id="s", purpose=Purpose.TRANSFER, max_voltage_v=900.0, max_current_a=200.0, max_power_w=150e3
)
TARGET = VehicleTarget(
    1, number=9, session_id="s", purpose=Purpose.TRANSFER, voltage_v=400.0, current_a=100.0, max_voltage_v=450.0
)


class Bench:
    """An output with a battery of 400 V behind it, when its contactors are closed."""

    def __init__(self, **parameters: Any) -> None:
        self.parameters = PowerParameters(**parameters)
        self.gate = Gate()
        self.gate.take_permit(PERMIT)
        self.output = Output(1, self.parameters, self.gate)
        self.now = 10**12
        self.demand = Demand(Purpose.TRANSFER, permit=PERMIT, target=TARGET)
        self.inputs = Inputs(OutputMeasurement(), OPEN, capable_a=300.0, modules=10, pilot=Pilot.C)

    def step(self, count: int = 1, **measured: float) -> Output:
        for _ in range(count):
            self.now += 10 * MS
            self.inputs = replace(self.inputs, measured=replace(self.inputs.measured, **measured))
            self.output.step(self.now, self.demand, self.inputs)
        return self.output

    def see(self, **inputs: Any) -> Bench:
        self.inputs = replace(self.inputs, **inputs)
        return self

    def ask(self, purpose: Purpose, **demand: Any) -> Bench:
        target, permit = replace(TARGET, purpose=purpose), replace(PERMIT, purpose=purpose)
        self.demand = replace(Demand(purpose, permit=permit, target=target), **demand)
        return self

    def charging(self, current_a: float = 100.0) -> Bench:
        """In transfer, with this current."""
        self.output.insulation = Insulation.VALID
        self.output.session_id = "s"
        self.step()
        self.step()
        self.see(evse=BOTH)
        self.step(3, voltage_v=400.0, bank_voltage_v=400.0)
        assert self.output.mode == SupplyMode.TRANSFER
        self.demand = replace(self.demand, target=replace(TARGET, current_a=current_a))
        while abs(self.output.setpoint_a - current_a) > 0.01:
            self.step(current_a=self.output.setpoint_a)
        self.step(2, current_a=current_a)
        return self

    @property
    def codes(self) -> dict[Code, Severity]:
        return {code: report.severity for code, report in self.output.faults.items()}

    def ends_after(self, most: int = 400, **measured: float) -> int:
        """Cycles until it leaves transfer."""
        for count in range(1, most + 1):
            self.step(**measured)
            if self.output.mode != SupplyMode.TRANSFER:
                return count
        return -1


# What is requested where.
@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("mode", list(SupplyMode))
def test_requests_follow_from_mode_and_phase_alone(mode: SupplyMode, phase: Phase) -> None:
    output = Bench().output
    for live in (0.0, 400.0):
        output.mode, output.phase, output.setpoint_v, output.setpoint_a = mode, phase, live, 2.0
        output._derive()
        here = (mode, phase)
        assert output.contactors == (here in CLOSED) and output.self_test == (here in SELF_TESTS)
        assert output.enable == (here in ENABLED or (here in MATCHING and live > 0.0))
        assert output.monitor == (mode.name in ("INSULATION_TEST", "PRECHARGE", "TRANSFER", "RAMP_DOWN"))
        assert output.enable or (output.setpoint_v, output.setpoint_a) == (0.0, 0.0)
        assert not output.enable or mode not in (SupplyMode.OFF, SupplyMode.DISCHARGE, SupplyMode.FAULT)
        assert not output.contactors or mode not in (SupplyMode.OFF, SupplyMode.DISCHARGE, SupplyMode.FAULT)


def test_the_way_to_a_transfer_and_what_is_requested_on_it() -> None:
    bench = Bench()
    bench.output.insulation, bench.output.session_id = Insulation.VALID, "s"
    output = bench.step()
    assert (output.mode, output.phase, output.contactors, output.enable) == (
        SupplyMode.PRECHARGE,
        Phase.MATCH,
        False,
        False,
    )
    bench.step()
    assert output.phase is Phase.CLOSE and output.contactors and not output.enable
    bench.see(evse=BOTH).step()
    assert output.phase is Phase.RAISE and output.enable
    bench.step(voltage_v=400.0, bank_voltage_v=400.0)
    assert output.mode == SupplyMode.TRANSFER and output.enable and output.contactors and output.monitor
    assert (output.setpoint_v, bench.codes) == (400.0, {})


def test_a_stop_before_the_contactors_were_requested_never_requests_them() -> None:
    bench = Bench()
    bench.output.insulation, bench.output.session_id = Insulation.VALID, "s"
    bench.step(voltage_v=400.0)
    assert bench.output.phase is Phase.MATCH and bench.output.enable is False
    bench.step(voltage_v=400.0)
    assert bench.output.enable and bench.output.setpoint_v == 400.0 and not bench.output.contactors
    bench.ask(Purpose.NONE)
    for _ in range(20):
        bench.step(voltage_v=400.0)
        assert not bench.output.contactors and not bench.output.enable
    assert bench.output.mode == SupplyMode.DISCHARGE


# What ends a transfer.
def test_the_vehicles_maximum_is_kept_and_above_it_ends_with_the_emergency_class() -> None:
    bench = Bench().charging()
    assert bench.ends_after(50, voltage_v=460.0) == -1
    assert bench.ends_after(voltage_v=460.1) == 6  # 50 ms
    assert bench.codes == {Code.OVERVOLTAGE: Severity.EMERGENCY}
    assert bench.output.setpoint_a == 0.0


@pytest.mark.parametrize("field", ["voltage_v", "bank_voltage_v"])
def test_the_trip_is_at_once(field: str) -> None:
    bench = Bench().charging()
    assert bench.ends_after(**{field: 551.0}) == 1
    assert bench.codes == {Code.OVERVOLTAGE: Severity.EMERGENCY}
    bench = Bench().charging()
    assert bench.ends_after(3, **{field: 550.0}) == -1, "the trip itself is no trip"


def test_a_maximum_that_the_vehicle_lowers_is_obeyed_in_the_next_cycle() -> None:
    bench = Bench().charging()
    bench.demand = replace(bench.demand, target=replace(TARGET, max_voltage_v=250.0, current_a=100.0))
    assert bench.step().setpoint_v == 250.0 and bench.output.voltage_limited
    assert bench.ends_after() == 5
    assert bench.codes == {Code.OVERVOLTAGE: Severity.EMERGENCY}


@pytest.mark.parametrize("field", ["voltage_v", "bank_voltage_v"])
def test_reversed_polarity_ends_a_transfer(field: str) -> None:
    bench = Bench().charging()
    assert bench.ends_after(50, **{field: -10.0}) == -1
    assert bench.ends_after(**{field: -10.1}) == 3
    assert bench.codes == {Code.REVERSED_POLARITY: Severity.STOP}


@pytest.mark.parametrize("field", ["voltage_v", "bank_voltage_v"])
def test_no_contactor_closes_on_reversed_polarity(field: str) -> None:
    bench = Bench()
    bench.output.insulation, bench.output.session_id = Insulation.VALID, "s"
    for _ in range(50):
        bench.step(**{field: -360.0})
        assert not bench.output.contactors and not bench.output.enable
    assert bench.codes == {Code.REVERSED_POLARITY: Severity.STOP} and bench.output.mode == SupplyMode.FAULT
    permit = replace(PERMIT, number=6, stamp_ns=2)
    bench.gate.take_permit(permit)
    bench.step(20)
    assert bench.output.mode == SupplyMode.FAULT, "it holds while the polarity is wrong"
    bench.step(20, **{field: 0.0})
    assert Code.REVERSED_POLARITY not in bench.codes
    fine = Bench()
    fine.output.insulation, fine.output.session_id = Insulation.VALID, "s"
    fine.step(3, **{field: -10.0})
    assert fine.output.contactors


@pytest.mark.parametrize(("hot", "cold", "ends"), [(70.0, 29.9, 101), (70.0, 30.0, -1), (29.9, 70.0, 101)])
def test_one_hot_contact_beside_a_cold_one(hot: float, cold: float, ends: int) -> None:
    bench = Bench().charging()
    assert bench.ends_after(300, positive_c=hot, negative_c=cold) == ends


@pytest.mark.parametrize("field", ["positive_c", "negative_c", "cable_c"])
def test_hot_contacts_and_cable_stop_at_their_limit(field: str) -> None:
    bench = Bench()
    stop_c = bench.parameters.temperature__stop_c
    pins = {} if field == "cable_c" else {"positive_c": stop_c, "negative_c": stop_c}
    bench.charging()
    assert bench.ends_after(5, **dict.fromkeys(pins or (field,), stop_c - 0.5)) == -1
    assert bench.ends_after(**(pins or {field: stop_c})) == 1
    assert bench.codes == {Code.OVERTEMPERATURE: Severity.STOP}


def test_hot_coolant_stops_at_its_limit() -> None:
    bench = Bench().charging()
    stop_c = bench.parameters.temperature__coolant_stop_c
    assert bench.ends_after(5, coolant_c=stop_c - 0.5) == -1
    assert bench.ends_after(coolant_c=stop_c) == 1


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_more_current_than_was_asked_for(sign: float) -> None:
    bench = Bench().charging(20.0)
    margin = max(bench.parameters.overcurrent_a, 0.6)
    assert bench.ends_after(8, current_a=sign * (20.0 + margin)) == -1
    assert bench.ends_after(current_a=sign * (20.1 + margin)) == 11
    assert bench.codes == {Code.OVERCURRENT: Severity.STOP}


def test_a_small_deviation_ends_it_after_two_seconds() -> None:
    bench = Bench().charging(20.0)
    assert bench.ends_after(300, current_a=22.5) == -1
    assert bench.ends_after(current_a=22.6) == 201
    assert bench.codes == {Code.OVERCURRENT: Severity.STOP}


BLOCK = FaultReport(Code.DOOR, Severity.STOP, "a door")


@pytest.mark.parametrize(
    ("inputs", "code"),
    [
        ({"blocked": BLOCK}, None),
        ({"disputed": True}, Code.POWER_BUS),
        ({"modules": 0}, Code.NO_MODULES),
        ({"evse": OPEN}, Code.CONTACTOR_FEEDBACK),
        ({"evse": EvseStatus(5e6, Monitor.MEASURING, 1, 1)}, Code.CONTACTOR_FEEDBACK),
        ({"evse": EvseStatus(20e3, Monitor.MEASURING, 1, 3)}, Code.INSULATION_CHARGING),
        ({"evse": EvseStatus(5e6, Monitor.FAULT, 1, 3)}, Code.INSULATION_SELF_TEST),
    ],
)
def test_what_ends_a_transfer_at_once(inputs: dict[str, Any], code: Code | None) -> None:
    bench = Bench().charging()
    bench.see(**inputs).step()
    assert bench.output.mode == SupplyMode.RAMP_DOWN and bench.output.setpoint_a == 0.0
    assert set(bench.codes) == ({code} if code else set())
    assert bench.gate.floor == 5, "the permit in hand is used up"


@pytest.mark.parametrize("evse", [EvseStatus(20e3, Monitor.MEASURING, 0, 3), EvseStatus(20e3, Monitor.SELF_TEST, 1, 3)])
def test_an_insulation_that_was_not_measured_ends_nothing(evse: EvseStatus) -> None:
    bench = Bench().charging()
    assert bench.see(evse=evse).ends_after(100) == -1


def test_a_monitor_that_is_off_ends_it_after_two_seconds() -> None:
    bench = Bench().charging()
    assert bench.see(evse=EvseStatus(5e6, Monitor.OFF, 1, 3)).ends_after() == 201
    assert bench.codes == {Code.INSULATION_SELF_TEST: Severity.STOP}


# The way out.
def test_a_normal_stop_ramps_and_an_abrupt_one_does_not() -> None:
    bench = Bench().charging(100.0)
    bench.ask(Purpose.NONE)
    bench.step()
    assert bench.output.mode == SupplyMode.RAMP_DOWN and 90.0 < bench.output.setpoint_a < 100.0 and bench.output.enable
    bench.ask(Purpose.NONE, abrupt=True).step()
    assert bench.output.setpoint_a == 0.0 and not bench.output.enable and bench.output.contactors
    assert bench.output.phase is Phase.ZERO
    bench.step(3, current_a=5.0)
    assert bench.output.contactors
    bench.step(current_a=4.9)
    assert not bench.output.contactors and bench.output.phase is Phase.OPEN
    bench.see(evse=OPEN).step()
    assert bench.output.mode == SupplyMode.DISCHARGE and not bench.output.monitor


def test_contactors_open_after_500_ms_whatever_flows() -> None:
    bench = Bench().charging(100.0)
    bench.ask(Purpose.NONE, abrupt=True).step()
    assert bench.output.phase is Phase.ZERO
    bench.step(50, current_a=100.0)
    assert bench.output.contactors
    bench.step(current_a=100.0)
    assert not bench.output.contactors


def test_contactors_that_stay_closed_are_welded() -> None:
    bench = Bench().charging(100.0)
    bench.ask(Purpose.NONE, abrupt=True).step(2, current_a=0.0)
    cycles = round(bench.parameters.contactor_time_s * 100)
    bench.step(cycles)
    assert not bench.output.welded
    bench.step(2)
    assert bench.output.welded and bench.codes[Code.CONTACTOR_WELDED] == Severity.STOP
    assert bench.output.mode == SupplyMode.FAULT


@pytest.mark.parametrize(("bits", "closes"), [(0, True), (1, False), (2, False), (3, False)])
def test_no_output_begins_with_a_closed_pole(bits: int, closes: bool) -> None:
    bench = Bench()
    bench.output.insulation, bench.output.session_id = Insulation.VALID, "s"
    bench.see(evse=EvseStatus(5e6, Monitor.OFF, 0, bits)).step(2)
    assert bench.output.contactors == closes and (Code.CONTACTOR_WELDED in bench.codes) == (not closes)


@pytest.mark.parametrize(
    ("insulation", "begins"),
    [(Insulation.VALID, True), (Insulation.WARNING, True), (Insulation.UNKNOWN, False), (Insulation.FAULT, False),
     (Insulation.SELF_TEST_FAILED, False), (Insulation.TESTING, False)],
)  # fmt: skip
def test_nothing_begins_without_a_passed_test(insulation: Insulation, begins: bool) -> None:
    bench = Bench()
    bench.output.insulation, bench.output.session_id = insulation, "s"
    bench.step(3)
    assert bench.output.contactors == begins


def test_another_session_or_pilot_a_voids_the_result() -> None:
    bench = Bench()
    bench.output.insulation, bench.output.session_id = Insulation.VALID, "before"
    bench.step()
    assert bench.output.insulation == Insulation.UNKNOWN and bench.output.mode == SupplyMode.OFF
    bench = Bench().ask(Purpose.NONE)
    bench.output.insulation, bench.output.session_id = Insulation.VALID, "s"
    bench.see(pilot=Pilot.B).step()
    assert bench.output.insulation == Insulation.VALID
    bench.see(pilot=Pilot.A).step()
    assert bench.output.insulation == Insulation.UNKNOWN


@pytest.mark.parametrize("inputs", [{"blocked": BLOCK}, {"settled": False}, {"modules": 0}], ids=str)
def test_nothing_begins_while(inputs: dict[str, Any]) -> None:
    bench = Bench()
    bench.output.insulation, bench.output.session_id = Insulation.VALID, "s"
    bench.see(**inputs).step(5)
    assert bench.output.mode == SupplyMode.OFF and bench.output.text and not bench.codes


def test_voltages_of_the_standard_at_their_edges() -> None:
    assert [cable_check_voltage(v, 1000.0) for v in (400.0, 450.0, 500.0, 501.0, 1000.0)] == [
        450.0, 500.0, 500.0, pytest.approx(551.1), 1000.0
    ]  # fmt: skip
    assert cable_check_voltage(400.0, 420.0) == 420.0 and cable_check_voltage(800.0, 850.0) == 850.0
    limits = [(500.0, 550.0), (500.1, 825.0), (750.0, 825.0), (850.0, 935.0), (1000.0, 1100.0), (1500.0, 1100.0)]
    assert [(v, overvoltage_trip_v(v)) for v, _ in limits] == limits
