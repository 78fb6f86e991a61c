"""Every benchmark is called the same way: --json FILE and --seed, and its first lines say so."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

BENCHMARKS = sorted((Path(__file__).resolve().parents[2] / "bench").glob("*.py"))


def options(source: str) -> set[str]:
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    added = [c for c in calls if isinstance(c.func, ast.Attribute) and c.func.attr == "add_argument" and c.args]
    return {c.args[0].value for c in added if isinstance(c.args[0], ast.Constant)}


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda p: p.stem)
def test_it_takes_json_and_seed(path):
    source = path.read_text()
    assert {"--json", "--seed"} <= options(source)
    assert f"python bench/{path.name}" in (ast.get_docstring(ast.parse(source)) or "")


def test_there_are_benchmarks():
    assert len(BENCHMARKS) >= 9 and options("parser.parse_args()") == set()
