"""Sessions, readings and time for the back end's tests."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from robot_charger.backend.parameters import BackendParameters, plan
from robot_charger.backend.records import Identity, Limit, Now, Reading, SessionView, Token, TokenInfo, ToVehicleSide
from robot_charger.backend.service import Callbacks, Service, clock
from robot_charger.backend.settings import Settings
from robot_charger.backend.station import Outside, Station
from robot_charger.backend.store import Store
from robot_charger.common.faults import Code, FaultReport
from robot_charger.sim.csms import books
from robot_charger.sim.csms.journal import read
from robot_charger.sim.csms.server import CsmsThread
from robot_charger.words.values import Authorization, Phase

SESSION = "5f0c7b1e-0001-4000-8000-000000000001"
TAG = Token("DEADBEEF", "ISO14443")
BEGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)


def at(seconds: float) -> Now:
    """A moment, ``seconds`` after the test's own beginning of time."""
    return Now(int((1000.0 + seconds) * 1e9), BEGIN + timedelta(seconds=seconds))


def reading(seconds: float, import_wh: float, current_a: float = 0.0, **values: Any) -> Reading:
    now = at(seconds)
    return Reading(
        now.iso, now.mono_ns, import_wh, current_a=current_a, voltage_v=400.0, power_w=400.0 * current_a, **values
    )


def view(
    phase: Phase, seconds: float = 0.0, accepted: bool = True, session_id: str = SESSION, **values: Any
) -> SessionView:
    if phase == Phase.IDLE:
        session_id, accepted = "", False
    authorization = Authorization.ACCEPTED if accepted else Authorization.NONE
    return SessionView(
        1, session_id, phase, at(seconds).mono_ns, authorization, **{"output_on": phase == Phase.CHARGING, **values}
    )


class Recorder(Outside):
    """Everything the station says to the outside."""

    def __init__(self) -> None:
        self.requests: list[ToVehicleSide] = []
        self.limits: list[tuple[int, Limit]] = []
        self.faults: dict[Code, FaultReport] = {}
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.restarts: list[str] = []

    def request(self, request: ToVehicleSide) -> None:
        self.requests.append(request)

    def limit(self, evse: int, limit: Limit) -> None:
        self.limits.append((evse, limit))

    def fault(self, report: FaultReport) -> None:
        if report.active:
            self.faults[report.code] = report
        else:
            self.faults.pop(report.code, None)

    def send(self, call: Any, answer: Any = None) -> None:
        self.sent.append(call)

    def restart(self, reason: str) -> None:
        self.restarts.append(reason)


class Desk:
    """A station without connection, on a store, with injected time."""

    def __init__(self, path: Path, evses: int = 1, boot_id: str = "boot-1", **given: Any) -> None:
        self.path = path
        self.store = Store(path)
        self.outside = Recorder()
        self.settings = Settings(
            {"sample_s": 0, **given}, self.store.get("variables", {}), lambda v: self.store.put("variables", v)
        )
        identity = Identity("station1", "vendor", "model", "serial", "1.0")
        self.station = Station(identity, evses, self.store, self.settings, self.outside, boot_id=boot_id)
        self.t = 0.0

    @property
    def now(self) -> Now:
        return at(self.t)

    def phase(self, phase: Phase, t: float | None = None, **values: Any) -> None:
        self.t = self.t if t is None else t
        self.station.session(view(phase, self.t, **values), self.now)

    def meter(self, import_wh: float, current_a: float = 0.0, t: float | None = None, **values: Any) -> None:
        self.t = self.t if t is None else t
        self.station.meter(1, reading(self.t, import_wh, current_a, **values), self.now)

    def authorize(self, token: Token = TAG, session_id: str = SESSION) -> None:
        self.station.answered(1, session_id, token, TokenInfo("Accepted"), self.now)

    def charge(self, start_wh: float = 1000.0, stop_wh: float = 2000.0, session_id: str = SESSION) -> None:
        """A whole session, ten seconds of it charging."""
        t = self.t
        self.meter(start_wh, 0.0, t)
        self.phase(Phase.POSITIONING, t, accepted=False, session_id=session_id)
        self.authorize(session_id=session_id)
        for phase in (Phase.CONNECTING, Phase.MATED, Phase.LINKING, Phase.CABLE_CHECK, Phase.PRECHARGE):
            self.phase(phase, self.t + 1, session_id=session_id)
        self.phase(Phase.CHARGING, self.t + 1, session_id=session_id)
        self.meter((start_wh + stop_wh) / 2, 100.0, self.t + 5)
        self.phase(Phase.STOPPING, self.t + 5, session_id=session_id, stop_reason="StoppedByEV")
        self.meter(stop_wh, 0.0, self.t + 0.5)
        self.phase(Phase.GRASPED, self.t + 0.5, session_id=session_id, stop_reason="StoppedByEV")
        self.meter(stop_wh, 0.0, self.t + 0.2)
        self.phase(Phase.IDLE, self.t + 5)

    @property
    def records(self) -> list[Any]:
        return [e.record for e in self.store.entries() if e.record]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    found = Desk(tmp_path / "store.sqlite")
    yield found
    found.store.close()


