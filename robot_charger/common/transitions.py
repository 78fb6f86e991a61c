"""Life-cycle requests of a node: every one is answered, and what a person took out of service stays out.

Supervisors configure and activate their nodes whenever they find one that is not active. A person's deactivation must
outlast that. A request does not say who sends it, but people's tools differ: ``ros2 lifecycle set`` names the
transition by its label too, a supervisor only by its number. So after a deactivation only a request with a label
activates the node again. A new start of the process forgets it.
"""

from __future__ import annotations

from typing import Any

from rclpy._rclpy_pybind11 import RCLError

ACTIVATE, DEACTIVATE = "activate", "deactivate"
LABELS = {1: "configure", 2: "cleanup", 3: ACTIVATE, 4: DEACTIVATE, 5: "shutdown", 6: "shutdown", 7: "shutdown"}


class Transitions:
    """Answers ``change_state`` of ``node`` (an rclpy LifecycleNode) around rclpy's own answer."""

    def __init__(self, node: Any) -> None:
        self.held = False  # a person deactivated the node
        self._node = node
        self._answer = node._service_change_state.callback
        self._said = False
        node._service_change_state.callback = self._on_request

    @property
    def remedy(self) -> str:
        return f"a person deactivated it: `ros2 lifecycle set {self._node.get_fully_qualified_name()} activate`"

    def _on_request(self, request: Any, response: Any) -> Any:
        wanted = request.transition.label or LABELS.get(request.transition.id, str(request.transition.id))
        response.success = False
        if self.held and wanted == ACTIVATE and not request.transition.label:
            if not self._said:
                self._node.get_logger().info(f"not activated: {self.remedy}")
            self._said = True
            return response
        try:
            response = self._answer(request, response)
        except RCLError:
            state = self._node._state_machine.current_state[1]
            self._node.get_logger().warning(f"refused: there is no transition {wanted} from the state {state}")
        if response.success and wanted in (ACTIVATE, DEACTIVATE):
            self.held, self._said = wanted == DEACTIVATE, False
        return response
