"""SLAC (ISO 15118-3 annex A) on the EVSE side, around pyslac.

One :class:`Matcher` owns the link's frames and gives every vehicle that asks (CM_SLAC_PARM.REQ) a pyslac
session of its own, so that several vehicles may sound at once and a vehicle may begin anew at any moment; the
first to reach CM_SLAC_MATCH.REQ is the one that is plugged in. The modem is then asked until it sees the vehicle's
modem in its network. What pyslac 0.8.3 does wrong is put right here:
sockets and the settle time are ours, the key's confirmation is verified, a reset keeps our MAC and the groups,
time-outs end a session and nothing else, and nothing of it is logged (it logs the key).
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
import types
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from robot_charger.common.plc_link import Frames
from robot_charger.v2g.quiet import quiet_import


@dataclass
class Config:
    """The settings of a pyslac session, in the place of pyslac's own, which reads ``.env`` with two packages more."""

    slac_init_timeout: float = 50.0
    slac_atten_results_timeout: int | None = None  # milliseconds; None: as long as the sounds last


_environment = types.ModuleType("pyslac.environment")
_environment.Config = Config  # type: ignore[attr-defined]
sys.modules.setdefault("pyslac.environment", _environment)

with quiet_import():  # pyslac reconfigures logging
    from pyslac import session as pyslac_session
    from pyslac import utils as pyslac_utils
    from pyslac.enums import EVSE_PLC_MAC, SLAC_GROUPS, STATE_MATCHED, STATE_UNMATCHED
    from pyslac.sockets import async_linux_socket as pyslac_socket

# pyslac writes the network key at DEBUG. Its loggers are replaced, not only disabled: another package's
# logging.config.fileConfig would enable them again.
_mute = logging.Logger("pyslac", logging.CRITICAL + 1)
_mute.disabled = True
for _module in (pyslac_session, pyslac_utils, pyslac_socket):
    _module.logger = _mute
pyslac_session.SLAC_SETTLE_TIME = 0  # ours is a parameter

log = logging.getLogger(__name__)

# HomePlug Green PHY management messages: base | REQ 0, CNF 1, IND 2, RSP 3.
CM_SET_KEY_CNF = 0x6009
CM_SLAC_PARM_REQ = 0x6064
CM_START_ATTEN_CHAR_IND = 0x606A
CM_ATTEN_CHAR_RSP = 0x606F
CM_MNBC_SOUND_IND = 0x6076
CM_VALIDATE_REQ = 0x6078
CM_VALIDATE_CNF = 0x6079
CM_SLAC_MATCH_REQ = 0x607C
CM_ATTEN_PROFILE_IND = 0x6086
# Qualcomm's own, with its OUI between header and body: does the modem see another one in its network?
VS_LINK_STATUS_REQ, VS_LINK_STATUS_CNF = 0xA0B8, 0xA0B9
VENDOR = b"\x00\xb0\x52"
LOCAL_MODEM = VENDOR + b"\x00\x00\x01"

# Shortest frame of each kind that can be parsed without running off its end [bytes].
LENGTHS = {
    CM_SET_KEY_CNF: 33,
    CM_SLAC_PARM_REQ: 29,
    CM_START_ATTEN_CHAR_IND: 38,
    CM_ATTEN_CHAR_RSP: 70,
    CM_MNBC_SOUND_IND: 71,
    CM_VALIDATE_REQ: 22,
    CM_SLAC_MATCH_REQ: 85,
    CM_ATTEN_PROFILE_IND: 27,
    VS_LINK_STATUS_CNF: 22,
}
HEADER = 19  # Ethernet 14, HomePlug 5
# Where the run id stands; a frame of another run is not for this session [first byte].
RUN_ID_AT = {CM_START_ATTEN_CHAR_IND: 30, CM_ATTEN_CHAR_RSP: 27, CM_MNBC_SOUND_IND: 39, CM_SLAC_MATCH_REQ: 69}
NOTHING = bytes(12) + b"\x88\xe1\x01" + bytes(45)  # a HomePlug frame that says nothing
VALIDATE_NOT_REQUIRED = 0x04  # CM_VALIDATE.CNF result: we tell vehicles apart by attenuation alone
MAX_VEHICLES = 8  # sessions at once; more are refused until one ends
JOIN_S = 12.0  # TT_match_join: from CM_SLAC_MATCH.CNF to the link
JOIN_POLL_S = 0.1
JOIN_SILENT = 5  # questions in a row without an answer: this modem knows none


