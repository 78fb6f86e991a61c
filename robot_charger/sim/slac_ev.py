"""SLAC (ISO 15118-3 annex A) on the vehicle's side: what its HomePlug host says, for desks and tests.

:func:`match` goes the vehicle's way once; ``Behaviour`` names what a vehicle may do wrong. Times of the standard
stand in ``Times`` [s].
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from robot_charger.common.plc_link import Frames

BROADCAST = b"\xff" * 6
LOCAL_MODEM = bytes.fromhex("00b052000001")
HOMEPLUG = b"\x88\xe1"
SET_KEY_REQ, SET_KEY_CNF = 0x6008, 0x6009
SLAC_PARM_REQ, SLAC_PARM_CNF = 0x6064, 0x6065
START_ATTEN_CHAR_IND = 0x606A
ATTEN_CHAR_IND, ATTEN_CHAR_RSP = 0x606E, 0x606F
MNBC_SOUND_IND = 0x6076
SLAC_MATCH_REQ, SLAC_MATCH_CNF = 0x607C, 0x607D
SOUNDS = 10  # C_EV_match_MNBC
STARTS = 3  # C_EV_start_atten_char_inds


class NoMatchError(RuntimeError):
    """The vehicle found no EVSE; the text says at which step."""


@dataclass(frozen=True)
class Times:
    """ISO 15118-3 table A.1 [s]."""

    response: float = 0.2  # TT_match_response
    parm_attempts: int = 50  # until TT_EVSE_SLAC_init has surely passed
    batch: float = 0.02  # TP_EV_batch_msg_interval, 20 to 50 ms
    attenuation: float = 1.2  # TT_EV_atten_results
    match_attempts: int = 3  # C_EV_match_retry
    rate: float = 0.4  # TT_matching_rate


@dataclass
class Behaviour:
    """What a vehicle may do wrong."""

    sounds: int = SOUNDS  # fewer: it loses the others
    start_over_after: str = ""  # "parm", "start", "sounds": begins anew there, once
    stop_after: str = ""  # the same steps: falls silent
    refuse_attenuation: bool = False  # CM_ATTEN_CHAR.RSP with result 1
    wrong_run_id: bool = False  # in CM_SLAC_MATCH.REQ
    limit_db: float = 40.0  # attenuation above which it is a neighbour's outlet
    garbage: bool = False  # sends nonsense between its frames


@dataclass
class EvMatch:
    evse_mac: bytes
    nid: bytes
    nmk: bytes = field(repr=False, default=b"")
    seconds: float = 0.0
    attenuation_db: float = 0.0


def frame(destination: bytes, source: bytes, kind: int, body: bytes) -> bytes:
    return destination + source + HOMEPLUG + b"\x01" + kind.to_bytes(2, "little") + b"\x00\x00" + body


class SlacEv:
    """The vehicle's HomePlug host on ``frames``. Blocking; one thread."""

    def __init__(
        self,
        frames: Frames,
        mac: bytes | None = None,
        behaviour: Behaviour | None = None,
        times: Times | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self.frames = frames
        self.mac = mac or frames.mac
        self.behaviour = behaviour or Behaviour()
        self.times = times or Times()
        self._stopped = stopped

    def match(self, attempts: int = 3) -> EvMatch:
        """Go the whole way, again after a failure until ``attempts`` are used up. Raises NoMatchError."""
        reason = "stopped"
        for _ in range(attempts):
            if self._stopped():
                break
            try:
                return self._once()
            except NoMatchError as error:
                reason = str(error)
                time.sleep(self.times.rate)
        raise NoMatchError(reason)

    def _once(self) -> EvMatch:
        run_id = os.urandom(8)
        begun = time.monotonic()
        answer = None
        for _ in range(self.times.parm_attempts):
            self._send(BROADCAST, SLAC_PARM_REQ, b"\x00\x00" + run_id)
            answer = self._wait(SLAC_PARM_CNF, lambda f: f[36:44] == run_id, self.times.response)
            if answer or self._stopped():
                break
        if answer is None:
            raise NoMatchError("no EVSE answered CM_SLAC_PARM.REQ")
        evse = answer[6:12]
        self._step("parm")
        for _ in range(STARTS):
            body = b"\x00\x00" + bytes([SOUNDS, 6, 1]) + self.mac + run_id
            self._send(BROADCAST, START_ATTEN_CHAR_IND, body)
            time.sleep(self.times.batch)
        self._step("start")
        for left in range(self.behaviour.sounds - 1, -1, -1):
            body = b"\x00\x00" + bytes(17) + bytes([left]) + run_id + bytes(8) + os.urandom(16)
            self._send(BROADCAST, MNBC_SOUND_IND, body)
            time.sleep(self.times.batch)
        self._step("sounds")
        profile = self._wait(ATTEN_CHAR_IND, lambda f: f[27:35] == run_id, self.times.attenuation)
        if profile is None:
            raise NoMatchError("no CM_ATTEN_CHAR.IND")
        groups = profile[71 : 71 + profile[70]]
        attenuation = sum(groups) / len(groups) if groups else 255.0
        result = 1 if self.behaviour.refuse_attenuation else 0
        body = b"\x00\x00" + self.mac + run_id + bytes(34) + bytes([result])
        self._send(evse, ATTEN_CHAR_RSP, body)
        if result or attenuation > self.behaviour.limit_db:
            raise NoMatchError(f"attenuation of {attenuation:.0f} dB: not my outlet")
        self._step("attenuation")
        named = os.urandom(8) if self.behaviour.wrong_run_id else run_id
        for _ in range(self.times.match_attempts):
            body = b"\x00\x00\x3e\x00" + bytes(17) + self.mac + bytes(17) + evse + named + bytes(8)
            self._send(evse, SLAC_MATCH_REQ, body)
            answer = self._wait(SLAC_MATCH_CNF, lambda f: f[69:77] == named, self.times.response)
            if answer:
                match = EvMatch(evse, answer[85:92], answer[93:109], attenuation_db=attenuation)
                self._join(match)
                match.seconds = time.monotonic() - begun
                return match
        raise NoMatchError("no CM_SLAC_MATCH.CNF")

    def _join(self, match: EvMatch) -> None:
        """Give the vehicle's own modem the key of the EVSE's network."""
        body = b"\x01" + bytes(8) + b"\x04" + bytes(4) + match.nid + b"\x01" + match.nmk
        for _ in range(3):
            self._send(LOCAL_MODEM, SET_KEY_REQ, body)
            if self._wait(SET_KEY_CNF, lambda f: f[:6] == self.mac, self.times.response):
                return
        raise NoMatchError("the vehicle's modem did not confirm CM_SET_KEY")

    def _step(self, name: str) -> None:
        if self.behaviour.stop_after == name:
            raise NoMatchError(f"told to fall silent after {name}")
        if self.behaviour.start_over_after == name:
            self.behaviour.start_over_after = ""
            raise NoMatchError(f"told to begin anew after {name}")

    def _send(self, destination: bytes, kind: int, body: bytes) -> None:
        if self.behaviour.garbage:
            self.frames.send(frame(BROADCAST, self.mac, kind, os.urandom(3)))
            self.frames.send(os.urandom(40))
            self.frames.send(BROADCAST + self.mac + HOMEPLUG + os.urandom(46))
        self.frames.send(frame(destination, self.mac, kind, body))

    def _wait(self, kind: int, is_mine: Callable[[bytes], bool], timeout_s: float) -> bytes | None:
        """The first frame of ``kind`` that is for this vehicle, None after ``timeout_s``."""
        deadline = time.monotonic() + timeout_s
        while True:
            received = self.frames.receive()
            if received is None:
                left = deadline - time.monotonic()
                if left <= 0 or self._stopped():
                    return None
                select.select([self.frames.socket], [], [], min(left, 0.1))
                continue
            if len(received) < 60 or received[12:14] != HOMEPLUG or received[6:12] == self.mac:
                continue
            if int.from_bytes(received[15:17], "little") != kind or received[:6] != self.mac:
                continue
            if is_mine(received):
                return received
