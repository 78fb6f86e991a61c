"""The guard on a rig: power's frames, contacts that follow their coils one cycle later, and 10 ms a cycle."""

from __future__ import annotations

import struct
from typing import Any

from robot_charger.common import e2e
from robot_charger.guard.frames import ECHO_VALID, POWER_ID
from robot_charger.guard.logic import Config, EvseInputs, Guard, Inputs, Pilot

CYCLE_MS = 10


def power_frame(
    contactors: int = 0, links: int = 0, echo: int = 0, counter: int = 0, flags: int = ECHO_VALID, monitors: int = 0
) -> bytes:
    """PowerCommand by its layout in config/ek3.dbc, made here without the code under test's own tables."""
    raw = struct.pack("<HHHHBBB2xBH", contactors, monitors, 0, links, 1, echo, flags, counter, 0)
    return e2e.seal(POWER_ID, raw)


class Rig:
    """One station; ``set`` changes inputs, ``cycle`` runs. EVSE 1 is the one that ``set`` speaks of."""

    def __init__(
        self, evses: tuple[int, ...] = (1,), latched: bool = False, start_ms: int = 1000, **config: Any
    ) -> None:
        self.guard = Guard(Config(evses, **config), latched)
        self.inputs = Inputs(evses={evse: EvseInputs() for evse in evses})
        for i in self.inputs.evses.values():
            i.pilot, i.occupied, i.immobilised, i.field_clear = Pilot.C, True, True, True
        self.ms = start_ms
        self.counter = 0
        self.contactors = 0
        self.links = 0
        self.flags = ECHO_VALID
        self.echo_lag = 0
        self.power_speaks = True
        self.follows = True  # the contacts follow their coils
        self.frame = b""

    def set(self, evse: int = 1, **values: Any) -> Rig:
        for name, value in values.items():
            setattr(self.inputs if hasattr(self.inputs, name) else self.inputs.evses[evse], name, value)
        return self

    def cycle(self, count: int = 1) -> Any:
        for _ in range(count):
            self.ms += CYCLE_MS
            self.frame = b""
            if self.power_speaks:
                self.counter = (self.counter + 1) & 0xFF
                echo = (self.guard.counter - self.echo_lag) & 0xFF
                self.frame = power_frame(self.contactors, self.links, echo, self.counter, self.flags)
                self.guard.hear(self.frame, self.ms)
            self.guard.step(self.inputs, self.ms & 0xFFFFFFFF)
            if self.follows:
                for evse, i in self.inputs.evses.items():
                    i.positive_closed = i.negative_closed = bool(self.out.coils >> (evse - 1) & 1)
        return self.out

    @property
    def out(self) -> Any:
        return self.guard.out

    def charging(self, current_da: int = 0, voltage_dv: int = 4000, evses: int = 1) -> Rig:
        """Requested, closed, and settled for longer than any time-out of the sensors."""
        self.cycle(2)
        self.contactors = evses
        self.cycle(60)
        for evse, i in self.inputs.evses.items():
            if evses >> (evse - 1) & 1:
                i.voltage_dv, i.current_da = voltage_dv, current_da
        self.cycle(2)
        assert self.out.coils == evses and not self.out.inhibit & evses
        return self

    def opens_after(self, most: int = 700) -> int:
        """Cycles until the coil of EVSE 1 is off."""
        for count in range(1, most + 1):
            self.cycle()
            if not self.out.coils & 1:
                return count
        return -1
