"""The station's health as one tree, as rqt_robot_monitor shows it: made of what the nodes say, once a second.

/Station, below it one branch per EVSE (pilot, v2g, chademo, gbt, supervisor, rates of its topics), the power bank with
its modules, robot, back end, recorder, and the rates of the station's topics. A branch is as bad as the worst below it
and says that one's sentence. Plain logic; times are seconds of any clock that does not jump.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from robot_charger import msg
from robot_charger.operator import words
from robot_charger.words.values import ModulePhase

ROOT = "/Station"
STALE_S = 5.0  # a node reports every second
OK, WARN, ERROR, STALE = (DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR, DiagnosticStatus.STALE)
_EVSE = re.compile(r"^/evse(\d+)/(.+)$")
_MODULES = words.names(ModulePhase)
_MODULE_LEVELS = {
    ModulePhase.MISSING: ERROR,
    ModulePhase.DERATED: WARN,
    ModulePhase.FAULT: ERROR,
}
_GRAVITY = {OK: 0, WARN: 1, STALE: 2, ERROR: 3}


def place(name: str) -> str:
    """Where the status of a node, or the rate of a topic, hangs: /evse1/v2g -> /Station/EVSE 1/v2g."""
    match = _EVSE.match(name)
    return f"{ROOT}/EVSE {match[1]}/{match[2]}" if match else f"{ROOT}/{name.strip('/')}"


@dataclass
class Tree:
    """``hear`` and ``count`` as messages come, ``statuses`` once a second."""

    _heard: dict[str, tuple[float, DiagnosticStatus]] = field(default_factory=dict)
    _counts: dict[str, int] = field(default_factory=dict)
    _counted_at: float = 0.0
    _rates: dict[str, float] = field(default_factory=dict)

    def hear(self, status: DiagnosticStatus, now_s: float) -> None:
        self._heard[status.name] = (now_s, status)

    def count(self, counts: Mapping[str, int], now_s: float) -> None:
        """Messages of every topic since the beginning."""
        passed = now_s - self._counted_at
        if self._counted_at and passed > 0:
            self._rates = {topic: (n - self._counts.get(topic, 0)) / passed for topic, n in counts.items()}
        self._counts, self._counted_at = dict(counts), now_s

    def statuses(self, modules: msg.ModuleArray | None, now_s: float) -> list[DiagnosticStatus]:
        """The whole tree, a branch before its leaves."""
        leaves = [self._leaf(at, status, now_s) for at, status in self._heard.values()]
        leaves += self._modules(modules) if modules else []
        leaves += self._topics()
        branches: dict[str, DiagnosticStatus] = {}
        for leaf in leaves:
            parent = leaf.name.rpartition("/")[0]
            while parent:
                known = branches.setdefault(parent, DiagnosticStatus(name=parent, message="all well", level=OK))
                if _GRAVITY[leaf.level] > _GRAVITY[known.level]:
                    known.level, known.message = leaf.level, f"{leaf.name[len(parent) + 1 :]}: {leaf.message}"
                parent = parent.rpartition("/")[0]
        own = {leaf.name: leaf for leaf in leaves}
        for name, branch in branches.items():
            if name in own:  # a node that has leaves of its own, as /power has modules: its values and the worst level
                told = own.pop(name)
                if _GRAVITY[told.level] >= _GRAVITY[branch.level]:
                    branch.level, branch.message = told.level, told.message
                branch.values = told.values
        return sorted([*branches.values(), *own.values()], key=lambda s: _natural(s.name))

    @staticmethod
    def _leaf(at: float, status: DiagnosticStatus, now_s: float) -> DiagnosticStatus:
        level, text, age = status.level, status.message, now_s - at
        if age > STALE_S:
            level, text = STALE, f"silent for {age:.0f} s, last: {text}"
        return DiagnosticStatus(
            name=place(status.name), level=level, message=text, hardware_id=status.hardware_id, values=status.values
        )

    @staticmethod
    def _modules(array: msg.ModuleArray) -> list[DiagnosticStatus]:
        found = []
        for module in array.modules:
            values = {
                "feeds EVSE": module.evse or "none",
                "bus": module.bus,
                "voltage [V]": f"{module.voltage_v:.1f}",
                "current [A]": f"{module.current_a:.2f}",
                "set-point [A]": f"{module.setpoint_a:.2f}",
                "hottest point [deg C]": f"{module.temperature_c:.0f}",
                "inlet air [deg C]": f"{module.ambient_c:.0f}",
                "fault bits": f"0x{module.faults:04X}",
                "silent for [ms]": module.age_ms,
                "operating hours [h]": f"{module.hours:.0f}",
            }
            found.append(
                DiagnosticStatus(
                    name=f"{ROOT}/power/modules/{module.id}",
                    level=_MODULE_LEVELS.get(module.state, OK),
                    message=_MODULES.get(module.state, str(module.state)),
                    values=[KeyValue(key=k, value=str(v)) for k, v in values.items()],
                )
            )
        return found

    def _topics(self) -> list[DiagnosticStatus]:
        """One leaf per branch: how often each of its topics speaks."""
        groups: dict[str, dict[str, float]] = {}
        for topic, rate in sorted(self._rates.items()):
            match = _EVSE.match(topic)
            where, name = (f"{ROOT}/EVSE {match[1]}", match[2]) if match else (ROOT, topic)
            groups.setdefault(where, {})[f"{name} [Hz]"] = rate
        return [
            DiagnosticStatus(
                name=f"{where}/topics",
                level=OK,
                message=f"{sum(r > 0 for r in rates.values())} of {len(rates)} topics speak",
                values=[KeyValue(key=k, value=f"{v:.1f}") for k, v in rates.items()],
            )
            for where, rates in groups.items()
        ]


def _natural(name: str) -> list[tuple[int, str]]:
    """Module 10 after module 9."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]
