"""The simulated arm alone."""

from __future__ import annotations

from itertools import cycle

import mujoco
import numpy as np

from robot_charger.robot.description import config_file
from robot_charger.robot.kinematics import Kinematics
from robot_charger.robot.planner import Planner
from robot_charger.sim.arm.physics import ArmWorld


def test_a_jerk_does_not_leave_the_plug_swinging_in_the_hand() -> None:
    """However unevenly a busy machine lets the time pass: the guard must not find forces that physics does not have."""
    world = ArmWorld(seed=1)
    bay = world.site.bays[1]
    planner = Planner(world.site, Kinematics(config_file("arm/arm.urdf")), 0.14)
    world._q[:] = world.data.act[:6] = planner.reach(bay.holster, planner.seed(bay), "holster")
    mujoco.mj_forward(world.model, world.data)
    world.grip(True)
    world.advance(500)
    assert world.held == 1
    lifted = world.joints()[0]
    lifted[1] -= 0.3
    late = cycle((4, 5, 6))  # milliseconds
    world.trajectory([(1.5, lifted)])
    for _ in range(400):
        world.advance(next(late))
    for jerk in range(20):
        world.trajectory([(0.03, lifted + 0.05 * (jerk % 2) * np.array([1.0, 0.0, 1.0, 0.0, 0.0, 0.0]))])
        for _ in range(10):
            world.advance(next(late))
    world.trajectory([(0.5, lifted)])
    for _ in range(100):
        world.advance(next(late))
    trips = world.trips  # the jerks themselves may have been too much for it
    for _ in range(200):
        world.advance(next(late))
    world.wrench()
    world.advance(10)
    assert world.trips == trips
    assert float(np.abs(world.wrench()[:3]).max()) < 5.0
