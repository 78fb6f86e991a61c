"""A car that visits the station: parking, plug, pilot resistors, contactor, battery management, faults.

Plain Python: ``step`` takes the time and what the wires say and gives what the car puts on them. The protocol
side (EVCC) runs in a thread of its own and uses the surface described at ``Car``.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from robot_charger.sim.vehicle.battery import Battery

FAULTS = (
    "vehicle-gone",  # the connection breaks in the middle of the charge
    "isolation",  # the vehicle leaks to earth from the start
    "isolation-charging",  # it begins to leak during the transfer
    "no-diode",  # the diode of the control pilot is shorted
    "asleep",  # the communication controller sleeps until state E or F on the pilot wakes it
    "contactor-weld",  # the vehicle's contactor does not open
    "stuck-lock",  # the connector lock does not open
    "current-deviation",  # the vehicle measures another current than it asked for
    "can-silence",  # CHAdeMO, GB/T: the vehicle's frames stop during the transfer
    *(f"no-{name}" for name in ("brm", "bcp", "bro", "bcl", "bcs", "bst", "bsd")),  # GB/T: this message never comes
    "wrong-length",  # GB/T: BCP is a byte short
    "transport-abort",  # GB/T: long messages are broken off
    "cell-overvoltage",  # GB/T: BCS tells a cell above BCP's limit
    "late-voltage",  # GB/T: the vehicle's contactors close only after CRO AA
    "reversed-polarity",  # GB/T: plus and minus of the battery are exchanged
    "latch-open",  # GB/T: CC1 leaves 4 V during the transfer
    "bst",  # GB/T: the vehicle ends the charge by BST
    "not-ready",  # GB/T: BRO stays 00
    "pause",  # GB/T: BSM does not allow charging for three seconds
    "k-open",  # CHAdeMO: switch k opens during the transfer without a word on CAN
    "vehicle-fault",  # CHAdeMO: fault bits of 0x102 during the transfer; GB/T: of BSM
    "wrong-voltage",  # CHAdeMO: a target voltage above what the station offers; GB/T: not the one that BCP named
    "overdraw",  # AC: it takes more than the pilot tells
    "ventilation",  # AC: it asks for ventilation (state D)
)

# Resistances to earth behind the diode [ohm], IEC 61851-1 table A.3 (nominal): B 2740, C 1300 in parallel.
CP_B_OHM = 2740.0
CP_C_OHM = 882.0
PP_OHM = 1500.0  # CCS2 inlet
HEALTHY_OHM = 2.0e6
LEAKING_OHM = 20.0e3
SAFE_V = 60.0
CLOSE_WITHIN_V = 20.0  # the contactor closes only when inlet and battery differ by less
OPEN_BELOW_A = 5.0
OPEN_ANYWAY_S = 2.0
DOWN_FASTER = 4.0  # the request falls so many times faster than it rises
NO_CURRENT_S = 60.0  # with closed contactor and no current the driver's patience ends
ATTEMPTS = 3
STEADY_S = 3.0  # so long without PWM the vehicle takes its conversation for lost


class Session(Protocol):
    """The protocol side of one plug-in: robot_charger.sim.evcc.Evcc, or the CHAdeMO vehicle."""

    finished: threading.Event
    result: dict[str, Any]

    def start(self) -> None: ...

    def stop(self) -> None: ...


class State(str, Enum):
    AWAY = "away"
    ARRIVING = "arriving"
    PARKED = "parked"
    CONNECTED = "connected"
    SESSION = "session"
    CHARGING = "charging"
    ENDED = "ended"
    LEAVING = "leaving"


@dataclass(frozen=True)
class CarOptions:
    """What a car is like. Currents and powers are the car's own ceilings."""

    protocol: str = "iso15118-2"
    target_soc: float | None = None  # [%], None = end by charge_seconds
    charge_seconds: float = 15.0
    soc: float | None = None  # at the start [%], None = by the seed
    seed: int = 0
    capacity_wh: float = 77_000.0
    nominal_v: float = 360.0  # battery at half charge [V]
    max_voltage_v: float = 420.0
    min_voltage_v: float = 280.0
    max_current_a: float = 300.0
    max_power_w: float = 150_000.0
    max_discharge_current_a: float = 60.0
    ramp_a_per_s: float = 50.0

    @property
    def is_chademo(self) -> bool:
        return self.protocol.startswith("chademo")

    @property
    def is_gbt(self) -> bool:
        return self.protocol.startswith("gbt")

    @property
    def on_can(self) -> bool:
        """The vehicle speaks over CAN in the plug: no control pilot, and the lock is the station's."""
        return self.is_chademo or self.is_gbt

    @property
    def talks_before_contact(self) -> bool:
        """ACDP: the conversation runs over a link that exists without the plug."""
        return self.protocol.startswith("acdp")

    @property
    def bidirectional(self) -> bool:
        return self.protocol in ("iso15118-20-bpt", "chademo-v2x", "acdp-bpt")


