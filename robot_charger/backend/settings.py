"""What a CSMS may read and change: one table for the variables of OCPP 2.x and the keys of 1.6.

Values a CSMS sets are kept in the store and win over the node's parameters from then on, as the standard wants.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

RO, RW, WO = "ReadOnly", "ReadWrite", "WriteOnly"
PROFILES = 1000  # charging profiles kept
MESSAGES = 100  # display messages kept


@dataclass(frozen=True)
class Setting:
    """One variable. ``variable`` is (component, variable, instance) of 2.x, ``key`` the 1.6 name; either may lack."""

    name: str
    kind: type  # int, float, bool, str, list (comma separated, from choices)
    variable: tuple[str, str, str] | None = None
    key: str = ""
    mutability: str = RW
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    unit: str = ""
    reboot: bool = False
    max_length: int = 500

    @property
    def data_type(self) -> str:
        """OCPP 2.x DataEnumType."""
        if self.name == "date_time":
            return "dateTime"
        if self.choices:
            return "MemberList" if self.kind is list else "OptionList"
        return {int: "integer", float: "decimal", bool: "boolean", list: "SequenceList"}.get(self.kind, "string")

    def parse(self, text: str) -> Any:
        """A value from the wire. Raises ValueError."""
        if len(text) > self.max_length:
            raise ValueError(f"longer than {self.max_length}")
        if self.kind is bool:
            if text.lower() not in ("true", "false"):
                raise ValueError("true or false")
            return text.lower() == "true"
        if self.kind is list:
            value = [part.strip() for part in text.split(",") if part.strip()]
            if self.choices and set(value) - set(self.choices):
                raise ValueError(f"of {', '.join(self.choices)}")
            return value
        value = self.kind(text)
        if isinstance(value, int | float):
            if not math.isfinite(value) or abs(value) > 2**31 - 1:
                raise ValueError("not a number that can be meant")
            if (self.low is not None and value < self.low) or (self.high is not None and value > self.high):
                raise ValueError(f"from {self.low} to {self.high}")
        if self.choices and value not in self.choices:
            raise ValueError(f"one of {', '.join(self.choices)}")
        return value

    @staticmethod
    def format(value: Any) -> str:
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, list | tuple):
            return ",".join(str(v) for v in value)
        return f"{value:g}" if isinstance(value, float) else str(value)


_POINTS = ("ParkingBayOccupancy", "EVConnected", "Authorized", "PowerPathClosed", "EnergyTransfer")
_MEASURANDS = (
    "Energy.Active.Import.Register",
    "Energy.Active.Export.Register",
    "Power.Active.Import",
    "Power.Active.Export",
    "Current.Import",
    "Current.Export",
    "Voltage",
    "SoC",
)


def _v(component: str, variable: str, instance: str = "") -> tuple[str, str, str]:
    return component, variable, instance


_COMM, _TX, _SAMPLE, _AUTH = "OCPPCommCtrlr", "TxCtrlr", "SampledDataCtrlr", "AuthCtrlr"
_ALIGNED = "AlignedDataCtrlr"
_SECURITY, _CACHE, _LIST, _SMART = "SecurityCtrlr", "AuthCacheCtrlr", "LocalAuthListCtrlr", "SmartChargingCtrlr"

TABLE: tuple[Setting, ...] = (
    Setting("heartbeat_s", int, _v(_COMM, "HeartbeatInterval"), "HeartbeatInterval", low=1, unit="s"),
    Setting("ping_s", int, _v(_COMM, "WebSocketPingInterval"), "WebSocketPingInterval", low=0, unit="s"),
    Setting("message_timeout_s", int, _v(_COMM, "MessageTimeout", "Default"), "", low=1, unit="s"),
    Setting("attempts", int, _v(_COMM, "MessageAttempts", "TransactionEvent"), "TransactionMessageAttempts", low=1),
    Setting(
        "attempt_interval_s",
        int,
        _v(_COMM, "MessageAttemptInterval", "TransactionEvent"),
        "TransactionMessageRetryInterval",
        low=0,
        unit="s",
    ),
    Setting("backoff_min_s", int, _v(_COMM, "RetryBackOffWaitMinimum"), "", low=0, unit="s"),
    Setting("backoff_random_s", int, _v(_COMM, "RetryBackOffRandomRange"), "", low=0, unit="s"),
    Setting("backoff_repeats", int, _v(_COMM, "RetryBackOffRepeatTimes"), "", low=0),
    Setting("offline_threshold_s", int, _v(_COMM, "OfflineThreshold"), "", low=0, unit="s"),
    Setting("reset_retries", int, _v(_COMM, "ResetRetries"), "ResetRetries", low=0),
    Setting("profile_attempts", int, _v(_COMM, "NetworkProfileConnectionAttempts"), "", low=1),
    Setting("profile_priority", list, _v(_COMM, "NetworkConfigurationPriority"), "", reboot=True),
    Setting(
        "unlock_on_disconnect", bool, _v(_COMM, "UnlockOnEVSideDisconnect"), "UnlockConnectorOnEVSideDisconnect", RO
    ),
    Setting(
        "file_protocols",
        list,
        _v(_COMM, "FileTransferProtocols"),
        "SupportedFileTransferProtocols",
        RO,
        choices=("HTTP", "HTTPS", "FTP", "FTPS"),
    ),
    Setting("start_points", list, _v(_TX, "TxStartPoint"), "", choices=_POINTS),
    Setting("stop_points", list, _v(_TX, "TxStopPoint"), "", choices=_POINTS),
    Setting("stop_on_invalid", bool, _v(_TX, "StopTxOnInvalidId"), "StopTransactionOnInvalidId"),
    Setting("stop_on_unplug", bool, _v(_TX, "StopTxOnEVSideDisconnect"), "StopTransactionOnEVSideDisconnect", RO),
    Setting("connection_timeout_s", int, _v(_TX, "EVConnectionTimeOut"), "ConnectionTimeOut", low=0, unit="s"),
    Setting("sample_s", int, _v(_SAMPLE, "TxUpdatedInterval"), "MeterValueSampleInterval", low=0, unit="s"),
    Setting("measurands", list, _v(_SAMPLE, "TxUpdatedMeasurands"), "MeterValuesSampledData", choices=_MEASURANDS),
    Setting("started_measurands", list, _v(_SAMPLE, "TxStartedMeasurands"), "", choices=_MEASURANDS),
    Setting("ended_measurands", list, _v(_SAMPLE, "TxEndedMeasurands"), "StopTxnSampledData", choices=_MEASURANDS),
    Setting("ended_interval_s", int, _v(_SAMPLE, "TxEndedInterval"), "", low=0, unit="s"),
    Setting("sign_readings", bool, _v(_SAMPLE, "SignReadings"), ""),
    Setting("aligned_s", int, _v(_ALIGNED, "Interval"), "ClockAlignedDataInterval", low=0, unit="s"),
    Setting("aligned_measurands", list, _v(_ALIGNED, "Measurands"), "MeterValuesAlignedData", choices=_MEASURANDS),
    Setting("aligned_ended_s", int, _v(_ALIGNED, "TxEndedInterval"), "", low=0, unit="s"),
    Setting("aligned_ended", list, _v(_ALIGNED, "TxEndedMeasurands"), "StopTxnAlignedData", choices=_MEASURANDS),
    Setting("aligned_signed", bool, _v(_ALIGNED, "SignReadings"), ""),
    Setting("aligned_idle_only", bool, _v(_ALIGNED, "SendDuringIdle"), ""),
    Setting(
        "public_key",
        str,
        _v(_COMM, "PublicKeyWithSignedMeterValue"),
        "",
        choices=("Never", "OncePerTransaction", "EveryMeterValue"),
    ),
    Setting("authorize_remote_start", bool, _v(_AUTH, "AuthorizeRemoteStart"), "AuthorizeRemoteTxRequests"),
    Setting("local_authorize_offline", bool, _v(_AUTH, "LocalAuthorizeOffline"), "LocalAuthorizeOffline"),
    Setting("master_pass", str, _v(_AUTH, "MasterPassGroupId"), "", max_length=36),
    Setting("local_pre_authorize", bool, _v(_AUTH, "LocalPreAuthorize"), "LocalPreAuthorize"),
    Setting("offline_unknown", bool, _v(_AUTH, "OfflineTxForUnknownIdEnabled"), "AllowOfflineTxForUnknownId"),
    Setting("cache_enabled", bool, _v(_CACHE, "Enabled"), "AuthorizationCacheEnabled"),
    Setting("cache_life_s", int, _v(_CACHE, "LifeTime"), "", low=0, unit="s"),
    Setting("list_enabled", bool, _v(_LIST, "Enabled"), "LocalAuthListEnabled"),
    Setting("list_entries", int, _v(_LIST, "Entries"), "", RO, high=10_000),
    Setting("list_max", int, _v(_LIST, "ItemsPerMessage"), "SendLocalListMaxLength", RO),
    Setting("list_bytes", int, _v(_LIST, "BytesPerMessage"), "", RO),
    Setting("list_storage", int, _v(_LIST, "Storage"), "LocalAuthListMaxLength", RO),
    Setting("security_profile", int, _v(_SECURITY, "SecurityProfile"), "SecurityProfile", low=0, high=3),
    Setting("password", str, _v(_SECURITY, "BasicAuthPassword"), "AuthorizationKey", WO, max_length=40),
    Setting("csr_wait_s", int, _v(_SECURITY, "CertSigningWaitMinimum"), "CertSigningWaitMinimum", low=1, unit="s"),
    Setting("csr_repeats", int, _v(_SECURITY, "CertSigningRepeatTimes"), "CertSigningRepeatTimes", low=0),
    Setting("identity", str, _v(_SECURITY, "Identity"), "", RO),
    Setting("organization", str, _v(_SECURITY, "OrganizationName"), "CpoName", max_length=64),
    Setting("root_entries", int, _v(_SECURITY, "CertificateEntries"), "CertificateStoreMaxLength", RO, high=100),
    Setting(
        "additional_root_check",
        bool,
        _v(_SECURITY, "AdditionalRootCertificateCheck"),
        "AdditionalRootCertificateCheck",
        RO,
    ),
    Setting("smart_enabled", bool, _v(_SMART, "Enabled"), "", RO),
    Setting("stack_level", int, _v(_SMART, "ProfileStackLevel"), "ChargeProfileMaxStackLevel", RO),
    Setting("rate_units", list, _v(_SMART, "RateUnit"), "ChargingScheduleAllowedChargingRateUnit", RO),
    Setting("schedule_periods", int, _v(_SMART, "PeriodsPerSchedule"), "ChargingScheduleMaxPeriods", RO),
    Setting(
        "profile_entries",
        int,
        _v(_SMART, "Entries", "ChargingProfiles"),
        "MaxChargingProfilesInstalled",
        RO,
        high=PROFILES,
    ),
    Setting("limit_change", float, _v(_SMART, "LimitChangeSignificance"), "", low=0, unit="Percent"),
    Setting("external_signals", bool, _v(_SMART, "ExternalControlSignalsEnabled"), "", RO),
    Setting("limit_schedules", bool, _v(_SMART, "NotifyChargingLimitWithSchedules"), "", RO),
    Setting("reservation_available", bool, _v("ReservationCtrlr", "Available"), "", RO),
    Setting("reserve_zero", bool, _v("ReservationCtrlr", "NonEvseSpecific"), "ReserveConnectorZeroSupported", RO),
    Setting("time_source", list, _v("ClockCtrlr", "TimeSource"), "", choices=("Heartbeat", "NTP", "RealTimeClock")),
    Setting("date_time", str, _v("ClockCtrlr", "DateTime"), "", RO),
    Setting("items_report", int, _v("DeviceDataCtrlr", "ItemsPerMessage", "GetReport"), "", RO),
    Setting("items_get", int, _v("DeviceDataCtrlr", "ItemsPerMessage", "GetVariables"), "GetConfigurationMaxKeys", RO),
    Setting("items_set", int, _v("DeviceDataCtrlr", "ItemsPerMessage", "SetVariables"), "", RO),
    Setting("bytes_get", int, _v("DeviceDataCtrlr", "BytesPerMessage", "GetVariables"), "", RO),
    Setting("bytes_set", int, _v("DeviceDataCtrlr", "BytesPerMessage", "SetVariables"), "", RO),
    Setting("bytes_report", int, _v("DeviceDataCtrlr", "BytesPerMessage", "GetReport"), "", RO),
    Setting("items_monitor", int, _v("MonitoringCtrlr", "ItemsPerMessage", "SetVariableMonitoring"), "", RO),
    Setting("bytes_monitor", int, _v("MonitoringCtrlr", "BytesPerMessage", "SetVariableMonitoring"), "", RO),
    Setting("monitoring_enabled", bool, _v("MonitoringCtrlr", "Enabled"), "", RO),
    Setting("contract_offline", bool, _v("ISO15118Ctrlr", "ContractValidationOffline"), "", RO),
    Setting("display_messages", int, _v("DisplayMessageCtrlr", "DisplayMessages"), "", RO, high=MESSAGES),
    Setting(
        "display_formats",
        list,
        _v("DisplayMessageCtrlr", "SupportedFormats"),
        "",
        RO,
        choices=("ASCII", "HTML", "URI", "UTF8"),
    ),
    Setting(
        "display_priorities",
        list,
        _v("DisplayMessageCtrlr", "SupportedPriorities"),
        "",
        RO,
        choices=("AlwaysFront", "InFront", "NormalCycle"),
    ),
    Setting("currency", str, _v("TariffCostCtrlr", "Currency"), "", max_length=3),
    Setting("cost_enabled", bool, _v("TariffCostCtrlr", "Enabled", "Cost"), "", RO),
    Setting("tariff_enabled", bool, _v("TariffCostCtrlr", "Enabled", "Tariff"), "", RO),
    Setting("tariff_fallback", str, _v("TariffCostCtrlr", "TariffFallbackMessage"), "", max_length=255),
    Setting("cost_fallback", str, _v("TariffCostCtrlr", "TotalCostFallbackMessage"), "", max_length=255),
    Setting("pnc_16", bool, None, "ISO15118PnCEnabled"),
    Setting("connectors", int, None, "NumberOfConnectors", RO),
    Setting("profiles_16", list, None, "SupportedFeatureProfiles", RO),
    Setting("phase_rotation", str, None, "ConnectorPhaseRotation", RO),
)

DEFAULTS: dict[str, Any] = {
    "sign_readings": True,
    "aligned_ended_s": 0,
    "aligned_ended": list(_MEASURANDS[:2]),
    "aligned_signed": True,
    "aligned_idle_only": False,
    "public_key": "OncePerTransaction",
    "list_bytes": 1 << 20,
    "csr_wait_s": 120,
    "csr_repeats": 2,
    "bytes_report": 65536,
    "items_monitor": 1000,
    "bytes_monitor": 65536,
    "monitoring_enabled": True,
    "contract_offline": False,
    "display_messages": 0,
    "display_formats": ["ASCII", "UTF8"],
    "display_priorities": ["AlwaysFront", "InFront", "NormalCycle"],
    "currency": "EUR",
    "cost_enabled": True,
    "tariff_enabled": False,
    "tariff_fallback": "",
    "cost_fallback": "",
    "heartbeat_s": 300,
    "ping_s": 20,
    "message_timeout_s": 30,
    "attempts": 3,
    "attempt_interval_s": 10,
    "backoff_min_s": 2,
    "backoff_random_s": 5,
    "backoff_repeats": 5,
    "offline_threshold_s": 60,
    "reset_retries": 1,
    "profile_attempts": 3,
    "profile_priority": ["1"],
    "unlock_on_disconnect": True,
    "file_protocols": ["HTTP", "HTTPS", "FTP", "FTPS"],
    "start_points": ["PowerPathClosed"],
    "stop_points": ["PowerPathClosed"],
    "stop_on_invalid": True,
    "stop_on_unplug": True,
    "connection_timeout_s": 120,
    "sample_s": 10,
    "measurands": list(_MEASURANDS),
    "started_measurands": list(_MEASURANDS[:2]),
    "ended_measurands": list(_MEASURANDS[:2]),
    "ended_interval_s": 0,
    "aligned_s": 0,
    "aligned_measurands": list(_MEASURANDS[:2]),
    "authorize_remote_start": False,
    "master_pass": "",
    "local_authorize_offline": True,
    "local_pre_authorize": False,
    "offline_unknown": False,
    "cache_enabled": True,
    "cache_life_s": 7 * 86400,
    "list_enabled": True,
    "list_entries": 0,
    "list_max": 1000,
    "list_storage": 10_000,
    "security_profile": 2,
    "password": "",
    "identity": "",
    "organization": "",
    "root_entries": 0,
    "additional_root_check": False,
    "smart_enabled": True,
    "stack_level": 99,
    "rate_units": ["A", "W"],
    "schedule_periods": 1024,
    "profile_entries": 0,
    "limit_change": 1.0,
    "external_signals": True,
    "limit_schedules": True,
    "reservation_available": True,
    "reserve_zero": False,
    "time_source": ["Heartbeat", "RealTimeClock"],
    "date_time": "",
    "items_report": 1000,
    "items_get": 1000,
    "items_set": 1000,
    "bytes_get": 65536,
    "bytes_set": 65536,
    "pnc_16": False,
    "connectors": 1,
    "phase_rotation": "NotApplicable",
    "profiles_16": [
        "Core",
        "FirmwareManagement",
        "LocalAuthListManagement",
        "Reservation",
        "SmartCharging",
        "RemoteTrigger",
    ],
}


class Settings:
    """The values now: defaults, then parameters, then what a CSMS set."""

    def __init__(
        self,
        given: dict[str, Any],
        kept: dict[str, Any] | None = None,
        keep: Callable[[dict[str, Any]], None] = lambda values: None,
    ) -> None:
        self._table = {s.name: s for s in TABLE}
        unknown = set(given) - set(self._table)
        if unknown:
            raise KeyError(f"no such setting: {', '.join(sorted(unknown))}")
        self._values = {**DEFAULTS, **given}
        self._set = {k: v for k, v in (kept or {}).items() if k in self._table}
        self._values.update(self._set)
        self._keep = keep
        self.watchers: list[Callable[[str, Any], None]] = []  # name, value before
        self.checks: dict[str, Callable[[Any], bool]] = {}  # what else must hold of a new value
        self.by_variable = {
            (c.casefold(), v.casefold(), i.casefold()): s for s in TABLE if s.variable for c, v, i in [s.variable]
        }
        self.by_key = {s.key.casefold(): s for s in TABLE if s.key}

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    @property
    def changed(self) -> dict[str, Any]:
        """What a CSMS set."""
        return dict(self._set)

    def text(self, setting: Setting) -> str:
        return setting.format(self._values[setting.name])

    def key_text(self, setting: Setting) -> str:
        """The same in the words of 1.6."""
        if setting.name == "rate_units":
            return ",".join({"A": "Current", "W": "Power"}[v] for v in self._values["rate_units"])
        if setting.high is not None and setting.name in ("profile_entries", "root_entries"):
            return str(int(setting.high))  # there the most that can be, here how many there are
        return self.text(setting)

    def note(self, name: str, value: Any) -> None:
        """The station itself reports a value; nothing is kept."""
        self._values[name] = value

    def change(self, setting: Setting, text: str) -> str:
        """A CSMS sets a value: OCPP 2.x SetVariableStatusEnumType."""
        if setting.mutability == RO:
            return "Rejected"
        try:
            value = setting.parse(text)
        except (ValueError, TypeError):
            return "Rejected"
        if setting.name in self.checks and not self.checks[setting.name](value):
            return "Rejected"
        before = self._values[setting.name]
        changed = {**self._set, setting.name: value}
        self._keep(changed)  # raises StoreError: nothing changed
        self._set = changed
        self._values[setting.name] = value
        for watcher in self.watchers:
            watcher(setting.name, before)
        return "RebootRequired" if setting.reboot else "Accepted"
