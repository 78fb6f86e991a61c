"""The tables explored exhaustively: every request in every reachable state, under every snapshot that matters.

In each state each request gets exactly one answer, which its schema can decode; energy is never asked for before the
cable check and a finished precharge; a refusal ends the session and leaves nothing asked for.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import secc_messages as messages
from secc_desk import BEGIN, SUPPLY, always, code, fields, hello

from robot_charger.common.faults import Code
from robot_charger.v2g.bridge import Station
from robot_charger.v2g.exi import decode
from robot_charger.v2g.exi.codec import grammar
from robot_charger.v2g.secc import protocols
from robot_charger.v2g.secc.machine import Machine
from robot_charger.v2g.secc.table import End, Moment, Reply
from robot_charger.words.values import Authorization, Insulation, Link, Purpose

LATER = Moment(BEGIN.ns + 60 * 10**9, BEGIN.unix_s + 60)
SESSION = "0102030405060708"


@dataclass
class Ghost:
    """What the answers said so far, kept beside the machine's own books."""

    authorized: bool = False
    insulated: bool = False
    precharged: bool = False


@dataclass
class State:
    machine: Machine
    ghost: Ghost
    path: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[Any, ...]:
        machine, energy = self.machine, self.machine.talk.energy
        facts = sorted(
            (name, str(value)) for name, value in machine.talk.facts.items() if isinstance(value, bool | str)
        )
        return (
            machine.expected,
            machine.ended is not None,
            machine.talk.phase,
            energy.purpose,
            energy.testing,
            energy.passed,
            energy.stopped,
            energy.transferred,
            energy.max_voltage_v > 0.0,
            energy.starved_since_ns is not None,
            tuple(vars(self.ghost).items()),
            tuple(facts),
        )

    def clone(self) -> State:
        machine = copy.copy(self.machine)
        machine.talk = copy.copy(machine.talk)
        machine.talk.energy = copy.copy(machine.talk.energy)
        machine.talk.facts = copy.deepcopy(machine.talk.facts)
        return State(machine, replace(self.ghost), self.path)


def snapshots(machine: Machine) -> list[tuple[str, Station]]:
    """The station as the answers may find it."""
    energy, permit = machine.talk.energy, machine.talk.station.permit_number
    base = replace(SUPPLY, session_stamp_ns=BEGIN.ns, inlet_stamp_ns=BEGIN.ns, permit_number=permit + 1)
    good = replace(
        base,
        insulation=Insulation.VALID,
        insulation_permit_number=permit + 2,
        voltage_v=energy.voltage_v,
        contactors_closed=energy.purpose in (Purpose.PRECHARGE, Purpose.TRANSFER),
        max_export_current_a=50.0,
        max_export_power_w=20_000.0,
        arm="EndPosition",
        mated=True,
    )
    return [
        ("good", good),
        ("open", replace(good, contactors_closed=False)),
        ("closed", replace(good, contactors_closed=True)),
        ("pending", replace(good, authorization=Authorization.PENDING)),
        ("refused", replace(good, authorization=Authorization.REFUSED)),
        ("untested", replace(good, insulation=Insulation.TESTING)),
        ("insulation fault", replace(good, insulation=Insulation.FAULT)),
        ("self-test failed", replace(good, insulation=Insulation.SELF_TEST_FAILED)),
        ("no voltage", replace(good, voltage_v=0.0)),
        ("no supply", replace(good, supply_available=False)),
        ("stopping", replace(good, stop_requested=True)),
        ("no power", replace(good, backend_max_power_w=0.0)),
        ("arm at home", replace(good, arm="Home", mated=False)),
    ]


def begin(protocol: str) -> State:
    device = protocol == "acdp"
    settings = replace(always(), protocols=("iso15118-20" if device else protocol,), device=device)
    machine = protocols.machine(settings)
    station = replace(SUPPLY, session_stamp_ns=BEGIN.ns)
    reply = machine.take(0x8001, hello(*messages.FIRST[protocol]), station, BEGIN)
    assert code(reply) == "OK_SuccessfulNegotiation"
    return State(machine, Ghost())


def answer(state: State, protocol: str, name: str, body: Any, station: Station) -> Reply:
    """The one answer, after a wait if need be: it comes when the station is ready or the time is over."""
    machine = state.machine
    payload_type, exi = messages.message(protocol, name, body, machine.talk.session_id)
    reply = machine.take(payload_type, exi, station, BEGIN)
    if reply.waits:
        assert not reply.message and machine.waits
        reply = machine.poll(replace(station, session_stamp_ns=LATER.ns, inlet_stamp_ns=LATER.ns), LATER)
    assert reply.message and not reply.waits and not machine.waits, (state.path, name)
    return reply


