"""A test PKI made at run time, in the layout of ``certificates.py``.

``robot-charger pki DIRECTORY`` writes ``DIRECTORY/station``, ``DIRECTORY/vehicle`` and ``DIRECTORY/operator`` with what
each side may have. The keys of the authorities are not kept, but for the one under which the mobility operator issues
contracts: a test PKI is made again instead of being extended.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import click
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from robot_charger.v2g.certificates import (
    ISO_2,
    ISO_20,
    Contexts,
    PkiError,
    certificate_path,
    check_validity,
    key_path,
    operator_root,
    station_contexts,
    vehicle_context,
)

__all__ = [
    "CONTRACT",
    "ISO_2",
    "ISO_20",
    "PCID",
    "Contexts",
    "PkiError",
    "check_validity",
    "command",
    "make",
    "new_contract",
    "operator_root",
    "station_contexts",
    "vehicle_context",
]

CONTRACT = "DEEKXC00000001"  # e-mobility account identifier of the test contract
PCID = "WMIV1234567890ABCDEX"  # provisioning certificate id of the test vehicle


# A test PKI.
@dataclass
class _Issued:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


class _Authority:
    """Issues the certificates of one version of the standard."""

    def __init__(
        self, curve: ec.EllipticCurve, digest: hashes.SHA256 | hashes.SHA512, days: int, expired: Collection[str]
    ):
        self._curve = curve
        self._digest = digest
        self._days = days
        self._expired = expired

    def issue(self, name: str, common_name: str, domain: str, parent: _Issued | None, path: int | None) -> _Issued:
        """``path``: path length of a CA, None = a leaf. A parent of None makes a root."""
        key = ec.generate_private_key(self._curve)
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, common_name),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "robot_charger test"),
                x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"),
                x509.NameAttribute(NameOID.DOMAIN_COMPONENT, domain),
            ]
        )
        now = datetime.datetime.now(datetime.timezone.utc)
        end = now - datetime.timedelta(days=1) if name in self._expired else now + datetime.timedelta(days=self._days)
        usage = x509.KeyUsage(
            digital_signature=path is None,
            content_commitment=path is None,
            key_encipherment=path is None,
            data_encipherment=False,
            key_agreement=path is None,
            key_cert_sign=path is not None,
            crl_sign=path is not None,
            encipher_only=False,
            decipher_only=False,
        )
        signer = parent.key if parent else key
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(parent.certificate.subject if parent else subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=2))
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=path is not None, path_length=path), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()),
                critical=False,
            )
        )
        if name == "contractLeaf":
            # The package insists on a place to ask for revocation when it hashes the chain for the back end.
            access = x509.AccessDescription(
                x509.oid.AuthorityInformationAccessOID.OCSP,
                x509.UniformResourceIdentifier("http://127.0.0.1/ocsp"),
            )
            builder = builder.add_extension(x509.AuthorityInformationAccess([access]), critical=False)
        return _Issued(builder.sign(signer, self._digest), key)

    def revoke(self, authority: _Issued, leaf: _Issued) -> x509.CertificateRevocationList:
        """A list of ``authority`` that names ``leaf``."""
        now = datetime.datetime.now(datetime.timezone.utc)
        entry = x509.RevokedCertificateBuilder().serial_number(leaf.certificate.serial_number).revocation_date(now)
        return (
            x509.CertificateRevocationListBuilder()
            .issuer_name(authority.certificate.subject)
            .last_update(now)
            .next_update(now + datetime.timedelta(days=self._days))
            .add_revoked_certificate(entry.build())
            .sign(authority.key, self._digest)
        )


def new_contract(
    directory: Path, account: str = CONTRACT, days: int = 60
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """A fresh contract certificate under the mobility operator of a test PKI's ``operator`` directory, and its key."""
    path = Path(certificate_path(directory, ISO_2, "moSubCA2Cert.pem"))
    key = serialization.load_pem_private_key(Path(key_path(directory, ISO_2, "moSubCA2.key")).read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    operator = _Issued(x509.load_pem_x509_certificate(path.read_bytes()), key)
    made = _Authority(ec.SECP256R1(), hashes.SHA256(), days, ()).issue("contractLeaf", account, "MO", operator, None)
    return made.certificate, made.key


def make(
    directory: Path,
    days: int = 60,
    secc_id: str = "DE*EKX*E1",
    expired: Collection[str] = (),
    revoked: bool = False,
) -> None:
    """Write a test PKI: ``directory/station``, ``directory/vehicle`` and, for ISO 15118-2, ``directory/operator``.

    ``expired`` names certificates (seccLeaf, oemLeaf, contractLeaf ...) to make with a past end; ``revoked`` adds a
    list that revokes the vehicle's certificate. Private keys are readable by their owner only.
    """
    for version, curve, digest in (
        (ISO_2, ec.SECP256R1(), hashes.SHA256()),
        (ISO_20, ec.SECP521R1(), hashes.SHA512()),
    ):
        authority = _Authority(curve, digest, days, expired)
        issued: dict[str, _Issued] = {}

        def chain(
            prefix: str,
            leaf: str,
            common_name: str,
            domain: str,
            root: str,
            authority: _Authority = authority,
            issued: dict[str, _Issued] = issued,
        ) -> None:
            if root not in issued:
                issued[root] = authority.issue(root, root, "V2G" if root == "v2gRootCA" else domain, None, 2)
            one, two = f"{prefix}SubCA1", f"{prefix}SubCA2"
            issued[one] = authority.issue(one, one, domain, issued[root], 1)
            issued[two] = authority.issue(two, two, domain, issued[one], 0)
            issued[leaf] = authority.issue(leaf, common_name, domain, issued[two], None)

        chain("cpo", "seccLeaf", secc_id, "CPO", "v2gRootCA")
        chain("cps", "cpsLeaf", "CPS", "CPS", "v2gRootCA")
        chain("oem", "oemLeaf", PCID, "OEM", "oemRootCA")
        chain("mo", "contractLeaf", CONTRACT, "MO", "moRootCA")
        station = ["v2gRootCA", "cpoSubCA1", "cpoSubCA2", "seccLeaf", "oemRootCA", "moRootCA"]
        vehicle = ["v2gRootCA", "oemRootCA", "oemSubCA1", "oemSubCA2", "oemLeaf"]
        vehicle += ["moRootCA", "moSubCA1", "moSubCA2", "contractLeaf"]
        _write(directory / "station" / version, issued, station, "seccLeaf", "cpo")
        _write(directory / "vehicle" / version, issued, vehicle, "oemLeaf", "oem")
        _write_key(directory / "vehicle" / version, "contractLeaf", issued["contractLeaf"])
        if version == ISO_2:  # who issues contracts (MO) and who signs them for the vehicle (CPS)
            operator = ["v2gRootCA", "cpsSubCA1", "cpsSubCA2", "cpsLeaf", "moSubCA1", "moSubCA2"]
            _write(directory / "operator" / version, issued, operator, "cpsLeaf", "cps")
            _write_key(directory / "operator" / version, "moSubCA2", issued["moSubCA2"])
        if revoked:
            crl = authority.revoke(issued["oemSubCA2"], issued["oemLeaf"])
            path = directory / "station" / version / "certs" / "crl.pem"
            path.write_bytes(crl.public_bytes(serialization.Encoding.PEM))


def _write(directory: Path, issued: dict[str, _Issued], names: list[str], leaf: str, prefix: str) -> None:
    certs = directory / "certs"
    certs.mkdir(parents=True, exist_ok=True)
    for name in names:
        certificate = issued[name].certificate
        for ending, kind in (("pem", serialization.Encoding.PEM), ("der", serialization.Encoding.DER)):
            (certs / f"{name}Cert.{ending}").write_bytes(certificate.public_bytes(kind))
    chain = [issued[name].certificate for name in (leaf, f"{prefix}SubCA2", f"{prefix}SubCA1")]
    pem = b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in chain)
    (certs / f"{prefix}CertChain.pem").write_bytes(pem)
    _write_key(directory, leaf, issued[leaf])


def _write_key(directory: Path, name: str, issued: _Issued) -> None:
    keys = directory / "private_keys"
    keys.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = keys / f"{name}.key"
    path.touch(mode=0o600)
    os.chmod(path, 0o600)
    path.write_bytes(
        issued.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    (keys / f"{name}Password.txt").touch(mode=0o600)


@click.command("pki")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@click.option("--days", type=click.IntRange(1, 3650), default=60, show_default=True, help="Validity.")
@click.option("--secc-id", default="DE*EKX*E1", show_default=True, help="Common name of the station's certificate.")
def command(directory: Path, days: int, secc_id: str) -> None:
    """Make a test PKI for V2G: DIRECTORY/station (tls.directory), DIRECTORY/vehicle and DIRECTORY/operator (who issues
    contracts). Never for a real station."""
    make(directory, days, secc_id)
    click.echo(f"{directory}/station, vehicle and operator are valid for {days} days; for tests only")
