"""Proximity resistor to state and cable rating, per kind of connector.

IEC 61851-1 annex B table B.2 (Type 2 cable), IEC 62196-3 (CCS2: 1500 ohm), SAE J1772 (Type 1 and CCS1: latch
and button).
"""

from __future__ import annotations

from dataclasses import dataclass

from robot_charger.words.values import Proximity


@dataclass(frozen=True)
class PlugBand:
    """Resistances [ohm] that mean one thing; ``current_a`` is the cable's rating, 0 = not coded."""

    low_ohm: float
    high_ohm: float
    meaning: Proximity
    current_a: float = 0.0


OPEN_OHM = 4500.0  # above: nothing plugged, all kinds
SHORT_OHM = 60.0  # below: an error, Type 2 (table B.2)

PILOTLESS = ("chademo", "gbt")  # have neither a control pilot nor a proximity wire for the pilot board

# A value between two bands of the Type 2 table takes the lower rating, so the bands reach up to the next one.
KINDS: dict[str, tuple[PlugBand, ...]] = {
    "none": (),
    **dict.fromkeys(PILOTLESS, ()),
    "type2": (
        PlugBand(SHORT_OHM, 140.0, Proximity.CONNECTED, 63.0),
        PlugBand(140.0, 308.0, Proximity.CONNECTED, 32.0),
        PlugBand(308.0, 936.0, Proximity.CONNECTED, 20.0),
        PlugBand(936.0, OPEN_OHM, Proximity.CONNECTED, 13.0),
    ),
    "ccs2": (PlugBand(1350.0, 1650.0, Proximity.CONNECTED),),
    "ccs1": (PlugBand(135.0, 165.0, Proximity.CONNECTED), PlugBand(432.0, 528.0, Proximity.BUTTON)),
    "type1": (PlugBand(135.0, 165.0, Proximity.CONNECTED), PlugBand(432.0, 528.0, Proximity.BUTTON)),
}


@dataclass(frozen=True)
class ProximityReading:
    state: Proximity
    ohm: float  # 0 = not measured
    current_a: float  # 0 = none


def read(kind: str, ohm: float | None) -> ProximityReading:
    """What a resistance means on a connector of ``kind``. ``ohm`` None or infinite = open."""
    bands = KINDS[kind]
    if not bands:
        return ProximityReading(Proximity.UNKNOWN, 0.0, 0.0)
    if ohm is None or ohm > OPEN_OHM:
        return ProximityReading(Proximity.OPEN, 0.0, 0.0)
    for band in bands:
        if band.low_ohm <= ohm <= band.high_ohm:
            return ProximityReading(band.meaning, ohm, band.current_a)
    return ProximityReading(Proximity.FAULT, max(0.0, ohm), 0.0)
