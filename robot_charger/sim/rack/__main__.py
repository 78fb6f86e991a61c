"""python -m robot_charger.sim.rack --bus udp:PORT --modules N --evses 1 2 --seed S

Up to 909 EK3 modules, the DC network, measuring boards and meters of a rack, and AC outlets, in one process with a
10 ms cycle. It is ready when its wire ``rack`` exists. ``rack.json`` in the run directory tells the port of its meters.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Sequence
from typing import Any, Protocol

from robot_charger.common.can_bus import BusError, FramePort, expand, frame_port, open_bus
from robot_charger.common.clock import Ticker, now_ns
from robot_charger.common.process import StopSignal, parent_gone, refuse, simulator_realtime
from robot_charger.common.wires import WireEnd, WireError, run_directory
from robot_charger.power import codec
from robot_charger.power.contract import CONTRACTS, PROTOCOLS
from robot_charger.power.meter import Reading, encode_registers
from robot_charger.sim.rack.ac import FAULTS as AC_FAULTS
from robot_charger.sim.rack.ac import AcSupply
from robot_charger.sim.rack.ek3 import Ek3Modules
from robot_charger.sim.rack.habits import of_contract, parse
from robot_charger.sim.rack.modbus import MeterServer, ModuleServer
from robot_charger.sim.rack.model import FAULTS, Network, Rack

PERIOD_S = 0.010
GRACE_S = 2.0
REPEAT_S = 0.05  # signals are told again after so long, though they stay
NOTHING = ({"can_id": 0x7FF, "can_mask": 0x7FF},)  # its measuring boards only speak
STEP = 0.5  # [V or A] a change that is told at once


class ModuleEnd(Protocol):
    """The modules' end of their buses or line; one class per protocol."""

    def receive(self, now_s: float) -> None:
        """Take set-points into the rack."""

    def send(self, now_s: float, sensors: bool) -> None:
        """Tell what the modules measure; ``sensors``: the slow values too."""

    def close(self) -> None:
        """Let go of the bus."""


def module_end(arguments: argparse.Namespace, rack: Rack) -> ModuleEnd:
    if arguments.protocol == "canopen":
        from robot_charger.sim.rack.canopen import CanopenModules

        return CanopenModules(rack, expand(arguments.module_bus))
    if arguments.protocol == "modbus":
        return ModuleServer(rack)
    if CONTRACTS[arguments.protocol].polled:
        from robot_charger.sim.rack.polled import PolledModules

        return PolledModules(rack, arguments.protocol, expand(arguments.module_bus))
    return Ek3Modules(rack, expand(arguments.bus))


