"""The protocols that this station speaks, and the namespaces by which a vehicle asks for them."""

from __future__ import annotations

from robot_charger.v2g.exi import NAMESPACES
from robot_charger.v2g.secc import din, iso2
from robot_charger.v2g.secc.machine import Machine
from robot_charger.v2g.secc.table import Settings

DIALECTS = {dialect.name: dialect for dialect in (din.DIALECT, iso2.DIALECT)}
# (ProtocolNamespace, VersionNumberMajor) of supportedAppProtocolReq -> protocol
OFFERS = {
    (NAMESPACES["din70121"], 2): "din70121",
    (NAMESPACES["iso15118_2"], 2): "iso15118-2",
}


def machine(settings: Settings) -> Machine:
    """The station's side of one connection."""
    return Machine(settings, DIALECTS, lambda namespace, major: OFFERS.get((namespace, major), ""))
