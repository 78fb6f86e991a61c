"""A vehicle that speaks CHAdeMO: protocol numbers 1 (0.9), 2 (1.x), 3 (2.0), with or without discharge.

``Ev`` is the vehicle's controller without I/O or clock; ``ChademoSession`` gives it CAN and a thread. The
values, order and pace of its frames are those of recorded vehicles: eight frames, 10 ms apart, every 100 ms.
"""

from __future__ import annotations

import math
import threading
import time
from enum import Enum
from typing import Any, Protocol

import can

from robot_charger.chademo import frames
from robot_charger.common.clock import Ticker, now_ns

SLOT_S = 0.01
SLOTS = 10  # a period of 100 ms
# What a recorded vehicle does, and what it bears. Seconds.
PERMISSION_S = 1.0  # from the first 0x109 to switch k (recorded: 3.4)
CLOSE_S = 0.2  # from d2 to the closed contactor
REQUEST_S = 1.0  # from there to the first ampere (recorded: 1.7)
WELDING_S = 0.5  # welding check
HELLO_LIMIT_S = 10.0
D2_LIMIT_S = 30.0
FLAG_LIMIT_S = 1.0  # from the first request to 109.5.0 (recorded: 0.52; one controller gives up at 0.4)
STATION_SILENT_S = 1.0
GIVE_UP_S = 2.5  # opens under load so long after it asked for the end
DEVIATION_A, DEVIATION_S = 10.0, 5.0
SMALL_A = 5.0
SLEW_A_PER_S = 20.0


class Phase(Enum):
    ASLEEP = "asleep"
    HELLO = "hello"
    PERMITTED = "permitted"
    CLOSING = "closing"
    CLOSED = "closed"
    CHARGING = "charging"
    STOPPING = "stopping"
    CHECKING = "checking"
    OPENED = "opened"
    OVER = "over"


class CarLike(Protocol):
    """What the controller needs of the simulated car (sim.vehicle.car.Car)."""

    faults: set[str]
    requested_current_a: float
    contactor: bool
    inlet_voltage_v: float
    inlet_current_a: float
    d1: bool
    d2: bool
    switch_k: bool
    k_opened_ns: int
    last_frame_ns: int

    @property
    def soc(self) -> float: ...
    @property
    def max_voltage_v(self) -> float: ...
    @property
    def min_voltage_v(self) -> float: ...
    @property
    def capacity_wh(self) -> float: ...
    @property
    def max_discharge_current_a(self) -> float: ...
    @property
    def charge_seconds(self) -> float: ...
    def wants_to_stop(self) -> bool: ...
    def close_contactor(self) -> bool: ...
    def open_contactor(self) -> bool: ...
    def announce(self, max_current_a: float, max_power_w: float = ...) -> None: ...


