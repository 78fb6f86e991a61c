"""The session around the tables: what goes over the socket, and what of it reaches record and link."""

from __future__ import annotations

import asyncio
from typing import Any

import link_fuzz
import pytest
import secc_messages as messages

from robot_charger.common.clock import now_ns
from robot_charger.common.faults import Code
from robot_charger.common.parameters import build
from robot_charger.v2g import v2gtp
from robot_charger.v2g.bridge import Bridge
from robot_charger.v2g.exi import decode
from robot_charger.v2g.parameters import V2gParameters
from robot_charger.v2g.record import Entry
from robot_charger.v2g.secc.table import Settings
from robot_charger.v2g.session import Outcome, Session
from robot_charger.words.values import Phase


async def talk(*sent: bytes, writer: Any = None) -> tuple[Outcome, list[Entry], list[bytes], Bridge]:
    """What comes of these bytes and the end of the connection."""
    bridge = Bridge()
    bridge.inform(session_stamp_ns=now_ns() + 10**12, session_id="s", phase=Phase.LINKING)
    reader = asyncio.StreamReader(limit=2 * v2gtp.MAX_PAYLOAD)
    taker = writer or link_fuzz._Writer()
    entries: list[Entry] = []
    parameters = build(V2gParameters, {"tls.required": False})
    session = Session((reader, taker), Settings(protocols=("iso15118-2",)), bridge, parameters, entries.append)
    for data in sent:
        reader.feed_data(data)
    reader.feed_eof()
    outcome = await asyncio.wait_for(session.run(), 5.0)
    return outcome, entries, _messages(bytes(taker.said)), bridge


def _messages(said: bytes) -> list[bytes]:
    found = []
    while said:
        _, length = v2gtp.payload_length(said[: v2gtp.HEADER])
        found.append(said[v2gtp.HEADER : v2gtp.HEADER + length])
        said = said[v2gtp.HEADER + length :]
    return found


def request(name: str, body: Any) -> bytes:
    return v2gtp.message(*messages.message("iso15118-2", name, body))


SETUP = request("SessionSetupReq", {"EVCCID": messages.EVCCID})
BROKEN = v2gtp.message(v2gtp.EXI, messages.message("iso15118-2", "SessionSetupReq", {"EVCCID": messages.EVCCID})[1][:6])


def test_what_cannot_be_decoded_is_recorded_answered_and_named() -> None:
    outcome, entries, answers, bridge = asyncio.run(talk(link_fuzz.hello("iso15118-2"), BROKEN))
    assert outcome.code == Code.V2G_DECODE and "could not be decoded" in outcome.text
    broken = entries[2]
    assert (broken.direction, broken.tree, broken.exi) == ("in", None, BROKEN[v2gtp.HEADER :])
    assert broken.fault == outcome.text
    ((name, body),) = decode(answers[-1], "iso15118_2")["V2G_Message"]["Body"].items()
    assert (name, body["ResponseCode"]) == ("SessionSetupRes", "FAILED")
    assert bridge.vehicle.messages_bad == 1


def test_framing_that_is_broken_closes_without_an_answer() -> None:
    outcome, _, answers, bridge = asyncio.run(talk(link_fuzz.hello("iso15118-2"), b"\x02\xfd\x80\x01\0\0\0\0"))
    assert outcome.code == Code.V2G_DECODE and "02fd" in outcome.text
    assert len(answers) == 1 and bridge.vehicle.messages_bad == 1


def test_a_message_is_in_the_record_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[tuple[str, bool]] = []
    from robot_charger.v2g import session as module

    class Watched(Entry):
        def finish(self, *arguments: Any, **named: Any) -> None:
            found.append((self.direction, self.done))
            super().finish(*arguments, **named)

    monkeypatch.setattr(module, "Entry", Watched)
    _, entries, _, _ = asyncio.run(talk(link_fuzz.hello("iso15118-2"), SETUP))
    assert [entry.direction for entry in entries] == ["in", "out", "in", "out"]
    assert all(entry.done for entry in entries) and ("in", False) in found


class _Gone(link_fuzz._Writer):
    async def drain(self) -> None:
        raise ConnectionResetError("of the test")


def test_a_connection_that_breaks_is_a_lost_link() -> None:
    outcome, _, _, _ = asyncio.run(talk(link_fuzz.hello("iso15118-2"), writer=_Gone()))
    assert (outcome.code, outcome.text) == (Code.LINK_LOST, "connection lost: of the test")
