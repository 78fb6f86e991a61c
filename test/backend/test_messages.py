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
    for p in Path(__file__).parent.rglob("test_*.py")
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
    files = {p.stem for p in Path(__file__).parent.rglob("test_*.py")}
    missing = [n for n in named if n not in TESTS | files]
    assert not missing and len(named) > 100


IDS = re.compile(r"^\| (?P<ids>[A-Z]_\d+[A-Z_\d, ]*) \| .+ \| (?P<test>`test_\w+`.*|not done) \|$", re.M)
NUMBERS = {  # the cases of OCPP 2.0.1 part 6 for a charging station, by block
    "A": "1 4 5 6 7 9 10 11 14 15 19 20 21 22 23",
    "B": "1 2 3 6 7 8 9 10 11 12 13 15 20 21 22 23 25 26 27 28 29 30 32 33 34 35 36 37 39 41 43 45 46 47 49 50 51 "
    "52 53 57",
    "C": "2 4 5 6 7 8 9 10 11 12 13 15 16 17 18 26 32 33 34 36 37 38 39 41 42 44 45 46 47 48 49 56 57",
    "E": "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 19 20 21 22 24 25 26 27 28 29 30 31 32 33 34 35 37 38 39 40 41 42 "
    "43 44 45 50 51 52 54",
    "F": "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 23 24 26 27",
    "G": "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 21",
    "J": "1 2 3 4 6 7 8 9 10 11",
    "K": "38",
    "L": "1 2 3 5 6 7 8 10 11 12 13 14 15 16 18",
    "M": "1 2 7 9 12 13 17 18 19 20 22 23 30 31",
    "N": "25 26 27 28 30 31 32 35 36 62",
    "P": "1 3",
}


def test_every_case_of_part_6_is_in_the_table_once() -> None:
    told = [id for m in IDS.finditer(PAGE) for id in m["ids"].split(", ")]
    wanted = [f"{block}_{int(n):02d}" for block, numbers in NUMBERS.items() for n in numbers.split()]
    assert sorted(told) == sorted(wanted)
    assert len(wanted) == 230
