"""The message table: against the DBC file, against recorded frames, and there and back again."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import cantools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_charger.gbt import frames
from robot_charger.gbt.frames import FrameError, Message, decode, encode

DBC = Path(__file__).parents[2] / "config/gbt.dbc"


@cache
def database() -> cantools.database.can.Database:
    known = cantools.database.load_file(DBC)
    assert isinstance(known, cantools.database.can.Database)
    return known


def test_the_dbc_file_is_printed_from_the_table() -> None:
    assert DBC.read_text() == frames.dbc(), "python -m robot_charger.gbt.frames > config/gbt.dbc"


def test_the_dbc_file_names_identifiers_and_values_as_a_person_reads_them() -> None:
    message = database().get_message_by_name("BST")
    assert message.frame_id == 0x101956F4 and message.is_extended_frame
    ready = database().get_message_by_name("BRO").get_signal_by_name("ready").choices
    assert ready is not None and {k: str(v) for k, v in ready.items()} == frames.READINESS


@given(st.sampled_from(frames.TABLE), st.data())
def test_decoding_agrees_with_cantools(message: Message, data: st.DataObject) -> None:
    raw = data.draw(st.binary(min_size=message.length, max_size=message.length))
    oracle = database().decode_message(message.identifier | 0, raw, decode_choices=False)
    ours = decode(message.name, raw).values
    numbers = {row.name for row in message.fields if row.kind == "number"}
    assert {k: v for k, v in ours.items() if k in numbers} == pytest.approx(
        {k: float(v) for k, v in oracle.items() if k in numbers}  # type: ignore[arg-type, union-attr]
    )


@given(st.sampled_from(frames.TABLE), st.data())
def test_every_value_of_every_field_survives_the_way_there_and_back(message: Message, data: st.DataObject) -> None:
    values: dict[str, float] = {}
    texts: dict[str, str] = {}
    for row in message.fields:
        if row.kind == "text":
            texts[row.name] = data.draw(st.text("ABCXYZ0189", max_size=row.bits // 8), label=row.name)
        elif row.kind == "bcd":
            values[row.name] = data.draw(st.integers(0, 10 ** (row.bits // 4) - 1), label=row.name)
        else:
            values[row.name] = data.draw(st.integers(0, row.mask), label=row.name) * row.scale + row.offset
    back = decode(message.name, encode(message.name, {**values, **texts}))
    assert back.values == pytest.approx(values)
    assert back.texts == texts


def test_fields_do_not_overlap_and_fit_into_their_message() -> None:
    for message in frames.TABLE:
        taken = [bit for row in message.fields for bit in range(row.start, row.start + row.bits)]
        assert len(taken) == len(set(taken)), message.name
        assert max(taken) < message.length * 8, message.name


def test_identifiers_do_not_clash() -> None:
    assert len({message.identifier for message in frames.TABLE}) == len(frames.TABLE)


@pytest.mark.parametrize(
    ("name", "identifier", "hexadecimal", "expected"),
    [
        # Values that real chargers and vehicles sent.
        ("CHM", 0x1826F456, "010100", {"version_minor": 1, "version_major": 1}),
        ("BHM", 0x182756F4, "A510", {"max_total_v": 426.1}),
        ("BCP", 0x1C0656F4, "7201DA052A02A510730803C60E",
         {"max_cell_v": 3.70, "max_a": 250.2, "energy_kwh": 55.4, "max_total_v": 426.1, "max_temperature_c": 65,
          "soc": 77.6, "battery_v": 378.2}),
        ("CTS", 0x1807F456, "36240816051520", {"second": 36, "hour": 8, "day": 16, "month": 5, "year": 2015}),
        ("CTS", 0x1807F456, "FFFFFFFFFFFFFF", {"second": -1, "year": -1}),
        ("BRO", 0x100956F4, "AA", {"ready": 0xAA}),
        ("BCS", 0x1C1156F4, "C50EA00F4C614D0000", {"voltage_v": 378.1, "current_a": 0, "max_cell_v": 3.32,
                                                   "max_cell_group": 6, "soc": 77, "left_min": 0}),
        ("CCS", 0x1812F456, "C90EFD0E0000FD", {"voltage_v": 378.5, "current_a": 16.3, "allowed": 1}),
        ("CCS", 0x1812F456, "C90EFD0E0000FDFF", {"current_a": 16.3, "allowed": 1}),  # filled up to eight bytes
        ("BST", 0x101956F4, "40000000", {"charger_stopped": 1, "soc_reached": 0}),
        ("CST", 0x101AF456, "0400F0F0", {"by_hand": 1, "fault": 0, "emergency_stop": 0}),
        ("BSD", 0x181C56F4, "4D4D014E013536", {"soc": 77, "min_cell_v": 3.33, "max_cell_v": 3.34}),
        ("BEM", 0x081E56F4, "F0F0F1FC", {"ccs": 1, "cst": 0, "cro": 0}),
        ("BEM", 0x081E56F4, "F4F0F0FC", {"crm_aa": 1, "crm_00": 0}),
    ],
)  # fmt: skip
def test_frames_of_recorded_sessions(name: str, identifier: int, hexadecimal: str, expected: dict[str, float]) -> None:
    assert frames.MESSAGES[name].identifier == identifier
    values = decode(name, bytes.fromhex(hexadecimal)).values
    assert {key: values[key] for key in expected} == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "values", "edition", "hexadecimal"),
    [
        ("CHM", {"version_minor": 1, "version_major": 1}, 2015, "010100"),
        ("CST", {"by_hand": 1}, 2015, "0400F0F0"),
        ("CEM", {}, 2015, "FCF0C0FC"),
        ("CEM", {"bcl": 1}, 2015, "FCF0C4FC"),
        ("CCS", {"voltage_v": 378.5, "current_a": 0, "charged_min": 0, "allowed": 1}, 2015, "C90EA00F0000FD"),
        ("CCS", {"voltage_v": 378.5, "current_a": 0, "charged_min": 0, "allowed": 1}, 2011, "C90EA00F0000"),
        ("CML", {"max_v": 950, "min_v": 38, "max_a": 250, "min_a": 0}, 2015, "1C257C01DC05A00F"),
        ("CML", {"max_v": 950, "min_v": 38, "max_a": 250, "min_a": 0}, 2011, "1C257C01DC05"),
        ("CSD", {"charged_min": 1, "energy_kwh": 0.1, "charger_number": 0x0102}, 2011, "0100010002"),
    ],
)
def test_what_the_charger_sends(name: str, values: dict[str, float], edition: int, hexadecimal: str) -> None:
    assert encode(name, values, edition).hex().upper() == hexadecimal


def test_refusals_name_what_is_wrong() -> None:
    with pytest.raises(FrameError, match="BCP with 12 bytes instead of 13"):
        decode("BCP", bytes(12))
    with pytest.raises(FrameError, match="CML without max_a"):
        encode("CML", {"max_v": 1, "min_v": 1, "min_a": 1})
    with pytest.raises(FrameError, match="BCL current_a = 500 A is not between"):
        encode("BCL", {"voltage_v": 1, "current_a": 500, "mode": 1})
    with pytest.raises(FrameError, match="CST has no field fire"):
        encode("CST", {"fire": 1})
    with pytest.raises(FrameError, match="XYZ is no message"):
        decode("XYZ", b"")


@given(st.sampled_from(sorted(frames.MESSAGES)), st.binary(max_size=80))
def test_any_bytes_are_read_or_refused_in_words(name: str, data: bytes) -> None:
    try:
        message = decode(name, data)
    except FrameError as error:
        assert name in str(error)
        assert len(data) < frames.MESSAGES[name].length
    else:
        assert set(message.values) <= {row.name for row in frames.MESSAGES[name].fields}


def test_a_short_identification_of_an_older_vehicle_is_read_as_far_as_it_goes() -> None:
    whole = encode("BRM", {row.name: row.offset for row in frames.MESSAGES["BRM"].fields if row.kind == "number"})
    assert set(decode("BRM", whole[:41]).texts) == {"maker", "vin"}
    assert decode("BRM", whole[:8]).values["rated_v"] == 0.0
