"""The robot's logic on the physics, without ROS and in simulated time."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from robot_charger.robot.errors import BadGoal, Busy, ErrorCode
from robot_charger.robot.motion import ConnectionRobot, Mode, Senses
from robot_charger.robot.parameters import RobotParameters
from robot_charger.robot.spatial import transform
from robot_charger.sim.arm.physics import Parking
from robot_charger.words.values import Zone

pytestmark = pytest.mark.timeout(600)  # of a machine that is busy with other things


@pytest.fixture
def parked(bench: Any) -> Any:
    """A rehearsal with a vehicle in the bay."""
    rehearsal = bench.Rehearsal(seed=5)
    rehearsal.world.arrive(1)
    rehearsal.run(0.1)
    return rehearsal


def mated(rehearsal: Any) -> Any:
    result = rehearsal.connect()
    assert result.error == ErrorCode.NONE, result.text
    assert rehearsal.world.stalls[1].mated
    return result


def set_points(rehearsal: Any) -> np.ndarray:
    return rehearsal.world.data.act[:6].copy()


@pytest.mark.parametrize("seeds", [range(i, i + 5) for i in range(101, 121, 5)], ids=lambda r: f"from {r[0]}")
def test_random_parkings_are_mated_within_the_forces(bench: Any, seeds: range) -> None:
    for seed in seeds:
        trial = bench.trial(seed)
        assert trial.mated and not trial.false_mated, (seed, trial.error)
        assert trial.disconnect_error.startswith("NONE NONE"), (seed, trial.disconnect_error)
        assert 70.0 <= trial.max_push <= 100.0
        assert 75.0 <= trial.max_pull <= 150.0
        assert trial.connect_s < 30.0 * trial.attempts


def test_a_whole_visit(parked: Any) -> None:
    result = mated(parked)
    assert abs(result.depth - 0.040) < 0.015 and result.lateral < 0.025
    assert parked.robot.mode == Mode.MATED
    assert parked.release().error == ErrorCode.NONE
    assert parked.robot.mode == Mode.RELEASED and not parked.robot.in_contact_zone
    parked.run(1.0)
    assert parked.world.stalls[1].mated, "the plug stays in the inlet by itself"
    assert parked.disconnect().error == ErrorCode.NONE
    assert parked.robot.mode == Mode.PARKED
    assert parked.world.tool() == (False, False, False, True)


def prepare(rehearsal: Any, evse: int) -> None:
    rehearsal.robot.prepare(evse, rehearsal.now)
    rehearsal.finish()
    rehearsal.run(0.3)


@pytest.mark.parametrize("across", [(0.014, 0.0), (0.0, -0.014), (-0.010, 0.010)], ids=str)
def test_a_pose_far_off_across_the_axis_costs_no_second_attempt(parked: Any, across: tuple[float, float]) -> None:
    parked.world.stalls[1].error[1:3] = across
    result = mated(parked)
    assert result.attempts == 1
    assert abs(result.lateral - math.hypot(*across)) < 0.006


@pytest.mark.parametrize("along", [-0.017, 0.0, 0.017])
def test_the_depth_counts_from_the_face_that_was_felt(parked: Any, along: float) -> None:
    """The pose may be further off along the axis than a seated plug may be: the face is felt."""
    parked.world.stalls[1].error[:3] = (along, 0.007, 0.007)
    result = mated(parked)
    assert abs(result.depth - 0.040) < 0.004, result.depth


@pytest.mark.parametrize("connector", ["ccs2", "acdp"])
@pytest.mark.parametrize("friction", [0.75, 1.0, 1.2])
def test_a_nose_that_meets_no_face_has_its_depth_from_the_pose(bench: Any, connector: str, friction: float) -> None:
    """With an exact pose it falls straight into the opening; the seal, in which it stops first, is no face."""
    exact = bench.Rehearsal(seed=5, connector=connector, parking=Parking(estimate_m=0.0, estimate_deg=0.0))
    shape = exact.world._shape
    exact.world._shape = replace(shape, friction=[(x, friction * force) for x, force in shape.friction])
    exact.world.arrive(1)
    exact.run(0.1)
    result = exact.connect(connector=connector)
    assert result.error == ErrorCode.NONE, result.text
    assert abs(result.depth - exact.robot.connector.depth) < 0.003, result.depth


def test_the_felt_face_is_kept_for_the_way_out(parked: Any) -> None:
    parked.world.stalls[1].error[:3] = (0.017, 0.007, 0.007)
    mated(parked)
    assert parked.release().error == ErrorCode.NONE
    parked.robot.start_disconnect(1, parked.now)
    assert parked.run(60.0, lambda: parked.robot.mode == Mode.WITHDRAW)
    assert abs(parked.robot.touch.depth - 0.040) < 0.006
    stall = parked.world.stalls[1]
    assert parked.run(60.0, lambda: parked.robot.mode != Mode.WITHDRAW or not parked.robot.in_contact_zone)
    assert stall.depth < 0.0 and parked.finish().error == ErrorCode.NONE


def test_an_arm_that_waits_before_the_plug_mates_sooner(bench: Any, parked: Any) -> None:
    far = mated(parked).seconds
    near = bench.Rehearsal(seed=5)
    near.world.arrive(1)
    near.run(0.1)
    prepare(near, 1)
    assert near.robot.mode == Mode.PARKED and near.robot.waits_before() == 1
    assert near.world.tool() == (False, False, False, True), "it touches nothing"
    assert mated(near).seconds < far - 1.0


def test_a_vehicle_that_left_again_sends_the_waiting_arm_home(parked: Any) -> None:
    home = set_points(parked)
    prepare(parked, 1)
    before = set_points(parked)
    assert np.abs(before - home).max() > 0.2
    prepare(parked, 1)
    assert np.array_equal(set_points(parked), before), "it is there already"
    prepare(parked, 0)
    assert parked.robot.mode == Mode.PARKED and np.abs(set_points(parked) - home).max() < 0.01
    assert parked.robot.waits_before() == 0


def test_a_refusal_leaves_the_waiting_arm_ready(parked: Any) -> None:
    prepare(parked, 1)
    parked.world.set_fault("no-pose", True)
    parked.robot.forget_poses(1)
    assert parked.connect().error == ErrorCode.NO_POSE
    assert parked.robot.mode == Mode.PARKED and parked.robot.waits_before() == 1
    prepare(parked, 0)
    assert parked.robot.waits_before() == 0


def test_without_a_permit_it_does_not_go_to_the_plug(parked: Any) -> None:
    parked.zone = Zone.NONE
    home = set_points(parked)
    parked.robot.prepare(1, parked.now)
    parked.finish()
    assert np.array_equal(set_points(parked), home)


def test_an_arm_that_waits_elsewhere_goes_round_what_hangs_between(bench: Any) -> None:
    rehearsal = bench.Rehearsal(evses=3, seed=2)
    rehearsal.world.arrive(2)
    rehearsal.run(0.1)
    prepare(rehearsal, 1)
    rehearsal.robot.start_connect(2, "ccs2", rehearsal.now)
    park = rehearsal.robot.site.park
    assert rehearsal.run(30.0, lambda: np.abs(set_points(rehearsal) - park).max() < 0.02), "by way of its parking pose"
    assert rehearsal.finish().error == ErrorCode.NONE and rehearsal.world.stalls[2].mated


def test_the_plug_s_own_profile(parked: Any) -> None:
    mated(parked)
    parked.release()
    parked.disconnect()
    stall = parked.world.stalls[1]
    assert stall.seat_peak >= 70.0 and stall.leave_peak >= 90.0


def test_a_jam_is_never_forced_and_the_plug_goes_home(parked: Any) -> None:
    parked.world.set_fault("robot-jam", True)
    result = parked.connect()
    assert result.error == ErrorCode.JAMMED and result.attempts == 3
    assert 100.0 < parked.world.stalls[1].max_push <= 115.0
    assert parked.robot.mode == Mode.PARKED and parked.world.tool()[3]


def test_a_jam_that_goes_away_is_mated_at_the_next_attempt(parked: Any) -> None:
    parked.world.set_fault("robot-jam", True)
    parked.robot.start_connect(1, "ccs2", parked.now)
    assert parked.run(60.0, lambda: parked.robot.mode == Mode.RETREAT)
    parked.world.set_fault("robot-jam", False)
    result = parked.finish()
    assert result.error == ErrorCode.NONE and result.attempts == 2


@pytest.mark.parametrize("name", ["wrench-dead", "wrench-frozen", "wrench-biased"])
def test_a_bad_wrench_is_found_before_contact(parked: Any, name: str) -> None:
    parked.world.set_fault(name, True)
    result = parked.connect()
    assert result.error == ErrorCode.SENSOR, result.text
    assert parked.world.stalls[1].max_push == 0.0
    assert parked.robot.mode == Mode.PARKED


@pytest.mark.parametrize("name", ["wrench-dead", "wrench-frozen", "joint-states-missing"])
def test_a_sensor_that_fails_in_contact_stops_the_arm(parked: Any, name: str) -> None:
    parked.robot.start_connect(1, "ccs2", parked.now)
    assert parked.run(60.0, lambda: parked.robot.mode == Mode.INSERT)
    parked.world.set_fault(name, True)
    assert parked.finish().error == ErrorCode.SENSOR
    parked.run(0.1)
    before = set_points(parked)
    parked.run(1.0)
    assert parked.robot.mode == Mode.HOLD
    assert np.array_equal(before, set_points(parked))
    assert parked.world.stalls[1].max_push <= 100.0


def test_no_pose_no_motion(parked: Any) -> None:
    parked.world.set_fault("no-pose", True)
    parked.robot.forget_poses(1)
    before = set_points(parked)
    assert parked.connect().error == ErrorCode.NO_POSE
    assert np.allclose(before, set_points(parked), atol=1e-9)


def test_wild_poses_are_dropped(parked: Any) -> None:
    parked.world.set_fault("no-pose", True)
    parked.robot.forget_poses(1)
    inlet = parked.world.true_inlet(1)
    for _ in range(20):
        parked.robot.see(1, parked.now, inlet * float("nan"), 0.005)
        parked.robot.see(1, parked.now, inlet, float("nan"))
        parked.robot.see(1, parked.now, inlet, 0.5)
    assert parked.connect().error == ErrorCode.NO_POSE


def test_an_inlet_out_of_reach_is_refused_before_any_motion(parked: Any) -> None:
    parked.world.set_fault("no-pose", True)
    parked.robot.forget_poses(1)
    before = set_points(parked)
    for _ in range(20):
        parked.robot.see(1, parked.now, parked.world.true_inlet(1) @ transform((0.0, 0.5, 0.0)), 0.005)
    assert parked.connect().error == ErrorCode.OUT_OF_REACH
    assert np.allclose(before, set_points(parked), atol=1e-9)


def test_a_vehicle_that_moves_before_contact_is_noticed(parked: Any) -> None:
    parked.robot.start_connect(1, "ccs2", parked.now)
    assert parked.run(60.0, lambda: parked.robot.mode == Mode.APPROACH)
    assert parked.run(60.0, lambda: parked.robot.in_contact_zone)
    parked.world.set_fault("vehicle-moved", True)
    result = parked.finish()
    assert result.error == ErrorCode.VEHICLE_MOVED, result.text
    assert parked.robot.mode == Mode.PARKED and parked.world.tool()[3]


@pytest.mark.parametrize("mode", [Mode.MOVING, Mode.APPROACH, Mode.INSERT])
def test_a_lapsed_permit_holds_the_arm_and_a_new_one_lets_it_go_on(parked: Any, mode: Mode) -> None:
    parked.robot.start_connect(1, "ccs2", parked.now)
    assert parked.run(60.0, lambda: parked.robot.mode == mode)
    parked.permit_age = 0.4
    parked.run(0.1)
    assert parked.robot.mode == Mode.HOLD
    before = set_points(parked)
    parked.run(1.0)
    assert np.array_equal(before, set_points(parked))
    parked.permit_age = 0.0
    assert parked.finish().error == ErrorCode.NONE


def test_a_permit_that_stays_away_ends_the_action(parked: Any) -> None:
    parked.robot.start_connect(1, "ccs2", parked.now)
    assert parked.run(60.0, lambda: parked.robot.mode == Mode.INSERT)
    parked.zone = Zone.NONE
    assert parked.finish().error == ErrorCode.NO_PERMIT
    parked.zone = Zone.CONTACT
    assert parked.disconnect().error == ErrorCode.NONE
    assert parked.robot.mode == Mode.PARKED


def test_the_free_zone_ends_before_the_inlet(parked: Any) -> None:
    parked.zone = Zone.FREE
    result = parked.connect()
    assert result.error == ErrorCode.NO_PERMIT
    assert not parked.robot.in_contact_zone
    nose = parked.world.plug_in_inlet(1)
    assert nose[0, 3] < -0.10


def test_a_vehicle_that_drives_off_during_insertion(parked: Any) -> None:
    parked.robot.start_connect(1, "ccs2", parked.now)
    assert parked.run(60.0, lambda: parked.robot.mode == Mode.INSERT and parked.robot.touch.x > 0.012)
    parked.world.set_fault("drives-off", True)
    result = parked.finish()
    assert result.error == ErrorCode.VEHICLE_MOVED, result.text
    assert parked.robot.mode == Mode.PARKED and parked.world.tool()[3]
    assert max(parked.world.stalls[1].max_push, parked.world.stalls[1].max_pull) <= 150.0


def test_a_vehicle_that_drives_off_while_the_arm_follows_it(bench: Any) -> None:
    """The head slips out; the arm stops at the end of its stroke and goes home when told."""
    rehearsal = bench.Rehearsal(seed=12, connector="acdp")
    rehearsal.world.arrive(1)
    assert rehearsal.connect(1, "acdp").error == ErrorCode.NONE
    assert rehearsal.release().following
    rehearsal.zone, rehearsal.passive_follow = Zone.NONE, True
    rehearsal.run(0.3)
    from_here = rehearsal.world.gripper_pose()[:3, 3]
    rehearsal.world.set_fault("drives-off", True)
    rehearsal.run(4.0)
    went = float(np.linalg.norm(rehearsal.world.gripper_pose()[:3, 3] - from_here))
    assert not rehearsal.world.stalls[1].mated and went < 0.08
    rehearsal.zone, rehearsal.passive_follow = Zone.CONTACT, False
    assert rehearsal.disconnect().error == ErrorCode.NONE
    assert rehearsal.robot.mode == Mode.PARKED and rehearsal.world.tool()[3]


@pytest.mark.parametrize("mode", [Mode.INSERT, Mode.MATED])
def test_a_power_loss_with_the_plug_in_the_inlet(bench: Any, parked: Any, mode: Mode) -> None:
    """The arm's brakes hold; a node that starts anew knows nothing and still takes the plug out along its axis."""
    parked.robot.start_connect(1, "ccs2", parked.now)
    assert parked.run(60.0, lambda: parked.robot.mode == mode and parked.robot.touch.x > 0.012)
    parked.robot.cancel()
    parked.robot = ConnectionRobot(parked.world.site, parked.robot.kinematics, parked.parameters)
    parked.run(0.1)
    before = set_points(parked)
    parked.run(1.0)
    assert parked.robot.mode == Mode.HOLD and np.array_equal(before, set_points(parked))
    assert parked.disconnect().error == ErrorCode.NONE
    assert parked.robot.mode == Mode.PARKED and parked.world.tool()[3]
    stall = parked.world.stalls[1]
    assert stall.max_pull <= 150.0 and parked.world.trips == 0


