"""The transport protocol: a recorded exchange, every length, lost and doubled packets, peers that stop answering."""

from __future__ import annotations

from collections.abc import Set

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_charger.gbt import transport
from robot_charger.gbt.transport import Frame, Receiver, Sender

MS = 1_000_000
UP, DOWN = (0xF4, 0x56), (0x56, 0xF4)  # vehicle to charger and back


def receiver(welcome: bool = True) -> Receiver:
    return Receiver(0x56, 0xF4, lambda pgn, length: "" if welcome else "not wanted")


def hexa(frames: list[Frame]) -> list[str]:
    return [f"{identifier:08X}#{data.hex().upper()}" for identifier, data in frames]


def pump(
    sender: Sender, station: Receiver, lose: Set[int] = frozenset(), seconds: float = 5.0
) -> tuple[list[tuple[int, bytes]], list[Frame]]:
    """Frames both ways, 10 ms apart; those of the sender whose number of sending is in ``lose`` do not arrive."""
    done, bus = [], []
    count = now = 0
    while sender.busy and now < seconds * 1000 * MS:
        now += 10 * MS
        for identifier, data in sender.step(now):
            count += 1
            if count in lose:
                continue
            bus.append((identifier, data))
            if identifier >> 16 & 0xFF == transport.DT:
                answers, message = station.packet(data, now)
                done += [message] if message else []
            else:
                answers = station.control(data, now)
            for answer in answers:
                bus.append(answer)
                sender.answer(answer[1], now)
        for answer in station.step(now):
            bus.append(answer)
            sender.answer(answer[1], now)
    return done, bus


def begin(sender: Sender, station: Receiver, pgn: int, message: bytes) -> list[Frame]:
    request = sender.send(pgn, message, 0)
    answers = station.control(request[0][1], 0)
    for _, data in answers:
        sender.answer(data, 0)
    return [*request, *answers]


def test_the_exchange_that_was_recorded() -> None:
    """BCP of a real vehicle, byte for byte."""
    sender, station = Sender(*UP), receiver()
    bus = begin(sender, station, 0x0600, bytes.fromhex("7201DA052A02A510730803C60E"))
    messages, rest = pump(sender, station)
    assert hexa(bus + rest) == [
        "1CEC56F4#100D0002FF000600",
        "1CECF456#110201FFFF000600",
        "1CEB56F4#017201DA052A02A5",
        "1CEB56F4#0210730803C60EFF",
        "1CECF456#130D0002FF000600",
    ]
    assert messages == [(0x0600, bytes.fromhex("7201DA052A02A510730803C60E"))]
    assert not station.busy and not station.bad


@given(st.binary(min_size=9, max_size=300), st.sampled_from([0x0200, 0x1100, 0x1500]))
def test_every_message_arrives_whole(message: bytes, pgn: int) -> None:
    sender, station = Sender(*UP, pace_ns=0), receiver()
    begin(sender, station, pgn, message)
    assert pump(sender, station)[0] == [(pgn, message)]


@given(st.binary(min_size=9, max_size=100), st.sets(st.integers(1, 12), max_size=2))
def test_lost_packets_are_asked_for_again_or_the_transfer_ends(message: bytes, lose: set[int]) -> None:
    sender, station = Sender(*UP), receiver()
    begin(sender, station, 0x1100, message)
    messages, _ = pump(sender, station, lose)
    assert messages in ([], [(0x1100, message)]), "never a message that was not sent"
    assert not sender.busy and (messages or station.bad)


def test_a_lost_packet_in_the_middle_is_asked_for_again() -> None:
    sender, station = Sender(*UP), receiver()
    message = bytes(range(49))
    begin(sender, station, 0x0200, message)
    messages, bus = pump(sender, station, {3})
    assert messages == [(0x0200, message)]
    assert "1CECF456#110503FFFF000200" in hexa(bus)  # clear to send five from the third


def test_packets_that_come_twice_do_no_harm() -> None:
    sender, station = Sender(*UP, pace_ns=0), receiver()
    message = bytes(range(9))
    begin(sender, station, 0x1100, message)
    first = sender.step(1)[0][1]
    assert station.packet(first, 1) == ([], None)
    assert station.packet(first, 2) == ([], None)
    assert station.packet(sender.step(3)[0][1], 3)[1] == (0x1100, message)


