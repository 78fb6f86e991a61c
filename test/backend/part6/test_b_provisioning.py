"""Part 6, block B: boot, variables, reports, reset, network profiles. The ids are OCA's, the words our own."""

from __future__ import annotations

import time
from typing import Any

import pytest

from robot_charger.backend.records import Request, Token
from robot_charger.words.values import Phase

from .central import CallFailedError, now
from .conftest import SESSION, Rig, Rigs


def boot(status: str, interval: int = 1) -> dict[str, Any]:
    return {"currentTime": now(), "interval": interval, "status": status}


def item(component: str, variable: str, **more: Any) -> dict[str, Any]:
    return {"component": {"name": component}, "variable": {"name": variable}, **more}


def statuses(one: Rig) -> list[tuple[int, str]]:
    return [(p["evseId"], p["connectorStatus"]) for p in one.of("StatusNotification")]


def test_b_01_a_cold_boot_tells_itself_and_every_connector(rig: Rigs) -> None:
    one = rig(evses=2)
    assert one.of("BootNotification")[0]["reason"] == "PowerUp"
    one.until(lambda: {(1, "Available"), (2, "Available")} <= set(statuses(one)))


@pytest.mark.parametrize("version", ["1.6", "2.0.1"])
def test_b_02_while_pending_what_is_asked_for_goes_out(rig: Rigs, version: str) -> None:
    answers = [boot("Pending", 300), boot("Accepted", 300)]
    one = rig(version, online=False, rules={"BootNotification": answers})
    one.until(lambda: one.service.client.registration == "Pending")
    trigger = {"requestedMessage": "StatusNotification"}
    if version == "1.6":
        assert one.call("TriggerMessage", {**trigger, "connectorId": 1}) == {"status": "Accepted"}
        assert one.call("RemoteStartTransaction", {"idTag": "A", "connectorId": 1}) == {"status": "Rejected"}
        assert one.configure("HeartbeatInterval", 200) == "Accepted"
    else:
        start = {"idToken": {"idToken": "X", "type": "Central"}, "remoteStartId": 1}
        assert one.call("RequestStartTransaction", start)["status"] == "Rejected"
        assert one.call("TriggerMessage", {**trigger, "evse": {"id": 1}}) == {"status": "Accepted"}
        assert one.call("GetBaseReport", {"requestId": 0, "reportBase": "FullInventory"}) == {"status": "Accepted"}
        one.until(lambda: one.of("NotifyReport") and not one.of("NotifyReport")[-1].get("tbc"))
    one.came("StatusNotification")
    assert not one.service.station.online and "Pending" in one.service.state().text
    assert set(one.central.actions()) <= {"BootNotification", "StatusNotification", "NotifyReport"}
    again = {"requestedMessage": "BootNotification"}
    assert one.call("TriggerMessage", again) == {"status": "Accepted"}
    one.online()


def test_b_03_a_rejected_station_waits_and_asks_again(rig: Rigs) -> None:
    one = rig(online=False, rules={"BootNotification": [boot("Rejected"), boot("Accepted", 300)]})
    one.until(lambda: one.service.client.registration == "Rejected")
    one.online()
    first, second = (m.time for m in one.central.messages if m.action == "BootNotification")
    assert second - first >= 0.9


def test_b_30_a_rejected_station_answers_nothing(rig: Rigs) -> None:
    one = rig(online=False, rules={"BootNotification": boot("Rejected", 300)})
    one.until(lambda: one.service.client.registration == "Rejected")
    with pytest.raises(CallFailedError, match="SecurityError"):
        one.call("GetVariables", {"getVariableData": [item("OCPPCommCtrlr", "OfflineThreshold")]})


def test_b_06_07_variables_are_read_one_or_many(rig: Rigs) -> None:
    one = rig()
    assert one.get("OCPPCommCtrlr", "OfflineThreshold")["attributeValue"] == "60"
    many = [item("OCPPCommCtrlr", "OfflineThreshold"), item("AuthCtrlr", "AuthorizeRemoteStart")]
    results = one.call("GetVariables", {"getVariableData": many})["getVariableResult"]
    assert [r["attributeStatus"] for r in results] == ["Accepted", "Accepted"]


