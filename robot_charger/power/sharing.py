"""Power shared between the EVSEs of one bank: which block serves whom, and the notice before it leaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from robot_charger.common.clock import SECOND
from robot_charger.power.bank import Bank
from robot_charger.power.matrix import Link, Switchboard, allocate, links, may_move
from robot_charger.power.parameters import PowerParameters


@dataclass(frozen=True)
class Sharer:
    """One EVSE as the matrix sees it."""

    bank_voltage_v: float  # at its contactors, modules' side
    active: bool  # somebody charges, or is about to
    movable: bool  # it is in a mode in which a block may join or leave


class Sharing:
    """Moves blocks of modules between outputs; called once a control cycle.

    A block is taken back only after ``matrix.notice_s`` with lowered limits, then its modules go to zero, then its
    contactor opens. It joins an output when both are cold or alike: before a session, as a rule.
    """

    def __init__(self, parameters: PowerParameters, bank: Bank) -> None:
        self.parameters = parameters
        self.bank = bank
        self.blocks = parameters.matrix__blocks
        self.board = Switchboard(links(self.blocks, parameters.evses), parameters.contactor_time_s)
        self.homes = [parameters.evses[b * len(parameters.evses) // self.blocks] for b in range(self.blocks)]
        self.feedback = 0
        self.feedback_ns = 0
        self.owners = [0] * self.blocks
        self._leaving_ns: dict[int, int] = {}  # block -> since when its leaving is announced

    def step(self, now_ns: int, outputs: Mapping[int, Sharer], known: bool) -> list[str]:
        """One cycle; ``known`` is false while feedback is old or the station blocked: then nothing moves.

        Returns what failed just now, in words.
        """
        if not known:
            return []
        active = {evse for evse, output in outputs.items() if output.active}
        goal = allocate(self.homes, self.owners, active)
        aims = {}
        for block, (owner, wanted) in enumerate(zip(self.owners, goal, strict=True)):
            if owner and owner != wanted and outputs[owner].movable:
                self._leaving_ns.setdefault(block, now_ns)
            else:
                self._leaving_ns.pop(block, None)
            aims[block] = 0 if self._gone(block, outputs, now_ns) else owner or wanted
        news = self.board.step(now_ns, self.feedback, aims, lambda link: self._may_move(link, outputs))
        self.owners = [self.board.owner(block, self.feedback) for block in range(self.blocks)]
        self.bank.belong([0 if self._gone(b, outputs, now_ns) else owner for b, owner in enumerate(self.owners)])
        self.bank.leaving = np.isin(self.bank.block, list(self._leaving_ns))
        return [f"contactor of block {link.block + 1} to EVSE {link.to}: {text}" for link, text in news]

    def _gone(self, block: int, outputs: Mapping[int, Sharer], now_ns: int) -> bool:
        """Whether the notice to this block's EVSE is over; an idle one needs none."""
        since, owner = self._leaving_ns.get(block), self.owners[block]
        if since is None or not owner:
            return False
        return not outputs[owner].active or now_ns - since >= self.parameters.matrix__notice_s * SECOND

    def _may_move(self, link: Link, outputs: Mapping[int, Sharer]) -> bool:
        module_v, current_a, off = self.bank.figures(self.bank.block == link.block)
        output = outputs[link.to]
        return off and output.movable and may_move(module_v * self.bank.groups, output.bank_voltage_v, current_a)