def test_nothing_seen_after_a_power_loss_with_a_seated_plug_moves_nothing(parked: Any) -> None:
    mated(parked)
    parked.world.set_fault("no-pose", True)
    parked.robot = ConnectionRobot(parked.world.site, parked.robot.kinematics, parked.parameters)
    before = set_points(parked)
    assert parked.disconnect().error == ErrorCode.NO_POSE
    assert np.allclose(before, set_points(parked), atol=3e-3) and parked.world.stalls[1].mated


@pytest.mark.parametrize("mode", [Mode.APPROACH, Mode.INSERT])
@pytest.mark.parametrize("what, code", [("emergency", ErrorCode.EMERGENCY), ("field", ErrorCode.FIELD_BREACHED)])
def test_emergency_and_breach_end_at_once(parked: Any, what: str, code: ErrorCode, mode: Mode) -> None:
    parked.robot.start_connect(1, "ccs2", parked.now)
    assert parked.run(60.0, lambda: parked.robot.mode == mode)
    parked.emergency, parked.field_clear = what == "emergency", what != "field"
    parked.tick()
    assert parked.robot.result.error == code
    parked.run(0.1)
    before = set_points(parked)
    parked.run(0.5)
    assert np.array_equal(before, set_points(parked)) and parked.robot.mode == Mode.HOLD
    parked.emergency, parked.field_clear = False, True
    assert parked.disconnect().error == ErrorCode.NONE and parked.robot.mode == Mode.PARKED