def test_b_08_one_more_than_fits_is_refused(rig: Rigs) -> None:
    one = rig()
    most = int(one.get("DeviceDataCtrlr", "ItemsPerMessage", "GetVariables")["attributeValue"])
    asked = [item("OCPPCommCtrlr", "OfflineThreshold")] * (most + 1)
    results = one.call("GetVariables", {"getVariableData": asked})["getVariableResult"]
    assert {r["attributeStatus"] for r in results[:-1]} == {"Accepted"}
    assert results[-1]["attributeStatus"] == "Rejected"
    assert results[-1]["attributeStatusInfo"]["reasonCode"] == "TooManyElements"


def test_b_09_10_variables_are_set_one_or_many(rig: Rigs) -> None:
    one = rig()
    assert one.set("OCPPCommCtrlr", "OfflineThreshold", 123) == "Accepted"
    many = [
        item("OCPPCommCtrlr", "OfflineThreshold", attributeValue="99"),
        item("AuthCtrlr", "AuthorizeRemoteStart", attributeValue="true"),
    ]
    results = one.call("SetVariables", {"setVariableData": many})["setVariableResult"]
    assert [r["attributeStatus"] for r in results] == ["Accepted", "Accepted"]
    assert one.get("OCPPCommCtrlr", "OfflineThreshold")["attributeValue"] == "99"


@pytest.mark.parametrize("value", ["-1", "soon", "1.5", "99999999999999999999", "", "nan"])
def test_b_11_a_value_of_the_wrong_form_is_rejected(rig: Rigs, value: str) -> None:
    one = rig()
    assert one.set("OCPPCommCtrlr", "OfflineThreshold", value) == "Rejected"


@pytest.mark.parametrize("base", ["ConfigurationInventory", "FullInventory"])
def test_b_12_13_base_reports(rig: Rigs, base: str) -> None:
    one = rig()
    assert one.call("GetBaseReport", {"requestId": 5, "reportBase": base}) == {"status": "Accepted"}
    one.until(lambda: one.of("NotifyReport") and not one.of("NotifyReport")[-1].get("tbc"))
    assert {p["requestId"] for p in one.of("NotifyReport")} == {5}
    assert [p["seqNo"] for p in one.of("NotifyReport")] == list(range(len(one.of("NotifyReport"))))


def test_b_15_a_summary_is_reported_or_refused(rig: Rigs) -> None:
    one = rig()
    answer = one.call("GetBaseReport", {"requestId": 5, "reportBase": "SummaryInventory"})
    assert answer["status"] in ("Accepted", "NotSupported")


def test_b_32_to_39_what_cannot_be_read_or_set_says_why(rig: Rigs) -> None:
    one = rig()
    for asked, status in (
        (item("Nothing", "X"), "UnknownComponent"),
        (item("OCPPCommCtrlr", "X"), "UnknownVariable"),
        (item("OCPPCommCtrlr", "OfflineThreshold", attributeType="Target"), "NotSupportedAttributeType"),
    ):
        [read] = one.call("GetVariables", {"getVariableData": [asked]})["getVariableResult"]
        assert read["attributeStatus"] == status
        [put] = one.call("SetVariables", {"setVariableData": [{**asked, "attributeValue": "1"}]})["setVariableResult"]
        assert put["attributeStatus"] == status
    assert one.set("SecurityCtrlr", "Identity", "me") == "Rejected"


def announced_after_boot(one: Rig, count: int = 2) -> list[tuple[int, str]]:
    """Statuses behind the latest of ``count`` boots."""
    one.came("BootNotification", count)
    actions = one.central.messages
    last = max(n for n, m in enumerate(actions) if m.action == "BootNotification")
    return [(m.payload["evseId"], m.payload["connectorStatus"]) for m in actions[last:] if m.action[:6] == "Status"]


@pytest.mark.parametrize("kind", ["OnIdle", "Immediate"])
def test_b_20_a_reset_announces_everything_again(rig: Rigs, kind: str) -> None:
    one = rig(evses=2)
    one.until(lambda: len(statuses(one)) >= 2)
    assert one.call("Reset", {"type": kind}) == {"status": "Accepted"}
    one.until(lambda: {(1, "Available"), (2, "Available")} <= set(announced_after_boot(one)))
    assert one.of("BootNotification")[1]["reason"] == "RemoteReset"
    one.came("SecurityEventNotification", type="StartupOfTheDevice")


def test_b_21_a_reset_on_idle_waits_for_the_transaction(rig: Rigs) -> None:
    one = rig()
    one.charge()
    assert one.call("Reset", {"type": "OnIdle"}) == {"status": "Scheduled"}
    assert len(one.of("BootNotification")) == 1
    one.finish()
    one.until(lambda: (1, "Available") in announced_after_boot(one))
    assert one.of("BootNotification")[1]["reason"] == "ScheduledReset"
    ended = next(n for n, m in enumerate(one.central.messages) if m.payload.get("eventType") == "Ended")
    assert one.central.actions().index("BootNotification", 1) > ended


