"""When a transaction starts and ends, with injected time."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_charger import msg
from robot_charger.backend.records import Now, Outcome, Request, Token, TransactionLimit
from robot_charger.backend.transactions import Transactions, TransactionSettings
from robot_charger.words.values import Phase

from .conftest import SESSION, TAG, Desk, at, reading, view


def test_requests_have_the_numbers_of_the_message() -> None:
    for kind in Request:
        assert getattr(msg.BackendRequest, f"KIND_{kind.name}") == kind


def test_a_whole_session(desk: Desk) -> None:
    desk.charge(1000.0, 2000.0)
    records = desk.records
    assert [r.event for r in records] == ["Started", *["Updated"] * (len(records) - 2), "Ended"]
    assert [r.seq_no for r in records] == list(range(len(records)))
    start, end = records[0], records[-1]
    assert start.transaction_id == SESSION and start.token == TAG
    assert start.trigger == "CablePluggedIn"  # authorised while the arm was still on its way
    assert [(r.context, r.import_wh) for r in start.readings] == [("Transaction.Begin", 1000.0)]
    assert end.stopped_reason == "StoppedByEV"
    assert [(r.context, r.import_wh) for r in end.readings] == [
        ("Transaction.Begin", 1000.0),
        ("Transaction.End", 2000.0),
    ]
    assert [r.charging_state for r in records] == ["EVConnected", "Charging", "EVConnected", "EVConnected"]
    assert end.seconds_charging == 10
    assert desk.store.open_transactions() == []


def test_refused_when_mated_makes_no_transaction(desk: Desk) -> None:
    desk.meter(10.0)
    for phase in (Phase.POSITIONING, Phase.MATED, Phase.LINKING, Phase.STOPPING, Phase.GRASPED):
        desk.phase(phase, accepted=False)
    desk.phase(Phase.IDLE)
    assert desk.records == []


def test_authorised_after_plugging_says_so(desk: Desk) -> None:
    desk.meter(10.0)
    desk.phase(Phase.MATED, accepted=False)
    desk.phase(Phase.LINKING, accepted=False)
    desk.authorize()
    desk.phase(Phase.LINKING)
    assert [(r.event, r.trigger) for r in desk.records] == [("Started", "Authorized")]


def test_the_end_waits_for_the_register_after_the_current_is_zero(desk: Desk) -> None:
    desk.meter(10.0)
    desk.phase(Phase.LINKING)
    desk.phase(Phase.CHARGING)
    desk.meter(500.0, 100.0, t=5.0)
    desk.phase(Phase.FAULTED, t=6.0, stop_reason="EmergencyStop")
    desk.meter(510.0, 40.0, t=6.1)  # still falling
    assert desk.records[-1].event == "Updated"
    desk.meter(512.0, 0.0, t=6.3)
    end = desk.records[-1]
    assert (end.event, end.stopped_reason, end.trigger) == ("Ended", "EmergencyStop", "AbnormalCondition")
    assert end.readings[-1].import_wh == 512.0


def test_a_register_older_than_the_end_is_not_the_final_one(desk: Desk) -> None:
    desk.meter(10.0)
    desk.phase(Phase.LINKING)
    desk.phase(Phase.CHARGING)
    desk.meter(500.0, 0.0, t=5.0)
    desk.phase(Phase.GRASPED, t=6.0)
    assert desk.records[-1].event == "Updated"
    desk.meter(501.0, 0.0, t=6.1)
    assert desk.records[-1].readings[-1].import_wh == 501.0


def test_a_dead_meter_delays_the_end_but_does_not_prevent_it(desk: Desk) -> None:
    desk.meter(10.0)
    desk.phase(Phase.LINKING)
    desk.meter(300.0, 100.0, t=5.0)
    desk.phase(Phase.GRASPED, t=6.0)
    desk.meter(0.0, 0.0, t=6.5, valid=False)
    desk.station.tick(at(6.0 + desk.station.transaction_settings.final_meter_s - 0.1))
    assert desk.records[-1].event == "Started"
    desk.station.tick(at(6.0 + desk.station.transaction_settings.final_meter_s))
    assert desk.records[-1].event == "Ended"
    assert desk.records[-1].readings[-1].import_wh == 300.0


def test_periodic_samples_keep_their_grid(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "s.sqlite", sample_s=10)
    desk.meter(10.0)
    desk.phase(Phase.LINKING, t=0.0)
    for tenth in range(1, 351):
        desk.station.tick(at(tenth / 10))
    periodic = [r for r in desk.records if r.trigger == "MeterValuePeriodic"]
    assert [r.time for r in periodic] == [at(10.0).iso, at(20.0).iso, at(30.0).iso]


def test_export_registers_are_kept(desk: Desk) -> None:
    desk.meter(100.0, export_wh=5.0)
    desk.phase(Phase.LINKING)
    desk.phase(Phase.GRASPED, t=1.0)
    desk.meter(100.0, t=1.1, export_wh=25.0)
    assert [r.export_wh for r in desk.records[-1].readings] == [5.0, 25.0]


def test_remote_start_is_told_with_its_id(desk: Desk) -> None:
    desk.meter(10.0)
    desk.phase(Phase.IDLE)
    accepted, reason, _ = desk.station.request_start(Token("CAFE", "Central"), 1, 77, "", desk.now)
    assert (accepted, reason) == (True, "")
    assert desk.outside.requests == []  # it waits for a vehicle here, not in the EVSE
    desk.phase(Phase.POSITIONING, accepted=False)
    desk.phase(Phase.CONNECTING, accepted=False)
    [request] = desk.outside.requests
    assert (request.kind, request.token, request.authorized) == (Request.START, Token("CAFE", "Central"), True)
    assert request.session_id == SESSION
    desk.phase(Phase.POSITIONING)
    desk.phase(Phase.LINKING)
    start = desk.records[0]
    assert (start.trigger, start.remote_start_id, start.token) == ("RemoteStart", 77, Token("CAFE", "Central"))


def test_a_token_serves_one_session_only(desk: Desk) -> None:
    desk.charge()
    other = SESSION.replace("0001", "0002")
    desk.phase(Phase.POSITIONING, session_id=other)
    desk.phase(Phase.LINKING, session_id=other)
    assert desk.records[-1].event == "Started" and desk.records[-1].token is None


def test_a_session_gets_one_transaction(desk: Desk) -> None:
    desk.charge()
    count = len(desk.records)
    desk.phase(Phase.LINKING)  # the same session, seen again
    assert len(desk.records) == count


def test_a_plug_that_is_only_inspected_ends_no_transaction(desk: Desk) -> None:
    """Cable check failed by the monitor alone: unplugged, plugged in again, charged. One bill, and all of it."""
    desk.meter(1000.0)
    for phase in (Phase.POSITIONING, Phase.MATED, Phase.LINKING, Phase.CABLE_CHECK):
        desk.phase(phase)
    retry = (Phase.STOPPING, Phase.GRASPED, Phase.DISCONNECTING, Phase.CONNECTING, Phase.MATED, Phase.RELEASED)
    for second, phase in enumerate(retry, 5):
        desk.phase(phase, 3.0 * second, retrying=True)
    for second, phase in enumerate((Phase.LINKING, Phase.CABLE_CHECK, Phase.PRECHARGE, Phase.CHARGING), 50):
        desk.phase(phase, second)
    desk.meter(1600.0, 100.0, t=60.0)
    desk.phase(Phase.STOPPING, 61.0, stop_reason="StoppedByEV")
    desk.phase(Phase.GRASPED, 62.0, stop_reason="StoppedByEV")
    desk.meter(1700.0, t=62.5)
    assert [r.event for r in desk.records if r.event != "Updated"] == ["Started", "Ended"]
    assert [(r.context, r.import_wh) for r in desk.records[-1].readings] == [
        ("Transaction.Begin", 1000.0),
        ("Transaction.End", 1700.0),
    ]
    assert {r.transaction_id for r in desk.records} == {SESSION}


def test_a_second_try_that_fails_ends_the_transaction(desk: Desk) -> None:
    desk.meter(1000.0)
    desk.phase(Phase.LINKING)
    desk.phase(Phase.DISCONNECTING, 10.0, retrying=True)
    desk.phase(Phase.CONNECTING, 20.0, retrying=True)
    assert desk.station.evses[1].open is not None
    desk.phase(Phase.DEPARTING, 30.0, stop_reason="Other")
    desk.meter(1000.0, t=31.0)
    assert desk.records[-1].event == "Ended" and desk.records[-1].stopped_reason == "Other"


# Limits of a transaction (2.1 E16).
def limited(desk: Desk, limit: TransactionLimit) -> None:
    """Charging since second 0 at 1,000 Wh and 40 %, and limited by the answer to its start."""
    desk.meter(1000.0, soc=40.0)
    for phase in (Phase.LINKING, Phase.CHARGING):
        desk.phase(phase)
    desk.station.delivered(desk.records[0], Outcome(limit=limit), desk.now)


def stops(desk: Desk, t: float) -> list[str]:
    desk.t = t
    desk.station.tick(desk.now)
    return [r.session_id for r in desk.outside.requests if r.kind == Request.STOP]


def ended(desk: Desk) -> tuple[str, str]:
    desk.phase(Phase.GRASPED, desk.t + 1, stop_reason="Remote")
    desk.meter(5000.0, t=desk.t + 0.2)
    return desk.records[-1].stopped_reason, desk.records[-1].trigger


@pytest.mark.parametrize(
    "limit,reason",
    [
        (TransactionLimit(energy_wh=500.0), "EnergyLimitReached"),
        (TransactionLimit(seconds=60.0), "TimeLimitReached"),
        (TransactionLimit(soc=80.0), "SOCLimitReached"),
        (TransactionLimit(cost=12.5), "LocalOutOfCredit"),
    ],
)
def test_a_limit_of_the_transaction_ends_it(desk: Desk, limit: TransactionLimit, reason: str) -> None:
    limited(desk, limit)
    told = [r for r in desk.records if r.limit]
    assert [(r.trigger, r.limit) for r in told] == [("LimitSet", limit)]
    desk.station.delivered(told[0], Outcome(limit=limit), desk.now)  # said again
    desk.meter(1499.0, 100.0, t=59.9, soc=79.0)
    desk.station.cost(SESSION, 12.4)
    assert stops(desk, 59.9) == []
    desk.meter(1500.0, 100.0, t=60.0, soc=80.0)
    desk.station.cost(SESSION, 12.5)
    assert stops(desk, 60.0) == stops(desk, 60.1) == [SESSION]  # asked once
    assert len([r for r in desk.records if r.limit]) == 1
    assert ended(desk)[0] == reason


def test_a_limit_may_rise_or_go_before_it_is_reached(desk: Desk) -> None:
    limited(desk, TransactionLimit(energy_wh=500.0, seconds=60.0))
    desk.station.delivered(desk.records[1], Outcome(limit=TransactionLimit(energy_wh=900.0)), desk.now)
    desk.meter(1600.0, 100.0, t=100.0)
    assert stops(desk, 100.0) == []
    desk.station.delivered(desk.records[1], Outcome(limit=TransactionLimit()), desk.now)
    desk.meter(2000.0, 100.0, t=200.0)
    assert stops(desk, 200.0) == []
    assert [r.limit for r in desk.records if r.trigger == "LimitSet"][1:] == [
        TransactionLimit(energy_wh=900.0),
        TransactionLimit(),
    ]
    assert desk.station.evses[1].open
    desk.phase(Phase.GRASPED, 201.0, stop_reason="StoppedByEV")
    desk.meter(2000.0, t=201.1)
    desk.station.delivered(desk.records[-2], Outcome(limit=TransactionLimit(energy_wh=1.0)), desk.now)
    assert desk.records[-1].stopped_reason == "StoppedByEV"  # a late answer finds nothing to limit


def test_the_answers_to_a_told_limit_are_not_told(desk: Desk) -> None:
    """A CSMS that thinks of another limit with every answer is not asked for more of them."""
    limited(desk, TransactionLimit(seconds=60.0))
    [told] = [r for r in desk.records if r.limit]
    desk.station.delivered(told, Outcome(limit=TransactionLimit(seconds=59.0)), desk.now)
    assert [r for r in desk.records if r.limit] == [told]
    assert stops(desk, 58.9) == [] and stops(desk, 59.0) == [SESSION]


def test_a_limit_outlives_a_restart_and_time_counts_on(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "store.sqlite")
    limited(desk, TransactionLimit(seconds=60.0, energy_wh=500.0))
    desk.store.close()
    again = Desk(tmp_path / "store.sqlite")
    again.station.recover(at(30.0))
    again.phase(Phase.CHARGING, 30.0)
    assert stops(again, 59.0) == [] and stops(again, 60.0) == [SESSION]
    again.phase(Phase.GRASPED, 61.0, stop_reason="Remote")
    again.meter(1300.0, t=61.1)
    assert again.records[-1].stopped_reason == "TimeLimitReached"
    again.store.close()


# After a restart of the process.
def half(path: Path, boot_id: str = "boot-1") -> Desk:
    """A desk whose process died while charging at 700 Wh."""
    desk = Desk(path, boot_id=boot_id)
    desk.meter(500.0)
    desk.authorize()
    desk.phase(Phase.LINKING, t=1.0)
    desk.phase(Phase.CHARGING, t=2.0)
    desk.meter(700.0, 100.0, t=3.0)
    desk.station.evses[1].sample("Trigger", "Trigger", desk.now)
    desk.store.close()
    return desk


def test_a_session_that_outlived_the_restart_goes_on(tmp_path: Path) -> None:
    half(tmp_path / "s.sqlite")
    desk = Desk(tmp_path / "s.sqlite")
    desk.station.recover(at(10))
    desk.meter(900.0, 100.0, t=10.0)
    desk.phase(Phase.CHARGING, t=10.5)
    desk.phase(Phase.GRASPED, t=11.0, stop_reason="Local")
    desk.meter(950.0, t=11.2)
    records = desk.records
    assert [r.seq_no for r in records] == list(range(len(records)))
    assert [r.event for r in records].count("Started") == 1
    assert (records[-1].event, records[-1].readings[-1].import_wh) == ("Ended", 950.0)
    assert records[-1].token == TAG


def test_after_a_power_cut_it_ends_with_the_register_of_now(tmp_path: Path) -> None:
    half(tmp_path / "s.sqlite")
    desk = Desk(tmp_path / "s.sqlite", boot_id="boot-2")
    desk.station.recover(at(60))
    desk.phase(Phase.IDLE, t=61.0)
    assert desk.records[-1].event == "Updated"
    desk.meter(712.0, t=61.5)
    end = desk.records[-1]
    assert (end.event, end.stopped_reason, end.readings[-1].import_wh) == ("Ended", "PowerLoss", 712.0)
    assert desk.store.open_transactions() == []


def test_after_a_crash_of_the_process_alone_the_session_tells_the_reason(tmp_path: Path) -> None:
    half(tmp_path / "s.sqlite")
    desk = Desk(tmp_path / "s.sqlite")
    desk.station.recover(at(60))
    desk.phase(Phase.FAULTED, t=61.0, stop_reason="GroundFault")
    desk.meter(720.0, t=61.5)
    assert (desk.records[-1].stopped_reason, desk.records[-1].readings[-1].import_wh) == ("GroundFault", 720.0)


def test_another_session_meanwhile_takes_the_last_kept_register(tmp_path: Path) -> None:
    half(tmp_path / "s.sqlite")
    desk = Desk(tmp_path / "s.sqlite")
    desk.station.recover(at(60))
    desk.meter(990.0, t=60.0)
    desk.phase(Phase.LINKING, t=61.0, session_id="another")
    end = next(r for r in desk.records if r.event == "Ended")
    assert (end.stopped_reason, end.readings[-1].import_wh) == ("Reboot", 700.0)
    start = desk.records[-1]
    assert (start.event, start.transaction_id, start.readings[0].import_wh) == ("Started", "another", 990.0)


def test_without_a_word_of_the_session_it_ends_in_the_end(tmp_path: Path) -> None:
    half(tmp_path / "s.sqlite")
    desk = Desk(tmp_path / "s.sqlite", boot_id="boot-2")
    desk.station.recover(at(60))
    desk.station.tick(at(60 + desk.station.transaction_settings.recovery_s - 1))
    assert desk.records[-1].event == "Updated"
    for second in range(5):
        desk.station.tick(at(60 + desk.station.transaction_settings.recovery_s + second))
    end = desk.records[-1]
    assert (end.event, end.stopped_reason, end.readings[-1].import_wh) == ("Ended", "PowerLoss", 700.0)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(list(Phase)),
            st.booleans(),
            st.booleans(),
            st.sampled_from(["a", "b", ""]),
            st.floats(0.01, 20.0),
            st.sampled_from([0.0, 50.0]),
        ),
        max_size=60,
    )
)
def test_any_walk_through_the_phases_keeps_the_books(steps: list[tuple[Phase, bool, bool, str, float, float]]) -> None:
    """Started first, numbers without a gap, Ended last, registers that never fall."""
    records = []
    evse = Transactions(1, TransactionSettings(), lambda record, transaction: records.append(record))
    t, register = 0.0, 0.0
    for phase, accepted, output, session_id, seconds, current in steps:
        t += seconds
        register += current
        evse.meter(reading(t, register, current), at(t))
        evse.session(view(phase, t, accepted, session_id, output_on=output), at(t))
        evse.tick(Now(at(t + 4.0).mono_ns, at(t + 4.0).wall))
    by_transaction: dict[str, list] = {}
    order: list[str] = []
    for record in records:
        if record.event == "Started":
            assert not order or by_transaction[order[-1]][-1].event == "Ended"
            order.append(record.transaction_id + str(len(order)))
            by_transaction[order[-1]] = []
        by_transaction[order[-1]].append(record)
    for one in by_transaction.values():
        assert [r.seq_no for r in one] == list(range(len(one)))
        assert [r.event for r in one[1:-1]] == ["Updated"] * len(one[1:-1])
        registers = [reading.import_wh for r in one for reading in r.readings[-1:]]
        assert registers == sorted(registers)
