"""``robot-charger watch``: the live terminal of a running station, with keys to authorise, stop and reset.

It is a listener like any other; what the keys do goes the public ways: backend/request and the service reset.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from robot_charger import msg, srv
from robot_charger.common.clock import now_ns
from robot_charger.common.topics import fill, topic
from robot_charger.desk.observer import Observer
from robot_charger.desk.view import View

_STATE_TOPIC = re.compile(r"^/evse(\d+)/session/state$")
DISCOVERY_S = 3.0
HELP = "a authorise  s stop  r reset  1-9 choose the EVSE  q quit"


class WatchError(RuntimeError):
    """Nothing to watch; one line for a person."""


def find_evses(wait_s: float = DISCOVERY_S) -> list[int]:
    """Numbers of the EVSEs whose supervisors are heard. Raises WatchError when there is none."""
    import rclpy

    context = rclpy.Context()
    context.init()
    node = rclpy.create_node("watch_discovery", context=context, enable_rosout=False, start_parameter_services=False)
    try:
        deadline = time.monotonic() + wait_s
        found: list[int] = []
        settled = 0.0
        while time.monotonic() < deadline:
            names = (_STATE_TOPIC.match(name) for name, _ in node.get_topic_names_and_types())
            numbers = sorted(int(m[1]) for m in names if m)
            if numbers and numbers == found and time.monotonic() - settled > 0.5:
                return found
            if numbers != found:
                found, settled = numbers, time.monotonic()
            time.sleep(0.05)
    finally:
        node.destroy_node()
        context.shutdown()
    if found:
        return found
    domain = os.environ.get("ROS_DOMAIN_ID", "0")
    scope = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")
    raise WatchError(
        f"no station is heard on ROS_DOMAIN_ID={domain}, ROS_AUTOMATIC_DISCOVERY_RANGE={scope}: "
        "use the values the station was started with (the demo prints them)"
    )


class Controls:
    """What the keys do. ``said`` is the last answer, for the bottom line."""

    def __init__(self, observer: Observer, token: str = "", token_type: str = "Central") -> None:
        self._observer = observer
        self._token, self._token_type = token, token_type
        self.evse = min(observer.seen)
        self.said = ""
        self._requests = {}
        self._resets = {}
        for evse in observer.seen:
            name, kind, qos = topic("backend/request", evse)
            self._requests[evse] = observer.node.create_publisher(kind, name, qos)
            self._resets[evse] = observer.node.create_client(srv.ResetFault, f"/evse{evse}/reset")

    def press(self, key: str) -> bool:
        """Do what the key says; False when watching ends."""
        if key in ("q", "\x03", "\x04"):
            return False
        if key.isdigit():
            if int(key) in self._observer.seen:
                self.evse = int(key)
                self.said = f"EVSE {key} is chosen"
            else:
                self.said = f"there is no EVSE {key}"
        elif key == "a":
            self._authorise()
        elif key == "s":
            self._request(msg.BackendRequest.KIND_STOP, text="stopped at the terminal")
            self.said = f"asked EVSE {self.evse} to stop"
        elif key == "r":
            self._reset()
        return True

    def _authorise(self) -> None:
        if not self._token:
            self.said = "no token to authorise with: start watch with --token"
            return
        self._request(
            msg.BackendRequest.KIND_START, id_token=self._token, token_type=self._token_type, text="at the terminal"
        )
        self.said = f"asked to authorise EVSE {self.evse}; the back end decides"

    def _request(self, kind: int, **values: str) -> None:
        request = fill(msg.BackendRequest(), stamp_ns=now_ns(), kind=kind, **values)
        self._requests[self.evse].publish(request)

    def _reset(self) -> None:
        client, evse = self._resets[self.evse], self.evse
        if not client.service_is_ready():
            self.said = f"the supervisor of EVSE {evse} does not answer"
            return
        self.said = f"asked EVSE {evse} to reset"
        future = client.call_async(srv.ResetFault.Request(acknowledged_by=f"{getpass.getuser()} at the terminal"[:80]))

        def answered(done: object) -> None:
            result = future.result()
            word = "reset" if result.accepted else "not reset"
            self.said = f"EVSE {evse} {word}: {result.text}"

        future.add_done_callback(answered)


@contextlib.contextmanager
def keys() -> Iterator[bool]:
    """Single keys from the terminal while inside; False where there is none."""
    if not sys.stdin.isatty():
        yield False
        return
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield True
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def read_key(wait_s: float) -> str:
    """One key, empty when none came."""
    if select.select([sys.stdin], [], [], wait_s)[0]:
        return os.read(sys.stdin.fileno(), 1).decode(errors="replace") or "q"
    return ""


def render(view: View, controls: Controls) -> Group:
    line = Text(f"EVSE {controls.evse}  {HELP}", style="dim")
    return Group(view.render(), line, Text(controls.said, style="bold"))


def watch(evses: list[int], token: str, console: Console | None = None) -> None:
    """Show the station until q or Ctrl-C."""
    console = console or Console()
    observer = Observer(evses, name="watch")
    try:
        controls = Controls(observer, token)
        view = View(console, observer, "station")
        with keys() as interactive, contextlib.suppress(KeyboardInterrupt):
            if not (interactive and console.is_terminal):
                while True:
                    view.tick()
                    time.sleep(0.25)
            with Live(render(view, controls), console=console, refresh_per_second=8, screen=False) as live:
                while controls.press(key) if (key := read_key(0.25)) else True:
                    live.update(render(view, controls))
    finally:
        observer.close()
