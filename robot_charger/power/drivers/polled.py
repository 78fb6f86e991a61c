"""Modules that speak only when they are asked, on a classic CAN bus with 29-bit identifiers: all but the bytes.

A protocol is a subclass with four methods (``switch``, ``setpoint``, ``poll``, ``heard``) and a table of what to ask
how often; docs/adding-a-module.md writes one. Here is what they share:

- pace: never two frames of ours within ``contract.spacing_s`` on one bus, except "off", which leaves at once;
- state: on, voltage and current of a module are sent when they change, and all of it again every REFRESH_S, for a
  frame may be lost and a module may have started again;
- order: voltage before a rising current, a falling current before the voltage, set-points before "on";
- liveness: a module that answers lives; a silent one is asked on, so that it comes back by itself.

Only the control cycle sends: when it ends, nothing more leaves and the modules' hold time runs.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from dataclasses import dataclass

import numpy as np

from robot_charger.common.clock import SECOND
from robot_charger.power import codec
from robot_charger.power.bank import Bank
from robot_charger.power.contract import CYCLE_S, Contract
from robot_charger.power.drivers import Frames, ModuleDriver

Frame = tuple[int, bytes]  # 29-bit identifier, eight bytes
REFRESH_S = 2.0
SILENT_TIMES = 3.0  # a silent module is asked so many times more rarely: its bus has others
HEAD_START = 2  # frames
SETPOINTS_A_POLL = 2  # of two sets of set-points that wait, one question goes between
MOVED_V, MOVED_A, MOVED = 0.5, 0.05, 0.002  # a set-point that moved less is not sent again before its refresh


@dataclass(frozen=True)
class Question:
    """Something to ask a module for, and how often [s]."""

    name: str
    period_s: float


class Line:
    """One bus: what waits, and when the next frame may leave."""

    def __init__(self, modules: range) -> None:
        self.modules = modules
        self.waiting: deque[tuple[int, Frame]] = deque()  # module, frame
        self.next_ns = 0
        self.turns = 0  # set-points since the last question


class PolledDriver(ModuleDriver):
    """See the module's docstring. ``i`` is a module's index in the bank."""

    QUESTIONS: tuple[Question, ...] = ()
    extended = True

    def __init__(self, bank: Bank, contract: Contract) -> None:
        super().__init__(bank, first_port=1)
        self.contract = contract
        n = bank.count
        self.lines = [Line(range(int(bank.first[b]), int(bank.first[b + 1]))) for b in range(bank.buses)]
        self.sent_on = np.ones(n, bool)  # unknown: the first word to every module is "off"
        self.sent_v = np.full(n, -1.0)
        self.sent_a = np.full(n, -1.0)
        self._sent_ns = np.zeros(n, np.int64)
        self._due_ns = np.zeros((n, len(self.QUESTIONS)), np.int64)
        self._spacing_ns = int(contract.spacing_s * SECOND)
        self._burst = max(1, round(CYCLE_S / contract.spacing_s)) if contract.spacing_s else 8
        bank.state[:] = codec.State.STANDBY

    # What a protocol is.

    @abstractmethod
    def switch(self, i: int, on: bool) -> list[Frame]:
        """Frames that switch a module on or off."""

    @abstractmethod
    def setpoint(self, i: int, voltage_v: float, current_a: float) -> list[Frame]:
        """Frames with its set-point, voltage first."""

    @abstractmethod
    def poll_frame(self, i: int, question: str) -> Frame:
        """The frame that asks it this."""

    @abstractmethod
    def heard(self, identifier: int, data: bytes, bus: int, now_ns: int) -> bool:
        """Take an answer into the bank. False: it is none."""

    # What they share.

    def module(self, bus: int, address: int) -> int:
        """Index of the module with this address on this bus, -1 when the bank has none."""
        index = int(self.bank.first[bus]) + address - self.contract.first_address
        return index if index in self.lines[bus].modules else -1

    def alive(self, i: int, bus: int, now_ns: int) -> None:
        """It answered."""
        self.bank.heard[i] = now_ns
        self.bank.bus_heard[bus] = now_ns

    def take(self, bus: int, ids: np.ndarray, lengths: np.ndarray, data: np.ndarray, now_ns: int) -> np.ndarray:
        mine = np.zeros(len(ids), bool)
        for k, identifier in enumerate(ids.tolist()):
            if lengths[k] == 8:
                mine[k] = self.heard(identifier, data[k, :8].tobytes(), bus, now_ns)
        return mine

    def poll(self, now_ns: int) -> None:
        if not self.contract.echo:
            self.bank.echo[:] = self.bank.command_a  # nothing is echoed: what was sent counts as obeyed

    def may_run(self, i: int, now_ns: int) -> bool:
        """Whether the module may be on now; a change of range forbids it for a while."""
        return True

    def special(self, i: int, now_ns: int) -> list[Frame]:
        """Frames that this module needs before anything else now."""
        return []

    def frames(self, now_ns: int, counter: int) -> list[Frames]:
        out: list[Frames] = []
        for bus, line in enumerate(self.lines):
            leaving = self._off_at_once(line, now_ns)
            for _ in range(self._burst):
                if now_ns < line.next_ns:
                    break
                frame = self._next(line, now_ns)
                if frame is None:
                    break
                leaving.append(frame)
                line.next_ns = now_ns + self._spacing_ns if self._burst == 1 else now_ns
            if leaving:
                ids = np.array([identifier for identifier, _ in leaving], np.int64)
                out.append((self.first_port + bus, ids, codec.rows([data for _, data in leaving])))
        return out

    def _off_at_once(self, line: Line, now_ns: int) -> list[Frame]:
        """ "Off" waits for nothing; what was to be sent to that module is not sent any more."""
        part = slice(line.modules.start, line.modules.stop)
        ended = np.flatnonzero(self.sent_on[part] & ~self.bank.enable[part]) + part.start
        leaving: list[Frame] = []
        for i in ended.tolist():
            line.waiting = deque(w for w in line.waiting if w[0] != i)
            leaving += self.switch(i, False)
            self.sent_on[i] = False
            self._sent_ns[i] = now_ns
        return leaving

    def _next(self, line: Line, now_ns: int) -> Frame | None:
        if not line.waiting:
            self._refill(line, now_ns)
        return line.waiting.popleft()[1] if line.waiting else None

    def _refill(self, line: Line, now_ns: int) -> None:
        """Put the next module's set-points, or the next question, into the queue."""
        i = self._moved(line, now_ns)
        if i is not None and line.turns < SETPOINTS_A_POLL:
            line.turns += 1
            line.waiting += [(i, f) for f in self._state(i, now_ns)]
            return
        line.turns = 0
        due = self._due_ns[line.modules.start : line.modules.stop]
        if due.size and due.min() <= now_ns:
            row, column = np.unravel_index(int(due.argmin()), due.shape)
            asked = line.modules.start + int(row)
            question = self.QUESTIONS[int(column)]
            times = SILENT_TIMES if self.bank.silent[asked] and self.bank.heard[asked] else 1.0
            self._due_ns[asked, int(column)] = now_ns + int(question.period_s * times * SECOND)
            line.waiting.append((asked, self.poll_frame(asked, question.name)))
        elif i is not None:
            line.waiting += [(i, f) for f in self._state(i, now_ns)]

    def _moved(self, line: Line, now_ns: int) -> int | None:
        """The module whose state is to be sent next: falling currents first, then who waits longest."""
        bank, part = self.bank, slice(line.modules.start, line.modules.stop)
        on, since = bank.enable[part], self._sent_ns[part]
        fall_a = self.sent_a[part] - bank.command_a[part]
        far_a = np.abs(fall_a) > np.maximum(MOVED_A, MOVED * self.sent_a[part])
        far_v = np.abs(bank.command_v[part] - self.sent_v[part]) > MOVED_V
        changed = on & (far_v | far_a | ~self.sent_on[part])
        moved = changed | (now_ns - since > REFRESH_S * SECOND)
        if not moved.any():
            return None
        # A falling current goes before a rising one that does not wait for longer; what did not change comes last.
        order = since - np.where(on & (fall_a > MOVED_A), HEAD_START * self._spacing_ns, 0) + ~changed * 2 * SECOND
        order = np.where(moved, order, np.iinfo(np.int64).max)
        return line.modules.start + int(np.argmin(order))

    def _state(self, i: int, now_ns: int) -> list[Frame]:
        """What a module is to know now, in the safe order: what changed, or all of it after a while."""
        bank = self.bank
        stale = now_ns - self._sent_ns[i] > REFRESH_S * SECOND
        self._sent_ns[i] = now_ns
        frames = self.special(i, now_ns)
        if not bank.enable[i] or not self.may_run(i, now_ns):
            self.sent_on[i] = False
            return frames + self.switch(i, False)
        volts, amperes = float(bank.command_v[i]), float(bank.command_a[i])
        setpoints = self.setpoint(i, volts, amperes)
        starts = not self.sent_on[i]
        if len(setpoints) > 1 and not (starts or stale):
            moved = (abs(volts - self.sent_v[i]) > MOVED_V, abs(amperes - self.sent_a[i]) > MOVED_A)
            kept = [frame for frame, far in zip(setpoints, moved, strict=True) if far]
            setpoints = (kept if amperes >= self.sent_a[i] else kept[::-1]) or setpoints
        self.sent_v[i], self.sent_a[i], self.sent_on[i] = volts, amperes, True
        return frames + setpoints + (self.switch(i, True) if starts or stale else [])
