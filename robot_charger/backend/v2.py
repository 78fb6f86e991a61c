"""What OCPP 2.0.1 and 2.1 share: payloads out of records, answers and requests into the station."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from robot_charger.backend.answers import Answer, Handler, Reply
from robot_charger.backend.client import Client
from robot_charger.backend.device_model import DeviceModel
from robot_charger.backend.firmware import Firmware
from robot_charger.backend.maintenance import Maintenance
from robot_charger.backend.networks import Networks
from robot_charger.backend.outside import Teller
from robot_charger.backend.plug_and_charge import PlugAndCharge
from robot_charger.backend.records import (
    Call,
    Limit,
    Now,
    Outcome,
    Payload,
    Reading,
    Record,
    Token,
    TokenInfo,
)
from robot_charger.backend.settings import RO, WO
from robot_charger.backend.station import Station
from robot_charger.backend.v2_display import Display
from robot_charger.backend.v2_profiles import Profiles

UNLOCK_S = 25.0  # longest time the robot may take to unplug before the CSMS is told that it failed
SIGNED_LENGTH = 2500  # of signed meter data, which are never cut
CONNECTOR_STATUS = {
    "Available": "Available",
    "Preparing": "Occupied",
    "Charging": "Occupied",
    "SuspendedEV": "Occupied",
    "SuspendedEVSE": "Occupied",
    "Finishing": "Occupied",
    "Reserved": "Reserved",
    "Unavailable": "Unavailable",
    "Faulted": "Faulted",
}


def sampled(
    reading: Reading, measurands: list[str] | None = None, signed: bool = True, public_key: str = ""
) -> list[Payload]:
    """SampledValueType items of one reading. Export values appear where they are not zero. Signed data go with the
    import register, unaltered or not at all."""
    charging = reading.current_a >= 0
    values: list[tuple[str, float, str | None]] = [
        ("Energy.Active.Import.Register", reading.import_wh, "Wh"),
        ("Energy.Active.Export.Register", reading.export_wh, "Wh"),
        ("Power.Active.Import" if charging else "Power.Active.Export", abs(reading.power_w), "W"),
        ("Current.Import" if charging else "Current.Export", abs(reading.current_a), "A"),
        ("Voltage", reading.voltage_v, "V"),
    ]
    if reading.soc is not None and reading.soc >= 0:
        values.append(("SoC", reading.soc, "Percent"))
    boundary = reading.context in ("Transaction.Begin", "Transaction.End")
    items = []
    for measurand, value, unit in values:
        if measurand == "Energy.Active.Export.Register" and value == 0.0 and not boundary:
            continue
        if measurands is not None and measurand not in measurands:
            continue
        item: Payload = {"value": round(value, 3), "context": reading.context, "measurand": measurand}
        item["unitOfMeasure"] = {"unit": unit}
        if signed and measurand == "Energy.Active.Import.Register" and 0 < len(reading.signed_data) <= SIGNED_LENGTH:
            item["signedMeterValue"] = {
                "signedMeterData": reading.signed_data,
                "signingMethod": "",
                "encodingMethod": "OCMF",
                "publicKey": public_key,
            }
        items.append(item)
    return items


async def unlocked(station: Station, evse: int) -> Payload:
    """The answer to UnlockConnector: whether the robot took the plug out in time."""
    for _ in range(int(UNLOCK_S / 0.1)):
        if not station.plugged(evse):
            return {"status": "Unlocked"}
        await asyncio.sleep(0.1)
    return {"status": "UnlockFailed"}


class Version2(Teller):
    """Common part of the 2.x dialects; subclasses name the version."""

    version = "2.0.1"
    subprotocol = "ocpp2.0.1"
    numbers_transactions = False
    has_connector_0 = False
    error_codes: dict[str, str] = {}
    token_length = 36
    plug_and_charge = PlugAndCharge(exi_length=5600, chain_length=5500)
    token_types: tuple[str, ...] = ()  # IdTokenEnumType where it is closed; empty: any word

    def __init__(self, station: Station, clock: Callable[[], Now]) -> None:
        self.station = station
        self.clock = clock
        self.client: Client | None = None  # these are set by the service
        self.maintenance: Maintenance | None = None
        self.networks: Networks | None = None
        self.model = DeviceModel(station, clock, self.version)
        self.profiles = Profiles(station, clock)
        self.display = Display(station, clock)
        self._needs_told: set[str] = set()
        station.teller = self

    # Out.
    def boot(self, reason: str) -> Call:
        identity = self.station.identity
        station = {
            "model": identity.model[:20],
            "vendorName": identity.vendor[:50],
            "firmwareVersion": identity.firmware[:50],
        }
        if identity.serial:
            station["serialNumber"] = identity.serial[:25]
        return "BootNotification", {"reason": reason, "chargingStation": station}

    def after_boot(self) -> None:
        """The CSMS accepted the station."""

    def heartbeat(self) -> Call:
        return "Heartbeat", {}

    def connector_status(self, evse: int) -> str:
        return CONNECTOR_STATUS[self.station.status[evse]]

    def status(self, evse: int) -> Call:
        return "StatusNotification", {
            "timestamp": self.clock().iso,
            "connectorStatus": self.connector_status(evse),
            "evseId": evse,
            "connectorId": 1,
        }

    def authorize(self, token: Token, contract: str = "") -> Call:
        """Raises CertificateError when the contract is no PEM chain."""
        of_contract = self.plug_and_charge.contract(contract) if contract else {}
        return "Authorize", {"idToken": self.id_token(token), **of_contract}

    def read_authorize(self, answer: Payload) -> TokenInfo:
        info = self.token_info(answer.get("idTokenInfo", {}))
        if answer.get("certificateStatus", "Accepted") != "Accepted":  # revoked, expired, ...: no matter who it is
            return TokenInfo("Invalid", info.group_id)
        return info

    def id_token(self, token: Token) -> Payload:
        kind = token.type if not self.token_types or token.type in self.token_types else "Local"
        return {"idToken": token.id[: self.token_length], "type": kind}

    @staticmethod
    def token_info(info: Payload) -> TokenInfo:
        """Without a status it is Invalid: never accepted."""
        return TokenInfo(
            info.get("status", "Invalid"),
            info.get("groupIdToken", {}).get("idToken", ""),
            info.get("cacheExpiryDateTime", ""),
            tuple(info.get("evseId", ())),
        )

    def record(self, record: Record) -> Call | None:
        info: Payload = {"transactionId": record.transaction_id}
        if record.charging_state:
            info["chargingState"] = record.charging_state
        if record.seconds_charging:
            info["timeSpentCharging"] = record.seconds_charging
        if record.stopped_reason:
            info["stoppedReason"] = record.stopped_reason
        if record.remote_start_id is not None:
            info["remoteStartId"] = record.remote_start_id
        payload: Payload = {
            "eventType": record.event,
            "timestamp": record.time,
            "triggerReason": record.trigger,
            "seqNo": record.seq_no,
            "transactionInfo": info,
            "evse": {"id": record.evse, "connectorId": 1},
        }
        if record.offline:
            payload["offline"] = True
        if record.reservation_id is not None:
            payload["reservationId"] = record.reservation_id
        tells_token = record.event == "Started" or record.trigger in ("Authorized", "RemoteStart", "StopAuthorized")
        if tells_token:
            token = record.token or Token("", "NoAuthorization")
            payload["idToken"] = (
                self.id_token(token) if token.type != "NoAuthorization" else {"idToken": "", "type": "NoAuthorization"}
            )
        readings = [r for r in record.readings if record.event != "Ended" or r.context != "Transaction.Begin"]
        values = self._meter_values(readings, record.event, record.evse)
        if values:
            payload["meterValue"] = values
        return "TransactionEvent", payload

    def _meter_values(self, readings: list[Reading], event: str, evse: int) -> list[Payload]:
        """MeterValueType items, with what the settings want of readings on this occasion."""
        settings = self.station.settings
        found = []
        for reading in readings:
            aligned = reading.context == "Sample.Clock"
            signed = settings["aligned_signed" if aligned else "sign_readings"]
            how = settings["public_key"]
            tells_key = how == "EveryMeterValue" or (how == "OncePerTransaction" and event in ("Started", "Ended"))
            key = self.model.public_keys.get(evse, "") if tells_key else ""
            measurands = settings[self._measurands(event, aligned)]
            if values := sampled(reading, measurands, signed, key):
                found.append({"timestamp": reading.time, "sampledValue": values})
        return found

    @staticmethod
    def _measurands(event: str, aligned: bool) -> str:
        """The setting that names them."""
        if aligned:
            return "aligned_ended" if event == "Ended" else "aligned_measurands"
        return {"Started": "started_measurands", "Ended": "ended_measurands"}.get(event, "measurands")

    def idle_reading(self, evse: int, context: str = "Sample.Clock") -> None:
        reading = self.station.evses[evse].reading
        if reading is None:
            return
        values = self._meter_values([replace(reading, context=context)], "Idle", evse)
        if values:
            self.station.outside.send(("MeterValues", {"evseId": evse, "meterValue": values}))

    def read_record(self, record: Record, answer: Payload) -> tuple[Outcome, dict[str, Any], Call | None]:
        info = answer.get("idTokenInfo", {})
        message = answer.get("updatedPersonalMessage", {}).get("content", "")
        cost = answer.get("totalCost")
        total = float(cost) if cost is not None and math.isfinite(cost) else None
        return Outcome(self.token_info(info) if "status" in info else None, None, total, message), {}, None

    def reservation_ended(self, id: int, status: str) -> None:
        self.station.outside.send(("ReservationStatusUpdate", {"reservationId": id, "reservationUpdateStatus": status}))

    # In.
    @property
    def handlers(self) -> dict[str, Handler]:
        return {
            **self.profiles.handlers,
            **self.display.handlers,
            "RequestStartTransaction": self._request_start,
            "RequestStopTransaction": self._request_stop,
            "GetTransactionStatus": self._transaction_status,
            "ChangeAvailability": self._change_availability,
            "UnlockConnector": self._unlock,
            "Reset": self._reset,
            "TriggerMessage": self._trigger,
            "GetVariables": self._get_variables,
            "SetVariables": self._set_variables,
            "ClearCache": self._clear_cache,
            "SendLocalList": self._send_local_list,
            "GetLocalListVersion": lambda p: {"versionNumber": self.station.tokens.version_told},
            "ReserveNow": self._reserve,
            "CancelReservation": self._cancel_reservation,
            "DataTransfer": lambda p: {"status": "UnknownVendorId"},
            "GetBaseReport": self._base_report,
            "GetReport": self._report,
            "SetVariableMonitoring": lambda p: {
                "setMonitoringResult": [self.model.set_monitor(d) for d in p["setMonitoringData"]]
            },
            "ClearVariableMonitoring": lambda p: {"clearMonitoringResult": self.model.clear_monitors(p["id"])},
            "GetMonitoringReport": self._monitoring_report,
            "SetMonitoringBase": self._monitoring_base,
            "SetMonitoringLevel": lambda p: {
                "status": "Accepted" if self.model.set_level(p["severity"]) else "Rejected"
            },
            "UpdateFirmware": self._update_firmware,
            "GetLog": self._get_log,
            "SetNetworkProfile": self._set_network_profile,
            "CertificateSigned": self._certificate_signed,
            "InstallCertificate": self._install_certificate,
            "DeleteCertificate": self._delete_certificate,
            "GetInstalledCertificateIds": self._certificate_ids,
        }

    @staticmethod
    def _token(payload: Payload) -> Token:
        return Token(payload["idToken"], payload["type"])

    def _request_start(self, payload: Payload) -> Payload:
        group = payload.get("groupIdToken", {}).get("idToken", "")
        evse = payload.get("evseId")
        profile = payload.get("chargingProfile")
        if profile and profile["chargingProfilePurpose"] != "TxProfile":
            return {"status": "Rejected", "statusInfo": {"reasonCode": "InvalidProfile"}}
        accepted, reason, transaction_id = self.station.request_start(
            self._token(payload["idToken"]), evse, payload["remoteStartId"], group, self.clock(), profile
        )
        if not accepted:
            return {"status": "Rejected", "statusInfo": {"reasonCode": reason}}
        answer: Payload = {"status": "Accepted"}
        if transaction_id:
            answer["transactionId"] = transaction_id
        return answer

    def _request_stop(self, payload: Payload) -> Payload:
        return {"status": "Accepted" if self.station.request_stop(payload["transactionId"]) else "Rejected"}

    def _transaction_status(self, payload: Payload) -> Payload:
        transaction_id = payload.get("transactionId")
        if transaction_id is None:
            return {"messagesInQueue": self.station.queued > 0}
        ongoing = any(t.transaction_id == transaction_id for t in self.station.evses.values())
        return {
            "ongoingIndicator": ongoing,
            "messagesInQueue": self.station.store.waiting(transaction_id) > 0,
        }

    def _change_availability(self, payload: Payload) -> Payload:
        evse = payload.get("evse", {}).get("id", 0)
        operative = payload["operationalStatus"] == "Operative"
        return {"status": self.station.change_availability(evse, operative, self.clock())}

    def _unlock(self, payload: Payload) -> Answer | Awaitable[Answer]:
        if payload["connectorId"] != 1:
            return {"status": "UnknownConnector"}
        status = self.station.unlock(payload["evseId"])
        return {"status": status} if status else unlocked(self.station, payload["evseId"])

    def _reset(self, payload: Payload) -> Payload | Reply:
        if "evseId" in payload:
            return {"status": "Rejected", "statusInfo": {"reasonCode": "UnsupportedRequest"}}
        status = self.station.reset(payload["type"] != "OnIdle", self.clock())
        return Reply({"status": status}, lambda: self.station.refresh(self.clock()))

    def _trigger(self, payload: Payload) -> Payload | Reply:
        wanted = payload["requestedMessage"]
        evse = payload.get("evse", {}).get("id")
        evses = [evse] if evse else list(self.station.evses)
        if evse and evse not in self.station.evses:
            return {"status": "Rejected"}
        action = self.triggers().get(wanted)
        if action is None:
            return {"status": "NotImplemented"}
        if wanted == "BootNotification" and self.client and self.client.registration == "Accepted":
            return {"status": "Rejected"}  # F06.FR.17
        return Reply({"status": "Accepted"}, lambda: action(evses))

    def triggers(self) -> dict[str, Callable[[list[int]], None]]:
        send = self.station.outside.send
        assert self.client
        client = self.client
        return {
            "BootNotification": lambda evses: client.boot_again(),
            "Heartbeat": lambda evses: send(self.heartbeat()),
            "StatusNotification": self._trigger_status,
            "TransactionEvent": self._trigger_transactions,
            "MeterValues": self._trigger_meter,
            "FirmwareStatusNotification": lambda evses: send(
                self.firmware_status(self.care.firmware_state, self.care.firmware)
            ),
            "LogStatusNotification": lambda evses: send(self.log_status(self.care.log_state, self.care.log_request)),
            "SignChargingStationCertificate": lambda evses: self.care.sign_certificate(),
        }

    def _trigger_status(self, evses: list[int]) -> None:
        for evse in evses:
            self.station.outside.send(self.status(evse))

    def _trigger_transactions(self, evses: list[int]) -> None:
        for evse in evses:
            self.station.evses[evse].sample("Trigger", "Trigger", self.clock())

    def _trigger_meter(self, evses: list[int]) -> None:
        for evse in evses:
            self.idle_reading(evse, "Trigger")

    # Variables.
    def _get_variables(self, payload: Payload) -> Payload:
        self.station.settings.note("date_time", self.clock().iso)
        results = []
        for number, item in enumerate(payload["getVariableData"]):
            kind = item.get("attributeType", "Actual")
            result: Payload = {"attributeType": kind, "component": item["component"], "variable": item["variable"]}
            variable, status = self.model.find(item)
            if number >= self.station.settings["items_get"]:
                result["attributeStatus"] = "Rejected"
                result["attributeStatusInfo"] = {"reasonCode": "TooManyElements"}
            elif variable is None:
                result["attributeStatus"] = status
            elif kind != "Actual":
                result["attributeStatus"] = "NotSupportedAttributeType"
            elif variable.mutability == WO:
                result["attributeStatus"] = "Rejected"
            else:
                result["attributeStatus"] = "Accepted"
                result["attributeValue"] = variable.value[:1000]
            results.append(result)
        return {"getVariableResult": results}

    def _set_variables(self, payload: Payload) -> Payload:
        results = []
        for number, item in enumerate(payload["setVariableData"]):
            kind = item.get("attributeType", "Actual")
            result: Payload = {"attributeType": kind, "component": item["component"], "variable": item["variable"]}
            variable, status = self.model.find(item)
            if number >= self.station.settings["items_set"]:
                result["attributeStatus"] = "Rejected"
                result["attributeStatusInfo"] = {"reasonCode": "TooManyElements"}
            elif variable is None:
                result["attributeStatus"] = status
            elif kind != "Actual":
                result["attributeStatus"] = "NotSupportedAttributeType"
            elif variable.mutability == RO or variable.setting is None:
                result["attributeStatus"] = "Rejected"
                result["attributeStatusInfo"] = {"reasonCode": "ReadOnly"}
            else:
                result["attributeStatus"] = self.station.settings.change(variable.setting, item["attributeValue"])
            results.append(result)
        return {"setVariableResult": results}

    def _base_report(self, payload: Payload) -> Payload | Reply:
        found = self.model.base_report(payload["reportBase"])
        return Reply({"status": "Accepted"}, lambda: self.model.send_report(payload["requestId"], found))

    def _report(self, payload: Payload) -> Payload | Reply:
        found = self.model.report(payload.get("componentVariable"), payload.get("componentCriteria"))
        if not found:
            return {"status": "EmptyResultSet"}
        return Reply({"status": "Accepted"}, lambda: self.model.send_report(payload["requestId"], found))

    def _monitoring_report(self, payload: Payload) -> Payload | Reply:
        items = self.model.monitors(payload.get("componentVariable"), payload.get("monitoringCriteria"))
        if not items:
            return {"status": "EmptyResultSet"}
        return Reply(
            {"status": "Accepted"},
            lambda: self.model.send_pages("NotifyMonitoringReport", "monitor", payload["requestId"], items),
        )

    def _monitoring_base(self, payload: Payload) -> Payload:
        if payload["monitoringBase"] != "All":  # no monitors of ours are preconfigured: the base is none
            self.model.clear_all_monitors()
        return {"status": "Accepted"}

    def text(self) -> str:
        """What a person at the station may read."""
        return self.display.text()

    def external_limit(self, evse: int, limit: Limit) -> None:
        self.profiles.external_limit(evse, limit)

    def tick(self, now: Now) -> None:
        """Once a second."""
        self.model.tick(now)

    # What the rest of the station tells.
    def robot(self, figures: dict[str, tuple[float, str]]) -> None:
        self.model.robot_report(figures)

    def charging_needs(self, evse: int, needs: Payload) -> None:
        """K15: the vehicle's limits, once per transaction; the CSMS may answer with a profile."""
        transaction_id = self.station.evses[evse].transaction_id
        if transaction_id and transaction_id not in self._needs_told:
            self._needs_told = {transaction_id}
            self.station.outside.send(("NotifyEVChargingNeeds", {"evseId": evse, "chargingNeeds": self.needs(needs)}))

    @staticmethod
    def needs(needs: Payload) -> Payload:
        """ChargingNeedsType of 2.0.1 from {current_a, voltage_v, power_w, soc, capacity_wh, bidirectional}."""
        limits: Payload = {"evMaxCurrent": round(needs["current_a"]), "evMaxVoltage": round(needs["voltage_v"])}
        if needs["power_w"] > 0:
            limits["evMaxPower"] = round(needs["power_w"])
        if needs["soc"] >= 0:
            limits["stateOfCharge"] = min(100, round(needs["soc"]))
        if needs["capacity_wh"] > 0:
            limits["evEnergyCapacity"] = round(needs["capacity_wh"])
        return {"requestedEnergyTransfer": "DC", "dcChargingParameters": limits}

    # Lists and reservations.
    def _clear_cache(self, payload: Payload) -> Payload:
        return {"status": "Accepted" if self.station.tokens.clear_cache() else "Rejected"}

    def _send_local_list(self, payload: Payload) -> Payload:
        entries = [
            (self._token(e["idToken"]), self.token_info(e["idTokenInfo"]) if "idTokenInfo" in e else None)
            for e in payload.get("localAuthorizationList", [])
        ]
        full = payload["updateType"] == "Full"
        return {"status": self.station.tokens.update_list(payload["versionNumber"], entries, full)}

    def _reserve(self, payload: Payload) -> Payload:
        group = payload.get("groupIdToken", {}).get("idToken", "")
        status = self.station.reserve(
            payload["id"],
            payload.get("evseId"),
            self._token(payload["idToken"]),
            group,
            payload["expiryDateTime"],
            self.clock(),
        )
        return {"status": status}

    def _cancel_reservation(self, payload: Payload) -> Payload:
        done = self.station.cancel_reservation(payload["reservationId"], self.clock())
        return {"status": "Accepted" if done else "Rejected"}

    # Maintenance.
    @property
    def care(self) -> Maintenance:
        assert self.maintenance
        return self.maintenance

    def firmware_status(self, status: str, firmware: Firmware | None) -> Call:
        payload: Payload = {"status": status}
        if firmware and status != "Idle":
            payload["requestId"] = firmware.request_id
        return "FirmwareStatusNotification", payload

    def log_status(self, status: str, request_id: int | None) -> Call:
        payload: Payload = {"status": status}
        if request_id is not None and status != "Idle":
            payload["requestId"] = request_id
        return "LogStatusNotification", payload

    def sign_certificate(self, csr: str) -> Call:
        return "SignCertificate", {"csr": csr, "certificateType": "ChargingStationCertificate"}

    def _update_firmware(self, payload: Payload) -> Payload:
        wanted = payload["firmware"]
        firmware = Firmware(
            payload["requestId"],
            wanted["location"],
            wanted["retrieveDateTime"],
            wanted.get("installDateTime", ""),
            wanted.get("signature", ""),
            wanted.get("signingCertificate", ""),
            payload.get("retries", 0),
            payload.get("retryInterval", 10),
        )
        return {"status": self.care.update_firmware(firmware)}

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

    def _set_network_profile(self, payload: Payload) -> Payload:
        assert self.networks
        return {"status": self.networks.set(payload["configurationSlot"], payload["connectionData"])}

    def _certificate_signed(self, payload: Payload) -> Payload | Reply:
        if payload.get("certificateType", "ChargingStationCertificate") != "ChargingStationCertificate":
            return {"status": "Rejected"}
        if not self.care.certificate_signed(payload["certificateChain"]):
            return {"status": "Rejected"}
        assert self.client
        client = self.client
        return Reply({"status": "Accepted"}, lambda: client.reconnect())

    def _install_certificate(self, payload: Payload) -> Payload:
        return {"status": self.care.install_certificate(payload["certificateType"], payload["certificate"])}

    def _delete_certificate(self, payload: Payload) -> Payload:
        return {"status": self.care.delete_certificate(payload["certificateHashData"])}

    def _certificate_ids(self, payload: Payload) -> Payload:
        found = self.care.certificates.installed(payload.get("certificateType"))
        if not found:
            return {"status": "NotFound"}
        chain = [{"certificateType": kind, "certificateHashData": data} for kind, data in found]
        return {"status": "Accepted", "certificateHashDataChain": chain}
