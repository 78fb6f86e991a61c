"""What the vehicle saw of every fault that the simulated rack and safety controller can be asked for.

Control, rack and controller run in one process in injected time. Each row of ``ROWS`` begins a fault and says what may
reach the inlet: a dip that is over in 250 ms, a safe stop, a slow fall, nothing. docs/power.md tells the same table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from power_desk import Desk, charged

from robot_charger.common.faults import Code
from robot_charger.power.output import SAFE_V, SMALL_A, Mode
from robot_charger.sim import safety
from robot_charger.sim.rack import model
from robot_charger.words.values import Insulation, Purpose

DIP_S = 0.25
OPEN_S = 0.7  # at most 500 ms for a current that nobody measures any more, and the end of what else was waited for
TOP_A = 10.0  # a module that runs away gives all it can, until it is found
PAGE = Path(__file__).parents[2] / "docs" / "power.md"


class Seen:
    """Voltage [V] at the inlet, current [A] into the vehicle and the main contactors, every 10 ms."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.start_v, self.start_a = desk.network.output_v, desk.network.current_a
        self.volts: list[float] = []
        self.amperes: list[float] = []
        self.closed: list[bool] = []

    def watch(self, seconds: float) -> Seen:
        for _ in range(round(seconds * 100)):
            self.desk.cycle()
            self.volts.append(self.desk.network.output_v)
            self.amperes.append(self.desk.network.current_a)
            self.closed.append(self.desk.network.contactors)
        return self

    def longest(self, odd: Callable[[float], bool]) -> float:
        """The longest time on end for which the current was ``odd`` [s]."""
        longest = run = 0
        for ampere in self.amperes:
            run = run + 1 if odd(ampere) else 0
            longest = max(longest, run)
        return longest * 0.01

    def over(self, small_a: float = SMALL_A) -> float:
        """When the current had ended for good [s]."""
        flowing = [i for i, ampere in enumerate(self.amperes) if abs(ampere) >= small_a]
        return (flowing[-1] + 1) * 0.01 if flowing else 0.0


@dataclasses.dataclass(frozen=True)
class Dip:
    """The session goes on: the current is never below ``low`` or above ``high`` times what was asked for, and off by
    more than 1 % for less than 250 ms on end."""

    low: float = 0.95
    high: float = 1.05
    seconds: float = 1.5

    def check(self, desk: Desk) -> None:
        asked = desk.targets[1]["current_a"]
        seen = Seen(desk).watch(self.seconds)
        assert self.low * asked <= min(seen.amperes) and max(seen.amperes) <= self.high * asked + 1e-6
        assert seen.longest(lambda a: abs(a - asked) > 0.01 * asked) < DIP_S
        assert seen.amperes[-1] == pytest.approx(asked, rel=0.01)
        assert np.ptp(seen.volts) < 0.01 * seen.start_v
        assert all(seen.closed) and desk.output.mode == Mode.TRANSFER


NOTHING = Dip(0.99, 1.01)


@dataclasses.dataclass(frozen=True)
class Stop:
    """The current ends within ``seconds`` without rising first; then contactors open, and the inlet is dead as soon as
    the vehicle lets go of it."""

    seconds: float
    opens: bool = True

    def check(self, desk: Desk) -> None:
        seen = Seen(desk).watch(self.seconds + 1.0)
        assert seen.over() <= self.seconds + 1e-9
        assert max(seen.amperes) <= max(1.05 * seen.start_a, desk.targets[1].get("current_a", 0.0))
        assert max(seen.volts) < seen.start_v + 5.0
        if not self.opens:
            assert all(seen.closed)
            return
        opened = seen.closed.index(False)
        assert not any(seen.closed[opened:])
        assert abs(seen.amperes[opened - 1]) < SMALL_A, "contactors opened under load"
        assert opened * 0.01 <= self.seconds + OPEN_S
        desk.network.vehicle.contactor = False
        after = Seen(desk).watch(1.0)
        assert after.volts[-1] < SAFE_V and not any(after.closed) and max(after.amperes) == 0.0


