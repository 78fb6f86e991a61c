"""Parameters of the gbt node."""

from __future__ import annotations

from dataclasses import dataclass

from robot_charger.common.parameters import parameter
from robot_charger.gbt.drivers.lines import Wiring
from robot_charger.gbt.timing import Settings


@dataclass(frozen=True)
class GbtParameters:
    bus: str = parameter("", "CAN bus of the connector, e.g. socketcan:can1 at 250 kbit/s; empty: no GB/T connector")
    realtime: bool = parameter(True, "run the node under SCHED_FIFO where the system allows")
    driver: str = parameter("simulated", "hard wires CC1, auxiliary supply and lock", choices=("simulated", "gpiod"))
    lines__auxiliary: str = parameter("", "gpiod: line of K3 and K4, e.g. gpiochip0:17, with ! when low means on")
    lines__lock: str = parameter("", "gpiod: line of the electronic lock")
    lines__plugged: str = parameter("", "gpiod: line of the comparator that is on while CC1 has 3.2 to 4.8 V")
    lines__lock_feedback: str = parameter("", "gpiod: line of the lock's feedback")
    max_current_a: float = parameter(250.0, "rating of cable and connector", unit="A", low=1.0, high=400.0)
    max_voltage_v: float = parameter(750.0, "rating of cable and connector", unit="V", low=50.0, high=1000.0)
    min_voltage_v: float = parameter(200.0, "lowest battery voltage served", unit="V", low=50.0, high=1000.0)
    voltage_2011_v: float = parameter(
        500.0,
        "insulation test of a vehicle of 2011, which names no voltage before it",
        unit="V",
        low=200.0,
        high=1000.0,
    )
    battery_tolerance: float = parameter(
        0.05, "share by which the measured voltage may differ from the one in BCP", low=0.01, high=0.2
    )
    first_bcl_s: float = parameter(5.0, "longest wait for the first BCL after CRO AA", unit="s", low=1.0, high=10.0)
    brm_2011_s: float = parameter(20.0, "longest wait for BRM of a vehicle of 2011", unit="s", low=5.0, high=60.0)
    restarts: int = parameter(3, "how often a time-out begins the handshake again", low=0, high=3)
    restart_in_charge: bool = parameter(
        True, "a silence in the charge begins the handshake again, with a new insulation test"
    )
    request_slew_a_per_s: float = parameter(
        50.0, "fastest rise of the request that is followed", unit="A/s", low=5.0, high=1000.0
    )
    charger_number: int = parameter(1, "number of the charger in CRM and CSD", low=0, high=0xFFFF_FFFF)
    area_code: str = parameter("", "area code in CRM, three characters")
    privacy__publish_identity: bool = parameter(False, "tell the vehicle's VIN in vehicle/link", unsafe=True)

    def wiring(self) -> Wiring:
        return Wiring(self.lines__auxiliary, self.lines__lock, self.lines__plugged, self.lines__lock_feedback)

    def settings(self) -> Settings:
        return Settings(
            max_voltage_v=self.max_voltage_v,
            min_voltage_v=self.min_voltage_v,
            max_current_a=self.max_current_a,
            voltage_2011_v=self.voltage_2011_v,
            battery_tolerance=self.battery_tolerance,
            first_bcl_s=self.first_bcl_s,
            brm_2011_s=self.brm_2011_s,
            restarts=self.restarts,
            restart_in_charge=self.restart_in_charge,
            slew_a_per_s=self.request_slew_a_per_s,
            charger_number=self.charger_number,
            area_code="".join(c for c in self.area_code if " " < c < "\x7f")[:3],
        )
