"""Files to and from places that a CSMS names: HTTP, HTTPS, FTP, FTPS. Blocking; run it in a thread.

The CSMS is not trusted with the station's own networks: ``Places`` decides which addresses may be connected to, and
every connection goes to an address that was checked, also after a redirect. A download has a limit in bytes that
is counted on what arrives, leaves room on the disk, and is hashed on its way to the disk.
"""

from __future__ import annotations

import base64
import contextlib
import ftplib
import hashlib
import http.client
import ipaddress
import os
import shutil
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

TIMEOUT_S = 30.0  # of one read or write
LONGEST_S = 3600.0  # of one file
BLOCK = 1 << 16
REDIRECTS = 5
SCHEMES = {"http": 80, "https": 443, "ftp": 21, "ftps": 21}

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class TransferError(RuntimeError):
    """A file did not arrive; the text says why."""


class PlaceError(TransferError):
    """The station does not connect to this address."""


@dataclass(frozen=True)
class Limits:
    """Of one download [bytes]."""

    most: int = 512 << 20
    keep_free: int = 256 << 20  # what stays free on the disk


@dataclass(frozen=True)
class Places:
    """The addresses that may be connected to.

    Public addresses are allowed. Private ones are allowed for the CSMS's host and for ``hosts``. Loopback, link-local,
    multicast and reserved addresses are refused, unless ``hosts`` names that very address; ``fields``, the station's
    own field networks, are always refused.
    """

    csms: Callable[[], Iterable[str]] = tuple
    hosts: tuple[str, ...] = ()
    fields: tuple[Network, ...] = field(default=())

    def why_not(self, host: str, address: Address) -> str:
        """Why this address of ``host`` is refused; empty when it is allowed."""
        plain = embedded(address)
        if any(plain in network for network in self.fields if network.version == plain.version):
            return "it is in one of the station's own field networks"
        if plain in self._named():
            return ""
        if plain.is_loopback or plain.is_unspecified:
            return "it is this computer itself"
        if plain.is_link_local or plain.is_multicast or plain.is_reserved:
            return "it is a link-local, multicast or reserved address"
        allowed = {h.casefold() for h in (*self.hosts, *self.csms())}
        if not plain.is_global and host.casefold() not in allowed and str(plain) not in allowed:
            return "it is a private address: name its host in transfer.hosts"
        return ""

    def _named(self) -> set[Address]:
        found: set[Address] = set()
        for host in self.hosts:
            with contextlib.suppress(ValueError):
                found.add(embedded(ipaddress.ip_address(host)))
        return found

    def check(self, url: str) -> None:
        """What can be said without asking a name server. Raises PlaceError."""
        parts = split(url)
        host = str(parts.hostname)
        if host.casefold().rstrip(".").endswith("localhost"):
            raise PlaceError(f"{host}: it is this computer itself")
        with contextlib.suppress(socket.gaierror):
            for address in _resolve(host, 0, socket.AI_NUMERICHOST):
                self._demand(host, address)

    def connect(self, host: str, port: int) -> socket.socket:
        """A connection to an address of ``host`` that was checked. Raises PlaceError or OSError."""
        addresses = _resolve(host, port)
        for address in addresses:
            self._demand(host, address)  # one bad address spoils the name
        error: OSError = OSError("no address")
        for address in addresses:
            try:
                return socket.create_connection((str(address), port), timeout=TIMEOUT_S)
            except OSError as failure:
                error = failure
        raise error

    def _demand(self, host: str, address: Address) -> None:
        if reason := self.why_not(host, address):
            raise PlaceError(f"{host} ({address}) is refused: {reason}")


def _resolve(host: str, port: int, flags: int = 0) -> list[Address]:
    found = socket.getaddrinfo(host, port or None, type=socket.SOCK_STREAM, flags=flags)
    return list(dict.fromkeys(ipaddress.ip_address(str(f[4][0]).partition("%")[0]) for f in found))


