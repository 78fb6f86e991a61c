"""The charging station as a CSMS sees it, whatever the OCPP version: plain logic, one thread, time injected."""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from robot_charger.backend.access import Access
from robot_charger.backend.allowance import Allowance
from robot_charger.backend.outside import Outside, Teller
from robot_charger.backend.records import (
    Identity,
    Limit,
    Now,
    OpenTransaction,
    Outcome,
    Payload,
    Reading,
    Record,
    Request,
    SessionView,
    Token,
    TokenInfo,
    ToVehicleSide,
    iso,
    parse_time,
)
from robot_charger.backend.reservations import Reservation, Reservations
from robot_charger.backend.settings import Settings
from robot_charger.backend.site_power import SitePlan
from robot_charger.backend.smart_charging import ProfileError, SmartCharging
from robot_charger.backend.store import Store, StoreError
from robot_charger.backend.tokens import Tokens
from robot_charger.backend.transactions import Transactions, TransactionSettings
from robot_charger.common.faults import Code, FaultReport, Severity
from robot_charger.words.values import Phase

__all__ = ["Outside", "Station"]
BACKLOG = 1000  # records kept in memory while the store takes none, before periodic readings are thinned


class Station:
    def __init__(
        self,
        identity: Identity,
        evses: int,
        store: Store,
        settings: Settings,
        outside: Outside,
        transaction_settings: TransactionSettings | None = None,
        boot_id: str = "",
        site: SitePlan | None = None,
    ) -> None:
        self.identity = identity
        self.store = store
        self.settings = settings
        self.outside = outside
        self.online = False
        self.store_ok = True
        self.transaction_settings = transaction_settings or TransactionSettings()
        self.tokens = Tokens(settings, store.get, self._keep)
        self.smart = SmartCharging(store.get("profiles", []), self._keep_profiles)
        settings.note("profile_entries", len(self.smart.profiles))
        self.evses = {
            number: Transactions(
                number, self.transaction_settings, self._emit, lambda: not self.online, boot_id=boot_id
            )
            for number in range(1, evses + 1)
        }
        self.status = {number: "Available" for number in self.evses}
        self.holds = Reservations(store.get("reservations", []), lambda kept: self._keep("reservations", kept))
        self.access = Access(self)
        self.allowance = Allowance(self, site)
        self.teller = Teller()  # the OCPP version's module puts its own here
        self._backlog: list[tuple[Record, OpenTransaction | None]] = []
        self._inoperative: set[int] = set(store.get("inoperative", []))  # 0 = the whole station
        self._scheduled: dict[int, bool] = {}
        self._told_operative: dict[int, bool] = {}
        self._reset_pending: str = ""
        self.wall_offset_s = 0.0  # the station's time less the computer's
        self._slots: dict[str, int] = {}
        self._counter = itertools.count(1)
        self.supply: dict[int, tuple[float, float]] = {}  # rated current, power of each EVSE
        self.arm_parked: bool | None = None  # None: there is no arm that says so
        self._held = False  # firmware is being installed
        self._apply_settings()
        settings.watchers.append(lambda name, value: self._apply_settings())

    def _apply_settings(self) -> None:
        self.transaction_settings.start_points = tuple(self.settings["start_points"])
        self.transaction_settings.stop_points = tuple(self.settings["stop_points"])
        self.transaction_settings.sample_interval_s = float(self.settings["sample_s"])
        self.transaction_settings.ended_interval_s = float(self.settings["ended_interval_s"])

    def recover(self, now: Now) -> None:
        """Take up what a previous process left in the store."""
        for transaction in self.store.open_transactions():
            evse = self.evses.get(transaction.evse)
            if evse and not evse.busy:
                evse.recover(transaction, now)

    # The store.
    def _keep(self, key: str, value: Any) -> None:
        try:
            self.store.put(key, value)
        except StoreError as error:
            self._store_failed(error)
            raise

    def _keep_profiles(self, profiles: list[Payload]) -> None:
        self._keep("profiles", profiles)
        self.settings.note("profile_entries", len(profiles))

    def _store_failed(self, error: StoreError) -> None:
        self.store_ok = False
        # No stop: what runs has its start on the disk and its register in the meter, so it can be billed.
        self.outside.fault(
            FaultReport(
                Code.BACKEND_STORE, Severity.WARNING, f"no new charging, {error}: free disk space or repair the store"
            )
        )

    def _emit(self, record: Record, transaction: OpenTransaction | None) -> None:
        self._backlog.append((record, transaction))
        self._flush()
        if len(self._backlog) > BACKLOG:  # the store gives the numbers: no gap comes of it
            periodic = [n for n, (r, _) in enumerate(self._backlog) if r.trigger == "MeterValuePeriodic"]
            for number in reversed(periodic[::2]):
                del self._backlog[number]

    def recorded(self, evse: int) -> str:
        """The running transaction of an EVSE whose start is on the disk; empty when there is none."""
        transaction_id = self.evses[evse].transaction_id
        begun = any(r.event == "Started" and r.transaction_id == transaction_id for r, _ in self._backlog)
        return "" if begun else transaction_id

    def _flush(self) -> None:
        """Put into the store what has not been taken yet, in order."""
        try:
            while self._backlog:
                self.store.record(*self._backlog[0])
                record, _ = self._backlog.pop(0)
                self.outside.queued()
                if record.event == "Started":
                    self._install_start_profile(record)
                elif record.event == "Ended":
                    self.smart.ended(record.transaction_id)
        except StoreError as error:
            self._store_failed(error)
            return
        if not self.store_ok:
            try:
                self.store.put("opened", True)
            except StoreError:
                return
            self.store_ok = True
            self.outside.fault(FaultReport(Code.BACKEND_STORE, Severity.WARNING, "", active=False))

    def _install_start_profile(self, record: Record) -> None:
        """A profile that came with the remote start begins with its transaction."""
        token, profile = self.access.start_profiles.pop(record.evse, (None, None))
        if profile and record.token and token and record.token.key == token.key:
            with contextlib.suppress(ProfileError):
                self.smart.set(record.evse, profile, record.transaction_id, len(self.evses))

    @property
    def queued(self) -> int:
        return self.store.queued + len(self._backlog)

    # The vehicle's side.
    def session(self, view: SessionView, now: Now) -> None:
        transactions = self.evses.get(view.evse)
        if not transactions:
            return
        self.access.session(view)
        before = transactions.view
        transactions.session(view, now)
        self.access.tell(view.evse)
        if view.phase == Phase.IDLE and (before is None or before.phase != Phase.IDLE):
            self._told_operative.pop(view.evse, None)  # a supervisor that restarted learns it again
            self.tell_availability()
        self._after(now)

    def meter(self, evse: int, reading: Reading, now: Now) -> None:
        if self.wall_offset_s:
            reading = replace(reading, time=self._corrected(reading.time, self.wall_offset_s))
        if evse in self.evses:
            self.evses[evse].meter(reading, now)

    @staticmethod
    def _corrected(time: str, seconds: float) -> str:
        try:
            return iso(parse_time(time) + timedelta(seconds=seconds))
        except (ValueError, OverflowError):
            return time

    def clock_corrected(self, before_s: float, after_s: float) -> None:
        """The station's time was set by the CSMS's: what is not sent yet had the wrong one."""
        self.wall_offset_s = after_s
        shift = after_s - before_s
        self.holds.clock_corrected()
        for transactions in self.evses.values():
            transactions.shift_times(lambda time: self._corrected(time, shift))
        try:
            self.store.put("clock_offset_s", after_s)
            self.store.shift_times(lambda time: self._corrected(time, shift))
        except StoreError as error:
            self._store_failed(error)

    def state_of_charge(self, evse: int, soc: float | None) -> None:
        if evse in self.evses:
            self.evses[evse].state_of_charge(soc)

    def tick(self, now: Now) -> None:
        """Do what is due; a few times a second."""
        if self._backlog or not self.store_ok:
            self._flush()
        for evse, transactions in self.evses.items():
            transactions.tick(now)
            if reason := transactions.limit_reached(now):
                self.stop(evse, reason, "the limit of this transaction is reached")
        timeout = self.settings["connection_timeout_s"]
        for evse, transactions in self.evses.items():
            if timeout and transactions.connection_lapsed(timeout, now):
                self.stop(evse, "Timeout", "no vehicle came in time")
        if timeout:
            self.access.lapse(timeout, now)
        for id in self.holds.lapsed(now):
            self.teller.reservation_ended(id, "Expired")
        self._clock_aligned(now)
        self._after(now)

    def _clock_aligned(self, now: Now) -> None:
        """Readings at full intervals of the clock: of a transaction in its events, else by themselves (J01)."""
        if self._slot_passed("aligned_s", now):
            for evse, transactions in self.evses.items():
                busy = transactions.busy
                if self.settings["aligned_idle_only"] and busy:
                    continue
                if not transactions.sample("MeterValueClock", "Sample.Clock", now) and not busy:
                    self.teller.idle_reading(evse)
        if self._slot_passed("aligned_ended_s", now):
            for transactions in self.evses.values():
                transactions.keep_for_end("Sample.Clock")

    def _slot_passed(self, name: str, now: Now) -> bool:
        interval = self.settings[name]
        slot = int(now.wall.timestamp() // interval) if interval else 0
        before, self._slots[name] = self._slots.get(name, 0), slot
        return 0 < before < slot

    def _after(self, now: Now) -> None:
        """What follows from a new state: availability that waited, statuses, limits, a reset that waited."""
        for evse, operative in list(self._scheduled.items()):
            targets = self.evses if evse == 0 else {evse: self.evses[evse]}
            if not any(self.in_use(t) for t in targets):
                del self._scheduled[evse]
                self._set_operative(evse, operative)
        for evse in self.evses:
            status = self._status_of(evse, now)
            if status != self.status[evse]:
                self.status[evse] = status
                if self.evses[evse].view and (
                    status == "Faulted" or evse in self._inoperative or 0 in self._inoperative
                ):
                    self._remove_reservations(evse)
                self.outside.status_changed(evse)
        self.allowance.set(now)
        if self._reset_pending and not any(t.busy for t in self.evses.values()):
            reason, self._reset_pending = self._reset_pending, ""
            for evse in self.evses:
                self.outside.request(ToVehicleSide(evse, Request.RESET, text=reason))
            self.outside.restart(reason)

    def composite(self, evse: int, start: datetime, duration_s: int, unit: str) -> list[Payload]:
        """Composite schedule of an EVSE, or of the whole station (0)."""
        return self.allowance.composite(evse, start, duration_s, unit)

    def site_meter(self, watts: float, now: Now) -> None:
        """What the whole site draws from the grid [W]."""
        self.allowance.budget.site_meter(watts, now)
        self.allowance.set(now)

    def vehicle_limit(self, evse: int, amperes: float, watts: float) -> None:
        """What the vehicle on this EVSE can take; 0: not known."""
        self.allowance.vehicles[evse] = (amperes, watts)

    def external_limit(self, evse: int, limit: Limit, now: Now) -> None:
        """Somebody else than the CSMS limits an EVSE, or no longer does (K11 - K14): the vehicle first, then the CSMS
        where it changes by more than LimitChangeSignificance."""
        if evse not in self.evses:
            return
        self.smart.external[evse] = limit
        self._after(now)
        self.allowance.external(evse, limit, now)

    def on_external_limit(self, evse: int, limit: Limit) -> None:
        """The CSMS is to hear of another's limit."""
        self.teller.external_limit(evse, limit)

    def limit_of(self, evse: int) -> Limit:
        return self.allowance.limits.get(evse, Limit())

    def refresh(self, now: Now) -> None:
        """Limits and statuses at once, after a change from the CSMS."""
        self._after(now)

    def in_use(self, evse: int) -> bool:
        view = self.evses[evse].view
        return self.evses[evse].busy or bool(view and Phase.POSITIONING <= view.phase <= Phase.DEPARTING)

    def _status_of(self, evse: int, now: Now) -> str:
        """Connector status in the nine words of OCPP 1.6; 2.x has five, its module maps them."""
        transactions = self.evses[evse]
        view = transactions.view
        if view is None:
            return "Unavailable"
        if view.phase == Phase.FAULTED or view.emergency_latched:
            return "Faulted"
        if view.phase == Phase.CHARGING:
            if view.output_on and not transactions.suspended:
                return "Charging"
            return "SuspendedEVSE" if view.stop_requested or transactions.suspended else "SuspendedEV"
        if Phase.STOPPING <= view.phase <= Phase.DEPARTING:
            return "Finishing"
        if Phase.POSITIONING <= view.phase <= Phase.PRECHARGE:
            return "Preparing"
        if not self.operative(evse):
            return "Unavailable"
        if view.phase == Phase.UNAVAILABLE:
            return "Faulted" if view.fault else "Unavailable"
        if self.holds.on(evse):
            return "Reserved"
        return "Available"

    def delivered(self, record: Record, outcome: Outcome, now: Now) -> None:
        """The CSMS answered a record."""
        if outcome.total_cost is not None:
            self.cost(record.transaction_id, outcome.total_cost)
        running = self.evses.get(record.evse)
        if outcome.limit and running and running.transaction_id == record.transaction_id:
            # Not of what answers LimitSet: a CSMS that has another limit each time would hear of nothing else.
            running.limit_to(outcome.limit, record.trigger != "LimitSet", now)
        if outcome.token and record.token:
            self.tokens.learn(record.token, outcome.token, now)
            transactions = self.evses.get(record.evse)
            if transactions and outcome.token.group_id and record.event != "Ended":
                transactions.grouped(record.transaction_id, outcome.token.group_id)
            if (
                not outcome.token.accepted
                and record.event != "Ended"
                and transactions
                and transactions.transaction_id == record.transaction_id
            ):
                self._refused_midway(record.evse, outcome.token, now)

    def _refused_midway(self, evse: int, info: TokenInfo, now: Now) -> None:
        """The CSMS takes the token of a running transaction back: it ends, or (StopTxOnInvalidId false) gives no
        energy until it ends."""
        if self.settings["stop_on_invalid"]:
            self.stop(evse, "DeAuthorized", f"token {info.status.lower()} by the back end")
        elif transaction := self.evses[evse].open:
            transaction.suspended = True
            self.evses[evse].tick(now)
            self._after(now)

    def cost(self, transaction_id: str, total: float) -> None:
        """The CSMS told what a running transaction costs so far, in the currency of its tariff."""
        for transactions in self.evses.values():
            if transactions.open and transactions.open.transaction_id == transaction_id:
                transactions.open.cost = total

    # Who may charge.
    def local_answer(self, token: Token, evse: int, now: Now) -> TokenInfo | None:
        """The answer that needs no CSMS, None when it has to be asked."""
        return self.access.local_answer(token, evse, now)

    def answered(self, evse: int, session_id: str, token: Token, info: TokenInfo, now: Now) -> TokenInfo:
        """A token was judged; reservations and the session learn of it."""
        return self.access.answered(evse, session_id, token, info, now)

    def request_start(
        self,
        token: Token,
        evse: int | None,
        remote_start_id: int | None,
        group_id: str,
        now: Now,
        profile: Payload | None = None,
    ) -> tuple[bool, str, str]:
        """Accepted, reason when not, transaction id when one already runs."""
        return self.access.request_start(token, evse, remote_start_id, group_id, now, profile)

    def shown(self, token: Token, evse: int, paid: bool, now: Now, info: TokenInfo | None = None) -> str:
        """A card, a payment or a start button; see Access.shown."""
        return self.access.shown(token, evse, paid, now, info)

    def takes_starts(self, evse: int) -> bool:
        """Nothing speaks against a new session: availability, a reset that waits."""
        return self.operative(evse) and self._scheduled.get(evse) is not False and not self._reset_pending

    def stop_pressed(self, evse: int) -> None:
        """A person asks for the end at a terminal."""
        if evse in self.evses and self.evses[evse].open:
            self.stop(evse, "Local", "stopped at the terminal")

    def request_stop(self, transaction_id: str) -> bool:
        for evse, transactions in self.evses.items():
            if transactions.open and transactions.open.transaction_id == transaction_id:
                self.stop(evse, "Remote", "remote stop")
                return True
        return False

    def stop(self, evse: int, reason: str, text: str, token: Token | None = None) -> None:
        """Ask for the end of what runs; ``reason`` is a 2.x ReasonEnumType, ``token`` the card it is stopped with."""
        transaction = self.evses[evse].open
        self.evses[evse].stop_asked(reason, token)
        session_id = transaction.session_id if transaction else ""
        self.outside.request(ToVehicleSide(evse, Request.STOP, session_id, text=text))

    def operative(self, evse: int) -> bool:
        return not self._held and not self._inoperative & {0, evse}

    @property
    def may_update(self) -> bool:
        """Firmware may be installed: no transaction, no vehicle in a bay, the arm parked."""
        resting = (None, Phase.IDLE, Phase.UNAVAILABLE)
        views = [t.view for t in self.evses.values()]
        free = all((v.phase if v else None) in resting and not (v and v.mated) for v in views)
        return free and self.arm_parked is not False and not any(t.busy for t in self.evses.values())

    def hold(self, on: bool, now: Now) -> None:
        """While firmware is installed no session begins."""
        if on != self._held:
            self._held = on
            self.tell_availability()
            self._after(now)

    def change_availability(self, evse: int, operative: bool, now: Now) -> str:
        """OCPP 2.x ChangeAvailabilityStatusEnumType; EVSE 0 is the whole station."""
        if evse and evse not in self.evses:
            return "Rejected"
        targets = list(self.evses) if evse == 0 else [evse]
        if not operative and any(self.in_use(t) for t in targets):
            self._scheduled[evse] = operative
            return "Scheduled"
        self._scheduled.pop(evse, None)
        self._set_operative(evse, operative)
        self._after(now)
        return "Accepted"

    def _set_operative(self, evse: int, operative: bool) -> None:
        (self._inoperative.discard if operative else self._inoperative.add)(evse)
        try:
            self._keep("inoperative", sorted(self._inoperative))
        finally:
            self.tell_availability()

    def tell_availability(self) -> None:
        """Tell the EVSEs what the CSMS made of them; also after a restart."""
        for evse in self.evses:
            operative = self.operative(evse)
            if operative != self._told_operative.get(evse, True):
                self._told_operative[evse] = operative
                kind = Request.AVAILABLE if operative else Request.UNAVAILABLE
                self.outside.request(ToVehicleSide(evse, kind, text="changed by the back end"))

    def reset(self, immediate: bool, now: Now, stop_reason: str = "ImmediateReset") -> str:
        """OCPP 2.x ResetStatusEnumType. What runs ends for ``stop_reason``; nothing new begins until the restart."""
        busy = any(t.busy for t in self.evses.values())
        self._reset_pending = "RemoteReset" if immediate or not busy else "ScheduledReset"
        if immediate:
            for evse, transactions in self.evses.items():
                if transactions.open:
                    self.stop(evse, stop_reason, "reset by the back end")
        return "Scheduled" if busy and not immediate else "Accepted"

    def unlock(self, evse: int) -> str:
        """OCPP 2.x UnlockStatusEnumType; empty: the robot is asked, ``plugged`` shows what becomes of it."""
        if evse not in self.evses:
            return "UnknownConnector"
        if self.evses[evse].open:
            return "OngoingAuthorizedTransaction"
        self.outside.request(ToVehicleSide(evse, Request.UNLOCK, text="unlock by the back end"))
        return "" if self.plugged(evse) else "Unlocked"

    def plugged(self, evse: int) -> bool:
        """The plug is in the vehicle, as the supervisor says."""
        view = self.evses[evse].view
        return view is not None and view.mated

    # Reservations.
    def reserve(self, id: int, evse: int | None, token: Token, group_id: str, expires: str, now: Now) -> str:
        """OCPP ReserveNowStatusEnumType."""
        places = [e for e in ([evse] if evse else self.evses) if e in self.evses]
        free = [e for e in places if all(r.id == id for r in self.holds.on(e))]
        if evse and evse not in self.evses:
            return "Rejected"
        if parse_time(expires) <= now.wall:
            return "Rejected"
        if not free:
            return "Occupied"
        states = {e: self._status_of(e, now) for e in free}
        usable = [e for e, s in states.items() if s in ("Available", "Reserved")]
        if not usable:
            worst = set(states.values())
            return "Faulted" if worst == {"Faulted"} else "Unavailable" if worst == {"Unavailable"} else "Occupied"
        self.holds.add(Reservation(id, usable[0], token, group_id, expires))
        self._after(now)
        return "Accepted"

    def cancel_reservation(self, id: int, now: Now) -> bool:
        if id not in self.holds.by_id:
            return False
        self.holds.drop(id)
        self._after(now)
        return True

    @property
    def reservations(self) -> dict[int, Reservation]:
        return self.holds.by_id

    def _remove_reservations(self, evse: int) -> None:
        """The EVSE cannot serve them any more."""
        for reservation in self.holds.on(evse):
            self.holds.drop(reservation.id)
            self.teller.reservation_ended(reservation.id, "Removed")

    def next_id(self) -> int:
        """Ids for reports and events, unique in this process."""
        return next(self._counter)

    def connected(self, now: Now) -> None:
        self.online = True
        self.allowance.connected()

    def disconnected(self, now: Now) -> None:
        self.online = False

    @staticmethod
    def lapse(now: Now, seconds: float) -> str:
        return (now.wall + timedelta(seconds=seconds)).isoformat()
