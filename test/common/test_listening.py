"""The middleware notices a stream that stutters and a publisher that is gone; a node tells both."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import rclpy

from robot_charger import msg
from robot_charger.common.executor import LeanExecutor
from robot_charger.common.listening import Listening
from robot_charger.common.topics import DEADLINE_S, WATCHED, topic

SPEAKER = """
import time, rclpy
from robot_charger.common.topics import topic
rclpy.init()
node = rclpy.create_node("power")
full, kind, qos = topic("power/state", 1)
publisher = node.create_publisher(kind, full, qos)
while True:
    publisher.publish(kind())
    time.sleep(0.02)
"""


def test_publishers_that_live_say_nothing() -> None:
    said: list[str] = []
    listening = Listening(said.append)
    listening.lives("power/state", SimpleNamespace(alive_count=1, not_alive_count=0))
    listening.lives("power/state", SimpleNamespace(alive_count=0, not_alive_count=0))  # it said goodbye
    assert not said and not listening.values()


def test_a_silent_publisher_is_told_once_and_so_is_its_return() -> None:
    said: list[str] = []
    listening = Listening(said.append)
    for alive, silent in ((0, 1), (0, 2), (1, 1), (1, 0)):
        listening.lives("power/state", SimpleNamespace(alive_count=alive, not_alive_count=silent))
    assert len(said) == 2 and "fallen silent" in said[0] and "again" in said[1]


def test_what_the_supervisor_and_power_judge_by_age_is_watched() -> None:
    for name in ("power/permit", "power/state", "pilot/state", "vehicle/target", "vehicle/link", "robot/permit"):
        assert topic(name, 1)[2] in WATCHED
    for name in ("/safety/state", "/robot/state"):
        assert topic(name)[2] in WATCHED
    for name in ("/robot/joint_states", "/robot/wrench", "/robot/tool", "/robot/inlet_pose"):
        assert topic(name)[2] not in WATCHED, "an arm's own driver offers no deadline: it would not be heard"


@pytest.fixture
def hear() -> Iterator[tuple[Listening, subprocess.Popen[bytes], Callable[[Callable[[], bool]], None]]]:
    rclpy.init()
    node, executor, said = rclpy.create_node("listener"), LeanExecutor(), []
    listening = Listening(said.append)
    full, kind, qos = topic("power/state", 1)
    got: list[msg.SupplyState] = []
    node.create_subscription(kind, full, got.append, qos, event_callbacks=listening.callbacks("power/state"))
    executor.add_node(node)

    def until(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30.0
        while not condition():
            assert time.monotonic() < deadline, (said, listening.values(), len(got))
            executor.spin_once(timeout_sec=0.1)

    process = subprocess.Popen([sys.executable, "-c", SPEAKER])
    until(lambda: bool(got))
    yield listening, process, until
    process.kill()
    process.wait()
    executor.shutdown()
    node.destroy_node()
    rclpy.try_shutdown()


@pytest.mark.integration
def test_a_publisher_that_is_frozen_then_goes_on(hear: Any) -> None:
    listening, process, until = hear
    os.kill(process.pid, signal.SIGSTOP)
    until(lambda: "power/state publisher" in listening.values())
    assert int(listening.values()["power/state late"].split()[0]) >= 1.0 / DEADLINE_S - 1
    os.kill(process.pid, signal.SIGCONT)
    until(lambda: "power/state publisher" not in listening.values())


@pytest.mark.integration
def test_a_publisher_that_was_killed(hear: Any) -> None:
    listening, process, until = hear
    process.kill()
    until(lambda: listening.values().get("power/state publisher") == "silent")
