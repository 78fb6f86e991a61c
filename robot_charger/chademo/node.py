"""Node ``chademo`` of one EVSE, in namespace /evseN.

It listens on its CAN bus, counts what it hears and stays silent: the station's side of the sequence comes with a
later landing. A silent station is what CHAdeMO wants of one that does not charge: a vehicle hears nothing and
waits.

Publishes:  fault, /diagnostics (frames heard, by identifier).
Parameters: see ChademoParameters.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass

import can

from robot_charger.common.can_bus import BusError, open_bus
from robot_charger.common.node import OK, WARN, Diagnosis, StartError, StationNode, run
from robot_charger.common.parameters import parameter


@dataclass(frozen=True)
class ChademoParameters:
    bus: str = parameter("", "CAN bus of the connector, e.g. socketcan:can1; empty: no CHAdeMO connector")


class ChademoNode(StationNode):
    def __init__(self) -> None:
        super().__init__("chademo", ChademoParameters)
        self._bus: can.BusABC | None = None
        self._heard: Counter[int] = Counter()
        self._listening = threading.Event()
        self._thread: threading.Thread | None = None

    def configure(self) -> None:
        if not self.evse:
            raise StartError("CHAdeMO belongs to one EVSE: start it in a namespace /evseN, __ns:=/evse1")
        if not self.parameters.bus:
            return
        try:
            self._bus = open_bus(self.parameters.bus, fd=False)
        except BusError as error:
            raise StartError(f"parameter bus: {error}") from error
        self._listening.set()
        self._thread = threading.Thread(target=self._listen, args=(self._bus,), name="chademo", daemon=True)
        self._thread.start()

    def cleanup(self) -> None:
        self._listening.clear()
        if self._thread:
            self._thread.join(timeout=1.0)
            self._thread = None
        if self._bus:
            self._bus.shutdown()
            self._bus = None

    def make_safe(self) -> None:
        self.cleanup()

    def diagnose(self) -> Diagnosis:
        values = {f"frames of 0x{identifier:03X}": count for identifier, count in sorted(self._heard.items())}
        if not self.parameters.bus:
            return OK, "no CHAdeMO connector (parameter bus is empty)", values
        return WARN, "listens and stays silent: CHAdeMO is not served yet", values

    def _listen(self, bus: can.BusABC) -> None:
        while self._listening.is_set():
            try:
                frame = bus.recv(0.2)
            except can.CanError as error:
                self.get_logger().error(f"bus {self.parameters.bus}: {error}", throttle_duration_sec=1.0)
                self._listening.wait(0.2)
                continue
            if frame is not None:
                self._heard[frame.arbitration_id] += 1


def main() -> None:
    run(ChademoNode)


if __name__ == "__main__":
    main()
