"""What the borders lead to: nothing raises out of a callback or a loop, and no state outlives its customer."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from robot_charger import srv
from robot_charger.common.topics import checked_service
from robot_charger.power.loop import SHUT_FRAMES, ControlLoop
from robot_charger.power.meter import MeterReader, Reading
from robot_charger.supervisor import flow
from robot_charger.supervisor.charging import ChargeAction
from robot_charger.supervisor.inputs import Heard
from robot_charger.supervisor.model import Commands, Inputs, Limits, Session
from robot_charger.supervisor.permits import Ceilings, offer, permit
from robot_charger.supervisor.tokens import Token, TokenDesk
from robot_charger.words.border import Border
from robot_charger.words.values import (
    Authorization,
    Code,
    Fault,
    Phase,
    Purpose,
    RobotErrorCode,
    SafetyState,
    Severity,
)

NOW = 10**15
CEILINGS = {
    "supply_voltage_v": 1000.0,
    "supply_current_a": 200.0,
    "supply_power_w": 150e3,
    "export_current_a": 100.0,
    "export_power_w": 50e3,
    "vehicle_voltage_v": 800.0,
    "backend_current_a": 32.0,
    "backend_power_w": 20e3,
    "backend_min_power_w": -10e3,
    "cable_current_a": 400.0,
    "discharge": True,
}


@pytest.mark.parametrize("name", [n for n in CEILINGS if n != "discharge"])
@pytest.mark.parametrize("purpose", [p for p in Purpose if p])
def test_a_ceiling_that_is_no_number_lifts_no_limit(name: str, purpose: Purpose) -> None:
    good = permit(Commands(purpose=purpose), Ceilings(**CEILINGS))  # type: ignore[arg-type]
    bad = permit(Commands(purpose=purpose), Ceilings(**{**CEILINGS, name: math.nan}))  # type: ignore[arg-type]
    assert 0.0 <= bad.max_voltage_v <= good.max_voltage_v
    assert 0.0 <= bad.max_current_a <= good.max_current_a and 0.0 <= bad.max_power_w <= good.max_power_w
    assert good.min_current_a <= bad.min_current_a <= 0.0 and good.min_power_w <= bad.min_power_w <= 0.0


@pytest.mark.parametrize("name", ["supply_current_a", "supply_power_w", "backend_current_a", "backend_power_w"])
def test_plain_ac_offers_nothing_by_a_ceiling_that_is_no_number(name: str) -> None:
    assert offer(Ceilings(**CEILINGS)) > 0.0  # type: ignore[arg-type]
    assert offer(Ceilings(**{**CEILINGS, name: math.nan})) == 0.0  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (RobotErrorCode.TIMEOUT, Code.ROBOT_NOT_MATED),
        (RobotErrorCode.FLAP_CLOSED, Code.ROBOT_POSE),
        (RobotErrorCode.WRONG_INLET, Code.ROBOT_POSE),
        (RobotErrorCode.BUSY, Code.ROBOT_ARM),
    ],
)
def test_the_session_names_the_fault_that_the_robot_names(error: RobotErrorCode, fault: Code) -> None:
    session = Session(phase=Phase.CONNECTING, goal_number=1, session_id="s")
    after, _ = flow.step(session, Inputs(goal_done=1, goal_error=error, robot_clear=True), 0.0, Limits())
    assert after.fault == fault


def test_an_emergency_stop_counts_however_old_it_is() -> None:
    heard = Heard()
    heard.hear(SafetyState(NOW, alive=True, emergency_stop=True))
    later = heard.inputs(Session(), NOW + 10**12)
    assert later.emergency_stop and not later.safety_alive


def test_a_fault_from_a_refused_message_stops_and_does_not_stand() -> None:
    heard = Heard()
    heard.suspect(Fault(code=Code.INTERNAL, severity=Severity.STOP, active=True), NOW)
    assert heard.inputs(Session(), NOW + 1).severity == Severity.STOP
    assert heard.inputs(Session(), NOW + 2 * 10**9).fault == Code.NONE, "nobody could have ended it"


# Tokens.
CARD = Token("card", "ISO14443", session_id="s")


def test_a_start_request_counts_for_the_session_that_it_names() -> None:
    desk = TokenDesk()
    assert "not the one" in desk.show(Token("card", session_id="a session that is over"), "s", Authorization.NONE)
    assert desk.waiting("s") is None
    assert not desk.show(CARD, "s", Authorization.NONE)
    assert desk.waiting("another") is None and desk.waiting("s") == CARD


def test_a_card_shown_to_an_authorised_session_does_not_stay_for_the_next_car() -> None:
    desk = TokenDesk()
    assert "already" in desk.show(CARD, "s", Authorization.ACCEPTED)
    assert desk.waiting("s") is None


def test_a_token_is_forgotten_when_it_was_used_or_the_bay_empties() -> None:
    desk = TokenDesk()
    desk.show(Token("card"), "", Authorization.NONE)  # a goal of the action, before the vehicle came
    assert desk.waiting("s") is not None
    desk.forget()
    assert desk.waiting("s") is None


@pytest.mark.parametrize("energy", [math.nan, -1.0, -math.inf])
def test_a_goal_with_an_impossible_energy_is_refused(energy: float) -> None:
    assert "no energy" in ChargeAction.refuses(SimpleNamespace(id_token="", token_type="", max_energy_wh=energy))
    assert not ChargeAction.refuses(SimpleNamespace(id_token="", token_type="", max_energy_wh=0.0))


# Services.
@pytest.mark.parametrize(
    ("kind", "fields", "refused"),
    [
        (srv.Authorize, {"evse": 0, "id_token": "x"}, {"status": 2, "reason": "Invalid"}),
        (srv.Authorize, {"evse": 1}, {"status": 2}),
        (srv.VehicleCertificate, {"evse": 1, "action": 9, "request": [1]}, {"accepted": False}),
        (srv.VehicleCertificate, {"evse": 1, "action": 1}, {"accepted": False}),
        (srv.CertificateStatus, {}, {"accepted": False}),
    ],
)
def test_an_impossible_request_is_answered_and_counted(kind: Any, fields: dict[str, Any], refused: Any) -> None:
    border = Border(lambda text: None)
    serve = checked_service(border, kind, "/service", lambda request, response: pytest.fail("it was believed"))
    response = serve(kind.Request(**fields), kind.Response())
    assert {name: getattr(response, name) for name in refused} == refused
    assert border.refused["/service"].count == 1


def test_a_good_request_reaches_its_service() -> None:
    serve = checked_service(Border(print), srv.Authorize, "/authorize", lambda request, response: "answer")
    assert serve(srv.Authorize.Request(evse=1, id_token="x"), srv.Authorize.Response()) == "answer"


# The control loop.
class Broken:
    """A control that raises in its first cycle, and can still switch off."""

    safe = False

    def step(self, now_ns: int) -> list[Any]:
        raise ValueError("a value that nobody thought of")

    def shut(self) -> list[Any]:
        return [(0, np.array([0x200]), np.zeros((1, 8), np.uint8))]


class Port:
    socket = None

    def __init__(self) -> None:
        self.written: list[int] = []

    def read(self) -> list[Any]:
        return []

    def write(self, ids: np.ndarray, data: np.ndarray) -> None:
        self.written += ids.tolist()


def test_a_control_that_raises_switches_off_and_says_so() -> None:
    port, failures = Port(), []
    loop = ControlLoop(Broken(), [port], realtime=False, failed=failures.append)  # type: ignore[arg-type,list-item]
    loop.start()
    loop._thread.join(10.0)
    assert not loop.running and isinstance(failures[0], ValueError)
    assert port.written == [0x200] * SHUT_FRAMES


def test_a_meter_that_raises_what_no_meter_should_is_reported() -> None:
    class Odd:
        def read(self) -> Reading:
            raise ZeroDivisionError

        def close(self) -> None:
            pass

    failures: list[BaseException] = []
    reader = MeterReader({1: Odd()}, lambda evse, reading, error: None, failed=failures.append)  # type: ignore[dict-item]
    reader.start()
    reader._thread.join(10.0)
    reader.close()
    assert isinstance(failures[0], ZeroDivisionError)
