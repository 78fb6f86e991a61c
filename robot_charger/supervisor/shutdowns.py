"""The three classes of a shutdown (IEC 61851-23: normal, error, emergency): what the vehicle sees of each, and by when.

The supervisor takes the pilot from here; what power, v2g and chademo do is theirs, and test_shutdowns holds them
against it, line by line.
"""

from __future__ import annotations

from dataclasses import dataclass

from robot_charger.common.duty_cycle import DIGITAL_DUTY
from robot_charger.words.values import PilotMode, Shutdown


@dataclass(frozen=True)
class Class:
    """One class. ``zero_s``: from the decision to less than 5 A at ``FROM_A``; ``open_s``: to open contactors."""

    cause: str
    current: str
    zero_s: float
    contactors: str
    open_s: float
    pilot: PilotMode
    duty: float
    ccs_status: str  # DC_EVSEStatusCode of DIN 70121 and ISO 15118-2 while the transfer ends
    acdp_flags: tuple[str, ...]  # of ISO 15118-20's ACDP_SystemStatusRes
    chademo_bits: tuple[str, ...]  # of 0x109 byte 5 that are set
    ac: str
    then: str


FROM_A = 200.0  # what flows when it begins
RAMP_A_S = 200.0  # power's ramp.down_a_s
SHUTDOWNS: dict[Shutdown, Class] = {
    Shutdown.NORMAL: Class(
        "vehicle, back end or operator",
        f"falls at {RAMP_A_S:g} A/s, unless the vehicle takes it back itself", FROM_A / RAMP_A_S + 0.1,
        "open below 5 A", FROM_A / RAMP_A_S + 0.5,
        PilotMode.PWM, DIGITAL_DUTY, "EVSE_SHUTDOWN", (), ("stop_control",),
        "steady +12 V (x1): the vehicle ends its load; the contactor opens when C is left, after 6 s at the latest",
        "the conversation ends in order, then the plug is taken out",
    ),
    Shutdown.ERROR: Class(
        "a fault of severity stop, a node lost",
        "zero at once", 0.05,
        "open below 5 A, or 500 ms after zero was told", 0.6,
        PilotMode.STEADY, 0.0, "EVSE_MALFUNCTION", ("EVSEMalfunction",), ("stop_control",),
        "the contactor opens at once",
        "the plug is taken out when the inlet is safe; the fault is in the record",
    ),
    Shutdown.EMERGENCY: Class(
        "E-stop or a fault of severity emergency",
        "zero at once", 0.05,
        "opened by the safety controller, whatever flows", 0.1,
        PilotMode.F, 0.0, "EVSE_EMERGENCY_SHUTDOWN", ("EVSEEmergencyShutdown",), ("stop_control",),
        "the safety controller's release opens the contactor",
        "everything holds until a person resets it on site",
    ),
}  # fmt: skip
PILOTS = {PilotMode.PWM: "PWM of 5 %", PilotMode.STEADY: "steady +12 V", PilotMode.F: "F (-12 V)"}


def lines(kind: Shutdown) -> list[tuple[str, str, str]]:
    """(what, what the vehicle sees, within) of one class."""
    c = SHUTDOWNS[kind]
    return [
        (f"current, from {FROM_A:g} A", c.current, f"{c.zero_s:g} s"),
        ("contactors", c.contactors, f"{c.open_s:g} s"),
        ("control pilot", PILOTS[c.pilot], "next command"),
        ("DIN 70121, ISO 15118-2", f"StopCharging, {c.ccs_status}", "next response"),
        ("ISO 15118-20", "EVSENotification Terminate", "next response"),
        ("ISO 15118-20 ACDP", ", ".join(c.acdp_flags) or "Terminate alone", "next response"),
        ("CHAdeMO, 0x109 byte 5", ", ".join(c.chademo_bits), "next frame"),
        ("plain AC", c.ac, "-"),
        ("then", c.then, "-"),
    ]


def page() -> str:
    """The three tables of docs/safety.md."""
    parts = []
    for kind, c in SHUTDOWNS.items():
        told = [f"**{kind.name.capitalize()}**: {c.cause}.", "", "| what | the vehicle sees | within |"]
        parts.append("\n".join([*told, "|---|---|---|", *(f"| {' | '.join(line)} |" for line in lines(kind))]))
    return "\n\n".join(parts)
