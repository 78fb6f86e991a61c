"""A picture of the nodes and what flows between them, taken from the running station.

``python -m robot_charger.operator.graph [--output docs/graph.md]`` writes a page with a mermaid diagram; topics of the
table only, /diagnostics and faults left out, for every node has them.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import rclpy

from robot_charger.common import host_only
from robot_charger.common.topics import EVSE_TOPICS, STATION_TOPICS

EVERYWHERE = ("fault", "/fault", "/diagnostics")
LISTENERS = ("desk_observer", "watch_observer", "recorder", "graph")
SETTLE_S = 3.0
PATIENCE_S = 40.0  # for the first word of a station


def edges(node: Any, evse: int) -> dict[tuple[str, str], list[str]]:
    """(publisher, subscriber) -> topics between them, full names."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    topics = [f"/evse{evse}/{t}" for t in EVSE_TOPICS if t not in EVERYWHERE]
    topics += [t for t in STATION_TOPICS if t not in EVERYWHERE]
    for topic in topics:
        sources = {_name(e) for e in node.get_publishers_info_by_topic(topic)}
        targets = {_name(e) for e in node.get_subscriptions_info_by_topic(topic)}
        for source in sorted(sources):
            for target in sorted(targets - {source}):
                if not any(n.endswith(listener) for n in (source, target) for listener in LISTENERS):
                    found[source, target].append(topic)
    return dict(found)


def _name(endpoint: Any) -> str:
    return f"{endpoint.node_namespace.rstrip('/')}/{endpoint.node_name}"


def nameless(found: dict[tuple[str, str], list[str]]) -> bool:
    """A participant is there whose node has not yet told its name."""
    return any("_NODE_NAME_UNKNOWN_" in name for pair in found for name in pair)


def mermaid(found: dict[tuple[str, str], list[str]], evse: int) -> str:
    """A flow chart: one arrow per pair of nodes, with the names of its topics."""
    names = sorted({n for pair in found for n in pair})
    lines = ["flowchart LR"]
    lines += [f'    {_id(n)}["{n}"]' for n in names]
    prefix = f"/evse{evse}/"
    for (source, target), topics in sorted(found.items()):
        told = "<br>".join(t[len(prefix) :] if t.startswith(prefix) else t for t in topics)
        lines.append(f'    {_id(source)} -->|"{told}"| {_id(target)}')
    return "\n".join(lines)


def _id(name: str) -> str:
    return name.strip("/").replace("/", "_")


def page(picture: str, evse: int) -> str:
    return (
        "# Nodes and topics\n\n"
        f"Taken from a running station by `python -m robot_charger.operator.graph`: EVSE {evse} and what it "
        "shares with the\n"
        "others. Names without a leading slash are those of the EVSE. Every node also says `fault` and "
        "`/diagnostics`.\n\n"
        f"```mermaid\n{picture}\n```\n"
    )


def look(evse: int) -> dict[tuple[str, str], list[str]]:
    """The graph, once it has not changed for SETTLE_S."""
    rclpy.init()
    node = rclpy.create_node("graph", enable_rosout=False, start_parameter_services=False)
    try:
        known: dict[tuple[str, str], list[str]] = {}
        since = time.monotonic()
        while time.monotonic() - since < (SETTLE_S if known and not nameless(known) else PATIENCE_S):
            now = edges(node, evse)
            if now != known:
                known, since = now, time.monotonic()
            time.sleep(0.1)
        return known
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


def main() -> int:
    parser = argparse.ArgumentParser(prog="graph", description="Picture of a running station's nodes and topics.")
    parser.add_argument("--evse", type=int, default=1)
    parser.add_argument("--output", type=Path, help="write a page; otherwise the diagram is printed")
    options = parser.parse_args()
    host_only.stay()
    found = look(options.evse)
    if not found:
        print("no station is heard: set ROS_DOMAIN_ID to its own")
        return 1
    if nameless(found):
        print(f"a node did not tell its name within {PATIENCE_S:.0f} s: try again")
        return 1
    picture = mermaid(found, options.evse)
    if options.output:
        options.output.write_text(page(picture, options.evse))
    else:
        print(picture)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
