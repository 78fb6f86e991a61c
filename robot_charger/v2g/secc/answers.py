"""The station's snapshot in the units and words of each standard.

DIN 70121 and ISO 15118-2 share physical values (int16 mantissa, multiplier -3 to 3, unit); ISO 15118-20 has rational
numbers (int16 mantissa, exponent -128 to 127). A value too large for its field is given as the field's largest.
"""

from __future__ import annotations

from functools import lru_cache

from robot_charger.v2g.bridge import Station
from robot_charger.v2g.secc.table import Talk, Tree
from robot_charger.words.values import Insulation, Link, Shutdown

INT16 = 32_767
DAY_S = 86_400
REGULATION_TOLERANCE_A = 2.5  # IEC 61851-23 101.2.1.2, below 50 A
NOTICE_S = 10  # NotificationMaxDelay of a normal stop, as public DC chargers give it [s]
ISOLATION = {Insulation.VALID: "Valid", Insulation.WARNING: "Warning", Insulation.FAULT: "Fault"}


@lru_cache(256)
def physical(value: float, unit: str, finest: int = -1) -> Tree:
    """A physical value with the finest multiplier, from ``finest`` on, that its mantissa fits. Not to be changed."""
    for multiplier in range(finest, 4):
        mantissa = round(value / 10**multiplier)
        if -INT16 <= mantissa <= INT16:
            return {"Multiplier": multiplier, "Unit": unit, "Value": mantissa}
    return {"Multiplier": 3, "Unit": unit, "Value": INT16 if value > 0 else -INT16}


@lru_cache(256)
def rational(value: float, finest: int = -1) -> Tree:
    """A rational number with the finest exponent, from ``finest`` on, that its mantissa fits. Not to be changed."""
    for exponent in range(finest, 7):
        mantissa = round(value / 10**exponent)
        if -INT16 <= mantissa <= INT16:
            return {"Exponent": exponent, "Value": mantissa}
    return {"Exponent": 6, "Value": INT16 if value > 0 else -INT16}


def present_voltage(station: Station) -> Tree:
    return physical(station.voltage_v, "V")


def present_current(station: Station) -> Tree:
    return physical(station.current_a, "A", -2)


# DIN 70121 and ISO 15118-2.
def dc_status(talk: Talk) -> Tree:
    """DC_EVSEStatus. A stop by the station is EVSE_Shutdown with StopCharging; one by the vehicle EVSE_Shutdown."""
    notification, status, delay = "None", "EVSE_Ready", 0
    if talk.stopping:
        notification, status, delay = _stop(talk)
    elif talk.phase in (Link.STOPPING, Link.WELDING_CHECK):
        status, delay = "EVSE_Shutdown", NOTICE_S
    elif talk.energy.testing:
        status = "EVSE_IsolationMonitoringActive"
    elif talk.phase <= Link.PARAMETERS and not talk.station.supply_available:
        status = "EVSE_NotReady"
    return {
        "NotificationMaxDelay": delay,
        "EVSENotification": notification,
        "EVSEIsolationStatus": ISOLATION.get(talk.energy.result, "Invalid"),
        "EVSEStatusCode": status,
    }


def _stop(talk: Talk) -> tuple[str, str, int]:
    station = talk.station
    if station.shutdown == Shutdown.EMERGENCY:
        return "StopCharging", "EVSE_EmergencyShutdown", 0
    if station.shutdown == Shutdown.ERROR or station.silent_at(talk.now.ns):
        return "StopCharging", "EVSE_Malfunction", 0
    return "StopCharging", "EVSE_Shutdown", min(NOTICE_S, int(talk.settings.stop_grace_s))


def dc_charge_parameter(talk: Talk) -> Tree:
    """DC_EVSEChargeParameter."""
    station = talk.station
    voltage, current, power = station.announced()
    wanted_wh = talk.facts.get("energy_request_wh") or power
    return {
        "DC_EVSEStatus": dc_status(talk),
        "EVSEMaximumCurrentLimit": physical(current, "A"),
        "EVSEMaximumPowerLimit": physical(power, "W"),
        "EVSEMaximumVoltageLimit": physical(voltage, "V"),
        "EVSEMinimumCurrentLimit": physical(station.min_current_a, "A"),
        "EVSEMinimumVoltageLimit": physical(station.min_voltage_v, "V"),
        "EVSECurrentRegulationTolerance": physical(REGULATION_TOLERANCE_A, "A"),
        "EVSEPeakCurrentRipple": physical(station.current_ripple_a, "A"),
        "EVSEEnergyToBeDelivered": physical(wanted_wh, "Wh", 0),  # without a wish: what one hour can give
    }


