"""Constants of IEC 61851-1 annex A and ISO 15118-3 for the control pilot.

Every number of the standard that the pilot uses stands here with its clause; duty and current are in common.duty_cycle.
"""

from __future__ import annotations

from dataclasses import dataclass

from robot_charger.words.values import Pilot as State


@dataclass(frozen=True)
class Band:
    """Levels that the station takes for one state [V]."""

    state: State
    low_v: float
    high_v: float

    def holds(self, level_v: float, margin_v: float = 0.0) -> bool:
        return self.low_v - margin_v <= level_v <= self.high_v + margin_v


# Positive peak as the station measures it, IEC 61851-1 table A.4 (nominal 12, 9, 6, 3, 0 V, accepted +-1 V). The bands
# meet in the middle: worst-case parts and PLC under a peak detector make 10.2 V of state B, and ringing 7.1 V of C.
BANDS: tuple[Band, ...] = (
    Band(State.A, 10.5, 13.0),
    Band(State.B, 7.5, 10.5),
    Band(State.C, 4.5, 7.5),
    Band(State.D, 1.5, 4.5),
    Band(State.E, -1.0, 1.5),
)
BAND_F = Band(State.F, -13.0, -11.0)  # both peaks, table A.4
HYSTERESIS_V = 0.3  # a state once taken is held this far beyond its band; ours, within the guard band of 1 V

# Generator, table A.2: +-12 V +-5 %, 1 kohm +-3 %, 1 kHz (980 to 1020 Hz accepted).
GENERATOR_V = 12.0
GENERATOR_TOLERANCE_V = 0.6
SOURCE_OHM = 1000.0
FREQUENCY_HZ = 1000.0
FREQUENCY_TOLERANCE_HZ = 20.0

# Reaction times [s]: IEC 61851-1 table A.6 by sequence number, ISO 15118-3 by name.
TIMES: dict[str, tuple[float, str]] = {
    "power_off_after_leaving_c_d": (0.100, "table A.6 seq. 8.1 and unplugging: supply open within 100 ms"),
    "filter_leaving_c_d": (0.007, "of which the pilot spends at most 50 ms; ours three samples in 8 ms"),
    "filter_state": (0.020, "any other change of state: two of three samples are not enough, 20 ms are"),
    "filter_diode": (0.040, "a dip of the negative peak: ringing and PLC last below 15 ms; within seq. 8.1's 100 ms"),
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
