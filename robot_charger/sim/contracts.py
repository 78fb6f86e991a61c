"""A mobility operator and its provisioning service in one: answers vehicles that want a contract certificate.

It stands where a CSMS asks for the answer to Get15118EVCertificate: EXI in, EXI out. ``directory`` is the ``operator``
directory of a test PKI (``robot-charger pki``).
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from iso15118.shared.exi_codec import EXI
from iso15118.shared.messages.enums import Namespace
from iso15118.shared.messages.iso15118_2.body import Body, CertificateInstallationRes, CertificateUpdateRes
from iso15118.shared.messages.iso15118_2.datatypes import (
    EMAID,
    CertificateChain,
    DHPublicKey,
    EncryptedPrivateKey,
    ResponseCode,
    SubCertificates,
)
from iso15118.shared.messages.iso15118_2.header import MessageHeader
from iso15118.shared.messages.iso15118_2.msgdef import V2GMessage
from iso15118.shared.security import create_signature, encrypt_priv_key

from robot_charger.sim import package
from robot_charger.v2g import pki


def exi(part: Any) -> bytes:
    return EXI().to_exi(part, Namespace.ISO_V2_MSG_DEF)


def signed_parts(answer: Any) -> list[tuple[str, bytes]]:
    """What the provisioning service signs of an answer (ISO 15118-2 8.4.3.11.3): id and EXI of each part."""
    parts = (answer.contract_cert_chain, answer.encrypted_private_key, answer.dh_public_key, answer.emaid)
    return [(part.id, exi(part)) for part in parts]


def answer(request: bytes, directory: Path, code: ResponseCode = ResponseCode.OK) -> bytes:
    """CertificateInstallationRes or -UpdateRes [EXI] to a vehicle's request [EXI], with a fresh contract.

    An update keeps the account. ``code``: what the answer says of itself. Raises when the request is none.
    """
    package.use_codec()
    asked = EXI().from_exi(request, Namespace.ISO_V2_MSG_DEF)
    update = asked.body.certificate_update_req
    readable_by = (
        update.contract_cert_chain.certificate
        if update
        else asked.body.certificate_installation_req.oem_provisioning_cert
    )
    account = update.emaid if update else pki.CONTRACT
    contract, key = pki.new_contract(directory, account)
    public, encrypted = encrypt_priv_key(readable_by, key)
    made = (CertificateUpdateRes if update else CertificateInstallationRes)(
        response_code=code,
        cps_cert_chain=CertificateChain(
            certificate=_der(directory, "cpsLeaf"), sub_certificates=_subs(directory, "cpsSubCA2", "cpsSubCA1")
        ),
        contract_cert_chain=CertificateChain(
            id="id1",
            certificate=contract.public_bytes(serialization.Encoding.DER),
            sub_certificates=_subs(directory, "moSubCA2", "moSubCA1"),
        ),
        encrypted_private_key=EncryptedPrivateKey(id="id2", value=encrypted),
        dh_public_key=DHPublicKey(id="id3", value=public),
        emaid=EMAID(id="id4", value=account),
    )
    path = directory / pki.ISO_2 / "private_keys" / "cpsLeaf.key"
    signing = serialization.load_pem_private_key(path.read_bytes(), None)
    signature = create_signature(signed_parts(made), signing)
    header = MessageHeader(session_id=asked.header.session_id, signature=signature)
    return exi(V2GMessage(header=header, body=Body.parse_obj({str(made): made.dict()})))


def ocpp(payload: dict[str, Any], directory: Path) -> dict[str, Any]:
    """Get15118EVCertificateResponse of OCPP 2.0.1 to a request, whatever stands in it."""
    try:
        made = answer(base64.b64decode(payload["exiRequest"]), directory)
    except Exception as error:  # of the codec, the package, the certificates
        return {"status": "Failed", "exiResponse": "", "statusInfo": {"reasonCode": type(error).__name__[:20]}}
    return {"status": "Accepted", "exiResponse": base64.b64encode(made).decode()}


def _der(directory: Path, name: str) -> bytes:
    return (directory / pki.ISO_2 / "certs" / f"{name}Cert.der").read_bytes()


def _subs(directory: Path, *names: str) -> SubCertificates:
    return SubCertificates(certificates=[_der(directory, name) for name in names])
