"""The page of what follows: its answers are the table's."""

from __future__ import annotations

import json

from robot_charger.supervisor import page
from robot_charger.words.values import Phase


def test_answers() -> None:
    assert page.answer(Phase.CHARGING, ()) == {
        "rule": "none", "phase": "charging", "shutdown": "none", "output": "transfer", "arm": "none", "pilot": "pwm",
        "output is held by": "nothing",
        "contact motion is held by": "output is not safe: contactors must be open and the voltage below 60 V",
    }  # fmt: skip
    fire = page.answer(Phase.CHARGING, ("fire",))
    assert (fire["rule"], fire["phase"], fire["pilot"]) == ("emergency", "faulted", "f")
    assert "latched" in fire["shutdown"] and fire["output"] == "none"
    assert page.answer(Phase.CHARGING, ("over-voltage at the vehicle",))["shutdown"] == "emergency"


def test_the_page_has_every_phase_and_every_pair() -> None:
    text = page.page()
    told = json.loads(text.split("const T=")[1].split(";\nfunction")[0])
    n = len(page.CHANGES)
    assert set(told) == {p.name.lower() for p in Phase} and all(
        len(v) == 1 + n + n * (n - 1) // 2 for v in told.values()
    )
    assert all(f"> {name}</label>" in text for name in page.CHANGES if "<" not in name)
