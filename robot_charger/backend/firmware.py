"""Firmware updates: who signed the image, that it is newer, when it may be installed, and what the CSMS hears of it.

An image is installed only if all of this holds, in every version of OCPP:

- A certificate for codeSigning under the maker's pinned root signed it (or parameter ``firmware.unsigned``).
- It was loaded within the limits of ``transfer`` (bytes, free disk, addresses).
- Its version, which the installer reads from the image, is above every version installed before (or parameter
  ``firmware.downgrade``).
- No vehicle is plugged in, no session is on, and the arm is parked. Until the end no session begins.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import itertools
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from robot_charger.backend import security, transfer
from robot_charger.backend.records import Call, Now, parse_time
from robot_charger.backend.security import CertificateError, Certificates
from robot_charger.backend.station import Station
from robot_charger.backend.store import StoreError

log = logging.getLogger("robot_charger.backend")
RESTING = ("Idle", "Installed", "InstallationFailed", "DownloadFailed", "InvalidSignature", "InstallVerificationFailed")
MOST_RETRIES = 20
VERSION_S = 60.0  # longest time the installer may take to read an image's version


@dataclass(frozen=True)
class Firmware:
    """A firmware update as asked for."""

    request_id: int | None
    location: str
    retrieve_at: str
    install_at: str = ""
    signature: str = ""  # base64
    certificate: str = ""  # PEM, leaf first
    retries: int = 0
    retry_interval_s: int = 10

    @property
    def signed(self) -> bool:
        """It claims to be signed; both fields are needed to show it."""
        return bool(self.signature.strip() or self.certificate.strip())


@dataclass(frozen=True)
class FirmwareRules:
    """Parameters ``firmware.*`` and what they allow."""

    installer: str = ""
    unsigned: bool = False
    downgrade: bool = False


class Messages(Protocol):
    """What the OCPP version's module says for this one."""

    def firmware_status(self, status: str, firmware: Firmware | None) -> Call: ...


class RefusedImageError(RuntimeError):
    """An image is not installed; ``status`` is the FirmwareStatusEnumType for it."""

    def __init__(self, status: str, text: str) -> None:
        super().__init__(text)
        self.status = status


def version_key(text: str) -> tuple[tuple[int, int, str], ...] | None:
    """Sorts versions: 1.10 after 1.9, 2.0-rc1 before 2.0. None when the text is no version."""
    match = re.fullmatch(r"[vV]?(\d+(?:\.\d+)*)([-+._~a-zA-Z0-9]*)", text.strip())
    if not match:
        return None
    numbers = [int(n) for n in match[1].split(".")]
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    key = [(2, n, "") for n in numbers]
    rest = match[2]
    for part in re.findall(r"\d+|[a-zA-Z]+", rest):
        key.append((2, int(part), "") if part.isdigit() else (0, 0, part.lower()))
    early = bool(re.match(r"[-._~]?(a|alpha|b|beta|c|rc|pre|preview|dev)", rest, re.IGNORECASE)) or rest.startswith("~")
    if rest and not early:  # 1.0+7 and 1.0-r2 come after 1.0
        key.insert(len(numbers), (2, 0, ""))
    if not rest:
        key.append((1, 0, ""))
    return tuple(key)


def newer(version: str, than: str) -> bool:
    """Raises RefusedImageError when either is no version."""
    one, other = version_key(version), version_key(than)
    if one is None or other is None:
        raise RefusedImageError(
            "InstallVerificationFailed", f"version {(version if one is None else than)[:40]!r} cannot be compared"
        )
    return one > other


