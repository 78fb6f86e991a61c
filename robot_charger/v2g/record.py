"""The session record: every V2G message decoded, without what identifies a person unless that is asked for.

The V2G thread only puts messages aside; they are turned into text in another thread, so that recording does not
delay an answer to the vehicle.
"""

from __future__ import annotations

import enum
import json
from collections import deque
from collections.abc import Iterator
from typing import Any

from robot_charger.common.clock import now_ns

# Fields (their names in the standards' schemas) that name the vehicle, the driver's contract, or prove who they are.
IDENTIFYING = frozenset(
    {
        "EVCCID",
        "eMAID",
        "EMAID",
        "ContractSignatureCertChain",
        "ContractCertificateChain",
        "OEMProvisioningCert",
        "OEMProvisioningCertificateChain",
        "Signature",
        "GenChallenge",
        "Id",
        "SigMeterReading",
        "MeterSignature",
        "DHpublickey",
        "ContractSignatureEncryptedPrivateKey",
        "PnC_AReqAuthorizationMode",
    }
)
HIDDEN = "hidden"
MAX_WAITING = 2000


class Recorder:
    """``put`` from the V2G thread, ``lines`` from another. The oldest are dropped when nobody reads."""

    def __init__(self, identity: bool = False) -> None:
        self.identity = identity
        self.dropped = 0
        self._waiting: deque[tuple[int, str, str, Any]] = deque()

    def put(self, direction: str, name: str, message: Any) -> None:
        """``direction`` is in (from the vehicle) or out."""
        if len(self._waiting) >= MAX_WAITING:
            self._waiting.popleft()
            self.dropped += 1
        self._waiting.append((now_ns(), direction, name, message))

    def lines(self) -> Iterator[str]:
        """One JSON object per message: stamp_ns (CLOCK_MONOTONIC), direction, name, fields."""
        while self._waiting:
            stamp, direction, name, message = self._waiting.popleft()
            fields = describe(message, self.identity)
            yield json.dumps({"stamp_ns": stamp, "direction": direction, "name": name, "fields": fields})


def describe(message: Any, identity: bool) -> Any:
    """A message of the iso15118 package as plain values under the schema's names."""
    try:
        values = message.dict(by_alias=True, exclude_none=True)
    except AttributeError:
        return str(message)
    return _plain(values, identity)


def _plain(value: Any, identity: bool) -> Any:
    if isinstance(value, dict):
        return {
            str(name): HIDDEN if name in IDENTIFYING and not identity else _plain(part, identity)
            for name, part in value.items()
        }
    if isinstance(value, list | tuple):
        return [_plain(part, identity) for part in value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, enum.Enum):
        return value.value
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)
