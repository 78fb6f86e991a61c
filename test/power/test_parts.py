"""Gate, bank, bus load, meter registers and rack model, each alone."""

from __future__ import annotations

import json
import socket
from random import Random

import numpy as np
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from pymodbus.client import ModbusTcpClient

from robot_charger.common.can_udp import Batch
from robot_charger.common.clock import MILLISECOND
from robot_charger.common.parameters import ParameterError, build
from robot_charger.power import busload, codec
from robot_charger.power.bank import Bank, divide, place
from robot_charger.power.control import Control
from robot_charger.power.gate import Demand, Gate, clamp_current
from robot_charger.power.meter import (
    BEGIN,
    END,
    ModbusMeter,
    Reading,
    Witness,
    decode_registers,
    encode_registers,
    open_meters,
)
from robot_charger.power.modbus_line import ModbusLine
from robot_charger.power.output import cable_check_voltage, overvoltage_trip_v
from robot_charger.power.parameters import PowerParameters
from robot_charger.sim.rack.modbus import MeterServer
from robot_charger.sim.rack.model import Rack
from robot_charger.words.values import ChargePermit, Pilot, Purpose, VehicleTarget

NOW = 10**12
AMPERES = st.floats(-3000, 3000)
WATTS = st.floats(-3e6, 3e6)


@given(AMPERES, AMPERES, WATTS, WATTS, AMPERES, st.floats(0, 1000), st.floats(0, 600), st.floats(0, 600))
def test_the_current_stays_inside_permit_supply_and_vehicle(
    low: float, high: float, low_w: float, high_w: float, asked: float, volts: float, supply: float, export: float
) -> None:
    permit = ChargePermit(NOW, 1, min_current_a=low, max_current_a=high, min_power_w=low_w, max_power_w=high_w)
    demand = Demand(Purpose.TRANSFER, permit=permit, target=VehicleTarget(NOW, 1, current_a=asked, max_current_a=250.0))
    current, _, _ = clamp_current(demand, volts, supply, export)
    top = min(high, supply, 250.0, high_w / max(volts, 1.0))
    bottom = max(low, -export, low_w / max(volts, 1.0))
    if bottom > top:
        assert current == 0.0
    else:
        assert bottom - 1e-9 <= current <= top + 1e-9
        if bottom <= asked <= top:
            assert current == asked


@given(AMPERES, st.lists(st.floats(0, 66), min_size=1, max_size=100))
def test_shares_are_equal_where_limits_allow_and_sum_to_the_whole(current: float, limits: list[float]) -> None:
    limits_a = np.array(limits)
    shares = divide(current, limits_a)
    assert (np.abs(shares) <= limits_a + 1e-9).all()
    assert np.abs(shares).sum() == pytest.approx(min(abs(current), limits_a.sum()), abs=1e-6)
    assert (shares * np.sign(current) >= 0.0).all()
    free = np.abs(shares) < limits_a - 1e-6
    if free.any():
        assert np.ptp(shares[free]) < 1e-6


def speak(gate: Gate, number: int, purpose: Purpose = Purpose.TRANSFER, now: int = NOW) -> Purpose:
    gate.take_permit(ChargePermit(now, number, purpose=purpose))
    gate.take_target(VehicleTarget(now, number, purpose=purpose, vehicle_stamp_ns=now, vehicle_timeout_ms=1000))
    gate.take_pilot(Pilot.C, now)
    return gate.judge(now).purpose


def test_a_permit_ends_300_ms_after_its_own_stamp_and_returns_only_with_a_higher_number() -> None:
    gate = Gate()
    assert speak(gate, 5) == Purpose.TRANSFER
    at = NOW + 301 * MILLISECOND
    assert gate.judge(at).purpose == Purpose.NONE and gate.judge(at).abrupt
    assert speak(gate, 5, now=at) == Purpose.NONE
    assert speak(gate, 4, now=at + 1) == Purpose.NONE
    assert speak(gate, 6, now=at + 2) == Purpose.TRANSFER


