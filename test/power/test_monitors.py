"""Insulation monitors over Modbus, against foreign servers that hold their registers."""

from __future__ import annotations

import struct

import pytest
from power_desk import Desk
from test_meter_maps import Foreign

from robot_charger.common.parameters import ParameterError
from robot_charger.power.codec import MAX_OHM, Monitor
from robot_charger.power.modbus_line import LineError, ModbusLine
from robot_charger.power.monitors import (
    MONITORS,
    SELF_TEST_S,
    STALE_S,
    BenderIsoCha,
    DoldRn5893,
    InsulationMonitor,
    MonitorReader,
    Watcher,
    open_monitors,
)
from robot_charger.power.parameters import MONITOR_RESPONSE_S, PowerParameters


def bender(ohm: float, quality: int) -> dict[int, list[int]]:
    return {1000: [*struct.unpack(">2H", struct.pack(">f", ohm)), quality, 71], 9820: [0, 510, 0, 0, 0, 0]}


@pytest.mark.parametrize(
    ("ohm", "quality", "state", "read"),
    [
        (250e3, 0, Monitor.MEASURING, 250e3),
        (12e6, 2 << 6, Monitor.MEASURING, MAX_OHM),  # larger than
        (5e3, 1 << 6, Monitor.MEASURING, 0.0),  # smaller than
        (250e3, 3 << 6, Monitor.INVALID, 0.0),
        (250e3, 2 << 14, Monitor.SELF_TEST, 0.0),
        (250e3, 2 << 8, Monitor.FAULT, 0.0),
        (float("nan"), 0, Monitor.INVALID, 0.0),
    ],
)
def test_bender_readings(ohm: float, quality: int, state: Monitor, read: float) -> None:
    foreign = Foreign(bender(ohm, quality), unit=3)
    try:
        monitor = BenderIsoCha(ModbusLine(f"127.0.0.1:{foreign.port}"))
        monitor.configure()
        assert monitor.line.read_holding(3, 3021, 1) == [3] and monitor.line.read_holding(3, 3026, 1) == [1]
        monitor.start_test()
        assert monitor.line.read_holding(3, 8005, 1) == [0x5445]
        assert monitor.read() == (state, pytest.approx(read))
        monitor.line.close()
    finally:
        foreign.close()


@pytest.mark.parametrize(
    ("fault", "now", "state", "read"),
    [(0, 1, Monitor.MEASURING, 250e3), (1, 1, Monitor.FAULT, 0.0), (0, 3, Monitor.SELF_TEST, 0.0),
     (0, 0, Monitor.INVALID, 0.0), (0, 6, Monitor.MEASURING, 250e3)],
)  # fmt: skip
def test_dold_readings(fault: int, now: int, state: Monitor, read: float) -> None:
    foreign = Foreign({0: [fault, now], 2000: [2500]}, unit=1)
    try:
        monitor = DoldRn5893(ModbusLine(f"127.0.0.1:{foreign.port}"))
        assert monitor.read() == (state, read)
        monitor.line.close()
    finally:
        foreign.close()


class Slow(InsulationMonitor):
    """A monitor whose self test takes ``test_s`` and shows one round late; it may fall silent."""

    def __init__(self, test_s: float = 12.0) -> None:
        self.line = None  # type: ignore[assignment]
        self.test_s, self.now_s, self.began_s = test_s, 0.0, float("-inf")
        self.ohm, self.broken, self.silent = 1e6, False, False

    def configure(self) -> None:
        """Nothing to set."""

    def start_test(self) -> None:
        self.began_s = self.now_s

    def read(self) -> tuple[Monitor, float]:
        if self.silent:
            raise LineError("no answer")
        if 1.0 <= self.now_s - self.began_s < self.test_s:
            return Monitor.SELF_TEST, 0.0
        if self.broken and self.now_s - self.began_s < self.test_s + 60.0:
            return Monitor.FAULT, 0.0
        return Monitor.MEASURING, self.ohm


def followed(monitor: Slow, seconds: int, test: bool = True) -> list[int]:
    watcher = Watcher(monitor)
    states = []
    for second in range(seconds):
        monitor.now_s = float(second)
        watcher.order(True, test)
        watcher.step(float(second))
        states.append(watcher.reading(float(second)).monitor)
    return states


def test_a_self_test_takes_its_time_and_is_not_over_before_it_was_seen() -> None:
    states = followed(Slow(12.0), 20)
    assert states[:12] == [Monitor.SELF_TEST] * 12 and states[12:] == [Monitor.MEASURING] * 8


def test_a_self_test_that_fails_or_never_ends() -> None:
    broken = Slow(5.0)
    broken.broken = True
    assert Monitor.FAULT in followed(broken, 10)
    states = followed(Slow(1e9), int(SELF_TEST_S) + 5)
    assert Monitor.FAULT in states and states.index(Monitor.FAULT) >= SELF_TEST_S


def test_an_old_reading_is_none() -> None:
    monitor = Slow()
    watcher = Watcher(monitor)
    watcher.order(True, False)
    watcher.step(0.0)
    monitor.silent = True
    watcher.step(1.0)
    assert watcher.error and watcher.reading(1.0).monitor == Monitor.MEASURING
    assert watcher.reading(STALE_S + 0.1).monitor == Monitor.OFF


def test_a_cable_check_waits_for_a_slow_monitor() -> None:
    desk = Desk(
        3, insulation__monitor="bender-isocha425hv", insulation__address="127.0.0.1:502", insulation__debounce_s=0.0
    )
    monitor = Slow(12.0)
    watcher = Watcher(monitor)
    desk.control.monitors = MonitorReader({1: watcher}, clock=lambda: desk.now_ns / 1e9)
    turn = desk.control.step

    def step(now_ns: int):  # type: ignore[no-untyped-def]
        if now_ns // 10_000_000 % 100 == 0:
            monitor.now_s = now_ns / 1e9
            watcher.step(now_ns / 1e9)
        return turn(now_ns)

    desk.control.step = step  # type: ignore[method-assign]
    began = desk.now_ns
    desk.allow(1, voltage_v=420.0)
    desk.run(lambda: desk.output.insulation == 2 and desk.output.mode == 0, 40.0)
    took_s = (desk.now_ns - began) / 1e9
    assert took_s >= 12.0 + MONITOR_RESPONSE_S["bender-isocha425hv"]
    monitor.ohm = 50e3
    desk.allow(2, voltage_v=360.0, current_a=2.0)
    desk.run(lambda: 502 in desk.codes, 3.0)


def test_names_and_addresses() -> None:
    assert set(MONITORS) == set(MONITOR_RESPONSE_S)
    assert open_monitors(PowerParameters()) is None
    with pytest.raises(ParameterError, match=r"insulation\.address"):
        PowerParameters(insulation__monitor="dold-rn5893").check()
    with pytest.raises(ParameterError, match="10 s"):
        PowerParameters(insulation__monitor="dold-rn5893", insulation__address="127.0.0.1:502").check()
    with pytest.raises(ValueError, match=r"insulation\.address"):
        open_monitors(PowerParameters(insulation__monitor="dold-rn5893", insulation__address="nonsense"))
