"""python -m robot_charger.sim.safety --bus udp:PORT --evses 1 2

The simulated safety controller: the reference logic of ``robot_charger.guard``, with contactors, insulation monitors
and terminals around it, over CAN-FD. It is a process of its own and dies with nobody: when its parent goes, it stays
until all contactors are open. A latched emergency is kept in ``safety.json`` over restarts, until a ``reset``.

Wire from ``cli``: ``fault`` (emergency-stop, chain, fire, mains-lost, over-temperature, earth-lost, pole-weld,
isolation, isolation-charging, self-test, weld, link-weld, link-drop, feedback-stuck, door, field, grid-withdrawn,
grid-silent, silent), ``on``, ``evse`` (0 = all), or ``reset``: true.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robot_charger.common.can_bus import BusError, FramePort, expand, frame_port, open_bus
from robot_charger.common.clock import Ticker
from robot_charger.common.process import StopSignal, parent_gone, refuse, simulator_realtime
from robot_charger.common.wires import WireEnd, WireError, run_directory
from robot_charger.guard import frames
from robot_charger.guard.logic import Config, EvseInputs, Guard, Inputs, Outputs, Status
from robot_charger.power import codec

PERIOD_S = 0.010
HEARTBEAT_S = 0.080  # contactors must be open within 100 ms of power's loss
CLOSE_S = 0.030  # of a contactor
OPEN_S = 0.020
SMALL_A = 5.0
SELF_TEST_S = 1.0
MEASURE_S = 0.4
STATION_OHM = 5e6  # insulation of the station itself
FAULT_OHM = 20e3
GRACE_S = 2.0
ARM_S = 0.5  # an arm that was not heard for so long is not there
GRID_EXPORT_W = 1e6  # what the desk's grid protection permits
REPEAT_S = 0.05  # signals are told again after so long, though they stay
CABINET = 80  # 30 deg C
HEARS = ({"can_id": codec.POWER_ID, "can_mask": 0x7FF},)  # its acceptance filter
FAULTS = (
    "emergency-stop",
    "chain",
    "fire",
    "mains-lost",
    "over-temperature",
    "earth-lost",
    "pole-weld",
    "isolation",
    "isolation-charging",
    "self-test",
    "weld",
    "link-weld",
    "link-drop",
    "feedback-stuck",
    "door",
    "field",
    "grid-withdrawn",
    "grid-silent",
    "silent",
)


@dataclass
class Circuit:
    """Contactors and insulation monitor of one EVSE, moved by ``step`` with the time in seconds."""

    coil: bool = False
    closed: bool = False  # what the main contacts really do
    moved_at: float = 0.0
    stuck: bool = False  # its positive pole is welded
    monitor: int = codec.Monitor.OFF
    sequence: int = 0
    ohm: float = 0.0
    monitor_at: float = 0.0
    tested: bool = False

    def drive(self, wanted: bool, weld: bool, now_s: float) -> None:
        """Coil on or off; the contacts follow."""
        if wanted != self.coil:
            self.coil, self.moved_at = wanted, now_s
        delay = CLOSE_S if self.coil else OPEN_S
        if now_s - self.moved_at >= delay and (self.coil or not weld):
            self.closed = self.coil

    def measure(self, on: bool, test: bool, broken: bool, ohm: float, now_s: float) -> None:
        """The insulation monitor: self test on request, then one measurement after the other."""
        if not on:
            self.monitor, self.sequence, self.tested = codec.Monitor.OFF, 0, False
            return
        if test and not self.tested:
            self.monitor, self.monitor_at, self.tested = codec.Monitor.SELF_TEST, now_s, True
        elif self.monitor == codec.Monitor.OFF:
            self.monitor, self.monitor_at, self.sequence = codec.Monitor.MEASURING, now_s, 0
        if self.monitor == codec.Monitor.SELF_TEST:
            if now_s - self.monitor_at >= SELF_TEST_S:
                self.monitor = codec.Monitor.FAULT if broken else codec.Monitor.MEASURING
                self.monitor_at, self.sequence = now_s, 0
        elif self.monitor == codec.Monitor.MEASURING and now_s - self.monitor_at >= MEASURE_S:
            self.monitor_at, self.ohm = now_s, ohm
            self.sequence = max(1, (self.sequence + 1) & 0xFF)
        if not test:
            self.tested = False


@dataclass
class World:
    """What the controller's terminals sense of one EVSE."""

    occupied: bool = False
    immobilised: bool = False
    vehicle_ohm: float | None = None
    voltage_v: float = 0.0
    current_a: float = 0.0
    pilot: int | None = None  # guard.logic.Pilot; None: not wired to the controller
    bay: bool = True  # it has bay sensors


