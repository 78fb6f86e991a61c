"""Basic AC charging (IEC 61851-1 mode 3): when the outlet's contactor may be closed, and what the vehicle wants.

Nobody talks: the duty on the pilot tells the vehicle its current (the supervisor chooses it), the pilot's state tells
the station the rest. Plain Python: pilot, permit and measurements in; contactor, faults and what stands for a link out.
"""

from __future__ import annotations

from dataclasses import dataclass

from robot_charger.common import duty_cycle
from robot_charger.common.clock import MILLISECOND, SECOND
from robot_charger.common.faults import Code, FaultReport, Severity
from robot_charger.pilot import iec61851
from robot_charger.pilot.iec61851 import State
from robot_charger.pilot.logic import Output
from robot_charger.words.values import ChargePermit, Link, PilotMode, Purpose

CONNECTORS = ("type2", "type1")
LEAST_A = 6.0
PERMIT_NS = 300 * MILLISECOND
FEEDBACK_S = 0.5  # the contactor's feedback must follow the request
OVERDRAW_S = 6.0  # table A.6 seq. 6 gives a vehicle 5 s to follow a lower duty, and the meter 1 s to say so
OVERDRAW_A, OVERDRAW = 2.0, 0.1  # the larger, above the told current; ours
METER_S = 2.0  # of silence; the contactor opens at the first silent second


class PermitHold:
    """The supervisor's word: valid 300 ms from its own stamp; one that lapsed is not resumed, only a new one counts."""

    def __init__(self, grace_ns: int = 0) -> None:
        self._valid_ns = PERMIT_NS + grace_ns
        self._floor = self._number = self._stamp_ns = 0
        self._session = ""

    def take(self, permit: ChargePermit) -> None:
        if permit.stamp_ns < self._stamp_ns:
            return
        session_id = permit.session_id
        if permit.purpose != Purpose.TRANSFER:
            self._floor, session_id = min(self._floor, permit.number), ""
        self._number, self._stamp_ns, self._session = permit.number, permit.stamp_ns, session_id

    def discard(self) -> None:
        """Only a higher number counts from now on."""
        self._floor = max(self._floor, self._number)
        self._session = ""

    def permits(self, session_id: str, now_ns: int) -> bool:
        """Transfer is permitted now, in this session."""
        if self._session and now_ns - self._stamp_ns > self._valid_ns:
            self.discard()
        return bool(session_id) and self._session == session_id and self._number > self._floor

    @property
    def number(self) -> int:
        return self._number


@dataclass(frozen=True)
class AcInputs:
    """What one step sees."""

    now_ns: int
    state: State  # of the pilot
    output: Output  # on the pilot's wire
    session_id: str = ""
    permitted: bool = False
    stopping: bool = False  # the session asks the vehicle to stop, or stops it
    closed: bool = False  # feedback of the contactor
    residual: bool = False  # the residual current monitor (RDC-DD, 6 mA DC) has tripped, or its wire is broken
    current_a: float | None = 0.0  # of the phase that has most, by the meter; None: it has been silent for a second
    board: str = ""  # why the outlet's board does not answer


