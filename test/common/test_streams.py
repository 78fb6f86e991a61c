"""Aborting a connection, however far it has ended by itself."""

from __future__ import annotations

import asyncio

from robot_charger.common.streams import abort


def test_a_connection_is_closed_at_once():
    async def run() -> bytes:
        accepted: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
        server = await asyncio.start_server(lambda _, writer: accepted.put_nowait(writer), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        abort((await accepted.get()).transport)
        try:
            return await reader.read(1)
        except ConnectionResetError:
            return b""
        finally:
            writer.close()
            server.close()

    assert asyncio.run(run()) == b""


def test_one_that_has_let_go_of_its_connection_is_left_alone():
    class Gone(asyncio.WriteTransport):
        """asyncio.sslproto's transport of Python 3.11.2 after its connection was lost."""

        _ssl_protocol = None

        def abort(self) -> None:
            self._ssl_protocol._abort()

    abort(Gone())
