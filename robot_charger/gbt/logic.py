"""The charger's side of GB/T 27930: messages, wires, supply and time in; messages, wires, target and link out.

Plain Python; time is CLOCK_MONOTONIC in nanoseconds. ``Station.take`` gets every frame as it arrives, ``Station.step``
runs every 10 ms and ``Station.transmit`` after it. docs/gbt.md draws the sequence; timing.LIMITS holds every time limit
with its source.
"""

from __future__ import annotations

from dataclasses import replace

from robot_charger.common.faults import Code, FaultReport, Severity
from robot_charger.gbt.frames import READY
from robot_charger.gbt.model import LINKS, Inputs, Phase, Status, Target, WiresOut
from robot_charger.gbt.speech import Speech
from robot_charger.gbt.timing import Settings, limit
from robot_charger.gbt.transport import Frame
from robot_charger.gbt.vehicle import Vehicle
from robot_charger.words.values import Link, Lock, Purpose

TALKING = (Phase.READY, Phase.CHARGE)  # a stop from here is told by CST
UNREADY = (Phase.COMPARE, Phase.PRECHARGE)  # BRO AA goes on until CRO AA
BEFORE_CHARGE = (*UNREADY, Phase.READY)
WATCHED = (Phase.CONFIRM, Phase.PARAMETERS, *BEFORE_CHARGE, Phase.CHARGE)  # the vehicle's BEM counts
LEAST_A = 0.5  # with less to give the charger pauses
CONNECTED = tuple(p for p in Phase if Phase.WAKE <= p <= Phase.STATISTICS)  # CC1 must be at 4 V
RESULT_NAMES = ("BRM", "BCP", "BRO", "BCL", "BCS", "BSM", "BST", "BSD")  # forgotten at a restart


