"""Every time and level of the CHAdeMO sequence in one table, with its source. Contested ones are parameters."""

from __future__ import annotations

from dataclasses import dataclass

# Name: (value, unit, source).
LIMITS: dict[str, tuple[float, str, str]] = {
    "period": (0.1, "s", "all sources: 100 ms +-10 ms, 0x108 before 0x109"),
    "permission": (8.0, "s", "1 source: from d1 to switch k and 102.5.0"),
    "wire_skew": (0.5, "s", "1 source: k opened and 102.5.0 stays; at the begin there is time until ``permission``"),
    "k_before_can": (0.2, "s", "1 source: k before the first vehicle frame is a fault; ours, two frames"),
    "lock": (1.0, "s", "ours: solenoid feedback"),
    "insulation": (20.0, "s", "1 source: d2 at most 20 s after k; ours covers test and discharge"),
    "contactor": (4.0, "s", "1 source: the vehicle closes at most 4 s after d2"),
    "contactor_protocol_1": (2.0, "s", "2 sources: no flag in 0.9, voltage or 2 s"),
    "request": (4.0, "s", "1 source: first request above 0 A after the contactor closed"),
    "charging_flag": (0.5, "s", "2 sources: 109.5.0 = 1 and 109.5.5 = 0 after the first request"),
    "supply_ready": (5.0, "s", "ours: below the 5 s after which a vehicle calls it current deviation"),
    "current_zero": (0.5, "s", "4 sources: at most 5 A so long after k opened"),
    "vehicle_gives_up": (2.5, "s", "1 source: the vehicle opens under load after that"),
    "welding_check": (10.0, "s", "1 source: 102.5.3 at the latest (4 s is normal)"),
    "hold_protocol_1": (4.0, "s", "1 source: 0.9 vehicles need supply of d1, d2 for that"),
    "d2_to_d1": (0.5, "s", "3 sources: at least, between d2 off and d1 off"),
    "speak_after_end": (0.4, "s", "measured: the station falls silent 0.4 s after the vehicle"),
    "unlock": (2.0, "s", "ours: solenoid feedback, then a lock fault"),
    "undersupply": (2.0, "s", "ours: below the 5 s after which a vehicle calls it current deviation"),
    "hold_lowered": (30.0, "s", "ours: a current lowered for want of supply stays so, lest it swing"),
    "not_welded_v": (10.0, "V", "2 sources: output before the insulation test"),
    "before_d2_v": (20.0, "V", "3 sources: output before d2"),
    "contactor_closed_v": (50.0, "V", "1 source: the station sees the vehicle's contactor closed"),
    "unlock_v": (10.0, "V", "3 sources: unlock only at or below"),
    "small_a": (5.0, "A", "4 sources: contactors may open at or below"),
    "deviation_a": (10.0, "A", "2 sources: vehicles call 10 A for 5 s a current deviation"),
    "early_frame": (0.04, "s", "ours, counted only: most vehicles send each 97 to 102 ms, recorded 41 to 225 ms"),
    "frames_per_second": (60, "1", "ours: recorded 24; more are a flood, not a vehicle"),
    "contradictions": (4, "1", "ours: so often in a second frames of 0x102 took turns with another content"),
    "threshold_margin_v": (2.0, "V", "ours: error of the measurement, for vehicles whose target is their maximum"),
    "v2x_minutes": (5, "min", "1 recording: 0x209 while the vehicle leaves 0x201 empty"),
}


def limit(name: str) -> float:
    """A row of the table."""
    return LIMITS[name][0]


@dataclass(frozen=True)
class Settings:
    """What the station is and how it reads the contested points."""

    protocol: int = 3  # own number: 1 = 0.9, 2 = 1.x, 3 = 2.0
    v2x: bool = False
    dynamic_control: bool = True
    high_current: bool = False
    can_loss_s: float = 1.0
    request_slew_a_per_s: float = 25.0
    locked_flag_before_test: bool = True
    stop_on_excess_request: bool = False
    capacity_unit_kwh: float = 0.1
    max_current_a: float = 125.0  # rating of cable and connector
    min_voltage_v: float = 50.0
    max_voltage_v: float = 500.0  # the same
    maker: int = 0
