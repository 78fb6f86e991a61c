"""One EVSE of the demo: let a vehicle come, have the session authorised, misbehave on request, take the books.

Plain decisions over what the observer saw; ``tick`` is called about ten times a second.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from robot_charger.desk.observer import FAULT_NAMES, Observer, Seen, SeenFault
from robot_charger.desk.simulation import Controls
from robot_charger.sim.csms.books import Entry, books
from robot_charger.station import DEMO_TOKEN
from robot_charger.words.values import Authorization

ALWAYS, ARRIVAL, CHARGING = "always", "arrival", "charging"
FAULT_AFTER_S = 4.0  # of charging
BOOKS_S = 90.0  # for the back end's last message to arrive: after an outage it waits up to 37 s before it connects
NO_BOOKS_S = 5.0  # for its first, from a CSMS that is there
SHOW_AGAIN_S = 3.0  # a card that nobody noticed
REMOTE_S = 10.0  # for a start that was asked of the CSMS: it may be away just then, by another EVSE's fault
TOLERANCE = 0.01  # between meter, modules and battery
WHOLE_WH = 1.0  # between two rounded registers
ROUNDING_WH = 2.0  # registers and messages are rounded to whole watt-hours


@dataclass(frozen=True)
class FaultPlan:
    """A fault on request: who misbehaves, and when."""

    simulator: str  # {n} stands for the EVSE
    name: str
    when: str
    until: str = ""  # phase that mends it
    own: bool = False  # only this EVSE's


FAULTS = {
    "vehicle-gone": FaultPlan("vehicle{n}", "vehicle-gone", CHARGING),
    "isolation": FaultPlan("vehicle{n}", "isolation", ARRIVAL),
    "isolation-charging": FaultPlan("vehicle{n}", "isolation-charging", CHARGING),
    "self-test": FaultPlan("safety", "self-test", ARRIVAL, until="stopping", own=True),  # plugged in twice
    "csms-gone": FaultPlan("csms", "csms-gone", CHARGING),
    "csms-absent": FaultPlan("csms", "csms-gone", ALWAYS),  # from the start of the station
    "emergency-stop": FaultPlan("safety", "emergency-stop", CHARGING),
    "module-dead": FaultPlan("rack", "module-dead", CHARGING),
    "robot-jam": FaultPlan("arm", "robot-jam", ARRIVAL),
    "overdraw": FaultPlan("vehicle{n}", "overdraw", CHARGING),
    "ventilation": FaultPlan("vehicle{n}", "ventilation", ARRIVAL),
    "residual-current": FaultPlan("rack", "residual-current", CHARGING),
}


@dataclass
class SessionResult:
    """One session as it is written to JSON."""

    evse: int
    session_id: str
    protocol: str
    result: str
    stop_reason: str
    energy_wh: float
    exported_wh: float
    soc_start: float
    soc_end: float
    phases: list[dict[str, Any]]
    robot: dict[str, Any]
    slac: dict[str, Any]
    v2g: dict[str, Any]
    power: dict[str, Any]
    ocpp: dict[str, Any]
    faults: list[dict[str, Any]]
    books: dict[str, Any] = field(default_factory=dict)

    @property
    def well(self) -> bool:
        return self.result == "completed" and self.books.get("agree", False)


class Rehearsal:
    """Sessions of one EVSE, one after another."""

    def __init__(
        self,
        simulation: Controls,
        observer: Observer,
        evse: int,
        sessions: int,
        books: Callable[[], list[Entry]],
        fault: str = "",
    ) -> None:
        self.simulation = simulation
        self.observer = observer
        self.evse = evse
        self.remaining = sessions
        self.results: list[SessionResult] = []
        self._books = books
        self._plan = FAULTS[fault] if fault else None
        self._visit = 0
        self._step: Callable[[], None] = self._await_idle
        self._since = time.monotonic()
        self._start: dict[str, float] = {}
        self._fault_sent = self._absent
        self._fault_mark = 0
        self._energy: dict[str, float] = {}
        self._shown_at = 0.0
        self._depth_m = 0.0  # of the mated plug, by the physics

    @property
    def _absent(self) -> bool:
        """There is no CSMS, for the whole session."""
        return self._plan is not None and self._plan.when == ALWAYS

    @property
    def done(self) -> bool:
        return self.remaining == 0 and self._step == self._await_idle

    def tick(self) -> None:
        self._step()

    def _seen(self) -> Seen:
        return self.observer.seen[self.evse]

    def _phase(self) -> str:
        seen = self._seen()
        return seen.phases[-1][0] if seen.phases else ""

    def _next(self, step: Callable[[], None]) -> None:
        self._step, self._since = step, time.monotonic()

    def _integrals(self) -> dict[str, float]:
        """What the simulated modules, the battery and the meter have counted so far [Wh]."""
        vehicle = self.simulation.truth(f"vehicle{self.evse}")
        rack = self.simulation.truth("rack")
        modules = rack.get("module_energy_wh", {})
        with self.observer.lock:
            meter = self._seen().last.get("power/meter")
        return {
            "battery_in": float(vehicle.get("energy_in_wh") or 0.0),
            "battery_out": float(vehicle.get("energy_out_wh") or 0.0),
            "modules": float(modules.get(str(self.evse), 0.0)),
            "meter_in": meter.import_wh if meter else 0.0,
            "meter_out": meter.export_wh if meter else 0.0,
        }

    def _arm_truth(self) -> dict[str, Any]:
        """What the physics says of this EVSE's plug and inlet."""
        truth = self.simulation.truth("arm")
        return truth.get("evses", {}).get(str(self.evse), {})

    def _await_idle(self) -> None:
        if self.remaining == 0 or self._phase() != "idle":
            return
        self._visit += 1
        self._fault_sent = self._absent
        self._depth_m = 0.0
        with self.observer.lock:
            self._fault_mark = len(self.observer.faults)
        self.simulation.tell(f"vehicle{self.evse}", arrive=self._visit, leave=False)
        if self._plan and self._plan.when == ARRIVAL:
            self._misbehave()
        self._next(self._await_parking)

    def _await_parking(self) -> None:
        if self._phase() in ("", "idle"):
            return
        self._start = self._integrals()
        if self.simulation.options.pnc:
            pass  # the vehicle's contract is its token
        elif self._absent:
            self._show_card()
        else:
            self._shown_at = time.monotonic() + REMOTE_S - SHOW_AGAIN_S
            self.simulation.ask_csms("remote_start", evse=self.evse, id_token=DEMO_TOKEN)
        self._next(self._await_end)

    def _show_card(self) -> None:
        self._shown_at = time.monotonic()
        self.observer.show_card(self.evse, DEMO_TOKEN)

    def _misbehave(self) -> None:
        self._tell_fault(True, module=1)  # repeated: without a number the rack would lose one more module each time
        self._fault_sent = True

    def _mend(self) -> None:
        self._tell_fault(False)

    def _tell_fault(self, on: bool, **more: int) -> None:
        assert self._plan
        own = {"evse": self.evse} if self._plan.own else {}
        self.simulation.tell(self._plan.simulator.format(n=self.evse), fault=self._plan.name, on=on, **own, **more)

    def _await_end(self) -> None:
        seen = self._seen()
        state = seen.last.get("session/state")
        unheard = state is not None and state.authorization == Authorization.NONE
        asks = unheard and not self.simulation.options.pnc
        if asks and time.monotonic() - self._shown_at > SHOW_AGAIN_S:
            self._show_card()  # as a person does when nothing happens
        if self._phase() in ("mated", "released", "linking"):
            self._depth_m = max(self._depth_m, float(self._arm_truth().get("depth_m") or 0.0))
        if self._plan and not self._fault_sent and self._phase() == "charging":
            began = seen.phases[-1][1]
            if time.monotonic() - began > FAULT_AFTER_S:
                self._misbehave()
        if self._plan and self._fault_sent and self._plan.until in dict(seen.phases):
            self._mend()  # however short that phase was
        if self._phase() in ("departing", "faulted") and self.observer.output_is_safe():
            self._next(self._await_books)

    def _await_books(self) -> None:
        """The back end's record is complete, or will not come."""
        waited = time.monotonic() - self._since
        if self._plan and self._fault_sent and self._plan.simulator == "csms":
            self._mend()
        session_id = self._seen().session_id
        entry = next((e for e in self._books() if e.session_id == session_id), None)
        away = self._plan is not None and self._plan.simulator == "csms"  # perhaps from this session's beginning
        patience = BOOKS_S if entry or away else NO_BOOKS_S
        if not (entry and entry.ended and waited > 1.0) and waited < patience:
            return
        self._energy = self._integrals()
        self.results.append(self._result(entry))
        self.remaining -= 1
        if self._phase() == "faulted":
            self.remaining = 0  # a person must reset it: the demo ends here
            self._next(self._await_idle)
            return
        self.simulation.tell(f"vehicle{self.evse}", leave=self._visit)
        self._next(self._await_departure)

    def _await_departure(self) -> None:
        if self._phase() == "idle":
            self._next(self._await_idle)

    def _result(self, entry: Entry | None) -> SessionResult:
        with self.observer.lock:
            seen = self._seen()
            recent = [f for f in self.observer.faults[self._fault_mark :] if f.evse in (0, self.evse)]
            faults = list({(f.code, f.source): f for f in recent}.values())
            modules = self.observer.station.get("/power/modules")
            v2g = self.observer.diagnostics.get(f"/evse{self.evse}/v2g")
        end = seen.end
        vehicle = self.simulation.truth(f"vehicle{self.evse}")
        arm = self._arm_truth()
        phases = _durations(seen.phases)
        seconds = {p["name"]: p["seconds"] for p in phases}
        delta = {k: max(0.0, self._energy[k] - self._start.get(k, 0.0)) for k in self._energy}
        if end is not None and end.fault and not any(f.code == end.fault for f in faults):
            faults.append(_fault_of(end))
        if end is None or end.fault:
            result = "faulted"
        elif end.stop_reason in ("Remote", "Local", "DeAuthorized"):
            result = "stopped"
        else:
            result = "completed"
        link = seen.link_best
        return SessionResult(
            evse=self.evse,
            session_id=seen.session_id,
            protocol=self.simulation.options.protocol,
            result=result,
            stop_reason=end.stop_reason if end else "",
            energy_wh=round(delta["meter_in"], 3),
            exported_wh=round(delta["meter_out"], 3),
            soc_start=round(seen.soc_start, 2),
            soc_end=round(float(vehicle.get("soc") or -1.0), 2),
            phases=phases,
            robot={
                "attempts": seen.attempts,
                "connect_s": seconds.get("connecting", 0.0),
                "disconnect_s": round(seconds.get("grasped", 0.0) + seconds.get("disconnecting", 0.0), 3),
                "max_force_n": round(float(arm.get("max_force_n") or 0.0), 1),
                "depth_mm": round(1000.0 * self._depth_m, 2),
            },
            slac={
                "transport": link.transport if link else "",
                "matched": bool(link and link.matched),
                "seconds": round(link.match_seconds, 3) if link else 0.0,
            },
            v2g={"loop_turnaround_ms": _answers(v2g) if v2g else {}},
            power={
                "modules": len(modules.modules) if modules else 0,
                "peak_current_a": round(seen.peak_current_a, 2),
                "max_voltage_v": round(seen.max_voltage_v, 2),
            },
            ocpp={
                "version": self.simulation.options.ocpp,
                "transaction_id": entry.transaction_id if entry else "",
                "meter_start_wh": entry.meter_start_wh if entry else None,
                "meter_stop_wh": entry.meter_stop_wh if entry else None,
                "meter_export_start_wh": entry.meter_export_start_wh if entry else 0.0,
                "meter_export_stop_wh": entry.meter_export_stop_wh if entry else 0.0,
            },
            faults=[
                {"code": f.code, "name": f.name, "severity": f.severity, "source": f.source, "text": f.text}
                for f in faults
            ],
            books=compare(delta, entry),
        )


