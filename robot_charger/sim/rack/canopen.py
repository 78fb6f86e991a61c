"""Modules of the rack as CANopen slaves: their SDO servers, NMT states and PDOs.

The object dictionary and its services are the canopen package's; PDOs of all modules go out as one batch.
"""

from __future__ import annotations

import contextlib
from typing import Any

import can
import canopen
import numpy as np

from robot_charger.common.can_bus import frame_port, open_bus
from robot_charger.power import codec
from robot_charger.power.bank import place
from robot_charger.power.drivers import canopen as driver
from robot_charger.sim.rack.model import Rack

SDO_REQUEST = 0x600
COMMANDS = ({"can_id": 0, "can_mask": 0x7FF}, {"can_id": SDO_REQUEST, "can_mask": driver.RANGE})
SETPOINTS = ({"can_id": driver.RPDO1, "can_mask": driver.RANGE},)


class CanopenModules:
    """All modules of a rack on their buses; node id = address."""

    def __init__(self, rack: Rack, buses: list[str]) -> None:
        self.rack = rack
        self.bus, self.address = place(rack.count, len(buses))
        self.first = [int(np.searchsorted(self.bus, b)) for b in range(len(buses) + 1)]
        self.operational = np.zeros(rack.count, bool)
        self._cycle = 0
        self._ports = [frame_port(open_bus(n, fd=False, can_filters=SETPOINTS), fd=False) for n in buses]
        self._networks: list[canopen.Network] = []
        self._nodes: list[Any] = []
        dictionary = canopen.import_od(str(driver.EDS))
        for bus, name in enumerate(buses):
            network = canopen.Network(open_bus(name, fd=False, can_filters=COMMANDS))
            network.connect()
            self._networks.append(network)
            for address in range(1, self.first[bus + 1] - self.first[bus] + 1):
                node = canopen.LocalNode(address, dictionary)
                network.add_node(node)
                self._nodes.append(node)
        for node, serial in zip(self._nodes, rack.serial.tolist(), strict=True):
            node.set_data(0x1018, 4, int(serial).to_bytes(4, "little"))
            node.nmt.state = "INITIALISING"  # says its boot-up
            node.nmt.state = "PRE-OPERATIONAL"

    def receive(self, now_s: float) -> None:
        """Take RPDO1 of the operational modules."""
        self.operational = np.array([node.nmt.state == "OPERATIONAL" for node in self._nodes])
        for bus, port in enumerate(self._ports):
            for batch in port.read():
                if bus in self.rack.buses_off:
                    continue
                index = self.first[bus] + (batch.ids & 0x7F).astype(np.int64) - 1
                mine = (batch.ids & driver.RANGE == driver.RPDO1) & (batch.lengths == driver.SETPOINT.itemsize)
                mine &= (index >= self.first[bus]) & (index < self.first[bus + 1])
                mine[mine] = self.operational[index[mine]]
                if not mine.any():
                    continue
                frames = np.ascontiguousarray(batch.data[mine, :8]).view(driver.SETPOINT)[:, 0]
                volts = frames["voltage"] * driver.MILLI
                amperes = frames["current"] * driver.MILLI
                self.rack.command(index[mine], volts, amperes, volts > 0.0, now_s)

    def send(self, now_s: float, sensors: bool) -> None:
        """TPDO1 of the operational modules, with ``sensors`` TPDO2 too."""
        index, frames = self.rack.status(now_s)
        measured = np.zeros(len(index), driver.MEASURED)
        measured["voltage"] = np.rint(frames["voltage"] * (codec.VOLT / driver.MILLI))
        measured["current"] = np.rint(frames["current"] * (codec.AMPERE / driver.MILLI))
        self._write(driver.TPDO1, index, measured)
        if sensors:
            condition = np.zeros(len(index), driver.CONDITION)
            condition["status"] = frames["state"]
            condition["faults"] = frames["faults"]
            condition["temperature"] = (frames["temperature"] + codec.CELSIUS_OFFSET) / driver.TENTH
            condition["available"] = frames["available"]
            self._write(driver.TPDO2, index, condition)

    def _write(self, identifier: int, index: np.ndarray, records: np.ndarray) -> None:
        data = records.view(np.uint8).reshape(len(records), 8)
        for bus, port in enumerate(self._ports):
            mine = (self.bus[index] == bus) & self.operational[index]
            if bus not in self.rack.buses_off and mine.any():
                port.write(identifier + self.address[index[mine]], data[mine])

    def reboot(self, module: int) -> None:
        """One module (from 1) starts anew, as after a change of modules."""
        node = self._nodes[module - 1]
        node.nmt.state = "INITIALISING"
        node.nmt.state = "PRE-OPERATIONAL"

    def close(self) -> None:
        for node in self._nodes:
            node.nmt.stop_heartbeat()
        for network in self._networks:
            with contextlib.suppress(can.CanError, OSError):
                network.disconnect()
        for port in self._ports:
            port.close()
