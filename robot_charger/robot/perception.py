"""Where the inlet is, seen by a camera: ArUco marks around it, OpenCV, pose and covariance.

No ROS and no clock: a grey picture goes in, a sighting comes out. What is seen but must not be plugged into (a closed
flap, another kind of inlet) is raised as the error that the action will end with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

from robot_charger.common.parameters import ParameterError
from robot_charger.robot.description import config_file
from robot_charger.robot.errors import FlapClosed, NoPose, WrongInlet
from robot_charger.robot.spatial import Array, from_xyz_rpy, moved, transform, vector_from_rotation

# An optical frame (x right, y down, z ahead) in the camera's own (x ahead, y left, z up).
OPTICAL = transform(rotation=np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]))
FEWEST_MARKS = 2  # one alone tells a tilt badly
WORST_PX = 2.0  # marks that lie further from where they should be than this are no inlet
STEP = 1e-4  # of the difference quotients [m, rad]
DICTIONARY = cv2.aruco.DICT_4X4_50


@dataclass(frozen=True)
class Marks:
    """The marks around an inlet. Lengths m."""

    size: float
    offset: float
    at: Array  # (n, 2): y, z in the inlet's frame
    first: dict[str, int]
    flap: int

    def corners(self, index: int) -> Array:
        """Corners (4, 3) of one mark in the inlet's frame, as OpenCV orders them: seen from outside, clockwise."""
        y, z = self.at[index]
        h = 0.5 * self.size  # who looks at the inlet, along its x axis, has +y on the left
        return np.array([[self.offset, y + a * h, z + b * h] for a, b in ((1, 1), (-1, 1), (-1, -1), (1, -1))])


@dataclass(frozen=True)
class Camera:
    """One calibrated camera and the marks that it looks for."""

    width: int
    height: int
    matrix: Array  # (3, 3) [px]
    distortion: Array
    pose: Array  # in the bay's frame, x where it looks
    corner_px: float
    marks: Marks


@dataclass(frozen=True)
class Sighting:
    """An inlet in the bay's frame, with the covariance (6, 6) of a small step in its own axes [m, rad]."""

    pose: Array
    covariance: Array

    @property
    def sigma(self) -> float:
        """Largest standard deviation of the position along an axis [m]."""
        return float(np.sqrt(self.covariance.diagonal()[:3].max()))


def load_camera(name: str = "arm/camera.yaml") -> Camera:
    """Read and check the camera's file. Raises ParameterError."""
    path = config_file(name)
    try:
        data = yaml.safe_load(path.read_text())
        c, m = data["camera"], data["marks"]
        fx, fy, cx, cy = (float(v) for v in c["matrix"])
        marks = Marks(
            float(m["size_m"]),
            float(m["offset_m"]),
            np.array(m["at"], dtype=float).reshape(-1, 2),
            {str(k): int(v) for k, v in m["first"].items()},
            int(m["flap"]),
        )
        camera = Camera(
            int(c["width"]),
            int(c["height"]),
            np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]),
            np.array(c["distortion"], dtype=float),
            from_xyz_rpy([float(v) for v in c["xyz"]], [float(v) for v in c["rpy"]]),
            float(c["corner_px"]),
            marks,
        )
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ParameterError(f"{path} does not describe a camera: {error!r}") from error
    if not (marks.size > 0.0 and len(marks.at) >= FEWEST_MARKS and camera.corner_px > 0.0 and fx > 0.0 and fy > 0.0):
        raise ParameterError(f"{path}: sizes must be above zero and there must be {FEWEST_MARKS} marks or more")
    return camera


