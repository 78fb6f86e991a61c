"""The words of OCPP 1.6: reasons, error codes, sampled values, profiles."""

from __future__ import annotations

import json

from robot_charger.backend.records import Payload, Reading
from robot_charger.backend.smart_charging import STATION_MAX
from robot_charger.common.faults import Code

REASON = {
    "DeAuthorized": "DeAuthorized",
    "EmergencyStop": "EmergencyStop",
    "EVDisconnected": "EVDisconnected",
    "ImmediateReset": "HardReset",
    "SoftReset": "SoftReset",
    "UnlockCommand": "UnlockCommand",
    "Local": "Local",
    "PowerLoss": "PowerLoss",
    "Reboot": "Reboot",
    "Remote": "Remote",
    "MasterPass": "Local",
    "LocalOutOfCredit": "DeAuthorized",
}
ERROR_CODES = {  # OCPP-J 1.6, table 7
    "FormatViolation": "FormationViolation",
    "ProtocolError": "FormationViolation",
    "OccurrenceConstraintViolation": "OccurenceConstraintViolation",
    "MessageTypeNotSupported": "NotSupported",
    "RpcFrameworkError": "GenericError",
}
DIAGNOSTICS = {"Uploading": "Uploading", "Uploaded": "Uploaded", "UploadFailure": "UploadFailed"}
_FAULTS: dict[int, str] = {
    Code.INSULATION: "GroundFailure",
    Code.INSULATION_CHARGING: "GroundFailure",
    Code.OVERVOLTAGE: "OverVoltage",
    Code.OVERCURRENT: "OverCurrentFailure",
    Code.METER: "PowerMeterFailure",
    Code.CONTACTOR_FEEDBACK: "PowerSwitchFailure",
    Code.CONTACTOR_WELDED: "PowerSwitchFailure",
    Code.OVERTEMPERATURE: "HighTemperature",
    Code.CHADEMO_LOCK: "ConnectorLockFailure",
    Code.GBT_LOCK: "ConnectorLockFailure",
}


def error_code(fault: int) -> str:
    """ChargePointErrorCode of a fault of the station's own table."""
    if not fault:
        return "NoError"
    return _FAULTS.get(fault) or ("EVCommunicationError" if 200 <= fault < 400 else "OtherError")


def sampled(reading: Reading, measurands: list[str]) -> list[Payload]:
    """SampledValue items of one reading; 1.6 writes numbers as text."""
    charging = reading.current_a >= 0
    values: list[tuple[str, float, str]] = [
        ("Energy.Active.Import.Register", reading.import_wh, "Wh"),
        ("Energy.Active.Export.Register", reading.export_wh, "Wh"),
        ("Power.Active.Import" if charging else "Power.Active.Export", abs(reading.power_w), "W"),
        ("Current.Import" if charging else "Current.Export", abs(reading.current_a), "A"),
        ("Voltage", reading.voltage_v, "V"),
    ]
    if reading.soc is not None and reading.soc >= 0:
        values.append(("SoC", reading.soc, "Percent"))
    boundary = reading.context in ("Transaction.Begin", "Transaction.End")
    items: list[Payload] = []
    for measurand, value, unit in values:
        if measurand not in measurands or (measurand.endswith("Export.Register") and value == 0 and not boundary):
            continue
        place = "EV" if measurand == "SoC" else "Outlet"
        items.append(
            {
                "value": f"{value:.3f}",
                "context": reading.context,
                "format": "Raw",
                "measurand": measurand,
                "location": place,
                "unit": unit,
            }
        )
    if reading.signed_data:
        items.append(
            {
                "value": reading.signed_data,
                "context": reading.context,
                "format": "SignedData",
                "measurand": "Energy.Active.Import.Register",
            }
        )
    return items


def plain_firmware_status(status: str) -> str:
    """The seven words of plain 1.6."""
    return {
        "DownloadScheduled": "Downloading",
        "SignatureVerified": "Downloaded",
        "InstallScheduled": "Downloaded",
        "InvalidSignature": "InstallationFailed",
        "InstallVerificationFailed": "InstallationFailed",
        "InstallRebooting": "Installing",
    }.get(status, status)


def neutral_profile(profile: Payload) -> Payload:
    """A 1.6 ChargingProfile in the 2.x form that the station keeps. The schema check left decimals in it."""
    plain: Payload = json.loads(json.dumps(profile, default=float))
    plain["id"] = plain.pop("chargingProfileId")
    if plain["chargingProfilePurpose"] == "ChargePointMaxProfile":
        plain["chargingProfilePurpose"] = STATION_MAX
    plain["chargingSchedule"] = [{"id": plain["id"], **plain["chargingSchedule"]}]
    return plain
