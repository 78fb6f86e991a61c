"""What real modules do and ideal ones do not: each figure can be switched on, and shows at the vehicle."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import numpy as np

from robot_charger.power.contract import CONTRACTS, Contract, Rating


@dataclass(frozen=True)
class Habits:
    """Of all modules of a rack; ideal modules of 3.3 kW by default."""

    rating: Rating = field(default_factory=lambda: CONTRACTS["ek3"].rating)
    hold_s: float = 0.050  # a set-point outlives the last frame for so long
    start_s: float = 0.0  # from "on" to the first ampere
    offset: float = 0.0  # of the rated current, the same for every module
    scatter: float = 0.0  # of the rated current, another constant for each module, up to this
    gain: float = 0.0  # of the current, up to this, another for each module
    min_current_a: float = 0.0  # a smaller set-point is refused: the last one stays
    ripple_a: float = 0.0  # at the measuring board, peak
    overshoot: float = 0.0  # of the voltage, as the vehicle opens under load
    inrush: bool = False  # the vehicle closes on a voltage that is not its own

    def errors(self, modules: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Constant error [A] and gain of every module."""
        full_a = self.rating.current_a
        scatter = self.scatter * full_a * random.uniform(-1.0, 1.0, modules) if self.scatter else 0.0
        gain = 1.0 + self.gain * random.uniform(-1.0, 1.0, modules) if self.gain else np.ones(modules)
        return np.full(modules, self.offset * full_a) + scatter, np.asarray(gain)


def of_contract(contract: Contract) -> Habits:
    """Modules that keep their contract, no better: hold time, soft start, smallest current, rating."""
    return Habits(
        contract.rating, hold_s=contract.hold_s, start_s=contract.start_s, min_current_a=contract.min_current_a
    )


def parse(words: list[str], habits: Habits) -> Habits:
    """``name=value`` words over ``habits``. Raises ValueError on a name that there is not."""
    known = {f.name for f in dataclasses.fields(Habits)} - {"rating"}
    values: dict[str, float | bool] = {}
    for word in words:
        name, _, value = word.partition("=")
        if name not in known:
            raise ValueError(f"habit {name!r} is unknown: one of {', '.join(sorted(known))}")
        values[name] = bool(float(value or 1)) if name == "inrush" else float(value)
    return dataclasses.replace(habits, **values)  # type: ignore[arg-type]
