"""The station under test against the raw central system."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from robot_charger.backend.records import Token
from robot_charger.backend.service import clock
from robot_charger.words.values import Phase

from ..conftest import SESSION, TAG, Running, reading, view, wait_for
from .central import Central

__all__ = ["SESSION", "TAG", "Rig", "Rigs", "Token", "wait_for"]


class Rig(Running):
    """``version`` is that of the OCPP messages. Two EVSEs if asked for; ``evse`` of a session is 1 unless named."""

    def __init__(self, folder: Path, version: str, rules: dict[str, Any] | None = None, **options: Any) -> None:
        self.version = version
        self.central = Central(version)
        self.central.rules.update(rules or {})
        super().__init__(folder, self.central.url, version=version, **options)

    # Shorter words for tests.
    def call(self, action: str, payload: dict[str, Any] | None = None) -> dict[str, Any]:
        return self.central.call(action, payload)

    def of(self, action: str) -> list[dict[str, Any]]:
        return self.central.of(action)

    def until(self, condition: Callable[[], Any], what: str = "", timeout_s: float = 45.0) -> Any:
        return wait_for(condition, timeout_s, what)

    def came(self, action: str, count: int = 1, **fields: Any) -> list[dict[str, Any]]:
        """Wait for messages of one action with these fields; they."""

        def found() -> list[dict[str, Any]]:
            return [p for p in self.of(action) if all(p.get(k) == v for k, v in fields.items())]

        self.until(lambda: len(found()) >= count, f"{count} {action} {fields}, came {self.of(action)[-4:]}")
        return found()

    def set(self, component: str, variable: str, value: Any, instance: str = "") -> str:
        """SetVariables of one; its status."""
        item: dict[str, Any] = {
            "component": {"name": component},
            "variable": {"name": variable, **({"instance": instance} if instance else {})},
            "attributeValue": str(value),
        }
        [result] = self.call("SetVariables", {"setVariableData": [item]})["setVariableResult"]
        return str(result["attributeStatus"])

    def get(self, component: str, variable: str, instance: str = "", **place: Any) -> dict[str, Any]:
        item: dict[str, Any] = {
            "component": {"name": component, **place},
            "variable": {"name": variable, **({"instance": instance} if instance else {})},
        }
        [result] = self.call("GetVariables", {"getVariableData": [item]})["getVariableResult"]
        return dict(result)

    def configure(self, key: str, value: Any) -> str:
        return str(self.call("ChangeConfiguration", {"key": key, "value": str(value)})["status"])

    def phase(
        self, phase: Phase, evse: int = 1, accepted: bool = True, session_id: str = SESSION, **values: Any
    ) -> None:
        moment = clock()
        state = dataclasses.replace(
            view(phase, 0, accepted, session_id, **values), phase_stamp_ns=moment.mono_ns, evse=evse
        )
        self.do(self.service.station.session, state, moment)

    def read_meter(self, import_wh: float, current_a: float = 0.0, evse: int = 1, **values: Any) -> None:
        moment = clock()
        found = dataclasses.replace(
            reading(0, import_wh, current_a, **values), time=moment.iso, stamp_ns=moment.mono_ns
        )
        self.do(self.service.station.meter, evse, found, moment)

    def idle(self, *evses: int) -> None:
        for evse in evses or (1,):
            self.phase(Phase.IDLE, evse)

    def charge(self, evse: int = 1, session_id: str = SESSION, start_wh: float = 1000.0) -> None:
        """From parking to charging, the token known already."""
        self.read_meter(start_wh, evse=evse)
        self.phase(Phase.POSITIONING, evse, False, session_id)
        info = self.service.station.evses[evse]
        self.do(info.authorized, session_id, TAG)
        for phase in (Phase.MATED, Phase.LINKING, Phase.CHARGING):
            self.phase(phase, evse, session_id=session_id)
        self.read_meter(start_wh + 100.0, 50.0, evse)

    def finish(
        self, evse: int = 1, session_id: str = SESSION, stop_wh: float = 2000.0, reason: str = "StoppedByEV"
    ) -> None:
        for phase in (Phase.STOPPING, Phase.GRASPED):
            self.phase(phase, evse, session_id=session_id, stop_reason=reason)
            self.read_meter(stop_wh, evse=evse)
        self.phase(Phase.IDLE, evse)

    def delivered(self) -> None:
        self.until(lambda: self.service.station.queued == 0, "an empty queue")

    def bills(self) -> list[tuple[str, float, float]]:
        """(transaction, first register, last register) of what ended, by what the central system took."""
        found = []
        if self.version == "1.6":
            starts = [p for p in self.of("StartTransaction")]
            for stop in self.of("StopTransaction"):
                start = starts[min(len(found), len(starts) - 1)]
                found.append((str(stop["transactionId"]), float(start["meterStart"]), float(stop["meterStop"])))
            return found
        for end in [p for p in self.of("TransactionEvent") if p["eventType"] == "Ended"]:
            id = end["transactionInfo"]["transactionId"]
            start = next(p for p in self.of("TransactionEvent") if p["transactionInfo"]["transactionId"] == id)
            found.append((id, energy(start), energy(end)))
        return found

    def close(self) -> None:
        self.service.stop()
        self.central.stop()
        assert not self.central.violations, self.central.violations


def energy(event: dict[str, Any]) -> float:
    """The last import register in an event [Wh]."""
    values = [
        v["value"]
        for m in event.get("meterValue", [])
        for v in m["sampledValue"]
        if v.get("measurand") == "Energy.Active.Import.Register"
    ]
    return float(values[-1])


Rigs = Callable[..., Rig]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rigs]:
    made: list[Rig] = []

    def make(version: str = "2.0.1", online: bool = True, idle: bool = True, **options: Any) -> Rig:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        options.setdefault("evses", 1)
        made.append(Rig(folder, version, **options))
        if online:
            made[-1].online()
        if idle:
            made[-1].idle(*range(1, options["evses"] + 1))
        return made[-1]

    yield make
    for one in made:
        one.close()
