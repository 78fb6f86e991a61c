"""The grammar tables in the repository are what the compiler makes of the installed schemas."""

import json
from importlib import import_module
from pathlib import Path

import pytest

from robot_charger.v2g.exi import codec, compiler


@pytest.mark.parametrize("name", compiler.SCHEMA_SETS)
def test_tables_are_up_to_date(name):
    module = import_module(f"robot_charger.v2g.exi.grammars.{name}")
    assert Path(module.__file__).read_text(encoding="utf-8") == compiler.compile_set(name)


def test_every_schema_set_has_its_namespace():
    assert {name: root[0] for name, root in compiler.SCHEMA_SETS.items()} == codec.NAMESPACES


@pytest.mark.parametrize("name", compiler.SCHEMA_SETS)
def test_no_type_contains_itself(name):
    """Reading recurses from type to type: the schemas bound its depth."""
    types = json.loads(import_module(f"robot_charger.v2g.exi.grammars.{name}").TABLE)["types"]
    children = [{p[2] for state in states for p in state if p[0] == "S" and p[2] >= 0} for states in types]

    def depth(number, above):
        assert number not in above
        return 1 + max((depth(child, {*above, number}) for child in children[number]), default=0)

    assert max(depth(number, set()) for number in range(len(types))) < 20
