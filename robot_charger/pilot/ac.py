"""Basic AC charging (IEC 61851-1 mode 3) without any conversation: the pilot's duty tells the current.

Plain Python: pilot state, permitted current and time in; pilot command and contactor out. A legacy vehicle gets its
nominal current and nothing more. Only for an AC outlet: constructing it for a DC connector is refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from robot_charger.common.faults import Code, FaultReport, Severity
from robot_charger.pilot import iec61851
from robot_charger.pilot.iec61851 import Mode, State
from robot_charger.pilot.logic import Output

AC_CONNECTORS = ("type2", "type1")
LEAST_A = 6.0
FEEDBACK_S = 0.5  # contactor feedback must follow the request


@dataclass(frozen=True)
class AcInputs:
    """``permitted_a``: the smaller of permit, back end and supply [A], 0 = none. ``cable_a``: 0 = not coded."""

    now_ns: int
    state: State
    permitted_a: float
    cable_a: float = 0.0
    contactor_closed: bool = False  # feedback
    healthy: bool = True  # residual current device, meter and safety controller are well


class AcOutlet:
    """One AC outlet. ``contactor`` is what its coil gets, ``output`` what the pilot gets."""

    def __init__(self, connector: str, rated_a: float) -> None:
        """``rated_a``: of the outlet, 6 to 80 A per phase. Raises ValueError for a DC connector."""
        if connector not in AC_CONNECTORS:
            raise ValueError(f"basic AC charging on {connector} is not allowed: only on {', '.join(AC_CONNECTORS)}")
        if not LEAST_A <= rated_a <= 80.0:
            raise ValueError(f"an outlet of {rated_a:g} A cannot be told by the pilot: 6 to 80 A")
        self.connector = connector
        self.rated_a = rated_a
        self.output = Output(Mode.STEADY)
        self.contactor = False
        self.faults: list[FaultReport] = []
        self._welded = False
        self._changed_ns = 0  # of the contactor request
        self._pwm_off_ns: int | None = None  # since when the oscillator is off while the vehicle stays in C or D

    @property
    def told_a(self) -> float:
        """Current the vehicle is told [A], 0 = none."""
        return iec61851.duty_to_current(self.output.duty) if self.output.mode is Mode.PWM else 0.0

    def step(self, i: AcInputs) -> None:
        """Every few milliseconds: leaving C or D opens the contactor in the same step."""
        self.faults = []
        self._watch_contactor(i)
        offered_a = min(i.permitted_a, self.rated_a, i.cable_a or self.rated_a)
        if self._welded or not i.healthy:
            self.output = Output(Mode.F)
            self._switch(False, i.now_ns)
            return
        plugged = i.state in (State.B, State.C, State.D)
        if plugged and offered_a >= LEAST_A:
            duty = math.floor(iec61851.current_to_duty(offered_a) * 1e4 + 1e-6) / 1e4  # rounded down: never more
            self.output = Output(Mode.PWM, duty)
        else:
            self.output = Output(Mode.STEADY)
        self._switch(self._may_close(i), i.now_ns)

    def _may_close(self, i: AcInputs) -> bool:
        ready = i.state is State.C  # D needs ventilation, which no outlet of ours has
        if not ready:
            self._pwm_off_ns = None
            return False
        if self.output.mode is Mode.PWM:
            self._pwm_off_ns = None
            return True
        # The vehicle gets 6 s to end the load by itself before it is broken (table A.6 sequence 10.2).
        if self._pwm_off_ns is None:
            self._pwm_off_ns = i.now_ns
        grace_s = iec61851.time_s("open_under_load_after_pwm_off")
        return self.contactor and (i.now_ns - self._pwm_off_ns) / 1e9 < grace_s

    def _switch(self, on: bool, now_ns: int) -> None:
        if on != self.contactor:
            self.contactor = on
            self._changed_ns = now_ns

    def _watch_contactor(self, i: AcInputs) -> None:
        late = (i.now_ns - self._changed_ns) / 1e9 > FEEDBACK_S
        if i.contactor_closed and not self.contactor and late and not self._welded:
            self._welded = True
            text = "the AC contactor is closed though not requested"
            self.faults.append(FaultReport(Code.CONTACTOR_WELDED, Severity.STOP, text))
        elif self.contactor and not i.contactor_closed and late:
            self._switch(False, i.now_ns)
            text = f"the AC contactor did not close within {FEEDBACK_S:g} s"
            self.faults.append(FaultReport(Code.CONTACTOR_FEEDBACK, Severity.STOP, text))
