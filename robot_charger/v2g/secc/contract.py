"""Contracts of ISO 15118-2: Plug and Charge, metering receipts, installation and update of contract certificates.

A contract's chain must lead to the root of the mobility operators that the station knows, be valid now and name the
account that the vehicle claims (8.4.3.6). A vehicle without a contract sends CertificateInstallationReq, one whose
contract ends soon CertificateUpdateReq (8.4.3.10, 8.4.3.11): the station checks the signature and hands the request to
the back end as it came; the back end's message is the answer, byte for byte.

``chains.py`` and ``signature.py`` are imported with the first contract: ``cryptography`` takes 10 MB, which a station
without Plug and Charge saves.
"""

from __future__ import annotations

import base64

from robot_charger.common.faults import Code
from robot_charger.v2g.exi import ExiError, decode
from robot_charger.v2g.secc.table import Answer, Ask, Refused, Talk, Tree, Wait

CONTRACT_WAIT_S = 4.5  # table 109: below the vehicle's 5 s for CertificateInstallationRes and -UpdateRes
EXPIRED = "FAILED_CertificateExpired"
CHAIN = "FAILED_CertChainError"
SIGNATURE = "FAILED_SignatureError"
NO_CERTIFICATE = "FAILED_NoCertificateAvailable"
SERVICE: Tree = {
    "ServiceID": 2,
    "ServiceName": "Certificate",
    "ServiceCategory": "ContractCertificate",
    "FreeService": True,
}
PARAMETER_LIST: Tree = {  # table 105
    "ParameterSet": [
        {"ParameterSetID": 1, "Parameter": [{"Name": "Service", "stringValue": "Installation"}]},
        {"ParameterSetID": 2, "Parameter": [{"Name": "Service", "stringValue": "Update"}]},
    ]
}


class ContractError(ValueError):
    """A certificate is refused; ``code`` is the response code."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class SignatureError(ValueError):
    """The signature is missing or wrong; the text says which."""


def octets(value: str | bytes) -> bytes:
    """A base64Binary of a decoded message. Raises ValueError."""
    return value if isinstance(value, bytes) else base64.b64decode(value, validate=True)


def offered(talk: Talk) -> bool:
    """The station offers to install and update contract certificates."""
    return talk.settings.pnc and talk.settings.contract_installation


# Plug and Charge.
def accept(talk: Talk, account: str, chain: Tree) -> None:
    """PaymentDetailsReq: the contract counts from now on. Raises Refused."""
    from robot_charger.v2g.secc import chains

    try:
        found = chains.read(chain)
        chains.check(found, talk.settings.operator_root, account, talk.now)
    except ContractError as error:
        raise Refused(error.code, Code.AUTHORIZATION, f"contract certificate refused: {error}") from error
    talk.facts |= {"contract": found[0], "proven": False}
    talk.say(contract=True, identity=account)


def prove(talk: Talk, body: Tree) -> None:
    """AuthorizationReq: the vehicle has the contract's key. Only the first request is signed ([V2G2-684])."""
    if talk.facts["proven"]:
        return
    if body.get("GenChallenge") is None or octets(body["GenChallenge"]) != talk.facts["challenge"]:
        text = "contract certificate refused: the vehicle did not return the challenge"
        raise Refused("FAILED_ChallengeInvalid", Code.AUTHORIZATION, text)
    try:
        _check_signature(talk, body)
    except SignatureError as error:
        raise Refused(SIGNATURE, Code.AUTHORIZATION, f"contract certificate refused: {error}") from error
    talk.facts["proven"] = True


def _check_signature(talk: Talk, body: Tree) -> None:
    from robot_charger.v2g.secc import signature

    assert talk.heard is not None
    signature.check(talk.heard.header.get("Signature"), talk.heard.name, body, talk.facts["contract"].public_key())


