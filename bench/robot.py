"""Mate, release, grasp and withdraw over many random parkings, in simulated time: speed and quality of the robot.

    python bench/robot.py --trials 1000 --seed 1 --json robot.json
    python bench/robot.py --engine gazebo --trials 50

Prints a table; the JSON has trials, mated, false_mated, max_force_n, median_excess_n, median_time_s, engine and
more. The motion logic of the robot node runs unchanged; ROS is left out, its delay (one tick each way) is not. In
Gazebo (after ``make tools``) controller, tool and truth are the same, and the physics is Gazebo's.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import multiprocessing
import os
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

os.environ.setdefault("MUJOCO_GL", "egl")
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402

from robot_charger.robot.description import config_file  # noqa: E402
from robot_charger.robot.errors import ErrorCode, NoPose, RobotError  # noqa: E402
from robot_charger.robot.kinematics import Kinematics  # noqa: E402
from robot_charger.robot.motion import Command, ConnectionRobot, Result, Senses  # noqa: E402
from robot_charger.robot.parameters import RobotParameters  # noqa: E402
from robot_charger.robot.perception import Camera, InletEstimator, load_camera  # noqa: E402
from robot_charger.sim.arm.camera import BayCamera  # noqa: E402
from robot_charger.sim.arm.gazebo_classic import GazeboWorld, NoGazeboError, plugin, server  # noqa: E402
from robot_charger.sim.arm.model import load_vehicles  # noqa: E402
from robot_charger.sim.arm.physics import MIXED, ArmWorld, Parking  # noqa: E402
from robot_charger.words.values import Zone  # noqa: E402

ENGINES = {"mujoco": ArmWorld, "gazebo": GazeboWorld}
TICK = 10  # steps of 1 ms
POSE_TICKS = 10  # an inlet pose every 100 ms
BUDGET_S = 570.0  # of a run without --trials


class Rehearsal:
    """The robot's logic on the physics, tick by tick. ``now`` is simulated time [s]."""

    def __init__(
        self,
        evses: int = 1,
        seed: int = 0,
        parking: Parking | None = None,
        parameters: RobotParameters | None = None,
        connector: str = "ccs2",
        camera: Camera | None = None,
        kind: str = "front",
        engine: type[ArmWorld] = ArmWorld,
    ) -> None:
        self.world = engine(range(1, evses + 1), seed, parking, connector, camera, kind)
        self._eyes = (BayCamera(self.world, camera), InletEstimator(camera)) if camera else None
        self.parameters = parameters or RobotParameters(evses=list(range(1, evses + 1)))
        kinematics = Kinematics(config_file(self.parameters.arm_urdf))
        self.robot = ConnectionRobot(self.world.site, kinematics, self.parameters)
        self.now = 100.0
        self.zone = Zone.CONTACT
        self.permit_age = 0.0
        self.passive_follow = False
        self.field_clear, self.emergency = True, False
        self.arm_starved = self.robot_starved = 0  # ticks without the processor, for one or the other
        self._ticks = self._missed = 0
        self._commands: deque[Command] = deque()
        self._tool = self.world.tool()
        self._joints: tuple[np.ndarray, float] | None = None
        self._wrench: tuple[np.ndarray, float] | None = None

    def tick(self) -> None:
        """Ten milliseconds: physics, sensors, one step of the robot, its command one tick later."""
        self.now += TICK * 1e-3
        self._ticks += 1
        if self.arm_starved:
            self.arm_starved -= 1
            self._missed = min(self._missed + 1, 4)  # the simulator makes up for so much
        else:
            self._arm()
        if self.robot_starved:
            self.robot_starved -= 1
        else:
            self._commands.append(self.robot.step(self._senses()))

    def _arm(self) -> None:
        """Physics, sensors, and the commands that have arrived."""
        self.world.advance(TICK * (1 + self._missed))
        self._missed = 0
        joints, wrench = self.world.joints(), self.world.wrench()
        if joints is not None:
            self._joints = joints[0], self.now
        if wrench is not None:
            self._wrench = wrench, self.now
        if self._eyes and self._ticks % (2 * POSE_TICKS) == 0 and self.robot.bay:
            self._look(self.robot.bay, *self._eyes)
        if not self._eyes and self._ticks % POSE_TICKS == 0:
            for number in self.world.stalls:
                pose = self.world.estimate(number)
                if pose is not None:
                    self.robot.see(number, self.now, pose, self.world.parking.estimate_m)
        self._tool = self.world.tool()
        while self._commands:
            command = self._commands.popleft()
            if command.grip is not None:
                self.world.grip(command.grip)
            if command.q is not None:
                self.world.trajectory([(self.parameters.horizon_s, command.q)])

    def _look(self, evse: int, camera: BayCamera, estimator: InletEstimator) -> None:
        """A picture of the bay, and what the robot makes of it."""
        camera.capture()
        try:
            seen = estimator.look(camera.picture(evse), self.world.connector.name)
            self.robot.see(evse, self.now, self.world.site.bays[evse].frame @ seen.pose, seen.sigma)
        except NoPose:
            pass
        except RobotError as instead:
            self.robot.see_instead(evse, self.now, instead)

    def _senses(self) -> Senses:
        stall = self.world.stalls.get(self.robot.bay)
        closed, present, end_stop, holster = self._tool
        return Senses(
            self.now,
            self._joints[0] if self._joints else None,
            self.now - self._joints[1] if self._joints else float("inf"),
            self._wrench[0] if self._wrench else None,
            self.now - self._wrench[1] if self._wrench else float("inf"),
            closed,
            present,
            end_stop,
            holster,
            0.0,
            self.zone,
            self.now + 0.3 - self.permit_age,
            self.passive_follow,
            bool(stall and stall.present),
            self.field_clear,
            self.emergency,
        )

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> bool:
        """Let time pass, at most ``seconds``; True when ``until`` came true."""
        for _ in range(round(seconds * 1e3 / TICK)):
            self.tick()
            if until is not None and until():
                return True
        return until is None

    def finish(self, seconds: float = 300.0) -> Result:
        """Run the present action to its end."""
        if not self.run(seconds, lambda: not self.robot.busy):
            return Result(ErrorCode.TIMEOUT, f"still {self.robot.mode.name} after {seconds:.0f} s")
        assert self.robot.result is not None
        return self.robot.result

    def connect(self, evse: int = 1, connector: str = "ccs2") -> Result:
        self.robot.start_connect(evse, connector, self.now)
        return self.finish()

    def release(self, evse: int = 1) -> Result:
        self.robot.start_release(evse, self.now)
        return self.finish()

    def disconnect(self, evse: int = 1) -> Result:
        self.robot.start_disconnect(evse, self.now)
        return self.finish()


