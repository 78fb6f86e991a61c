"""The robot among people and things: contact that is noticed in every motion, and that can always be left."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from robot_charger.robot.description import load_tool
from robot_charger.robot.errors import ErrorCode
from robot_charger.robot.motion import Mode
from robot_charger.robot.parameters import RobotParameters
from robot_charger.robot.spatial import transform
from robot_charger.robot.speeds import Hand, tables
from robot_charger.sim.arm.guard import Guard

pytestmark = pytest.mark.timeout(600)  # of a machine that is busy with other things

HAND_N = 140.0  # a hand, quasi-static (ISO/TS 15066)
LEFT_N = 5.0


@pytest.fixture
def parked(bench: Any) -> Any:
    """A rehearsal with a vehicle in the bay."""
    rehearsal = bench.Rehearsal(seed=5)
    rehearsal.world.arrive(1)
    rehearsal.run(0.1)
    return rehearsal


def hand_before_the_mouth(rehearsal: Any, metres: float, aside: float = 0.0) -> None:
    rehearsal.world.put("hand", rehearsal.world.true_inlet(1) @ transform((-metres - 0.03, aside, 0.0)))


@pytest.mark.parametrize("metres", [0.03, 0.10, 0.20])
def test_a_hand_before_the_inlet_is_not_crushed(parked: Any, metres: float) -> None:
    hand_before_the_mouth(parked, metres)
    result = parked.connect()
    assert result.error == ErrorCode.OBSTACLE, result.text
    assert 20.0 < parked.world.hand_most_n <= HAND_N
    assert parked.robot.mode in (Mode.HOLD, Mode.LIMP)
    parked.run(0.5)
    assert parked.world.contact_n() < LEFT_N and not parked.world.dropped(1)


def test_a_hand_that_is_taken_away_costs_one_more_look(parked: Any) -> None:
    hand_before_the_mouth(parked, 0.10)
    parked.robot.start_connect(1, "ccs2", parked.now)
    assert parked.run(60.0, lambda: parked.robot.arm.leaving)
    parked.world.put("hand", None)
    result = parked.finish()
    assert result.error == ErrorCode.NONE, result.text


@pytest.mark.parametrize("mode", [Mode.MOVING, Mode.APPROACH])
@pytest.mark.parametrize("way", [(1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, 1.0)], ids=str)
def test_a_force_on_the_tool_stops_every_motion(parked: Any, mode: Mode, way: tuple[float, float, float]) -> None:
    """200 N for 1.5 s, wherever the arm is on its way: it stops within a hand's breadth and gives way."""
    parked.robot.start_connect(1, "ccs2", parked.now)
    held = mode == Mode.APPROACH  # with the plug in the hand, and before it
    assert parked.run(60.0, lambda: parked.robot.mode == mode and (parked.world.held == 1) == held)
    parked.run(0.3)
    world = parked.world
    body = world.model.body("plug1" if held else "arm/gripper_link").id
    before = world.gripper_pose()[:3, 3].copy()
    towards = world.gripper_pose()[:3, 0]
    world.data.xfrc_applied[world._gripper, :3] = 200.0 * np.array(way)
    assert body
    assert parked.run(1.5, lambda: parked.robot.arm.leaving), "noticed"
    on = float((world.gripper_pose()[:3, 3] - before) @ towards)
    assert on < 0.1
    world.data.xfrc_applied[world._gripper, :3] = 0.0
    assert parked.finish().error == ErrorCode.NONE, "it looks again and goes on"


def test_the_force_of_a_missing_plug_weight_or_cable_is_no_obstacle(bench: Any) -> None:
    for seed in (3, 4):
        rehearsal = bench.Rehearsal(seed=seed, parking=bench.Parking(cable_n=45.0), kind="mixed")
        rehearsal.world.arrive(1)
        assert rehearsal.connect().error == ErrorCode.NONE
        assert rehearsal.robot.arm.unexpected_peak < 15.0
        assert rehearsal.release().error == ErrorCode.NONE and rehearsal.disconnect().error == ErrorCode.NONE


