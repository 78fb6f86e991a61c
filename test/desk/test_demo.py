"""The whole station as a user starts it: one session, each fault, Ctrl-C and kill -9 of the tool."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from robot_charger.sim.csms import books

pytestmark = [pytest.mark.integration, pytest.mark.alone, pytest.mark.timeout(300)]

TOOL = [sys.executable, "-m", "robot_charger.cli"]
FIELDS = {
    "session_id", "protocol", "result", "stop_reason", "energy_wh", "exported_wh", "soc_start", "soc_end", "phases",
    "robot", "slac", "power", "ocpp", "faults", "evse",
}  # fmt: skip


def demo(tmp_path: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Exit status, JSON and output of ``robot-charger demo``."""
    out = tmp_path / "out.json"
    command = [*TOOL, "demo", "--json", str(out), "--logs", str(short_directory(tmp_path)), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=own_domain(), timeout=280)
    document = json.loads(out.read_text()) if out.exists() else {}
    print(done.stdout, done.stderr)
    return done.returncode, document, done.stdout + done.stderr


def short_directory(tmp_path: Path) -> Path:
    """Unix sockets allow 107 characters: pytest's own paths are too long."""
    return Path("/tmp") / f"rc-{os.getpid()}-{abs(hash(tmp_path)) % 100000}"


def own_domain() -> dict[str, str]:
    """The demo takes a DDS domain of its own, not that of this test run."""
    return {k: v for k, v in os.environ.items() if k not in ("ROS_DOMAIN_ID", "ROBOT_CHARGER_SIM")}


def wait_for(condition: Callable[[], Any], seconds: float, tell: Callable[[], object] = str) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"did not happen in time {tell()}")


def test_a_whole_session_and_its_record(tmp_path):
    status, document, output = demo(tmp_path)
    assert status == 0, output
    assert document["result"] == "completed"
    (session,) = document["sessions"]
    assert set(session) >= FIELDS
    assert session["result"] == "completed" and session["stop_reason"] == "StoppedByEV"
    assert session["faults"] == []
    phases = [p["name"] for p in session["phases"]]
    expected = ["connecting", "mated", "linking", "cable_check", "precharge", "charging", "stopping", "disconnecting"]
    assert [p for p in phases if p in expected] == expected
    assert session["energy_wh"] > 100 and session["exported_wh"] == 0
    assert session["soc_end"] > session["soc_start"] > 0
    assert session["slac"]["matched"] and session["slac"]["transport"] == "veth" and session["slac"]["seconds"] < 10
    assert session["robot"]["attempts"] >= 1 and 0 < session["robot"]["max_force_n"] <= 100
    assert session["robot"]["depth_mm"] > 10
    assert session["power"]["modules"] == 46 and session["power"]["peak_current_a"] > 50
    ocpp = session["ocpp"]
    assert ocpp["version"] == "2.0.1" and ocpp["transaction_id"]
    assert ocpp["meter_stop_wh"] - ocpp["meter_start_wh"] == pytest.approx(session["energy_wh"], abs=2)
    assert document["startup_s"] > 0 and document["rss_mb"] > 0


@pytest.mark.parametrize(
    "fault, status, name",
    [
        ("emergency-stop", 1, "emergency_stop"),
        ("csms-gone", 0, "backend_offline"),
        # A minute each: the suite has fifteen. `make test-all` runs them too.
        pytest.param("vehicle-gone", 1, "vehicle_gone", marks=pytest.mark.slow),
        pytest.param("isolation", 1, "insulation", marks=pytest.mark.slow),
        pytest.param("isolation-charging", 1, "insulation_charging", marks=pytest.mark.slow),
        pytest.param("robot-jam", 1, "robot_jam", marks=pytest.mark.slow),
        pytest.param("module-dead", 0, "module_lost", marks=pytest.mark.slow),
    ],
)
def test_a_fault_ends_safely_or_the_session_rightly_goes_on(tmp_path, fault, status, name):
    code, document, output = demo(tmp_path, "--fault", fault)
    assert code == status, output
    (session,) = document["sessions"]
    assert name in [f["name"] for f in session["faults"]], output
    assert session["result"] == ("completed" if status == 0 else "faulted")
    assert session["books"]["agree"], output


def test_a_failed_self_test_is_plugged_in_again_charged_and_billed_once(tmp_path):
    code, document, output = demo(tmp_path, "--fault", "self-test")
    assert code == 0, output
    (session,) = document["sessions"]
    assert [p["name"] for p in session["phases"]].count("connecting") == 2
    assert "insulation_self_test" in [f["name"] for f in session["faults"]] and session["result"] == "completed"
    assert session["books"]["agree"] and session["books"]["billed_wh"] > 50, output


