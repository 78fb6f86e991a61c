"""The session flow read as a story: given these inputs, expect that phase and that permit."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_charger.common.faults import Code, Severity
from robot_charger.supervisor import flow, interlocks
from robot_charger.supervisor.model import Goal, Inputs, Limits, Session
from robot_charger.words.values import (
    Authorization,
    Insulation,
    Link,
    Lock,
    Phase,
    Pilot,
    PilotMode,
    Purpose,
    Shutdown,
    Zone,
)

LIMITS = Limits()
ID = "11111111-2222-3333-4444-555555555555"
READY = Inputs(
    nodes_ready=True,
    safety_alive=True,
    bay_alive=True,
    field_clear=True,
    pilot_alive=True,
    pilot=Pilot.A,
    power_alive=True,
    supply_available=True,
    contactors_closed=False,
    voltage_v=0.0,
    current_a=0.0,
    link_alive=True,
    robot_alive=True,
    robot_clear=True,
)


class Station:
    """Drives the flow: change some inputs, let time pass, look."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.limits = limits
        self.s = Session()
        self.i = READY
        self.now = 0.0
        self.events: list[str] = []

    def __call__(self, after: float = 0.1, **changes) -> Phase:
        self.i = replace(self.i, **changes)
        self.now += after
        events = ["begin"]
        while events:  # as the node does: the next phase may follow at once
            before = self.s.phase
            self.s, events = flow.step(self.s, self.i, self.now, self.limits)
            self.events += events
            if self.s.phase == Phase.POSITIONING and not self.s.session_id:
                self.s = replace(self.s, session_id=ID)
            if self.s.phase == before:
                break
        command = self.command
        if command.purpose == Purpose.INSULATION_TEST and not self.s.test_permit:
            self.s = replace(self.s, test_permit=7)
        return self.s.phase

    @property
    def command(self):
        return flow.command(self.s, self.i, self.limits)

    def goal(self, error: int = 0, **changes) -> Phase:
        return self(goal_done=self.s.goal_number, goal_error=error, goal_done_at=self.now, **changes)


@pytest.fixture
def station() -> Station:
    station = Station()
    assert station() == Phase.IDLE
    return station


def parked(s: Station) -> Station:
    s(occupied=True)
    assert s(immobilised=True) == Phase.CONNECTING
    return s


def linking(s: Station) -> Station:
    parked(s).goal(pilot=Pilot.B)
    assert s.s.phase == Phase.MATED
    s.goal()
    assert s() == Phase.LINKING
    return s


def cable_check(s: Station) -> Station:
    linking(s)
    s(link=Link.SESSION, link_session=ID, authorization=Authorization.ACCEPTED)
    phase = s(pilot=Pilot.C, link=Link.CABLE_CHECK, lock=Lock.LOCKED, target=Purpose.INSULATION_TEST, target_live=True)
    assert phase == Phase.CABLE_CHECK
    return s


def charging(s: Station) -> Station:
    cable_check(s)
    s(insulation=Insulation.VALID, insulation_permit=7)
    assert s(link=Link.PRECHARGE, target=Purpose.PRECHARGE) == Phase.PRECHARGE
    assert s(link=Link.CHARGING, target=Purpose.TRANSFER, contactors_closed=True, voltage_v=400.0) == Phase.CHARGING
    s(current_a=100.0)
    return s


def test_a_session_from_parking_to_an_empty_bay(station):
    charging(station)
    assert station.command.purpose == Purpose.TRANSFER
    assert station.command.duty == pytest.approx(0.05)
    assert station(link=Link.STOPPING, target=Purpose.NONE, current_a=0.0) == Phase.STOPPING
    assert station.command.purpose == Purpose.NONE
    station(contactors_closed=False, voltage_v=20.0, pilot=Pilot.B)
    assert station.s.phase == Phase.STOPPING, "the conversation is not over yet"
    assert station(link=Link.ENDED) == Phase.GRASPED
    assert station.command.zone == Zone.CONTACT
    assert station(goal_grasped=True) == Phase.DISCONNECTING
    assert station.goal(pilot=Pilot.A) == Phase.DEPARTING
    assert (station.s.shutdown, station.s.stop_reason, station.s.fault) == (Shutdown.NORMAL, "StoppedByEV", Code.NONE)
    assert station(occupied=False, immobilised=False) == Phase.IDLE
    assert station.s.session_id == ""


