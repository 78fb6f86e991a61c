"""Where modules are, and how a current is divided: arithmetic over arrays, without state."""

from __future__ import annotations

import numpy as np


def place(modules: int, buses: int) -> tuple[np.ndarray, np.ndarray]:
    """Bus index and address (from 1) of every module: spread evenly, first bus first."""
    per_bus = -(-modules // buses)
    index = np.arange(modules)
    return index // per_bus, index % per_bus + 1


def assign(modules: int, evses: list[int], series: int) -> tuple[np.ndarray, np.ndarray]:
    """EVSE and series group (from 0) of every module: neighbours feed one EVSE and alternate between its groups."""
    evse, group = np.zeros(modules, np.int64), np.zeros(modules, np.int64)
    for number, part in zip(evses, np.array_split(np.arange(modules), len(evses)), strict=True):
        evse[part] = number
        group[part] = np.arange(len(part)) % series
    return evse, group


def divide(current_a: float, limits_a: np.ndarray) -> np.ndarray:
    """Equal shares of ``current_a`` [A], none above its limit; what one cannot give the others take.

    The sum is the smaller of |current| and the sum of the limits, with the sign of ``current_a``.
    """
    n = len(limits_a)
    if n == 0:
        return np.zeros(0)
    wanted = abs(current_a)
    level = wanted / n
    if level <= limits_a.min():
        return np.full(n, np.copysign(level, current_a))
    if wanted >= limits_a.sum():
        return np.copysign(limits_a, current_a)
    ordered = np.sort(limits_a)
    before = np.concatenate([[0.0], np.cumsum(ordered)[:-1]])
    levels = (wanted - before) / np.arange(n, 0, -1)  # level if all smaller limits are used up
    level = levels[np.argmax(levels <= ordered)]
    return np.copysign(np.minimum(limits_a, level), current_a)