def test_b_22_an_immediate_reset_ends_the_transaction_first(rig: Rigs) -> None:
    one = rig()
    one.charge()
    assert one.call("Reset", {"type": "Immediate"}) == {"status": "Accepted"}
    assert one.requests[-1].kind == Request.STOP
    one.finish(reason="")
    one.until(lambda: (1, "Available") in announced_after_boot(one))
    [end] = [p for p in one.of("TransactionEvent") if p["eventType"] == "Ended"]
    assert end["triggerReason"] == "ResetCommand" and end["transactionInfo"]["stoppedReason"] == "ImmediateReset"
    actions = one.central.actions()
    assert actions.index("BootNotification", 1) > len(actions) - 1 - actions[::-1].index("TransactionEvent")


def test_b_23_an_unavailable_evse_stays_so(rig: Rigs) -> None:
    one = rig(evses=2)
    one.call("ChangeAvailability", {"operationalStatus": "Inoperative", "evse": {"id": 1}})
    one.call("Reset", {"type": "Immediate"})
    one.until(lambda: {(1, "Unavailable"), (2, "Available")} <= set(announced_after_boot(one)))


@pytest.mark.parametrize("busy", [False, True])
def test_b_25_to_29_one_evse_alone_is_not_reset(rig: Rigs, busy: bool) -> None:
    one = rig()
    if busy:
        one.charge()
    assert one.call("Reset", {"type": "OnIdle", "evseId": 1})["status"] == "Rejected"


def test_b_41_a_reset_waits_for_all_and_nothing_new_begins(rig: Rigs) -> None:
    one = rig(evses=2)
    other = f"{SESSION[:-1]}2"
    one.charge()
    assert one.call("Reset", {"type": "OnIdle"}) == {"status": "Scheduled"}
    start = {"evseId": 2, "remoteStartId": 1, "idToken": {"idToken": "A", "type": "Central"}}
    assert one.call("RequestStartTransaction", start)["status"] == "Rejected"
    assert one.do(one.service.station.shown, Token("CARD"), 2, True, one.service.clock()) == "nothing to start"
    one.phase(Phase.IDLE, 2, session_id=other)
    one.finish()
    one.came("BootNotification", reason="ScheduledReset")


@pytest.mark.parametrize(
    "change",
    [{"configurationSlot": 999}, {"configurationSlot": 0}, {"securityProfile": 9}, {"ocppCsmsUrl": "http://x"}],
)
def test_b_43_a_network_profile_that_cannot_be_is_rejected(rig: Rigs, change: dict[str, Any]) -> None:
    one = rig()
    slot = change.pop("configurationSlot", 2)
    data = {
        "ocppVersion": "OCPP20",
        "ocppTransport": "JSON",
        "ocppCsmsUrl": "ws://127.0.0.1:1/x",
        "messageTimeout": 30,
        "securityProfile": 0,
        "ocppInterface": "Wired0",
        **change,
    }
    assert one.call("SetNetworkProfile", {"configurationSlot": slot, "connectionData": data})["status"] == "Rejected"


@pytest.mark.parametrize(("threshold", "told"), [(0, True), (300, False)])
def test_b_51_52_statuses_after_a_time_offline(rig: Rigs, threshold: int, told: bool) -> None:
    one = rig(evses=2)
    one.until(lambda: len(statuses(one)) >= 2)
    one.set("OCPPCommCtrlr", "OfflineThreshold", threshold)
    one.central.go()
    one.until(lambda: not one.service.client.connected)
    before = len(statuses(one))
    one.phase(Phase.POSITIONING, 1, accepted=False)
    time.sleep(0.01)
    one.central.come()
    one.online()
    one.until(lambda: (1, "Occupied") in statuses(one)[before:])
    one.call("TriggerMessage", {"requestedMessage": "Heartbeat"})
    one.came("Heartbeat")
    assert ((2, "Available") in statuses(one)[before:]) == told


def test_b_57_a_lost_connection_is_made_again_without_a_boot(rig: Rigs) -> None:
    one = rig()
    one.central.go()
    one.until(lambda: not one.service.client.connected)
    one.central.come()
    one.online()
    assert len(one.of("BootNotification")) == 1


