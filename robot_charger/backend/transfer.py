"""Files to and from places that a CSMS names: HTTP, HTTPS, FTP, FTPS. Blocking; run it in a thread."""

from __future__ import annotations

import contextlib
import ftplib
import shutil
import ssl
import urllib.request
from pathlib import Path
from urllib.parse import unquote, urlsplit

TIMEOUT_S = 30.0
MAX_BYTES = 2 << 30
SCHEMES = ("http", "https", "ftp", "ftps")


class TransferError(RuntimeError):
    """A file did not arrive; the text says why."""


def supported(url: str) -> bool:
    return urlsplit(url).scheme in SCHEMES and bool(urlsplit(url).hostname)


def download(url: str, target: Path, tls: ssl.SSLContext | None = None) -> None:
    """Raises TransferError; ``target`` is then not there."""
    part = target.with_name(target.name + ".part")
    try:
        if urlsplit(url).scheme == "ftps":
            with _ftp(url) as ftp, part.open("wb") as file:
                ftp.retrbinary(f"RETR {unquote(urlsplit(url).path)}", file.write)
        else:
            with urllib.request.urlopen(url, timeout=TIMEOUT_S, context=tls) as answer, part.open("wb") as file:
                if int(answer.headers.get("Content-Length") or 0) > MAX_BYTES:
                    raise TransferError("the file is larger than 2 GiB")
                shutil.copyfileobj(answer, file)
        part.replace(target)
    except (OSError, ValueError, ftplib.Error) as error:
        part.unlink(missing_ok=True)
        raise TransferError(f"{urlsplit(url).hostname}: {error}") from error


def upload(source: Path, url: str, name: str, tls: ssl.SSLContext | None = None) -> None:
    """PUT over HTTP(S), STOR over FTP(S). A location that ends in / gets ``name`` appended. Raises TransferError."""
    place = url + name if url.endswith("/") else url
    try:
        if urlsplit(url).scheme in ("ftp", "ftps"):
            with _ftp(url) as ftp, source.open("rb") as file:
                ftp.storbinary(f"STOR {unquote(urlsplit(place).path)}", file)
            return
        request = urllib.request.Request(place, data=source.read_bytes(), method="PUT")
        request.add_header("Content-Type", "application/octet-stream")
        with contextlib.closing(urllib.request.urlopen(request, timeout=TIMEOUT_S, context=tls)):
            pass
    except (OSError, ValueError, ftplib.Error) as error:
        raise TransferError(f"{urlsplit(url).hostname}: {error}") from error


def _ftp(url: str) -> ftplib.FTP:
    parts = urlsplit(url)
    ftp = ftplib.FTP_TLS(context=ssl.create_default_context()) if parts.scheme == "ftps" else ftplib.FTP()
    ftp.connect(str(parts.hostname), parts.port or 21, timeout=TIMEOUT_S)
    ftp.login(unquote(parts.username or "anonymous"), unquote(parts.password or ""))
    if isinstance(ftp, ftplib.FTP_TLS):
        ftp.prot_p()
    return ftp
