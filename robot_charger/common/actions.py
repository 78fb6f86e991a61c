"""Actions of ROS for logic without ROS: a client that is called from any thread, and a server with one goal at a time.

rclpy's action client notes a request after it has sent it: an answer that another thread takes in between is thrown
away, and the goal would never end. So every call of a client is made in the executor's thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from rclpy._rclpy_pybind11 import RCLError
from rclpy.action import ActionClient, ActionServer, CancelResponse, GoalResponse
from rclpy.task import Future

from robot_charger.words.values import RobotErrorCode

_KNOWN = {int(code): code for code in RobotErrorCode}


class Ticket:
    """One goal that was sent. ``cancel`` may be called at any time, once accepted or before."""

    def __init__(self, executor_calls: Callable[[Callable[[], Any]], None]) -> None:
        self._in_executor = executor_calls
        self._handle: Any = None
        self._given_up = False

    def accepted(self, handle: Any) -> None:
        self._handle = handle
        if self._given_up:
            handle.cancel_goal_async()

    def cancel(self) -> None:
        """The goal is no longer wanted. Its end is reported all the same."""
        if not self._given_up:
            self._given_up = True
            self._in_executor(lambda: self._handle and self._handle.cancel_goal_async())


class RobotAction:
    """Client of one action of the robot. Every result of these actions has the fields ``error`` and ``text``."""

    def __init__(self, node: Any, kind: Any, name: str) -> None:
        self.client = ActionClient(node, kind, name)
        self._kind = kind
        self._calls: deque[Callable[[], Any]] = deque()
        self._called = node.create_guard_condition(self._call)

    def ready(self) -> bool:
        """The robot's node serves this action."""
        return bool(self.client.server_is_ready())

    def send(
        self,
        fields: dict[str, int | str],
        feedback: Callable[[object], None],
        ended: Callable[[RobotErrorCode, str], None],
    ) -> Ticket:
        """Send a goal. ``ended`` is called once, with the action's error; ``feedback`` with its feedback messages."""
        ticket = Ticket(self._in_executor)
        self._in_executor(lambda: self._send(self._kind.Goal(**fields), ticket, feedback, ended))
        return ticket

    def _in_executor(self, call: Callable[[], Any]) -> None:
        self._calls.append(call)
        self._called.trigger()

    def _call(self) -> None:
        while self._calls:
            self._calls.popleft()()

    def _send(self, goal: Any, ticket: Ticket, feedback: Callable[[Any], None], ended: Any) -> None:
        try:
            future = self.client.send_goal_async(goal, feedback_callback=lambda m: feedback(m.feedback))
        except RCLError as error:
            ended(RobotErrorCode.BUSY, f"the goal could not be sent: {error}")
            return
        future.add_done_callback(lambda f: self._on_answer(f, ticket, ended))

    def _on_answer(self, future: Future, ticket: Ticket, ended: Any) -> None:
        handle: Any = future.result()
        if handle is None or not handle.accepted:
            ended(RobotErrorCode.BUSY, "the robot refused the goal")
            return
        ticket.accepted(handle)
        handle.get_result_async().add_done_callback(lambda f: self._on_result(f.result().result, ended))

    def _on_result(self, result: Any, ended: Any) -> None:
        error = _KNOWN.get(int(result.error))
        if error is None:
            ended(RobotErrorCode.TOOL, f"the robot ended with the unknown error {result.error}: {result.text}")
        else:
            ended(error, result.text)


class OneGoalServer:
    """Server of an action that takes one goal at a time.

    ``accept`` gets a request and answers why it is refused, or ''. ``begin`` gets the request of an accepted goal,
    ``cancel`` is called when its client gives it up. ``finish`` ends it.
    """

    def __init__(
        self,
        node: Any,
        kind: Any,
        name: str,
        accept: Callable[[Any], str],
        begin: Callable[[Any], None],
        cancel: Callable[[], None],
    ) -> None:
        self._node, self.kind = node, kind
        self._accept, self._begin, self._cancel = accept, begin, cancel
        self._running: tuple[Any, Future] | None = None
        self._server = ActionServer(
            node,
            kind,
            name,
            execute_callback=self._execute,
            goal_callback=self._on_goal,
            cancel_callback=self._on_cancel,
        )

    @property
    def busy(self) -> bool:
        return self._running is not None

    def feedback(self, message: Any) -> None:
        if self._running is not None:
            self._running[0].publish_feedback(message)

    def finish(self, result: Any, well: bool) -> None:
        """The goal ends with this result; ``well``: it succeeded."""
        if self._running is not None:
            (_, future), self._running = self._running, None
            future.set_result((result, well))

    def _on_goal(self, request: Any) -> GoalResponse:
        reason = "another goal is being executed" if self.busy else self._accept(request)
        if reason:
            self._node.get_logger().warning(f"a goal was refused: {reason}")
        return GoalResponse.REJECT if reason else GoalResponse.ACCEPT

    def _on_cancel(self, handle: Any) -> CancelResponse:
        self._cancel()
        return CancelResponse.ACCEPT

    async def _execute(self, handle: Any) -> Any:
        future: Future = Future(executor=self._node.executor)
        self._running = (handle, future)
        self._begin(handle.request)
        result, well = await future
        if handle.is_cancel_requested:
            handle.canceled()
        elif well:
            handle.succeed()
        else:
            handle.abort()
        return result
