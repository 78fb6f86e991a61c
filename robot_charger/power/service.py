"""python -m robot_charger.power.service --bus socketcan:can0 --modules 46 [--assign SERIAL=ADDRESS]

The modules' configuration and diagnostics frames (0x500 and 0x600 of config/ek3.dbc): who is there without an address,
who gets which, and what each module has to tell of its life. The tool lists the modules of a bank while it serves, and
assigns addresses by hand; ``Addressing`` gives the one missing address of a bus to the one new module on it.

A module that is new has no address, sends no status and obeys no set-point. Asked WHO, modules answer with their
serial number on 0x5E0 + a digit of it, base 32; which digit is the request's ``round``, so that two that collide in one
round answer apart in another.
"""

from __future__ import annotations

import argparse
import struct
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from enum import IntEnum

from robot_charger.common.can_bus import BusError, FramePort, expand, frame_port, open_bus
from robot_charger.common.clock import MILLISECOND
from robot_charger.common.process import refuse
from robot_charger.power import codec
from robot_charger.power.bank import place

CONFIG_ID = 0x500
SLOT_ID = 0x5E0
DIAGNOSTIC_ID = 0x600
SLOTS = 32
ROUNDS = 7  # digits of a serial number, base 32
ROUND_NS = 20 * MILLISECOND
MISSING_NS = 300 * MILLISECOND  # an address must be silent so long before a new module is looked for
AGAIN_NS = 400 * MILLISECOND
_CONFIG = struct.Struct("<IBBB6xBH")
_CONFIG_ANSWER = struct.Struct("<IBBH")
_DIAGNOSTIC = struct.Struct("<B4xBH")
_DIAGNOSTICS = struct.Struct("<IHHIIIIHBB2xH")
HEARS = ({"can_id": CONFIG_ID, "can_mask": 0x700}, {"can_id": DIAGNOSTIC_ID, "can_mask": 0x700})


class Command(IntEnum):
    WHO = 1  # every module with this address (0: without one) answers
    ASSIGN = 2  # the module with this serial number takes this address and keeps it


class Result(IntEnum):
    OK = 0
    BUSY = 1  # it runs: not now


def slot(serial: int, turn: int) -> int:
    """Id on which a module answers WHO in this round."""
    return SLOT_ID + (serial >> 5 * turn) % SLOTS


def _sealed(identifier: int, raw: bytes) -> bytes:
    return raw[:-2] + codec.crc(identifier, raw[:-2]).to_bytes(2, "little")


@dataclass(frozen=True)
class ConfigRequest:
    """From power or the tool to all modules of a bus."""

    command: int
    address: int
    serial: int = 0
    round: int = 0
    counter: int = 0

    def encode(self) -> bytes:
        raw = _CONFIG.pack(self.serial, self.command, self.address, self.round, self.counter & 0xFF, 0)
        return _sealed(CONFIG_ID, raw)

    @staticmethod
    def decode(data: bytes) -> ConfigRequest | None:
        if len(data) != _CONFIG.size or not codec.intact(CONFIG_ID, data):
            return None
        serial, command, address, turn, counter, _ = _CONFIG.unpack(data)
        return ConfigRequest(command, address, serial, turn, counter)


@dataclass(frozen=True)
class ConfigAnswer:
    """From one module: to WHO on a slot's id, to ASSIGN on 0x500 + its address."""

    serial: int
    address: int
    result: int = Result.OK

    def encode(self, identifier: int) -> bytes:
        return _sealed(identifier, _CONFIG_ANSWER.pack(self.serial, self.address, self.result, 0))

    @staticmethod
    def decode(identifier: int, data: bytes) -> ConfigAnswer | None:
        if len(data) != _CONFIG_ANSWER.size or not codec.intact(identifier, data):
            return None
        return ConfigAnswer(*_CONFIG_ANSWER.unpack(data)[:3])