def test_speed_follows_from_the_allowed_force() -> None:
    p, tool = RobotParameters(), load_tool()
    hand = Hand.of(p)
    for axis in np.eye(3):
        k = hand.stiffness(tool, axis)
        for threshold in (p.collision__free_n, p.collision__near_n):
            speed = hand.speed(threshold, k)
            assert hand.force(speed, threshold, k) == pytest.approx(HAND_N)
            assert hand.force(1.1 * speed, threshold, k) > HAND_N
    assert hand.stop(0.2, 0.35)[1] == pytest.approx(0.2 * 0.35 + 0.2**2 / 10.0)
    assert "stops after" in tables(tool, p)


def test_a_tool_that_hits_a_hand_faster_than_allowed_would_hurt_it(bench: Any) -> None:
    """The test above could fail: with a reaction of a quarter second in mind the same hand feels too much."""
    fast = RobotParameters(collision__braking_m_s2=20.0, collision__reaction_s=0.01, collision__near_n=60.0)
    rehearsal = bench.Rehearsal(seed=5, parameters=fast)
    rehearsal.world.arrive(1)
    rehearsal.run(0.1)
    hand_before_the_mouth(rehearsal, 0.10)
    rehearsal.connect()
    slow = bench.Rehearsal(seed=5)
    slow.world.arrive(1)
    slow.run(0.1)
    hand_before_the_mouth(slow, 0.10)
    slow.connect()
    assert rehearsal.world.hand_most_n > slow.world.hand_most_n + 20.0


@pytest.mark.parametrize("fault", ["half-flap", "rolls-in", "wrench-drifts"])
def test_what_presses_is_left_within_seconds(parked: Any, fault: str) -> None:
    parked.world.set_fault(fault, True)
    result = parked.connect()
    parked.run(0.5)
    assert parked.recover_s < 2.0
    if result.error == ErrorCode.NONE:
        assert parked.world.stalls[1].mated
        return
    assert parked.robot.mode == Mode.PARKED and parked.world.tool()[3], result.text
    assert parked.world.contact_n() < LEFT_N


def test_a_vehicle_that_presses_for_good_is_left_by_going_limp(parked: Any) -> None:
    """A vehicle that rolls on against the seated plug, faster than the arm draws back."""
    parked.robot.start_connect(1, "ccs2", parked.now)
    assert parked.run(60.0, lambda: parked.robot.mode == Mode.INSERT)
    parked.world.trajectory = lambda points: None  # the arm does not follow any more
    stall = parked.world.stalls[1]
    push = stall.inlet[:3, 0] * -400.0
    parked.world.data.xfrc_applied[parked.world.model.body("sprung1").id, :3] = push * 60.0
    assert parked.run(10.0, lambda: parked.robot.arm.limp)
    parked.world.data.xfrc_applied[parked.world.model.body("sprung1").id, :3] = 0.0
    assert parked.finish().error != ErrorCode.NONE
    assert parked.robot.mode == Mode.LIMP
    parked.run(2.0)
    assert parked.world.contact_n() < 30.0


def test_the_gripper_opens_on_no_plug_that_would_fall(parked: Any) -> None:
    parked.robot.start_connect(1, "ccs2", parked.now)
    assert parked.run(60.0, lambda: parked.robot.mode == Mode.APPROACH)
    parked.robot.cancel()
    parked.robot._begin(
        parked.robot.site.bays[1],
        parked.robot.site.connectors["ccs2"],
        lambda: parked.robot.actions.grip_to(False),
        parked.now,
    )
    assert parked.finish().error == ErrorCode.TOOL
    parked.run(0.5)
    assert parked.world.held == 1


