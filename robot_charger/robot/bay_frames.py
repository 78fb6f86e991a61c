"""The arm's description with the bays that it serves: what RViz and /tf show of a station.

For every EVSE a fixed frame ``bayN``, and in it the box that inlets must be in (``workspace`` of bays.yaml): the arm
refuses an inlet outside. Launch files use this under the system's Python: standard library and PyYAML only.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement

import yaml

BASE = "base_link"
COLOUR = "0.1 0.7 0.3 0.25"  # red, green, blue, opacity


def with_bays(urdf: Path, bays: Path, evses: Iterable[int]) -> str:
    """URDF of the arm and of the bays of these EVSEs. Raises OSError, KeyError, ValueError."""
    root = ElementTree.fromstring(urdf.read_text(encoding="utf-8"))
    sites = yaml.safe_load(bays.read_text(encoding="utf-8"))["bays"]
    for evse in evses:
        bay = sites[evse]
        _fixed(root, BASE, f"bay{evse}", bay)
        zone = _fixed(root, f"bay{evse}", f"bay{evse}_zone", bay["inlet"])
        visual = SubElement(zone, "visual")
        size = [2.0 * float(half) for half in bay["workspace"]]
        SubElement(SubElement(visual, "geometry"), "box", size=_text(size))
        material = SubElement(visual, "material", name="permitted_zone")
        SubElement(material, "color", rgba=COLOUR)
    return ElementTree.tostring(root, encoding="unicode")


def _fixed(root: Element, parent: str, name: str, pose: Any) -> Element:
    """A link that is fixed to another at a pose with ``xyz`` [m] and ``rpy`` [rad]."""
    link = SubElement(root, "link", name=name)
    joint = SubElement(root, "joint", name=name, type="fixed")
    SubElement(joint, "parent", link=parent)
    SubElement(joint, "child", link=name)
    SubElement(joint, "origin", xyz=_text(pose["xyz"]), rpy=_text(pose["rpy"]))
    return link


def _text(numbers: Sequence[float]) -> str:
    return " ".join(f"{float(n):g}" for n in numbers)
