"""ACDP from parking to driving away: supervisor, v2g and a car, with the arm, power and pilot played by this process.

The whole station with its physics is ``robot-charger demo --protocol acdp``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rclpy
from geometry_msgs.msg import PoseWithCovarianceStamped
from rclpy.action import ActionServer
from rclpy.executors import MultiThreadedExecutor
from v2g_links import need_namespaces, plc

from robot_charger import action, msg, srv
from robot_charger.common.clock import now_ns
from robot_charger.common.topics import topic
from robot_charger.common.wires import WireEnd
from robot_charger.v2g import pki

S, R, P, L = msg.SessionState, msg.RobotState, msg.PilotState, msg.VehicleLink
STEP_S = 0.02
ACTION_S = 0.5  # of the arm
OHM = {None: P.STATE_A, 2740.0: P.STATE_B, 882.0: P.STATE_C}
PUBLISHED = {
    "power/state": 1, "power/limits": 1, "pilot/state": 1, "bay/state": 1, "power/meter": 1,
    "/safety/state": None, "/robot/state": None, "/robot/inlet_pose": None,
}  # fmt: skip


class World:
    """Everything but supervisor, v2g and the car."""

    def __init__(self, directory: Path) -> None:
        self.wires = {name: WireEnd(name, directory) for name in ("pilot1", "rack", "arm", "cli", "safety")}
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("world", context=self.context)
        self.publishers = {}
        for name, evse in PUBLISHED.items():
            full, kind, qos = topic(name, evse)
            self.publishers[name] = self.node.create_publisher(kind, full, qos)
        self.last: dict[str, Any] = {}
        self.phases: list[int] = []
        self.links: list[int] = []
        for name in ("session/state", "vehicle/link", "vehicle/target", "power/permit", "pilot/command"):
            full, kind, qos = topic(name, 1)
            self.node.create_subscription(kind, full, lambda m, name=name: self._hear(name, m), qos)
        self.mode, self.mated = R.MODE_PARKED, False
        self.done: list[str] = []
        self.servers = [
            ActionServer(self.node, kind, f"/robot/{name}", lambda handle, name=name: self._act(name, handle))
            for name, kind in (
                ("connect", action.Connect), ("release", action.Release), ("disconnect", action.Disconnect)
            )
        ]  # fmt: skip
        self.node.create_service(srv.Authorize, "/authorize", self._authorize)
        self.arrive = 0
        self.leave = False
        self.permit_at: dict[int, int] = {}
        self.executor = MultiThreadedExecutor(num_threads=3, context=self.context)
        self.executor.add_node(self.node)
        self.ending = threading.Event()
        self.threads = [threading.Thread(target=self.executor.spin), threading.Thread(target=self._live)]
        for thread in self.threads:
            thread.start()

    def close(self) -> None:
        self.ending.set()
        self.threads[1].join()
        self.executor.shutdown()
        self.threads[0].join()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)
        for wire in self.wires.values():
            wire.close()

    def _hear(self, name: str, message: Any) -> None:
        self.last[name] = message
        seen = {"session/state": self.phases, "vehicle/link": self.links}.get(name)
        if seen is not None and (not seen or seen[-1] != message.phase):
            seen.append(message.phase)

    def _authorize(self, request: Any, response: Any) -> Any:
        response.status = response.STATUS_ACCEPTED
        return response

    def _act(self, name: str, handle: Any) -> Any:
        self.mode = {"connect": R.MODE_INSERT, "release": R.MODE_MATED, "disconnect": R.MODE_WITHDRAW}[name]
        time.sleep(ACTION_S)
        self.mated = name != "disconnect"
        self.mode = {"connect": R.MODE_MATED, "release": R.MODE_RELEASED, "disconnect": R.MODE_PARKED}[name]
        self.done.append(name)
        handle.succeed()
        return handle._action_type.Result()

    def _live(self) -> None:
        while not self.ending.wait(STEP_S):
            self._step()

    def _step(self) -> None:
        now = now_ns()
        target = self.last.get("vehicle/target", msg.VehicleTarget())
        permit = self.last.get("power/permit", msg.ChargePermit())
        car, safety = self.wires["pilot1"].signals("vehicle1"), self.wires["safety"].signals("vehicle1")
        battery = self.wires["rack"].signals("vehicle1")
        purpose = min(target.purpose, permit.purpose)
        self.permit_at.setdefault(permit.purpose, permit.number)
        closed = purpose in (target.PURPOSE_PRECHARGE, target.PURPOSE_TRANSFER)
        volts = target.voltage_v if purpose == target.PURPOSE_PRECHARGE else 0.0
        amperes = 0.0
        if purpose == target.PURPOSE_TRANSFER:
            volts = battery.get("emf_v", 0.0) + 2.0
            amperes = min(target.current_a, permit.max_current_a) if battery.get("contactor") else 0.0
        tested = self.permit_at.get(permit.PURPOSE_INSULATION_TEST, 0)
        self._say(
            "power/state", msg.SupplyState(
                stamp_ns=now, contactors_closed=closed, contactors_open=not closed,
                voltage_v=float(volts), current_a=float(amperes),
                insulation=msg.SupplyState.INSULATION_VALID if tested else 0, insulation_permit_number=tested,
            )
        )  # fmt: skip
        self._say("power/limits", msg.SupplyLimits(
            stamp_ns=now, available=True, max_voltage_v=1000.0, min_voltage_v=150.0, max_current_a=200.0,
            max_power_w=100_000.0,
        ))  # fmt: skip
        self._say("power/meter", msg.MeterReading(stamp_ns=now, valid=True, serial="M"))
        self._say("pilot/state", P(stamp_ns=now, state=OHM[car.get("cp_ohm")], pwm=True))
        occupied, still = bool(safety.get("occupied")), bool(safety.get("immobilised"))
        self._say("bay/state", msg.BayState(stamp_ns=now, occupied=occupied, immobilised=still, field_clear=True))
        self._say("/safety/state", msg.SafetyState(stamp_ns=now, alive=True))
        clear = self.mode in (R.MODE_PARKED, R.MODE_RELEASED)
        self._say("/robot/state", R(
            stamp_ns=now, mode=self.mode, evse=0 if self.mode == R.MODE_PARKED else 1, in_contact_zone=not clear,
            plug_in_inlet=self.mated,
        ))  # fmt: skip
        pose = PoseWithCovarianceStamped()
        pose.header.frame_id, pose.pose.pose.position.x = "bay1", 1.09
        self._say("/robot/inlet_pose", pose)
        command = self.last.get("pilot/command", msg.PilotCommand())
        duty = command.duty if command.mode == command.MODE_PWM else 0.0
        self.wires["pilot1"].send("vehicle1", {"mode": "pwm" if duty else "steady", "duty": duty})
        self.wires["rack"].send("vehicle1", {"voltage_v": float(volts), "current_a": float(amperes)})
        self.wires["arm"].send("vehicle1", {"mated": self.mated})
        self.wires["cli"].send("vehicle1", {"arrive": self.arrive, "leave": self.leave})

    def _say(self, name: str, message: Any) -> None:
        self.publishers[name].publish(message)

    def until(self, condition: Callable[[], Any], timeout_s: float = 60.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            state, link = self.last.get("session/state"), self.last.get("vehicle/link")
            told = f"phases {self.phases}, links {self.links}, {state and state.text}, {link and link.text}"
            assert time.monotonic() < deadline, told
            time.sleep(STEP_S)


@pytest.fixture
def world(sim_directory: Path, tmp_path: Path) -> Iterator[World]:
    need_namespaces()
    pki.make(tmp_path)
    environment = {
        **os.environ, "ROBOT_CHARGER_SIM": str(sim_directory), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"
    }  # fmt: skip
    with plc(sim_directory):
        nodes = {
            "v2g": ["link:=acdp", f"tls.directory:={tmp_path / 'station'}", "acdp.inlet_x_m:=1.08"],
            "supervisor": ["protocol:=acdp", "managed:=[v2g]", "free_vend:=true", "node_age_grace_ms:=1000"],
        }
        commands = [
            [sys.executable, "-m", f"robot_charger.{name}.node", "--ros-args", "-r", "__ns:=/evse1"]
            + [word for parameter in parameters for word in ("-p", parameter)]
            for name, parameters in nodes.items()
        ]
        commands.append(
            [sys.executable, "-m", "robot_charger.sim.vehicle", "--evse", "1", "--protocol", "acdp"]
            + ["--charge-seconds", "2", "--option", "tls=true", "--option", f"pki={tmp_path / 'vehicle'}"]
        )
        world = World(sim_directory)
        processes = [subprocess.Popen(command, env=environment) for command in commands]
        try:
            world.until(lambda: world.phases and world.phases[-1] == S.PHASE_IDLE)
            yield world
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(10)
            world.close()


@pytest.mark.integration
@pytest.mark.alone
@pytest.mark.timeout(180)
def test_the_vehicle_talks_first_and_is_plugged_in_and_out_when_it_asks(world: World) -> None:
    world.arrive = 1
    world.until(lambda: L.PHASE_CONNECTING in world.links)
    world.until(lambda: S.PHASE_CHARGING in world.phases)
    assert world.done == ["connect", "release"]
    assert world.phases.index(S.PHASE_CONNECTING) > 0
    world.until(lambda: world.phases[-1] == S.PHASE_DEPARTING)
    assert world.done == ["connect", "release", "disconnect"]
    world.until(lambda: world.links[-1] == L.PHASE_ENDED)  # SessionStop follows the unplugging
    wanted = [L.PHASE_SESSION, L.PHASE_CONNECTING, L.PHASE_CABLE_CHECK, L.PHASE_PRECHARGE, L.PHASE_CHARGING]
    wanted += [L.PHASE_STOPPING, L.PHASE_DISCONNECTING, L.PHASE_ENDED]
    assert [phase for phase in dict.fromkeys(world.links) if phase in wanted] == wanted, world.links
    state = world.last["session/state"]
    assert (state.stop_reason, state.fault, state.protocol) == ("StoppedByEV", 0, "iso15118-20")
    world.leave = True
    world.until(lambda: world.phases[-1] == S.PHASE_IDLE)
