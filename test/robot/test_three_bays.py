"""One arm, three bays, in simulated time: it passes mated and hanging plugs at a distance, and serves by its queue."""

from __future__ import annotations

from typing import Any

import mujoco
import pytest

from robot_charger.robot.errors import ErrorCode
from robot_charger.robot.jobs import Job, Jobs
from robot_charger.sim.arm.model import PREFIX

pytestmark = pytest.mark.timeout(600)  # of a machine that is busy with other things

CLEARANCE_M = 0.03
LOOK_TICKS = 10


def geoms(world: Any, body: str, collides: bool = False) -> list[int]:
    model = world.model
    owners = [model.body(model.geom_bodyid[g]).name for g in range(model.ngeom)]
    found = [g for g, name in enumerate(owners) if name.startswith(body) and (model.geom_contype[g] or not collides)]
    assert found
    return found


def nearest(rehearsal: Any, plugs: dict[int, list[int]], arm: list[int]) -> float:
    """Between the arm, with what it holds, and every plug that is none of its business [m]."""
    world, busy_with = rehearsal.world, rehearsal.robot.bay
    moving = arm + plugs.get(world.held, [])
    others = [g for n, found in plugs.items() if n not in (world.held, busy_with) for g in found]
    return min(mujoco.mj_geomDistance(world.model, world.data, a, b, 0.5, None) for a in moving for b in others)


def test_the_arm_goes_from_bay_to_bay_past_plugs_without_touching_them(bench: Any) -> None:
    r = bench.Rehearsal(evses=3, seed=7)
    arm = geoms(r.world, PREFIX, collides=True)
    plugs = {n: geoms(r.world, f"plug{n}") for n in r.world.stalls}
    for n in r.world.stalls:
        r.world.arrive(n)
    r.run(0.5)
    jobs = Jobs()
    jobs.add(Job(2, lambda: r.robot.start_connect(2, "ccs2", r.now), r.now + 1.0))
    jobs.add(Job(1, lambda: r.robot.start_connect(1, "ccs2", r.now), r.now))
    served, distance = [], 1.0
    while job := jobs.take_next(r.now, r.robot.bay if r.world.held else 0, lambda evse: True):
        job.handle()
        served.append(job.evse)
        ticks = 0
        while r.robot.busy:
            r.tick()
            ticks += 1
            if ticks % LOOK_TICKS == 0:
                distance = min(distance, nearest(r, plugs, arm))
        assert r.robot.result.error == ErrorCode.NONE, r.robot.result.text
        if len(served) == 1:
            assert jobs.take_next(r.now, r.robot.bay, lambda evse: True) is None, "it still holds the plug of bay 1"
            jobs.add(Job(1, lambda: r.robot.start_release(1, r.now), r.now))
    assert served == [1, 1, 2]
    assert [n for n, stall in r.world.stalls.items() if stall.mated] == [1, 2], "the first plug stayed where it was"
    assert distance > CLEARANCE_M
