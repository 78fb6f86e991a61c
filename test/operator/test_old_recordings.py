"""Recordings made before the message definitions changed still open: the reader goes by the definition in the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from robot_charger.operator.reading import Picker, Topic, scan

OLD = Path(__file__).parent / "recordings" / "node_lost_while_charging.mcap"


@pytest.mark.parametrize(("field", "there"), [("emergency", True), ("purpose", True), ("abrupt", False)])
def test_a_recording_made_before_the_change_opens_by_its_own_definition(field: str, there: bool) -> None:
    seen: list[tuple[Any, ...]] = []
    definitions: list[str] = []

    def choose(topic: Topic) -> Any:
        if not topic.name.endswith("/power/permit"):
            return None
        definitions.append(topic.definition)
        if field not in topic.definition:
            return None
        pick = Picker(topic.definition, (field, "number")).pick
        return lambda at, data: seen.append(pick(data))

    summary = scan(OLD, choose)
    assert summary.messages > 100 and not summary.truncated
    assert (f" {field}" in definitions[0]) == there and bool(seen) == there
    assert all(number > 0 for _, number in seen)
