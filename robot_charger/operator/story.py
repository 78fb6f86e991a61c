"""What happened in a recorded session, gathered in one pass with bounded memory."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from robot_charger.common.faults import Code
from robot_charger.operator import words
from robot_charger.operator.reading import Handler, Picker, Summary, Topic, scan
from robot_charger.operator.remedies import advice

BUCKETS = 2048
BUCKET_S = 0.02
ROWS = 20_000
MODULE_BUCKETS = 512
HELD = 1024  # messages of a topic whose numbers wait to be taken in at once
HOLD_S = 1.5  # a module that says nothing for longer is shown as silent
OF_THE_VEHICLE = (
    "energy_capacity_wh",
    "vehicle_max_voltage_v",
    "vehicle_max_current_a",
    "vehicle_max_power_w",
    "bidirectional",
    "contract",
    "messages_bad",
)
CONNECTING = ("connecting", "mated", "grasped", "disconnecting")


class Series:
    """A measured value over time: least and largest per bucket of time; buckets widen as the session grows."""

    def __init__(self, buckets: int = BUCKETS, width_s: float = BUCKET_S) -> None:
        self.width_s = width_s
        self._low = np.full(buckets, np.inf)
        self._high = np.full(buckets, -np.inf)

    def add(self, t: np.ndarray, v: np.ndarray) -> None:
        """Values ``v`` at ``t`` [s], not below 0, both (n,); what is no finite number is left out."""
        good = np.isfinite(v) & (t >= 0)
        t, v = t[good], v[good]
        if not len(t):
            return
        while t.max() >= self.width_s * len(self._low):
            half = len(self._low) // 2
            low, high = self._low.reshape(half, 2).min(axis=1), self._high.reshape(half, 2).max(axis=1)
            self._low = np.concatenate([low, np.full(half, np.inf)])
            self._high = np.concatenate([high, np.full(half, -np.inf)])
            self.width_s *= 2
        where = (t / self.width_s).astype(int)
        np.minimum.at(self._low, where, v)
        np.maximum.at(self._high, where, v)

    def buckets(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Time of each filled bucket [s], least and largest value in it."""
        filled = np.isfinite(self._low)
        return (np.nonzero(filled)[0] + 0.5) * self.width_s, self._low[filled], self._high[filled]

    def mean(self, count: int, span_s: float) -> np.ndarray:
        """Mid values of ``count`` equal parts of the time from 0 to ``span_s``, held HOLD_S, then NaN."""
        t, low, high = self.buckets()
        out = np.full(count, np.nan)
        part = np.minimum((t / max(span_s, 1e-9) * count).astype(int), count - 1)
        for k, value in zip(part.tolist(), ((low + high) / 2).tolist(), strict=True):
            out[k] = value if np.isnan(out[k]) else max(out[k], value)
        held = int(np.ceil(HOLD_S / max(span_s, 1e-9) * count))
        filled = np.nonzero(~np.isnan(out))[0].tolist()
        for k, following in zip(filled, [*filled[1:], count], strict=True):
            out[k : min(following, k + held)] = out[k]
        return out


class Lane:
    """A state over time."""

    def __init__(self) -> None:
        self.changes: list[tuple[float, str]] = []

    def be(self, t: float, name: str) -> bool:
        """True when this is a change."""
        if self.changes and self.changes[-1][1] == name:
            return False
        self.changes.append((t, name))
        return True

    def spans(self, end_s: float) -> list[tuple[float, float, str]]:
        ends = [t for t, _ in self.changes[1:]] + [end_s]
        return [(t, max(t, e), name) for (t, name), e in zip(self.changes, ends, strict=True)]


@dataclass
class Row:
    """One line of the list of messages; ``count`` of them in a row, the last at ``until``."""

    t: float
    kind: str
    name: str
    text: Any  # a string once the line is settled
    count: int = 1
    until: float = 0.0


@dataclass
class FaultRow:
    t: float
    code: int
    name: str
    severity: str
    source: str
    text: str
    remedy: str
    ended: float | None = None


