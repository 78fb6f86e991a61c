"""A Modbus line by one word, for meters, modules and insulation monitors.

``tcp:HOST:PORT``, or ``rtu:DEVICE:BAUD:FORMAT`` with a format of 8N1 (the default), 8E1 (the standard's own), 8O1 or
8N2. An empty word is the simulated rack's, which tells its ports in ``rack.json`` of the run directory.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from typing import Any

from robot_charger.common.wires import WireError, run_directory

BAUD = 115_200
TIMEOUT_S = 0.5
ILLEGAL_FUNCTION = 1
_FORMAT = re.compile(r"8([NEO])([12])")


class LineError(RuntimeError):
    """The line or the device on it did not answer, or refused."""


@dataclass(frozen=True)
class Place:
    """Where a line is."""

    kind: str  # tcp or rtu
    host: str  # or device
    number: int  # port or baud rate
    parity: str = "N"
    stop_bits: int = 1


def place_of(name: str) -> Place:
    """Raises ValueError on a word that names no line."""
    kind, _, rest = name.partition(":")
    if kind == "rtu" and rest:
        device, *more = rest.split(":")
        baud, form = (more + ["", "8N1"])[0] or str(BAUD), more[1] if len(more) > 1 else "8N1"
        found = _FORMAT.fullmatch(form)
        if device and baud.isdigit() and int(baud) > 0 and found and len(more) <= 2:
            return Place(kind, device, int(baud), found[1], int(found[2]))
        raise ValueError(f"{name!r} must be rtu:DEVICE:BAUD:FORMAT, with a format of 8N1, 8E1, 8O1 or 8N2")
    host, _, port = (rest if kind == "tcp" else name).rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"{name!r} must be HOST:PORT, tcp:HOST:PORT or rtu:DEVICE:BAUD:FORMAT")
    return Place("tcp", host, int(port))


def rack_place(key: str) -> Place:
    """Where the simulated rack serves its ``modbus`` meters or its ``modules``. Raises LineError before it is up."""
    try:
        place = json.loads((run_directory() / "rack.json").read_text())[key]
        return Place("tcp", str(place["host"]), int(place["port"]))
    except (OSError, ValueError, KeyError, TypeError, WireError) as error:
        raise LineError(f"no simulated Modbus line: {error}") from error


class ModbusLine:
    """A client that connects when it is first asked, and again after an error. Not for two threads at once.

    Raises ValueError when ``name`` names no line. After a time-out on a serial line nothing is asked for ``timeout_s``
    more, and what came meanwhile is thrown away: RTU answers carry no number, and a late one looks like the next.
    """

    def __init__(self, name: str, key: str = "modbus", timeout_s: float = TIMEOUT_S) -> None:
        self.name = name
        self.timeout_s = timeout_s
        self._key = key
        self._fixed = place_of(name) if name else None
        self._client: Any = None
        self._quiet_until_s = 0.0
        self._simple: set[int] = set()  # units without function 23

    def read_input(self, unit: int, first: int, count: int) -> list[int]:
        """Input registers (function 4). Raises LineError."""
        return self._registers(count, lambda c: c.read_input_registers(first, count=count, device_id=unit))

    def read_holding(self, unit: int, first: int, count: int) -> list[int]:
        """Holding registers (function 3). Raises LineError."""
        return self._registers(count, lambda c: c.read_holding_registers(first, count=count, device_id=unit))

    def read(self, unit: int, function: int, first: int, count: int) -> list[int]:
        """By function 3 or 4. Raises LineError."""
        return (self.read_input if function == 4 else self.read_holding)(unit, first, count)

    def write(self, unit: int, first: int, words: list[int]) -> None:
        """Holding registers (function 16). Raises LineError."""
        self._ask(lambda c: c.write_registers(first, words, device_id=unit))

    def exchange(self, unit: int, write_at: int, words: list[int], read_at: int, count: int) -> list[int]:
        """Write, then read, in one transaction (function 23), or in two (16 and 3) with a device that lacks it.

        Raises LineError.
        """
        if unit not in self._simple:
            answer = self._answer(
                lambda c: c.readwrite_registers(
                    read_address=read_at, read_count=count, write_address=write_at, values=words, device_id=unit
                )
            )
            if not answer.isError():
                return self._counted(answer, count)
            if getattr(answer, "exception_code", 0) != ILLEGAL_FUNCTION:
                raise LineError(str(answer))
            self._simple.add(unit)
        self.write(unit, write_at, words)
        return self.read_holding(unit, read_at, count)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _registers(self, count: int, request: Any) -> list[int]:
        return self._counted(self._ask(request), count)

    @staticmethod
    def _counted(answer: Any, count: int) -> list[int]:
        registers = list(answer.registers)
        if len(registers) != count:
            raise LineError(f"{len(registers)} registers came instead of {count}: another's answer")
        return registers

    def _ask(self, request: Any) -> Any:
        answer = self._answer(request)
        if answer.isError():
            raise LineError(str(answer))
        return answer

    def _answer(self, request: Any) -> Any:
        from pymodbus.exceptions import ModbusException

        try:
            if self._client is None:
                self._let_pass()
                self._client = self._connect()
            return request(self._client)
        except (ModbusException, OSError) as error:
            self.close()
            if (self._fixed or Place("tcp", "", 0)).kind == "rtu":
                self._quiet_until_s = time.monotonic() + self.timeout_s
            raise LineError(str(error)) from error

    def _let_pass(self) -> None:
        """A late answer ends on a closed port."""
        wait_s = self._quiet_until_s - time.monotonic()
        if wait_s > 0.0:
            time.sleep(wait_s)

    def _connect(self) -> Any:
        from pymodbus.client import ModbusSerialClient, ModbusTcpClient

        place = self._fixed or rack_place(self._key)
        client: Any
        if place.kind == "tcp":
            client = ModbusTcpClient(place.host, port=place.number, timeout=self.timeout_s, retries=0)
        else:
            client = ModbusSerialClient(
                place.host,
                baudrate=place.number,
                parity=place.parity,
                stopbits=place.stop_bits,
                timeout=self.timeout_s,
                retries=0,
            )
        if not client.connect():
            raise LineError(f"no answer at {place.host}:{place.number}")
        if place.kind == "rtu" and hasattr(client.socket, "reset_input_buffer"):
            client.socket.reset_input_buffer()
        return client
