"""A vehicle that speaks GB/T 27930: 2015, or 2011 (no BHM).

``Ev`` is the vehicle's controller without I/O or clock; ``GbtSession`` gives it CAN and a thread. Values, order and
pace of its messages are those of recorded vehicles; it restarts after a time-out as they do.

Faults on request (``car.faults``): ``no-NAME`` (a message that never comes: no-brm, no-bcp, no-bro, no-bcl, no-bcs,
no-bst, no-bsd; in the charge those of it), ``can-silence``, ``wrong-length``, ``transport-abort``, ``vehicle-fault``
(BSM), ``cell-overvoltage``, ``wrong-voltage`` (the battery is not the one that BCP named), ``late-voltage`` (its
contactors close only after CRO AA), ``pause`` (BSM does not allow charging for three seconds), ``not-ready`` (BRO stays
00), ``bst`` (it ends the charge). ``reversed-polarity`` and ``latch-open`` are the car's.
"""

from __future__ import annotations

import threading
import time
from enum import Enum
from typing import Any, Protocol

import can

from robot_charger.common.clock import Ticker, now_ns
from robot_charger.gbt import frames, transport
from robot_charger.gbt.frames import (
    BMS,
    CHARGER,
    MESSAGES,
    OF_CHARGER,
    READY,
    Decoded,
    FrameError,
    Given,
    decode,
    encode,
)
from robot_charger.gbt.transport import Frame, Sender

SLOT_S = 0.01
CELL_V = 3.65  # nominal of one cell
# What a recorded vehicle does. Seconds.
CLOSE_S = 1.0  # from the first BRO to closed contactors (recorded: 1.2)
OPEN_LATEST_S = 1.0  # opens under load so long after its BST
BSD_S = 0.3  # from BST to BSD (recorded)
PAUSE_S = 3.0
# What it bears from the charger (TY): message -> seconds of silence, the bit of BEM.
CRM_S, CML_S, CRO_S, CCS_S, CST_S, CSD_S = 5.0, 5.0, 60.0, 1.0, 5.0, 5.0
SMALL_A = 5.0


class Phase(Enum):
    ASLEEP = "asleep"  # no auxiliary supply
    HELLO = "hello"  # BHM
    IDENTITY = "identity"  # BRM until CRM AA
    BATTERY = "battery"  # BCP until CTS and CML
    CLOSING = "closing"  # BRO 00, the contactors close
    READY = "ready"  # BRO AA until CRO AA
    CHARGING = "charging"  # BCL, BCS, BSM
    STOPPING = "stopping"  # BST
    STATISTICS = "statistics"  # BSD
    ERROR = "error"  # BEM until CRM 00
    OVER = "over"


class CarLike(Protocol):
    """What the controller needs of the simulated car (sim.vehicle.car.Car)."""

    faults: set[str]
    requested_current_a: float
    contactor: bool
    inlet_voltage_v: float
    inlet_current_a: float
    auxiliary: bool
    stopped_ns: int
    last_frame_ns: int

    @property
    def soc(self) -> float: ...
    @property
    def max_voltage_v(self) -> float: ...
    @property
    def max_current_a(self) -> float: ...
    @property
    def battery_voltage_v(self) -> float: ...
    @property
    def capacity_wh(self) -> float: ...
    @property
    def charge_seconds(self) -> float: ...
    def wants_to_stop(self) -> bool: ...
    def close_contactor(self) -> bool: ...
    def open_contactor(self) -> bool: ...
    def announce(self, max_current_a: float, max_power_w: float = ...) -> None: ...


