"""The protocol that docs/adding-a-module.md writes, taken from that page, charges a vehicle."""

from __future__ import annotations

import re
import struct
import sys
import textwrap
import types
from pathlib import Path

import pytest
from power_desk import real

from robot_charger.power import contract, parameters
from robot_charger.power.codec import ModuleFault, State
from robot_charger.power.drivers.polled import PolledDriver, Question
from robot_charger.sim.rack.polled import AnsweringModules

PAGE = Path(__file__).parents[2] / "docs" / "adding-a-module.md"


def code(section: str) -> str:
    """The indented code under a heading of the page."""
    body = PAGE.read_text().split(f"## {section}")[1].split("\n## ")[0]
    block = re.search(r"(?:^(?:    .*)?\n)+", body[body.index("\n    ") + 1 :], re.M)
    assert block is not None
    return textwrap.dedent(block[0])


@pytest.fixture
def brick(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {
        "struct": struct, "PolledDriver": PolledDriver, "Question": Question, "State": State,
        "ModuleFault": ModuleFault, "AnsweringModules": AnsweringModules,
    }  # fmt: skip
    for package, section in (("power.drivers", "2. The driver"), ("sim.rack", "3. The other end")):
        module = types.ModuleType(f"robot_charger.{package}.brick")
        exec(code(section), dict(names) | {"__name__": module.__name__}, module.__dict__)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    row = eval(f"[{code('1. The row')}]", {"Contract": contract.Contract, "Rating": contract.Rating})[0]
    monkeypatch.setitem(contract.CONTRACTS, "brick", row)
    assert parameters.CONTRACTS is contract.CONTRACTS


@pytest.mark.usefixtures("brick")
def test_the_page_s_protocol_charges() -> None:
    desk = real("brick", 4)
    desk.charge(60.0)
    desk.run(4.0)
    assert desk.network.current_a == pytest.approx(60.0, abs=2.5) and not desk.codes
    desk.rack.fault("module-dead", True)
    desk.run(6.0)
    assert desk.codes == {401} and desk.network.current_a == pytest.approx(60.0, abs=3.0)
