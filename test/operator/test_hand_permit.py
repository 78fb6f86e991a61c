"""The motion permit that a person gives where no supervisor runs."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import rclpy

from robot_charger import msg
from robot_charger.common.clock import now_ns
from robot_charger.common.topics import topic
from robot_charger.operator.hand_permit import forbids

NONE, FREE, CONTACT = (getattr(msg.MotionPermit, f"ZONE_{n}") for n in ("NONE", "FREE", "CONTACT"))


def safe() -> tuple[Any, Any, Any]:
    return msg.SafetyState(alive=True), msg.BayState(field_clear=True), msg.SupplyState(contactors_open=True)


def test_with_a_living_safety_controller_a_clear_bay_and_a_dead_plug_it_moves() -> None:
    assert not forbids(*safe())
    safety, bay, power = safe()
    bay.occupied = bay.immobilised = True
    assert not forbids(safety, bay, power)


@pytest.mark.parametrize(
    "index, values, why",
    [
        (0, {"alive": False}, "safety controller is silent"),
        (0, {"emergency_stop": True}, "emergency stop"),
        (1, {"field_clear": False}, "protective field"),
        (1, {"occupied": True}, "not immobilised"),
        (2, {"contactors_open": False}, "not surely open"),
        (2, {"voltage_v": 61.0}, "61 V"),
        (2, {"voltage_v": -400.0}, "400 V"),
        (2, {"voltage_v": float("nan")}, "not dead"),
    ],
)
def test_each_of_these_forbids_motion(index: int, values: dict[str, Any], why: str) -> None:
    told = list(safe())
    for name, value in values.items():
        setattr(told[index], name, value)
    assert why in forbids(*told)


@pytest.mark.parametrize("index", range(3))
def test_what_is_not_heard_forbids_motion(index: int) -> None:
    told: list[Any] = list(safe())
    told[index] = None
    assert forbids(*told)


@dataclass
class Station:
    """What power would say, and what is permitted."""

    node: Any
    permits: list[Any] = field(default_factory=list)
    emergency: bool = False

    def __post_init__(self) -> None:
        self.publishers = {}
        for name, evse in (("/safety/state", None), ("bay/state", 1), ("power/state", 1)):
            full, kind, qos = topic(name, evse)
            self.publishers[name] = self.node.create_publisher(kind, full, qos)
        full, kind, qos = topic("robot/permit", 1)
        self.node.create_subscription(kind, full, self.permits.append, qos)

    def until(self, zone: int, seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        while not self.permits or self.permits[-1].zone != zone:
            assert time.monotonic() < deadline, self.permits[-1:]
            self.tell()

    def tell(self) -> None:
        safety, bay, power = safe()
        safety.emergency_stop = self.emergency
        for publisher, message in zip(self.publishers.values(), (safety, bay, power), strict=True):
            message.stamp_ns = now_ns()
            publisher.publish(message)
        rclpy.spin_once(self.node, timeout_sec=0.05)


@pytest.fixture
def station() -> Iterator[Station]:
    rclpy.init()
    node = rclpy.create_node("power")
    yield Station(node)
    node.destroy_node()
    rclpy.try_shutdown()


@pytest.fixture
def permit() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "robot_charger.cli", "permit", "--zone", "contact"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.communicate()


@pytest.mark.integration
def test_it_follows_the_emergency_stop_and_ends_with_the_arm_at_rest(
    station: Station, permit: subprocess.Popen[str]
) -> None:
    station.until(CONTACT)
    assert station.permits[-1].evse == 1
    station.emergency = True
    station.until(NONE)
    station.emergency = False
    station.until(CONTACT)
    permit.send_signal(signal.SIGINT)
    station.until(NONE)
    told, wrong = permit.communicate(timeout=20)
    assert permit.returncode == 0, wrong
    assert "contact zone" in told and "no motion: emergency stop" in told and told.endswith("the arm holds\n")


@pytest.mark.integration
def test_it_gives_way_to_a_supervisor(station: Station, permit: subprocess.Popen[str]) -> None:
    station.until(CONTACT)
    full, kind, qos = topic("robot/permit", 1)
    station.node.create_publisher(kind, full, qos)
    assert permit.wait(20) == 1
    assert "comes from power already" in permit.communicate()[1]
