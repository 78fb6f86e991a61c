"""A typo or an impossible value in a parameter: one line that names it and says what would be right, status 2."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from robot_charger.common.process import PARENT

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


def start(node: str, *parameters: str, namespace: str = "/evse1") -> subprocess.CompletedProcess[str]:
    """Run a node as the command line tool does, until it ends by itself."""
    command = [sys.executable, "-m", f"robot_charger.{node}.node", "--ros-args", "-r", f"__ns:={namespace}"]
    for parameter in parameters:
        command += ["-p", parameter]
    environment = {**os.environ, PARENT: str(os.getpid())}
    environment.pop("ROBOT_CHARGER_SIM", None)
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)


@pytest.mark.parametrize(
    "node, parameter, words",
    [
        ("supervisor", "memori:=x", ["memori", "unknown", "memory"]),
        ("supervisor", "cable.max_current_a:=4000.0", ["cable.max_current_a", "at most 1000 A"]),
        ("supervisor", "protocol:=mcs", ["protocol", "ccs", "chademo"]),
        ("supervisor", "limits.max_replugs:=many", ["limits.max_replugs", "a whole number"]),
        ("pilot", "connector:=usb", ["connector", "ccs2"]),
        ("power", "max_voltage_v:=5000.0", ["max_voltage_v", "at most 1000 V"]),
        ("power", "modules:=0", ["modules", "at least 1"]),
        ("backend", 'version:="3.0"', ["version", "2.0.1"]),
        ("v2g", "vehicle_timeout_ms:=90000", ["vehicle_timeout_ms", "at most 60000 ms"]),
    ],
)
def test_a_wrong_parameter_is_told_in_one_line(node, parameter, words):
    done = start(node, parameter, namespace="/" if node in ("power", "backend") else "/evse1")
    assert done.returncode == 2, done.stderr
    line = done.stderr.strip().splitlines()[-1]
    for word in words:
        assert word in line, line
    assert "Traceback" not in done.stderr
