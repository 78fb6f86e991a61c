"""What the bank did, as ROS messages. Kept apart from the node's shell, and as cheap as 25 Hz for every EVSE asks for.

Only message classes are used here, no rclpy.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from robot_charger import msg
from robot_charger.common.clock import MILLISECOND, SECOND, now_ns
from robot_charger.power import codec
from robot_charger.power.bank import Bank
from robot_charger.power.control import Control, Snapshot
from robot_charger.power.parameters import PowerParameters

LIMITS_NS = SECOND // 2
RIPPLE_A = 1.0  # peak to peak, of one module; modules are interleaved


class Reporter:
    """Builds the messages of one bank; ``limits``, ``bay`` and ``safety`` answer None when nothing is due."""

    def __init__(self, parameters: PowerParameters, control: Control) -> None:
        self.parameters = parameters
        self.control = control
        self._limits: dict[int, tuple[Any, ...]] = {}
        self._limits_ns: dict[int, int] = {}
        self._bay: dict[int, int] = {}
        self._safety: tuple[Any, ...] = ()
        self._frames_in = 0
        self._frames_ns = 0

    def state(self, s: Snapshot, missed: int) -> msg.SupplyState:
        message = msg.SupplyState()
        message.stamp_ns = s.stamp_ns
        message.session_id = s.session_id[:40]
        message.permit_number = s.permit_number
        message.target_number = s.target_number
        message.mode = int(s.mode)
        message.voltage_v = float(s.voltage_v)
        message.bank_voltage_v = float(s.bank_voltage_v)
        message.current_a = float(s.current_a)
        message.power_w = float(s.voltage_v * s.current_a)
        message.setpoint_v = float(s.setpoint_v)
        message.setpoint_a = float(s.setpoint_a)
        message.contactors_requested = s.contactors_requested
        message.contactors_closed = s.contactors_closed
        message.contactors_open = s.contactors_open
        message.contactor_welded = s.contactor_welded
        message.insulation = int(s.insulation)
        message.insulation_ohm = float(s.insulation_ohm)
        message.insulation_permit_number = s.insulation_permit_number
        message.voltage_limited = s.voltage_limited
        message.current_limited = s.current_limited
        message.power_limited = s.power_limited
        message.modules_active = s.modules_active
        message.cycles = s.cycles
        message.missed_cycles = missed
        message.text = s.text[:120]
        return message

    def limits(self, evse: int) -> msg.SupplyLimits | None:
        p, control = self.parameters, self.control
        bank, channel = control.bank, control.channels[evse]
        mine = (bank.evse == evse) & ~bank.leaving
        healthy = int((mine & bank.healthy).sum())
        cable = p.cable_current_a(evse)
        voltage = max(channel.measured.voltage_v, p.min_voltage_v)
        capable = bank.capable_a(evse, voltage, promised=True)
        volts = np.maximum(voltage / bank.series(evse), bank.voltage[mine])
        power = float(np.minimum(bank.available[mine] * volts, p.module__power_w)[bank.healthy[mine]].sum())
        current = float(np.floor(min(cable, capable) * 10.0) / 10.0)  # steady: it goes into permits
        power = float(np.floor(power / 100.0) * 100.0)
        blocked = control.blocked or next(iter(channel.output.faults.values()), None)
        available = bool(healthy) and control.safety_alive and blocked is None
        block = "" if available else blocked.text if blocked else "no healthy module or no safety controller"
        rated_a = min(cable, int(mine.sum()) // bank.series(evse) * p.module__max_current_a)
        rated_w = min(int(mine.sum()) * p.module__power_w, cable * p.max_voltage_v)
        export_w = float(np.floor(control.export_w(now_ns()) / 100.0) * 100.0)
        export = min(current, export_w / max(voltage, 1.0))
        key = (round(current), round(power, -3), healthy, available, block, export_w > 0.0)
        now = now_ns()
        if key == self._limits.get(evse) and now - self._limits_ns.get(evse, 0) < LIMITS_NS:
            return None
        self._limits[evse], self._limits_ns[evse] = key, now
        message = msg.SupplyLimits()
        message.stamp_ns = now
        message.max_voltage_v = float(p.max_voltage_v)
        message.min_voltage_v = float(p.min_voltage_v)
        message.max_current_a = float(current)
        message.min_current_a = float(p.module__min_current_a)
        message.max_power_w = float(min(power, rated_w))
        message.max_export_current_a = float(export)
        message.max_export_power_w = float(min(message.max_power_w, export_w))
        message.current_ripple_a = float(RIPPLE_A)
        message.rated_voltage_v = float(p.max_voltage_v)
        message.rated_current_a = float(rated_a)
        message.rated_power_w = float(rated_w)
        message.modules_total = int(mine.sum())
        message.modules_healthy = healthy
        message.available = available
        message.text = block[:120]
        return message

    def bay(self, evse: int, due: bool) -> msg.BayState | None:
        channel = self.control.channels[evse]
        bits = channel.snapshot.bay & int(codec.Bay.OCCUPIED | codec.Bay.IMMOBILISED | codec.Bay.FIELD_CLEAR)
        if not self.control.safety_alive or not channel.status_ns:
            bits = 0  # an unknown bay is neither clear nor still
        if not due and bits == self._bay.get(evse):
            return None
        self._bay[evse] = bits
        message = msg.BayState()
        message.stamp_ns = now_ns()
        message.occupied = bool(bits & codec.Bay.OCCUPIED)
        message.immobilised = bool(bits & codec.Bay.IMMOBILISED)
        message.field_clear = bool(bits & codec.Bay.FIELD_CLEAR)
        return message

    def safety(self, due: bool) -> msg.SafetyState | None:
        control = self.control
        alive, bits = control.safety_alive, control.safety.bits
        if not due and (alive, bits) == self._safety:
            return None
        self._safety = (alive, bits)
        message = msg.SafetyState()
        message.stamp_ns = now_ns()
        message.alive = alive
        message.emergency_stop = bool(bits & (codec.Safety.EMERGENCY_STOP | codec.Safety.EMERGENCY_LATCHED))
        message.door_open = bool(bits & codec.Safety.DOOR_OPEN)
        message.over_temperature = bool(bits & codec.Safety.OVER_TEMPERATURE)
        message.power_heartbeat_lost = bool(bits & codec.Safety.POWER_LOST)
        message.fault_bits = bits
        names = [name.name.lower().replace("_", " ") for name in codec.Safety if bits & name and name.name]
        message.text = ", ".join(names) if alive else "the safety controller is silent"
        return message

    def modules(self, frames_in: int, frames_out: int, frames_bad: int) -> msg.ModuleArray:
        bank, now = self.control.bank, now_ns()
        message = msg.ModuleArray()
        message.stamp_ns = now
        message.bank = "bank"
        message.frames_in, message.frames_out, message.frames_bad = frames_in, frames_out, frames_bad
        message.bus_load = float(self.control.measured_load(now))
        message.modules = _modules(bank, now)
        return message


def _modules(bank: Bank, now: int) -> list[msg.ModuleState]:
    age = np.where(bank.heard > 0, (now - bank.heard) // MILLISECOND, 0xFFFFFFFF).clip(0, 0xFFFFFFFF)
    state = np.where(bank.silent, 0, bank.state)
    columns: dict[str, list[Any]] = {
        "id": bank.address.tolist(),
        "bus": bank.bus.tolist(),
        "state": state.tolist(),
        "evse": np.where(bank.enable, bank.evse, 0).tolist(),
        "voltage_v": bank.voltage.tolist(),
        "current_a": bank.current.tolist(),
        "setpoint_a": bank.command_a.tolist(),
        "temperature_c": bank.temperature.tolist(),
        "ambient_c": bank.ambient.tolist(),
        "faults": bank.faults.tolist(),
        "age_ms": age.tolist(),
        "hours": bank.hours.tolist(),
    }
    return [msg.ModuleState(**dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]
