"""The desk's CAN bus: the same body over python-can's virtual bus and ours, then what only ours does."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable, Iterator

import can
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_charger.common.can_bus import BusError, FramePort, _SocketCanPort, expand, frame_port, open_bus
from robot_charger.common.can_udp import FD_LENGTHS, SLOTS, UdpBus, free_block, messages

Opener = Callable[[], can.BusABC]


@pytest.fixture(params=["virtual", "udp"])
def opener(request: pytest.FixtureRequest) -> Iterator[Opener]:
    """Opens participants of one bus."""
    name = f"udp:{free_block()}" if request.param == "udp" else f"virtual:{request.node.name}"
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(open_bus(name))


FRAMES = st.one_of(
    st.builds(
        can.Message,
        arbitration_id=st.integers(0, 0x7FF),
        is_extended_id=st.just(False),
        data=st.binary(max_size=8),
    ),
    st.builds(can.Message, arbitration_id=st.integers(0, 0x1FFFFFFF), data=st.binary(max_size=8)),
    st.builds(
        can.Message,
        arbitration_id=st.integers(0, 0x7FF),
        is_extended_id=st.just(False),
        is_fd=st.just(True),
        bitrate_switch=st.booleans(),
        data=st.sampled_from(sorted(FD_LENGTHS)).map(bytes),
    ),
    st.builds(can.Message, arbitration_id=st.integers(0, 0x7FF), is_remote_frame=st.just(True), dlc=st.integers(0, 8)),
)


def test_every_frame_arrives_once_at_all_others_and_never_at_its_sender(opener: Opener) -> None:
    sender, first, second = opener(), opener(), opener()

    @settings(max_examples=50)
    @given(FRAMES)
    def check(frame: can.Message) -> None:
        sender.send(frame)
        for bus in (first, second):
            got = bus.recv(2.0)
            assert got is not None and got.equals(
                frame, timestamp_delta=None, check_channel=False, check_direction=False
            )
            assert bus.recv(0.0) is None
        assert sender.recv(0.0) is None

    check()


def test_order_is_kept_and_both_ways_work(opener: Opener) -> None:
    a, b = opener(), opener()
    for number in range(100):
        a.send(can.Message(arbitration_id=number, is_extended_id=False, data=[number]))
    assert [b.recv(2.0).arbitration_id for _ in range(100)] == list(range(100))  # type: ignore[union-attr]
    b.send(can.Message(arbitration_id=7, is_extended_id=False))
    answer = a.recv(2.0)
    assert answer is not None and answer.arbitration_id == 7


def test_filters_let_through_only_what_they_name(opener: Opener) -> None:
    a, b = opener(), opener()
    b.set_filters([{"can_id": 0x100, "can_mask": 0x700, "extended": False}])
    for identifier in (0x200, 0x123, 0x300):
        a.send(can.Message(arbitration_id=identifier, is_extended_id=False))
    got = b.recv(2.0)
    assert got is not None and got.arbitration_id == 0x123
    assert b.recv(0.05) is None


def test_batches_arrive_whole_over_any_bus(opener: Opener) -> None:
    a, b = frame_port(opener()), frame_port(opener())
    data = np.arange(303 * 16, dtype=np.uint32).astype(np.uint8).reshape(303, 16)
    assert a.write(np.arange(303), data)
    got = []
    while sum(len(batch) for batch in got) < 303:
        got += b.read()
    assert np.concatenate([batch.ids for batch in got]).tolist() == list(range(303))
    assert (np.concatenate([batch.data for batch in got]) == data).all()
    assert (a.frames_out, b.frames_in) == (303, 303)


def test_a_batch_longer_than_a_datagram_is_split() -> None:
    base = free_block()
    with UdpBus(base) as a, UdpBus(base) as b:
        a.send_batch(np.arange(2000) % 0x800, np.zeros((2000, 64), np.uint8))
        assert sum(len(batch) for batch in b.recv_batch(1.0)) == 2000


def test_a_participant_that_dies_and_one_that_joins_late_do_no_harm() -> None:
    base = free_block()
    frame = can.Message(arbitration_id=1, is_extended_id=False)
    with UdpBus(base) as a, UdpBus(base) as b:
        gone = UdpBus(base)
        gone.socket.close()  # died without a word
        a.send(frame)
        assert b.recv(1.0) is not None
        with UdpBus(base) as late:
            a.send(frame)
            assert late.recv(1.0) is not None and b.recv(1.0) is not None
        gone.shutdown = lambda: None  # type: ignore[method-assign]


def test_a_newcomer_is_heard_of_even_by_an_old_participant(monkeypatch: pytest.MonkeyPatch) -> None:
    base = free_block()
    frame = can.Message(arbitration_id=1, is_extended_id=False)
    with UdpBus(base) as a:
        a._opened -= 10.0
        with UdpBus(base) as b:
            assert a.recv(0.0) is None  # reads the hello, and answers it
            assert a._known == {("127.0.0.1", base + 1): ()}
            a.send(frame)
            assert b.recv(1.0) is not None
        a.recv(0.0)
        assert a._known == {}  # it said good-bye


def test_a_filter_spares_the_sender_the_datagram(monkeypatch: pytest.MonkeyPatch) -> None:
    base = free_block()
    with UdpBus(base) as a, UdpBus(base, can_filters=[{"can_id": 0x200, "can_mask": 0x700}]) as b:
        a.recv_batch(0.0)
        a._opened -= 10.0
        posted: list[int] = []
        monkeypatch.setattr(a, "_post", lambda datagram, peers: posted.append(len(list(peers))))
        a.send(can.Message(arbitration_id=0x1FF, is_extended_id=False))
        a.send(can.Message(arbitration_id=0x2FF, is_extended_id=False))
        a.send_batch(np.arange(0x100, 0x140), np.zeros((64, 8), np.uint8))
        a.send_batch(np.arange(0x1F0, 0x210), np.zeros((32, 8), np.uint8))  # some of it is wanted
        assert posted == [0, 1, 0, 1]
        b.set_filters(None)
        a.recv_batch(0.0)
        a.send(can.Message(arbitration_id=0x1FF, is_extended_id=False))
        assert posted[-1] == 1


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"hello",
        b"RCB1" + bytes(8) + b"more than the header tells",
        b"XXXX" + bytes(8),
        b"RCB1" + struct.pack("<BBHHH", 2, 0, 3, 8, 0) + bytes(16),  # three frames told, one there
        b"RCB1" + struct.pack("<BBHHH", 2, 0, 1, 200, 0) + bytes(208),  # stride of no CAN frame
        b"RCB1" + struct.pack("<BBHHH", 2, 0, 1, 8, 0) + struct.pack("<IBBH", 0x800, 0, 8, 0) + bytes(8),
        b"RCB1" + struct.pack("<BBHHH", 2, 0, 1, 16, 0) + struct.pack("<IBBH", 1, 8, 9, 0) + bytes(16),
        b"RCB1" + struct.pack("<BBHHH", 2, 0, 1, 16, 0) + struct.pack("<IBBH", 1, 0, 12, 0) + bytes(16),
    ],
)
def test_garbage_is_counted_and_survived(garbage: bytes) -> None:
    base = free_block()
    with UdpBus(base) as bus, UdpBus(base) as friend:
        if garbage[4:5] != b"\0":  # kind 0 is a hello and carries nothing
            friend.socket.sendto(garbage, ("127.0.0.1", base))
            assert bus.recv(0.05) is None
            assert bus.bad == 1
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            before = bus.bad
            stranger.sendto(garbage, ("127.0.0.1", base))
            assert bus.recv(0.05) is None
            assert bus.bad == before + 1
        friend.send(can.Message(arbitration_id=5, is_extended_id=False))
        got = bus.recv(1.0)
        assert got is not None and got.arbitration_id == 5


@pytest.fixture(scope="module")
def decoder() -> Iterator[UdpBus]:
    with UdpBus(free_block()) as bus:
        yield bus


@settings(max_examples=200)
@given(data=st.binary(max_size=300))
def test_no_datagram_breaks_the_decoder(decoder: UdpBus, data: bytes) -> None:
    peer = ("127.0.0.1", decoder.base + 1)
    batch = decoder._decode(data, peer)
    header = b"RCB1" + struct.pack("<BBHHH", 2, 1, len(data) // 24, 16, 0)
    framed = decoder._decode(header + data[: len(data) // 24 * 24], peer)
    for one in (batch, framed):
        if one is not None:
            assert len(messages(one)) == len(one)


def test_a_full_bus_and_impossible_names_are_told_in_one_sentence() -> None:
    base = free_block()
    with contextlib.ExitStack() as stack:
        for _ in range(SLOTS):
            stack.enter_context(UdpBus(base))
        with pytest.raises(BusError, match=f"all 8 places of the bus udp:{base} are taken"):
            open_bus(f"udp:{base}")
    for name in ("udp:", "udp:eth0", "udp:70000", "socketcan:nosuch0", "can0", "", "usb:1"):
        with pytest.raises(BusError) as caught:
            open_bus(name)
        assert "\n" not in str(caught.value) and len(str(caught.value)) > 20


def test_several_buses_by_one_name() -> None:
    assert expand("udp:42000*3") == ["udp:42000", "udp:42008", "udp:42016"]
    assert expand("socketcan:can0, socketcan:can1") == ["socketcan:can0", "socketcan:can1"]
    for bad in ("socketcan:can0*3", "udp:42000*0", "udp:42000*x", "udp:1,"):
        with pytest.raises(BusError):
            expand(bad)


def test_classic_bus_refuses_and_ignores_fd_frames() -> None:
    base = free_block()
    fd = can.Message(arbitration_id=1, is_extended_id=False, is_fd=True, data=bytes(16))
    with open_bus(f"udp:{base}", fd=False) as classic, open_bus(f"udp:{base}") as other:
        with pytest.raises(can.CanOperationError):
            classic.send(fd)
        other.send(fd)
        assert classic.recv(0.05) is None


def test_socketcan_frames_as_the_kernel_hands_them() -> None:
    ours, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    class Bus:
        socket = ours

    port: FramePort = _SocketCanPort(Bus())  # type: ignore[arg-type]
    kernel.send(struct.pack("<IBBH64s", 0x101, 16, 0x05, 0, bytes(range(64))))
    kernel.send(struct.pack("<IBBH8s", 0x80000000 | 0x18FF0001, 8, 0, 0, b"abcdefgh"))
    (batch,) = port.read()
    fd, classic = messages(batch)
    assert (fd.arbitration_id, fd.is_fd, bytes(fd.data)) == (0x101, True, bytes(range(16)))
    assert (classic.arbitration_id, classic.is_fd, classic.is_extended_id) == (0x18FF0001, False, True)
    assert bytes(classic.data) == b"abcdefgh"
    assert port.write([0x201], np.arange(8, dtype=np.uint8)[None])
    assert kernel.recv(72) == struct.pack("<IBBH64s", 0x201, 8, 0x05, 0, bytes(range(8)))
    ours.close()
    kernel.close()
