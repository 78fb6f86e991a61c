"""Whole sessions, SECC against EVCC, over a veth pair: a plain supply and supervisor, no ROS."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from v2g_links import need_namespaces, plc

from robot_charger.common.faults import Code

DESK = str(Path(__file__).with_name("v2g_desk.py"))

pytestmark = [pytest.mark.integration, pytest.mark.timeout(90)]


def run(directory: Path, secc: dict[str, Any], *cars: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The SECC's and the cars' results; cars come one after the other."""
    need_namespaces()
    environment = {**os.environ, "ROBOT_CHARGER_SIM": str(directory)}
    with plc(directory):
        station = subprocess.Popen(
            [sys.executable, DESK, "secc", json.dumps(secc)], env=environment, stdout=subprocess.PIPE
        )
        try:
            results = []
            for car in cars:
                done = subprocess.run(
                    [sys.executable, DESK, "evcc", json.dumps(car)],
                    env=environment,
                    stdout=subprocess.PIPE,
                    timeout=60,
                    check=True,
                )
                results.append(json.loads(done.stdout))
            output, _ = station.communicate(timeout=60)
            return json.loads(output), results
        finally:
            station.kill()
            station.wait()


def test_iso15118_2(sim_directory: Path) -> None:
    station, (car,) = run(sim_directory, {}, {})
    (session,) = station["sessions"]
    assert car["result"] == "ended", car
    assert (session["phase"], session["error"]) == ("ENDED", 0), session["text"]
    assert session["protocol"] == "iso15118-2"
    wanted = ["MATCHING", "LINKED", "SESSION", "PARAMETERS", "CABLE_CHECK", "PRECHARGE", "CHARGING", "STOPPING"]
    assert [p for p in session["phases"] if p in wanted] == wanted
    assert session["max_current_a"] == 120.0
    assert session["purpose"] == 0
    assert session["vehicle_max_voltage_v"] == 450.0
    assert session["match_seconds"] < 10.0
    assert station["values"]["SLAC attenuation by group [dB]"] == " ".join(["10"] * 58)
    assert station["reports"] == []
    assert session["identity"] == ""  # nobody asked to publish who it is


@pytest.mark.parametrize(
    ("protocol", "name"), [("din", "din70121"), ("iso15118-20", "iso15118-20")], ids=["DIN 70121", "ISO 15118-20 DC"]
)
def test_other_protocols(sim_directory: Path, protocol: str, name: str) -> None:
    station, (car,) = run(sim_directory, {}, {"protocol": protocol})
    (session,) = station["sessions"]
    assert car["result"] == "ended", (car, session)
    assert (session["phase"], session["protocol"]) == ("ENDED", name)
    assert session["max_current_a"] == 120.0
    assert session["soc"] == 40.0
    assert not session["bidirectional"]


def test_iso15118_20_dynamic_control(sim_directory: Path) -> None:
    """The station chooses the current: the smallest of its own limits and the vehicle's."""
    car = {"protocol": "iso15118-20", "options": {"dynamic": True}, "car": {"requested_current_a": 90.0}}
    station, (result,) = run(sim_directory, {}, car)
    (session,) = station["sessions"]
    assert result["result"] == "ended", (result, session)
    assert session["max_current_a"] == 90.0


def test_segments_cut_anywhere(sim_directory: Path) -> None:
    station, (car,) = run(sim_directory, {}, {"options": {"split": True}, "car": {"charge_s": 0.5}})
    assert car["result"] == "ended", car
    assert station["sessions"][0]["messages_bad"] == 0


def test_iso15118_20_bidirectional(sim_directory: Path) -> None:
    car = {"protocol": "iso15118-20-bpt", "car": {"requested_current_a": -50.0}}
    station, (result,) = run(sim_directory, {"export_a": 60.0}, car)
    (session,) = station["sessions"]
    assert result["result"] == "ended", (result, session)
    assert session["bidirectional"]
    assert session["min_current_a"] == -50.0
    assert session["max_current_a"] == 0.0


def test_no_export_without_a_supply_that_can(sim_directory: Path) -> None:
    station, _ = run(sim_directory, {}, {"protocol": "iso15118-20-bpt", "car": {"requested_current_a": -50.0}})
    (session,) = station["sessions"]
    assert not session["bidirectional"]  # DC_BPT was not offered


def test_two_sessions_without_a_restart(sim_directory: Path) -> None:
    station, cars = run(sim_directory, {"sessions": 2}, {}, {"car": {"charge_s": 0.5}})
    assert [car["result"] for car in cars] == ["ended", "ended"], cars
    assert [session["phase"] for session in station["sessions"]] == ["ENDED", "ENDED"]
    assert station["values"]["PLC keys set"] >= 2


