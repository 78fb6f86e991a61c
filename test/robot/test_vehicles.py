"""Vehicles of several kinds: where their inlets are, and how they give way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from robot_charger.robot.errors import ErrorCode
from robot_charger.sim.arm.model import load_vehicles
from robot_charger.sim.arm.physics import MIXED, ArmWorld


@pytest.mark.parametrize("kind", [k for k in load_vehicles() if k != "front"])
def test_the_robot_mates_with_every_kind(bench: Any, kind: str) -> None:
    rehearsal = bench.Rehearsal(seed=4, kind=kind)
    rehearsal.world.arrive(1)
    result, stall = rehearsal.connect(), rehearsal.world.stalls[1]
    assert result.error == ErrorCode.NONE and stall.mated, result.text
    assert stall.max_push <= 100.0


def test_kinds_are_mixed_by_seed() -> None:
    def kind(seed: int) -> str:
        world = ArmWorld(seed=seed, kind=MIXED)
        world.arrive(1)
        return world.stalls[1].kind

    kinds = [kind(seed) for seed in range(12)]
    assert len(set(kinds)) > 3 and kinds[0] == kind(0)
    with pytest.raises(KeyError, match="tractor"):
        ArmWorld(kind="tractor")


def test_a_vehicle_gives_way_to_a_push_and_comes_back() -> None:
    world = ArmWorld(seed=1)
    world.arrive(1)
    before = world.true_inlet(1)[:3, 3]
    body = world.model.body("sprung1").id
    push = world.stalls[1].inlet[:3, 0] * 90.0
    world.data.xfrc_applied[body, :3] = push
    world.advance(4000)
    way = world.true_inlet(1)[:3, 3] - before
    assert np.allclose(way, push / world.vehicles["front"].stiffness[0], atol=6e-5)  # it may fall asleep a little early
    world.data.xfrc_applied[body] = 0.0
    world.set_fault("no-pose", True)  # wakes it
    world.advance(4000)
    assert np.allclose(world.true_inlet(1)[:3, 3], before, atol=6e-5)  # it may fall asleep a little early


def test_a_vehicle_rises_when_its_occupant_gets_out() -> None:
    world = ArmWorld(seed=1, kind="soft")
    world.arrive(1)
    low = world.true_inlet(1)[2, 3]
    leaves_in = world.stalls[1].leaves_at - world.steps
    world.advance(leaves_in - 10)
    assert world.true_inlet(1)[2, 3] == pytest.approx(low, abs=5e-4)
    world.advance(8000)
    soft = world.vehicles["soft"]
    assert world.true_inlet(1)[2, 3] - low == pytest.approx(9.81 * soft.occupant / soft.stiffness[2], abs=5e-4)


@pytest.mark.parametrize("leaves_s", [9.0, 15.0, 18.0])
def test_a_plug_is_grasped_where_it_is_after_somebody_got_out(bench: Any, leaves_s: float) -> None:
    """While it approaches, between seat and release, and while it comes back."""
    rehearsal = bench.Rehearsal(seed=14, kind="soft")
    rehearsal.world.arrive(1)
    rehearsal.world.stalls[1].leaves_at = round(leaves_s * 1000)
    assert rehearsal.connect().error == ErrorCode.NONE
    rehearsal.run(1.0)
    released = rehearsal.release()
    assert released.error == ErrorCode.NONE, released.text
    result = rehearsal.disconnect()
    assert result.error == ErrorCode.NONE and rehearsal.world.tool()[3], result.text
    assert not rehearsal.world.stalls[1].leaves_at


def test_a_pulling_cable_does_not_stop_the_arm_for_good(bench: Any) -> None:
    """The guard had counted the cable in, while the robot pressed on."""
    rehearsal = bench.Rehearsal(seed=10594, kind="low")
    rehearsal.world.arrive(1)
    result, stall = rehearsal.connect(), rehearsal.world.stalls[1]
    assert result.error == ErrorCode.NONE and stall.mated, result.text
    assert stall.max_push <= 100.0
    assert rehearsal.world.trips == 0
