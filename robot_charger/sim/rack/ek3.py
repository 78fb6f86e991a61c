"""Modules of the rack on the raw EK3 buses."""

from __future__ import annotations

import numpy as np

from robot_charger.common.can_bus import FramePort, frame_port, open_bus
from robot_charger.common.can_udp import Batch
from robot_charger.power import codec
from robot_charger.power.bank import place
from robot_charger.power.firmware import BOOT_ID, Request
from robot_charger.sim.rack.bootloader import Bootloader
from robot_charger.sim.rack.model import Rack

HEARS = (  # acceptance filters of the modules
    {"can_id": codec.SETPOINT_ID, "can_mask": 0x700},
    {"can_id": BOOT_ID, "can_mask": 0x7FF},
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
        self._ports = [frame_port(open_bus(name, can_filters=HEARS)) for name in buses]

    def receive(self, now_s: float) -> None:
        for bus, port in enumerate(self._ports):
            for batch in port.read():
                if bus not in self.rack.buses_off:
                    self._setpoints(bus, batch, now_s)
                    if int(batch.ids[-1]) == BOOT_ID:
                        self._boot(bus, port, batch)

    def _boot(self, bus: int, port: FramePort, batch: Batch) -> None:
        request = Request.decode(batch.data[-1, : batch.lengths[-1]].tobytes())
        if request is None or not 0 < request.address <= self.first[bus + 1] - self.first[bus]:
            return
        answer = self._bootloader.answer(self.first[bus] + request.address - 1, request)
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
            index = self.first[bus] + addresses - 1
            fresh = (addresses > 0) & (index < self.first[bus + 1])
            fresh[fresh] = self.counters[index[fresh]] != counter[fresh]
            index = index[fresh]
            self.counters[index] = counter[fresh]
            self.rack.command(index, voltage[fresh], current[fresh], enable[fresh], now_s)

    def send(self, now_s: float, sensors: bool) -> None:
        index, status = self.rack.status(now_s)
        data = status.view(np.uint8).reshape(len(index), codec.STATUS.itemsize)
        slow = self.rack.sensors().view(np.uint8).reshape(-1, codec.SENSOR.itemsize) if sensors else None
        for bus, port in enumerate(self._ports):
            if bus in self.rack.buses_off:
                continue
            mine = self.bus[index] == bus if len(self._ports) > 1 else slice(None)
            if len(index[mine]):
                port.write(codec.STATUS_ID + self.address[index[mine]], data[mine])
            if slow is not None:
                part = slice(self.first[bus], self.first[bus + 1])
                port.write(codec.SENSOR_ID + self.address[part], slow[part])

    def close(self) -> None:
        for port in self._ports:
            port.close()
