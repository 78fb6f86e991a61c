"""Interlock 8, explored: every order in which requests, contactors, voltages and failures can come."""

from __future__ import annotations

import itertools

import pytest

from robot_charger.common.clock import MILLISECOND, SECOND
from robot_charger.power.matrix import Link, Switchboard, allocate, links, may_move, pairs


def joined(contacts: int, contactors: list[Link]) -> bool:
    """Whether two outputs are joined through one block, or a group is shorted: in series and in parallel."""
    for block in {c.block for c in contactors}:
        if len({c.to for c in contactors if c.block == block and contacts >> c.bit & 1}) > 1:
            return True
    return False


@pytest.mark.parametrize(
    "contactors",
    [links(1, [1, 2, 3]), pytest.param(links(2, [1, 2]), marks=pytest.mark.slow), pairs([1])],
    ids=["1x3", "2x2", "pair"],
)
def test_no_order_of_goals_and_contactors_joins_two_outputs_or_moves_one_that_may_not(contactors: list[Link]) -> None:
    """Breadth first over (requests, real contacts, what moves, what failed) with every choice of the world.

    In each cycle: any goal for any block; any of the contactors may or may not be allowed to move; a real contact
    follows its coil or lags; one contact may be welded or one feedback stuck open for good; time stands or runs out.
    """
    blocks = len({c.block for c in contactors})
    ends = list(dict.fromkeys(c.to for c in contactors))
    bits = [1 << c.bit for c in contactors]
    goals = [dict(enumerate(g)) for g in itertools.product([0, *ends], repeat=blocks)]
    permissions = [0, sum(bits), *bits]
    first = [1 << c.bit for c in contactors if c.block == 0]  # a defect of another block is the same by symmetry
    defects = [(weld, 0) for weld in (0, *first)] + [(0, blind) for blind in first]
    for weld, blind in defects:
        start = (0, 0, -1, False, 0)  # requested, contacts, moving bit, time out, failed
        seen, todo = {start}, [start]
        while todo:
            requested, contacts, moving, late, failed = todo.pop()
            for goal, allowed in itertools.product(goals, permissions):
                board = Switchboard(contactors, 0.5, requested, failed)
                board._moving = next((c for c in contactors if c.bit == moving), None)
                now = SECOND if late else 100 * MILLISECOND
                before = board.requested
                board.step(now, contacts & ~blind, goal, lambda link, a=allowed: bool(a >> link.bit & 1))  # type: ignore[misc]
                changed = before ^ board.requested
                assert changed.bit_count() <= 1, "one at a time"
                assert not changed & ~allowed, "a contactor moved that may not"
                assert not joined(board.requested, contactors), "two outputs asked to be joined"
                assert not joined(board.requested | contacts, contactors), "asked to join what may be joined"
                for block in range(blocks):
                    owner = board.owner(block, contacts & ~blind)
                    mask = sum(1 << c.bit for c in contactors if (c.block, c.to) == (block, owner))
                    assert contacts & mask == mask, "told as joined, and it is not"
                # The world: contacts follow their coils now, or later; a welded one never opens.
                follow = board.requested | (contacts & weld)
                after = board._moving.bit if board._moving else -1
                for real in {contacts, follow}:
                    assert not joined(real, contactors), "two outputs joined"
                    for out_of_time in {False, after >= 0}:
                        state = (board.requested, real, after, out_of_time, board.failed)
                        if state not in seen:
                            seen.add(state)
                            todo.append(state)
        assert len(seen) > 8


def run(board: Switchboard, goal: dict[int, int], contacts: int, cycles: int = 50) -> int:
    now = board._since_ns
    for _ in range(cycles):
        now += 10 * MILLISECOND
        board.step(now, contacts, goal, lambda link: True)
        contacts = board.requested
    return contacts


def test_a_block_goes_from_one_output_to_the_other_by_way_of_none() -> None:
    board = Switchboard(links(2, [1, 2]))
    contacts = run(board, {0: 1, 1: 2}, 0)
    assert [board.owner(b, contacts) for b in (0, 1)] == [1, 2]
    seen = []
    now = board._since_ns
    for _ in range(20):
        now += 10 * MILLISECOND
        board.step(now, contacts, {0: 2, 1: 2}, lambda link: True)
        contacts = board.requested
        seen.append(board.requested)
    assert list(dict.fromkeys(seen)) == [0b1000, 0b1010] and board.owner(0, contacts) == 2


def test_a_contactor_that_does_not_follow_is_told_once_and_never_asked_again() -> None:
    board = Switchboard(links(1, [1, 2]), time_s=0.1)
    told = [n for k in range(40) for n in board.step(k * 10 * MILLISECOND + 1, 0, {0: 1}, lambda link: True)]
    assert [(link.to, text) for link, text in told] == [(1, "asked to close, it is open")]
    assert board.requested == 0 and board.failed == 0b01
    assert not [n for k in range(40, 80) for n in board.step(k * 10 * MILLISECOND, 0, {0: 2}, lambda link: True)]
    assert board.requested == 0, "its contact might be closed: the block joins nothing else"


@pytest.mark.parametrize(
    ("block_v", "output_v", "current_a", "allowed"),
    [(0, 0, 0, True), (59, 10, 0, True), (61, 10, 0, False), (400, 381, 0, True), (400, 379, 0, False),
     (0, 400, 0, False), (400, 400, 0.6, False), (400, 400, -0.6, False)],
)  # fmt: skip
def test_a_contactor_moves_cold_or_matched_and_without_current(
    block_v: float, output_v: float, current_a: float, allowed: bool
) -> None:
    assert may_move(block_v, output_v, current_a) == allowed


@pytest.mark.parametrize(
    ("owners", "active", "goal"),
    [
        ([1, 1, 2, 2], set(), [1, 1, 2, 2]),
        ([1, 1, 2, 2], {1}, [1, 1, 1, 1]),
        ([1, 1, 1, 1], {1, 2}, [1, 1, 2, 2]),
        ([2, 2, 2, 2], {1, 2}, [1, 1, 2, 2]),
        ([0, 0, 0, 0], {2}, [2, 2, 2, 2]),
    ],
)
def test_blocks_of_idle_evses_are_lent_and_called_back(owners: list[int], active: set[int], goal: list[int]) -> None:
    assert allocate([1, 1, 2, 2], owners, active) == goal


def test_blocks_of_an_idle_evse_are_shared_evenly() -> None:
    assert allocate([1, 2, 3, 3], [1, 2, 3, 3], {1, 2}) == [1, 2, 1, 2]
    assert allocate([1, 2, 3, 3], [1, 2, 1, 2], {1, 2}) == [1, 2, 1, 2]
