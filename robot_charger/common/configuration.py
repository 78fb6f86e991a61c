"""Where the files of config/ lie."""

from __future__ import annotations

import sys
from pathlib import Path


def config_directory() -> Path:
    """config/ of the source tree, or in share/ of the installed package. Raises FileNotFoundError."""
    package = Path(__file__).resolve().parents[1]
    share = "share/robot_charger/config"
    candidates = [package.parent / "config", *(p / share for p in package.parents), Path(sys.prefix) / share]
    for candidate in candidates:
        if (candidate / "supervisor.yaml").exists():
            return candidate
    raise FileNotFoundError("config/supervisor.yaml is in none of: " + ", ".join(str(c) for c in candidates[:2]))
