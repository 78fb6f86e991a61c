"""The two groups of modules of each EVSE, switched between parallel and series by what its vehicle may ask for.

A module reaches ``module.max_voltage_v``; two groups in series reach twice that at half the current. Interlock 8: a
contactor between groups moves only while the output is off, its contactors are seen open, no current flows and every
module is below 60 V; one moves at a time, and series is never joined with parallel: that would short a group.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from robot_charger.power.bank import Bank
from robot_charger.power.matrix import COLD_V, PARALLEL, SERIES, STILL_A, Link, Switchboard, pairs
from robot_charger.power.parameters import PowerParameters


@dataclass(frozen=True)
class Pair:
    """One EVSE as the switch sees it."""

    top_v: float  # highest voltage that its session may need, 0: nobody asks
    movable: bool  # off, output contactors open, the bank's side below 60 V


class SeriesSwitch:
    """Moves the contactors between groups; called once a control cycle."""

    def __init__(self, parameters: PowerParameters, bank: Bank) -> None:
        self.parameters = parameters
        self.bank = bank
        self.board = Switchboard(pairs(parameters.evses), parameters.contactor_time_s)
        self.feedback = 0
        self.feedback_ns = 0
        self.goal = dict.fromkeys(range(len(parameters.evses)), PARALLEL)

    def step(self, now_ns: int, outputs: Mapping[int, Pair], known: bool) -> list[str]:
        """One cycle; ``known`` is false while feedback is old or the station blocked: then nothing moves.

        Returns what failed just now, in words.
        """
        if not known:
            return []
        for pair, evse in enumerate(self.parameters.evses):
            if outputs[evse].top_v > 0.0:
                self.goal[pair] = self.wanted(outputs[evse].top_v)
        news = self.board.step(now_ns, self.feedback, self.goal, lambda link: self._may_move(link, outputs))
        for pair, evse in enumerate(self.parameters.evses):
            self.bank.arrange(evse, self.board.owner(pair, self.feedback))
        names = {SERIES: "series", PARALLEL: "parallel"}
        return [
            f"{names[link.to]} contactor {link.bit} of EVSE {self.parameters.evses[link.block]}: {text}"
            for link, text in news
        ]

    def settled(self, evse: int, top_v: float) -> bool:
        """Whether this EVSE's groups stand as a session up to this voltage [V] needs them."""
        return self.bank.arrangement[evse] == self.wanted(top_v)

    def wanted(self, top_v: float) -> int:
        """Groups that a session up to this voltage [V] needs in series."""
        return SERIES if top_v > self.parameters.module__max_voltage_v else PARALLEL

    def _may_move(self, link: Link, outputs: Mapping[int, Pair]) -> bool:
        evse = self.parameters.evses[link.block]
        module_v, current_a, off = self.bank.figures(self.bank.evse == evse)
        return off and outputs[evse].movable and module_v < COLD_V and current_a < STILL_A
