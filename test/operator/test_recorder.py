"""The recorder as a process of its own beside live publishers, a CAN bus and a CSMS journal."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import can
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory

from robot_charger import msg
from robot_charger.common.can_bus import open_bus
from robot_charger.common.can_udp import free_block
from robot_charger.common.clock import now_ns
from robot_charger.common.topics import EVENTS, topic
from robot_charger.sim.csms.journal import Journal

pytestmark = [pytest.mark.integration, pytest.mark.alone]


class Station:
    """Publishes what a test wants to be recorded and hears the recorder's diagnostics."""

    def __init__(self) -> None:
        self.context = rclpy.Context()
        self.context.init()
        self.node = rclpy.create_node("fake_station", context=self.context)
        self.executor = rclpy.executors.SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.publishers: dict[str, object] = {}
        self.recorder_says = ""
        self.recorder_values: dict[str, str] = {}
        self.tree: dict[str, object] = {}
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, EVENTS)
        self.node.create_subscription(DiagnosticArray, "/diagnostics_agg", self._on_tree, EVENTS)

    def _on_diagnostics(self, array: DiagnosticArray) -> None:
        for status in array.status:
            if status.name == "/recorder":
                self.recorder_says = status.message
                self.recorder_values = {v.key: v.value for v in status.values}

    def _on_tree(self, array: DiagnosticArray) -> None:
        self.tree = {s.name: s for s in array.status}

    def say(self, name: str, message, evse: int | None = 1) -> None:
        full, kind, qos = topic(name, evse)
        if full not in self.publishers:
            self.publishers[full] = self.node.create_publisher(kind, full, qos)
        message.stamp_ns = now_ns()
        self.publishers[full].publish(message)

    def until(self, condition: Callable[[], bool], meanwhile: Callable[[], None] = lambda: None) -> None:
        deadline = time.monotonic() + 30.0
        while not condition():
            assert time.monotonic() < deadline, f"recorder says {self.recorder_says!r} {self.recorder_values}"
            meanwhile()
            self.executor.spin_once(timeout_sec=0.02)

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        self.context.shutdown()


@pytest.fixture
def station() -> Iterator[Station]:
    station = Station()
    yield station
    station.close()


@contextlib.contextmanager
def recorder(directory: Path, *arguments: str) -> Iterator[subprocess.Popen]:
    command = [sys.executable, "-m", "robot_charger.operator.recorder", "--directory", str(directory), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def finish(process: subprocess.Popen) -> list[Path]:
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    return [Path(line) for line in out.split()]


def read(path: Path) -> list[tuple[str, int, object]]:
    with path.open("rb") as file:
        reader = make_reader(file, decoder_factories=[DecoderFactory()])
        return [(c.topic, m.log_time, d) for _, c, m, d in reader.iter_decoded_messages()]


def test_a_session_with_can_and_ocpp_is_recorded_without_personal_data(station, tmp_path):
    port = free_block()
    journal = Journal(tmp_path / "csms.sqlite")
    bus = open_bus(f"udp:{port}")
    arguments = ["--can", f"udp:{port}", "--ocpp-journal", str(tmp_path / "csms.sqlite"), "--keep-free-mb", "0"]
    with recorder(tmp_path / "out", *arguments) as process:
        state = msg.SessionState(session_id="0123-456", phase=msg.SessionState.PHASE_CHARGING, evse=1)
        station.until(lambda: station.recorder_says == "recording", lambda: station.say("session/state", state))

        frame = can.Message(arbitration_id=0x123, is_extended_id=False, data=b"\x01\x02\x03")
        link = msg.VehicleLink(identity="0200000001", session_id="0123-456")

        def meanwhile() -> None:
            station.say("power/state", msg.SupplyState(voltage_v=401.0))
            station.say("vehicle/link", link)
            bus.send(frame)

        station.until(lambda: int(station.recorder_values.get("CAN frames", 0)) > 3, meanwhile)
        journal.add("station1", "2.0.1", "in", '[2,"1","Authorize",{"idToken":{"idToken":"SECRET"}}]')
        bank = msg.ModuleArray(modules=[msg.ModuleState(id=1, state=msg.ModuleState.STATE_FAULT)])
        station.until(
            lambda: {"/Station/recorder", "/Station/power/modules/1"} <= set(station.tree),
            lambda: station.say("/power/modules", bank, None),
        )
        assert station.tree["/Station"].message == "power/modules/1: fault"
        before = int(station.recorder_values["messages"])
        station.until(lambda: int(station.recorder_values["messages"]) > before + 20, meanwhile)
        paths = finish(process)
        assert len(paths) == 1, paths
        (path,) = paths
    bus.shutdown()
    messages = read(path)
    topics = {t for t, _, _ in messages}
    assert {"/evse1/power/state", "/evse1/session/state", f"/can/udp_{port}", "/ocpp/messages"} <= topics
    assert [t for _, t, _ in messages] == sorted(t for _, t, _ in messages)
    texts = [m.data for t, _, m in messages if t == "/ocpp/messages"]
    assert len(texts) == 1 and "Authorize" in texts[0] and "SECRET" not in texts[0]
    assert {m.identity for t, _, m in messages if t.endswith("vehicle/link")} == {"masked"}
    frames = next(m for t, _, m in messages if t.startswith("/can/"))
    assert list(frames.ids) == [0x123] and bytes(frames.data[:3]) == b"\x01\x02\x03"
    # One clock: a message's own stamp, shifted by the file's offset, is the time of its log within the poll's blur.
    with path.open("rb") as file:
        metadata = {m.name: m.metadata for m in make_reader(file).iter_metadata()}["robot_charger"]
    offset = int(metadata["monotonic_offset_ns"])
    stamps = [(at, m.stamp_ns + offset) for t, at, m in messages if t.endswith("power/state")]
    assert all(abs(at - stamp) < 200_000_000 for at, stamp in stamps)


def test_a_full_disk_shows_on_diagnostics_and_the_recorder_lives(station, tmp_path):
    with recorder(tmp_path / "out", "--keep-free-mb", str(10**9)) as process:
        state = msg.SessionState(session_id="full", phase=msg.SessionState.PHASE_CHARGING)
        station.until(
            lambda: station.recorder_says.startswith("not recording: disk full"),
            lambda: station.say("session/state", state),
        )
        station.until(lambda: int(station.recorder_values["lost"]) > 0, lambda: station.say("session/state", state))
        assert process.poll() is None
        assert finish(process) == []


def test_a_bus_that_is_not_there_is_refused_in_one_line(tmp_path):
    with recorder(tmp_path, "--can", "socketcan:nosuch0") as process:
        _, err = process.communicate(timeout=30)
    assert process.returncode == 2
    assert err.count("\n") == 1 and "nosuch0" in err


def test_a_killed_recorder_leaves_what_it_wrote(station, tmp_path):
    with recorder(tmp_path / "out", "--keep-free-mb", "0") as process:
        state = msg.SessionState(session_id="killed", phase=msg.SessionState.PHASE_CHARGING)
        station.until(lambda: station.recorder_says == "recording", lambda: station.say("session/state", state))
        (path,) = (tmp_path / "out").glob("*.mcap")
        station.until(lambda: path.stat().st_size > 0)
        process.kill()
        process.wait()
    assert path.read_bytes()[:5] == b"\x89MCAP"
