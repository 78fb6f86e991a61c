"""The signing half of the simulated meter: readings as OCMF 1.0 (Open Charge Metering Format), ECDSA over secp256r1."""

from __future__ import annotations

import json
from datetime import datetime, timezone

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from robot_charger.power.meter import BEGIN

ALGORITHM = "ECDSA-secp256r1-SHA256"


class Signer:
    """One meter's key and the transaction it is in."""

    def __init__(self, serial: str) -> None:
        self.serial = serial
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._page = 0
        self._begin: dict[str, str] | None = None

    @property
    def public_key(self) -> str:
        """As printed on the meter: DER, in hexadecimal digits."""
        der = self._key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return der.hex()

    def sign(self, kind: str, session: str, import_wh: float, now: datetime | None = None) -> str:
        """The reading at the begin (``B``) or the end (``E``, with the begin before it) of a transaction."""
        moment = now or datetime.now(timezone.utc)
        stamp = f"{moment:%Y-%m-%dT%H:%M:%S},{moment.microsecond // 1000:03d}{moment:%z} S"
        reading = {
            "TM": stamp, "TX": kind, "RV": f"{import_wh / 1e3:.5f}", "RI": "1-b:1.8.0", "RU": "kWh", "RT": "DC",
            "EF": "", "ST": "G",
        }  # fmt: skip
        if kind == BEGIN:
            self._begin = reading
        readings = [reading] if kind == BEGIN or self._begin is None else [self._begin, reading]
        self._page += 1
        payload = {
            "FV": "1.0", "GI": "robot_charger desk", "GS": self.serial, "PG": f"T{self._page}", "MV": "robot_charger",
            "MM": "simulated DC meter", "MS": self.serial, "IS": True, "IT": "CENTRAL", "ID": session, "RD": readings,
        }  # fmt: skip
        text = json.dumps(payload, separators=(",", ":"))
        signature = self._key.sign(text.encode(), ec.ECDSA(hashes.SHA256())).hex()
        seal = {"SA": ALGORITHM, "SE": "hex", "SM": "application/x-der", "SD": signature}
        return f"OCMF|{text}|{json.dumps(seal, separators=(',', ':'))}"
