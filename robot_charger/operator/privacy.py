"""What of a recording tells who charged, and taking it out.

Off by default: a recording holds no vehicle identity, no token, no signed meter reading (it names the contract) and
no certificate, and no picture of the bay's camera (people and number plates may be in it). Bytes of V2G on the wire
are not recorded either.
"""

from __future__ import annotations

import json
from typing import Any

MASK = "masked"
FIELDS: dict[str, tuple[str, ...]] = {  # of messages
    "VehicleLink": ("identity",),
    "BackendRequest": ("id_token",),
    "MeterReading": ("signed_data",),
}
PICTURES = ("Image", "CompressedImage")  # types of messages that are left out whole
# Of JSON and of diagnostics, compared without case and underscores.
KEYS = frozenset(
    """evccid vehicleid identity idtoken idtag groupidtoken groupid groupidtag parentidtag additionalidtoken
    additionalinfo emaid contractid certificate contractcertificate contractsignaturecertchain subcertificates
    certificatechain vin password authorizationkey signeddata signedmeterdata signedmetervalue encodingmethod
    publickey macaddress rootcertificateid listofrootcertificateids iso15118certificatehashdata meterinfosignature
    oemprovisioningcert digestvalue signaturevalue customeridentifier personalmessage""".split()
)


def is_personal(key: str) -> bool:
    return key.replace("_", "").replace(" ", "").replace("-", "").lower() in KEYS


def masked(value: Any) -> Any:
    """A JSON value with everything below a personal key replaced."""
    if isinstance(value, dict):
        return {k: (MASK if v not in ("", None) else v) if is_personal(k) else masked(v) for k, v in value.items()}
    if isinstance(value, list):
        return [masked(v) for v in value]
    return value


def masked_json(text: str) -> str:
    """The same for JSON text; what is no JSON is left out whole, for nobody knows what it holds."""
    try:
        return json.dumps(masked(json.loads(text)))
    except ValueError:
        return json.dumps({"left out": "no JSON"})


def mask_message(message: Any) -> bool:
    """Mask the personal fields of a ROS message in place; True when something changed."""
    kind = type(message).__name__
    changed = False
    for field in FIELDS.get(kind, ()):
        if getattr(message, field):
            setattr(message, field, MASK)
            changed = True
    if kind == "DiagnosticArray":
        for status in message.status:
            for pair in status.values:
                if is_personal(pair.key) and pair.value:
                    pair.value = MASK
                    changed = True
    if kind == "String":
        text = masked_json(message.data)
        changed = changed or text != message.data
        message.data = text
    return changed


def is_picture(kind: type) -> bool:
    """Messages of this type are not even listened to: a camera speaks only while somebody listens."""
    return kind.__name__ in PICTURES


def has_personal_fields(kind: type) -> bool:
    """Messages of this type have to be looked into."""
    return kind.__name__ in FIELDS or kind.__name__ in ("DiagnosticArray", "String")
