"""Where files may come from and go to, and how much of them."""

from __future__ import annotations

import hashlib
import ipaddress
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from robot_charger.backend import transfer
from robot_charger.backend.transfer import Limits, PlaceError, Places, TransferError, download

HERE = Places(hosts=("127.0.0.1",))
FIELD = Places(hosts=("127.0.0.1", "depot"), fields=(ipaddress.ip_network("127.0.0.0/8"),))


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:22/",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0.0.0.0/",
        "http://[::1]/",
        "http://[::]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:169.254.169.254]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[2002:7f00:1::]/",
        "http://localhost/",
        "http://x.localhost./",
        "http://169.254.169.254/latest/meta-data/",
        "http://[fe80::1]/",
        "ftp://127.0.0.1:6379/x",
        "http://10.0.0.1/",
        "http://192.168.1.1/",
        "http://100.64.0.1/",
        "http://[fd00::1]/",
        "http://224.0.0.1/",
        "http://255.255.255.255/",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "http:///x",
        "http://[::1/",
        "http://example.org:0/",
        "http://example.org/a b",
        "x",
    ],
)
def test_addresses_of_the_station_and_its_networks_are_refused(url: str) -> None:
    assert not transfer.supported(url, Places())


def test_private_addresses_are_for_named_hosts_and_field_networks_for_none() -> None:
    places = Places(csms=lambda: ["10.0.0.7"], hosts=("192.168.1.1", "depot"))
    assert transfer.supported("http://10.0.0.7/", places)
    assert transfer.supported("ftp://192.168.1.1/", places)
    assert not transfer.supported("http://10.0.0.8/", places)
    private = ipaddress.ip_address("10.9.9.9")
    assert places.why_not("depot", private) == ""
    assert places.why_not("elsewhere", private)
    assert places.why_not("depot", ipaddress.ip_address("127.0.0.1"))  # a name that leads here is no name for here
    assert not transfer.supported("http://127.0.0.1/", FIELD)
    assert FIELD.why_not("depot", ipaddress.ip_address("127.3.4.5"))
    assert transfer.supported("https://8.8.8.8/x", Places())


class Answers(socketserver.ThreadingTCPServer):
    """Says one thing to whoever connects, then closes."""

    daemon_threads = True
    allow_reuse_address = True
    said = b""

    def __init__(self) -> None:
        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                self.request.recv(65536)
                try:
                    self.request.sendall(outer.said)
                except OSError:
                    return

        outer = self
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


@pytest.fixture
def server() -> Iterator[Answers]:
    one = Answers()
    threading.Thread(target=one.serve_forever, args=(0.01,), daemon=True).start()
    yield one
    one.shutdown()
    one.server_close()


ROOM = Limits(1 << 20, 0)


def test_a_file_is_hashed_and_private(server: Answers, tmp_path: Path) -> None:
    server.said = b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    target = tmp_path / "image"
    assert download(server.url, target, HERE, ROOM) == hashlib.sha256(b"hello").digest()
    assert target.read_bytes() == b"hello" and target.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"HTTP/1.0 200 OK\r\n\r\n" + bytes(2 << 20), "larger"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 99999999\r\n\r\nx", "larger"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\nx", "1 of 9"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: -1\r\n\r\n" + bytes(2 << 20), "larger"),
        (b"HTTP/1.0 302 Found\r\nLocation: http://127.0.0.2:1/\r\n\r\n", "refused"),
        (b"HTTP/1.0 302 Found\r\nLocation: http://169.254.169.254/\r\n\r\n", "refused"),
        (b"HTTP/1.0 302 Found\r\nLocation: ftp://127.0.0.1/\r\n\r\n", "redirect"),
        (b"HTTP/1.0 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n", "no address"),
        (b"HTTP/1.0 302 Found\r\nLocation: /again\r\n\r\n", "redirects"),
        (b"HTTP/1.0 404 Not Found\r\n\r\n", "404"),
        (b"", "127.0.0.1"),
        (b"\xff\xfe what\r\n", "127.0.0.1"),
    ],
)
def test_what_is_wrong_ends_the_download(server: Answers, tmp_path: Path, said: bytes, why: str) -> None:
    server.said = said
    target = tmp_path / "image"
    with pytest.raises(TransferError, match=why):
        download(server.url, target, HERE, ROOM)
    assert not list(tmp_path.iterdir())


def test_room_is_left_on_the_disk(server: Answers, tmp_path: Path) -> None:
    server.said = b"HTTP/1.0 200 OK\r\n\r\nhello"
    with pytest.raises(TransferError, match="free space"):
        download(server.url, tmp_path / "image", HERE, Limits(1 << 20, 1 << 60))


def test_ftp_has_the_same_limits(tmp_path: Path) -> None:
    with pytest.raises(PlaceError):
        download("ftp://127.0.0.1:6379/x", tmp_path / "image", Places(), ROOM)
    with pytest.raises(PlaceError):
        transfer.upload(Path(__file__), "ftps://127.0.0.1/", "x", Places())


class Ftp(socketserver.ThreadingTCPServer):
    """Just enough FTP to send a body; says that its data are at another computer."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, size: int) -> None:
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                import socket

                data = socket.create_server(("127.0.0.1", 0))
                port = data.getsockname()[1]
                self.wfile.write(b"220 hi\r\n")
                for line in self.rfile:
                    word = line.split()[0].upper()
                    if word == b"PASV":
                        self.wfile.write(f"227 ok (169,254,169,254,{port >> 8},{port & 255})\r\n".encode())
                    elif word == b"RETR":
                        self.wfile.write(b"150 ok\r\n")
                        there, _ = data.accept()
                        try:
                            there.sendall(bytes(outer.size))
                        except OSError:
                            return
                        there.close()
                        self.wfile.write(b"226 done\r\n")
                    else:
                        self.wfile.write(b"230 ok\r\n" if word in (b"USER", b"PASS") else b"200 ok\r\n")

        self.size = size
        super().__init__(("127.0.0.1", 0), Handler)


@pytest.mark.parametrize(("size", "fits"), [(1000, True), (3 << 20, False)])
def test_ftp_counts_bytes_and_stays_with_the_checked_address(tmp_path: Path, size: int, fits: bool) -> None:
    with Ftp(size) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"ftp://127.0.0.1:{server.server_address[1]}/image"
        if fits:
            assert download(url, tmp_path / "image", HERE, ROOM) == hashlib.sha256(bytes(size)).digest()
        else:
            with pytest.raises(TransferError, match="larger"):
                download(url, tmp_path / "image", HERE, ROOM)
        server.shutdown()
