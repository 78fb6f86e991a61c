"""Part 6, blocks L, M, N and A_23: logs, customers, certificates. Firmware is in test_maintenance.py."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from robot_charger.backend.security import hash_data, split

from ..certificates import Authority
from .central import Silent
from .conftest import TAG, Rig, Rigs

ROOTS = ("CSMSRootCertificate", "V2GRootCertificate", "MORootCertificate")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def install(one: Rig, kind: str, pem: str) -> str:
    return str(one.call("InstallCertificate", {"certificateType": kind, "certificate": pem})["status"])


def installed(one: Rig, *kinds: str) -> list[dict[str, Any]]:
    answer = one.call("GetInstalledCertificateIds", {"certificateType": list(kinds)} if kinds else {})
    return list(answer.get("certificateHashDataChain", []))


def test_a_23_a_request_for_a_certificate_is_repeated_with_twice_the_wait(rig: Rigs) -> None:
    one = rig()
    assert one.set("SecurityCtrlr", "CertSigningWaitMinimum", 1) == "Accepted"
    assert one.set("SecurityCtrlr", "CertSigningRepeatTimes", 1) == "Accepted"
    one.call("TriggerMessage", {"requestedMessage": "SignChargingStationCertificate"})
    one.came("SignCertificate", 2)
    first, second = (m.time for m in one.central.messages if m.action == "SignCertificate")
    assert second - first >= 0.9
    assert one.of("SignCertificate")[0]["csr"] == one.of("SignCertificate")[1]["csr"]


def test_a_23_what_was_signed_is_not_asked_for_again(rig: Rigs, authority: Authority) -> None:
    one = rig()
    one.set("SecurityCtrlr", "CertSigningWaitMinimum", 1)
    one.call("TriggerMessage", {"requestedMessage": "SignChargingStationCertificate"})
    csr = one.came("SignCertificate")[0]["csr"]
    answer = one.call("CertificateSigned", {"certificateChain": authority.sign_request(csr)})
    assert answer["status"] == "Accepted"
    assert one.service.maintenance._csr_job == 2  # the repeating one sees that it is over


@pytest.mark.parametrize("kind", ROOTS)
def test_m_01_12_17_20_roots_are_installed_listed_and_deleted(rig: Rigs, authority: Authority, kind: str) -> None:
    one = rig()
    assert install(one, kind, authority.pem) == "Accepted"
    [found] = installed(one, kind)
    assert found["certificateType"] == kind
    hashes = {"certificateHashData": found["certificateHashData"]}
    assert one.call("DeleteCertificate", hashes) == {"status": "Accepted"}
    assert one.call("DeleteCertificate", hashes) == {"status": "NotFound"}


@pytest.mark.parametrize("allowed", [True, False])
def test_m_02_13_the_makers_root_only_where_a_parameter_allows_it(
    rig: Rigs, authority: Authority, allowed: bool
) -> None:
    one = rig(firmware__root_over_ocpp=allowed)
    status = install(one, "ManufacturerRootCertificate", authority.pem)
    assert status == ("Accepted" if allowed else "Rejected")
    assert len(installed(one, "ManufacturerRootCertificate")) == int(allowed)


@pytest.mark.parametrize("case", ["nothing", "leaf", "expired", "two", "junk"])
def test_m_07_what_is_no_root_is_rejected(rig: Rigs, authority: Authority, tmp_path: Path, case: str) -> None:
    one = rig()
    pem = {
        "nothing": "-",
        "leaf": authority.issue("leaf")[0].read_text(),
        "expired": authority.issue("old", days=-1)[0].read_text(),
        "two": authority.pem + authority.pem,
        "junk": authority.pem[:200] + "\n-----END CERTIFICATE-----\n",
    }[case]
    assert install(one, "CSMSRootCertificate", pem) == "Rejected"


def test_m_18_19_all_kinds_and_none(rig: Rigs, authority: Authority) -> None:
    one = rig()
    assert one.call("GetInstalledCertificateIds", {}) == {"status": "NotFound"}
    for kind in ROOTS:
        install(one, kind, authority.pem)
    assert {c["certificateType"] for c in installed(one)} == set(ROOTS)


def test_m_22_what_is_not_there_is_not_deleted(rig: Rigs) -> None:
    one = rig()
    hashes = {"hashAlgorithm": "SHA256", "issuerNameHash": "0" * 64, "issuerKeyHash": "0" * 64, "serialNumber": "1"}
    assert one.call("DeleteCertificate", {"certificateHashData": hashes}) == {"status": "NotFound"}


def log(id: int, place: str = "http://127.0.0.1:9/", kind: str = "DiagnosticsLog", **more: Any) -> dict[str, Any]:
    return {"requestId": id, "logType": kind, "log": {"remoteLocation": place}, **more}


def test_n_26_an_upload_that_fails_says_so(rig: Rigs) -> None:
    one = rig(transfer__hosts=["127.0.0.1"])
    assert one.call("GetLog", log(1))["status"] == "Accepted"
    one.came("LogStatusNotification", status="UploadFailure", requestId=1)


def test_n_36_a_second_request_cancels_the_first(rig: Rigs) -> None:
    one = rig(transfer__hosts=["127.0.0.1"])
    assert one.call("GetLog", log(1, retries=5, retryInterval=3))["status"] == "Accepted"
    one.came("LogStatusNotification", status="Uploading", requestId=1)
    assert one.call("GetLog", log(2))["status"] == "AcceptedCanceled"
    one.came("LogStatusNotification", status="AcceptedCanceled", requestId=1)
    one.came("LogStatusNotification", status="UploadFailure", requestId=2)
    assert [p for p in one.of("LogStatusNotification") if p.get("requestId") == 1][-1]["status"] == "AcceptedCanceled"


@pytest.mark.parametrize("place", ["http://169.254.169.254/", "http://127.0.0.1:22/", "file:///x", "http://10.1.2.3/"])
@pytest.mark.parametrize("kind", ["DiagnosticsLog", "SecurityLog"])
def test_n_logs_never_go_to_the_stations_own_networks(rig: Rigs, place: str, kind: str) -> None:
    assert rig().call("GetLog", log(1, place, kind)) == {"status": "Rejected"}


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("clear", [True, False])
@pytest.mark.parametrize("report", [True, False])
def test_n_27_to_32_customer_information(rig: Rigs, known: bool, clear: bool, report: bool) -> None:
    one = rig()
    if known:
        one.authorize()
    payload = {
        "requestId": 3,
        "report": report,
        "clear": clear,
        "idToken": {"idToken": TAG.id, "type": "ISO14443"},
    }
    assert one.call("CustomerInformation", payload)["status"] == "Accepted"
    if report or clear:
        data = one.came("NotifyCustomerInformation", requestId=3)[0]["data"]
        if report and known:
            assert "Accepted" in data
    assert ("cache" in one.service.station.tokens.about(TAG.id)) == (known and not clear)


def test_n_62_a_customer_by_another_name(rig: Rigs) -> None:
    one = rig()
    payload = {"requestId": 3, "report": True, "clear": True, "customerIdentifier": "somebody"}
    assert one.call("CustomerInformation", payload)["status"] == "Accepted"
    assert one.came("NotifyCustomerInformation")[0]["data"] == ""


def test_a_15_a_csr_that_is_refused_changes_nothing(rig: Rigs) -> None:
    one = rig(rules={"SignCertificate": {"status": "Rejected"}})
    one.call("TriggerMessage", {"requestedMessage": "SignChargingStationCertificate"})
    one.came("SignCertificate")
    assert one.service.maintenance.certificates.chain_file is None


@pytest.mark.parametrize("case", ["stranger", "junk", "unasked"])
def test_a_14_a_certificate_that_does_not_fit_is_rejected(rig: Rigs, authority: Authority, case: str) -> None:
    one = rig()
    if case != "unasked":
        one.call("TriggerMessage", {"requestedMessage": "SignChargingStationCertificate"})
        one.came("SignCertificate")
    chain = "junk" if case == "junk" else authority.issue("stranger")[0].read_text()
    assert one.call("CertificateSigned", {"certificateChain": chain})["status"] == "Rejected"
    one.came("SecurityEventNotification", type="InvalidChargingStationCertificate")
    assert one.service.maintenance.certificates.chain_file is None


@pytest.mark.parametrize("password", ["short", "x" * 41])
def test_a_10_a_password_that_cannot_be_is_rejected(rig: Rigs, password: str) -> None:
    one = rig()
    assert one.set("SecurityCtrlr", "BasicAuthPassword", password) == "Rejected"
    assert one.central.connections == 1


@pytest.mark.parametrize("profile", [1, 2, 3])
def test_a_20_21_a_profile_without_what_it_needs_is_rejected(rig: Rigs, profile: int) -> None:
    one = rig()
    data = {
        "ocppVersion": "OCPP20",
        "ocppTransport": "JSON",
        "ocppCsmsUrl": f"{'wss' if profile > 1 else 'ws'}://127.0.0.1:1/x",
        "messageTimeout": 30,
        "securityProfile": profile,
        "ocppInterface": "Wired0",
    }
    assert one.call("SetNetworkProfile", {"configurationSlot": 2, "connectionData": data})["status"] == "Rejected"


def test_m_23_the_stations_own_certificate_is_not_deleted(rig: Rigs, authority: Authority) -> None:
    one = rig()
    one.call("TriggerMessage", {"requestedMessage": "SignChargingStationCertificate"})
    csr = one.came("SignCertificate")[0]["csr"]
    one.call("CertificateSigned", {"certificateChain": authority.sign_request(csr)})
    one.until(lambda: one.central.connections == 2 and one.service.station.online)
    own = split(one.service.maintenance.certificates.chain_file.read_text())[0]  # type: ignore[union-attr]
    hashes = {"certificateHashData": hash_data(own, authority.certificate)}
    assert one.call("DeleteCertificate", hashes) == {"status": "Failed"}


@pytest.fixture
def slow() -> Iterator[str]:
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/x"


def test_f_16_the_state_of_an_upload_on_request(rig: Rigs, slow: str) -> None:
    one = rig(transfer__hosts=["127.0.0.1"])
    one.call("GetLog", log(7, slow))
    one.came("LogStatusNotification", status="Uploading")
    one.call("TriggerMessage", {"requestedMessage": "LogStatusNotification"})
    one.came("LogStatusNotification", 2, status="Uploading", requestId=7)


def firmware(place: str, **more: Any) -> dict[str, Any]:
    return {"requestId": 5, "firmware": {"location": place, "retrieveDateTime": "2020-01-01T00:00:00Z", **more}}


def update_rig(rig: Rigs) -> Rig:
    return rig(transfer__hosts=["127.0.0.1"], firmware__installer="/bin/false", firmware__unsigned=True)


def test_f_19_l_10_a_download_is_told_and_gives_way_to_the_next(rig: Rigs, slow: str) -> None:
    one = update_rig(rig)
    assert one.call("UpdateFirmware", firmware(slow))["status"] == "Accepted"
    one.came("FirmwareStatusNotification", status="Downloading")
    one.call("TriggerMessage", {"requestedMessage": "FirmwareStatusNotification"})
    one.came("FirmwareStatusNotification", 2, status="Downloading", requestId=5)
    again = {**firmware(slow), "requestId": 6}
    assert one.call("UpdateFirmware", again)["status"] == "AcceptedCanceled"
    one.came("FirmwareStatusNotification", status="Downloading", requestId=6)


def test_l_03_a_download_waits_for_its_time(rig: Rigs, slow: str) -> None:
    one = update_rig(rig)
    assert one.call("UpdateFirmware", firmware(slow, retrieveDateTime="2099-01-01T00:00:00Z"))["status"] == "Accepted"
    one.came("FirmwareStatusNotification", status="DownloadScheduled")


def test_l_11_what_is_being_installed_goes_on(rig: Rigs, slow: str) -> None:
    one = update_rig(rig)
    one.do(setattr, one.service.maintenance.updates, "state", "Installing")
    assert one.call("UpdateFirmware", firmware(slow))["status"] == "Rejected"


def test_a_silent_csms_gets_its_security_events_later(rig: Rigs) -> None:
    one = rig(rules={"SecurityEventNotification": Silent}, noted={"message_timeout_s": 0.2})
    one.do(one.service.maintenance.security_event, "SettingSystemTime", "x")
    one.came("SecurityEventNotification")
    one.charge()
    one.finish()
    one.until(lambda: one.bills())
