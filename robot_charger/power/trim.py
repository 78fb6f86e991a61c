"""A slow, bounded correction of an output's current by its measuring board.

Modules miss their set-point by a constant each, and the constants add up. The trim integrates the difference between
asked and measured and is added to what the modules are asked. It is frozen wherever the difference has another cause:
while the voltage is controlled, the modules are at their limits, the current moves, or the board is old or disputed.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from robot_charger.common.clock import SECOND
from robot_charger.power.bank import STATIC, STATIC_A
from robot_charger.power.contract import Contract

SLOWEST_HZ = 2.0  # 1/s: rate of the correction, where the modules' delay allows it
DEAD_TIMES = 4.0  # the correction is so many times slower than a set-point's way to the board
STEADY_A, STEADY = 0.5, 0.01  # a set-point that moved less in one settling time is steady
REGULATED_V, REGULATED = 2.0, 0.005  # so near to its voltage the output is in voltage control
DEAD_A, DEAD = 0.15, 0.002  # differences below the larger are the board's own: correcting them only moves modules
AGREED = 0.4  # of what the standard allows: the modules' offsets are in the trim
AGREED_S = 0.5


@dataclass(frozen=True)
class Sight:
    """One cycle of one output."""

    delivering: bool  # transfer, not on its way out
    setpoint_a: float
    measured_a: float
    setpoint_v: float
    measured_v: float
    saturated: bool  # the modules are asked for less than the set-point
    trusted: bool  # the board's frame is fresh and nobody disputes it
    bound_a: float  # declared offsets of the modules that give current
    modules: int  # how many those are
    lowest_a: float  # of the permit
    highest_a: float


class Trim:
    """The correction of one output; ``step`` returns what to ask the modules for [A]."""

    def __init__(self, contract: Contract) -> None:
        self.value_a = 0.0
        self.agreed = False  # asked and measured were alike for a while
        self._settle_ns = int((2.0 * contract.delay_s + 0.05) * SECOND)
        self._rate = min(SLOWEST_HZ, 1.0 / max(DEAD_TIMES * contract.delay_s, 1e-3))
        self._past: deque[tuple[int, float]] = deque()
        self._alike_ns = 0
        self._modules = 0
        self._last_ns = 0

    def step(self, now_ns: int, sight: Sight) -> float:
        elapsed_s = min((now_ns - self._last_ns) / SECOND, 0.1) if self._last_ns else 0.0
        self._last_ns = now_ns
        self.agreed = False
        if not sight.delivering:
            self.value_a, self._modules = 0.0, 0
            self._past.clear()
            self._alike_ns = now_ns
            return sight.setpoint_a
        if 0 < sight.modules < self._modules:
            self.value_a *= sight.modules / self._modules  # who leaves takes his offset along
        self._modules = sight.modules
        error_a = sight.setpoint_a - sight.measured_a
        if self._steady(now_ns, sight.setpoint_a) and self._believable(sight):
            if abs(error_a) > max(DEAD_A, DEAD * abs(sight.setpoint_a)):
                self.value_a += self._rate * error_a * elapsed_s
            allowed = max(STATIC_A, STATIC * abs(sight.setpoint_a))
            if abs(error_a) > AGREED * allowed:
                self._alike_ns = now_ns
            self.agreed = now_ns - self._alike_ns >= AGREED_S * SECOND
        else:
            self._alike_ns = now_ns
        self.value_a = max(-sight.bound_a, min(sight.bound_a, self.value_a))
        total = sight.setpoint_a + self.value_a
        if total * sight.setpoint_a <= 0.0:
            return 0.0  # the correction never turns the direction
        low, high = min(sight.lowest_a, sight.setpoint_a), max(sight.highest_a, sight.setpoint_a)
        return max(low, min(high, total))

    def _steady(self, now_ns: int, setpoint_a: float) -> bool:
        """Whether the set-point has hardly moved for as long as it takes to the board."""
        past = self._past
        past.append((now_ns, setpoint_a))
        while len(past) > 1 and now_ns - past[1][0] >= self._settle_ns:
            past.popleft()
        if now_ns - past[0][0] < self._settle_ns:
            return False
        values = [a for _, a in past]
        return max(values) - min(values) <= max(STEADY_A, STEADY * abs(setpoint_a))

    @staticmethod
    def _believable(sight: Sight) -> bool:
        regulated = sight.measured_v > sight.setpoint_v - max(REGULATED_V, REGULATED * sight.setpoint_v)
        return sight.trusted and not sight.saturated and not regulated and sight.setpoint_a != 0.0
