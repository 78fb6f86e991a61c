"""The four messages of the automated connection device of ISO 15118-20 as a vehicle sends and reads them.

The iso15118 package, which plays the vehicle, does not know them; its services DC and DC_BPT take the place of DC_ACDP
and DC_ACDP_BPT (:data:`SERVICES`). The station's side is ``v2g/secc/acdp.py``.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from robot_charger.v2g.exi import NAMESPACES, decode, encode

NAMESPACE = NAMESPACES["iso15118_20_acdp"]
PAYLOAD_ACDP = 0x8005
PAYLOAD_SYSTEM_STATUS = 0x8103
SERVICES = {4: 2, 7: 6}  # DC_ACDP -> DC, DC_ACDP_BPT -> DC_BPT
OK = "OK"


class AcdpError(ValueError):
    """Not an ACDP message."""


@dataclass(frozen=True)
class Message:
    """One ACDP message; ``fields`` are the schema's elements without header and response code."""

    name: str
    session_id: str
    fields: dict[str, Any]
    code: str = ""  # of a response

    def encode(self) -> bytes:
        body: dict[str, Any] = {"Header": {"SessionID": self.session_id, "TimeStamp": int(time.time())}}
        if self.code:
            body["ResponseCode"] = self.code
        return encode({self.name: body | self.fields}, NAMESPACE)

    @classmethod
    def decode(cls, payload: bytes) -> Message:
        """Raises AcdpError."""
        try:
            tree = decode(payload, NAMESPACE)
        except ValueError as error:
            raise AcdpError(f"not an ACDP message: {error}") from error
        ((name, body),) = tree.items()
        if not name.startswith("ACDP_"):
            raise AcdpError(f"{name} is no ACDP message")
        header = body.pop("Header")
        return cls(name, header["SessionID"], body, str(body.pop("ResponseCode", "")))

    def __str__(self) -> str:
        return self.name

    def dict(self, **_: Any) -> dict[str, Any]:
        """For the session record."""
        return {"SessionID": self.session_id, "ResponseCode": self.code, **self.fields}

    @property
    def payload_type(self) -> int:
        return PAYLOAD_SYSTEM_STATUS if "SystemStatus" in self.name else PAYLOAD_ACDP
