"""CANopen and Modbus modules beside the raw protocol: layouts against the EDS, and what each does unheard."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import canopen
import numpy as np
import pytest

from robot_charger.common.can_udp import free_block
from robot_charger.common.clock import now_ns
from robot_charger.common.parameters import ParameterError
from robot_charger.power import busload, codec
from robot_charger.power.bank import Bank
from robot_charger.power.drivers import canopen as canopen_driver
from robot_charger.power.drivers import modbus as modbus_driver
from robot_charger.power.drivers import open_driver, open_ports
from robot_charger.power.parameters import PowerParameters
from robot_charger.sim.rack.canopen import CanopenModules
from robot_charger.sim.rack.modbus import ModuleServer
from robot_charger.sim.rack.model import Rack

pytestmark = [pytest.mark.integration, pytest.mark.alone]


def until(condition: Callable[[], object], limit_s: float = 5.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "not reached"
        time.sleep(0.002)


@pytest.mark.parametrize(
    ("mapping", "layout"),
    [
        (0x1600, canopen_driver.SETPOINT),
        (0x1A00, canopen_driver.MEASURED),
        (0x1A01, canopen_driver.CONDITION),
    ],
)
def test_the_eds_maps_what_the_driver_packs(mapping: int, layout: np.dtype) -> None:
    dictionary = canopen.import_od(str(canopen_driver.EDS), node_id=1)
    entries = dictionary[mapping]
    bits = [entries[i].default & 0xFF for i in range(1, entries[0].default + 1)]
    assert bits == [8 * layout[i].itemsize for i in range(len(layout))]
    for i in range(1, len(bits) + 1):
        assert dictionary[entries[i].default >> 16].pdo_mappable
        signed = dictionary[entries[i].default >> 16].data_type in (2, 3, 4)
        assert signed == (layout[i - 1].kind == "i")


def test_the_eds_names_the_identifiers_and_the_device() -> None:
    dictionary = canopen.import_od(str(canopen_driver.EDS), node_id=9)
    assert dictionary[0x1000].default == canopen_driver.DEVICE_TYPE
    assert dictionary[0x1400][1].default == canopen_driver.RPDO1 + 9
    assert dictionary[0x1800][1].default == canopen_driver.TPDO1 + 9
    assert dictionary[0x1801][1].default == canopen_driver.TPDO2 + 9
    for index in (0x1001, 0x1017, 0x6000, 0x6001, 0x6002, 0x6003, 0x6010, 0x6011, 0x6020):
        assert index in dictionary


def test_the_eds_has_what_cia_301_demands() -> None:
    dictionary = canopen.import_od(str(canopen_driver.EDS), node_id=9)
    assert dictionary[0x1018][1].name == "Vendor-ID" and set(dictionary[0x1018]) == {0, 1, 2, 3, 4}
    assert dictionary[0x1200][1].default == 0x609 and dictionary[0x1200][2].default == 0x589
    assert dictionary[0x1014].default == canopen_driver.EMERGENCY + 9
    assert dictionary[0x1800][5].default == canopen_driver.MEASURED_MS
    assert dictionary[0x1801][5].default == canopen_driver.CONDITION_MS


class CanopenDesk:
    """A bank and its modules on one bus, cycle by cycle."""

    def __init__(self, modules: int) -> None:
        name = f"udp:{free_block(2)}"
        self.parameters = PowerParameters(
            modules=modules, bus=name, module__protocol="canopen", module__bus=f"udp:{int(name[4:]) + 8}"
        )
        self.bank = Bank(self.parameters)
        self.driver = open_driver(self.parameters, self.bank, False)
        self.rack = Rack(modules, [1])
        self.modules = CanopenModules(self.rack, [self.parameters.module__bus])
        self.ports = open_ports(self.parameters)
        self.cycles = 0
        self.quiet = False

    def cycle(self) -> None:
        now_s = time.monotonic()
        self.cycles += 1
        self.modules.receive(now_s)
        self.rack.step(now_s, 0.01)
        self.modules.send(now_s, self.cycles % 10 == 0)
        for batch in self.ports[1].read():
            self.driver.take(0, batch.ids, batch.lengths, batch.data, now_ns())
        for port, ids, data in self.driver.frames(now_ns(), self.cycles):
            if not self.quiet:
                self.ports[port].write(ids, data)
        time.sleep(0.002)

    def until(self, condition: Callable[[], object], limit_s: float = 10.0) -> None:
        def cycle_and_ask() -> object:
            self.cycle()
            return condition()

        until(cycle_and_ask, limit_s)

    def close(self) -> None:
        self.driver.close()
        self.modules.close()
        for port in self.ports:
            port.close()


@pytest.fixture
def desk() -> Iterator[CanopenDesk]:
    it = CanopenDesk(3)
    it.driver.start()
    yield it
    it.close()


def test_nodes_are_started_obey_rpdo1_and_report(desk: CanopenDesk) -> None:
    assert not desk.bank.heard.any()
    desk.until(lambda: (desk.bank.heard > 0).all() and (desk.bank.temperature > 20.0).all())
    heartbeats = [node.sdo["Producer heartbeat time"].raw for node in desk.modules._nodes]
    assert heartbeats == [canopen_driver.HEARTBEAT_MS] * 3
    desk.bank.command_v[:], desk.bank.command_a[:], desk.bank.enable[:] = 400.0, [1.0, 2.0, -3.0], True
    desk.until(lambda: desk.rack.setpoint_a.tolist() == [1.0, 2.0, -3.0])
    assert desk.rack.enable.all() and desk.rack.setpoint_v.tolist() == [400.0] * 3
    desk.bank.enable[:] = False
    desk.until(lambda: not desk.rack.enable.any())
    assert desk.bank.state.tolist() == [codec.State.STANDBY] * 3


def test_a_node_that_boots_again_is_configured_again(desk: CanopenDesk) -> None:
    desk.until(lambda: (desk.bank.heard > 0).all())
    desk.modules._nodes[1].set_data(0x1017, 0, (0).to_bytes(2, "little"))
    desk.modules.reboot(2)
    desk.until(lambda: not desk.modules.operational[1])
    desk.until(lambda: desk.modules.operational[1])
    assert desk.modules._nodes[1].sdo["Producer heartbeat time"].raw == canopen_driver.HEARTBEAT_MS


def test_an_emergency_of_a_module_is_told(desk: CanopenDesk) -> None:
    desk.until(lambda: desk.modules.operational.all())
    desk.modules._nodes[1].emcy.send(0x2310, register=3, data=b"")
    desk.until(lambda: any("module 2" in note and "0x2310" in note for note in desk.driver.notes))


def test_a_stranger_is_not_started(desk: CanopenDesk) -> None:
    desk.modules._nodes[0].set_data(0x1000, 0, (0x191).to_bytes(4, "little"))
    desk.until(lambda: desk.driver._masters[0].refused.get(1))  # type: ignore[attr-defined]
    desk.until(lambda: desk.modules.operational[1] and desk.modules.operational[2])
    assert not desk.modules.operational[0] and desk.bank.heard[0] == 0


def test_closing_the_driver_stops_the_nodes(desk: CanopenDesk) -> None:
    desk.until(lambda: desk.modules.operational.all())
    desk.driver.close()
    desk.until(lambda: not desk.modules.operational.any())


def test_the_load_of_a_canopen_bus_is_refused_and_advised() -> None:
    assert busload.canopen_load(24) < busload.WARN < busload.canopen_load(25)
    parameters = PowerParameters(modules=46, module__protocol="canopen", module__bus="socketcan:can1")
    assert busload.choose(parameters, 2) is False
    with pytest.raises(ParameterError, match=r"module\.bus must name 2 buses"):
        busload.choose(parameters, 1)
    with pytest.raises(ParameterError, match=r"module\.bus"):
        PowerParameters(module__protocol="canopen").check()


@pytest.fixture
def older() -> Iterator[tuple[ModuleServer, Bank, modbus_driver.Driver]]:
    rack = Rack(3, [1])
    server = ModuleServer(rack)
    rack.step(time.monotonic(), 0.01)
    server.send(time.monotonic(), False)
    parameters = PowerParameters(
        modules=3, module__protocol="modbus", module__bus=f"tcp:127.0.0.1:{server.port}", module__timeout_ms=300.0
    )
    bank = Bank(parameters)
    driver = open_driver(parameters, bank, False)
    assert isinstance(driver, modbus_driver.Driver)
    driver.start()
    yield server, bank, driver
    driver.close()
    server.close()


def test_modbus_modules_obey_and_report(older: tuple[ModuleServer, Bank, modbus_driver.Driver]) -> None:
    server, bank, driver = older
    bank.command_v[:], bank.command_a[:], bank.enable[:] = 400.0, [1.0, -2.0, 3.0], True

    def obeyed() -> bool:
        driver.frames(now_ns(), 0)
        driver.poll(now_ns())
        return server.rack.setpoint_a.tolist() == [1.0, -2.0, 3.0] and bool((bank.heard > 0).all())

    until(obeyed)
    assert server.rack.enable.all() and bank.hours == pytest.approx(server.rack.hours, abs=0.1)
    assert (server.rack.hold_s >= 0.05).all() and (server.rack.hold_s <= 0.5).all()


def test_modbus_set_points_do_not_outlive_the_control_cycle(
    older: tuple[ModuleServer, Bank, modbus_driver.Driver],
) -> None:
    server, bank, driver = older
    bank.command_v[:], bank.command_a[:], bank.enable[:] = 400.0, 5.0, True

    def running() -> bool:
        driver.frames(now_ns(), 0)
        return bool(server.rack.enable.all())

    until(running)
    until(lambda: not server.rack.enable.any())  # nobody called frames() any more
    assert server.rack.setpoint_a.tolist() == [0.0, 0.0, 0.0]


def test_a_modbus_module_that_does_not_answer_leaves_the_others_alone(
    older: tuple[ModuleServer, Bank, modbus_driver.Driver],
) -> None:
    server, bank, driver = older
    server.rack.fault("module-dead", True, 2)
    server.send(time.monotonic(), False)
    bank.heard[:] = 0

    def others() -> bool:
        driver.poll(now_ns())
        return bool(bank.heard[0] and bank.heard[2])

    until(others)
    assert bank.heard[1] == 0 and driver._lines[0].bad >= 1


@pytest.mark.parametrize("words", [[0], [0] * 13])
def test_wrong_counts_of_registers_are_refused(words: list[int]) -> None:
    with pytest.raises(ValueError, match="registers"):
        modbus_driver.decode_state(words)
