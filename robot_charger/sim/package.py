"""The iso15118 package under the simulated vehicle: its process-wide settings and its codec, in one place.

The package keeps settings in module globals, reads ``.env`` from the working directory and reconfigures the root
logger when it is imported; here that happens once and is undone. A station does not need it (extra ``sim``).
"""

from __future__ import annotations

import logging
import warnings

from robot_charger.v2g.quiet import quiet_import

__all__ = ["prepare", "quiet_import", "use_codec"]

_PACKAGE_LOGGERS = ("iso15118", "py4j")


def prepare(pki: str = "") -> None:
    """Import and set up the package: no message logging, its loggers silent, the root logger as it was.

    Its error texts quote whole messages, which may name a person. ``pki``: directory of certificates for Plug and
    Charge, empty = none.
    """
    with quiet_import():
        from iso15118.shared.settings import SettingKey, shared_settings

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


def use_codec() -> None:
    """Our EXI codec in the place of the package's, once a process."""
    from iso15118.shared.exi_codec import EXI

    if EXI().exi_codec is None:
        from robot_charger.sim.exi_adapter import ExiCodec

        EXI().set_exi_codec(ExiCodec())
