"""The modules of a bank: what each one reports, which are healthy, and how a current is shared over them.

State is kept as arrays over all modules, index 0 to n - 1 (a module's ``id`` is its index + 1), so that a cycle
costs the same handful of numpy calls for one module or nine hundred.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from robot_charger.common.clock import MILLISECOND, SECOND
from robot_charger.power import codec
from robot_charger.power.parameters import PowerParameters
from robot_charger.power.placing import assign, divide, place

BLOCKING = int(
    codec.ModuleFault.OVERVOLTAGE
    | codec.ModuleFault.OVERCURRENT
    | codec.ModuleFault.OVERTEMPERATURE
    | codec.ModuleFault.INPUT
    | codec.ModuleFault.HARDWARE
    | codec.ModuleFault.ADDRESS_CLASH
)
GAP_NS = 50 * MILLISECOND  # this process slept: its clocks of suspicion stop for so long
SUSPECT_NS = 200 * MILLISECOND  # a wrong value must last so long, and longer than a module may be silent
PROBATION_NS = 300 * MILLISECOND  # of good frames before a module that joined serves
FRESH_NS = 30 * MILLISECOND
ECHO_A = 0.05  # an echoed set-point that differs by more is another one
RETRY_NS = 10 * SECOND  # a module that was put aside for wrong values may try again
CROWDED, SPARSE = 0.85, 0.5  # of the limit: more modules are called above, fewer suffice below (of best_load)
SPARSE_NS = 5 * SECOND  # ... for so long
LEAVE_NS = 200 * MILLISECOND
OBEY_NS = 50 * MILLISECOND  # at least so long until a set-point has arrived, is followed and was measured
WAIT_V = 10.0  # a module that waits regulates one or two such steps below the bus: it gives nothing, and is there
SHIFT = 5.0  # a share moves to another module within so many times the protocol's delay
LAZY, BUSY = 0.3, 0.7  # of what a module is asked for: it does not give it, it does
STATIC_A, STATIC = 2.5, 0.05  # IEC 61851-23: the larger is how far the output may be off
RESERVE = 0.8  # of that, for offsets of modules that nobody has measured yet; the rest is for their gain
ROTATE_NS = 600 * SECOND  # how often a tired module is relieved by a rested one
CLASHES = 4  # changes of serial number within a second that two modules with one address show


class Crew:
    """The modules that run for one EVSE: how many there should be, and when [ns] what last happened to them."""

    def __init__(self, now_ns: int) -> None:
        self.size = self.goal = 0  # to run now, and as soon as the trim knows their offsets
        self.sparse_ns = self.rotated_ns = self.moved_ns = now_ns


class Bank:
    """Modules on one or several buses, feeding one or several EVSEs."""

    def __init__(self, parameters: PowerParameters, buses: int = 1) -> None:
        n = parameters.modules
        self.parameters = parameters
        self.count = n
        self.contract = contract = parameters.contract
        patience_ms = max(parameters.bus_timeout_ms, 1.5e3 * contract.silent_s) + parameters.desk_grace_ms
        self._bus_patience_ns = int(patience_ms * MILLISECOND)
        self._silent_ns = int(contract.silent_s * SECOND)
        self._suspect_ns = max(SUSPECT_NS, self._silent_ns)
        self._fresh_ns = max(FRESH_NS, int(1.5 * contract.report_s * SECOND))
        self._echo_a = ECHO_A if not contract.polled else 2.0 * ECHO_A + 0.005 * contract.rating.current_a
        self._late_ns = int(1.5 * contract.report_s * SECOND)
        self._obey_ns = max(OBEY_NS, int((contract.delay_s + contract.report_s) * SECOND))
        self._hold_ns = int((contract.hold_s + contract.report_s) * SECOND)
        self.buses = buses
        self.bus, self.address = place(n, buses)
        self.address += contract.first_address - 1
        if int(self.address.max()) > contract.last_address:
            raise ValueError(
                f"{n} modules on {buses} bus(es) from address {contract.first_address}: the last one that "
                f"{contract.name} has is {contract.last_address}"
            )
        self.first = np.array([int(np.searchsorted(self.bus, b)) for b in range(buses + 1)])
        self.voltage = np.zeros(n)
        self.current = np.zeros(n)
        self.echo = np.zeros(n)
        self.available = np.full(n, parameters.module__max_current_a)
        self.temperature = np.zeros(n)
        self.ambient = np.zeros(n)
        self.hours = np.zeros(n)
        self.faults = np.zeros(n, np.int64)
        self.state = np.zeros(n, np.uint8)
        self.counter = np.zeros(n, np.uint8)
        self.tag = np.zeros(n, np.int64)
        self.heard = np.zeros(n, np.int64)
        self.bus_heard = np.zeros(buses, np.int64)
        self._all = np.arange(n)
        self._usual: list[tuple[bytes, slice]] = [(b"", slice(0))] * buses
        self.bad = 0

        self.groups = parameters.series_groups  # of each EVSE, or of each block
        start = 0 if parameters.series_switched else self.groups
        self.arrangement = dict.fromkeys(parameters.evses, start)  # groups in series; 0: not joined, nobody runs
        self.block = np.zeros(n, np.int64)
        if parameters.matrix__blocks:
            self.block, self.group = assign(n, list(range(parameters.matrix__blocks)), self.groups)
            self.evse = np.zeros(n, np.int64)  # nobody's, until a contactor is seen closed
        else:
            self.evse, self.group = assign(n, parameters.evses, self.groups)
        self.leaving = np.zeros(n, bool)  # still serves, but is no longer promised to anybody
        self._members = self._memberships()

        self.command_v = np.zeros(n)
        self.command_a = np.zeros(n)
        self.enable = np.zeros(n, bool)
        self.healthy = np.zeros(n, bool)
        self.silent = np.ones(n, bool)
        self._joined_ns = np.zeros(n, np.int64)
        self.probation = np.zeros(n, bool)  # heard again, not yet trusted
        self.clash = np.zeros(n, bool)
        self._left_ns = np.zeros(n, np.int64)  # when it was last found not healthy
        self.aside_ns = np.zeros(n, np.int64)  # put aside for wrong values at this time, 0 = not
        self.chosen = np.zeros(n, bool)  # called to run, by fewest modules and hours
        self._on_ns = np.zeros(n, np.int64)  # since when it is asked to be on, 0 = it is not
        self.giving = np.zeros(n, bool)  # carries current; the others that run wait at the bus's voltage
        self._weight = np.zeros(n)
        self._weighed_ns = 0
        self.measured = np.zeros(n, bool)  # its offset is in the trim: it ran while the output agreed with the board
        self._ghost_a = np.zeros(n)  # what a module that fell silent may go on giving until its hold time is over
        self._crew: dict[tuple[int, int], Crew] = {}
        self._wrong_since = np.zeros(n, np.int64)
        self._judged_ns = 0
        self._changes = np.zeros(n, np.int64)
        self._changes_ns = 0
        self._echo_ns = np.zeros(n, np.int64)  # when the echoed set-point last changed
        self._disputed_ns: dict[int, int] = {}  # EVSE -> since when most of its modules measure another voltage

    def _memberships(self) -> list[tuple[int, int, np.ndarray]]:
        """EVSE, series group and mask of the modules in it; groups that are in parallel are one."""
        members = []
        for evse, series in self.arrangement.items():
            mine = self.evse == evse
            members += [(evse, g, mine if series == 1 else mine & (self.group == g)) for g in range(series)]
        return members

    def arrange(self, evse: int, series: int) -> None:
        """So many groups of this EVSE are in series now (0: they are not joined)."""
        if series == self.arrangement[evse]:
            return
        self.arrangement[evse] = series
        mine = self.evse == evse
        self.command_v[mine] = self.command_a[mine] = 0.0
        self.enable[mine] = self.chosen[mine] = False
        self._members = self._memberships()

    def series(self, evse: int) -> int:
        """Groups that share the voltage of this EVSE's output, at least 1."""
        return max(self.arrangement[evse], 1)

    def belong(self, owners: list[int]) -> None:
        """EVSE (0: none) of every block; modules of no EVSE are off."""
        evse = np.array(owners, np.int64)[self.block]
        changed = evse != self.evse
        if not changed.any():
            return
        self.evse = evse
        self.command_v[changed] = self.command_a[changed] = 0.0
        self.enable[changed] = self.chosen[changed] = False
        self._members = self._memberships()

    def figures(self, mine: np.ndarray) -> tuple[float, float, bool]:
        """Of these modules (a mask): highest voltage [V], current [A], whether all are off.

        When none is heard they are neither cold nor still.
        """
        if self.silent[mine].all():
            return float("nan"), float("nan"), False
        heard = mine & ~self.silent
        return (
            float(self.voltage[heard].max()),
            float(np.abs(self.current[heard]).sum()),
            not self.enable[mine].any(),
        )

    def take_status(self, bus: int, ids: np.ndarray, data: np.ndarray, now_ns: int) -> None:
        """Status frames of one bus: ids 0x100 + address, rows of 16 bytes."""
        index, data = self._index(bus, ids, data)
        if not len(data):
            return
        frames = codec.decode_status(data)
        tags = frames["serial_tag"].astype(np.int64)
        changed = (self.tag[index] != tags) & (self.heard[index] > 0)
        if changed.any():
            np.add.at(self._changes, self._all[index][changed], 1)
        self.tag[index] = tags
        self.voltage[index] = frames["voltage"] * codec.VOLT
        self.current[index] = frames["current"] * codec.AMPERE
        echo = frames["setpoint"] * codec.AMPERE
        moved = echo != self.echo[index]
        if moved.any():
            self._echo_ns[index] = np.where(moved, now_ns, self._echo_ns[index])
        self.echo[index] = echo
        self.available[index] = frames["available"] * codec.AMPERE
        self.temperature[index] = frames["temperature"] + codec.CELSIUS_OFFSET
        self.ambient[index] = frames["ambient"] + codec.CELSIUS_OFFSET
        self.faults[index] = frames["faults"]
        self.state[index] = frames["state"]
        fresh = (self.counter[index] != frames["counter"]) | (self.heard[index] == 0)
        self.counter[index] = frames["counter"]
        self.heard[index] = now_ns if fresh.all() else np.where(fresh, now_ns, self.heard[index])
        self.bus_heard[bus] = now_ns

    def report(
        self,
        index: np.ndarray,
        bus: int,
        now_ns: int,
        voltage: np.ndarray,
        current: np.ndarray,
        echo: np.ndarray,
    ) -> None:
        """What modules at ``index`` measure [V, A] and obey [A], from a driver whose frames are not EK3's."""
        self.voltage[index] = voltage
        self.current[index] = current
        moved = np.abs(echo - self.echo[index]) > ECHO_A
        self._echo_ns[index] = np.where(moved, now_ns, self._echo_ns[index])
        self.echo[index] = echo
        self.heard[index] = now_ns
        if len(index):
            self.bus_heard[bus] = now_ns

    def obeys(self, i: int, current_a: float, now_ns: int) -> None:
        """The module at ``i`` confirms this set-point [A]."""
        if abs(current_a - self.echo[i]) > ECHO_A:
            self._echo_ns[i] = now_ns
        self.echo[i] = current_a

    def _index(self, bus: int, ids: np.ndarray, data: np.ndarray) -> tuple[Any, np.ndarray]:
        """Where frames with these ids belong, and the rows that belong somewhere; all others count as bad.

        All modules of a bus in their order, as they usually come, are a slice: far cheaper than an array.
        """
        raw = ids.tobytes()
        if raw == self._usual[bus][0]:
            return self._usual[bus][1], data
        index = self.first[bus] + ids.astype(np.int64) - (codec.STATUS_ID + self.contract.first_address)
        known = (index >= self.first[bus]) & (index < self.first[bus + 1])
        if not known.all():
            self.bad += int(len(ids) - known.sum())
            return index[known], data[known]
        whole = slice(self.first[bus], self.first[bus + 1])
        if np.array_equal(index, self._all[whole]):
            self._usual[bus] = (raw, whole)
        return index, data

    def take_sensor(self, bus: int, ids: np.ndarray, data: np.ndarray) -> None:
        """Sensor frames of one bus: ids 0x300 + address, rows of 16 bytes."""
        index = self.first[bus] + ids.astype(np.int64) - (codec.SENSOR_ID + self.contract.first_address)
        known = (index >= self.first[bus]) & (index < self.first[bus + 1])
        self.bad += int(len(ids) - known.sum())
        self.hours[index[known]] = codec.decode_sensor(data[known])["hours"] * codec.HOUR

    def judge(self, now_ns: int, bank_voltage_v: dict[int, float]) -> None:
        """Which modules are healthy now. ``bank_voltage_v``: measured, per EVSE.

        A module's silence is measured against the newest frame of all modules, so that a pause of this process
        does not look like the death of every module; all of them together have a longer time-out. Nor does a module
        measure wrongly that got its set-point too late from here. Who comes back, or is new, is watched for a while
        before it serves.
        """
        if (gap_ns := now_ns - self._judged_ns) > GAP_NS:
            self._wrong_since[self._wrong_since > 0] += gap_ns
            self._disputed_ns = {evse: since + gap_ns for evse, since in self._disputed_ns.items()}
        self._judged_ns = now_ns
        bus_lost = now_ns - self.bus_heard > self._bus_patience_ns
        age = self.bus_heard.max() - self.heard
        was_silent = self.silent
        self.silent = (self.heard == 0) | (age > self._silent_ns) | bus_lost[self.bus]
        self._joined_ns[was_silent & ~self.silent] = now_ns
        fell = self.silent & ~was_silent
        if fell.any():  # nobody hears it any more, and it may hear nobody
            self._ghost_a[fell] = np.where(np.abs(self.current) > np.abs(self.command_a), self.current, self.command_a)[
                fell
            ] * (self.enable[fell] | (np.abs(self.current[fell]) > 1.0))
        if now_ns - self._changes_ns > SECOND:
            self.clash = self._changes >= CLASHES
            self._changes[:] = 0
            self._changes_ns = now_ns
        elif self._changes.any():
            self.clash |= self._changes >= CLASHES
        self._judge_values(now_ns, bank_voltage_v)
        self.probation = ~self.silent & (now_ns - self._joined_ns <= PROBATION_NS)
        was_healthy = self.healthy
        self.healthy = (
            ~self.silent
            & ~self.clash
            & (self.aside_ns == 0)
            & ~self.probation
            & (self.state != codec.State.FAULT)
            & (self.state != codec.State.INIT)
            & (self.faults & BLOCKING == 0)
        )
        self._left_ns[was_healthy & ~self.healthy] = now_ns

    def _judge_values(self, now_ns: int, bank_voltage_v: dict[int, float]) -> None:
        measured = np.zeros(codec.MAX_EVSES + 1)
        for evse, voltage in bank_voltage_v.items():
            measured[evse] = voltage / self.series(evse)
        bank = measured[self.evse]
        deaf = (np.abs(self.echo - self.command_a) > self._echo_a) & (now_ns - self._echo_ns > self._suspect_ns)
        over = np.abs(self.current) > np.abs(self.echo) * 1.1 + 1.0 + self.contract.offset_a
        off = self.enable & (bank > 60.0) & (np.abs(self.voltage - bank) > np.maximum(10.0, 0.05 * bank))
        if self.contract.starts_slowly:
            off &= self._started(now_ns)
        lost = self.faults & int(codec.ModuleFault.SETPOINT_LOST) != 0
        fresh = ~self.silent & (now_ns - self.heard < self._fresh_ns)  # an old frame accuses nobody: somebody slept
        off &= fresh
        for evse in bank_voltage_v if off.any() or self._disputed_ns else ():
            self._dispute(evse, off, now_ns)
        if self.contract.polled:
            over |= self._lazy(now_ns)
        wrong = (deaf | over | lost) & fresh | off
        self._wrong_since = np.where(wrong, np.where(self._wrong_since == 0, now_ns, self._wrong_since), 0)
        lasting = wrong & (now_ns - self._wrong_since > self._suspect_ns)
        self.aside_ns = np.where(lasting, now_ns, self.aside_ns)
        self.aside_ns = np.where(now_ns - self.aside_ns > RETRY_NS, 0, self.aside_ns)

    def _lazy(self, now_ns: int) -> np.ndarray:
        """Mask of modules that give hardly anything while their neighbours give what they are asked for.

        Some protocols have no public status: a module without input answers, and is silent about it.
        """
        lazy = np.zeros(self.count, bool)
        asked = self.giving & self.healthy & self._started(now_ns) & (np.abs(self.command_a) > 4.0 * self._echo_a)
        for evse in self.arrangement:
            mine = np.flatnonzero(asked & (self.evse == evse))
            if len(mine) >= 2:
                share = self.current[mine] / self.command_a[mine]
                lazy[mine] = (share < LAZY) & (np.sum(share > BUSY) >= len(mine) / 2)
        return lazy

    def _dispute(self, evse: int, off: np.ndarray, now_ns: int) -> None:
        """When most of three modules or more contradict the measuring board, it is the board: nobody is accused."""
        running = self.enable & (self.evse == evse)
        if running.sum() >= 3 and 2 * (off & running).sum() > running.sum():
            off[running] = False
            self._disputed_ns.setdefault(evse, now_ns)
        else:
            self._disputed_ns.pop(evse, None)

    def disputed(self, evse: int, now_ns: int) -> bool:
        """Whether the modules of this EVSE have contradicted its measuring board for too long."""
        return now_ns - self._disputed_ns.get(evse, now_ns) > self._suspect_ns

    @property
    def hot(self) -> np.ndarray:
        """Mask of the modules that report over-temperature."""
        return ~self.silent & (self.faults & int(codec.ModuleFault.OVERTEMPERATURE) != 0)

    def bus_alive(self, now_ns: int) -> np.ndarray:
        """Per bus: whether any module was heard in time."""
        return (self.bus_heard > 0) & (now_ns - self.bus_heard <= self._bus_patience_ns)

    def serving(self, evse: int) -> np.ndarray:
        """Mask of the healthy modules that feed this EVSE."""
        return self.healthy & (self.evse == evse)

    def capability(self, evse: int, voltage_v: float) -> np.ndarray:
        """Current each module may give when the output of this EVSE has this voltage [A]."""
        p = self.parameters
        by_power = p.module__power_w / max(max(voltage_v, p.min_voltage_v) / self.series(evse), 1.0)
        return np.minimum(self.available, min(p.module__max_current_a, by_power))

    def capable_a(self, evse: int, voltage_v: float, promised: bool = False) -> float:
        """Current that the healthy modules of this EVSE can drive at this voltage [A]: its weakest group's.

        ``promised``: without those that are about to leave it.
        """
        able = self.healthy & ~self.leaving if promised else self.healthy
        limits = np.where(able, self.capability(evse, voltage_v), 0.0)
        return min((float(limits[mine].sum()) for number, _, mine in self._members if number == evse), default=0.0)

    def usable(self, evse: int) -> int:
        """Healthy modules of this EVSE; none while a whole series group is missing."""
        counts = [int((mine & self.healthy).sum()) for number, _, mine in self._members if number == evse]
        return sum(counts) if all(counts) else 0

    def highest_v(self, evse: int) -> float:
        """Voltage that the modules of this EVSE reach as they are joined now [V]."""
        return self.series(evse) * self.parameters.module__max_voltage_v

    def share(
        self, evse: int, voltage_v: float, current_a: float, enable: bool, measured_v: float, now_ns: int
    ) -> None:
        """Divide an output's set-point over as few of its healthy modules as fit; the others get zero, or wait.

        Groups in series carry the same current, each its part of the voltage. What a module that was left out gives
        all the same, or may go on giving, is taken off the others' share.
        """
        limits = self.capability(evse, measured_v)
        enable = enable and bool(self.usable(evse))
        for number, group, mine in self._members:
            if number != evse:
                continue
            self.command_a[mine] = 0.0
            self.command_v[mine] = 0.0
            self.enable[mine] = False
            if not enable:
                self.chosen[mine] = self.measured[mine] = self.giving[mine] = False
                self._weight[mine] = 0.0
                self._on_ns[mine] = 0
                self._crew.pop((evse, group), None)
                continue
            serving = mine & self.healthy
            wanted = current_a - self._elsewhere(mine, now_ns)
            if wanted * current_a < 0.0:
                wanted = 0.0
            self._choose((evse, group), serving, abs(wanted), limits, now_ns)
            running = self.chosen & serving
            self._on_ns = np.where(running, np.where(self._on_ns == 0, now_ns, self._on_ns), self._on_ns * ~mine)
            self.enable[running] = True
            giving = self._givers(running, abs(wanted), limits, now_ns)
            self._weigh(mine, giving, now_ns)
            self.command_v[running] = max(0.0, WAIT_V * (measured_v / self.series(evse) // WAIT_V - 1.0))
            self.command_a[running] = self.contract.min_current_a
            giving = self.giving & mine
            self.command_v[giving] = voltage_v / self.series(evse)
            self.command_a[giving] = self._divided(wanted, limits[giving], self._weight[giving])
            self.measured &= running | ~mine

    def shared(self, now_ns: int) -> None:
        """All outputs have their shares of this cycle."""
        self._weighed_ns = now_ns

    def _elsewhere(self, mine: np.ndarray, now_ns: int) -> float:
        """Current that modules which do not serve give, or may give, to this output [A].

        One that fell silent may hold its last set-point until its hold time is over.
        """
        left = mine & ~self.healthy
        if not left.any():
            return 0.0
        heard = left & ~self.silent
        ghosts = left & self.silent & (now_ns - self.heard <= self._hold_ns)
        stray = self._stray(heard, now_ns) if heard.any() else 0.0
        return stray + float(self._ghost_a[ghosts].sum())

    def _stray(self, left: np.ndarray, now_ns: int) -> float:
        """Current that modules which were left out say they give, although they had time to end it [A]."""
        unasked = left & (now_ns - self._left_ns > self._obey_ns)
        return float(np.clip(self.current[unasked], -self.available[unasked], self.available[unasked]).sum())

    def _started(self, now_ns: int) -> np.ndarray:
        """Mask of the modules that were on for longer than they need to start."""
        return (self._on_ns > 0) & (now_ns - self._on_ns >= self.contract.start_s * SECOND)

    def _givers(self, running: np.ndarray, current_a: float, limits: np.ndarray, now_ns: int) -> np.ndarray:
        """Which of the running modules carry this current now; the others wait at the bus's voltage.

        All of them, unless they start slowly or refuse small currents.
        """
        contract = self.contract
        if not contract.starts_slowly and not contract.min_current_a:
            return running
        ready = running & self._started(now_ns)
        if not ready.any():
            ready = running
        if contract.min_current_a and current_a < contract.min_current_a:
            return running & False
        able = np.flatnonzero(ready)
        known = int(self.measured[able].sum())
        most = min(self._most(current_a), known + self._room(current_a))
        least = int(np.searchsorted(np.cumsum(limits[able]) * CROWDED, current_a)) + 1
        best = self._need(current_a, limits[able], self.parameters.share__best_load)
        now = int(self.giving[able].sum())
        count = now if least <= now <= min(most, best + 1) else max(least, min(most, best))
        giving = np.zeros(self.count, bool)
        giving[able[: min(len(able), count)]] = True
        return giving

    def _weigh(self, mine: np.ndarray, giving: np.ndarray, now_ns: int) -> None:
        """Who gives, and how much of an equal share: modules of a slow bus take over, and hand over, gradually.

        Their set-points arrive one after the other: a share that moved at once would flow twice, or not at all.
        """
        if not self.contract.polled:
            self.giving[mine] = giving[mine]
            self._weight[mine] = giving[mine]
            return
        first = mine & self.giving
        step = 1.0 if not first.any() else (now_ns - self._weighed_ns) / (self.contract.delay_s * SHIFT * SECOND)
        weight = np.clip(self._weight + np.where(giving, step, -step), 0.0, 1.0)
        self._weight[mine] = np.where(self.chosen & self.healthy, weight, 0.0)[mine]
        self.giving[mine] = (self._weight > 0.0)[mine]

    def _divided(self, current_a: float, limits_a: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Shares by weight, none above its limit or, where a module refuses small currents, below its least."""
        if not len(weight) or weight.min() >= 1.0:
            return divide(current_a, limits_a)
        full = weight >= 1.0
        shares = current_a * weight / float(weight.sum())
        if (
            np.abs(shares[full]) > limits_a[full]
        ).any() and full.any():  # those at their limit keep it, others the rest
            shares[full] = np.copysign(np.minimum(abs(current_a), limits_a[full]), current_a)
            rest = current_a - float(shares[full].sum())
            shares[~full] = rest * weight[~full] / max(float(weight[~full].sum()), 1e-9)
        if (np.abs(shares) > limits_a).any():
            return divide(current_a, limits_a)
        return np.maximum(shares, self.contract.min_current_a) if self.contract.min_current_a else shares

    def _most(self, current_a: float) -> int:
        """Modules that still carry this current well: more than their offset and their smallest set-point."""
        floor_a = max(2.0 * self.contract.offset_a, self.contract.min_current_a)
        return max(1, int(current_a / floor_a)) if floor_a else self.count

    def _room(self, current_a: float) -> int:
        """Modules whose offsets may add up, unmeasured, without leaving what the standard allows; at least one."""
        allowed_a = RESERVE * max(STATIC_A, STATIC * current_a)
        return max(1, int(allowed_a / max(self.contract.offset_a, 1e-3)))

    def suspected(self, evse: int) -> bool:
        """Whether a module of this EVSE seems to do something wrong: the others' sum is not the output."""
        mine = self.evse == evse
        late = self._judged_ns - self.heard > self._late_ns
        return bool((mine & ((self._wrong_since > 0) | self.enable & (late | ~self.healthy))).any())

    def note_measured(self, evse: int) -> None:
        """The output agrees with its measuring board: the trim holds the offsets of all that run for it."""
        self.measured |= (self._weight >= 1.0) & (self.evse == evse)

    def uncertain_a(self, evse: int) -> float:
        """Largest sum of those offsets that the trim does not know yet [A]."""
        return int((self.giving & ~self.measured & (self.evse == evse)).sum()) * self.contract.offset_a

    def offset_bound_a(self, evse: int) -> float:
        """Largest sum of the offsets of the modules that give current to this EVSE [A]: its weakest group's."""
        counts = [int((self.giving & mine).sum()) for number, _, mine in self._members if number == evse]
        return max(counts, default=0) * self.contract.offset_a

    def _choose(
        self, key: tuple[int, int], serving: np.ndarray, current_a: float, limits: np.ndarray, now_ns: int
    ) -> None:
        """Keep ``chosen`` near the best load, with the least used modules, without changing it at every ampere."""
        best = self.parameters.share__best_load
        healthy = int(serving.sum())
        running = self.chosen & serving
        count = int(running.sum())
        crew = self._crew.setdefault(key, Crew(now_ns))
        total = float(limits[running].sum())
        if current_a >= SPARSE * best * total:
            crew.sparse_ns = now_ns
        need = self._need(current_a, limits[serving], best)
        most = healthy if self.contract.starts_slowly else min(healthy, self._most(current_a))
        least = min(self.parameters.share__modules_min, most)
        allowed = most  # where those that are too many wait, none is too many
        if not self.contract.starts_slowly:
            allowed = min(most, int((self.measured & running).sum()) + self._room(current_a))
        crowded = current_a > CROWDED * total
        if count < least or crowded:
            crew.goal = max(need, least)
        if crowded or count < min(crew.goal, allowed):
            crew.size = max(min(crew.goal, allowed), self._need(current_a, limits[serving], CROWDED) if crowded else 1)
            if crew.size > count:
                self._call(serving & ~running, crew.size - count)
        elif count > most and most < crew.size:
            crew.size = crew.goal = most
        elif now_ns - crew.sparse_ns > SPARSE_NS:
            crew.size = crew.goal = min(max(need, least), max(count, 1))
            crew.sparse_ns = now_ns
        if count > 2 * most:
            self._dismiss(running, count - most)
        elif count > crew.size and now_ns - crew.moved_ns > LEAVE_NS:  # one by one: each leaving is a small dip
            self.chosen[int(np.argmax(np.where(running, self.hours, -np.inf)))] = False
            crew.moved_ns = now_ns
        if now_ns - crew.rotated_ns > ROTATE_NS:
            crew.rotated_ns = now_ns
            self._relieve(running, serving & ~running)

    def _need(self, current_a: float, limits: np.ndarray, load: float) -> int:
        """Modules that carry this current at this share of their limits."""
        mean = max(float(limits.mean()), 1e-3) if len(limits) else 1.0
        return min(max(int(np.ceil(current_a / (load * mean))), 1), max(len(limits), 1))

    def _call(self, spare: np.ndarray, count: int) -> None:
        """Let the least used of ``spare`` run."""
        rested = np.flatnonzero(spare)
        self.chosen[rested[np.argsort(self.hours[rested], kind="stable")[:count]]] = True

    def _dismiss(self, running: np.ndarray, count: int) -> None:
        """The most used modules rest: so many are too many for this current by far."""
        tired = np.flatnonzero(running)
        self.chosen[tired[np.argsort(-self.hours[tired], kind="stable")[:count]]] = False

    def _relieve(self, running: np.ndarray, spare: np.ndarray) -> None:
        """The most used module gives its place to the least used spare one."""
        if not spare.any() or not running.any():
            return
        tired = int(np.argmax(np.where(running, self.hours, -np.inf)))
        rested = int(np.argmin(np.where(spare, self.hours, np.inf)))
        if self.hours[tired] > self.hours[rested] + 1.0:
            self.chosen[tired], self.chosen[rested] = False, True
