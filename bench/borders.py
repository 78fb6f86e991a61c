"""Poisons every topic of a running desk station, from another process: does anything believe it, die, or stay trapped?

    python bench/borders.py [--topics N] [--minutes M] [--seed S] [--json FILE] [--protocol NAME] [--check]

While vehicles charge, each field of each topic's message takes each value that cannot be: unknown enumeration values,
NaN, infinities, numbers out of range, stamps of the future. Then come values that are odd but possible: a stamp of
zero, empty and longest strings. JSON: cases[{topic, field, value, phase, outcome, died[]}] and the counts died
(processes), accepted (cases that had to be refused and were not) and trapped (sessions that did not end by themselves,
or after which the next one did not complete). ``outcome`` is refused, accepted, or sent (nothing had to refuse it, or
nobody counts on that topic). Also prints what the check of a message costs. Exit status 0 when it
measured; with ``--check`` 1 when a count is not 0.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from robot_charger import msg
from robot_charger.common.clock import now_ns
from robot_charger.common.topics import EVSE_TOPICS, STATION_TOPICS, topic
from robot_charger.desk import poison
from robot_charger.desk.chaos import ChaosStation
from robot_charger.desk.rehearsal import Rehearsal
from robot_charger.sim.csms.books import books
from robot_charger.station import DeskOptions
from robot_charger.words import convert, standard
from robot_charger.words.border import CHECKS

EVSE = 1
PACES_S = (0.025, 0.1, 0.4)  # between two messages: a stream keeps only the newest, and a busy reader loses others
COUNTED_S = 4.0  # until /diagnostics, once a second, has every count
BATCH = 60
UP_S, SESSION_S, CHARGE_S = 90.0, 240.0, 60.0
SAMPLE_MINUTES, SAMPLE_CHARGE_S = 2.0, 25.0  # a short run has short sessions
ROUNDS = 2000  # of the cost


class Bench:
    """One running station and what was published to it."""

    def __init__(self, station: ChaosStation, deadline: float) -> None:
        self.station, self.deadline = station, deadline
        self.rehearsal = Rehearsal(station, station.observer, EVSE, 0, lambda: books(station.csms_store))
        self.node = station.observer.node
        station.observer.border.say = lambda text: None  # the bench itself hears what it sends
        self.rows: list[dict[str, Any]] = []
        self.died: list[str] = []
        self.good: dict[str, Any] = {}
        self._publishers: dict[str, Any] = {}
        for full, kind, qos in _topics():
            self._publishers[full] = self.node.create_publisher(kind, full, qos)
            self.node.create_subscription(kind, full, lambda m, full=full: self._keep(full, m), qos)
        self._restarts: Counter[str] = Counter()
        self._deaths()

    def _keep(self, full: str, message: Any) -> None:
        """The newest good message of a topic, as the base of bad ones."""
        kind = convert.KINDS.get(type(message))
        try:
            if kind is not None:
                CHECKS[kind](message, now_ns())
            else:
                standard.CHECKS[type(message).__name__](message)
        except ValueError:
            return
        self.good[full] = message

    def tick(self, seconds: float = 0.0) -> None:
        end = time.monotonic() + seconds
        while True:
            self.station.tick()
            self.rehearsal.tick()
            if time.monotonic() >= end:
                return
            time.sleep(0.01)

    def until(self, condition: Any, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.tick(0.02)
            if condition():
                return True
        return False

    def _deaths(self) -> list[str]:
        """Processes that ended since the last look."""
        now = Counter({c.name: c.restarts + c.ended for c in self.station.processes.children.values()})
        died = list((now - self._restarts).elements())
        self._restarts = now
        self.died += died
        return died

    def refused(self, full: str) -> dict[str, int]:
        """What each receiver on this topic has refused, by its /diagnostics."""
        ends = self.node.get_subscriptions_info_by_topic(full)
        names = {f"{e.node_namespace.rstrip('/')}/{e.node_name}" for e in ends}
        with self.station.observer.lock:
            reports = {n: self.station.observer.diagnostics[n] for n in names if n in self.station.observer.diagnostics}
        counts = {}
        for name, status in reports.items():
            entry = next((v.value for v in status.values if v.key == f"{full} refused"), "0 times")
            counts[name] = int(re.match(r"\d+", entry)[0])  # type: ignore[index]
        return counts

    def _missing(self, full: str, before: dict[str, int], sent: int) -> int:
        """How many of the messages sent the most forgetful receiver has not refused yet."""
        after = self.refused(full)
        return max(sent - (after.get(name, 0) - count) for name, count in before.items())

    def send(self, batch: list[poison.Case], tries: int = 0) -> None:
        """Publish a batch of one topic and note what became of each."""
        full, phase = batch[0].topic, self.station.phase
        before = self.refused(full)
        sent = []
        for case in batch:
            base = self.good.get(full) or _default(self._publishers[full].msg_type)
            try:
                message = case.message(base)
            except (AssertionError, OverflowError):  # this value does not fit the field at all
                continue
            self._publishers[full].publish(message)
            sent.append(case)
            self.tick(PACES_S[tries])
        must = [c for c in sent if c.must_refuse]
        outcome = "sent"
        if must and before:
            self.until(lambda: self._missing(full, before, len(must)) <= 0, COUNTED_S)
            short = self._missing(full, before, len(must))
            if short > 0 and not self._deaths():
                # Lost ones, or a stamp of +10 ms that arrived too late: slower, then in halves, then each very slowly.
                if tries == 0 or (len(batch) == 1 and tries + 1 < len(PACES_S)):
                    return self.send(batch, tries + 1)
                if len(batch) > 1:
                    half = len(batch) // 2
                    self.send(batch[:half], tries)
                    return self.send(batch[half:], tries)
            outcome = "accepted" if short > 0 else "refused"
        died = self._deaths()
        for case in sent:
            row = {"topic": full, "field": case.field, "value": case.value, "phase": phase}
            self.rows.append({**row, "outcome": outcome if case.must_refuse else "sent", "died": died})
        return None

    def session(self, batches: list[list[poison.Case]]) -> bool:
        """One visit; batches are sent while it charges, and one in the phases before. True: it ended by itself."""
        finished = len(self.rehearsal.results)
        self.rehearsal.remaining += 1
        end = time.monotonic() + SESSION_S
        early = {"connecting", "linking"}
        while len(self.rehearsal.results) == finished and time.monotonic() < end:
            phase = self.station.phase
            if batches and (phase == "charging" or phase in early) and time.monotonic() < self.deadline:
                early.discard(phase)
                self.send(batches.pop(0))
            else:
                self.tick(0.02)
        ended = len(self.rehearsal.results) > finished
        return ended and self.until(lambda: self.station.phase == "idle", 60.0)

    def trapped(self, batches: list[list[poison.Case]], expected: str = "") -> int:
        """1 when a session did not end by itself, or not as ``expected``, else 0."""
        ended = self.session(batches)
        result = self.rehearsal.results[-1].result if ended else f"no end: {self.station.phase}, {self.station.told}"
        print(f"borders: session {len(self.rehearsal.results)}: {result}; {len(self.rows)} cases so far", flush=True)
        return int(not ended or (expected not in ("", result)))


def _topics() -> Iterator[tuple[str, type, Any]]:
    yield from (topic(name, EVSE) for name in EVSE_TOPICS)
    yield from (topic(name) for name in STATION_TOPICS)


def _default(kind: type) -> Any:
    """A good message where the station has published none yet."""
    message = kind()
    if isinstance(message, msg.Fault):
        message.severity, message.source = msg.Fault.SEVERITY_WARNING, "/bench"
    if isinstance(message, msg.BackendRequest):
        message.kind = msg.BackendRequest.KIND_START
    return message


def _batches(cases: list[poison.Case]) -> list[list[poison.Case]]:
    groups: list[list[poison.Case]] = []
    for case in cases:
        if not groups or groups[-1][0].topic != case.topic or len(groups[-1]) >= BATCH:
            groups.append([])
        groups[-1].append(case)
    return groups


def cost() -> dict[str, float]:
    """What the check of one message costs [us], beside reading its fields plainly, and of a report of 909 modules."""
    supply = msg.SupplyState(stamp_ns=now_ns())
    names = list(supply.get_fields_and_field_types())
    check, kind = CHECKS[convert.KINDS[msg.SupplyState]], msg.ModuleState
    modules = msg.ModuleArray(modules=[kind(id=i % 1000) for i in range(909)])

    def each(work: Any, rounds: int) -> float:
        began = time.perf_counter()
        for _ in range(rounds):
            work()
        return (time.perf_counter() - began) / rounds * 1e6

    checked = each(lambda: check(supply, now_ns()), ROUNDS)
    plain = each(lambda: [getattr(supply, n) for n in names], ROUNDS)
    report = each(lambda: standard.modules(modules), 50)
    return {
        "supply_state_us": round(checked, 2),
        "ratio_to_reading": round(checked / plain, 2),
        "modules_909_us": round(report, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--topics", type=int, help="only so many topics, drawn by the seed (default: all)")
    parser.add_argument("--minutes", type=float, default=4.0, help="send nothing new after so long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--protocol", default="iso15118-2")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--check", action="store_true", help="fail when something died, was accepted or was trapped")
    options = parser.parse_args()
    cases = poison.cases(options.topics, options.seed)
    bad = _batches([c for c in cases if c.must_refuse])
    odd = _batches([c for c in cases if not c.must_refuse])
    price = cost()
    print(f"borders: {len(cases)} cases on {len({c.topic for c in cases})} topics; a check costs {price}", flush=True)
    trapped = 0
    deadline = time.monotonic() + 60.0 * options.minutes
    charge_s = CHARGE_S if options.minutes > SAMPLE_MINUTES else SAMPLE_CHARGE_S
    desk = DeskOptions(protocol=options.protocol, seed=options.seed, charge_seconds=charge_s)
    with ChaosStation(desk, False) as station:
        bench = Bench(station, deadline)
        if not bench.until(lambda: station.phase == "idle", UP_S):
            print("borders: the station did not come up", file=sys.stderr)
            return 1
        while bad and time.monotonic() < deadline:
            trapped += bench.trapped(bad)
        bench.deadline = time.monotonic() + SESSION_S
        trapped += bench.trapped(odd)
        trapped += bench.trapped([], "completed")  # and now, as if nothing had been
        rows, died = bench.rows, bench.died
    accepted = [r for r in rows if r["outcome"] == "accepted"]
    document = {"cases": rows, "died": len(died), "accepted": len(accepted), "trapped": trapped, "cost": price}
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    for row in accepted[:20]:
        print(f"borders: accepted {row['topic']} {row['field']} = {row['value']} in {row['phase']}")
    if died:
        print(f"borders: died {', '.join(died)}")
    left = sum(map(len, bad)) + sum(map(len, odd))
    print(f"borders: {len(rows)} cases, {len(died)} died, {len(accepted)} accepted, {trapped} trapped; {left} not sent")
    return 1 if options.check and (died or accepted or trapped) else 0


if __name__ == "__main__":
    sys.exit(main())
