"""Insulation monitors that the power node reads itself over Modbus, by name: ``insulation.monitor``.

As a rule the safety controller has the monitor and tells its readings (codec.EvseStatus). Where a monitor hangs on a
Modbus line of the station computer, it is one of these; contactors and trips stay with the controller. Layouts: makers'
manuals and public drivers; nothing here was tried on a device.
"""

from __future__ import annotations

import struct
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from robot_charger.power.codec import MAX_OHM, Monitor
from robot_charger.power.modbus_line import LineError, ModbusLine
from robot_charger.power.parameters import PowerParameters

PERIOD_S = 1.0  # faster reading was seen to overwhelm a device
SELF_TEST_S = 30.0  # a test that takes longer has failed
STALE_S = 3.5  # a reading older than three and a half rounds is none


@dataclass(frozen=True)
class MonitorReading:
    """``monitor`` as codec.Monitor; ``sequence`` counts valid readings, modulo 256, never 0 after the first."""

    monitor: int = Monitor.OFF
    ohm: float = 0.0
    sequence: int = 0


class InsulationMonitor(ABC):
    """One monitor. Every method may raise LineError."""

    unit = 3

    def __init__(self, line: ModbusLine, unit: int = 0) -> None:
        self.line = line
        self.unit = unit or self.unit

    @abstractmethod
    def configure(self) -> None:
        """Once, and again after a fault: it measures, and nothing tests it but this node."""

    @abstractmethod
    def start_test(self) -> None:
        """Begin the self test; measurements pause."""

    @abstractmethod
    def read(self) -> tuple[Monitor, float]:
        """State and resistance [ohm]; MEASURING only with a reading that counts."""


class BenderIsoCha(InsulationMonitor):
    """Bender isoCHA425HV: 19,200 8E1, unit 3; a measurement is four registers, the third says what it is worth."""

    def configure(self) -> None:
        (_, version, *_) = self.line.read_holding(self.unit, 9820, 6)
        fast = 3 if version > 500 else 0  # the long test outlasts what some vehicles wait for
        for register, value in ((3025, 0), (3024, 0), (3021, fast), (3026, 1)):
            self.line.write(self.unit, register, [value])
            time.sleep(0.02)

    def start_test(self) -> None:
        time.sleep(0.05)
        self.line.write(self.unit, 8005, [0x5445])

    def read(self) -> tuple[Monitor, float]:
        high, low, quality, _ = self.line.read_holding(self.unit, 1000, 4)
        (ohm,) = struct.unpack(">f", struct.pack(">2H", high, low))
        if quality >> 14:
            return Monitor.SELF_TEST, 0.0
        if quality >> 8 & 7 == 2:
            return Monitor.FAULT, 0.0
        validity = quality >> 6 & 3
        if validity == 3 or not ohm >= 0.0:
            return Monitor.INVALID, 0.0
        return Monitor.MEASURING, 0.0 if validity == 1 else min(ohm, MAX_OHM)  # "smaller than" is not known to be more


class DoldRn5893(InsulationMonitor):
    """Dold RN5893: state and fault in input registers 0 and 1, the resistance in 2000 [100 ohm]."""

    unit = 1
    TEST, STOP = 1 << 4, 1 << 8

    def configure(self) -> None:
        self.line.write(self.unit, 0, [0])

    def start_test(self) -> None:
        self.line.write(self.unit, 0, [self.TEST])

    def read(self) -> tuple[Monitor, float]:
        fault, state = self.line.read_input(self.unit, 0, 2)
        if fault or state == 2:
            return Monitor.FAULT, 0.0
        if state in (3, 4):
            return Monitor.SELF_TEST, 0.0
        if state in (0, 5):
            return Monitor.INVALID, 0.0
        (raw,) = self.line.read_input(self.unit, 2000, 1)
        return Monitor.MEASURING, min(raw * 100.0, MAX_OHM)


MONITORS: dict[str, type[InsulationMonitor]] = {
    "bender-isocha425hv": BenderIsoCha,
    "dold-rn5893": DoldRn5893,
}


