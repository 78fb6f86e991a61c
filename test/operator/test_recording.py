"""Recordings: one file per session, cut by size, and a full disk that stops nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from rclpy.serialization import deserialize_message, serialize_message
from rosbags.highlevel import AnyReader
from std_msgs.msg import String

from robot_charger import msg
from robot_charger.common.topics import EVSE_TOPICS, STATION_TOPICS
from robot_charger.operator import privacy
from robot_charger.operator.definitions import CAN_FRAMES, CAN_FRAMES_TEXT, can_frames, definition, type_name
from robot_charger.operator.recorder import Listener, WallClock
from robot_charger.operator.recording import Entry, Limits, Recorder, Stream, qos_text

S = 1_000_000_000
T0 = 1_790_000_000 * S


def stream(name: str, evse: int = 1) -> Stream:
    kind, qos = EVSE_TOPICS[name] if evse else STATION_TOPICS[name]
    topic = f"/evse{evse}/{name}" if evse else name
    latched = qos.durability.name == "TRANSIENT_LOCAL"
    return Stream(topic, type_name(kind), definition(kind), qos_text(qos), evse, latched)


def entry(name: str, message, at: float, evse: int = 1) -> Entry:
    time = T0 + int(at * S)
    return Entry(stream(name, evse), time, time, bytes(serialize_message(message)))


def power(at: float, volts: float = 400.0, evse: int = 1) -> Entry:
    return entry("power/state", msg.SupplyState(voltage_v=volts, session_id="x"), at, evse)


def read(path: Path) -> list[tuple[str, object]]:
    with path.open("rb") as file:
        reader = make_reader(file, decoder_factories=[DecoderFactory()])
        return [(channel.topic, decoded) for _, channel, _, decoded in reader.iter_decoded_messages()]


def test_every_type_of_the_table_reads_back_as_written(tmp_path):
    recorder = Recorder(tmp_path, Limits(keep_free_bytes=0), continuous=True)
    for number, (name, (kind, _)) in enumerate({**EVSE_TOPICS}.items()):
        recorder.write([entry(name, kind(), number)])
        recorder.tick(T0 + number * S)
    for number, (name, (kind, _)) in enumerate(STATION_TOPICS.items()):
        recorder.write([entry(name, kind(), 100 + number, evse=0)])
    recorder.close()
    (path,) = tmp_path.glob("*.mcap")
    topics = [topic for topic, _ in read(path)]
    assert topics == [f"/evse1/{n}" for n in EVSE_TOPICS] + list(STATION_TOPICS)


def test_rosbags_reads_the_whole_file_with_its_quality_of_service(tmp_path):
    recorder = Recorder(tmp_path, Limits(keep_free_bytes=0))
    recorder.session(1, "session-1", T0)
    recorder.write([power(0.1, 390.5), entry("session/state", msg.SessionState(session_id="session-1", phase=8), 0.2)])
    ids, data = np.array([0x101, 0x102]), np.arange(16, dtype=np.uint8).reshape(2, 8)
    can = Stream("/can/udp_42000", CAN_FRAMES, CAN_FRAMES_TEXT)
    blob = can_frames(7, "udp:42000", ids, np.array([8, 8], np.uint8), np.array([8, 6], np.uint8), data)
    recorder.write([Entry(can, T0 + S, T0 + S, blob)])
    recorder.close()
    (path,) = recorder.finished
    with AnyReader([path]) as reader:
        messages = {c.topic: (c, reader.deserialize(raw, c.msgtype)) for c, _, raw in reader.messages()}
    assert set(messages) == {"/evse1/power/state", "/evse1/session/state", "/can/udp_42000"}
    assert messages["/evse1/power/state"][1].voltage_v == pytest.approx(390.5)
    assert messages["/evse1/session/state"][1].PHASE_CHARGING == 8
    frames = messages["/can/udp_42000"][1]
    assert list(frames.ids) == [0x101, 0x102] and list(frames.lengths) == [8, 6] and frames.stride == 8
    assert list(frames.data) == list(range(16))
    (qos,) = messages["/evse1/session/state"][0].ext.offered_qos_profiles
    assert (qos.depth, qos.durability.name, qos.reliability.name) == (1, "TRANSIENT_LOCAL", "RELIABLE")


def test_a_session_is_one_file_with_what_came_before_and_after(tmp_path):
    recorder = Recorder(tmp_path, Limits(keep_free_bytes=0))
    recorder.write([entry("power/limits", msg.SupplyLimits(max_power_w=1000.0), -60.0)])
    recorder.write([power(-20.0, 1.0), power(-2.0, 2.0)])
    recorder.session(1, "one", T0)
    recorder.write([power(1.0, 3.0)])
    recorder.session(1, "", T0 + 2 * S)
    recorder.write([power(4.0, 4.0)])
    recorder.tick(T0 + 4 * S)
    assert recorder.finished == []
    recorder.tick(T0 + 6 * S)
    recorder.write([power(7.0, 5.0)])
    (path,) = recorder.finished
    messages = read(path)
    assert messages[0][0] == "/evse1/power/limits"  # latched: its last value, however old
    assert [round(m.voltage_v) for topic, m in messages if topic.endswith("power/state")] == [2, 3, 4]
    recorder.session(1, "two", T0 + 8 * S)
    recorder.close()
    assert len(recorder.finished) == 2


def test_two_evses_keep_their_topics_apart_and_share_the_stations(tmp_path):
    recorder = Recorder(tmp_path, Limits(keep_free_bytes=0))
    recorder.session(1, "one", T0)
    recorder.session(2, "two", T0)
    recorder.write([power(0.1, 1.0, 1), power(0.2, 2.0, 2)])
    recorder.write([entry("/robot/state", msg.RobotState(), 0.3, evse=0)])
    recorder.close()
    topics = {path.name.split("_")[1]: {t for t, _ in read(path)} for path in recorder.finished}
    assert topics == {
        "evse1": {"/evse1/power/state", "/robot/state"},
        "evse2": {"/evse2/power/state", "/robot/state"},
    }


def test_a_large_session_goes_on_in_further_parts_that_begin_with_the_latched(tmp_path):
    recorder = Recorder(tmp_path, Limits(split_bytes=20_000, keep_free_bytes=0))
    recorder.session(1, "one", T0)
    recorder.write([entry("power/limits", msg.SupplyLimits(), 0.0)])
    noise = np.random.default_rng(1)
    count = 8_000
    recorder.write(power(k * 0.01, float(v)) for k, v in enumerate(noise.random(count)))
    recorder.close()
    assert len(recorder.finished) > 2
    parts = [[t for t, _ in read(path)] for path in recorder.finished]
    assert all(topics[0].endswith("power/limits") for topics in parts)
    assert sum(t.endswith("power/state") for topics in parts for t in topics) == count


def test_the_oldest_recordings_make_room(tmp_path):
    for number in range(4):
        old = tmp_path / f"2020010{number}T000000Z_evse1_old.mcap"
        old.write_bytes(bytes(1000))
        import os

        os.utime(old, (number, number))
    recorder = Recorder(tmp_path, Limits(total_bytes=2500, keep_free_bytes=0))
    recorder.tick(T0)
    assert sorted(p.name[:8] for p in tmp_path.glob("*.mcap")) == ["20200102", "20200103"]


class FullDisk:
    """Takes some bytes, then none, until there is room again."""

    def __init__(self, path: Path, room: int) -> None:
        self.file = path.open("wb")
        self.room = room

    def write(self, data: bytes) -> int:
        if self.room < len(data):
            raise OSError(28, "No space left on device")
        self.room -= len(data)
        return self.file.write(data)

    def tell(self) -> int:
        return self.file.tell()

    def flush(self) -> None:
        self.file.flush()

    def close(self) -> None:
        self.file.close()


def test_a_full_disk_is_told_and_survived_and_recording_goes_on_when_there_is_room(tmp_path):
    rooms = [3000, 10**9]
    recorder = Recorder(tmp_path, Limits(keep_free_bytes=0), opener=lambda path: FullDisk(path, rooms.pop(0)))
    recorder.session(1, "one", T0)
    noise = np.random.default_rng(2)
    recorder.write(power(k * 0.001, float(v)) for k, v in enumerate(noise.random(4000)))
    assert recorder.trouble == "No space left on device"
    assert recorder.lost > 0 and recorder.files == []
    recorder.tick(T0 + 60 * S)
    assert len(recorder.files) == 1
    recorder.write([power(61.0)])
    recorder.tick(T0 + 62 * S)
    assert recorder.trouble == ""
    recorder.close()
    assert len(read(recorder.finished[-1])) >= 1


def test_recording_stops_before_the_disk_is_full(tmp_path):
    free = [10_000]
    recorder = Recorder(tmp_path, Limits(keep_free_bytes=5_000), free_bytes=lambda path: free[0])
    recorder.session(1, "one", T0)
    recorder.write([power(0.5)])
    free[0] = 4_000
    recorder.tick(T0 + 2 * S)
    assert recorder.trouble.startswith("disk full")
    assert len(read(recorder.finished[0])) == 1  # closed in order
    free[0] = 10_000
    recorder.tick(T0 + 10 * S)
    assert recorder.trouble == "" and len(recorder.files) == 1
    recorder.close()


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    recorder = Recorder(tmp_path / "file" / "folder", Limits(keep_free_bytes=0))
    recorder.session(1, "one", T0)
    recorder.write([power(0.5)])
    recorder.tick(T0 + 2 * S)
    assert recorder.trouble == "Not a directory"
    recorder.close()


def test_personal_data_is_masked_and_the_rest_is_left():
    link = msg.VehicleLink(identity="020000000001", protocol="iso15118-2")
    assert privacy.mask_message(link) and link.identity == "masked" and link.protocol == "iso15118-2"
    assert not privacy.mask_message(msg.VehicleLink())
    request = msg.BackendRequest(id_token="DEADBEEF", session_id="s")
    assert privacy.mask_message(request) and request.id_token == "masked" and request.session_id == "s"
    status = DiagnosticStatus(values=[KeyValue(key="EVCC id", value="x"), KeyValue(key="id_token", value="x")])
    array = DiagnosticArray(status=[status])
    assert privacy.mask_message(array)
    assert [v.value for v in array.status[0].values] == ["masked", "masked"]
    frame = String(data=json.dumps({"idToken": {"idToken": "T", "type": "RFID"}, "seqNo": 3, "evses": [{"vin": "W"}]}))
    assert privacy.mask_message(frame)
    assert json.loads(frame.data) == {"idToken": "masked", "seqNo": 3, "evses": [{"vin": "masked"}]}
    assert json.loads(privacy.masked_json("<EVCCID>12</EVCCID>")) == {"left out": "no JSON"}


@pytest.mark.parametrize("personal", [False, True])
def test_the_camera_is_listened_to_only_where_personal_data_is_kept(personal):
    class Node:
        def __init__(self) -> None:
            self.topics: list[str] = []

        def create_subscription(self, kind, topic, *_, **__):
            self.topics.append(topic)

    node = Node()
    Listener(node, [1], personal, WallClock())
    assert ("/robot/camera/image/compressed" in node.topics) is personal
    assert {"/robot/joint_states", "/evse1/power/state"} <= set(node.topics)


@pytest.mark.parametrize("name", list(EVSE_TOPICS))
def test_masking_leaves_messages_readable(name):
    kind, _ = EVSE_TOPICS[name]
    message = kind()
    privacy.mask_message(message)
    assert deserialize_message(serialize_message(message), kind) == message
