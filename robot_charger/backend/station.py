"""The charging station as a CSMS sees it, whatever the OCPP version: plain logic, one thread, time injected."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from robot_charger.backend.records import (
    START_BUTTON,
    Call,
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
from robot_charger.backend.settings import Settings
from robot_charger.backend.site_power import SiteBudget, SitePlan, Want
from robot_charger.backend.smart_charging import ProfileError, SmartCharging
from robot_charger.backend.store import Store, StoreError
from robot_charger.backend.tokens import Tokens
from robot_charger.backend.transactions import Transactions, TransactionSettings
from robot_charger.common.faults import Code, FaultReport, Severity
from robot_charger.common.terms import Authorization, Phase

BACKLOG = 1000  # records kept in memory while the store takes none, before periodic readings are thinned

Answer = Callable[[dict[str, Any] | None], None]


@dataclass
class Reservation:
    id: int
    evse: int
    token: Token
    group_id: str
    expires: str


@dataclass
class Waiting:
    """A token that waits for its session: of a remote start, a card, a payment. It lapses."""

    token: Token
    since_ns: int
    group_id: str = ""
    remote_start_id: int | None = None
    trusted: bool = False  # nobody needs to be asked
    text: str = ""
    told: str = ""  # the session that was told of it


class Outside:
    """What the station needs of the world; the node and the client fill it in, tests record it."""

    def request(self, request: ToVehicleSide) -> None:
        """Publish on backend/request."""

    def limit(self, evse: int, limit: Limit) -> None:
        """Publish on backend/limit."""

    def fault(self, report: FaultReport) -> None:
        """Begin or end of a fault of the station."""

    def send(self, call: Call, answer: Answer | None = None) -> None:
        """Send a message that is not queued: dropped while offline."""

    def queued(self) -> None:
        """The queue has something new."""

    def status_changed(self, evse: int) -> None:
        """The connector of this EVSE has another status."""

    def restart(self, reason: str) -> None:
        """Boot the OCPP side anew; ``reason`` is a 2.x BootReasonEnumType."""


def _same_group(one: str, other: str) -> bool:
    return bool(one) and one.casefold() == other.casefold()


def _takes_token(view: SessionView) -> bool:
    """A vehicle is there, and no token was asked about yet: a session takes one."""
    open_phase = Phase.POSITIONING <= view.phase <= Phase.LINKING
    return bool(view.session_id) and open_phase and view.authorization == Authorization.NONE


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
        self.reservations: dict[int, Reservation] = {
            r["id"]: Reservation(**{**r, "token": Token(**r["token"])}) for r in store.get("reservations", [])
        }
        self._backlog: list[tuple[Record, OpenTransaction | None]] = []
        self._waiting: dict[int, Waiting] = {}
        self._start_profiles: dict[int, tuple[Token, Payload]] = {}  # TxProfiles that came with a remote start
        self._inoperative: set[int] = set(store.get("inoperative", []))  # 0 = the whole station
        self._scheduled: dict[int, bool] = {}
        self._told_operative: dict[int, bool] = {}
        self._reset_pending: str = ""
        self._limits: dict[int, Limit] = {}
        self._external_told: dict[int, Limit] = {}
        self._external_untold: set[int] = set()  # changed while offline
        self._reservation_ends: dict[tuple[int, str], int] = {}  # on CLOCK_MONOTONIC [ns]
        self.wall_offset_s = 0.0  # the station's time less the computer's
        self._slots: dict[str, int] = {}
        self._counter = itertools.count(1)
        self.supply: dict[int, tuple[float, float]] = {}  # rated current, power of each EVSE
        self.vehicle_limits: dict[int, tuple[float, float]] = {}  # current, power that its vehicle can take
        self.budget = SiteBudget(site)
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
        token, profile = self._start_profiles.pop(record.evse, (None, None))
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
        waiting = self._waiting.get(view.evse)
        if waiting and view.session_id and view.authorization == Authorization.ACCEPTED:
            del self._waiting[view.evse]
            if transactions.token is None or transactions.token.key == waiting.token.key:
                transactions.authorized(
                    view.session_id,
                    waiting.token,
                    waiting.group_id,
                    waiting.remote_start_id,
                    self._take_reservation(view.evse, waiting.token, waiting.group_id),
                )
        before = transactions.view
        transactions.session(view, now)
        self._tell_waiting(view.evse)
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
        self._reservation_ends.clear()
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
        for evse, waiting in list(self._waiting.items()):
            busy = self.evses[evse].view and self.evses[evse].view.session_id  # type: ignore[union-attr]
            if timeout and not busy and now.since(waiting.since_ns) > timeout:
                del self._waiting[evse]
        for reservation in list(self.reservations.values()):
            left = (parse_time(reservation.expires) - now.wall).total_seconds()
            key = (reservation.id, reservation.expires)
            ends = self._reservation_ends.setdefault(key, now.mono_ns + int(max(0.0, left) * 1e9))
            if now.mono_ns >= ends:  # a step of the clock ends none
                self._drop_reservation(reservation.id)
                self.on_reservation_ended(reservation.id, "Expired")
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
                    self.on_idle_reading(evse)
        if self._slot_passed("aligned_ended_s", now):
            for transactions in self.evses.values():
                transactions.keep_for_end("Sample.Clock")

    def _slot_passed(self, name: str, now: Now) -> bool:
        interval = self.settings[name]
        slot = int(now.wall.timestamp() // interval) if interval else 0
        before, self._slots[name] = self._slots.get(name, 0), slot
        return 0 < before < slot

    def on_idle_reading(self, evse: int) -> None:
        """Set by the OCPP version's module: a reading by the clock where no transaction runs."""

    def _after(self, now: Now) -> None:
        """What follows from a new state: availability that waited, statuses, limits, a reset that waited."""
        for evse, operative in list(self._scheduled.items()):
            targets = self.evses if evse == 0 else {evse: self.evses[evse]}
            if not any(self._in_use(t) for t in targets):
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
        self._set_limits(now)
        if self._reset_pending and not any(t.busy for t in self.evses.values()):
            reason, self._reset_pending = self._reset_pending, ""
            for evse in self.evses:
                self.outside.request(ToVehicleSide(evse, Request.RESET, text=reason))
            self.outside.restart(reason)

    def _set_limits(self, now: Now) -> None:
        """What each EVSE may draw: its own limits, and its share of what the station may draw."""
        own = {e: self.smart.limit(e, t.open, now, self.supply.get(e)) for e, t in self.evses.items()}
        whole = self.smart.station_limit(now)
        shares = self.budget.share(
            whole.max_power_w, whole.max_current_a, {e: self._want(e, own[e]) for e in self.evses}, now
        )
        for evse, limit in own.items():
            watts, amperes = shares[evse]
            if self.evses[evse].suspended:
                watts = amperes = 0.0
            if watts < limit.max_power_w or amperes < limit.max_current_a:
                limit = replace(
                    limit,
                    max_power_w=min(watts, limit.max_power_w),
                    max_current_a=min(amperes, limit.max_current_a),
                    source="token refused" if self.evses[evse].suspended else whole.source or "limit of the site",
                )
            if limit != self._limits.get(evse):
                self._limits[evse] = limit
                self.outside.limit(evse, limit)

    def _want(self, evse: int, own: Limit) -> Want:
        transactions = self.evses[evse]
        view, reading = transactions.view, transactions.reading
        rated_a, rated_w = self.supply.get(evse, (0.0, 0.0))
        vehicle_a, vehicle_w = self.vehicle_limits.get(evse, (0.0, 0.0))
        return Want(
            active=view is not None and self._in_use(evse),
            output_on=view is not None and view.output_on,
            need_w=min(own.max_power_w, rated_w or math.inf, vehicle_w or math.inf),
            need_a=min(own.max_current_a, rated_a or math.inf, vehicle_a or math.inf),
            drawn_w=reading.power_w if reading else 0.0,
            drawn_a=reading.current_a if reading else 0.0,
            drawn_ns=reading.stamp_ns if reading else 0,
        )

    def composite(self, evse: int, start: datetime, duration_s: int, unit: str) -> list[Payload]:
        """Composite schedule of an EVSE, or of the whole station (0)."""
        if evse:
            open_transaction = self.evses[evse].open
            return self.smart.composite(evse, open_transaction, start, duration_s, unit, self.supply.get(evse))
        known = [self.supply.get(e, (0.0, 0.0)) for e in self.evses]
        most_w = sum(w for _, w in known) or math.inf
        most_a = sum(a for a, _ in known) or math.inf
        if self.budget.plan.site_w > 0:
            most_w = min(most_w, self.budget.plan.site_w)
        return self.smart.station_composite(start, duration_s, unit, most_w, most_a)

    def site_meter(self, watts: float, now: Now) -> None:
        """What the whole site draws from the grid [W]."""
        self.budget.site_meter(watts, now)
        self._set_limits(now)

    def vehicle_limit(self, evse: int, amperes: float, watts: float) -> None:
        """What the vehicle on this EVSE can take; 0: not known."""
        self.vehicle_limits[evse] = (amperes, watts)

    def external_limit(self, evse: int, limit: Limit, now: Now) -> None:
        """Somebody else than the CSMS limits an EVSE, or no longer does (K11 - K14): the vehicle first, then the CSMS
        where it changes by more than LimitChangeSignificance."""
        if evse not in self.evses:
            return
        self.smart.external[evse] = limit
        self._after(now)
        if self._significant(self._external_told.get(evse, Limit()), limit):
            self._external_told[evse] = limit
            if self.online:
                self.on_external_limit(evse, limit)
            else:
                self._external_untold.add(evse)
            self.evses[evse].sample("ChargingRateChanged", "Other", now)

    def _significant(self, before: Limit, after: Limit) -> bool:
        tolerance = self.settings["limit_change"] / 100.0
        pairs = ((before.max_current_a, after.max_current_a), (before.max_power_w, after.max_power_w))
        return any(not math.isclose(old, new, rel_tol=tolerance) for old, new in pairs)

    def on_external_limit(self, evse: int, limit: Limit) -> None:
        """Set by the OCPP version's module."""

    def limit_of(self, evse: int) -> Limit:
        return self._limits.get(evse, Limit())

    def refresh(self, now: Now) -> None:
        """Limits and statuses at once, after a change from the CSMS."""
        self._after(now)

    def _in_use(self, evse: int) -> bool:
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
        if any(r.evse == evse for r in self.reservations.values()):
            return "Reserved"
        return "Available"

    # Authorisation. The asking itself is the client's.
    def local_answer(self, token: Token, evse: int, now: Now) -> TokenInfo | None:
        """The answer that needs no CSMS, None when it has to be asked."""
        waiting = self._waiting.get(evse)
        if waiting and waiting.token.key == token.key and waiting.trusted:
            return TokenInfo("Accepted", waiting.group_id)
        if self.online and not self.settings["local_pre_authorize"]:
            return None
        known = self.tokens.known(token, evse, now.wall)
        if self.online:
            return known if known and known.accepted else None
        return self.tokens.offline(token, evse, now.wall)

    def answered(self, evse: int, session_id: str, token: Token, info: TokenInfo, now: Now) -> TokenInfo:
        """A token was judged; reservations and the session learn of it."""
        if info.accepted and self._is_master(info):
            info = TokenInfo("Invalid", info.group_id)  # it stops what others began, and begins nothing
        if info.accepted and self._held_for_another(evse, token, info.group_id):
            info = TokenInfo("NotAtThisTime", info.group_id)
        transactions = self.evses.get(evse)
        waiting = self._waiting.get(evse)
        ours = waiting is not None and waiting.token.key == token.key
        if ours or info.accepted:
            self._waiting.pop(evse, None)
        if info.accepted and transactions:
            transactions.authorized(
                session_id,
                token,
                info.group_id,
                waiting.remote_start_id if waiting and ours else None,
                self._take_reservation(evse, token, info.group_id),
            )
            transactions.tick(now)
        return info

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

    # What a CSMS asks for.
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
        candidates = [evse] if evse is not None else [e for e in self.evses if self._startable(e, token, group_id)]
        if not candidates or candidates[0] not in self.evses:
            return False, "UnknownEvse" if evse is not None else "NoEvse", ""
        number = candidates[0]
        if not self.store_ok:
            return False, "StoreFailed", ""
        if not self._startable(number, token, group_id):
            return False, "NotReady", ""
        trusted = not self.settings["authorize_remote_start"]
        self._waiting[number] = Waiting(token, now.mono_ns, group_id, remote_start_id, trusted, "remote start")
        self._start_profiles.pop(number, None)
        if profile:
            self._start_profiles[number] = (token, profile)
        self._tell_waiting(number)
        transaction = self.evses[number].open
        if transaction and transaction.token is None:
            self.evses[number].authorized(transaction.session_id, token, group_id, remote_start_id)
        return True, "", transaction.transaction_id if transaction else ""

    def _tell_waiting(self, evse: int) -> None:
        """Hand a waiting token to the session it waits for, once: the EVSE itself keeps no token for later."""
        waiting, view = self._waiting.get(evse), self.evses[evse].view
        if waiting and view and _takes_token(view) and waiting.told != view.session_id:
            waiting.told = view.session_id
            self.outside.request(
                ToVehicleSide(evse, Request.START, view.session_id, waiting.token, waiting.trusted, waiting.text)
            )

    def shown(self, token: Token, evse: int, paid: bool, now: Now, info: TokenInfo | None = None) -> str:
        """A card was held to a reader, a terminal took an ad hoc payment or START_BUTTON was pressed; a word for the
        log.

        ``evse`` 0: the reader serves all of them. The card that started a session ends it, as does a card of its
        group (C09); a master pass ends them all (C16). "ask": call again with what the CSMS says of the token.
        A card is asked about like any other token; a payment is not. Either waits for its vehicle as long as a
        remote start.
        """
        places = [evse] if evse else list(self.evses)
        for place in places:
            if place not in self.evses:
                return "no such EVSE"
            begun = self.evses[place].open
            if begun and begun.token and begun.token.key == token.key and token != START_BUTTON:
                self.stop(place, "Local", "the same token again")
                return "stop"
        views = {place: self.evses[place].view for place in places}
        arrived = [
            place
            for place, view in views.items()
            if view
            and _takes_token(view)
            and self.operative(place)
            and not (paid and self._held_for_another(place, token, ""))
        ]
        running = [place for place in self.evses if self.evses[place].open]
        if info is None and running and not paid and (not arrived or self.settings["master_pass"]):
            return "ask"
        if info and not info.accepted:
            return "refused"
        if info and self._is_master(info):
            for place in running:
                self.stop(place, "MasterPass", "master pass", token)
            return "stop all"
        for place in places:
            transaction = self.evses[place].open
            if info and not arrived and transaction and _same_group(info.group_id, transaction.group_id):
                self.stop(place, "Local", "a token of the same group", token)
                return "stop"
        free = [place for place in places if self._startable(place, token, info.group_id if info else "")]
        chosen = next(iter([*arrived, *free]), None)
        if chosen is None or not self.store_ok:
            return "nothing to start"
        self._start_profiles.pop(chosen, None)
        text = "start button" if token == START_BUTTON else "paid at the terminal" if paid else "card"
        self._waiting[chosen] = Waiting(token, now.mono_ns, trusted=paid, text=text)
        self._tell_waiting(chosen)
        return "start"

    def _is_master(self, info: TokenInfo) -> bool:
        return _same_group(self.settings["master_pass"], info.group_id)

    def stop_pressed(self, evse: int) -> None:
        """A person asks for the end at a terminal."""
        if evse in self.evses and self.evses[evse].open:
            self.stop(evse, "Local", "stopped at the terminal")

    def _startable(self, evse: int, token: Token, group_id: str) -> bool:
        view = self.evses[evse].view
        if view is None or not self.operative(evse) or self._scheduled.get(evse) is False or self._reset_pending:
            return False
        if view.phase >= Phase.STOPPING or view.authorization == Authorization.ACCEPTED or evse in self._waiting:
            return False
        transaction = self.evses[evse].open
        if transaction and transaction.token is not None:
            return False
        return not self._held_for_another(evse, token, group_id)

    def _held_for_another(self, evse: int, token: Token, group_id: str) -> bool:
        return any(
            r.evse == evse and r.token.key != token.key and not _same_group(group_id, r.group_id)
            for r in self.reservations.values()
        )

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
        if not operative and any(self._in_use(t) for t in targets):
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
        """OCPP 2.x UnlockStatusEnumType."""
        if evse not in self.evses:
            return "UnknownConnector"
        if self.evses[evse].open:
            return "OngoingAuthorizedTransaction"
        self.outside.request(ToVehicleSide(evse, Request.UNLOCK, text="unlock by the back end"))
        return "Unlocked"

    # Reservations.
    def reserve(self, id: int, evse: int | None, token: Token, group_id: str, expires: str, now: Now) -> str:
        """OCPP ReserveNowStatusEnumType."""
        free = [
            e
            for e in ([evse] if evse else self.evses)
            if e in self.evses and all(r.evse != e or r.id == id for r in self.reservations.values())
        ]
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
        self.reservations[id] = Reservation(id, usable[0], token, group_id, expires)
        self._keep_reservations()
        self._after(now)
        return "Accepted"

    def cancel_reservation(self, id: int, now: Now) -> bool:
        if id not in self.reservations:
            return False
        self._drop_reservation(id)
        self._after(now)
        return True

    def _take_reservation(self, evse: int, token: Token, group_id: str) -> int | None:
        for reservation in list(self.reservations.values()):
            ours = reservation.token.key == token.key or _same_group(group_id, reservation.group_id)
            if reservation.evse == evse and ours:
                self._drop_reservation(reservation.id)
                return reservation.id
        return None

    def _drop_reservation(self, id: int) -> None:
        gone = self.reservations.pop(id)
        self._reservation_ends.pop((id, gone.expires), None)
        self._keep_reservations()

    def _remove_reservations(self, evse: int) -> None:
        """The EVSE cannot serve them any more."""
        for id in [r.id for r in self.reservations.values() if r.evse == evse]:
            self._drop_reservation(id)
            self.on_reservation_ended(id, "Removed")

    def _keep_reservations(self) -> None:
        self._keep(
            "reservations",
            [
                {
                    "id": r.id,
                    "evse": r.evse,
                    "token": {"id": r.token.id, "type": r.token.type},
                    "group_id": r.group_id,
                    "expires": r.expires,
                }
                for r in self.reservations.values()
            ],
        )

    def on_reservation_ended(self, id: int, status: str) -> None:
        """Set by the OCPP version's module."""

    def next_id(self) -> int:
        """Ids for reports and events, unique in this process."""
        return next(self._counter)

    def connected(self, now: Now) -> None:
        self.online = True
        while self._external_untold:
            evse = self._external_untold.pop()
            self.on_external_limit(evse, self._external_told[evse])

    def disconnected(self, now: Now) -> None:
        self.online = False

    @staticmethod
    def lapse(now: Now, seconds: float) -> str:
        return (now.wall + timedelta(seconds=seconds)).isoformat()
