"""The pilot board on a desk: the circuit of IEC 61851-1 figure A.1, loaded by the simulated vehicle."""

from __future__ import annotations

from pathlib import Path

from robot_charger.common.clock import SECOND, now_ns
from robot_charger.common.wires import WireEnd
from robot_charger.pilot.drivers import DriverError
from robot_charger.pilot.iec61851 import GENERATOR_V, SOURCE_OHM
from robot_charger.pilot.logic import Levels, Output
from robot_charger.words.values import PilotMode

DIODE_V = 0.7  # forward voltage of the vehicle's diode
SILENT_S = 0.5  # a vehicle that spoke no longer ago than this is on the wire
REPEAT_S = 0.1  # the generator's signals are sent again so often

_WIRE_MODE = {PilotMode.OFF: "off", PilotMode.STEADY: "steady", PilotMode.PWM: "pwm", PilotMode.F: "f"}


def peak(source_v: float, ohm: float | None, diode: bool) -> float:
    """Level on the wire [V]: ``source_v`` behind 1 kohm, loaded by the vehicle's resistors behind its diode.

    ``ohm`` None = nothing plugged. Without a diode the load takes both half waves.
    """
    if ohm is None:
        return source_v
    if not diode:
        return source_v * ohm / (ohm + SOURCE_OHM)
    if source_v <= DIODE_V:
        return source_v
    return (source_v - DIODE_V) * ohm / (ohm + SOURCE_OHM) + DIODE_V


def levels(output: Output, ohm: float | None, diode: bool, pp_ohm: float | None) -> Levels:
    """Both peaks with ``output`` on the wire."""
    high_v, low_v = {
        PilotMode.STEADY: (GENERATOR_V, GENERATOR_V),
        PilotMode.PWM: (GENERATOR_V, -GENERATOR_V),
        PilotMode.F: (-GENERATOR_V, -GENERATOR_V),
    }.get(output.mode, (0.0, 0.0))
    measured = {"frequency_hz": 1000.0, "duty": output.duty} if output.mode is PilotMode.PWM else {}
    return Levels(peak(high_v, ohm, diode), peak(low_v, ohm, diode), pp_ohm, **measured)


class SimulatedPilot:
    """Wires ``pilotN`` <-> ``vehicleN``. No vehicle process, no load: state A."""

    def __init__(self, evse: int, directory: Path | None = None) -> None:
        self._vehicle = f"vehicle{evse}"
        self._wire = WireEnd(f"pilot{evse}", directory)
        self._output = Output(PilotMode.OFF)
        self._forced = False  # to F, by the safety controller
        self._sent_ns = 0

    @property
    def _effective(self) -> Output:
        return Output(PilotMode.F) if self._forced else self._output

    def set_output(self, output: Output) -> None:
        if output != self._output:
            self._output = output
            self._send()

    def measure(self) -> Levels:
        forced = self._wire.age_s("safety") < SILENT_S and bool(self._wire.signals("safety").get("f"))
        if forced != self._forced:
            self._forced = forced
            self._send()
        if now_ns() - self._sent_ns > REPEAT_S * SECOND:
            self._send()
        if self._wire.age_s(self._vehicle) > SILENT_S:
            return levels(self._effective, None, True, None)
        signals = self._wire.signals(self._vehicle)
        ohm, pp_ohm = signals.get("cp_ohm"), signals.get("pp_ohm")
        return levels(
            self._effective,
            None if ohm is None else max(0.0, float(ohm)),
            bool(signals.get("diode", True)),
            None if pp_ohm is None else float(pp_ohm),
        )

    def close(self) -> None:
        self._output = Output(PilotMode.F)
        self._send()
        self._wire.close()

    def _send(self) -> None:
        self._sent_ns = now_ns()
        self._wire.send(self._vehicle, {"mode": _WIRE_MODE[self._effective.mode], "duty": self._effective.duty})


class SimulatedOutlet:
    """Wires ``outletN`` <-> ``rack``, which has the AC supply, its contactor and its meter."""

    def __init__(self, evse: int, directory: Path | None = None) -> None:
        self._wire = WireEnd(f"outlet{evse}", directory)
        self._on = False
        self._sent_ns = 0

    def switch(self, on: bool) -> None:
        if on != self._on or now_ns() - self._sent_ns > REPEAT_S * SECOND:
            self._on, self._sent_ns = on, now_ns()
            self._wire.send("rack", {"contactor": on})

    def read(self) -> tuple[bool, bool]:
        if self._wire.age_s("rack") > SILENT_S:
            raise DriverError("the simulated AC supply is silent")
        signals = self._wire.signals("rack")
        return bool(signals.get("closed")), bool(signals.get("residual"))

    def close(self) -> None:
        self._wire.send("rack", {"contactor": False})
        self._wire.close()
