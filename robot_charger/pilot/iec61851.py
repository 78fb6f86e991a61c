"""Constants of IEC 61851-1 annex A and ISO 15118-3 for the control pilot, and duty cycle <-> current.

Every number of the standard that the pilot uses stands here with its clause, and nowhere else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum


class State(IntEnum):
    """States of the control pilot, numbered as in msg/PilotState.msg."""

    UNKNOWN = 0
    A = 1
    B = 2
    C = 3
    D = 4
    E = 5
    F = 6
    FAULT = 7


class Mode(IntEnum):
    """What the generator puts on the wire, numbered as in msg/PilotCommand.msg."""

    OFF = 0
    STEADY = 1
    PWM = 2
    F = 3
    PULSE_E = 4
    PULSE_F = 5


@dataclass(frozen=True)
class Band:
    """Levels that the station takes for one state [V]."""

    state: State
    low_v: float
    high_v: float

    def holds(self, level_v: float, margin_v: float = 0.0) -> bool:
        return self.low_v - margin_v <= level_v <= self.high_v + margin_v


# Positive peak as the station measures it, IEC 61851-1 table A.4 (nominal 12, 9, 6, 3, 0 V, accepted
# +-1 V). What lies between two bands is no state.
BANDS: tuple[Band, ...] = (
    Band(State.A, 11.0, 13.0),
    Band(State.B, 8.0, 10.0),
    Band(State.C, 5.0, 7.0),
    Band(State.D, 2.0, 4.0),
    Band(State.E, -1.0, 1.0),
)
BAND_F = Band(State.F, -13.0, -11.0)  # both peaks, table A.4
HYSTERESIS_V = 0.3  # a state once taken is held this far beyond its band; ours, within the guard band of 1 V

# Generator, table A.2: +-12 V +-5 %, 1 kohm +-3 %, 1 kHz (980 to 1020 Hz accepted), 5 % is 4.5 to 5.5 %.
GENERATOR_V = 12.0
GENERATOR_TOLERANCE_V = 0.6
SOURCE_OHM = 1000.0
FREQUENCY_HZ = 1000.0
FREQUENCY_TOLERANCE_HZ = 20.0
DUTY_TOLERANCE = 0.005

# Reaction times [s]: IEC 61851-1 table A.6 by sequence number, ISO 15118-3 by name.
TIMES: dict[str, tuple[float, str]] = {
    "power_off_after_leaving_c_d": (0.100, "table A.6 seq. 8.1 and unplugging: supply open within 100 ms"),
    "filter_leaving_c_d": (0.007, "of which the pilot spends at most 50 ms; ours three samples in 8 ms"),
    "filter_state": (0.020, "any other change of state: two of three samples are not enough, 20 ms are"),
    "filter_fault": (0.040, "a level outside every band, longer than an edge of the oscillator"),
    "power_on_after_c_d": (3.0, "table A.6 seq. 4: supply on at most 3 s after B2 to C2"),
    "open_under_load_after_pwm_off": (6.0, "table A.6 seq. 10.2: not before 6 s after PWM stopped"),
    "duty_change": (5.0, "table A.6 seq. 6: the vehicle follows within 5 s, so no change more often"),
    "step_x1": (3.0, "ISO 15118-3 T_step_X1: x1 before a wake-up"),
    "step_ef": (4.0, "ISO 15118-3 T_step_EF: least length of state E or F in a step"),
}


def time_s(name: str) -> float:
    """A reaction time of the table [s]."""
    return TIMES[name][0]


# Duty cycle, IEC 61851-1 tables A.7 (station) and A.8 (vehicle); shares, not per cent.
DIGITAL_DUTY = 0.05
DIGITAL_MIN, DIGITAL_MAX = 0.03, 0.07
EMIT_MIN, EMIT_MAX = 0.10, 0.96  # the edges beyond are read differently by SAE J1772: never emitted
_KNEE = 0.85
_EPSILON = 1e-9


def is_digital(duty: float) -> bool:
    """True when a duty (0 to 1) demands digital communication: 3 to 7 %, table A.8."""
    return DIGITAL_MIN - _EPSILON <= duty <= DIGITAL_MAX + _EPSILON


def duty_to_current(duty: float) -> float:
    """Greatest current [A] that a vehicle may draw at a duty (0 to 1), table A.8. 0 = none, or digital."""
    percent = duty * 100.0
    if percent < 8.0 - 1e-7 or percent > 97.0 + 1e-7:
        return 0.0
    if percent < 10.0 - 1e-7:
        return 6.0
    if percent <= 85.0 + 1e-7:
        return percent * 0.6
    return min(80.0, (percent - 64.0) * 2.5)


def current_to_duty(current_a: float) -> float:
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


def duty_may_be_emitted(duty: float) -> bool:
    """True for 5 % +-0.5 % and for 10 to 96 %: what a station puts on the wire, table A.7."""
    if abs(duty - DIGITAL_DUTY) <= DUTY_TOLERANCE + _EPSILON:
        return True
    return EMIT_MIN - _EPSILON <= duty <= EMIT_MAX + _EPSILON
