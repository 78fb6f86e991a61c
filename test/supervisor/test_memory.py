"""What a restart of the supervisor finds."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from robot_charger.common.faults import Code
from robot_charger.supervisor import flow, memory
from robot_charger.supervisor.model import Inputs, Limits, Session
from robot_charger.words.values import Link, Phase, Pilot, Purpose, Shutdown, Zone

ID = "11111111-2222-3333-4444-555555555555"


@pytest.mark.parametrize("phase", memory.INTERRUPTED)
def test_an_interrupted_session_is_closed_with_its_id_and_nothing_is_permitted(tmp_path, phase):
    memory.save(tmp_path / "m.json", Session(phase=phase, session_id=ID, mated=True, insulation_passed=True))
    s = memory.load(tmp_path / "m.json", 5.0)
    assert (s.phase, s.session_id, s.mated, s.shutdown) == (Phase.STOPPING, ID, True, Shutdown.ERROR)
    assert s.stop_reason == "PowerLoss" and not s.insulation_passed
    charging = Inputs(
        nodes_ready=True, safety_alive=True, bay_alive=True, occupied=True, immobilised=True, field_clear=True,
        pilot_alive=True, pilot=Pilot.C, power_alive=True, link_alive=True, link=Link.CHARGING, link_session=ID,
        target=Purpose.TRANSFER, target_live=True, robot_alive=True, robot_clear=True,
    )  # fmt: skip
    s, _ = flow.step(s, charging, 5.1, Limits())
    command = flow.command(s, charging, Limits())
    assert command.purpose == Purpose.NONE and command.zone == Zone.NONE


def test_a_plug_left_in_the_vehicle_is_taken_out_after_a_restart(tmp_path):
    memory.save(tmp_path / "m.json", Session(phase=Phase.CHARGING, session_id=ID, mated=True))
    s = memory.load(tmp_path / "m.json", 5.0)
    dead = Inputs(
        nodes_ready=True, safety_alive=True, bay_alive=True, occupied=True, immobilised=True, field_clear=True,
        pilot_alive=True, pilot=Pilot.B, power_alive=True, contactors_closed=False, voltage_v=0.0, current_a=0.0,
        link_alive=True, link=Link.IDLE, robot_alive=True, robot_clear=True, plug_in_inlet=True,
    )  # fmt: skip
    s, _ = flow.step(s, dead, 5.1, Limits())
    assert s.phase == Phase.GRASPED
    s, _ = flow.step(s, replace(dead, goal_grasped=True), 6.0, Limits())
    s, _ = flow.step(s, replace(dead, goal_done=s.goal_number, pilot=Pilot.A), 9.0, Limits())
    assert s.phase == Phase.DEPARTING and s.fault == Code.NODE_LOST


def test_the_latch_survives_and_a_broken_file_counts_as_latched(tmp_path):
    path = tmp_path / "m.json"
    memory.save(path, Session(phase=Phase.UNAVAILABLE, emergency_latched=True))
    assert memory.load(path, 0.0).emergency_latched
    for broken in ("", "{", "[]", json.dumps({"phase": "IDLE"}), json.dumps({"emergency_latched": 0, "phase": "X"})):
        path.write_text(broken)
        assert memory.load(path, 0.0).emergency_latched, broken


def test_nothing_kept_begins_anew(tmp_path):
    assert memory.load(tmp_path / "none.json", 1.0) == Session(since=1.0)
    memory.save(tmp_path / "m.json", Session(phase=Phase.IDLE))
    assert memory.load(tmp_path / "m.json", 1.0) == Session(since=1.0)


def test_past_faults_are_kept_over_a_restart_and_over_a_torn_line(tmp_path):
    path = tmp_path / "m.faults.jsonl"
    history = memory.FaultHistory(path, most=3)
    for code in range(1, 6):
        history.add({"code": code})
    assert [e["code"] for e in memory.FaultHistory(path, most=3).entries] == [3, 4, 5]
    with path.open("a") as file:
        file.write('{"code": 6')
    again = memory.FaultHistory(path, most=3)
    assert [e["code"] for e in again.entries] == [3, 4, 5]
    again.add({"code": 7})
    assert [e["code"] for e in memory.FaultHistory(path, most=3).entries] == [4, 5, 7]
    for code in range(8, 30):
        again.add({"code": code})
    assert len(path.read_text().splitlines()) <= 6, "the file does not grow for ever"
