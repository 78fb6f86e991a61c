"""Modules that answer: what the simulated ends of all polled protocols share.

A protocol is a subclass with ``targets`` and ``answer`` (sim/rack/NAME.py, class ``Answering``). It has the real one's
manners: set-points stay for the hold time without a frame, after which the module switches itself off; it starts
softly; it refuses what the real one refuses; it is silent until asked.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod

import numpy as np

from robot_charger.common.can_bus import frame_port, open_bus
from robot_charger.power import codec
from robot_charger.power.bank import place
from robot_charger.power.contract import CONTRACTS, Contract
from robot_charger.sim.rack.model import Rack

Frame = tuple[int, bytes]


class AnsweringModules(ABC):
    """All modules of a rack, without I/O; ``hear`` is given a frame and returns what is answered to it."""

    def __init__(self, rack: Rack, contract: Contract, buses: int) -> None:
        self.rack = rack
        self.contract = contract
        self.bus, address = place(rack.count, buses)
        self.address = address + contract.first_address - 1
        self.volts, self.amperes = np.zeros(rack.count), np.zeros(rack.count)
        self.on = np.zeros(rack.count, bool)
        self.heard_s = np.full(rack.count, -np.inf)
        self.refused = 0  # set-points and commands that a module would not take

    @abstractmethod
    def targets(self, identifier: int) -> int | None:
        """The address that a frame is for; None when it is not for modules."""

    @abstractmethod
    def answer(self, i: int, identifier: int, data: bytes, now_s: float) -> list[Frame]:
        """What module i does with it, and says to it."""

    def hear(self, bus: int, identifier: int, data: bytes, now_s: float) -> list[Frame]:
        address = self.targets(identifier)
        rack = self.rack
        if address is None or bus in rack.buses_off or len(data) != 8:
            return []
        answers: list[Frame] = []
        for i in np.flatnonzero((self.bus == bus) & (self.address == address)).tolist():
            one = np.array([i])
            if rack.dead[i] or rack.deaf[i] or rack.blank[i] or rack._lost(one)[0]:
                continue
            if now_s - self.heard_s[i] > rack.hold_s[i]:
                self.on[i] = False  # it switched itself off, and does not start again by itself
                self._apply(i, now_s)
            self.heard_s[i] = rack.valid_at[i] = now_s
            spoken = self.answer(i, identifier, data, now_s)
            if not rack.silent[i] and not rack._lost(one)[0]:
                answers += spoken
        return answers

    def set(self, i: int, now_s: float, volts: float | None = None, amperes: float | None = None) -> bool:
        """A part of module i's set-point. False: it is out of what the module takes; the old one stays."""
        least = self.contract.min_current_a
        if amperes is not None and not least <= amperes <= 1.2 * self.contract.rating.current_a:
            self.refused += 1
            return False
        if volts is not None:
            self.volts[i] = volts
        if amperes is not None:
            self.amperes[i] = amperes
        self._apply(i, now_s)
        return True

    def switch(self, i: int, on: bool, now_s: float) -> None:
        self.on[i] = on
        self._apply(i, now_s)

    def _apply(self, i: int, now_s: float) -> None:
        one = np.array([i])
        self.rack.command(one, self.volts[one], self.amperes[one], self.on[one], now_s)

    def shown(self, i: int) -> tuple[float, float]:
        """Voltage and current that module i reports."""
        rack = self.rack
        gain = 0.5 if rack.wrong[i] else 1.0
        return float(rack._volts[i]) * gain, float(rack.current[i])

    def running(self, i: int) -> bool:
        return int(self.rack.state[i]) in (codec.State.RUNNING, codec.State.DERATED)


def answering(protocol: str, rack: Rack, buses: int) -> AnsweringModules:
    """The modules of this protocol."""
    module = importlib.import_module(f"robot_charger.sim.rack.{protocol}")
    made: AnsweringModules = module.Answering(rack, CONTRACTS[protocol], buses)
    return made


class PolledModules:
    """Those modules on their buses; the rack's cycle calls it (see ModuleEnd)."""

    def __init__(self, rack: Rack, protocol: str, buses: list[str]) -> None:
        contract = CONTRACTS[protocol]
        self.modules = answering(protocol, rack, len(buses))
        self._ports = [frame_port(open_bus(n, fd=contract.fd), contract.fd, contract.extended) for n in buses]

    def receive(self, now_s: float) -> None:
        for bus, port in enumerate(self._ports):
            for batch in port.read():
                for k, identifier in enumerate(batch.ids.tolist()):
                    data = batch.data[k, : batch.lengths[k]].tobytes()
                    answers = self.modules.hear(bus, identifier, data, now_s)
                    if answers:
                        port.write([i for i, _ in answers], codec.rows([d for _, d in answers]))

    def send(self, now_s: float, sensors: bool) -> None:
        """Nothing: they are silent until asked."""

    def close(self) -> None:
        for port in self._ports:
            port.close()
