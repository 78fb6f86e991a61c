"""The session record: every V2G message as bytes and decoded, without what identifies a person unless that is wanted.

The V2G thread only puts messages aside, before it decodes them; they are turned into text in another thread, so that
recording does not delay an answer to the vehicle. A message that cannot be decoded stays in the record as bytes, with
the field where the decoding ended.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from robot_charger.common.clock import SECOND, now_ns

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
# Messages whose bytes hold such a field: their bytes are hidden too.
IDENTIFYING_MESSAGES = frozenset(
    {
        "",  # not decoded, and not known which
        "SessionSetupReq",
        "PaymentDetailsReq",
        "AuthorizationReq",
        "MeteringReceiptReq",
        "CertificateInstallationReq",
        "CertificateInstallationRes",
        "CertificateUpdateReq",
        "CertificateUpdateRes",
    }
)
HIDDEN = "hidden"
MAX_WAITING = 2000
UNFINISHED_S = 1.0  # so old an entry goes to the record although its answer never came


@dataclass
class Entry:
    """One message. ``direction`` is in (from the vehicle) or out; ``finish`` adds what the decoding brought."""

    direction: str
    payload_type: int
    exi: bytes
    stamp_ns: int  # CLOCK_MONOTONIC
    name: str = ""
    tree: Any = None  # None: not decoded
    notes: Sequence[str] = ()
    fault: str = ""
    done: bool = field(default=False, compare=False)

    def finish(self, name: str, tree: Any, notes: Sequence[str] = (), fault: str = "") -> None:
        self.name, self.tree, self.notes, self.fault = name, tree, tuple(notes), fault
        self.done = True


class Recorder:
    """``put`` from the V2G thread, ``lines`` from another. The oldest are dropped when none are read."""

    def __init__(self, identity: bool = False) -> None:
        self.identity = identity
        self.dropped = 0
        self._waiting: deque[Entry] = deque()

    def put(self, entry: Entry) -> None:
        if len(self._waiting) >= MAX_WAITING:
            self._waiting.popleft()
            self.dropped += 1
        self._waiting.append(entry)

    def lines(self) -> Iterator[str]:
        """One JSON object per message: stamp_ns (CLOCK_MONOTONIC), direction, name, fields, payload_type, exi; notes
        and fault where there are some."""
        while self._waiting:
            entry = self._waiting[0]
            if not entry.done and now_ns() - entry.stamp_ns < UNFINISHED_S * SECOND:
                return
            self._waiting.popleft()
            yield json.dumps(describe(entry, self.identity))


def describe(entry: Entry, identity: bool) -> dict[str, Any]:
    """An entry as plain values under the schema's names."""
    line = {
        "stamp_ns": entry.stamp_ns,
        "direction": entry.direction,
        "name": entry.name,
        "fields": _plain(_content(entry.tree), identity),
        "payload_type": f"{entry.payload_type:#06x}",
        "exi": entry.exi.hex() if identity or entry.name not in IDENTIFYING_MESSAGES else HIDDEN,
    }
    if entry.notes:
        line["notes"] = list(entry.notes)
    if entry.fault:
        line["fault"] = entry.fault
    return line


def _content(tree: Any) -> Any:
    """A decoded message without the name of its outermost element."""
    return next(iter(tree.values())) if isinstance(tree, dict) and len(tree) == 1 else tree


def _plain(value: Any, identity: bool) -> Any:
    if isinstance(value, dict):
        return {
            str(name): HIDDEN if name in IDENTIFYING and not identity else _plain(part, identity)
            for name, part in value.items()
        }
    if isinstance(value, list | tuple):
        return [_plain(part, identity) for part in value]
    return value.hex() if isinstance(value, bytes) else value