class Ev:
    """The vehicle's side of the sequence. ``step`` every 10 ms; ``frame`` encodes one of its frames as of now."""

    def __init__(self, car: CarLike, protocol: int = 2, v2x: bool = False) -> None:
        self.car = car
        self.protocol = protocol
        self.v2x = v2x
        self.phase = Phase.ASLEEP
        self.k = False
        self.enabled = False
        self.request_a = 0
        self.faults: set[str] = set()  # fault bits of 0x102
        self.contactor_open = True
        self.text = ""
        self.failed = False
        self.result: dict[str, Any] = {"protocol": "chademo", "protocol_number": protocol}
        self._since_s = 0.0
        self._station: dict[int, frames.Values] = {}
        self._heard_s = -math.inf
        self._d1_s = 0.0
        self._requested_s: float | None = None
        self._deviation_s: float | None = None
        self._spoke = 0
        self._permitted_once = False
        self._rising_a = 0.0

    # From the bus.
    def take(self, identifier: int, data: bytes, now_s: float) -> None:
        if identifier not in frames.FRAMES or frames.FRAMES[identifier].sender != frames.EVSE:
            return
        try:
            self._station[identifier] = frames.decode(identifier, data)
        except frames.FrameError:
            return
        if identifier == frames.STATION_STATUS:
            self._heard_s = now_s

    def station(self, name: str, identifier: int = frames.STATION_STATUS) -> float:
        return self._station.get(identifier, {}).get(name, 0)

    # To the bus.
    @property
    def awake(self) -> bool:
        silent = "can-silence" in self.car.faults and self._midway()
        return self.phase not in (Phase.ASLEEP, Phase.OVER) and not silent

    def schedule(self) -> list[int]:
        """Identifiers in the order of a recorded vehicle."""
        order = [frames.VEHICLE_LIMITS, frames.VEHICLE_TIME, frames.VEHICLE_CONTROL]
        if self.v2x:
            order.append(frames.VEHICLE_V2X)
        if self.protocol >= 2:
            order.append(frames.VEHICLE_EXTENSION)
        if self.v2x:
            order.append(frames.VEHICLE_V2X_TIME)
        return [*order, frames.VEHICLE_MAKER, 0x202]

    def frame(self, identifier: int) -> bytes:
        """One of ``schedule`` with the values of now."""
        if identifier == 0x202:
            return bytes([1, 1, 1, 0, 0, 0, 0, 0])
        return frames.encode(identifier, getattr(self, f"_{frames.FRAMES[identifier].name}")())

    def _vehicle_limits(self) -> dict[str, float]:
        self._spoke += 1
        full = 240 if not self._complete() else 100 if self.protocol >= 2 else 255
        least = 6 if self.protocol >= 2 else 0
        low = self.car.min_voltage_v if self.protocol >= 2 else 0
        high = self.car.max_voltage_v
        return {"min_current_a": least, "min_battery_v": low, "max_battery_v": high, "rate_reference": full}

    def _vehicle_time(self) -> dict[str, float]:
        known = self._permitted_once
        minutes = 60 if known else 0
        return {
            "max_time_10s": 255,
            "max_time_min": minutes,
            "estimated_min": 30 if known else 0,
            "capacity_kwh": self.car.capacity_wh / 1000.0,
        }

    def _vehicle_control(self) -> dict[str, float]:
        soc = 3.0 if self._spoke < 5 else 1.0
        if self._permitted_once:
            soc = self.car.soc * (100 if self.protocol >= 2 else 255) / 100
        target_v = 600 if "wrong-voltage" in self.car.faults else self.car.max_voltage_v - 15
        bits: dict[str, float] = dict.fromkeys(self.faults, 1)
        return bits | {
            "protocol": self.protocol,
            "target_v": round(target_v),
            "request_a": self.request_a,
            "enabled": self.enabled,
            "contactor_open": self.contactor_open and self.protocol >= 2,
            "discharge": self.v2x,
            "soc": min(255, round(soc)),
        }

    def _vehicle_extension(self) -> dict[str, float]:
        return {"dynamic_control": 1}

    def _vehicle_v2x(self) -> dict[str, float]:
        wanted = max(0.0, -self.car.requested_current_a) if self.phase is Phase.CHARGING else 0.0
        return {
            "max_discharge_a": round(wanted),
            "min_discharge_v": self.car.min_voltage_v,
            "min_level": 10,
            "max_level": 95,
        }

    def _vehicle_v2x_time(self) -> dict[str, float]:
        return {"sequence": 2, "discharge_min": 60, "energy_kwh": self.car.capacity_wh / 2000.0}

    def _vehicle_maker(self) -> dict[str, float]:
        return {"automaker": 1}

    # The sequence.
    def step(self, now_s: float, d1: bool, d2: bool) -> None:
        """Wires d1 and d2 as the vehicle feels them."""
        if self.phase not in (Phase.ASLEEP, Phase.OVER) and not d1 and now_s - self._d1_s > 0.2:
            self._end(now_s)
        handler = getattr(self, "_" + self.phase.value)
        handler(now_s, d1, d2)
        if self.phase in (Phase.CLOSED, Phase.CHARGING):
            self._watch(now_s)
        if "k-open" in self.car.faults and self._midway():
            self.k = False

    def _asleep(self, now_s: float, d1: bool, d2: bool) -> None:
        if d1:
            self._d1_s = now_s
            self._to(Phase.HELLO, now_s)

    def _hello(self, now_s: float, d1: bool, d2: bool) -> None:
        if self._complete():
            first = self.result.setdefault("first_answer_s", round(now_s - self._d1_s, 3))
            if self.station("incompatible"):
                self._fail("the station calls the battery incompatible", now_s)
            elif now_s - self._d1_s > first + PERMISSION_S:
                self.k = self.enabled = self._permitted_once = True
                self.result["permission_s"] = round(now_s - self._d1_s, 3)
                self._to(Phase.PERMITTED, now_s)
        elif now_s - self._since_s > HELLO_LIMIT_S:
            self._fail("no 0x108 and 0x109", now_s)

    def _permitted(self, now_s: float, d1: bool, d2: bool) -> None:
        if self._station_faulty():
            self._fail("the station reports a fault", now_s)
        elif d2 and self.station("locked"):
            self.result["d2_s"] = round(now_s - self._d1_s, 3)
            self.result["inlet_v_at_d2"] = round(self.car.inlet_voltage_v, 1)
            self._to(Phase.CLOSING, now_s)
        elif now_s - self._since_s > D2_LIMIT_S:
            self._fail("d2 did not come", now_s)

    def _closing(self, now_s: float, d1: bool, d2: bool) -> None:
        if now_s - self._since_s < CLOSE_S:
            return
        if self.car.close_contactor():
            self.contactor_open = False
            self._to(Phase.CLOSED, now_s)
        elif now_s - self._since_s > 4.0:
            self._fail(f"{self.car.inlet_voltage_v:.0f} V at the inlet: the contactor stays open", now_s)

    def _closed(self, now_s: float, d1: bool, d2: bool) -> None:
        available_a = self.station("available_a", frames.STATION_LIMITS)
        self.car.announce(max(0.0, available_a - 1))  # some stations end at exactly their limit
        if now_s - self._since_s < REQUEST_S:
            return
        self.request_a = self._wish()
        if self.request_a > 0 and self._requested_s is None:
            self._requested_s = now_s
        if self.station("charging") and not self.station("stop_control"):
            if self._requested_s is not None:
                self.result["charging_flag_s"] = round(now_s - self._requested_s, 3)
            self._to(Phase.CHARGING, now_s)
        elif self._requested_s is not None and now_s - self._requested_s > FLAG_LIMIT_S:
            self._fail("the station did not begin to charge", now_s)
        elif self.station("stop_control") == 0 and not self.station("charging"):
            self._fail("the station's status bits contradict each other", now_s)

    def _charging(self, now_s: float, d1: bool, d2: bool) -> None:
        available_a = self.station("available_a", frames.STATION_LIMITS)
        self.car.announce(max(0.0, available_a - 1))
        self.request_a = self._wish()
        if self.car.wants_to_stop():
            self._stop("the battery has what it wanted", now_s)
        elif self.station("stop_control"):
            self._stop("the station stops", now_s)
        elif "vehicle-fault" in self.car.faults and self._midway():
            self.faults.add("over_temperature")
            self._fail("the battery is too hot", now_s)

    def _stopping(self, now_s: float, d1: bool, d2: bool) -> None:
        over = now_s - self._since_s > GIVE_UP_S
        ended = abs(self.car.inlet_current_a) <= SMALL_A and not self.station("charging")
        if ended or over or not self.car.contactor:
            self.result.setdefault("current_end_s", round(now_s - self._since_s, 3))
            self.car.open_contactor()
            self._to(Phase.CHECKING, now_s)

    def _checking(self, now_s: float, d1: bool, d2: bool) -> None:
        self.car.open_contactor()
        if not self.car.contactor and now_s - self._since_s > WELDING_S:
            self.result["inlet_v_at_end"] = round(self.car.inlet_voltage_v, 1)
            self.contactor_open = True
            self._to(Phase.OPENED, now_s)

    def _opened(self, now_s: float, d1: bool, d2: bool) -> None:
        """Waits for d1 to go."""

    def _over(self, now_s: float, d1: bool, d2: bool) -> None:
        """Silent."""

    def _watch(self, now_s: float) -> None:
        """What a vehicle does not bear while its contactor is closed."""
        if now_s - self._heard_s > STATION_SILENT_S:
            self._fail("the station is silent", now_s)
        elif self._station_faulty():
            self._fail("the station reports a fault", now_s)
        present_a = self.station("present_a")
        if self.v2x and self.station("present_discharge_a", frames.STATION_V2X) > 0:
            present_a = self.request_a
        if "current-deviation" in self.car.faults and self._midway():
            present_a -= 2 * DEVIATION_A
        if abs(present_a - self.request_a) <= DEVIATION_A or self.phase is not Phase.CHARGING:
            self._deviation_s = None
        elif self._deviation_s is None:
            self._deviation_s = now_s
        elif now_s - self._deviation_s > DEVIATION_S:
            self.faults.add("current_deviation")
            self._fail(f"{present_a:.0f} A instead of {self.request_a} A", now_s)

    def _wish(self) -> int:
        """The next request: rises by at most 20 A/s, falls at once, stays 1 A below what the station has."""
        most = self.station("available_a", frames.STATION_LIMITS) - 1
        self._rising_a = max(
            0.0, min(self.car.requested_current_a, most, 254.0, self._rising_a + SLEW_A_PER_S * SLOT_S)
        )
        return int(self._rising_a)

    def _midway(self) -> bool:
        return self.car.charge_seconds > 3.0

    def _complete(self) -> bool:
        return frames.STATION_LIMITS in self._station and frames.STATION_STATUS in self._station

    def _station_faulty(self) -> bool:
        return bool(self.station("malfunction") or self.station("system_malfunction"))

    def _stop(self, text: str, now_s: float) -> None:
        self.text = self.text or text
        self.request_a = 0
        self.enabled = self.k = False
        if self.phase not in (Phase.STOPPING, Phase.CHECKING, Phase.OPENED, Phase.OVER):
            self._to(Phase.STOPPING, now_s)

    def _fail(self, text: str, now_s: float) -> None:
        self.failed = True
        self._stop(text, now_s)

    def _end(self, now_s: float) -> None:
        """d1 has gone."""
        if self.phase in (Phase.PERMITTED, Phase.CLOSING, Phase.CLOSED, Phase.CHARGING):
            self._fail("d1 went off", now_s)
        self.car.open_contactor()
        self.k = self.enabled = False
        self.contactor_open = True
        self._to(Phase.OVER, now_s)

    def _to(self, phase: Phase, now_s: float) -> None:
        self.phase, self._since_s = phase, now_s


