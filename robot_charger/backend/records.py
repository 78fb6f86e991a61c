"""The words in which the back end thinks, whatever the OCPP version: sessions, readings, tokens, records."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from robot_charger.words.values import Authorization, Phase, Request


@dataclass(frozen=True)
class Now:
    """One moment on both clocks: CLOCK_MONOTONIC for durations, UTC for the books."""

    mono_ns: int
    wall: datetime

    @property
    def iso(self) -> str:
        return iso(self.wall)

    def since(self, stamp_ns: int) -> float:
        """Seconds since a monotonic stamp."""
        return (self.mono_ns - stamp_ns) / 1e9


def iso(moment: datetime) -> str:
    """RFC 3339 in UTC with milliseconds, as OCPP wants it."""
    return moment.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


_FRACTION = re.compile(r"\.(\d+)")


def parse_time(text: str) -> datetime:
    """A moment from RFC 3339; without a zone it is UTC. Raises ValueError."""
    plain = text.strip().upper().replace("Z", "+00:00")
    plain = _FRACTION.sub(lambda m: "." + m[1][:6].ljust(6, "0"), plain, count=1)  # Python 3.10 takes 3 or 6 digits
    moment = datetime.fromisoformat(plain)
    if moment.year < 1900 or moment.year > 9000:  # no room for a time zone or a duration
        raise ValueError(f"the year of {text} cannot be meant")
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


@dataclass(frozen=True)
class Token:
    """An identification: RFID card, contract (eMAID), MAC address of Autocharge, a key of the CSMS."""

    id: str
    type: str = "ISO14443"  # OCPP 2.x IdTokenEnumType

    @property
    def key(self) -> str:
        return self.id.casefold()  # OCPP: tokens compare without case


START_BUTTON = Token("start-button", "NoAuthorization")  # who pressed it is not known


@dataclass(frozen=True)
class Reading:
    """Registers of an EVSE's meter; positive current flows into the vehicle."""

    time: str
    stamp_ns: int
    import_wh: float
    export_wh: float = 0.0
    voltage_v: float = 0.0
    current_a: float = 0.0
    power_w: float = 0.0
    soc: float | None = None
    context: str = "Sample.Periodic"  # OCPP ReadingContextEnumType
    signed_data: str = ""
    valid: bool = True


@dataclass(frozen=True)
class SessionView:
    """What the back end needs of session/state."""

    evse: int
    session_id: str = ""
    phase: Phase = Phase.IDLE
    phase_stamp_ns: int = 0
    authorization: Authorization = Authorization.NONE
    output_on: bool = False
    mated: bool = False
    stop_reason: str = ""
    stop_requested: bool = False
    fault: int = 0
    emergency_latched: bool = False
    text: str = ""
    retrying: bool = False  # unplugged only to be plugged in again


@dataclass(frozen=True)
class TransactionLimit:
    """What a transaction may reach (OCPP 2.1 E16); None: no limit of that kind."""

    energy_wh: float | None = None
    seconds: float | None = None
    soc: float | None = None  # [%]
    cost: float | None = None


@dataclass(frozen=True)
class Record:
    """One event of a transaction, as it lies in the durable queue. ``seq_no`` lives in its own column."""

    event: str  # Started, Updated, Ended
    transaction_id: str
    session_id: str
    evse: int
    seq_no: int
    time: str
    trigger: str  # OCPP 2.x TriggerReasonEnumType
    charging_state: str = ""
    offline: bool = False
    token: Token | None = None
    group_id: str = ""
    remote_start_id: int | None = None
    reservation_id: int | None = None
    stopped_reason: str = ""
    readings: tuple[Reading, ...] = ()
    seconds_charging: int = 0
    limit: TransactionLimit | None = None  # where it is new

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> Record:
        values = json.loads(text)
        values["token"] = Token(**values["token"]) if values["token"] else None
        values["limit"] = TransactionLimit(**values["limit"]) if values.get("limit") else None
        values["readings"] = tuple(Reading(**r) for r in values["readings"])
        return Record(**values)


@dataclass
class OpenTransaction:
    """A transaction without an end yet, as it lies in the store to be found after a crash."""

    transaction_id: str
    session_id: str
    evse: int
    started: str
    next_seq: int = 0
    token: Token | None = None
    group_id: str = ""
    remote_start_id: int | None = None
    reservation_id: int | None = None
    charging_state: str = ""
    begin: Reading | None = None
    last: Reading | None = None
    boot_id: str = ""
    stop_asked: str = ""  # OCPP reason when the back end itself asked for the stop
    stop_token: Token | None = None  # the card that ends it, where it is another than began it
    seconds_charging: float = 0.0
    started_ns: int = 0  # CLOCK_MONOTONIC, which outlives the process [ns]
    limit: TransactionLimit | None = None
    cost: float | None = None  # so far, as the CSMS told it
    suspended: bool = False  # its token was taken back
    series: list[Reading] = field(default_factory=list)  # what only the end tells

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> OpenTransaction:
        values = json.loads(text)
        for name in ("token", "stop_token"):
            values[name] = Token(**values[name]) if values.get(name) else None
        for name in ("begin", "last"):
            values[name] = Reading(**values[name]) if values[name] else None
        values["limit"] = TransactionLimit(**values["limit"]) if values.get("limit") else None
        values["series"] = [Reading(**r) for r in values.get("series", [])]
        return OpenTransaction(**values)


@dataclass(frozen=True)
class TokenInfo:
    """What the CSMS says of a token."""

    status: str  # OCPP 2.x AuthorizationStatusEnumType
    group_id: str = ""
    expires: str = ""  # RFC 3339, empty = by the cache's life time
    evses: tuple[int, ...] = ()

    @property
    def accepted(self) -> bool:
        return self.status == "Accepted"


@dataclass(frozen=True)
class Outcome:
    """What the CSMS answered to a delivered record."""

    token: TokenInfo | None = None
    transaction_number: int | None = None  # OCPP 1.6 numbers transactions itself
    total_cost: float | None = None
    message: str = ""
    limit: TransactionLimit | None = None


@dataclass(frozen=True)
class ToVehicleSide:
    """A request for one EVSE, to be published on backend/request."""

    evse: int
    kind: Request
    session_id: str = ""
    token: Token | None = None
    authorized: bool = False
    text: str = ""


@dataclass(frozen=True)
class Limit:
    """What one EVSE may draw now, for backend/limit."""

    max_current_a: float = float("inf")
    max_power_w: float = float("inf")
    min_power_w: float = 0.0
    source: str = ""


@dataclass(frozen=True)
class Identity:
    """What BootNotification says of this station."""

    station_id: str
    vendor: str
    model: str
    serial: str
    firmware: str
    connectors: tuple[str, ...] = field(default=("cCCS2",))


Payload = dict[str, Any]
Call = tuple[str, Payload]  # action, payload in OCPP's own spelling
