"""A station and a car for V2G tests without ROS, each a process of its own, over a simulated PLC link.

``python test/v2g/v2g_desk.py secc '{...}'`` runs the V2G worker against a fake supervisor and supply;
``python test/v2g/v2g_desk.py evcc '{...}'`` runs the simulated vehicle's EVCC on a fake car. Both print one JSON
object at the end. They are processes because a user namespace is joined while a process has one thread.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robot_charger.common.clock import now_ns
from robot_charger.common.plc_link import PlcLink
from robot_charger.common.wires import WireEnd
from robot_charger.words import values

TICK_S = 0.01


@dataclass
class Car:
    """A battery of 380 V. What the inlet measures is what the station told in the shared file."""

    directory: Path
    charge_s: float = 1.5
    soc: float = 40.0
    target_soc: float = 80.0
    battery_voltage_v: float = 380.0
    max_voltage_v: float = 450.0
    max_current_a: float = 200.0
    max_power_w: float = 80_000.0
    capacity_wh: float = 60_000.0
    requested_current_a: float = 120.0
    pilot_duty: float = 0.05
    connected: bool = True
    faults: set[str] = field(default_factory=set)
    ready: bool = False
    contactor: bool = False
    locked: bool = False
    _since: float | None = None

    def _supply(self) -> dict[str, float]:
        try:
            return json.loads((self.directory / "supply.json").read_text())
        except (OSError, ValueError):
            return {"voltage_v": 0.0, "current_a": 0.0}

    @property
    def inlet_voltage_v(self) -> float:
        return self._supply()["voltage_v"]

    @property
    def inlet_current_a(self) -> float:
        return self._supply()["current_a"]

    def _tell(self) -> None:
        state = {"ready": self.ready, "contactor": self.contactor, "locked": self.locked}
        write(self.directory / "car.json", state)

    def set_ready(self, ready: bool) -> None:
        self.ready = ready
        self._tell()

    def close_contactor(self) -> bool:
        self.contactor = True
        self._tell()
        return True

    def open_contactor(self) -> None:
        self.contactor = False
        self._tell()

    def lock(self) -> None:
        self.locked = True

    def unlock(self) -> None:
        self.locked = False

    def wants_to_stop(self) -> bool:
        """After ``charge_s`` of current."""
        if abs(self.inlet_current_a) > 1.0 and self._since is None:
            self._since = time.monotonic()
        return self._since is not None and time.monotonic() - self._since > self.charge_s


def write(path: Path, value: Any) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(value))
    temporary.rename(path)


class Plain:
    """Supervisor and supply in one: permits what the target asks for, measures what it permits."""

    def __init__(self, bridge: Any, directory: Path, options: dict[str, Any]) -> None:
        from robot_charger.v2g import bridge as b

        self.b = b
        self.bridge = bridge
        self.directory = directory
        self.options = options
        self.permit = 1
        self.purpose = 0
        self.phases: list[str] = []
        self.phase_at: list[float] = []
        self.first_ampere_at = 0.0
        self.max_current_a = 0.0
        self.min_current_a = 0.0
        self.targets = 0
        self.charging_since: float | None = None
        self.stopped = threading.Event()
        self.voltage_v = self.current_a = 0.0
        self.test_until: float | None = None
        bridge.on_link = self._note_phase
        self.arm_until = 0.0
        self.asked = 0
        self.pulse = False
        self.wire = WireEnd("desk", directory) if options.get("cut_after_s") else None
        if options.get("acdp"):
            bridge.inform(arm="Home", mated=False, inlet_x_mm=12.0, inlet_y_mm=-7.0)
        bridge.inform(
            session_stamp_ns=now_ns(),
            session_id=options.get("session_id", "s-1"),
            phase=values.Phase.POSITIONING if options.get("acdp") else values.Phase.LINKING,
            authorization=values.Authorization.PENDING,
            supply_available=True,
            max_voltage_v=1000.0,
            min_voltage_v=150.0,
            max_current_a=options.get("supply_current_a", 150.0),
            max_power_w=150_000.0,
            max_export_current_a=options.get("export_a", 0.0),
            max_export_power_w=options.get("export_a", 0.0) * 400,
            meter_valid=True,
            meter_serial="TEST",
            meter_import_wh=1000.0,
            meter_time_s=time.time(),
        )
        if "begins_a" in options:
            bridge.inform(backend_max_current_a=options["begins_a"], backend_max_power_w=options["begins_a"] * 400.0)

    def step(self) -> None:
        b, bridge = self.b, self.bridge
        vehicle = bridge.vehicle
        changes: dict[str, Any] = {"session_stamp_ns": now_ns(), "authorization": self._authorization(vehicle)}
        phases = {
            values.Link.CABLE_CHECK: values.Phase.CABLE_CHECK,
            values.Link.PRECHARGE: values.Phase.PRECHARGE,
            values.Link.CHARGING: values.Phase.CHARGING,
            values.Link.STOPPING: values.Phase.STOPPING,
            values.Link.PAUSED: values.Phase.LINKING,
        }
        if self.options.get("resumes"):  # the pause may be shorter than a step
            phases[values.Link.SESSION] = values.Phase.LINKING
        if vehicle.phase in phases:
            changes["phase"] = phases[values.Link(vehicle.phase)]
        if vehicle.purpose != self.purpose:
            self.purpose = vehicle.purpose
            self.permit += 1
            if self.purpose == values.Purpose.INSULATION_TEST:
                self.test_until = time.monotonic() + 0.2
        changes |= {
            "permit_number": self.permit,
            "permit_purpose": self.purpose,
            "permit_max_voltage_v": 1000.0,
            "permit_max_current_a": 150.0,
            "permit_max_power_w": 150_000.0,
            "permit_min_current_a": -self.options.get("export_a", 0.0),
            "permit_min_power_w": -self.options.get("export_a", 0.0) * 400,
        }
        if self.test_until is not None and time.monotonic() > self.test_until:
            self.test_until = None
            fault = self.options.get("insulation") == "fault"
            changes |= {
                "insulation": values.Insulation.FAULT if fault else values.Insulation.VALID,
                "insulation_permit_number": self.permit,
            }
        if self.options.get("acdp"):
            changes |= self._arm(vehicle.phase)
        car = self._car()
        if self.purpose == values.Purpose.TRANSFER and vehicle.phase == values.Link.CHARGING:
            if self.charging_since is None:
                self.charging_since = time.monotonic()
            self.voltage_v = 385.0
            self.current_a = max(-150.0, min(150.0, vehicle.current_a)) if car["contactor"] else 0.0
        elif self.purpose == values.Purpose.PRECHARGE:
            self.voltage_v, self.current_a = vehicle.voltage_v, 0.0
        else:
            self.voltage_v = self.current_a = 0.0
        if not self.first_ampere_at and abs(self.current_a) > 1.0:
            self.first_ampere_at = time.monotonic()
        self.max_current_a = max(self.max_current_a, self.current_a)
        self.min_current_a = min(self.min_current_a, self.current_a)
        stop_after = self.options.get("stop_after_s")
        if stop_after and self.charging_since and time.monotonic() - self.charging_since > stop_after:
            changes |= {"stop_requested": True, "shutdown": self.options.get("shutdown", values.Shutdown.NORMAL)}
        limit = self.options.get("limit_a")
        cut_after = self.options.get("cut_after_s")
        if cut_after and self.charging_since and time.monotonic() - self.charging_since > cut_after:
            self.wire.send("plc1", {"fault": "link-down", "on": True})
        since_s = time.monotonic() - (self.charging_since or time.monotonic())
        if limit is not None and since_s > 0.5:
            if since_s > 0.5 + self.options.get("limit_s", 1e9):
                limit = 150.0
            changes |= {"backend_max_current_a": limit, "backend_max_power_w": limit * 1000.0}
        if self.options.get("wakes"):  # state E from the failed match until the station looks for a vehicle again
            self.pulse = vehicle.phase == values.Link.FAILED and vehicle.error == b.Code.SLAC_FAILED
            if self.pulse:
                (self.directory / "pulse").touch()
        changes |= {
            "voltage_v": self.voltage_v,
            "current_a": self.current_a,
            "contactors_closed": self._closed(),
            "pilot": 5 if self.pulse else 3 if car["ready"] else 2,
        }
        bridge.inform(**changes)
        write(self.directory / "supply.json", {"voltage_v": self.voltage_v, "current_a": self.current_a})

    def _closed(self) -> bool:
        wanted = self.purpose in (values.Purpose.PRECHARGE, values.Purpose.TRANSFER)
        return wanted or (bool(self.options.get("welded")) and self.charging_since is not None)

    def _note_phase(self, vehicle: Any) -> None:
        """Every phase, however short, as the node would publish it."""
        name = values.Link(vehicle.phase).name
        if not self.phases or self.phases[-1] != name:
            self.phases.append(name)
            self.phase_at.append(time.monotonic())

    def seconds(self) -> dict[str, float]:
        """How long each phase of the link took until the first ampere [s], and all of them; empty without one."""
        if not self.first_ampere_at:
            return {}
        ends = [*self.phase_at[1:], self.first_ampere_at]
        took = {
            name.lower(): round(max(0.0, min(end, self.first_ampere_at) - at), 3)
            for name, at, end in zip(self.phases, self.phase_at, ends, strict=True)
            if at < self.first_ampere_at and name != "IDLE"
        }
        return took | {"all": round(sum(took.values()), 3)}

    def _arm(self, phase: int) -> dict[str, Any]:
        """An arm that takes 0.4 s to connect or to go home, and the inlet's place."""
        seen = {"inlet_stamp_ns": now_ns()}
        if phase != self.asked:
            self.asked = phase
            self.arm_until = time.monotonic() + 0.4
        if phase not in (values.Link.CONNECTING, values.Link.DISCONNECTING):
            return seen
        connects = phase == values.Link.CONNECTING
        if time.monotonic() < self.arm_until:
            return seen | {"arm": "Moving", "phase": values.Phase.CONNECTING} if connects else {"arm": "Moving"}
        if connects:
            return {"arm": "EndPosition", "mated": True, "phase": values.Phase.LINKING}
        return {"arm": "Home", "mated": False}

    def _authorization(self, vehicle: Any) -> int:
        wanted = self.options.get("authorization", "accepted")
        if wanted == "refused":
            return int(values.Authorization.REFUSED)
        if wanted == "never":
            return int(values.Authorization.PENDING)
        return int(values.Authorization.ACCEPTED if vehicle.messages_in > 5 else values.Authorization.PENDING)

    def _car(self) -> dict[str, bool]:
        try:
            return json.loads((self.directory / "car.json").read_text())
        except (OSError, ValueError):
            return {"ready": False, "contactor": False}


