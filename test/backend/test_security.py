"""Security profiles, certificates and passwords, with certificates made here and now."""

from __future__ import annotations

import dataclasses
import os
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509 import ocsp

from robot_charger.backend.parameters import BackendParameters, plan
from robot_charger.backend.security import fingerprint
from robot_charger.common.faults import Code
from robot_charger.common.parameters import ParameterError
from robot_charger.sim.csms.journal import read
from robot_charger.sim.csms.server import CsmsThread

from .certificates import Authority
from .conftest import TAG, Live, wait_for

Make = Callable[..., Live]
PASSWORD = "correct-horse-battery"


@pytest.fixture
def password_file(tmp_path: Path) -> str:
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\n")
    file.chmod(0o600)
    return str(file)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def tls(authority: Authority, password_file: str, **more: object) -> dict[str, object]:
    return {
        "security_profile": 2,
        "allow_plain": False,
        "password_file": password_file,
        "tls__ca_file": str(authority.file),
        **more,
    }


def test_profile_1_needs_the_right_password(live: Make, password_file: str) -> None:
    desk = live(csms={"password": PASSWORD}, security_profile=1, password_file=password_file)
    desk.online()
    assert desk.authorize(TAG).accepted
    desk.csms.password = "another"
    desk.service.stop()
    desk.open()
    wait_for(lambda: Code.BACKEND_REFUSED in desk.faults)
    assert "401" in desk.faults[Code.BACKEND_REFUSED].text
    assert all(PASSWORD not in f.text for f in desk.seen)


def test_profile_2_checks_the_certificate_and_its_name(
    live: Make, authority: Authority, password_file: str, tmp_path: Path
) -> None:
    desk = live(csms={"tls": authority.server(), "password": PASSWORD}, **tls(authority, password_file))
    desk.online()
    assert desk.authorize(TAG).accepted
    socket = desk.service.client._socket
    assert socket and socket.transport.get_extra_info("ssl_object").version() in ("TLSv1.2", "TLSv1.3")
    desk.service.stop()
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other", "stranger")
    desk.parameters = dataclasses.replace(desk.parameters, tls__ca_file=str(stranger.file))
    desk.open()
    wait_for(lambda: Code.BACKEND_TLS in desk.faults)
    assert not desk.service.station.online
    desk.service.stop()
    desk.parameters = dataclasses.replace(desk.parameters, tls__ca_file=str(authority.file))
    desk.open()
    wait_for(lambda: desk.received("SecurityEventNotification"), what="the security event, told later")
    assert desk.received("SecurityEventNotification")[0]["type"] == "InvalidCsmsCertificate"
    wait_for(lambda: Code.BACKEND_TLS not in desk.faults)


def test_a_06_an_old_tls_is_refused_and_told(live: Make, authority: Authority, password_file: str) -> None:
    """A server that speaks no TLS that the station takes ends the handshake with the alert protocol_version."""

    def refuse() -> None:
        while True:
            try:
                there, _ = server.accept()
            except OSError:
                return
            there.recv(4096)
            there.sendall(b"\x15\x03\x03\x00\x02\x02\x46")
            there.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=refuse, daemon=True).start()
        url = f"wss://localhost:{server.getsockname()[1]}"
        desk = live(**tls(authority, password_file, url=url))
        wait_for(lambda: Code.BACKEND_TLS in desk.faults)
        wait_for(lambda: desk.service.store.queued, what="the security event")
        [entry] = desk.do(desk.service.store.entries)
        assert entry.call and entry.call[1]["type"] == "InvalidTLSVersion"
        assert not desk.service.station.online
        desk.service.stop()


def test_a_pinned_certificate_is_demanded(live: Make, authority: Authority, password_file: str) -> None:
    desk = live(
        csms={"tls": authority.server(), "password": PASSWORD},
        **tls(authority, password_file, tls__pin_sha256="00" * 32),
    )
    wait_for(lambda: Code.BACKEND_TLS in desk.faults)
    assert "pinned" in desk.faults[Code.BACKEND_TLS].text
    desk.service.stop()
    certificate = x509.load_pem_x509_certificate((authority.folder / "localhost.pem").read_bytes())
    pin = certificate.fingerprint(hashes.SHA256()).hex()
    desk.parameters = dataclasses.replace(desk.parameters, tls__pin_sha256=pin.upper())
    desk.open()
    desk.online()


