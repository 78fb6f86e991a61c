"""CPU of a node that listens: ``python bench/executor.py [--seconds S] [--json FILE] [--seed N]``.

One process publishes the topics that a supervisor hears, at the station's rates; another has a node with those
subscriptions, a timer and an action server's services, and spins it with rclpy's SingleThreadedExecutor, then with
common.executor. JSON keys: ``cpu_us_per_message`` {plain, lean}, ``messages`` {plain, lean}, ``ratio`` (plain / lean).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

TOPICS = {"pilot": 25.0, "power": 25.0, "target": 20.0, "link": 10.0, "robot": 10.0, "bay": 10.0, "safety": 20.0}


def publish(seconds: float, seed: int) -> None:
    import rclpy
    from std_msgs.msg import String

    rclpy.init()
    node = rclpy.create_node("publisher")
    publishers = {name: node.create_publisher(String, name, 1) for name in TOPICS}
    order = random.Random(seed)
    due = {name: time.monotonic() + order.random() / rate for name, rate in TOPICS.items()}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        name = min(due, key=due.__getitem__)
        time.sleep(max(0.0, due[name] - time.monotonic()))
        publishers[name].publish(String(data="x" * 100))
        due[name] += 1.0 / TOPICS[name]
    rclpy.try_shutdown()


def listen(kind: str, seconds: float) -> None:
    """Prints messages heard and the CPU microseconds each cost."""
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from std_msgs.msg import String

    from robot_charger.common.executor import LeanExecutor

    rclpy.init()
    node = rclpy.create_node("listener")
    heard = []
    for name in TOPICS:
        node.create_subscription(String, name, heard.append, 1)
    for number in range(4):
        node.create_publisher(String, f"out{number}", 1)
    node.create_timer(1.0, lambda: None)
    executor = (LeanExecutor if kind == "lean" else SingleThreadedExecutor)()
    executor.add_node(node)
    while not heard:
        executor.spin_once(timeout_sec=0.1)
    heard.clear()
    end, cpu = time.monotonic() + seconds, time.thread_time()
    while time.monotonic() < end:
        executor.spin_once(timeout_sec=0.1)
    print(len(heard), 1e6 * (time.thread_time() - cpu) / max(1, len(heard)))
    rclpy.try_shutdown()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", default="")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--role", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.role:
        publish(args.seconds, args.seed) if args.role == "publish" else listen(args.role, args.seconds)
        return 0
    from robot_charger.common import host_only
    from robot_charger.common.domain import free_domain

    host_only.stay()

    result: dict[str, dict[str, float]] = {"cpu_us_per_message": {}, "messages": {}}
    with free_domain() as domain:
        os.environ["ROS_DOMAIN_ID"] = os.environ.get("ROS_DOMAIN_ID", str(domain))
        command = [sys.executable, __file__, "--seed", str(args.seed), "--seconds"]
        for kind in ("plain", "lean"):
            talker = subprocess.Popen([*command, str(args.seconds + 5.0), "--role", "publish"])
            listener = [*command, str(args.seconds), "--role", kind]
            words = subprocess.run(listener, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
            talker.wait()
            result["messages"][kind], result["cpu_us_per_message"][kind] = int(words[0]), round(float(words[1]), 1)
    cost = result["cpu_us_per_message"]
    figures = {**result, "ratio": round(cost["plain"] / cost["lean"], 2)}
    print(json.dumps(figures, indent=2))
    if args.json:
        Path(args.json).write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