def secc(directory: Path, options: dict[str, Any]) -> dict[str, Any]:
    from robot_charger.common.parameters import build
    from robot_charger.v2g.parameters import V2gParameters

    link = PlcLink.wait(directory, 1, "evse", options.get("interface", ""))
    link.join_user()
    from robot_charger.common.faults import Code
    from robot_charger.v2g.bridge import Bridge
    from robot_charger.v2g.worker import Worker
    from robot_charger.words.values import Link

    values = {"slac.settle_s": 0.0, "tls.required": False, "realtime": False, **options.get("parameters", {})}
    parameters = build(V2gParameters, values)
    contexts = None
    if parameters.tls__directory:
        from robot_charger.v2g import pki

        contexts = pki.station_contexts(Path(parameters.tls__directory))
    bridge = Bridge()
    reports: list[str] = []
    entries: list[Any] = []
    worker = Worker(
        "1",
        link,
        parameters,
        bridge,
        lambda report: reports.append(report.code.name) if report.active else None,
        entries.append,
        contexts,
    )
    begun = time.monotonic()
    worker.start()
    startup = time.monotonic() - begun
    ended = {Link.ENDED, Link.FAILED} | (set() if options.get("resumes") else {Link.PAUSED})
    results = []
    for number in range(options.get("sessions", 1)):
        session_id = "s-0" if options.get("replug") else f"s-{number}"
        if options.get("replug") and number:
            _plug_in_again(bridge, session_id)
        plain = Plain(bridge, directory, {**options, "session_id": session_id})
        (directory / "secc.ready").touch()
        deadline = time.monotonic() + options.get("timeout_s", 40.0)
        while time.monotonic() < deadline:
            plain.step()
            vehicle = bridge.vehicle
            again = options.get("wakes") and vehicle.error == Code.SLAC_FAILED
            if vehicle.phase in ended and vehicle.session_id == session_id and not again:
                break
            time.sleep(TICK_S)
        if plain.wire:
            plain.wire.send("plc1", {"fault": "link-down", "on": False})
            plain.wire.close()
            options.pop("cut_after_s")  # once
        for _ in range(5):
            plain.step()
        vehicle = bridge.vehicle
        results.append(
            {
                "phase": Link(vehicle.phase).name,
                "phases": plain.phases,
                "phases_s": plain.seconds(),
                "protocol": vehicle.protocol,
                "error": int(vehicle.error),
                "text": vehicle.text,
                "match_seconds": vehicle.match_seconds,
                "messages_in": vehicle.messages_in,
                "messages_bad": vehicle.messages_bad,
                "max_current_a": plain.max_current_a,
                "min_current_a": plain.min_current_a,
                "purpose": int(vehicle.purpose),
                "vehicle_max_voltage_v": vehicle.max_voltage_v,
                "soc": vehicle.soc,
                "identity": vehicle.identity,
                "contract": vehicle.contract,
                "bidirectional": vehicle.bidirectional,
                "turnaround_ms": _quantiles(worker.status.turnaround_s),
                "loop_turnaround_ms": _quantiles(worker.status.loop_turnaround_s),
            }
        )
    time.sleep(0.3)
    worker.stop()
    return {
        "sessions": results,
        "startup_s": startup,
        "reports": reports,
        "names": [entry.name for entry in entries],
        "values": worker.status.values,
    }


