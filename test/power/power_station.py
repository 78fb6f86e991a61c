"""A power node with simulated rack and safety controller, each a process, and a plain vehicle and supervisor."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from robot_charger.common.can_udp import SLOTS, free_block
from robot_charger.common.process import REALTIME
from robot_charger.common.wires import WireEnd

SESSION = "0f6f3b5e-session"


class Vehicle:
    """The wires of a vehicle: a battery behind a contactor, in the bay."""

    def __init__(self, directory: Path) -> None:
        self.signals = {
            "connected": True,
            "contactor": False,
            "emf_v": 360.0,
            "resistance_ohm": 0.05,
            "occupied": True,
            "immobilised": True,
            "insulation_ohm": 2e6,
        }
        self._stop = threading.Event()
        self.wire = WireEnd("vehicle1", directory)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            self.wire.send("rack", self.signals)
            self.wire.send("safety", self.signals)

    @property
    def rack(self) -> dict[str, Any]:
        return self.wire.signals("rack")

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.wire.close()


class Station:
    """Processes, topics and the two voices that power obeys: supervisor and vehicle's protocol."""

    def __init__(self, directory: Path, modules: int = 46, buses: int = 1, **parameters: Any) -> None:
        self.directory = directory
        protocol = str(parameters.get("module.protocol", "ek3"))
        base = free_block(buses + 1)
        self.bus = f"udp:{base}*{buses}"
        other = ["--protocol", protocol]
        if protocol == "canopen":
            self.bus = f"udp:{base}"
            parameters["module.bus"] = f"udp:{base + SLOTS}*{buses}"
            other += ["--module-bus", str(parameters["module.bus"])]
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.vehicle = Vehicle(directory)
        self.cli = WireEnd("cli", directory)
        self.start("safety", "robot_charger.sim.safety", "--bus", self.bus)
        self.start("rack", "robot_charger.sim.rack", "--bus", self.bus, "--modules", str(modules), *other)
        self._parameters = {"bus": self.bus, "modules": modules, "desk_grace_ms": 300.0, **parameters}
        self._wait_for(lambda: (directory / "rack.wire").exists() and (directory / "safety.wire").exists())
        self.start_power()

        import rclpy
        from lifecycle_msgs.srv import ChangeState
        from rclpy.executors import SingleThreadedExecutor

        from robot_charger.common.topics import topic

        rclpy.init()
        self.rclpy = rclpy
        self.node = rclpy.create_node("plain")
        self.newest: dict[str, Any] = {}
        self.modes: list[int] = []
        self.faults: list[Any] = []
        self.speaking = True
        self.permit: dict[str, Any] = {"purpose": 0}
        self.target: dict[str, Any] = {"purpose": 0}
        self.pilot_state = 3
        self.number = 1
        self.target_number = 0
        for name, evse in [
            ("power/state", 1), ("power/limits", 1), ("power/meter", 1), ("bay/state", 1),
            ("/power/modules", None), ("/safety/state", None), ("fault", 1), ("/fault", None),
        ]:  # fmt: skip
            full, kind, qos = topic(name, evse)
            self.node.create_subscription(kind, full, self._keep(name), qos)
        self._publishers = {}
        for name in ("power/permit", "vehicle/target", "pilot/state"):
            full, kind, qos = topic(name, 1)
            self._publishers[name] = self.node.create_publisher(kind, full, qos)
        self._change = self.node.create_client(ChangeState, "/power/change_state")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self._spinning = True
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()
        self._voice = threading.Thread(target=self._speak, daemon=True)
        self._voice.start()

    def start(self, name: str, module: str, *arguments: str) -> None:
        environment = {**os.environ, "ROBOT_CHARGER_SIM": str(self.directory), REALTIME: "1"}
        self.processes[name] = subprocess.Popen([sys.executable, "-m", module, *arguments], env=environment)

    def start_power(self) -> None:
        arguments = [f"{key}:={value}" for key, value in self._parameters.items()]
        flags = [word for argument in arguments for word in ("-p", argument)]
        self.start("power", "robot_charger.power.node", "--ros-args", *flags)

    def _keep(self, name: str) -> Callable[[Any], None]:
        def keep(message: Any) -> None:
            self.newest[name] = message
            if name == "power/state" and (not self.modes or self.modes[-1] != message.mode):
                self.modes.append(message.mode)
            if name.endswith("fault"):
                self.faults.append(message)

        return keep

    def _spin(self) -> None:
        while self._spinning:
            self.executor.spin_once(timeout_sec=0.05)

    def _speak(self) -> None:
        from robot_charger import msg
        from robot_charger.common.topics import fill

        while self._spinning:
            now = time.monotonic_ns()
            if self.speaking:
                permit = {
                    "session_id": SESSION, "max_voltage_v": 500.0, "max_current_a": 400.0,
                    "max_power_w": 150e3, **self.permit,
                }  # fmt: skip
                self._publishers["power/permit"].publish(
                    fill(msg.ChargePermit(), stamp_ns=now, number=self.number, **permit)
                )
            self.target_number += 1
            target = {
                "session_id": SESSION, "protocol": "plain", "max_voltage_v": 420.0, "max_current_a": 300.0,
                "vehicle_stamp_ns": now, "vehicle_timeout_ms": 1000, **self.target,
            }  # fmt: skip
            self._publishers["vehicle/target"].publish(
                fill(msg.VehicleTarget(), stamp_ns=now, number=self.target_number, **target)
            )
            self._publishers["pilot/state"].publish(
                fill(msg.PilotState(), stamp_ns=now, state=self.pilot_state, pwm=True)
            )
            time.sleep(0.02)

    @property
    def state(self) -> Any:
        return self.newest.get("power/state")

    def codes(self) -> set[int]:
        """Codes of all faults that began."""
        return {f.code for f in self.faults if f.active}

    def allow(self, purpose: int, **target: Any) -> None:
        """A new permit and the target that agrees with it."""
        self.target = {"purpose": purpose, **target}
        self.permit = {"purpose": purpose}
        self.number += 1

    def fault(self, part: str, name: str, **more: Any) -> None:
        assert self.cli.send(part, {"fault": name, "on": True, **more})

    def transition(self, number: int) -> None:
        from lifecycle_msgs.srv import ChangeState

        assert self._change.wait_for_service(timeout_sec=20.0)
        request = ChangeState.Request()
        request.transition.id = number
        future = self._change.call_async(request)
        self.until(future.done, 10.0)
        assert future.result().success, f"transition {number} of power failed"

    def until(self, condition: Callable[[], Any], timeout_s: float = 10.0) -> None:
        """Wait for a state; the time-out is only the test's failure."""
        self._wait_for(condition, timeout_s, lambda: f"{self.state} {[f.text for f in self.faults]}")

    @staticmethod
    def _wait_for(condition: Callable[[], Any], timeout_s: float = 20.0, tell: Callable[[], str] = lambda: "") -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"not reached within {timeout_s} s: {tell()}"
            time.sleep(0.005)

    def charge(self, current_a: float = 100.0) -> None:
        """Cable check, precharge and transfer at this current."""
        self.transition(1)
        self.transition(3)
        self.until(lambda: self.newest.get("power/limits") and self.newest["power/limits"].available)
        self.allow(1, voltage_v=420.0)
        self.until(lambda: self.state.insulation == 2)
        self.until(lambda: self.state.mode == 0)
        self.allow(2, voltage_v=360.0, current_a=2.0)
        self.until(lambda: self.state.mode == 2 and abs(self.state.voltage_v - 360.0) < 20.0)
        self.vehicle.signals["contactor"] = True
        self.allow(3, voltage_v=410.0, current_a=current_a)
        self.until(lambda: self.state.mode == 3 and abs(self.state.current_a - current_a) < 0.02 * current_a)

    def close(self) -> None:
        self._spinning = False
        self._voice.join()
        self._thread.join()
        self.node.destroy_node()
        self.rclpy.try_shutdown()
        for name in ("power", "rack", "safety"):
            process = self.processes[name]
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        self.vehicle.close()
        self.cli.close()
