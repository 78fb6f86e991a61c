"""The hard wires on a station: digital lines by libgpiod.

CC1 comes in as one line, from a window comparator that is on between the levels of timing (3.2 to 4.8 V).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from robot_charger.common.gpio import GpioError, Lines
from robot_charger.gbt.drivers import DriverError
from robot_charger.gbt.model import WiresIn, WiresOut


@dataclass(frozen=True)
class Wiring:
    """Lines as gpiochip0:17, with ! when low means on. ``auxiliary`` closes K3 and K4: 12 V, 10 A."""

    auxiliary: str
    lock: str
    plugged: str
    lock_feedback: str


class GpioWires:
    def __init__(self, wiring: Wiring, open_lines: Callable[..., Lines] = Lines) -> None:
        outputs = {"auxiliary": wiring.auxiliary, "lock": wiring.lock}
        inputs = {"plugged": wiring.plugged, "lock_feedback": wiring.lock_feedback}
        missing = [name for name, spec in {**outputs, **inputs}.items() if not spec]
        if missing:
            raise DriverError(f"parameter lines.{missing[0]} is empty: the driver gpiod needs all four lines")
        try:
            self._lines = open_lines(outputs, inputs)
        except GpioError as error:
            raise DriverError(f"GB/T wires: {error}") from error
        self._wires: WiresOut | None = None

    def write(self, wires: WiresOut) -> None:
        if wires == self._wires:
            return
        try:
            # The lock closes before the auxiliary supply comes, and opens after it has gone.
            for name in ("lock", "auxiliary") if wires.auxiliary else ("auxiliary", "lock"):
                self._lines.write(name, getattr(wires, name))
        except GpioError as error:
            raise DriverError(f"GB/T wires: {error}") from error
        self._wires = wires

    def read(self) -> WiresIn:
        try:
            return WiresIn(plugged=self._lines.read("plugged"), locked=self._lines.read("lock_feedback"))
        except GpioError as error:
            raise DriverError(f"GB/T wires: {error}") from error

    def close(self) -> None:
        lock = self._wires.lock if self._wires else False
        try:
            self.write(WiresOut(lock=lock))
        finally:
            self._lines.close()
