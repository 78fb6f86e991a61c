"""SECC and EVCC in one process over a socket pair: no SLAC, no discovery, no ROS, no namespaces. For what is said.

``talk(directory, ...)`` runs one session between the station's session and the simulated vehicle's, with the supply and
supervisor of v2g_desk.py behind the station, and gives what both sides make of it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from v2g_desk import Car, Plain

from robot_charger.common.parameters import build
from robot_charger.sim import package
from robot_charger.v2g import pki
from robot_charger.v2g.bridge import Bridge, Vehicle
from robot_charger.v2g.parameters import V2gParameters
from robot_charger.v2g.record import Entry
from robot_charger.v2g.worker import Worker
from robot_charger.words.values import Link

TICK_S = 0.005
LONGEST_S = 20.0


@dataclass
class Told:
    """``link``: what vehicle/link says in the end. ``entries``: messages in order, as the station saw them."""

    link: Vehicle
    phases: list[str]
    entries: list[Entry]
    ok: bool  # the vehicle's view
    text: str
    car: Car
    vehicle: Any = None  # the EVCC's session
    live: list[bool] = field(default_factory=list)  # the station's contactors at each message

    @property
    def names(self) -> list[str]:
        """Messages in order."""
        return [entry.name for entry in self.entries]

    @property
    def codes(self) -> list[str]:
        """Response codes of the station's answers, in order."""
        bodies = [body_of(entry) for entry in self.entries if entry.direction == "out"]
        return [str(body["ResponseCode"]) for body in bodies]

    def bodies(self, name: str) -> list[Any]:
        """The fields of every message of that name."""
        return [body_of(entry) for entry in self.entries if entry.name == name]


def body_of(entry: Entry) -> Any:
    """The fields of a decoded message, out of its envelope."""
    ((name, content),) = entry.tree.items()
    return next(iter(content["Body"].values())) if name == "V2G_Message" else content


@dataclass
class Desk:
    directory: Path
    protocol: str = "iso15118-2"
    parameters: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)  # of the vehicle
    station: dict[str, Any] = field(default_factory=dict)  # of Plain
    car: dict[str, Any] = field(default_factory=dict)
    certificates: Path | None = None  # a test PKI: TLS
    ask_contract: Any = None


def talk(directory: Path, **options: Any) -> Told:
    desk = Desk(directory, **options)
    package.prepare(str(desk.certificates / "vehicle") if desk.certificates else "")
    package.use_codec()
    return asyncio.run(asyncio.wait_for(_talk(desk), LONGEST_S))


async def _talk(desk: Desk) -> Told:
    from robot_charger.sim.evcc import Options
    from robot_charger.sim.evcc_controller import VehicleController
    from robot_charger.sim.evcc_session import Session as VehicleSession
    from robot_charger.sim.evcc_session import config
    from robot_charger.v2g.conversation import Conversation
    from robot_charger.v2g.session import Session

    parameters = build(V2gParameters, {"tls.required": False, **desk.parameters})
    bridge = Bridge()
    if desk.ask_contract:
        bridge.ask_contract = desk.ask_contract
    bridge.begin("s-0")
    plain = Plain(bridge, desk.directory, {"authorization": "accepted", **desk.station})
    entries: list[Entry] = []
    live: list[bool] = []

    def note(entry: Entry) -> None:
        entries.append(entry)
        live.append(bridge.station.contactors_closed)

    options = Options(tls=desk.certificates is not None, loop_period_s=0.01, **desk.options)
    ours, theirs = await _connect(desk)
    conversation = Conversation("", parameters, bridge, note, None)
    session = Session(ours, conversation.settings(ours[1]), bridge, parameters, note)
    car = Car(desk.directory, **{"charge_s": 0.1, **desk.car})
    controller = VehicleController(car, desk.protocol, options, "02EC000000E1")
    vehicle = VehicleSession(theirs, config(desk.protocol, options), "", controller, options)
    vehicle.is_tls = options.tls
    stepping = asyncio.ensure_future(_step(plain))
    running = asyncio.ensure_future(session.run())
    try:
        ok, text = await vehicle.run()
        outcome = await running
    finally:
        stepping.cancel()
        running.cancel()
    Worker("1", None, parameters, bridge).conclude(outcome)  # type: ignore[arg-type]
    phases = [Link[name].name for name in plain.phases]
    return Told(bridge.vehicle, phases, entries, ok, text, car, vehicle, live)


async def _step(plain: Plain) -> None:
    while True:
        plain.step()
        await asyncio.sleep(TICK_S)


async def _connect(desk: Desk) -> tuple[Any, Any]:
    """Streams of the station and of the vehicle."""
    ours, theirs = socket.socketpair()
    loop = asyncio.get_running_loop()
    server: ssl.SSLContext | None = None
    client: dict[str, Any] = {}
    if desk.certificates is not None:
        new = desk.protocol != "iso15118-2"
        contexts = pki.station_contexts(desk.certificates / "station")
        server = contexts.tls13 if new else contexts.tls12
        context = pki.vehicle_context(desk.certificates / "vehicle", tls13=new)
        client = {"ssl": context, "server_hostname": ""}
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    accepted = asyncio.ensure_future(loop.connect_accepted_socket(lambda: protocol, ours, ssl=server))
    streams = await asyncio.open_connection(sock=theirs, **client)
    transport, _ = await accepted
    return (reader, asyncio.StreamWriter(transport, protocol, reader, loop)), streams
