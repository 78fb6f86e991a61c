"""What stands around the robot's node in a test: supervisor, safety controller, vehicle and command line."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.action import ActionClient
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

from robot_charger import action, msg
from robot_charger.common.clock import now_ns
from robot_charger.common.process import REALTIME
from robot_charger.common.topics import fill, topic
from robot_charger.common.wires import WireEnd

NONE, FREE, CONTACT = (getattr(msg.MotionPermit, f"ZONE_{n}") for n in ("NONE", "FREE", "CONTACT"))


class Yard:
    """Starts the arm's simulator and the robot's node, and says to them what the rest of a station would."""

    def __init__(self, directory: Path, *simulator: str, node: tuple[str, ...] = ()) -> None:
        environment = {**os.environ, "ROBOT_CHARGER_SIM": str(directory), REALTIME: "1"}
        self.processes = [
            subprocess.Popen([sys.executable, "-m", *words], env=environment)
            for words in (["robot_charger.sim.arm", *simulator], ["robot_charger.robot.node", *node])
        ]
        self.zone, self.number, self.rounds = CONTACT, 1, 0
        self.field_clear, self.immobilised, self.emergency = True, True, False
        self.present, self.locked = False, False
        self.state = msg.RobotState()
        self.faults: list[msg.Fault] = []
        self.trajectories: list[Any] = []
        self.feedback: list[Any] = []
        self.news = threading.Condition()
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("yard", context=self.context, use_global_arguments=False)
        self.listen("/robot/state", None, self._on_state)
        self.listen("/fault", None, self.faults.append)
        self.listen("/robot/joint_trajectory", None, self.trajectories.append)
        self._permit, self._bay, self._safety = (
            self.node.create_publisher(kind, name, qos)
            for name, kind, qos in (topic("robot/permit", 1), topic("bay/state", 1), topic("/safety/state"))
        )
        self._change = self.node.create_client(ChangeState, "/robot/change_state")
        self._clients = {
            kind: ActionClient(self.node, kind, name)
            for kind, name in (
                (action.Connect, "/robot/connect"),
                (action.Release, "/robot/release"),
                (action.Disconnect, "/robot/disconnect"),
            )
        }
        self.wires = WireEnd("vehicle1", directory)
        self.cli = WireEnd("cli", directory)
        self.going = True
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._threads = [threading.Thread(target=t, daemon=True) for t in (self._spin, self._feed)]
        for thread in self._threads:
            thread.start()

    def listen(self, name: str, evse: int | None, callback: Callable[[Any], None]) -> None:
        full, kind, qos = topic(name, evse)
        self.node.create_subscription(kind, full, callback, qos)

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException):
            while self.going:
                self._executor.spin_once(timeout_sec=0.1)

    def _feed(self) -> None:
        while self.going:
            now = now_ns()
            if self.zone is not None:
                self._permit.publish(fill(msg.MotionPermit(), stamp_ns=now, number=self.number, evse=1, zone=self.zone))
            bay = msg.BayState(stamp_ns=now, occupied=self.present, immobilised=self.immobilised)
            bay.field_clear = self.field_clear
            self._bay.publish(bay)
            self._safety.publish(msg.SafetyState(stamp_ns=now, alive=True, emergency_stop=self.emergency))
            self.wires.send("arm", {"present": self.present, "locked": self.locked})
            with self.news:
                self.rounds += 1
                self.news.notify_all()
            time.sleep(0.05)

    def _on_state(self, message: msg.RobotState) -> None:
        with self.news:
            self.state = message
            self.news.notify_all()

    def until(self, condition: Callable[[msg.RobotState], bool], timeout_s: float = 40.0) -> msg.RobotState:
        with self.news:
            assert self.news.wait_for(lambda: condition(self.state), timeout_s), f"last: {self.state}"
            return self.state

    def until_truth(self, condition: Callable[[dict[str, Any]], bool], timeout_s: float = 10.0) -> dict[str, Any]:
        """Newest signals of the arm to the command line once they are as wanted."""
        deadline = time.monotonic() + timeout_s
        while not condition(self.cli.signals("arm")):
            assert time.monotonic() < deadline, f"last: {self.cli.signals('arm')}"
            time.sleep(0.02)
        return self.cli.signals("arm")

    def bring_up(self) -> None:
        assert self._change.wait_for_service(timeout_sec=30.0)
        for number in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
            assert self._wait(self._change.call_async(ChangeState.Request(transition=Transition(id=number)))).success
        self.until(lambda s: s.mode == s.MODE_PARKED)

    def calm(self) -> None:
        """Permit, no emergency, no breach; until the node must have heard it."""
        self.zone, self.emergency, self.field_clear, self.immobilised = CONTACT, False, True, True
        rounds = self.rounds
        with self.news:
            assert self.news.wait_for(lambda: self.rounds > rounds + 1, 10.0)
        stamp = now_ns()
        self.until(lambda s: s.stamp_ns > stamp)

    def arrive(self) -> None:
        visits = self.until_truth(bool)["visits"]
        self.present = True
        self.until_truth(lambda t: t["visits"] == visits + 1)

    def leave(self) -> None:
        self.present = False
        self.until_truth(lambda t: not t["present"])

    def fault(self, name: str, on: bool) -> None:
        self.cli.send("arm", {"fault": name, "on": on})

    def send(self, kind: Any, **goal: Any) -> Any:
        """Send a goal; the handle once it is accepted."""
        client = self._clients[kind]
        assert client.wait_for_server(timeout_sec=20.0)
        # In the executor's thread: rclpy throws an answer away that comes before the request is noted.
        send = partial(client.send_goal_async, kind.Goal(**goal), feedback_callback=self._on_feedback)
        handle = self._wait(self._wait(self._executor.create_task(send)))
        assert handle.accepted
        return handle

    def _on_feedback(self, message: Any) -> None:
        self.feedback.append(message.feedback)

    def result(self, handle: Any, timeout_s: float = 120.0) -> Any:
        return self._wait(handle.get_result_async(), timeout_s).result

    def act(self, kind: Any, **goal: Any) -> Any:
        return self.result(self.send(kind, evse=1, **goal))

    def cancel(self, handle: Any) -> Any:
        return self._wait(handle.cancel_goal_async())

    @staticmethod
    def _wait(future: Any, timeout_s: float = 30.0) -> Any:
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        assert done.wait(timeout_s), "no answer"
        return future.result()

    def close(self) -> None:
        self.going = False
        for thread in self._threads:
            thread.join(timeout=2.0)
        for process in self.processes:
            process.terminate()
        codes = [process.wait(timeout=10.0) for process in self.processes]
        self.wires.close()
        self.cli.close()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)
        assert codes == [0, 0], codes