@pytest.mark.parametrize("mode", [Mode.MOVING, Mode.APPROACH, Mode.SEARCH, Mode.INSERT])
def test_cancel_holds_and_disconnect_brings_everything_home(parked: Any, mode: Mode) -> None:
    parked.robot.start_connect(1, "ccs2", parked.now)
    assert parked.run(60.0, lambda: parked.robot.mode == mode)
    parked.robot.cancel()
    assert parked.robot.result.error == ErrorCode.CANCELLED
    assert parked.robot.mode in (Mode.HOLD, Mode.PARKED)  # parked: it had not left yet
    assert parked.disconnect().error == ErrorCode.NONE
    assert parked.robot.mode == Mode.PARKED and parked.world.tool()[3]


def test_a_locked_plug_is_not_torn_out(parked: Any) -> None:
    mated(parked)
    parked.release()
    parked.world.stalls[1].locked = True
    result = parked.disconnect()
    assert result.error == ErrorCode.STUCK
    assert parked.robot.mode == Mode.RELEASED
    stall = parked.world.stalls[1]
    assert stall.mated and stall.max_pull <= 150.0
    stall.locked = False
    assert parked.disconnect().error == ErrorCode.NONE


def test_a_car_that_sank_is_grasped_where_it_is_now(parked: Any) -> None:
    mated(parked)
    parked.release()
    parked.world.set_fault("vehicle-moved", True)  # rolls 20 mm with the plug in
    parked.run(6.0)
    assert parked.world.stalls[1].mated
    assert parked.disconnect().error == ErrorCode.NONE