def test_seated_without_a_pilot_is_not_mated(station):
    parked(station).goal()
    assert station.s.phase == Phase.CONNECTING
    assert station(after=LIMITS.pilot_confirm_s + 0.1) == Phase.GRASPED
    assert station.s.fault == Code.ROBOT_NOT_MATED


def test_no_cable_check_without_authorisation(station):
    linking(station)
    phase = station(
        pilot=Pilot.C, link_session=ID, link=Link.CABLE_CHECK, lock=Lock.LOCKED, target=Purpose.INSULATION_TEST,
        target_live=True
    )  # fmt: skip
    assert phase == Phase.LINKING
    assert station.command.purpose == Purpose.NONE


def test_refused_when_mated_is_unplugged(station):
    linking(station)
    station(authorization=Authorization.REFUSED, link=Link.IDLE)
    assert station.s.phase == Phase.GRASPED
    assert station.s.stop_reason == "DeAuthorized"


def test_an_insulation_fault_is_never_retried(station):
    cable_check(station)
    assert station(insulation=Insulation.FAULT, insulation_permit=7) == Phase.STOPPING
    assert station.s.fault == Code.INSULATION
    assert not station.s.replug


def test_an_old_insulation_result_counts_for_nothing(station):
    cable_check(station)
    station(insulation=Insulation.VALID, insulation_permit=6)
    assert not station.s.insulation_passed


@pytest.mark.parametrize(
    "told",
    [
        dict(insulation=Insulation.SELF_TEST_FAILED, insulation_permit=7),
        dict(fault=Code.INSULATION_SELF_TEST, severity=Severity.STOP),
    ],
    ids=["by its result", "by its fault"],
)
def test_a_failed_self_test_is_replugged_once(station, told):
    cable_check(station)
    station(**told)
    assert station.s.retrying
    station(fault=Code.NONE, severity=Severity.WARNING)
    station(link=Link.ENDED, pilot=Pilot.B, contactors_closed=False, target=Purpose.NONE, insulation=Insulation.UNKNOWN)
    station(goal_grasped=True)
    assert station.s.phase == Phase.DISCONNECTING and station.s.retrying
    assert station.goal(pilot=Pilot.A) == Phase.CONNECTING
    assert station.s.replugs == 1
    assert station.s.fault == Code.NONE and station.s.retrying


@pytest.mark.parametrize(
    "change, fault",
    [
        (dict(pilot=Pilot.A), Code.VEHICLE_GONE),
        (dict(power_alive=False, contactors_closed=True), Code.NODE_LOST),
        (dict(pilot_alive=False), Code.NODE_LOST),
        (dict(link_alive=False, link=Link.IDLE), Code.NODE_LOST),
        (dict(target_live=False), Code.V2G_SILENT),
        (dict(link=Link.FAILED, link_error=int(Code.V2G_TIMEOUT)), Code.V2G_TIMEOUT),
        (dict(fault=Code.INSULATION_CHARGING, severity=Severity.STOP), Code.INSULATION_CHARGING),
    ],
)
def test_what_the_session_needs_and_loses_stops_it(station, change, fault):
    charging(station)
    assert station(**change) == Phase.STOPPING
    assert station.command.purpose == Purpose.NONE
    assert station.s.fault == fault
    assert station.s.shutdown == Shutdown.ERROR


def test_a_lost_link_with_an_empty_pilot_is_a_vehicle_gone(station):
    charging(station)
    station(link=Link.FAILED, link_error=int(Code.LINK_LOST))
    assert station.s.fault == Code.LINK_LOST
    station(pilot=Pilot.A)
    assert (station.s.fault, station.s.stop_reason) == (Code.VEHICLE_GONE, "EVDisconnected")


def test_the_session_goes_on_without_the_arm_and_with_a_derating(station):
    charging(station)
    station(robot_alive=False, fault=Code.MODULE_LOST, severity=Severity.DERATE)
    assert station.s.phase == Phase.CHARGING
    assert station.command.purpose == Purpose.TRANSFER


