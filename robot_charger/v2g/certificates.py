"""The station's certificates: TLS contexts, and whose contracts it accepts.

Layout of a directory that a station (``tls.directory``) or a simulated vehicle uses::

    iso15118_2/certs/*.pem, *.der      chains on secp256r1 with SHA-256 (ISO 15118-2 annex F)
    iso15118_2/private_keys/*.key      with an empty *Password.txt beside, as the iso15118 package asks for one
    iso15118_20/...                    the same on secp521r1 with SHA-512 (ISO 15118-20 annex B)
    .../certs/crl.pem                  optional: revoked vehicle certificates

``cryptography`` is imported where certificates are read: without TLS a station saves 10 MB.
"""

from __future__ import annotations

import datetime
import ssl
from dataclasses import dataclass
from pathlib import Path

ISO_2, ISO_20 = "iso15118_2", "iso15118_20"

# TLS 1.2 suites of ISO 15118-2 (table 7), the second for what vehicles use today; static ECDH is gone from OpenSSL.
CIPHERS_12 = "ECDHE-ECDSA-AES128-SHA256:ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384"


class PkiError(ValueError):
    """Certificates are missing or do not fit; the text says which."""


@dataclass(frozen=True)
class Contexts:
    """What a TLS listener offers: one context per version, chosen by the vehicle's ClientHello."""

    tls12: ssl.SSLContext
    tls13: ssl.SSLContext | None  # mutual; None where there are no certificates of ISO 15118-20


def certificate_path(directory: Path, version: str, name: str) -> str:
    path = directory / version / "certs" / name
    if not path.is_file():
        raise PkiError(f"certificate {path} is missing")
    return str(path)


def key_path(directory: Path, version: str, name: str) -> str:
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
        certificate_path(directory, ISO_2, "moRootCACert.der")
    tls12 = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls12.minimum_version = tls12.maximum_version = ssl.TLSVersion.TLSv1_2
    tls12.set_ciphers(CIPHERS_12)
    tls12.set_ecdh_curve("prime256v1")
    chain = certificate_path(directory, ISO_2, "cpoCertChain.pem")
    _load(tls12, chain, key_path(directory, ISO_2, "seccLeaf.key"))
    check_validity(Path(chain))
    if not (directory / ISO_20).is_dir():
        return Contexts(tls12, None)
    tls13 = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls13.minimum_version = ssl.TLSVersion.TLSv1_3
    tls13.set_ecdh_curve("secp521r1")
    chain = certificate_path(directory, ISO_20, "cpoCertChain.pem")
    _load(tls13, chain, key_path(directory, ISO_20, "seccLeaf.key"))
    check_validity(Path(chain))
    tls13.load_verify_locations(certificate_path(directory, ISO_20, "oemRootCACert.pem"))
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
    context.load_verify_locations(certificate_path(directory, version, "v2gRootCACert.pem"))
    if not tls13:
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(CIPHERS_12)
        return context
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_ecdh_curve("secp521r1")
    if (directory / ISO_20 / "certs" / "oemCertChain.pem").is_file():
        _load(
            context, certificate_path(directory, ISO_20, "oemCertChain.pem"), key_path(directory, ISO_20, "oemLeaf.key")
        )
    return context


def operator_root(directory: Path) -> bytes:
    """The root certificate of the mobility operators that this station knows [DER]. Raises PkiError."""
    return Path(certificate_path(directory, ISO_2, "moRootCACert.der")).read_bytes()


def check_validity(chain: Path) -> None:
    """Every certificate of a PEM file is valid now. Raises PkiError."""
    from cryptography import x509

    now = datetime.datetime.now(datetime.timezone.utc)
    for certificate in x509.load_pem_x509_certificates(chain.read_bytes()):
        name = certificate.subject.rfc4514_string()
        if now > certificate.not_valid_after_utc:
            raise PkiError(f"{chain}: {name} expired on {certificate.not_valid_after_utc:%Y-%m-%d}")
        if now < certificate.not_valid_before_utc:
            raise PkiError(f"{chain}: {name} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d}")
