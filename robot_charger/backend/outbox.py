"""What the station sends next, and what becomes of a message that gets no good answer.

Nothing but a transaction's own messages may hold it up:

1. where many readings wait, those of transactions that run now or began since the connection came up;
2. connector statuses; what the CSMS asked for (reports, triggered messages), in turn with
3. the messages of all transactions, oldest first, always in order within each;
4. durable messages of no transaction (security events, DataTransfer);
5. what made the CSMS close the connection before.

A message without a good answer is sent again after MessageAttemptInterval times the attempt, MessageAttempts times,
then set aside. Starts and ends of transactions come back from there every hour, behind the rest, until they are
answered or a person drops them (``robot-charger queue``). In OCPP 1.6 what belongs to a transaction waits for the
number that only the answer to its start has. What is not durable gets three attempts.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from robot_charger.backend.records import Call, Outcome, Payload
from robot_charger.backend.store import Entry, StoreError

if TYPE_CHECKING:
    from robot_charger.backend.client import Client

log = logging.getLogger("robot_charger.backend")
RECALL_S = 3600.0  # starts and ends that were set aside are tried again
FIRST_RECALL_S = 60.0  # after a start of the process
SIDE_ATTEMPTS = 3  # of a message that belongs to no transaction
CLOSES = 2  # connections that ended on a message before it goes behind the rest
CLOSES_ASIDE = 3  # and before it is set aside
BEHIND_S = 30.0
BACKLOG = 30  # below so many periodic readings in the queue all go in order
QUIET_S, QUIETEST_S = 10.0, 3600.0  # how long an action that gets no answer is not used, doubled each time
LOOSE = 1000  # messages that are not durable, kept while the CSMS is away or silent
LOOSE_AGE_S = 900.0
PENDING = (  # what a station that is not accepted may send unasked: how what it was asked to do goes on
    "FirmwareStatusNotification",
    "SignedFirmwareStatusNotification",
    "LogStatusNotification",
    "DiagnosticsStatusNotification",
    "SignCertificate",
)


class NotAnsweredError(RuntimeError):
    """No answer: not connected, connection lost (``closed``), or time-out."""

    def __init__(self, text: str, closed: bool = False) -> None:
        super().__init__(text)
        self.closed = closed


class RefusedError(RuntimeError):
    """The CSMS answered with CALLERROR, or with something that cannot be used."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


@dataclass
class Trouble:
    """With one message."""

    attempts: int = 0
    closes: int = 0
    not_before_ns: int = 0
    behind: bool = False


@dataclass
class Loose:
    """A message that is not durable. ``asked``: the CSMS asked for it, so it goes out while Pending too."""

    call: Call
    answer: Callable[[Payload | None], None] | None
    since_ns: int
    asked: bool = False
    trouble: Trouble = field(default_factory=Trouble)


@dataclass
class Quiet:
    """An action that the CSMS does not answer, or closes the connection on."""

    times: int = 0
    until_ns: int = 0


