"""The one token that waits at an EVSE: a card, a remote start, or a goal of the action ``charge``.

A token counts for the session that it names, and for no other. One without a session, from the action, waits for the
vehicle in the bay or the next one. A token is forgotten when it was used, when its session is authorised by another
one, and when the bay empties: it never stays for the next customer.
"""

from __future__ import annotations

from dataclasses import dataclass

from robot_charger.words.values import Authorization


@dataclass(frozen=True)
class Token:
    """What was shown. ``authorized``: the back end has accepted it already."""

    id: str = ""
    kind: str = ""
    authorized: bool = False
    session_id: str = ""  # the session it counts for, empty for the present or the next one


class TokenDesk:
    """Not thread-safe: the supervisor calls it under its lock."""

    def __init__(self) -> None:
        self._shown = Token()

    def show(self, token: Token, session_id: str, authorization: Authorization) -> str:
        """Keep a token for the session ``session_id`` (empty: no vehicle is here). Returns why it is refused, or ''."""
        if token.session_id and token.session_id != session_id:
            return f"it is for session {token.session_id}, which is not the one at this EVSE"
        if session_id and authorization == Authorization.ACCEPTED:
            return "the session is authorised already"
        self._shown = token
        return ""

    def waiting(self, session_id: str) -> Token | None:
        """The token that waits for this session. It stays until it is used and forgotten."""
        token = self._shown
        return token if token.id and token.session_id in ("", session_id) else None

    def forget(self) -> None:
        self._shown = Token()
