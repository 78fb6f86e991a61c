"""Signatures of ISO 15118-2 (7.9.2.4): a digest for each signed element, and an ECDSA signature over all digests.

Signed elements are coded as EXI fragments. Encoders disagree about the grammar of SignedInfo: some take that of the
xmldsig schema, some that of the messages. Either proves the key, so both are accepted.
"""

from __future__ import annotations

import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from robot_charger.v2g.exi import ExiError, encode
from robot_charger.v2g.secc.contract import SignatureError, octets
from robot_charger.v2g.secc.table import Tree

SHA256 = "http://www.w3.org/2001/04/xmlenc#sha256"
ECDSA_SHA256 = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256"
GRAMMARS = ("xmldsig", "iso15118_2")
VALUE_OCTETS = 64  # r and s of secp256r1


def check(signature: Tree | None, name: str, element: Tree, key: object) -> None:
    """``element`` of ISO 15118-2 is signed under its Id by ``key``. Raises SignatureError."""
    if signature is None:
        raise SignatureError("the signature is missing")
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise SignatureError("the certificate's key is not on secp256r1")
    try:
        info = signature["SignedInfo"]
        if info["SignatureMethod"]["Algorithm"] != ECDSA_SHA256:
            raise SignatureError("the signature is not ECDSA with SHA-256")
        if _digest(info, str(element["Id"])) != hashlib.sha256(encode({name: element}, "iso15118_2")).digest():
            raise SignatureError("the digest is wrong")
        value = octets(signature["SignatureValue"]["value"])
        if len(value) != VALUE_OCTETS:
            raise SignatureError(f"the signature has {len(value)} octets instead of {VALUE_OCTETS}")
        der = encode_dss_signature(int.from_bytes(value[:32], "big"), int.from_bytes(value[32:], "big"))
        if not any(_verifies(key, der, info, grammar) for grammar in GRAMMARS):
            raise SignatureError("the signature is of another key")
    except SignatureError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise SignatureError(f"the signature cannot be read: {type(error).__name__}") from error


def _digest(info: Tree, identifier: str) -> bytes:
    for reference in info["Reference"]:
        if reference.get("URI") == f"#{identifier}":
            if reference["DigestMethod"]["Algorithm"] != SHA256:
                raise SignatureError("the digest is not SHA-256")
            return octets(reference["DigestValue"])
    raise SignatureError("the element is not among the signed ones")


def _verifies(key: ec.EllipticCurvePublicKey, der: bytes, info: Tree, grammar: str) -> bool:
    try:
        key.verify(der, encode({"SignedInfo": info}, grammar, fragment=True), ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ExiError):
        return False
    return True
