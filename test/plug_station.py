"""Supervisor and power played through topics, for the nodes whose vehicle speaks over CAN in the plug."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

from robot_charger import msg
from robot_charger.common.clock import now_ns
from robot_charger.common.topics import fill, topic
from robot_charger.common.wires import WireEnd

T, P, S = msg.VehicleTarget, msg.SupplyState, msg.SessionState


class PlugStation:
    """Supervisor and power in one thread, 50 Hz: they permit what is asked and deliver it at once.

    ``node`` is the one under test.
    """

    def __init__(self, directory: Path, node: str, test_s: float = 0.5) -> None:
        self.bus = ""
        self.session_phase, self.protocol, self.stop = S.PHASE_IDLE, "none", False
        self.links: list[msg.VehicleLink] = []
        self.targets: list[msg.VehicleTarget] = []
        self.faults: dict[int, bool] = {}
        self.current_a = self.voltage_v = self.energy_wh = self.exported_wh = 0.0
        self.news = threading.Condition()
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("bench", context=self.context, use_global_arguments=False)
        for name, keep in (("vehicle/link", self.links), ("vehicle/target", self.targets)):
            full, kind, qos = topic(name, 1)
            self.node.create_subscription(kind, full, self._keeper(keep), qos)
        full, kind, qos = topic("fault", 1)
        self.node.create_subscription(kind, full, self._fault, qos)
        self.publishers: dict[str, Any] = {}
        for name in ("session/state", "power/state", "power/limits", "power/permit"):
            full, kind, qos = topic(name, 1)
            self.publishers[name] = self.node.create_publisher(kind, full, qos)
        self.change = self.node.create_client(ChangeState, f"/evse1/{node}/change_state")
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.rack, self.arm, self.cli = (WireEnd(n, directory) for n in ("rack", "arm", "cli"))
        self.mated = False
        self.insulation_since: float | None = None
        self.test_s = test_s
        self.number, self.test_number, self.purpose = 5, 0, 0  # of the permit
        self.going = True
        self.threads = [threading.Thread(target=t, daemon=True) for t in (self._spin, self._act)]
        for thread in self.threads:
            thread.start()

    def _keeper(self, keep: list[Any]) -> Callable[[Any], None]:
        def take(message: Any) -> None:
            with self.news:
                keep.append(message)
                self.news.notify_all()

        return take

    def _fault(self, message: msg.Fault) -> None:
        with self.news:
            self.faults[message.code] = message.active
            self.news.notify_all()

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException):
            while self.context.ok():
                self.executor.spin_once(timeout_sec=0.1)

    def _act(self) -> None:
        last = time.monotonic()
        while self.going:
            now = time.monotonic()
            self._supply(now, now - last)
            last = now
            time.sleep(0.02)

    def _supply(self, now: float, dt: float) -> None:
        target = self.targets[-1] if self.targets else T()
        car = self.rack.signals("vehicle1")
        live_v = float(car.get("emf_v", 0.0)) if car.get("contactor") else 0.0
        testing = target.purpose == T.PURPOSE_INSULATION_TEST
        if target.purpose != self.purpose:
            self.number, self.purpose = self.number + 1, target.purpose
        if testing and self.insulation_since is None:
            self.test_number = self.number
            self.insulation_since = now
        tested = self.insulation_since is not None and now - self.insulation_since > self.test_s
        energised = target.purpose in (T.PURPOSE_PRECHARGE, T.PURPOSE_TRANSFER) and live_v > 0
        self.current_a = target.current_a if energised and target.purpose == T.PURPOSE_TRANSFER else 0.0
        self.voltage_v = live_v + 0.05 * self.current_a if live_v else 400.0 if testing and not tested else 0.0
        self.energy_wh += max(0.0, self.voltage_v * self.current_a * dt / 3600)
        self.exported_wh += max(0.0, -self.voltage_v * self.current_a * dt / 3600)
        self.rack.send("vehicle1", {"voltage_v": self.voltage_v, "current_a": self.current_a})
        self.arm.send("vehicle1", {"mated": self.mated})
        mode = {0: P.MODE_OFF, 1: P.MODE_INSULATION_TEST, 2: P.MODE_PRECHARGE, 3: P.MODE_TRANSFER}[target.purpose]
        stamp = now_ns()
        session = "s1" if self.session_phase else ""
        self.publishers["power/state"].publish(
            fill(
                P(), stamp_ns=stamp, session_id=session, mode=mode, voltage_v=self.voltage_v,
                bank_voltage_v=self.voltage_v, current_a=self.current_a, contactors_closed=energised,
                insulation=P.INSULATION_VALID if tested else P.INSULATION_UNKNOWN,
                insulation_permit_number=self.test_number,
            )
        )  # fmt: skip
        permit = {"stamp_ns": stamp, "number": self.number, "session_id": session, "purpose": target.purpose}
        most = {"max_voltage_v": 500, "max_current_a": 100, "max_power_w": 50_000, "min_current_a": -20}
        permits = fill(msg.ChargePermit(), **permit, **most, min_power_w=-10_000)
        self.publishers["power/permit"].publish(permits)
        self.publishers["power/limits"].publish(
            fill(
                msg.SupplyLimits(), stamp_ns=stamp, max_voltage_v=500, max_current_a=100, max_power_w=50_000,
                max_export_current_a=20, max_export_power_w=10_000, available=True,
            )
        )  # fmt: skip
        self.publishers["session/state"].publish(
            fill(
                S(), stamp_ns=stamp, session_id=session, phase=self.session_phase, protocol=self.protocol,
                authorization=S.AUTHORIZATION_ACCEPTED, stop_requested=self.stop,
            )
        )  # fmt: skip

    def transition(self, number: int) -> bool:
        assert self.change.wait_for_service(timeout_sec=20.0)
        future = self.change.call_async(ChangeState.Request(transition=Transition(id=number)))
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        assert done.wait(20.0)
        return bool(future.result().success)

    def bring_up(self) -> None:
        assert self.transition(Transition.TRANSITION_CONFIGURE)
        assert self.transition(Transition.TRANSITION_ACTIVATE)

    def plug_in(self) -> None:
        self.cli.send("vehicle1", {"arrive": 1})
        self.mated = True
        self.session_phase = S.PHASE_LINKING

    def until(self, condition: Callable[[], bool], timeout_s: float = 40.0) -> None:
        with self.news:
            last = [(link.phase, link.text) for link in self.links[-1:]]
            assert self.news.wait_for(condition, timeout_s), f"{last} {self.cli.signals('vehicle1')}"

    def until_connected(self) -> None:
        """The simulated vehicle has felt the plug."""
        deadline = time.monotonic() + 30.0
        while not self.cli.signals("vehicle1").get("connected"):
            assert time.monotonic() < deadline, self.cli.signals("vehicle1")
            time.sleep(0.02)

    def until_link(self, *phases: int) -> msg.VehicleLink:
        self.until(lambda: bool(self.links) and self.links[-1].phase in phases)
        return self.links[-1]

    def close(self) -> None:
        self.going = False
        self.threads[1].join()
        for wire in (self.rack, self.arm, self.cli):
            wire.close()
        rclpy.shutdown(context=self.context)
        self.threads[0].join()


class Processes:
    """The node under test, the simulated vehicle, and what plays the rest. ``close`` ends all."""

    def __init__(self, directory: Path, name: str, bus: str) -> None:
        self.name, self.bus = name, bus
        self.station = PlugStation(directory, name)
        self._running: list[subprocess.Popen] = []

    def start(self, *vehicle: str, parameters: tuple[str, ...] = (), protocol: str = "") -> PlugStation:
        """``protocol`` of the session, by default the node's own."""
        self.station.bus, self.station.protocol = self.bus, protocol or self.name
        self._run("robot_charger.sim.vehicle", "--evse", "1", "--can", self.bus, "--soc", "50", *vehicle)
        values = [word for p in parameters for word in ("-p", p)]
        node = ["--ros-args", "-r", "__ns:=/evse1", "-p", f"bus:={self.bus}", *values]
        self._run(f"robot_charger.{self.name}.node", *node)
        return self.station

    def _run(self, *words: str) -> None:
        self._running.append(subprocess.Popen([sys.executable, "-m", *words]))

    def close(self) -> None:
        for process in self._running:
            process.terminate()
        codes = [p.wait(10) for p in self._running]
        self.station.close()
        assert codes == [0] * len(codes), codes
