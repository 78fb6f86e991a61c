"""Certificates of V2G: the station's TLS contexts, and a test PKI made at run time.

Layout of a directory that a station (``tls.directory``) or a simulated vehicle uses; the names are those that the
iso15118 package wants for Plug and Charge::

    iso15118_2/certs/*.pem, *.der      chains on secp256r1 with SHA-256 (ISO 15118-2 annex F)
    iso15118_2/private_keys/*.key      with an empty *Password.txt beside, as the package asks for one
    iso15118_20/...                    the same on secp521r1 with SHA-512 (ISO 15118-20 annex B)
    .../certs/crl.pem                  optional: revoked vehicle certificates

``robot-charger pki DIRECTORY`` writes ``DIRECTORY/station``, ``DIRECTORY/vehicle`` and ``DIRECTORY/operator`` with what
each side may have. The keys of the authorities are not kept, but for the one under which the mobility operator issues
contracts: a test PKI is made anew instead of being extended.
"""

from __future__ import annotations

import datetime
import os
import ssl
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import click
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

ISO_2, ISO_20 = "iso15118_2", "iso15118_20"
CONTRACT = "DEEKXC00000001"  # e-mobility account identifier of the test contract
PCID = "WMIV1234567890ABCDEX"  # provisioning certificate id of the test vehicle

# TLS 1.2 suites of ISO 15118-2 (table 7), the second for what vehicles use today; static ECDH is gone from OpenSSL.
CIPHERS_12 = "ECDHE-ECDSA-AES128-SHA256:ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384"


class PkiError(ValueError):
    """Certificates are missing or do not fit; the text says which."""


@dataclass(frozen=True)
class Contexts:
    """What a TLS listener offers: one context per version, chosen by the vehicle's ClientHello."""

    tls12: ssl.SSLContext
    tls13: ssl.SSLContext | None  # mutual; None where there are no certificates of ISO 15118-20


def _certs(directory: Path, version: str, name: str) -> str:
    path = directory / version / "certs" / name
    if not path.is_file():
        raise PkiError(f"certificate {path} is missing")
    return str(path)


def _key(directory: Path, version: str, name: str) -> str:
    path = directory / version / "private_keys" / name
    if not path.is_file():
        raise PkiError(f"private key {path} is missing")
    return str(path)


def _load(context: ssl.SSLContext, chain: str, key: str) -> None:
    try:
        context.load_cert_chain(chain, key, password="")
    except ssl.SSLError as error:
        raise PkiError(f"{chain} and {key} do not belong together: {error.reason}") from error


def station_contexts(directory: Path, pnc: bool = False) -> Contexts:
    """The SECC's TLS contexts. Raises PkiError when a file is missing, does not fit or has expired.

    ``pnc``: Plug and Charge is offered, which needs the mobility operators' root.
    """
    if pnc:
        _certs(directory, ISO_2, "moRootCACert.der")
    tls12 = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls12.minimum_version = tls12.maximum_version = ssl.TLSVersion.TLSv1_2
    tls12.set_ciphers(CIPHERS_12)
    tls12.set_ecdh_curve("prime256v1")
    chain = _certs(directory, ISO_2, "cpoCertChain.pem")
    _load(tls12, chain, _key(directory, ISO_2, "seccLeaf.key"))
    check_validity(Path(chain))
    if not (directory / ISO_20).is_dir():
        return Contexts(tls12, None)
    tls13 = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls13.minimum_version = ssl.TLSVersion.TLSv1_3
    tls13.set_ecdh_curve("secp521r1")
    chain = _certs(directory, ISO_20, "cpoCertChain.pem")
    _load(tls13, chain, _key(directory, ISO_20, "seccLeaf.key"))
    check_validity(Path(chain))
    tls13.load_verify_locations(_certs(directory, ISO_20, "oemRootCACert.pem"))
    tls13.verify_mode = ssl.CERT_REQUIRED  # the vehicle authenticates itself ([V2G20-2400])
    revoked = directory / ISO_20 / "certs" / "crl.pem"
    if revoked.is_file():
        tls13.load_verify_locations(str(revoked))
        tls13.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    return Contexts(tls12, tls13)


def vehicle_context(directory: Path, tls13: bool) -> ssl.SSLContext:
    """The EVCC's TLS context: the V2G root it trusts and, for TLS 1.3, its own certificate. Raises PkiError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # an SECC has no name, its chain is what counts
    version = ISO_20 if tls13 else ISO_2
    context.load_verify_locations(_certs(directory, version, "v2gRootCACert.pem"))
    if not tls13:
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(CIPHERS_12)
        return context
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_ecdh_curve("secp521r1")
    if (directory / ISO_20 / "certs" / "oemCertChain.pem").is_file():
        _load(context, _certs(directory, ISO_20, "oemCertChain.pem"), _key(directory, ISO_20, "oemLeaf.key"))
    return context


def operator_root(directory: Path) -> bytes:
    """The root certificate of the mobility operators that this station knows [DER]. Raises PkiError."""
    return Path(_certs(directory, ISO_2, "moRootCACert.der")).read_bytes()


def check_validity(chain: Path) -> None:
    """Every certificate of a PEM file is valid now. Raises PkiError."""
    now = datetime.datetime.now(datetime.timezone.utc)
    for certificate in x509.load_pem_x509_certificates(chain.read_bytes()):
        name = certificate.subject.rfc4514_string()
        if now > certificate.not_valid_after_utc:
            raise PkiError(f"{chain}: {name} expired on {certificate.not_valid_after_utc:%Y-%m-%d}")
        if now < certificate.not_valid_before_utc:
            raise PkiError(f"{chain}: {name} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d}")


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
    path = Path(_certs(directory, ISO_2, "moSubCA2Cert.pem"))
    key = serialization.load_pem_private_key(Path(_key(directory, ISO_2, "moSubCA2.key")).read_bytes(), None)
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
