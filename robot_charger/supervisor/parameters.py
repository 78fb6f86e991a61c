"""Parameters of the supervisor node."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from robot_charger.common.parameters import ParameterError, parameter
from robot_charger.supervisor.model import Limits

AC_CONNECTORS = ("type2", "type1")
GBT_HANDSHAKE_S = 120.0  # [s] GB/T names itself and gets ready after the insulation test, ISO 15118 before it


@dataclass(frozen=True)
class SupervisorParameters:
    connector: str = parameter(
        "ccs2",
        "connector the robot carries for this EVSE",
        choices=("ccs2", "ccs1", "nacs", "chademo", "gbt", "acdp", *AC_CONNECTORS),
    )
    protocol: str = parameter(
        "ccs",
        "family of the vehicle's protocol; acdp: it talks before contact and asks for the plug (v2g: link acdp); ac: "
        "nobody talks, the pilot tells the current (pilot: ac.rated_current_a)",
        choices=("ccs", "chademo", "gbt", "acdp", "ac"),
    )
    managed: list[str] = parameter(
        ["/power", "pilot", "v2g", "chademo", "gbt", "/robot", "/backend"], "nodes brought up in this order"
    )
    cable__max_current_a: float = parameter(400.0, "rating of cable and plug", unit="A", low=0.0, high=1000.0)
    export__max_power_w: float = parameter(
        0.0, "export that the grid connection permits without the back end's word", unit="W", low=0.0, high=1e7
    )
    memory: str = parameter(
        "",
        "file that keeps latch and session over restarts ({evse} = its number), past faults beside it, empty: not kept",
        unsafe="",
    )
    free_vend: bool = parameter(False, "authorise every vehicle without asking the back end", unsafe=True)
    autocharge: bool = parameter(
        False, "take the vehicle's EVCCID as its token; it is no secret and can be imitated", unsafe=True
    )
    limits__pilot_confirm_s: float = parameter(3.0, "from end of connecting to pilot B", unit="s", low=0.5, high=30.0)
    limits__linking_s: float = parameter(150.0, "from pilot 5 % to the cable check", unit="s", low=10.0, high=3600.0)
    limits__wake_after_s: float = parameter(
        20.0,
        "silence of a plugged vehicle until state F calls it, 0 = never (ISO 15118-3)",
        unit="s",
        low=0.0,
        high=120.0,
    )
    limits__cable_check_s: float = parameter(40.0, "insulation test (ISO 15118: 40 s)", unit="s", low=5.0, high=60.0)
    limits__precharge_s: float = parameter(15.0, "to the vehicle's voltage", unit="s", low=1.0, high=60.0)
    limits__vehicle_stop_s: float = parameter(20.0, "the vehicle's own orderly stop", unit="s", low=1.0, high=120.0)
    limits__stopping_s: float = parameter(30.0, "from current off to the session's end", unit="s", low=1.0, high=120.0)
    limits__robot_s: float = parameter(180.0, "one action of the robot at this bay", unit="s", low=10.0, high=1800.0)
    limits__queue_s: float = parameter(
        1800.0, "for a robot that works for other EVSEs first", unit="s", low=10.0, high=7200.0
    )
    limits__max_replugs: int = parameter(1, "how often a failed link is plugged again", low=0, high=5)
    limits__max_wakes: int = parameter(1, "how often the pilot is pulsed when no vehicle matches", low=0, high=5)
    limits__pause_s: float = parameter(3600.0, "a vehicle's pause, plugged in", unit="s", low=10.0, high=86_400.0)
    arm_follows: bool = parameter(False, "the arm cannot let go and follows the mated plug passively")
    node_age_grace_ms: int = parameter(
        0,
        "added to the 300 ms of a node's liveliness, for a desk without real-time scheduling",
        unit="ms",
        low=0,
        high=2000,
        unsafe=bool,
    )

    def check(self) -> None:
        """Raises ParameterError for plain AC on a DC plug, or another protocol on an AC plug."""
        if (self.protocol == "ac") != (self.connector in AC_CONNECTORS):
            raise ParameterError(
                f"parameter protocol = {self.protocol} is not for connector = {self.connector}: plain AC belongs to "
                f"{' and '.join(AC_CONNECTORS)}, and they to it"
            )

    def limits(self) -> Limits:
        names = {f.name for f in dataclasses.fields(Limits)}
        values = {n: getattr(self, f"limits__{n}") for n in names if hasattr(self, f"limits__{n}")}
        if self.protocol != "ccs":  # nobody there reads the control pilot while asleep
            values["wake_after_s"] = 0.0
        if self.protocol == "gbt":  # BRO AA may take 60 s, and three restarts of the handshake 10 s each
            values["cable_check_s"] += GBT_HANDSHAKE_S
            values["precharge_s"] += GBT_HANDSHAKE_S
        acdp, ac = self.protocol == "acdp", self.protocol == "ac"
        return Limits(**values, follows=self.arm_follows, talks_first=acdp, plain_ac=ac)
