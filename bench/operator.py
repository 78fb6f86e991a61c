"""What recording costs and how fast a report is: ``python bench/operator.py [--json FILE] [--seed S]``.

Runs the recorder as a process of its own beside a publisher that says what a station of 46 modules says, at its
rates, CAN frames too; then makes an hour's session and a file of 1 GB and lets ``robot-charger report`` read them.
JSON keys: ``record`` {core_percent (of one core, user and system), rss_mb, messages_s, can_frames_s, lost}, ``hour``
and ``large`` {megabytes, messages, seconds (wall), cpu_s, rss_mb, page_mb}. Targets: 10 %, 10 s, and for the large one
memory that does not grow with the file.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MB = 1024 * 1024
S = 1_000_000_000
T0 = 1_790_000_000 * S
CAN_PERIOD_S = 0.01
# Messages a second of a charging station with one EVSE, as recorded from the demo.
RATES = {
    "power/state": 25.0,
    "vehicle/target": 20.0,
    "power/permit": 20.0,
    "pilot/state": 12.5,
    "vehicle/link": 10.0,
    "bay/state": 10.0,
    "session/state": 5.0,
    "power/meter": 5.0,
    "power/limits": 2.0,
    "backend/limit": 1.0,
    "v2g/record": 20.0,
    "/robot/joint_states": 100.0,
    "/robot/wrench": 100.0,
    "/robot/state": 20.0,
    "/safety/state": 20.0,
    "/robot/inlet_pose": 10.0,
    "/diagnostics": 8.0,
    "/backend/state": 2.0,
    "/power/modules": 2.0,
}


def kind_of(name: str) -> tuple[type, Any]:
    from std_msgs.msg import String

    from robot_charger.common.topics import EVENTS, EVSE_TOPICS, STATION_TOPICS

    return {**EVSE_TOPICS, **STATION_TOPICS}.get(name, (String, EVENTS))


def full_name(name: str) -> str:
    return name if name.startswith("/") else f"/evse1/{name}"


class Words:
    """Messages with values that change, so that they do not compress to nothing."""

    def __init__(self, modules: int, seed: int) -> None:
        self.modules = modules
        self.chance = random.Random(seed)

    def of(self, name: str, t: float, phase: int) -> Any:
        """What ``name`` says ``t`` seconds into the session."""
        from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

        from robot_charger import msg
        from robot_charger.common.topics import fill

        kind, _ = kind_of(name)
        message = kind()
        noise = self.chance.gauss(0.0, 0.2)
        volts, amps = 390.0 + t / 100 + noise, 120.0 + 20 * math.sin(t / 60) + noise
        if name == "session/state":
            fill(message, session_id="bench", phase=phase, evse=1, protocol="iso15118-2", soc=min(99.0, 20 + t / 60))
        elif name == "power/state":
            fill(message, voltage_v=volts, current_a=amps, setpoint_a=amps, power_w=volts * amps, session_id="bench")
            fill(message, contactors_closed=phase == 8, mode=3 if phase == 8 else 0)
        elif name == "vehicle/target":
            fill(message, purpose=3, voltage_v=volts, current_a=amps, session_id="bench")
        elif name == "/power/modules":
            state = [
                fill(msg.ModuleState(), id=n + 1, voltage_v=volts, current_a=amps / self.modules + noise, state=3)
                for n in range(self.modules)
            ]
            fill(message, modules=state)
        elif name == "/robot/joint_states":
            message.name = [f"joint{n}" for n in range(6)]
            for field in ("position", "velocity", "effort"):
                setattr(message, field, [self.chance.gauss(0.0, 1.0) for _ in range(6)])
        elif name == "v2g/record":
            fields = {"EVTargetCurrent": round(amps, 2), "EVTargetVoltage": round(volts, 2), "EVRESSSOC": 40}
            message.data = json.dumps({"direction": "in", "name": "CurrentDemandReq", "fields": fields})
        elif name == "/diagnostics":
            values = [KeyValue(key=f"value {n}", value=f"{self.chance.random():.3f}") for n in range(10)]
            message = DiagnosticArray(status=[DiagnosticStatus(name="/power", message="well", values=values)])
        return message


@contextlib.contextmanager
def recorder(directory: Path, bus: str) -> Iterator[subprocess.Popen]:
    command = [sys.executable, "-m", "robot_charger.operator.recorder", "--directory", str(directory), "--can", bus]
    process = subprocess.Popen([*command, "--continuous", "--keep-free-mb", "0"], stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def record(seconds: float, modules: int, seed: int, directory: Path) -> dict[str, float]:
    """Cost of the recorder's process while the station talks."""
    import numpy as np
    import psutil
    import rclpy
    from diagnostic_msgs.msg import DiagnosticArray

    from robot_charger.common.can_bus import frame_port, open_bus
    from robot_charger.common.can_udp import free_block
    from robot_charger.common.topics import EVENTS

    words = Words(modules, seed)
    bus = f"udp:{free_block()}"
    rclpy.init()
    node = rclpy.create_node("bench")
    told: dict[str, str] = {}

    def hear(array: DiagnosticArray) -> None:
        told.update({v.key: v.value for s in array.status if s.name == "/recorder" for v in s.values})

    node.create_subscription(DiagnosticArray, "/diagnostics", hear, EVENTS)
    publishers = {}
    for name in RATES:
        kind, qos = kind_of(name)
        publishers[name] = node.create_publisher(kind, full_name(name), qos)
    # Made beforehand: this process must keep the rates.
    stock = {name: itertools.cycle([words.of(name, t, 8) for t in range(50)]) for name in RATES}
    port = frame_port(open_bus(bus))
    ids = np.arange(0x200, 0x200 + modules * 2 // 3, dtype=np.uint32)
    noise = np.random.default_rng(seed)

    def talk(until: float, condition: Any = lambda: False) -> None:
        due = dict.fromkeys([*RATES, "can"], time.monotonic())
        while (now := time.monotonic()) < until and not condition():
            for name, at in due.items():
                if now < at:
                    continue
                due[name] = at + (CAN_PERIOD_S if name == "can" else 1 / RATES[name])
                if name == "can":  # a reading and a set-point of every module every 10 to 20 ms
                    port.write(ids, noise.integers(0, 256, (len(ids), 16), dtype=np.uint8))
                    port.write(ids + 0x400, noise.integers(0, 256, (len(ids), 16), dtype=np.uint8))
                else:
                    publishers[name].publish(next(stock[name]))
            rclpy.spin_once(node, timeout_sec=0.0)
            time.sleep(max(0.0, min(due.values()) - time.monotonic()))

    with recorder(directory, bus) as process:
        talk(time.monotonic() + 60.0, lambda: int(told.get("CAN frames", 0)) > 1000)
        if process.poll() is not None or not told:
            raise SystemExit("the recorder did not come up within 60 s")
        ear = psutil.Process(process.pid)
        used, before, began = sum(ear.cpu_times()[:2]), dict(told), time.monotonic()
        talk(began + seconds)
        spent, passed = sum(ear.cpu_times()[:2]) - used, time.monotonic() - began
        rss = ear.memory_info().rss / MB
    port.close()
    node.destroy_node()
    rclpy.try_shutdown()
    return {
        "core_percent": round(100 * spent / passed, 2),
        "rss_mb": round(rss, 1),
        "messages_s": round((int(told["messages"]) - int(before["messages"])) / passed),
        "can_frames_s": round((int(told["CAN frames"]) - int(before["CAN frames"])) / passed),
        "lost": int(told["lost"]) - int(before["lost"]),
        "seconds": round(passed, 1),
    }


def write(path: Path, charging_s: float, modules: int, seed: int, noise_mb: int = 0) -> None:
    """A session of ``charging_s`` at the rates above; with ``noise_mb`` of CAN frames that compress to nothing."""
    from rclpy.serialization import serialize_message

    from robot_charger.operator.definitions import CAN_FRAMES, CAN_FRAMES_TEXT, definition, type_name
    from robot_charger.operator.recording import Entry, File, Stream

    words = Words(modules, seed)
    file = File(path, {"session_id": "bench", "evse": "1"})
    names = list(RATES)
    streams = {n: Stream(full_name(n), type_name(kind_of(n)[0]), definition(kind_of(n)[0]), evse=1) for n in names}
    frames = Stream("/can/udp_42000", CAN_FRAMES, CAN_FRAMES_TEXT)
    stock = {n: [bytes(serialize_message(words.of(n, t, 8))) for t in range(200)] for n in names}
    due = dict.fromkeys(names, 0.0)
    blob = 64 * 1024
    noise_every = charging_s / max(1, noise_mb * MB // blob)
    noise_due, t = 0.0, 0.0
    while t < charging_s:
        name = min(due, key=due.__getitem__)
        t = due[name]
        due[name] = t + 1 / RATES[name]
        at = T0 + int(t * S)
        data = stock[name][int(t / charging_s * 199)]
        if name == "session/state" and t < 5:
            data = bytes(serialize_message(words.of(name, t, 2)))
        file.write(Entry(streams[name], at, at, data))
        while noise_mb and noise_due <= t:
            file.write(Entry(frames, at, at, os.urandom(blob)))
            noise_due += noise_every
    file.close()


def report(path: Path, output: Path) -> dict[str, float]:
    """The command as an operator calls it."""
    from robot_charger.operator.reading import scan

    code = f"from robot_charger.operator.commands import report; report([{str(path)!r}, '--output', {str(output)!r}])"
    began = time.monotonic()
    child = os.posix_spawn(sys.executable, [sys.executable, "-c", code], os.environ)
    _, status, usage = os.wait4(child, 0)
    seconds = time.monotonic() - began
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"no report of {path}")
    return {
        "megabytes": round(path.stat().st_size / MB, 1),
        "messages": scan(path, lambda topic: None).messages,
        "seconds": round(seconds, 2),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 2),
        "rss_mb": round(usage.ru_maxrss / 1024, 1),
        "page_mb": round(output.stat().st_size / MB, 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seed", type=int, default=0, help="of the values said")
    parser.add_argument("--seconds", type=float, default=30.0, help="of recording")
    parser.add_argument("--modules", type=int, default=46)
    parser.add_argument("--large-mb", type=int, default=1000, help="size of the large file")
    arguments = parser.parse_args()
    from robot_charger.common import host_only
    from robot_charger.common.domain import free_domain

    host_only.stay()

    result: dict[str, Any] = {"seed": arguments.seed}
    with contextlib.ExitStack() as stack:
        if "ROS_DOMAIN_ID" not in os.environ:
            os.environ["ROS_DOMAIN_ID"] = str(stack.enter_context(free_domain()))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rc-", dir="/tmp")))
        result["record"] = record(arguments.seconds, arguments.modules, arguments.seed, folder / "recorded")
        for name, seconds, noise_mb in (("hour", 3600.0, 0), ("large", 600.0, arguments.large_mb)):
            path = folder / f"{name}.mcap"
            write(path, seconds, arguments.modules, arguments.seed, noise_mb)
            result[name] = report(path, folder / f"{name}.html")
            path.unlink()
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
