"""Parameters of the power node."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from robot_charger.common.parameters import ParameterError, parameter
from robot_charger.power import codec
from robot_charger.power.contract import CONTRACTS, LOAD_BREAK_S, PROTOCOLS, Contract

EDITIONS = ("2014", "2023")
MONITOR_RESPONSE_S = {"bender-isocha425hv": 10.0, "dold-rn5893": 10.0}  # as their makers state it
INSULATION_S = 10.0  # from an insulation fault in transfer to the stop, at most (IEC 61851-23)
# Connectors without a control pilot. Each serves the protocol of its own name.
PILOTLESS = ("chademo", "gbt")
CUT_OFFS = ("none", "inhibit", "ac-contactor")
METERS = ("modbus-tcp", "modbus-rtu", "simulated", "none")


@dataclass
class PowerParameters:
    """What one bank is made of, what it may do, and how soon it must react."""

    evses: list[int] = parameter([1], "EVSEs this bank feeds", low=1, high=codec.MAX_EVSES)
    bus: str = parameter("udp:42000", "CAN-FD bus or buses: socketcan:can0, udp:PORT, udp:PORT*COUNT, a,b,c")
    modules: int = parameter(46, "modules of the bank, spread evenly over its buses", low=1, high=1024)
    module__protocol: str = parameter(
        "ek3", "what the modules speak: raw EK3 on ``bus``, or another on ``module.bus``", choices=PROTOCOLS
    )
    module__bus: str = parameter(
        "",
        "CAN bus or buses of the modules, as ``bus``; modbus: tcp:HOST:PORT or rtu:DEVICE:BAUD[:8E1], "
        "comma-separated, empty for the simulated rack's",
    )
    setpoint_frames: str = parameter(
        "auto",
        "one set-point frame per module, or one per 15 modules; auto: per module while the load allows",
        choices=("auto", "individual", "group"),
    )
    realtime: bool = parameter(True, "run the control thread under SCHED_FIFO where the system allows")

    max_voltage_v: float = parameter(500.0, "highest output voltage of the bank", unit="V", low=50.0, high=1000.0)
    series_groups: int = parameter(
        1, "groups of modules in series: 2 doubles the voltage (800 V cars) at half the current", low=1, high=2
    )
    series_switched: bool = parameter(
        False,
        "contactors join the two groups in parallel (up to module.max_voltage_v) or in series (up to twice that), as "
        "each vehicle needs; false: series_groups is wired for good",
    )
    matrix__blocks: int = parameter(
        0,
        "blocks of modules that contactors share between the EVSEs, 0: each EVSE has its modules for good",
        low=0,
        high=16,
    )
    matrix__notice_s: float = parameter(
        1.0, "an EVSE's limits fall so long before it gives a block back", unit="s", low=0.1, high=10.0
    )
    module__max_voltage_v: float = parameter(
        500.0, "highest output voltage of a module", unit="V", low=50.0, high=1000.0
    )
    min_voltage_v: float = parameter(50.0, "lowest regulated output voltage", unit="V", low=0.0, high=1000.0)
    module__power_w: float = parameter(3300.0, "continuous rating of a module", unit="W", low=1.0, high=1e5)
    module__max_current_a: float = parameter(20.0, "current limit of a module", unit="A", low=0.1, high=320.0)
    module__min_current_a: float = parameter(0.1, "smallest regulated current", unit="A", low=0.0, high=100.0)
    module__timeout_ms: float = parameter(
        0.0,
        "a module silent for so long is lost; 0: as its protocol's contract says (docs/power.md)",
        unit="ms",
        low=0.0,
        high=60_000.0,
    )
    module__answer_ms: float = parameter(100.0, "Modbus modules: time for one answer", unit="ms", low=20.0, high=2000.0)
    module__hold_s: float = parameter(
        0.0,
        "a module keeps its last set-point for so long without a frame, from its data sheet; 0: as its contract says",
        unit="s",
        low=0.0,
        high=600.0,
    )
    module__first_address: int = parameter(
        -1, "address of the first module on each bus, the others follow; -1: the protocol's first", low=-1, high=223
    )
    module__cut_off: str = parameter(
        "none",
        "how the safety controller ends the modules' current without a bus: their inhibit input, or an AC contactor "
        "before them; needed where they hold a set-point for more than 0.5 s",
        choices=CUT_OFFS,
    )
    contactors_break_load: bool = parameter(
        False, "the output contactors are rated to open under the full current and voltage"
    )
    cable_max_current_a: list[float] = parameter(
        [400.0], "rating of the cable: one for all EVSEs, or one each", unit="A", low=1.0, high=3000.0
    )
    connectors: list[str] = parameter(
        ["ccs2"],
        "connector of the EVSEs: one for all, or one each; chademo and gbt have no control pilot",
        choices=("ccs2", "ccs1", "nacs", "acdp", "type2", "chademo", "gbt"),
    )
    ac: list[int] = parameter(
        [0],
        "EVSEs that are AC outlets, 0 for none: their pilot node switches them, this one reads their meter and speaks "
        "for their bay; their share of the modules rests",
        low=0,
        high=16,
    )
    bidirectional: bool = parameter(
        False, "the modules can feed the grid; they do while the grid side permits it (frame 0x40A)"
    )

    share__best_load: float = parameter(
        0.6, "share of its limit at which a module is most efficient; as few as fit run", low=0.1, high=1.0
    )
    share__modules_min: int = parameter(
        21,
        "never run fewer (if there are as many): a lost one of 21 dips the current by less than 5 %",
        low=1,
        high=1024,
    )

    ramp__up_a_s: float = parameter(100.0, "rise of the current", unit="A/s", low=1.0, high=1e5)
    ramp__down_a_s: float = parameter(200.0, "fall at a normal stop", unit="A/s", low=100.0, high=1e5)
    ramp__chademo_down_a_s: float = parameter(
        400.0, "the same for CHAdeMO: 5 A must be reached 0.5 s after switch k opens", unit="A/s", low=100.0, high=1e5
    )
    sensor_wait_s: float = parameter(
        60.0,
        "a temperature sensor that is dead or shows the impossible halves the current, and after so long ends it",
        unit="s",
        low=0.0,
        high=3600.0,
    )
    precharge__current_a: float = parameter(
        2.0, "largest current at precharge and cable check (61851-23 CC.5.2)", unit="A", low=0.1, high=5.0
    )
    precharge__window_v: float = parameter(20.0, "match of precharge", unit="V", low=1.0, high=50.0)
    precharge__timeout_s: float = parameter(5.0, "time to reach the voltage", unit="s", low=0.5, high=30.0)
    insulation__edition: str = parameter(
        "2023", "edition of IEC 61851-23 that sets the insulation limit", choices=EDITIONS
    )
    insulation__limit_ohm: float = parameter(
        0.0, "insulation fault below this, 0 = as the edition says", unit="ohm", low=0.0, high=1e7
    )
    insulation__self_test_s: float = parameter(
        30.0, "time allowed for the monitor's self test", unit="s", low=1.0, high=60.0
    )
    insulation__measure_s: float = parameter(15.0, "time allowed for two measurements", unit="s", low=1.0, high=60.0)
    insulation__monitor: str = parameter(
        "controller",
        "who has the insulation monitor: the safety controller, or this node over Modbus",
        choices=("controller", *MONITOR_RESPONSE_S),
    )
    insulation__address: str = parameter(
        "", "Modbus line of the monitors, e.g. rtu:/dev/ttyUSB1:19200:8E1 or tcp:HOST:PORT"
    )
    insulation__units: list[int] = parameter(
        [0], "Modbus unit of each EVSE's monitor; 0: the maker's own", low=0, high=247
    )
    insulation__response_s: float = parameter(
        1.0, "response time of the insulation monitor, from its data sheet", unit="s", low=0.0, high=10.0
    )
    insulation__debounce_s: float = parameter(
        3.0,
        "in precharge and transfer a low insulation must last so long; with the monitor's response at most 10 s",
        unit="s",
        low=0.0,
        high=10.0,
    )
    insulation__short_ohm: float = parameter(
        25e3, "below this no debounce: a hard short", unit="ohm", low=1e3, high=1e6
    )
    insulation__grace_s: float = parameter(
        5.0,
        "so long after precharge or transfer has begun, readings that the monitor marks invalid are waited for",
        unit="s",
        low=0.0,
        high=10.0,
    )
    insulation__required: bool = parameter(
        True, "no precharge before a passed insulation test of this session", unsafe=False
    )
    contactor_time_s: float = parameter(0.5, "contactor feedback must follow the request", unit="s", low=0.02, high=2.0)
    discharge_s: float = parameter(
        1.0, "time for the bleeders to come below 60 V (61851-23: 1 s)", unit="s", low=0.1, high=10.0
    )
    overcurrent_a: float = parameter(
        10.0, "measured current above the set-point that counts as over-current", unit="A", low=1.0, high=100.0
    )
    temperature__derate_c: float = parameter(
        80.0, "contact pins and cable: the current falls from here", unit="deg C", low=30.0, high=150.0
    )
    temperature__stop_c: float = parameter(
        90.0, "contact pins and cable: the output stops here (61851-23: 90)", unit="deg C", low=40.0, high=150.0
    )
    temperature__coolant_derate_c: float = parameter(
        60.0, "coolant of a cooled cable: the current falls from here", unit="deg C", low=30.0, high=120.0
    )
    temperature__coolant_stop_c: float = parameter(
        70.0, "coolant: the output stops here", unit="deg C", low=40.0, high=120.0
    )
    safety_timeout_ms: float = parameter(
        100.0, "the safety controller is lost after so long without a valid frame", unit="ms", low=30, high=500
    )
    measurement_timeout_ms: float = parameter(
        200.0, "the output measurement is lost after so long", unit="ms", low=30.0, high=1000.0
    )
    bus_timeout_ms: float = parameter(
        300.0, "a bus without any module's frame for so long is lost", unit="ms", low=50.0, high=5000.0
    )

    desk_grace_ms: float = parameter(
        0.0,
        "added to the time-outs of permit, nodes, safety controller and own pauses, for a computer without "
        "real-time scheduling; 0 at a station",
        unit="ms",
        unsafe=bool,
        low=0.0,
        high=500.0,
    )

    meter__kind: str = parameter("modbus-tcp", "the DC meter", choices=METERS)
    meter__address: str = parameter(
        "",
        "HOST:PORT of a modbus-tcp meter, DEVICE:BAUD:FORMAT of a modbus-rtu one (FORMAT 8N1, 8E1, 8O1 or 8N2); "
        "empty: the simulation's, from rack.json in its run directory",
    )
    meter__signs: bool = parameter(
        False, "the meter signs readings (OCMF): one as a session begins, one as it ends, in power/meter's signed_data"
    )
    meter__signed: bool = parameter(True, "the meter's current and power registers carry a sign")
    meter__map: str = parameter(
        "", "register map of the meter: a name of power/meters.yaml, FILE.yaml:NAME, or empty for this project's own"
    )
    meter__reversed: bool = parameter(False, "the meter is wired the other way: its import is this station's export")
    meter__units: list[int] = parameter([0], "Modbus unit of each EVSE's meter; 0: the EVSE's number", low=0, high=247)
    meter__site_unit: int = parameter(
        0, "Modbus unit of a meter of the whole site on the same line, told on /site/meter; 0: none", low=0, high=247
    )
    meter__site_map: str = parameter("", "register map of the site's meter; empty: that of meter.map")
    meter__timeout_ms: float = parameter(500.0, "time for one answer of a meter", unit="ms", low=50.0, high=5000.0)

    def check(self) -> None:
        """What no single range can say. Raises ParameterError."""
        if len(set(self.evses)) != len(self.evses):
            raise ParameterError(f"parameter evses = {self.evses} names an EVSE twice")
        if len(self.cable_max_current_a) not in (1, len(self.evses)):
            raise ParameterError(
                f"parameter cable_max_current_a has {len(self.cable_max_current_a)} values: one, or one per EVSE"
            )
        if len(self.connectors) not in (1, len(self.evses)):
            raise ParameterError(f"parameter connectors has {len(self.connectors)} values: one, or one per EVSE")
        if self.modules < len(self.evses) * self.series_groups:
            raise ParameterError(f"parameter modules = {self.modules} is less than {self.series_groups} per EVSE")
        if self.matrix__blocks and self.matrix__blocks < len(self.evses):
            raise ParameterError(f"parameter matrix.blocks = {self.matrix__blocks} must be 0 or one per EVSE at least")
        if self.matrix__blocks * len(self.evses) > 16:
            raise ParameterError("parameter matrix.blocks: at most 16 contactors, blocks times EVSEs")
        if self.matrix__blocks * self.series_groups > self.modules:
            raise ParameterError(f"parameter modules = {self.modules} is less than {self.series_groups} per block")
        if self.series_switched and self.series_groups != 2:
            raise ParameterError("parameter series_switched needs series_groups = 2")
        if self.series_switched and (self.matrix__blocks or len(self.evses) > 5):
            raise ParameterError("parameter series_switched: at most 5 EVSEs, and no matrix.blocks beside it")
        if self.max_voltage_v > self.series_groups * self.module__max_voltage_v:
            raise ParameterError(
                f"parameter max_voltage_v = {self.max_voltage_v:g} is above what series_groups = {self.series_groups} "
                f"group(s) of {self.module__max_voltage_v:g} V modules give"
            )
        self._check_modules()
        response_s = self.insulation_response_s
        if self.insulation__monitor != "controller" and not self.insulation__address:
            raise ParameterError("parameter insulation.address must name the line of the insulation monitors")
        if self.insulation__debounce_s + response_s > INSULATION_S:
            raise ParameterError(
                f"parameter insulation.debounce_s = {self.insulation__debounce_s:g} s and the monitor's response of "
                f"{response_s:g} s: a fault would be acted on after more than {INSULATION_S:g} s"
            )
        if self.min_voltage_v >= self.max_voltage_v:
            raise ParameterError("parameter min_voltage_v must be below max_voltage_v")
        if self.temperature__derate_c >= self.temperature__stop_c:
            raise ParameterError("parameter temperature.derate_c must be below temperature.stop_c")
        if self.temperature__coolant_derate_c >= self.temperature__coolant_stop_c:
            raise ParameterError("parameter temperature.coolant_derate_c must be below temperature.coolant_stop_c")

    @property
    def insulation_response_s(self) -> float:
        """Response time of the monitor: the parameter, or its maker's where that is longer [s]."""
        return max(self.insulation__response_s, MONITOR_RESPONSE_S.get(self.insulation__monitor, 0.0))

    @property
    def contract(self) -> Contract:
        """What the modules' protocol promises, with what the parameters know better."""
        row = CONTRACTS[self.module__protocol]
        hold_s = self.module__hold_s or row.hold_s
        silent_s = self.module__timeout_ms / 1e3 or row.silent_s
        first = row.first_address if self.module__first_address < 0 else self.module__first_address
        return dataclasses.replace(row, hold_s=hold_s, silent_s=silent_s, first_address=first)

    def _check_modules(self) -> None:
        """What the modules' contract demands of this configuration."""
        contract = self.contract
        if contract.own_bus and contract.bit_rate and not self.module__bus:
            raise ParameterError(
                f"parameter module.bus must name the {contract.name} bus, e.g. socketcan:can1: its frames are not for "
                "the station's bus"
            )
        if not contract.own_bus and self.module__bus:
            raise ParameterError(f"parameter module.bus is not for {contract.name}: its modules are on bus")
        safe = self.contactors_break_load and self.module__cut_off != "none"
        if contract.cut_off_needed and not safe:
            known = "" if contract.hold_known or self.module__hold_s else " (not published; see module.hold_s)"
            raise ParameterError(
                f"parameter module.protocol = {contract.name}: a module goes on for {contract.hold_s:g} s without the "
                f"bus{known}, more than {LOAD_BREAK_S:g} s, so contactors would open under load. Needed: "
                "contactors_break_load = true, and module.cut_off = inhibit or ac-contactor, both driven by the safety "
                "controller"
            )

    def cable_current_a(self, evse: int) -> float:
        ratings = self.cable_max_current_a
        return ratings[0] if len(ratings) == 1 else ratings[self.evses.index(evse)]

    def pilotless(self, evse: int) -> str:
        """The protocol of an EVSE whose connector has no control pilot, empty for all others."""
        kinds = self.connectors
        kind = kinds[0] if len(kinds) == 1 else kinds[self.evses.index(evse)]
        return kind if kind in PILOTLESS else ""

    def insulation_limits_ohm(self, voltage_v: float) -> tuple[float, float]:
        """(fault below, warning below) [ohm] at the vehicle's maximum voltage."""
        fault, warning = (100e3, 0.0) if self.insulation__edition == "2023" else (100 * voltage_v, 500 * voltage_v)
        fault = self.insulation__limit_ohm or fault
        return fault, max(fault, warning)
