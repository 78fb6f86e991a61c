"""The supervisor's goals at the robot node: one at a time, each sent once.

A goal that comes while another runs waits until the robot dropped that one. Its end is told to ``Heard``.

What a goal shall be is decided in the supervisor's own thread; rclpy's action client is called in the executor's
alone. It notes a request after it has sent it: an answer that another thread takes in between is thrown away, and
the goal would never end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from rclpy._rclpy_pybind11 import RCLError
from rclpy.action import ActionClient
from rclpy.task import Future

from robot_charger import action
from robot_charger.common.clock import now_ns
from robot_charger.supervisor.inputs import Heard
from robot_charger.supervisor.model import Commands, Goal

CANCEL_S = 2.0  # longest wait for the robot to drop a goal


class RobotGoals:
    """Clients of ``/robot/connect``, ``/robot/release`` and ``/robot/disconnect`` for one EVSE.

    ``lock`` guards ``heard``; ``told`` is called when it changed, ``say`` with what the robot said of an error.
    """

    def __init__(
        self,
        node: Any,
        connector: str,
        heard: Heard,
        lock: AbstractContextManager[Any],
        told: Callable[[], None],
        say: Callable[[str, str], None],
    ) -> None:
        self._evse, self._connector = node.evse, connector
        self._heard, self._lock, self._told, self._say = heard, lock, told, say
        self._clients = {
            Goal.CONNECT: ActionClient(node, action.Connect, "/robot/connect"),
            Goal.RELEASE: ActionClient(node, action.Release, "/robot/release"),
            Goal.DISCONNECT: ActionClient(node, action.Disconnect, "/robot/disconnect"),
        }
        self._calls: deque[Callable[[], Any]] = deque()  # of the action clients, in order
        self._called = node.create_guard_condition(self._call)
        self._sent = 0
        self._runs = False  # sent and not ended
        self._waits = (0, 0.0)  # a goal that waits for that, and since when [s]
        self._handle: Any = None

    def drive(self, commands: Commands, session_id: str) -> None:
        """Send, or give up, what the flow wants of the robot now. The caller holds ``lock``."""
        if commands.goal == Goal.NONE:
            self._cancel()
            return
        client = self._clients[commands.goal]
        if commands.goal_number <= self._sent or not client.server_is_ready():
            return
        if self._runs and not self._dropped(commands.goal_number):
            return
        self._sent = number = commands.goal_number
        self._runs = True
        self._heard.goal_grasped = False
        goal = client._action_type.Goal(evse=self._evse, session_id=session_id)
        if commands.goal == Goal.CONNECT:
            goal.connector = self._connector
        self._in_executor(lambda: self._send(number, client, goal))

    def _in_executor(self, call: Callable[[], Any]) -> None:
        self._calls.append(call)
        self._called.trigger()

    def _call(self) -> None:
        while self._calls:
            self._calls.popleft()()

    def _send(self, number: int, client: ActionClient, goal: Any) -> None:
        try:
            future = client.send_goal_async(goal, feedback_callback=lambda m: self._on_feedback(number, m.feedback))
        except RCLError as error:
            self._on_end(number, action.Connect.Result.ERROR_BUSY, f"the goal could not be sent: {error}")
            return
        future.add_done_callback(lambda f: self._on_answer(number, f))

    def _cancel(self) -> None:
        if self._handle is not None:
            self._in_executor(self._handle.cancel_goal_async)
            self._handle = None

    def _dropped(self, number: int) -> bool:
        """The goal ``number`` comes while another runs: the robot drops that one first. A dead one never says so."""
        now = now_ns() / 1e9
        if self._waits[0] != number:
            self._waits = (number, now)
        self._cancel()
        return now - self._waits[1] > CANCEL_S

    def _on_feedback(self, number: int, feedback: Any) -> None:
        if number == self._sent and getattr(feedback, "grasped", False):
            with self._lock:
                self._heard.goal_grasped = True
            self._told()

    def _on_answer(self, number: int, future: Future) -> None:
        handle = future.result()
        if handle is None or not handle.accepted:
            self._on_end(number, action.Connect.Result.ERROR_BUSY, "the robot refused the goal")
            return
        with self._lock:
            if number == self._sent:
                self._handle = handle
            else:  # given up meanwhile
                handle.cancel_goal_async()
        result = handle.get_result_async()
        result.add_done_callback(lambda f: self._on_end(number, f.result().result.error, f.result().result.text))

    def _on_end(self, number: int, error: int, text: str) -> None:
        with self._lock:
            if number != self._sent:
                return
            self._handle = None
            self._runs = False
            self._heard.goal_done, self._heard.goal_error = number, error
            self._heard.goal_done_at = now_ns() / 1e9
            if error:
                self._say("robot", text)
        self._told()
