"""The supervisor's goals at the robot node: one at a time, each sent once.

A goal that comes while another runs waits until the robot dropped that one. ``Heard`` gets its end. Without ROS: the
actions are objects with ``ready`` and ``send`` (common.actions.RobotAction).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from robot_charger.supervisor.inputs import Heard
from robot_charger.supervisor.model import Commands, Goal
from robot_charger.words.values import RobotErrorCode

CANCEL_S = 2.0  # [s] longest wait for the robot to drop a goal


class Sent(Protocol):
    """A goal on its way."""

    def cancel(self) -> None: ...


class Action(Protocol):
    """One action of the robot. ``ended`` is called once for every goal sent, from any thread."""

    def ready(self) -> bool: ...

    def send(
        self,
        fields: dict[str, int | str],
        feedback: Callable[[object], None],
        ended: Callable[[RobotErrorCode, str], None],
    ) -> Sent: ...


class RobotGoals:
    """What the flow wants of the robot, as goals of ``/robot/connect``, ``/robot/release`` and ``/robot/disconnect``.

    ``lock`` guards ``heard``; ``changed`` is called when it changed, ``say`` with the robot's text of an error.
    """

    def __init__(
        self,
        evse: int,
        connector: str,
        actions: Mapping[Goal, Action],
        heard: Heard,
        lock: AbstractContextManager[object],
        changed: Callable[[], None],
        say: Callable[[str, str], None],
    ) -> None:
        self._evse, self._connector, self._actions = evse, connector, actions
        self._heard, self._lock, self._changed, self._say = heard, lock, changed, say
        self._sent = 0
        self._running: Sent | None = None  # sent and not ended
        self._waits = (0, 0.0)  # a goal that waits for that, and since when [s]

    def drive(self, commands: Commands, session_id: str, now: float) -> None:
        """Send, or give up, what the flow wants of the robot now [s]. The caller holds ``lock``."""
        if commands.goal == Goal.NONE:
            self._cancel()
            return
        action = self._actions[commands.goal]
        if commands.goal_number <= self._sent or not action.ready():
            return
        if self._running is not None and not self._dropped(commands.goal_number, now):
            return
        self._sent = number = commands.goal_number
        self._heard.goal_grasped = False
        fields: dict[str, int | str] = {"evse": self._evse, "session_id": session_id}
        if commands.goal == Goal.CONNECT:
            fields["connector"] = self._connector
        self._running = action.send(
            fields,
            lambda feedback: self._on_feedback(number, feedback),
            lambda error, text: self._on_end(number, error, text),
        )

    def _cancel(self) -> None:
        if self._running is not None:
            self._running.cancel()

    def _dropped(self, number: int, now: float) -> bool:
        """The goal ``number`` comes while another runs: the robot drops that one first. A dead one never says so."""
        if self._waits[0] != number:
            self._waits = (number, now)
        self._cancel()
        return now - self._waits[1] > CANCEL_S

    def _on_feedback(self, number: int, feedback: object) -> None:
        if number == self._sent and getattr(feedback, "grasped", False):
            with self._lock:
                self._heard.goal_grasped = True
            self._changed()

    def _on_end(self, number: int, error: RobotErrorCode, text: str) -> None:
        with self._lock:
            if number != self._sent:
                return
            self._running = None
            self._heard.goal_ended(number, error)
            if error:
                self._say("robot", text)
        self._changed()
