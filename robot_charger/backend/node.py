"""The back end node.

Namespace: / (one per station).
Services: ``/authorize`` (srv/Authorize); ``/vehicle_certificate`` (srv/VehicleCertificate) and ``/certificate_status``
(srv/CertificateStatus) for Plug and Charge.
Publishes: ``/backend/state`` (2 Hz and on change); per EVSE ``backend/limit`` (1 Hz and on change),
``backend/request``.
Listens to: per EVSE ``session/state``, ``power/meter``, ``power/limits``, ``vehicle/link``, ``fault``; ``/fault``,
``/diagnostics`` and ``/robot/state`` for the device model; ``backend/token`` (per EVSE, and ``/backend/token`` for a
reader or terminal that serves all): KIND_START a card was shown, or paid for if ``authorized``, or without a
token the start button (``authorize.start_button``); KIND_STOP.
``/site/meter`` with ``limit.site_meter``: what the whole site draws from the grid.
Per EVSE ``backend/external_limit``: what a site's energy management allows it (ChargingLimit; +inf lifts it).
Parameters: see BackendParameters.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Callable, Generator
from datetime import datetime, timezone
from functools import partial
from typing import Any, Generic, TypeVar

from rclpy.callback_groups import ReentrantCallbackGroup

from robot_charger import msg, srv
from robot_charger.backend.card_reader import CardReaderError, CardWatch, PcscReader
from robot_charger.backend.parameters import BackendParameters, plan
from robot_charger.backend.records import START_BUTTON, Limit, Reading, SessionView, Token, TokenInfo, ToVehicleSide
from robot_charger.backend.records import iso as to_iso
from robot_charger.backend.robot_figures import RobotFigures
from robot_charger.backend.service import Callbacks, Service
from robot_charger.backend.store import StoreError
from robot_charger.common.clock import MILLISECOND, SECOND, now_ns
from robot_charger.common.faults import Code, FaultReport, Severity
from robot_charger.common.node import OK, WARN, Diagnosis, StartError, StationNode, run
from robot_charger.common.topics import fill
from robot_charger.words.values import (
    BackendRequest,
    ChargingLimit,
    Fault,
    MeterReading,
    Request,
    RobotState,
    SessionState,
    SupplyLimits,
    VehicleLink,
)

_NEEDS_KNOWN = range(msg.VehicleLink.PHASE_PARAMETERS, msg.VehicleLink.PHASE_STOPPING)
T = TypeVar("T")
_REGISTRATION = {"Accepted": 1, "Pending": 2, "Rejected": 3}


class _Answer(Generic[T]):
    """An answer that another thread gives; awaited in an rclpy service callback, while other callbacks run."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._given: list[T] = []

    def give(self, value: T) -> None:
        self._given.append(value)
        self._wake()

    def __await__(self) -> Generator[None, None, T]:
        while not self._given:
            yield
        return self._given[0]


class _RosLog(logging.Handler):
    """The back end's log lines, in the node's log."""

    def __init__(self, logger: Any) -> None:
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        try:  # a log line that raises would take down what it tells of; rclpy wants a line of code per severity
            text = self.format(record)
            if record.levelno >= logging.ERROR:
                self._logger.error(text)
            elif record.levelno >= logging.WARNING:
                self._logger.warning(text)
            else:
                self._logger.info(text)
        except Exception:
            self.handleError(record)


