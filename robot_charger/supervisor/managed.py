"""The life-cycle services of the nodes that a supervisor manages; which step is next says ``bringup``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.task import Future

from robot_charger.common.clock import now_ns
from robot_charger.supervisor.bringup import Bringup

WATCH_S = 0.2
ASK_AGAIN_S = 1.0  # an answer can get lost while two nodes are still discovering each other
LOST_S = 2.5  # [s] an active node that does not answer for so long is gone, though the graph still lists it
STEADY_S = 1.0  # how often an active node is asked for its state; a dead one is missed sooner, by its topics
TRANSITIONS = {"configure": 1, "activate": 3}  # lifecycle_msgs/Transition


class ManagedNodes:
    """Brings ``names`` up in order. ``on_ready`` is told whether all are active, ``on_fall`` the name of one that fell.

    Everything happens in the node's executor.
    """

    def __init__(
        self, node: Any, names: Sequence[str], on_ready: Callable[[bool], None], on_fall: Callable[[str], None]
    ) -> None:
        self._log = node.get_logger()
        self._on_ready, self._on_fall = on_ready, on_fall
        self._bringup = Bringup(list(names))
        self._get_state = {n: node.create_client(GetState, f"{n}/get_state") for n in names}
        self._change_state = {n: node.create_client(ChangeState, f"{n}/change_state") for n in names}
        self._asked_at: dict[str, float] = {}  # node -> when its state was asked for and not yet answered [s]
        self._told_at: dict[str, float] = {}  # node -> when it last answered [s]
        self._unanswered: dict[str, float] = {}  # node -> since when it does not answer [s]
        node.create_timer(WATCH_S, self._watch)

    def missing(self) -> list[str]:
        """Nodes that are not active, each with its state."""
        return [f"{name} ({self._bringup.state.get(name) or 'silent'})" for name in self._bringup.missing()]

    def _watch(self) -> None:
        now = now_ns() / 1e9
        for name, client in self._get_state.items():
            if self._bringup.state.get(name) == "active" and now - self._told_at.get(name, 0.0) < STEADY_S:
                continue  # asking the graph costs more than all the rest
            if not client.service_is_ready():
                self._forget(name)
                self._note(name, "")
            elif self._bringup.state.get(name) == "active" and now - self._unanswered.get(name, now) > LOST_S:
                self._note(name, "")
            elif now - self._asked_at.get(name, 0.0) > ASK_AGAIN_S:
                self._asked_at[name] = now
                self._unanswered.setdefault(name, now)
                future = client.call_async(GetState.Request())
                future.add_done_callback(lambda f, name=name, now=now: self._on_state(name, now, f))
        self._bring_up(now)

    def _bring_up(self, now: float) -> None:
        for name, transition in self._bringup.next(now):
            request = ChangeState.Request()
            request.transition.id = TRANSITIONS[transition]
            future = self._change_state[name].call_async(request)
            future.add_done_callback(lambda f, name=name: self._on_changed(name, f))

    def _on_changed(self, name: str, future: Future) -> None:
        answer = future.result()
        self._bringup.done(name, bool(answer and answer.success))
        self._on_ready(self._bringup.ready)
        self._bring_up(now_ns() / 1e9)  # the next in line need not wait for the timer

    def _on_state(self, name: str, asked_at: float, future: Future) -> None:
        self._forget(name)
        self._told_at[name] = now_ns() / 1e9
        answer = future.result()
        # A state asked for before a transition is older than that.
        if name not in self._bringup.asked or asked_at > self._bringup.tried.get(name, 0.0):
            self._note(name, answer.current_state.label if answer else "")

    def _forget(self, name: str) -> None:
        self._asked_at.pop(name, None)
        self._unanswered.pop(name, None)

    def _note(self, name: str, state: str) -> None:
        if self._bringup.heard(name, state):
            self._log.warning(f"{name} is {state or 'gone'}")
            self._on_fall(name)
        self._on_ready(self._bringup.ready)