def test_profile_3_needs_the_stations_certificate(live: Make, authority: Authority) -> None:
    chain, key = authority.issue("station1")
    desk = live(
        csms={"tls": authority.server(demand_client=True)},
        security_profile=3,
        allow_plain=False,
        tls__ca_file=str(authority.file),
        tls__certificate_file=str(chain),
        tls__key_file=str(key),
    )
    desk.online()
    assert desk.authorize(TAG).accepted


@pytest.mark.parametrize("version", ["1.6", "2.0.1", "2.1"])
def test_a_new_certificate_is_signed_and_used(live: Make, authority: Authority, version: str) -> None:
    chain, key = authority.issue("station1")
    desk = live(
        csms={"tls": authority.server(demand_client=True)},
        security_profile=3,
        allow_plain=False,
        tls__ca_file=str(authority.file),
        tls__certificate_file=str(chain),
        tls__key_file=str(key),
        version=version,
    )
    desk.online()
    trigger = (
        ("ExtendedTriggerMessage", "SignChargePointCertificate")
        if version == "1.6"
        else ("TriggerMessage", "SignChargingStationCertificate")
    )
    assert desk.call(trigger[0], {"requestedMessage": trigger[1]})["status"] == "Accepted"
    wait_for(lambda: desk.received("SignCertificate"))
    foreign = authority.sign_request(desk.received("SignCertificate")[0]["csr"])
    assert desk.call("CertificateSigned", {"certificateChain": chain.read_text()})["status"] == "Rejected"
    wait_for(lambda: desk.received("SecurityEventNotification"))
    assert desk.call("CertificateSigned", {"certificateChain": foreign})["status"] == "Accepted"
    wait_for(lambda: [f for f in desk.seen if f.code == Code.BACKEND_OFFLINE and f.active], what="a reconnect")
    desk.online()
    own = desk.service.maintenance.certificates
    assert own.chain_file and own.key_file and stat.S_IMODE(os.stat(own.key_file).st_mode) == 0o600
    assert desk.authorize(TAG).accepted
    assert len(desk.received("BootNotification")) == 1


@pytest.mark.parametrize("version", ["1.6", "2.0.1"])
def test_a_changed_password_reconnects_at_once(live: Make, password_file: str, version: str) -> None:
    """libocpp 826. The old one is kept until the new one has worked."""
    desk = live(csms={"password": PASSWORD}, security_profile=1, password_file=password_file, version=version)
    desk.online()
    new = "a-new-password-of-the-csms"
    if version == "1.6":
        answer = desk.call("ChangeConfiguration", {"key": "AuthorizationKey", "value": "short"})
        assert answer["status"] == "Rejected"
        desk.csms.password = new
        assert desk.call("ChangeConfiguration", {"key": "AuthorizationKey", "value": new})["status"] == "Accepted"
    else:
        desk.csms.password = new
        data = {
            "component": {"name": "SecurityCtrlr"},
            "variable": {"name": "BasicAuthPassword"},
            "attributeValue": new,
        }
        [result] = desk.call("SetVariables", {"setVariableData": [data]})["setVariableResult"]
        assert result["attributeStatus"] == "Accepted"
    wait_for(lambda: [f for f in desk.seen if f.code == Code.BACKEND_OFFLINE and f.active], what="a reconnect")
    desk.online()
    assert desk.service.store.get("previous_password") is None
    desk.service.stop()
    desk.open()
    desk.online()  # the new password outlives a restart
    assert all(new not in line.raw for line in read(desk.csms_store) if line.direction == "in")
    assert stat.S_IMODE(os.stat(desk.service.store.path).st_mode) == 0o600


def test_a_password_that_does_not_work_falls_back_to_the_old_one(live: Make, password_file: str) -> None:
    desk = live(csms={"password": PASSWORD}, security_profile=1, password_file=password_file, version="1.6")
    desk.online()
    desk.call("ChangeConfiguration", {"key": "AuthorizationKey", "value": "never-set-at-the-csms"})
    wait_for(lambda: [f for f in desk.seen if f.code == Code.BACKEND_REFUSED and f.active])
    desk.online()
    assert desk.authorize(TAG).accepted