def test_plugged_in_again_in_the_same_session(sim_directory: Path) -> None:
    """As after a failed self-test of the insulation monitor: a new conversation, no new session."""
    short = {"car": {"charge_s": 0.3}}
    station, cars = run(sim_directory, {"sessions": 2, "replug": True}, short, short)
    assert [car["result"] for car in cars] == ["ended", "ended"], cars
    assert "CHARGING" in station["sessions"][1]["phases"]


def test_the_station_stops_the_transfer(sim_directory: Path) -> None:
    station, (car,) = run(sim_directory, {"stop_after_s": 0.7}, {"car": {"charge_s": 60.0}})
    assert car["result"] == "ended", car
    assert station["sessions"][0]["phase"] == "ENDED", station


def test_an_emergency_closes_the_connection(sim_directory: Path) -> None:
    station, _ = run(
        sim_directory,
        {"stop_after_s": 0.7, "shutdown": 3, "timeout_s": 20.0},
        {"car": {"charge_s": 60.0}, "options": {"stop_at": "CurrentDemandReq"}, "timeout_s": 8.0},
    )
    assert station["sessions"][0]["phase"] in ("ENDED", "FAILED")
    assert station["sessions"][0]["purpose"] == 0


def test_authorization_refused(sim_directory: Path) -> None:
    station, (car,) = run(sim_directory, {"authorization": "refused"}, {})
    assert car["result"] == "failed"
    assert "FAILED" in car["text"]
    (session,) = station["sessions"]
    assert (session["phase"], session["error"]) == ("FAILED", Code.AUTHORIZATION)
    assert "CABLE_CHECK" not in session["phases"]


def test_insulation_fault(sim_directory: Path) -> None:
    station, (car,) = run(sim_directory, {"insulation": "fault"}, {})
    assert car["result"] == "failed"
    (session,) = station["sessions"]
    assert (session["phase"], session["error"]) == ("FAILED", Code.INSULATION)
    assert session["max_current_a"] == 0.0


def test_a_vehicle_that_falls_silent_in_the_charge_loop(sim_directory: Path) -> None:
    secc = {"parameters": {"vehicle_timeout_ms": 500}}
    car = {"options": {"stop_at": "CurrentDemandReq"}}
    station, _ = run(sim_directory, secc, car)
    (session,) = station["sessions"]
    assert (session["phase"], session["error"]) == ("FAILED", Code.V2G_SILENT), session["text"]
    assert session["purpose"] == 0
    assert station["reports"] == ["V2G_SILENT"]


def test_the_charge_loop_time_out_of_20(sim_directory: Path) -> None:
    """V2G_SECC_Sequence_Timeout of the charge loop, 0.5 s (the package would wait a minute)."""
    car = {"protocol": "iso15118-20", "options": {"stop_at": "DC_ChargeLoopReq"}}
    station, _ = run(sim_directory, {}, car)
    (session,) = station["sessions"]
    assert (session["phase"], session["error"]) == ("FAILED", Code.V2G_SILENT), session["text"]
    assert "within 0.5 s after DC_ChargeLoopReq" in session["text"]


def test_a_back_end_limit_reaches_the_vehicle(sim_directory: Path) -> None:
    station, (car,) = run(sim_directory, {"limit_a": 33.0}, {"options": {}, "car": {"charge_s": 2.0}})
    assert station["sessions"][0]["phase"] == "ENDED"
    assert car["limits_a"][0] == 150.0
    assert car["limits_a"][-1] == 33.0


@pytest.mark.parametrize("protocol", ["iso15118-2", "iso15118-20"])
def test_a_pause_and_what_comes_after(sim_directory: Path, protocol: str) -> None:
    """The vehicle pauses, and comes back over the same link to the same session: no SLAC, all checks anew."""
    car = {"protocol": protocol, "options": {"pause": True}, "again": {}}
    station, (vehicle,) = run(sim_directory, {"resumes": True}, car)
    (session,) = station["sessions"]
    assert vehicle["result"] == "ended", vehicle
    again = vehicle["again"]
    assert (again["result"], again["setup"]) == ("ended", "OK_OldSessionJoined"), again
    assert again["session_id"] == vehicle["session_id"]
    phases = session["phases"]
    assert phases.count("MATCHING") == 1 and phases.count("CABLE_CHECK") == 2
    assert phases[-1] == "ENDED" and "PAUSED" in phases


def test_a_vehicle_that_begins_slac_anew_after_the_match(sim_directory: Path) -> None:
    """It came as far as discovery, and starts over: matched again, no fault."""
    car = {"options": {"tls": True}, "again": {"slac": True}}  # the station has no TLS: the vehicle turns away
    station, (vehicle,) = run(sim_directory, {}, car)
    assert "answered with no TLS" in vehicle["text"] and vehicle["again"]["result"] == "ended", vehicle
    (session,) = station["sessions"]
    assert session["phases"].count("MATCHING") == 2 and "FAILED" not in session["phases"], session["phases"]
    assert station["reports"] == []


