"""The inlet's pose from pictures: drawn ones, rendered ones, and through the node."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from robot_yard import Yard

from robot_charger import action
from robot_charger.common.parameters import ParameterError
from robot_charger.robot.description import config_file, load_connectors, load_site
from robot_charger.robot.errors import ErrorCode, FlapClosed, NoPose, WrongInlet
from robot_charger.robot.motion import Mode
from robot_charger.robot.perception import (
    OPTICAL,
    Camera,
    InletEstimator,
    load_camera,
    pattern,
    sees_whole,
    share_seen,
)
from robot_charger.robot.spatial import difference, from_xyz_rpy, inverse, moved
from robot_charger.sim.arm.model import load_vehicles
from robot_charger.sim.arm.stall import Parking

INLET = from_xyz_rpy([1.08, 0.05, 0.82], [0.03, -0.04, 0.1])
GREY = 90


@pytest.fixture(scope="module")
def camera() -> Camera:
    return load_camera()


def drawn(camera: Camera, inlet: np.ndarray, numbers: Iterable[int], first: int = 0) -> np.ndarray:
    """Picture of an inlet whose marks bear ``numbers``; the mark's place is its number less ``first``."""
    fine = 4  # drawn so many times finer, then averaged, as a lens does
    picture = np.full((camera.height * fine, camera.width * fine), GREY, np.uint8)
    pose = inverse(camera.pose @ OPTICAL) @ inlet
    for number in numbers:
        cells = np.pad(np.where(pattern(number), 0, 255).astype(np.uint8), 1, constant_values=255)
        tile = np.kron(cells, np.ones((20, 20), np.uint8))
        middle = camera.marks.corners(number - first).mean(axis=0)
        corners = middle + (camera.marks.corners(number - first) - middle) * 8.0 / 6.0
        local = corners @ pose[:3, :3].T + pose[:3, 3]
        pixels = (local @ camera.matrix.T)[:, :2] / local[:, 2:]
        target = ((pixels + 0.5) * fine - 0.5).astype(np.float32)
        edge = np.float32(tile.shape[0] - 0.5)
        source = np.array([[-0.5, -0.5], [edge, -0.5], [edge, edge], [-0.5, edge]], np.float32)
        turn = cv2.getPerspectiveTransform(source, target)
        size = picture.shape[::-1]
        there = cv2.warpPerspective(np.full_like(tile, 255), turn, size)
        picture = np.where(there > 127, cv2.warpPerspective(tile, turn, size), picture)
    small = picture.reshape(camera.height, fine, camera.width, fine).mean(axis=(1, 3))
    noise = np.random.default_rng(1).normal(0.0, 2.0, small.shape)
    return np.clip(small + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("marks", [range(4), [0, 2], [1, 2, 3]])
def test_the_pose_lies_within_its_own_covariance(camera: Camera, marks: Iterable[int]) -> None:
    seen = InletEstimator(camera).look(drawn(camera, INLET, marks), "ccs2")
    error = difference(INLET, seen.pose)
    assert float(np.linalg.norm(error[:3])) < 0.012 and float(np.linalg.norm(error[3:])) < 0.02
    assert error @ np.linalg.inv(seen.covariance) @ error < 22.5  # chi-squared of six, 99.9 %
    assert 0.0001 < seen.sigma < 0.006


def test_fewer_marks_are_less_sure(camera: Camera) -> None:
    estimator = InletEstimator(camera)
    all_four, two = (estimator.look(drawn(camera, INLET, m), "ccs2") for m in (range(4), [0, 1]))
    assert two.sigma > all_four.sigma


def test_every_connector_has_marks_of_its_own(camera: Camera) -> None:
    numbers = [n for first in camera.marks.first.values() for n in range(first, first + len(camera.marks.at))]
    assert set(camera.marks.first) == set(load_connectors())
    assert len(numbers) == len(set(numbers)) and camera.marks.flap not in numbers


def test_another_inlet_is_no_inlet(camera: Camera) -> None:
    picture = drawn(camera, INLET, range(8, 12), first=8)
    with pytest.raises(WrongInlet, match="nacs"):
        InletEstimator(camera).look(picture, "ccs2")
    assert InletEstimator(camera).look(picture, "nacs").sigma < 0.005


def test_a_closed_flap_is_told(camera: Camera) -> None:
    with pytest.raises(FlapClosed):
        InletEstimator(camera).look(drawn(camera, INLET, [40], first=40), "ccs2")


@pytest.mark.parametrize("numbers", [[], [3]])
def test_too_little_seen(camera: Camera, numbers: list[int]) -> None:
    with pytest.raises(NoPose):
        InletEstimator(camera).look(drawn(camera, INLET, numbers), "ccs2")


def test_marks_that_do_not_fit_are_no_inlet(camera: Camera) -> None:
    """One of them was glued on 30 mm too high."""
    picture = drawn(camera, INLET, [0, 1, 2])
    up = moved(INLET, [0.0, 0.0, 0.03, 0.0, 0.0, 0.0])
    other = drawn(camera, up, [3])
    with pytest.raises(NoPose, match="px"):
        InletEstimator(camera).look(np.where(other != np.clip(other, GREY - 12, GREY + 12), other, picture), "ccs2")


@pytest.mark.parametrize("kind", load_vehicles())
def test_the_camera_sees_every_kind_of_vehicle_wherever_it_parks(camera: Camera, kind: str) -> None:
    inlet, rng = load_site().bays[1].inlet, np.random.default_rng(1)
    for corner in range(60):
        offset = rng.choice([-1.0, 0.0, 1.0], 3) * Parking().position_m
        turn = np.radians(rng.uniform(-1.0, 1.0, 3) * (5.0, 5.0, 10.0))
        pose = inlet @ from_xyz_rpy(list(offset), list(turn)) @ load_vehicles()[kind].inlet
        assert sees_whole(camera, pose), (corner, offset)


def test_a_camera_that_misses_the_bay_is_noticed(camera: Camera) -> None:
    bay = load_site().bays[1]
    assert share_seen(camera, bay.inlet, bay.workspace) > 0.6
    low = replace(camera, pose=moved(camera.pose, [0.0, 0.0, -0.4, 0.0, 0.0, 0.0]))
    assert share_seen(low, bay.inlet, bay.workspace) < 0.6
    assert not sees_whole(camera, from_xyz_rpy([-1.0, 0.0, 0.8])), "behind it"


def test_a_mark_that_is_seen_twice_counts_for_nothing(camera: Camera) -> None:
    """A second vehicle, or a mirror: the other three marks tell the pose."""
    picture = drawn(camera, INLET, range(4))
    other = drawn(camera, moved(INLET, [0.0, 0.30, 0.0, 0.0, 0.0, 0.0]), [1])
    both = np.where(other != np.clip(other, GREY - 12, GREY + 12), other, picture)
    seen = InletEstimator(camera).look(both, "ccs2")
    assert float(np.linalg.norm(difference(INLET, seen.pose)[:3])) < 0.006


@pytest.mark.parametrize("marks, least", [([0, 1], 0.9), ([0, 1, 2], 0.9), ([0, 1, 2, 3], 0.9)])
def test_fewer_marks_are_honest_about_more_noise_than_the_camera_should_have(
    camera: Camera, marks: list[int], least: float
) -> None:
    """Corners that are wrong by 1 px in place of 0.3: nearly all errors stay within three of the told sigma."""
    estimator, rng = InletEstimator(camera), np.random.default_rng(7)
    model = np.concatenate([camera.marks.corners(i) for i in marks])
    pose = inverse(camera.pose @ OPTICAL) @ INLET
    exact = estimator._project(pose, model).reshape(-1, 2)
    within = []
    for _ in range(60):
        try:
            seen = estimator._solve(model, exact + rng.normal(0.0, 1.0, exact.shape))
        except NoPose:
            continue
        error = difference(INLET, seen.pose)[:3]
        within.append(bool((np.abs(error) < 3.0 * np.sqrt(seen.covariance.diagonal()[:3])).all()))
    assert np.mean(within) > least


def test_a_picture_of_another_size_is_refused(camera: Camera) -> None:
    with pytest.raises(NoPose, match="960, 720"):
        InletEstimator(camera).look(np.zeros((100, 100), np.uint8), "ccs2")


@pytest.mark.parametrize(
    "where, value",
    [
        (("camera", "matrix"), [1.0, 2.0]),
        (("camera", "corner_px"), 0.0),
        (("marks", "size_m"), -1.0),
        (("marks",), None),
    ],
)
def test_bad_camera_files(tmp_path: Path, where: tuple[str, ...], value: Any) -> None:
    data = yaml.safe_load(config_file("arm/camera.yaml").read_text())
    entry = data
    for key in where[:-1]:
        entry = entry[key]
    entry[where[-1]] = value
    path = tmp_path / "camera.yaml"
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(ParameterError, match=str(path)):
        load_camera(str(path))


@pytest.fixture
def seeing(bench: Any, camera: Camera) -> Any:
    """A rehearsal in which the robot knows the inlet from rendered pictures alone."""
    try:
        rehearsal = bench.Rehearsal(seed=7, camera=camera)
    except Exception as error:  # whatever the graphics library says
        pytest.skip(f"NOTHING RENDERED: this machine has no EGL ({error!r})")
    rehearsal.world.arrive(1)
    return rehearsal


@pytest.mark.timeout(300)
def test_mated_by_what_the_camera_sees(seeing: Any) -> None:
    assert seeing.connect().error == ErrorCode.NONE
    assert seeing.world.stalls[1].mated


@pytest.mark.parametrize(
    "fault, code",
    [
        ("flap-closed", ErrorCode.FLAP_CLOSED),
        ("wrong-inlet", ErrorCode.WRONG_INLET),
        ("no-pose", ErrorCode.NO_POSE),
    ],
)
def test_what_must_not_be_plugged_into_is_told_and_nothing_moves(seeing: Any, fault: str, code: ErrorCode) -> None:
    seeing.world.set_fault(fault, True)
    before = seeing.world.joints()[0]
    assert seeing.connect().error == code
    assert np.allclose(before, seeing.world.joints()[0], atol=1e-3)
    assert seeing.robot.mode == Mode.PARKED


@pytest.fixture
def yard(ros_domain: int) -> Iterator[Yard]:
    directory = Path(tempfile.mkdtemp(prefix="rc-", dir="/tmp"))
    yard = Yard(directory, "--camera", node=("--ros-args", "-p", "camera_file:=arm/camera.yaml"))
    try:
        yard.bring_up()
        yield yard
    finally:
        yard.close()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.mark.integration
@pytest.mark.alone
@pytest.mark.timeout(240)
def test_the_node_looks_through_the_camera(yard: Yard) -> None:
    yard.fault("flap-closed", True)
    yard.arrive()
    assert yard.act(action.Connect, connector="ccs2").error == ErrorCode.FLAP_CLOSED
    yard.until(lambda s: s.mode == s.MODE_PARKED)  # from where it waited, when it was on its way there
    yard.fault("flap-closed", False)
    result = yard.act(action.Connect, connector="ccs2")
    assert result.error == ErrorCode.NONE, result.text
    assert yard.until_truth(lambda t: t["mated"])
    assert yard.act(action.Disconnect).error == ErrorCode.NONE


@pytest.mark.integration
@pytest.mark.alone
def test_who_listens_to_the_poses_is_told_them_without_a_goal(yard: Yard) -> None:
    """As ACDP's positioning does, before anything moves."""
    yard.arrive()
    told = threading.Event()
    poses: list[Any] = []
    yard.listen("/robot/inlet_pose", None, lambda pose: (poses.append(pose), told.set()))
    assert told.wait(30.0)
    pose = poses[-1]
    assert pose.header.frame_id == "bay1" and 0.0 < pose.pose.covariance[0] < 0.005**2
    assert not yard.state.in_contact_zone
