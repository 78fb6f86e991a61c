"""The station's side of CHAdeMO: frames, wires, supply and time in; frames, wires, target and link out.

Plain Python; time is CLOCK_MONOTONIC in nanoseconds. ``Station.step`` runs every 10 ms, ``Station.transmit`` every
100 ms. docs/chademo.md draws the sequence; timing.LIMITS holds every time limit with its source.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import IntEnum

from robot_charger.chademo import frames
from robot_charger.chademo.timing import Settings, limit
from robot_charger.chademo.vehicle import NEEDED, Vehicle
from robot_charger.common.faults import Code, FaultReport, Severity
from robot_charger.words.values import Link, Lock, Purpose


class Phase(IntEnum):
    """Steps of the sequence, in order."""

    IDLE = 0  # silent, d1 off
    WAKE = 1  # d1 on, waiting for the vehicle's frames
    HANDSHAKE = 2  # limits exchanged, waiting for permission (k and 102.5.0)
    LOCK = 3
    INSULATION = 4
    CONTACTOR = 5  # d2 on, waiting for the vehicle's contactor
    PRECHARGE = 6  # the bank comes to the battery's voltage
    CHARGE = 7
    RAMP_DOWN = 8  # waiting for 5 A or less
    WELDING = 9  # the vehicle opens and checks its contactor
    RELEASE = 10  # d2 off, d1 off, unlock
    ENDED = 11


LINKS = {
    Phase.IDLE: Link.IDLE,
    Phase.WAKE: Link.MATCHING,
    Phase.HANDSHAKE: Link.PARAMETERS,
    Phase.LOCK: Link.PARAMETERS,
    Phase.INSULATION: Link.CABLE_CHECK,
    Phase.CONTACTOR: Link.CABLE_CHECK,
    Phase.PRECHARGE: Link.PRECHARGE,
    Phase.CHARGE: Link.CHARGING,
    Phase.RAMP_DOWN: Link.STOPPING,
    Phase.WELDING: Link.WELDING_CHECK,
    Phase.RELEASE: Link.WELDING_CHECK,
}


@dataclass(frozen=True)
class WiresIn:
    """Inputs of the connector: k as read by the opto-coupler j, and the lock's feedback."""

    k: bool = False
    locked: bool = False


@dataclass(frozen=True)
class WiresOut:
    """Outputs to the connector: start/stop d1 (+12 V) and d2 (pulled low), and the lock's solenoid."""

    d1: bool = False
    d2: bool = False
    lock: bool = False


@dataclass(frozen=True)
class Supply:
    """power/state as far as CHAdeMO looks at it. ``alive``: the message is young."""

    alive: bool = False
    voltage_v: float = 0.0  # at the connector
    bank_voltage_v: float = 0.0
    current_a: float = 0.0  # positive into the vehicle
    contactors_closed: bool = False
    precharged: bool = False  # mode PRECHARGE or TRANSFER with closed contactors
    faulted: bool = False
    insulation_valid: bool = False
    insulation_failed: bool = False
    insulation_permit: int = 0


@dataclass(frozen=True)
class Allowed:
    """The smaller of supply limits, permit and back end, before they are applied."""

    max_voltage_v: float = 0.0
    max_current_a: float = 0.0
    max_power_w: float = 0.0
    export_current_a: float = 0.0  # out of the vehicle, a positive number


@dataclass(frozen=True)
class Session:
    """session/state as far as CHAdeMO looks at it."""

    session_id: str = ""
    active: bool = False  # the protocol is CHAdeMO and the phase is Linking to Stopping
    start: bool = False  # phase Linking, and authorised
    stop: bool = False  # the station asks for an orderly stop
    broken: bool = False  # an error or emergency shutdown has begun
    test_permit: int = 0  # number of the first insulation-test permit of this session, 0 = none yet


@dataclass(frozen=True)
class Target:
    purpose: Purpose = Purpose.NONE
    voltage_v: float = 0.0
    current_a: float = 0.0


