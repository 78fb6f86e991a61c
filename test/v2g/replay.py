"""Replays recordings of real cars at the charging side: the car's own bytes in its own order.

A recording is one JSON object: vehicle, protocol (``din70121`` or ``iso15118_2``) and requests, each a list of seconds,
request, schema, EXI in hexadecimal digits and the answer that the car got then. SessionIDs of zeros are filled in.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from secc_desk import Desk, Supply, always, code, fields

from robot_charger.v2g.exi import decode
from robot_charger.v2g.secc.table import End, Reply
from robot_charger.words.values import Purpose

PROTOCOLS = {"din70121": "din70121", "iso15118_2": "iso15118-2"}
LOOPS = frozenset(
    {"AuthorizationReq", "ContractAuthenticationReq", "ChargeParameterDiscoveryReq", "CableCheckReq", "PreChargeReq"}
)
NEAR_V = 20.0
ID_BIT = 18  # where SessionID begins in the envelope of DIN 70121 and ISO 15118-2
REPEATS = 400  # of a request that is answered "ongoing"
PERIOD_S = 0.1


@dataclass
class Outcome:
    """What came of one recording. ``result``: charged, stopped early, refused or failed."""

    file: str
    vehicle: str
    protocol: str
    result: str = "failed"
    charged: bool = False
    answered: int = 0
    unanswered: int = 0
    failed_at: str = ""
    code: str = ""
    field: str = ""
    notes: tuple[str, ...] = ()
    end: str = ""


def with_session_id(exi: bytes, session_id: str) -> bytes:
    """The message with another SessionID of the same length (8 octets)."""
    octets = bytes.fromhex(session_id)
    data = bytes([len(octets)]) + octets
    width = 8 * len(data)
    bits = int.from_bytes(exi, "big")
    shift = 8 * len(exi) - ID_BIT - width
    mask = ((1 << width) - 1) << shift
    return (bits & ~mask | int.from_bytes(data, "big") << shift).to_bytes(len(exi), "big")


def asks_for_ac(requests: list[list[Any]]) -> bool:
    """A car that wants alternating current."""
    for _, name, schema, text, *_ in requests:
        if name == "ChargeParameterDiscoveryReq":
            body = decode(bytes.fromhex(text), schema)["V2G_Message"]["Body"][name]
            return str(body.get("RequestedEnergyTransferMode", "")).startswith("AC")
    return False


def desk(protocol: str, supply: Supply | None = None) -> Desk:
    """A station that offers the protocol of the recording alone."""
    return Desk(replace(always(), protocols=(PROTOCOLS[protocol],)), supply or Supply())


def play(path: Path, at: Desk | None = None) -> Outcome:
    """Replay one recording from supportedAppProtocolReq to its end."""
    recording = json.loads(path.read_text())
    station = at or desk(recording["protocol"])
    outcome = Outcome(path.name, recording["vehicle"], recording["protocol"])
    ended = _requests(station, recording["requests"], outcome)
    if ended is None:
        ended = station.machine.closed()
    outcome.end = ended.text
    outcome.notes = tuple(dict.fromkeys(note for reply in station.replies for note in reply.notes))
    if outcome.failed_at:
        outcome.result = "refused"
    elif outcome.charged:
        outcome.result = "charged"
    else:
        outcome.result = "stopped early"
    if outcome.unanswered:
        outcome.result = "failed"
    return outcome


def _requests(station: Desk, requests: list[list[Any]], outcome: Outcome) -> End | None:
    finished = ""
    for _, name, _, text, *_ in requests:
        if name == finished:
            continue  # a copy: the car asked more often than it had to here
        exi = bytes.fromhex(text)
        if name not in ("supportedAppProtocolReq", "SessionSetupReq"):
            exi = with_session_id(exi, station.machine.talk.session_id)
        for _ in range(REPEATS):
            reply = _send(station, exi, outcome)
            if reply is None or reply.end is not None:
                return reply.end if reply else None
            if name not in LOOPS or not _again(name, reply, station):
                break
            station.wait(PERIOD_S)
        finished = name if name in LOOPS and name != "PreChargeReq" else ""
        station.supply.contactor = station.machine.talk.energy.purpose == Purpose.TRANSFER
        station.wait(0.02)
        if name == "CurrentDemandReq" and station.station.current_a > 0.0:
            outcome.charged = True
    return None


def _send(station: Desk, exi: bytes, outcome: Outcome) -> Reply | None:
    reply = station.send(exi)
    outcome.answered += bool(reply.message)
    outcome.unanswered += not reply.message
    said = code(reply)
    if said.upper().startswith("FAILED"):
        outcome.failed_at, outcome.code, outcome.field = reply.request, said, reply.fault
    return reply


def _again(name: str, reply: Reply, station: Desk) -> bool:
    answer = fields(reply)
    if name == "PreChargeReq":
        present = answer["EVSEPresentVoltage"]
        wanted = station.machine.talk.energy.voltage_v
        return abs(present["Value"] * 10.0 ** present["Multiplier"] - wanted) > NEAR_V
    return str(answer.get("EVSEProcessing", "Finished")).startswith("Ongoing")
