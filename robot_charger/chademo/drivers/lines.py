"""The hard wires on a station: digital lines by libgpiod."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from robot_charger.chademo.drivers import DriverError
from robot_charger.chademo.logic import WiresIn, WiresOut
from robot_charger.common.gpio import GpioError, Lines


@dataclass(frozen=True)
class Wiring:
    """Lines as gpiochip0:17, with ! when low means on. d1 and d2 must carry 12 V, 2 A (protocol 1.0 and later)."""

    d1: str
    d2: str
    lock: str
    k: str
    lock_feedback: str


class GpioWires:
    def __init__(self, wiring: Wiring, open_lines: Callable[..., Lines] = Lines) -> None:
        outputs = {"d1": wiring.d1, "d2": wiring.d2, "lock": wiring.lock}
        inputs = {"k": wiring.k, "lock_feedback": wiring.lock_feedback}
        missing = [name for name, spec in {**outputs, **inputs}.items() if not spec]
        if missing:
            raise DriverError(f"parameter lines.{missing[0]} is empty: the driver gpiod needs all five lines")
        try:
            self._lines = open_lines(outputs, inputs)
        except GpioError as error:
            raise DriverError(f"CHAdeMO wires: {error}") from error
        self._wires: WiresOut | None = None

    def write(self, wires: WiresOut) -> None:
        if wires == self._wires:
            return
        try:
            # d2 follows d1: it is the first to go and the last to come.
            order = ("d2", "d1", "lock") if not wires.d2 else ("lock", "d1", "d2")
            for name in order:
                self._lines.write(name, getattr(wires, name))
        except GpioError as error:
            raise DriverError(f"CHAdeMO wires: {error}") from error
        self._wires = wires

    def read(self) -> WiresIn:
        try:
            return WiresIn(k=self._lines.read("k"), locked=self._lines.read("lock_feedback"))
        except GpioError as error:
            raise DriverError(f"CHAdeMO wires: {error}") from error

    def close(self) -> None:
        lock = self._wires.lock if self._wires else False
        try:
            self.write(WiresOut(lock=lock))
        finally:
            self._lines.close()