@dataclass(frozen=True)
class Status:
    """What VehicleLink tells."""

    phase: Link = Link.IDLE
    lock: Lock = Lock.UNKNOWN
    vehicle_ready: bool = False
    protocol_number: int = 0
    soc: float = -1.0
    remaining_s: float = -1.0
    capacity_wh: float = 0.0
    max_voltage_v: float = 0.0
    bidirectional: bool = False
    automaker: int = 0
    error: Code = Code.NONE
    text: str = ""


@dataclass
class Inputs:
    """One cycle's view of the world. ``frames``: (identifier, data, arrival) since the last cycle."""

    now_ns: int
    wires: WiresIn = field(default_factory=WiresIn)
    supply: Supply = field(default_factory=Supply)
    allowed: Allowed = field(default_factory=Allowed)
    session: Session = field(default_factory=Session)
    frames: Iterable[tuple[int, bytes, int]] = ()


class Station:
    """One connector."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.vehicle = Vehicle(settings.high_current)
        self.phase = Phase.IDLE
        self.wires = WiresOut()
        self.target = Target()
        self.error = Code.NONE
        self.failed = False
        self.text = ""
        self.faults: list[FaultReport] = []  # that began or ended in this cycle
        self.sent = 0
        self._forget("")
        self._last_ns = 0

    def _forget(self, session_id: str) -> None:
        """A new session: nothing of the old one counts."""
        bad = self.vehicle.bad
        self.vehicle = Vehicle(self.settings.high_current)
        self.vehicle.bad = bad
        self.session_id = session_id
        self._since_ns = 0
        self._d1_ns = 0
        self._k_opened_ns = 0  # until CAN confirms it
        self._lasting_ns: dict[str, int] = {}
        self._own_fault = self._incompatible = False
        self._speaking = False
        self._available_v = 0
        self._announced_a = 0
        self._held_a, self._held_ns = 0, -(10**15)
        self._input_a = 0
        self._threshold_v = 0
        self._accepted_a = 0.0
        self._requested = False
        self._charging = False
        self._stop_control = True
        self._locked_flag = False
        self._battery_v = 0.0
        self._charge_since_ns = 0
        self._silent_since_ns = 0
        self._tested = False

    # What the node asks.
    def step(self, i: Inputs) -> None:
        """One cycle: attributes ``wires``, ``target``, ``status`` and ``faults`` hold the outcome."""
        self.faults = []
        elapsed_s = (i.now_ns - self._last_ns) / 1e9 if self._last_ns else 0.0
        paused = elapsed_s > 0.05
        self._last_ns = i.now_ns
        for identifier, data, arrived_ns in i.frames:
            self.vehicle.take(identifier, data, arrived_ns, paused)
        self._follow_session(i)
        if self.phase not in (Phase.IDLE, Phase.ENDED):
            self._watch(i)
        self._confirm_k(i)
        self._announce(i)
        handler = getattr(self, "_" + self.phase.name.lower())
        handler(i, elapsed_s)
        self._target(i, elapsed_s)

    def transmit(self, supply: Supply, now_ns: int) -> list[tuple[int, bytes]]:
        """The frames of this 100 ms, in order. Silent until the vehicle has spoken."""
        if not self._speaking:
            return []
        result = [
            (frames.STATION_LIMITS, frames.encode(frames.STATION_LIMITS, self._limits_frame())),
            (frames.STATION_STATUS, frames.encode(frames.STATION_STATUS, self._status_frame(supply, now_ns))),
        ]
        if frames.VEHICLE_EXTENSION in self.vehicle.values:
            s = self.settings
            extension = {"dynamic_control": s.dynamic_control, "high_current": s.high_current}
            result.append((frames.STATION_EXTENSION, frames.encode(frames.STATION_EXTENSION, extension)))
        if self.bidirectional:
            discharge_a = min(255.0, max(0.0, -supply.current_a))
            v2x = {
                "present_discharge_a": round(discharge_a),
                "available_input_v": self._available_v,
                "available_input_a": self._input_a,
                "lower_threshold_v": self._lower_v,
            }
            result.append((frames.STATION_V2X, frames.encode(frames.STATION_V2X, v2x)))
            minutes = self.vehicle.get(frames.VEHICLE_V2X_TIME, "discharge_min") or limit("v2x_minutes")
            time_frame = {"sequence": 2, "remaining_min": minutes}
            result.append((frames.STATION_V2X_TIME, frames.encode(frames.STATION_V2X_TIME, time_frame)))
        if self.settings.maker:
            result.append((frames.STATION_MAKER, frames.encode(frames.STATION_MAKER, {"maker": self.settings.maker})))
        self.sent += len(result)
        return result

    def status(self, i: Inputs) -> Status:
        """For VehicleLink."""
        v = self.vehicle
        ended = Link.FAILED if self.failed else Link.ENDED
        estimated = v.get(frames.VEHICLE_TIME, "estimated_min")
        unit = self.settings.capacity_unit_kwh / 0.1
        lock_fault = self.error is Code.CHADEMO_LOCK
        return Status(
            phase=ended if self.phase is Phase.ENDED else self._link_phase(i),
            lock=Lock.FAULT if lock_fault else Lock.LOCKED if i.wires.locked else Lock.UNLOCKED,
            vehicle_ready=bool(v.control("enabled")) and i.wires.k and self.phase >= Phase.INSULATION,
            protocol_number=self.rules if v.complete else 0,
            soc=v.soc,
            remaining_s=estimated * 60.0 if v.frozen and estimated else -1.0,
            capacity_wh=v.get(frames.VEHICLE_TIME, "capacity_kwh") * 1000.0 * unit if v.frozen else 0.0,
            max_voltage_v=v.get(frames.VEHICLE_LIMITS, "max_battery_v"),
            bidirectional=self.bidirectional,
            automaker=int(v.get(frames.VEHICLE_MAKER, "automaker")),
            error=self.error,
            text=self.text,
        )

    @property
    def rules(self) -> int:
        """Both sides follow the smaller protocol number."""
        return int(min(self.vehicle.control("protocol"), self.settings.protocol))

    @property
    def bidirectional(self) -> bool:
        """Both sides can discharge, and the vehicle sends the frames for it."""
        v = self.vehicle
        return self.settings.v2x and bool(v.control("discharge")) and frames.VEHICLE_V2X in v.values

    @property
    def dynamic(self) -> bool:
        """The announced current may change during the charge."""
        return self.settings.dynamic_control and bool(self.vehicle.get(frames.VEHICLE_EXTENSION, "dynamic_control"))

    @property
    def announced_a(self) -> int:
        """Current in 0x108 byte 3 [A]."""
        return self._announced_a

    def _link_phase(self, i: Inputs) -> Link:
        if self.phase is Phase.IDLE and i.session.active:
            return Link.MATCHING
        if self._k_opened_ns:  # power is told at once, why it ended only when that is known
            return Link.CHARGING if self._charge_since_ns else Link.CABLE_CHECK
        return LINKS[self.phase]

    # Frames.
    def _limits_frame(self) -> dict[str, float]:
        return {
            "welding_detection": 1,
            "available_v": self._available_v,
            "available_a": self._announced_a,
            "threshold_v": self._threshold_v,
        }

    def _status_frame(self, supply: Supply, now_ns: int) -> dict[str, float]:
        tens, minutes = self._remaining(now_ns)
        return {
            "protocol": self.settings.protocol,
            "present_v": round(min(65535.0, max(0.0, supply.voltage_v))),
            "present_a": round(min(255.0, max(0.0, supply.current_a))),
            "discharge": self.settings.v2x and bool(self.vehicle.control("discharge")),
            "charging": self._charging,
            "malfunction": self.failed and self._own_fault,
            "locked": self._locked_flag,
            "incompatible": self._incompatible,
            "system_malfunction": self.failed and not self._own_fault and not self._incompatible,
            "stop_control": self._stop_control,
            "remaining_10s": tens,
            "remaining_min": minutes,
        }

    def _remaining(self, now_ns: int) -> tuple[int, int]:
        """Bytes 6 and 7 of 0x109: 255, 255 before the charge, then the vehicle's own limit counting down."""
        left_s = self._left_s(now_ns)
        if not self._charge_since_ns or math.isinf(left_s):
            return 255, 255
        if left_s < 60.0:
            return int(left_s / 10), 0
        return 255, min(254, int(left_s / 60))

    def _left_s(self, now_ns: int) -> float:
        return max(0.0, self.vehicle.max_time_s - (now_ns - self._charge_since_ns) / 1e9)

    @property
    def _lower_v(self) -> int:
        """Lower threshold voltage of 0x208 [V]: not below what vehicle and supply allow."""
        lowest = self.vehicle.get(frames.VEHICLE_V2X, "min_discharge_v")
        return int(max(lowest, self.settings.min_voltage_v))

    # What is always watched.
    def _follow_session(self, i: Inputs) -> None:
        session = i.session
        if self.phase in (Phase.IDLE, Phase.ENDED):
            other = session.session_id != self.session_id
            if self.phase is Phase.ENDED and (other or not session.active):
                self._clear_fault()
                self.wires = WiresOut()
                self._to(Phase.IDLE, i.now_ns)
            if other:
                self._forget(session.session_id)
            return
        if session.broken or not session.active or session.session_id != self.session_id:
            self._stop("the session was ended by the station", i.now_ns)
        elif session.stop:
            self._stop("the station asked to stop", i.now_ns)

    def _watch(self, i: Inputs) -> None:
        """What ends the sequence in any phase between d1 on and the end."""
        v, now = self.vehicle, i.now_ns
        if self.phase >= Phase.RAMP_DOWN:
            return
        if self.phase >= Phase.HANDSHAKE:
            silent_s = (now - v.control_ns) / 1e9
            if silent_s > self.settings.can_loss_s:
                self._fail(Code.CHADEMO_SILENT, self._unheard(f"for {silent_s:.1f} s", "0x102"), now)
                return
            if v.crowded(now):
                self._fail(Code.CHADEMO_FRAME, "more frames than one vehicle sends: a second one, or a replay", now)
                return
            if v.fault:
                self._fail(Code.CHADEMO_VEHICLE_FAULT, f"the vehicle reports {v.fault}", now)
                return
            if v.control("not_in_park"):
                self._fail(Code.CHADEMO_VEHICLE_FAULT, "the vehicle is not in park", now)
                return
        if i.supply.faulted and self.phase >= Phase.LOCK:
            self._fail(Code.NONE, "the supply stopped by a fault", now, own=True)
            return
        if Phase.LOCK <= self.phase <= Phase.CHARGE:
            self._permission(i)

    def _unheard(self, when: str, what: str = "vehicle frames") -> str:
        """No frame that counts came; those that were refused, and why, are named."""
        v = self.vehicle
        missing = [f"0x{number:03X}" for number in NEEDED if number not in v.values]
        if v.bad:
            return f"no usable {what} {when}: {v.bad} frames were refused, the last because {v.last_bad}"
        if v.values and missing:
            return f"{', '.join(missing)} missing {when}; other frames came"
        return f"no {what} {when}"

    def _permission(self, i: Inputs) -> None:
        """After permission either word, wire or CAN, ends it; both must say so, else it is a fault as well."""
        enabled, k = bool(self.vehicle.control("enabled")), i.wires.k
        if enabled and k:
            return
        before = self.phase < Phase.CHARGE
        if self._before_charge_stop() or not enabled:
            self._stop("the vehicle ends the charge" if not before else "the vehicle stops before the charge", i.now_ns)
        else:
            self._stop("switch k opened", i.now_ns)
            self._k_opened_ns = i.now_ns

    def _confirm_k(self, i: Inputs) -> None:
        """Switch k opened first: CAN must say so too, else the wires lie or the vehicle has gone."""
        if not self._k_opened_ns or self.phase not in (Phase.RAMP_DOWN, Phase.WELDING):
            return
        v = self.vehicle
        if not v.control("enabled"):
            self._k_opened_ns = 0
        elif (i.now_ns - v.control_ns) / 1e9 > self.settings.can_loss_s:
            self._fail(
                Code.VEHICLE_GONE, "switch k opened and the vehicle's frames ended: the connection broke", i.now_ns
            )
        elif (v.control_ns - self._k_opened_ns) / 1e9 > limit("wire_skew"):
            self._fail(Code.CHADEMO_WIRES, "switch k opened and 0x102 still says enabled", i.now_ns)
        if self.failed:
            self._k_opened_ns = 0

    def _before_charge_stop(self) -> bool:
        return self.rules >= 2 and bool(self.vehicle.control("stop_before_charge"))

    # Phases.
    def _idle(self, i: Inputs, elapsed_s: float) -> None:
        self._speaking = False
        self.wires = WiresOut()
        self.text = "waits for the authorisation" if i.session.active else "silent"
        if not i.session.active:
            return
        if i.session.stop or i.session.broken:
            self._to(Phase.ENDED, i.now_ns, "ended before it began")
        elif not i.supply.alive or i.allowed.max_voltage_v < self.settings.min_voltage_v:
            self.text = "waits for the supply"
        elif i.session.start:
            self._forget(i.session.session_id)
            self.wires = WiresOut(d1=True)
            self._d1_ns = i.now_ns
            self._to(Phase.WAKE, i.now_ns, "d1 on: waiting for the vehicle's frames")

    def _wake(self, i: Inputs, elapsed_s: float) -> None:
        v = self.vehicle
        if v.complete:
            self._speaking = True
            self._available_v = int(min(i.allowed.max_voltage_v, self.settings.max_voltage_v))
            self._to(Phase.HANDSHAKE, i.now_ns, "limits exchanged: waiting for permission")
        elif self._lasts("early k", i.wires.k and not v.values, i.now_ns, limit("k_before_can")):
            self._fail(Code.CHADEMO_WIRES, "switch k is closed before the vehicle has spoken", i.now_ns)
        elif self._since_d1_s(i) > limit("permission"):
            self._fail(Code.CHADEMO_TIMEOUT, self._unheard(f"{limit('permission'):g} s after d1"), i.now_ns)

    def _handshake(self, i: Inputs, elapsed_s: float) -> None:
        v = self.vehicle
        wrong = self._mismatch()
        enabled, k = bool(v.control("enabled")), i.wires.k
        if wrong:
            self._incompatible = True
            self._fail(Code.CHADEMO_INCOMPATIBLE, wrong, i.now_ns)
        elif self._before_charge_stop():
            self._stop("the vehicle stops before the charge", i.now_ns)
        elif enabled and k:
            v.freeze(i.now_ns)
            self.wires = replace(self.wires, lock=True)
            self._to(Phase.LOCK, i.now_ns, "permission given: locking")
        elif enabled != k and self._since_d1_s(i) > limit("permission"):
            said, wire = ("enabled", "open") if enabled else ("not enabled", "closed")
            text = f"{limit('permission'):g} s after d1 0x102 says {said} while switch k is {wire}"
            self._fail(Code.CHADEMO_WIRES, text, i.now_ns)
        elif self._since_d1_s(i) > limit("permission"):
            self._fail(Code.CHADEMO_TIMEOUT, f"no permission {limit('permission'):g} s after d1", i.now_ns)

    def _mismatch(self) -> str:
        v = self.vehicle
        target_v, most_v = v.control("target_v"), v.get(frames.VEHICLE_LIMITS, "max_battery_v")
        if target_v > self._available_v:
            return f"the vehicle wants {target_v:g} V, the station has {self._available_v:g} V"
        if most_v < self.settings.min_voltage_v:
            return f"the battery's {most_v:g} V are below the station's {self.settings.min_voltage_v:g} V"
        return ""

    def _lock(self, i: Inputs, elapsed_s: float) -> None:
        if i.wires.locked and i.supply.alive and i.supply.voltage_v < limit("not_welded_v"):
            self._locked_flag = self.settings.locked_flag_before_test
            self._to(Phase.INSULATION, i.now_ns, "locked: insulation test")
        elif self._waited(i.now_ns, "lock"):
            if not i.wires.locked:
                self._fail(Code.CHADEMO_LOCK, "the connector lock did not close", i.now_ns, own=True)
            else:
                text = f"{i.supply.voltage_v:.0f} V at the connector before the insulation test: 10 V allowed"
                self._fail(Code.CONTACTOR_WELDED, text, i.now_ns, own=True)

    def _insulation(self, i: Inputs, elapsed_s: float) -> None:
        s, session = i.supply, i.session
        ours = session.test_permit > 0 and s.insulation_permit >= session.test_permit
        self._tested = self._tested or (ours and s.insulation_valid)
        if ours and s.insulation_failed:
            self._fail(Code.NONE, "insulation test failed", i.now_ns, own=True)
        elif self._tested and not s.contactors_closed and s.voltage_v < limit("before_d2_v"):
            self._locked_flag = True
            self.wires = replace(self.wires, d2=True)
            self._to(Phase.CONTACTOR, i.now_ns, "insulation valid: d2 on")
        elif self._waited(i.now_ns, "insulation"):
            self._fail(Code.CHADEMO_TIMEOUT, "insulation test not finished 20 s after permission", i.now_ns, own=True)

    def _contactor(self, i: Inputs, elapsed_s: float) -> None:
        live = i.supply.voltage_v > limit("contactor_closed_v")
        told = not self.vehicle.control("contactor_open")
        if live and (told or self.rules < 2):
            self._battery_v = i.supply.voltage_v
            self._to(Phase.PRECHARGE, i.now_ns, "the vehicle closed its contactor: precharge")
        elif self._waited(i.now_ns, "contactor"):
            text = f"contactor not closed 4 s after d2: {i.supply.voltage_v:.0f} V"
            self._fail(Code.CHADEMO_TIMEOUT, text, i.now_ns)

    def _precharge(self, i: Inputs, elapsed_s: float) -> None:
        if self.vehicle.request_a > 0 and not self._requested:
            self._requested = True
            self._charging, self._stop_control = True, False  # in the same frame
            self._lasting_ns.pop("supply", None)
        if self._requested and i.supply.precharged:
            self._charge_since_ns = i.now_ns
            self._to(Phase.CHARGE, i.now_ns, "charging")
        elif self._lasts("supply", self._requested, i.now_ns, limit("supply_ready")):
            self._fail(Code.PRECHARGE, "the supply did not reach the battery's voltage", i.now_ns, own=True)
        elif not self._requested and not self.bidirectional and self._waited(i.now_ns, "request"):
            self._fail(Code.CHADEMO_TIMEOUT, "no request 4 s after the contactor closed", i.now_ns)

    def _charge(self, i: Inputs, elapsed_s: float) -> None:
        now, request_a = i.now_ns, self.vehicle.request_a
        if i.supply.voltage_v >= self._threshold_v + limit("threshold_margin_v") and i.supply.current_a > 0:
            self._stop(f"threshold voltage of {self._threshold_v} V reached", now)
        elif self._left_s(now) <= 0.0:
            self._stop("the vehicle's time is over", now)
        elif request_a > self._announced_a and self.settings.stop_on_excess_request:
            self._fail(Code.CHADEMO_VEHICLE_FAULT, f"asked {request_a:g} A of {self._announced_a} A", now)
        elif self._lasts("limited", request_a > self._can_a(i) + 1, now, 1.0) and not self.dynamic:
            self._stop(f"the supply fell to {self._can_a(i):.0f} A and the vehicle cannot be told", now)
        elif self._lasts("under", self._undersupplied(i), now, limit("undersupply")):
            if not self.dynamic:
                self._stop(f"the supply gives {i.supply.current_a:.0f} A of {self._accepted_a:.0f} A", now)
            else:  # the vehicle is told what there is before it calls it a deviation
                self._held_a, self._held_ns = max(0, int(i.supply.current_a)), now

    def _undersupplied(self, i: Inputs) -> bool:
        wanted_a = self.target.current_a
        return wanted_a > 0 and wanted_a - i.supply.current_a > limit("deviation_a")

    def _ramp_down(self, i: Inputs, elapsed_s: float) -> None:
        flows = not i.supply.alive or abs(i.supply.current_a) > limit("small_a")
        if flows and not self._waited(i.now_ns, "vehicle_gives_up"):
            return
        self._charging = False
        self._to(Phase.WELDING, i.now_ns)

    def _welding(self, i: Inputs, elapsed_s: float) -> None:
        """The vehicle opens its contactor, checks it and says so; an old one is given 4 s."""
        now = i.now_ns
        silent = (now - self.vehicle.control_ns) / 1e9 > self.settings.can_loss_s
        if self._k_opened_ns and self.wires.d2 and not silent:
            return
        if not self.wires.d2 or silent or self.failed:
            self._release_now(now)
        elif self.rules < 2:
            if self._waited(now, "hold_protocol_1"):
                self._release_now(now)
        elif self.vehicle.control("contactor_open"):
            self._release_now(now)
        elif self._waited(now, "welding_check"):
            self._report(Code.CHADEMO_TIMEOUT, "the vehicle did not report an open contactor within 10 s")
            self._release_now(now)

    def _release_now(self, now_ns: int) -> None:
        self.wires = replace(self.wires, d2=False)
        self._to(Phase.RELEASE, now_ns)

    def _release(self, i: Inputs, elapsed_s: float) -> None:
        now = i.now_ns
        if not self._waited(now, "d2_to_d1"):
            return
        self.wires = replace(self.wires, d1=False)
        known = i.supply.alive and not i.supply.contactors_closed
        dead = known and abs(i.supply.current_a) <= limit("small_a") and i.supply.voltage_v <= limit("unlock_v")
        if self.wires.lock and not dead:
            if self._waited(now, "welding_check"):
                text = f"still {i.supply.voltage_v:.0f} V at the connector with d2 off: a contactor is welded"
                self._report(Code.CHADEMO_LOCK, text)
            return
        if self.wires.lock:
            self._lasting_ns.pop("unlock", None)
        self.wires = replace(self.wires, lock=False)
        self._locked_flag = False
        if i.wires.locked:
            if self._lasts("unlock", True, now, limit("unlock")):
                self._report(Code.CHADEMO_LOCK, "the connector lock did not open")
            return
        quiet_s = (now - self.vehicle.control_ns) / 1e9
        if quiet_s > limit("speak_after_end") or self._lasts("speak", True, now, 2.0):
            self._speaking = False
            self._to(Phase.ENDED, now)

    def _ended(self, i: Inputs, elapsed_s: float) -> None:
        self._speaking = False

    # What goes out.
    def _can_a(self, i: Inputs) -> float:
        """What the station could deliver now [A]."""
        volts = max(i.supply.voltage_v, self.settings.min_voltage_v)
        return max(0.0, min(i.allowed.max_current_a, i.allowed.max_power_w / volts, self.settings.max_current_a))

    def _announce(self, i: Inputs) -> None:
        """0x108: the voltage is fixed from the first frame, the current from permission but under dynamic control."""
        most_v = self.vehicle.get(frames.VEHICLE_LIMITS, "max_battery_v")
        if self.phase <= Phase.PRECHARGE and most_v:
            self._threshold_v = max(0, int(min(most_v, self._available_v)))
        can_a = int(min(255.0, self._can_a(i)))
        if self.phase <= Phase.CONTACTOR:
            self._announced_a = can_a
        elif self.phase <= Phase.CHARGE and self.dynamic:
            held = (i.now_ns - self._held_ns) / 1e9 < limit("hold_lowered")
            self._announced_a = min(can_a, self._held_a) if held else can_a
        self._input_a = int(min(255.0, i.allowed.export_current_a, self.settings.max_current_a))

    def _target(self, i: Inputs, elapsed_s: float) -> None:
        v = self.vehicle
        most_v = min(v.get(frames.VEHICLE_LIMITS, "max_battery_v"), self._available_v)
        if self.phase in (Phase.INSULATION, Phase.CONTACTOR):
            self.target = Target(Purpose.INSULATION_TEST, most_v)
        elif self.phase is Phase.PRECHARGE:
            self.target = Target(Purpose.PRECHARGE, self._battery_v, 2.0)
        elif self.phase is Phase.CHARGE:
            self.target = Target(Purpose.TRANSFER, v.control("target_v"), self._current(i, elapsed_s))
        else:
            self._accepted_a = 0.0
            self.target = Target()

    def _current(self, i: Inputs, elapsed_s: float) -> float:
        """The request, never above what was announced and never rising faster than a vehicle may ask."""
        wanted = min(self.vehicle.request_a, float(self._announced_a))
        if wanted <= 0.0:
            self._accepted_a = 0.0
            return -self._discharge_a(i)
        rise = self.settings.request_slew_a_per_s * elapsed_s
        self._accepted_a = min(wanted, max(self._accepted_a, 0.0) + rise)
        return self._accepted_a

    def _discharge_a(self, i: Inputs) -> float:
        """While the vehicle asks for no charge and allows discharge, what both sides can [A]."""
        v = self.vehicle
        low = i.supply.voltage_v <= self._lower_v
        level = v.get(frames.VEHICLE_V2X, "min_level")
        empty = 0 < level <= 100 and 0 <= v.soc <= level
        if not self.bidirectional or low or empty:
            return 0.0
        return max(0.0, min(v.get(frames.VEHICLE_V2X, "max_discharge_a"), float(self._input_a)))

    # Ways out.
    def _stop(self, text: str, now_ns: int) -> None:
        """The orderly way: stop control, current to zero, then the vehicle's contactor."""
        if self.phase >= Phase.RAMP_DOWN:
            return
        self._stop_control = True
        self.text = text
        self.target = Target()
        self._to(Phase.RAMP_DOWN, now_ns, text)

    def _fail(self, code: Code, text: str, now_ns: int, own: bool = False) -> None:
        """A fault: the same way without waiting for the vehicle. NONE = another node has told the fault."""
        self._own_fault = own
        self._report(code, text)
        self._stop(text, now_ns)

    def _report(self, code: Code, text: str) -> None:
        self.text = text
        if self.failed:
            return
        self.failed = True
        self.error = code
        if code:
            self.faults.append(FaultReport(code, Severity.STOP, text))

    def _clear_fault(self) -> None:
        if self.error:
            self.faults.append(FaultReport(self.error, Severity.STOP, self.text, active=False))
        self.error, self.failed = Code.NONE, False

    # Small things.
    def _to(self, phase: Phase, now_ns: int, text: str = "") -> None:
        self.phase, self._since_ns = phase, now_ns
        self._lasting_ns.clear()
        if text:
            self.text = text

    def _waited(self, now_ns: int, name: str) -> bool:
        return (now_ns - self._since_ns) / 1e9 > limit(name)

    def _since_d1_s(self, i: Inputs) -> float:
        return (i.now_ns - self._d1_ns) / 1e9

    def _lasts(self, name: str, condition: bool, now_ns: int, seconds: float) -> bool:
        if not condition:
            self._lasting_ns.pop(name, None)
            return False
        return (now_ns - self._lasting_ns.setdefault(name, now_ns)) / 1e9 > seconds
