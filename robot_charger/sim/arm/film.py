"""Films and pictures of the desk's arm from what its simulator recorded.

``python -m robot_charger.sim.arm.film RECORD film.mp4`` (or ``picture.png``: the last moment, or ``--at`` seconds).
The simulator only writes down how everything stood (``--record FILE``): rendering in software takes about a core,
so it is done afterwards. Needs opencv-python-headless.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("MUJOCO_GL", "egl")  # before mujoco is imported

import numpy as np

from robot_charger.common.process import refuse
from robot_charger.sim.arm.physics import ArmWorld
from robot_charger.sim.arm.record import FRAME_MS


def render(record: Path, target: Path, speed: float = 2.0, at: float | None = None) -> int:
    """Render a film (mp4) or one picture (png). Returns the number of images. Raises ValueError or OSError."""
    import cv2
    import mujoco

    from robot_charger.sim.arm.camera import Spectator

    with np.load(record) as data:
        world = ArmWorld([int(n) for n in data["evses"]], connector=str(data["connector"]))
        frames = list(zip(data["qpos"], data["mocap_pos"], data["mocap_quat"], strict=True))
    if not frames:
        raise ValueError(f"{record} holds no moment")
    still = target.suffix == ".png"
    if still:
        index = len(frames) - 1 if at is None else min(len(frames) - 1, round(at * 1000 / FRAME_MS))
        frames = [frames[index]]
    spectator = Spectator(world, *((960, 720) if still else (640, 480)), shadows=still)
    film = None
    if not still:
        rate = 1000.0 / FRAME_MS * speed
        film = cv2.VideoWriter(str(target), cv2.VideoWriter.fourcc(*"mp4v"), rate, (640, 480))
        if not film.isOpened():
            raise OSError(f"{target} cannot be written as a film: name it .mp4")
    for qpos, positions, turns in frames:
        world.data.qpos[:], world.data.mocap_pos[:], world.data.mocap_quat[:] = qpos, positions, turns
        mujoco.mj_forward(world.model, world.data)
        image = np.ascontiguousarray(spectator.picture()[:, :, ::-1])
        if film is not None:
            film.write(image)
        elif not cv2.imwrite(str(target), image):
            raise OSError(f"{target} cannot be written")
    if film is not None:
        film.release()
    spectator.close()
    return len(frames)


def main() -> None:
    parser = argparse.ArgumentParser(prog="robot_charger.sim.arm.film", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("record", type=Path, help="what `--record` of the simulator wrote")
    parser.add_argument("target", type=Path, help="film.mp4 or picture.png")
    parser.add_argument("--speed", type=float, default=2.0, help="times as fast as it was (default 2)")
    parser.add_argument("--at", type=float, help="moment of the picture [s] (default: the last)")
    arguments = parser.parse_args()
    try:
        count = render(arguments.record, arguments.target, arguments.speed, arguments.at)
    except (OSError, ValueError, ImportError) as error:
        refuse(f"robot_charger.sim.arm.film: {error}")
    print(f"{arguments.target}: {count} images")


if __name__ == "__main__":
    main()
