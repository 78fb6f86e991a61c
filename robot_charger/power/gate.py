"""What one EVSE may do now: permit, target and pilot, each with its own age.

The gate is asked before every set-point frame. Times are CLOCK_MONOTONIC in nanoseconds.
"""

from __future__ import annotations

from dataclasses import dataclass

from robot_charger.common.clock import MILLISECOND
from robot_charger.common.faults import Code, FaultReport, Severity
from robot_charger.words.values import ChargePermit, Pilot, Purpose, VehicleTarget

PERMIT_NS = 300 * MILLISECOND  # a permit ends by itself
ALIVE_NS = 300 * MILLISECOND  # a node that is silent for so long is dead
PAUSE_NS = 100 * MILLISECOND  # who slept for so long trusts nothing that it holds


@dataclass(frozen=True)
class Demand:
    """What is both asked for and permitted in this cycle."""

    purpose: Purpose = Purpose.NONE
    abrupt: bool = False  # zero at once instead of by ramp
    reason: str = ""
    fault: FaultReport | None = None
    permit: ChargePermit | None = None
    target: VehicleTarget | None = None

    @property
    def permit_number(self) -> int:
        return self.permit.number if self.permit else 0

    @property
    def target_number(self) -> int:
        return self.target.number if self.target else 0


def _stop(code: Code, text: str) -> FaultReport:
    return FaultReport(code, Severity.STOP, text)


