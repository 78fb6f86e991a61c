"""One vehicle's session as a machine: a message, the station's snapshot and the time go in; a reply comes out.

The rules:

1. No clock, no socket, no ROS and no file here. ``Machine.take`` gets the payload of one V2GTP message, the station's
   snapshot and a :class:`Moment`. It returns a :class:`Reply`: the bytes to send, what changes for the station, and
   whether the session ends. A session is a list of such calls, so a test of one takes milliseconds.
2. Each protocol is a table (``din.py``, ``iso2.py``, ``iso20.py``, ``acdp.py``): one :class:`Row` for each request. A
   row names the function that answers and, for each outcome of it, the requests that may follow. The machine keeps only
   the set of requests that may come next. A request outside of it gets FAILED_SequenceError, and the session ends.
3. Every payload gets exactly one answer, or a reply that ``waits``. A waiting reply has no bytes: the answer depends on
   the station (contactors, the back end). ``Machine.poll`` gives it as soon as it is known, at the latest after the
   time that the row allows.
4. A function that answers returns :class:`Answer`, or raises :class:`Refused` with the response code. The machine then
   sends the least response that the schema allows, with that code, and the session ends ([V2G2-539]).
5. A payload that cannot be decoded is answered too: with FAILED, in the response to the request that it began, or else
   to the one that was due. The reply names the field.
6. What may be asked of the supply is decided in ``energy.py`` alone: an insulation test, then a precharge, then the
   transfer. A row cannot ask for energy in another way.
7. ``requests.py`` turns the values of a request into SI units. It accepts odd values where they only inform, and notes
   them; it refuses them in set-points and limits. ``answers.py`` turns the station's snapshot into response fields.
8. SessionStopReq is allowed at any time after SessionSetupReq (ISO 15118-2, 8.8.4.3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from robot_charger.common.faults import Code
from robot_charger.v2g import v2gtp
from robot_charger.v2g.bridge import Station
from robot_charger.v2g.exi import ExiError, decode, encode
from robot_charger.v2g.secc.energy import Energy
from robot_charger.v2g.secc.table import (
    FAILED,
    SEQUENCE_ERROR,
    SETUP,
    STOP,
    UNKNOWN_SESSION,
    Answer,
    Dialect,
    End,
    Heard,
    Moment,
    Refused,
    Reply,
    Said,
    Settings,
    Talk,
    Tree,
    Wait,
)
from robot_charger.words.values import Link

SEQUENCE_TIMEOUT_S = 60.0  # V2G_SECC_Sequence_Timeout
SETUP_TIMEOUT_S = 18.0  # V2G_SECC_CommunicationSetup_Performance_Time
HANDSHAKE = "supportedAppProtocolReq"
NO_NEGOTIATION = "Failed_NoNegotiation"


class Machine:
    """One connection: ``take`` each message, ``poll`` while a reply waits, ``closed`` when the vehicle hangs up."""

    def __init__(self, settings: Settings, dialects: Mapping[str, Dialect], offers: Callable[[str, int], str]) -> None:
        """``dialects`` by protocol; ``offers(namespace, major)`` gives a protocol's name, empty for none of ours."""
        self.talk = Talk(settings, Energy())
        self.dialect: Dialect | None = None
        self.expected: frozenset[str] = frozenset({HANDSHAKE})
        self.request = ""
        self.ended: End | None = None
        self._dialects = dialects
        self._offers = offers
        self._wait: Wait | None = None

    @property
    def protocol(self) -> str:
        return self.dialect.name if self.dialect else ""

    @property
    def waits(self) -> bool:
        return self._wait is not None

    @property
    def timeout_s(self) -> float:
        """The longest wait for the next request."""
        if not self.talk.begun:
            return SETUP_TIMEOUT_S
        settings = self.talk.settings
        if self.protocol == "iso15118-20" and self.request == "DC_ChargeLoopReq":
            return settings.loop_timeout_20_s
        return settings.loop_timeout_s if self.talk.phase == Link.CHARGING else SEQUENCE_TIMEOUT_S

    def take(self, payload_type: int, payload: bytes, station: Station, now: Moment) -> Reply:
        """Answer one message. Never raises for what the vehicle sent."""
        talk = self._begin(station, now)
        self._wait = None
        if self.dialect is None:
            return self._negotiate(payload)
        try:
            heard = self.dialect.unpack(payload_type, payload)
        except ExiError as error:
            return self._undecodable(error)
        talk.heard = heard
        if heard.name not in self.dialect.beside:
            self.request = heard.name
        return self._finish(lambda: self._answer(heard))

    def poll(self, station: Station, now: Moment) -> Reply:
        """The answer that waited, or a reply that still waits."""
        talk = self._begin(station, now)
        wait = self._wait
        assert wait is not None and talk.heard is not None, "nothing waits"
        if not wait.ready(talk) and now.ns < wait.until_ns:
            return Reply(talk.heard.name, waits=True)
        self._wait = None
        return self._finish(lambda: wait.answer(talk), again=True)

    def contract(self, answer: bytes, text: str) -> None:
        """The back end's answer to an :class:`Ask` [EXI], or nothing and why. The next ``poll`` uses it."""
        self.talk.answered = (answer, text)

    def closed(self) -> End:
        """The vehicle closed the connection."""
        if self.ended:
            return self.ended
        if self.talk.energy.stopped:
            return End(Code.NONE, "the vehicle stopped charging and closed the connection", in_order=True)
        return self._named(End(Code.LINK_LOST, "the vehicle closed the connection without SessionStopReq"))

    def cut(self, code: Code, text: str) -> End:
        """The station ends the session without an answer: silence, lost framing, a vehicle that does not stop."""
        self._wait, self.talk.changes = None, {}
        self.talk.energy.off(self.talk)
        self.ended = self._named(End(code, text))
        return self.ended

    def failed(self, code: Code, text: str) -> Reply:
        """Answering raised: the vehicle still gets FAILED, and the session ends."""
        self._wait = None
        heard = self.talk.heard
        return self._refuse(heard.name if heard else self.request, FAILED, End(code, text))

    # One request.
    def _begin(self, station: Station, now: Moment) -> Talk:
        talk = self.talk
        talk.station, talk.now = station, now
        talk.changes, talk.notes = {}, []
        return talk

    def _answer(self, heard: Heard) -> Answer | Wait:
        assert self.dialect is not None
        talk, entry = self.talk, self.dialect.rows.get(heard.name)
        if entry is None:
            what = "which only a station sends" if heard.name.endswith("Res") else "which is not used here"
            raise Refused(SEQUENCE_ERROR, Code.V2G_SEQUENCE, f"the vehicle sent {heard.name}, {what}", bad=True)
        if heard.name != SETUP and talk.begun and heard.session_id != talk.session_id:
            raise Refused(UNKNOWN_SESSION, Code.V2G_SEQUENCE, f"{heard.name} has another SessionID", bad=True)
        anywhere = heard.name == STOP or heard.name in self.dialect.beside
        if heard.name not in self.expected and not (anywhere and talk.begun):
            awaited = " or ".join(sorted(self.expected))
            text = f"{heard.name} was not expected: {awaited} may come here"
            raise Refused(SEQUENCE_ERROR, Code.V2G_SEQUENCE, text, bad=True)
        return entry.answer(talk, heard.body)

    def _finish(self, act: Callable[[], Answer | Wait], again: bool = False) -> Reply:
        talk = self.talk
        assert self.dialect is not None and talk.heard is not None
        name = talk.heard.name
        heard = None if again else Said(name, talk.heard.tree)
        try:
            answer = act()
            if isinstance(answer, Wait) and answer.ready(talk):
                answer = answer.answer(talk)
        except Refused as refused:
            end = End(refused.fault, str(refused))
            reply = self._refuse(name, refused.code, end, refused.keep, refused.exi)
            reply.heard, reply.bad, reply.fault = heard, refused.bad, str(refused)
            return reply
        if isinstance(answer, Wait):
            self._wait = answer
            return Reply(name, waits=True, changes=talk.changes, notes=talk.notes, ask=answer.ask, heard=heard)
        reply = self._send(name, {"ResponseCode": answer.code, **answer.fields}, answer.exi)
        reply.heard = heard
        if name not in self.dialect.beside:
            self.expected = self.dialect.rows[name].follow[answer.outcome]
        if answer.end is not None:
            reply.end = self.ended = answer.end if answer.end.in_order else self._named(answer.end)
            talk.energy.off(talk)
        return reply

    def _refuse(self, request: str, code: str, end: End, keep: Tree | None = None, exi: bytes = b"") -> Reply:
        """The least response with a FAILED code, and the end of the session."""
        self.talk.energy.off(self.talk)
        self.ended = self._named(end)
        if self.dialect is None:
            reply = self._send_handshake({"ResponseCode": NO_NEGOTIATION}, request)
        else:
            fields = self.dialect.least(request, self.talk)
            if fields is None:
                request = self.dialect.due(self.expected, self.request)
                fields = self.dialect.least(request, self.talk) or {}
            reply = self._send(request, {"ResponseCode": code, **fields, **(keep or {})}, exi)
        reply.end = self.ended
        return reply

    def _named(self, end: End) -> End:
        """A session that failed after the vehicle reported an error failed by that error."""
        if not self.talk.vehicle_fault or end.code in (Code.NONE, Code.V2G_VEHICLE_ERROR):
            return end
        return End(Code.V2G_VEHICLE_ERROR, f"{self.talk.vehicle_fault}; then: {end.text}")

    def _send(self, request: str, fields: Tree, exi: bytes = b"") -> Reply:
        assert self.dialect is not None
        talk = self.talk
        name = request[: -len("Req")] + "Res"
        payload_type, schema, tree = self.dialect.pack(name, fields, talk)
        if exi:
            tree = decode(exi, schema)
        message = v2gtp.message(payload_type, exi or encode(tree, schema))
        return Reply(request, message, changes=talk.changes, notes=talk.notes, said=Said(name, tree))

    def _undecodable(self, error: ExiError) -> Reply:
        assert self.dialect is not None
        parts = error.path.split("/")
        began = next((part for part in parts if part in self.dialect.rows), "")
        where = "/".join(parts[parts.index(began) :]) if began else error.path
        what = f"{where or 'a message'} could not be decoded: {error.reason}"
        self.request = began or self.dialect.due(self.expected, self.request)
        reply = self._refuse(self.request, FAILED, End(Code.V2G_DECODE, what))
        reply.request, reply.bad, reply.fault = began, True, what
        return reply

    # Before a protocol is agreed (ISO 15118-2, 8.2).
    def _negotiate(self, payload: bytes) -> Reply:
        self.request = HANDSHAKE
        try:
            tree = decode(payload, "app_protocol")
        except ExiError as error:
            text = f"{error.path or 'the first message'} could not be decoded: {error.reason}"
            reply = self._refuse(HANDSHAKE, NO_NEGOTIATION, End(Code.V2G_DECODE, text))
            reply.bad, reply.fault = True, text
            return reply
        if HANDSHAKE not in tree:
            text = "the vehicle sent supportedAppProtocolRes, which only a station sends"
            reply = self._refuse(HANDSHAKE, NO_NEGOTIATION, End(Code.V2G_SEQUENCE, text))
        else:
            reply = self._choose(tree[HANDSHAKE]["AppProtocol"])
        reply.heard = Said(next(iter(tree)), tree)
        return reply

    def _choose(self, offered: list[Tree]) -> Reply:
        """The vehicle's own order counts: priority 1 is its first choice ([V2G2-169])."""
        for entry in sorted(offered, key=lambda entry: int(entry["Priority"])):
            name = self._offers(entry["ProtocolNamespace"], entry["VersionNumberMajor"])
            if name in self.talk.settings.protocols:
                self.dialect = self._dialects[name]
                self.expected = self.dialect.first
                exact = entry["VersionNumberMinor"] == 0
                code = "OK_SuccessfulNegotiation" if exact else "OK_SuccessfulNegotiationWithMinorDeviation"
                return self._send_handshake({"ResponseCode": code, "SchemaID": entry["SchemaID"]})
        end = End(Code.V2G_SEQUENCE, f"{HANDSHAKE} was refused: {NO_NEGOTIATION}")
        return self._refuse(HANDSHAKE, NO_NEGOTIATION, end)

    def _send_handshake(self, fields: Tree, request: str = HANDSHAKE) -> Reply:
        tree = {"supportedAppProtocolRes": fields}
        message = v2gtp.message(v2gtp.EXI, encode(tree, "app_protocol"))
        talk = self.talk
        return Reply(
            request, message, changes=talk.changes, notes=talk.notes, said=Said("supportedAppProtocolRes", tree)
        )