class AcOutlet:
    """One AC outlet. ``contactor`` is what its coil gets, ``changes`` the faults that began or ended in this step."""

    def __init__(self, connector: str, ventilated: bool = False, ended_after_s: float = 60.0) -> None:
        """``ventilated``: state D may charge. A vehicle that stays in B for ``ended_after_s`` has had enough.

        Raises ValueError for a DC connector.
        """
        if connector not in CONNECTORS:
            raise ValueError(f"basic AC charging on {connector} is not allowed: only on {', '.join(CONNECTORS)}")
        self.ventilated = ventilated
        self.ended_after_s = ended_after_s
        self.contactor = False
        self.link = Link.IDLE
        self.error = Code.NONE  # why the link has failed
        self.ready = False  # the vehicle asks for energy
        self.faults: dict[Code, FaultReport] = {}  # that stand
        self.changes: list[FaultReport] = []
        self._session = ""
        self._charged = False
        self._since: dict[str, int] = {}

    @property
    def wants(self) -> bool:
        """The vehicle asks for energy and may still get it in this session."""
        return self.ready and self.link in (Link.LINKED, Link.CHARGING)

    def step(self, i: AcInputs) -> None:
        """Every few milliseconds: what forbids the contactor opens it in the same step."""
        if i.session_id != self._session:
            self._session, self._charged, self.link, self.error = i.session_id, False, Link.IDLE, Code.NONE
            self._since.pop("enough", None)
        self.ready = i.state is State.C or (i.state is State.D and self.ventilated)
        told_a = duty_cycle.to_current(i.output.duty) if i.output.mode is PilotMode.PWM else 0.0
        self._judge(i, told_a)
        self._switch(self._may_close(i, told_a), i.now_ns)
        self._charged = self._charged or (self.contactor and i.closed)
        self.link = self._link(i, told_a)

    def _may_close(self, i: AcInputs, told_a: float) -> bool:
        steady_s = self._lasted("steady", told_a < LEAST_A, i.now_ns)
        well = not self.faults and i.current_a is not None
        if not (well and i.permitted and self.ready):
            return False
        # The vehicle gets 6 s to end the load by itself before it is broken (table A.6 seq. 10.2).
        grace_s = iec61851.time_s("open_under_load_after_pwm_off")
        return told_a >= LEAST_A or (self.contactor and steady_s < grace_s)

    def _link(self, i: AcInputs, told_a: float) -> Link:
        enough_s = self._lasted("enough", i.state is State.B and told_a >= LEAST_A and self._charged, i.now_ns)
        if not i.session_id:
            return Link.IDLE
        if self.link in (Link.ENDED, Link.FAILED):
            return self.link
        if i.stopping and not self.contactor and not i.closed:
            return Link.ENDED
        if i.state is State.D and not self.ventilated:
            self.error = Code.INTERLOCK
            return Link.FAILED
        if enough_s >= self.ended_after_s:
            return Link.ENDED
        if self._charged:
            return Link.CHARGING
        return Link.LINKED if i.state in (State.B, State.C, State.D) else Link.IDLE

    def _switch(self, on: bool, now_ns: int) -> None:
        if on != self.contactor:
            self.contactor = on
            self._since.pop("contact", None)

    def _lasted(self, name: str, condition: bool, now_ns: int) -> float:
        """For how long ``condition`` has held [s], 0 when it does not or begins now."""
        if not condition:
            self._since.pop(name, None)
            return 0.0
        return (now_ns - self._since.setdefault(name, now_ns)) / SECOND

    def _judge(self, i: AcInputs, told_a: float) -> None:
        """Faults of this step. All but a silent meter stand until the plug is out, a welded contactor for good."""
        before = dict(self.faults)
        unplugged = i.state is State.A
        differs_s = self._lasted("contact", i.closed != self.contactor and not i.board, i.now_ns)
        current_a = i.current_a or 0.0
        too_much = self.contactor and told_a > 0.0 and current_a - told_a > max(OVERDRAW_A, OVERDRAW * told_a)
        drawn_s = self._lasted("overdraw", too_much, i.now_ns)
        silent_s = self._lasted("meter", bool(i.session_id) and i.current_a is None, i.now_ns)
        welded = differs_s > FEEDBACK_S and i.closed
        self._stand(Code.CONTACTOR_WELDED, welded, False, "the AC contactor is closed though not requested")
        open_text = i.board or f"the AC contactor did not close within {FEEDBACK_S:g} s"
        not_closed = differs_s > FEEDBACK_S and not i.closed
        self._stand(Code.CONTACTOR_FEEDBACK, not_closed or bool(i.board), unplugged, open_text)
        text = "the residual current monitor has tripped (6 mA DC)"
        self._stand(Code.INSULATION_CHARGING, i.residual and not i.board, unplugged, text)
        text = f"the vehicle draws {current_a:.1f} A, the pilot tells {told_a:.1f} A"
        self._stand(Code.OVERCURRENT, drawn_s > OVERDRAW_S, unplugged, text)
        self._stand(Code.METER, silent_s > METER_S, i.current_a is not None, f"no meter reading for {METER_S:g} s")
        began = [f for c, f in self.faults.items() if c not in before]
        ended = [FaultReport(c, f.severity, f.text, active=False) for c, f in before.items() if c not in self.faults]
        self.changes = ended + began

    def _stand(self, code: Code, begins: bool, ends: bool, text: str) -> None:
        if begins:
            self.faults.setdefault(code, FaultReport(code, Severity.STOP, text))
        elif ends:
            self.faults.pop(code, None)