@dataclass
class Arm:
    """What the controller senses of the arm; masks of EVSEs."""

    request: bool = False
    moving: bool = False
    passive: bool = False
    near: int = 0
    zone: int = 0


@dataclass
class Controller:
    """The reference logic of robot_charger.guard between simulated contactors, monitors and terminals."""

    evses: list[int]
    latched: bool = False
    blocks: int = 0  # of the contactor matrix
    switched: bool = False  # three contactors per EVSE join its groups: one in series, two in parallel
    grid_export_w: float = GRID_EXPORT_W
    heartbeat_s: float = HEARTBEAT_S
    faults: set[tuple[str, int]] = field(default_factory=set)  # (name, EVSE or 0)
    circuits: dict[int, Circuit] = field(default_factory=dict)
    arm: Arm = field(default_factory=Arm)

    def __post_init__(self) -> None:
        self.circuits = {evse: Circuit() for evse in self.evses}
        config = Config(tuple(self.evses), round(self.heartbeat_s * 1e3), blocks=self.blocks, switched=self.switched)
        self.guard = Guard(config, self.latched)
        self.inputs = Inputs(evses={evse: EvseInputs() for evse in self.evses})
        self.links = [Circuit() for _ in range(3 * len(self.evses) if self.switched else self.blocks * len(self.evses))]

    def has(self, name: str, evse: int = 0) -> bool:
        return (name, 0) in self.faults or (name, evse) in self.faults

    def fault(self, name: str, on: bool, evse: int = 0) -> bool:
        """False when there is no fault of this name."""
        if name not in FAULTS:
            return False
        if on:
            self.faults.add((name, evse))
        else:
            self.faults.discard((name, evse))
        return True

    def reset(self) -> None:
        """A person turns the key on site for a moment; in vain while the button is pressed."""
        self.inputs.reset = not self.has("emergency-stop")

    def hear(self, data: bytes, now_s: float) -> None:
        """A frame with power's id."""
        self.guard.hear(data, _ms(now_s))

    @property
    def all_open(self) -> bool:
        return not any(c.closed for c in self.circuits.values())

    @property
    def out(self) -> Outputs:
        """What the controller drives now."""
        return self.guard.out

    @property
    def released(self) -> bool:
        """AC contactors have their coils' supply through it."""
        return self.out.released

    @property
    def bits(self) -> int:
        return self.out.bits

    def step(self, now_s: float, worlds: dict[int, World]) -> None:
        """One cycle: terminals, guard, then coils and monitors."""
        self._sense(worlds)
        out = self.guard.step(self.inputs, _ms(now_s))
        self.inputs.reset = False
        self.latched = out.latched
        request = self.guard.request
        heard = bool(out.bits & Status.HEARS_POWER)
        for evse, circuit in self.circuits.items():
            bit = 1 << (evse - 1)
            circuit.drive(bool(out.coils & bit), self.has("weld", evse), now_s)
            circuit.measure(
                bool(request.monitors & bit) and heard,
                bool(request.self_tests & bit),
                self.has("self-test", evse),
                self._insulation(evse, worlds.get(evse, World())),
                now_s,
            )
        for number, link in enumerate(self.links):
            wanted = bool(out.links >> number & 1) and not self.has("link-drop")
            link.drive(wanted, self.has("link-weld"), now_s)

    def _sense(self, worlds: dict[int, World]) -> None:
        inputs, config = self.inputs, self.guard.config
        inputs.chain_a = not self.has("emergency-stop")
        inputs.chain_b = inputs.chain_a and not self.has("chain")
        inputs.fire = self.has("fire")
        inputs.door_open = self.has("door")
        inputs.mains_ok = not self.has("mains-lost")
        inputs.over_temperature = self.has("over-temperature")
        inputs.monitor_fault = any(c.monitor == codec.Monitor.FAULT for c in self.circuits.values())
        inputs.links_closed = self.links_closed
        inputs.arm_request, inputs.arm_moving, inputs.arm_passive = self.arm.request, self.arm.moving, self.arm.passive
        inputs.arm_near, inputs.arm_zone = self.arm.near, self.arm.zone
        for evse, circuit in self.circuits.items():
            world, terminals, bit = worlds.get(evse, World()), inputs.evses[evse], 1 << (evse - 1)
            config.bay_fitted = config.bay_fitted | bit if world.bay else config.bay_fitted & ~bit
            wired = world.pilot is not None
            config.pilot_fitted = config.pilot_fitted | bit if wired else config.pilot_fitted & ~bit
            shown = circuit.closed and not self.has("feedback-stuck", evse)
            circuit.stuck = (circuit.stuck or circuit.closed) and self.has("pole-weld", evse)
            terminals.positive_closed, terminals.negative_closed = shown or circuit.stuck, shown
            terminals.voltage_dv, terminals.current_da = round(10.0 * world.voltage_v), round(10.0 * world.current_a)
            terminals.pilot = world.pilot or 0
            terminals.earth_ok = not self.has("earth-lost", evse)
            terminals.occupied, terminals.immobilised = world.occupied, world.immobilised
            terminals.field_clear = not self.has("field", evse)

    @property
    def links_closed(self) -> int:
        """Matrix contactors that conduct, a bit each."""
        return sum(circuit.closed << bit for bit, circuit in enumerate(self.links))

    def _insulation(self, evse: int, world: World) -> float:
        ohm = STATION_OHM
        if world.vehicle_ohm is not None:
            ohm = 1.0 / (1.0 / STATION_OHM + 1.0 / max(world.vehicle_ohm, 1.0))
        charging = abs(world.current_a) > SMALL_A
        if self.has("isolation", evse) or (charging and self.has("isolation-charging", evse)):
            ohm = min(ohm, FAULT_OHM)
        return ohm

    def frames(self, worlds: dict[int, World]) -> list[tuple[int, bytes]]:
        """Status frames of this cycle: (id, data)."""
        guard, out = self.guard, self.out
        bits, echo = int(out.bits), guard.request.counter
        made = [frames.encode_safety(bits, out.closed, out.tripped, CABINET, echo, int(out.reason), guard.counter)]
        made += [
            frames.encode_evse(
                evse, min(round(c.ohm / 100.0), 0xFFFF), c.monitor, c.sequence, int(guard.bay_bits[evse]), guard.counter
            )
            for evse, c in self.circuits.items()
        ]
        if not self.has("grid-silent"):
            export_w = 0.0 if self.has("grid-withdrawn") else self.grid_export_w
            made.append(frames.encode_grid(round(export_w), guard.counter))
        if self.links:
            made.append(frames.encode_links(self.links_closed, guard.counter))
        return made


