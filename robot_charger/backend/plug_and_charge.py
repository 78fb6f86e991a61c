"""What a CSMS does for Plug and Charge (OCPP 2.0.1 C07, M01, M02, M06): contract certificates for vehicles, and how
certificates stand. Payloads only; the vehicle's own words (EXI) pass through unread.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
from dataclasses import dataclass

from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID

from robot_charger.backend.records import Call, Payload
from robot_charger.backend.security import CertificateError, hash_data, split

VEHICLE_WAITS_S = 4.5  # ISO 15118-2 table 109: CertificateInstallationReq and -UpdateReq, performance of the SECC
CHAIN_ITEMS = 4  # OCSPRequestDataType items in one Authorize


class UnansweredError(RuntimeError):
    """The CSMS has no certificate, or no status of one; the text says why."""


def responder(certificate: x509.Certificate) -> str:
    """The OCSP responder a certificate names, empty when it names none."""
    with contextlib.suppress(x509.ExtensionNotFound):
        access = certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
        for description in access:
            if description.access_method == AuthorityInformationAccessOID.OCSP:
                return str(description.access_location.value)
    return ""


def ocsp_data(certificate: x509.Certificate, issuer: x509.Certificate) -> Payload:
    """OCSPRequestDataType. Raises CertificateError when the certificate names no responder."""
    url = responder(certificate)
    if not url:
        raise CertificateError("the certificate names no OCSP responder")
    return {**hash_data(certificate, issuer), "responderURL": url}


@dataclass(frozen=True)
class PlugAndCharge:
    """``exi_length`` and ``chain_length``: characters that the version's schemas allow."""

    exi_length: int
    chain_length: int

    def vehicle_certificate(self, schema: str, update: bool, request: bytes) -> Call:
        """Get15118EVCertificate. Raises UnansweredError when the vehicle's request is too long for this version."""
        exi = base64.b64encode(request).decode()
        if not exi or len(exi) > self.exi_length:
            raise UnansweredError(
                f"the vehicle's request has {len(request)} bytes: OCPP takes 1 to {self.exi_length // 4 * 3}"
            )
        return "Get15118EVCertificate", {
            "iso15118SchemaVersion": schema,
            "action": "Update" if update else "Install",
            "exiRequest": exi,
        }

    @staticmethod
    def certificate_status(pem: str) -> Call:
        """GetCertificateStatus for a PEM certificate with its issuer behind it. Raises CertificateError."""
        chain = split(pem)
        if len(chain) != 2:
            raise CertificateError(f"{len(chain)} certificates: the one in question and its issuer are wanted")
        return "GetCertificateStatus", {"ocspRequestData": ocsp_data(*chain)}

    @staticmethod
    def read(answer: Payload) -> bytes:
        """What a CSMS answered to either. Raises UnansweredError."""
        data = answer.get("exiResponse", answer.get("ocspResult", ""))
        if answer.get("status") != "Accepted" or not data:
            reason = answer.get("statusInfo", {}).get("reasonCode", "")
            raise UnansweredError(f"the CSMS has none{': ' if reason else ''}{reason}")
        try:
            return base64.b64decode(data, validate=True)
        except ValueError as error:
            raise UnansweredError(f"the CSMS's answer is no base64: {error}") from error

    def contract(self, pem: str) -> Payload:
        """What Authorize says of a contract's chain (C07): the chain where it fits, and its OCSP data. Raises
        CertificateError."""
        chain = split(pem)
        found: Payload = {"certificate": pem} if len(pem) <= self.chain_length else {}
        links = [(c, i) for c, i in itertools.pairwise(chain) if responder(c)]
        if links:
            found["iso15118CertificateHashData"] = [ocsp_data(*link) for link in links[:CHAIN_ITEMS]]
        return found
