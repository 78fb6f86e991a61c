"""OCPP 1.6 (JSON), with the messages of the security white paper.

The CSMS numbers transactions here: the number of StartTransaction.conf is kept in the store beside the queue, and
what belongs to the transaction waits for it, being behind it in the queue.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from robot_charger.backend import pnc16
from robot_charger.backend.answers import Answer, Handler, Reply
from robot_charger.backend.client import Client
from robot_charger.backend.device_model import DeviceModel
from robot_charger.backend.firmware import Firmware
from robot_charger.backend.maintenance import Maintenance
from robot_charger.backend.networks import Networks
from robot_charger.backend.outbox import RefusedError
from robot_charger.backend.outside import Teller
from robot_charger.backend.pnc16 import PlugAndCharge16
from robot_charger.backend.records import Call, Now, Outcome, Payload, Record, Token, TokenInfo
from robot_charger.backend.settings import RO, WO
from robot_charger.backend.smart_charging import MAX_DURATION_S, STATION_MAX, ProfileError
from robot_charger.backend.station import Station
from robot_charger.backend.v2 import unlocked
from robot_charger.backend.v16_words import (
    DIAGNOSTICS,
    ERROR_CODES,
    REASON,
    error_code,
    neutral_profile,
    plain_firmware_status,
    sampled,
)

VENDOR = "robot_charger"
NO_NUMBER = -1  # transactionId of a stop whose start the CSMS never numbered (1.6 errata)


class Version16(Teller):
    version = "1.6"
    subprotocol = "ocpp1.6"
    numbers_transactions = True
    has_connector_0 = True
    error_codes = ERROR_CODES

    def __init__(self, station: Station, clock: Callable[[], Now]) -> None:
        self.station = station
        self.clock = clock
        self.client: Client | None = None  # these are set by the service
        self.maintenance: Maintenance | None = None
        self.networks: Networks | None = None
        self.model: DeviceModel | None = None  # 1.6 has none
        station.teller = self

    @property
    def plug_and_charge(self) -> PlugAndCharge16 | None:
        """1.6 has messages for it only inside DataTransfer, and only where the CSMS says so."""
        return PlugAndCharge16(exi_length=5600, chain_length=5500) if self.station.settings["pnc_16"] else None

    # Out.
    def boot(self, reason: str) -> Call:
        identity = self.station.identity
        payload = {
            "chargePointVendor": identity.vendor[:20],
            "chargePointModel": identity.model[:20],
            "firmwareVersion": identity.firmware[:50],
        }
        if identity.serial:
            payload["chargePointSerialNumber"] = identity.serial[:25]
        return "BootNotification", payload

    def after_boot(self) -> None:
        """The CSMS accepted the station."""

    def heartbeat(self) -> Call:
        return "Heartbeat", {}

    def connector_status(self, evse: int) -> str:
        if evse == 0:
            return "Available" if self.station.operative(0) else "Unavailable"
        return self.station.status[evse]

    def status(self, evse: int) -> Call:
        transactions = self.station.evses.get(evse)
        view = transactions.view if transactions else None
        payload: Payload = {
            "connectorId": evse,
            "errorCode": "NoError",
            "status": self.connector_status(evse),
            "timestamp": self.clock().iso,
        }
        if view and view.fault:
            payload["errorCode"] = error_code(view.fault)
            payload["vendorId"] = VENDOR
            payload["vendorErrorCode"] = str(view.fault)
        if view and view.text:
            payload["info"] = view.text[:50]
        return "StatusNotification", payload

    def authorize(self, token: Token, contract: str = "") -> Call:
        if contract and (pnc := self.plug_and_charge):
            return pnc.authorize(token, contract)
        return "Authorize", {"idTag": token.id[:20]}

    def read_authorize(self, answer: Payload) -> TokenInfo:
        if "idTagInfo" not in answer and "status" in answer:  # of DataTransfer
            return PlugAndCharge16.read_authorize(answer)
        return self.token_info(answer.get("idTagInfo", {}))

    @staticmethod
    def token_info(info: Payload) -> TokenInfo:
        """Without a status it is Invalid: never accepted."""
        return TokenInfo(info.get("status", "Invalid"), info.get("parentIdTag", ""), info.get("expiryDate", ""))

    def record(self, record: Record) -> Call | None:
        number = self.station.store.get(self._key(record), NO_NUMBER)
        if record.event == "Started":
            start = {
                "connectorId": record.evse,
                "idTag": (record.token.id if record.token else "")[:20],
                "meterStart": round(record.readings[0].import_wh) if record.readings else 0,
                "timestamp": record.time,
            }
            if record.reservation_id is not None:
                start["reservationId"] = record.reservation_id
            return "StartTransaction", start
        if record.event == "Updated":
            values = self._meter_values(record, "measurands")
            if not values:
                return None  # 1.6 tells a change of state by StatusNotification
            payload: Payload = {"connectorId": record.evse, "meterValue": values}
            if number != NO_NUMBER:
                payload["transactionId"] = number
            return "MeterValues", payload
        stop: Payload = {
            "transactionId": number,
            "timestamp": record.time,
            "meterStop": round(record.readings[-1].import_wh) if record.readings else 0,
            "reason": REASON.get(record.stopped_reason, "Other"),
        }
        if record.token and record.trigger == "StopAuthorized":
            stop["idTag"] = record.token.id[:20]
        values = self._meter_values(record, "ended_measurands")
        if values:
            stop["transactionData"] = values
        return "StopTransaction", stop

    @staticmethod
    def _key(record: Record) -> str:
        return f"number.{record.transaction_id}"

    def _meter_values(self, record: Record, setting: str) -> list[Payload]:
        settings = self.station.settings
        aligned = "aligned_ended" if record.event == "Ended" else "aligned_measurands"
        found = []
        for reading in record.readings:
            values = sampled(reading, settings[aligned if reading.context == "Sample.Clock" else setting])
            if values:
                found.append({"timestamp": reading.time, "sampledValue": values})
        return found

    def idle_reading(self, evse: int) -> None:
        reading = self.station.evses[evse].reading
        if reading is None:
            return
        values = sampled(replace(reading, context="Sample.Clock"), self.station.settings["aligned_measurands"])
        if values:
            value = {"timestamp": reading.time, "sampledValue": values}
            self.station.outside.send(("MeterValues", {"connectorId": evse, "meterValue": [value]}))

    def read_record(self, record: Record, answer: Payload) -> tuple[Outcome, dict[str, Any], Call | None]:
        info = answer.get("idTagInfo", {})
        number = answer.get("transactionId")
        outcome = Outcome(self.token_info(info) if "status" in info else None, number)
        if record.event == "Started":
            if number is None:
                raise RefusedError("FormationViolation", "StartTransaction was answered without a transactionId")
            session = {"transactionId": number, "sessionId": record.session_id}
            follow = "DataTransfer", {"vendorId": VENDOR, "messageId": "Session", "data": json.dumps(session)}
            return outcome, {self._key(record): number}, follow
        return outcome, {self._key(record): None} if record.event == "Ended" else {}, None

    # In.
    @property
    def handlers(self) -> dict[str, Handler]:
        return {
            "RemoteStartTransaction": self._remote_start,
            "RemoteStopTransaction": self._remote_stop,
            "ChangeAvailability": self._change_availability,
            "UnlockConnector": self._unlock,
            "Reset": self._reset,
            "TriggerMessage": self._trigger,
            "GetConfiguration": self._get_configuration,
            "ChangeConfiguration": self._change_configuration,
            "ClearCache": lambda p: {"status": "Accepted" if self.station.tokens.clear_cache() else "Rejected"},
            "SendLocalList": self._send_local_list,
            "GetLocalListVersion": lambda p: {
                "listVersion": self.station.tokens.version_told if self.station.settings["list_enabled"] else -1
            },
            "ReserveNow": self._reserve,
            "CancelReservation": self._cancel_reservation,
            "SetChargingProfile": self._set_profile,
            "ClearChargingProfile": self._clear_profile,
            "GetCompositeSchedule": self._composite,
            "DataTransfer": self._data_transfer,
            "GetDiagnostics": self._get_diagnostics,
            "UpdateFirmware": self._update_firmware,
            "SignedUpdateFirmware": self._signed_update_firmware,
            "GetLog": self._get_log,
            "ExtendedTriggerMessage": self._trigger,
            "CertificateSigned": self._certificate_signed,
            "InstallCertificate": lambda p: {
                "status": self.care.install_certificate(p["certificateType"], p["certificate"])
            },
            "DeleteCertificate": lambda p: {"status": self.care.delete_certificate(p["certificateHashData"])},
            "GetInstalledCertificateIds": self._certificate_ids,
        }

    def _transaction(self, number: int) -> str:
        """The station's own id of a running transaction, empty when none has this number."""
        for transactions in self.station.evses.values():
            transaction_id = transactions.transaction_id
            if transaction_id and self.station.store.get(f"number.{transaction_id}") == number:
                return transaction_id
        return ""

    def _remote_start(self, payload: Payload) -> Payload | Reply:
        connector = payload.get("connectorId")
        profile = payload.get("chargingProfile")
        if connector == 0 or (profile and profile["chargingProfilePurpose"] != "TxProfile"):
            return {"status": "Rejected"}
        accepted, _, _ = self.station.request_start(
            Token(payload["idTag"]), connector, None, "", self.clock(), neutral_profile(profile) if profile else None
        )
        return {"status": "Accepted" if accepted else "Rejected"}

    def _remote_stop(self, payload: Payload) -> Payload:
        transaction_id = self._transaction(payload["transactionId"])
        done = bool(transaction_id) and self.station.request_stop(transaction_id)
        return {"status": "Accepted" if done else "Rejected"}

    def _change_availability(self, payload: Payload) -> Payload:
        operative = payload["type"] == "Operative"
        status = self.station.change_availability(payload["connectorId"], operative, self.clock())
        if payload["connectorId"] == 0 and status == "Accepted":
            self.station.outside.status_changed(0)
        return {"status": status}

    def _unlock(self, payload: Payload) -> Answer | Awaitable[Answer]:
        evse = payload["connectorId"]
        transactions = self.station.evses.get(evse)
        if transactions is None:
            return {"status": "NotSupported"}
        if transactions.open:  # 1.6: an unlock ends what runs
            self.station.stop(evse, "UnlockCommand", "unlock by the back end")
            return {"status": "Unlocked"}
        if self.station.unlock(evse):
            return {"status": "Unlocked"}
        return unlocked(self.station, evse)

    def _reset(self, payload: Payload) -> Payload | Reply:
        soft = payload["type"] == "Soft"
        self.station.reset(True, self.clock(), "SoftReset" if soft else "ImmediateReset")
        return Reply({"status": "Accepted"}, lambda: self.station.refresh(self.clock()))

    def _trigger(self, payload: Payload) -> Payload | Reply:
        connector = payload.get("connectorId")
        if connector is not None and connector not in (0, *self.station.evses):
            return {"status": "Rejected"}
        action = self.triggers().get(payload["requestedMessage"])
        if action is None:
            return {"status": "NotImplemented"}
        evses = [connector] if connector else list(self.station.evses)
        return Reply({"status": "Accepted"}, lambda: action(evses))

    def triggers(self) -> dict[str, Callable[[list[int]], None]]:
        assert self.client
        client, send = self.client, self.station.outside.send
        return {
            "BootNotification": lambda evses: client.boot_again(),
            "Heartbeat": lambda evses: send(self.heartbeat()),
            "StatusNotification": self._trigger_status,
            "MeterValues": self._trigger_meter,
            "FirmwareStatusNotification": lambda evses: send(
                self.firmware_status(self.care.firmware_state, self.care.firmware)
            ),
            "DiagnosticsStatusNotification": lambda evses: send(
                ("DiagnosticsStatusNotification", {"status": DIAGNOSTICS.get(self.care.log_state, "Idle")})
            ),
            "LogStatusNotification": lambda evses: send(
                self.log_status(self.care.log_state, self.care.log_request or 0)
            ),
            "SignChargePointCertificate": lambda evses: self.care.sign_certificate(),
        }

    def _trigger_status(self, evses: list[int]) -> None:
        for evse in evses:
            self.station.outside.send(self.status(evse))

    def _trigger_meter(self, evses: list[int]) -> None:
        for evse in evses:
            reading = self.station.evses[evse].reading
            if self.station.evses[evse].sample("Trigger", "Trigger", self.clock()) or reading is None:
                continue
            items = [{**i, "context": "Trigger"} for i in sampled(reading, self.station.settings["measurands"])]
            self.station.outside.send(
                (
                    "MeterValues",
                    {"connectorId": evse, "meterValue": [{"timestamp": reading.time, "sampledValue": items}]},
                )
            )

    # Configuration.
    def _get_configuration(self, payload: Payload) -> Payload:
        settings = self.station.settings
        wanted = payload.get("key") or [s.key for s in settings.by_key.values()]
        known, unknown = [], []
        for key in wanted:
            setting = settings.by_key.get(key.casefold())
            if setting is None:
                unknown.append(key)
                continue
            item: Payload = {"key": setting.key, "readonly": setting.mutability == RO}
            if setting.mutability != WO:
                item["value"] = settings.key_text(setting)[:500]
            known.append(item)
        answer: Payload = {"configurationKey": known}
        if unknown:
            answer["unknownKey"] = unknown
        return answer

    def _change_configuration(self, payload: Payload) -> Payload:
        setting = self.station.settings.by_key.get(payload["key"].casefold())
        if setting is None:
            return {"status": "NotSupported"}
        value = payload["value"]
        if setting.name == "password":
            value = self._password(value)
        return {"status": self.station.settings.change(setting, value)}

    def _password(self, value: str) -> str:
        """AuthorizationKey is written in hexadecimal (white paper A00.FR.205); what is none is the password itself."""
        try:
            plain = bytes.fromhex(value) if 32 <= len(value) <= 40 else b""
        except ValueError:
            plain = b""
        if not plain:
            return value
        if self.networks:
            self.networks.as_sent = value  # tried as well, until the next change
        return plain.decode("utf-8", "surrogateescape")

    # Lists and reservations.
    def _send_local_list(self, payload: Payload) -> Payload:
        entries = [
            (Token(e["idTag"]), self.token_info(e["idTagInfo"]) if "idTagInfo" in e else None)
            for e in payload.get("localAuthorizationList", [])
        ]
        if not self.station.settings["list_enabled"]:
            return {"status": "NotSupported"}
        full = payload["updateType"] == "Full"
        return {"status": self.station.tokens.update_list(payload["listVersion"], entries, full)}

    def _reserve(self, payload: Payload) -> Payload:
        if payload["connectorId"] == 0:
            return {"status": "Rejected"}
        return {
            "status": self.station.reserve(
                payload["reservationId"],
                payload["connectorId"],
                Token(payload["idTag"]),
                payload.get("parentIdTag", ""),
                payload["expiryDate"],
                self.clock(),
            )
        }

    def _cancel_reservation(self, payload: Payload) -> Payload:
        done = self.station.cancel_reservation(payload["reservationId"], self.clock())
        return {"status": "Accepted" if done else "Rejected"}

    # Smart charging.
    def _set_profile(self, payload: Payload) -> Payload:
        evse = payload["connectorId"]
        profile = neutral_profile(payload["csChargingProfiles"])
        transactions = self.station.evses.get(evse)
        running = transactions.transaction_id if transactions else ""
        if "transactionId" in profile:
            profile["transactionId"] = self._transaction(profile["transactionId"]) or "none"
        try:
            self.station.smart.set(evse, profile, running, len(self.station.evses))
        except ProfileError:
            return {"status": "Rejected"}
        self.station.refresh(self.clock())
        return {"status": "Accepted"}

    def _clear_profile(self, payload: Payload) -> Payload:
        purpose = payload.get("chargingProfilePurpose")
        purpose = STATION_MAX if purpose == "ChargePointMaxProfile" else purpose
        gone = self.station.smart.clear(
            payload.get("id"), payload.get("connectorId"), purpose, payload.get("stackLevel")
        )
        self.station.refresh(self.clock())
        return {"status": "Accepted" if gone else "Unknown"}

    def _composite(self, payload: Payload) -> Payload:
        evse, unit = payload["connectorId"], payload.get("chargingRateUnit", "W")
        duration = max(1, min(payload["duration"], MAX_DURATION_S))
        if evse not in (0, *self.station.evses):
            return {"status": "Rejected"}
        start = self.clock().wall.replace(microsecond=0)
        periods = self.station.composite(evse, start, duration, unit)
        return {
            "status": "Accepted",
            "connectorId": evse,
            "scheduleStart": Now(0, start).iso,
            "chargingSchedule": {
                "duration": duration,
                "startSchedule": Now(0, start).iso,
                "chargingRateUnit": unit,
                "chargingSchedulePeriod": periods,
            },
        }

    # What the rest of the station tells.
    def text(self) -> str:
        return ""

    def robot(self, figures: dict[str, tuple[float, str]]) -> None:
        data = {name: value for name, (value, _) in figures.items()}
        self.station.outside.send(
            ("DataTransfer", {"vendorId": VENDOR, "messageId": "Robot", "data": json.dumps(data)})
        )

    def tick(self, now: Now) -> None:
        """Once a second: 1.6 has no monitors to look at."""

    def charging_needs(self, evse: int, needs: Payload) -> None:
        """1.6 has no word for it."""

    # Maintenance.
    @property
    def care(self) -> Maintenance:
        assert self.maintenance
        return self.maintenance

    def firmware_status(self, status: str, firmware: Firmware | None) -> Call:
        if firmware and firmware.request_id is not None:  # asked for by SignedUpdateFirmware
            return "SignedFirmwareStatusNotification", {"status": status, "requestId": firmware.request_id}
        return "FirmwareStatusNotification", {"status": plain_firmware_status(status)}

    def log_status(self, status: str, request_id: int | None) -> Call:
        if request_id is None:
            return "DiagnosticsStatusNotification", {"status": DIAGNOSTICS.get(status, "Idle")}
        status = "UploadFailure" if status == "AcceptedCanceled" else status  # 1.6 has no word for it
        return "LogStatusNotification", {"status": status, "requestId": request_id}

    def sign_certificate(self, csr: str) -> Call:
        return "SignCertificate", {"csr": csr}

    def _get_diagnostics(self, payload: Payload) -> Payload:
        _, name = self.care.get_log(
            "DiagnosticsLog",
            None,
            payload["location"],
            payload.get("startTime", ""),
            payload.get("stopTime", ""),
            payload.get("retries", 0),
            payload.get("retryInterval", 10),
        )
        return {"fileName": name} if name else {}

    def _update_firmware(self, payload: Payload) -> Payload:
        """Plain 1.6 has no signature: done only with parameter firmware.unsigned."""
        firmware = Firmware(
            None,
            payload["location"],
            payload["retrieveDate"],
            retries=payload.get("retries", 0),
            retry_interval_s=payload.get("retryInterval", 10),
        )
        if self.care.update_firmware(firmware) not in ("Accepted", "AcceptedCanceled"):
            # Its answer has no word for a refusal.
            self.station.outside.send(("FirmwareStatusNotification", {"status": "InstallationFailed"}))
        return {}

    def _signed_update_firmware(self, payload: Payload) -> Payload:
        wanted = payload["firmware"]
        return {
            "status": self.care.update_firmware(
                Firmware(
                    payload["requestId"],
                    wanted["location"],
                    wanted["retrieveDateTime"],
                    wanted.get("installDateTime", ""),
                    wanted["signature"],
                    wanted["signingCertificate"],
                    payload.get("retries", 0),
                    payload.get("retryInterval", 10),
                )
            )
        }

    def _data_transfer(self, payload: Payload) -> Payload:
        if payload["vendorId"] == pnc16.VENDOR and self.station.settings["pnc_16"]:
            return pnc16.answer(self.care, payload)
        return {"status": "UnknownVendorId"}

    def _get_log(self, payload: Payload) -> Payload:
        place = payload["log"]
        status, name = self.care.get_log(
            payload["logType"],
            payload["requestId"],
            place["remoteLocation"],
            place.get("oldestTimestamp", ""),
            place.get("latestTimestamp", ""),
            payload.get("retries", 0),
            payload.get("retryInterval", 10),
        )
        return {"status": status, "filename": name} if name else {"status": status}

    def _certificate_signed(self, payload: Payload) -> Payload | Reply:
        if not self.care.certificate_signed(payload["certificateChain"]):
            return {"status": "Rejected"}
        assert self.client
        client = self.client
        return Reply({"status": "Accepted"}, lambda: client.reconnect())

    def _certificate_ids(self, payload: Payload) -> Payload:
        found = self.care.certificates.installed([payload["certificateType"]])
        if not found:
            return {"status": "NotFound"}
        return {"status": "Accepted", "certificateHashData": [data for _, data in found]}
