"""Modes and phases of one output, and what each of them requests: the one place that says where contactors close."""

from __future__ import annotations

from enum import Enum

from robot_charger.words.values import SupplyMode as Mode


class Phase(Enum):
    """Step inside a mode, in the order they go by."""

    NONE = "off"
    MAKE_SAFE = "waiting for the output to be below 60 V"
    SELF_TEST = "the insulation monitor tests itself"
    MATCH = "matching the output's voltage"
    CLOSE = "closing contactors"
    RAISE = "raising the voltage"
    MEASURE = "measuring insulation"
    HOLD = "holding"
    DELIVER = "delivering"
    LOWER = "lowering the voltage"
    ZERO = "waiting for the current to end"
    OPEN = "opening contactors"


_TEST, _PRE, _TRANSFER, _RAMP = Mode.INSULATION_TEST, Mode.PRECHARGE, Mode.TRANSFER, Mode.RAMP_DOWN
CLOSED = {
    (_TEST, Phase.CLOSE), (_TEST, Phase.RAISE), (_TEST, Phase.MEASURE), (_TEST, Phase.LOWER),
    (_PRE, Phase.CLOSE), (_PRE, Phase.RAISE), (_PRE, Phase.HOLD), (_TRANSFER, Phase.DELIVER),
    (_RAMP, Phase.LOWER), (_RAMP, Phase.ZERO),
}  # fmt: skip
"""Where the contactors are requested: nowhere else."""

ENABLED = {
    (_TEST, Phase.RAISE), (_TEST, Phase.MEASURE), (_PRE, Phase.RAISE), (_PRE, Phase.HOLD),
    (_TRANSFER, Phase.DELIVER), (_RAMP, Phase.LOWER),
}  # fmt: skip
"""Where the modules are enabled; and while they match a voltage that stands at the inlet (``MATCHING``)."""

MATCHING = {(_PRE, Phase.MATCH), (_PRE, Phase.CLOSE)}
MONITORED = {_TEST, _PRE, _TRANSFER, _RAMP}
SELF_TESTS = {(_TEST, Phase.SELF_TEST)}