class ChademoSession:
    """One plug-in of a CHAdeMO vehicle: thread and bus around ``Ev`` (a Session of sim.vehicle.car)."""

    def __init__(self, car: CarLike, bus: can.BusABC, protocol: int = 2, v2x: bool = False) -> None:
        self.finished = threading.Event()
        self.ev = Ev(car, protocol, v2x)
        self.result = self.ev.result
        self._car = car
        self._bus = bus
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="chademo-vehicle", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """The connection breaks: silent at once."""
        self._stopped.set()
        self._thread.join(timeout=2.0)

    def _run(self) -> None:
        ticker = Ticker(SLOT_S)
        slot = 0
        while not self._stopped.is_set() and self.ev.phase is not Phase.OVER:
            now_s = time.monotonic()
            while (frame := self._bus.recv(0)) is not None:
                self.ev.take(frame.arbitration_id, bytes(frame.data), now_s)
            self.ev.step(now_s, self._car.d1, self._car.d2)
            if self._car.switch_k and not self.ev.k:
                self._car.k_opened_ns = now_ns()
            self._car.switch_k = self.ev.k
            schedule = self.ev.schedule()
            if self.ev.awake and slot < len(schedule):
                self._send(schedule[slot])
            slot = (slot + 1) % SLOTS
            ticker.wait()
        self._car.switch_k = False
        ok = not self.ev.failed and not self._stopped.is_set() and "charging_flag_s" in self.result
        self.result.update(ok=ok, result="ended" if ok else "failed", text=self.ev.text)
        self.finished.set()

    def _send(self, identifier: int) -> None:
        try:
            message = can.Message(arbitration_id=identifier, data=self.ev.frame(identifier), is_extended_id=False)
            self._bus.send(message)
            self._car.last_frame_ns = now_ns()
        except (can.CanError, OSError) as error:
            self.ev.text = f"bus: {error}"
