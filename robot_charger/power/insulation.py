"""When a reading of the insulation monitor ends precharge or transfer, and when it only warns."""

from __future__ import annotations

from dataclasses import dataclass

from robot_charger.common.clock import SECOND
from robot_charger.common.faults import Code
from robot_charger.power.codec import EvseStatus, Monitor
from robot_charger.power.parameters import PowerParameters

SILENT_S = 2.0  # a monitor that is off, or marks its readings invalid, for longer does not measure


@dataclass(frozen=True)
class Verdict:
    """``code`` NONE: the output goes on, with a warning or without."""

    code: Code = Code.NONE
    text: str = ""
    low: bool = False


class InsulationWatch:
    """Of one output. The cable check does not come here: there the last measurement decides, without debounce."""

    def __init__(self, parameters: PowerParameters) -> None:
        self.parameters = parameters
        self._began_ns = 0
        self._since_ns: dict[str, int] = {}

    def begin(self, now_ns: int) -> None:
        """Precharge or transfer begins."""
        self._began_ns = now_ns
        self._since_ns.clear()

    def judge(self, now_ns: int, evse: EvseStatus, fault_ohm: float) -> Verdict:
        """One bad reading is a warning: the vehicle's own monitor and steps of the voltage disturb the station's.

        One that lasts for ``insulation.debounce_s`` is the fault; a hard short is one at once. At the begin a reading
        that the monitor itself marks invalid is waited for; no other reading is ignored.
        """
        p = self.parameters
        young = now_ns - self._began_ns < p.insulation__grace_s * SECOND
        low = evse.monitor == Monitor.MEASURING and evse.sequence > 0 and evse.insulation_ohm < fault_ohm
        hard = low and evse.insulation_ohm < p.insulation__short_ohm
        lasting = self._lasting("low", low, now_ns, p.insulation__debounce_s)
        invalid = self._lasting("invalid", evse.monitor == Monitor.INVALID and not young, now_ns, SILENT_S)
        off = self._lasting("off", evse.monitor == Monitor.OFF, now_ns, SILENT_S)
        if evse.monitor == Monitor.FAULT:
            return Verdict(Code.INSULATION_SELF_TEST, "the insulation monitor failed during charging")
        if hard or lasting:
            text = f"insulation {evse.insulation_ohm / 1e3:.0f} kohm during charging"
            return Verdict(Code.INSULATION_CHARGING, text, low=True)
        if invalid:
            return Verdict(Code.INSULATION_SELF_TEST, "the insulation monitor marks its readings invalid")
        if off:
            return Verdict(Code.INSULATION_SELF_TEST, "the insulation monitor does not measure")
        return Verdict(low=low)

    def _lasting(self, name: str, condition: bool, now_ns: int, limit_s: float) -> bool:
        if not condition:
            self._since_ns.pop(name, None)
            return False
        return now_ns - self._since_ns.setdefault(name, now_ns) >= limit_s * SECOND
