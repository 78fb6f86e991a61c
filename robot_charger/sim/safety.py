"""python -m robot_charger.sim.safety --bus udp:PORT --evses 1 2

The simulated safety controller: E-stop chain, power's heartbeat, contactors with feedback, insulation monitors
and bay sensors, over CAN-FD. It is a process of its own and dies with nobody: when its parent goes, it stays until
all contactors are open. A latched emergency is kept in ``safety.json`` over restarts, until ``reset`` on the wire.

Wire from ``cli``: ``fault`` (emergency-stop, isolation, isolation-charging, self-test, weld, link-weld,
link-drop, feedback-stuck, door, field, grid-withdrawn, grid-silent, silent), ``on``, ``evse`` (0 = all), or ``reset``:
true.
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
from robot_charger.power import codec

PERIOD_S = 0.010
HEARTBEAT_S = 0.080  # contactors must be open within 100 ms of power's loss
CLOSE_S = 0.030  # of a contactor
OPEN_S = 0.020
ZERO_WAIT_S = 0.100  # after an E-stop power has so long to end the current before contactors open under load
SMALL_A = 5.0
SELF_TEST_S = 1.0
MEASURE_S = 0.4
STATION_OHM = 5e6  # insulation of the station itself
FAULT_OHM = 20e3
GRACE_S = 2.0
GRID_EXPORT_W = 1e6  # what the desk's grid protection permits
REPEAT_S = 0.05  # signals are told again after so long, though they stay
HEARS = ({"can_id": codec.POWER_ID, "can_mask": 0x7FF},)  # its acceptance filter
FAULTS = (
    "emergency-stop",
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
    armed: bool = False  # the request was seen off since the last forced opening
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
    """What the controller senses of one EVSE."""

    occupied: bool = False
    immobilised: bool = False
    vehicle_ohm: float | None = None
    voltage_v: float = 0.0
    current_a: float = 0.0


@dataclass
class Controller:
    """The logic of the safety controller, without I/O."""

    evses: list[int]
    latched: bool = False
    blocks: int = 0  # of the contactor matrix
    cuts_off: bool = False  # it drives the modules' inhibit input, or an AC contactor before them
    switched: bool = False  # three contactors per EVSE join its groups: one in series, two in parallel
    grid_export_w: float = GRID_EXPORT_W
    heartbeat_s: float = HEARTBEAT_S
    faults: set[tuple[str, int]] = field(default_factory=set)  # (name, EVSE or 0)
    circuits: dict[int, Circuit] = field(default_factory=dict)
    command: codec.PowerCommand = field(default_factory=codec.PowerCommand)
    heard_at: float = float("-inf")
    ever_heard: bool = False
    stopped_at: float | None = None
    counter: int = 0
    bits: int = 0
    released: bool = False  # AC contactors have their coils' supply through it

    def __post_init__(self) -> None:
        self.circuits = {evse: Circuit() for evse in self.evses}
        n = len(self.evses)
        self.links = [Circuit() for _ in range(3 * n if self.switched else self.blocks * n)]
        self._alive = codec.Alive()

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
        """A person resets the emergency on site; in vain while the button is still pressed."""
        if not self.has("emergency-stop"):
            self.latched = False

    def hear(self, data: bytes, now_s: float) -> None:
        """A frame with power's id."""
        command = codec.PowerCommand.decode(data)
        if command is not None and self._alive.advanced(command.counter):
            self.command, self.heard_at, self.ever_heard = command, now_s, True

    @property
    def all_open(self) -> bool:
        return not any(c.closed for c in self.circuits.values())

    def step(self, now_s: float, worlds: dict[int, World]) -> None:
        """One cycle: coils, monitors and the status bits."""
        self.counter = (self.counter + 1) & 0xFF
        pressed = self.has("emergency-stop")
        self.latched = self.latched or pressed
        lost = now_s - self.heard_at > self.heartbeat_s
        self.bits = int(
            codec.Safety.EMERGENCY_STOP * pressed
            + codec.Safety.EMERGENCY_LATCHED * self.latched
            + codec.Safety.DOOR_OPEN * self.has("door")
            + codec.Safety.POWER_LOST * (lost and self.ever_heard)
        )
        forbidden = self.latched or self.has("door")
        self.released = not lost and not forbidden
        if not forbidden:
            self.stopped_at = None
        elif self.stopped_at is None:
            self.stopped_at = now_s
        for evse, circuit in self.circuits.items():
            world = worlds.get(evse, World())
            bit = 1 << (evse - 1)
            requested = bool(self.command.contactors & bit) and not lost
            if lost or forbidden:
                circuit.armed = False
            elif not self.command.contactors & bit:
                circuit.armed = True
            wait = self.stopped_at is not None and now_s - self.stopped_at < ZERO_WAIT_S
            under_load = circuit.coil and abs(world.current_a) >= SMALL_A and wait
            wanted = requested and (circuit.armed or (forbidden and under_load))
            circuit.drive(wanted, self.has("weld", evse), now_s)
            circuit.measure(
                bool(self.command.monitors & bit) and not lost,
                bool(self.command.self_tests & bit),
                self.has("self-test", evse),
                self._insulation(evse, world),
                now_s,
            )
            if circuit.monitor == codec.Monitor.FAULT:
                self.bits |= int(codec.Safety.MONITOR_FAULT)

        self._drive_links(now_s, lost)

    def _drive_links(self, now_s: float, lost: bool) -> None:
        """Contactors of matrix and groups: as asked, but never rivals together; without power's heartbeat they stay."""
        for bit, circuit in enumerate(self.links):
            rivals = [self.links[i] for i in self._rivals(bit)]
            wanted = circuit.coil if lost else bool(self.command.links >> bit & 1)
            wanted = wanted and not self.has("link-drop")
            free = not any(rival.coil or rival.closed for rival in rivals)
            circuit.drive(wanted and (free or circuit.coil), self.has("link-weld"), now_s)

    def _rivals(self, bit: int) -> list[int]:
        """Contactors that may not be closed beside this one: others of its block; series beside parallel."""
        if self.switched:
            first = bit - bit % 3
            return [first + 1, first + 2] if bit == first else [first]
        first = bit - bit % len(self.evses)
        return [i for i in range(first, first + len(self.evses)) if i != bit]

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
        feedback = 0
        frames = []
        for evse, circuit in self.circuits.items():
            world = worlds.get(evse, World())
            shown = circuit.closed
            if self.has("feedback-stuck", evse):
                shown = False
            feedback |= shown << (evse - 1)
            bits = int(
                codec.POLES * shown
                + codec.Bay.COIL * circuit.coil
                + codec.Bay.OCCUPIED * world.occupied
                + codec.Bay.IMMOBILISED * world.immobilised
                + codec.Bay.FIELD_CLEAR * (not self.has("field", evse))
            )
            status = codec.EvseStatus(circuit.ohm, circuit.monitor, circuit.sequence, bits, self.counter)
            frames.append((codec.EVSE_ID + evse, status.encode(evse)))
        safety = codec.SafetyStatus(self.bits, feedback, 30.0, self.counter)
        export_w = 0.0 if self.has("grid-withdrawn") else self.grid_export_w
        if not self.has("grid-silent"):
            frames.append((codec.GRID_ID, codec.GridPermit(export_w, self.counter).encode()))
        if self.links:
            frames.append((codec.LINK_ID, codec.LinkStatus(self.links_closed, self.counter).encode()))
        return [(codec.SAFETY_ID, safety.encode()), *frames]


