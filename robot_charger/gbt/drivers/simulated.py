"""The hard wires on a desk: ``gbtN`` <-> ``vehicleN``. Without a vehicle process CC1 shows no plug."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from robot_charger.common.clock import SECOND, now_ns
from robot_charger.common.wires import WireEnd
from robot_charger.gbt.model import WiresIn, WiresOut
from robot_charger.gbt.timing import plugged

SILENT_S = 0.5
REPEAT_S = 0.02


class SimulatedWires:
    def __init__(self, evse: int, directory: Path | None = None) -> None:
        self._vehicle = f"vehicle{evse}"
        self._wire = WireEnd(f"gbt{evse}", directory)
        self._wires = WiresOut()
        self._sent_ns = 0

    def write(self, wires: WiresOut) -> None:
        if wires != self._wires or now_ns() - self._sent_ns > REPEAT_S * SECOND:
            self._wires = wires
            self._sent_ns = now_ns()
            self._wire.send(self._vehicle, {"auxiliary": wires.auxiliary, "lock": wires.lock})

    def read(self) -> WiresIn:
        if self._wire.age_s(self._vehicle) > SILENT_S:
            return WiresIn()
        signals = self._wire.signals(self._vehicle)
        level = signals.get("cc1_v")
        connected = isinstance(level, int | float) and plugged(float(level))
        return WiresIn(plugged=connected, locked=bool(signals.get("lock_feedback")))

    def close(self) -> None:
        self.write(replace(self._wires, auxiliary=False))
        self._wire.close()
