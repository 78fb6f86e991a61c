"""Modules of the rack on the raw EK3 buses."""

from __future__ import annotations

import numpy as np

from robot_charger.common.can_bus import FramePort, frame_port, open_bus
from robot_charger.common.can_udp import Batch
from robot_charger.power import codec
from robot_charger.power.bank import place
from robot_charger.power.firmware import BOOT_ID, Request
from robot_charger.power.service import CONFIG_ID, DIAGNOSTIC_ID
from robot_charger.sim.rack.bootloader import Bootloader
from robot_charger.sim.rack.model import Rack
from robot_charger.sim.rack.service import Service

HEARS = (  # acceptance filters of the modules
    {"can_id": codec.SETPOINT_ID, "can_mask": 0x700},
    {"can_id": BOOT_ID, "can_mask": 0x7FF},
    {"can_id": CONFIG_ID, "can_mask": 0x7FF},
    {"can_id": DIAGNOSTIC_ID, "can_mask": 0x7FF},
)


class Ek3Modules:
    """All modules of a rack, spread over their buses."""

    def __init__(self, rack: Rack, buses: list[str]) -> None:
        self.rack = rack
        self.bus, self.address = place(rack.count, len(buses))
        self.first = [int(np.searchsorted(self.bus, b)) for b in range(len(buses) + 1)]
        self.counters = np.full(rack.count, -1)
        self.bad = 0
        self._bootloader = Bootloader(rack)
        self._service = Service(rack, self.bus, self.address)
        self._ports = [frame_port(open_bus(name, can_filters=HEARS)) for name in buses]

    def receive(self, now_s: float) -> None:
        for bus, port in enumerate(self._ports):
            for batch in port.read():
                if bus not in self.rack.buses_off:
                    self._setpoints(bus, batch, now_s)
                    if int(batch.ids[-1]) == BOOT_ID:
                        self._boot(bus, port, batch)
                    self._serve(bus, port, batch)

    def _serve(self, bus: int, port: FramePort, batch: Batch) -> None:
        asked = (batch.ids == CONFIG_ID) | (batch.ids == DIAGNOSTIC_ID)
        for i in np.flatnonzero(asked).tolist():
            data = batch.data[i, : batch.lengths[i]].tobytes()
            for identifier, answer in self._service.answers(bus, int(batch.ids[i]), data):
                port.write([identifier], codec.rows([answer]))

    def _boot(self, bus: int, port: FramePort, batch: Batch) -> None:
        request = Request.decode(batch.data[-1, : batch.lengths[-1]].tobytes())
        if request is None:
            return
        module = int(self._at(bus, np.array([request.address]))[0])
        answer = self._bootloader.answer(module, request) if module >= 0 else None
        if answer is not None:
            port.write([BOOT_ID + request.address], codec.rows([answer.encode(request.address)]))

    def _setpoints(self, bus: int, batch: Batch, now_s: float) -> None:
        """Set-points for the modules of one bus; a repeated alive counter counts for nothing."""
        for length in (codec.SETPOINT.itemsize, codec.GROUP.itemsize):
            mine = (batch.lengths == length) & (batch.ids >> 8 == codec.SETPOINT_ID >> 8)
            if not mine.any():
                continue
            addresses, voltage, current, enable, counter, bad = codec.decode_setpoints(
                batch.ids[mine], batch.data[mine, :length]
            )
            self.bad += int(bad)
            index = self._at(bus, addresses)
            fresh = index >= 0
            fresh[fresh] = self.counters[index[fresh]] != counter[fresh]
            index = index[fresh]
            self.counters[index] = counter[fresh]
            self.rack.command(index, voltage[fresh], current[fresh], enable[fresh], now_s)

    def _at(self, bus: int, addresses: np.ndarray) -> np.ndarray:
        """Module index of each address on this bus, -1 where there is none."""
        where = np.full(256, -1)
        mine = slice(self.first[bus], self.first[bus + 1])
        where[self.address[mine]] = np.arange(mine.start, mine.stop)
        return where[addresses]

    def send(self, now_s: float, sensors: bool) -> None:
        index, status = self.rack.status(now_s)
        data = status.view(np.uint8).reshape(len(index), codec.STATUS.itemsize)
        slow_index, slow = self.rack.sensors() if sensors else (index[:0], np.zeros(0, codec.SENSOR))
        slow_data = slow.view(np.uint8).reshape(-1, codec.SENSOR.itemsize)
        for bus, port in enumerate(self._ports):
            if bus in self.rack.buses_off:
                continue
            mine = self.bus[index] == bus if len(self._ports) > 1 else slice(None)
            if len(index[mine]):
                port.write(codec.STATUS_ID + self.address[index[mine]], data[mine])
            part = self.bus[slow_index] == bus
            if part.any():
                port.write(codec.SENSOR_ID + self.address[slow_index[part]], slow_data[part])

    def close(self) -> None:
        for port in self._ports:
            port.close()
