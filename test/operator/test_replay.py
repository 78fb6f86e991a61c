"""Recorded failures, played at a live supervisor, fail the same way; a changed script is noticed."""

from __future__ import annotations

import dataclasses
import itertools
import threading
import time
from pathlib import Path

import can
import made_recordings as made
import numpy as np
import pytest
import rclpy
from click.testing import CliRunner

from robot_charger import msg
from robot_charger.common.can_bus import open_bus
from robot_charger.common.can_udp import free_block
from robot_charger.operator import playback, replay
from robot_charger.operator.commands import replay as replay_command
from robot_charger.operator.definitions import CAN_FRAMES, CAN_FRAMES_TEXT, can_frames
from robot_charger.operator.playback import Clock, End, Job, Script
from robot_charger.operator.reading import RecordingError
from robot_charger.operator.recording import Entry, Stream

FAILURES = sorted((Path(__file__).parent / "recordings").glob("*.mcap"))
S = 1_000_000_000


def test_there_are_three_failures_to_replay():
    ends = {playback.read_script(path).end for path in FAILURES}
    assert len({end for end in ends if end.fault}) >= 3


@pytest.mark.integration
@pytest.mark.alone
@pytest.mark.timeout(300)
@pytest.mark.parametrize("path", FAILURES, ids=lambda p: p.stem)
def test_a_recorded_failure_fails_the_same_way(path):
    verdict = replay.check(playback.read_script(path))
    assert verdict.same, "\n".join(verdict.lines())


@pytest.mark.integration
@pytest.mark.alone
def test_another_end_is_noticed():
    """The shortest failure without the words that made it fail: it must not be called the same."""
    scripts = [playback.read_script(path) for path in FAILURES]
    script = min(scripts, key=lambda s: s.changes[-1][0] - s.begin)
    changed = dataclasses.replace(script, fault=499)
    verdict = replay.check(changed)
    assert not verdict.same
    assert f"fault {script.fault}, recorded 499" in verdict.lines()


def test_a_script_is_read_from_a_recording(tmp_path):
    script = playback.read_script(made.write(tmp_path, made.session(fault=407)))
    assert script.end == End(
        (*"positioning connecting mated released linking".split(), "cable check", "precharge", "charging", "faulted"),
        407, "Other",
    )  # fmt: skip
    assert [o.job for o in script.outcomes] == [Job.CONNECT, Job.RELEASE]
    assert script.session_id == "5e551011-made" and script.evse == 1
    assert script.definitions["/evse1/power/state"][0] == "robot_charger/msg/SupplyState"


def test_a_recording_of_another_version_plays_the_fields_that_both_know():
    rclpy.init()
    try:
        entry = made.entry("power/state", msg.SupplyState(voltage_v=400.0, session_id="x", text="well"), 0.0)
        older = entry.stream.definition.replace("float32 voltage_v", "float32 volts")
        script = Script(evse=1, session_id="x", said=[playback.Said(made.T0, "/evse1/power/state", entry.data)])
        script.definitions["/evse1/power/state"] = ("robot_charger/msg/SupplyState", older)
        player = replay.Player(script)
        try:
            message = player._message(script.said[0])
        finally:
            player.close()
    finally:
        rclpy.try_shutdown()
    assert message.text == "well" and message.voltage_v == 0.0