def _ms(now_s: float) -> int:
    return round(now_s * 1e3) & 0xFFFFFFFF


class SafetyProcess:
    """The controller with its bus and wires."""

    def __init__(
        self, port: FramePort, evses: list[int], heartbeat_s: float, blocks: int = 0, switched: bool = False
    ) -> None:
        self.port = port
        self.path: Path = run_directory() / "safety.json"
        self.controller = Controller(evses, self._read_latch(), blocks, switched, heartbeat_s=heartbeat_s)
        self._saved = self.controller.latched
        self.cycle = 0
        self._told: dict[str, tuple[float, dict[str, Any]]] = {}
        self.wires = WireEnd("safety", on_signals=self._on_signals, threaded=False)

    def _read_latch(self) -> bool:
        try:
            return bool(json.loads(self.path.read_text())["emergency_latched"])
        except (OSError, ValueError, KeyError):
            return False

    def _on_signals(self, sender: str, signals: dict[str, Any]) -> None:
        if sender != "cli":
            return
        if signals.get("reset"):
            self.controller.reset()
        if "fault" in signals:
            name = str(signals["fault"])
            if not self.controller.fault(name, bool(signals.get("on", True)), int(signals.get("evse", 0))):
                print(f"safety: no fault {name}: one of {', '.join(FAULTS)}", flush=True)

    def step(self) -> None:
        now_s = time.monotonic()
        controller = self.controller
        self.cycle += 1
        for batch in self.port.read():
            for i, identifier in enumerate(batch.ids.tolist()):
                if identifier == codec.POWER_ID:
                    controller.hear(batch.data[i, : batch.lengths[i]].tobytes(), now_s)
        self.wires.poll()
        rack = self.wires.signals("rack")
        worlds = {}
        for evse in controller.evses:
            car = self.wires.signals(f"vehicle{evse}")
            pilot = car.get("pilot")
            worlds[evse] = World(
                bool(car.get("occupied")),
                bool(car.get("immobilised")),
                car.get("insulation_ohm"),
                float(rack.get("voltage_v", {}).get(str(evse), 0.0)),
                float(rack.get("current_a", {}).get(str(evse), 0.0)),
                None if pilot is None else int(pilot),
                "occupied" in car,
            )
        arm = self.wires.signals("arm")
        if arm and self.wires.age_s("arm") < ARM_S:
            controller.arm = Arm(
                bool(arm["request"]), bool(arm["moving"]), bool(arm["passive"]), int(arm["near"]), int(arm["zone"])
            )
        controller.step(now_s, worlds)
        if controller.latched != self._saved:
            self._saved = controller.latched
            self.path.write_text(json.dumps({"emergency_latched": self._saved}))
        self.tell(now_s)
        if not controller.has("silent"):
            made = controller.frames(worlds)
            for length in {len(data) for _, data in made}:
                some = [(identifier, data) for identifier, data in made if len(data) == length]
                self.port.write([identifier for identifier, _ in some], codec.rows([data for _, data in some]))

    def tell(self, now_s: float) -> None:
        out = self.controller.out
        closed = {str(e): c.closed for e, c in self.controller.circuits.items()}
        signals = {
            "contactors": closed,
            "links": self.controller.links_closed,
            "released": out.released,
            "inhibit": out.inhibit,
        }
        self._send("rack", signals, now_s)
        self._send("arm", {"enable": out.arm_enable}, now_s)
        for evse in self.controller.evses:
            bit = 1 << (evse - 1)
            self._send(f"pilot{evse}", {"f": bool(out.pilot_f & bit)}, now_s)
            self._send(f"vehicle{evse}", {"d_allowed": bool(out.d_allowed & bit)}, now_s)
        if self.cycle % 10 == 0:
            self.wires.send("cli", {"emergency": self.controller.latched, "contactors": closed})

    def _send(self, peer: str, signals: dict[str, Any], now_s: float) -> None:
        """At once when they change, and again and again."""
        told_s, told = self._told.get(peer, (-REPEAT_S, {}))
        if signals != told or now_s - told_s >= REPEAT_S:
            self._told[peer] = (now_s, signals)
            self.wires.send(peer, signals)

    def close(self) -> None:
        for circuit in self.controller.circuits.values():
            circuit.coil = circuit.closed = False
        self.controller.guard.out.released = False
        self.tell(time.monotonic())
        self.wires.close()
        self.port.close()