@dataclasses.dataclass(frozen=True)
class Fall:
    """The current falls slowly to between ``low`` and ``high`` [A] and stays; the session goes on."""

    low: float
    high: float

    def check(self, desk: Desk) -> None:
        seen = Seen(desk).watch(12.0)
        assert self.low < seen.amperes[-1] < self.high
        assert np.diff(seen.amperes).min() > -3.0, "no step: at most 200 A/s and a cycle's delay"
        assert max(seen.amperes) <= 1.01 * seen.start_a
        assert np.ptp(seen.amperes[-300:]) < 0.04 * seen.start_a, "it does not hunt"
        assert desk.output.mode == Mode.TRANSFER


@dataclasses.dataclass(frozen=True)
class Export:
    """What was fed back ends within ``seconds``; the session goes on."""

    seconds: float

    def check(self, desk: Desk) -> None:
        seen = Seen(desk).watch(1.5)
        assert seen.over(0.5) <= self.seconds
        assert min(seen.amperes) >= 1.02 * seen.start_a and max(seen.amperes) < 0.5
        assert all(seen.closed) and desk.output.mode == Mode.TRANSFER


@dataclasses.dataclass(frozen=True)
class Refused:
    """The cable check fails: at most ``volts`` stood at the inlet, no transfer follows, the inlet is dead again."""

    volts: float
    result: Insulation

    def check(self, desk: Desk) -> None:
        seen = Seen(desk)
        desk.allow(Purpose.INSULATION_TEST, voltage_v=420.0)
        seen.watch(6.0)
        assert desk.output.insulation == self.result
        desk.allow(Purpose.PRECHARGE, voltage_v=360.0)
        seen.watch(1.0)
        assert max(seen.volts) <= self.volts and max(seen.amperes) <= 2.0
        assert seen.volts[-1] < SAFE_V and not seen.closed[-1]


@dataclasses.dataclass(frozen=True)
class Live:
    """The normal stop, but the inlet stays above 60 V when the vehicle has let go; told within ``seconds`` of that."""

    seconds: float

    def check(self, desk: Desk) -> None:
        seen = Seen(desk).watch(2.0)
        assert seen.over() < 1.1 and not seen.closed[-1]
        desk.network.vehicle.contactor = False
        after = Seen(desk).watch(self.seconds)
        assert after.volts[-1] > SAFE_V and max(after.amperes) == 0.0
        assert desk.output.mode == Mode.FAULT and "V at the inlet" in desk.output.text


def charging(amperes: float = 200.0, **parameters: object) -> Callable[[], Desk]:
    def make() -> Desk:
        desk = charged(amperes, **parameters)
        desk.run(lambda: desk.network.current_a > 0.992 * amperes)
        desk.run(1.0)  # the trim has come to rest
        return desk

    return make


def high_voltage() -> Desk:
    desk = Desk(series_groups=2, max_voltage_v=1000.0)
    desk.emf_v = desk.network.vehicle.emf_v = 740.0
    desk.charge(100.0)
    desk.run(0.2)
    return desk


def feeding() -> Desk:
    desk = Desk(bidirectional=True)
    desk.charge(30.0)
    desk.permits[1] |= {"min_current_a": -100.0, "min_power_w": -50e3}
    desk.targets[1]["current_a"] = -30.0
    desk.run(lambda: desk.network.current_a < -29.0)
    desk.run(0.2)
    return desk


def shared() -> Desk:
    desk = Desk(12, (1, 2), matrix__blocks=4, share__modules_min=1)
    desk.permits[2] = {"purpose": Purpose.NONE, "session_id": ""}
    desk.run(lambda: (desk.control.bank.evse == 1).all(), 5.0)
    desk.charge(50.0)
    desk.run(0.2)
    return desk


