"""What the vehicle said last, and whether it can be believed. A message that cannot is counted and moves nothing."""

from __future__ import annotations

from collections import deque

from robot_charger.gbt import frames, transport
from robot_charger.gbt.frames import BMS, CHARGER, Decoded, FrameError, decode
from robot_charger.gbt.timing import limit
from robot_charger.gbt.transport import Frame, Receiver

BROADCAST = 0xFF
LOWEST_V, HIGHEST_V = 50.0, 1500.0  # of any battery
HIGHEST_A = 1000.0
REACHED = ("soc_reached", "voltage_reached", "cell_reached", "charger_stopped")  # reasons of BST that are no fault
# Limits of the vehicle: once named they may fall, never rise.
CEILINGS = {"BHM": ("max_total_v",), "BCP": ("max_total_v", "max_a", "max_cell_v", "max_temperature_c")}
NOTHING = Decoded("", {}, {})


class Vehicle:
    """Newest believable message of every name, with its arrival."""

    def __init__(self) -> None:
        self.messages: dict[str, Decoded] = {}
        self.arrived_ns: dict[str, int] = {}
        self.newest_ns = 0  # of any believed message
        self.good = self.refused = 0
        self.others = 0  # frames between other addresses
        self.frozen = False  # limits that were named no longer rise
        self._last_bad = ""
        self._requests: deque[int] = deque(maxlen=256)
        self._transport = Receiver(CHARGER, BMS, _unwanted)

    def take(self, identifier: int, data: bytes, now_ns: int) -> list[Frame]:
        """One frame with 29-bit identifier from the bus. Returns what the transport protocol answers at once."""
        pf, destination, source = frames.source_of(identifier)
        if source != BMS or destination not in (CHARGER, BROADCAST):
            self.others += 1
            return []
        if pf == transport.CM:
            return self._transport.control(data, now_ns)
        if pf == transport.DT:
            answers, message = self._transport.packet(data, now_ns)
            if message:
                self._message(message[0] >> 8, message[1], now_ns)
            return answers
        self._message(pf, data, now_ns)
        return []

    def step(self, now_ns: int) -> list[Frame]:
        """What the transport protocol sends by itself."""
        return self._transport.step(now_ns)

    def refuse(self, text: str) -> None:
        """A frame that is no frame of this bus."""
        self.refused += 1
        self._last_bad = text

    def forget(self, *names: str) -> None:
        """These messages count as not heard yet."""
        for name in names:
            self.messages.pop(name, None)
            self.arrived_ns.pop(name, None)

    @property
    def bad(self) -> int:
        """Messages and transfers that were refused."""
        return self.refused + self._transport.bad

    @property
    def last_bad(self) -> str:
        return self._last_bad or self._transport.last_bad

    def heard(self, name: str) -> bool:
        return name in self.messages

    def get(self, message: str, field: str, default: float = 0.0) -> float:
        """A field of the newest message, ``default`` when there is none."""
        return self.messages.get(message, NOTHING).get(field, default)

    def silent_s(self, name: str, since_ns: int, now_ns: int) -> float:
        """Seconds without this message, counted from ``since_ns`` when none came after it."""
        return (now_ns - max(since_ns, self.arrived_ns.get(name, 0))) / 1e9

    def crowded(self, now_ns: int) -> bool:
        """More requests than one vehicle sends."""
        while self._requests and (now_ns - self._requests[0]) / 1e9 > limit("request_window"):
            self._requests.popleft()
        return len(self._requests) > limit("requests_in_window")

    @property
    def vin(self) -> str:
        return self.messages.get("BRM", NOTHING).texts.get("vin", "")

    @property
    def soc(self) -> float:
        """State of charge [%], -1 = not known."""
        for message in ("BSD", "BCS", "BCP"):
            soc = self.get(message, "soc", -1.0)
            if 0.0 <= soc <= 100.0:
                return soc
        return -1.0

    @property
    def max_voltage_v(self) -> float:
        """Highest total voltage allowed, 0 = not named yet [V]."""
        named = [self.get(*row) for row in (("BCP", "max_total_v"), ("BHM", "max_total_v"))]
        return min((v for v in named if v > 0.0), default=0.0)

    @property
    def fault(self) -> str:
        """What the vehicle complains of in BSM, empty when nothing."""
        words = [word for word in ("overcurrent", "overtemperature", "insulation", "connector") if self._says(word)]
        words += ["cell voltage high"] if self._says("cell_voltage") else []
        return ", ".join(words)

    @property
    def stop_reasons(self) -> tuple[str, str]:
        """What BST names: (faults, what was reached), in words."""
        told = [row.name for row in frames.MESSAGES["BST"].fields if self.get("BST", row.name) == 1]
        words = {True: [], False: []}  # type: dict[bool, list[str]]
        for name in told:
            words[name in REACHED].append(name.replace("_", " "))
        return ", ".join(words[False]), ", ".join(words[True])

    @property
    def full(self) -> bool:
        """BSM calls the state of charge too high."""
        return self._says("soc")

    @property
    def pauses(self) -> bool:
        """BSM does not allow charging. Silence allows it."""
        return self.get("BSM", "allowed", 1) == 0

    def beyond(self) -> str:
        """A measured value above the limit that BCP named, empty when none is."""
        cell_v, most_v = self.get("BCS", "max_cell_v"), self.get("BCP", "max_cell_v")
        if cell_v > most_v + 1e-6:
            return f"a cell has {cell_v:.2f} V, {most_v:.2f} V are allowed"
        hot_c, most_c = self.get("BSM", "max_temperature_c", -50), self.get("BCP", "max_temperature_c")
        return f"a cell has {hot_c:g} degC, {most_c:g} degC are allowed" if hot_c > most_c else ""

    def _says(self, field: str) -> bool:
        return self.get("BSM", field) == 1

    def _message(self, pf: int, data: bytes, now_ns: int) -> None:
        known = frames.OF_BMS.get(pf)
        if known is None:
            if pf not in frames.LISTS:
                self.refuse(f"a message of PF 0x{pf:02X}")
            return
        try:
            message = decode(known.name, data)
            self._believe(message)
        except FrameError as error:
            self.refuse(str(error))
            return
        if known.name == "BCL":
            self._requests.append(now_ns)
        self.good += 1
        self.messages[known.name] = message
        self.arrived_ns[known.name] = self.newest_ns = now_ns

    def _believe(self, message: Decoded) -> None:
        name = message.name
        if name in ("BHM", "BCP"):
            most_v = message.get("max_total_v")
            if not LOWEST_V <= most_v <= HIGHEST_V:
                raise FrameError(f"{name} with a highest voltage of {most_v:g} V is impossible")
            for field in CEILINGS[name]:
                new = message.get(field)
                if self.frozen and new > self.get(name, field, new):
                    raise FrameError(f"{name} raised {field} to {new:g} after it was named")
        if name == "BCP":
            most_a, battery_v = message.get("max_a"), message.get("battery_v")
            if not 0.0 < most_a <= HIGHEST_A or message.get("max_cell_v") <= 0.0:
                raise FrameError(f"BCP with a highest current of {most_a:g} A or no highest cell voltage is impossible")
            if battery_v > 1.1 * message.get("max_total_v"):
                raise FrameError(f"BCP with a battery at {battery_v:g} V above its highest voltage is impossible")
        if name == "BCL":
            volts, amps = message.get("voltage_v"), message.get("current_a")
            if not 0.0 <= amps <= HIGHEST_A or volts > HIGHEST_V:
                raise FrameError(f"BCL with {volts:g} V and {amps:g} A is impossible")


def _unwanted(pgn: int, length: int) -> str:
    """Why the charger takes no such message by the transport protocol, empty when it does."""
    known = frames.OF_BMS.get(pgn >> 8)
    if pgn & 0xFF or (known is None and pgn >> 8 not in frames.LISTS):
        return "no message of a vehicle"
    if known is not None and length < known.least:
        return f"{known.name} has {known.length} bytes"
    return ""
