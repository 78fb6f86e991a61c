"""Which ROS message carries which value. Imported by node.py files and by what all nodes share (common)."""

from __future__ import annotations

from robot_charger import msg
from robot_charger.words.border import CHECKS
from robot_charger.words.values import Rule

# ROS message class -> class of its value, for every message that has one.
KINDS: dict[type, type] = {getattr(msg, kind.__name__): kind for kind in CHECKS}


def bounds(message: type, name: str) -> tuple[float, float]:
    """Smallest and largest number that the field ``name`` of a message may hold; infinite where nothing is stated."""
    field = getattr(KINDS.get(message), "__dataclass_fields__", {}).get(name)
    rule = field.metadata.get("rule", Rule()) if field is not None else Rule()
    return float(rule.low), float(rule.high)
