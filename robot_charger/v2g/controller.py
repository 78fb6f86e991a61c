"""What the iso15118 package asks of an EVSE, answered from the station's snapshot and noted in the vehicle's.

Runs in the V2G thread only. The order of a session is in docs/architecture.md; the package's states call these
methods while they answer the vehicle's requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any

from iso15118.secc.controller.evse_data import (
    CurrentType,
    EVSEDataContext,
    EVSEDCCLLimits,
    EVSEDCCPDLimits,
    EVSERatedLimits,
    EVSESessionLimits,
)
from iso15118.secc.controller.interface import AuthorizationResponse, EVSEControllerInterface, ServiceStatus
from iso15118.shared.messages.datatypes import (
    DCEVSEChargeParameter,
    DCEVSEStatus,
    DCEVSEStatusCode,
    EVSENotification,
    PVEVSEMaxCurrentLimit,
    PVEVSEMaxPowerLimit,
    PVEVSEMaxVoltageLimit,
    PVEVSEMinCurrentLimit,
    PVEVSEMinVoltageLimit,
    PVEVSEPeakCurrentRipple,
    PVEVSEPresentCurrent,
    PVEVSEPresentVoltage,
)
from iso15118.shared.messages.din_spec.datatypes import (
    PMaxScheduleEntry as DinPMaxScheduleEntry,
)
from iso15118.shared.messages.din_spec.datatypes import (
    PMaxScheduleEntryDetails as DinPMaxScheduleEntryDetails,
)
from iso15118.shared.messages.din_spec.datatypes import (
    RelativeTimeInterval as DinRelativeTimeInterval,
)
from iso15118.shared.messages.din_spec.datatypes import ResponseCode as DinResponseCode
from iso15118.shared.messages.din_spec.datatypes import SAScheduleTupleEntry as DinSAScheduleTupleEntry
from iso15118.shared.messages.enums import (
    AuthorizationStatus,
    AuthorizationTokenType,
    ControlMode,
    CpState,
    EnergyTransferModeEnum,
    IsolationLevel,
    Protocol,
    ServiceV20,
    SessionStopAction,
)
from iso15118.shared.messages.iso15118_2.datatypes import MeterInfo as MeterInfoV2
from iso15118.shared.messages.iso15118_2.datatypes import (
    PMaxSchedule,
    PMaxScheduleEntry,
    PVPMax,
    RelativeTimeInterval,
    SAScheduleTuple,
)
from iso15118.shared.messages.iso15118_2.datatypes import ResponseCode as ResponseCodeV2
from iso15118.shared.messages.iso15118_20.common_messages import (
    ChargingSchedule,
    DischargingSchedule,
    DynamicScheduleExchangeResParams,
    Parameter,
    ParameterSet,
    PowerSchedule,
    PowerScheduleEntry,
    PowerScheduleEntryList,
    PriceLevelSchedule,
    PriceLevelScheduleEntry,
    PriceLevelScheduleEntryList,
    ScheduledScheduleExchangeResParams,
    ScheduleTuple,
    Service,
    ServiceList,
    ServiceParameterList,
)
from iso15118.shared.messages.iso15118_20.common_types import EVSENotification as EVSENotificationV20
from iso15118.shared.messages.iso15118_20.common_types import EVSEStatus, RationalNumber
from iso15118.shared.messages.iso15118_20.common_types import MeterInfo as MeterInfoV20
from iso15118.shared.messages.iso15118_20.common_types import ResponseCode as ResponseCodeV20
from iso15118.shared.messages.iso15118_20.dc import (
    BPTDCChargeParameterDiscoveryResParams,
    DCChargeParameterDiscoveryResParams,
)

from robot_charger.common.clock import now_ns
from robot_charger.common.faults import Code
from robot_charger.v2g import pki
from robot_charger.v2g.bridge import Bridge, Station
from robot_charger.v2g.parameters import V2gParameters
from robot_charger.words.values import Authorization, Insulation, Link, Lock, Purpose, Shutdown

PRECHARGE_CURRENT_A = 2.0  # IEC 61851-23 CC.5.2
CONTACTOR_WAIT_S = 3.5  # below the vehicle's 5 s for PowerDeliveryRes
CONTRACT_WAIT_S = 4.5  # ISO 15118-2 table 109, below the vehicle's 5 s for CertificateInstallationRes and -UpdateRes
DAY_S = 86_400
NOMINAL_RAMP_A = 1.0


class Refusal(Exception):
    """The station ends this session; ``code`` says why."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code


