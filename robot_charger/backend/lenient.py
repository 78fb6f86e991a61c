"""A CSMS's answers, read leniently in form: what is surplus is dropped, null is absent, 7.0 and "7" are the integer 7.

A value that cannot be meant (a status that the schema does not know, a text where a number belongs) counts as absent:
whoever reads the answer then finds no status, which is never Accepted. Nothing of an answer is thrown away as a whole.
"""

from __future__ import annotations

import math
from typing import Any

from ocpp.messages import get_validator

from robot_charger.backend.records import Payload

_ABSENT: Any = object()
MOST_ITEMS = 10_000


def read(action: str, version: str, payload: Any) -> tuple[Payload, list[str]]:
    """What the answer to ``action`` says, and what was wrong in its form."""
    wrong: list[str] = []
    try:
        schema = get_validator(3, action, version).schema
    except (OSError, ValueError):
        return (payload if isinstance(payload, dict) else {}), wrong
    found = _value(payload, schema, schema, action, wrong)
    return (found if isinstance(found, dict) else {}), wrong


def _resolve(schema: Payload, root: Payload) -> Payload:
    while "$ref" in schema:
        target: Any = root
        for part in str(schema["$ref"]).lstrip("#/").split("/"):
            target = target[part]
        schema = target
    return schema


def _value(value: Any, schema: Payload, root: Payload, place: str, wrong: list[str]) -> Any:
    schema = _resolve(schema, root)
    if value is None:
        wrong.append(f"{place} is null")
        return _ABSENT
    kind = schema.get("type")
    if kind == "object" or "properties" in schema:
        return _object(value, schema, root, place, wrong)
    if kind == "array":
        return _array(value, schema, root, place, wrong)
    found = _scalar(value, kind)
    if found is not _ABSENT and "enum" in schema and found not in schema["enum"]:
        found = _ABSENT
    if found is _ABSENT:
        wrong.append(f"{place} is no {kind or 'value'} that is known: {str(value)[:40]!r}")
    elif found is not value and not (isinstance(value, float) and found == value):
        wrong.append(f"{place} is a {type(value).__name__}, not of type {kind}")
    return found


def _object(value: Any, schema: Payload, root: Payload, place: str, wrong: list[str]) -> Any:
    if not isinstance(value, dict):
        wrong.append(f"{place} is no object")
        return _ABSENT
    properties = schema.get("properties", {})
    found = {}
    for name, part in value.items():
        if name not in properties:
            if name != "customData":
                wrong.append(f"{place}.{str(name)[:40]} is unknown")
            continue
        read = _value(part, properties[name], root, f"{place}.{name}", wrong)
        if read is not _ABSENT:
            found[name] = read
    wrong += [f"{place}.{name} is missing" for name in schema.get("required", ()) if name not in value]
    return found


def _array(value: Any, schema: Payload, root: Payload, place: str, wrong: list[str]) -> Any:
    if not isinstance(value, list):
        wrong.append(f"{place} is no list")
        return _ABSENT
    items = [_value(part, schema.get("items", {}), root, f"{place}[]", wrong) for part in value[:MOST_ITEMS]]
    return [i for i in items if i is not _ABSENT]


def _scalar(value: Any, kind: str | None) -> Any:
    if kind is None:
        return value
    if kind == "string":
        if isinstance(value, str):
            return value
        return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else _ABSENT
    if kind == "boolean":
        if isinstance(value, bool):
            return value
        return {"true": True, "false": False}.get(str(value).strip().lower(), _ABSENT)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return _ABSENT
    if kind == "integer" and isinstance(value, int):
        return value
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return _ABSENT
    if not math.isfinite(number):
        return _ABSENT
    if kind == "integer":
        if isinstance(value, str) and value.strip().lstrip("+-").isdigit():
            return int(value)
        return int(number) if number == int(number) else _ABSENT
    return value if isinstance(value, int | float) else number
