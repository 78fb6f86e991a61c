"""How a process of the station begins and ends, with or without ROS."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

PARENT = "ROBOT_CHARGER_PARENT"  # pid of the command line tool, or of ros2 launch, that started this process
REALTIME = "ROBOT_CHARGER_REALTIME"  # 1: simulators too run under SCHED_FIFO
_PR_SET_PDEATHSIG = 1
BAD_USAGE = 2


def refuse(text: str) -> NoReturn:
    """One line for a person and exit status 2."""
    print(text.replace("\n", " "), file=sys.stderr, flush=True)
    raise SystemExit(BAD_USAGE)


def log_directory() -> Path | None:
    """Where rclpy writes its logs, by the rules of rcl_logging; None when there is no home to put them into."""
    home = os.environ.get("ROS_HOME") or (os.environ.get("HOME") and "~/.ros")
    name = os.environ.get("ROS_LOG_DIR") or (home and f"{home}/log")
    return Path(name).expanduser() if name else None


def log_trouble() -> str:
    """Why rclpy could not write its logs, and so not start; empty when it can. Only looks."""
    path = log_directory()
    if path is None:
        return "ROS has no place for its logs: HOME is not set"
    place = path
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    if place.is_dir() and os.access(place, os.W_OK | os.X_OK):
        return ""
    return f"ROS cannot write its logs to {path}"


LOG_REMEDY = "export ROS_LOG_DIR=/tmp/ros-log  (or another folder that may be written)"


def require_logs() -> None:
    """End with one line where rclpy.init() would raise for want of a log folder."""
    if trouble := log_trouble():
        refuse(f"{trouble}; {LOG_REMEDY}")


def end_with_parent() -> None:
    """Ask the kernel for SIGTERM when the tool or launch that started this process dies, even by kill -9."""
    parent = os.environ.get(PARENT)
    if not parent:
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if not _is_ancestor(int(parent)):
        os.kill(os.getpid(), signal.SIGTERM)


def parent_gone() -> bool:
    """True when a command line tool started this process and is no longer there."""
    parent = os.environ.get(PARENT)
    return bool(parent) and not _is_ancestor(int(parent or 0))


def _is_ancestor(pid: int) -> bool:
    """Usually the parent; with ``ros2 launch --launch-prefix`` a debugger stands between."""
    process = os.getppid()
    while process not in (0, pid):
        try:
            process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            return False
    return process == pid


def end_quietly() -> None:
    """Ignore SIGINT and SIGTERM from here on: a second one would kill the process while Python ends."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def realtime(priority: int) -> bool:
    """SCHED_FIFO for this thread, and one below it for the process's others, which share the interpreter's lock.

    False where the system does not allow it (it takes CAP_SYS_NICE or an rtprio limit). Threads started later
    inherit the caller's priority.
    """
    try:
        for task in os.listdir("/proc/self/task"):
            with contextlib.suppress(ProcessLookupError):
                os.sched_setscheduler(int(task), os.SCHED_FIFO, os.sched_param(priority - 1))
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    except OSError:
        return False
    return True


def simulator_realtime(priority: int) -> bool:
    """As ``realtime``, for a simulator: only when asked for by REALTIME, for a desk has too few cores to spare."""
    return os.environ.get(REALTIME) == "1" and realtime(priority)


class StopSignal:
    """SIGINT and SIGTERM as an event, for a process whose last act is to make things safe."""

    def __init__(self) -> None:
        self.event = threading.Event()
        signal.signal(signal.SIGTERM, self._handle)
        signal.signal(signal.SIGINT, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.event.set()

    def wait(self, timeout_s: float | None = None) -> bool:
        return self.event.wait(timeout_s)


def outlive_parent(stop: StopSignal, is_safe: Callable[[], bool], grace_s: float = 2.0) -> None:
    """Block until asked to stop; when the parent dies, stay until the outside is safe or grace_s has passed."""
    while not stop.wait(0.1):
        if parent_gone():
            deadline = time.monotonic() + grace_s
            while time.monotonic() < deadline and not is_safe():
                stop.wait(0.02)
            return
