"""Firmware and logs over HTTP, against a server made here."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from robot_charger.words.values import Phase

from .certificates import Authority
from .conftest import Live, wait_for

Make = Callable[..., Live]
IMAGE = b"firmware " * 1000


class Files:
    """What the server gives and what it was given, by path."""

    def __init__(self) -> None:
        self.given: dict[str, bytes] = {"/image.bin": IMAGE}
        self.taken: dict[str, bytes] = {}
        files = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = files.given.get(self.path)
                self.send_response(200 if body is not None else 404)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
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
    script = folder / "installer"
    script.write_text(f'#!/bin/sh\necho "$1" >> "{folder}/installed"\n[ "$1" = rollback ] || exit {status}\n')
    script.chmod(0o755)
    return str(script)


def statuses(desk: Live) -> list[str]:
    return [p["status"] for p in desk.received("FirmwareStatusNotification")]


def request(files: Files, authority: Authority, data: bytes = IMAGE, path: str = "/image.bin") -> dict[str, object]:
    """An update signed by a certificate of the manufacturer."""
    chain, key_file = authority.issue("signer")
    key = serialization.load_pem_private_key(key_file.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return {
        "location": files.url + path,
        "retrieveDateTime": "2020-01-01T00:00:00Z",
        "signingCertificate": chain.read_text(),
        "signature": base64.b64encode(key.sign(data, ec.ECDSA(hashes.SHA256()))).decode(),
    }


def prepared(desk: Live, authority: Authority) -> Live:
    desk.online()
    desk.call("InstallCertificate", {"certificateType": "ManufacturerRootCertificate", "certificate": authority.pem})
    return desk


def test_signed_firmware_is_verified_and_installed(live: Make, files: Files, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    desk = prepared(live(firmware__installer=installer(tmp_path)), authority)
    answer = desk.call("UpdateFirmware", {"requestId": 5, "firmware": request(files, authority)})
    assert answer == {"status": "Accepted"}
    wait_for(lambda: statuses(desk)[-1:] == ["Installed"])
    assert statuses(desk) == ["Downloading", "Downloaded", "SignatureVerified", "Installing", "Installed"]
    assert (tmp_path / "installed").read_text() == "install\n"
    wait_for(lambda: [e for e in desk.received("SecurityEventNotification") if e["type"] == "FirmwareUpdated"])


def test_a_false_signature_installs_nothing(live: Make, files: Files, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    desk = prepared(live(firmware__installer=installer(tmp_path)), authority)
    desk.call("UpdateFirmware", {"requestId": 5, "firmware": request(files, authority, b"another image")})
    wait_for(lambda: statuses(desk)[-1:] == ["InvalidSignature"])
    assert not (tmp_path / "installed").exists()
    (tmp_path / "evil").mkdir()
    stranger = Authority(tmp_path / "evil")
    answer = desk.call("UpdateFirmware", {"requestId": 6, "firmware": request(files, stranger)})
    assert answer == {"status": "InvalidCertificate"}
    assert not (tmp_path / "installed").exists()


def test_a_failed_installation_is_rolled_back(live: Make, files: Files, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    desk = prepared(live(firmware__installer=installer(tmp_path, 1)), authority)
    desk.call("UpdateFirmware", {"requestId": 5, "firmware": request(files, authority)})
    wait_for(lambda: statuses(desk)[-1:] == ["InstallationFailed"])
    assert (tmp_path / "installed").read_text() == "install\nrollback\n"
    missing = request(files, authority, path="/nowhere.bin")
    desk.call("UpdateFirmware", {"requestId": 7, "firmware": missing})
    wait_for(lambda: statuses(desk)[-1:] == ["DownloadFailed"])


def test_installing_waits_for_the_transaction(live: Make, files: Files, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    desk = prepared(live(firmware__installer=installer(tmp_path)), authority)
    desk.begin(1.0)
    desk.call("UpdateFirmware", {"requestId": 5, "firmware": request(files, authority)})
    wait_for(lambda: statuses(desk)[-1:] == ["InstallScheduled"])
    assert not (tmp_path / "installed").exists()
    desk.end(2.0)
    wait_for(lambda: statuses(desk)[-1:] == ["Installed"])


def test_unsigned_firmware_of_1_6_is_refused_unless_allowed(live: Make, files: Files, tmp_path: Path) -> None:
    desk = live(version="1.6", firmware__installer=installer(tmp_path))
    desk.online()
    update = {"location": files.url + "/image.bin", "retrieveDate": "2020-01-01T00:00:00Z"}
    assert desk.call("UpdateFirmware", update) == {}
    wait_for(lambda: statuses(desk) == ["InstallationFailed"])
    desk.service.dialect.unsigned_firmware = True
    desk.call("UpdateFirmware", update)
    wait_for(lambda: statuses(desk)[-1:] == ["Installed"])
    assert statuses(desk)[1:] == ["Downloading", "Downloaded", "Installing", "Installed"]


def test_signed_firmware_of_1_6(live: Make, files: Files, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    desk = live(version="1.6", firmware__installer=installer(tmp_path))
    desk.online()
    desk.do(desk.service.maintenance.install_certificate, "ManufacturerRootCertificate", authority.pem)
    answer = desk.call("SignedUpdateFirmware", {"requestId": 5, "firmware": request(files, authority)})
    assert answer == {"status": "Accepted"}
    wait_for(lambda: [p["status"] for p in desk.received("SignedFirmwareStatusNotification")][-1:] == ["Installed"])


@pytest.mark.parametrize("version", ["1.6", "2.0.1", "2.1"])
def test_logs_are_uploaded(live: Make, files: Files, version: str) -> None:
    desk = live(version=version)
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
    desk = live(version="1.6")
    desk.online()
    name = desk.call("GetDiagnostics", {"location": files.url + "/"})["fileName"]
    wait_for(lambda: [p["status"] for p in desk.received("DiagnosticsStatusNotification")] == ["Uploading", "Uploaded"])
    assert "/" + name in files.taken