class SlacError(RuntimeError):
    """SLAC cannot go on; the text says why."""


class KeyNotSetError(SlacError):
    """The modem did not confirm CM_SET_KEY."""


def kind_of(frame: bytes) -> int:
    """Message type of a HomePlug frame, 0 when it is none or too short for its type."""
    if len(frame) < HEADER or frame[12:14] != b"\x88\xe1":
        return 0
    kind = int.from_bytes(frame[15:17], "little")
    vendors = kind == VS_LINK_STATUS_CNF
    if frame[14] != (0x00 if vendors else 0x01) or len(frame) < LENGTHS.get(kind, 0):
        return 0
    if vendors and frame[17:20] != VENDOR:
        return 0
    if kind == CM_ATTEN_PROFILE_IND and (frame[25] > SLAC_GROUPS or len(frame) < 27 + frame[25]):
        return 0
    return kind


@dataclass
class Match:
    """A vehicle that is matched."""

    vehicle_mac: bytes
    seconds: float  # CM_SLAC_PARM.REQ received to the link, or to CM_SLAC_MATCH.CNF sent if the modem does not tell
    confirmed: bool  # the modem sees the vehicle's in its network
    attenuation_db: float  # mean over the groups


@dataclass
class Counters:
    frames_in: int = 0
    frames_bad: int = 0  # too short or not HomePlug
    frames_ignored: int = 0  # nobody here waits for them
    sessions: int = 0
    sessions_failed: int = 0
    keys_set: int = 0
    last_failure: str = ""
    attenuation_db: list[float] = field(default_factory=list)


class _Session(pyslac_session.SlacEvseSession):
    """One vehicle's pyslac session, fed with its frames by the matcher instead of a socket of its own."""

    def __init__(self, name: str, send: Callable[[bytes], bool], mac: bytes) -> None:
        # Not the parent's constructor: it opens a socket and asks the system for the MAC.
        self.iface = ""
        self.evse_id = name
        self.config = Config()
        self.evse_plc_mac = EVSE_PLC_MAC
        self.frames: asyncio.Queue[bytes] = asyncio.Queue(maxsize=64)
        self.wanted_run_id = b""
        self._sounds_end: float | None = None
        self._send = send
        self.last_sent = b""
        pyslac_session.SlacSession.__init__(self, state=STATE_UNMATCHED, evse_mac=mac)

    def reset_socket(self) -> None:
        """The parent reopens its socket to drop old frames; the matcher gave us only what is ours."""

    async def send_frame(self, frame_to_send: bytes) -> None:
        self.last_sent = bytes(frame_to_send)
        if not self._send(self.last_sent):
            raise SlacError("the PLC link took no frame")

    async def rcv_frame(self, rcv_frame_size: int, timeout: float) -> bytes:
        if self._sounds_end is not None:
            timeout = min(timeout, max(0.0, self._sounds_end - time.monotonic()))
        try:
            return await asyncio.wait_for(self.frames.get(), float(timeout))
        except (TimeoutError, asyncio.TimeoutError):
            if self._sounds_end is None:
                raise
            return NOTHING  # lets the parent look at the clock

    async def cm_sounds_loop(self) -> None:
        """As the parent, but lost sounds end it after TT_EVSE_match_MNBC instead of failing the session."""
        self._sounds_end = time.monotonic() + self.time_out_ms / 1000 + 0.002
        try:
            await super().cm_sounds_loop()
        finally:
            self._sounds_end = None
        if not self.num_total_sounds:
            raise SlacError("not one sound of the vehicle was heard")