def _plug_in_again(bridge: Any, session_id: str) -> None:
    """Out and in again, in the same session, until nothing is known of the vehicle."""
    from robot_charger.words.values import Link, Phase

    deadline = time.monotonic() + 10.0
    while bridge.vehicle.phase != Link.IDLE and time.monotonic() < deadline:
        bridge.inform(session_stamp_ns=now_ns(), session_id=session_id, phase=Phase.CONNECTING)
        time.sleep(TICK_S)


def evcc(directory: Path, options: dict[str, Any]) -> dict[str, Any]:
    link = PlcLink.wait(directory, 1, "ev", options.get("interface", ""))
    link.join_user()
    from robot_charger.sim.evcc import Evcc, Options
    from robot_charger.sim.slac_ev import Behaviour

    class Rude(Evcc):
        """Sends nonsense by UDP and TCP before it behaves, and keeps a second connection open beside."""

        async def _connect(self, found: Any) -> Any:
            import asyncio
            import socket

            from robot_charger.v2g import v2gtp

            index = socket.if_nametoindex(self.link.interface)
            with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
                for length in range(0, 60):
                    sock.sendto(os.urandom(length), (found.address, v2gtp.SDP_PORT, 0, index))
                for _ in range(40):
                    sock.sendto(v2gtp.SdpRequest(False).encode(), (found.address, v2gtp.SDP_PORT, 0, index))
            for data in (b"GET / HTTP/1.0\r\n\r\n", v2gtp.message(0x8001, os.urandom(40)), b"\x01\xfe\x80\x01\xff"):
                _, writer = await asyncio.open_connection(f"{found.address}%{self.link.interface}", found.port)
                writer.write(data)
                await writer.drain()
                if len(data) > 8:
                    await asyncio.sleep(0.1)
                writer.close()
            made = await super()._connect(found)
            self.beside = asyncio.get_running_loop().create_task(self._second(found))
            return made

        async def _second(self, found: Any) -> None:
            import asyncio

            await asyncio.sleep(1.0)
            self.result["second"] = "refused"
            reader, writer = await asyncio.open_connection(f"{found.address}%{self.link.interface}", found.port)
            with contextlib.suppress(OSError):
                writer.write(b"me too")
                if await reader.read(1):
                    self.result["second"] = "answered"
            writer.close()

    deadline = time.monotonic() + 60.0
    while not (directory / "secc.ready").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    car = Car(directory, **options.get("car", {}))
    kind = Rude if options.get("rude") else Evcc
    chosen = Options(**{**options.get("options", {}), "behaviour": Behaviour(**options.get("behaviour", {}))})
    vehicle = kind(car, link, options.get("protocol", "iso15118-2"), chosen)
    vehicle.start()
    vehicle.finished.wait(options.get("timeout_s", 60.0))
    vehicle.stop()
    told = {**vehicle.result, "loop_ms": _quantiles(vehicle.loop_s)}
    if "again" in options:  # the same car comes back over the same link
        joins = {"resume": vehicle.result.get("session_id", ""), "slac": False, **options["again"]}
        while options.get("sleeps") and not (directory / "pulse").exists() and time.monotonic() < deadline:
            time.sleep(0.02)  # until the pilot calls it
        car = Car(directory, **options.get("car", {}))
        vehicle = Evcc(car, link, options.get("protocol", "iso15118-2"), Options(**joins))
        vehicle.start()
        vehicle.finished.wait(options.get("timeout_s", 60.0))
        vehicle.stop()
        told["again"] = dict(vehicle.result)
    return told


def _quantiles(seconds: Any) -> dict[str, float]:
    values = sorted(seconds)
    if not values:
        return {}
    at = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    return {name: round(1e3 * values[min(len(values) - 1, int(q * len(values)))], 2) for name, q in at.items()} | {
        "n": len(values)
    }


if __name__ == "__main__":
    role, text = sys.argv[1:3]
    run = {"secc": secc, "evcc": evcc}[role]
    print(json.dumps(run(Path(os.environ["ROBOT_CHARGER_SIM"]), json.loads(text))), flush=True)
    os._exit(0)
