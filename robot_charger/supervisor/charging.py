"""The supervisor's action ``charge``: a whole session for whoever asks by ROS."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.task import Future

from robot_charger import action
from robot_charger.common.terms import Phase, Shutdown
from robot_charger.common.topics import fill
from robot_charger.supervisor.inputs import Heard
from robot_charger.supervisor.model import Session

RESULTS = {Shutdown.NONE: 1, Shutdown.NORMAL: 1, Shutdown.ERROR: 3, Shutdown.EMERGENCY: 3}


class ChargeAction:
    """One goal at a time. ``lock`` guards ``heard``; ``asked`` gets a goal's token; ``told`` when there is news."""

    def __init__(
        self,
        node: Any,
        heard: Heard,
        lock: AbstractContextManager[Any],
        asked: Callable[[str, str], None],
        told: Callable[[], None],
    ) -> None:
        self._node, self._heard, self._lock, self._asked, self._told = node, heard, lock, asked, told
        self._goal: tuple[Any, Future] | None = None
        self._meter_start: tuple[float, float] | None = None
        self._server = ActionServer(
            node,
            action.Charge,
            "charge",
            execute_callback=self._execute,
            goal_callback=self._accept,
            cancel_callback=self._cancel,
        )

    def begin(self) -> None:
        """A new session: its energy counts from now."""
        self._meter_start = None

    def _accept(self, goal: Any) -> GoalResponse:
        with self._lock:
            return GoalResponse.REJECT if self._goal else GoalResponse.ACCEPT

    def _cancel(self, handle: Any) -> CancelResponse:
        with self._lock:
            self._heard.stop_asked = "Local"
        self._told()
        return CancelResponse.ACCEPT

    async def _execute(self, handle: Any) -> Any:
        future: Future = Future(executor=self._node.executor)
        with self._lock:
            self._goal = (handle, future)
            if handle.request.id_token:
                self._asked(handle.request.id_token, handle.request.token_type)
        self._told()
        result = await future
        if handle.is_cancel_requested:
            handle.canceled()
        elif result.result == action.Charge.Result.RESULT_FAULTED:
            handle.abort()
        else:
            handle.succeed()
        return result

    def drive(self, before: Session, s: Session) -> None:
        """Feedback while it goes, the result when the session ends."""
        if self._goal is None:
            return
        handle, future = self._goal
        meter = self._heard.last.get("meter")
        if meter is not None and self._meter_start is None and s.phase >= Phase.LINKING:
            self._meter_start = (meter.import_wh, meter.export_wh)
        imported = meter.import_wh - self._meter_start[0] if meter and self._meter_start else 0.0
        exported = meter.export_wh - self._meter_start[1] if meter and self._meter_start else 0.0
        if s.phase == before.phase:
            return
        if s.phase in (Phase.DEPARTING, Phase.FAULTED):
            self._goal = None
            stopped = s.stop_reason in ("Remote", "Local", "DeAuthorized") and not s.fault
            result = fill(
                action.Charge.Result(),
                result=action.Charge.Result.RESULT_STOPPED if stopped else RESULTS[s.shutdown],
                session_id=s.session_id,
                stop_reason=s.stop_reason,
                fault=s.fault,
                energy_wh=imported,
                exported_wh=exported,
                text=s.text,
            )
            future.set_result(result)
            return
        power, link = self._heard.last.get("power"), self._heard.last.get("link")
        handle.publish_feedback(
            fill(
                action.Charge.Feedback(),
                phase=s.phase,
                soc=link.soc if link else -1.0,
                power_w=power.power_w if power else 0.0,
                energy_wh=imported,
            )
        )
