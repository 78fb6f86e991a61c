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


def page() -> str:
    """docs/ccs-tables.md: the four tables, from the code."""
    lines = [
        "# CCS: the four tables",
        "",
        "What a vehicle may send, and when. From `robot_charger/v2g/secc` by",
        "`python -m robot_charger.v2g.secc.protocols`; a test compares them. A request out of order is answered with",
        "FAILED_SequenceError. SessionStopReq may come at any time once a session is set up.",
    ]
    for name, dialect in {**DIALECTS, "ACDP": acdp.DIALECT}.items():
        lines += [
            "",
            f"## {name}",
            "",
            "| request | clause | may come after | outcome: what may follow |",
            "|---|---|---|---|",
        ]
        for request, entry in dialect.rows.items():
            anywhere = request in dialect.beside or request == "SessionStopReq"
            before = "at any time" if anywhere else ", ".join(map(_short, dialect.before(request))) or "the handshake"
            after = "; ".join(
                f"{outcome}: {follow}" if outcome else follow
                for outcome, names in entry.follow.items()
                for follow in [", ".join(sorted(map(_short, names))) or "the end"]
            )
            after = "no change" if request in dialect.beside else after
            lines.append(f"| {request} | {entry.clause} | {before} | {after} |")
    return "\n".join(lines) + "\n"


def _short(request: str) -> str:
    return request.removesuffix("Req")


if __name__ == "__main__":
    print(page(), end="")