def test_a_word_of_none_from_a_restarted_supervisor_opens_lower_numbers() -> None:
    gate = Gate()
    speak(gate, 500)
    gate.discard()
    assert speak(gate, 3, now=NOW + 1) == Purpose.NONE
    assert speak(gate, 1, Purpose.NONE, now=NOW + 2) == Purpose.NONE
    assert speak(gate, 2, now=NOW + 3) == Purpose.TRANSFER


def test_a_permit_that_another_overtook_is_refused() -> None:
    gate = Gate()
    speak(gate, 2)
    gate.take_permit(ChargePermit(NOW - 1, 9, purpose=Purpose.TRANSFER))
    assert gate.permit is not None and gate.permit.number == 2


def test_a_refused_permit_that_says_none_ends_the_one_in_hand_and_lowers_no_floor() -> None:
    gate = Gate()
    assert speak(gate, 7) == Purpose.TRANSFER
    gate.withdraw()
    demand = gate.judge(NOW)
    assert demand.purpose == Purpose.NONE and demand.abrupt and demand.fault is not None
    assert speak(gate, 7, now=NOW + 1) == Purpose.NONE
    assert speak(gate, 8, now=NOW + 2) == Purpose.TRANSFER


@given(st.sampled_from(Purpose), st.sampled_from(Purpose))
def test_nothing_is_done_that_is_not_both_asked_for_and_permitted(asked: Purpose, allowed: Purpose) -> None:
    gate = Gate()
    gate.take_permit(ChargePermit(NOW, 1, purpose=allowed))
    gate.take_target(VehicleTarget(NOW, 1, purpose=asked, vehicle_stamp_ns=NOW, vehicle_timeout_ms=1000))
    gate.take_pilot(Pilot.D, NOW)
    done = gate.judge(NOW).purpose
    assert done <= min(asked, allowed)
    assert done in (Purpose.NONE, asked, allowed)
    if asked == allowed:
        assert done == asked
    if Purpose.INSULATION_TEST in (asked, allowed) and asked != allowed:
        assert done == Purpose.NONE


@pytest.mark.parametrize(
    ("pilotless", "protocol", "done"),
    [
        ("chademo", "chademo", Purpose.TRANSFER),
        ("gbt", "gbt", Purpose.TRANSFER),
        ("", "chademo", Purpose.NONE),  # a message cannot switch the pilot off
        ("", "plain", Purpose.NONE),
        ("chademo", "iso15118-2", Purpose.NONE),
        ("chademo", "", Purpose.NONE),
    ],
)
def test_the_connector_decides_whether_a_pilot_is_needed(pilotless: str, protocol: str, done: Purpose) -> None:
    gate = Gate(pilotless)
    gate.take_permit(ChargePermit(NOW, 1, purpose=Purpose.TRANSFER))
    gate.take_target(
        VehicleTarget(
            NOW, 1, purpose=Purpose.TRANSFER, protocol=protocol, vehicle_stamp_ns=NOW, vehicle_timeout_ms=1000
        )
    )
    assert gate.judge(NOW).purpose == done


@pytest.mark.parametrize(
    ("vehicle", "supply", "test"),
    [(420, 500, 470), (480, 500, 500), (400, 450, 450), (800, 1000, 880), (950, 1000, 1000)],
)
def test_cable_check_voltage(vehicle: float, supply: float, test: float) -> None:
    assert cable_check_voltage(vehicle, supply) == pytest.approx(test)


def test_overvoltage_trips_of_the_standard() -> None:
    assert [overvoltage_trip_v(v) for v in (400, 500, 501, 750, 850, 920, 1000)] == [
        550,
        550,
        825,
        825,
        935,
        1100,
        1100,
    ]