def test_emergency_latches_until_reset_and_reset_starts_nothing(station):
    charging(station)
    assert station(emergency_stop=True) == Phase.FAULTED
    assert station.command.abrupt and station.command.purpose == Purpose.NONE
    assert station.command.zone == Zone.NONE
    assert station.command.pilot == PilotMode.F
    assert flow.reset(station.s, station.i, station.now)[1], "still pressed"
    station(emergency_stop=False, contactors_closed=False, voltage_v=0.0, current_a=0.0)
    assert station.s.phase == Phase.FAULTED
    station.s, refusal = flow.reset(station.s, station.i, station.now)
    assert not refusal
    assert station.s.phase == Phase.STOPPING
    assert station.command.purpose == Purpose.NONE


def test_the_back_end_resets_a_fault_and_no_emergency(station):
    charging(station)
    station(emergency_stop=True)
    station(emergency_stop=False, contactors_closed=False, voltage_v=0.0, current_a=0.0)
    for unlock in (False, True):
        same, refusal = flow.reset_from_afar(station.s, station.i, station.now, unlock)
        assert same == station.s and "on site" in refusal
    faulted = replace(station.s, emergency_latched=False)
    plugged, refusal = flow.reset_from_afar(faulted, station.i, station.now, unlock=True)
    assert not refusal and plugged.phase == Phase.STOPPING  # the robot takes the plug out
    free = replace(station.i, plug_in_inlet=False)
    assert flow.reset_from_afar(replace(faulted, mated=False), free, station.now, unlock=True)[1]
    assert flow.reset_from_afar(replace(faulted, mated=False), free, station.now)[0].phase == Phase.DEPARTING
    assert flow.reset_from_afar(replace(faulted, phase=Phase.CHARGING), station.i, station.now)[1]


def test_stop_asked_lets_the_vehicle_end_and_insists(station):
    charging(station)
    assert station(stop_asked="Remote") == Phase.CHARGING
    assert station.s.stop_requested_at > 0
    assert station.command.purpose == Purpose.TRANSFER
    assert station(after=LIMITS.vehicle_stop_s + 1) == Phase.STOPPING
    assert station.s.stop_reason == "Remote"


def test_a_sleeping_vehicle_is_called_once_by_state_f(station):
    linking(station)
    assert station.command.pilot == PilotMode.PWM
    station(after=LIMITS.wake_after_s + 0.1)
    assert station.command.pilot == PilotMode.PULSE_F
    station(after=LIMITS.wake_pulse_s + 0.1)
    assert (station.command.pilot, station.command.duty) == (PilotMode.PWM, pytest.approx(0.05))
    station(after=LIMITS.wake_after_s + 0.1)
    assert station.command.pilot == PilotMode.PWM and station.s.phase == Phase.LINKING


def test_a_vehicle_that_talks_is_not_called(station):
    linking(station)
    station(link=Link.SESSION, link_session=ID, after=LIMITS.wake_after_s + 0.1)
    assert station.command.pilot == PilotMode.PWM


def test_a_silent_bay_sensor_is_no_departure(station):
    charging(station)
    station(link=Link.STOPPING, target=Purpose.NONE, current_a=0.0, contactors_closed=False, voltage_v=0.0)
    assert station(bay_alive=False, occupied=False, immobilised=False) == Phase.STOPPING
    assert station(bay_alive=True) == Phase.FAULTED
    assert station.s.fault == Code.VEHICLE_GONE


inputs = st.builds(
    Inputs,
    nodes_ready=st.booleans(),
    safety_alive=st.booleans(),
    emergency_stop=st.booleans(),
    bay_alive=st.booleans(),
    occupied=st.booleans(),
    immobilised=st.booleans(),
    field_clear=st.booleans(),
    pilot_alive=st.booleans(),
    pilot=st.sampled_from("ABCDEF?"),
    power_alive=st.booleans(),
    supply_available=st.booleans(),
    contactors_closed=st.booleans(),
    voltage_v=st.sampled_from([0.0, 59.0, 61.0, 400.0]),
    current_a=st.sampled_from([0.0, 4.0, 6.0, -6.0]),
    insulation=st.sampled_from(Insulation),
    insulation_permit=st.integers(0, 8),
    link_alive=st.booleans(),
    link=st.sampled_from(Link),
    link_session=st.sampled_from(["", ID]),
    target=st.sampled_from(Purpose),
    target_live=st.booleans(),
    lock=st.sampled_from(Lock),
    robot_alive=st.booleans(),
    robot_clear=st.booleans(),
    goal_error=st.sampled_from([0, 0, 7, 13]),
    authorization=st.sampled_from(Authorization),
    stop_asked=st.sampled_from(["", "Remote"]),
    fault=st.sampled_from([Code.NONE, Code.MODULE_LOST, Code.EMERGENCY_STOP]),
    severity=st.sampled_from(Severity),
)
GOOD = dict(
    nodes_ready=True, safety_alive=True, emergency_stop=False, field_clear=True, power_alive=True, fault=Code.NONE,
    supply_available=True, robot_alive=True, pilot_alive=True, link_alive=True, stop_asked="", link_session=ID,
)  # fmt: skip


