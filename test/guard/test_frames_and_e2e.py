"""End-to-end protection: each communication fault of IEC 61784-3 is recognised; the frames are those of ek3.dbc."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cantools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_charger.common import e2e
from robot_charger.common.e2e import Sequence, Signer, Verifier
from robot_charger.guard import frames, logic
from robot_charger.power import codec

DATABASE: Any = cantools.database.load_file(Path(__file__).parents[2] / "config" / "ek3.dbc")
KEY = bytes(range(16))
U8, U16 = st.integers(0, 0xFF), st.integers(0, 0xFFFF)


def judged(counters: list[int]) -> list[bool]:
    sequence = Sequence()
    return [sequence.advanced(c) for c in counters]


def test_a_sequence_goes_on_over_the_wrap_and_over_lost_frames() -> None:
    assert judged([250, 254, 255, 0, 10, 20]) == [True] * 6
    assert judged([0, 10]) == [True, True] and judged([0, 11]) == [True, False]


def test_a_repeated_frame_costs_itself() -> None:
    assert judged([5, 5, 6, 6, 7]) == [True, False, True, False, True]


def test_after_a_wrong_sequence_two_frames_must_follow() -> None:
    assert judged([5, 100, 101, 102, 103]) == [True, False, False, True, True]
    assert judged([5, 4, 5, 6]) == [True, False, False, True]
    assert judged([5, 100, 101, 101, 102, 103]) == [True, False, False, False, True, True]


def test_errors_add_up_until_the_sequence_is_distrusted_and_good_frames_work_them_off() -> None:
    sequence = Sequence()
    sequence.advanced(0)
    for _ in range(3):
        assert not sequence.advanced(0)
    assert sequence.errors == 9 and sequence.advanced(1)
    for _ in range(2):
        sequence.advanced(1)
    assert sequence.errors == 12 and sequence.distrusted
    good = [sequence.advanced(2 + i) for i in range(13)]
    assert good == [False] * 11 + [True] * 2


@pytest.mark.parametrize("offset", range(1, 256))
def test_two_senders_on_one_identifier_are_silence(offset: int) -> None:
    counters = [c for i in range(60) for c in (i, (i + offset) & 0xFF)]
    assert not any(judged(counters)[40:])


def test_a_replayed_recording_beside_the_sender_is_silence() -> None:
    recording = [c & 0xFF for c in range(40, 80)]
    counters = [c for i in range(100) for c in (i & 0xFF, recording[i % 40])]
    assert not any(judged(counters)[40:])


def test_the_age_of_an_echo() -> None:
    assert [e2e.echo_age(a, b) for a, b in ((5, 5), (6, 5), (2, 250), (5, 6))] == [0, 1, 8, 255]


def test_the_crc_is_that_of_the_standard_and_begins_with_the_data_id() -> None:
    assert e2e.crc(0xFFFF, b"123456789") == 0x29B1  # CRC-16/IBM-3740, the check value of E2E profile 5
    assert e2e.crc(0, b"123456789") == 0x31C3  # CRC-16/XMODEM
    sealed = e2e.seal(0x400, b"abc\0\0")
    assert e2e.intact(0x400, sealed) and not e2e.intact(0x401, sealed) and not e2e.intact(0x400, b"")
    assert not e2e.intact(0, b"\0\0"), "no payload"


@given(U16, U16, U16, U8, U8, st.integers(0, 16), U8)
def test_the_status_is_read_alike_by_power_and_the_database(
    bits: int, closed: int, tripped: int, cabinet: int, echo: int, reason: int, counter: int
) -> None:
    identifier, data = frames.encode_safety(bits, closed, tripped, cabinet, echo, reason, counter)
    told = DATABASE.decode_message(identifier, data, decode_choices=False)
    status = codec.SafetyStatus.decode(data)
    assert status == codec.SafetyStatus(bits, closed, cabinet - 50.0, counter, tripped, echo, reason)
    names = ("ContactorsClosed", "Tripped", "Cabinet", "Echo", "Reason", "Counter")
    assert [told[n] for n in names] == [closed, tripped, cabinet - 50, echo, reason, counter]


@given(st.integers(1, 16), U16, st.integers(0, 3), U8, U8, U8, st.integers(0, 0xFFFFFFFF))
def test_the_other_frames_are_read_alike(
    evse: int, ohm: int, monitor: int, sequence: int, bits: int, counter: int, watts: int
) -> None:
    identifier, data = frames.encode_evse(evse, ohm, monitor, sequence, bits, counter)
    assert identifier == codec.EVSE_ID + evse
    assert codec.EvseStatus.decode(evse, data) == codec.EvseStatus(ohm * 100.0, monitor, sequence, bits, counter)
    identifier, data = frames.encode_grid(watts, counter)
    assert identifier == codec.GRID_ID and codec.GridPermit.decode(data) == codec.GridPermit(float(watts), counter)
    identifier, data = frames.encode_links(ohm, counter)
    assert identifier == codec.LINK_ID and codec.LinkStatus.decode(data) == codec.LinkStatus(ohm, counter)


def test_bits_and_reasons_have_the_same_names_on_both_sides() -> None:
    assert {b.name: int(b) for b in logic.Status} == {b.name: int(b) for b in codec.Safety}
    assert {b.name: int(b) for b in logic.Bay} == {b.name: int(b) for b in codec.Bay}
    assert len(codec.REASONS) == len(logic.Reason)
    reasons = DATABASE.get_message_by_name("SafetyStatus").get_signal_by_name("Reason").choices
    assert {int(k): str(v) for k, v in reasons.items()} == {int(r): r.name for r in logic.Reason}


# With a key.
def pair() -> tuple[Signer, Verifier]:
    """Power's signer, and the controller's verifier; each knows the other's nonce."""
    power, controller = Signer(KEY, 111), Signer(KEY, 222)
    power.peer_nonce = 222
    return power, Verifier(controller)


