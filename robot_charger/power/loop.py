"""The control thread: reads the buses as frames arrive, runs the cycle at absolute deadlines, sends.

One thread does all of it, so that no frame waits for another thread's turn. It never touches ROS.
"""

from __future__ import annotations

import contextlib
import selectors
import threading
import time
from collections.abc import Callable

import can

from robot_charger.common.can_bus import FramePort
from robot_charger.common.clock import now_ns
from robot_charger.common.process import realtime
from robot_charger.power.control import Control

PERIOD_S = 0.010
LATE_S = 0.010  # a cycle whose frames leave later than this is a missed one
GATHER_S = 0.002  # frames that come together are taken together: one wake-up, not one each
CONTROL_PRIORITY = 50
SHUT_FRAMES = 3


class ControlLoop:
    """Runs a Control on its buses. ``missed`` counts cycles whose frames left more than 10 ms late.

    When the control raises, the loop sends what switches everything off, then calls ``failed`` and ends.
    """

    def __init__(
        self,
        control: Control,
        ports: list[FramePort],
        realtime: bool = True,
        failed: Callable[[BaseException], None] | None = None,
    ) -> None:
        self.control = control
        self.ports = ports
        self.missed = 0
        self.latest_s = 0.0
        self.realtime = False
        self.error = ""
        self._want_realtime = realtime
        self._failed = failed
        self._stop = threading.Event()
        self._stopping_at: float | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="power-control", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def stop(self, timeout_s: float = 1.5) -> bool:
        """Zero set-points, contactors open, then end. False when the outside was not seen safe in time."""
        if not self._thread.is_alive():
            return self.control.safe
        self._stopping_at = time.monotonic() + timeout_s
        self.control.stopping = True
        self._thread.join(timeout_s + 0.5)
        self._stop.set()
        return self.control.safe

    def _run(self) -> None:
        try:
            self._cycles()
        except Exception as error:
            self._shut()
            if self._failed is None:
                raise
            self._failed(error)

    def _shut(self) -> None:
        """All off, more than once: a frame may be lost. What cannot be sent is left to the modules' own watchdogs."""
        for _ in range(SHUT_FRAMES):
            with contextlib.suppress(Exception):
                for bus, ids, data in self.control.shut():
                    self.ports[bus].write(ids, data)

    def _cycles(self) -> None:
        if self._want_realtime:
            self.realtime = realtime(CONTROL_PRIORITY)
        with selectors.DefaultSelector() as selector:
            # Only the first bus carries what may be urgent: the safety controller. The others are read every cycle.
            if self.ports[0].socket is not None:
                selector.register(self.ports[0].socket, selectors.EVENT_READ)
            deadline = time.monotonic() + PERIOD_S
            while not self._stop.is_set():
                urgent = self._listen(selector, deadline)
                now = time.monotonic()
                if now < deadline and not urgent:
                    continue
                self._cycle()
                if now >= deadline:
                    late = time.monotonic() - deadline
                    self.latest_s = max(self.latest_s, late)
                    behind = int(late / PERIOD_S) if late > LATE_S else 0
                    self.missed += behind
                    deadline += (behind + 1) * PERIOD_S
                if self._stopping_at is not None and self._stopped():
                    return

    def _listen(self, selector: selectors.BaseSelector, deadline: float) -> bool:
        """Take what has come after a moment, or by the deadline; True when something is urgent."""
        left = deadline - time.monotonic()
        if left > 0.0:
            time.sleep(min(left, GATHER_S))
            if selector.get_map():
                selector.select(max(0.0, deadline - time.monotonic()))
        due = time.monotonic() >= deadline  # the cycle sees all that is there
        urgent = False
        for bus in range(len(self.ports) if due else 1):
            try:
                for batch in self.ports[bus].read():
                    urgent |= self.control.take(bus, batch, now_ns())
            except (can.CanError, OSError) as error:
                self.error = str(error)
        return urgent

    def _cycle(self) -> None:
        for bus, ids, data in self.control.step(now_ns()):
            self.ports[bus].write(ids, data)

    def _stopped(self) -> bool:
        """Whether the loop may end: it has seen all safe, or its time is up."""
        assert self._stopping_at is not None
        return self.control.safe or time.monotonic() > self._stopping_at