@pytest.mark.parametrize("protocol", ["iso15118-2", "iso15118-20"])
def test_slac_anew_after_a_pause(sim_directory: Path, protocol: str) -> None:
    """A vehicle that lost the network in its sleep joins the same session all the same."""
    car = {"protocol": protocol, "options": {"pause": True}, "again": {"slac": True}}
    station, (vehicle,) = run(sim_directory, {"resumes": True}, car)
    again = vehicle["again"]
    assert (again["result"], again["setup"]) == ("ended", "OK_OldSessionJoined"), again
    phases = station["sessions"][0]["phases"]
    assert phases.count("MATCHING") == 2 and phases[-1] == "ENDED" and "FAILED" not in phases


def test_another_session_after_a_pause_joins_nothing(sim_directory: Path) -> None:
    car = {"options": {"pause": True}, "again": {"resume": "0102030405060708"}}
    _, (vehicle,) = run(sim_directory, {"resumes": True}, car)
    assert (vehicle["again"]["result"], vehicle["again"]["setup"]) == ("ended", "OK_NewSessionEstablished")
    assert vehicle["again"]["session_id"] not in (vehicle["session_id"], "0102030405060708")


def test_a_pulse_of_the_pilot_lets_the_vehicle_match_again(sim_directory: Path) -> None:
    car = {"behaviour": {"stop_after": "sounds"}, "again": {"slac": True}, "sleeps": True}
    station, (vehicle,) = run(sim_directory, {"wakes": True, "parameters": {"slac.timeout_s": 2.0}}, car)
    assert "SLAC" in vehicle["text"] and vehicle["again"]["result"] == "ended", vehicle
    (session,) = station["sessions"]
    phases = session["phases"]
    assert phases.count("MATCHING") >= 2 and phases[-1] == "ENDED", phases
    assert phases[phases.index("FAILED") : -1].count("MATCHING") >= 1


def test_a_message_out_of_order(sim_directory: Path) -> None:
    options = {"leave_at": "ServiceDiscoveryReq", "leave_by": "misplaced"}
    station, (car,) = run(sim_directory, {}, {"options": options})
    assert car["result"] == "failed"
    assert "CableCheckRes" in car["text"], car  # it was answered, with FAILED_SequenceError
    (session,) = station["sessions"]
    assert (session["phase"], session["error"]) == ("FAILED", Code.V2G_SEQUENCE), session
    assert session["messages_bad"] == 1


@pytest.mark.parametrize("protocol", ["din", "iso15118-2", "iso15118-20"])
def test_a_link_lost_in_the_transfer_is_matched_again(sim_directory: Path, protocol: str) -> None:
    """The carrier goes: nothing is asked for any more; the next session matches anew over the same link."""
    vehicle = {"protocol": protocol, "car": {"charge_s": 9.0}, "timeout_s": 8.0}
    again = {"protocol": protocol, "car": {"charge_s": 0.3}}
    patient = {"vehicle_timeout_20_ms": 5000}  # a vehicle that this computer makes late is not the point
    options = {"cut_after_s": 0.5, "sessions": 2, "parameters": patient}
    station, (lost, found) = run(sim_directory, options, vehicle, again)
    first, second = station["sessions"]
    assert (first["phase"], first["error"], first["purpose"]) == ("FAILED", Code.LINK_LOST, 0), first
    assert first["text"] == "the PLC link to the vehicle is gone"
    assert lost["result"] != "ended"
    assert (found["result"], second["phase"]) == ("ended", "ENDED"), (found, second)
    assert "MATCHING" in second["phases"]


def test_no_vehicle(sim_directory: Path) -> None:
    station, _ = run(sim_directory, {"parameters": {"slac.timeout_s": 1.0}})
    (session,) = station["sessions"]
    assert (session["phase"], session["error"]) == ("FAILED", Code.SLAC_FAILED)


def test_garbage_and_a_second_connection(sim_directory: Path) -> None:
    station, (car,) = run(sim_directory, {}, {"rude": True, "car": {"charge_s": 2.0}, "behaviour": {"garbage": True}})
    assert car["result"] == "ended", car
    assert car["second"] == "refused"
    (session,) = station["sessions"]
    assert session["phase"] == "ENDED"
    values = station["values"]
    assert values["SLAC frames bad"] > 0
    assert values["SDP bad"] >= 50
    assert values["SDP dropped"] > 0
    assert values["connections refused"] == 1