@dataclass(frozen=True)
class DiagnosticRequest:
    """From power or the tool to one module."""

    address: int
    counter: int = 0

    def encode(self) -> bytes:
        return _sealed(DIAGNOSTIC_ID, _DIAGNOSTIC.pack(self.address, self.counter & 0xFF, 0))

    @staticmethod
    def decode(data: bytes) -> DiagnosticRequest | None:
        if len(data) != _DIAGNOSTIC.size or not codec.intact(DIAGNOSTIC_ID, data):
            return None
        return DiagnosticRequest(*_DIAGNOSTIC.unpack(data)[:2])


@dataclass(frozen=True)
class Diagnostics:
    """A module's life, on 0x600 + its address: 32 bytes."""

    serial: int
    firmware: int
    last_faults: int  # ModuleFault bits that came last
    hours: float
    energy_kwh: float
    starts: int
    last_fault_hours: float  # operating hours at which they came
    fault_count: int
    hottest_c: float
    health: float  # share of its rating that it still has, 0 to 1

    def encode(self, address: int) -> bytes:
        raw = _DIAGNOSTICS.pack(
            self.serial,
            self.firmware,
            self.last_faults,
            round(self.hours / codec.HOUR),
            round(self.energy_kwh * 10.0),
            self.starts,
            round(self.last_fault_hours / codec.HOUR),
            min(self.fault_count, 0xFFFF),
            max(0, min(255, round(self.hottest_c - codec.CELSIUS_OFFSET))),
            round(self.health * 200.0),
            0,
        )
        return _sealed(DIAGNOSTIC_ID + address, raw)

    @staticmethod
    def decode(address: int, data: bytes) -> Diagnostics | None:
        identifier = DIAGNOSTIC_ID + address
        if len(data) != _DIAGNOSTICS.size or not codec.intact(identifier, data):
            return None
        serial, firmware, faults, hours, energy, starts, at, count, hottest, health, _ = _DIAGNOSTICS.unpack(data)
        return Diagnostics(
            serial,
            firmware,
            faults,
            hours * codec.HOUR,
            energy / 10.0,
            starts,
            at * codec.HOUR,
            count,
            hottest + codec.CELSIUS_OFFSET,
            health / 200.0,
        )


@dataclass
class Addressing:
    """Gives the one missing address of a bus to the one module on it that has none.

    When several addresses are missing, or several modules are new, only a person knows which belongs where (series
    groups, blocks and EVSEs are places): nothing is assigned, ``found`` says who is there.
    """

    found: set[int] = field(default_factory=set)  # serial numbers of modules without an address
    assigned: int = 0  # serial number of the last that was given one
    _round: int = 0
    _due_ns: int = 0
    _missing: int = 0
    _since_ns: int = 0
    _counter: int = 0

    def step(self, now_ns: int, missing: Collection[int]) -> ConfigRequest | None:
        """The request to send now; ``missing``: the bus's addresses that are silent."""
        lost = next(iter(missing)) if len(missing) == 1 else 0
        if lost != self._missing:
            self._missing, self._since_ns, self._round = lost, now_ns, 0
        if not lost or now_ns - self._since_ns < MISSING_NS or now_ns < self._due_ns:
            return None
        self._counter += 1
        if self._round < ROUNDS:
            if self._round == 0:
                self.found.clear()
            self._round += 1
            self._due_ns = now_ns + ROUND_NS
            return ConfigRequest(Command.WHO, 0, 0, self._round - 1, self._counter)
        self._round = 0
        self._due_ns = now_ns + AGAIN_NS
        if len(self.found) != 1:
            return None
        self.assigned = next(iter(self.found))
        return ConfigRequest(Command.ASSIGN, lost, self.assigned, 0, self._counter)

    def take(self, identifier: int, data: bytes) -> None:
        """A frame of the bus; what is no module's answer to WHO counts for nothing."""
        if SLOT_ID <= identifier < SLOT_ID + SLOTS:
            answer = ConfigAnswer.decode(identifier, data)
            if answer is not None and not answer.address:
                self.found.add(answer.serial)


# The tool.