# Metering receipts (8.4.3.13).
def receipt_due(talk: Talk) -> bool:
    """The vehicle shall sign the meter's reading: Plug and Charge, every ``receipt_s``."""
    every_s = talk.settings.receipt_s
    if not every_s or not talk.facts.get("contract") or talk.now.after_s(talk.facts["receipt_ns"]) < every_s:
        return False
    talk.facts["receipt_ns"] = talk.now.ns
    return True


def check_receipt(talk: Talk, body: Tree) -> None:
    """MeteringReceiptReq: signed, and a copy of the reading that was sent. Raises Refused."""
    sent, copy = talk.facts["meter"], body["MeterInfo"]
    why = ""
    if copy.get("MeterReading") != sent["MeterReading"] or copy["MeterID"] != sent["MeterID"]:
        why = "it is no copy of the meter's reading"
    else:
        try:
            _check_signature(talk, body)
        except SignatureError as error:
            why = str(error)
    if why:
        code = "FAILED_MeteringSignatureNotValid"
        raise Refused(code, Code.AUTHORIZATION, f"metering receipt refused: {why}")


# Certificates for vehicles.
def install(talk: Talk, body: Tree) -> Wait:
    """CertificateInstallationReq. Who made the provisioning certificate the back end has to know: there is no chain."""
    return _ask(talk, body, update=False)


def update(talk: Talk, body: Tree) -> Wait:
    """CertificateUpdateReq: signed with the old contract."""
    return _ask(talk, body, update=True)


def _ask(talk: Talk, body: Tree, update: bool) -> Wait:
    assert talk.heard is not None
    name = talk.heard.name
    try:
        _check_request(talk, name, body, update)
    except ContractError as error:
        raise _refused(error.code, str(error)) from error
    talk.answered = None
    until = talk.now.ns + round(CONTRACT_WAIT_S * 1e9)
    ask = Ask(update, talk.heard.exi)
    return Wait(lambda later: later.answered is not None, until, lambda later: _pass_on(later, name), ask)


def _check_request(talk: Talk, name: str, body: Tree, update: bool) -> None:
    """Signed by the certificate in it, which is valid now. Raises ContractError."""
    from robot_charger.v2g.secc import chains, signature

    assert talk.heard is not None
    try:
        chain = body["ContractSignatureCertChain"] if update else {"Certificate": body["OEMProvisioningCert"]}
        found = chains.read(chain)
        signature.check(talk.heard.header.get("Signature"), name, body, found[0].public_key())
    except (ContractError, SignatureError) as error:
        raise ContractError(SIGNATURE, f"the signature of {name} is refused: {error}") from error
    if update:
        chains.check(found, talk.settings.operator_root, body["eMAID"], talk.now)
    elif not chains.valid(found[0], talk.now):
        raise ContractError(EXPIRED, f"the certificate in {name} is not valid now")


def _pass_on(talk: Talk, request: str) -> Answer:
    """The back end's message is the answer, if a vehicle can use it."""
    exi, text = talk.answered or (b"", f"the back end did not answer in {CONTRACT_WAIT_S:g} s")
    if not exi:
        raise _refused(NO_CERTIFICATE, text or "the back end refused")
    try:
        message = decode(exi, "iso15118_2")["V2G_Message"]
    except (ExiError, KeyError) as error:
        raise _refused(NO_CERTIFICATE, "the back end's answer could not be decoded") from error
    wanted = request.replace("Req", "Res")
    name = next(iter(message["Body"]), "nothing")
    if name != wanted:
        raise _refused(NO_CERTIFICATE, f"the back end answered with {name}, not {wanted}")
    if message["Header"]["SessionID"] != talk.session_id:
        raise _refused(NO_CERTIFICATE, "the back end's answer belongs to another session")
    code = message["Body"][name]["ResponseCode"]
    if code.startswith("FAILED"):
        raise _refused(code, f"the back end said {code}", exi)
    return Answer({}, exi=exi)


def _refused(code: str, text: str, exi: bytes = b"") -> Refused:
    return Refused(code, Code.AUTHORIZATION, f"no contract certificate for the vehicle: {text}"[:200], exi=exi)
