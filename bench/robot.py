"""Mate, release, grasp and withdraw over many random parkings, in simulated time: speed and quality of the robot.

    python bench/robot.py --trials 1000 --seed 1 --json robot.json
    python bench/robot.py --variant obstacle-hand --trials 50
    python bench/robot.py --engine gazebo --trials 50
    python bench/robot.py --trials 3000 --resume robot.jsonl     # again and again, until all are done

Prints a table; the JSON has trials, mated, refused, false_mated, max_force_n, median_excess_n, median_time_s,
recover_s_max, residual_n_max, obstacle_n_max, engine and more. A variant disturbs every trial (see VARIANTS). The
motion logic of the robot node runs unchanged; ROS is left out, its delay (one tick each way) is not. In Gazebo (after
``make tools``) controller, tool and truth are the same, and the physics is Gazebo's.
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
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
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
from robot_charger.robot.spatial import from_xyz_rpy, transform  # noqa: E402
from robot_charger.sim.arm.camera import BayCamera  # noqa: E402
from robot_charger.sim.arm.gazebo_classic import GazeboWorld, NoGazeboError, plugin, server  # noqa: E402
from robot_charger.sim.arm.model import load_vehicles  # noqa: E402
from robot_charger.sim.arm.physics import MIXED, ArmWorld  # noqa: E402
from robot_charger.sim.arm.stall import Parking  # noqa: E402
from robot_charger.words.values import Zone  # noqa: E402

ENGINES = {"mujoco": ArmWorld, "gazebo": GazeboWorld}
TICK = 10  # steps of 1 ms
POSE_TICKS = 10  # an inlet pose every 100 ms
LEFT_N = 5.0  # of contact that counts as left
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
        self.breached: frozenset[int] = frozenset()
        self.arm_starved = self.robot_starved = 0  # ticks without the processor, for one or the other
        self._ticks = self._missed = 0
        self._commands: deque[Command] = deque()
        self._tool = self.world.tool()
        self._joints: tuple[np.ndarray, float] | None = None
        self._wrench: tuple[np.ndarray, float] | None = None
        self.disturb: Callable[[Rehearsal], None] | None = None  # each tick, by a variant
        self.recover_s = self.residual_n = 0.0  # longest time to leave a force, and what was left of it
        self._leaving_since: float | None = None

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
        if self.disturb is not None:
            self.disturb(self)
        self._recovery()

    def _recovery(self) -> None:
        """From the first answer to a force until nothing but the weight is felt: by the physics, not by the sensor."""
        if self._leaving_since is None:
            if self.robot.arm.leaving:
                self._leaving_since = self.now
            return
        self.recover_s = max(self.recover_s, self.now - self._leaving_since)
        if not self.robot.arm.leaving:
            self.residual_n = max(self.residual_n, self.world.contact_n())
            self._leaving_since = None

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
            self.world.set_limp(command.limp)
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
            self.breached,
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
    refused: bool = False  # it said that it did not mate, and nothing is wrong with where it stands
    recover_s: float = 0.0
    residual_n: float = 0.0
    obstacle_n: float = 0.0


def _scaled_friction(factor: float) -> Callable[[Rehearsal], None]:
    def prepare(rehearsal: Rehearsal) -> None:
        shape = rehearsal.world._shape
        rehearsal.world._shape = replace(shape, friction=[(x, factor * force) for x, force in shape.friction])

    return prepare


def _fault(name: str) -> Callable[[Rehearsal], None]:
    return lambda rehearsal: rehearsal.world.set_fault(name, True)


def _offset(metres: float) -> Callable[[Rehearsal], None]:
    def prepare(rehearsal: Rehearsal) -> None:
        sign = 1.0 if rehearsal.world.seed % 2 else -1.0
        rehearsal.world.stalls[1].error[:] = (sign * metres, 0.0, 0.0, 0.0, 0.0, 0.0)

    return prepare


def _hand(rehearsal: Rehearsal) -> None:
    """A hand that does not give way, somewhere between the holster and the mouth."""
    world = rehearsal.world
    rng = np.random.default_rng([world.seed, 99])
    inlet = world.true_inlet(1)
    at = inlet @ transform((-rng.uniform(0.06, 0.20), rng.uniform(-0.03, 0.03), rng.uniform(-0.03, 0.03)))
    at = at @ transform(rotation=from_xyz_rpy((0.0, 0.0, 0.0), rng.uniform(-1.0, 1.0, 3).tolist())[:3, :3])
    world.put("hand", at)


@dataclass(frozen=True)
class Variant:
    """What is different from a nominal trial: before the vehicle arrives, once it stands, and the spread of both."""

    text: str
    before: Callable[[Rehearsal], None] | None = None
    after: Callable[[Rehearsal], None] | None = None
    parking: Parking = Parking()
    camera: bool = False


VARIANTS = {
    "nominal": Variant("parkings of all kinds"),
    "stiff-inlet": Variant("the inlet's friction is twice as large: 128 N, too much", _scaled_friction(2.0)),
    "plug-100n": Variant("the inlet's friction is 1.45 times as large: 100 N", _scaled_friction(1.45)),
    "half-flap": Variant("a flap covers 20 mm of the opening", after=_fault("half-flap")),
    "rolls-in-25mm": Variant("the vehicle rolls 25 mm towards the arm during insertion", after=_fault("rolls-in")),
    "rolls-away": Variant("the vehicle rolls 20 mm away during insertion", after=_fault("rolls-away")),
    "offset-15mm": Variant("the estimate is 15 mm off along the axis", after=_offset(0.015)),
    "drift-15n": Variant("the wrench is 15 N off from 20 mm before the mouth on", after=_fault("wrench-drifts")),
    "cable-45n": Variant("the cable pulls with up to 45 N", parking=Parking(cable_n=45.0)),
    "wide": Variant(
        "+-250 mm, +-15 deg, 10 mm and 2 deg of noise",
        parking=Parking((0.25, 0.25, 0.04), 15.0, 5.0, 0.010, 2.0),
    ),
    "obstacle-hand": Variant("a hand of 75 N/mm in the way", after=_hand),
    "camera-all-kinds": Variant("poses from rendered pictures", camera=True),
}


def trial(
    seed: int, camera: bool = False, kind: str = MIXED, engine: str = "mujoco", variant: str = "nominal"
) -> Trial:
    """Park, connect, release, disconnect."""
    how = VARIANTS[variant]
    seen_by = load_camera() if camera or how.camera else None
    rehearsal = Rehearsal(seed=seed, parking=how.parking, camera=seen_by, kind=kind, engine=ENGINES[engine])
    with contextlib.closing(rehearsal.world):
        try:
            return _visit(rehearsal, seed, how)
        except NoGazeboError as error:  # a trial like any other, and not mated
            kind = rehearsal.world.stalls[1].kind
            return Trial(seed, kind, f"simulator: {error}", False, False, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def trial_before(deadline: float, seed: int, **options: Any) -> Trial | None:
    """``trial``, or None once time.monotonic() is past ``deadline``."""
    return trial(seed, **options) if time.monotonic() < deadline else None


def _visit(rehearsal: Rehearsal, seed: int, variant: Variant) -> Trial:
    if variant.before is not None:
        variant.before(rehearsal)
    rehearsal.world.arrive(1)
    if variant.after is not None:
        variant.after(rehearsal)
    result = rehearsal.connect()
    stall = rehearsal.world.stalls[1]
    said, true = result.error == ErrorCode.NONE, stall.mated
    outcome = Trial(
        seed, stall.kind, result.error.name + (f": {result.text}" if result.text else ""),
        said and true, said and not true, result.attempts, result.seconds, 0.0,
        stall.max_push, 0.0, stall.seat_peak, 0.0,
    )  # fmt: skip
    if not said:
        rehearsal.run(0.5)
        outcome.refused = not true and rehearsal.world.contact_n() < LEFT_N and not rehearsal.world.dropped(1)
        outcome.residual_n = rehearsal.world.contact_n()
    if said:
        released = rehearsal.release()
        gone = rehearsal.disconnect()
        outcome.disconnect_s = gone.seconds
        outcome.max_pull, outcome.leave_peak = stall.max_pull, stall.leave_peak
        outcome.disconnect_error = f"{released.error.name} {gone.error.name} {gone.text}"
    outcome.recover_s, outcome.obstacle_n = rehearsal.recover_s, rehearsal.world.hand_most_n
    outcome.residual_n = max(outcome.residual_n, rehearsal.residual_n)
    return outcome


def earlier(file: Path, conditions: dict[str, Any]) -> list[Trial]:
    """Trials that ``file`` holds already. Raises ValueError when they were made under other conditions."""
    if not file.exists():
        file.write_text(json.dumps(conditions) + "\n")
        return []
    head, *lines = file.read_text().splitlines()
    if json.loads(head) != conditions:
        raise ValueError(f"{file} holds trials of {head}, not of {json.dumps(conditions)}")
    done = {}
    for line in lines:
        with contextlib.suppress(ValueError, TypeError):  # the last line may be cut off
            kept = Trial(**json.loads(line))
            done[kept.seed] = kept
    return list(done.values())


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
    parser.add_argument("--variant", choices=tuple(VARIANTS), default="nominal", help="what disturbs every trial")
    parser.add_argument("--resume", type=Path, help="keep every trial in this file, and do only those it has not")
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
    conditions = {name: getattr(arguments, name) for name in ("variant", "engine", "kind", "camera")}
    trials: list[Trial] = []
    if arguments.resume:
        try:
            trials = [done for done in earlier(arguments.resume, conditions) if done.seed in seeds]
        except (ValueError, OSError) as error:
            parser.error(f"{error}")
    one = partial(
        trial_before,
        math.inf if arguments.trials else time.monotonic() + BUDGET_S,
        camera=arguments.camera,
        kind=arguments.kind,
        engine=arguments.engine,
        variant=arguments.variant,
    )
    try:
        if arguments.engine == "gazebo":
            server(), plugin()
    except NoGazeboError as error:
        parser.error(f"{error}")
    left = [seed for seed in seeds if seed not in {done.seed for done in trials}]
    with multiprocessing.get_context("spawn").Pool(arguments.jobs) as pool, contextlib.ExitStack() as stack:
        file = stack.enter_context(arguments.resume.open("a")) if arguments.resume else None
        for done in pool.imap_unordered(one, left):
            if done is None:
                continue
            trials.append(done)
            if file is not None:
                file.write(json.dumps(asdict(done)) + "\n")
                file.flush()
    if not trials:
        parser.error("not one trial was done in time")
    if len(trials) < count:
        print(f"{len(trials)} of {count} parkings in {BUDGET_S:.0f} s; --trials {count} does them all")
    for t in sorted(trials, key=lambda t: t.seed):
        if not t.mated or "NONE NONE" not in t.disconnect_error:
            print(f"seed {t.seed} ({t.kind}): {t.error} after {t.attempts} attempts; {t.disconnect_error}")
    mated = [t for t in trials if t.mated]
    figures = {
        "trials": len(trials),
        "mated": len(mated),
        "refused": sum(t.refused for t in trials),
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
        "recover_s_max": round(max(t.recover_s for t in trials), 2),
        "residual_n_max": round(max(t.residual_n for t in trials), 1),
        "obstacle_n_max": round(max(t.obstacle_n for t in trials), 1),
        "variant": arguments.variant,
        "seed": arguments.seed,
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
