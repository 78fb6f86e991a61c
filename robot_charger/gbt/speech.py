"""What the charger sends and when: each message at its own period, at once when a phase begins it."""

from __future__ import annotations

from collections.abc import Mapping

from robot_charger.gbt.frames import MESSAGES, READY, Given, encode
from robot_charger.gbt.model import Inputs, Phase, Supply
from robot_charger.gbt.timing import Settings
from robot_charger.gbt.transport import Frame

Words = Mapping[str, Given]  # message -> fields
Key = tuple[str, Phase, bool]  # a message is sent at once when one of these is new
MOST_V, MOST_A, MOST_KWH = 6553.5, 400.0, 6553.5  # what the fields hold


class Account:
    """Time and energy of one charge, as CCS and CSD tell them."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.energy_kwh = 0.0

    def add(self, supply: Supply, elapsed_s: float) -> None:
        """A cycle of the charge."""
        self.seconds += elapsed_s
        if supply.alive:
            self.energy_kwh += max(0.0, supply.voltage_v * supply.current_a) * elapsed_s / 3.6e6

    @property
    def minutes(self) -> int:
        return min(600, int(self.seconds / 60))


class Speech:
    """What the charger has told and will tell; the sequence sets the attributes."""

    def __init__(self, settings: Settings, sent: int = 0) -> None:
        self.sent = sent
        self.account = Account()
        self.announced_v = self.announced_a = 0.0  # in CML, positive into the vehicle
        self.following = False  # BCL and BCS have come: CCS answers them
        self.allowed = False  # the last field of CCS
        self.stop_flags: tuple[str, ...] = ()  # of CST
        self.error_flags: tuple[str, ...] = ()  # of CEM
        self._settings = settings
        self._due_ns: dict[Key, int] = {}

    def due(self, phase: Phase, i: Inputs, edition: int) -> list[Frame]:
        """The frames of ``phase`` that are due now."""
        frames: list[Frame] = []
        following: dict[Key, int] = {}
        for name, values in self._words(phase, i).items():
            message, key = MESSAGES[name], (name, phase, self.allowed)
            due_ns = self._due_ns.get(key, i.now_ns)
            if i.now_ns >= due_ns:
                frames.append((message.identifier, encode(name, values, edition)))
                period_ns = round(message.period_s * 1e9)
                due_ns = due_ns + period_ns if due_ns + period_ns > i.now_ns else i.now_ns + period_ns
            following[key] = due_ns
        self._due_ns = following
        self.sent += len(frames)
        return frames

    def _words(self, phase: Phase, i: Inputs) -> Words:
        """The messages of a phase."""
        s = self._settings
        if phase in (Phase.WAKE, Phase.INSULATION):
            return {"CHM": {"version_minor": 1, "version_major": 1}}
        if phase in (Phase.IDENTIFY, Phase.CONFIRM):
            known = READY if phase is Phase.CONFIRM else 0
            return {"CRM": {"identified": known, "charger_number": s.charger_number, "area_code": s.area_code}}
        if phase is Phase.PARAMETERS:
            return {"CTS": _time(i), "CML": self._limits()}
        if phase in (Phase.COMPARE, Phase.PRECHARGE):
            return {"CRO": {"ready": 0}}
        if phase in (Phase.READY, Phase.CHARGE):
            return {"CCS": self._output(i)} if self.following else {"CRO": {"ready": READY}}
        if phase is Phase.RETRY and self.error_flags:
            return {"CEM": dict.fromkeys(self.error_flags, 1)}
        if phase is Phase.STOPPING:
            return {"CST": dict.fromkeys(self.stop_flags, 1)}
        if phase is Phase.STATISTICS:
            return {"CSD": self._statistics()}
        return {}

    def _limits(self) -> Given:
        low_v = min(self._settings.min_voltage_v, self.announced_v)
        return {"max_v": self.announced_v, "min_v": low_v, "max_a": min(MOST_A, self.announced_a), "min_a": 0}

    def _output(self, i: Inputs) -> Given:
        volts = min(MOST_V, max(0.0, i.supply.voltage_v))
        amps = min(MOST_A, max(0.0, i.supply.current_a))
        return {"voltage_v": volts, "current_a": amps, "charged_min": self.account.minutes, "allowed": self.allowed}

    def _statistics(self) -> Given:
        return {
            "charged_min": self.account.minutes,
            "energy_kwh": min(MOST_KWH, self.account.energy_kwh),
            "charger_number": self._settings.charger_number,
        }


def _time(i: Inputs) -> Given:
    clock = tuple(i.clock) or (-1,) * 6
    return dict(zip(("second", "minute", "hour", "day", "month", "year"), clock, strict=True))
