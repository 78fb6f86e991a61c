"""What the others say, as the sequence looks at it, and what it tells them. Messages are read by their fields."""

from __future__ import annotations

from typing import Any

from robot_charger import msg
from robot_charger.common.clock import MILLISECOND
from robot_charger.common.topics import fill
from robot_charger.gbt.logic import Station
from robot_charger.gbt.model import Allowed, Session, Status, Supply
from robot_charger.words.values import Purpose

PROTOCOL = "gbt"
ALIVE_NS = 300 * MILLISECOND
MATCHED_V = 20.0  # bank and connector: the contactors are closed at the battery's voltage
S = msg.SessionState
P = msg.SupplyState


class Heard:
    """The newest message of each topic."""

    def __init__(self) -> None:
        self.last: dict[str, Any] = {}

    @property
    def ours(self) -> bool:
        """The session's protocol is GB/T."""
        state = self.last.get("session/state")
        return state is not None and state.protocol.startswith(PROTOCOL)

    def session(self) -> Session:
        state = self.last.get("session/state")
        if state is None or not self.ours:
            return Session()
        linking = state.phase == S.PHASE_LINKING
        permit = self.last.get("power/permit")
        return Session(
            session_id=state.session_id,
            active=S.PHASE_LINKING <= state.phase <= S.PHASE_STOPPING,
            start=linking and state.authorization == S.AUTHORIZATION_ACCEPTED,
            stop=state.stop_requested or state.phase == S.PHASE_STOPPING,
            broken=state.shutdown >= S.SHUTDOWN_ERROR,
            permit=permit.number if permit is not None and permit.session_id == state.session_id else 0,
        )

    def supply(self, now_ns: int) -> Supply:
        state = self.last.get("power/state")
        if state is None or now_ns - state.stamp_ns > ALIVE_NS:
            return Supply()
        matched = abs(state.bank_voltage_v - state.voltage_v) < MATCHED_V
        at_battery = state.mode == P.MODE_TRANSFER or (state.mode == P.MODE_PRECHARGE and matched)
        return Supply(
            alive=True,
            voltage_v=state.voltage_v,
            current_a=state.current_a,
            contactors_closed=state.contactors_closed,
            precharged=state.contactors_closed and at_battery,
            faulted=state.mode == P.MODE_FAULT,
            insulation_valid=state.insulation in (P.INSULATION_VALID, P.INSULATION_WARNING),
            insulation_failed=state.insulation in (P.INSULATION_FAULT, P.INSULATION_SELF_TEST_FAILED),
            insulation_permit=state.insulation_permit_number,
        )

    def allowed(self, now_ns: int) -> Allowed:
        """The smaller of supply, back end and, once transfer is permitted, permit."""
        limits, backend, permit = (self.last.get(n) for n in ("power/limits", "backend/limit", "power/permit"))
        if limits is None:
            return Allowed()
        current_a, power_w = limits.max_current_a, limits.max_power_w
        if backend is not None:
            current_a, power_w = min(current_a, backend.max_current_a), min(power_w, backend.max_power_w)
        transfer = permit is not None and permit.purpose == Purpose.TRANSFER
        if permit is not None and transfer and now_ns - permit.stamp_ns <= ALIVE_NS:
            current_a, power_w = min(current_a, permit.max_current_a), min(power_w, permit.max_power_w)
        return Allowed(limits.max_voltage_v, max(0.0, current_a), max(0.0, power_w))


def target_message(station: Station, number: int, stamp_ns: int) -> msg.VehicleTarget:
    target = station.target
    life_ns, timeout_ms = station.sign_of_life
    return fill(
        msg.VehicleTarget(),
        stamp_ns=stamp_ns,
        number=number,
        session_id=station.session_id,
        protocol=PROTOCOL,
        purpose=target.purpose,
        voltage_v=target.voltage_v,
        current_a=target.current_a,
        max_voltage_v=station.vehicle.max_voltage_v or station.settings.voltage_2011_v,
        max_current_a=station.max_current_a,
        max_power_w=0.0,
        vehicle_stamp_ns=life_ns,
        vehicle_timeout_ms=timeout_ms,
    )


def link_message(station: Station, status: Status, publish_vin: bool, stamp_ns: int) -> msg.VehicleLink:
    return fill(
        msg.VehicleLink(),
        stamp_ns=stamp_ns,
        session_id=station.session_id,
        protocol=PROTOCOL if status.phase else "",
        phase=status.phase,
        transport="can",
        vehicle_ready=status.vehicle_ready,
        lock=status.lock,
        soc=status.soc,
        energy_capacity_wh=status.capacity_wh,
        remaining_s=status.remaining_s,
        vehicle_max_voltage_v=status.max_voltage_v,
        vehicle_max_current_a=status.max_current_a,
        identity=status.vin if publish_vin else "",
        error=status.error,
        text=status.text,
        messages_in=station.vehicle.good,
        messages_out=station.sent,
        messages_bad=station.vehicle.bad,
    )
