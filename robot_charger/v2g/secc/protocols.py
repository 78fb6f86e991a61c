"""The protocols that this station speaks, and the namespaces by which a vehicle asks for them."""

from __future__ import annotations

from robot_charger.v2g.exi import NAMESPACES
from robot_charger.v2g.secc import acdp, din, iso2, iso20
from robot_charger.v2g.secc.machine import Machine
from robot_charger.v2g.secc.table import Settings

DIALECTS = {dialect.name: dialect for dialect in (din.DIALECT, iso2.DIALECT, iso20.DIALECT)}
DEVICE = {acdp.DIALECT.name: acdp.DIALECT}  # at an automated connection device nothing else is spoken
# (ProtocolNamespace, VersionNumberMajor) of supportedAppProtocolReq -> protocol
OFFERS = {
    (NAMESPACES["din70121"], 2): "din70121",
    (NAMESPACES["iso15118_2"], 2): "iso15118-2",
    (NAMESPACES["iso15118_20_dc"], 1): "iso15118-20",
}
DEVICE_OFFERS = {(NAMESPACES["iso15118_20_acdp"], 1): "iso15118-20"}


def machine(settings: Settings) -> Machine:
    """The station's side of one connection."""
    offers = DEVICE_OFFERS if settings.device else OFFERS
    dialects = DEVICE if settings.device else DIALECTS
    return Machine(settings, dialects, lambda namespace, major: offers.get((namespace, major), ""))


def warm() -> None:
    """Load every grammar that a session may need, so that the first vehicle does not wait for it."""
    from robot_charger.v2g.exi.codec import grammar

    for schema in ("app_protocol", "din70121", "iso15118_2", *sorted(set(iso20.SCHEMAS.values())), "xmldsig"):
        grammar(schema)
