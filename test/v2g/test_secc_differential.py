"""The tables against an independent witness, the iso15118 package's SECC: the same answers to the same requests.

Both get the same bytes. Compared are the response's name and whether it says OK or FAILED, in an ordinary session and
for every request at every step of it. Where the package is known to be wrong, the case stands in ``KNOWN`` with why.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
import secc_messages as messages
from secc_desk import Desk, always, hello

package_secc = pytest.importorskip("package_secc", reason="the iso15118 package is not installed")

from robot_charger.v2g import v2gtp  # noqa: E402
from robot_charger.v2g.exi import decode  # noqa: E402

PROTOCOLS = ["din70121", "iso15118-2", "iso15118-20"]
SCHEMAS = {0x8002: "iso15118_20_common", 0x8004: "iso15118_20_dc"}
STOPPED = "PowerDeliveryReq stop"
FINISHED = "DC_PreChargeReq finished"
OPTIONAL = {("ServiceDetailReq", "din70121"), ("ServiceDetailReq", "iso15118-2")}
STEPS = {
    protocol: [
        *(
            name
            for name in messages.REQUESTS[protocol]
            if name != "SessionStopReq" and (name, protocol) not in OPTIONAL
        ),
        "SessionStopReq",
    ]
    for protocol in PROTOCOLS
}
# (protocol, after, request) -> what the package does otherwise, and why the tables are right. "*" is any step.
KNOWN = {
    ("*", "*", "SessionStopReq"): "the package takes it in few states (8.8.4.3: in every one)",
    ("*", "*", "SessionSetupReq"): "the package answers a second one in some states only",
    ("din70121", "ServiceDiscoveryReq", "ServiceDiscoveryReq"): "harmless: a vehicle may ask again",
    ("iso15118-2", "ServiceDiscoveryReq", "ServiceDiscoveryReq"): "harmless: a vehicle may ask again",
    ("iso15118-20", "*", "ServiceDiscoveryReq"): "the package takes it at any step after the authorisation",
    ("iso15118-20", "DC_PreChargeReq", "PowerDeliveryReq"): "[V2G20-2005]: the package starts while it is Ongoing",
    ("iso15118-20", "DC_CableCheckReq", "PowerDeliveryReq"): "the package starts without a precharge",
    ("iso15118-20", "DC_ChargeParameterDiscoveryReq", "DC_CableCheckReq"): "the package needs no ScheduleExchange",
    ("iso15118-20", "DC_ChargeLoopReq", "PowerDeliveryReq"): "the package takes a second Start",
    ("iso15118-2", "CurrentDemandReq", "PowerDeliveryReq"): "[V2G2-812]: the package takes a second Start",
    ("din70121", "CurrentDemandReq", "PowerDeliveryReq"): "the package takes a second start",
    ("iso15118-20", "ScheduleExchangeReq", "PowerDeliveryReq"): "the package starts without cable check and precharge",
    ("iso15118-20", "ServiceDiscoveryReq", "ServiceSelectionReq"): "harmless: a vehicle may know the details",
}


class Ours:
    """The tables behind the same call."""

    def __init__(self, protocol: str) -> None:
        self.desk = Desk(replace(always(), protocols=(protocol,)))
        self.ended = False

    @property
    def session_id(self) -> str:
        return self.desk.machine.talk.session_id

    async def answer(self, payload_type: int, payload: bytes) -> tuple[int, bytes]:
        self.desk.wait(0.1)
        reply = self.desk.send(payload, payload_type)
        self.ended = reply.end is not None
        return int.from_bytes(reply.message[2:4], "big"), reply.message[v2gtp.HEADER :]


class Theirs(package_secc.PackageSecc):
    pass


async def ask(secc: Any, protocol: str, name: str, variant: int = 0) -> tuple[str, str, str]:
    """Name, code and processing of the answer; the code is empty where there is none."""
    kind, exi = messages.message(protocol, name, messages.REQUESTS[protocol][name][variant], secc.session_id)
    try:
        kind, answer = await secc.answer(kind, exi)
    except Exception as error:  # the package's own
        return "", "", type(error).__name__
    if not answer:
        return "", "", ""
    tree = decode(answer, messages.SCHEMAS.get(protocol) or SCHEMAS[kind])
    ((said, body),) = (tree["V2G_Message"]["Body"] if "V2G_Message" in tree else tree).items()
    return said, body["ResponseCode"], str(body.get("EVSEProcessing", ""))


async def walk(secc: Any, protocol: str, last: str) -> list[tuple[str, str]]:
    """An ordinary session up to ``last``: each step until it is finished."""
    await secc.answer(v2gtp.EXI, hello(*messages.FIRST[protocol]))
    answers = []
    for name in STEPS[protocol]:
        if name in ("WeldingDetectionReq", "DC_WeldingDetectionReq"):
            answers.append((await ask(secc, protocol, "PowerDeliveryReq", 1))[:2])
            if last == STOPPED:
                break
        for _ in range(20):
            said, code, processing = await ask(secc, protocol, name)
            if not processing.startswith("Ongoing"):
                break
        if name == "DC_PreChargeReq" and last != name:
            said, code, _ = await ask(secc, protocol, name, 1)
        answers.append((said, code))
        if name == last:
            break
    return answers


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_ordinary_session(protocol: str) -> None:
    async def both() -> tuple[Any, Any]:
        return tuple([await walk(kind(protocol), protocol, "SessionStopReq") for kind in (Ours, Theirs)])  # type: ignore

    ours, theirs = asyncio.run(both())
    assert ours == theirs
    assert all(code.startswith("OK") for _, code in ours)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_request_at_every_step(protocol: str) -> None:
    async def compare(after: str, name: str) -> str:
        found = []
        for kind in (Ours, Theirs):
            secc = kind(protocol)
            await walk(secc, protocol, after)
            said, code, _ = await ask(secc, protocol, name)
            found.append((said, "OK" if code.startswith("OK") else "refused"))  # or without an answer: the package
        (said, ours), (_, theirs) = found
        assert said == name.replace("Req", "Res"), (after, name, found)
        return "" if ours == theirs or _known(protocol, after, name) else f"{name} after {after}: {ours}, not {theirs}"

    async def every() -> list[str]:
        steps = [step for step in STEPS[protocol] if step != "SessionStopReq"]
        return [text for after in steps for name in STEPS[protocol] if (text := await compare(after, name))]

    assert asyncio.run(every()) == []


def _known(protocol: str, after: str, name: str) -> bool:
    return any(key in KNOWN for key in ((protocol, after, name), ("*", "*", name), (protocol, "*", name)))
