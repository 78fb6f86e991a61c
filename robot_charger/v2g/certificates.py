"""Contract certificates for vehicles (ISO 15118-2, 8.4.3.10 and 8.4.3.11), beside the iso15118 package.

A vehicle without a contract sends CertificateInstallationReq, one whose contract ends soon CertificateUpdateReq. The
station checks the request's signature and hands its EXI to the back end; the back end's EXI is the answer, byte for
byte. The package knows the installation alone, builds its answer from keys that no station has, and crashes on a
request without a signature; so its state is replaced, and the states before it learn of the update.
"""

from __future__ import annotations

import base64
import datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from iso15118.secc.states import iso15118_2_states, secc_state
from iso15118.secc.states.secc_state import StateSECC
from iso15118.shared.exi_codec import EXI
from iso15118.shared.messages.enums import AuthEnum, Namespace
from iso15118.shared.messages.iso15118_2.body import (
    CertificateInstallationReq,
    CertificateUpdateReq,
    ServiceDetailRes,
)
from iso15118.shared.messages.iso15118_2.datatypes import (
    Parameter,
    ParameterSet,
    ResponseCode,
    ServiceID,
)
from iso15118.shared.messages.timeouts import Timeouts
from iso15118.shared.notifications import StopNotification
from iso15118.shared.security import verify_signature
from iso15118.shared.states import Base64, Terminate

from robot_charger.common.faults import Code
from robot_charger.v2g import pki
from robot_charger.v2g.controller import Refusal

REQUESTS = frozenset({"CertificateInstallationReq", "CertificateUpdateReq"})
SERVICES = ((1, "Installation"), (2, "Update"))  # parameter sets of the Certificate service (table 105)


class Fault(ValueError):
    """The vehicle's request, or the back end's answer, is refused; ``code`` is what the vehicle is told."""

    def __init__(self, code: ResponseCode, text: str) -> None:
        super().__init__(text)
        self.code = code


def check_request(message: Any, directory: Path) -> None:
    """A request is signed by the certificate in it, which is valid now. Raises Fault.

    An update is signed with the old contract, whose chain must lead to a root of the station's ``directory``. Who
    made a provisioning certificate the back end knows: the request carries no chain of it.
    """
    install, update = message.body.certificate_installation_req, message.body.certificate_update_req
    request = update or install
    leaf: bytes = update.contract_cert_chain.certificate if update else install.oem_provisioning_cert
    try:
        subs = update.contract_cert_chain.sub_certificates if update else None
        chain = [x509.load_der_x509_certificate(der) for der in (leaf, *(subs.certificates if subs else ()))]
        signed = message.header.signature is not None and verify_signature(
            message.header.signature, [(request.id, EXI().to_exi(request, Namespace.ISO_V2_MSG_DEF))], leaf
        )
    except Exception as error:  # bytes that are no certificate, a key of another kind, a signature of no numbers
        raise Fault(ResponseCode.FAILED_SIGNATURE_ERROR, f"{request}: {type(error).__name__}") from error
    if not signed:
        raise Fault(ResponseCode.FAILED_SIGNATURE_ERROR, f"the signature of {request} is wrong or missing")
    if update:
        pem = b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in chain)
        try:
            pki.check_contract(pem, update.emaid, directory)
        except pki.PkiError as error:
            expired = "expired" in str(error)
            code = ResponseCode.FAILED_CERTIFICATE_EXPIRED if expired else ResponseCode.FAILED_CERT_CHAIN_ERROR
            raise Fault(code, str(error)) from error
    now = datetime.datetime.now(datetime.timezone.utc)
    if not chain[0].not_valid_before_utc <= now <= chain[0].not_valid_after_utc:
        raise Fault(ResponseCode.FAILED_CERTIFICATE_EXPIRED, f"the certificate in {request} is not valid now")


