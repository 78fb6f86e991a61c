"""What the CSMS would bill, from nothing but the messages it stored."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robot_charger.sim.csms.journal import Line, read

IMPORT, EXPORT = "Energy.Active.Import.Register", "Energy.Active.Export.Register"


@dataclass
class Entry:
    """One transaction. Registers in Wh, None where the station never said them."""

    transaction_id: str
    version: str
    evse: int
    session_id: str = ""
    id_token: str = ""
    meter_start_wh: float | None = None
    meter_stop_wh: float | None = None
    meter_export_start_wh: float = 0.0
    meter_export_stop_wh: float = 0.0
    started: str = ""
    stopped: str = ""
    stop_reason: str = ""
    remote_start_id: int | None = None
    offline: bool = False
    events: list[tuple[int, str, str]] = field(default_factory=list)  # seqNo, event, trigger; 1.6 counts itself
    doubled: int = 0
    disordered: int = 0

    @property
    def missing(self) -> int:
        """Gaps in the sequence numbers."""
        numbers = {n for n, _, _ in self.events}
        return max(numbers) + 1 - len(numbers) if numbers else 0

    @property
    def ended(self) -> bool:
        return bool(self.stopped)

    @property
    def energy_wh(self) -> float | None:
        if self.meter_start_wh is None or self.meter_stop_wh is None:
            return None
        return self.meter_stop_wh - self.meter_start_wh


def books(store: Path | str) -> list[Entry]:
    """The transactions in a CSMS's store, in the order they came."""
    return entries_of(read(store))


def entries_of(lines: list[Line]) -> list[Entry]:
    """The transactions in the lines of a journal."""
    answers: dict[tuple[str, str], Any] = {}
    for line in lines:
        frame = line.frame()
        if line.direction == "out" and frame and frame[0] == 3:
            answers[(line.station, str(frame[1]))] = frame[2]
    entries: dict[str, Entry] = {}
    seen: set[tuple[str, str]] = set()
    for line in lines:
        frame = line.frame()
        if line.direction != "in" or not frame or frame[0] != 2 or len(frame) < 4:
            continue
        key = (line.station, str(frame[1]))
        answered = answers.get(key)
        if key in seen or answered is None:
            continue  # sent again because its answer was lost, or refused
        seen.add(key)
        try:
            if frame[2] == "TransactionEvent":
                _event(entries, line, frame[3])
            elif frame[2] in ("StartTransaction", "StopTransaction", "MeterValues", "DataTransfer"):
                _event_16(entries, line, frame[2], frame[3], answered)
        except (KeyError, TypeError, ValueError, AttributeError):
            continue  # broken on purpose by a test; the journal still holds it
    return list(entries.values())


def _register(values: list[dict[str, Any]], measurand: str, context: str = "") -> float | None:
    """The last value of a register, with a context if one is asked for."""
    found = None
    for meter_value in values:
        for item in meter_value["sampledValue"]:
            if item.get("measurand", IMPORT) == measurand and (not context or item.get("context") == context):
                scale = 1000.0 if item.get("unit") == "kWh" else 1.0
                scale *= 10.0 ** item.get("unitOfMeasure", {}).get("multiplier", 0)
                found = float(item["value"]) * scale
    return found


def _event(entries: dict[str, Entry], line: Line, payload: dict[str, Any]) -> None:
    info = payload["transactionInfo"]
    transaction_id = info["transactionId"]
    entry = entries.get(transaction_id)
    if entry is None:
        entry = entries[transaction_id] = Entry(
            transaction_id, line.version, payload.get("evse", {}).get("id", 0), session_id=transaction_id
        )
    number, event = payload["seqNo"], payload["eventType"]
    if any(n == number for n, _, _ in entry.events):
        entry.doubled += 1
        return
    if entry.events and number < entry.events[-1][0]:
        entry.disordered += 1
    entry.events.append((number, event, payload["triggerReason"]))
    entry.id_token = entry.id_token or payload.get("idToken", {}).get("idToken", "")
    entry.offline = entry.offline or payload.get("offline", False)
    if info.get("remoteStartId") is not None:
        entry.remote_start_id = info["remoteStartId"]
    values = payload.get("meterValue", [])
    imported, exported = _register(values, IMPORT), _register(values, EXPORT)
    if event == "Started":
        entry.started = payload["timestamp"]
        entry.meter_start_wh = imported
        entry.meter_export_start_wh = exported or 0.0
    elif event == "Ended":
        entry.stopped = payload["timestamp"]
        entry.stop_reason = info.get("stoppedReason", "Local")
    if imported is not None:
        entry.meter_stop_wh = imported
    if exported is not None:
        entry.meter_export_stop_wh = exported


def _event_16(
    entries: dict[str, Entry], line: Line, action: str, payload: dict[str, Any], answer: dict[str, Any]
) -> None:
    if action == "StartTransaction":
        transaction_id = str(answer["transactionId"])
        if transaction_id in entries:
            entries[transaction_id].doubled += 1
            return
        entries[transaction_id] = Entry(
            transaction_id,
            line.version,
            payload["connectorId"],
            id_token=payload["idTag"],
            meter_start_wh=float(payload["meterStart"]),
            started=payload["timestamp"],
            events=[(0, "Started", "")],
        )
        return
    if action == "DataTransfer":
        data = json.loads(payload.get("data", "{}"))
        entry = entries.get(str(data.get("transactionId")))
        if entry and payload.get("messageId") == "Session":
            entry.session_id = data["sessionId"]
        return
    entry = entries.get(str(payload.get("transactionId")))
    if entry is None:
        return
    values = payload.get("meterValue", []) if action == "MeterValues" else payload.get("transactionData", [])
    if action == "StopTransaction" and entry.ended:
        entry.doubled += 1
        return
    if action == "MeterValues" and entry.ended:
        entry.disordered += 1
    entry.events.append((len(entry.events), "Updated" if action == "MeterValues" else "Ended", ""))
    for context, start in (("Transaction.Begin", True), ("Transaction.End", False)):
        imported, exported = _register(values, IMPORT, context), _register(values, EXPORT, context)
        if start:
            entry.meter_start_wh = imported if imported is not None else entry.meter_start_wh
            entry.meter_export_start_wh = exported if exported is not None else entry.meter_export_start_wh
        else:
            entry.meter_stop_wh = imported if imported is not None else entry.meter_stop_wh
            entry.meter_export_stop_wh = exported if exported is not None else entry.meter_export_stop_wh
    if action == "StopTransaction":
        entry.stopped = payload["timestamp"]
        entry.stop_reason = payload.get("reason", "Local")
        if _register(values, IMPORT, "Transaction.End") is None:
            entry.meter_stop_wh = float(payload["meterStop"])
    elif entry.meter_stop_wh is None or _register(values, IMPORT) is not None:
        entry.meter_stop_wh = _register(values, IMPORT) or entry.meter_stop_wh
