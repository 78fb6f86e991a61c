"""What a CSMS does to a station besides charging: logs, certificates, security events; firmware is in firmware.py."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from robot_charger.backend import transfer
from robot_charger.backend.firmware import Firmware, FirmwareRules, FirmwareUpdates
from robot_charger.backend.records import Call, Now, iso, parse_time
from robot_charger.backend.security import CertificateError, Certificates
from robot_charger.backend.station import Station
from robot_charger.backend.store import StoreError

log = logging.getLogger("robot_charger.backend")
SECURITY_LOG = 1000  # events kept
RENEW_BEFORE = timedelta(days=30)


class LogRing(logging.Handler):
    """The last lines of the back end's log, for GetLog."""

    def __init__(self, lines: int = 5000) -> None:
        super().__init__()
        self.lines: deque[tuple[datetime, str]] = deque(maxlen=lines)
        self.setFormatter(logging.Formatter("%(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        moment = datetime.fromtimestamp(record.created).astimezone()
        self.lines.append((moment, f"{iso(moment)} {self.format(record)}"))


class Messages(Protocol):
    """What the OCPP version's module says for this one."""

    def firmware_status(self, status: str, firmware: Firmware | None) -> Call: ...
    def log_status(self, status: str, request_id: int | None) -> Call: ...
    def sign_certificate(self, csr: str) -> Call: ...


class Maintenance:
    def __init__(
        self,
        station: Station,
        certificates: Certificates,
        messages: Messages,
        clock: Callable[[], Now],
        spawn: Callable[[Any], None],
        folder: Path,
        rules: FirmwareRules | None = None,
        ring: LogRing | None = None,
        places: transfer.Places | None = None,
        limits: transfer.Limits | None = None,
    ) -> None:
        self.station = station
        self.certificates = certificates
        self.messages = messages
        self.log_state = "Idle"
        self.log_request: int | None = None
        self._clock = clock
        self._spawn = spawn
        self._folder = folder
        self._ring = ring or LogRing()
        self._log_job = 0
        self._csr_job = 0
        self._places = places or transfer.Places()
        self.updates = FirmwareUpdates(
            station,
            certificates,
            messages,
            clock,
            spawn,
            folder,
            rules or FirmwareRules(),
            self._places,
            limits or transfer.Limits(),
            self.security_event,
        )
        station.settings.note("root_entries", certificates.count)

    # Security events.
    def security_event(self, kind: str, text: str = "") -> None:
        """Log it and tell the CSMS, queued."""
        moment = self._clock()
        events = [*self.station.store.get("security_log", []), [moment.iso, kind, text]]
        payload = {"type": kind, "timestamp": moment.iso}
        if text:
            payload["techInfo"] = text[:255]
        try:
            self.station.store.put("security_log", events[-SECURITY_LOG:])
            self.station.store.post(("SecurityEventNotification", payload))
        except StoreError as error:
            log.error("security event %s not kept: %s", kind, error)
            return
        self.station.outside.queued()

    # Certificates.
    def sign_certificate(self) -> None:
        """Ask the CSMS to sign a new key."""
        identity, settings = self.station.identity, self.station.settings
        csr = self.certificates.request(identity.station_id, settings["organization"])
        self.station.outside.send(self.messages.sign_certificate(csr))
        self._csr_job += 1
        self._spawn(self._ask_again(self._csr_job, csr))

    async def _ask_again(self, job: int, csr: str) -> None:
        """No certificate came: the request goes out again, each time after twice the wait (A02.FR.18, 19)."""
        wait = float(self.station.settings["csr_wait_s"])
        for _ in range(self.station.settings["csr_repeats"]):
            await asyncio.sleep(wait)
            if job != self._csr_job:
                return
            self.station.outside.send(self.messages.sign_certificate(csr))
            wait *= 2

    def renew_if_due(self) -> None:
        """Once a connection is up: ask for a new certificate before the old one ends."""
        expires = self.certificates.expires()
        if expires and expires - self._clock().wall < RENEW_BEFORE:
            self.sign_certificate()

    def certificate_signed(self, chain: str) -> bool:
        try:
            self.certificates.signed(chain, self._clock().wall)
        except CertificateError as error:
            self.security_event("InvalidChargingStationCertificate", str(error))
            return False
        self._csr_job += 1  # the request is answered
        return True

    def install_certificate(self, kind: str, pem: str) -> str:
        status = self.certificates.install(kind, pem, self._clock().wall)
        self.station.settings.note("root_entries", self.certificates.count)
        if status == "Accepted":
            self.security_event("ReconfigurationOfSecurityParameters", f"{kind} installed")
        return status

    def delete_certificate(self, wanted: dict[str, Any]) -> str:
        status = self.certificates.delete(wanted)
        self.station.settings.note("root_entries", self.certificates.count)
        return status

    @property
    def firmware_state(self) -> str:
        """FirmwareStatusEnumType of the last update."""
        return self.updates.state

    @property
    def firmware(self) -> Firmware | None:
        return self.updates.firmware

    def update_firmware(self, firmware: Firmware) -> str:
        """OCPP UpdateFirmwareStatusEnumType."""
        return self.updates.update(firmware)

    # Logs.
    def get_log(
        self, kind: str, request_id: int | None, location: str, oldest: str, latest: str, retries: int, interval_s: int
    ) -> tuple[str, str]:
        """OCPP LogStatusEnumType and the file's name."""
        if not transfer.supported(location, self._places):
            return "Rejected", ""
        running = self.log_state == "Uploading"
        if running:
            self._say_log("AcceptedCanceled", self.log_request)
        stamp = self._clock().wall.strftime("%Y%m%dT%H%M%SZ")
        name = f"{self.station.identity.station_id}-{kind}-{stamp}.log"
        text = self._log_text(kind, oldest, latest)
        self._log_job += 1
        self._spawn(self._upload(self._log_job, name, text, location, request_id, retries, interval_s))
        return "AcceptedCanceled" if running else "Accepted", name

    def _log_text(self, kind: str, oldest: str, latest: str) -> str:
        first = parse_time(oldest) if oldest else None
        last = parse_time(latest) if latest else None

        def inside(moment: datetime) -> bool:
            return (first is None or moment >= first) and (last is None or moment <= last)

        if kind == "SecurityLog":
            events = self.station.store.get("security_log", [])
            return "".join(f"{t} {k} {x}\n" for t, k, x in events if inside(parse_time(t)))
        summary = {
            "queued": self.station.queued,
            "refused": len(self.station.store.refused()),
            "status": self.station.status,
            "store_ok": self.station.store_ok,
        }
        lines = [line for moment, line in self._ring.lines if inside(moment)]
        return "\n".join([json.dumps(summary), *lines]) + "\n"

    async def _upload(
        self, job: int, name: str, text: str, location: str, request_id: int | None, retries: int, interval_s: int
    ) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        file = self._folder / name
        file.write_text(text)
        file.chmod(0o600)
        try:
            for attempt in range(retries + 1):
                if job != self._log_job:
                    return
                self._say_log("Uploading", request_id)
                try:
                    await asyncio.to_thread(transfer.upload, file, location, name, self._places)
                    if job == self._log_job:
                        self._say_log("Uploaded", request_id)
                    return
                except transfer.TransferError as error:
                    log.warning("log upload: %s", error)
                    if attempt < retries:
                        await asyncio.sleep(interval_s)
            if job == self._log_job:
                self._say_log("UploadFailure", request_id)
        finally:
            file.unlink(missing_ok=True)

    def _say_log(self, status: str, request_id: int | None) -> None:
        self.log_state, self.log_request = status, request_id
        self.station.outside.send(self.messages.log_status(status, request_id))
