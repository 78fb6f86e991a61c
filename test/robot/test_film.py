"""Films and pictures from what the arm's simulator wrote down."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest

from robot_charger.sim.arm import film
from robot_charger.sim.arm.physics import ArmWorld
from robot_charger.sim.arm.record import frame, save


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    world = ArmWorld((1,))
    frames = [frame(world)]
    world.arrive(1)
    world.advance(100)
    frames += [frame(world), frame(world)]
    path = tmp_path_factory.mktemp("film") / "motion.npz"
    save(path, [1], frames)
    return path


@pytest.fixture(scope="module", autouse=True)
def renderer() -> None:
    import mujoco

    try:
        mujoco.Renderer(mujoco.MjModel.from_xml_string("<mujoco/>"), 8, 8).close()
    except Exception as error:  # whatever the graphics library says
        pytest.skip(f"NOTHING RENDERED: this machine has no EGL ({error!r})")


def test_a_film_shows_every_moment(record: Path, tmp_path: Path) -> None:
    target = tmp_path / "film.mp4"
    assert film.render(record, target) == 3
    reader = cv2.VideoCapture(str(target))
    pictures = []
    while (got := reader.read())[0]:
        pictures.append(got[1])
    assert len(pictures) == 3 and pictures[0].shape == (480, 640, 3)
    change = cv2.absdiff(pictures[0], pictures[1]).mean()
    assert change > 2.0, "a vehicle came"


def test_a_picture_of_one_moment(record: Path, tmp_path: Path) -> None:
    target = tmp_path / "picture.png"
    assert film.render(record, target, at=0.0) == 1
    assert cv2.imread(str(target)).std() > 10.0


def test_a_record_without_a_moment_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "motion.npz"
    save(path, [1], [])
    with pytest.raises(ValueError, match="no moment"):
        film.render(path, tmp_path / "film.mp4")
