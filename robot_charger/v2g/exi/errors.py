"""What can go wrong while coding EXI."""

from __future__ import annotations


class ExiError(ValueError):
    """A message cannot be coded.

    ``path`` names the element at fault (``V2G_Message/Body/SessionSetupReq``), ``reason`` says what is
    wrong with it.
    """

    def __init__(self, reason: str, path: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = path

    def within(self, name: str) -> None:
        """Prepend the name of the enclosing element to the path."""
        self.path = f"{name}/{self.path}" if self.path else name

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}" if self.path else self.reason


class ExiDecodeError(ExiError):
    """The bytes are not a message of this schema; ``position`` is the bit where that became clear."""

    def __init__(self, reason: str, position: int, path: str = "") -> None:
        super().__init__(reason, path)
        self.position = position

    def __str__(self) -> str:
        return f"bit {self.position}: {super().__str__()}"


class ExiEncodeError(ExiError):
    """The tree does not fit the schema: an element is missing, unknown, or holds a bad value."""
