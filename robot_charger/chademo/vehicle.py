"""What the vehicle said last, and whether it can be believed. A frame that cannot is counted and moves nothing."""

from __future__ import annotations

from collections import deque

from robot_charger.chademo import frames
from robot_charger.chademo.frames import FrameError, Values
from robot_charger.chademo.timing import limit

NEEDED = (frames.VEHICLE_LIMITS, frames.VEHICLE_TIME, frames.VEHICLE_CONTROL)
FIELDS = {frame.identifier: {f.name: f for f in frame.fields} for frame in frames.TABLE}
SECOND_NS = 1_000_000_000
REQUEST_NS = 90_000_000  # a request holds for so long at least: the smallest one counts
IDENTITY = ("protocol", "target_v", "request_a", "soc")
APART = (0.0, 5.0, 10.0, 3.0)  # one vehicle's frames differ from each other by less, frame after frame
SETTLE_NS = 150_000_000  # frames of before k may still come so long after it


def _apart(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return any(abs(a - b) > most for a, b, most in zip(one, other, APART, strict=True))


class Vehicle:
    """Newest believable frame of every identifier, with its arrival."""

    def __init__(self, high_current: bool = False) -> None:
        self.high_current = high_current
        self.values: dict[int, Values] = {}
        self.arrived_ns: dict[int, int] = {}
        self.good = 0
        self.bad = 0
        self.last_bad = ""
        self.frozen = False  # switch k has closed: limits and protocol number no longer change
        self._frozen_ns = 0
        self._rates: dict[int, deque[int]] = {}
        self.early = 0  # frames that came sooner than a vehicle's usual 100 ms: counted, and believed
        self._requests: deque[tuple[int, float]] = deque(maxlen=64)
        self._contents: deque[tuple[float, ...]] = deque(maxlen=3)
        self._flips: deque[int] = deque(maxlen=64)

    def take(self, identifier: int, data: bytes, arrived_ns: int, paused: bool = False) -> bool:
        """One frame from the bus. True when it was believed. ``paused``: this process slept, spacing says nothing.

        Vehicles differ in their pace (recorded: 41 to 225 ms): the last frame counts. Two vehicles show themselves by
        contents that contradict each other in turn (``crowded``).
        """
        if identifier in frames.UNKNOWN_VEHICLE_IDS:
            return False
        try:
            if identifier not in frames.VEHICLE_IDS:
                raise FrameError(f"0x{identifier:03X} is no frame of a vehicle")
            values = frames.decode(identifier, data)
            self._pace(identifier, arrived_ns, paused)
            self._believe(identifier, values)
        except FrameError as error:
            self.bad += 1
            self.last_bad = str(error)
            return False
        self.good += 1
        self.values[identifier] = values
        if identifier == frames.VEHICLE_CONTROL:
            self._compare(values, arrived_ns)
        self.arrived_ns[identifier] = arrived_ns
        return True

    def freeze(self, now_ns: int) -> None:
        """Switch k has closed."""
        self.frozen, self._frozen_ns = True, now_ns

    def crowded(self, now_ns: int) -> bool:
        """More control frames in a second than any vehicle sends, or frames that contradict each other in turn."""
        rate = self._rates.get(frames.VEHICLE_CONTROL, deque())
        while rate and now_ns - rate[0] > SECOND_NS:
            rate.popleft()
        while self._flips and now_ns - self._flips[0] > SECOND_NS:
            self._flips.popleft()
        return len(rate) > limit("frames_per_second") or len(self._flips) >= limit("contradictions")

    @property
    def complete(self) -> bool:
        """0x100, 0x101 and 0x102 have been heard."""
        return all(identifier in self.values for identifier in NEEDED)

    @property
    def control_ns(self) -> int:
        """When the last believable 0x102 came, 0 = never."""
        return self.arrived_ns.get(frames.VEHICLE_CONTROL, 0)

    def get(self, identifier: int, name: str) -> float:
        """A field of the newest frame, 0 when none came. Raises KeyError for a name that the frame does not have."""
        values = self.values.get(identifier)
        if values is None:
            return 0 * FIELDS[identifier][name].scale
        return values[name]

    def control(self, name: str) -> float:
        return self.get(frames.VEHICLE_CONTROL, name)

    @property
    def soc(self) -> float:
        """State of charge [%], -1 = not known. Nonsense until k has closed (2 sources, measured)."""
        reference = self.get(frames.VEHICLE_LIMITS, "rate_reference")
        settled = self.frozen and self.control_ns > self._frozen_ns + SETTLE_NS
        if not settled or not reference:
            return -1.0
        return min(100.0, 100.0 * self.control("soc") / reference)

    @property
    def request_a(self) -> float:
        """Current asked for [A], never negative: the smallest of the last 100 ms."""
        return min((ampere for _, ampere in self._requests), default=0.0)

    @property
    def _asked_a(self) -> float:
        if self.high_current and self.control("request_a") == 255:
            return self.get(frames.VEHICLE_EXTENSION, "extended_request_a")
        return self.control("request_a")

    @property
    def max_time_s(self) -> float:
        """Longest charge the vehicle allows [s], infinite when it names none."""
        tens, minutes = (self.get(frames.VEHICLE_TIME, n) for n in ("max_time_10s", "max_time_min"))
        seconds = minutes * 60 if tens == 255 else tens * 10
        return seconds or float("inf")

    @property
    def fault(self) -> str:
        """What the vehicle complains of, empty when nothing."""
        wrong = [name for name in frames.FAULT_BITS if self.control(name)]
        if self.control("system_fault"):
            wrong.append("system_fault")
        return ", ".join(wrong).replace("_", " ")

    def _pace(self, identifier: int, arrived_ns: int, paused: bool) -> None:
        rate = self._rates.setdefault(identifier, deque(maxlen=64))
        rate.append(arrived_ns)
        spacing_s = (arrived_ns - self.arrived_ns.get(identifier, -SECOND_NS)) / 1e9
        self.early += spacing_s < limit("early_frame") and not paused

    def _compare(self, values: Values, arrived_ns: int) -> None:
        """Keep what a control frame asks for, and whether it only repeats the one before the last."""
        self._requests.append((arrived_ns, self._asked_a))
        while len(self._requests) > 1 and arrived_ns - self._requests[0][0] > REQUEST_NS:
            self._requests.popleft()
        contents = self._contents
        contents.append(tuple(values[name] for name in IDENTITY))
        if len(contents) == 3 and contents[2] == contents[0] and _apart(contents[0], contents[1]):
            self._flips.append(arrived_ns)

    def _believe(self, identifier: int, values: Values) -> None:
        known = self.values.get(identifier)
        if identifier == frames.VEHICLE_LIMITS:
            low, high = values["min_battery_v"], values["max_battery_v"]
            if not 50 <= high <= 1500 or low > high:
                raise FrameError(f"0x100 battery between {low:g} and {high:g} V is impossible")
            if self.frozen and known and high != known["max_battery_v"]:
                raise FrameError(f"0x100 battery maximum changed to {high:g} V after permission")
        elif identifier == frames.VEHICLE_CONTROL:
            if values["protocol"] > 4:
                raise FrameError(f"0x102 protocol number {values['protocol']:g} is unknown")
            if self.frozen and known and values["protocol"] != known["protocol"]:
                raise FrameError(f"0x102 protocol number changed to {values['protocol']:g} after permission")
            if values["enabled"] and not 50 <= values["target_v"] <= 1500:
                raise FrameError(f"0x102 target of {values['target_v']:g} V is impossible")
