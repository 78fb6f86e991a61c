"""Every request a CSMS may send, in every version: schema-true but otherwise arbitrary, and broken ones.

Whatever comes, the station answers with what its schema allows or with a CALLERROR, never "internal error", and goes
on working.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ocpp.messages
import pytest

from robot_charger.backend.client import Client
from robot_charger.backend.service import DIALECTS
from robot_charger.words.values import Phase

from .conftest import Desk, at

TIMES = (
    "2026-01-01T00:00:10Z",
    "2027-03-01T12:00:00.1234567+02:00",
    "2020-01-01T00:00:00",
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59Z",
    "soon",
    "",
)
WORDS = (
    "",
    "DEADBEEF",
    "1",
    "-1",
    "true",
    "PowerPathClosed",
    "TxCtrlr",
    "EVSE",
    "http://127.0.0.1:9/",
    "x" * 20,
    "ÄÖ\u0000",
    "HeartbeatInterval",
    "5f0c7b1e-0001-4000-8000-000000000001",
)
NUMBERS = (0, 1, 2, -1, 5, 600, 2**31 - 1, -(2**31))


def arbitrary(schema: dict[str, Any], root: dict[str, Any], rng: random.Random, depth: int = 0) -> Any:
    """A value that the schema allows."""
    if "$ref" in schema:
        return arbitrary(root["definitions"][schema["$ref"].split("/")[-1]], root, rng, depth)
    if "enum" in schema:
        return rng.choice(schema["enum"])
    kind = schema.get("type")
    if kind == "object" or "properties" in schema:
        required = schema.get("required", [])
        return {
            name: arbitrary(value, root, rng, depth + 1)
            for name, value in schema.get("properties", {}).items()
            if name != "customData" and (name in required or rng.random() < 0.6 / (1 + depth / 2))
        }
    if kind == "array":
        count = rng.randint(schema.get("minItems", 0), min(schema.get("maxItems", 3), 3))
        return [arbitrary(schema["items"], root, rng, depth + 1) for _ in range(count)]
    if kind == "string":
        word = rng.choice(TIMES if schema.get("format") == "date-time" else WORDS)
        return word[: schema.get("maxLength", 1000)]
    if kind == "boolean":
        return rng.random() < 0.5
    if kind == "integer":
        return max(rng.choice(NUMBERS), schema.get("minimum", -(2**31)))
    return rng.choice(
        (0, 1.5, -2.5, 1e30, 10.0, float("nan"), float("inf")) if "multipleOf" not in schema else (0, 1.5, 10.0)
    )


def schema_of(action: str, version: str) -> dict[str, Any]:
    """The request's schema, read past the package's cache, which remembers how numbers were parsed."""
    name = action + ("" if version == "1.6" else "Request")
    file = Path(ocpp.messages.__file__).parent / f"v{version.replace('.', '')}" / "schemas" / f"{name}.json"
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8-sig"))
    return found


class Socket:
    """Takes what the station says."""

    def __init__(self) -> None:
        self.sent: list[list[Any]] = []

    async def send(self, text: str) -> None:
        self.sent.append(json.loads(text))


class Bench:
    """A station in one version, with a session going, without a network."""

    def __init__(self, version: str, path: Path) -> None:
        self.loop = asyncio.new_event_loop()
        self.desk = Desk(path, evses=2)
        station = self.desk.station
        station.online = True
        self.dialect = DIALECTS[version](station, lambda: self.desk.now)
        self.client = Client(station, self.dialect, lambda: [], lambda: self.desk.now)
        self.client.registration = "Accepted"
        self.dialect.client = self.client
        self.dialect.maintenance = _Care()
        self.dialect.networks = _Care()
        self.desk.meter(100.0)
        self.desk.phase(Phase.IDLE)

    def ask(self, frame: list[Any]) -> list[Any]:
        """The station's answer to one frame."""
        socket = Socket()
        message = ocpp.messages.unpack(json.dumps(frame))
        self.loop.run_until_complete(self.client._handle(socket, message))  # type: ignore[arg-type]
        [answer] = socket.sent
        self.client.after_answer.clear()
        return answer


class _Care:
    """Maintenance and networks have tests of their own; here they only answer."""

    firmware_state = log_state = "Idle"
    firmware = log_request = None
    certificates = property(lambda self: self)

    def __getattr__(self, name: str) -> Any:
        answers = {
            "get_log": ("Rejected", ""),
            "update_firmware": "Rejected",
            "installed": [],
            "install_certificate": "Rejected",
            "delete_certificate": "NotFound",
            "set": "Rejected",
            "certificate_signed": False,
            "sign_certificate": None,
            "known": False,
        }
        return lambda *arguments: answers[name]


@pytest.fixture(params=["1.6", "2.0.1", "2.1"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    one = Bench(request.param, tmp_path / "store.sqlite")
    yield one
    one.loop.close()
    one.desk.store.close()


def test_arbitrary_requests_are_answered_by_their_schema(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    rng = random.Random(20260101)
    version = bench.dialect.version
    actions = sorted(bench.dialect.handlers)
    well = set()
    for number in range(15 * len(actions)):
        action = actions[number % len(actions)]
        schema = schema_of(action, version)
        payload = arbitrary(schema, schema, rng)
        if number % 200 == 100:
            bench.desk.phase(rng.choice([Phase.POSITIONING, Phase.CHARGING, Phase.GRASPED, Phase.IDLE]))
        answer = bench.ask([2, f"m{number}", action, payload])
        assert answer[0] in (3, 4) and answer[1] == f"m{number}", (action, payload, answer)
        if answer[0] == 4:
            assert answer[2] != "InternalError", (action, payload, caplog.text[-2000:])
        else:
            well.add(action)
        bench.desk.t += 0.5
        bench.desk.station.tick(at(bench.desk.t))
        if getattr(bench.dialect, "model", None):
            bench.dialect.model.tick(at(bench.desk.t))
    assert well == set(actions)  # each was answered well at least once


def test_broken_requests_get_an_error_and_nothing_changes(bench: Bench) -> None:
    version = bench.dialect.version
    for action in sorted(bench.dialect.handlers):
        schema = schema_of(action, version)
        if schema.get("required"):
            assert bench.ask([2, "a", action, {}])[0] == 4, action
        assert bench.ask([2, "b", action, {"nobodyKnows": 1}])[0] == 4, action
    assert bench.ask([2, "c", "NoSuchAction", {}])[2] == "NotSupported"
    assert bench.desk.outside.requests == []
    assert bench.desk.store.queued == 0


def test_unhandled_messages_of_the_version_say_not_implemented(bench: Bench) -> None:
    action = "DataTransfer" if bench.dialect.version == "1.6" else "PublishFirmware"
    if action not in bench.dialect.handlers:
        assert bench.ask([2, "d", action, {}])[2] == "NotImplemented"
