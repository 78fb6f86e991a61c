"""Every time and level of the GB/T 27930 sequence in one table, with its source. Contested ones are parameters.

Periods of the messages stand with them, in ``frames.TABLE``. Sources: XGB, GB11 and DD are charger codes, TY a vehicle
code (docs/gbt.md names them); memory = from the field, no source read; ours = decided here.
"""

from __future__ import annotations

from dataclasses import dataclass

# Name: (value, unit, source).
LIMITS: dict[str, tuple[float, str, str]] = {
    "lock": (2.0, "s", "ours: CC1 at 4 V and the lock's feedback"),
    "bhm": (5.0, "s", "XGB, DD: no BHM, a vehicle of 2011"),
    "insulation": (40.0, "s", "ours: test and discharge; a recorded charger took 16 s"),
    "brm": (5.0, "s", "XGB, DD, GB11: from the first CRM 00"),
    "brm_2011": (20.0, "s", "DD: a vehicle without BHM; XGB and GB11 5 s"),
    "bcp": (5.0, "s", "XGB, DD, GB11: from BRM"),
    "bro": (5.0, "s", "XGB, DD: from BCP to the first BRO, and between two"),
    "bro_ready": (60.0, "s", "XGB, DD, GB11: from BCP to BRO AA"),
    "voltage": (10.0, "s", "DD: CRO 00 for a battery that shows no voltage yet, then CRO AA all the same"),
    "late_voltage": (60.0, "s", "DD: from BRO AA to the battery's voltage"),
    "mismatch": (2.0, "s", "ours: a voltage that is not the battery's, or reversed"),
    "precharge": (10.0, "s", "ours: the supply at the battery's voltage"),
    "first_bcl": (5.0, "s", "contested: DD 5 s, XGB 1 s from the first CRO AA"),
    "bcl": (1.0, "s", "XGB, DD, GB11"),
    "bcs": (5.0, "s", "XGB, DD, GB11"),
    "pause": (600.0, "s", "DD: a pause by BSM"),
    "beyond": (1.0, "s", "ours: cell voltage or temperature above BCP's; XGB and DD at once"),
    "bst": (5.0, "s", "XGB, DD, GB11: from the first CST"),
    "bsd": (10.0, "s", "XGB, DD: from BST; GB11 5 s"),
    "statistics": (2.5, "s", "XGB: ten CSD; GB11 twenty; a recorded charger four"),
    "current_zero": (1.0, "s", "ours: then the auxiliary supply goes off all the same"),
    "error": (5.0, "s", "XGB, DD: CEM before the next try"),
    "error_heard": (1.0, "s", "ours: BEM that a restarted vehicle still had on its way"),
    "settled": (60.0, "s", "ours: so long in the charge the count of restarts is cleared; XGB and DD at once"),
    "unlock": (2.0, "s", "ours: lock feedback, then a lock fault"),
    "welded": (10.0, "s", "ours: from the auxiliary supply off to a dead connector"),
    "not_welded_v": (10.0, "V", "memory (GB/T 18487.1): output before the insulation test"),
    "dead_v": (60.0, "V", "IEC 61851-23: touch-safe; memory: GB/T 18487.1 unlocks below it"),
    "battery_there_v": (60.0, "V", "ours: the vehicle's contactors are closed"),
    "reversed_v": (-10.0, "V", "ours: plus and minus exchanged"),
    "small_a": (5.0, "A", "memory (GB/T 18487.1): contactors may open at or below"),
    "request_window": (2.0, "s", "ours: over which BCL are counted"),
    "requests_in_window": (60, "1", "ours: 40 are one vehicle's; more are two, or a replay"),
    # CC1 against PE with 12 V behind 1 kohm: 6 V pressed latch or no plug, 4 V a plug that is all in.
    "cc1_low_v": (3.2, "V", "memory (GB/T 18487.1): 4 V, -0.8 V"),
    "cc1_high_v": (4.8, "V", "memory (GB/T 18487.1): 4 V, +0.8 V"),
}


def limit(name: str) -> float:
    """A row of the table."""
    return LIMITS[name][0]


def plugged(cc1_v: float) -> bool:
    """The level of CC1 says that the connector is all in and its latch closed [V]."""
    return limit("cc1_low_v") <= cc1_v <= limit("cc1_high_v")


@dataclass(frozen=True)
class Settings:
    """What the charger is and how it reads the contested points."""

    max_voltage_v: float = 750.0  # rating of cable and connector
    min_voltage_v: float = 200.0
    max_current_a: float = 250.0  # the same
    voltage_2011_v: float = 500.0  # insulation test of a vehicle that names no voltage before it
    battery_tolerance: float = 0.05  # of BCP's voltage to the measured one
    first_bcl_s: float = 5.0
    brm_2011_s: float = 20.0
    restarts: int = 3
    restart_in_charge: bool = True
    slew_a_per_s: float = 50.0  # fastest rise of the request that is followed
    charger_number: int = 1
    area_code: str = ""
