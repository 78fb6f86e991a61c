"""Ctrl-C for a tool that has children: the tool alone takes the signal, and counts."""

from __future__ import annotations

import signal
from types import FrameType


class Interrupts:
    """Counts SIGINT, SIGTERM and SIGHUP: the first ends in order, the second in a hurry. Main thread only."""

    def __init__(self) -> None:
        self.count = 0
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.count += 1

    def hurry(self) -> bool:
        return self.count > 1