class Outbox:
    """``step`` sends one message; ``due_in`` says when the next may be due."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._station = client.station
        self._loose: deque[Loose] = deque()
        self._told: dict[int, str] = {}  # connector statuses, as the CSMS knows them
        self._troubles: dict[str, Trouble] = {}  # by message id
        self._quiet: dict[str, Quiet] = {}
        self._refused_vendor: set[str] = set()  # messageIds of DataTransfer that the CSMS does not know
        self._recall_ns = self._now + int(FIRST_RECALL_S * 1e9) if self._station.store.aside else 0
        self._turn = False

    # What is to be sent.
    def add(self, call: Call, answer: Callable[[Payload | None], None] | None, asked: bool) -> None:
        if len(self._loose) >= LOOSE:
            self._give_up(self._loose.popleft(), "too many messages wait")
        self._loose.append(Loose(call, answer, self._now, asked))

    def forget_statuses(self) -> None:
        """Every connector is announced again."""
        self._told.clear()

    def connected(self) -> None:
        """What is live from now on goes before what waited."""
        open_ones = {t.transaction_id for t in self._station.evses.values()}
        self._station.store.fresh &= open_ones

    def disconnected(self) -> None:
        """Old messages of no transaction are not worth sending later."""
        for message in [m for m in self._loose if self._age(m) > LOOSE_AGE_S]:
            self._loose.remove(message)
            self._give_up(message, "the CSMS was away")

    @property
    def urgent(self) -> bool:
        """A message of a transaction waits: what does not matter as much stops waiting for its answer."""
        return self._live() is not None or self._old() is not None

    @property
    def _now(self) -> int:
        return self._client.now.mono_ns

    def _age(self, message: Loose) -> float:
        return (self._now - message.since_ns) / 1e9

    # One step.
    async def step(self) -> bool:
        """Send what is due first. False: nothing is due. Raises NotAnsweredError when the connection is lost."""
        try:
            self._recall()
            self._turn = not self._turn
            turns = (self._old, self._asked) if self._turn else (self._asked, self._old)
            sources: tuple[Callable[[], Entry | Loose | int | None], ...]
            sources = (self._live, self._status, *turns, self._side, self._last)
            for source in sources:
                found = source()
                if found is not None:
                    await self._send(found)
                    return True
        except StoreError as error:
            log.error("%s", error)
        return False

    async def step_pending(self) -> bool:
        """The station is not accepted: only what the CSMS asked for goes out."""
        found = self._asked(pending=True)
        if found is not None:
            await self._send(found)
        return found is not None

    def due_in(self, otherwise: float) -> float:
        """Seconds until a message that waits for its next attempt may go."""
        moments = [t.not_before_ns for t in self._troubles.values()]
        moments += [m.trouble.not_before_ns for m in self._loose]
        moments += [q.until_ns for q in self._quiet.values()]
        moments += [self._recall_ns]
        later = [m for m in moments if m > self._now]
        return max(0.01, min([otherwise, *((m - self._now) / 1e9 for m in later)]))

    # Choosing.
    def _live(self) -> Entry | None:
        """Of a running transaction, where many old readings would come before it."""
        store = self._station.store
        order = store.order
        if store.readings < BACKLOG:
            return None
        running = {t.transaction_id for t in self._station.evses.values() if t.transaction_id in order}
        fresh = {t for t in store.fresh if t in order}
        for group in (running, fresh - running):
            for transaction_id in sorted(group, key=order.__getitem__):
                entry = self._head(transaction_id)
                if entry:
                    return entry
        return None

    def _old(self) -> Entry | None:
        return next((e for t in self._station.store.order if (e := self._head(t))), None)

    def _head(self, transaction_id: str, behind: bool = False) -> Entry | None:
        """The next message of a transaction, None when it has to wait."""
        store = self._station.store
        if self._client.dialect.numbers_transactions and transaction_id in store.starts_aside:
            return None
        for entry in store.first_of(transaction_id, 1 + len(self._troubles)):
            trouble = self._troubles.get(entry.message_id)
            if trouble is None or (trouble.not_before_ns <= self._now and trouble.behind <= behind):
                return entry
            starts = entry.record is not None and entry.record.event == "Started"
            if not trouble.behind or (starts and self._client.dialect.numbers_transactions):
                return None
        return None

    def _last(self) -> Entry | None:
        """What made the CSMS close the connection, once nothing else is due."""
        if not any(t.behind for t in self._troubles.values()):
            return None
        return next((e for t in self._station.store.order if (e := self._head(t, behind=True))), None)

    def _side(self) -> Entry | None:
        for entry in self._station.store.first_of("", 20):
            trouble = self._troubles.get(entry.message_id)
            if (trouble is None or trouble.not_before_ns <= self._now) and not self._is_quiet(entry.call):
                return entry
        return None

    def _status(self) -> int | None:
        if self._is_quiet(("StatusNotification", {})):
            return None
        statuses = [*((0,) if self._client.dialect.has_connector_0 else ()), *self._station.status]
        return next((e for e in statuses if self._told.get(e) != self._client.dialect.connector_status(e)), None)

    def _asked(self, pending: bool = False) -> Loose | None:
        skipped = set()  # the pages of one report stay in order
        for message in self._loose:
            action = message.call[0]
            may = not pending or message.asked or action in PENDING
            due = message.trouble.not_before_ns <= self._now and not self._is_quiet(message.call)
            if may and due and action not in skipped:
                return message
            skipped.add(action)
        return None

    def _is_quiet(self, call: Call | None) -> bool:
        quiet = self._quiet.get(call[0]) if call else None
        return quiet is not None and quiet.until_ns > self._now

    # Sending.
    async def _send(self, message: Entry | Loose | int) -> None:
        if isinstance(message, Entry):
            await self._send_entry(message)
        elif isinstance(message, Loose):
            await self._send_loose(message)
        else:
            await self._send_status(message)

    async def _send_status(self, evse: int) -> None:
        status = self._client.dialect.connector_status(evse)
        try:
            await self._client.call(self._client.dialect.status(evse), patient=False)
            self._told[evse] = status
            self._answers("StatusNotification")
        except RefusedError as error:
            log.warning("StatusNotification refused: %s", error)
            self._told[evse] = status
        except NotAnsweredError as error:
            self._silent("StatusNotification", error)

    async def _send_loose(self, message: Loose) -> None:
        payload: Payload | None = None
        action = message.call[0]
        try:
            payload = await self._client.call(message.call, patient=False)
            self._answers(action)
        except RefusedError as error:
            log.warning("%s refused: %s", action, error)
        except NotAnsweredError as error:
            trouble = message.trouble
            trouble.attempts += 1
            trouble.closes += error.closed
            lost = trouble.attempts >= SIDE_ATTEMPTS or trouble.closes >= CLOSES
            if lost and message in self._loose:
                self._loose.remove(message)
                self._give_up(message, str(error))
            self._silent(action, error)
            return
        if message in self._loose:
            self._loose.remove(message)
        if message.answer:
            message.answer(payload)

    def _give_up(self, message: Loose, why: str) -> None:
        log.warning("%s is given up: %s", message.call[0], why)
        if message.answer:
            message.answer(None)

    def _answers(self, action: str) -> None:
        self._quiet.pop(action, None)

    def _silent(self, action: str, error: NotAnsweredError) -> None:
        """Ask less often what gets no answer. Raises when the connection is gone."""
        quiet = self._quiet.setdefault(action, Quiet())
        quiet.times += 1
        wait = min(QUIET_S * 2 ** (quiet.times - 1), QUIETEST_S) if quiet.times > 1 or error.closed else 0.0
        quiet.until_ns = self._now + int(wait * 1e9)
        if error.closed:
            raise error

    async def _send_entry(self, entry: Entry) -> None:
        call = entry.call if entry.record is None else self._client.dialect.record(entry.record)
        if call is None or (entry.record is None and self._unwanted(call)):
            self.answered(entry, {})
            return
        try:
            answer = await self._client.call(
                call, entry.message_id, patient=entry.record is not None, late=lambda a: self.late(entry, a)
            )
            self.answered(entry, answer)
            self._answers(call[0])
        except RefusedError as error:
            if entry.record is None and call[0] == "DataTransfer":
                self._refused_vendor.add(str(call[1].get("messageId")))
            self._failed(entry, error)
        except NotAnsweredError as error:
            self._failed(entry, error)
            if entry.record is None:
                self._silent(call[0], error)
            if error.closed:
                raise

    def _unwanted(self, call: Call) -> bool:
        return call[0] == "DataTransfer" and call[1].get("messageId") in self._refused_vendor

    def answered(self, entry: Entry, answer: Payload) -> None:
        """A durable message was answered. Raises RefusedError when the answer lacks what is needed, StoreError."""
        outcome = Outcome()
        keep: dict[str, Any] = {}
        follow: Call | None = None
        if entry.record is not None:
            outcome, keep, follow = self._client.dialect.read_record(entry.record, answer)
            if follow and self._unwanted(follow):
                follow = None
        elif entry.call and entry.call[0] == "DataTransfer" and answer.get("status") not in (None, "Accepted"):
            self._refused_vendor.add(str(entry.call[1].get("messageId")))
        # An update sent twice has the same id and number and bills nothing: no fsync for its end.
        update = entry.record is not None and entry.record.event == "Updated"
        self._station.store.done(entry.number, keep, follow, durable=not update)
        self._troubles.pop(entry.message_id, None)
        if entry.record is not None:
            self._station.delivered(entry.record, outcome, self._client.now)
        self._client.changed()

    def late(self, entry: Entry, answer: Payload) -> None:
        """The answer came after its time: it counts as well."""
        try:
            if self._station.store.holds(entry):
                log.info("an answer came late: it counts")
                self.answered(entry, answer)
                self._client.wake()
        except (RefusedError, StoreError) as error:
            log.warning("a late answer: %s", error)

    def _failed(self, entry: Entry, error: NotAnsweredError | RefusedError) -> None:
        trouble = self._troubles.setdefault(entry.message_id, Trouble())
        settings = self._station.settings
        most = int(settings["attempts"]) if entry.record else SIDE_ATTEMPTS
        closed = isinstance(error, NotAnsweredError) and error.closed
        if closed:
            trouble.closes += 1
            if trouble.closes >= CLOSES:
                trouble.behind = True
                trouble.not_before_ns = self._now + int(BEHIND_S * 1e9)
            aside = trouble.closes >= CLOSES_ASIDE
        else:
            trouble.attempts += 1
            trouble.not_before_ns = self._now + int(settings["attempt_interval_s"] * trouble.attempts * 1e9)
            aside = trouble.attempts >= most
        if aside:
            what = entry.record.event if entry.record else entry.call[0] if entry.call else "?"
            log.error("%s of %s is set aside: %s", what, entry.transaction_id or "no transaction", error)
            self._troubles.pop(entry.message_id, None)
            self._station.store.refuse(entry.number, str(error))
            self._recall_ns = self._recall_ns or self._now + int(RECALL_S * 1e9)

    def _recall(self) -> None:
        """Starts and ends that were set aside, an hour later."""
        if self._recall_ns and self._recall_ns <= self._now:
            self._recall_ns = 0
            for message_id in self._station.store.recall():
                # One attempt, behind the rest; it is set aside again after it.
                attempts = int(self._station.settings["attempts"]) - 1
                self._troubles[message_id] = Trouble(attempts, CLOSES_ASIDE - 1, 0, True)
