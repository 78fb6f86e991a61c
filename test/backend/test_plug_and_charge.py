"""Plug and Charge at the CSMS: contracts shown, contract certificates for vehicles, certificates asked after."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp

from robot_charger.backend.records import Token
from robot_charger.backend.security import CertificateError

from .certificates import Authority
from .conftest import Live, wait_for

Make = Callable[..., Live]
URN = "urn:iso:15118:2:2013:MsgDef"
EMAID = Token("DEADBEEF", "eMAID")
RESPONDER = "http://ocsp.example.net/"


@pytest.fixture(params=["2.0.1", "2.1"])
def desk(request: pytest.FixtureRequest, live: Make) -> Live:
    found = live(version=request.param)
    found.online()
    return found


@pytest.fixture
def chain(tmp_path: Path) -> tuple[str, x509.Certificate, x509.Certificate]:
    """PEM of a leaf and its issuer, and both."""
    authority = Authority(tmp_path, ocsp=RESPONDER)
    file, _ = authority.issue("leaf")
    leaf = x509.load_pem_x509_certificate(file.read_bytes())
    return file.read_text() + authority.pem, leaf, authority.certificate


def asked(desk: Live, question: Callable[..., None], *arguments: Any) -> tuple[bytes, str]:
    found: list[tuple[bytes, str]] = []
    question(*arguments, lambda data, text: found.append((data, text)))
    return wait_for(lambda: found, what="an answer")[0]


def contract(desk: Live, pem: str) -> str:
    found: list[Any] = []
    desk.service.authorize(1, "", EMAID, pem, found.append)
    return str(wait_for(lambda: found)[0].status)


def test_a_vehicle_gets_its_contract_certificate_from_the_csms(desk: Live) -> None:
    """M01, M02: the vehicle's words and the answer pass through as they are."""
    desk.csms.answers["Get15118EVCertificate"] = lambda station, payload: {
        "status": "Accepted",
        "exiResponse": base64.b64encode(b"\x80\x98answer").decode(),
    }
    ask = desk.service.vehicle_certificate
    assert asked(desk, ask, URN, False, b"\x80\x98request") == (b"\x80\x98answer", "")
    assert asked(desk, ask, URN, True, b"\x80\x98again") == (b"\x80\x98answer", "")
    first, second = desk.received("Get15118EVCertificate")
    assert (first["action"], second["action"], first["iso15118SchemaVersion"]) == ("Install", "Update", URN)
    assert base64.b64decode(first["exiRequest"]) == b"\x80\x98request"
    data, text = asked(desk, ask, URN, False, bytes(20_000))
    assert data == b"" and "20000 bytes" in text


def test_a_csms_without_contracts_or_with_nonsense_is_told_in_words(desk: Live) -> None:
    ask = desk.service.vehicle_certificate
    assert asked(desk, ask, URN, False, b"x") == (b"", "the CSMS has none")
    desk.csms.answers["Get15118EVCertificate"] = lambda station, payload: {"status": "Accepted", "exiResponse": "§"}
    assert "base64" in asked(desk, ask, URN, False, b"x")[1]
    desk.fault("csms-gone")
    wait_for(lambda: not desk.service.client.connected)
    assert asked(desk, ask, URN, False, b"x") == (b"", "not connected")


def test_how_a_certificate_stands_is_asked_by_its_hashes(desk: Live, chain: Any) -> None:
    """M06; the hashes as another implementation makes them."""
    pem, leaf, issuer = chain
    desk.csms.answers["GetCertificateStatus"] = lambda station, payload: {
        "status": "Accepted",
        "ocspResult": base64.b64encode(b"response").decode(),
    }
    assert asked(desk, desk.service.certificate_status, pem) == (b"response", "")
    [told] = desk.received("GetCertificateStatus")
    request = ocsp.OCSPRequestBuilder().add_certificate(leaf, issuer, hashes.SHA256()).build()
    data = told["ocspRequestData"]
    assert (data["issuerNameHash"], data["issuerKeyHash"]) == (
        request.issuer_name_hash.hex(),
        request.issuer_key_hash.hex(),
    )
    assert int(data["serialNumber"], 16) == leaf.serial_number and data["responderURL"] == RESPONDER
    alone = leaf.public_bytes(serialization.Encoding.PEM).decode()
    assert "1 certificates" in asked(desk, desk.service.certificate_status, alone)[1]


def test_a_contract_is_shown_with_its_chain_and_a_revoked_one_is_refused(desk: Live, chain: Any) -> None:
    """C07: what the CSMS says of the certificate counts, not only what it says of the name in it."""
    pem, _, _ = chain
    assert contract(desk, pem) == "Accepted"
    [told] = desk.received("Authorize")
    assert told["certificate"] == pem and told["idToken"] == {"idToken": "DEADBEEF", "type": "eMAID"}
    assert [d["responderURL"] for d in told["iso15118CertificateHashData"]] == [RESPONDER]
    desk.csms.answers["Authorize"] = lambda station, payload: {
        "idTokenInfo": {"status": "Accepted"},
        "certificateStatus": "CertificateRevoked",
    }
    assert contract(desk, pem) == "Invalid"
    assert contract(desk, "no PEM at all") == "Invalid"


def test_a_chain_too_long_for_the_version_goes_as_hashes_only(desk: Live, chain: Any) -> None:
    pem, _, _ = chain
    pnc = desk.service.dialect.plug_and_charge
    told = pnc.contract(pem + "\n" * 10_000)
    assert "certificate" not in told and len(told["iso15118CertificateHashData"]) == 1


def test_a_certificate_without_a_responder_cannot_be_asked_after(desk: Live, tmp_path: Path) -> None:
    (tmp_path / "mute").mkdir()
    authority = Authority(tmp_path / "mute")
    file, _ = authority.issue("leaf")
    with pytest.raises(CertificateError, match="no OCSP responder"):
        desk.service.dialect.plug_and_charge.certificate_status(file.read_text() + authority.pem)


def test_ocpp_1_6_says_that_it_cannot(live: Make) -> None:
    desk = live(version="1.6")
    desk.online()
    assert "1.6" in asked(desk, desk.service.vehicle_certificate, URN, False, b"x")[1]
