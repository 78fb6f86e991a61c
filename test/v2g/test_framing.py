"""However TCP cuts or joins the vehicle's messages, the same answers come."""

from __future__ import annotations

import asyncio

import link_fuzz
import pytest

from robot_charger.common.clock import now_ns
from robot_charger.common.parameters import build
from robot_charger.v2g import v2gtp
from robot_charger.v2g.bridge import Bridge
from robot_charger.v2g.exi import NAMESPACES, encode
from robot_charger.v2g.parameters import V2gParameters
from robot_charger.v2g.record import Entry
from robot_charger.v2g.secc.table import Settings
from robot_charger.v2g.session import Session
from robot_charger.words.values import Phase

NAMES = ["supportedAppProtocolReq", "SessionSetupReq", "ServiceDiscoveryReq"]


def told() -> bytes:
    """Three requests of ISO 15118-2, one behind the other. The last has another session's id, which ends it all."""
    messages = [link_fuzz.hello("iso15118-2")]
    for body in ({"SessionSetupReq": {"EVCCID": b"\x02\xec\x00\x00\x00\xe1"}}, {"ServiceDiscoveryReq": {}}):
        tree = {"V2G_Message": {"Header": {"SessionID": b"\x00"}, "Body": body}}
        messages.append(v2gtp.message(v2gtp.EXI, encode(tree, NAMESPACES["iso15118_2"])))
    return b"".join(messages)


async def answers(pieces: list[bytes]) -> tuple[list[str], list[str]]:
    """Names of the requests heard and of the answers given."""
    bridge = Bridge()
    bridge.inform(session_stamp_ns=now_ns() + 10**12, session_id="s", phase=Phase.LINKING)
    entries: list[Entry] = []
    reader = asyncio.StreamReader(limit=2 * v2gtp.MAX_PAYLOAD)
    parameters = build(V2gParameters, {"tls.required": False})
    settings = Settings(protocols=("iso15118-2",))
    session = Session((reader, link_fuzz._Writer()), settings, bridge, parameters, entries.append)  # type: ignore[arg-type]
    running = asyncio.ensure_future(session.run())
    for piece in pieces:
        reader.feed_data(piece)
        await asyncio.sleep(0)
    await asyncio.wait_for(running, 5.0)
    ways = {way: [entry.name for entry in entries if entry.direction == way] for way in ("in", "out")}
    return ways["in"], ways["out"]


EXPECTED = (NAMES, [name.replace("Req", "Res") for name in NAMES])


def test_three_messages_in_one_segment() -> None:
    assert asyncio.run(answers([told()])) == EXPECTED


@pytest.mark.parametrize("size", [1, 2, 7, 8, 9])
def test_segments_of_a_few_bytes(size: int) -> None:
    data = told()
    assert asyncio.run(answers([data[at : at + size] for at in range(0, len(data), size)])) == EXPECTED


def test_two_segments_cut_at_every_byte() -> None:
    data = told()

    async def every() -> None:
        for at in range(1, len(data)):
            assert await answers([data[:at], data[at:]]) == EXPECTED, at

    asyncio.run(every())
