"""The report as one HTML page that needs nothing else: inline SVG and script, no network.

Every chart is an SVG whose x axis is seconds since the session began, so one script zooms them all.
"""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from html import escape
from importlib import resources

import numpy as np

from robot_charger.operator import words
from robot_charger.operator.story import CONNECTING, Lane, Series, Story

HEAT_COLUMNS = 400
MARGIN = 0.06  # of a chart's height above and below its curves
GAP_S = 1.0  # a curve is broken where nothing was said for longer
_PHASE_COLOURS = {
    "idle": "#64748b",
    "positioning": "#0ea5e9",
    "connecting": "#8b5cf6",
    "mated": "#a78bfa",
    "released": "#c4b5fd",
    "linking": "#06b6d4",
    "cable check": "#eab308",
    "precharge": "#f59e0b",
    "charging": "#22c55e",
    "stopping": "#84cc16",
    "grasped": "#a78bfa",
    "disconnecting": "#8b5cf6",
    "departing": "#0ea5e9",
    "faulted": "#ef4444",
    "unavailable": "#475569",
    "fault": "#ef4444",
    "failed": "#ef4444",
    "offline": "#ef4444",
    "emergency stop": "#ef4444",
    "closed": "#22c55e",
    "open": "#64748b",
    "transfer": "#22c55e",
    "off": "#64748b",
    "connected": "#22c55e",
    "well": "#64748b",
    "parked": "#64748b",
    "insulation test": "#eab308",
}
_OTHERS = ("#0ea5e9", "#8b5cf6", "#06b6d4", "#f59e0b", "#84cc16", "#ec4899", "#14b8a6", "#6366f1")
_PILOT_COLOURS = {"A": "#64748b", "B": "#0ea5e9", "C": "#22c55e", "D": "#84cc16", "E": "#ef4444", "F": "#ef4444"}


@dataclass(frozen=True)
class Curve:
    series: str
    label: str
    colour: str


@dataclass(frozen=True)
class Chart:
    title: str
    unit: str
    curves: tuple[Curve, ...]
    connecting_only: bool = False
    lowest: float = 0.0


PILOT = "Control pilot"
CHARTS = (
    Chart("Voltage", "V", (Curve("voltage_v", "measured", "#0ea5e9"), Curve("requested_v", "requested", "#f59e0b"))),
    Chart(
        "Current",
        "A",
        (
            Curve("requested_a", "requested", "#f59e0b"),
            Curve("setpoint_a", "set-point", "#a78bfa"),
            Curve("current_a", "measured", "#22c55e"),
        ),
    ),
    Chart("Power", "kW", (Curve("power_kw", "into the vehicle", "#22c55e"),)),
    Chart("State of charge", "%", (Curve("soc", "state of charge", "#14b8a6"),)),
    Chart(PILOT, "V", (Curve("pilot_v", "positive peak", "#0ea5e9"),)),
    Chart(
        "Force of the connection",
        "N",
        (Curve("axial_n", "along the axis", "#ec4899"), Curve("lateral_n", "across it", "#a78bfa")),
        connecting_only=True,
    ),
    Chart("Depth of the plug", "mm", (Curve("depth_mm", "depth", "#8b5cf6"),), connecting_only=True),
)
LANES = ("session", "link", "pilot", "power", "contactors", "robot", "safety", "back end")


@dataclass
class Scale:
    """What the columns of a page share, so that they compare."""

    span_s: float
    tops: dict[str, tuple[float, float]] = field(default_factory=dict)  # chart -> lowest, highest value of any column


def scale_of(stories: Sequence[Story]) -> Scale:
    span = max(s.span_s - s.begin_s for s in stories)
    scale = Scale(max(span, 0.001))
    for chart in CHARTS:
        values = [chart.lowest]
        for story in stories:
            for curve in chart.curves:
                values += [y for _, y in _points(story.series.get(curve.series), story, chart)]
        if len(values) > 1:
            scale.tops[chart.title] = min(values), max(values)
    return scale