@dataclass(frozen=True)
class Inputs:
    """What the wires say to the car. A missing peer leaves the defaults."""

    arrive: int = 0
    leave: bool | int = False
    mated: bool = False
    pilot_mode: str = "off"
    pilot_duty: float = 0.0
    inlet_voltage_v: float = 0.0
    inlet_current_a: float = 0.0
    station_lock: bool | None = None  # CHAdeMO, GB/T: the station's solenoid; None = the car locks by itself
    d1: bool = False  # CHAdeMO start/stop wires
    d2: bool = False
    auxiliary: bool = False  # GB/T: 12 V on A+


@dataclass(frozen=True)
class Outputs:
    """What the car puts on the wires, by peer (docs/architecture.md)."""

    pilot: dict[str, Any]
    rack: dict[str, Any]
    safety: dict[str, Any]
    arm: dict[str, Any]
    chademo: dict[str, Any]
    gbt: dict[str, Any]
    truth: dict[str, Any]


@dataclass
class _Visit:
    number: int
    since_s: float
    moves_for_s: float
    settles_for_s: float
    attempts: int = 0
    completed: bool = False
    soc_start: float = 0.0
    max_voltage_v: float = 0.0
    max_current_a: float = 0.0
    current_since_s: float | None = None
    contactor_since_s: float | None = None
    open_wanted_since_s: float | None = None
    gone: bool = False
    leaving_since_s: float | None = None
    results: list[dict[str, Any]] = field(default_factory=list)


