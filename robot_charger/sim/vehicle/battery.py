"""A traction battery: open-circuit voltage, internal resistance, and its own books."""

from __future__ import annotations

from bisect import bisect_right

# State of charge [%] and open-circuit voltage as a share of the voltage at 50 %: a nickel-rich cell, 3.0 to 4.2 V.
_CURVE = ((0.0, 0.84), (5.0, 0.92), (20.0, 0.965), (50.0, 1.0), (80.0, 1.075), (95.0, 1.125), (100.0, 1.145))
NOMINAL_V = 360.0


class Battery:
    """Charge by coulombs, energy at the terminals by volts times amperes. Positive current charges.

    ``energy_in_wh`` and ``energy_out_wh`` only rise.
    """

    def __init__(
        self,
        soc: float,
        capacity_wh: float = 77_000.0,
        nominal_v: float = NOMINAL_V,
        resistance_ohm: float = 0.05,
    ) -> None:
        self.soc = soc
        self.capacity_wh = capacity_wh
        self.nominal_v = nominal_v
        self.resistance_ohm = resistance_ohm
        self.energy_in_wh = 0.0
        self.energy_out_wh = 0.0
        self._last: tuple[float, float] | None = None

    @property
    def emf_v(self) -> float:
        """Open-circuit voltage at the present state of charge [V]."""
        soc = min(100.0, max(0.0, self.soc))
        i = min(bisect_right(_CURVE, (soc, 9.0)), len(_CURVE) - 1)
        (soc0, share0), (soc1, share1) = _CURVE[i - 1], _CURVE[i]
        return self.nominal_v * (share0 + (share1 - share0) * (soc - soc0) / (soc1 - soc0))

    def flow(self, voltage_v: float, current_a: float, dt_s: float) -> None:
        """Terminal voltage and current now; ``dt_s`` since the last call, over which a straight line is drawn."""
        last_v, last_a = self._last or (voltage_v, current_a)
        self._last = (voltage_v, current_a)
        energy_wh = (voltage_v + last_v) / 2 * (current_a + last_a) / 2 * dt_s / 3600.0
        if energy_wh > 0.0:
            self.energy_in_wh += energy_wh
        else:
            self.energy_out_wh -= energy_wh
        charge_ah = (current_a + last_a) / 2 * dt_s / 3600.0
        self.soc = min(100.0, max(0.0, self.soc + 100.0 * charge_ah * self.nominal_v / self.capacity_wh))