FRAME = codec.PowerCommand(1, counter=3).encode()


def test_the_authenticator_is_aes_cmac() -> None:
    # RFC 4493, example 2, computed over the whole input: data id and nonce are its first six bytes.
    key = bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c")
    message = bytes.fromhex("6bc1bee22e409f96e93d7e117393172a")
    data_id, nonce = int.from_bytes(message[:2], "little"), int.from_bytes(message[2:6], "little")
    assert e2e.authenticator(key, data_id, message[6:], nonce).hex() == "070a16b46b4d4144"


def test_a_signed_frame_is_taken_once() -> None:
    power, controller = pair()
    signed = power.sign(codec.POWER_ID, FRAME)
    assert len(signed) == 32 and controller.frame(codec.POWER_ID, signed, len(FRAME)) == FRAME
    assert controller.own.peer_nonce == 111
    assert controller.frame(codec.POWER_ID, signed, len(FRAME)) is None, "replayed"
    assert controller.frame(codec.POWER_ID, power.sign(codec.POWER_ID, FRAME), len(FRAME)) == FRAME


def test_what_was_recorded_before_the_stream_broke_never_verifies_again() -> None:
    power, controller = pair()
    recorded = [power.sign(codec.POWER_ID, FRAME) for _ in range(5)]
    controller.broke(333)
    assert [controller.frame(codec.POWER_ID, f, len(FRAME)) for f in recorded] == [None] * 5
    power.peer_nonce = 333
    assert controller.frame(codec.POWER_ID, power.sign(codec.POWER_ID, FRAME), len(FRAME)) == FRAME


def test_every_changed_bit_another_id_another_key_and_no_key_are_refused() -> None:
    power, controller = pair()
    signed = power.sign(codec.POWER_ID, FRAME)
    for bit in range(8 * len(signed)):
        damaged = bytearray(signed)
        damaged[bit // 8] ^= 1 << bit % 8
        assert controller.frame(codec.POWER_ID, bytes(damaged), len(FRAME)) is None
    assert controller.frame(codec.SAFETY_ID, signed, len(FRAME)) is None
    assert controller.frame(codec.POWER_ID, FRAME, len(FRAME)) is None
    other = Signer(bytes(16), 1)
    other.peer_nonce = 222
    assert controller.frame(codec.POWER_ID, other.sign(codec.POWER_ID, FRAME), len(FRAME)) is None
    with pytest.raises(ValueError, match="16 bytes"):
        Signer(b"short", 1)


@pytest.mark.parametrize(("length", "payload"), [(8, 24), (12, 32), (16, 32), (17, 48)])
def test_a_signed_frame_has_a_length_that_can_fd_has(length: int, payload: int) -> None:
    assert e2e.padded(length) == payload
    assert len(Signer(KEY, 1).sign(1, bytes(length))) == payload
