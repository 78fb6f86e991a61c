"""What the temperatures of contact pins, cable and coolant leave of an output's current, and when they end it."""

from __future__ import annotations

from robot_charger.power.codec import OutputMeasurement
from robot_charger.power.parameters import PowerParameters

COLDEST_C, HOTTEST_C = -45.0, 180.0  # no contact, cable or coolant is colder or hotter: the sensor is dead
SENSOR_S = 1.0  # so long a temperature sensor may show what cannot be
BLIND = 0.5  # of the cable's rating that is left without one
COOL_S = 20.0  # what heat took from the current returns so slowly: temperatures come in whole degrees
HEAT_S = 0.5


class Heat:
    """Of one output. ``share`` is what is left of the cable's rating, 0 to 1."""

    def __init__(self, parameters: PowerParameters) -> None:
        self.parameters = parameters
        self.share = 1.0
        self._blind_s = 0.0  # how long a sensor has shown what cannot be

    def follow(self, elapsed_s: float, measured: OutputMeasurement) -> None:
        """The current falls with the temperature and returns slowly; a dead sensor halves it."""
        p = self.parameters
        low, high = p.temperature__derate_c, p.temperature__stop_c
        contacts = (high - hottest(measured)) / (high - low)
        low, high = p.temperature__coolant_derate_c, p.temperature__coolant_stop_c
        coolant = (high - _known(measured.coolant_c)) / (high - low)
        allowed = max(0.0, min(1.0, contacts, coolant))
        self._blind_s = 0.0 if _plausible(measured) else self._blind_s + elapsed_s
        if self._blind_s > SENSOR_S:
            allowed = min(allowed, BLIND)
        slowness_s = HEAT_S if allowed < self.share else COOL_S
        self.share += (allowed - self.share) * min(1.0, elapsed_s / slowness_s)

    def ends(self, measured: OutputMeasurement) -> str:
        """Why the output must stop now, empty while it may go on."""
        p = self.parameters
        if hottest(measured) >= p.temperature__stop_c:
            return f"contact pins or cable at {hottest(measured):.0f} deg C"
        if _known(measured.coolant_c) >= p.temperature__coolant_stop_c:
            return f"coolant of the cable at {measured.coolant_c:.0f} deg C"
        if self._blind_s > SENSOR_S + p.sensor_wait_s:
            return "a temperature sensor of contact pins, cable or coolant is dead"
        return ""


def hottest(measured: OutputMeasurement) -> float:
    """Hottest of contact pins and cable [deg C]; what no contact can be does not count."""
    return max(_known(c) for c in (measured.positive_c, measured.negative_c, measured.cable_c))


def _known(celsius: float) -> float:
    return celsius if COLDEST_C < celsius < HOTTEST_C else COLDEST_C


def _plausible(measured: OutputMeasurement) -> bool:
    """Whether every temperature can be: an open sensor shows the lowest value, a shorted one the highest."""
    values = (measured.positive_c, measured.negative_c, measured.cable_c, measured.coolant_c)
    return all(COLDEST_C < value < HOTTEST_C for value in values)
