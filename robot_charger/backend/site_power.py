"""One power budget for all EVSEs: the station maximum and the limit of the site, shared by need.

Counted on the grid side: what the modules lose and what the station itself uses come off first. At every moment the
sum of what the EVSEs may draw stays within the budget. An EVSE that is to draw less is told at once; what it gives
up is given to another only when its meter has shown that it draws less (OCPP 1.6 part 2, 3.13; 2.0.1 K01, K04).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from robot_charger.backend.records import Now

INF = math.inf
GRID_V, GRID_PHASES = 230.0, 3  # of the station's supply: turns amperes of a station maximum into watts
SETTLE_S = 1.0  # a new limit has reached the modules by then; a lapsed permit has gone to zero
TOLERANCE = 0.02  # of a limit, for the accuracy of meter and modules
SLACK_W, SLACK_A = 200.0, 1.0
TAPER_S = 20.0  # an EVSE that draws much less for this long needs less
STEP_W = 5_000.0  # needs are counted in such steps, so that limits do not change all the time


@dataclass(frozen=True)
class SitePlan:
    """Parameters ``limit.*``. ``site_w`` 0: the site has no limit of its own."""

    site_w: float = 0.0
    efficiency: float = 0.94
    auxiliary_w: float = 500.0
    fallback_w: float = 0.0  # for the station while the site meter is silent
    site_meter: bool = False
    meter_age_s: float = 5.0


@dataclass(frozen=True)
class Want:
    """One EVSE. ``active``: a session is on. The rest in W and A; ``drawn_ns`` is when the meter was read."""

    active: bool
    output_on: bool
    need_w: float = INF
    need_a: float = INF
    drawn_w: float = 0.0
    drawn_a: float = 0.0
    drawn_ns: int = 0


@dataclass(frozen=True)
class Item:
    """What a pool needs of one EVSE."""

    active: bool
    need: float
    drawn: float
    drawn_ns: int
    output_on: bool


def fair(total: float, items: dict[int, Item]) -> dict[int, float]:
    """Shares by need: nobody gets more than it needs before all have what they need; then the rest in equal parts."""
    shares = dict.fromkeys(items, 0.0)
    if math.isinf(total):
        return dict.fromkeys(items, INF)
    open_ones = [e for e, item in items.items() if item.active]
    left = total
    while open_ones:
        part = left / len(open_ones)
        small = [e for e in open_ones if items[e].need <= part]
        if not small:
            shares.update(dict.fromkeys(open_ones, part))
            return shares
        for evse in small:
            shares[evse] = items[evse].need
            left -= items[evse].need
        open_ones = [e for e in open_ones if e not in small]
    for evse in items:
        shares[evse] += left / len(items)
    return shares


@dataclass
class Pool:
    """A shared quantity (W or A). ``granted``: what an EVSE is told; ``held``: what it may still draw."""

    slack: float
    granted: dict[int, float] = field(default_factory=dict)
    held: dict[int, float] = field(default_factory=dict)
    lowered_ns: dict[int, int] = field(default_factory=dict)

    def share(self, total: float, items: dict[int, Item], now: Now) -> dict[int, float]:
        target = fair(total, items)
        for evse, item in items.items():
            self._lower(evse, target[evse], item, now)
        spare = total - sum(max(self.granted[e], self.held[e]) for e in items)
        for evse in items:
            room = max(0.0, spare) + max(0.0, self.held[evse] - self.granted[evse])
            more = min(target[evse] - self.granted[evse], room)
            if more > 0:
                before = max(self.granted[evse], self.held[evse])
                self.granted[evse] += more
                self.held[evse] = max(self.held[evse], self.granted[evse])
                spare -= max(0.0, self.held[evse] - before)
        return dict(self.granted)

    def _lower(self, evse: int, target: float, item: Item, now: Now) -> None:
        granted = self.granted.get(evse, INF)
        if target < granted:
            self.granted[evse], self.lowered_ns[evse] = target, now.mono_ns
        else:
            self.granted[evse] = granted
        self.held.setdefault(evse, INF)
        if self._obeys(evse, item, now):
            self.held[evse] = self.granted[evse]

    def _obeys(self, evse: int, item: Item, now: Now) -> bool:
        """The EVSE draws no more than it was told: its meter shows it, or it has no session at all."""
        if not item.active and not item.output_on:
            return True
        settled = self.lowered_ns.get(evse, 0) + int(SETTLE_S * 1e9)
        most = self.granted[evse] * (1.0 + TOLERANCE) + self.slack
        return item.drawn_ns >= settled and now.mono_ns >= settled and item.drawn <= most


class SiteBudget:
    def __init__(self, plan: SitePlan | None = None) -> None:
        self.plan = plan or SitePlan()
        self._watts, self._amperes = Pool(SLACK_W), Pool(SLACK_A)
        self._below: dict[int, int] = {}  # since when an EVSE draws much less than it may
        self._site: tuple[float, int] | None = None  # the site's power [W], when read

    def site_meter(self, watts: float, now: Now) -> None:
        """The whole site draws this from the grid, the station included."""
        if math.isfinite(watts):
            self._site = (watts, now.mono_ns)

    def grid_limit(self, station_w: float, station_a: float, own_w: float, now: Now) -> float:
        """What the station may draw from the grid [W]; ``own_w`` is what it draws now."""
        total = min(station_w, station_a * GRID_V * GRID_PHASES)
        plan = self.plan
        if plan.site_w <= 0:
            return total
        if not plan.site_meter:
            return min(total, plan.site_w)
        if self._site is None or now.since(self._site[1]) > plan.meter_age_s:
            return min(total, plan.fallback_w)
        others = max(0.0, self._site[0] - own_w)
        return min(total, max(0.0, plan.site_w - others))

    def share(
        self, station_w: float, station_a: float, wants: dict[int, Want], now: Now
    ) -> dict[int, tuple[float, float]]:
        """Watts and amperes at each EVSE's output. ``station_w``, ``station_a``: the station maximum, INF for none."""
        plan = self.plan
        own_w = sum(max(0.0, w.drawn_w) for w in wants.values()) / plan.efficiency + plan.auxiliary_w
        grid = self.grid_limit(station_w, station_a, own_w, now)
        output = INF if math.isinf(grid) else max(0.0, grid - plan.auxiliary_w) * plan.efficiency
        watts = {
            e: Item(w.active, self._need_w(e, w, now), max(0.0, w.drawn_w), w.drawn_ns, w.output_on)
            for e, w in wants.items()
        }
        amperes = {e: Item(w.active, w.need_a, max(0.0, w.drawn_a), w.drawn_ns, w.output_on) for e, w in wants.items()}
        powers = self._watts.share(output, watts, now)
        currents = self._amperes.share(station_a, amperes, now)
        return {evse: (powers[evse], currents[evse]) for evse in wants}

    def _need_w(self, evse: int, want: Want, now: Now) -> float:
        """What the vehicle can take; less once it has taken much less for a while, as at the end of charging."""
        granted = self._watts.granted.get(evse, INF)
        full = min(want.need_w, granted)
        if not want.output_on or math.isinf(full) or want.drawn_w > 0.85 * full:
            self._below.pop(evse, None)
            return want.need_w
        since = self._below.setdefault(evse, now.mono_ns)
        if now.since(since) < TAPER_S:
            return want.need_w
        return min(want.need_w, math.ceil(want.drawn_w * 1.15 / STEP_W + 0.5) * STEP_W)
