"""What the station promises when something dies: one table, for docs/safety.md and for bench/chaos.py.

Times are from the moment of death to zero current (below 5 A) and to open contactors, in seconds, at a station; on a
desk without real-time scheduling DESK_GRACE_S is added. A session that goes on is billed as if nothing had happened.
"""

from __future__ import annotations

from dataclasses import dataclass

DESK_GRACE_S = 0.4  # liveliness times are widened by config/simulation.yaml, and a desk's cores are shared
STOP, CONTINUE = "stop", "continue"
KILL, FREEZE = "kill", "freeze"
ENERGISED = ("cable_check", "precharge", "charging")
PLUGGED = ("linking", *ENERGISED)


@dataclass(frozen=True)
class Promise:
    """``targets`` lists processes, {n} the EVSE. ``phases`` are those in which ``expected`` holds."""

    targets: tuple[str, ...]
    faults: tuple[str, ...]
    phases: tuple[str, ...]
    expected: str
    zero_s: float
    open_s: float
    why: str


PROMISES = (
    Promise(
        ("/power",), (KILL, FREEZE), ENERGISED, STOP, 0.4, 1.0,
        "modules go to zero 50 ms after the last valid frame; the safety controller opens without power's heartbeat",
    ),
    Promise(
        ("/evse{n}/supervisor",), (KILL, FREEZE), ENERGISED, STOP, 0.4, 1.0,
        "the permit ends 300 ms after its own stamp; power ramps down and opens",
    ),
    Promise(
        ("/evse{n}/pilot",), (KILL, FREEZE), ENERGISED, STOP, 0.4, 1.0,
        "power watches the pilot itself: silence for 300 ms counts as a pilot that left C",
    ),
    Promise(
        ("/evse{n}/v2g",), (KILL, FREEZE), ENERGISED, STOP, 0.4, 1.0,
        "the target is not renewed: power holds none older than 300 ms",
    ),
    Promise(
        ("sim_vehicle{n}",), (KILL,), ("charging",), STOP, 1.0, 1.5,
        "the pilot's resistors are gone with the car: state A, power off within 100 ms of being seen",
    ),
    Promise(
        ("sim_safety",), (KILL, FREEZE), ENERGISED, STOP, 0.4, 1.0,
        "no valid frame of the safety controller for 100 ms: power off; the contactors' coils drop with it",
    ),
    Promise(
        ("/robot", "/backend", "/evse{n}/chademo", "sim_csms", "sim_arm"), (KILL, FREEZE), PLUGGED, CONTINUE, 0.0, 0.0,
        "not needed while energy flows: the arm stands clear, the record is kept on disk",
    ),
)  # fmt: skip


def table() -> str:
    """Rows of docs/safety.md."""
    head = ("what dies", "how", "while", "then", "zero current", "contactors open", "because")
    rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for p in PROMISES:
        zero, opened = (f"{p.zero_s:g} s", f"{p.open_s:g} s") if p.expected == STOP else ("-", "-")
        targets = ", ".join(t.replace("{n}", "N") for t in p.targets)
        phases = ", ".join(p.phases).replace("_", " ")
        rows.append(f"| {targets} | {', '.join(p.faults)} | {phases} | {p.expected} | {zero} | {opened} | {p.why} |")
    return "\n".join(rows)
