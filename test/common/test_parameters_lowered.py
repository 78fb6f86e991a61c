"""What lowers safety needs to be asked for, and is told."""

from __future__ import annotations

import pytest

from robot_charger.common.parameters import lowered_safety
from robot_charger.power.parameters import PowerParameters
from robot_charger.supervisor.parameters import SupervisorParameters
from robot_charger.v2g.parameters import V2gParameters


@pytest.mark.parametrize("parameters", [PowerParameters(), V2gParameters()], ids=["power", "v2g"])
def test_the_defaults_lower_nothing(parameters):
    assert lowered_safety(parameters) == []


def test_each_that_does_is_named():
    lowered = lowered_safety(SupervisorParameters(memory="", free_vend=True, node_age_grace_ms=200))
    assert [text.split(" =")[0] for text in lowered] == ["memory", "free_vend", "node_age_grace_ms"]
    assert lowered_safety(SupervisorParameters(memory="/var/lib/x.json")) == []
    assert "tls.required = False" in lowered_safety(V2gParameters(tls__required=False))