def test_insulation_limits_by_edition() -> None:
    assert PowerParameters().insulation_limits_ohm(400.0) == (100e3, 100e3)
    assert PowerParameters(insulation__edition="2014").insulation_limits_ohm(400.0) == (40e3, 200e3)
    assert PowerParameters(insulation__limit_ohm=125e3).insulation_limits_ohm(400.0)[0] == 125e3


@pytest.mark.parametrize(("payload", "microseconds"), [(8, 56.6), (16, 72.6), (32, 105.6), (48, 137.6), (64, 169.6)])
def test_frame_times(payload: int, microseconds: float) -> None:
    assert busload.frame_us(payload) == pytest.approx(microseconds)


@pytest.mark.parametrize(
    ("modules", "buses", "groups"),
    [
        (1, 1, False),
        (46, 1, False),
        (84, 1, True),
        (84, 2, False),
        (303, 5, True),
        (303, 7, False),
        (909, 13, True),
        (909, 19, False),
    ],
)
def test_banks_that_fit_their_buses(modules: int, buses: int, groups: bool) -> None:
    parameters = PowerParameters(modules=modules)
    assert busload.choose(parameters, buses) == groups
    assert busload.worst(parameters, buses, groups) <= busload.REFUSE
    bus, address = place(modules, buses)
    assert len(set(zip(bus.tolist(), address.tolist(), strict=True))) == modules
    assert bus.max() == buses - 1 and address.max() <= codec.MAX_ADDRESS


def test_an_overloaded_bus_is_refused_and_the_number_of_buses_named() -> None:
    with pytest.raises(ParameterError, match="must name 5 buses"):
        busload.choose(PowerParameters(modules=303), 1)
    with pytest.raises(ParameterError, match="80%"):
        busload.choose(PowerParameters(modules=60, setpoint_frames="individual"), 1)


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"evses": [1, 1]}, "evses"),
        ({"cable_max_current_a": [1.0, 2.0]}, "cable_max_current_a"),
        ({"modules": 1, "evses": [1, 2]}, "modules"),
        ({"min_voltage_v": 600.0}, "min_voltage_v"),
        ({"max_voltage_v": 920.0}, "series_groups"),
    ],
)
def test_impossible_combinations_name_the_parameter(values: dict[str, object], names: str) -> None:
    with pytest.raises(ParameterError, match=names):
        build(PowerParameters, values).check()


def test_foreign_and_unknown_addresses_are_counted() -> None:
    bank = Bank(PowerParameters(modules=4), 1)
    bank.take_status(0, np.array([0x101, 0x105, 0x1FF]), np.zeros((3, 16), np.uint8), NOW)
    assert bank.bad == 2 and bank.heard.tolist() == [NOW, 0, 0, 0]


def test_a_repeated_status_frame_does_not_keep_a_module_alive() -> None:
    bank = Bank(PowerParameters(modules=1), 1)
    data = np.zeros((1, 16), np.uint8)
    bank.take_status(0, np.array([0x101]), data, NOW)
    bank.take_status(0, np.array([0x101]), data, NOW + 100 * MILLISECOND)
    bank.judge(NOW + 100 * MILLISECOND, {})
    assert bank.silent[0]


@given(st.floats(0, 1e8), st.floats(0, 1e8), st.floats(0, 1000), st.floats(-3000, 3000), st.integers(0, 2**32 - 1))
def test_meter_registers_there_and_back(
    imported: float, exported: float, volts: float, amperes: float, serial: int
) -> None:
    reading = Reading(NOW, str(serial), imported, exported, volts, amperes, volts * amperes / 100)
    back = decode_registers(encode_registers(reading), NOW)
    assert back.import_wh == pytest.approx(imported, abs=0.0051) and back.export_wh == pytest.approx(
        exported, abs=0.0051
    )
    assert back.voltage_v == pytest.approx(volts, abs=0.001) and back.current_a == pytest.approx(amperes, abs=0.001)
    assert back.power_w == pytest.approx(reading.power_w, abs=0.051) and back.serial == reading.serial


