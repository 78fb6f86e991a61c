"""Other makers' modules: bytes against the published layouts, pace, hold time, range, and what the vehicle saw."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from power_desk import Desk, real

from robot_charger.common.can_bus import frame_port, open_bus
from robot_charger.common.can_udp import EXTENDED, REMOTE, Batch, free_block
from robot_charger.common.clock import SECOND
from robot_charger.common.parameters import ParameterError
from robot_charger.power.bank import Bank
from robot_charger.power.contract import CONTRACTS, LOAD_BREAK_S
from robot_charger.power.control import Control
from robot_charger.power.drivers import driver_class, infypower, uugreen, winline
from robot_charger.power.output import SMALL_A, Mode
from robot_charger.power.parameters import PowerParameters
from robot_charger.sim.rack.habits import of_contract
from robot_charger.words.values import Purpose

POLLED = ("infypower", "uugreen", "winline")
CUT = {"contactors_break_load": True, "module__cut_off": "inhibit", "module__bus": "socketcan:can1"}


def driver_of(protocol: str, modules: int = 2):  # type: ignore[no-untyped-def]
    parameters = PowerParameters(modules=modules, module__protocol=protocol, **CUT)
    bank = Bank(parameters)
    return driver_class(parameters).make(bank, parameters, False), bank


@pytest.mark.parametrize(
    ("protocol", "frames"),
    [
        ("infypower", [(0x029C00F0, "00061A80000061A8"), (0x029A00F0, "0000000000000000")]),
        (
            "uugreen",
            [(0x02204000, "0002000000061A80"), (0x02204000, "00030000000061A8"), (0x02204000, "0004000000000000")],
        ),
        (
            "winline",
            [(0x06080F80, "0300002143C80000"), (0x06080F80, "0300001B00006400"), (0x06080F80, "0300003000000000")],
        ),
    ],
)
def test_400_v_and_25_a_and_on_are_the_published_bytes(protocol: str, frames: list[tuple[int, str]]) -> None:
    driver, _ = driver_of(protocol)
    made = driver.setpoint(0, 400.0, 25.0) + driver.switch(0, True)
    assert [(number, data.hex().upper()) for number, data in made] == frames


@pytest.mark.parametrize("protocol", POLLED)
def test_off_is_never_the_value_zero(protocol: str) -> None:
    driver, _ = driver_of(protocol)
    assert [d for _, d in driver.switch(1, False)] != [d for _, d in driver.switch(1, True)]
    assert all(any(d) for _, d in driver.switch(1, False))


def test_answers_are_read() -> None:
    driver, bank = driver_of("infypower")
    assert driver.heard(0x0283F000, bytes.fromhex("43C8000041C80000"), 0, SECOND)
    assert (bank.voltage[0], bank.current[0]) == (400.0, 25.0)
    status = bytearray(8)
    status[6] = 0x10 | 0x01
    assert driver.heard(infypower.identifier(infypower.READ_STATUS, 0xF0, 1), bytes(status), 0, SECOND)
    assert bank.faults[1] == 4 and bank.state[1] == 2 and bank.heard[1] == SECOND
    driver, bank = driver_of("winline")
    assert driver.heard(0x060F8008, bytes.fromhex("41F0000143C80000"), 0, SECOND) and bank.voltage[0] == 400.0
    assert driver.heard(0x060F8008, bytes.fromhex("C1F2006900000000"), 0, SECOND) and driver.bad == 1, (
        "refused: no word"
    )
    driver, bank = driver_of("uugreen")
    number = uugreen.identifier(1) | 0x155  # an answer carries the serial number
    assert driver.heard(number, bytes.fromhex("0300000000061A80"), 0, SECOND) and bank.voltage[0] == 400.0


@pytest.mark.parametrize("protocol", POLLED)
def test_frames_of_others_are_nobodys(protocol: str) -> None:
    driver, bank = driver_of(protocol)
    for number in (0, 0x123, 0x1FFFFFFF, 0x029C0030, 0x02FE4000, 0x0608F810):
        driver.heard(number, bytes(8), 0, SECOND)
    driver.take(0, np.array([0x0283F000]), np.array([7]), np.zeros((1, 8), np.uint8), SECOND)
    assert not bank.heard.any()


@pytest.mark.parametrize("protocol", POLLED)
def test_only_29_bit_data_frames_reach_the_driver(protocol: str) -> None:
    control = Control(PowerParameters(modules=1, module__protocol=protocol, **CUT))
    answers = {"infypower": 0x0283F000, "uugreen": uugreen.identifier(1), "winline": 0x060F8008}
    ids = np.array([answers[protocol]] * 3, np.uint32)
    for flag in (0, EXTENDED | REMOTE, 4 | EXTENDED):
        bad = control.bad
        batch = Batch(ids, np.full(3, flag, np.uint8), np.full(3, 8, np.uint8), np.zeros((3, 8), np.uint8))
        control.take(1, batch, SECOND)
        assert control.bad == bad + 3 and not control.bank.heard.any()
    control.take(0, Batch(ids, np.full(3, EXTENDED, np.uint8), np.full(3, 8, np.uint8), np.zeros((3, 8), np.uint8)), 1)
    assert not control.bank.heard.any(), "the station's bus has 11 bits"


def test_an_identifier_that_does_not_fit_is_refused_and_told() -> None:
    name = f"udp:{free_block()}"
    port, ear = frame_port(open_bus(name, fd=False), fd=False), open_bus(name, fd=False)
    assert not port.write([0x029C003F], np.zeros((1, 8), np.uint8))
    assert port.errors == 1 and "0x7ff" in port.notes[0] and ear.recv(0.0) is None
    wide = frame_port(open_bus(name, fd=False), fd=False, extended=True)
    assert wide.write([0x029C003F], np.zeros((1, 8), np.uint8))
    heard = ear.recv(1.0)
    assert heard is not None and heard.is_extended_id and heard.arbitration_id == 0x029C003F
    for it in (port, wide):
        it.close()
    ear.shutdown()


@pytest.mark.parametrize("protocol", POLLED)
def test_a_session(protocol: str) -> None:
    desk = real(protocol)
    desk.charge(100.0)
    assert desk.network.current_a == pytest.approx(100.0, abs=2.0)
    for _ in range(300):
        desk.cycle()
    desk.allow(Purpose.NONE)
    desk.run(lambda: desk.output.mode == Mode.DISCHARGE, 3.0)
    assert abs(desk.network.current_a) < SMALL_A and not desk.network.contactors and not desk.codes


@pytest.mark.parametrize("protocol", POLLED)
def test_the_pace_that_modules_stand_is_kept(protocol: str) -> None:
    desk = real(protocol)
    desk.charge(100.0)
    desk.run(3.0)
    spacing_ns = int(CONTRACTS[protocol].spacing_s * SECOND)
    off = {f for i in range(5) for f in desk.control.driver.switch(i, False)}  # type: ignore[attr-defined]
    times = [t for _, number, data, t in desk.sent if (number, data) not in off]
    assert len(times) > 100
    window = max(spacing_ns, 10_000_000)
    most = max(1, round(window / spacing_ns))
    assert all(len(list(group)) <= most for _, group in itertools.groupby(times, lambda t: t // window))


@pytest.mark.parametrize("protocol", POLLED)
def test_no_module_gets_a_set_point_that_it_refuses(protocol: str) -> None:
    desk = real(protocol)
    desk.charge(2.0)
    desk.targets[1]["current_a"] = 0.0
    desk.run(5.0)
    assert desk.network.current_a == 0.0 and desk.output.mode == Mode.TRANSFER
    desk.targets[1]["current_a"] = 60.0
    desk.run(5.0)
    assert desk.network.current_a == pytest.approx(60.0, abs=2.0)
    assert desk.answering is not None and desk.answering.refused == 0


@pytest.mark.parametrize("fault", ["module-dead", "deaf", "input-lost"])
@pytest.mark.parametrize("protocol", POLLED)
def test_what_the_vehicle_saw_of_a_module_that_fails(protocol: str, fault: str) -> None:
    desk = real(protocol)
    desk.charge(200.0)
    desk.run(4.0)
    contract = CONTRACTS[protocol]
    desk.rack.fault(fault, True)
    amperes = []
    for _ in range(round((contract.hold_s + contract.silent_s + 8.0) * 100)):
        desk.cycle()
        amperes.append(desk.network.current_a)
    assert max(amperes) <= 215.0, "nobody takes over before the lost one has ended"
    assert min(amperes) >= 90.0 and desk.output.mode == Mode.TRANSFER
    assert amperes[-1] == pytest.approx(200.0, abs=10.0), "in the end the others carry it all"
    assert desk.codes <= {401, 402, 413}


@pytest.mark.parametrize("protocol", POLLED)
def test_the_share_of_a_lost_module_waits_for_its_hold_time(protocol: str) -> None:
    desk = real(protocol)
    desk.charge(200.0)
    desk.run(3.0)
    bank, contract = desk.control.bank, CONTRACTS[protocol]
    lost = int(np.argmax(bank.command_a))
    share = float(bank.command_a[lost])
    desk.rack.fault("deaf", True, lost + 1)
    desk.rack.fault("silent", True, lost + 1)  # cut from its bus, it goes on
    desk.run(lambda: bank.silent[lost], contract.silent_s + 2.0)
    desk.run(contract.hold_s - contract.silent_s - 1.0)
    others = float(bank.command_a.sum())
    assert others == pytest.approx(200.0 - share, abs=5.0) and desk.network.current_a < 206.0
    desk.run(contract.hold_s + 3.0)
    assert desk.network.current_a == pytest.approx(200.0, abs=5.0)


@pytest.mark.parametrize("protocol", POLLED)
def test_power_dies_and_contactors_open_without_current(protocol: str) -> None:
    desk = real(protocol)
    desk.charge(200.0)
    desk.power_runs = False
    seen = []
    for _ in range(100):
        before = desk.network.current_a
        desk.cycle()
        seen.append((desk.network.contactors, before))
    opened = next(i for i, (closed, _) in enumerate(seen) if not closed)
    assert opened * 0.01 <= 0.15 and abs(seen[opened][1]) < SMALL_A


@pytest.mark.parametrize("protocol", sorted(p for p, c in CONTRACTS.items() if c.hold_s > LOAD_BREAK_S))
def test_long_hold_times_without_a_cut_off_are_refused(protocol: str) -> None:
    for breaks, cut_off in itertools.product((False, True), ("none", "inhibit", "ac-contactor")):
        values = {"contactors_break_load": breaks, "module__cut_off": cut_off, "module__bus": "socketcan:can1"}
        parameters = PowerParameters(modules=4, module__protocol=protocol, **values)
        if breaks and cut_off != "none":
            parameters.check()
        else:
            with pytest.raises(ParameterError, match=r"cut_off.*safety controller"):
                parameters.check()


def test_the_hold_time_of_the_data_sheet_counts() -> None:
    PowerParameters(module__protocol="winline", module__bus="socketcan:can1", module__hold_s=0.4).check()
    with pytest.raises(ParameterError, match="2 s without the bus"):
        PowerParameters(module__protocol="canopen", module__bus="socketcan:can1", module__hold_s=2.0).check()


def test_too_many_modules_for_a_slow_bus_are_refused() -> None:
    with pytest.raises(ParameterError, match=r"module\.bus must name \d+ buses"):
        Control(PowerParameters(modules=46, module__protocol="infypower", **CUT))


def test_uugreen_changes_its_range_before_the_cable_check_only() -> None:
    desk = real("uugreen")
    assert desk.answering is not None
    desk.run(2.0)
    desk.check_cable()
    assert set(desk.answering.range) == {uugreen.LOW} and desk.answering.changes == 5  # type: ignore[attr-defined]
    assert desk.answering.refused == 0
    high = real("uugreen")
    high.emf_v = high.network.vehicle.emf_v = 700.0
    high.charge(50.0)
    assert set(high.answering.range) == {uugreen.HIGH} and high.network.output_v > 690.0  # type: ignore[union-attr]


def test_a_module_that_restarted_is_switched_on_again() -> None:
    desk = real("winline")
    desk.charge(100.0)
    desk.answering.on[:] = False  # type: ignore[union-attr]
    for i in range(5):
        desk.answering._apply(i, desk.now_ns / 1e9)  # type: ignore[union-attr]
    desk.run(8.0)
    assert desk.network.current_a == pytest.approx(100.0, abs=5.0)


def test_soft_start_is_waited_for() -> None:
    habits = dataclasses.replace(of_contract(CONTRACTS["infypower"]), start_s=2.9)
    desk = real("infypower", habits=habits)
    desk.charge(300.0)
    assert max(s.current_a for s in desk.history) < 310.0


def test_every_contract_has_its_driver_and_its_simulated_end() -> None:
    for name, contract in CONTRACTS.items():
        parameters = PowerParameters(module__protocol=name, **(CUT if contract.own_bus else {}))
        assert driver_class(parameters).__name__ == "Driver"
        __import__(f"robot_charger.sim.rack.{name}")
        assert contract.silent_s >= contract.report_s and contract.hold_s > 0.0


def test_status_bits_of_winline() -> None:
    assert winline.alarms(1 << 30) == 4 and winline.alarms(1 << 22) == 0 and winline.alarms(1 << 16) == 32


def test_ideal_desk_is_unchanged() -> None:
    assert isinstance(Desk(3).control.driver, driver_class(PowerParameters()))
