"""Pages that are written from the code: ``python -m robot_charger.operator.docs [--check] [FOLDER]``.

docs/topics.md from the table of topics and msg/, docs/parameters.md from the nodes' parameter classes,
docs/faults.md from the fault codes and their remedies, and robot_charger/common/parameters.json, by which parameter
files are checked (common.configuration).
"""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import json
import sys
from pathlib import Path
from typing import Any

from robot_charger.common.faults import Code
from robot_charger.common.parameters import Meaning, default_of, fields_of
from robot_charger.operator.remedies import ADVICE, FAMILIES
from robot_charger.station import nodes
from robot_charger.words.generate import bounds, enum_of, parse, plain_text

GENERATED = "<!-- Written by `python -m robot_charger.operator.docs` from the code; do not edit. -->"


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _row(*cells: Any) -> str:
    return "| " + " | ".join(_cell(c) for c in cells) + " |"


def _qos(profile: Any) -> str:
    words = [profile.reliability.name.lower().replace("_", " ")]
    words.append("latched" if profile.durability.name == "TRANSIENT_LOCAL" else "volatile")
    words.append(f"last {profile.depth}")
    deadline, lease = (round(d.nanoseconds / 1e6) for d in (profile.deadline, profile.liveliness_lease_duration))
    if 0 < deadline < 1e6:  # rclpy's default is a very long one
        words.append(f"deadline {deadline} ms, lease {lease} ms")
    return ", ".join(words)


def renewed(page: str, generated: str) -> str:
    """``page`` with what stands between its two markers replaced, as the benches publish their tables."""
    begins, ends = "<!-- table begins -->", "<!-- table ends -->"
    before, rest = page.split(begins)
    return f"{before}{begins}\n{generated}\n{ends}{rest.split(ends)[1]}"


def _interface(path: Path) -> tuple[str, list[str]]:
    """Leading comment of an interface file, and a table of its fields and constants with their ranges."""
    text = path.read_text().splitlines()
    head = [line.lstrip("# ") for line in itertools.takewhile(lambda line: line.startswith("#"), text)]
    interface = parse(path)
    rows, part = [], 0
    for line in interface.lines:
        while part < line.part:
            part += 1
            rows.append(_row("---", "", "", ""))
        name = f"`{line.name}`" + (f" = {line.value}" if line.value is not None else "")
        allowed = ""
        if line.value is None:
            low_high, enum = bounds(line), enum_of(interface, line)
            allowed = f"one of {enum}" if enum else f"{low_high[0]} to {low_high[1]}" if low_high else ""
        rows.append(_row(name, f"`{line.kind}`", allowed, plain_text(line)))
    return " ".join(head), ["| field | type | allowed | meaning |", "|---|---|---|---|", *rows]


def topics_page(source: Path) -> str:
    """``source``: folder with msg/, srv/ and action/."""
    from robot_charger.common.topics import EVSE_TOPICS, STATION_TOPICS

    lines = ["# Topics, services and actions", "", GENERATED, ""]
    lines += ["`/evseN` is the namespace of one EVSE: N counts from 1. Who says what is told in architecture.md.", ""]
    lines += ["| topic | type | quality of service |", "|---|---|---|"]

    def kind(message: type) -> str:
        package = message.__module__.split(".")[0]
        name = message.__name__
        own = f"[{name}](#{name.lower()})"
        return own if package == "robot_charger" else f"{package}/msg/{name}"

    for name, (message, qos) in EVSE_TOPICS.items():
        lines.append(_row(f"`/evseN/{name}`", kind(message), _qos(qos)))
    for name, (message, qos) in STATION_TOPICS.items():
        lines.append(_row(f"`{name}`", kind(message), _qos(qos)))
    for folder, title in (("msg", "Messages"), ("srv", "Services"), ("action", "Actions")):
        lines += ["", f"## {title}"]
        for path in sorted((source / folder).glob(f"*.{folder}")):
            head, table = _interface(path)
            lines += ["", f"### {path.stem}", "", head, "", *table]
    return "\n".join(lines) + "\n"


def parameter_classes() -> dict[str, type]:
    """Executable of every node -> its dataclass of parameters."""
    return {spec.executable: parameter_class(spec.executable) for spec in nodes()}


def parameter_class(executable: str) -> type:
    """The ``...Parameters`` dataclass of one node. Raises LookupError when it has none."""
    for module_name in ("parameters", "node"):
        try:
            module = importlib.import_module(f"robot_charger.{executable}.{module_name}")
        except ModuleNotFoundError:
            continue
        for name, value in vars(module).items():
            if name.endswith("Parameters") and dataclasses.is_dataclass(value) and fields_of(value):  # type: ignore[arg-type]
                return value  # type: ignore[return-value]
    raise LookupError(f"robot_charger.{executable} has no parameter class")