def test_a_plug_that_is_let_go_in_the_air_falls(parked: Any) -> None:
    """The physics has gravity: the rule above is needed."""
    parked.robot.start_connect(1, "ccs2", parked.now)
    assert parked.run(60.0, lambda: parked.robot.mode == Mode.APPROACH)
    parked.robot.cancel()
    before = parked.world.data.xpos[parked.world._plug[1]][2]
    parked.world.grip(False)
    parked.run(0.3)
    assert parked.world.data.xpos[parked.world._plug[1]][2] < before - 0.2 and parked.world.dropped(1)


def test_contact_far_from_the_mouth_is_not_the_inlet_s_face(parked: Any) -> None:
    """Soft and slow, so that no threshold is passed: a nose that stops before the room around the mouth."""
    wall = parked.world.true_inlet(1) @ transform((-0.052, 0.0, 0.0))
    parked.robot.start_connect(1, "ccs2", parked.now)
    assert parked.run(60.0, lambda: parked.robot.in_contact_zone)
    parked.world.put("wall", wall)
    result = parked.finish()
    assert result.error == ErrorCode.OBSTACLE, result.text
    assert parked.world.stalls[1].max_push == 0.0


@pytest.mark.parametrize("breached, ends", [({2}, False), ({3}, True)])
def test_every_bay_that_the_arm_crosses_must_be_clear(bench: Any, breached: set[int], ends: bool) -> None:
    """From bay 1 (ahead) to bay 3 (left): the one behind is not crossed."""
    rehearsal = bench.Rehearsal(evses=3, seed=2)
    rehearsal.world.arrive(1)
    rehearsal.run(0.1)
    rehearsal.breached = frozenset()
    rehearsal.robot.start_connect(1, "ccs2", rehearsal.now)
    assert rehearsal.run(60.0, lambda: rehearsal.robot.mode == Mode.APPROACH)
    rehearsal.robot.cancel()
    assert rehearsal.disconnect().error == ErrorCode.NONE
    rehearsal.world.arrive(3)
    rehearsal.breached = frozenset(breached)
    result = rehearsal.connect(3)
    assert (result.error == ErrorCode.FIELD_BREACHED) == ends, result.text


class TestGuard:
    """The arm's own guard: what the simulator does, and what docs/robot.md asks of a real one."""

    LIMITS = {"guard_push_n": 100.0, "guard_pull_n": 150.0, "guard_lateral_n": 90.0, "guard_torque_nm": 30.0}

    def pressed(self, *wrench: float) -> Guard:
        guard = Guard(self.LIMITS, 0.14)
        guard.feel(wrench, 1.0)
        return guard

    @pytest.mark.parametrize(
        "wrench, out, into",
        [
            ((-120.0, 0, 0, 0, 0, 0), (-1.0, 0, 0, 0, 0, 0), (1.0, 0, 0, 0, 0, 0)),
            ((160.0, 0, 0, 0, 0, 0), (1.0, 0, 0, 0, 0, 0), (-1.0, 0, 0, 0, 0, 0)),
            ((0.0, 95.0, 0, 0, 0, 0), (0, 1.0, 0, 0, 0, 0), (0, -1.0, 0, 0, 0, 0)),
            ((0.0, 0.0, -95.0, 0, 0, 0), (0, 0, -1.0, 0, 0, 0), (0, 0, 1.0, 0, 0, 0)),
            ((0.0, 0.0, 0.0, 0, 35.0, 0), (0, 0, 0, 0, 1.0, 0), (0, 0, 0, 0, -1.0, 0)),
        ],
    )
    def test_motion_out_of_the_force_is_allowed_and_into_it_is_not(self, wrench: Any, out: Any, into: Any) -> None:
        guard = self.pressed(*wrench)
        assert guard.beyond
        assert guard.into(np.array(into, dtype=float)) and not guard.into(np.array(out, dtype=float))

    def test_below_its_limits_it_allows_everything(self) -> None:
        assert not self.pressed(-99.0, 0.0, 0.0, 0.0, 0.0, 0.0).beyond
