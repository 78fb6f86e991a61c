"""Ordered bring-up: which life-cycle transition each managed node needs next.

All are configured as soon as they appear; each is activated once all before it in the given order are active. A
respawned node (unconfigured again) is brought up anew without touching the others. Nodes of the whole station are
brought up by every supervisor: who comes second is refused, without an answer, and finds them where they should be.
"""

from __future__ import annotations

from dataclasses import dataclass, field

CONFIGURE, ACTIVATE = "configure", "activate"
REACHED = {CONFIGURE: ("inactive", "active"), ACTIVATE: ("active",)}
RETRY_S = 1.0  # between two tries of a transition that failed
ANSWER_S = 5.0  # an answer can get lost while the two are still discovering each other


@dataclass
class Bringup:
    """``names`` in order. ``state`` maps a name to unconfigured, inactive, active, finalized, or '' for unknown."""

    names: list[str]
    state: dict[str, str] = field(default_factory=dict)
    tried: dict[str, float] = field(default_factory=dict)
    asked: dict[str, str] = field(default_factory=dict)  # transition not answered yet

    def heard(self, name: str, state: str) -> bool:
        """Note a node's state. True when it was active before and is not now: it was restarted or fell."""
        fell = self.state.get(name) == "active" and state != "active"
        self.state[name] = state
        if not state or state in REACHED.get(self.asked.get(name, ""), ()):
            self.asked.pop(name, None)  # whoever was asked is gone, or got there, perhaps at another's request
        return fell

    def next(self, now: float) -> list[tuple[str, str]]:
        """Transitions to ask for now."""
        wanted = []
        before_active = True
        for name in self.names:
            state = self.state.get(name, "")
            if name in self.asked and now - self.tried[name] > ANSWER_S:
                del self.asked[name]
                self.state[name] = state = ""  # look again before asking again
            transition = CONFIGURE if state == "unconfigured" else None
            if state == "inactive" and before_active:
                transition = ACTIVATE
            before_active = before_active and state == "active"
            if transition and name not in self.asked and now - self.tried.get(name, -RETRY_S) >= RETRY_S:
                wanted.append((name, transition))
                self.tried[name] = now
                self.asked[name] = transition
        return wanted

    def done(self, name: str, ok: bool) -> None:
        """The transition was answered; after a success the next may follow at once."""
        transition = self.asked.pop(name, "")
        if ok and transition:
            self.tried.pop(name, None)
            self.state[name] = {CONFIGURE: "inactive", ACTIVATE: "active"}[transition]

    @property
    def ready(self) -> bool:
        return all(self.state.get(name) == "active" for name in self.names)

    def missing(self) -> list[str]:
        return [name for name in self.names if self.state.get(name) != "active"]
