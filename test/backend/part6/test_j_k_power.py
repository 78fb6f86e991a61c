"""Part 6, blocks J and K: meter values and charging profiles."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from robot_charger.words.values import Phase

from .conftest import SESSION, TAG, Rig, Rigs

IMPORT = "Energy.Active.Import.Register"


def measurands(payload: dict[str, Any], context: str = "") -> set[str]:
    return {
        v["measurand"]
        for m in payload.get("meterValue", [])
        for v in m["sampledValue"]
        if context in ("", v.get("context"))
    }


def of_event(one: Rig, **fields: Any) -> list[dict[str, Any]]:
    return one.came("TransactionEvent", **fields)


@pytest.mark.parametrize("version", ["1.6", "2.0.1"])
def test_j_01_an_idle_meter_is_read_by_the_clock(rig: Rigs, version: str) -> None:
    one = rig(version)
    one.read_meter(123.0)
    if version == "1.6":
        assert one.configure("MeterValuesAlignedData", IMPORT) == "Accepted"
        assert one.configure("ClockAlignedDataInterval", 1) == "Accepted"
    else:
        assert one.set("AlignedDataCtrlr", "Measurands", IMPORT) == "Accepted"
        assert one.set("AlignedDataCtrlr", "Interval", 1) == "Accepted"
    for payload in one.came("MeterValues", 2):
        assert measurands(payload) == {IMPORT} and measurands(payload, "Sample.Clock") == {IMPORT}


@pytest.mark.parametrize("version", ["1.6", "2.0.1"])
def test_j_02_a_transaction_has_the_measurands_of_the_clock(rig: Rigs, version: str) -> None:
    one = rig(version)
    if version == "1.6":
        one.configure("MeterValuesAlignedData", "Voltage")
        one.configure("ClockAlignedDataInterval", 1)
    else:
        one.set("AlignedDataCtrlr", "Measurands", "Voltage")
        one.set("AlignedDataCtrlr", "Interval", 1)
    one.charge()
    if version == "1.6":
        one.until(lambda: [p for p in one.of("MeterValues") if measurands(p, "Sample.Clock")])
        found = [p for p in one.of("MeterValues") if measurands(p, "Sample.Clock")]
    else:
        found = of_event(one, triggerReason="MeterValueClock")
    assert measurands(found[0]) == {"Voltage"}


@pytest.mark.parametrize("id", ["J_03", "J_10"])
def test_j_03_10_the_end_has_a_series(rig: Rigs, id: str) -> None:
    one = rig()
    component, context = (
        ("AlignedDataCtrlr", "Sample.Clock") if id == "J_03" else ("SampledDataCtrlr", "Sample.Periodic")
    )
    assert one.set(component, "TxEndedInterval", 1) == "Accepted"
    assert one.set(component, "TxEndedMeasurands", IMPORT) == "Accepted"
    one.charge()
    series = one.service.station.evses[1]
    one.until(lambda: series.open and len(series.open.series) >= 2, "two readings of the series")
    one.finish()
    [end] = of_event(one, eventType="Ended")
    contexts = [v["context"] for m in end["meterValue"] for v in m["sampledValue"]]
    assert contexts.count(context) >= 2 and contexts[-1] == "Transaction.End"


@pytest.mark.parametrize("id", ["J_04", "J_11"])
def test_j_04_11_signed_values_carry_data_and_key_unaltered(rig: Rigs, id: str) -> None:
    one = rig(meter__public_keys=["a2V5"])
    signed = "OCMF|" + "x" * 1000
    assert one.get("FiscalMetering", "PublicKey", evse={"id": 1})["attributeValue"] == "a2V5"
    assert one.set("OCPPCommCtrlr", "PublicKeyWithSignedMeterValue", "EveryMeterValue") == "Accepted"
    component = "AlignedDataCtrlr" if id == "J_04" else "SampledDataCtrlr"
    assert one.set(component, "SignReadings", "true") == "Accepted"
    if id == "J_04":
        one.set("AlignedDataCtrlr", "Interval", 1)
    one.read_meter(5.0, signed_data=signed)
    one.charge(start_wh=6.0)
    one.read_meter(7.0, signed_data=signed)
    if id == "J_11":
        one.call("TriggerMessage", {"requestedMessage": "TransactionEvent"})
    trigger = "MeterValueClock" if id == "J_04" else "Trigger"

    def found() -> list[dict[str, Any]]:
        return [
            v["signedMeterValue"]
            for p in one.of("TransactionEvent")
            if p["triggerReason"] == trigger
            for m in p["meterValue"]
            for v in m["sampledValue"]
            if "signedMeterValue" in v
        ]

    one.until(found)
    assert found()[-1]["signedMeterData"] == signed and found()[-1]["publicKey"] == "a2V5"
    one.set(component, "SignReadings", "false")
    one.until(lambda: one.of("TransactionEvent"))
    one.read_meter(9.0, signed_data="OCMF|" + "y" * 3000)  # too long for 2.0.1: left out, never cut
    one.call("TriggerMessage", {"requestedMessage": "TransactionEvent"})
    one.delivered()
    assert all(s["signedMeterData"] == signed for s in found())


def test_j_06_without_an_interval_there_are_no_values(rig: Rigs) -> None:
    one = rig()
    one.set("SampledDataCtrlr", "TxUpdatedInterval", 0)
    one.charge()
    one.finish()
    of_event(one, eventType="Ended")
    assert not [p for p in one.of("TransactionEvent") if p["triggerReason"] == "MeterValuePeriodic"]


def test_j_07_08_the_start_has_its_measurands(rig: Rigs) -> None:
    one = rig()
    one.set("SampledDataCtrlr", "TxStartedMeasurands", IMPORT)
    one.charge()
    [start] = of_event(one, eventType="Started")
    assert measurands(start) == measurands(start, "Transaction.Begin") == {IMPORT}


def test_j_09_updates_come_by_their_interval(rig: Rigs) -> None:
    one = rig()
    one.set("SampledDataCtrlr", "TxUpdatedMeasurands", "Voltage,Current.Import")
    one.set("SampledDataCtrlr", "TxUpdatedInterval", 1)
    one.charge()
    for update in one.came("TransactionEvent", 2, triggerReason="MeterValuePeriodic"):
        assert measurands(update, "Sample.Periodic") == {"Voltage", "Current.Import"}


# K.
def soon(seconds: float) -> str:
    return (datetime.now(timezone.utc) + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def profile(purpose: str = "TxDefaultProfile", limit: float = 5000.0, **change: Any) -> dict[str, Any]:
    schedule = {
        "id": 1,
        "startSchedule": soon(-3600),
        "chargingRateUnit": "W",
        "chargingSchedulePeriod": [{"startPeriod": 0, "limit": limit}],
        **change.pop("schedule", {}),
    }
    schedule = {k: v for k, v in schedule.items() if v is not None}
    return {
        "id": 1,
        "stackLevel": 0,
        "chargingProfilePurpose": purpose,
        "chargingProfileKind": "Absolute",
        "chargingSchedule": [schedule],
        **change,
    }


def set_profile(one: Rig, evse: int, wanted: dict[str, Any]) -> dict[str, Any]:
    return one.call("SetChargingProfile", {"evseId": evse, "chargingProfile": wanted})


STATION_MAX = "ChargingStationMaxProfile"
REFUSED: dict[str, tuple[int, dict[str, Any]]] = {
    "K01.FR.03 a TxProfile without its transaction": (1, profile("TxProfile", schedule={"startSchedule": None})),
    "K01.FR.09 of another transaction": (1, profile("TxProfile", transactionId="other")),
    "K01.FR.16 on the whole station": (0, profile("TxProfile", transactionId=SESSION)),
    "K01.FR.19 out of order": (
        1,
        profile(
            schedule={"chargingSchedulePeriod": [{"startPeriod": 9, "limit": 1.0}, {"startPeriod": 0, "limit": 1.0}]}
        ),
    ),
    "K01.FR.31 the first period is not at 0": (
        1,
        profile(schedule={"chargingSchedulePeriod": [{"startPeriod": 5, "limit": 1.0}]}),
    ),
    "K01.FR.28 no such EVSE": (7, profile()),
    "K01.FR.38 a relative station maximum": (0, profile(STATION_MAX, chargingProfileKind="Relative")),
    "K01.FR.40 recurring without a start": (
        1,
        profile(chargingProfileKind="Recurring", recurrencyKind="Daily", schedule={"startSchedule": None}),
    ),
    "K01.FR.40 absolute without a start": (1, profile(schedule={"startSchedule": None})),
    "K01.FR.41 relative with a start": (1, profile(chargingProfileKind="Relative")),
    "a station maximum on one EVSE": (1, profile(STATION_MAX)),
    "external constraints": (0, profile("ChargingStationExternalConstraints")),
    "recurring without a kind": (1, profile(chargingProfileKind="Recurring")),
    "a stackLevel above the highest": (1, profile(stackLevel=1000)),
    "a transaction in a default profile": (1, profile(transactionId=SESSION)),
    "a negative limit": (1, profile(limit=-5.0)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_k_01_what_must_not_be_set_is_rejected(rig: Rigs, name: str) -> None:
    one = rig(evses=2)
    one.charge()
    one.delivered()
    evse, wanted = REFUSED[name]
    assert set_profile(one, evse, wanted)["status"] == "Rejected"
    assert one.service.station.smart.profiles == []


@pytest.mark.parametrize("first", [0, 1])
def test_k_01_fr_52_53_one_for_all_and_one_of_its_own_exclude_each_other(rig: Rigs, first: int) -> None:
    one = rig(evses=2)
    assert set_profile(one, first, profile())["status"] == "Accepted"
    assert set_profile(one, 1 - first, profile(id=2))["status"] == "Rejected"
    assert set_profile(one, 1 - first, profile(id=2, stackLevel=1))["status"] == "Accepted"


def test_k_01_fr_39_two_tx_profiles_of_one_level(rig: Rigs) -> None:
    one = rig()
    one.charge()
    assert set_profile(one, 1, profile("TxProfile", transactionId=SESSION))["status"] == "Accepted"
    assert set_profile(one, 1, profile("TxProfile", id=2, transactionId=SESSION))["status"] == "Rejected"
    assert set_profile(one, 1, profile("TxProfile", 6000.0, transactionId=SESSION))["status"] == "Accepted"


@pytest.mark.parametrize(
    "mode", ["Idle", "CentralFrequency", "LocalFrequency", "LocalLoadBalancing", "ExternalSetpoint"]
)
def test_k_q_10_operation_modes_that_are_not_done_are_refused(rig: Rigs, mode: str) -> None:
    one = rig("2.1")
    one.charge()
    period: dict[str, Any] = {"startPeriod": 0, "operationMode": mode}
    if mode == "LocalFrequency":
        period.update({"v2xBaseline": 1000.0, "v2xFreqWattCurve": [{"frequency": 50.0, "power": 0.0}]})
    wanted = profile("TxProfile", transactionId=SESSION, schedule={"chargingSchedulePeriod": [period]})
    answer = set_profile(one, 1, wanted)
    assert answer["status"] == "Rejected"
    assert answer["statusInfo"]["additionalInfo"].startswith("UnsupportedOperationMode")


def test_k_08_fr_04_the_whole_station_has_a_composite_schedule(rig: Rigs) -> None:
    one = rig(evses=2)
    for evse in (1, 2):
        one.do(one.service.station.supply.__setitem__, evse, (400.0, 150_000.0))
    ask = {"evseId": 0, "duration": 60, "chargingRateUnit": "W"}
    answer = one.call("GetCompositeSchedule", ask)
    assert answer["status"] == "Accepted"
    assert answer["schedule"]["chargingSchedulePeriod"] == [{"startPeriod": 0, "limit": 300_000.0}]
    set_profile(one, 0, profile(STATION_MAX, 90_000.0))
    answer = one.call("GetCompositeSchedule", ask)
    assert answer["schedule"]["chargingSchedulePeriod"][0]["limit"] == 90_000.0
    assert one.call("GetCompositeSchedule", {**ask, "evseId": 9})["status"] == "Rejected"


@pytest.mark.parametrize("version", ["1.6", "2.0.1", "2.1"])
@pytest.mark.parametrize("unit", ["W", "A"])
def test_k_04_a_station_maximum_is_one_for_all_evses(rig: Rigs, version: str, unit: str) -> None:
    """Two vehicles that take what they may; the sum stays within the maximum, also while one starts and stops."""
    one = rig(version, evses=2)
    most = 90_000.0 if unit == "W" else 200.0
    wanted = profile(STATION_MAX, most, schedule={"chargingRateUnit": unit})
    if version == "1.6":
        schedule = {k: v for k, v in wanted["chargingSchedule"][0].items() if k != "id"}
        old = {
            "chargingProfileId": 1,
            "stackLevel": 0,
            "chargingProfilePurpose": "ChargePointMaxProfile",
            "chargingProfileKind": "Absolute",
            "chargingSchedule": schedule,
        }
        answer = one.call("SetChargingProfile", {"connectorId": 0, "csChargingProfiles": old})
    else:
        answer = set_profile(one, 0, wanted)
    assert answer["status"] == "Accepted"
    station = one.service.station
    drawn = {1: 0.0, 2: 0.0}

    def limits() -> list[float]:
        found = [station.limit_of(e) for e in (1, 2)]
        return [x.max_power_w if unit == "W" else x.max_current_a for x in found]

    def take(*evses: int) -> None:
        for evse in evses:
            limit = station.limit_of(evse)
            watts = min(limit.max_power_w, limit.max_current_a * 400.0, 150_000.0)
            drawn[evse] = watts
            one.read_meter(2000.0, watts / 400.0, evse)
        assert sum(limits()) <= most + 1e-6
        assert sum(drawn.values()) <= (most if unit == "W" else most * 400.0) + 1e-6

    one.charge(1)
    begin = time.monotonic()
    while time.monotonic() - begin < 1.5:
        take(1)
    one.charge(2, f"{SESSION[:-1]}2")
    begin = time.monotonic()
    while time.monotonic() - begin < 2.5:
        take(1, 2)
    assert min(limits()) > 0.3 * most
    one.finish(1)
    drawn[1] = 0.0
    begin = time.monotonic()
    while time.monotonic() - begin < 1.0:
        take(2)
    assert sum(limits()) <= most


def test_k_38_a_profile_with_a_remote_start_holds_or_is_ignored(rig: Rigs) -> None:
    one = rig()
    wanted = profile("TxProfile", 7000.0)
    payload = {
        "evseId": 1,
        "remoteStartId": 9,
        "idToken": {"idToken": TAG.id, "type": "ISO14443"},
        "chargingProfile": wanted,
    }
    assert one.call("RequestStartTransaction", payload)["status"] == "Accepted"
    one.read_meter(1.0)
    one.phase(Phase.POSITIONING, accepted=False)
    for phase in (Phase.POSITIONING, Phase.MATED, Phase.LINKING, Phase.CHARGING):
        one.phase(phase)
    one.until(lambda: one.service.station.limit_of(1).max_power_w == 7000.0)


def test_k_09_10_profiles_are_reported_and_cleared(rig: Rigs) -> None:
    one = rig()
    set_profile(one, 1, profile())
    ask = {"requestId": 4, "chargingProfile": {"chargingProfilePurpose": "TxDefaultProfile"}}
    assert one.call("GetChargingProfiles", ask) == {"status": "Accepted"}
    assert one.came("ReportChargingProfiles")[0]["requestId"] == 4
    assert one.call("ClearChargingProfile", {"chargingProfileId": 1}) == {"status": "Accepted"}
    assert one.call("ClearChargingProfile", {"chargingProfileId": 1}) == {"status": "Unknown"}
    assert one.call("GetChargingProfiles", ask) == {"status": "NoProfiles"}
