"""Plug and Charge over OCPP 1.6 (OCA application note "Using ISO 15118 Plug & Charge with OCPP 1.6"): messages of 2.0.1
as JSON inside DataTransfer, vendor org.openchargealliance.iso15118pnc. Done where ISO15118PnCEnabled is set."""

from __future__ import annotations

import json
from typing import Any

from jsonschema import ValidationError
from ocpp.messages import get_validator

from robot_charger.backend import lenient
from robot_charger.backend.maintenance import Maintenance
from robot_charger.backend.plug_and_charge import PlugAndCharge, UnansweredError
from robot_charger.backend.records import Call, Payload, Token, TokenInfo

VENDOR = "org.openchargealliance.iso15118pnc"


def wrapped(call: Call) -> Call:
    """A message of 2.0.1 inside DataTransfer."""
    action, payload = call
    return "DataTransfer", {"vendorId": VENDOR, "messageId": action, "data": json.dumps(payload)}


def unwrapped(action: str, answer: Payload) -> Payload:
    """What the CSMS answered inside DataTransfer, read leniently. Raises UnansweredError."""
    if answer.get("status") != "Accepted":
        raise UnansweredError(f"the CSMS answers {action} with {answer.get('status', 'no status')}")
    try:
        payload: Any = json.loads(answer.get("data", ""))
    except ValueError as error:
        raise UnansweredError(f"the CSMS's answer to {action} is no JSON") from error
    return lenient.read(action, "2.0.1", payload)[0]


class PlugAndCharge16(PlugAndCharge):
    """The same payloads in their wrapping. Answers name no action: the shape of their data does."""

    def vehicle_certificate(self, schema: str, update: bool, request: bytes) -> Call:
        return wrapped(super().vehicle_certificate(schema, update, request))

    def certificate_status(self, pem: str) -> Call:  # type: ignore[override]
        return wrapped(PlugAndCharge.certificate_status(pem))

    def authorize(self, token: Token, pem: str) -> Call:
        """Raises CertificateError when the contract is no PEM chain."""
        return wrapped(("Authorize", {"idToken": token.id, **self.contract(pem)}))

    @staticmethod
    def read(answer: Payload) -> bytes:
        """Raises UnansweredError."""
        action = "GetCertificateStatus" if "ocspResult" in str(answer.get("data")) else "Get15118EVCertificate"
        return PlugAndCharge.read(unwrapped(action, answer))

    @staticmethod
    def read_authorize(answer: Payload) -> TokenInfo:
        """A contract is accepted only where both its certificate and its token are."""
        try:
            inner = unwrapped("Authorize", answer)
        except UnansweredError:
            return TokenInfo("Invalid")
        info = inner.get("idTokenInfo", {})
        status = info.get("status", "Invalid")
        if inner.get("certificateStatus", "Accepted") != "Accepted":
            status = "Invalid"
        return TokenInfo(status, info.get("groupIdToken", {}).get("idToken", ""), info.get("cacheExpiryDateTime", ""))


def answer(care: Maintenance, payload: Payload) -> Payload:
    """The CSMS's own requests of this vendor: DataTransfer.conf."""
    action = payload.get("messageId")
    try:
        wanted: Any = json.loads(payload.get("data", "{}"))
        found = _answer(care, str(action), wanted)
    except (ValueError, ValidationError):
        return {"status": "Rejected"}
    return {"status": "UnknownMessageId"} if found is None else {"status": "Accepted", "data": json.dumps(found)}


def _answer(care: Maintenance, action: str, wanted: Payload) -> Payload | None:
    """Raises ValidationError for a request that breaks the schema of 2.0.1."""
    if action not in ("InstallCertificate", "DeleteCertificate", "GetInstalledCertificateIds"):
        return None
    get_validator(2, action, "2.0.1").validate(wanted)
    if action == "InstallCertificate":
        return {"status": care.install_certificate(str(wanted["certificateType"]), str(wanted["certificate"]))}
    if action == "DeleteCertificate":
        return {"status": care.delete_certificate(wanted["certificateHashData"])}
    found = care.certificates.installed(wanted.get("certificateType"))
    if not found:
        return {"status": "NotFound"}
    chain = [{"certificateType": kind, "certificateHashData": data} for kind, data in found]
    return {"status": "Accepted", "certificateHashDataChain": chain}
