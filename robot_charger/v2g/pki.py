"""Certificates of the station: the TLS contexts, and a test PKI for desks."""

from __future__ import annotations

import ssl
from pathlib import Path


def station_context(directory: Path) -> ssl.SSLContext:
    """TLS server context from ``directory``. Raises OSError or ssl.SSLError when a file is missing or wrong."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "secc.pem", directory / "secc.key")
    return context
