"""Names of the messages' constants, for people."""

from __future__ import annotations

from enum import IntEnum

from robot_charger.words.values import Link, ModulePhase, Phase, Pilot, Request, RobotMode, Severity, SupplyMode


def names(enum: type[IntEnum]) -> dict[int, str]:
    """Members of an enumeration by value: {0: "idle", 6: "cable check", ...}."""
    return {int(member): member.name.lower().replace("_", " ") for member in enum}


PHASES = names(Phase)
LINKS = names(Link)
ROBOT_MODES = names(RobotMode)
POWER_MODES = names(SupplyMode)
PILOTS = {int(p): p.name if len(p.name) == 1 else p.name.lower() for p in Pilot} | {0: "?"}
SEVERITIES = names(Severity)
REQUESTS = names(Request)
MODULE_FAULT = ModulePhase.FAULT
LEVELS = {0: "ok", 1: "warning", 2: "error", 3: "stale"}


def phase_of_event(name: str) -> str:
    """The phase that a session/event announces (RELEASED), empty for other events."""
    told = name.lower().replace("_", " ")
    return told if name.isupper() and told in PHASES.values() else ""
