"""The ways to the CSMS: slots from parameters and from SetNetworkProfile, their credentials, never a downgrade."""

from __future__ import annotations

import random
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from robot_charger.backend.parameters import Plan
from robot_charger.backend.records import Payload
from robot_charger.backend.security import Certificates
from robot_charger.backend.settings import Settings


@dataclass(frozen=True)
class Network:
    """One way to the CSMS."""

    url: str
    security_profile: int = 2
    tls: ssl.SSLContext | None = None
    user: str = ""
    password: str = field(default="", repr=False)
    name: str = "1"


class Backoff:
    """OCPP 2.0.1: first wait the minimum plus random, doubled ``repeats`` times, then constant."""

    def __init__(self, minimum_s: float, random_s: float, repeats: int, rng: random.Random | None = None) -> None:
        self.minimum_s, self.random_s, self.repeats = minimum_s, random_s, repeats
        self._rng = rng or random.Random()
        self._wait = 0.0
        self._times = 0

    def reset(self) -> None:
        self._wait, self._times = 0.0, 0

    def next(self) -> float:
        if self._times == 0:
            self._wait = self.minimum_s
        elif self._times <= self.repeats:
            self._wait *= 2
        self._times += 1
        return self._wait + self._rng.uniform(0.0, self.random_s)


SLOTS = range(1, 10)  # of network profiles


class Networks:
    """``ways()`` gives the connections to try, in order. Kept values come and go through ``get`` and ``put``."""

    def __init__(
        self,
        plan: Plan,
        settings: Settings,
        certificates: Certificates,
        get: Callable[[str, Any], Any],
        put: Callable[[str, Any], None],
    ) -> None:
        self._plan = plan
        self._settings = settings
        self._certificates = certificates
        self._get, self._put = get, put
        p = plan.parameters
        urls = [u for u in (p.url, *p.fallback_urls) if u]
        self._given = {str(n): {"url": url, "security_profile": p.security_profile} for n, url in enumerate(urls, 1)}
        self._kept: dict[str, dict[str, Any]] = get("network_profiles", {})
        self.floor: int = max(p.security_profile, get("security_profile", 0))  # no downgrade below it
        self.wanted = max(self.floor, settings["security_profile"])  # raised by a CSMS of 1.6
        settings.note("security_profile", self.floor)
        self.as_sent = ""  # the new password as the CSMS wrote it, where it was hexadecimal
        if "profile_priority" not in settings.changed:
            settings.note("profile_priority", list(self._given))

    @property
    def slots(self) -> dict[str, dict[str, Any]]:
        return {**self._given, **self._kept}

    @property
    def password(self) -> str:
        kept: str = self._settings["password"]
        return kept or self._plan.password

    def ways(self) -> list[Network]:
        """Raises nothing: a slot whose certificates do not load is left out, but one is always given."""
        found: list[Network] = []
        for slot in self._settings["profile_priority"]:
            values = self.slots.get(slot)
            if values is None:
                continue
            if self.wanted > values["security_profile"]:
                found += self._of(slot, {**values, "security_profile": self.wanted})
            if values["security_profile"] >= self.floor:
                found += self._of(slot, values)
        if not found:  # the priority leads nowhere: what the parameters say, at the level reached
            for slot, values in self._given.items():
                found += self._of(slot, {**values, "security_profile": max(self.floor, values["security_profile"])})
        return found

    def _of(self, slot: str, values: dict[str, Any]) -> list[Network]:
        p = self._plan.parameters
        profile = values["security_profile"]
        url = values["url"]
        if profile >= 2 and url.startswith("ws:"):
            url = "wss:" + url[3:]  # raised by the CSMS: the same place, with TLS
        tls = self._tls(profile) if url.startswith("wss:") else None
        passwords = [self.password, *filter(None, [self._get("password_as_sent", "")])]
        previous = self._get("previous_password", "")
        if previous and profile in (1, 2):
            passwords.append(previous)  # until the new one has worked once
        return [Network(url, profile, tls, p.station_id, password, slot) for password in passwords]

    def _tls(self, profile: int) -> ssl.SSLContext:
        p = self._plan.parameters
        context = ssl.create_default_context(cafile=p.tls__ca_file or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        for root in self._certificates.roots("CSMSRootCertificate"):
            context.load_verify_locations(cadata=root.public_bytes(Encoding.PEM).decode())
        if profile == 3:
            own, key = self._certificates.chain_file, self._certificates.key_file
            if own and key:
                context.load_cert_chain(own, key)
            elif p.tls__certificate_file:
                context.load_cert_chain(p.tls__certificate_file, p.tls__key_file)
        return context

    def connected(self, network: Network) -> None:
        """The CSMS accepted the station over this network: from now on nothing below its profile."""
        if network.password == self.password and self._get("previous_password", ""):
            self._put("previous_password", None)
        if network.security_profile > self.floor:
            self.floor = network.security_profile
            self._put("security_profile", self.floor)
            self._settings.note("security_profile", self.floor)

    def change_password(self, old: str) -> None:
        """The setting has the new one already; keep the old until the new one has worked."""
        self._put("password_as_sent", self.as_sent or None)
        self.as_sent = ""
        self._put("previous_password", old or self._plan.password or None)

    def set(self, slot: int, data: Payload) -> str:
        """OCPP SetNetworkProfileStatusEnumType."""
        p = self._plan.parameters
        if slot not in SLOTS:
            return "Rejected"
        profile, url = data["securityProfile"], data["ocppCsmsUrl"].rstrip("/")
        if data.get("ocppTransport", "JSON") != "JSON" or not url.startswith(("ws://", "wss://")):
            return "Rejected"
        if profile < self.floor or not 0 <= profile <= 3 or (profile >= 2) != url.startswith("wss://"):
            return "Rejected"
        if profile < 2 and not p.allow_plain:
            return "Rejected"
        if profile in (1, 2) and not self.password:
            return "Rejected"
        if profile == 3 and not (self._certificates.chain_file or p.tls__certificate_file):
            return "Rejected"
        kept = {**self._kept, str(slot): {"url": url, "security_profile": profile}}
        self._put("network_profiles", kept)
        self._kept = kept
        return "Accepted"

    def known(self, slots: list[str]) -> bool:
        return bool(slots) and all(s in self.slots for s in slots)
