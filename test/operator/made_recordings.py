"""Recordings made by hand: a plausible session, or pieces of one."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

from rclpy.serialization import serialize_message
from std_msgs.msg import String

from robot_charger import msg
from robot_charger.common.topics import EVSE_TOPICS, STATION_TOPICS, fill
from robot_charger.operator.definitions import definition, type_name
from robot_charger.operator.recording import Entry, Limits, Recorder, Stream, qos_text

S = 1_000_000_000
T0 = 1_790_000_000 * S
PHASES = (
    ("POSITIONING", 1.0), ("CONNECTING", 6.0), ("MATED", 0.5), ("RELEASED", 1.0), ("LINKING", 3.0),
    ("CABLE_CHECK", 4.0), ("PRECHARGE", 2.0), ("CHARGING", 10.0), ("STOPPING", 3.0), ("DISCONNECTING", 5.0),
    ("DEPARTING", 1.0),
)  # fmt: skip
_STREAMS: dict[str, Stream] = {}


def entry(name: str, message, at: float, evse: int = 1) -> Entry:
    """``name`` as in the table of topics; a String for what is not in it."""
    key = f"/evse{evse}/{name}" if not name.startswith("/") else name
    stream = _STREAMS.get(key)
    if stream is None:
        kind, qos = (EVSE_TOPICS if not name.startswith("/") else STATION_TOPICS).get(name, (String, None))
        text = qos_text(qos) if qos else ""
        stream = Stream(key, type_name(kind), definition(kind), text, 0 if name.startswith("/") else evse)
        _STREAMS[key] = stream
    time = T0 + int(at * S)
    return Entry(stream, time, time, bytes(serialize_message(message)))


def v2g(direction: str, name: str, at: float, **fields) -> Entry:
    return entry("v2g/record", String(data=json.dumps({"direction": direction, "name": name, "fields": fields})), at)


def session(
    charge_s: float = 10.0, fault: int = 0, robot: bool = True, v2g_messages: bool = True, modules: int = 46,
    rate: float = 50.0,
) -> Iterator[Entry]:  # fmt: skip
    """All messages of a session, in order; with ``fault`` it is faulted after half of the charging."""
    ends, t = [], 0.0
    for name, seconds in PHASES:
        t += charge_s if name == "CHARGING" else seconds
        ends.append((name, t))
    total = t + 1.0
    if fault:
        total = next(end for name, end in ends if name == "CHARGING") - charge_s / 2
    yield entry("power/limits", msg.SupplyLimits(max_power_w=151_800.0, modules_total=modules), 0.0)
    phase, soc, energy = "IDLE", 40.0, 0.0
    for k in range(int(total * rate)):
        at = k / rate
        now = next((name for name, end in ends if at < end), "IDLE")
        charging = now == "CHARGING"
        if now != phase or k % int(rate / 5) == 0:
            if now != phase:
                yield entry("session/event", msg.SessionEvent(name=now, session_id="5e551011-made"), at)
            phase = now
            state = fill(
                msg.SessionState(), session_id="5e551011-made", phase=getattr(msg.SessionState, f"PHASE_{now}"), evse=1,
                protocol="iso15118-2", soc=soc if charging else -1.0, text=now.lower(), stop_reason="",
            )  # fmt: skip
            yield entry("session/state", state, at)
        amps = 120.0 * math.sin(min(1.0, k / rate / 10) * math.pi / 2) if charging else 0.0
        volts = 390.0 + 0.1 * soc if now in ("PRECHARGE", "CHARGING") else 0.0
        soc += amps * volts / 3.6e6 / rate / 60 * 100
        energy += amps * volts / 3600 / rate
        supply = fill(
            msg.SupplyState(), voltage_v=volts, current_a=amps, setpoint_a=amps, power_w=volts * amps,
            session_id="5e55", contactors_closed=charging, mode=3 if charging else 0, text="",
        )  # fmt: skip
        yield entry("power/state", supply, at)
        pilot = fill(msg.PilotState(), state=3 if charging else 2 if volts else 1, pwm=charging, duty=0.05, high_v=9.0)
        yield entry("pilot/state", pilot, at)
        if k % int(rate / 10 * 4) == 0:
            target = fill(msg.VehicleTarget(), purpose=3 if charging else 0, voltage_v=volts, current_a=amps + 1)
            yield entry("vehicle/target", target, at)
            yield entry("vehicle/link", fill(msg.VehicleLink(), phase=7 if charging else 0, soc=soc), at)
            yield entry("power/meter", fill(msg.MeterReading(), import_wh=1000 + energy), at)
        if robot and k % int(rate / 10 * 2) == 0:
            depth = 0.05 * min(1.0, at / 7.0) if now == "CONNECTING" else 0.0
            arm = fill(msg.RobotState(), mode=5 if depth else 1, evse=1, depth_m=depth, axial_force_n=90 * depth / 0.05)
            yield entry("/robot/state", arm, at)
        if k % int(rate / 2) == 0:
            bank = [
                fill(msg.ModuleState(), id=n + 1, voltage_v=volts, current_a=amps / modules, state=3)
                for n in range(modules)
            ]
            yield entry("/power/modules", msg.ModuleArray(modules=bank), at)
        if v2g_messages and charging and k % int(rate / 5) == 0:
            yield v2g("in", "CurrentDemandReq", at, current=round(amps, 1))
            yield v2g("out", "CurrentDemandRes", at, voltage=round(volts, 1))
    if fault:
        yield entry("session/event", msg.SessionEvent(name="FAULTED", session_id="5e551011-made"), total)
        broken = msg.Fault(code=fault, severity=3, source="/power", active=True, text="seeded <fault> & more", evse=1)
        yield entry("fault", broken, total)
        end = msg.SessionState(session_id="5e551011-made", phase=13, fault=fault, stop_reason="Other", evse=1)
        yield entry("session/state", end, total)
    request = String(data=json.dumps({"direction": "in", "frame": [2, "7", "TransactionEvent", {"seqNo": 1}]}))
    yield entry("/ocpp/messages", request, total)
    answer = String(data=json.dumps({"direction": "out", "frame": [3, "7", {}]}))
    yield entry("/ocpp/messages", answer, total + 0.1)


def write(directory: Path, entries: Iterator[Entry] | list[Entry]) -> Path:
    """One file with these entries."""
    recorder = Recorder(directory, Limits(keep_free_bytes=0), continuous=True)
    for item in entries:
        if not recorder.files:
            recorder.tick(item.log_time)
        recorder.write([item])
    recorder.close()
    return recorder.finished[0]
