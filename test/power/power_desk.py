"""Control, rack model and safety controller wired together in injected time: 10 ms are microseconds here."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from robot_charger.common.can_bus import as_batch
from robot_charger.common.can_udp import EXTENDED, FD, Batch
from robot_charger.common.clock import MILLISECOND
from robot_charger.common.faults import FaultReport
from robot_charger.power import codec, service
from robot_charger.power.contract import CONTRACTS, buses_needed
from robot_charger.power.control import Control, Snapshot
from robot_charger.power.parameters import PowerParameters
from robot_charger.sim.rack.habits import Habits, of_contract
from robot_charger.sim.rack.model import Rack
from robot_charger.sim.rack.polled import answering
from robot_charger.sim.rack.service import Service
from robot_charger.sim.safety import Controller, World
from robot_charger.station import rating_parameters
from robot_charger.words.values import ChargePermit, Pilot, PilotState, Purpose, VehicleTarget

assert as_batch  # the same Batch as on a real bus
CYCLE_NS = 10 * MILLISECOND


def batch(ids: Any, data: np.ndarray) -> Batch:
    n = len(data)
    return Batch(
        np.asarray(ids, np.uint32),
        np.full(n, FD, np.uint8),
        np.full(n, data.shape[1], np.uint8),
        np.ascontiguousarray(data),
    )


class Desk:
    """A bank with one vehicle per EVSE; ``run`` advances cycle by cycle."""

    def __init__(
        self,
        modules: int = 46,
        evses: tuple[int, ...] = (1,),
        buses: int = 1,
        habits: Habits | None = None,
        **parameters: Any,
    ) -> None:
        self.parameters = PowerParameters(modules=modules, evses=list(evses), **parameters)
        self.parameters.check()
        self.control = Control(self.parameters, buses)
        blocks = self.parameters.matrix__blocks
        contract = self.parameters.contract
        self.rack = Rack(
            modules,
            list(evses),
            1,
            self.parameters.series_groups,
            blocks,
            self.parameters.series_switched,
            habits=habits or of_contract(contract),
        )
        self.answering = answering(contract.name, self.rack, buses) if contract.extended else None
        self.heard: dict[int, list[tuple[int, bytes]]] = {}  # port -> answers on their way
        self.safety = Controller(list(evses), blocks=blocks, switched=self.parameters.series_switched)
        self.worlds = {e: World(True, True, 2e6) for e in evses}
        self.service = Service(self.rack, self.control.bank.bus, self.control.bank.address.copy())
        self.sent: list[tuple[int, int, bytes, int]] = []  # frames to polled modules
        self.answers: list[tuple[int, int, bytes]] = []
        self.now_ns = 10**12
        self.power_runs = True
        self.supervisor_speaks = True
        self.protocol_speaks = True
        self.permits: dict[int, dict[str, Any]] = {e: {"purpose": Purpose.NONE} for e in evses}
        self.targets: dict[int, dict[str, Any]] = {e: {"purpose": Purpose.NONE} for e in evses}
        self.pilots = dict.fromkeys(evses, Pilot.C)
        self.number = 1
        self.emf_v = 360.0
        self.target_number = 0
        self.vehicle_silent_ns: int | None = None
        self.faults: list[tuple[int, FaultReport]] = []
        self.modes: list[int] = []
        self.history: list[Snapshot] = []
        self.counters = np.full(modules, -1)
        for network in self.rack.networks.values():
            network.vehicle.connected = True
            network.vehicle.emf_v = 360.0
            network.vehicle.resistance_ohm = 0.05

    @property
    def output(self) -> Snapshot:
        return self.control.channels[self.parameters.evses[0]].snapshot

    @property
    def network(self) -> Any:
        return self.rack.networks[self.parameters.evses[0]]

    @property
    def codes(self) -> set[int]:
        return {int(r.code) for _, r in self.faults if r.active}

    def allow(self, purpose: int, evse: int = 1, **values: Any) -> None:
        self.number += 1
        self.permits[evse] = {"purpose": purpose, "number": self.number}
        self.targets[evse] = {"purpose": purpose, **values}

    def cycle(self) -> None:
        self.now_ns += CYCLE_NS
        now_s = self.now_ns / 1e9
        control = self.control
        for evse in self.parameters.evses:
            if self.supervisor_speaks:
                values = {"number": self.number, "max_voltage_v": self.parameters.max_voltage_v,
                          "max_current_a": 400.0, "max_power_w": 150e3,
                          "session_id": "s", **self.permits[evse]}  # fmt: skip
                control.hear(evse, ChargePermit(self.now_ns, **values))
            if self.protocol_speaks:
                self.target_number += 1
                values = {"max_voltage_v": self.emf_v + 60.0, "max_current_a": 300.0, "session_id": "s",
                          "vehicle_stamp_ns": self.vehicle_silent_ns or self.now_ns, "vehicle_timeout_ms": 1000,
                          **self.targets[evse]}  # fmt: skip
                control.hear(evse, VehicleTarget(self.now_ns, self.target_number, **values))
            control.hear(evse, PilotState(self.now_ns, self.pilots[evse]))
        if self.power_runs:
            for bus, ids, data in control.step(self.now_ns):
                self._deliver(bus, ids, data, now_s)
            self._keep()
        self.safety.step(now_s, self.worlds)
        for evse, network in self.rack.networks.items():
            network.contactors = self.safety.circuits[evse].closed
        self.rack.inhibited = self.safety.out.inhibit
        self.rack.join(self.safety.links_closed)
        self.rack.step(now_s, 0.01)
        for evse, network in self.rack.networks.items():
            self.worlds[evse].current_a = network.current_a
            self.worlds[evse].voltage_v = network.output_v
            self.worlds[evse].pilot = self.pilots[evse] if not self.control.channels[evse].gate.pilotless else None
        if not self.safety.has("silent"):
            for identifier, frame in self.safety.frames(self.worlds):
                self._hear(identifier, frame)
        self._status(now_s)

    def _deliver(self, bus: int, ids: np.ndarray, data: np.ndarray, now_s: float) -> None:
        if self.answering is not None and bus:
            for identifier, frame in zip(ids.tolist(), data, strict=True):
                self.sent.append((bus, identifier, frame.tobytes(), self.now_ns))
                answers = self.answering.hear(bus - 1, identifier, frame.tobytes(), now_s)
                self.heard.setdefault(bus, []).extend(answers)
            return
        first = int(self.control.bank.first[bus])
        if ids[0] == codec.POWER_ID:
            self.safety.hear(data[0].tobytes(), now_s)
        elif bus in self.rack.buses_off:
            return
        elif ids[0] >= service.CONFIG_ID:
            for answer, frame in self.service.answers(bus, int(ids[0]), data[0].tobytes()):
                self.answers.append((bus, answer, frame))
        else:
            addresses, volts, amperes, enable, _, bad = codec.decode_setpoints(ids, data)
            assert not bad
            at = first + addresses - 1
            mine = at < self.control.bank.first[bus + 1]
            self.rack.command(at[mine], volts[mine], amperes[mine], enable[mine], now_s)

    def _status(self, now_s: float) -> None:
        if self.answering is not None:
            for bus, answers in self.heard.items():
                if answers:
                    frames = batch([i for i, _ in answers], codec.rows([d for _, d in answers]))
                    extended = Batch(frames.ids, np.full(len(answers), EXTENDED, np.uint8), frames.lengths, frames.data)
                    self.control.take(bus, extended, self.now_ns)
            self.heard.clear()
            for evse, frame in self.rack.outputs().items():
                self._hear(codec.OUTPUT_ID + evse, frame)
            return
        index, frames = self.rack.status(now_s)
        data = frames.view(np.uint8).reshape(len(index), 16)
        sensor_index, sensors = self.rack.sensors()
        sensor_data = sensors.view(np.uint8).reshape(-1, 16)
        bank = self.control.bank
        for bus in set(range(bank.buses)) - self.rack.buses_off:
            mine = bank.bus[index] == bus
            self.control.take(bus, batch(codec.STATUS_ID + bank.address[index[mine]], data[mine]), self.now_ns)
            if self.rack.counter % 10:
                continue
            mine = bank.bus[sensor_index] == bus
            sensor_ids = codec.SENSOR_ID + bank.address[sensor_index[mine]]
            self.control.take(bus, batch(sensor_ids, sensor_data[mine]), self.now_ns)
        while self.answers:
            bus, identifier, frame = self.answers.pop()
            self.control.take(bus, batch([identifier], np.frombuffer(frame, np.uint8)[None]), self.now_ns)
        for evse, frame in self.rack.outputs().items():
            self._hear(codec.OUTPUT_ID + evse, frame)

    def _hear(self, identifier: int, frame: bytes) -> bool:
        return self.control.take(0, batch([identifier], np.frombuffer(frame, np.uint8)[None]), self.now_ns)

    def _keep(self) -> None:
        while self.control.faults:
            self.faults.append(self.control.faults.popleft())
        self.history.append(self.output)
        if not self.modes or self.modes[-1] != self.output.mode:
            self.modes.append(self.output.mode)

    def run(self, until: Callable[[], Any] | float, limit_s: float = 12.0) -> float:
        """Cycles until the condition holds (or for so many seconds); returns the seconds that took."""
        start = self.now_ns
        if not callable(until):
            seconds, until = until, lambda: False
            limit_s = seconds
        else:
            seconds = None
        while not until():
            if self.now_ns - start >= limit_s * 1e9:
                if seconds is not None:
                    break
                raise AssertionError(f"not reached in {limit_s} s: {self.output} {self.faults}")
            self.cycle()
        return (self.now_ns - start) / 1e9

    def check_cable(self, evse: int = 1) -> None:
        self.allow(Purpose.INSULATION_TEST, evse, voltage_v=self.emf_v + 60.0)
        output = self.control.channels[evse]
        self.run(lambda: output.snapshot.insulation >= 2 and output.snapshot.mode in (0, 6))

    def precharge(self, evse: int = 1) -> None:
        self.check_cable(evse)
        self.allow(Purpose.PRECHARGE, evse, voltage_v=self.emf_v, current_a=2.0)
        output = self.control.channels[evse]
        self.run(lambda: output.snapshot.mode == 2 and abs(output.snapshot.voltage_v - self.emf_v) < 20.0)

    def charge(self, current_a: float = 100.0, evse: int = 1) -> None:
        """From nothing to this current."""
        self.precharge(evse)
        self.rack.networks[evse].vehicle.contactor = True
        self.allow(Purpose.TRANSFER, evse, voltage_v=self.emf_v + 50.0, current_a=current_a)
        output = self.control.channels[evse]
        self.run(lambda: output.snapshot.mode == 3 and abs(output.snapshot.current_a - current_a) < 0.02 * current_a)
        crews = self.control.bank._crew
        self.run(lambda: all(c.size >= c.goal for c in crews.values()))  # those whose offset was unknown joined too


def real(protocol: str, modules: int = 5, habits: Habits | None = None, **parameters: Any) -> Desk:
    """A bank of another maker's modules, as its contract rates them, behind a controller that cuts them off."""
    contract = CONTRACTS[protocol]
    buses = max(1, buses_needed(contract, modules))
    values = {name.replace(".", "__"): value for name, value in rating_parameters(contract).items()}
    own = {"module__bus": "udp:1", "contactors_break_load": True, "module__cut_off": "inhibit"}
    desk = Desk(modules, buses=buses, habits=habits, module__protocol=protocol, **{**values, **own, **parameters})
    return desk


