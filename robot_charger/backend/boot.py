"""When the station says BootNotification, and what its registration is (OCPP 1.6 4.2; 2.0.1 B01 to B03). No I/O.

Accepted: everything goes. Pending: only what the CSMS asked for goes out, and nothing is started. Rejected: nothing.
An answer without one of these statuses, a CALLERROR or no answer is no registration: the station asks again soon.
"""

from __future__ import annotations

from dataclasses import dataclass

from robot_charger.backend.records import Now, Payload

RETRY_S = (2.0, 5.0, 10.0, 30.0)  # after a BootNotification that got no status
WAIT_S = 30.0  # where the CSMS names no interval
LONGEST_WAIT_S = 3600.0
LONGEST_HEARTBEAT_S = 86_400
STATUSES = ("Accepted", "Pending", "Rejected")
NOT_YET = (  # what a station that is not accepted does not do
    "RequestStartTransaction",
    "RequestStopTransaction",
    "RemoteStartTransaction",
    "RemoteStopTransaction",
    "ReserveNow",
)


@dataclass
class Boot:
    """``registration``: None (not known yet), Accepted, Pending or Rejected. ``reason`` is a 2.x BootReasonEnumType."""

    reason: str = "PowerUp"
    registration: str = "None"
    text: str = ""  # what is wrong, for a person
    _tries: int = 0
    _due_ns: int = 0

    @property
    def accepted(self) -> bool:
        return self.registration == "Accepted"

    def due_in(self, now: Now) -> float:
        """Seconds until the next BootNotification; 0 when it is due."""
        return max(0.0, -now.since(self._due_ns))

    def asked(self, now: Now) -> None:
        """It is being sent: without a good answer the next comes soon."""
        wait = RETRY_S[min(self._tries, len(RETRY_S) - 1)]
        self._tries += 1
        self._due_ns = now.mono_ns + int(wait * 1e9)
        self.text = "the CSMS does not answer BootNotification"

    def failed(self, text: str) -> None:
        self.text = f"BootNotification got no status, it is sent again: {text}"

    def answered(self, answer: Payload, now: Now) -> int | None:
        """The heartbeat interval [s] once accepted, 0 when none is named; None when not accepted."""
        status, interval = answer.get("status"), answer.get("interval")
        interval = interval if isinstance(interval, int) and interval > 0 else 0
        if status not in STATUSES:
            self.text = "the CSMS's answer to BootNotification has no status"
            return None
        self._tries = 0
        self.registration = status
        if status == "Accepted":
            self.text, self.reason = "", "ApplicationReset"
            return min(interval, LONGEST_HEARTBEAT_S)
        self.text = f"the CSMS answers BootNotification with {status}"
        self._due_ns = now.mono_ns + int((min(interval, LONGEST_WAIT_S) or WAIT_S) * 1e9)
        return None

    def again(self, reason: str = "") -> None:
        """Boot at once; with a reason the station restarted and is not accepted any more."""
        self._due_ns = self._tries = 0
        if reason:
            self.registration, self.reason = "None", reason