@dataclass
class Gate:
    """Permit, target and pilot of one EVSE.

    A permit is refused unless its number is above ``floor``: the number of a permit that lapsed, was discarded
    after a pause or ended in a fault. A permit of NONE is always accepted and lowers ``floor`` to its own number: the
    supervisor acknowledges the interruption, so later permits are valid again.

    The values are checked at the border (words.border): finite, possible, not from the future.
    """

    pilotless: str = ""  # the one protocol that this connector serves without a control pilot; empty: it has a pilot
    grace_ns: int = 0  # on a desk, see the parameter desk_grace_ms
    floor: int = 0
    permit: ChargePermit | None = None
    target: VehicleTarget | None = None
    pilot: Pilot = Pilot.UNKNOWN
    pilot_ns: int = 0
    refused: int = 0
    lapsed: bool = False

    def take_permit(self, permit: ChargePermit) -> None:
        if self.permit is not None and permit.stamp_ns < self.permit.stamp_ns:
            self.refused += 1
        elif permit.purpose == Purpose.NONE:
            self.floor = min(self.floor, permit.number)
            self.permit = permit
            self.lapsed = False
        elif permit.number > self.floor:
            self.permit = permit
            self.lapsed = False
        else:
            self.refused += 1

    def withdraw(self) -> None:
        """A refused message says NONE: the permit ends as one that lapsed. ``floor`` is not lowered."""
        if self.permit is not None and self.permit.purpose != Purpose.NONE:
            self.refuse_present()
            self.permit, self.lapsed = None, True

    def take_target(self, target: VehicleTarget) -> None:
        if self.target is not None and target.stamp_ns < self.target.stamp_ns:
            self.refused += 1
        else:
            self.target = target

    def take_pilot(self, state: Pilot, stamp_ns: int) -> None:
        self.pilot, self.pilot_ns = state, stamp_ns

    def discard(self) -> None:
        """The receiver slept: nothing it holds counts, and only a higher number will."""
        self.refuse_present()
        self.permit = None
        self.target = None

    def refuse_present(self) -> None:
        """The permit in hand is used up: only a higher number, or a word of NONE, opens again."""
        if self.permit and self.permit.purpose != Purpose.NONE:
            self.floor = max(self.floor, self.permit.number)

    @property
    def asked(self) -> bool:
        """Somebody has a session here: a permit names one."""
        return self.permit is not None and bool(self.permit.session_id)

    @property
    def renewed(self) -> bool:
        """The supervisor has spoken since the floor was set."""
        return self.permit is not None and (self.permit.purpose == Purpose.NONE or self.permit.number > self.floor)

    def judge(self, now_ns: int) -> Demand:
        """What may be done now. Checked before every frame."""
        permit, target = self.permit, self.target
        if permit is not None and now_ns - permit.stamp_ns > PERMIT_NS + self.grace_ns:
            self.refuse_present()
            self.permit = None
            self.lapsed = permit.purpose != Purpose.NONE
            permit = None
        if permit is None or (permit.number <= self.floor and permit.purpose != Purpose.NONE):
            fault = (
                _stop(Code.PERMIT_LAPSED, "the permit was withdrawn or not renewed for 300 ms") if self.lapsed else None
            )
            return Demand(abrupt=True, reason="no valid permit", fault=fault)
        if permit.purpose == Purpose.NONE:
            return Demand(abrupt=permit.abrupt, reason="not permitted", permit=permit)
        reason, fault = self._target_refused(permit, now_ns)
        if target is None or reason:
            return Demand(abrupt=True, reason=reason, fault=fault, permit=permit)
        if target.purpose == Purpose.NONE:
            return Demand(reason="the vehicle asks for nothing", permit=permit, target=target)
        if not self.pilotless:
            if now_ns - self.pilot_ns > ALIVE_NS + self.grace_ns:
                fault = _stop(Code.PILOT_LOST, "the pilot node is silent")
                return Demand(abrupt=True, reason=fault.text, fault=fault, permit=permit)
            if self.pilot not in (Pilot.C, Pilot.D):
                fault = _stop(Code.PILOT_LOST, "the control pilot is not in state C or D")
                return Demand(abrupt=True, reason=fault.text, fault=fault, permit=permit)
        asked, allowed = target.purpose, permit.purpose
        if asked == allowed or Purpose.INSULATION_TEST not in (asked, allowed):
            # Precharge and transfer follow each other: while one side still says precharge, that holds.
            return Demand(min(asked, allowed), permit=permit, target=target)
        reason = f"asked for {asked.name.lower()}, permitted {allowed.name.lower()}"
        return Demand(abrupt=True, reason=reason, permit=permit)

    def _target_refused(self, permit: ChargePermit, now_ns: int) -> tuple[str, FaultReport | None]:
        target = self.target
        if target is None:
            return "no target", None
        if now_ns - target.stamp_ns > ALIVE_NS + self.grace_ns:
            fault = _stop(Code.NODE_LOST, "the vehicle's target was not renewed for 300 ms")
            return fault.text, fault
        if target.session_id != permit.session_id:
            return "target and permit are of different sessions", None
        if self.pilotless and target.purpose != Purpose.NONE and target.protocol != self.pilotless:
            return f"this connector serves {self.pilotless} only, not {target.protocol or 'an unnamed protocol'}", None
        age_ms = (now_ns - target.vehicle_stamp_ns) / MILLISECOND
        if target.purpose != Purpose.NONE and age_ms > target.vehicle_timeout_ms:
            fault = _stop(Code.V2G_SILENT, f"the vehicle's last message is {age_ms:.0f} ms old")
            return fault.text, fault
        return "", None


def clamp_current(
    demand: Demand, voltage_v: float, supply_max_a: float, export_max_a: float
) -> tuple[float, bool, bool]:
    """The target's current inside every limit: (current [A], limited by current, limited by power).

    ``voltage_v`` is the measured output voltage; powers become currents by it. An empty interval gives zero.
    """
    permit, target = demand.permit, demand.target
    if permit is None or target is None:
        return 0.0, False, False
    high = min(permit.max_current_a, supply_max_a)
    low = max(permit.min_current_a, -export_max_a)
    if target.max_current_a > 0.0:
        high = min(high, target.max_current_a)
    volts = max(voltage_v, 1.0)
    power_high = permit.max_power_w if target.max_power_w <= 0.0 else min(permit.max_power_w, target.max_power_w)
    by_power_high, by_power_low = power_high / volts, permit.min_power_w / volts
    top, bottom = min(high, by_power_high), max(low, by_power_low)
    if bottom > top:
        return 0.0, True, True
    current = min(max(target.current_a, bottom), top)
    limited = current != target.current_a
    by_power = limited and current in (by_power_high, by_power_low)
    return current, limited and not by_power, by_power
