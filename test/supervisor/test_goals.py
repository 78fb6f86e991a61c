"""The supervisor's goals at a real action server."""

from __future__ import annotations

import threading
import time

import pytest
import rclpy
from rclpy.action import ActionServer
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.node import Node

from robot_charger import action
from robot_charger.common.executor import LeanExecutor
from robot_charger.supervisor.goals import RobotGoals
from robot_charger.supervisor.inputs import Heard
from robot_charger.supervisor.model import Commands, Goal

pytestmark = pytest.mark.integration


class Slow(dict):
    """rclpy writes here between sending a goal and noting that it awaits an answer."""

    def __setitem__(self, key, value):
        time.sleep(0.3)
        super().__setitem__(key, value)


@pytest.fixture
def goals():
    """RobotGoals with its Heard and lock; the robot's side answers at once."""
    rclpy.init()
    client, robot = Node("supervisor"), Node("robot")
    client.evse = 1

    def succeed(handle):
        handle.succeed()
        return action.Disconnect.Result()

    server = ActionServer(robot, action.Disconnect, "/robot/disconnect", succeed)
    heard, lock = Heard(1), threading.RLock()
    made = RobotGoals(client, "ccs2", heard, lock, lambda: None, lambda *_: None)
    executors = [LeanExecutor(), MultiThreadedExecutor()]

    def spin(executor):
        try:
            while rclpy.ok():
                executor.spin_once(timeout_sec=0.1)
        except ExternalShutdownException:
            pass

    threads = []
    for executor, node in zip(executors, (client, robot), strict=True):
        executor.add_node(node)
        threads.append(threading.Thread(target=spin, args=(executor,)))
        threads[-1].start()
    yield made, heard, lock
    rclpy.try_shutdown()
    for thread in threads:
        thread.join()
    server.destroy()
    for node in (client, robot):
        node.destroy_node()


def test_an_answer_that_comes_at_once_is_heard(goals):
    made, heard, lock = goals
    client = made._clients[Goal.DISCONNECT]
    client._feedback_callbacks = Slow()
    assert client.wait_for_server(10.0)
    deadline = time.monotonic() + 10.0
    while heard.goal_done != 7 and time.monotonic() < deadline:
        with lock:
            made.drive(Commands(goal=Goal.DISCONNECT, goal_number=7), "session")
        time.sleep(0.02)
    assert (heard.goal_done, heard.goal_error) == (7, 0)
