"""One step of the safety controller, every 10 ms: inputs and power's requests in, outputs out.

Each requirement of docs/safety-controller.md is stated once, where its number (SC-n) is. Units: time in ms (u32, it
wraps), voltage in 0.1 V and current in 0.1 A (i32, positive into the vehicle). Masks have bit 0 for EVSE 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, IntFlag

from robot_charger.common import e2e
from robot_charger.guard.frames import ECHO_VALID, POWER_BYTES, Request, decode_request

CYCLE_MS = 10
MAX_EVSES = 16
ZERO_WAIT_MS = 100  # power has so long to end the current before contactors open under load
CHAIN_MS = 500  # the two channels of the E-stop chain may differ so long
SENSE_MS = 200  # pilot, bay and pole feedback are believed after so long
VOLT_MS = 10  # a second sample confirms the first
CURRENT_MS = 200
EARTH_MS = 500
MAINS_MS = 20
SMALL_DA = 50  # contactors open below 5 A
TOUCH_DV = 600  # an output below 60 V is safe to touch (IEC 61851-23)
REVERSED_DV = -100  # no contactor closes on less than -10 V
WRAP = 0xFFFFFFFF


class Pilot(IntEnum):
    """Level of the control pilot, measured by the controller itself."""

    UNKNOWN = 0
    A = 1
    B = 2
    C = 3
    D = 4
    E = 5
    F = 6


class Reason(IntEnum):
    """Why a contactor may not be closed. The first one stays in the status until it is reset."""

    NONE = 0
    EMERGENCY_STOP = 1
    CHAIN_FAULT = 2
    FIRE = 3
    OVER_VOLTAGE = 4
    REVERSED = 5
    OVER_CURRENT = 6
    STRAY_CURRENT = 7
    EARTH_LOST = 8
    HEARTBEAT_LOST = 9
    DOOR_OPEN = 10
    MAINS_LOST = 11
    OVER_TEMPERATURE = 12
    WELDED = 13
    POLES_DIFFER = 14
    PILOT_LEFT = 15
    VEHICLE_MOVED = 16


class Status(IntFlag):
    """Bits of SafetyStatus."""

    EMERGENCY_STOP = 1
    EMERGENCY_LATCHED = 2
    DOOR_OPEN = 4
    OVER_TEMPERATURE = 8
    POWER_LOST = 16
    MONITOR_FAULT = 32
    INTERNAL = 64
    HEARS_POWER = 128  # the echo is valid
    FIRE = 256
    MAINS_LOST = 512
    ARM_ENABLED = 1024


class Bay(IntFlag):
    """Bits of EvseStatus."""

    POSITIVE_CLOSED = 1
    NEGATIVE_CLOSED = 2
    COIL = 4
    OCCUPIED = 8
    IMMOBILISED = 16
    FIELD_CLEAR = 32
    TRIPPED = 64
    INHIBITED = 128


LATCH = frozenset({Reason.OVER_VOLTAGE, Reason.REVERSED, Reason.OVER_CURRENT, Reason.STRAY_CURRENT, Reason.EARTH_LOST})
"""Trips of one EVSE that stay until a person resets them (SC-13)."""

AT_ONCE = frozenset({Reason.OVER_VOLTAGE, Reason.REVERSED, Reason.STRAY_CURRENT, Reason.HEARTBEAT_LOST})
"""Reasons for which the contactors do not wait for power to end the current (SC-25)."""


@dataclass
class Config:
    """Set at commissioning."""

    evses: tuple[int, ...] = (1,)
    heartbeat_ms: int = 80  # power is lost after so long; contactors are open 20 ms later
    over_voltage_dv: int = 11_000  # of the rated maximum: IEC 61851-23:2023 table 103
    over_current_da: int = 6_600
    pilot_fitted: int = 0xFFFF  # EVSEs whose pilot is wired to the controller; CHAdeMO and GB/T have none
    bay_fitted: int = 0xFFFF  # EVSEs whose bay sensors are
    blocks: int = 0  # of the contactor matrix
    switched: bool = False  # three contactors per EVSE join its groups: one in series, two in parallel


@dataclass
class EvseInputs:
    """What the controller's own terminals sense of one EVSE."""

    positive_closed: bool = False  # auxiliary contact of the pole
    negative_closed: bool = False
    voltage_dv: int = 0  # at the inlet
    current_da: int = 0
    pilot: int = Pilot.UNKNOWN
    earth_ok: bool = True
    occupied: bool = False
    immobilised: bool = False
    field_clear: bool = False


