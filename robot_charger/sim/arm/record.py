"""What a film of the desk's arm needs to know, written down while it moves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robot_charger.sim.arm.physics import ArmWorld

FRAME_MS = 100
Frame = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


def frame(world: ArmWorld) -> Frame:
    """How everything stands now."""
    data = world.data
    return data.qpos.copy(), data.mocap_pos.copy(), data.mocap_quat.copy()


def save(path: Path, evses: Sequence[int], frames: list[Frame], connector: str = "ccs2") -> None:
    """Write the frames as one compressed file."""
    qpos, positions, turns = ([f[i] for f in frames] for i in range(3))
    with path.open("wb") as file:
        np.savez_compressed(
            file, evses=list(evses), connector=connector, qpos=qpos, mocap_pos=positions, mocap_quat=turns
        )