class BackendNode(StationNode):
    def __init__(self) -> None:
        super().__init__("backend", BackendParameters)
        plan(self.parameters)  # impossible parameters end the process with one line
        self.service: Service | None = None
        self._cards: CardWatch | None = None
        self._told: Any = None
        self._told_ns = 0
        self._state = self.publisher("/backend/state")
        evses = range(1, self.parameters.evses + 1)
        self._limits = {n: self.publisher("backend/limit", n) for n in evses}
        self._requests = {n: self.publisher("backend/request", n) for n in evses}
        self._limit_numbers = dict.fromkeys(evses, 0)
        for n in evses:
            self.subscribe("session/state", self._on_session, n)
            self.subscribe("power/meter", partial(self._on_meter, n), n)
            self.subscribe("vehicle/link", partial(self._on_link, n), n)
            self.subscribe("power/limits", partial(self._on_supply, n), n)
            self.subscribe("fault", self._on_fault, n, danger=_ignore)
            self.subscribe("backend/token", partial(self._on_token, n), n)
            self.subscribe("backend/external_limit", partial(self._on_external_limit, n), n)
        self.subscribe("/fault", self._on_fault, danger=_ignore)
        if self.parameters.limit__site_meter:
            self.subscribe("/site/meter", self._on_site_meter)
        self.subscribe("/backend/token", partial(self._on_token, 0))
        self.subscribe("/diagnostics", self._on_diagnostics)
        self.subscribe("/robot/state", self._on_robot)
        self._figures = RobotFigures()
        self._views: dict[int, SessionView] = {}  # the newest heard of each EVSE
        self._charge: dict[int, float] = {}  # state of charge [%]
        self._needs_ns: dict[int, int] = {}  # when the vehicle's limits were passed on
        group = ReentrantCallbackGroup()  # the topics are heard and told while the back end waits for its CSMS
        self.serve(srv.Authorize, "/authorize", self._authorize, callback_group=group)
        self.serve(srv.VehicleCertificate, "/vehicle_certificate", self._vehicle_certificate, callback_group=group)
        self.serve(srv.CertificateStatus, "/certificate_status", self._certificate_status, callback_group=group)
        self.create_timer(0.5, self._publish_state)
        self.create_timer(1.0, self._publish_limits)
        log = logging.getLogger("robot_charger.backend")
        log.setLevel(logging.INFO)
        log.addHandler(_RosLog(self.get_logger()))

    # Life cycle.
    def configure(self) -> None:
        try:
            self.service = Service(
                plan(self.parameters),
                Callbacks(self._request, self._limit, self.report, self._changed, partial(self.fail, "OCPP thread")),
            )
        except StoreError as error:
            self.report(FaultReport(Code.BACKEND_STORE, Severity.STOP, str(error)))
            raise StartError(f"parameter store: {error}") from error
        if self.parameters.rfid__reader:
            try:
                reader = PcscReader(self.parameters.rfid__reader)
            except CardReaderError as error:
                raise StartError(f"parameter rfid.reader: {error}") from error
            self._cards = CardWatch(reader.read, partial(self._shown, self.parameters.rfid__evse))

    def activate(self) -> None:
        assert self.service
        self._views.clear()  # a new service has heard nothing yet
        self._charge.clear()
        self.service.start()
        if self._cards:
            self._cards.start()

    def deactivate(self) -> None:
        """The store stays; the connection ends. Configure again to come back."""
        if self.service:
            self.make_safe()
            self.configure()

    def cleanup(self) -> None:
        self.make_safe()

    def make_safe(self) -> None:
        cards, self._cards = self._cards, None
        if cards:
            cards.stop()
        service, self.service = self.service, None
        if service:
            service.stop()

    # In.
    def _on_session(self, m: SessionState) -> None:
        view = SessionView(
            evse=m.evse,
            session_id=m.session_id,
            phase=m.phase,
            phase_stamp_ns=m.phase_stamp_ns,
            authorization=m.authorization,
            output_on=m.output_on,
            mated=m.mated,
            retrying=m.retrying,
            stop_reason=m.stop_reason,
            stop_requested=m.stop_requested,
            fault=m.fault,
            emergency_latched=m.emergency_latched,
            text=m.text,
        )
        if view != self._views.get(m.evse):  # what is only said again changes nothing
            self._views[m.evse] = view
            self._post("session", view)

    def _on_meter(self, evse: int, m: MeterReading) -> None:
        reading = Reading(
            time=_iso(m.time),
            stamp_ns=m.stamp_ns,
            import_wh=m.import_wh,
            export_wh=m.export_wh,
            voltage_v=m.voltage_v,
            current_a=m.current_a,
            power_w=m.power_w,
            signed_data=m.signed_data,
            valid=m.valid,
        )
        self._post("meter", evse, reading)

    def _on_site_meter(self, m: MeterReading) -> None:
        if m.valid:
            self._post("site_meter", m.power_w)

    def _on_link(self, evse: int, m: VehicleLink) -> None:
        service = self.service
        if service is None:
            return
        if m.soc != self._charge.get(evse):
            self._charge[evse] = m.soc
            service.post(service.station.state_of_charge, evse, m.soc if m.soc >= 0 else None)
        service.station.vehicle_limit(evse, m.vehicle_max_current_a, m.vehicle_max_power_w)
        told = self._needs_ns.get(evse, 0)
        if m.phase in _NEEDS_KNOWN and m.vehicle_max_current_a > 0 and m.stamp_ns - told >= SECOND:
            self._needs_ns[evse] = m.stamp_ns
            needs = {
                "current_a": m.vehicle_max_current_a,
                "voltage_v": m.vehicle_max_voltage_v,
                "soc": m.soc,
                "power_w": m.vehicle_max_power_w,
                "capacity_wh": m.energy_capacity_wh,
                "bidirectional": m.bidirectional,
            }
            service.post(service.dialect.charging_needs, evse, needs)

    def _on_fault(self, m: Fault) -> None:
        service = self.service
        if service and service.dialect.model:
            service.post(service.dialect.model.fault, m.code, m.code.name.lower(), m.severity, m.evse, m.active, m.text)

    def _on_diagnostics(self, m: Any) -> None:
        service = self.service
        if service is None or not service.dialect.model:
            return
        for status in m.status:
            parts = status.name.strip("/").split("/")
            evse = int(parts[0][4:]) if parts[0].startswith("evse") and parts[0][4:].isdigit() else 0
            values = {v.key: v.value for v in status.values}
            service.post(service.dialect.model.node_report, parts[-1], evse, status.level[0], values)

    def _on_robot(self, m: RobotState) -> None:
        service = self.service
        if service:
            service.station.arm_parked = m.mode == msg.RobotState.MODE_PARKED
        figures = self._figures.hear(m.mode, m.stamp_ns / 1e9, m.attempt, m.peak_force_n, m.lateral_error_m, m.depth_m)
        if service and figures:
            service.post(service.dialect.robot, figures)

    def _on_token(self, evse: int, m: BackendRequest) -> None:
        if m.kind == Request.STOP:
            if service := self.service:
                service.post(service.station.stop_pressed, evse)
        elif m.kind == Request.START and not m.id_token and self.parameters.authorize__start_button:
            self._shown(evse, START_BUTTON, True)
        elif m.kind == Request.START and m.id_token:
            self._shown(evse, Token(m.id_token, m.token_type or "ISO14443"), m.authorized)

    def _shown(self, evse: int, token: Token, paid: bool = False) -> None:
        """Called in any thread."""
        service = self.service
        if service:
            service.post(service.shown, token, evse, paid)

    def _on_external_limit(self, evse: int, m: ChargingLimit) -> None:
        self._post("external_limit", evse, Limit(m.max_current_a, m.max_power_w, source=m.source))

    def _on_supply(self, evse: int, m: SupplyLimits) -> None:
        service, rating = self.service, (m.rated_current_a, m.rated_power_w)
        if service and rating != service.station.supply.get(evse):
            service.post(service.station.supply.__setitem__, evse, rating)

    def _post(self, name: str, *arguments: Any) -> None:
        service = self.service
        if service:
            service.post(lambda: getattr(service.station, name)(*arguments, service.clock()))

    async def _authorize(self, request: Any, response: Any) -> Any:
        service = self.service
        if not self.active or service is None:
            return fill(response, status=srv.Authorize.Response.STATUS_UNAVAILABLE, reason="Unknown")
        answer: _Answer[TokenInfo] = self._answer()
        token = Token(request.id_token, request.token_type or "ISO14443")
        service.authorize(request.evse, request.session_id, token, request.contract_certificate, answer.give)
        info = await answer
        kind = srv.Authorize.Response
        status = kind.STATUS_ACCEPTED if info.accepted else kind.STATUS_REFUSED
        if info.status == "Unknown" and not service.station.online:
            status = kind.STATUS_UNAVAILABLE
        return fill(response, status=status, reason=info.status, group_id=info.group_id)

    def _answer(self) -> _Answer[Any]:
        executor = self.executor
        assert executor
        return _Answer(executor.wake)

    async def _vehicle_certificate(self, request: Any, response: Any) -> Any:
        update = request.action == srv.VehicleCertificate.Request.ACTION_UPDATE
        return await self._pass_on(
            response, lambda s, give: s.vehicle_certificate(request.schema, update, bytes(request.request), give)
        )

    async def _certificate_status(self, request: Any, response: Any) -> Any:
        return await self._pass_on(response, lambda s, give: s.certificate_status(request.certificates, give))

    async def _pass_on(self, response: Any, ask: Callable[[Service, Callable[[bytes, str], None]], None]) -> Any:
        """What the CSMS answers to a question of Plug and Charge, or why it does not."""
        service = self.service
        if not self.active or service is None:
            return fill(response, accepted=False, text="the back end is not active")
        answer: _Answer[tuple[bytes, str]] = self._answer()
        ask(service, lambda data, text: answer.give((data, text)))
        data, text = await answer
        response.response = array("B", data)
        return fill(response, accepted=bool(data), text=text)

    # Out.
    def _request(self, request: ToVehicleSide) -> None:
        token = request.token or Token("", "")
        self._requests[request.evse].publish(
            fill(
                msg.BackendRequest(),
                stamp_ns=now_ns(),
                kind=request.kind,
                session_id=request.session_id,
                id_token=token.id,
                token_type=token.type,
                authorized=request.authorized,
                text=request.text,
            )
        )

    def _limit(self, evse: int, limit: Limit) -> None:
        self._limit_numbers[evse] += 1
        self._publish_limit(evse, limit)

    def _publish_limit(self, evse: int, limit: Limit) -> None:
        self._limits[evse].publish(
            fill(
                msg.ChargingLimit(),
                stamp_ns=now_ns(),
                number=self._limit_numbers[evse],
                max_current_a=limit.max_current_a,
                max_power_w=limit.max_power_w,
                min_power_w=limit.min_power_w,
                source=limit.source,
            )
        )

    def _publish_limits(self) -> None:
        for evse in self._limits:
            self._publish_limit(evse, self.service.station.limit_of(evse) if self.service else Limit())

    def _changed(self) -> None:
        """Publish at once what others act on; counters of a replay at 20 Hz are enough."""
        service = self.service
        if service is None:
            return
        state = service.state()
        told = (state.connected, state.registration, state.store_ok, state.transactions)
        moment = now_ns()
        if told != self._told or moment - self._told_ns > 50 * MILLISECOND:
            self._told, self._told_ns = told, moment
            self._publish_state()

    def _publish_state(self) -> None:
        service = self.service
        message = fill(
            msg.BackendState(),
            stamp_ns=now_ns(),
            version=self.parameters.version,
            transactions=[""] * self.parameters.evses,
        )
        if service:
            state = service.state()
            fill(
                message,
                connected=state.connected,
                queued=state.queued,
                sent=state.sent,
                refused=state.refused,
                registration=_REGISTRATION.get(state.registration, 0),
                store_ok=state.store_ok,
                transactions=state.transactions,
                text=state.text,
            )
        self._state.publish(message)

    def diagnose(self) -> Diagnosis:
        service = self.service
        if not service:
            return OK, "not configured", {}
        state = service.state()
        values = {
            "OCPP": state.version,
            "connected": state.connected,
            "registration": state.registration,
            "queued messages": state.queued,
            "sent": state.sent,
            "refused": state.refused,
            "unreadable from the CSMS": service.client.bad_messages,
            "set aside": service.store.aside,
            "CSMS's time less the computer's [s]": round(service.clock.difference_s, 1),
            "clock offset in use [s]": round(service.clock.offset_s, 1),
            "store": str(service.store.path),
        }
        if self._cards:
            values["card reader"] = self._cards.problem or "ready"
            if self._cards.problem:
                return WARN, self._cards.problem, values
        if not self.parameters.url:
            return OK, "no back end", values
        return (OK, "connected", values) if state.connected else (WARN, state.text or "not connected", values)


def _ignore(fault: Fault) -> None:
    """A fault message that cannot be: the supervisor stops by it; the CSMS hears of the session's own fault."""


def _iso(time_ns: int) -> str:
    return to_iso(datetime.fromtimestamp(time_ns / 1e9, timezone.utc))


def main() -> None:
    run(BackendNode)


if __name__ == "__main__":
    main()