def test_the_meter_server_answers_pymodbus_and_refuses_nonsense() -> None:
    server = MeterServer()
    server.registers = {1: encode_registers(Reading(NOW, "77", 12.5, 0.5, 400.0, -3.0, -1200.0))}
    meter = ModbusMeter(1, ModbusLine(f"127.0.0.1:{server.port}"))
    reading = meter.read()
    assert (reading.import_wh, reading.export_wh, reading.current_a, reading.serial) == (12.5, 0.5, -3.0, "77")
    client = ModbusTcpClient("127.0.0.1", port=server.port)
    assert client.connect()
    assert client.read_input_registers(0, count=4, device_id=2).isError()
    assert client.read_input_registers(14, count=4, device_id=1).isError()
    assert client.read_coils(0, count=1, device_id=1).isError()
    with socket.create_connection(("127.0.0.1", server.port)) as garbage:
        garbage.sendall(b"\x00\x01\xff\xff\x00\x06\x01\x04\x00\x00\x00\x01")
        assert garbage.recv(100) == b""
    assert meter.read().import_wh == 12.5
    meter.close()
    client.close()
    server.close()


def test_signed_readings_begin_and_end_a_session_and_verify() -> None:
    server = MeterServer()
    server.registers = {1: encode_registers(Reading(NOW, "77", 12500.0, 0.0, 400.0, 3.0, 1200.0))}
    meter = ModbusMeter(1, ModbusLine(f"127.0.0.1:{server.port}", timeout_s=10.0))
    session = "0f6f3b5e-1111-2222-3333-444455556666"
    begin = meter.sign(BEGIN, session)
    server.registers[1] = encode_registers(Reading(NOW, "77", 20000.0, 0.0, 400.0, 3.0, 1200.0))
    end = meter.sign(END, session)
    for text, values in ((begin, ["12.50000"]), (end, ["12.50000", "20.00000"])):
        head, payload, seal = text.split("|")
        told = json.loads(payload)
        assert head == "OCMF" and told["MS"] == "77" and told["ID"] == session.replace("-", "")
        assert [r["RV"] for r in told["RD"]] == values and [r["TX"] for r in told["RD"]] == ["B", "E"][: len(values)]
        key = serialization.load_der_public_key(bytes.fromhex(server.signers[1].public_key))
        assert isinstance(key, ec.EllipticCurvePublicKey)
        key.verify(bytes.fromhex(json.loads(seal)["SD"]), payload.encode(), ec.ECDSA(hashes.SHA256()))
    assert meter.read().import_wh == 20000.0
    meter.close()
    server.close()


def test_when_a_meter_is_to_sign() -> None:
    witness = Witness()
    told = [
        witness.follow(*now)
        for now in [("", False), ("a", False), ("a", True), ("a", True), ("a", False), ("", False), ("b", False)]
    ]
    assert told == [None, (BEGIN, "a"), None, None, (END, "a"), None, (BEGIN, "b")]


def test_meter_addresses() -> None:
    assert open_meters(PowerParameters(meter__kind="none")) == {}
    assert list(open_meters(PowerParameters(evses=[1, 3], meter__address="rack:502"))) == [1, 3]
    for bad in ("here", "host:", "host:0", ":502"):
        with pytest.raises(ValueError, match=r"meter\.address"):
            open_meters(PowerParameters(meter__address=bad))
    with pytest.raises(ValueError, match=r"meter\.address"):
        open_meters(PowerParameters(meter__kind="modbus-rtu"))


def test_a_meter_without_signs_counts_to_four_thousand_million() -> None:
    registers = encode_registers(Reading(NOW, "77", 1.0, 0.0, 400.0, -0.001, -0.1))
    assert decode_registers(registers, NOW).current_a == -0.001
    unsigned = decode_registers(registers, NOW, signed=False)
    assert unsigned.current_a == pytest.approx(4294967.295) and unsigned.power_w == pytest.approx(429496729.5)