def ask(
    port: FramePort, requests: Iterable[tuple[int, bytes]], take: Callable[[int, bytes], None], wait_s: float = 0.05
) -> None:
    """Send each request (id, frame) and hand every frame that comes in the ``wait_s`` after it to ``take``."""
    for identifier, frame in requests:
        port.write([identifier], codec.rows([frame]))
        until = time.monotonic() + wait_s
        while time.monotonic() < until:
            for batch in port.read():
                for i, answer in enumerate(batch.ids.tolist()):
                    take(answer, batch.data[i, : batch.lengths[i]].tobytes())
            time.sleep(0.001)


def strangers(port: FramePort) -> list[int]:
    """Serial numbers of the modules on this bus that have no address."""
    addressing = Addressing()
    rounds = [(CONFIG_ID, ConfigRequest(Command.WHO, 0, 0, turn, turn).encode()) for turn in range(ROUNDS)]
    ask(port, rounds, addressing.take)
    return sorted(addressing.found)


def diagnose(port: FramePort, addresses: Iterable[int]) -> dict[int, Diagnostics]:
    """What the modules at these addresses of a bus tell; who is silent is left out."""
    told: dict[int, Diagnostics] = {}

    def take(identifier: int, data: bytes) -> None:
        life = Diagnostics.decode(identifier - DIAGNOSTIC_ID, data)
        if life is not None:
            told[identifier - DIAGNOSTIC_ID] = life

    ask(port, [(DIAGNOSTIC_ID, DiagnosticRequest(a, a).encode()) for a in addresses], take)
    return told


def assign(port: FramePort, serial: int, address: int) -> ConfigAnswer | None:
    """Give one module its address; what it answered, None when it did not."""
    answers: list[ConfigAnswer] = []

    def take(identifier: int, data: bytes) -> None:
        answer = ConfigAnswer.decode(identifier, data)
        if answer is not None and answer.serial == serial and identifier == CONFIG_ID + address:
            answers.append(answer)

    ask(port, [(CONFIG_ID, ConfigRequest(Command.ASSIGN, address, serial).encode())], take, 0.2)
    return answers[-1] if answers else None


def main() -> None:
    parser = argparse.ArgumentParser(prog="robot_charger.power.service", description="The modules of an EK3 bank.")
    parser.add_argument("--bus", required=True, help="bus or buses of the modules, as the power node's")
    parser.add_argument("--modules", type=int, required=True)
    parser.add_argument("--assign", metavar="SERIAL=ADDRESS", help="give a module its address on its (only) bus")
    arguments = parser.parse_args()
    try:
        ports = [frame_port(open_bus(name, can_filters=HEARS)) for name in expand(arguments.bus)]
        if arguments.assign:
            serial, _, address = arguments.assign.partition("=")
            given = [a for a in (assign(port, int(serial), int(address)) for port in ports) if a is not None]
            done = any(a.result == Result.OK for a in given)
            words = "has it" if done else "runs: not now" if given else "does not answer"
            print(f"module {serial}, address {address}: {words}")
            raise SystemExit(0 if done else 1)
        buses, addresses = place(arguments.modules, len(ports))
        for bus, port in enumerate(ports):
            lives = diagnose(port, addresses[buses == bus].tolist())
            for address in addresses[buses == bus].tolist():
                print(f"bus {bus} address {address}: {describe(lives.get(address))}")
            for serial in strangers(port):
                print(f"bus {bus}: module {serial} has no address")
    except (BusError, OSError, ValueError) as error:
        refuse(f"service: {error}")


def describe(life: Diagnostics | None) -> str:
    """One line about a module."""
    if life is None:
        return "silent"
    faults = codec.ModuleFault(life.last_faults).name or "none"
    return (
        f"serial {life.serial}, firmware {life.firmware >> 8}.{life.firmware & 0xFF}, {life.hours:.1f} h, "
        f"{life.energy_kwh:.1f} kWh, {life.starts} starts, hottest {life.hottest_c:.0f} deg C, "
        f"rating {100.0 * life.health:.0f} %, faults {life.fault_count}"
        + (f" (last {faults.lower()} at {life.last_fault_hours:.1f} h)" if life.fault_count else "")
    )


if __name__ == "__main__":
    main()
