"""The bootloaders of the simulated modules: an image in blocks, its CRC, and the version that then runs."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from robot_charger.power.firmware import BLOCK, Answer, Command, Request, Result, read_header
from robot_charger.sim.rack.model import Rack


@dataclass
class _Transfer:
    header: tuple[int, int, int]
    image: bytes = b""

    @property
    def next_block(self) -> int:
        return -(-len(self.image) // BLOCK)


class Bootloader:
    """All modules of a rack; ``module`` is counted from 0."""

    def __init__(self, rack: Rack) -> None:
        self.rack = rack
        self._transfers: dict[int, _Transfer] = {}

    def answer(self, module: int, request: Request) -> Answer | None:
        """What the module answers; None when it is dead."""
        if self.rack.dead[module]:
            return None
        version = int(self.rack.firmware[module])
        transfer = self._transfers.get(module)
        if request.command == Command.BEGIN:
            if self.rack.enable[module]:
                return Answer(request.command, Result.BUSY, 0, version)
            header = read_header(request.data)
            if transfer is None or transfer.header != header:
                transfer = self._transfers[module] = _Transfer(header)
            self.rack.boot(module, True)
            return Answer(request.command, Result.OK, transfer.next_block, version)
        if transfer is None:
            return Answer(request.command, Result.ORDER, 0, version)
        size, crc, wanted = transfer.header
        if request.command == Command.BLOCK:
            if request.block == transfer.next_block:
                transfer.image += request.data[: min(BLOCK, size - len(transfer.image))]
                return Answer(request.command, Result.OK, transfer.next_block, version)
            return Answer(request.command, Result.ORDER, transfer.next_block, version)
        del self._transfers[module]
        self.rack.boot(module, False)  # with the old image when the new one is bad
        if len(transfer.image) != size or zlib.crc32(transfer.image) != crc:
            return Answer(request.command, Result.BAD_IMAGE, 0, version)
        self.rack.firmware[module] = wanted
        return Answer(request.command, Result.OK, 0, wanted)