def test_the_arm_follows_a_car_that_rolls_with_the_plug_held(parked: Any) -> None:
    mated(parked)
    stall = parked.world.stalls[1]
    parked.passive_follow = True
    parked.run(0.2)
    stall.max_push = stall.max_pull = 0.0
    parked.world.set_fault("vehicle-moved", True)
    parked.run(3.0)
    assert parked.robot.mode == Mode.FOLLOWING
    assert stall.mated and np.linalg.norm(stall.rolled) > 0.019
    assert max(stall.max_push, stall.max_pull) < 100.0
    assert abs(stall.push) < 20.0
    assert parked.disconnect().error == ErrorCode.NONE


def test_one_goal_at_a_time_and_only_sensible_ones(parked: Any) -> None:
    robot = parked.robot
    for evse, connector in ((1, "schuko"), (2, "ccs2"), (0, "ccs2"), (1, "")):
        with pytest.raises(BadGoal):
            robot.start_connect(evse, connector, parked.now)
    with pytest.raises(BadGoal):
        robot.start_release(1, parked.now)
    robot.start_connect(1, "ccs2", parked.now)
    with pytest.raises(Busy):
        robot.start_disconnect(1, parked.now)


def test_a_slow_arm_still_mates(parked: Any) -> None:
    parked.world.set_fault("slow", True)
    mated(parked)


