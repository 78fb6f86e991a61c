"""The raw EK3 protocol on CAN-FD: each module's status and set-point in a frame of its own, or 15 set-points in one."""

from __future__ import annotations

import numpy as np

from robot_charger.power import codec
from robot_charger.power.bank import Bank
from robot_charger.power.drivers import Frames, ModuleDriver
from robot_charger.power.parameters import PowerParameters
from robot_charger.power.service import CONFIG_ID, DIAGNOSTIC_ID, Addressing, Command


class Driver(ModuleDriver):
    """Frames of config/ek3.dbc; alive counter and CRC in every set-point. It shares the first bus with the station."""

    @classmethod
    def make(cls, bank: Bank, parameters: PowerParameters, groups: bool) -> Driver:
        return cls(bank, groups)

    def __init__(self, bank: Bank, groups: bool) -> None:
        super().__init__(bank, first_port=0)
        self.groups = groups
        self.addressing = [Addressing() for _ in range(bank.buses)]
        self._parts = [
            (b, slice(bank.first[b], bank.first[b + 1])) for b in range(bank.buses) if bank.first[b + 1] > bank.first[b]
        ]

    def take(self, bus: int, ids: np.ndarray, lengths: np.ndarray, data: np.ndarray, now_ns: int) -> np.ndarray:
        kind = ids >> 8
        status = (kind == 1) & (lengths == codec.STATUS.itemsize)
        count = int(status.sum())
        if count == len(ids):
            self.bank.take_status(bus, ids, data, now_ns)
            return status
        if count:
            self.bank.take_status(bus, ids[status], data[status], now_ns)
        sensor = (kind == 3) & (lengths == codec.SENSOR.itemsize)
        if sensor.any():
            self.bank.take_sensor(bus, ids[sensor], data[sensor])
            status |= sensor
        if not status.all():
            status |= self._serve(bus, ids, lengths, data)
        return status

    def _serve(self, bus: int, ids: np.ndarray, lengths: np.ndarray, data: np.ndarray) -> np.ndarray:
        """Whole frames of configuration and diagnostics: modules without an address are noted, the rest is a tool's."""
        kind = ids >> 8
        mine = (kind == CONFIG_ID >> 8) | (kind == DIAGNOSTIC_ID >> 8)
        for i in np.flatnonzero(mine).tolist():
            identifier, frame = int(ids[i]), data[i, : lengths[i]].tobytes()
            mine[i] = codec.intact(identifier, frame)
            self.addressing[bus].take(identifier, frame)
        return np.asarray(mine)

    def frames(self, now_ns: int, counter: int) -> list[Frames]:
        frames = self._addressing(now_ns) if self.bank.silent.any() else []
        encode = codec.encode_groups if self.groups else codec.encode_setpoints
        bank = self.bank
        for bus, part in self._parts:
            commands = bank.command_v[part], bank.command_a[part], bank.enable[part]
            frames.append((bus, *encode(bank.address[part], *commands, counter)))
        return frames

    def _note(self, text: str) -> None:
        if not self.notes or self.notes[-1] != text:
            self.notes.append(text)

    def _addressing(self, now_ns: int) -> list[Frames]:
        frames = []
        for bus, part in self._parts:
            request = self.addressing[bus].step(now_ns, self.bank.address[part][self.bank.silent[part]].tolist())
            if request is not None:
                if request.command == Command.ASSIGN:
                    self._note(f"module {request.serial} is given address {request.address} of bus {bus}")
                frames.append((bus, np.array([CONFIG_ID]), codec.rows([request.encode()])))
        return frames
