"""What a session may ask of the supply, and when: one place for all protocols.

The order is fixed: insulation test, precharge, transfer. A renegotiation of ISO 15118-2 goes back to the test; an end
goes to nothing. The tables call these methods in the order of their rows; a call out of this order is a mistake of ours
and raises :class:`OutOfOrder`, so that no energy is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from robot_charger.words.values import Insulation, Link, Lock, Purpose

if TYPE_CHECKING:
    from robot_charger.v2g.secc.table import Talk

PRECHARGE_CURRENT_A = 2.0  # IEC 61851-23 CC.5.2
# A vehicle closes its contactor when both sides differ by less than 20 V; each side may measure 10 V wrong (CC.6.3).
PRECHARGE_TOLERANCE_V = 30.0
PASSED = frozenset({Insulation.VALID, Insulation.WARNING})


class OutOfOrder(RuntimeError):
    """A table asked for energy before its time."""


class Energy:
    """The demand of one session. ``purpose``, ``voltage_v`` and ``current_a`` are what it asks for now."""

    def __init__(self) -> None:
        self.purpose: int = Purpose.NONE
        self.voltage_v = 0.0
        self.current_a = 0.0
        self.max_voltage_v = 0.0  # of the vehicle; 0 = it stated none
        self.max_current_a = 0.0
        self.max_export_a = 0.0  # what the vehicle can give, positive
        self.testing = False
        self.passed = False  # the insulation, since the last mating or renegotiation
        self.stopped = False  # the vehicle ended the transfer, or gave it up, by PowerDeliveryReq
        self.transferred = False
        self.result = Insulation.UNKNOWN
        self.starved_since_ns: int | None = None  # the charge loop goes on and nothing may flow
        self._permit = 0  # number of the permit before the test

    @property
    def charging(self) -> bool:
        return self.purpose == Purpose.TRANSFER

    def test(self, talk: Talk) -> Insulation | None:
        """Begin the insulation test, or look at it: its result, None while there is none."""
        if not self.testing:
            self.testing, self.passed, self.stopped = True, False, False
            self._permit, self.result = talk.station.permit_number, Insulation.UNKNOWN
            self._demand(talk, Purpose.INSULATION_TEST, self.max_voltage_v, 0.0)
            talk.say(phase=Link.CABLE_CHECK, ready=True, lock=Lock.LOCKED)
            return None
        if talk.station.insulation_permit_number <= self._permit:
            return None
        found = Insulation(talk.station.insulation)
        if found in (Insulation.UNKNOWN, Insulation.TESTING):
            return None
        self.result = found
        self.end_test(talk)
        self.passed = found in PASSED
        return found

    def end_test(self, talk: Talk) -> None:
        self.testing = False
        self._demand(talk, Purpose.NONE, 0.0, 0.0)

    def precharge(self, talk: Talk, voltage_v: float, current_a: float) -> None:
        """Bring the output to ``voltage_v`` with at most 2 A."""
        if not self.passed:
            raise OutOfOrder("precharge before the insulation test has passed")
        self._demand(talk, Purpose.PRECHARGE, self._voltage(talk, voltage_v), min(current_a, PRECHARGE_CURRENT_A))
        talk.say(phase=Link.PRECHARGE)

    def precharged(self, talk: Talk) -> bool:
        """The output has the voltage that the vehicle asked for."""
        reached = abs(talk.station.voltage_v - self.voltage_v) <= PRECHARGE_TOLERANCE_V
        return self.passed and self.purpose == Purpose.PRECHARGE and reached

    def start(self, talk: Talk) -> None:
        """The transfer begins at 0 A; the precharge voltage holds until the first request of the charge loop."""
        if not self.passed or self.purpose not in (Purpose.PRECHARGE, Purpose.TRANSFER):
            raise OutOfOrder("transfer before the precharge")
        self.stopped = False
        self._demand(talk, Purpose.TRANSFER, self.voltage_v, 0.0)
        talk.say(phase=Link.CHARGING)

    def transfer(self, talk: Talk, voltage_v: float, current_a: float) -> None:
        """The set-points of the charge loop; what is above the limits of supply or vehicle is clamped to them."""
        if not self.charging:
            raise OutOfOrder("set-points outside of the transfer")
        self.transferred = True
        if talk.settings.pause_after_s:
            self._watch(talk)
        self._demand(talk, Purpose.TRANSFER, self._voltage(talk, voltage_v), self._current(talk, current_a))
        talk.say(phase=Link.CHARGING)

    def hold(self, talk: Talk) -> None:
        """No current, contactors stay closed (ScheduleRenegotiation of ISO 15118-20)."""
        self._demand(talk, self.purpose, self.voltage_v, 0.0)

    def stop(self, talk: Talk) -> None:
        """The vehicle has enough."""
        self.stopped = True
        self.off(talk)
        talk.say(phase=Link.STOPPING)

    def renegotiate(self, talk: Talk) -> None:
        """Contactors open; the insulation is tested anew ([V2G2-582])."""
        self.off(talk)
        self.result = Insulation.UNKNOWN
        talk.say(phase=Link.PARAMETERS)

    def off(self, talk: Talk) -> None:
        """Nothing is asked for, and the test's result is void."""
        self.testing = self.passed = False
        self.starved_since_ns = None
        self._demand(talk, Purpose.NONE, 0.0, 0.0)

    def starved_s(self, talk: Talk) -> float:
        """How long the charge loop has gone on without any power."""
        return talk.now.after_s(self.starved_since_ns) if self.starved_since_ns is not None else 0.0

    def _watch(self, talk: Talk) -> None:
        exports = self.max_export_a > 0.0 and min(talk.station.announced_export()) > 0.0
        if exports or min(talk.station.announced()[1:]) > 0.0:
            self.starved_since_ns = None
        elif self.starved_since_ns is None:
            self.starved_since_ns = talk.now.ns

    def _voltage(self, talk: Talk, voltage_v: float) -> float:
        top = min(talk.station.max_voltage_v or voltage_v, self.max_voltage_v or voltage_v)
        return max(0.0, min(voltage_v, top))

    def _current(self, talk: Talk, current_a: float) -> float:
        top = min(talk.station.max_current_a, self.max_current_a or current_a)
        bottom = -min(self.max_export_a, talk.station.max_export_current_a)
        return max(bottom, min(current_a, max(top, 0.0)))

    def _demand(self, talk: Talk, purpose: int, voltage_v: float, current_a: float) -> None:
        self.purpose, self.voltage_v, self.current_a = purpose, voltage_v, current_a
        talk.say(purpose=purpose, voltage_v=voltage_v, current_a=current_a)
