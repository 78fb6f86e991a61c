"""The flow table as a picture and as a table for docs/session.md: ``python -m robot_charger.supervisor.diagram``."""

from __future__ import annotations

from collections import defaultdict

from robot_charger.supervisor.flow import RULES
from robot_charger.words.values import Phase

_ANYWHERE = 6  # a rule from so many phases is drawn in words, not as arrows


def mermaid() -> str:
    """State diagram of the rules that lead from one phase to another."""
    labels: dict[tuple[str, str], list[str]] = defaultdict(list)
    for rule in RULES:
        if rule.target is None or len(rule.sources) >= _ANYWHERE:
            continue
        for source in rule.sources:
            if source != rule.target:
                labels[source.name, rule.target.name].append(rule.event)
    arrows = [f"    {a} --> {b}: {' / '.join(dict.fromkeys(events))}" for (a, b), events in labels.items()]
    return "\n".join(["stateDiagram-v2", f"    [*] --> {Phase.UNAVAILABLE.name}", *arrows])


def table() -> str:
    """Every rule, in the order in which they are tried."""
    rows = ["| in | when | goes to |", "|---|---|---|"]
    for rule in RULES:
        sources = ", ".join(p.name.lower() for p in rule.sources)
        target = rule.target.name.lower() if rule.target is not None else "stays"
        rows.append(f"| {sources} | {rule.event} | {target} |")
    return "\n".join(rows)


def page(text: str) -> str:
    """``text`` of docs/session.md with the generated parts renewed between their markers."""
    for name, content in (("diagram", f"```mermaid\n{mermaid()}\n```"), ("rules", table())):
        begin, end = f"<!-- {name} begins -->", f"<!-- {name} ends -->"
        head, rest = text.split(begin)
        text = f"{head}{begin}\n{content}\n{end}{rest.split(end)[1]}"
    return text


if __name__ == "__main__":
    import sys
    from pathlib import Path

    path = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/session.md")
    path.write_text(page(path.read_text()))
