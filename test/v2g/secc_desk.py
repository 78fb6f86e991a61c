"""The tables of the charging side with a supply that follows: no clock, socket or ROS; a session in milliseconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from robot_charger.v2g import v2gtp
from robot_charger.v2g.bridge import Station, Vehicle
from robot_charger.v2g.exi import decode, encode
from robot_charger.v2g.secc import protocols
from robot_charger.v2g.secc.machine import Machine
from robot_charger.v2g.secc.table import Moment, Reply, Settings
from robot_charger.words.values import Authorization, Insulation, Phase, Purpose

STEP_NS = 10_000_000
BEGIN = Moment(1_000_000_000_000, 1_700_000_000.0)
PATIENCE_S = 30.0
SUPPLY = Station(
    session_id="s",
    phase=Phase.LINKING,
    authorization=Authorization.ACCEPTED,
    supply_available=True,
    max_voltage_v=1000.0,
    min_voltage_v=150.0,
    max_current_a=500.0,
    max_power_w=400_000.0,
    meter_valid=True,
    meter_serial="M1",
    meter_import_wh=1000.0,
)


def always() -> Settings:
    """Settings of a connection on which all protocols are spoken, with session ids that tests can foresee."""
    return Settings(
        protocols=("iso15118-20", "iso15118-2", "din70121"), random=lambda count: bytes(range(1, count + 1))
    )


@dataclass
class Supply:
    """Follows the demand at once, but for the insulation test, which takes ``test_s``."""

    station: Station = SUPPLY
    test_s: float = 0.5
    insulation: int = Insulation.VALID
    contactor: bool = True  # of the vehicle: it takes the current that it asks for
    welded: bool = False
    purpose: int = Purpose.NONE
    _tested_at_ns: int = 0

    def follow(self, demand: Any, now: Moment) -> Station:
        """The snapshot after the supply has seen ``demand`` (purpose, voltage_v, current_a)."""
        changes: dict[str, Any] = {"session_stamp_ns": now.ns, "inlet_stamp_ns": now.ns}
        if demand.purpose != self.purpose:
            self.purpose = demand.purpose
            changes["permit_number"] = self.station.permit_number + 1
            self._tested_at_ns = now.ns + round(self.test_s * 1e9) if self.purpose == Purpose.INSULATION_TEST else 0
        if self._tested_at_ns and now.ns >= self._tested_at_ns:
            self._tested_at_ns = 0
            changes |= {"insulation": self.insulation, "insulation_permit_number": self.station.permit_number}
        live = self.purpose in (Purpose.PRECHARGE, Purpose.TRANSFER)
        flows = self.purpose == Purpose.TRANSFER and self.contactor
        changes |= {
            "permit_purpose": self.purpose,
            "permit_max_voltage_v": self.station.max_voltage_v,
            "permit_max_current_a": self.station.max_current_a,
            "permit_max_power_w": self.station.max_power_w,
            "permit_min_current_a": -self.station.max_export_current_a,
            "permit_min_power_w": -self.station.max_export_power_w,
            "contactors_closed": live or self.welded,
            "voltage_v": demand.voltage_v if live else 0.0,
            "current_a": demand.current_a if flows else 0.0,
        }
        self.station = replace(self.station, **changes)
        return self.station


@dataclass
class Desk:
    """A machine at its supply. ``send`` gives the reply once it no longer waits."""

    settings: Settings = field(default_factory=always)
    supply: Supply = field(default_factory=Supply)
    now: Moment = BEGIN
    back_end: Callable[[bool, bytes], tuple[bytes, str]] = lambda update, request: (b"", "no back end")
    replies: list[Reply] = field(default_factory=list)
    purposes: list[tuple[str, int]] = field(default_factory=list)  # with the request, as they changed

    def __post_init__(self) -> None:
        self.machine: Machine = protocols.machine(self.settings)
        self.vehicle = Vehicle()

    @property
    def station(self) -> Station:
        return self.supply.follow(self.machine.talk.energy, self.now)

    def wait(self, seconds: float) -> None:
        """Time goes by; the supply follows."""
        for _ in range(max(1, round(seconds * 1e9 / STEP_NS))):
            self.now = Moment(self.now.ns + STEP_NS, self.now.unix_s + STEP_NS / 1e9)
            self.supply.follow(self.machine.talk.energy, self.now)

    def send(self, payload: bytes, payload_type: int = v2gtp.EXI) -> Reply:
        reply = self._note(self.machine.take(payload_type, payload, self.station, self.now))
        since = self.now.ns
        while reply.waits:
            assert (self.now.ns - since) / 1e9 < PATIENCE_S, f"no answer to {reply.request}"
            if reply.ask is not None:
                self.machine.contract(*self.back_end(reply.ask.update, reply.ask.request))
            self.wait(0.01)
            reply = self._note(self.machine.poll(self.station, self.now))
        assert reply.message, reply
        self.replies.append(reply)
        return reply

    def _note(self, reply: Reply) -> Reply:
        self.vehicle = replace(self.vehicle, **reply.changes)
        purpose = self.machine.talk.energy.purpose
        if not self.purposes or self.purposes[-1][1] != purpose:
            self.purposes.append((reply.request, purpose))
        return reply


def fields(reply: Reply) -> dict[str, Any]:
    """The fields of the answer, out of its envelope, decoded from the bytes that were sent."""
    payload = reply.message[v2gtp.HEADER :]
    if reply.said is not None and reply.said.name == "supportedAppProtocolRes":
        return decode(payload, "app_protocol")["supportedAppProtocolRes"]
    assert reply.said is not None
    if "V2G_Message" in reply.said.tree:
        return next(iter(reply.said.tree["V2G_Message"]["Body"].values()))
    return next(iter(reply.said.tree.values()))


def code(reply: Reply) -> str:
    return str(fields(reply)["ResponseCode"])


def hello(schema: str, major: int = 2) -> bytes:
    """supportedAppProtocolReq for one protocol."""
    from robot_charger.v2g.exi import NAMESPACES

    entry = {
        "ProtocolNamespace": NAMESPACES[schema],
        "VersionNumberMajor": major,
        "VersionNumberMinor": 0,
        "SchemaID": 1,
        "Priority": 1,
    }
    return encode({"supportedAppProtocolReq": {"AppProtocol": [entry]}}, "app_protocol")