def embedded(address: Address) -> Address:
    """The IPv4 address inside an IPv6 one: mapped, compatible, 6to4, NAT64."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    inside = address.ipv4_mapped or address.sixtofour
    number = int(address)
    if inside is None and (number >> 32 == 0x64FF9B << 64 or 1 < number < 1 << 32):
        inside = ipaddress.IPv4Address(number & 0xFFFFFFFF)
    return inside or address


def split(url: str) -> SplitResult:
    """The parts of an address. Raises PlaceError when it is none that the station knows."""
    try:
        parts = urlsplit(url)
        known = parts.scheme in SCHEMES and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError as error:
        raise PlaceError(f"{url[:80]!r} is no address: {error}") from error
    if not known or any(c.isspace() or ord(c) < 32 for c in url):
        raise PlaceError(f"{url[:80]!r} is no address of {', '.join(SCHEMES)}")
    return parts


def supported(url: str, places: Places) -> bool:
    """False for an address that is refused without asking a name server."""
    try:
        places.check(url)
    except PlaceError:
        return False
    return True


class _Sink:
    """A file that counts and hashes what is written, and refuses what is too much."""

    def __init__(self, file: BinaryIO, folder: Path, limits: Limits) -> None:
        self.digest = hashlib.sha256()
        self.count = 0
        self._file, self._folder, self._limits = file, folder, limits
        self._ends = time.monotonic() + LONGEST_S
        self._free_at = 0

    def expect(self, size: int) -> None:
        if size > self._limits.most:
            raise TransferError(f"the file is larger than {self._limits.most >> 20} MiB")
        if size > shutil.disk_usage(self._folder).free - self._limits.keep_free:
            raise TransferError("not enough free space on the disk")

    def write(self, block: bytes) -> None:
        self.count += len(block)
        if self.count > self._limits.most:
            raise TransferError(f"the file is larger than {self._limits.most >> 20} MiB")
        if time.monotonic() > self._ends:
            raise TransferError(f"not there after {LONGEST_S:g} s")
        if self.count >= self._free_at:
            self._free_at = self.count + (4 << 20)
            if shutil.disk_usage(self._folder).free < self._limits.keep_free:
                raise TransferError("not enough free space on the disk")
        self.digest.update(block)
        self._file.write(block)


def download(
    url: str, target: Path, places: Places, limits: Limits | None = None, tls: ssl.SSLContext | None = None
) -> bytes:
    """The SHA-256 of what was loaded into ``target`` (mode 0600). Raises TransferError, and there is no ``target``."""
    part = target.with_name(target.name + ".part")
    target.unlink(missing_ok=True)
    try:
        part.unlink(missing_ok=True)
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            sink = _Sink(file, target.parent, limits or Limits())
            _fetch(url, sink, places, tls)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
        return sink.digest.digest()
    except (TransferError, OSError, ValueError, ftplib.Error, http.client.HTTPException) as error:
        part.unlink(missing_ok=True)
        if isinstance(error, TransferError):
            raise
        raise TransferError(f"{urlsplit(url).hostname}: {error or type(error).__name__}") from error


def _fetch(url: str, sink: _Sink, places: Places, tls: ssl.SSLContext | None) -> None:
    parts = split(url)
    if parts.scheme in ("ftp", "ftps"):
        with _ftp(parts, places, tls) as ftp:
            ftp.retrbinary(f"RETR {unquote(parts.path)}", sink.write, BLOCK)
        return
    for _ in range(REDIRECTS + 1):
        with _answer("GET", url, places, tls) as answer:
            place = answer.headers.get("Location")
            if answer.status in (301, 302, 303, 307, 308) and place:
                url = _redirected(url, place)
                continue
            if answer.status != 200:
                raise TransferError(f"{urlsplit(url).hostname} answered {answer.status}")
            size = answer.headers.get("Content-Length", "")
            if size.isdigit():
                sink.expect(int(size))
            while block := answer.read(BLOCK):
                sink.write(block)
            if size.isdigit() and sink.count != int(size):
                raise TransferError(f"{sink.count} of {size} bytes came")
            return
    raise TransferError(f"more than {REDIRECTS} redirects")


def _redirected(url: str, place: str) -> str:
    there = urljoin(url, place)
    before, after = split(url), split(there)
    if after.scheme not in ("http", "https") or (before.scheme == "https" and after.scheme != "https"):
        raise PlaceError(f"a redirect from {before.scheme} to {after.scheme} is not followed")
    return there


def upload(source: Path, url: str, name: str, places: Places, tls: ssl.SSLContext | None = None) -> None:
    """PUT over HTTP(S), STOR over FTP(S). A location that ends in / gets ``name`` appended. Raises TransferError."""
    place = url + name if url.endswith("/") else url
    try:
        parts = split(place)
        with source.open("rb") as file:
            if parts.scheme in ("ftp", "ftps"):
                with _ftp(parts, places, tls) as ftp:
                    ftp.storbinary(f"STOR {unquote(parts.path)}", file, BLOCK)
                return
            with _answer("PUT", place, places, tls, file, source.stat().st_size) as answer:
                if not 200 <= answer.status < 300:
                    raise TransferError(f"{parts.hostname} answered {answer.status}")
    except (OSError, ValueError, ftplib.Error, http.client.HTTPException) as error:
        raise TransferError(f"{urlsplit(url).hostname}: {error or type(error).__name__}") from error


# HTTP.
class _Http(http.client.HTTPConnection):
    """Connects only where ``places`` allows it."""

    def __init__(self, parts: SplitResult, places: Places, tls: ssl.SSLContext | None) -> None:
        super().__init__(str(parts.hostname), parts.port or SCHEMES[parts.scheme], timeout=TIMEOUT_S)
        self._places = places
        self._context = (tls or ssl.create_default_context()) if parts.scheme == "https" else None

    def connect(self) -> None:
        self.sock = self._places.connect(self.host, self.port)
        if self._context:
            self.sock = self._context.wrap_socket(self.sock, server_hostname=self.host)


@contextlib.contextmanager
def _answer(
    method: str, url: str, places: Places, tls: ssl.SSLContext | None, body: BinaryIO | None = None, size: int = 0
) -> Iterator[http.client.HTTPResponse]:
    parts = split(url)
    path = parts.path or "/"
    headers = {"Accept-Encoding": "identity"}
    if parts.username:
        words = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(words.encode()).decode()}"
    if body:
        headers.update({"Content-Type": "application/octet-stream", "Content-Length": str(size)})
    connection = _Http(parts, places, tls)
    try:
        connection.request(method, f"{path}?{parts.query}" if parts.query else path, body, headers)
        yield connection.getresponse()
    finally:
        connection.close()


# FTP. ftplib takes the data connection's address from the control connection, not from what the server says.
@contextlib.contextmanager
def _ftp(parts: SplitResult, places: Places, tls: ssl.SSLContext | None) -> Iterator[ftplib.FTP]:
    secure = parts.scheme == "ftps"
    ftp = ftplib.FTP_TLS(context=tls or ssl.create_default_context()) if secure else ftplib.FTP()
    ftp.host, ftp.timeout = str(parts.hostname), TIMEOUT_S  # the name is for its certificate
    ftp.sock = places.connect(ftp.host, parts.port or SCHEMES[parts.scheme])
    ftp.af = ftp.sock.family
    ftp.file = ftp.sock.makefile("r", encoding=ftp.encoding)
    try:
        ftp.welcome = ftp.getresp()
        ftp.login(unquote(parts.username or "anonymous"), unquote(parts.password or ""))
        if isinstance(ftp, ftplib.FTP_TLS):
            ftp.prot_p()
        yield ftp
        with contextlib.suppress(OSError, EOFError, ftplib.Error):
            ftp.quit()
    except EOFError as error:
        raise OSError("the connection ended") from error
    finally:
        ftp.close()