class Matcher:
    """SLAC on one link. All methods run in one event loop.

    ``settle_s``: pause after the modem took a new key. ``set_key()`` before the first match and after each
    session; ``match()`` waits for a vehicle; ``progress`` is called when the first frame of one arrives.
    """

    def __init__(self, name: str, frames: Frames, settle_s: float) -> None:
        self.name = name
        self.counters = Counters()
        self._frames = frames
        self._settle_s = settle_s
        self._nid = b""
        self._nmk = b""
        self._sessions: dict[bytes, tuple[_Session, asyncio.Task[Match], float]] = {}
        self._finished: asyncio.Queue[Match | BaseException] = asyncio.Queue()
        self._listening = False
        self._matched: _Session | None = None  # while its link is awaited
        self._vehicle = b""  # MAC of the vehicle that joined
        self._anew = b""  # its CM_SLAC_PARM.REQ since then
        self._joined: asyncio.Queue[bool] = asyncio.Queue(maxsize=4)
        self._confirmed: asyncio.Queue[bytes] = asyncio.Queue(maxsize=4)
        self._mac = frames.mac
        asyncio.get_running_loop().add_reader(frames.socket.fileno(), self._on_readable)

    @property
    def has_key(self) -> bool:
        return bool(self._nmk)

    @property
    def begun_anew(self) -> bool:
        """The vehicle that joined wants to be matched again."""
        return bool(self._anew)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._frames.socket.fileno())
        self.forget()
        self._frames.close()

    def carrier(self) -> bool:
        return self._frames.carrier()

    async def set_key(self, attempts: int = 3, timeout_s: float = 1.0) -> None:
        """Give the modem a new random key, verified and retried. Raises KeyNotSetError.

        A new key is also what puts the last vehicle out of the network (ISO 15118-3, 9.6).
        """
        self._vehicle = self._anew = b""
        for _ in range(attempts):
            while not self._confirmed.empty():
                self._confirmed.get_nowait()
            session = _Session(self.name, self._frames.send, self._mac)
            session.frames = self._confirmed
            try:
                await asyncio.wait_for(session.evse_set_key(), timeout_s)
            except (TimeoutError, asyncio.TimeoutError, SlacError, ValueError):
                continue
            self._nid, self._nmk = session.nid, session.nmk
            self.counters.keys_set += 1
            if self._settle_s:
                await asyncio.sleep(self._settle_s)
            return
        raise KeyNotSetError(f"the PLC modem did not confirm CM_SET_KEY in {attempts} attempts")

    async def match(self, timeout_s: float, progress: Callable[[], None] = lambda: None) -> Match:
        """Wait until a vehicle is matched and joined. Raises SlacError when none is within ``timeout_s``.

        The time counts from here or, while vehicles keep beginning anew, from their last beginning.
        """
        self.forget()
        self._listening = True
        anew, self._anew, self._vehicle = self._anew, b"", b""
        if anew:
            self.on_frame(anew)
        deadline = time.monotonic() + timeout_s
        begun = self.counters.sessions
        try:
            while True:
                if self.counters.sessions != begun:
                    begun = self.counters.sessions
                    progress()
                if not self._sessions and time.monotonic() > deadline:
                    what = self.counters.last_failure or "no vehicle sent CM_SLAC_PARM.REQ"
                    raise SlacError(f"not matched within {timeout_s:g} s: {what}")
                try:
                    end = await asyncio.wait_for(self._finished.get(), 0.1)
                except (TimeoutError, asyncio.TimeoutError):
                    continue
                if isinstance(end, Match):
                    try:
                        joined = await self._join(end)
                        self._vehicle = joined.vehicle_mac
                        return joined
                    except SlacError as error:
                        end = error
                self.counters.sessions_failed += 1
                self.counters.last_failure = str(end) or type(end).__name__
        finally:
            self._listening = False
            self.forget()

    async def _join(self, match: Match) -> Match:
        """Ask the modem until the vehicle's is in its network (TT_match_join). Raises SlacError when it does not come.

        A modem that answers no such question (not a Qualcomm one) leaves the match unconfirmed.
        """
        begun = time.monotonic()
        request = LOCAL_MODEM + self._mac + b"\x88\xe1\x00" + VS_LINK_STATUS_REQ.to_bytes(2, "little") + VENDOR
        unanswered = 0
        while not self._joined.empty():
            self._joined.get_nowait()
        while time.monotonic() - begun < JOIN_S:
            if match.vehicle_mac in self._sessions:
                raise SlacError("the vehicle began anew after the match")
            self._frames.send(request)
            asked = time.monotonic()
            try:
                linked = await asyncio.wait_for(self._joined.get(), JOIN_POLL_S)
            except (TimeoutError, asyncio.TimeoutError):
                unanswered += 1
                if unanswered == JOIN_SILENT:
                    return match
                continue
            if linked:
                return replace(match, seconds=match.seconds + time.monotonic() - begun, confirmed=True)
            unanswered = 0
            await asyncio.sleep(max(0.0, asked + JOIN_POLL_S - time.monotonic()))
        raise SlacError(f"the vehicle's modem did not join the network within {JOIN_S:g} s of the match")

    def forget(self) -> None:
        """Drop every session that is not matched."""
        for _, task, _ in self._sessions.values():
            task.cancel()
        self._sessions.clear()
        self._matched = None
        while not self._finished.empty():
            self._finished.get_nowait()

    def _on_readable(self) -> None:
        for _ in range(64):
            frame = self._frames.receive()
            if frame is None:
                return
            self.on_frame(frame)

    def on_frame(self, frame: bytes) -> None:
        """Give one received frame to whom it concerns; anything else is counted."""
        self.counters.frames_in += 1
        kind = kind_of(frame)
        if kind == 0:
            self.counters.frames_bad += 1
            return
        source = frame[6:12]
        if kind == CM_SET_KEY_CNF:
            if frame[:6] == self._mac and not self._confirmed.full():
                self._confirmed.put_nowait(frame)
            return
        if kind == VS_LINK_STATUS_CNF:
            if frame[:6] == self._mac and frame[20] == 0 and not self._joined.full():
                self._joined.put_nowait(frame[21] == 1)
            return
        if not self._listening and kind == CM_SLAC_PARM_REQ and source == self._vehicle:
            self._anew = frame
            return
        if not self._listening:
            self.counters.frames_ignored += 1
            return
        if kind == CM_SLAC_PARM_REQ:
            self._begin(source, frame)
            return
        if kind == CM_VALIDATE_REQ:
            self._frames.send(
                source
                + self._mac
                + b"\x88\xe1\x01"
                + CM_VALIDATE_CNF.to_bytes(2, "little")
                + b"\x00\x00"
                + bytes([frame[19], 0, VALIDATE_NOT_REQUIRED])
            )
            return
        vehicle = frame[19:25] if kind == CM_ATTEN_PROFILE_IND else source
        known = self._sessions.get(vehicle)
        at = RUN_ID_AT.get(kind)
        run_id = frame[at : at + 8] if at else b""
        if known is None and kind == CM_SLAC_MATCH_REQ and self._confirm_again(vehicle, run_id):
            return
        if known is None or known[0].frames.full() or (at and run_id != known[0].wanted_run_id):
            self.counters.frames_ignored += 1
            return
        known[0].frames.put_nowait(frame)

    def _confirm_again(self, vehicle: bytes, run_id: bytes) -> bool:
        """Our CM_SLAC_MATCH.CNF was lost: the vehicle that is matched asks again."""
        matched = self._matched
        if matched is None or (bytes(matched.pev_mac), matched.wanted_run_id) != (vehicle, run_id):
            return False
        return self._frames.send(matched.last_sent)

    def _begin(self, vehicle: bytes, frame: bytes) -> None:
        known = self._sessions.pop(vehicle, None)
        if known is not None:
            if known[0].wanted_run_id == frame[21:29] and known[0].num_expected_sounds is None:
                self._sessions[vehicle] = known  # the same request repeated before we answered
                return
            known[1].cancel()
        if len(self._sessions) >= MAX_VEHICLES:
            self.counters.frames_ignored += 1
            return
        self.counters.sessions += 1
        session = _Session(self.name, self._frames.send, self._mac)
        session.nid, session.nmk = self._nid, self._nmk
        session.wanted_run_id = frame[21:29]
        session.frames.put_nowait(frame)
        task = asyncio.get_running_loop().create_task(self._run(session, time.monotonic()))
        task.add_done_callback(lambda done: self._on_done(vehicle, done))
        self._sessions[vehicle] = (session, task, time.monotonic())

    def _on_done(self, vehicle: bytes, task: asyncio.Task[Match]) -> None:
        known = self._sessions.get(vehicle)
        if known is not None and known[1] is task:
            del self._sessions[vehicle]
        if not task.cancelled():
            self._finished.put_nowait(task.exception() or task.result())

    async def _run(self, session: _Session, begun: float) -> Match:
        try:
            await session.evse_slac_parm()
            await session.atten_charac_routine()
        except (TimeoutError, asyncio.TimeoutError) as error:
            raise SlacError("the vehicle fell silent during SLAC") from error
        except (ValueError, IndexError, OverflowError, TypeError) as error:
            raise SlacError(f"SLAC message refused: {error}") from error
        if session.state != STATE_MATCHED:
            raise SlacError("SLAC ended without a match")
        attenuation = sum(session.aag) / len(session.aag)
        self._matched = session
        self.counters.attenuation_db = [float(value) for value in session.aag]
        return Match(bytes(session.pev_mac), time.monotonic() - begun, False, attenuation)