Limits = tuple[float, float, float]  # voltage [V], current [A], power [W] of Station.announced()


def achieved(station: Station, limits: Limits, asked_v: float, asked_a: float) -> Tree:
    """The three LimitAchieved fields: the supply is at a limit, or the vehicle asked for more than it may have."""
    voltage, current, power = limits
    return {
        "EVSECurrentLimitAchieved": station.current_limited or abs(asked_a) > current,
        "EVSEVoltageLimitAchieved": station.voltage_limited or asked_v > voltage > 0.0,
        "EVSEPowerLimitAchieved": station.power_limited or abs(asked_a) * station.voltage_v > power,
    }


def loop_limits(limits: Limits) -> Tree:
    """The limits in CurrentDemandRes."""
    voltage, current, power = limits
    return {
        "EVSEMaximumVoltageLimit": physical(voltage, "V"),
        "EVSEMaximumCurrentLimit": physical(current, "A"),
        "EVSEMaximumPowerLimit": physical(power, "W"),
    }


def schedule(power_w: float, departure_s: float = 0.0) -> Tree:
    """SAScheduleList of ISO 15118-2: one schedule, what the supply can ([V2G2-304]).

    Limits follow in the charge loop, up and down. A schedule made of the present limit would hold the vehicle below it
    when it rises.
    """
    interval = {"start": 0, "duration": min(16_777_215, max(round(departure_s), DAY_S))}
    entry = {"RelativeTimeInterval": interval, "PMax": physical(power_w, "W")}
    return {"SAScheduleTuple": [{"SAScheduleTupleID": 1, "PMaxSchedule": {"PMaxScheduleEntry": [entry]}}]}


def schedule_din(power_w: float) -> Tree:
    """SAScheduleList of DIN 70121, where PMax is an int16 [W]."""
    interval = {"start": 0, "duration": DAY_S}
    entry = {"RelativeTimeInterval": interval, "PMax": min(round(max(power_w, 0.0)), INT16)}
    return {
        "SAScheduleTuple": [
            {"SAScheduleTupleID": 1, "PMaxSchedule": {"PMaxScheduleID": 1, "PMaxScheduleEntry": [entry]}}
        ]
    }


def meter_info(station: Station) -> Tree | None:
    """MeterInfo of ISO 15118-2: the import register, None while the meter does not answer."""
    if not station.meter_valid:
        return None
    return {
        "MeterID": station.meter_serial[:32] or "1",
        "MeterReading": max(0, round(station.meter_import_wh)),
        "TMeter": int(station.meter_time_s),
    }


# ISO 15118-20.
def status_20(talk: Talk) -> Tree | None:
    """EVSEStatus: the station's wish to end or to pause, None without one."""
    if talk.stopping:
        return {"NotificationMaxDelay": 0, "EVSENotification": "Terminate"}
    after_s = talk.settings.pause_after_s
    if after_s and talk.energy.starved_since_ns is not None and talk.energy.starved_s(talk) >= after_s:
        return {"NotificationMaxDelay": 0, "EVSENotification": "Pause"}
    return None


def meter_info_20(station: Station) -> Tree:
    """MeterInfo of ISO 15118-20: both registers."""
    return {
        "MeterID": station.meter_serial[:32] or "1",
        "ChargedEnergyReadingWh": max(0, round(station.meter_import_wh)),
        "BPT_DischargedEnergyReadingWh": max(0, round(station.meter_export_wh)),
        "MeterTimestamp": int(station.meter_time_s),
    }


def charge_limits_20(limits: Limits) -> Tree:
    """The four charge limits of DC_ChargeLoopRes."""
    voltage, current, power = limits
    return {
        "EVSEMaximumChargePower": rational(power),
        "EVSEMinimumChargePower": rational(0.0),
        "EVSEMaximumChargeCurrent": rational(current),
        "EVSEMaximumVoltage": rational(voltage),
    }


def discharge_limits_20(station: Station) -> Tree:
    """What DC_BPT adds to them."""
    export_a, export_w = station.announced_export()
    return {
        "EVSEMaximumDischargePower": rational(export_w),
        "EVSEMinimumDischargePower": rational(0.0),
        "EVSEMaximumDischargeCurrent": rational(export_a),
        "EVSEMinimumVoltage": rational(station.min_voltage_v),
    }