def read_answer(exi: bytes, update: bool, session_id: str) -> Any:
    """The back end's answer decoded. Raises Fault when a vehicle could not use it."""
    none = ResponseCode.FAILED_NO_CERTIFICATE_AVAILABLE
    try:
        message = EXI().from_exi(exi, Namespace.ISO_V2_MSG_DEF)
    except Exception as error:  # the package's, the codec's or pydantic's
        raise Fault(none, "the back end's answer could not be decoded") from error
    wanted = "CertificateUpdateRes" if update else "CertificateInstallationRes"
    if str(message) != wanted:
        raise Fault(none, f"the back end answered with {message}, not {wanted}")
    if message.header.session_id != session_id:
        raise Fault(none, "the back end's answer belongs to another session")
    return message


class _ServiceDetail(iso15118_2_states.ServiceDetail):
    """The package's state, which offers the update beside the installation."""

    def create_next_message(self, next_state: Any, next_msg: Any, *rest: Any, **named: Any) -> None:
        told = next_msg.service_parameter_list if isinstance(next_msg, ServiceDetailRes) else None
        if told is not None and next_msg.service_id == ServiceID.CERTIFICATE:
            told.parameter_set[:] = [
                ParameterSet(parameter_set_id=number, parameters=[Parameter(name="Service", str_value=name)])
                for number, name in SERVICES
            ]
        super().create_next_message(next_state, next_msg, *rest, **named)


class _PaymentServiceSelection(iso15118_2_states.PaymentServiceSelection):
    """The package's state, after which an update may come too."""

    async def process_message(self, message: Any, message_exi: bytes = b"") -> None:
        if str(message) in REQUESTS and not self.expecting_service_selection_req:
            await _CertificateInstallation(self.comm_session).process_message(message, message_exi)
            return
        await super().process_message(message, message_exi)


class _CertificateInstallation(StateSECC):
    """Installation and update: checked, asked of the back end, answered."""

    def __init__(self, comm_session: Any) -> None:
        super().__init__(comm_session, Timeouts.V2G_SECC_SEQUENCE_TIMEOUT)

    async def process_message(self, message: Any, message_exi: bytes = b"") -> None:
        session: Any = self.comm_session
        if not self.check_msg_v2(message, [CertificateInstallationReq, CertificateUpdateReq], False):
            return
        offered = any(service.service_id == ServiceID.CERTIFICATE for service in session.offered_services)
        if not offered or session.selected_auth_option != AuthEnum.PNC_V2:
            reason = f"{message} not accepted in state PaymentServiceSelection: the service was not chosen"
            self.stop_state_machine(reason, message, ResponseCode.FAILED_SEQUENCE_ERROR)
            return
        update = message.body.certificate_update_req is not None
        controller = session.controller
        try:
            check_request(message, Path(controller.parameters.tls__directory))
            answer = await controller.ask_contract(update, message_exi)
            decoded = read_answer(answer, update, session.session_id)
        except (Fault, Refusal) as error:
            controller.refuse(Code.AUTHORIZATION, f"no contract certificate for the vehicle: {error}"[:200])
            code = error.code if isinstance(error, Fault) else ResponseCode.FAILED_NO_CERTIFICATE_AVAILABLE
            self.stop_state_machine(str(error), message, code)
            return
        body = decoded.body.get_message()
        next_state: Any = iso15118_2_states.PaymentDetails
        if body.response_code.value.startswith("FAILED"):
            text = f"no contract certificate for the vehicle: the back end said {body.response_code.value}"
            controller.refuse(Code.AUTHORIZATION, text)
            session.stop_reason = StopNotification(False, text, "")
            next_state = Terminate
        passed = Base64(base64.b64encode(answer).decode(), str(decoded), Namespace.ISO_V2_MSG_DEF)
        self.create_next_message(next_state, passed, Timeouts.V2G_SECC_SEQUENCE_TIMEOUT, Namespace.ISO_V2_MSG_DEF)
        self.message = decoded  # for the record


# In the place of the package's, whose states name each other as globals of their module.
for _state in (_ServiceDetail, _PaymentServiceSelection, _CertificateInstallation):
    _state.__name__ = _state.__name__.strip("_")
    setattr(iso15118_2_states, _state.__name__, _state)

_known = secc_state.get_msg_type
secc_state.get_msg_type = lambda name: CertificateUpdateReq if name == "CertificateUpdateReq" else _known(name)
