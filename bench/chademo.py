"""How steady the CHAdeMO station speaks and how fast it stops: ``python bench/chademo.py [--json FILE] [--seed S]``.

Runs the chademo, power and pilot nodes with simulated rack, safety controller and vehicle as processes; this
process plays supervisor and robot, listens on the bus and to power/state. JSON keys: ``period_ms`` {p50,
p999_jitter, frames} of 0x108 and 0x109; ``stop_s`` from switch k opened to at most 5 A; ``can_loss_s`` from the last
vehicle frame to at most 1 A; ``current_a`` that flowed before either. ``--seed`` spreads the modules of the rack, the
vehicle, and where in a frame's period each stop falls. Targets: 10 ms, 0.5 s, 1.2 s.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SMALL_A, ZERO_A = 5.0, 1.0
PATIENCE_S = 60.0
FRAME_S = 0.1


@dataclass(frozen=True)
class Plug:
    """Whose vehicle speaks over CAN: the node, the frames that are timed, and how the vehicle stops."""

    name: str
    identifiers: tuple[int, ...]
    period_ms: float
    stop: tuple[str, str]  # the vehicle's fault, and the stamp of its truth at which it began
    settings: tuple[str, ...] = ()  # parameters of the node
    vehicle: tuple[str, ...] = ()  # arguments of the vehicle


CHADEMO = Plug("chademo", (0x108, 0x109), 100.0, ("k-open", "k_opened_ns"))


class Station:
    """Supervisor, arm and ears."""

    def __init__(self, directory: Path, bus: str, plug: Plug) -> None:
        import rclpy
        from lifecycle_msgs.srv import ChangeState
        from rclpy.executors import SingleThreadedExecutor

        from robot_charger import msg
        from robot_charger.common.can_bus import open_bus
        from robot_charger.common.topics import topic
        from robot_charger.common.wires import WireEnd

        self.msg = msg
        self.session_id, self.linking, self.mated = "", False, False
        self.cli: dict[str, Any] = {}
        self.last: dict[str, Any] = {}
        self.currents: list[tuple[int, float]] = []
        self.arrivals: dict[int, list[float]] = {identifier: [] for identifier in plug.identifiers}
        self.plug = plug
        self.going = True
        self._number, self._purpose = 1, -1
        self._bus = open_bus(bus, fd=False)
        rclpy.init()
        self.node = rclpy.create_node("bench")
        for name in ("power/state", "vehicle/target", "vehicle/link"):
            full, kind, qos = topic(name, 1)
            self.node.create_subscription(kind, full, self._keeper(name), qos)
        self.publishers = {}
        for name in ("session/state", "power/permit", "pilot/command"):
            full, kind, qos = topic(name, 1)
            self.publishers[name] = self.node.create_publisher(kind, full, qos)
        names = ("/power", "/evse1/pilot", f"/evse1/{plug.name}")
        self.clients = [self.node.create_client(ChangeState, f"{n}/change_state") for n in names]
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.wires = {name: WireEnd(name, directory) for name in ("arm", "cli")}
        self.threads = [threading.Thread(target=t, daemon=True) for t in (self._spin, self._act, self._listen)]
        for thread in self.threads:
            thread.start()

    def _keeper(self, name: str) -> Callable[[Any], None]:
        def keep(message: Any) -> None:
            self.last[name] = message
            if name == "power/state":
                self.currents.append((message.stamp_ns, message.current_a))

        return keep

    def _spin(self) -> None:
        with contextlib.suppress(Exception):
            while self.going:
                self.executor.spin_once(timeout_sec=0.1)

    def _listen(self) -> None:
        from robot_charger.common.process import realtime

        realtime(30)  # an ear that comes late hears jitter that is not there
        while self.going:
            frame = self._bus.recv(0.2)
            if frame is not None and frame.arbitration_id in self.arrivals:
                self.arrivals[frame.arbitration_id].append(time.monotonic())

    def _act(self) -> None:
        from robot_charger.common.clock import now_ns
        from robot_charger.common.topics import fill

        S, C = self.msg.SessionState, self.msg.ChargePermit
        while self.going:
            target = self.last.get("vehicle/target")
            ours = target is not None and target.session_id == self.session_id and self.linking
            purpose = target.purpose if ours else 0
            if purpose != self._purpose:
                self._purpose, self._number = purpose, self._number + 1
            ids = {"stamp_ns": now_ns(), "session_id": self.session_id}
            permit = fill(C(), **ids, number=self._number, purpose=purpose, max_voltage_v=500.0)
            self.publishers["power/permit"].publish(fill(permit, max_current_a=200.0, max_power_w=100e3))
            phase = S.PHASE_LINKING if self.linking else S.PHASE_IDLE
            state = fill(S(), **ids, phase=phase, protocol=self.plug.name, authorization=S.AUTHORIZATION_ACCEPTED)
            self.publishers["session/state"].publish(state)
            self.wires["arm"].send("vehicle1", {"mated": self.mated})
            self.wires["cli"].send("vehicle1", self.cli)
            time.sleep(0.03)

    def bring_up(self) -> None:
        from lifecycle_msgs.msg import Transition
        from lifecycle_msgs.srv import ChangeState

        for client in self.clients:
            if not client.wait_for_service(timeout_sec=PATIENCE_S):
                raise SystemExit(f"{client.srv_name} is not there")
            for number in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
                future = client.call_async(ChangeState.Request(transition=Transition(id=number)))
                self.until(future.done, f"{client.srv_name} {number}")
                if not future.result().success:
                    raise SystemExit(f"{client.srv_name} refused transition {number}")

    def until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > deadline:
                link = self.last.get("vehicle/link")
                power = self.last.get("power/state")
                words = f"{link.text if link else ''}; {power.text if power else ''}; {self.truth()}"
                raise SystemExit(f"waited too long for {what}: {words}")
            time.sleep(0.02)

    def truth(self) -> dict[str, Any]:
        return self.wires["cli"].signals("vehicle1")

    def charge(self, visit: int, seconds: float) -> float:
        """A visit up to ``seconds`` of full current. Returns the current [A]."""
        self.cli = {"arrive": visit, "leave": visit - 1}
        self.until(lambda: self.truth().get("visit") == visit, "the vehicle")
        self.session_id, self.mated, self.linking = f"bench-{visit}", True, True
        self.until(lambda: bool(self.currents) and self.currents[-1][1] > 80.0, "80 A")
        time.sleep(seconds)
        return self.currents[-1][1]

    def fault(self, name: str, stamp: str, low_a: float) -> float:
        """Seconds from what the vehicle did (``stamp`` of its truth) until at most ``low_a`` flow."""
        before = len(self.currents)
        self.cli |= {"fault": name, "on": True}
        self.until(lambda: self.currents[-1][1] <= low_a, f"{low_a} A")
        time.sleep(0.5)
        begun = self.truth()[stamp]
        ended = next(at for at, current in self.currents[before:] if at > begun and abs(current) <= low_a)
        self.until(lambda: self.last["vehicle/link"].phase in (10, 11), "the end")
        self.cli |= {"on": False}
        time.sleep(0.2)
        self.linking = self.mated = False
        self.until(lambda: not self.truth()["contactor"], "the vehicle's contactor")
        return (ended - begun) / 1e9

    def close(self) -> None:
        import rclpy

        self.going = False
        for thread in self.threads:
            thread.join(timeout=2.0)
        rclpy.try_shutdown()
        for wire in self.wires.values():
            wire.close()
        self._bus.shutdown()


@contextlib.contextmanager
def processes(
    directory: Path, buses: tuple[str, str], modules: int, seed: int, plug: Plug
) -> Iterator[list[subprocess.Popen]]:
    """The station's processes; ``buses`` of the vehicle and of the modules."""
    bus, modules_bus = buses
    parameters = {
        "power": [f"bus:={modules_bus}", f"modules:={modules}", "evses:=[1]", "meter.kind:=none",
                  f"connectors:=['{plug.name}']",
                  "safety_timeout_ms:=500.0",
                  "measurement_timeout_ms:=1000.0", "bus_timeout_ms:=2000.0",
                  "ramp.down_a_s:=400.0"],
        "pilot": [f"connector:={plug.name}"],
        plug.name: [f"bus:={bus}", *plug.settings],
    }  # fmt: skip
    words = [
        ["sim.safety", "--bus", modules_bus, "--evses", "1"],
        ["sim.rack", "--bus", modules_bus, "--modules", str(modules), "--evses", "1", "--seed", str(seed)],
        ["sim.vehicle", "--evse", "1", "--protocol", plug.name, "--can", bus, "--charge-seconds", "900",
         "--soc", "30", "--seed", str(seed), *plug.vehicle],
    ]  # fmt: skip
    for name, values in parameters.items():
        namespace = "/" if name == "power" else "/evse1"
        line = [f"{name}.node", "--ros-args", "-r", f"__ns:={namespace}"]
        words.append(line + [w for v in values for w in ("-p", v)])
    running: list[subprocess.Popen] = []
    with (directory / "log").open("w") as log:
        try:
            for line in words:
                command = [sys.executable, "-m", f"robot_charger.{line[0]}", *line[1:]]
                running.append(subprocess.Popen(command, stdout=log, stderr=log))
            yield running
        finally:
            for process in reversed(running):
                process.terminate()
            for process in running:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(10)