def check(state: State, reply: Reply, name: str) -> None:
    machine, energy, ghost, path = state.machine, state.machine.talk.energy, state.ghost, state.path
    said, body = code(reply), fields(reply)
    assert reply.said is not None and reply.said.name == name.replace("Req", "Res"), path
    assert decode(reply.message[8:], machine.dialect.pack(reply.said.name, {}, machine.talk)[1])  # type: ignore
    if said.startswith("FAILED"):
        assert reply.end is not None and machine.ended is not None and reply.end.text, path
        assert energy.purpose == Purpose.NONE, path
    note(ghost, name, said, body, machine)
    if energy.purpose in (Purpose.INSULATION_TEST, Purpose.PRECHARGE, Purpose.TRANSFER):
        assert ghost.authorized, path
    if energy.purpose in (Purpose.PRECHARGE, Purpose.TRANSFER):
        assert ghost.insulated, path
    if energy.purpose == Purpose.TRANSFER:
        assert ghost.precharged, path
    if reply.end is None:
        assert machine.expected <= set(machine.dialect.rows), path  # type: ignore[union-attr]
        assert machine.expected, path


def note(ghost: Ghost, name: str, said: str, body: Any, machine: Machine) -> None:
    finished = said.startswith("OK") and body.get("EVSEProcessing", "Finished") == "Finished"
    if name in ("AuthorizationReq", "ContractAuthenticationReq"):
        ghost.authorized = finished
    elif name in ("CableCheckReq", "DC_CableCheckReq"):
        ghost.insulated, ghost.precharged = finished, False
    elif name in ("PreChargeReq", "DC_PreChargeReq"):
        ghost.precharged = True  # the voltage itself is a test of its own
    elif machine.talk.phase == Link.PARAMETERS:
        ghost.insulated = ghost.precharged = False


def explore(protocol: str) -> dict[tuple[Any, ...], State]:
    first = begin(protocol)
    found = {first.key: first}
    todo = [first]
    while todo:
        state = todo.pop()
        for name, bodies in messages.REQUESTS[protocol].items():
            for body in bodies:
                for label, station in snapshots(state.machine):
                    after = state.clone()
                    after.path = (*state.path, f"{name} ({label})")
                    check(after, answer(after, protocol, name, body, station), name)
                    if after.machine.ended is None and after.key not in found:
                        found[after.key] = after
                        todo.append(after)
    return found


@pytest.mark.parametrize("protocol", list(messages.REQUESTS))
def test_every_request_in_every_state(protocol: str) -> None:
    found = explore(protocol)
    reached = {name for state in found.values() for name in state.machine.expected}
    served = set(messages.REQUESTS[protocol])
    anywhere = {"SessionStopReq", "ACDP_SystemStatusReq"}
    assert served <= reached | anywhere, served - reached  # nothing in the table is out of reach
    purposes = {state.machine.talk.energy.purpose for state in found.values()}
    assert purposes == {Purpose.NONE, Purpose.INSULATION_TEST, Purpose.PRECHARGE, Purpose.TRANSFER}


@pytest.mark.parametrize("protocol", list(messages.REQUESTS))
def test_what_may_follow_is_in_the_table(protocol: str) -> None:
    dialect = begin(protocol).machine.dialect
    assert dialect is not None
    for name, entry in dialect.rows.items():
        for outcome, after in entry.follow.items():
            assert after <= set(dialect.rows), (name, outcome)
        assert entry.clause
    assert all(
        dialect.before(name) for name in dialect.rows if name not in dialect.first | dialect.beside | {"SessionStopReq"}
    )


def requests_of(schema: str) -> list[str]:
    """Every request of a schema set whose response it has too."""
    names = set(grammar(schema).fragment.writes)
    return sorted(name for name in names if name.endswith("Req") and name.replace("Req", "Res") in names)


FAMILIES = {
    "din70121": ["din70121"],
    "iso15118-2": ["iso15118_2"],
    "iso15118-20": ["iso15118_20_common", "iso15118_20_dc"],
    "acdp": ["iso15118_20_common", "iso15118_20_dc", "iso15118_20_acdp"],
}


@pytest.mark.parametrize("said", ["FAILED", "FAILED_SequenceError", "FAILED_UnknownSession"])
@pytest.mark.parametrize("protocol", list(FAMILIES))
def test_every_refusal_can_be_encoded(protocol: str, said: str) -> None:
    state = begin(protocol)
    dialect = state.machine.dialect
    assert dialect is not None
    names = {name for schema in FAMILIES[protocol] for name in requests_of(schema)}
    assert set(dialect.rows) <= names
    for name in names:
        least = dialect.least(name, state.machine.talk)
        assert least is not None or name not in dialect.rows, name
        machine = state.clone().machine
        reply = machine._refuse(name, said, End(Code.V2G_SEQUENCE, "of the test"))
        assert code(reply) == said and reply.said is not None
        decode(reply.message[8:], dialect.pack(reply.said.name, {}, machine.talk)[1])
        if least is not None:
            assert reply.said.name == name.replace("Req", "Res")


def test_the_page_shows_the_tables() -> None:
    page = Path(__file__).parents[2] / "docs" / "ccs-tables.md"
    assert page.read_text() == protocols.page()  # python -m robot_charger.v2g.secc.protocols > docs/ccs-tables.md
