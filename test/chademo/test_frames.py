"""The frame table: against the DBC file, against recorded frames, and there and back again."""

from __future__ import annotations

from pathlib import Path

import cantools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_charger.chademo import frames
from robot_charger.chademo.frames import FrameError
from robot_charger.chademo.vehicle import Vehicle

DBC = Path(__file__).parents[2] / "config/chademo.dbc"


@pytest.fixture(scope="module")
def database() -> cantools.database.Database:
    return cantools.database.load_file(DBC)


def test_the_dbc_file_is_printed_from_the_table() -> None:
    assert DBC.read_text() == frames.dbc(), "python -m robot_charger.chademo.frames > config/chademo.dbc"


@given(st.sampled_from(frames.TABLE), st.binary(min_size=8, max_size=8))
def test_decoding_agrees_with_cantools(frame: frames.Frame, data: bytes) -> None:
    known = cantools.database.load_file(DBC) if not CACHE else CACHE[0]
    CACHE[:] = [known]
    oracle = known.decode_message(frame.identifier, data, decode_choices=False)
    assert frames.decode(frame.identifier, data) == pytest.approx({k: float(v) for k, v in oracle.items()})


CACHE: list[cantools.database.Database] = []


@given(st.sampled_from(frames.TABLE), st.data())
def test_every_value_of_every_field_survives_the_way_there_and_back(frame: frames.Frame, data: st.DataObject) -> None:
    values = {f.name: data.draw(st.integers(0, f.mask), label=f.name) * f.scale + f.offset for f in frame.fields}
    assert frames.decode(frame.identifier, frames.encode(frame.identifier, values)) == pytest.approx(values)


def test_fields_do_not_overlap_and_fit_into_eight_bytes() -> None:
    for frame in frames.TABLE:
        taken = [bit for f in frame.fields for bit in range(f.start, f.start + f.bits)]
        assert len(taken) == len(set(taken)), frame.name
        assert max(taken) < 64


@pytest.mark.parametrize(
    ("identifier", "hexadecimal", "expected"),
    [
        # Values seen in recorded sessions.
        (0x100, "00000000B301F000", {"max_battery_v": 435, "rate_reference": 240}),
        (0x102, "029A011F00C13700", {"protocol": 2, "target_v": 410, "request_a": 31, "enabled": 1, "discharge": 1,
                                     "legacy_dynamic": 1, "soc": 55}),
        (0x109, "0282010C0005FF3C", {"present_v": 386, "present_a": 12, "charging": 1, "locked": 1, "stop_control": 0,
                                     "remaining_min": 60}),
        (0x109, "0200000000200000", {"stop_control": 1, "charging": 0, "locked": 0}),
        (0x208, "FFF401F00000FA00", {"present_discharge_a": 0, "available_input_v": 500, "available_input_a": 15,
                                     "lower_threshold_v": 250}),
        (0x209, "0205000000000000", {"sequence": 2, "remaining_min": 5}),
        (0x101, "00FF3C1E00620100", {"max_time_10s": 255, "max_time_min": 60, "estimated_min": 30,
                                     "capacity_kwh": 35.4}),
    ],
)  # fmt: skip
def test_recorded_frames(identifier: int, hexadecimal: str, expected: dict[str, float]) -> None:
    decoded = frames.decode(identifier, bytes.fromhex(hexadecimal))
    assert {name: decoded[name] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize("data", [b"", b"1234567", b"123456789"])
def test_a_frame_of_another_length_is_refused(data: bytes) -> None:
    with pytest.raises(FrameError, match=r"0x102 with \d bytes"):
        frames.decode(0x102, data)


def test_what_does_not_fit_is_refused_by_name() -> None:
    with pytest.raises(FrameError, match=r"0x108 available_a = 300 A is not between 0 and 255"):
        frames.encode(0x108, {"available_a": 300})
    with pytest.raises(FrameError, match="has no field colour"):
        frames.encode(0x108, {"colour": 1})
    with pytest.raises(FrameError, match="0x103 is no CHAdeMO frame"):
        frames.decode(0x103, bytes(8))


def test_the_table_names_a_source_for_every_field(database: cantools.database.Database) -> None:
    for frame in frames.TABLE:
        for field in frame.fields:
            assert field.source
            assert database.get_message_by_frame_id(frame.identifier).get_signal_by_name(field.name).comment


@pytest.mark.parametrize("heard", [False, True])
def test_a_field_that_does_not_exist_is_an_error_and_not_zero(heard: bool) -> None:
    vehicle = Vehicle()
    if heard:
        frame = frames.FRAMES[frames.VEHICLE_CONTROL]
        vehicle.values[frames.VEHICLE_CONTROL] = {field.name: 1.0 for field in frame.fields}
    assert vehicle.control("target_v") == float(heard)
    with pytest.raises(KeyError):
        vehicle.control("taget_v")
