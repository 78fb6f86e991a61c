"""TLS: sessions over 1.2 and 1.3, and every wrong certificate refused with a reason, never a fall-back to plain TCP."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from test_sessions import run

from robot_charger.common.faults import Code
from robot_charger.v2g import pki
from robot_charger.v2g.tls import offers_tls13


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pki")
    result = CliRunner().invoke(pki.command, [str(directory)])
    assert result.exit_code == 0, result.output
    return directory


def station(directory: Path) -> dict[str, Any]:
    return {
        "parameters": {
            "tls.required": True,
            "tls.directory": str(directory / "station"),
            "setup_timeout_s": 4.0,
        }
    }


def car(directory: Path, protocol: str, tls: bool = True) -> dict[str, Any]:
    return {"protocol": protocol, "options": {"tls": tls, "pki": str(directory / "vehicle")}}


@pytest.mark.parametrize(
    ("protocol", "version"), [("iso15118-2", "TLSv1.2"), ("iso15118-20", "TLSv1.3")], ids=["-2", "-20"]
)
@pytest.mark.integration
@pytest.mark.timeout(90)
def test_sessions_over_tls(sim_directory: Path, good: Path, protocol: str, version: str) -> None:
    secc, (evcc,) = run(sim_directory, station(good), car(good, protocol))
    assert evcc["result"] == "ended", (evcc, secc["sessions"])
    assert evcc["tls"] == version
    assert secc["sessions"][0]["phase"] == "ENDED"


@pytest.mark.integration
@pytest.mark.timeout(90)
def test_a_vehicle_without_tls_is_refused(sim_directory: Path, good: Path) -> None:
    secc, (evcc,) = run(sim_directory, station(good), car(good, "iso15118-2", tls=False))
    assert "answered with TLS" in evcc["text"]
    assert secc["sessions"][0]["error"] == Code.V2G_TIMEOUT


@pytest.mark.parametrize("wrong", ["other root", "expired", "revoked", "missing"])
@pytest.mark.integration
@pytest.mark.timeout(90)
def test_a_wrong_vehicle_certificate_is_refused(sim_directory: Path, tmp_path: Path, wrong: str) -> None:
    pki.make(tmp_path, expired={"oemLeaf"} if wrong == "expired" else (), revoked=wrong == "revoked")
    certs = tmp_path / "vehicle" / pki.ISO_20 / "certs"
    if wrong == "other root":
        pki.make(tmp_path / "other")
        for name in ("certs/oemCertChain.pem", "private_keys/oemLeaf.key"):
            target = tmp_path / "vehicle" / pki.ISO_20 / name
            target.write_bytes((tmp_path / "other" / "vehicle" / pki.ISO_20 / name).read_bytes())
    elif wrong == "missing":
        (certs / "oemCertChain.pem").unlink()
    secc, (evcc,) = run(sim_directory, station(tmp_path), car(tmp_path, "iso15118-20"))
    assert evcc["result"] == "failed"
    (session,) = secc["sessions"]
    assert session["error"] == Code.V2G_TLS, session
    reasons = {
        "other root": "issuer",
        "expired": "expired",
        "revoked": "revoked",
        "missing": "CERTIFICATE",
    }
    assert reasons[wrong] in session["text"]


@pytest.mark.integration
@pytest.mark.timeout(90)
def test_a_station_of_another_root_is_refused_by_the_vehicle(sim_directory: Path, good: Path, tmp_path: Path) -> None:
    pki.make(tmp_path)
    secc, (evcc,) = run(sim_directory, station(tmp_path), car(good, "iso15118-2"))
    assert "CERTIFICATE_VERIFY_FAILED" in evcc["text"]
    assert secc["sessions"][0]["error"] == Code.V2G_TLS


@pytest.mark.parametrize("case", ["good", "not wanted", "other root", "expired"])
@pytest.mark.integration
@pytest.mark.timeout(90)
def test_plug_and_charge(sim_directory: Path, good: Path, tmp_path: Path, case: str) -> None:
    directory = good
    if case != "good":
        pki.make(tmp_path, expired={"contractLeaf"} if case == "expired" else ())
        directory = tmp_path
    if case == "other root":  # a contract of an operator this station does not know
        source = good / "vehicle" / pki.ISO_2
        for name in ("contractLeaf", "moSubCA1", "moSubCA2"):
            target = tmp_path / "vehicle" / pki.ISO_2 / "certs" / f"{name}Cert.der"
            target.write_bytes((source / "certs" / f"{name}Cert.der").read_bytes())
        key = "private_keys/contractLeaf.key"
        (tmp_path / "vehicle" / pki.ISO_2 / key).write_bytes((source / key).read_bytes())
    secc = station(directory)
    secc["parameters"]["pnc"] = True
    secc["pki"] = str(directory / "station")
    evcc = car(directory, "iso15118-2")
    evcc["options"]["pnc"] = case != "not wanted"
    result, (vehicle,) = run(sim_directory, secc, evcc)
    (session,) = result["sessions"]
    if case in ("good", "not wanted"):
        assert vehicle["result"] == "ended", (vehicle, session)
        assert session["contract"] == (case == "good")
        assert session["identity"] == (pki.CONTRACT if case == "good" else "")
    else:
        assert vehicle["result"] == "failed"
        assert (session["phase"], session["error"]) == ("FAILED", Code.AUTHORIZATION), session
        assert ("expired" if case == "expired" else "not issued under") in session["text"]
        assert pki.CONTRACT not in session["text"]
        assert session["max_current_a"] == 0.0


@pytest.mark.parametrize("wrong", [False, True], ids=["good", "wrong reading"])
@pytest.mark.integration
@pytest.mark.timeout(90)
def test_the_vehicle_signs_metering_receipts(sim_directory: Path, good: Path, wrong: bool) -> None:
    secc = station(good)
    secc["parameters"] |= {"pnc": True, "receipt_s": 0.4}
    secc["pki"] = str(good / "station")
    evcc = car(good, "iso15118-2")
    evcc["options"] |= {"pnc": True, "wrong_receipt": wrong}
    result, (vehicle,) = run(sim_directory, secc, evcc)
    (session,) = result["sessions"]
    if wrong:
        assert (session["phase"], session["error"]) == ("FAILED", Code.AUTHORIZATION), session
        assert "metering receipt refused" in session["text"]
        assert result["names"].count("MeteringReceiptReq") == 1
        return
    assert vehicle["result"] == "ended", (vehicle, session)
    assert vehicle["receipts"] >= 2
    assert result["names"].count("MeteringReceiptRes") == vehicle["receipts"]


def test_certificates_that_do_not_fit_are_told(good: Path, tmp_path: Path) -> None:
    with pytest.raises(pki.PkiError, match="is missing"):
        pki.station_contexts(tmp_path)
    pki.make(tmp_path, expired={"seccLeaf"})
    with pytest.raises(pki.PkiError, match="expired on"):
        pki.station_contexts(tmp_path / "station")
    key = tmp_path / "station" / pki.ISO_2 / "private_keys" / "seccLeaf.key"
    assert key.stat().st_mode & 0o077 == 0
    key.write_bytes((good / "station" / pki.ISO_2 / "private_keys" / "seccLeaf.key").read_bytes())
    with pytest.raises(pki.PkiError, match="do not belong together"):
        pki.station_contexts(tmp_path / "station")


def client_hello(context: ssl.SSLContext) -> bytes:
    """The first flight of a TLS client."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def test_the_hello_tells_the_version(good: Path) -> None:
    for tls13 in (False, True):
        hello = client_hello(pki.vehicle_context(good / "vehicle", tls13))
        assert offers_tls13(hello) is tls13
        for end in range(len(hello)):
            assert offers_tls13(hello[:end]) is None


@given(st.binary(max_size=300))
def test_any_hello_is_survived(data: bytes) -> None:
    for hello in (data, b"\x16\x03\x01" + len(data).to_bytes(2, "big") + data):
        try:
            assert offers_tls13(hello) in (True, False, None)
        except ValueError as error:
            assert str(error)
