"""Part 6, blocks L, M, N and A_23: logs, customers, certificates. Firmware is in test_maintenance.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

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


def test_a_silent_csms_gets_its_security_events_later(rig: Rigs) -> None:
    one = rig(rules={"SecurityEventNotification": Silent}, noted={"message_timeout_s": 0.2})
    one.do(one.service.maintenance.security_event, "SettingSystemTime", "x")
    one.came("SecurityEventNotification")
    one.charge()
    one.finish()
    one.until(lambda: one.bills())
