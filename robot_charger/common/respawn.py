"""When a node that ended is started again, and when its EVSE goes out of service. Used by ``up`` and by launch.

Plain decisions: time is an argument.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from robot_charger.common.process import BAD_USAGE

FIRST_DELAY_S = 1.0  # before the first new start; each further one waits twice as long
FEWEST_S = 60.0  # a node that ran for so long did not fail at its start
LIMIT = 5  # ends in a row, each before that, after which a node is not started again


@dataclass(frozen=True)
class Decision:
    """``delay_s`` until the new start, or None: the node stays down. ``text`` says so to a person."""

    delay_s: float | None
    text: str


@dataclass
class Upkeep:
    """Keeps the books on the nodes of a station.

    A node of the station (namespace ``/``) serves every EVSE: when it cannot be kept running, none is left.
    """

    evses: Iterable[int]
    lost: dict[int, str] = field(default_factory=dict)  # EVSE -> why it is out of service
    _ends: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.evses = tuple(self.evses)

    @property
    def all_lost(self) -> bool:
        return set(self.lost) >= set(self.evses)

    @property
    def why(self) -> str:
        """One sentence: why no EVSE is left."""
        return "no EVSE is left in service: " + "; ".join(dict.fromkeys(self.lost.values()))

    def ended(self, name: str, status: int, ran_s: float, words: str = "") -> Decision:
        """The node with this fully qualified name ended. ``words``: its last line, for the text."""
        said = f" ({words})" if words else ""
        if status == BAD_USAGE:
            return self._lose(name, f"{name} refuses its configuration{said}")
        ends = self._ends[name] = 1 if ran_s >= FEWEST_S else self._ends.get(name, 0) + 1
        if ends > LIMIT:
            return self._lose(name, f"{name} ended {ends} times in a row, last with status {status}{said}")
        delay_s = FIRST_DELAY_S * 2 ** (ends - 1)
        return Decision(delay_s, f"{name} ended with status {status}{said}: it is started again in {delay_s:g} s")

    def _lose(self, name: str, why: str) -> Decision:
        of = name.strip("/").split("/")[-2:-1]
        served = [n for n in self.evses if not of or of == [f"evse{n}"]]
        for evse in served:
            self.lost.setdefault(evse, why)
        out = ", ".join(str(n) for n in served)
        return Decision(None, f"{why}: it is not started again, EVSE {out} is out of service until a person mends it")
