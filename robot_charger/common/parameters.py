"""Parameters of a node as one dataclass: default, unit, range and meaning stand together.

A node declares its parameters from the class, reads them back validated, and refuses an impossible or
unknown one with a sentence that names the parameter and what would be right.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


class ParameterError(ValueError):
    """A parameter is unknown or impossible; the text names it and says what would be right."""


@dataclass(frozen=True)
class Meaning:
    """What a person needs to know of one parameter."""

    text: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    live: bool = False  # may change while the node is active
    file: bool = False  # names a file or a folder: a relative one is beside the parameter file that names it
    unsafe: Any = None  # value that lowers safety or privacy, or a function that tells so: shown on /diagnostics

    def describe(self) -> str:
        parts = [self.text]
        if self.unit:
            parts.append(f"[{self.unit}]")
        if self.choices:
            parts.append("one of " + ", ".join(c or "''" for c in self.choices))
        return " ".join(parts)

    def lowers(self, value: Any) -> bool:
        """This value lowers safety or privacy."""
        return bool(self.unsafe(value)) if callable(self.unsafe) else self.unsafe is not None and value == self.unsafe

    def refuse(self, name: str, value: Any) -> str | None:
        """Why ``value`` is impossible, or None."""
        unit = f" {self.unit}" if self.unit else ""
        for item in value if isinstance(value, list | tuple) else [value]:
            if isinstance(item, float) and item != item:
                return f"parameter {name} is not a number"
            if self.low is not None and item < self.low:
                return f"parameter {name} = {item}{unit} is too small: at least {self.low:g}{unit}"
            if self.high is not None and item > self.high:
                return f"parameter {name} = {item}{unit} is too large: at most {self.high:g}{unit}"
            if self.choices and item not in self.choices:
                return f"parameter {name} = {item!r} is unknown: one of {', '.join(self.choices)}"
        return None


def parameter(default: Any, text: str, **meaning: Any) -> Any:
    """A dataclass field that is a ROS parameter. A ``__`` in the field's name stands for a dot."""
    metadata = {"meaning": Meaning(text, **meaning)}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def ros_name(field_name: str) -> str:
    return field_name.replace("__", ".")


def fields_of(cls: type) -> dict[str, tuple[dataclasses.Field, Meaning]]:
    """ROS parameter name -> (dataclass field, meaning)."""
    return {ros_name(f.name): (f, f.metadata["meaning"]) for f in dataclasses.fields(cls)}


def default_of(field: dataclasses.Field) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    assert field.default_factory is not dataclasses.MISSING
    return field.default_factory()


_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", list: "a list"}


def converted(name: str, value: Any, default: Any) -> Any:
    """``value`` as the type of ``default``; a whole number is a number, and the other way round, also in a list.

    Raises ParameterError where the types differ.
    """
    kind = type(default)
    if kind is list and not isinstance(value, str | bool | int | float):
        values = list(value)
        if not default:
            return values  # of text: rclpy declares an empty list so
        return [converted(f"{name}[{index}]", item, default[0]) for index, item in enumerate(values)]
    if kind is float and type(value) is int:
        return float(value)
    if kind is int and type(value) is float and value.is_integer():
        return int(value)
    if type(value) is not kind:
        hint = ": put it in quotes" if kind is str and type(value) is not list else ""
        raise ParameterError(f"parameter {name} = {value!r} must be {_WORDS[kind]}{hint}")
    return value


def build(cls: type[T], values: dict[str, Any]) -> T:
    """Validated parameters from ROS names. Raises ParameterError on an unknown name, type or value."""
    table = fields_of(cls)
    for name in values:
        if name not in table:
            raise ParameterError(f"parameter {name} is unknown: one of {', '.join(sorted(table))}")
    arguments = {}
    for name, (field, meaning) in table.items():
        default = default_of(field)
        value = converted(name, values.get(name, default), default)
        reason = meaning.refuse(name, value)
        if reason:
            raise ParameterError(reason)
        arguments[field.name] = value
    return cls(**arguments)


def lowered_safety(parameters: Any) -> list[str]:
    """Names of parameters set to a value that lowers safety or privacy, for /diagnostics."""
    return [
        f"{name} = {getattr(parameters, field.name)}"
        for name, (field, meaning) in fields_of(type(parameters)).items()
        if meaning.lowers(getattr(parameters, field.name))
    ]
