"""What a table of requests is made of. The rules stand at the head of ``machine.py``."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from robot_charger.common.faults import Code
from robot_charger.v2g.bridge import Station
from robot_charger.words.values import Link

if TYPE_CHECKING:
    from robot_charger.v2g.secc.energy import Energy

Tree = dict[str, Any]

NO_SESSION = "00"  # SessionID of answers before SessionSetupReq
STOP = "SessionStopReq"
SETUP = "SessionSetupReq"
OK = "OK"
FAILED = "FAILED"
SEQUENCE_ERROR = "FAILED_SequenceError"
UNKNOWN_SESSION = "FAILED_UnknownSession"


@dataclass(frozen=True)
class Moment:
    """A moment on both clocks: ``ns`` of CLOCK_MONOTONIC and ``unix_s`` of the wall clock."""

    ns: int
    unix_s: float

    def after_s(self, ns: int) -> float:
        """Seconds since ``ns``."""
        return (self.ns - ns) / 1e9


@dataclass(frozen=True)
class Settings:
    """What does not change during one connection."""

    protocols: tuple[str, ...]  # offered here: din70121, iso15118-2, iso15118-20
    evse_id: str = "DE*EKX*E1"
    evse_id_din: str = "49A89A6360"  # hexadecimal digits
    pnc: bool = False  # Plug and Charge: over TLS only
    contract_installation: bool = False
    operator_root: bytes = b""  # root certificate of the mobility operators [DER]
    authorization_timeout_s: float = 150.0
    stop_grace_s: float = 10.0
    pause_after_s: float = 0.0
    receipt_s: float = 60.0
    bidirectional: bool = True
    device: bool = False  # an automated connection device (ACDP) stands here
    publish_identity: bool = False
    joins: str = ""  # SessionID of a paused session that this vehicle may join again
    loop_timeout_s: float = 5.0  # silence in the charge loop of DIN 70121 and ISO 15118-2
    loop_timeout_20_s: float = 0.5  # the same of ISO 15118-20
    random: Callable[[int], bytes] = secrets.token_bytes


@dataclass(frozen=True)
class End:
    """How the session ended: ``code`` is NONE when it ended in order or by the station's wish."""

    code: Code
    text: str
    in_order: bool = False
    paused: bool = False


@dataclass(frozen=True)
class Ask:
    """The vehicle asks the back end for a contract certificate: ``request`` is its message [EXI]."""

    update: bool
    request: bytes


@dataclass(frozen=True)
class Said:
    """A message for the record."""

    name: str
    tree: Tree


@dataclass
class Reply:
    """What comes of one message. ``message`` is empty while the answer ``waits``."""

    request: str
    message: bytes = b""
    waits: bool = False
    changes: dict[str, Any] = field(default_factory=dict)  # of bridge.Vehicle
    notes: list[str] = field(default_factory=list)  # what was odd about the request
    fault: str = ""  # the field that was refused, and why
    bad: bool = False  # the vehicle broke the protocol
    end: End | None = None
    ask: Ask | None = None
    heard: Said | None = None
    said: Said | None = None


class Refused(Exception):
    """The request is refused: ``code`` is the response code, ``fault`` the fault, ``text`` what an operator reads.

    ``bad``: the vehicle broke the protocol. ``keep``: fields of the response beside the code. ``exi``: the whole
    response as the back end made it.
    """

    def __init__(
        self, code: str, fault: Code, text: str, bad: bool = False, keep: Tree | None = None, exi: bytes = b""
    ) -> None:
        super().__init__(text)
        self.code = code
        self.fault = fault
        self.bad = bad
        self.keep = keep or {}
        self.exi = exi


@dataclass(frozen=True)
class Answer:
    """The fields of a response but its code, and the outcome that decides what may follow."""

    fields: Tree
    outcome: str = ""
    code: str = OK
    end: End | None = None
    exi: bytes = b""  # the whole response as the back end made it


@dataclass(frozen=True)
class Wait:
    """The answer waits until ``ready`` or ``until_ns``; then ``answer`` gives it."""

    ready: Callable[[Talk], bool]
    until_ns: int
    answer: Callable[[Talk], Answer]
    ask: Ask | None = None


Handler = Callable[["Talk", Tree], "Answer | Wait"]


@dataclass(frozen=True)
class Row:
    """One request of a protocol: ``follow`` maps each outcome to the requests that may come next."""

    answer: Handler
    follow: Mapping[str, frozenset[str]]
    clause: str


def row(answer: Handler, clause: str, follow: str = "", **outcomes: str) -> Row:
    """``follow`` is what may follow the only outcome; ``outcomes`` the same for each of several."""
    named = {name: frozenset(words.split()) for name, words in (outcomes or {"": follow}).items()}
    return Row(answer, named, clause)


@dataclass(frozen=True)
class Heard:
    """A decoded request."""

    name: str
    session_id: str
    header: Tree
    body: Tree
    tree: Tree
    exi: bytes


@dataclass(frozen=True)
class Dialect:
    """A protocol: its table, and how its messages are packed."""

    name: str
    rows: Mapping[str, Row]
    first: frozenset[str]
    least: Callable[[str, Talk], Tree | None]  # the least fields of a response, without its code; None: no such one
    unpack: Callable[[int, bytes], Heard]  # raises ExiError
    pack: Callable[[str, Tree, Talk], tuple[int, str, Tree]]  # payload type, schema, tree
    beside: frozenset[str] = frozenset()  # requests that may come at any time and change nothing

    def due(self, expected: Iterable[str], last: str) -> str:
        """The request that most likely was meant: the last one again, or the first of the table that may come."""
        allowed = [name for name in self.rows if name in set(expected)]
        return last if last in allowed else (allowed or list(self.rows))[0]

    def before(self, request: str) -> list[str]:
        """The requests after which ``request`` may come."""
        return [name for name, entry in self.rows.items() if any(request in after for after in entry.follow.values())]


class Talk:
    """What the functions of a table see and keep of one session."""

    def __init__(self, settings: Settings, energy: Energy) -> None:
        self.settings = settings
        self.station = Station()
        self.now = Moment(0, 0.0)
        self.session_id = settings.joins or NO_SESSION
        self.phase: int = Link.LINKED
        self.begun = False
        self.energy = energy
        self.heard: Heard | None = None
        self.vehicle_fault = ""  # an error that the vehicle reported
        self.authorization_since_ns: int | None = None
        self.authorized = False
        self.facts: dict[str, Any] = {}  # of one protocol
        self.changes: dict[str, Any] = {}
        self.notes: list[str] = []
        self.answered: tuple[bytes, str] | None = None  # the back end's answer, and why there is none

    def say(self, **changes: Any) -> None:
        """Change what the station knows of the vehicle (fields of bridge.Vehicle)."""
        self.changes |= changes
        self.phase = changes.get("phase", self.phase)

    def note(self, text: str) -> None:
        """Something odd that does no harm. It goes to the record."""
        self.notes.append(text)

    @property
    def stopping(self) -> bool:
        return self.station.stopping_at(self.now.ns)
