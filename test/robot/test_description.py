"""Kinematics, spatial helpers and config/ of the robot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_charger import action, msg
from robot_charger.common.parameters import ParameterError
from robot_charger.robot import errors
from robot_charger.robot.description import config_file, load_site
from robot_charger.robot.errors import ErrorCode
from robot_charger.robot.kinematics import Kinematics
from robot_charger.robot.motion import Mode
from robot_charger.robot.planner import Planner, back
from robot_charger.robot.spatial import (
    difference,
    from_quaternion,
    from_xyz_rpy,
    inverse,
    moved,
    quaternion,
    transform,
)

small = st.floats(-1.5, 1.5)


@pytest.fixture(scope="module")
def kinematics() -> Kinematics:
    return Kinematics(config_file("arm/arm.urdf"))


@given(st.tuples(small, small, small), st.tuples(small, small, small), st.tuples(small, small, small))
def test_a_step_leads_where_the_difference_says(xyz: tuple, rpy: tuple, turn: tuple) -> None:
    start, end = from_xyz_rpy(xyz, rpy), from_xyz_rpy(rpy, turn)
    assert np.allclose(moved(start, difference(start, end)), end, atol=1e-9)
    assert np.allclose(inverse(start) @ start, np.eye(4), atol=1e-12)
    assert np.allclose(from_quaternion(xyz, quaternion(start[:3, :3])), start, atol=1e-9)


def test_a_quaternion_of_length_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="length zero"):
        from_quaternion((0, 0, 0), (0, 0, 0, 0))
    with pytest.raises(ValueError, match="length zero"):
        from_quaternion((0, 0, 0), (0, 0, 0, float("nan")))


def test_the_jacobian_is_the_derivative(kinematics: Kinematics) -> None:
    q = np.array([0.3, 0.4, 1.9, -2.2, 0.2, 0.1])
    pose, jacobian = kinematics.forward(q), kinematics.jacobian(q).copy()
    for i in range(6):
        step = np.zeros(6)
        step[i] = 1e-6
        own = difference(pose, kinematics.forward(q + step)) / 1e-6  # in gripper_link's axes
        assert np.allclose(np.kron(np.eye(2), pose[:3, :3]) @ own, jacobian[:, i], atol=1e-5)


@settings(max_examples=50)
@given(st.floats(-0.15, 0.15), st.floats(-0.3, 0.3), st.floats(-0.28, 0.28), st.floats(-0.3, 0.3))
def test_every_inlet_of_the_workspace_is_reached(x: float, y: float, z: float, yaw: float) -> None:
    site, kinematics = load_site(), Kinematics(config_file("arm/arm.urdf"))
    bay, plug = site.bays[1], site.connectors["ccs2"]
    inlet = bay.inlet @ from_xyz_rpy((x, y, z), (0, 0, yaw))
    Planner(site, kinematics, 0.14).check_inlet(bay, plug, inlet)
    q = kinematics.inverse(back(inlet, 0.16), site.park)
    assert q is not None
    assert np.allclose(kinematics.forward(q), back(inlet, 0.16), atol=1e-4)
    assert (q >= kinematics.lower).all() and (q <= kinematics.upper).all()


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_every_bay_is_like_the_first(number: int, kinematics: Kinematics) -> None:
    site = load_site()
    planner, bay = Planner(site, kinematics, 0.14), site.bays[number]
    planner.check_inlet(bay, site.connectors["ccs2"], bay.inlet)
    q = planner.reach(bay.holster, planner.seed(bay), "holster")
    planner.line(back(bay.holster, 0.13), bay.holster, q)


def test_an_inlet_out_of_the_workspace_is_refused(kinematics: Kinematics) -> None:
    site = load_site()
    planner, bay, plug = Planner(site, kinematics, 0.14), site.bays[1], site.connectors["ccs2"]
    with pytest.raises(errors.OutOfReach, match="outside the workspace"):
        planner.check_inlet(bay, plug, bay.inlet @ transform((0.0, 0.45, 0.0)))
    with pytest.raises(errors.OutOfReach, match="turned by"):
        planner.check_inlet(bay, plug, bay.inlet @ from_xyz_rpy((0, 0, 0), (0, 0, 0.5)))
    with pytest.raises(errors.NoPose, match="not finite"):
        planner.check_inlet(bay, plug, bay.inlet * float("nan"))


def test_error_codes_are_those_of_the_action() -> None:
    told = {n: getattr(action.Connect.Result, n) for n in dir(action.Connect.Result) if n.startswith("ERROR_")}
    assert {f"ERROR_{c.name}": int(c) for c in ErrorCode} == told
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, errors.RobotError)]
    assert {k.code for k in kinds} == set(ErrorCode)


def test_modes_are_those_of_the_message() -> None:
    assert {f"MODE_{m.name}": int(m) for m in Mode} == {
        n: getattr(msg.RobotState, n) for n in dir(msg.RobotState) if n.startswith("MODE_")
    }


@pytest.mark.parametrize(
    "change, words",
    [
        (("connectors: [ccs2, ccs1, nacs, chademo, gbt, acdp, type2]", "connectors: [schuko]"), "schuko"),
        (("workspace: [0.27, 0.40, 0.32]", "workspace: [0.20, 0.35]"), "workspace"),
        (("park: [-0.35,", "park: [oops,"), "park|oops"),
        (("xyz: [1.08, 0.0, 0.80]", "xyz: [1.08]"), "inlet"),
    ],
)
def test_bad_bays_are_told_in_words(tmp_path: Path, change: tuple[str, str], words: str) -> None:
    bad = tmp_path / "bad_bays.yaml"
    text = config_file("bays.yaml").read_text()
    assert change[0] in text
    bad.write_text(text.replace(*change))
    with pytest.raises((ParameterError, ValueError), match=words):
        load_site(str(bad))


def test_a_missing_or_broken_arm_is_told(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="not there"):
        config_file("arm/nobody.urdf")
    bad = tmp_path / "bad_arm.urdf"
    bad.write_text('<robot name="r"><link name="base_link"/></robot>')
    with pytest.raises(ParameterError, match="6 moving joints"):
        Kinematics(bad)