def test_a_module_goes_to_zero_50_ms_after_its_last_set_point() -> None:
    rack = Rack(4, [1])
    rack.networks[1].contactors = True
    car = rack.networks[1].vehicle
    car.connected = car.contactor = True
    car.emf_v = 360.0
    everyone = np.arange(4)
    for step in range(20):
        rack.command(everyone, np.full(4, 400.0), np.full(4, 5.0), np.full(4, True), step * 0.01)
        rack.step(step * 0.01, 0.01)
    assert rack.networks[1].current_a == pytest.approx(20.0, rel=0.01)
    rack.step(0.19 + 0.04, 0.01)
    assert rack.networks[1].current_a > 19.0
    rack.step(0.19 + 0.06, 0.01)
    rack.step(0.19 + 0.07, 0.01)
    assert rack.networks[1].current_a < 1.0


def test_the_voltage_rises_by_the_current_and_stops_at_the_set_point() -> None:
    rack = Rack(46, [1])
    rack.networks[1].contactors = True
    for step in range(60):
        rack.command(np.arange(46), np.full(46, 360.0), np.full(46, 2.0 / 46), np.full(46, True), step * 0.01)
        rack.step(step * 0.01, 0.01)
    assert rack.networks[1].output_v == pytest.approx(360.0, abs=0.5)
    for step in range(60, 160):
        rack.step(step * 0.01, 0.01)
    assert rack.networks[1].output_v < 60.0


def test_derating_by_ambient_as_the_module_s_sheet_says() -> None:
    rack = Rack(6, [1])
    rack.hours[:] = 0.0
    rack.climate(np.array([30.0, 40.0, 45.0, 50.0, 55.0, 60.0]))
    rack.networks[1].bank_v = 400.0
    rack.step(0.0, 0.01)
    assert (rack.available * 400.0).round().tolist() == [3300, 3000, 2700, 2300, 1800, 0]
    assert rack.state[5] == codec.State.FAULT


def test_buses_needed() -> None:
    assert [busload.buses_needed(n) for n in (1, 46, 84, 303, 909)] == [1, 1, 2, 5, 13]


@given(
    st.lists(
        st.tuples(st.integers(0, 0x7FF), st.sampled_from([0, 1, 8, 12, 16, 64]), st.sampled_from([8, 24, 1, 9, 2, 4])),
        max_size=20,
    ),
    st.randoms(use_true_random=False),
)
def test_garbage_on_the_bus_is_counted_and_survived(frames: list[tuple[int, int, int]], random: Random) -> None:
    control = Control(PowerParameters(modules=4), 1)
    n = len(frames)
    data = np.frombuffer(random.randbytes(64 * n), np.uint8).reshape(n, 64)
    ids = np.array([f[0] for f in frames], np.uint32)
    lengths = np.array([f[1] for f in frames], np.uint8)
    flags = np.array([f[2] for f in frames], np.uint8)
    control.take(0, Batch(ids, flags, lengths, data), NOW)
    status = (ids >> 8 == 1) & (lengths == 16)
    sensor = (ids >> 8 == 3) & (lengths == 16)
    ordinary = flags & ~np.uint8(0x18) == 0
    ours = (ids & 0xFF >= 1) & (ids & 0xFF <= 4)
    good = ((status | sensor) & ordinary & ours).sum()
    for i in np.flatnonzero(ordinary & ((ids >> 8 == 5) | (ids >> 8 == 6))):  # a tool's, if its CRC is right by chance
        good += codec.intact(int(ids[i]), data[i, : lengths[i]].tobytes())
    assert control.bad + control.bank.bad == n - good
    outputs = control.step(NOW)
    assert not control.bank.enable.any() and len(outputs) == 2
