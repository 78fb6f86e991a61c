"""How fast the back end's durable queue is: python bench/ocpp.py [--json FILE] [--seed S].

queue_per_s   transaction records a second into the queue, each on the disk (fsync) before the next
replay_per_s  queued messages a second delivered to a CSMS on this machine, in order, one in flight
wire_ms       from the session's change of state in the back end to the message at the CSMS, p50 and p99
lost, doubled, disordered   messages of the replay, by the CSMS's own books
live_start_s  from the start of a session, with 20,000 messages of older ones queued, to its message at the CSMS;
              live_start_fifo_s is what it would take behind all of them at the rate of the same run
rss_mb        memory of a back end with 100,000 messages queued, and with none
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent]  # we are no package

from robot_charger.backend.parameters import BackendParameters, plan  # noqa: E402
from robot_charger.backend.records import OpenTransaction, Reading, Record, SessionView, Token  # noqa: E402
from robot_charger.backend.service import Callbacks, Service, clock  # noqa: E402
from robot_charger.backend.store import Store  # noqa: E402
from robot_charger.sim.csms import books  # noqa: E402
from robot_charger.sim.csms.server import CsmsThread  # noqa: E402
from robot_charger.words.values import Authorization, Phase  # noqa: E402

PER_TRANSACTION = 100
TOKEN = Token("DEADBEEF")
CHANCE = random.Random(0)  # of the readings in the messages


def record(transaction: str, seq_no: int) -> Record:
    event = "Started" if seq_no == 0 else "Ended" if seq_no == PER_TRANSACTION - 1 else "Updated"
    now = clock()
    context = {"Started": "Transaction.Begin", "Ended": "Transaction.End"}.get(event, "Sample.Periodic")
    volts, amps = round(CHANCE.uniform(300.0, 420.0), 1), round(CHANCE.uniform(0.0, 125.0), 1)
    reading = Reading(now.iso, now.mono_ns, 1000.0 + seq_no, 0.0, volts, amps, volts * amps, 55.0, context)
    return Record(
        event,
        transaction,
        transaction,
        1,
        seq_no,
        now.iso,
        "MeterValuePeriodic",
        "Charging",
        True,
        TOKEN,
        readings=(reading,),
        stopped_reason="Local" if event == "Ended" else "",
    )


def fill(path: Path, count: int) -> float:
    """Queue ``count`` records as a node does; records a second."""
    store = Store(path)
    began = time.perf_counter()
    for number in range(count):
        transaction, seq_no = f"t{number // PER_TRANSACTION}", number % PER_TRANSACTION
        last = seq_no == PER_TRANSACTION - 1
        store.record(
            record(transaction, seq_no),
            None if last else OpenTransaction(transaction, transaction, 1, "", seq_no + 1, TOKEN),
        )
    seconds = time.perf_counter() - began
    store.close()
    return count / seconds


def service(url: str, path: Path) -> Service:
    return Service(
        plan(
            BackendParameters(
                url=url,
                security_profile=0,
                allow_plain=True,
                store=str(path),
                sample_s=0,
                backoff__minimum_s=0,
                backoff__random_s=0,
            )
        ),
        Callbacks(),
    )


def replay(folder: Path, count: int) -> dict[str, Any]:
    """Deliver the queue to a CSMS in a process of its own."""
    (folder / "run").mkdir()
    csms = subprocess.Popen(
        [sys.executable, "-m", "robot_charger.sim.csms", "--store", str(folder / "csms.sqlite"), "--no-schemas"],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert csms.stderr
        url = csms.stderr.readline().split()[-1]
        one = service(url, folder / "station.sqlite")
        began = time.perf_counter()
        one.start()
        while one.store.queued:
            time.sleep(0.01)
        seconds = time.perf_counter() - began
        one.stop()
    finally:
        csms.terminate()
        csms.wait(10)
    entries = books(folder / "csms.sqlite")
    told = sum(len(e.events) for e in entries)
    order = [e.transaction_id for e in entries] == [f"t{n}" for n in range(len(entries))]
    return {
        "replay_per_s": round(count / seconds, 1),
        "lost": count - told,
        "doubled": sum(e.doubled for e in entries),
        "disordered": sum(e.disordered for e in entries) + (0 if order else 1),
    }


def wire(folder: Path, samples: int) -> dict[str, float]:
    """Milliseconds from a session's change of state to its message at the CSMS."""
    arrived = threading.Event()
    at = 0.0

    def take(station: Any, payload: dict[str, Any]) -> dict[str, Any]:
        nonlocal at
        at = time.perf_counter()
        arrived.set()
        return {}

    with CsmsThread(folder / "wire.sqlite") as csms:
        csms.csms.answers["TransactionEvent"] = take
        one = service(csms.csms.url, folder / "wire-station.sqlite")
        one.start()
        while not one.station.online:
            time.sleep(0.01)
        times = []
        for number in range(samples + 1):
            arrived.clear()
            began = time.perf_counter()
            moment = clock()
            one.post(one.station.meter, 1, Reading(moment.iso, moment.mono_ns, 1.0 + number), moment)
            view = SessionView(1, "bench", Phase.CHARGING, moment.mono_ns, Authorization.ACCEPTED, number % 2 == 0)
            one.post(one.station.session, view, moment)
            if not arrived.wait(60.0):
                raise SystemExit("bench: a message never came")
            times.append((at - began) * 1000.0)
            while one.store.queued:
                time.sleep(0.001)
        one.stop()
    times = sorted(times[1:])
    return {"p50": round(statistics.median(times), 2), "p99": round(times[int(len(times) * 0.99)], 2)}


