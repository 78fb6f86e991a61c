"""Hardware of the pilot behind one small interface: ``simulated`` on a desk, ``linux`` on a station."""

from __future__ import annotations

from typing import Protocol

from robot_charger.pilot.logic import Levels, Output


class DriverError(OSError):
    """The board or sensor is missing or does not answer; the text names it."""


class PilotDriver(Protocol):
    """One pilot board."""

    def set_output(self, output: Output) -> None:
        """Put ``output`` on the wire. Raises DriverError."""

    def measure(self) -> Levels:
        """The newest peaks and the proximity resistance, within a millisecond. Raises DriverError."""

    def close(self) -> None:
        """Leave the wire at state F and let go of the hardware."""


class OutletDriver(Protocol):
    """The contactor of an AC outlet and what watches it."""

    def switch(self, on: bool) -> None:
        """The contactor's coil, told at every sample: without a word for 0.5 s it drops. Raises DriverError."""

    def read(self) -> tuple[bool, bool]:
        """Contactor closed (feedback), residual current monitor tripped. Raises DriverError."""

    def close(self) -> None:
        """Coil off, and let go of the hardware."""
