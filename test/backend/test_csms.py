"""The simulated CSMS as a process and under a person's hand."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from robot_charger.backend.records import Request
from robot_charger.common.wires import WireEnd
from robot_charger.sim.csms.console import Console
from robot_charger.words.values import Phase

from .conftest import SESSION, Live, wait_for


def test_the_console(live: Callable[..., Live]) -> None:
    desk = live()
    desk.online()
    desk.session(Phase.IDLE)
    said: list[str] = []
    console = Console(desk.thread, desk.csms_store, said.append)
    console.run(["start 1 DEADBEEF\n"])
    assert json.loads(said.pop()) == {"status": "Accepted"}
    desk.meter(5.0)
    for phase in (Phase.POSITIONING, Phase.LINKING, Phase.CHARGING):
        desk.session(phase)
    desk.delivered()
    console.run(
        [
            "stop\n",
            "limit 5000\n",
            "limit off\n",
            'call GetVariables {"getVariableData":[]}\n',
            "books\n",
            "stations\n",
            "nonsense\n",
            "fault delay on\n",
            "fault delay off\n",
            "start 1 2 3\n",
            "",
            "log 2\n",
            "quit\n",
            "books\n",
        ]
    )
    assert [json.loads(s)["status"] for s in said[:3]] == ["Accepted"] * 3
    assert "CallRefusedError" in said[3]  # an empty list breaks the schema
    assert SESSION in said[4] and "running" in said[4]
    assert said[5] == "station1 OCPP 2.0.1"
    assert "no command nonsense" in said[6] and said[7:9] == ["delay on", "delay off"]
    assert "wrong number" in said[9] and len(said) == 11


def test_a_limit_of_2_1_is_set_by_hand_and_ends_the_session(live: Callable[..., Live]) -> None:
    desk = live(version="2.1")
    said: list[str] = []
    Console(desk.thread, desk.csms_store, said.append).run(["cap maxEnergy 500\n"])
    assert said == ["transactions: {'maxEnergy': 500.0}"]
    desk.online()
    desk.begin(1000.0)
    wait_for(lambda: [p for p in desk.received("TransactionEvent") if p["triggerReason"] == "LimitSet"])
    desk.meter(1500.0, 50.0)
    wait_for(lambda: [r for r in desk.requests if r.kind == Request.STOP], what="a stop")
    desk.end(1501.0, reason="Remote")
    desk.delivered()
    events = desk.received("TransactionEvent")
    told = [e["transactionInfo"]["transactionLimit"] for e in events if "transactionLimit" in e["transactionInfo"]]
    assert told == [{"maxEnergy": 500.0}]
    assert (events[-1]["triggerReason"], events[-1]["transactionInfo"]["stoppedReason"]) == (
        "EnergyLimitReached",
        "EnergyLimitReached",
    )


def test_cost_ends_a_session_of_2_1_in_its_own_words(live: Callable[..., Live]) -> None:
    desk = live(version="2.1")
    Console(desk.thread, desk.csms_store, lambda text: None).run(["cap maxCost 9.5\n"])
    desk.online()
    desk.begin()
    wait_for(lambda: [p for p in desk.received("TransactionEvent") if p["triggerReason"] == "LimitSet"])
    assert desk.call("CostUpdated", {"transactionId": SESSION, "totalCost": 9.5}) == {}
    wait_for(lambda: [r for r in desk.requests if r.kind == Request.STOP], what="a stop")
    desk.end(reason="Remote")
    desk.delivered()
    end = desk.received("TransactionEvent")[-1]
    assert (end["triggerReason"], end["transactionInfo"]["stoppedReason"]) == ("CostLimitReached", "LocalOutOfCredit")


def test_the_process_speaks_over_the_wires(sim_directory: Path, tmp_path: Path) -> None:
    cli = WireEnd("cli", sim_directory)
    process = subprocess.Popen(
        [sys.executable, "-m", "robot_charger.sim.csms", "--store", str(tmp_path / "c.sqlite")],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(lambda: (sim_directory / "csms.json").exists() and cli.signals("csms"))
        assert json.loads((sim_directory / "csms.json").read_text())["port"] == cli.signals("csms")["port"]
        cli.send("csms", {"fault": "csms-gone", "on": True})
        wait_for(lambda: cli.signals("csms")["gone"])
        cli.send(
            "csms", {"fault": "csms-gone", "on": False, "command": {"number": 1, "name": "remote_start", "evse": 1}}
        )
        wait_for(lambda: cli.signals("csms")["command"] == 1 and not cli.signals("csms")["gone"])
        told = cli.signals("csms")
        assert told["status"] == "failed" and "no station" in told["answer"]
        process.terminate()
        assert process.wait(20.0) == 0
    finally:
        process.kill()
        cli.close()


def test_a_port_in_use_is_one_line_and_exit_status_2(live: Callable[..., Live], tmp_path: Path) -> None:
    desk = live()
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "robot_charger.sim.csms",
            "--port",
            str(desk.csms.port),
            "--store",
            str(tmp_path / "c.sqlite"),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    [line] = done.stderr.strip().splitlines()
    assert "--port" in line
