"""Every session that the flow can reach keeps the interlocks, and the checker would notice if not."""

from __future__ import annotations

import pytest

from robot_charger.supervisor import checker, flow, interlocks
from robot_charger.words.values import Phase

pytestmark = pytest.mark.timeout(1200)
ALL = pytest.mark.parametrize("limits", checker.KINDS.values(), ids=checker.KINDS)


@ALL
def test_the_first_hundred_thousand_steps_break_no_interlock(limits):
    """What ``make test`` has time for; .ci/run and ``make test-all`` go to the fixed point."""
    result = checker.explore(max_steps=100_000, limits=limits)
    assert result.steps >= 100_000
    assert not result.violations, "\n".join(str(v) for v in result.violations[:5])


@pytest.mark.slow  # four minutes of processor time
@ALL
def test_no_reachable_session_breaks_an_interlock(limits):
    result = checker.explore(limits=limits)
    assert result.complete, "the fixed point was not reached"
    without = {Phase.CABLE_CHECK, Phase.PRECHARGE} if limits.plain_ac else set()
    assert result.phases == frozenset(Phase) - without
    assert not result.violations, "\n".join(str(v) for v in result.violations[:5])


def test_a_plug_that_nobody_asked_for_is_found(monkeypatch):
    monkeypatch.setattr(flow, "_plug_wanted", lambda c: True)
    wanted = "ACDP: the plug goes only to a vehicle that asks for it and is authorised"
    result = checker.explore(looking_for=wanted, limits=checker.ACDP_LIMITS)
    assert wanted in {v.interlock for v in result.violations}


@pytest.mark.parametrize(
    "name, interlock, limits",
    [
        ("forbids_contact_motion", "1: contact only with a dead output", checker.LIMITS),
        ("forbids_purpose", "3: output only with live target, pilot, safety", checker.LIMITS),
        ("forbids_plain_ac", "3: output only with live target, pilot, safety", checker.AC_LIMITS),
    ],
)
def test_a_missing_interlock_is_found(monkeypatch, name, interlock, limits):
    """The table alone would not hold: without the interlock the checker finds the violation."""
    monkeypatch.setattr(interlocks, name, lambda *a: "")
    result = checker.explore(looking_for=interlock, limits=limits)
    assert interlock in {v.interlock for v in result.violations}
