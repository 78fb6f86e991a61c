"""The desk's wires: signals between a simulated driver and its simulator, or between two simulators.

On a station there are real wires; on a desk each simulated part owns one Unix datagram socket in the run
directory (environment variable ``ROBOT_CHARGER_SIM``) and sends its present signals to whoever is wired to it.
A datagram is one JSON object {"from": name, "t": monotonic ns, "signals": {...}}. Signals are states, not
events: every datagram holds all signals of its sender, so a lost one costs nothing, and a reader judges age
by the stamp. Paths (not abstract names) are used because they cross network namespaces.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from robot_charger.common.clock import now_ns

RUN_DIRECTORY = "ROBOT_CHARGER_SIM"
MAX_DATAGRAM = 60_000
POLL_MOST = 100  # datagrams taken at a time


class WireError(RuntimeError):
    """The run directory is missing or an end of that name is already taken."""


def run_directory() -> Path:
    """Directory of this simulation run. Raises WireError when none is named."""
    value = os.environ.get(RUN_DIRECTORY)
    if not value or not Path(value).is_dir():
        raise WireError(
            f"a simulated driver needs a running simulation: {RUN_DIRECTORY} names no directory ({value or 'unset'})"
        )
    return Path(value)


class WireEnd:
    """One part's end of the wires, e.g. ``pilot1``, ``vehicle1``, ``rack``, ``safety``, ``arm``, ``plc1``.

    A reader thread keeps the newest signals of every sender. ``age_s(peer)`` and ``signals(peer)`` read them;
    ``on_signals`` is called in the reader thread for each datagram. With ``threaded`` false there is no such
    thread: whoever has a cycle of its own calls ``poll`` in it, and is woken by nothing in between.
    """

    def __init__(
        self,
        name: str,
        directory: Path | None = None,
        on_signals: Callable[[str, dict[str, Any]], None] | None = None,
        threaded: bool = True,
    ) -> None:
        self.name = name
        self.bad = 0
        self._directory = directory or run_directory()
        self._path = self._directory / f"{name}.wire"
        self._lock = threading.Lock()
        self._last: dict[str, tuple[int, dict[str, Any]]] = {}
        self._on_signals = on_signals
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()  # left by a predecessor that was killed
        self._socket.bind(str(self._path))
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        if threaded:
            self._thread = threading.Thread(target=self._read, name=f"wires-{name}", daemon=True)
            self._thread.start()

    def send(self, peer: str, signals: dict[str, Any]) -> bool:
        """Tell ``peer`` all of this end's signals. False when nobody is there or it is too slow to listen."""
        data = json.dumps({"from": self.name, "t": now_ns(), "signals": signals}).encode()
        try:
            self._socket.sendto(data, socket.MSG_DONTWAIT, f"{self._directory}/{peer}.wire")
            return True
        except OSError:
            return False

    def signals(self, peer: str) -> dict[str, Any]:
        """Newest signals of ``peer``, empty when it never spoke."""
        with self._lock:
            return self._last.get(peer, (0, {}))[1]

    def age_s(self, peer: str) -> float:
        """Seconds since ``peer`` last spoke, infinite when never."""
        with self._lock:
            stamp = self._last.get(peer, (0, {}))[0]
        return (now_ns() - stamp) / 1e9 if stamp else float("inf")

    def close(self) -> None:
        self._closed.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        if self._thread is not None:
            self._thread.join(timeout=1.0)
        self._socket.close()
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()

    def poll(self) -> None:
        """Take what has arrived, without waiting; for an end that is not ``threaded``."""
        for _ in range(POLL_MOST):
            try:
                data = self._socket.recv(MAX_DATAGRAM, socket.MSG_DONTWAIT)
            except OSError:
                return
            self._take(data)

    def _read(self) -> None:
        self._socket.settimeout(0.2)
        while not self._closed.is_set():
            try:
                data = self._socket.recv(MAX_DATAGRAM)
            except TimeoutError:
                continue
            except OSError:
                return
            self._take(data)

    def _take(self, data: bytes) -> None:
        try:
            message = json.loads(data)
            sender, stamp, signals = str(message["from"]), int(message["t"]), dict(message["signals"])
        except (ValueError, KeyError, TypeError):
            self.bad += 1
            return
        with self._lock:
            if stamp < self._last.get(sender, (0, {}))[0]:
                return
            self._last[sender] = (stamp, signals)
        if self._on_signals:
            self._on_signals(sender, signals)