class RackProcess:
    """The model with its buses, wires and meters."""

    def __init__(self, port: FramePort, rack: Rack, modules: ModuleEnd, ac: Sequence[int] = ()) -> None:
        self.port = port  # the station's bus
        self.rack = rack
        self.modules = modules
        self.ac = {evse: AcSupply() for evse in ac}
        self.ac_faults: set[str] = set()
        self.outputs: dict[int, Network | AcSupply] = {**rack.networks, **self.ac}  # what each vehicle is plugged into
        self.cycle = 0
        self.meters = MeterServer()
        self.wires = WireEnd("rack", on_signals=self._on_signals, threaded=False)
        self._told: dict[str, tuple[float, tuple[float, ...]]] = {}
        places = {"modbus": {"host": "127.0.0.1", "port": self.meters.port}}
        if isinstance(modules, ModuleServer):
            places["modules"] = {"host": "127.0.0.1", "port": modules.port}
        self._write("rack.json", places)

    def _on_signals(self, sender: str, signals: dict[str, Any]) -> None:
        if sender == "cli" and "fault" in signals:
            name, bus = str(signals["fault"]), int(signals.get("bus", 0))
            if name in AC_FAULTS:
                (self.ac_faults.add if signals.get("on", True) else self.ac_faults.discard)(name)
            elif not self.rack.fault(name, bool(signals.get("on", True)), int(signals.get("module", 0)), bus):
                print(f"rack: no fault {name}: one of {', '.join((*FAULTS, *AC_FAULTS))}", flush=True)

    def _read_wires(self) -> None:
        self.wires.poll()
        contactors = self.wires.signals("safety").get("contactors", {})
        self.rack.join(int(self.wires.signals("safety").get("links", 0)))
        alive = self.wires.age_s("safety") < 0.5  # without its controller a contactor's spring opens it
        self.rack.inhibited = int(self.wires.signals("safety").get("inhibit", 0)) if alive else 0
        for evse, network in self.rack.networks.items():
            network.contactors = alive and bool(contactors.get(str(evse)))
            if evse in self.ac:
                continue
            signals = self.wires.signals(f"vehicle{evse}")
            car = network.vehicle
            car.connected = bool(signals.get("connected"))
            car.contactor = bool(signals.get("contactor"))
            car.emf_v = float(signals.get("emf_v") or 0.0)
            car.resistance_ohm = float(signals.get("resistance_ohm") or 0.05)

    def _step_ac(self, now_s: float, dt_s: float) -> None:
        released = self.wires.age_s("safety") < 0.5 and bool(self.wires.signals("safety").get("released"))
        welded, residual = "ac-weld" in self.ac_faults, "residual-current" in self.ac_faults
        for evse, supply in self.ac.items():
            car, outlet = (self.wires.signals(f"{peer}{evse}") for peer in ("vehicle", "outlet"))
            asked_a = float(car.get("ac_current_a") or 0.0) if car.get("connected") else 0.0
            alive = self.wires.age_s(f"outlet{evse}") < 0.5  # a coil that is held by a pulse train drops without it
            wanted = released and alive and bool(outlet.get("contactor"))
            supply.step(wanted, welded, asked_a, int(car.get("ac_phases") or 3), now_s, dt_s)
            if self._due(f"outlet{evse}", now_s, supply.closed, residual):
                self.wires.send(f"outlet{evse}", {"closed": supply.closed, "residual": residual})

    def step(self, dt_s: float) -> None:
        now_s = time.monotonic()
        self.cycle += 1
        self.modules.receive(now_s)
        self._read_wires()
        self.rack.step(now_s, dt_s)
        self._step_ac(now_s, dt_s)
        self.modules.send(now_s, self.cycle % 10 == 0)
        self._send_outputs()
        self._send_wires(now_s)

    def _send_outputs(self) -> None:
        frames = self.rack.outputs()
        if frames:
            self.port.write([codec.OUTPUT_ID + evse for evse in frames], codec.rows(list(frames.values())))

    def _due(self, peer: str, now_s: float, *values: float) -> bool:
        """Whether ``peer`` is to hear these values now: they moved, or it has not heard for a while."""
        told_s, told = self._told.get(peer, (-REPEAT_S, ()))
        if now_s - told_s < REPEAT_S and all(abs(a - b) < STEP for a, b in zip(values, told, strict=True)):
            return False
        self._told[peer] = (now_s, values)
        return True

    def _send_wires(self, now_s: float) -> None:
        networks = self.outputs
        for evse, n in networks.items():
            if self._due(f"vehicle{evse}", now_s, n.output_v, n.current_a):
                self.wires.send(
                    f"vehicle{evse}",
                    {
                        "voltage_v": n.output_v,
                        "current_a": n.current_a,
                        "energy_in_wh": n.import_wh,
                        "energy_out_wh": n.export_wh,
                    },
                )
        if self._due("safety", now_s, *(v for n in networks.values() for v in (n.output_v, n.current_a))):
            self.wires.send(
                "safety",
                {
                    "voltage_v": {str(e): n.output_v for e, n in networks.items()},
                    "current_a": {str(e): n.current_a for e, n in networks.items()},
                },
            )
        if self.cycle % 10 == 0:
            self._meter()
            self.wires.send(
                "cli",
                {
                    "module_energy_wh": {str(e): n.module_wh for e, n in networks.items()},
                    "energy_in_wh": {str(e): n.import_wh for e, n in networks.items()},
                    "energy_out_wh": {str(e): n.export_wh for e, n in networks.items()},
                    "peak_current_a": max(n.peak_a for n in networks.values()),
                    "max_voltage_v": max(n.max_v for n in networks.values()),
                    "current_a": {str(e): n.current_a for e, n in networks.items()},
                    "voltage_v": {str(e): n.output_v for e, n in networks.items()},
                    "contactors": {str(e): n.contactors for e, n in networks.items()},
                },
            )

    def _meter(self) -> None:
        registers = {}
        for evse, n in self.outputs.items():
            serial = str(77_000_000 + evse)
            reading = Reading(now_ns(), serial, n.import_wh, n.export_wh, n.meter_v, n.current_a, n.power_w)
            registers[evse] = encode_registers(reading)
        self.meters.registers = registers
        if self.cycle % 20 == 0:
            self._write("meter.json", {str(e): r for e, r in registers.items()})

    def _write(self, name: str, content: dict[str, Any]) -> None:
        path = run_directory() / name
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(content))
        temporary.replace(path)

    @property
    def at_rest(self) -> bool:
        return all(abs(n.current_a) < 1.0 for n in self.outputs.values())

    def close(self) -> None:
        self.wires.close()
        self.meters.close()
        self.modules.close()
        self.port.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="robot_charger.sim.rack", description="Simulated EK3 rack.")
    parser.add_argument("--bus", default="udp:42000", help="bus or buses, e.g. udp:42000*5")
    parser.add_argument("--modules", type=int, default=46)
    parser.add_argument("--evses", type=int, nargs="+", default=[1], metavar="N", help="numbers of the EVSEs")
    parser.add_argument("--ac", type=int, nargs="*", default=[], metavar="N", help="those of them that are AC outlets")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--series", type=int, default=1, choices=(1, 2), help="groups of modules in series")
    parser.add_argument("--switched", action="store_true", help="contactors join the groups in series or in parallel")
    parser.add_argument("--ageing", type=float, default=1.0, help="operating hours that count for each hour of running")
    parser.add_argument("--blocks", type=int, default=0, help="blocks of the contactor matrix, 0: there is none")
    parser.add_argument("--protocol", default="ek3", choices=PROTOCOLS, help="what the modules speak")
    parser.add_argument("--module-bus", default="", help="bus or buses of the modules, e.g. udp:42100")
    parser.add_argument(
        "--habit",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="what real modules do: offset, scatter, gain, hold_s, start_s, ripple_a, overshoot, inrush",
    )
    arguments = parser.parse_args()
    stop = StopSignal()
    try:
        if not 1 <= arguments.modules <= 1024 or arguments.modules < len(arguments.evses):
            refuse(f"rack: --modules {arguments.modules} must be 1 to 1024, at least one per EVSE")
        contract = CONTRACTS[arguments.protocol]
        if contract.own_bus and contract.bit_rate and not arguments.module_bus:
            refuse(f"rack: --protocol {contract.name} needs --module-bus, e.g. udp:42100")
        try:
            habits = parse(arguments.habit, of_contract(contract))
        except ValueError as error:
            refuse(f"rack: --habit: {error}")
        rack = Rack(
            arguments.modules,
            arguments.evses,
            arguments.seed,
            arguments.series,
            arguments.blocks,
            arguments.switched,
            arguments.ageing,
            habits,
        )
        port = frame_port(open_bus(expand(arguments.bus)[0], can_filters=NOTHING))
        process = RackProcess(port, rack, module_end(arguments, rack), arguments.ac)
    except (BusError, WireError) as error:
        refuse(f"rack: {error}")
    simulator_realtime(30)  # hardware does not wait for a computer's other work
    gc.collect()
    gc.freeze()
    run(process, stop)
    process.close()


def run(process: RackProcess, stop: StopSignal) -> None:
    """The 10 ms cycle, until asked to stop, or until the parent is gone and no current flows any more."""
    ticker = Ticker(PERIOD_S)
    last = time.monotonic()
    deadline = None
    while not stop.event.is_set():
        ticker.wait()
        now = time.monotonic()
        process.step(min(now - last, 0.1))
        last = now
        if deadline is None and process.cycle % 10 == 0 and parent_gone():
            deadline = now + GRACE_S
        if deadline is not None and (process.at_rest or now > deadline):
            return


if __name__ == "__main__":
    main()
