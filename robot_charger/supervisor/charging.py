"""The supervisor's action ``charge``: a whole session for whoever asks by ROS. Without ROS but for its messages."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from robot_charger import action
from robot_charger.common.topics import fill
from robot_charger.supervisor.inputs import Heard
from robot_charger.supervisor.model import Session
from robot_charger.words.values import ChargeResult, MeterReading, Phase, Shutdown, SupplyState, VehicleLink

RESULTS = {
    Shutdown.NONE: ChargeResult.COMPLETED,
    Shutdown.NORMAL: ChargeResult.COMPLETED,
    Shutdown.ERROR: ChargeResult.FAULTED,
    Shutdown.EMERGENCY: ChargeResult.FAULTED,
}


class Goal(Protocol):
    """action/Charge, its goal."""

    id_token: str
    token_type: str
    max_energy_wh: float


class Server(Protocol):
    """common.actions.OneGoalServer."""

    @property
    def busy(self) -> bool: ...

    def feedback(self, message: object) -> None: ...

    def finish(self, result: object, well: bool) -> None: ...


class ChargeAction:
    """One goal at a time. ``lock`` guards ``heard``; ``show`` gets a goal's token; ``changed`` is called on news."""

    server: Server

    def __init__(
        self,
        heard: Heard,
        lock: AbstractContextManager[object],
        show: Callable[[str, str], None],
        changed: Callable[[], None],
    ) -> None:
        self._heard, self._lock, self._show, self._changed = heard, lock, show, changed
        self._meter_start: tuple[float, float] | None = None

    def begin(self) -> None:
        """A new session: its energy counts from now."""
        self._meter_start = None

    @staticmethod
    def refuses(goal: Goal) -> str:
        """Why a goal cannot be, or ''."""
        return "" if goal.max_energy_wh >= 0.0 else f"max_energy_wh = {goal.max_energy_wh:g} is no energy: 0 or more"

    def started(self, goal: Goal) -> None:
        with self._lock:
            if goal.id_token:
                self._show(goal.id_token, goal.token_type)
        self._changed()

    def cancelled(self) -> None:
        with self._lock:
            self._heard.stop_asked = "Local"
        self._changed()

    def drive(self, before: Session, s: Session) -> None:
        """Feedback while it goes, the result when the session ends."""
        if not self.server.busy:
            return
        meter = self._heard.newest.of(MeterReading)
        if meter is not None and self._meter_start is None and s.phase >= Phase.LINKING:
            self._meter_start = (meter.import_wh, meter.export_wh)
        imported = meter.import_wh - self._meter_start[0] if meter and self._meter_start else 0.0
        exported = meter.export_wh - self._meter_start[1] if meter and self._meter_start else 0.0
        if s.phase == before.phase:
            return
        if s.phase in (Phase.DEPARTING, Phase.FAULTED):
            stopped = s.stop_reason in ("Remote", "Local", "DeAuthorized") and not s.fault
            outcome = ChargeResult.STOPPED if stopped else RESULTS[s.shutdown]
            result = fill(
                action.Charge.Result(),
                result=outcome,
                session_id=s.session_id,
                stop_reason=s.stop_reason,
                fault=s.fault,
                energy_wh=imported,
                exported_wh=exported,
                text=s.text,
            )
            self.server.finish(result, outcome != ChargeResult.FAULTED)
            return
        power, link = self._heard.newest.of(SupplyState), self._heard.newest.of(VehicleLink)
        self.server.feedback(
            fill(
                action.Charge.Feedback(),
                phase=s.phase,
                soc=link.soc if link else -1.0,
                power_w=power.power_w if power else 0.0,
                energy_wh=imported,
            )
        )
