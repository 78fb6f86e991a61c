"""The border for service requests: which cannot be, and how a refusal is answered.

A function for each service whose request can be impossible within its types. It raises RefusedError.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from robot_charger.words.border import RefusedError
from robot_charger.words.values import AuthorizeStatus, CertificateAction

MOST_EXI = 65_536  # [bytes] longest request of a vehicle that is passed on
MOST_PEM = 65_536


def authorize(request: Any) -> None:
    """srv/Authorize: an EVSE and a token."""
    if not request.evse:
        raise RefusedError("evse", "= 0 names no EVSE: from 1")
    if not request.id_token:
        raise RefusedError("id_token", "is empty")
    if len(request.contract_certificate) > MOST_PEM:
        raise RefusedError("contract_certificate", f"has {len(request.contract_certificate)} characters")


def vehicle_certificate(request: Any) -> None:
    """srv/VehicleCertificate: a known action and a request of sane length."""
    if request.action not in {int(a) for a in CertificateAction}:
        raise RefusedError("action", f"= {request.action} is unknown: 1 or 2")
    if not 0 < len(request.request) <= MOST_EXI:
        raise RefusedError("request", f"has {len(request.request)} bytes: 1 to {MOST_EXI}")


def certificate_status(request: Any) -> None:
    """srv/CertificateStatus: two certificates as PEM."""
    if not 0 < len(request.certificates) <= MOST_PEM:
        raise RefusedError("certificates", f"has {len(request.certificates)} characters: 1 to {MOST_PEM}")


CHECKS: dict[str, Callable[[Any], None]] = {
    "Authorize": authorize,
    "VehicleCertificate": vehicle_certificate,
    "CertificateStatus": certificate_status,
}


def refuse(response: Any, why: str) -> Any:
    """Fill in a response that refuses: every field that is not named here keeps its default."""
    if hasattr(response, "status"):
        response.status, response.reason = int(AuthorizeStatus.REFUSED), "Invalid"
    if hasattr(response, "text"):
        response.text = why[:200]
    return response