def wait_for(condition: Callable[[], Any], timeout_s: float = 45.0, what: str = "") -> Any:
    """Wait until a state is reached; its value."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"never came: {what or condition}"
        time.sleep(0.01)
    return value


class Running:
    """A running back end in real time.

    ``noted``: settings below the floor that their parameter has for people.
    """

    def __init__(self, folder: Path, url: str, noted: dict[str, Any] | None = None, **parameters: Any) -> None:
        self.folder = folder
        self.noted = {"attempt_interval_s": 0, **(noted or {})}
        self.requests: list[ToVehicleSide] = []
        self.limits: list[tuple[float, Limit]] = []
        self.faults: dict[Code, FaultReport] = {}
        self.seen: list[FaultReport] = []
        self.parameters = BackendParameters(
            **{
                "url": url,
                "security_profile": 0,
                "allow_plain": True,
                "sample_s": 0,
                "store": str(folder / "station.sqlite"),
                "backoff__minimum_s": 0,
                "backoff__random_s": 0,
                "final_meter_s": 1.0,
                "recovery_s": 1.0,
                "authorize__timeout_s": 40.0,
                **parameters,
            }
        )
        self.service: Service = None  # type: ignore[assignment]
        self.open()

    def open(self) -> None:
        self.service = Service(
            plan(self.parameters),
            Callbacks(
                self.requests.append, lambda e, limit: self.limits.append((time.monotonic(), limit)), self._fault
            ),
        )
        for name, value in self.noted.items():
            self.service.settings.note(name, value)
        self.service.start()

    def _fault(self, report: FaultReport) -> None:
        self.seen.append(report)
        if report.active:
            self.faults[report.code] = report
        else:
            self.faults.pop(report.code, None)

    def online(self) -> None:
        wait_for(lambda: self.service.station.online, what="the station online")

    def do(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run in the back end's thread; its result."""
        result: list[Any] = []
        self.service.post(lambda: result.append(function(*arguments)))
        return wait_for(lambda: result, what=f"{function}")[0]

    def session(self, phase: Phase, accepted: bool = True, session_id: str = SESSION, **values: Any) -> None:
        moment = clock()
        state = dataclasses.replace(view(phase, 0, accepted, session_id, **values), phase_stamp_ns=moment.mono_ns)
        self.do(self.service.station.session, state, moment)

    def meter(self, import_wh: float, current_a: float = 0.0, **values: Any) -> None:
        moment = clock()
        self.do(
            self.service.station.meter,
            1,
            dataclasses.replace(reading(0, import_wh, current_a, **values), time=moment.iso, stamp_ns=moment.mono_ns),
            moment,
        )

    def authorize(self, token: Token = TAG, session_id: str = SESSION) -> TokenInfo:
        found: list[TokenInfo] = []
        self.service.authorize(1, session_id, token, "", found.append)
        return wait_for(lambda: found, what="an answer to Authorize")[0]

    def begin(self, start_wh: float = 1000.0, session_id: str = SESSION) -> None:
        """From parking to charging."""
        self.meter(start_wh)
        self.session(Phase.POSITIONING, accepted=False, session_id=session_id)
        self.authorize(session_id=session_id)
        for phase in (Phase.MATED, Phase.LINKING, Phase.CHARGING):
            self.session(phase, session_id=session_id)
        self.meter(start_wh + 100.0, 50.0)

    def end(self, stop_wh: float = 2000.0, session_id: str = SESSION, reason: str = "StoppedByEV") -> None:
        self.session(Phase.STOPPING, session_id=session_id, stop_reason=reason)
        self.meter(stop_wh)
        self.session(Phase.GRASPED, session_id=session_id, stop_reason=reason)
        self.meter(stop_wh)
        self.session(Phase.IDLE)

    def delivered(self) -> None:
        wait_for(lambda: self.service.station.queued == 0, what="an empty queue")


class Live(Running):
    """A running back end and the CSMS of the desk."""

    def __init__(self, folder: Path, csms: dict[str, Any] | None = None, **options: Any) -> None:
        self.csms_store = folder / "csms.sqlite"
        self.thread = CsmsThread(self.csms_store, **(csms or {})).start()
        self.csms = self.thread.csms
        super().__init__(folder, options.pop("url", self.csms.url), **options)

    def call(self, action: str, payload: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = self.thread.do(self.csms.call(action, payload))
        return answer

    def fault(self, name: str, on: bool = True, **details: Any) -> None:
        self.thread.do(self.csms.fault(name, on, **details))

    def books(self) -> list[Any]:
        return books(self.csms_store)

    def received(self, action: str) -> list[dict[str, Any]]:
        """Payloads of the station's requests of one action."""
        frames = [line.frame() for line in read(self.csms_store) if line.direction == "in"]
        return [f[3] for f in frames if f and f[0] == 2 and f[2] == action]

    def close(self) -> None:
        self.service.stop()
        self.thread.stop()
        assert not self.csms.violations, self.csms.violations


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Callable[..., Live]]:
    made: list[Live] = []

    def make(**options: Any) -> Live:
        made.append(Live(tmp_path, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()
