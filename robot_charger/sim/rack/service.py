"""What the simulated modules answer to configuration and diagnostics frames."""

from __future__ import annotations

from collections import Counter

import numpy as np

from robot_charger.power import service
from robot_charger.sim.rack.model import Rack


class Service:
    """All modules of a rack; ``bus`` and ``address`` (n) say where each one is, and change when it is told so."""

    def __init__(self, rack: Rack, bus: np.ndarray, address: np.ndarray) -> None:
        self.rack = rack
        self.bus = bus
        self.address = address

    def answers(self, bus: int, identifier: int, data: bytes) -> list[tuple[int, bytes]]:
        """Frames (id, data) that the modules of one bus answer to a frame with this id."""
        rack = self.rack
        there = np.flatnonzero((self.bus == bus) & ~(rack.dead | rack.silent | rack.deaf))
        if identifier == service.CONFIG_ID:
            request = service.ConfigRequest.decode(data)
            if request is not None and request.command == service.Command.WHO:
                return self._who(there, request)
            if request is not None and request.command == service.Command.ASSIGN:
                return self._assign(there, request)
        elif identifier == service.DIAGNOSTIC_ID:
            asked = service.DiagnosticRequest.decode(data)
            if asked is not None:
                mine = there[(self.address[there] == asked.address) & ~rack.blank[there]]
                return [(identifier + asked.address, self._life(int(i)).encode(asked.address)) for i in mine[:1]]
        return []

    def _who(self, there: np.ndarray, request: service.ConfigRequest) -> list[tuple[int, bytes]]:
        address = np.where(self.rack.blank[there], 0, self.address[there])
        asked = there[address == request.address]
        slots = [service.slot(int(self.rack.serial[i]), request.round) for i in asked]
        crowd = Counter(slots)  # who speaks at once with another is heard by nobody
        return [
            (identifier, service.ConfigAnswer(int(self.rack.serial[i]), request.address).encode(identifier))
            for identifier, i in zip(slots, asked, strict=True)
            if crowd[identifier] == 1
        ]

    def _assign(self, there: np.ndarray, request: service.ConfigRequest) -> list[tuple[int, bytes]]:
        called = there[self.rack.serial[there] == request.serial]
        if not len(called):
            return []
        module, identifier = int(called[0]), service.CONFIG_ID + request.address
        busy = bool(self.rack.enable[module]) and not self.rack.blank[module]
        if not busy:
            self.address[module] = request.address
            self.rack.take_address(module)
        result = service.Result.BUSY if busy else service.Result.OK
        return [(identifier, service.ConfigAnswer(request.serial, request.address, result).encode(identifier))]

    def _life(self, module: int) -> service.Diagnostics:
        rack = self.rack
        return service.Diagnostics(
            serial=int(rack.serial[module]),
            firmware=int(rack.firmware[module]),
            last_faults=int(rack.last_faults[module]),
            hours=float(rack.hours[module]),
            energy_kwh=float(rack.energy_kwh[module]),
            starts=int(rack.starts[module]),
            last_fault_hours=float(rack.fault_hours[module]),
            fault_count=int(rack.fault_count[module]),
            hottest_c=float(rack.hottest[module]),
            health=float(rack.health[module]),
        )
