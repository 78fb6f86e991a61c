"""Recordings are read back whole by programs that share nothing with the one that wrote them.

rosbags always; the command line ``mcap`` where it is installed, ``pymcap-cli`` and the libraries of Foxglove
(npm) where `make tools` brought them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import warnings
from collections import Counter
from pathlib import Path

import made_recordings as made
import numpy as np
import pytest
from rosbags.highlevel import AnyReader
from sensor_msgs.msg import JointState

from robot_charger.common.topics import EVSE_TOPICS, STATION_TOPICS
from robot_charger.operator.definitions import CAN_FRAMES, CAN_FRAMES_TEXT, can_frames
from robot_charger.operator.playback import excerpt
from robot_charger.operator.reading import scan
from robot_charger.operator.recording import Entry, Stream

SOURCE = Path(__file__).resolve().parents[2]
TOOLS = SOURCE / ".tools"
ARM = JointState(name=["a"], position=[1.0], velocity=[0.0], effort=[0.0])  # rclpy pads empty ones, DDS does not
RECORDED = sorted((Path(__file__).parent / "recordings").glob("*.mcap"))


@pytest.fixture(scope="module")
def everything(tmp_path_factory) -> Path:
    """A session, one message of every topic, and CAN frames."""
    entries = list(made.session(charge_s=4.0, rate=20.0))
    end = (entries[-1].log_time - made.T0) / made.S
    for name, (kind, _) in EVSE_TOPICS.items():
        entries.append(made.entry(name, kind(), end))
    for name, (kind, _) in STATION_TOPICS.items():
        entries.append(made.entry(name, ARM if kind is JointState else kind(), end))
    ids, data = np.array([0x102, 0x109]), np.arange(16, dtype=np.uint8).reshape(2, 8)
    lengths, flags = np.array([8, 8], np.uint8), np.zeros(2, np.uint8)
    at = made.T0 + int(end * made.S)
    frames = can_frames(7, "udp:42000", ids, flags, lengths, data)
    entries.append(Entry(Stream("/can/udp_42000", CAN_FRAMES, CAN_FRAMES_TEXT), at, at, frames))
    return made.write(tmp_path_factory.mktemp("everything"), entries)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Path:
    """Of a demo, by the recorder's own process, written anew by the present writer."""
    target = tmp_path_factory.mktemp("recorded") / "again.mcap"
    excerpt(RECORDED[1], target)
    return target


@pytest.fixture(params=["everything", "recorded"])
def recording(request) -> Path:
    return request.getfixturevalue(request.param)


def counts(path: Path) -> dict[str, int]:
    return {name: topic.count for name, topic in scan(path, lambda _: None).topics.items()}


def absent(what: str, remedy: str) -> None:
    warnings.warn(f"SKIPPED: no {what} here ({remedy}), recordings were not read by it", stacklevel=2)
    pytest.skip(f"no {what}: {remedy}")


def run(*command: str | Path) -> str:
    environment = {**os.environ, "TERM": "dumb", "NO_COLOR": "1"}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=100, env=environment)
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-1500:]
    return done.stdout


def test_rosbags_deserialises_every_message(recording):
    seen: Counter[str] = Counter()
    with AnyReader([recording]) as reader:
        for connection, _, raw in reader.messages():
            reader.deserialize(raw, connection.msgtype)
            seen[connection.topic] += 1
    assert seen == counts(recording) and sum(seen.values()) > 1000


def test_the_mcap_command_line_finds_nothing_to_complain_of(recording):
    program = shutil.which("mcap")
    if program is None:
        absent("mcap command line", "a release of the MCAP project, put into PATH")
    run(program, "doctor", recording)
    assert str(sum(counts(recording).values())) in run(program, "info", recording).replace(",", "")


def test_pymcap_finds_nothing_to_complain_of_and_decodes_all(everything):
    program = TOOLS / "mcap/bin/pymcap-cli"
    if not program.exists():
        absent("pymcap-cli", "make tools")
    run(program, "doctor", everything)
    lines = [json.loads(line) for line in run(program, "cat", everything).splitlines()]
    assert Counter(line["topic"] for line in lines) == counts(everything)
    assert all(isinstance(line["message"], dict) for line in lines)


def test_foxgloves_libraries_decode_all(recording):
    modules = TOOLS / "node_modules"
    if not shutil.which("node") or not (modules / "@mcap/core").is_dir():
        absent("reader of Foxglove", "make tools, with node and npm")
    seen = json.loads(run("node", Path(__file__).with_name("read_all.mjs"), recording, modules))
    assert seen["profile"] == "ros2"
    assert seen["topics"] == counts(recording) and seen["promised"] == sum(seen["topics"].values())
    if "/can/udp_42000" in seen["last"]:
        frames = seen["last"]["/can/udp_42000"]
        assert frames["ids"] == [0x102, 0x109] and frames["data"] == list(range(16)) and frames["bus"] == "udp:42000"
