"""Layouts and systemd units name only what exists: topics, fields, commands and options."""

from __future__ import annotations

import ast
import configparser
import json
import re
import shlex
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from robot_charger.common.topics import EVSE_TOPICS, STATION_TOPICS
from robot_charger.operator.commands import commands

SOURCE = Path(__file__).resolve().parents[2]
CONFIG = SOURCE / "config"


def field_exists(path: str) -> bool:
    """``/evse1/power/state/voltage_v`` or with a dot before the field."""
    topic, _, field = path.replace(".", "/").rpartition("/")
    relative = re.sub(r"^/evse1/", "", topic)
    table = EVSE_TOPICS if relative != topic else STATION_TOPICS
    return relative in table and field in table[relative][0].get_fields_and_field_types()


def paths_of(name: str) -> list[str]:
    text = (CONFIG / name).read_text()
    if name.endswith(".xml"):
        return [curve.attrib["name"] for curve in ElementTree.fromstring(text).iter("curve")]
    document = json.loads(text)
    if name == "foxglove.json":
        return [p["value"] for panel in document["configById"].values() for p in panel.get("paths", [])]
    plugins = document["groups"]["pluginmanager"]["groups"].values()
    plots = [p["groups"]["plugin"]["keys"]["topics"]["repr"] for p in plugins if "plugin" in p["groups"]]
    return [topic for plot in plots for topic in ast.literal_eval(plot)]


@pytest.mark.parametrize("name", ["foxglove.json", "plotjuggler.xml", "rqt.perspective"])
def test_layouts_show_fields_that_exist(name):
    paths = paths_of(name)
    assert len(paths) > 5
    assert [p for p in paths if not field_exists(p)] == []


def test_a_field_that_does_not_exist_is_noticed():
    assert field_exists("/robot/state.depth_m")
    assert not field_exists("/robot/state.depth_mm") and not field_exists("/evse1/power/stat/voltage_v")


def test_foxglove_places_every_panel_it_configures():
    document = json.loads((CONFIG / "foxglove.json").read_text())

    def leaves(node) -> list[str]:
        return [node] if isinstance(node, str) else leaves(node["first"]) + leaves(node["second"])

    assert sorted(leaves(document["layout"])) == sorted(document["configById"])


@pytest.mark.parametrize("unit", ["robot-charger.service", "robot-charger-recorder.service"])
def test_units_call_commands_with_options_that_exist(unit):
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str
    parser.read(CONFIG / "systemd" / unit)
    service = parser["Service"]
    known = {c.name: {o for p in c.params for o in getattr(p, "opts", [])} for c in commands}
    lines = [service[key] for key in ("ExecStartPre", "ExecStart") if key in service]
    assert lines
    for line in lines:
        program, command, *words = shlex.split(line)
        assert program.endswith("/robot-charger")
        if command in known:
            assert {w for w in words if w.startswith("--")} <= known[command]
    if unit == "robot-charger.service":
        assert service["AmbientCapabilities"] == "CAP_NET_RAW CAP_SYS_NICE"


@pytest.mark.parametrize("page", sorted(p.name for p in (SOURCE / "docs").glob("*.md")))
def test_pages_name_commands_and_options_that_exist(page):
    """Of the operator's commands; every option told on a page must be one."""
    known = {c.name: {o for p in c.params for o in getattr(p, "opts", [])} for c in commands}
    for command, rest in re.findall(r"robot-charger (\w+)([^`\n|;)]*)", (SOURCE / "docs" / page).read_text()):
        if command in known:
            assert set(re.findall(r"(?<!\w)--[a-z-]+", rest)) <= known[command], (
                f"{page}: robot-charger {command}{rest}"
            )
