"""The connector's hard wires behind one small interface: ``simulated`` on a desk, ``gpiod`` on a station."""

from __future__ import annotations

from typing import Protocol

from robot_charger.chademo.logic import WiresIn, WiresOut


class DriverError(OSError):
    """The lines are missing or do not answer; the text names them."""


class WiresDriver(Protocol):
    """d1, d2 and the lock's solenoid out; k (read by the opto-coupler j) and the lock's feedback in."""

    def write(self, wires: WiresOut) -> None:
        """Raises DriverError."""

    def read(self) -> WiresIn:
        """Raises DriverError."""

    def close(self) -> None:
        """d1 and d2 off; the lock stays as it is, so that a live plug is not let go."""
