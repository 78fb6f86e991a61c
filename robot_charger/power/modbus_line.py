"""A Modbus line by one word, for meters and modules: ``tcp:HOST:PORT`` or ``rtu:/dev/ttyUSB0:19200``.

An empty word is the simulated rack's, which tells its ports in ``rack.json`` of the run directory.
"""

from __future__ import annotations

import json
from typing import Any

from robot_charger.common.wires import WireError, run_directory

BAUD = 115_200
TIMEOUT_S = 0.5


class LineError(RuntimeError):
    """The line or the device on it did not answer, or refused."""


def _place(name: str) -> tuple[str, str, int]:
    """(kind, host or device, port or baud rate). Raises ValueError on a word that names no line."""
    kind, _, rest = name.partition(":")
    if kind == "rtu" and rest:
        device, _, baud = rest.rpartition(":")
        if device and baud.isdigit():
            return kind, device, int(baud)
        return kind, rest, BAUD
    host, _, port = (rest if kind == "tcp" else name).rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"{name!r} must be HOST:PORT, tcp:HOST:PORT or rtu:DEVICE:BAUD")
    return "tcp", host, int(port)


def rack_place(key: str) -> tuple[str, str, int]:
    """Where the simulated rack serves its ``modbus`` meters or its ``modules``. Raises LineError before it is up."""
    try:
        place = json.loads((run_directory() / "rack.json").read_text())[key]
        return "tcp", str(place["host"]), int(place["port"])
    except (OSError, ValueError, KeyError, TypeError, WireError) as error:
        raise LineError(f"no simulated Modbus line: {error}") from error


class ModbusLine:
    """A client that connects when it is first asked, and anew after an error. Not for two threads at once.

    Raises ValueError when ``name`` names no line.
    """

    def __init__(self, name: str, key: str = "modbus", timeout_s: float = TIMEOUT_S) -> None:
        self.name = name
        self._timeout_s = timeout_s
        self._key = key
        self._fixed = _place(name) if name else None
        self._client: Any = None

    def read_input(self, unit: int, first: int, count: int) -> list[int]:
        """Input registers (function 4). Raises LineError."""
        return self._ask(lambda c: c.read_input_registers(first, count=count, device_id=unit))

    def exchange(self, unit: int, write_at: int, words: list[int], read_at: int, count: int) -> list[int]:
        """Write, then read, in one transaction (function 23). Raises LineError."""
        return self._ask(
            lambda c: c.readwrite_registers(
                read_address=read_at, read_count=count, write_address=write_at, values=words, device_id=unit
            )
        )

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _ask(self, request: Any) -> list[int]:
        from pymodbus.exceptions import ModbusException

        try:
            if self._client is None:
                self._client = self._connect()
            answer = request(self._client)
        except (ModbusException, OSError) as error:
            self.close()
            raise LineError(str(error)) from error
        if answer.isError():
            raise LineError(str(answer))
        return list(answer.registers)

    def _connect(self) -> Any:
        from pymodbus.client import ModbusSerialClient, ModbusTcpClient

        kind, place, number = self._fixed or rack_place(self._key)
        client: Any
        if kind == "tcp":
            client = ModbusTcpClient(place, port=number, timeout=self._timeout_s, retries=0)
        else:
            client = ModbusSerialClient(place, baudrate=number, timeout=self._timeout_s, retries=0)
        if not client.connect():
            raise LineError(f"nobody answers at {place}:{number}")
        return client
