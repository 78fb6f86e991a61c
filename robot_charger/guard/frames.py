"""The safety controller's messages on the bus, as integers: power's command in, its own three messages out.

Layouts and units are those of config/ek3.dbc; common/e2e.py protects them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from robot_charger.common import e2e

POWER_ID = 0x400
SAFETY_ID = 0x408
LINK_ID = 0x409
GRID_ID = 0x40A
EVSE_ID = 0x430  # + number of the EVSE, 1 to 16

ECHO_VALID = 1  # of PowerCommand's flags: its sender has heard this controller

_POWER = struct.Struct("<HHHHBBB2xBH")
_SAFETY = struct.Struct("<HHHBBBBH")
_LINKS = struct.Struct("<HxxxBH")
_GRID = struct.Struct("<IxBH")
_EVSE = struct.Struct("<HBBBBH")
POWER_BYTES = _POWER.size


@dataclass
class Request:
    """Power's command. Bit 0 of each mask is EVSE 1."""

    contactors: int = 0  # u16
    monitors: int = 0  # u16
    self_tests: int = 0  # u16
    links: int = 0  # u16, contactors of the matrix or between groups
    state: int = 0  # u8
    echo: int = 0  # u8, the newest counter of SafetyStatus that power has heard
    flags: int = 0  # u8
    counter: int = 0  # u8


def decode_request(data: bytes, into: Request) -> bool:
    """Fill ``into`` from a frame of ``POWER_BYTES``; False, and nothing changed, when it is not intact."""
    if len(data) != POWER_BYTES or not e2e.intact(POWER_ID, data):
        return False
    fields = _POWER.unpack(data)[:-1]
    into.contactors, into.monitors, into.self_tests, into.links = fields[:4]
    into.state, into.echo, into.flags, into.counter = fields[4:]
    return True


def encode_safety(
    bits: int, closed: int, tripped: int, cabinet: int, echo: int, reason: int, counter: int
) -> tuple[int, bytes]:
    """SafetyStatus: ``closed`` has a bit per EVSE with both poles closed, ``cabinet`` is deg C + 50."""
    return SAFETY_ID, e2e.seal(SAFETY_ID, _SAFETY.pack(bits, closed, tripped, cabinet, echo, reason, counter, 0))


def encode_evse(evse: int, hectoohms: int, monitor: int, sequence: int, bits: int, counter: int) -> tuple[int, bytes]:
    """EvseStatus of one EVSE, 1 to 16."""
    identifier = EVSE_ID + evse
    return identifier, e2e.seal(identifier, _EVSE.pack(hectoohms, monitor, sequence, bits, counter, 0))


def encode_links(closed: int, counter: int) -> tuple[int, bytes]:
    """LinkStatus: feedback of the contactors of matrix or groups."""
    return LINK_ID, e2e.seal(LINK_ID, _LINKS.pack(closed, counter, 0))


def encode_grid(watts: int, counter: int) -> tuple[int, bytes]:
    """GridPermit: what the grid's protection relay lets the station feed back."""
    return GRID_ID, e2e.seal(GRID_ID, _GRID.pack(watts, counter, 0))
