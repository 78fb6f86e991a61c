"""What the middleware itself notices of the topics that a node listens to: which stream stutters, who is gone.

No reaction waits for it: what decides judges the age of each message (docs/safety.md). This tells a person which stream
it was, on /diagnostics and in the log.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from rclpy.event_handler import SubscriptionEventCallbacks


class Listening:
    """Deadlines missed (DDS 1.4, 2.2.3.7) and publishers lost (2.2.3.11) of one node's subscriptions, by topic."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._late: dict[str, int] = {}
        self._gone: set[str] = set()

    def callbacks(self, topic: str) -> SubscriptionEventCallbacks:
        """What a subscription to ``topic`` is made with."""
        return SubscriptionEventCallbacks(deadline=partial(self.late, topic), liveliness=partial(self.lives, topic))

    def late(self, topic: str, status: Any) -> None:
        """``status.total_count`` deadlines were missed so far."""
        self._late[topic] = status.total_count

    def lives(self, topic: str, status: Any) -> None:
        """``status.alive_count`` publishers live, ``status.not_alive_count`` are silent without having said goodbye."""
        gone = status.alive_count == 0 and status.not_alive_count > 0
        if gone and topic not in self._gone:
            self._gone.add(topic)
            self._say(f"{topic}: who publishes it has fallen silent")
        elif status.alive_count > 0 and topic in self._gone:
            self._gone.discard(topic)
            self._say(f"{topic}: is published again")

    def values(self) -> dict[str, str]:
        """For /diagnostics; empty while all is well."""
        values = {f"{topic} late": f"{count} times" for topic, count in sorted(self._late.items())}
        return {**values, **{f"{topic} publisher": "silent" for topic in sorted(self._gone)}}
