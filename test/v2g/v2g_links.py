"""The simulated PLC link for tests, and whether this machine allows one in namespaces."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

_PROBE = (
    "from robot_charger.sim.plc import make_namespaces\n"
    "import sys\n"
    "try: make_namespaces()\n"
    "except Exception as error: print(error); sys.exit(1)\n"
)


@cache
def namespaces_refused() -> str:
    """Why a veth pair in namespaces cannot be made here, empty when it can."""
    probe = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True)
    return "" if probe.returncode == 0 else (probe.stdout or probe.stderr).strip()[-200:] or "refused"


def need_namespaces() -> None:
    """Skip loudly where namespaces are refused."""
    reason = namespaces_refused()
    if reason:
        pytest.skip(f"NOT TESTED HERE: network namespaces are refused ({reason})")


@contextlib.contextmanager
def plc(directory: Path, *arguments: str) -> Iterator[dict[str, str]]:
    """A running simulator of the PLC link of EVSE 1; gives plc1.json."""
    environment = {**os.environ, "ROBOT_CHARGER_SIM": str(directory)}
    process = subprocess.Popen(
        [sys.executable, "-m", "robot_charger.sim.plc", "--evse", "1", *arguments], env=environment
    )
    try:
        deadline = time.monotonic() + 15.0
        while not (directory / "plc1.wire").exists():
            assert process.poll() is None and time.monotonic() < deadline, "the PLC simulator did not come up"
            time.sleep(0.01)
        yield json.loads((directory / "plc1.json").read_text())
    finally:
        process.terminate()
        process.wait(30)
