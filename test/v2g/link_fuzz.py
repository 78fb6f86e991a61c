"""Hostile bytes below the messages: SLAC frames, discovery datagrams, and V2GTP streams into a whole session.

Each function takes a count and a seed, feeds so many inputs and returns what came of them; an exception, an input
that takes too long or a session that ends without a code is a failure.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from random import Random
from typing import Any

import exi_fuzz

from robot_charger.common.clock import now_ns
from robot_charger.common.faults import Code
from robot_charger.common.plc_link import Frames
from robot_charger.sim import slac_ev
from robot_charger.v2g import v2gtp

EVSE = bytes.fromhex("02ec0000e5e1")
LONGEST_S = 5.0  # one session on a slow and busy computer; the next message is never waited for longer


class Deaf(Frames):
    """A link whose frames the fuzzer hands over itself. Its modem says that the vehicle has joined."""

    matcher: Any = None

    def __init__(self) -> None:
        self.socket, self._other = socket.socketpair()
        self.socket.setblocking(False)
        self.mac = EVSE

    def send(self, frame: bytes) -> bool:
        if frame[14:17] == b"\x00\xb8\xa0":  # VS_LINK_STATUS.REQ
            answer = EVSE + frame[:6] + b"\x88\xe1\x00\xb9\xa0\x00\xb0\x52\x00\x01"
            asyncio.get_running_loop().call_soon(self.matcher.on_frame, answer.ljust(60, b"\0"))
        return True

    def close(self) -> None:
        super().close()
        self._other.close()


def _vehicle_frames(random: Random) -> list[bytes]:
    """What one vehicle says, from the first request to the match, all right."""
    mac = b"\x02" + bytes([random.randrange(4)]) * 5
    run_id = bytes([random.randrange(3)]) * 8
    kinds = [
        (slac_ev.SLAC_PARM_REQ, b"\0\0" + run_id),
        (slac_ev.START_ATTEN_CHAR_IND, b"\0\0" + bytes([10, 1, 1]) + mac + run_id),
        *[
            entry
            for left in range(9, -1, -1)
            for entry in (
                (slac_ev.MNBC_SOUND_IND, b"\0\0" + bytes(17) + bytes([left]) + run_id + bytes(24)),
                (0x6086, mac + b"\x3a\0" + bytes([20]) * 58),  # CM_ATTEN_PROFILE.IND
            )
        ],
        (slac_ev.ATTEN_CHAR_RSP, b"\0\0" + mac + run_id + bytes(35)),
        (0x6078, bytes(40)),  # CM_VALIDATE.REQ
        (0x6009, bytes(40)),  # CM_SET_KEY.CNF
        (slac_ev.SLAC_MATCH_REQ, b"\0\0\x3e\0" + bytes(17) + mac + bytes(17) + EVSE + run_id + bytes(8)),
    ]
    frames = [slac_ev.frame(EVSE, mac, kind, body).ljust(60, b"\0") for kind, body in kinds]
    linked = EVSE + mac + b"\x88\xe1\x00\xb9\xa0\x00\xb0\x52" + bytes([0, random.randrange(2)])  # VS_LINK_STATUS.CNF
    return [*frames, linked.ljust(60, b"\0")]


def _damage(random: Random, data: bytes) -> bytes:
    if not data:
        return random.randbytes(random.randrange(80))
    kind = random.randrange(6)
    if kind == 0:
        return random.randbytes(random.randrange(200))
    if kind == 1:
        return data[: random.randrange(len(data))]
    if kind == 2:
        return data + random.randbytes(random.randrange(1500))
    damaged = bytearray(data)
    for _ in range(random.choice([1, 1, 2, 8])):
        at = random.randrange(len(damaged))
        damaged[at] = random.randrange(256) if kind == 3 else damaged[at] ^ 1 << random.randrange(8)
    return bytes(damaged)


def slac(count: int, seed: int) -> dict[str, int]:
    """Frames of several vehicles, every third one damaged, into one listening matcher."""
    from robot_charger.v2g.slac import MAX_VEHICLES, Matcher, SlacError

    random = Random(seed)

    async def run() -> dict[str, int]:
        frames = Deaf()
        matcher = frames.matcher = Matcher("1", frames, 0.0)
        matcher._nid, matcher._nmk = bytes(7), bytes(16)
        given = matches = 0

        async def listen() -> None:
            nonlocal matches
            while True:
                try:
                    await matcher.match(0.5)
                    matches += 1
                except SlacError:
                    pass

        listener = asyncio.ensure_future(listen())
        try:
            while given < count:
                await asyncio.sleep(0)
                slowly = random.random() < 0.05  # one that takes its time, up to the match or nearly
                damaged = random.choice((0.0, 0.1)) if slowly else 0.34
                for frame in _vehicle_frames(random):
                    matcher.on_frame(_damage(random, frame) if random.random() < damaged else frame)
                    given += 1
                    assert len(matcher._sessions) <= MAX_VEHICLES
                    for session, _, _ in matcher._sessions.values():
                        assert session.frames.qsize() <= session.frames.maxsize
                    if slowly or random.random() < 0.3:
                        await asyncio.sleep(0.003 if slowly else 0)
                assert not listener.done(), listener.exception()
        finally:
            listener.cancel()
            matcher.close()
            await asyncio.sleep(0.05)  # the sessions hear that they are over
        counters = matcher.counters
        return {"frames": given, "refused": counters.frames_bad, "sessions": counters.sessions, "matches": matches}

    return asyncio.run(run())


def sdp(count: int, seed: int) -> dict[str, int]:
    """Datagrams into the responder: it answers nothing but requests, and no more than its rate."""
    from robot_charger.v2g.discovery import SDP_RATE, Discovery

    random = Random(seed)
    answers: list[bytes] = []

    class Transport:
        def sendto(self, data: bytes, address: Any) -> None:
            answers.append(data)

    async def connected(reader: Any, writer: Any) -> None:
        raise AssertionError("a datagram makes no connection")

    discovery = Discovery("lo", connected, None, False)
    discovery._address, discovery._listeners = "fe80::1", {False: (None, 50_000)}  # type: ignore[dict-item]
    discovery._transport = Transport()  # type: ignore[assignment]
    discovery.answering = True
    begun = time.monotonic()
    for _ in range(count):
        discovery.wireless = random.random() < 0.5
        wireless = random.random() < 0.5
        request = v2gtp.SdpRequest(random.random() < 0.5, wireless, random.randbytes(random.randrange(9) * wireless))
        discovery.datagram_received(_damage(random, request.encode()), ("fe80::2", 1))
    assert len(answers) <= SDP_RATE * (1.0 + time.monotonic() - begun)
    for answer in answers:
        assert v2gtp.SdpResponse.decode(answer).port == 50_000
    counters = discovery.counters
    assert counters.sdp_requests == count
    return {"datagrams": count, "refused": counters.sdp_bad, "dropped": counters.sdp_dropped, "answers": len(answers)}


class _Writer:
    """Takes what the session says, and nothing else."""

    def __init__(self) -> None:
        self.transport = self
        self.said = bytearray()

    def write(self, data: bytes) -> None:
        self.said += data

    async def drain(self) -> None:
        pass

    def abort(self) -> None:
        pass

    def get_extra_info(self, name: str) -> Any:
        return ("fe80::2", 1) if name == "peername" else None


def _stream(random: Random) -> bytes:
    """Messages of a vehicle behind V2GTP headers, damaged somewhere."""
    kinds = {"app_protocol": 0x8001, "iso15118_20_common": 0x8002, "iso15118_20_dc": 0x8004, "iso15118_20_acdp": 0x8005}
    told = b"".join(
        v2gtp.message(kinds.get(schema, random.choice([0x8001, 0x8002, 0x8103])), data)
        for data, schema, _ in (random.choice(exi_fuzz.seeds()) for _ in range(random.randrange(1, 4)))
    )
    return _damage(random, told) if random.random() < 0.7 else told


def sessions(count: int, seed: int) -> dict[str, int]:
    """Streams into sessions, most of them after a valid handshake: each ends by itself with a code."""
    from robot_charger.common.parameters import build
    from robot_charger.v2g.bridge import Bridge
    from robot_charger.v2g.parameters import V2gParameters
    from robot_charger.v2g.secc.table import Settings
    from robot_charger.v2g.session import Session
    from robot_charger.words.values import Phase

    random = Random(seed)
    hellos = [hello("din70121"), hello("iso15118-2"), hello("iso15118-20")]
    outcomes: Counter[str] = Counter()

    async def one(parameters: V2gParameters) -> None:
        bridge = Bridge()
        bridge.inform(session_stamp_ns=now_ns() + 10**12, session_id="s", phase=Phase.LINKING)
        reader = asyncio.StreamReader(limit=2 * v2gtp.MAX_PAYLOAD)
        writer = _Writer()
        settings = Settings(protocols=("iso15118-20", "iso15118-2", "din70121"), device=parameters.link == "acdp")
        session = Session((reader, writer), settings, bridge, parameters)  # type: ignore[arg-type]
        reader.feed_data(random.choice([b"", *hellos]) + _stream(random))
        reader.feed_eof()
        outcome = await asyncio.wait_for(session.run(), LONGEST_S)
        assert outcome.ended or outcome.code != Code.NONE or outcome.text, outcome
        assert outcome.code != Code.V2G_INTERNAL, outcome  # something raised that should have refused
        assert bridge.vehicle.purpose == 0
        outcomes[outcome.code.name if not outcome.ended else "ENDED"] += 1

    async def run() -> None:
        kinds = [build(V2gParameters, {"tls.required": False, "link": link}) for link in ("plc", "acdp")]
        for _ in range(count):
            await one(random.choice(kinds))

    asyncio.run(run())
    assert sum(outcomes.values()) == count
    return dict(outcomes)


def hello(protocol: str) -> bytes:
    """supportedAppProtocolReq of a vehicle that speaks ``din70121``, ``iso15118-2`` or ``iso15118-20``."""
    from robot_charger.v2g.exi import NAMESPACES, encode

    schema = {"din70121": "din70121", "iso15118-2": "iso15118_2", "iso15118-20": "iso15118_20_dc"}[protocol]
    entry = {
        "ProtocolNamespace": NAMESPACES[schema],
        "VersionNumberMajor": 1 if protocol == "iso15118-20" else 2,
        "VersionNumberMinor": 0,
        "SchemaID": 1,
        "Priority": 1,
    }
    asked = encode({"supportedAppProtocolReq": {"AppProtocol": [entry]}}, "app_protocol")
    return v2gtp.message(0x8001, asked)
