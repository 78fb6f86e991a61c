"""The EXI codec under the iso15118 package, and the package's process-wide settings, in one place.

The package keeps settings in module globals, reads ``.env`` from the working directory and reconfigures the root
logger when it is imported; here that happens once and is undone.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import Any

_PACKAGE_LOGGERS = ("iso15118", "py4j")


def exi_codec() -> Any:
    """A codec for ``EXI().set_exi_codec``."""
    from robot_charger.v2g.exi.adapter import ExiCodec

    return ExiCodec()


@contextlib.contextmanager
def quiet_import() -> Iterator[None]:
    """For the import of a package that reconfigures logging: the root logger and disabled loggers stay as they were."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    disabled = [logger for logger in _loggers() if logger.disabled]
    try:
        yield
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers
        for logger in disabled:
            logger.disabled = True


def _loggers() -> list[logging.Logger]:
    return [logger for logger in logging.root.manager.loggerDict.values() if isinstance(logger, logging.Logger)]


def prepare(pki: str = "") -> None:
    """Import and set up the package: no message logging, its loggers silent, the root logger as it was.

    Its error texts quote whole messages, which may name a person: the session reports what went wrong instead.
    ``pki``: directory of certificates for Plug and Charge, empty = none.
    """
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    from iso15118.shared.settings import SettingKey, shared_settings

    root.setLevel(level)
    root.handlers[:] = handlers
    warnings.filterwarnings("ignore", module=r"iso15118\.")
    for name in _PACKAGE_LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    shared_settings.update(
        {
            SettingKey.PKI_PATH: pki.rstrip("/") + "/" if pki else "/nonexistent/",
            SettingKey.MESSAGE_LOG_JSON: False,
            SettingKey.MESSAGE_LOG_EXI: False,
            SettingKey.ENABLE_TLS_1_3: False,
        }
    )
    from iso15118.shared.messages.iso15118_2.body import CertificateUpdateReq, PaymentDetailsReq

    # Its eMAID is plain text there (V2G_CI_MsgBody.xsd), not signed and without an id, as the package has it.
    CertificateUpdateReq.__fields__["emaid"] = PaymentDetailsReq.__fields__["emaid"]


def warm() -> None:
    """Encode and decode once what a charge loop needs, so that the first vehicle does not wait for it."""
    from iso15118.shared.exi_codec import EXI
    from iso15118.shared.messages.app_protocol import (
        AppProtocol,
        ResponseCodeSAP,
        SupportedAppProtocolReq,
        SupportedAppProtocolRes,
    )
    from iso15118.shared.messages.enums import Namespace

    entry = AppProtocol(protocol_ns=Namespace.ISO_V2_MSG_DEF, major_version=2, minor_version=0, schema_id=1, priority=1)
    for sample in (
        SupportedAppProtocolReq(app_protocol=[entry]),
        SupportedAppProtocolRes(response_code=ResponseCodeSAP.NEGOTIATION_OK, schema_id=1),
    ):
        EXI().from_exi(EXI().to_exi(sample, Namespace.SAP), Namespace.SAP)
    from robot_charger.v2g.samples import charge_loop

    for sample, namespace in charge_loop():
        EXI().from_exi(EXI().to_exi(sample, namespace), namespace)
