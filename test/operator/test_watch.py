"""The live terminal: what the keys do, and the whole thing in a pseudo-terminal."""

from __future__ import annotations

import io
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
import rclpy
from click.testing import CliRunner
from rich.console import Console

from robot_charger import msg, srv
from robot_charger.common.clock import now_ns
from robot_charger.common.topics import topic
from robot_charger.desk.observer import Observer
from robot_charger.desk.view import View
from robot_charger.operator import watch as watching
from robot_charger.operator.commands import watch as watch_command

pytestmark = pytest.mark.integration


class Supervisor:
    """Answers like the supervisor of one EVSE."""

    def __init__(self) -> None:
        self.context = rclpy.Context()
        self.context.init()
        self.node = rclpy.create_node("supervisor", namespace="/evse1", context=self.context)
        self.executor = rclpy.executors.SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.requests: list[msg.BackendRequest] = []
        self.acknowledged = ""
        name, kind, qos = topic("backend/request", 1)
        self.node.create_subscription(kind, name, self.requests.append, qos)
        self.node.create_service(srv.ResetFault, "reset", self._reset)
        name, kind, qos = topic("session/state", 1)
        self.state = self.node.create_publisher(kind, name, qos)

    def _reset(self, request, response):
        self.acknowledged = request.acknowledged_by
        response.accepted, response.text = False, "the emergency stop is still pressed"
        return response

    def say(self) -> None:
        self.state.publish(msg.SessionState(stamp_ns=now_ns(), session_id="abc", phase=8, text="it charges", evse=1))

    def until(self, condition: Callable[[], bool], meanwhile: Callable[[], None] = lambda: None) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline
            meanwhile()
            self.executor.spin_once(timeout_sec=0.05)

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        self.context.shutdown()


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    supervisor = Supervisor()
    supervisor.say()
    yield supervisor
    supervisor.close()


def test_keys_authorise_stop_and_reset(supervisor):
    observer = Observer([1], name="watch_test")
    try:
        controls = watching.Controls(observer, token="TOKEN")
        supervisor.until(lambda: any(r.kind == 1 for r in supervisor.requests), lambda: controls.press("a"))
        assert (supervisor.requests[0].id_token, supervisor.requests[0].authorized) == ("TOKEN", False)
        supervisor.until(lambda: any(r.kind == 2 for r in supervisor.requests), lambda: controls.press("s"))
        supervisor.until(lambda: bool(supervisor.acknowledged), lambda: controls.press("r"))
        supervisor.until(lambda: controls.said == "EVSE 1 not reset: the emergency stop is still pressed")
        assert controls.press("7") and controls.said == "there is no EVSE 7"
        assert not controls.press("q")
        supervisor.until(lambda: "session/state" in observer.seen[1].last, supervisor.say)
        console = Console(record=True, width=120, force_terminal=True, file=io.StringIO())
        console.print(watching.render(View(console, observer, "station"), controls))
        text = console.export_text()
        assert "it charges" in text and "a authorise" in text and "there is no EVSE 7" in text
    finally:
        observer.close()


def test_without_a_token_nothing_is_asked(supervisor):
    observer = Observer([1], name="watch_test")
    try:
        controls = watching.Controls(observer)
        assert controls.press("a") and "--token" in controls.said
        supervisor.until(lambda: any(r.kind == 2 for r in supervisor.requests), lambda: controls.press("s"))
        assert all(r.kind == 2 for r in supervisor.requests)
    finally:
        observer.close()


def test_the_command_finds_the_station_shows_it_and_ends_with_q(supervisor):
    code = "from robot_charger.operator.commands import watch; watch()"
    main, side = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen([sys.executable, "-c", code], stdin=side, stdout=side, stderr=side, env=environment)
    os.close(side)
    seen = bytearray()

    def read() -> None:
        supervisor.say()
        while select.select([main], [], [], 0)[0]:
            try:
                seen.extend(os.read(main, 65536))
            except OSError:
                return

    try:
        supervisor.until(lambda: b"it charges" in seen, read)
        os.write(main, b"q")
        supervisor.until(lambda: process.poll() is not None, read)
        assert process.returncode == 0, bytes(seen[-800:])
    finally:
        process.kill()
        process.wait()
        os.close(main)


def test_no_station_is_told_in_one_line(monkeypatch):
    monkeypatch.setattr(watching, "DISCOVERY_S", 0.2)
    monkeypatch.setattr(watching.find_evses, "__defaults__", (0.2,))
    result = CliRunner().invoke(watch_command, [])
    assert result.exit_code == 1
    assert "no station is heard" in result.output and result.output.count("\n") == 1
