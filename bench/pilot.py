"""How soon others hear that a vehicle left state C: ``python bench/pilot.py [--json FILE] [--seed S]``.

Runs the pilot node with its simulated board; this process is the vehicle on the wire and listens to pilot/state.
JSON keys: ``leave_c_ms`` {p50, p99, max} from the resistor's change until the message leaves, ``heard_ms`` the same
until it arrives here, ``period_ms`` {p50, p99} of pilot/state. The vehicle leaves at a random moment after each C
(``--seed``), so that the sampling is met at every place of its period. Target: 20 ms.
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
from pathlib import Path
from typing import Any

B_OHM, C_OHM = 2740.0, 882.0
PAUSE_S = 0.05  # at most, between reaching C and leaving it


def share(values: list[float], part: float) -> float:
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * part))], 2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", default="")
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="of the moments at which the vehicle leaves")
    args = parser.parse_args()
    from robot_charger.common import host_only
    from robot_charger.common.domain import free_domain
    from robot_charger.common.wires import WireEnd

    host_only.stay()

    directory = Path(tempfile.mkdtemp(prefix="rc-", dir="/tmp"))
    os.environ["ROBOT_CHARGER_SIM"] = str(directory)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        if "ROS_DOMAIN_ID" not in os.environ:
            os.environ["ROS_DOMAIN_ID"] = str(stack.enter_context(free_domain()))
        wire = WireEnd("vehicle1", directory)
        stack.callback(wire.close)
        node = [sys.executable, "-m", "robot_charger.pilot.node", "--ros-args", "-r", "__ns:=/evse1"]
        process = subprocess.Popen(node)
        stack.callback(process.wait)
        stack.callback(process.terminate)
        result = measure(wire, args.times, random.Random(args.seed))
    print(json.dumps(result, indent=2))
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=2) + "\n")
    return 0


def measure(wire: Any, times: int, moments: random.Random) -> dict[str, Any]:
    import rclpy
    from lifecycle_msgs.msg import Transition
    from lifecycle_msgs.srv import ChangeState

    from robot_charger import msg
    from robot_charger.common.topics import topic

    rclpy.init()
    node = rclpy.create_node("bench")
    heard: list[tuple[float, int, float]] = []
    stamps: list[int] = []

    def keep(state: msg.PilotState) -> None:
        heard.append((time.monotonic(), state.state, state.stamp_ns / 1e9))
        stamps.append(state.stamp_ns)

    name, kind, qos = topic("pilot/state", 1)
    node.create_subscription(kind, name, keep, qos)
    client = node.create_client(ChangeState, "/evse1/pilot/change_state")
    client.wait_for_service(timeout_sec=30.0)
    for number in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
        request = ChangeState.Request(transition=Transition(id=number))
        rclpy.spin_until_future_complete(node, client.call_async(request), timeout_sec=30.0)
    ohm = [C_OHM]
    going = threading.Event()

    def load() -> None:
        while not going.wait(0.05):
            wire.send("pilot1", {"cp_ohm": ohm[0], "diode": True, "pp_ohm": 1500.0})

    feeder = threading.Thread(target=load)
    feeder.start()
    left: list[float] = []
    arrived: list[float] = []
    try:
        for _ in range(times):
            ohm[0] = C_OHM
            until(node, heard, msg.PilotState.STATE_C)
            time.sleep(moments.uniform(0.0, PAUSE_S))
            begun = time.monotonic()
            ohm[0] = B_OHM
            wire.send("pilot1", {"cp_ohm": B_OHM, "diode": True, "pp_ohm": 1500.0})
            at, _, sent = until(node, heard, msg.PilotState.STATE_B, begun)
            left.append((sent - begun) * 1e3)
            arrived.append((at - begun) * 1e3)
    finally:
        going.set()
        feeder.join()
        rclpy.try_shutdown()
    periods = [(b - a) / 1e6 for a, b in itertools.pairwise(stamps)]
    return {
        "leave_c_ms": summary(left),
        "heard_ms": summary(arrived),
        "period_ms": {"p50": share(periods, 0.5), "p99": share(periods, 0.99)},
    }


def summary(values: list[float]) -> dict[str, float]:
    return {"p50": share(values, 0.5), "p99": share(values, 0.99), "max": round(max(values), 2)}


Heard = tuple[float, int, float]


def until(node: Any, heard: list[Heard], state: int, after: float = 0.0) -> Heard:
    """Spin until ``state`` is heard: (arrival, state, when it was sent) [s]."""
    import rclpy

    deadline = time.monotonic() + 20.0
    seen = len(heard)
    while time.monotonic() < deadline:
        for message in heard[seen:]:
            if message[1] == state and message[0] >= after:
                return message
        seen = len(heard)
        rclpy.spin_once(node, timeout_sec=0.1)
    raise SystemExit(f"state {state} was not heard within 20 s")


if __name__ == "__main__":
    sys.exit(main())
