"""Every test and page that is named is there, and every row of a conformance table names a test or what is not done."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(p.name for p in (ROOT / "docs").glob("*.md"))
NAME = re.compile(r"`(?:(test_\w+\.py)(?:::)?)?(test_\w+)?`")


@cache
def known() -> dict[str, set[str]]:
    """File name -> names of its tests."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "test").rglob("test_*.py"):
        nodes = ast.walk(ast.parse(path.read_text()))
        names = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        found.setdefault(path.name, set()).update(names)
    return found


def missing(line: str) -> list[str]:
    """Named tests that are not there. A name without a file belongs to the last file of the line, or to any."""
    wrong, file = [], ""
    anywhere = set().union(*known().values()) | {name.removesuffix(".py") for name in known()}
    for named, test in NAME.findall(line):
        file = named or file
        if named and named not in known():
            wrong.append(named)
        elif test and test not in (known()[file] if file else anywhere):
            wrong.append(f"{file}::{test}")
    return wrong


@pytest.mark.parametrize("page", PAGES)
def test_every_named_test_is_there(page: str) -> None:
    lines = (ROOT / "docs" / page).read_text().splitlines()
    wrong = [f"{number}: {name}" for number, line in enumerate(lines, 1) for name in missing(line)]
    assert not wrong, wrong


def test_a_name_that_is_not_there_is_found() -> None:
    assert missing("`test_named_tests.py::test_a_name_that_is_not_there_is_found`, `test_no_such`") == [
        "test_named_tests.py::test_no_such"
    ]
    assert missing("`test_nowhere.py`") == ["test_nowhere.py"]


def test_every_row_of_conformance_says_how_it_stands() -> None:
    text = (ROOT / "docs/ccs.md").read_text().split("## Conformance")[1].split("\n## ")[0]
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 40
    for feature, _, shown in rows:
        assert "test_" in shown or "not done" in shown or "not needed" in shown or "in part" in shown, feature


def test_every_page_that_is_named_is_there() -> None:
    named: dict[str, str] = {}
    for folder, ending in (("robot_charger", "py"), ("docs", "md"), ("config", "yaml"), (".", "md")):
        for path in (ROOT / folder).glob(f"**/*.{ending}" if folder != "." else f"*.{ending}"):
            for page in re.findall(r"\bdocs/[\w-]+\.md", path.read_text()):
                named[page] = path.name
    assert len(named) > 10
    assert {page: where for page, where in named.items() if not (ROOT / page).exists()} == {}
