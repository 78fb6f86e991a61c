"""Certificates of the station: roots, its own key and chain, and what OCPP asks of them.

All lie as PEM files in one folder (mode 0700): ``<kind>-<hash>.pem`` for roots, ``station.pem`` and ``station.key``
for the chain and key that the CSMS had signed. Other nodes may read the V2G and MO roots from there.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID

from robot_charger.backend.records import Payload

KINDS = {
    "CSMSRootCertificate": "csms-root",
    "V2GRootCertificate": "v2g-root",
    "MORootCertificate": "mo-root",
    "ManufacturerRootCertificate": "manufacturer-root",
    "OEMRootCertificate": "oem-root",
    "CentralSystemRootCertificate": "csms-root",
}
MAX_CERTIFICATES = 100


class CertificateError(ValueError):
    """A certificate, chain or signature is not acceptable; the text says why."""


def split(pem: str) -> list[x509.Certificate]:
    """The certificates of a PEM chain. Raises CertificateError."""
    try:
        found = x509.load_pem_x509_certificates(pem.encode())
    except ValueError as error:
        raise CertificateError(f"no PEM certificate: {error}") from error
    return found


def check_validity(certificate: x509.Certificate, moment: datetime) -> None:
    if not certificate.not_valid_before_utc <= moment <= certificate.not_valid_after_utc:
        raise CertificateError(f"not valid at {moment:%Y-%m-%d}")


def issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """The issuer's key signed this certificate."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def check_chain(chain: list[x509.Certificate], roots: list[x509.Certificate], moment: datetime) -> None:
    """Leaf first; every link signed by the next, the last by a root. Raises CertificateError."""
    for certificate in chain:
        check_validity(certificate, moment)
    for certificate, issuer in itertools.pairwise(chain):
        if not issued_by(certificate, issuer):
            raise CertificateError("a link of the chain is not signed by the next")
    if not any(issued_by(chain[-1], root) or chain[-1] == root for root in roots):
        raise CertificateError("the chain ends at no installed root")


def hash_data(certificate: x509.Certificate, issuer: x509.Certificate) -> Payload:
    """OCPP CertificateHashDataType with SHA-256."""
    key = issuer.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return {
        "hashAlgorithm": "SHA256",
        "issuerNameHash": _sha256(certificate.issuer.public_bytes()),
        "issuerKeyHash": _sha256(_bit_string(key)),
        "serialNumber": f"{certificate.serial_number:x}",
    }


def _bit_string(public_key_info: bytes) -> bytes:
    """The key bits inside a DER SubjectPublicKeyInfo: SEQUENCE { SEQUENCE algorithm, BIT STRING }."""

    def header(data: bytes, at: int) -> tuple[int, int]:
        length = data[at + 1]
        if length < 0x80:
            return at + 2, length
        count = length & 0x7F
        return at + 2 + count, int.from_bytes(data[at + 2 : at + 2 + count], "big")

    start, _ = header(public_key_info, 0)
    inner, length = header(public_key_info, start)
    bits, length = header(public_key_info, inner + length)
    return public_key_info[bits + 1 : bits + length]  # the first byte counts unused bits


def _sha256(data: bytes) -> str:
    digest = hashes.Hash(hashes.SHA256())
    digest.update(data)
    return digest.finalize().hex()


def fingerprint(der: bytes) -> str:
    return _sha256(der)


def verify_signature(certificate: x509.Certificate, signature: bytes, data: bytes) -> None:
    """A signature over ``data`` (SHA-256; RSA-PSS, RSA PKCS#1 or ECDSA). Raises CertificateError."""
    key = certificate.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey):
        with contextlib.suppress(InvalidSignature):
            key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
            return
    elif isinstance(key, rsa.RSAPublicKey):
        for how in (padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.AUTO), padding.PKCS1v15()):
            with contextlib.suppress(InvalidSignature):
                key.verify(signature, data, how, hashes.SHA256())
                return
    raise CertificateError("the signature does not fit")


