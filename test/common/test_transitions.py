"""Life-cycle requests over real services: every one is answered, and a person's deactivation lasts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.executors import SingleThreadedExecutor

from robot_charger.common.domain import free_domain
from robot_charger.common.node import StationNode
from robot_charger.common.parameters import parameter


@dataclass(frozen=True)
class Parameters:
    number: int = parameter(1, "a number")


Ask = Callable[..., bool]


@pytest.fixture
def station(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[StationNode, Ask]]:
    with free_domain() as domain:
        monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
        monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        rclpy.init(args=[])
        node = StationNode("probe", Parameters)
        person = rclpy.create_node("person")
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        executor.add_node(person)
        client = person.create_client(ChangeState, "/probe/change_state")
        while not client.service_is_ready():
            executor.spin_once(timeout_sec=0.05)

        def ask(number: int, label: str = "") -> bool:
            future = client.call_async(ChangeState.Request(transition=Transition(id=number, label=label)))
            executor.spin_until_future_complete(future, timeout_sec=10.0)
            assert future.done(), "no answer"
            return future.result().success

        try:
            yield node, ask
        finally:
            executor.shutdown()
            node.destroy_node()
            person.destroy_node()
            rclpy.try_shutdown()


def state(node: StationNode) -> str:
    return node._state_machine.current_state[1]


def test_an_impossible_transition_is_answered(station):
    node, ask = station
    assert not ask(4)  # deactivate, of an unconfigured node
    assert not ask(3, "activate")
    assert not ask(99)
    assert not ask(0, "no such label")
    assert state(node) == "unconfigured"
    assert ask(1) and ask(3)  # and the next request is answered as ever
    assert state(node) == "active"


def test_a_deactivated_node_stays_so_until_a_person_activates_it(station):
    node, ask = station
    assert ask(1) and ask(3)
    assert ask(4, "deactivate")
    for _ in range(3):
        assert not ask(3)  # as a supervisor asks
    assert state(node) == "inactive"
    assert "ros2 lifecycle set /probe activate" in node._transitions.remedy
    assert ask(2) and ask(1)  # also over a new configuration
    assert not ask(3)
    assert ask(3, "activate")
    assert state(node) == "active" and not node._transitions.held
    assert ask(4) and not ask(3)
