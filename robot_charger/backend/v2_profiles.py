"""Charging profiles and limits in the messages of OCPP 2.x (block K)."""

from __future__ import annotations

import math
from collections.abc import Callable

from robot_charger.backend.answers import Answer, Handler, Reply
from robot_charger.backend.records import Limit, Now, Payload
from robot_charger.backend.smart_charging import MAX_DURATION_S, ProfileError
from robot_charger.backend.station import Station

LIMIT_SOURCES = ("EMS", "Other", "SO", "CSO")  # ChargingLimitSourceEnumType


class Profiles:
    def __init__(self, station: Station, clock: Callable[[], Now]) -> None:
        self.station = station
        self.clock = clock

    @property
    def handlers(self) -> dict[str, Handler]:
        return {
            "SetChargingProfile": self._set_profile,
            "ClearChargingProfile": self._clear_profile,
            "GetCompositeSchedule": self._composite,
            "GetChargingProfiles": self._get_profiles,
        }

    def external_limit(self, evse: int, limit: Limit) -> None:
        source = limit.source if limit.source in LIMIT_SOURCES else "EMS"
        schedules: list[Payload] = [
            {
                "id": number,
                "chargingRateUnit": unit,
                "startSchedule": self.clock().iso,
                "chargingSchedulePeriod": [{"startPeriod": 0, "limit": round(value, 1)}],
            }
            for number, (unit, value) in enumerate((("W", limit.max_power_w), ("A", limit.max_current_a)), 1)
            if math.isfinite(value)
        ]
        if schedules:
            self.station.outside.send(
                (
                    "NotifyChargingLimit",
                    {"evseId": evse, "chargingLimit": {"chargingLimitSource": source}, "chargingSchedule": schedules},
                )
            )
        else:
            self.station.outside.send(("ClearedChargingLimit", {"evseId": evse, "chargingLimitSource": source}))

    def _set_profile(self, payload: Payload) -> Payload:
        evse = payload["evseId"]
        transactions = self.station.evses.get(evse)
        running = transactions.transaction_id if transactions else ""
        try:
            self.station.smart.check_k01(evse, payload["chargingProfile"])
            self.station.smart.set(evse, payload["chargingProfile"], running, len(self.station.evses))
        except ProfileError as error:
            return {"status": "Rejected", "statusInfo": {"reasonCode": error.reason, "additionalInfo": str(error)}}
        self.station.refresh(self.clock())
        return {"status": "Accepted"}

    def _clear_profile(self, payload: Payload) -> Payload:
        criteria = payload.get("chargingProfileCriteria", {})
        gone = self.station.smart.clear(
            payload.get("chargingProfileId"),
            criteria.get("evseId"),
            criteria.get("chargingProfilePurpose"),
            criteria.get("stackLevel"),
        )
        self.station.refresh(self.clock())
        return {"status": "Accepted" if gone else "Unknown"}

    def _composite(self, payload: Payload) -> Payload:
        evse, unit = payload["evseId"], payload.get("chargingRateUnit", "W")
        duration = max(1, min(payload["duration"], MAX_DURATION_S))
        if evse not in (0, *self.station.evses):
            return {"status": "Rejected", "statusInfo": {"reasonCode": "UnknownEvse"}}
        if unit not in self.station.settings["rate_units"]:
            return {"status": "Rejected", "statusInfo": {"reasonCode": "UnsupportedRateUnit"}}
        start = self.clock().wall.replace(microsecond=0)
        periods = self.station.composite(evse, start, duration, unit)
        schedule = {
            "evseId": evse,
            "duration": duration,
            "scheduleStart": Now(0, start).iso,
            "chargingRateUnit": unit,
            "chargingSchedulePeriod": periods,
        }
        return {"status": "Accepted", "schedule": schedule}

    def _get_profiles(self, payload: Payload) -> Answer:
        criteria = payload["chargingProfile"]
        evse = payload.get("evseId")
        found = [
            p
            for p in self.station.smart.profiles
            if (evse is None or p["evseId"] == evse)
            and ("chargingProfileId" not in criteria or p["id"] in criteria["chargingProfileId"])
            and criteria.get("chargingProfilePurpose", p["chargingProfilePurpose"]) == p["chargingProfilePurpose"]
            and criteria.get("stackLevel", p["stackLevel"]) == p["stackLevel"]
        ]
        if not found:
            return {"status": "NoProfiles"}

        def report() -> None:
            places = sorted({p["evseId"] for p in found})
            for place in places:
                profiles = [{k: v for k, v in p.items() if k != "evseId"} for p in found if p["evseId"] == place]
                message: Payload = {
                    "requestId": payload["requestId"],
                    "chargingLimitSource": "CSO",
                    "evseId": place,
                    "chargingProfile": profiles,
                }
                if place != places[-1]:
                    message["tbc"] = True
                self.station.outside.send(("ReportChargingProfiles", message))

        return Reply({"status": "Accepted"}, report)
