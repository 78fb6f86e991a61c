"""The pilot node as a process, with the simulated vehicle as another, through topics and wires."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

from robot_charger import msg
from robot_charger.common.clock import now_ns
from robot_charger.common.topics import fill, topic
from robot_charger.common.wires import WireEnd

pytestmark = [pytest.mark.integration, pytest.mark.alone]
P = msg.PilotState


def start(module: str, *words: str, env: dict[str, str] | None = None) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", module, *words], env={**os.environ, **(env or {})})


class Station:
    """What stands around a pilot: command line, arm, rack, supervisor."""

    def __init__(self, directory: Path) -> None:
        self.states: list[msg.PilotState] = []
        self.arrived: list[int] = []
        self.faults: dict[int, bool] = {}
        self.news = threading.Condition()
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("bench", context=self.context, use_global_arguments=False)
        name, kind, qos = topic("pilot/state", 1)
        self.node.create_subscription(kind, name, self._state, qos)
        name, kind, qos = topic("fault", 1)
        self.node.create_subscription(kind, name, self._fault, qos)
        name, kind, qos = topic("pilot/command", 1)
        self.commands = self.node.create_publisher(kind, name, qos)
        self.change = self.node.create_client(ChangeState, "/evse1/pilot/change_state")
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.thread = threading.Thread(target=self._spin, daemon=True)
        self.thread.start()
        self.arm, self.cli, self.rack = (WireEnd(n, directory) for n in ("arm", "cli", "rack"))
        self.number = 0
        self.mated = False
        self.command_mode: tuple[int, float] | None = None
        self.going = True
        self.feeder = threading.Thread(target=self._feed, daemon=True)
        self.feeder.start()

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException):
            while self.context.ok():
                self.executor.spin_once(timeout_sec=0.1)

    def _feed(self) -> None:
        while self.going:
            self.arm.send("vehicle1", {"mated": self.mated, "depth_m": 0.0})
            if self.command_mode:
                self._publish()
            time.sleep(0.05)

    def _publish(self) -> None:
        assert self.command_mode
        mode, duty = self.command_mode
        command = fill(msg.PilotCommand(), stamp_ns=now_ns(), number=self.number, mode=mode, duty=duty)
        self.commands.publish(command)

    def command(self, mode: int, duty: float = 0.0) -> None:
        self.number += 1
        self.command_mode = (mode, duty)
        self._publish()

    def transition(self, number: int) -> bool:
        assert self.change.wait_for_service(timeout_sec=20.0)
        request = ChangeState.Request(transition=Transition(id=number))
        future = self.change.call_async(request)
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        assert done.wait(20.0)
        return bool(future.result().success)

    def _state(self, message: msg.PilotState) -> None:
        with self.news:
            self.states.append(message)
            self.arrived.append(now_ns())
            self.news.notify_all()

    def _fault(self, message: msg.Fault) -> None:
        with self.news:
            self.faults[message.code] = message.active
            self.news.notify_all()

    def until(self, condition: Callable[[msg.PilotState], bool], timeout_s: float = 15.0) -> msg.PilotState:
        with self.news:
            found = self.news.wait_for(lambda: self.states and condition(self.states[-1]), timeout_s)
            assert found, f"last state: {self.states[-1:]}"
            return self.states[-1]

    def until_fault(self, code: int, active: bool = True, timeout_s: float = 15.0) -> None:
        with self.news:
            assert self.news.wait_for(lambda: self.faults.get(code) is active, timeout_s), self.faults

    def close(self) -> None:
        self.going = False
        self.feeder.join()
        for wire in (self.arm, self.cli, self.rack):
            wire.close()
        rclpy.shutdown(context=self.context)
        self.thread.join()


@pytest.fixture
def station(sim_directory: Path) -> Iterator[Station]:
    bench = Station(sim_directory)
    vehicle = start("robot_charger.sim.vehicle", "--evse", "1", "--protocol", "plain")
    pilot = start("robot_charger.pilot.node", "--ros-args", "-r", "__ns:=/evse1")
    try:
        yield bench
    finally:
        for process in (pilot, vehicle):
            process.terminate()
        assert [p.wait(10) for p in (pilot, vehicle)] == [0, 0]
        bench.close()


def test_a_visit_through_the_topics(station: Station) -> None:
    assert station.transition(Transition.TRANSITION_CONFIGURE)
    assert station.until(lambda s: s.state == P.STATE_F).high_v == -12.0  # not available until active
    assert station.transition(Transition.TRANSITION_ACTIVATE)
    state = station.until(lambda s: s.state == P.STATE_A)
    assert (state.high_v, state.pwm, state.proximity) == (12.0, False, P.PP_OPEN)

    station.cli.send("vehicle1", {"arrive": 1})
    station.mated = True
    state = station.until(lambda s: s.state == P.STATE_B)
    assert state.high_v == pytest.approx(9.0, abs=0.1)
    assert state.proximity == P.PP_CONNECTED

    station.command(msg.PilotCommand.MODE_PWM, 0.05)
    state = station.until(lambda s: s.pwm and s.low_v < -11.9)
    assert (state.state, state.duty, state.max_current_a) == (P.STATE_B, pytest.approx(0.05), 0.0)

    station.cli.send("vehicle1", {"arrive": 1, "fault": "no-diode", "on": True})
    station.until(lambda s: s.state == P.STATE_FAULT and not s.diode_ok)
    station.until_fault(msg.Fault.PILOT_DIODE)
    station.cli.send("vehicle1", {"arrive": 1, "fault": "no-diode", "on": False})
    station.until(lambda s: s.state == P.STATE_B)
    station.until_fault(msg.Fault.PILOT_DIODE, active=False)

    station.mated = False
    station.until(lambda s: s.state == P.STATE_A)

    station.command_mode = None  # the supervisor falls silent while the oscillator runs
    state = station.until(lambda s: s.state == P.STATE_F)
    assert not state.pwm
    station.command(msg.PilotCommand.MODE_STEADY)
    station.until(lambda s: s.state == P.STATE_A)
    assert station.transition(Transition.TRANSITION_DEACTIVATE)
    station.until(lambda s: s.state == P.STATE_F)


def test_states_come_at_12_5_hz(station: Station) -> None:
    assert station.transition(Transition.TRANSITION_CONFIGURE)
    assert station.transition(Transition.TRANSITION_ACTIVATE)
    station.until(lambda s: s.state == P.STATE_A)
    first = len(station.states)
    station.until(lambda s: len(station.states) > first + 30)
    stamps = [s.stamp_ns for s in station.states[first:]]
    gaps_ms = sorted((b - a) / 1e6 for a, b in itertools.pairwise(stamps))
    assert 72.0 < gaps_ms[len(gaps_ms) // 2] < 96.0


def test_bad_parameters_and_a_missing_simulation_are_told_in_one_line(sim_directory: Path) -> None:
    for words in (["-p", "sample_ms:=50"], ["-p", "connector:=schuko"], ["-p", "colour:=red"]):
        result = subprocess.run(
            [sys.executable, "-m", "robot_charger.pilot.node", "--ros-args", "-r", "__ns:=/evse1", *words],
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert result.returncode == 2
        assert words[1].partition(":=")[0] in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1