MANDATORY = (
    "AlignedDataCtrlr.TxEndedInterval AlignedDataCtrlr.TxEndedMeasurands AlignedDataCtrlr.Interval "
    "AlignedDataCtrlr.Measurands AuthCtrlr.AuthorizeRemoteStart AuthCtrlr.LocalAuthorizeOffline "
    "AuthCtrlr.LocalPreAuthorize ChargingStation.SupplyPhases ChargingStation.AvailabilityState "
    "ChargingStation.Model ChargingStation.VendorName ClockCtrlr.DateTime ClockCtrlr.TimeSource "
    "Connector.AvailabilityState Connector.ConnectorType Connector.SupplyPhases DeviceDataCtrlr.BytesPerMessage "
    "DeviceDataCtrlr.ItemsPerMessage DisplayMessageCtrlr.DisplayMessages DisplayMessageCtrlr.SupportedFormats "
    "DisplayMessageCtrlr.SupportedPriorities EVSE.AvailabilityState EVSE.Power EVSE.SupplyPhases "
    "ISO15118Ctrlr.ContractValidationOffline LocalAuthListCtrlr.BytesPerMessage LocalAuthListCtrlr.Entries "
    "LocalAuthListCtrlr.ItemsPerMessage MonitoringCtrlr.BytesPerMessage MonitoringCtrlr.ItemsPerMessage "
    "OCPPCommCtrlr.FileTransferProtocols OCPPCommCtrlr.MessageAttemptInterval OCPPCommCtrlr.MessageAttempts "
    "OCPPCommCtrlr.MessageTimeout OCPPCommCtrlr.NetworkConfigurationPriority "
    "OCPPCommCtrlr.NetworkProfileConnectionAttempts OCPPCommCtrlr.OfflineThreshold OCPPCommCtrlr.ResetRetries "
    "OCPPCommCtrlr.RetryBackOffRandomRange OCPPCommCtrlr.RetryBackOffRepeatTimes "
    "OCPPCommCtrlr.RetryBackOffWaitMinimum OCPPCommCtrlr.UnlockOnEVSideDisconnect "
    "SampledDataCtrlr.TxEndedInterval SampledDataCtrlr.TxEndedMeasurands SampledDataCtrlr.TxStartedMeasurands "
    "SampledDataCtrlr.TxUpdatedInterval SampledDataCtrlr.TxUpdatedMeasurands SampledDataCtrlr.SignReadings "
    "SecurityCtrlr.CertificateEntries SecurityCtrlr.OrganizationName SecurityCtrlr.SecurityProfile "
    "SecurityCtrlr.CertSigningWaitMinimum SecurityCtrlr.CertSigningRepeatTimes SmartChargingCtrlr.Entries "
    "SmartChargingCtrlr.LimitChangeSignificance SmartChargingCtrlr.PeriodsPerSchedule "
    "SmartChargingCtrlr.ProfileStackLevel SmartChargingCtrlr.RateUnit TariffCostCtrlr.Currency "
    "TariffCostCtrlr.TariffFallbackMessage TariffCostCtrlr.TotalCostFallbackMessage TxCtrlr.EVConnectionTimeOut "
    "TxCtrlr.StopTxOnEVSideDisconnect TxCtrlr.StopTxOnInvalidId TxCtrlr.TxStartPoint TxCtrlr.TxStopPoint"
).split()


def test_b_53_the_full_inventory_has_what_it_must(rig: Rigs) -> None:
    one = rig()
    one.call("GetBaseReport", {"requestId": 5, "reportBase": "FullInventory"})
    one.until(lambda: one.of("NotifyReport") and not one.of("NotifyReport")[-1].get("tbc"))
    items = [i for p in one.of("NotifyReport") for i in p["reportData"]]
    found = {f"{i['component']['name']}.{i['variable']['name']}": i for i in items}
    assert not [name for name in MANDATORY if name not in found]
    kinds = {name: i["variableCharacteristics"] for name, i in found.items()}
    assert kinds["ClockCtrlr.DateTime"]["dataType"] == "dateTime"
    assert found["ClockCtrlr.TimeSource"]["variableAttribute"][0]["mutability"] == "ReadWrite"
    for name in ("EVSE.Power", "LocalAuthListCtrlr.Entries", "SecurityCtrlr.CertificateEntries"):
        assert "maxLimit" in kinds[name], name
    assert kinds["SmartChargingCtrlr.Entries"]["maxLimit"] >= 1
