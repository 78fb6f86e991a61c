"""Process of the simulated vehicle of one EVSE.

``python -m robot_charger.sim.vehicle --evse N --protocol P --target-soc P|none --charge-seconds S --seed S``

Wires (docs/architecture.md): from pilotN (or chademoN, gbtN), rack, arm and cli; to the same and safety. ``cli`` sends
``arrive`` (number of the visit, counts up), ``leave`` (true, or the number of the visit to end) and ``fault`` NAME with
``on``. The process is ready when vehicleN.wire exists.
For a CCS protocol it waits for plcN.json and joins its user namespace before it starts a thread.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Callable
from typing import Any

import can

from robot_charger.common.can_bus import BusError, open_bus
from robot_charger.common.clock import Ticker
from robot_charger.common.plc_link import LinkError, PlcLink
from robot_charger.common.process import StopSignal, end_with_parent, parent_gone, refuse, simulator_realtime
from robot_charger.common.wires import WireEnd, WireError, run_directory
from robot_charger.sim.vehicle.ac import AcCar
from robot_charger.sim.vehicle.car import FAULTS, Car, CarOptions, Inputs, Outputs, Session, State

PROTOCOLS = (
    "din",
    "iso15118-2",
    "iso15118-20",
    "iso15118-20-bpt",
    "acdp",
    "acdp-bpt",
    "plain",
    "ac",
    "chademo",
    "chademo-v2x",
    "gbt",
)
# Of the car's steps: the wires of a plug with CAN answer each other within 10 ms, an empty bay waits for a car.
PERIOD_S, CAN_PERIOD_S, AWAY_PERIOD_S = 0.02, 0.01, 0.05
SILENT_S = 0.5  # a peer that has not spoken for so long is not there
REPEAT_S = 0.1  # unchanged signals are said again after so long
NUMBERED = ("pilot", "chademo", "gbt")  # peers of which every EVSE has one


class Wires:
    """All wires of one vehicle: inputs from the newest signals, outputs on change and again and again."""

    def __init__(self, evse: int, station: str = "pilot") -> None:
        self.evse = evse
        self.station = station  # the part of the station at the plug: pilot, chademo or gbt
        self.end = WireEnd(f"vehicle{evse}", on_signals=self._heard)
        self.faults: set[str] = set()
        self._sent: dict[str, tuple[float, dict[str, Any]]] = {}

    def inputs(self) -> Inputs:
        cli, pilot, rack = (self._fresh(p) for p in ("cli", f"pilot{self.evse}", "rack"))
        arm = self.end.signals("arm")  # a plug does not fall out because nobody speaks of it
        here = rack.get(str(self.evse), rack)  # a rack of several EVSEs may tell them apart by number
        station = {} if self.station == "pilot" else self._fresh(f"{self.station}{self.evse}")
        allowed = bool(self._fresh("safety").get("d_allowed", True))  # its relay lies in the wires d1, d2 and A+
        return Inputs(
            arrive=int(cli.get("arrive") or 0),
            leave=cli.get("leave") or False,
            mated=bool(arm.get("mated")),
            pilot_mode=str(pilot.get("mode", "off")),
            pilot_duty=float(pilot.get("duty") or 0.0),
            inlet_voltage_v=float(here.get("voltage_v") or 0.0),
            inlet_current_a=float(here.get("current_a") or 0.0),
            station_lock=bool(station["lock"]) if "lock" in station else None,
            d1=allowed and bool(station.get("d1")),
            d2=allowed and bool(station.get("d2")),
            auxiliary=allowed and bool(station.get("auxiliary")),
        )

    def send(self, outputs: Outputs, now_s: float) -> None:
        for peer, signals in (
            (self.station, getattr(outputs, self.station)),
            ("rack", outputs.rack),
            ("safety", outputs.safety),
            ("arm", outputs.arm),
            ("cli", outputs.truth),
        ):
            sent_s, last = self._sent.get(peer, (-1.0, {}))
            # The truth has numbers that change at every step: it is told by the clock, and at once on a new state.
            if peer == "cli":
                changed = signals["state"] != last.get("state") or signals["result"] != last.get("result")
            else:
                changed = signals != last
            if changed or now_s - sent_s >= REPEAT_S:
                self.end.send(f"{peer}{self.evse}" if peer in NUMBERED else peer, signals)
                self._sent[peer] = (now_s, signals)

    def _fresh(self, peer: str) -> dict[str, Any]:
        # What the command line said stays said: it is a hand on a lever, not a stream.
        if peer != "cli" and self.end.age_s(peer) > SILENT_S:
            return {}
        return self.end.signals(peer)

    def _heard(self, peer: str, signals: dict[str, Any]) -> None:
        name = signals.get("fault")
        if peer == "cli" and name in FAULTS:
            self.faults = self.faults | {name} if signals.get("on", True) else self.faults - {name}


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="robot_charger.sim.vehicle", description=__doc__.splitlines()[0])
    parser.add_argument("--evse", type=int, required=True)
    parser.add_argument("--protocol", choices=PROTOCOLS, default="iso15118-2")
    parser.add_argument("--target-soc", default="none", help="per cent, or none: end after --charge-seconds")
    parser.add_argument("--charge-seconds", type=float, default=15.0)
    parser.add_argument("--soc", type=float, default=None, help="state of charge on arrival, else by the seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-current", type=float, default=None, help="the car's own ceiling [A]")
    parser.add_argument("--interface", default="", help="network interface for V2G where the link is virtual")
    parser.add_argument("--can", default="", help="CHAdeMO, GB/T: the bus, e.g. udp:27600")
    parser.add_argument("--chademo-version", type=int, choices=(1, 2, 3), default=2, help="102.0 of the vehicle")
    parser.add_argument("--gbt-edition", type=int, choices=(2011, 2015), default=2015, help="of the vehicle")
    parser.add_argument("--option", action="append", default=[], metavar="KEY=VALUE", help="handed to the EVCC")
    parser.add_argument("--fault", action="append", default=[], choices=FAULTS)
    return parser.parse_args(words)


def car_options(args: argparse.Namespace) -> CarOptions:
    """Validated; refuses with one line."""
    target = None
    if str(args.target_soc).lower() != "none":
        try:
            target = float(args.target_soc)
        except ValueError:
            refuse(f"--target-soc {args.target_soc} is neither per cent nor none")
        if not 1.0 <= target <= 100.0:
            refuse(f"--target-soc {target:g} % is not between 1 and 100")
    if not 0.0 < args.charge_seconds <= 86_400.0:
        refuse(f"--charge-seconds {args.charge_seconds:g} is not between 0 and 86400")
    if args.soc is not None and not 0.0 <= args.soc < 100.0:
        refuse(f"--soc {args.soc:g} % is not between 0 and 100")
    values: dict[str, Any] = {}
    if args.protocol.startswith("chademo"):  # request at most 20 A/s, one byte of amperes
        values |= {"ramp_a_per_s": 20.0, "max_current_a": 125.0, "capacity_wh": 40_000.0, "max_voltage_v": 435.0}
        values |= {"max_discharge_current_a": 15.0}
    if args.protocol == "gbt":
        values |= {"max_current_a": 200.0, "capacity_wh": 60_000.0}
    if args.protocol == "ac":
        values |= {"max_current_a": 32.0}
    if args.max_current is not None:
        values["max_current_a"] = args.max_current
    return CarOptions(args.protocol, target, args.charge_seconds, args.soc, args.seed, **values)


def evcc_factory(link: PlcLink, args: argparse.Namespace) -> Callable[[Car], Session]:
    from robot_charger.sim.evcc import Evcc, Options, prepare

    options = Options()
    for word in args.option:
        name, _, value = word.partition("=")
        known = getattr(options, name, None)
        if not isinstance(known, bool | int | float | str):
            refuse(f"--option {word}: the EVCC has no option {name}")
        try:
            new = value.lower() in ("1", "true", "yes") if isinstance(known, bool) else type(known)(value)
        except ValueError:
            refuse(f"--option {word}: {value} is no {type(known).__name__}")
        setattr(options, name, new)
    prepare(options.pki)
    return lambda car: Evcc(car, link, args.protocol, options)


def can_factory(bus: can.BusABC, args: argparse.Namespace) -> Callable[[Car], Session]:
    if args.protocol == "gbt":
        from robot_charger.sim.gbt_vehicle import GbtSession

        return lambda car: GbtSession(car, bus, args.gbt_edition)
    from robot_charger.sim.chademo_vehicle import ChademoSession

    v2x = args.protocol == "chademo-v2x"
    return lambda car: ChademoSession(car, bus, args.chademo_version, v2x)


def main(words: list[str] | None = None) -> int:
    args = arguments(words)
    options = car_options(args)
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s", stream=sys.stderr)
    end_with_parent()
    stop = StopSignal()
    simulator_realtime(25)
    try:
        directory = run_directory()
        factory: Callable[[Car], Session] | None = None
        if options.on_can:
            bus = open_bus(args.can, fd=False)
            factory = can_factory(bus, args)
        elif args.protocol not in ("plain", "ac"):
            link = PlcLink.wait(directory, args.evse, "ev", args.interface)
            link.join_user()  # while this process has one thread
            factory = evcc_factory(link, args)
        wires = Wires(args.evse, "gbt" if options.is_gbt else "chademo" if options.is_chademo else "pilot")
    except (WireError, LinkError, BusError) as error:
        refuse(f"vehicle {args.evse}: {error}")
    wires.faults |= set(args.fault)
    car = AcCar(options) if args.protocol == "ac" else Car(options, factory)
    ticker = Ticker(AWAY_PERIOD_S)
    here_s = CAN_PERIOD_S if options.on_can else PERIOD_S
    try:
        while not stop.event.is_set() and not parent_gone():
            now_s = time.monotonic()
            car.faults = wires.faults
            wires.send(car.step(now_s, wires.inputs()), now_s)
            ticker.period_s = AWAY_PERIOD_S if car.state is State.AWAY else here_s
            ticker.wait()
    finally:
        car.end()
        wires.end.close()
        if options.on_can:
            bus.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
