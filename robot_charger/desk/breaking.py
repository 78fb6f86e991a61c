"""Ways to break a part of a desk station: each ``begin``s, goes on for ``lasts_s`` and ``end``s."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import socket
import time
from typing import TYPE_CHECKING, Any

import can

from robot_charger.common.can_bus import expand, open_bus
from robot_charger.desk.promises import CUT, FREEZE, GARBAGE, GBT, KILL, SELF_TEST, SLOW

if TYPE_CHECKING:
    from robot_charger.desk.simulation import Simulation

FROZEN_S, VEHICLE_FROZEN_S, SLOW_S, CUT_S, GARBAGE_S, FULL_S = 3.0, 8.0, 4.0, 4.0, 3.0, 5.0
RUNS_S, SLEEPS_S = 0.15, 0.6  # of a slow process
BURST = 10  # frames of garbage at a time
LAST_STANDARD_ID = 0x7FF
# Of a vehicle, and of no use with less than four bytes.
CHADEMO_IDS = (0x100, 0x101, 0x102)
GBT_IDS = (0x1C0656F4, 0x181056F4, 0x181356F4, 0x101956F4, 0x1CEC56F4, 0x1CEB56F4)
# A link's name in its simulator's own list of faults.
LINKS = {"sim_csms": ("csms", "csms-gone"), "sim_plc": ("plc{n}", "link-down")}


class Breaker:
    """Something that breaks. The base does nothing."""

    lasts_s = 0.0

    def begin(self) -> None:
        """Break it."""

    def go_on(self) -> None:
        """Called again and again until ``lasts_s``."""

    def end(self) -> None:
        """Mend it, as far as this is ours to do. May be called twice."""

    def recovered(self) -> bool:
        """It works again."""
        return True


class Kill(Breaker):
    """kill -9. A node is started again by the station, a simulator is not."""

    def __init__(self, station: Simulation, target: str) -> None:
        self._station, self._target = station, target

    def begin(self) -> None:
        child = self._station.processes.children[self._target]
        self._before = self._diagnosis()
        if self._target.startswith("sim_"):
            child.ended = True
        child.process.kill()

    def recovered(self) -> bool:
        """The successor says on /diagnostics that it is active; of a simulator there is none."""
        if self._target.startswith("sim_"):
            return True
        status = self._diagnosis()
        return status is not None and status is not self._before and status.message != "not active"

    def _diagnosis(self) -> Any:
        with self._station.observer.lock:
            return self._station.observer.diagnostics.get(self._target)


class Freeze(Breaker):
    def __init__(self, pid: int, lasts_s: float) -> None:
        self._pid, self.lasts_s = pid, lasts_s

    def begin(self) -> None:
        os.kill(self._pid, signal.SIGSTOP)

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGCONT)


class Slow(Freeze):
    """Stopped and let run in turn."""

    def begin(self) -> None:
        self._runs, self._until = True, 0.0

    def go_on(self) -> None:
        now = time.monotonic()
        if now < self._until:
            return
        self._runs = not self._runs
        self._until = now + (RUNS_S if self._runs else SLEEPS_S)
        os.kill(self._pid, signal.SIGCONT if self._runs else signal.SIGSTOP)


class Simulated(Breaker):
    """A fault that a simulator knows by name."""

    def __init__(self, station: Simulation, simulator: str, name: str, lasts_s: float) -> None:
        self._station, self._simulator, self._name, self.lasts_s = station, simulator, name, lasts_s

    def begin(self) -> None:
        self._station.tell(self._simulator, fault=self._name, on=True)

    def end(self) -> None:
        self._station.tell(self._simulator, fault=self._name, on=False)


class CanGarbage(Breaker):
    """Frames of ids that nobody has, and frames of known ids with too few bytes."""

    lasts_s = GARBAGE_S

    def __init__(self, spec: str, known: tuple[int, ...], fd: bool) -> None:
        self._known, self._fd = known, fd
        self._bus: can.BusABC | None = open_bus(spec, fd=fd)
        self._random = random.Random(1)

    def go_on(self) -> None:
        for _ in range(BURST if self._bus else 0):
            foreign = self._random.random() < 0.5
            identifier = self._random.randrange(0x600, 0x800) if foreign else self._random.choice(self._known)
            data = self._random.randbytes(8 if foreign else self._random.randrange(0, 4))
            with contextlib.suppress(can.CanError, OSError):
                assert self._bus
                extended = identifier > LAST_STANDARD_ID
                self._bus.send(
                    can.Message(arbitration_id=identifier, is_extended_id=extended, is_fd=self._fd, data=data)
                )

    def end(self) -> None:
        if self._bus:
            self._bus.shutdown()
            self._bus = None


class DdsGarbage(Breaker):
    """Datagrams for the ports on which the participants of this domain listen."""

    lasts_s = GARBAGE_S
    PORT_BASE, DOMAIN_GAIN, PARTICIPANTS = 7400, 250, 24  # DDSI-RTPS 9.6.2.3

    def __init__(self, domain: int) -> None:
        base = self.PORT_BASE + self.DOMAIN_GAIN * domain
        self._ports = [base + 10 + k for k in range(2 * self.PARTICIPANTS)]
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._random = random.Random(2)

    def go_on(self) -> None:
        for _ in range(BURST):
            head = b"RTPS\x02\x03" if self._random.random() < 0.5 else b""
            with contextlib.suppress(OSError):
                port = self._random.choice(self._ports)
                self._socket.sendto(head + self._random.randbytes(60), ("127.0.0.1", port))

    def end(self) -> None:
        self._socket.close()


class DiskFull(Breaker):
    """No file of any node grows: the kernel answers every write with an error (RLIMIT_FSIZE)."""

    lasts_s = FULL_S

    def __init__(self, station: Simulation) -> None:
        children = station.processes.children.items()
        self._pids = [child.process.pid for name, child in children if not name.startswith("sim_")]

    def _limit(self, size: int) -> None:
        for pid in self._pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def begin(self) -> None:
        self._limit(0)

    def end(self) -> None:
        self._limit(resource.RLIM_INFINITY)


class ClockJump(Breaker):
    """The wall clock of every process, by the shim of desk.wall_clock."""

    lasts_s = 3.0
    JUMP_S = 3600.0

    def __init__(self, station: Any) -> None:
        self._clock = station.wall_clock

    def begin(self) -> None:
        self._clock.jump(self.JUMP_S)

    def end(self) -> None:
        self._clock.jump(0.0)


def breaker(station: Any, target: str, fault: str, evse: int) -> Breaker:
    """What breaks ``target`` by ``fault``. Raises KeyError for what this desk does not have."""
    if target == "dds":
        return DdsGarbage(station.domain)
    if target == "bus_modules":
        return CanGarbage(expand(station.desk.bus)[0], (0x101, 0x102, 0x301, 0x400, 0x401), fd=True)
    if target.startswith("bus_vehicle"):
        identifiers = GBT_IDS if station.desk.options.protocol in GBT else CHADEMO_IDS
        return CanGarbage(station.desk.vehicle_bus(evse), identifiers, fd=False)
    if target == "disk":
        return DiskFull(station)
    if target == "clock":
        return ClockJump(station)
    pid = station.processes.children[target].process.pid
    if fault == KILL:
        return Kill(station, target)
    if fault == FREEZE:
        return Freeze(pid, VEHICLE_FROZEN_S if target.startswith("sim_vehicle") else FROZEN_S)
    if fault == SLOW:
        return Slow(pid, SLOW_S)
    if fault == CUT:
        simulator, name = LINKS[target.rstrip("0123456789")]
        return Simulated(station, simulator.format(n=evse), name, CUT_S)
    if fault == GARBAGE:
        return Simulated(station, "csms", "garbage", GARBAGE_S)
    if fault == SELF_TEST:
        return Simulated(station, "safety", "self-test", CUT_S)
    raise KeyError(f"{target}, {fault}")
