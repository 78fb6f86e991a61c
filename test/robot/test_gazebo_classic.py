"""The same parking in Gazebo Classic: another engine, the same controller, tool and robot."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from robot_charger.robot.errors import ErrorCode
from robot_charger.sim.arm import gazebo_classic
from robot_charger.sim.arm.gazebo_classic import GazeboWorld, NoGazeboError, server
from robot_charger.sim.arm.physics import ArmWorld

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))
from robot import Rehearsal


@pytest.fixture
def rehearsal() -> Iterator[Rehearsal]:
    """Skips only where Gazebo is not, or its network namespace is refused; one that is here and fails is a failure."""
    try:
        server()
    except NoGazeboError as error:
        lacks(f"{error}")
    if subprocess.run(["unshare", "-Urn", "true"], capture_output=True).returncode:
        lacks("this kernel refuses unshare -Urn")
    made = Rehearsal(seed=5, kind="soft", engine=GazeboWorld)
    with contextlib.closing(made.world):
        yield made


def lacks(why: str) -> NoReturn:
    warnings.warn(f"NOT TESTED in Gazebo: {why}", stacklevel=2)
    pytest.skip(why)


def test_gazebo_has_the_arm_and_the_plug_where_mujoco_has_them(rehearsal: Rehearsal) -> None:
    ours, theirs = ArmWorld(seed=5, kind="soft"), rehearsal.world
    for world in (ours, theirs):
        world.arrive(1)
        world.advance(300)
    assert np.allclose(theirs.gripper_pose(), ours.gripper_pose(), atol=1e-3)
    assert np.allclose(theirs.plug_in_inlet(1), ours.plug_in_inlet(1), atol=1e-3)
    assert np.allclose(theirs.true_inlet(1), ours.true_inlet(1), atol=1e-4)
    assert ours.true_inlet(1)[2, 3] < ours.stalls[1].inlet[2, 3] - 0.01, "its occupant weighs something"


def test_a_vehicle_is_plugged_in_and_freed_in_gazebo(rehearsal: Rehearsal) -> None:
    world, stall = rehearsal.world, rehearsal.world.stalls[1]
    world.arrive(1)
    result = rehearsal.connect()
    assert result.error == ErrorCode.NONE, result.text
    assert stall.mated and stall.depth > world.connector.depth - 0.002
    assert 70.0 <= stall.seat_peak <= stall.max_push + 5.0 and stall.max_push <= 100.0
    rehearsal.release()
    assert world.held == 0 and stall.mated, "it stays where it was seated"
    result = rehearsal.disconnect()
    assert result.error == ErrorCode.NONE, result.text
    assert 85.0 <= stall.max_pull <= 150.0 and world.tool()[3], "it hangs in its holster again"


def test_something_in_the_way_is_felt_and_not_forced(rehearsal: Rehearsal) -> None:
    """A vehicle 30 mm aside of what is told of it: the plug meets its face."""
    rehearsal.world.arrive(1)
    stall = rehearsal.world.stalls[1]
    stall.error = np.array([0.0, 0.03, 0.0, 0.0, 0.0, 0.0])
    result = rehearsal.connect()
    assert result.error in (ErrorCode.JAMMED, ErrorCode.NOT_SEATED, ErrorCode.TIMEOUT), result
    assert not stall.mated and 8.0 < stall.max_push <= 100.0


def test_a_gazebo_that_does_not_start_says_why(rehearsal: Rehearsal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gazebo_classic, "world_sdf", lambda desk, library: "<sdf version='1.7'><world/></sdf>")
    monkeypatch.setattr(gazebo_classic, "START_S", 3.0)
    with pytest.raises(NoGazeboError, match="does not start"):
        GazeboWorld(seed=5)


def test_only_one_bay_is_in_gazebo() -> None:
    with pytest.raises(NoGazeboError, match="alone"):
        GazeboWorld((1, 2))
