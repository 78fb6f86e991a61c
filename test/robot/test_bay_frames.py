"""The description that RViz shows: the arm, its bays, and the zone in which inlets are permitted."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from robot_charger.common.configuration import config_directory
from robot_charger.robot.bay_frames import BASE, with_bays
from robot_charger.robot.description import load_site


def described(evses):
    config = config_directory()
    return ElementTree.fromstring(with_bays(config / "arm/arm.urdf", config / "bays.yaml", evses))


def test_every_bay_has_its_frame_and_its_zone():
    root, site = described([1, 3]), load_site()
    links = {link.get("name") for link in root.findall("link")}
    assert {BASE, "bay1", "bay1_zone", "bay3", "bay3_zone"} <= links and "bay2" not in links
    joints = {joint.get("name"): joint for joint in root.findall("joint")}
    for evse in (1, 3):
        assert joints[f"bay{evse}"].find("parent").get("link") == BASE
        xyz = [float(v) for v in joints[f"bay{evse}_zone"].find("origin").get("xyz").split()]
        assert xyz == pytest.approx([1.08, 0.0, 0.80])
        (box,) = root.findall(f"link[@name='bay{evse}_zone']/visual/geometry/box")
        assert [float(v) for v in box.get("size").split()] == pytest.approx(2.0 * site.bays[evse].workspace)


def test_a_bay_that_is_not_there_is_an_error():
    with pytest.raises(KeyError):
        described([9])
