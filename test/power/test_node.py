"""The power node with rack and safety controller as real processes, against a plain target."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from robot_charger.power.output import Mode

if TYPE_CHECKING:
    from .conftest import Station

pytestmark = pytest.mark.integration


def _is_off(station: Station) -> bool:
    s = station.state
    return not s.contactors_closed and not s.contactors_requested and abs(s.current_a) < 5.0


def test_charges_and_ends_in_order(station: Station) -> None:
    station.charge(100.0)
    assert station.state.modules_active == 46
    station.until(lambda: station.newest["power/meter"].import_wh > 5.0)
    station.allow(0)
    station.until(lambda: station.state.mode == Mode.DISCHARGE)
    assert _is_off(station)
    station.vehicle.signals["contactor"] = False
    station.until(lambda: station.state.mode == Mode.OFF and station.state.voltage_v < 60.0)
    order = [Mode.OFF, Mode.INSULATION_TEST, Mode.OFF, Mode.PRECHARGE, Mode.TRANSFER]
    assert station.modes == [*order, Mode.RAMP_DOWN, Mode.DISCHARGE, Mode.OFF]
    station.until(lambda: abs(station.newest["power/meter"].import_wh - station.vehicle.rack["energy_in_wh"]) < 0.05)
    told = station.cli.signals("rack")
    assert told["module_energy_wh"]["1"] == pytest.approx(station.newest["power/meter"].import_wh, rel=0.01)
    assert not station.codes()
