"""One bank under control: frames in, gates and outputs judged, set-points shared, frames out.

Plain Python; the node owns the buses and the clock. ``take`` is given what arrived, ``step`` is called every cycle
(and at once when ``take`` says that it is urgent) and returns the frames to send.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace

import numpy as np

from robot_charger.common.can_udp import BIT_RATE_SWITCH, EXTENDED, FD, Batch
from robot_charger.common.clock import MILLISECOND, SECOND
from robot_charger.common.e2e import echo_age
from robot_charger.common.faults import Code, FaultReport, Severity
from robot_charger.power import busload, codec
from robot_charger.power.bank import Bank
from robot_charger.power.drivers import Frames, open_driver
from robot_charger.power.gate import PAUSE_NS, PERMIT_NS, Demand, Gate
from robot_charger.power.monitors import MonitorReader
from robot_charger.power.output import SAFE_V, SMALL_A, Inputs, Mode, Output, cable_check_voltage
from robot_charger.power.parameters import PowerParameters
from robot_charger.power.series import Pair, SeriesSwitch
from robot_charger.power.sharing import Sharer, Sharing
from robot_charger.power.trim import Sight, Trim
from robot_charger.words.values import ChargePermit, Insulation, PilotState, VehicleTarget

EvseFault = tuple[int, FaultReport]  # EVSE (0 = the station) and what began or ended
START_NS = 2 * SECOND  # modules may need so long to speak after activation
MATRIX_MODES = (Mode.OFF, Mode.TRANSFER, Mode.FAULT)  # an output may gain or lose blocks in these
STALE_NS = 50 * MILLISECOND  # an output measurement older than this corrects nothing
FEW = 4  # frames that are cheaper to take one by one than as arrays
_PRESSED = int(codec.Safety.EMERGENCY_STOP)
_EMERGENCY = _PRESSED | int(codec.Safety.EMERGENCY_LATCHED)
_GOOD = int(codec.Safety.HEARS_POWER | codec.Safety.ARM_ENABLED)  # bits that are no reason to hurry
_DANGER = _EMERGENCY | int(codec.Safety.FIRE)
_CYCLE_NS = 10 * MILLISECOND


@dataclass(frozen=True)
class Snapshot:
    """One EVSE after one cycle, for SupplyState."""

    evse: int = 0
    stamp_ns: int = 0
    session_id: str = ""
    permit_number: int = 0
    target_number: int = 0
    mode: int = 0
    voltage_v: float = 0.0
    bank_voltage_v: float = 0.0
    current_a: float = 0.0
    setpoint_v: float = 0.0
    setpoint_a: float = 0.0
    contactors_requested: bool = False
    contactors_closed: bool = False
    contactor_welded: bool = False
    insulation: int = Insulation.UNKNOWN
    insulation_ohm: float = 0.0
    insulation_permit_number: int = 0
    voltage_limited: bool = False
    current_limited: bool = False
    power_limited: bool = False
    modules_active: int = 0
    cycles: int = 0
    text: str = ""
    bay: int = 0


class Withdrawn:
    """A refused permit said NONE (words.border)."""


Word = ChargePermit | VehicleTarget | PilotState | Withdrawn


@dataclass
class Channel:
    """All that belongs to one EVSE."""

    evse: int
    gate: Gate
    output: Output
    trim: Trim
    inbox: deque[Word] = field(default_factory=lambda: deque(maxlen=64))
    measured: codec.OutputMeasurement = field(default_factory=codec.OutputMeasurement)
    measured_ns: int = 0
    status: codec.EvseStatus = field(default_factory=codec.EvseStatus)
    status_ns: int = 0
    measured_alive: codec.Alive = field(default_factory=codec.Alive)
    status_alive: codec.Alive = field(default_factory=codec.Alive)
    snapshot: Snapshot = field(default_factory=Snapshot)


class Control:
    """The bank's control cycle."""

    def __init__(self, parameters: PowerParameters, buses: int = 1) -> None:
        self.parameters = parameters
        self.bank = Bank(parameters, buses)
        self.groups = busload.choose(parameters, buses)
        self.driver = open_driver(parameters, self.bank, self.groups)
        self.monitors: MonitorReader | None = None  # insulation monitors that this node reads, see power.monitors
        self._grace_ns = int(parameters.desk_grace_ms * MILLISECOND)
        self.channels: dict[int, Channel] = {}
        for evse in parameters.evses:
            gate = Gate(parameters.pilotless(evse), self._grace_ns)
            self.channels[evse] = Channel(evse, gate, Output(evse, parameters, gate), Trim(parameters.contract))
        self.safety = codec.SafetyStatus()
        self.safety_ns = 0
        self.safety_alive = False
        self.blocked: FaultReport | None = None
        self._safety_counter = codec.Alive()
        self.bad = 0
        self.cycles = 0
        self.pauses = 0
        self.stopping = False
        self.faults: deque[EvseFault] = deque(maxlen=1000)
        self._standing: dict[tuple[int, Code], FaultReport] = {}
        self._counter = 0
        self._last_ns = 0
        self._first_ns = 0
        self.sharing = Sharing(parameters, self.bank) if parameters.matrix__blocks else None
        self.switch = SeriesSwitch(parameters, self.bank) if parameters.series_switched else None
        self._link_counter = codec.Alive()
        self.grid = codec.GridPermit()
        self.grid_ns = 0
        self._grid_counter = codec.Alive()
        self._wire_us = [0.0] * (buses + self.driver.first_port)
        self._frame_us = busload.classic_us(parameters.contract)
        self._extended = parameters.contract.extended  # its modules' buses carry 29-bit identifiers and no others
        self._wire_ns = 0
        self._addresses = [
            (b, slice(self.bank.first[b], self.bank.first[b + 1]))
            for b in range(buses)
            if self.bank.first[b + 1] > self.bank.first[b]
        ]

    # What others say; from any thread.

    def hear(self, evse: int, word: Word) -> None:
        """A checked value (words.border) for one EVSE."""
        self.channels[evse].inbox.append(word)

    # The control thread.

    def take(self, bus: int, batch: Batch, now_ns: int) -> bool:
        """Frames that arrived on one bus. True when they call for a cycle at once."""
        ids, data = batch.ids, batch.data
        self._on_wire(bus, batch)
        if len(ids) <= FEW:
            return self._take_few(bus, batch, now_ns)
        foreign = self._foreign(bus, batch.flags) if self._extended or batch.flags.any() else None
        if foreign is not None and foreign.any():
            self.bad += int(foreign.sum())
            keep = ~foreign
            ids, data, lengths = ids[keep], data[keep], batch.lengths[keep]
        else:
            lengths = batch.lengths
        first = self.driver.first_port
        mine = np.zeros(len(ids), bool) if bus < first else self.driver.take(bus - first, ids, lengths, data, now_ns)
        urgent = False
        if not mine.all():
            for i in np.flatnonzero(~mine).tolist():
                urgent |= self._take_station(bus, int(ids[i]), data[i, : lengths[i]].tobytes(), now_ns)
        return urgent

    def _wanted_flags(self, bus: int) -> int:
        """Flags beside those of CAN-FD that a frame on this port has: extended on the modules' own buses, or none."""
        return EXTENDED if self._extended and bus >= self.driver.first_port else 0

    def _foreign(self, bus: int, flags: np.ndarray) -> np.ndarray:
        """Mask of the frames that are no data frames of this port's kind: remote, error, another width."""
        return (flags & ~np.uint8(FD | BIT_RATE_SWITCH)) != self._wanted_flags(bus)

    def _take_few(self, bus: int, batch: Batch, now_ns: int) -> bool:
        """As ``take``, frame by frame."""
        urgent = False
        first = self.driver.first_port
        headers = zip(batch.ids.tolist(), batch.flags.tolist(), batch.lengths.tolist(), strict=True)
        for i, (identifier, flags, length) in enumerate(headers):
            one = slice(i, i + 1)
            if flags & ~0x18 != self._wanted_flags(bus):
                self.bad += 1
            elif bus >= first and (
                (bus > 0 or identifier >> 8 != codec.POWER_ID >> 8)
                and self.driver.take(bus - first, batch.ids[one], batch.lengths[one], batch.data[one], now_ns)[0]
            ):
                continue
            else:
                urgent |= self._take_station(bus, identifier, batch.data[i, :length].tobytes(), now_ns)
        return urgent

    def _take_station(self, bus: int, identifier: int, data: bytes, now_ns: int) -> bool:
        if bus:  # the station speaks on the first bus alone
            self.bad += 1
            return False
        if identifier == codec.SAFETY_ID:
            safety = codec.SafetyStatus.decode(data)
            if safety is not None:
                urgent = bool(safety.bits & ~self.safety.bits & ~_GOOD)
                if self._safety_counter.advanced(safety.counter) and self._prompt(safety):
                    self.safety, self.safety_ns = safety, now_ns
                    return urgent
                # Refusing a frame hides no danger that it names.
                danger = self.safety.bits | (safety.bits & _DANGER)
                self.safety = replace(self.safety, bits=danger, tripped=self.safety.tripped | safety.tripped)
                self.bad += 1
                return urgent
        elif identifier == codec.LINK_ID:
            matrix = codec.LinkStatus.decode(data)
            if matrix is not None and self._link_counter.advanced(matrix.counter):
                links = self.sharing or self.switch
                if links is not None:
                    links.feedback, links.feedback_ns = matrix.closed, now_ns
                return False
        elif identifier == codec.GRID_ID:
            grid = codec.GridPermit.decode(data)
            if grid is not None and self._grid_counter.advanced(grid.counter):
                self.grid, self.grid_ns = grid, now_ns
                return False
        elif codec.OUTPUT_ID < identifier <= codec.OUTPUT_ID + codec.MAX_EVSES:
            evse = identifier - codec.OUTPUT_ID
            channel = self.channels.get(evse)
            measured = codec.OutputMeasurement.decode(evse, data)
            if channel is None and measured is not None:
                return False  # an output of another bank
            if channel and measured and channel.measured_alive.advanced(measured.counter):
                channel.measured, channel.measured_ns = measured, now_ns
                return False
        elif codec.EVSE_ID < identifier <= codec.EVSE_ID + codec.MAX_EVSES:
            evse = identifier - codec.EVSE_ID
            channel = self.channels.get(evse)
            status = codec.EvseStatus.decode(evse, data)
            if channel is None and status is not None:
                return False
            if channel and status and channel.status_alive.advanced(status.counter):
                channel.status, channel.status_ns = status, now_ns
                return False
        self.bad += 1
        return False

    def _prompt(self, safety: codec.SafetyStatus) -> bool:
        """Whether the frame is not late: it returns a counter that power has sent a moment ago (common/e2e.py)."""
        if not safety.bits & codec.Safety.HEARS_POWER:
            return True  # it permits nothing
        patience_ns = self.parameters.safety_timeout_ms * MILLISECOND + self._grace_ns
        return echo_age(self._counter, safety.echo) * _CYCLE_NS <= patience_ns

    def step(self, now_ns: int) -> list[Frames]:
        """One cycle: judge everything, return the frames to send now."""
        self._first_ns = self._first_ns or now_ns
        paused = bool(self._last_ns) and now_ns - self._last_ns > PAUSE_NS + self._grace_ns
        self._last_ns = now_ns
        self.pauses += paused
        self.driver.poll(now_ns)
        self.bank.judge(now_ns, {c.evse: c.measured.bank_voltage_v for c in self.channels.values()})
        blocked = self.blocked = self._station_block(now_ns)
        contactors = monitors = self_tests = 0
        for channel in self.channels.values():
            output = channel.output
            demand = self._demand(channel, now_ns, paused)
            self._monitor(channel)
            inputs = self._inputs(channel, now_ns, blocked)
            output.step(now_ns, demand, inputs)
            amperes = self._trimmed(channel, demand, inputs, now_ns)
            volts = channel.measured.voltage_v
            self.bank.share(channel.evse, output.setpoint_v, amperes, output.enable, volts, now_ns)
            bit = 1 << (channel.evse - 1)
            contactors |= bit * output.contactors
            monitors |= bit * output.monitor
            self_tests |= bit * output.self_test
            for report in output.changes:
                self.faults.append((channel.evse, report))
            output.changes.clear()
            channel.snapshot = self._snapshot(channel, demand, now_ns)
        self.bank.shared(now_ns)
        links = self._move_links(now_ns)
        self._tell_modules(now_ns)
        self.cycles += 1
        self._counter = (self._counter + 1) & 0xFF
        state, echo = 2 if self.stopping else 1, self.safety.counter
        command = codec.PowerCommand(
            contactors, monitors, self_tests, links, state, self._counter, echo, self.safety_alive
        ).encode()
        frames: list[Frames] = [(0, np.array([codec.POWER_ID]), np.frombuffer(command, np.uint8)[None])]
        frames += self.driver.frames(now_ns, self._counter)
        for bus, ids, data in frames:
            classic = bus > 0 and self.driver.first_port > 0
            self._wire_us[bus] += len(ids) * (self._frame_us if classic else busload.frame_us(data.shape[1]))
        return frames

    def shut(self) -> list[Frames]:
        """Last frames of a control that failed: every module off, every contactor open. No other logic is asked."""
        self.bank.command_v[:], self.bank.command_a[:], self.bank.enable[:] = 0.0, 0.0, False
        self._counter = (self._counter + 1) & 0xFF
        command = codec.PowerCommand(0, 0, 0, 0, 2, self._counter).encode()
        frames: list[Frames] = [(0, np.array([codec.POWER_ID]), np.frombuffer(command, np.uint8)[None])]
        return frames + self.driver.frames(self._last_ns, self._counter)

    def _trimmed(self, channel: Channel, demand: Demand, inputs: Inputs, now_ns: int) -> float:
        """What to ask the modules of this output for [A]: its set-point, corrected by its measuring board."""
        output, measured, permit = channel.output, channel.measured, demand.permit
        delivering = output.mode == Mode.TRANSFER and output.enable and permit is not None
        if not delivering or permit is None:
            return channel.trim.step(
                now_ns, Sight(False, output.setpoint_a, 0.0, 0.0, 0.0, True, False, 0.0, 0, 0.0, 0.0)
            )
        volts = max(measured.voltage_v, 1.0)
        sight = Sight(
            delivering=True,
            setpoint_a=output.setpoint_a,
            measured_a=measured.current_a,
            setpoint_v=output.setpoint_v,
            measured_v=measured.voltage_v,
            saturated=abs(output.setpoint_a) >= inputs.capable_a,
            trusted=now_ns - channel.measured_ns <= STALE_NS
            and not (inputs.disputed or self.bank.suspected(channel.evse)),
            bound_a=self.bank.offset_bound_a(channel.evse),
            modules=int((self.bank.giving & (self.bank.evse == channel.evse)).sum()),
            lowest_a=max(permit.min_current_a, permit.min_power_w / volts),
            highest_a=min(permit.max_current_a, permit.max_power_w / volts),
        )
        amperes = channel.trim.step(now_ns, sight)
        if channel.trim.agreed:
            self.bank.note_measured(channel.evse)
        return amperes

    def _move_links(self, now_ns: int) -> int:
        """Move the contactors of the matrix, or those between groups; returns what is to be closed."""
        links = self.sharing or self.switch
        if links is None:
            return 0
        old = now_ns - links.feedback_ns > self.parameters.safety_timeout_ms * MILLISECOND + self._grace_ns
        known = not old and self.blocked is None
        if self.sharing is not None:
            news = self.sharing.step(now_ns, {e: self._sharer(c) for e, c in self.channels.items()}, known)
        elif self.switch is not None:
            news = self.switch.step(now_ns, {e: self._pair(c) for e, c in self.channels.items()}, known)
        for text in news:
            self.faults.append((0, FaultReport(Code.CONTACTOR_FEEDBACK, Severity.DERATE, text)))
        return links.board.requested

    def _sharer(self, channel: Channel) -> Sharer:
        mode = channel.output.mode
        active = mode != Mode.OFF or channel.gate.asked
        return Sharer(channel.measured.bank_voltage_v, active, mode in MATRIX_MODES)

    def _pair(self, channel: Channel) -> Pair:
        at_rest = channel.output.mode == Mode.OFF and channel.status.open
        return Pair(self._top_v(channel), at_rest and channel.measured.bank_voltage_v < SAFE_V)

    def _top_v(self, channel: Channel) -> float:
        """Highest voltage that the session of this EVSE may need [V]: that of its cable check. 0: nobody asks."""
        target = channel.gate.target
        vehicle_v = (target.max_voltage_v or target.voltage_v) if target else 0.0
        return cable_check_voltage(vehicle_v, self.parameters.max_voltage_v) if vehicle_v > 0.0 else 0.0

    def export_w(self, now_ns: int) -> float:
        """Power that each EVSE may feed into the grid now [W]: what the grid side permits, evenly divided.

        Its permission ends by itself, like a charge permit.
        """
        if not self.parameters.bidirectional or not self.grid_ns or now_ns - self.grid_ns > PERMIT_NS + self._grace_ns:
            return 0.0
        return self.grid.export_w / len(self.channels)

    def measured_load(self, now_ns: int) -> float:
        """Share of the fullest bus that frames used since the last call, 0 to 1, by their worst-case lengths."""
        elapsed_us = (now_ns - self._wire_ns) / 1e3
        share = max(self._wire_us) / elapsed_us if self._wire_ns else 0.0
        self._wire_us = [0.0] * len(self._wire_us)
        self._wire_ns = now_ns
        return min(share, 1.0)

    def _on_wire(self, bus: int, batch: Batch) -> None:
        lengths = batch.lengths
        if bus and self.driver.first_port:  # CANopen, on a bus of its own: nearly all are PDOs of eight bytes
            self._wire_us[bus] += len(lengths) * self._frame_us
        elif len(lengths) <= FEW:
            self._wire_us[bus] += sum(busload.frame_us(length) for length in lengths.tolist())
        else:
            extra = 2.0 * int(lengths.sum()) + (1.0 * int((lengths > 16).sum()) if batch.data.shape[1] > 16 else 0.0)
            self._wire_us[bus] += len(lengths) * busload.frame_us(0) + extra

    @property
    def safe(self) -> bool:
        """Nothing energised: set-points zero, current small, contactors open."""
        return all(
            c.output.idle and not c.output.enable and abs(c.measured.current_a) < SMALL_A and c.status.open
            for c in self.channels.values()
        )

    def _demand(self, channel: Channel, now_ns: int, paused: bool) -> Demand:
        gate = channel.gate
        while channel.inbox:
            word = channel.inbox.popleft()
            if isinstance(word, Withdrawn):
                gate.withdraw()
            elif isinstance(word, ChargePermit):  # after a pause it is as old as the pause; its number is a floor
                gate.take_permit(word)
            elif paused:
                continue
            elif isinstance(word, VehicleTarget):
                gate.take_target(word)
            else:
                gate.take_pilot(word.state, word.stamp_ns)
        if paused:
            gate.discard()
        if self.stopping:
            return Demand(abrupt=True, reason="the power node stops")
        return gate.judge(now_ns)

    def _inputs(self, channel: Channel, now_ns: int, blocked: FaultReport | None) -> Inputs:
        p = self.parameters
        seen = now_ns - channel.status_ns <= p.safety_timeout_ms * MILLISECOND + self._grace_ns
        blocked = self._tripped(channel.evse, blocked)
        age_ns = now_ns - channel.measured_ns
        measured = age_ns <= p.measurement_timeout_ms * MILLISECOND + self._grace_ns or channel.evse in p.ac
        for code, lost, what in (
            (Code.SAFETY_LOST, not seen, "contactor and insulation frame"),
            (Code.POWER_BUS, not measured, "output measurement"),
        ):
            standing = (channel.evse, code) in self._standing
            if not lost and not standing:
                continue
            report = FaultReport(code, Severity.STOP, f"no valid {what} of EVSE {channel.evse}", lost)
            if standing or (blocked is None and now_ns - self._first_ns > START_NS):
                self._tell(channel.evse, report)
            if lost and blocked is None:
                blocked = report
        voltage = channel.measured.voltage_v
        return Inputs(
            measured=channel.measured,
            evse=channel.status,
            capable_a=self.bank.capable_a(channel.evse, voltage),
            export_w=self.export_w(now_ns),
            modules=self.bank.usable(channel.evse),
            blocked=blocked,
            pilot=channel.gate.pilot,
            seen=seen,
            disputed=self.bank.disputed(channel.evse, now_ns),
            highest_v=self.bank.highest_v(channel.evse),
            uncertain_a=self.bank.uncertain_a(channel.evse),
            settled=self._settled(channel, now_ns),
        )

    def _monitor(self, channel: Channel) -> None:
        """Where this node reads the insulation monitor itself, its reading takes the place of the controller's."""
        if self.monitors is None:
            return
        said = self.monitors.exchange(channel.evse, channel.output.monitor, channel.output.self_test)
        channel.status = replace(channel.status, insulation_ohm=said.ohm, monitor=said.monitor, sequence=said.sequence)

    def _settled(self, channel: Channel, now_ns: int) -> bool:
        """Whether the modules are joined, and set to the range, that this session needs."""
        top_v = self._top_v(channel)
        mine = self.bank.evse == channel.evse
        idle = channel.output.mode == Mode.OFF
        series = self.switch.wanted(top_v) if self.switch and top_v else self.bank.series(channel.evse)
        ready = self.driver.prepare(mine, top_v / series, idle, now_ns)
        return ready and (self.switch is None or self.switch.settled(channel.evse, top_v))

    def _tripped(self, evse: int, blocked: FaultReport | None) -> FaultReport | None:
        """The safety controller's trip of this EVSE; it counts however old the frame that named it."""
        active = bool(self.safety.tripped >> (evse - 1) & 1)
        if not active and (evse, Code.SAFETY_TRIP) not in self._standing:
            return blocked
        reason = codec.REASONS[self.safety.reason] if self.safety.reason < len(codec.REASONS) else "unknown reason"
        report = FaultReport(Code.SAFETY_TRIP, Severity.EMERGENCY, f"the safety controller tripped: {reason}", active)
        self._tell(evse, report)
        return blocked or (report if active else None)

    def _snapshot(self, channel: Channel, demand: Demand, now_ns: int) -> Snapshot:
        output, measured = channel.output, channel.measured
        return Snapshot(
            evse=channel.evse,
            stamp_ns=now_ns,
            session_id=demand.permit.session_id if demand.permit else output.session_id,
            permit_number=demand.permit_number,
            target_number=demand.target_number,
            mode=output.mode,
            voltage_v=measured.voltage_v,
            bank_voltage_v=measured.bank_voltage_v,
            current_a=measured.current_a,
            setpoint_v=output.setpoint_v,
            setpoint_a=output.setpoint_a,
            contactors_requested=output.contactors,
            contactors_closed=channel.status.closed,
            contactor_welded=output.welded,
            insulation=output.insulation,
            insulation_ohm=output.insulation_ohm,
            insulation_permit_number=output.insulation_permit,
            voltage_limited=output.voltage_limited,
            current_limited=output.current_limited,
            power_limited=output.power_limited,
            modules_active=int((self.bank.enable & (self.bank.evse == channel.evse)).sum()),
            cycles=self.cycles,
            text=output.text,
            bay=channel.status.bits,
        )

    # Station-wide faults.

    def _station_block(self, now_ns: int) -> FaultReport | None:
        """Why nothing at all may be energised, or None. Tells the station's faults as they come and go."""
        patience_ns = self.parameters.safety_timeout_ms * MILLISECOND + self._grace_ns
        self.safety_alive = now_ns - self.safety_ns <= patience_ns
        started = self.safety_ns > 0 or now_ns - self._first_ns > START_NS
        bits = self.safety.bits & ~_GOOD if self.safety_alive else self.safety.bits & _DANGER
        emergency = bits & _EMERGENCY
        alive = self.bank.bus_alive(now_ns)
        grace = now_ns - self._first_ns <= START_NS
        dead = [b for b, _ in self._addresses if not alive[b] and not (grace and not self.bank.bus_heard[b])]
        if not bits and not dead and self.safety_alive and not self._standing and not self.bank.hot.any():
            return None
        checks = [
            (
                Code.EMERGENCY_STOP,
                Severity.EMERGENCY,
                bool(emergency),
                "the E-stop chain is open" if bits & _PRESSED else "E-stop latched: reset on site",
            ),
            (
                Code.SAFETY_LOST,
                Severity.STOP,
                started and not self.safety_alive,
                f"no valid frame of the safety controller for {patience_ns / MILLISECOND:.0f} ms",
            ),
            (Code.FIRE, Severity.EMERGENCY, bool(bits & codec.Safety.FIRE), "smoke or heat was detected"),
            (Code.MAINS_LOST, Severity.STOP, bool(bits & codec.Safety.MAINS_LOST), "the mains failed"),
            (Code.DOOR, Severity.STOP, bool(bits & codec.Safety.DOOR_OPEN), "a cabinet door is open"),
            self._overtemperature(bits),
            (
                Code.POWER_BUS,
                Severity.STOP if len(dead) == len(self._addresses) else Severity.DERATE,
                bool(dead),
                f"no module speaks on bus {', '.join(str(b) for b in dead)}",
            ),
        ]
        block = None
        for code, severity, active, text in checks:
            report = FaultReport(code, severity, text, active)
            self._tell(0, report)
            if active and severity >= Severity.STOP and block is None:
                block = report
        if block is None and not self.safety_alive:
            block = FaultReport(Code.SAFETY_LOST, Severity.STOP, "the safety controller has not spoken yet")
        if block is None and bits & codec.Safety.POWER_LOST:
            block = FaultReport(
                Code.SAFETY_LOST, Severity.STOP, "the safety controller has not heard power's heartbeat"
            )
        return block

    def _overtemperature(self, bits: int) -> tuple[Code, Severity, bool, str]:
        if bits & codec.Safety.OVER_TEMPERATURE:
            return Code.OVERTEMPERATURE, Severity.STOP, True, f"cabinet at {self.safety.cabinet_c:.0f} deg C"
        report = _modules(Code.OVERTEMPERATURE, Severity.DERATE, self.bank.hot, "too hot")
        return report.code, report.severity, report.active, report.text

    def _tell(self, evse: int, report: FaultReport) -> None:
        key = (evse, report.code)
        if report.active == (key in self._standing):
            return
        if report.active:
            self._standing[key] = report
        else:
            del self._standing[key]
        self.faults.append((evse, report))

    def _tell_modules(self, now_ns: int) -> None:
        bank = self.bank
        if now_ns - self._first_ns <= START_NS:
            return
        healthy = int(bank.healthy.sum())
        if healthy == bank.count and not self._standing:
            return
        lost = bank.silent | bank.probation
        faulty = ~lost & ~bank.healthy & ~bank.clash
        self._tell(0, _modules(Code.NO_MODULES, Severity.STOP, bank.healthy == 0, "none healthy", healthy == 0))
        self._tell(0, _modules(Code.MODULE_LOST, Severity.DERATE, lost, "silent"))
        self._tell(0, _modules(Code.MODULE_FAULT, Severity.DERATE, faulty, "out of order"))
        self._tell(0, _modules(Code.ADDRESS_CLASH, Severity.DERATE, bank.clash, "share an address"))


def _modules(code: Code, severity: Severity, mask: np.ndarray, what: str, active: bool | None = None) -> FaultReport:
    numbers = (np.flatnonzero(mask) + 1).tolist()
    names = ", ".join(str(n) for n in numbers[:12]) + (", ..." if len(numbers) > 12 else "")
    text = f"{len(numbers)} module(s) {what}: {names}"
    return FaultReport(code, severity, text, bool(numbers) if active is None else active)
