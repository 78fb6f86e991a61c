"""The device model of 2.x, its reports and monitors, and what else a CSMS of 2.x asks for."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pytest

from robot_charger.backend.records import Limit, Now
from robot_charger.backend.robot_figures import RobotFigures
from robot_charger.backend.service import clock
from robot_charger.words.values import Phase

from .conftest import SESSION, TAG, Live, wait_for

Make = Callable[..., Live]
FIGURES = {"TimeToMate": (12.5, "s"), "InsertionForce": (64.0, "N"), "Attempts": (1.0, "")}


@pytest.fixture(params=["2.0.1", "2.1"])
def desk(request: pytest.FixtureRequest, live: Make) -> Live:
    found = live(version=request.param)
    found.online()
    found.session(Phase.IDLE)
    return found


def place(component: str, variable: str, **more: Any) -> dict[str, Any]:
    return {"component": {"name": component}, "variable": {"name": variable}, **more}


def reported(desk: Live, request_id: int) -> list[dict[str, Any]]:
    """All pages of a report, once its last has come."""

    def pages() -> list[dict[str, Any]]:
        return [p for p in desk.received("NotifyReport") if p["requestId"] == request_id]

    wait_for(lambda: pages() and not pages()[-1]["tbc"], what="the last page")
    assert [p["seqNo"] for p in pages()] == list(range(len(pages())))
    return [item for p in pages() for item in p["reportData"]]


def look(desk: Live) -> None:
    """The second in which the monitors are looked at is over."""
    desk.do(desk.service.dialect.model.tick, clock())


def test_reports(desk: Live) -> None:
    desk.do(desk.service.dialect.model.node_report, "power", 0, 1, {"missed cycles": "3", "latest cycle [ms]": "9.5"})
    assert desk.call("GetBaseReport", {"requestId": 1, "reportBase": "FullInventory"})["status"] == "Accepted"
    full = reported(desk, 1)
    names = {(d["component"]["name"], d["variable"]["name"]) for d in full}
    assert {
        ("ChargingStation", "Model"),
        ("Connector", "ConnectorType"),
        ("EVSE", "AvailabilityState"),
        ("TxCtrlr", "TxStartPoint"),
        ("Node.power", "missed cycles"),
        ("Node.power", "latest cycle"),
    } <= names
    cycle = next(d for d in full if d["variable"]["name"] == "latest cycle")
    assert cycle["variableCharacteristics"]["unit"] == "ms" and cycle["variableAttribute"][0]["value"] == "9.5"
    password = next(d for d in full if d["variable"]["name"] == "BasicAuthPassword")
    assert "value" not in password["variableAttribute"][0]
    desk.call("GetBaseReport", {"requestId": 2, "reportBase": "ConfigurationInventory"})
    assert all(d["variableAttribute"][0]["mutability"] != "ReadOnly" for d in reported(desk, 2))
    wanted = {"requestId": 3, "componentVariable": [{"component": {"name": "Node.power"}}]}
    assert desk.call("GetReport", wanted)["status"] == "Accepted"
    assert {d["variable"]["name"] for d in reported(desk, 3)} == {"Health", "missed cycles", "latest cycle"}
    wanted = {"requestId": 4, "componentVariable": [{"component": {"name": "Nothing"}}]}
    assert desk.call("GetReport", wanted)["status"] == "EmptyResultSet"
    assert desk.call("GetReport", {"requestId": 5, "componentCriteria": ["Problem"]})["status"] == "EmptyResultSet"


def test_monitors_of_the_robots_figures(desk: Live) -> None:
    desk.do(desk.service.dialect.robot, FIGURES)
    place_of = place("ConnectionRobot", "InsertionForce")
    monitor = {**place_of, "type": "UpperThreshold", "value": 90.0, "severity": 4}
    result = desk.call(
        "SetVariableMonitoring",
        {
            "setMonitoringData": [
                monitor,
                {**monitor, "value": 80.0},
                {**monitor, "component": {"name": "Nowhere"}},
                {**monitor, "variable": {"name": "Nothing"}},
                {**monitor, "type": "Delta", "value": 5.0},
            ]
        },
    )
    found = result["setMonitoringResult"]
    assert [r["status"] for r in found] == ["Accepted", "Duplicate", "UnknownComponent", "UnknownVariable", "Accepted"]
    desk.do(desk.service.dialect.robot, {**FIGURES, "InsertionForce": (95.0, "N")})
    look(desk)
    wait_for(lambda: len(desk.received("NotifyEvent")) == 2, what="two events")
    events = [e for p in desk.received("NotifyEvent") for e in p["eventData"]]
    alarm = next(e for e in events if e["trigger"] == "Alerting")
    assert (alarm["actualValue"], alarm["cleared"], alarm["variableMonitoringId"]) == ("95", False, found[0]["id"])
    desk.do(desk.service.dialect.robot, {**FIGURES, "InsertionForce": (60.0, "N")})
    look(desk)
    wait_for(lambda: [e for p in desk.received("NotifyEvent") for e in p["eventData"] if e.get("cleared")])
    desk.service.stop()
    desk.open()
    desk.online()  # monitors outlive a restart
    assert desk.call("GetMonitoringReport", {"requestId": 9})["status"] == "Accepted"
    wait_for(lambda: desk.received("NotifyMonitoringReport"))
    items = desk.received("NotifyMonitoringReport")[0]["monitor"]
    assert {m["type"] for i in items for m in i["variableMonitoring"]} == {"UpperThreshold", "Delta"}
    answer = desk.call("ClearVariableMonitoring", {"id": [found[0]["id"], 999]})
    assert [r["status"] for r in answer["clearMonitoringResult"]] == ["Accepted", "NotFound"]
    assert desk.call("SetMonitoringLevel", {"severity": 3})["status"] == "Accepted"
    assert desk.call("SetMonitoringLevel", {"severity": 30})["status"] == "Rejected"
    assert desk.call("SetMonitoringBase", {"monitoringBase": "HardWiredOnly"})["status"] == "Accepted"
    assert desk.call("GetMonitoringReport", {"requestId": 10})["status"] == "EmptyResultSet"


def test_faults_of_the_nodes_become_events_also_while_offline(desk: Live) -> None:
    desk.fault("csms-gone")
    wait_for(lambda: not desk.service.station.online)
    desk.do(desk.service.dialect.model.fault, 401, "module_lost", 2, 1, True, "module 7 is silent")
    desk.do(desk.service.dialect.model.fault, 401, "module_lost", 2, 1, True, "module 7 is silent")
    desk.fault("csms-gone", on=False)
    wait_for(lambda: desk.received("NotifyEvent"))
    [event] = [e for p in desk.received("NotifyEvent") for e in p["eventData"]]
    assert (event["techCode"], event["component"]["evse"]["id"]) == ("401", 1)
    assert "module 7" in event["techInfo"]


def test_charging_needs_are_told_once_per_transaction(desk: Live) -> None:
    needs = {
        "current_a": 200.0,
        "voltage_v": 450.0,
        "power_w": 90_000.0,
        "soc": 31.4,
        "capacity_wh": 60_000.0,
        "bidirectional": desk.parameters.version == "2.1",
    }
    desk.do(desk.service.dialect.charging_needs, 1, needs)  # no transaction yet
    desk.begin()
    desk.do(desk.service.dialect.charging_needs, 1, needs)
    desk.do(desk.service.dialect.charging_needs, 1, needs)
    desk.end()
    desk.delivered()
    [told] = desk.received("NotifyEVChargingNeeds")
    assert told["chargingNeeds"]["dcChargingParameters"]["evMaxCurrent"] == 200
    mode = "DC_BPT" if desk.parameters.version == "2.1" else "DC"
    assert told["chargingNeeds"]["requestedEnergyTransfer"] == mode


def test_messages_cost_and_customer_information(desk: Live) -> None:
    desk.begin()
    message = {"id": 1, "priority": "NormalCycle", "message": {"format": "UTF8", "content": "Good morning"}}
    assert desk.call("SetDisplayMessage", {"message": message})["status"] == "Accepted"
    assert (
        desk.call("SetDisplayMessage", {"message": {**message, "id": 2, "transactionId": "no"}})["status"]
        == "UnknownTransaction"
    )
    assert desk.call("CostUpdated", {"totalCost": 4.5, "transactionId": SESSION}) == {}
    assert desk.service.state().text == "Good morning; cost so far 4.50"
    assert desk.call("GetDisplayMessages", {"requestId": 1})["status"] == "Accepted"
    wait_for(lambda: desk.received("NotifyDisplayMessages"))
    assert desk.call("ClearDisplayMessage", {"id": 1})["status"] == "Accepted"
    assert desk.call("GetDisplayMessages", {"requestId": 2})["status"] == "Unknown"
    ask = {"requestId": 3, "report": True, "clear": True, "idToken": {"idToken": TAG.id, "type": "ISO14443"}}
    assert desk.call("CustomerInformation", ask)["status"] == "Accepted"
    wait_for(lambda: desk.received("NotifyCustomerInformation"))
    assert desk.received("NotifyCustomerInformation")[0]["data"] == "cache: Accepted"
    assert desk.do(desk.service.station.tokens.known, TAG, 1, clock().wall) is None


def test_set_points_both_ways_and_priority_in_2_1(live: Make) -> None:
    desk = live(version="2.1")
    desk.online()
    desk.begin()

    def profile(id: int, level: int, purpose: str, period: dict[str, Any], kind: str = "Absolute") -> str:
        return str(
            desk.call(
                "SetChargingProfile",
                {
                    "evseId": 1,
                    "chargingProfile": {
                        "id": id,
                        "stackLevel": level,
                        "chargingProfilePurpose": purpose,
                        "chargingProfileKind": kind,
                        **({"transactionId": SESSION} if purpose == "TxProfile" else {}),
                        "chargingSchedule": [
                            {
                                "id": 1,
                                "chargingRateUnit": "W",
                                "startSchedule": "2020-01-01T00:00:00Z",
                                "chargingSchedulePeriod": [{"startPeriod": 0, **period}],
                            }
                        ],
                    },
                },
            )["status"]
        )

    assert profile(1, 0, "TxProfile", {"operationMode": "CentralSetpoint", "setpoint": -5000.0}) == "Accepted"
    assert (desk.limits[-1][1].max_power_w, desk.limits[-1][1].min_power_w) == (0.0, -5000.0)
    assert profile(2, 1, "TxProfile", {"limit": 20_000.0, "dischargeLimit": -3000.0}, "Dynamic") == "Accepted"
    assert (desk.limits[-1][1].max_power_w, desk.limits[-1][1].min_power_w) == (20_000.0, -3000.0)
    update = {"chargingProfileId": 2, "scheduleUpdate": {"limit": 7000.0}}
    assert desk.call("UpdateDynamicSchedule", update) == {"status": "Accepted"}
    assert desk.limits[-1][1].max_power_w == 7000.0
    assert desk.call("UpdateDynamicSchedule", {**update, "chargingProfileId": 1}) == {"status": "Rejected"}
    use = {"transactionId": SESSION, "activate": True}
    assert desk.call("UsePriorityCharging", use) == {"status": "NoProfile"}
    assert profile(3, 0, "PriorityCharging", {"limit": 99_000.0}) == "Accepted"
    assert desk.call("UsePriorityCharging", use) == {"status": "Accepted"}
    assert desk.limits[-1][1].max_power_w == 99_000.0
    desk.end()
    desk.delivered()
    wait_for(lambda: desk.limits[-1][1].max_power_w == float("inf"))  # profiles of a transaction go with it


def test_an_external_limit_reaches_vehicle_and_csms(desk: Live) -> None:
    """K11 - K14: an energy management of the site limits an EVSE and lifts the limit again."""
    desk.online()
    desk.begin()
    limit = Limit(50.0, 20_000.0, source="EMS")
    desk.do(desk.service.station.external_limit, 1, limit, clock())
    assert (desk.limits[-1][1].max_power_w, desk.limits[-1][1].max_current_a) == (20_000.0, 50.0)
    [told] = wait_for(lambda: desk.received("NotifyChargingLimit"))
    assert (told["evseId"], told["chargingLimit"]) == (1, {"chargingLimitSource": "EMS"})
    assert [(s["chargingRateUnit"], s["chargingSchedulePeriod"][0]["limit"]) for s in told["chargingSchedule"]] == [
        ("W", 20_000.0),
        ("A", 50.0),
    ]
    wait_for(lambda: desk.received("TransactionEvent")[-1]["triggerReason"] == "ChargingRateChanged")
    desk.do(desk.service.station.external_limit, 1, Limit(source="roof"), clock())
    [lifted] = wait_for(lambda: desk.received("ClearedChargingLimit"))
    assert lifted == {"evseId": 1, "chargingLimitSource": "EMS"}  # 2.0.1 has four words for it
    assert desk.limits[-1][1] == Limit()


def test_a_dynamic_profile_is_fetched_by_the_station_in_2_1(live: Make) -> None:
    """K28: every dynUpdateInterval seconds; what the CSMS then says holds at once."""
    desk = live(version="2.1")
    desk.online()
    desk.begin()
    assert (
        desk.call(
            "SetChargingProfile",
            {
                "evseId": 1,
                "chargingProfile": {
                    "id": 2,
                    "stackLevel": 1,
                    "chargingProfilePurpose": "TxProfile",
                    "transactionId": SESSION,
                    "chargingProfileKind": "Dynamic",
                    "dynUpdateInterval": 60,
                    "chargingSchedule": [
                        {
                            "id": 1,
                            "chargingRateUnit": "W",
                            "chargingSchedulePeriod": [{"startPeriod": 0, "limit": 20_000.0}],
                        }
                    ],
                },
            },
        )["status"]
        == "Accepted"
    )
    desk.csms.answers["PullDynamicScheduleUpdate"] = lambda station, payload: {
        "status": "Accepted",
        "scheduleUpdate": {"limit": 6000.0},
    }
    later = clock()
    desk.do(desk.service.dialect.tick, later)
    desk.do(desk.service.dialect.tick, Now(later.mono_ns + 59_000_000_000, later.wall))
    assert desk.received("PullDynamicScheduleUpdate") == []
    desk.do(desk.service.dialect.tick, Now(later.mono_ns + 61_000_000_000, later.wall))
    wait_for(lambda: desk.limits[-1][1].max_power_w == 6000.0)
    assert desk.received("PullDynamicScheduleUpdate") == [{"chargingProfileId": 2}]


def test_profiles_are_reported(desk: Live) -> None:
    def profile(id: int, level: int) -> dict[str, Any]:
        return {
            "id": id,
            "stackLevel": level,
            "chargingProfilePurpose": "TxDefaultProfile",
            "chargingProfileKind": "Absolute",
            "chargingSchedule": [
                {
                    "id": 1,
                    "chargingRateUnit": "W",
                    "startSchedule": "2020-01-01T00:00:00Z",
                    "chargingSchedulePeriod": [{"startPeriod": 0, "limit": 7000.0}],
                }
            ],
        }

    for evse, id in ((0, 1), (1, 2)):
        set_one = {"evseId": evse, "chargingProfile": profile(id, evse)}
        assert desk.call("SetChargingProfile", set_one)["status"] == "Accepted"
    assert desk.call("GetChargingProfiles", {"requestId": 4, "chargingProfile": {}})["status"] == "Accepted"
    wait_for(lambda: len(desk.received("ReportChargingProfiles")) == 2)
    first, last = desk.received("ReportChargingProfiles")
    assert (first["evseId"], first["tbc"], first["chargingProfile"]) == (0, True, [profile(1, 0)])
    assert (last["evseId"], last.get("tbc", False), last["chargingProfile"]) == (1, False, [profile(2, 1)])
    nothing = {"requestId": 5, "chargingProfile": {"stackLevel": 7}}
    assert desk.call("GetChargingProfiles", nothing)["status"] == "NoProfiles"


def test_the_state_of_a_transaction_and_of_the_queue(desk: Live) -> None:
    desk.begin()
    desk.delivered()
    ask = {"transactionId": SESSION}
    assert desk.call("GetTransactionStatus", ask) == {"ongoingIndicator": True, "messagesInQueue": False}
    assert desk.call("GetTransactionStatus", {"transactionId": "unknown"}) == {
        "ongoingIndicator": False,
        "messagesInQueue": False,
    }
    desk.fault("lose-answers", action="TransactionEvent")
    desk.end()
    wait_for(lambda: desk.call("GetTransactionStatus", ask) == {"ongoingIndicator": False, "messagesInQueue": True})
    assert desk.call("GetTransactionStatus", {}) == {"messagesInQueue": True}


def test_a_reservation_that_lapses_is_told(desk: Live) -> None:
    token = {"idToken": "DEADBEEF", "type": "ISO14443"}
    assert (
        desk.call("ReserveNow", {"id": 4, "evseId": 1, "expiryDateTime": "2099-01-01T00:00:00Z", "idToken": token})[
            "status"
        ]
        == "Accepted"
    )
    desk.do(desk.service.station.tick, Now(clock().mono_ns, datetime(2099, 1, 2, tzinfo=timezone.utc)))
    wait_for(lambda: desk.received("ReservationStatusUpdate"))
    assert desk.received("ReservationStatusUpdate") == [{"reservationId": 4, "reservationUpdateStatus": "Expired"}]


def test_robot_figures_go_as_data_transfer_in_1_6(live: Make) -> None:
    desk = live(version="1.6")
    desk.online()
    desk.do(desk.service.dialect.robot, FIGURES)
    wait_for(lambda: [d for d in desk.received("DataTransfer") if d["messageId"] == "Robot"])
    [told] = desk.received("DataTransfer")
    assert '"InsertionForce": 64.0' in told["data"]


def test_figures_of_a_mating() -> None:
    figures = RobotFigures()
    for mode, seconds in ((1, 0.0), (2, 1.0), (3, 2.0), (4, 4.0), (5, 6.0)):
        assert figures.hear(mode, seconds, 1, 10.0, 0.001, 0.01) is None
    found = figures.hear(6, 9.5, 2, 70.0, 0.0015, 0.046)
    assert found and found["TimeToMate"] == (7.5, "s") and found["LateralOffset"] == (1.5, "mm")
    assert found["Attempts"] == (2.0, "") and found["Matings"] == (1.0, "")
    assert figures.hear(6, 9.6, 2, 70.0, 0.0015, 0.046) is None