@pytest.mark.slow  # a minute each; their parts are in test/pilot and test/supervisor
@pytest.mark.parametrize("fault, name", [("", ""), ("overdraw", "overcurrent"), ("ventilation", "interlock")])
def test_plain_ac(tmp_path, fault, name):
    """A car that says nothing, by the duty of the pilot alone."""
    code, document, output = demo(tmp_path, "--protocol", "ac", *(["--fault", fault] if fault else []))
    (session,) = document["sessions"]
    assert [f["name"] for f in session["faults"]] == ([name] if name else []), output
    assert code == (1 if fault else 0) and session["books"]["agree"], output
    if not fault:
        assert session["energy_wh"] > 70 and session["power"]["peak_current_a"] == pytest.approx(32.0, abs=0.1)
        assert "cable_check" not in [p["name"] for p in session["phases"]]


@pytest.mark.slow  # a minute each; their parts are in test/robot
@pytest.mark.parametrize("protocol", ["iso15118-2", "acdp"])
def test_the_robot_sees_for_itself(tmp_path, protocol):
    code, document, output = demo(tmp_path, "--camera", "--protocol", protocol)
    assert code == 0, output
    (session,) = document["sessions"]
    assert session["result"] == "completed" and session["books"]["agree"], output


@pytest.mark.slow  # its parts are in test/backend; csms-gone above loses the CSMS in the middle
@pytest.mark.parametrize("version", ["1.6", "2.0.1", "2.1"])
def test_the_csms_absent_for_the_whole_session_and_back_later(tmp_path, version):
    """From the start of the station on: a card is shown, the car charges, and the bill comes when the CSMS does."""
    code, document, output = demo(tmp_path, "--ocpp", version, "--fault", "csms-absent")
    assert code == 0, output
    (session,) = document["sessions"]
    assert session["result"] == "completed" and session["books"]["agree"], output
    (entry,) = books(short_directory(tmp_path) / "csms.sqlite")
    assert entry.version == version and entry.id_token == "ROBOT-CHARGER-DEMO"
    assert entry.offline or version == "1.6"  # which cannot say so
    assert (entry.missing, entry.doubled, entry.disordered) == (0, 0, 0)


@pytest.mark.parametrize(
    "arguments, word",
    [
        (["--protocol", "mcs"], "--protocol"),
        (["--modules", "0"], "--modules"),
        (["--fault", "meteor"], "--fault"),
        (["--json", "/nowhere/out.json"], "--json"),
        (["--protocol", "din", "--tls"], "--tls"),
        (["--protocol", "chademo", "--tls"], "--tls"),
        (["--protocol", "gbt", "--tls"], "--tls"),
        (["--pnc"], "--tls"),
        (["--video", "film.avi"], "--video"),
        (["--protocol", "iso15118-20", "--tls", "--pnc"], "--pnc"),
        (["--protocol", "acdp", "--tls", "--pnc"], "--pnc"),
        (["--protocol", "chademo", "--interface", "eth0"], "--interface"),
        (["--protocol", "ac", "--tls"], "--tls"),
        (["--protocol", "ac", "--fault", "isolation"], "--fault"),
        (["--fault", "overdraw"], "--fault"),
        (["--camera", "--engine", "gazebo"], "--camera"),
    ],
)
def test_bad_usage_names_the_option(tmp_path, arguments, word):
    done = subprocess.run([*TOOL, "demo", *arguments], capture_output=True, text=True, env=own_domain())
    assert done.returncode == 2
    assert word in done.stderr


def descendants(directory: Path) -> list[psutil.Process]:
    """Every process of the run, whoever its parent is now."""
    found = []
    for process in psutil.process_iter(["environ"]):
        if (process.info["environ"] or {}).get("ROBOT_CHARGER_SIM") == str(directory):
            found.append(process)
    return found


def energised(directory: Path) -> bool:
    """The log of the supervisor says that energy flows."""
    log = directory / "evse1_supervisor.log"
    return log.exists() and "-> CHARGING" in log.read_text()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill -9"])
def test_nothing_is_left_running_after_the_tool_ends(tmp_path, how):
    directory = short_directory(tmp_path)
    command = [*TOOL, "demo", "--logs", str(directory)]
    tool = subprocess.Popen(command, env=own_domain(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        wait_for(lambda: energised(directory), 120)
        tool.send_signal(how)
        tool.wait(20)
        wait_for(lambda: not descendants(directory), 15, lambda: [p.cmdline() for p in descendants(directory)])
    finally:
        tool.kill()
    if how == signal.SIGINT:
        assert tool.returncode == 130
    truth = json.loads((directory / "rack_end.json").read_text()) if (directory / "rack_end.json").exists() else {}
    assert not truth.get("energised", False)