class Stalls:
    """A computer that is short of time: now and then the arm, the robot or both stand still for 50 to 300 ms."""

    def __init__(self, rehearsal: Any, seed: int, share: float = 0.02) -> None:
        self._rehearsal, self._random, self._share = rehearsal, random.Random(seed), share

    def drive(self, seconds: float = 120.0) -> Any:
        rehearsal = self._rehearsal

        def stall() -> bool:
            if self._random.random() < self._share:
                who, ticks = self._random.random(), self._random.randint(5, 30)
                if who < 0.7:
                    rehearsal.arm_starved = ticks
                if who > 0.5:
                    rehearsal.robot_starved = ticks
            return not rehearsal.robot.busy

        assert rehearsal.run(seconds, stall), "not done"
        return rehearsal.robot.result


@pytest.mark.parametrize("seed", [1, 2])
def test_a_lack_of_processor_time_makes_it_slower_and_nothing_else(bench: Any, seed: int) -> None:
    rehearsal = bench.Rehearsal(seed=seed)
    rehearsal.world.arrive(1)
    rehearsal.run(0.5)
    stalls, stall = Stalls(rehearsal, seed), rehearsal.world.stalls[1]
    rehearsal.robot.start_connect(1, "ccs2", rehearsal.now)
    result = stalls.drive()
    assert result.error == ErrorCode.NONE and result.attempts == 1, result.text
    assert stall.mated and stall.max_push <= 100.0
    rehearsal.robot.start_release(1, rehearsal.now)
    assert stalls.drive().error == ErrorCode.NONE
    rehearsal.robot.start_disconnect(1, rehearsal.now)
    assert stalls.drive().error == ErrorCode.NONE
    assert stall.max_pull <= 150.0 and rehearsal.world.trips == 0
    assert rehearsal.robot.mode == Mode.PARKED