class Ev:
    """The vehicle's side of the sequence. ``step`` every 10 ms gives the frames to send."""

    def __init__(self, car: CarLike, edition: int = 2015) -> None:
        self.car = car
        self.edition = edition
        self.phase = Phase.ASLEEP
        self.text = ""
        self.failed = False
        self.result: dict[str, Any] = {"protocol": "gbt", "edition": edition, "restarts": 0}
        self._sender = Sender(BMS, CHARGER)
        self._heard: dict[str, Decoded] = {}
        self._heard_s: dict[str, float] = {}
        self._due_s: dict[str, float] = {}
        self._since_s = self._woken_s = 0.0
        self._stop_flags: dict[str, int] = {}
        self._error_flags: dict[str, int] = {}

    # From the bus.
    def take(self, identifier: int, data: bytes, now_s: float) -> None:
        pf, destination, source = frames.source_of(identifier)
        if source != CHARGER or destination != BMS:
            return
        if pf == transport.CM:
            self._sender.answer(data, round(now_s * 1e9))
        elif pf in OF_CHARGER:
            name = OF_CHARGER[pf].name
            try:
                self._heard[name] = decode(name, data)
            except FrameError:
                return
            self._heard_s[name] = now_s

    def hears(self, name: str, field: str = "", value: float = 0) -> bool:
        """The charger has sent this since the last restart (with this value, in its newest)."""
        message = self._heard.get(name)
        return message is not None and (not field or message.get(field, -1) == value)

    # The sequence.
    def step(self, now_s: float, auxiliary: bool) -> list[Frame]:
        """One cycle with the auxiliary supply as the vehicle feels it: what goes on the bus."""
        if not auxiliary and self.phase not in (Phase.ASLEEP, Phase.OVER):
            self._end(now_s)
        if self.hears("CEM") and self.phase not in (Phase.ERROR, Phase.HELLO, Phase.OVER, Phase.ASLEEP):
            self._complain("the charger reports a time-out", "", now_s)
        getattr(self, "_" + self.phase.value)(now_s, auxiliary)
        if self.phase in (Phase.ASLEEP, Phase.OVER):
            return []
        sent = self._sender.step(round(now_s * 1e9))
        if self._faulty("transport-abort") and self._sender.busy and sent:
            pgn = self._sender.pgn
            self._sender = Sender(BMS, CHARGER)
            abort = bytes([transport.ABORT, 1, 0xFF, 0xFF, 0xFF, pgn & 0xFF, pgn >> 8, 0])
            sent.append((transport.identifier(transport.CM, BMS, CHARGER), abort))
        for name in self._due(now_s):
            sent += self._send(name, now_s)
        return [] if "can-silence" in self.car.faults and self._midway() else sent

    def _asleep(self, now_s: float, auxiliary: bool) -> None:
        if auxiliary:
            self._woken_s = now_s
            self._to(Phase.HELLO, now_s)

    def _hello(self, now_s: float, auxiliary: bool) -> None:
        if self.hears("CRM", "identified", 0):
            self.result["first_crm_s"] = round(now_s - self._woken_s, 3)
            self._to(Phase.IDENTITY, now_s)

    def _identity(self, now_s: float, auxiliary: bool) -> None:
        if self.hears("CRM", "identified", READY):
            self._to(Phase.BATTERY, now_s)
        else:
            self._bear("CRM", CRM_S, "crm_aa", now_s)

    def _battery(self, now_s: float, auxiliary: bool) -> None:
        if self.hears("CML"):
            most_a = self._heard["CML"].get("max_a")
            self.car.announce(most_a)
            self._to(Phase.CLOSING, now_s)
        else:
            self._bear("CML", CML_S, "cts_cml", now_s)

    def _closing(self, now_s: float, auxiliary: bool) -> None:
        late = self._faulty("late-voltage")
        if now_s - self._since_s > CLOSE_S and not self._faulty("not-ready") and (late or self.car.close_contactor()):
            self._to(Phase.READY, now_s)

    def _ready(self, now_s: float, auxiliary: bool) -> None:
        if self.hears("CRO", "ready", READY):
            self.result["cro_s"] = round(now_s - self._woken_s, 3)
            self.car.close_contactor()
            self._heard_s["CCS"] = now_s
            self._to(Phase.CHARGING, now_s)
        elif now_s - self._since_s > CRO_S or now_s - max(self._since_s, self._heard_s.get("CRO", 0.0)) > CML_S:
            self._complain("no CRO", "cro", now_s)

    def _charging(self, now_s: float, auxiliary: bool) -> None:
        self.car.close_contactor()
        if self.hears("CCS") and "first_ccs_s" not in self.result:
            self.result["first_ccs_s"] = round(now_s - self._woken_s, 3)
        if self.hears("CST"):
            self._stop("the charger stops", {"charger_stopped": 1}, now_s)
        elif self.car.wants_to_stop() or (self._faulty("bst") and self._midway()):
            self._stop("the battery has what it wanted", {"soc_reached": 1}, now_s)
        elif now_s - self._heard_s.get("CCS", 0.0) > (CCS_S if self.hears("CCS") else CRO_S):
            self._complain(f"no CCS for {CCS_S:g} s", "ccs", now_s)

    def _stopping(self, now_s: float, auxiliary: bool) -> None:
        waited_s = now_s - self._since_s
        if abs(self.car.inlet_current_a) <= SMALL_A or waited_s > OPEN_LATEST_S:
            self.result.setdefault("current_end_s", round(waited_s, 3))
            self.car.open_contactor()
        opened = not self.car.contactor or waited_s > OPEN_LATEST_S + BSD_S
        if self.hears("CST") and opened and waited_s > BSD_S:
            self._to(Phase.STATISTICS, now_s)
        elif waited_s > CST_S and not self.hears("CST"):
            self._complain("no CST", "cst", now_s)
        elif self._faulty("no-bst") and waited_s > CST_S:
            self._to(Phase.STATISTICS, now_s)

    def _statistics(self, now_s: float, auxiliary: bool) -> None:
        self.car.open_contactor()
        if self.hears("CSD"):
            self.result.setdefault("statistics", dict(self._heard["CSD"].values))
        elif now_s - self._since_s > CSD_S:
            self._complain("no CSD", "csd", now_s)

    def _error(self, now_s: float, auxiliary: bool) -> None:
        self.car.open_contactor()
        if self.hears("CRM", "identified", 0):
            self.result["restarts"] += 1
            self._heard.clear()
            self.failed = False
            self._to(Phase.IDENTITY, now_s)

    def _over(self, now_s: float, auxiliary: bool) -> None:
        """Silent."""

    # To the bus.
    def _due(self, now_s: float) -> list[str]:
        """Names of the messages that this phase sends and that are due."""
        names = []
        for name in self._names():
            due_s = self._due_s.get(name, now_s)
            if now_s >= due_s - 1e-4:
                period_s = MESSAGES[name].period_s
                self._due_s[name] = due_s + period_s if due_s + period_s > now_s else now_s + period_s
                names.append(name)
        return [name for name in names if f"no-{name.lower()}" not in self.car.faults or not self._now(name)]

    def _names(self) -> tuple[str, ...]:
        if self.phase is Phase.HELLO:
            return ("BHM",) if self.edition >= 2015 and self.hears("CHM") else ()
        return {
            Phase.IDENTITY: ("BRM",),
            Phase.BATTERY: ("BCP",),
            Phase.CLOSING: ("BRO",),
            Phase.READY: ("BRO",),
            Phase.CHARGING: ("BCL", "BCS", "BSM"),
            Phase.STOPPING: ("BST",),
            Phase.STATISTICS: ("BSD",),
            Phase.ERROR: ("BEM",),
        }.get(self.phase, ())

    def _now(self, name: str) -> bool:
        """A fault of the charge begins when current has flowed for a while, the others at once."""
        return self._midway() if name in ("BCL", "BCS", "BSM") else True

    def _send(self, name: str, now_s: float) -> list[Frame]:
        message = MESSAGES[name]
        data = encode(name, getattr(self, f"_{name.lower()}")(now_s))
        if self._faulty("wrong-length") and name == "BCP":
            data = data[:12]
        if len(data) <= frames.SINGLE:
            return [(message.identifier, data)]
        if self._sender.busy and self._sender.pgn == message.pgn:
            return []  # the last one is still under way
        return self._sender.send(message.pgn, data, round(now_s * 1e9))

    @property
    def _cells(self) -> int:
        return max(1, round(self.car.max_voltage_v / 1.15 / CELL_V))

    def _bhm(self, now_s: float) -> Given:
        return {"max_total_v": self.car.max_voltage_v}

    def _brm(self, now_s: float) -> Given:
        volts = self._cells * CELL_V
        return {
            "version_minor": 1, "version_major": 1 if self.edition >= 2015 else 0, "battery_type": 6,
            "capacity_ah": self.car.capacity_wh / volts, "rated_v": volts, "maker": "SIM", "pack_number": 1,
            "year": 2023, "month": 6, "day": 1, "charges": 12, "owned": 1, "vin": "SIMULATEDVEHICLE1", "software": "1",
        }  # fmt: skip

    def _bcp(self, now_s: float) -> Given:
        volts = self.car.battery_voltage_v
        return {
            "max_cell_v": self.car.max_voltage_v / self._cells + 0.02, "max_a": min(400.0, self.car.max_current_a),
            "energy_kwh": self.car.capacity_wh / 1000.0, "max_total_v": self.car.max_voltage_v,
            "max_temperature_c": 60, "soc": self.car.soc,
            "battery_v": volts * 0.8 if self._faulty("wrong-voltage") else volts,
        }  # fmt: skip

    def _bro(self, now_s: float) -> Given:
        return {"ready": READY if self.phase is Phase.READY else 0}

    def _bcl(self, now_s: float) -> Given:
        amps = min(400.0, max(0.0, self.car.requested_current_a))
        return {"voltage_v": self.car.max_voltage_v, "current_a": amps, "mode": 2}

    def _bcs(self, now_s: float) -> Given:
        volts = self.car.inlet_voltage_v if self.car.contactor else self.car.battery_voltage_v
        cell_v = max(0.0, volts) / self._cells
        if self._faulty("cell-overvoltage") and self._midway():
            cell_v = self.car.max_voltage_v / self._cells + 0.1
        amps = min(400.0, max(0.0, self.car.inlet_current_a))
        return {
            "voltage_v": max(0.0, volts), "current_a": amps, "max_cell_v": cell_v, "max_cell_group": 1,
            "soc": round(self.car.soc), "left_min": 30,
        }  # fmt: skip

    def _bsm(self, now_s: float) -> Given:
        paused = self._faulty("pause") and 3.0 < self.car.charge_seconds < 3.0 + PAUSE_S
        hot = self._faulty("vehicle-fault") and self._midway()
        return {
            "max_cell_number": 6, "max_temperature_c": 27, "max_temperature_point": 2, "min_temperature_c": 25,
            "min_temperature_point": 1, "overtemperature": int(hot), "allowed": int(not paused),
        }  # fmt: skip

    def _bst(self, now_s: float) -> Given:
        return self._stop_flags

    def _bsd(self, now_s: float) -> Given:
        cell_v = self.car.battery_voltage_v / self._cells
        return {
            "soc": round(self.car.soc), "min_cell_v": cell_v, "max_cell_v": cell_v, "min_temperature_c": 25,
            "max_temperature_c": 27,
        }  # fmt: skip

    def _bem(self, now_s: float) -> Given:
        return self._error_flags

    # Small things.
    def _faulty(self, name: str) -> bool:
        return name in self.car.faults

    def _midway(self) -> bool:
        return self.car.charge_seconds > 3.0

    def _bear(self, name: str, seconds: float, flag: str, now_s: float) -> None:
        """A message of the charger may be silent for so long in this phase."""
        if now_s - max(self._since_s, self._heard_s.get(name, 0.0)) > seconds or now_s - self._since_s > 2 * seconds:
            self._complain(f"no {name} for {seconds:g} s", flag, now_s)

    def _stop(self, text: str, flags: dict[str, int], now_s: float) -> None:
        self.text = self.text or text
        self._stop_flags = flags
        self.car.stopped_ns = now_ns()
        self._to(Phase.STOPPING, now_s)

    def _complain(self, text: str, flag: str, now_s: float) -> None:
        self.failed = True
        self.text = text
        self._error_flags = {flag: 1} if flag else {}
        self._heard.clear()
        self._to(Phase.ERROR, now_s)

    def _end(self, now_s: float) -> None:
        """The auxiliary supply has gone."""
        if self.phase not in (Phase.STATISTICS, Phase.HELLO, Phase.ASLEEP):
            self.failed = True
            self.text = self.text or "the auxiliary supply went off"
        self.car.open_contactor()
        self._to(Phase.OVER, now_s)

    def _to(self, phase: Phase, now_s: float) -> None:
        self.phase, self._since_s = phase, now_s
        self._due_s.clear()


