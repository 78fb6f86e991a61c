"""A meter is compared with what the station knows: time, power, and its own last word."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from robot_charger.common.clock import SECOND
from robot_charger.power.meter import Reading
from robot_charger.power.plausible import Plausible

KW = 100e3


class Meter:
    """A meter that counts truly, and a station that measures the same; ``lie`` changes what it shows."""

    def __init__(self, start_wh: float = 5000.0, wrap_wh: float = 0.0) -> None:
        self.plausible = Plausible(150e3, wrap_wh)
        self.now, self.wh, self.out_wh, self.wrap_wh = 10**12, start_wh, 0.0, wrap_wh

    def run(self, seconds: int, power_w: float = KW, share: float = 1.0, **lie: object) -> tuple[Reading | None, str]:
        result: tuple[Reading | None, str] = (None, "not run")
        for _ in range(seconds):
            self.now += SECOND
            self.wh += max(power_w, 0.0) * share / 3600.0
            self.out_wh += max(-power_w, 0.0) * share / 3600.0
            shown = self.wh % self.wrap_wh if self.wrap_wh else self.wh
            reading = Reading(self.now, "7", shown, self.out_wh, 400.0, power_w / 400.0, power_w)
            result = self.plausible.judge(replace(reading, **lie), power_w)
        return result


@pytest.mark.parametrize("power_w", [0.0, 3e3, KW, -KW])
@pytest.mark.parametrize("share", [0.97, 1.0, 1.03])
def test_a_true_meter_is_believed_for_hours(power_w: float, share: float) -> None:
    meter = Meter()
    meter.run(1, 0.0)
    reading, text = meter.run(3 * 3600, power_w, share)
    assert not text and reading is not None
    assert reading.import_wh == pytest.approx(meter.wh) and reading.export_wh == pytest.approx(meter.out_wh)


@pytest.mark.parametrize(
    ("lie", "what"),
    [
        ({"import_wh": 4000.0}, "fell"), ({"import_wh": 0.0}, "fell"), ({"import_wh": 1e9}, "jumped"),
        ({"import_wh": math.nan}, "nan"), ({"import_wh": -1.0}, "-1"), ({"import_wh": math.inf}, "inf"),
        ({"export_wh": 1e6}, "jumped"), ({"export_wh": math.nan}, "nan"),
    ],
)  # fmt: skip
def test_a_register_that_cannot_be_true(lie: dict[str, float], what: str) -> None:
    meter = Meter()
    good, _ = meter.run(60)
    reading, text = meter.run(1, KW, 1.0, **lie)
    assert reading is None and what in text
    reading, text = meter.run(1)
    assert reading is not None and good is not None and reading.import_wh >= good.import_wh


def test_a_register_that_stands_still_while_current_flows() -> None:
    meter = Meter()
    meter.run(60)
    good, _ = meter.run(1, 0.0)
    assert good is not None
    results = [meter.run(1, KW, 0.0) for _ in range(10)]
    assert results[-1][0] is None and "0 Wh where" not in results[0][1] and "flowed" in results[-1][1]


@pytest.mark.parametrize(("share", "believed"), [(0.85, False), (1.15, False), (0.93, True), (1.07, True)])
def test_its_class(share: float, believed: bool) -> None:
    meter = Meter()
    meter.run(1, 0.0)
    reading, _ = meter.run(600, KW, share)
    assert (reading is not None) == believed


def test_a_register_wraps_at_its_width() -> None:
    meter = Meter(99_900.0, wrap_wh=100_000.0)
    meter.run(1, 0.0)
    reading, text = meter.run(600)
    assert not text and reading is not None and reading.import_wh == pytest.approx(meter.wh)
    plain = Meter(99_900.0)
    plain.wrap_wh = 100_000.0
    plain.run(1, 0.0)
    assert plain.run(600)[0] is None


def test_another_meter_begins_anew() -> None:
    meter = Meter()
    meter.run(60)
    reading, text = meter.run(1, KW, 1.0, serial="8", import_wh=3.0)
    assert not text and reading is not None and reading.import_wh == 3.0


def test_after_a_gap_the_comparison_begins_again_within_what_is_possible() -> None:
    meter = Meter()
    meter.run(60)
    meter.now += 60 * SECOND
    meter.wh += KW * 60 / 3600.0
    assert not meter.run(1)[1]
    meter.now += 60 * SECOND
    meter.wh += 10 * KW * 60 / 3600.0
    assert "jumped" in meter.run(1)[1]


def test_a_meter_that_was_wrong_is_believed_again_when_nothing_flows() -> None:
    meter = Meter()
    meter.run(60)
    assert meter.run(20, KW, 0.0)[0] is None
    assert meter.run(9, 0.0)[0] is None
    assert meter.run(3, 0.0)[0] is not None
    assert meter.run(600)[0] is not None