def test_an_attempt_s_time_out_counts_only_time_in_which_the_arm_could_move(bench: Any) -> None:
    rehearsal = bench.Rehearsal(seed=5, parameters=RobotParameters(attempt_timeout_s=14.0))
    rehearsal.world.arrive(1)
    rehearsal.run(0.5)
    rehearsal.robot.start_connect(1, "ccs2", rehearsal.now)
    assert rehearsal.run(60.0, lambda: rehearsal.robot.mode == Mode.SEARCH)
    for _ in range(20):  # 18 s without a processor, 2 s with
        rehearsal.robot_starved = 90
        rehearsal.run(1.0)
    assert rehearsal.finish().error == ErrorCode.NONE


def test_a_pause_of_the_computer_during_the_look_is_not_a_lost_inlet(parked: Any) -> None:
    parked.robot.start_connect(1, "ccs2", parked.now)
    assert parked.run(5.0, lambda: parked.robot.arm.inlet is not None)
    parked.arm_starved = parked.robot_starved = 110
    assert parked.finish().error == ErrorCode.NONE


def test_an_arm_that_stands_still_ends_the_action(parked: Any) -> None:
    """Joint states come, but its brakes hold."""
    parked.robot.start_connect(1, "ccs2", parked.now)
    assert parked.run(60.0, lambda: parked.robot.mode == Mode.APPROACH)
    parked.world.trajectory = lambda points: None
    assert parked.finish().error == ErrorCode.TOOL


def test_a_world_at_rest_costs_nothing_and_wakes_up(parked: Any) -> None:
    world = parked.world
    assert parked.run(3.0, lambda: world.asleep)
    before, first = world.data.time, world.wrench()
    parked.run(1.0)
    assert world.data.time == before, "no physics at rest"
    assert not np.array_equal(first, world.wrench()), "the sensor's noise goes on"
    mated(parked)
    parked.release()
    assert parked.run(5.0, lambda: world.asleep), "a plug in its inlet rests too"
    world.set_fault("vehicle-moved", False)
    assert world.asleep, "a signal that says nothing new wakes nobody"
    assert world.stalls[1].mated
    world.set_fault("vehicle-moved", True)
    parked.run(0.5)
    assert np.linalg.norm(world.stalls[1].rolled) > 0.005


def test_the_arm_s_own_guard_limits_the_push(bench: Any) -> None:
    """A robot that does not look at its wrench: the arm stops by itself."""
    rehearsal = bench.Rehearsal(seed=5)
    rehearsal.world.arrive(1)
    rehearsal.world.set_fault("robot-jam", True)
    rehearsal.robot.start_connect(1, "ccs2", rehearsal.now)
    assert rehearsal.run(60.0, lambda: rehearsal.robot.mode == Mode.INSERT)
    world, inlet = rehearsal.world, rehearsal.world.true_inlet(1)
    q = world.joints()[0]
    for step in range(400):
        q = rehearsal.robot.kinematics.follow(inlet @ transform((-0.2 + 0.0002 * step, 0, 0)), q)[0]
        world.trajectory([(0.02, q)])
        world.advance(10)
    assert world.trips > 0
    assert world.stalls[1].max_push < 140.0


