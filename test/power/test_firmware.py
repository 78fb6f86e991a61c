"""Firmware over the bootloader's identifiers: blocks, CRC, resume, and never more than one module at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_charger.common.can_bus import frame_port, open_bus
from robot_charger.common.can_udp import free_block
from robot_charger.common.clock import SECOND
from robot_charger.power import codec
from robot_charger.power.firmware import ANSWERS, BLOCK, RESEND_NS, TRIES, Answer, Request, Update, run
from robot_charger.sim.rack.bootloader import Bootloader
from robot_charger.sim.rack.ek3 import Ek3Modules
from robot_charger.sim.rack.model import Rack

IMAGE = bytes(range(256)) * 3 + b"end"


@given(st.integers(1, 223), st.integers(1, 3), st.integers(0, 0xFFFF), st.binary(min_size=BLOCK, max_size=BLOCK))
def test_requests_and_answers_survive_the_bus_and_damage_does_not(
    address: int, command: int, block: int, data: bytes
) -> None:
    request = Request(address, command, block, data, 7)
    frame = bytearray(request.encode())
    assert Request.decode(bytes(frame)) == request
    frame[block % 62] ^= 1
    assert Request.decode(bytes(frame)) is None
    answer = Answer(command, 0, block, 0x101)
    assert Answer.decode(address, answer.encode(address)) == answer
    assert Answer.decode(address + 1, answer.encode(address)) is None


def drive(update: Update, bootloader: Bootloader, lost: set[int] = frozenset(), stop_at: int = 10**6) -> int:  # type: ignore[assignment]
    """Requests and answers until it ends or so many requests were sent; those numbered in ``lost`` are lost."""
    now = sent = 0
    while not update.ended and sent < stop_at:
        now += RESEND_NS
        request = update.step(now)
        if request is None:
            continue
        sent += 1
        if sent not in lost:
            answer = bootloader.answer(request.address - 1, request)
            if answer is not None:
                update.take(answer, now)
    return sent


def test_an_image_arrives_whole_in_spite_of_lost_frames() -> None:
    rack = Rack(3, [1])
    update = Update(2, IMAGE, 0x101)
    sent = drive(update, Bootloader(rack), lost={2, 3, 7})
    assert update.done and rack.firmware.tolist() == [0x100, 0x101, 0x100] and not rack.booting.any()
    assert sent == 1 + -(-len(IMAGE) // BLOCK) + 1 + 3


def test_a_transfer_that_broke_off_goes_on_where_it_stopped_and_the_module_serves_nobody_meanwhile() -> None:
    rack = Rack(3, [1])
    bootloader = Bootloader(rack)
    drive(Update(2, IMAGE, 0x101), bootloader, stop_at=9)
    rack.step(0.0, 0.01)
    assert rack.state.tolist() == [codec.State.STANDBY, codec.State.INIT, codec.State.STANDBY]
    again = Update(2, IMAGE, 0x101)
    assert drive(again, bootloader) < -(-len(IMAGE) // BLOCK) and again.done


def test_a_module_that_runs_is_left_alone_until_it_rests() -> None:
    rack = Rack(1, [1])
    bootloader = Bootloader(rack)
    rack.command(np.array([0]), np.array([400.0]), np.array([5.0]), np.array([True]), 0.0)
    update = Update(1, IMAGE, 0x101)
    drive(update, bootloader, stop_at=4)
    assert update.waited == 4 and not rack.booting.any()
    rack.command(np.array([0]), np.array([0.0]), np.array([0.0]), np.array([False]), 0.0)
    drive(update, bootloader)
    assert update.done


def test_a_wrong_image_is_refused_and_the_old_one_runs_on() -> None:
    rack = Rack(1, [1])
    update = Update(1, IMAGE, 0x101)
    bootloader = Bootloader(rack)
    drive(update, bootloader, stop_at=2)
    update.image = IMAGE[:BLOCK] + bytes(len(IMAGE) - BLOCK)
    drive(update, bootloader)
    assert update.ended and not update.done and rack.firmware[0] == 0x100 and not rack.booting.any()


def test_a_silent_module_ends_the_update() -> None:
    update = Update(1, IMAGE, 0x101)
    sent = [update.step(k * SECOND) for k in range(1, TRIES + 3)]
    assert sum(r is not None for r in sent) == TRIES and "does not answer" in update.ended
    with pytest.raises(ValueError, match="image"):
        Update(1, b"", 1)


def test_a_bank_is_updated_over_its_bus_one_module_at_a_time() -> None:
    import threading

    name = f"udp:{free_block()}"
    rack = Rack(3, [1])
    modules = Ek3Modules(rack, [name])
    port = frame_port(open_bus(name, can_filters=ANSWERS))
    most = 0
    stop = threading.Event()

    def live() -> None:
        nonlocal most
        while not stop.wait(0.001):
            modules.receive(0.0)
            most = max(most, int(rack.booting.sum()))

    thread = threading.Thread(target=live)
    thread.start()
    try:
        updates = list(run([port], 3, IMAGE[:200], 0x102))
    finally:
        stop.set()
        thread.join()
        port.close()
        modules.close()
    assert [u.done for u in updates] == [True] * 3 and rack.firmware.tolist() == [0x102] * 3
    assert most == 1
