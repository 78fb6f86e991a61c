"""A station of power node, simulated rack and safety controller for each test that asks for one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from power_station import Station


@pytest.fixture
def station(sim_directory: Path) -> Iterator[Station]:
    """46 modules, one EVSE, a vehicle of 360 V."""
    it = Station(sim_directory)
    yield it
    it.close()
