"""A car that charges by AC without any conversation: it reads the duty, closes S2, and its charger takes what was told.

The on-board charger has no losses here, so that meter and battery must tell the same energy.
"""

from __future__ import annotations

from dataclasses import replace

from robot_charger.common import duty_cycle
from robot_charger.sim.vehicle.car import Car, Inputs, Outputs, State

CP_D_OHM = 246.0  # C with 270 ohm: ventilation required (IEC 61851-1 table A.3)
PHASES = 3
READY_AFTER_S = 0.5  # from the oscillator to S2
LIVE_V = 100.0
RAMP_A_PER_S = 20.0
OVERDRAWN = 1.3


class AcCar(Car):
    """See ``Car``; ``max_current_a`` is that of the on-board charger, per phase."""

    _told_since_s: float | None = None

    @property
    def told_a(self) -> float:
        """What the pilot allows per phase [A], 0 = nothing."""
        return duty_cycle.to_current(self.pilot_duty)

    def _run_session(self, inputs: Inputs) -> None:
        visit = self._visit
        if visit is None or not self.connected:
            self._told_since_s = None
            return
        if self.wants_to_stop():
            visit.completed = True
        wanted = self.told_a > 0.0 and not visit.completed
        self._told_since_s = (self._told_since_s or self._now_s) if wanted else None
        if self._told_since_s is not None and self._now_s - self._told_since_s > READY_AFTER_S:
            self.set_ready(True)
            self.lock()
        elif not wanted and self.requested_current_a <= 0.0:
            self.set_ready(False)
            self.unlock()
        if self._ready:
            self.state = State.CHARGING if self.contactor else State.SESSION
        elif visit.completed:
            self.state = State.ENDED

    def _move_contactor(self) -> None:
        """The on-board charger, which begins when there is mains voltage."""
        self.contactor = self._ready and self.connected and self.inlet_voltage_v > LIVE_V
        if self.contactor and self._visit and self._visit.contactor_since_s is None:
            self._visit.contactor_since_s = self._now_s

    def _request(self, dt_s: float) -> None:
        visit = self._visit
        going = self.contactor and visit is not None and not visit.completed
        most_a = min(self.max_current_a, self.told_a) if going else 0.0
        if "overdraw" in self.faults:
            most_a *= OVERDRAWN
        step_a = RAMP_A_PER_S * dt_s
        change_a = most_a - self.requested_current_a
        self.requested_current_a += min(step_a, max(-4.0 * step_a, change_a))
        if not self.contactor:
            self.requested_current_a = 0.0

    def _charge(self, voltage_v: float, current_a: float, dt_s: float) -> None:
        emf_v = self.battery.emf_v
        self.battery.flow(emf_v, PHASES * self.inlet_voltage_v * current_a / emf_v, dt_s)

    def _outputs(self) -> Outputs:
        outputs = super()._outputs()
        pilot = {**outputs.pilot, "pp_ohm": None}  # the cable is the station's
        if "ventilation" in self.faults and self._ready and self.connected:
            pilot["cp_ohm"] = CP_D_OHM
        ac = {"ac_current_a": round(self.requested_current_a, 3), "ac_phases": PHASES}
        return replace(outputs, pilot=pilot, rack={**outputs.rack, "contactor": False, **ac})
