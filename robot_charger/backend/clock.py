"""The station's time: the computer's clock, corrected by the CSMS's where TimeSource says so.

The correction (offset) is kept over restarts. A step of the computer's clock, once the CSMS has told its time, does not
move the station's time: the offset takes the step up until the CSMS is heard again. Durations never use this time; they
run on CLOCK_MONOTONIC.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone

from robot_charger.backend.records import Now, parse_time

log = logging.getLogger("robot_charger.backend")
SMALL_S = 2.0  # differences below it are the network's
YEARS = range(2024, 2100)  # a time outside cannot be meant


def system() -> Now:
    """The computer's own clocks."""
    return Now(time.monotonic_ns(), datetime.now(timezone.utc))


class StationClock:
    """``on_change(before_s, after_s)``: the offset was changed [s]."""

    def __init__(
        self,
        offset_s: float = 0.0,
        source: Callable[[], Now] = system,
        on_change: Callable[[float, float], None] = lambda before, after: None,
    ) -> None:
        self.offset_s = offset_s
        self.on_change = on_change
        self.heard_at: Now | None = None  # when the CSMS last told its time
        self.difference_s = 0.0  # the CSMS's time less the computer's, as last heard
        self._source = source
        self._last: Now | None = None

    def __call__(self) -> Now:
        now = self._source()
        last, self._last = self._last, now
        if last and self.heard_at:
            step = (now.wall - last.wall).total_seconds() - now.since(last.mono_ns)
            if abs(step) > SMALL_S:
                log.warning("the computer's clock was set by %+.0f s; the CSMS's time goes on", step)
                self.offset_s -= step
        return Now(now.mono_ns, now.wall + timedelta(seconds=self.offset_s))

    def heard(self, text: str, round_trip_s: float, use: bool) -> bool:
        """The CSMS told its time in an answer. ``use``: TimeSource names it first. False for a time that cannot be."""
        try:
            told = parse_time(text)
        except ValueError:
            return False
        if told.year not in YEARS:
            return False
        now = self._source()
        self.difference_s = (told - now.wall).total_seconds() + min(round_trip_s, 60.0) / 2
        if not use:
            return True
        self.heard_at = now
        if abs(self.difference_s - self.offset_s) > SMALL_S + round_trip_s / 2:
            before = self.offset_s
            self.offset_s = self.difference_s if abs(self.difference_s) > SMALL_S else 0.0
            log.warning("the CSMS's time is %+.0f s from the computer's: it is used", self.difference_s)
            self.on_change(before, self.offset_s)
        return True