def rehearse(simulation: Controls, observer: Observer, sessions: int, fault: str = "") -> list[Rehearsal]:
    """A rehearsal for each EVSE; they share the ``sessions``."""
    evses = simulation.options.evses
    shares = [sessions // len(evses) + (k < sessions % len(evses)) for k in range(len(evses))]
    return [
        Rehearsal(simulation, observer, evse, share, lambda: books(simulation.csms_store), fault)
        for evse, share in zip(evses, shares, strict=True)
    ]


def _answers(status: Any) -> dict[str, float]:
    """How soon v2g answered in the charge loop [ms], by p50 and p99, from its diagnostics; empty without a loop."""
    values = {value.key: value.value for value in status.values}
    keys = {name: f"charge loop answered in {name} [ms]" for name in ("p50", "p99")}
    return {name: float(values[key]) for name, key in keys.items() if key in values}


def compare(delta: dict[str, float], entry: Entry | None) -> dict[str, Any]:
    """Do meter, modules, battery and back end tell the same energy, within 1 %?"""
    meter = delta["meter_in"] - delta["meter_out"]
    billed = None
    if entry and entry.energy_wh is not None:
        billed = entry.energy_wh - (entry.meter_export_stop_wh - entry.meter_export_start_wh)
    battery = delta["battery_in"] - delta["battery_out"]
    throughput = delta["meter_in"] + delta["meter_out"]

    def near(value: float) -> bool:
        return math.isclose(value, meter, abs_tol=TOLERANCE * throughput + ROUNDING_WH)

    agree = near(battery) and near(delta["modules"])
    agree = agree and (near(billed) if billed is not None else throughput < ROUNDING_WH)
    return {
        "agree": agree,
        "meter_wh": round(meter, 3),
        "modules_wh": round(delta["modules"], 3),
        "battery_wh": round(battery, 3),
        "billed_wh": None if billed is None else round(billed, 3),
    }


def unbilled_wh(told: dict[str, Any]) -> float:
    """Energy of a session that nobody was billed for [Wh]; registers are told in whole watt-hours."""
    missing = told["meter_wh"] - (told["billed_wh"] or 0.0)
    return round(missing, 3) if missing >= WHOLE_WH else 0.0


def _durations(phases: list[tuple[str, float]]) -> list[dict[str, Any]]:
    ends = [began for _, began in phases[1:]] + [time.monotonic()]
    return [
        {"name": name, "seconds": round(end - began, 3)}
        for (name, began), end in zip(phases, ends, strict=True)
        if name not in ("idle", "unavailable")
    ]


def _fault_of(end: Any) -> SeenFault:
    return SeenFault(
        FAULT_NAMES.get(end.fault, str(end.fault)), end.fault, "stop", "supervisor", end.evse, end.session_id, end.text
    )
