"""Soak: many sessions over three bays with one robot, protocol by protocol; do memory, files and threads stay flat?

    python bench/soak.py [--sessions N] [--bays B] [--batch K] [--seed S] [--json FILE] [--resume FILE] [--publish]

Each batch starts one station; its vehicles speak one protocol, the next batch's the next one. In every third batch the
CSMS is away for the middle of the sessions; in every ninth each session's insulation monitor fails its self-test first,
so that every vehicle is plugged in twice. Flat is judged within each run of a station: what every process uses when
each bay has had one session, against its end. JSON: sessions, completed, books_ok, unbilled_wh, replugs, faults,
batches[{protocol, fault, sessions, minutes, completed, books_ok, replugs, growth{process: {rss_mb, files, threads}},
troubles[a session that did not complete, or whose books disagree]}]. ``--resume FILE`` goes on after what the file
holds; ``--publish`` writes the table into docs/soak.md. Exit status 0 when it measured.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

from robot_charger.desk.rehearsal import Rehearsal, unbilled_wh
from robot_charger.desk.running import StationFailed
from robot_charger.desk.simulation import Simulation
from robot_charger.operator.docs import renewed
from robot_charger.sim.csms.books import books
from robot_charger.station import DeskOptions

PAGE = Path(__file__).parents[1] / "docs" / "soak.md"
PROTOCOLS = ("iso15118-2", "din", "iso15118-20", "chademo")
SESSION_S = 300.0


def usage(simulation: Simulation) -> dict[str, dict[str, float]]:
    """Resident memory [MB], open files and threads of each process."""
    found = {}
    for name, child in simulation.processes.children.items():
        with contextlib.suppress(psutil.Error):
            p = psutil.Process(child.process.pid)
            found[name] = {"rss_mb": p.memory_info().rss / 1e6, "files": p.num_fds(), "threads": p.num_threads()}
    return found


def batch(number: int, sessions: int, bays: int, seed: int) -> dict[str, Any]:
    """One station until its sessions are over."""
    protocol = PROTOCOLS[number % len(PROTOCOLS)]
    options = DeskOptions(evses=tuple(range(1, bays + 1)), protocol=protocol, seed=seed + number)
    began = time.monotonic()
    first: dict[str, dict[str, float]] = {}
    growth: dict[str, dict[str, float]] = {}
    fault = "csms-gone" if number % 3 == 2 else "self-test" if number % 9 == 1 else ""
    complaint = ""
    with Simulation(options) as simulation:
        shares = [sessions // bays + (k < sessions % bays) for k in range(bays)]
        rehearsals = [
            Rehearsal(simulation, evse, share, lambda: books(simulation.csms_store), fault)
            for evse, share in zip(options.evses, shares, strict=True)
        ]
        deadline = began + SESSION_S * (sessions + 1)
        try:
            while not all(r.done for r in rehearsals) and time.monotonic() < deadline:
                simulation.tick()
                for rehearsal in rehearsals:
                    rehearsal.tick()
                if not first and all(r.results for r in rehearsals):
                    first = usage(simulation)
                time.sleep(0.1)
        except StationFailed as failure:
            complaint = str(failure)
        last = usage(simulation)
        for name, before in first.items():
            if name in last:
                growth[name] = {key: round(last[name][key] - before[key], 1) for key in before}
    results = [r for x in rehearsals for r in x.results]
    return {
        "protocol": protocol,
        "fault": fault,
        "sessions": len(results),
        "minutes": round((time.monotonic() - began) / 60, 1),
        "completed": sum(r.result == "completed" for r in results),
        "books_ok": sum(bool(r.books.get("agree")) for r in results),
        "unbilled_wh": round(sum(unbilled_wh(r.books) for r in results), 1),
        "replugs": sum(max(0, [p["name"] for p in r.phases].count("connecting") - 1) for r in results),
        "faults": dict(Counter(f["name"] for r in results for f in r.faults)),
        "growth": growth,
        "troubles": [
            {key: getattr(r, key) for key in ("evse", "result", "stop_reason", "faults", "books", "phases")}
            for r in results
            if not r.well
        ],
        "complaint": complaint,
    }


def summary(batches: list[dict[str, Any]]) -> dict[str, Any]:
    faults: Counter[str] = Counter()
    for b in batches:
        faults.update(b["faults"])
    keys = ("sessions", "completed", "books_ok", "unbilled_wh", "replugs")
    totals = {key: round(sum(b[key] for b in batches), 1) for key in keys}
    return {**totals, "faults": dict(faults), "batches": batches}


def most_growth(row: dict[str, Any]) -> dict[str, float]:
    """Of any process of a batch: MB, files, threads."""
    return {k: max((g[k] for g in row["growth"].values()), default=0) for k in ("rss_mb", "files", "threads")}


def told(total: dict[str, Any]) -> str:
    return (
        f"{total['sessions']} sessions, {total['completed']} completed, {total['books_ok']} with right books,"
        f" {total['unbilled_wh']} Wh unbilled, {total['replugs']} plugged in twice, faults {total['faults'] or 'none'}"
    )


def page(text: str, batches: list[dict[str, Any]]) -> str:
    """docs/soak.md with the generated part renewed between its markers."""
    head = ("vehicles", "fault", "sessions", "minutes", "completed", "books right", "plugged in twice",
            "most growth: memory [MB]", "files", "threads")  # fmt: skip
    rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for b in batches:
        cells = (b["protocol"], b["fault"], b["sessions"], b["minutes"], b["completed"], b["books_ok"], b["replugs"])
        rows.append(f"| {' | '.join(map(str, (*cells, *most_growth(b).values())))} |")
    return renewed(text, "\n".join((f"{told(summary(batches))}.", "", *rows)))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sessions", type=int, default=6, help="in all (default 6, about ten minutes)")
    parser.add_argument("--bays", type=int, choices=(1, 2, 3), default=3)
    parser.add_argument("--batch", type=int, default=12, help="sessions of one station (default 12)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--resume", type=Path, help="go on after what this file holds, and write to it")
    parser.add_argument("--publish", action="store_true", help="put all batches so far into docs/soak.md")
    options = parser.parse_args()
    file = options.json or options.resume
    resumed = options.resume and options.resume.exists()
    batches: list[dict[str, Any]] = json.loads(options.resume.read_text())["batches"] if resumed else []
    while (done := sum(b["sessions"] for b in batches)) < options.sessions:
        row = batch(len(batches), min(options.batch, options.sessions - done), options.bays, options.seed)
        batches.append(row)
        most = most_growth(row)
        print(
            f"{row['protocol']:<12} {row['sessions']} sessions in {row['minutes']} min, {row['completed']} completed,"
            f" {row['books_ok']} with right books; most growth of a process: {most['rss_mb']} MB,"
            f" {most['files']} files, {most['threads']} threads {row['complaint']}",
            flush=True,
        )
        for t in row["troubles"]:
            faults = "; ".join(f["text"] or f["name"] for f in t["faults"])
            print(f"  EVSE {t['evse']} {t['result']}: {faults}; {t['books']}", flush=True)
        if file:
            file.write_text(json.dumps(summary(batches), indent=1) + "\n")
        if not row["sessions"]:
            break
    if options.publish:
        PAGE.write_text(page(PAGE.read_text(), batches))
    print(f"soak: {told(summary(batches))}")


if __name__ == "__main__":
    main()
