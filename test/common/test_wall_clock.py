"""A node lives on when the wall clock is set back: its timers go by the monotonic one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray

from robot_charger.common.topics import EVENTS
from robot_charger.desk.wall_clock import WallClock

pytestmark = pytest.mark.integration
HOUR_S = 3600.0


@pytest.fixture
def listen() -> Iterator[Callable[[Callable[[Any], bool]], None]]:
    rclpy.init()
    node = rclpy.create_node("listener")
    heard: list[Any] = []
    node.create_subscription(DiagnosticArray, "/diagnostics", heard.append, EVENTS)

    def until(condition: Callable[[Any], bool]) -> None:
        deadline = time.monotonic() + 30.0
        while not any(condition(message) for message in heard):
            assert time.monotonic() < deadline, heard[-1:]
            rclpy.spin_once(node, timeout_sec=0.1)
        heard.clear()

    yield until
    node.destroy_node()
    rclpy.try_shutdown()


def test_diagnostics_go_on_when_the_wall_clock_is_set_back(tmp_path: Path, listen: Any) -> None:
    clock = WallClock(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "robot_charger.pilot.node", "--ros-args", "-r", "__ns:=/evse1"],
        env={**os.environ, **clock.environment},
    )
    try:
        listen(lambda m: True)
        clock.jump(HOUR_S)
        listen(lambda m: m.header.stamp.sec > time.time() + 0.5 * HOUR_S)
        clock.jump(0.0)
        listen(lambda m: m.header.stamp.sec < time.time() + 0.5 * HOUR_S)
    finally:
        process.terminate()
        process.wait(10)