@pytest.mark.parametrize("evse", [2, 3, 4])
def test_other_bays(bench: Any, evse: int) -> None:
    rehearsal = bench.Rehearsal(evses=4, seed=8)
    rehearsal.world.arrive(evse)
    rehearsal.run(0.1)
    result = rehearsal.connect(evse)
    assert result.error == ErrorCode.NONE and rehearsal.world.stalls[evse].mated, result.text
    assert rehearsal.release(evse).error == ErrorCode.NONE
    assert rehearsal.disconnect(evse).error == ErrorCode.NONE


@pytest.mark.parametrize("connector", ["ccs1", "nacs", "chademo", "gbt", "type2"])
def test_other_plugs(bench: Any, connector: str) -> None:
    rehearsal = bench.Rehearsal(seed=12, connector=connector)
    rehearsal.world.arrive(1)
    result = rehearsal.connect(1, connector)
    stall = rehearsal.world.stalls[1]
    assert result.error == ErrorCode.NONE and stall.mated, result.text
    assert rehearsal.release().error == ErrorCode.NONE
    assert rehearsal.disconnect().error == ErrorCode.NONE
    assert stall.seat_peak >= 70.0 and stall.seat_peak - 2.0 < stall.max_push <= 100.0


def test_a_head_that_stays_in_the_hand_follows_the_vehicle(bench: Any) -> None:
    """ACDP: no letting go. Release says so; the arm follows under a permit without a zone."""
    rehearsal = bench.Rehearsal(seed=12, connector="acdp")
    rehearsal.world.arrive(1)
    assert rehearsal.connect(1, "acdp").error == ErrorCode.NONE
    stall = rehearsal.world.stalls[1]
    assert stall.mated and stall.max_push <= 100.0
    released = rehearsal.release()
    assert released.error == ErrorCode.NONE and released.following
    rehearsal.zone = Zone.NONE
    rehearsal.run(0.5)
    assert rehearsal.robot.mode == Mode.FOLLOWING and rehearsal.world.held == 1
    before = set_points(rehearsal)
    rehearsal.run(0.5)
    assert np.array_equal(before, set_points(rehearsal)), "without a permit it stands still"
    rehearsal.passive_follow = True
    rehearsal.world.set_fault("vehicle-moved", True)
    rehearsal.run(3.0)
    assert np.linalg.norm(stall.rolled) > 0.019 and stall.mated
    assert max(stall.max_push, stall.max_pull) < 100.0
    rehearsal.world.set_fault("joint-states-missing", True)
    rehearsal.run(1.0)
    assert rehearsal.robot.mode == Mode.FOLLOWING, "a pause"
    rehearsal.run(1.0)
    assert rehearsal.robot.mode == Mode.MATED, "an arm that is not heard follows nothing"
    rehearsal.world.set_fault("joint-states-missing", False)
    rehearsal.run(0.1)
    assert rehearsal.robot.mode == Mode.FOLLOWING
    rehearsal.zone, rehearsal.passive_follow = Zone.CONTACT, False
    assert rehearsal.disconnect().error == ErrorCode.NONE
    assert rehearsal.robot.mode == Mode.PARKED and not stall.mated


def test_two_vehicles_at_once(bench: Any) -> None:
    rehearsal = bench.Rehearsal(evses=2, seed=9)
    for evse in (1, 2):
        rehearsal.world.arrive(evse)
        assert rehearsal.connect(evse).error == ErrorCode.NONE
        assert rehearsal.release(evse).error == ErrorCode.NONE
    assert all(stall.mated for stall in rehearsal.world.stalls.values())
    for evse in (1, 2):
        assert rehearsal.disconnect(evse).error == ErrorCode.NONE
    assert not any(stall.mated for stall in rehearsal.world.stalls.values())


def test_an_arm_that_was_never_heard_is_waited_for_and_not_for_ever(bench: Any) -> None:
    """Topics find each other a moment after the start, later on a busy machine."""
    robot = bench.Rehearsal(seed=1).robot
    robot.start_connect(1, "ccs2", 0.0)
    for tick in range(450):
        assert robot.step(Senses(tick * 0.01, zone=Zone.CONTACT, permit_until=99.0)).q is None
    assert robot.busy
    for tick in range(450, 550):
        robot.step(Senses(tick * 0.01, zone=Zone.CONTACT, permit_until=99.0))
    assert robot.result and robot.result.error == ErrorCode.SENSOR
