"""The back end as one thread: event loop, store, station and client together. No ROS."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from robot_charger.backend.client import Client, Network, NotAnsweredError, RefusedError
from robot_charger.backend.clock import StationClock, system
from robot_charger.backend.firmware import FirmwareRules
from robot_charger.backend.maintenance import LogRing, Maintenance
from robot_charger.backend.networks import Networks
from robot_charger.backend.parameters import Plan
from robot_charger.backend.plug_and_charge import VEHICLE_WAITS_S, PlugAndCharge, UnansweredError
from robot_charger.backend.records import Call, Limit, Token, TokenInfo, ToVehicleSide
from robot_charger.backend.security import CertificateError, Certificates
from robot_charger.backend.settings import Settings
from robot_charger.backend.station import Outside, Station
from robot_charger.backend.store import Store
from robot_charger.backend.transactions import TransactionSettings
from robot_charger.backend.transfer import Limits, Places
from robot_charger.backend.v16 import Version16
from robot_charger.backend.v21 import Version21
from robot_charger.backend.v201 import Version201
from robot_charger.common.faults import Code, FaultReport, Severity

log = logging.getLogger("robot_charger.backend")
TICK_S = 0.1
RESET_DRAIN_S = 10.0  # how long a reset waits for answers to what is queued
DIALECTS: dict[str, Any] = {"1.6": Version16, "2.0.1": Version201, "2.1": Version21}


clock = system  # the computer's; a service has the station's own (``Service.clock``)


def boot_id() -> str:
    """Changes with every start of the computer, not with one of the process."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


@dataclass
class State:
    """For backend/state."""

    connected: bool
    registration: str
    version: str
    queued: int
    sent: int
    refused: int
    store_ok: bool
    transactions: list[str]
    text: str


@dataclass
class Callbacks:
    """Called in the back end's thread."""

    request: Callable[[ToVehicleSide], None] = lambda request: None
    limit: Callable[[int, Limit], None] = lambda evse, limit: None
    fault: Callable[[FaultReport], None] = lambda report: None
    changed: Callable[[], None] = lambda: None
    failed: Callable[[BaseException], None] = lambda error: None  # a task ended by an error that nobody expected


class _Outside(Outside):
    def __init__(self, service: Service) -> None:
        self._service = service

    def request(self, request: ToVehicleSide) -> None:
        self._service.callbacks.request(request)

    def limit(self, evse: int, limit: Limit) -> None:
        self._service.callbacks.limit(evse, limit)

    def fault(self, report: FaultReport) -> None:
        self._service.callbacks.fault(report)

    def send(self, call: Call, answer: Callable[[dict[str, Any] | None], None] | None = None) -> None:
        self._service.client.send(call, answer)

    def queued(self) -> None:
        self._service.client.wake()
        self._service.callbacks.changed()

    def status_changed(self, evse: int) -> None:
        self._service.client.wake()
        self._service.callbacks.changed()

    def restart(self, reason: str) -> None:
        self._service.spawn(self._service.restart(reason))