def periods(arrivals: dict[int, list[float]], nominal_ms: float = 100.0) -> dict[str, float]:
    """Of all gaps between frames of one identifier, those of a pause between two sessions left out."""
    gaps = sorted((b - a) * 1e3 for stamps in arrivals.values() for a, b in itertools.pairwise(stamps) if b - a < 1.0)
    jitter = sorted(abs(gap - nominal_ms) for gap in gaps)
    return {
        "p50": round(gaps[len(gaps) // 2], 3),
        "p999_jitter": round(jitter[min(len(jitter) - 1, int(len(jitter) * 0.999))], 3),
        "frames": len(gaps),
    }


def measure(plug: Plug, seconds: float, modules: int, seed: int) -> dict[str, Any]:
    """Two visits: one that is stopped by the vehicle, one whose vehicle falls silent."""
    from robot_charger.common import host_only
    from robot_charger.common.can_udp import SLOTS, free_block
    from robot_charger.common.domain import free_domain
    from robot_charger.common.process import REALTIME

    host_only.stay()

    os.environ.setdefault(REALTIME, "1")  # hardware does not wait for this computer's other work
    directory = Path(tempfile.mkdtemp(prefix="rc-", dir="/tmp"))
    os.environ["ROBOT_CHARGER_SIM"] = str(directory)
    base = free_block(2)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        if "ROS_DOMAIN_ID" not in os.environ:
            os.environ["ROS_DOMAIN_ID"] = str(stack.enter_context(free_domain()))
        bus = f"udp:{base}"
        stack.enter_context(processes(directory, (bus, f"udp:{base + SLOTS}"), modules, seed, plug))
        station = Station(directory, bus, plug)
        stack.callback(station.close)
        try:
            station.bring_up()
            moments = random.Random(seed)
            flowing_a = station.charge(1, seconds + moments.uniform(0.0, FRAME_S))
            stop_s = station.fault(*plug.stop, SMALL_A)
            second_a = station.charge(2, 3.0 + moments.uniform(0.0, FRAME_S))
            can_loss_s = station.fault("can-silence", "last_frame_ns", ZERO_A)
        except SystemExit:
            print((directory / "log").read_text()[-3000:], file=sys.stderr)
            raise
        return {
            "period_ms": periods(station.arrivals, plug.period_ms),
            "stop_s": round(stop_s, 3),
            "can_loss_s": round(can_loss_s, 3),
            "current_a": [round(flowing_a, 1), round(second_a, 1)],
        }


def publish(result: dict[str, Any], file: str) -> int:
    print(json.dumps(result, indent=2))
    if file:
        Path(file).write_text(json.dumps(result, indent=2) + "\n")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", default="")
    parser.add_argument("--seconds", type=float, default=45.0, help="at full current before the first stop")
    parser.add_argument("--modules", type=int, default=46)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    return publish(measure(CHADEMO, args.seconds, args.modules, args.seed), args.json)


if __name__ == "__main__":
    sys.exit(main())
