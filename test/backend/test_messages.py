"""docs/ocpp.md lists every message of every version, truly: against the schemas, the code and the tests."""

from __future__ import annotations

import re
from pathlib import Path

import ocpp.messages
import pytest

from robot_charger.backend.service import DIALECTS

from .conftest import Desk

SOURCE = Path(__file__).resolve().parents[2]
PAGE = (SOURCE / "docs/ocpp.md").read_text(encoding="utf-8")
VERSIONS = ("1.6", "2.0.1", "2.1")
CODE = "".join(p.read_text(encoding="utf-8") for p in (SOURCE / "robot_charger/backend").glob("*.py"))
TESTS = {
    name
    for p in Path(__file__).parent.glob("test_*.py")
    for name in re.findall(r"^def (test_\w+)", p.read_text(encoding="utf-8"), re.M)
}
ROW = re.compile(r"^\| (?P<name>[A-Z]\w+) \| (?P<cells>(?:(?:yes|not done|-) \| ){3})(?P<test>.+) \|$", re.M)
TABLE = {m["name"]: (dict(zip(VERSIONS, m["cells"].split(" | "), strict=False)), m["test"]) for m in ROW.finditer(PAGE)}
FROM_THE_STATION = re.compile(
    r"^(Notify|Report[A-Z]|BatterySwap$|Open|Close|Pull|VatNumber|Sign[A-Z]|Heartbeat|Boot|"
    r"Authorize|Meter|Start|Stop|Transaction|Security|Cleared|Get15118|GetCertificate.*Status)"
    r"|(StatusNotification|StatusUpdate)$"
)


def actions(version: str) -> set[str]:
    """Every request of a version, by the schemas of the ocpp package."""
    folder = Path(ocpp.messages.__file__).parent / f"v{version.replace('.', '')}" / "schemas"
    return {p.stem.removesuffix("Request") for p in folder.glob("*.json") if not p.stem.endswith("Response")}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_table_lists_every_message_and_what_becomes_of_it(desk: Desk, version: str) -> None:
    known = actions(version)
    assert known == {name for name, (cells, _) in TABLE.items() if cells[version] != "-"}
    handled = set(DIALECTS[version](desk.station, lambda: desk.now).handlers)
    asked = {name for name in known if name == "DataTransfer" or not FROM_THE_STATION.search(name)}
    assert handled <= asked
    for name in known:
        done = TABLE[name][0][version] == "yes"
        if name in asked:
            assert done == (name in handled), name
        else:
            assert done == (f'"{name}"' in CODE), name


def test_what_is_done_names_a_test_that_there_is() -> None:
    for name, (cells, test) in TABLE.items():
        assert (test == "-") == ("yes" not in cells.values()), name
    named = re.findall(r"`(test_\w+)`", PAGE)
    files = {p.stem for p in Path(__file__).parent.glob("test_*.py")}
    missing = [n for n in named if n not in TESTS | files]
    assert not missing and len(named) > 100
