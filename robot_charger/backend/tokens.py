"""Who may charge without asking: the local list, the cache, and what holds while the CSMS is away."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from robot_charger.backend.records import Now, Token, TokenInfo, iso, parse_time
from robot_charger.backend.settings import Settings

CACHE_ENTRIES = 2000
UNCACHED = ("NoAuthorization", "KeyCode", "DirectPayment")  # of one session only


class Tokens:
    """Local authorisation list and authorisation cache, kept in the store through ``keep(key, value)``."""

    def __init__(
        self,
        settings: Settings,
        kept: Callable[[str, Any], Any] = lambda key, default: default,
        keep: Callable[[str, Any], None] = lambda key, value: None,
    ) -> None:
        self._settings = settings
        self._keep = keep
        self._cache: dict[str, dict[str, Any]] = kept("cache", {})
        self._list: dict[str, dict[str, Any]] = kept("local_list", {})
        self.version: int = kept("local_list_version", 0)
        self._count()

    def _count(self) -> None:
        self._settings.note("list_entries", len(self._list))

    # The cache.
    def learn(self, token: Token, info: TokenInfo, now: Now) -> None:
        """The CSMS spoke of a token."""
        if not self._settings["cache_enabled"] or token.type in UNCACHED:
            return
        life = self._settings["cache_life_s"]
        expires = self._time(info.expires) or (iso(now.wall + timedelta(seconds=life)) if life else "")
        entry = {"status": info.status, "group": info.group_id, "expires": expires, "evses": list(info.evses)}
        if self._cache.get(token.key) == entry:
            return
        self._cache.pop(token.key, None)
        self._cache[token.key] = entry
        while len(self._cache) > CACHE_ENTRIES:
            self._cache.pop(next(iter(self._cache)))
        self._keep("cache", self._cache)

    @staticmethod
    def _time(text: str) -> str:
        """An expiry that can be read, else none."""
        try:
            return iso(parse_time(text)) if text else ""
        except ValueError:
            return ""

    def clear_cache(self) -> bool:
        """False when there is no cache."""
        if not self._settings["cache_enabled"]:
            return False
        self._cache.clear()
        self._keep("cache", self._cache)
        return True

    def about(self, token_id: str) -> str:
        """What is kept of a token, for its owner."""
        key = token_id.casefold()
        parts = [
            f"{name}: {table[key]['status']}"
            for name, table in (("cache", self._cache), ("list", self._list))
            if key in table
        ]
        return "; ".join(parts)

    def forget(self, token_id: str) -> None:
        """Remove a token from the cache; the local list is the CSMS's own."""
        if self._cache.pop(token_id.casefold(), None):
            self._keep("cache", self._cache)

    # The local list.
    @property
    def version_told(self) -> int:
        """0 where there is no list (2.0.1 D02)."""
        return self.version if self._list else 0

    def update_list(self, version: int, entries: list[tuple[Token, TokenInfo | None]], full: bool) -> str:
        """OCPP SendLocalListStatusEnumType. An entry without info is removed."""
        if not self._settings["list_enabled"]:
            return "Failed"
        if version <= 0 or (not full and version <= self.version):
            return "VersionMismatch"
        if full and len({t.key for t, _ in entries}) != len(entries):
            return "Failed"
        updated = {} if full else dict(self._list)
        for token, info in entries:
            if info is None:
                updated.pop(token.key, None)
            else:
                updated[token.key] = {
                    "status": info.status,
                    "group": info.group_id,
                    "expires": self._time(info.expires),
                    "evses": list(info.evses),
                }
        if len(updated) > self._settings["list_storage"]:
            return "Failed"
        self._keep("local_list", updated)
        self._keep("local_list_version", version)
        self._list, self.version = updated, version
        self._count()
        return "Accepted"

    # What holds.
    def known(self, token: Token, evse: int, wall: datetime) -> TokenInfo | None:
        """What list or cache says; the list wins. None: nothing known."""
        for enabled, table in (("list_enabled", self._list), ("cache_enabled", self._cache)):
            entry = table.get(token.key) if self._settings[enabled] else None
            if not entry:
                continue
            status = entry["status"]
            if entry["expires"] and parse_time(entry["expires"]) <= wall:
                if table is self._cache:
                    continue
                status = "Expired"
            if status == "Accepted" and entry.get("evses") and evse not in entry["evses"]:
                status = "NotAtThisLocation"
            return TokenInfo(status, entry["group"], entry["expires"], tuple(entry.get("evses", ())))
        return None

    def offline(self, token: Token, evse: int, wall: datetime) -> TokenInfo:
        """The answer while the CSMS is away."""
        known = self.known(token, evse, wall) if self._settings["local_authorize_offline"] else None
        if known:
            return known
        return TokenInfo("Accepted" if self._settings["offline_unknown"] else "Unknown")
