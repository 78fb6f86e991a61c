"""The AC supply of an outlet, without I/O: mains, the contactor behind the safety controller's release, the meter."""

from __future__ import annotations

from dataclasses import dataclass

MAINS_V = 230.0
MOVES_S = 0.020  # of a contactor
FAULTS = ("residual-current", "ac-weld")


@dataclass
class AcSupply:
    """One outlet; energies since the start. ``current_a`` is that of each phase, positive into the vehicle."""

    coil: bool = False
    closed: bool = False
    moved_s: float = 0.0
    output_v: float = 0.0  # at the vehicle's side of the contactor
    current_a: float = 0.0
    phases: int = 3
    import_wh: float = 0.0
    export_wh: float = 0.0
    peak_a: float = 0.0
    max_v: float = 0.0

    @property
    def contactors(self) -> bool:
        return self.closed

    @property
    def meter_v(self) -> float:
        """The meter sits before the contactor."""
        return MAINS_V

    @property
    def power_w(self) -> float:
        return self.phases * self.output_v * self.current_a

    @property
    def module_wh(self) -> float:
        """No modules feed it: what the mains gave."""
        return self.import_wh

    def step(self, wanted: bool, welded: bool, asked_a: float, phases: int, now_s: float, dt_s: float) -> None:
        """``wanted``: coil and release; ``asked_a``: what the vehicle's charger takes from each phase while it can."""
        if wanted != self.coil:
            self.coil, self.moved_s = wanted, now_s
        if now_s - self.moved_s >= MOVES_S and (self.coil or not welded):
            self.closed = self.coil
        self.phases = phases
        self.output_v = MAINS_V if self.closed else 0.0
        self.current_a = asked_a if self.closed else 0.0
        self.import_wh += self.power_w * dt_s / 3600.0
        self.peak_a = max(self.peak_a, self.current_a)
        self.max_v = max(self.max_v, self.output_v)
