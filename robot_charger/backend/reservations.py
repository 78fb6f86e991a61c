"""Reservations of EVSEs (OCPP 1.6 part 2, 5.13; 2.0.1 H): who holds which EVSE, until when. Kept over restarts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from robot_charger.backend.records import Now, Token, parse_time

LONG_AGO_S = 43_200.0  # a reservation that ended half a day ago by the clock is over, whatever set the clock


@dataclass
class Reservation:
    id: int
    evse: int
    token: Token
    group_id: str
    expires: str


def same_group(one: str, other: str) -> bool:
    return bool(one) and one.casefold() == other.casefold()


class Reservations:
    """``keep`` stores them as JSON values. Their time runs on CLOCK_MONOTONIC: a step of the clock ends none."""

    def __init__(self, kept: list[dict[str, Any]], keep: Callable[[list[dict[str, Any]]], None]) -> None:
        self.by_id: dict[int, Reservation] = {r["id"]: Reservation(**{**r, "token": Token(**r["token"])}) for r in kept}
        self._keep = keep
        self._ends: dict[tuple[int, str], int] = {}  # [ns]

    def on(self, evse: int) -> list[Reservation]:
        return [r for r in self.by_id.values() if r.evse == evse]

    def held_for_another(self, evse: int, token: Token, group_id: str) -> bool:
        return any(r.token.key != token.key and not same_group(group_id, r.group_id) for r in self.on(evse))

    def add(self, reservation: Reservation) -> None:
        self.by_id[reservation.id] = reservation
        self._store()

    def drop(self, id: int) -> None:
        gone = self.by_id.pop(id)
        self._ends.pop((id, gone.expires), None)
        self._store()

    def take(self, evse: int, token: Token, group_id: str) -> int | None:
        """A token for whom this EVSE is held uses its reservation; its id."""
        for reservation in self.on(evse):
            if reservation.token.key == token.key or same_group(group_id, reservation.group_id):
                self.drop(reservation.id)
                return reservation.id
        return None

    def lapsed(self, now: Now) -> list[int]:
        """Drop those whose time is over; their ids."""
        over = []
        for reservation in self.by_id.values():
            left = (parse_time(reservation.expires) - now.wall).total_seconds()
            key = (reservation.id, reservation.expires)
            ends = self._ends.setdefault(key, now.mono_ns + int(max(0.0, left) * 1e9))
            if now.mono_ns >= ends or left < -LONG_AGO_S:
                over.append(reservation.id)
        for id in over:
            self.drop(id)
        return over

    def clock_corrected(self) -> None:
        """Their ends are counted again by the new time."""
        self._ends.clear()

    def _store(self) -> None:
        self._keep(
            [
                {
                    "id": r.id,
                    "evse": r.evse,
                    "token": {"id": r.token.id, "type": r.token.type},
                    "group_id": r.group_id,
                    "expires": r.expires,
                }
                for r in self.by_id.values()
            ]
        )
