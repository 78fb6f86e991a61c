"""Goals of several EVSEs for one arm: who is next.

An arm that holds a plug or stands in a contact zone serves that bay and no other. Else the longest wait wins, where
taking a plug out counts as having waited ``UNPLUG_BONUS_S`` longer: it frees a bay and somebody wants to leave. So no
goal is overtaken for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

UNPLUG_BONUS_S = 60.0


@dataclass
class Job:
    """A goal that waits for the arm. ``handle`` is the caller's, ``since`` when it came [s]."""

    evse: int
    handle: Any
    since: float
    unplugs: bool = False
    cancelled: bool = False


@dataclass
class Jobs:
    """The waiting goals, at most one per EVSE. Not thread-safe: the caller holds one lock around all calls."""

    waiting: dict[int, Job] = field(default_factory=dict)

    def add(self, job: Job) -> Job | None:
        """Queue a goal. Returns the older one of the same EVSE that it replaces."""
        older = self.waiting.pop(job.evse, None)
        self.waiting[job.evse] = job
        return older

    def take_cancelled(self) -> list[Job]:
        """Remove and return the goals that nobody wants any more."""
        gone = [job for job in self.waiting.values() if job.cancelled]
        for job in gone:
            del self.waiting[job.evse]
        return gone

    def take_all(self) -> list[Job]:
        """Remove and return all."""
        waiting, self.waiting = list(self.waiting.values()), {}
        return waiting

    def take_next(self, now: float, held: int, permitted: Callable[[int], bool]) -> Job | None:
        """Remove and return the goal to begin now, None when none may.

        ``held``: the EVSE whose plug or contact zone the arm is at, 0 = none. ``permitted`` tells whether an EVSE's
        motion permit stands: a goal without one lets the others pass, and alone is begun, to end by its lapse.
        """
        able = [job for job in self.waiting.values() if not held or job.evse == held]
        able = [job for job in able if permitted(job.evse)] or able
        if not able:
            return None
        job = max(able, key=lambda j: now - j.since + (UNPLUG_BONUS_S if j.unplugs else 0.0))
        del self.waiting[job.evse]
        return job
