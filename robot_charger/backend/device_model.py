"""The device model of OCPP 2.x: components and variables, reports, monitors (OCPP 2.0.1 B and N).

Variables come from four places: the settings, the station's own make-up, the diagnostics of all nodes (a component
per node, a variable per value), and the robot's figures (custom component ConnectionRobot).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from robot_charger.backend.records import Now, Payload
from robot_charger.backend.settings import RO, WO, Setting
from robot_charger.backend.smart_charging import MODES
from robot_charger.backend.station import Station
from robot_charger.backend.store import StoreError

ITEMS_PER_REPORT = 40
MONITORS = 200
OFFLINE_SEVERITY = 5  # events at least this grave are queued while offline (0 is the gravest)
ROBOT = "ConnectionRobot"


@dataclass(frozen=True)
class Variable:
    """One variable of one component with its value now."""

    component: str
    name: str
    value: str
    evse: int = 0
    instance: str = ""
    data_type: str = "string"
    unit: str = ""
    mutability: str = RO
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    setting: Setting | None = None

    @property
    def key(self) -> tuple[str, int, str, str]:
        return self.component.casefold(), self.evse, self.name.casefold(), self.instance.casefold()

    @property
    def number(self) -> float | None:
        try:
            return float(self.value)
        except ValueError:
            return {"true": 1.0, "false": 0.0}.get(self.value.lower())

    def reference(self) -> Payload:
        component: Payload = {"name": self.component[:50]}
        if self.evse:
            component["evse"] = {"id": self.evse}
        variable: Payload = {"name": self.name[:50]}
        if self.instance:
            variable["instance"] = self.instance[:50]
        return {"component": component, "variable": variable}

    def report(self) -> Payload:
        attribute: Payload = {"type": "Actual", "mutability": self.mutability, "persistent": True}
        if self.mutability != WO:
            attribute["value"] = self.value[:2500]
        characteristics: Payload = {
            "dataType": self.data_type,
            "supportsMonitoring": self.data_type in ("integer", "decimal", "boolean"),
        }
        if self.unit:
            characteristics["unit"] = self.unit[:16]
        if self.choices:
            characteristics["valuesList"] = ",".join(self.choices)[:1000]
        if self.low is not None:
            characteristics["minLimit"] = self.low
        if self.high is not None:
            characteristics["maxLimit"] = self.high
        return {**self.reference(), "variableAttribute": [attribute], "variableCharacteristics": characteristics}


@dataclass
class Monitor:
    id: int
    component: str
    evse: int
    variable: str
    instance: str
    type: str
    value: float
    severity: int
    transaction: bool = False
    alarmed: bool = field(default=False, compare=False)
    last: float | None = field(default=None, compare=False)
    due: float = field(default=0.0, compare=False)

    @property
    def key(self) -> tuple[str, int, str, str]:
        return self.component.casefold(), self.evse, self.variable.casefold(), self.instance.casefold()

    def kept(self) -> Payload:
        names = ("id", "component", "evse", "variable", "instance", "type", "value", "severity", "transaction")
        return {n: getattr(self, n) for n in names}


def reference_key(item: Payload) -> tuple[str, int, str, str]:
    """Key of {component, variable} as a CSMS names them."""
    component, variable = item["component"], item.get("variable", {})
    instance = variable.get("instance", component.get("instance", ""))
    return (
        component["name"].casefold(),
        component.get("evse", {}).get("id", 0),
        variable.get("name", "").casefold(),
        instance.casefold(),
    )


class DeviceModel:
    def __init__(self, station: Station, clock: Callable[[], Now], version: str) -> None:
        self.station = station
        self.version = version
        self._clock = clock
        self._nodes: dict[tuple[str, int], dict[str, str]] = {}
        self._robot: dict[str, tuple[float, str]] = {}
        self._monitors = {m["id"]: Monitor(**m) for m in station.store.get("monitors", [])}
        self.level: int = station.store.get("monitoring_level", 9)
        self._ids = itertools.count(max(self._monitors, default=0) + 1)
        self._events = itertools.count(1)
        self._faults: set[tuple[int, int]] = set()
        self.public_keys: dict[int, str] = {}  # of the meters, by EVSE

    # What the nodes say.
    def node_report(self, name: str, evse: int, level: int, values: dict[str, str]) -> None:
        """Diagnostics of a node: level 0 good, 1 warning, 2 error."""
        health = {0: "OK", 1: "Warning"}.get(level, "Error")
        self._nodes[(name, evse)] = {"Health": health, **values}

    def robot_report(self, figures: dict[str, tuple[float, str]]) -> None:
        """Figures of the last connection: name -> (value, unit)."""
        self._robot = dict(figures)

    def fault(self, code: int, name: str, severity: int, evse: int, active: bool, text: str) -> None:
        """A fault of any node becomes a hard-wired notification."""
        key = (code, evse)
        if active == (key in self._faults):
            return
        (self._faults.add if active else self._faults.discard)(key)
        component: Payload = {"name": "EVSE", "evse": {"id": evse}} if evse else {"name": "ChargingStation"}
        event: Payload = {
            "trigger": "Alerting",
            "actualValue": "true" if active else "false",
            "cleared": not active,
            "techCode": str(code),
            "techInfo": f"{name}: {text}"[:500],
            "eventNotificationType": "HardWiredNotification",
            "component": component,
            "variable": {"name": "Problem"},
        }
        grave = {1: 5, 2: 4, 3: 2, 4: 0}.get(severity, 5)  # our severities to OCPP's, 0 the gravest
        self._notify(event, grave, evse)

    # Variables.
    def variables(self) -> list[Variable]:
        return [*self._settings(), *self._make_up(), *self._from_nodes(), *self._from_robot()]

    def _settings(self) -> Iterable[Variable]:
        settings = self.station.settings
        for setting in settings.by_variable.values():
            assert setting.variable
            component, name, instance = setting.variable
            value = "" if setting.mutability == WO else settings.text(setting)
            yield Variable(
                component,
                name,
                value,
                0,
                instance,
                setting.data_type,
                setting.unit,
                setting.mutability,
                setting.choices,
                setting.low,
                setting.high,
                setting,
            )

    def _make_up(self) -> Iterable[Variable]:
        station, identity = self.station, self.station.identity
        states = ("Available", "Occupied", "Reserved", "Unavailable", "Faulted")
        problem = any(e == 0 for _, e in self._faults)
        yield Variable("ChargingStation", "Model", identity.model)
        yield Variable("ChargingStation", "VendorName", identity.vendor)
        yield Variable("ChargingStation", "SerialNumber", identity.serial)
        yield Variable("ChargingStation", "FirmwareVersion", identity.firmware)
        yield Variable(
            "ChargingStation",
            "AvailabilityState",
            "Available" if station.operative(0) else "Unavailable",
            data_type="OptionList",
            choices=states,
        )
        yield Variable("ChargingStation", "Available", "true", data_type="boolean")
        yield Variable("ChargingStation", "SupplyPhases", "3", data_type="integer")
        yield Variable("ChargingStation", "Problem", "true" if problem else "false", data_type="boolean")
        for evse in station.evses:
            occupied = {
                "Available": "Available",
                "Reserved": "Reserved",
                "Unavailable": "Unavailable",
                "Faulted": "Faulted",
            }.get(station.status[evse], "Occupied")
            kinds = identity.connectors or ("cCCS2",)
            kind = kinds[min(evse, len(kinds)) - 1]
            problem = any(e == evse for _, e in self._faults)
            for component in ("EVSE", "Connector"):
                yield Variable(component, "AvailabilityState", occupied, evse, data_type="OptionList", choices=states)
                yield Variable(component, "Available", "true", evse, data_type="boolean")
            yield Variable("EVSE", "Problem", "true" if problem else "false", evse, data_type="boolean")
            yield Variable("Connector", "ConnectorType", kind, evse)
            yield Variable("Connector", "SupplyPhases", "3", evse, data_type="integer")
            amperes, watts = station.supply.get(evse, (0.0, 0.0))
            yield Variable("EVSE", "Power", f"{watts:g}", evse, data_type="decimal", unit="W", high=watts)
            yield Variable("EVSE", "SupplyPhases", "3", evse, data_type="integer")
            yield Variable("EVSE", "Current", f"{amperes:g}", evse, data_type="decimal", unit="A")
            if self.version == "2.1":
                yield from self._v2x(evse)
            if key := self.public_keys.get(evse):
                yield Variable("FiscalMetering", "PublicKey", key, evse)
            reading = station.evses[evse].reading
            if reading:
                yield Variable(
                    "FiscalMetering", "EnergyImport", f"{reading.import_wh:.3f}", evse, data_type="decimal", unit="Wh"
                )
                yield Variable(
                    "FiscalMetering", "EnergyExport", f"{reading.export_wh:.3f}", evse, data_type="decimal", unit="Wh"
                )

    @staticmethod
    def _v2x(evse: int) -> Iterable[Variable]:
        """V2XChargingCtrlr and ISO15118Ctrlr of 2.1 (block Q)."""
        transfers, modes = ("DC", "DC_BPT"), MODES
        for name in ("Available", "Enabled"):
            yield Variable("V2XChargingCtrlr", name, "true", evse, data_type="boolean")
        for name, values in (("SupportedEnergyTransferModes", transfers), ("SupportedOperationModes", modes)):
            text = ",".join(values)
            yield Variable("V2XChargingCtrlr", name, text, evse, data_type="MemberList", choices=values)
        yield Variable("ISO15118Ctrlr", "Enabled", "true", evse, data_type="boolean")

    def _from_nodes(self) -> Iterable[Variable]:
        for (name, evse), values in sorted(self._nodes.items()):
            for key, value in values.items():
                label, _, unit = key.partition(" [")
                kind = "string"
                choices: tuple[str, ...] = ()
                try:
                    float(value)
                    kind = "decimal"
                except ValueError:
                    if value in ("True", "False"):
                        kind, value = "boolean", value.lower()
                if key == "Health":
                    kind, choices = "OptionList", ("OK", "Warning", "Error")
                yield Variable(
                    f"Node.{name}", label, value, evse, data_type=kind, unit=unit.rstrip("]"), choices=choices
                )

    def _from_robot(self) -> Iterable[Variable]:
        for name, (value, unit) in self._robot.items():
            yield Variable(ROBOT, name, f"{value:g}", data_type="decimal", unit=unit)

    def find(self, item: Payload) -> tuple[Variable | None, str]:
        """A variable, or UnknownComponent / UnknownVariable."""
        key = reference_key(item)
        known = False
        for variable in self.variables():
            if variable.key == key:
                return variable, ""
            known = known or variable.key[:2] == key[:2]
        return None, "UnknownVariable" if known else "UnknownComponent"

    # Reports.
    def base_report(self, base: str) -> list[Variable]:
        found = self.variables()
        if base == "ConfigurationInventory":
            return [v for v in found if v.mutability != RO]
        if base == "SummaryInventory":
            return [v for v in found if v.name in ("AvailabilityState", "Problem", "Health")]
        return found

    def report(self, wanted: list[Payload] | None, criteria: list[str] | None) -> list[Variable]:
        found = self.variables()
        if wanted is not None:
            keys = [reference_key(w) for w in wanted]
            found = [v for v in found if any(self._matches(v.key, k) for k in keys)]
        if criteria is not None:
            holding = {v.key[:2] for v in found if v.name in criteria and v.value.lower() == "true"}
            found = [v for v in found if v.key[:2] in holding]
        return found

    @staticmethod
    def _matches(key: tuple[str, int, str, str], wanted: tuple[str, int, str, str]) -> bool:
        return (
            key[0] == wanted[0]
            and (not wanted[1] or key[1] == wanted[1])
            and (not wanted[2] or key[2] == wanted[2])
            and (not wanted[3] or key[3] == wanted[3])
        )

    def send_report(self, request_id: int, found: list[Variable]) -> None:
        self.send_pages("NotifyReport", "reportData", request_id, [v.report() for v in found])

    def send_pages(self, action: str, name: str, request_id: int, items: list[Payload]) -> None:
        pages = [items[n : n + ITEMS_PER_REPORT] for n in range(0, len(items), ITEMS_PER_REPORT)]
        for number, page in enumerate(pages):
            self.station.outside.send(
                (
                    action,
                    {
                        "requestId": request_id,
                        "generatedAt": self._clock().iso,
                        "seqNo": number,
                        name: page,
                        "tbc": number < len(pages) - 1,
                    },
                )
            )

    # Monitors.
    def set_monitor(self, data: Payload) -> Payload:
        """One SetMonitoringResultType."""
        result: Payload = {k: data[k] for k in ("type", "severity", "component", "variable")}
        variable, status = self.find(data)
        if variable is None:
            return {**result, "status": status}
        number = variable.number if variable.data_type in ("integer", "decimal", "boolean") else None
        kind, value = data["type"], float(data["value"])
        if number is None and kind not in ("Delta", "Periodic", "PeriodicClockAligned"):
            return {**result, "status": "UnsupportedMonitorType"}
        if (kind not in ("UpperThreshold", "LowerThreshold") and value <= 0) or not 0 <= data["severity"] <= 9:
            return {**result, "status": "Rejected"}
        key = variable.key
        wanted = data.get("id")
        if wanted is not None and wanted not in self._monitors:
            return {**result, "status": "Rejected"}
        for other in self._monitors.values():
            if other.key == key and (other.type, other.severity) == (kind, data["severity"]) and other.id != wanted:
                return {**result, "status": "Duplicate"}
        if wanted is None and len(self._monitors) >= MONITORS:
            return {**result, "status": "Rejected"}
        monitor = Monitor(
            wanted or next(self._ids),
            variable.component,
            variable.evse,
            variable.name,
            variable.instance,
            kind,
            value,
            data["severity"],
            data.get("transaction", False),
        )
        monitor.last = number
        monitor.due = self._clock().mono_ns / 1e9 + value
        self._keep({**self._monitors, monitor.id: monitor})
        return {**result, "status": "Accepted", "id": monitor.id}

    def clear_monitors(self, ids: Iterable[int]) -> list[Payload]:
        results = []
        rest = dict(self._monitors)
        for id in ids:
            results.append({"id": id, "status": "Accepted" if rest.pop(id, None) else "NotFound"})
        self._keep(rest)
        return results

    def clear_all_monitors(self) -> None:
        self._keep({})

    def monitors(self, wanted: list[Payload] | None, criteria: list[str] | None) -> list[Payload]:
        """MonitoringDataType items."""
        kinds = {
            "ThresholdMonitoring": ("UpperThreshold", "LowerThreshold"),
            "DeltaMonitoring": ("Delta",),
            "PeriodicMonitoring": ("Periodic", "PeriodicClockAligned"),
        }
        allowed = [k for c in criteria for k in kinds[c]] if criteria else None
        keys = [reference_key(w) for w in wanted] if wanted else None
        items = []
        for m in self._monitors.values():
            if (allowed and m.type not in allowed) or (keys and not any(self._matches(m.key, k) for k in keys)):
                continue
            place = Variable(m.component, m.variable, "", m.evse, m.instance).reference()
            item: Payload = {
                "id": m.id,
                "transaction": m.transaction,
                "value": m.value,
                "type": m.type,
                "severity": m.severity,
            }
            if self.version == "2.1":
                item["eventNotificationType"] = "CustomMonitor"
            items.append({**place, "variableMonitoring": [item]})
        return items

    def set_level(self, severity: int) -> bool:
        if not 0 <= severity <= 9:
            return False
        self.station.store.put("monitoring_level", severity)
        self.level = severity
        return True

    def _keep(self, monitors: dict[int, Monitor]) -> None:
        self.station.store.put("monitors", [m.kept() for m in monitors.values()])
        self._monitors = monitors

    def tick(self, now: Now) -> None:
        """Look at the monitors; once a second is enough."""
        if not self._monitors:
            return
        values = {v.key: v for v in self.variables()}
        for monitor in list(self._monitors.values()):
            variable = values.get(monitor.key)
            if variable is not None:
                self._look(monitor, variable, now)

    def _look(self, monitor: Monitor, variable: Variable, now: Now) -> None:
        if monitor.transaction and not any(t.open for t in self.station.evses.values()):
            return
        number = variable.number
        seconds = now.mono_ns / 1e9
        if monitor.type in ("UpperThreshold", "LowerThreshold"):
            if number is None:
                return
            alarmed = number > monitor.value if monitor.type == "UpperThreshold" else number < monitor.value
            if alarmed != monitor.alarmed:
                monitor.alarmed = alarmed
                self._event(monitor, variable, "Alerting", not alarmed)
        elif monitor.type == "Delta":
            if number is None or monitor.last is None:
                monitor.last = number
            elif abs(number - monitor.last) >= monitor.value:
                monitor.last = number
                self._event(monitor, variable, "Delta")
        else:
            aligned = monitor.type == "PeriodicClockAligned"
            reference = now.wall.timestamp() if aligned else seconds
            if aligned and monitor.due < 1e9:  # not yet on the wall clock
                monitor.due = (reference // monitor.value + 1) * monitor.value
            if reference >= monitor.due:
                monitor.due += max(1.0, (reference - monitor.due) // monitor.value + 1) * monitor.value
                self._event(monitor, variable, "Periodic")

    def _event(self, monitor: Monitor, variable: Variable, trigger: str, cleared: bool = False) -> None:
        event: Payload = {
            "trigger": trigger,
            "actualValue": variable.value[:2500],
            "variableMonitoringId": monitor.id,
            "eventNotificationType": "CustomMonitor",
            **variable.reference(),
        }
        if trigger == "Alerting":
            event["cleared"] = cleared
        self._notify(event, monitor.severity, variable.evse)

    def _notify(self, event: Payload, severity: int, evse: int) -> None:
        if severity > self.level:
            return
        if self.version == "2.1":
            event["severity"] = severity
        now = self._clock().iso
        transactions = self.station.evses.get(evse)
        if transactions and transactions.open:
            event["transactionId"] = transactions.open.transaction_id
        call = (
            "NotifyEvent",
            {
                "generatedAt": now,
                "seqNo": 0,
                "tbc": False,
                "eventData": [{"eventId": next(self._events), "timestamp": now, **event}],
            },
        )
        if severity > OFFLINE_SEVERITY:
            self.station.outside.send(call)
            return
        try:
            self.station.store.post(call)
        except StoreError:
            return
        self.station.outside.queued()