class FirmwareUpdates:
    """One update at a time; a newer request takes the place of one that is not being installed yet."""

    def __init__(
        self,
        station: Station,
        certificates: Certificates,
        messages: Messages,
        clock: Callable[[], Now],
        spawn: Callable[[Any], None],
        folder: Path,
        rules: FirmwareRules,
        places: transfer.Places,
        limits: transfer.Limits,
        security_event: Callable[[str, str], None],
    ) -> None:
        self.station = station
        self.state = "Idle"
        self.firmware: Firmware | None = None
        self.rules = rules
        self.limits = limits
        self._certificates = certificates
        self._messages = messages
        self._clock = clock
        self._spawn = spawn
        self._folder = folder
        self._places = places
        self._security_event = security_event
        self._job = 0  # number of the newest request; an older one gives up
        self._files = itertools.count(1)

    def update(self, firmware: Firmware) -> str:
        """OCPP UpdateFirmwareStatusEnumType. Raises ValueError for a time that is none."""
        for moment in (firmware.retrieve_at, firmware.install_at):
            if moment:
                parse_time(moment)
        if not self.rules.installer or not transfer.supported(firmware.location, self._places):
            return "Rejected"
        if not firmware.signed and not self.rules.unsigned:
            log.error("UpdateFirmware refused: the image is not signed, and parameter firmware.unsigned is false")
            self._security_event("InvalidFirmwareSignature", "unsigned firmware refused")
            return "Rejected"
        if firmware.signed:
            try:
                self._signer(firmware)
            except CertificateError as error:
                log.error("UpdateFirmware refused: %s", error)
                self._security_event("InvalidFirmwareSigningCertificate", str(error))
                return "InvalidCertificate"
        if self.state == "Installing":
            return "Rejected"
        running = self.state not in RESTING
        self._job += 1
        self._spawn(self._guarded(self._job, firmware))
        return "AcceptedCanceled" if running else "Accepted"

    def _signer(self, firmware: Firmware) -> Any:
        """The certificate that signed it, once its chain is checked. Raises CertificateError."""
        if not firmware.signature.strip() or not firmware.certificate.strip():
            raise CertificateError("signature and signing certificate are both needed")
        chain = security.split(firmware.certificate)
        roots = self._certificates.roots(security.MAKER)
        security.check_chain(chain, roots, self._clock().wall, security.CODE_SIGNING)
        return chain[0]

    def _say(self, status: str, firmware: Firmware) -> None:
        self.state, self.firmware = status, firmware
        self.station.outside.send(self._messages.firmware_status(status, firmware))

    async def _guarded(self, job: int, firmware: Firmware) -> None:
        image = self._folder / f"firmware-{job}.staged"
        try:
            await self._update(job, firmware, image)
        except RefusedImageError as error:
            log.error("firmware not installed: %s", error)
            if job == self._job:
                self._say(error.status, firmware)
            if error.status == "InvalidSignature":
                self._security_event("InvalidFirmwareSignature", str(error))
        except OSError as error:
            log.error("firmware not installed: %s", error)
            self._say("InstallationFailed", firmware)
        finally:
            self.station.hold(False, self._clock())
            image.unlink(missing_ok=True)

    async def _update(self, job: int, firmware: Firmware, image: Path) -> None:
        await self._wait_until(firmware.retrieve_at, "DownloadScheduled", firmware)
        digest = await self._load(job, firmware, image)
        if digest is None or job != self._job:
            return
        self._say("Downloaded", firmware)
        if firmware.signed:
            self._check_signature(firmware, digest)
            self._say("SignatureVerified", firmware)
        version = await self._check_version(image)
        await self._wait_until(firmware.install_at, "InstallScheduled", firmware)
        if not self.station.may_update:
            self._say("InstallScheduled", firmware)
        while not self.station.may_update:
            await asyncio.sleep(0.2)
            if job != self._job:
                return
        if job != self._job:
            return
        self.station.hold(True, self._clock())
        await self._install(firmware, image, version)

    async def _load(self, job: int, firmware: Firmware, image: Path) -> bytes | None:
        """Its SHA-256; None when a newer request came. Raises RefusedImageError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        retries = min(max(0, firmware.retries), MOST_RETRIES)
        for attempt in range(retries + 1):
            if job != self._job:
                return None
            self._say("Downloading", firmware)
            try:
                return await asyncio.to_thread(transfer.download, firmware.location, image, self._places, self.limits)
            except (transfer.TransferError, OSError) as error:
                if attempt == retries or isinstance(error, transfer.PlaceError):
                    raise RefusedImageError("DownloadFailed", str(error)) from error
                log.warning("firmware: %s", error)
                await asyncio.sleep(max(0, firmware.retry_interval_s))
        return None

    def _check_signature(self, firmware: Firmware, digest: bytes) -> None:
        try:
            signature = base64.b64decode("".join(firmware.signature.split()), validate=True)
            security.verify_signature(self._signer(firmware), signature, digest)
        except (CertificateError, binascii.Error, ValueError) as error:
            raise RefusedImageError("InvalidSignature", str(error)) from error

    async def _check_version(self, image: Path) -> str:
        """The image's own version; it must rise. Raises RefusedImageError."""
        version = await self._read_version(image)
        if self.rules.downgrade:
            return version
        if not version:
            raise RefusedImageError(
                "InstallVerificationFailed",
                f"`{self.rules.installer} version FILE` prints no version, so the image may be older than what runs",
            )
        for before in (self.station.identity.firmware, str(self.station.store.get("firmware_version", "0"))):
            if version_key(before) is not None and not newer(version, before):
                raise RefusedImageError("InstallVerificationFailed", f"version {version} is not newer than {before}")
        return version

    async def _read_version(self, image: Path) -> str:
        process = await asyncio.create_subprocess_exec(
            self.rules.installer, "version", str(image), stdout=asyncio.subprocess.PIPE
        )
        try:
            out, _ = await asyncio.wait_for(process.communicate(), VERSION_S)
        except asyncio.TimeoutError:
            process.kill()
            await process.wait()
            return ""
        text = out.decode(errors="replace").strip()
        return text if process.returncode == 0 and version_key(text) is not None else ""

    async def _install(self, firmware: Firmware, image: Path, version: str) -> None:
        self._say("Installing", firmware)
        if not await self._run("install", image):
            await self._run("rollback", image)
            raise RefusedImageError("InstallationFailed", "the installer failed; what ran before was restored")
        if version:
            try:
                self.station.store.put("firmware_version", version)
            except StoreError as error:
                log.error("the installed version is not kept: %s", error)
        self._say("Installed", firmware)
        self._security_event("FirmwareUpdated", version)

    async def _run(self, word: str, image: Path) -> bool:
        try:
            process = await asyncio.create_subprocess_exec(self.rules.installer, word, str(image))
            return await process.wait() == 0
        except OSError as error:
            log.error("parameter firmware.installer: %s", error)
            return False

    async def _wait_until(self, text: str, status: str, firmware: Firmware) -> None:
        seconds = (parse_time(text) - self._clock().wall).total_seconds() if text else 0.0
        if seconds > 0:
            self._say(status, firmware)
            await asyncio.sleep(seconds)
