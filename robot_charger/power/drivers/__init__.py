"""How the modules of a bank are spoken to: one interface, one file per protocol.

``power.contract.CONTRACTS`` has a row per protocol; its name is the file here whose class ``Driver`` speaks it.
``ek3`` is the raw CAN-FD protocol of config/ek3.dbc, ``canopen`` the same module's CANopen profile
(drivers/ek3-canopen.eds), ``modbus`` older modules on a Modbus line; the others are makers' own. The safety controller
and the measuring boards speak on the first bus of the parameter ``bus`` whichever it is.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from robot_charger.common.can_bus import FramePort, expand, frame_port, open_bus
from robot_charger.power.bank import Bank
from robot_charger.power.modbus_line import ModbusLine
from robot_charger.power.parameters import PowerParameters

Frames = tuple[int, np.ndarray, np.ndarray]  # port, ids (n), data u8 (n, length)


class ModuleDriver(ABC):
    """One protocol.

    The control thread calls ``take``, ``poll`` and ``frames``, none of which waits. What has to wait (an SDO, a
    Modbus answer) runs in threads between ``start`` and ``close``.
    """

    FILTERS: ClassVar[tuple[Mapping[str, int], ...]] = ()  # acceptance filters of its ports; none: all frames

    @classmethod
    def make(cls, bank: Bank, parameters: PowerParameters, groups: bool) -> ModuleDriver:
        """One for this bank; ``groups`` is for those that have set-points of many modules in one frame."""
        return cls(bank, parameters.contract)  # type: ignore[arg-type]

    def __init__(self, bank: Bank, first_port: int) -> None:
        self.bank = bank
        self.first_port = first_port  # of the modules' buses among the node's ports
        self.frames_in = 0  # of what does not pass the node's ports
        self.frames_out = 0
        self.bad = 0
        self.notes: deque[str] = deque(maxlen=100)  # for the log

    def take(self, bus: int, ids: np.ndarray, lengths: np.ndarray, data: np.ndarray, now_ns: int) -> np.ndarray:
        """Frames of one of the modules' buses (from 0). A mask of those that were the modules'."""
        return np.zeros(len(ids), bool)

    def prepare(self, mine: np.ndarray, top_v: float, idle: bool, now_ns: int) -> bool:
        """Whether the modules ``mine`` (a mask) can give up to ``top_v`` [V] each as they are set now.

        Modules with output ranges change theirs while ``idle``. ``top_v`` 0: nobody asks.
        """
        return True

    def poll(self, now_ns: int) -> None:  # noqa: B027
        """Bring into the bank what other threads learnt."""

    @abstractmethod
    def frames(self, now_ns: int, counter: int) -> list[Frames]:
        """Set-points of this cycle, from the bank's commands."""

    def start(self) -> None:  # noqa: B027
        """Begin to speak; errors are the modules' silence, not exceptions."""

    def close(self) -> None:  # noqa: B027
        """End the threads."""


def module_buses(parameters: PowerParameters) -> list[str]:
    """The modules' buses or lines, by name. Raises BusError on a spelling that names none."""
    contract = parameters.contract
    if not contract.own_bus:
        return expand(parameters.bus)
    if contract.bit_rate:
        return expand(parameters.module__bus)
    return [line.strip() for line in parameters.module__bus.split(",")]


def open_ports(parameters: PowerParameters) -> list[FramePort]:
    """The node's CAN ports: the station's bus first, then those of the modules. Raises BusError or ValueError."""
    contract = parameters.contract
    if not contract.own_bus:
        return [frame_port(open_bus(name)) for name in expand(parameters.bus)]
    ports = [frame_port(open_bus(expand(parameters.bus)[0]))]
    kind = driver_class(parameters)
    if contract.bit_rate:
        options = {"can_filters": kind.FILTERS} if kind.FILTERS else {}
        ports += [
            frame_port(open_bus(n, fd=contract.fd, **options), fd=contract.fd, extended=contract.extended)
            for n in module_buses(parameters)
        ]
    else:
        for line in module_buses(parameters):
            ModbusLine(line)  # refuses a word that names no line
    return ports


def driver_class(parameters: PowerParameters) -> type[ModuleDriver]:
    """The driver of this bank's protocol: class ``Driver`` of drivers/NAME.py."""
    module = importlib.import_module(f"{__name__}.{parameters.contract.name}")
    found: type[ModuleDriver] = module.Driver
    return found


def open_driver(parameters: PowerParameters, bank: Bank, groups: bool) -> ModuleDriver:
    """The driver of this bank. ``groups``: EK3 set-points in frames of 15."""
    return driver_class(parameters).make(bank, parameters, groups)
