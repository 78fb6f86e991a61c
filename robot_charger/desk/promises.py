"""What the station promises when something breaks: one table, for docs/safety.md and for bench/chaos.py.

Times are from the fault to zero current (below 5 A), to open contactors and to an arm that stands still, in seconds, at
a station; on a desk without real-time scheduling DESK_GRACE_S is added. A session that goes on is billed as if nothing
had happened.
"""

from __future__ import annotations

from dataclasses import dataclass

DESK_GRACE_S = 0.4  # liveliness times are widened by config/simulation.yaml, and a desk's cores are shared
STOP, CONTINUE = "stop", "continue"
KILL, FREEZE, SLOW, CUT, GARBAGE, JUMP, FULL, SELF_TEST = (
    "kill", "freeze", "slow", "cut off", "garbage", "jump", "full", "self-test"
)  # fmt: skip
FAULTS = {
    KILL: "kill -9",
    FREEZE: "SIGSTOP for three seconds (a vehicle: eight)",
    SLOW: "runs 0.15 s of every 0.75 s, for four seconds",
    CUT: "its link is down for four seconds",
    GARBAGE: "a thousand frames that nobody can use",
    JUMP: "the wall clock jumps by an hour",
    FULL: "no process can write another byte for five seconds",
    SELF_TEST: "the insulation monitor fails its self-test, once",
}
MOVING = ("connecting", "disconnecting")
ENERGISED = ("cable_check", "precharge", "charging")
PLUGGED = ("linking", *ENERGISED)
PHASES = ("connecting", *PLUGGED, "stopping", "disconnecting")  # in the order of a session
ACDP, AC = ("acdp",), ("ac",)
CCS = ("din", "iso15118-2", "iso15118-20", "iso15118-20-bpt")
CHADEMO = ("chademo", "chademo-v2x")
GBT = ("gbt",)
ON_CAN = (*CHADEMO, *GBT)  # the vehicle speaks over CAN in the plug
PILOT, DC = (*CCS, *ACDP, *AC), (*CCS, *ACDP, *ON_CAN)
PROTOCOLS = (*CCS, *ACDP, *ON_CAN, *AC)
NO_PHASES = {protocol: ("cable_check", "precharge") for protocol in AC}
# No resistors, modules or safety frames without their process: the station is of no use after its death.
STAY_DEAD = ("sim_safety", "sim_vehicle{n}", "sim_rack", "sim_arm")


@dataclass(frozen=True)
class Promise:
    """``targets`` lists processes and buses, {n} the EVSE. ``phases`` are those in which ``expected`` holds."""

    targets: tuple[str, ...]
    faults: tuple[str, ...]
    phases: tuple[str, ...]
    expected: str
    zero_s: float
    open_s: float
    why: str
    protocols: tuple[str, ...] = PROTOCOLS
    still_s: float = 0.0  # to an arm that stands still, 0 = it does not move then


