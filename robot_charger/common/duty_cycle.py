"""Duty cycle of the control pilot and current: IEC 61851-1 tables A.7 (station) and A.8 (vehicle). Duties 0 to 1."""

from __future__ import annotations

import math

DIGITAL_DUTY = 0.05  # "digital communication required"
TOLERANCE = 0.005  # of the duty on the wire, table A.2
DIGITAL_MIN, DIGITAL_MAX = 0.03, 0.07
EMIT_MIN, EMIT_MAX = 0.10, 0.96  # the edges beyond are read differently by SAE J1772: never emitted
_KNEE = 0.85
_EPSILON = 1e-9


def is_digital(duty: float) -> bool:
    """True when a duty (0 to 1) demands digital communication: 3 to 7 %, table A.8."""
    return DIGITAL_MIN - _EPSILON <= duty <= DIGITAL_MAX + _EPSILON


def to_current(duty: float) -> float:
    """Greatest current [A] that a vehicle may draw at a duty (0 to 1), table A.8. 0 = none, or digital."""
    percent = duty * 100.0
    if percent < 8.0 - 1e-7 or percent > 97.0 + 1e-7:
        return 0.0
    if percent < 10.0 - 1e-7:
        return 6.0
    if percent <= 85.0 + 1e-7:
        return percent * 0.6
    return min(80.0, (percent - 64.0) * 2.5)


def from_current(current_a: float) -> float:
    """Duty (0.10 to 0.96) that tells a vehicle at most ``current_a`` (6 to 80 A), table A.7.

    51 A < I < 52.5 A has no duty: it becomes 51 A (85 %). Above 80 A the duty stays 96 %.
    Raises ValueError below 6 A, where the pilot cannot speak: stop the oscillator instead.
    """
    if math.isnan(current_a) or current_a < 6.0 - 1e-9:
        raise ValueError(f"the pilot cannot tell {current_a:g} A: at least 6 A, or steady +12 V for none")
    if current_a <= 51.0:
        return max(EMIT_MIN, current_a / 60.0)
    if current_a <= 52.5:
        return _KNEE
    return min(EMIT_MAX, current_a / 250.0 + 0.64)


def may_be_emitted(duty: float) -> bool:
    """True for 5 % +-0.5 % and for 10 to 96 %: what a station puts on the wire, table A.7."""
    if abs(duty - DIGITAL_DUTY) <= TOLERANCE + _EPSILON:
        return True
    return EMIT_MIN - _EPSILON <= duty <= EMIT_MAX + _EPSILON
