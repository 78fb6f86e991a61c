"""The connector's hard wires behind one small interface: ``simulated`` on a desk, ``gpiod`` on a station."""

from __future__ import annotations

from typing import Protocol

from robot_charger.gbt.model import WiresIn, WiresOut


class DriverError(OSError):
    """The lines are missing or do not answer; the text names them."""


class WiresDriver(Protocol):
    """Auxiliary supply and lock out; the level of CC1 and the lock's feedback in."""

    def write(self, wires: WiresOut) -> None:
        """Raises DriverError."""

    def read(self) -> WiresIn:
        """Raises DriverError."""

    def close(self) -> None:
        """Auxiliary supply off; the lock stays as it is, so that a live plug is not let go."""
