"""What goes into and comes out of the charger's sequence, as plain values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum

from robot_charger.common.faults import Code
from robot_charger.words.values import Link, Lock, Purpose


class Phase(IntEnum):
    """Steps of the sequence, in order."""

    IDLE = 0  # no auxiliary supply, silent
    LOCK = 1  # CC1 at 4 V, the lock closes
    WAKE = 2  # auxiliary supply on; CHM until BHM
    INSULATION = 3  # CHM goes on
    IDENTIFY = 4  # CRM 00 until BRM
    CONFIRM = 5  # CRM AA until BCP
    PARAMETERS = 6  # CTS and CML until BRO AA
    COMPARE = 7  # CRO 00 until the battery's voltage is there, and the one that BCP named
    PRECHARGE = 8  # CRO 00 until the supply has that voltage
    READY = 9  # CRO AA until BCL and BCS
    CHARGE = 10  # CCS
    RETRY = 11  # CEM, output off, then again from CRM 00
    STOPPING = 12  # CST, current to zero, until BST and BSD
    STATISTICS = 13  # CSD
    RELEASE = 14  # auxiliary supply off, connector dead, unlock
    ENDED = 15


LINKS = {
    Phase.IDLE: Link.IDLE,
    Phase.LOCK: Link.MATCHING,
    Phase.WAKE: Link.MATCHING,
    Phase.INSULATION: Link.CABLE_CHECK,
    Phase.IDENTIFY: Link.CABLE_CHECK,
    Phase.CONFIRM: Link.CABLE_CHECK,
    Phase.PARAMETERS: Link.CABLE_CHECK,
    Phase.COMPARE: Link.CABLE_CHECK,
    Phase.PRECHARGE: Link.PRECHARGE,
    Phase.CHARGE: Link.CHARGING,
    Phase.STOPPING: Link.STOPPING,
    Phase.STATISTICS: Link.WELDING_CHECK,
    Phase.RELEASE: Link.WELDING_CHECK,
}


@dataclass(frozen=True)
class WiresIn:
    """Inputs of the connector: CC1 says that it is all in, and the lock's feedback."""

    plugged: bool = False
    locked: bool = False


@dataclass(frozen=True)
class WiresOut:
    """Outputs: the auxiliary supply A+ and A- of 12 V (contactors K3 and K4), and the lock.

    K1 and K2 are power's contactors, K5 and K6 the vehicle's.
    """

    auxiliary: bool = False
    lock: bool = False


@dataclass(frozen=True)
class Supply:
    """power/state as far as GB/T looks at it. ``alive``: the message is young."""

    alive: bool = False
    voltage_v: float = 0.0  # at the connector
    current_a: float = 0.0  # positive into the vehicle
    contactors_closed: bool = False
    precharged: bool = False  # closed contactors at the battery's voltage
    faulted: bool = False
    insulation_valid: bool = False
    insulation_failed: bool = False
    insulation_permit: int = 0


@dataclass(frozen=True)
class Allowed:
    """The smaller of supply limits, permit and back end, before they are applied."""

    max_voltage_v: float = 0.0
    max_current_a: float = 0.0
    max_power_w: float = 0.0


@dataclass(frozen=True)
class Session:
    """session/state as far as GB/T looks at it."""

    session_id: str = ""
    active: bool = False  # the protocol is GB/T and the phase is Linking to Stopping
    start: bool = False  # phase Linking, and authorised
    stop: bool = False  # the station asks for an orderly stop
    broken: bool = False  # an error or emergency shutdown has begun
    permit: int = 0  # number of the newest permit of this session, 0 = none yet


@dataclass(frozen=True)
class Target:
    purpose: Purpose = Purpose.NONE
    voltage_v: float = 0.0
    current_a: float = 0.0


@dataclass(frozen=True)
class Status:
    """What VehicleLink tells."""

    phase: Link = Link.IDLE
    lock: Lock = Lock.UNKNOWN
    vehicle_ready: bool = False
    edition: int = 0  # 2015 or 2011, 0 = not known
    soc: float = -1.0
    remaining_s: float = -1.0
    capacity_wh: float = 0.0
    max_voltage_v: float = 0.0
    max_current_a: float = 0.0
    vin: str = ""
    error: Code = Code.NONE
    text: str = ""


@dataclass
class Inputs:
    """One cycle's view of the world."""

    now_ns: int
    wires: WiresIn = field(default_factory=WiresIn)
    supply: Supply = field(default_factory=Supply)
    allowed: Allowed = field(default_factory=Allowed)
    session: Session = field(default_factory=Session)
    clock: Iterable[int] = ()  # second, minute, hour, day, month, year of local time; empty: not known