class Service:
    """Opens the store at once (raises StoreError); ``start`` runs the thread, ``stop`` ends it."""

    def __init__(self, plan: Plan, callbacks: Callbacks) -> None:
        self.plan = plan
        self.callbacks = callbacks
        p = plan.parameters
        self.store = Store(plan.store_path, p.queue__limit)
        self.settings = Settings(
            plan.settings, self.store.get("variables", {}), lambda values: self.store.put("variables", values)
        )
        this_boot, last_boot = boot_id(), self.store.get("boot_id")
        reason = "ApplicationReset" if last_boot == this_boot else "PowerUp"
        self.store.put("boot_id", this_boot)
        self.station = Station(
            plan.identity,
            p.evses,
            self.store,
            self.settings,
            _Outside(self),
            TransactionSettings(final_meter_s=p.final_meter_s, recovery_s=p.recovery_s),
            this_boot,
            plan.site,
        )
        self.clock = StationClock(float(self.store.get("clock_offset_s", 0.0)), on_change=self.station.clock_corrected)
        self.station.wall_offset_s = self.clock.offset_s
        self.dialect = DIALECTS[p.version](self.station, self.clock)
        certificates = Certificates(plan.certificate_folder, plan.maker_roots, p.firmware__root_over_ocpp)
        self.networks = Networks(plan, self.settings, certificates, self.store.get, self.store.put)
        self.client = Client(
            self.station, self.dialect, self.networks.ways, self.clock, callbacks.changed, boot_reason=reason
        )
        self._ring = LogRing()
        log.addHandler(self._ring)
        self.maintenance = Maintenance(
            self.station,
            certificates,
            self.dialect,
            self.clock,
            self.spawn,
            plan.certificate_folder,
            FirmwareRules(p.firmware__installer, p.firmware__unsigned, p.firmware__downgrade),
            self._ring,
            Places(self._csms_hosts, tuple(p.transfer__hosts), plan.field_networks),
            Limits(p.transfer__max_mb << 20, p.transfer__keep_free_mb << 20),
        )
        self.dialect.client, self.dialect.networks = self.client, self.networks
        self.dialect.maintenance = self.maintenance
        if self.dialect.model:
            self.dialect.model.public_keys = dict(enumerate(p.meter__public_keys, 1))
        self.client.pin = p.tls__pin_sha256
        self.client.on_accepted = self._accepted
        self.client.on_security = self._security_event
        self.client.on_time = self._time_heard
        self.settings.checks["security_profile"] = self._may_raise
        self.settings.checks["profile_priority"] = self.networks.known
        self.settings.checks["password"] = lambda value: 16 <= len(value) <= 40
        self.settings.watchers.append(self._setting_changed)
        self._last_security: tuple[str, str] = ("", "")
        if last_boot not in (None, this_boot):
            self.maintenance.security_event("StartupOfTheDevice")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._end: asyncio.Event | None = None
        self._asking = 0
        self._peak_lag = 0.0

    def _csms_hosts(self) -> list[str]:
        """Hosts that the station was set up for, and the one that it speaks to."""
        p, now = self.plan.parameters, self.client.network
        urls = [p.url, *p.fallback_urls, *([now.url] if now and self.client.connected else [])]
        return [h for url in urls if (h := urlsplit(url).hostname)]

    def _accepted(self, network: Network) -> None:
        self.networks.connected(network)
        self._last_security = ("", "")
        self.maintenance.renew_if_due()

    def _time_heard(self, text: str, round_trip_s: float) -> bool:
        """The CSMS told its time: it is used where TimeSource names it first."""
        use = self.settings["time_source"][:1] == ["Heartbeat"]
        heard = self.clock.heard(text, round_trip_s, use)
        if heard and use:
            self.station.smart.time_confirmed()
        return heard

    async def restart(self, reason: str) -> None:
        """A reset that the CSMS asked for: first what is queued, then a new boot."""
        await self.client.drain(RESET_DRAIN_S)
        await self.client.reconnect(reason)
        self.maintenance.security_event("StartupOfTheDevice", reason)

    def _security_event(self, kind: str, text: str) -> None:
        if (kind, text) != self._last_security:  # once, not with every try
            self._last_security = (kind, text)
            self.maintenance.security_event(kind, text)

    def _may_raise(self, profile: int) -> bool:
        """A CSMS may raise the security profile of 1.6, never lower it, and only where it can work."""
        if profile <= self.networks.floor:
            return False
        own = self.maintenance.certificates.chain_file or self.plan.parameters.tls__certificate_file
        return bool(own) if profile == 3 else bool(self.networks.password)

    def _setting_changed(self, name: str, before: Any) -> None:
        if name == "password":
            self.networks.change_password(before)
            self.maintenance.security_event("ReconfigurationOfSecurityParameters", "password changed")
            self.client.after_answer.append(self.client.reconnect)
        self.client.wake()  # an interval that changed holds at once
        if name == "security_profile":
            self.networks.wanted = self.settings["security_profile"]
            self.client.after_answer.append(self.client.reconnect)

    # The thread.
    def start(self) -> None:
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="ocpp", daemon=True)
        self._thread.start()
        ready.wait()

    def _run(self, ready: threading.Event) -> None:
        asyncio.run(self._main(ready))

    async def _main(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        self.station.recover(self.clock())
        jobs = [asyncio.ensure_future(self._tick())]
        if self.plan.parameters.url:
            jobs.append(asyncio.ensure_future(self.client.run()))
        for job in jobs:
            job.add_done_callback(self._on_job_end)
        ready.set()
        await self._end.wait()
        await self.client.stop()
        for job in [*jobs, *self._tasks]:
            job.cancel()
        await asyncio.gather(*jobs, *self._tasks, return_exceptions=True)

    def _on_job_end(self, job: asyncio.Future[None]) -> None:
        error = None if job.cancelled() else job.exception()
        if error is not None:
            self.callbacks.failed(error)

    async def _tick(self) -> None:
        for count in itertools.count():
            try:
                self.station.tick(self.clock())
                if count % 10 == 0:
                    self.dialect.tick(self.clock())
                if count % 20 == 0 and self.store.changed_outside():
                    self.client.wake()
            except Exception as error:
                log.exception("tick failed")
                self.callbacks.fault(FaultReport(Code.INTERNAL, Severity.WARNING, f"back end: {error!r}"))
            await asyncio.sleep(TICK_S)

    def stop(self) -> None:
        """End the thread and close the store. Idempotent."""
        if self._loop and self._end and self._thread:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join(timeout=5.0)
            self._thread = None
        self._loop = None
        log.removeHandler(self._ring)
        self.store.close()

    def spawn(self, work: Any) -> None:
        """Run a coroutine in the back end's loop; called in its thread."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def post(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Run a function in the back end's thread; nothing while it does not run. From any thread."""
        if self._loop:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._guarded, function, arguments)

    @staticmethod
    def _guarded(function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        try:
            function(*arguments)
        except Exception:
            log.exception("%s failed", getattr(function, "__name__", function))

    # Authorisation.
    def shown(self, token: Token, evse: int, paid: bool) -> None:
        """A reader or a terminal has a token; in the back end's thread."""
        follows = self.station.shown(token, evse, paid, self.clock())
        log.info("%s: %s", "start button or payment" if paid else "card shown", follows)
        if follows == "ask":
            self.spawn(self._shown(token, evse))

    async def _shown(self, token: Token, evse: int) -> None:
        """Something runs: what the card may stop depends on its group."""
        info = await self._judge(evse or 1, token, "")
        log.info("card shown: %s", self.station.shown(token, evse, False, self.clock(), info))

    def authorize(
        self, evse: int, session_id: str, token: Token, contract: str, answer: Callable[[TokenInfo], None]
    ) -> None:
        """May this token charge? ``answer`` is called in the back end's thread. From any thread."""
        self.post(lambda: self.spawn(self._authorize(evse, session_id, token, contract, answer)))

    async def _authorize(
        self, evse: int, session_id: str, token: Token, contract: str, answer: Callable[[TokenInfo], None]
    ) -> None:
        info = TokenInfo("Unknown")
        try:
            info = await self._judge(evse, token, contract)
            info = self.station.answered(evse, session_id, token, info, self.clock())
        finally:
            answer(info)

    async def _judge(self, evse: int, token: Token, contract: str) -> TokenInfo:
        local = self.station.local_answer(token, evse, self.clock())
        if local:
            return local
        try:
            # The time-out counts from here: a call of ours that is not answered may be in the way.
            payload = await asyncio.wait_for(
                self.client.call(self.dialect.authorize(token, contract)),
                self.plan.parameters.authorize__timeout_s,
            )
        except (RefusedError, CertificateError) as error:
            log.warning("Authorize refused: %s", error)
            return TokenInfo("Invalid")
        except (NotAnsweredError, asyncio.TimeoutError):
            return self.station.tokens.offline(token, evse, self.clock().wall)
        info: TokenInfo = self.dialect.read_authorize(payload)
        self.station.tokens.learn(token, info, self.clock())
        return info

    # Plug and Charge.
    def vehicle_certificate(
        self, schema: str, update: bool, request: bytes, answer: Callable[[bytes, str], None]
    ) -> None:
        """Have the CSMS answer a vehicle that wants a contract certificate. ``answer`` gets the EXI for the vehicle,
        or nothing and why; called in the back end's thread. From any thread."""
        self._ask(lambda pnc: pnc.vehicle_certificate(schema, update, request), answer)

    def certificate_status(self, pem: str, answer: Callable[[bytes, str], None]) -> None:
        """Have the CSMS fetch the OCSP response of a certificate, given with its issuer. As vehicle_certificate."""
        self._ask(lambda pnc: pnc.certificate_status(pem), answer)

    def _ask(self, build: Callable[[PlugAndCharge], Call], answer: Callable[[bytes, str], None]) -> None:
        self.post(lambda: self.spawn(self._asked(build, answer)))

    async def _asked(self, build: Callable[[PlugAndCharge], Call], answer: Callable[[bytes, str], None]) -> None:
        data, text = b"", ""
        try:
            pnc = self.dialect.plug_and_charge
            if pnc is None:
                raise UnansweredError(f"OCPP {self.dialect.version} has no messages for Plug and Charge")
            data = pnc.read(await asyncio.wait_for(self.client.call(build(pnc)), VEHICLE_WAITS_S))
        except asyncio.TimeoutError:
            text = f"the CSMS did not answer in {VEHICLE_WAITS_S:g} s"
        except (UnansweredError, CertificateError, RefusedError, NotAnsweredError) as error:
            text = str(error)
        finally:
            answer(data, text)

    # What the node tells of it.
    def state(self) -> State:
        """Snapshot; from any thread."""
        station, client = self.station, self.client
        return State(
            connected=client.connected,
            registration=client.registration,
            version=self.dialect.version,
            queued=station.queued,
            sent=client.sent,
            refused=client.refused,
            store_ok=station.store_ok,
            transactions=[station.recorded(evse) for evse in station.evses],
            text=client.text or self.dialect.text(),
        )