def less(amperes: float) -> Callable[[Desk], None]:
    """The vehicle asks for less, and 0.8 s pass, in which it gets at most one module's current too much."""

    def ask(desk: Desk) -> None:
        desk.targets[1]["current_a"] = amperes
        for _ in range(80):
            desk.cycle()
            assert desk.network.current_a - desk.history[-2].setpoint_a < 6.0

    return ask


def warm(desk: Desk) -> None:
    """An hour of charging: what heats further does so from here."""
    desk.network.pin_c, desk.network.coolant_c = 79.0, 59.0


def ending(desk: Desk) -> None:
    desk.allow(Purpose.NONE)


def nothing_more(desk: Desk) -> None:
    """The fault is all."""


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    outcome: Dip | Stop | Fall | Export | Refused | Live
    codes: set[Code] = dataclasses.field(default_factory=set)
    start: Callable[[], Desk] = charging()
    then: Callable[[Desk], None] = nothing_more
    at: dict[str, int] = dataclasses.field(default_factory=dict)  # module or bus
    what: str = ""


LOST, FAULT, BUS = Code.MODULE_LOST, Code.MODULE_FAULT, Code.POWER_BUS
RACK = [
    Row("module-dead", Dip(), {LOST}),
    Row("module-dead", Dip(0.65), {LOST}, charging(15.0, modules=3), what="of three"),
    Row("module-dead", Dip(0.93), {LOST}, high_voltage, what="of two groups in series"),
    Row("module-dead", Stop(0.06), {LOST, BUS, Code.NO_MODULES}, charging(8.0, modules=1), what="the only one"),
    Row("silent", Dip(0.99), {LOST}),
    Row("deaf", Dip(), {FAULT}),
    Row("lost-frames", Dip(seconds=4.0), {LOST}),
    Row("late-frames", Dip(), {LOST}),
    Row("duplicate-id", NOTHING, {Code.ADDRESS_CLASH}),
    Row("restart", Dip(), {FAULT}),
    Row("input-lost", Dip(), {FAULT}),
    Row("over-temperature", Dip(), {FAULT, Code.OVERTEMPERATURE}),
    Row("stuck", NOTHING, what="while nothing changes"),
    Row("stuck", Dip(), {FAULT}, then=less(50.0), what="and less is asked for"),
    Row("stuck", Stop(2.3), {FAULT, Code.OVERCURRENT}, then=less(2.0), what="above all that is asked for"),
    Row("runaway", Dip(), {FAULT}),
    Row("runaway", Dip(0.95, 1.0 + TOP_A / 20.0), {FAULT}, charging(20.0), what="at a small current"),
    Row("wrong-value", NOTHING, {FAULT}),
    Row("no-address", Dip(), {LOST}),
    Row("bus-off", Stop(0.08), {LOST, BUS, Code.NO_MODULES}, what="the only one"),
    Row("bus-off", Dip(0.6), {LOST, BUS}, charging(modules=90, buses=3), at={"bus": 2}, what="one of three"),
    Row("supply-lost", Stop(0.02), {FAULT, Code.NO_MODULES}),
    Row("pin-hot", Fall(240.0, 280.0), start=charging(290.0), then=warm),
    Row("coolant-lost", Fall(160.0, 200.0), start=charging(290.0), then=warm),
    Row("output-silent", Stop(0.24), {BUS}),
    Row("output-wrong", Stop(0.26), {BUS}),
    Row("output-bleeder", Live(2.2), {Code.DISCHARGE}, then=ending),
    Row("bank-bleeder", Refused(475.0, Insulation.UNKNOWN), {Code.DISCHARGE}, Desk, what="before"),
]
SAFETY = [
    Row("emergency-stop", Stop(0.05), {Code.EMERGENCY_STOP}),
    Row("chain", Stop(0.05), {Code.EMERGENCY_STOP}, what="of its channels one opens"),
    Row("fire", Stop(0.05), {Code.EMERGENCY_STOP, Code.FIRE}),
    Row("mains-lost", Stop(0.08), {Code.MAINS_LOST}),
    Row("over-temperature", Stop(0.05), {Code.OVERTEMPERATURE}),
    Row("earth-lost", Stop(0.55), {Code.SAFETY_TRIP}),
    Row("pole-weld", NOTHING, what="while charging"),
    Row("pole-weld", Stop(1.1), {Code.CONTACTOR_WELDED}, then=ending, what="at the end"),
    Row("door", Stop(0.05), {Code.DOOR}),
    Row("silent", Stop(0.14), {Code.SAFETY_LOST}),
    Row("feedback-stuck", Stop(0.05), {Code.CONTACTOR_FEEDBACK}),
    Row("isolation", Refused(475.0, Insulation.FAULT), {Code.INSULATION}, Desk, what="before"),
    Row("isolation", Stop(0.5), {Code.INSULATION_CHARGING}, what="while charging"),
    Row("isolation-charging", Stop(0.5), {Code.INSULATION_CHARGING}),
    Row("self-test", Refused(0.0, Insulation.SELF_TEST_FAILED), {Code.INSULATION_SELF_TEST}, Desk, what="before"),
    Row("self-test", NOTHING, what="while charging"),
    Row("weld", NOTHING, what="while charging"),
    Row("weld", Stop(1.1, opens=False), {Code.CONTACTOR_WELDED}, then=ending, what="at the end"),
    Row("link-weld", NOTHING, start=shared),
    Row("link-drop", Stop(0.1), {Code.CONTACTOR_FEEDBACK, Code.NO_MODULES}, shared),
    Row("field", NOTHING, what="it is the arm's"),
    Row("grid-withdrawn", NOTHING),
    Row("grid-silent", NOTHING),
    Row("grid-withdrawn", Export(0.2), start=feeding, what="while feeding it"),
    Row("grid-silent", Export(0.55), start=feeding, what="while feeding it"),
]
ROWS = [("rack", row) for row in RACK] + [("safety", row) for row in SAFETY]