class GbtSession:
    """One plug-in of a GB/T vehicle: thread and bus around ``Ev`` (a Session of sim.vehicle.car)."""

    def __init__(self, car: CarLike, bus: can.BusABC, edition: int = 2015) -> None:
        self.finished = threading.Event()
        self.ev = Ev(car, edition)
        self.result = self.ev.result
        self._car = car
        self._bus = bus
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gbt-vehicle", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """The connection breaks: silent at once."""
        self._stopped.set()
        self._thread.join(timeout=2.0)

    def _run(self) -> None:
        ticker = Ticker(SLOT_S)
        while not self._stopped.is_set() and self.ev.phase is not Phase.OVER:
            now_s = time.monotonic()
            while (frame := self._bus.recv(0)) is not None:
                if frame.is_extended_id:
                    self.ev.take(frame.arbitration_id, bytes(frame.data), now_s)
            for identifier, data in self.ev.step(now_s, self._car.auxiliary):
                self._send(identifier, data)
            ticker.wait()
        ok = not self.ev.failed and not self._stopped.is_set() and "first_ccs_s" in self.result
        self.result.update(ok=ok, result="ended" if ok else "failed", text=self.ev.text)
        self.finished.set()

    def _send(self, identifier: int, data: bytes) -> None:
        try:
            self._bus.send(can.Message(arbitration_id=identifier, data=data, is_extended_id=True))
            self._car.last_frame_ns = now_ns()
        except (can.CanError, OSError) as error:
            self.ev.text = f"bus: {error}"
