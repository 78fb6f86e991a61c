"""Protocol and safety time: CLOCK_MONOTONIC, never ROS time.

All processes of one station run on one computer, so their monotonic stamps compare.
"""

from __future__ import annotations

import time

MILLISECOND = 1_000_000
SECOND = 1_000_000_000


def now_ns() -> int:
    """Nanoseconds of CLOCK_MONOTONIC."""
    return time.monotonic_ns()


class Ticker:
    """Absolute deadlines for a periodic thread.

    ``wait()`` sleeps to the next deadline and returns how late the thread woke [s]. A thread that fell more
    than one period behind does not catch up by bursts: the missed deadlines are dropped and counted in ``missed``.
    """

    def __init__(self, period_s: float) -> None:
        self.period_s = period_s
        self.missed = 0
        self._next = time.monotonic() + period_s

    def wait(self) -> float:
        now = time.monotonic()
        if now < self._next:
            time.sleep(self._next - now)
            now = time.monotonic()
        late = now - self._next
        behind = int(late / self.period_s) if late > 0.0 else 0
        self.missed += behind
        self._next += (behind + 1) * self.period_s
        return late
