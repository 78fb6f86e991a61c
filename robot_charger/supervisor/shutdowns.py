"""The three classes of a shutdown (IEC 61851-23: normal, error, emergency), each as one row: what goes to whom.

The supervisor takes the pilot from here; what v2g, chademo and power do is theirs, and a test holds them against it.
"""

from __future__ import annotations

from dataclasses import dataclass

from robot_charger.common.duty_cycle import DIGITAL_DUTY
from robot_charger.supervisor.model import PilotMode, Shutdown


@dataclass(frozen=True)
class Row:
    cause: str
    current: str
    contactors: str
    pilot: PilotMode
    duty: float
    ccs_status: str  # DC_EVSEStatusCode of DIN 70121 and ISO 15118-2 while the transfer ends
    chademo_bits: tuple[str, ...]  # of 0x109 byte 5 that are set
    then: str


SHUTDOWNS: dict[Shutdown, Row] = {
    Shutdown.NORMAL: Row(
        "vehicle, back end or operator", "ramp at 200 A/s after the vehicle was asked", "open below 5 A",
        PilotMode.PWM, DIGITAL_DUTY, "EVSE_SHUTDOWN", ("stop_control",), "the conversation ends in order, then unplug",
    ),
    Shutdown.ERROR: Row(
        "a fault of severity stop, a node lost", "zero at once", "open below 5 A or after 500 ms",
        PilotMode.STEADY, 0.0, "EVSE_MALFUNCTION", ("stop_control",), "unplug when safe; the fault is in the record",
    ),
    Shutdown.EMERGENCY: Row(
        "E-stop or a fault of severity emergency", "zero at once, no ramp", "opened by the safety controller",
        PilotMode.F, 0.0, "EVSE_EMERGENCY_SHUTDOWN", ("stop_control",), "everything holds until reset on site",
    ),
}  # fmt: skip


def table() -> str:
    """Rows of docs/safety.md."""
    head = ("class", "cause", "current", "contactors", "pilot", "DIN, ISO 15118-2", "CHAdeMO 109.5", "then")
    rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for kind, r in SHUTDOWNS.items():
        pilot = {PilotMode.PWM: "5 %", PilotMode.STEADY: "steady +12 V", PilotMode.F: "F"}[r.pilot]
        words = (kind.name.lower(), r.cause, r.current, r.contactors, pilot, r.ccs_status, ", ".join(r.chademo_bits))
        rows.append(f"| {' | '.join(words)} | {r.then} |")
    return "\n".join(rows)
