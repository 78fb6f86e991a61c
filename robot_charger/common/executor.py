"""One thread's executor without rclpy's bookkeeping: what a node of many small periodic topics spends its time on.

rclpy's SingleThreadedExecutor gathers all entities, builds a new wait set and makes a coroutine and a task for every
single message, and wakes itself twice more to do so again. Here the entities are gathered once and again only when one
is added or removed, one wait serves all that is ready, and plain callbacks are called plainly. What is rare (services,
clients, actions, coroutines) goes the way of rclpy, in rclpy's code. ``bench/executor.py`` prints the difference.
"""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from rclpy.event_handler import EventHandler
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor, TimeoutObject
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.subscription import Subscription
from rclpy.waitable import NumberOfEntities

EVENTS_S = 1.0  # how often the middleware is asked for events (incompatible quality of service, matches)


@dataclass
class _Entities:
    """All that is waited for, each held in use until the next gathering."""

    wait_set: Any
    in_use: ExitStack
    subscriptions: dict[int, Any] = field(default_factory=dict)  # by the pointer of its handle, as all here
    timers: dict[int, Any] = field(default_factory=dict)
    clients: dict[int, Any] = field(default_factory=dict)
    services: dict[int, Any] = field(default_factory=dict)
    guards: dict[int, Any] = field(default_factory=dict)
    own_guards: list[Any] = field(default_factory=list)  # handles that wake the executor itself
    waitables: list[Any] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)
    nodes: dict[int, Any] = field(default_factory=dict)  # of an entity, by id()
    plain: set[int] = field(default_factory=set)  # id() of those whose callback may simply be called
    groups: list[tuple[Any, Any]] = field(default_factory=list)  # callback group, one of its members


