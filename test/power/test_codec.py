"""The run-time codec against config/ek3.dbc, read by cantools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cantools
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_charger.power import codec, firmware, service

DATABASE = cantools.database.load_file(Path(__file__).parents[2] / "config" / "ek3.dbc")
U8, U16, I16 = st.integers(0, 255), st.integers(0, 65535), st.integers(-32768, 32767)
U32 = st.integers(0, 2**32 - 1)


def dbc(name: str, data: bytes) -> Any:
    return DATABASE.get_message_by_name(name).decode(data, decode_choices=False)


def near(value: float) -> Any:
    return pytest.approx(value, abs=1e-6)


@given(U16, I16, I16, U16, U16, U8, U8, st.integers(0, 5), U8, U16)
def test_module_status(v: int, i: int, s: int, a: int, f: int, t: int, b: int, state: int, c: int, tag: int) -> None:
    frame = np.array([(v, i, s, a, f, t, b, state, c, tag)], codec.STATUS)
    told = dbc("ModuleStatus", frame.tobytes())
    assert told["Voltage"] == near(v * codec.VOLT) and told["Current"] == near(i * codec.AMPERE)
    assert told["SetpointObeyed"] == near(s * codec.AMPERE) and told["CurrentAvailable"] == near(a * codec.AMPERE)
    assert told["Temperature"] == t + codec.CELSIUS_OFFSET and told["Ambient"] == b + codec.CELSIUS_OFFSET
    assert (told["Faults"], told["State"], told["Counter"], told["SerialTag"]) == (f, state, c, tag)
    row = np.frombuffer(frame.tobytes(), np.uint8)[None]
    assert codec.decode_status(row)[0] == frame[0]


@given(st.integers(0, 2**32 - 1), U16, U16, st.integers(0, 10000), st.integers(0, 2**32 - 1), U16)
def test_module_sensor(hours: int, v: int, i: int, e: int, serial: int, firmware: int) -> None:
    frame = np.array([(hours, v, i, e, serial, firmware)], codec.SENSOR)
    told = dbc("ModuleSensor", frame.tobytes())
    assert told["Hours"] == near(hours * codec.HOUR) and told["InputVoltage"] == near(v * codec.VOLT)
    assert (told["Serial"], told["Firmware"]) == (serial, firmware)
    assert told["Efficiency"] == near(e * 0.01) and told["InputCurrent"] == near(i * codec.AMPERE)


@given(
    st.integers(1, codec.MAX_ADDRESS),
    st.floats(0, 3000),
    st.floats(-300, 300),
    st.booleans(),
    U8,
    st.sampled_from([0, 4]),
)
def test_single_setpoint(address: int, volts: float, amperes: float, enable: bool, counter: int, control: int) -> None:
    ids, data = codec.encode_setpoints(
        np.array([address]), np.array([volts]), np.array([amperes]), np.array([enable]), counter, control
    )
    assert ids.tolist() == [0x200 + address]
    told = dbc("ModuleSetpoint", data[0].tobytes())
    assert abs(told["Voltage"] - volts) <= codec.VOLT / 2 + 1e-9
    assert abs(told["Current"] - amperes) <= codec.AMPERE / 2 + 1e-9
    assert (told["Enable"], told["ClearFaults"] * 4, told["Counter"]) == (enable, control, counter)
    assert told["Crc"] == codec.crc(0x200 + address, data[0, :6].tobytes())
    assert codec.intact(0x200 + address, data[0].tobytes())


@given(st.integers(1, 70), U8)
def test_group_setpoints(modules: int, counter: int) -> None:
    address = np.arange(1, modules + 1)
    volts, amperes, enable = address * 7.0, address * -0.25, address % 3 != 0
    ids, data = codec.encode_groups(address, volts, amperes, enable, counter)
    assert ids.tolist() == [0x2E0 + g for g in range(-(-modules // 15))]
    for module in range(modules):
        group, slot = divmod(module, 15)
        told = dbc("GroupSetpoint", data[group].tobytes())
        assert told[f"Voltage{slot + 1}"] == near(volts[module])
        assert told[f"Current{slot + 1}"] == near(amperes[module])
        assert told[f"Enable{slot + 1}"] == enable[module]
        assert told["Counter"] == counter and codec.intact(0x2E0 + group, data[group].tobytes())


@given(st.tuples(U16, U16, U16, U16, st.integers(0, 2), U8, U8, st.booleans()))
def test_power_command(values: tuple[Any, ...]) -> None:
    command = codec.PowerCommand(*values)
    told = dbc("PowerCommand", command.encode())
    names = ("Contactors", "Monitors", "SelfTests", "Links", "State", "Counter", "Echo", "EchoValid")
    assert tuple(told[n] for n in names) == values
    assert codec.PowerCommand.decode(command.encode()) == command


@given(st.integers(0, 2047), U16, st.integers(-50, 205), U8, st.tuples(U16, U8, st.integers(0, 16)))
def test_safety_status(bits: int, contactors: int, cabinet: int, counter: int, rest: tuple[int, int, int]) -> None:
    status = codec.SafetyStatus(bits, contactors, float(cabinet), counter, *rest)
    told = dbc("SafetyStatus", status.encode())
    names = (
        "EmergencyStop",
        "EmergencyLatched",
        "DoorOpen",
        "OverTemperature",
        "PowerLost",
        "MonitorFault",
        "Internal",
        "HearsPower",
        "Fire",
        "MainsLost",
        "ArmEnabled",
    )
    assert sum(told[n] << i for i, n in enumerate(names)) == bits
    assert (told["ContactorsClosed"], told["Cabinet"], told["Counter"]) == (contactors, cabinet, counter)
    assert (told["Tripped"], told["Echo"], int(getattr(told["Reason"], "value", told["Reason"]))) == rest
    assert codec.SafetyStatus.decode(status.encode()) == status


@given(U16, U8)
def test_link_status(closed: int, counter: int) -> None:
    status = codec.LinkStatus(closed, counter)
    told = dbc("LinkStatus", status.encode())
    assert (told["Closed"], told["Counter"]) == (closed, counter)
    assert codec.LinkStatus.decode(status.encode()) == status


@given(st.integers(1, 223), st.integers(1, 3), U16, st.binary(min_size=56, max_size=56), U8)
def test_boot_request_and_answer(address: int, command: int, block: int, data: bytes, counter: int) -> None:
    told = dbc("BootRequest", firmware.Request(address, command, block, data, counter).encode())
    assert (told["Address"], told["Block"], told["Counter"]) == (address, block, counter)
    assert b"".join(int(told[f"Data{i}"]).to_bytes(8, "little") for i in range(1, 8)) == data
    told = dbc("BootAnswer", firmware.Answer(command, 1, block, 0x101).encode(address))
    assert (told["NextBlock"], told["Version"]) == (block, 0x101) and told["Result"] == 1


@given(st.integers(1, 2), st.integers(0, 223), U32, st.integers(0, 6), U8)
def test_configuration(command: int, address: int, serial: int, turn: int, counter: int) -> None:
    request = service.ConfigRequest(command, address, serial, turn, counter)
    told = dbc("ConfigRequest", request.encode())
    assert (told["Address"], told["Serial"], told["Round"], told["Counter"]) == (address, serial, turn, counter)
    assert service.ConfigRequest.decode(request.encode()) == request
    answer = service.ConfigAnswer(serial, address, 1)
    told = dbc("ConfigAnswer", answer.encode(0x500 + address))
    assert (told["Serial"], told["Address"], told["Result"]) == (serial, address, 1)
    assert service.ConfigAnswer.decode(0x500 + address, answer.encode(0x500 + address)) == answer
    assert service.ConfigAnswer.decode(0x501 + address, answer.encode(0x500 + address)) is None


@given(st.integers(1, 223), U32, U16, U16, U32, U32, U16, st.integers(-50, 205), st.integers(0, 200))
def test_diagnostics(
    address: int, serial: int, firmware: int, faults: int, hours: int, starts: int, count: int, hot: int, health: int
) -> None:
    request = service.DiagnosticRequest(address, count & 0xFF)
    assert dbc("DiagnosticRequest", request.encode())["Address"] == address
    assert service.DiagnosticRequest.decode(request.encode()) == request
    life = service.Diagnostics(
        serial,
        firmware,
        faults,
        hours * codec.HOUR,
        starts / 10.0,
        starts,
        hours * codec.HOUR,
        count,
        hot,
        health / 200,
    )
    told = dbc("Diagnostics", life.encode(address))
    assert (told["Serial"], told["Firmware"], told["LastFaults"]) == (serial, firmware, faults)
    assert (told["Starts"], told["FaultCount"], told["Hottest"]) == (starts, count, hot)
    assert told["Hours"] == near(life.hours) and told["Energy"] == near(life.energy_kwh)
    assert told["LastFaultHours"] == near(life.hours) and told["Health"] == near(100.0 * life.health)
    assert service.Diagnostics.decode(address, life.encode(address)) == life
    assert service.Diagnostics.decode(address + 1, life.encode(address)) is None


@given(st.integers(0, 0xFFFFFFFF), U8)
def test_grid_permit(watts: int, counter: int) -> None:
    permit = codec.GridPermit(float(watts), counter)
    told = dbc("GridPermit", permit.encode())
    assert (told["Export"], told["Counter"]) == (watts, counter)
    assert codec.GridPermit.decode(permit.encode()) == permit


@given(st.integers(1, 16), st.integers(-20000, 20000), st.integers(-20000, 20000), I16, U8)
def test_output_measurement(evse: int, volts: int, bank: int, amperes: int, counter: int) -> None:
    measured = codec.OutputMeasurement(volts * 0.05, bank * 0.05, amperes * 0.1, 40.0, 41.0, 30.0, 35.0, counter)
    told = dbc("OutputMeasurement", measured.encode(evse))
    assert told["Voltage"] == near(measured.voltage_v) and told["BankVoltage"] == near(measured.bank_voltage_v)
    assert told["Current"] == near(measured.current_a)
    assert (told["PinPositive"], told["PinNegative"], told["Cable"]) == (40.0, 41.0, 30.0)
    assert told["Coolant"] == 35.0
    assert codec.OutputMeasurement.decode(evse, measured.encode(evse)) == measured


@given(st.integers(1, 16), U16, st.integers(0, 3), U8, st.integers(0, 255), U8)
def test_evse_status(evse: int, ohm: int, monitor: int, sequence: int, bits: int, counter: int) -> None:
    status = codec.EvseStatus(ohm * codec.OHM, monitor, sequence, bits, counter)
    told = dbc("EvseStatus", status.encode(evse))
    names = (
        "PositiveClosed",
        "NegativeClosed",
        "Coil",
        "Occupied",
        "Immobilised",
        "FieldClear",
        "Tripped",
        "Inhibited",
    )
    assert sum(told[n] << i for i, n in enumerate(names)) == bits
    assert (told["Insulation"], told["Monitor"], told["Sequence"]) == (ohm * 100, monitor, sequence)
    assert codec.EvseStatus.decode(evse, status.encode(evse)) == status
    assert status.closed == (bits & 3 == 3) and status.open == (bits & 3 == 0)


SEALED = [
    (codec.POWER_ID, codec.PowerCommand(1, 1, 0, 0, 1, 7).encode(), codec.PowerCommand.decode),
    (codec.SAFETY_ID, codec.SafetyStatus(1, 1, 20.0, 7).encode(), codec.SafetyStatus.decode),
]


@pytest.mark.parametrize(("identifier", "data", "decode"), SEALED)
def test_a_flipped_bit_a_wrong_length_and_a_wrong_id_are_refused(identifier: int, data: bytes, decode: Any) -> None:
    assert decode(data) is not None and codec.intact(identifier, data)
    assert not codec.intact(identifier + 1, data)
    assert decode(data[:-1]) is None and decode(data + b"\0") is None
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        assert decode(bytes(damaged)) is None


def test_a_frame_for_another_evse_is_not_taken() -> None:
    assert codec.OutputMeasurement.decode(2, codec.OutputMeasurement(1.0).encode(1)) is None
    assert codec.EvseStatus.decode(2, codec.EvseStatus(1.0).encode(1)) is None


def test_a_repeated_counter_is_not_alive() -> None:
    alive = codec.Alive()
    assert [alive.advanced(c) for c in (255, 0, 0, 1, 1)] == [True, True, False, True, False]


def test_every_frame_of_the_database_is_tested_here() -> None:
    assert {m.name.rstrip("0123456789") for m in DATABASE.messages} == {
        "ModuleStatus", "ModuleSensor", "ModuleSetpoint", "GroupSetpoint",
        "PowerCommand", "SafetyStatus", "LinkStatus", "GridPermit", "BootRequest", "BootAnswer",
        "ConfigRequest", "ConfigAnswer", "DiagnosticRequest", "Diagnostics",
        "OutputMeasurement", "EvseStatus",
    }  # fmt: skip
    assert all(m.is_fd for m in DATABASE.messages)


def test_the_database_has_every_address() -> None:
    from robot_charger.power import dbc as printer

    text = printer.DBC.read_text()
    assert printer.complete(text) == text, "python -m robot_charger.power.dbc > config/ek3.dbc"
    for address in (2, 46, codec.MAX_ADDRESS):
        status = DATABASE.get_message_by_name(f"ModuleStatus{address}")
        assert status.frame_id == codec.STATUS_ID + address and status.cycle_time == 10 and status.is_fd
        assert status.get_signal_by_name("State").choices
        assert DATABASE.get_message_by_name(f"ModuleSetpoint{address}").frame_id == codec.SETPOINT_ID + address
        assert DATABASE.get_message_by_name(f"ModuleSensor{address}").cycle_time == 100
    assert DATABASE.get_message_by_name("EvseStatus16").frame_id == codec.EVSE_ID + 16
    assert DATABASE.get_message_by_name("GroupSetpoint14").frame_id == codec.GROUP_ID + 14
