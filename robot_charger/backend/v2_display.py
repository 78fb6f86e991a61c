"""Display messages, cost and customers in the messages of OCPP 2.x (blocks I, N09, N10, O)."""

from __future__ import annotations

from collections.abc import Callable

from robot_charger.backend.answers import Answer, Handler, Reply
from robot_charger.backend.records import Now, Payload
from robot_charger.backend.settings import MESSAGES
from robot_charger.backend.station import Station


class Display:
    def __init__(self, station: Station, clock: Callable[[], Now]) -> None:
        self.station = station
        self.clock = clock
        self.messages: dict[int, Payload] = {m["id"]: m for m in station.store.get("messages", [])}

    @property
    def handlers(self) -> dict[str, Handler]:
        return {
            "CustomerInformation": self._customer_information,
            "CostUpdated": self._cost_updated,
            "SetDisplayMessage": self._set_message,
            "GetDisplayMessages": self._get_messages,
            "ClearDisplayMessage": self._clear_message,
        }

    def _customer_information(self, payload: Payload) -> Answer:
        token = payload.get("idToken", {}).get("idToken", "")
        if not token and "customerIdentifier" not in payload and "customerCertificate" not in payload:
            return {"status": "Invalid"}
        text = self.station.tokens.about(token) if token else ""
        if payload["clear"] and token:
            self.station.tokens.forget(token)

        def tell() -> None:
            parts = [text[n : n + 512] for n in range(0, len(text), 512)] or [""]
            for number, part in enumerate(parts):
                self.station.outside.send(
                    (
                        "NotifyCustomerInformation",
                        {
                            "requestId": payload["requestId"],
                            "data": part,
                            "seqNo": number,
                            "generatedAt": self.clock().iso,
                            "tbc": number < len(parts) - 1,
                        },
                    )
                )

        return Reply({"status": "Accepted"}, tell if payload["report"] or payload["clear"] else None)

    def _cost_updated(self, payload: Payload) -> Payload:
        self.station.cost(payload["transactionId"], float(payload["totalCost"]))
        return {}

    def _set_message(self, payload: Payload) -> Payload:
        message = payload["message"]
        transaction_id = message.get("transactionId")
        if transaction_id and not any(t.transaction_id == transaction_id for t in self.station.evses.values()):
            return {"status": "UnknownTransaction"}
        if message["priority"] not in self.station.settings["display_priorities"]:
            return {"status": "NotSupportedPriority"}
        if message["message"]["format"] not in self.station.settings["display_formats"]:
            return {"status": "NotSupportedMessageFormat"}
        if message["id"] not in self.messages and len(self.messages) >= MESSAGES:
            return {"status": "Rejected", "statusInfo": {"reasonCode": "TooManyElements"}}
        self._keep_messages({**self.messages, message["id"]: message})
        return {"status": "Accepted"}

    def _keep_messages(self, messages: dict[int, Payload]) -> None:
        self.station.store.put("messages", list(messages.values()))
        self.messages = messages
        self.station.settings.note("display_messages", len(messages))

    def _get_messages(self, payload: Payload) -> Answer:
        found = [
            m
            for m in self.messages.values()
            if ("id" not in payload or m["id"] in payload["id"])
            and payload.get("priority", m["priority"]) == m["priority"]
            and payload.get("state", m.get("state")) == m.get("state")
        ]
        if not found:
            return {"status": "Unknown"}
        return Reply(
            {"status": "Accepted"},
            lambda: self.station.outside.send(
                ("NotifyDisplayMessages", {"requestId": payload["requestId"], "messageInfo": found})
            ),
        )

    def _clear_message(self, payload: Payload) -> Payload:
        if payload["id"] not in self.messages:
            return {"status": "Unknown"}
        self._keep_messages({i: m for i, m in self.messages.items() if i != payload["id"]})
        return {"status": "Accepted"}

    def text(self) -> str:
        """What a person at the station may read: messages of the back end and running cost."""
        parts = [m["message"]["content"] for m in self.messages.values() if "message" in m]
        tariff, total = (self.station.settings[n] for n in ("tariff_fallback", "cost_fallback"))
        for transactions in self.station.evses.values():
            running, view = transactions.open, transactions.view
            if running and running.cost is not None:
                parts.append(f"cost so far {running.cost:.2f}")
            elif running and total and not self.station.online:
                parts.append(total)  # the CSMS, which knows the cost, is away (I06)
            elif not running and tariff and view and view.session_id:
                parts.append(tariff)  # no tariff is known before a transaction (I05)
        return "; ".join(parts)
