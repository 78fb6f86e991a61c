"""The live terminal: one table per station while it goes, one of what happened when it is over."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from robot_charger.desk.observer import LINKS, PHASES, PILOTS, ROBOT_MODES, Observer
from robot_charger.desk.rehearsal import SessionResult

ORDER = [
    "positioning",
    "connecting",
    "mated",
    "released",
    "linking",
    "cable_check",
    "precharge",
    "charging",
    "stopping",
    "grasped",
    "disconnecting",
    "departing",
]


class View:
    """Redraws four times a second on a terminal; elsewhere it prints one line per phase."""

    def __init__(self, console: Console, observer: Observer, title: str) -> None:
        self.console, self.observer, self.title = console, observer, title
        self._began = time.monotonic()
        self._told = 0
        self._live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None

    def __enter__(self) -> View:
        if self._live:
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.__exit__(kind, error, trace)

    def tick(self) -> None:
        if self._live:
            self._live.update(self.render())
            return
        with self.observer.lock:
            events = self.observer.events[self._told :]
            self._told += len(events)
            texts = {n: seen.last.get("session/state") for n, seen in self.observer.seen.items()}
        for evse, name in events:
            state = texts.get(evse)
            text = state.text if state and PHASES[state.phase] == name else ""
            clock = time.monotonic() - self._began
            self.console.print(f"{clock:6.1f} s  evse{evse}  {name:<14} {text}", highlight=False)

    def render(self) -> Group:
        with self.observer.lock:
            rows = [self._evse(n) for n in self.observer.seen]
            faults = self.observer.faults[-4:]
        lines = [Text(f"{f.name} ({f.code}, {f.severity}) {f.source}: {f.text}", style="red") for f in faults]
        return Group(*rows, *lines)

    def _evse(self, evse: int) -> Panel:
        seen = self.observer.seen[evse]
        session, power = seen.last.get("session/state"), seen.last.get("power/state")
        link, pilot = seen.last.get("vehicle/link"), seen.last.get("pilot/state")
        target, meter = seen.last.get("vehicle/target"), seen.last.get("power/meter")
        robot, backend = self.observer.station.get("/robot/state"), self.observer.station.get("/backend/state")
        phase = PHASES[session.phase] if session else "starting"
        track = Text()
        for name in ORDER:
            style = "bold black on green" if name == phase else "dim"
            if name in [n for n, _ in seen.phases] and name != phase:
                style = "green"
            track.append(name.replace("_", " "), style=style).append("  ")
        table = Table.grid(padding=(0, 3))
        for _ in range(4):
            table.add_column(justify="left", min_width=22)
        table.add_row(
            f"voltage  {power.voltage_v:7.1f} V" if power else "voltage  -",
            f"current  {power.current_a:7.1f} A" if power else "current  -",
            f"asked    {target.current_a:7.1f} A" if target else "asked    -",
            f"charge   {link.soc:5.1f} %" if link and link.soc >= 0 else "charge   -",
        )
        table.add_row(
            _pilot_text(pilot),
            f"link     {LINKS[link.phase]}" if link else "link     -",
            f"robot    {ROBOT_MODES.get(robot.mode, '?')}" if robot else "robot    -",
            f"force {robot.axial_force_n:6.1f} N  depth {1000 * robot.depth_m:5.1f} mm" if robot else "",
        )
        contactors = ("open" if power.contactors_open else "closed") if power else "-"
        table.add_row(
            f"contacts {contactors}",
            f"energy   {meter.import_wh:9.1f} Wh" if meter else "energy   -",
            f"back end {'on' if backend.connected else 'OFF'}, {backend.queued} queued" if backend else "back end -",
            f"modules  {power.modules_active}" if power else "",
        )
        text = session.text if session else "bringing the nodes up"
        elapsed = time.monotonic() - self._began
        body = Group(track, table, Text(text, style="italic"))
        return Panel(body, title=f"{self.title}  evse{evse}  {elapsed:.0f} s")


def _pilot_text(pilot: Any) -> str:
    if pilot is None:
        return "pilot    -"
    return f"pilot    {PILOTS.get(pilot.state, '?')}{2 if pilot.pwm else 1}  {100 * pilot.duty:4.1f} %"


@dataclass(frozen=True)
class Footprint:
    """What the demo's processes took together."""

    startup_s: float
    rss_mb: float
    cpu_share: dict[str, float]  # of one core, by process, while charging
    cycles: dict[str, int]  # of power's control: total, missed

    def __str__(self) -> str:
        words = [f"up in {self.startup_s:.1f} s", f"{self.rss_mb:.0f} MB resident"]
        if self.cpu_share:
            words.append(f"{sum(self.cpu_share.values()):.2f} cores busy while charging")
        if self.cycles["total"]:
            words.append(f"{self.cycles['missed']} of {self.cycles['total']} control cycles late")
        return ", ".join(words)


def summary(console: Console, results: Sequence[SessionResult], footprint: Footprint) -> None:
    """The table of what happened."""
    for r in results:
        table = Table(title=f"session {r.session_id[:8]} on evse{r.evse}: {r.result}", show_header=False)
        table.add_column(style="bold")
        table.add_column()
        books = r.books
        slac = r.slac
        link = f", SLAC over {slac['transport']} in {slac['seconds']:.2f} s" if slac["matched"] else ""
        table.add_row("protocol", r.protocol + link)
        table.add_row("stopped by", r.stop_reason or "-")
        table.add_row("energy", f"{r.energy_wh:.1f} Wh in, {r.exported_wh:.1f} Wh out")
        begin = f"{r.soc_start:.1f} %" if r.soc_start >= 0 else "not told"
        table.add_row("state of charge", f"{begin} to {r.soc_end:.1f} %")
        robot, power = r.robot, r.power
        table.add_row(
            "robot",
            f"{robot['attempts']} attempt(s), connected in {robot['connect_s']:.1f} s with at most"
            f" {robot['max_force_n']:.0f} N, {robot['depth_mm']:.1f} mm deep, out in {robot['disconnect_s']:.1f} s",
        )
        peak = f"at most {power['peak_current_a']:.1f} A and {power['max_voltage_v']:.1f} V"
        table.add_row("power", f"{power['modules']} modules, {peak}")
        table.add_row("phases", ", ".join(f"{p['name']} {p['seconds']:.1f} s" for p in r.phases))
        table.add_row("OCPP", f"{r.ocpp['version']}, transaction {r.ocpp['transaction_id'] or 'none'}")
        billed = "nothing billed" if books.get("billed_wh") is None else f"billed {books['billed_wh']:.1f} Wh"
        verdict = "[green]the books agree" if books.get("agree") else "[red]the books do not agree"
        table.add_row(
            "books",
            f"{verdict}[/]: {billed}, meter {books['meter_wh']:.1f}, modules {books['modules_wh']:.1f},"
            f" battery {books['battery_wh']:.1f} Wh",
        )
        for fault in r.faults:
            table.add_row("fault", f"[red]{fault['code']} {fault['name']}[/] ({fault['severity']}): {fault['text']}")
        console.print(table)
    console.print(str(footprint), highlight=False)