class InletEstimator:
    """Finds one kind of inlet in pictures of one camera."""

    def __init__(self, camera: Camera) -> None:
        self.camera = camera
        parameters = cv2.aruco.DetectorParameters()
        parameters.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_SUBPIX
        self._detector = cv2.aruco.ArucoDetector(cv2.aruco.getPredefinedDictionary(DICTIONARY), parameters)

    def look(self, picture: NDArray[np.uint8], *connectors: str) -> Sighting:
        """The inlet for one of ``connectors``, each a kind of ``marks``, in a grey picture (height, width).

        Raises FlapClosed, WrongInlet, or NoPose when too little of it is seen.
        """
        camera = self.camera
        if picture.shape != (camera.height, camera.width):
            raise NoPose(f"a picture of {picture.shape[::-1]} px, not {(camera.width, camera.height)}")
        try:
            corners, numbers, _ = self._detector.detectMarkers(picture)
            return self._inlet(corners, numbers, connectors)
        except (cv2.error, np.linalg.LinAlgError) as error:
            raise NoPose(f"the picture cannot be read: {error}") from error

    def _inlet(self, corners: Any, numbers: Any, connectors: tuple[str, ...]) -> Sighting:
        marks = self.camera.marks
        told = [] if numbers is None else np.ravel(numbers).tolist()
        found = dict(zip(told, corners, strict=True))
        for number in {n for n in told if told.count(n) > 1}:
            del found[number]  # seen twice, as in a mirror or on a second vehicle: which one is it?
        firsts = [marks.first[connector] for connector in connectors]
        kinds = [[n for n in found if first <= n < first + len(marks.at)] for first in firsts]
        own, first = max(zip(kinds, firsts, strict=True), key=lambda kind: len(kind[0]))
        if not own:
            self._explain(set(found), " or ".join(connectors))
        if len(own) < FEWEST_MARKS:
            raise NoPose(f"{len(own)} of the inlet's {len(marks.at)} marks seen, {FEWEST_MARKS} needed")
        model = np.concatenate([marks.corners(n - first) for n in own])
        seen = np.concatenate([np.reshape(found[n], (4, 2)) for n in own]).astype(float)
        return self._solve(model, seen)

    def _explain(self, numbers: set[int], wanted: str) -> None:
        """What is seen instead of the inlet. Raises FlapClosed or WrongInlet."""
        marks = self.camera.marks
        if marks.flap in numbers:
            raise FlapClosed("the flap before the inlet is closed")
        for other, first in marks.first.items():
            if len([n for n in numbers if first <= n < first + len(marks.at)]) >= FEWEST_MARKS:
                raise WrongInlet(f"the vehicle has an inlet for {other}, not for {wanted}")

    def _solve(self, model: Array, seen: Array) -> Sighting:
        camera = self.camera
        ok, rotation, translation = cv2.solvePnP(
            model, seen, camera.matrix, camera.distortion, flags=cv2.SOLVEPNP_SQPNP
        )
        if ok:
            rotation, translation = cv2.solvePnPRefineLM(
                model, seen, camera.matrix, camera.distortion, rotation, translation
            )
        if not ok or not np.isfinite(translation).all():
            raise NoPose("the marks that are seen give no pose")
        turn = np.asarray(cv2.Rodrigues(rotation)[0], dtype=float)
        pose = transform(np.asarray(translation, dtype=float).ravel(), turn)
        residual = self._project(pose, model) - seen.ravel()
        rms = float(np.sqrt(np.mean(residual**2)))
        if rms > WORST_PX:
            raise NoPose(f"the marks lie {rms:.1f} px from where an inlet's would be")
        slopes = np.empty((residual.size, 6))
        for axis, step in enumerate(np.eye(6) * STEP):
            there, back = self._project(moved(pose, step), model), self._project(moved(pose, -step), model)
            slopes[:, axis] = (there - back) / (2.0 * STEP)
        covariance = np.linalg.inv(slopes.T @ slopes) * self._pixel_sigma(rms, residual.size) ** 2
        return Sighting(camera.pose @ OPTICAL @ pose, covariance)

    def _pixel_sigma(self, rms: float, values: int) -> float:
        """Standard deviation of one corner [px], from the residual of ``values`` coordinates.

        The pose takes six of them. The fewer are left, the worse they tell the noise: the factor comes near Student's
        for 99.9 %.
        """
        free = values - 6
        return max(self.camera.corner_px, rms * float(np.sqrt(values / free)) * (1.0 + 4.0 / free))

    def _project(self, pose: Array, points: Array) -> Array:
        """Pixels (2n,) of points (n, 3) told in the frame ``pose`` [optical frame]."""
        turn = vector_from_rotation(pose[:3, :3])
        pixels, _ = cv2.projectPoints(points, turn, pose[:3, 3], self.camera.matrix, self.camera.distortion)
        return np.asarray(pixels, dtype=float).ravel()


def sees_whole(camera: Camera, inlet: Array, margin_px: float = 4.0) -> bool:
    """Whether all marks around an inlet, whose pose is told in the bay's frame, lie in the picture."""
    corners = np.concatenate([camera.marks.corners(i) for i in range(len(camera.marks.at))])
    at = (corners @ inlet[:3, :3].T + inlet[:3, 3] - camera.pose[:3, 3]) @ camera.pose[:3, :3] @ OPTICAL[:3, :3]
    if (at[:, 2] <= 0.0).any():
        return False
    pixels = (at @ camera.matrix.T)[:, :2] / at[:, 2:]
    size = np.array([camera.width - 1.0, camera.height - 1.0])
    return bool((pixels > margin_px).all() and (pixels < size - margin_px).all())


def share_seen(camera: Camera, inlet: Array, workspace: Array) -> float:
    """Share of a bay's workspace (3,), half extents around ``inlet`` in the bay's frame, that the camera sees whole."""
    steps = np.linspace(-1.0, 1.0, 5)
    spots = [np.array([x, y, z]) * workspace for x in steps for y in steps for z in steps]
    return sum(sees_whole(camera, moved(inlet, [*spot, 0.0, 0.0, 0.0])) for spot in spots) / len(spots)


def pattern(number: int) -> NDArray[np.bool_]:
    """Cells (6, 6) of one mark with its black border, row by row from above; True is black."""
    image = cv2.aruco.generateImageMarker(cv2.aruco.getPredefinedDictionary(DICTIONARY), number, 6)
    return np.asarray(image) < 128