class Car:
    """The car and, at once, the surface that the protocol side (``Session``) uses from its own thread.

    Read: ``connected``, ``parked`` (stands still), ``pilot_duty`` (0 to 1; 0.05 = digital, 0 = no oscillator),
    ``inlet_voltage_v``, ``inlet_current_a`` (positive charges), ``battery_voltage_v``, ``soc``, ``target_soc``,
    ``max_voltage_v``, ``min_voltage_v``, ``max_current_a``, ``max_power_w``, ``max_discharge_current_a`` (0 =
    cannot), ``capacity_wh``, ``requested_current_a`` (negative when discharging), ``contactor``, ``locked``,
    ``faults``.
    Do: ``set_ready(on)`` (switch S2: pilot C or B), ``lock()``, ``unlock()``, ``close_contactor()`` (closes as
    soon as inlet and battery differ by less than 20 V), ``open_contactor()`` (opens below 5 A, at the latest after
    2 s), ``announce(...)`` what the station offers, ``wants_to_stop()``.
    """

    def __init__(self, options: CarOptions, new_session: Callable[[Car], Session] | None = None) -> None:
        self.options = options
        self.faults: set[str] = set()
        self.connected = False
        self.pilot_duty = 0.0
        self.inlet_voltage_v = 0.0
        self.inlet_current_a = 0.0
        self.requested_current_a = 0.0
        self.contactor = False
        self.locked = False
        self.d1 = self.d2 = self.switch_k = False  # CHAdeMO: wires felt, switch k closed
        self.auxiliary = False  # GB/T: 12 V felt on A+
        # CLOCK_MONOTONIC, for benches: k opened (CHAdeMO), the first BST (GB/T), the last frame of either
        self.k_opened_ns = self.stopped_ns = self.last_frame_ns = 0
        self.state = State.AWAY
        self.total_in_wh = 0.0
        self.total_out_wh = 0.0
        self.result: dict[str, Any] = {}
        self.stop_reason = ""
        self.battery = self._new_battery(0)
        self._new_session = new_session
        self._session: Session | None = None
        self._visit: _Visit | None = None
        self._ready = False
        self._contactor_wanted = False
        self._lock_wanted = False
        self._steady_since = float("inf")
        self._station_a = self._station_w = float("inf")
        self._lock = threading.RLock()
        self._now_s = 0.0
        self._stepped_s: float | None = None
        self._pulse_seen = False

    # What a session reads.
    @property
    def parked(self) -> bool:
        """Stands still in the bay."""
        visit = self._visit
        if visit is None or self.state in (State.AWAY, State.ARRIVING, State.LEAVING):
            return False
        return self._now_s - visit.since_s > visit.moves_for_s + visit.settles_for_s

    @property
    def soc(self) -> float:
        return self.battery.soc

    @property
    def target_soc(self) -> float:
        """State of charge at which the car is content [%]."""
        return 80.0 if self.options.target_soc is None else self.options.target_soc

    @property
    def battery_voltage_v(self) -> float:
        return self.battery.emf_v

    @property
    def max_voltage_v(self) -> float:
        return self.options.max_voltage_v

    @property
    def min_voltage_v(self) -> float:
        return self.options.min_voltage_v

    @property
    def max_current_a(self) -> float:
        return self.options.max_current_a

    @property
    def max_power_w(self) -> float:
        return self.options.max_power_w

    @property
    def max_discharge_current_a(self) -> float:
        return self.options.max_discharge_current_a if self.options.bidirectional else 0.0

    @property
    def capacity_wh(self) -> float:
        return self.battery.capacity_wh

    @property
    def charge_seconds(self) -> float:
        """Seconds of transfer so far, 0 before the first ampere."""
        since = self._visit.current_since_s if self._visit else None
        return 0.0 if since is None else self._now_s - since

    def wants_to_stop(self) -> bool:
        """The battery management ends the transfer: target reached, time over, or no current comes."""
        visit = self._visit
        if visit is None or visit.contactor_since_s is None:
            return False
        if self.options.target_soc is not None and self.soc >= self.options.target_soc:
            self.stop_reason = "target state of charge reached"
        elif self.options.target_soc is None and self.charge_seconds >= self.options.charge_seconds:
            self.stop_reason = f"charged for {self.options.charge_seconds:g} s"
        elif visit.current_since_s is None and self._now_s - visit.contactor_since_s > NO_CURRENT_S:
            self.stop_reason = f"no current for {NO_CURRENT_S:g} s"
        else:
            return False
        return True

    # What a session does.
    def set_ready(self, ready: bool) -> None:
        """Switch S2: pilot C (ready) or B."""
        self._ready = bool(ready)

    def lock(self) -> None:
        with self._lock:
            self._lock_wanted = self.locked = self.connected

    def unlock(self) -> None:
        """Ask for it: the lock opens once nothing is live at the inlet."""
        with self._lock:
            self._lock_wanted = False

    def close_contactor(self) -> bool:
        """Ask for it. True once it is closed."""
        with self._lock:
            self._contactor_wanted = True
            if self._visit:
                self._visit.open_wanted_since_s = None
            return self.contactor

    def open_contactor(self) -> bool:
        """Ask for it. True once it is open."""
        with self._lock:
            self._contactor_wanted = False
            return not self.contactor

    def announce(self, max_current_a: float, max_power_w: float = float("inf")) -> None:
        """What the station offers: the request stays below it."""
        self._station_a, self._station_w = max_current_a, max_power_w

    # The car itself.
    def step(self, now_s: float, inputs: Inputs) -> Outputs:
        """One step of the car, at 50 Hz or more while it charges. ``now_s`` rises."""
        with self._lock:
            dt_s = 0.0 if self._stepped_s is None else now_s - self._stepped_s
            self._now_s = self._stepped_s = now_s
            self._come_and_go(now_s, inputs)
            self._plug(inputs)
            self._measure(inputs, dt_s)
            self._run_session(inputs)
            self._move_contactor()
            self._move_lock(inputs)
            self._request(dt_s)
            return self._outputs()

    def end(self) -> None:
        """The process ends: nothing of the session stays behind."""
        with self._lock:
            self._drop_session()

    def _new_battery(self, visit: int) -> Battery:
        chance = random.Random(self.options.seed * 1000 + visit)
        soc = self.options.soc
        if soc is None:
            soc = chance.uniform(30.0, 60.0)
            if self.options.target_soc is not None:
                soc = min(soc, max(5.0, self.options.target_soc - 1.0))
        return Battery(soc, self.options.capacity_wh, self.options.nominal_v)

    def _come_and_go(self, now_s: float, inputs: Inputs) -> None:
        visit = self._visit
        if (visit is None or visit.leaving_since_s is not None) and inputs.arrive > (visit.number if visit else 0):
            if visit is None or now_s - (visit.leaving_since_s or 0.0) > 0.5:
                self._arrive(now_s, inputs.arrive)
            return
        if visit is None:
            return
        if self.state is State.ARRIVING and now_s - visit.since_s > visit.moves_for_s:
            self.state = State.PARKED
        told = inputs.leave is True or (inputs.leave is not False and int(inputs.leave) >= visit.number)
        if told and visit.leaving_since_s is None and not inputs.mated and not self.contactor:
            visit.leaving_since_s = now_s
            self.state = State.LEAVING
        if visit.leaving_since_s is not None and now_s - visit.leaving_since_s > 0.5:
            self.state = State.AWAY

    def _arrive(self, now_s: float, number: int) -> None:
        chance = random.Random(self.options.seed * 7919 + number)
        self.total_in_wh += self.battery.energy_in_wh
        self.total_out_wh += self.battery.energy_out_wh
        self.battery = self._new_battery(number)
        self._visit = _Visit(number, now_s, chance.uniform(0.3, 0.6), 0.3, soc_start=self.battery.soc)
        self.state = State.ARRIVING
        self.result, self.stop_reason = {}, ""
        self._ready = self._contactor_wanted = False
        self._station_a = self._station_w = float("inf")

    def _plug(self, inputs: Inputs) -> None:
        visit = self._visit
        here = self.state not in (State.AWAY, State.ARRIVING, State.LEAVING)
        connected = here and inputs.mated and visit is not None and not visit.gone
        if connected and not self.connected:
            self.connected, self.state = True, State.CONNECTED
            if visit:
                visit.attempts = 0
            self._pulse_seen = False
        elif self.connected and not connected:
            self.connected = False
            if not self.options.talks_before_contact or (visit and visit.gone):
                self._drop_session()
            self._ready = self._contactor_wanted = False
            self.contactor = self.contactor and "contactor-weld" in self.faults
            self._lock_wanted = False
            if here:
                self.state = State.ENDED if visit and visit.gone else State.PARKED

    def _measure(self, inputs: Inputs, dt_s: float) -> None:
        self.d1, self.d2 = inputs.d1 and self.connected, inputs.d2 and self.connected
        self.auxiliary = inputs.auxiliary and self.connected
        self.pilot_duty = inputs.pilot_duty if self.connected and inputs.pilot_mode == "pwm" else 0.0
        if self.connected:
            self.inlet_voltage_v, self.inlet_current_a = inputs.inlet_voltage_v, inputs.inlet_current_a
        else:
            self.inlet_voltage_v = self.battery.emf_v if self.contactor else 0.0
            self.inlet_current_a = 0.0
        visit = self._visit
        if visit is None:
            return
        current_a = self.inlet_current_a if self.contactor else 0.0
        voltage_v = self.inlet_voltage_v if self.contactor else self.battery.emf_v
        self._charge(voltage_v, current_a, dt_s)
        visit.max_voltage_v = max(visit.max_voltage_v, self.inlet_voltage_v)
        visit.max_current_a = max(visit.max_current_a, abs(current_a))
        if abs(current_a) > 1.0 and visit.current_since_s is None:
            visit.current_since_s = self._now_s
        half = min(3.0, self.options.charge_seconds / 2)
        if "vehicle-gone" in self.faults and visit.current_since_s is not None and self.charge_seconds > half:
            visit.gone = True

    def _charge(self, voltage_v: float, current_a: float, dt_s: float) -> None:
        self.battery.flow(voltage_v, current_a, dt_s)

    def _run_session(self, inputs: Inputs) -> None:
        """Begin, follow and end the conversation with the station."""
        early = self.options.talks_before_contact and self.parked
        if self._visit is None or not (self.connected or early):
            return
        if inputs.pilot_mode in ("off", "f"):
            self._pulse_seen = True
        if self._session is None:
            self._begin_session(inputs, self._visit)
            return
        self._follow_session(inputs)
        if self._told_to_wait(inputs):
            self._drop_session()
            self.unlock()
            self.state = State.CONNECTED
        elif self._session.finished.is_set():
            self._end_session(dict(self._session.result), self._visit)

    @property
    def _by_pilot(self) -> bool:
        """The control pilot says when to talk (CCS with a plug)."""
        return not (self.options.on_can or self.options.talks_before_contact)

    def _begin_session(self, inputs: Inputs, visit: _Visit) -> None:
        """A first attempt at once, another one after a pulse of the pilot."""
        if self._new_session is None or visit.completed or visit.attempts >= ATTEMPTS:
            return
        awake = "asleep" not in self.faults or (self._pulse_seen and inputs.pilot_mode in ("steady", "pwm"))
        again = visit.attempts == 0 or (self._pulse_seen and self.pilot_duty > 0.0)
        if awake and again:
            visit.attempts += 1
            self._pulse_seen = False
            self._session = self._new_session(self)
            self._session.start()

    def _follow_session(self, inputs: Inputs) -> None:
        if self.state is State.CONNECTED and (self.pilot_duty > 0.0 or not self._by_pilot):
            self.state = State.SESSION
            if inputs.station_lock is None and self._by_pilot:
                self.lock()
        if self.state is State.SESSION and self.contactor:
            self.state = State.CHARGING

    def _told_to_wait(self, inputs: Inputs) -> bool:
        """The pilot has been steady for a while before any energy: the station may be waiting for its plug."""
        if not (self.state is State.SESSION and inputs.pilot_mode == "steady" and self._by_pilot):
            self._steady_since = float("inf")
            return False
        self._steady_since = min(self._steady_since, self._now_s)
        return self._now_s - self._steady_since > STEADY_S

    def _end_session(self, result: dict[str, Any], visit: _Visit) -> None:
        self.result = result
        visit.results.append(result)
        charged = visit.current_since_s is not None
        visit.completed = charged or bool(result.get("ok")) or result.get("result") == "ended"
        self._session = None
        self._ready = False
        self.open_contactor()
        self.unlock()
        self.state = State.ENDED if visit.completed else State.CONNECTED if self.connected else State.PARKED

    def _move_lock(self, inputs: Inputs) -> None:
        stuck = "stuck-lock" in self.faults and self.locked
        if inputs.station_lock is not None:  # CHAdeMO, GB/T: the solenoid sits in the station's connector
            self.locked = stuck or (inputs.station_lock and self.connected)
        elif not self._lock_wanted and not stuck and not self.contactor and self.inlet_voltage_v < SAFE_V:
            self.locked = False

    def _move_contactor(self) -> None:
        visit = self._visit
        if visit is None:
            return
        if self._contactor_wanted and self.connected:
            matched = abs(self.inlet_voltage_v - self.battery.emf_v) < CLOSE_WITHIN_V
            if self.options.on_can:  # closes onto a dead connector, the station's contactors are open
                matched = matched or self.inlet_voltage_v < CLOSE_WITHIN_V
            if not self.contactor and matched:
                self.contactor = True
                visit.contactor_since_s = self._now_s
            return
        if not self.contactor:
            visit.open_wanted_since_s = None
            return
        if visit.open_wanted_since_s is None:
            visit.open_wanted_since_s = self._now_s
        idle = abs(self.inlet_current_a) < OPEN_BELOW_A
        if idle or self._now_s - visit.open_wanted_since_s > OPEN_ANYWAY_S:
            self.contactor = "contactor-weld" in self.faults

    def _request(self, dt_s: float) -> None:
        if not (self.contactor and self._contactor_wanted) or self.wants_to_stop():
            self.requested_current_a = 0.0
            return
        volts = max(self.inlet_voltage_v, 1.0)
        most_a = min(self.max_current_a, self._station_a, min(self.max_power_w, self._station_w) / volts)
        room_v = self.max_voltage_v - self.battery.emf_v  # the request never lifts the terminals above the maximum
        most_a = min(most_a, max(0.0, room_v / self.battery.resistance_ohm))
        if self.options.target_soc is not None:
            to_go = max(0.0, self.options.target_soc - self.soc)
            most_a = min(most_a, max(20.0, self.max_current_a * to_go / 0.2))
        if self.options.bidirectional and self.charge_seconds > self.options.charge_seconds / 2:
            most_a = -self.max_discharge_current_a
        up_a = self.options.ramp_a_per_s * dt_s
        change_a = most_a - self.requested_current_a
        self.requested_current_a += min(up_a, max(-DOWN_FASTER * up_a, change_a))

    def _drop_session(self) -> None:
        session, self._session = self._session, None
        if session is None:
            return
        if not session.finished.is_set():  # in a thread: a session at its end calls back and waits for our lock
            threading.Thread(target=session.stop, name="session-stop", daemon=True).start()
        self.result = {"ok": False, "text": "connection lost", **session.result}
        if self._visit:
            self._visit.results.append(self.result)

    def _cc1_v(self) -> float:
        """GB/T: against 12 V behind 1 kohm. 4 V all in; 6 V no plug, or the latch pressed."""
        pressed = "latch-open" in self.faults and self.charge_seconds > 3.0
        return 4.0 if self.connected and not pressed else 6.0

    def _insulation(self) -> float:
        leaks = "isolation" in self.faults
        if "isolation-charging" in self.faults:
            leaks = leaks or self.charge_seconds > min(3.0, self.options.charge_seconds / 2)
        return LEAKING_OHM if leaks else HEALTHY_OHM

    def _pilot_level(self) -> int:
        """Level that the safety controller's own comparators see: A, B or C (guard.logic.Pilot)."""
        return (3 if self._ready else 2) if self.connected else 1

    def _outputs(self) -> Outputs:
        visit, on_pilot = self._visit, self.connected and not self.options.on_can
        standing = self.state not in (State.AWAY, State.ARRIVING, State.LEAVING)
        return Outputs(
            pilot={
                "cp_ohm": (CP_C_OHM if self._ready else CP_B_OHM) if on_pilot else None,
                "diode": "no-diode" not in self.faults,
                "pp_ohm": PP_OHM if on_pilot else None,
            },
            rack={
                "connected": self.connected,
                "contactor": self.contactor,
                "emf_v": round(self.battery.emf_v, 2) * (-1 if "reversed-polarity" in self.faults else 1),
                "resistance_ohm": self.battery.resistance_ohm,
            },
            safety={
                "occupied": self.state is not State.AWAY,
                "immobilised": self.parked,
                "insulation_ohm": self._insulation() if self.connected else None,
                "pilot": None if self.options.on_can else self._pilot_level(),
            },
            arm={"present": standing, "locked": self.locked},
            chademo={"k": self.switch_k and self.connected, "lock_feedback": self.locked},
            gbt={"cc1_v": self._cc1_v(), "lock_feedback": self.locked},
            truth={
                "state": self.state.value,
                "visit": visit.number if visit else 0,
                "soc": round(self.soc, 4),
                "soc_start": round(visit.soc_start, 4) if visit else 0.0,
                "energy_in_wh": round(self.battery.energy_in_wh, 4),
                "energy_out_wh": round(self.battery.energy_out_wh, 4),
                "total_in_wh": round(self.total_in_wh + self.battery.energy_in_wh, 4),
                "total_out_wh": round(self.total_out_wh + self.battery.energy_out_wh, 4),
                "contactor": self.contactor,
                "locked": self.locked,
                "connected": self.connected,
                "charge_seconds": round(self.charge_seconds, 3) if self.contactor else 0.0,
                "requested_current_a": round(self.requested_current_a, 2),
                "max_voltage_v": round(visit.max_voltage_v, 2) if visit else 0.0,
                "max_current_a": round(visit.max_current_a, 2) if visit else 0.0,
                "stop_reason": self.stop_reason,
                "result": self.result,
                "faults": sorted(self.faults),
                **({"k_opened_ns": self.k_opened_ns} if self.options.is_chademo else {}),
                **({"stopped_ns": self.stopped_ns} if self.options.is_gbt else {}),
                **({"last_frame_ns": self.last_frame_ns} if self.options.on_can else {}),
            },
        )
