"""CANopen modules (CiA 301) on classic CAN: set-points and measurements in PDOs, the rest by SDO.

A module is started when it has told its device type; it is configured anew each time that it boots. Its RPDO1 has a
deadline, after which it goes to zero by itself; only the control cycle sends RPDO1. Its TPDO1, every 10 ms, is its
sign of life here; the heartbeat, once a second, carries its NMT state. The module's objects stand in
ek3-canopen.eds beside this file; a bus is either raw EK3 or CANopen, for their identifiers collide.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import can
import canopen
import numpy as np
from canopen.sdo.exceptions import SdoError

from robot_charger.common.can_bus import open_bus
from robot_charger.power import codec
from robot_charger.power.bank import Bank
from robot_charger.power.contract import CONTRACTS
from robot_charger.power.drivers import Frames, ModuleDriver, module_buses
from robot_charger.power.parameters import PowerParameters

TPDO1, RPDO1, TPDO2, EMERGENCY, HEARTBEAT = 0x180, 0x200, 0x280, 0x080, 0x700
SDO_ANSWER = 0x580
RANGE = 0x780  # the upper four bits of an identifier; the lower seven are the node's number
MAX_NODE = 127
DEVICE_TYPE = 0  # 0x1000, as the EDS has it: no standard profile
DEVICE_TYPES = (DEVICE_TYPE, 0x0003_0191)  # the latter in older modules
CYCLIC = ({"can_id": TPDO1, "can_mask": RANGE}, {"can_id": TPDO2, "can_mask": RANGE})  # for the control thread
ACYCLIC = (
    {"can_id": SDO_ANSWER, "can_mask": RANGE},
    {"can_id": HEARTBEAT, "can_mask": RANGE},
    {"can_id": EMERGENCY, "can_mask": RANGE},
)
HEARTBEAT_MS = 1000
MEASURED_MS, CONDITION_MS = 10, 100  # of TPDO1 and TPDO2
RETRY_S = 0.5
EDS = Path(__file__).with_name("ek3-canopen.eds")

MEASURED = np.dtype([("voltage", "<u4"), ("current", "<i4")])
"""TPDO1: 0x6002 [mV], 0x6003 [mA]."""
SETPOINT = np.dtype([("voltage", "<u4"), ("current", "<i4")])
"""RPDO1: 0x6000 [mV], 0x6001 [mA]; 0 V switches the module off."""
CONDITION = np.dtype([("status", "<u2"), ("faults", "<u2"), ("temperature", "<i2"), ("available", "<u2")])
"""TPDO2: 0x6010, 0x6011, 0x6020 [0.1 deg C], 0x2000 current available [0.01 A]."""
MILLI = 1e-3
TENTH = 0.1

_log = logging.getLogger("robot_charger.power.canopen")


class Driver(ModuleDriver):
    """Modules as CANopen slaves; node id is the address, on each of the buses."""

    FILTERS = CYCLIC

    @classmethod
    def make(cls, bank: Bank, parameters: PowerParameters, groups: bool) -> Driver:
        return cls(bank, module_buses(parameters))

    def __init__(self, bank: Bank, buses: list[str]) -> None:
        super().__init__(bank, first_port=1)
        self._names = buses
        self._masters: list[Master] = []
        self._parts = [
            (b, slice(bank.first[b], bank.first[b + 1])) for b in range(bank.buses) if bank.first[b + 1] > bank.first[b]
        ]
        bank.state[:] = codec.State.STANDBY

    def take(self, bus: int, ids: np.ndarray, lengths: np.ndarray, data: np.ndarray, now_ns: int) -> np.ndarray:
        kind = ids & RANGE
        whole = lengths == 8
        measured, condition = (kind == TPDO1) & whole, (kind == TPDO2) & whole
        bank = self.bank
        if measured.any():
            index, rows = self._of(bus, ids[measured], data[measured])
            frames = rows.view(MEASURED)[:, 0]
            bank.report(
                index,
                bus,
                now_ns,
                voltage=frames["voltage"] * MILLI,
                current=frames["current"] * MILLI,
                echo=bank.command_a[index],  # the profile has no echo: what was sent counts as obeyed
            )
        if condition.any():
            index, rows = self._of(bus, ids[condition], data[condition])
            frames = rows.view(CONDITION)[:, 0]
            bank.state[index] = frames["status"]
            bank.faults[index] = frames["faults"]
            bank.temperature[index] = frames["temperature"] * TENTH
            bank.available[index] = frames["available"] * codec.AMPERE
        return measured | condition

    def _of(self, bus: int, ids: np.ndarray, data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Modules of these identifiers and their rows of eight bytes; strangers count as bad."""
        bank = self.bank
        index = bank.first[bus] + (ids & ~np.uint32(RANGE)).astype(np.int64) - bank.contract.first_address
        known = (index >= bank.first[bus]) & (index < bank.first[bus + 1])
        self.bad += int(len(ids) - known.sum())
        return index[known], np.ascontiguousarray(data[known, :8])

    def frames(self, now_ns: int, counter: int) -> list[Frames]:
        bank = self.bank
        out: list[Frames] = []
        for bus, part in self._parts:
            rows = np.zeros(part.stop - part.start, SETPOINT)
            enable = bank.enable[part]
            rows["voltage"] = np.where(enable, np.rint(bank.command_v[part] / MILLI), 0)
            rows["current"] = np.where(enable, np.rint(bank.command_a[part] / MILLI), 0)
            data = rows.view(np.uint8).reshape(len(rows), SETPOINT.itemsize)
            out.append((self.first_port + bus, RPDO1 + bank.address[part], data))
        return out

    def start(self) -> None:
        for bus, name in enumerate(self._names):
            first = int(self.bank.first[bus])
            nodes = self.bank.address[first : int(self.bank.first[bus + 1])].tolist()
            self._masters.append(Master(name, nodes, self._on_emergency))
            self._masters[-1].start()

    def _on_emergency(self, bus: str, node: int, code: int, register: int) -> None:
        """An EMCY of a module, from a thread of its bus: for the log; its faults come by TPDO2."""
        what = "error reset" if code == 0 else f"error {code:#06x}, register {register:#04x}"
        self.notes.append(f"{bus}: module {node} sends an emergency: {what}")

    def close(self) -> None:
        for master in self._masters:
            master.close()
        self._masters.clear()


