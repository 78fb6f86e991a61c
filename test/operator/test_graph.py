"""The picture of the running graph."""

from __future__ import annotations

import pytest
import rclpy

from robot_charger.common.topics import topic
from robot_charger.operator import graph


@pytest.mark.integration
def test_the_picture_shows_who_tells_whom():
    rclpy.init()
    nodes = [
        rclpy.create_node("power"),
        rclpy.create_node("supervisor", namespace="/evse1"),
        rclpy.create_node("graph"),
    ]
    try:
        power, supervisor, looker = nodes
        for name, speaker, hearer in (("power/state", power, supervisor), ("power/permit", supervisor, power)):
            full, kind, qos = topic(name, 1)
            speaker.create_publisher(kind, full, qos)
            hearer.create_subscription(kind, full, lambda _: None, qos)
            looker.create_subscription(kind, full, lambda _: None, qos)
        full, kind, qos = topic("/fault")
        power.create_publisher(kind, full, qos)
        supervisor.create_subscription(kind, full, lambda _: None, qos)
        found = graph.edges(looker, 1)
    finally:
        for node in nodes:
            node.destroy_node()
        rclpy.try_shutdown()
    assert found == {
        ("/power", "/evse1/supervisor"): ["/evse1/power/state"],
        ("/evse1/supervisor", "/power"): ["/evse1/power/permit"],
    }
    picture = graph.mermaid(found, 1)
    assert 'evse1_supervisor -->|"power/permit"| power' in picture
    assert "```mermaid" in graph.page(picture, 1)


def test_a_picture_with_a_nameless_node_is_not_taken_for_whole():
    assert not graph.nameless({("/power", "/robot"): ["/safety/state"]})
    assert graph.nameless({("/power", "_NODE_NAMESPACE_UNKNOWN_/_NODE_NAME_UNKNOWN_"): ["/safety/state"]})
