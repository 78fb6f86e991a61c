"""A Modbus TCP server for the rack's meters: function 3 and 4, unit id = EVSE."""

from __future__ import annotations

import socketserver
import struct
import threading

_HEADER = struct.Struct(">HHHB")
ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, NO_DEVICE = 1, 2, 11


class MeterServer:
    """Serves ``registers[unit]`` on a free port of 127.0.0.1."""

    def __init__(self) -> None:
        self.registers: dict[int, list[int]] = {}
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

    def _answer(self, unit: int, body: bytes) -> bytes:
        function = body[0]
        if function not in (3, 4) or len(body) != 5:
            return bytes([function | 0x80, ILLEGAL_FUNCTION])
        registers = self.registers.get(unit)
        if registers is None:
            return bytes([function | 0x80, NO_DEVICE])
        first, count = struct.unpack(">HH", body[1:])
        if not 1 <= count <= 125 or first + count > len(registers):
            return bytes([function | 0x80, ILLEGAL_ADDRESS])
        part = registers[first : first + count]
        return bytes([function, 2 * count]) + struct.pack(f">{count}H", *part)
