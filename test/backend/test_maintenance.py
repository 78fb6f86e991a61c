"""Firmware and logs over HTTP, against a server made here."""

from __future__ import annotations

import base64
import contextlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from robot_charger.words.values import Phase

from .certificates import CODE_SIGNING, Authority
from .conftest import Desk, Live, wait_for

Make = Callable[..., Live]
IMAGE = b"2.0.0 " + b"firmware " * 1000


class Files:
    """What the server gives and what it was given, by path."""

    def __init__(self) -> None:
        self.given: dict[str, bytes] = {"/image.bin": IMAGE}
        self.taken: dict[str, bytes] = {}
        self.with_length = True
        files = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = files.given.get(self.path)
                self.send_response(200 if body is not None else 404)
                if files.with_length:
                    self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(body or b"")

            def do_PUT(self) -> None:
                files.taken[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(201)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def files() -> Iterator[Files]:
    one = Files()
    yield one
    one.server.shutdown()
    one.server.server_close()


def installer(folder: Path, status: int = 0) -> str:
    """Keeps a list of what it was called for; an image's version is its first word."""
    script = folder / "installer"
    script.write_text(
        f"""#!/bin/sh
if [ "$1" = version ]; then head -c 40 "$2" | cut -d' ' -f1; exit 0; fi
echo "$1" >> "{folder}/installed"
[ "$1" = rollback ] || exit {status}
"""
    )
    script.chmod(0o755)
    return str(script)


def statuses(desk: Live, action: str = "FirmwareStatusNotification") -> list[str]:
    return [p["status"] for p in desk.received(action)]


def signed(data: bytes, authority: Authority, signer: str = "signer", **values: Any) -> dict[str, str]:
    """signature and signingCertificate of an image."""
    chain, key_file = authority.issue(signer, **{"usage": CODE_SIGNING, **values})
    key = serialization.load_pem_private_key(key_file.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return {
        "signingCertificate": chain.read_text(),
        "signature": base64.b64encode(key.sign(data, ec.ECDSA(hashes.SHA256()))).decode(),
    }


def request(files: Files, authority: Authority, data: bytes = IMAGE, path: str = "/image.bin") -> dict[str, str]:
    """An update signed by a certificate of the manufacturer."""
    return {
        "location": files.url + path,
        "retrieveDateTime": "2020-01-01T00:00:00Z",
        **signed(data, authority),
    }


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def station(live: Make, tmp_path: Path, authority: Authority) -> Callable[..., Live]:
    """A station online whose maker's root is pinned."""

    def make(**more: Any) -> Live:
        desk = live(
            **{
                "firmware__installer": more.pop("firmware__installer", None) or installer(tmp_path),
                "firmware__root_file": str(authority.file),
                "transfer__hosts": ["127.0.0.1"],
                "transfer__keep_free_mb": 0,
                **more,
            }
        )
        desk.online()
        return desk

    return make


VERSIONS = ("1.6", "2.0.1", "2.1")


def update(desk: Live, firmware: dict[str, str]) -> dict[str, Any]:
    """SignedUpdateFirmware or UpdateFirmware, whatever the version has for a signed image."""
    action = "SignedUpdateFirmware" if desk.parameters.version == "1.6" else "UpdateFirmware"
    return desk.call(action, {"requestId": 5, "firmware": firmware})


def notified(desk: Live) -> list[str]:
    return statuses(desk, "SignedFirmwareStatusNotification") or statuses(desk)


def nothing_installed(folder: Path) -> bool:
    return not (folder / "installed").exists()


@pytest.mark.parametrize("version", VERSIONS)
def test_signed_firmware_is_verified_and_installed(
    station: Make, files: Files, authority: Authority, tmp_path: Path, version: str
) -> None:
    desk = station(version=version)
    assert update(desk, request(files, authority)) == {"status": "Accepted"}
    wait_for(lambda: notified(desk)[-1:] == ["Installed"])
    assert notified(desk) == ["Downloading", "Downloaded", "SignatureVerified", "Installing", "Installed"]
    assert (tmp_path / "installed").read_text() == "install\n"
    wait_for(lambda: [e for e in desk.received("SecurityEventNotification") if e["type"] == "FirmwareUpdated"])
    assert not list(tmp_path.glob("**/*.staged"))


@pytest.mark.parametrize("version", VERSIONS)
def test_firmware_that_is_not_signed_right_is_never_loaded(
    station: Make, files: Files, authority: Authority, tmp_path: Path, version: str
) -> None:
    (tmp_path / "evil").mkdir()
    desk = station(version=version)
    good = request(files, authority)
    bad = {
        "a station's own certificate": signed(IMAGE, authority, usage=ExtendedKeyUsageOID.CLIENT_AUTH),
        "no purpose": signed(IMAGE, authority, usage=None),
        "expired": signed(IMAGE, authority, days=-1),
        "foreign": signed(IMAGE, Authority(tmp_path / "evil")),
        "the root itself": {"signature": good["signature"], "signingCertificate": authority.pem},
        "no certificate": {"signature": good["signature"], "signingCertificate": "-"},
    }
    for name, fields in bad.items():
        answer = update(desk, {**good, **fields})
        assert answer == {"status": "InvalidCertificate"}, name
    if version != "1.6":
        for fields in ({}, {"signature": ""}, {"signingCertificate": "", "signature": " "}):
            plain = {k: good[k] for k in ("location", "retrieveDateTime")}
            assert update(desk, {**plain, **fields}) == {"status": "Rejected"}
        for name in ("signature", "signingCertificate"):
            one = {k: v for k, v in good.items() if k != name}
            assert update(desk, one) == {"status": "InvalidCertificate"}
    assert nothing_installed(tmp_path) and not notified(desk)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_signature_of_another_image_installs_nothing(
    station: Make, files: Files, authority: Authority, tmp_path: Path, version: str
) -> None:
    desk = station(version=version, firmware__unsigned=True)  # what claims a signature must have a right one
    update(desk, request(files, authority, b"another image"))
    wait_for(lambda: notified(desk)[-1:] == ["InvalidSignature"])
    assert nothing_installed(tmp_path)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_version_that_does_not_rise_is_not_installed(
    station: Make, files: Files, authority: Authority, tmp_path: Path, version: str
) -> None:
    desk = station(version=version, firmware="1.2.0")
    for image in (b"1.1.9 x", b"1.2.0 x", b"1.2.0-rc1 x", b"what x", b""):
        files.given["/image.bin"] = image
        before = len(notified(desk))
        update(desk, request(files, authority, image))
        wait_for(lambda before=before: notified(desk)[before:][-1:] == ["InstallVerificationFailed"], what=str(image))
    assert nothing_installed(tmp_path)
    for image, end in ((b"1.10.0 x", "Installed"), (b"1.9.0 x", "InstallVerificationFailed")):
        files.given["/image.bin"] = image  # what was installed once is not undone after it either
        before = len(notified(desk))
        update(desk, request(files, authority, image))
        wait_for(lambda before=before, end=end: notified(desk)[before:][-1:] == [end], what=end)
    assert (tmp_path / "installed").read_text() == "install\n"


@pytest.mark.parametrize("version", VERSIONS)
def test_an_oversized_image_is_not_kept(
    station: Make, files: Files, authority: Authority, tmp_path: Path, version: str
) -> None:
    image = b"2.0 " + bytes(3 << 20)
    files.given["/image.bin"] = image
    for files.with_length in (True, False):
        desk = station(version=version, transfer__max_mb=1)
        before = len(notified(desk))
        update(desk, request(files, authority, image))
        wait_for(lambda desk=desk, before=before: notified(desk)[before:][-1:] == ["DownloadFailed"])
        desk.service.stop()
    assert nothing_installed(tmp_path) and not list(tmp_path.glob("**/firmware*"))


def test_the_makers_root_is_not_the_csmss_to_change(station: Make, authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "evil").mkdir()
    evil = Authority(tmp_path / "evil")
    desk = station()
    kind = "ManufacturerRootCertificate"
    assert desk.call("InstallCertificate", {"certificateType": kind, "certificate": evil.pem}) == {"status": "Rejected"}
    found = desk.call("GetInstalledCertificateIds", {"certificateType": [kind]})["certificateHashDataChain"]
    assert len(found) == 1
    assert desk.call("DeleteCertificate", {"certificateHashData": found[0]["certificateHashData"]})["status"] in (
        "Failed",
        "NotFound",
    )
    leaf = authority.issue("leaf")[0].read_text()
    wrong = desk.call("InstallCertificate", {"certificateType": "CSMSRootCertificate", "certificate": leaf})
    assert wrong["status"] == "Rejected"


def test_a_failed_installation_is_rolled_back(
    station: Make, files: Files, authority: Authority, tmp_path: Path
) -> None:
    desk = station(firmware__installer=installer(tmp_path, 1))
    update(desk, request(files, authority))
    wait_for(lambda: statuses(desk)[-1:] == ["InstallationFailed"])
    assert (tmp_path / "installed").read_text() == "install\nrollback\n"
    update(desk, request(files, authority, path="/nowhere.bin"))
    wait_for(lambda: statuses(desk)[-1:] == ["DownloadFailed"])


def test_installing_waits_for_transaction_vehicle_and_arm(
    station: Make, files: Files, authority: Authority, tmp_path: Path
) -> None:
    desk = station()
    desk.begin(1.0)
    update(desk, request(files, authority))
    wait_for(lambda: statuses(desk)[-1:] == ["InstallScheduled"])
    assert not desk.do(lambda: desk.service.station.may_update)
    desk.session(Phase.STOPPING, stop_reason="StoppedByEV")
    desk.meter(2.0)
    desk.session(Phase.GRASPED, stop_reason="StoppedByEV", mated=True)
    desk.meter(2.0)
    wait_for(lambda: not desk.service.station.evses[1].busy)
    assert not desk.do(lambda: desk.service.station.may_update)  # the plug is still in
    desk.do(setattr, desk.service.station, "arm_parked", False)
    desk.session(Phase.IDLE)
    assert not desk.do(lambda: desk.service.station.may_update)
    assert nothing_installed(tmp_path)
    desk.do(setattr, desk.service.station, "arm_parked", True)
    wait_for(lambda: statuses(desk)[-1:] == ["Installed"])


def test_no_session_begins_while_firmware_is_installed(desk: Desk) -> None:
    desk.phase(Phase.IDLE)
    desk.station.hold(True, desk.now)
    assert desk.station.status[1] == "Unavailable" and not desk.station.operative(1)
    desk.station.hold(False, desk.now)
    assert desk.station.status[1] == "Available"


@pytest.mark.parametrize("allowed", [False, True])
def test_unsigned_firmware_of_1_6_is_refused_unless_allowed(
    station: Make, files: Files, tmp_path: Path, allowed: bool
) -> None:
    desk = station(version="1.6", firmware__unsigned=allowed)
    plain = {"location": files.url + "/image.bin", "retrieveDate": "2020-01-01T00:00:00Z"}
    assert desk.call("UpdateFirmware", plain) == {}
    if allowed:
        wait_for(lambda: statuses(desk)[-1:] == ["Installed"])
        assert statuses(desk) == ["Downloading", "Downloaded", "Installing", "Installed"]
    else:
        wait_for(lambda: statuses(desk) == ["InstallationFailed"])
        assert nothing_installed(tmp_path)


@pytest.mark.parametrize("version", ["1.6", "2.0.1", "2.1"])
def test_logs_are_uploaded(live: Make, files: Files, version: str) -> None:
    desk = live(version=version, transfer__hosts=["127.0.0.1"])
    desk.online()
    desk.session(Phase.IDLE)
    desk.do(desk.service.maintenance.security_event, "SettingSystemTime", "by hand")
    answer = desk.call("GetLog", {"logType": "SecurityLog", "requestId": 3, "log": {"remoteLocation": files.url + "/"}})
    assert answer["status"] == "Accepted"
    wait_for(lambda: [p["status"] for p in desk.received("LogStatusNotification")] == ["Uploading", "Uploaded"])
    assert b"SettingSystemTime by hand" in files.taken["/" + answer["filename"]]
    answer = desk.call(
        "GetLog", {"logType": "DiagnosticsLog", "requestId": 4, "log": {"remoteLocation": files.url + "/"}}
    )
    wait_for(lambda: "/" + answer["filename"] in files.taken)
    assert b'"queued"' in files.taken["/" + answer["filename"]]
    refused = desk.call("GetLog", {"logType": "DiagnosticsLog", "requestId": 5, "log": {"remoteLocation": "file:///x"}})
    assert refused == {"status": "Rejected"}
    gone = desk.call(
        "GetLog",
        {
            "logType": "DiagnosticsLog",
            "requestId": 6,
            "retries": 1,
            "retryInterval": 0,
            "log": {"remoteLocation": "http://127.0.0.1:9/"},
        },
    )
    assert gone["status"] == "Accepted"
    wait_for(lambda: desk.received("LogStatusNotification")[-1]["status"] == "UploadFailure")


def test_diagnostics_of_1_6(live: Make, files: Files) -> None:
    desk = live(version="1.6", transfer__hosts=["127.0.0.1"])
    desk.online()
    name = desk.call("GetDiagnostics", {"location": files.url + "/"})["fileName"]
    wait_for(lambda: [p["status"] for p in desk.received("DiagnosticsStatusNotification")] == ["Uploading", "Uploaded"])
    assert "/" + name in files.taken
