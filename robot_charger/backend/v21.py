"""OCPP 2.1: what it adds to 2.0.1 for this station, above all set-points for energy both ways."""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from typing import Any

from robot_charger.backend.answers import Handler
from robot_charger.backend.plug_and_charge import PlugAndCharge
from robot_charger.backend.records import Call, Now, Outcome, Payload, Record, TransactionLimit
from robot_charger.backend.smart_charging import PRIORITY
from robot_charger.backend.v2 import Version2

# Why a transaction ended, in words that 2.0.1 has not, from its stoppedReason.
_END_TRIGGER = {"SOCLimitReached": "SoCLimitReached", "LocalOutOfCredit": "CostLimitReached"}


class Version21(Version2):
    version = "2.1"
    subprotocol = "ocpp2.1"
    token_length = 255
    plug_and_charge = PlugAndCharge(exi_length=11_000, chain_length=10_000)

    def record(self, record: Record) -> Call | None:
        call = super().record(record)
        assert call
        if record.stopped_reason in _END_TRIGGER:
            call[1]["triggerReason"] = _END_TRIGGER[record.stopped_reason]
        if limit := record.limit:
            told = {
                "maxEnergy": limit.energy_wh,
                "maxCost": limit.cost,
                "maxTime": None if limit.seconds is None else round(limit.seconds),
                "maxSoC": None if limit.soc is None else round(limit.soc),
            }
            call[1]["transactionInfo"]["transactionLimit"] = {k: v for k, v in told.items() if v is not None}
        return call

    def read_record(self, record: Record, answer: Payload) -> tuple[Outcome, dict[str, Any], Call | None]:
        outcome, keep, follow = super().read_record(record, answer)
        if (limit := answer.get("transactionLimit")) is not None:  # the whole of it: what is not named has no limit
            names = ("maxEnergy", "maxTime", "maxSoC", "maxCost")
            values = (float(v) if (v := limit.get(n)) is not None and math.isfinite(v) else None for n in names)
            outcome = dataclasses.replace(outcome, limit=TransactionLimit(*values))
        return outcome, keep, follow

    @property
    def handlers(self) -> dict[str, Handler]:
        return {
            **super().handlers,
            "UpdateDynamicSchedule": self._update_dynamic_schedule,
            "UsePriorityCharging": self._use_priority_charging,
        }

    def tick(self, now: Now) -> None:
        super().tick(now)
        for id in self.station.smart.pulls_due(now):
            self.station.outside.send(
                ("PullDynamicScheduleUpdate", {"chargingProfileId": id}), partial(self._pulled, id)
            )

    def _pulled(self, id: int, answer: Payload | None) -> None:
        """K28: what a dynamic profile shall now say; no answer leaves it as it was."""
        if answer and answer.get("status") == "Accepted" and "scheduleUpdate" in answer:
            self.station.smart.update_dynamic(id, answer["scheduleUpdate"])
            self.station.refresh(self.clock())

    def _update_dynamic_schedule(self, payload: Payload) -> Payload:
        done = self.station.smart.update_dynamic(payload["chargingProfileId"], payload["scheduleUpdate"])
        self.station.refresh(self.clock())
        return {"status": "Accepted" if done else "Rejected"}

    def _use_priority_charging(self, payload: Payload) -> Payload:
        smart, transaction_id = self.station.smart, payload["transactionId"]
        if not any(t.transaction_id == transaction_id for t in self.station.evses.values()):
            return {"status": "Rejected"}
        if not any(p["chargingProfilePurpose"] == PRIORITY for p in smart.profiles):
            return {"status": "NoProfile"}
        (smart.priority.add if payload["activate"] else smart.priority.discard)(transaction_id)
        self.station.refresh(self.clock())
        return {"status": "Accepted"}

    @staticmethod
    def needs(needs: Payload) -> Payload:
        found = Version2.needs(needs)
        if needs["bidirectional"]:  # Q01: what the vehicle told of itself
            found["requestedEnergyTransfer"] = "DC_BPT"
            known = (
                ("maxChargePower", needs["power_w"]),
                ("maxChargeCurrent", needs["current_a"]),
                ("maxVoltage", needs["voltage_v"]),
            )
            found["v2xChargingParameters"] = {name: round(value, 1) for name, value in known if value > 0}
        return found