def follow(desk: Desk, currents: tuple[float, ...], seconds: float = 4.0) -> list[tuple[float, float, float]]:
    """Charge at these currents, one after the other: (asked [A], got [A], worst error as a share of what is allowed).

    Judged from one second after the set-point has arrived; IEC 61851-23: 2.5 A below 50 A, 5 % above.
    """
    if desk.answering is not None:
        desk.run(3.0)  # who is there is asked one after the other
    desk.precharge()
    desk.network.vehicle.contactor = True
    rows = []
    for asked in currents:
        desk.allow(Purpose.TRANSFER, voltage_v=desk.emf_v + 50.0, current_a=asked, max_current_a=3000.0)
        desk.permits[1] |= {"max_current_a": 3000.0, "max_power_w": 3e6}
        desk.run(lambda asked=asked: desk.output.mode == 3 and abs(desk.output.setpoint_a - asked) < 0.01, 60.0)  # type: ignore[misc]
        desk.run(1.0)
        worst = 0.0
        for _ in range(round(seconds * 100)):
            desk.cycle()
            worst = max(worst, abs(desk.network.current_a - asked) / max(2.5, 0.05 * asked))
        rows.append((asked, round(desk.network.current_a, 2), round(worst, 3)))
    return rows


_READY: dict[str, Desk] = {}


def charged(current_a: float, **parameters: Any) -> Desk:
    """A desk that charges at this current: a copy of one that was brought there before."""
    key = f"{current_a} {parameters}"
    if key not in _READY:
        _READY[key] = Desk(**parameters)
        _READY[key].charge(current_a)
    return copy.deepcopy(_READY[key])
