"""Station logic, vehicle logic and a plain supply around one clock: a CHAdeMO session in milliseconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from robot_charger.chademo import frames
from robot_charger.chademo.logic import Allowed, Inputs, Phase, Session, Station, Status, Supply, WiresIn
from robot_charger.chademo.timing import Settings
from robot_charger.common.faults import Code
from robot_charger.sim.chademo_vehicle import SLOTS, Ev
from robot_charger.sim.vehicle.car import Car, CarOptions
from robot_charger.sim.vehicle.car import Inputs as CarInputs
from robot_charger.words.values import Link, Purpose

TICK_NS = 10_000_000


class Desk:
    """Everything steps every 10 ms. ``log`` holds every frame as (seconds since d1, identifier, values)."""

    def __init__(
        self,
        protocol: int = 2,
        v2x: bool = False,
        settings: Settings | None = None,
        charge_seconds: float = 6.0,
        faults: set[str] | None = None,
    ) -> None:
        name = "chademo-v2x" if v2x else "chademo"
        self.car = Car(
            CarOptions(
                name, None, charge_seconds, 40.0, ramp_a_per_s=20.0, max_current_a=125.0, capacity_wh=40_000.0,
                max_voltage_v=435.0, max_discharge_current_a=15.0,
            )
        )  # fmt: skip
        self.car.faults = faults or set()
        self.ev = Ev(self.car, protocol, v2x)
        self.station = Station(settings or Settings(v2x=v2x))
        self.now_ns = 50 * 10**9
        self.allowed = Allowed(500.0, 200.0, 100_000.0, 20.0 if v2x else 0.0)
        self.session = Session()
        self.supply = Supply(alive=True)
        self.capable_a = 1000.0
        self.insulation = "valid"
        self.lock_works = self.unlock_works = True
        self.locked = False
        self.mated = True
        self.log: list[tuple[float, int, frames.Values]] = []
        self.phases: list[tuple[float, Phase]] = []
        self.faults: set[Code] = set()
        self.peak_a = 0.0
        self.intruder: Callable[[int], list[tuple[int, bytes]]] | None = None
        self.deaf = False
        self._bus: list[tuple[int, bytes, int]] = []
        self._count = 0
        self._test_s = 0.0
        self._d1_ns: int | None = None
        self._run_car(1.5)

    @property
    def now_s(self) -> float:
        return self.now_ns / 1e9

    @property
    def d1_s(self) -> float:
        """Seconds since d1 went on."""
        return 0.0 if self._d1_ns is None else (self.now_ns - self._d1_ns) / 1e9

    @property
    def status(self) -> Status:
        return self.station.status(self._inputs([]))

    def start(self) -> None:
        self.session = Session("s1", active=True, start=True, test_permit=0)

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> bool:
        """Steps for ``seconds`` or until the condition holds; True when it held."""
        for _ in range(round(seconds * 100)):
            self.step()
            if until and until():
                return True
        return until is None

    def until(self, *phases: Phase, seconds: float = 30.0) -> None:
        assert self.run(seconds, lambda: self.station.phase in phases), (
            f"{self.station.phase.name} ({self.station.text}), vehicle {self.ev.phase.value} ({self.ev.text})"
        )

    def step(self) -> None:
        self.now_ns += TICK_NS
        self._count += 1
        self._run_supply()
        d1, d2 = self.station.wires.d1 and self.mated, self.station.wires.d2 and self.mated
        self._run_car(0.01)
        self.ev.step(self.now_s, d1, d2)
        heard: list[tuple[int, bytes, int]] = []
        schedule = self.ev.schedule()
        slot = self._count % SLOTS
        if self.ev.awake and self.mated and slot < len(schedule):
            heard.append((schedule[slot], self.ev.frame(schedule[slot]), self.now_ns))
        if self.intruder:
            heard += [(*frame, self.now_ns) for frame in self.intruder(self._count)]
        if self.lock_works and self.station.wires.lock:
            self.locked = True
        elif self.unlock_works and not self.station.wires.lock:
            self.locked = False
        self.station.step(self._inputs(heard))
        if d1 and self._d1_ns is None:
            self._d1_ns = self.now_ns
        for fault in self.station.faults:
            (self.faults.add if fault.active else self.faults.discard)(fault.code)
        if not self.phases or self.phases[-1][1] is not self.station.phase:
            self.phases.append((self.d1_s, self.station.phase))
        for identifier, data, _ in heard:
            if len(data) == 8 and identifier in frames.FRAMES:
                self.log.append((self.d1_s, identifier, frames.decode(identifier, data)))
        if slot == 5:
            for identifier, data in self.station.transmit(self.supply, self.now_ns):
                self.log.append((self.d1_s, identifier, frames.decode(identifier, data)))
                if self.mated and not self.deaf:
                    self.ev.take(identifier, data, self.now_s)

    def _inputs(self, heard: list[tuple[int, bytes, int]]) -> Inputs:
        wires = WiresIn(k=self.ev.k and self.mated, locked=self.locked)
        return Inputs(self.now_ns, wires, self.supply, self.allowed, self.session, heard)

    def _run_car(self, seconds: float) -> None:
        self.car.step(
            self.now_s if seconds < 0.1 else self.now_s - 1.0,
            CarInputs(
                arrive=1,
                mated=seconds < 0.1 and self.mated,
                inlet_voltage_v=self.supply.voltage_v,
                inlet_current_a=self.supply.current_a,
                station_lock=self.locked,
            ),
        )

    def _run_supply(self) -> None:
        """Power without a bus: insulation test of one second, precharge at once, current up to its capability."""
        target, car = self.station.target, self.car
        supply = replace(self.supply, precharged=False, contactors_closed=False, current_a=0.0)
        live_v = car.battery.emf_v if car.contactor and self.mated else 0.0
        supply = replace(supply, voltage_v=max(live_v, supply.voltage_v * 0.9), bank_voltage_v=0.0)
        if target.purpose is Purpose.INSULATION_TEST and not supply.insulation_permit:
            self.session = replace(self.session, test_permit=7)
            self._test_s += 0.01
            supply = replace(supply, voltage_v=target.voltage_v + 50.0, contactors_closed=True)
            if self._test_s > 1.0:
                valid = self.insulation == "valid"
                supply = replace(supply, insulation_valid=valid, insulation_failed=not valid, insulation_permit=7)
        elif target.purpose in (Purpose.PRECHARGE, Purpose.TRANSFER) and live_v:
            supply = replace(supply, precharged=True, contactors_closed=True)
            if target.purpose is Purpose.TRANSFER:
                amperes = max(-self.capable_a, min(self.capable_a, target.current_a))
                supply = replace(supply, current_a=amperes, voltage_v=live_v + amperes * 0.05)
        elif abs(self.supply.current_a) > 0.5:  # 300 A/s down
            left = max(0.0, abs(self.supply.current_a) - 3.0)
            supply = replace(supply, current_a=left if self.supply.current_a > 0 else -left, contactors_closed=True)
        self.supply = supply
        self.peak_a = max(self.peak_a, abs(supply.current_a))

    # What the tests read.
    def seen(self, identifier: int, name: str) -> list[tuple[float, Any]]:
        """Values of one field over the session, repetitions left out."""
        result: list[tuple[float, Any]] = []
        for at_s, known, values in self.log:
            if known == identifier and (not result or result[-1][1] != values[name]):
                result.append((at_s, values[name]))
        return result

    def first(self, identifier: int, name: str, value: float) -> float:
        """When a field first had a value [s since d1]."""
        return next(at for at, known, values in self.log if known == identifier and values[name] == value)


__all__ = ["Desk", "Link", "Phase"]
