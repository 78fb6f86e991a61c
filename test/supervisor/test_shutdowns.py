"""Normal, error and emergency shutdown: each line of the three tables against what the vehicle gets to see."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from robot_charger.chademo.logic import Phase as ChademoPhase
from robot_charger.common.clock import now_ns
from robot_charger.supervisor import flow
from robot_charger.supervisor.model import Inputs, Limits, Session
from robot_charger.supervisor.shutdowns import FROM_A, RAMP_A_S, SHUTDOWNS, page
from robot_charger.v2g.bridge import Station
from robot_charger.v2g.secc import acdp, answers
from robot_charger.v2g.secc.energy import Energy
from robot_charger.v2g.secc.table import Moment, Settings, Talk
from robot_charger.words.values import Link, Phase, Purpose, Shutdown

CLASSES = pytest.mark.parametrize("kind", SHUTDOWNS, ids=lambda k: k.name.lower())


@CLASSES
def test_the_pilot_and_the_permit(kind: Shutdown) -> None:
    emergency = kind is Shutdown.EMERGENCY
    s = Session(
        phase=Phase.FAULTED if emergency else Phase.STOPPING, session_id="s", mated=True, insulation_passed=True,
        shutdown=kind, emergency_latched=emergency,
    )  # fmt: skip
    command = flow.command(s, Inputs(), Limits())
    assert (command.pilot, command.duty) == (SHUTDOWNS[kind].pilot, SHUTDOWNS[kind].duty)
    assert command.purpose == Purpose.NONE and command.abrupt == (kind is not Shutdown.NORMAL)


@CLASSES
def test_the_current_and_the_contactors(kind: Shutdown) -> None:
    """Power, rack and safety controller in injected time; the vehicle goes on asking for what it asked for."""
    desks = helper("power_desk", "power/power_desk.py")
    desk = desks.charged(FROM_A)
    desk.run(lambda: desk.network.current_a > 0.99 * FROM_A)
    assert desk.parameters.ramp__down_a_s == RAMP_A_S
    row = SHUTDOWNS[kind]
    if kind is Shutdown.EMERGENCY:
        desk.safety.fault("emergency-stop", True)
    desk.number += 1
    desk.permits[1] = {"purpose": Purpose.NONE, "number": desk.number, "abrupt": kind is not Shutdown.NORMAL}
    before_a, amperes, closed = desk.network.current_a, [], []
    for _ in range(300):
        desk.cycle()
        amperes.append(desk.network.current_a)
        closed.append(desk.network.contactors)
    zero = max((i for i, a in enumerate(amperes) if a >= 5.0), default=-1) + 1
    opened = closed.index(False)
    assert zero * 0.01 <= row.zero_s and opened * 0.01 <= row.open_s and not any(closed[opened:])
    assert max(amperes) <= 1.01 * FROM_A, "it never rises"
    falls = max(a - b for a, b in itertools.pairwise([before_a, *amperes]))
    assert (falls < 1.5 * RAMP_A_S * 0.01 + 1.0) == (kind is Shutdown.NORMAL), "by ramp, or at once"


@CLASSES
def test_the_notification_of_iso_15118_20_and_the_flags_of_acdp(kind: Shutdown) -> None:
    talk = stopping(kind)
    status = answers.status_20(talk)
    assert status is not None and status["EVSENotification"] == "Terminate"
    flags = acdp.system_status(talk, {}).fields
    assert {f for f in ("EVSEEmergencyShutdown", "EVSEMalfunction") if flags[f]} == set(SHUTDOWNS[kind].acdp_flags)


@CLASSES
def test_the_status_that_din_and_iso_15118_2_tell(kind: Shutdown) -> None:
    status = answers.dc_status(stopping(kind))
    words = SHUTDOWNS[kind].ccs_status.removeprefix("EVSE_").split("_")
    assert status["EVSEStatusCode"] == "EVSE_" + "".join(word.capitalize() for word in words)
    assert status["EVSENotification"] == "StopCharging"


@CLASSES
def test_the_bits_and_the_current_that_a_chademo_vehicle_sees(kind: Shutdown) -> None:
    desk = helper("chademo_desk", "chademo/desk.py").Desk(charge_seconds=60.0)
    desk.start()
    desk.until(ChademoPhase.CHARGE)
    desk.run(2.0)
    before = len(desk.log)
    orderly = kind is Shutdown.NORMAL
    desk.session = replace(desk.session, **({"stop": True} if orderly else {"broken": True}))
    desk.run(0.3)
    told = [values for _, identifier, values in desk.log[before:] if identifier == 0x109][-1]
    bits = {n for n in ("malfunction", "incompatible", "system_malfunction", "stop_control") if told[n]}
    assert bits == set(SHUTDOWNS[kind].chademo_bits)
    assert abs(desk.supply.current_a) <= 5.0
    desk.until(ChademoPhase.ENDED)
    assert not desk.locked, "dead and let go"


def stopping(kind: Shutdown) -> Talk:
    """What v2g knows when a transfer is ended by this class."""
    talk = Talk(Settings(protocols=()), Energy())
    talk.now = Moment(now_ns(), 0.0)
    talk.phase = Link.CHARGING
    talk.station = Station(session_id="s", phase=Phase.STOPPING, shutdown=int(kind), session_stamp_ns=talk.now.ns)
    return talk


def helper(name: str, file: str) -> Any:
    """The desk of another part's tests."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / file)
    assert spec and spec.loader
    module = sys.modules.setdefault(name, importlib.util.module_from_spec(spec))
    spec.loader.exec_module(module)
    return module


def test_the_safety_page_shows_the_tables() -> None:
    assert page() in Path(__file__).parents[2].joinpath("docs/safety.md").read_text()
