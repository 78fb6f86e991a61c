"""Charging profiles: which limit holds now, and the composite schedule (OCPP 1.6 part 2 3.13, 2.0.1 K).

A profile is kept in one neutral form: the 2.x ChargingProfileType as it came, with ``evseId`` beside it.
Limits of several purposes combine to the smallest; of one purpose the highest valid stackLevel rules, and of a
transaction a TxProfile replaces the TxDefaultProfile.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from datetime import datetime, timedelta

from robot_charger.backend.records import Limit, Now, OpenTransaction, Payload, parse_time

STATION_MAX = "ChargingStationMaxProfile"
EXTERNAL = "ChargingStationExternalConstraints"
TX_DEFAULT, TX = "TxDefaultProfile", "TxProfile"
PRIORITY, LOCAL_GENERATION = "PriorityCharging", "LocalGeneration"  # 2.1
MAX_DURATION_S = 7 * 86_400  # of a composite schedule
MODES = ("ChargingOnly", "CentralSetpoint", "ExternalLimits")  # 2.1 OperationModeEnumType that is done
HIGHEST_LEVEL = 99
PROFILES = 1000
STEP_S = 2.0  # a larger difference between clock and monotonic time is a step
NOMINAL_V = 400.0  # turns amperes into watts where the supply has not told its ratings


def _overlap(one: Payload, other: Payload) -> bool:
    """Their validity has a moment in common."""

    def bounds(profile: Payload) -> tuple[float, float]:
        first, last = profile.get("validFrom"), profile.get("validTo")
        return (
            parse_time(first).timestamp() if first else -math.inf,
            parse_time(last).timestamp() if last else math.inf,
        )

    try:
        (a, b), (c, d) = bounds(one), bounds(other)
    except ValueError:
        return True
    return a < d and c < b


def begun(transaction: OpenTransaction | None, now: Now) -> datetime | None:
    """When a transaction started, on the clock of ``now``: by its monotonic stamp where that is of this boot."""
    if transaction is None:
        return None
    seconds = now.since(transaction.started_ns)
    if transaction.started_ns > 0 and seconds >= 0.0:
        return now.wall - timedelta(seconds=seconds)
    return parse_time(transaction.started)


class ProfileError(ValueError):
    """A profile cannot be taken; ``reason`` is a short reasonCode."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason[:20]  # as the schema allows


