"""Certificates of the station: roots, its own key and chain, and what OCPP asks of them.

All lie as PEM files in one folder (mode 0700): ``<kind>-<hash>.pem`` for roots, ``station.pem`` and ``station.key``
for the chain and key that the CSMS had signed. Other nodes may read the V2G and MO roots from there.
"""

from __future__ import annotations

import contextlib
import logging
import os
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from robot_charger.backend.records import Payload

KINDS = {
    "CSMSRootCertificate": "csms-root",
    "V2GRootCertificate": "v2g-root",
    "MORootCertificate": "mo-root",
    "ManufacturerRootCertificate": "manufacturer-root",
    "OEMRootCertificate": "oem-root",
    "CentralSystemRootCertificate": "csms-root",
}
MAKER = "ManufacturerRootCertificate"
MAX_CERTIFICATES = 100
log = logging.getLogger("robot_charger.backend")


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


CODE_SIGNING = "codeSigning"  # of what a certificate is used for: who signs firmware
CLIENT = "clientAuth"  # the station itself, towards its CSMS
_PURPOSE = {CODE_SIGNING: ExtendedKeyUsageOID.CODE_SIGNING, CLIENT: ExtendedKeyUsageOID.CLIENT_AUTH}
MAX_DEPTH = 5  # certificates between leaf and root


def check_chain(
    chain: list[x509.Certificate], roots: list[x509.Certificate], moment: datetime, purpose: str = CLIENT
) -> None:
    """Path validation (RFC 5280, section 6) from the leaf, which comes first, to one of ``roots``.

    Signatures, names, validity, CA flag, path length, key usage and critical extensions; the leaf is no CA and its
    extended key usage names ``purpose`` (a signer of firmware must have one, the station's own certificate may lack
    it). Raises CertificateError.
    """
    if not chain or not roots:
        raise CertificateError(
            "there is no certificate" if not chain else "no root is installed that could vouch for it"
        )
    try:
        from cryptography.x509 import verification  # here: before cryptography 45 there is no ExtensionPolicy

        criticality = verification.Criticality.AGNOSTIC
        wanted = _PURPOSE[purpose]

        def leaf_usage(policy: Any, certificate: x509.Certificate, usage: x509.ExtendedKeyUsage | None) -> None:
            if usage is not None and wanted not in usage:
                raise ValueError(f"the certificate is not for {purpose}")

        def issuer_usage(policy: Any, certificate: x509.Certificate, usage: x509.ExtendedKeyUsage | None) -> None:
            if usage is not None and not {wanted, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & set(usage):
                raise ValueError(f"the issuer is not for {purpose}")

        leaf = (
            verification.ExtensionPolicy.permit_all()
            .may_be_present(x509.BasicConstraints, criticality, _leaf_is_no_ca)
            .may_be_present(x509.KeyUsage, criticality, _leaf_signs)
        )
        demand = leaf.require_present if purpose == CODE_SIGNING else leaf.may_be_present
        leaf = demand(x509.ExtendedKeyUsage, criticality, leaf_usage)
        issuer = (
            verification.ExtensionPolicy.permit_all()
            .require_present(x509.BasicConstraints, criticality, _issuer_is_ca)
            .may_be_present(x509.KeyUsage, criticality, _issuer_signs)
            .may_be_present(x509.ExtendedKeyUsage, criticality, issuer_usage)
        )
        verifier = (
            verification.PolicyBuilder()
            .store(verification.Store(roots))
            .time(moment)
            .max_chain_depth(MAX_DEPTH)
            .extension_policies(ee_policy=leaf, ca_policy=issuer)
            .build_client_verifier()
        )
        verifier.verify(chain[0], chain[1:])
    except (ImportError, AttributeError) as error:
        raise CertificateError(f"the cryptography library is too old to check a chain: {error}") from error
    except (verification.VerificationError, ValueError) as error:
        raise CertificateError(f"the chain is not valid: {str(error).split(' (encountered')[0]}") from error


def _leaf_is_no_ca(policy: Any, certificate: x509.Certificate, found: x509.BasicConstraints | None) -> None:
    if found is not None and found.ca:
        raise ValueError("the signer is a certificate authority")


def _leaf_signs(policy: Any, certificate: x509.Certificate, found: x509.KeyUsage | None) -> None:
    if found is not None and not found.digital_signature:
        raise ValueError("the key is not for digital signatures")


def _issuer_is_ca(policy: Any, certificate: x509.Certificate, found: x509.BasicConstraints) -> None:
    if not found.ca:
        raise ValueError("the issuer is no certificate authority")


def _issuer_signs(policy: Any, certificate: x509.Certificate, found: x509.KeyUsage | None) -> None:
    if found is not None and not found.key_cert_sign:
        raise ValueError("the issuer's key is not for certificates")


def check_root(certificate: x509.Certificate) -> None:
    """A root vouches for others: CA flag, keyCertSign, signed by itself. Raises CertificateError."""
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound as error:
        raise CertificateError("no certificate authority: it has no basicConstraints") from error
    except ValueError as error:
        raise CertificateError(f"its extensions cannot be read: {error}") from error
    if not constraints.ca:
        raise CertificateError("no certificate authority")
    with contextlib.suppress(x509.ExtensionNotFound):
        if not certificate.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign:
            raise CertificateError("its key is not for certificates")
    if not issued_by(certificate, certificate):
        raise CertificateError("not signed by itself")


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


def verify_signature(certificate: x509.Certificate, signature: bytes, digest: bytes) -> None:
    """A signature over what has this SHA-256 (RSA-PSS, RSA PKCS#1 or ECDSA). Raises CertificateError."""
    key = certificate.public_key()
    form = Prehashed(hashes.SHA256())
    if isinstance(key, ec.EllipticCurvePublicKey):
        with contextlib.suppress(InvalidSignature):
            key.verify(signature, digest, ec.ECDSA(form))
            return
    elif isinstance(key, rsa.RSAPublicKey):
        for how in (padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.AUTO), padding.PKCS1v15()):
            with contextlib.suppress(InvalidSignature):
                key.verify(signature, digest, how, form)
                return
    raise CertificateError("the signature does not fit")


