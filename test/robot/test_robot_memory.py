"""What the robot keeps over a restart, and what it does with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robot_charger.robot.description import config_file, load_tool
from robot_charger.robot.errors import ErrorCode
from robot_charger.robot.frames import Frames
from robot_charger.robot.memory import Memory, from_dict, to_dict
from robot_charger.robot.motion import ConnectionRobot, Mode

pytestmark = pytest.mark.timeout(600)


def restarted(rehearsal: Any, file: Path) -> Memory:
    """Another process: it knows the file alone."""
    old = rehearsal.robot
    rehearsal.robot = ConnectionRobot(rehearsal.world.site, old.kinematics, old.parameters)
    return Memory(file, rehearsal.robot)


@pytest.mark.parametrize("connector", ["chademo", "nacs"])
def test_a_restart_knows_which_plug_is_in_which_inlet(bench: Any, tmp_path: Path, connector: str) -> None:
    """Not the bay's first connector, which is another."""
    rehearsal = bench.Rehearsal(seed=5, connector=connector)
    rehearsal.world.arrive(1)
    memory = Memory(tmp_path / "robot.json", rehearsal.robot)
    assert rehearsal.connect(connector=connector).error == ErrorCode.NONE
    assert rehearsal.release().error == ErrorCode.NONE
    memory.tend()
    assert restarted(rehearsal, tmp_path / "robot.json").text == "recalled"
    robot = rehearsal.robot
    rehearsal.run(0.2)
    assert robot.bay == 1 and list(robot.engaged) == [1] and robot.mode == Mode.RELEASED
    assert rehearsal.disconnect().error == ErrorCode.NONE
    assert robot.connector.name == connector and robot.mode == Mode.PARKED and rehearsal.world.tool()[3]


def test_a_restart_with_the_plug_in_hand_and_inlet_is_mated(bench: Any, tmp_path: Path) -> None:
    rehearsal = bench.Rehearsal(seed=5)
    rehearsal.world.arrive(1)
    memory = Memory(tmp_path / "robot.json", rehearsal.robot)
    assert rehearsal.connect().error == ErrorCode.NONE
    memory.tend()
    restarted(rehearsal, tmp_path / "robot.json")
    rehearsal.run(0.2)
    assert rehearsal.robot.mode == Mode.MATED
    assert rehearsal.disconnect().error == ErrorCode.NONE


def test_a_plug_that_a_person_brought_home_is_not_looked_for_in_the_inlet(bench: Any, tmp_path: Path) -> None:
    rehearsal = bench.Rehearsal(seed=5)
    rehearsal.world.arrive(1)
    memory = Memory(tmp_path / "robot.json", rehearsal.robot)
    assert rehearsal.connect().error == ErrorCode.NONE and rehearsal.release().error == ErrorCode.NONE
    memory.tend()
    rehearsal.world.leave(1)
    restarted(rehearsal, tmp_path / "robot.json")
    rehearsal.run(0.2)
    assert rehearsal.disconnect().error == ErrorCode.NONE
    assert rehearsal.robot.mode == Mode.PARKED and not rehearsal.robot.engaged


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"bay": 1}', '{"bay": 9, "engaged": {}, "connectors": {}}',
     '{"bay": 1, "engaged": {"1": {"connector": "schuko"}}, "connectors": {}}',
     '{"bay": 1, "engaged": {}, "connectors": {"1": "schuko"}}'],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_left_aside(bench: Any, tmp_path: Path, text: str) -> None:
    robot, file = bench.Rehearsal(seed=5).robot, tmp_path / "robot.json"
    file.write_text(text)
    memory = Memory(file, robot)
    assert "cannot be read" in memory.text and not robot.engaged and robot.bay == 0
    assert not file.exists() and file.with_suffix(".unreadable").read_text() == text
    memory.tend()
    assert json.loads(file.read_text())["engaged"] == {}


def test_nan_is_no_pose(bench: Any) -> None:
    rehearsal = bench.Rehearsal(seed=5)
    rehearsal.world.arrive(1)
    assert rehearsal.connect().error == ErrorCode.NONE
    kept = to_dict(rehearsal.robot.arm)
    kept["engaged"]["1"]["grip"][3] = float("nan")
    with pytest.raises(ValueError, match="finite"):
        from_dict(kept, rehearsal.robot.site, bench.Rehearsal(seed=5).robot.arm)


def test_a_disk_that_refuses_is_told(bench: Any, tmp_path: Path) -> None:
    memory = Memory(tmp_path / "gone" / "robot.json", bench.Rehearsal(seed=5).robot)
    memory.tend()
    assert "cannot be written" in memory.text


class TestFrames:
    """The header of the wrench is read."""

    frames = Frames(config_file("arm/arm.urdf"), load_tool())

    @pytest.mark.parametrize("name", ["wrench", "", "arm::wrench_sensor::wrench", "arm/wrench"])
    def test_the_sensor_s_own(self, name: str) -> None:
        wrench = np.array([1.0, 2.0, 3.0, 0.1, 0.2, 0.3])
        assert np.allclose(self.frames.wrench(name, wrench), wrench)

    def test_the_flange_s_z_axis_is_the_tool_s_x_axis(self) -> None:
        assert np.allclose(self.frames.wrench("tool0", np.array([0.0, 0.0, 80.0, 0.0, 0.0, 0.0]))[:3], [80.0, 0.0, 0.0])

    def test_a_force_elsewhere_on_the_tool_has_a_torque_here(self) -> None:
        felt = self.frames.wrench("gripper_link", np.array([0.0, 10.0, 0.0, 0.0, 0.0, 0.0]))
        assert np.allclose(felt, [0.0, 10.0, 0.0, 0.0, 0.0, 1.4])

    @pytest.mark.parametrize("name", ["base_link", "forearm_link", "camera", "world"])
    def test_a_frame_that_the_tool_does_not_carry_is_refused(self, name: str) -> None:
        with pytest.raises(KeyError, match=name):
            self.frames.wrench(name, np.zeros(6))
