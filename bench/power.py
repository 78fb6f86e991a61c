"""What a control cycle costs, how late it runs, and how fast it answers. ``python bench/power.py --json FILE``

For 46, 303 and 909 modules on their buses: the simulated rack and safety controller are processes of their own, the
control loop runs in a process like the node's without ROS, and its CPU time per module and cycle is measured end to
end: frames in, decode, judge, share, frames out. The plain way does the same on the same bus with cantools and one
can.Message per frame. Latencies: from a target handed to the control until the set-point frame that carries it is
heard on the bus, and from the E-stop frame on the bus until the zero frame.

Accuracy: control, modules and vehicle in injected time; every module misses its set-point by 1 % of its rating, up or
down, and by 0.5 % of the current. ``got_a`` is what the vehicle gets five seconds after the current was reached,
``worst`` the largest error on the way there as a share of what IEC 61851-23 allows (2.5 A below 50 A, 5 % above).
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import itertools
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import cantools
import numpy as np

from robot_charger.common.can_bus import expand, frame_port, open_bus
from robot_charger.common.can_udp import free_block
from robot_charger.common.clock import now_ns
from robot_charger.common.wires import RUN_DIRECTORY, WireEnd
from robot_charger.power import busload, codec
from robot_charger.power.contract import CONTRACTS
from robot_charger.power.control import Control
from robot_charger.power.loop import PERIOD_S, ControlLoop
from robot_charger.power.output import Mode
from robot_charger.power.parameters import PowerParameters
from robot_charger.sim.rack.habits import of_contract
from robot_charger.words.values import ChargePermit, Pilot, PilotState, Purpose, VehicleTarget

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "test" / "power"))
import power_desk

BANKS = {46: 1, 303: 5, 909: 13}
ACCURACY = (  # protocol, modules, buses, currents
    ("ek3", 1, 1, (2.0,)),
    ("ek3", 3, 1, (2.0, 20.0)),
    ("ek3", 46, 1, (2.0, 20.0, 200.0)),
    ("infypower", 3, 1, (2.0, 100.0)),
    ("uugreen", 3, 1, (2.0, 100.0)),
    ("winline", 3, 1, (2.0, 100.0)),
)
OFFSET = 0.01
DBC = Path(__file__).parents[1] / "config" / "ek3.dbc"


class Desk:
    """Rack and safety controller as processes, the control loop here, one vehicle that takes what it is given."""

    patience_s = 30.0

    def __init__(self, modules: int, buses: int, directory: Path) -> None:
        self.modules = modules
        self.bus = f"udp:{free_block(buses)}*{buses}"
        self.parameters = PowerParameters(
            modules=modules, cable_max_current_a=[3000.0], desk_grace_ms=300.0, meter__kind="none"
        )
        environment = {**os.environ, RUN_DIRECTORY: str(directory)}
        module = [sys.executable, "-m"]
        rack = [*module, "robot_charger.sim.rack", "--bus", self.bus, "--modules", str(modules)]
        safety = [*module, "robot_charger.sim.safety", "--bus", self.bus]
        self.processes = [subprocess.Popen(c, env=environment) for c in (rack, safety)]
        self.wire = WireEnd("vehicle1", directory)
        self.cli = WireEnd("cli", directory)
        while not (directory / "rack.wire").exists() or not (directory / "safety.wire").exists():
            time.sleep(0.01)
        self.ports = [frame_port(open_bus(name)) for name in expand(self.bus)]
        self.control = Control(self.parameters, buses)
        self.loop = ControlLoop(self.control, self.ports)
        self.purpose, self.current_a, self.contactor = Purpose.NONE, 0.0, False
        self.number = 1
        self._stop = threading.Event()
        self._voice = threading.Thread(target=self._speak, daemon=True)
        self._voice.start()
        gc.collect()
        gc.freeze()
        self.loop.start()

    def _speak(self) -> None:
        while not self._stop.wait(0.05):
            self.say()

    def say(self) -> None:
        now = now_ns()
        volts = 360.0 if self.purpose == Purpose.PRECHARGE else 420.0
        car = {"connected": True, "contactor": self.contactor, "emf_v": 360.0, "resistance_ohm": 0.01}
        self.wire.send("rack", car)
        self.wire.send("safety", {"occupied": True, "immobilised": True, "insulation_ohm": 2e6})
        control = self.control
        control.hear(1, PilotState(now, Pilot.C))
        control.hear(1, ChargePermit(now, self.number, "s", self.purpose, False, 500.0, 0.0, 3000.0, 0.0, 3e6))
        self.target(now, volts)

    def target(self, now: int, volts: float) -> None:
        self.number += 1
        self.control.hear(
            1,
            VehicleTarget(
                now, self.number, "s", "plain", self.purpose, volts, self.current_a, 440.0, 3000.0, 3e6, now, 1000
            ),
        )

    @property
    def output(self) -> Any:
        return self.control.channels[1].snapshot

    def until(self, condition: Any) -> None:
        deadline = time.monotonic() + self.patience_s
        while not condition():
            if time.monotonic() > deadline:
                raise SystemExit(f"bench: {self.modules} modules did not get there: {self.output}")
            time.sleep(0.005)

    def charge(self) -> None:
        self.until(lambda: self.control.bank.healthy.all() and self.control.safety_alive)
        while self.output.insulation != 2 or self.output.mode != Mode.OFF:  # again if the machine's load broke it
            self.purpose = Purpose.INSULATION_TEST
            self.until(lambda: self.output.mode == Mode.INSULATION_TEST)
            self.until(lambda: self.output.mode != Mode.INSULATION_TEST)
            self.purpose = Purpose.NONE
            self.until(lambda: self.output.mode == Mode.OFF)
        self.purpose = Purpose.PRECHARGE
        self.until(lambda: self.output.mode == Mode.PRECHARGE and abs(self.output.voltage_v - 360) < 20)
        self.contactor, self.purpose, self.current_a = True, Purpose.TRANSFER, 50.0
        self.until(lambda: self.output.mode == Mode.TRANSFER and self.output.current_a > 45.0)

    def measure(self, seconds: float) -> dict[str, Any]:
        """CPU of the control thread per module and cycle, share of a core, missed cycles."""
        clock = time.pthread_getcpuclockid(self.loop._thread.ident or 0)
        cycles, missed, cpu, wall = self.control.cycles, self.loop.missed, time.clock_gettime(clock), time.monotonic()
        time.sleep(seconds)
        cpu = time.clock_gettime(clock) - cpu
        wall = time.monotonic() - wall
        done = self.control.cycles - cycles
        return {
            "cpu_us_per_module_cycle": round(cpu * 1e6 / done / self.modules, 3),
            "core_share": round(cpu / wall, 4),
            "missed_cycles": self.loop.missed - missed,
            "cycles": done,
            "buses": len(self.ports),
            "bus_load": round(busload.worst(self.parameters, len(self.ports), self.control.groups), 3),
        }

    def target_latency_ms(self, count: int, moments: random.Random) -> list[float]:
        """From a target handed over until its set-point is on the bus."""
        listener = frame_port(open_bus(expand(self.bus)[0]))
        samples = []
        for _ in range(count):
            time.sleep(moments.uniform(0.02, 0.04))  # at every place in the cycle
            listener.read()
            before = round(float(self.control.bank.command_a[0]), 2)
            self.current_a = 60.0 if self.current_a < 55.0 else 50.0
            start = time.monotonic()
            self.target(now_ns(), 420.0)
            if _heard(listener, lambda amperes, b=before: abs(amperes - b) > 0.009):  # type: ignore[misc]
                samples.append((time.monotonic() - start) * 1e3)
        listener.close()
        return samples

    def estop_latency_ms(self) -> float:
        """From the first safety frame with E-stop on the bus until the first zero set-point."""
        listener = frame_port(open_bus(expand(self.bus)[0]))
        listener.read()
        self.cli.send("safety", {"fault": "emergency-stop", "on": True})
        seen = None
        deadline = time.monotonic() + 2.0
        while time.monotonic() < deadline:
            for batch in listener.read():
                now = time.monotonic()
                if seen is None and (batch.ids == codec.SAFETY_ID).any():
                    at = int(np.flatnonzero(batch.ids == codec.SAFETY_ID)[0])
                    status = codec.SafetyStatus.decode(batch.data[at, : batch.lengths[at]].tobytes())
                    if status and status.bits & codec.Safety.EMERGENCY_STOP:
                        seen = now
                if seen is not None and any(a == 0.0 for a in _currents(batch)):
                    listener.close()
                    return (now - seen) * 1e3
            time.sleep(0.0001)
        raise SystemExit("bench: no zero frame after E-stop")

    def rearm(self) -> None:
        """Back to charging after an E-stop."""
        self.purpose, self.contactor = Purpose.NONE, False
        self.number += 1
        self.cli.send("safety", {"fault": "emergency-stop", "on": False})
        self.cli.send("safety", {"reset": True})
        self.until(lambda: self.output.mode == Mode.OFF)
        self.purpose = Purpose.PRECHARGE
        self.until(lambda: self.output.mode == Mode.PRECHARGE and abs(self.output.voltage_v - 360) < 20)
        self.contactor, self.purpose, self.current_a = True, Purpose.TRANSFER, 50.0
        self.until(lambda: self.output.mode == Mode.TRANSFER and self.output.current_a > 45.0)

    def close(self) -> None:
        self.loop.stop()
        self._stop.set()
        self._voice.join()
        for process in self.processes:
            process.terminate()
            process.wait()
        for port in self.ports:
            port.close()
        self.wire.close()
        self.cli.close()


def _currents(batch: Any) -> list[float]:
    """Set-point of the first module in each set-point frame."""
    found = []
    for i in np.flatnonzero(batch.ids >> 8 == 2).tolist():
        if batch.ids[i] in (codec.SETPOINT_ID + 1, codec.GROUP_ID):
            raw = batch.data[i, 2:4].tobytes()
            found.append(int.from_bytes(raw, "little", signed=True) * codec.AMPERE)
    return found


def _heard(listener: Any, wanted: Any) -> bool:
    deadline = time.monotonic() + 0.2
    while time.monotonic() < deadline:
        if any(wanted(a) for batch in listener.read() for a in _currents(batch)):
            return True
        time.sleep(0.0001)
    return False


def plain_us(modules: int, buses: int, cycles: int = 60) -> float:
    """CPU [us] per module and cycle of the plain way: cantools and one can.Message per frame, on the same bus."""
    import can

    database = cantools.database.load_file(DBC)
    status, setpoint = database.get_message_by_name("ModuleStatus"), database.get_message_by_name("ModuleSetpoint")
    with contextlib.ExitStack() as stack:
        names = expand(f"udp:{free_block(buses)}*{buses}")
        ours = [stack.enter_context(open_bus(n)) for n in names]
        theirs = [stack.enter_context(open_bus(n)) for n in names]
        per_bus = -(-modules // buses)
        frame = np.zeros(1, codec.STATUS)
        spent = 0.0
        for _ in range(cycles):
            for bus in theirs:
                data = np.repeat(frame.view(np.uint8).reshape(1, 16), per_bus, 0)
                bus.send_batch(codec.STATUS_ID + 1 + np.arange(per_bus), data)  # type: ignore[attr-defined]
            start = time.thread_time()
            total = 0.0
            for bus in ours:
                for _ in range(per_bus):
                    message = bus.recv(1.0)
                    total += status.decode(message.data)["Voltage"]
                for address in range(1, per_bus + 1):
                    values = {"Voltage": 400.0, "Current": 5.0, "Enable": 1, "ClearFaults": 0, "Counter": 1, "Crc": 0}
                    data = setpoint.encode(values, strict=False)
                    values["Crc"] = codec.crc(codec.SETPOINT_ID + address, data[:6])
                    bus.send(
                        can.Message(
                            arbitration_id=codec.SETPOINT_ID + address,
                            is_extended_id=False,
                            is_fd=True,
                            bitrate_switch=True,
                            data=setpoint.encode(values, strict=False),
                        )
                    )
            spent += time.thread_time() - start
            for bus in theirs:
                bus.recv_batch(0.0)  # type: ignore[attr-defined]
    return spent * 1e6 / cycles / (per_bus * buses)


def percentiles(samples: list[float]) -> dict[str, float]:
    return {"p50": round(float(np.percentile(samples, 50)), 2), "p99": round(float(np.percentile(samples, 99)), 2)}


def accuracy(banks: list[int]) -> list[dict[str, Any]]:
    """Rows of the accuracy table; the large bank only where it is asked for."""
    rows = []
    large = (("ek3", 909, 13, (2.0, 20.0, 300.0)),) if 909 in banks else ()
    for (protocol, modules, buses, currents), sign in itertools.product((*ACCURACY, *large), (1, -1)):
        own = of_contract(CONTRACTS[protocol])
        habits = dataclasses.replace(own, offset=sign * OFFSET, gain=0.005)
        if protocol == "ek3":
            limits = {"cable_max_current_a": [3000.0], "precharge__timeout_s": 10.0}
            desk = power_desk.Desk(modules, buses=buses, habits=habits, **limits)
        else:
            desk = power_desk.real(protocol, modules, habits)
        for asked, got, worst in power_desk.follow(desk, currents):
            row = {"protocol": protocol, "modules": modules, "offset_pct": sign * OFFSET * 100}
            rows.append({**row, "asked_a": asked, "got_a": got, "worst": worst})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seconds", type=float, default=10.0, help="of measuring per bank")
    parser.add_argument("--banks", type=int, nargs="+", choices=sorted(BANKS), default=sorted(BANKS), help="modules")
    parser.add_argument("--patience", type=float, default=30.0, help="for a bank to get there [s], on a busy machine")
    parser.add_argument("--samples", type=int, default=100, help="of target latency")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of targets and stops")
    parser.add_argument("--stops", type=int, default=20, help="samples of E-stop latency")
    arguments = parser.parse_args()
    sys.setswitchinterval(0.0005)
    moments = random.Random(arguments.seed)
    Desk.patience_s = arguments.patience
    result: dict[str, Any] = {"banks": {}, "load_average": round(os.getloadavg()[0], 1)}
    for modules in arguments.banks:
        buses = BANKS[modules]
        with tempfile.TemporaryDirectory(prefix="rc-", dir="/tmp") as directory:
            desk = Desk(modules, buses, Path(directory))
            try:
                desk.charge()
                result["banks"][str(modules)] = desk.measure(arguments.seconds)
                if modules == 46:
                    result["target_to_frame_ms"] = percentiles(desk.target_latency_ms(arguments.samples, moments))
                    stops = []
                    for _ in range(arguments.stops):
                        time.sleep(moments.uniform(0.0, 0.02))
                        stops.append(desk.estop_latency_ms())
                        desk.rearm()
                    result["estop_to_frame_ms"] = percentiles(stops)
                result["realtime"] = desk.loop.realtime
            finally:
                desk.close()
    result["accuracy"] = accuracy(arguments.banks)
    largest = max(arguments.banks)
    plain = plain_us(largest, BANKS[largest], 20)
    result["plain_cpu_us_per_module_cycle"] = round(plain, 2)
    result["ratio_to_plain"] = round(plain / result["banks"][str(largest)]["cpu_us_per_module_cycle"], 1)
    result["cycle_ms"] = PERIOD_S * 1e3
    result["machine"] = (
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    )
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
