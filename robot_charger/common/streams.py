"""Ending asyncio connections."""

from __future__ import annotations

import contextlib
from asyncio import WriteTransport


def abort(transport: WriteTransport) -> None:
    """Close at once, without flushing; harmless on a connection that has ended.

    A TLS transport that has already let go of its connection raises AttributeError here in Python 3.11.2 (Debian 12).
    """
    with contextlib.suppress(AttributeError):
        transport.abort()
