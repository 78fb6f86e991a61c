"""Names of the messages' constants, for people."""

from __future__ import annotations

from robot_charger import msg


def names(message: type, prefix: str) -> dict[int, str]:
    """Constants of a message by value: {0: "idle", 6: "cable check", ...}."""
    constants = {n: getattr(message, n) for n in dir(message) if n.startswith(prefix)}
    return {value: name[len(prefix) :].lower().replace("_", " ") for name, value in constants.items()}


PHASES = names(msg.SessionState, "PHASE_")
LINKS = names(msg.VehicleLink, "PHASE_")
ROBOT_MODES = names(msg.RobotState, "MODE_")
POWER_MODES = names(msg.SupplyState, "MODE_")
PILOTS = {0: "?", 1: "A", 2: "B", 3: "C", 4: "D", 5: "E", 6: "F", 7: "fault"}
SEVERITIES = names(msg.Fault, "SEVERITY_")
REQUESTS = names(msg.BackendRequest, "KIND_")
MODULE_FAULT = msg.ModuleState.STATE_FAULT
LEVELS = {0: "ok", 1: "warning", 2: "error", 3: "stale"}


def phase_of_event(name: str) -> str:
    """The phase that a session/event announces (RELEASED), empty for other events."""
    told = name.lower().replace("_", " ")
    return told if name.isupper() and told in PHASES.values() else ""