def page(stories: Sequence[Story]) -> str:
    """The whole page; two stories stand side by side."""
    scale = scale_of(stories)
    columns = "".join(_column(story, scale) for story in stories)
    title = " against ".join(s.session_id[:8] or s.path.name for s in stories)
    style, script = _resource("report.css"), _resource("report.js")
    compare = _compare(stories) if len(stories) > 1 else ""
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        f"<meta name='viewport' content='width=device-width'><title>Session {escape(title)}</title>"
        f"<style>{style}</style></head><body>\n"
        f"<header><h1>Session {escape(title)}</h1>"
        "<p class='hint'>Times are seconds since the session began. Drag across a chart to zoom, double-click to see "
        "all; point at it to read values.</p></header>\n"
        f"{compare}<main class='columns{len(stories)}' data-span='{scale.span_s:.3f}'>{columns}</main>\n"
        f"<script>{script}</script></body></html>\n"
    )


def _resource(name: str) -> str:
    return resources.files("robot_charger.operator").joinpath("assets").joinpath(name).read_text()


def _column(story: Story, scale: Scale) -> str:
    parts = [_facts(story), _lanes(story, scale)]
    parts += [_chart(story, chart, scale) for chart in CHARTS if chart.title != PILOT or not _without_pilot(story)]
    parts += [_heat_map(story, scale), _faults(story), _rows(story), _topics(story)]
    return "<section class='column'>" + "\n".join(p for p in parts if p) + "</section>"


def _facts(story: Story) -> str:
    start = datetime.fromtimestamp((story.start_ns + story.begin_s * 1e9) / 1e9, timezone.utc)
    facts = {
        "recording": story.path.name,
        "EVSE": str(story.evse or "-"),
        "session": story.session_id or "-",
        "began": f"{start:%Y-%m-%d %H:%M:%S} UTC" if story.start_ns else "-",
        "lasted": clock(sum(d for _, d in story.phases)),
        "protocol": story.protocol or "-",
        "stopped by": story.stop_reason or "-",
    }
    if story.energy_wh:
        facts["energy"] = f"{story.energy_wh[1] - story.energy_wh[0]:.1f} Wh in"
        if story.exported_wh and story.exported_wh[1] > story.exported_wh[0]:
            facts["energy"] += f", {story.exported_wh[1] - story.exported_wh[0]:.1f} Wh out"
    if vehicle := _vehicle(story):
        facts["vehicle"] = vehicle
    if story.ocpp:
        facts["back end"] = f"OCPP {story.ocpp}"
        facts["back end"] += f", transaction {story.transaction}" if story.transaction else ""
        facts["back end"] += f", at most {story.queued} unanswered" if story.queued else ""
    if "soc" in story.series:
        _, low, high = story.series["soc"].buckets()
        if len(low):
            facts["state of charge"] = f"{low[0]:.1f} % to {high[-1]:.1f} %"
    if story.text:
        facts["last word"] = story.text
    good = story.verdict == "completed"
    rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items())
    warning = (
        f"<p class='bad'>This recording is incomplete: {escape(story.summary.truncated)}.</p>"
        if story.summary.truncated
        else ""
    )
    return (
        f"<h2><span class='verdict {'good' if good else 'bad'}'>{escape(story.verdict)}</span></h2>{warning}"
        f"<dl class='facts'>{rows}</dl>{_phase_table(story)}"
    )


def _vehicle(story: Story) -> str:
    """What the vehicle told of itself, in words."""
    told = story.vehicle
    parts = [
        f"{told['energy_capacity_wh'] / 1000:.1f} kWh" if "energy_capacity_wh" in told else "",
        f"at most {told['vehicle_max_voltage_v']:.0f} V" if "vehicle_max_voltage_v" in told else "",
        f"{told['vehicle_max_current_a']:.0f} A" if "vehicle_max_current_a" in told else "",
        f"{told['vehicle_max_power_w'] / 1000:.0f} kW" if "vehicle_max_power_w" in told else "",
        "can discharge" if "bidirectional" in told else "",
        "Plug and Charge" if "contract" in told else "",
        f"{told['messages_bad']:.0f} messages refused" if "messages_bad" in told else "",
    ]
    return ", ".join(p for p in parts if p)


def _without_pilot(story: Story) -> bool:
    """A connector such as CHAdeMO's or GB/T's: its pilot has never been in any state."""
    lane = story.lanes.get("pilot")
    return lane is not None and all(name.startswith("?") for _, name in lane.changes)