class SafetyProcess:
    """The controller with its bus and wires."""

    def __init__(
        self,
        port: FramePort,
        evses: list[int],
        heartbeat_s: float,
        blocks: int = 0,
        switched: bool = False,
        cuts_off: bool = False,
    ) -> None:
        self.port = port
        self.path: Path = run_directory() / "safety.json"
        self.controller = Controller(evses, self._read_latch(), blocks, switched=switched, heartbeat_s=heartbeat_s)
        self.controller.cuts_off = cuts_off
        self._saved = self.controller.latched
        self.cycle = 0
        self._told: tuple[float, dict[str, Any]] = (0.0, {})
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
            worlds[evse] = World(
                bool(car.get("occupied")),
                bool(car.get("immobilised")),
                car.get("insulation_ohm"),
                float(rack.get("voltage_v", {}).get(str(evse), 0.0)),
                float(rack.get("current_a", {}).get(str(evse), 0.0)),
            )
        controller.step(now_s, worlds)
        if controller.latched != self._saved:
            self._saved = controller.latched
            self.path.write_text(json.dumps({"emergency_latched": self._saved}))
        self.tell(now_s)
        if not controller.has("silent"):
            frames = controller.frames(worlds)
            self.port.write([identifier for identifier, _ in frames], codec.rows([data for _, data in frames]))

    def tell(self, now_s: float) -> None:
        closed = {str(e): c.closed for e, c in self.controller.circuits.items()}
        released = self.controller.released
        signals = {"contactors": closed, "links": self.controller.links_closed, "released": released}
        if self.controller.cuts_off:
            signals["cut_off"] = not released
        told_s, told = self._told
        if signals != told or now_s - told_s >= REPEAT_S:
            self._told = (now_s, signals)
            self.wires.send("rack", signals)
        if self.cycle % 10 == 0:
            self.wires.send("cli", {"emergency": self.controller.latched, "contactors": closed})

    def close(self) -> None:
        for circuit in self.controller.circuits.values():
            circuit.coil = circuit.closed = False
        self.controller.released = False
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
    parser.add_argument(
        "--cut-off", action="store_true", help="it drives the modules' inhibit input: they end with power's heartbeat"
    )
    arguments = parser.parse_args()
    stop = StopSignal()
    try:
        port = frame_port(open_bus(expand(arguments.bus)[0], can_filters=HEARS))
        heartbeat_s = arguments.heartbeat_ms / 1e3
        process = SafetyProcess(port, arguments.evses, heartbeat_s, arguments.blocks, arguments.switched, arguments.cut_off)
    except (BusError, WireError) as error:
        refuse(f"safety: {error}")
    simulator_realtime(30)  # hardware does not wait for a computer's other work
    gc.collect()
    gc.freeze()
    run(process, stop)
    process.close()


if __name__ == "__main__":
    main()
