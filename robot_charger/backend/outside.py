"""What the station needs of the world, and what the module of an OCPP version tells for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from robot_charger.backend.records import Call, Limit, ToVehicleSide
from robot_charger.common.faults import FaultReport

Answer = Callable[[dict[str, Any] | None], None]


class Outside:
    """The node and the client fill it in, tests record it."""

    def request(self, request: ToVehicleSide) -> None:
        """Publish on backend/request."""

    def limit(self, evse: int, limit: Limit) -> None:
        """Publish on backend/limit."""

    def fault(self, report: FaultReport) -> None:
        """Begin or end of a fault of the station."""

    def send(self, call: Call, answer: Answer | None = None) -> None:
        """Send a message that is not durable."""

    def queued(self) -> None:
        """The queue has something new."""

    def status_changed(self, evse: int) -> None:
        """The connector of this EVSE has another status."""

    def restart(self, reason: str) -> None:
        """Boot the OCPP side again; ``reason`` is a 2.x BootReasonEnumType."""


class Teller:
    """What the station has to say beside its records; the module of an OCPP version turns it into messages."""

    def reservation_ended(self, id: int, status: str) -> None:
        """``status`` is a 2.x ReservationUpdateStatusEnumType."""

    def external_limit(self, evse: int, limit: Limit) -> None:
        """Somebody else than the CSMS limits an EVSE, or no longer does."""

    def idle_reading(self, evse: int) -> None:
        """A reading by the clock where no transaction runs."""
