"""python -m robot_charger.power.firmware IMAGE --version 257 --bus socketcan:can0 --modules 46

New firmware for the EK3 modules of a bank, over the bootloader's identifiers, while the bank serves. One module at a
time: it leaves the bank (state INIT), the others take its share, and the next begins only when it is back and reports
the new version. A module that runs refuses, and is asked again until nobody needs it. A transfer that broke off is
resumed at the block that the module names.

Request, 0x700, 64 bytes: address u8, command u8, block u16, 56 bytes, counter u8, 0 u8, CRC-16 as in every sealed
frame. Answer, 0x700 + address, 8 bytes: command u8, result u8, next block u16, version u16, CRC-16.
Begin carries size u32, CRC-32 u32 and version u16 of the image.
"""

from __future__ import annotations

import argparse
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from robot_charger.common.can_bus import BusError, FramePort, expand, frame_port, open_bus
from robot_charger.common.clock import MILLISECOND, SECOND, now_ns
from robot_charger.common.process import refuse
from robot_charger.power import codec
from robot_charger.power.bank import place

BOOT_ID = 0x700
BLOCK = 56
RESEND_NS = 200 * MILLISECOND
BUSY_NS = 2 * SECOND  # a module that runs is asked again after so long
TRIES = 25
_REQUEST = struct.Struct("<BBH56sBBH")
_ANSWER = struct.Struct("<BBHHH")
_IMAGE = struct.Struct("<IIH")
MAX_IMAGE = 0xFFFF * BLOCK
ANSWERS = ({"can_id": BOOT_ID, "can_mask": 0x700},)


class Command(IntEnum):
    BEGIN = 1
    BLOCK = 2
    START = 3  # check the image and run it


class Result(IntEnum):
    OK = 0
    BUSY = 1  # it runs: not now
    ORDER = 2  # another block is next
    BAD_IMAGE = 3


@dataclass(frozen=True)
class Request:
    """From power to one module."""

    address: int
    command: int
    block: int = 0
    data: bytes = b""
    counter: int = 0

    def encode(self) -> bytes:
        raw = _REQUEST.pack(self.address, self.command, self.block, self.data, self.counter & 0xFF, 0, 0)
        return raw[:-2] + codec.crc(BOOT_ID, raw[:-2]).to_bytes(2, "little")

    @staticmethod
    def decode(data: bytes) -> Request | None:
        if len(data) != _REQUEST.size or not codec.intact(BOOT_ID, data):
            return None
        return Request(*_REQUEST.unpack(data)[:5])


@dataclass(frozen=True)
class Answer:
    """From one module."""

    command: int
    result: int
    next_block: int = 0
    version: int = 0

    def encode(self, address: int) -> bytes:
        raw = _ANSWER.pack(self.command, self.result, self.next_block, self.version, 0)
        return raw[:-2] + codec.crc(BOOT_ID + address, raw[:-2]).to_bytes(2, "little")

    @staticmethod
    def decode(address: int, data: bytes) -> Answer | None:
        if len(data) != _ANSWER.size or not codec.intact(BOOT_ID + address, data):
            return None
        return Answer(*_ANSWER.unpack(data)[:4])


def image_header(image: bytes, version: int) -> bytes:
    """What Begin carries."""
    return _IMAGE.pack(len(image), zlib.crc32(image), version)


def read_header(data: bytes) -> tuple[int, int, int]:
    """(size, CRC-32, version) of Begin's data."""
    size, crc, version = _IMAGE.unpack(data[: _IMAGE.size])
    return int(size), int(crc), int(version)


class Update:
    """One module's update: ``step`` gives the request to send now, ``take`` the module's answers; ends in ``ended``."""

    def __init__(self, address: int, image: bytes, version: int) -> None:
        if not 0 < len(image) <= MAX_IMAGE:
            raise ValueError(f"an image of {len(image)} bytes: 1 to {MAX_IMAGE}")
        self.address = address
        self.image = image
        self.version = version
        self.blocks = -(-len(image) // BLOCK)
        self.block = 0
        self.ended = ""
        self.done = False
        self.waited = 0  # times that the module ran and refused
        self._command = Command.BEGIN
        self._due_ns = 0
        self._tries = 0
        self._counter = 0

    def step(self, now: int) -> Request | None:
        if self.ended or now < self._due_ns:
            return None
        if self._tries >= TRIES:
            self.ended = f"module {self.address} does not answer {self._command.name.lower()}"
            return None
        self._tries += 1
        self._due_ns = now + RESEND_NS
        self._counter += 1
        data = b""
        if self._command == Command.BEGIN:
            data = image_header(self.image, self.version)
        elif self._command == Command.BLOCK:
            data = self.image[self.block * BLOCK : (self.block + 1) * BLOCK]
        return Request(self.address, self._command, self.block, data, self._counter)

    def take(self, answer: Answer, now: int) -> None:
        if self.ended or answer.command != self._command:
            return
        self._tries = 0
        if answer.result == Result.BUSY:
            self.waited += 1
            self._due_ns = now + BUSY_NS
        elif answer.result == Result.BAD_IMAGE:
            self.ended = f"module {self.address} refuses the image"
        elif self._command == Command.START:
            self.done = answer.version == self.version
            self.ended = f"module {self.address} runs version {answer.version}"
        else:
            self.block = answer.next_block
            self._command = Command.START if self.block >= self.blocks else Command.BLOCK
            self._due_ns = now


def run(ports: list[FramePort], modules: int, image: bytes, version: int) -> Iterator[Update]:
    """Update the bank, module by module; ends at the first that fails. Yields each when it has ended."""
    buses, addresses = place(modules, len(ports))
    for bus, address in zip(buses.tolist(), addresses.tolist(), strict=True):
        update, port = Update(address, image, version), ports[bus]
        while not update.ended:
            request = update.step(now_ns())
            if request is not None:
                port.write([BOOT_ID], codec.rows([request.encode()]))
            for batch in port.read():
                for i, identifier in enumerate(batch.ids.tolist()):
                    answer = Answer.decode(address, batch.data[i, : batch.lengths[i]].tobytes())
                    if identifier == BOOT_ID + address and answer is not None:
                        update.take(answer, now_ns())
            time.sleep(0.001)
        yield update
        if not update.done:
            return


def main() -> None:
    parser = argparse.ArgumentParser(prog="robot_charger.power.firmware", description="New firmware for EK3 modules.")
    parser.add_argument("image", type=Path)
    parser.add_argument("--version", type=int, required=True, help="as the module will report it, 1 to 65535")
    parser.add_argument("--bus", required=True, help="bus or buses of the modules, as the power node's")
    parser.add_argument("--modules", type=int, required=True)
    arguments = parser.parse_args()
    try:
        image = arguments.image.read_bytes()
        ports = [frame_port(open_bus(name, can_filters=ANSWERS)) for name in expand(arguments.bus)]
        failed = False
        for update in run(ports, arguments.modules, image, arguments.version):
            print(update.ended, flush=True)
            failed = not update.done
    except (BusError, OSError, ValueError) as error:
        refuse(f"firmware: {error}")
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
