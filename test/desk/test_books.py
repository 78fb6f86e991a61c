"""The demo's own arithmetic: the books agree only when all four tell the same energy."""

from __future__ import annotations

import pytest

from robot_charger.desk.rehearsal import compare
from robot_charger.sim.csms.books import Entry


def delta(meter=1000.0, modules=1000.0, battery=1000.0, out=0.0) -> dict[str, float]:
    return {
        "meter_in": meter, "meter_out": out, "modules": modules - out, "battery_in": battery, "battery_out": out
    }  # fmt: skip


def entry(start=5000.0, stop=6000.0, **more) -> Entry:
    return Entry("t1", "2.0.1", 1, meter_start_wh=start, meter_stop_wh=stop, stopped="2026-01-01T00:00:00Z", **more)


def test_equal_books_agree():
    books = compare(delta(), entry())
    assert books == {
        "agree": True, "meter_wh": 1000.0, "modules_wh": 1000.0, "battery_wh": 1000.0, "billed_wh": 1000.0
    }  # fmt: skip


@pytest.mark.parametrize(
    "seen, billed",
    [
        (delta(modules=1020.0), entry()),
        (delta(battery=985.0), entry()),
        (delta(), entry(stop=6020.0)),
        (delta(), None),
        (delta(), entry(stop=None)),
    ],
    ids=["modules", "battery", "bill", "no transaction", "never ended"],
)
def test_one_that_differs_by_more_than_a_hundredth_disagrees(seen, billed):
    assert not compare(seen, billed)["agree"]


def test_nothing_delivered_and_nothing_billed_agree():
    assert compare(delta(0.0, 0.0, 0.0), None)["agree"]


def test_exported_energy_is_booked_with_its_sign():
    export = entry(start=5000.0, stop=5000.0, meter_export_start_wh=100.0, meter_export_stop_wh=400.0)
    books = compare(delta(meter=0.0, modules=0.0, battery=0.0, out=300.0), export)
    assert books["agree"] and books["billed_wh"] == -300.0