def _phase_table(story: Story) -> str:
    cells = "".join(
        f"<span class='phase'><i style='background:{_colour(name)}'></i>{escape(name)} {seconds:.1f} s</span>"
        for name, seconds in story.phases
    )
    return f"<p class='phases'>{cells}</p>" if cells else ""


def clock(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 3600)}:{int(seconds % 3600 // 60):02d}:{int(seconds % 60):02d}"


def _colour(name: str) -> str:
    if name in _PHASE_COLOURS:
        return _PHASE_COLOURS[name]
    if name[:1] in _PILOT_COLOURS and len(name) == 2:
        return _PILOT_COLOURS[name[0]]
    return _OTHERS[zlib.crc32(name.encode()) % len(_OTHERS)]


def _lanes(story: Story, scale: Scale) -> str:
    known = [(name, story.lanes[name]) for name in LANES if name in story.lanes]
    if _without_pilot(story):
        known = [(name, lane) for name, lane in known if name != "pilot"]
    if not known:
        return "<p class='none'>No states in this recording.</p>"
    rows = "".join(_lane(name, lane, story, scale) for name, lane in known)
    return f"<h3>States</h3><div class='lanes'>{rows}{_axis(scale)}</div>"


def _lane(name: str, lane: Lane, story: Story, scale: Scale) -> str:
    shapes = []
    for begin, end, state in lane.spans(story.span_s):
        x, width = begin - story.begin_s, max(end - begin, 0.0)
        shapes.append(
            f"<rect x='{x:.3f}' y='0' width='{width:.3f}' height='100' fill='{_colour(state)}'>"
            f"<title>{escape(state)}: {clock(width)} from {x:.2f} s</title></rect>"
        )
    marks = ""
    if name == "session":
        marks = "".join(
            f"<line class='fault' x1='{f.t - story.begin_s:.3f}' x2='{f.t - story.begin_s:.3f}' y1='0' y2='100'>"
            f"<title>{f.code} {escape(f.name)}</title></line>"
            for f in story.faults
        )
    last = lane.changes[-1][1]
    end = story.span_s - story.begin_s
    states = json.dumps([[round(t - story.begin_s, 3), s] for t, s in lane.changes])
    return (
        f"<div class='lane'><b>{escape(name)}</b><div class='names'></div>"
        f"<svg class='t' viewBox='0 0 {scale.span_s:.3f} 100' preserveAspectRatio='none' "
        f"data-states='{escape(states, True)}' data-end='{end:.3f}'>"
        f"{''.join(shapes)}{marks}</svg><output>{escape(last)}</output></div>"
    )


def _axis(scale: Scale) -> str:
    return f"<div class='axis' data-from='0' data-to='{scale.span_s:.3f}'>{ticks(0.0, scale.span_s)}</div>"


def ticks(begin: float, end: float) -> str:
    """Marks of the time axis as HTML; the script draws the same after a zoom."""
    span = end - begin
    step = next(
        (s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 3600) if span / s <= 10), 7200.0
    )
    marks = []
    value = np.ceil(begin / step) * step
    while value <= end:
        text = f"{value:.1f} s" if step < 1 else f"{value:.0f} s"
        marks.append(f"<span style='left:{100 * (value - begin) / span:.2f}%'>{text}</span>")
        value += step
    return "".join(marks)


def _window(story: Story) -> list[tuple[float, float]]:
    """When the arm was at the vehicle."""
    lane = story.lanes.get("session")
    return [(a, b) for a, b, name in lane.spans(story.span_s) if name in CONNECTING] if lane else []


def _chart(story: Story, chart: Chart, scale: Scale) -> str:
    if chart.title not in scale.tops:
        return ""
    least, most = scale.tops[chart.title]
    margin = (most - least) * MARGIN or 1.0
    low, high = least - margin, most + margin
    drawn = []
    legend = []
    data: dict[str, list[list[float]]] = {}
    for curve in chart.curves:
        series = story.series.get(curve.series)
        points = _points(series, story, chart)
        if series is None or not points:
            continue
        legend.append(f"<span><i style='background:{curve.colour}'></i>{escape(curve.label)} <output></output></span>")
        gap = max(GAP_S, 4 * series.width_s)
        for part in _unbroken(points, gap):
            text = " ".join(f"{x:.3f},{1000 * (high - y) / (high - low):.1f}" for x, y in part)
            drawn.append(f"<polyline points='{text}' stroke='{curve.colour}'/>")
        data[curve.label] = [[round(x, 3), float(f"{y:.4g}")] for x, y in points]
    if not drawn:  # the other column has it: the charts stay side by side
        legend.append("<span class='none'>not in this recording</span>")
    zero = 1000 * high / (high - low)
    return (
        f"<h3>{escape(chart.title)} <small>{escape(chart.unit)}</small></h3>"
        f"<div class='chart'><div class='range'><span>{_figure(most)}</span><span>{_figure(least)}</span></div>"
        f"<svg class='t' viewBox='0 0 {scale.span_s:.3f} 1000' preserveAspectRatio='none'"
        f" data-unit='{escape(chart.unit)}' data-curves='{escape(json.dumps(data, separators=(',', ':')), True)}'>"
        f"<line class='zero' x1='0' x2='{scale.span_s:.3f}' y1='{zero:.1f}' y2='{zero:.1f}'/>{''.join(drawn)}"
        "<line class='cursor' y1='0' y2='1000' x1='-1' x2='-1'/></svg>"
        f"<div class='legend'>{''.join(legend)}</div>{_axis(scale)}</div>"
    )


def _figure(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _points(series: Series | None, story: Story, chart: Chart) -> list[tuple[float, float]]:
    if series is None:
        return []
    t, low, high = series.buckets()
    if chart.connecting_only:
        keep = np.zeros(len(t), bool)
        for begin, end in _window(story):
            keep |= (t >= begin) & (t <= end)
        t, low, high = t[keep], low[keep], high[keep]
    points: list[tuple[float, float]] = []
    for x, a, b in zip((t - story.begin_s).tolist(), low.tolist(), high.tolist(), strict=True):
        points.append((x, a))
        if b != a:
            points.append((x, b))
    return points


def _unbroken(points: list[tuple[float, float]], gap_s: float) -> list[list[tuple[float, float]]]:
    """Cut where nothing was said for longer; of a straight stretch only the ends are kept."""
    parts: list[list[tuple[float, float]]] = []
    last = -np.inf
    for x, y in points:
        if x - last > gap_s:
            parts.append([])
        last, part = x, parts[-1]
        if len(part) > 1 and part[-1][1] == part[-2][1] == y:
            part[-1] = (x, y)
        else:
            part.append((x, y))
    return parts


def _heat_map(story: Story, scale: Scale) -> str:
    if not story.modules:
        return ""
    numbers = sorted(story.modules)
    rows = np.array([story.modules[n].mean(HEAT_COLUMNS, story.span_s) for n in numbers])
    top = float(np.nanmax(rows)) if np.isfinite(rows).any() else 0.0
    image = _png(_heat_colours(rows, max(top, 1e-9)))
    height = max(60, 5 * len(numbers))
    labels = "".join(f"<span>{n}</span>" for n in (numbers[0], numbers[-1]))
    faulty = f" Faults told by {', '.join(map(str, sorted(story.module_faults)))}." if story.module_faults else ""
    colours = f"Dark 0, bright {top:.2f} kW, grey no word." if top > 0 else "No module gave power; grey no word."
    return (
        f"<h3>Modules <small>kW each, {len(numbers)} modules</small></h3>"
        f"<div class='chart heat' style='height:{height}px'><div class='range'>{labels}</div>"
        f"<svg class='t' viewBox='0 0 {scale.span_s:.3f} 100' preserveAspectRatio='none'>"
        f"<image href='data:image/png;base64,{image}' x='{-story.begin_s:.3f}' y='0' "
        f"width='{story.span_s:.3f}' height='100'"
        " preserveAspectRatio='none' style='image-rendering:pixelated'/></svg>"
        f"{_axis(scale)}</div><p class='hint'>{colours}{faulty}</p>"
    )


def _heat_colours(rows: np.ndarray, top: float) -> np.ndarray:
    """u8 RGB of each value."""
    stops = np.array([[20, 12, 60], [80, 18, 123], [182, 54, 121], [251, 136, 97], [252, 253, 191]], float)
    filled = np.nan_to_num(np.clip(rows / top, 0, 1))
    place = filled * (len(stops) - 1)
    below = np.minimum(place.astype(int), len(stops) - 2)
    part = (place - below)[..., None]
    colours = stops[below] * (1 - part) + stops[below + 1] * part
    colours[np.isnan(rows)] = (120, 120, 120)
    return colours.astype(np.uint8)


def _png(pixels: np.ndarray) -> str:
    """RGB image, u8 (height, width, 3), as base64."""
    height, width, _ = pixels.shape
    raw = b"".join(b"\0" + row.tobytes() for row in pixels)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    image = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b"")
    return base64.b64encode(image).decode()


def _faults(story: Story) -> str:
    if not story.faults:
        return "<h3>Faults</h3><p class='none'>None.</p>"
    rows = "".join(
        f"<tr><td>{f.t - story.begin_s:.2f}</td><td>{'' if f.ended is None else f'{f.ended - story.begin_s:.2f}'}</td>"
        f"<td><b>{f.code} {escape(f.name)}</b><br>{escape(f.severity)}, {escape(f.source)}</td>"
        f"<td>{escape(f.text)}<p class='hint'>{escape(f.remedy)}</p></td></tr>"
        for f in story.faults
    )
    return (
        "<h3>Faults</h3><table class='faults'><tr><th>began [s]</th><th>ended</th><th>what</th>"
        f"<th>text and what to do</th></tr>{rows}</table>"
    )


def _rows(story: Story) -> str:
    if not story.rows:
        return "<h3>Messages</h3><p class='none'>None.</p>"
    lines = []
    for row in story.rows:
        times = f" <em>x {row.count} until {row.until - story.begin_s:.2f}</em>" if row.count > 1 else ""
        lines.append(
            f"<tr><td>{row.t - story.begin_s:.3f}</td><td>{escape(row.kind)}</td>"
            f"<td>{escape(row.name)}{times}</td><td>{escape(row.text)}</td></tr>"
        )
    more = f"<p class='hint'>{story.rows_left_out} more were left out.</p>" if story.rows_left_out else ""
    return (
        "<h3>Messages</h3><input class='search' type='search' placeholder='search, e.g. CurrentDemand or fault'>"
        f"<p class='hint count'>{len(story.rows)} of {len(story.rows)}</p><div class='scroll'><table class='messages'>"
        f"<tr><th>s</th><th>of</th><th>name</th><th>text</th></tr>{''.join(lines)}</table></div>{more}"
    )


def _topics(story: Story) -> str:
    rows = []
    for topic in sorted(story.summary.topics.values(), key=lambda t: t.name):
        seconds = (topic.last - topic.first) / 1e9
        rate = f"{(topic.count - 1) / seconds:.1f}" if topic.count > 1 and seconds > 0 else "-"
        rows.append(
            ""
            f"<tr><td>{escape(topic.name)}</td><td>{escape(topic.type_name)}</td><td>{topic.count}</td><td>{rate}</td></tr>"
        )
    return (
        f"<details><summary>{len(rows)} topics, {story.summary.messages} messages</summary><table class='topics'>"
        f"<tr><th>topic</th><th>type</th><th>messages</th><th>per s</th></tr>{''.join(rows)}</table></details>"
    )


def _compare(stories: Sequence[Story]) -> str:
    """Duration of each phase, side by side."""
    used = {name for story in stories for name, _ in story.phases}
    names = [name for _, name in sorted(words.PHASES.items()) if name in used]
    names += sorted(used - set(names))
    totals = [{n: sum(d for m, d in s.phases if m == n) for n in names} for s in stories]
    rows = ""
    for name in names:
        cells = [f"{t[name]:.1f}" if t[name] else "-" for t in totals]
        apart = f"{totals[-1][name] - totals[0][name]:+.1f}" if all(t[name] for t in totals) else ""
        rows += f"<tr><td>{escape(name)}</td>{''.join(f'<td>{c}</td>' for c in cells)}<td>{apart}</td></tr>"
    heads = "".join(f"<th>{escape(s.session_id[:8] or s.path.name)} [s]</th>" for s in stories)
    return f"<table class='compare'><tr><th>phase</th>{heads}<th>difference</th></tr>{rows}</table>"