def live_start(folder: Path, count: int) -> dict[str, float]:
    """Seconds until the start of a session is at the CSMS though ``count`` older messages wait."""
    path = folder / "live.sqlite"
    queue(path, count)
    arrived = threading.Event()
    answered = 0

    def take(station: Any, payload: dict[str, Any]) -> dict[str, Any]:
        nonlocal answered
        answered += 1
        if payload["transactionInfo"]["transactionId"] == "live":
            arrived.set()
        return {}

    with CsmsThread(folder / "live-csms.sqlite") as csms:
        csms.csms.answers["TransactionEvent"] = take
        one = service(csms.csms.url, path)
        one.start()
        while answered < 50:
            time.sleep(0.001)
        began, before = time.perf_counter(), answered
        moment = clock()
        one.post(one.station.meter, 1, Reading(moment.iso, moment.mono_ns, 1.0), moment)
        view = SessionView(1, "live", Phase.CHARGING, moment.mono_ns, Authorization.ACCEPTED, True)
        one.post(one.station.session, view, moment)
        if not arrived.wait(120.0):
            raise SystemExit("bench: the start never came")
        seconds = time.perf_counter() - began
        while answered < before + 500:
            time.sleep(0.001)
        rate = (answered - before) / (time.perf_counter() - began)
        one.stop()
    return {"live_start_s": round(seconds, 3), "live_start_fifo_s": round((count - before) / rate, 1)}


def queue(path: Path, count: int) -> None:
    """Put ``count`` messages of old transactions into a store, in one commit."""
    store = Store(path)
    store._db.execute("begin")
    rows = []
    for number in range(count):
        transaction, seq_no = f"t{number // PER_TRANSACTION}", number % PER_TRANSACTION
        one = record(transaction, seq_no)
        rows.append((f"m{number}", one.event, transaction, seq_no, one.to_json()))
    store._db.executemany("insert into queue(message_id, event, transaction_id, seq_no, body) values(?,?,?,?,?)", rows)
    store._db.execute("commit")
    store.close()


MEASURE = """
import sys, time, psutil
from robot_charger.backend.parameters import BackendParameters, plan
from robot_charger.backend.service import Callbacks, Service
s = Service(plan(BackendParameters(url='ws://127.0.0.1:9/x', security_profile=0, allow_plain=True,
                                   store=sys.argv[1])), Callbacks())
s.start()
while not s.client.text: time.sleep(0.01)
print(psutil.Process().memory_info().rss / 2**20)
"""


def memory(folder: Path, count: int) -> float:
    """Resident megabytes of a back end whose queue holds ``count`` messages."""
    path = folder / f"memory-{count}.sqlite"
    queue(path, count)
    answer = subprocess.run([sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True)
    return round(float(answer.stdout), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE", help="write the result here")
    parser.add_argument("--messages", type=int, default=10_000, help="messages to queue and replay")
    parser.add_argument("--samples", type=int, default=300, help="samples of the latency")
    parser.add_argument("--seed", type=int, default=0, help="of the readings in the messages")
    options = parser.parse_args()
    CHANCE.seed(options.seed)
    count = max(1, options.messages // PER_TRANSACTION) * PER_TRANSACTION
    with tempfile.TemporaryDirectory(prefix="ocpp-", dir=".") as name:  # here: /tmp may be no disk
        folder = Path(name)
        result: dict[str, Any] = {"queue_per_s": round(fill(folder / "station.sqlite", count), 1)}
        result.update(replay(folder, count))
        result["wire_ms"] = wire(folder, options.samples)
        result.update(live_start(folder, 20_000))
        result["messages"] = count
        result["rss_mb"] = {"empty": memory(folder, 0), "queued_100000": memory(folder, 100_000)}
    text = json.dumps(result, indent=2)
    print(text)
    if options.json:
        Path(options.json).write_text(text + "\n")


if __name__ == "__main__":
    main()
