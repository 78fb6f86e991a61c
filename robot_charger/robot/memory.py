"""What the robot keeps over a restart: which plug is in which inlet, and which plug it works with.

One small JSON file, replaced whole. It is a memory, not a truth: it is checked against what is sensed and seen
before the arm moves (``Actions.disconnect``, ``Actions.grasp``). A file that cannot be read is told and left aside.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from robot_charger.robot.description import Site
from robot_charger.robot.motion import ConnectionRobot
from robot_charger.robot.spatial import Array
from robot_charger.robot.state import Arm, Engagement


def to_dict(arm: Arm) -> dict[str, Any]:
    """The kept part of an arm's state, fit for JSON."""
    return {
        "bay": arm.bay,
        "connectors": {str(evse): name for evse, name in arm.last_connector.items()},
        "engaged": {
            str(evse): {
                "connector": engaged.connector.name,
                "inlet": engaged.inlet.ravel().tolist(),
                "face": engaged.face,
                "grip": engaged.grip.ravel().tolist(),
                "base": engaged.base.tolist(),
                "base_at": None if engaged.base_at is None else engaged.base_at.tolist(),
            }
            for evse, engaged in arm.engaged.items()
        },
    }


def _array(values: Any, *shape: int) -> Array:
    array = np.array(values, dtype=float).reshape(shape)
    if not np.isfinite(array).all():
        raise ValueError("not finite")
    return array


def from_dict(kept: dict[str, Any], site: Site, arm: Arm) -> None:
    """Put what was kept into a new arm's state. Raises KeyError, TypeError or ValueError when it is not ours."""
    engaged: dict[int, Engagement] = {}
    for evse, entry in kept["engaged"].items():
        at = entry["base_at"]
        engaged[int(evse)] = Engagement(
            _array(entry["inlet"], 4, 4),
            float(_array(entry["face"], 1)[0]),
            _array(entry["grip"], 4, 4),
            site.connectors[entry["connector"]],
            None,
            _array(entry["base"], 3),
            None if at is None else _array(at, 3),
        )
    connectors = {int(evse): site.connectors[name].name for evse, name in kept["connectors"].items()}
    bay = int(kept["bay"])
    if any(n not in site.bays for n in (*engaged, *connectors, *((bay,) if bay else ()))):
        raise ValueError("a bay that there is not")
    arm.bay, arm.engaged, arm.last_connector = bay, engaged, connectors
    if bay in connectors:
        arm.connector = site.connectors[connectors[bay]]


class Memory:
    """The file. ``text`` says what became of it."""

    def __init__(self, path: Path | None, robot: ConnectionRobot) -> None:
        self._path, self._robot = path, robot
        self._kept: dict[str, Any] | None = None
        self.text = "none" if path is None else "new"
        if path is None or not path.exists():
            return
        try:
            from_dict(json.loads(path.read_text()), robot.site, robot.arm)
            self.text = "recalled"
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            self.text = f"cannot be read ({error!r}): the robot knows of no plug in an inlet"
            with contextlib.suppress(OSError):
                path.replace(path.with_suffix(".unreadable"))

    def tend(self) -> None:
        """Write what has changed; on disk before this returns. What fails is told in ``text``."""
        if self._path is None:
            return
        now = to_dict(self._robot.arm)
        if now == self._kept:
            return
        temporary = self._path.with_suffix(".new")
        try:
            with temporary.open("w") as file:
                json.dump(now, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)
        except OSError as error:
            self.text = f"cannot be written: {error}"
        else:
            self._kept, self.text = now, "kept"