def test_the_profile_rises_over_a_new_network_profile_and_never_falls(
    live: Make, authority: Authority, password_file: str, tmp_path: Path
) -> None:
    with CsmsThread(tmp_path / "secure.sqlite", tls=authority.server(), password=PASSWORD) as secure:
        desk = live(
            csms={"password": PASSWORD},
            security_profile=1,
            password_file=password_file,
            tls__ca_file=str(authority.file),
        )
        desk.online()
        data = {"ocppVersion": "OCPP20", "ocppTransport": "JSON", "messageTimeout": 30, "ocppInterface": "Wired0"}
        plain = {**data, "ocppCsmsUrl": "ws://127.0.0.1:1/x", "securityProfile": 0}
        assert desk.call("SetNetworkProfile", {"configurationSlot": 3, "connectionData": plain})["status"] == "Rejected"
        safe = {**data, "ocppCsmsUrl": secure.csms.url, "securityProfile": 2}
        assert desk.call("SetNetworkProfile", {"configurationSlot": 2, "connectionData": safe})["status"] == "Accepted"

        def priority(value: str) -> str:
            item = {
                "component": {"name": "OCPPCommCtrlr"},
                "variable": {"name": "NetworkConfigurationPriority"},
                "attributeValue": value,
            }
            [result] = desk.call("SetVariables", {"setVariableData": [item]})["setVariableResult"]
            return str(result["attributeStatus"])

        assert priority("9") == "Rejected"
        assert priority("2,1") == "RebootRequired"
        assert desk.call("Reset", {"type": "Immediate"})["status"] == "Accepted"
        wait_for(lambda: "station1" in secure.csms.stations and desk.service.station.online)
        assert desk.service.networks.floor == 2
        secure.do(secure.csms.fault("csms-gone", True))
        wait_for(lambda: not desk.service.station.online)
        assert [w.security_profile for w in desk.service.networks.ways()] == [2]  # not back to the plain one
        desk.service.stop()
        desk.open()
        assert desk.service.networks.floor == 2
        secure.do(secure.csms.fault("csms-gone", False))
        desk.online()
        assert not secure.csms.violations


def test_the_second_address_is_taken_when_the_first_is_gone(live: Make, tmp_path: Path) -> None:
    with CsmsThread(tmp_path / "second.sqlite") as second:
        desk = live(fallback_urls=[second.csms.url])
        desk.online()
        desk.fault("csms-gone")
        wait_for(lambda: second.csms.stations and desk.service.station.online, what="the fall-back")
        assert desk.authorize(TAG).accepted


@pytest.mark.parametrize("version", ["1.6", "2.0.1", "2.1"])
def test_roots_are_installed_listed_and_deleted(live: Make, authority: Authority, version: str) -> None:
    desk = live(version=version)
    desk.online()
    kind = "CentralSystemRootCertificate" if version == "1.6" else "CSMSRootCertificate"
    install = {"certificateType": kind, "certificate": authority.pem}
    assert desk.call("InstallCertificate", install) == {"status": "Accepted"}
    assert desk.call("InstallCertificate", {**install, "certificate": "nonsense"}) == {"status": "Rejected"}
    wanted = {"certificateType": kind} if version == "1.6" else {"certificateType": [kind]}
    answer = desk.call("GetInstalledCertificateIds", wanted)
    data = (
        answer["certificateHashData"][0]
        if version == "1.6"
        else answer["certificateHashDataChain"][0]["certificateHashData"]
    )
    # Another implementation's opinion of the hashes: the OCSP request of the cryptography package.
    request = (
        ocsp.OCSPRequestBuilder().add_certificate(authority.certificate, authority.certificate, hashes.SHA256()).build()
    )
    assert data["issuerNameHash"] == request.issuer_name_hash.hex()
    assert data["issuerKeyHash"] == request.issuer_key_hash.hex()
    assert int(data["serialNumber"], 16) == authority.certificate.serial_number
    assert desk.call("DeleteCertificate", {"certificateHashData": data}) == {"status": "Accepted"}
    assert desk.call("DeleteCertificate", {"certificateHashData": data}) == {"status": "NotFound"}
    assert desk.call("GetInstalledCertificateIds", wanted) == {"status": "NotFound"}


def test_parameters_refuse_what_would_be_unsafe(authority: Authority, password_file: str) -> None:
    def refused(**values: object) -> str:
        with pytest.raises(ParameterError) as error:
            plan(BackendParameters(**values))  # type: ignore[arg-type]
        return str(error.value)

    assert "allow_plain" in refused(url="ws://x/y", security_profile=1, password_file=password_file)
    assert "security_profile" in refused(url="ws://x/y", security_profile=2, allow_plain=True)
    assert "password" in refused(url="wss://me:secret@x/y") and "secret" not in refused(url="wss://me:secret@x/y")
    assert "tls.certificate_file" in refused(url="wss://x/y", security_profile=3)
    assert PASSWORD not in repr(
        plan(BackendParameters(url="wss://x/y", password_file=password_file, tls__ca_file=str(authority.file)))
    )
    assert fingerprint(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
