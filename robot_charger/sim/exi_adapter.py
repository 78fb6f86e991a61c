"""Our EXI codec in the place of the iso15118 package's own.

``EXI().set_exi_codec(ExiCodec())`` before a session makes the EVCC code in Python; no Java starts.
"""

from __future__ import annotations

import json

from iso15118.shared.iexi_codec import IEXICodec

from robot_charger.v2g.exi import ExiError, codec


class ExiCodec(IEXICodec):
    """``IEXICodec`` of the iso15118 package: JSON text on one side, EXI bytes on the other.

    All grammars are loaded by the constructor, so that the first message is as fast as the others.
    """

    def __init__(self) -> None:
        for name in codec.NAMESPACES:
            codec.grammar(name)

    def encode(self, message: str, namespace: str) -> bytes:
        """Encode ``{"<message or signed element>": {...}}``; raises :class:`ExiError`."""
        try:
            tree = json.loads(message)
        except ValueError as error:
            raise ExiError(f"the message is not JSON: {error}") from error
        return codec.encode(tree, namespace)

    def decode(self, stream: bytes, namespace: str) -> str:
        """Decode a message, or an xmldsig fragment, to JSON text; raises :class:`ExiError`."""
        return json.dumps(codec.decode(stream, namespace, fragment=namespace == codec.NAMESPACES["xmldsig"]))

    def get_version(self) -> str:
        from importlib.metadata import PackageNotFoundError, version

        try:
            return f"robot_charger {version('robot_charger')}"
        except PackageNotFoundError:
            return "robot_charger"
