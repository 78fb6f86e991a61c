"""Digital lines of a station computer by libgpiod 2 (Python package ``gpiod``, only needed on a station).

A line is written ``gpiochip0:17``, or ``gpiochip0:17!`` when low means on.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

CONSUMER = "robot_charger"


class GpioError(OSError):
    """A line cannot be had or does not answer; the text names it."""


def _split(spec: str) -> tuple[str, int, bool]:
    chip, colon, offset = spec.removesuffix("!").rpartition(":")
    if not colon or not chip or not offset.isdigit():
        raise GpioError(f"line {spec!r} is no line: gpiochip0:17, with ! when low means on")
    return (chip if chip.startswith("/") else f"/dev/{chip}"), int(offset), spec.endswith("!")


class Lines:
    """Named outputs (all off at first) and inputs, each requested once. Raises GpioError."""

    def __init__(self, outputs: Mapping[str, str], inputs: Mapping[str, str], library: Any = None) -> None:
        try:
            self._gpiod = library or importlib.import_module("gpiod")
        except ImportError as error:
            raise GpioError("digital lines need the Python package gpiod: pip install 'gpiod>=2'") from error
        self._requests: dict[str, tuple[Any, int]] = {}
        line = self._gpiod.line
        self._on, self._off = line.Value.ACTIVE, line.Value.INACTIVE
        for names, direction in ((outputs, line.Direction.OUTPUT), (inputs, line.Direction.INPUT)):
            for name, spec in names.items():
                chip, offset, inverted = _split(spec)
                options: dict[str, Any] = {"direction": direction, "active_low": inverted}
                if direction == line.Direction.OUTPUT:
                    options["output_value"] = self._off
                try:
                    settings = self._gpiod.LineSettings(**options)
                    request = self._gpiod.request_lines(chip, consumer=CONSUMER, config={offset: settings})
                except OSError as error:
                    self.close()
                    raise GpioError(f"line {spec} ({name}): {error.strerror or error}") from error
                self._requests[name] = (request, offset)

    def write(self, name: str, on: bool) -> None:
        request, offset = self._requests[name]
        try:
            request.set_value(offset, self._on if on else self._off)
        except OSError as error:
            raise GpioError(f"line {name} does not answer: {error.strerror or error}") from error

    def read(self, name: str) -> bool:
        request, offset = self._requests[name]
        try:
            return bool(request.get_value(offset) == self._on)
        except OSError as error:
            raise GpioError(f"line {name} does not answer: {error.strerror or error}") from error

    def close(self) -> None:
        """Let go of all lines; what an output then does is up to the board."""
        for request, _ in self._requests.values():
            request.release()
        self._requests.clear()
