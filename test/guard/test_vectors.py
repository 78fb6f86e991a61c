"""The reference logic against the file of vectors, replayed as a firmware would be."""

from __future__ import annotations

import json
from typing import Any

import pytest
import vectors

from robot_charger.guard import frames
from robot_charger.guard.logic import Config, EvseInputs, Guard, Inputs

FILE: dict[str, Any] = json.loads(vectors.FILE.read_text())


@pytest.mark.parametrize("vector", FILE["vectors"], ids=lambda v: v["name"])
def test_vector(vector: dict[str, Any]) -> None:
    config = {**FILE["config"], "evses": tuple(FILE["config"]["evses"]), "switched": False}
    guard, inputs = Guard(Config(**config)), Inputs(evses={1: EvseInputs(), 2: EvseInputs()})
    for number, row in enumerate(vector["cycles"]):
        for name, value in row["in"].items():
            if name == "evses":
                for evse, values in value.items():
                    vars(inputs.evses[int(evse)]).update(values)
            else:
                setattr(inputs if hasattr(inputs, name) else inputs.evses[1], name, value)
        if row["frame"]:
            guard.hear(bytes.fromhex(row["frame"]), row["ms"])
        out = guard.step(inputs, row["ms"])
        assert {n: int(getattr(out, n)) for n in vectors.OUTPUTS} == row["out"], (number, row)
        assert [int(guard.bay_bits[1]), int(guard.bay_bits[2])] == row["bays"], number
        echo = guard.request.counter
        status = frames.encode_safety(int(out.bits), out.closed, out.tripped, 80, echo, int(out.reason), guard.counter)
        assert status == (frames.SAFETY_ID, bytes.fromhex(row["status"])), number


def test_the_file_is_current_and_names_every_requirement() -> None:
    assert vectors.FILE.read_text() == vectors.text(), "run: python test/guard/vectors.py"
    named = {word for v in FILE["vectors"] for word in v["requirements"].split(", ")}
    assert named >= {f"SC-{n}" for n in (*range(1, 21), 24, 25)}
