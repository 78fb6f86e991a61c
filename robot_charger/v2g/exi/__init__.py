"""A schema-informed EXI codec for the messages between vehicle and station, in pure Python.

``decode(data, schema)`` and ``encode(tree, schema)`` turn bytes into a plain tree and back (see
:mod:`.codec` for its shape), ``guess(data)`` finds the schema.
"""

from .codec import NAMESPACES, Guess, decode, encode, guess
from .errors import ExiDecodeError, ExiEncodeError, ExiError

__all__ = [
    "NAMESPACES",
    "ExiDecodeError",
    "ExiEncodeError",
    "ExiError",
    "Guess",
    "decode",
    "encode",
    "guess",
]