class SmartCharging:
    def __init__(self, kept: list[Payload], keep: Callable[[list[Payload]], None] = lambda profiles: None) -> None:
        self.profiles: list[Payload] = kept
        self.external: dict[int, Limit] = {}  # what others than the CSMS allow an EVSE
        self.priority: set[str] = set()  # transactions that charge with priority (2.1)
        self._pulled: dict[int, int] = {}  # dynamic profile: when its newest values were asked for [ns]
        self._anchor: Now | None = None
        self._keep = keep

    # Setting and clearing.
    def set(self, evse: int, profile: Payload, open_transaction: str, number_of_evses: int) -> None:
        """Install a profile. Raises ProfileError."""
        purpose = profile["chargingProfilePurpose"]
        if evse < 0 or evse > number_of_evses:
            raise ProfileError("UnknownEvse", f"there is no EVSE {evse}")
        if purpose == EXTERNAL:
            raise ProfileError("InvalidProfile", "external constraints are not set by a CSMS")
        if purpose == STATION_MAX and evse != 0:
            raise ProfileError("InvalidProfile", "a station maximum belongs to EVSE 0")
        if purpose == STATION_MAX and profile["chargingProfileKind"] == "Relative":
            raise ProfileError("InvalidProfile", "a station maximum cannot be relative")
        if purpose == TX:
            if evse == 0:
                raise ProfileError("InvalidProfile", "a TxProfile belongs to an EVSE")
            if not open_transaction:
                raise ProfileError("TxNotFound", "no transaction runs")
            if profile.get("transactionId", open_transaction) != open_transaction:
                raise ProfileError("TxNotFound", "another transaction runs")
            profile = {**profile, "transactionId": open_transaction}
        if profile["chargingProfileKind"] == "Recurring" and "recurrencyKind" not in profile:
            raise ProfileError("InvalidProfile", "a recurring profile needs recurrencyKind")
        if not 0 <= profile["stackLevel"] <= HIGHEST_LEVEL:
            raise ProfileError("InvalidStackLevel", f"stackLevel from 0 to {HIGHEST_LEVEL}")
        self._check_values(profile)
        for schedule in profile["chargingSchedule"]:
            periods = schedule.get("chargingSchedulePeriod") or []
            starts = [p["startPeriod"] for p in periods]
            if not starts or starts[0] != 0 or starts != sorted(set(starts)):
                raise ProfileError("InvalidSchedule", "periods must rise from 0")
            kind, begins = profile["chargingProfileKind"], "startSchedule" in schedule
            if not begins and (kind == "Recurring" or (kind == "Absolute" and purpose != TX)):
                raise ProfileError("InvalidSchedule", f"a schedule that is {kind} needs startSchedule (K01.FR.40)")
        rest = [p for p in self.profiles if not self._replaced(p, evse, profile)]
        if len(rest) >= PROFILES:
            raise ProfileError("TooManyElements", f"{PROFILES} profiles are installed")
        self._store(rest + [{**profile, "evseId": evse}])

    def check_k01(self, evse: int, profile: Payload) -> None:
        """What OCPP 2.x demands beside (K01, Q10). Raises ProfileError."""
        purpose, kind = profile["chargingProfilePurpose"], profile["chargingProfileKind"]
        if purpose == TX and not profile.get("transactionId"):
            raise ProfileError("MissingParam", "a TxProfile needs its transactionId (K01.FR.03)")
        if purpose != TX and profile.get("transactionId"):
            raise ProfileError("InvalidProfile", "only a TxProfile has a transactionId")
        for schedule in profile["chargingSchedule"]:
            if kind == "Relative" and "startSchedule" in schedule:
                raise ProfileError("InvalidSchedule", "a relative schedule has no startSchedule (K01.FR.41)")
            for period in schedule.get("chargingSchedulePeriod") or []:
                mode = period.get("operationMode", "ChargingOnly")
                if mode not in MODES:
                    raise ProfileError("UnsupportedParam", f"UnsupportedOperationMode: {mode} is not done (Q10)")
        for other in self.profiles:
            if other["id"] == profile["id"] or other["chargingProfilePurpose"] != purpose:
                continue
            if other["stackLevel"] != profile["stackLevel"] or not _overlap(other, profile):
                continue
            if purpose == TX_DEFAULT and (other["evseId"] == 0) != (evse == 0):
                raise ProfileError("DuplicateProfile", "one for all EVSEs beside one of its own (K01.FR.52, 53)")
            if purpose == TX and other.get("transactionId") == profile.get("transactionId"):
                raise ProfileError("DuplicateProfile", "another TxProfile of this stackLevel (K01.FR.39)")

    @staticmethod
    def _check_values(profile: Payload) -> None:
        """Times that are times, numbers that are numbers; what is kept is read ten times a second."""
        purpose = profile["chargingProfilePurpose"]
        if purpose not in (STATION_MAX, TX_DEFAULT, TX, PRIORITY):
            raise ProfileError("UnsupportedPurpose", f"{purpose} is not done")
        schedules = profile["chargingSchedule"]
        times = [profile.get("validFrom"), profile.get("validTo"), *(s.get("startSchedule") for s in schedules)]
        try:
            for text in times:
                if text is not None:
                    parse_time(text)
        except ValueError as error:
            raise ProfileError("InvalidProfile", str(error)) from error
        for schedule in schedules:
            if not 0 <= schedule.get("duration", 1) < 1e9:
                raise ProfileError("InvalidSchedule", "duration")
            for period in schedule.get("chargingSchedulePeriod") or []:
                numbers = [v for v in period.values() if isinstance(v, int | float)]
                if not all(math.isfinite(v) and abs(v) < 1e9 for v in numbers):
                    raise ProfileError("InvalidSchedule", "a number that is none")
                if period.get("limit", 0) < 0 or period.get("dischargeLimit", 0) > 0:
                    raise ProfileError("InvalidSchedule", "the sign of a limit")

    @staticmethod
    def _replaced(old: Payload, evse: int, new: Payload) -> bool:
        if old["id"] == new["id"]:
            return True
        same_place = old["evseId"] == evse and old["chargingProfilePurpose"] == new["chargingProfilePurpose"]
        return bool(same_place and old["stackLevel"] == new["stackLevel"])

    def clear(
        self, id: int | None = None, evse: int | None = None, purpose: str | None = None, level: int | None = None
    ) -> list[Payload]:
        """Remove what matches; what went."""

        def matches(profile: Payload) -> bool:
            if id is not None:
                return bool(profile["id"] == id)
            return (
                (evse is None or profile["evseId"] == evse)
                and (purpose is None or profile["chargingProfilePurpose"] == purpose)
                and (level is None or profile["stackLevel"] == level)
            )

        gone = [p for p in self.profiles if matches(p)]
        if gone:
            self._store([p for p in self.profiles if not matches(p)])
        return gone

    def update_dynamic(self, id: int, update: Payload) -> bool:
        """2.1: new values for the running period of a dynamic profile. False when there is none."""
        if not all(math.isfinite(v) and abs(v) < 1e9 for v in update.values() if isinstance(v, int | float)):
            return False
        if update.get("limit", 0) < 0 or update.get("dischargeLimit", 0) > 0:
            return False
        for number, profile in enumerate(self.profiles):
            if profile["id"] == id and profile["chargingProfileKind"] == "Dynamic":
                schedule = profile["chargingSchedule"][0]
                period = {**schedule["chargingSchedulePeriod"][0], **update}
                changed = {**profile, "chargingSchedule": [{**schedule, "chargingSchedulePeriod": [period]}]}
                self._store([*self.profiles[:number], changed, *self.profiles[number + 1 :]])
                return True
        return False

    def pulls_due(self, now: Now) -> list[int]:
        """2.1: dynamic profiles whose newest values the station fetches itself, every dynUpdateInterval seconds."""
        dynamic = [p for p in self.profiles if p["chargingProfileKind"] == "Dynamic"]
        wanted = {p["id"]: p.get("dynUpdateInterval", 0) for p in dynamic}
        self._pulled = {id: self._pulled.get(id, now.mono_ns) for id, interval in wanted.items() if interval > 0}
        due = [id for id, asked in self._pulled.items() if now.since(asked) >= wanted[id]]
        self._pulled.update(dict.fromkeys(due, now.mono_ns))
        return due

    def ended(self, transaction_id: str) -> None:
        """Profiles of a transaction go with it."""
        self.priority.discard(transaction_id)
        rest = [p for p in self.profiles if p.get("transactionId") != transaction_id]
        if len(rest) != len(self.profiles):
            self._store(rest)

    def _store(self, profiles: list[Payload]) -> None:
        self._keep(profiles)
        self.profiles = profiles

    # What holds.
    def limit(
        self, evse: int, transaction: OpenTransaction | None, now: Now, rating: tuple[float, float] | None = None
    ) -> Limit:
        """What this EVSE may draw at this moment. A step of the clock lifts no limit: until the time is confirmed, the
        stricter of the clock's time and the one that goes on from before the step holds."""
        found = self._limit_at(evse, transaction, now, rating)
        steady = self._steady(now)
        if steady is None:
            return found
        other = self._limit_at(evse, transaction, steady, rating)
        return Limit(
            min(found.max_current_a, other.max_current_a),
            min(found.max_power_w, other.max_power_w),
            max(found.min_power_w, other.min_power_w),
            found.source or other.source,
        )

    def _steady(self, now: Now) -> Now | None:
        """This moment on a clock that was not set, where it differs; None where it does not."""
        if self._anchor is None:
            self._anchor = now
        wall = self._anchor.wall + timedelta(seconds=now.since(self._anchor.mono_ns))
        return Now(now.mono_ns, wall) if abs((wall - now.wall).total_seconds()) > STEP_S else None

    def time_confirmed(self) -> None:
        """The clock is right as it is now."""
        self._anchor = None

    def _limit_at(
        self, evse: int, transaction: OpenTransaction | None, now: Now, rating: tuple[float, float] | None
    ) -> Limit:
        found = Limit()
        source = ""
        rated_a, rated_w = rating or (0.0, 0.0)
        volts = rated_w / rated_a if rated_a and rated_w else NOMINAL_V
        current, power, minimum = found.max_current_a, found.max_power_w, found.min_power_w
        if outside := self.external.get(evse):
            current, power = outside.max_current_a, outside.max_power_w
            source = "" if outside == Limit(source=outside.source) else f"external limit {outside.source}"
        for profile, schedule, period, _ in self._binding(evse, transaction, now.wall, begun(transaction, now)):
            value = float(period.get("limit", float("inf")))
            if schedule["chargingRateUnit"] == "A":
                if value < current:
                    current, source = value, self._name(profile)
            elif value < power:
                power, source = value, self._name(profile)
            watts = volts if schedule["chargingRateUnit"] == "A" else 1.0
            minimum = min(minimum, float(period.get("dischargeLimit", 0.0)) * watts)
            setpoint = period.get("setpoint")
            if setpoint is not None:  # 2.1: below 0 is a demand to discharge
                power = min(power, max(0.0, float(setpoint) * watts))
                minimum = min(minimum, float(setpoint) * watts)
                source = self._name(profile)
        return Limit(current, power, minimum, source)

    def station_limit(self, now: Now) -> Limit:
        """What all EVSEs together may draw; a maximum in A is one of the grid side, per phase, and of the outputs."""
        limit = Limit()
        for moment in (now, self._steady(now)):
            found = self._highest(STATION_MAX, 0, None, moment.wall, None) if moment else None
            if found is None:
                continue
            profile, schedule, period, _ = found
            value, source = float(period.get("limit", math.inf)), self._name(profile)
            if schedule["chargingRateUnit"] == "A":
                limit = Limit(min(limit.max_current_a, value), limit.max_power_w, source=source)
            else:
                limit = Limit(limit.max_current_a, min(limit.max_power_w, value), source=source)
        return limit

    @staticmethod
    def _name(profile: Payload) -> str:
        return f"{profile['chargingProfilePurpose']} {profile['id']}"

    def _binding(
        self, evse: int, transaction: OpenTransaction | None, moment: datetime, started: datetime | None
    ) -> list[tuple[Payload, Payload, Payload, datetime]]:
        """Profile, schedule, period and end of the period that rule, one per purpose."""
        found = []
        for purposes, places in (
            ((STATION_MAX,), (0,)),
            (self._of_transaction(transaction), (evse, 0)),
        ):
            best = None
            for purpose in purposes:
                if purpose in (TX, TX_DEFAULT, PRIORITY) and transaction is None:
                    continue
                for place in places:
                    best = best or self._highest(purpose, place, transaction, moment, started)
            if best:
                found.append(best)
        return found

    def _of_transaction(self, transaction: OpenTransaction | None) -> tuple[str, ...]:
        prior = transaction is not None and transaction.transaction_id in self.priority
        return (PRIORITY, TX, TX_DEFAULT) if prior else (TX, TX_DEFAULT)

    def _highest(
        self,
        purpose: str,
        place: int,
        transaction: OpenTransaction | None,
        moment: datetime,
        started: datetime | None,
    ) -> tuple[Payload, Payload, Payload, datetime] | None:
        candidates = [
            p
            for p in self.profiles
            if p["chargingProfilePurpose"] == purpose
            and p["evseId"] == place
            and (purpose != TX or (transaction and p.get("transactionId") == transaction.transaction_id))
        ]
        for profile in sorted(candidates, key=lambda p: -p["stackLevel"]):
            active = self._active(profile, started, moment)
            if active:
                return (profile, *active)
        return None

    @staticmethod
    def _active(
        profile: Payload, started: datetime | None, moment: datetime
    ) -> tuple[Payload, Payload, datetime] | None:
        """Schedule and period of a profile at a moment, and when the period ends."""
        forever = moment + timedelta(days=3650)
        end = forever
        if "validFrom" in profile and moment < parse_time(profile["validFrom"]):
            return None
        if "validTo" in profile:
            end = parse_time(profile["validTo"])
            if moment >= end:
                return None
        schedule = profile["chargingSchedule"][0]
        kind = profile["chargingProfileKind"]
        if kind == "Dynamic":
            return schedule, schedule["chargingSchedulePeriod"][0], end
        if kind == "Relative" or "startSchedule" not in schedule:
            if started is None:
                return None
            start = started
        else:
            start = parse_time(schedule["startSchedule"])
        if kind == "Recurring":
            cycle = timedelta(days=7 if profile["recurrencyKind"] == "Weekly" else 1)
            if moment >= start:
                start += (moment - start) // cycle * cycle
            end = min(end, start + cycle)
        if moment < start:
            return None
        elapsed = (moment - start).total_seconds()
        if "duration" in schedule:
            if elapsed >= schedule["duration"]:
                return None
            end = min(end, start + timedelta(seconds=schedule["duration"]))
        periods = schedule["chargingSchedulePeriod"]
        current = periods[0]
        for period in periods:
            if period["startPeriod"] <= elapsed:
                current = period
            else:
                end = min(end, start + timedelta(seconds=period["startPeriod"]))
                break
        return schedule, current, end

    def composite(
        self,
        evse: int,
        transaction: OpenTransaction | None,
        start: datetime,
        duration_s: int,
        unit: str,
        rating: tuple[float, float] | None = None,
    ) -> list[Payload]:
        """Periods {startPeriod, limit} over a duration in one unit, at most the rating and the external limit."""
        rated_a, rated_w = rating or (0.0, 0.0)
        volts = rated_w / rated_a if rated_a and rated_w else NOMINAL_V
        periods: list[Payload] = []
        started = parse_time(transaction.started) if transaction else None
        offset = 0.0
        while offset < duration_s and len(periods) < 1024:
            moment = start + timedelta(seconds=offset)
            ends = [float(duration_s)]
            value = (rated_a if unit == "A" else rated_w) or float("inf")
            outside = self.external.get(evse, Limit())
            amperes = min(outside.max_current_a, outside.max_power_w / volts)
            value = min(value, amperes if unit == "A" else amperes * volts)
            for _, schedule, period, end in self._binding(evse, transaction, moment, started):
                limit = float(period.get("limit", float("inf")))
                own = schedule["chargingRateUnit"]
                value = min(value, limit if own == unit else limit / volts if unit == "A" else limit * volts)
                ends.append((end - start).total_seconds())
            ends += self._starts(evse, start, offset)
            if value == float("inf"):
                value = 0.0 if not rating else value
            if not periods or periods[-1]["limit"] != round(value, 1):
                periods.append({"startPeriod": int(offset), "limit": round(value, 1)})
            offset = max(offset + 1.0, min(e for e in ends if e > offset))
        return periods

    def station_composite(
        self, start: datetime, duration_s: int, unit: str, most_w: float, most_a: float
    ) -> list[Payload]:
        """The same for the whole station (EVSE 0); ``most_w``, ``most_a``: what all EVSEs can give, or the site."""
        periods: list[Payload] = []
        offset = 0.0
        volts = most_w / most_a if most_w and most_a and math.isfinite(most_w) else NOMINAL_V
        while offset < duration_s and len(periods) < 1024:
            moment = start + timedelta(seconds=offset)
            value, ends = (most_a if unit == "A" else most_w), [float(duration_s)]
            if found := self._highest(STATION_MAX, 0, None, moment, None):
                _, schedule, period, end = found
                limit, own = float(period.get("limit", math.inf)), schedule["chargingRateUnit"]
                value = min(value, limit if own == unit else limit / volts if unit == "A" else limit * volts)
                ends.append((end - start).total_seconds())
            ends += self._starts(0, start, offset)
            value = round(value, 1) if math.isfinite(value) else 0.0
            if not periods or periods[-1]["limit"] != value:
                periods.append({"startPeriod": int(offset), "limit": value})
            offset = max(offset + 1.0, min(e for e in ends if e > offset))
        return periods

    def _starts(self, evse: int, start: datetime, offset: float) -> list[float]:
        """Moments at which a profile that does not hold yet begins."""
        found = []
        for profile in self.profiles:
            if profile["evseId"] not in (0, evse):
                continue
            for text in (profile.get("validFrom"), profile["chargingSchedule"][0].get("startSchedule")):
                if not text:
                    continue
                with contextlib.suppress(ValueError):
                    moment = parse_time(text)
                    if profile["chargingProfileKind"] == "Recurring":
                        cycle = timedelta(days=7 if profile.get("recurrencyKind") == "Weekly" else 1)
                        now = start + timedelta(seconds=offset)
                        moment += ((now - moment) // cycle + 1) * cycle if moment <= now else timedelta()
                    found.append((moment - start).total_seconds())
        return [f for f in found if f > offset]