@dataclass
class Inputs:
    """What the controller's own terminals sense of the station."""

    chain_a: bool = True  # both channels of the E-stop chain; True is closed
    chain_b: bool = True
    reset: bool = False  # key switch on site
    fire: bool = False
    door_open: bool = False
    mains_ok: bool = True
    over_temperature: bool = False
    monitor_fault: bool = False  # an insulation monitor failed its self test
    links_closed: int = 0  # u16, feedback
    arm_request: bool = False  # the arm's controller asks for its enable
    arm_moving: bool = False  # faster than standstill (safe speed monitor)
    arm_passive: bool = False  # it follows without force (ISO 10218-1: hand guiding)
    arm_near: int = 0  # bays whose protective field the arm is in, or will cross
    arm_zone: int = 0  # bays in whose contact zone it is
    evses: dict[int, EvseInputs] = field(default_factory=dict)


@dataclass
class Outputs:
    """What the controller drives. All off is safe."""

    coils: int = 0  # contactors, both poles
    inhibit: int = 0xFFFF  # EVSEs whose modules are held off by wire
    pilot_f: int = 0  # EVSEs whose pilot is forced to -12 V
    d_allowed: int = 0  # EVSEs whose wires d1 and d2 (CHAdeMO) or A+ (GB/T) may be closed
    links: int = 0  # contactors of matrix or groups
    released: bool = False  # supply of the AC contactors' coils
    arm_enable: bool = False
    latched: bool = False  # kept in non-volatile memory
    tripped: int = 0  # EVSEs
    bits: int = 0
    reason: int = Reason.NONE
    closed: int = 0  # EVSEs whose poles are both closed