@settings(max_examples=300)
@given(st.lists(st.tuples(inputs, st.booleans(), st.booleans(), st.sampled_from([0.1, 5.0, 200.0])), max_size=25))
def test_interlocks_hold_over_any_history(history):
    """Interlocks 1, 2, 3 and 6 over arbitrary inputs; half of them mostly well, so that deep phases are reached."""
    s, now = Session(), 0.0
    passed_since_mating = False
    for i, well, goal_over, pause in history:
        if well:
            i = replace(i, **GOOD)
        if goal_over:
            i = replace(i, goal_done=s.goal_number)
        now += pause
        before = s
        s, _ = flow.step(s, i, now, LIMITS)
        if s.phase == Phase.POSITIONING and not s.session_id:
            s = replace(s, session_id=ID)
        command = flow.command(s, i, LIMITS)
        if command.purpose == Purpose.INSULATION_TEST and not s.test_permit:
            s = replace(s, test_permit=7)
        if s.mated and not before.mated:
            passed_since_mating = False
        if s.phase == Phase.CABLE_CHECK and i.insulation in (Insulation.VALID, Insulation.WARNING):
            passed_since_mating = passed_since_mating or i.insulation_permit >= s.test_permit > 0
        if command.zone == Zone.CONTACT:
            assert interlocks.output_is_safe(i) and i.field_clear and i.immobilised and not i.emergency_stop
            assert command.purpose == Purpose.NONE
        if command.purpose != Purpose.NONE:
            assert s.mated and i.target_live and i.pilot in "CD" and i.safety_alive and not i.emergency_stop
            assert command.zone == Zone.NONE
        if command.purpose in (Purpose.PRECHARGE, Purpose.TRANSFER):
            assert i.lock == Lock.LOCKED and passed_since_mating
        if before.emergency_latched:
            assert s.emergency_latched and command.purpose == Purpose.NONE and command.zone == Zone.NONE
        assert (s.goal != Goal.NONE) <= (command.goal_number > 0)


def test_no_match_wakes_the_vehicle_before_the_plug_comes_out(station):
    linking(station)
    station(link=Link.MATCHING, link_session=ID)
    assert station(link=Link.FAILED, link_error=int(Code.SLAC_FAILED)) == Phase.LINKING
    assert station.command.pilot == PilotMode.PULSE_F
    assert station(after=2.0, pilot=Pilot.F, link=Link.MATCHING, link_error=0) == Phase.LINKING
    assert station.command.pilot == PilotMode.PULSE_F
    assert station(after=LIMITS.wake_pulse_s, pilot=Pilot.B) == Phase.LINKING
    assert (station.command.pilot, station.s.wakes) == (PilotMode.PWM, 1)
    assert station(link=Link.FAILED, link_error=int(Code.SLAC_FAILED)) == Phase.GRASPED  # once only: now a replug
    assert station.s.replug


def test_another_failure_of_the_link_wakes_nobody(station):
    linking(station)
    assert station(link=Link.FAILED, link_session=ID, link_error=int(Code.V2G_TLS)) == Phase.GRASPED
    assert station.s.wakes == 0


def paused(s: Station) -> Station:
    charging(s)
    s(link=Link.STOPPING, target=Purpose.NONE, current_a=0.0, contactors_closed=False, voltage_v=0.0, pilot=Pilot.B)
    assert s.s.phase == Phase.STOPPING
    assert s(link=Link.PAUSED) == Phase.LINKING
    return s


def test_a_pause_keeps_the_plug_in_and_voids_the_insulation_result(station):
    paused(station)
    assert station(after=600.0) == Phase.LINKING, "a pause has its own limit"
    assert (station.s.shutdown, station.s.insulation_passed) == (Shutdown.NONE, False)
    station(link=Link.SESSION)
    assert not station.s.paused
    station(pilot=Pilot.C, link=Link.CABLE_CHECK, target=Purpose.INSULATION_TEST, insulation=Insulation.UNKNOWN)
    assert station.s.phase == Phase.CABLE_CHECK
    assert station.command.purpose == Purpose.INSULATION_TEST


