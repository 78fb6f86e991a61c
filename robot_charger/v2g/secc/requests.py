"""The values of a request in SI units: tolerant where a value only informs, strict where energy depends on it.

``setpoint`` and ``limit`` refuse a wrong unit and an impossible value with the response code of the standard and the
name of the field. ``told`` takes any unit of the right kind and any value; what makes no sense is noted in the record
and counts as not given. A unit that the schema lets a vehicle leave out is taken for the field's own.
"""

from __future__ import annotations

from typing import Any

from robot_charger.common.faults import Code
from robot_charger.v2g.secc.table import FAILED, Refused, Talk, Tree

SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
WATT_HOURS = {"Wh": 1.0}
MULTIPLIERS = range(-3, 4)  # unitMultiplierType of DIN 70121 and ISO 15118-2
SOC = range(101)


def setpoint(talk: Talk, body: Tree, name: str, unit: str, code: str = FAILED) -> float:
    """A set-point [V, A or W]. A negative current counts as 0 A; a negative voltage is impossible. Raises Refused."""
    value = _strict(talk, body[name], name, unit, code)
    if value < 0.0 and unit == "A":
        talk.note(f"{_path(talk, name)} is {value:g} A: taken for 0 A")
        return 0.0
    return _positive(talk, name, value, unit, code)


def limit(talk: Talk, body: Tree, name: str, unit: str, code: str = FAILED) -> float | None:
    """A limit of the vehicle, None where it left it out. Raises Refused."""
    given = body.get(name)
    return None if given is None else _positive(talk, name, _strict(talk, given, name, unit, code), unit, code)


def signed(talk: Talk, body: Tree, name: str, code: str = FAILED) -> float:
    """A set-point that may be negative, of a session that may discharge. Raises Refused."""
    return _strict(talk, body[name], name, "", code)


def told(talk: Talk, body: Tree, name: str, units: dict[str, float]) -> float | None:
    """A value that only informs, in the unit that ``units`` maps to 1; None where it is absent or makes no sense."""
    given = body.get(name)
    if given is None:
        return None
    unit = given.get("Unit", next(iter(units))) if "Multiplier" in given else next(iter(units))
    value, fits = _value(given)
    if not fits or value < 0.0 or unit not in units:
        talk.note(f"{_path(talk, name)} is {value:g} {unit}: ignored")
        return None
    if unit != next(iter(units)):
        talk.note(f"{_path(talk, name)} is in {unit}")
    return value * units[unit]


def soc(talk: Talk, body: Tree, name: str) -> float | None:
    """A state of charge [%], None where it is absent or impossible."""
    value = body.get(name)
    if value is None or value in SOC:
        return None if value is None else float(value)
    talk.note(f"{_path(talk, name)} is {value} %: ignored")
    return None


def _value(given: Tree) -> tuple[float, bool]:
    """The number, and whether its exponent is one of the schema."""
    if "Multiplier" in given:
        return float(given["Value"]) * 10.0 ** given["Multiplier"], given["Multiplier"] in MULTIPLIERS
    return float(given["Value"]) * 10.0 ** given["Exponent"], True


def _strict(talk: Talk, given: Tree, name: str, unit: str, code: str) -> float:
    value, fits = _value(given)
    if not fits:
        raise refusal(talk, name, f"has the multiplier {given['Multiplier']}, which does not exist", code)
    if unit and given.get("Unit", unit) != unit:
        raise refusal(talk, name, f"has the unit {given['Unit']} instead of {unit}", code)
    return value


def _positive(talk: Talk, name: str, value: float, unit: str, code: str) -> float:
    if value < 0.0:
        raise refusal(talk, name, f"is {value:g} {unit}, which cannot be", code)
    return value


def refusal(talk: Talk, name: str, why: str, code: str) -> Refused:
    """The refusal of one field."""
    return Refused(code, Code.V2G_DECODE, f"{_path(talk, name)} {why}", bad=True)


def _path(talk: Talk, name: str) -> str:
    return f"{talk.heard.name}/{name}" if talk.heard else name


def one_of(body: Tree, names: tuple[str, ...]) -> tuple[str, Any]:
    """The element of a choice that is there, with its name; ("", None) for none of them."""
    return next(((name, body[name]) for name in names if name in body), ("", None))