class Certificates:
    """``maker_roots`` sign firmware; they were put on the station at commissioning (parameter firmware.root_file).
    A CSMS may add roots of the maker only with ``maker_root_over_ocpp``."""

    def __init__(
        self, folder: Path, maker_roots: list[x509.Certificate] | None = None, maker_root_over_ocpp: bool = False
    ) -> None:
        self.folder = folder
        self._maker_roots = maker_roots or []
        self._maker_root_over_ocpp = maker_root_over_ocpp
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
        if kind == MAKER and not self._maker_root_over_ocpp:
            return list(self._maker_roots)  # pinned: what lies in the folder does not count
        pinned = self._maker_roots if kind == MAKER else []
        return pinned + [c for k, file in self._files() if KINDS[k] == wanted for c in split(file.read_text())]

    @property
    def count(self) -> int:
        return len(self._files())

    def install(self, kind: str, pem: str, moment: datetime) -> str:
        """OCPP InstallCertificateStatusEnumType."""
        if kind not in KINDS or (kind == MAKER and not self._maker_root_over_ocpp):
            return "Rejected"
        try:
            certificates = split(pem)
            if len(certificates) != 1:
                raise CertificateError("one certificate at a time")
            check_validity(certificates[0], moment)
            check_root(certificates[0])
        except CertificateError as error:
            log.warning("InstallCertificate %s refused: %s", kind, error)
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
        if kinds is None or MAKER in kinds:
            found += [(MAKER, hash_data(c, c)) for c in self._maker_roots]
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
        for kind, file in self._files():
            certificate = split(file.read_text())[0]
            have = hash_data(certificate, certificate)
            same = all(
                have[k].lower() == str(wanted[k]).lower().lstrip("0" if k == "serialNumber" else "")
                for k in ("issuerNameHash", "issuerKeyHash", "serialNumber")
            )
            if same and wanted["hashAlgorithm"] == "SHA256":
                if kind == MAKER and not self._maker_root_over_ocpp:
                    return "Failed"
                file.unlink()
                return "Accepted"
        return "Failed" if self._is_own(wanted) else "NotFound"

    def _is_own(self, wanted: Payload) -> bool:
        """The station's own certificate: it cannot be deleted over OCPP (M04.FR.06)."""
        file = self.chain_file
        if file is None:
            return False
        own = split(file.read_text())[0]
        number = str(wanted["serialNumber"]).lower().lstrip("0")
        return (
            number == f"{own.serial_number:x}"
            and _sha256(own.issuer.public_bytes()) == str(wanted["issuerNameHash"]).lower()
        )

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