@dataclass
class Story:
    """Of one EVSE. Times are seconds since the first message of the recording."""

    path: Path
    evse: int
    start_ns: int = 0
    summary: Summary = field(default_factory=lambda: Summary(Path()))
    session_id: str = ""
    protocol: str = ""
    stop_reason: str = ""
    fault: int = 0
    text: str = ""
    vehicle: dict[str, float] = field(default_factory=dict)  # what it said of itself, by field of VehicleLink
    ocpp: str = ""
    transaction: str = ""
    queued: int = 0  # most OCPP messages that waited for the CSMS
    energy_wh: tuple[float, float] | None = None
    exported_wh: tuple[float, float] | None = None
    series: dict[str, Series] = field(default_factory=dict)
    lanes: dict[str, Lane] = field(default_factory=dict)
    modules: dict[int, Series] = field(default_factory=dict)
    module_faults: set[int] = field(default_factory=set)
    rows: list[Row] = field(default_factory=list)
    rows_left_out: int = 0
    faults: list[FaultRow] = field(default_factory=list)
    levels: dict[str, str] = field(default_factory=dict)

    @property
    def span_s(self) -> float:
        first, last = self.summary.span
        return max((last - first) / 1e9, 0.001)

    @property
    def begin_s(self) -> float:
        """When the first phase that is neither idle nor unavailable began; 0 when none did."""
        lane = self.lanes.get("session")
        for t, name in lane.changes if lane else []:
            if name not in ("idle", "unavailable"):
                return t
        return 0.0

    @property
    def phases(self) -> list[tuple[str, float]]:
        """Phases with their duration [s], in order."""
        lane = self.lanes.get("session")
        spans = lane.spans(self.span_s) if lane else []
        return [(name, end - t) for t, end, name in spans if name not in ("idle", "unavailable")]

    @property
    def verdict(self) -> str:
        if self.fault:
            return f"fault {self.fault} {fault_name(self.fault)}"
        if any(name == "faulted" for name, _ in self.phases):
            return "faulted"
        if not self.phases:
            return "no session"
        return "completed" if any(name == "charging" for name, _ in self.phases) else "ended without charging"


def fault_name(code: int) -> str:
    try:
        return Code(code).name.lower()
    except ValueError:
        return "unknown code"


class _Voice(NamedTuple):
    """How one topic is heard: of each message the measured fields are kept, the rest is told when it has changed.

    ``measure`` gets times (n,) [s] and a list of n tuples of the first ``measured`` fields; ``tell`` a time and all
    fields, of every message when ``each``.
    """

    fields: tuple[str, ...]
    tell: Callable[..., None] | None = None
    measured: int = 0
    measure: Callable[[np.ndarray, list[tuple[Any, ...]]], None] | None = None
    each: bool = False


