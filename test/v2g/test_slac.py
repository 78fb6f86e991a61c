"""SLAC between our matcher (around pyslac) and the simulated vehicle, over the virtual link and its modem."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from robot_charger.common.plc_link import Frames, PlcLink, virtual_mac
from robot_charger.sim.plc import CM_ATTEN_PROFILE_IND, CM_SET_KEY_CNF, Modem, UnixPort
from robot_charger.sim.slac_ev import Behaviour, EvMatch, NoMatchError, SlacEv, Times
from robot_charger.v2g import slac
from robot_charger.v2g.slac import KeyNotSetError, Match, Matcher, SlacError

pytestmark = pytest.mark.integration

QUICK = Times(parm_attempts=20, rate=0.05)


class Hub:
    """The simulated modems in a thread of this process."""

    def __init__(self, directory: Path) -> None:
        self.modem = Modem()
        self.port = UnixPort(directory, 1)
        self.closed = threading.Event()
        self.seen: list[bytes] = []
        (directory / "plc1.json").write_text('{"transport": "virtual"}')
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        sides = {self.port.sockets[side].socket: side for side in ("evse", "ev")}
        while not self.closed.is_set():
            for sock in select.select(list(sides), [], [], 0.05)[0]:
                side = sides[sock]
                while (frame := self.port.receive(side)) is not None:
                    self.seen.append(frame)
                    self.port.forward(side, frame)
                    answer = self.modem.answer(side, frame)
                    if answer:
                        self.port.send(*answer)


@pytest.fixture
def hub(sim_directory: Path) -> Iterator[Hub]:
    hub = Hub(sim_directory)
    yield hub
    hub.closed.set()
    hub.thread.join()


def frames(side: str) -> Frames:
    return PlcLink.read(Path(os.environ["ROBOT_CHARGER_SIM"]), 1, side).frames()


def in_thread(*cars: SlacEv) -> tuple[list[threading.Thread], list[EvMatch | NoMatchError]]:
    results: list[EvMatch | NoMatchError] = []

    def go(car: SlacEv) -> None:
        try:
            results.append(car.match())
        except NoMatchError as error:
            results.append(error)

    threads = [threading.Thread(target=go, args=(car,)) for car in cars]
    for thread in threads:
        thread.start()
    return threads, results


async def match(matcher: Matcher, timeout_s: float = 10.0) -> Match:
    return await matcher.match(timeout_s)


@contextlib.asynccontextmanager
async def matching():
    matcher = Matcher("1", frames("evse"), 0.0)
    try:
        await matcher.set_key()
        yield matcher
    finally:
        matcher.close()


@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour(),
        Behaviour(garbage=True),
        Behaviour(sounds=6),
        Behaviour(start_over_after="parm"),
        Behaviour(start_over_after="start"),
        Behaviour(start_over_after="sounds"),
        Behaviour(start_over_after="attenuation"),
    ],
    ids=["good", "garbage", "lost sounds", "anew 1", "anew 2", "anew 3", "anew 4"],
)
def test_a_vehicle_is_matched(hub: Hub, behaviour: Behaviour) -> None:
    async def run() -> tuple[Match, list]:
        async with matching() as matcher:
            ev_frames = frames("ev")
            threads, results = in_thread(SlacEv(ev_frames, behaviour=behaviour, times=QUICK))
            found = await match(matcher)
            await asyncio.to_thread(threads[0].join)
            ev_frames.close()
            return found, results

    found, results = asyncio.run(run())
    assert isinstance(results[0], EvMatch), results
    assert found.vehicle_mac == virtual_mac("ev")
    assert found.seconds < 10.0
    assert found.attenuation_db == 10.0
    assert found.confirmed
    assert len(results[0].nmk) == 16 and len(results[0].nid) == 7


class Watched(SlacEv):
    """Notes what it hears of a match, and may lose the first confirmation or be slow to give its modem the key."""

    def __init__(self, *arguments, loses: int = 0, **named) -> None:
        super().__init__(*arguments, **named)
        self.loses = loses
        self.asked = 0

    def _send(self, destination: bytes, kind: int, body: bytes) -> None:
        self.asked += kind == slac.CM_SLAC_MATCH_REQ
        super()._send(destination, kind, body)

    def _wait(self, kind: int, is_mine, timeout_s: float):
        answer = super()._wait(kind, is_mine, timeout_s)
        if answer and kind == slac.CM_SLAC_MATCH_REQ + 1 and self.loses:
            self.loses -= 1
            return None
        return answer


def meet(hub: Hub, **vehicle) -> tuple[Match, EvMatch | NoMatchError, Watched]:
    """One match with a Watched vehicle."""

    async def run() -> tuple[Match, EvMatch | NoMatchError, Watched]:
        async with matching() as matcher:
            ev_frames = frames("ev")
            car = Watched(ev_frames, times=QUICK, **vehicle)
            threads, results = in_thread(car)
            found = await match(matcher)
            await asyncio.to_thread(threads[0].join)
            ev_frames.close()
            return found, results[0], car

    return asyncio.run(run())


def test_a_lost_confirmation_is_given_again(hub: Hub) -> None:
    """CM_SLAC_MATCH.CNF lost: the vehicle asks again, and is answered until its modem has joined."""
    found, result, car = meet(hub, loses=1)
    assert isinstance(result, EvMatch) and found.confirmed
    assert car.asked == 2


def test_a_modem_that_tells_nothing_of_the_link(hub: Hub) -> None:
    """Not every maker's does: the match alone counts."""
    hub.modem.tells_link = False
    found, result, _ = meet(hub)
    assert isinstance(result, EvMatch) and not found.confirmed


