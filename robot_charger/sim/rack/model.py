"""The physics of a rack, without I/O: modules, the DC network of each output, energies and faults.

Each output has a bank side (the modules' capacitors) and a vehicle side (cable and inlet), joined by contactors.
Behind a closed vehicle contactor stands a battery (EMF and resistance) whose time constant against the
capacitors is microseconds: it is solved as an equilibrium, everything else as exponentials, so 10 ms steps are
exact enough.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from robot_charger.power import codec
from robot_charger.power.placing import assign
from robot_charger.sim.rack.habits import Habits

LAG_S = 0.005  # of a module's current behind its set-point
BANK_FARAD = 20e-6  # per module
BANK_BLEED_OHM = 1000.0  # per module; they act while every module of an output is off
IDLE_OHM = 1e6  # of a bank that is on: its measuring dividers
CABLE_FARAD = 5e-6
CABLE_BLEED_OHM = 20_000.0
THERMAL_S = 120.0
PIN_S = 20.0
THERMAL_K_PER_W = 0.2
EFFICIENCY = 0.95
RATED_W = 3300.0
INPUT_V = 650.0
LIFE_H = (
    100_000.0  # of operation; by then a module has lost these (assumed) shares of its rating and of what it passes:
)
AGED_RATING, AGED_EFFICIENCY = 0.2, 0.02
SURPLUS_S = 0.001  # of the current's way into the capacitors, when the vehicle opens under load
SETTLE_S = 0.020  # of the voltage loop after it
DERATING_C = np.array([35.0, 40.0, 45.0, 50.0, 55.0, 60.0])
DERATING = np.array([3300.0, 3000.0, 2700.0, 2300.0, 1800.0, 0.0]) / RATED_W
LATE_S = 0.2
WARM_STEP_S = 0.1  # heat is slow
LOST_SHARE = 0.5  # of the frames to and from a module with bad contacts
WRONG_SHARE = 0.8  # what a wrong measuring board shows of the voltages
MODULE_FAULTS = (
    "module-dead",
    "silent",
    "deaf",
    "lost-frames",
    "late-frames",
    "duplicate-id",
    "restart",
    "input-lost",
    "over-temperature",
    "stuck",
    "runaway",
    "wrong-value",
    "no-address",
)
RACK_FAULTS = (
    "supply-lost",
    "pin-hot",
    "coolant-lost",
    "output-silent",
    "output-wrong",
    "output-bleeder",
    "bank-bleeder",
)
BROKEN_BLEED = 100.0  # times the bleeder's resistance: what measuring dividers leave
FAULTS = (*MODULE_FAULTS, "bus-off", *RACK_FAULTS)


@dataclass
class Vehicle:
    """What the wire of one vehicle says."""

    connected: bool = False
    contactor: bool = False
    emf_v: float = 0.0
    resistance_ohm: float = 0.05


@dataclass
class Network:
    """One output: voltages and current now, energies since the start."""

    vehicle: Vehicle = field(default_factory=Vehicle)
    contactors: bool = False
    bank_v: float = 0.0
    output_v: float = 0.0
    current_a: float = 0.0
    import_wh: float = 0.0
    export_wh: float = 0.0
    module_wh: float = 0.0
    peak_a: float = 0.0
    inrush_a: float = 0.0  # highest, as the vehicle's contactor closed
    held: bool = False
    surge_v: float = 0.0  # above the set-point, after a load dump
    pin_c: float = 25.0
    coolant_c: float = 25.0
    cable_c: float = 25.0
    max_v: float = 0.0

    @property
    def meter_v(self) -> float:
        return self.output_v

    @property
    def power_w(self) -> float:
        return self.output_v * self.current_a


class Rack:
    """``modules`` modules, shared evenly over ``evses`` outputs, in ``series`` groups each.

    ``switched``: contactors join the groups, in series or in parallel; else they are in series for good. ``ageing``:
    operating hours that count for one hour that a module runs.
    """

    def __init__(
        self,
        modules: int,
        evses: list[int],
        seed: int = 1,
        series: int = 1,
        blocks: int = 0,
        switched: bool = False,
        ageing: float = 1.0,
        habits: Habits | None = None,
    ) -> None:
        random = np.random.default_rng(seed)
        n = modules
        self.count = n
        self.habits = habits = habits or Habits()
        self.rated_a, self.rated_w = habits.rating.current_a, habits.rating.power_w
        self.networks = {evse: Network() for evse in evses}
        self.series = series
        self.switched = switched
        self.ageing = ageing
        self.arrangement = dict.fromkeys(evses, 0 if switched else series)  # groups in series, 0: not joined
        self.block = np.zeros(n, np.int64)
        if blocks:
            self.block, self.group = assign(n, list(range(blocks)), series)
            self.evse = np.zeros(n, np.int64)
        else:
            self.evse, self.group = assign(n, evses, series)
        self._links = 0
        self.short = False  # two outputs were joined once, a group was shorted, or a live contactor moved
        self._connect()
        self.current = np.zeros(n)
        self.setpoint_a = np.zeros(n)
        self.setpoint_v = np.zeros(n)
        self.enable = np.zeros(n, bool)
        self.valid_at = np.full(n, -math.inf)  # last valid set-point [s]
        self.hold_s = np.full(n, habits.hold_s)
        self.started_s = np.full(n, -math.inf)  # when a module is through with its soft start
        self.range_v = np.full(n, habits.rating.voltage_v)  # of the output range that a module is in
        self.ambient = np.full(n, 25.0) + random.uniform(-1.0, 1.0, n)
        self.temperature = self.ambient + 5.0
        self.hours = random.uniform(0.0, 5000.0, n)
        self.serial = random.permutation(n) + 100_001
        self.firmware = np.full(n, 0x0100)
        self.booting = np.zeros(n, bool)  # in its bootloader: no power, no set-points
        self._gain = 1.0 + random.normal(0.0, 0.001, n)
        self.offset_a, self.error = habits.errors(n, random)
        self._random = random
        self.inhibited = 0  # EVSEs whose modules the safety controller holds off, a bit each
        self.counter = 0
        self.dead = np.zeros(n, bool)
        self.silent = np.zeros(n, bool)
        self.deaf = np.zeros(n, bool)
        self.lossy = np.zeros(n, bool)
        self.late = np.zeros(n, bool)
        self.double = np.zeros(n, bool)
        self.unfed = np.zeros(n, bool)
        self.hot = np.zeros(n, bool)
        self.stuck = np.zeros(n, bool)
        self.runaway = np.zeros(n, bool)
        self.wrong = np.zeros(n, bool)
        self.blank = np.zeros(n, bool)  # new: without an address it neither speaks nor obeys
        self.starts = random.integers(0, 2000, n)
        self.energy_kwh = self.hours * random.uniform(0.5, 2.0, n)
        self.hottest = self.temperature.copy()
        self.fault_count = np.zeros(n, np.int64)
        self.last_faults = np.zeros(n, np.uint16)
        self.fault_hours = np.zeros(n)
        self._own_faults = np.zeros(n, np.uint16)
        self._ran = np.zeros(n, bool)
        masks = (self.dead, self.silent, self.deaf, self.lossy, self.late, self.double, self.booting, self.unfed,
                 self.hot, self.stuck, self.runaway, self.wrong, self.blank)  # fmt: skip
        self._fault_masks = dict(zip(MODULE_FAULTS, masks, strict=True))
        self.buses_off: set[int] = set()
        self.faults: set[str] = set()  # of RACK_FAULTS
        self._delayed: deque[tuple[float, np.ndarray]] = deque()
        self._volts = np.zeros(n)  # at each module's terminals, after the last step
        self._frames = np.zeros(n, codec.STATUS)
        self.available = np.full(n, self.rated_a)
        self.state = np.full(n, codec.State.STANDBY, np.uint8)
        self.module_faults = np.zeros(n, np.uint16)
        self._warm_s = 0.0  # time since temperatures and hours were brought up to date
        self._refresh()

    def fault(self, name: str, on: bool, module: int = 0, bus: int = 0) -> bool:
        """Switch a fault of one module (from 1; 0 = the first that runs). False when there is none of this name."""
        if name == "bus-off":
            (self.buses_off.add if on else self.buses_off.discard)(bus)
        elif name in RACK_FAULTS:
            (self.faults.add if on else self.faults.discard)(name)
        elif name in MODULE_FAULTS and 0 <= module <= self.count:
            mask = self._fault_masks[name]
            if not module and not on:
                mask[:] = False
            else:
                mask[module - 1 if module else int(np.argmax(self.enable))] = on
        else:
            return False
        self._refresh()
        return True

    def command(
        self, index: np.ndarray, voltage_v: np.ndarray, current_a: np.ndarray, enable: np.ndarray, now_s: float
    ) -> None:
        """Valid set-points for the modules at ``index``."""
        if self._hard_of_hearing:
            heard = ~self.deaf[index] & ~self.blank[index] & ~self._lost(index)
            index, voltage_v, current_a, enable = index[heard], voltage_v[heard], current_a[heard], enable[heard]
        self.setpoint_v[index] = voltage_v
        least = self.habits.min_current_a
        refused = (np.abs(current_a) < least) & (np.asarray(enable) & (current_a != 0.0)) if least else False
        self.setpoint_a[index] = np.where(refused, self.setpoint_a[index], current_a)
        self.enable[index] = enable
        self.valid_at[index] = now_s

    def climate(self, ambient_c: np.ndarray) -> None:
        """The air at every module's inlet [deg C]."""
        self.ambient[:] = ambient_c
        self._refresh()

    def exchange(self, module: int, serial: int, blank: bool = False) -> None:
        """Another module in this one's place (from 1), with the same address, or with none."""
        self.serial[module - 1] = serial
        for life in (self.hours, self.energy_kwh, self.starts, self.fault_count, self.last_faults, self.fault_hours):
            life[module - 1] = 0
        self.blank[module - 1] = blank
        self._refresh()

    def take_address(self, module: int) -> None:
        """A module (from 0) was given its address."""
        self.blank[module] = False
        self._refresh()

    def boot(self, module: int, on: bool) -> None:
        """A module (from 0) enters or leaves its bootloader."""
        self.booting[module] = on
        self._refresh()

    def _refresh(self) -> None:
        """What only faults change: each module's rating and what it says while it runs or stands by."""
        ambient = np.where(self.hot, 65.0, self.ambient)
        self._cool_w = np.interp(ambient, DERATING_C, DERATING) * self.rated_w
        self._age()
        unfed = self.unfed | ("supply-lost" in self.faults)
        shut = (self._cool_w <= 0.0) | unfed
        self._failed = self.dead | shut | self.booting
        running = np.where(self._cool_w < self.rated_w, codec.State.DERATED, codec.State.RUNNING)
        self._running_state = np.where(shut, codec.State.FAULT, running).astype(np.uint8)
        idle = np.where(self.booting, codec.State.INIT, codec.State.STANDBY)
        self._idle_state = np.where(shut, codec.State.FAULT, idle).astype(np.uint8)
        overheated = np.where(self._cool_w <= 0.0, int(codec.ModuleFault.OVERTEMPERATURE), 0)
        before = self._own_faults
        self._own_faults = (overheated | np.where(unfed, int(codec.ModuleFault.INPUT), 0)).astype(np.uint16)
        came = self._own_faults & ~before
        self.fault_count += came > 0
        self.last_faults = np.where(came, came, self.last_faults)
        self.fault_hours = np.where(came, self.hours, self.fault_hours)
        self._meter_gain = np.where(self.wrong, 0.5, 1.0)
        self._warm_c = ambient + 5.0
        self._frames["ambient"] = codec.raw_celsius(ambient)
        self._frames["serial_tag"] = self.serial & 0xFFFF
        self._odd = bool((self.dead | self.silent | self.late | self.double | self.lossy | self.blank).any())
        self._hard_of_hearing = bool((self.deaf | self.lossy | self.blank).any())
        self._any_wild = bool((self.stuck | self.runaway).any())
        habits = self.habits
        self._real = bool(habits.start_s or self.offset_a.any() or (self.error != 1.0).any())

    def _really(self, wanted: np.ndarray, running: np.ndarray, began: np.ndarray, now_s: float) -> np.ndarray:
        """What modules make of their set-points: soft start, offset, gain; below the bus they give nothing."""
        self.started_s = np.where(began, now_s + self.habits.start_s, self.started_s)
        giving = running & (now_s >= self.started_s)
        below = (wanted >= 0.0) & (self.setpoint_v < self._volts - 0.5)
        real = np.where(wanted >= 0.0, np.maximum(wanted * self.error + self.offset_a, 0.0), wanted * self.error)
        return np.where(giving & ~below, np.minimum(real, self.available * 1.02), 0.0)

    def _age(self) -> None:
        """What hours of operation leave of each module's rating and efficiency."""
        worn = np.minimum(self.hours / LIFE_H, 1.0)
        self.health = 1.0 - AGED_RATING * worn
        self.efficiency = EFFICIENCY - AGED_EFFICIENCY * worn
        self._limit_w = self._cool_w * self.health

    def _lost(self, index: np.ndarray) -> np.ndarray:
        """Which frames to or from the modules at ``index`` are lost now."""
        return self.lossy[index] & (self._random.random(len(index)) < LOST_SHARE)

    def step(self, now_s: float, dt_s: float) -> None:
        """Advance by ``dt_s`` [s]."""
        self.counter = (self.counter + 1) & 0xFF
        self._measure()
        fresh = now_s - self.valid_at <= self.hold_s
        running = self.enable & fresh & ~self._failed
        held = self._held()
        running &= ~held
        began = running & ~self._ran
        self.starts += began
        self._ran = running
        self.state = np.where(running, self._running_state, self._idle_state)
        self.module_faults = self._own_faults | np.where(fresh, 0, int(codec.ModuleFault.SETPOINT_LOST))
        self.available = np.minimum(self.rated_a, self._limit_w / np.maximum(self._volts, 50.0))
        limited = np.minimum(np.maximum(self.setpoint_a, -self.available), self.available)
        self.obeyed = wanted = np.where(running, limited, 0.0)
        if self._real:
            wanted = self._really(wanted, running, began, now_s)
        if self._any_wild:
            wanted = np.where(self.stuck, self.current, np.where(self.runaway & self.enable, self.available, wanted))
        share = 1.0 - math.exp(-dt_s / LAG_S)
        self.current = np.where(self._failed, 0.0, self.current + (wanted - self.current) * share)
        if self._any_wild:
            self.obeyed = np.where(self.stuck, self.current, self.obeyed)
        self._warm_s += dt_s
        if self._warm_s >= WARM_STEP_S:
            loss = np.abs(self.current) * self._volts * (1.0 - self.efficiency)
            self.temperature += (self._warm_c + loss * THERMAL_K_PER_W - self.temperature) * self._warm_s / THERMAL_S
            self.hours += running * (self._warm_s / 3600.0 * self.ageing)
            self._age()
            self.energy_kwh += np.abs(self.current) * self._volts * (self._warm_s / 3.6e6)
            self.hottest = np.maximum(self.hottest, self.temperature)
            self._warm_s = 0.0
            self._frames["temperature"] = codec.raw_celsius(self.temperature)
        self.current[held] = 0.0
        started = now_s >= self.started_s if self.habits.start_s else True
        on = (running & started | self.stuck) & ~held
        for evse, network in self.networks.items():
            self._network(network, evse, on, dt_s)
        if self._any_loose:  # of no output: their capacitors empty themselves
            self._volts[self._loose] *= math.exp(-dt_s / (BANK_BLEED_OHM * BANK_FARAD))
            self.current[self._loose] = 0.0
        self._measure()

    def _held(self) -> np.ndarray:
        """Modules that the safety controller holds off by wire, whatever they were told or have broken."""
        if not self.inhibited:
            return np.zeros(self.count, bool)
        return (self.evse > 0) & (self.inhibited >> np.maximum(self.evse - 1, 0) & 1).astype(bool)

    def join(self, links: int) -> None:
        """The matrix's closed contactors, bit b * EVSEs + k joining block b to the k-th EVSE."""
        if links == self._links:
            return
        self._links = links
        evses = list(self.networks)
        if self.switched:
            for k, evse in enumerate(evses):
                self._arrange(evse, links >> 3 * k & 7)
            self._connect()
            return
        for block in range(int(self.block.max()) + 1):
            bits = links >> block * len(evses) & (1 << len(evses)) - 1
            self.short = self.short or bits.bit_count() > 1
            mine = self.block == block
            owner = evses[bits.bit_length() - 1] if bits else 0
            if owner and (self.evse[mine] != owner).any():
                # What joins a live output unlike itself would be a bang; the books keep it.
                bank_v, own_v = self.networks[owner].bank_v, float(self._volts[mine].max()) * self.series
                apart = abs(bank_v - own_v) > 20.0 and max(bank_v, own_v) > 60.0
                self.short = self.short or apart
            self.evse[mine] = owner
        self._connect()

    def _arrange(self, evse: int, contacts: int) -> None:
        """Contacts between two groups: bit 0 in series, bits 1 and 2 (plus, minus) in parallel."""
        self.short = self.short or bool(contacts & 1 and contacts & 6)
        series = {1: 2, 6: 1}.get(contacts, 0)
        mine = self.evse == evse
        moved = series != self.arrangement[evse]
        live = self.networks[evse].contactors or bool((self._volts[mine] > 60.0).any())
        self.short = self.short or (moved and live)
        self.arrangement[evse] = series

    def _connect(self) -> None:
        self._masks = {evse: (self.evse == evse) & (series > 0) for evse, series in self.arrangement.items()}
        self._groups = {
            evse: [mask] if self.arrangement[evse] < 2 else [mask & (self.group == g) for g in range(self.series)]
            for evse, mask in self._masks.items()
        }
        self._in_series = {evse: max(series, 1) for evse, series in self.arrangement.items()}
        self._loose = ~np.any(list(self._masks.values()), axis=0)
        self._any_loose = bool(self._loose.any())

    def _measure(self) -> None:
        for evse, network in self.networks.items():
            self._volts[self._masks[evse]] = network.bank_v / self._in_series[evse]

    def _network(self, n: Network, evse: int, running: np.ndarray, dt_s: float) -> None:
        mask = self._masks[evse]
        on = mask & running
        count = max(int(mask.sum()), 1)
        series = self._in_series[evse]
        groups = [group & running for group in self._groups[evse]]
        sums = [float(self.current[g].sum()) for g in groups]
        pushed = min(sums, key=abs)  # the groups are in series: the weakest sets the current
        tops = np.minimum(self.setpoint_v, self.range_v)
        ceiling = sum(float(tops[g].max()) for g in groups if g.any())
        farad = BANK_FARAD * count / series**2
        car = n.vehicle
        held = car.connected and car.contactor
        used = 0.0
        bleed = BANK_BLEED_OHM * series**2 / count * self._broken("bank-bleeder") if not on.any() else IDLE_OHM
        cable = CABLE_BLEED_OHM * self._broken("output-bleeder")
        closes, opens = held and not n.held, n.held and not held
        n.held = held
        surge_v = 0.0
        if n.contactors and opens and self.habits.overshoot:
            surge_v = min(pushed * SURPLUS_S / farad, self.habits.overshoot * ceiling)
        n.surge_v = max(surge_v, n.surge_v * math.exp(-dt_s / SETTLE_S)) if on.any() else 0.0
        if n.contactors and held:
            rush_a = (n.output_v - car.emf_v) / max(car.resistance_ohm, 1e-3) if closes and self.habits.inrush else 0.0
            rush_c = (n.output_v - car.emf_v) * (farad + CABLE_FARAD) if rush_a else 0.0
            flow = pushed
            if pushed > 0.0:
                flow = min(pushed, max(0.0, (ceiling - car.emf_v) / max(car.resistance_ohm, 1e-3)))
            n.output_v = n.bank_v = car.emf_v + car.resistance_ohm * flow
            used = flow
            n.current_a = flow + rush_c / dt_s
            n.inrush_a = max(n.inrush_a, abs(rush_a))
        else:
            if n.contactors:  # one node; the vehicle is not on it
                joint = farad + CABLE_FARAD
                start = (n.bank_v * farad + n.output_v * CABLE_FARAD) / joint
                both = bleed * cable / (bleed + cable)
                n.bank_v, used = _charge(start, pushed, ceiling, joint, both, bool(on.any()), dt_s)
                if n.surge_v > 0.5:
                    n.bank_v = ceiling + n.surge_v
                n.output_v = n.bank_v
                n.current_a = max(0.0, (n.bank_v - start) * CABLE_FARAD / dt_s) + n.bank_v / cable
            else:
                n.bank_v, used = _charge(n.bank_v, pushed, ceiling, farad, bleed, bool(on.any()), dt_s)
                n.output_v *= math.exp(-dt_s / (cable * CABLE_FARAD))
                if held:
                    n.output_v = car.emf_v
                n.current_a = 0.0
        for group, total in zip(groups, sums, strict=True):
            if total:
                self.current[group] *= used / total
        power = n.output_v * n.current_a
        n.import_wh += max(power, 0.0) * dt_s / 3600.0
        n.export_wh += max(-power, 0.0) * dt_s / 3600.0
        n.module_wh += n.bank_v / series * float(self.current[mask].sum()) * dt_s / 3600.0
        # 400 A heats sound pins by 30 K, a worn one by 130 K.
        rise = (130.0 if "pin-hot" in self.faults else 30.0) * (n.current_a / 400.0) ** 2
        n.pin_c += (25.0 + rise - n.pin_c) * dt_s / PIN_S
        n.cable_c += (25.0 + 20.0 * (n.current_a / 400.0) ** 2 - n.cable_c) * dt_s / THERMAL_S
        # The pump warms its coolant by 15 K at 400 A; standing coolant by 200 K.
        warm = (200.0 if "coolant-lost" in self.faults else 15.0) * (n.current_a / 400.0) ** 2
        n.coolant_c += (25.0 + warm - n.coolant_c) * dt_s / PIN_S
        n.peak_a = max(n.peak_a, abs(n.current_a))
        n.max_v = max(n.max_v, n.output_v)

    def _broken(self, bleeder: str) -> float:
        """By how much the resistance of a bleeder is too high now."""
        return BROKEN_BLEED if bleeder in self.faults else 1.0

    def status(self, now_s: float) -> tuple[np.ndarray, np.ndarray]:
        """Status frames that leave now: module index (n) and STATUS records (n)."""
        frames = self._frames.copy()
        noise = self._random.normal(0.0, 0.05, self.count) * (self._volts > 1.0)
        frames["voltage"] = codec.raw_volts((self._volts + noise) * self._meter_gain)
        frames["current"] = codec.raw_amperes(self.current * self._gain)
        frames["setpoint"] = codec.raw_amperes(self.obeyed)
        frames["available"] = self.available / codec.AMPERE + 0.5
        frames["faults"] = self.module_faults
        frames["state"] = self.state
        frames["counter"] = self.counter
        if not self._odd and not self._delayed:
            return np.arange(self.count), frames
        index = np.flatnonzero(~(self.dead | self.silent | self.late | self.blank))
        index = index[~self._lost(index)]
        out_index, out = [index], [frames[index]]
        late = np.flatnonzero(self.late & ~self.dead & ~self.silent & ~self.blank)
        if len(late):
            # Frames pile up on their way and arrive in clumps.
            if not self._delayed or now_s - self._delayed[0][0] < LATE_S:
                self._delayed.append((now_s, late))
            else:
                self._delayed.clear()
                out_index.append(late)
                out.append(frames[late])
        double = np.flatnonzero(self.double & ~self.dead & ~self.blank)
        if len(double):
            twins = frames[double].copy()
            twins["serial_tag"] ^= 0x5555
            out_index.append(double)
            out.append(twins)
        return np.concatenate(out_index), np.concatenate(out)

    def outputs(self) -> dict[int, bytes]:
        """What the measuring board of each EVSE sends now."""
        if "output-silent" in self.faults or 0 in self.buses_off:
            return {}
        gain = WRONG_SHARE if "output-wrong" in self.faults else 1.0
        return {
            evse: codec.OutputMeasurement(
                n.output_v * gain,
                n.bank_v * gain,
                n.current_a + self._ripple(n),
                n.pin_c,
                n.pin_c,
                n.cable_c,
                n.coolant_c,
                self.counter,
            ).encode(evse)
            for evse, n in self.networks.items()
        }

    def _ripple(self, n: Network) -> float:
        """What the board catches of the modules' ripple now [A]."""
        top = self.habits.ripple_a
        return float(self._random.uniform(-top, top)) if top and n.current_a else 0.0

    def sensors(self) -> tuple[np.ndarray, np.ndarray]:
        """Sensor frames that leave now: module index (n) and SENSOR records (n)."""
        frames = np.zeros(self.count, codec.SENSOR)
        frames["hours"] = np.rint(self.hours / codec.HOUR)
        frames["input_voltage"] = int(INPUT_V / codec.VOLT)
        drawn_w = np.maximum(self.current, 0.0) * self._volts / self.efficiency
        frames["input_current"] = np.rint(drawn_w / INPUT_V / codec.AMPERE)
        frames["efficiency"] = np.rint(self.efficiency * 1e4)
        frames["serial"] = self.serial
        frames["firmware"] = self.firmware
        speaks = ~(self.dead | self.silent | self.blank)
        return np.flatnonzero(speaks), frames[speaks]


def _charge(
    voltage: float, current: float, ceiling: float, farad: float, bleed_ohm: float, on: bool, dt_s: float
) -> tuple[float, float]:
    """Voltage of a capacitor after ``dt_s`` and the mean current it took from the modules."""
    if on and voltage <= ceiling and current > 0.0:
        after = min(voltage + current * dt_s / farad, ceiling)
        return after, (after - voltage) * farad / dt_s
    floor = ceiling if on else 0.0
    after = floor + (voltage - floor) * math.exp(-dt_s / (bleed_ohm * farad))
    return after, 0.0
