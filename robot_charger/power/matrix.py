"""The contactor matrix of a bank that several EVSEs share: blocks of modules, each joined to at most one output.

Interlock 8: a block belongs to at most one EVSE; no two outputs are ever joined; a contactor moves only at zero
current with its block and the output below 60 V or within 20 V of each other; one contactor moves at a time, and its
feedback is awaited before the next. ``Switchboard`` keeps these rules whatever it is asked for; ``allocate`` says
what to ask for. The contactors are driven by the safety controller, which has the same rule in hardware.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from robot_charger.common.clock import SECOND

MATCH_V = 20.0
COLD_V = 60.0
STILL_A = 0.5  # of a whole block
PARALLEL, SERIES = 1, 2  # two groups: how many of them are in series


@dataclass(frozen=True)
class Link:
    """One contactor: joins ``block`` (from 0) to the output of EVSE ``to``; its bit in PowerCommand.links.

    Between the two groups of a block of its own (``pairs``), ``to`` is SERIES or PARALLEL.
    """

    bit: int
    block: int
    to: int


def links(blocks: int, evses: Sequence[int]) -> list[Link]:
    """All contactors of a matrix: block by block, in each by EVSE."""
    return [Link(b * len(evses) + k, b, evse) for b in range(blocks) for k, evse in enumerate(evses)]


def pairs(evses: Sequence[int]) -> list[Link]:
    """Contactors between the two groups of each EVSE: one that joins them in series, two (plus, minus) in parallel."""
    return [Link(3 * k + i, k, to) for k in range(len(evses)) for i, to in enumerate((SERIES, PARALLEL, PARALLEL))]


def may_move(block_v: float, output_v: float, current_a: float) -> bool:
    """Whether a contactor between these two may move: no current, and both cold or alike."""
    alike = abs(block_v - output_v) <= MATCH_V or (block_v < COLD_V and output_v < COLD_V)
    return abs(current_a) < STILL_A and alike


def allocate(homes: Sequence[int], owners: Sequence[int], active: set[int]) -> list[int]:
    """Which EVSE each block should belong to (0: as it is).

    An EVSE in a session has all blocks whose home it is; blocks of idle EVSEs go to those in a session, evenly; who
    has one keeps it until its home needs it. With nobody in a session every block goes home.
    """
    if not active:
        return list(homes)
    goal = [home if home in active else 0 for home in homes]
    for block, owner in enumerate(owners):
        if not goal[block] and owner in active:
            goal[block] = owner
    for block in range(len(homes)):
        if not goal[block]:
            goal[block] = min(sorted(active), key=goal.count)
    return goal


@dataclass
class Switchboard:
    """Requests for the contactors, moved one by one towards a goal.

    ``requested`` is what the safety controller is asked to close (bit per link). A contactor that does not follow
    within ``time_s``, or moves unasked, is in ``failed`` and is never asked to close again; what it might join
    counts as joined.
    """

    contactors: list[Link]
    time_s: float = 0.5
    requested: int = 0
    failed: int = 0
    _moving: Link | None = None
    _since_ns: int = 0
    _rivals: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for link in self.contactors:
            others = [o.bit for o in self.contactors if o.block == link.block and o.to != link.to]
            self._rivals[link.bit] = sum(1 << bit for bit in others)

    @property
    def moving(self) -> bool:
        return self._moving is not None

    def owner(self, block: int, feedback: int) -> int:
        """What this block surely is joined to: all asked for, confirmed and at rest; 0 for nothing."""
        moving = 1 << self._moving.bit if self._moving else 0
        sure = self.requested & feedback & ~self.failed & ~moving
        mine = [link for link in self.contactors if link.block == block]
        for to in dict.fromkeys(link.to for link in mine):
            if all(sure >> link.bit & 1 for link in mine if link.to == to):
                return to
        return 0

    def step(
        self, now_ns: int, feedback: int, goal: Mapping[int, int], may_move: Callable[[Link], bool]
    ) -> list[tuple[Link, str]]:
        """One cycle. ``goal`` maps blocks to what they are to be joined to (0: nothing).

        Returns contactors that failed just now, and how.
        """
        news = self._check(now_ns, feedback)
        if self._moving is not None:
            return news
        wanted = sum(1 << c.bit for c in self.contactors if goal.get(c.block, 0) == c.to) & ~self.failed
        for link in self.contactors:
            bit = 1 << link.bit
            if self.requested & bit and not wanted & bit and may_move(link):
                self._move(link, now_ns)
                return news
        joined = self.requested | feedback | self.failed
        for link in self.contactors:
            bit = 1 << link.bit
            if wanted & bit & ~self.requested and not joined & (self._rivals[link.bit] | bit) and may_move(link):
                self._move(link, now_ns)
                return news
        return news

    def _move(self, link: Link, now_ns: int) -> None:
        self.requested ^= 1 << link.bit
        self._moving, self._since_ns = link, now_ns

    def _check(self, now_ns: int, feedback: int) -> list[tuple[Link, str]]:
        news = []
        for link in self.contactors:
            bit = 1 << link.bit
            agrees = not (feedback ^ self.requested) & bit
            if link == self._moving:
                if agrees:
                    self._moving = None
                    continue
                if now_ns - self._since_ns <= self.time_s * SECOND:
                    continue
                self._moving = None
            if not agrees and not self.failed & bit:
                self.failed |= bit
                asked, is_now = ("close", "open") if self.requested & bit else ("open", "closed")
                news.append((link, f"asked to {asked}, it is {is_now}"))
        return news
