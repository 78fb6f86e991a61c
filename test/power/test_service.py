"""Addresses of new modules and what modules tell of their life: the frames of 0x500 and 0x600."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from power_desk import charged

from robot_charger.common.can_bus import FramePort, frame_port, open_bus
from robot_charger.common.can_udp import free_block
from robot_charger.common.clock import MILLISECOND, SECOND
from robot_charger.common.faults import Code
from robot_charger.power import codec
from robot_charger.power.service import (
    CONFIG_ID,
    HEARS,
    MISSING_NS,
    Addressing,
    Result,
    assign,
    describe,
    diagnose,
    strangers,
)
from robot_charger.sim.rack.ek3 import Ek3Modules
from robot_charger.sim.rack.model import Rack
from robot_charger.sim.rack.service import Service

SERIALS = st.lists(st.integers(1, 2**32 - 1), min_size=1, max_size=8, unique=True)


def drive(rack: Rack, service: Service, addressing: Addressing, seconds: float, missing: list[int]) -> None:
    """The bus's one side and the other, every 10 ms; ``missing`` are the addresses thought to be silent."""
    for cycle in range(round(seconds * 100)):
        silent = [a for a in missing if rack.blank[service.address == a].any()]
        request = addressing.step(SECOND + cycle * 10 * MILLISECOND, silent)
        if request is not None:
            for identifier, data in service.answers(0, CONFIG_ID, request.encode()):
                addressing.take(identifier, data)


@given(SERIALS)
def test_one_new_module_gets_the_one_missing_address_and_several_get_none(serials: list[int]) -> None:
    rack = Rack(10, [1])
    service = Service(rack, np.zeros(10, np.int64), np.arange(1, 11))
    new = range(3, 3 + len(serials)) if len(serials) < 8 else range(2, 10)
    for module, serial in zip(new, serials, strict=True):
        rack.exchange(module, serial, blank=True)
    addressing = Addressing()
    drive(rack, service, addressing, 3.0, [3])  # as if only one address were silent
    if len(serials) == 1:
        assert not rack.blank.any() and addressing.assigned == serials[0] and service.address[2] == 3
    else:
        assert rack.blank.sum() == len(serials) and not addressing.assigned
        assert addressing.found <= set(serials) and len(addressing.found) > 1


def test_nothing_is_asked_while_nobody_is_missing_or_several_are() -> None:
    addressing = Addressing()
    asked = [addressing.step(t * 10 * MILLISECOND, silent) for silent in ([], [3, 4]) for t in range(300)]
    assert not any(asked)
    first = next(t for t in range(300) if addressing.step(t * 10 * MILLISECOND, [3]))
    assert first * 10 * MILLISECOND == MISSING_NS


def test_garbage_and_answers_of_modules_with_an_address_find_nobody() -> None:
    addressing = Addressing()
    addressing.take(0x5E3, b"\0" * 8)
    addressing.take(0x5E3, b"")
    rack = Rack(2, [1])
    service = Service(rack, np.zeros(2, np.int64), np.array([1, 2]))
    for identifier, data in service.answers(0, CONFIG_ID, b"garbage"):
        addressing.take(identifier, data)
    assert not addressing.found


def test_a_new_module_is_addressed_checked_and_runs_within_a_second() -> None:
    desk = charged(15.0, modules=3)
    desk.rack.fault("module-dead", True, 2)
    desk.run(lambda: desk.output.modules_active == 2)
    desk.run(2.0)  # somebody walks up with another one
    desk.rack.exchange(2, 555_555, blank=True)
    desk.rack.fault("module-dead", False, 2)
    taken = desk.run(lambda: desk.output.modules_active == 3)
    assert 0.3 < taken < 1.0
    assert desk.control.bank.tag[1] == 555_555 & 0xFFFF and not desk.rack.blank.any()
    assert desk.network.current_a == pytest.approx(15.0, rel=0.05) and desk.codes == {Code.MODULE_LOST}
    assert desk.control.bad == desk.control.bank.bad == 0
    assert list(desk.control.driver.notes) == ["module 555555 is given address 2 of bus 0"]


class Bus:
    """A rack's modules on a bus of their own, living in a thread, and a port of the tool's."""

    def __init__(self, modules: int) -> None:
        name = f"udp:{free_block()}"
        self.rack = Rack(modules, [1])
        self.modules = Ek3Modules(self.rack, [name])
        self.port: FramePort = frame_port(open_bus(name, can_filters=HEARS))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._live)
        self._thread.start()

    def _live(self) -> None:
        while not self._stop.wait(0.001):
            self.modules.receive(0.0)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.port.close()
        self.modules.close()


def test_the_tool_lists_assigns_and_tells_what_modules_went_through() -> None:
    bus = Bus(3)
    try:
        bus.rack.fault("over-temperature", True, 1)
        bus.rack.fault("over-temperature", False, 1)
        for module in (2, 3):
            bus.rack.exchange(module, 1000 + module, blank=True)
        assert strangers(bus.port) == [1002, 1003]
        assert set(diagnose(bus.port, [1, 2, 3])) == {1}
        done = assign(bus.port, 1003, 3)
        assert done is not None and done.result == Result.OK and assign(bus.port, 99, 3) is None
        assert strangers(bus.port) == [1002]
        lives = diagnose(bus.port, [1, 3])
        assert lives[3].serial == 1003 and lives[3].fault_count == 0 and lives[3].hours == 0.0
        assert lives[1].fault_count == 1 and lives[1].last_faults == codec.ModuleFault.OVERTEMPERATURE
        assert "overtemperature" in describe(lives[1]) and describe(None) == "silent"
        bus.rack.enable[2] = True
        refused = assign(bus.port, 1003, 2)
        assert refused is not None and refused.result == Result.BUSY
    finally:
        bus.close()


def test_a_module_obeys_at_its_new_address() -> None:
    bus = Bus(2)
    try:
        assert assign(bus.port, int(bus.rack.serial[1]), 7) is not None
        ids, data = codec.encode_setpoints(np.array([7]), np.array([400.0]), np.array([3.0]), np.array([True]), 1)
        for _ in range(200):
            bus.port.write(ids, data)
            if bus.rack.setpoint_a[1]:
                break
            threading.Event().wait(0.005)
        assert bus.rack.setpoint_a.tolist() == [0.0, 3.0]
    finally:
        bus.close()