class Guard:
    """The controller's memory; ``hear`` for each frame of power, then ``step``."""

    def __init__(self, config: Config, latched: bool = False) -> None:
        self.config = config
        self.out = Outputs(latched=latched)
        self.request = Request()
        self.counter = 0  # u8, of the frames that the controller sends
        self.bay_bits = {evse: 0 for evse in config.evses}
        self._heard = Request()
        self._sequence = e2e.Sequence()
        self._ever = False
        self._lost = True
        self._heard_ms = 0
        self._armed = 0
        self._arm_armed = False
        self._reset = True  # a reset that is held while the controller starts resets nothing
        self._stopped = {evse: 0 for evse in config.evses}
        self._cause = {evse: Reason.NONE for evse in config.evses}
        self._since: dict[tuple[int, int], int] = {}
        for evse in (0, *config.evses):
            for reason in Reason:
                self._since[evse, reason] = -1

    def hear(self, data: bytes, now_ms: int) -> bool:
        """A frame of power. True when it counts (SC-17): intact, in sequence, and not late."""
        if len(data) != POWER_BYTES or not decode_request(data, self._heard):
            return False
        if not self._sequence.advanced(self._heard.counter):
            return False
        if self._heard.flags & ECHO_VALID:
            late = e2e.echo_age(self.counter, self._heard.echo) * CYCLE_MS
            if late > self.config.heartbeat_ms:
                return False
        self._heard, self.request = self.request, self._heard
        self._heard_ms, self._ever = now_ms, True
        return True

    def step(self, inputs: Inputs, now_ms: int) -> Outputs:
        """One cycle."""
        out = self.out
        self.counter = (self.counter + 1) & 0xFF
        station = self._station(inputs, now_ms)
        self._reset_latches(inputs, now_ms)
        out.closed = out.inhibit = out.pilot_f = out.d_allowed = out.tripped = 0
        for evse in self.config.evses:
            self._drive(evse, inputs.evses[evse], station, now_ms)
        self._drive_arm(inputs, station)
        self._drive_links(inputs)
        out.released = not station  # SC-10
        self._tell(inputs, station)
        return out

    def _station(self, inputs: Inputs, now_ms: int) -> Reason:
        """What forbids every output of the station."""
        out = self.out
        differ = self._lasted(0, Reason.CHAIN_FAULT, inputs.chain_a != inputs.chain_b, now_ms)
        pressed = not (inputs.chain_a and inputs.chain_b)
        mains_ms = self._lasted(0, Reason.MAINS_LOST, not inputs.mains_ok, now_ms)
        self._lost = not self._ever or ((now_ms - self._heard_ms) & WRAP) > self.config.heartbeat_ms
        reason = Reason.NONE
        if pressed:  # SC-1: either channel stops
            reason = Reason.CHAIN_FAULT if differ > CHAIN_MS else Reason.EMERGENCY_STOP
        elif inputs.fire:  # SC-2
            reason = Reason.FIRE
        if reason:
            out.latched = True  # SC-12
            self._remember(reason)
            return reason
        if out.latched:
            return Reason.EMERGENCY_STOP
        if self._lost:  # SC-3
            return Reason.HEARTBEAT_LOST
        if inputs.door_open:  # SC-4
            return Reason.DOOR_OPEN
        if mains_ms > MAINS_MS:  # SC-5
            return Reason.MAINS_LOST
        return Reason.OVER_TEMPERATURE if inputs.over_temperature else Reason.NONE  # SC-6

    def _reset_latches(self, inputs: Inputs, now_ms: int) -> None:
        """SC-14: a person's edge of the key switch, with the cause gone; it closes nothing."""
        edge = inputs.reset and not self._reset
        self._reset = inputs.reset
        if not edge or inputs.fire or not (inputs.chain_a and inputs.chain_b):
            return
        self.out.latched = False
        self.out.reason = Reason.NONE
        self._armed &= self.out.coils  # what is closed in order stays so
        self._arm_armed = self._arm_armed and self.out.arm_enable
        for evse in self.config.evses:
            if self._trip(evse, inputs.evses[evse], now_ms) == Reason.NONE:
                self._cause[evse] = Reason.NONE

    def _trip(self, evse: int, i: EvseInputs, now_ms: int) -> Reason:
        """Trips of one EVSE (SC-13)."""
        coil = bool(self.out.coils & _bit(evse))
        open_ = not (i.positive_closed or i.negative_closed)
        flows = abs(i.current_da) >= SMALL_DA
        high = abs(i.voltage_dv) > self.config.over_voltage_dv
        found = Reason.NONE
        # Every timer runs in every cycle; the first that has run out names the trip.
        for reason, holds, limit_ms in (
            (Reason.OVER_VOLTAGE, high, VOLT_MS),  # SC-7
            (Reason.REVERSED, coil and i.voltage_dv < REVERSED_DV, VOLT_MS),  # SC-8
            (Reason.OVER_CURRENT, abs(i.current_da) > self.config.over_current_da, CURRENT_MS),  # SC-9
            (Reason.STRAY_CURRENT, flows and open_ and not coil, CURRENT_MS),  # SC-11
            (Reason.EARTH_LOST, not i.earth_ok, EARTH_MS),  # SC-15
        ):
            if self._lasted(evse, reason, holds, now_ms) >= limit_ms and not found:
                found = reason
        return found

    def _block(self, evse: int, i: EvseInputs, now_ms: int) -> Reason:
        """What keeps one EVSE's contactors open for as long as it holds."""
        bit = _bit(evse)
        coil = bool(self.out.coils & bit)
        away = bool(self.config.bay_fitted & bit) and not (i.occupied and i.immobilised)
        unready = bool(self.config.pilot_fitted & bit) and i.pilot not in (Pilot.C, Pilot.D)
        found = Reason.NONE
        for reason, holds, limit_ms in (
            (Reason.WELDED, not coil and (i.positive_closed or i.negative_closed), SENSE_MS),  # SC-16
            (Reason.POLES_DIFFER, i.positive_closed != i.negative_closed, SENSE_MS),  # SC-16
            (Reason.PILOT_LEFT, unready, SENSE_MS),  # SC-18
            (Reason.VEHICLE_MOVED, away, SENSE_MS),  # SC-19
        ):
            if self._lasted(evse, reason, holds, now_ms) >= limit_ms and not found:
                found = reason
        return found

    def _drive(self, evse: int, i: EvseInputs, station: Reason, now_ms: int) -> None:
        """Contactors, module inhibit, pilot and CHAdeMO wires of one EVSE."""
        out, bit = self.out, _bit(evse)
        trip, block = self._trip(evse, i, now_ms), self._block(evse, i, now_ms)
        before = self._cause[evse]
        tripped = before if before in LATCH else trip
        cause = tripped or station or block
        if cause and not before:
            self._stopped[evse] = now_ms
        self._cause[evse] = cause
        asked = bool(self.request.contactors & bit)
        if cause:
            self._armed &= ~bit
        elif not asked:
            self._armed |= bit  # SC-20: a request must be seen off before it closes anything
        waited = ((now_ms - self._stopped[evse]) & WRAP) >= ZERO_WAIT_MS
        coil = bool(out.coils & bit)
        held = coil and asked and not self._lost and cause not in AT_ONCE and not waited
        held = held and abs(i.current_da) >= SMALL_DA  # SC-25
        fresh = bool(self.request.flags & ECHO_VALID)  # SC-17
        may = asked and fresh and not cause and bool(self._armed & bit)
        if not coil and (i.voltage_dv < REVERSED_DV or i.positive_closed or i.negative_closed):
            may = False  # SC-8, SC-16: closes only from open poles, on the right polarity
        on = may or (held and bool(cause))
        if (coil and not on and cause) or cause in LATCH:
            self._remember(cause)
        out.coils = out.coils | bit if on else out.coils & ~bit
        if cause and not on:
            out.inhibit |= bit  # SC-21
        if cause in LATCH:
            out.tripped |= bit
        if out.latched or cause in LATCH or (self._lost and self._ever):
            out.pilot_f |= bit  # SC-22
        if not (station or cause in LATCH):
            out.d_allowed |= bit  # SC-23
        if i.positive_closed and i.negative_closed:
            out.closed |= bit
        self.bay_bits[evse] = (
            Bay.POSITIVE_CLOSED * i.positive_closed
            | Bay.NEGATIVE_CLOSED * i.negative_closed
            | Bay.COIL * on
            | Bay.OCCUPIED * i.occupied
            | Bay.IMMOBILISED * i.immobilised
            | Bay.FIELD_CLEAR * i.field_clear
            | Bay.TRIPPED * (cause in LATCH)
            | Bay.INHIBITED * bool(out.inhibit & bit)
        )

    def _drive_arm(self, inputs: Inputs, station: Reason) -> None:
        """SC-24: fields clear wherever the arm is or goes; in contact zones no motion beside a live output."""
        free = not self.out.latched and station != Reason.MAINS_LOST
        for evse in self.config.evses:
            bit, i = _bit(evse), inputs.evses[evse]
            if inputs.arm_near & bit and not i.field_clear:
                free = False
            dead = not (i.positive_closed or i.negative_closed)
            dead = dead and abs(i.voltage_dv) < TOUCH_DV and abs(i.current_da) < SMALL_DA
            if inputs.arm_zone & bit and inputs.arm_moving and not inputs.arm_passive and not dead:
                free = False
        if not free:
            self._arm_armed = False
        elif not inputs.arm_request:
            self._arm_armed = True  # restarted only by a deliberate request
        self.out.arm_enable = free and inputs.arm_request and self._arm_armed

    def _drive_links(self, inputs: Inputs) -> None:
        """SC-10: contactors of matrix and groups, never two rivals together; without power's heartbeat they stay."""
        links = self.out.links
        wanted = links if self._lost else self.request.links
        for number in range(self._link_count()):
            bit = 1 << number
            busy = self.out.links | links | inputs.links_closed
            rival = any(busy >> other & 1 for other in self._rivals(number))
            if wanted & bit and (links & bit or not rival):
                links |= bit
            elif not wanted & bit:
                links &= ~bit
        self.out.links = links

    def _link_count(self) -> int:
        n = len(self.config.evses)
        return 3 * n if self.config.switched else self.config.blocks * n

    def _rivals(self, number: int) -> tuple[int, ...]:
        """Contactors that may not be closed beside this one: others of its block; series beside parallel."""
        if self.config.switched:
            first = number - number % 3
            return (first + 1, first + 2) if number == first else (first,)
        n = len(self.config.evses)
        first = number - number % n
        return tuple(other for other in range(first, first + n) if other != number)

    def _tell(self, inputs: Inputs, station: Reason) -> None:
        out = self.out
        out.bits = (
            Status.EMERGENCY_STOP * (not (inputs.chain_a and inputs.chain_b))
            | Status.EMERGENCY_LATCHED * out.latched
            | Status.DOOR_OPEN * inputs.door_open
            | Status.OVER_TEMPERATURE * inputs.over_temperature
            | Status.POWER_LOST * (self._lost and self._ever)
            | Status.MONITOR_FAULT * inputs.monitor_fault
            | Status.HEARS_POWER * (not self._lost)
            | Status.FIRE * inputs.fire
            | Status.MAINS_LOST * (station == Reason.MAINS_LOST)
            | Status.ARM_ENABLED * out.arm_enable
        )

    def _remember(self, reason: Reason) -> None:
        if not self.out.reason:
            self.out.reason = reason

    def _lasted(self, evse: int, reason: Reason, holds: bool, now_ms: int) -> int:
        """For how long a condition has held [ms]; 0 in its first cycle and when it does not."""
        since = self._since[evse, reason]
        if not holds:
            self._since[evse, reason] = -1
            return 0
        if since < 0:
            self._since[evse, reason] = now_ms & WRAP
            return 0
        return (now_ms - since) & WRAP


def _bit(evse: int) -> int:
    return 1 << (evse - 1)
