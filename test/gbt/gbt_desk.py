"""Charger logic, vehicle logic and a plain supply around one clock: a GB/T session in milliseconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from robot_charger.common.faults import Code
from robot_charger.gbt import frames, transport
from robot_charger.gbt.logic import Station
from robot_charger.gbt.model import Allowed, Inputs, Phase, Session, Status, Supply, WiresIn
from robot_charger.gbt.timing import Settings
from robot_charger.sim.gbt_vehicle import Ev
from robot_charger.sim.vehicle.car import Car, CarOptions
from robot_charger.sim.vehicle.car import Inputs as CarInputs
from robot_charger.words.values import Link, Purpose

TICK_NS = 10_000_000
Frame = tuple[int, bytes]


class Desk:
    """Everything steps every 10 ms. ``log`` holds every message as (seconds since A+, name, values).

    ``intruder(count)`` adds frames to the bus; ``filter(frame)`` changes or drops (None) the vehicle's frames.
    """

    def __init__(
        self,
        edition: int = 2015,
        settings: Settings | None = None,
        charge_seconds: float = 6.0,
        faults: set[str] | None = None,
    ) -> None:
        self.car = Car(
            CarOptions(
                "gbt", None, charge_seconds, 40.0, ramp_a_per_s=50.0, max_current_a=125.0, capacity_wh=50_000.0,
                max_voltage_v=420.0,
            )
        )  # fmt: skip
        self.car.faults = faults or set()
        self.ev = Ev(self.car, edition)
        self.station = Station(settings or Settings())
        self.now_ns = 50 * 10**9
        self.allowed = Allowed(750.0, 200.0, 100_000.0)
        self.session = Session()
        self.supply = Supply(alive=True)
        self.capable_a = 1000.0
        self.insulation = "valid"
        self.tests = 0  # insulation tests that began
        self.lock_works = self.unlock_works = True
        self.locked = False
        self.mated = True
        self.plugged: bool | None = None  # CC1 as a test wants it
        self.deaf = False  # the vehicle hears nothing
        self.precharges = True
        self.log: list[tuple[float, str, dict[str, float]]] = []
        self.raw: list[tuple[float, Frame]] = []
        self.phases: list[tuple[float, Phase]] = []
        self.purposes: list[Purpose] = []
        self.links: list[Link] = []
        self.faults: set[Code] = set()
        self.peak_a = 0.0
        self.intruder: Callable[[int], list[Frame]] | None = None
        self.filter: Callable[[Frame], Frame | None] = lambda frame: frame
        self._count = 0
        self._test_s, self._test_permit = 0.0, 0
        self._on_ns: int | None = None
        self._run_car(1.5)

    @property
    def now_s(self) -> float:
        return self.now_ns / 1e9

    @property
    def on_s(self) -> float:
        """Seconds since the auxiliary supply went on."""
        return 0.0 if self._on_ns is None else (self.now_ns - self._on_ns) / 1e9

    @property
    def phase(self) -> Phase:
        return self.station.phase

    @property
    def status(self) -> Status:
        return self.station.status(self._inputs())

    def start(self) -> None:
        self.session = Session("s1", active=True, start=True, permit=1)

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> bool:
        """Steps for ``seconds`` or until the condition holds; True when it held."""
        for _ in range(round(seconds * 100)):
            self.step()
            if until and until():
                return True
        return until is None

    def until(self, *phases: Phase, seconds: float = 60.0) -> None:
        assert self.run(seconds, lambda: self.station.phase in phases), (
            f"{self.station.phase.name} ({self.station.text}), vehicle {self.ev.phase.value} ({self.ev.text})"
        )

    def step(self) -> None:
        self.now_ns += TICK_NS
        self._count += 1
        self._run_supply()
        self._run_car(0.01)
        auxiliary = self.station.wires.auxiliary and self.mated
        if auxiliary and self._on_ns is None:
            self._on_ns = self.now_ns
        spoken = [f for f in map(self.filter, self.ev.step(self.now_s, auxiliary)) if f and self.mated]
        for frame in [*spoken, *(self.intruder(self._count) if self.intruder else [])]:
            self._keep(frame)
            for answer in self.station.take(*frame, self.now_ns):
                self._to_vehicle(answer)
        if self.lock_works and self.station.wires.lock:
            self.locked = True
        elif self.unlock_works and not self.station.wires.lock:
            self.locked = False
        i = self._inputs()
        self.station.step(i)
        for fault in self.station.faults:
            (self.faults.add if fault.active else self.faults.discard)(fault.code)
        for frame in self.station.transmit(i):
            self._to_vehicle(frame)
        if not self.phases or self.phases[-1][1] is not self.phase:
            self.phases.append((self.on_s, self.phase))
        if not self.purposes or self.purposes[-1] is not self.station.target.purpose:
            self.purposes.append(self.station.target.purpose)
        if not self.links or self.links[-1] is not self.status.phase:
            self.links.append(self.status.phase)

    def _to_vehicle(self, frame: Frame) -> None:
        self._keep(frame)
        if self.mated and not self.deaf:
            self.ev.take(*frame, self.now_s)

    def _keep(self, frame: Frame) -> None:
        self.raw.append((self.on_s, frame))
        pf, _, source = frames.source_of(frame[0])
        table = frames.OF_BMS if source == frames.BMS else frames.OF_CHARGER
        known = table.get(pf)
        if known and len(frame[1]) >= max(1, known.least):
            self.log.append((self.on_s, known.name, frames.decode(known.name, frame[1]).values))

    def _inputs(self) -> Inputs:
        plugged = self.mated and self.car._cc1_v() < 5.0 if self.plugged is None else self.plugged
        wires = WiresIn(plugged=plugged, locked=self.locked)
        return Inputs(self.now_ns, wires, self.supply, self.allowed, self.session, (36, 24, 8, 16, 5, 2015))

    def _run_car(self, seconds: float) -> None:
        self.car.step(
            self.now_s if seconds < 0.1 else self.now_s - 1.0,
            CarInputs(
                arrive=1,
                mated=seconds < 0.1 and self.mated,
                inlet_voltage_v=self.supply.voltage_v,
                inlet_current_a=self.supply.current_a,
                station_lock=self.locked,
                auxiliary=self.station.wires.auxiliary,
            ),
        )

    def _run_supply(self) -> None:
        """Power without a bus: insulation test of one second, precharge at once, current up to its capability."""
        target, car, old = self.station.target, self.car, self.supply
        supply = replace(old, precharged=False, contactors_closed=False, current_a=0.0)
        emf_v = car.battery.emf_v * (-1 if "reversed-polarity" in car.faults else 1)
        live_v = emf_v if car.contactor and self.mated else 0.0
        supply = replace(supply, voltage_v=live_v if live_v else old.voltage_v * 0.9)
        if target.purpose is Purpose.INSULATION_TEST:
            if not self._test_s:
                self.tests += 1
                self.session = replace(self.session, permit=self.session.permit + 7)
                self._test_permit = self.session.permit
                supply = replace(supply, insulation_valid=False)
            self._test_s += 0.01
            done = self._test_s > 1.0
            if not done:
                supply = replace(supply, voltage_v=target.voltage_v + 50.0, contactors_closed=True)
            elif supply.insulation_permit != self._test_permit:
                valid = self.insulation == "valid"
                supply = replace(
                    supply, insulation_valid=valid, insulation_failed=not valid,
                    insulation_permit=self._test_permit,
                )  # fmt: skip
        else:
            self._test_s = 0.0
        if target.purpose in (Purpose.PRECHARGE, Purpose.TRANSFER) and live_v > 0 and self.precharges:
            supply = replace(supply, precharged=True, contactors_closed=True)
            if target.purpose is Purpose.TRANSFER:
                amperes = min(self.capable_a, target.current_a)
                supply = replace(supply, current_a=amperes, voltage_v=live_v + amperes * 0.05)
        elif target.purpose is Purpose.NONE and abs(old.current_a) > 0.5:  # 300 A/s down
            supply = replace(supply, current_a=max(0.0, old.current_a - 3.0), contactors_closed=True)
        self.supply = supply
        self.peak_a = max(self.peak_a, abs(supply.current_a))

    # What the tests read.
    def seen(self, name: str, field: str) -> list[tuple[float, float]]:
        """Values of one field over the session, repetitions left out."""
        result: list[tuple[float, float]] = []
        for at_s, known, values in self.log:
            if known == name and (not result or result[-1][1] != values[field]):
                result.append((at_s, values[field]))
        return result

    def times(self, name: str) -> list[float]:
        """When this message was sent; a long one when its transfer began."""
        message = frames.MESSAGES[name]
        if message.length <= frames.SINGLE:
            return [at for at, known, _ in self.log if known == name]
        begun = bytes([message.pgn & 0xFF, message.pgn >> 8, 0])
        return [
            at for at, (i, data) in self.raw
            if i >> 16 & 0xFF == transport.CM and data[0] == transport.RTS and data[5:8] == begun
        ]  # fmt: skip

    def order(self) -> list[str]:
        """Names of the messages in the order of their first appearance."""
        first = {name: times[0] for name in frames.MESSAGES if (times := self.times(name))}
        return sorted(first, key=lambda name: first[name])

    def last(self, name: str) -> dict[str, float]:
        return next(values for _, known, values in reversed(self.log) if known == name)


def charging(seconds: float = 4.0, **options: object) -> Desk:
    """A desk in the middle of a charge."""
    desk = Desk(charge_seconds=120.0, **options)  # type: ignore[arg-type]
    desk.start()
    desk.until(Phase.CHARGE)
    desk.run(seconds)
    assert desk.phase is Phase.CHARGE, desk.station.text
    assert desk.supply.current_a > 20.0 or seconds < 2.0
    return desk


def time_to_zero(desk: Desk) -> float:
    """Seconds until at most 5 A flow."""
    begun = desk.now_s
    assert desk.run(5.0, lambda: abs(desk.supply.current_a) <= 5.0)
    return desk.now_s - begun


__all__ = ["Desk", "Link", "Phase", "charging", "time_to_zero"]