class LeanExecutor(SingleThreadedExecutor):
    """Drop-in for SingleThreadedExecutor, except that one spin_once() runs all callbacks that are ready.

    Events of the middleware are looked at once a second. Entities may be made and destroyed from any thread.
    """

    def __init__(self, **options: Any) -> None:
        self._gathered: _Entities | None = None
        self._stale = True
        self._events_due = 0.0
        self._spinning = threading.RLock()
        super().__init__(**options)

    def wake(self) -> None:
        self._stale = True
        super().wake()

    def add_node(self, node: Any) -> bool:
        self._stale = True
        return bool(super().add_node(node))

    def remove_node(self, node: Any) -> None:
        self._stale = True
        super().remove_node(node)

    def shutdown(self, timeout_sec: float | None = None) -> bool:
        """As rclpy's; returns when a thread that spins has come to the end of its callbacks."""
        done = super().shutdown(timeout_sec)
        with self._spinning:
            self._let_go()
        return bool(done)

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Wait for work, ``timeout_sec`` at most (None or negative: for ever), and do all that is ready.

        Raises ExternalShutdownException when the context has ended, and whatever a callback raises.
        """
        with self._spinning:
            self._run_tasks()
            if self._is_shutdown:
                return
            if not self._context.ok():
                raise ExternalShutdownException()
            if self._stale or self._gathered is None:
                self._gather()
            entities = self._gathered
            assert entities is not None
            now = time.monotonic()
            waitables = entities.waitables
            if now >= self._events_due:
                self._events_due = now + EVENTS_S
                waitables = waitables + entities.events
            free = all(group.can_execute(member) for group, member in entities.groups)
            if not free:  # a coroutine of this group is under way: what must not run beside it is not waited for
                waitables = [w for w in waitables if self.can_execute(w)]
            self._fill(entities, waitables, free)
            left = max(0.0, self._events_due - now)
            timeout_s = left if timeout_sec is None or timeout_sec < 0 else min(timeout_sec, left)
            entities.wait_set.wait(int(timeout_s * 1e9))
            if self._is_shutdown:
                return
            if not self._context.ok():
                raise ExternalShutdownException()
            self._serve(entities, waitables)

    def spin_once_until_future_complete(self, future: Any, timeout_sec: float | TimeoutObject | None = None) -> None:
        future.add_done_callback(lambda _: self.wake())
        if not future.done():
            self.spin_once(timeout_sec.timeout if isinstance(timeout_sec, TimeoutObject) else timeout_sec)

    # Gathering.

    def _gather(self) -> None:
        self._let_go()
        self._stale = False
        held = ExitStack()
        entities = _Entities(None, held)
        context = self._context.handle
        assert context is not None
        held.enter_context(context)
        for node in self.get_nodes():
            for kind in ("subscriptions", "timers", "clients", "services", "guards"):
                table = getattr(entities, kind)
                for entity in getattr(node, kind):
                    if self._hold(held, entity.handle):
                        table[entity.handle.pointer] = entity
                        self._remember(entities, entity, node)
            for waitable in node.waitables:
                if self._hold(held, waitable):
                    (entities.events if isinstance(waitable, EventHandler) else entities.waitables).append(waitable)
                    self._remember(entities, waitable, node)
        for guard in (self._guard, self._sigint_gc):
            held.enter_context(guard.handle)
            entities.own_guards.append(guard.handle)
        tables = (entities.subscriptions, entities.guards, entities.timers, entities.clients, entities.services)
        size = NumberOfEntities(*map(len, tables))
        size.num_guard_conditions += len(entities.own_guards)
        for waitable in entities.waitables + entities.events:
            size += waitable.get_num_entities()
        entities.wait_set = rclpy_implementation.WaitSet(
            size.num_subscriptions,
            size.num_guard_conditions,
            size.num_timers,
            size.num_clients,
            size.num_services,
            size.num_events,
            self._context.handle,
        )
        entities.groups = list({id(e.callback_group): (e.callback_group, e) for e in self._all(entities)}.values())
        self._gathered = entities

    @staticmethod
    def _all(entities: _Entities) -> Iterable[Any]:
        for table in (entities.subscriptions, entities.timers, entities.clients, entities.services, entities.guards):
            yield from table.values()
        yield from entities.waitables
        yield from entities.events

    @staticmethod
    def _hold(held: ExitStack, handle: Any) -> bool:
        """Keep from being destroyed; False when it already is."""
        try:
            held.enter_context(handle)
        except rclpy_implementation.InvalidHandle:
            return False
        return True

    @staticmethod
    def _remember(entities: _Entities, entity: Any, node: Any) -> None:
        entities.nodes[id(entity)] = node
        if _plain(entity):
            entities.plain.add(id(entity))

    def _let_go(self) -> None:
        gathered, self._gathered = self._gathered, None
        if gathered is not None:
            gathered.in_use.close()

    def _fill(self, entities: _Entities, waitables: list[Any], free: bool) -> None:
        wait_set = entities.wait_set
        wait_set.clear_entities()
        for add, table in (
            (wait_set.add_subscription, entities.subscriptions),
            (wait_set.add_timer, entities.timers),
            (wait_set.add_client, entities.clients),
            (wait_set.add_service, entities.services),
            (wait_set.add_guard_condition, entities.guards),
        ):
            for entity in table.values():
                if free or self.can_execute(entity):
                    add(entity.handle)
        for handle in entities.own_guards:
            wait_set.add_guard_condition(handle)
        for waitable in waitables:
            waitable.add_to_wait_set(wait_set)

    # Serving.

    def _serve(self, entities: _Entities, waitables: list[Any]) -> None:
        wait_set = entities.wait_set
        ready = [w for w in waitables if w.is_ready(wait_set)]
        timers = _found(entities.timers, wait_set, "timer")
        subscriptions = _found(entities.subscriptions, wait_set, "subscription")
        rare = [
            (_found(entities.guards, wait_set, "guard_condition"), self._take_guard_condition),
            (_found(entities.clients, wait_set, "client"), self._take_client),
            (_found(entities.services, wait_set, "service"), self._take_service),
        ]
        for waitable in ready:
            self._slowly(entities, waitable, self._take_waitable)
        for timer in timers:
            if timer.handle.is_timer_ready():  # not so when it was cancelled
                if id(timer) in entities.plain:
                    timer.handle.call_timer()
                    timer.callback()
                else:
                    self._slowly(entities, timer, self._take_timer)
        for subscription in subscriptions:
            if id(subscription) in entities.plain:
                taken = subscription.handle.take_message(subscription.msg_type, subscription.raw)
                if taken is not None:
                    subscription.callback(taken[0])
            else:
                self._slowly(entities, subscription, self._take_subscription)
        for found, take in rare:
            for entity in found:
                self._slowly(entities, entity, take)

    def _slowly(self, entities: _Entities, entity: Any, take: Callable[[Any], Any]) -> None:
        """By way of rclpy's tasks: the callback may be a coroutine or answer later."""
        if entity.callback_group.can_execute(entity):
            _run(self._make_handler(entity, entities.nodes[id(entity)], take))

    def _run_tasks(self) -> None:
        if not self._tasks:
            return
        with self._tasks_lock:
            self._tasks = [t for t in self._tasks if not t[0].done() and not t[0].cancelled()]
            tasks = [t[0] for t in self._tasks]
        for task in tasks:
            if not task.executing() and not task.done():
                _run(task)


def _run(task: Any) -> None:
    task()
    if task.done():
        task.result()  # raises what the callback raised


def _found(table: dict[int, Any], wait_set: Any, kind: str) -> list[Any]:
    if not table:
        return []
    return [table[pointer] for pointer in wait_set.get_ready_entities(kind) if pointer in table]


def _plain(entity: Any) -> bool:
    """Whether the callback is a function of the message alone (or of nothing, for a timer)."""
    callback = getattr(entity, "callback", None)
    if callback is None or inspect.iscoroutinefunction(callback):
        return False
    kind = getattr(entity, "_callback_type", None)
    return kind is None or kind is Subscription.CallbackType.MessageOnly
