"""The charge permit as an interval: what power may do at most, from the purpose and everyone's ceilings.

A ceiling that is not a number is the strictest one: zero (and for an export: none).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from robot_charger.supervisor.model import Commands
from robot_charger.words.values import ChargePermit, Purpose

TEST_CURRENT_A = 2.0  # IEC 61851-23:2023 CC.5.2 and cable check: no more than this
PRECHARGE_CURRENT_A = 2.0


@dataclass(frozen=True)
class Ceilings:
    """What each party bears at most. Infinite = no limit, zero = nothing. Currents [A], powers [W], voltages [V]."""

    supply_voltage_v: float = 0.0
    supply_current_a: float = 0.0
    supply_power_w: float = 0.0
    export_current_a: float = 0.0
    export_power_w: float = 0.0
    vehicle_voltage_v: float = math.inf
    backend_current_a: float = math.inf
    backend_power_w: float = math.inf
    backend_min_power_w: float = 0.0
    cable_current_a: float = 0.0
    discharge: bool = False  # negotiated with the vehicle and allowed by the grid side

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if math.isnan(value):
                object.__setattr__(self, name, 0.0)


def offer(c: Ceilings) -> float:
    """Plain AC: the current per phase that every ceiling allows, in steps of 0.1 A. 0 = none."""
    if c.supply_power_w <= 0.0:
        return 0.0
    by_power_a = c.backend_power_w * c.supply_current_a / c.supply_power_w  # the outlet's phases and voltage in one
    least_a = min(c.supply_current_a, c.backend_current_a, c.cable_current_a, by_power_a)
    return max(0.0, math.floor(least_a * 10.0 + 1e-6) / 10.0)


def permit(commands: Commands, c: Ceilings) -> ChargePermit:
    """Compose the permit, without number, stamp and session. A purpose of NONE permits nothing."""
    if commands.purpose == Purpose.NONE:
        return ChargePermit(abrupt=commands.abrupt)
    power = min(c.supply_power_w, c.backend_power_w)
    if commands.purpose == Purpose.INSULATION_TEST:  # the test voltage lies above the vehicle's maximum
        return ChargePermit(
            purpose=commands.purpose,
            max_voltage_v=c.supply_voltage_v,
            max_current_a=TEST_CURRENT_A,
            max_power_w=TEST_CURRENT_A * c.supply_voltage_v,
        )
    voltage = min(c.supply_voltage_v, c.vehicle_voltage_v)
    if commands.purpose == Purpose.PRECHARGE:
        current = PRECHARGE_CURRENT_A
        return ChargePermit(
            purpose=commands.purpose, max_voltage_v=voltage, max_current_a=current, max_power_w=current * voltage
        )
    export_power = min(c.export_power_w, max(0.0, -c.backend_min_power_w)) if c.discharge else 0.0
    return ChargePermit(
        purpose=commands.purpose,
        max_voltage_v=voltage,
        min_current_a=-min(c.export_current_a, c.cable_current_a) if export_power > 0 else 0.0,
        max_current_a=max(0.0, min(c.supply_current_a, c.backend_current_a, c.cable_current_a)),
        min_power_w=-export_power,
        max_power_w=max(0.0, power),
    )


class Numbered:
    """Counts up with every change of content, never backwards over a restart."""

    def __init__(self, start: int) -> None:
        self.number = start
        self._content: object = None

    def take(self, content: object) -> tuple[int, bool]:
        """Number of this content, and whether it is new."""
        if content == self._content:
            return self.number, False
        self._content = content
        self.number += 1
        return self.number, True