PROMISES = (
    Promise(
        ("/power",), (KILL, FREEZE, SLOW), ENERGISED, STOP, 0.4, 1.0,
        "modules go to zero 50 ms after the last valid frame, slower ones by the safety controller's inhibit wire; it "
        "opens without power's heartbeat",
    ),
    Promise(
        ("/evse{n}/supervisor",), (KILL, FREEZE, SLOW), ENERGISED, STOP, 0.4, 1.0,
        "the permit ends 300 ms after its own stamp; power ramps down and opens",
    ),
    Promise(
        ("/evse{n}/pilot",), (KILL, FREEZE, SLOW), ENERGISED, STOP, 0.4, 1.0,
        "power watches the pilot itself: silence for 300 ms counts as a pilot that left C", PILOT,
    ),
    Promise(
        ("/evse{n}/v2g",), (KILL, FREEZE, SLOW), PLUGGED, STOP, 0.4, 1.0,
        "the target is not renewed: power holds none older than 300 ms", (*CCS, *ACDP),
    ),
    Promise(
        ("/evse{n}/chademo",), (KILL, FREEZE, SLOW), PLUGGED, STOP, 0.4, 1.0,
        "the target is not renewed: power holds none older than 300 ms; k and d1, d2 fall with the process's outputs",
        CHADEMO,
    ),
    Promise(
        ("/evse{n}/gbt",), (KILL, FREEZE, SLOW), PLUGGED, STOP, 0.4, 1.0,
        "the target is not renewed: power holds none older than 300 ms; A+ falls with the process's outputs", GBT,
    ),
    Promise(
        ("sim_vehicle{n}",), (KILL,), ("charging",), STOP, 1.0, 1.5,
        "the pilot's resistors are gone with the car: state A, power off within 100 ms of being seen", PILOT,
    ),
    Promise(
        ("sim_vehicle{n}",), (KILL, FREEZE), ("charging",), STOP, 1.2, 2.0,
        "no frame of the vehicle for 1 s, or k open", CHADEMO,
    ),
    Promise(
        ("sim_vehicle{n}",), (KILL, FREEZE), ("charging",), STOP, 1.2, 2.0,
        "CC1 no longer shows a plug, or no BCL for 1 s", GBT,
    ),
    Promise(
        ("sim_vehicle{n}",), (FREEZE,), ("charging",), STOP, 5.2, 6.0,
        "the vehicle's last message may be 5 s old, 0.5 s in ISO 15118-20", (*CCS, *ACDP),
    ),
    Promise(
        ("sim_plc{n}",), (CUT,), ENERGISED, STOP, 1.0, 1.5,
        "a lost link ends the conversation at once; 5 % without it is no permission to charge", CCS,
    ),
    Promise(
        ("sim_safety",), (KILL, FREEZE), ENERGISED, STOP, 0.4, 1.0,
        "no valid frame of the safety controller for 100 ms: power off; the contactors' coils drop with it",
    ),
    Promise(
        ("sim_rack",), (KILL,), ("charging",), STOP, 1.0, 1.0,
        "a bus without any module's frame for 300 ms is lost: contactors open", DC,
    ),
    Promise(
        ("/robot", "/evse{n}/supervisor", "sim_safety"), (KILL, FREEZE), MOVING, STOP, 0.4, 1.0,
        "no trajectory reaches further ahead than 200 ms; a motion permit ends 300 ms after its stamp", still_s=0.6,
    ),
    Promise(
        ("/robot",), (KILL, FREEZE, SLOW), PLUGGED, CONTINUE, 0.0, 0.0,
        "the arm stands clear: it is needed again only to unplug", (*CCS, *ON_CAN, *AC),
    ),
    Promise(
        ("/robot",), (KILL, FREEZE), PLUGGED, STOP, 1.6, 2.2,
        "its head stays in the hand: an arm that was not heard for 1 s does not follow the vehicle", ACDP,
    ),
    Promise(
        ("/backend",), (KILL, FREEZE, SLOW), ENERGISED, CONTINUE, 0.0, 0.0,
        "what it must tell lies on the disk; it goes on where it was",
    ),
    Promise(
        ("sim_csms",), (CUT, FREEZE, GARBAGE), ENERGISED, CONTINUE, 0.0, 0.0,
        "the record is kept and sent when somebody answers again",
    ),
    Promise(
        ("sim_arm",), (FREEZE,), PLUGGED, CONTINUE, 0.0, 0.0, "the arm stands clear", (*CCS, *ON_CAN, *AC),
    ),
    Promise(
        ("/evse{n}/chademo",), (KILL, FREEZE), (*MOVING, *PLUGGED), CONTINUE, 0.0, 0.0, "another plug is in",
        (*PILOT, *GBT),
    ),
    Promise(
        ("/evse{n}/gbt",), (KILL, FREEZE), (*MOVING, *PLUGGED), CONTINUE, 0.0, 0.0, "another plug is in",
        (*PILOT, *CHADEMO),
    ),
    Promise(
        ("/evse{n}/v2g", "/evse{n}/pilot"), (KILL, FREEZE), PLUGGED, CONTINUE, 0.0, 0.0,
        "another plug is in; CHAdeMO and GB/T have no control pilot", ON_CAN,
    ),
    Promise(
        ("/evse{n}/v2g",), (KILL, FREEZE), PLUGGED, CONTINUE, 0.0, 0.0, "nobody talks", AC,
    ),
    Promise(
        ("dds", "bus_modules"), (GARBAGE,), PHASES, CONTINUE, 0.0, 0.0, "what nobody can use is dropped and counted",
    ),
    Promise(
        ("bus_vehicle{n}",), (GARBAGE,), PLUGGED, CONTINUE, 0.0, 0.0, "what nobody can use is dropped and counted",
        ON_CAN,
    ),
    Promise(
        ("clock",), (JUMP,), PHASES, CONTINUE, 0.0, 0.0, "times of protocols and of safety are monotonic",
    ),
    Promise(
        ("disk",), (FULL,), ("charging",), CONTINUE, 0.0, 0.0,
        "the session whose beginning is on the disk can be billed; no new one begins",
    ),
    Promise(
        ("sim_safety",), (SELF_TEST,), ("cable_check",), CONTINUE, 0.0, 0.0,
        "unplugged, inspected and plugged again, once", (*CCS, *ON_CAN),
    ),
)  # fmt: skip


def _named(protocols: tuple[str, ...]) -> str:
    others = [name for name in PROTOCOLS if name not in protocols]
    if not others:
        return "all"
    return f"all but {', '.join(others)}" if len(others) < len(protocols) else ", ".join(protocols)


def table() -> str:
    """Rows of docs/safety.md."""
    head = ("what breaks", "how", "while", "with", "then", "zero current", "contactors open", "arm still", "because")
    rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for p in PROMISES:
        zero, opened = (f"{p.zero_s:g} s", f"{p.open_s:g} s") if p.expected == STOP else ("-", "-")
        targets = ", ".join(t.replace("{n}", "N") for t in p.targets)
        phases = ", ".join(p.phases).replace("_", " ")
        still = f"{p.still_s:g} s" if p.still_s else "-"
        words = (targets, ", ".join(p.faults), phases, _named(p.protocols), p.expected, zero, opened, still, p.why)
        rows.append(f"| {' | '.join(words)} |")
    return "\n".join(rows)