class Master:
    """NMT master of one bus: checks, configures and starts every node that is not operational."""

    def __init__(self, bus: str, nodes: list[int], on_emergency: Callable[[str, int, int, int], None]) -> None:
        self.network = canopen.Network(open_bus(bus, fd=False, can_filters=ACYCLIC))
        self.refused: dict[int, str] = {}
        dictionary = canopen.import_od(str(EDS))
        for number in nodes:
            node = canopen.RemoteNode(number, dictionary)
            self.network.add_node(node)
            node.emcy.add_callback(functools.partial(self._told, bus, number, on_emergency))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"canopen {bus}", daemon=True)

    @staticmethod
    def _told(bus: str, node: int, tell: Callable[[str, int, int, int], None], error: Any) -> None:
        tell(bus, node, int(error.code), int(error.register))

    def start(self) -> None:
        self.network.connect()
        self._thread.start()

    def close(self) -> None:
        """All nodes to pre-operational: their PDOs end, and their outputs with them."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=3.0)
        with contextlib.suppress(can.CanError, OSError):
            self.network.nmt.state = "PRE-OPERATIONAL"
        self.network.disconnect()

    def _run(self) -> None:
        unheard = 0  # who never spoke is asked in turn, one a round: each costs a time-out
        while not self._stop.is_set():
            nodes: list[tuple[int, Any]] = list(self.network.nodes.items())
            waiting = [n for n in nodes if n[1].nmt.timestamp is not None and n[1].nmt.state != "OPERATIONAL"]
            silent = [n for n in nodes if n[1].nmt.timestamp is None]
            if silent:
                unheard = (unheard + 1) % len(silent)
                waiting.append(silent[unheard])
            for number, node in waiting:
                if self._stop.is_set():
                    return
                self._begin(number, node)
            self._stop.wait(0.0 if silent and waiting[-1][1].nmt.timestamp is not None else RETRY_S)

    def _begin(self, number: int, node: Any) -> None:
        try:
            found = node.sdo["Device type"].raw
            if found not in DEVICE_TYPES:
                raise SdoError(f"device type {found:#x}, {DEVICE_TYPE:#x} expected")
            node.sdo["Producer heartbeat time"].raw = HEARTBEAT_MS
            node.sdo["RPDO1 communication"]["Deadline"].raw = round(CONTRACTS["canopen"].hold_s * 1e3)
            node.sdo["TPDO1 communication"]["Event timer"].raw = MEASURED_MS
            node.sdo["TPDO2 communication"]["Event timer"].raw = CONDITION_MS
            node.nmt.state = "OPERATIONAL"
            node.nmt.timestamp = node.nmt.timestamp or 0.0
            if self.refused.pop(number, None):
                _log.info("node %d answers", number)
        except (SdoError, can.CanError, OSError) as error:
            if self.refused.get(number) != str(error):
                _log.warning("node %d is not started: %s", number, error)
            self.refused[number] = str(error)
