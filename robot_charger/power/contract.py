"""What each module protocol promises: one row of ``CONTRACTS`` per driver.

Bank, sharing, trim, time-outs, bus load, doctor and simulator take these figures from here. A figure that the maker
does not publish is the cautious one; docs/adding-a-module.md names the source of each. The row's name is the word of
``module.protocol``, the module drivers/NAME.py that speaks it, and sim/rack/NAME.py that answers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

LOAD_BREAK_S = 0.5  # a bank that holds its set-point for longer needs a cut-off by the safety controller
CYCLE_S = 0.010  # of the control loop: no protocol sends oftener


@dataclass(frozen=True)
class Rating:
    """Of one module, continuous; what the demo's modules are and what power.yaml is compared with."""

    voltage_v: float
    current_a: float
    power_w: float
    min_voltage_v: float = 50.0


@dataclass(frozen=True)
class Range:
    """Output ranges that exclude each other: a module gives up to ``low_v`` or up to its rating [V]."""

    low_v: float
    off_s: float  # the output must be off for so long before the change, and again after it


@dataclass(frozen=True)
class Contract:
    """Times in seconds, offset as a share of the rated current, gain as a share of the current."""

    name: str
    maker: str
    bit_rate: int  # [bit/s]; 0: no CAN
    extended: bool = False  # 29-bit identifiers
    fd: bool = False
    own_bus: bool = True  # apart from the safety controller's
    polled: bool = True  # a module speaks only when it is asked
    spacing_s: float = 0.0  # between two frames of ours on one bus
    frames: int = 1  # of one set-point: 2 is voltage, then current
    report_s: float = 0.010  # a module's readings are at most so old on the fullest bus that is allowed
    silent_s: float = 0.050  # a module silent for longer is lost
    hold_s: float = 0.050  # a module keeps its last set-point for so long without a frame
    hold_known: bool = True  # False: not public, the cautious figure
    start_s: float = 0.0  # from "on" to the set-point
    delay_s: float = 0.020  # from a new set-point to its current at the measuring board
    offset: float = 0.01  # of the rated current
    gain: float = 0.005
    min_current_a: float = 0.0  # a module refuses less; a smaller current needs it off
    echo: bool = True  # a module says which set-point it obeys
    first_address: int = 1
    last_address: int = 127
    modules_a_bus: int = 127  # more do not keep ``report_s``
    range: Range | None = None
    rating: Rating = Rating(1000.0, 100.0, 30_000.0, 150.0)

    @property
    def offset_a(self) -> float:
        """Largest constant error of one module's current [A]."""
        return self.offset * self.rating.current_a

    @property
    def cut_off_needed(self) -> bool:
        """Whether contactors could open under load when the station falls silent."""
        return self.hold_s > LOAD_BREAK_S

    @property
    def starts_slowly(self) -> bool:
        """Whether a resting module is too slow to replace a lost one."""
        return self.start_s > 0.1


_EK3 = Rating(500.0, 66.0, 3300.0)
_HV = Rating(1000.0, 100.0, 30_000.0, 150.0)

CONTRACTS = {
    row.name: row
    for row in (
        Contract(
            "ek3", "EK3, raw CAN-FD", 1_000_000, fd=True, own_bus=False, polled=False, last_address=223,
            modules_a_bus=85, rating=_EK3,
        ),
        Contract("canopen", "EK3, CANopen", 1_000_000, polled=False, echo=False, modules_a_bus=24, rating=_EK3),
        Contract(
            "modbus", "older modules, Modbus", 0, report_s=0.1, silent_s=0.5, hold_s=0.5, delay_s=0.1,
            last_address=247, modules_a_bus=32, rating=_EK3,
        ),
        Contract(
            "infypower", "Infypower REG, CEG, LRG V1.13", 125_000, extended=True, spacing_s=0.05, report_s=1.0,
            silent_s=3.5, hold_s=10.0, start_s=3.0, delay_s=0.4, min_current_a=1.0, echo=False, first_address=0,
            last_address=59, modules_a_bus=6, rating=_HV,
        ),
        Contract(
            "uugreen", "UUGreenPower UR1000", 125_000, extended=True, spacing_s=0.005, frames=2, report_s=0.25,
            silent_s=1.0, hold_s=15.0, hold_known=False, start_s=3.0, delay_s=0.2, modules_a_bus=12,
            range=Range(500.0, 2.0), rating=_HV,
        ),
        Contract(
            "winline", "Winline, Maxwell MXR", 125_000, extended=True, spacing_s=0.005, frames=2, report_s=0.5,
            silent_s=2.0, hold_s=15.0, hold_known=False, start_s=2.0, delay_s=0.2, min_current_a=1.0,
            last_address=63, modules_a_bus=12, rating=_HV,
        ),
    )
}  # fmt: skip
PROTOCOLS = tuple(CONTRACTS)


def buses_needed(contract: Contract, modules: int) -> int:
    """Fewest buses on which a polled protocol keeps its times."""
    return math.ceil(modules / contract.modules_a_bus)
