"""Chains of contract certificates (ISO 15118-2 annex F). The only file of the tables that reads certificates."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import NameOID

from robot_charger.v2g.secc.contract import CHAIN, EXPIRED, ContractError, octets
from robot_charger.v2g.secc.table import FAILED, Moment, Tree

MAX_SUB_AUTHORITIES = 2  # annex F


def read(chain: Tree) -> list[x509.Certificate]:
    """CertificateChainType: the leaf first. Raises ContractError."""
    try:
        encoded = [chain["Certificate"], *chain.get("SubCertificates", {}).get("Certificate", [])]
        return [x509.load_der_x509_certificate(octets(one)) for one in encoded]
    except (ValueError, TypeError) as error:
        raise ContractError(CHAIN, "the contract's certificates cannot be read") from error


def check(chain: Sequence[x509.Certificate], root_der: bytes, account: str, now: Moment) -> None:
    """The leaf was issued under the root, all are valid now, and it names ``account``. Raises ContractError."""
    root = x509.load_der_x509_certificate(root_der)
    authorities = [one for one in chain[1:] if one != root]
    if len(authorities) > MAX_SUB_AUTHORITIES:
        raise ContractError(CHAIN, f"the contract comes with {len(authorities)} sub-authorities, 2 are allowed")
    path = [chain[0], *authorities, root]
    for issued, issuer in pairwise(path):
        try:
            issued.verify_directly_issued_by(issuer)
        except (InvalidSignature, ValueError, TypeError) as error:
            text = "the contract was not issued under a mobility operator this station knows"
            raise ContractError(CHAIN, text) from error
        if not _may_sign(issuer):
            raise ContractError(CHAIN, "a certificate of the contract's chain may not issue others")
    for one in path:
        if not valid(one, now):
            raise ContractError(EXPIRED, "a certificate of the contract has expired or is not yet valid")
    named = chain[0].subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if not named or _account(str(named[0].value)) != _account(account):
        raise ContractError(FAILED, "the contract's certificate names another account than the vehicle")


def _may_sign(authority: x509.Certificate) -> bool:
    try:
        return authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def valid(certificate: x509.Certificate, now: Moment) -> bool:
    at = datetime.datetime.fromtimestamp(now.unix_s, datetime.timezone.utc)
    return certificate.not_valid_before_utc <= at <= certificate.not_valid_after_utc


def _account(text: str) -> str:
    """An e-mobility account identifier without the hyphens that some write."""
    return text.replace("-", "").upper()
