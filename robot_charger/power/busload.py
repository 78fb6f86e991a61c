"""Worst-case load of the EK3 bus, computed: 1 Mbit/s arbitration, 5 Mbit/s data, bit-rate switch, 11-bit ids.

A frame of n payload bytes takes 35 us at the slow rate and 28 + 10 n bits (5 more above 16 bytes, for the longer
CRC) at the fast one, with every possible stuff bit and the gap to the next frame.
"""

from __future__ import annotations

from robot_charger.common.parameters import ParameterError
from robot_charger.power import codec
from robot_charger.power.bank import place
from robot_charger.power.contract import CONTRACTS, Contract
from robot_charger.power.parameters import PowerParameters

CYCLE_US = 10_000.0
SENSOR_CYCLE_US = 100_000.0
CLASSIC_US = {1: 65.0, 8: 135.0}  # worst-case time of a classic frame by payload at 1 Mbit/s, stuff bits and gap too
CLASSIC_BITS, EXTENDED_BITS = 135, 160  # of a frame of eight bytes, with every stuff bit and the gap
WARN = 0.70
REFUSE = 0.80


def frame_us(payload: int) -> float:
    """Worst-case time of one CAN-FD frame on the wire [us]; ``payload`` in bytes, 0 to 64."""
    return 35.0 + (28 + 5 * (payload > 16) + 10 * payload) / 5.0


def classic_us(contract: Contract) -> float:
    """Worst-case time of a classic frame of eight bytes on this protocol's bus [us]."""
    return (EXTENDED_BITS if contract.extended else CLASSIC_BITS) * 1e6 / (contract.bit_rate or 1_000_000)


def polled_load(contract: Contract, modules: int) -> float:
    """Share of what one bus of a polled protocol can carry, 1 where a module's readings are just not too old.

    The pace that modules stand bounds it (``spacing_s``) where the wire does not.
    """
    return WARN * modules / contract.modules_a_bus


def load(modules: int, groups: bool, evses: int = 0, more: int = 0) -> float:
    """Share of one bus, 0 to 1, used by ``modules`` and (on the first bus) the safety frames of ``evses``.

    ``more``: frames of the matrix and of the grid side.
    """
    status = modules * frame_us(codec.STATUS.itemsize) / CYCLE_US
    sensors = modules * frame_us(codec.SENSOR.itemsize) / SENSOR_CYCLE_US
    if groups:
        setpoints = -(-modules // codec.GROUP_SIZE) * frame_us(codec.GROUP.itemsize) / CYCLE_US
    else:
        setpoints = modules * frame_us(codec.SETPOINT.itemsize) / CYCLE_US
    safety = 0.0
    if evses:
        sizes = codec.LENGTHS
        station = frame_us(sizes["power"]) + frame_us(sizes["safety"]) + more * frame_us(sizes["links"])
        safety = (station + evses * (frame_us(sizes["output"]) + frame_us(sizes["evse"]))) / CYCLE_US
    return status + sensors + setpoints + safety


def canopen_load(modules: int) -> float:
    """Share of one CANopen bus at 1 Mbit/s: TPDO1 and RPDO1 every 10 ms, TPDO2 every 100 ms, a heartbeat a second."""
    per_cycle = 2.1 * CLASSIC_US[8] + 0.01 * CLASSIC_US[1]
    return modules * per_cycle / CYCLE_US


def worst(parameters: PowerParameters, buses: int, groups: bool) -> float:
    """Load of the fullest bus, which is the first: with EK3 modules it also carries the safety frames."""
    bus, _ = place(parameters.modules, buses)
    contract = parameters.contract
    if contract.own_bus and not contract.polled:
        return canopen_load(int((bus == 0).sum()))
    if contract.own_bus:
        return polled_load(contract, int((bus == 0).sum()))
    return load(int((bus == 0).sum()), groups, len(parameters.evses), _more(parameters))


def _more(parameters: PowerParameters) -> int:
    return (parameters.matrix__blocks > 0) + parameters.bidirectional


def buses_needed(modules: int, evses: int = 1) -> int:
    """Fewest buses that carry a bank at no more than 70 % load, with group frames where they help."""
    parameters = PowerParameters(modules=modules, evses=list(range(1, evses + 1)))
    return next(b for b in range(1, 256) if min(worst(parameters, b, g) for g in (False, True)) <= WARN)


def own_buses_needed(protocol: str, modules: int) -> int:
    """Fewest buses of their own that carry these modules as their contract wants it."""
    return -(-modules // CONTRACTS[protocol].modules_a_bus)


def choose(parameters: PowerParameters, buses: int) -> bool:
    """Whether set-points go out in frames of 15. Raises ParameterError above 80 % load."""
    wanted = parameters.setpoint_frames
    ours = not parameters.contract.own_bus
    groups = ours and (wanted == "group" or (wanted == "auto" and worst(parameters, buses, False) > WARN))
    share = worst(parameters, buses, groups)
    if share > REFUSE:
        need = next((b for b in range(buses + 1, 256) if worst(parameters, b, wanted != "individual") <= WARN), 0)
        raise ParameterError(
            f"parameter modules = {parameters.modules} loads {buses} bus(es) to {share:.0%}: "
            f"at most {REFUSE:.0%}; parameter {'bus' if ours else 'module.bus'} must name {need} buses"
        )
    return groups