def test_a_vehicle_whose_modem_does_not_join(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """TT_match_join passes; the vehicle begins anew, and this time its modem finds the network."""
    monkeypatch.setattr(slac, "JOIN_S", 0.5)
    hub.modem.join = False

    async def run() -> tuple[str, Match]:
        async with matching() as matcher:
            ev_frames = frames("ev")
            threads, _ = in_thread(SlacEv(ev_frames, times=QUICK))
            with pytest.raises(SlacError) as refusal:
                await match(matcher, 0.3)
            await asyncio.to_thread(threads[0].join)
            hub.modem.join = True
            threads, _ = in_thread(SlacEv(ev_frames, times=QUICK))
            found = await match(matcher)
            await asyncio.to_thread(threads[0].join)
            ev_frames.close()
            return str(refusal.value), found

    text, found = asyncio.run(run())
    assert "did not join the network within 0.5 s" in text
    assert found.confirmed


def test_a_vehicle_that_begins_anew_instead_of_joining(hub: Hub) -> None:
    hub.modem.join = False

    async def run() -> Match:
        async with matching() as matcher:
            ev_frames = frames("ev")
            found = asyncio.ensure_future(match(matcher))
            for _ in range(2):
                threads, results = in_thread(SlacEv(ev_frames, times=QUICK))
                await asyncio.to_thread(threads[0].join)
                assert isinstance(results[0], EvMatch) and not found.done()
            hub.modem.join = True
            ev_frames.close()
            return await found

    assert asyncio.run(run()).confirmed


def test_a_second_match_uses_a_new_key(hub: Hub) -> None:
    async def run() -> list[EvMatch]:
        keys = []
        async with matching() as matcher:
            ev_frames = frames("ev")
            for _ in range(2):
                threads, results = in_thread(SlacEv(ev_frames, times=QUICK))
                await match(matcher)
                await asyncio.to_thread(threads[0].join)
                keys.append(results[0])
                await matcher.set_key()
            ev_frames.close()
        return keys

    first, second = asyncio.run(run())
    assert first.nmk != second.nmk
    assert first.nid != second.nid


def test_no_vehicle_then_one(hub: Hub) -> None:
    """After a time-out the next call matches (pyslac by itself never would again)."""

    async def run() -> Match:
        async with matching() as matcher:
            with pytest.raises(SlacError, match=r"no vehicle sent CM_SLAC_PARM\.REQ"):
                await match(matcher, 0.2)
            ev_frames = frames("ev")
            threads, _ = in_thread(SlacEv(ev_frames, behaviour=Behaviour(stop_after="sounds"), times=QUICK))
            with pytest.raises(SlacError, match="silent"):
                await match(matcher, 1.0)
            await asyncio.to_thread(threads[0].join)
            threads, _ = in_thread(SlacEv(ev_frames, times=QUICK))
            found = await match(matcher)
            await asyncio.to_thread(threads[0].join)
            ev_frames.close()
            return found

    assert asyncio.run(run()).seconds < 10.0


class Host(Frames):
    """One of several hosts behind the vehicle's side of the link: it hears what is for it."""

    def __init__(self, link: Frames, mac: bytes) -> None:
        self.link = link
        self.mac = mac
        self.heard, self.socket = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setblocking(False)

    def send(self, frame: bytes) -> bool:
        return self.link.send(frame)

    def close(self) -> None:
        super().close()
        self.heard.close()


def hand_out(link: Frames, hosts: list[Host], closed: threading.Event) -> None:
    """Every frame to the host it is for, until ``closed``."""
    while not closed.is_set():
        select.select([link.socket], [], [], 0.05)
        while (frame := link.receive()) is not None:
            for host in hosts:
                if frame[:6] == host.mac:
                    host.heard.send(frame)


@pytest.mark.parametrize("neighbours", [1, 4])
def test_neighbours_sound_at_the_same_time(hub: Hub, neighbours: int) -> None:
    """All sound at once and hear of their own attenuation; the one that is plugged in is matched."""
    started = threading.Barrier(neighbours + 1)

    class Punctual(SlacEv):
        def match(self, attempts: int = 1) -> EvMatch:
            return super().match(attempts)

        def _step(self, name: str) -> None:
            if name == "parm":
                started.wait(5.0)  # so that all of them sound together
            super()._step(name)

    async def run() -> tuple[Match, list, int]:
        async with matching() as matcher:
            link, closed = frames("ev"), threading.Event()
            macs = [virtual_mac("ev"), *(bytes.fromhex(f"02ec00000b0{n}") for n in range(neighbours))]
            hosts = [Host(link, mac) for mac in macs]
            hub.modem.far = {mac: 45 for mac in macs[1:]}
            pump = threading.Thread(target=hand_out, args=(link, hosts, closed))
            pump.start()
            threads, results = in_thread(*(Punctual(h, mac=h.mac, times=QUICK) for h in hosts))
            found = await match(matcher)
            for thread in threads:
                await asyncio.to_thread(thread.join)
            sessions = matcher.counters.sessions
            closed.set()
            pump.join()
            for host in hosts:
                host.close()
            link.close()
            return found, results, sessions

    found, results, sessions = asyncio.run(run())
    assert found.vehicle_mac == virtual_mac("ev")
    assert found.attenuation_db == 10.0  # nobody else's sounds are in it
    assert sessions == neighbours + 1
    matched = [r for r in results if isinstance(r, EvMatch)]
    refused = [str(r) for r in results if isinstance(r, NoMatchError)]
    assert len(matched) == 1
    assert len(refused) == neighbours
    assert set(refused) <= {"attenuation of 45 dB: not my outlet", "no CM_ATTEN_CHAR.IND"}  # the match may be first


def test_a_modem_that_confirms_no_key(hub: Hub) -> None:
    hub.modem.confirm_key = False

    async def run() -> None:
        matcher = Matcher("1", frames("evse"), 0.0)
        try:
            with pytest.raises(KeyNotSetError):
                await matcher.set_key(attempts=2, timeout_s=0.1)
            hub.modem.confirm_key = True
            await matcher.set_key()
            assert matcher.has_key
        finally:
            matcher.close()

    asyncio.run(run())


def test_lost_attenuation_profiles(hub: Hub) -> None:
    hub.modem.report_sounds = False

    async def run() -> None:
        async with matching() as matcher:
            ev_frames = frames("ev")
            threads, results = in_thread(SlacEv(ev_frames, times=Times(parm_attempts=3, rate=0.05)))
            with pytest.raises(SlacError, match="not one sound"):
                await match(matcher, 0.5)
            await asyncio.to_thread(threads[0].join)
            assert isinstance(results[0], NoMatchError)
            ev_frames.close()

    asyncio.run(run())


def test_the_key_is_never_logged(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def run() -> EvMatch:
        async with matching() as matcher:
            ev_frames = frames("ev")
            threads, results = in_thread(SlacEv(ev_frames, times=QUICK))
            await match(matcher)
            await asyncio.to_thread(threads[0].join)
            ev_frames.close()
            return results[0]

    found = asyncio.run(run())
    assert found.nmk.hex() not in caplog.text
    assert repr(found.nmk) not in caplog.text
    assert not [record for record in caplog.records if "slac" in record.name and record.levelno < logging.WARNING]


def test_validation_is_answered(hub: Hub) -> None:
    sent: list[bytes] = []

    async def run() -> None:
        async with matching() as matcher:
            matcher._frames.send = lambda frame: sent.append(frame) or True  # type: ignore[method-assign]
            matcher._listening = True
            body = bytes([0, 0, 0])
            matcher.on_frame(virtual_mac("evse") + virtual_mac("ev") + b"\x88\xe1\x01\x78\x60\0\0" + body + bytes(40))

    asyncio.run(run())
    assert sent[0][:6] == virtual_mac("ev")
    assert sent[0][15:17] == b"\x79\x60"
    assert sent[0][21] == slac.VALIDATE_NOT_REQUIRED


@settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.sampled_from(sorted(slac.LENGTHS)), st.booleans())
def test_any_frame_is_survived(garbage: bytes, kind: int, framed: bool) -> None:
    header = virtual_mac("evse") + virtual_mac("ev") + b"\x88\xe1\x01" + kind.to_bytes(2, "little") + b"\0\0"
    frame = header + garbage if framed else garbage
    found = slac.kind_of(frame)
    assert found == 0 or len(frame) >= slac.LENGTHS.get(found, slac.HEADER)
    answer = Modem().answer("ev", frame)
    if answer:
        assert int.from_bytes(answer[1][15:17], "little") in (CM_SET_KEY_CNF, CM_ATTEN_PROFILE_IND)