def run(process: SafetyProcess, stop: StopSignal) -> None:
    """The 10 ms cycle, until asked to stop, or until the parent is gone and all contactors are open."""
    ticker = Ticker(PERIOD_S)
    deadline = None
    while not stop.event.is_set():
        ticker.wait()
        process.step()
        if deadline is None and process.cycle % 10 == 0 and parent_gone():
            deadline = time.monotonic() + GRACE_S
        if deadline is not None and (process.controller.all_open or time.monotonic() > deadline):
            return


def main() -> None:
    parser = argparse.ArgumentParser(prog="robot_charger.sim.safety", description="Simulated safety controller.")
    parser.add_argument("--bus", default="udp:42000", help="the bank's first bus")
    parser.add_argument("--evses", type=int, nargs="+", default=[1], metavar="N", help="numbers of the EVSEs")
    parser.add_argument(
        "--heartbeat-ms",
        type=float,
        default=250.0,
        help="power is lost after so long; 80 at a station, more on a desk without real-time scheduling",
    )
    parser.add_argument("--blocks", type=int, default=0, help="blocks of the contactor matrix, 0: there is none")
    parser.add_argument("--switched", action="store_true", help="contactors join the groups in series or in parallel")
    arguments = parser.parse_args()
    stop = StopSignal()
    try:
        port = frame_port(open_bus(expand(arguments.bus)[0], can_filters=HEARS))
        heartbeat_s = arguments.heartbeat_ms / 1e3
        process = SafetyProcess(port, arguments.evses, heartbeat_s, arguments.blocks, arguments.switched)
    except (BusError, WireError) as error:
        refuse(f"safety: {error}")
    simulator_realtime(30)  # hardware does not wait for a computer's other work
    gc.collect()
    gc.freeze()
    run(process, stop)
    process.close()


if __name__ == "__main__":
    main()
