"""The vehicle's controller for the iso15118 package: its questions answered from the simulated vehicle."""

from __future__ import annotations

import time
from typing import Any

from iso15118.evcc.controller.interface import ChargeParamsV2, EVControllerInterface
from iso15118.shared.messages.datatypes import (
    DCEVChargeParams,
    PVEVEnergyCapacity,
    PVEVEnergyRequest,
    PVEVMaxCurrentLimit,
    PVEVMaxPowerLimit,
    PVEVMaxVoltageLimit,
    PVEVTargetCurrent,
    PVEVTargetVoltage,
    PVRemainingTimeToBulkSOC,
    PVRemainingTimeToFullSOC,
)
from iso15118.shared.messages.din_spec.datatypes import (
    DCEVPowerDeliveryParameter as DinDCEVPowerDeliveryParameter,
)
from iso15118.shared.messages.din_spec.datatypes import DCEVStatus as DinDCEVStatus
from iso15118.shared.messages.enums import (
    ControlMode,
    DCEVErrorCode,
    EnergyTransferModeEnum,
    Protocol,
    ServiceV20,
)
from iso15118.shared.messages.iso15118_2.datatypes import (
    ChargeProgress,
    ChargingProfile,
    DCEVChargeParameter,
    DCEVPowerDeliveryParameter,
    DCEVStatus,
    ProfileEntryDetails,
)
from iso15118.shared.messages.iso15118_20.common_messages import ChargeProgress as ChargeProgressV20
from iso15118.shared.messages.iso15118_20.common_messages import (
    DynamicEVPowerProfile,
    DynamicScheduleExchangeReqParams,
    EVPowerProfile,
    EVPowerScheduleEntry,
    EVPowerScheduleEntryList,
    PowerToleranceAcceptance,
    ScheduledEVPowerProfile,
    ScheduledScheduleExchangeReqParams,
    SelectedEnergyService,
)
from iso15118.shared.messages.iso15118_20.common_types import DisplayParameters, RationalNumber
from iso15118.shared.messages.iso15118_20.dc import (
    BPTDCChargeParameterDiscoveryReqParams,
    BPTDynamicDCChargeLoopReqParams,
    BPTScheduledDCChargeLoopReqParams,
    DCChargeParameterDiscoveryReqParams,
    DynamicDCChargeLoopReqParams,
    ScheduledDCChargeLoopReqParams,
)

CONTACTOR_CLOSE_V = 20.0
PRECHARGE_CURRENT_A = 2.0
WELDING_VOLTAGE_V = 60.0


def physical(kind: Any, value: float, unit: str) -> Any:
    """A physical value of ISO 15118-2: int16 mantissa, exponent -1 to 3."""
    for exponent in range(-1, 4):
        mantissa = round(value / 10**exponent)
        if -32_768 <= mantissa <= 32_767:
            return kind(multiplier=exponent, value=mantissa, unit=unit)
    raise ValueError(f"{value} {unit} is out of range")


def rational(value: float) -> RationalNumber:
    """A rational number of ISO 15118-20."""
    for exponent in range(-1, 6):
        mantissa = round(value / 10**exponent)
        if -32_768 <= mantissa <= 32_767:
            return RationalNumber(exponent=exponent, value=mantissa)
    raise ValueError(f"{value} is out of range")


