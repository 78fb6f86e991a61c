"""What each EVSE may draw now: its own profiles and external limits, and its share of the station's budget."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from robot_charger.backend.records import Limit, Now, Payload
from robot_charger.backend.site_power import SiteBudget, SitePlan, Want

if TYPE_CHECKING:
    from robot_charger.backend.station import Station


class Allowance:
    def __init__(self, station: Station, site: SitePlan | None) -> None:
        self._station = station
        self.budget = SiteBudget(site)
        self.limits: dict[int, Limit] = {}
        self.vehicles: dict[int, tuple[float, float]] = {}  # current, power that its vehicle can take
        self._external_told: dict[int, Limit] = {}
        self._external_untold: set[int] = set()  # changed while offline

    def set(self, now: Now) -> None:
        """Compute the limits and publish those that changed."""
        station = self._station
        own = {e: station.smart.limit(e, t.open, now, station.supply.get(e)) for e, t in station.evses.items()}
        whole = station.smart.station_limit(now)
        wants = {e: self._want(e, limit) for e, limit in own.items()}
        shares = self.budget.share(whole.max_power_w, whole.max_current_a, wants, now)
        for evse, limit in own.items():
            watts, amperes = shares[evse]
            source = whole.source or "limit of the site"
            if station.evses[evse].suspended:
                watts, amperes, source = 0.0, 0.0, "token refused"
            if watts < limit.max_power_w or amperes < limit.max_current_a:
                limit = replace(
                    limit,
                    max_power_w=min(watts, limit.max_power_w),
                    max_current_a=min(amperes, limit.max_current_a),
                    source=source,
                )
            if limit != self.limits.get(evse):
                self.limits[evse] = limit
                station.outside.limit(evse, limit)

    def _want(self, evse: int, own: Limit) -> Want:
        transactions = self._station.evses[evse]
        view, reading = transactions.view, transactions.reading
        rated_a, rated_w = self._station.supply.get(evse, (0.0, 0.0))
        vehicle_a, vehicle_w = self.vehicles.get(evse, (0.0, 0.0))
        return Want(
            active=view is not None and self._station.in_use(evse),
            output_on=view is not None and view.output_on,
            need_w=min(own.max_power_w, rated_w or math.inf, vehicle_w or math.inf),
            need_a=min(own.max_current_a, rated_a or math.inf, vehicle_a or math.inf),
            drawn_w=reading.power_w if reading else 0.0,
            drawn_a=reading.current_a if reading else 0.0,
            drawn_ns=reading.stamp_ns if reading else 0,
        )

    def composite(self, evse: int, start: datetime, duration_s: int, unit: str) -> list[Payload]:
        """Composite schedule of an EVSE, or of the whole station (0)."""
        station = self._station
        if evse:
            open_transaction = station.evses[evse].open
            return station.smart.composite(evse, open_transaction, start, duration_s, unit, station.supply.get(evse))
        known = [station.supply.get(e, (0.0, 0.0)) for e in station.evses]
        most_w = sum(w for _, w in known) or math.inf
        most_a = sum(a for a, _ in known) or math.inf
        if self.budget.plan.site_w > 0:
            most_w = min(most_w, self.budget.plan.site_w)
        return station.smart.station_composite(start, duration_s, unit, most_w, most_a)

    def external(self, evse: int, limit: Limit, now: Now) -> None:
        """Tell the CSMS of another's limit where it changes by more than LimitChangeSignificance (K11 - K14)."""
        station = self._station
        if not self._significant(self._external_told.get(evse, Limit()), limit):
            return
        self._external_told[evse] = limit
        if station.online:
            station.on_external_limit(evse, limit)
        else:
            self._external_untold.add(evse)
        station.evses[evse].sample("ChargingRateChanged", "Other", now)

    def connected(self) -> None:
        while self._external_untold:
            evse = self._external_untold.pop()
            self._station.on_external_limit(evse, self._external_told[evse])

    def _significant(self, before: Limit, after: Limit) -> bool:
        tolerance = self._station.settings["limit_change"] / 100.0
        pairs = ((before.max_current_a, after.max_current_a), (before.max_power_w, after.max_power_w))
        return any(not math.isclose(old, new, rel_tol=tolerance) for old, new in pairs)
