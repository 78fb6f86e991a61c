"""A node whose callback or thread raises makes its outputs safe, reports it, and ends with a status other than 0."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.integration

NODE = """
import sys
from dataclasses import dataclass
from robot_charger.common.node import StationNode, run

@dataclass(frozen=True)
class Parameters:
    pass

class Node(StationNode):
    def __init__(self):
        super().__init__("broken", Parameters)
        if sys.argv[1] == "thread":
            self.thread("worker", self.work).start()
        elif sys.argv[1] == "callback":
            self.create_timer(0.01, lambda: self.guarded("a topic", self.work)(None))
        else:
            self.create_timer(0.01, self.work)

    def work(self, message=None):
        raise ValueError("a value that nobody thought of")

    def make_safe(self):
        print("made safe", flush=True)

run(Node)
"""


@pytest.mark.parametrize("where", ["thread", "callback", "timer"])
def test_what_is_not_expected_ends_the_process_loudly(where: str) -> None:
    done = subprocess.run([sys.executable, "-c", NODE, where], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "made safe" in done.stdout
    assert "a value that nobody thought of" in done.stderr and "internal" in done.stderr