def _default(value: Any) -> str:
    if isinstance(value, str):
        return f"`{value}`" if value else "empty"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _range(meaning: Any) -> str:
    if meaning.choices:
        return ", ".join(f"`{c}`" if c else "empty" for c in meaning.choices)
    low = "" if meaning.low is None else f"{meaning.low:g}"
    high = "" if meaning.high is None else f"{meaning.high:g}"
    unit = f" {meaning.unit}" if meaning.unit else ""
    if low and high:
        return f"{low} to {high}{unit}"
    if low or high:
        return (f"from {low}" if low else f"up to {high}") + unit
    return meaning.unit


def parameters_page() -> str:
    lines = ["# Parameters", "", GENERATED, ""]
    lines += [
        "Files in config/ set them, `ros2 param describe NODE NAME` tells the same. Impossible and unknown ones are",
        "refused with a sentence. They are read-only while the node is active, but for those marked *live*. A value",
        "marked *lowers safety* is allowed and shown on /diagnostics for as long as it stands.",
    ]
    places = {spec.executable: "/" if spec.namespace == "/" else "/evseN/" for spec in nodes()}
    for executable, cls in parameter_classes().items():
        where = places[executable]
        lines += ["", f"## {where}{executable}", ""]
        lines += ["| parameter | default | range | meaning |", "|---|---|---|---|"]
        for name, (field, meaning) in fields_of(cls).items():
            text = meaning.text
            if meaning.live:
                text += " (*live*)"
            if meaning.unsafe is not None:
                value = "any but the default" if callable(meaning.unsafe) else _default(meaning.unsafe)
                text += f" (*lowers safety or privacy:* {value})"
            lines.append(_row(f"`{name}`", _default(default_of(field)), _range(meaning), text))
    return "\n".join(lines) + "\n"


def parameters_table() -> str:
    """What common.configuration needs to know of every parameter, as JSON: one line each."""
    nodes = []
    for executable, cls in parameter_classes().items():
        lines = []
        for name, (field, meaning) in fields_of(cls).items():
            keys = ("unit", "low", "high", "choices", "file")
            entry = {"default": default_of(field)}
            entry |= {k: getattr(meaning, k) for k in keys if getattr(meaning, k) != getattr(Meaning, k)}
            lines.append(f"{json.dumps(name)}: {json.dumps(entry)}")
        nodes.append(f"{json.dumps(executable)}: {{\n" + ",\n".join(lines) + "\n}")
    return "{\n" + ",\n".join(nodes) + "\n}\n"


def faults_page() -> str:
    lines = ["# Fault codes", "", GENERATED, ""]
    lines += [
        "Every fault is a msg/Fault on `fault` of the node's namespace, stands on /diagnostics while it lasts, and is",
        "kept in the recording. The first fault of a session is `session/state.fault`. How to go about one is told in",
        "troubleshooting.md.",
    ]
    family = 0
    for code in Code:
        if code is Code.NONE:
            continue
        if code // 100 != family:
            family = code // 100
            lines += [
                "",
                f"## {family}xx {FAMILIES[family]}",
                "",
                "| code | name | meaning | what to do |",
                "|---|---|---|---|",
            ]
        advice = ADVICE[code]
        lines.append(_row(int(code), f"`{code.name}`", advice.meaning, advice.remedy))
    return "\n".join(lines) + "\n"


def pages(source: Path) -> dict[str, str]:
    """File below ``source`` -> what it should hold."""
    return {
        "docs/topics.md": topics_page(source),
        "docs/parameters.md": parameters_page(),
        "docs/faults.md": faults_page(),
        "robot_charger/common/parameters.json": parameters_table(),
    }


def stale(source: Path) -> list[str]:
    """Names of the files below ``source`` that are not current."""
    return [
        name
        for name, text in pages(source).items()
        if not (source / name).exists() or (source / name).read_text() != text
    ]


def main(arguments: list[str]) -> int:
    check = "--check" in arguments
    folders = [a for a in arguments if a != "--check"]
    source = Path(folders[0]) if folders else Path(__file__).resolve().parents[2]
    old = stale(source)
    if not check:
        for name in old:
            (source / name).write_text(pages(source)[name])
    for name in old:
        print(f"{name} {'is not current: python -m robot_charger.operator.docs' if check else 'written'}")
    return 1 if check and old else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