def test_a_vehicle_that_paused_for_lack_of_power_is_called_when_there_is_some(station):
    charging(station)
    station(power_left=False)
    stopped = {"target": Purpose.NONE, "current_a": 0.0, "contactors_closed": False, "voltage_v": 0.0, "pilot": "B"}
    station(link=Link.STOPPING, **stopped)
    assert station(link=Link.PAUSED) == Phase.LINKING
    assert station(after=600.0) == Phase.LINKING and station.command.pilot == PilotMode.PWM
    station(power_left=True)
    assert station.command.pilot == PilotMode.PULSE_F
    station(after=5.0)
    assert station.command.pilot == PilotMode.PWM, "once"
    station(after=60.0, power_left=False)
    station(after=60.0, power_left=True)
    assert station.command.pilot == PilotMode.PWM, "and not again in the same pause"
    station(link=Link.SESSION)
    assert not station.s.paused and not station.s.starved


def test_a_vehicle_that_paused_by_itself_is_not_called(station):
    station(power_left=True)
    paused(station)
    station(power_left=False)
    station(power_left=True)
    assert station.command.pilot == PilotMode.PWM


@pytest.mark.parametrize("how", [{"after": 3601.0}, {"stop_asked": "Remote"}], ids=["too long", "stop asked"])
def test_a_pause_ends_with_the_plug_out(station, how):
    assert paused(station)(**how) == Phase.STOPPING
    assert station(stop_asked="", link=Link.ENDED) == Phase.GRASPED
    assert station.s.fault == Code.NONE and station.s.shutdown == Shutdown.NORMAL


def test_a_renegotiation_goes_back_to_the_cable_check(station):
    charging(station)
    assert station(link=Link.PARAMETERS, link_session=ID, target=Purpose.NONE, current_a=80.0) == Phase.LINKING
    assert station.command.purpose == Purpose.NONE and not station.s.insulation_passed
    again = {"link": Link.CABLE_CHECK, "target": Purpose.INSULATION_TEST, "insulation": Insulation.UNKNOWN}
    assert station(**again) == Phase.LINKING, "not before the output is safe"
    assert station(current_a=0.0, contactors_closed=False, voltage_v=0.0) == Phase.CABLE_CHECK
    assert station.command.purpose == Purpose.INSULATION_TEST


def test_a_vehicle_that_was_asked_to_stop_does_not_renegotiate(station):
    charging(station)
    station(stop_asked="Remote")
    assert station(link=Link.PARAMETERS, link_session=ID, target=Purpose.NONE) == Phase.CHARGING
    assert station.s.stop_requested_at >= 0


def test_a_service_chosen_anew_goes_back_to_the_cable_check(station):
    """ISO 15118-20: the vehicle has stopped, and goes on in the same session with another service."""
    charging(station)
    assert station(link=Link.STOPPING, link_session=ID, target=Purpose.NONE) == Phase.STOPPING
    assert station(link=Link.PARAMETERS) == Phase.STOPPING, "not before the output is safe"
    safe = {"current_a": 0.0, "contactors_closed": False, "voltage_v": 0.0}
    assert station(**safe) == Phase.LINKING
    assert (station.s.shutdown, station.s.stop_reason, station.s.insulation_passed) == (Shutdown.NONE, "", False)
    again = {"link": Link.CABLE_CHECK, "target": Purpose.INSULATION_TEST, "insulation": Insulation.UNKNOWN}
    assert station(**again, pilot=Pilot.C) == Phase.CABLE_CHECK


def test_a_vehicle_that_was_asked_to_stop_chooses_no_service_anew(station):
    charging(station)
    station(stop_asked="Remote")
    station(link=Link.STOPPING, link_session=ID, target=Purpose.NONE)
    assert station(link=Link.PARAMETERS, current_a=0.0, contactors_closed=False, voltage_v=0.0) == Phase.STOPPING


# ACDP: the conversation comes before the plug.
@pytest.fixture
def device() -> Station:
    station = Station(Limits(talks_first=True))
    assert station() == Phase.IDLE
    return station