class _Teller:
    """Turns messages into the story."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self._ocpp: dict[str, str] = {}
        self._recent: list[Row] = []
        self._flushes: list[Callable[[], None]] = []

    def choose(self, topic: Topic) -> Handler | None:
        """Handler of one topic, None when it tells nothing here."""
        evse = re.match(r"^/evse(\d+)/(.+)$", topic.name)
        if evse:
            if self.story.evse == 0:
                self.story.evse = int(evse[1])
            if int(evse[1]) != self.story.evse:
                return None
        voice = self._voices().get(evse[2] if evse else topic.name)
        return self._handler(voice, Picker(topic.definition, voice.fields).pick) if voice else None

    def _handler(self, voice: _Voice, pick: Callable[[bytes], tuple[Any, ...]]) -> Handler:
        story, (_, tell, k, measure, each) = self.story, voice
        times: list[int] = []
        values: list[tuple[Any, ...]] = []
        last: tuple[Any, ...] | None = None

        def flush() -> None:
            if measure and times:
                measure((np.array(times, np.int64) - story.start_ns) / 1e9, values)
                times.clear()
                values.clear()

        def handle(log_time: int, data: bytes) -> None:
            nonlocal last
            if not story.start_ns:
                story.start_ns = log_time
            picked = pick(data)
            if k:
                times.append(log_time)
                values.append(picked[:k])
                if len(times) >= HELD:
                    flush()
            if tell and (each or picked[k:] != last):
                last = picked[k:]
                tell((log_time - story.start_ns) / 1e9, *picked)

        self._flushes.append(flush)
        return handle

    def finish(self) -> None:
        """Nothing more comes."""
        for flush in self._flushes:
            flush()
        for row in self.story.rows:
            row.text = _short(row.text)

    def _voices(self) -> dict[str, _Voice]:
        fault = _Voice(("code", "severity", "source", "active", "text"), self._fault, each=True)
        return {
            "session/state": _Voice(
                ("soc", "phase", "session_id", "protocol", "stop_reason", "fault", "text"),
                self._session,
                1,
                self._soc,
                each=True,  # session/event tells phases too
            ),
            "session/event": _Voice(("name", "text"), self._event, each=True),
            "vehicle/link": _Voice(("soc", "phase", "text", "protocol", *OF_THE_VEHICLE), self._link, 1, self._soc),
            "vehicle/target": _Voice(("purpose", "voltage_v", "current_a"), None, 3, self._target),
            "power/state": _Voice(
                ("voltage_v", "current_a", "setpoint_a", "power_w", "contactors_closed", "mode", "text"),
                self._power,
                4,
                self._electric,
            ),
            "power/meter": _Voice(("import_wh", "export_wh"), self._meter),
            "pilot/state": _Voice(("high_v", "duty", "state", "pwm"), self._pilot, 2, self._peak),
            "backend/request": _Voice(("kind", "text"), self._request, each=True),
            "fault": fault,
            "/fault": fault,
            "/robot/state": _Voice(
                ("evse", "depth_m", "axial_force_n", "lateral_force_n", "mode", "attempt", "text"),
                self._robot,
                4,
                self._contact,
            ),
            "/power/modules": _Voice(
                ("modules.id", "modules.voltage_v", "modules.current_a", "modules.state"), None, 1, self._modules
            ),
            "/safety/state": _Voice(("emergency_stop", "door_open", "text"), self._safety),
            "/backend/state": _Voice(("connected", "version", "queued", "transactions"), self._backend),
            "/diagnostics": _Voice(("status.name", "status.level", "status.message"), self._diagnostics),
            "v2g/record": _Voice(("data",), self._v2g, each=True),
            "/ocpp/messages": _Voice(("data",), self._ocpp_message, each=True),
        }

    def _add(self, series: str, t: np.ndarray, values: np.ndarray) -> None:
        known = self.story.series.get(series)
        if known is None:
            known = self.story.series[series] = Series()
        known.add(t, values)

    def _be(self, lane: str, t: float, name: str) -> bool:
        known = self.story.lanes.get(lane)
        if known is None:
            known = self.story.lanes[lane] = Lane()
        return known.be(t, name)

    def _row(self, t: float, kind: str, name: str, text: Any) -> None:
        """Add a line; the same message again and again (a charge loop) counts up in its line."""
        for row in self._recent:
            if row.kind == kind and row.name == name and kind in ("V2G", "OCPP"):
                row.count, row.until, row.text = row.count + 1, t, text
                return
        if len(self.story.rows) >= ROWS:
            self.story.rows_left_out += 1
            return
        row = Row(t, kind, name, text, until=t)
        self.story.rows.append(row)
        self._recent.append(row)
        if len(self._recent) > 4:
            settled = self._recent.pop(0)
            settled.text = _short(settled.text)

    def _session(
        self, t: float, _: float, phase: int, session_id: str, protocol: str, reason: str, fault: int, text: str
    ) -> None:
        story = self.story
        name = words.PHASES.get(phase, str(phase))
        if self._be("session", t, name):
            self._row(t, "phase", name, text or "")
        if session_id:
            story.session_id = session_id
            story.protocol = protocol or story.protocol
            story.stop_reason = reason or story.stop_reason
            story.fault = fault or story.fault
            story.text = text or story.text

    def _event(self, t: float, name: str, text: str) -> None:
        phase = words.phase_of_event(name)  # a phase of milliseconds shows here only: session/state keeps the newest
        if phase and not self._be("session", t, phase):
            return
        self._row(t, "phase" if phase else "event", phase or name, text)

    def _soc(self, t: np.ndarray, values: list[tuple[Any, ...]]) -> None:
        soc = np.array(values, float)[:, 0]
        self._add("soc", t, np.where(soc >= 0, soc, np.nan))

    def _link(self, t: float, _: float, phase: int, text: str, protocol: str, *told: float | None) -> None:
        name = words.LINKS.get(phase, str(phase))
        if self._be("link", t, name):
            self._row(t, "link", name, text or "")
        self.story.protocol = self.story.protocol or protocol or ""
        self.story.vehicle |= {name: value for name, value in zip(OF_THE_VEHICLE, told, strict=True) if value}

    def _target(self, t: np.ndarray, values: list[tuple[Any, ...]]) -> None:
        purpose, volts, amps = np.array(values, float).T
        self._add("requested_a", t, np.where(purpose, amps, 0.0))
        self._add("requested_v", t, np.where(purpose, volts, 0.0))

    def _electric(self, t: np.ndarray, values: list[tuple[Any, ...]]) -> None:
        volts, amps, setpoint, watts = np.array(values, float).T
        self._add("voltage_v", t, volts)
        self._add("current_a", t, amps)
        self._add("setpoint_a", t, setpoint)
        self._add("power_kw", t, watts / 1000)

    def _power(
        self, t: float, volts: float, amps: float, setpoint: float, watts: float, closed: bool, mode: int, text: str
    ) -> None:
        self._be("contactors", t, "closed" if closed else "open")
        name = words.POWER_MODES.get(mode, str(mode))
        if self._be("power", t, name):
            self._row(t, "power", name, text or "")

    def _meter(self, t: float, imported: float, exported: float) -> None:
        story = self.story
        story.energy_wh = ((story.energy_wh or (imported, 0))[0], imported)
        story.exported_wh = ((story.exported_wh or (exported, 0))[0], exported)

    def _peak(self, t: np.ndarray, values: list[tuple[Any, ...]]) -> None:
        self._add("pilot_v", t, np.array(values, float)[:, 0])

    def _pilot(self, t: float, high_v: float, duty: float, state: int, pwm: bool) -> None:
        name = f"{words.PILOTS.get(state, '?')}{2 if pwm else 1}"
        if self._be("pilot", t, name):
            self._row(t, "pilot", name, f"{high_v:.1f} V, {100 * duty:.0f} %")

    def _request(self, t: float, kind: int, text: str) -> None:
        self._row(t, "back end", words.REQUESTS.get(kind, str(kind)), text)

    def _fault(self, t: float, code: int, severity: int, source: str, active: bool, text: str) -> None:
        name = fault_name(code)
        self._row(t, "fault", f"{code} {name}" + ("" if active else " gone"), f"{source}: {text}")
        if not active:
            for fault in self.story.faults:
                if fault.code == code and fault.source == source and fault.ended is None:
                    fault.ended = t
            return
        told = advice(code)
        self.story.faults.append(
            FaultRow(t, code, name, words.SEVERITIES.get(severity, "?"), source, text, told.remedy if told else "")
        )

    def _contact(self, t: np.ndarray, values: list[tuple[Any, ...]]) -> None:
        evse, depth, axial, lateral = np.array(values, float).T
        ours = (evse == 0) | (evse == self.story.evse)
        self._add("depth_mm", t[ours], 1000 * depth[ours])
        self._add("axial_n", t[ours], axial[ours])
        self._add("lateral_n", t[ours], lateral[ours])

    def _robot(
        self, t: float, evse: int, depth: float, axial: float, lateral: float, mode: int, attempt: int, text: str
    ) -> None:
        name = words.ROBOT_MODES.get(mode, str(mode))
        if self._be("robot", t, name):
            self._row(t, "robot", name, text or "")

    def _modules(self, t: np.ndarray, values: list[tuple[Any, ...]]) -> None:
        lists = [modules or [] for (modules,) in values]
        times = np.repeat(t, [len(modules) for modules in lists])
        told = np.array([module for modules in lists for module in modules], float).reshape(-1, 4)
        for number in np.unique(told[:, 0]).astype(int).tolist():
            ours = told[:, 0] == number
            known = self.story.modules.get(number)
            if known is None:
                known = self.story.modules[number] = Series(MODULE_BUCKETS, 0.5)
            known.add(times[ours], told[ours, 1] * told[ours, 2] / 1000)
            if (told[ours, 3] == words.MODULE_FAULT).any():
                self.story.module_faults.add(number)

    def _safety(self, t: float, emergency: bool, door: bool, text: str) -> None:
        name = "emergency stop" if emergency else "door open" if door else "well"
        if self._be("safety", t, name):
            self._row(t, "safety", name, text or "")

    def _backend(self, t: float, connected: bool, version: str, queued: int, transactions: list[str]) -> None:
        story = self.story
        story.ocpp = version or story.ocpp
        story.queued = max(story.queued, queued or 0)
        place = story.evse - 1
        if transactions and 0 <= place < len(transactions):
            story.transaction = transactions[place] or story.transaction
        name = "connected" if connected else "offline"
        if self._be("back end", t, name):
            self._row(t, "back end", name, "")

    def _diagnostics(self, t: float, statuses: list[tuple[str, int, str]], *_: Any) -> None:
        for name, level, text in statuses or []:
            told = words.LEVELS.get(level, str(level))
            if self.story.levels.get(name, "ok") != told:
                self._row(t, "diagnostics", name, f"{told}: {text}")
            self.story.levels[name] = told

    def _v2g(self, t: float, text: str) -> None:
        document = _json(text)
        name = str(document.get("name") or document.get("message") or "message")
        arrow = {"in": "vehicle: ", "out": "station: "}.get(str(document.get("direction", "")), "")
        inner = document.get("fields", document.get("body", document.get("message", document)))
        odd = {key: document[key] for key in ("fault", "notes") if document.get(key)}
        if inner is None:  # not decoded
            inner = {**odd, "exi": document.get("exi", "")}
        elif odd:
            inner = {**odd, "fields": inner}
        self._row(t, "V2G", arrow + name, inner)

    def _ocpp_message(self, t: float, text: str) -> None:
        document = _json(text)
        frame = document.get("frame")
        if not isinstance(frame, list) or len(frame) < 3:
            self._row(t, "OCPP", "no frame", frame)
            return
        side = "station: " if document.get("direction") == "in" else "CSMS: "
        if frame[0] in (2, 6) and len(frame) > 3:
            self._ocpp[str(frame[1])] = str(frame[2])
            self._row(t, "OCPP", f"{side}{frame[2]}", frame[3])
        else:
            action = self._ocpp.pop(str(frame[1]), "?")
            kind = "answer to" if frame[0] == 3 else "error to"
            self._row(t, "OCPP", f"{side}{kind} {action}", frame[2:])


def _json(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError:
        return {"name": "no JSON"}
    return document if isinstance(document, dict) else {"name": "message", "body": document}


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, separators=(", ", ": "))
    return text if len(text) <= 600 else text[:600] + " ..."


def read_story(path: Path, evse: int = 0) -> Story:
    """The story of one EVSE (0: the first one found). Raises RecordingError."""
    story = Story(path, evse)
    teller = _Teller(story)
    story.summary = scan(path, teller.choose)
    teller.finish()
    if story.fault and all(f.code != story.fault for f in story.faults):  # the supervisor's own, told in the session
        began = next((t for t, name in story.lanes["session"].changes if name in ("stopping", "faulted")), 0.0)
        told = advice(story.fault)
        remedy = told.remedy if told else ""
        fault = FaultRow(began, story.fault, fault_name(story.fault), "stop", "supervisor", story.text, remedy)
        story.faults = sorted([*story.faults, fault], key=lambda f: f.t)
    return story
