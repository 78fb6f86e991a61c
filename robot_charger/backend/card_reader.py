"""RFID cards from a PC/SC reader, through pyscard (``pip install robot_charger[rfid]``) and the system's pcscd.

The UID of a contactless card comes by the pseudo-APDU "get data" of PC/SC part 3 (section 3.2.2.1.3); what kind of card
it is stands in the historical bytes of the ATR that the reader makes up (part 3, section 3.1.3.2.3).
"""

from __future__ import annotations

import contextlib
import importlib
import threading
from collections.abc import Callable
from typing import Any

from robot_charger.backend.records import Token

GET_UID = [0xFF, 0xCA, 0x00, 0x00, 0x00]
WELL = (0x90, 0x00)
STANDARD_BYTE = 12  # of the ATR: which standard the card follows
ISO_15693 = range(0x09, 0x0D)
POLL_S = 0.2


class CardReaderError(RuntimeError):
    """No card can be read: the package or the system's service is missing, or there is no such reader."""


def token_of(uid: list[int], atr: list[int]) -> Token:
    """UID and ATR as bytes; the UID as hexadecimal digits, which is how a CSMS knows its cards."""
    far = len(atr) > STANDARD_BYTE and atr[STANDARD_BYTE] in ISO_15693
    return Token(bytes(uid).hex().upper(), "ISO15693" if far else "ISO14443")


class PcscReader:
    """One reader, found by a part of its name. Raises CardReaderError when pyscard is not installed."""

    def __init__(self, name: str) -> None:
        self.name = name
        try:
            self._system: Any = importlib.import_module("smartcard.System")
            self._errors: Any = importlib.import_module("smartcard.Exceptions")
        except ImportError as error:
            raise CardReaderError(f"a PC/SC reader needs the package pyscard: {error}") from error

    def read(self) -> Token | None:
        """The card that lies on the reader, None without one. Raises CardReaderError."""
        try:
            found = [r for r in self._system.readers() if self.name.casefold() in str(r).casefold()]
        except Exception as error:  # pyscard has no common base for "pcscd does not run"
            raise CardReaderError(f"PC/SC: {error}") from error
        if not found:
            raise CardReaderError(f"no PC/SC reader has {self.name!r} in its name")
        connection = found[0].createConnection()
        try:
            connection.connect()
            uid, *status = connection.transmit(GET_UID)
            atr = list(connection.getATR())
        except (self._errors.NoCardException, self._errors.CardConnectionException):
            return None
        finally:
            with contextlib.suppress(Exception):
                connection.disconnect()
        return token_of(list(uid), atr) if tuple(status) == WELL and uid else None


class CardWatch:
    """Tells each card once, when it comes; a thread between ``start`` and ``stop``."""

    def __init__(self, read: Callable[[], Token | None], shown: Callable[[Token], None]) -> None:
        self.problem = ""  # why no card can be read now
        self._read = read
        self._shown = shown
        self._last: Token | None = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="card reader", daemon=True)

    def look(self) -> None:
        """Look at the reader once."""
        try:
            card, self.problem = self._read(), ""
        except CardReaderError as error:
            card, self.problem = None, str(error)
        if card is not None and card != self._last:
            self._shown(card)
        self._last = card

    def _run(self) -> None:
        while not self._end.wait(POLL_S):
            self.look()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._end.set()
        if self._thread.is_alive():
            self._thread.join(2.0)
