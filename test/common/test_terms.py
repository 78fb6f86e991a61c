"""The words that nodes share have the numbers of the messages, one for one."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import pytest

from robot_charger import msg
from robot_charger.common import terms
from robot_charger.common.faults import Code, Severity


@pytest.mark.parametrize(
    "words, message, prefix",
    [
        (terms.Phase, msg.SessionState, "PHASE_"),
        (terms.Authorization, msg.SessionState, "AUTHORIZATION_"),
        (terms.Shutdown, msg.SessionState, "SHUTDOWN_"),
        (terms.Purpose, msg.VehicleTarget, "PURPOSE_"),
        (terms.Purpose, msg.ChargePermit, "PURPOSE_"),
        (terms.Zone, msg.MotionPermit, "ZONE_"),
        (terms.Link, msg.VehicleLink, "PHASE_"),
        (terms.Lock, msg.VehicleLink, "LOCK_"),
        (terms.Insulation, msg.SupplyState, "INSULATION_"),
        (terms.PilotMode, msg.PilotCommand, "MODE_"),
        (Severity, msg.Fault, "SEVERITY_"),
    ],
)
def test_numbers_are_those_of_the_message(words: type[IntEnum], message: Any, prefix: str) -> None:
    told = {name: getattr(message, name) for name in dir(message) if name.startswith(prefix)}
    assert {prefix + word.name: int(word) for word in words} == told


def test_fault_codes_are_those_of_the_message() -> None:
    assert all(getattr(msg.Fault, code.name) == code for code in Code if code)