@pytest.mark.parametrize(("part", "row"), ROWS, ids=[f"{p}-{r.name}-{r.what}".strip("-") for p, r in ROWS])
def test_what_the_vehicle_saw(part: str, row: Row) -> None:
    desk = row.start()
    assert (desk.rack if part == "rack" else desk.safety).fault(row.name, True, **row.at)
    row.then(desk)
    row.outcome.check(desk)
    assert desk.codes == row.codes


def test_every_simulated_fault_has_its_row_and_its_words() -> None:
    assert {row.name for row in RACK} == set(model.FAULTS)
    assert {row.name for row in SAFETY} == set(safety.FAULTS)
    told = PAGE.read_text().split("## What the vehicle sees")[1].split("\n## ")[0]
    assert not [name for name in (*model.FAULTS, *safety.FAULTS) if f"`{name}`" not in told]


LASTING = st.sampled_from(model.MODULE_FAULTS)
WHEN = st.integers(0, 60)  # cycles


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(WHEN, LASTING, st.integers(1, 46)), min_size=1, max_size=3, unique_by=lambda f: f[2]))
def test_several_faults_at_once_are_several_small_dips(faults: list[tuple[int, str, int]]) -> None:
    desk = charging()()
    seen = Seen(desk)
    for cycle in range(150):
        for when, name, module in faults:
            if when == cycle:
                desk.rack.fault(name, True, module)
        seen.watch(0.01)
    off = 0.05 * len(faults)
    assert (1.0 - off) * 200.0 <= min(seen.amperes) and max(seen.amperes) <= (1.0 + off) * 200.0
    assert seen.longest(lambda a: abs(a - 200.0) > 0.05 * 200.0) < DIP_S
    assert all(seen.closed) and desk.output.mode == Mode.TRANSFER