def test_a_sender_that_wants_to_be_cleared_a_few_packets_at_a_time() -> None:
    station = receiver()
    (answer,) = station.control(bytes.fromhex("1015000302000200"), 0)
    assert answer[1].hex() == "110201ffff000200"
    assert station.packet(b"\x01" + bytes(7), 1) == ([], None)
    ((_, more),), none = station.packet(b"\x02" + bytes(7), 2)
    assert (more.hex(), none) == ("110103ffff000200", None)
    assert station.packet(b"\x03" + bytes(7), 3)[1] == (0x0200, bytes(21))


def test_a_new_request_replaces_the_old_one() -> None:
    station = receiver()
    station.control(bytes.fromhex("10310007FF000200"), 0)
    station.packet(b"\x01" + bytes(7), 1)
    station.control(bytes.fromhex("10310007FF000200"), 2)
    for number in range(1, 7):
        assert station.packet(bytes([number]) + bytes(7), 3)[1] is None
    assert station.packet(b"\x07" + bytes(7), 3)[1] == (0x0200, bytes(49))


def test_a_stalled_transfer_is_aborted() -> None:
    station = receiver()
    station.control(bytes.fromhex("10310007FF000200"), 0)
    assert station.step(1250 * MS) == []
    ((_, abort),) = station.step(1251 * MS)
    assert abort.hex() == "ff03ffffff000200"
    assert not station.busy and "stalled before packet 1" in station.last_bad


@pytest.mark.parametrize(
    "request_",
    [
        "10310006FF000200",  # 49 bytes need seven packets
        "10080001FF001100",  # eight bytes need two
        "10000000FF001100",
        "10FFFF02FF001100",
    ],
)
def test_impossible_sizes_are_refused(request_: str) -> None:
    station = receiver()
    ((_, abort),) = station.control(bytes.fromhex(request_), 0)
    assert abort[0] == transport.ABORT and not station.busy
    assert "impossible size" in station.last_bad


def test_a_message_that_is_not_wanted_is_refused() -> None:
    station = receiver(welcome=False)
    ((_, abort),) = station.control(bytes.fromhex("10310007FF000200"), 0)
    assert abort[0] == transport.ABORT and "not wanted" in station.last_bad


def test_the_vehicles_abort_ends_the_transfer() -> None:
    station = receiver()
    station.control(bytes.fromhex("10310007FF000200"), 0)
    assert station.control(bytes.fromhex("FFFFFFFFFF000200"), 1) == []
    assert not station.busy and "gave up" in station.last_bad
    assert station.packet(b"\x01" + bytes(7), 2) == ([], None)


def test_a_sender_without_an_answer_gives_up() -> None:
    sender = Sender(*UP)
    sender.send(0x0200, bytes(49), 0)
    assert sender.step(1250 * MS) == []
    assert sender.step(1251 * MS)[0][1].hex() == "ff03ffffff000200"
    assert not sender.busy and sender.failed == 1


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=8)), max_size=60))
def test_any_frames_leave_a_receiver_that_works(frames: list[tuple[bool, bytes]]) -> None:
    station = receiver()
    for n, (data, content) in enumerate(frames):
        _ = station.packet(content, n) if data else station.control(content, n)
    sender = Sender(*UP, pace_ns=0)
    message = bytes(range(20))
    begin(sender, station, 0x1100, message)
    assert pump(sender, station)[0] == [(0x1100, message)]


def test_frames_of_wrong_length_do_not_break_what_is_under_way() -> None:
    station = receiver()
    station.control(bytes.fromhex("10090002FF001100"), 0)
    station.control(b"\x10\x09", 1)
    assert station.packet(b"\x01\x02", 2) == ([], None)
    assert station.packet(b"\x01" + bytes(7), 3) == ([], None)
    assert station.packet(b"\x02" + bytes(7), 4)[1] == (0x1100, bytes(9))
    assert station.bad == 2


def test_a_short_message_by_the_transport_protocol_is_taken() -> None:
    """A vehicle code in use sends BSD of seven bytes so."""
    station = receiver()
    ((_, answer),) = station.control(bytes.fromhex("10070001FF001C00"), 0)
    assert answer.hex() == "110101ffff001c00"
    ((_, end),), message = station.packet(b"\x01" + bytes(range(7)), 1)
    assert (end.hex(), message) == ("13070001ff001c00", (0x1C00, bytes(range(7))))
