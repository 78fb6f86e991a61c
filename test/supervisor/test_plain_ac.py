"""Plain AC (IEC 61851-1 mode 3) as the supervisor sees it: nobody talks, the pilot tells the current."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from test_flow import ID, READY, Station, parked

from robot_charger.common import duty_cycle
from robot_charger.common.faults import Code, Severity
from robot_charger.common.parameters import ParameterError
from robot_charger.supervisor.model import Limits
from robot_charger.supervisor.parameters import SupervisorParameters
from robot_charger.supervisor.permits import Ceilings, offer
from robot_charger.words.values import Authorization, Link, Phase, Pilot, PilotMode, Purpose

LIMITS = Limits(plain_ac=True, wake_after_s=0.0)


@pytest.fixture
def station() -> Station:
    station = Station(LIMITS)
    station.i = replace(READY, offer_a=32.0, target_live=True)
    station()
    return station


def linking(s: Station) -> Station:
    parked(s).goal(pilot=Pilot.B)
    s.goal(link=Link.LINKED, link_session=ID)
    assert s() == Phase.LINKING
    return s


def charging(s: Station) -> Station:
    linking(s)(authorization=Authorization.ACCEPTED)
    assert s(pilot=Pilot.C, target=Purpose.TRANSFER) == Phase.CHARGING
    s(link=Link.CHARGING, contactors_closed=True, voltage_v=230.0, current_a=32.0)
    return s


def told(s: Station) -> float:
    return duty_cycle.to_current(s.command.duty) if s.command.pilot == PilotMode.PWM else 0.0


def test_a_session_from_the_plug_to_an_empty_bay(station):
    linking(station)
    assert (told(station), station.command.purpose) == (0.0, Purpose.NONE), "nothing is told before authorisation"
    station(authorization=Authorization.ACCEPTED)
    assert told(station) == pytest.approx(32.0, abs=0.01)
    assert station.command.purpose == Purpose.NONE, "not before the vehicle is ready"
    assert station(pilot=Pilot.C, target=Purpose.TRANSFER) == Phase.CHARGING
    assert station.command.purpose == Purpose.TRANSFER
    station(link=Link.CHARGING, contactors_closed=True, voltage_v=230.0, current_a=32.0)
    assert station(after=600.0) == Phase.CHARGING, "nothing is timed"
    station(pilot=Pilot.B, target=Purpose.NONE, contactors_closed=False, voltage_v=0.0, current_a=0.0)
    assert (station.s.phase, station.command.purpose) == (Phase.CHARGING, Purpose.NONE), "it may come back"
    assert station(link=Link.ENDED) == Phase.GRASPED
    assert station.s.stop_reason == "StoppedByEV"
    station(goal_grasped=True)
    station.goal(pilot=Pilot.A, plug_in_inlet=False)
    assert station(occupied=False) == Phase.IDLE


def test_a_limit_of_the_back_end_changes_the_duty(station):
    charging(station)
    station(offer_a=10.0)
    assert told(station) == pytest.approx(10.0, abs=0.01)
    station(offer_a=5.9)
    assert (told(station), station.s.phase) == (0.0, Phase.CHARGING), "below 6 A the vehicle waits"
    assert station.command.purpose == Purpose.TRANSFER, "the vehicle ends the load by itself"


def test_a_stop_is_asked_by_the_pilot(station):
    charging(station)
    station(stop_asked="Remote")
    assert (told(station), station.s.phase) == (0.0, Phase.CHARGING)
    station(pilot=Pilot.B, link=Link.ENDED, contactors_closed=False, voltage_v=0.0, current_a=0.0)
    assert (station.s.phase, station.s.stop_reason, station.s.fault) == (Phase.GRASPED, "Remote", Code.NONE)


def test_a_vehicle_that_wants_ventilation_is_unplugged_and_not_plugged_again(station):
    linking(station)(authorization=Authorization.ACCEPTED)
    station(pilot=Pilot.D, link=Link.FAILED, link_error=Code.INTERLOCK)
    assert (station.s.fault, station.s.replug) == (Code.INTERLOCK, False)
    assert "ventilation" in station.s.text


def test_a_vehicle_that_never_asks_for_energy_frees_the_bay(station):
    linking(station)(authorization=Authorization.ACCEPTED)
    assert station(after=LIMITS.linking_s + 1.0) == Phase.STOPPING
    assert (station.s.stop_reason, station.s.fault) == ("Timeout", Code.NONE)


@pytest.mark.parametrize(
    "changes", [{"safety_alive": False}, {"pilot": Pilot.B}, {"store_ok": False}, {"robot_clear": False}]
)
def test_no_permit_while_an_interlock_forbids_it(station, changes):
    assert charging(station)(**changes) == Phase.CHARGING
    assert station.command.purpose == Purpose.NONE


def test_a_residual_current_stops_the_session(station):
    charging(station)
    assert station(fault=Code.INSULATION_CHARGING, severity=Severity.STOP) == Phase.STOPPING
    assert (station.command.pilot, station.command.purpose) == (PilotMode.STEADY, Purpose.NONE)


@pytest.mark.parametrize(
    ("changes", "offer_a"),
    [
        ({}, 32.0),
        ({"cable_current_a": 20.0}, 20.0),
        ({"backend_current_a": 16.04}, 16.0),
        ({"backend_power_w": 11_040.0}, 16.0),  # three phases
        ({"backend_power_w": 0.0}, 0.0),
        ({"supply_power_w": 0.0}, 0.0),
        ({"backend_current_a": math.inf}, 32.0),
    ],
)
def test_the_least_of_outlet_cable_and_back_end_is_offered(changes, offer_a):
    ceilings = Ceilings(supply_current_a=32.0, supply_power_w=3 * 230.0 * 32.0, cable_current_a=63.0)
    assert offer(replace(ceilings, **changes)) == pytest.approx(offer_a)


@pytest.mark.parametrize(
    ("protocol", "connector", "well"), [("ac", "type2", True), ("ac", "ccs2", False), ("ccs", "type2", False)]
)
def test_plain_ac_and_an_ac_plug_belong_together(protocol, connector, well):
    parameters = SupervisorParameters(protocol=protocol, connector=connector)
    if well:
        parameters.check()
        assert parameters.limits().plain_ac
    else:
        with pytest.raises(ParameterError, match=connector):
            parameters.check()
