"""How well the robot mates: figures of the last connection out of robot/state, for monitors and DataTransfer."""

from __future__ import annotations

from dataclasses import dataclass, field

# RobotState.MODE_*
_APPROACH, _SEARCH, _INSERT, _MATED = 3, 4, 5, 6


@dataclass
class RobotFigures:
    """``hear`` returns the figures once per mating: name -> (value, unit)."""

    _began_s: float | None = None
    _mode: int = 0
    matings: int = 0
    figures: dict[str, tuple[float, str]] = field(default_factory=dict)

    def hear(
        self, mode: int, seconds: float, attempt: int, peak_force_n: float, lateral_error_m: float, depth_m: float
    ) -> dict[str, tuple[float, str]] | None:
        before, self._mode = self._mode, mode
        if mode in (_APPROACH, _SEARCH, _INSERT) and before not in (_APPROACH, _SEARCH, _INSERT):
            self._began_s = seconds
        if mode != _MATED or before == _MATED or self._began_s is None:
            return None
        self.matings += 1
        self.figures = {
            "TimeToMate": (seconds - self._began_s, "s"),
            "InsertionForce": (peak_force_n, "N"),
            "Attempts": (float(attempt), ""),
            "LateralOffset": (lateral_error_m * 1000.0, "mm"),
            "InsertionDepth": (depth_m * 1000.0, "mm"),
            "Matings": (float(self.matings), ""),
        }
        self._began_s = None
        return self.figures
