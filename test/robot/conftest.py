"""The bench's rehearsal (the robot's logic on the physics, without ROS) serves the tests as well."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def bench() -> Any:
    """bench/robot.py as a module."""
    path = Path(__file__).resolve().parents[2] / "bench/robot.py"
    spec = importlib.util.spec_from_file_location("bench_robot", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_robot"] = module
    spec.loader.exec_module(module)
    return module
