"""What the supervisor keeps over a restart: the emergency latch, the session that was interrupted, past faults.

One small JSON file, replaced whole. A file that cannot be read is taken for the worst: latched. The faults lie beside
it, one JSON object a line, the oldest first.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import deque
from pathlib import Path
from typing import Any

from robot_charger.common.faults import Code
from robot_charger.supervisor.model import Session
from robot_charger.words.values import Phase, Shutdown

INTERRUPTED = (
    Phase.CONNECTING,
    Phase.MATED,
    Phase.RELEASED,
    Phase.LINKING,
    Phase.CABLE_CHECK,
    Phase.PRECHARGE,
    Phase.CHARGING,
    Phase.STOPPING,
    Phase.GRASPED,
    Phase.DISCONNECTING,
)


def to_dict(s: Session) -> dict[str, Any]:
    return {"emergency_latched": s.emergency_latched, "phase": s.phase.name, "session_id": s.session_id}


def from_dict(kept: dict[str, Any], now: float) -> Session:
    """The session to begin with. An interrupted one goes on in STOPPING: nothing flows, the plug comes out.

    Raises KeyError, TypeError or ValueError when the content is not ours.
    """
    latched = bool(kept["emergency_latched"])
    phase, session_id = Phase[str(kept.get("phase", "UNAVAILABLE"))], str(kept.get("session_id", ""))
    if phase == Phase.FAULTED and session_id:
        return Session(phase=Phase.FAULTED, since=now, session_id=session_id, mated=True, emergency_latched=latched,
                       shutdown=Shutdown.EMERGENCY if latched else Shutdown.ERROR, stop_reason="Other",
                       fault=Code.EMERGENCY_STOP if latched else Code.NODE_LOST,
                       text="faulted before the restart: a person must look")  # fmt: skip
    if phase not in INTERRUPTED or not session_id:
        return Session(since=now, emergency_latched=latched)
    return Session(
        phase=Phase.STOPPING,
        since=now,
        session_id=session_id,
        mated=True,
        shutdown=Shutdown.ERROR,
        stop_reason="PowerLoss",
        fault=Code.NODE_LOST,
        emergency_latched=latched,
        text=f"interrupted in {phase.name.lower()}: the plug comes out",
    )


def load(path: Path, now: float) -> Session:
    if not path.exists():
        return Session(since=now)
    try:
        return from_dict(json.loads(path.read_text()), now)
    except (ValueError, KeyError, TypeError, OSError):
        return Session(since=now, emergency_latched=True, text="the memory cannot be read: reset on site")


def save(path: Path, s: Session) -> None:
    """Replace the file; on disk before this returns. Raises OSError."""
    temporary = path.with_suffix(".new")
    with temporary.open("w") as file:
        json.dump(to_dict(s), file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


class FaultHistory:
    """The last faults of one EVSE. Lines that are no JSON objects, as after a power cut, are passed over."""

    def __init__(self, path: Path, most: int = 500) -> None:
        """Raises OSError when the file is there and cannot be read."""
        self._path = path
        self.entries: deque[dict[str, Any]] = deque(maxlen=most)
        text = path.read_text(errors="replace") if path.exists() else ""
        lines = text.splitlines()
        self._lines = len(lines)
        self._torn = bool(text) and not text.endswith("\n")
        for line in lines:
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if isinstance(entry, dict):
                    self.entries.append(entry)

    def add(self, entry: dict[str, Any]) -> None:
        """Keep one more; the file is cut to the last ones when it has twice as many. Raises OSError."""
        self.entries.append(entry)
        if self._lines >= 2 * (self.entries.maxlen or 0):
            temporary = self._path.with_suffix(".new")
            temporary.write_text("".join(json.dumps(e) + "\n" for e in self.entries))
            temporary.replace(self._path)
            self._lines, self._torn = len(self.entries), False
            return
        with self._path.open("a") as file:
            file.write("\n" * self._torn + json.dumps(entry) + "\n")
        self._torn = False
        self._lines += 1
