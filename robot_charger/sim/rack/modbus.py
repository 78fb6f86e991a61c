"""Modbus TCP servers of the rack: its meters (unit id = EVSE) and, in older racks, its modules (unit id = address)."""

from __future__ import annotations

import socketserver
import struct
import threading
import time
from abc import ABC, abstractmethod

import numpy as np

from robot_charger.power import codec
from robot_charger.power.drivers import modbus as driver
from robot_charger.power.meter import SIGN_AT, SIGNED_AT, MeterError, decode_registers, decode_request
from robot_charger.sim.rack.model import Rack
from robot_charger.sim.rack.ocmf import Signer

_HEADER = struct.Struct(">HHHB")
ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, NO_DEVICE = 1, 2, 11
READ_HOLDING, READ_INPUT, READ_WRITE = 3, 4, 0x17


class ModbusServer(ABC):
    """Serves the registers of its units on a free port of 127.0.0.1."""

    def __init__(self) -> None:
        server = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                while True:
                    header = self._exactly(_HEADER.size)
                    if header is None:
                        return
                    transaction, protocol, length, unit = _HEADER.unpack(header)
                    if protocol != 0 or not 2 <= length <= 254:
                        return
                    body = self._exactly(length - 1)
                    if body is None:
                        return
                    answer = server._answer(unit, body)
                    self.request.sendall(_HEADER.pack(transaction, 0, len(answer) + 1, unit) + answer)

            def _exactly(self, count: int) -> bytes | None:
                data = b""
                while len(data) < count:
                    try:
                        part = self.request.recv(count - len(data))
                    except OSError:
                        return None
                    if not part:
                        return None
                    data += part
                return data

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler, bind_and_activate=True)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, name="meter-server", daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @abstractmethod
    def read(self, unit: int) -> list[tuple[int, list[int]]] | None:
        """Blocks of registers of one unit, each with its first one; None when there is no such unit."""

    def write(self, unit: int, first: int, words: list[int]) -> bool:
        """Take registers. False when they cannot be written."""
        return False

    def _answer(self, unit: int, body: bytes) -> bytes:
        function = body[0]
        if function == READ_WRITE and len(body) >= 10:
            read_at, count, write_at, written, length = struct.unpack(">HHHHB", body[1:10])
            if length != 2 * written or len(body) != 10 + length:
                return bytes([function | 0x80, ILLEGAL_ADDRESS])
            if self.read(unit) is None:
                return bytes([function | 0x80, NO_DEVICE])
            if not self.write(unit, write_at, list(struct.unpack(f">{written}H", body[10:]))):
                return bytes([function | 0x80, ILLEGAL_ADDRESS])
        elif function in (READ_HOLDING, READ_INPUT) and len(body) == 5:
            read_at, count = struct.unpack(">HH", body[1:])
        else:
            return bytes([function | 0x80, ILLEGAL_FUNCTION])
        found = self.read(unit)
        if found is None:
            return bytes([function | 0x80, NO_DEVICE])
        for first, registers in found:
            at = read_at - first
            if 1 <= count <= 125 and at >= 0 and at + count <= len(registers):
                return bytes([function, 2 * count]) + struct.pack(f">{count}H", *registers[at : at + count])
        return bytes([function | 0x80, ILLEGAL_ADDRESS])


class MeterServer(ModbusServer):
    """Input registers of every EVSE's meter, kept by the rack's cycle; it signs readings on request."""

    def __init__(self) -> None:
        self.registers: dict[int, list[int]] = {}
        self.signers: dict[int, Signer] = {}
        self._signed: dict[int, list[int]] = {}
        super().__init__()

    def read(self, unit: int) -> list[tuple[int, list[int]]] | None:
        registers = self.registers.get(unit)
        return None if registers is None else [(0, registers), (SIGNED_AT, self._signed.get(unit, [0]))]

    def write(self, unit: int, first: int, words: list[int]) -> bool:
        if first != SIGN_AT:
            return False
        try:
            kind, session = decode_request(words)
            reading = decode_registers(self.registers[unit], 0)
        except (MeterError, KeyError):
            return False
        if unit not in self.signers:
            self.signers[unit] = Signer(reading.serial)
        text = self.signers[unit].sign(kind, session, reading.import_wh).encode()
        padded = text + b"\0" * (len(text) % 2)
        self._signed[unit] = [len(text), *struct.unpack(f">{len(padded) // 2}H", padded)]
        return True


class ModuleServer(ModbusServer):
    """Modules that speak Modbus: set-points go into the rack at once, states are those after its last step."""

    def __init__(self, rack: Rack) -> None:
        self.rack = rack
        self.hold_ms = np.full(rack.count, driver.HOLD_MS)
        self._states: dict[int, list[int]] = {}
        super().__init__()

    def read(self, unit: int) -> list[tuple[int, list[int]]] | None:
        registers = self._states.get(unit)
        return None if registers is None else [(driver.STATE_REGISTER, registers)]

    def write(self, unit: int, first: int, words: list[int]) -> bool:
        if first != driver.SETPOINT_REGISTER or len(words) != driver.SETPOINT.size // 2:
            return False
        volts, amperes, control, hold_ms = driver.SETPOINT.unpack(struct.pack(">4H", *words))
        one = np.array([unit - 1])
        on = np.array([bool(control & driver.ON)])
        self.rack.hold_s[one] = hold_ms / 1e3
        self.rack.command(
            one, np.array([volts * driver.DECIVOLT]), np.array([amperes * driver.CENTIAMPERE]), on, time.monotonic()
        )
        return True

    def receive(self, now_s: float) -> None:
        """Nothing to do: set-points arrive by themselves."""

    def send(self, now_s: float, sensors: bool) -> None:
        """Bring the registers up to date; a silent module has none."""
        index, frames = self.rack.status(now_s)
        states: dict[int, list[int]] = {}
        for i, frame in zip(index.tolist(), frames, strict=True):
            packed = driver.STATE.pack(
                int(frame["state"]),
                int(frame["faults"]),
                round(float(frame["voltage"]) * codec.VOLT / driver.DECIVOLT),
                int(frame["current"]),
                int(frame["setpoint"]),
                min(0xFFFF, int(frame["available"])),
                round((float(frame["temperature"]) + codec.CELSIUS_OFFSET) / driver.DECIKELVIN),
                round((float(frame["ambient"]) + codec.CELSIUS_OFFSET) / driver.DECIKELVIN),
                int(self.rack.serial[i]),
                round(float(self.rack.hours[i]) / codec.HOUR),
            )
            states[i + 1] = list(struct.unpack(f">{driver.STATE_REGISTERS}H", packed))
        self._states = states
