"""python -m robot_charger.sim.csms --port P --store FILE: the CSMS as a process of the desk.

With a run directory (ROBOT_CHARGER_SIM) it owns the wire ``csms`` and writes ``csms.json`` {"port", "url"}.
From ``cli`` it takes ``fault`` NAME with ``on``, and ``command`` {"number": N, "name": ..., arguments}; a number
is carried out once. It tells ``cli``: ``port``, ``stations``, ``booted``, ``received``, ``violations``,
``command`` (number of the last one done), ``status`` and ``answer`` (of that command).
"""

from __future__ import annotations

import argparse
import json
import os
import ssl
import sys
import threading
import time
from pathlib import Path
from typing import Any

from robot_charger.common.process import StopSignal, end_with_parent, parent_gone, refuse
from robot_charger.common.wires import RUN_DIRECTORY, WireEnd, WireError
from robot_charger.sim.csms.console import Console
from robot_charger.sim.csms.server import FAULTS, KNOWN_TOKENS, Csms, CsmsThread


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="csms", description="A small CSMS for a desk.")
    parser.add_argument("--port", type=int, default=0, help="TCP port, 0 = any (see csms.json)")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--store", required=True, help="SQLite file of every message")
    parser.add_argument("--token", action="append", default=[], metavar="ID[=STATUS]", help="a known token")
    parser.add_argument("--unknown", default="Invalid", help="status of unknown tokens (Accepted: take all)")
    parser.add_argument("--interval", type=int, default=300, help="heartbeat interval told to stations [s]")
    parser.add_argument("--password-file", help="demand HTTP basic authentication with this password")
    parser.add_argument("--certificate", help="PEM chain: speak TLS")
    parser.add_argument("--key", help="PEM key of the certificate")
    parser.add_argument("--client-ca", help="PEM roots: demand a client certificate")
    parser.add_argument("--contracts", metavar="DIR", help="issue contracts from a test PKI's operator directory")
    parser.add_argument("--console", action="store_true", help="take commands on stdin (try: help)")
    parser.add_argument("--no-schemas", action="store_true", help="do not check what stations say: faster, for benches")
    parser.add_argument("--fault", action="append", default=[], choices=sorted(FAULTS))
    return parser.parse_args()


def tls(options: argparse.Namespace) -> ssl.SSLContext | None:
    if not options.certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(options.certificate, options.key)
    if options.client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(options.client_ca)
    return context


def issue_contracts(csms: Csms, directory: Path) -> None:
    """Answer Get15118EVCertificate from a test PKI."""
    from robot_charger.sim import package

    package.prepare()
    with package.quiet_import():
        from robot_charger.sim import contracts
    csms.answers["Get15118EVCertificate"] = lambda station, payload: contracts.ocpp(payload, directory)


class Desk:
    """The CSMS's end of the wires."""

    def __init__(self, thread: CsmsThread, faults: list[str]) -> None:
        self.thread = thread
        self.csms: Csms = thread.csms
        self.done = 0
        self.status = ""
        self.answer: Any = None
        self._faults = dict.fromkeys(faults, True)
        self._job: Any = None
        self._number = 0

    def listen(self, signals: dict[str, Any]) -> None:
        name, on = signals.get("fault"), bool(signals.get("on"))
        if name in FAULTS and self._faults.get(name, False) != on:
            self._faults[name] = on
            details = {k: v for k, v in signals.items() if k in ("seconds", "action")}
            self.thread.submit(self.csms.fault(name, on, **details))
        command = signals.get("command")
        if isinstance(command, dict) and int(command.get("number", 0)) > self._number and self._job is None:
            self._number = int(command["number"])
            words = {k: v for k, v in command.items() if k not in ("number", "name")}
            self._job = self.thread.submit(self.csms.command(str(command.get("name")), words))

    def step(self) -> dict[str, Any]:
        """What ``cli`` shall know now."""
        if self._job is not None and self._job.done():
            try:
                self.answer, self.status = self._job.result(), "done"
            except Exception as error:
                self.answer, self.status = f"{type(error).__name__}: {error}", "failed"
            self._job, self.done = None, self._number
        return {
            "port": self.csms.port,
            "stations": sorted(self.csms.stations),
            "booted": sorted(self.csms.booted),
            "received": self.csms.received,
            "violations": self.csms.violations[-3:],
            "gone": "csms-gone" in self.csms.faults,
            "command": self.done,
            "status": self.status,
            "answer": self.answer,
        }


def main() -> None:
    options = arguments()
    end_with_parent()
    stop = StopSignal()
    tokens = dict(KNOWN_TOKENS)
    for item in options.token:
        token, _, status = item.partition("=")
        tokens[token] = status or "Accepted"
    password = Path(options.password_file).read_text().strip() if options.password_file else None
    try:
        thread = CsmsThread(
            options.store,
            port=options.port,
            host=options.host,
            tokens=tokens,
            unknown=options.unknown,
            interval_s=options.interval,
            checks=not options.no_schemas,
            password=password,
            tls=tls(options),
        ).start()
    except OSError as error:
        refuse(f"csms: --port {options.port}: {error.strerror or error}")
    if options.contracts:
        issue_contracts(thread.csms, Path(options.contracts))
    for name in options.fault:
        thread.do(thread.csms.fault(name, True))
    print(f"csms: {thread.csms.url}", file=sys.stderr, flush=True)
    desk = Desk(thread, options.fault)
    wire = None
    if os.environ.get(RUN_DIRECTORY):
        try:
            directory = Path(os.environ[RUN_DIRECTORY])
            file = directory / "csms.json"
            file.with_suffix(".new").write_text(json.dumps({"port": thread.csms.port, "url": thread.csms.url}))
            file.with_suffix(".new").replace(file)
            wire = WireEnd("csms", on_signals=lambda peer, s: desk.listen(s) if peer == "cli" else None)
        except (WireError, OSError) as error:
            refuse(f"csms: {error}")
    if options.console:

        def converse() -> None:
            Console(thread, Path(options.store)).run()
            stop.event.set()

        threading.Thread(target=converse, name="console", daemon=True).start()
    told = 0.0
    last: dict[str, Any] = {}
    while not stop.wait(0.05) and not parent_gone():
        signals = desk.step()
        if wire and (signals != last or time.monotonic() - told > 0.5):
            wire.send("cli", signals)
            told, last = time.monotonic(), signals
    if wire:
        wire.close()
    thread.stop()


if __name__ == "__main__":
    main()
