"""When a transaction starts, what is told of it, and how it ends: one EVSE, plain logic, time injected.

A transaction starts when the first of ``start_points`` is reached and ends when one of ``stop_points`` that had
been reached no longer holds (OCPP 2.0.1 TxStartPoint and TxStopPoint). The register of its end is read after the
output is off and the current is zero.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from robot_charger.backend.records import Now, OpenTransaction, Reading, Record, SessionView, Token, TransactionLimit
from robot_charger.words.values import Authorization, Phase

POINTS = ("ParkingBayOccupancy", "EVConnected", "Authorized", "PowerPathClosed", "EnergyTransfer")
ZERO_CURRENT_A = 1.0

# What made a transaction end, as TriggerReasonEnumType, from its stoppedReason (ReasonEnumType).
_END_TRIGGER = {
    "DeAuthorized": "Deauthorized",
    "EmergencyStop": "AbnormalCondition",
    "EnergyLimitReached": "EnergyLimitReached",
    "EVDisconnected": "EVCommunicationLost",
    "GroundFault": "AbnormalCondition",
    "ImmediateReset": "ResetCommand",
    "Local": "StopAuthorized",
    "MasterPass": "StopAuthorized",
    "OvercurrentFault": "AbnormalCondition",
    "PowerLoss": "AbnormalCondition",
    "PowerQuality": "AbnormalCondition",
    "Reboot": "ResetCommand",
    "Remote": "RemoteStop",
    "SOCLimitReached": "ChargingStateChanged",
    "StoppedByEV": "ChargingStateChanged",
    "TimeLimitReached": "TimeLimitReached",
    "Timeout": "EVConnectTimeout",
    "Other": "AbnormalCondition",
    "LocalOutOfCredit": "StopAuthorized",
    "SoftReset": "ResetCommand",  # this and the next are words of 1.6
    "UnlockCommand": "UnlockCommand",
}
REASONS = tuple(_END_TRIGGER)

# What made a transaction start, as TriggerReasonEnumType, from the start point reached; a closed power path has the
# one of what was missing until then.
_START_TRIGGER = {
    "ParkingBayOccupancy": "EVDetected",
    "EVConnected": "CablePluggedIn",
    "Authorized": "Authorized",
    "EnergyTransfer": "ChargingStateChanged",
}
SERIES = 200  # readings kept for the end of a transaction; beyond it every second goes


@dataclass
class TransactionSettings:
    start_points: tuple[str, ...] = ("PowerPathClosed",)
    stop_points: tuple[str, ...] = ("PowerPathClosed",)
    sample_interval_s: float = 10.0  # 0 = none
    ended_interval_s: float = 0.0  # of readings that only the end tells; 0 = none
    final_meter_s: float = 3.0  # how long to wait for the register after the end
    start_meter_s: float = 2.0  # how long to wait for a register before the start
    recovery_s: float = 30.0  # how long a transaction found after a restart waits for its session


def points(view: SessionView) -> set[str]:
    """Which of POINTS hold in this state of the session. A plug that is only inspected has not left the vehicle."""
    going = Phase.POSITIONING <= view.phase <= Phase.STOPPING or view.retrying
    connected = Phase.MATED <= view.phase <= Phase.STOPPING or view.retrying
    authorized = going and view.authorization == Authorization.ACCEPTED
    held = set()
    if view.phase not in (Phase.IDLE, Phase.UNAVAILABLE):
        held.add("ParkingBayOccupancy")
    if connected:
        held.add("EVConnected")
    if authorized:
        held.add("Authorized")
    if authorized and (Phase.LINKING <= view.phase <= Phase.STOPPING or view.retrying):
        held.add("PowerPathClosed")
    if view.phase == Phase.CHARGING and view.output_on:
        held.add("EnergyTransfer")
    return held


def charging_state(view: SessionView) -> str:
    """OCPP 2.x ChargingStateEnumType."""
    if view.phase == Phase.CHARGING:
        if view.output_on:
            return "Charging"
        return "SuspendedEVSE" if view.stop_requested else "SuspendedEV"
    if Phase.MATED <= view.phase <= Phase.GRASPED:
        return "EVConnected"
    return "Idle"


class Transactions:
    """The transactions of one EVSE, one at a time.

    ``emit(record, transaction)`` gets every record with the transaction as it then stands, None once ended.
    """

    def __init__(
        self,
        evse: int,
        settings: TransactionSettings,
        emit: Callable[[Record, OpenTransaction | None], None],
        offline: Callable[[], bool] = lambda: False,
        boot_id: str = "",
    ) -> None:
        self.evse = evse
        self.settings = settings
        self.open: OpenTransaction | None = None
        self.view: SessionView | None = None
        self.reading: Reading | None = None
        self._soc: float | None = None
        self.token: Token | None = None
        self.group_id = ""
        self.remote_start_id: int | None = None
        self.reservation_id: int | None = None
        self._token_session = ""
        self._emit = emit
        self._offline = offline
        self._boot_id = boot_id
        self._reached: set[str] = set()
        self._found: tuple[OpenTransaction, int] | None = None  # after a restart, not yet decided; since
        self._start_since = 0
        self._missing = "Authorized"  # what a closed power path still lacks will have been its trigger
        self._ending: tuple[int, str] | None = None  # end condition's stamp, reason
        self._ending_since = 0
        self._sampled_ns = 0
        self._charged_ns = 0
        self._waits_since = 0
        self._stop_reason = ""  # as the session names it
        self._ended_ns = 0
        self._done_session = ""  # its transaction has ended: it gets no second one

    # What happens.
    def recover(self, transaction: OpenTransaction, now: Now) -> None:
        """A transaction without an end lay in the store when the process started."""
        self._found = (transaction, now.mono_ns)

    def authorized(
        self,
        session_id: str,
        token: Token,
        group_id: str = "",
        remote_start_id: int | None = None,
        reservation_id: int | None = None,
    ) -> None:
        """This token may charge. ``session_id`` empty: the session that comes next or runs without a token."""
        self._token_session = session_id
        self.token, self.group_id = token, group_id
        self.remote_start_id, self.reservation_id = remote_start_id, reservation_id

    def session(self, view: SessionView, now: Now) -> None:
        before = self.view
        self.view = view
        if self.open and view.session_id == self.open.session_id and view.stop_reason:
            self._stop_reason = view.stop_reason
        if before and before.session_id and view.session_id != before.session_id:
            self._forget_token(view.session_id)
        if self.token and not self._token_session and view.session_id and view.phase <= Phase.STOPPING:
            self._token_session = view.session_id
        self.tick(now)

    def meter(self, reading: Reading, now: Now) -> None:
        if self.reading and not reading.valid:
            return
        if reading.soc is not None:
            self._soc = reading.soc
        self.reading = dataclasses.replace(reading, soc=self._soc)
        self.tick(now)

    def state_of_charge(self, soc: float | None) -> None:
        """The vehicle told it [%]; None: it is not known (any more). Holds until told otherwise."""
        self._soc = soc
        if self.reading:
            self.reading = dataclasses.replace(self.reading, soc=soc)

    def shift_times(self, shift: Callable[[str], str]) -> None:
        """The clock was wrong: correct what is kept of it."""

        def corrected(reading: Reading | None) -> Reading | None:
            return dataclasses.replace(reading, time=shift(reading.time)) if reading else None

        self.reading = corrected(self.reading)
        if self.open:
            self.open.started = shift(self.open.started)
            self.open.begin, self.open.last = corrected(self.open.begin), corrected(self.open.last)

    def stop_asked(self, reason: str, token: Token | None = None) -> None:
        """The back end itself asked for the stop, by this card; used when the session names no reason of its own."""
        if self.open:
            self.open.stop_asked, self.open.stop_token = reason, token

    def grouped(self, transaction_id: str, group_id: str) -> None:
        """The CSMS told the group of the token of a running transaction."""
        if self.open and self.open.transaction_id == transaction_id:
            self.open.group_id = group_id

    def limit_to(self, limit: TransactionLimit, tell: bool, now: Now) -> None:
        """The CSMS limits what runs (2.1 E16). ``tell``: told back to it where that is new."""
        if self.open and self._ending is None and limit != self.open.limit:
            self.open.limit = limit
            if tell:
                self._update("LimitSet", "Other", now)

    def limit_reached(self, now: Now) -> str:
        """ReasonEnumType of the limit that is reached; empty when none is, or when a stop was asked for already."""
        transaction = self.open
        if transaction is None or transaction.limit is None or self._ending or transaction.stop_asked:
            return ""
        limit, begin, reading = transaction.limit, transaction.begin, self.reading
        energy = reading.import_wh - begin.import_wh if reading and begin else None
        values = (
            ("EnergyLimitReached", energy, limit.energy_wh),
            ("TimeLimitReached", now.since(transaction.started_ns), limit.seconds),
            ("SOCLimitReached", self._soc, limit.soc),
            ("LocalOutOfCredit", transaction.cost, limit.cost),
        )
        reached = (reason for reason, value, most in values if value is not None and most is not None and value >= most)
        return next(reached, "")

    @property
    def suspended(self) -> bool:
        """The CSMS took the token back, but the transaction goes on: no energy."""
        return self.open is not None and self.open.suspended

    @property
    def busy(self) -> bool:
        return self.open is not None or self._found is not None

    @property
    def transaction_id(self) -> str:
        if self.open:
            return self.open.transaction_id
        return self._found[0].transaction_id if self._found else ""

    def tick(self, now: Now) -> None:
        """Do what is due. Called on every event and a few times a second."""
        if self._found:
            self._decide_found(now)
        if self._found:
            return
        if self.view is not None:
            if self.open is None:
                self._start_if_due(now)
            if self.open is not None and self._ending is None:
                self._watch(now)
        if self.open is not None and self._ending is not None:
            self._end_if_due(now)

    # After a restart.
    def _decide_found(self, now: Now) -> None:
        assert self._found
        transaction, since = self._found
        view = self.view
        rebooted = transaction.boot_id != self._boot_id
        reason = transaction.stop_asked or ("PowerLoss" if rebooted else "Reboot")
        if view is None:
            if now.since(since) >= self.settings.recovery_s:
                self._adopt(transaction, now, 0, reason)
            return
        same = view.session_id == transaction.session_id
        if same and set(self.settings.stop_points) & points(view):
            self._adopt(transaction, now)  # the session outlived the back end's restart
        elif same:
            self._adopt(transaction, now, view.phase_stamp_ns, view.stop_reason or reason)
        elif view.session_id or view.phase not in (Phase.IDLE, Phase.UNAVAILABLE):
            # Another session is on: the register may already have moved, the last one kept is the right one.
            self.reading, kept = transaction.last or self.reading, self.reading
            self._adopt(transaction, now, 0, reason)
            self._finish(now)
            self.reading = kept
        else:
            self._adopt(transaction, now, since, reason)

    def _adopt(self, transaction: OpenTransaction, now: Now, end_ns: int = -1, reason: str = "") -> None:
        self._found = None
        self.open = transaction
        self._reached = set()
        self._sampled_ns = self._ended_ns = now.mono_ns
        self._ending = None
        if transaction.token:
            self.authorized(transaction.session_id, transaction.token, transaction.group_id)
        if end_ns >= 0:
            self._begin_end(end_ns, reason, now)

    def _state(self, view: SessionView) -> str:
        state = charging_state(view)
        return "SuspendedEVSE" if self.suspended and state in ("Charging", "SuspendedEV") else state

    def connection_lapsed(self, seconds: float, now: Now) -> bool:
        """Authorised, and no vehicle came for so long (EVConnectionTimeOut): the transaction ends."""
        if self.open is None or self._ending or self.view is None or self.view.phase != Phase.POSITIONING:
            self._waits_since = 0
            return False
        if self.view.authorization != Authorization.ACCEPTED or self.view.session_id != self.open.session_id:
            return False
        self._waits_since = self._waits_since or now.mono_ns
        if now.since(self._waits_since) < seconds:
            return False
        self._begin_end(now.mono_ns, "Timeout", now)
        return True

    # Start.
    def _start_if_due(self, now: Now) -> None:
        assert self.view
        held = points(self.view)
        reached = bool(held & set(self.settings.start_points))
        if not reached and len(held & {"EVConnected", "Authorized"}) == 1:
            self._missing = "Authorized" if "EVConnected" in held else "CablePluggedIn"
        if not reached or self.view.session_id == self._done_session != "":
            self._start_since = 0
            return
        self._start_since = self._start_since or now.mono_ns
        if self.reading is None and now.since(self._start_since) < self.settings.start_meter_s:
            return
        self._start(held, now)

    def _start(self, held: set[str], now: Now) -> None:
        assert self.view
        session_id = self.view.session_id
        usable = 0 < len(session_id) <= 36
        token = self.token if self._token_session in ("", session_id) else None
        begin = dataclasses.replace(self.reading, context="Transaction.Begin") if self.reading else None
        self.open = OpenTransaction(
            transaction_id=session_id if usable else str(uuid.uuid4()),
            session_id=session_id,
            evse=self.evse,
            started=now.iso,
            started_ns=now.mono_ns,
            token=token,
            group_id=self.group_id if token else "",
            remote_start_id=self.remote_start_id if token else None,
            reservation_id=self.reservation_id if token else None,
            begin=begin,
            last=self.reading,
            boot_id=self._boot_id,
        )
        self._reached, self._ending, self._start_since = set(), None, 0
        self._sampled_ns = self._charged_ns = self._ended_ns = now.mono_ns
        if self.open.remote_start_id is not None:
            trigger = "RemoteStart"
        else:
            reached = [p for p in POINTS if p in held and p in self.settings.start_points]
            trigger = _START_TRIGGER.get(reached[0] if reached else "", self._missing)
        self.open.charging_state = self._state(self.view)
        self._record("Started", trigger, now, (begin,) if begin else ())

    # On the way.
    def _watch(self, now: Now) -> None:
        assert self.view and self.open
        if self.view.session_id != self.open.session_id:
            self._begin_end(now.mono_ns, "", now)
            return
        held = points(self.view)
        self._reached |= held
        if any(p in self._reached and p not in held for p in self.settings.stop_points):
            self._begin_end(self.view.phase_stamp_ns, "", now)
            return
        if self.open.token is None and self.token and self._token_session in ("", self.open.session_id):
            self.open.token, self.open.group_id = self.token, self.group_id
            self.open.remote_start_id = self.remote_start_id
            trigger = "RemoteStart" if self.remote_start_id is not None else "Authorized"
            self._update(trigger, "Other", now)
        state = self._state(self.view)
        if self.open.charging_state == "Charging":
            self.open.seconds_charging += now.since(self._charged_ns)
        self._charged_ns = now.mono_ns
        if state != self.open.charging_state:
            self.open.charging_state = state
            self._update("ChargingStateChanged", "Other", now)
        self._take_series(now)
        interval = self.settings.sample_interval_s
        if interval > 0 and now.since(self._sampled_ns) >= interval:
            # The grid of samples stays; missed ones are not made up.
            self._sampled_ns += int(now.since(self._sampled_ns) // interval * interval * 1e9)
            self._update("MeterValuePeriodic", "Sample.Periodic", now)

    def _take_series(self, now: Now) -> None:
        """Readings that only the end tells (TxEndedInterval)."""
        interval = self.settings.ended_interval_s
        if interval > 0 and self.reading and now.since(self._ended_ns) >= interval:
            self._ended_ns += int(now.since(self._ended_ns) // interval * interval * 1e9)
            self.keep_for_end("Sample.Periodic")

    def keep_for_end(self, context: str) -> None:
        if self.open is None or self._ending or self.reading is None:
            return
        self.open.series.append(dataclasses.replace(self.reading, context=context))
        if len(self.open.series) > SERIES:
            del self.open.series[::2]

    def sample(self, trigger: str, context: str, now: Now) -> bool:
        """An update at once, asked for by the CSMS or by the clock. False without a transaction."""
        if self.open is None or self._ending is not None:
            return False
        self._update(trigger, context, now)
        return True

    def _update(self, trigger: str, context: str, now: Now) -> None:
        readings = (dataclasses.replace(self.reading, context=context),) if self.reading else ()
        self._record("Updated", trigger, now, readings)

    # End.
    def _begin_end(self, stamp_ns: int, reason: str, now: Now) -> None:
        self._ending = (stamp_ns, reason)
        self._ending_since = now.mono_ns

    def _end_if_due(self, now: Now) -> None:
        assert self._ending
        reading = self.reading
        final = (
            reading is not None and reading.stamp_ns >= self._ending[0] and (abs(reading.current_a) < ZERO_CURRENT_A)
        )
        if final or now.since(self._ending_since) >= self.settings.final_meter_s:
            self._finish(now)

    def _finish(self, now: Now) -> None:
        assert self.open and self._ending
        view, transaction = self.view, self.open
        reason = self._ending[1]
        reason = reason or self._stop_reason
        if reason in ("", "Remote"):  # the session calls every stop that the back end asks for remote
            reason = transaction.stop_asked or reason or "Other"
        if reason not in _END_TRIGGER:
            reason = "Other"
        final = self.reading or transaction.last
        begin, end = (
            (dataclasses.replace(r, context=c),) if r else ()
            for r, c in ((transaction.begin, "Transaction.Begin"), (final, "Transaction.End"))
        )
        readings = (*begin, *transaction.series, *end)
        transaction.charging_state = self._state(view) if view else "Idle"
        self._record("Ended", _END_TRIGGER[reason], now, readings, reason)
        self._done_session, self._stop_reason = transaction.session_id, ""
        self.open, self._ending = None, None
        self._forget_token(view.session_id if view else "")

    def _forget_token(self, session_id: str) -> None:
        """A token serves one session; one that waits for its session stays."""
        if self._token_session and self._token_session != session_id:
            self.token, self.group_id, self._token_session = None, "", ""
            self.remote_start_id = self.reservation_id = None

    def _record(
        self, event: str, trigger: str, now: Now, readings: tuple[Reading, ...], stopped_reason: str = ""
    ) -> None:
        assert self.open
        transaction = self.open
        transaction.last = self.reading or transaction.last
        first = event == "Started" or trigger in ("Authorized", "RemoteStart")
        stopped_by = transaction.stop_token if trigger == "StopAuthorized" else None
        record = Record(
            event=event,
            transaction_id=transaction.transaction_id,
            session_id=transaction.session_id,
            evse=self.evse,
            seq_no=transaction.next_seq,
            time=now.iso,
            trigger=trigger,
            charging_state=transaction.charging_state,
            offline=self._offline(),
            token=stopped_by or transaction.token,
            group_id=transaction.group_id,
            remote_start_id=transaction.remote_start_id if first else None,
            reservation_id=transaction.reservation_id if first else None,
            stopped_reason=stopped_reason,
            readings=readings,
            seconds_charging=int(transaction.seconds_charging),
            limit=transaction.limit if trigger == "LimitSet" else None,
        )
        transaction.next_seq += 1
        self._emit(record, None if event == "Ended" else transaction)
