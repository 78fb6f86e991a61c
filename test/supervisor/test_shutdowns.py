"""Normal, error and emergency shutdown: each row of the table against what the vehicle gets to see."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from robot_charger.chademo.logic import Phase as ChademoPhase
from robot_charger.common.clock import now_ns
from robot_charger.supervisor import flow
from robot_charger.supervisor.model import Inputs, Limits, Phase, Purpose, Session, Shutdown
from robot_charger.supervisor.shutdowns import SHUTDOWNS, table
from robot_charger.v2g.bridge import Bridge, LinkPhase, SessionPhase
from robot_charger.v2g.controller import Controller
from robot_charger.v2g.parameters import V2gParameters

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
    assert command.purpose == Purpose.NONE and command.emergency == emergency


@CLASSES
def test_the_status_that_din_and_iso_15118_2_tell(kind: Shutdown) -> None:
    bridge = Bridge()
    bridge.inform(session_id="s", phase=SessionPhase.STOPPING, shutdown=int(kind), session_stamp_ns=now_ns())
    bridge.vehicle = replace(bridge.vehicle, phase=LinkPhase.CHARGING)
    status = asyncio.run(Controller(bridge, V2gParameters()).get_dc_evse_status())
    assert status.evse_status_code.name == SHUTDOWNS[kind].ccs_status
    assert status.evse_notification.name == "STOP_CHARGING"


@CLASSES
def test_the_bits_and_the_current_that_a_chademo_vehicle_sees(kind: Shutdown) -> None:
    desk = chademo_desk()
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


def chademo_desk() -> Any:
    """The protocol's own desk (test/chademo/desk.py)."""
    path = Path(__file__).parents[1] / "chademo/desk.py"
    spec = importlib.util.spec_from_file_location("chademo_desk", path)
    assert spec and spec.loader
    module = sys.modules.setdefault("chademo_desk", importlib.util.module_from_spec(spec))
    spec.loader.exec_module(module)
    return module.Desk(charge_seconds=60.0)


def test_the_safety_page_shows_the_table() -> None:
    assert table() in Path(__file__).parents[2].joinpath("docs/safety.md").read_text()
