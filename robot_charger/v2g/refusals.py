"""Refusals that the iso15118 package lacks or cannot encode.

A request out of order is answered by its response with FAILED_SequenceError and the least else that the schema asks for
([V2G2-538], [V2G2-736]). The package keeps tables of those answers; some of them fit no schema and some requests have
none, so that a vehicle would get no answer at all.
"""

from __future__ import annotations

from typing import Any

from iso15118.shared.messages.datatypes import DCEVSEStatus, DCEVSEStatusCode, EVSENotification
from iso15118.shared.messages.din_spec.body import ChargeParameterDiscoveryReq as DinChargeParameterDiscoveryReq
from iso15118.shared.messages.din_spec.body import SessionSetupReq as DinSessionSetupReq
from iso15118.shared.messages.din_spec.datatypes import (
    PMaxScheduleEntry,
    PMaxScheduleEntryDetails,
    RelativeTimeInterval,
    SAScheduleList,
    SAScheduleTupleEntry,
)
from iso15118.shared.messages.iso15118_2.body import (
    CertificateInstallationReq,
    CertificateInstallationRes,
    CertificateUpdateReq,
    CertificateUpdateRes,
    MeteringReceiptReq,
    MeteringReceiptRes,
)
from iso15118.shared.messages.iso15118_2.datatypes import (
    EMAID,
    CertificateChain,
    DHPublicKey,
    EncryptedPrivateKey,
    ResponseCode,
)
from iso15118.shared.messages.iso15118_20 import common_messages as common


def complete(session: Any) -> None:
    """Mend the tables of one session of the package (SECCCommunicationSession)."""
    _complete_din(session.failed_responses_din_spec)
    _complete_2(session.failed_responses_isov2)
    _complete_20(session.failed_responses_isov20)


def _complete_din(table: dict[Any, Any]) -> None:
    table[DinSessionSetupReq].evse_id = "00"
    interval = RelativeTimeInterval(start=0, duration=0)
    schedule = PMaxScheduleEntry(
        p_max_schedule_id=1, entry_details=[PMaxScheduleEntryDetails(p_max=0, time_interval=interval)]
    )
    entry = SAScheduleTupleEntry(sa_schedule_tuple_id=1, p_max_schedule=schedule, sales_tariff=None)
    table[DinChargeParameterDiscoveryReq].sa_schedule_list = SAScheduleList(values=[entry])


def _complete_2(table: dict[Any, Any]) -> None:
    status = DCEVSEStatus(
        evse_notification=EVSENotification.STOP_CHARGING,
        notification_max_delay=0,
        evse_status_code=DCEVSEStatusCode.EVSE_SHUTDOWN,
    )
    table[MeteringReceiptReq] = MeteringReceiptRes(response_code=ResponseCode.FAILED, dc_evse_status=status)
    chains: dict[str, Any] = {
        "response_code": ResponseCode.FAILED,
        "cps_cert_chain": CertificateChain(certificate=bytes(1)),
        "contract_cert_chain": CertificateChain(id="id1", certificate=bytes(1)),
        "encrypted_private_key": EncryptedPrivateKey(id="id2", value=bytes(1)),
        "dh_public_key": DHPublicKey(id="id3", value=bytes(1)),
        "emaid": EMAID(id="id4", value="ZZZZZZZZZZZZZZ"),
    }
    table[CertificateInstallationReq] = CertificateInstallationRes(**chains)
    table[CertificateUpdateReq] = CertificateUpdateRes(**chains)


def _complete_20(table: dict[Any, Any]) -> None:
    table[common.ServiceDetailReq][0].service_parameter_list.parameter_sets[:] = [
        common.ParameterSet(id=0, parameters=[common.Parameter(name="none", int_value=0)])
    ]
    table[common.ScheduleExchangeReq][0].dynamic_params.price_level_schedule = None
