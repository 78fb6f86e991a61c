"""Parameters of the v2g node."""

from __future__ import annotations

from dataclasses import dataclass

from robot_charger.common.parameters import parameter

PROTOCOLS = ("din70121", "iso15118-2", "iso15118-20")


@dataclass(frozen=True)
class V2gParameters:
    link: str = parameter(
        "plc",
        "plc: a PLC modem and SLAC; acdp: an IP link that exists before contact, for an automated connection device "
        "(ISO 15118-20); none: this EVSE speaks to no vehicle (CHAdeMO alone)",
        choices=("plc", "acdp", "none"),
    )
    interface: str = parameter("", "network interface of the PLC modem; on a desk, for V2G on a virtual link")
    protocols: list[str] = parameter(
        ["iso15118-20", "iso15118-2", "din70121"], "protocols offered to the vehicle", choices=PROTOCOLS
    )
    evse_id: str = parameter("DE*EKX*E1", "EVSE id of ISO 15118 (country, operator, E, number)")
    evse_id_din: str = parameter("49A89A6360", "EVSE id of DIN SPEC 91286 as hexadecimal digits")
    vehicle_timeout_ms: int = parameter(
        5000,
        "a vehicle message older than this counts as silence in DIN 70121 and ISO 15118-2",
        unit="ms",
        low=250,
        high=60_000,
    )
    vehicle_timeout_20_ms: int = parameter(
        500, "a vehicle message older than this counts as silence in the charge loop of ISO 15118-20 "
        "(V2G_SECC_Sequence_Timeout_ChargeLoop)", unit="ms",
        low=100, high=60_000,
    )  # fmt: skip
    stop_grace_s: float = parameter(
        10.0, "time a vehicle has to end the session after EVSENotification StopCharging", unit="s", low=1.0, high=60.0
    )
    pause_after_s: float = parameter(
        0.0,
        "ISO 15118-20: a vehicle for which there was no power for so long is asked to pause, 0 = never",
        unit="s",
        low=0.0,
        high=86_400.0,
    )
    setup_timeout_s: float = parameter(
        20.0,
        "longest time from the match to a V2G session (V2G_EVCC_CommunicationSetup_Timeout)",
        unit="s",
        low=1.0,
        high=120.0,
    )
    authorization_timeout_s: float = parameter(
        150.0, "longest wait for an authorisation before it counts as refused", unit="s", low=1.0, high=600.0
    )
    slac__settle_s: float = parameter(10.0, "pause after the modem took a new key", unit="s", low=0.0, high=30.0)
    slac__timeout_s: float = parameter(
        40.0, "longest wait for a match (TT_EVSE_SLAC_init, 20 to 50)", unit="s", low=1.0, high=120.0
    )
    tls__required: bool = parameter(True, "refuse vehicles that do not offer TLS; false allows plain TCP", unsafe=False)
    tls__directory: str = parameter("", "directory of the station's certificates, empty = no TLS", file=True)
    pnc: bool = parameter(False, "offer Plug and Charge where TLS is spoken")
    contract_installation: bool = parameter(
        False, "with pnc: offer to install and renew contract certificates, which the back end must be able to issue"
    )
    receipt_s: float = parameter(
        60.0,
        "Plug and Charge: how often the vehicle signs the meter's reading, 0 = never",
        unit="s",
        low=0.0,
        high=86_400.0,
    )
    bidirectional: bool = parameter(True, "offer DC_BPT where the supply can export")
    acdp__inlet_x_m: float = parameter(
        0.0, "where the arm expects the inlet, in the frame of its bay", unit="m", low=-5.0, high=5.0
    )
    acdp__inlet_y_m: float = parameter(0.0, "the same across", unit="m", low=-5.0, high=5.0)
    realtime: bool = parameter(True, "run the V2G thread under SCHED_FIFO where the system allows")
    record: str = parameter(
        "off",
        "publish every V2G message on v2g/record, as bytes and decoded, and write it to record_file",
        choices=("off", "on"),
    )
    record_file: str = parameter("", "file that the record is appended to, one JSON object a line; empty = none")
    privacy__record_identity: bool = parameter(
        False,
        "leave what identifies a person in the record (EVCCID, eMAID, certificates, and the bytes of their messages)",
        unsafe=True,
    )
    privacy__publish_identity: bool = parameter(
        False, "publish the vehicle's EVCCID on vehicle/link (Autocharge needs it)", unsafe=True
    )
