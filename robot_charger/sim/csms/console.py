"""A console for a person who drives the CSMS by hand: one command a line on stdin."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from robot_charger.sim.csms.books import books
from robot_charger.sim.csms.server import FAULTS, CsmsThread

HELP = (
    """\
start [EVSE] [TOKEN]     remote start
stop [EVSE]              remote stop of what runs there
call ACTION [JSON]       any request of the CSMS, e.g. call Reset {"type":"OnIdle"}
limit WATTS | limit off  a station maximum (2.x)
cap NAME VALUE | cap off every transaction's limit (2.1): maxEnergy, maxTime, maxSoC, maxCost
fault NAME on|off        one of: """
    + ", ".join(FAULTS)
    + """
token ID STATUS          make a token known: Accepted, Blocked, Expired, ...
stations                 who is connected
books                    the transactions so far
log [N]                  the last N messages (10)
help, quit"""
)


class Console:
    """``run(lines)`` reads until quit or the end of input; ``write`` gets what a person shall read."""

    def __init__(self, thread: CsmsThread, store: Path, write: Callable[[str], None] = print) -> None:
        self._thread = thread
        self._csms = thread.csms
        self._store = store
        self._write = write

    def run(self, lines: Iterable[str] = sys.stdin) -> None:
        for line in lines:
            try:
                words = shlex.split(line, posix=True) if not line.startswith("call") else line.split(None, 2)
            except ValueError as error:
                self._write(f"cannot read that: {error}")
                continue
            if not words:
                continue
            if words[0] in ("quit", "exit"):
                return
            command = getattr(self, f"_do_{words[0]}", None)
            if command is None:
                self._write(f"no command {words[0]}: try help")
                continue
            try:
                answer = command(*words[1:])
            except TypeError:
                self._write(f"wrong number of words for {words[0]}: try help")
            except Exception as error:
                self._write(f"{type(error).__name__}: {error}")
            else:
                self._write(answer if isinstance(answer, str) else json.dumps(answer))

    def _ask(self, action: str, payload: dict[str, Any]) -> Any:
        return self._thread.do(self._csms.call(action, payload))

    def _do_help(self) -> str:
        return HELP

    def _do_start(self, evse: str = "1", token: str = "DEADBEEF") -> Any:
        return self._thread.do(self._csms.command("remote_start", {"evse": int(evse), "id_token": token}))

    def _do_stop(self, evse: str = "1") -> Any:
        return self._thread.do(self._csms.command("remote_stop", {"evse": int(evse)}))

    def _do_call(self, action: str, payload: str = "{}") -> Any:
        return self._ask(action, json.loads(payload))

    def _do_limit(self, watts: str) -> Any:
        if watts == "off":
            return self._ask("ClearChargingProfile", {"chargingProfileId": 9001})
        return self._ask(
            "SetChargingProfile",
            {
                "evseId": 0,
                "chargingProfile": {
                    "id": 9001,
                    "stackLevel": 0,
                    "chargingProfilePurpose": "ChargingStationMaxProfile",
                    "chargingProfileKind": "Absolute",
                    "chargingSchedule": [
                        {
                            "id": 1,
                            "chargingRateUnit": "W",
                            "startSchedule": "2020-01-01T00:00:00Z",
                            "chargingSchedulePeriod": [{"startPeriod": 0, "limit": float(watts)}],
                        }
                    ],
                },
            },
        )

    def _do_cap(self, name: str, value: str = "") -> str:
        self._csms.transaction_limit = {} if name == "off" else {name: float(value)}
        return f"transactions: {self._csms.transaction_limit or 'no limit'}"

    def _do_fault(self, name: str, on: str = "on") -> str:
        self._thread.do(self._csms.fault(name, on == "on"))
        return f"{name} {on}"

    def _do_token(self, token: str, status: str) -> str:
        self._csms.tokens[token.casefold()] = status
        return f"{token} is {status}"

    def _do_stations(self) -> str:
        return "\n".join(f"{s.name} OCPP {s.version}" for s in self._csms.stations.values()) or "none"

    def _do_books(self) -> str:
        lines = [
            f"{e.transaction_id} EVSE {e.evse} {e.id_token or '-'} {e.meter_start_wh} to {e.meter_stop_wh} Wh, "
            f"{e.stop_reason or 'running'}"
            for e in books(self._store)
        ]
        return "\n".join(lines) or "empty"

    def _do_log(self, count: str = "10") -> str:
        arrows = {"in": "->", "out": "<-"}
        return "\n".join(
            f"{line.time[11:23]} {line.station} {arrows[line.direction]} {line.raw[:300]}"
            for line in self._csms.journal.lines()[-int(count) :]
        )
