"""The supervisor's goals at a real action server."""

from __future__ import annotations

import threading

import pytest
import rclpy
from rclpy.action import ActionServer
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.node import Node

from robot_charger import action
from robot_charger.common.actions import RobotAction
from robot_charger.common.executor import LeanExecutor
from robot_charger.supervisor.goals import RobotGoals
from robot_charger.supervisor.inputs import Heard
from robot_charger.supervisor.model import Commands, Goal

pytestmark = pytest.mark.integration


class Slow(dict):
    """rclpy writes here between sending a goal and noting that it awaits an answer: it is answered in between."""

    def __init__(self, answered):
        self._answered = answered

    def __setitem__(self, key, value):
        assert self._answered.wait(10.0)
        super().__setitem__(key, value)


@pytest.fixture
def goals():
    """RobotGoals with its Heard and lock, and when it was answered and told; the robot's side answers at once."""
    rclpy.init()
    client, robot = Node("supervisor"), Node("robot")

    answered, told = threading.Event(), threading.Event()

    def succeed(handle):
        handle.succeed()
        answered.set()
        return action.Disconnect.Result()

    server = ActionServer(robot, action.Disconnect, "/robot/disconnect", succeed)
    heard, lock = Heard(1), threading.RLock()
    robot_action = RobotAction(client, action.Disconnect, "/robot/disconnect")
    made = RobotGoals(1, "ccs2", {Goal.DISCONNECT: robot_action}, heard, lock, told.set, lambda *_: None)
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
    yield made, heard, lock, answered, told
    rclpy.try_shutdown()
    for thread in threads:
        thread.join()
    server.destroy()
    for node in (client, robot):
        node.destroy_node()


def test_an_answer_that_comes_abrupt_is_heard(goals):
    made, heard, lock, answered, told = goals
    client = made._actions[Goal.DISCONNECT].client
    client._feedback_callbacks = Slow(answered)
    assert client.wait_for_server(10.0)
    with lock:
        made.drive(Commands(goal=Goal.DISCONNECT, goal_number=7), "session", 0.0)
    assert told.wait(10.0)
    assert (heard.goal_done, heard.goal_error) == (7, 0)