class VehicleController(EVControllerInterface):
    """Answers the package's questions from the simulated vehicle."""

    def __init__(self, vehicle: Any, protocol: str, options: Any, mac: str) -> None:
        self.vehicle = vehicle
        self.protocol = protocol
        self.options = options
        self._mac = mac
        self.told_to_pause = False
        self._charging = False
        self._welding_since: float | None = None

    # Lifecycle.
    async def enable_charging(self, enabled: bool) -> None:
        """Ready for energy (state C, plug locked), or done with it."""
        if enabled:
            if self.vehicle.connected:  # an ACDP vehicle comes here before the plug does
                self.vehicle.lock()
                self.vehicle.set_ready(True)
            return
        self._charging = False
        self.vehicle.open_contactor()
        self.vehicle.set_ready(False)

    async def charge_loop_delay(self) -> int:
        return 0  # the session paces its messages

    async def continue_charging(self) -> bool:
        return not (self.vehicle.wants_to_stop() or self.told_to_pause)

    async def ready_to_charge(self) -> bool:
        return not self.vehicle.wants_to_stop()

    async def stop_charging(self) -> None:
        pass

    async def is_charging_complete(self) -> bool:
        return bool(self.vehicle.soc >= self.vehicle.target_soc)

    async def is_bulk_charging_complete(self) -> bool:
        return bool(self.vehicle.soc >= min(80.0, self.vehicle.target_soc))

    async def welding_detection_has_finished(self) -> bool:
        now = time.monotonic()
        if self._welding_since is None:
            self._welding_since = now
        return bool(self.vehicle.inlet_voltage_v < WELDING_VOLTAGE_V) or now - self._welding_since > 3.0

    async def get_evcc_id(self, protocol: Protocol, iface: str) -> str:
        if protocol in (Protocol.ISO_15118_2, Protocol.DIN_SPEC_70121):
            return self.options.evcc_id or self._mac
        return self.options.evcc_id or "WMIV1234567890ABCDEX"

    # Values of this moment.
    def _target_current(self) -> float:
        if not self._charging:
            return PRECHARGE_CURRENT_A
        return float(self.vehicle.requested_current_a)

    def _target_voltage(self) -> float:
        return float(self.vehicle.max_voltage_v if self._charging else self.vehicle.battery_voltage_v)

    def _energy_request_wh(self) -> float:
        missing = max(0.0, self.vehicle.target_soc - self.vehicle.soc) / 100.0
        return float(missing * self.vehicle.capacity_wh)

    def _remaining_s(self) -> float:
        power = max(1000.0, abs(self.vehicle.inlet_voltage_v * self.vehicle.inlet_current_a))
        return min(32_000.0, self._energy_request_wh() / power * 3600.0)

    async def is_precharged(self, present_voltage_evse: Any) -> bool:
        difference = abs(present_voltage_evse.get_decimal_value() - self.vehicle.battery_voltage_v)
        near = difference < CONTACTOR_CLOSE_V and abs(self.vehicle.inlet_voltage_v - self.vehicle.battery_voltage_v) < (
            CONTACTOR_CLOSE_V
        )
        if near and not self._charging:  # it asks for more than the battery's voltage only once it is connected to it
            self._charging = bool(self.vehicle.close_contactor())
        return near and self._charging

    def _error_code(self) -> DCEVErrorCode:
        if "lock" in self.vehicle.faults:
            return DCEVErrorCode.FAILED_CHARGER_CONNECTOR_LOCK_FAULT
        if "battery" in self.vehicle.faults:
            return DCEVErrorCode.FAILED_EV_RESS_MALFUNCTION
        return DCEVErrorCode.NO_ERROR

    async def get_dc_ev_status(self) -> DCEVStatus:
        soc = max(0, min(100, round(self.vehicle.soc)))
        return DCEVStatus(ev_ready=True, ev_error_code=self._error_code(), ev_ress_soc=soc)

    async def get_dc_ev_status_dinspec(self) -> DinDCEVStatus:
        soc = max(0, min(100, round(self.vehicle.soc)))
        return DinDCEVStatus(ev_ready=True, ev_error_code=self._error_code(), ev_ress_soc=soc)

    async def get_remaining_time_to_full_soc(self) -> PVRemainingTimeToFullSOC:
        return PVRemainingTimeToFullSOC(multiplier=0, value=round(self._remaining_s()), unit="s")

    async def get_remaining_time_to_bulk_soc(self) -> PVRemainingTimeToBulkSOC:
        return PVRemainingTimeToBulkSOC(multiplier=0, value=round(self._remaining_s() * 0.8), unit="s")

    # DIN 70121 and ISO 15118-2.
    async def get_energy_transfer_mode(self, protocol: Protocol) -> EnergyTransferModeEnum:
        return EnergyTransferModeEnum.DC_EXTENDED

    async def get_dc_charge_params(self) -> DCEVChargeParams:
        vehicle = self.vehicle
        return DCEVChargeParams(
            dc_max_current_limit=physical(PVEVMaxCurrentLimit, vehicle.max_current_a, "A"),
            dc_max_power_limit=physical(PVEVMaxPowerLimit, vehicle.max_power_w, "W"),
            dc_max_voltage_limit=physical(PVEVMaxVoltageLimit, vehicle.max_voltage_v, "V"),
            dc_energy_capacity=physical(PVEVEnergyCapacity, vehicle.capacity_wh, "Wh"),
            dc_target_current=physical(PVEVTargetCurrent, self._target_current(), "A"),
            dc_target_voltage=physical(PVEVTargetVoltage, self._target_voltage(), "V"),
        )

    async def get_charge_params_v2(self, protocol: Protocol) -> ChargeParamsV2:
        limits = await self.get_dc_charge_params()
        din = protocol == Protocol.DIN_SPEC_70121
        status: Any = await (self.get_dc_ev_status_dinspec() if din else self.get_dc_ev_status())
        parameters = DCEVChargeParameter(
            departure_time=None if din else 0,
            dc_ev_status=status.dict() if din else status,
            ev_maximum_current_limit=limits.dc_max_current_limit,
            ev_maximum_power_limit=limits.dc_max_power_limit,
            ev_maximum_voltage_limit=limits.dc_max_voltage_limit,
            ev_energy_capacity=limits.dc_energy_capacity,
            ev_energy_request=physical(PVEVEnergyRequest, self._energy_request_wh(), "Wh"),
            full_soc=100,
            bulk_soc=80,
        )
        return ChargeParamsV2(EnergyTransferModeEnum.DC_EXTENDED, None, parameters)

    async def process_sa_schedules_v2(self, sa_schedules: list) -> tuple[ChargeProgress, int, ChargingProfile]:
        schedule = sa_schedules[0]
        entries = [
            ProfileEntryDetails(start=entry.time_interval.start, max_power=entry.p_max)
            for entry in schedule.p_max_schedule.schedule_entries
        ]
        return ChargeProgress.START, schedule.sa_schedule_tuple_id, ChargingProfile(profile_entries=entries)

    async def process_sa_schedules_dinspec(self, sa_schedules: list) -> int:
        return int(sa_schedules[0].sa_schedule_tuple_id)

    async def get_dc_ev_power_delivery_parameter(self) -> DCEVPowerDeliveryParameter:
        return DCEVPowerDeliveryParameter(
            dc_ev_status=await self.get_dc_ev_status(),
            bulk_charging_complete=await self.is_bulk_charging_complete(),
            charging_complete=await self.is_charging_complete(),
        )

    async def get_dc_ev_power_delivery_parameter_dinspec(self) -> DinDCEVPowerDeliveryParameter:
        return DinDCEVPowerDeliveryParameter(
            dc_ev_status=await self.get_dc_ev_status_dinspec(),
            bulk_charging_complete=await self.is_bulk_charging_complete(),
            charging_complete=await self.is_charging_complete(),
        )

    # ISO 15118-20.
    async def get_supported_energy_services(self) -> list[ServiceV20]:
        return [ServiceV20.DC_BPT if self.protocol.endswith("-bpt") else ServiceV20.DC]

    async def select_energy_service_v20(self, services: list) -> SelectedEnergyService:
        chosen = services[0]
        return SelectedEnergyService(
            service=chosen.service, is_free=chosen.is_free, parameter_set=self._parameter_set(chosen.parameter_sets)
        )

    def _parameter_set(self, offered: list) -> Any:
        """The first set of the control mode this vehicle wants (1 scheduled, 2 dynamic)."""
        wanted = 2 if self.options.dynamic else 1
        for parameters in offered:
            if any(p.name == "ControlMode" and p.int_value == wanted for p in parameters.parameters):
                return parameters
        return offered[0]

    async def select_vas_services_v20(self, services: list) -> list:
        return []

    async def get_charge_params_v20(self, selected_service: SelectedEnergyService) -> Any:
        vehicle = self.vehicle
        values = {
            "ev_max_charge_power": rational(vehicle.max_power_w),
            "ev_min_charge_power": rational(0),
            "ev_max_charge_current": rational(vehicle.max_current_a),
            "ev_min_charge_current": rational(0),
            "ev_max_voltage": rational(vehicle.max_voltage_v),
            "ev_min_voltage": rational(vehicle.battery_voltage_v * 0.7),
            "target_soc": round(vehicle.target_soc),
        }
        if selected_service.service != ServiceV20.DC_BPT:
            return DCChargeParameterDiscoveryReqParams(**values)
        return BPTDCChargeParameterDiscoveryReqParams(
            **values,
            ev_max_discharge_power=rational(self.options.max_discharge_power_w),
            ev_min_discharge_power=rational(0),
            ev_max_discharge_current=rational(self.options.max_discharge_current_a),
            ev_min_discharge_current=rational(0),
        )

    async def get_scheduled_se_params(self, selected: SelectedEnergyService) -> ScheduledScheduleExchangeReqParams:
        wanted = self._energy_request_wh()
        return ScheduledScheduleExchangeReqParams(
            departure_time=7200,
            ev_target_energy_request=rational(wanted),
            ev_max_energy_request=rational(self.vehicle.capacity_wh),
            ev_min_energy_request=rational(0),
        )

    async def get_dynamic_se_params(self, selected: SelectedEnergyService) -> DynamicScheduleExchangeReqParams:
        return DynamicScheduleExchangeReqParams(
            departure_time=7200,
            min_soc=0,
            target_soc=round(self.vehicle.target_soc),
            ev_target_energy_request=rational(self._energy_request_wh()),
            ev_max_energy_request=rational(self.vehicle.capacity_wh),
            ev_min_energy_request=rational(0),
        )

    def _profile(self, power: RationalNumber, **kind: Any) -> EVPowerProfile:
        entries = EVPowerScheduleEntryList(entries=[EVPowerScheduleEntry(duration=86_400, power=power)])
        return EVPowerProfile(time_anchor=0, entry_list=entries, **kind)

    async def process_scheduled_se_params(self, params: Any, pause: bool) -> tuple[EVPowerProfile, ChargeProgressV20]:
        chosen = params.schedule_tuples[0]
        power = chosen.charging_schedule.power_schedule.schedule_entry_list.entries[0].power
        scheduled = ScheduledEVPowerProfile(
            selected_schedule_tuple_id=chosen.schedule_tuple_id,
            power_tolerance_acceptance=PowerToleranceAcceptance.CONFIRMED,
        )
        progress = ChargeProgressV20.STOP if pause else ChargeProgressV20.START
        return self._profile(power, scheduled_profile=scheduled), progress

    async def process_dynamic_se_params(self, params: Any, pause: bool) -> tuple[EVPowerProfile, ChargeProgressV20]:
        progress = ChargeProgressV20.STOP if pause else ChargeProgressV20.START
        profile = self._profile(rational(self.vehicle.max_power_w), dynamic_profile=DynamicEVPowerProfile())
        return profile, progress

    async def get_scheduled_dc_charge_loop_params(self) -> ScheduledDCChargeLoopReqParams:
        return ScheduledDCChargeLoopReqParams(
            ev_target_current=rational(self._target_current()),
            ev_target_voltage=rational(self._target_voltage()),
            ev_max_charge_current=rational(self.vehicle.max_current_a),
            ev_max_charge_power=rational(self.vehicle.max_power_w),
        )

    async def get_dynamic_dc_charge_loop_params(self) -> DynamicDCChargeLoopReqParams:
        vehicle = self.vehicle
        return DynamicDCChargeLoopReqParams(
            ev_target_energy_request=rational(self._energy_request_wh()),
            ev_max_energy_request=rational(vehicle.capacity_wh),
            ev_min_energy_request=rational(0),
            ev_max_charge_power=rational(vehicle.max_power_w),
            ev_min_charge_power=rational(0),
            ev_max_charge_current=rational(vehicle.requested_current_a),
            ev_max_voltage=rational(vehicle.max_voltage_v),
            ev_min_voltage=rational(vehicle.battery_voltage_v * 0.7),
        )

    async def get_bpt_scheduled_dc_charge_loop_params(self) -> BPTScheduledDCChargeLoopReqParams:
        plain = (await self.get_scheduled_dc_charge_loop_params()).dict()
        return BPTScheduledDCChargeLoopReqParams(
            **plain,
            ev_max_discharge_power=rational(self.options.max_discharge_power_w),
            ev_min_discharge_power=rational(0),
            ev_max_discharge_current=rational(self.options.max_discharge_current_a),
        )

    async def get_bpt_dynamic_dc_charge_loop_params(self) -> BPTDynamicDCChargeLoopReqParams:
        plain = (await self.get_dynamic_dc_charge_loop_params()).dict()
        return BPTDynamicDCChargeLoopReqParams(
            **plain,
            ev_max_discharge_power=rational(self.options.max_discharge_power_w),
            ev_min_discharge_power=rational(0),
            ev_max_discharge_current=rational(self.options.max_discharge_current_a),
        )

    async def get_present_voltage(self) -> RationalNumber:
        return rational(self.vehicle.inlet_voltage_v)

    async def get_target_voltage(self) -> RationalNumber:
        return rational(self._target_voltage())

    async def get_display_params(self) -> DisplayParameters:
        return DisplayParameters(
            present_soc=max(0, min(100, round(self.vehicle.soc))),
            target_soc=round(self.vehicle.target_soc),
            remaining_time_to_target_soc=round(self._remaining_s()),
            charging_complete=await self.is_charging_complete(),
            battery_energy_capacity=rational(self.vehicle.capacity_wh),
        )

    async def get_ac_charge_loop_params_v20(self, control_mode: ControlMode, selected_service: ServiceV20) -> Any:
        raise NotImplementedError("a vehicle that charges with direct current")

    # Plug and Charge.
    async def is_cert_install_needed(self) -> bool:
        return bool(self.options.certificate)

    async def store_contract_cert_and_priv_key(self, contract_cert: bytes, priv_key: bytes) -> None:
        raise NotImplementedError("sim/evcc_contract.py stores whole chains")

    async def get_prioritised_emaids(self) -> None:
        return None
