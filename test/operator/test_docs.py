"""The pages that are written from the code are current, and tell everything."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from robot_charger.common.faults import Code
from robot_charger.operator import docs
from robot_charger.operator.remedies import ADVICE, advice
from robot_charger.station import nodes

SOURCE = Path(__file__).resolve().parents[2]


def test_generated_pages_are_current():
    assert docs.stale(SOURCE) == [], "run: python -m robot_charger.operator.docs"


def test_an_old_page_is_noticed_and_renewed(tmp_path):
    for folder in ("msg", "srv", "action"):
        shutil.copytree(SOURCE / folder, tmp_path / folder)
    for folder in ("docs", "robot_charger/common"):
        (tmp_path / folder).mkdir(parents=True)
    assert docs.main(["--check", str(tmp_path)]) == 1
    assert docs.main([str(tmp_path)]) == 0
    assert docs.main(["--check", str(tmp_path)]) == 0
    page = tmp_path / "docs/faults.md"
    page.write_text(page.read_text().replace("`PILOT_LEVEL`", "`PILOT_LEVER`"))
    assert docs.stale(tmp_path) == ["docs/faults.md"]


def test_every_fault_has_advice():
    assert set(ADVICE) == set(Code) - {Code.NONE}
    assert all(a.meaning.endswith(".") and len(a.remedy) > 20 for a in ADVICE.values())
    assert advice(501) is ADVICE[Code.INSULATION]
    assert advice(7) is None


@pytest.mark.parametrize("executable", [spec.executable for spec in nodes()])
def test_every_node_has_its_parameters_on_the_page(executable):
    cls = docs.parameter_class(executable)
    page = docs.parameters_page()
    section = page.split(f"{executable}\n", 1)[1].split("\n## ")[0]
    for name in docs.fields_of(cls):
        assert f"| `{name}` |" in section


def test_topics_page_tells_type_and_quality_of_service():
    page = docs.topics_page(SOURCE)
    watched = "best effort, volatile, last 1, deadline 300 ms, lease 1000 ms"
    assert f"| `/evseN/power/permit` | [ChargePermit](#chargepermit) | {watched} |" in page
    assert "| `/robot/wrench` | geometry_msgs/msg/WrenchStamped |" in page
    assert "| `max_voltage_v` | `float32` | 0 to 2000 | [V] |" in page
    assert "| `PHASE_IDLE` = 0 | `uint8` |" in page


def test_a_node_without_parameters_is_told():
    with pytest.raises(LookupError, match="nosuch"):
        docs.parameter_class("nosuch")
