"""Cards, payments and remote starts: tokens that wait for a vehicle, and what a reader says."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from robot_charger.backend.card_reader import CardReaderError, CardWatch, PcscReader, token_of
from robot_charger.backend.records import START_BUTTON, Outcome, Request, Token, TokenInfo
from robot_charger.backend.v21 import Version21
from robot_charger.backend.v201 import Version201
from robot_charger.words.values import Phase

from .conftest import SESSION, TAG, Desk, at, reading, view

PAYMENT = Token("psp-4711", "DirectPayment")
# An ATR as PC/SC readers make it up: the standard byte is the thirteenth.
ATR = [0x3B, 0x8F, 0x80, 0x01, 0x80, 0x4F, 0x0C, 0xA0, 0x00, 0x00, 0x03, 0x06, 0x03, 0x00, 0x01, 0, 0, 0, 0, 0x6A]


def starts(desk: Desk) -> list[tuple[str, Token | None, bool]]:
    return [(r.session_id, r.token, r.authorized) for r in desk.outside.requests if r.kind == Request.START]


def test_a_card_waits_for_its_vehicle_and_is_asked_about(desk: Desk) -> None:
    desk.phase(Phase.IDLE)
    assert desk.station.shown(TAG, 0, False, desk.now) == "start"
    assert starts(desk) == []
    desk.phase(Phase.POSITIONING, accepted=False)
    assert starts(desk) == [(SESSION, TAG, False)]
    assert desk.station.local_answer(TAG, 1, desk.now) == TokenInfo("Unknown")  # offline: the policy, no free pass


def test_a_refused_card_makes_room_for_another(desk: Desk) -> None:
    desk.phase(Phase.POSITIONING, accepted=False)
    assert desk.station.shown(TAG, 1, False, desk.now) == "start"
    desk.station.answered(1, SESSION, TAG, TokenInfo("Blocked"), desk.now)
    assert desk.station.shown(Token("OTHER"), 1, False, desk.now) == "start"
    assert [token for _, token, _ in starts(desk)] == [TAG, Token("OTHER")]


def test_the_same_card_ends_what_it_began(desk: Desk) -> None:
    desk.meter(10.0)
    desk.phase(Phase.POSITIONING, accepted=False)
    desk.station.shown(TAG, 0, False, desk.now)
    desk.authorize(TAG)
    desk.phase(Phase.LINKING)
    desk.phase(Phase.CHARGING)
    other = Token("OTHER")
    assert desk.station.shown(other, 0, False, desk.now) == "ask"
    assert desk.station.shown(other, 0, False, desk.now, TokenInfo("Accepted")) == "nothing to start"
    assert desk.station.shown(other, 0, False, desk.now, TokenInfo("Blocked")) == "refused"
    assert desk.station.shown(Token(TAG.id.lower()), 0, False, desk.now) == "stop"
    request = desk.outside.requests[-1]
    assert (request.kind, request.session_id) == (Request.STOP, SESSION)
    desk.phase(Phase.GRASPED, t=5.0, stop_reason="Remote")  # to the supervisor every stop of the back end is remote
    desk.meter(20.0, t=5.5)
    assert (desk.records[-1].stopped_reason, desk.records[-1].trigger) == ("Local", "StopAuthorized")


def charging(desk: Desk, evse: int, token: Token, group_id: str) -> str:
    """A session of this token and group on an EVSE; its id."""
    session_id = SESSION[:-1] + str(evse)
    desk.station.meter(evse, reading(desk.t, 10.0), desk.now)
    for phase in (Phase.POSITIONING, Phase.LINKING, Phase.CHARGING):
        accepted = phase != Phase.POSITIONING
        seen = view(phase, desk.t, accepted, session_id)
        desk.station.session(dataclasses.replace(seen, evse=evse), desk.now)
        if not accepted:
            desk.station.answered(evse, session_id, token, TokenInfo("Accepted", group_id), desk.now)
    return session_id


def stopped(desk: Desk) -> list[tuple[int, str]]:
    return [(r.evse, r.session_id) for r in desk.outside.requests if r.kind == Request.STOP]


def test_another_card_of_the_group_ends_it(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "store.sqlite", evses=2)
    session_id = charging(desk, 1, TAG, "Family")
    charging(desk, 2, Token("STRANGER"), "Others")
    spouse, info = Token("SPOUSE"), TokenInfo("Accepted", "FAMILY")
    assert desk.station.shown(spouse, 2, False, desk.now, info) == "nothing to start"  # the reader of the other EVSE
    assert desk.station.shown(spouse, 0, False, desk.now, TokenInfo("Expired", "FAMILY")) == "refused"
    assert desk.station.shown(spouse, 0, False, desk.now) == "ask" and stopped(desk) == []
    assert desk.station.shown(spouse, 0, False, desk.now, info) == "stop"
    assert stopped(desk) == [(1, session_id)]
    desk.phase(Phase.GRASPED, t=5.0, session_id=session_id, stop_reason="Remote")
    desk.meter(20.0, t=5.5)
    end = desk.records[-1]
    assert (end.event, end.stopped_reason, end.trigger, end.token) == ("Ended", "Local", "StopAuthorized", spouse)
    desk.store.close()


def test_a_master_pass_ends_all_and_begins_none(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "store.sqlite", evses=2, master_pass="Guards")
    guard, info = Token("GUARD"), TokenInfo("Accepted", "guards")
    assert desk.station.answered(1, SESSION, guard, info, desk.now).status == "Invalid"
    one = charging(desk, 1, TAG, "")
    desk.station.session(dataclasses.replace(view(Phase.POSITIONING, 0, False), evse=2), desk.now)
    assert desk.station.shown(guard, 2, False, desk.now) == "ask"  # though a vehicle waits there for a token
    two = charging(desk, 2, Token("STRANGER"), "")
    assert desk.station.shown(guard, 2, False, desk.now, TokenInfo("Blocked", "guards")) == "refused"
    assert desk.station.shown(guard, 2, False, desk.now, info) == "stop all"
    assert stopped(desk) == [(1, one), (2, two)]
    desk.phase(Phase.GRASPED, t=5.0, session_id=one, stop_reason="Remote")
    desk.meter(20.0, t=5.5)
    assert (desk.records[-1].stopped_reason, desk.records[-1].token) == ("MasterPass", guard)
    desk.store.close()


@pytest.mark.parametrize("master_pass", ["", "Guards"])
def test_a_card_of_the_group_is_for_the_vehicle_that_waits(tmp_path: Path, master_pass: str) -> None:
    desk = Desk(tmp_path / "store.sqlite", evses=2, master_pass=master_pass)
    charging(desk, 1, TAG, "Family")
    waiting = dataclasses.replace(view(Phase.POSITIONING, 0, False, "other"), evse=2)
    desk.station.session(waiting, desk.now)
    spouse = Token("SPOUSE")
    follows = desk.station.shown(spouse, 0, False, desk.now)
    if master_pass:
        assert follows == "ask"
        follows = desk.station.shown(spouse, 0, False, desk.now, TokenInfo("Accepted", "Family"))
    assert follows == "start" and stopped(desk) == []
    assert starts(desk) == [("other", spouse, False)]
    desk.store.close()


def test_the_group_is_learnt_from_the_answer_to_the_start(desk: Desk) -> None:
    """A remote start is not asked about: who else may end it stands in the answer to its first record."""
    session_id = charging(desk, 1, TAG, "")
    desk.station.delivered(desk.records[0], Outcome(TokenInfo("Accepted", "Family")), desk.now)
    assert desk.station.shown(Token("SPOUSE"), 1, False, desk.now, TokenInfo("Accepted", "Family")) == "stop"
    assert stopped(desk) == [(1, session_id)]


def test_a_payment_is_not_asked_about_and_is_in_the_record(desk: Desk) -> None:
    desk.station.online = True
    desk.meter(10.0)
    desk.phase(Phase.IDLE)
    assert desk.station.shown(PAYMENT, 1, True, desk.now) == "start"
    assert desk.station.local_answer(PAYMENT, 1, desk.now) == TokenInfo("Accepted")
    assert desk.station.local_answer(TAG, 1, desk.now) is None
    desk.phase(Phase.POSITIONING, accepted=False)
    assert starts(desk) == [(SESSION, PAYMENT, True)]
    desk.phase(Phase.LINKING)
    assert desk.records[0].token == PAYMENT
    desk.station.tokens.learn(PAYMENT, TokenInfo("Accepted"), desk.now)
    assert desk.station.tokens.known(PAYMENT, 1, desk.now.wall) is None  # it pays for one session
    desk.station.stop_pressed(1)
    assert desk.outside.requests[-1].kind == Request.STOP


def test_a_start_button_begins_and_does_not_end(desk: Desk) -> None:
    desk.station.online = True
    desk.meter(10.0)
    desk.phase(Phase.POSITIONING, accepted=False)
    assert desk.station.shown(START_BUTTON, 0, True, desk.now) == "start"
    assert starts(desk) == [(SESSION, START_BUTTON, True)]
    desk.phase(Phase.LINKING)
    assert desk.records[0].token == START_BUTTON
    for dialect in (Version201, Version21):
        call = dialect(desk.station, lambda: desk.now).record(desk.records[0])
        assert call and call[1]["idToken"] == {"idToken": "", "type": "NoAuthorization"}
    assert desk.station.shown(START_BUTTON, 0, True, desk.now) == "nothing to start" and stopped(desk) == []


def test_neither_button_nor_payment_takes_what_is_reserved(desk: Desk) -> None:
    desk.phase(Phase.IDLE)
    assert desk.station.reserve(1, 1, TAG, "", at(900.0).iso, desk.now) == "Accepted"
    desk.phase(Phase.POSITIONING, accepted=False)
    for token in (START_BUTTON, PAYMENT):
        assert desk.station.shown(token, 1, True, desk.now) == "nothing to start"
    assert desk.station.shown(TAG, 1, False, desk.now) == "start"


def test_a_token_whose_vehicle_never_comes_lapses(desk: Desk) -> None:
    desk.phase(Phase.IDLE)
    desk.station.shown(PAYMENT, 0, True, desk.now)
    desk.station.tick(at(desk.settings["connection_timeout_s"] + 1.0))
    desk.phase(Phase.POSITIONING, t=200.0, accepted=False)
    assert starts(desk) == []
    assert desk.station.shown(TAG, 7, False, desk.now) == "no such EVSE"


class Card:
    """A stand-in for pyscard: readers, a card that comes and goes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.uid: list[int] | None = None
        self.readers: list[Any] = [self]
        system, errors = ModuleType("smartcard.System"), ModuleType("smartcard.Exceptions")
        system.readers = lambda: self.readers  # type: ignore[attr-defined]
        errors.NoCardException = type("NoCardException", (Exception,), {})  # type: ignore[attr-defined]
        errors.CardConnectionException = type("CardConnectionException", (Exception,), {})  # type: ignore[attr-defined]
        self.errors: Any = errors
        for name, module in (
            ("smartcard", ModuleType("smartcard")),
            (system.__name__, system),
            (errors.__name__, errors),
        ):
            monkeypatch.setitem(sys.modules, name, module)

    def __str__(self) -> str:
        return "ACS ACR122U PICC Interface 00 00"

    def createConnection(self) -> Card:
        return self

    def connect(self) -> None:
        if self.uid is None:
            raise self.errors.NoCardException

    def transmit(self, apdu: list[int]) -> tuple[list[int], int, int]:
        assert apdu == [0xFF, 0xCA, 0, 0, 0] and self.uid is not None
        return self.uid, 0x90, 0x00

    def getATR(self) -> list[int]:
        return ATR

    def disconnect(self) -> None:
        pass


def test_a_card_on_the_reader_is_told_once_until_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card(monkeypatch)
    shown: list[Token] = []
    watch = CardWatch(PcscReader("acr122").read, shown.append)
    watch.look()
    assert shown == []
    card.uid = [0x04, 0xA1, 0xB2, 0xC3]
    watch.look()
    watch.look()
    assert shown == [Token("04A1B2C3", "ISO14443")]
    card.uid = None
    watch.look()
    card.uid = [0x04, 0xA1, 0xB2, 0xC3]
    watch.look()
    assert len(shown) == 2
    card.readers = []
    watch.look()
    assert "acr122" in watch.problem
    card.readers = [card]
    watch.look()
    assert watch.problem == ""


def test_the_kind_of_card_stands_in_the_readers_atr() -> None:
    assert token_of([1, 2], ATR).type == "ISO14443"
    assert token_of([1, 2], [*ATR[:12], 0x0B, *ATR[13:]]) == Token("0102", "ISO15693")
    assert token_of([1], [0x3B]).type == "ISO14443"


def test_without_pyscard_the_parameter_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "smartcard.System", None)
    with pytest.raises(CardReaderError, match="pyscard"):
        PcscReader("any")