@dataclass
class Trial:
    """One parking."""

    seed: int
    kind: str
    error: str
    mated: bool
    false_mated: bool
    attempts: int
    connect_s: float
    disconnect_s: float
    max_push: float
    max_pull: float
    seat_peak: float
    leave_peak: float
    disconnect_error: str = ""


def trial(seed: int, camera: bool = False, kind: str = MIXED, engine: str = "mujoco") -> Trial:
    """Park, connect, release, disconnect."""
    rehearsal = Rehearsal(seed=seed, camera=load_camera() if camera else None, kind=kind, engine=ENGINES[engine])
    with contextlib.closing(rehearsal.world):
        try:
            return _visit(rehearsal, seed)
        except NoGazeboError as error:  # a trial like any other, and not mated
            kind = rehearsal.world.stalls[1].kind
            return Trial(seed, kind, f"simulator: {error}", False, False, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def trial_before(deadline: float, seed: int, **options: Any) -> Trial | None:
    """``trial``, or None once time.monotonic() is past ``deadline``."""
    return trial(seed, **options) if time.monotonic() < deadline else None


def _visit(rehearsal: Rehearsal, seed: int) -> Trial:
    rehearsal.world.arrive(1)
    result = rehearsal.connect()
    stall = rehearsal.world.stalls[1]
    said, true = result.error == ErrorCode.NONE, stall.mated
    outcome = Trial(
        seed, stall.kind, result.error.name + (f": {result.text}" if result.text else ""),
        said and true, said and not true, result.attempts, result.seconds, 0.0,
        stall.max_push, 0.0, stall.seat_peak, 0.0,
    )  # fmt: skip
    if said:
        released = rehearsal.release()
        gone = rehearsal.disconnect()
        outcome.disconnect_s = gone.seconds
        outcome.max_pull, outcome.leave_peak = stall.max_pull, stall.leave_peak
        outcome.disconnect_error = f"{released.error.name} {gone.error.name} {gone.text}"
    return outcome


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--trials",
        type=int,
        help=f"random parkings (default 1000, in Gazebo 50, as many as there are in {BUDGET_S:.0f} s)",
    )
    parser.add_argument("--engine", choices=tuple(ENGINES), default="mujoco", help="of the physics (default mujoco)")
    parser.add_argument("--seed", type=int, default=1, help="of the first parking (default 1)")
    parser.add_argument("--camera", action="store_true", help="poses from rendered pictures, not truth with noise")
    kinds = [MIXED, *load_vehicles()]
    parser.add_argument("--kind", choices=kinds, default=MIXED, help=f"of vehicle (default {MIXED}: by seed)")
    parser.add_argument("--json", help="write the figures to this file")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)")
    arguments = parser.parse_args()
    for name, least in (("trials", 1), ("jobs", 1), ("seed", 0)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            parser.error(f"--{name} {value} must be at least {least}")
    began = time.perf_counter()
    count = arguments.trials or (50 if arguments.engine == "gazebo" else 1000)
    seeds = range(arguments.seed, arguments.seed + count)
    one = partial(
        trial_before,
        math.inf if arguments.trials else time.monotonic() + BUDGET_S,
        camera=arguments.camera,
        kind=arguments.kind,
        engine=arguments.engine,
    )
    try:
        if arguments.engine == "gazebo":
            server(), plugin()
    except NoGazeboError as error:
        parser.error(f"{error}")
    with multiprocessing.get_context("spawn").Pool(arguments.jobs) as pool:
        trials = [done for done in pool.imap_unordered(one, seeds) if done is not None]
    if len(trials) < count:
        print(f"{len(trials)} of {count} parkings in {BUDGET_S:.0f} s; --trials {count} does them all")
    for t in sorted(trials, key=lambda t: t.seed):
        if not t.mated or "NONE NONE" not in t.disconnect_error:
            print(f"seed {t.seed} ({t.kind}): {t.error} after {t.attempts} attempts; {t.disconnect_error}")
    mated = [t for t in trials if t.mated]
    figures = {
        "trials": len(trials),
        "mated": len(mated),
        "false_mated": sum(t.false_mated for t in trials),
        "max_force_n": round(max(t.max_push for t in trials), 1),
        "max_pull_n": round(max(t.max_pull for t in trials), 1),
        "median_seat_peak_n": round(statistics.median(t.seat_peak for t in mated), 1) if mated else 0.0,
        "median_leave_peak_n": round(statistics.median(t.leave_peak for t in mated), 1) if mated else 0.0,
        "median_excess_n": round(statistics.median(t.max_push - t.seat_peak for t in mated), 1) if mated else 0.0,
        "median_time_s": round(statistics.median(t.connect_s for t in mated), 2) if mated else 0.0,
        "longest_time_s": round(max(t.connect_s for t in mated), 2) if mated else 0.0,
        "median_disconnect_s": round(statistics.median(t.disconnect_s for t in mated), 2) if mated else 0.0,
        "first_attempt": sum(t.attempts == 1 for t in mated),
        "disconnected": sum("NONE NONE" in t.disconnect_error for t in mated),
        "kinds": {k: [sum(t.kind == k for t in mated), sum(t.kind == k for t in trials)] for k in kinds[1:]},
        "engine": arguments.engine,
        "wall_s": round(time.perf_counter() - began, 1),
    }
    for name, value in figures.items():
        told = ", ".join(f"{k} {a}/{b}" for k, (a, b) in value.items() if b) if isinstance(value, dict) else value
        print(f"{name:22} {told}")
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(figures, file, indent=2)
    return 0


if __name__ == "__main__":
    sys.exit(main())
