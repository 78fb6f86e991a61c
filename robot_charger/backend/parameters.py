"""Parameters of the back end node, and the settings, networks and identity they become."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509

from robot_charger.backend.records import Identity
from robot_charger.backend.security import CertificateError, check_root, split
from robot_charger.backend.site_power import SitePlan
from robot_charger.backend.transactions import POINTS
from robot_charger.backend.transfer import Network
from robot_charger.common.parameters import ParameterError, parameter

VERSIONS = ("1.6", "2.0.1", "2.1")


@dataclass
class BackendParameters:
    version: str = parameter("2.0.1", "OCPP version spoken to the CSMS", choices=VERSIONS)
    url: str = parameter("", "WebSocket address of the CSMS without the station's id; empty: no back end")
    fallback_urls: list = parameter([], "further addresses, tried in this order when the first fails")
    station_id: str = parameter("station1", "identity of this station at the CSMS, last part of the address")
    security_profile: int = parameter(
        2, "0 none, 1 password, 2 TLS and password, 3 TLS with a client certificate", low=0, high=3, unsafe=0
    )
    allow_plain: bool = parameter(False, "allow a connection without TLS (security profiles 0 and 1)", unsafe=True)
    password_file: str = parameter("", "file that holds the password of profiles 1 and 2, mode 0600", file=True)
    tls__ca_file: str = parameter("", "PEM file of the CSMS's root certificates; empty: the system's", file=True)
    tls__certificate_file: str = parameter("", "PEM file of the station's certificate chain (profile 3)", file=True)
    tls__key_file: str = parameter("", "PEM file of the station's key (profile 3)", file=True)
    tls__folder: str = parameter("", "folder of certificates the CSMS installs; empty: beside the store")
    tls__pin_sha256: str = parameter("", "SHA-256 of the CSMS's certificate, hex; empty: not pinned")
    store: str = parameter("~/.local/state/robot_charger/backend.sqlite", "the durable store (an SQLite file)")
    queue__limit: int = parameter(
        100_000, "queued messages beyond which the oldest periodic meter values are thinned", low=100, high=10_000_000
    )
    evses: int = parameter(1, "EVSEs of this station, /evse1 and on", low=1, high=32)
    connectors: list = parameter(["cCCS2"], "OCPP connector type of each EVSE; the last counts for the rest")
    vendor: str = parameter("robot_charger", "vendor name in BootNotification")
    model: str = parameter("robot_charger", "model in BootNotification")
    serial: str = parameter("", "serial number in BootNotification")
    firmware: str = parameter("0.1.0", "firmware version in BootNotification")
    authorize__timeout_s: float = parameter(
        5.0, "how long an authorisation may take before the offline policy answers", unit="s", low=0.1, high=60.0
    )
    authorize__offline: str = parameter(
        "known",
        "who may charge while the CSMS is away: nobody, known (list and cache) or all",
        choices=("nobody", "known", "all"),
        unsafe="all",
    )
    authorize__remote_start: bool = parameter(False, "ask the CSMS again for a token that it itself starts with")
    authorize__start_button: bool = parameter(
        False, "take KIND_START without a token as a start button: whoever presses it charges", unsafe=True
    )
    authorize__master_pass: str = parameter(
        "", "group of the cards that stop every session and start none (master pass); empty: none"
    )
    rfid__reader: str = parameter("", "part of the name of a PC/SC card reader; empty: none")
    rfid__evse: int = parameter(0, "the EVSE this reader stands at, 0: it serves all of them", low=0, high=32)
    firmware__installer: str = parameter(
        "",
        "program called with `version FILE` (prints the image's version), `install FILE`, and `rollback FILE` when "
        "that failed; empty: no updates",
    )
    firmware__unsigned: bool = parameter(False, "install firmware that is not signed", unsafe=True)
    firmware__downgrade: bool = parameter(
        False, "install firmware that is not newer than what was installed before", unsafe=True
    )
    firmware__root_file: str = parameter(
        "", "PEM file of the maker's roots, which sign firmware; put there at commissioning"
    )
    firmware__root_over_ocpp: bool = parameter(
        False, "let the CSMS install and delete the maker's roots (ManufacturerRootCertificate)", unsafe=True
    )
    transfer__hosts: list = parameter(
        [], "hosts with a private address, beside the CSMS's, that files may come from and logs go to"
    )
    transfer__field_networks: list = parameter(
        [], "the station's own field networks, like 192.168.10.0/24: files and logs never go there"
    )
    transfer__max_mb: int = parameter(512, "largest file that is loaded", unit="MiB", low=1, high=65536)
    transfer__keep_free_mb: int = parameter(
        256, "disk space that a download leaves free", unit="MiB", low=0, high=1 << 20
    )
    limit__site_w: float = parameter(
        0.0, "most power that the site may draw from the grid, also without a CSMS; 0: no limit", unit="W", low=0.0
    )
    limit__efficiency: float = parameter(
        0.94, "output power over grid power, for limits that count on the grid side", low=0.5, high=1.0
    )
    limit__auxiliary_w: float = parameter(
        500.0, "what the station itself draws: cooling, arm, computers", unit="W", low=0.0, high=100_000.0
    )
    limit__site_meter: bool = parameter(False, "a meter of the whole site is on /site/meter; limit.site_w counts there")
    limit__fallback_w: float = parameter(
        0.0, "what the station may draw from the grid while the site's meter is silent", unit="W", low=0.0
    )
    call_timeout_s: int = parameter(30, "how long the CSMS may take to answer", unit="s", low=1, high=600)
    ping_s: int = parameter(20, "WebSocket ping interval, and time-out of its pong; 0: none", unit="s", low=0, high=600)
    backoff__minimum_s: int = parameter(2, "first wait before a reconnect", unit="s", low=0, high=3600)
    backoff__random_s: int = parameter(5, "random part of that wait", unit="s", low=0, high=3600)
    backoff__repeats: int = parameter(5, "how often the wait doubles", low=0, high=20)
    meter__public_keys: list = parameter(
        [], "public key of each EVSE's meter, as OCMF names it (base64 or hexadecimal); empty: not told"
    )
    sample_s: int = parameter(10, "interval of meter values during a transaction; 0: none", unit="s", low=0, high=3600)
    final_meter_s: float = parameter(
        3.0, "how long to wait for the final register after the output is off", unit="s", low=0.1, high=60.0
    )
    recovery_s: float = parameter(
        30.0, "how long a transaction found after a restart waits for its session", unit="s", low=0.1, high=600.0
    )
    tx_start_points: list = parameter(["PowerPathClosed"], "what starts a transaction", choices=POINTS)
    tx_stop_points: list = parameter(["PowerPathClosed"], "what ends it when it no longer holds", choices=POINTS)


@dataclass
class Plan:
    """Parameters, checked against each other and turned into what the back end uses."""

    parameters: BackendParameters
    password: str = field(default="", repr=False)

    @property
    def store_path(self) -> Path:
        return Path(self.parameters.store).expanduser()

    @property
    def certificate_folder(self) -> Path:
        folder = self.parameters.tls__folder
        return Path(folder).expanduser() if folder else self.store_path.with_suffix(".certificates")

    @property
    def maker_roots(self) -> list[x509.Certificate]:
        """Raises ParameterError."""
        file = self.parameters.firmware__root_file
        if not file:
            return []
        try:
            roots = split(Path(file).expanduser().read_text())
            for root in roots:
                check_root(root)
        except (OSError, CertificateError) as error:
            raise ParameterError(f"parameter firmware.root_file = {file!r}: {error}") from error
        return roots

    @property
    def field_networks(self) -> tuple[Network, ...]:
        """Raises ParameterError."""
        try:
            return tuple(ipaddress.ip_network(n, strict=False) for n in self.parameters.transfer__field_networks)
        except ValueError as error:
            raise ParameterError(f"parameter transfer.field_networks: {error}") from error

    @property
    def site(self) -> SitePlan:
        p = self.parameters
        return SitePlan(
            p.limit__site_w, p.limit__efficiency, p.limit__auxiliary_w, p.limit__fallback_w, p.limit__site_meter
        )

    @property
    def identity(self) -> Identity:
        p = self.parameters
        return Identity(p.station_id, p.vendor, p.model, p.serial, p.firmware, tuple(p.connectors))

    @property
    def settings(self) -> dict[str, Any]:
        p = self.parameters
        return {
            "ping_s": p.ping_s,
            "message_timeout_s": p.call_timeout_s,
            "backoff_min_s": p.backoff__minimum_s,
            "backoff_random_s": p.backoff__random_s,
            "backoff_repeats": p.backoff__repeats,
            "sample_s": p.sample_s,
            "start_points": list(p.tx_start_points),
            "stop_points": list(p.tx_stop_points),
            "authorize_remote_start": p.authorize__remote_start,
            "master_pass": p.authorize__master_pass,
            "local_authorize_offline": p.authorize__offline != "nobody",
            "offline_unknown": p.authorize__offline == "all",
            "security_profile": p.security_profile,
            "identity": p.station_id,
            "connectors": p.evses,
        }


def plan(p: BackendParameters) -> Plan:
    """Check the parameters against each other. Raises ParameterError or OSError, naming the parameter."""
    for url in [p.url, *p.fallback_urls]:
        if not url:
            continue
        parts = urlsplit(url)
        if parts.scheme not in ("ws", "wss") or not parts.hostname:
            raise ParameterError(f"parameter url = {url!r} is no WebSocket address: wss://host/path")
        if parts.username or parts.password:
            raise ParameterError("parameter url holds a password: put it into the file named by password_file")
        plain = parts.scheme == "ws"
        if plain and p.security_profile >= 2:
            raise ParameterError(f"parameter security_profile = {p.security_profile} needs a wss:// address, not {url}")
        if not plain and p.security_profile < 2:
            raise ParameterError(f"parameter security_profile = {p.security_profile} goes with ws://: 2 or 3 for {url}")
        if plain and not p.allow_plain:
            raise ParameterError(
                f"parameter allow_plain = False refuses {url} without TLS: use wss://, or set it to true on a desk"
            )
    if not p.station_id or len(p.station_id) > 48 or ":" in p.station_id:
        raise ParameterError(f"parameter station_id = {p.station_id!r} must have 1 to 48 characters, no colon")
    if p.rfid__evse > p.evses:
        raise ParameterError(f"parameter rfid.evse = {p.rfid__evse} is no EVSE of this station: 0 to {p.evses}")
    password = ""
    if p.url and p.security_profile in (1, 2):
        if not p.password_file:
            raise ParameterError(f"parameter password_file is empty: security profile {p.security_profile} needs one")
        password = Path(p.password_file).expanduser().read_text(encoding="utf-8").strip()
        if not 1 <= len(password) <= 64:
            raise ParameterError(f"parameter password_file: {p.password_file} holds no password of 1 to 64 characters")
    if p.url and p.security_profile == 3 and not (p.tls__certificate_file and p.tls__key_file):
        raise ParameterError("parameter tls.certificate_file and tls.key_file are needed by security profile 3")
    if any(url.startswith("wss:") for url in [p.url, *p.fallback_urls]):
        tls_context(p)
    found = Plan(p, password)
    _ = found.maker_roots, found.field_networks  # impossible ones end the start
    return found


def tls_context(p: BackendParameters) -> ssl.SSLContext:
    """TLS 1.2 or newer, the CSMS's certificate and name checked. Raises ParameterError or OSError."""
    try:
        context = ssl.create_default_context(cafile=p.tls__ca_file or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if p.security_profile == 3:
            context.load_cert_chain(p.tls__certificate_file, p.tls__key_file)
    except ssl.SSLError as error:
        raise ParameterError(f"parameter tls.ca_file, tls.certificate_file or tls.key_file: {error}") from error
    return context