def test_the_clock_waits_for_the_live_supervisor():
    script = Script(changes=[(0, "idle"), (1 * S, "positioning"), (2 * S, "connecting")])
    clock = Clock(script)
    grace = playback.GRACE_NS
    assert clock.advance(S, []) == "positioning" or clock.recorded <= S + grace
    assert clock.advance(S, []) == "positioning"
    assert clock.recorded == S + grace - 1
    assert clock.advance(S // 2, ["positioning"]) == ""
    assert clock.advance(S, ["positioning"]) == "connecting" and not clock.done
    assert clock.advance(S, ["positioning", "connecting"]) == "" and clock.done


def test_differences_are_told_in_words():
    recorded = End(("positioning", "connecting", "mated"), 0, "")
    live = End(("positioning", "connecting", "departing"), 601, "Other")
    assert live.differences(recorded) == [
        "phase 3: departing, recorded mated", "fault 601, recorded 0", "stopped by Other, recorded -"]  # fmt: skip
    assert End(("positioning",), 0, "").differences(recorded)[0] == "phase 2: its end, recorded connecting"


def test_a_recording_without_a_session_is_refused(tmp_path):
    path = made.write(tmp_path, [made.entry("pilot/state", msg.PilotState(), 0.0)])
    with pytest.raises(RecordingError, match="no session in it"):
        playback.read_script(path)
    result = CliRunner().invoke(replay_command, [str(path)])
    assert result.exit_code == 2 and result.output.count("\n") == 1


def test_a_long_phase_is_shortened_and_what_was_decided_in_it_is_kept(tmp_path):
    whole, small = made.write(tmp_path, made.session(charge_s=60.0, fault=407)), tmp_path / "small.mcap"
    playback.excerpt(whole, small, longest_s=3.0)
    before, after = playback.read_script(whole), playback.read_script(small)
    assert after.end == before.end
    assert [o.job for o in after.outcomes] == [o.job for o in before.outcomes]
    assert after.authorised_at > 0 or not before.authorised_at
    times = [at for at, _ in after.changes]
    assert all(b - a <= 3.01 * S for a, b in itertools.pairwise(times))
    said = [s.at for s in after.said]
    assert max(b - a for a, b in itertools.pairwise(said)) < S  # no silence where the middle was


def test_a_moment_of_a_phase_that_is_short_stays():
    cuts = playback.Cuts([(0, "positioning"), (10 * S, "connecting"), (12 * S, "mated")], 4.0)
    assert cuts.place(1 * S) == (1 * S, False)
    assert cuts.place(5 * S) == (2 * S, True)
    assert cuts.place(9 * S) == (3 * S, False)
    assert cuts.place(11 * S) == (5 * S, False)
    assert playback.Cuts([(0, "positioning"), (90 * S, "mated")], 0.0).place(50 * S) == (50 * S, False)


def test_an_excerpt_replays_like_the_whole(tmp_path):
    whole = made.write(tmp_path, made.session(fault=407))
    small = tmp_path / "small.mcap"
    playback.excerpt(whole, small)
    a, b = playback.read_script(whole), playback.read_script(small)
    assert (a.end, a.said, a.outcomes, a.changes) == (b.end, b.said, b.outcomes, b.changes)
    assert small.stat().st_size < whole.stat().st_size


def test_recorded_frames_of_the_vehicle_are_sent_again(tmp_path):
    stream = Stream("/can/can1", CAN_FRAMES, CAN_FRAMES_TEXT)
    ids, data = np.array([0x100, 0x108, 0x102]), np.arange(24, dtype=np.uint8).reshape(3, 8)
    entries = [
        Entry(stream, made.T0 + k * S // 100, 0, can_frames(0, "x", ids, np.zeros(3, np.uint8), np.full(3, 8), data))
        for k in range(3)
    ]
    path = made.write(tmp_path, entries)
    port = free_block()
    listener = open_bus(f"udp:{port}")
    heard: list[can.Message] = []
    done = threading.Event()

    def listen() -> None:
        deadline = time.monotonic() + 20
        while len(heard) < 6 and time.monotonic() < deadline:
            frame = listener.recv(0.1)
            if frame:
                heard.append(frame)
        done.set()

    threading.Thread(target=listen, daemon=True).start()
    assert replay.play_can(path, "/can/can1", f"udp:{port}", 0x100, 0x102) == 6
    assert done.wait(25)
    listener.shutdown()
    assert [f.arbitration_id for f in heard] == [0x100, 0x102] * 3
    assert bytes(heard[1].data) == bytes(range(16, 24))
    with pytest.raises(RecordingError, match=r"recorded buses: /can/can1"):
        replay.play_can(path, "/can/can7", f"udp:{port}", 0, 1)