class Station:
    """One connector."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.vehicle = Vehicle()
        self.phase = Phase.IDLE
        self.wires = WiresOut()
        self.target = Target()
        self.error = Code.NONE
        self.failed = False
        self.text = ""
        self.faults: list[FaultReport] = []  # that began or ended in this cycle
        self._speech = Speech(settings)
        self._reported: dict[Code, str] = {}
        self._last_ns = 0
        self._forget("")

    def _forget(self, session_id: str) -> None:
        """A new session: nothing of the old one counts."""
        refused, sent = self.vehicle.bad, self._speech.sent
        self.vehicle = Vehicle()
        self.vehicle.refused = refused
        self._speech = Speech(self.settings, sent)
        self.session_id = session_id
        self.edition = 0
        self.restarts = 0
        self._restarted_ns = 0
        self._since_ns = 0
        self._lasting_ns: dict[str, int] = {}
        self._tested = self._final = False
        self._test_floor = 0  # the newest permit before the insulation test: a result of one up to it is an old one
        self._test_v = 0.0
        self._battery_v = 0.0
        self._ready_ns = 0  # BRO AA
        self._charged = False  # CHARGE was reached
        self._test_again = False  # a restart from the charge: the insulation result is void
        self._accepted_a = 0.0
        self._current_a = 0.0
        self._plugged_ns = 0

    # What the node asks.
    def take(self, identifier: int, data: bytes, now_ns: int) -> list[Frame]:
        """A frame from the bus. Returns what must be answered at once."""
        listening = Phase.WAKE <= self.phase <= Phase.STATISTICS
        return self.vehicle.take(identifier, data, now_ns) if listening else []

    def step(self, i: Inputs) -> None:
        """One cycle: attributes ``wires``, ``target`` and ``faults`` hold the outcome."""
        self.faults = []
        elapsed_s = (i.now_ns - self._last_ns) / 1e9 if self._last_ns else 0.0
        self._last_ns = i.now_ns
        self._current_a = i.supply.current_a if i.supply.alive else self._current_a
        self._follow_session(i)
        if self.phase in CONNECTED:
            self._watch(i)
        getattr(self, "_" + self.phase.name.lower())(i)
        self._target(i, elapsed_s)
        if self.phase is Phase.CHARGE:
            self._speech.account.add(i.supply, elapsed_s)

    def transmit(self, i: Inputs) -> list[Frame]:
        """The frames that are due now."""
        late = self.vehicle.step(i.now_ns)
        return [*late, *self._speech.due(self.phase, i, self.edition)]

    def status(self, i: Inputs) -> Status:
        """For VehicleLink."""
        v = self.vehicle
        left_min = v.get("BCS", "left_min", -1.0)
        lock_fault = Code.GBT_LOCK in self._reported
        return Status(
            phase=self._link(i),
            lock=Lock.FAULT if lock_fault else Lock.LOCKED if i.wires.locked else Lock.UNLOCKED,
            vehicle_ready=Phase.INSULATION <= self.phase <= Phase.RETRY and i.wires.plugged and i.wires.locked,
            edition=self.edition,
            soc=v.soc,
            remaining_s=left_min * 60.0 if left_min >= 0 else -1.0,
            capacity_wh=v.get("BCP", "energy_kwh") * 1000.0,
            max_voltage_v=v.max_voltage_v,
            max_current_a=v.get("BCP", "max_a"),
            vin=v.vin,
            error=self.error,
            text=self.text,
        )

    @property
    def sent(self) -> int:
        return self._speech.sent

    @property
    def max_current_a(self) -> float:
        """The smaller of what CML announced and BCP allows [A]."""
        return min(self._speech.announced_a, self.vehicle.get("BCP", "max_a"))

    @property
    def sign_of_life(self) -> tuple[int, int]:
        """When the vehicle last showed that it is there [ns], and how long that holds [ms].

        In the charge it is BCL, before it any message. Where only the insulation is tested, or nothing flows, CC1
        is the sign: a vehicle of 2011 is silent then.
        """
        if self.phase is Phase.CHARGE:
            return self.vehicle.arrived_ns.get("BCL", 0), round(limit("bcl") * 1000)
        timeout_ms = round(limit("bcs") * 1000)
        if self.target.purpose in (Purpose.NONE, Purpose.INSULATION_TEST):
            return self._plugged_ns, timeout_ms
        return self.vehicle.newest_ns, timeout_ms

    def _link(self, i: Inputs) -> Link:
        if self.phase is Phase.ENDED:
            return Link.FAILED if self.failed else Link.ENDED
        if self.phase is Phase.IDLE and i.session.active:
            return Link.MATCHING
        if self.phase is Phase.READY:
            return Link.PRECHARGE if self._battery_v else Link.CABLE_CHECK
        if self.phase is Phase.RETRY:
            return Link.STOPPING if self._final else Link.PARAMETERS if self._test_again else Link.CABLE_CHECK
        return LINKS[self.phase]

    # What is always watched.
    def _follow_session(self, i: Inputs) -> None:
        session = i.session
        if self.phase in (Phase.IDLE, Phase.ENDED):
            other = session.session_id != self.session_id
            if self.phase is Phase.ENDED and (other or not session.active):
                self._clear_faults()
                self.wires = WiresOut()
                self._to(Phase.IDLE, i.now_ns)
            if other:
                self._forget(session.session_id)
            return
        if session.broken or not session.active or session.session_id != self.session_id:
            self._stop("the session was ended by the station", i.now_ns, "fault")
        elif session.stop:
            self._stop("the station asked to stop", i.now_ns, "by_hand")

    def _watch(self, i: Inputs) -> None:
        """What ends the sequence in any phase between the auxiliary supply and the end."""
        v, now = self.vehicle, i.now_ns
        if i.wires.plugged:
            self._plugged_ns = now
        elif self.phase <= Phase.STATISTICS:
            self._fail(Code.VEHICLE_GONE, "CC1 left 4 V: the plug is out, or its latch is open", now, silent=True)
            return
        if self.phase >= Phase.RETRY:
            return
        if not i.wires.locked:
            self._fail(Code.GBT_LOCK, "the connector lock opened", now, "connector_fault")
        elif v.crowded(now):
            self._fail(Code.GBT_FRAME, "more requests than one vehicle sends: a second one, or a replay", now, "fault")
        elif i.supply.faulted:
            self._fail(Code.NONE, "the supply stopped by a fault", now, "no_energy")
        elif self.phase in (*BEFORE_CHARGE, Phase.CHARGE) and v.heard("BST"):
            self._vehicle_stops(now)
        elif self.phase in WATCHED and self._error_told():
            self._start_over("the vehicle reports a time-out", now)
        elif self.phase in UNREADY and v.silent_s("BRO", self._since_ns, now) > limit("bro"):
            self._start_over("no BRO in 5 s", now, "bro")
        elif self.phase in (Phase.READY, Phase.CHARGE):
            self._watch_requests(i)

    def _vehicle_stops(self, now_ns: int) -> None:
        wrong, reached = self.vehicle.stop_reasons
        if wrong:
            self._fail(Code.GBT_VEHICLE_FAULT, f"the vehicle stopped: {wrong}", now_ns, "bms_stopped")
        else:
            self._stop(f"the vehicle stopped: {reached or 'no reason named'}", now_ns, "bms_stopped")

    def _error_told(self) -> bool:
        """BEM that is not an old one on its way."""
        told_ns = self.vehicle.arrived_ns.get("BEM", 0)
        return told_ns > self._restarted_ns + limit("error_heard") * 1e9 and told_ns >= self._since_ns

    def _watch_requests(self, i: Inputs) -> None:
        v, now = self.vehicle, i.now_ns
        bcl_s = limit("bcl") if v.heard("BCL") else self.settings.first_bcl_s
        beyond = v.beyond()
        if v.silent_s("BCL", self._since_ns, now) > bcl_s:
            self._start_over(f"no BCL for {bcl_s:g} s", now, "bcl")
        elif v.silent_s("BCS", self._since_ns, now) > limit("bcs"):
            self._start_over("no BCS for 5 s", now, "bcs")
        elif v.fault:
            self._fail(Code.GBT_VEHICLE_FAULT, f"the vehicle reports {v.fault}", now)
        elif self._lasts("beyond", bool(beyond), now, limit("beyond")):
            self._fail(Code.GBT_VEHICLE_FAULT, beyond, now, "fault")
        elif v.full:
            self._stop("the vehicle reports a full battery", now, "condition_reached")

    # Phases.
    def _idle(self, i: Inputs) -> None:
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
            self.wires = WiresOut(lock=True)
            self._to(Phase.LOCK, i.now_ns, "locking")

    def _lock(self, i: Inputs) -> None:
        dead = i.supply.alive and abs(i.supply.voltage_v) < limit("not_welded_v")
        if i.wires.plugged and i.wires.locked and dead:
            self._plugged_ns = i.now_ns
            self.wires = WiresOut(auxiliary=True, lock=True)
            self._to(Phase.WAKE, i.now_ns, "auxiliary supply on: waiting for the vehicle")
        elif self._waited(i.now_ns, "lock"):
            if not i.wires.plugged:
                self._fail(Code.GBT_WIRES, "CC1 is not at 4 V: the plug is not all in", i.now_ns)
            elif not i.wires.locked:
                self._fail(Code.GBT_LOCK, "the connector lock did not close", i.now_ns)
            else:
                text = f"{i.supply.voltage_v:.0f} V at the connector before the insulation test: 10 V allowed"
                self._fail(Code.CONTACTOR_WELDED, text, i.now_ns)

    def _wake(self, i: Inputs) -> None:
        if not i.session.permit:
            self.text = "waits for the supervisor's permits"
        elif self.vehicle.heard("BHM"):
            self.edition = 2015
            most_v = self.vehicle.get("BHM", "max_total_v")
            if most_v < self.settings.min_voltage_v:
                self._fail(Code.GBT_INCOMPATIBLE, self._too_low(most_v), i.now_ns)
                return
            self._begin_test(most_v, i, f"the vehicle bears {most_v:g} V: insulation test")
        elif self._waited(i.now_ns, "bhm"):
            self.edition = 2011
            self._begin_test(self.settings.voltage_2011_v, i, "no BHM, a vehicle of 2011: insulation test")

    def _begin_test(self, most_v: float, i: Inputs, text: str) -> None:
        self.vehicle.frozen = True
        self._test_v = min(most_v, self._available_v(i))
        self._test(i, text)

    def _test(self, i: Inputs, text: str) -> None:
        self._tested, self._test_floor = False, i.session.permit
        self._to(Phase.INSULATION, i.now_ns, text)

    def _insulation(self, i: Inputs) -> None:
        s = i.supply
        ours = s.insulation_permit > self._test_floor
        self._tested = self._tested or (ours and s.insulation_valid)
        if ours and s.insulation_failed:
            self._fail(Code.NONE, "insulation test failed", i.now_ns)
        elif self._tested and not s.contactors_closed and abs(s.voltage_v) < limit("dead_v"):
            self._identify_again(i.now_ns, "insulation valid: who are you?")
        elif self._waited(i.now_ns, "insulation"):
            self._fail(Code.GBT_TIMEOUT, "the insulation test was not finished in 40 s", i.now_ns)

    def _identify(self, i: Inputs) -> None:
        patience_s = self.settings.brm_2011_s if self.edition == 2011 else limit("brm")
        if self.vehicle.heard("BRM"):
            self._to(Phase.CONFIRM, i.now_ns, "vehicle identified")
        elif self._waited(i.now_ns, patience_s):
            self._start_over(f"no BRM in {patience_s:g} s", i.now_ns, "brm")

    def _confirm(self, i: Inputs) -> None:
        v = self.vehicle
        if v.heard("BCP"):
            most_v = v.get("BCP", "max_total_v")
            if most_v < self.settings.min_voltage_v:
                self._fail(Code.GBT_INCOMPATIBLE, self._too_low(most_v), i.now_ns)
                return
            self._speech.announced_v, self._speech.announced_a = self._available_v(i), self._can_a(i)
            self._to(Phase.PARAMETERS, i.now_ns, "limits exchanged: waiting until the vehicle is ready")
        elif self._waited(i.now_ns, "bcp"):
            self._start_over("no BCP in 5 s", i.now_ns, "bcp")

    def _parameters(self, i: Inputs) -> None:
        v, now = self.vehicle, i.now_ns
        if v.get("BRO", "ready") == READY:
            self._ready_ns = now
            self._to(Phase.COMPARE, now, "the vehicle is ready: its voltage is compared")
        elif v.silent_s("BRO", self._since_ns, now) > limit("bro"):
            self._start_over("no BRO in 5 s", now, "bro")
        elif self._waited(now, "bro_ready"):
            self._start_over("the vehicle was not ready in 60 s", now, "bro")

    def _compare(self, i: Inputs) -> None:
        if self._withdrawn(i):
            return
        if self._battery_found(i):
            self._to(Phase.PRECHARGE, i.now_ns, "the battery's voltage is right: precharge")
        elif self._waited(i.now_ns, "voltage") and not self._seen(i):
            self._to(Phase.READY, i.now_ns, "no voltage yet: CRO AA, for vehicles that close only then")

    def _precharge(self, i: Inputs) -> None:
        if self._withdrawn(i):
            return
        if i.supply.precharged:
            self._to(Phase.READY, i.now_ns, "ready: waiting for the vehicle's request")
        elif self._waited(i.now_ns, "precharge"):
            self._fail(Code.PRECHARGE, "the supply did not reach the battery's voltage", i.now_ns, "no_energy")

    def _ready(self, i: Inputs) -> None:
        """CRO AA. A vehicle that closes its contactors only now is compared and precharged here."""
        v, now = self.vehicle, i.now_ns
        self._speech.following = self._speech.following or (v.heard("BCL") and v.heard("BCS"))
        if not self._battery_v and not self._battery_found(i):
            if not self.failed and (now - self._ready_ns) / 1e9 > limit("late_voltage"):
                text = "the battery's voltage did not come in 60 s after BRO AA"
                self._fail(Code.GBT_TIMEOUT, text, now, "voltage_abnormal")
        elif i.supply.precharged and self._speech.following:
            self._charged = True
            self._to(Phase.CHARGE, now, "charging")
        elif self._lasts("precharge", not i.supply.precharged, now, limit("precharge")):
            self._fail(Code.PRECHARGE, "the supply did not reach the battery's voltage", now, "no_energy")

    def _charge(self, i: Inputs) -> None:
        now, starved = i.now_ns, self._can_a(i) < LEAST_A
        paused = self.vehicle.pauses
        self._speech.allowed = not (paused or starved)
        if self._waited(now, "settled"):
            self.restarts = 0
        if self._lasts("pause", paused, now, limit("pause")):
            self._stop(f"the vehicle paused for {limit('pause'):g} s", now, "condition_reached")
        else:
            self.text = "paused by the vehicle" if paused else "no power to give" if starved else "charging"

    def _retry_over(self, i: Inputs) -> bool:
        s = i.supply
        off = s.alive and not s.contactors_closed and abs(s.voltage_v) < limit("dead_v")
        return self._waited(i.now_ns, "error") and off

    def _retry(self, i: Inputs) -> None:
        if self._final:
            if self._waited(i.now_ns, "error"):
                self._release_now(i.now_ns)
        elif self._retry_over(i):
            self._speech.error_flags = ()
            if self._test_again:
                self._test_again = False
                self._test(i, "again from the beginning: insulation test")
            else:
                self._identify_again(i.now_ns, "again from the beginning: who are you?")
        elif self._waited(i.now_ns, limit("error") + limit("welded")):
            text = f"still {i.supply.voltage_v:.0f} V at the connector: the vehicle did not open its contactors"
            self._fail(Code.GBT_TIMEOUT, text, i.now_ns, silent=True)

    def _stopping(self, i: Inputs) -> None:
        v, now = self.vehicle, i.now_ns
        if v.heard("BSD") and self._is_small():
            self._to(Phase.STATISTICS, now)
        elif not v.heard("BST"):
            if self._waited(now, "bst"):
                self._give_up("no BST in 5 s", now, "bst")
        elif self._lasts("bsd", True, now, limit("bsd")):
            self._give_up("no BSD in 10 s", now, "bsd")

    def _statistics(self, i: Inputs) -> None:
        if self._waited(i.now_ns, "statistics"):
            self._release_now(i.now_ns)

    def _release(self, i: Inputs) -> None:
        """Current to zero, auxiliary supply off so that K5 and K6 fall, connector dead, unlock."""
        now = i.now_ns
        if self.wires.auxiliary:
            if not self._is_small() and not self._waited(now, "current_zero"):
                return
            self.wires = replace(self.wires, auxiliary=False)
        known = i.supply.alive and not i.supply.contactors_closed
        dead = known and abs(i.supply.current_a) <= limit("small_a") and abs(i.supply.voltage_v) < limit("dead_v")
        if self.wires.lock and not dead:
            if self._waited(now, "welded"):
                text = f"still {i.supply.voltage_v:.0f} V at the connector: a contactor is welded"
                self._report(Code.GBT_LOCK, text)
            return
        self.wires = WiresOut()
        if not i.wires.locked:
            self._to(Phase.ENDED, now)
        elif self._lasts("unlock", True, now, limit("unlock")):
            self._report(Code.GBT_LOCK, "the connector lock did not open")

    def _ended(self, i: Inputs) -> None:
        """Silent."""

    # What several phases ask.
    def _is_small(self) -> bool:
        return abs(self._current_a) <= limit("small_a")

    def _seen(self, i: Inputs) -> bool:
        return i.supply.alive and abs(i.supply.voltage_v) > limit("battery_there_v")

    def _battery_found(self, i: Inputs) -> bool:
        """The vehicle's contactors are closed, onto the battery that BCP named."""
        told_v, seen_v, now = self.vehicle.get("BCP", "battery_v"), i.supply.voltage_v, i.now_ns
        there = self._seen(i)
        right = there and abs(seen_v - told_v) <= self.settings.battery_tolerance * told_v
        in_range = self.settings.min_voltage_v <= seen_v <= self._available_v(i)
        if right and in_range:
            self._battery_v = seen_v
            return True
        if self._lasts("mismatch", there, now, limit("mismatch")):
            if seen_v < limit("reversed_v"):
                text = f"{seen_v:.0f} V at the connector: plus and minus are exchanged"
            elif right:
                text = f"the battery's {seen_v:.0f} V are outside the station's range"
            else:
                text = f"{seen_v:.0f} V at the connector, the vehicle named {told_v:.0f} V"
            self._fail(Code.GBT_INCOMPATIBLE, text, now, "voltage_abnormal")
        return False

    def _withdrawn(self, i: Inputs) -> bool:
        """BRO fell back to 00: the vehicle is not ready any more."""
        if self.vehicle.get("BRO", "ready") == READY:
            return False
        self._start_over("the vehicle is no longer ready", i.now_ns, "bro")
        return True

    def _too_low(self, most_v: float) -> str:
        return f"the battery's {most_v:g} V are below the station's {self.settings.min_voltage_v:g} V"

    def _available_v(self, i: Inputs) -> float:
        return min(i.allowed.max_voltage_v, self.settings.max_voltage_v)

    def _can_a(self, i: Inputs) -> float:
        """What the station could deliver now [A]."""
        volts = max(i.supply.voltage_v, self.vehicle.get("BCP", "battery_v"), self.settings.min_voltage_v)
        return max(0.0, min(i.allowed.max_current_a, i.allowed.max_power_w / volts, self.settings.max_current_a))

    # What goes out.
    def _target(self, i: Inputs, elapsed_s: float) -> None:
        v = self.vehicle
        if self.phase is Phase.INSULATION:
            self.target = Target(Purpose.INSULATION_TEST, self._test_v)
        elif self.phase is Phase.PRECHARGE or (self.phase is Phase.READY and self._battery_v):
            self.target = Target(Purpose.PRECHARGE, self._battery_v, 2.0)
        elif self.phase is Phase.CHARGE:
            asked_v = min(v.get("BCL", "voltage_v"), v.max_voltage_v, self._available_v(i))
            self.target = Target(Purpose.TRANSFER, asked_v, self._request(i, asked_v, elapsed_s))
        else:
            self._accepted_a = 0.0
            self.target = Target()

    def _request(self, i: Inputs, asked_v: float, elapsed_s: float) -> float:
        """What BCL asks for, never above what both sides announced and never rising faster than is followed [A]."""
        nothing = not self._speech.allowed or asked_v < self.settings.min_voltage_v
        wanted = 0.0 if nothing else min(self.vehicle.get("BCL", "current_a"), self.max_current_a, self._can_a(i))
        self._accepted_a = min(wanted, self._accepted_a + self.settings.slew_a_per_s * elapsed_s)
        return self._accepted_a

    # Ways out.
    def _stop(self, text: str, now_ns: int, *flags: str) -> None:
        """The orderly way: CST where the vehicle listens for it, current to zero, statistics."""
        if self.phase >= Phase.STOPPING or (self.phase is Phase.RETRY and self._final):
            return
        self.target = Target()
        self._speech.stop_flags = flags
        if self.phase in TALKING:
            self._to(Phase.STOPPING, now_ns, text)
        else:
            self.text = text
            self._release_now(now_ns)

    def _fail(self, code: Code, text: str, now_ns: int, *flags: str, silent: bool = False) -> None:
        """A fault: the same way. ``silent``: the vehicle does not hear any more. NONE = another node has told it."""
        self._report(code, text)
        if silent and self.phase < Phase.RELEASE:
            self.target = Target()
            self._release_now(now_ns)
        else:
            self._stop(text, now_ns, *dict.fromkeys(("fault", *flags)))

    def _start_over(self, text: str, now_ns: int, *flags: str) -> None:
        """A time-out: output off, CEM, and again from CRM 00, a counted number of times."""
        charging = self.phase is Phase.CHARGE
        if self.restarts >= self.settings.restarts or (charging and not self.settings.restart_in_charge):
            self._give_up(text, now_ns, *flags)
            return
        self.restarts += 1
        self._test_again = self._test_again or charging
        self._speech.error_flags = flags
        self.target = Target()
        self._to(Phase.RETRY, now_ns, f"{text}: try {self.restarts + 1}")

    def _give_up(self, text: str, now_ns: int, *flags: str) -> None:
        """A time-out that ends the session: CEM, then the way out."""
        silent = self._charged or self.phase is Phase.STOPPING
        self._report(Code.GBT_SILENT if silent else Code.GBT_TIMEOUT, text)
        self._speech.error_flags, self._final = flags, True
        self.target = Target()
        self._to(Phase.RETRY, now_ns, text)

    def _identify_again(self, now_ns: int, text: str) -> None:
        self.vehicle.forget(*RESULT_NAMES)
        self._restarted_ns = now_ns
        self._battery_v = 0.0
        self._speech.following = self._speech.allowed = False
        self._to(Phase.IDENTIFY, now_ns, text)

    def _release_now(self, now_ns: int) -> None:
        self._to(Phase.RELEASE, now_ns)

    def _report(self, code: Code, text: str) -> None:
        """The first is what the session ended by; each is told once."""
        if not self.failed:
            self.failed, self.error, self.text = True, code, text
        if code and code not in self._reported:
            self._reported[code] = text
            self.faults.append(FaultReport(code, Severity.STOP, text))

    def _clear_faults(self) -> None:
        for code, text in self._reported.items():
            self.faults.append(FaultReport(code, Severity.STOP, text, active=False))
        self._reported.clear()
        self.error, self.failed = Code.NONE, False

    # Small things.
    def _to(self, phase: Phase, now_ns: int, text: str = "") -> None:
        self.phase, self._since_ns = phase, now_ns
        self._lasting_ns.clear()
        if text:
            self.text = text

    def _waited(self, now_ns: int, limited: str | float) -> bool:
        """This phase is older than a row of the table, or than so many seconds."""
        seconds = limit(limited) if isinstance(limited, str) else limited
        return (now_ns - self._since_ns) / 1e9 > seconds

    def _lasts(self, name: str, condition: bool, now_ns: int, seconds: float) -> bool:
        if not condition:
            self._lasting_ns.pop(name, None)
            return False
        return (now_ns - self._lasting_ns.setdefault(name, now_ns)) / 1e9 > seconds