def physical(kind: Any, value: float, unit: str) -> Any:
    """A physical value of ISO 15118-2 (int16 mantissa, exponent -3 to 3) with the finest fitting exponent."""
    for exponent in range(-1, 4):  # a tenth is finer than any meter here and keeps the value short
        mantissa = round(value / 10**exponent)
        if -32_768 <= mantissa <= 32_767:
            return kind(multiplier=exponent, value=mantissa, unit=unit)
    return kind(multiplier=3, value=32_767 if value > 0 else -32_768, unit=unit)


def rational(value: float) -> RationalNumber:
    """A rational number of ISO 15118-20 (int16 mantissa, exponent -128 to 127)."""
    for exponent in range(-1, 6):
        mantissa = round(value / 10**exponent)
        if -32_768 <= mantissa <= 32_767:
            return RationalNumber(exponent=exponent, value=mantissa)
    raise ValueError(f"{value} is out of range")


class Controller(EVSEControllerInterface):
    """One per connection. ``refusal`` holds why the station said no, if it did."""

    def __init__(self, bridge: Bridge, parameters: V2gParameters) -> None:
        super().__init__()
        self.bridge = bridge
        self.parameters = parameters
        self.refusal: Refusal | None = None
        self.evse_data_context = EVSEDataContext(
            rated_limits=EVSERatedLimits(dc_limits=EVSEDCCPDLimits()),
            session_limits=EVSESessionLimits(dc_limits=EVSEDCCLLimits()),
        )
        self.evse_data_context.current_type = CurrentType.DC
        self._authorization_since: float | None = None
        self._cable_check_permit = 0
        self._cable_check_over = False
        self._charging = False
        self._starved_since: float | None = None  # the charge loop goes on and nothing may flow
        self.refresh()

    # Snapshot in.
    @property
    def station(self) -> Station:
        return self.bridge.station

    def refresh(self) -> None:
        """Take the newest measurements and limits into the package's data context. Before every answer."""
        station = self.station
        context = self.evse_data_context
        context.present_voltage = station.voltage_v
        context.present_current = station.current_a
        voltage, current, power = station.announced()
        export_a, export_w = station.announced_export() if self.parameters.bidirectional else (0.0, 0.0)
        dc = context.session_limits.dc_limits
        dc.max_voltage, dc.min_voltage = voltage, station.min_voltage_v
        dc.max_charge_current = current
        dc.max_charge_power, dc.min_charge_power = power, 0.0
        dc.max_discharge_current = export_a
        dc.max_discharge_power, dc.min_discharge_power = export_w, 0.0

    def refuse(self, code: Code, text: str) -> None:
        if self.refusal is None:
            self.refusal = Refusal(code, text)

    # Lifecycle.
    async def set_status(self, status: ServiceStatus) -> None:
        pass

    async def set_present_protocol_state(self, state: Any) -> None:
        pass

    async def set_hlc_charging(self, is_ongoing: bool) -> None:
        if is_ongoing:
            self._charging = True
            # The last precharge voltage holds until the first request of the loop.
            self.bridge.say(purpose=Purpose.TRANSFER, current_a=0.0, phase=Link.CHARGING)

    async def stop_charger(self) -> None:
        self._charging = False
        self._starved_since = None
        self.bridge.say(purpose=Purpose.NONE, voltage_v=0.0, current_a=0.0)

    async def session_ended(self, current_state: str, reason: str) -> None:
        pass

    async def update_data_link(self, action: SessionStopAction) -> None:
        pass

    async def send_display_params(self) -> None:
        context = self.ev_data_context
        changes: dict[str, Any] = {}
        if context.present_soc is not None:
            changes["soc"] = float(context.present_soc)
        if context.remaining_time_to_max_soc is not None:
            changes["remaining_s"] = float(context.remaining_time_to_max_soc)
        if changes:
            self.bridge.say(**changes)

    async def send_rated_limits(self) -> None:
        """The vehicle's limits are known (ChargeParameterDiscoveryReq)."""
        context = self.ev_data_context
        dc = context.rated_limits.dc_limits
        self.bridge.say(
            max_voltage_v=float(dc.max_voltage or 0.0),
            max_current_a=float(dc.max_charge_current or 0.0),
            max_power_w=float(dc.max_charge_power or 0.0),
            energy_capacity_wh=float(context.total_battery_capacity or 0.0),
            soc=float(context.present_soc) if context.present_soc is not None else -1.0,
        )

    def is_eim_authorized(self) -> bool:
        return False  # so that Plug and Charge stays on offer beside it

    def ready_to_charge(self) -> bool:
        return True

    async def service_renegotiation_supported(self) -> bool:
        return self.parameters.link != "acdp"  # there the arm unplugs before SessionStopReq

    async def get_supported_providers(self) -> None:
        return None

    async def get_evse_id(self, protocol: Protocol) -> str:
        return self.parameters.evse_id_din if protocol == Protocol.DIN_SPEC_70121 else self.parameters.evse_id

    # Authorisation.
    async def is_authorized(
        self,
        id_token: str | None = None,
        id_token_type: Any = None,
        certificate_chain: bytes | None = None,
        hash_data: Any = None,
    ) -> AuthorizationResponse:
        codes: dict[Protocol | None, Any] = {
            Protocol.DIN_SPEC_70121: DinResponseCode,
            Protocol.ISO_15118_2: ResponseCodeV2,
        }
        code = codes.get(self.get_selected_protocol(), ResponseCodeV20)
        station = self.station
        now = time.monotonic()
        if self._authorization_since is None:
            self._authorization_since = now
        if id_token_type == AuthorizationTokenType.EMAID and certificate_chain is not None:
            try:
                pki.check_contract(certificate_chain, str(id_token), Path(self.parameters.tls__directory))
            except pki.PkiError as error:
                self.refuse(Code.AUTHORIZATION, f"contract certificate refused: {error}")
                refused = code.FAILED_CERTIFICATE_EXPIRED if "expired" in str(error) else code.FAILED
                return AuthorizationResponse(AuthorizationStatus.REJECTED, refused)
            self.bridge.say(contract=True, identity=str(id_token))
            return AuthorizationResponse(AuthorizationStatus.ONGOING, code.OK)
        if station.authorization == Authorization.ACCEPTED and not station.stopping:
            return AuthorizationResponse(AuthorizationStatus.ACCEPTED, code.OK)
        if station.authorization == Authorization.REFUSED:
            self.refuse(Code.AUTHORIZATION, "authorisation was refused")
        elif station.stopping:
            self.refuse(Code.NONE, "the station stopped the session before it was authorised")
        elif now - self._authorization_since > self.parameters.authorization_timeout_s:
            self.refuse(Code.AUTHORIZATION, "no authorisation within the time allowed")
        else:
            return AuthorizationResponse(AuthorizationStatus.ONGOING, code.OK)
        return AuthorizationResponse(AuthorizationStatus.REJECTED, code.FAILED)

    async def ask_contract(self, update: bool, request: bytes) -> bytes:
        """The back end's answer [EXI] to a vehicle's CertificateInstallationReq or -UpdateReq [EXI]. Raises Refusal."""
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[tuple[bytes, str]] = loop.create_future()

        def settle(data: bytes, text: str) -> None:
            if not answered.done():
                answered.set_result((data, text))

        def give(data: bytes, text: str) -> None:
            with contextlib.suppress(RuntimeError):  # too late: the V2G thread has ended
                loop.call_soon_threadsafe(settle, data, text)

        self.bridge.ask_contract(update, request, give)
        try:
            data, text = await asyncio.wait_for(answered, CONTRACT_WAIT_S)
        except asyncio.TimeoutError as error:
            raise Refusal(Code.AUTHORIZATION, f"the back end did not answer in {CONTRACT_WAIT_S:g} s") from error
        if not data:
            raise Refusal(Code.AUTHORIZATION, text or "the back end refused")
        return data

    # Cable check.
    async def start_cable_check(self) -> None:
        self._cable_check_permit = self.station.permit_number
        self._cable_check_over = False
        self.bridge.say(
            phase=Link.CABLE_CHECK,
            ready=True,
            lock=Lock.LOCKED,
            purpose=Purpose.INSULATION_TEST,
            voltage_v=self.bridge.vehicle.max_voltage_v,
            current_a=0.0,
        )

    def _cable_check_result(self) -> IsolationLevel | None:
        station = self.station
        if station.insulation_permit_number <= self._cable_check_permit:
            return None
        return {
            Insulation.VALID: IsolationLevel.VALID,
            Insulation.WARNING: IsolationLevel.WARNING,
            Insulation.FAULT: IsolationLevel.FAULT,
            Insulation.SELF_TEST_FAILED: IsolationLevel.FAULT,
        }.get(Insulation(station.insulation))

    async def get_cable_check_status(self) -> IsolationLevel | None:
        self.refresh()
        level = self._cable_check_result()
        if level == IsolationLevel.FAULT:
            untested = self.station.insulation == Insulation.SELF_TEST_FAILED
            self.refuse(
                Code.INSULATION_SELF_TEST if untested else Code.INSULATION,
                "the insulation monitor failed its self-test" if untested else "the insulation test failed",
            )
        elif level is None and self.station.stopping:
            self.refuse(Code.NONE, "the station stopped the session during the cable check")
            level = IsolationLevel.INVALID
        if level is not None:
            self._cable_check_over = True
            self.bridge.say(purpose=Purpose.NONE, voltage_v=0.0)
        return level

    async def is_contactor_closed(self) -> bool | None:
        if not self._cable_check_over:
            return True  # power closes and opens them within the test; its result is what counts
        return await self._wait_for(lambda: self.station.contactors_closed)

    async def is_contactor_opened(self) -> bool:
        opened = await self._wait_for(lambda: not self.station.contactors_closed)
        if not opened:
            self.refuse(Code.CONTACTOR_WELDED, "the contactors did not open")
        return opened

    async def _wait_for(self, condition: Any) -> bool:
        deadline = time.monotonic() + CONTACTOR_WAIT_S
        while not condition():
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.01)
        self.refresh()
        return True

    async def get_cp_state(self) -> CpState:
        return {
            1: CpState.A1,
            2: CpState.B2,
            3: CpState.C2,
            4: CpState.D2,
            5: CpState.E,
            6: CpState.F,
        }.get(self.station.pilot, CpState.UNKNOWN)

    # Precharge and transfer.
    async def send_charging_command(
        self,
        ev_target_voltage: float | None,
        ev_target_current: float | None,
        is_precharge: bool = False,
        is_session_bpt: bool = False,
    ) -> None:
        # The package hands is_session_bpt over in the place of is_precharge (DCChargeLoop), so that our own
        # knowledge decides which of the two this is.
        station = self.station
        if not self._charging:
            if station.stopping:
                self.refuse(Code.NONE, "the station stopped the session during precharge")
                raise asyncio.TimeoutError  # the package answers FAILED to that
            self.bridge.say(
                phase=Link.PRECHARGE,
                purpose=Purpose.PRECHARGE,
                voltage_v=float(ev_target_voltage or 0.0),
                current_a=min(float(ev_target_current or PRECHARGE_CURRENT_A), PRECHARGE_CURRENT_A),
            )
        else:
            self._watch_power()
            dc = self.ev_data_context.session_limits.dc_limits
            changes: dict[str, Any] = {}
            if dc and dc.max_charge_current:
                changes["max_current_a"] = float(dc.max_charge_current)
            if ev_target_voltage is None:  # dynamic control: the station decides within the vehicle's limits
                ev_target_voltage, ev_target_current = self._dynamic_target()
            self.bridge.say(
                phase=Link.CHARGING,
                purpose=Purpose.TRANSFER,
                voltage_v=float(ev_target_voltage),
                current_a=float(ev_target_current or 0.0),
                **changes,
            )
        self.refresh()

    def _watch_power(self) -> None:
        station = self.station
        exports = self.bridge.vehicle.bidirectional and min(station.announced_export()) > 0.0
        if exports or min(station.announced()[1:]) > 0.0:
            self._starved_since = None
        elif self._starved_since is None:
            self._starved_since = time.monotonic()

    def _asks_to_pause(self) -> bool:
        after_s, since = self.parameters.pause_after_s, self._starved_since
        return bool(after_s) and since is not None and time.monotonic() - since >= after_s

    def _dynamic_target(self) -> tuple[float, float]:
        """Voltage and current of dynamic control: export where the back end asks for it, else what both can.

        The voltage is the vehicle's present maximum, or its minimum while it discharges.
        """
        vehicle = self.ev_data_context.session_limits.dc_limits
        _, current, power = self.station.announced()
        export_a, export_w = self.station.announced_export()
        voltage = max(self.station.voltage_v, 1.0)
        wanted_w = -self.station.backend_min_power_w
        if self.bridge.vehicle.bidirectional and wanted_w > 0.0 and export_a > 0.0:
            most_a = min(export_a, float(vehicle.max_discharge_current or 0.0), min(export_w, wanted_w) / voltage)
            return float(vehicle.min_voltage or 0.0), -most_a
        return float(vehicle.max_voltage or 0.0), min(
            current, float(vehicle.max_charge_current or 0.0), power / voltage
        )

    async def is_evse_current_limit_achieved(self) -> bool:
        return self.station.current_limited

    async def is_evse_voltage_limit_achieved(self) -> bool:
        return self.station.voltage_limited

    async def is_evse_power_limit_achieved(self) -> bool:
        return self.station.power_limited

    # DIN 70121 and ISO 15118-2.
    async def get_supported_energy_transfer_modes(self, protocol: Protocol) -> list[EnergyTransferModeEnum]:
        return [EnergyTransferModeEnum.DC_EXTENDED]

    async def get_dc_evse_status(self) -> DCEVSEStatus:
        self.refresh()
        station = self.station
        notification = EVSENotification.NONE
        status = DCEVSEStatusCode.EVSE_READY
        vehicle = self.bridge.vehicle
        if station.stopping:
            notification = EVSENotification.STOP_CHARGING
            if station.shutdown == Shutdown.EMERGENCY:
                status = DCEVSEStatusCode.EVSE_EMERGENCY_SHUTDOWN
            elif station.shutdown == Shutdown.ERROR or station.supervisor_silent():
                status = DCEVSEStatusCode.EVSE_MALFUNCTION
            elif vehicle.phase < Link.STOPPING:
                status = DCEVSEStatusCode.EVSE_SHUTDOWN
        elif vehicle.phase == Link.CABLE_CHECK and not self._cable_check_over:
            status = DCEVSEStatusCode.EVSE_ISOLATION_MONITORING_ACTIVE
        elif vehicle.phase <= Link.PARAMETERS and not station.supply_available:
            status = DCEVSEStatusCode.EVSE_NOT_READY
        level = (self._cable_check_result() if self._cable_check_over else None) or IsolationLevel.INVALID
        return DCEVSEStatus(
            evse_notification=notification,
            notification_max_delay=0,
            evse_isolation_status=level,
            evse_status_code=status,
        )

    async def get_dc_charge_parameters(self) -> DCEVSEChargeParameter:
        station = self.station
        voltage, current, power = station.announced()
        return DCEVSEChargeParameter(
            dc_evse_status=await self.get_dc_evse_status(),
            evse_maximum_power_limit=physical(PVEVSEMaxPowerLimit, power, "W"),
            evse_maximum_current_limit=physical(PVEVSEMaxCurrentLimit, current, "A"),
            evse_maximum_voltage_limit=physical(PVEVSEMaxVoltageLimit, voltage, "V"),
            evse_minimum_current_limit=physical(PVEVSEMinCurrentLimit, station.min_current_a, "A"),
            evse_minimum_voltage_limit=physical(PVEVSEMinVoltageLimit, station.min_voltage_v, "V"),
            evse_peak_current_ripple=physical(PVEVSEPeakCurrentRipple, station.current_ripple_a, "A"),
        )

    async def get_evse_present_voltage(self, protocol: Protocol) -> Any:
        if protocol in (Protocol.DIN_SPEC_70121, Protocol.ISO_15118_2):
            return physical(PVEVSEPresentVoltage, self.station.voltage_v, "V")
        return rational(self.station.voltage_v)

    async def get_evse_present_current(self, protocol: Protocol) -> Any:
        if protocol in (Protocol.DIN_SPEC_70121, Protocol.ISO_15118_2):
            return physical(PVEVSEPresentCurrent, self.station.current_a, "A")
        return rational(self.station.current_a)

    async def get_evse_max_voltage_limit(self) -> PVEVSEMaxVoltageLimit:
        return physical(PVEVSEMaxVoltageLimit, self.station.announced()[0], "V")

    async def get_evse_max_current_limit(self) -> PVEVSEMaxCurrentLimit:
        return physical(PVEVSEMaxCurrentLimit, self.station.announced()[1], "A")

    async def get_evse_max_power_limit(self) -> PVEVSEMaxPowerLimit:
        return physical(PVEVSEMaxPowerLimit, self.station.announced()[2], "W")

    async def get_sa_schedule_list(
        self,
        ev_data_context: Any,
        is_free_charging_service: bool,
        max_schedule_entries: int | None,
        departure_time: int = 0,
    ) -> list[SAScheduleTuple]:
        """One schedule, what the supply can for a day ([V2G2-304]). Limits follow in each answer of the charge loop, up
        and down: a schedule made of the present limit would hold the vehicle below it when it rises."""
        entry = PMaxScheduleEntry(
            p_max=physical(PVPMax, self.station.max_power_w, "W"),
            time_interval=RelativeTimeInterval(start=0, duration=max(departure_time, DAY_S)),
        )
        return [SAScheduleTuple(sa_schedule_tuple_id=1, p_max_schedule=PMaxSchedule(schedule_entries=[entry]))]

    async def get_sa_schedule_list_dinspec(
        self, max_schedule_entries: int | None, departure_time: int = 0
    ) -> list[DinSAScheduleTupleEntry]:
        power = min(round(self.station.max_power_w), 32_767)  # int16 in DIN 70121, in W
        details = DinPMaxScheduleEntryDetails(
            p_max=power, time_interval=DinRelativeTimeInterval(start=0, duration=DAY_S)
        )
        entry = DinPMaxScheduleEntry(p_max_schedule_id=1, entry_details=[details])
        return [DinSAScheduleTupleEntry(sa_schedule_tuple_id=1, p_max_schedule=entry, sales_tariff=None)]

    def meter_info_v2(self) -> MeterInfoV2 | None:
        """The meter's import register, None while the meter does not answer."""
        station = self.station
        if not station.meter_valid:
            return None
        return MeterInfoV2(
            meter_id=station.meter_serial[:32] or "1",
            meter_reading=max(0, round(station.meter_import_wh)),
            t_meter=int(station.meter_time_s),
        )

    async def get_meter_info_v2(self) -> MeterInfoV2:
        return self.meter_info_v2() or MeterInfoV2(meter_id="0", meter_reading=0, t_meter=int(time.time()))

    # ISO 15118-20.
    async def get_evse_status(self) -> EVSEStatus | None:
        if self.station.stopping:
            return EVSEStatus(notification_max_delay=0, evse_notification=EVSENotificationV20.TERMINATE)
        if self._asks_to_pause():
            return EVSEStatus(notification_max_delay=0, evse_notification=EVSENotificationV20.PAUSE)
        return None

    async def get_meter_info_v20(self) -> MeterInfoV20:
        station = self.station
        return MeterInfoV20(
            meter_id=station.meter_serial[:32] or "1",
            charged_energy_reading_wh=max(0, round(station.meter_import_wh)),
            bpt_discharged_energy_reading_wh=max(0, round(station.meter_export_wh)),
            meter_timestamp=int(station.meter_time_s),
        )

    def _energy_services(self) -> list[int]:
        device = self.parameters.link == "acdp"
        services = [ServiceV20.DC_ACDP.id if device else ServiceV20.DC.id]
        if self.parameters.bidirectional and self.station.announced_export()[1] > 0.0:
            services.append(ServiceV20.DC_ACDP_BPT.id if device else ServiceV20.DC_BPT.id)
        return services

    async def get_energy_service_list(self) -> ServiceList:
        return ServiceList(
            services=[Service(service_id=number, free_service=False) for number in self._energy_services()]
        )

    async def get_service_parameter_list(self, service_id: int) -> ServiceParameterList | None:
        """Scheduled and dynamic control for DC and DC_BPT (ISO 15118-20 tables 206 and 208).

        MobilityNeedsMode 2 (needs given by the station) only with dynamic control ([V2G20-2663]).
        """
        if service_id not in self._energy_services():
            return None
        sets = []
        for number, (control, needs) in enumerate(((1, 1), (2, 1)), start=1):
            values = {"Connector": 2, "ControlMode": control, "MobilityNeedsMode": needs, "Pricing": 0}
            if service_id in (ServiceV20.DC_BPT.id, ServiceV20.DC_ACDP_BPT.id):
                values |= {"BPTChannel": 1, "GeneratorMode": 1}
            parameters = [Parameter(name=name, int_value=value) for name, value in values.items()]
            sets.append(ParameterSet(id=number, parameters=parameters))
        return ServiceParameterList(parameter_sets=sets)

    async def get_schedule_exchange_params(
        self, selected_energy_service: Any, control_mode: ControlMode, schedule_exchange_req: Any
    ) -> ScheduledScheduleExchangeResParams | DynamicScheduleExchangeResParams:
        if control_mode == ControlMode.DYNAMIC:
            return DynamicScheduleExchangeResParams()
        power = _power_schedule(self.station.max_power_w)  # limits follow in the charge loop
        schedule = ChargingSchedule(power_schedule=power, price_level_schedule=_no_price())
        export = self.station.announced_export()[1]
        discharging = None
        if selected_energy_service.service == ServiceV20.DC_BPT and export > 0.0:
            discharging = DischargingSchedule(
                power_schedule=_power_schedule(-export), price_level_schedule=_no_price(2)
            )
        tuple_ = ScheduleTuple(schedule_tuple_id=1, charging_schedule=schedule, discharging_schedule=discharging)
        return ScheduledScheduleExchangeResParams(schedule_tuples=[tuple_])

    async def get_dc_charge_params_v20(
        self, energy_service: ServiceV20
    ) -> DCChargeParameterDiscoveryResParams | BPTDCChargeParameterDiscoveryResParams:
        station = self.station
        voltage, current, power = station.announced()
        values = {
            "evse_max_charge_power": rational(power),
            "evse_min_charge_power": rational(0),
            "evse_max_charge_current": rational(current),
            "evse_min_charge_current": rational(station.min_current_a),
            "evse_max_voltage": rational(voltage),
            "evse_min_voltage": rational(station.min_voltage_v),
        }
        if energy_service != ServiceV20.DC_BPT:
            return DCChargeParameterDiscoveryResParams(**values)
        export_a, export_w = station.announced_export()
        self.bridge.say(bidirectional=True)
        return BPTDCChargeParameterDiscoveryResParams(
            **values,
            evse_max_discharge_power=rational(export_w),
            evse_min_discharge_power=rational(0),
            evse_max_discharge_current=rational(export_a),
            evse_min_discharge_current=rational(0),
        )

    # What this station does not do.
    async def get_ac_evse_status(self) -> Any:
        raise NotImplementedError("a DC station")

    async def get_ac_charge_params_v2(self) -> Any:
        raise NotImplementedError("a DC station")

    async def get_ac_charge_params_v20(self, energy_service: ServiceV20) -> Any:
        raise NotImplementedError("a DC station")

    async def get_15118_ev_certificate(self, base64_encoded_cert_installation_req: str, namespace: str) -> str:
        raise NotImplementedError("asked by v2g/certificates.py itself")

    # Noted by the session.
    def heard(self, timeout_ms: int) -> None:
        """A message of the vehicle arrived."""
        vehicle = self.bridge.vehicle
        self.bridge.say(stamp_ns=now_ns(), timeout_ms=timeout_ms, messages_in=vehicle.messages_in + 1)


def _power_schedule(power_w: float) -> PowerSchedule:
    entry = PowerScheduleEntry(duration=DAY_S, power=rational(power_w))
    return PowerSchedule(time_anchor=0, schedule_entry_list=PowerScheduleEntryList(entries=[entry]))


def _no_price(number: int = 1) -> PriceLevelSchedule:
    """One price level for a day: the package wants a price, and this station announces none."""
    entry = PriceLevelScheduleEntry(duration=DAY_S, price_level=0)
    return PriceLevelSchedule(
        id=f"id{number}",
        time_anchor=0,
        schedule_id=number,
        num_price_levels=1,
        schedule_entries=PriceLevelScheduleEntryList(entries=[entry]),
    )