class Certificates:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)

    # Roots.
    def _files(self) -> list[tuple[str, Path]]:
        found = []
        for kind, prefix in KINDS.items():
            if kind != "CentralSystemRootCertificate":
                found += [(kind, file) for file in sorted(self.folder.glob(f"{prefix}-*.pem"))]
        return found

    def roots(self, kind: str) -> list[x509.Certificate]:
        wanted = KINDS[kind]
        return [c for k, file in self._files() if KINDS[k] == wanted for c in split(file.read_text())]

    @property
    def count(self) -> int:
        return len(self._files())

    def install(self, kind: str, pem: str, moment: datetime) -> str:
        """OCPP InstallCertificateStatusEnumType."""
        if kind not in KINDS:
            return "Rejected"
        try:
            certificates = split(pem)
            if len(certificates) != 1:
                raise CertificateError("one certificate at a time")
            check_validity(certificates[0], moment)
        except CertificateError:
            return "Rejected"
        if self.count >= MAX_CERTIFICATES:
            return "Rejected"
        name = f"{KINDS[kind]}-{fingerprint(certificates[0].public_bytes(serialization.Encoding.DER))[:16]}.pem"
        try:
            self._write(name, pem.encode())
        except OSError:
            return "Failed"
        return "Accepted"

    def installed(self, kinds: list[str] | None = None) -> list[tuple[str, Payload]]:
        """Kind and hash data of the installed roots, and of the station's own chain as V2GCertificateChain."""
        found = []
        for kind, file in self._files():
            if (
                kinds is None
                or kind in kinds
                or (kind == "CSMSRootCertificate" and "CentralSystemRootCertificate" in kinds)
            ):
                certificate = split(file.read_text())[0]
                found.append((kind, hash_data(certificate, certificate)))
        return found

    def delete(self, wanted: Payload) -> str:
        """OCPP DeleteCertificateStatusEnumType."""
        for _, file in self._files():
            certificate = split(file.read_text())[0]
            have = hash_data(certificate, certificate)
            same = all(
                have[k].lower() == str(wanted[k]).lower().lstrip("0" if k == "serialNumber" else "")
                for k in ("issuerNameHash", "issuerKeyHash", "serialNumber")
            )
            if same and wanted["hashAlgorithm"] == "SHA256":
                file.unlink()
                return "Accepted"
        return "NotFound"

    # The station's own.
    @property
    def chain_file(self) -> Path | None:
        """The chain the CSMS had signed, None before."""
        return self._own("station.pem")

    @property
    def key_file(self) -> Path | None:
        return self._own("station.key")

    def _own(self, name: str) -> Path | None:
        file = self.folder / name
        return file if file.exists() else None

    def request(self, station_id: str, organization: str) -> str:
        """A new key, kept aside, and its certificate signing request as PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        self._write(
            "station.key.new",
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
        )
        names = [x509.NameAttribute(NameOID.COMMON_NAME, station_id)]
        if organization:
            names.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names)).sign(key, hashes.SHA256())
        return request.public_bytes(serialization.Encoding.PEM).decode()

    def signed(self, pem: str, moment: datetime) -> None:
        """Take the chain for the key of the last request. Raises CertificateError: nothing changed."""
        pending = self.folder / "station.key.new"
        if not pending.exists():
            raise CertificateError("no certificate was asked for")
        key = serialization.load_pem_private_key(pending.read_bytes(), None)
        chain = split(pem)
        form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        if chain[0].public_key().public_bytes(*form) != key.public_key().public_bytes(*form):
            raise CertificateError("the certificate is not for the key that was sent")
        check_validity(chain[0], moment)
        roots = self.roots("CSMSRootCertificate") + self.roots("ManufacturerRootCertificate")
        if roots:
            check_chain(chain, roots, moment)
        self._write("station.pem", pem.encode())
        pending.replace(self.folder / "station.key")

    def expires(self) -> datetime | None:
        """End of the station's own certificate."""
        file = self.chain_file
        return split(file.read_text())[0].not_valid_after_utc if file else None

    def _write(self, name: str, data: bytes) -> None:
        new = self.folder / (name + ".part")
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.folder / name)