def asking(s: Station) -> Station:
    """Parked, authorised, and the vehicle asks for the plug."""
    s(occupied=True, immobilised=True, link=Link.SESSION, link_session=ID)
    assert s(authorization=Authorization.ACCEPTED, link=Link.PARAMETERS) == Phase.POSITIONING
    assert s.command.goal == Goal.NONE
    assert s(link=Link.CONNECTING) == Phase.CONNECTING
    return s


def test_acdp_plugs_in_and_out_when_the_vehicle_asks(device):
    asking(device).goal(pilot=Pilot.B)
    assert device.goal() == Phase.LINKING
    device(link=Link.CABLE_CHECK, pilot=Pilot.C, lock=Lock.LOCKED, target=Purpose.INSULATION_TEST, target_live=True)
    assert device.s.phase == Phase.CABLE_CHECK
    device(insulation=Insulation.VALID, insulation_permit=7)
    device(link=Link.PRECHARGE, target=Purpose.PRECHARGE)
    assert device(link=Link.CHARGING, target=Purpose.TRANSFER, contactors_closed=True) == Phase.CHARGING
    assert device(link=Link.STOPPING, target=Purpose.NONE, contactors_closed=False, pilot=Pilot.B) == Phase.STOPPING
    assert device(after=2.0) == Phase.STOPPING, "the vehicle has not asked for it"
    assert device(link=Link.DISCONNECTING, lock=Lock.UNLOCKED) == Phase.GRASPED
    assert device.command.zone == Zone.CONTACT
    device(goal_grasped=True)
    assert device.goal(pilot=Pilot.A) == Phase.DEPARTING
    assert (device.s.shutdown, device.s.fault) == (Shutdown.NORMAL, Code.NONE)


def test_acdp_ends_when_the_arm_that_holds_the_plug_no_longer_follows_it():
    device = Station(Limits(talks_first=True, follows=True))
    device()
    asking(device).goal(pilot=Pilot.B, robot_clear=False)
    assert device.goal(robot_following=True) == Phase.LINKING
    assert device(after=1.0) == Phase.LINKING
    assert device.command.follow
    assert device(robot_following=False) == Phase.STOPPING
    assert (device.s.shutdown, device.s.fault) == (Shutdown.ERROR, Code.ROBOT_ARM)


def test_acdp_moves_no_arm_to_a_vehicle_that_is_refused_or_gives_up(device):
    device(occupied=True, immobilised=True, link=Link.SESSION, link_session=ID)
    assert device(authorization=Authorization.REFUSED) == Phase.DEPARTING
    assert (device.s.stop_reason, device.s.goal) == ("DeAuthorized", Goal.NONE)


@pytest.mark.parametrize(
    "link, error, shutdown, fault",
    [
        (Link.ENDED, 0, Shutdown.NORMAL, Code.NONE),
        (Link.FAILED, int(Code.V2G_TLS), Shutdown.ERROR, Code.V2G_TLS),
        (Link.FAILED, 0, Shutdown.ERROR, Code.LINK_LOST),
    ],
)
def test_acdp_a_conversation_that_ends_before_contact(device, link, error, shutdown, fault):
    device(occupied=True, immobilised=True, link=Link.SESSION, link_session=ID)
    assert device(link=link, link_error=error) == Phase.DEPARTING
    assert (device.s.shutdown, device.s.fault, device.s.goal) == (shutdown, fault, Goal.NONE)


def test_acdp_a_link_lost_under_way_brings_the_plug_home(device):
    asking(device)
    wanted = device.s.goal_number
    assert device(link_alive=False) == Phase.CONNECTING, "nothing is live yet: a moment's silence is borne"
    assert device(link_gone=True) == Phase.GRASPED
    assert (device.command.goal, device.command.goal_number) == (Goal.DISCONNECT, wanted + 1)
    assert device.command.purpose == Purpose.NONE
    device(goal_done=wanted, goal_error=16)  # the robot says that the first goal was cancelled
    assert device.s.phase == Phase.GRASPED
    device.goal()
    assert device.goal() == Phase.DEPARTING
    assert device.s.fault == Code.LINK_LOST


def test_acdp_does_not_plug_in_again_by_itself(device):
    asking(device).goal(pilot=Pilot.B)
    assert device.goal() == Phase.LINKING
    assert device(link=Link.FAILED, link_error=int(Code.V2G_SILENT)) != Phase.CONNECTING
    assert not device.s.replug
