"""Our matcher against ``pev`` of plc-utils (nobody's mock), over a veth pair and the simulated modem.

``make tools`` unpacks Debian's into .tools; one on PATH, or named by ROBOT_CHARGER_PEV, serves too.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from v2g_links import need_namespaces, plc

TOOLS = Path(__file__).parents[2] / ".tools/usr/bin"
PEV = os.environ.get("ROBOT_CHARGER_PEV") or shutil.which("pev", path=f"{TOOLS}:{os.environ.get('PATH', '')}") or ""

# Steps into the vehicle's network and becomes pev; an ordinary user's capabilities are kept by the ambient set.
IN_EV = """
import ctypes, os, sys
from pathlib import Path
from robot_charger.common.plc_link import PlcLink
link = PlcLink.read(Path(os.environ["ROBOT_CHARGER_SIM"]), 1, "ev")
link.join_user()
link.join_network()
libc = ctypes.CDLL(None)
header = (ctypes.c_uint32 * 2)(0x20080522, 0)
data = (ctypes.c_uint32 * 6)()
CAP_NET_RAW = 13
if libc.capget(header, data) == 0:
    data[2] |= 1 << CAP_NET_RAW
    libc.capset(header, data)
    libc.prctl(47, 2, CAP_NET_RAW, 0, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""

IN_EVSE = """
import asyncio, json, os
from pathlib import Path
from robot_charger.common.plc_link import PlcLink
link = PlcLink.read(Path(os.environ["ROBOT_CHARGER_SIM"]), 1, "evse")
link.join_user()
link.join_network()
from robot_charger.v2g.slac import Matcher
async def main():
    matcher = Matcher("1", link.frames(), 0.0)
    for _ in range(2):
        await matcher.set_key()
        print("ready", flush=True)
        match = await matcher.match(20.0)
        print(json.dumps([match.vehicle_mac.hex(), match.seconds]), flush=True)
asyncio.run(main())
"""


@pytest.mark.integration
@pytest.mark.timeout(90)
def test_pev_is_matched_twice(sim_directory: Path) -> None:
    if not PEV:
        pytest.skip("NOT TESTED HERE: pev of plc-utils-extra is not installed: make tools")
    need_namespaces()
    profile = sim_directory / "pev.ini"
    environment = {**os.environ, "ROBOT_CHARGER_SIM": str(sim_directory)}
    with plc(sim_directory):
        # It opens its raw socket even to print its own settings: an ordinary user may do that only in there.
        printing = [sys.executable, "-c", IN_EV, PEV, "-i", "ev0", "-c"]
        template = subprocess.run(printing, env=environment, capture_output=True, text=True, check=True).stdout
        lines = ["settle time = 0" if line.startswith("settle time") else line for line in template.splitlines()]
        profile.write_text("\n".join(lines) + "\n")
        evse = subprocess.Popen([sys.executable, "-c", IN_EVSE], env=environment, stdout=subprocess.PIPE, text=True)
        assert evse.stdout is not None
        try:
            for _ in range(2):
                assert evse.stdout.readline() == "ready\n"
                command = [PEV, "-i", "ev0", "-p", str(profile), "-x"]
                vehicle = subprocess.Popen([sys.executable, "-c", IN_EV, *command], env=environment)
                try:
                    mac, seconds = json.loads(evse.stdout.readline())
                finally:
                    vehicle.kill()
                    vehicle.wait()
                assert mac == "02ec000000e1"
                assert 0.0 < seconds < 10.0
        finally:
            evse.kill()
            evse.wait()
