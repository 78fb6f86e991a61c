"""Whether a meter's registers can be true: they never fall, and rise as the power that the station itself measures.

What is not plausible is not published as valid: the bill ends at the last good register (fault METER).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from robot_charger.common.clock import SECOND
from robot_charger.power.meter import Reading

CLASS = 0.10  # of the energy: the meter's class, the measuring board's and the times of both readings
SLACK_WH = 20.0  # resolution and what flows between two readings
WINDOW_WH = 2000.0  # after so much in agreement the comparison begins again
LONGEST_S = 10.0  # between two readings, or without power: the comparison begins again after so long
IDLE_W = 50.0


@dataclass
class Register:
    """One direction of one meter, in Wh."""

    wrap_wh: float = 0.0  # the register begins again at zero after so much; 0: it does not
    good_wh: float = math.nan
    turns_wh: float = 0.0  # what went by before it began again

    def follow(self, raw_wh: float, most_wh: float) -> tuple[float, str]:
        """The register without its wraps, and what is wrong; it may have risen by ``most_wh`` at most."""
        if not math.isfinite(raw_wh) or raw_wh < 0.0:
            return self.good_wh, f"register of {raw_wh} Wh"
        now_wh = raw_wh + self.turns_wh
        if math.isnan(self.good_wh):
            self.good_wh = now_wh
        wrapped = now_wh + self.wrap_wh
        if now_wh < self.good_wh and self.wrap_wh and wrapped - self.good_wh <= most_wh:
            self.turns_wh += self.wrap_wh
            now_wh = wrapped
        if now_wh < self.good_wh:
            return self.good_wh, f"register fell from {self.good_wh:.0f} to {now_wh:.0f} Wh"
        if now_wh - self.good_wh > most_wh:
            return self.good_wh, f"register jumped from {self.good_wh:.0f} to {now_wh:.0f} Wh"
        self.good_wh = now_wh
        return now_wh, ""


@dataclass
class Plausible:
    """Judges the readings of one meter, in order. ``max_power_w``: no station of this size gives more."""

    max_power_w: float
    wrap_wh: float = 0.0
    serial: str = ""
    _in: Register = field(default_factory=Register)
    _out: Register = field(default_factory=Register)
    _last_ns: int = 0
    _last_w: float = 0.0
    _expected_wh: float = 0.0
    _begin_wh: float = math.nan
    _idle_s: float = 0.0

    def __post_init__(self) -> None:
        self._in.wrap_wh = self._out.wrap_wh = self.wrap_wh

    def judge(self, reading: Reading, power_w: float) -> tuple[Reading | None, str]:
        """The reading to publish, or None and why it cannot be true. ``power_w``: what the station measures now,
        positive into the vehicle. Another meter's serial number begins anew."""
        if self.serial and reading.serial != self.serial:
            self.__init__(self.max_power_w, self.wrap_wh)  # type: ignore[misc]
        self.serial = reading.serial
        gap_s = (reading.stamp_ns - self._last_ns) / SECOND if self._last_ns else 0.0
        power_w = power_w if math.isfinite(power_w) else 0.0
        most_wh = self.max_power_w * max(gap_s, 0.0) / 3600.0 * (1.0 + CLASS) + SLACK_WH
        imported, wrong_in = self._in.follow(reading.import_wh, most_wh)
        exported, wrong_out = self._out.follow(reading.export_wh, most_wh)
        if wrong_in or wrong_out:
            return None, f"meter {reading.serial}: {wrong_in or wrong_out}"
        moved_wh = imported + exported
        self._idle_s = self._idle_s + gap_s if max(abs(power_w), abs(self._last_w)) < IDLE_W else 0.0
        if math.isnan(self._begin_wh) or max(gap_s, self._idle_s) > LONGEST_S:
            self._begin_wh, self._expected_wh = moved_wh, 0.0
        else:
            self._expected_wh += (abs(power_w) + abs(self._last_w)) / 2.0 * gap_s / 3600.0
        self._last_ns, self._last_w = reading.stamp_ns, power_w
        counted_wh = moved_wh - self._begin_wh
        if abs(counted_wh - self._expected_wh) > CLASS * max(counted_wh, self._expected_wh) + SLACK_WH:
            text = f"counted {counted_wh:.0f} Wh where {self._expected_wh:.0f} Wh flowed"
            return None, f"meter {reading.serial}: {text}"
        if counted_wh > WINDOW_WH:
            self._begin_wh, self._expected_wh = moved_wh, 0.0
        return replace(reading, import_wh=imported, export_wh=exported), ""
