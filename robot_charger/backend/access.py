"""Who may start and stop: tokens that wait for their vehicle, cards, payments, remote starts. Time is injected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from robot_charger.backend.records import (
    START_BUTTON,
    Now,
    Payload,
    Request,
    SessionView,
    Token,
    TokenInfo,
    ToVehicleSide,
)
from robot_charger.backend.reservations import same_group
from robot_charger.words.values import Authorization, Phase

if TYPE_CHECKING:
    from robot_charger.backend.station import Station


@dataclass
class Waiting:
    """A token that waits for its session: of a remote start, a card, a payment. It lapses."""

    token: Token
    since_ns: int
    group_id: str = ""
    remote_start_id: int | None = None
    trusted: bool = False  # nobody needs to be asked
    text: str = ""
    told: str = ""  # the session that was told of it


def takes_token(view: SessionView | None) -> bool:
    """A vehicle is there, and no token was asked about yet: a session takes one."""
    if view is None:
        return False
    open_phase = Phase.POSITIONING <= view.phase <= Phase.LINKING
    return bool(view.session_id) and open_phase and view.authorization == Authorization.NONE


class Access:
    def __init__(self, station: Station) -> None:
        self._station = station
        self.waiting: dict[int, Waiting] = {}
        self.start_profiles: dict[int, tuple[Token, Payload]] = {}  # TxProfiles that came with a remote start

    # The session's side.
    def session(self, view: SessionView) -> None:
        """A session that was authorised takes the token that waits for it."""
        waiting, transactions = self.waiting.get(view.evse), self._station.evses[view.evse]
        if not waiting or not view.session_id or view.authorization != Authorization.ACCEPTED:
            return
        del self.waiting[view.evse]
        if transactions.token is None or transactions.token.key == waiting.token.key:
            transactions.authorized(
                view.session_id,
                waiting.token,
                waiting.group_id,
                waiting.remote_start_id,
                self._station.holds.take(view.evse, waiting.token, waiting.group_id),
            )

    def tell(self, evse: int) -> None:
        """Hand a waiting token to the session it waits for, once: the EVSE itself keeps no token for later."""
        waiting, view = self.waiting.get(evse), self._station.evses[evse].view
        if waiting and view and takes_token(view) and waiting.told != view.session_id:
            waiting.told = view.session_id
            self._station.outside.request(
                ToVehicleSide(evse, Request.START, view.session_id, waiting.token, waiting.trusted, waiting.text)
            )

    def lapse(self, seconds: float, now: Now) -> None:
        """Forget tokens whose vehicle did not come in time."""
        for evse, waiting in list(self.waiting.items()):
            view = self._station.evses[evse].view
            if not (view and view.session_id) and now.since(waiting.since_ns) > seconds:
                del self.waiting[evse]

    # Authorisation. The asking itself is the client's.
    def local_answer(self, token: Token, evse: int, now: Now) -> TokenInfo | None:
        """The answer that needs no CSMS, None when it has to be asked."""
        station, waiting = self._station, self.waiting.get(evse)
        if waiting and waiting.token.key == token.key and waiting.trusted:
            return TokenInfo("Accepted", waiting.group_id)
        if station.online and not station.settings["local_pre_authorize"]:
            return None
        known = station.tokens.known(token, evse, now.wall)
        if station.online:
            return known if known and known.accepted else None
        return station.tokens.offline(token, evse, now.wall)

    def answered(self, evse: int, session_id: str, token: Token, info: TokenInfo, now: Now) -> TokenInfo:
        """A token was judged; reservations and the session learn of it."""
        holds = self._station.holds
        if info.accepted and self._is_master(info):
            info = TokenInfo("Invalid", info.group_id)  # it stops what others began, and begins nothing
        if info.accepted and holds.held_for_another(evse, token, info.group_id):
            info = TokenInfo("NotAtThisTime", info.group_id)
        transactions = self._station.evses.get(evse)
        waiting = self.waiting.get(evse)
        ours = waiting is not None and waiting.token.key == token.key
        if ours or info.accepted:
            self.waiting.pop(evse, None)
        if info.accepted and transactions:
            transactions.authorized(
                session_id,
                token,
                info.group_id,
                waiting.remote_start_id if waiting and ours else None,
                holds.take(evse, token, info.group_id),
            )
            transactions.tick(now)
        return info

    # Starts and stops.
    def request_start(
        self,
        token: Token,
        evse: int | None,
        remote_start_id: int | None,
        group_id: str,
        now: Now,
        profile: Payload | None,
    ) -> tuple[bool, str, str]:
        """Accepted, reason when not, transaction id when one already runs."""
        station = self._station
        candidates = [evse] if evse is not None else [e for e in station.evses if self.startable(e, token, group_id)]
        if not candidates or candidates[0] not in station.evses:
            return False, "UnknownEvse" if evse is not None else "NoEvse", ""
        number = candidates[0]
        if not station.store_ok:
            return False, "StoreFailed", ""
        if not self.startable(number, token, group_id):
            return False, "NotReady", ""
        trusted = not station.settings["authorize_remote_start"]
        self.waiting[number] = Waiting(token, now.mono_ns, group_id, remote_start_id, trusted, "remote start")
        self.start_profiles.pop(number, None)
        if profile:
            self.start_profiles[number] = (token, profile)
        self.tell(number)
        transaction = station.evses[number].open
        if transaction and transaction.token is None:
            station.evses[number].authorized(transaction.session_id, token, group_id, remote_start_id)
        return True, "", transaction.transaction_id if transaction else ""

    def startable(self, evse: int, token: Token, group_id: str) -> bool:
        station = self._station
        view, transaction = station.evses[evse].view, station.evses[evse].open
        if view is None or not station.takes_starts(evse) or evse in self.waiting:
            return False
        if view.phase >= Phase.STOPPING or view.authorization == Authorization.ACCEPTED:
            return False
        if transaction and transaction.token is not None:
            return False
        return not station.holds.held_for_another(evse, token, group_id)

    def shown(self, token: Token, evse: int, paid: bool, now: Now, info: TokenInfo | None = None) -> str:
        """A card was held to a reader, a terminal took an ad hoc payment or START_BUTTON was pressed; a word for the
        log.

        ``evse`` 0: the reader serves all of them. The card that started a session ends it, as does a card of its
        group (C09); a master pass ends them all (C16). "ask": call again with what the CSMS says of the token.
        A card is asked about like any other token; a payment is not. Either waits for its vehicle as long as a
        remote start.
        """
        places = [evse] if evse else list(self._station.evses)
        if any(place not in self._station.evses for place in places):
            return "no such EVSE"
        if token != START_BUTTON and (begun := self._begun_by(token, places)):
            self._station.stop(begun, "Local", "the same token again")
            return "stop"
        arrived = [place for place in places if self._waits_for_token(place, token, paid)]
        if self._must_ask(arrived, paid, info):
            return "ask"
        if info and not info.accepted:
            return "refused"
        if info and (word := self._stops(token, places, arrived, info)):
            return word
        return self._begin(token, places, arrived, paid, now, info)

    def _begun_by(self, token: Token, places: list[int]) -> int:
        """The EVSE whose transaction this token began; 0: none."""
        for place in places:
            begun = self._station.evses[place].open
            if begun and begun.token and begun.token.key == token.key:
                return place
        return 0

    def _waits_for_token(self, place: int, token: Token, paid: bool) -> bool:
        station = self._station
        if not takes_token(station.evses[place].view) or not station.operative(place):
            return False
        return not (paid and station.holds.held_for_another(place, token, ""))

    def _running(self) -> list[int]:
        return [place for place, transactions in self._station.evses.items() if transactions.open]

    def _must_ask(self, arrived: list[int], paid: bool, info: TokenInfo | None) -> bool:
        """Something runs, and it is not known whether this card may stop it."""
        if info is not None or paid or not self._running():
            return False
        return not arrived or bool(self._station.settings["master_pass"])

    def _stops(self, token: Token, places: list[int], arrived: list[int], info: TokenInfo) -> str:
        """A master pass stops all, a card of the same group what it began."""
        if self._is_master(info):
            for place in self._running():
                self._station.stop(place, "MasterPass", "master pass", token)
            return "stop all"
        for place in places:
            transaction = self._station.evses[place].open
            if not arrived and transaction and same_group(info.group_id, transaction.group_id):
                self._station.stop(place, "Local", "a token of the same group", token)
                return "stop"
        return ""

    def _begin(
        self, token: Token, places: list[int], arrived: list[int], paid: bool, now: Now, info: TokenInfo | None
    ) -> str:
        free = [place for place in places if self.startable(place, token, info.group_id if info else "")]
        chosen = next((place for place in [*arrived, *free] if self._station.takes_starts(place)), None)
        if chosen is None or not self._station.store_ok:
            return "nothing to start"
        self.start_profiles.pop(chosen, None)
        text = "start button" if token == START_BUTTON else "paid at the terminal" if paid else "card"
        self.waiting[chosen] = Waiting(token, now.mono_ns, trusted=paid, text=text)
        self.tell(chosen)
        return "start"

    def _is_master(self, info: TokenInfo) -> bool:
        return same_group(self._station.settings["master_pass"], info.group_id)