class Watcher:
    """Follows one monitor: what the control asks for goes in by ``order``, what it says stands in ``reading``."""

    def __init__(self, monitor: InsulationMonitor) -> None:
        self.monitor = monitor
        self.error = ""
        self._on = self._test = self._tested = False
        self._configured = False
        self._test_s: float | None = None  # since when a self test runs
        self._seen = False
        self._reading, self._read_s = MonitorReading(), float("-inf")

    def order(self, on: bool, test: bool) -> None:
        """What the output wants now; from the control thread."""
        self._on, self._test = on, test

    def reading(self, now_s: float) -> MonitorReading:
        """The newest; OFF when it is too old."""
        return self._reading if self._on and now_s - self._read_s <= STALE_S else MonitorReading()

    def step(self, now_s: float) -> None:
        """One round on the line."""
        try:
            if not self._configured:
                self.monitor.configure()
                self._configured = True
            if self._on and self._test and not self._tested:
                self.monitor.start_test()
                self._tested, self._test_s, self._seen = True, now_s, False
            if not self._test:
                self._tested = False
            self._take(*self.monitor.read(), now_s)
            self.error = ""
        except (LineError, ValueError) as error:
            self.error = str(error)
            self._configured = False

    def _take(self, state: Monitor, ohm: float, now_s: float) -> None:
        sequence = self._reading.sequence
        if self._test_s is not None:
            # The state follows late: a test counts as over only when it was seen to run, or at once after two rounds.
            self._seen = self._seen or state is Monitor.SELF_TEST
            running_s = now_s - self._test_s
            if state is not Monitor.FAULT and running_s > SELF_TEST_S:
                state = Monitor.FAULT
            elif state is not Monitor.FAULT and (state is Monitor.SELF_TEST or not self._seen):
                state = Monitor.SELF_TEST
            if state is not Monitor.SELF_TEST:
                self._test_s, sequence = None, 0
        if state is Monitor.FAULT:
            self._configured = False
        if not self._on:
            sequence = 0
        elif state is Monitor.MEASURING:
            sequence = max(1, (sequence + 1) & 0xFF)
        self._reading, self._read_s = MonitorReading(int(state), ohm, sequence), now_s


class MonitorReader:
    """All monitors of a bank in a thread of their own, a round a second."""

    def __init__(self, watchers: dict[int, Watcher], clock: Callable[[], float] = time.monotonic) -> None:
        self.watchers = watchers
        self._clock = clock
        self._failed: Callable[[BaseException], None] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="insulation", daemon=True)

    NONE: ClassVar[MonitorReading] = MonitorReading()

    def start(self, failed: Callable[[BaseException], None] | None = None) -> None:
        """Begin to read. An error that is no LineError ends the thread and goes to ``failed``."""
        self._failed = failed
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=3.0)
        for watcher in self.watchers.values():
            watcher.monitor.line.close()

    def exchange(self, evse: int, on: bool, test: bool) -> MonitorReading:
        """Tell what the output of an EVSE wants, and hear what its monitor says."""
        watcher = self.watchers.get(evse)
        if watcher is None:
            return self.NONE
        watcher.order(on, test)
        return watcher.reading(self._clock())

    def _run(self) -> None:
        try:
            while not self._stop.wait(PERIOD_S):
                for watcher in self.watchers.values():
                    watcher.step(self._clock())
        except Exception as error:
            if self._failed is None:
                raise
            self._failed(error)


def open_monitors(parameters: PowerParameters) -> MonitorReader | None:
    """None where the safety controller has them. Raises ValueError on an address that names no line."""
    kind = MONITORS.get(parameters.insulation__monitor)
    if kind is None:
        return None
    try:
        line = ModbusLine(parameters.insulation__address)
    except ValueError as error:
        raise ValueError(f"parameter insulation.address = {error}") from error
    units = dict(zip(parameters.evses, parameters.insulation__units, strict=False))
    return MonitorReader({evse: Watcher(kind(line, units.get(evse, 0))) for evse in parameters.evses})
