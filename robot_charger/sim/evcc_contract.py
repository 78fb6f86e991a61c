"""The simulated vehicle asks for a contract certificate (ISO 15118-2, 8.4.3.10 and 8.4.3.11), checks and keeps it.

The package's EVCC knows the installation, keeps no sub-CAs and no update. These two states take the place of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from iso15118.evcc.states import iso15118_2_states
from iso15118.evcc.states.evcc_state import StateEVCC
from iso15118.shared.messages.enums import AuthEnum, Namespace, Protocol
from iso15118.shared.messages.iso15118_2.body import (
    CertificateInstallationRes,
    CertificateUpdateReq,
    CertificateUpdateRes,
    PaymentDetailsReq,
)
from iso15118.shared.messages.iso15118_2.datatypes import (
    CertificateChain,
    RootCertificateIDList,
    SubCertificates,
)
from iso15118.shared.messages.iso15118_2.timeouts import Timeouts
from iso15118.shared.messages.xmldsig import X509IssuerSerial
from iso15118.shared.security import (
    CertPath,
    KeyEncoding,
    KeyPasswordPath,
    KeyPath,
    create_signature,
    decrypt_priv_key,
    get_cert_cn,
    get_cert_issuer_serial,
    load_cert,
    load_cert_chain,
    load_priv_key,
    to_ec_pub_key,
    verify_signature,
)

from robot_charger.sim.contracts import exi, signed_parts
from robot_charger.v2g import pki


def contract_key() -> ec.EllipticCurvePrivateKey:
    return load_priv_key(KeyPath.CONTRACT_LEAF_PEM, KeyEncoding.PEM, KeyPasswordPath.CONTRACT_LEAF_KEY_PASSWORD)


def oem_key() -> ec.EllipticCurvePrivateKey:
    return load_priv_key(KeyPath.OEM_LEAF_PEM, KeyEncoding.PEM, KeyPasswordPath.OEM_LEAF_KEY_PASSWORD)


def update_request() -> CertificateUpdateReq:
    """With the contract that the vehicle has, and the root it trusts."""
    issuer, serial = get_cert_issuer_serial(CertPath.V2G_ROOT_DER)
    chain = load_cert_chain(
        protocol=Protocol.ISO_15118_2,
        leaf_path=CertPath.CONTRACT_LEAF_DER,
        sub_ca2_path=CertPath.MO_SUB_CA2_DER,
        sub_ca1_path=CertPath.MO_SUB_CA1_DER,
    )
    return CertificateUpdateReq(
        id="id1",
        contract_cert_chain=chain,
        emaid=get_cert_cn(chain.certificate),
        list_of_root_cert_ids=RootCertificateIDList(
            x509_issuer_serials=[X509IssuerSerial(x509_issuer_name=issuer, x509_serial_number=serial)]
        ),
    )


def store(directory: Path, chain: CertificateChain, key: ec.EllipticCurvePrivateKey) -> None:
    """Keep a contract in the vehicle's directory of certificates. Raises ValueError when key and certificate differ."""
    leaf = x509.load_der_x509_certificate(chain.certificate)
    if leaf.public_key() != key.public_key():
        raise ValueError("the contract's key is another than its certificate's")
    certs = directory / pki.ISO_2 / "certs"
    names = ("contractLeaf", "moSubCA2", "moSubCA1")
    for name, data in zip(names, (chain.certificate, *chain.sub_certificates.certificates), strict=False):
        (certs / f"{name}Cert.der").write_bytes(data)
    keys = directory / pki.ISO_2 / "private_keys"
    path = keys / "contractLeaf.key"
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    (keys / "contractLeafPassword.txt").touch(mode=0o600)


class _PaymentServiceSelection(iso15118_2_states.PaymentServiceSelection):
    """The package's state, which asks for an update where the vehicle wants one."""

    async def process_message(self, message: Any, message_exi: bytes = b"") -> None:
        session: Any = self.comm_session
        wants = session.options.certificate == "update" and session.selected_auth_option == AuthEnum.PNC_V2
        if not wants or str(message) != "PaymentServiceSelectionRes":
            await super().process_message(message, message_exi)
            return
        request = update_request()
        self.create_next_message(
            iso15118_2_states.CertificateInstallation,
            request,
            Timeouts.CERTIFICATE_UPDATE_REQ,
            Namespace.ISO_V2_MSG_DEF,
            signature=create_signature([(request.id, exi(request))], contract_key()),
        )


class _CertificateInstallation(StateEVCC):
    """Takes the answer to either request: signed under the V2G root, with a key that only this vehicle can read."""

    def __init__(self, comm_session: Any) -> None:
        super().__init__(comm_session, Timeouts.CERTIFICATE_INSTALLATION_REQ)

    async def process_message(self, message: Any, message_exi: bytes = b"") -> None:
        session: Any = self.comm_session
        update = session.options.certificate == "update"
        answer = message.body.get_message()
        session.certificate = answer.response_code.value
        if not self.check_msg_v2(message, CertificateUpdateRes if update else CertificateInstallationRes):
            return
        signer = answer.cps_cert_chain
        if not verify_signature(
            message.header.signature,
            signed_parts(answer),
            signer.certificate,
            signer.sub_certificates.certificates,
            load_cert(CertPath.V2G_ROOT_DER),
        ):
            self.stop_state_machine("the signature of the contract certificate is wrong")
            return
        own_key = contract_key() if update else oem_key()
        public = to_ec_pub_key(answer.dh_public_key.value)
        number = decrypt_priv_key(answer.encrypted_private_key.value, own_key, public)
        key = ec.derive_private_key(int.from_bytes(number, "big"), ec.SECP256R1())
        store(Path(session.options.pki), answer.contract_cert_chain, key)
        chain = answer.contract_cert_chain
        request = PaymentDetailsReq(
            emaid=get_cert_cn(chain.certificate),
            cert_chain=CertificateChain(
                certificate=chain.certificate,
                sub_certificates=SubCertificates(certificates=chain.sub_certificates.certificates),
            ),
        )
        self.create_next_message(
            iso15118_2_states.PaymentDetails, request, Timeouts.PAYMENT_DETAILS_REQ, Namespace.ISO_V2_MSG_DEF
        )


for _state in (_PaymentServiceSelection, _CertificateInstallation):
    _state.__name__ = _state.__name__.strip("_")
    setattr(iso15118_2_states, _state.__name__, _state)
